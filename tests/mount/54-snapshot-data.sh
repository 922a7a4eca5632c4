#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A snapshot holds all that was written before it was asked for: by write, in many files, and by stores through shared mappings that nobody synced.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

run() { # SOURCE OPTIONS
	local M=$T/mnt
	mount_pmfs "$1" "$M" "${2-}"
	mkdir "$M/files"

	say "$1 ${2-}: 300 files with one dirty page each in the kernel's cache, made by stores"
	cat >"$T/store.py" <<'PY'
import mmap, os, subprocess, sys
top, snap = sys.argv[1], sys.argv[2]
# Started before there is a mapping: a process that is forked later has a copy of all of them, and by letting go of it has the kernel
# write out what the snapshot is to ask for.
helper = subprocess.Popen(["sh", "-c", 'while read -r name; do pmfs-snap -q create "$0" "$name" && echo made; done', top],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
maps = []
for i in range(300):
    fd = os.open(f"{top}/files/{i}", os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(fd, 4096)
    m = mmap.mmap(fd, 4096)
    os.close(fd)
    maps.append(m)
for round in range(3):
    for i, m in enumerate(maps):
        m[0:16] = b"%7d-%7d\n" % (i, round)
    print(f"{snap}-{round}", file=helper.stdin, flush=True)
    assert helper.stdout.readline() == "made\n"
PY
	python3 "$T/store.py" "$M" mapped
	for round in 0 1 2; do
		for i in 0 1 99 298 299; do
			expect_equal "$(head -c 15 "$M/.snapshots/mapped-$round/files/$i")" "$(printf '%7d-%7d' $i $round)" "file $i in snapshot $round"
		done
		expect_equal "$(cat "$M/.snapshots/mapped-$round"/files/* | tr -d '\0' | awk -F- -v r=$round '$2 == r' | wc -l)" 300 "files with the stores of round $round"
	done

	say "$1 ${2-}: a snapshot while a writer runs is one moment of it"
	: >"$M/log"
	(for ((i = 0; ; i++)); do
		[ ! -e "$T/stop" ] || exit 0
		printf '%015d\n' $i >>"$M/log"
	done) &
	writer=$!
	for n in 1 2 3 4 5; do
		seen=$(tail -n 1 "$M/log")
		pmfs-snap -q create "$M" "log-$n"
		awk -v seen="${seen:-0}" '$1 + 0 != NR - 1 { exit 1 } { last = $1 } END { exit last + 0 < seen + 0 }' "$M/.snapshots/log-$n/log" ||
			fail "the log in the snapshot has a gap or lacks what was read before"
	done
	touch "$T/stop"
	wait $writer
	rm "$T/stop"

	say "$1 ${2-}: nothing changes in it afterwards"
	sum=$(cat "$M"/.snapshots/mapped-2/files/* | sha256sum)
	for i in $(seq 0 299); do echo "other" >"$M/files/$i"; done
	expect_equal "$(cat "$M"/.snapshots/mapped-2/files/* | sha256sum)" "$sum" "sum of the snapshot"
	umount_pmfs "$M"
}

make_image "$T/image" 512M
run "$T/image"
check_image "$T/image"
run ram size=512M
run ram size=512M,writeback
