/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ptab.h - page tables: which page holds page n of a file.
 *
 * A radix tree of pages with 512 vpns (format.h); 0 is a hole.  Trees share nodes: a node with a count above 1 belongs to
 * several trees, and so does everything below it.
 *
 *   T1  Before a change, every node from the root to the page has count 1: a shared one is copied, its copy adds a pointer to each
 *       child (page_ref), and the tree lets go of the original (page_unref).  So counts are pushed down lazily, 512 at a time.
 *   T2  A table is never higher than its last page needs it to be when it grew; an empty table has root 0.
 *   T3  The caller has made sure that he owns the root: the thing that holds the root (inode page, volume row) has count 1 itself.
 *
 * A table whose pages hold pointers themselves (the inode file) gives ptab_ops; for data they are NULL.
 * The caller's lock (inode, volume) keeps others away from a table that changes; readers of one table run in parallel.
 */
#ifndef PMFS_TREE_PTAB_H
#define PMFS_TREE_PTAB_H

#include "store/store.h"

struct ptab {
	vpn_t root;
	uint32_t height;
};

struct ptab_ops {
	/* `from` is shared and has just been copied: add a pointer for each pointer in its contents. */
	int (*copied)(struct txn *tx, vpn_t page, void *arg);
	/* the last pointer to this page goes: drop what its contents point at (all of it at once). */
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

/* Make the page at pgno this tree's own (count 1), all the way down.  A hole gets a page of zeros; *added (may be NULL) says so. */
int ptab_own(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t pgno, vpn_t *out, bool *added);
/*
 * Write bytes into the page at pgno; a whole page does not read the old one, and a shared page is replaced, not copied.  *added as above.
 */
int ptab_write(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t pgno, size_t off, const void *buf, size_t len, bool *added);
/* Let pgno point at vpn, whose pointer the caller hands over (he did page_ref); VPN_NONE makes a hole.  *had: there was a page before; it is dropped. */
int ptab_set(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t pgno, vpn_t vpn, bool *had);

/*
 * Make [from, to) holes, the last pages first, until `budget` pages and nodes are let go of.  *freed: pages (not nodes) that were there.
 * Whole shared subtrees go as one.  0: done; 1: more to do, call again with the same range.  Nodes that become empty go; with `from` 0 and `to` beyond the end the table ends empty (root 0, height 0).
 * Takes at most ptab_cost(1) + ptab_cost(1) frames: both ends of the range.
 */
int ptab_punch(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t from, pgno_t to, uint64_t budget, uint64_t *freed);

/* The first page at or behind pgno that is not a hole (data) or is one; PGNO_END when there is none before the end of the table. */
#define PGNO_END UINT64_MAX
int ptab_seek(struct store *st, const struct ptab *pt, pgno_t pgno, bool data, pgno_t *out);

/* Count the pages of a range that are not holes; for check and copies. Cost is nodes, not pages. */
int ptab_count(struct store *st, const struct ptab *pt, uint64_t *pages);

#endif
