# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Rings in views: an alias takes nothing, and a snapshot of a ring has whole messages in order; with passthrough also of one in use.
. "$(dirname "$0")/lib.sh"

tool=${PMFS_BUILD:-.}/tests/lib/ringtool
[ -x "$tool" ] || skip 'tests/lib/ringtool is not built'

make_image "$T/image"
mount_pmfs "$T/image" "$T/m"
[ -d "$T/m/.pmfs/views/." ] || fail 'there are no views'
views=$T/m/.pmfs/views alias=$T/m/.pmfs/alias

say 'an alias can only be looked at'
"$tool" create "$views/ring" 65536
"$tool" create "$views/many" 262144 multi
"$tool" write "$views/ring" 0 0 10
expect_errno 'Permission denied' "$tool" read "$alias/ring" 1
expect_errno 'Permission denied' "$tool" write "$alias/ring" 0 10 1
expect_equal "$("$tool" read "$views/ring" 0)" '10 0:9' 'the ring'

check_copies() { # SNAPSHOT: what is in it is whole and in order
	local ring count
	for ring in ring many; do
		"$tool" check "$T/m/.snapshots/$1/.pmfs/views/$ring" >"$T/got" || fail "the copy of $ring in $1"
		read -r count _ <"$T/got"
		whole=$((whole + count))
	done
}
whole=0

if pmfs-ctl --json status "$T/m" | grep -q '"passthrough": *true'; then
	say 'snapshots of rings in use'
	"$tool" write "$views/ring" 1 0 0 &
	writers=($!)
	for n in 2 3 4; do
		"$tool" write "$views/many" "$n" 0 0 &
		writers+=($!)
	done
	STARTED+=("${writers[@]}")
	readers=()
	for ring in ring many; do
		"$tool" read "$views/$ring" 100000000 >/dev/null &
		readers+=($!)
		STARTED+=($!)
	done
	for n in 1 2 3 4 5 6 7 8; do
		pmfs-snap create -q "$T/m" "s$n"
		check_copies "s$n"
	done
	for pid in "${writers[@]}" "${readers[@]}"; do
		kill -KILL "$pid" 2>/dev/null || fail "a writer or reader has ended"
		wait "$pid" 2>/dev/null || true
	done
else
	say 'snapshots of rings between two batches: stores reach the daemon page by page without passthrough'
	for n in 1 2 3 4 5 6 7 8; do
		"$tool" write "$views/ring" 1 0 50
		"$tool" write "$views/many" 2 0 50
		pmfs-snap create -q "$T/m" "s$n"
		check_copies "s$n"
		for ring in ring many; do
			"$tool" read "$views/$ring" 0 >/dev/null
		done
	done
	expect_equal "$whole" 800 "messages in the copies"
fi
say "$whole messages in the copies"

say 'the rings go on'
for ring in ring many; do
	"$tool" read "$views/$ring" 0 >/dev/null
	"$tool" write "$views/$ring" 7 0 50
	expect_equal "$("$tool" read "$views/$ring" 0)" '50 7:49' "$ring"
done
umount_pmfs "$T/m"
check_image "$T/image"
