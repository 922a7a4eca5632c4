#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# User namespaces: a mount seen from inside one, with and without allow_other; mounting inside one, as root and as an ordinary user.
if [ "$(id -u)" != 0 ]; then
	echo 'SKIP: this is started by root, to become others'
	exit 77
fi
if [ -z "${PMFS_TEST_NAMESPACE-}" ]; then
	PMFS_TEST_NAMESPACE=1 exec unshare -m bash "$0" "$@"
fi
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need unshare setpriv getfattr
unshare -Urm true 2>/dev/null || skip "this kernel lets nobody make user namespaces"

M=$T/mnt
chmod 755 "$T"
as() { # UID COMMAND...
	local uid=$1
	shift
	setpriv --reuid="$uid" --regid="$uid" --clear-groups env -u XDG_RUNTIME_DIR "$@"
}
EACCES='Permission denied'

say "from inside: everybody with allow_other, by what the owners outside may"
mount_pmfs ram "$M" size=64M,allow_other
echo one >"$M/f"
mkdir -m 777 "$M/open"
mkdir -m 700 "$M/closed"
chown 1000:1000 "$M/closed"
# Root of the namespace is user 1000 outside.
# shellcheck disable=SC2016
(cd "$M" && as 1000 unshare -Ur bash -euc '
	cat f >/dev/null
	echo two >open/g
	test "$(stat -c %u open/g)" = 0
	test "$(stat -c %u f)" = 65534
	chmod 600 open/g
	chown 0:0 open/g
	echo three >closed/h
	mv closed/h open/h
	mkfifo open/fifo
') || fail "work in a user namespace"
expect_equal "$(stat -c '%u %a' "$M/open/g")" '1000 600' "owner and mode outside"
expect_equal "$(cat "$M/open/h")" three "what was moved"
expect_errno "$EACCES" as 1000 unshare -Ur bash -c "echo x >>'$M/f'"
expect_errno "$EACCES" as 2000 unshare -Ur ls "$M/closed"
# Root's privileges inside are none over what belongs to others outside.
expect_errno 'Operation not permitted' as 1000 unshare -Ur chmod 666 "$M/f"
expect_errno 'Operation not permitted' as 1000 unshare -Ur mknod "$M/open/null" c 1 3
expect_errno 'Operation not permitted' as 1000 unshare -Ur setfattr -n trusted.x -v y "$M/open/g"
expect_ok as 1000 unshare -Ur setfattr -n user.x -v y "$M/open/g"
umount_pmfs "$M"

say "without allow_other: only the user who mounted it"
mount_pmfs ram "$M" size=64M
echo one >"$M/f"
chmod 777 "$M"
expect_ok unshare -Ur cat "$M/f"
expect_errno "$EACCES" as 1000 unshare -Ur cat "$M/f"
umount_pmfs "$M"

# Mounted in there, by whoever is root there; used, and gone with it.
# shellcheck disable=SC2016
inside='
	set -eu
	image=$1 dir=$2
	mkfs.pmfs -q --size 64M "$image"
	pmfs "$image" "$dir"
	echo one >"$dir/f"
	test "$(stat -c %u "$dir/f")" = 0
	chmod 4755 "$dir/f"
	pmfs-snap -q create "$dir" s
	echo two >"$dir/f"
	test "$(cat "$dir/.snapshots/s/f")" = one
	pmfs-ctl -q sync "$dir"
	grep -q "^used " "$dir/.pmfs/stats"
	umount "$dir"
	fsck.pmfs -n "$image" >/dev/null
	pmfs ram "$dir" -o size=64M
	echo x >"$dir/x"
	umount "$dir"
'
say "mounted inside, by root"
mkdir "$T/root"
expect_ok unshare -Urm bash -c "$inside" bash "$T/root.image" "$T/root"

say "mounted inside, by a user"
mkdir "$T/user" "$T/user/mnt"
chown -R 65534:65534 "$T/user"
if ! as 65534 test -x "$(command -v pmfs)"; then
	say "a user can not run these programs"
else
	if [ "$(($(stat -c 0%a /dev/fuse) & 6))" != 6 ]; then
		mknod -m 666 "$T/fuse" c 10 229
		mount --bind "$T/fuse" /dev/fuse || skip "can't make a /dev/fuse for users"
	fi
	expect_ok as 65534 unshare -Urm bash -c "$inside" bash "$T/user/image" "$T/user/mnt"
	expect_equal "$(stat -c %u "$T/user/image")" 65534 "owner of the image"
fi
expect_ok pmfs
! grep -F "$T" "$OUT" || fail "a daemon is left"
