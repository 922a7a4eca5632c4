#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Damage below the superblock: in the page map, in the tree, in data.  It is EIO for what it hits, fsck.pmfs names it, nothing crashes.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
M=$T/mnt
make_image "$T/img" 256M
mount_pmfs "$T/img" "$M"
mkdir "$M/dir"
for i in $(seq 200); do
	echo "small $i" >"$M/dir/file-with-a-name-$i"
done
(yes 'this is the text that will be hit' || true) | head -c 300000 >"$M/victim"
head -c 40M /dev/urandom >"$M/bulk"
sum=$(sha256sum <"$M/bulk")
umount_pmfs "$M"
check_image "$T/img"

# flip IMAGE KIND: change a byte in frames of this kind; prints how many.
cat >"$T/flip.py" <<'PY'
import os, struct, sys
path, kind = sys.argv[1:3]
f = open(path, "r+b")
supers = []
for slot in (0, 1):
    f.seek(slot * 131072)
    raw = f.read(256)
    supers.append((struct.unpack_from("<Q", raw, 24)[0], struct.unpack_from("<Q", raw, 56)[0], struct.unpack_from("<I", raw, 72)[0]))
generation, root, height = max(supers)

def read(pfn):
    f.seek(pfn * 4096)
    return f.read(4096)

def flip(pfn, at):
    f.seek(pfn * 4096 + at)
    b = f.read(1)[0]
    f.seek(pfn * 4096 + at)
    f.write(bytes([b ^ 0x40]))

hit = 0
if kind == "map-root":
    assert root, "the image has no page map on disk"
    flip(root, 100)
    hit = 1
elif kind == "map-leaf":
    node = root
    for level in range(height - 1):
        node = next(p for p, _ in struct.iter_unpack("<QQ", read(node)) if p)
    flip(node, 100)
    hit = 1
else:
    size = os.fstat(f.fileno()).st_size
    for pfn in range(64, size // 4096):
        page = read(pfn)
        if kind == "dir" and page[:4] == b"PMdl" and b"file-with-a-name" in page:
            flip(pfn, 4000)
            hit += 1
        elif kind == "data" and b"the text that will be hit" in page:
            flip(pfn, 2000)
            hit += 1
            break
print(hit)
PY

damaged() { # KIND
	cp --sparse=always "$T/img" "$T/bad"
	[ "$(python3 "$T/flip.py" "$T/bad" "$1")" -gt 0 ] || fail "nothing to hit of kind $1"
	run_status fsck.pmfs -n "$T/bad"
	expect_equal "$STATUS" 4 'status of fsck.pmfs'
	[ -s "$OUT" ] || fail 'fsck.pmfs prints no finding'
	[ "$(wc -l <"$ERR")" = 1 ] || { cat "$ERR"; fail 'more than one line on stderr'; }
	run_status fsck.pmfs -n "$T/bad" --json
	expect_equal "$STATUS" 4 'status with --json'
	tail -n 1 "$OUT" | grep -q '"type":"summary"' || fail 'no summary'
}

# try_mount: mount the damaged image; 1 when it is refused, which then has to be for damage.
try_mount() {
	run_status pmfs "$T/bad" "$M"
	if [ "$STATUS" -ne 0 ]; then
		expect_equal "$STATUS" 11 'status of pmfs'
		[ "$(wc -l <"$ERR")" = 1 ] || { cat "$ERR"; fail 'more than one line on stderr'; }
		return 1
	fi
	DAEMON=$(daemon_of "$M")
	STARTED+=("$DAEMON")
}

say 'in data'
damaged data
expect_text victim "$OUT"
try_mount || fail 'damage in a file keeps the image from being mounted'
expect_errno 'Input/output error' cat "$M/victim"
expect_equal "$(sha256sum <"$M/bulk")" "$sum" 'sum of another file'
expect_equal "$(cat "$M/dir/file-with-a-name-7")" 'small 7' 'another file'
expect_ok pmfs-ctl status "$M" --json
python3 -c 'import json, sys; assert json.load(open(sys.argv[1]))["data"]["checks"]["bad_pages"] > 0' "$OUT" || fail 'status does not count it'
echo new >"$M/new"
umount_pmfs "$M"

say 'in a directory'
damaged dir
try_mount || fail 'damage in a directory keeps the image from being mounted'
expect_errno 'Input/output error' ls "$M/dir"
expect_equal "$(sha256sum <"$M/bulk")" "$sum" 'sum of another file'
umount_pmfs "$M"

for kind in map-leaf map-root; do
	say "in the page map: $kind"
	damaged "$kind"
	if try_mount; then
		ls -lR "$M" >/dev/null 2>"$ERR" || true
		cat "$M/bulk" >/dev/null 2>>"$ERR" || true
		kill -0 "$DAEMON" || fail 'the daemon has died'
		umount "$M"
		wait_gone "$DAEMON" || fail 'the daemon goes on'
	fi
done

say 'the image is cut short under a mount'
cp --sparse=always "$T/img" "$T/bad"
try_mount || fail "can't mount the good copy"
truncate -s 1M "$T/bad"
cat "$M/bulk" >/dev/null 2>"$ERR" && fail 'what is no longer there was read'
expect_text 'Input/output error'
kill -0 "$DAEMON" || fail 'the daemon has died'
expect_ok pmfs-ctl status "$M"
umount "$M"
wait_gone "$DAEMON" || fail 'the daemon goes on'
