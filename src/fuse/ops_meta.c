/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests about attributes: stat, chmod and the like, extended attributes, symlink targets,
 * statfs. */
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "fuse/caller.h"
#include "fuse/front_impl.h"

void attr_to_stat(const struct front *fr, const struct fs_attr *a, struct stat *st)
{
	(void)fr;
	memset(st, 0, sizeof(*st));
	st->st_ino = a->ino;
	st->st_mode = a->mode;
	st->st_nlink = a->nlink;
	st->st_uid = a->uid;
	st->st_gid = a->gid;
	st->st_rdev = a->rdev;
	st->st_size = (off_t)a->size;
	st->st_blocks = (blkcnt_t)a->blocks;
	st->st_blksize = 4096;
	st->st_atim = a->atime;
	st->st_mtim = a->mtime;
	st->st_ctim = a->ctime;
}

static void reply_attr(fuse_req_t req, const struct fs_attr *a)
{
	struct stat st;

	attr_to_stat(front_of(req), a, &st);
	fuse_reply_attr(req, &st, TIMEOUT_FOREVER);
}

static double virtual_timeout(fuse_ino_t ino)
{
	return ino == VIRT_SNAPSHOTS ? 0 : TIMEOUT_FOREVER;
}

static int tell_attr(struct front *fr, fuse_req_t req, fuse_ino_t ino, struct fs_attr *a)
{
	int rc;

	told_begin(fr);
	rc = fs_getattr(fr->fs, node_of(fr, ino), a);
	if (!rc)
		told_about(fr, req, a);
	told_end(fr);
	return rc;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct front *fr = request_begin(req, OP_GETATTR);
	struct fs_attr a;
	struct stat st;
	int rc;

	(void)fi;
	if (is_virtual(ino)) {
		virtual_stat(fr, ino, &st);
		fuse_reply_attr(req, &st, virtual_timeout(ino));
		return;
	}
	notify_wait(fr->moved, ino, request_is_ring(req));
	rc = tell_attr(fr, req, ino, &a);
	if (rc)
		request_fail(req, OP_GETATTR, rc);
	else
		reply_attr(req, &a);
}

#ifdef HAVE_STRUCT_FUSE_LOWLEVEL_OPS_STATX
static struct statx_timestamp statx_time(const struct timespec *ts)
{
	return (struct statx_timestamp){.tv_sec = ts->tv_sec, .tv_nsec = (uint32_t)ts->tv_nsec};
}

static void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct front *fr = request_begin(req, OP_STATX);
	struct fs_attr a = {0};
	struct statx sx = {0};
	struct stat st;
	int rc = 0;

	(void)flags;
	(void)mask;
	(void)fi;
	if (is_virtual(ino)) {
		virtual_stat(fr, ino, &st);
		a.btime = st.st_mtim;
	} else {
		notify_wait(fr->moved, ino, request_is_ring(req));
		rc = tell_attr(fr, req, ino, &a);
		if (!rc)
			attr_to_stat(fr, &a, &st);
	}
	if (rc) {
		request_fail(req, OP_STATX, rc);
		return;
	}
	sx.stx_mask = STATX_BASIC_STATS | STATX_BTIME;
	sx.stx_blksize = (uint32_t)st.st_blksize;
	sx.stx_nlink = (uint32_t)st.st_nlink;
	sx.stx_uid = st.st_uid;
	sx.stx_gid = st.st_gid;
	sx.stx_mode = (uint16_t)st.st_mode;
	sx.stx_ino = st.st_ino;
	sx.stx_size = (uint64_t)st.st_size;
	sx.stx_blocks = (uint64_t)st.st_blocks;
	sx.stx_atime = statx_time(&st.st_atim);
	sx.stx_mtime = statx_time(&st.st_mtim);
	sx.stx_ctime = statx_time(&st.st_ctim);
	sx.stx_btime = statx_time(&a.btime);
	sx.stx_rdev_major = major(st.st_rdev);
	sx.stx_rdev_minor = minor(st.st_rdev);
	sx.stx_attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP;
	sx.stx_attributes = (a.flags & PMFS_INODE_IMMUTABLE ? STATX_ATTR_IMMUTABLE : 0u) |
			    (a.flags & PMFS_INODE_APPEND ? STATX_ATTR_APPEND : 0u) |
			    (a.flags & PMFS_INODE_NODUMP ? STATX_ATTR_NODUMP : 0u);
	fuse_reply_statx(req, 0, &sx, is_virtual(ino) ? virtual_timeout(ino) : TIMEOUT_FOREVER);
}
#endif

