/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check_pages.h - the part of a check that knows pages and tables, but not what they mean.
 *
 * It counts every pointer that it is shown.  A page is looked into the first time a pointer leads
 * to it and never again, so the work is the number of pages, whatever the number of volumes that
 * share them.  Memory: 2 bytes for each page of the image (page_counts.h).
 */
#ifndef PMFS_TREE_CHECK_PAGES_H
#define PMFS_TREE_CHECK_PAGES_H

#include "tree/page_counts.h"
#include "tree/ptab.h"

/* What a table's pages hold. */
enum check_kind { CHECK_DATA = 1, CHECK_DIR, CHECK_XATTR, CHECK_INODES, CHECK_ROWS };

/* What is below the nodes that were looked into: a hash table; only nodes are in it, one for 512
 * pages. */
struct check_memo_entry {
	vpn_t vpn;	 /* 0: free */
	uint64_t pages;	 /* below it, each pointer to one counts */
	uint64_t weight; /* pages and nodes that a walk over it would meet, itself too */
};
struct check_memo {
	struct check_memo_entry *at;
	size_t size; /* a power of two */
	size_t used;
};
/* Zero is an empty one.  -ENOMEM.  get: false: that node was not looked into to its end. */
int check_memo_put(struct check_memo *memo, vpn_t vpn, uint64_t pages, uint64_t weight);
bool check_memo_get(const struct check_memo *memo, vpn_t vpn, uint64_t *pages, uint64_t *weight);
void check_memo_clear(struct check_memo *memo);

struct check_pages {
	struct store *st;
	bool data;   /* compare every page with its hash */
	bool forget; /* nothing else runs: store_forget() now and then */
	vpn_t limit;
	struct page_counts seen; /* per page: pointers met, and what it was met as, 0: not yet */
	uint64_t expected;	 /* pages, for progress() */
	struct check_memo *memo; /* pages below the nodes that were looked into */
	bool incomplete; /* something could not be read: what it points at was not counted */
	/* Pages that owner() wants to hear of, in order. */
	const vpn_t *watch;
	size_t n_watch;
	/* What was found, in words that go behind the name of whose page it is; at: page of the
	 * file, or PGNO_END. */
	void (*bad)(void *arg, pgno_t at, const char *what);
	void (*owner)(void *arg, pgno_t at, vpn_t vpn);
	void (*progress)(void *arg, double percent); /* may be NULL */
	uint64_t met;				     /* pages */
	void *arg;
	uint64_t findings;
};

int check_pages_init(struct check_pages *cp, struct store *st, bool data);
void check_pages_free(struct check_pages *cp);
/* Forget all that was counted. */
void check_pages_reset(struct check_pages *cp);

enum check_seen { CHECK_FIRST, CHECK_AGAIN, CHECK_BAD };

/* Count a pointer to a page of a table: height 0 is a page, more a node. An error stops the check
 * (-ENOMEM). */
int check_visit(struct check_pages *cp, vpn_t vpn, enum check_kind kind, uint32_t height, pgno_t at,
		enum check_seen *seen);
/* Read a page that was visited; 1: it can't be read, which is a finding, the first time. */
int check_read(struct check_pages *cp, vpn_t vpn, pgno_t at, void *page);
/* What a table has below its root. */
struct check_tally {
	uint64_t pages;	 /* that are not holes; one that is in it twice counts twice */
	uint64_t weight; /* pages and nodes that somebody who walks it meets */
	bool whole;	 /* all of it could be read, and makes sense */
};
/* Count all pointers of a table. */
int check_table(struct check_pages *cp, const struct ptab *pt, enum check_kind kind,
		struct check_tally *out);
/* Compare what was met with the page map: fn for each page where they differ. */
int check_compare(struct check_pages *cp,
		  int (*fn)(void *arg, vpn_t vpn, uint64_t refs, uint64_t met), void *arg);

#endif
