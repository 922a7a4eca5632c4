/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ptab.h - page tables: which page holds page n of a file.
 *
 * A radix tree of pages with 512 vpns (format.h); 0 is a hole.  Trees share nodes: a node with a
 * count above 1 belongs to several trees, and so does everything below it.
 *
 *   T1  Before a change, every node from the root to the page has count 1: a shared one is
 *       copied, its copy adds a pointer to each child (page_ref), and the tree lets go of the
 *       original (page_unref).  So counts are pushed down lazily, 512 at a time.
 *   T2  A table is never higher than its last page needed it to be when it grew; an empty table has
 *       root 0 and height 0.
 *   T3  The caller has made sure that he owns the root: the thing that holds the root (inode page,
 *       volume row) has count 1 itself.
 *   T4  No node is empty: what ptab_punch() leaves without entries goes.
 *
 * A table whose pages hold pointers themselves (the inode file) gives ptab_ops; for data they are
 * NULL. The caller's lock (inode, volume) keeps others away from a table that changes; readers of
 * one table run in parallel.  Lock rank of its own: LOCK_SHARE, for a moment inside a change.
 */
#ifndef PMFS_TREE_PTAB_H
#define PMFS_TREE_PTAB_H

#include "store/store.h"

struct ptab {
	vpn_t root;
	uint32_t height;
};

struct ptab_ops {
	/* page is a new copy of a shared one: add a pointer for each pointer in its contents. */
	int (*copied)(struct txn *tx, vpn_t page, void *arg);
	/* The last pointer to this page goes: drop all that its contents point at. */
	int (*dropped)(struct txn *tx, vpn_t page, void *arg);
	void *arg;
};

struct ptab ptab_decode(const struct pmfs_ptab_root *from); /* no check; ptab_valid() */
void ptab_encode(const struct ptab *from, struct pmfs_ptab_root *to);
bool ptab_valid(const struct ptab *pt); /* height in range, and 0 when empty */

/* The most frames that changing `pages` neighbouring pages takes, the pages themselves included. */
uint64_t ptab_cost(uint64_t pages);

/* The page at pgno, VPN_NONE: hole.  In a read section. -EBADMSG, -EUCLEAN, -EIO. */
int ptab_get(struct store *st, const struct ptab *pt, pgno_t pgno, vpn_t *out);
/* n of them at once. */
int ptab_get_run(struct store *st, const struct ptab *pt, pgno_t pgno, uint64_t n, vpn_t *out);

/*
 * Make the page at pgno this tree's own (count 1), all the way down.  A hole gets a page of zeros;
 * *added (may be NULL) says so.
 */
int ptab_own(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t pgno, vpn_t *out,
	     bool *added);
/*
 * Write bytes into the page at pgno; a whole page does not read the old one, and a shared page is
 * replaced, not copied.  *added as above.
 */
int ptab_write(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t pgno, size_t off,
	       const void *buf, size_t len, bool *added);
/*
 * Write n whole neighbouring pages of contents (no ops).  *written: pages done, *added: holes that
 * became pages; both are right also after an error.
 */
int ptab_write_pages(struct txn *tx, struct ptab *pt, pgno_t pgno, uint64_t n, const void *buf,
		     uint64_t *written, uint64_t *added);
/*
 * Let pgno point at vpn, whose pointer the caller hands over (he did page_ref); VPN_NONE makes a
 * hole.  *had (may be NULL): there was a page before; it is dropped.
 */
int ptab_set(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t pgno, vpn_t vpn,
	     bool *had);
/*
 * The same for up to n neighbours of a table of contents (no ops), none of them VPN_NONE.  Returns
 * how many were set, at least one and all that have one node in common; the rest, or after an error
 * all of them, are still the caller's.  *had: pages that were there.
 */
int ptab_set_run(struct txn *tx, struct ptab *pt, pgno_t pgno, uint64_t n, const vpn_t *vpns,
		 uint64_t *had);

/*
 * Let a table of contents share nodes of another, or of itself: PTAB_NODE_PAGES pages each, from the
 * pages `from` and `to` on, which begin nodes.  Up to n of them; at `to` there are holes.  Returns
 * how many were shared; 0: there is no node at `from`.  *pages: that are in these.  Costs ptab_cost(1).
 * -EMLINK: the first has as many pointers as there can be.
 * Of one level only, so that what is found in a table is never more than 2^18 times what was put there.
 */
#define PTAB_NODE_PAGES PMFS_PTAB_FANOUT
/* Is there one? 1, 0, error. */
int ptab_has_node(struct store *st, const struct ptab *pt, pgno_t pgno);
int ptab_share(struct txn *tx, const struct ptab *src, pgno_t from, struct ptab *dst, pgno_t to,
	       uint64_t n, uint64_t *pages);

/*
 * Make [from, to) holes, the last pages first, until `budget` pages and nodes are let go of.
 * *freed: pages (not nodes) that were there; NULL when the caller knows, which saves reading a
 * shared subtree to count them.  Whole shared subtrees go as one. 0: done; 1: more to do, call
 * again with the same range.  With `from` 0 and `to` beyond the end the table ends empty. Takes
 * at most PTAB_PUNCH_COST frames: both ends of the range.
 */
#define PTAB_PUNCH_COST (2 * PMFS_PTAB_MAX_HEIGHT)
int ptab_punch(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t from, pgno_t to,
	       uint64_t budget, uint64_t *freed);

/*
 * Drop one of several pointers to a page that has pointers in it (a node, a page of inodes). 1:
 * done.  0: the caller's is the only one; nothing was done, and what the page points at is his to
 * drop first.  Looking at page_refs() and then page_unref() is not the same: two owners may do so
 * at a time.
 */
int ptab_unref_shared(struct txn *tx, vpn_t vpn);

/*
 * The first page at or behind pgno that is not a hole (data), PGNO_END when there is none; or the
 * first that is one: always found, since behind the end of the table there are only holes.
 */
#define PGNO_END UINT64_MAX
int ptab_seek(struct store *st, const struct ptab *pt, pgno_t pgno, bool data, pgno_t *out);

/* Pages of the table that are not holes.  Cost: its nodes. */
int ptab_count(struct store *st, const struct ptab *pt, uint64_t *pages);

#endif
