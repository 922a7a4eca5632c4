/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lazy.h - an array that never moves: addresses for its largest size are reserved at once, and
 * become usable, as zeros, when they are asked for.  What was not asked for is not charged to the
 * process, and what was never stored to takes no memory.
 *
 * No locks: who extends an array keeps others out that could extend it at the same time; readers of
 * the part that is usable go on.
 */
#ifndef PMFS_STORE_LAZY_H
#define PMFS_STORE_LAZY_H

#include <stddef.h>

struct lazy {
	void *at;
	size_t reserved; /* bytes */
	size_t usable;   /* bytes; may be read and written */
};

/* Reserve; nothing is usable.  -ENOMEM. */
int lazy_init(struct lazy *lz, size_t bytes);
/*
 * Make at least the first `bytes` usable, no more than were reserved.  -ENOMEM, and nothing has
 * changed.
 */
int lazy_extend(struct lazy *lz, size_t bytes);
/* Also for one that is all zero. */
void lazy_destroy(struct lazy *lz);

#endif
