#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Nothing to mount on, or no way to mount: one line, the right exit status, no daemon left.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
M=$T/mnt
mkdir "$M"
make_image "$T/img" 64M

not_listed() {
	pmfs >"$OUT" && ! grep -qF "$T" "$OUT"
}
# A daemon whose mount has gone needs a moment for its last commit; one that is left never goes.
none_left() {
	wait_for not_listed
	wait_for fsck.pmfs -n "$T/img"
}

say 'missing, not a directory, in use'
expect_fail 5 pmfs "$T/img" "$T/missing"
expect_text "$T/missing"
: >"$T/file"
expect_fail 5 pmfs "$T/img" "$T/file"
expect_text 'not a directory'
ln -s "$T/nowhere" "$T/link"
expect_fail 5 pmfs "$T/img" "$T/link"
mount_pmfs ram "$M" size=64M
expect_fail 7 pmfs "$T/img" "$M"
umount_pmfs "$M"
none_left

say 'through a link, with blanks and other characters in the name'
mkdir "$T/a b\\c	d\"e"
ln -s "$T/a b\\c	d\"e" "$T/good"
expect_ok pmfs "$T/img" "$T/good"
expect_ok pmfs-snap create "$T/good" s
expect_ok pmfs-ctl df "$T/a b\\c	d\"e"
expect_ok pmfs --json
umount "$T/a b\\c	d\"e"
none_left

say 'with a name that is not UTF-8: JSON has a twin of it'
odd=$T/$(printf 'odd-\377')
mkdir "$odd"
cp "$T/img" "$odd/img"
expect_ok pmfs "$odd/img" "$odd"
expect_ok pmfs-ctl status "$odd" --json
python3 -c 'import base64, json, os, sys
m = json.load(open(sys.argv[1]))["data"]["mount"]
assert base64.b64decode(m["dir_base64"]) == os.fsencode(sys.argv[2]), m' "$OUT" "$odd" || fail 'the twin is not right'
expect_ok pmfs --json
expect_text dir_base64 "$OUT"
expect_ok pmfs-snap create "$odd" in-an-odd-place
umount "$odd"
check_image "$odd/img"

say 'over a directory that has something in it, and under a second mount'
mkdir "$M/below"
: >"$M/below/file"
mount_pmfs "$T/img" "$M"
[ ! -e "$M/below" ] || fail 'what is below shows'
umount_pmfs "$M"
[ -e "$M/below/file" ] || fail 'what is below is gone'

if [ "$(id -u)" != 0 ]; then
	exit 0
fi

say 'no /dev/fuse, or no right to it'
if unshare -m true 2>/dev/null; then
	no_device() {
		# shellcheck disable=SC2016
		unshare -m sh -c 'mount -t tmpfs none /dev && exec "$@"' sh "$@"
	}
	closed_device() {
		# shellcheck disable=SC2016
		unshare -m sh -c 'mount -t tmpfs none /dev && mknod -m 600 /dev/fuse c 10 229 && mknod -m 666 /dev/null c 1 3 &&
			exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"' sh "$@"
	}
	expect_fail 1 no_device pmfs "$T/img" "$M"
	expect_text '/dev/fuse'
	expect_fail 1 no_device pmfs doctor
	expect_text 'mounting can'
	chmod 755 "$T"
	if setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$(command -v pmfs)"; then
		chmod 666 "$T/img"
		chown 65534 "$M"
		expect_fail 9 closed_device "$(command -v pmfs)" "$T/img" "$M"
		expect_text '/dev/fuse'
	fi
	none_left
fi
