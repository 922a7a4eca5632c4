#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Handles that outlive the kernel's memory of an inode, dates of five centuries, names of any bytes, many hard links.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
[ "$(id -u)" -eq 0 ] || skip "open_by_handle_at(2) needs root"

M=$T/mnt
cat >"$T/limits.py" <<'PY'
import ctypes, errno, os, struct, sys
top, what = sys.argv[1:3]
libc = ctypes.CDLL(None, use_errno=True)

def handle(path):
    h = ctypes.create_string_buffer(8 + 128)
    struct.pack_into("II", h, 0, 128, 0)
    mount_id = ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), h, ctypes.byref(mount_id), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at " + path)
    return h.raw

def by_handle(raw, flags=os.O_RDONLY):
    mount = os.open(top, os.O_RDONLY)
    fd = libc.open_by_handle_at(mount, ctypes.create_string_buffer(raw, len(raw)), flags)
    err = ctypes.get_errno()
    os.close(mount)
    if fd < 0:
        raise OSError(err, "open_by_handle_at")
    return fd

def forget():
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("2")

def stale(raw):
    try:
        os.close(by_handle(raw))
    except OSError as e:
        assert e.errno == errno.ESTALE, e
    else:
        raise AssertionError("a handle of something that is gone")

DATES = [-2**31, -1, 0, 2**31 - 1, 2**31, 2**32, 15032385535]
NAMES = [b"n" * 255, bytes(range(1, 47)), bytes(range(48, 256)), "\u00e4".encode() * 127, b"\xff" * 255, b" ", b"\n", b"-rf"]

os.chdir(top)
if what == "make":
    os.makedirs("d/sub")
    for name in ("f", "d/g"):
        open(name, "w").write(name)
    for i, t in enumerate(DATES):
        open(f"date{i}", "w").close()
        os.utime(f"date{i}", ns=(t * 10**9 + 123456789, t * 10**9 + 987654321))
    st = os.stat("date2")
    UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
    def utimens(name, a, m):
        ts = struct.pack("qqqq", a[0], a[1], m[0], m[1])
        assert libc.utimensat(-100, name.encode(), ts, 0) == 0
    utimens("date2", (0, UTIME_OMIT), (5, 6))
    now = os.stat("date2")
    assert now.st_atime_ns == st.st_atime_ns and now.st_mtime_ns == 5 * 10**9 + 6
    utimens("date2", (7, 8), (0, UTIME_NOW))
    now = os.stat("date2")
    assert now.st_atime_ns == 7 * 10**9 + 8 and now.st_mtime_ns > 10**18
    utimens("date2", (0, UTIME_OMIT), (0, UTIME_OMIT))
    assert os.stat("date2").st_mtime_ns == now.st_mtime_ns
    os.utime("date2", ns=(123456789, 987654321))
    os.mkdir("names")
    for name in NAMES:
        open(b"names/" + name, "w").close()
    try:
        open(b"names/" + b"n" * 256, "w")
        raise AssertionError("a name of 256 bytes")
    except OSError as e:
        assert e.errno == errno.ENAMETOOLONG
    deep = "names"
    at = os.open("names", os.O_RDONLY)
    for i in range(16):
        os.mkdir("p" * 255, dir_fd=at)
        at = os.open("p" * 255, os.O_RDONLY, dir_fd=at)
    path = "names/" + "/".join(["p" * 255] * 15) + "/"
    path += "q" * (4095 - len(path) - 1)
    open(path, "w").write("deep")
    assert len(path) + 1 == 4095 and open(path).read() == "deep"
elif what == "check":
    for i, t in enumerate(DATES):
        st = os.stat(f"date{i}")
        assert (st.st_atime_ns, st.st_mtime_ns) == (t * 10**9 + 123456789, t * 10**9 + 987654321), (t, st)
    assert set(os.listdir(b"names")) == set(NAMES) | {b"p" * 255}
    for name in NAMES:
        os.stat(b"names/" + name)
elif what == "links":
    count = int(sys.argv[3])
    for i in range(count // 1000):
        os.mkdir(f"l{i}")
        fd = os.open(f"l{i}", os.O_RDONLY)
        for j in range(1000):
            os.link("f", str(j), dst_dir_fd=fd)
        os.close(fd)
    assert os.stat("f").st_nlink == 1 + count
elif what == "handles":
    saved = {name: handle(name) for name in (".", "f", "d", "d/g", "d/sub", ".snapshots/s/f")}
    with open(sys.argv[3], "wb") as out:
        for name, raw in saved.items():
            out.write(struct.pack("I", len(name)) + name.encode() + raw)
    forget()
    for name, raw in saved.items():
        fd = by_handle(raw)
        st, want = os.fstat(fd), os.stat(name)
        assert (st.st_ino, st.st_mode, st.st_size) == (want.st_ino, want.st_mode, want.st_size), name
        if os.path.isfile(name):
            assert os.read(fd, 100) == os.path.relpath(name, ".snapshots/s" if name[0] == "." else ".").encode(), name
        os.close(fd)
    # A directory's path is found again by its parents.
    os.close(by_handle(saved["d/sub"]))
    fd = by_handle(saved["d/g"], os.O_RDWR)
    os.pwrite(fd, b"D", 0)
    os.close(fd)
    assert open("d/g").read() == "D/g"
    open("gone", "w").close()
    raw = handle("gone")
    os.unlink("gone")
    forget()
    stale(raw)
    # Its number is used again, by another generation.
    open("next", "w").close()
    forget()
    stale(raw)
elif what == "again":
    data = open(sys.argv[3], "rb").read()
    at = n = 0
    while at < len(data):
        (k,) = struct.unpack_from("I", data, at)
        name = data[at + 4:at + 4 + k].decode()
        raw = data[at + 4 + k:at + 4 + k + 136]
        at += 4 + k + 136
        fd = by_handle(raw)
        assert os.fstat(fd).st_ino == os.stat(name).st_ino, name
        os.close(fd)
        n += 1
    assert n == 6
PY

make_image "$T/image" 256M
mount_pmfs "$T/image" "$M"
say "dates, names, paths"
python3 "$T/limits.py" "$M" make
python3 "$T/limits.py" "$M" check
pmfs-snap -q create "$M" s
say "handles"
python3 "$T/limits.py" "$M" handles "$T/handles"
python3 "$T/limits.py" "$M" links 2000
umount_pmfs "$M"
check_image "$T/image"
say "after a remount"
mount_pmfs "$T/image" "$M"
python3 "$T/limits.py" "$M" check
python3 "$T/limits.py" "$M" again "$T/handles"
expect_equal "$(stat -c %h "$M/f")" 2001 links
umount_pmfs "$M"
