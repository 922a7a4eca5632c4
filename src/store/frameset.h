/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * frameset.h - a set of frame numbers that is quick to search however sparse it is.
 * Level 0 has one bit a frame; a bit of a higher level says that a word of the level below is not
 * zero.  So the next member is found in a few steps in a set of billions, and an empty stretch
 * costs nothing.
 *
 * No locks: the owner has one.  Members are below the size that frameset_extend() was last told.
 */
#ifndef PMFS_STORE_FRAMESET_H
#define PMFS_STORE_FRAMESET_H

#include <stdbool.h>
#include <stdint.h>

#include "store/lazy.h"

#define FRAMESET_LEVELS 7
#define FRAMESET_END UINT64_MAX

struct frameset {
	struct lazy level[FRAMESET_LEVELS];
	unsigned int levels;
	uint64_t count; /* members */
};

/* An empty set for numbers below capacity (2^42 at most).  -ENOMEM. */
int frameset_init(struct frameset *fs, uint64_t capacity);
/* Also for one that is all zero. */
void frameset_destroy(struct frameset *fs);
/* From now on numbers below size may be members.  -ENOMEM, and nothing has changed. */
int frameset_extend(struct frameset *fs, uint64_t size);

bool frameset_has(const struct frameset *fs, uint64_t n);
/* Both: true when it was not so before. */
bool frameset_add(struct frameset *fs, uint64_t n);
bool frameset_remove(struct frameset *fs, uint64_t n);
/* None of [from, from + n) is a member. */
void frameset_add_run(struct frameset *fs, uint64_t from, uint64_t n);
/* All of [from, from + n) are members. */
void frameset_remove_run(struct frameset *fs, uint64_t from, uint64_t n);
void frameset_clear(struct frameset *fs);

/* The smallest member that is at least from; FRAMESET_END. */
uint64_t frameset_next(const struct frameset *fs, uint64_t from);
/* How many members stand in a row from n on, itself a member; counts no further than max. */
uint64_t frameset_run(const struct frameset *fs, uint64_t n, uint64_t max);

#endif
