#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Mounting as a person does it: in the background and in front, the list, the end by umount and by signals, fstab's way.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need jq
M=$T/mnt
mkdir "$M"

say 'an image is made on request only, and mounted in the background'
expect_fail 5 pmfs "$T/new.img" "$M"
expect_text 'there is no image'
[ ! -e "$T/new.img" ] || fail 'the image was made all the same'
exec 7>"$T/lock"
expect_ok pmfs "$T/new.img" "$M" --create --size 64M
exec 7>&-
[ ! -s "$OUT" ] || fail 'pmfs says something when it has worked'
is_mounted "$M" || fail 'not mounted'
DAEMON=$(daemon_of "$M")
STARTED+=("$DAEMON")
expect_equal "$(awk -v d="$M" '$5 == d { sub(/.* - /, ""); print $1, $2 }' /proc/self/mountinfo)" "fuse.pmfs $T/new.img" 'type and source'

say 'the daemon has a session of its own and lets go of terminal and directory'
expect_equal "$(ps -o sid= -p "$DAEMON" | tr -d ' ')" "$DAEMON" 'session'
for fd in 0 1 2; do
	expect_equal "$(readlink "/proc/$DAEMON/fd/$fd")" /dev/null "descriptor $fd"
done
expect_equal "$(readlink "/proc/$DAEMON/cwd")" / 'directory'
! ls -l "/proc/$DAEMON/fd" | grep -qF "$T/lock" || fail "it keeps a file of its caller's open"

say 'the list, for people and for scripts'
expect_ok pmfs
expect_text "$M" "$OUT"
expect_ok pmfs --json
jq -e --arg dir "$M" --arg src "$T/new.img" --argjson pid "$DAEMON" \
	'.schema == "pmfs/1" and .command == "pmfs" and .ok and (.warnings == []) and
	 any(.data.mounts[]; .dir == $dir and .source == $src and .pid == $pid and .volume == "live" and .read_only == false)' \
	"$OUT" >/dev/null || fail 'the JSON list is not right'
expect_equal "$(wc -l <"$OUT")" 1 'lines of JSON'

say 'the runtime directory has what the tools need, and nothing of it is visible in the mount'
rundir=$(dirname "$(readlink "$M/.pmfs")")
jq -e --arg dir "$M" --argjson pid "$DAEMON" '.dir == $dir and .pid == $pid and .read_only == false and .volume == "live" and (.dev | test("^[0-9]+:[0-9]+$"))' \
	"$rundir/info.json" >/dev/null || fail 'info.json is not right'
[ -S "$rundir/ctl" ] || fail 'no control socket'
expect_equal "$(stat -c '%a %u' "$rundir")" "700 $(id -u)" 'mode and owner of the runtime directory'
expect_equal "$(ls -A "$M")" '' 'listing of an empty mount'

say 'a second mount of the image says who has it'
mkdir "$T/other"
expect_fail 7 pmfs "$T/new.img" "$T/other"
expect_text "$DAEMON"
expect_text "$M"
say 'and so does one onto the same directory'
expect_fail 7 pmfs ram "$M"
expect_text 'mounted on'

say 'umount ends the daemon, and the image can be had again at once'
echo kept >"$M/file"
umount "$M"
expect_ok pmfs "$T/new.img" "$M"
expect_equal "$(cat "$M/file")" kept 'contents after a mount right behind umount'
wait_gone "$DAEMON" || fail 'the first daemon goes on'
[ ! -e "$rundir" ] || fail 'the runtime directory of the first is still there'
DAEMON=$(daemon_of "$M")
STARTED+=("$DAEMON")

say 'fsck right behind fusermount3 -u waits for the daemon, too'
fusermount3 -u "$M"
expect_ok fsck.pmfs -n "$T/new.img"
wait_gone "$DAEMON" || fail 'the daemon goes on'

for sig in TERM INT HUP; do
	say "SIG$sig unmounts and ends cleanly, in front as well"
	pmfs -f "$T/new.img" "$M" >"$LOGS/front" 2>&1 &
	pid=$!
	STARTED+=("$pid")
	wait_for is_mounted "$M"
	wait_for test -e "$M/file"
	echo "$sig" >"$M/sig"
	kill "-$sig" "$pid"
	status=0
	wait "$pid" || status=$?
	expect_equal "$status" 0 "exit status after SIG$sig"
	! is_mounted "$M" || fail 'still mounted'
	check_image "$T/new.img"
done
mount_pmfs "$T/new.img" "$M"
expect_equal "$(cat "$M/sig")" HUP 'written before the signal'

say 'what a killed daemon leaves is told and swept'
rundir=$(dirname "$(readlink "$M/.pmfs")")
kill -KILL "$DAEMON"
wait_gone "$DAEMON" || fail 'it does not die'
expect_fail 7 pmfs ram "$M"
expect_text 'fusermount3 -uz'
run_status pmfs --json
jq -e --arg dir "$M" 'all(.data.mounts[]; .dir != $dir) and any(.warnings[]; contains($dir))' "$OUT" >/dev/null ||
	fail 'the list does not tell of the dead mount'
fusermount3 -uz "$M"
mount_pmfs "$T/new.img" "$M"
[ ! -e "$rundir/files" ] || [ "$rundir" = "$(dirname "$(readlink "$M/.pmfs")")" ] || fail 'the dead runtime directory is still there'
umount_pmfs "$M"

say 'the helper that mount(8) calls, with the options that fstab has'
ln -s "$(command -v pmfs)" "$T/mount.fuse.pmfs"
expect_ok "$T/mount.fuse.pmfs" "$T/new.img" "$M" -n -o rw,noatime,_netdev,nofail,x-systemd.automount,commit=3 -t fuse.pmfs
STARTED+=("$(daemon_of "$M")")
expect_equal "$(cat "$M/sig")" HUP 'contents'
expect_text noatime <(grep " $M " /proc/self/mountinfo)
umount_pmfs "$M"
if [ "$(id -u)" = 0 ] && [ -x /sbin/mount.fuse3 ]; then
	# mount(8) looks for programs in the system's directories only; this form names ours.
	say 'mount -t fuse'
	mount -t fuse "$(command -v pmfs)#$T/new.img" "$M" -o rw,noatime,_netdev,nofail,x-systemd.automount,commit=3
	STARTED+=("$(daemon_of "$M")")
	expect_equal "$(cat "$M/sig")" HUP 'contents'
	umount_pmfs "$M"
fi

say 'doctor'
expect_ok pmfs doctor
expect_text /dev/fuse "$OUT"
mount_pmfs ram "$M" size=64M
expect_ok pmfs doctor "$M" --json
jq -e '.ok and .command == "pmfs doctor" and any(.data.checks[]; .name == "kernel" and .ok) and (.data.in_use | has("io_uring") and has("libfuse"))' \
	"$OUT" >/dev/null || fail 'the JSON of doctor is not right'
expect_fail 5 pmfs doctor "$T"
umount_pmfs "$M"
