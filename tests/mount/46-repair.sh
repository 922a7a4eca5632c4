#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# fsck.pmfs -y on images that were damaged in their frames: what it says, its exit status, what is left, and that the rest is untouched.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
M=$T/mnt
make_image "$T/img" 256M
mount_pmfs "$T/img" "$M"
mkdir -p "$M/dir" "$M/keep/sub"
for i in $(seq 200); do
	echo "small $i" >"$M/dir/file-with-a-name-$i"
done
head -c 5M /dev/urandom >"$M/keep/bulk"
echo text >"$M/keep/sub/text"
ln -s sub/text "$M/keep/link"
setfattr -n user.note -v kept "$M/keep/bulk"
{
	head -c 4096 /dev/zero | tr '\0' v
	printf '%-4096s' 'this page will be hit'
	head -c 4096 /dev/zero | tr '\0' w
} >"$M/victim"
cp -a "$M/keep" "$T/keep"
expect_ok pmfs-snap create "$M" before
head -c 6M /dev/urandom >"$M/later"
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
    supers.append((struct.unpack_from("<Q", raw, 24)[0], slot, struct.unpack_from("<Q", raw, 56)[0], struct.unpack_from("<I", raw, 72)[0]))
generation, slot, root, height = max(supers)

def read(pfn):
    f.seek(pfn * 4096)
    return f.read(4096)

def flip(pfn, at):
    f.seek(pfn * 4096 + at)
    b = f.read(1)[0]
    f.seek(pfn * 4096 + at)
    f.write(bytes([b ^ 0x40]))

hit = 0
if kind == "slot":
    flip(slot * 32, 100)
    hit = 1
elif kind == "map-leaf":
    node = root
    for level in range(height - 1):
        node = [p for p, _ in struct.iter_unpack("<QQ", read(node)) if p][-1]
    flip(node, 100)
    hit = 1
else:
    size = os.fstat(f.fileno()).st_size
    for pfn in range(64, size // 4096):
        page = read(pfn)
        if kind == "dir" and page[:4] == b"PMdl" and b"file-with-a-name" in page:
            flip(pfn, 4000)
            hit += 1
            break
        elif kind == "data" and b"this page will be hit" in page:
            flip(pfn, 2000)
            hit += 1
            break
print(hit)
PY

damage() { # KIND
	rm -f "$T/bad"
	cp --sparse=always "$T/img" "$T/bad"
	[ "$(python3 "$T/flip.py" "$T/bad" "$1")" -gt 0 ] || fail "nothing to hit of kind $1"
}

repaired() { # STATUS ARGUMENT...
	local want=$1
	shift
	run_status fsck.pmfs "$@" "$T/bad"
	[ "$STATUS" = "$want" ] || {
		cat "$OUT" "$ERR"
		fail "status $STATUS of fsck.pmfs $*, want $want"
	}
}

whole() {
	check_image "$T/bad"
	mount_pmfs "$T/bad" "$M"
	same_tree "$T/keep" "$M/keep"
	expect_equal "$(getfattr --absolute-names --only-values -n user.note "$M/keep/bulk")" kept 'attribute'
	same_tree "$T/keep" "$M/.snapshots/before/keep"
}

say 'nothing to do'
cp --sparse=always "$T/img" "$T/bad"
repaired 0 -y
expect_text 'bad: clean' "$OUT"
repaired 16 -n -y
repaired 16 --cut-data

say 'contents'
damage data
repaired 4 -n
cp --sparse=always "$T/bad" "$T/same"
repaired 4
cmp "$T/bad" "$T/same" || fail 'without -y and a terminal the image has changed'
repaired 4 -y
expect_text 'NOT REPAIRED: ' "$OUT"
expect_text 'contents at byte 4096, 4096 bytes' "$OUT"
expect_text 'is /victim' "$OUT"
repaired 1 -y --cut-data
whole
expect_equal "$(head -c 8192 "$M/victim" | tail -c 4096 | tr -d '\0' | wc -c)" 0 'bytes of the hole'
expect_equal "$(tail -c 4096 "$M/victim" | tr -d w | wc -c)" 0 'the rest of the file'
umount_pmfs "$M"

say 'a directory'
damage dir
repaired 4 -n
repaired 1 -y --json
tail -n 1 "$OUT" | grep -q '"type":"summary"' || fail 'no summary'
grep -q '"state":"repaired"' "$OUT" || fail 'no finding says that it was repaired'
whole
[ "$(($(find "$M/dir" -type f | wc -l) + $(find "$M/lost+found" -type f | wc -l)))" = 200 ] || fail 'files are missing'
[ "$(find "$M/dir" -type f | wc -l)" -gt 20 ] || fail 'the names in the other pages are gone'
expect_equal "$(cat "$M/dir"/* "$M/lost+found"/* | sort -V | sha256sum)" "$(seq -f 'small %.0f' 200 | sort -V | sha256sum)" 'what is in them'
umount_pmfs "$M"

say 'the newest superblock'
damage slot
repaired 0 -n
repaired 0 -y
mount_pmfs "$T/bad" "$M"
same_tree "$T/keep" "$M/keep"
umount_pmfs "$M"

say 'a leaf of the page map'
damage map-leaf
repaired 4 -n
repaired 1 -y
expect_text 'pages from page' "$OUT"
check_image "$T/bad"
mount_pmfs "$T/bad" "$M"
head -c 8M /dev/urandom >"$M/new"
umount_pmfs "$M"
check_image "$T/bad"
