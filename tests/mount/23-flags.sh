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
mkdir nodump
chattr +dA nodump
echo x >nodump/f
mkdir nodump/sub
expect_equal "$(flags nodump/f) $(flags nodump/sub)" 'dA dA' "flags of what is made in a directory with dA"
mv nodump/f moved
expect_equal "$(flags moved)" dA "flags after a move"
expect_errno 'Operation not supported' chattr +c other
chown 1000 other
eperm setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all --bounding-set=-all chattr +i other
setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all --bounding-set=-all chattr +A other
eperm setpriv --reuid=1001 --regid=1001 --clear-groups --inh-caps=-all --bounding-set=-all chattr -A other

say "what was written before is not refused later"
stored_before() { # FILE: by a write and through a mapping that stays
	python3 - "$1" <<'PY'
import fcntl, mmap, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.pwrite(fd, b"w" * 20000, 0)
m = mmap.mmap(fd, 20000)
m[5000:5006] = b"mapped"
SETFLAGS, IMMUTABLE = 0x40086602, 16
fcntl.ioctl(fd, SETFLAGS, struct.pack("l", IMMUTABLE))
os.fsync(fd)
assert os.pread(fd, 20000, 0) == b"w" * 5000 + b"mapped" + b"w" * 14994
PY
}
stored_before stored

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
expect_equal "$(flags "$M/stored")" i
expect_equal "$(tr -d w <"$M/stored") $(stat -c %s "$M/stored")" 'mapped 20000' "what was stored before chattr +i"
umount_pmfs "$M"
check_image "$T/image"

say "the same with a writeback cache, where \"now\" comes as a time"
mount_pmfs "$T/image" "$M" writeback
cd "$M"
stored_before stored2
: >log
chattr +a log
echo two >>log
touch log
eperm touch -d @1 log
cd /
umount_pmfs "$M"
mount_pmfs "$T/image" "$M"
expect_equal "$(tr -d w <"$M/stored2") $(stat -c %s "$M/stored2")" 'mapped 20000' "what was written before chattr +i"
expect_equal "$(cat "$M/log")" two
umount_pmfs "$M"
check_image "$T/image"
