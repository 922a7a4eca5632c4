/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page.h - pages: contents with an identity and a count of the pointers to them.
 *
 * Whatever points at contents holds a vpn.  Where the contents are, and what their hash is, is this
 * module's and the page map's business.
 *
 *   P1  The count of a page is the number of pointers to it from live structures; the owner of a
 *       structure that copies or drops a pointer says so with page_ref() or page_unref().
 *   P2  A page with a count above 1 is never written: its owner makes a new page instead (ptab.h
 *       does).
 *   P3  A page is written in place only when it has got its frame in this generation and the frame
 *       is its own; otherwise page_write() gives it a new frame first.  The vpn stays, so nothing
 *       that points to it changes.
 *   P4  A page whose frame came from the image is hashed before its contents are used for the first
 *       time.
 *   P5  A kept page is a hole for which a frame is set aside until it is written (frame.h: K), in
 *       this tree or, when others share it, in the first that writes there.  The promise is
 *       durable.
 *
 * Thread safe as far as P2: two threads may write different bytes of one page; who writes the same
 * bytes, or writes while another drops the last reference, has a lock of his own.  Lock ranks:
 * LOCK_PAGE, LOCK_MAPLEAF.
 */
#ifndef PMFS_STORE_PAGE_H
#define PMFS_STORE_PAGE_H

#include "store/txn.h"

/*
 * A new page, count 1, with these contents (NULL: zeros).  Takes one frame of the promise.
 * -ENOMEM, -EIO, -EBADMSG (map leaf).
 */
int page_new(struct txn *tx, const void *contents, vpn_t *out);

/*
 * n new pages at once, as page_new() would make them one after the other: neighbouring frames are written in one go.
 * *made: how many there are, also after an error; out[] has room for n.
 */
int page_new_run(struct txn *tx, const void *contents, uint64_t n, vpn_t *out, uint64_t *made);

/*
 * A new kept page (P5), count 1: takes one frame of the promise, and keeps it.  -ENOSPC: there are
 * 2^32 of them.
 */
int page_new_kept(struct txn *tx, vpn_t *out);
/* Pages more that lead to kept ones, which a snapshot may force to be copied: frames for them. */
void page_keep_paths(struct txn *tx, uint64_t pages);
/* A writer has replaced this shared page in his tree: what was kept for it is used. */
int page_unkeep(struct txn *tx, vpn_t vpn);
/* Is any page?  What a caller's locks keep from getting kept pages has none when this says no. */
bool page_any_kept(struct store *st);
/* 1, 0, error. */
int page_is_kept(struct store *st, vpn_t vpn);

/* A new page with the contents of another, count 1.  For P2. */
int page_copy(struct txn *tx, vpn_t from, vpn_t *out);

/*
 * Overwrite len bytes at off.  Count must be 1 (P2).  At most one frame of the promise.  len 4096
 * does not read the old contents.  -EBADMSG: the old contents were needed and are damaged.
 */
int page_write(struct txn *tx, vpn_t vpn, size_t off, const void *buf, size_t len);

/*
 * The contents of a page, for reading, inside a read section.  A hole gives the address of 4096
 * zeros.  The pointer is into the region: it may fault when the host's file fails, but the page was
 * touched when it was verified, and in a RAM region it can't.  -EBADMSG: does not match its hash;
 * -EUCLEAN: no such page; -EIO.
 */
int page_get(struct store *st, vpn_t vpn, const void **out);
/* The same by copying; needs no read section. */
int page_read(struct store *st, vpn_t vpn, size_t off, void *buf, size_t len);
/* Does the page have no frame? 1, 0, error. */
int page_is_hole(struct store *st, vpn_t vpn);

/* One pointer more.  -EMLINK: the count is at its end; the caller copies the page instead. */
int page_ref(struct txn *tx, vpn_t vpn);
/*
 * One less.  *left (may be NULL): the pointers that remain; 0: the page is gone, and what it
 * pointed at is the caller's to drop - before, with page_refs() == 1.
 */
int page_unref(struct txn *tx, vpn_t vpn, uint64_t *left);
/* The count; 0: no such page.  Exact while the caller's locks keep others from changing it. */
int page_refs(struct store *st, vpn_t vpn, uint64_t *refs);

/* Does another page name its frame, too (page_merge())? */
bool page_frame_shared(struct store *st, vpn_t vpn);
/*
 * For repair.  The first gives a page new contents for all who point at it, whatever its count (so
 * P2 does not hold); the second sets the count to what a walk has found, 0: the page goes.
 * -EUCLEAN: no such page.
 */
int page_mend(struct txn *tx, vpn_t vpn, const void *contents);
int page_recount(struct txn *tx, vpn_t vpn, uint64_t refs);

/* What a page is made of, for info, dedup and checks. */
struct page_info {
	uint64_t refs;
	pfn_t pfn;     /* PFN_NONE: hole */
	uint64_t hash; /* valid unless dirty */
	bool dirty;    /* written since the last commit closed: no hash yet */
};
int page_info(struct store *st, vpn_t vpn, struct page_info *out);

/*
 * Make two clean pages one frame: b's frame is given up, b names a's.  Both are compared byte by
 * byte here, with writers of both kept out.  1: done; 0: not equal, or one of them has changed, is
 * a hole, or they share already; -EIO, -EBADMSG.
 */
int page_merge(struct txn *tx, vpn_t a, vpn_t b);
/* Turn a clean page of zeros into a hole.  1: done, 0: not zeros or dirty. */
int page_merge_zero(struct txn *tx, vpn_t vpn);

#endif
