/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/pagemap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

struct pagemap_chunk {
	_Atomic(struct map_leaf *) leaf[1u << PAGEMAP_CHUNK_SHIFT];
	uint32_t end; /* none of these is in memory from here on; guarded by map_lock */
	uint16_t free[1u << PAGEMAP_CHUNK_SHIFT]; /* guarded by vpn_lock */
};

#define CHUNK_MASK ((UINT64_C(1) << PAGEMAP_CHUNK_SHIFT) - 1)
#define LEAF_MASK  (PMFS_MAP_FANOUT - 1)

static bool abit_test(const _Atomic uint64_t *map, unsigned int i)
{
	return (atomic_load_explicit(&map[i / 64], memory_order_acquire) >> (i % 64)) & 1;
}

static void abit_set(_Atomic uint64_t *map, unsigned int i)
{
	atomic_fetch_or_explicit(&map[i / 64], UINT64_C(1) << (i % 64), memory_order_release);
}

static void abit_clear(_Atomic uint64_t *map, unsigned int i)
{
	atomic_fetch_and_explicit(&map[i / 64], ~(UINT64_C(1) << (i % 64)), memory_order_release);
}

int pagemap_init(struct pagemap *pm, struct region *rg, struct frames *fr, const struct super *sb,
		 struct pmfs_delta *deltas, uint64_t n)
{
	memset(pm, 0, sizeof(*pm));
	pm->chunk = calloc(PAGEMAP_CHUNKS, sizeof(*pm->chunk));
	if (!pm->chunk)
		return -ENOMEM;
	pm->rg = rg;
	pm->fr = fr;
	pm->old_frames = sb->frames;
	mutex_init(&pm->map_lock, LOCK_MAP);
	mutex_init(&pm->vpn_lock, LOCK_VPN);
	for (unsigned int i = 0; i < PAGEMAP_STRIPES; i++)
		mutex_init(&pm->stripe[i], LOCK_MAPLEAF);
	maptree_init(&pm->tree, rg, &pm->map_lock);
	pm->tree.root = sb->map_root;
	pm->tree.checksum = sb->map_checksum;
	pm->tree.height = sb->map_height;
	pm->tree.vpn_limit = sb->vpn_limit;
	pm->acc = deltas;
	pm->acc_count = n;
	for (uint64_t i = 0; i < n; i++)
		le64_put(&pm->acc[i].vpn, le64_get(pm->acc[i].vpn) & ~PMFS_DELTA_NEW);
	if (sb->map_height || n)
		pm->old_leaves = DIV_ROUND_UP(sb->vpn_limit, PMFS_MAP_FANOUT);
	atomic_init(&pm->vpn_limit, pm->old_leaves << PMFS_MAP_SHIFT);
	pm->cursor = pm->old_leaves;
	frames_set_map_nodes(fr, pagemap_frames(pm));
	return 0;
}

void pagemap_destroy(struct pagemap *pm)
{
	for (uint64_t c = 0; c < PAGEMAP_CHUNKS; c++) {
		struct pagemap_chunk *chunk = atomic_load(&pm->chunk[c]);

		if (!chunk)
			continue;
		for (uint32_t i = 0; i < chunk->end; i++)
			free(atomic_load_explicit(&chunk->leaf[i], memory_order_relaxed));
		free(chunk);
	}
	free(pm->chunk);
	free(pm->acc);
	free(pm->lost);
	maptree_destroy(&pm->tree);
	for (unsigned int i = 0; i < PAGEMAP_STRIPES; i++)
		mutex_destroy(&pm->stripe[i]);
	mutex_destroy(&pm->vpn_lock);
	mutex_destroy(&pm->map_lock);
}

/*
 * Frames that the scan has not seen can't be given out again, so that until it is over, nodes which
 * a commit has replaced are still missing from what the next one could use: twice the number then.
 */
uint64_t pagemap_frames(const struct pagemap *pm)
{
	const uint64_t n = maptree_bound(atomic_load(&pm->vpn_limit));

	return atomic_load(&pm->scanned) ? n : 2 * n;
}

/* The chunk of a leaf; NULL only for want of memory. */
static struct pagemap_chunk *chunk_get(struct pagemap *pm, uint64_t index)
{
	_Atomic(struct pagemap_chunk *) *at = &pm->chunk[index >> PAGEMAP_CHUNK_SHIFT];
	struct pagemap_chunk *chunk = atomic_load_explicit(at, memory_order_acquire);
	struct pagemap_chunk *fresh;

