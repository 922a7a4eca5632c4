/* SPDX-License-Identifier: BSD-2-Clause */
/* What fallocate(2) has reserved can be written on a full image: page.h P5, frame.h K. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/fsfix.h"
#include "share/dedup.h"
#include "tree/fs.h"

#define PAGE PMFS_PAGE_SIZE
#define LIMIT (UINT64_C(16) << 20)
#define RESERVED 900u /* pages */

static const struct fs_cred cred = {0};

static uint64_t kept(struct fsfix *fx)
{
	struct fs_stats st;

	fs_stat(fx->fs, &st);
	return st.store.frames.kept;
}

static uint64_t available(struct fsfix *fx)
{
	struct fs_statfs st;

	assert_int_equal(fs_statfs(fx->fs, &st), 0);
	return st.available;
}

static void pattern(uint8_t *page, uint64_t n, uint8_t salt)
{
	for (unsigned i = 0; i < PAGE; i++)
		page[i] = (uint8_t)(n * 31 + i * 7 + (i >> 8) + salt);
}

/* Until neither a page nor a new file fits. */
static void fill(struct fsfix *fx, const char *name)
{
	static uint8_t big[64 * PAGE];
	struct fsfix_random rnd = {.state = 1};
	const uint64_t id = fsfix_file(fx, fx->root, name);
	uint64_t off = 0;
	ssize_t n;

	do {
		fsfix_fill(&rnd, big, sizeof(big));
		n = fs_write(fx->fs, id, off, big, sizeof(big), 0);
		if (n > 0)
			off += (uint64_t)n;
	} while (n > 0);
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(fs_write(fx->fs, id, off, big, 1, 0), -ENOSPC);
	/* Less than what one write could take. */
	assert_true(available(fx) < 64);
	fs_forget(fx->fs, id, 1);
}

static void write_page(struct fsfix *fx, uint64_t id, uint64_t n, uint8_t salt)
{
	uint8_t page[PAGE];

	pattern(page, n, salt);
	assert_int_equal(fs_write(fx->fs, id, n * PAGE, page, PAGE, 0), PAGE);
}

static void expect_page(struct fsfix *fx, uint64_t id, uint64_t n, uint8_t salt)
{
	uint8_t page[PAGE];

	pattern(page, n, salt);
	fsfix_expect(fx, id, n * PAGE, page, PAGE);
}

static void expect_zeros(struct fsfix *fx, uint64_t id, uint64_t n)
{
	static const uint8_t zeros[PAGE];

	fsfix_expect(fx, id, n * PAGE, zeros, PAGE);
}

static uint64_t reserve(struct fsfix *fx, const char *name, uint64_t pages)
{
	const uint64_t id = fsfix_file(fx, fx->root, name);

	assert_int_equal(fs_fallocate(fx->fs, id, 0, 0, pages * PAGE), 0);
	return id;
}

static void test_reserve_is_kept_on_a_full_image(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t before = available(fx), id = reserve(fx, "f", RESERVED);
	struct fs_attr attr;

	assert_true(kept(fx) >= RESERVED);
	assert_true(available(fx) <= before - RESERVED);
	assert_int_equal(fs_getattr(fx->fs, id, &attr), 0);
	assert_int_equal(attr.blocks, RESERVED * 8);
	fill(fx, "rest");
	/* Every third page first, so that no two neighbours go together. */
	for (uint64_t k = 0; k < 3; k++)
		for (uint64_t n = k; n < RESERVED; n += 3)
			write_page(fx, id, n, 0);
	assert_int_equal(kept(fx), 0);
	for (uint64_t n = 0; n < RESERVED; n++)
		expect_page(fx, id, n, 0);
	/* What has its own frame can be written again. */
	for (uint64_t n = 0; n < RESERVED; n += 7)
		write_page(fx, id, n, 1);
	expect_page(fx, id, 7, 1);
}

