#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# pmfs-snap: create, list, show, delete, rename; names that are counted back; JSON and exit statuses.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need jq
M=$T/mnt
make_image "$T/img" 256M
mount_pmfs "$T/img" "$M"
mkdir "$M/dir"
head -c 1000000 /dev/urandom >"$M/dir/data"

json() { # FILTER: it holds for what the last command has printed
	jq -e "$1" "$OUT" >/dev/null || {
		cat "$OUT"
		fail "not so: $1"
	}
}

say 'none yet'
expect_ok pmfs-snap list "$M"
[ ! -s "$OUT" ] || fail 'a list of nothing is not empty'
expect_ok pmfs-snap list "$M" --json
json '.schema == "pmfs/1" and .command == "pmfs-snap list" and .ok and .data.snapshots == []'
expect_fail 5 pmfs-snap show "$M" @-1

say 'create, with a name, a message, from below the mount point'
expect_ok pmfs-snap create "$M/dir" first -m 'what was; "quoted" and äöü'
expect_equal "$(cat "$OUT")" first 'what create prints'
cmp "$M/dir/data" "$M/.snapshots/first/dir/data"
expect_fail 6 pmfs-snap create "$M" first
expect_text 'first'
say 'create names it by the time when it is not told, and two in one second get two names'
for _ in 1 2 3; do
	expect_ok pmfs-snap create "$M" --json
	name=$(jq -r .data.name "$OUT")
	[[ $name =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(-[0-9]+)?$ ]] || fail "a strange name: $name"
	[ -d "$M/.snapshots/$name" ] || fail "no directory for $name"
done

say 'list and show'
expect_ok pmfs-snap list "$M" --json --space
json '.data.snapshots | length == 4'
json '.data.snapshots[0] | .name == "first" and .message == "what was; \"quoted\" and äöü" and .held == false and (.id | type == "number") and
	(.generation | type == "number") and (.created | test("^[0-9-]+T[0-9:.]+Z$")) and .referenced_bytes >= 1000000 and (.exclusive_bytes | type == "number")'
expect_ok pmfs-snap list "$M"
expect_text first "$OUT"
expect_ok pmfs-snap show "$M" first
expect_text 'äöü' "$OUT"
expect_fail 5 pmfs-snap show "$M" nowhere
run_status pmfs-snap show "$M" nowhere --json
expect_equal "$STATUS" 5 'status with --json'
json '.ok == false and .error.code == "not-found" and (.error.message | contains("nowhere"))'
expect_equal "$(wc -l <"$OUT")" 1 'lines of JSON'
expect_fail 5 pmfs-snap show "$M" live
expect_text 'live'

say 'what is exclusive grows when the live tree lets go'
rm "$M/dir/data"
pmfs-snap -q create "$M" later
for ((n = 0; n < 3; n++)); do
	pmfs-snap -q delete "$M" @-2
done
expect_ok pmfs-snap delete "$M" first -n --json
json '.data.would_free_bytes >= 1000000 and .data.snapshots[0].name == "first"'
[ -d "$M/.snapshots/first" ] || fail 'delete -n has deleted'

say 'rename'
expect_ok pmfs-snap rename "$M" first renamed
expect_fail 5 pmfs-snap rename "$M" first again
expect_fail 6 pmfs-snap rename "$M" renamed later
[ ! -e "$M/.snapshots/first" ] || fail 'the old name is still there'
[ -e "$M/.snapshots/renamed/dir/data" ] || fail 'the new name is not there'

say 'names that are none'
for name in '' . .. a/b @home live "$(printf 'a\nb')" "$(printf '%0256d' 0)"; do
	expect_fail 2 pmfs-snap create "$M" "$name"
done
expect_fail 2 pmfs-snap create "$M" -- -x
expect_fail 2 pmfs-snap create "$M" "$(printf 'not-utf8-\xff')"
expect_fail 2 pmfs-snap create "$M" long -m "$(printf '%0480d' 0)"
expect_ok pmfs-snap create "$M" "$(printf '%0255d' 0)"
expect_ok pmfs-snap delete "$M" "$(printf '%0255d' 0)"

say 'counted back and by age'
pmfs-snap -q create "$M" newest
expect_equal "$(pmfs-snap show "$M" @-1 --json | jq -r .data.name)" newest '@-1'
expect_equal "$(pmfs-snap show "$M" @-2 --json | jq -r .data.name)" later '@-2'
expect_equal "$(pmfs-snap show "$M" @0s --json | jq -r .data.name)" newest '@0s'
expect_fail 5 pmfs-snap show "$M" @2h
expect_fail 5 pmfs-snap show "$M" @-99
expect_fail 2 pmfs-snap show "$M" @-0
expect_fail 2 pmfs-snap show "$M" @2
expect_fail 2 pmfs-snap show "$M" @x

say 'delete: several, partly, none'
expect_fail 3 pmfs-snap delete "$M" newest nowhere
[ ! -e "$M/.snapshots/newest" ] || fail 'the one that is there was not deleted'
expect_fail 5 pmfs-snap delete "$M" newest
run_status pmfs-snap delete "$M" renamed nowhere --json
expect_equal "$STATUS" 3 'status'
json '.ok == false and .error.code == "partial" and .data.deleted == ["renamed"]'
pmfs-snap -q create "$M" a
pmfs-snap -q create "$M" b
expect_ok pmfs-snap delete "$M" @-1 @-2 -v
expect_equal "$(pmfs-snap list "$M" --json | jq -c '[.data.snapshots[].name]')" '["later"]' 'what is left'

say 'they outlive the mount; a read-only mount shows and refuses'
umount_pmfs "$M"
mount_pmfs "$T/img" "$M" ro
expect_equal "$(pmfs-snap list "$M" --json | jq -r '.data.snapshots[].name')" later 'after a remount'
expect_fail 9 pmfs-snap create "$M" no
expect_text read-only
expect_fail 9 pmfs-snap delete "$M" later
expect_fail 9 pmfs-snap rename "$M" later no
umount_pmfs "$M"
check_image "$T/img"
