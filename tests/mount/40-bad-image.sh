#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Images that can't be mounted, or not by this user: one line, the right exit status, and what is stored stays as it is.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
M=$T/mnt
mkdir "$M"
RESEAL=${PMFS_BUILD:+$PMFS_BUILD/tests/lib/reseal}

# bad STATUS TEXT IMAGE: what pmfs and fsck.pmfs say to it; neither may change it.
bad() {
	local before
	before=$(sha256sum <"$3")
	expect_fail "$1" pmfs "$3" "$M"
	expect_text "$2"
	! is_mounted "$M" || fail 'it is mounted all the same'
	expect_fail "$1" pmfs "$3" "$M" -o ro
	expect_fail "$1" pmfs "$3" "$M" --create
	if [ "$1" = 11 ]; then
		run_status fsck.pmfs -n "$3"
		expect_equal "$STATUS" 4 'status of fsck.pmfs'
		[ -s "$OUT" ] || fail 'fsck.pmfs prints no finding'
	else
		expect_fail 8 fsck.pmfs -n "$3"
	fi
	expect_equal "$(sha256sum <"$3")" "$before" "sum of $3"
}

say 'missing'
expect_fail 5 pmfs "$T/missing" "$M"
expect_fail 5 pmfs "$T/missing/deeper" "$M"
expect_fail 5 pmfs "$T/missing/deeper" "$M" --create
expect_fail 8 fsck.pmfs -n "$T/missing"
expect_fail 5 mkfs.pmfs "$T/missing/deeper"

say 'not pmfs'
mkdir "$T/dir"
expect_fail 10 pmfs "$T/dir" "$M"
: >"$T/empty"
bad 10 'no pmfs image' "$T/empty"
head -c 10 /dev/urandom >"$T/short"
bad 10 'no pmfs image' "$T/short"
head -c 8M /dev/urandom >"$T/noise"
bad 10 'no pmfs image' "$T/noise"
head -c 8M /dev/zero >"$T/zeros"
bad 10 'no pmfs image' "$T/zeros"
mkfifo "$T/fifo"
expect_fail 10 pmfs "$T/fifo" "$M"
expect_fail 10 pmfs /dev/null "$M"

say 'mkfs.pmfs does not overwrite unless told so'
sum=$(sha256sum <"$T/noise")
expect_fail 6 mkfs.pmfs "$T/noise"
expect_text '--force'
expect_equal "$(sha256sum <"$T/noise")" "$sum" 'sum'
expect_ok mkfs.pmfs "$T/noise" --force --size 64M
check_image "$T/noise"
expect_ok mkfs.pmfs "$T/empty" --size 64M
check_image "$T/empty"

say 'in use'
make_image "$T/img" 64M
mount_pmfs "$T/img" "$M"
echo precious >"$M/file"
head -c 2M /dev/urandom >"$M/data"
# Twice, so that both superblock slots need all of the image.
pmfs-ctl sync "$M"
echo more >"$M/more"
pmfs-ctl sync "$M"
mkdir "$T/m2"
expect_fail 7 pmfs "$T/img" "$T/m2"
expect_text "$M"
expect_fail 7 mkfs.pmfs "$T/img" --force
expect_text "$M"
expect_fail 8 fsck.pmfs -n "$T/img"
expect_text "$M"
expect_equal "$(cat "$M/file")" precious 'contents'
umount_pmfs "$M"

say 'truncated'
for size in 4096 200000 1000000; do
	cp "$T/img" "$T/cut"
	truncate -s "$size" "$T/cut"
	bad 11 cut "$T/cut"
done

if [ "$(id -u)" = 0 ] && chmod 755 "$T" && setpriv --reuid=65534 --regid=65534 --clear-groups \
	sh -c '[ -x "$1" ] && [ -r /dev/fuse ] && [ -w /dev/fuse ]' sh "$(command -v pmfs)"; then
	say 'no right to write, no right to read'
	as() {
		setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
	}
	cp "$T/img" "$T/readonly"
	chmod 444 "$T/readonly"
	chown 65534 "$M"
	expect_fail 9 as "$(command -v pmfs)" "$T/readonly" "$M"
	expect_text '-o ro'
	chmod 000 "$T/readonly"
	expect_fail 9 as "$(command -v pmfs)" "$T/readonly" "$M" -o ro
	chown 0 "$M"
fi

if [ -x "$RESEAL" ]; then
	say 'of a newer version, with features that are not known'
	# poke IMAGE OFFSET: the byte at this offset in both slots becomes 0x77.
	poke() {
		local slot
		for slot in 0 131072; do
			printf '\x77' | dd of="$1" bs=1 seek=$((slot + $2)) conv=notrunc status=none
		done
		"$RESEAL" "$1" >/dev/null
	}
	cp "$T/img" "$T/newer"
	poke "$T/newer" 8
	bad 10 'newer' "$T/newer"
	cp "$T/img" "$T/newer"
	poke "$T/newer" 19
	bad 10 'newer' "$T/newer"
	say 'a superblock that is intact and contradicts itself'
	for offset in 38 46 54 62 72 76; do # frames, limit, pages, map root, height, deltas
		cp "$T/img" "$T/wrong"
		poke "$T/wrong" "$offset"
		bad 11 wrong "$T/wrong"
	done
	newest=$("$RESEAL" "$T/img")
	say 'one damaged slot: the image is as it was a commit ago, or now'
	for slot in 0 1; do
		cp "$T/img" "$T/half"
		printf '\x77' | dd of="$T/half" bs=1 seek=$((slot * 131072 + 100)) conv=notrunc status=none
		mount_pmfs "$T/half" "$M"
		if [ "$slot" != "$newest" ]; then
			expect_equal "$(cat "$M/file")" precious 'contents'
		fi
		echo more >"$M/more"
		umount_pmfs "$M"
		check_image "$T/half"
	done
fi

say 'both slots damaged'
cp "$T/img" "$T/both"
for at in 100 131172; do
	printf '\x77' | dd of="$T/both" bs=1 seek=$at conv=notrunc status=none
done
bad 11 both "$T/both"

say 'after all that the image is whole'
check_image "$T/img"
mount_pmfs "$T/img" "$M"
expect_equal "$(cat "$M/file")" precious 'contents'
umount_pmfs "$M"
