#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Wrong or missing arguments: one line, exit status 2 (fsck.pmfs: 16), and the same in JSON.  What is for later says so.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need jq
M=$T/mnt
mkdir "$M"
make_image "$T/img" 64M

say 'help and version'
for program in pmfs pmfs-snap pmfs-ctl mkfs.pmfs fsck.pmfs; do
	expect_ok "$program" --help
	expect_text 'usage:' "$OUT"
	expect_ok "$program" -h
	expect_ok "$program" --version
	expect_text "$program " "$OUT"
	expect_ok "$program" -V
done

usage() {
	expect_fail 2 "$@"
	expect_text '--help'
}

say 'pmfs'
usage pmfs "$T/img"
usage pmfs "$T/img" "$M" more
usage pmfs --nonsense
usage pmfs -Z
usage pmfs "$T/img" "$M" -o
usage pmfs "$T/img" "$M" -o nonsense
usage pmfs "$T/img" "$M" -o size=many
usage pmfs "$T/img" "$M" -o commit=0
usage pmfs "$T/img" "$M" -o commit=5x
usage pmfs "$T/img" "$M" -o threads=-1
usage pmfs "$T/img" "$M" -o snapdir=sideways
usage pmfs "$T/img" "$M" -o io_uring=maybe
usage pmfs "$T/img" "$M" -o views=x
usage pmfs "$T/img" "$M" -o passthrough=maybe
usage pmfs "$T/img" "$M" -o commit
usage pmfs "$T/img" "$M" --size 1G
usage pmfs ram "$M" --create
for option in private snapshot=x dedup=inline dedup_mem=1G; do
	usage pmfs "$T/img" "$M" -o "$option"
	expect_text 'not available yet'
done
! is_mounted "$M" || fail 'something was mounted'

say 'pmfs-snap and pmfs-ctl'
for program in pmfs-snap pmfs-ctl; do
	usage "$program"
	usage "$program" nonsense
	usage "$program" --nonsense
	usage "$program" nonsense "$M"
done
for command in diff rollback fork restore clone mount hold release send receive prune run; do
	usage pmfs-snap "$command" "$M"
	expect_text 'not available yet'
done
for command in du compact trim resize get set top map bench; do
	usage pmfs-ctl "$command" "$M"
	expect_text 'not available yet'
done
usage pmfs-ctl info
usage pmfs-ctl info "$M" more
usage pmfs-ctl ring
usage pmfs-ctl ring make "$M/x"
usage pmfs-ctl ring create
usage pmfs-ctl ring create --size x "$M/x"
usage pmfs-ctl ring create --log --multi "$M/x"
usage pmfs-ctl ring stat --log "$M/x"
usage pmfs-snap create
usage pmfs-snap create "$M" a b
usage pmfs-snap create "$M" -m
usage pmfs-snap list
usage pmfs-snap list "$M" more
usage pmfs-snap list "$M" --nonsense
usage pmfs-snap show "$M"
usage pmfs-snap delete "$M"
usage pmfs-snap rename "$M" a
usage pmfs-ctl status
usage pmfs-ctl status "$M" more
usage pmfs-ctl stats "$M" -i nonsense
usage pmfs-ctl scrub "$M"
usage pmfs-ctl scrub "$M" nonsense
usage pmfs-ctl dedup "$M"
usage pmfs-ctl dedup "$M" nonsense
usage pmfs-ctl dedup "$M" wait --progress=nonsense
usage pmfs-ctl dedup "$M" start --estimate

say 'mkfs.pmfs and fsck.pmfs'
usage mkfs.pmfs
usage mkfs.pmfs "$T/x" more
usage mkfs.pmfs "$T/x" --size nonsense
usage mkfs.pmfs "$T/x" --size 1K
usage mkfs.pmfs "$T/x" --label "$(printf '%065d' 0)"
[ ! -e "$T/x" ] || fail 'an image was made'
expect_fail 16 fsck.pmfs
expect_fail 16 fsck.pmfs "$T/img" more
expect_fail 16 fsck.pmfs --nonsense "$T/img"
expect_fail 16 fsck.pmfs -n -y "$T/img"
expect_fail 16 fsck.pmfs --cut-data "$T/img"
expect_fail 16 fsck.pmfs --progress=much "$T/img"

say 'in JSON, wherever --json stands'
for args in '--json nonsense' 'nonsense --json' 'list --json' 'list --nonsense --json'; do
	# shellcheck disable=SC2086
	run_status pmfs-snap $args
	expect_equal "$STATUS" 2 "status of pmfs-snap $args"
	jq -e '.schema == "pmfs/1" and .ok == false and .error.code == "usage" and (.error.message | length > 0)' "$OUT" >/dev/null ||
		fail "the JSON of pmfs-snap $args is not right"
	expect_equal "$(wc -l <"$OUT")" 1 'lines of JSON'
done

say 'stdout that takes nothing is an error'
mount_pmfs ram "$M" size=64M
for command in "pmfs" "pmfs --json" "pmfs-ctl df $M" "pmfs-ctl df $M --json"; do
	status=0
	$command >/dev/full 2>/dev/null || status=$?
	expect_equal "$status" 1 "status of $command with a full stdout"
done
umount_pmfs "$M"
