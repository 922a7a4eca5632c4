/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/store_util.h"

#include <errno.h>
#include <fcntl.h>

#include "base/bits.h"
#include "store/store_impl.h"

static int setup(void **state)
{
	image_new(64 * MIB);
	*state = image_open();
	return 0;
}

static int teardown(void **state)
{
	return *state ? store_close(*state) : 0;
}

/* n pages without a frame, in one transaction. */
static void add_holes(struct store *st, uint64_t n, vpn_t *vpn)
{
	struct txn tx;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 0), 0);
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(page_new(&tx, NULL, &vpn[i]), 0);
	txn_end(&tx);
}

static void reopen(void **state)
{
	assert_int_equal(store_close(*state), 0);
	*state = image_open();
}

/* Every number once, in order, and never 0. */
static void test_pagemap_gives_numbers_in_order(void **state)
{
	static vpn_t vpn[1000];

	add_holes(*state, 1000, vpn);
	for (unsigned int i = 0; i < 1000; i++)
		assert_int_equal(vpn[i], i + 1);
	assert_int_equal(store_vpn_limit(*state), 1024);
	check_clean(*state);
}

/* Free numbers are used again once there are some per leaf: the map does not grow for ever. */
static void test_pagemap_uses_numbers_again(void **state)
{
	static vpn_t vpn[4096];
	uint64_t limit;

	add_holes(*state, 4096, vpn);
	limit = store_vpn_limit(*state);
	for (unsigned int round = 0; round < 20; round++) {
		/* Every other one, so that no leaf is empty. */
		for (unsigned int i = 0; i < 4096; i += 2)
			drop_page(*state, vpn[i]);
		for (unsigned int i = 0; i < 4096; i += 2)
			add_holes(*state, 1, &vpn[i]);
		if (round % 5 == 0)
			assert_int_equal(commit_now(*state), 0);
	}
	assert_in_range(store_vpn_limit(*state), limit, limit + 1024);
	for (unsigned int i = 0; i < 4096; i++)
		assert_int_equal(page_is_hole(*state, vpn[i]), 1);
	check_clean(*state);
}

/* After an open: the scan finds free numbers and frames; until then, neither is touched. */
static void test_pagemap_scan_finds_what_is_free(void **state)
{
	static vpn_t vpn[2048], more[2048];
	struct store_stats before, after;
	struct store *st = *state;

	for (unsigned int i = 0; i < 2048; i++)
		vpn[i] = add_page(st, i);
	for (unsigned int i = 0; i < 2048; i++)
		if (i % 4)
			drop_page(st, vpn[i]);
	assert_int_equal(commit_lead(st, COMMIT_TIMER), 0);
	store_stat(st, &before);
	reopen(state);
	st = *state;
	assert_false(store_scanned(st));
	assert_int_equal(store_scan(st, 2), 0);
	/* In a leaf that was seen, and in one that was not. */
	drop_page(st, vpn[0]);
	put_page(st, vpn[2044], 1);
	add_holes(st, 1, more);
	scan_all(st);
	assert_true(store_scanned(st));
	assert_int_equal(store_scan(st, 1), 1);
	store_stat(st, &after);
	assert_int_equal(after.pages, before.pages);
	assert_int_equal(after.holes, 1);
	assert_int_equal(after.map_nodes, before.map_nodes);
	check_clean(st);
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(commit_now(st), 0);
	store_stat(st, &after);
	assert_int_equal(after.frames.used, before.frames.used - 1);
	add_holes(st, 1500, more);
	assert_in_range(store_vpn_limit(st), 2049, 2048 + 256 + 256);
	check_clean(st);
}

static void damage(pfn_t pfn)
{
	const int fd = open(util_image, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "damage", 6, (off_t)(pfn * PMFS_PAGE_SIZE + 2000)), 6);
	close(fd);
}

static int count_page(void *arg, vpn_t vpn, const struct page_info *info)
{
	(void)vpn;
	(void)info;
	(*(unsigned int *)arg)++;
	return 0;
}

