/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/page.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/store_impl.h"

/* Pages that are made in one go. */
#define NEW_RUN 256u

static const uint8_t zeros[PMFS_PAGE_SIZE] __attribute__((aligned(PMFS_PAGE_SIZE)));

static unsigned int slot_of(vpn_t vpn)
{
	return (unsigned int)(vpn % PMFS_MAP_FANOUT);
}

static struct mutex *page_lock(struct store *st, vpn_t vpn)
{
	return &st->page_lock[vpn % STORE_PAGE_LOCKS];
}

static uint64_t where_of(const struct map_leaf *leaf, unsigned int i)
{
	return atomic_load_explicit(&leaf->where[i], memory_order_acquire);
}

static bool flag(const _Atomic uint64_t *map, unsigned int i)
{
	return (atomic_load_explicit(&map[i / 64], memory_order_acquire) >> (i % 64)) & 1;
}

/* The frame that the page has now needs no check.  Caller holds the leaf's lock. */
static void set_verified(struct map_leaf *leaf, unsigned int i)
{
	atomic_fetch_or_explicit(&leaf->verified[i / 64], UINT64_C(1) << (i % 64),
				 memory_order_release);
}

/* A page that has not been looked at since the image was opened: P4.  The caller keeps its frame
 * from being reused. */
static int page_check(struct store *st, struct map_leaf *leaf, vpn_t vpn, pfn_t *pfn)
{
	struct mutex *lock = pagemap_leaf_lock(&st->pm, leaf);
	const unsigned int i = slot_of(vpn);
	uint64_t where, want, hash;
	bool known;
	int rc;

	/* Frame and hash must be of one moment. */
	mutex_lock(lock);
	where = where_of(leaf, i);
	want = leaf->hash[i];
	known = flag(leaf->verified, i);
	/* Zeros need no proof, and whatever replaces them is written by us (G4). */
	if (where_refs(where) && where_pfn(where) == PFN_NONE)
		set_verified(leaf, i);
	mutex_unlock(lock);
	*pfn = where_pfn(where);
	if (!where_refs(where))
		return -EUCLEAN;
	if (known || *pfn == PFN_NONE)
		return 0;
	rc = region_hash(st->rg, *pfn, &hash);
	if (rc) {
		log_limited(LOG_LEVEL_ERR, "page.read", "page %llu: frame %llu can't be read",
			    (unsigned long long)vpn, (unsigned long long)*pfn);
		store_note_bad(st, vpn);
		return rc;
	}
	atomic_fetch_add_explicit(&st->verified, 1, memory_order_relaxed);
	if (hash != want) {
		atomic_fetch_add_explicit(&st->bad_pages, 1, memory_order_relaxed);
		log_limited(LOG_LEVEL_ERR, "page.hash",
			    "page %llu: the contents of frame %llu do not match their hash",
			    (unsigned long long)vpn, (unsigned long long)*pfn);
		store_note_bad(st, vpn);
		return -EBADMSG;
	}
	mutex_lock(lock);
	if (where_pfn(where_of(leaf, i)) == *pfn)
		set_verified(leaf, i);
	mutex_unlock(lock);
	return 0;
}

/* The frame of a page whose contents can be trusted. */
static int page_locate(struct store *st, vpn_t vpn, pfn_t *pfn)
{
	struct map_leaf *leaf;
	uint64_t where;
	int rc;

	rc = pagemap_leaf(&st->pm, vpn, &leaf);
	if (rc)
		return rc;
	/* In this order: a frame that is seen after the bit is at least as new as the one it stands
	 * for (G4). */
	if (!flag(leaf->verified, slot_of(vpn)))
		return page_check(st, leaf, vpn, pfn);
	where = where_of(leaf, slot_of(vpn));
	if (!where_refs(where))
		return -EUCLEAN;
	*pfn = where_pfn(where);
	return 0;
}

int page_get(struct store *st, vpn_t vpn, const void **out)
{
	pfn_t pfn;
	int rc;

	rc = page_locate(st, vpn, &pfn);
	if (rc)
		return rc;
	*out = pfn == PFN_NONE ? zeros : region_at(st->rg, pfn);
	return 0;
}

int page_read(struct store *st, vpn_t vpn, size_t off, void *buf, size_t len)
{
	struct read_section rs;
	pfn_t pfn;
	int rc;

	assert(off <= PMFS_PAGE_SIZE && len <= PMFS_PAGE_SIZE - off);
	read_enter(st, &rs);
	rc = page_locate(st, vpn, &pfn);
	if (!rc && pfn == PFN_NONE)
		memset(buf, 0, len);
	else if (!rc)
		rc = region_copy_out(st->rg, pfn, off, buf, len);
	read_leave(st, &rs);
	return rc;
}

