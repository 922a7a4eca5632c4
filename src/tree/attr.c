/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tree/acl.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"
#include "tree/xattr.h"

#define CAPABILITY "security.capability"
#define SECTORS_PER_PAGE (PMFS_PAGE_SIZE / 512)

void now(struct timespec *ts)
{
	clock_gettime(CLOCK_REALTIME, ts);
}

void inode_attr(const struct inode *in, struct fs_attr *out)
{
	const uint64_t id = NODE_ID(in->vol->id, in->ino);

	memset(out, 0, sizeof(*out));
	out->id = id;
	out->ino = in->vol == in->vol->fs->live ? in->ino : id;
	out->generation = in->generation;
	out->mode = in->mode;
	out->nlink = in->nlink;
	out->uid = in->uid;
	out->gid = in->gid;
	out->rdev = in->rdev;
	out->size = in->size;
	out->blocks = in->pages * SECTORS_PER_PAGE;
	out->atime = in->atime;
	out->mtime = in->mtime;
	out->ctime = in->ctime;
	out->btime = in->btime;
	out->flags = in->flags & PMFS_INODE_USER;
}

int inode_changeable(const struct inode *in, bool adding)
{
	const uint32_t fixed = PMFS_INODE_IMMUTABLE | (adding ? 0 : PMFS_INODE_APPEND);

	return in->flags & fixed ? -EPERM : 0;
}

int inode_get_writable(struct fs *fs, uint64_t id, struct inode **out)
{
	struct inode *in;
	int rc;

	rc = inode_get(fs, id, &in);
	if (rc)
		return rc;
	if (fs->read_only || !volume_writable(in->vol)) {
		inode_put(fs, in);
		return -EROFS;
	}
	*out = in;
	return 0;
}

/* ------------------------------------------------------------------ privileges */

static bool mode_has_priv(uint32_t mode)
{
	return (mode & S_ISUID) || ((mode & S_ISGID) && (mode & S_IXGRP));
}

static bool has_capability(struct inode *in)
{
	return in->xattr_size && xattr_get(in, CAPABILITY, NULL, 0) >= 0;
}

uint64_t inode_kill_cost(struct inode *in)
{
	return has_capability(in) ? XATTR_COST : 0;
}

int inode_kill_priv(struct txn *tx, struct inode *in)
{
	if (S_ISDIR(in->mode))
		return 0;
	if (mode_has_priv(in->mode))
		in->mode &= ~(uint32_t)(S_ISUID | (in->mode & S_IXGRP ? S_ISGID : 0));
	return has_capability(in) ? xattr_remove(tx, in, CAPABILITY) : 0;
}

/* ------------------------------------------------------------------ calls of fs.h */

int fs_getattr(struct fs *fs, uint64_t id, struct fs_attr *out)
{
	struct inode *in;
	int rc;

	rc = inode_get(fs, id, &in);
	if (rc)
		return rc;
	rw_rdlock(&in->lock);
	if (in->mode)
		inode_attr(in, out);
	else
		rc = -ESTALE;
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return rc;
}

static bool time_valid(const struct timespec *ts)
{
	return ts->tv_nsec >= 0 && ts->tv_nsec < 1000000000L;
}

static int setattr_check(const struct inode *in, unsigned mask, const struct fs_setattr *set)
{
	const unsigned now_bits = FS_SET_ATIME_NOW | FS_SET_MTIME_NOW;
	const bool late = in->settling && !(mask & ~(unsigned)(FS_SET_MTIME | FS_SET_CTIME));

	if (!in->mode)
		return -ESTALE;
	/* "Now" is what anybody who may write can have. */
	if (!late && inode_changeable(in, (mask & now_bits) && !(mask & ~(now_bits | FS_SET_CTIME))))
		return -EPERM;
	if ((mask & FS_SET_SIZE) && !S_ISREG(in->mode))
		return S_ISDIR(in->mode) ? -EISDIR : -EINVAL;
	if (((mask & FS_SET_ATIME) && !time_valid(&set->atime)) ||
	    ((mask & FS_SET_MTIME) && !time_valid(&set->mtime)) ||
	    ((mask & FS_SET_CTIME) && !time_valid(&set->ctime)))
		return -EINVAL;
	return 0;
}

static void setattr_apply(struct inode *in, unsigned mask, const struct fs_setattr *set)
{
	struct timespec ts;

	now(&ts);
	if (mask & FS_SET_MODE)
		in->mode = (in->mode & S_IFMT) | (set->mode & 07777);
	if (mask & FS_SET_UID)
		in->uid = set->uid;
	if (mask & FS_SET_GID)
		in->gid = set->gid;
	if (mask & FS_SET_ATIME_NOW)
		in->atime = ts;
	else if (mask & FS_SET_ATIME)
		in->atime = set->atime;
	if (mask & FS_SET_MTIME_NOW)
		in->mtime = ts;
	else if (mask & FS_SET_MTIME)
		in->mtime = set->mtime;
	in->ctime = mask & FS_SET_CTIME ? set->ctime : ts;
}

