#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Mounting without root, through fusermount3.  A /dev/fuse that users can open is made where there is none, in a mount namespace of the test's own.
if [ "$(id -u)" != 0 ]; then
	echo 'SKIP: this is started by root, to become a user'
	exit 77
fi
if [ -z "${PMFS_TEST_NAMESPACE-}" ]; then
	PMFS_TEST_NAMESPACE=1 exec unshare -m bash "$0" "$@"
fi
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need setpriv
chmod 755 "$T"
if [ "$(($(stat -c 0%a /dev/fuse) & 6))" != 6 ]; then
	mknod -m 666 "$T/fuse" c 10 229
	mount --bind "$T/fuse" /dev/fuse || skip "can't make a /dev/fuse for users"
fi
as() {
	setpriv --reuid=65534 --regid=65534 --clear-groups env -u XDG_RUNTIME_DIR "$@"
}
as test -x "$(command -v pmfs)" || skip 'a user can not run these programs'
as sh -c ': <>/dev/fuse' 2>/dev/null || skip 'a user can not open /dev/fuse'
[ -u "$(command -v fusermount3)" ] || skip 'fusermount3 is not setuid'
# libfuse first looks for a fusermount3 of its own installation, which may not be setuid.
prefix=$(dirname "$(dirname "$(ldd "$(command -v pmfs)" | awk '/libfuse3/ { print $3 }')")")
if [ -e "$prefix/bin/fusermount3" ] && [ ! -u "$prefix/bin/fusermount3" ]; then
	mount --bind "$(command -v fusermount3)" "$prefix/bin/fusermount3" || skip "$prefix/bin/fusermount3 is not setuid"
fi
PMFS=$(command -v pmfs) SNAP=$(command -v pmfs-snap) CTL=$(command -v pmfs-ctl) MKFS=$(command -v mkfs.pmfs) FSCK=$(command -v fsck.pmfs)
mkdir "$T/user" "$T/user/mnt" "$T/root"
chown -R 65534:65534 "$T/user"
IMG=$T/user/img M=$T/user/mnt

say 'an image of his own'
expect_ok as "$MKFS" -q "$IMG" --size 64M
expect_equal "$(stat -c %u "$IMG")" 65534 'owner of the image'

say 'not on what is not his'
expect_fail 9 as "$PMFS" "$IMG" "$T/root"
expect_fail 9 as "$PMFS" "$IMG" "$M" -o dev
expect_fail 9 as "$PMFS" "$IMG" "$M" -o suid
if ! grep -qs '^user_allow_other' /etc/fuse.conf; then
	expect_fail 9 as "$PMFS" "$IMG" "$M" -o allow_other
	expect_text user_allow_other
fi
expect_ok as "$PMFS"
! grep -F "$T" "$OUT" || fail 'a daemon is left'

say 'on what is his; files and snapshots'
expect_ok as "$PMFS" "$IMG" "$M"
expect_ok as "$PMFS" --json
pid=$(sed -n "s|.*\"dir\":\"$M\",[^}]*\"pid\":\([0-9]*\).*|\1|p" "$OUT")
[ -n "$pid" ] || fail 'the list does not have it'
STARTED+=("$pid")
expect_equal "$(stat -c '%u %a' "/tmp/pmfs-65534/$pid")" '65534 700' 'owner and mode of the runtime directory'
as sh -c "echo his >$M/file && cp -a /etc/passwd $M/"
expect_ok as "$SNAP" create "$M" s
expect_equal "$(as cat "$M/.snapshots/s/file")" his 'file in the snapshot'
as grep -q '^used ' "$M/.pmfs/stats" || fail 'no statistics'
expect_ok as "$CTL" status "$M"

say 'root sees it in the list and may use the tools on it'
expect_ok pmfs
expect_text "$M" "$OUT"
expect_ok pmfs-snap list "$M"
expect_text s "$OUT"
expect_ok pmfs-ctl sync "$M"

say 'unmounted by him, the daemon ends'
as fusermount3 -u "$M"
wait_gone "$pid" || fail 'the daemon goes on'
[ ! -e "/tmp/pmfs-65534/$pid" ] || fail 'the runtime directory is still there'
expect_ok as "$FSCK" -n "$IMG"
as rmdir /tmp/pmfs-65534 2>/dev/null || true
