#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Space that fallocate(1) has reserved can be written on a full filesystem, through a mapping too, and after a snapshot; and a
# full filesystem can be changed and cleaned up.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3 dd fallocate

M=$T/mnt
cat >"$T/reserved.py" <<'PY'
import errno, mmap, os, sys
what, path = sys.argv[1:3]
PAGE = 4096

def page(n):
    return bytes((n * 7 + i * 13 + (i >> 8)) & 255 for i in range(256)) * 16

if what == "fill":
    # Until not even a page fits.
    block = os.urandom(1 << 20)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    size = len(block)
    while size >= PAGE:
        try:
            if os.write(fd, block[:size]) < size:
                size //= 2
            os.fsync(fd)
        except OSError as e:
            assert e.errno == errno.ENOSPC, e
            size //= 2
elif what in ("write", "map"):
    first, last = int(sys.argv[3]), int(sys.argv[4])
    fd = os.open(path, os.O_RDWR)
    if what == "write":
        for n in range(first, last):
            assert os.pwrite(fd, page(n), n * PAGE) == PAGE
        os.fsync(fd)
    else:
        m = mmap.mmap(fd, last * PAGE)
        for n in range(first, last):
            m[n * PAGE:(n + 1) * PAGE] = page(n)
        m.flush()
        m.close()
    os.close(fd)
elif what == "check":
    first, last = int(sys.argv[3]), int(sys.argv[4])
    with open(path, "rb") as f:
        for n in range(first, last):
            f.seek(n * PAGE)
            assert f.read(PAGE) == page(n), n
elif what == "zeros":
    data = open(path, "rb").read()
    assert len(data) == int(sys.argv[3]) * PAGE and not any(data), "what nobody has written"
PY
reserved() { python3 "$T/reserved.py" "$@"; }

run() { # SOURCE [OPTIONS]
	local before after
	mount_pmfs "$1" "$M" "${2-}"
	mkdir "$M/d"
	echo x >"$M/f"
	echo y >"$M/g"
	setfattr -n user.a -v b "$M/f" 2>/dev/null || true

	say "$1: df shows what is reserved"
	before=$(stat -f -c %a "$M")
	fallocate -l 8M "$M/r"
	after=$(stat -f -c %a "$M")
	[ $((before - after)) -ge 2048 ] || fail "$((before - after)) pages less are available after reserving 2048"
	expect_equal "$(stat -c %b "$M/r")" 16384 blocks
	reserved zeros "$M/r" 2048
	expect_errno 'No space left on device' fallocate -l 64M "$M/more"
	rm -f "$M/more"
	reserved fill "$M/fill"
	[ "$(stat -f -c %a "$M")" -lt 64 ] || fail "df says that there is room, but a page does not fit"

	say "$1: write(2) and a mapping, on a full filesystem"
	reserved write "$M/r" 0 300
	reserved map "$M/r" 300 600

	say "$1: after a snapshot"
	rm "$M/fill"
	pmfs-snap -q create "$M" s
	reserved fill "$M/fill"
	reserved write "$M/r" 600 1000
	reserved map "$M/r" 1000 2048
	reserved check "$M/r" 0 2048
	reserved check "$M/.snapshots/s/r" 0 600
	expect_equal "$(tail -c +2457601 "$M/.snapshots/s/r" | tr -d '\0' | wc -c)" 0 'bytes in what the snapshot has not'

	say "$1: a full filesystem can be changed and cleaned up"
	chmod 600 "$M/f"
	[ "$(id -u)" -ne 0 ] || chown 1:1 "$M/f"
	touch -d @5 "$M/f"
	mv "$M/f" "$M/d/f"
	mv "$M/d/f" "$M/g"
	setfattr -x user.a "$M/g" 2>/dev/null || true
	expect_errno 'No space left on device' dd if=/dev/urandom of="$M/no" bs=1M count=1 status=none
	rm -f "$M/no" "$M/g"
	rmdir "$M/d"
	truncate -s 4096 "$M/fill"
	pmfs-snap delete "$M" s
	rm "$M/fill" "$M/r"
	expect_equal "$(ls -A "$M")" '' 'what is left'
	umount_pmfs "$M"
}

make_image "$T/image" 32M
run "$T/image"
check_image "$T/image"
run ram size=32M
