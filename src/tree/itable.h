/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * itable.h - the inode file of a volume: numbers to records, 16 to a page.
 *
 *   I1  A free inode has mode 0 and is in the volume's list of free inodes, or its number is >=
 *       next_ino.
 *   I2  A page of the inode file that is copied because a snapshot shares it adds a pointer to each
 *       root in its records (ptab_ops): the roots of a record are this volume's own only as far as
 *       the record's page is.
 *   I3  Therefore itable_own() comes before any change of a page that a record points at (data,
 *       directory, attributes).
 *   I4  data_pages of the volume is the sum of `pages` of its inodes: the two change in one call,
 *       itable_store_pages().
 *
 * Locks: each takes vol->lock (LOCK_ITABLE) itself; the record's contents are guarded by the
 * inode's lock.
 */
#ifndef PMFS_TREE_ITABLE_H
#define PMFS_TREE_ITABLE_H

#include "tree/icache.h"

/*
 * Frames that changing one record can take, its path and the volume's row included; allocating a
 * number and storing its record together are one change.  4 levels lead to more inodes than an
 * image has room for (ITABLE_INO_MAX), so the path has 5 pages; the row adds 3.
 */
#define ITABLE_COST 8u
#define ITABLE_INO_MAX (UINT64_C(1) << 40)

extern const struct ptab_ops itable_ops; /* of the inode file; for reclaim and check */

/* Read a record into in->...  -ENOENT: free or never used; -EUCLEAN: contradictory; -EBADMSG. */
int itable_load(struct inode *in);
/* I3: make the record's page the volume's own. */
int itable_own(struct txn *tx, struct inode *in);
/* Write the record as it is in memory (itable_own included). */
int itable_store(struct txn *tx, struct inode *in);
/* The same with in->pages and the volume's data_pages changed by delta (I4): for regular files. */
int itable_store_pages(struct txn *tx, struct inode *in, int64_t delta);
/*
 * A number for a new inode and its generation; the record is still free on disk until
 * itable_store(), which comes in the same transaction.  -ENOSPC: 2^40 used.
 */
int itable_alloc(struct txn *tx, struct volume *vol, uint64_t *ino, uint64_t *generation);
/* Give the number back; the roots must be empty, and `pages` 0.  -EUCLEAN: it is free. */
int itable_free(struct txn *tx, struct volume *vol, uint64_t ino);
/*
 * Decode and check a record: used by load, check and reclaim.  Touches what the record has and
 * nothing else of the inode.  -ENOENT: free, -EUCLEAN.
 */
int inode_decode(const struct pmfs_inode *rec, struct inode *in);
void inode_encode(const struct inode *in, struct pmfs_inode *rec);

#endif
