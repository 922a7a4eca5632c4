#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Ten million stores of one process through a view are loads of another, each of them, in order; through the alias, too, with passthrough.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"

litmus=${PMFS_BUILD:-.}/tests/lib/litmus
[ -x "$litmus" ] || skip 'tests/lib/litmus is not built'

M=$T/mnt
stores=10000000

both_ways() { # READABLE
	expect_ok "$litmus" each "$M/.pmfs/views/words" "$1" "$stores"
	expect_equal "$(cat "$OUT")" "$stores stores, each seen"
	expect_ok "$litmus" order "$M/.pmfs/views/words" "$1" "$stores"
	expect_text "$stores stores" "$OUT"
}

run() { # OPTIONS
	mount_pmfs ram "$M" "size=64M${1:+,$1}"
	say "${1:-as the system offers}: two mappings of a view"
	both_ways "$M/.pmfs/views/words"
	if pmfs-ctl --json status "$M" | grep -q '"passthrough": *true'; then
		say "${1:-as the system offers}: view and alias"
		both_ways "$M/.pmfs/alias/words"
	fi
	umount_pmfs "$M"
}
run
run passthrough=off
