/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/check_pages.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/hash.h"

/* A page that could not be read keeps that in mind: whoever shares it is incomplete, too. */
#define ROLE_BAD 0x80u

/* ------------------------------------------------------------------ the memo */

static struct check_memo_entry *memo_slot(struct check_memo_entry *at, size_t size, vpn_t vpn)
{
	size_t i = (size_t)(vpn * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (size - 1);

	while (at[i].vpn && at[i].vpn != vpn)
		i = (i + 1) & (size - 1);
	return &at[i];
}

int check_memo_put(struct check_memo *memo, vpn_t vpn, uint64_t pages, uint64_t weight)
{
	struct check_memo_entry *more;
	const size_t size = memo->size ? memo->size * 2 : 256;

	if (memo->used * 2 >= memo->size) {
		more = calloc(size, sizeof(*more));
		if (!more)
			return -ENOMEM;
		for (size_t i = 0; i < memo->size; i++)
			if (memo->at[i].vpn)
				*memo_slot(more, size, memo->at[i].vpn) = memo->at[i];
		free(memo->at);
		memo->at = more;
		memo->size = size;
	}
	*memo_slot(memo->at, memo->size, vpn) = (struct check_memo_entry){vpn, pages, weight};
	memo->used++;
	return 0;
}

/* False: that node was not looked into to its end. */
bool check_memo_get(const struct check_memo *memo, vpn_t vpn, uint64_t *pages, uint64_t *weight)
{
	const struct check_memo_entry *e;

	if (!memo->size)
		return false;
	e = memo_slot(memo->at, memo->size, vpn);
	*pages = e->pages;
	*weight = e->weight;
	return e->vpn;
}

/* ------------------------------------------------------------------ */

int check_pages_init(struct check_pages *cp, struct store *st, bool data)
{
	cp->st = st;
	cp->data = data;
	cp->limit = store_vpn_limit(st);
	cp->expected = store_pages_bound(st);
	cp->memo = calloc(1, sizeof(*cp->memo));
	return cp->memo ? page_counts_init(&cp->seen, cp->limit) : -ENOMEM;
}

void check_memo_clear(struct check_memo *memo)
{
	free(memo->at);
	memset(memo, 0, sizeof(*memo));
}

void check_pages_free(struct check_pages *cp)
{
	if (cp->memo)
		check_memo_clear(cp->memo);
	free(cp->memo);
	page_counts_free(&cp->seen);
}

void check_pages_reset(struct check_pages *cp)
{
	check_memo_clear(cp->memo);
	page_counts_clear(&cp->seen);
	cp->met = 0;
}

__attribute__((format(printf, 3, 4))) static void found(struct check_pages *cp, pgno_t at,
							const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cp->findings++;
	cp->bad(cp->arg, at, text);
}

static const char *kind_name(unsigned role)
{
	static const char *const names[] = {
		[CHECK_DATA] = "contents",	   [CHECK_DIR] = "a directory",
		[CHECK_XATTR] = "attributes",	   [CHECK_INODES] = "inodes",
		[CHECK_ROWS] = "the volume table",
	};

	return names[role & 7];
}

static int verify(struct check_pages *cp, vpn_t vpn, const struct page_info *info)
{
	uint8_t page[PMFS_PAGE_SIZE];
	int rc;

	if (info->pfn == PFN_NONE)
		return 0;
	rc = page_read(cp->st, vpn, 0, page, sizeof(page));
	if (!rc && !info->dirty && hash64(page, sizeof(page)) != info->hash)
		rc = -EBADMSG;
	return rc;
}

/* 1: it can't be used, and why has been said. */
static int unreadable(struct check_pages *cp, vpn_t vpn, pgno_t at, int rc)
{
	uint8_t role;

	if (rc == -ENOMEM)
		return rc;
	found(cp, at, "page %" PRIu64 " %s", vpn,
	      rc == -EBADMSG   ? "is damaged: its contents do not match their hash"
	      : rc == -EUCLEAN ? "does not exist"
			       : "can't be read from the image");
	cp->incomplete = true;
	role = page_counts_role(&cp->seen, vpn);
	/* What does not exist is not remembered: an image could name such pages without end. */
	if (role && page_counts_set_role(&cp->seen, vpn, role | ROLE_BAD))
		return -ENOMEM;
	return 1;
}

static bool watched(const struct check_pages *cp, vpn_t vpn)
{
	size_t lo = 0, hi = cp->n_watch;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (cp->watch[mid] < vpn)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < cp->n_watch && cp->watch[lo] == vpn;
}

int check_visit(struct check_pages *cp, vpn_t vpn, enum check_kind kind, uint32_t height, pgno_t at,
		enum check_seen *seen)
{
	const uint8_t role = (uint8_t)(kind | height << 3);
	struct page_info info;
	uint8_t before;
	int rc;

