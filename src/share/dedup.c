/* SPDX-License-Identifier: BSD-2-Clause */
#include "share/dedup.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bits.h"
#include "base/hash.h"
#include "base/lock.h"
#include "base/thread.h"

/* Merges in one transaction: what a commit or a writer may have to wait for (K2). */
#define BATCH 64u
/* Pages that agree in their hash but not in their bytes are tried against one another up to here. */
#define CHAIN_MAX 8u
#define TABLE_MIN 1024u
#define MEMORY_MIN (TABLE_MIN * sizeof(struct slot))

/* One page that was met, under its hash.  vpn 0: empty. */
struct slot {
	uint64_t hash;
	vpn_t vpn;
};

struct dedup {
	struct store *st;
	uint64_t memory;
	uint64_t zero_hash;

	struct mutex lock; /* LOCK_DEDUP */
	struct cond changed;
	enum dedup_state state; /* guarded by lock */
	int error;              /* guarded by lock */
	bool stop, joinable;    /* guarded by lock */
	pthread_t thread;       /* guarded by lock; valid while joinable */
	uint64_t started_ns, finished_ns, running_ns; /* guarded by lock */
	uint64_t resumed_ns;    /* guarded by lock; monotonic */
	_Atomic bool attention; /* stop or pause wants to be looked at */

	_Atomic uint64_t total, scanned, merged, zeros, collisions, saved, unshared, volatiles;
	_Atomic uint64_t full_scans;
	_Atomic uint64_t progress; /* millionths of the running pass */

	/* The running pass; its thread's own. */
	struct slot *table;
	size_t slots;
	uint64_t used;
	uint64_t parts, part;
	bool overflow;
	vpn_t limit;
	struct slot batch[BATCH]; /* pages that have an equal hash in the table, or are zeros */
	size_t batched;
};

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int dedup_new(struct dedup **out, struct store *st, uint64_t memory_bytes)
{
	static const uint8_t zeros[PMFS_PAGE_SIZE];
	struct dedup *dd = calloc(1, sizeof(*dd));

	if (!dd)
		return -ENOMEM;
	dd->st = st;
	dd->memory = MAX(memory_bytes, (uint64_t)MEMORY_MIN);
	dd->zero_hash = hash64(zeros, sizeof(zeros));
	dd->state = DEDUP_IDLE;
	mutex_init(&dd->lock, LOCK_DEDUP);
	cond_init(&dd->changed);
	*out = dd;
	return 0;
}

/* The thread that ran the last pass has left dedup_main() or is about to: collect it. */
static void join_locked(struct dedup *dd)
{
	pthread_t thread = dd->thread;

	if (!dd->joinable)
		return;
	dd->joinable = false;
	mutex_unlock(&dd->lock);
	thread_join(thread);
	mutex_lock(&dd->lock);
}

void dedup_free(struct dedup *dd)
{
	if (!dd)
		return;
	mutex_lock(&dd->lock);
	dd->stop = true;
	atomic_store(&dd->attention, true);
	cond_broadcast(&dd->changed);
	while (dd->state != DEDUP_IDLE)
		cond_wait(&dd->changed, &dd->lock);
	join_locked(dd);
	mutex_unlock(&dd->lock);
	cond_destroy(&dd->changed);
	mutex_destroy(&dd->lock);
	free(dd);
}

/* Between two batches: wait while paused.  -ECANCELED: asked to stop. */
static int look_up(struct dedup *dd)
{
	int rc;

	if (!atomic_load(&dd->attention))
		return 0;
	mutex_lock(&dd->lock);
	while (dd->state == DEDUP_PAUSED && !dd->stop)
		cond_wait(&dd->changed, &dd->lock);
	rc = dd->stop ? -ECANCELED : 0;
	if (!rc)
		atomic_store(&dd->attention, false);
	mutex_unlock(&dd->lock);
	return rc;
}

static size_t slot_of(const struct dedup *dd, uint64_t hash)
{
	/* The high bits choose the part of the hash space, the low ones the slot. */
	return (size_t)(hash & (dd->slots - 1));
}

static bool enter(struct dedup *dd, size_t at, const struct slot *page)
{
	/* Linear probing wants free slots; a part that is too full is done again in smaller ones. */
	if (dd->used >= dd->slots / 4 * 3) {
		dd->overflow = true;
		return false;
	}
	dd->table[at] = *page;
	dd->used++;
	return true;
}

