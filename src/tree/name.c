/* SPDX-License-Identifier: BSD-2-Clause */
/* Names: looking them up, making and removing them (fs.h).  Moving them is rename.c. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "tree/acl.h"
#include "tree/name_lock.h"
#include "tree/xattr.h"

/* The most frames that each operation takes. */
#define CREATE_COST (DIR_COST + 2 * ITABLE_COST)
#define LINK_COST (DIR_COST + 2 * ITABLE_COST + ORPHAN_COST)
#define REMOVE_COST (DIR_COST + 2 * ITABLE_COST + ORPHAN_COST)
static_assert(REMOVE_COST <= 96, "removing works on a full image: frame.h promises that much");

/* The answer of a call that names an inode: its attributes, and a lookup. */
static void answer(struct fs *fs, struct inode *in, struct fs_attr *out)
{
	rw_rdlock(&in->lock);
	inode_attr(in, out);
	rw_unlock(&in->lock);
	inode_add_lookup(fs, in);
}

/* ------------------------------------------------------------------ looking up */

static int lookup_locked(struct fs *fs, struct inode *dir, const char *name, size_t len,
			 struct inode **out)
{
	const unsigned dots = name_dots(name, len);
	struct dir_entry de;
	int rc;

	/* By "." a handle finds its inode again, of whatever kind; one without a name is gone. */
	if (dots == 1)
		return dir->nlink ? inode_get(fs, NODE_ID(dir->vol->id, dir->ino), out) : -ENOENT;
	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	if (dots == 2 && dir->ino == PMFS_INO_ROOT)
		return inode_get(fs, NODE_ID(dir->vol->id, dir->ino), out);
	/* The parent of a removed directory may be gone, too, and its number be another's. */
	if (dots == 2)
		return dir->nlink ? inode_get(fs, NODE_ID(dir->vol->id, dir->parent), out)
				  : -ENOENT;
	rc = entry_find(dir, name, len, &de);
	if (rc)
		return rc;
	return entry_get(fs, dir, &de, out);
}

int fs_lookup(struct fs *fs, uint64_t id, const char *name, size_t len, struct fs_attr *out)
{
	struct inode *dir, *in = NULL;
	int rc;

	rc = inode_get(fs, id, &dir);
	if (rc)
		return rc;
	rw_rdlock(&dir->lock);
	rc = lookup_locked(fs, dir, name, len, &in);
	rw_unlock(&dir->lock);
	if (rc == 0) {
		answer(fs, in, out);
		inode_put(fs, in);
	}
	inode_put(fs, dir);
	return rc;
}

void fs_forget(struct fs *fs, uint64_t id, uint64_t n)
{
	inode_forget(fs, id, n);
}

int fs_remember(struct fs *fs, uint64_t id)
{
	struct inode *in;
	int rc = inode_get(fs, id, &in);

	if (rc == 0) {
		inode_add_lookup(fs, in);
		inode_put(fs, in);
	}
	return rc;
}

ssize_t fs_readlink(struct fs *fs, uint64_t id, char *buf, size_t size)
{
	struct inode *in;
	ssize_t rc;

	rc = inode_get(fs, id, &in);
	if (rc)
		return rc;
	rw_rdlock(&in->lock);
	rc = S_ISLNK(in->mode) ? file_get_contents(in, buf, size) : -EINVAL;
	rw_unlock(&in->lock);
	inode_put(fs, in);
	return rc;
}

/* ------------------------------------------------------------------ making */

void creation_free(struct creation *cr)
{
	free(cr->access_acl);
	free(cr->default_acl);
	cr->access_acl = cr->default_acl = NULL;
}

