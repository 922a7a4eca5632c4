/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/frame.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/units.h"
#include "store/frameset.h"
#include "store/lazy.h"

#define STEP_MIN ((UINT64_C(1) << 20) / PMFS_PAGE_SIZE)
#define STEP_MAX ((UINT64_C(64) << 20) / PMFS_PAGE_SIZE)
#define FREEING_MIN 384u
#define KEPT_LEFT 64u
#define KEPT_WORK 32u /* one write to a reserved page, whatever is left of the freeing reserve */
#define REMOVAL 100u /* kept for a removal (96 and their map nodes) from what changes may take */
#define FREEING_MAX 16384u
#define MAP_SLACK 48u
#define TRIM_SLACK 256u /* so that a mount in use does not punch and back the same frames in turn */
#define SLICE 4096u     /* frames that are handled with the lock held once */
#define WARM 4096u

struct frames {
	struct region *rg; /* set once */
	struct mutex grow; /* LOCK_GROW: total grows, frames are punched and backed under it */
	struct mutex lock; /* LOCK_FRAME: guards all below but where it says otherwise */

	struct lazy counts; /* _Atomic uint32_t each: F1; stored under lock, read without */
	_Atomic uint64_t total; /* frames that sets and counts are good for; stored under lock */
	_Atomic uint64_t mark;  /* no frame from here on was ever taken; stored under lock */

	/*
	 * A frame from PMFS_FIRST_FRAME on is in one of these, or in use, or (moving) on its way
	 * between free and punched.
	 */
	struct frameset free, punched, pending[2];
	uint64_t moving;
	unsigned int open;         /* pending[open] is that of the open generation */
	struct frameset recent[2]; /* became free in this period of trimming, in the last one */
	int64_t period_ns;         /* when this period began */

	uint64_t promised;
	uint64_t kept, kept_paths; /* pages */
	uint64_t taken[2]; /* by transactions; [open] as in pending */
	uint64_t nodes;
	uint64_t cursor;   /* next fit */
	pfn_t warm[WARM];  /* RAM: became free lately, the newest last; some are in use again */
	uint64_t warm_at;  /* number of entries ever pushed less those popped */
	uint64_t warm_n;   /* entries that are valid, WARM at most */

	/* old frames: below `old`; of these, those below `resolved` are like all others. */
	uint64_t old;      /* set once */
	uint64_t resolved;
	_Atomic bool scanned;
	struct frameset early; /* old frames from `resolved` on that somebody gave up */

	uint64_t shared, sharing;
};

static _Atomic uint32_t *count_of(const struct frames *fr, pfn_t pfn)
{
	return (_Atomic uint32_t *)fr->counts.at + pfn;
}

/* For functions that only look: a lock is not a part of what they promise to leave alone. */
static struct mutex *lock_of(const struct frames *fr)
{
	return (struct mutex *)(uintptr_t)&fr->lock;
}

static struct mutex *grow_of(const struct frames *fr)
{
	return (struct mutex *)(uintptr_t)&fr->grow;
}

/* ------------------------------------------------------------------ reserves */

static uint64_t freeing_reserve(const struct frames *fr)
{
	return MIN(MAX(region_limit(fr->rg) / 64, FREEING_MIN), FREEING_MAX);
}

/*
 * Pages that get a frame now may need new nodes, one for 255 pages with the levels above.  The
 * commit that writes them takes frames for them, and the next one needs a reserve for them: twice.
 */
static uint64_t map_reserve(const struct frames *fr, uint64_t more)
{
	uint64_t pages = fr->taken[0] + fr->taken[1] + fr->promised + more;

	return fr->nodes + MAP_SLACK + 2 * DIV_ROUND_UP(pages, 255);
}

/* K, the pages' part: with the nodes of the page map that their copies may be in. */
static uint64_t kept_pages(const struct frames *fr)
{
	return fr->kept + 2 * DIV_ROUND_UP(fr->kept, 255);
}

static uint64_t kept_all(const struct frames *fr)
{
	if (!fr->kept)
		return 0;
	return kept_pages(fr) + MIN(fr->kept_paths, 3 * fr->kept) + KEPT_WORK;
}

