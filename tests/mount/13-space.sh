#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# fallocate, SEEK_DATA and SEEK_HOLE, copy_file_range and what cp makes of it.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/space.py" <<'PY'
import ctypes, errno, os, random, sys

os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
KEEP, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32

def fallocate(fd, mode, off, length):
    if libc.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(length)):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))

def refused(want, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        assert e.errno == want, (fn, args, e)
    else:
        raise AssertionError(("was not refused", fn, args))

def new(name, data=b""):
    fd = os.open(name, os.O_CREAT | os.O_TRUNC | os.O_RDWR)
    os.pwrite(fd, data, 0)
    return fd

def all_of(fd):
    return os.pread(fd, 1 << 22, 0)

P = 4096
fd = new("f", b"x" * (10 * P))
fallocate(fd, KEEP, 0, 20 * P)
assert os.fstat(fd).st_size == 10 * P and os.fstat(fd).st_blocks >= 20 * 8
assert all_of(fd) == b"x" * (10 * P)
fallocate(fd, 0, 15 * P, 10 * P)
assert os.fstat(fd).st_size == 25 * P
assert all_of(fd) == b"x" * (10 * P) + bytes(15 * P)
fallocate(fd, PUNCH | KEEP, 100, 5 * P)
want = bytearray(b"x" * (10 * P) + bytes(15 * P))
want[100:100 + 5 * P] = bytes(5 * P)
assert all_of(fd) == want
fallocate(fd, ZERO, 6 * P + 7, P)
want[6 * P + 7:7 * P + 7] = bytes(P)
assert all_of(fd) == want
fallocate(fd, ZERO, 24 * P, 3 * P)
assert os.fstat(fd).st_size == 27 * P
fallocate(fd, ZERO | KEEP, 26 * P, 3 * P)
assert os.fstat(fd).st_size == 27 * P
fallocate(fd, PUNCH | KEEP, 0, 100 * P)
assert os.fstat(fd).st_size == 27 * P and all_of(fd) == bytes(27 * P)
assert os.fstat(fd).st_blocks == 0, os.fstat(fd)
refused(errno.EOPNOTSUPP, fallocate, fd, COLLAPSE, 0, P)
refused(errno.EOPNOTSUPP, fallocate, fd, INSERT, 0, P)
refused(errno.EOPNOTSUPP, fallocate, fd, PUNCH, 0, P)
refused(errno.EINVAL, fallocate, fd, 0, 0, 0)
refused(errno.ENOSPC, fallocate, fd, 0, 0, 1 << 35)
os.posix_fallocate(fd, 0, 3 * P)

# Data and holes: whole pages, found from anywhere, a hole at the end of the file, nothing behind it.
fd = new("holes")
os.ftruncate(fd, 100 * P)
for at in (0, 10, 11, 50):
    os.pwrite(fd, b"d", at * P + 5)
def data(off):
    return os.lseek(fd, off, os.SEEK_DATA)
def hole(off):
    return os.lseek(fd, off, os.SEEK_HOLE)
assert data(0) == 0 and hole(0) == P and data(P) == 10 * P and hole(10 * P) == 12 * P
assert data(11 * P + 99) == 11 * P + 99 and hole(3 * P) == 3 * P and data(12 * P) == 50 * P
assert hole(50 * P) == 51 * P and hole(99 * P) == 99 * P
refused(errno.ENXIO, data, 51 * P)
refused(errno.ENXIO, data, 100 * P)
refused(errno.ENXIO, hole, 100 * P)
fd = new("small", b"inline")
assert data(0) == 0 and hole(0) == 6
fd = new("empty")
refused(errno.ENXIO, data, 0)

# copy_file_range: any alignment, against a model; the source is not touched, and later writes to either stay apart.
rng = random.Random(int(os.environ.get("PMFS_SEED", "1")))
src = bytes(rng.getrandbits(8) for _ in range(50 * P + 123))
a = new("a", src)
for _ in range(60):
    b = new("b", b"b" * rng.choice((0, 5, 30 * P)))
    model = bytearray(all_of(b))
    for _ in range(3):
        unit = rng.choice((1, P, P))
        so = rng.randrange(0, len(src) // unit) * unit
        do = rng.randrange(0, 60 * P // unit) * unit
        n = rng.choice((1, 100, P, 3 * P, 20 * P + 5, 60 * P))
        got = os.copy_file_range(a, b, n, so, do)
        assert got == min(n, len(src) - so), (got, n, so)
        if do > len(model):
            model.extend(bytes(do - len(model)))
        model[do:do + got] = src[so:so + got]
        assert all_of(b) == bytes(model), (so, do, n)
    os.pwrite(b, b"mine", 2 * P)
    os.close(b)
assert all_of(a) == src
os.pwrite(a, b"later", 0)
fd = new("self", src[:20 * P])
assert os.copy_file_range(fd, fd, 5 * P, 0, 10 * P) == 5 * P
assert all_of(fd) == src[:10 * P] + src[:5 * P] + src[15 * P:20 * P]
refused(errno.EINVAL, os.copy_file_range, fd, fd, 5 * P, 0, P)
PY

used() { df --output=used -k "$M" | tail -n 1 | tr -d ' '; }

mount_pmfs ram "$M" size=512M
say "fallocate, holes, copies"
python3 "$T/space.py" "$M"

say "cp shares pages: the second 64 MiB take no space"
head -c 64M /dev/urandom >"$M/one"
sync "$M"
before=$(used)
cp --reflink=auto "$M/one" "$M/two"
cmp "$M/one" "$M/two"
sync "$M"
after=$(used)
[ $((after - before)) -lt 8192 ] || fail "a copy of 64 MiB took $((after - before)) KiB"
pmfs-ctl info --json "$M/two" >"$OUT"
expect_text '"shared_pages":16384,' "$OUT"
printf 'changed' | dd of="$M/two" bs=1 seek=1000000 conv=notrunc status=none
expect_equal "$(cmp -l "$M/one" "$M/two" | wc -l | awk '{ print ($1 > 0 && $1 < 8) }')" 1 "a few bytes differ"

say "cp brings files back from a snapshot, sharing their pages"
cp "$M/one" "$T/kept"
pmfs-snap -q create "$M" s
: >"$M/one"
cp --reflink=auto "$M/.snapshots/s/one" "$M/one"
cmp "$M/one" "$T/kept"
umount_pmfs "$M"
