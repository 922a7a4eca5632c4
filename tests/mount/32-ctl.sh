#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# pmfs-ctl: status, df, stats, sync, dedup; the fields that scripts rely on; the files in .pmfs.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need jq
M=$T/mnt
make_image "$T/img" 512M
mount_pmfs "$T/img" "$M"

json() {
	jq -e "$1" "$OUT" >/dev/null || {
		cat "$OUT"
		fail "not so: $1"
	}
}

head -c 4M /dev/urandom >"$M/a"
cp "$M/a" "$T/a"
cat "$T/a" >"$M/b"
cat "$T/a" >"$M/c"
expect_ok pmfs-ctl sync "$M" --json
json '.command == "pmfs-ctl sync" and .ok and (.data.generation > 0)'

DF='[.logical_bytes, .frames_total, .frames_used, .frames_data, .frames_metadata, .saved_dedup_bytes, .saved_pack_bytes, .pending_free_bytes, .host_bytes] | all(type == "number")'
say 'df'
expect_ok pmfs-ctl df "$M" --json
json ".data | $DF"
json '.data | .logical_bytes == 12582912 and .frames_total == 131072 and .frames_used >= 3072 and .frames_data + .frames_metadata == .frames_used and .saved_dedup_bytes == 0'
expect_ok pmfs-ctl df "$M"
expect_text available "$OUT"

say 'dedup: status, start, wait'
STATUS_FIELDS='[.percent, .pages_scanned, .pages_merged, .bytes_saved, .bytes_per_second, .eta_seconds, .pages_shared, .pages_sharing, .pages_unshared, .pages_volatile, .full_scans] | all(type == "number")'
expect_ok pmfs-ctl dedup "$M" status --json
json ".command == \"pmfs-ctl dedup status\" and .data.state == \"idle\" and (.data | $STATUS_FIELDS)"
expect_ok pmfs-ctl dedup "$M" start
expect_ok pmfs-ctl dedup "$M" wait --json --progress=none
expect_equal "$(wc -l <"$OUT")" 1 'lines without progress'
json '.type == "summary" and .ok and .data.state == "idle" and .data.full_scans >= 1 and .data.pages_merged >= 2048 and .data.bytes_saved >= 8388608'
expect_ok pmfs-ctl dedup "$M" wait
expect_text merged "$OUT"
expect_ok pmfs-ctl sync "$M"
expect_ok pmfs-ctl df "$M" --json
json '.data | .logical_bytes == 12582912 and .saved_dedup_bytes >= 8388608 and .frames_used < 2048'
cmp "$T/a" "$M/b"
cmp "$T/a" "$M/c"

say 'dedup: pause, an interrupted wait, resume'
expect_fail 5 pmfs-ctl dedup "$M" pause
expect_text 'not running'
# A pass over little is over before it can be paused; so there is more of it each time.
for ((n = 0; n < 30; n++)); do
	head -c 8M /dev/urandom >"$M/more.$n"
	pmfs-ctl -q dedup "$M" start
	pmfs-ctl -q dedup "$M" pause 2>/dev/null || true
	expect_ok pmfs-ctl dedup "$M" status --json
	[ "$(jq -r .data.state "$OUT")" != paused ] || break
	pmfs-ctl -q dedup "$M" wait
done
json '.data.state == "paused"'
expect_fail 7 pmfs-ctl dedup "$M" start
# A shell starts what is in the background with SIGINT ignored, and it cannot be caught then.
env --default-signal=INT pmfs-ctl dedup "$M" wait --json >"$T/wait.out" 2>"$T/wait.err" &
waiter=$!
wait_for grep -q '"type":"progress"' "$T/wait.out"
kill -INT "$waiter"
status=0
wait "$waiter" || status=$?
expect_equal "$status" 130 'status of an interrupted wait'
expect_equal "$(wc -l <"$T/wait.err")" 1 'lines on stderr'
tail -n 1 "$T/wait.out" | jq -e '.type == "summary" and .ok == false and .error.code == "interrupted"' >/dev/null || fail 'no summary of the interrupted wait'
expect_ok pmfs-ctl dedup "$M" status --json
json '.data.state == "paused"'
expect_ok pmfs-ctl dedup "$M" resume
expect_ok pmfs-ctl dedup "$M" wait

say 'status'
expect_ok pmfs-ctl status "$M" --json
json ".data | $DF"
json '.data.features | has("passthrough") and has("io_uring") and has("libfuse") and has("kernel")'
json '.data.commit | [.generation, .count, .flushes, .bytes_written] | all(type == "number")'
json '.data.requests.write >= 3 and (.data.errors | type == "object") and .data.mount.pid > 1'
expect_ok pmfs-ctl status "$M"
expect_text "$M" "$OUT"

say 'stats, once and again and again'
expect_ok pmfs-ctl stats "$M"
expect_text requests "$OUT"
env --default-signal=INT pmfs-ctl stats "$M" -i 0.1 --json >"$T/stats.out" &
waiter=$!
two_lines() {
	[ "$(wc -l <"$T/stats.out")" -ge 2 ]
}
wait_for two_lines
kill -INT "$waiter"
status=0
wait "$waiter" || status=$?
expect_equal "$status" 130 'status of interrupted stats'
jq -es 'all(.[]; .type == "item" and .requests.total > 0)' "$T/stats.out" >/dev/null || fail 'the lines are not right'

say 'the files in .pmfs'
grep -q '^used ' "$M/.pmfs/stats"
jq -e ".requests.total > 0 and ($DF)" "$M/.pmfs/stats.json" >/dev/null || fail 'stats.json is not right'
grep -q '^pmfs_frames_used{dir="'"$M"'"} [0-9]*$' "$M/.pmfs/metrics"
grep -q '^pmfs_requests_total{dir="'"$M"'",operation="write"} [0-9]*$' "$M/.pmfs/metrics"
! grep -v '^# \(HELP\|TYPE\) \|^pmfs_[a-z_]*{[^}]*} [0-9]*$' "$M/.pmfs/metrics" || fail 'a line of metrics that Prometheus does not know'
expect_ok pmfs-ctl df "$M/.pmfs/"

say 'a read-only mount answers, too'
umount_pmfs "$M"
mount_pmfs "$T/img" "$M" ro
expect_ok pmfs-ctl status "$M"
expect_fail 9 pmfs-ctl sync "$M"
expect_fail 9 pmfs-ctl dedup "$M" start
umount_pmfs "$M"
check_image "$T/img"