/* How many frames must be backed and free so that n can be promised. */
static uint64_t needed(const struct frames *fr, enum frame_class cls, uint64_t n)
{
	uint64_t need = fr->promised + n;

	if (cls == FRAME_COMMIT)
		return need;
	need += map_reserve(fr, n);
	switch (cls) {
	case FRAME_NORMAL:
		return need + freeing_reserve(fr) + kept_all(fr);
	case FRAME_UPKEEP:
		return need + freeing_reserve(fr) / 4 + REMOVAL + kept_all(fr);
	case FRAME_KEPT:
		return need + KEPT_LEFT;
	case FRAME_FREEING:
		return need + freeing_reserve(fr) / 4 + kept_pages(fr);
	default:
		return need + kept_pages(fr);
	}
}

/* ------------------------------------------------------------------ more free frames */

static void push_warm(struct frames *fr, pfn_t pfn)
{
	fr->warm[fr->warm_at++ % WARM] = pfn;
	fr->warm_n = MIN(fr->warm_n + 1, WARM);
}

/* Trimming leaves them alone for a while. */
static void not_idle(struct frames *fr, uint64_t pfn, uint64_t n)
{
	while (n--)
		frameset_add(&fr->recent[0], pfn++);
}

static int extend(struct frames *fr, uint64_t total)
{
	struct frameset *sets[] = {
		&fr->free,       &fr->punched,   &fr->pending[0],
		&fr->pending[1], &fr->recent[0], &fr->recent[1],
	};
	int rc = lazy_extend(&fr->counts, (size_t)(total * sizeof(uint32_t)));

	for (size_t i = 0; !rc && i < ARRAY_SIZE(sets); i++)
		rc = frameset_extend(sets[i], total);
	return rc;
}

/* Up to n frames more from behind what there is.  LOCK_GROW is held, LOCK_FRAME is not. */
static int grow_by(struct frames *fr, uint64_t n)
{
	uint64_t total = fr->total, backed = region_frames(fr->rg);
	int rc;

	/*
	 * Behind the mark of an image there may be frames that an earlier life has grown to, or
	 * punched.
	 */
	if (backed > total)
		n = MIN(n, backed - total);
	mutex_lock(&fr->lock);
	rc = extend(fr, total + n);
	mutex_unlock(&fr->lock);
	if (!rc)
		rc = backed > total ? region_back(fr->rg, total, n)
				    : region_grow(fr->rg, total + n);
	if (rc)
		return rc;
	mutex_lock(&fr->lock);
	frameset_add_run(&fr->free, total, n);
	not_idle(fr, total, n);
	atomic_store(&fr->total, total + n);
	mutex_unlock(&fr->lock);
	return 0;
}

/* A step of growth, or what the host has of it: `least` frames at least. */
static int grow_step(struct frames *fr, uint64_t least)
{
	uint64_t total = fr->total, limit = region_limit(fr->rg);
	uint64_t room = limit > total ? limit - total : 0;
	uint64_t n = MIN(MAX(total / 16, STEP_MIN), STEP_MAX);
	int rc;

	if (!room)
		return -ENOSPC;
	least = MIN(least, room);
	n = MIN(MAX(n, least), room);
	for (;;) {
		rc = grow_by(fr, n);
		if (rc != -ENOSPC || n == least)
			break;
		n = MAX(n / 2, least);
	}
	if (rc && rc != -ENOSPC && !region_error(fr->rg)) {
		log_limited(LOG_LEVEL_WARN, "frames.grow",
			    "can't grow beyond %llu frames: error %d", (unsigned long long)total,
			    -rc);
		rc = -ENOSPC;
	}
	return rc;
}

