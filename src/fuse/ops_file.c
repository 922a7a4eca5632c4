/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests about contents. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "fuse/front_impl.h"

/* Enough for 256 pages that are all apart; writev(2) takes 1024 with the header. */
#define READ_PIECES 1023

bool request_orphaned(const struct front *fr)
{
	return atomic_load(&fr->uring_wanted) && fuse_session_exited(fr->se);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	request_begin(req, OP_OPEN);
	/* From now on the kernel opens files itself, as if each answer had been "keep what you have
	 * cached". */
	request_refuse(req, -ENOSYS);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	request_begin(req, OP_FLUSH);
	/* Not to be asked again: close(2) makes nothing durable here. */
	request_refuse(req, -ENOSYS);
}

/* Of files that were opened by CREATE or TMPFILE.  There is no state per handle. */
static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	request_begin(req, OP_RELEASE);
	fuse_reply_err(req, 0);
}

/* A piece of the region could not be read while the reply was copied: libfuse has dropped the
 * request, so answer by hand. */
static void reply_unreadable(struct front *fr)
{
	const struct out_header { /* struct fuse_out_header of the protocol */
		uint32_t len;
		int32_t error;
		uint64_t unique;
	} head = {.len = sizeof(head), .error = -EIO, .unique = this_request.unique};
	ssize_t n;

	__atomic_fetch_add(&fr->ops[OP_READ].errors, 1, __ATOMIC_RELAXED);
	do
		n = write(fuse_session_fd(fr->se), &head, sizeof(head));
	while (n < 0 && errno == EINTR);
}

#if FRONT_URING
/* The reply buffer of a ring is known: copy once, by the call that survives an unreadable image. */
static void read_ring(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off)
{
	struct front *fr = front_of(req);
	char *payload = NULL;
	size_t room = 0;
	ssize_t n = fuse_req_get_payload(req, &payload, &room, NULL);

	if (!n)
		n = fs_read(fr->fs, node_of(fr, ino), (uint64_t)off, payload,
			    size < room ? size : room);
	if (n < 0)
		request_fail(req, OP_READ, (int)n);
	else
		fuse_reply_buf(req, payload, (size_t)n);
}
#endif

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct front *fr = request_begin(req, OP_READ);
	struct iovec iov[READ_PIECES];
	struct fs_read rd = {.iov = iov, .max = READ_PIECES};
	ssize_t n;
	int rc;

	(void)fi;
	if (is_virtual(ino)) {
		request_fail(req, OP_READ, ino == VIRT_SNAPSHOTS ? -EISDIR : -EINVAL);
		return;
	}
#if FRONT_URING
	if (request_is_ring(req)) {
		read_ring(req, ino, size, off);
		return;
	}
#endif
	n = fs_read_begin(fr->fs, node_of(fr, ino), (uint64_t)off, size, &rd);
	if (n < 0) {
		request_fail(req, OP_READ, (int)n);
		return;
	}
	rc = fuse_reply_iov(req, rd.iov, n ? rd.count : 0);
	fs_read_end(fr->fs, &rd);
	if (rc == -EFAULT)
		reply_unreadable(fr);
}

static bool write_kills(const struct fuse_file_info *fi)
{
#if defined(HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2) && HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2
	return fi->kill_suidgid;
#else
	(void)fi;
	return this_request.kill_priv;
#endif
}

struct moved_write {
	struct front *fr;
	fuse_ino_t ino;
	uint64_t off; /* where the kernel has put it in its cache */
};

static void write_moved(void *arg, const struct fs_written *how)
{
	const struct moved_write *mw = arg;

	notify_moved(mw->fr->moved, mw->ino, how->cut ? 0 : MIN(how->at, mw->off));
}

