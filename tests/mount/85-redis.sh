#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Redis on pmfs: an append-only file with a flush for each command, rewritten while in use, the server killed, a dump.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need redis-server redis-cli redis-check-aof redis-check-rdb

M=$T/mnt IMAGE=$T/image
make_image "$IMAGE"
mount_pmfs "$IMAGE" "$M"
mkdir "$M/redis"
SERVER=

ask() {
	redis-cli -s "$M/redis/socket" "$@"
}

start() {
	redis-server --port 0 --unixsocket "$M/redis/socket" --dir "$M/redis" --appendonly yes --appendfsync always --save '' \
		--daemonize no --logfile "$T/redis.log" >/dev/null &
	SERVER=$!
	STARTED+=("$SERVER")
	ready() {
		[ "$(ask ping)" = PONG ]
	}
	wait_for ready
}

no_rewrite() {
	ask info persistence | tr -d '\r' | grep -qx 'aof_rewrite_in_progress:0'
}

say "2000 keys, a list and counters"
start
for n in $(seq 2000); do
	echo "SET key$n value$((n * n))"
done | ask --pipe >"$T/pipe"
grep -q 'errors: 0, replies: 2000' "$T/pipe" || { cat "$T/pipe"; fail "not all keys were taken"; }
expect_equal "$(ask dbsize)" 2000 "keys"

say "rewritten while a client goes on; then the server is killed"
ask bgrewriteaof >/dev/null
n=0
while [ "$n" -lt 100 ] || ! no_rewrite; do
	n=$((n + 1))
	expect_equal "$(ask rpush list "entry$n")" "$n" "entries"
	expect_equal "$(ask incr counter)" "$n" "the counter"
done
sum=$(ask debug digest)
kill -KILL "$SERVER"
wait "$SERVER" || true
redis-check-aof "$M"/redis/appendonlydir/*.manifest >"$T/aof" || { cat "$T/aof"; fail "the append-only file is damaged"; }

say "started again: all that was answered is there"
start
expect_equal "$(ask dbsize)" 2002 "keys after the restart"
expect_equal "$(ask get counter)" "$n" "the counter after the restart"
expect_equal "$(ask lindex list -1)" "entry$n" "the last entry after the restart"
expect_equal "$(ask get key1999)" "value$((1999 * 1999))" "a key after the restart"
expect_equal "$(ask debug digest)" "$sum" "the digest of all data after the restart"

say "a dump of a child process"
ask config set appendonly no >/dev/null
ask save >/dev/null
before=$(ask lastsave)
ask bgsave >/dev/null
saved() {
	ask info persistence | tr -d '\r' | grep -qx 'rdb_bgsave_in_progress:0'
}
wait_for saved
[ "$(ask lastsave)" -ge "$before" ] || fail "there was no dump"
redis-check-rdb "$M/redis/dump.rdb" >"$T/rdb" || { cat "$T/rdb"; fail "the dump is damaged"; }
ask shutdown nosave >/dev/null 2>&1 || true
wait "$SERVER" || true

say "once more from the image"
umount_pmfs "$M"
check_image "$IMAGE"
mount_pmfs "$IMAGE" "$M"
start
expect_equal "$(ask debug digest)" "$sum" "the digest of all data after a remount"
ask shutdown nosave >/dev/null 2>&1 || true
wait "$SERVER" || true
umount_pmfs "$M"