/* ------------------------------------------------------------------ changes */

unsigned setattr_mask(const struct front *fr, int to_set)
{
	static const struct {
		int from;
		unsigned to;
	} map[] = {
		{FUSE_SET_ATTR_MODE, FS_SET_MODE},
		{FUSE_SET_ATTR_UID, FS_SET_UID},
		{FUSE_SET_ATTR_GID, FS_SET_GID},
		{FUSE_SET_ATTR_SIZE, FS_SET_SIZE},
		{FUSE_SET_ATTR_ATIME, FS_SET_ATIME},
		{FUSE_SET_ATTR_MTIME, FS_SET_MTIME},
		{FUSE_SET_ATTR_CTIME, FS_SET_CTIME},
		{FUSE_SET_ATTR_ATIME_NOW, FS_SET_ATIME_NOW},
		{FUSE_SET_ATTR_MTIME_NOW, FS_SET_MTIME_NOW},
	};
	unsigned mask = 0;

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if (to_set & map[i].from)
			mask |= map[i].to;
	/* With the writeback cache the kernel says when it was that somebody said "now" for both. */
	if ((mask & FS_SET_ATIME_NOW) && (mask & FS_SET_CTIME) && (mask & FS_SET_MTIME))
		mask |= FS_SET_MTIME_NOW;
	/* "Now" comes with a time that is not meant. */
	if (mask & FS_SET_ATIME_NOW)
		mask &= ~(unsigned)FS_SET_ATIME;
	if (mask & FS_SET_MTIME_NOW)
		mask &= ~(unsigned)FS_SET_MTIME;
	/* KILLPRIV_V2: always with a new owner, with a new size when the request says so; else the
	 * kernel sends a mode. */
	if (atomic_load(&fr->killpriv_v2) && (mask & (FS_SET_UID | FS_SET_GID)))
		mask |= FS_SET_KILL_PRIV;
#ifdef FUSE_SET_ATTR_KILL_SUID
	if (to_set & FUSE_SET_ATTR_KILL_SUID)
		mask |= FS_SET_KILL_PRIV;
#endif
	if ((mask & FS_SET_SIZE) && this_request.kill_priv)
		mask |= FS_SET_KILL_PRIV;
	return mask;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
		       struct fuse_file_info *fi)
{
	struct front *fr = request_begin(req, OP_SETATTR);
	struct fs_setattr set;
	struct fs_attr a;
	int rc;

	(void)fi;
	set = (struct fs_setattr){
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.size = (uint64_t)st->st_size,
		.atime = st->st_atim,
		.mtime = st->st_mtim,
		.ctime = st->st_ctim,
	};
	rc = -EROFS;
	if (!is_virtual(ino))
		rc = fs_setattr(fr->fs, node_of(fr, ino), setattr_mask(fr, to_set), &set, &a);
	if (request_orphaned(fr))
		return;
	if (rc)
		request_fail(req, OP_SETATTR, rc);
	else
		reply_attr(req, &a);
	atomic_fetch_add(&fr->handed_over, 1);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct front *fr = request_begin(req, OP_READLINK);
	char buf[PATH_MAX + 1];
	ssize_t n;

	if (is_virtual(ino)) {
		char *target = ino == VIRT_PMFS ? virtual_link_target(fr) : NULL;

		if (target)
			fuse_reply_readlink(req, target);
		else
			request_fail(req, OP_READLINK, -EINVAL);
		free(target);
		return;
	}
	n = fs_readlink(fr->fs, node_of(fr, ino), buf, sizeof(buf) - 1);
	if (n < 0) {
		request_fail(req, OP_READLINK, (int)n);
		return;
	}
	buf[n] = '\0';
	fuse_reply_readlink(req, buf);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct front *fr = request_begin(req, OP_STATFS);
	struct statvfs sv = {0};
	struct fs_statfs s;
	int rc;

