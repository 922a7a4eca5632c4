/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/dir_page.h"

#include <errno.h>
#include <string.h>

#include "base/hash.h"

#define RECORD_HEAD offsetof(struct pmfs_dir_record, name)

#ifdef PMFS_FAULTS
uint64_t dir_test_hash_mask = UINT64_MAX;
#endif

uint64_t dir_key(const char *name, size_t len)
{
	uint64_t hash = hash64(name, len) >> 9;

#ifdef PMFS_FAULTS
	hash &= dir_test_hash_mask;
#endif
	/* Keys below PMFS_DIR_KEY_MIN are "." and "..". */
	return (hash ? hash : 1) << 8;
}

static uint64_t slot_key(const union dir_page *pg, unsigned i)
{
	return le64_get(pg->leaf.slot[i].key);
}

static uint64_t child_key(const union dir_page *pg, unsigned i)
{
	return le64_get(pg->node.child[i].key);
}

static size_t slots_end(unsigned count)
{
	return sizeof(struct pmfs_dir_header) + count * sizeof(struct pmfs_dir_slot);
}

int dir_head_check(const union dir_page *pg)
{
	const uint32_t magic = le32_get(pg->head.magic);
	const unsigned count = dir_count(pg), level = dir_level(pg);
	const size_t heap = le16_get(pg->head.heap), waste = le16_get(pg->head.waste);

	if (count == 0 || count > DIR_SLOTS || level >= DIR_LEVELS)
		return -EUCLEAN;
	if (level)
		return magic == PMFS_DIR_NODE ? 0 : -EUCLEAN;
	if (magic != PMFS_DIR_LEAF || heap > PMFS_PAGE_SIZE || heap < slots_end(count) ||
	    waste > PMFS_PAGE_SIZE - heap)
		return -EUCLEAN;
	return 0;
}

int dir_leaf_check(const union dir_page *pg, uint64_t lower, uint64_t upper)
{
	const unsigned count = dir_count(pg);
	size_t sum = le16_get(pg->head.waste);
	uint64_t next = lower < PMFS_DIR_KEY_MIN ? PMFS_DIR_KEY_MIN : lower;
	struct dir_rec rec;

	for (unsigned i = 0; i < count; i++) {
		if (slot_key(pg, i) < next || slot_key(pg, i) >= upper ||
		    dir_leaf_get(pg, i, &rec))
			return -EUCLEAN;
		next = slot_key(pg, i) + 1;
		sum += RECORD_HEAD + rec.name_len;
	}
	/* Records that overlap could add up to more than a page when they are moved together. */
	return sum == PMFS_PAGE_SIZE - (size_t)le16_get(pg->head.heap) ? 0 : -EUCLEAN;
}

int dir_node_check(const union dir_page *pg, uint64_t lower, uint64_t upper, uint64_t pages)
{
	const unsigned count = dir_count(pg);

	for (unsigned i = 0; i < count; i++) {
		const uint64_t page = le64_get(pg->node.child[i].page);

		if (page == 0 || page >= pages)
			return -EUCLEAN;
		if (i == 0 ? child_key(pg, i) != 0
			   : child_key(pg, i) <= lower || child_key(pg, i) >= upper)
			return -EUCLEAN;
		if (i)
			lower = child_key(pg, i);
	}
	return 0;
}