int page_is_hole(struct store *st, vpn_t vpn)
{
	struct map_leaf *leaf;
	uint64_t where;
	int rc;

	rc = pagemap_leaf(&st->pm, vpn, &leaf);
	if (rc)
		return rc;
	where = where_of(leaf, slot_of(vpn));
	return where_refs(where) ? where_pfn(where) == PFN_NONE : -EUCLEAN;
}

/* A frame out of the promise. */
static int take(struct txn *tx, pfn_t *pfn)
{
	if (!tx->promised) {
		/* The caller's count is wrong; better one frame late than half a change. */
		int rc = frames_reserve(tx->st->fr, FRAME_RECLAIM, 1);

		log_limited(LOG_LEVEL_ERR, "page.promise",
			    "a transaction needs more frames than it asked for");
#ifdef PMFS_DEBUG
		assert(tx->promised);
#endif
		if (rc)
			return -ENOSPC;
		tx->promised = 1;
	}
	*pfn = frames_take(tx->st->fr);
	tx->promised--;
	tx->taken++;
	return 0;
}

/* Fill a new frame. */
static int fill(struct txn *tx, const void *contents, pfn_t *pfn)
{
	int rc;

	rc = take(tx, pfn);
	if (rc)
		return rc;
	rc = region_write(tx->st->rg, *pfn, 0, contents, PMFS_PAGE_SIZE);
	if (rc) {
		frames_drop(tx->st->fr, *pfn, true);
		return store_fail(tx->st, "writing a page", rc);
	}
	return 0;
}

int page_new(struct txn *tx, const void *contents, vpn_t *out)
{
	pfn_t pfn = PFN_NONE;
	int rc;

	/* Zeros get their frame with the first write, out of the promise of that transaction. */
	if (contents) {
		rc = fill(tx, contents, &pfn);
		if (rc)
			return rc;
	}
	rc = pagemap_add(&tx->st->pm, pfn, out);
	if (rc && pfn != PFN_NONE)
		frames_drop(tx->st->fr, pfn, true);
	return rc;
}

/* Write n frames, those that stand in a row in one go. */
static int write_runs(struct store *st, const pfn_t *pfn, uint64_t n, const uint8_t *from)
{
	for (uint64_t at = 0; at < n;) {
		uint64_t run = 1;
		int rc;

		while (at + run < n && pfn[at + run] == pfn[at] + run)
			run++;
		rc = region_write(st->rg, pfn[at], 0, from + at * PMFS_PAGE_SIZE, run * PMFS_PAGE_SIZE);
		if (rc)
			return store_fail(st, "writing pages", rc);
		writeout_add(st->wo, pfn[at], run);
		at += run;
	}
	return 0;
}

int page_new_run(struct txn *tx, const void *contents, uint64_t n, vpn_t *out, uint64_t *made)
{
	const uint8_t *from = contents;
	struct store *st = tx->st;
	pfn_t pfn[NEW_RUN];
	int rc = 0;

	*made = 0;
	while (!rc && *made < n) {
		const uint64_t want = MIN(n - *made, NEW_RUN);
		uint64_t taken = 0, added = 0;

		while (!rc && taken < want) {
			rc = take(tx, &pfn[taken]);
			taken += !rc;
		}
		if (!rc)
			rc = write_runs(st, pfn, taken, from + *made * PMFS_PAGE_SIZE);
		while (!rc && added < taken) {
			rc = pagemap_add(&st->pm, pfn[added], &out[*made]);
			if (!rc) {
				added++;
				++*made;
			}
		}
		while (added < taken)
			frames_drop(st->fr, pfn[added++], true);
	}
	return rc;
}

int page_new_kept(struct txn *tx, vpn_t *out)
{
	struct store *st = tx->st;
	uint64_t kept, paths;
	struct map_leaf *leaf;
	int rc;

	frames_kept(st->fr, &kept, &paths);
	if (!tx->promised || kept >= UINT32_MAX)
		return -ENOSPC;
	rc = pagemap_add(&st->pm, PFN_NONE, out);
	if (!rc)
		rc = pagemap_leaf(&st->pm, *out, &leaf);
	if (rc)
		return rc;
	mutex_lock(pagemap_leaf_lock(&st->pm, leaf));
	pagemap_set_kept(&st->pm, leaf, slot_of(*out), true);
	mutex_unlock(pagemap_leaf_lock(&st->pm, leaf));
	/* In this order: between the two it is counted twice, never not at all. */
	tx->promised--;
	frames_unreserve(st->fr, 1);
	return 0;
}

