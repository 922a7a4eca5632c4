#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Names: what can be made, renamed, linked and removed, what is refused and with which error, and the counts and times that go with it.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/names.py" <<'PY'
import ctypes, errno, os, stat, sys

os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4

def renameat2(a, b, flags):
    if libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), flags):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))

def refused(want, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        assert e.errno in (want if isinstance(want, tuple) else (want,)), (fn, args, e)
    else:
        raise AssertionError(("was not refused", fn, args))

def put(name, text):
    with open(name, "w") as f:
        f.write(text)

def get(name):
    with open(name) as f:
        return f.read()

# What is in a name.
for name in ("x" * 255, "a b\t\n*?", "\u00e9\u4e16", ".hidden", "...", "-rf"):
    put(name, name)
    assert get(name) == name and name in os.listdir("."), name
    os.unlink(name)
    assert name not in os.listdir("."), name
raw = b"\xff\xfe not utf-8 \x01"
os.mkdir(raw)
assert raw in os.listdir(b".")
os.rmdir(raw)
refused(errno.ENAMETOOLONG, put, "x" * 256, "")
refused(errno.ENAMETOOLONG, os.mkdir, "x" * 256)
put("Case", "upper")
put("case", "lower")
assert get("Case") == "upper" and get("case") == "lower"

# Creation.
put("file", "1")
refused(errno.EEXIST, os.mkdir, "file")
refused(errno.EEXIST, os.open, "file", os.O_CREAT | os.O_EXCL)
refused(errno.EEXIST, os.symlink, "x", "file")
refused(errno.EEXIST, os.mkfifo, "file")
refused(errno.ENOENT, put, "no/file", "")
refused(errno.ENOTDIR, put, "file/x", "")
refused(errno.EISDIR, put, ".", "")
os.mkfifo("fifo", 0o640)
assert stat.S_ISFIFO(os.stat("fifo").st_mode)
os.mknod("dev", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
st = os.stat("dev")
assert stat.S_ISCHR(st.st_mode) and st.st_rdev == os.makedev(1, 3)
os.mknod("big", 0o600 | stat.S_IFBLK, os.makedev(300, 70000))
assert os.stat("big").st_rdev == os.makedev(300, 70000)
os.mknod("sock", 0o600 | stat.S_IFSOCK)
assert stat.S_ISSOCK(os.stat("sock").st_mode)

# Directories: counts of links, emptiness.
os.mkdir("d", 0o755)
assert os.stat("d").st_nlink == 2
os.mkdir("d/sub")
assert os.stat("d").st_nlink == 3
refused(errno.ENOTEMPTY, os.rmdir, "d")
refused(errno.ENOTDIR, os.rmdir, "file")
refused(errno.EISDIR, os.unlink, "d")
refused(errno.EINVAL, os.rmdir, "d/sub/.")
refused(errno.ENOTEMPTY, os.rmdir, "d/sub/..")
fd = os.open("d/sub", os.O_RDONLY)
os.rmdir("d/sub")
assert os.stat("d").st_nlink == 2
assert os.fstat(fd).st_nlink == 0
assert os.listdir(fd) == []
try:
    os.open("x", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd)
    raise AssertionError("a file in a directory that is gone")
except OSError as e:
    assert e.errno == errno.ENOENT, e
os.close(fd)

# A group that is inherited.
os.mkdir("setgid")
os.chown("setgid", 0, 4242)
os.chmod("setgid", 0o2775)
put("setgid/f", "")
os.mkdir("setgid/d")
assert os.stat("setgid/f").st_gid == 4242 and not os.stat("setgid/f").st_mode & stat.S_ISGID
assert os.stat("setgid/d").st_gid == 4242 and os.stat("setgid/d").st_mode & stat.S_ISGID

# Links.
os.link("file", "link")
a, b = os.stat("file"), os.stat("link")
assert a.st_ino == b.st_ino and a.st_nlink == b.st_nlink == 2
put("link", "both")
assert get("file") == "both"
refused((errno.EPERM,), os.link, "d", "d2")
refused(errno.EEXIST, os.link, "file", "link")
os.unlink("file")
assert os.stat("link").st_nlink == 1 and get("link") == "both"
os.rename("link", "file")

# Symlinks: short ones, ones longer than an inode has room for, the longest.
for n in (1, 60, 200, 4095):
    os.symlink("t" * n, f"sym{n}")
    assert os.readlink(f"sym{n}") == "t" * n and os.lstat(f"sym{n}").st_size == n
refused(errno.ENAMETOOLONG, os.symlink, "t" * 4096, "symlong")
os.symlink("file", "s")
assert get("s") == "both"
os.symlink("loop", "loop")
refused(errno.ELOOP, get, "loop")
refused(errno.EINVAL, os.readlink, "file")

# Renaming.
put("a", "a")
put("b", "b")
ino = os.stat("a").st_ino
os.rename("a", "b")
assert get("b") == "a" and os.stat("b").st_ino == ino and not os.path.exists("a")
put("a", "new")
refused(errno.EEXIST, renameat2, "a", "b", NOREPLACE)
renameat2("a", "c", NOREPLACE)
renameat2("b", "c", EXCHANGE)
assert get("c") == "a" and get("b") == "new"
refused((errno.EINVAL, errno.ENOSYS), renameat2, "b", "e", WHITEOUT | EXCHANGE)
refused(errno.ENOENT, renameat2, "b", "none", EXCHANGE)
refused(errno.ENOENT, os.rename, "none", "x")
os.mkdir("d/e")
os.mkdir("d/e/f")
refused(errno.EINVAL, os.rename, "d", "d/e/f/g")
refused(errno.ENOTEMPTY, os.rename, "setgid", "d")
refused(errno.EISDIR, os.rename, "b", "d")
refused(errno.ENOTDIR, os.rename, "d", "b")
os.mkdir("empty")
os.rename("d", "empty")
assert not os.path.exists("d") and os.stat("empty").st_nlink == 3
before = os.stat(".").st_nlink
os.rename("empty/e/f", "f")
assert os.stat(".").st_nlink == before + 1 and os.stat("empty/e").st_nlink == 2
assert os.stat("f/..").st_ino == os.stat(".").st_ino
renameat2("f", "b", EXCHANGE)
assert os.path.isdir("b") and get("f") == "new"
same = os.stat("c")
os.link("c", "c2")
os.rename("c", "c2")
assert os.path.exists("c") and os.path.exists("c2"), "two names of one file: rename does nothing"
os.rename("empty", "moved")
os.chdir("moved/e")
os.rename("../../moved", "../../again")
put("here", "x")
os.chdir(sys.argv[1])
assert get("again/e/here") == "x"

# Times.
def times(name):
    st = os.stat(name, follow_symlinks=False)
    return st.st_mtime_ns, st.st_ctime_ns

def moves(name, which, fn, *args):
    before = times(name)
    fn(*args)
    after = times(name)
    assert (after[0] > before[0]) == ("m" in which), (name, "mtime", fn, args)
    assert (after[1] > before[1]) == ("c" in which), (name, "ctime", fn, args)

os.mkdir("t")
moves("t", "mc", put, "t/f", "x")
moves("t", "mc", os.link, "t/f", "t/g")
moves("t/f", "c", os.link, "t/f", "t/h")
moves("t", "mc", os.unlink, "t/g")
moves("t/f", "c", os.unlink, "t/h")
moves("t", "mc", os.rename, "t/f", "t/i")
moves("t", "mc", os.mkdir, "t/d")
moves("t", "mc", os.rmdir, "t/d")
moves("t/i", "c", os.chmod, "t/i", 0o600)
moves("t/i", "c", os.chown, "t/i", 1, 1)
moves("t/i", "mc", os.truncate, "t/i", 100)
moves("t/i", "mc", put, "t/i", "yy")
moves("t", "", os.chmod, "t/i", 0o644)
for ns in (0, 1, -1, 10**9 + 1, 2**31 * 10**9 + 7, 2**34 * 10**9):
    os.utime("t/i", ns=(ns, ns))
    st = os.stat("t/i")
    assert (st.st_atime_ns, st.st_mtime_ns) == (ns, ns), (ns, st)
PY

for source in image ram; do
	[ $source = ram ] && src=ram || { src=$T/image; make_image "$src" 256M; }
	mount_pmfs "$src" "$M"
	say "$source"
	python3 "$T/names.py" "$M"
	if [ $source = image ]; then
		tree() { find "$M" -printf '%P %y %m %n %i %s %T@ %l\n' | sort; }
		tree >"$T/before"
		umount_pmfs "$M"
		check_image "$src"
		mount_pmfs "$src" "$M"
		tree | diff "$T/before" - || fail "the names are others after a remount"
	fi
	umount_pmfs "$M"
done
