#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A file, a model of it in memory, and a long random mix of everything that can be done to a file: reads and writes (cached, direct,
# mapped), truncation, holes, reservations, copies, snapshots, remounts.  PMFS_SEED and PMFS_OPS say which and how many.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/random.py" <<'PY'
import ctypes, errno, mmap, os, random, subprocess, sys

top, seed, ops = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
os.chdir(top)
# Started before anything is mapped: a child that is forked later would have the kernel write out what a snapshot is to ask for.
helper = subprocess.Popen(["sh", "-c", 'while read -r what name; do pmfs-snap -q "$what" "$0" "$name" && echo done; done', top],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
libc = ctypes.CDLL(None, use_errno=True)
MAX = 600000
PAGE = 4096

fd = os.open("file", os.O_CREAT | os.O_RDWR)
direct = os.open("file", os.O_RDWR | os.O_DIRECT)
model = bytearray(os.pread(fd, MAX, 0))
snapshots = {}
log = []

def snap(what, name):
    print(what, name, file=helper.stdin, flush=True)
    assert helper.stdout.readline() == "done\n"

def span(limit):
    unit = rng.choice((1, 1, 512, PAGE))
    off = rng.randrange(0, max(1, limit // unit)) * unit
    length = rng.choice((rng.randrange(1, 200), PAGE, rng.randrange(1, 70000), rng.randrange(1, 30) * PAGE))
    return off, max(1, min(length, MAX - off))

def grow(size):
    if size > len(model):
        model.extend(bytes(size - len(model)))

def do_write():
    off, n = span(MAX - 1)
    data = rng.randbytes(n)
    assert os.pwrite(fd, data, off) == n
    grow(off)
    model[off:off + n] = data
    return off, n

def do_read():
    off, n = span(MAX - 1)
    assert os.pread(fd, n, off) == bytes(model[off:off + n]), ("read", off, n)
    return off, n

def do_direct_read():
    off = rng.randrange(0, MAX // PAGE) * PAGE
    n = rng.randrange(1, 40) * PAGE
    buf = mmap.mmap(-1, n)
    got = os.preadv(direct, [buf], off)
    assert buf[:got] == bytes(model[off:off + n]), ("direct read", off, n, got)
    return off, n

def do_direct_write():
    off = rng.randrange(0, MAX // PAGE - 40) * PAGE
    n = rng.randrange(1, 40) * PAGE
    buf = mmap.mmap(-1, n)
    buf[:] = rng.randbytes(n)
    assert os.pwritev(direct, [buf], off) == n
    grow(off)
    model[off:off + n] = buf[:]
    return off, n

def do_map():
    if not model:
        return None
    off, n = span(len(model))
    n = min(n, len(model) - off)
    m = mmap.mmap(fd, len(model))
    assert m[off:off + n] == bytes(model[off:off + n]), ("map read", off, n)
    data = rng.randbytes(n)
    m[off:off + n] = data
    model[off:off + n] = data
    if rng.random() < 0.3:
        m.flush()
    m.close()
    return off, n

def do_truncate():
    size = rng.choice((0, len(model) // 2, rng.randrange(MAX), rng.randrange(MAX // PAGE) * PAGE))
    if size == 0 and rng.random() < 0.5:
        os.close(os.open("file", os.O_WRONLY | os.O_TRUNC))
    else:
        os.ftruncate(fd, size)
    del model[size:]
    grow(size)
    return size,

def do_fallocate():
    mode = rng.choice((0, 1, 2 | 1, 16, 16 | 1))
    off, n = span(MAX - 1)
    if libc.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(n)):
        raise OSError(ctypes.get_errno(), "fallocate")
    if not mode & 1:
        grow(off + n)
    if mode & (2 | 16):
        end = min(off + n, len(model))
        if off < end:
            model[off:end] = bytes(end - off)
    return mode, off, n

def do_copy():
    if len(model) < 2:
        return None
    so, n = span(len(model))
    do, _ = span(MAX - 1)
    n = min(n, len(model) - so, MAX - do)
    if n < 1 or (so < do + n and do < so + n):
        return None
    data = bytes(model[so:so + n])
    done = 0
    while done < n:
        got = os.copy_file_range(fd, fd, n - done, so + done, do + done)
        assert got > 0
        done += got
    grow(do)
    model[do:do + n] = data
    return so, do, n

def do_size():
    assert os.fstat(fd).st_size == len(model)
    return ()

def do_all():
    assert os.pread(fd, MAX, 0) == bytes(model), "all of it"
    return ()

def do_sync():
    rng.choice((os.fsync, os.fdatasync))(fd)
    return ()

def do_snapshot():
    if len(snapshots) > 5:
        name = rng.choice(sorted(snapshots))
        with open(f".snapshots/{name}/file", "rb") as f:
            assert f.read() == snapshots.pop(name), ("snapshot", name)
        snap("delete", name)
        return name,
    name = f"s{len(log)}"
    m = None
    if len(model) > 10:
        # A store that only the kernel knows of.
        m = mmap.mmap(fd, len(model))
        at = rng.randrange(len(model) - 4)
        m[at:at + 4] = model[at:at + 4] = b"snap"
    snap("create", name)
    if m:
        m.close()
    snapshots[name] = bytes(model)
    return name,

mix = [do_write] * 20 + [do_read] * 15 + [do_direct_read] * 5 + [do_direct_write] * 5 + [do_map] * 10 + \
      [do_truncate] * 5 + [do_fallocate] * 8 + [do_copy] * 8 + [do_size] * 3 + [do_all] * 2 + [do_sync] * 2
try:
    for i in range(ops):
        fn = do_snapshot if i % 100 == 50 else rng.choice(mix)
        log.append((fn.__name__, None))
        log[-1] = (fn.__name__, fn())
    do_all()
    for name, data in snapshots.items():
        with open(f".snapshots/{name}/file", "rb") as f:
            assert f.read() == data, ("snapshot", name)
except BaseException:
    for i, entry in list(enumerate(log))[-15:]:
        print(i, *entry)
    raise
with open(sys.argv[4], "wb") as f:
    f.write(model)
PY

SEED=${PMFS_SEED:-1} OPS=${PMFS_OPS:-4000}
say "seed $SEED, $OPS operations each"
make_image "$T/image" 512M
for round in 0 1; do
	say "image, round $round"
	mount_pmfs "$T/image" "$M"
	[ $round -eq 0 ] || cmp "$M/file" "$T/model" || fail "the file is another one after a remount"
	python3 "$T/random.py" "$M" $((SEED + round)) "$OPS" "$T/model"
	for snapshot in "$M"/.snapshots/*; do
		pmfs-snap -q delete "$M" "${snapshot##*/}"
	done
	umount_pmfs "$M"
	check_image "$T/image"
done
say "RAM, writeback"
mount_pmfs ram "$M" size=256M,writeback
python3 "$T/random.py" "$M" $((SEED + 2)) "$OPS" "$T/model"
umount_pmfs "$M"