/* Back a run of up to n punched frames.  LOCK_GROW is held, LOCK_FRAME is not. */
static int back_some(struct frames *fr, uint64_t n)
{
	uint64_t pfn, len;
	int rc;

	mutex_lock(&fr->lock);
	pfn = frameset_next(&fr->punched, 0);
	if (pfn == FRAMESET_END) {
		mutex_unlock(&fr->lock);
		return -ENOSPC;
	}
	len = frameset_run(&fr->punched, pfn, n);
	frameset_remove_run(&fr->punched, pfn, len);
	fr->moving += len;
	mutex_unlock(&fr->lock);

	rc = region_back(fr->rg, pfn, len);

	mutex_lock(&fr->lock);
	frameset_add_run(rc ? &fr->punched : &fr->free, pfn, len);
	if (!rc)
		not_idle(fr, pfn, len);
	fr->moving -= len;
	mutex_unlock(&fr->lock);
	return rc;
}

/* Frames that are missing until n more can be promised; 0: they have been. */
static uint64_t promise(struct frames *fr, enum frame_class cls, uint64_t n)
{
	uint64_t need, missing = 0;

	mutex_lock(&fr->lock);
	need = needed(fr, cls, n);
	if (fr->free.count >= need)
		fr->promised += n;
	else
		missing = need - fr->free.count;
	mutex_unlock(&fr->lock);
	return missing;
}

static int why_not(struct frames *fr, enum frame_class cls, uint64_t n)
{
	uint64_t later;
	int rc;

	mutex_lock(&fr->lock);
	/*
	 * What others were promised and do not take comes back when their transactions end, and
	 * what they take frees old frames.
	 */
	later = fr->free.count + fr->pending[0].count + fr->pending[1].count + fr->promised;
	rc = later >= needed(fr, cls, n) || !atomic_load(&fr->scanned) ? -EAGAIN : -ENOSPC;
	mutex_unlock(&fr->lock);
	return rc;
}

/* LOCK_GROW is held. */
static int refill(struct frames *fr, enum frame_class cls, uint64_t n)
{
	bool back = true, grow = true;
	uint64_t missing;

	while ((missing = promise(fr, cls, n)) > 0) {
		int rc;

		if (back) {
			rc = back_some(fr, MAX(missing, STEP_MIN));
			if (rc == -ENOSPC)
				rc = back_some(fr, missing);
			if (rc == -ENOSPC)
				back = false;
		} else if (grow) {
			rc = grow_step(fr, missing);
			if (rc == -ENOSPC)
				grow = false;
		} else {
			return why_not(fr, cls, n);
		}
		if (rc && rc != -ENOSPC)
			return rc;
	}
	return 0;
}

int frames_reserve(struct frames *fr, enum frame_class cls, uint64_t n)
{
	int rc = region_error(fr->rg);

	if (!rc && region_readonly(fr->rg))
		rc = -EROFS;
	if (!rc && n > PMFS_MAX_FRAMES)
		rc = -ENOSPC;
	if (rc || !promise(fr, cls, n))
		return rc;
	mutex_lock(&fr->grow);
	rc = refill(fr, cls, n);
	mutex_unlock(&fr->grow);
	return rc;
}

void frames_keep(struct frames *fr, int64_t pages, uint64_t paths)
{
	mutex_lock(&fr->lock);
	/* A damaged image can have more such pages than its slot says. */
	if (pages < 0)
		fr->kept -= MIN(fr->kept, (uint64_t)-pages);
	else
		fr->kept += (uint64_t)pages;
	fr->kept_paths = fr->kept ? MIN(fr->kept_paths + paths, UINT32_MAX) : 0;
	mutex_unlock(&fr->lock);
}

void frames_kept(const struct frames *fr, uint64_t *pages, uint64_t *paths)
{
	mutex_lock(lock_of(fr));
	*pages = fr->kept;
	*paths = fr->kept_paths;
	mutex_unlock(lock_of(fr));
}

void frames_unreserve(struct frames *fr, uint64_t n)
{
	if (!n)
		return;
	mutex_lock(&fr->lock);
	assert(fr->promised >= n);
	fr->promised -= n;
	mutex_unlock(&fr->lock);
}

/* Back what the reserves need, the one that matters most first, as far as the host has it. */
static void fill_reserves(struct frames *fr)
{
	int rc = frames_reserve(fr, FRAME_RECLAIM, 0);

	if (!rc)
		rc = frames_reserve(fr, FRAME_FREEING, 0);
	if (!rc)
		rc = frames_reserve(fr, FRAME_NORMAL, 0);
	if (rc == -ENOSPC)
		log_debug("the reserves are not full");
}

