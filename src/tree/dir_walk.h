/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dir_walk.h - the way through a directory's pages, shared by dir.c and dir_check.c.
 * Locks: as dir.h.  All return -EUCLEAN for what can't be, and the errors of page_get().
 */
#ifndef PMFS_TREE_DIR_WALK_H
#define PMFS_TREE_DIR_WALK_H

#include "tree/dir.h"
#include "tree/dir_page.h"
#include "tree/fs_impl.h"

/* From the root to a leaf. */
struct dir_path {
	unsigned depth; /* pages on the way; at[depth - 1] is the leaf */
	struct {
		uint64_t page;
		uint64_t lower, upper; /* its keys lie in [lower, upper) */
		unsigned child;        /* which one the path takes */
	} at[DIR_LEVELS];
	uint64_t lower, upper;     /* of the leaf */
	uint64_t pages, free_page; /* what the root says */
};

static inline struct store *dir_store(const struct inode *dir)
{
	return dir->vol->fs->st;
}

/* Page of a directory; in a read section.  Not checked yet. */
int dir_page_at(struct inode *dir, uint64_t page, const union dir_page **out);
/* Needs no read section. */
int dir_page_copy(struct inode *dir, uint64_t page, union dir_page *out);
/* To the leaf that has or would have key; in a read section.  The directory is not empty.  Pages on
 * the way have passed dir_head_check(). */
int dir_descend(struct inode *dir, uint64_t key, struct dir_path *path,
		const union dir_page **leaf);
/* A copy of that leaf, which has passed dir_leaf_check(). */
int dir_leaf_copy(struct inode *dir, uint64_t key, struct dir_path *path, union dir_page *leaf);

#endif
