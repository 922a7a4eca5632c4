#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# overlayfs on pmfs: as the lower layer, and as the upper one with its whiteouts, opaque and redirected directories.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3 getfattr
[ "$(id -u)" -eq 0 ] || skip "mounting an overlay needs root"
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || skip "the kernel has no overlayfs"

M=$T/mnt O=$T/overlay

overlay() { # OPTIONS...
	mount -t overlay pmfs-test -o "$(join_options "lowerdir=$M/lower,upperdir=$M/upper,workdir=$M/work" "$@")" "$O"
}

is_whiteout() {
	expect_equal "$(stat -c '%F %t %T' "$1")" 'character special file 0 0' "$1"
}

mount_pmfs ram "$M" size=64M,dev,suid
mkdir "$O" "$M/lower" "$M/upper" "$M/work"
mkdir -p "$M/lower/dir/sub" "$M/lower/moved"
echo one >"$M/lower/f"
echo two >"$M/lower/dir/g"
echo three >"$M/lower/moved/h"
ln "$M/lower/f" "$M/lower/f2"
chmod 6755 "$M/lower/f"
cp -a "$M/lower" "$M/before"

say "the kernel takes it as an upper layer, with all it wants to have there"
dmesg -C 2>/dev/null || true
overlay redirect_dir=on,index=off,metacopy=off
case $(awk -v dir="$O" '$5 == dir' /proc/self/mountinfo) in
*' ro,'*' ro,'*) fail "the overlay is read-only" ;;
esac
if dmesg >"$T/dmesg" 2>/dev/null && grep -i 'overlayfs:.*pmfs\|upper fs' "$T/dmesg"; then
	fail "the kernel misses something in the upper layer"
fi

say "copying up, whiteouts, opaque and redirected directories"
echo more >>"$O/f"
expect_equal "$(cat "$O/f")" $'one\nmore'
expect_equal "$(cat "$M/upper/f")" $'one\nmore'
rm "$O/f2" "$O/dir/g"
is_whiteout "$M/upper/f2"
is_whiteout "$M/upper/dir/g"
[ ! -e "$O/f2" ] || fail "a removed file shows"
expect_equal "$(ls -A "$O/dir")" sub 'what is left in dir'
rm -r "$O/dir"
mkdir "$O/dir"
expect_equal "$(ls -A "$O/dir")" '' 'a directory that was made anew'
expect_equal "$(getfattr --only-values -n trusted.overlay.opaque "$M/upper/dir" 2>/dev/null)" y opaque
mv "$O/moved" "$O/elsewhere"
expect_equal "$(cat "$O/elsewhere/h")" three
expect_equal "$(getfattr --only-values -n trusted.overlay.redirect "$M/upper/elsewhere" 2>/dev/null)" moved redirect
is_whiteout "$M/upper/moved"
echo new >"$O/new"
mv "$O/new" "$O/f"
expect_equal "$(cat "$O/f")" new
umount "$O"
overlay redirect_dir=on,index=off,metacopy=off
expect_equal "$(find "$O" -mindepth 1 -printf '%P ' | tr ' ' '\n' | grep . | sort | paste -sd' ')" 'dir elsewhere elsewhere/h f' 'after a remount'
umount "$O"
same_tree "$M/lower" "$M/before"

say "a program's tree, with everything in the upper layer"
rm -rf "$M/upper" "$M/work"
mkdir "$M/upper" "$M/work"
overlay
cp -a /usr/include/linux "$O/tree"
same_tree /usr/include/linux "$O/tree"
rm -r "$O/tree"
umount "$O"

say "user.overlay attributes for who has no privileges"
rm -rf "$M/upper" "$M/work"
mkdir "$M/upper" "$M/work"
overlay userxattr
rm "$O/f"
rm -r "$O/dir"
mkdir "$O/dir"
expect_equal "$(getfattr --only-values -n user.overlay.opaque "$M/upper/dir" 2>/dev/null)" y opaque
umount "$O"

say "a snapshot as the lower layer"
pmfs-snap -q create "$M" s
rm -r "$M/lower"
mkdir "$M/lower"
mount -t overlay pmfs-test -o "lowerdir=$M/.snapshots/s/lower" "$O" 2>/dev/null ||
	mount -t overlay pmfs-test -o "lowerdir=$M/.snapshots/s/lower:$M/lower" "$O"
same_tree "$M/before" "$O"
umount "$O"

say "RENAME_WHITEOUT by itself, and O_TMPFILE with linkat"
python3 - "$M" <<'PY'
import ctypes, errno, os, stat, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4

def rename(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags):
        return ctypes.get_errno()
    return 0

def link_fd(fd, name):
    AT_SYMLINK_FOLLOW = 0x400
    if libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, name.encode(), AT_SYMLINK_FOLLOW):
        return ctypes.get_errno()
    return 0

def is_whiteout(name):
    st = os.lstat(name)
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0

os.mkdir("w")
os.chdir("w")
open("a", "w").write("a")
assert rename("a", "b", WHITEOUT) == 0
assert is_whiteout("a") and open("b").read() == "a"
assert sorted(os.listdir(".")) == ["a", "b"]
assert {e.name: e.is_file() for e in os.scandir(".")} == {"a": False, "b": True}
assert rename("b", "c", WHITEOUT | EXCHANGE) == errno.EINVAL
open("c", "w").write("c")
assert rename("b", "c", WHITEOUT | NOREPLACE) == errno.EEXIST
assert rename("b", "c", WHITEOUT) == 0
assert is_whiteout("b") and open("c").read() == "a"
os.mkdir("d")
assert rename("d", "e", WHITEOUT) == 0 and is_whiteout("d") and os.path.isdir("e")
os.unlink("a")
os.unlink("b")
os.unlink("d")

fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
assert os.fstat(fd).st_nlink == 0
os.write(fd, b"unnamed")
assert link_fd(fd, "named") == 0
assert open("named").read() == "unnamed" and os.stat("named").st_nlink == 1
os.close(fd)
assert sorted(os.listdir(".")) == ["c", "e", "named"]
fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
os.write(fd, b"x" * 100000)
assert link_fd(fd, "never") == errno.ENOENT, "O_EXCL of O_TMPFILE means that it gets no name"
os.close(fd)
PY
umount_pmfs "$M"
