/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * frame.h - which frames are in use, by how many pages, and which are free.
 *
 * Nothing of this is stored: it is derived from the page map by a scan after the image was opened
 * (frames_scan_*).  Until the scan has been over everything, a frame below the high-water mark at
 * open ("old") counts as in use and is not given out; new frames come from above the mark.  A fresh
 * image has no old frames.
 *
 *   F1  count(pfn) is the number of page map entries and nodes that name pfn (memory state, not the
 *       durable one).
 *   F2  A frame given up in generation g is given out again only when g is durable and every reader
 *       that was inside a read section at that moment has left it.
 *   F3  free frames are backed: taking one can't fail on the host.
 *   F4  backed, free and not promised >= the map reserve at any time but inside a commit: a commit
 *       can always write the page map's nodes anew.
 *
 *   free --take--> used --drop (count 0)--> pending[g] --frames_release(g)--> free
 *   free --trim--> punched --back--> free
 *
 * The reserves, in frames:
 *   map reserve R      every node of the page map once more, those that the pages of promised and
 *                      lately taken frames may need, and 48 for the levels above and for the pages
 *                      that so far only deltas in the slot know
 *   freeing reserve F  limit / 64, at least 384, at most 16384: removing things needs a little
 *                      before it gives, and changing things is part of cleaning up
 *
 *   kept frames K      one for each page that was reserved and has no frame yet (page.h: P5), and
 *                      what the ways to them can take when a snapshot has to keep its own.  NORMAL
 *                      and UPKEEP leave all of K alone, FREEING and RECLAIM the pages' part.
 *
 * Thread safe.  Lock ranks: LOCK_GROW (growing, backing, punching: calls of the host, not under
 * LOCK_FRAME), LOCK_FRAME.
 */
#ifndef PMFS_STORE_FRAME_H
#define PMFS_STORE_FRAME_H

#include "store/region.h"

struct frames;

/* Who asks; each may use what the ones before it may, and more. */
enum frame_class {
	FRAME_NORMAL,  /* new data: leaves R + F alone */
	FRAME_UPKEEP,  /* changing attributes and names: leaves R + F / 4 + 100 alone */
	FRAME_KEPT,    /* writing to what was reserved: leaves R + 64 alone, nothing of K */
	FRAME_FREEING, /* removing things, which first needs a little: leaves R + F / 4 alone */
	FRAME_RECLAIM, /* giving back pages of the deleted, rollback of a promise: leaves R alone */
	FRAME_COMMIT,  /* the commit itself: may use everything */
};

/* A frame with so many pages keeps that count, and stays in use, until the next open. */
#define FRAMES_COUNT_MAX UINT32_MAX

/*
 * used + free + pending + punched == total.  Before the scan is done `used` has all old frames in
 * it.
 */
struct frame_stats {
	uint64_t used;     /* frames in use, the slots too */
	uint64_t free;     /* backed, can be taken or is promised */
	uint64_t pending;  /* given up, not yet durable */
	uint64_t punched;  /* given back to the host */
	uint64_t promised; /* of the free ones */
	uint64_t kept;	   /* likewise: K */
	uint64_t shared;   /* frames that more than one page names */
	uint64_t sharing;  /* pages on top of the first that name one of them */
	uint64_t total;    /* frames that the region has so far */
	uint64_t limit;
	/*
	 * What FRAME_NORMAL could still take now: free, punched, growth as far as limit and host
	 * go, less reserves.
	 */
	uint64_t available;
	uint64_t map_reserve, freeing_reserve;
	bool scanned;
};

/*
 * old_frames: the high-water mark of the super block; everything at or above it is unused.  At
 * least PMFS_FIRST_FRAME, or 0, which means that.  A RAM region that is shorter grows to it.  Backs
 * the reserves as far as the host lets it.
 * -EIO: the image is shorter than that; -ENOMEM.
 */
int frames_new(struct frames **out, struct region *rg, uint64_t old_frames);
void frames_free(struct frames *fr);

