/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "share/dedup.h"

#define PAGES 6000u

struct fix {
	struct store *st;
	struct dedup *dd;
	vpn_t vpn[PAGES];
	uint64_t tag[PAGES]; /* what page i is filled with */
};

static void fill(uint8_t page[PMFS_PAGE_SIZE], uint64_t tag)
{
	memset(page, 0, PMFS_PAGE_SIZE);
	if (!tag)
		return;
	for (size_t at = 0; at < PMFS_PAGE_SIZE; at += 64)
		memcpy(page + at, &tag, sizeof(tag));
}

static int setup_memory(void **state, uint64_t memory)
{
	struct fix *f = calloc(1, sizeof(*f));
	const struct store_config cfg = { .limit_bytes = 64 << 20 };
	struct store_error err;

	assert_non_null(f);
	assert_int_equal(store_open(&f->st, &cfg, &err), 0);
	assert_int_equal(dedup_new(&f->dd, f->st, memory), 0);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_memory(state, DEDUP_MEMORY_DEFAULT);
}

/* So little memory that a pass has to go over the map several times. */
static int setup_small(void **state)
{
	return setup_memory(state, 1);
}

static int teardown(void **state)
{
	struct fix *f = *state;

	dedup_free(f->dd);
	assert_int_equal(store_close(f->st), 0);
	free(f);
	return 0;
}

static void make(struct fix *f, size_t i, uint64_t tag)
{
	uint8_t page[PMFS_PAGE_SIZE];
	struct txn tx;

	fill(page, tag);
	assert_int_equal(txn_begin(f->st, &tx, FRAME_NORMAL, 1), 0);
	assert_int_equal(page_new(&tx, page, &f->vpn[i]), 0);
	txn_end(&tx);
	f->tag[i] = tag;
}

static void rewrite(struct fix *f, size_t i, uint64_t tag)
{
	uint8_t page[PMFS_PAGE_SIZE];
	struct txn tx;

	fill(page, tag);
	assert_int_equal(txn_begin(f->st, &tx, FRAME_NORMAL, 1), 0);
	assert_int_equal(page_write(&tx, f->vpn[i], 0, page, sizeof(page)), 0);
	txn_end(&tx);
	f->tag[i] = tag;
}

static void check_contents(struct fix *f, size_t n)
{
	uint8_t want[PMFS_PAGE_SIZE], have[PMFS_PAGE_SIZE];

	for (size_t i = 0; i < n; i++) {
		fill(want, f->tag[i]);
		assert_int_equal(page_read(f->st, f->vpn[i], 0, have, sizeof(have)), 0);
		assert_memory_equal(have, want, sizeof(want));
	}
}

static void on_bad(void *arg, const char *what)
{
	(void)arg;
	print_error("store_check: %s\n", what);
}

static void check_store(struct fix *f)
{
	assert_int_equal(commit_now(f->st), 0);
	assert_int_equal(store_check(f->st, true, on_bad, NULL), 0);
}

static pfn_t frame_of(struct fix *f, size_t i)
{
	struct page_info info;

	assert_int_equal(page_info(f->st, f->vpn[i], &info), 0);
	return info.pfn;
}

static uint64_t frames_used(struct fix *f)
{
	struct store_stats stats;

	store_stat(f->st, &stats);
	return stats.frames.used;
}

/* Every page has a frame with just those that are equal to it, and zeros have none. */
static void check_exact(struct fix *f, size_t n)
{
	pfn_t *first = calloc(n + 1, sizeof(*first));

	assert_non_null(first);
	for (size_t i = 0; i < n; i++) {
		const pfn_t pfn = frame_of(f, i);

		assert_true(f->tag[i] <= n);
		if (!f->tag[i]) {
			assert_int_equal(pfn, PFN_NONE);
			continue;
		}
		assert_int_not_equal(pfn, PFN_NONE);
		if (!first[f->tag[i]])
			first[f->tag[i]] = pfn;
		assert_int_equal(pfn, first[f->tag[i]]);
	}
	free(first);
}

