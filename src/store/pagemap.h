/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pagemap.h - the page map in memory: for each page its frame, its count and its hash.
 *
 * It is cut into leaves of 256 pages, each read from the image when it is first needed and kept.
 * Three states of it exist side by side:
 *
 *   memory          what transactions see and change
 *   the durable     tree (maptree.h) + `acc`, the changed entries of earlier small commits that are
 *                   not in it yet
 *   being written   entries that pagemap_capture() took when the generation closed
 *
 *   G1  A leaf that is not in memory has not been changed since the image was opened: it is tree +
 *       acc.
 *   G2  `where` of a page is changed under the lock of its leaf; it may be read without (one atomic
 *       load).
 *   G3  born: the page got its frame in the open generation.  The bit is set after `where`, so that
 *       who sees it sees the new frame, too; it goes when the generation closes, between
 *       transactions.
 *   G4  verified: contents that are read through `where` need no check.  Set after `where`.  Taken
 *       back only when the contents of a known hash were found not to match it (scrub).
 *   G5  nohash: `hash` is not that of the contents, because the commit that writes it has not
 *       succeeded yet.
 *   G6  Pages are free when their count is 0.  free[leaf] says how many free pages of a leaf nobody
 *       has claimed; 0 as long as the scan has not been over a leaf of an opened image.
 *
 * Lock ranks: LOCK_MAP (reading leaves, the durable tree), LOCK_MAPLEAF (striped over the leaves;
 * several in the order of their addresses), LOCK_VPN (free page numbers).
 */
#ifndef PMFS_STORE_PAGEMAP_H
#define PMFS_STORE_PAGEMAP_H

#include <stdatomic.h>

#include "base/lock.h"
#include "store/frame.h"
#include "store/maptree.h"
#include "store/super.h"

#define PAGEMAP_STRIPES 64u

struct map_leaf {
	_Atomic uint64_t where[PMFS_MAP_FANOUT]; /* as in struct pmfs_map_entry */
	uint64_t hash[PMFS_MAP_FANOUT];		 /* the rest: guarded by the leaf's lock */
	_Atomic uint64_t born[PMFS_MAP_FANOUT / 64];
	_Atomic uint64_t verified[PMFS_MAP_FANOUT / 64];
	uint64_t nohash[PMFS_MAP_FANOUT / 64];
	uint64_t changed[PMFS_MAP_FANOUT / 64];
	uint64_t index; /* set once */
	struct map_leaf *next_changed;
	bool listed;  /* in the list of changed leaves */
	bool counted; /* the scan has been over it, or it is newer than the scan */
	uint8_t hint; /* where to look for a free page */
};

struct pagemap_chunk;
#define PAGEMAP_CHUNK_SHIFT 16 /* leaves in a chunk of the directory */
#define PAGEMAP_CHUNKS	    ((SUPER_MAX_VPN >> PMFS_MAP_SHIFT) >> PAGEMAP_CHUNK_SHIFT)

struct pagemap {
	struct region *rg;
	struct frames *fr;
	pfn_t old_frames;    /* frames below it were there when the image was opened */
	uint64_t old_leaves; /* likewise for leaves */
	_Atomic(struct pagemap_chunk *) *chunk;
	struct mutex stripe[PAGEMAP_STRIPES];

	struct mutex map_lock; /* LOCK_MAP */
	struct maptree tree;   /* guarded by map_lock */
	struct pmfs_delta *acc; /* sorted; guarded by map_lock; only a commit's leader changes it */
	uint64_t acc_count;
	_Atomic uint64_t scan_next; /* leaf that the scan looks at next; changed under map_lock */
	_Atomic bool scanned;
	_Atomic uint64_t nodes; /* of the durable tree, as far as they are known */

	struct mutex vpn_lock;	    /* LOCK_VPN */
	_Atomic uint64_t vpn_limit; /* changed under vpn_lock */
	uint64_t cursor;	    /* leaf that pages are taken from; guarded by vpn_lock */
	uint64_t free_total;	    /* sum of all free[]; guarded by vpn_lock */

	_Atomic(struct map_leaf *) changed_leaves;
	_Atomic uint64_t changed; /* pages in the open generation's list */
	_Atomic uint64_t born;	  /* of these with a new frame */
	/* Repair: no page number of before is given out, so that what points at a lost page finds nothing. */
	bool salvage;	   /* set before anybody else has it */
	vpn_t *lost;	   /* entries that have to go into the next commit; guarded by map_lock */
	uint64_t lost_count;
	bool lost_failed; /* no memory for that list */
	void (*lost_said)(void *arg, vpn_t first, uint64_t pages, const char *why);
	void *lost_arg;

	_Atomic uint64_t in_memory; /* leaves */
	_Atomic uint64_t pages;	  /* with a count, as far as the scan has come */
	_Atomic uint64_t holes;
};

static inline pfn_t where_pfn(uint64_t where)
{
	return where & PMFS_MAP_PFN_MASK;
}

static inline uint64_t where_refs(uint64_t where)
{
	return where >> PMFS_MAP_PFN_BITS;
}

static inline uint64_t where_make(pfn_t pfn, uint64_t refs)
{
	return pfn | refs << PMFS_MAP_PFN_BITS;
}

/* deltas: of the slot that was opened; taken over. */
int pagemap_init(struct pagemap *pm, struct region *rg, struct frames *fr, const struct super *sb,
		 struct pmfs_delta *deltas, uint64_t n);
void pagemap_destroy(struct pagemap *pm);