	if (chunk)
		return chunk;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return NULL;
	if (atomic_compare_exchange_strong(at, &chunk, fresh))
		return fresh;
	free(fresh);
	return chunk;
}

static struct map_leaf *leaf_in_memory(struct pagemap *pm, uint64_t index)
{
	struct pagemap_chunk *chunk = atomic_load_explicit(&pm->chunk[index >> PAGEMAP_CHUNK_SHIFT],
							   memory_order_acquire);

	return chunk ? atomic_load_explicit(&chunk->leaf[index & CHUNK_MASK], memory_order_acquire)
		     : NULL;
}

struct mutex *pagemap_leaf_lock(struct pagemap *pm, const struct map_leaf *leaf)
{
	return &pm->stripe[leaf->index % PAGEMAP_STRIPES];
}

/* Position of the first change in acc for a page at or above vpn. */
static uint64_t acc_find(const struct pagemap *pm, vpn_t vpn)
{
	uint64_t lo = 0;
	uint64_t hi = pm->acc_count;

	while (lo < hi) {
		const uint64_t mid = lo + (hi - lo) / 2;

		if (le64_get(pm->acc[mid].vpn) < vpn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* G1: a leaf that is not in memory, out of tree and acc.  Caller holds map_lock.  1: has something;
 * 0: all free. */
static int leaf_compose(struct pagemap *pm, uint64_t index,
			struct pmfs_map_entry entry[PMFS_MAP_FANOUT])
{
	int rc = maptree_read_leaf(&pm->tree, index, entry);

	if (rc < 0)
		return rc;
	for (uint64_t i = acc_find(pm, index << PMFS_MAP_SHIFT); i < pm->acc_count; i++) {
		const vpn_t vpn = le64_get(pm->acc[i].vpn);

		if (vpn >> PMFS_MAP_SHIFT != index)
			break;
		entry[vpn & LEAF_MASK] = pm->acc[i].entry;
		rc = 1;
	}
	return rc;
}

static int leaf_load(struct pagemap *pm, uint64_t index, struct map_leaf **out)
{
	struct pmfs_map_entry entry[PMFS_MAP_FANOUT];
	struct pagemap_chunk *chunk = chunk_get(pm, index);
	struct map_leaf *leaf;
	int rc = 0;

	if (!chunk)
		return -ENOMEM;
	mutex_lock(&pm->map_lock);
	leaf = leaf_in_memory(pm, index);
	if (leaf)
		goto out;
	rc = leaf_compose(pm, index, entry);
	if (rc < 0)
		goto out;
	leaf = calloc(1, sizeof(*leaf));
	if (!leaf) {
		rc = -ENOMEM;
		goto out;
	}
	for (unsigned int i = 0; i < PMFS_MAP_FANOUT; i++) {
		atomic_init(&leaf->where[i], le64_get(entry[i].where));
		leaf->hash[i] = le64_get(entry[i].hash);
	}
	leaf->index = index;
	leaf->counted = index >= pm->old_leaves || index < atomic_load(&pm->scan_next);
	atomic_store_explicit(&chunk->leaf[index & CHUNK_MASK], leaf, memory_order_release);
	chunk->end = MAX(chunk->end, (uint32_t)(index & CHUNK_MASK) + 1);
	atomic_fetch_add_explicit(&pm->in_memory, 1, memory_order_relaxed);
out:
	mutex_unlock(&pm->map_lock);
	if (rc < 0)
		return rc;
	*out = leaf;
	return 0;
}

static int leaf_get(struct pagemap *pm, uint64_t index, struct map_leaf **out)
{
	struct map_leaf *leaf = leaf_in_memory(pm, index);

	if (!leaf)
		return leaf_load(pm, index, out);
	*out = leaf;
	return 0;
}

int pagemap_leaf(struct pagemap *pm, vpn_t vpn, struct map_leaf **out)
{
	if (vpn == VPN_NONE || vpn >= atomic_load_explicit(&pm->vpn_limit, memory_order_acquire))
		return -EUCLEAN;
	return leaf_get(pm, vpn >> PMFS_MAP_SHIFT, out);
}

/*
 * Is there nothing in the tree and acc of the chunk that begins at this leaf?  A chunk is what one
 * node of level 2 covers.  Caller holds map_lock.
 */
static bool chunk_unused(struct pagemap *pm, uint64_t index)
{
	static_assert(PAGEMAP_CHUNK_SHIFT == 2 * PMFS_MAP_SHIFT, "a node of level 2 is a chunk");
	const uint64_t acc = acc_find(pm, index << PMFS_MAP_SHIFT);
	pfn_t pfn = PFN_NONE;

	if (atomic_load(&pm->chunk[index >> PAGEMAP_CHUNK_SHIFT]))
		return false;
	if (acc < pm->acc_count && le64_get(pm->acc[acc].vpn) >> PMFS_MAP_SHIFT >>
						   PAGEMAP_CHUNK_SHIFT ==
					   index >> PAGEMAP_CHUNK_SHIFT)
		return false;
	if (pm->tree.height <= 2)
		return index || !pm->tree.height;
	return !maptree_node(&pm->tree, 2, index >> PAGEMAP_CHUNK_SHIFT, &pfn) && pfn == PFN_NONE;
}

uint64_t pagemap_next(struct pagemap *pm, uint64_t index)
{
	const uint64_t end = DIV_ROUND_UP(atomic_load(&pm->vpn_limit), PMFS_MAP_FANOUT);

	if (index >= end || atomic_load(&pm->chunk[index >> PAGEMAP_CHUNK_SHIFT]))
		return MIN(index, end);
	mutex_lock(&pm->map_lock);
	while (index < end && chunk_unused(pm, index & ~CHUNK_MASK))
		index = (index | CHUNK_MASK) + 1;
	mutex_unlock(&pm->map_lock);
	return MIN(index, end);
}

void pagemap_forget(struct pagemap *pm, uint64_t most)
{
	if (atomic_load(&pm->in_memory) <= most)
		return;
	mutex_lock(&pm->map_lock);
	for (uint64_t c = 0; c < PAGEMAP_CHUNKS; c++) {
		struct pagemap_chunk *chunk = atomic_load(&pm->chunk[c]);

		for (uint32_t i = 0; chunk && i < chunk->end; i++) {
			free(atomic_load(&chunk->leaf[i]));
			atomic_store(&chunk->leaf[i], NULL);
		}
		if (chunk)
			chunk->end = 0;
	}
	atomic_store(&pm->in_memory, 0);
	mutex_unlock(&pm->map_lock);
}

/* ------------------------------------------------------------------ free page numbers */

/* Have `n` more (or fewer) free pages in a leaf whose chunk is there.  Caller holds vpn_lock. */
static void free_set(struct pagemap *pm, uint64_t index, uint16_t n)
{
	struct pagemap_chunk *chunk = atomic_load(&pm->chunk[index >> PAGEMAP_CHUNK_SHIFT]);
	uint16_t *at = &chunk->free[index & CHUNK_MASK];

	pm->free_total = pm->free_total - *at + n;
	*at = n;
}

static uint16_t free_get(const struct pagemap *pm, uint64_t index)
{
	const struct pagemap_chunk *chunk = atomic_load(&pm->chunk[index >> PAGEMAP_CHUNK_SHIFT]);

	return chunk ? chunk->free[index & CHUNK_MASK] : 0;
}

/* A leaf more at the end of the page map. */
static int vpn_extend(struct pagemap *pm)
{
	const uint64_t limit = atomic_load(&pm->vpn_limit);
	const uint64_t index = limit >> PMFS_MAP_SHIFT;

	if (limit >= SUPER_MAX_VPN)
		return -ENOSPC;
	if (!chunk_get(pm, index))
		return -ENOMEM;
	/* Page 0 is never given out. */
	free_set(pm, index, index ? PMFS_MAP_FANOUT : PMFS_MAP_FANOUT - 1);
	atomic_store_explicit(&pm->vpn_limit, limit + PMFS_MAP_FANOUT, memory_order_release);
	pm->cursor = index;
	frames_set_map_nodes(pm->fr, pagemap_frames(pm));
	return 0;
}

/*
 * Claim one free page of some leaf: the next in order, so that pages that are made together stand
 * in one leaf.  Leaves with room are looked for only when there are at least four free pages per
 * leaf on average, which bounds the search.
 */
static int vpn_claim(struct pagemap *pm, uint64_t *index)
{
	int rc = 0;

	mutex_lock(&pm->vpn_lock);
	const uint64_t leaves = atomic_load(&pm->vpn_limit) >> PMFS_MAP_SHIFT;

	if (pm->cursor >= leaves || free_get(pm, pm->cursor) == 0) {
		if (pm->free_total > 0 && pm->free_total >= 4 * leaves) {
			do {
				pm->cursor = pm->cursor + 1 >= leaves ? 0 : pm->cursor + 1;
			} while (free_get(pm, pm->cursor) == 0);
		} else {
			rc = vpn_extend(pm);
		}
	}
	if (!rc) {
		*index = pm->cursor;
		free_set(pm, pm->cursor, (uint16_t)(free_get(pm, pm->cursor) - 1));
	}
	mutex_unlock(&pm->vpn_lock);
	return rc;
}

static void vpn_give_back(struct pagemap *pm, uint64_t index)
{
	mutex_lock(&pm->vpn_lock);
	free_set(pm, index, (uint16_t)(free_get(pm, index) + 1));
	mutex_unlock(&pm->vpn_lock);
}

/* ------------------------------------------------------------------ changes of entries */

bool pagemap_counted(const struct pagemap *pm, const struct map_leaf *leaf, pfn_t pfn)
{
	return pfn >= pm->old_frames || leaf->counted || atomic_load(&pm->scanned);
}

static void count_page(struct pagemap *pm, const struct map_leaf *leaf, int64_t pages,
		       int64_t holes)
{
	if (!leaf->counted)
		return; /* the scan will find it as it is then */
	atomic_fetch_add_explicit(&pm->pages, (uint64_t)pages, memory_order_relaxed);
	atomic_fetch_add_explicit(&pm->holes, (uint64_t)holes, memory_order_relaxed);
}

/* Have the entry in the list of the open generation. */
static void mark_changed(struct pagemap *pm, struct map_leaf *leaf, unsigned int i)
{
	if (bit_test(leaf->changed, i))
		return;
	bit_set(leaf->changed, i);
	atomic_fetch_add_explicit(&pm->changed, 1, memory_order_relaxed);
	if (leaf->listed)
		return;
	leaf->listed = true;
	/* The list is only pushed to while transactions run, and emptied between them. */
	leaf->next_changed = atomic_load_explicit(&pm->changed_leaves, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&pm->changed_leaves, &leaf->next_changed,
						      leaf, memory_order_release,
						      memory_order_relaxed))
		;
}

static void mark_born(struct pagemap *pm, struct map_leaf *leaf, unsigned int i)
{
	if (!abit_test(leaf->born, i))
		atomic_fetch_add_explicit(&pm->born, 1, memory_order_relaxed);
	bit_set(leaf->nohash, i);
	abit_set(leaf->verified, i);
	abit_set(leaf->born, i);
}

static void where_set(struct map_leaf *leaf, unsigned int i, uint64_t where)
{
	atomic_store_explicit(&leaf->where[i], where, memory_order_release);
}

static uint64_t where_get(const struct map_leaf *leaf, unsigned int i)
{
	return atomic_load_explicit(&leaf->where[i], memory_order_acquire);
}

int pagemap_add(struct pagemap *pm, pfn_t pfn, vpn_t *out)
{
	struct map_leaf *leaf;
	uint64_t index;
	unsigned int i;
	int rc;

	rc = vpn_claim(pm, &index);
	if (rc)
		return rc;
	rc = leaf_get(pm, index, &leaf);
	if (rc) {
		vpn_give_back(pm, index);
		return rc;
	}
	mutex_lock(pagemap_leaf_lock(pm, leaf));
	/* G6: the claim says that there is one. */
	for (i = leaf->hint; where_get(leaf, i) || (index == 0 && i == 0);)
		i = (i + 1) & LEAF_MASK;
	leaf->hint = (uint8_t)((i + 1) & LEAF_MASK);
	leaf->hash[i] = 0;
	where_set(leaf, i, where_make(pfn, 1));
	if (pfn != PFN_NONE)
		mark_born(pm, leaf, i);
	mark_changed(pm, leaf, i);
	count_page(pm, leaf, 1, pfn == PFN_NONE);
	mutex_unlock(pagemap_leaf_lock(pm, leaf));
	*out = (index << PMFS_MAP_SHIFT) + i;
	return 0;
}

bool pagemap_is_kept(const struct map_leaf *leaf, unsigned int i)
{
	const uint64_t where = where_get(leaf, i);

	return where_refs(where) && where_pfn(where) == PFN_NONE && leaf->hash[i] == PMFS_HASH_KEPT;
}

void pagemap_set_kept(struct pagemap *pm, struct map_leaf *leaf, unsigned int i, bool kept)
{
	mutex_assert_held(pagemap_leaf_lock(pm, leaf));
	if (where_pfn(where_get(leaf, i)) != PFN_NONE || kept == pagemap_is_kept(leaf, i))
		return;
	leaf->hash[i] = kept ? PMFS_HASH_KEPT : 0;
	mark_changed(pm, leaf, i);
	frames_keep(pm->fr, kept ? 1 : -1, 0);
}

void pagemap_set_frame(struct pagemap *pm, struct map_leaf *leaf, unsigned int i, pfn_t pfn)
{
	const uint64_t old = where_get(leaf, i);

	mutex_assert_held(pagemap_leaf_lock(pm, leaf));
	pagemap_set_kept(pm, leaf, i, false);
	where_set(leaf, i, where_make(pfn, where_refs(old)));
	mark_born(pm, leaf, i);
	mark_changed(pm, leaf, i);
	if (where_pfn(old) != PFN_NONE)
		frames_drop(pm->fr, where_pfn(old), pagemap_counted(pm, leaf, where_pfn(old)));
	else
		count_page(pm, leaf, 0, -1);
}

void pagemap_set_merged(struct pagemap *pm, struct map_leaf *leaf, unsigned int i, pfn_t pfn,
			uint64_t hash)
{
	const uint64_t old = where_get(leaf, i);

	mutex_assert_held(pagemap_leaf_lock(pm, leaf));
	where_set(leaf, i, where_make(pfn, where_refs(old)));
	leaf->hash[i] = hash;
	abit_set(leaf->verified, i);
	mark_changed(pm, leaf, i);
	if (pfn == PFN_NONE)
		count_page(pm, leaf, 0, 1);
	frames_drop(pm->fr, where_pfn(old), pagemap_counted(pm, leaf, where_pfn(old)));
}

void pagemap_set_refs(struct pagemap *pm, struct map_leaf *leaf, unsigned int i, uint64_t refs)
{
	mutex_assert_held(pagemap_leaf_lock(pm, leaf));
	where_set(leaf, i, where_make(where_pfn(where_get(leaf, i)), refs));
	mark_changed(pm, leaf, i);
}

void pagemap_remove(struct pagemap *pm, struct map_leaf *leaf, unsigned int i)
{
	const uint64_t old = where_get(leaf, i);

	mutex_assert_held(pagemap_leaf_lock(pm, leaf));
	pagemap_set_kept(pm, leaf, i, false);
	where_set(leaf, i, 0);
	leaf->hash[i] = 0;
	bit_clear(leaf->nohash, i);
	if (abit_test(leaf->born, i)) {
		abit_clear(leaf->born, i);
		atomic_fetch_sub_explicit(&pm->born, 1, memory_order_relaxed);
	}
	mark_changed(pm, leaf, i);
	count_page(pm, leaf, -1, where_pfn(old) == PFN_NONE ? -1 : 0);
	if (where_pfn(old) != PFN_NONE)
		frames_drop(pm->fr, where_pfn(old), pagemap_counted(pm, leaf, where_pfn(old)));
	if (leaf->counted && !pm->salvage)
		vpn_give_back(pm, leaf->index);
}

int pagemap_peek(struct pagemap *pm, uint64_t index, struct pagemap_copy *out)
{
	struct pmfs_map_entry entry[PMFS_MAP_FANOUT];
	struct map_leaf *leaf;
	int rc = 1;

	mutex_lock(&pm->map_lock);
	leaf = leaf_in_memory(pm, index);
	if (!leaf)
		rc = leaf_compose(pm, index, entry);
	mutex_unlock(&pm->map_lock);
	if (rc <= 0)
		return rc;
	if (!leaf) {
		memset(out, 0, sizeof(*out));
		for (unsigned int i = 0; i < PMFS_MAP_FANOUT; i++) {
			out->where[i] = le64_get(entry[i].where);
			out->hash[i] = le64_get(entry[i].hash);
		}
		return 1;
	}
	mutex_lock(pagemap_leaf_lock(pm, leaf));
	for (unsigned int i = 0; i < PMFS_MAP_FANOUT; i++)
		out->where[i] = where_get(leaf, i);
	memcpy(out->hash, leaf->hash, sizeof(out->hash));
	memcpy(out->nohash, leaf->nohash, sizeof(out->nohash));
	for (unsigned int w = 0; w < ARRAY_SIZE(out->verified); w++)
		out->verified[w] = atomic_load(&leaf->verified[w]);
	mutex_unlock(pagemap_leaf_lock(pm, leaf));
	return 1;
}

int pagemap_verify(struct pagemap *pm, uint64_t index, uint32_t *level)
{
	int good = 0;
	int rc = 0;

	mutex_lock(&pm->map_lock);
	for (*level = 0; *level < pm->tree.height; ++*level) {
		if (index & ((UINT64_C(1) << (PMFS_MAP_SHIFT * *level)) - 1))
			break;
		rc = maptree_verify(&pm->tree, *level, index >> (PMFS_MAP_SHIFT * *level));
		if (rc < 0)
			break;
		good += rc;
	}
	mutex_unlock(&pm->map_lock);
	return rc < 0 ? rc : good;
}

void pagemap_distrust(struct pagemap *pm, vpn_t vpn, pfn_t pfn)
{
	struct map_leaf *leaf = leaf_in_memory(pm, vpn >> PMFS_MAP_SHIFT);
	const unsigned int i = vpn & LEAF_MASK;

	if (!leaf)
		return;
	mutex_lock(pagemap_leaf_lock(pm, leaf));
	if (where_pfn(where_get(leaf, i)) == pfn && !bit_test(leaf->nohash, i))
		abit_clear(leaf->verified, i);
	mutex_unlock(pagemap_leaf_lock(pm, leaf));
}

/* ------------------------------------------------------------------ commit */

static int leaf_order(const void *a, const void *b)
{
	const struct map_leaf *const *x = a;
	const struct map_leaf *const *y = b;

	return ((*x)->index > (*y)->index) - ((*x)->index < (*y)->index);
}

int pagemap_capture_room(struct pagemap *pm, uint64_t more, struct pagemap_room *room)
{
	uint64_t leaves = more; /* each of these pages could be in another one */

	for (struct map_leaf *l = atomic_load(&pm->changed_leaves); l; l = l->next_changed)
		leaves++;
	room->pages = atomic_load(&pm->changed) + more;
	room->deltas = calloc(MAX(room->pages, 1), sizeof(*room->deltas));
	room->leaves = calloc(MAX(leaves, 1), sizeof(struct map_leaf *));
	if (room->deltas && room->leaves)
		return 0;
	pagemap_capture_cancel(room);
	return -ENOMEM;
}

void pagemap_capture_cancel(struct pagemap_room *room)
{
	free(room->deltas);
	free(room->leaves);
}

void pagemap_capture(struct pagemap *pm, struct pagemap_room *room, struct pmfs_delta **out,
		     uint64_t *count)
{
	struct pmfs_delta *const deltas = room->deltas;
	struct map_leaf **const leaves = room->leaves;
	uint64_t nleaves = 0;
	uint64_t at = 0;

	assert(atomic_load(&pm->changed) <= room->pages);
	for (struct map_leaf *l = atomic_load(&pm->changed_leaves); l; l = l->next_changed)
		leaves[nleaves++] = l;
	atomic_store(&pm->changed_leaves, NULL);
	qsort(leaves, nleaves, sizeof(struct map_leaf *), leaf_order);

	for (uint64_t k = 0; k < nleaves; k++) {
		struct map_leaf *leaf = leaves[k];

		mutex_lock(pagemap_leaf_lock(pm, leaf));
		for (uint64_t i = bit_find_set(leaf->changed, PMFS_MAP_FANOUT, 0);
		     i < PMFS_MAP_FANOUT; i = bit_find_set(leaf->changed, PMFS_MAP_FANOUT, i + 1)) {
			const bool is_new = abit_test(leaf->born, (unsigned int)i);
			const vpn_t vpn = (leaf->index << PMFS_MAP_SHIFT) + i;

			le64_put(&deltas[at].vpn, is_new ? vpn | PMFS_DELTA_NEW : vpn);
			le64_put(&deltas[at].entry.where, where_get(leaf, (unsigned int)i));
			le64_put(&deltas[at].entry.hash, is_new ? 0 : leaf->hash[i]);
			at++;
		}
		memset(leaf->changed, 0, sizeof(leaf->changed));
		for (unsigned int w = 0; w < ARRAY_SIZE(leaf->born); w++)
			atomic_store_explicit(&leaf->born[w], 0, memory_order_release);
		leaf->listed = false;
		leaf->next_changed = NULL;
		mutex_unlock(pagemap_leaf_lock(pm, leaf));
	}
	atomic_store(&pm->changed, 0);
	atomic_store(&pm->born, 0);
	free(leaves);
	*out = deltas;
	*count = at;
}

void pagemap_settle(struct pagemap *pm, const struct pmfs_delta *deltas, uint64_t n)
{
	uint64_t at = 0;

	while (at < n) {
		const uint64_t index =
			(le64_get(deltas[at].vpn) & ~PMFS_DELTA_NEW) >> PMFS_MAP_SHIFT;
		struct map_leaf *leaf = leaf_in_memory(pm, index);

		mutex_lock(pagemap_leaf_lock(pm, leaf));
		for (; at < n; at++) {
			const vpn_t vpn = le64_get(deltas[at].vpn) & ~PMFS_DELTA_NEW;
			const unsigned int i = vpn & LEAF_MASK;

			if (vpn >> PMFS_MAP_SHIFT != index)
				break;
			/* A frame that the page has left since is not given out before the next
			 * commit: the same frame is the same contents. */
			if (!(le64_get(deltas[at].vpn) & PMFS_DELTA_NEW) ||
			    where_pfn(where_get(leaf, i)) !=
				    where_pfn(le64_get(deltas[at].entry.where)))
				continue;
			leaf->hash[i] = le64_get(deltas[at].entry.hash);
			bit_clear(leaf->nohash, i);
		}
		mutex_unlock(pagemap_leaf_lock(pm, leaf));
	}
}

struct pmfs_delta *pagemap_merge(const struct pagemap *pm, const struct pmfs_delta *deltas,
				 uint64_t n, uint64_t *count)
{
	struct pmfs_delta *all = calloc(pm->acc_count + n + 1, sizeof(*all));
	uint64_t a = 0;
	uint64_t d = 0;
	uint64_t at = 0;

	if (!all)
		return NULL;
	while (a < pm->acc_count || d < n) {
		const vpn_t va = a < pm->acc_count ? le64_get(pm->acc[a].vpn) : UINT64_MAX;
		const vpn_t vd = d < n ? le64_get(deltas[d].vpn) & ~PMFS_DELTA_NEW : UINT64_MAX;

		if (va < vd) {
			all[at++] = pm->acc[a++];
		} else {
			all[at++] = deltas[d++];
			if (va == vd)
				a++;
		}
	}
	*count = at;
	return all;
}

void pagemap_set_acc(struct pagemap *pm, struct pmfs_delta *acc, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		le64_put(&acc[i].vpn, le64_get(acc[i].vpn) & ~PMFS_DELTA_NEW);
	mutex_lock(&pm->map_lock);
	free(pm->acc);
	pm->acc = acc;
	pm->acc_count = n;
	mutex_unlock(&pm->map_lock);
}

/* Has the scan been over that node?  It counts one when it comes to the first leaf below it. */
static bool node_counted(const struct pagemap *pm, uint32_t level, uint64_t index, pfn_t pfn)
{
	return pfn >= pm->old_frames || atomic_load(&pm->scanned) ||
	       index << (PMFS_MAP_SHIFT * level) < atomic_load(&pm->scan_next);
}

static void node_replaced(void *arg, uint32_t level, uint64_t index, pfn_t old, pfn_t now)
{
	struct pagemap *pm = arg;
	const bool known = old != PFN_NONE && node_counted(pm, level, index, old);

	if (now != PFN_NONE && !known)
		atomic_fetch_add(&pm->nodes, 1);
	if (now == PFN_NONE && known)
		atomic_fetch_sub(&pm->nodes, 1);
	if (old != PFN_NONE)
		frames_drop_commit(pm->fr, old, known);
}

void pagemap_set_tree(struct pagemap *pm, const struct maptree_update *up)
{
	mutex_lock(&pm->map_lock);
	maptree_apply(&pm->tree, up, node_replaced, pm);
	free(pm->acc);
	pm->acc = NULL;
	pm->acc_count = 0;
	mutex_unlock(&pm->map_lock);
}

/* ------------------------------------------------------------------ the scan */

/* Count the nodes that begin at this leaf.  Caller holds map_lock. */
static int scan_nodes(struct pagemap *pm, uint64_t index)
{
	for (uint32_t level = 0; level < pm->tree.height; level++) {
		pfn_t pfn;
		int rc;

		if (index & ((UINT64_C(1) << (PMFS_MAP_SHIFT * level)) - 1))
			break;
		rc = maptree_node(&pm->tree, level, index >> (PMFS_MAP_SHIFT * level), &pfn);
		if (rc)
			return rc;
		if (pfn == PFN_NONE)
			continue;
		/* Behind what the slot counts there are only nodes that we have written. */
		if (pfn >= pm->old_frames) {
			if (!frames_count(pm->fr, pfn))
				return -ELOOP;
			continue;
		}
		/* Pages come after the nodes above them, so it could be a page's, too. */
		if (frames_count(pm->fr, pfn))
			return -ELOOP;
		frames_scan_count(pm->fr, pfn);
		atomic_fetch_add(&pm->nodes, 1);
	}
	return 0;
}

/* Caller holds map_lock, so that the leaf is neither read nor written meanwhile; its entries can
 * change when it is in memory. */
static int scan_leaf(struct pagemap *pm, uint64_t index)
{
	struct map_leaf *leaf = leaf_in_memory(pm, index);
	struct pmfs_map_entry entry[PMFS_MAP_FANOUT];
	uint16_t nfree = 0;
	int rc;

	if (!leaf) {
		rc = leaf_compose(pm, index, entry);
		if (rc < 0)
			return rc;
	}
	rc = scan_nodes(pm, index);
	if (rc)
		return rc;
	if (leaf)
		mutex_lock(pagemap_leaf_lock(pm, leaf));
	for (unsigned int i = 0; i < PMFS_MAP_FANOUT; i++) {
		const uint64_t where = leaf ? where_get(leaf, i) : le64_get(entry[i].where);
		const pfn_t pfn = where_pfn(where);

		if (!where_refs(where)) {
			if (index || i)
				nfree++;
			continue;
		}
		if (pfn != PFN_NONE && pfn < pm->old_frames)
			frames_scan_count(pm->fr, pfn);
		atomic_fetch_add_explicit(&pm->pages, 1, memory_order_relaxed);
		if (pfn == PFN_NONE)
			atomic_fetch_add_explicit(&pm->holes, 1, memory_order_relaxed);
	}
	if (leaf)
		leaf->counted = true;
	mutex_lock(&pm->vpn_lock);
	free_set(pm, index, pm->salvage ? 0 : nfree);
	mutex_unlock(&pm->vpn_lock);
	atomic_store(&pm->scan_next, index + 1);
	if (leaf)
		mutex_unlock(pagemap_leaf_lock(pm, leaf));
	return 0;
}

int pagemap_scan(struct pagemap *pm, uint64_t max)
{
	int rc = 0;

	if (atomic_load(&pm->scanned))
		return 1;
	while (max-- > 0) {
		bool done;

		mutex_lock(&pm->map_lock);
		const uint64_t next = atomic_load(&pm->scan_next);

		done = next >= pm->old_leaves;
		if (!done && !(next & CHUNK_MASK) && chunk_unused(pm, next)) {
			rc = scan_nodes(pm, next);
			if (!rc)
				atomic_store(&pm->scan_next, next + CHUNK_MASK + 1);
		} else if (!done && !chunk_get(pm, next)) {
			rc = -ENOMEM;
		} else if (!done) {
			rc = scan_leaf(pm, next);
		} else if (!atomic_exchange(&pm->scanned, true)) {
			frames_scan_done(pm->fr);
		}
		mutex_unlock(&pm->map_lock);
		if (rc)
			return rc;
		if (done) {
			mutex_lock(&pm->vpn_lock);
			frames_set_map_nodes(pm->fr, pagemap_frames(pm));
			mutex_unlock(&pm->vpn_lock);
			return 1;
		}
	}
	return 0;
}

/* ------------------------------------------------------------------ repair */

/* From the tree, with map_lock held. */
static void note_lost(void *arg, vpn_t first, uint64_t count, const char *why)
{
	struct pagemap *pm = arg;
	vpn_t *more;

	pm->lost_said(pm->lost_arg, first, count, why);
	if (!(pm->lost_count & (pm->lost_count - 1))) {
		more = realloc(pm->lost, MAX(pm->lost_count * 2, 1) * sizeof(*more));
		if (!more) {
			pm->lost_failed = true;
			return;
		}
		pm->lost = more;
	}
	/* One entry of it is enough to have it written; page 0 is none. */
	pm->lost[pm->lost_count++] = MAX(first, 1);
}

void pagemap_salvage(struct pagemap *pm,
		     void (*said)(void *arg, vpn_t first, uint64_t pages, const char *why), void *arg)
{
	pm->salvage = true;
	pm->lost_said = said;
	pm->lost_arg = arg;
	pm->tree.salvage = true;
	pm->tree.lost = note_lost;
	pm->tree.lost_arg = pm;
}

int pagemap_salvaged(struct pagemap *pm)
{
	int rc = 0;

	/* Everything has been read once. */
	mutex_lock(&pm->map_lock);
	pm->tree.lost = NULL;
	mutex_unlock(&pm->map_lock);
	if (pm->lost_failed)
		return -ENOMEM;
	for (uint64_t i = 0; i < pm->lost_count && !rc; i++) {
		struct map_leaf *leaf;

		if (pm->lost[i] >= atomic_load(&pm->vpn_limit))
			continue;
		rc = leaf_get(pm, pm->lost[i] >> PMFS_MAP_SHIFT, &leaf);
		if (rc)
			break;
		mutex_lock(pagemap_leaf_lock(pm, leaf));
		mark_changed(pm, leaf, pm->lost[i] & LEAF_MASK);
		mutex_unlock(pagemap_leaf_lock(pm, leaf));
	}
	return rc;
}
