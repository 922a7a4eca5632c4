#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# kill -9 of the daemon under load, again and again: the image is clean, mounts at once, and has all that was acknowledged, of files that were synced, of
# git, of SQLite and, when PMFS_KILL_POSTGRES is set, of PostgreSQL.
# PMFS_KILL_ROUNDS: how often (4).  PMFS_SEED: when.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need dd sha256sum

M=$T/mnt IMAGE=$T/image
ROUNDS=${PMFS_KILL_ROUNDS:-4}
RANDOM=${PMFS_SEED:-1}
say "PMFS_SEED=${PMFS_SEED:-1}"
export HOME=$T GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
make_image "$IMAGE" 1G

# What was acknowledged is noted outside of the mount, behind the call that made it durable.
mkdir "$T/acked"
note() { # WORK TEXT
	echo "$2" >>"$T/acked/$1"
}
acked() {
	cat "$T/acked/"* | wc -l
}

# ---------------------------------------------------------------- files: written, synced, renamed, the directory synced

files_start() {
	: >"$T/acked/files"
	: >"$T/removed"
}

files_work() { # ROUND
	local i name
	for ((i = 0; ; i++)); do
		name=r$1.$i
		head -c $((i * 7919 % 200000)) /dev/urandom >"$T/data" || return 0
		cat "$T/data" >"$M/tmp.$name" 2>/dev/null || return 0
		sync "$M/tmp.$name" 2>/dev/null || return 0
		mv "$M/tmp.$name" "$M/$name" 2>/dev/null || return 0
		sync "$M" 2>/dev/null || return 0
		note files "$(sha256sum <"$T/data" | cut -d' ' -f1)  $name"
		if [ $((i % 3)) -eq 2 ]; then
			# Until its removal is synced it may be there or not.
			sed -i '$d' "$T/acked/files"
			rm "$M/$name" 2>/dev/null || return 0
			sync "$M" 2>/dev/null || return 0
			echo "$name" >>"$T/removed"
		fi
	done
}

files_verify() {
	local name
	(cd "$M" && sha256sum --quiet -c "$T/acked/files") || fail "a file whose fsync returned is gone or damaged"
	while read -r name; do
		[ ! -e "$M/$name" ] || fail "$name is back, though its removal was synced"
	done <"$T/removed"
	rm -f "$M"/tmp.*
}

# ---------------------------------------------------------------- git: each commit followed by a sync

git_start() {
	: >"$T/acked/git"
	git -C "$M" init -q -b main repo
	git -C "$M/repo" config gc.auto 0
}

git_work() {
	local i
	for ((i = 0; ; i++)); do
		seq $((i + RANDOM % 1000)) >"$M/repo/file$((i % 7))" 2>/dev/null || return 0
		git -C "$M/repo" add . 2>/dev/null || return 0
		git -C "$M/repo" commit -q --allow-empty -m "commit $i" >/dev/null 2>&1 || return 0
		[ $((i % 20)) -ne 19 ] || git -C "$M/repo" repack -qd >/dev/null 2>&1 || return 0
		sync "$M/repo/.git" 2>/dev/null || return 0
		note git "$(git -C "$M/repo" rev-parse -q --verify HEAD 2>/dev/null || true)"
	done
}

git_verify() {
	local commit
	# Those of commands that were killed.
	find "$M/repo/.git" -name '*.lock' -delete
	git -C "$M/repo" fsck --full --strict >"$T/git.out" 2>&1 || { cat "$T/git.out"; fail "git fsck"; }
	git -C "$M/repo" rev-list HEAD >"$T/commits" 2>/dev/null || : >"$T/commits"
	while read -r commit; do
		[ -z "$commit" ] || grep -qxF "$commit" "$T/commits" || fail "commit $commit is gone"
	done <"$T/acked/git"
	[ ! -s "$T/commits" ] || git -C "$M/repo" reset -q --hard
}

# ---------------------------------------------------------------- SQLite: a write-ahead log, or a journal that is removed

sqlite_start() {
	: >"$T/acked/sqlite"
	sqlite3 "$M/db" 'CREATE TABLE t(n INTEGER PRIMARY KEY, body TEXT);'
}

sqlite_work() { # ROUND
	local n=$(($1 * 100000)) mode=wal
	[ $(($1 % 2)) -eq 0 ] || mode=delete
	sqlite3 "$M/db" "PRAGMA journal_mode=$mode;" >/dev/null 2>&1 || return 0
	for (( ; ; n++)); do
		sqlite3 "$M/db" "PRAGMA synchronous=EXTRA; INSERT INTO t VALUES($n, hex(zeroblob($((n % 5000)))) || '$n');" >/dev/null 2>&1 || return 0
		note sqlite "$n"
	done
}

sqlite_verify() {
	expect_equal "$(sqlite3 "$M/db" 'PRAGMA integrity_check;' 2>&1)" ok "what SQLite says of its database"
	expect_equal "$(sqlite3 "$M/db" "SELECT count(*) FROM t WHERE body <> hex(zeroblob(n % 5000)) || n;")" 0 "rows with other contents"
	sqlite3 "$M/db" 'SELECT n FROM t;' | sort >"$T/rows"
	sort "$T/acked/sqlite" | comm -23 - "$T/rows" >"$T/missing"
	[ ! -s "$T/missing" ] || fail "rows that were committed are gone: $(head -n 3 "$T/missing" | tr '\n' ' ')"
}

# ---------------------------------------------------------------- PostgreSQL