/*
 * Merge a page with the first one in the table that it equals.  Several stand under one hash only when
 * their bytes differ, which takes a collision; such a page is entered behind them.
 */
static int merge_into(struct dedup *dd, struct txn *tx, const struct slot *page)
{
	unsigned chain = 0;

	for (size_t at = slot_of(dd, page->hash); chain < CHAIN_MAX; at = (at + 1) & (dd->slots - 1)) {
		struct slot *kept = &dd->table[at];
		struct page_info a, b;
		int rc;

		if (!kept->vpn) {
			enter(dd, at, page);
			return 0;
		}
		if (kept->hash != page->hash || kept->vpn == page->vpn)
			continue;
		rc = page_merge(tx, kept->vpn, page->vpn);
		if (rc == 1) {
			atomic_fetch_add(&dd->merged, 1);
			atomic_fetch_add(&dd->saved, PMFS_PAGE_SIZE);
			return 0;
		}
		/* A damaged page is no reason to end the pass: it is reported where it is read. */
		if (rc < 0 && rc != -EBADMSG)
			return rc;
		if (page_info(dd->st, page->vpn, &b) || !b.refs || b.dirty || b.hash != page->hash)
			return 0;
		if (page_info(dd->st, kept->vpn, &a) || !a.refs || a.dirty || a.hash != kept->hash) {
			kept->vpn = page->vpn; /* the one in the table has changed: this one stands for the hash now */
			return 0;
		}
		if (a.pfn == b.pfn)
			return 0;
		chain++;
		atomic_fetch_add(&dd->collisions, 1);
	}
	return 0;
}

/* Merge what was collected, in one transaction. */
static int flush_batch(struct dedup *dd)
{
	struct txn tx;
	int rc;

	if (!dd->batched)
		return 0;
	rc = txn_begin(dd->st, &tx, FRAME_RECLAIM, 0);
	if (rc)
		return rc;
	for (size_t i = 0; i < dd->batched && rc >= 0; i++) {
		if (dd->batch[i].hash != dd->zero_hash) {
			rc = merge_into(dd, &tx, &dd->batch[i]);
			continue;
		}
		rc = page_merge_zero(&tx, dd->batch[i].vpn);
		if (rc == 1) {
			atomic_fetch_add(&dd->zeros, 1);
			atomic_fetch_add(&dd->saved, PMFS_PAGE_SIZE);
		} else if (rc == -EBADMSG) {
			rc = 0;
		}
	}
	txn_end(&tx);
	dd->batched = 0;
	return rc < 0 ? rc : 0;
}

/* Enter a page that is the first with its hash; true: it is not, or it is zeros, and belongs into a batch. */
static bool meet(struct dedup *dd, const struct slot *page, pfn_t pfn)
{
	if (page->hash == dd->zero_hash)
		return true;
	for (size_t at = slot_of(dd, page->hash);; at = (at + 1) & (dd->slots - 1)) {
		const struct slot *kept = &dd->table[at];
		struct page_info info;

		if (!kept->vpn) {
			enter(dd, at, page);
			return false;
		}
		if (kept->hash != page->hash)
			continue;
		/* After the first pass most equal pages share already: no transaction for them. */
		return page_info(dd->st, kept->vpn, &info) || info.pfn != pfn;
	}
}

static uint64_t part_of(const struct dedup *dd, uint64_t hash)
{
	return (uint64_t)(((unsigned __int128)hash * dd->parts) >> 64);
}

static int on_page(void *arg, vpn_t vpn, const struct page_info *info)
{
	struct dedup *dd = arg;
	const struct slot page = { .hash = info->hash, .vpn = vpn };

	if ((vpn & (PMFS_MAP_FANOUT - 1)) == 0) {
		const double done = ((double)dd->part + (double)vpn / (double)dd->limit) / (double)dd->parts;
		int rc = look_up(dd);

		atomic_store(&dd->progress, (uint64_t)(done * 1e6));
		if (rc)
			return rc;
	}
	if (info->dirty) {
		if (!dd->part)
			atomic_fetch_add(&dd->volatiles, 1);
		return 0;
	}
	if (info->pfn == PFN_NONE || part_of(dd, info->hash) != dd->part)
		return 0;
	atomic_fetch_add(&dd->scanned, 1);
	if (!meet(dd, &page, info->pfn))
		return dd->overflow ? -EOVERFLOW : 0;
	dd->batch[dd->batched++] = page;
	return dd->batched == BATCH ? flush_batch(dd) : 0;
}

