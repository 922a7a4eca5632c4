#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Damage under a mount: found by a scrub and by who reads it, said with path, range and snapshot; the rest goes on.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
M=$T/mnt

# flip IMAGE TEXT OFFSET: change a byte of the one frame that has the text.
cat >"$T/flip.py" <<'PY'
import sys
path, text, at = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
data = open(path, "rb").read()
hits = [p for p in range(64 * 4096, len(data), 4096) if text in data[p:p + 4096]]
assert len(hits) == 1, hits
with open(path, "r+b") as f:
    f.seek(hits[0] + at)
    f.write(bytes([data[hits[0] + at] ^ 0x20]))
PY

field() { # KEY: of the data of $OUT
	python3 -c '
import json, sys
data = json.loads(open(sys.argv[1]).read().splitlines()[-1])["data"]
for key in sys.argv[2].split("."):
    data = data[key]
print(data)' "$OUT" "$1"
}

make_image "$T/img" 256M
mount_pmfs "$T/img" "$M"
mkdir -p "$M/dir/sub"
head -c 3M /dev/urandom >"$M/bulk"
{
	head -c 40960 /dev/zero | tr '\0' v
	printf '%-4096s' 'this page will be hit'
	head -c 4096 /dev/zero | tr '\0' w
} >"$M/dir/sub/victim"
printf '%-4096s' 'the second one' >"$M/second"
setfattr -n user.small -v x "$M/second"
sum=$(sha256sum <"$M/bulk")
expect_ok pmfs-snap create "$M" monday
rm "$M/second"
umount_pmfs "$M"

say 'nothing is wrong'
mount_pmfs "$T/img" "$M"
expect_ok pmfs-ctl scrub "$M" start --structure
expect_ok pmfs-ctl scrub "$M" wait --json
expect_equal "$(field bad_pages) $(field bad_nodes) $(field structure_findings) $(field findings)" '0 0 0 []' 'findings'
[ "$(field pages_scanned)" -gt 700 ] || fail 'it has not looked at all pages'
expect_equal "$(field state) $(field percent)" 'idle 100.0' 'the end'
expect_ok pmfs-snap list "$M" --json
expect_equal "$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["data"]["snapshots"]))' "$OUT")" 1 'snapshots'

say 'damage under a mount that has read it already'
cat "$M/dir/sub/victim" >/dev/null
echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || true
python3 "$T/flip.py" "$T/img" 'this page will be hit' 3000
python3 "$T/flip.py" "$T/img" 'the second one' 17
expect_ok pmfs-ctl scrub "$M" start
expect_fail 11 pmfs-ctl scrub "$M" wait
expect_text 'live: inode ' "$OUT"
expect_text '(/dir/sub/victim), contents: 4096 bytes at byte 40960 are damaged' "$OUT"
expect_text 'snapshot monday: inode ' "$OUT"
expect_text '(/second), contents: 4096 bytes at byte 0 are damaged' "$OUT"
expect_ok pmfs-ctl scrub "$M" status --json
expect_equal "$(field bad_pages)" 2 'bad pages'
expect_ok pmfs-ctl status "$M"
expect_text 'DAMAGED' "$OUT"
expect_ok pmfs-ctl status "$M" --json
expect_equal "$(field checks.damaged_pages)" 2 'damaged pages'
expect_errno 'Input/output error' dd if="$M/dir/sub/victim" of=/dev/null bs=4096 skip=10 count=1 iflag=direct
expect_equal "$(sha256sum <"$M/bulk")" "$sum" 'sum of another file'

say 'the same, met by a reader after a mount'
umount_pmfs "$M"
mount_pmfs "$T/img" "$M"
expect_errno 'Input/output error' cat "$M/dir/sub/victim"
found() {
	pmfs-ctl scrub "$M" status | grep -qF '(/dir/sub/victim), contents: 4096 bytes at byte 40960 are damaged'
}
wait_for found
expect_ok pmfs-ctl scrub "$M" status --json
expect_equal "$(field findings_total)" 2 'live and the snapshot, each once'

say 'a page that is written anew is good again'
printf '%-4096s' 'new contents' | dd of="$M/dir/sub/victim" bs=4096 seek=10 conv=notrunc status=none
expect_ok pmfs-snap delete "$M" monday
cat "$M/dir/sub/victim" >/dev/null
gone() {
	pmfs-ctl sync "$M"
	pmfs-ctl status "$M" --json | grep -q '"snapshots_being_deleted":0'
}
wait_for gone
expect_ok pmfs-ctl scrub "$M" start --structure
expect_ok pmfs-ctl scrub "$M" wait

say 'a rate, a second one, the end of one'
expect_ok pmfs-ctl scrub "$M" start --rate 4K/s
expect_fail 7 pmfs-ctl scrub "$M" start
expect_ok pmfs-ctl scrub "$M" status --json
expect_equal "$(field state) $(field rate)" 'running 4096' 'state'
expect_ok pmfs-ctl scrub "$M" stop
expect_fail 5 pmfs-ctl scrub "$M" stop
expect_fail 2 pmfs-ctl scrub "$M" wait --rate 4K
expect_fail 2 pmfs-ctl scrub "$M" start --rate fast
umount_pmfs "$M"
check_image "$T/img"
