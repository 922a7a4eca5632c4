#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Permissions: the kernel checks them, other users get in only with allow_other, and setuid and setgid go when an ordinary user writes.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
[ "$(id -u)" -eq 0 ] || skip "it needs to be several users, so root"

M=$T/mnt
chmod 755 "$T"
cat >"$T/perm.py" <<'PY'
import errno, os, stat, sys

top = sys.argv[1]
os.chdir(top)
os.umask(0)

def refused(want, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        assert e.errno == want, (fn, args, e)
    else:
        raise AssertionError(("was not refused", fn, args))

def as_user(uid, gid, fn, groups=()):
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            fn()
        except BaseException as e:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def put(name, text="x"):
    with open(name, "w") as f:
        f.write(text)

def get(name):
    with open(name) as f:
        return f.read()

def mode(name):
    return stat.S_IMODE(os.stat(name).st_mode)

os.chmod(".", 0o755)
os.mkdir("open", 0o777)
os.chmod("open", 0o777)
os.mkdir("sticky")
os.chmod("sticky", 0o1777)
put("secret")
os.chmod("secret", 0o600)
put("open/readable")
os.chmod("open/readable", 0o644)
put("group")
os.chown("group", 0, 2000)
os.chmod("group", 0o640)

def user():
    refused(errno.EACCES, get, "secret")
    refused(errno.EACCES, put, "new")
    refused(errno.EACCES, os.mkdir, "new")
    refused(errno.EACCES, os.unlink, "secret")
    refused(errno.EACCES, os.rename, "secret", "open/s")
    refused(errno.EACCES, put, "open/readable")
    refused(errno.EPERM, os.chmod, "open/readable", 0o777)
    refused(errno.EPERM, os.chown, "open/readable", 1000, 1000)
    refused(errno.EPERM, os.utime, "open/readable", (1, 1))
    refused(errno.EACCES, get, "group")
    assert get("open/readable") == "x"
    put("open/mine")
    st = os.stat("open/mine")
    assert (st.st_uid, st.st_gid) == (1000, 1000)
    os.chmod("open/mine", 0o600)
    put("sticky/mine")
    refused(errno.EPERM, os.chown, "open/mine", 1001, -1)
    refused(errno.EPERM, os.mknod, "open/dev", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    refused(errno.EPERM, os.setxattr, "open/mine", "trusted.a", b"")
    os.setxattr("open/mine", "user.a", b"")

def other():
    refused(errno.EACCES, get, "open/mine")
    refused(errno.EPERM, os.unlink, "sticky/mine")
    refused(errno.EPERM, os.rename, "sticky/mine", "sticky/x")
    refused(errno.EACCES, put, "group")
    assert get("group") == "x"
    os.unlink("open/mine")

as_user(1000, 1000, user)
as_user(1001, 1001, other, groups=[2000])

# umask is the kernel's.
os.umask(0o027)
put("masked")
os.mkdir("maskdir", 0o777)
assert mode("masked") == 0o640 and mode("maskdir") == 0o750
os.umask(0)

# setuid and setgid: kept when root writes, gone when somebody else does, and the kernel knows at once.
def with_bits(name, bits, how, uid=1000):
    put(name, "x" * 100)
    os.chown(name, 1000, 1000)
    os.chmod(name, bits)
    assert mode(name) == bits
    if uid:
        as_user(uid, uid, lambda: how(name))
    else:
        how(name)
    return mode(name)

def write(name):
    fd = os.open(name, os.O_WRONLY)
    os.pwrite(fd, b"y", 10)
    os.close(fd)

def trunc(name):
    os.truncate(name, 50)

def otrunc(name):
    os.close(os.open(name, os.O_WRONLY | os.O_TRUNC))

def allocate(name):
    fd = os.open(name, os.O_WRONLY)
    os.posix_fallocate(fd, 0, 5000)
    os.close(fd)

def copy(name):
    to, source = os.open(name, os.O_WRONLY), os.open("open/readable", os.O_RDONLY)
    assert os.copy_file_range(source, to, 50) > 0
    os.close(source)
    os.close(to)

for how in (write, trunc, otrunc, allocate, copy):
    assert with_bits("priv", 0o4755, how) == 0o755, how
    assert with_bits("priv", 0o6775, how) == 0o775, how
    assert with_bits("priv", 0o2755, how) == 0o755, how
    assert with_bits("priv", 0o755, how) == 0o755, how
    # Without execution by the group, setgid is no privilege.
    assert with_bits("priv", 0o2745, how) == 0o2745, how
    assert with_bits("priv", 0o6775, how, uid=0) == 0o6775, how
def chown(name):
    os.chown(name, 1001, 1001)
assert with_bits("priv", 0o6755, chown, uid=0) == 0o755
def chgrp(name):
    os.chown(name, -1, 1000)
assert with_bits("priv", 0o6755, chgrp) == 0o755
os.mkdir("dir")
os.chmod("dir", 0o2755)
os.chown("dir", 1000, 1000)
assert mode("dir") == 0o2755, "a directory's setgid is no privilege"
# A capability goes with any write.
import struct
put("cap")
os.setxattr("cap", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
os.chmod("cap", 0o777)
as_user(1000, 1000, lambda: write("cap"))
assert "security.capability" not in os.listxattr("cap"), os.listxattr("cap")
PY

say "two users and root"
mount_pmfs ram "$M" size=64M,allow_other,dev,suid
python3 "$T/perm.py" "$M"
umount_pmfs "$M"

say "the same where the kernel has to see to privileges (no KILLPRIV_V2)"
export PMFS_FAULTS=fuse.killpriv_v2:1+:EIO
mount_pmfs ram "$M" size=64M,allow_other,dev,suid
unset PMFS_FAULTS
python3 "$T/perm.py" "$M"
umount_pmfs "$M"

say "trusted attributes are listed to who may see them"
mount_pmfs ram "$M" size=64M,allow_other
chmod 755 "$M"
python3 - "$M" <<'PY'
import os, sys
path = sys.argv[1] + "/f"
open(path, "w").close()
os.chmod(path, 0o644)
os.setxattr(path, "trusted.a", b"")
os.setxattr(path, "user.b", b"")
assert sorted(os.listxattr(path)) == ["trusted.a", "user.b"]
pid = os.fork()
if pid == 0:
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    os._exit(os.listxattr(path) != ["user.b"])
assert os.waitpid(pid, 0)[1] == 0, "an ordinary user sees trusted attributes"
PY
umount_pmfs "$M"

if command -v setpriv >/dev/null; then
	say "without allow_other nobody else gets in, whatever the modes say"
	mount_pmfs ram "$M" size=64M
	chmod 777 "$M"
	echo x >"$M/f"
	chmod 666 "$M/f"
	expect_errno 'Permission denied' setpriv --reuid=1000 --regid=1000 --clear-groups cat "$M/f"
	expect_equal "$(cat "$M/f")" x "what root reads"

	say "setuid programs and devices do nothing unless asked for"
	expect_equal "$(awk -v dir="$M" '$5 == dir { print ($6 ~ /nosuid/) ($6 ~ /nodev/) }' /proc/self/mountinfo)" 11 "nosuid, nodev"
	mknod "$M/null" c 1 3
	expect_errno 'Permission denied' cat "$M/null"
	umount_pmfs "$M"
fi
