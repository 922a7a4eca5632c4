/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * name_lock.h - the locks of an operation on names: its directories, what the names lead to, and
 * the orphan directory.
 *
 *   K1  Inodes are locked in the order of their numbers, the orphan directory last.  (All are in
 *       the live volume.)  inode_lock2() does the same.
 *   K2  What a name leads to is known only under the lock of its directory.  When its place in the
 *       order has passed by then, it is tried for; failing that all are let go, taken in order, and
 *       the names are looked up once more.
 *
 * The orphan directory (format.h) names every inode whose nlink is 0, "%016x" of its number.
 */
#ifndef PMFS_TREE_NAME_LOCK_H
#define PMFS_TREE_NAME_LOCK_H

#include "tree/dir.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"

#define LOCKSET_MAX 5u

/* Different inodes, locked exclusively. */
struct lockset {
	struct inode *in[LOCKSET_MAX]; /* in the order K1 */
	unsigned count;
};

/* Add to a set that is not locked.  NULL and what is there already: nothing. */
void lockset_add(struct lockset *ls, struct inode *in);
void lockset_lock(struct lockset *ls);
/* Unlocks all; the set is empty then. */
void lockset_unlock(struct lockset *ls);
/* Add to a set that is locked.  Waits only where K1 allows it; false: not now. */
bool lockset_extend(struct lockset *ls, struct inode *in);

/* One or two names and what they lead to. */
struct names {
	struct fs *fs;
	unsigned count;
	struct {
		struct inode *dir; /* held by the caller */
		const char *name;
		size_t len;
		struct inode *in;    /* NULL: no such name; held, names_put() */
		struct dir_entry de;
	} at[2];
	struct lockset ls;
};

/*
 * Lock the directories and what the names lead to.  -ENOTDIR; -ENOENT: the directory itself has
 * been removed; -EUCLEAN, -EBADMSG.  A missing name is no error.  After an error nothing is locked
 * or held.
 */
int names_lock(struct names *n);
void names_put(struct names *n); /* unlocks what is still locked, and lets go of what was found */

/* May names be made and found in it?  -ENOTDIR, -ENOENT, -ESTALE.  Lock held. */
int dir_usable(const struct inode *dir);
/* Do the flags allow a name to go?  dir: its directory, in: what it names.  Locks held. */
int name_removable(const struct inode *dir, const struct inode *in);
/* -ENOENT (empty), -ENAMETOOLONG, -EINVAL ('/' or 0 in it). */
int name_check(const char *name, size_t len);
/* 1: ".", 2: "..", 0: neither. */
unsigned name_dots(const char *name, size_t len);
/* dir_find() that also refuses entries that no directory can have. */
int entry_find(struct inode *dir, const char *name, size_t len, struct dir_entry *de);
/* What an entry leads to, held. -EUCLEAN: nothing. */
int entry_get(struct fs *fs, struct inode *dir, const struct dir_entry *de, struct inode **out);

/* ---- name.c: something new */
struct creation {
	uint32_t mode, rdev; /* mode with its type */
	uint32_t umask;
	uint32_t flags; /* PMFS_INODE_INHERITED ones of the directory */
	uint32_t uid, gid;
	const char *target; /* of a symlink */
	/* What it inherits; NULL: none.  Of the same length; creation_free() */
	void *access_acl, *default_acl;
	size_t acl_len;
};
/* A setgid directory gives its group to what is made in it, and to directories the bit; a default
 * access control list and some flags are inherited.  Lock: the directory's; creation_free() also
 * after an error. */
int creation_inherit(struct creation *cr, struct inode *dir);
/* Frames that the new inode takes besides its record. */
uint64_t creation_cost(const struct creation *cr);
void creation_free(struct creation *cr);
/* An inode with its record stored, held.  Nothing names it yet, so it needs no lock.  tx open;
 * takes 2 * ITABLE_COST and creation_cost(). */
int inode_create(struct fs *fs, struct txn *tx, struct volume *vol, const struct creation *cr,
		 uint32_t nlink, uint64_t parent, struct inode **out);
/* Give back an inode that nobody has seen, and its hold. */
void inode_undo(struct fs *fs, struct txn *tx, struct inode *in);

/* The orphan directory of the live volume, held. */
int orphans_get(struct fs *fs, struct inode **out);
/* Tx open, orphan directory locked; stored here. */
int orphan_add(struct txn *tx, struct inode *orphans, const struct inode *in);
int orphan_remove(struct txn *tx, struct inode *orphans, uint64_t ino);
#define ORPHAN_COST (DIR_COST + ITABLE_COST)

#define LINKS_MAX (UINT32_MAX - 1)

#endif
