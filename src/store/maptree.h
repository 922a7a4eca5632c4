/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * maptree.h - the page map as the last durable generation has it: a radix tree of nodes in frames.
 *
 * Nodes are read when they are first needed, checked against the checksum in their parent, and the
 * inner ones kept.  A commit writes each node that it changes to a new frame (maptree_build), and
 * switches to the new tree only when that is durable (maptree_apply); whoever reads in between sees
 * the old one, which is still intact.
 *
 *   M1  The tree in memory is the durable one, never one that is being written.
 *   M2  A node is used only after it has matched its checksum and every frame that it names is in
 *       range.
 *
 * Leaf n holds the pages n * 256 .. n * 256 + 255.  Level 0 is the leaves; node i of level l covers
 * the leaves i << (8 * l) and on.  On disk: struct pmfs_map_entry, struct pmfs_map_child.  Locks:
 * every function wants LOCK_MAP held, except maptree_build(), which takes it; only the leader of a
 * commit changes the tree.
 */
#ifndef PMFS_STORE_MAPTREE_H
#define PMFS_STORE_MAPTREE_H

#include "base/lock.h"
#include "store/frame.h"

#define MAPTREE_MAX_HEIGHT 5u

struct map_node;

struct maptree {
	struct region *rg;
	struct mutex *lock; /* the page map's LOCK_MAP */
	uint64_t vpn_limit; /* no page at or above it is in the durable tree */
	pfn_t root;	    /* PFN_NONE: no node, height 0 */
	uint64_t checksum;
	uint32_t height;
	struct map_node *top; /* NULL: not read yet, or height below 2 */
	/*
	 * For repair: a node that can't be used is forgotten, as if it had never been, instead of
	 * being an error, and so is an entry of a leaf that can't be.  lost() hears of the pages;
	 * it may be NULL.
	 */
	bool salvage;
	void (*lost)(void *arg, vpn_t first, uint64_t pages, const char *why);
	void *lost_arg;
};

/* One node that a commit has written anew; pfn PFN_NONE: it has become empty and is gone. */
struct maptree_change {
	uint64_t index;
	pfn_t pfn;
	uint64_t checksum;
};

/* A tree that has been written but is not durable yet. */
struct maptree_update {
	uint32_t height;
	pfn_t root;
	uint64_t checksum;
	uint64_t vpn_limit;
	uint64_t nodes; /* written */
	struct maptree_change *level[MAPTREE_MAX_HEIGHT];
	uint64_t count[MAPTREE_MAX_HEIGHT];
};

void maptree_init(struct maptree *mt, struct region *rg, struct mutex *lock);
void maptree_destroy(struct maptree *mt);

/* How many nodes a tree for that many pages can have at most. */
uint64_t maptree_bound(uint64_t vpn_limit);

/*
 * Copy a leaf out.  1: there is one; 0: all its pages are free; -EBADMSG, -EUCLEAN, -EIO, -ENOMEM.
 */
int maptree_read_leaf(struct maptree *mt, uint64_t index,
		      struct pmfs_map_entry out[PMFS_MAP_FANOUT]);

/*
 * The frame of a node of any level, PFN_NONE: there is none.  Errors of the nodes above it.
 */
int maptree_node(struct maptree *mt, uint32_t level, uint64_t index, pfn_t *out);

/*
 * Read a node once more from the image and compare it with its checksum.  1: it is good; 0: there
 * is none; -EBADMSG, -EUCLEAN, -EIO; errors of the nodes above it.
 */
int maptree_verify(struct maptree *mt, uint32_t level, uint64_t index);

/*
 * Write the nodes that n changed entries (sorted, one per page) change, with frames of the map
 * reserve.  The tree stays as it is.
 */
int maptree_build(struct maptree *mt, struct frames *fr, const struct pmfs_delta *deltas,
		  uint64_t n, uint64_t vpn_limit, struct maptree_update *up);
void maptree_update_free(struct maptree_update *up);

/*
 * The update is durable: make it the tree.  replaced() is called for each node that was replaced or
 * is new: old and now are its frames, PFN_NONE where there is none.
 */
void maptree_apply(struct maptree *mt, const struct maptree_update *up,
		   void (*replaced)(void *arg, uint32_t level, uint64_t index, pfn_t old,
				    pfn_t now),
		   void *arg);

/*
 * Call fn for each node, from the top down, with its own verdict: 0, or the error of reading it
 * (its children are then left out).  fn returns 0, 1 to leave the children out, or an error that ends it.
 */
int maptree_walk(struct maptree *mt,
		 int (*fn)(void *arg, uint32_t level, uint64_t index, pfn_t pfn, int error),
		 void *arg);

#endif