/* One walk of the page map for one part of the hash space. */
static int run_part(struct dedup *dd)
{
	int rc;

	memset(dd->table, 0, dd->slots * sizeof(*dd->table));
	dd->used = 0;
	dd->batched = 0;
	dd->overflow = false;
	rc = store_each_page(dd->st, 1, dd->limit, on_page, dd);
	if (!rc)
		rc = flush_batch(dd);
	if (!rc && dd->overflow)
		rc = -EOVERFLOW;
	return rc;
}

/* The free frames, and which frames are shared, are known only after the scan that follows opening. */
static int wait_scanned(struct dedup *dd)
{
	while (!store_scanned(dd->st)) {
		int rc = look_up(dd);

		if (!rc)
			rc = store_scan(dd->st, 64);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int run_pass(struct dedup *dd)
{
	struct store_stats stats;
	uint64_t unique = 0;
	int rc;

	/* What is written but not committed has no hash yet. */
	rc = commit_now(dd->st);
	if (!rc)
		rc = wait_scanned(dd);
	if (rc)
		return rc;
	store_stat(dd->st, &stats);
	atomic_store(&dd->total, stats.pages - stats.holes);
	atomic_store(&dd->scanned, 0);
	atomic_store(&dd->volatiles, 0);
	dd->limit = store_vpn_limit(dd->st);
	dd->slots = TABLE_MIN;
	while (dd->slots * 2 * sizeof(*dd->table) <= dd->memory && dd->slots < 2 * stats.pages)
		dd->slots *= 2;
	/* Half full on average: a part is 1/sqrt(n) away from it, not a quarter. */
	dd->parts = DIV_ROUND_UP(MAX(stats.pages, 1), dd->slots / 2);
	dd->table = mmap(NULL, dd->slots * sizeof(*dd->table), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (dd->table == MAP_FAILED)
		return -ENOMEM;
	for (dd->part = 0; dd->part < dd->parts && !rc;) {
		rc = run_part(dd);
		if (rc == -EOVERFLOW) {
			/* More pages than there were, or hashes that somebody chose: smaller parts, from the same place on. */
			dd->parts *= 2;
			dd->part *= 2;
			rc = dd->parts > UINT32_MAX ? -E2BIG : 0;
			continue;
		}
		unique += dd->used;
		dd->part++;
	}
	munmap(dd->table, dd->slots * sizeof(*dd->table));
	dd->table = NULL;
	if (rc)
		return rc;
	atomic_store(&dd->unshared, unique);
	atomic_fetch_add(&dd->full_scans, 1);
	/* Frames that were given up can be used again once this is durable. */
	return commit_now(dd->st);
}

static int begin_locked(struct dedup *dd)
{
	if (dd->state != DEDUP_IDLE)
		return -EALREADY;
	if (store_read_only(dd->st))
		return -EROFS;
	if (dd->stop)
		return -ECANCELED;
	join_locked(dd);
	if (dd->state != DEDUP_IDLE)
		return -EALREADY; /* somebody else was faster while the lock was dropped */
	dd->state = DEDUP_RUNNING;
	dd->error = 0;
	dd->started_ns = clock_ns(CLOCK_REALTIME);
	dd->finished_ns = 0;
	dd->running_ns = 0;
	dd->resumed_ns = clock_ns(CLOCK_MONOTONIC);
	atomic_store(&dd->progress, 0);
	return 0;
}

static void finish(struct dedup *dd, int rc)
{
	mutex_lock(&dd->lock);
	if (dd->state == DEDUP_RUNNING)
		dd->running_ns += clock_ns(CLOCK_MONOTONIC) - dd->resumed_ns;
	dd->state = DEDUP_IDLE;
	dd->error = rc == -ECANCELED ? 0 : rc;
	dd->finished_ns = clock_ns(CLOCK_REALTIME);
	if (!rc)
		atomic_store(&dd->progress, 1000000);
	cond_broadcast(&dd->changed);
	mutex_unlock(&dd->lock);
}

static void *dedup_main(void *arg)
{
	struct dedup *dd = arg;

	finish(dd, run_pass(dd));
	return NULL;
}

int dedup_start(struct dedup *dd)
{
	int rc;

	mutex_lock(&dd->lock);
	rc = begin_locked(dd);
	if (!rc) {
		rc = thread_start(&dd->thread, "pmfs-dedup", dedup_main, dd);
		dd->joinable = !rc;
		if (rc)
			dd->state = DEDUP_IDLE;
	}
	mutex_unlock(&dd->lock);
	return rc;
}

int dedup_run(struct dedup *dd)
{
	int rc;

	mutex_lock(&dd->lock);
	rc = begin_locked(dd);
	mutex_unlock(&dd->lock);
	if (rc)
		return rc;
	rc = run_pass(dd);
	finish(dd, rc);
	return rc;
}

int dedup_pause(struct dedup *dd, bool pause)
{
	int rc = 0;

	mutex_lock(&dd->lock);
	if (dd->state == DEDUP_IDLE) {
		rc = -ESRCH;
	} else if (pause && dd->state == DEDUP_RUNNING) {
		dd->running_ns += clock_ns(CLOCK_MONOTONIC) - dd->resumed_ns;
		dd->state = DEDUP_PAUSED;
		atomic_store(&dd->attention, true);
	} else if (!pause && dd->state == DEDUP_PAUSED) {
		dd->resumed_ns = clock_ns(CLOCK_MONOTONIC);
		dd->state = DEDUP_RUNNING;
		cond_broadcast(&dd->changed);
	}
	mutex_unlock(&dd->lock);
	return rc;
}

int dedup_wait(struct dedup *dd, int timeout_ms)
{
	const uint64_t end = clock_ns(CLOCK_MONOTONIC) + (uint64_t)MAX(timeout_ms, 0) * 1000000u;
	int rc = 0;

	mutex_lock(&dd->lock);
	while (dd->state != DEDUP_IDLE && !rc) {
		const uint64_t at = clock_ns(CLOCK_MONOTONIC);

		if (timeout_ms < 0)
			cond_wait(&dd->changed, &dd->lock);
		else if (at >= end)
			rc = -ETIMEDOUT;
		else
			cond_timedwait_ms(&dd->changed, &dd->lock, DIV_ROUND_UP(end - at, 1000000u));
	}
	if (!rc)
		rc = dd->error;
	mutex_unlock(&dd->lock);
	return rc;
}

void dedup_stat(struct dedup *dd, struct dedup_stats *out)
{
	struct store_stats stats;
	double seconds;

	store_stat(dd->st, &stats);
	memset(out, 0, sizeof(*out));
	mutex_lock(&dd->lock);
	out->state = dd->state;
	out->error = dd->error;
	out->started_ns = dd->started_ns;
	out->finished_ns = dd->finished_ns;
	seconds = (double)dd->running_ns / 1e9;
	if (dd->state == DEDUP_RUNNING)
		seconds += (double)(clock_ns(CLOCK_MONOTONIC) - dd->resumed_ns) / 1e9;
	mutex_unlock(&dd->lock);

	out->percent = (double)atomic_load(&dd->progress) / 1e4;
	out->pages_total = atomic_load(&dd->total);
	out->pages_scanned = atomic_load(&dd->scanned);
	out->pages_merged = atomic_load(&dd->merged);
	out->zero_pages = atomic_load(&dd->zeros);
	out->collisions = atomic_load(&dd->collisions);
	out->bytes_saved = atomic_load(&dd->saved);
	out->pages_unshared = atomic_load(&dd->unshared);
	out->pages_volatile = atomic_load(&dd->volatiles);
	out->full_scans = atomic_load(&dd->full_scans);
	out->pages_shared = stats.frames.shared;
	out->pages_sharing = stats.frames.sharing;
	if (seconds > 0)
		out->bytes_per_second =
			(uint64_t)((double)out->pages_scanned * PMFS_PAGE_SIZE / seconds);
	if (out->state != DEDUP_IDLE && out->percent > 0)
		out->eta_seconds = (uint64_t)(seconds * (100 - out->percent) / out->percent + 0.5);
}