	*seen = CHECK_BAD;
	if (vpn >= cp->limit) {
		found(cp, at, "page %" PRIu64 " can't be: no page has such a number", vpn);
		cp->incomplete = true;
		return 0;
	}
	if (watched(cp, vpn))
		cp->owner(cp->arg, at, vpn);
	before = page_counts_role(&cp->seen, vpn);
	if (before) {
		rc = page_counts_add(&cp->seen, vpn);
		if (rc)
			return rc;
		if ((before & ~ROLE_BAD) != role) {
			found(cp, at, "page %" PRIu64 " is used as %s of %s and as %s of %s", vpn,
			      (before & ~ROLE_BAD) >> 3 ? "a table" : "a page", kind_name(before),
			      height ? "a table" : "a page", kind_name(kind));
			cp->incomplete = true;
		} else if (before & ROLE_BAD) {
			cp->incomplete = true;
		} else {
			*seen = CHECK_AGAIN;
		}
		return 0;
	}
	if (++cp->met % 4096 == 0 && cp->progress)
		cp->progress(cp->arg, MIN(100.0 * (double)cp->met / (double)cp->expected, 100.0));
	if (cp->forget && cp->met % 4096 == 0)
		store_forget(cp->st);
	rc = page_info(cp->st, vpn, &info);
	if (rc == -EUCLEAN)
		return MIN(unreadable(cp, vpn, at, rc), 0);
	if (page_counts_add(&cp->seen, vpn) || page_counts_set_role(&cp->seen, vpn, role))
		return -ENOMEM;
	if (!rc && cp->data)
		rc = verify(cp, vpn, &info);
	if (rc) {
		rc = unreadable(cp, vpn, at, rc);
		return MIN(rc, 0);
	}
	*seen = CHECK_FIRST;
	return 0;
}

int check_read(struct check_pages *cp, vpn_t vpn, pgno_t at, void *page)
{
	int rc;

	if (vpn >= cp->limit || page_counts_role(&cp->seen, vpn) & ROLE_BAD)
		return 1;
	rc = page_read(cp->st, vpn, 0, page, PMFS_PAGE_SIZE);
	return rc ? unreadable(cp, vpn, at, rc) : 0;
}

static uint64_t add_capped(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static void tally_add(struct check_tally *t, const struct check_tally *more)
{
	t->pages = add_capped(t->pages, more->pages);
	t->weight = add_capped(t->weight, more->weight);
	t->whole = t->whole && more->whole;
}

static int walk(struct check_pages *cp, vpn_t vpn, uint32_t height, enum check_kind kind, pgno_t at,
		struct check_tally *out)
{
	le64 entry[PMFS_PTAB_FANOUT];
	const uint64_t span = UINT64_C(1) << (PMFS_PTAB_SHIFT * (height ? height - 1 : 0));
	struct check_tally here = {.weight = 1, .whole = true};
	enum check_seen seen;
	int rc;

	rc = check_visit(cp, vpn, kind, height, at, &seen);
	if (rc)
		return rc;
	if (seen == CHECK_BAD) {
		here.whole = false;
	} else if (!height) {
		here.pages = 1;
	} else if (seen == CHECK_AGAIN) {
		here.whole = check_memo_get(cp->memo, vpn, &here.pages, &here.weight);
	} else {
		rc = check_read(cp, vpn, at, entry);
		here.whole = !rc;
		for (size_t i = 0; i < PMFS_PTAB_FANOUT && !rc; i++)
			if (le64_get(entry[i]))
				rc = walk(cp, le64_get(entry[i]), height - 1, kind, at + i * span,
					  &here);
		if (rc < 0)
			return rc;
		if (here.whole) {
			rc = check_memo_put(cp->memo, vpn, here.pages, here.weight);
			if (rc)
				return rc;
		}
	}
	tally_add(out, &here);
	return 0;
}

int check_table(struct check_pages *cp, const struct ptab *pt, enum check_kind kind,
		struct check_tally *out)
{
	int rc = 0;

	*out = (struct check_tally){.whole = true};
	if (!ptab_valid(pt)) {
		found(cp, PGNO_END, "the root of its table is impossible");
		cp->incomplete = true;
		out->whole = false;
	} else if (pt->root) {
		rc = walk(cp, pt->root, pt->height, kind, 0, out);
	}
	/* Only contents may be in one table twice.  Somebody who walks this one would not come to
	 * an end. */
	if (!rc && kind != CHECK_DATA && out->weight > cp->limit) {
		found(cp, PGNO_END, "its table goes in circles");
		out->whole = false;
	}
	return rc;
}

/* ------------------------------------------------------------------ */

struct compare {
	struct check_pages *cp;
	int (*fn)(void *arg, vpn_t vpn, uint64_t refs, uint64_t met);
	void *arg;
};

static int compare_page(void *arg, vpn_t vpn, const struct page_info *info)
{
	const struct compare *cmp = arg;
	const uint64_t met = page_counts_get(&cmp->cp->seen, vpn);

	/* What hangs below a page that can't be read has pointers that were not met. */
	if (info->refs == met || (cmp->cp->incomplete && met < info->refs))
		return 0;
	return cmp->fn(cmp->arg, vpn, info->refs, met);
}

int check_compare(struct check_pages *cp,
		  int (*fn)(void *arg, vpn_t vpn, uint64_t refs, uint64_t met), void *arg)
{
	struct compare cmp = {cp, fn, arg};

	int rc = 0;

	for (vpn_t vpn = 0; !rc && (vpn = store_next_page(cp->st, vpn)) < cp->limit;
	     vpn = ALIGN_DOWN(vpn, PMFS_MAP_FANOUT) + PMFS_MAP_FANOUT) {
		rc = store_each_page(cp->st, vpn, MIN(vpn + PMFS_MAP_FANOUT, cp->limit),
				     compare_page, &cmp);
		/* A leaf that can't be read is what store_check() finds. */
		if (rc == -EBADMSG || rc == -EUCLEAN || rc == -EIO)
			rc = 0;
	}
	return rc;
}
