/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_counts.h - for each page a count of pointers and a byte of the owner's, for checks of whole
 * images: 2 bytes a page.
 *
 * Memory comes in blocks of 65536 pages when the first of them is written to, so numbers that no
 * page has cost nothing.  Counts from 255 on are in a table of their own; pages with so many
 * pointers are few.  No locks.
 */
#ifndef PMFS_TREE_PAGE_COUNTS_H
#define PMFS_TREE_PAGE_COUNTS_H

#include <stddef.h>
#include <stdint.h>

#include "pmfs/format.h"

struct page_counts_block;

struct page_counts {
	vpn_t limit; /* numbers are below it */
	struct page_counts_block **block;
	struct page_count {
		vpn_t vpn; /* 0: free */
		uint64_t count;
	} * many;		     /* a hash table, open addressing */
	size_t many_size, many_used; /* size: a power of two */
};

/* All zero.  -ENOMEM. */
int page_counts_init(struct page_counts *pc, vpn_t limit);
void page_counts_free(struct page_counts *pc); /* also of one that is all zero */
void page_counts_clear(struct page_counts *pc);

uint64_t page_counts_get(const struct page_counts *pc, vpn_t vpn);
uint8_t page_counts_role(const struct page_counts *pc, vpn_t vpn);
void page_counts_zero(struct page_counts *pc, vpn_t vpn); /* its count */
/* -ENOMEM. */
int page_counts_add(struct page_counts *pc, vpn_t vpn);
int page_counts_set_role(struct page_counts *pc, vpn_t vpn, uint8_t role);

#endif
