#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Mount options do what they say.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need jq
M=$T/mnt
make_image "$T/img" 256M

flags() { # the options that the kernel shows for the mount
	awk -v d="$1" '$5 == d { sub(/ - .*/, ""); print $6 }' /proc/self/mountinfo
}

say 'nodev and nosuid unless said otherwise'
mount_pmfs "$T/img" "$M"
[[ $(flags "$M") == *nosuid*nodev* ]] || fail "the flags are $(flags "$M")"
printf '#!/bin/sh\necho ran\n' >"$M/script"
chmod +x "$M/script"
expect_equal "$("$M/script")" ran 'a script in the mount'
umount_pmfs "$M"

say 'noexec, noatime'
mount_pmfs "$T/img" "$M" noexec,noatime,nodev
[[ $(flags "$M") == *noexec* && $(flags "$M") == *noatime* ]] || fail "the flags are $(flags "$M")"
expect_errno 'Permission denied' "$M/script"
umount_pmfs "$M"
mount_pmfs "$T/img" "$M" noexec,exec,rw,defaults,auto,nofail,user=x,x-any=thing
expect_equal "$("$M/script")" ran 'exec behind noexec'
umount_pmfs "$M"

if [ "$(id -u)" = 0 ]; then
	say 'dev and suid for root'
	mount_pmfs "$T/img" "$M" dev,suid
	[[ $(flags "$M") != *nosuid* && $(flags "$M") != *nodev* ]] || fail "the flags are $(flags "$M")"
	umount_pmfs "$M"
fi

say 'ro'
mount_pmfs "$T/img" "$M" ro
expect_errno 'Read-only file system' touch "$M/x"
expect_ok pmfs --json
jq -e --arg d "$M" 'any(.data.mounts[]; .dir == $d and .read_only)' "$OUT" >/dev/null || fail 'the list does not say so'
say 'two that only read may share an image, and no writer with them'
mount_pmfs "$T/img" "$T/second" ro
expect_equal "$(cat "$T/second/script")" "$(cat "$M/script")" 'contents'
mkdir "$T/third"
expect_fail 7 pmfs "$T/img" "$T/third"
umount_pmfs "$T/second"
umount_pmfs "$M"

say 'snapdir'
mount_pmfs "$T/img" "$M"
pmfs-snap -q create "$M" s
[[ $(ls -A "$M") != *.snapshots* ]] || fail '.snapshots is listed'
umount_pmfs "$M"
mount_pmfs "$T/img" "$M" snapdir=visible
[[ $(ls -A "$M") == *.snapshots* ]] || fail '.snapshots is not listed'
umount_pmfs "$M"

say 'size= of a RAM region is what df shows'
mount_pmfs ram "$M" size=64M
size=$(stat -f -c '%b * %S' "$M")
[ "$((size))" -le $((64 << 20)) ] && [ "$((size))" -ge $((60 << 20)) ] || fail "df shows $((size))"
umount_pmfs "$M"

say 'commit=, threads=, io_uring=, writeback, noxattr are taken'
mount_pmfs "$T/img" "$M" 'commit=1,threads=2,io_uring=off,writeback'
expect_ok pmfs-ctl status "$M" --json
jq -e '.data.features | .io_uring == false and .writeback == true' "$OUT" >/dev/null || fail 'status does not say so'
umount_pmfs "$M"
mount_pmfs "$T/img" "$M" noxattr
expect_equal "$("$M/script")" ran 'a script with noxattr'
umount_pmfs "$M"
check_image "$T/img"