/* A leaf that is damaged takes its own pages with it and no others; free space stays unknown. */
static void test_pagemap_damaged_leaf(void **state)
{
	static vpn_t vpn[1200];
	struct store *st = *state;
	unsigned int seen = 0;
	struct txn tx;
	uint64_t refs;
	pfn_t leaf;

	util_quiet();
	for (unsigned int i = 0; i < 1200; i++)
		vpn[i] = add_page(st, i);
	assert_int_equal(commit_lead(st, COMMIT_TIMER), 0);
	mutex_lock(&st->pm.map_lock);
	assert_int_equal(maptree_node(&st->pm.tree, 0, 2, &leaf), 0);
	mutex_unlock(&st->pm.map_lock);
	assert_int_equal(store_close(st), 0);
	damage(leaf);
	*state = st = image_open();
	for (unsigned int i = 0; i < 1200; i++) {
		uint64_t word;
		const int rc = page_read(st, vpn[i], 0, &word, sizeof(word));

		assert_int_equal(rc, vpn[i] / 256 == 2 ? -EBADMSG : 0);
	}
	assert_int_equal(page_refs(st, 600, &refs), -EBADMSG);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 4), 0);
	assert_int_equal(page_ref(&tx, 600), -EBADMSG);
	assert_int_equal(page_unref(&tx, 600, NULL), -EBADMSG);
	assert_int_equal(page_write(&tx, 600, 0, page_of(0), PMFS_PAGE_SIZE), -EBADMSG);
	txn_end(&tx);
	assert_int_equal(store_each_page(st, 0, UINT64_MAX, count_page, &seen), -EBADMSG);
	assert_int_equal(seen, 511);
	assert_int_equal(store_scan(st, 100), -EBADMSG);
	assert_false(store_scanned(st));
	assert_int_equal(store_check(st, true, NULL, NULL), 1);
	/* Life goes on. */
	put_page(st, vpn[0], 7);
	vpn[1] = add_page(st, 8);
	assert_int_equal(commit_lead(st, COMMIT_TIMER), 0);
	assert_int_equal(store_close(st), 0);
	*state = st = image_open();
	assert_page(st, vpn[0], 7);
	assert_page(st, vpn[1], 8);
}

/*
 * Looking at all pages leaves nothing behind in memory (G1), and sees what is in memory as it is.
 */
static void test_pagemap_peek_keeps_nothing(void **state)
{
	static vpn_t vpn[600];
	struct pagemap_copy copy;
	struct store *st = *state;
	unsigned int seen = 0;

	for (unsigned int i = 0; i < 600; i++)
		vpn[i] = add_page(st, i);
	reopen(state);
	st = *state;
	assert_int_equal(store_each_page(st, 0, UINT64_MAX, count_page, &seen), 0);
	assert_int_equal(seen, 600);
	assert_null(atomic_load(&st->pm.chunk[0]));
	put_page(st, vpn[300], 1);
	assert_int_equal(pagemap_peek(&st->pm, vpn[300] / 256, &copy), 1);
	assert_true(bit_test(copy.nohash, vpn[300] % 256));
	assert_int_equal(pagemap_peek(&st->pm, 100, &copy), 0);
}

/* What a closing takes: sorted, each page once, as it is now. */
static void test_pagemap_capture_is_sorted(void **state)
{
	static vpn_t vpn[2000];
	struct store *st = *state;
	struct pagemap_room room;
	struct pmfs_delta *deltas;
	uint64_t n;

	add_holes(st, 2000, vpn);
	assert_int_equal(commit_now(st), 0);
	for (unsigned int i = 0; i < 2000; i += 7)
		put_page(st, vpn[(i * 1999) % 2000], 1);
	drop_page(st, vpn[3]);
	rw_wrlock(&st->txn_lock);
	assert_int_equal(pagemap_capture_room(&st->pm, 0, &room), 0);
	pagemap_capture(&st->pm, &room, &deltas, &n);
	rw_unlock(&st->txn_lock);
	assert_in_range(n, 2000 / 7, 2000 / 7 + 2);
	for (uint64_t i = 0; i < n; i++) {
		const vpn_t v = le64_get(deltas[i].vpn) & ~PMFS_DELTA_NEW;
		const uint64_t where = le64_get(deltas[i].entry.where);

		assert_true(i == 0 || v > (le64_get(deltas[i - 1].vpn) & ~PMFS_DELTA_NEW));
		assert_int_equal(where_refs(where), v == vpn[3] ? 0 : 1);
		assert_int_equal((le64_get(deltas[i].vpn) & PMFS_DELTA_NEW) != 0,
				 where_pfn(where) != PFN_NONE);
	}
	free(deltas);
	assert_int_equal(atomic_load(&st->pm.changed), 0);
	store_abandon(st);
	*state = image_open();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_pagemap_gives_numbers_in_order),
		TEST(test_pagemap_uses_numbers_again),
		TEST(test_pagemap_scan_finds_what_is_free),
		TEST(test_pagemap_damaged_leaf),
		TEST(test_pagemap_peek_keeps_nothing),
		TEST(test_pagemap_capture_is_sorted),
	};

	return cmocka_run_group_tests(tests, util_setup, util_teardown);
}
