#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# What the daemon refuses must not stay in the kernel's cache, and what the host fails to give must not come out as something else.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/full.py" <<'PY'
import errno, mmap, os, sys

os.chdir(sys.argv[1])
chunk = os.urandom(1 << 20)

def uncached(fd, size):
    d = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT)
    buf = mmap.mmap(-1, size)
    n = os.preadv(d, [buf], 0)
    os.close(d)
    return buf[:n]

small = os.open("small", os.O_CREAT | os.O_RDWR)
os.ftruncate(small, 1 << 20)

# Fill it up; a write that does not fit says so, and what is read afterwards is what is there.
fd = os.open("file", os.O_CREAT | os.O_RDWR)
written = 0
while True:
    try:
        n = os.pwrite(fd, chunk, written)
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
        break
    assert n > 0
    written += n
    if n < len(chunk):
        break
assert os.fstat(fd).st_size == written, (os.fstat(fd).st_size, written)
for at in range(0, written, 1 << 20):
    assert os.pread(fd, 1 << 20, at) == chunk[:min(1 << 20, written - at)], at
# Whatever more is tried, cache and file agree.
refused = 0
for i in range(256):
    try:
        os.pwrite(small, b"%04d" % i * 1024, i * 4096)
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
        refused += 1
assert refused > 0
assert os.pread(small, 1 << 20, 0) == uncached(small, 1 << 20)
# Stores through a mapping can't be refused; msync says that they are lost, and then they are.
m = mmap.mmap(small, 1 << 20)
for i in range(256):
    m[i * 4096:i * 4096 + 5] = b"store"
try:
    m.flush()
    raise AssertionError("msync said that it fits")
except OSError as e:
    assert e.errno in (errno.ENOSPC, errno.EIO), e
# The invalidation is not waited for by whom it concerns.
import time
end = time.monotonic() + 30
while m[:] != uncached(small, 1 << 20) and time.monotonic() < end:
    time.sleep(0.02)
assert m[:] == uncached(small, 1 << 20), "the cache has what the file has not"
m.close()
os.unlink("file")
os.close(fd)
PY

say "a full file system: cache and file agree"
mount_pmfs ram "$M" size=32M
python3 "$T/full.py" "$M"
umount_pmfs "$M"

say "an image that is cut short under a mount: errors, never zeros"
make_image "$T/image" 256M
mount_pmfs "$T/image" "$M"
head -c 20M /dev/urandom >"$M/file"
cp "$M/file" "$T/kept"
sum=$(sha256sum <"$T/kept")
umount_pmfs "$M"
mount_pmfs "$T/image" "$M"
expect_equal "$(dd if="$M/file" bs=1M iflag=direct status=none | sha256sum)" "$sum" "sum before"
cp "$T/image" "$T/whole"
truncate -s 1M "$T/image"
for n in 1 2; do
	expect_errno 'Input/output error' dd if="$M/file" of="$T/read" bs=1M iflag=direct
	cmp -n "$(stat -c %s "$T/read")" "$T/read" "$T/kept" || fail "what came out before the error is wrong"
done
expect_errno 'Input/output error' cat "$M/file"
umount "$M"
wait_gone "$DAEMON" || fail "the daemon does not end"
cp "$T/whole" "$T/image"
mount_pmfs "$T/image" "$M"
expect_equal "$(sha256sum <"$M/file")" "$sum" "sum of the whole image"
umount_pmfs "$M"