static void test_reserve_holds_over_a_snapshot(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = reserve(fx, "f", RESERVED);
	struct fs_snapshot snap;
	struct fs_attr root, old;

	write_page(fx, id, 0, 5);
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	fill(fx, "rest");
	for (uint64_t n = 1; n < RESERVED; n++)
		write_page(fx, id, RESERVED - n, 0);
	assert_int_equal(kept(fx), 0);
	for (uint64_t n = 1; n < RESERVED; n++)
		expect_page(fx, id, n, 0);
	assert_int_equal(fs_snap_lookup(fx->fs, "s", &root), 0);
	assert_int_equal(fs_lookup(fx->fs, root.id, "f", 1, &old), 0);
	expect_page(fx, old.id, 0, 5);
	for (uint64_t n = 1; n < RESERVED; n += 13)
		expect_zeros(fx, old.id, n);
	fs_forget(fx->fs, old.id, 1);
	fs_forget(fx->fs, root.id, 1);
	/* Cleaning up works as ever. */
	assert_int_equal(fs_unlink(fx->fs, fx->root, "rest", 4), 0);
	assert_int_equal(fs_snap_delete(fx->fs, "s"), 0);
}

/* A snapshot that is older than the second half of the writes. */
static void test_reserve_holds_over_a_snapshot_in_the_middle(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = reserve(fx, "f", RESERVED);
	struct fs_snapshot snap;

	fill(fx, "rest");
	for (uint64_t n = 0; n < RESERVED; n += 2)
		write_page(fx, id, n, 0);
	assert_int_equal(fs_unlink(fx->fs, fx->root, "rest", 4), 0);
	fsfix_reopen(fx);
	assert_int_equal(fsfix_find(fx, fx->root, "f"), id);
	assert_true(kept(fx) >= RESERVED / 2);
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	fill(fx, "again");
	for (uint64_t n = 1; n < RESERVED; n += 2)
		write_page(fx, id, n, 0);
	for (uint64_t n = 0; n < RESERVED; n++)
		expect_page(fx, id, n, 0);
	assert_int_equal(kept(fx), 0);
}

static void test_reserve_survives_stop_and_crash(void **state)
{
	struct fsfix *fx = *state;
	uint64_t id = reserve(fx, "f", RESERVED), was;

	fill(fx, "rest");
	write_page(fx, id, 3, 0);
	assert_int_equal(fs_sync(fx->fs), 0);
	was = kept(fx);
	/* Not durable: it must be kept again after the crash. */
	write_page(fx, id, 4, 0);
	assert_true(kept(fx) < was);
	fsfix_crash(fx);
	fsfix_start(fx);
	assert_int_equal(kept(fx), was);
	assert_int_equal(fsfix_find(fx, fx->root, "f"), id);
	expect_page(fx, id, 3, 0);
	expect_zeros(fx, id, 4);
	for (uint64_t n = 4; n < RESERVED; n++) {
		write_page(fx, id, n, 0);
		if (n % 200 == 0) {
			fsfix_reopen(fx);
			assert_int_equal(fsfix_find(fx, fx->root, "f"), id);
		}
	}
	for (uint64_t n = 3; n < RESERVED; n++)
		expect_page(fx, id, n, 0);
	assert_int_equal(kept(fx) > 0, 1); /* for the pages 0 to 2 */
	for (uint64_t n = 0; n < 3; n++)
		write_page(fx, id, n, 0);
	assert_int_equal(kept(fx), 0);
}

/*
 * ZERO_RANGE reserves as well: holes, what has been written, and what was reserved before.  It does so
 * on a full image, too, since what was written gives its frames back; and that holds over a snapshot.
 */
