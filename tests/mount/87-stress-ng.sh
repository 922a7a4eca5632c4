#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# stress-ng: what it has for filesystems, all at once, with its own checks; then the image is checked, and what it holds is removed.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need stress-ng

M=$T/mnt IMAGE=$T/image
make_image "$IMAGE" 2G
mount_pmfs "$IMAGE" "$M" allow_other
echo precious >"$M/precious"

# Those of its class that stay in the directory they are given: no listing of /, no sync of all filesystems.
STRESSORS=(
	access chdir chmod chown copy-file dentry dir dup fallocate fcntl fiemap file-ioctl filename flock fpunch fstat fsize handle
	hdd iomix lease link locka lockf lockofd mknod open readahead rename revio seek sendfile splice symlink sync-file touch
	unlink utime xattr
)
options=()
known=$(stress-ng --help)
for stressor in "${STRESSORS[@]}"; do
	if grep -q -- "--$stressor N" <<<"$known"; then
		options+=("--$stressor" 1)
	fi
done
[ "${#options[@]}" -ge 38 ] || fail "stress-ng knows only: ${options[*]}"

say "$((${#options[@]} / 2)) stressors for five seconds"
stress-ng "${options[@]}" --hdd-bytes 16M --copy-file-bytes 128M --fallocate-bytes 16M --iomix-bytes 16M --readahead-bytes 16M \
	--revio-bytes 16M --seek-size 16M --sync-file-bytes 16M --dentries 500 --temp-path "$M" --verify --timeout 5 --no-rand-seed \
	--oomable --metrics-brief >"$T/stress" 2>&1 || { grep -v 'skipped\|metrc' "$T/stress" | tail -n 30; fail "stress-ng found errors"; }
! grep 'fail:' "$T/stress" || fail "stress-ng found errors"

say "the image is in order"
expect_equal "$(cat "$M/precious")" precious "a file that was not touched"
umount_pmfs "$M"
check_image "$IMAGE"
mount_pmfs "$IMAGE" "$M"
find "$M" -mindepth 1 -maxdepth 1 ! -name precious -exec rm -rf {} +
expect_equal "$(find "$M" -mindepth 1 | wc -l)" 1 "files that are left"
umount_pmfs "$M"
check_image "$IMAGE"
