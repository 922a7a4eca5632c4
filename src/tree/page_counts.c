/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/page_counts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

#define BLOCK_SHIFT 16
#define BLOCK_PAGES (1u << BLOCK_SHIFT)
#define BLOCK_MASK  (BLOCK_PAGES - 1)
#define MANY	    255u /* the count is in the table */

struct page_counts_block {
	uint8_t count[BLOCK_PAGES];
	uint8_t role[BLOCK_PAGES];
};

int page_counts_init(struct page_counts *pc, vpn_t limit)
{
	*pc = (struct page_counts){.limit = limit};
	pc->block = calloc(DIV_ROUND_UP(limit, BLOCK_PAGES) + 1, sizeof(*pc->block));
	return pc->block ? 0 : -ENOMEM;
}

void page_counts_clear(struct page_counts *pc)
{
	for (uint64_t i = 0; pc->block && i < DIV_ROUND_UP(pc->limit, BLOCK_PAGES); i++) {
		free(pc->block[i]);
		pc->block[i] = NULL;
	}
	free(pc->many);
	pc->many = NULL;
	pc->many_size = pc->many_used = 0;
}

void page_counts_free(struct page_counts *pc)
{
	page_counts_clear(pc);
	free(pc->block);
	pc->block = NULL;
}

static struct page_counts_block *block_get(struct page_counts *pc, vpn_t vpn)
{
	struct page_counts_block **at = &pc->block[vpn >> BLOCK_SHIFT];

	assert(vpn < pc->limit);
	if (!*at)
		*at = calloc(1, sizeof(**at));
	return *at;
}

/* The page's place in the table, or the one where it would be. */
static struct page_count *many_find(struct page_count *many, size_t size, vpn_t vpn)
{
	size_t i = (size_t)(vpn * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (size - 1);

	while (many[i].vpn && many[i].vpn != vpn)
		i = (i + 1) & (size - 1);
	return &many[i];
}

static int many_set(struct page_counts *pc, vpn_t vpn, uint64_t count)
{
	const size_t size = pc->many_size ? pc->many_size * 2 : 64;
	struct page_count *at, *more;

	if (pc->many_used * 2 >= pc->many_size) {
		more = calloc(size, sizeof(*more));
		if (!more)
			return -ENOMEM;
		for (size_t i = 0; i < pc->many_size; i++)
			if (pc->many[i].vpn)
				*many_find(more, size, pc->many[i].vpn) = pc->many[i];
		free(pc->many);
		pc->many = more;
		pc->many_size = size;
	}
	at = many_find(pc->many, pc->many_size, vpn);
	pc->many_used += !at->vpn;
	*at = (struct page_count){vpn, count};
	return 0;
}

uint64_t page_counts_get(const struct page_counts *pc, vpn_t vpn)
{
	const struct page_counts_block *bl = vpn < pc->limit ? pc->block[vpn >> BLOCK_SHIFT] : NULL;

	if (!bl)
		return 0;
	if (bl->count[vpn & BLOCK_MASK] < MANY)
		return bl->count[vpn & BLOCK_MASK];
	return many_find(pc->many, pc->many_size, vpn)->count;
}

uint8_t page_counts_role(const struct page_counts *pc, vpn_t vpn)
{
	const struct page_counts_block *bl = vpn < pc->limit ? pc->block[vpn >> BLOCK_SHIFT] : NULL;

	return bl ? bl->role[vpn & BLOCK_MASK] : 0;
}

int page_counts_add(struct page_counts *pc, vpn_t vpn)
{
	struct page_counts_block *bl = block_get(pc, vpn);
	uint8_t *count;
	int rc = 0;

	if (!bl)
		return -ENOMEM;
	count = &bl->count[vpn & BLOCK_MASK];
	if (*count >= MANY - 1)
		rc = many_set(pc, vpn, page_counts_get(pc, vpn) + 1);
	if (!rc && *count < MANY)
		++*count;
	return rc;
}

void page_counts_zero(struct page_counts *pc, vpn_t vpn)
{
	if (pc->block[vpn >> BLOCK_SHIFT])
		pc->block[vpn >> BLOCK_SHIFT]->count[vpn & BLOCK_MASK] = 0;
}

int page_counts_set_role(struct page_counts *pc, vpn_t vpn, uint8_t role)
{
	struct page_counts_block *bl = block_get(pc, vpn);

	if (!bl)
		return -ENOMEM;
	bl->role[vpn & BLOCK_MASK] = role;
	return 0;
}