void page_keep_paths(struct txn *tx, uint64_t pages)
{
	frames_keep(tx->st->fr, 0, pages);
}

int page_unkeep(struct txn *tx, vpn_t vpn)
{
	struct pagemap *pm = &tx->st->pm;
	struct map_leaf *leaf;
	int rc;

	rc = pagemap_leaf(pm, vpn, &leaf);
	if (rc)
		return rc;
	mutex_lock(pagemap_leaf_lock(pm, leaf));
	pagemap_set_kept(pm, leaf, slot_of(vpn), false);
	mutex_unlock(pagemap_leaf_lock(pm, leaf));
	return 0;
}

bool page_any_kept(struct store *st)
{
	uint64_t kept, paths;

	frames_kept(st->fr, &kept, &paths);
	return kept;
}

int page_is_kept(struct store *st, vpn_t vpn)
{
	struct map_leaf *leaf;
	int rc;

	rc = pagemap_leaf(&st->pm, vpn, &leaf);
	if (rc)
		return rc;
	mutex_lock(pagemap_leaf_lock(&st->pm, leaf));
	rc = pagemap_is_kept(leaf, slot_of(vpn));
	mutex_unlock(pagemap_leaf_lock(&st->pm, leaf));
	return rc;
}

int page_copy(struct txn *tx, vpn_t from, vpn_t *out)
{
	uint8_t buf[PMFS_PAGE_SIZE];
	pfn_t pfn;
	int rc;

	rc = page_locate(tx->st, from, &pfn);
	if (rc)
		return rc;
	if (pfn == PFN_NONE)
		return page_new(tx, NULL, out);
	rc = region_copy_out(tx->st->rg, pfn, 0, buf, sizeof(buf));
	return rc ? rc : page_new(tx, buf, out);
}

/* The page has no frame of this generation: give it one with the new contents. */
static int write_moved(struct txn *tx, struct map_leaf *leaf, vpn_t vpn, size_t off,
		       const void *buf, size_t len)
{
	struct store *st = tx->st;
	struct mutex *lock = pagemap_leaf_lock(&st->pm, leaf);
	uint8_t page[PMFS_PAGE_SIZE];
	pfn_t pfn;
	int rc;

	if (len < PMFS_PAGE_SIZE) {
		rc = page_locate(st, vpn, &pfn);
		if (rc)
			return rc;
		if (pfn == PFN_NONE)
			memset(page, 0, sizeof(page));
		else
			rc = region_copy_out(st->rg, pfn, 0, page, sizeof(page));
		if (rc)
			return rc;
		memcpy(page + off, buf, len);
		buf = page;
	}
	rc = fill(tx, buf, &pfn);
	if (rc)
		return rc;
	mutex_lock(lock);
	pagemap_set_frame(&st->pm, leaf, slot_of(vpn), pfn);
	mutex_unlock(lock);
	return 0;
}

/* Into the frame that the page got in this generation (P3). */
static int write_in_place(struct txn *tx, struct map_leaf *leaf, vpn_t vpn, size_t off,
			  const void *buf, size_t len)
{
	const pfn_t pfn = where_pfn(where_of(leaf, slot_of(vpn)));
	int rc;

	rc = region_write(tx->st->rg, pfn, off, buf, len);
	return rc ? store_fail(tx->st, "writing a page", rc) : 0;
}

static int write_page(struct txn *tx, struct map_leaf *leaf, vpn_t vpn, size_t off, const void *buf,
		      size_t len)
{
	struct store *st = tx->st;
	int rc;

	if (!len)
		return 0;
	/* A born page stays born until the transaction ends, and nobody merges one: no lock. */
	if (flag(leaf->born, slot_of(vpn)))
		return write_in_place(tx, leaf, vpn, off, buf, len);
	mutex_lock(page_lock(st, vpn));
	if (flag(leaf->born, slot_of(vpn)))
		rc = write_in_place(tx, leaf, vpn, off, buf, len);
	else
		rc = write_moved(tx, leaf, vpn, off, buf, len);
	mutex_unlock(page_lock(st, vpn));
	return rc;
}

int page_write(struct txn *tx, vpn_t vpn, size_t off, const void *buf, size_t len)
{
	struct map_leaf *leaf;
	int rc;

	assert(off <= PMFS_PAGE_SIZE && len <= PMFS_PAGE_SIZE - off);
	rc = pagemap_leaf(&tx->st->pm, vpn, &leaf);
	if (rc)
		return rc;
	if (where_refs(where_of(leaf, slot_of(vpn))) != 1)
		return -EUCLEAN;
	return write_page(tx, leaf, vpn, off, buf, len);
}

