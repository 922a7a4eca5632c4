#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Views in snapshots, after kill -9, and when the mount goes while one is mapped.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
cat >"$T/writer.py" <<'PY'
# Counts up in every page of a view, in order, until the file "stop" is there.
import mmap, os, sys
path, stop = sys.argv[1], sys.argv[2]
fd = os.open(path, os.O_RDWR)
m = mmap.mmap(fd, os.fstat(fd).st_size)
n = 0
print("ready", flush=True)
while not os.path.exists(stop):
    n += 1
    for page in range(0, len(m), 4096):
        m[page:page + 8] = n.to_bytes(8, "little")
print(n)
PY

counts() { # FILE: the lowest and the highest count in its pages
	python3 - "$1" <<'PY'
import sys
data = open(sys.argv[1], "rb").read()
c = [int.from_bytes(data[i:i + 8], "little") for i in range(0, len(data), 4096)]
print(min(c), max(c), len(c))
PY
}

run() { # OPTIONS
	local I=$T/image.${1:-x} low high pages before=0 pid writer
	make_image "$I" 256M
	mount_pmfs "$I" "$M" "${1-}"

	say "${1:-defaults}: what was stored before a snapshot is in it"
	truncate -s 1M "$M/.pmfs/views/v"
	python3 -c 'import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
import subprocess
for i in range(3):
    m[:] = bytes([65 + i]) * (1 << 20)
    subprocess.run(["pmfs-snap", "-q", "create", sys.argv[2], "s%d" % i], check=True)
' "$M/.pmfs/views/v" "$M"
	for i in 0 1 2; do
		expect_equal "$(tr -d "$(printf "\\$(printf %o $((65 + i)))")" <"$M/.snapshots/s$i/.pmfs/views/v" | wc -c)" 0 "other bytes in s$i"
		expect_equal "$(stat -c %s "$M/.snapshots/s$i/.pmfs/views/v")" 1048576
	done
	expect_errno "Read-only" touch "$M/.snapshots/s0/.pmfs/views/new"
	[ -z "$(find "$M/.snapshots/s0" -name .pmfs)" ] || fail ".pmfs shows up in the listing of a snapshot"

	say "${1:-defaults}: a snapshot while a program stores: each page is as it was at some moment, never older than before"
	rm -f "$T/stop"
	: >"$T/writer.out"
	python3 "$T/writer.py" "$M/.pmfs/views/v" "$T/stop" >"$T/writer.out" &
	writer=$!
	STARTED+=($writer)
	for ((n = 0; n < WAIT_TENTHS; n++)); do grep -q ready "$T/writer.out" && break || sleep 0.1; done
	for i in 1 2 3 4; do
		pmfs-snap -q create "$M" "w$i"
		read -r low high pages < <(counts "$M/.snapshots/w$i/.pmfs/views/v")
		expect_equal "$pages" 256 pages
		if [ "$i" -gt 1 ]; then
			[ "$low" -ge "$before" ] || fail "snapshot w$i has $low, which is older than the $before of the one before"
		fi
		# One round may be under way.
		before=$((low > 0 ? low - 1 : 0))
	done
	touch "$T/stop"
	wait $writer

	say "${1:-defaults}: fsync makes it durable, and kill -9 takes no more than what came after"
	python3 -c 'import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
m[:] = b"D" * (1 << 20)
os.fsync(fd)' "$M/.pmfs/views/v"
	: >"$T/holder.out"
	# Holds it mapped over the end of the daemon.
	python3 -c 'import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
m[0]
print("ready", flush=True)
sys.stdin.read()' "$M/.pmfs/views/v" < <(sleep 1000 & echo $! >"$T/sleep.pid"; wait) >"$T/holder.out" &
	pid=$!
	STARTED+=($pid)
	for ((n = 0; n < WAIT_TENTHS; n++)); do grep -q ready "$T/holder.out" && break || sleep 0.1; done
	kill_pmfs "$M"
	kill "$(cat "$T/sleep.pid")"
	wait $pid || true
	check_image "$I"
	mount_pmfs "$I" "$M" "${1-}"
	expect_equal "$(tr -d D <"$M/.pmfs/views/v" | wc -c)" 0 "bytes that are not the ones of the last fsync"
	expect_equal "$(stat -c %s "$M/.pmfs/views/v")" 1048576

	say "${1:-defaults}: a write with O_DSYNC is durable, and mappings of that descriptor are the same memory"
	python3 -c 'import mmap, os, sys
other = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(other, 1 << 20)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DSYNC)
n = mmap.mmap(fd, 1 << 20)
n[4096:4100] = b"FFFF"
assert m[4096:4100] == b"FFFF" and os.pread(fd, 4, 4096) == b"FFFF"
m[4100:4104] = b"GGGG"
assert os.pread(fd, 8, 4096) == b"FFFFGGGG"
assert os.pwrite(fd, b"E" * (1 << 20), 0) == 1 << 20
assert m[:] == n[:] == b"E" * (1 << 20)
assert os.pwrite(fd, b"HH", (1 << 20) - 2) == 2' "$M/.pmfs/views/v"
	kill_pmfs "$M"
	check_image "$I"
	mount_pmfs "$I" "$M" "${1-}"
	expect_equal "$(head -c 1048574 "$M/.pmfs/views/v" | tr -d E | wc -c)" 0 "bytes that are not the ones written"
	expect_equal "$(tail -c 2 "$M/.pmfs/views/v")" HH

	say "${1:-defaults}: umount with a view open and mapped: the daemon saves it and ends"
	: >"$T/holder.out"
	python3 -c 'import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
m[:] = b"E" * (1 << 20)
m.flush()
print("ready", flush=True)
sys.stdin.read()' "$M/.pmfs/views/v" < <(sleep 1000 & echo $! >"$T/sleep.pid"; wait) >"$T/holder.out" &
	pid=$!
	STARTED+=($pid)
	for ((n = 0; n < WAIT_TENTHS; n++)); do grep -q ready "$T/holder.out" && break || sleep 0.1; done
	umount_pmfs "$M"
	kill "$(cat "$T/sleep.pid")"
	wait $pid || true
	check_image "$I"
	mount_pmfs "$I" "$M" "${1-}"
	expect_equal "$(tr -d E <"$M/.pmfs/views/v" | wc -c)" 0 "bytes that are not what was stored before the umount"
	umount_pmfs "$M"
}

run
run passthrough=off
