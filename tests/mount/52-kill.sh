#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# kill -9 of the daemon in the middle of writes: the image mounts at once, is clean, and has every file whose fsync returned.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need dd sha256sum

M=$T/mnt IMAGE=$T/image
ROUNDS=${PMFS_KILL_ROUNDS:-6}
make_image "$IMAGE" 1G

# One writer: files of all sizes, each written, synced, renamed into place, its directory synced; only then noted.
writer() { # NUMBER ROUND
	local i name
	for ((i = 0; ; i++)); do
		name=w$1.r$2.$i
		head -c $((i * 7919 % 200000)) /dev/urandom >"$T/data.$1" || return 0
		cat "$T/data.$1" >"$M/tmp.$name" 2>/dev/null || return 0
		sync "$M/tmp.$name" 2>/dev/null || return 0
		mv "$M/tmp.$name" "$M/$name" 2>/dev/null || return 0
		sync "$M" 2>/dev/null || return 0
		echo "$(sha256sum <"$T/data.$1" | cut -d' ' -f1)  $name" >>"$T/acknowledged.$1"
		if [ $((i % 3)) -eq 2 ] && [ "$1" = 1 ]; then
			# Until its removal is synced it may be there or not.
			sed -i '$d' "$T/acknowledged.$1"
			rm "$M/$name" 2>/dev/null || return 0
			sync "$M" 2>/dev/null || return 0
			echo "$name" >>"$T/removed"
		fi
	done
}
enough() {
	[ "$(cat "$T"/acknowledged.* | wc -l)" -ge "$WANT" ]
}

: >"$T/acknowledged.1"
: >"$T/acknowledged.2"
: >"$T/removed"
for ((round = 1; round <= ROUNDS; round++)); do
	say "round $round"
	mount_pmfs "$IMAGE" "$M"
	WANT=$(($(cat "$T"/acknowledged.* | wc -l) + 5 + round * 3))
	writer 1 $round &
	one=$!
	writer 2 $round &
	two=$!
	[ $((round % 2)) -ne 0 ] || pmfs-snap create "$M" "round-$round"
	wait_for enough
	# The dead mount stays until the writers have met it: without it they would go on in the directory below.
	kill -KILL "$DAEMON"
	wait $one $two || true
	wait_gone "$DAEMON" || fail "the daemon $DAEMON does not die"
	fusermount3 -uz "$M" || fail "can't take the dead mount $M away"

	# What a killed writer was about to note may be there or not; what it noted must be.
	check_image "$IMAGE"
	mount_pmfs "$IMAGE" "$M"
	(cd "$M" && cat "$T"/acknowledged.* | sha256sum --quiet -c) || fail "a file whose fsync returned is gone or damaged"
	while read -r name; do
		[ ! -e "$M/$name" ] || fail "$name is back, though its removal was synced"
	done <"$T/removed"
	[ $((round % 2)) -ne 0 ] || [ -d "$M/.snapshots/round-$round" ] || fail "the snapshot of round $round is gone"
	rm -f "$M"/tmp.*
	umount_pmfs "$M"
done
say "$(cat "$T"/acknowledged.* | wc -l) files acknowledged in $ROUNDS rounds, all there"
