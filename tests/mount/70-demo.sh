#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# The demonstration that the README begins with runs, and shows what it promises.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"

demo=$(dirname "$0")/../../contrib/demo.sh
[ -n "$PMFS_BUILD" ] || skip "there is no build directory to give to the demonstration"
TMPDIR=$T PMFS_BUILD=$PMFS_BUILD bash "$demo" >"$T/demo.out" 2>&1 || {
	cat "$T/demo.out"
	fail "the demonstration fails"
}
expect_text "the plan: ship it" "$T/demo.out"
expect_text "no difference" "$T/demo.out"
expect_text "written and synced" "$T/demo.out"
expect_text "the copies are still equal" "$T/demo.out"
