#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Other people's programs at work: git, a compiler, make, rsync, SQLite with a write-ahead log and shared memory, fio with verification.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need git make cc

M=$T/mnt IMAGE=$T/image
make_image "$IMAGE" 2G
mount_pmfs "$IMAGE" "$M"
export HOME=$T GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org

say "git: a repository made outside, cloned in, worked in, packed, checked"
mkdir "$T/origin"
git -C "$T/origin" init -q -b main
for n in $(seq 40); do
	mkdir -p "$T/origin/dir$((n % 5))"
	seq "$n" $((n * 50)) >"$T/origin/dir$((n % 5))/file$n"
	git -C "$T/origin" add .
	git -C "$T/origin" commit -qm "commit $n"
done
git clone -q "$T/origin" "$M/clone"
git -C "$M/clone" fsck --full --strict >/dev/null
[ -z "$(git -C "$M/clone" status --porcelain)" ] || fail "a fresh clone has changes"
git -C "$M/clone" checkout -qb work
sed -i s/1/one/ "$M"/clone/dir0/*
git -C "$M/clone" commit -qam "work"
git -C "$M/clone" gc -q --aggressive
git -C "$M/clone" repack -qad
git -C "$M/clone" fsck --full --strict >/dev/null
git -C "$M/clone" rebase -q main
[ -z "$(git -C "$M/clone" status --porcelain)" ] || fail "changes after a commit"

say "a C project: made, built in parallel, run, touched, built again"
mkdir "$M/project"
{
	echo 'all: prog'
	echo 'OBJS ='
	for n in $(seq 30); do
		echo "int f$n(int x); int f$n(int x) { return x + $n; }" >"$M/project/f$n.c"
		echo "OBJS += f$n.o"
	done
	printf 'prog: main.o $(OBJS)\n\t$(CC) -o $@ $^\n%%.o: %%.c all.h\n\t$(CC) -c -o $@ $<\n'
} >"$M/project/Makefile"
for n in $(seq 30); do echo "int f$n(int);"; done >"$M/project/all.h"
{
	printf '#include "all.h"\n#include <stdio.h>\nint main(void) { int s = 0;\n'
	for n in $(seq 30); do echo "s += f$n(0);"; done
	printf 'printf("%%d\\n", s); return 0; }\n'
} >"$M/project/main.c"
make -s -j4 -C "$M/project"
expect_equal "$("$M/project/prog")" 465 "what the program says"
expect_equal "$(make -C "$M/project" | grep -c 'cc ' || true)" 0 "compilations when nothing has changed"
touch "$M/project/f7.c"
expect_equal "$(make -C "$M/project" | grep -c -- '-c -o' || true)" 1 "compilations when one file has changed"

if command -v rsync >/dev/null; then
	say "rsync: a copy, and a second run that finds nothing to do"
	rsync -aHX "$M/project/" "$M/project2/"
	expect_equal "$(rsync -aHXi "$M/project/" "$M/project2/" | wc -l)" 0 "files that rsync copies again"
	same_tree "$M/project" "$M/project2"
fi

if command -v sqlite3 >/dev/null; then
	say "SQLite: a write-ahead log with two writers and a reader"
	db=$M/data.db
	sqlite3 "$db" 'PRAGMA journal_mode=WAL; CREATE TABLE t(w INT, n INT, body BLOB);' >/dev/null
	insert() {
		local n
		for ((n = 0; n < 60; n++)); do
			sqlite3 -cmd '.timeout 60000' "$db" "BEGIN IMMEDIATE; INSERT INTO t SELECT $1, $n, randomblob(3000); COMMIT;" || return 1
		done
	}
	insert 1 &
	one=$!
	insert 2 &
	two=$!
	while kill -0 $one 2>/dev/null; do
		expect_equal "$(sqlite3 -cmd '.timeout 60000' "$db" 'PRAGMA quick_check;')" ok "quick_check while writing"
	done
	wait $one || fail "a writer failed"
	wait $two || fail "a writer failed"
	expect_equal "$(sqlite3 "$db" 'SELECT count(*), count(DISTINCT w) FROM t;')" '120|2' "rows"
	expect_equal "$(sqlite3 "$db" 'PRAGMA wal_checkpoint(TRUNCATE); PRAGMA integrity_check;' | tail -n 1)" ok "integrity_check"

	say "a snapshot of the database opens, as after a crash"
	sqlite3 "$db" "INSERT INTO t VALUES(3, 0, 'x');"
	pmfs-snap create "$M" db
	sqlite3 "$db" 'DELETE FROM t;'
	mkdir "$T/copy"
	cp "$M"/.snapshots/db/data.db* "$T/copy/"
	expect_equal "$(sqlite3 "$T/copy/data.db" 'PRAGMA integrity_check; SELECT count(*) FROM t;' | tr '\n' ' ')" 'ok 121 ' "the database in the snapshot"
fi

if command -v fio >/dev/null; then
	say "fio: random writes of all sizes by two jobs, verified, with mmap too"
	fio --directory="$M" --name=verify --rw=randwrite --bsrange=512-64k --size=16M --numjobs=2 --verify=crc32c \
		--do_verify=1 --verify_fatal=1 --verify_state_save=0 --fsync=64 --group_reporting --minimal >/dev/null || fail "fio found other data than it wrote"
	fio --directory="$M" --name=mapped --ioengine=mmap --rw=randwrite --bs=4k --size=8M --verify=crc32c \
		--do_verify=1 --verify_fatal=1 --verify_state_save=0 --minimal >/dev/null || fail "fio found other data than it wrote through a mapping"
fi

say "all of it once more from the image"
tree_sums "$M/clone" >"$T/clone.sums"
umount_pmfs "$M"
check_image "$IMAGE"
mount_pmfs "$IMAGE" "$M"
tree_sums "$M/clone" | cmp -s - "$T/clone.sums" || fail "the clone is another one after a remount"
git -C "$M/clone" fsck --full --strict >/dev/null
"$M/project/prog" >/dev/null
umount_pmfs "$M"