int page_mend(struct txn *tx, vpn_t vpn, const void *contents)
{
	struct map_leaf *leaf;
	int rc;

	rc = pagemap_leaf(&tx->st->pm, vpn, &leaf);
	if (rc)
		return rc;
	if (!where_refs(where_of(leaf, slot_of(vpn))))
		return -EUCLEAN;
	return write_page(tx, leaf, vpn, 0, contents, PMFS_PAGE_SIZE);
}

int page_recount(struct txn *tx, vpn_t vpn, uint64_t refs)
{
	struct pagemap *pm = &tx->st->pm;
	struct map_leaf *leaf;
	uint64_t before;
	int rc;

	if (refs > PMFS_MAP_REFS_MAX)
		return -EMLINK;
	rc = pagemap_leaf(pm, vpn, &leaf);
	if (rc)
		return rc;
	mutex_lock(pagemap_leaf_lock(pm, leaf));
	before = where_refs(where_of(leaf, slot_of(vpn)));
	if (!before)
		rc = -EUCLEAN;
	else if (!refs)
		pagemap_remove(pm, leaf, slot_of(vpn));
	else if (refs != before)
		pagemap_set_refs(pm, leaf, slot_of(vpn), refs);
	mutex_unlock(pagemap_leaf_lock(pm, leaf));
	return rc;
}

int page_ref(struct txn *tx, vpn_t vpn)
{
	struct pagemap *pm = &tx->st->pm;
	struct map_leaf *leaf;
	uint64_t refs;
	int rc;

	rc = pagemap_leaf(pm, vpn, &leaf);
	if (rc)
		return rc;
	mutex_lock(pagemap_leaf_lock(pm, leaf));
	refs = where_refs(where_of(leaf, slot_of(vpn)));
	if (refs == 0)
		rc = -EUCLEAN;
	else if (refs >= PMFS_MAP_REFS_MAX)
		rc = -EMLINK;
	else
		pagemap_set_refs(pm, leaf, slot_of(vpn), refs + 1);
	mutex_unlock(pagemap_leaf_lock(pm, leaf));
	return rc;
}

int page_unref(struct txn *tx, vpn_t vpn, uint64_t *left)
{
	struct pagemap *pm = &tx->st->pm;
	struct map_leaf *leaf;
	uint64_t refs;
	int rc;

	rc = pagemap_leaf(pm, vpn, &leaf);
	if (rc)
		return rc;
	mutex_lock(pagemap_leaf_lock(pm, leaf));
	refs = where_refs(where_of(leaf, slot_of(vpn)));
	if (refs == 0)
		rc = -EUCLEAN;
	else if (refs == 1)
		pagemap_remove(pm, leaf, slot_of(vpn));
	else
		pagemap_set_refs(pm, leaf, slot_of(vpn), refs - 1);
	mutex_unlock(pagemap_leaf_lock(pm, leaf));
	if (!rc && left)
		*left = refs - 1;
	return rc;
}

int page_refs(struct store *st, vpn_t vpn, uint64_t *refs)
{
	struct map_leaf *leaf;
	int rc;

	rc = pagemap_leaf(&st->pm, vpn, &leaf);
	if (rc)
		return rc;
	*refs = where_refs(where_of(leaf, slot_of(vpn)));
	return 0;
}

/* Caller holds the leaf's lock. */
static void info_locked(const struct map_leaf *leaf, unsigned int i, struct page_info *out)
{
	const uint64_t where = where_of(leaf, i);

	out->refs = where_refs(where);
	out->pfn = where_pfn(where);
	out->hash = leaf->hash[i];
	out->dirty = bit_test(leaf->nohash, i);
}

int page_info(struct store *st, vpn_t vpn, struct page_info *out)
{
	struct map_leaf *leaf;
	int rc;

	rc = pagemap_leaf(&st->pm, vpn, &leaf);
	if (rc)
		return rc;
	mutex_lock(pagemap_leaf_lock(&st->pm, leaf));
	info_locked(leaf, slot_of(vpn), out);
	mutex_unlock(pagemap_leaf_lock(&st->pm, leaf));
	return out->refs ? 0 : -EUCLEAN;
}

bool page_frame_shared(struct store *st, vpn_t vpn)
{
	struct page_info info;

	return !page_info(st, vpn, &info) && info.pfn != PFN_NONE &&
	       frames_count(st->fr, info.pfn) > 1;
}

