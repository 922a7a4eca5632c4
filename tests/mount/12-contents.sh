#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Contents as processes see them: O_TRUNC, sizes, holes, append, direct I/O, mappings shared between processes, files without a name.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/contents.py" <<'PY'
import ctypes, errno, mmap, os, subprocess, sys

os.chdir(sys.argv[1])
writeback = "writeback" in sys.argv[2]

def refused(want, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        assert e.errno == want, (fn, args, e)
    else:
        raise AssertionError(("was not refused", fn, args))

def put(name, data, flags=os.O_CREAT | os.O_WRONLY | os.O_TRUNC):
    fd = os.open(name, flags, 0o644)
    os.write(fd, data)
    os.close(fd)

def get(name):
    with open(name, "rb") as f:
        return f.read()

def other(code, *args):
    """Another process, which has no page of ours mapped."""
    r = subprocess.run([sys.executable, "-c", "import mmap, os, sys\n" + code, *map(str, args)],
                       capture_output=True, check=True)
    return r.stdout

def uncached(name):
    return other("fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)\n"
                 "m = mmap.mmap(-1, 1 << 20)\n"
                 "n = os.readv(fd, [m])\n"
                 "sys.stdout.buffer.write(m[:n])", name)

# open(O_TRUNC) empties a file, the first time and ever after, and for everybody.
for i in range(3):
    put("trunc", b"x" * 5000)
    assert os.stat("trunc").st_size == 5000
    fd = os.open("trunc", os.O_WRONLY | os.O_TRUNC)
    assert os.fstat(fd).st_size == 0 and get("trunc") == b"", i
    assert other("sys.stdout.write(str(os.stat(sys.argv[1]).st_size))", "trunc") == b"0"
    os.write(fd, b"ab")
    os.close(fd)
    assert get("trunc") == b"ab" == uncached("trunc"), i
put("trunc", b"q" * 300000)
put("trunc", b"short")
assert get("trunc") == b"short" == uncached("trunc")

# What was cut off does not come back.
for size in (3, 100, 112, 113, 4000, 4096, 4097, 100000):
    put("cut", bytes(range(1, 251)) * 500)
    os.truncate("cut", size)
    os.truncate("cut", 110000)
    want = (bytes(range(1, 251)) * 500)[:size] + bytes(110000 - size)
    assert get("cut") == want and uncached("cut") == want, size
    put("cut", b"end", os.O_WRONLY | os.O_APPEND)
    assert get("cut") == want + b"end"

# Holes and far offsets.
fd = os.open("far", os.O_CREAT | os.O_RDWR)
os.pwrite(fd, b"far", 1 << 40)
assert os.fstat(fd).st_size == (1 << 40) + 3 and os.fstat(fd).st_blocks < 100
assert os.pread(fd, 10, (1 << 40) - 5) == bytes(5) + b"far" + b""
assert os.pread(fd, 10, 12345) == bytes(10)
if not writeback:   # there the kernel takes it, and fsync says so
    refused(errno.EFBIG, os.pwrite, fd, b"x", (1 << 62))
refused(errno.EFBIG, os.ftruncate, fd, (1 << 61))
os.close(fd)

# Append by two descriptors.
a = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
b = os.open("log", os.O_WRONLY | os.O_APPEND)
for i in range(100):
    os.write((a, b)[i % 2], b"%04d\n" % i)
assert get("log") == b"".join(b"%04d\n" % i for i in range(100))

# Odd sizes at odd places, cached and direct, agree.
put("odd", b"")
fd = os.open("odd", os.O_RDWR)
model = bytearray()
at = 0
for n in (1, 111, 1, 3983, 4096, 4097, 8191, 70000, 131072, 1, 5):
    data = bytes([n % 251 + 1]) * n
    os.pwrite(fd, data, at)
    model[at:at + n] = data
    at += n - n // 3
assert get("odd") == bytes(model) == uncached("odd")
d = os.open("odd", os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 8192)
page[:] = b"D" * 8192
os.pwritev(d, [page], 4096)
model[4096:12288] = b"D" * 8192
assert get("odd") == bytes(model), "a direct write is seen through the cache"
os.pwrite(fd, b"C" * 4096, 8192)
model[8192:12288] = b"C" * 4096
assert uncached("odd") == bytes(model), "a cached write is seen by a direct read"

# A mapping is the file: stores are seen by read in another process, writes by loads, both ways, and by other mappings.
put("map", bytes(65536))
fd = os.open("map", os.O_RDWR)
m = mmap.mmap(fd, 65536)
m[100:105] = b"store"
assert get("map")[100:105] == b"store"
assert other("fd = os.open(sys.argv[1], os.O_RDONLY); sys.stdout.buffer.write(os.pread(fd, 5, 100))", "map") == b"store"
other("fd = os.open(sys.argv[1], os.O_RDWR); os.pwrite(fd, b'write', 200)", "map")
assert m[200:205] == b"write"
other("fd = os.open(sys.argv[1], os.O_RDWR); m = mmap.mmap(fd, 65536); m[5000:5003] = b'map'; del m", "map")
assert m[5000:5003] == b"map" and os.pread(fd, 3, 5000) == b"map"
m.flush()
assert uncached("map")[100:105] == b"store"
m[300:306] = b"direct"
assert uncached("map")[300:306] == b"direct", "a direct read brings the stores along"
os.close(fd)
m[400:404] = b"left"
m.close()
assert get("map")[400:404] == b"left" == uncached("map")[400:404]
p = mmap.mmap(os.open("map", os.O_RDONLY), 65536, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
p[0:4] = b"mine"
assert get("map")[0:4] == bytes(4)

# A mapping beyond the end, and after the file has become shorter and longer again.
put("short", b"s" * 6000)
fd = os.open("short", os.O_RDWR)
m = mmap.mmap(fd, 6000)
os.ftruncate(fd, 100)
os.ftruncate(fd, 6000)
assert m[:] == b"s" * 100 + bytes(5900)

# Programs run from it.
put("prog", b"#!/bin/sh\necho ran $1\n")
os.chmod("prog", 0o755)
assert subprocess.run(["./prog", "x"], capture_output=True).stdout == b"ran x\n"
os.system("cp /bin/true true")
assert subprocess.run(["./true"]).returncode == 0

# A file without a name lives as long as somebody has it open or mapped.
put("gone", b"still here" * 1000)
fd = os.open("gone", os.O_RDWR)
m = mmap.mmap(fd, 10000)
os.unlink("gone")
assert not os.path.exists("gone") and os.fstat(fd).st_nlink == 0
assert os.pread(fd, 10, 0) == b"still here"
os.pwrite(fd, b"more", 10000)
os.ftruncate(fd, 20000)
os.fchmod(fd, 0o600)
os.fsync(fd)
m[0:5] = b"STILL"
assert os.pread(fd, 10, 0) == b"STILL here" and os.fstat(fd).st_size == 20000
put("gone", b"another one")
assert os.pread(fd, 10, 0) == b"STILL here" and get("gone") == b"another one"
os.close(fd)
assert m[0:10] == b"STILL here"
m.close()
put("over", b"old")
fd = os.open("over", os.O_RDONLY)
put("new", b"new")
os.rename("new", "over")
assert os.read(fd, 10) == b"old" and get("over") == b"new"
try:
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
except OSError as e:
    assert e.errno == errno.EOPNOTSUPP, e
else:
    os.write(fd, b"tmp")
    assert os.fstat(fd).st_nlink == 0
    follow = 0x400
    assert ctypes.CDLL(None).linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"named", follow) == 0
    assert get("named") == b"tmp" and os.fstat(fd).st_nlink == 1
    os.close(fd)
PY

used() { df --output=used -k "$M" | tail -n 1 | tr -d ' '; }

for options in size=512M size=512M,writeback; do
	say "contents, $options"
	mount_pmfs ram "$M" $options
	python3 "$T/contents.py" "$M" $options

	say "the space of a file without a name comes back"
	rm -rf "${M:?}"/*
	sync "$M"
	before=$(used)
	exec 7>"$M/big"
	head -c 64M /dev/urandom >&7
	rm "$M/big"
	sync "$M"
	[ "$(used)" -ge $((before + 60000)) ] || fail "an open file has no space"
	exec 7>&-
	is_back() { sync "$M"; [ "$(used)" -le $((before + 2000)) ]; }
	wait_for is_back
	umount_pmfs "$M"
done
