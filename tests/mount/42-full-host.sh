#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# The disk that the image is on is full: ENOSPC to who writes, nothing stored is lost, the daemon lives, and space that comes back is used.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip 'only root can mount a small filesystem for the image'
M=$T/mnt
HOST=$T/host
mkdir "$M" "$HOST"

run() { # NAME: $HOST is a small filesystem
	say "$1: no room for an image"
	dd if=/dev/zero of="$HOST/ballast" bs=64K status=none 2>/dev/null || true
	expect_fail 8 mkfs.pmfs "$HOST/img" --size 1G
	[ ! -s "$HOST/img" ] || fail 'half an image is left'
	expect_fail 8 pmfs "$HOST/img" "$M" --create --size 1G
	[ ! -s "$HOST/img" ] || fail 'half an image is left'
	rm -f "$HOST/ballast" "$HOST/img"

	say "$1: it fills up under a mount"
	make_image "$HOST/img" 1G
	mount_pmfs "$HOST/img" "$M"
	head -c 1M /dev/urandom >"$M/kept"
	sync "$M/kept"
	sum=$(sha256sum <"$M/kept")
	expect_errno 'No space left on device' dd if=/dev/urandom of="$M/big" bs=64K count=4096 conv=fsync
	kill -0 "$DAEMON" || fail 'the daemon has died'
	expect_equal "$(sha256sum <"$M/kept")" "$sum" 'sum of what was there'
	expect_ok pmfs-ctl status "$M"

	say "$1: removing works, and there is room again"
	rm "$M/big"
	pmfs-ctl sync "$M"
	head -c 1M /dev/urandom >"$M/again"
	sync "$M/again"

	say "$1: the rest of the disk goes to somebody else"
	dd if=/dev/zero of="$HOST/ballast" bs=64K status=none 2>/dev/null || true
	written=0
	while head -c 256K /dev/urandom >"$M/more.$written" 2>/dev/null && sync "$M/more.$written" 2>/dev/null; do
		written=$((written + 1))
		[ "$written" -lt 400 ] || fail 'it never fills up'
	done
	kill -0 "$DAEMON" || fail 'the daemon has died'
	expect_equal "$(sha256sum <"$M/kept")" "$sum" 'sum of what was there'
	rm -f "$HOST/ballast" "$M"/more.*
	again=$(sha256sum <"$M/again")
	umount_pmfs "$M"
	check_image "$HOST/img"
	mount_pmfs "$HOST/img" "$M"
	expect_equal "$(sha256sum <"$M/kept")" "$sum" 'sum after a remount'
	expect_equal "$(sha256sum <"$M/again")" "$again" 'sum after a remount'
	kill_pmfs "$M"
	check_image "$HOST/img"
	umount "$HOST"
}

mount -t tmpfs -o size=40M none "$HOST" || skip "can't mount a tmpfs"
run tmpfs

if command -v mkfs.ext4 >/dev/null; then
	truncate -s 48M "$T/ext4"
	mkfs.ext4 -q -O ^has_journal "$T/ext4"
	if mount -o loop "$T/ext4" "$HOST" 2>/dev/null; then
		run ext4
	fi
fi
