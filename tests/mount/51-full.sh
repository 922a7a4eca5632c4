#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A full filesystem: ENOSPC to who writes, nothing lost, and removing works and gives the room back.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need dd cmp jq

fill() { # DIR: files of 1 MiB until there is no room for another
	local i
	for ((i = 0; i < 4000; i++)); do
		if ! dd if=/dev/urandom of="$1/f$i" bs=64K count=16 conv=fsync status=none 2>"$T/dd.err"; then
			grep -qF "No space left on device" "$T/dd.err" || {
				cat "$T/dd.err"
				fail "writing failed otherwise than for want of space"
			}
			return 0
		fi
		sha256sum "$1/f$i" >>"$T/whole"
	done
	fail "4000 MiB went into a filesystem of much less"
}

run() { # SOURCE OPTIONS
	local M=$T/mnt free kept first now
	mount_pmfs "$1" "$M" "${2-}"
	mkdir "$M/d"
	echo "kept" >"$M/kept"
	sync "$M/kept"

	say "$1: fill it up"
	: >"$T/whole"
	fill "$M/d"
	[ -s "$T/whole" ] || fail "not one file fitted"
	sha256sum --quiet -c "$T/whole" || fail "a file that was written and synced is not what was written"
	free=$(stat -f -c %a "$M")
	first=$(wc -l <"$T/whole")
	[ "$free" -lt 512 ] || fail "df says that $free pages are available, but a MiB does not fit"

	say "$1: a full filesystem can be looked at, snapshotted or not, and cleaned up"
	ls -lR "$M" >/dev/null
	kept=$(cat "$M/kept")
	expect_equal "$kept" kept
	rm "$M/d"/f*
	rmdir "$M/d"

	say "$1: the room is there again, three times"
	for _ in 1 2 3; do
		mkdir "$M/d"
		: >"$T/whole"
		fill "$M/d"
		now=$(wc -l <"$T/whole")
		[ "$now" -ge $((first - 1)) ] || fail "$first files fitted at first, now only $now"
		rm -r "$M/d"
	done

	say "$1: full of what a snapshot holds: deleting it gives the room back"
	mkdir "$M/d"
	: >"$T/whole"
	fill "$M/d"
	rm "$M/d/f0" "$M/d/f1" # room for the snapshot's own pages
	pmfs-snap create "$M" s
	rm -r "$M/d"
	pmfs-snap delete "$M" s
	room() {
		pmfs-ctl sync "$M"
		[ "$(stat -f -c %a "$M")" -gt 4096 ]
	}
	wait_for room
	dd if=/dev/zero of="$M/zeros" bs=1M count=8 conv=fsync status=none
	umount_pmfs "$M"
}

IMAGE=$T/image
make_image "$IMAGE" 48M
run "$IMAGE"
check_image "$IMAGE"
run ram size=48M