PG_BIN=$(find /usr/lib/postgresql -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -n 1 || true)
PG_OPTIONS='-c listen_addresses= -c shared_buffers=8MB -c max_connections=20'

pg() {
	local program=$1
	shift
	# The server wants a user with a name.
	(cd "$M/pg" && exec setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups env -i PATH="$PATH" LC_ALL=C "$PG_BIN/$program" "$@")
}

postgres_up() {
	rm -f "$M/pg/data/postmaster.pid" "$M"/pg/.s.PGSQL.*
	pg pg_ctl -D "$M/pg/data" -s -w -t 120 -l "$M/pg/log" -o "-k $M/pg $PG_OPTIONS" start || { tail "$M/pg/log"; fail "PostgreSQL does not start"; }
	PG_SERVER=$(head -n 1 "$M/pg/data/postmaster.pid")
}

ask() {
	pg psql -h "$M/pg" -d postgres -X -A -t -q -c "$1"
}

postgres_start() {
	: >"$T/acked/postgres"
	mkdir "$M/pg"
	chown nobody:"$(id -g nobody)" "$M/pg"
	pg initdb -D "$M/pg/data" -A trust -k -E UTF8 --no-locale >"$T/initdb" 2>&1 || { cat "$T/initdb"; fail "initdb"; }
	postgres_up
	ask 'CREATE TABLE t(n int PRIMARY KEY, body text)'
}

postgres_work() { # ROUND
	local n=$(($1 * 100000))
	for (( ; ; n++)); do
		ask "INSERT INTO t VALUES($n, repeat('x', $((n % 5000))))" >/dev/null 2>&1 || return 0
		note postgres "$n"
	done
}

# Its files are gone under it: it ends, or is ended.
postgres_down() {
	local pid children
	children=$(ps -o pid= --ppid "$PG_SERVER" || true)
	kill -KILL "$PG_SERVER" $children 2>/dev/null || true
	for pid in $PG_SERVER $children; do
		wait_gone "$pid" || fail "process $pid of PostgreSQL goes on"
	done
}

postgres_verify() {
	postgres_up
	expect_equal "$(ask "SELECT count(*) FROM t WHERE body <> repeat('x', n % 5000)")" 0 "rows of PostgreSQL with other contents"
	ask 'SELECT n FROM t' | sort >"$T/rows"
	sort "$T/acked/postgres" | comm -23 - "$T/rows" >"$T/missing"
	[ ! -s "$T/missing" ] || fail "PostgreSQL lacks rows that were committed: $(head -n 3 "$T/missing" | tr '\n' ' ')"
	pg pg_ctl -D "$M/pg/data" -s -w -m fast stop
	pg pg_checksums -D "$M/pg/data" --check >"$T/sums" 2>&1 || { cat "$T/sums"; fail "wrong checksums"; }
}

# ---------------------------------------------------------------- rounds

works=(files)
! command -v git >/dev/null || works+=(git)
! command -v sqlite3 >/dev/null || works+=(sqlite)
if [ -n "${PMFS_KILL_POSTGRES-}" ]; then
	[ "$(id -u)" -eq 0 ] && [ -x "$PG_BIN/initdb" ] || skip "there is no PostgreSQL, or the user is not root"
	chmod 711 "$T"
	OPTIONS=allow_other
	works+=(postgres)
fi

mount_pmfs "$IMAGE" "$M" "${OPTIONS-}"
for work in "${works[@]}"; do
	"${work}_start"
done
sync -f "$M"
enough() {
	[ "$(acked)" -ge "$WANT" ]
}
for ((round = 1; round <= ROUNDS; round++)); do
	say "round $round"
	WANT=$(($(acked) + 6 + RANDOM % 30))
	pids=()
	for work in "${works[@]}"; do
		"${work}_work" "$round" 2>/dev/null &
		pids+=($!)
	done
	[ $((round % 2)) -ne 0 ] || pmfs-snap -q create "$M" "round-$round"
	[ $((round % 3)) -ne 0 ] || pmfs-ctl -q dedup "$M" start
	[ $((round % 4)) -ne 0 ] || pmfs-snap -q delete "$M" "round-$((round - 2))"
	wait_for enough
	sleep "0.$((RANDOM % 10))"
	# The dead mount stays until the workers have met it: without it they would go on in the directory below.
	kill -KILL "$DAEMON"
	wait "${pids[@]}" || true
	[ -z "${PG_SERVER-}" ] || postgres_down
	wait_gone "$DAEMON" || fail "the daemon $DAEMON does not die"
	fusermount3 -uz "$M" || fail "can't take the dead mount $M away"

	# What a killed worker was about to note may be there or not; what it noted must be.
	check_image "$IMAGE"
	mount_pmfs "$IMAGE" "$M" "${OPTIONS-}"
	for work in "${works[@]}"; do
		"${work}_verify"
	done
	[ $((round % 2)) -ne 0 ] || [ -d "$M/.snapshots/round-$round" ] || fail "the snapshot of round $round is gone"
	[ $((round % 4)) -ne 0 ] || [ ! -d "$M/.snapshots/round-$((round - 2))" ] || fail "a snapshot that was deleted is back"
	[ -z "${PG_SERVER-}" ] || postgres_up
	say "tries: 1 kills"
done
[ -z "${PG_SERVER-}" ] || pg pg_ctl -D "$M/pg/data" -s -w -m fast stop
umount_pmfs "$M"
check_image "$IMAGE"
for work in "${works[@]}"; do
	say "$work: $(wc -l <"$T/acked/$work") acknowledged"
done
