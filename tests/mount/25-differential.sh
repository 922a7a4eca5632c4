#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Programs can't tell pmfs from tmpfs and ext4: the differential tester on a RAM mount, with the writeback cache, and on an image whose
# snapshots come and go and whose equal pages are merged meanwhile.  PMFS_SEED and PMFS_OPS say which operations and how many.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
TESTER=${PMFS_BUILD:+$PMFS_BUILD/tests/}differential
command -v "$TESTER" >/dev/null || skip "there is no $TESTER"

OPS=${PMFS_OPS:-24000} SEED=${PMFS_SEED:-1}
M=$T/mnt IMAGE=$T/image REFERENCE=$T/reference
mkdir "$REFERENCE"
if [ "$(id -u)" -eq 0 ]; then
	mount -t tmpfs -o size=1G,nosuid,nodev,huge=never reference "$REFERENCE" || say "the reference is on $(stat -f -c %T "$T")"
fi
chmod 755 "$REFERENCE"

differ() {
	"$TESTER" --reference "$REFERENCE" "$@" || fail "differential $*"
}

# An ext4 where there can be one; else the other reference again.
EXT4=$T/ext4
ext4_reference() {
	mkdir "$EXT4"
	if [ "$(id -u)" -eq 0 ] && command -v mkfs.ext4 >/dev/null && truncate -s 512M "$T/ext4.image" &&
		mkfs.ext4 -q -F -I 256 -E lazy_itable_init=1 "$T/ext4.image" && mount -o loop,nosuid,nodev "$T/ext4.image" "$EXT4"; then
		rmdir "$EXT4/lost+found"
		chmod 755 "$EXT4"
	else
		say "there can be no ext4 here"
		EXT4=$REFERENCE
	fi
}

say "a RAM mount"
mount_pmfs ram "$M" size=1G
differ --ops "$OPS" --seed "$SEED" "$M"

say "several threads, each in its own directories, and readers in all of them"
differ --ops $((OPS / 3)) --seed $((SEED + 1000)) --piece 1000 --threads 3 "$M"

say "ext4 as the reference"
ext4_reference
REFERENCE=$EXT4 differ --ops $((OPS / 2)) --seed $((SEED + 3000)) "$M"
umount_pmfs "$M"

say "a RAM mount with the writeback cache"
mount_pmfs ram "$M" size=1G,writeback
differ --ops $((OPS / 3)) --seed $((SEED + 4000)) "$M"
umount_pmfs "$M"

say "an image, with snapshots and dedup at the same time"
make_image "$IMAGE" 1G
mount_pmfs "$IMAGE" "$M"
(
	trap 'exit 0' TERM
	n=0
	while :; do
		pmfs-snap -q create "$M" "s$n"
		pmfs-ctl -q dedup "$M" start || true
		[ "$n" -lt 2 ] || pmfs-snap -q delete "$M" "s$((n - 2))"
		n=$((n + 1))
	done
) >"$T/beside" 2>&1 &
beside=$!
differ --ops $((OPS / 3)) --seed $((SEED + 2000)) --keep "$M"
kill "$beside"
wait "$beside" || { cat "$T/beside"; fail "snapshots beside it"; }
pmfs-snap list "$M" | grep -q s || fail "no snapshot was made meanwhile"

say "the same again from the image"
"$TESTER" --compare --reference "$REFERENCE" "$M"
mkdir "$REFERENCE/piece/one more"
run_status "$TESTER" --compare --reference "$REFERENCE" "$M"
expect_equal "$STATUS" 1 "exit status when there is a difference"
expect_text '  here      /piece' "$OUT"
rmdir "$REFERENCE/piece/one more"
umount_pmfs "$M"
check_image "$IMAGE"
mount_pmfs "$IMAGE" "$M" ro
"$TESTER" --compare --reference "$REFERENCE" "$M"
umount_pmfs "$M"
