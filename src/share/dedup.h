/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dedup.h - find equal pages by the hashes in the page map, compare them, let them share a frame.
 *
 * A pass over the map collects (hash, vpn) pairs; equal hashes are compared byte by byte (page_merge) and merged.  It changes page map entries only: it works
 * below every snapshot at once and walks no tree.  Exact within a fixed memory budget: the hash space is cut into as many parts as are needed
 * for a part's pairs to fit, with one pass over the map for each.  Pages of zeros become holes.
 *
 *   K1  Only clean pages (with a hash) are looked at; a page that changes meanwhile is left alone by page_merge().
 *   K2  Merges go in small transactions; a writer waits for one of them at most.
 *
 * Thread safe.  Lock rank: LOCK_DEDUP.  Terms of Linux' KSM: pages_shared: frames that several pages name; pages_sharing: pages beyond the first of each;
 * pages_unshared: looked at and unique; pages_volatile: changed too lately to be looked at; full_scans: passes completed.
 */
#ifndef PMFS_SHARE_DEDUP_H
#define PMFS_SHARE_DEDUP_H

#include "store/store.h"

struct dedup;

enum dedup_state { DEDUP_IDLE, DEDUP_RUNNING, DEDUP_PAUSED };

struct dedup_stats {
	enum dedup_state state;
	int error;               /* of the last pass, 0: none */
	double percent;          /* of the running pass; 100 when idle after one */
	uint64_t pages_total, pages_scanned, pages_merged, zero_pages, collisions;
	uint64_t bytes_saved;    /* by this mount's passes */
	uint64_t bytes_per_second, eta_seconds;
	uint64_t pages_shared, pages_sharing, pages_unshared, pages_volatile, full_scans;
	uint64_t started_ns, finished_ns; /* CLOCK_REALTIME, 0: not yet */
};

#define DEDUP_MEMORY_DEFAULT (UINT64_C(64) << 20)

int dedup_new(struct dedup **out, struct store *st, uint64_t memory_bytes);
void dedup_free(struct dedup *dd); /* stops a pass at a safe point */
/* Start a pass in a thread of its own; commits first so that all pages have hashes.  -EALREADY: one is running. -EROFS. */
int dedup_start(struct dedup *dd);
int dedup_pause(struct dedup *dd, bool pause);
/* Wait for the pass to end; its error.  timeout_ms < 0: for ever; -ETIMEDOUT. */
int dedup_wait(struct dedup *dd, int timeout_ms);
/* A pass in the calling thread. */
int dedup_run(struct dedup *dd);
void dedup_stat(struct dedup *dd, struct dedup_stats *out);

#endif
