#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# chattr +i and +a: what they forbid, to root too, that snapshots and remounts keep them, and who may set them.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need chattr lsattr setfattr setpriv python3
[ "$(id -u)" -eq 0 ] || skip "only root may set these flags"

M=$T/mnt
chmod 755 "$T"

eperm() {
	expect_errno 'Operation not permitted' "$@"
}

flags() {
	lsattr -d "$1" | cut -d' ' -f1 | tr -d -
}

make_image "$T/image" 64M
mount_pmfs "$T/image" "$M" allow_other
cd "$M"
mkdir d
echo one >f
echo x >d/f
echo x >other

say "immutable"
expect_equal "$(flags f)" ''
chattr +i f
expect_equal "$(flags f)" i
eperm bash -c 'echo two >>f'
eperm bash -c 'echo two >f'
eperm truncate -s 0 f
eperm rm -f f
eperm mv f g
eperm mv -f other f
eperm ln f g
eperm chmod 600 f
eperm chown 1 f
eperm touch -d @1 f
eperm touch f
eperm setfattr -n user.a -v b f
eperm fallocate -l 8192 f
eperm bash -c 'cp --reflink=auto other f'
expect_equal "$(cat f)" one
[ ! -e g ] || fail "a refused link or rename has made g"
chattr +i d
eperm touch d/new
eperm mkdir d/new
eperm ln -s x d/new
eperm mv other d/new
eperm rm d/f
eperm mv d/f g
echo y >>d/f
expect_equal "$(cat d/f)" $'x\ny' "a file in an immutable directory"

say "append-only"
echo one >log
chattr +a log
expect_equal "$(flags log)" a
echo two >>log
eperm bash -c 'echo three 1<>log'
eperm truncate -s 0 log
eperm bash -c 'echo three >log'
eperm rm -f log
eperm mv log g
eperm ln log g
eperm chmod 600 log
eperm touch -d @1 log
touch log
eperm fallocate -p -o 0 -l 4096 log
expect_equal "$(cat log)" $'one\ntwo'
mkdir logs
echo x >logs/old
chattr +a logs
echo x >logs/new
eperm rm logs/old
eperm mv logs/old logs/older

say "others are kept; what there is not is refused; other users may not"
chattr +dA other
expect_equal "$(flags other)" dA
chattr -A other
expect_equal "$(flags other)" d
expect_errno 'Operation not supported' chattr +c other
chown 1000 other
eperm setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all --bounding-set=-all chattr +i other
setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all --bounding-set=-all chattr +A other
eperm setpriv --reuid=1001 --regid=1001 --clear-groups --inh-caps=-all --bounding-set=-all chattr -A other

say "a snapshot has those of its time, a remount has them all"
pmfs-snap -q create "$M" s
chattr -i f d
rm -r f d
expect_equal "$(flags .snapshots/s/f)" i
expect_errno 'Read-only file system' chattr -i .snapshots/s/f
cd /
umount_pmfs "$M"
check_image "$T/image"
mount_pmfs "$T/image" "$M"
expect_equal "$(flags "$M/log")" a
eperm rm -f "$M/log"
chattr -a "$M/log" "$M/logs"
rm -r "$M/log" "$M/logs"
umount_pmfs "$M"
check_image "$T/image"
