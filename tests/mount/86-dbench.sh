#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# dbench (what a file server does for its clients) and fs_mark (many small files, each flushed) on an image.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
command -v dbench >/dev/null || command -v fs_mark >/dev/null || skip "there is neither dbench nor fs_mark"

M=$T/mnt IMAGE=$T/image
make_image "$IMAGE" 2G
mount_pmfs "$IMAGE" "$M"

if command -v dbench >/dev/null; then
	say "dbench: three clients, three seconds"
	loads=$(find /usr/share/dbench /usr/local/share/dbench* -name client.txt 2>/dev/null | head -n 1 || true)
	dbench -D "$M" -t 3 ${loads:+-c "$loads"} 3 >"$T/dbench" 2>&1 || { tail "$T/dbench"; fail "dbench"; }
	grep -q '^Throughput [0-9]*[1-9]' "$T/dbench" || { tail "$T/dbench"; fail "dbench got nothing done"; }
	# Without System V semaphores its clients start one after the other.
	! grep -v 'barrier semaphore' "$T/dbench" | grep -i 'failed\|error\|child.*exit' || fail "dbench saw errors"
fi

if command -v fs_mark >/dev/null; then
	say "fs_mark: 600 files by two threads, one fsync each"
	mkdir "$M/one" "$M/two"
	# It takes no path of more than 40 bytes.
	(cd "$M" && fs_mark -d one -d two -l "$T/fs_mark.log" -n 300 -s 5000 -S 1 -k -L 1) >"$T/fs_mark" 2>&1 || { cat "$T/fs_mark"; fail "fs_mark"; }
	expect_equal "$(find "$M/one" "$M/two" -type f -size 5000c | wc -l)" 600 "files of fs_mark"

	say "all of them are there after the daemon was killed"
	kill_pmfs "$M"
	mount_pmfs "$IMAGE" "$M"
	expect_equal "$(find "$M/one" "$M/two" -type f -size 5000c | wc -l)" 600 "files of fs_mark after the daemon was killed"
fi
umount_pmfs "$M"
check_image "$IMAGE"
