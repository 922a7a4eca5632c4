#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# PostgreSQL on pmfs: a database with checksums, used by many at once, killed, recovered, and opened from a snapshot taken while it was in use.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip "only root can become the server's user"
need setpriv
BIN=$(find /usr/lib/postgresql /usr/local/pgsql /usr/libexec/postgresql* -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -n 1 || true)
if [ -z "$BIN" ]; then
	need initdb
	BIN=$(dirname "$(command -v initdb)")
fi
[ -x "$BIN/pgbench" ] || skip "there is no pgbench"
# The server wants a user with a name.
USER_NAME=nobody
GROUP=$(id -g "$USER_NAME")

M=$T/mnt IMAGE=$T/image
chmod 711 "$T"
make_image "$IMAGE" 2G
mount_pmfs "$IMAGE" "$M" allow_other
mkdir "$M/db"
chown "$USER_NAME:$GROUP" "$M/db"
cd "$M/db"

pg() {
	local program=$1
	shift
	setpriv --reuid="$USER_NAME" --regid="$GROUP" --clear-groups env -i PATH="$PATH" LC_ALL=C HOME="$M/db" "$BIN/$program" "$@"
}

# The socket is on pmfs, too.
start() {
	pg pg_ctl -D "$1" -s -w -t 60 -l "$M/db/log" -o "-k $M/db -c listen_addresses= -c shared_buffers=8MB -c max_connections=20" start ||
		{ tail "$M/db/log"; fail "PostgreSQL does not start on $1"; }
}

ask() {
	pg psql -h "$M/db" -d postgres -X -A -t -q -c "$1"
}

# Each transaction of pgbench adds one number to four tables.
balanced() {
	expect_equal "$(ask 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers)
		AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)
		AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)')" t "whether the balances agree"
	# An index and its table agree as well.
	expect_equal "$(ask 'SET enable_seqscan = off; SELECT count(*) FROM pgbench_accounts WHERE aid > 0')" 100000 "accounts by index"
	expect_equal "$(ask 'SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;
		SELECT count(*) FROM pgbench_accounts WHERE aid > 0')" 100000 "accounts by scan"
}

say "a database with checksums"
pg initdb -D data -A trust -k -E UTF8 --no-locale >"$T/initdb" 2>&1 || { cat "$T/initdb"; fail "initdb"; }
start data
pg pgbench -h "$M/db" -i -q -s 1 postgres >"$T/init" 2>&1 || { cat "$T/init"; fail "pgbench -i"; }

say "four clients, a snapshot meanwhile, and the server is killed"
pg pgbench -h "$M/db" -n -c 4 -j 2 -T 60 postgres >"$T/bench" 2>&1 &
bench=$!
some_done() {
	[ "$(ask 'SELECT count(*) >= 40 FROM pgbench_history')" = t ]
}
wait_for some_done
pmfs-snap -q create "$M" running
acknowledged=$(ask 'SELECT count(*) FROM pgbench_history')
server=$(head -n 1 data/postmaster.pid)
children=$(ps -o pid= --ppid "$server" || true)
kill -KILL "$server"
wait "$bench" || true
for pid in $server $children; do
	wait_gone "$pid" || fail "process $pid of PostgreSQL goes on"
done

say "recovery"
# Where nobody reaps it, the dead server still looks alive to the next one.
rm data/postmaster.pid .s.PGSQL.*
start data
grep -q 'redo done\|redo is not required' log || fail "there was no recovery"
balanced
[ "$(ask 'SELECT count(*) FROM pgbench_history')" -ge "$acknowledged" ] || fail "transactions are gone"
pg pgbench -h "$M/db" -n -c 4 -t 20 postgres >"$T/bench" 2>&1 || { cat "$T/bench"; fail "pgbench after recovery"; }
balanced
ask 'VACUUM FULL pgbench_accounts'
ask 'REINDEX TABLE pgbench_accounts'
balanced
pg pg_ctl -D data -s -w -m fast stop
pg pg_checksums -D data --check >"$T/sums" || { cat "$T/sums"; fail "wrong checksums"; }
grep -q 'Bad checksums: *0' "$T/sums" || fail "pg_checksums says nothing of use"

say "the database of the snapshot, as after a crash at that time"
cp -a "$M/.snapshots/running/db/data" "$M/db/old"
rm -f old/postmaster.pid
start old
balanced
pg pg_ctl -D old -s -w -m fast stop
pg pg_checksums -D old --check >/dev/null || fail "wrong checksums in the snapshot's database"

say "once more from the image"
cd "$T"
umount_pmfs "$M"
check_image "$IMAGE"
mount_pmfs "$IMAGE" "$M" allow_other
cd "$M/db"
pg pg_checksums -D data --check >/dev/null || fail "wrong checksums after a remount"
start data
balanced
pg pg_ctl -D data -s -w -m fast stop
cd "$T"
umount_pmfs "$M"
