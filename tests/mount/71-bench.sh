#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# contrib/bench does every row that needs no other peer than tmpfs, at tiny sizes, and writes what it says it writes.
# No figure is judged: they would say more about the machine than about pmfs.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3 jq git tar
[ "$(id -u)" -eq 0 ] || skip "the benchmark needs root"
[ -n "$PMFS_BUILD" ] || skip "there is no build directory to give to the benchmark"
unshare --mount true 2>/dev/null || skip "nobody here can have mounts of their own"
command -v "${CC:-cc}" >/dev/null || skip "there is no C compiler"
[ -w /proc/sys/vm/drop_caches ] || skip "caches can't be dropped here"
python3 -c 'import sqlite3, sys; sys.exit(sys.version_info < (3, 10))' || skip "python3 is too old or has no sqlite3"

bench=$(dirname "$0")/../../contrib/bench
export TMPDIR=$T PMFS_BUILD

say "a run"
python3 "$bench" --size tiny --peers tmpfs --json "$T/b.json" --page "$T/b.html" --markdown "$T/b.md" >"$T/bench.out" 2>&1 || {
	cat "$T/bench.out"
	fail "the benchmark fails"
}
expect_equal "$(mounts_below "$T")" "" "mounts that are left"
expect_equal "$(find "$T" -name 'pmfs-bench.*')" "" "what is left in the folder for temporary files"

say "every row has a figure, a spread that it is in, and a verdict for each goal"
rows=$(python3 "$bench" --list | wc -l)
expect_equal "$(jq '.rows | length' "$T/b.json")" "$rows" "rows"
jq -e '.schema == "pmfs-bench/1" and .rounds == 1 and .size == "tiny" and .seconds >= 0
	and (.machine | .kernel and .cpus > 0 and (.versions.pmfs | startswith("pmfs ")))' "$T/b.json" >/dev/null || fail "the head"
jq -e 'all(.rows[]; .failed == {} and .unit and .title and (.better == "more" or .better == "less"))' "$T/b.json" >/dev/null || {
	jq -c '.rows[] | select(.failed != {}) | [.key, .failed]' "$T/b.json"
	fail "a row failed"
}
jq -e 'all(.rows[]; .peers.pmfs.value | .median > 0 and .min <= .median and .median <= .max)' "$T/b.json" >/dev/null || fail "figures"
jq -e 'all(.rows[] | select(.class == "ram" and .peers.tmpfs); .ratios.tmpfs > 0)' "$T/b.json" >/dev/null || fail "ratios"
jq -e '[.rows[].goals[] | has("goal") and has("value") and has("met")] | length > 30 and all' "$T/b.json" >/dev/null || fail "goals"
jq -e 'all(.rows[] | select(.key | startswith("dedup")); .peers.pmfs.found_percent.median >= 99)' "$T/b.json" >/dev/null ||
	fail "the dedup pass did not find the duplicates that were made for it"

say "the page and the table show them"
expect_equal "$(grep -c '<svg ' "$T/b.html")" "$rows" "plots"
python3 - "$T/b.html" <<'PY' || fail "the page is not well-formed"
import re, sys, xml.dom.minidom
for svg in re.findall(r"<svg .*?</svg>", open(sys.argv[1], encoding="utf-8").read(), re.S):
    xml.dom.minidom.parseString(svg)
PY
! grep -qE '(src|href)=' "$T/b.html" || fail "the page needs other files"
expect_equal "$(grep -c '^|' "$T/b.md")" $((rows + 2)) "lines of the table"

say "the figures of a run can be shown again"
python3 "$bench" --from "$T/b.json" --markdown "$T/again.md" >/dev/null
cmp -s "$T/b.md" "$T/again.md" || fail "another table from the same figures"

say "bad arguments"
expect_fail 1 python3 "$bench" --rows nonsense
expect_fail 1 python3 "$bench" --peers nonsense
expect_fail 1 python3 "$bench" --from "$T/none.json"
