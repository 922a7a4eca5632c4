#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A path that is in no mount, a daemon that is stopped, one that is dead: the tools say so and end.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need jq
M=$T/mnt

say 'not in a mount'
for command in 'pmfs-snap list' 'pmfs-ctl status' 'pmfs-ctl df' 'pmfs-ctl sync' 'pmfs-snap create'; do
	expect_fail 5 $command "$T"
	expect_text "is not inside a pmfs mount (it is $(findmnt -no FSTYPE -T "$T")); mount one with: pmfs IMAGE DIR"
	expect_fail 5 $command "$T/missing"
done
run_status pmfs-ctl df "$T" --json
jq -e '.ok == false and .error.code == "not-found" and .command == "pmfs-ctl df"' "$OUT" >/dev/null || fail 'the JSON is not right'

say 'a time limit that is none'
for limit in 0 -1 soon 2d; do
	PMFS_TIMEOUT=$limit expect_fail 2 pmfs-ctl status "$T"
	expect_text "PMFS_TIMEOUT=$limit is not a time"
done

mount_pmfs ram "$M" size=64M
mkdir "$M/deep"
if [ "$(id -u)" = 0 ]; then
	say 'through a bind mount of a directory in it'
	mkdir "$T/bound"
	mount --bind "$M/deep" "$T/bound"
	expect_ok pmfs-ctl status "$T/bound"
	umount "$T/bound"
fi

say 'stopped'
kill -STOP "$DAEMON"
export PMFS_TIMEOUT=1
expect_fail 13 pmfs-ctl status "$M"
expect_text 'does not answer'
expect_fail 13 pmfs-snap list "$M/not-looked-up-yet"
expect_text 'does not answer'
kill -CONT "$DAEMON"
unset PMFS_TIMEOUT
expect_ok pmfs-ctl status "$M"

if [ "$(id -u)" = 0 ]; then
	say 'a daemon that hangs after its mount has gone: the device number is another one'"'"'s now'
	# The kernel gives the lowest free number, and the next daemon mounts its statistics first.
	umount_pmfs "$M"
	mkdir "$T/lower"
	mount -t tmpfs none "$T/lower"
	mount_pmfs ram "$M" size=64M
	stuck=$DAEMON number=$(stat -c %d "$M")
	kill -STOP "$stuck"
	umount "$T/lower"
	umount -l "$M"
	M=$T/next
	mount_pmfs ram "$M" size=64M
	[ "$(stat -c %d "$M")" = "$number" ] || echo 'the kernel gave it another number, so this shows nothing'
	expect_equal "$(pmfs-ctl --json status "$M" | jq .data.mount.pid)" "$DAEMON" 'who answers'
	kill -KILL "$stuck"
	wait_gone "$stuck" || fail 'it does not die'
fi

say 'dead'
kill -KILL "$DAEMON"
wait_gone "$DAEMON" || fail 'it does not die'
expect_fail 13 pmfs-ctl status "$M"
expect_text 'fusermount3 -uz'
expect_fail 13 pmfs-snap list "$M/other"
run_status pmfs-ctl status "$M" --json
expect_equal "$STATUS" 13 'status'
jq -e '.error.code == "no-daemon"' "$OUT" >/dev/null || fail 'the JSON is not right'
fusermount3 -uz "$M"