/* A default list of the directory takes the place of the umask (acl.h: A3). */
static int inherit_acl(struct creation *cr, struct inode *dir)
{
	ssize_t len = dir->xattr_size ? xattr_get(dir, ACL_DEFAULT, NULL, 0) : -ENODATA;
	bool same;

	if (len == -ENODATA) {
		cr->mode &= ~cr->umask;
		return 0;
	}
	if (len <= 0)
		return len ? (int)len : -EUCLEAN;
	cr->acl_len = (size_t)len;
	cr->access_acl = malloc(cr->acl_len);
	cr->default_acl = malloc(cr->acl_len);
	if (!cr->access_acl || !cr->default_acl)
		return -ENOMEM;
	len = xattr_get(dir, ACL_DEFAULT, cr->default_acl, cr->acl_len);
	if (len < 0)
		return (int)len;
	if (acl_check(cr->default_acl, cr->acl_len))
		return -EUCLEAN;
	memcpy(cr->access_acl, cr->default_acl, cr->acl_len);
	acl_create(cr->access_acl, cr->acl_len, &cr->mode, &same);
	if (same) {
		free(cr->access_acl);
		cr->access_acl = NULL;
	}
	if (!S_ISDIR(cr->mode)) {
		free(cr->default_acl);
		cr->default_acl = NULL;
	}
	return 0;
}

int creation_inherit(struct creation *cr, struct inode *dir)
{
	if (dir->mode & S_ISGID) {
		cr->gid = dir->gid;
		if (S_ISDIR(cr->mode))
			cr->mode |= S_ISGID;
	}
	cr->flags = dir->flags & PMFS_INODE_INHERITED;
	return S_ISLNK(cr->mode) ? 0 : inherit_acl(cr, dir);
}

uint64_t creation_cost(const struct creation *cr)
{
	return (cr->target ? FILE_CONTENTS_COST : 0) + (cr->access_acl ? XATTR_COST : 0) +
	       (cr->default_acl ? XATTR_COST : 0);
}

/* Give back the number of an inode that nobody has seen. */
static void number_undo(struct txn *tx, struct volume *vol, uint64_t ino, uint64_t generation)
{
	/* A number goes back by way of a record in use. */
	struct inode tmp = { .vol = vol, .ino = ino, .generation = generation, .mode = S_IFREG };

	if (itable_store(tx, &tmp) == 0)
		itable_free(tx, vol, ino);
}

void inode_undo(struct fs *fs, struct txn *tx, struct inode *in)
{
	struct volume *vol = in->vol;
	const uint64_t ino = in->ino, generation = in->generation;

	if (in->data.root != VPN_NONE)
		ptab_punch(tx, &in->data, NULL, 0, PGNO_END, UINT64_MAX, NULL);
	if (in->xattr.root != VPN_NONE)
		ptab_punch(tx, &in->xattr, NULL, 0, PGNO_END, UINT64_MAX, NULL);
	/* It must be gone from memory before its number is free. */
	in->mode = 0;
	inode_put(fs, in);
	number_undo(tx, vol, ino, generation);
}

int inode_create(struct fs *fs, struct txn *tx, struct volume *vol, const struct creation *cr,
		 uint32_t nlink, uint64_t parent, struct inode **out)
{
	uint64_t ino, generation;
	struct inode *in;
	int rc;

	rc = itable_alloc(tx, vol, &ino, &generation);
	if (rc)
		return rc;
	rc = inode_new(fs, vol, ino, &in);
	if (rc) {
		number_undo(tx, vol, ino, generation);
		return rc;
	}
	in->generation = generation;
	in->mode = cr->mode;
	in->flags |= cr->flags;
	in->uid = cr->uid;
	in->gid = cr->gid;
	in->rdev = cr->rdev;
	in->nlink = nlink;
	in->parent = parent;
	now(&in->btime);
	in->atime = in->mtime = in->ctime = in->btime;
	if (cr->target)
		rc = file_set_contents(tx, in, cr->target, strlen(cr->target));
	if (rc == 0 && cr->access_acl)
		rc = xattr_set(tx, in, ACL_ACCESS, cr->access_acl, cr->acl_len, 0);
	if (rc == 0 && cr->default_acl)
		rc = xattr_set(tx, in, ACL_DEFAULT, cr->default_acl, cr->acl_len, 0);
	if (rc == 0)
		rc = itable_store(tx, in);
	if (rc) {
		inode_undo(fs, tx, in);
		return rc;
	}
	*out = in;
	return 0;
}

