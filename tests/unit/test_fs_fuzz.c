/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Damaged images: pages with wrong numbers in them, whose hashes are right, so that nothing but the
 * code that reads a structure can notice. Opening, checking, reading and changing such an image may
 * fail in any way that is an error; it may not crash, hang or read what is not its own.  Most of
 * all a test for the sanitizers.  PMFS_OPS: images; PMFS_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "lib/fsmodel.h"
#include "lib/fswalk.h"
#include "tree/fs_impl.h"

#define MIB (UINT64_C(1) << 20)

static struct fsfix_random rnd;

static uint64_t below(uint64_t n)
{
	return fsfix_below(&rnd, n);
}

/* ------------------------------------------------------------------ damage */

static uint64_t some_number(uint64_t limit)
{
	static const uint64_t special[] = {0,
					   1,
					   2,
					   3,
					   255,
					   256,
					   4096,
					   INT64_MAX,
					   UINT64_MAX,
					   UINT32_MAX,
					   UINT64_C(1) << 40,
					   UINT64_C(1) << 63,
					   0x6c644d50,
					   0x6e644d50};

	switch (below(4)) {
	case 0:
		return special[below(sizeof(special) / sizeof(special[0]))];
	case 1:
		return below(limit + 2); /* a page, most likely one that there is */
	case 2:
		return below(300);
	default:
		return fsfix_random(&rnd);
	}
}

/* A page with one pointer, which can be written; 0: found none. */
static vpn_t some_page(struct store *st)
{
	const vpn_t limit = store_vpn_limit(st);
	uint64_t refs;

	for (int tries = 0; tries < 1000; tries++) {
		const vpn_t vpn = 1 + below(limit);

		if (!page_refs(st, vpn, &refs) && refs == 1)
			return vpn;
	}
	return 0;
}

/* Pages of contents are many, and nothing in them can be wrong: take the upper part of trees
 * instead. */
static vpn_t some_structure(struct fs *fs)
{
	struct volume *vol = NULL;
	struct ptab pt;
	vpn_t vpn = 0;
	uint64_t n = 1 + below(3);

	if (below(4) == 0)
		return some_page(fs->st);
	while (n-- && (!vol || vol->next))
		vol = vol ? vol->next : fs->volumes;
	pt = below(8) ? vol->inodes : fs->table;
	if (below(3) == 0)
		return pt.root;
	if (ptab_get(fs->st, &pt, below(8), &vpn) || !vpn)
		return pt.root;
	if (below(2)) {
		struct pmfs_inode rec[PMFS_INODES_PER_PAGE];
		const size_t i = below(PMFS_INODES_PER_PAGE);

		if (!page_read(fs->st, vpn, 0, rec, sizeof(rec)) && le64_get(rec[i].data.vpn))
			vpn = le64_get(below(4) ? rec[i].data.vpn : rec[i].xattr.vpn);
	}
	return vpn;
}

static void damage_one(struct fs *fs)
{
	uint8_t page[PMFS_PAGE_SIZE];
	struct store *st = fs->st;
	const vpn_t vpn = some_structure(fs);
	uint64_t refs, number;
	struct txn tx;

	if (!vpn || page_refs(st, vpn, &refs) || !refs || txn_begin(st, &tx, FRAME_NORMAL, 4))
		return;
	number = some_number(store_vpn_limit(st));
	if (refs > 1 || below(12) == 0) {
		if (below(2))
			page_ref(&tx, vpn);
		else
			page_unref(&tx, vpn, NULL);
	} else if (below(30) == 0) {
		const vpn_t from = some_page(st);

		if (from && !page_read(st, from, 0, page, sizeof(page)))
			page_write(&tx, vpn, 0, page, sizeof(page));
	} else if (below(4) == 0) {
		const size_t at = below(sizeof(page));

		if (!page_read(st, vpn, at, page, 1)) {
			page[0] ^= (uint8_t)(1u << below(8));
			page_write(&tx, vpn, at, page, 1);
		}
	} else {
		/* Most of what matters is at the start of a page, and in records. */
		size_t at = below(2) ? below(16) * 8 : below(sizeof(page) / 8) * 8;
		const size_t len = below(3) == 0 ? 2 : below(2) ? 4 : 8;

		at += below(8 / len) * len;
		page_write(&tx, vpn, at, &number, len);
	}
	txn_end(&tx);
}

/* ------------------------------------------------------------------ */

static void ignore(void *arg, const char *what)
{
	++*(uint64_t *)arg;
	assert_int_not_equal(what[0], 0);
}

static void test_fs_fuzz(void **state)
{
	static struct model m;
	const uint64_t rounds = fsfix_env("PMFS_OPS", 400);
	uint64_t found = 0, opened = 0, noticed = 0;

	(void)state;
	fsfix_seed(&rnd, 1);
	for (uint64_t round = 0; round < rounds; round++) {
		struct store_error err;
		struct fsfix fx;
		uint64_t before = found;
		bool good;

		m = (struct model){0};
		fsfix_image(&fx, 64 * MIB);
		m.rnd.state = fsfix_random(&rnd);
		model_start(&m, &fx, false);
		for (uint64_t i = 0, n = 100 + below(300); i < n; i++)
			model_step(&m);
		model_end(&m);
		for (uint64_t i = 0, n = 1 + below(4); i < n; i++)
			damage_one(fx.fs);
		fs_close(fx.fs);
		fx.fs = NULL;
		good = !fsfix_try_start(&fx, &err);
		noticed += !good;
		if (good) {
			opened++;
			fs_check(fx.fs, below(2), ignore, &found);
			noticed += found != before;
			fswalk_use(fx.fs, &rnd);
			fs_check(fx.fs, true, ignore, &found);
			fs_close(fx.fs);
			fx.fs = NULL;
		}
		fsfix_free(&fx);
	}
	print_message("%" PRIu64 " images opened, %" PRIu64 " found to be damaged, %" PRIu64
		      " findings\n",
		      opened, noticed, found);
	/* Some damage is none: bytes of contents, numbers that are as good as the ones before. */
	assert_true(noticed > rounds / 3);
}

static void say_nothing(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fs_fuzz),
	};

	log_to_function(say_nothing, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