/* Both locks, or the one that they are. */
static void lock_pair(struct mutex *a, struct mutex *b)
{
	mutex_lock(a < b ? a : b);
	if (a != b)
		mutex_lock(a < b ? b : a);
}

static void unlock_pair(struct mutex *a, struct mutex *b)
{
	mutex_unlock(a);
	if (a != b)
		mutex_unlock(b);
}

static bool info_clean(const struct page_info *in)
{
	return in->refs && in->pfn != PFN_NONE && !in->dirty;
}

static bool info_same(const struct page_info *x, const struct page_info *y)
{
	return info_clean(x) && x->pfn == y->pfn && x->hash == y->hash;
}

/* Writers of both are kept out by the pages' locks; frames can't be reused, for we are in a
 * transaction. */
static int merge_locked(struct txn *tx, struct map_leaf *la, vpn_t a, struct map_leaf *lb, vpn_t b)
{
	struct store *st = tx->st;
	struct mutex *ka = pagemap_leaf_lock(&st->pm, la);
	struct mutex *kb = pagemap_leaf_lock(&st->pm, lb);
	struct page_info ia, ib, now_a, now_b;
	pfn_t pfn;
	int rc;

	lock_pair(ka, kb);
	info_locked(la, slot_of(a), &ia);
	info_locked(lb, slot_of(b), &ib);
	unlock_pair(ka, kb);
	if (!info_clean(&ia) || !info_clean(&ib) || ia.pfn == ib.pfn || ia.hash != ib.hash)
		return 0;
	rc = page_locate(st, a, &pfn);
	if (rc)
		return rc;
	rc = region_equal(st->rg, ia.pfn, ib.pfn);
	if (rc <= 0)
		return rc;
	lock_pair(ka, kb);
	info_locked(la, slot_of(a), &now_a);
	info_locked(lb, slot_of(b), &now_b);
	/* Their last pointers can have gone meanwhile.  The count of a frame must not run over
	 * either. */
	rc = info_same(&ia, &now_a) && info_same(&ib, &now_b) &&
	     frames_count(st->fr, ia.pfn) < UINT32_MAX / 2;
	if (rc) {
		frames_share(st->fr, ia.pfn);
		pagemap_set_merged(&st->pm, lb, slot_of(b), ia.pfn, ia.hash);
		atomic_fetch_add_explicit(&st->merged, 1, memory_order_relaxed);
	}
	unlock_pair(ka, kb);
	return rc;
}

int page_merge(struct txn *tx, vpn_t a, vpn_t b)
{
	struct store *st = tx->st;
	struct map_leaf *la, *lb;
	int rc;

	if (a == b || !store_scanned(st))
		return 0;
	rc = pagemap_leaf(&st->pm, a, &la);
	if (!rc)
		rc = pagemap_leaf(&st->pm, b, &lb);
	if (rc)
		return rc;
	lock_pair(page_lock(st, a), page_lock(st, b));
	rc = merge_locked(tx, la, a, lb, b);
	unlock_pair(page_lock(st, a), page_lock(st, b));
	return rc;
}

static int merge_zero_locked(struct txn *tx, struct map_leaf *leaf, vpn_t vpn)
{
	struct store *st = tx->st;
	struct mutex *lock = pagemap_leaf_lock(&st->pm, leaf);
	uint8_t page[PMFS_PAGE_SIZE];
	struct page_info was, now;
	int rc;

	mutex_lock(lock);
	info_locked(leaf, slot_of(vpn), &was);
	mutex_unlock(lock);
	if (!info_clean(&was) || was.hash != hash64(zeros, sizeof(zeros)))
		return 0;
	rc = region_copy_out(st->rg, was.pfn, 0, page, sizeof(page));
	if (rc)
		return rc;
	if (!mem_is_zero(page, sizeof(page)))
		return 0;
	mutex_lock(lock);
	info_locked(leaf, slot_of(vpn), &now);
	rc = info_same(&was, &now);
	if (rc) {
		pagemap_set_merged(&st->pm, leaf, slot_of(vpn), PFN_NONE, 0);
		atomic_fetch_add_explicit(&st->zero_merged, 1, memory_order_relaxed);
	}
	mutex_unlock(lock);
	return rc;
}

int page_merge_zero(struct txn *tx, vpn_t vpn)
{
	struct store *st = tx->st;
	struct map_leaf *leaf;
	int rc;

	if (!store_scanned(st))
		return 0;
	rc = pagemap_leaf(&st->pm, vpn, &leaf);
	if (rc)
		return rc;
	mutex_lock(page_lock(st, vpn));
	rc = merge_zero_locked(tx, leaf, vpn);
	mutex_unlock(page_lock(st, vpn));
	return rc;
}