/* Locks: dir, exclusively. */
static int create_locked(struct fs *fs, struct inode *dir, const char *name, size_t len,
			 struct creation *cr, struct inode **out)
{
	const bool is_dir = S_ISDIR(cr->mode);
	struct dir_entry de;
	struct inode *in;
	struct txn tx;
	int rc, rc2;

	rc = dir_usable(dir);
	if (rc == 0) {
		rc = dir_find(dir, name, len, &de);
		rc = rc == 0 ? -EEXIST : rc == -ENOENT ? 0 : rc;
	}
	if (rc == 0 && is_dir && dir->nlink >= LINKS_MAX)
		rc = -EMLINK;
	if (rc == 0)
		rc = inode_changeable(dir, true);
	if (rc == 0)
		rc = creation_inherit(cr, dir);
	if (rc)
		return rc;
	rc = txn_begin(fs->st, &tx, FRAME_NORMAL, CREATE_COST + creation_cost(cr));
	if (rc)
		return rc;
	rc = itable_own(&tx, dir);
	if (rc == 0)
		rc = inode_create(fs, &tx, dir->vol, cr, is_dir ? 2 : 1, is_dir ? dir->ino : 0,
				  &in);
	if (rc)
		goto out;
	rc = dir_insert(&tx, dir, name, len, in->ino, (uint8_t)IFTODT(cr->mode));
	if (rc == 0) {
		dir->nlink += is_dir;
		dir->mtime = dir->ctime = in->btime;
	}
	rc2 = itable_store(&tx, dir);
	if (rc) {
		inode_undo(fs, &tx, in);
		goto out;
	}
	/* The name is there: a failing host is the store's to report from now on. */
	rc = rc2;
	if (rc)
		inode_put(fs, in);
	else
		*out = in;
out:
	txn_end(&tx);
	return rc;
}

static int create(struct fs *fs, uint64_t dir_id, const char *name, size_t len, struct creation *cr,
		  struct fs_attr *out)
{
	struct inode *dir, *in;
	int rc;

	rc = name_check(name, len);
	if (rc)
		return rc;
	rc = inode_get_writable(fs, dir_id, &dir);
	if (rc)
		return rc;
	rw_wrlock(&dir->lock);
	rc = name_dots(name, len) ? -EEXIST : create_locked(fs, dir, name, len, cr, &in);
	rw_unlock(&dir->lock);
	creation_free(cr);
	if (rc == 0) {
		answer(fs, in, out);
		inode_put(fs, in);
	}
	inode_put(fs, dir);
	return rc;
}

/* As in fs.h: FS_UMASK(). */
static uint32_t umask_of(uint32_t mode)
{
	return mode >> FS_UMASK_SHIFT & 0777;
}

static int mode_check(uint32_t *mode, uint32_t rdev)
{
	if (!(*mode & S_IFMT))
		*mode |= S_IFREG;
	*mode &= S_IFMT | 07777;
	if (S_ISREG(*mode) || S_ISFIFO(*mode) || S_ISSOCK(*mode))
		return 0;
	if (!S_ISCHR(*mode) && !S_ISBLK(*mode))
		return -EINVAL;
	/* An image has 12 and 20 bits for the two parts, as the kernel has. */
	return major(rdev) >> 12 || minor(rdev) >> 20 ? -EINVAL : 0;
}

int fs_mknod(struct fs *fs, uint64_t dir, const char *name, size_t len, uint32_t mode,
	     uint32_t rdev, const struct fs_cred *cred, struct fs_attr *out)
{
	struct creation cr = {
		.mode = mode, .umask = umask_of(mode), .uid = cred->uid, .gid = cred->gid};
	int rc = mode_check(&cr.mode, rdev);

	if (rc)
		return rc;
	if (S_ISCHR(cr.mode) || S_ISBLK(cr.mode))
		cr.rdev = rdev;
	return create(fs, dir, name, len, &cr, out);
}

