/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dir.h - a directory's index: names to inode numbers.
 *
 * A B+ tree (format.h) in the pages of the directory's file, keyed by hash of the name; the key is
 * the readdir cookie.
 *
 *   D1  Keys are unique and sorted; every key in child i is >= its separator and < the next one.
 *   D2  Inserting or removing a name changes the key of no other: a reader of the directory sees
 *       every name that is there all the time exactly once.
 *   D3  A leaf that becomes empty leaves the tree and its page goes to the free list (or, last in
 *       the file, is punched); a node with one child at the root is replaced by it.  Without
 *       entries there are no pages.
 *   D4  size of the inode is the number of entries.
 *
 * Locks: the directory's inode lock, shared for reading, exclusive for changes.  The caller has
 * done itable_own() and stores the inode afterwards.
 */
#ifndef PMFS_TREE_DIR_H
#define PMFS_TREE_DIR_H

#include "tree/icache.h"

#define DIR_COST 32u /* frames that one insertion or removal can take */

struct dir_entry {
	uint64_t ino;
	uint64_t cookie; /* of this entry; reading goes on behind it with cookie + 1 */
	uint8_t type;    /* DT_* */
	uint8_t name_len;
	char name[PMFS_NAME_MAX + 1]; /* zero terminated */
};

/* -ENAMETOOLONG, -ENOENT.  name need not be terminated. */
int dir_find(struct inode *dir, const char *name, size_t len, struct dir_entry *out);
/* -EEXIST; -ENOSPC: 256 names with one hash, or the file at its limit. */
int dir_insert(struct txn *tx, struct inode *dir, const char *name, size_t len, uint64_t ino,
	       uint8_t type);
/* -ENOENT; *ino (may be NULL) is what it named. */
int dir_remove(struct txn *tx, struct inode *dir, const char *name, size_t len, uint64_t *ino);
/* Let an existing name point at another inode. -ENOENT. */
int dir_replace(struct txn *tx, struct inode *dir, const char *name, size_t len, uint64_t ino,
		uint8_t type);
/* Entries with cookie >= from, in order, without "." and "..".  fn: not 0 ends the walk and is
 * returned.  fn runs under the caller's lock, outside of a read section. */
int dir_each(struct inode *dir, uint64_t from, int (*fn)(void *arg, const struct dir_entry *de),
	     void *arg);
/* All of D1, D3, D4 by a full walk. bad(): words for a person. Returns findings or error. */
int dir_check(struct inode *dir, void (*bad)(void *arg, const char *what), void *arg);

#endif
