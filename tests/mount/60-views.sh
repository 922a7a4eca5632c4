#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# View files: the same results with passthrough and through the page cache; aliases; names; limits.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/views.py" <<'PY'
import errno, fcntl, mmap, os, random, stat, subprocess, sys, time
top, way = sys.argv[1], sys.argv[2]
views, alias = top + "/.pmfs/views/", top + "/.pmfs/alias/"
direct = way == "passthrough"
seed = int(os.environ.get("PMFS_SEED", "1"))
print("PMFS_SEED=%d" % seed)
rng = random.Random(seed)

def refused(want, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except OSError as e:
        assert e.errno == want, (fn, args, e)
    else:
        raise AssertionError(("was not refused", fn, args))

def other(code, *args):
    return subprocess.run([sys.executable, "-c", "import mmap, os, sys\n" + code, *map(str, args)],
                          capture_output=True, check=True).stdout

# Against a plain file in memory, operation by operation: contents, size, holes.
libc_falloc = os.posix_fallocate
def punch(fd, off, length):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, 3, ctypes.c_int64(off), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), "fallocate")

fd = os.open(views + "model", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
afd = os.open(alias + "model", os.O_RDONLY)
model = bytearray()
SIZE = 1 << 20
for step in range(400):
    op = rng.randrange(7)
    off, n = rng.randrange(SIZE), rng.choice([1, 7, 100, 4096, 10000, 100000])
    n = min(n, SIZE - off)
    if op <= 1:
        data = rng.randbytes(n)
        assert os.pwrite(fd, data, off) == n
        if off > len(model):
            model += bytes(off - len(model))
        model[off:off + n] = data
    elif op == 2:
        os.ftruncate(fd, off)
        model = model[:off] + bytes(max(0, off - len(model)))
    elif op == 3:
        os.posix_fallocate(fd, off, n)
        model += bytes(max(0, off + n - len(model)))
    elif op == 4:
        punch(fd, off, n)
        end = min(off + n, len(model))
        if off < end:
            model[off:end] = bytes(end - off)
    elif op == 5 and model:
        m = mmap.mmap(fd, len(model))
        at = rng.randrange(len(model))
        k = min(n, len(model) - at)
        data = rng.randbytes(k)
        m[at:at + k] = data
        model[at:at + k] = data
        assert m[:] == bytes(model), step
        m.flush()
        m.close()
    else:
        os.fsync(fd)
    assert os.fstat(fd).st_size == len(model), (step, op)
    assert os.pread(fd, SIZE + 1, 0) == bytes(model), (step, op)
    if step % 10 == 0:
        assert other("sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())", views + "model") == bytes(model)
        assert other("sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())", alias + "model") == bytes(model)
os.ftruncate(fd, SIZE)
model = model[:SIZE] + bytes(max(0, SIZE - len(model)))
with open(top + "/model", "wb") as f:
    f.write(model)

# An append, and O_TRUNC.
with open(views + "append", "wb") as f:
    f.write(b"one")
with open(views + "append", "ab") as f:
    f.write(b"two")
assert open(alias + "append", "rb").read() == b"onetwo"
with open(views + "append", "wb") as f:
    f.write(b"3")
assert open(views + "append", "rb").read() == b"3"

# An alias can't be written, whoever asks.
for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_TRUNC):
    refused(errno.EACCES, os.open, alias + "model", flags)
refused(errno.EACCES, mmap.mmap, afd, 4096)
refused(errno.EACCES, os.truncate, alias + "model", 0)
refused(errno.EACCES, os.chmod, alias + "model", 0o777)
refused(errno.EACCES, os.unlink, alias + "model")
refused(errno.EACCES, os.rename, alias + "model", alias + "x")
refused(errno.EACCES, os.open, alias + "new", os.O_RDWR | os.O_CREAT, 0o644)
refused(errno.EACCES, os.setxattr, alias + "model", "user.x", b"y")
assert not os.stat(alias + "model").st_mode & 0o222
assert os.stat(alias + "model").st_size == SIZE
am = mmap.mmap(afd, SIZE, prot=mmap.PROT_READ)
assert am[:] == bytes(model)