/* ------------------------------------------------------------------ taking and dropping */

static pfn_t pick(struct frames *fr)
{
	uint64_t pfn;

	while (fr->warm_n) {
		pfn = fr->warm[--fr->warm_at % WARM];
		fr->warm_n--;
		if (frameset_has(&fr->free, pfn))
			return pfn;
	}
	pfn = frameset_next(&fr->free, fr->cursor);
	if (pfn == FRAMESET_END)
		pfn = frameset_next(&fr->free, 0);
	fr->cursor = pfn + 1;
	return pfn;
}

/* One that was promised. */
static pfn_t take_locked(struct frames *fr)
{
	pfn_t pfn;

	mutex_assert_held(&fr->lock);
	assert(fr->promised > 0 && fr->free.count >= fr->promised);
	pfn = pick(fr);
	fr->promised--;
	frameset_remove(&fr->free, pfn);
	atomic_store_explicit(count_of(fr, pfn), 1, memory_order_relaxed);
	if (pfn >= fr->mark)
		atomic_store(&fr->mark, pfn + 1);
	return pfn;
}

pfn_t frames_take(struct frames *fr)
{
	pfn_t pfn;

	mutex_lock(&fr->lock);
	pfn = take_locked(fr);
	fr->taken[fr->open]++;
	mutex_unlock(&fr->lock);
	return pfn;
}

pfn_t frames_take_commit(struct frames *fr)
{
	pfn_t pfn;

	if (frames_reserve(fr, FRAME_COMMIT, 1))
		return PFN_NONE;
	mutex_lock(&fr->lock);
	pfn = take_locked(fr);
	mutex_unlock(&fr->lock);
	return pfn;
}

static void one_more(struct frames *fr, pfn_t pfn)
{
	_Atomic uint32_t *count = count_of(fr, pfn);
	uint32_t c = atomic_load_explicit(count, memory_order_relaxed);

	if (c == FRAMES_COUNT_MAX)
		return;
	atomic_store_explicit(count, c + 1, memory_order_relaxed);
	fr->sharing += c > 0;
	fr->shared += c == 1;
}

/* True: that was the last one. */
static bool one_less(struct frames *fr, pfn_t pfn)
{
	_Atomic uint32_t *count = count_of(fr, pfn);
	uint32_t c = atomic_load_explicit(count, memory_order_relaxed);

	assert(c > 0);
	if (c == FRAMES_COUNT_MAX)
		return false;
	atomic_store_explicit(count, c - 1, memory_order_relaxed);
	fr->sharing -= c > 1;
	fr->shared -= c == 2;
	return c == 1;
}

void frames_share(struct frames *fr, pfn_t pfn)
{
	mutex_lock(&fr->lock);
	assert(*count_of(fr, pfn) > 0);
	one_more(fr, pfn);
	mutex_unlock(&fr->lock);
}

uint32_t frames_count(const struct frames *fr, pfn_t pfn)
{
	if (pfn >= fr->total)
		return 0;
	return atomic_load_explicit(count_of(fr, pfn), memory_order_relaxed);
}

static void drop(struct frames *fr, pfn_t pfn, bool counted, bool by_commit)
{
	mutex_lock(&fr->lock);
	if (pfn < fr->old && pfn >= fr->resolved) {
		/* Whether it was the last pointer is known when the scan is done. */
		if (counted)
			one_less(fr, pfn);
		frameset_add(&fr->early, pfn);
	} else if (one_less(fr, pfn)) {
		frameset_add(&fr->pending[by_commit ? !fr->open : fr->open], pfn);
	}
	mutex_unlock(&fr->lock);
}

void frames_drop(struct frames *fr, pfn_t pfn, bool counted)
{
	drop(fr, pfn, counted, false);
}

void frames_drop_commit(struct frames *fr, pfn_t pfn, bool counted)
{
	drop(fr, pfn, counted, true);
}

/* ------------------------------------------------------------------ generations */

