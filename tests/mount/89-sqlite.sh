#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# SQLite on pmfs, in ordinary files and in views: a write-ahead log with its shared memory, several processes that write and read, one of
# them killed, and the daemon killed while they write.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
python3 -c 'import sqlite3' 2>/dev/null || skip "python3 has no sqlite3"

M=$T/mnt
cat >"$T/store.py" <<'PY'
import hashlib, sqlite3, sys

def open_store(path):
    # Each statement is a transaction unless it says otherwise; who comes second waits.
    db = sqlite3.connect(path, timeout=120, isolation_level=None)
    assert db.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal"
    db.execute("PRAGMA synchronous=FULL")
    # Small, so that the log is written back often and begins again.
    db.execute("PRAGMA wal_autocheckpoint=30")
    return db

def text(writer, n):
    return hashlib.sha256(b"%d %d" % (writer, n)).hexdigest() * (n % 50 + 1)

# Transaction n of a writer adds a row, takes away an old one, and counts for all and for itself.
def put(db, writer, n):
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO rows VALUES (?, ?, ?)", (writer, n, text(writer, n)))
    db.execute("DELETE FROM rows WHERE writer = ? AND n = ?", (writer, n - 40))
    db.execute("UPDATE counts SET n = n + 1 WHERE writer IN (0, ?)", (writer,))
    db.execute("COMMIT")

def last_of(db, writer):
    return db.execute("SELECT n FROM counts WHERE writer = ?", (writer,)).fetchone()[0]

# All in one read transaction: one state of the store.
def check(db, whole):
    db.execute("BEGIN")
    counts = dict(db.execute("SELECT writer, n FROM counts"))
    assert counts[0] == counts[1] + counts[2], counts
    for writer in 1, 2:
        rows = db.execute("SELECT n, text FROM rows WHERE writer = ? ORDER BY n", (writer,)).fetchall()
        last = counts[writer]
        assert [n for n, _ in rows] == list(range(max(1, last - 39), last + 1)), (writer, last)
        for n, t in rows:
            assert t == text(writer, n), (writer, n)
    if whole:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.execute("COMMIT")
    return counts

what, path = sys.argv[1], sys.argv[2]
db = open_store(path)
if what == "make":
    db.execute("CREATE TABLE rows (writer, n, text, PRIMARY KEY (writer, n))")
    db.execute("CREATE TABLE counts (writer PRIMARY KEY, n)")
    db.execute("INSERT INTO counts VALUES (0, 0), (1, 0), (2, 0)")
elif what == "write":
    writer = int(sys.argv[3])
    n = last_of(db, writer)
    while True:
        n += 1
        put(db, writer, n)
        print(n, flush=True)
elif what == "read":
    # As long as somebody writes: every state that is seen is a whole one.
    seen = set()
    while len(seen) < 10:
        seen.add(check(db, False)[0])
elif what == "check":
    counts = check(db, True)
    print(counts[1], counts[2])
PY

start_writers() { # DATABASE
	local n
	for n in 1 2; do
		python3 "$T/store.py" write "$1" "$n" >"$T/written$n" 2>"$T/errors$n" &
		writers[n]=$!
		STARTED+=("$!")
	done
}

last_written() {
	tail -n 1 "$T/written$1" | grep . || echo 0
}

has_written() { # WRITER COUNT
	[ "$(wc -l <"$T/written$1")" -ge "$2" ]
}

expect_written() { # DATABASE
	local one two
	read -r one two < <(python3 "$T/store.py" check "$1")
	[ "${one:-0}" -ge "$(last_written 1)" ] || fail "transaction $(last_written 1) of writer 1 was done, the store is at ${one:-nothing}"
	[ "${two:-0}" -ge "$(last_written 2)" ] || fail "transaction $(last_written 2) of writer 2 was done, the store is at ${two:-nothing}"
}

run() { # PLACE OPTIONS
	local place=$1 options=$2 db image reader n
	local -a writers=()
	image=$T/image$((++images))
	make_image "$image" 256M
	mount_pmfs "$image" "$M" "$options"
	if pmfs-ctl --json status "$M" | grep -q '"passthrough": *true'; then
		passthrough=yes
	fi
	db=$M/$place/store
	python3 "$T/store.py" make "$db"

	say "$place ${options:-as the system offers}: two writers and a reader; one writer is killed and the other goes on"
	start_writers "$db"
	python3 "$T/store.py" read "$db" &
	reader=$!
	wait "$reader" || fail "a reader saw half of a transaction"
	kill -KILL "${writers[1]}"
	wait "${writers[1]}" 2>/dev/null || true
	n=$(wc -l <"$T/written2")
	wait_for has_written 2 $((n + 10))
	kill -KILL "${writers[2]}"
	wait "${writers[2]}" 2>/dev/null || true
	expect_written "$db"

	say "$place ${options:-as the system offers}: the daemon is killed while two write: what was acknowledged is there"
	start_writers "$db"
	for n in 1 2; do
		wait_for has_written "$n" 20
	done
	kill_pmfs "$M"
	for n in 1 2; do
		# It may have seen that the store is gone, and have ended by itself.
		kill -KILL "${writers[n]}" 2>/dev/null || true
		wait "${writers[n]}" 2>/dev/null || true
	done
	check_image "$image"
	mount_pmfs "$image" "$M" "$options"
	expect_written "$db"
	umount_pmfs "$M"
	check_image "$image"
}

images=0 passthrough=
run . ''
run .pmfs/views ''
if [ -n "$passthrough" ]; then
	run .pmfs/views passthrough=off
fi
