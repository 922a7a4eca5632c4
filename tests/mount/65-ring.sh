# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Rings in files of a mount: between processes that are killed, over a remount, in a snapshot, and
# after the daemon was killed.
. "$(dirname "$0")/lib.sh"

tool=${PMFS_BUILD:-.}/tests/lib/ringtool
[ -x "$tool" ] || skip 'tests/lib/ringtool is not built'

make_image "$T/image"
mount_pmfs "$T/image" "$T/m"

# The places where shared memory can be: any file, and views where there are some.
places() {
	echo "$T/m"
	if [ -d "$T/m/.pmfs/views/." ]; then
		echo "$T/m/.pmfs/views"
	fi
}

last_of() {
	sed -n "s/.* $1:\([0-9]*\).*/\1/p"
}

say 'one producer, one consumer'
for place in $(places); do
	"$tool" create "$place/one" 65536
	"$tool" write "$place/one" 3 0 20000 &
	writer=$!
	"$tool" read "$place/one" 20000 >"$T/got"
	wait "$writer"
	expect_equal "$(cat "$T/got")" '20000 3:19999' "$place"
done

say 'several producers'
for place in $(places); do
	"$tool" create "$place/many" 65536 multi
	writers=()
	for n in 0 1 2 3; do
		"$tool" write "$place/many" "$n" 0 5000 &
		writers+=($!)
	done
	"$tool" read "$place/many" 20000 >"$T/got"
	for writer in "${writers[@]}"; do
		wait "$writer"
	done
	expect_equal "$(cat "$T/got")" '20000 0:4999 1:4999 2:4999 3:4999' "$place"
done

say 'stores of one process are seen by another in their order'
for place in $(places); do
	expect_ok "${tool%ringtool}litmus" order "$place/words" "$place/words" 10000000
done

say 'a producer is killed and another goes on'
for place in $(places); do
	next=0
	for round in 1 2 3 4 5; do
		"$tool" write "$place/one" 1 "$next" 0 &
		writer=$!
		"$tool" read "$place/one" "$((round * 377))" >/dev/null
		kill -KILL "$writer"
		wait "$writer" 2>/dev/null || true
		# What is there is whole, and begins with what comes next.
		"$tool" read "$place/one" 0 >"$T/got"
		last=$(last_of 1 <"$T/got")
		if [ -n "$last" ]; then
			next=$((last + 1))
		fi
	done
	[ "$next" -gt 377 ] || fail "only $next messages came through $place"
done

say 'the position and what was not read stay over a remount'
for place in $(places); do
	"$tool" write "$place/one" 5 0 40
	"$tool" read "$place/one" 15 >/dev/null
done
umount_pmfs "$T/m"
check_image "$T/image"
mount_pmfs "$T/image" "$T/m"
for place in $(places); do
	expect_equal "$("$tool" check "$place/one")" '25 5:39' "$place"
	"$tool" write "$place/one" 5 40 10
	expect_equal "$("$tool" read "$place/one" 0)" '35 5:49' "$place"
done

say 'a snapshot of a ring that rests'
for place in $(places); do
	"$tool" write "$place/one" 6 0 30
	"$tool" read "$place/one" 10 >/dev/null
done
pmfs-snap create -q "$T/m" rest
for place in $(places); do
	"$tool" read "$place/one" 0 >/dev/null
	"$tool" write "$place/one" 6 100 3
	rm -f "$place/many"
done
expect_equal "$("$tool" check "$T/m/.snapshots/rest/one")" '20 6:29' 'the snapshot'
# And it can't be taken from.
expect_errno 'Read-only file system' "$tool" read "$T/m/.snapshots/rest/one" 1

say 'the daemon is killed'
pmfs-ctl sync "$T/m" -q
kill_pmfs "$T/m"
mount_pmfs "$T/image" "$T/m"
for place in $(places); do
	expect_equal "$("$tool" read "$place/one" 0)" '3 6:102' "$place"
done
umount_pmfs "$T/m"
check_image "$T/image"
