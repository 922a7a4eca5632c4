#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# The host fails at a flush, a write, at growing: the right errno to who asked, status and log say it, what was acknowledged is there after a remount.
# And a newest superblock slot that is damaged: the state of the one before it is mounted, and the log says so.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need jq python3

M=$T/mnt
# No commit but those that are asked for.
QUIET=commit=3600

# mount_logged IMAGE [FAULTS]: in front, with its messages in $LOGS/front.  The daemon is $DAEMON; 1 when it has ended instead.
mount_logged() {
	mkdir -p "$M"
	PMFS_FAULTS=${2-} pmfs -f "$1" "$M" -o "$(join_options "$QUIET" "${PMFS_TEST_OPTIONS-}")" >"$LOGS/front" 2>&1 &
	DAEMON=$!
	STARTED+=("$DAEMON")
	mounted_or_gone() {
		is_mounted "$M" || is_gone "$DAEMON"
	}
	wait_for mounted_or_gone
	! is_mounted "$M" || wait_for pmfs-ctl status "$M"
	is_mounted "$M"
}

make_image "$T/probe" 64M
if PMFS_FAULTS=region.flush:1:EIO pmfs "$T/probe" "$M" 2>/dev/null; then
	umount_pmfs "$M"
	skip 'this build has no failure points'
fi

# Write and sync files until something fails; what was acknowledged is in $ACKNOWLEDGED.
work() {
	ACKNOWLEDGED=()
	for n in $(seq 40); do
		head -c $((n * 3000)) /dev/urandom >"$T/data.$n"
		cat "$T/data.$n" 2>"$ERR" >"$M/file.$n" || return 1
		sync "$M/file.$n" 2>"$ERR" || return 1
		ACKNOWLEDGED+=("$n")
	done
}

acknowledged_is_there() {
	local n
	for n in "${ACKNOWLEDGED[@]}"; do
		cmp "$T/data.$n" "$M/file.$n" || fail "file.$n was synced, and is not what it was"
	done
}

failing() { # FAULT: a flush or a write
	say "$1"
	make_image "$T/image" 64M
	mount_logged "$T/image" "$1" || { cat "$LOGS/front"; fail 'it is not mounted'; }
	work && fail "nothing has failed"
	expect_text 'Input/output error'
	expect_ok pmfs-ctl status "$M"
	grep -q '^ *FAILED.*it can only be read' "$OUT" || { cat "$OUT"; fail 'status does not say that it has stopped'; }
	expect_text 'no more writes until the image is opened again' "$LOGS/front"
	# Also when the host would work again.
	expect_errno 'Input/output error' pmfs-ctl sync "$M"
	expect_errno 'Input/output error' mkdir "$M/more"
	expect_errno 'Input/output error' pmfs-snap create "$M" late
	acknowledged_is_there
	umount "$M"
	wait_gone "$DAEMON" || fail 'the daemon goes on'
	check_image "$T/image"
	mount_pmfs "$T/image" "$M"
	acknowledged_is_there
	echo more >"$M/more"
	sync "$M/more"
	umount_pmfs "$M"
	rm "$T/image"
}

failing region.flush:2:EIO
failing region.flush:7+:EIO
failing region.write:23:EIO

say 'a flush that fails when it is opened: it is not mounted, and nothing has happened'
make_image "$T/image" 64M
sum=$(sha256sum <"$T/image")
PMFS_FAULTS=region.flush:1:EIO expect_fail 11 pmfs "$T/image" "$M"
expect_text 'Input/output error'
expect_equal "$(sha256sum <"$T/image")" "$sum" 'the image'

for errno in ENOSPC EFBIG; do
	say "the image can't grow: $errno"
	mount_logged "$T/image" "region.grow:2+:$errno" || { cat "$LOGS/front"; fail 'it is not mounted'; }
	echo kept >"$M/kept"
	sync "$M/kept"
	work && fail 'nothing has failed'
	expect_text 'No space left on device'
	kill -0 "$DAEMON" || fail 'the daemon has died'
	expect_equal "$(pmfs-ctl --json status "$M" | jq .data.mount.failed)" false 'whether it has stopped'
	acknowledged_is_there
	rm "$M"/file.*
	pmfs-ctl sync "$M"
	echo small >"$M/small"
	sync "$M/small"
	umount_pmfs "$M"
	check_image "$T/image"
	mount_pmfs "$T/image" "$M"
	expect_equal "$(cat "$M/kept" "$M/small")" "$(printf 'kept\nsmall')" 'contents after another mount'
	umount_pmfs "$M"
	rm "$T/image"
	make_image "$T/image" 64M
done
rm "$T/image"

say 'the newest slot is damaged: what was there a commit before'
make_image "$T/image" 64M
mount_logged "$T/image" || fail 'it is not mounted'
echo older >"$M/file"
sync "$M/file"
echo newer >"$M/file"
sync "$M/file"
kill -KILL "$DAEMON"
wait_gone "$DAEMON" || fail 'the daemon does not die'
fusermount3 -uz "$M"
python3 - "$T/image" <<'PY'
import struct, sys
f = open(sys.argv[1], "r+b")
slots = []
for slot in (0, 1):
    f.seek(slot * 131072 + 24)
    slots.append((struct.unpack("<Q", f.read(8))[0], slot))
f.seek(max(slots)[1] * 131072 + 200)
f.write(b"\xff" * 8)
PY
mount_logged "$T/image" || { cat "$LOGS/front"; fail 'it is not mounted'; }
expect_text 'does not match its checksum' "$LOGS/front"
expect_equal "$(cat "$M/file")" older 'contents'
echo again >"$M/file"
sync "$M/file"
umount_pmfs "$M"
check_image "$T/image"
mount_pmfs "$T/image" "$M"
expect_equal "$(cat "$M/file")" again 'contents after another mount'
umount_pmfs "$M"