static void test_dedup_finds_every_duplicate(void **state)
{
	struct fix *f = *state;
	struct dedup_stats stats;
	uint64_t before, groups = PAGES / 3;

	/* groups tags, three pages of each, far from one another; tag 0 is the page of zeros */
	for (size_t i = 0; i < PAGES; i++)
		make(f, i, i % groups);
	assert_int_equal(commit_now(f->st), 0);
	before = frames_used(f);
	assert_int_equal(dedup_run(f->dd), 0);
	check_exact(f, PAGES);
	check_contents(f, PAGES);
	check_store(f);
	dedup_stat(f->dd, &stats);
	assert_int_equal(stats.state, DEDUP_IDLE);
	assert_int_equal(stats.pages_merged, 2 * (groups - 1));
	assert_int_equal(stats.zero_pages, 3);
	assert_int_equal(stats.bytes_saved, (2 * (groups - 1) + 3) * PMFS_PAGE_SIZE);
	assert_int_equal(stats.pages_shared, groups - 1);
	assert_int_equal(stats.pages_sharing, 2 * (groups - 1));
	assert_int_equal(stats.full_scans, 1);
	assert_int_equal(stats.collisions, 0);
	assert_true(stats.percent == 100.0);
	/* The page map's own nodes may move, but not by this much. */
	assert_true(frames_used(f) + 2 * (groups - 1) <= before + 64);

	/* A second pass finds nothing more to do. */
	assert_int_equal(dedup_run(f->dd), 0);
	dedup_stat(f->dd, &stats);
	assert_int_equal(stats.pages_merged, 2 * (groups - 1));
	assert_int_equal(stats.full_scans, 2);
}

static void test_dedup_write_after_merge_copies(void **state)
{
	struct fix *f = *state;

	for (size_t i = 0; i < 100; i++)
		make(f, i, i % 2 + 1);
	assert_int_equal(dedup_run(f->dd), 0);
	check_exact(f, 100);
	for (size_t i = 0; i < 100; i += 4)
		rewrite(f, i, 50 + i / 4);
	check_contents(f, 100);
	check_store(f);
	assert_int_equal(dedup_run(f->dd), 0);
	check_exact(f, 100);
	check_contents(f, 100);
	check_store(f);
}

static void test_dedup_zero_page_written_again(void **state)
{
	struct fix *f = *state;

	make(f, 0, 0);
	make(f, 1, 0);
	assert_int_equal(dedup_run(f->dd), 0);
	check_exact(f, 2);
	rewrite(f, 1, 1);
	check_contents(f, 2);
	check_store(f);
}

/* What a writer changed since the commit has no hash: it waits for the next pass. */
static void test_dedup_refuses_a_second_pass_at_a_time(void **state)
{
	struct fix *f = *state;
	int rc;

	for (size_t i = 0; i < PAGES; i++)
		make(f, i, i + 1);
	assert_int_equal(dedup_start(f->dd), 0);
	rc = dedup_start(f->dd);
	assert_true(rc == -EALREADY || rc == 0); /* 0: the first was through already */
	assert_int_equal(dedup_wait(f->dd, -1), 0);
	assert_int_equal(dedup_pause(f->dd, true), -ESRCH);
	assert_int_equal(dedup_start(f->dd), 0);
	assert_int_equal(dedup_wait(f->dd, 60000), 0);
}

static void test_dedup_free_stops_a_pass(void **state)
{
	struct fix *f = *state;

	for (size_t i = 0; i < PAGES; i++)
		make(f, i, i / 2 + 1);
	assert_int_equal(dedup_start(f->dd), 0);
	if (dedup_pause(f->dd, true) == 0)
		assert_int_equal(dedup_wait(f->dd, 20), -ETIMEDOUT);
	dedup_free(f->dd);
	check_contents(f, PAGES);
	check_store(f);
	assert_int_equal(dedup_new(&f->dd, f->st, 1), 0);
}

struct writer {
	struct fix *f;
	_Atomic bool stop;
	uint64_t seed;
};

static void *write_on(void *arg)
{
	struct writer *w = arg;

	while (!atomic_load(&w->stop)) {
		w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
		rewrite(w->f, (w->seed >> 33) % PAGES, (w->seed >> 20) % 500);
		if (w->seed >> 59 == 0)
			assert_int_equal(commit_now(w->f->st), 0);
	}
	return NULL;
}

static void test_dedup_while_a_writer_writes(void **state)
{
	struct fix *f = *state;
	const char *env = getenv("PMFS_SEED");
	struct writer w = { .f = f, .seed = env ? strtoull(env, NULL, 0) : 1 };
	pthread_t thread;

	print_message("PMFS_SEED=%" PRIu64 "\n", w.seed);
	for (size_t i = 0; i < PAGES; i++)
		make(f, i, i % 500);
	assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(dedup_run(f->dd), 0);
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	check_contents(f, PAGES);
	check_store(f);
	assert_int_equal(dedup_run(f->dd), 0);
	check_exact(f, PAGES);
	check_contents(f, PAGES);
	check_store(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_dedup_finds_every_duplicate, setup, teardown),
		{ "test_dedup_finds_every_duplicate (little memory)", test_dedup_finds_every_duplicate,
		  setup_small, teardown, NULL },
		cmocka_unit_test_setup_teardown(test_dedup_write_after_merge_copies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dedup_zero_page_written_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dedup_refuses_a_second_pass_at_a_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dedup_free_stops_a_pass, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dedup_while_a_writer_writes, setup_small, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