/* The first run of the set, SLICE frames of it at most; 0: it is empty. */
static uint64_t first_run(const struct frameset *fs, uint64_t *pfn)
{
	*pfn = frameset_next(fs, 0);
	return *pfn == FRAMESET_END ? 0 : frameset_run(fs, *pfn, SLICE);
}

static void move_run(struct frameset *from, struct frameset *to, uint64_t pfn, uint64_t n)
{
	frameset_remove_run(from, pfn, n);
	frameset_add_run(to, pfn, n);
}

void frames_close_generation(struct frames *fr)
{
	uint64_t pfn, n;

	mutex_lock(&fr->lock);
	/* What a commit that failed has left is released with this generation, if ever. */
	while ((n = first_run(&fr->pending[!fr->open], &pfn)) > 0)
		move_run(&fr->pending[!fr->open], &fr->pending[fr->open], pfn, n);
	fr->taken[fr->open] += fr->taken[!fr->open];
	fr->taken[!fr->open] = 0;
	fr->open = !fr->open;
	mutex_unlock(&fr->lock);
}

static void become_free(struct frames *fr, uint64_t pfn, uint64_t n)
{
	move_run(&fr->pending[!fr->open], &fr->free, pfn, n);
	not_idle(fr, pfn, n);
	for (uint64_t i = n > WARM ? pfn + n - WARM : pfn;
	     i < pfn + n && region_kind(fr->rg) == REGION_MEMFD; i++)
		push_warm(fr, i);
}

void frames_release(struct frames *fr)
{
	uint64_t pfn, n;

	do {
		mutex_lock(&fr->lock);
		n = first_run(&fr->pending[!fr->open], &pfn);
		if (n)
			become_free(fr, pfn, n);
		else
			fr->taken[!fr->open] = 0;
		mutex_unlock(&fr->lock);
	} while (n);
	fill_reserves(fr);
}

void frames_set_map_nodes(struct frames *fr, uint64_t nodes)
{
	mutex_lock(&fr->lock);
	fr->nodes = nodes;
	mutex_unlock(&fr->lock);
}

/* ------------------------------------------------------------------ the scan */

void frames_scan_count(struct frames *fr, pfn_t pfn)
{
	mutex_lock(&fr->lock);
	if (pfn >= fr->resolved && pfn < fr->old)
		one_more(fr, pfn);
	mutex_unlock(&fr->lock);
}

/* Old frames [fr->resolved, end), which the host has space for or not. */
static void resolve(struct frames *fr, uint64_t end, bool backed)
{
	while (fr->resolved < end) {
		mutex_lock(&fr->lock);
		for (uint64_t stop = MIN(fr->resolved + SLICE, end); fr->resolved < stop;
		     fr->resolved++) {
			uint64_t pfn = fr->resolved;

			if (*count_of(fr, pfn)) {
				frameset_remove(&fr->early, pfn);
				continue;
			}
			/* Given up since the open: the durable state may still need it. */
			if (frameset_remove(&fr->early, pfn))
				frameset_add(&fr->pending[fr->open], pfn);
			else
				frameset_add(backed ? &fr->free : &fr->punched, pfn);
		}
		mutex_unlock(&fr->lock);
	}
}

void frames_scan_done(struct frames *fr)
{
	mutex_lock(&fr->grow);
	while (fr->resolved < fr->old) {
		uint64_t start, stop;

		if (region_next_backed(fr->rg, fr->resolved, fr->old, &start, &stop)) {
			/* They can be backed once more without harm. */
			start = stop = fr->old;
		}
		resolve(fr, start, false);
		resolve(fr, MAX(stop, start), true);
	}
	atomic_store(&fr->scanned, true);
	mutex_unlock(&fr->grow);
	fill_reserves(fr);
}

bool frames_scanned(const struct frames *fr)
{
	return atomic_load(&fr->scanned);
}

/* ------------------------------------------------------------------ open and close */