static void test_reserve_zero_range(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const uint64_t half = RESERVED / 2;
	uint8_t page[PAGE], half_page[PAGE / 2] = {0};
	struct fs_snapshot snap;
	struct fs_attr attr;
	uint64_t before;

	/* Written, hole, written ..., and the last quarter reserved. */
	for (uint64_t n = 0; n < half; n += 2)
		write_page(fx, id, n, 0);
	assert_int_equal(fs_fallocate(fx->fs, id, 0, (half + half / 2) * PAGE, half / 2 * PAGE), 0);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_ZERO_RANGE, PAGE / 2,
				      RESERVED * PAGE - PAGE / 2), 0);
	assert_true(kept(fx) >= RESERVED - 1);
	assert_int_equal(fs_getattr(fx->fs, id, &attr), 0);
	assert_int_equal(attr.size, RESERVED * PAGE);
	assert_int_equal(attr.blocks, RESERVED * 8);
	pattern(page, 0, 0);
	fsfix_expect(fx, id, 0, page, PAGE / 2);
	fsfix_expect(fx, id, PAGE / 2, half_page, PAGE / 2);
	for (uint64_t n = 1; n < RESERVED; n++)
		expect_zeros(fx, id, n);

	fill(fx, "rest");
	for (uint64_t n = 1; n < RESERVED; n++)
		write_page(fx, id, n, 1);
	assert_int_equal(kept(fx), 0);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_ZERO_RANGE, PAGE, half * PAGE), 0);
	before = kept(fx);
	assert_true(before >= half);
	/* Once more, and a part of one page: nothing is given up for that. */
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_ZERO_RANGE, PAGE + 5, 3 * PAGE), 0);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      PAGE + 5, 100), 0);
	assert_int_equal(kept(fx), before);
	expect_page(fx, id, half + 1, 1);
	assert_int_equal(fs_unlink(fx->fs, fx->root, "rest", 4), 0);
	fsfix_reopen(fx);
	assert_int_equal(fsfix_find(fx, fx->root, "f"), id);
	assert_true(kept(fx) >= half);
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	fill(fx, "again");
	for (uint64_t n = half; n >= 1; n--)
		write_page(fx, id, n, 2);
	for (uint64_t n = 1; n < RESERVED; n++)
		expect_page(fx, id, n, n <= half ? 2 : 1);
}

/* Small writes, each of them durable: a page is written again and again. */
static void test_reserve_small_writes(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = reserve(fx, "f", 40);
	uint8_t page[PAGE];

	fill(fx, "rest");
	for (uint64_t n = 0; n < 40; n++) {
		pattern(page, n, 9);
		for (unsigned at = 0; at < PAGE; at += 1024) {
			assert_int_equal(fs_write(fx->fs, id, n * PAGE + at, page + at, 1024, 0),
					 1024);
			assert_int_equal(fs_fsync(fx->fs, id, false), 0);
		}
	}
	for (uint64_t n = 0; n < 40; n++)
		expect_page(fx, id, n, 9);
}

/* Each file one page, in many places: the ways to them are what it takes. */
static void test_reserve_many_files_over_a_snapshot(void **state)
{
	struct fsfix *fx = *state;
	uint64_t id[150];
	struct fs_snapshot snap;
	char name[16];

	for (unsigned i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		id[i] = fsfix_file(fx, fx->root, name);
		assert_int_equal(fs_fallocate(fx->fs, id[i], 0, 700 * PAGE, PAGE), 0);
	}
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	fill(fx, "rest");
	for (unsigned i = 0; i < 150; i++)
		write_page(fx, id[i], 700, 0);
	for (unsigned i = 0; i < 150; i++)
		expect_page(fx, id[i], 700, 0);
	assert_int_equal(kept(fx), 0);
}