int fs_mkdir(struct fs *fs, uint64_t dir, const char *name, size_t len, uint32_t mode,
	     const struct fs_cred *cred, struct fs_attr *out)
{
	struct creation cr = {.mode = S_IFDIR | (mode & 07777),
			      .umask = umask_of(mode),
			      .uid = cred->uid,
			      .gid = cred->gid};

	return create(fs, dir, name, len, &cr, out);
}

int fs_symlink(struct fs *fs, uint64_t dir, const char *name, size_t len, const char *target,
	       const struct fs_cred *cred, struct fs_attr *out)
{
	struct creation cr = { .mode = S_IFLNK | 0777, .uid = cred->uid, .gid = cred->gid,
			       .target = target };

	if (!*target)
		return -ENOENT;
	if (strlen(target) >= PATH_MAX)
		return -ENAMETOOLONG;
	return create(fs, dir, name, len, &cr, out);
}

int fs_tmpfile(struct fs *fs, uint64_t dir_id, uint32_t mode, const struct fs_cred *cred,
	       struct fs_attr *out)
{
	struct creation cr = {.mode = S_IFREG | (mode & 07777),
			      .umask = umask_of(mode),
			      .uid = cred->uid,
			      .gid = cred->gid};
	struct inode *dir, *orphans, *in;
	struct txn tx;
	int rc;

	rc = inode_get_writable(fs, dir_id, &dir);
	if (rc)
		return rc;
	rw_rdlock(&dir->lock);
	rc = dir_usable(dir);
	if (rc == 0)
		rc = inode_changeable(dir, true);
	if (rc == 0)
		rc = creation_inherit(&cr, dir);
	rw_unlock(&dir->lock);
	inode_put(fs, dir);
	if (rc == 0)
		rc = orphans_get(fs, &orphans);
	if (rc)
		goto out_acl;
	rw_wrlock(&orphans->lock);
	rc = txn_begin(fs->st, &tx, FRAME_NORMAL, ITABLE_COST + ORPHAN_COST + creation_cost(&cr));
	if (rc)
		goto out;
	rc = inode_create(fs, &tx, fs->live, &cr, 0, 0, &in);
	if (rc == 0) {
		rc = orphan_add(&tx, orphans, in);
		if (rc)
			inode_undo(fs, &tx, in);
	}
	txn_end(&tx);
out:
	rw_unlock(&orphans->lock);
	if (rc == 0) {
		answer(fs, in, out);
		inode_put(fs, in);
	}
	inode_put(fs, orphans);
out_acl:
	creation_free(&cr);
	return rc;
}

/* Locks: ls has dir and in. */
static int link_locked(struct fs *fs, struct inode *dir, const char *name, size_t len,
		       struct inode *in, struct inode *orphans, struct lockset *ls)
{
	struct dir_entry de;
	struct txn tx;
	int rc, rc2;

	if (!in->mode)
		return -ESTALE;
	if (S_ISDIR(in->mode))
		return -EPERM;
	if (in->nlink >= LINKS_MAX)
		return -EMLINK;
	rc = dir_usable(dir);
	if (rc)
		return rc;
	rc = dir_find(dir, name, len, &de);
	if (rc != -ENOENT)
		return rc ? rc : -EEXIST;
	rc = inode_changeable(dir, true);
	if (rc == 0)
		rc = inode_changeable(in, false);
	if (rc)
		return rc;
	if (in->nlink == 0)
		lockset_extend(ls, orphans);
	rc = txn_begin(fs->st, &tx, FRAME_NORMAL, LINK_COST);
	if (rc)
		return rc;
	rc = itable_own(&tx, dir);
	if (rc)
		goto out;
	rc = dir_insert(&tx, dir, name, len, in->ino, (uint8_t)IFTODT(in->mode));
	if (rc == 0) {
		if (in->nlink++ == 0)
			rc = orphan_remove(&tx, orphans, in->ino);
		now(&in->ctime);
		dir->mtime = dir->ctime = in->ctime;
		rc2 = itable_store(&tx, in);
		rc = rc ? rc : rc2;
	}
	rc2 = itable_store(&tx, dir);
	rc = rc ? rc : rc2;
out:
	txn_end(&tx);
	return rc;
}