static bool has_acl(struct inode *in)
{
	return in->xattr_size && xattr_get(in, ACL_ACCESS, NULL, 0) >= 0;
}

/* acl.h: A1.  The mode is the new one. */
static int chmod_acl(struct txn *tx, struct inode *in)
{
	ssize_t len = xattr_get(in, ACL_ACCESS, NULL, 0);
	void *acl;
	int rc;

	if (len <= 0)
		return len == -ENODATA ? 0 : (int)len;
	acl = malloc((size_t)len);
	if (!acl)
		return -ENOMEM;
	len = xattr_get(in, ACL_ACCESS, acl, (size_t)len);
	rc = len < 0 ? (int)len : acl_check(acl, (size_t)len) ? -EUCLEAN : 0;
	if (!rc) {
		acl_chmod(acl, (size_t)len, in->mode);
		rc = xattr_set(tx, in, ACL_ACCESS, acl, (size_t)len, 0);
	}
	free(acl);
	return rc;
}

static uint64_t setattr_cost(struct inode *in, unsigned mask)
{
	return ITABLE_COST + (mask & FS_SET_KILL_PRIV ? inode_kill_cost(in) : 0) +
	       ((mask & FS_SET_MODE) && has_acl(in) ? XATTR_COST : 0);
}

/* Locks: the inode's, exclusively. */
static int setattr_locked(struct fs *fs, struct inode *in, unsigned mask,
			  const struct fs_setattr *set)
{
	struct txn tx;
	int rc;

	rc = setattr_check(in, mask, set);
	if (!rc && (mask & FS_SET_SIZE))
		rc = file_set_size(fs, in, set->size);
	/* A new size has stamped the times already. */
	if (rc || !(mask & ~(unsigned)FS_SET_SIZE))
		return rc;
	rc = txn_begin(fs->st, &tx, FRAME_UPKEEP, setattr_cost(in, mask));
	if (rc)
		return rc;
	rc = itable_own(&tx, in);
	if (!rc) {
		setattr_apply(in, mask, set);
		if (mask & FS_SET_KILL_PRIV)
			rc = inode_kill_priv(&tx, in);
		if (!rc && (mask & FS_SET_MODE))
			rc = chmod_acl(&tx, in);
		if (!rc)
			rc = itable_store(&tx, in);
	}
	txn_end(&tx);
	return rc;
}

int fs_setattr(struct fs *fs, uint64_t id, unsigned mask, const struct fs_setattr *set,
	       struct fs_attr *out)
{
	struct inode *in;
	int rc;

	rc = inode_get_writable(fs, id, &in);
	if (rc)
		return rc;
	rw_wrlock(&in->lock);
	rc = setattr_locked(fs, in, mask, set);
	if (!rc && out)
		inode_attr(in, out);
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return rc;
}

/* Locks: the inode's, exclusively. */
static int set_flags_locked(struct fs *fs, struct inode *in, uint32_t mask, uint32_t flags)
{
	struct txn tx;
	int rc;

	if (!in->mode)
		return -ESTALE;
	if (!S_ISREG(in->mode) && !S_ISDIR(in->mode))
		return -EOPNOTSUPP;
	rc = txn_begin(fs->st, &tx, FRAME_UPKEEP, ITABLE_COST);
	if (rc)
		return rc;
	in->flags = (in->flags & ~mask) | (flags & mask);
	now(&in->ctime);
	rc = itable_store(&tx, in);
	txn_end(&tx);
	return rc;
}

static int set_flags(struct fs *fs, uint64_t id, uint32_t mask, uint32_t flags, bool cached)
{
	struct inode *in;
	int rc;

	if (mask & ~PMFS_INODE_USER)
		return -EINVAL;
	rc = inode_get_writable(fs, id, &in);
	if (rc)
		return rc;
	rw_wrlock(&in->lock);
	rc = set_flags_locked(fs, in, mask, flags);
	if (!rc && cached)
		in->settling++;
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return rc;
}

int fs_set_flags(struct fs *fs, uint64_t id, uint32_t mask, uint32_t flags)
{
	return set_flags(fs, id, mask, flags, false);
}

int fs_set_flags_cached(struct fs *fs, uint64_t id, uint32_t mask, uint32_t flags)
{
	return set_flags(fs, id, mask, flags, true);
}

void fs_flags_settled(struct fs *fs, uint64_t id)
{
	struct inode *in;

	/* One that nobody knows any more has nothing that could arrive. */
	if (inode_get(fs, id, &in))
		return;
	rw_wrlock(&in->lock);
	if (in->settling)
		in->settling--;
	rw_unlock(&in->lock);
	inode_put(fs, in);
}
