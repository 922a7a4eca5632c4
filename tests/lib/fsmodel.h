/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fsmodel.h - random work on a filesystem, played against a plain model in memory.
 *
 * The model is an array of nodes with their contents, and a copy of it for each snapshot.  A step
 * does one thing to both and compares the answers; model_differs() compares all there is.
 */
#ifndef PMFS_TESTS_FSMODEL_H
#define PMFS_TESTS_FSMODEL_H

#include "lib/fsfix.h"
#include "share/dedup.h"

#define MODEL_NODES   96u
#define MODEL_ENTRIES 20u
#define MODEL_SNAPS   5u
#define MODEL_XATTRS  3u
#define MODEL_PARTS   2u

struct blob; /* bytes that never change, counted */

struct mnode {
	uint32_t mode; /* 0: not in use */
	uint32_t nlink;
	uint64_t id;			/* in the live volume */
	bool known;			/* has one lookup, as if the kernel knew it */
	uint64_t size;			/* of a regular file */
	struct blob *part[MODEL_PARTS]; /* contents: at the start, and far behind it; zeros
					   elsewhere.  A link's target */
	struct blob *xattr[MODEL_XATTRS];
	unsigned parent; /* a directory's */
	unsigned entries;
	struct {
		unsigned name, node;
	} entry[MODEL_ENTRIES];
};

struct mtree {
	struct mnode node[MODEL_NODES]; /* 0 is the root */
};

struct mstate {
	struct mtree live;
	unsigned snaps;
	struct {
		char name[32];
		uint64_t id;
		struct mtree *tree;
	} snap[MODEL_SNAPS];
};

struct model {
	struct fsfix *fx;
	struct fsfix_random rnd;
	struct mstate now;
	struct mstate durable; /* what the last commit that was asked for has made durable */
	bool may_be_full;      /* -ENOSPC is an answer */
	uint64_t full;	       /* how often it was */
	bool may_fail;	       /* -EIO is one, too */
	bool failed;	       /* it was given: from here on `now` means nothing */
	uint64_t snap_names;
	struct dedup *dedup; /* NULL: none in the mix */
	/* Called when `now` has become durable, before `durable` follows.  NULL: nobody wants to
	 * know. */
	void (*committed)(void *arg);
	void *arg;
};

/* The fixture's fs is fresh and open; dedup: passes of dedup are in the mix. */
void model_start(struct model *m, struct fsfix *fx, bool dedup);
void model_end(struct model *m);
/* One random operation. */
void model_step(struct model *m);
/* Make all durable. */
void model_sync(struct model *m);
/* Close and open; or lose what is not durable and open. */
void model_reopen(struct model *m);
void model_crash(struct model *m);

void mstate_copy(struct mstate *to, const struct mstate *from);
void mstate_clear(struct mstate *s);

/* Is the filesystem in that state?  false: yes; true: no, and why says where. */
bool model_differs(struct fs *fs, const struct mstate *want, char *why, size_t size);
/* The same for `now`; fails the test. */
void model_compare(struct model *m);

#endif
