#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# fio with verification: each of its ways to write, direct and cached, several jobs in one file, read back at once and after a remount.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need fio

M=$T/mnt IMAGE=$T/image
make_image "$IMAGE" 2G
mount_pmfs "$IMAGE" "$M"
cd "$T"

run() {
	fio --directory="$M" --aux-path="$T" --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randrepeat=1 --allrandrepeat=1 \
		--group_reporting --minimal "$@" >"$T/fio" 2>&1 || {
		tail -n 20 "$T/fio"
		fail "fio $*"
	}
}

has_engine() {
	fio --enghelp | grep -qw "$1"
}

JOBS=(
	"--name=psync --ioengine=psync --rw=randwrite --bsrange=512-64k --size=8M --numjobs=2"
	"--name=direct --ioengine=psync --direct=1 --rw=randwrite --bsrange=4k-64k --size=8M --numjobs=2"
	"--name=mapped --ioengine=mmap --rw=randwrite --bs=4k --size=8M"
	"--name=ahead --ioengine=pvsync2 --rw=write --bs=128k --size=16M --fsync_on_close=1"
	"--name=reserved --ioengine=psync --rw=randwrite --bs=8k --size=8M --fallocate=native --fdatasync=32"
	"--name=short --ioengine=sync --rw=randwrite --bs=1000 --size=1M"
)
has_engine libaio && JOBS+=("--name=aio --ioengine=libaio --direct=1 --iodepth=16 --rw=randwrite --bsrange=4k-32k --size=8M")
if has_engine io_uring && [ "$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)" = 0 ]; then
	JOBS+=("--name=uring --ioengine=io_uring --iodepth=16 --rw=randwrite --bsrange=4k-32k --size=8M")
fi

for job in "${JOBS[@]}"; do
	say "$job"
	# shellcheck disable=SC2086 # words
	run $job --do_verify=1
done

say "many files, made, written, read"
run --name=many --rw=randwrite --bs=4k --nrfiles=200 --filesize=16k --size=3200k --openfiles=20 --do_verify=1

say "all of it once more from the image"
umount_pmfs "$M"
check_image "$IMAGE"
mount_pmfs "$IMAGE" "$M"
for job in "${JOBS[@]}"; do
	# shellcheck disable=SC2086 # words
	run $job --verify_only
done
umount_pmfs "$M"
