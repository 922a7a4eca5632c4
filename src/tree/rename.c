/* SPDX-License-Identifier: BSD-2-Clause */
/* Moving and exchanging names (fs.h). */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tree/name_lock.h"

/* Two directories change, and the orphan directory; then the records of what moves, of what is
 * replaced and of a whiteout. */
#define RENAME_COST (2 * (DIR_COST + ITABLE_COST) + 4 * ITABLE_COST + ORPHAN_COST)
static_assert(RENAME_COST <= 160, "it works on a full image: frame.h promises that much");

/*
 * Is `dir` the directory `top` or below it? 1, 0, error.  Locks: rename_lock, which keeps every
 * `parent` as it is; so those of the directories on the way up are read without their locks.
 */
static int is_below(struct fs *fs, const struct inode *dir, const struct inode *top)
{
	uint64_t ino = dir->ino, mark = 0, steps = 0, next_mark = 1;

	while (ino != top->ino) {
		struct inode *in;
		int rc;

		if (ino == PMFS_INO_ROOT || ino == atomic_load(&dir->vol->hidden))
			return 0;
		/* A ring of parents in a bad image: the mark moves ahead in growing steps until it
		 * lies on the ring. */
		if (ino == mark)
			return -EUCLEAN;
		if (++steps == next_mark) {
			mark = ino;
			next_mark *= 2;
		}
		rc = inode_get(fs, NODE_ID(dir->vol->id, ino), &in);
		if (rc)
			return rc == -ENOENT ? -EUCLEAN : rc;
		ino = in->parent;
		inode_put(fs, in);
	}
	return 1;
}

struct move {
	struct fs *fs;
	struct names names;
	struct inode *from, *to, *src, *dst; /* dst: NULL when the new name is free */
	struct inode *orphans;
	const struct fs_cred *whiteout; /* NULL: none is left behind */
	bool exchange, src_dir, dst_dir;
};