unsigned dir_leaf_search(const union dir_page *pg, uint64_t key)
{
	unsigned lo = 0, hi = dir_count(pg);

	while (lo < hi) {
		const unsigned mid = (lo + hi) / 2;

		if (slot_key(pg, mid) < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

unsigned dir_node_search(const union dir_page *pg, uint64_t key)
{
	unsigned lo = 0, hi = dir_count(pg);

	while (hi - lo > 1) {
		const unsigned mid = (lo + hi) / 2;

		if (child_key(pg, mid) <= key)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

int dir_leaf_get(const union dir_page *pg, unsigned i, struct dir_rec *out)
{
	const struct pmfs_dir_slot *slot = &pg->leaf.slot[i];
	const size_t at = le16_get(slot->at);
	le64 ino;

	if (at < le16_get(pg->head.heap) || at + RECORD_HEAD > PMFS_PAGE_SIZE)
		return -EUCLEAN;
	/* Records have no alignment. */
	memcpy(&ino, pg->bytes + at, sizeof(ino));
	out->key = le64_get(slot->key);
	out->ino = le64_get(ino);
	out->type = slot->type;
	out->name_len = pg->bytes[at + offsetof(struct pmfs_dir_record, name_len)];
	out->name = pg->bytes + at + RECORD_HEAD;
	if (out->name_len == 0 || at + RECORD_HEAD + out->name_len > PMFS_PAGE_SIZE)
		return -EUCLEAN;
	return 0;
}

void dir_page_init(union dir_page *pg, unsigned level)
{
	memset(pg, 0, sizeof(*pg));
	le32_put(&pg->head.magic, level ? PMFS_DIR_NODE : PMFS_DIR_LEAF);
	le16_put(&pg->head.level, (uint16_t)level);
	if (!level)
		le16_put(&pg->head.heap, PMFS_PAGE_SIZE);
}

void dir_root_put(union dir_page *pg, uint64_t pages, uint64_t free_page)
{
	le32_put(&pg->head.pages, (uint32_t)pages);
	le64_put(&pg->head.free_page, free_page);
}

/* Behind the last entry; there is room. */
static void leaf_append(union dir_page *pg, const struct dir_rec *rec)
{
	const unsigned count = dir_count(pg);
	const size_t at = le16_get(pg->head.heap) - RECORD_HEAD - rec->name_len;
	struct pmfs_dir_slot *slot = &pg->leaf.slot[count];
	const le64 ino = le64_make(rec->ino);

	memcpy(pg->bytes + at, &ino, sizeof(ino));
	pg->bytes[at + offsetof(struct pmfs_dir_record, name_len)] = rec->name_len;
	memcpy(pg->bytes + at + RECORD_HEAD, rec->name, rec->name_len);
	memset(slot, 0, sizeof(*slot));
	le64_put(&slot->key, rec->key);
	le16_put(&slot->at, (uint16_t)at);
	slot->type = rec->type;
	le16_put(&pg->head.heap, (uint16_t)at);
	le16_put(&pg->head.count, (uint16_t)(count + 1));
}

/* A checked leaf anew, without waste; the fields of a root stay. */
static void leaf_compact(union dir_page *pg)
{
	union dir_page old = *pg;
	struct dir_rec rec;

	dir_page_init(pg, 0);
	dir_root_put(pg, le32_get(old.head.pages), le64_get(old.head.free_page));
	for (unsigned i = 0; i < dir_count(&old); i++) {
		if (dir_leaf_get(&old, i, &rec) == 0)
			leaf_append(pg, &rec);
	}
}

bool dir_leaf_insert(union dir_page *pg, unsigned at, const struct dir_rec *rec)
{
	const size_t need = RECORD_HEAD + rec->name_len;
	const unsigned count = dir_count(pg);
	struct pmfs_dir_slot slot;

	if (count == DIR_SLOTS || slots_end(count + 1) + need >
				  (size_t)le16_get(pg->head.heap) + le16_get(pg->head.waste))
		return false;
	if (slots_end(count + 1) + need > le16_get(pg->head.heap))
		leaf_compact(pg);
	leaf_append(pg, rec);
	slot = pg->leaf.slot[count];
	memmove(&pg->leaf.slot[at + 1], &pg->leaf.slot[at], (count - at) * sizeof(slot));
	pg->leaf.slot[at] = slot;
	return true;
}

void dir_leaf_split(union dir_page *pg, union dir_page *right, unsigned at,
		    const struct dir_rec *rec)
{
	const union dir_page old = *pg;
	const unsigned count = dir_count(&old);
	const size_t entry = sizeof(struct pmfs_dir_slot) + RECORD_HEAD;
	size_t total = slots_end(count) - slots_end(0) + PMFS_PAGE_SIZE - le16_get(old.head.heap) -
		       le16_get(old.head.waste) + entry + rec->name_len;
	size_t sum = 0;

	dir_page_init(pg, 0);
	dir_page_init(right, 0);
	/* An entry is far smaller than half a page, so both halves fit and neither is empty. */
	for (unsigned i = 0; i <= count; i++) {
		struct dir_rec r = *rec;

		if (i != at && dir_leaf_get(&old, i < at ? i : i - 1, &r))
			continue;
		leaf_append(sum < total / 2 ? pg : right, &r);
		sum += entry + r.name_len;
	}
}

void dir_leaf_remove(union dir_page *pg, unsigned at)
{
	const unsigned count = dir_count(pg);
	struct dir_rec rec;

	if (dir_leaf_get(pg, at, &rec) == 0)
		le16_put(&pg->head.waste,
			 (uint16_t)(le16_get(pg->head.waste) + RECORD_HEAD + rec.name_len));
	memmove(&pg->leaf.slot[at], &pg->leaf.slot[at + 1],
		(count - at - 1) * sizeof(struct pmfs_dir_slot));
	memset(&pg->leaf.slot[count - 1], 0, sizeof(struct pmfs_dir_slot));
	le16_put(&pg->head.count, (uint16_t)(count - 1));
}

void dir_leaf_replace(union dir_page *pg, unsigned at, uint64_t ino, uint8_t type)
{
	const le64 to = le64_make(ino);

	memcpy(pg->bytes + le16_get(pg->leaf.slot[at].at), &to, sizeof(to));
	pg->leaf.slot[at].type = type;
}

static struct pmfs_dir_child child_make(uint64_t key, uint64_t page)
{
	return (struct pmfs_dir_child){ .key = le64_make(key), .page = le64_make(page) };
}

bool dir_node_insert(union dir_page *pg, unsigned at, uint64_t key, uint64_t page)
{
	const unsigned count = dir_count(pg);

	if (count == DIR_SLOTS)
		return false;
	memmove(&pg->node.child[at + 1], &pg->node.child[at],
		(count - at) * sizeof(struct pmfs_dir_child));
	pg->node.child[at] = child_make(key, page);
	le16_put(&pg->head.count, (uint16_t)(count + 1));
	return true;
}

uint64_t dir_node_split(union dir_page *pg, union dir_page *right, unsigned at, uint64_t key,
			uint64_t page)
{
	const unsigned half = (DIR_SLOTS + 1) / 2;
	struct pmfs_dir_child all[DIR_SLOTS + 1];
	uint64_t middle;

	memcpy(all, pg->node.child, at * sizeof(all[0]));
	all[at] = child_make(key, page);
	memcpy(all + at + 1, &pg->node.child[at], (DIR_SLOTS - at) * sizeof(all[0]));
	middle = le64_get(all[half].key);
	all[half].key = le64_make(0);

	dir_page_init(right, dir_level(pg));
	dir_page_init(pg, dir_level(pg));
	memcpy(pg->node.child, all, half * sizeof(all[0]));
	le16_put(&pg->head.count, (uint16_t)half);
	memcpy(right->node.child, all + half, (DIR_SLOTS + 1 - half) * sizeof(all[0]));
	le16_put(&right->head.count, (uint16_t)(DIR_SLOTS + 1 - half));
	return middle;
}

void dir_node_remove(union dir_page *pg, unsigned at)
{
	const unsigned count = dir_count(pg);

	memmove(&pg->node.child[at], &pg->node.child[at + 1],
		(count - at - 1) * sizeof(struct pmfs_dir_child));
	memset(&pg->node.child[count - 1], 0, sizeof(struct pmfs_dir_child));
	/* The first child has all that is below the second. */
	if (at == 0 && count > 1)
		pg->node.child[0].key = le64_make(0);
	le16_put(&pg->head.count, (uint16_t)(count - 1));
}
