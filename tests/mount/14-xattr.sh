#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Extended attributes: all namespaces that a filesystem serves, limits, errors, snapshots, and the mount option that does without.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/xattr.py" <<'PY'
import errno, os, sys

os.chdir(sys.argv[1])

def refused(want, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except OSError as e:
        assert e.errno == want, (fn, args, e)
    else:
        raise AssertionError(("was not refused", fn, args))

open("f", "w").close()
os.mkdir("d")
os.symlink("f", "s")
for path in ("f", "d"):
    os.setxattr(path, "user.a", b"1")
    os.setxattr(path, "trusted.t", b"")
    os.setxattr(path, "security.x", b"\0\xff")
    assert os.getxattr(path, "user.a") == b"1"
    assert os.getxattr(path, "trusted.t") == b""
    assert os.getxattr(path, "security.x") == b"\0\xff"
    assert sorted(os.listxattr(path)) == ["security.x", "trusted.t", "user.a"]
    os.setxattr(path, "user.a", b"22")
    assert os.getxattr(path, "user.a") == b"22"
    refused(errno.EEXIST, os.setxattr, path, "user.a", b"", os.XATTR_CREATE)
    refused(errno.ENODATA, os.setxattr, path, "user.b", b"", os.XATTR_REPLACE)
    refused(errno.ENODATA, os.getxattr, path, "user.b")
    os.removexattr(path, "user.a")
    refused(errno.ENODATA, os.removexattr, path, "user.a")
    refused(errno.ENODATA, os.getxattr, path, "user.a")
    refused(errno.EOPNOTSUPP, os.setxattr, path, "other.a", b"")
os.setxattr("s", "trusted.link", b"on the link", follow_symlinks=False)
assert os.listxattr("s", follow_symlinks=False) == ["trusted.link"]
assert "trusted.link" not in os.listxattr("f")

# Limits: names of 255, values of 64 KiB, more than that in all is refused and changes nothing.
os.setxattr("f", "user." + "n" * 250, b"long name")
assert os.getxattr("f", "user." + "n" * 250) == b"long name"
big = bytes(range(256)) * 256
os.setxattr("f", "user.big", big)
assert os.getxattr("f", "user.big") == big
refused(errno.E2BIG, os.setxattr, "f", "user.bigger", big + b"x")
refused(errno.ENOSPC, os.setxattr, "f", "user.big2", big)
assert os.getxattr("f", "user.big") == big and "user.big2" not in os.listxattr("f")
for i in range(200):
    os.setxattr("d", f"user.{i}", b"v%d" % i)
for i in range(0, 200, 3):
    os.removexattr("d", f"user.{i}")
left = {f"user.{i}" for i in range(200) if i % 3}
assert {n for n in os.listxattr("d") if n.startswith("user.")} == left
assert all(os.getxattr("d", n) == b"v" + n[5:].encode() for n in left)
PY

make_image "$T/image" 256M
mount_pmfs "$T/image" "$M"
say "all kinds and limits"
python3 "$T/xattr.py" "$M"

say "a snapshot has those of its time; a remount has them all"
pmfs-snap -q create "$M" s
python3 - "$M" <<'PY'
import os, sys
os.chdir(sys.argv[1])
names = sorted(os.listxattr("d"))
for n in names:
    os.removexattr("d", n)
assert os.listxattr("d") == [] and sorted(os.listxattr(".snapshots/s/d")) == names
try:
    os.setxattr(".snapshots/s/d", "user.new", b"")
    raise AssertionError("a snapshot was changed")
except OSError as e:
    assert e.strerror == "Read-only file system", e
os.setxattr("d", "user.kept", b"kept")
PY
umount_pmfs "$M"
check_image "$T/image"
mount_pmfs "$T/image" "$M"
python3 - "$M" <<'PY'
import os, sys
os.chdir(sys.argv[1])
assert os.listxattr("d") == ["user.kept"] and os.getxattr("d", "user.kept") == b"kept"
assert len(os.listxattr(".snapshots/s/d")) > 100 and len(os.getxattr("f", "user.big")) == 65536
PY
umount_pmfs "$M"

say "noxattr"
mount_pmfs "$T/image" "$M" noxattr
python3 - "$M" <<'PY'
import errno, os, sys
os.chdir(sys.argv[1])
for fn, args in ((os.setxattr, ("f", "user.a", b"")), (os.getxattr, ("f", "user.big")), (os.removexattr, ("f", "user.big"))):
    try:
        fn(*args)
        raise AssertionError(fn)
    except OSError as e:
        assert e.errno == errno.EOPNOTSUPP, e
PY
umount_pmfs "$M"
