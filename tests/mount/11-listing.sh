#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Listings: complete, without doubles, stable while the directory changes, positions that keep their meaning, and the names
# that are there but not shown.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/listing.py" <<'PY'
import ctypes, os, sys

os.chdir(sys.argv[1])
N = 5000

class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_ushort),
                ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]

libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.telldir.restype = ctypes.c_long
for f in (libc.readdir, libc.telldir, libc.closedir, libc.rewinddir):
    f.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

class Dir:
    def __init__(self, path):
        self.d = libc.opendir(os.fsencode(path))
        assert self.d
    def next(self):
        e = libc.readdir(self.d)
        return (e.contents.name.decode(), e.contents.ino, e.contents.type) if e else None
    def all(self):
        out = []
        while (e := self.next()):
            out.append(e)
        return out
    def tell(self):
        return libc.telldir(self.d)
    def seek(self, pos):
        libc.seekdir(self.d, pos)
    def rewind(self):
        libc.rewinddir(self.d)
    def close(self):
        libc.closedir(self.d)

os.mkdir("d")
names = {f"file-{i}" for i in range(N)}
for n in names:
    os.close(os.open("d/" + n, os.O_CREAT | os.O_WRONLY))
os.mkdir("d/sub")
os.symlink("x", "d/sym")
os.mkfifo("d/fifo")

# Complete, each once, with the inode numbers and types of stat(2); "." and ".." are in.
for attempt in range(3):    # from the daemon, from the kernel's cache
    d = Dir("d")
    got = d.all()
    d.close()
    assert len(got) == N + 5, len(got)
    assert {g[0] for g in got} == names | {".", "..", "sub", "sym", "fifo"}
for name, ino, kind in got[:50] + [g for g in got if g[0] in ("sub", "sym", "fifo", ".", "..")]:
    st = os.lstat("d/" + name)
    assert st.st_ino == ino and st.st_mode >> 12 == kind, (name, ino, kind, st)

# Positions: each entry can be gone back to, also after others have come and gone.
d = Dir("d")
places = []
while True:
    pos = d.tell()
    e = d.next()
    if not e:
        break
    places.append((pos, e[0]))
for i in range(0, N, 7):
    os.unlink(f"d/file-{i}")
for i in range(1000):
    os.mkdir(f"d/new-{i}")
gone = {f"file-{i}" for i in range(0, N, 7)}
for pos, name in places[::-97]:
    d.seek(pos)
    e = d.next()
    if name not in gone and not e[0].startswith("new-"):
        assert e[0] == name, (pos, name, e)
d.rewind()
assert len(d.all()) == N + 5 - len(gone) + 1000
d.close()

# What stays through the whole walk is seen exactly once, whatever comes and goes meanwhile.
d = Dir("d")
seen = []
n = 0
while (e := d.next()):
    seen.append(e[0])
    n += 1
    if n % 10 == 0:
        os.close(os.open(f"d/later-{n}", os.O_CREAT | os.O_WRONLY))
    if n % 15 == 0 and seen[-1].startswith("new-"):
        os.rmdir("d/" + seen[-1])
d.close()
assert len(seen) == len(set(seen)), "an entry came twice"
assert names - gone <= set(seen)

# rm -r's way: remove while reading.
d = Dir("d")
while (e := d.next()):
    if e[0] not in (".", ".."):
        (os.rmdir if e[2] == 4 else os.unlink)("d/" + e[0])
d.close()
assert os.listdir("d") == [], os.listdir("d")[:5]
os.rmdir("d")

# Two readers of one description share a position; two opens do not.
os.mkdir("e")
for i in range(100):
    os.mkdir(f"e/{i}")
a, b = Dir("e"), Dir("e")
for _ in range(50):
    a.next()
assert len(b.all()) == 102 and len(a.all()) == 52
a.close()
b.close()
PY

say "listings of a changing directory"
mount_pmfs ram "$M" size=256M
python3 "$T/listing.py" "$M"

say "hidden names are there, but not shown"
pmfs-snap -q create "$M" one
[ -d "$M/.snapshots/one/e" ] || fail ".snapshots can't be named"
[ -L "$M/.pmfs" ] && [ -r "$M/.pmfs/stats.json" ] || fail ".pmfs can't be named"
expect_equal "$(ls -A "$M")" e "what ls -A shows"
expect_equal "$(find "$M" | wc -l)" 102 "what find sees"
umount_pmfs "$M"

say "snapdir=visible shows them, at the right place in any listing"
mount_pmfs ram "$M" size=256M,snapdir=visible
expect_equal "$(ls -A "$M" | tr '\n' ' ')" '.pmfs .snapshots ' "an empty mount"
mkdir "$M"/{1..300}
pmfs-snap -q create "$M" one
expect_equal "$(ls -A "$M" | wc -l)" 302 "entries"
expect_equal "$(ls -a "$M" | sort | uniq -d | wc -l)" 0 "doubles"
expect_equal "$(ls "$M/.snapshots")" one "snapshots"
umount_pmfs "$M"