static int init(struct frames *fr)
{
	uint64_t most = region_reserved(fr->rg);
	struct frameset *sets[] = {
		&fr->free,       &fr->punched,   &fr->pending[0],
		&fr->pending[1], &fr->recent[0], &fr->recent[1],
	};
	int rc = lazy_init(&fr->counts, (size_t)(most * sizeof(uint32_t)));

	for (size_t i = 0; !rc && i < ARRAY_SIZE(sets); i++)
		rc = frameset_init(sets[i], most);
	if (!rc)
		rc = frameset_init(&fr->early, fr->old);
	if (!rc)
		rc = frameset_extend(&fr->early, fr->old);
	if (!rc)
		rc = extend(fr, fr->old);
	return rc;
}

int frames_new(struct frames **out, struct region *rg, uint64_t old_frames)
{
	struct frames *fr = calloc(1, sizeof(*fr));
	int rc;

	if (!fr)
		return -ENOMEM;
	mutex_init(&fr->grow, LOCK_GROW);
	mutex_init(&fr->lock, LOCK_FRAME);
	fr->rg = rg;
	fr->old = MAX(old_frames, PMFS_FIRST_FRAME);
	fr->resolved = PMFS_FIRST_FRAME;
	fr->cursor = fr->old;
	fr->period_ns = units_monotonic_ns();
	atomic_init(&fr->total, fr->old);
	atomic_init(&fr->mark, fr->old);
	atomic_init(&fr->scanned, fr->old == PMFS_FIRST_FRAME);
	rc = 0;
	if (region_frames(rg) < fr->old)
		rc = region_kind(rg) == REGION_MEMFD ? region_grow(rg, fr->old) : -EIO;
	if (!rc)
		rc = init(fr);
	if (rc) {
		frames_free(fr);
		return rc;
	}
	if (!region_readonly(rg))
		fill_reserves(fr);
	*out = fr;
	return 0;
}

void frames_free(struct frames *fr)
{
	if (!fr)
		return;
	lazy_destroy(&fr->counts);
	frameset_destroy(&fr->free);
	frameset_destroy(&fr->punched);
	frameset_destroy(&fr->early);
	for (size_t i = 0; i < 2; i++) {
		frameset_destroy(&fr->pending[i]);
		frameset_destroy(&fr->recent[i]);
	}
	mutex_destroy(&fr->lock);
	mutex_destroy(&fr->grow);
	free(fr);
}

/* ------------------------------------------------------------------ giving back */

static void next_period(struct frames *fr, unsigned int idle_ms)
{
	int64_t now = units_monotonic_ns();
	struct frameset older = fr->recent[1];

	if (now - fr->period_ns < (int64_t)idle_ms * 1000000)
		return;
	frameset_clear(&older);
	fr->recent[1] = fr->recent[0];
	fr->recent[0] = older;
	fr->period_ns = now;
}

/* The first run of free frames at or behind *pfn that were idle; 0: none. */
static uint64_t idle_run(const struct frames *fr, bool any, uint64_t *pfn)
{
	while ((*pfn = frameset_next(&fr->free, *pfn)) != FRAMESET_END) {
		uint64_t n = frameset_run(&fr->free, *pfn, SLICE);

		for (size_t i = 0; n && !any && i < ARRAY_SIZE(fr->recent); i++) {
			uint64_t busy = frameset_next(&fr->recent[i], *pfn);

			if (busy == *pfn) {
				*pfn += frameset_run(&fr->recent[i], busy, UINT64_MAX);
				n = 0;
			} else {
				n = MIN(n, busy - *pfn);
			}
		}
		if (n)
			return n;
	}
	return 0;
}

/* LOCK_GROW is held, LOCK_FRAME is not.  Frames punched, or an error. */
static int punch_some(struct frames *fr, bool any, uint64_t *from, uint64_t max, uint64_t *done)
{
	uint64_t keep, n = 0;
	int rc;

	mutex_lock(&fr->lock);
	keep = needed(fr, FRAME_NORMAL, 0) + TRIM_SLACK;
	if (fr->free.count > keep)
		n = MIN(idle_run(fr, any, from), MIN(max, fr->free.count - keep));
	if (n) {
		frameset_remove_run(&fr->free, *from, n);
		fr->moving += n;
	}
	mutex_unlock(&fr->lock);
	*done = n;
	if (!n)
		return 0;

	rc = region_punch(fr->rg, *from, n);

	mutex_lock(&fr->lock);
	frameset_add_run(rc ? &fr->free : &fr->punched, *from, n);
	fr->moving -= n;
	mutex_unlock(&fr->lock);
	*from += n;
	return rc;
}

