#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Who may do what with views, and how much memory they take.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
chmod 755 "$T"

memory() {
	df --output=used -B1 "$M/.pmfs/views" | tail -n 1 | tr -d " "
}

run() { # OPTIONS
	local n
	mount_pmfs ram "$M" "$(join_options size=256M,views=16M,allow_other "${1-}")"
	V=$M/.pmfs/views

	say "${1:-defaults}: the limit is ENOSPC, and what is given back can be used again"
	head -c 12M /dev/zero | tr '\0' a >"$V/a"
	expect_errno "No space" dd if=/dev/urandom of="$V/b" bs=1M count=8 status=none
	expect_errno "No space" fallocate -l 8M "$V/c"
	expect_equal "$(wc -c <"$V/a")" 12582912
	rm "$V/a" "$V/b" "$V/c"
	for ((n = 0; n < WAIT_TENTHS; n++)); do
		[ "$(memory)" -eq 0 ] && break || sleep 0.1
	done
	expect_equal "$(memory)" 0 "memory of removed views"
	dd if=/dev/urandom of="$V/b" bs=1M count=14 status=none
	sum=$(sha256sum <"$V/b")

	say "${1:-defaults}: a view that nobody uses leaves memory, and comes back"
	for ((n = 0; n < WAIT_TENTHS; n++)); do
		[ "$(memory)" -eq 0 ] && break || sleep 0.1
	done
	expect_equal "$(memory)" 0 "memory of unused views"
	expect_equal "$(sha256sum <"$V/b")" "$sum" "contents"
	truncate -s 1G "$V/sparse"
	expect_equal "$(stat -c %s "$V/sparse")" 1073741824
	rm "$V/sparse" "$V/b"

	if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
		say "${1:-defaults}: permissions are those of files in a directory like /tmp"
		as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; }
		as 1234 sh -c "umask 077; echo mine >'$V/mine'"
		expect_equal "$(stat -c '%u %a' "$V/mine")" "1234 600"
		expect_errno "denied" as 4321 cat "$V/mine"
		expect_errno "denied" as 4321 cat "$M/.pmfs/alias/mine"
		expect_errno "not permitted" as 4321 rm -f "$V/mine"
		expect_equal "$(as 1234 cat "$M/.pmfs/alias/mine")" mine
		expect_errno "denied" as 1234 sh -c "echo x >>'$M/.pmfs/alias/mine'"
		as 1234 chmod 644 "$V/mine"
		expect_equal "$(as 4321 cat "$V/mine")" mine
		expect_errno "denied" as 4321 sh -c "echo x >>'$V/mine'"
		as 1234 rm "$V/mine"
	fi
	umount_pmfs "$M"
}

run
run passthrough=off

say "a large view becomes huge pages where it is complete, and takes no more memory for it"
mount_pmfs ram "$M" size=64M,views=12M,commit=1
cat >"$T/huge.py" <<'PY'
import ctypes, mmap, os, sys, time
top, direct, daemon = sys.argv[1], sys.argv[2] == "True", sys.argv[3]
MIB = 1 << 20
COLLAPSE = 25

def pmd_mapped(pid):
    with open("/proc/%s/smaps_rollup" % pid) as f:
        return sum(int(l.split()[1]) for l in f if l.startswith("ShmemPmdMapped:"))

# Does a memory file get one here and now?  Where it is mapped must fit.
def offered():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_size_t
    libc.mmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    fd = os.memfd_create("control")
    os.write(fd, bytes(2 * MIB))
    at = libc.mmap(0, 4 * MIB, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    at = (at + 2 * MIB - 1) // (2 * MIB) * (2 * MIB)
    at = libc.mmap(at, 2 * MIB, mmap.PROT_READ, mmap.MAP_SHARED | 0x10, fd, 0)
    return libc.madvise(at, 2 * MIB, COLLAPSE) == 0

path = top + "/.pmfs/views/huge"
fd = os.open(path, os.O_RDWR | os.O_CREAT)
os.truncate(path, 32 * MIB)
data = os.urandom(MIB) * 6
assert os.pwrite(fd, data, 0) == len(data)
os.pwrite(fd, b"x", 20 * MIB)
m = mmap.mmap(fd, 32 * MIB)
blocks = os.fstat(fd).st_blocks
if not direct:
    print("the kernel's page cache has its own pages: nothing to see")
elif not offered():
    print("this kernel gives no huge pages")
else:
    end = time.monotonic() + 60
    while not pmd_mapped(daemon) and time.monotonic() < end:
        time.sleep(0.1)
    # Memory can be in too many pieces by now.
    assert pmd_mapped(daemon) or not offered(), "no huge page of the view is mapped"
    for at in range(0, 6 * MIB, 4096):
        m[at]
    print("%d KiB are huge pages to the daemon, %d KiB to us" % (pmd_mapped(daemon), pmd_mapped("self")))
assert m[:6 * MIB] == data
assert os.fstat(fd).st_blocks == blocks == (6 * MIB + 4096) // 512, (os.fstat(fd).st_blocks, blocks)
# Half of one goes, and is free for others.
m.close()
os.truncate(path, 3 * MIB)
assert os.fstat(fd).st_blocks == 3 * MIB // 512
other = os.open(top + "/.pmfs/views/other", os.O_RDWR | os.O_CREAT)
os.posix_fallocate(other, 0, 9 * MIB)
assert os.pread(fd, 4 * MIB, 0) == data[:3 * MIB]
PY
direct=$(pmfs-ctl --json status "$M" | python3 -c 'import json,sys; print(json.load(sys.stdin)["data"]["features"]["passthrough"])')
python3 "$T/huge.py" "$M" "$direct" "$(daemon_of "$M")"
umount_pmfs "$M"

say "a read-only mount shows views and takes none"
make_image "$T/image" 64M
mount_pmfs "$T/image" "$M"
echo there >"$M/.pmfs/views/x"
umount_pmfs "$M"
mount_pmfs "$T/image" "$M" ro
expect_equal "$(cat "$M/.pmfs/views/x")" there
expect_equal "$(cat "$M/.pmfs/alias/x")" there
expect_errno "Read-only" sh -c "echo y >'$M/.pmfs/views/y'"
umount_pmfs "$M"
check_image "$T/image"
