/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * xattr.h - extended attributes: a sorted stream of records in the pages of the inode's second page
 * table.
 *
 * Which names are allowed is fs.h's business.  Locks: the inode's lock as for data; the caller has
 * done itable_own() and stores the inode.
 */
#ifndef PMFS_TREE_XATTR_H
#define PMFS_TREE_XATTR_H

#include "tree/icache.h"

#define XATTR_COST 48u /* frames that one change can take */

/* Returns the value's length; size 0 asks only for it.  -ENODATA, -ERANGE: buffer too small. */
ssize_t xattr_get(struct inode *in, const char *name, void *buf, size_t size);
/* flags: XATTR_CREATE (-EEXIST), XATTR_REPLACE (-ENODATA).  -E2BIG value too long, -ENOSPC all of
 * them too long. */
int xattr_set(struct txn *tx, struct inode *in, const char *name, const void *value, size_t len,
	      int flags);
int xattr_remove(struct txn *tx, struct inode *in, const char *name); /* -ENODATA */
/* Names, each with its zero.  size 0 asks for the length.  -ERANGE. */
ssize_t xattr_list(struct inode *in, char *buf, size_t size);
int xattr_check(struct inode *in, void (*bad)(void *arg, const char *what), void *arg);

#endif