/*
 * Promise n frames to a transaction.  0: they are set aside, and frames_take() of up to n can't
 * fail.  Grows and backs as needed.  -EAGAIN: not now, but pending frames, or what other
 * transactions were promised and may give back, could do (commit, which waits for both, and try
 * again), or the scan may find some (finish it, and try again); -ENOSPC: not even then; -EROFS;
 * -EIO.
 * What the freeing reserve is for: on a full image a removal (FREEING) asks for up to 96 and must
 * get them, also when changes (UPKEEP, up to 160) have taken what they may.
 */
int frames_reserve(struct frames *fr, enum frame_class cls, uint64_t n);
void frames_unreserve(struct frames *fr, uint64_t n);

/*
 * K: pages more or less that wait for their frame, and pages that lead to them (only ever more;
 * without pages there are none, and never are they counted for more than 3 of each page).
 */
void frames_keep(struct frames *fr, int64_t pages, uint64_t paths);
void frames_kept(const struct frames *fr, uint64_t *pages, uint64_t *paths);

/* Take one of the n promised ones; count becomes 1.  Never fails within a promise. */
pfn_t frames_take(struct frames *fr);
/*
 * Like it for the commit, out of the map reserve.  PFN_NONE: F4 was broken (an image that is full
 * to its limit and not scanned yet), or the region is poisoned.
 */
pfn_t frames_take_commit(struct frames *fr);

/* One more page names pfn (dedup).  Not for an old frame before the scan is done. */
void frames_share(struct frames *fr, pfn_t pfn);
uint32_t frames_count(const struct frames *fr, pfn_t pfn);
/*
 * One page or node less names pfn.  counted: the scan has been over that page or node (or it is
 * newer than the scan).
 * With the last one the frame joins the pending ones of the open generation.
 */
void frames_drop(struct frames *fr, pfn_t pfn, bool counted);
/*
 * The same for a node that the running commit replaces: with its last pointer the frame joins the
 * pending ones of the generation that is being committed, so that the next frames_release() frees
 * it.  Only between frames_close_generation() and that.
 */
void frames_drop_commit(struct frames *fr, pfn_t pfn, bool counted);

/*
 * The open generation closes: its pending frames wait for frames_release().  Caller holds the
 * transaction lock exclusively.
 */
void frames_close_generation(struct frames *fr);
/*
 * The closed generation is durable and its readers have left: its frames are free.  Call
 * frames_set_map_nodes() before it when the commit made nodes.  Fills the reserves up again, which
 * may wait for the host.
 */
void frames_release(struct frames *fr);

/*
 * How many frames the page map has in nodes (an upper bound will do): sizes the map reserve (F4).
 */
void frames_set_map_nodes(struct frames *fr, uint64_t nodes);

/*
 * The scan: account for one page or node of an old image (a frame that is not old is left alone);
 * then declare it over: old frames that nobody names are free, or pending where somebody named them
 * until lately.
 */
void frames_scan_count(struct frames *fr, pfn_t pfn);
void frames_scan_done(struct frames *fr);
bool frames_scanned(const struct frames *fr);

/* No frame at or above it has ever been in use. */
uint64_t frames_high_water(const struct frames *fr);
/*
 * Punch free frames that nobody took for idle_ms (0: any), at most max of them, and keep the
 * reserves backed.  Returns how many.
 * The clock runs in steps of idle_ms, so that it takes two of them at most; call it about that
 * often with the same value.
 */
uint64_t frames_trim(struct frames *fr, unsigned idle_ms, uint64_t max);

void frames_stat(const struct frames *fr, struct frame_stats *out);
/*
 * Compare with the counts given (n of them, for frames 0 to n - 1; those of the slots are not
 * looked at; all from n on must be 0) and all sets and sums with one another: F1.  Nothing may be
 * taken or dropped meanwhile.  -EUCLEAN: *bad is the frame, PFN_NONE for a sum; -EAGAIN before the
 * scan is done.
 */
int frames_check(const struct frames *fr, const uint32_t *counts, uint64_t n, pfn_t *bad);

#endif
