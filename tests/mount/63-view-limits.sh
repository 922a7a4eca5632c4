#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Who may do what with views, and how much memory they take.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
chmod 755 "$T"

memory() {
	df --output=used -B1 "$M/.pmfs/views" | tail -n 1 | tr -d " "
}

run() { # OPTIONS
	local n
	mount_pmfs ram "$M" "$(join_options size=256M,views=16M,allow_other "${1-}")"
	V=$M/.pmfs/views

	say "${1:-defaults}: the limit is ENOSPC, and what is given back can be used again"
	head -c 12M /dev/zero | tr '\0' a >"$V/a"
	expect_errno "No space" dd if=/dev/urandom of="$V/b" bs=1M count=8 status=none
	expect_errno "No space" fallocate -l 8M "$V/c"
	expect_equal "$(wc -c <"$V/a")" 12582912
	rm "$V/a" "$V/b" "$V/c"
	for ((n = 0; n < WAIT_TENTHS; n++)); do
		[ "$(memory)" -eq 0 ] && break || sleep 0.1
	done
	expect_equal "$(memory)" 0 "memory of removed views"
	dd if=/dev/urandom of="$V/b" bs=1M count=14 status=none
	sum=$(sha256sum <"$V/b")

	say "${1:-defaults}: a view that nobody uses leaves memory, and comes back"
	for ((n = 0; n < WAIT_TENTHS; n++)); do
		[ "$(memory)" -eq 0 ] && break || sleep 0.1
	done
	expect_equal "$(memory)" 0 "memory of unused views"
	expect_equal "$(sha256sum <"$V/b")" "$sum" "contents"
	truncate -s 1G "$V/sparse"
	expect_equal "$(stat -c %s "$V/sparse")" 1073741824
	rm "$V/sparse" "$V/b"

	if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
		say "${1:-defaults}: permissions are those of files in a directory like /tmp"
		as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; }
		as 1234 sh -c "umask 077; echo mine >'$V/mine'"
		expect_equal "$(stat -c '%u %a' "$V/mine")" "1234 600"
		expect_errno "denied" as 4321 cat "$V/mine"
		expect_errno "denied" as 4321 cat "$M/.pmfs/alias/mine"
		expect_errno "not permitted" as 4321 rm -f "$V/mine"
		expect_equal "$(as 1234 cat "$M/.pmfs/alias/mine")" mine
		expect_errno "denied" as 1234 sh -c "echo x >>'$M/.pmfs/alias/mine'"
		as 1234 chmod 644 "$V/mine"
		expect_equal "$(as 4321 cat "$V/mine")" mine
		expect_errno "denied" as 4321 sh -c "echo x >>'$V/mine'"
		as 1234 rm "$V/mine"
	fi
	umount_pmfs "$M"
}

run
run passthrough=off

say "a read-only mount shows views and takes none"
make_image "$T/image" 64M
mount_pmfs "$T/image" "$M"
echo there >"$M/.pmfs/views/x"
umount_pmfs "$M"
mount_pmfs "$T/image" "$M" ro
expect_equal "$(cat "$M/.pmfs/views/x")" there
expect_equal "$(cat "$M/.pmfs/alias/x")" there
expect_errno "Read-only" sh -c "echo y >'$M/.pmfs/views/y'"
umount_pmfs "$M"
check_image "$T/image"
