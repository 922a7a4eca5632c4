/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/name_lock.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>


#define ORPHAN_NAME_LEN 16u

/* K1 */
static uint64_t place(const struct inode *in)
{
	return in->ino == PMFS_INO_ORPHANS ? UINT64_MAX : in->ino;
}

static void put_in_order(struct lockset *ls, struct inode *in)
{
	unsigned i = ls->count++;

	for (; i && place(ls->in[i - 1]) > place(in); i--)
		ls->in[i] = ls->in[i - 1];
	ls->in[i] = in;
}

static bool has(const struct lockset *ls, const struct inode *in)
{
	for (unsigned i = 0; i < ls->count; i++) {
		if (ls->in[i] == in)
			return true;
	}
	return false;
}

void lockset_add(struct lockset *ls, struct inode *in)
{
	if (in && !has(ls, in))
		put_in_order(ls, in);
}

void lockset_lock(struct lockset *ls)
{
	for (unsigned i = 0; i < ls->count; i++)
		rw_wrlock(&ls->in[i]->lock);
}

void lockset_unlock(struct lockset *ls)
{
	while (ls->count)
		rw_unlock(&ls->in[--ls->count]->lock);
}

bool lockset_extend(struct lockset *ls, struct inode *in)
{
	if (!in || has(ls, in))
		return true;
	if (!ls->count || place(in) > place(ls->in[ls->count - 1]))
		rw_wrlock(&in->lock);
	else if (!rw_trywrlock(&in->lock))
		return false;
	put_in_order(ls, in);
	return true;
}

int name_removable(const struct inode *dir, const struct inode *in)
{
	const int rc = inode_changeable(dir, false);

	return rc ? rc : inode_changeable(in, false);
}

int dir_usable(const struct inode *dir)
{
	if (!dir->mode)
		return -ESTALE;
	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	return dir->nlink ? 0 : -ENOENT;
}

int name_check(const char *name, size_t len)
{
	if (len == 0)
		return -ENOENT;
	if (len > PMFS_NAME_MAX)
		return -ENAMETOOLONG;
	return memchr(name, '/', len) || memchr(name, '\0', len) ? -EINVAL : 0;
}

unsigned name_dots(const char *name, size_t len)
{
	if (len == 0 || len > 2 || name[0] != '.' || name[len - 1] != '.')
		return 0;
	return (unsigned)len;
}

int entry_find(struct inode *dir, const char *name, size_t len, struct dir_entry *de)
{
	int rc = dir_find(dir, name, len, de);

	if (rc)
		return rc;
	return de->ino >= PMFS_INO_FIRST && de->ino == NODE_INO(de->ino) && de->ino != dir->ino
		       ? 0
		       : -EUCLEAN;
}

int entry_get(struct fs *fs, struct inode *dir, const struct dir_entry *de, struct inode **out)
{
	int rc = inode_get(fs, NODE_ID(dir->vol->id, de->ino), out);

	return rc == -ENOENT ? -EUCLEAN : rc;
}

static int find_all(struct names *n, uint64_t ino[2])
{
	for (unsigned i = 0; i < n->count; i++) {
		int rc = dir_usable(n->at[i].dir);

		if (rc)
			return rc;
	}
	for (unsigned i = 0; i < n->count; i++) {
		int rc = entry_find(n->at[i].dir, n->at[i].name, n->at[i].len, &n->at[i].de);

		if (rc && rc != -ENOENT)
			return rc;
		ino[i] = rc ? 0 : n->at[i].de.ino;
	}
	return 0;
}

/* The names are locked: do they lead to what their entries say? */
static int types_check(const struct names *n)
{
	for (unsigned i = 0; i < n->count; i++) {
		const struct inode *in = n->at[i].in;

		if (in && (IFTODT(in->mode) != n->at[i].de.type || in->nlink == 0))
			return -EUCLEAN;
	}
	return 0;
}

static void let_go(struct names *n)
{
	for (unsigned i = 0; i < n->count; i++) {
		if (n->at[i].in)
			inode_put(n->fs, n->at[i].in);
		n->at[i].in = NULL;
	}
}

int names_lock(struct names *n)
{
	for (;;) {
		uint64_t ino[2], again[2];
		bool all = true;
		int rc;

		for (unsigned i = 0; i < n->count; i++) {
			lockset_add(&n->ls, n->at[i].dir);
			n->at[i].in = NULL;
		}
		lockset_lock(&n->ls);
		rc = find_all(n, ino);
		for (unsigned i = 0; i < n->count && rc == 0; i++) {
			if (ino[i])
				rc = entry_get(n->fs, n->at[i].dir, &n->at[i].de, &n->at[i].in);
		}
		for (unsigned i = 0; i < n->count && rc == 0 && all; i++)
			all = lockset_extend(&n->ls, n->at[i].in);
		if (rc == 0 && !all) {
			lockset_unlock(&n->ls);
			for (unsigned i = 0; i < n->count; i++) {
				lockset_add(&n->ls, n->at[i].dir);
				lockset_add(&n->ls, n->at[i].in);
			}
			lockset_lock(&n->ls);
			rc = find_all(n, again);
			if (rc == 0 && memcmp(ino, again, n->count * sizeof(ino[0]))) {
				names_put(n);
				continue;
			}
		}
		if (rc == 0)
			rc = types_check(n);
		if (rc)
			names_put(n);
		return rc;
	}
}

void names_put(struct names *n)
{
	lockset_unlock(&n->ls);
	let_go(n);
}

int orphans_get(struct fs *fs, struct inode **out)
{
	int rc = inode_get(fs, NODE_ID(fs->live->id, PMFS_INO_ORPHANS), out);

	return rc == -ENOENT ? -EUCLEAN : rc;
}

static void orphan_name(char name[ORPHAN_NAME_LEN + 1], uint64_t ino)
{
	snprintf(name, ORPHAN_NAME_LEN + 1, "%016" PRIx64, ino);
}

int orphan_add(struct txn *tx, struct inode *orphans, const struct inode *in)
{
	char name[ORPHAN_NAME_LEN + 1];
	int rc, rc2;

	orphan_name(name, in->ino);
	rc = itable_own(tx, orphans);
	if (rc)
		return rc;
	rc = dir_insert(tx, orphans, name, ORPHAN_NAME_LEN, in->ino, (uint8_t)IFTODT(in->mode));
	rc2 = itable_store(tx, orphans);
	return rc ? rc : rc2;
}

int orphan_remove(struct txn *tx, struct inode *orphans, uint64_t ino)
{
	char name[ORPHAN_NAME_LEN + 1];
	int rc, rc2;

	orphan_name(name, ino);
	rc = itable_own(tx, orphans);
	if (rc)
		return rc;
	rc = dir_remove(tx, orphans, name, ORPHAN_NAME_LEN, NULL);
	rc2 = itable_store(tx, orphans);
	return rc ? rc : rc2;
}