/* The leaf of a page, read when it has to be.  -EUCLEAN: no such page; -EBADMSG, -EIO, -ENOMEM. */
int pagemap_leaf(struct pagemap *pm, vpn_t vpn, struct map_leaf **out);
struct mutex *pagemap_leaf_lock(struct pagemap *pm, const struct map_leaf *leaf);

/* A page with count 1 in that frame, born; PFN_NONE: a hole. */
int pagemap_add(struct pagemap *pm, pfn_t pfn, vpn_t *out);

/* These five want the leaf's lock and a transaction. */

/* New contents, written by us. */
void pagemap_set_frame(struct pagemap *pm, struct map_leaf *leaf, unsigned int i, pfn_t pfn);
/* The same contents elsewhere. */
void pagemap_set_merged(struct pagemap *pm, struct map_leaf *leaf, unsigned int i, pfn_t pfn,
			uint64_t hash);
/* A hole has a frame kept for it (page.h: P5), or none any more; no hole: nothing. */
void pagemap_set_kept(struct pagemap *pm, struct map_leaf *leaf, unsigned int i, bool kept);
bool pagemap_is_kept(const struct map_leaf *leaf, unsigned int i);
/* refs is not 0. */
void pagemap_set_refs(struct pagemap *pm, struct map_leaf *leaf, unsigned int i, uint64_t refs);
void pagemap_remove(struct pagemap *pm, struct map_leaf *leaf, unsigned int i);
/* Have frames_drop()'s `counted` for a page of this leaf. */
bool pagemap_counted(const struct pagemap *pm, const struct map_leaf *leaf, pfn_t pfn);

/* What a leaf holds at one moment. */
struct pagemap_copy {
	uint64_t where[PMFS_MAP_FANOUT];
	uint64_t hash[PMFS_MAP_FANOUT];
	uint64_t nohash[PMFS_MAP_FANOUT / 64];
	uint64_t verified[PMFS_MAP_FANOUT / 64];
};
/* Copy a leaf without keeping it in memory.  1; 0: it was never used; errors of pagemap_leaf(). */
int pagemap_peek(struct pagemap *pm, uint64_t index, struct pagemap_copy *out);

/*
 * The first leaf from index on that could hold pages, no more than the end of the map: what is skipped are
 * whole PAGEMAP_CHUNK_SHIFT runs without a node, of which an image may claim any number.
 */
uint64_t pagemap_next(struct pagemap *pm, uint64_t index);
/* Of a map that is never changed, and that nobody else is using: keep at most that many leaves. */
void pagemap_forget(struct pagemap *pm, uint64_t most);

/*
 * Read the nodes that begin at a leaf once more from the image, from the leaf up.  Returns how many
 * are good, or the error of the first that is not, whose level is then in *level.
 */
int pagemap_verify(struct pagemap *pm, uint64_t index, uint32_t *level);
/* The frame of a page turned out not to hold what its hash says: check it whenever it is read. */
void pagemap_distrust(struct pagemap *pm, vpn_t vpn, pfn_t pfn);

/*
 * Memory for taking the changes of the generation that closes and of at most `more` pages beyond
 * those.  Caller holds LOCK_TXN exclusively until it has called one of the two below.  -ENOMEM.
 */
struct pagemap_room {
	struct pmfs_delta *deltas;
	struct map_leaf **leaves;
	uint64_t pages;
};
int pagemap_capture_room(struct pagemap *pm, uint64_t more, struct pagemap_room *room);
void pagemap_capture_cancel(struct pagemap_room *room);
/*
 * Take them, sorted; NEW marks those with a new frame, whose hash is not filled in yet.  *out is
 * the room's memory, and the caller's to free.
 */
void pagemap_capture(struct pagemap *pm, struct pagemap_room *room, struct pmfs_delta **out,
		     uint64_t *count);
/* They are durable: put the hashes of new pages where the page still has that frame. */
void pagemap_settle(struct pagemap *pm, const struct pmfs_delta *deltas, uint64_t n);

/*
 * acc + newer changes, the newer ones first where both have a page; NEW stays on those only.  NULL:
 * no memory.
 */
struct pmfs_delta *pagemap_merge(const struct pagemap *pm, const struct pmfs_delta *deltas,
				 uint64_t n, uint64_t *count);
/* A small commit is durable: acc is now this (taken over). */
void pagemap_set_acc(struct pagemap *pm, struct pmfs_delta *acc, uint64_t n);
/* A big commit is durable: the tree has everything, acc is empty. */
void pagemap_set_tree(struct pagemap *pm, const struct maptree_update *up);

/*
 * Derive free frames and pages from at most max leaves.  1: all done; 0: more; errors as above,
 * which leave it undone; -ELOOP: a node is in the tree twice, so that there may be no end of it, or
 * in a frame that was never given out.
 * Pages of runs that pagemap_next() skips are not given out again.
 */
int pagemap_scan(struct pagemap *pm, uint64_t max);

/*
 * For repair, before anything else is done with it: have damaged nodes and entries forgotten, which
 * pagemap_scan() over all of it does, telling said() of each.
 */
void pagemap_salvage(struct pagemap *pm,
		     void (*said)(void *arg, vpn_t first, uint64_t pages, const char *why), void *arg);
/* After the scan: let the next commit that writes the tree leave out what was forgotten.  In a transaction. */
int pagemap_salvaged(struct pagemap *pm);

/* Frames that the map could need anew in one commit: for frames_set_map_nodes(). */
uint64_t pagemap_frames(const struct pagemap *pm);

#endif