/* May this be done? */
static int move_check(struct move *m, unsigned flags)
{
	int rc;

	if (!m->src || (m->exchange && !m->dst))
		return -ENOENT;
	if (m->dst && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (m->src == m->dst)
		return 0;
	rc = name_removable(m->from, m->src);
	if (rc == 0)
		rc = m->dst ? name_removable(m->to, m->dst) : inode_changeable(m->to, true);
	if (rc)
		return rc;
	if (m->from != m->to) {
		rc = m->src_dir ? is_below(m->fs, m->to, m->src) : 0;
		if (rc == 0 && m->exchange && m->dst_dir)
			rc = is_below(m->fs, m->from, m->dst);
		if (rc)
			return rc < 0 ? rc : -EINVAL;
		if (m->src_dir && !m->dst_dir && m->to->nlink >= LINKS_MAX)
			return -EMLINK;
		if (m->exchange && m->dst_dir && !m->src_dir && m->from->nlink >= LINKS_MAX)
			return -EMLINK;
	}
	if (m->exchange || !m->dst)
		return 0;
	if (m->src_dir && !m->dst_dir)
		return -ENOTDIR;
	if (!m->src_dir && m->dst_dir)
		return -EISDIR;
	return m->dst_dir && m->dst->size ? -ENOTEMPTY : 0;
}

static int move_names(struct txn *tx, struct move *m, const struct inode *whiteout)
{
	const char *name = m->names.at[0].name, *new_name = m->names.at[1].name;
	const size_t len = m->names.at[0].len, new_len = m->names.at[1].len;
	const uint8_t type = (uint8_t)IFTODT(m->src->mode);
	int rc;

	rc = m->dst ? dir_replace(tx, m->to, new_name, new_len, m->src->ino, type)
		    : dir_insert(tx, m->to, new_name, new_len, m->src->ino, type);
	if (rc)
		return rc;
	if (m->exchange)
		return dir_replace(tx, m->from, name, len, m->dst->ino,
				   (uint8_t)IFTODT(m->dst->mode));
	if (whiteout)
		return dir_replace(tx, m->from, name, len, whiteout->ino, DT_CHR);
	return dir_remove(tx, m->from, name, len, NULL);
}

/* The names have moved; now the inodes, in memory. */
static void move_counts(struct move *m)
{
	struct timespec t;

	now(&t);
	m->from->mtime = m->from->ctime = m->to->mtime = m->to->ctime = t;
	m->src->ctime = t;
	if (m->src_dir) {
		m->from->nlink--;
		m->to->nlink++;
		if (m->from != m->to)
			m->src->parent = m->to->ino;
	}
	if (!m->dst)
		return;
	m->dst->ctime = t;
	if (m->dst_dir)
		m->to->nlink--;
	if (!m->exchange) {
		m->dst->nlink = m->dst_dir ? 0 : m->dst->nlink - 1;
	} else if (m->dst_dir) {
		m->from->nlink++;
		if (m->from != m->to)
			m->dst->parent = m->from->ino;
	}
}

static int move_run(struct move *m)
{
	struct inode *stored[] = { m->src, m->dst, m->from, m->from == m->to ? NULL : m->to };
	struct creation cr = {.mode = S_IFCHR};
	struct inode *whiteout = NULL;
	struct txn tx;
	int rc = 0, rc2;

	if (m->whiteout) {
		cr.uid = m->whiteout->uid;
		cr.gid = m->whiteout->gid;
		rc = creation_inherit(&cr, m->from);
	}
	if (rc == 0)
		rc = txn_begin(m->fs->st, &tx, FRAME_UPKEEP, RENAME_COST + creation_cost(&cr));
	if (rc)
		goto out_acl;
	rc = itable_own(&tx, m->from);
	if (rc == 0)
		rc = itable_own(&tx, m->to);
	if (rc == 0 && m->whiteout)
		rc = inode_create(m->fs, &tx, m->fs->live, &cr, 1, 0, &whiteout);
	if (rc)
		goto out;
	rc = move_names(&tx, m, whiteout);
	if (rc == 0) {
		move_counts(m);
		if (m->dst && m->dst->nlink == 0)
			rc = orphan_add(&tx, m->orphans, m->dst);
	}
	for (unsigned i = 0; i < sizeof(stored) / sizeof(stored[0]); i++) {
		rc2 = stored[i] ? itable_store(&tx, stored[i]) : 0;
		rc = rc ? rc : rc2;
	}
	/* Its name is there when the moving did not fail. */
	if (whiteout && rc)
		inode_undo(m->fs, &tx, whiteout);
	else if (whiteout)
		inode_put(m->fs, whiteout);
out:
	txn_end(&tx);
out_acl:
	creation_free(&cr);
	return rc;
}

/* Locks: all but the orphan directory. */
static int move_locked(struct move *m, unsigned flags)
{
	int rc;

	m->src = m->names.at[0].in;
	m->dst = m->names.at[1].in;
	m->src_dir = m->src && S_ISDIR(m->src->mode);
	m->dst_dir = m->dst && S_ISDIR(m->dst->mode);
	rc = move_check(m, flags);
	if (rc)
		return rc;
	/* Two names of one file: nothing happens, says POSIX. */
	if (m->src == m->dst)
		return 0;
	if (m->dst && !m->exchange && (m->dst_dir || m->dst->nlink == 1))
		lockset_extend(&m->names.ls, m->orphans);
	return move_run(m);
}

static int rename_check(const char *name, size_t len, const char *new_name, size_t new_len,
			unsigned flags)
{
	int rc;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	if ((flags & RENAME_NOREPLACE) && (flags & RENAME_EXCHANGE))
		return -EINVAL;
	rc = name_check(name, len);
	if (rc == 0)
		rc = name_check(new_name, new_len);
	if (rc)
		return rc;
	if (name_dots(name, len))
		return -EBUSY;
	if (name_dots(new_name, new_len))
		return flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	return 0;
}

static int rename_names(struct fs *fs, uint64_t dir, const char *name, size_t len,
			uint64_t new_dir, const char *new_name, size_t new_len, unsigned flags,
			const struct fs_cred *whiteout)
{
	struct move m = {.fs = fs, .exchange = flags & RENAME_EXCHANGE, .whiteout = whiteout};
	int rc;

	rc = rename_check(name, len, new_name, new_len, flags);
	if (rc)
		return rc;
	if (NODE_VOLUME(dir) != NODE_VOLUME(new_dir))
		return -EXDEV;
	rc = inode_get_writable(fs, dir, &m.from);
	if (rc)
		return rc;
	rc = inode_get_writable(fs, new_dir, &m.to);
	if (rc)
		goto out_from;
	rc = orphans_get(fs, &m.orphans);
	if (rc)
		goto out_to;
	m.names.fs = fs;
	m.names.count = 2;
	m.names.at[0].dir = m.from;
	m.names.at[0].name = name;
	m.names.at[0].len = len;
	m.names.at[1].dir = m.to;
	m.names.at[1].name = new_name;
	m.names.at[1].len = new_len;
	if (dir != new_dir)
		mutex_lock(&fs->rename_lock);
	rc = names_lock(&m.names);
	if (rc == 0) {
		rc = move_locked(&m, flags);
		lockset_unlock(&m.names.ls);
	}
	if (dir != new_dir)
		mutex_unlock(&fs->rename_lock);
	/* May give back what was replaced, which takes a transaction of its own: without locks. */
	names_put(&m.names);
	inode_put(fs, m.orphans);
out_to:
	inode_put(fs, m.to);
out_from:
	inode_put(fs, m.from);
	return rc;
}

int fs_rename(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t new_dir,
	      const char *new_name, size_t new_len, unsigned flags)
{
	return rename_names(fs, dir, name, len, new_dir, new_name, new_len, flags, NULL);
}

int fs_rename_whiteout(struct fs *fs, uint64_t dir, const char *name, size_t len, uint64_t new_dir,
		       const char *new_name, size_t new_len, unsigned flags,
		       const struct fs_cred *cred)
{
	if (flags & RENAME_EXCHANGE)
		return -EINVAL;
	return rename_names(fs, dir, name, len, new_dir, new_name, new_len, flags, cred);
}