int fs_link(struct fs *fs, uint64_t id, uint64_t dir_id, const char *name, size_t len,
	    struct fs_attr *out)
{
	struct lockset ls = { .count = 0 };
	struct inode *dir, *in, *orphans;
	int rc;

	rc = name_check(name, len);
	if (rc)
		return rc;
	if (name_dots(name, len))
		return -EEXIST;
	if (NODE_VOLUME(id) != NODE_VOLUME(dir_id))
		return -EXDEV;
	rc = inode_get_writable(fs, dir_id, &dir);
	if (rc)
		return rc;
	rc = inode_get_writable(fs, id, &in);
	if (rc)
		goto out_dir;
	rc = orphans_get(fs, &orphans);
	if (rc)
		goto out_in;
	lockset_add(&ls, dir);
	lockset_add(&ls, in);
	lockset_lock(&ls);
	rc = link_locked(fs, dir, name, len, in, orphans, &ls);
	lockset_unlock(&ls);
	if (rc == 0)
		answer(fs, in, out);
	inode_put(fs, orphans);
out_in:
	inode_put(fs, in);
out_dir:
	inode_put(fs, dir);
	return rc;
}

/* ------------------------------------------------------------------ removing */

/* Locks: the name's directory and what it names, which is there. */
static int remove_locked(struct names *n, struct inode *orphans, bool want_dir)
{
	struct inode *dir = n->at[0].dir, *in = n->at[0].in;
	const bool is_dir = S_ISDIR(in->mode);
	struct txn tx;
	int rc, rc2;

	if (want_dir && !is_dir)
		return -ENOTDIR;
	if (!want_dir && is_dir)
		return -EISDIR;
	rc = name_removable(dir, in);
	if (rc)
		return rc;
	if (is_dir && in->size)
		return -ENOTEMPTY;
	if (is_dir || in->nlink == 1)
		lockset_extend(&n->ls, orphans);
	rc = txn_begin(n->fs->st, &tx, FRAME_FREEING, REMOVE_COST);
	if (rc)
		return rc;
	rc = itable_own(&tx, dir);
	if (rc)
		goto out;
	rc = dir_remove(&tx, dir, n->at[0].name, n->at[0].len, NULL);
	if (rc == 0) {
		in->nlink = is_dir ? 0 : in->nlink - 1;
		dir->nlink -= is_dir;
		now(&in->ctime);
		dir->mtime = dir->ctime = in->ctime;
		if (in->nlink == 0)
			rc = orphan_add(&tx, orphans, in);
		rc2 = itable_store(&tx, in);
		rc = rc ? rc : rc2;
	}
	rc2 = itable_store(&tx, dir);
	rc = rc ? rc : rc2;
out:
	txn_end(&tx);
	return rc;
}

static int remove_name(struct fs *fs, uint64_t dir_id, const char *name, size_t len, bool want_dir)
{
	struct names n = { .fs = fs, .count = 1 };
	struct inode *dir, *orphans;
	int rc;

	rc = inode_get_writable(fs, dir_id, &dir);
	if (rc)
		return rc;
	rc = orphans_get(fs, &orphans);
	if (rc)
		goto out;
	n.at[0].dir = dir;
	n.at[0].name = name;
	n.at[0].len = len;
	rc = names_lock(&n);
	if (rc == 0) {
		rc = n.at[0].in ? remove_locked(&n, orphans, want_dir) : -ENOENT;
		names_put(&n);
	}
	inode_put(fs, orphans);
out:
	inode_put(fs, dir);
	return rc;
}

int fs_unlink(struct fs *fs, uint64_t dir, const char *name, size_t len)
{
	int rc = name_check(name, len);

	if (rc)
		return rc;
	return name_dots(name, len) ? -EISDIR : remove_name(fs, dir, name, len, false);
}

int fs_rmdir(struct fs *fs, uint64_t dir, const char *name, size_t len)
{
	const unsigned dots = name_dots(name, len);
	int rc = name_check(name, len);

	if (rc)
		return rc;
	if (dots)
		return dots == 1 ? -EINVAL : -ENOTEMPTY;
	return remove_name(fs, dir, name, len, true);
}