uint64_t frames_trim(struct frames *fr, unsigned idle_ms, uint64_t max)
{
	uint64_t from = 0, total = 0, done;

	if (region_readonly(fr->rg) || region_error(fr->rg))
		return 0;
	mutex_lock(&fr->grow);
	mutex_lock(&fr->lock);
	next_period(fr, idle_ms);
	mutex_unlock(&fr->lock);
	while (total < max && punch_some(fr, !idle_ms, &from, max - total, &done) == 0 && done)
		total += done;
	mutex_unlock(&fr->grow);
	fill_reserves(fr);
	return total;
}

/* ------------------------------------------------------------------ what there is */

uint64_t frames_high_water(const struct frames *fr)
{
	return atomic_load(&fr->mark);
}

void frames_stat(const struct frames *fr, struct frame_stats *out)
{
	uint64_t host = region_host_free(fr->rg) / PMFS_PAGE_SIZE;
	uint64_t idle, more;

	mutex_lock(lock_of(fr));
	*out = (struct frame_stats){
		.free = fr->free.count,
		.pending = fr->pending[0].count + fr->pending[1].count,
		.punched = fr->punched.count + fr->moving,
		.promised = fr->promised,
		.kept = kept_all(fr),
		.shared = fr->shared,
		.sharing = fr->sharing,
		.total = fr->total,
		.limit = region_limit(fr->rg),
		.map_reserve = map_reserve(fr, 0),
		.freeing_reserve = freeing_reserve(fr),
		.scanned = atomic_load(&fr->scanned),
	};
	idle = needed(fr, FRAME_NORMAL, 0);
	mutex_unlock(lock_of(fr));
	out->used = out->total - out->free - out->pending - out->punched;
	more = out->punched + (out->limit > out->total ? out->limit - out->total : 0);
	more = out->free + MIN(more, host);
	out->available = more > idle ? more - idle : 0;
}

static int check_frame(const struct frames *fr, pfn_t pfn, uint32_t want)
{
	uint32_t count = *count_of(fr, pfn);
	int places = frameset_has(&fr->free, pfn) + frameset_has(&fr->punched, pfn) +
		     frameset_has(&fr->pending[0], pfn) + frameset_has(&fr->pending[1], pfn);

	if (count != want || places != (count == 0))
		return -EUCLEAN;
	return count && pfn >= fr->mark ? -EUCLEAN : 0;
}

static int check_locked(const struct frames *fr, const uint32_t *counts, uint64_t n, pfn_t *bad)
{
	uint64_t idle = fr->free.count + fr->punched.count + fr->pending[0].count +
			fr->pending[1].count;
	uint64_t used = PMFS_FIRST_FRAME, shared = 0, sharing = 0;

	for (pfn_t pfn = PMFS_FIRST_FRAME; pfn < MAX(n, fr->total); pfn++) {
		uint32_t want = pfn < n ? counts[pfn] : 0;

		if (pfn >= fr->total ? want != 0 : check_frame(fr, pfn, want) != 0) {
			*bad = pfn;
			return -EUCLEAN;
		}
		used += want > 0;
		shared += want > 1;
		sharing += want > 1 ? want - 1 : 0;
	}
	if (used + idle != fr->total || shared != fr->shared || sharing != fr->sharing ||
	    fr->promised > fr->free.count || fr->early.count) {
		*bad = PFN_NONE;
		return -EUCLEAN;
	}
	return 0;
}

int frames_check(const struct frames *fr, const uint32_t *counts, uint64_t n, pfn_t *bad)
{
	int rc;

	mutex_lock(grow_of(fr));
	mutex_lock(lock_of(fr));
	rc = atomic_load(&fr->scanned) ? check_locked(fr, counts, n, bad) : -EAGAIN;
	mutex_unlock(lock_of(fr));
	mutex_unlock(grow_of(fr));
	return rc;
}
