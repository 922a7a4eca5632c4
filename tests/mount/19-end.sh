#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# How a mount ends: umount, fusermount3 -u, signals with and without users, and what a killed daemon leaves behind.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt IMAGE=$T/image
make_image "$IMAGE" 128M

ended() { # PID: the daemon is gone, and the mount, the control session and the runtime directory with it
	wait_gone "$1" || fail "the daemon does not end"
	! is_mounted "$M" || fail "the mount is still there"
	[ ! -e "$RUN" ] || fail "$RUN is still there"
	expect_equal "$(awk -v dir="$RUN/" 'index($5, dir) == 1' /proc/self/mountinfo | wc -l)" 0 "mounts below $RUN"
}

up() {
	mount_pmfs "$IMAGE" "$M"
	RUN=$(dirname "$(readlink "$M/.pmfs")")
	[ -d "$RUN/files" ] || fail "there is no $RUN/files"
	cat "$M/.pmfs/stats" >/dev/null
}

say "umount"
up
echo one >"$M/f"
umount "$M"
ended "$DAEMON"

say "fusermount3 -u"
up
expect_equal "$(cat "$M/f")" one "the file"
echo two >"$M/f"
fusermount3 -u "$M"
ended "$DAEMON"

for signal in TERM INT HUP; do
	say "SIG$signal"
	up
	expect_equal "$(cat "$M/f")" two "the file"
	kill -$signal "$DAEMON"
	ended "$DAEMON"
done

say "umount of a mount in use is refused and harms nothing"
up
exec 7>"$M/open"
expect_fail 32 umount "$M"
echo text >&7
exec 7>&-
umount "$M"
ended "$DAEMON"

say "SIGTERM while files are open and mapped: what was stored before is kept"
up
expect_equal "$(cat "$M/open")" text "the file"
mkfifo "$T/ready" "$T/go"
python3 - "$M/mapped" "$T/ready" "$T/go" <<'PY' &
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.ftruncate(fd, 8192)
m = mmap.mmap(fd, 8192)
m[4096:4102] = b"stored"
open(sys.argv[2], "w").close()
open(sys.argv[3]).close()
PY
user=$!
cat "$T/ready"
kill -TERM "$DAEMON"
ended "$DAEMON"
: >"$T/go"
wait $user || true
check_image "$IMAGE"
up
expect_equal "$(dd if="$M/mapped" bs=4096 skip=1 count=1 status=none | head -c 6)" stored "what was stored"

say "kill -9: the dead mount is in the way of the next, which says how to take it away"
echo kept >"$M/kept"
sync "$M/kept"
kill -KILL "$DAEMON"
wait_gone "$DAEMON"
! ls "$M" >/dev/null 2>&1 || fail "a dead mount answers"
expect_fail 7 pmfs "$IMAGE" "$M"
expect_text "fusermount3 -uz $M"
fusermount3 -uz "$M"
up
expect_equal "$(cat "$M/kept")" kept "what was synced"
expect_equal "$(mounts_below "$M" | wc -l)" 1 "mounts at that place"

say "a connection that is aborted ends like an unmount"
umount_pmfs "$M"
up
echo before >"$M/aborted"
exec 7>"$M/open"
! umount -f "$M" 2>/dev/null || fail "a mount in use could be unmounted"
exec 7>&-
ended "$DAEMON"
up
expect_equal "$(cat "$M/aborted")" before "the file"

say "a second mount in the same place, and of the same image, is refused"
expect_fail 7 pmfs ram "$M"
mkdir "$T/other"
expect_fail 7 pmfs "$IMAGE" "$T/other"
expect_equal "$(cat "$M/kept")" kept "the first mount"
umount_pmfs "$M"

say "lazy unmounting: open files go on, the daemon ends with the last"
up
exec 7>"$M/late"
umount -l "$M"
echo late >&7
! is_gone "$DAEMON" || fail "the daemon went while a file was open"
exec 7>&-
ended "$DAEMON"
up
expect_equal "$(cat "$M/late")" late "the file"
umount_pmfs "$M"
check_image "$IMAGE"