/* ------------------------------------------------------------------ reading directories */

/* Entries are gathered under the directory's lock and told without it, so that the receiver may
 * look at what they name. */
#define BATCH_BYTES 16384u

struct batch {
	size_t used;
	uint8_t buf[BATCH_BYTES];
};

struct batch_entry {
	uint64_t ino, cookie;
	uint8_t type, name_len;
	char name[]; /* zero terminated */
};

static int batch_add(void *arg, const struct dir_entry *de)
{
	const size_t head = offsetof(struct batch_entry, name);
	struct batch *b = arg;
	struct batch_entry e = { .ino = de->ino, .cookie = de->cookie, .type = de->type,
				 .name_len = de->name_len };

	if (sizeof(b->buf) - b->used < head + de->name_len + 1u)
		return 1;
	/* Packed one behind the other: read back with memcpy(), too. */
	memcpy(b->buf + b->used, &e, head);
	memcpy(b->buf + b->used + head, de->name, de->name_len + 1u);
	b->used += head + de->name_len + 1u;
	return 0;
}

static uint64_t shown_ino(const struct volume *vol, uint64_t ino)
{
	return volume_writable(vol) ? ino : NODE_ID(vol->id, ino);
}

static int batch_tell(const struct batch *b, const struct volume *vol, uint64_t *cookie,
		      int (*fn)(void *arg, const struct fs_dirent *de), void *arg)
{
	const size_t head = offsetof(struct batch_entry, name);
	struct batch_entry e;

	for (size_t at = 0; at < b->used; at += head + e.name_len + 1u) {
		struct fs_dirent de;
		int rc;

		memcpy(&e, b->buf + at, head);
		de = (struct fs_dirent){ .name = (const char *)b->buf + at + head,
					 .name_len = e.name_len,
					 .ino = shown_ino(vol, e.ino),
					 .id = NODE_ID(vol->id, e.ino),
					 .type = e.type,
					 .next = e.cookie + 1 };
		rc = fn(arg, &de);
		if (rc)
			return rc;
		*cookie = de.next;
	}
	return 0;
}

static int tell_dots(const struct inode *dir, uint64_t parent, uint64_t *cookie,
		     int (*fn)(void *arg, const struct fs_dirent *de), void *arg)
{
	const bool root = dir->ino == PMFS_INO_ROOT;

	for (; *cookie < 2; ++*cookie) {
		const uint64_t ino = *cookie && !root ? parent : dir->ino;
		struct fs_dirent de = { .name = *cookie ? ".." : ".",
					.name_len = *cookie + 1,
					.type = DT_DIR,
					.ino = shown_ino(dir->vol, ino),
					.id = NODE_ID(dir->vol->id, ino),
					.next = *cookie + 1 };
		int rc;

		if (*cookie && root && !volume_writable(dir->vol))
			de.id = 0;
		rc = fn(arg, &de);
		if (rc)
			return rc;
	}
	return 0;
}

int fs_readdir(struct fs *fs, uint64_t id, uint64_t cookie,
	       int (*fn)(void *arg, const struct fs_dirent *de), void *arg)
{
	struct inode *dir;
	struct batch b;
	uint64_t parent;
	int rc, more;

	rc = inode_get(fs, id, &dir);
	if (rc)
		return rc;
	rw_rdlock(&dir->lock);
	parent = dir->parent;
	rc = S_ISDIR(dir->mode) ? 0 : -ENOTDIR;
	rw_unlock(&dir->lock);
	if (rc == 0)
		rc = tell_dots(dir, parent, &cookie, fn, arg);
	for (more = 1; rc == 0 && more > 0;) {
		b.used = 0;
		rw_rdlock(&dir->lock);
		more = dir_each(dir, cookie, batch_add, &b);
		rw_unlock(&dir->lock);
		/* What came before the damage is told all the same. */
		rc = batch_tell(&b, dir->vol, &cookie, fn, arg);
		if (rc == 0 && more < 0)
			rc = more;
	}
	inode_put(fs, dir);
	return rc;
}