static void test_reserve_is_given_back(void **state)
{
	struct fsfix *fx = *state;
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	const struct fs_setattr cut = {.size = 10 * PAGE};
	uint64_t id, copy;
	struct fs_attr attr;

	id = reserve(fx, "f", RESERVED);
	assert_int_equal(fs_fallocate(fx->fs, id, punch, 100 * PAGE, 700 * PAGE), 0);
	assert_true(kept(fx) >= 200 && kept(fx) < 500);
	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_SIZE, &cut, &attr), 0);
	assert_int_equal(attr.blocks, 10 * 8);
	/* A copy is a hole where nothing has been written. */
	copy = fsfix_file(fx, fx->root, "copy");
	write_page(fx, id, 1, 0);
	assert_int_equal(fs_copy_range(fx->fs, id, 0, copy, 0, 10 * PAGE), 10 * PAGE);
	expect_page(fx, copy, 1, 0);
	expect_zeros(fx, copy, 2);
	assert_int_equal(fs_getattr(fx->fs, copy, &attr), 0);
	assert_int_equal(attr.blocks, 8);
	assert_true(kept(fx) > 0);
	assert_int_equal(fs_unlink(fx->fs, fx->root, "f", 1), 0);
	fs_forget(fx->fs, id, 1);
	assert_int_equal(kept(fx), 0);
	/* More than there is: nothing is kept of it. */
	id = fsfix_file(fx, fx->root, "g");
	assert_int_equal(fs_fallocate(fx->fs, id, 0, 0, LIMIT), -ENOSPC);
	assert_int_equal(kept(fx), 0);
}

static void test_reserve_is_not_taken_by_dedup(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = reserve(fx, "f", RESERVED);
	const uint64_t was = kept(fx);
	struct dedup *dd;

	assert_int_equal(fs_sync(fx->fs), 0);
	assert_int_equal(dedup_new(&dd, fs_store(fx->fs), DEDUP_MEMORY_DEFAULT), 0);
	assert_int_equal(dedup_run(dd), 0);
	dedup_free(dd);
	assert_int_equal(kept(fx), was);
	fill(fx, "rest");
	for (uint64_t n = 0; n < RESERVED; n++)
		write_page(fx, id, n, 0);
	expect_page(fx, id, RESERVED - 1, 0);
}

/* On a full image things can be changed and cleaned up. */
static void test_reserve_full_image_is_usable(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f"), dir = fsfix_mkdir(fx, fx->root, "d");
	const struct fs_setattr set = {.mode = 0640, .uid = 3, .gid = 4};
	struct fs_attr attr;

	fsfix_file(fx, fx->root, "g");
	assert_int_equal(fs_setxattr(fx->fs, id, "user.a", "b", 1, 0), 0);
	reserve(fx, "r", 100);
	fill(fx, "rest");
	assert_int_equal(fs_mknod(fx->fs, fx->root, "new", 3, S_IFREG, 0, &cred, &attr), -ENOSPC);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MODE | FS_SET_UID | FS_SET_GID,
					    &set, NULL), 0);
		assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MTIME_NOW, &set, NULL), 0);
		assert_int_equal(fs_rename(fx->fs, fx->root, "f", 1, dir, "f", 1, 0), 0);
		assert_int_equal(fs_rename(fx->fs, dir, "f", 1, fx->root, "f", 1, 0), 0);
	}
	assert_int_equal(fs_rename(fx->fs, fx->root, "f", 1, fx->root, "g", 1, 0), 0);
	assert_int_equal(fs_removexattr(fx->fs, id, "user.a"), 0);
	assert_int_equal(fs_unlink(fx->fs, fx->root, "g", 1), 0);
	assert_int_equal(fs_unlink(fx->fs, fx->root, "rest", 4), 0);
}

static int setup(void **state)
{
	static struct fsfix fx;

	fsfix_image(&fx, LIMIT);
	*state = &fx;
	return 0;
}

static int teardown(void **state)
{
	fsfix_check(*state);
	fsfix_free(*state);
	return 0;
}

int main(void)
{
#define IN(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		IN(test_reserve_is_kept_on_a_full_image),
		IN(test_reserve_holds_over_a_snapshot),
		IN(test_reserve_holds_over_a_snapshot_in_the_middle),
		IN(test_reserve_survives_stop_and_crash),
		IN(test_reserve_zero_range),
		IN(test_reserve_small_writes),
		IN(test_reserve_many_files_over_a_snapshot),
		IN(test_reserve_is_given_back),
		IN(test_reserve_is_not_taken_by_dedup),
		IN(test_reserve_full_image_is_usable),
	};
#undef IN

	return cmocka_run_group_tests(tests, NULL, NULL);
}
