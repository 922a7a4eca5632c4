#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# POSIX access control lists: checked for several users, in step with the mode, inherited, kept by copies, snapshots and
# remounts.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need setfacl getfacl setpriv cp
[ "$(id -u)" -eq 0 ] || skip "it needs to be several users, so root"

M=$T/mnt
chmod 755 "$T"

as() { # UID[:GROUP] COMMAND...
	local id=$1
	shift
	if [ "${id#*:}" = "$id" ]; then
		setpriv --reuid="$id" --regid="$id" --clear-groups "$@"
	else
		setpriv --reuid="${id%:*}" --regid="${id%:*}" --groups="${id#*:}" "$@"
	fi
}

refused() { # UID COMMAND...
	expect_errno 'Permission denied' as "$@"
}

acl() { # FILE: its list in one line
	getfacl -cpnE "$1" | grep -v '^$' | paste -sd,
}

mode() {
	stat -c %a "$1"
}

make_image "$T/image" 64M
mount_pmfs "$T/image" "$M" allow_other
chmod 755 "$M"
cd "$M"
umask 022

say "a user and a group of the list get in, others do not"
echo x >f
chmod 600 f
refused 1000 cat f
setfacl -m u:1000:r,g:2000:rw f
expect_equal "$(mode f)" 660 "the mask is the mode's group"
expect_equal "$(acl f)" 'user::rw-,user:1000:r--,group::---,group:2000:rw-,mask::rw-,other::---'
as 1000 cat f >/dev/null
refused 1000 sh -c 'echo y >>f'
as 1001:2000 sh -c 'echo y >>f'
refused 1002 cat f
setfacl -x u:1000 f
refused 1000 cat f

say "the mask limits, and chmod changes it"
setfacl -m u:1000:rw f
as 1000 sh -c 'echo y >>f'
chmod 640 f
expect_equal "$(acl f)" 'user::rw-,user:1000:rw-,group::---,group:2000:rw-,mask::r--,other::---'
refused 1000 sh -c 'echo y >>f'
as 1000 cat f >/dev/null
chmod 600 f
refused 1000 cat f
chmod 664 f
expect_equal "$(acl f)" 'user::rw-,user:1000:rw-,group::---,group:2000:rw-,mask::rw-,other::r--'

say "a list that says no more than the mode is none"
setfacl -b f
setfacl -m u::rwx,g::r,o::- f
expect_equal "$(mode f)" 740
expect_equal "$(getfattr -dm- f 2>/dev/null | grep -c posix_acl || true)" 0 'attributes of the list'
setfacl -b f
setfacl -k .

say "a default list is inherited in the place of the umask"
mkdir d
setfacl -d -m u::rwx,u:1000:rwx,g::rx,m::rwx,o::- d
expect_equal "$(mode d)" 755 "a default list leaves the mode alone"
(
	umask 077
	echo x >d/f
	mkdir d/sub
	mknod d/fifo p
	ln -s f d/link
)
expect_equal "$(acl d/f)" 'user::rw-,user:1000:rwx,group::r-x,mask::rw-,other::---'
expect_equal "$(acl d/sub)" 'user::rwx,user:1000:rwx,group::r-x,mask::rwx,other::---,default:user::rwx,default:user:1000:rwx,default:group::r-x,default:mask::rwx,default:other::---'
expect_equal "$(mode d/f)" 660
expect_equal "$(mode d/sub)" 770
expect_equal "$(mode d/fifo)" 660
as 1000 sh -c 'echo y >>d/f; echo z >d/sub/new'
refused 1001 cat d/f
mkdir d/sub/deeper
expect_equal "$(acl d/sub/deeper)" "$(acl d/sub)"
setfacl -k d
(umask 027 && echo x >d/plain && mkdir d/plaindir)
expect_equal "$(mode d/plain)" 640 'umask'
expect_equal "$(mode d/plaindir)" 750 'umask'
expect_errno 'Only directories can have default ACLs' setfacl -d -m u:1000:r f
mkdir trivial
setfacl -d -m u::rwx,g::r,o::r trivial
(umask 077 && echo x >trivial/f)
expect_equal "$(acl trivial/f)" 'user::rw-,group::r--,other::r--'

say "setgid goes when somebody outside of the group changes the list"
echo x >s
chown 1000:2000 s
chmod 2755 s
as 1000:2000 setfacl -m u:1001:r s
expect_equal "$(mode s)" 2755 'by a member of the group'
as 1000 setfacl -m u:1001:rx s
expect_equal "$(mode s)" 755 'by another'
chmod 2755 s
setfacl -m u:1002:r s
expect_equal "$(mode s)" 2755 'by root'
expect_errno 'Operation not permitted' as 1001 setfacl -m u:1001:rwx s

say "copies keep it; so do snapshots and a remount"
setfacl -m u:1000:rwx,g:2001:x f
cp -a f copy
expect_equal "$(acl copy)" "$(acl f)"
cp -a d/sub subcopy
expect_equal "$(acl subcopy)" "$(acl d/sub)"
was=$(acl f)
pmfs-snap -q create "$M" before
setfacl -b f
expect_equal "$(acl .snapshots/before/f)" "$was"
expect_errno 'Read-only file system' setfacl -b .snapshots/before/f
cd /
umount_pmfs "$M"
check_image "$T/image"
mount_pmfs "$T/image" "$M" allow_other
expect_equal "$(acl "$M/copy")" "$was"
expect_equal "$(acl "$M/.snapshots/before/f")" "$was"
as 1000 cat "$M/copy" >/dev/null
umount_pmfs "$M"

say "noxattr: no lists either, and the umask is right"
mount_pmfs "$T/image" "$M" noxattr,allow_other
expect_errno 'Operation not supported' setfacl -m u:1000:r "$M/f"
(umask 027 && echo x >"$M/masked")
expect_equal "$(mode "$M/masked")" 640
umount_pmfs "$M"