static void write_and_reply(struct front *fr, fuse_req_t req, fuse_ino_t ino, const char *buf,
			    size_t size, off_t off, const struct fuse_file_info *fi)
{
	const uint64_t id = node_of(fr, ino);
	struct moved_write mw = {.fr = fr, .ino = ino, .off = (uint64_t)off};
	struct fs_written how = {
		.append = fi->flags & O_APPEND, .moved = write_moved, .arg = &mw};
	bool privileged = false;
	unsigned flags = 0;
	ssize_t n;

	if (is_virtual(ino)) {
		request_fail(req, OP_WRITE, -EROFS);
		return;
	}
	if (write_kills(fi)) {
		struct fs_attr a;

		flags |= FS_WRITE_KILL_PRIV;
		privileged = !fs_getattr(fr->fs, id, &a) && (a.mode & (S_ISUID | S_ISGID));
	}
	if (fi->writepage)
		flags |= FS_WRITE_CACHED;
	n = fs_write_at(fr->fs, id, (uint64_t)off, buf, size, flags, &how);
	if (n < 0 || (size_t)n < size)
		/* The page cache has what the file has not. */
		notify_inval(fr->notify, ino, off, (off_t)size);
	else if (privileged)
		/* The kernel takes the mode from its cache when it executes the file. */
		notify_inval(fr->notify, ino, -1, 0);
	if (n < 0)
		request_fail(req, OP_WRITE, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	struct front *fr = request_begin(req, OP_WRITE);

	write_and_reply(fr, req, ino, buf, size, off, fi);
	atomic_fetch_add(&fr->handed_over, 1);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct front *fr = request_begin(req, OP_FSYNC);
	int rc;

	(void)fi;
	rc = is_virtual(ino) ? 0 : fs_fsync(fr->fs, node_of(fr, ino), datasync);
	if (!request_orphaned(fr))
		request_fail(req, OP_FSYNC, rc);
	atomic_fetch_add(&fr->handed_over, 1);
}

/*
 * The kernel leaves clearing setuid and setgid to us, but says only of a WRITE whether the caller
 * may keep them.  Of other changes to the contents only root may.
 */
static int change_kills(struct front *fr, fuse_req_t req, uint64_t id)
{
	const struct fs_setattr none = {0};
	struct fs_attr a;
	int rc;

	if (!fuse_req_ctx(req)->uid)
		return 0;
	rc = fs_getattr(fr->fs, id, &a);
	if (rc || !(a.mode & (S_ISUID | S_ISGID)))
		return rc;
	rc = fs_setattr(fr->fs, id, FS_SET_KILL_PRIV, &none, &a);
	if (!rc)
		notify_inval(fr->notify, ino_of(fr, id), -1, 0);
	return rc;
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	struct front *fr = request_begin(req, OP_FALLOCATE);
	const uint64_t id = node_of(fr, ino);
	int rc;

	(void)fi;
	rc = is_virtual(ino) ? -EROFS : change_kills(fr, req, id);
	if (!rc)
		rc = fs_fallocate(fr->fs, id, mode, (uint64_t)off, (uint64_t)len);
	if (!request_orphaned(fr))
		request_fail(req, OP_FALLOCATE, rc);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	struct front *fr = request_begin(req, OP_LSEEK);
	uint64_t found;
	int rc = -EINVAL;

	(void)fi;
	/*
	 * What the kernel keeps in its writeback cache it does not write out before it asks: a hole
	 * of ours may be data.  It does not ask again after this, and takes all of a file as data.
	 */
	if (atomic_load(&fr->writeback)) {
		request_refuse(req, -ENOSYS);
		return;
	}
	if (!is_virtual(ino) && (whence == SEEK_DATA || whence == SEEK_HOLE))
		rc = off < 0 ? -ENXIO
			     : fs_seek(fr->fs, node_of(fr, ino), (uint64_t)off, whence == SEEK_DATA,
				       &found);
	if (rc == -ENXIO)
		request_refuse(req, rc);
	else if (rc)
		request_fail(req, OP_LSEEK, rc);
	else
		fuse_reply_lseek(req, (off_t)found);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_off,
			       struct fuse_file_info *from_fi, fuse_ino_t to, off_t to_off,
			       struct fuse_file_info *to_fi, size_t len, int flags)
{
	struct front *fr = request_begin(req, OP_COPY);
	const uint64_t target = node_of(fr, to);
	ssize_t n = -EINVAL;

	(void)from_fi;
	(void)to_fi;
	if (!is_virtual(from) && !is_virtual(to) && !flags)
		n = change_kills(fr, req, target);
	if (!n)
		n = fs_copy_range(fr->fs, node_of(fr, from), (uint64_t)from_off, target,
				  (uint64_t)to_off, len);
	if (request_orphaned(fr))
		return;
	if (n < 0)
		request_fail(req, OP_COPY, (int)n);
	else
		fuse_reply_write(req, (size_t)n);
}

/* ------------------------------------------------------------------ flags of chattr(1) */

static const struct {
	uint32_t inode, ioc, xioc; /* ours; of FS_IOC_GETFLAGS; of FS_IOC_FSGETXATTR */
} flag_map[] = {
	{PMFS_INODE_IMMUTABLE, FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE},
	{PMFS_INODE_APPEND, FS_APPEND_FL, FS_XFLAG_APPEND},
	{PMFS_INODE_NODUMP, FS_NODUMP_FL, FS_XFLAG_NODUMP},
	{PMFS_INODE_NOATIME, FS_NOATIME_FL, FS_XFLAG_NOATIME},
};

static uint32_t flags_to(uint32_t inode, bool x)
{
	uint32_t out = 0;

	for (size_t i = 0; i < sizeof(flag_map) / sizeof(flag_map[0]); i++)
		if (inode & flag_map[i].inode)
			out |= x ? flag_map[i].xioc : flag_map[i].ioc;
	return out;
}

/* -EOPNOTSUPP: one that we have not. */
static int flags_from(uint32_t from, bool x, uint32_t *inode)
{
	*inode = 0;
	for (size_t i = 0; i < sizeof(flag_map) / sizeof(flag_map[0]); i++) {
		const uint32_t flag = x ? flag_map[i].xioc : flag_map[i].ioc;

		if (from & flag)
			*inode |= flag_map[i].inode;
		from &= ~flag;
	}
	return from ? -EOPNOTSUPP : 0;
}

/* The answer of that size; the kernel asks with 4 bytes, programs on older ones with a long. */
static void get_flags(fuse_req_t req, uint64_t id, bool x, size_t out_size)
{
	struct front *fr = front_of(req);
	union {
		uint32_t flags;
		struct fsxattr x;
		uint64_t room;
	} out = {0};
	struct fs_attr a;
	int rc;

	rc = out_size > sizeof(out) || out_size < sizeof(out.flags) ? -EINVAL
								    : fs_getattr(fr->fs, id, &a);
	if (rc) {
		request_fail(req, OP_IOCTL, rc);
		return;
	}
	if (x)
		out.x.fsx_xflags = flags_to(a.flags, true);
	else
		out.flags = flags_to(a.flags, false);
	fuse_reply_ioctl(req, 0, &out, out_size);
}

static void set_flags(fuse_req_t req, fuse_ino_t ino, bool x, const void *in, size_t in_size)
{
	struct front *fr = front_of(req);
	const uint64_t id = node_of(fr, ino);
	struct fsxattr fsx = {0};
	uint32_t from, flags;
	int rc = 0;

	if (in_size < (x ? sizeof(fsx) : sizeof(from))) {
		rc = -EINVAL;
	} else if (x) {
		memcpy(&fsx, in, sizeof(fsx));
		from = fsx.fsx_xflags;
		if (fsx.fsx_projid || fsx.fsx_extsize || fsx.fsx_cowextsize)
			rc = -EOPNOTSUPP;
	} else {
		memcpy(&from, in, sizeof(from));
	}
	if (!rc)
		rc = flags_from(from, x, &flags);
	if (!rc && (flags & PMFS_INODE_IMMUTABLE)) {
		/* What has been written before must not be refused when the kernel gets round to it. */
		rc = fs_set_flags_cached(fr->fs, id, PMFS_INODE_USER, flags);
		if (!rc)
			notify_settle(fr->notify, ino);
	} else if (!rc) {
		rc = fs_set_flags(fr->fs, id, PMFS_INODE_USER, flags);
	}
	if (rc)
		request_fail(req, OP_IOCTL, rc);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg,
		     struct fuse_file_info *fi, unsigned int flags, const void *in, size_t in_size,
		     size_t out_size)
{
	struct front *fr = request_begin(req, OP_IOCTL);
	const uint64_t id = node_of(fr, ino);

	(void)arg;
	(void)fi;
	(void)flags;
	if (is_virtual(ino)) {
		request_refuse(req, -ENOTTY);
		return;
	}
	switch (cmd) {
	case FS_IOC_GETFLAGS:
		get_flags(req, id, false, out_size);
		break;
	case FS_IOC_FSGETXATTR:
		get_flags(req, id, true, out_size);
		break;
	case FS_IOC_SETFLAGS:
		set_flags(req, ino, false, in, in_size);
		break;
	case FS_IOC_FSSETXATTR:
		set_flags(req, ino, true, in, in_size);
		break;
	default:
		request_refuse(req, -ENOTTY);
	}
}

void ops_file(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->flush = op_flush;
	ops->release = op_release;
	ops->read = op_read;
	ops->write = op_write;
	ops->fsync = op_fsync;
	ops->fsyncdir = op_fsync;
	ops->fallocate = op_fallocate;
	ops->lseek = op_lseek;
	ops->copy_file_range = op_copy_file_range;
	ops->ioctl = op_ioctl;
}