	(void)ino;
	rc = fs_statfs(fr->fs, &s);
	if (rc) {
		request_fail(req, OP_STATFS, rc);
		return;
	}
	sv.f_bsize = 4096;
	sv.f_frsize = 4096;
	sv.f_blocks = s.blocks;
	sv.f_bfree = s.free;
	sv.f_bavail = s.available;
	sv.f_files = s.inodes;
	sv.f_ffree = s.inodes_free;
	sv.f_favail = s.inodes_free;
	sv.f_namemax = PMFS_NAME_MAX;
	fuse_reply_statfs(req, &sv);
}

/* ------------------------------------------------------------------ extended attributes */

#define TRUSTED "trusted."
/* For the moment between two appends. */
#define CUT_TRIES 1000u

/* Take the names that only an administrator may see out of a list; returns its length. */
static size_t list_hide_trusted(char *list, size_t len)
{
	size_t kept = 0, n;

	for (size_t at = 0; at < len; at += n) {
		n = strlen(list + at) + 1;
		if (!strncmp(list + at, TRUSTED, strlen(TRUSTED)))
			continue;
		memmove(list + kept, list + at, n);
		kept += n;
	}
	return kept;
}

static bool list_has_trusted(const char *list, size_t len)
{
	for (size_t at = 0; at < len; at += strlen(list + at) + 1)
		if (!strncmp(list + at, TRUSTED, strlen(TRUSTED)))
			return true;
	return false;
}

/* As fs_listxattr(), less what the caller may not see. */
static ssize_t list_xattrs(fuse_req_t req, uint64_t id, char *buf, size_t size)
{
	struct fs *fs = front_of(req)->fs;
	char *list;
	ssize_t n;

	/* All of it, since only so it is known what there is to hide. */
	do {
		n = fs_listxattr(fs, id, NULL, 0);
		if (n <= 0)
			return n;
		list = malloc((size_t)n);
		if (!list)
			return -ENOMEM;
		n = fs_listxattr(fs, id, list, (size_t)n);
		if (n < 0)
			free(list);
	} while (n == -ERANGE); /* one more has been set meanwhile */
	if (n < 0)
		return n;
	if (list_has_trusted(list, (size_t)n) && !caller_capable(req, CAP_SYS_ADMIN))
		n = (ssize_t)list_hide_trusted(list, (size_t)n);
	if (size && (size_t)n > size)
		n = -ERANGE;
	else if (size)
		memcpy(buf, list, (size_t)n);
	free(list);
	return n;
}

/*
 * The numbers tell readers of a ring log which bytes they have read, and how many of them there are.
 * So they are those of a moment at which the kernel had no page of before a cut or an append; else a
 * reader that asks before and after would find nothing wrong.  -EAGAIN: there was no such moment.
 */
static ssize_t get_ringlog(fuse_req_t req, fuse_ino_t ino, const char *name, char *buf, size_t size)
{
	const struct front *fr = front_of(req);
	ssize_t n;

	for (unsigned tries = 0; tries < CUT_TRIES; tries++) {
		if (!notify_wait(fr->moved, ino, request_is_ring(req)))
			break;
		n = fs_getxattr(fr->fs, node_of(fr, ino), name, buf, size);
		if (notify_is_clean(fr->moved, ino))
			return n;
	}
	return -EAGAIN;
}

