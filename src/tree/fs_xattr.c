/* SPDX-License-Identifier: BSD-2-Clause */
/* The calls of fs.h for extended attributes: which names there are, locks and transactions around
 * xattr.h. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/bits.h"
#include "tree/acl.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"
#include "tree/xattr.h"

/* Linux: a name that is too long is -ERANGE. */
static int attr_name_check(const char *name)
{
	static const char *const spaces[] = { "user.", "trusted.", "security." };

	if (strlen(name) > PMFS_NAME_MAX)
		return -ERANGE;
	if (acl_name(name))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
		const size_t len = strlen(spaces[i]);

		if (!strncmp(name, spaces[i], len))
			return name[len] ? 0 : -EINVAL;
	}
	return -EOPNOTSUPP;
}

ssize_t fs_getxattr(struct fs *fs, uint64_t id, const char *name, void *buf, size_t size)
{
	struct inode *in;
	ssize_t rc;

	rc = attr_name_check(name);
	if (rc)
		return rc;
	rc = inode_get(fs, id, &in);
	if (rc)
		return rc;
	rw_rdlock(&in->lock);
	rc = strcmp(name, FS_RINGLOG_END) ? xattr_get(in, name, buf, size)
					  : ringlog_end(in, buf, size);
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return rc;
}

ssize_t fs_listxattr(struct fs *fs, uint64_t id, char *buf, size_t size)
{
	struct inode *in;
	ssize_t rc;

	rc = inode_get(fs, id, &in);
	if (rc)
		return rc;
	rw_rdlock(&in->lock);
	rc = xattr_list(in, buf, size);
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return rc;
}

struct attr_change {
	const char *name;
	const void *value;
	size_t len;
	int flags;
	bool remove;
};

/* acl.h: A1 and A2 */
static int acl_set(struct txn *tx, struct inode *in, const struct attr_change *ch)
{
	bool same = false;
	uint32_t mode;
	int rc;

	if (!strcmp(ch->name, ACL_DEFAULT))
		return xattr_set(tx, in, ch->name, ch->value, ch->len, 0);
	mode = acl_to_mode(ch->value, ch->len, in->mode, &same);
	if (!same)
		rc = xattr_set(tx, in, ch->name, ch->value, ch->len, 0);
	else
		rc = xattr_remove(tx, in, ch->name);
	if (rc && rc != -ENODATA)
		return rc;
	in->mode = mode;
	if (ch->flags & FS_XATTR_KILL_SGID)
		in->mode &= ~(uint32_t)S_ISGID;
	return 0;
}

static int acl_change(struct txn *tx, struct inode *in, const struct attr_change *ch)
{
	int rc;

	if (!ch->remove)
		return acl_set(tx, in, ch);
	rc = xattr_remove(tx, in, ch->name);
	return rc == -ENODATA ? 0 : rc;
}

static int acl_change_check(const struct inode *in, const struct attr_change *ch)
{
	if (S_ISLNK(in->mode))
		return -EOPNOTSUPP;
	if (ch->remove)
		return 0;
	if (!strcmp(ch->name, ACL_DEFAULT) && !S_ISDIR(in->mode))
		return -EACCES;
	return acl_check(ch->value, ch->len);
}

/* Before it becomes a ring log. */
static int make_ringlog(struct fs *fs, struct inode *in, const struct attr_change *ch)
{
	uint64_t limit;
	int rc;

	if (!S_ISREG(in->mode))
		return -EINVAL;
	rc = ringlog_parse(ch->value, ch->len, &limit);
	return rc ? rc : ringlog_fit(fs, in, limit);
}

static int change_locked(struct fs *fs, struct inode *in, const struct attr_change *ch)
{
	const bool acl = acl_name(ch->name);
	const bool ringlog = !strcmp(ch->name, FS_RINGLOG);
	struct txn tx;
	int rc = 0, rc2;

	if (!strcmp(ch->name, FS_RINGLOG_CUT) || !strcmp(ch->name, FS_RINGLOG_END))
		return -EPERM;
	rc = inode_changeable(in, false);
	if (!rc && acl)
		rc = acl_change_check(in, ch);
	if (!rc && ringlog && !ch->remove)
		rc = make_ringlog(fs, in, ch);
	if (rc)
		return rc;
	rc = txn_begin(fs->st, &tx, ch->remove ? FRAME_FREEING : FRAME_NORMAL,
		       XATTR_COST + ITABLE_COST);
	if (rc)
		return rc;
	rc = itable_own(&tx, in);
	if (rc == 0) {
		if (acl)
			rc = acl_change(&tx, in, ch);
		else if (ch->remove)
			rc = xattr_remove(&tx, in, ch->name);
		else
			rc = xattr_set(&tx, in, ch->name, ch->value, ch->len, ch->flags);
		if (rc == 0)
			now(&in->ctime);
		if (rc == 0 && ringlog)
			in->flags = ch->remove ? in->flags & ~PMFS_INODE_RINGLOG
					       : in->flags | PMFS_INODE_RINGLOG;
		rc2 = itable_store(&tx, in);
		rc = rc ? rc : rc2;
	}
	txn_end(&tx);
	return rc;
}

static int change(struct fs *fs, uint64_t id, const struct attr_change *ch)
{
	struct inode *in;
	int rc;

	rc = attr_name_check(ch->name);
	if (rc)
		return rc;
	rc = inode_get_writable(fs, id, &in);
	if (rc)
		return rc;
	rw_wrlock(&in->lock);
	rc = change_locked(fs, in, ch);
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return rc;
}

int fs_setxattr(struct fs *fs, uint64_t id, const char *name, const void *value, size_t len,
		int flags)
{
	const struct attr_change ch = { .name = name, .value = value, .len = len, .flags = flags };

	if (flags & ~(XATTR_CREATE | XATTR_REPLACE | FS_XATTR_KILL_SGID))
		return -EINVAL;
	return change(fs, id, &ch);
}

int fs_removexattr(struct fs *fs, uint64_t id, const char *name)
{
	const struct attr_change ch = { .name = name, .remove = true };

	return change(fs, id, &ch);
}
