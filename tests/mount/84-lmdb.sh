#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# LMDB on pmfs, in ordinary files and in views: a store that is read and written through one shared mapping, by several processes, and
# killed in the middle of it.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
PYTHON=
for python in python3 /usr/bin/python3; do
	if "$python" -c 'import lmdb' 2>/dev/null; then
		PYTHON=$python
		break
	fi
done
[ -n "$PYTHON" ] || skip "there is no python3 with lmdb"

M=$T/mnt
cat >"$T/store.py" <<'PY'
import lmdb, os, signal, sys, time

def open_store(path, writemap):
    # Views are in one directory: the lock file is PATH-lock there.
    return lmdb.open(path, map_size=256 << 20, max_dbs=2, writemap=writemap, subdir="/views/" not in path)

def value(n):
    return (b"%d-" % n) * (n % 300 + 1)

# Transaction n puts n, and takes away n - 500, and counts.
def put(env, n):
    with env.begin(write=True) as t:
        t.put(b"%08d" % n, value(n))
        t.delete(b"%08d" % (n - 500))
        t.put(b"count", b"%d" % n)

def check(env):
    with env.begin() as t:
        last = int(t.get(b"count", b"0"))
        keys = [(k, v) for k, v in t.cursor() if k != b"count"]
        want = range(max(1, last - 499), last + 1)
        assert [int(k) for k, _ in keys] == list(want), (last, len(keys))
        for k, v in keys:
            assert v == value(int(k)), k
    return last

what, path, writemap = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
env = open_store(path, writemap)
if what == "write":
    n = check(env)
    while True:
        n += 1
        put(env, n)
        print(n, flush=True)
elif what == "fill":
    for n in range(check(env) + 1, int(sys.argv[4]) + 1):
        put(env, n)
    if len(sys.argv) > 5:
        os.fsync(os.open(path, os.O_RDONLY))
elif what == "read":
    # As long as somebody writes: every state that is seen is a whole one.
    seen = set()
    while len(seen) < 15:
        seen.add(check(env))
elif what == "check":
    env.reader_check()
    print(check(env))
PY

run() { # PLACE OPTIONS
	local place=$1 options=$2 writemap db one two writer last now sync
	local -a dump
	IMAGE=$T/image$((++images))
	make_image "$IMAGE" 256M
	for writemap in False True; do
		say "$place ${options:-as the system offers} writemap=$writemap: a writer, two readers, and the writer is killed"
		mount_pmfs "$IMAGE" "$M" "$options"
		passthrough=
		if pmfs-ctl --json status "$M" | grep -q '"passthrough": *true'; then
			passthrough=yes
		fi
		db=$M/$place/db$writemap
		"$PYTHON" "$T/store.py" fill "$db" "$writemap" 20
		"$PYTHON" "$T/store.py" write "$db" "$writemap" >"$T/written" &
		writer=$!
		"$PYTHON" "$T/store.py" read "$db" "$writemap" &
		one=$!
		"$PYTHON" "$T/store.py" read "$db" "$writemap" &
		two=$!
		wait "$one" || fail "a reader saw half of a transaction"
		wait "$two" || fail "a reader saw half of a transaction"
		kill -KILL "$writer"
		wait "$writer" 2>/dev/null || true
		last=$(tail -n 1 "$T/written")
		now=$("$PYTHON" "$T/store.py" check "$db" "$writemap")
		[ "$now" -ge "$last" ] || fail "transaction $last was done, the store is at $now"

		say "$place ${options:-as the system offers} writemap=$writemap: the daemon is killed: what was acknowledged is there"
		# With passthrough msync(2), which is how LMDB makes this durable, is not for the daemon to hear.
		sync=
		if [ "$place$writemap$passthrough" = .pmfs/viewsTrueyes ]; then
			sync=fsync
		fi
		"$PYTHON" "$T/store.py" fill "$db" "$writemap" $((now + 30)) $sync
		kill_pmfs "$M"
		mount_pmfs "$IMAGE" "$M" "$options"
		expect_equal "$("$PYTHON" "$T/store.py" check "$db" "$writemap")" $((now + 30)) "transactions after the daemon was killed"
		if command -v mdb_dump >/dev/null; then
			dump=(mdb_dump)
			[ -d "$db" ] || dump+=(-n)
			expect_equal "$("${dump[@]}" "$db" | grep -c '^ ')" \
				$((2 * ((now + 30 < 500 ? now + 30 : 500) + 1))) "lines of mdb_dump"
		fi
		umount_pmfs "$M"
		check_image "$IMAGE"
	done
}

images=0 passthrough=
run . ''
run .pmfs/views ''
if [ -n "$passthrough" ]; then
	run .pmfs/views passthrough=off
fi