/* Get and list: a size of 0 asks for the length. */
static void reply_xattr(fuse_req_t req, enum front_op op, fuse_ino_t ino, const char *name,
			size_t size)
{
	struct front *fr = request_begin(req, op);
	char *buf = NULL;
	ssize_t n;

	if (fr->cfg.no_xattr) {
		/* Once and for all: the kernel asks no more. */
		request_refuse(req, -ENOSYS);
		return;
	}
	if (size) {
		buf = malloc(size);
		if (!buf) {
			request_fail(req, op, -ENOMEM);
			return;
		}
	}
	if (is_virtual(ino))
		n = name ? -ENODATA : 0;
	else if (name && (!strcmp(name, FS_RINGLOG_CUT) || !strcmp(name, FS_RINGLOG_END)))
		n = get_ringlog(req, ino, name, buf, size);
	else if (name)
		n = fs_getxattr(fr->fs, node_of(fr, ino), name, buf, size);
	else
		n = list_xattrs(req, node_of(fr, ino), buf, size);
	if (n == -ENODATA || n == -EOPNOTSUPP)
		request_refuse(req, (int)n);
	else if (n < 0)
		request_fail(req, op, (int)n);
	else if (size)
		fuse_reply_buf(req, buf, (size_t)n);
	else
		fuse_reply_xattr(req, (size_t)n);
	free(buf);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	reply_xattr(req, OP_GETXATTR, ino, name, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	reply_xattr(req, OP_LISTXATTR, ino, NULL, size);
}

/* Does this attribute's new value clear setgid?  Only an access control list can. */
static bool setxattr_kills_sgid(fuse_req_t req, uint64_t id, const char *name)
{
	struct front *fr = front_of(req);
	struct fs_attr a;

	if (!atomic_load(&fr->posix_acl) || strcmp(name, "system.posix_acl_access"))
		return false;
	if (atomic_load(&fr->setxattr_ext))
		return this_request.kill_sgid;
	/* The kernel's rule, by what can be seen from here. */
	return !fs_getattr(fr->fs, id, &a) && (a.mode & S_ISGID) && !caller_in_group(req, a.gid) &&
	       !caller_capable(req, CAP_FSETID);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			size_t size, int flags)
{
	struct front *fr = request_begin(req, OP_SETXATTR);
	const bool ringlog = !strcmp(name, FS_RINGLOG);
	int rc;

	if (fr->cfg.no_xattr) {
		request_refuse(req, -ENOSYS);
		return;
	}
	if (setxattr_kills_sgid(req, node_of(fr, ino), name))
		flags |= FS_XATTR_KILL_SGID;
	rc = is_virtual(ino) ? -EROFS : 0;
	/* With the writeback cache it is the kernel that says how long a file is. */
	if (!rc && ringlog && atomic_load(&fr->writeback))
		rc = -EOPNOTSUPP;
	if (!rc && ringlog)
		notify_hold(fr->moved);
	if (!rc) {
		rc = fs_setxattr(fr->fs, node_of(fr, ino), name, value, size, flags);
		if (ringlog) {
			/* The beginning of what was there may have been cut off. */
			if (!rc)
				notify_moved(fr->moved, ino, 0);
			notify_release(fr->moved);
		}
	}
	if (rc == -EOPNOTSUPP)
		request_refuse(req, rc);
	else
		request_fail(req, OP_SETXATTR, rc);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct front *fr = request_begin(req, OP_REMOVEXATTR);
	int rc;

	if (fr->cfg.no_xattr) {
		request_refuse(req, -ENOSYS);
		return;
	}
	rc = is_virtual(ino) ? -EROFS : fs_removexattr(fr->fs, node_of(fr, ino), name);
	if (rc == -ENODATA || rc == -EOPNOTSUPP)
		request_refuse(req, rc);
	else
		request_fail(req, OP_REMOVEXATTR, rc);
}

void ops_meta(struct fuse_lowlevel_ops *ops)
{
	ops->getattr = op_getattr;
#ifdef HAVE_STRUCT_FUSE_LOWLEVEL_OPS_STATX
	ops->statx = op_statx;
#endif
	ops->setattr = op_setattr;
	ops->readlink = op_readlink;
	ops->statfs = op_statfs;
	ops->getxattr = op_getxattr;
	ops->listxattr = op_listxattr;
	ops->setxattr = op_setxattr;
	ops->removexattr = op_removexattr;
}
