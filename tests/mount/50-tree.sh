#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A real tree: copied in by cp and tar, snapshotted, half of it changed and removed, duplicated and merged, and found again after a remount.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need cp tar cmp find sha256sum jq

# Headers: hundreds of files and directories that are about the same on any machine with a compiler.
tree=/usr/include/c++
[ "$(find $tree -type f | wc -l)" -gt 500 ] || tree=/usr/share/doc
M=$T/mnt IMAGE=$T/image

make_image "$IMAGE" 2G
mount_pmfs "$IMAGE" "$M"

say "copy it in with cp -a, and with tar"
cp -a "$tree" "$M/cp"
mkdir "$M/tar"
tar -C "$tree" -cf - . | tar -C "$M/tar" -xpf -
same_tree "$tree" "$M/cp"
same_tree "$tree" "$M/tar"

say "two copies of it, merged, take the space of one"
pmfs-ctl sync "$M"
pages() { pmfs-ctl --json df "$M" | jq ".data.frames_$1"; }
total=$(pages data)
pmfs-ctl -q dedup "$M" start
pmfs-ctl -q dedup "$M" wait
pmfs-ctl sync "$M"
merged=$(pages data)
# Files of up to 112 bytes have no pages.
contents=$(find "$tree" -type f -size +112c -printf '%s\n' | awk '{ n += int(($1 + 4095) / 4096) } END { print n }')
[ $((total - merged)) -ge "$contents" ] || fail "merging two equal trees of $contents pages left $merged data frames of $total"
[ "$(pmfs-ctl --json df "$M" | jq .data.saved_dedup_bytes)" -ge $(((total - merged) * 4096)) ] || fail "df does not show what was saved"
same_tree "$M/cp" "$M/tar"

say "snapshot, then change and delete half"
sums_before=$(tree_sums "$M/tar" | sha256sum)
pmfs-snap create "$M" before -m "as copied"
n=0
find "$M/tar" -type f | LC_ALL=C sort >"$T/files"
while read -r file; do
	n=$((n + 1))
	case $((n % 4)) in
	0) rm -f "$file" ;;
	1) echo "changed $n" >>"$file" ;;
	2) truncate -s $((n % 5000)) "$file" ;;
	esac
done <"$T/files"
rm -rf "$M/cp"
mkdir "$M/new"
cp -a "$tree" "$M/new/"
expect_equal "$(tree_sums "$M/.snapshots/before/tar" | sha256sum)" "$sums_before" "sums of the tree in the snapshot"
same_tree "$tree" "$M/.snapshots/before/cp"
tree_sums "$M/tar" >"$T/changed"

say "a page that shares a frame is copied when it is written"
same_tree "$tree" "$M/new/$(basename $tree)"

say "unmount and mount again: all as it was"
umount_pmfs "$M"
check_image "$IMAGE"
mount_pmfs "$IMAGE" "$M"
tree_sums "$M/tar" | cmp -s - "$T/changed" || fail "the changed tree is another one after a remount"
expect_equal "$(tree_sums "$M/.snapshots/before/tar" | sha256sum)" "$sums_before" "sums of the snapshot after a remount"
same_tree "$tree" "$M/.snapshots/before/cp"

say "delete the snapshot: what only it held comes back"
used=$(pages used)
pmfs-snap delete "$M" before
[ ! -e "$M/.snapshots/before" ] || fail "a deleted snapshot is still there"
fell() {
	pmfs-ctl sync "$M"
	[ "$(pages used)" -lt "$used" ]
}
wait_for fell
umount_pmfs "$M"
check_image "$IMAGE"
