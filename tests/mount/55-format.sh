#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# doc/format.md is enough to write a reader: contrib/pmfs-read.py, which shares no code with pmfs, finds in the image what was put there.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3 cp

reader=$(dirname "$0")/../../contrib/pmfs-read.py
/usr/bin/python3 -c 'import xxhash' 2>/dev/null || skip "there is no python3-xxhash to verify checksums with"
M=$T/mnt IMAGE=$T/image

make_image "$IMAGE" 512M
mount_pmfs "$IMAGE" "$M"
cp -a /usr/include/linux "$M/linux"
mkdir "$M/many"
(cd "$M/many" && seq -f 'a-name-that-is-not-so-short-%g' 3000 | xargs touch)
ln "$M/many/a-name-that-is-not-so-short-7" "$M/hard"
ln -s "$(printf 'x%.0s' $(seq 1000))" "$M/long-link"
ln -s short "$M/short-link"
mkfifo "$M/fifo"
[ "$(id -u)" -ne 0 ] || mknod "$M/null" c 1 3
truncate -s 80M "$M/sparse"
printf 'middle' | dd of="$M/sparse" bs=1 seek=60000000 conv=notrunc status=none
head -c 5000000 /dev/urandom >"$M/random"
printf 'tiny' >"$M/tiny"
chmod 4751 "$M/tiny"
truncate -s 20M "$M/sparse2"
pmfs-snap -q create "$M" first -m "the first one"
tree_sums "$M" >"$T/first"
rm -r "$M/many"
mv "$M/linux" "$M/moved"
echo "more" >>"$M/random"
rm "$M/sparse2"
tree_sums "$M" >"$T/live"
umount_pmfs "$M"

say "the reader's list, and both trees"
"$reader" "$IMAGE" >"$T/list"
expect_text "first	the first one" "$T/list"
"$reader" "$IMAGE" extract "$T/out-live"
tree_sums "$T/out-live" | diff - "$T/live" | head -20
tree_sums "$T/out-live" | cmp -s - "$T/live" || fail "the live tree in the image is not what was there"
"$reader" "$IMAGE" extract "$T/out-first" first
tree_sums "$T/out-first" | cmp -s - "$T/first" || fail "the snapshot in the image is not what was there"
expect_equal "$("$reader" "$IMAGE" cat tiny)" tiny

say "and again after merging, and after kill -9: what small commits left in the slot counts"
mount_pmfs "$IMAGE" "$M"
pmfs-ctl -q dedup "$M" start
pmfs-ctl -q dedup "$M" wait
echo "synced" >"$M/tiny"
sync "$M/tiny"
kill_pmfs "$M"
expect_equal "$("$reader" "$IMAGE" cat tiny)" synced
rm -r "$T/out-first"
"$reader" "$IMAGE" extract "$T/out-first" first
tree_sums "$T/out-first" | cmp -s - "$T/first" || fail "the snapshot in the image is not what was there"

say "damage is noticed"
cp --sparse=always "$IMAGE" "$T/bad"
python3 - "$T/bad" <<'PY'
import os, sys
f = open(sys.argv[1], "r+b")
size = os.fstat(f.fileno()).st_size
for frame in range(64, size // 4096):
    data = os.pread(f.fileno(), 4096, frame * 4096)
    if any(data):
        os.pwrite(f.fileno(), bytes(b ^ 0xFF for b in data[:64]), frame * 4096)
PY
if "$reader" "$T/bad" extract "$T/out-bad" 2>"$ERR"; then
	fail "a damaged image was read without a word"
fi
# Where the newest slots carry small commits, it is they that do not hold what they prove.
grep -qE 'checksum|no valid superblock' "$ERR" || fail "$(cat "$ERR")"