# A write through the view is seen by the alias's mapping; with passthrough every store is, at once.
m = mmap.mmap(fd, SIZE)
for i in range(200):
    at = rng.randrange(SIZE - 8)
    m[at:at + 8] = b"%08d" % i
    if direct:
        assert am[at:at + 8] == b"%08d" % i
        assert os.pread(afd, 8, at) == b"%08d" % i
    else:
        # One page cache for all of the view, another for the alias.
        assert os.pread(fd, 8, at) == b"%08d" % i
m.flush()
deadline = time.monotonic() + 60
while am[:] != m[:] and time.monotonic() < deadline:
    time.sleep(0.01)
assert am[:] == m[:]

# Names.
os.rename(views + "append", views + "renamed")
refused(errno.ENOENT, os.stat, alias + "append")
assert open(alias + "renamed", "rb").read() == b"3"
refused(errno.EPERM, os.mkdir, views + "dir")
refused(errno.EPERM, os.symlink, "x", views + "link")
refused(errno.EPERM, os.link, views + "model", views + "hard")
refused(errno.EPERM, os.mkfifo, views + "fifo")
refused(errno.EPERM, os.open, top + "/.pmfs/new", os.O_CREAT | os.O_RDWR, 0o644)
assert sorted(os.listdir(views)) == sorted(os.listdir(alias)) == ["model", "renamed"]
os.setxattr(views + "model", "user.name", b"value")
assert os.getxattr(alias + "model", "user.name") == b"value"
os.chmod(views + "model", 0o604)
assert stat.S_IMODE(os.stat(views + "model").st_mode) == 0o604
assert stat.S_IMODE(os.stat(alias + "model").st_mode) == 0o404
os.utime(views + "model", ns=(10**18, 10**18 + 5))
assert os.stat(views + "model").st_mtime_ns == 10**18 + 5

# Unlinked while it is mapped: the memory stays its own, and another file of the name is another.
u = os.open(views + "gone", os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(u, 1 << 16)
um = mmap.mmap(u, 1 << 16)
um[:] = b"u" * (1 << 16)
os.unlink(views + "gone")
os.close(u)
refused(errno.ENOENT, os.stat, alias + "gone")
for i in range(20):
    with open(views + "gone", "wb") as f:
        f.write(b"v" * (1 << 16))
    os.unlink(views + "gone")
assert um[:] == b"u" * (1 << 16)
um[5:6] = b"x"
assert um[5:6] == b"x"
um.close()

# What it is made of.
info = subprocess.run(["pmfs-ctl", "--json", "info", views + "model"], capture_output=True, check=True).stdout
import json
data = json.loads(info)["data"]
assert data["kind"] == "view" and data["memory"]["passthrough"] == direct, data
text = subprocess.run(["pmfs-ctl", "info", views + "model"], check=True, capture_output=True, text=True).stdout
assert ("makes nothing durable" if direct else "the alias sees stores after msync") in text, text
data = json.loads(subprocess.run(["pmfs-ctl", "--json", "info", alias + "model"], capture_output=True, check=True).stdout)["data"]
assert data["kind"] == "alias", data
PY

run() { # SOURCE OPTIONS
	local way=cache
	mount_pmfs "$1" "$M" "${2-}"
	if pmfs-ctl --json status "$M" | python3 -c 'import json,sys; sys.exit(not json.load(sys.stdin)["data"]["features"]["passthrough"])'; then
		way=passthrough
	fi
	say "$1 ${2-}: $way"
	case ${2-} in *passthrough=off*) expect_equal "$way" cache ;; esac
	python3 "$T/views.py" "$M" "$way"
	ls -la "$M/.pmfs/views" >"$T/listing"
	umount_pmfs "$M"
}

make_image "$T/image" 256M
run "$T/image"
check_image "$T/image"

say "what was in a view is there after a remount"
mount_pmfs "$T/image" "$M"
expect_equal "$(ls "$M/.pmfs/views")" "$(printf 'model\nrenamed')" names
expect_equal "$(stat -c '%a %s' "$M/.pmfs/views/model")" "604 1048576"
expect_equal "$(cat "$M/.pmfs/views/renamed")" 3
umount_pmfs "$M"
check_image "$T/image"
run ram size=256M,passthrough=off
