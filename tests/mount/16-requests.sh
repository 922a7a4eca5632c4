#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# What the kernel asks the daemon for, and what it does not: the counters of stats.json before and after an operation.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need jq python3

M=$T/mnt

# requests OPERATION COMMAND...: how many requests of that kind the command causes; the rest of them in $T/delta.
counters() { jq -c .requests "$M/.pmfs/stats.json"; }
requests() {
	local op=$1 before after
	shift
	before=$(counters)
	"$@" >/dev/null
	after=$(counters)
	jq -n --argjson a "$before" --argjson b "$after" '$b | with_entries(.value -= ($a[.key] // 0)) | with_entries(select(.value != 0))' >"$T/delta"
	jq -r ".$op // 0" "$T/delta"
}

# What the kernel had cached can have been reclaimed meanwhile; then it is again after the first try.
none() { # OPERATION COMMAND...
	local n try
	for try in 1 2 3; do
		n=$(requests "$@")
		[ "$n" -ne 0 ] || return 0
		cat "$T/delta"
	done
	fail "$n requests \"$1\" from each of $try times: ${*:2}"
}

some() { # MIN MAX OPERATION COMMAND...
	local min=$1 max=$2 n
	shift 2
	n=$(requests "$@")
	[ "$n" -ge "$min" ] && [ "$n" -le "$max" ] || { cat "$T/delta"; fail "$n requests \"$1\", not $min to $max, from: ${*:2}"; }
}

mount_pmfs ram "$M" size=256M
mkdir "$M/d"
echo x >"$M/d/f"
cat "$M/d/f" >/dev/null
ls "$M/d" >/dev/null
cat >"$T/do.py" <<'PY'
import os, sys
what, path = sys.argv[1:3]
if what == "writes":
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    for i in range(50):
        os.write(fd, b"x" * 4096)
elif what == "osync":
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    for i in range(5):
        os.write(fd, b"x" * 4096)
elif what == "fsync":
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x")
    os.fsync(fd)
    os.fdatasync(fd)
    os.fsync(os.open(os.path.dirname(path), os.O_RDONLY))
elif what == "reread":
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * (1 << 20))
    for i in range(3):
        os.pread(fd, 1 << 20, 0)
        os.pwrite(fd, b"y" * 4096, 8192)
elif what == "big":
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * (8 << 20))
elif what == "truncate":
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
elif what == "stats":
    for i in range(100):
        os.stat(path)
        os.path.exists(path + ".no")
elif what == "creates":
    for i in range(50):
        fd = os.open("%s/c%d" % (path, i), os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"x" * 100)
        os.close(fd)
elif what == "removes":
    for i in range(50):
        os.unlink("%s/c%d" % (path, i))
elif what == "clone":
    fd = os.open(path, os.O_RDONLY)
    to = os.open(path + ".clone", os.O_CREAT | os.O_WRONLY)
    size = os.fstat(fd).st_size
    assert os.copy_file_range(fd, to, size) == size
elif what == "lock":
    import fcntl
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    fcntl.lockf(fd, fcntl.LOCK_UN)
    fcntl.lockf(fd, fcntl.LOCK_EX)
PY
do_() { python3 "$T/do.py" "$@"; }

say "opening and closing costs nothing"
for op in open opendir getxattr read readdir readdirplus; do
	none $op cat "$M/d/f"
done
none open sh -c "cat $M/d/f; echo y >>$M/d/f; : <$M/d/f"
say "listing a directory again costs no READDIR"
for op in readdir readdirplus opendir; do
	none $op ls "$M/d"
done
say "what is not there is not asked for again"
do_ stats "$M/d/f"
none lookup do_ stats "$M/d/f"
none getattr do_ stats "$M/d/f"
say "no question about capabilities in front of a write"
some 50 50 write do_ writes "$M/d/w"
some 0 2 getxattr do_ writes "$M/d/w2"
say "a file's own writes leave its cached pages alone"
none read do_ reread "$M/d/r"
say "writes come in pieces of 1 MiB"
some 8 9 write do_ big "$M/d/big"
say "a file is created and written with five requests, removed with three"
mkdir "$M/many"
some 150 260 total do_ creates "$M/many"
for op in open flush release; do
	[ "$(jq -r ".$op // 0" "$T/delta")" -eq 0 ] || fail "$op requests: $(cat "$T/delta")"
done
# FORGETs may come later.
some 100 160 total do_ removes "$M/many"
say "a copy of any size is one"
some 1 1 copy_file_range do_ clone "$M/d/big"
say "O_TRUNC is one SETATTR"
some 1 1 setattr do_ truncate "$M/d/big"
say "fsync, fdatasync, fsync of a directory and O_SYNC reach the daemon"
some 3 3 fsync do_ fsync "$M/d/s"
some 5 5 fsync do_ osync "$M/d/o"
say "a snapshot of a tree that nobody writes to asks one question (of each CPU, with rings)"
some 1 $((1 + $(nproc --all))) statfs pmfs-snap create "$M" one
say "locks are the kernel's own business"
do_ lock "$M/d/f"
before=$(jq '[.errors[]] | add // 0' "$M/.pmfs/stats.json")
do_ lock "$M/d/f"
expect_equal "$(jq '[.errors[]] | add // 0' "$M/.pmfs/stats.json")" "$before" "errors answered"
umount_pmfs "$M"
