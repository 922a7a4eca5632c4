#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# What processes have of each other through files: locks of three kinds, leases, inotify and F_NOTIFY, appending to one file; and large
# or many things: copies past 4 GiB, links, entries.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/processes.py" <<'PY'
import ctypes, errno, fcntl, os, select, signal, struct, sys

os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)

def refused(want, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        assert e.errno in want, (fn, args, e)
    else:
        raise AssertionError(("was not refused", fn, args))

def elsewhere(fn, *args):
    """errno of the function in another process, 0 when it succeeds."""
    pid = os.fork()
    if pid == 0:
        try:
            fn(*args)
            os._exit(0)
        except OSError as e:
            os._exit(e.errno)
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def opened(name, fn, flags=os.O_RDWR):
    fd = os.open(name, flags)
    try:
        return fn(fd)
    finally:
        os.close(fd)

def what_locks():
    open("l", "w").close()
    fd = os.open("l", os.O_RDWR)
    NB = fcntl.LOCK_NB
    # flock(2), and it goes with the last descriptor.
    def try_flock(how):
        return elsewhere(opened, "l", lambda f: fcntl.flock(f, how | NB))
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert try_flock(fcntl.LOCK_SH) == 0 and try_flock(fcntl.LOCK_EX) == errno.EWOULDBLOCK
    copy = os.dup(fd)
    os.close(fd)
    assert try_flock(fcntl.LOCK_EX) == errno.EWOULDBLOCK
    os.close(copy)
    assert try_flock(fcntl.LOCK_EX) == 0
    # POSIX: by range and process; gone when any descriptor of the file is closed.
    fd = os.open("l", os.O_RDWR)
    def try_posix(start, length, how=fcntl.LOCK_EX):
        return elsewhere(opened, "l", lambda f: fcntl.lockf(f, how | NB, length, start))
    BUSY = (errno.EAGAIN, errno.EACCES)
    fcntl.lockf(fd, fcntl.LOCK_EX, 100, 1000)
    assert try_posix(1099, 1) in BUSY and try_posix(1100, 1) == 0 and try_posix(0, 1000) == 0
    assert try_posix(0, 0) in BUSY
    os.close(os.open("l", os.O_RDONLY))
    assert try_posix(1000, 100) == 0
    # Open file description locks: by description, so also within a process; in the way of POSIX locks.
    GETLK, SETLK = 36, 37
    def ofd(f, kind, start, length, cmd=SETLK):
        r = fcntl.fcntl(f, cmd, struct.pack("hhqqi4x", kind, 0, start, length, 0))
        return struct.unpack("hhqqi4x", r)
    one, two = os.open("l", os.O_RDWR), os.open("l", os.O_RDWR)
    ofd(one, fcntl.F_WRLCK, 10, 10)
    refused(BUSY, ofd, two, fcntl.F_RDLCK, 19, 1)
    ofd(two, fcntl.F_RDLCK, 20, 1)
    assert try_posix(15, 1) in BUSY
    kind, _, start, length, pid = ofd(two, fcntl.F_WRLCK, 0, 0, GETLK)
    assert (kind, start, length, pid) == (fcntl.F_WRLCK, 10, 10, -1)
    os.close(os.open("l", os.O_RDONLY))
    assert try_posix(15, 1) in BUSY, "not gone with another descriptor"
    os.close(one)
    assert try_posix(15, 1) == 0
    # Who waits gets it when the other ends, however that is.
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        f = os.open("l", os.O_RDWR)
        fcntl.lockf(f, fcntl.LOCK_EX, 1, 500)
        os.write(w, b"x")
        signal.pause()
    os.read(r, 1)
    assert try_posix(500, 1) in BUSY
    os.kill(pid, signal.SIGKILL)
    fcntl.lockf(two, fcntl.LOCK_EX, 1, 500)
    os.waitpid(pid, 0)
    # Two that wait for each other are told.
    fcntl.lockf(two, fcntl.LOCK_EX, 1, 600)
    pid = os.fork()
    if pid == 0:
        f = os.open("l", os.O_RDWR)
        fcntl.lockf(f, fcntl.LOCK_EX, 1, 700)
        os.write(w, b"x")
        try:
            fcntl.lockf(f, fcntl.LOCK_EX, 1, 600)
            os._exit(0)
        except OSError as e:
            os._exit(e.errno)
    os.read(r, 1)
    try:
        fcntl.lockf(two, fcntl.LOCK_EX, 1, 700)
        mine = 0
    except OSError as e:
        mine = e.errno
    fcntl.lockf(two, fcntl.LOCK_UN)
    theirs = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert errno.EDEADLK in (mine, theirs), (mine, theirs)

def what_leases():
    SETLEASE, GETLEASE = 1024, 1025
    open("lease", "w").close()
    os.chmod("lease", 0o666)
    broken = []
    signal.signal(signal.SIGIO, lambda *_: broken.append(1))
    fd = os.open("lease", os.O_RDONLY)
    refused((errno.EAGAIN,), lambda: opened("lease", lambda f: fcntl.fcntl(f, SETLEASE, fcntl.F_RDLCK)))
    try:
        fcntl.fcntl(fd, SETLEASE, fcntl.F_RDLCK)
    except OSError as e:
        print("--- this kernel has no leases here:", e.strerror)
        assert e.errno in (errno.EINVAL, errno.EAGAIN)
        return
    assert fcntl.fcntl(fd, GETLEASE) == fcntl.F_RDLCK
    # Readers do not mind; a writer breaks it, and who will not wait is told.
    assert elsewhere(opened, "lease", lambda f: None, os.O_RDONLY) == 0 and not broken
    assert elsewhere(opened, "lease", lambda f: None, os.O_WRONLY | os.O_NONBLOCK) == errno.EWOULDBLOCK
    while not broken:
        signal.sigtimedwait([], 0.01)
    # Who waits goes on when it is given back.
    pid = os.fork()
    if pid == 0:
        os.close(os.open("lease", os.O_WRONLY))
        os._exit(0)
    fcntl.fcntl(fd, SETLEASE, fcntl.F_UNLCK)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    # An exclusive one, broken by a reader and by truncate(2).
    os.close(fd)
    fd = os.open("lease", os.O_RDWR)
    fcntl.fcntl(fd, SETLEASE, fcntl.F_WRLCK)
    assert elsewhere(opened, "lease", lambda f: None, os.O_RDONLY | os.O_NONBLOCK) == errno.EWOULDBLOCK
    fcntl.fcntl(fd, SETLEASE, fcntl.F_UNLCK)
    os.close(fd)
    signal.signal(signal.SIGIO, signal.SIG_DFL)

def what_events():
    """inotify(7) sees what others do, by name; F_NOTIFY sends its signal."""
    os.mkdir("watched")
    ALL = 0xfff
    NAMES = {0x1: "access", 0x2: "modify", 0x4: "attrib", 0x8: "close_write", 0x10: "close_nowrite", 0x20: "open", 0x40: "from",
             0x80: "to", 0x100: "create", 0x200: "delete", 0x400: "delete_self", 0x800: "move_self"}
    nfd = libc.inotify_init1(os.O_NONBLOCK)
    wd = libc.inotify_add_watch(nfd, b"watched", ALL & ~0x1)
    assert nfd >= 0 and wd >= 0
    def events():
        got = []
        while True:
            try:
                buf = os.read(nfd, 65536)
            except BlockingIOError:
                return got
            at = 0
            while at < len(buf):
                _, mask, _, size = struct.unpack_from("iIII", buf, at)
                got.append((NAMES.get(mask & ALL, hex(mask)), buf[at + 16:at + 16 + size].rstrip(b"\0").decode()))
                at += 16 + size
    def work():
        f = os.open("watched/f", os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(f, b"x")
        os.close(f)
        os.chmod("watched/f", 0o644)
        os.rename("watched/f", "watched/g")
        os.unlink("watched/g")
    assert elsewhere(work) == 0
    assert events() == [("create", "f"), ("open", "f"), ("modify", "f"), ("close_write", "f"), ("attrib", "f"), ("from", "f"),
                        ("to", "g"), ("delete", "g")]
    wd = libc.inotify_add_watch(nfd, b"watched", 0x400)
    told = []
    signal.signal(signal.SIGIO, lambda *_: told.append(1))
    dfd = os.open("watched", os.O_RDONLY)
    fcntl.fcntl(dfd, fcntl.F_NOTIFY, fcntl.DN_CREATE | fcntl.DN_DELETE)
    assert elsewhere(os.mkdir, "watched/d") == 0
    while not told:
        signal.sigtimedwait([], 0.01)
    os.close(dfd)
    os.rmdir("watched/d")
    os.rmdir("watched")
    assert ("delete_self", "") in events()

def what_append():
    """Whole records of four processes, none lost, each one's in order."""
    open("log", "w").close()
    pids = []
    for me in range(4):
        pid = os.fork()
        if pid == 0:
            f = os.open("log", os.O_WRONLY | os.O_APPEND | (os.O_DSYNC if me == 3 else 0))
            for i in range(300):
                record = b"%d %04d " % (me, i) + b"x" * (me * 700) + b"\n"
                assert os.write(f, record) == len(record)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    lines = open("log", "rb").read().split(b"\n")[:-1]
    assert len(lines) == 1200
    seen = [0] * 4
    for line in lines:
        me, i, rest = line.split(b" ")
        me = int(me)
        assert int(i) == seen[me] and rest == b"x" * (me * 700)
        seen[me] += 1

def what_large():
    """Copies between places past 4 GiB, by all calls that copy."""
    G = 1 << 30
    data = os.urandom(300000)
    a = os.open("big", os.O_CREAT | os.O_RDWR)
    os.pwrite(a, data, 5 * G + 12345)
    size = 5 * G + 12345 + len(data)
    def check(fd, at):
        assert os.pread(fd, len(data), at) == data
    b = os.open("copy", os.O_CREAT | os.O_RDWR)
    done = 0
    while done < size:
        n = os.copy_file_range(a, b, size - done, done, done)
        assert n > 0
        done += n
    assert os.fstat(b).st_size == size and os.fstat(b).st_blocks < 2000, os.fstat(b)
    check(b, 5 * G + 12345)
    n = os.copy_file_range(a, b, len(data), 5 * G + 12345, 7 * G + 1)
    while n < len(data):
        n += os.copy_file_range(a, b, len(data) - n, 5 * G + 12345 + n, 7 * G + 1 + n)
    check(b, 7 * G + 1)
    os.lseek(b, 9 * G, os.SEEK_SET)
    n = 0
    while n < len(data):
        n += os.sendfile(b, a, 5 * G + 12345 + n, len(data) - n)
    check(b, 9 * G)
    r, w = os.pipe()
    n = 0
    while n < len(data):
        m = os.splice(a, w, min(len(data) - n, 65536), offset_src=5 * G + 12345 + n)
        at = 0
        while at < m:
            at += os.splice(r, b, m - at, offset_dst=11 * G + n + at)
        n += m
    check(b, 11 * G)
    os.unlink("big")
    os.unlink("copy")

def what_many(links, entries):
    open("f", "w").close()
    for i in range(links):
        if i % 5000 == 0:
            os.mkdir(f"l{i // 5000}")
            d = os.open(f"l{i // 5000}", os.O_RDONLY)
        os.link("f", str(i), dst_dir_fd=d)
    assert os.stat("f").st_nlink == links + 1
    os.mkdir("dir")
    d = os.open("dir", os.O_RDONLY)
    for i in range(entries):
        os.link("f", "%07d" % i, dst_dir_fd=d)
    assert sorted(os.listdir("dir")) == ["%07d" % i for i in range(entries)]
    assert os.stat("dir").st_nlink == 2 and os.stat("f").st_nlink == links + entries + 1
    for i in range(0, entries, 7):
        os.unlink("%07d" % i, dir_fd=d)
    assert len(os.listdir("dir")) == entries - (entries + 6) // 7
    assert os.stat("f").st_nlink == links + entries + 1 - (entries + 6) // 7

globals()["what_" + sys.argv[2]](*map(int, sys.argv[3:]))
PY

run() {
	say "$*"
	python3 "$T/processes.py" "$M" "$@"
}

mount_pmfs ram "$M" size=512M
run locks
run leases
run events
run append
run large
umount_pmfs "$M"

make_image "$T/image" 512M
mount_pmfs "$T/image" "$M"
run many 65100 12000
umount_pmfs "$M"
check_image "$T/image"

say "with the writeback cache"
mount_pmfs ram "$M" size=512M,writeback
run append
run large
umount_pmfs "$M"
