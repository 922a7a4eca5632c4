/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include <linux/falloc.h>

#include "base/bits.h"
#include "base/fault.h"
#include "base/hash.h"
#include "base/thread.h"
#include "lib/fsfix.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"
#include "tree/reclaim.h"

#define PAGE ((size_t)PMFS_PAGE_SIZE)
#define KEEP FALLOC_FL_KEEP_SIZE
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static int setup(void **state)
{
	static struct fsfix fx;

	fsfix_ram(&fx, 0);
	*state = &fx;
	return 0;
}

static int setup_image(void **state)
{
	static struct fsfix fx;

	fsfix_image(&fx, 0);
	*state = &fx;
	return 0;
}

static int setup_small(void **state)
{
	static struct fsfix fx;

	fsfix_ram(&fx, UINT64_C(8) << 20);
	*state = &fx;
	return 0;
}

static int teardown(void **state)
{
	struct fsfix *fx = *state;

	fsfix_check(fx);
	fsfix_free(fx);
	return 0;
}

static struct fs_attr attr_of(struct fsfix *fx, uint64_t id)
{
	struct fs_attr attr = { 0 };

	assert_int_equal(fs_getattr(fx->fs, id, &attr), 0);
	return attr;
}

static uint64_t pages_of(struct fsfix *fx, uint64_t id)
{
	return attr_of(fx, id).blocks / 8;
}

static int truncate_to(struct fsfix *fx, uint64_t id, uint64_t size)
{
	const struct fs_setattr set = { .size = size };

	return fs_setattr(fx->fs, id, FS_SET_SIZE, &set, NULL);
}

static void expect_zeros(struct fsfix *fx, uint64_t id, uint64_t off, size_t len)
{
	uint8_t *zeros = calloc(1, len);

	assert_non_null(zeros);
	fsfix_expect(fx, id, off, zeros, len);
	free(zeros);
}

static uint8_t *pattern(size_t len, uint64_t seed)
{
	struct fsfix_random rnd = { seed };
	uint8_t *buf = malloc(len);

	assert_non_null(buf);
	fsfix_fill(&rnd, buf, len);
	return buf;
}

static uint64_t seek(struct fsfix *fx, uint64_t id, uint64_t off, bool data)
{
	uint64_t at = 0;

	assert_int_equal(fs_seek(fx->fs, id, off, data, &at), 0);
	return at;
}

/* ------------------------------------------------------------------ sizes and small contents */

static void test_file_small_contents_take_no_page(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	uint8_t *buf = pattern(300, 1);

	fsfix_write(fx, id, 0, buf, 60);
	fsfix_write(fx, id, 60, buf + 60, PMFS_INLINE_MAX - 60);
	assert_int_equal(pages_of(fx, id), 0);
	fsfix_expect(fx, id, 0, buf, PMFS_INLINE_MAX);
	/* One byte more moves it out. */
	fsfix_write(fx, id, PMFS_INLINE_MAX, buf + PMFS_INLINE_MAX, 1);
	assert_int_equal(pages_of(fx, id), 1);
	fsfix_expect(fx, id, 0, buf, PMFS_INLINE_MAX + 1);
	/* Empty again it may come back. */
	assert_int_equal(truncate_to(fx, id, 0), 0);
	fsfix_write(fx, id, 0, buf, 10);
	assert_int_equal(pages_of(fx, id), 0);
	assert_int_equal(truncate_to(fx, id, 5), 0);
	assert_int_equal(truncate_to(fx, id, 20), 0);
	fsfix_expect(fx, id, 0, buf, 5);
	expect_zeros(fx, id, 5, 15);
	free(buf);
}

static void test_file_write_beyond_the_end_leaves_a_hole(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");

	fsfix_write(fx, id, 0, "abc", 3);
	fsfix_write(fx, id, 10 * PAGE + 5, "xyz", 3);
	assert_int_equal(fsfix_size(fx, id), 10 * PAGE + 8);
	assert_int_equal(pages_of(fx, id), 2);
	fsfix_expect(fx, id, 0, "abc", 3);
	expect_zeros(fx, id, 3, 10 * PAGE + 2);
	fsfix_expect(fx, id, 10 * PAGE + 5, "xyz", 3);
	assert_int_equal(seek(fx, id, 0, true), 0);
	assert_int_equal(seek(fx, id, 7, false), PAGE);
	assert_int_equal(seek(fx, id, PAGE, true), 10 * PAGE);
	assert_int_equal(seek(fx, id, 10 * PAGE + 1, false), 10 * PAGE + 8);
}

static void test_file_growing_shows_no_old_bytes(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	uint8_t *buf = pattern(5 * PAGE, 2);

	fsfix_write(fx, id, 0, buf, 5 * PAGE);
	assert_int_equal(truncate_to(fx, id, PAGE + 100), 0);
	assert_int_equal(pages_of(fx, id), 2);
	assert_int_equal(truncate_to(fx, id, 5 * PAGE), 0);
	fsfix_expect(fx, id, 0, buf, PAGE + 100);
	expect_zeros(fx, id, PAGE + 100, 4 * PAGE - 100);
	assert_int_equal(truncate_to(fx, id, 50), 0);
	fsfix_write(fx, id, 200, "z", 1);
	fsfix_expect(fx, id, 0, buf, 50);
	expect_zeros(fx, id, 50, 150);
	free(buf);
}

static void test_file_limits(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const uint64_t dir = fsfix_mkdir(fx, fx->root, "d");
	uint64_t at;
	char c;

	assert_int_equal(fs_write(fx->fs, id, PMFS_MAX_FILE_SIZE, "x", 1, 0), -EFBIG);
	assert_int_equal(fs_write(fx->fs, id, PMFS_MAX_FILE_SIZE - 1, "xy", 2, 0), 1);
	assert_int_equal(fsfix_size(fx, id), PMFS_MAX_FILE_SIZE);
	fsfix_expect(fx, id, PMFS_MAX_FILE_SIZE - 1, "x", 1);
	assert_int_equal(fs_read(fx->fs, id, PMFS_MAX_FILE_SIZE, &c, 1), 0);
	assert_int_equal(truncate_to(fx, id, PMFS_MAX_FILE_SIZE + 1), -EFBIG);
	assert_int_equal(seek(fx, id, 0, true), PMFS_MAX_FILE_SIZE - PAGE);
	assert_int_equal(truncate_to(fx, id, 0), 0);
	assert_int_equal(pages_of(fx, id), 0);
	assert_int_equal(fs_seek(fx->fs, id, 0, true, &at), -ENXIO);
	assert_int_equal(fs_write(fx->fs, id, 0, "x", 0, 0), 0);
	assert_int_equal(fs_fallocate(fx->fs, id, 0, 0, 0), -EINVAL);
	assert_int_equal(fs_fallocate(fx->fs, id, 0, PMFS_MAX_FILE_SIZE, 1), -EFBIG);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_PUNCH_HOLE, 0, 1), -EOPNOTSUPP);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_COLLAPSE_RANGE, 0, PAGE), -EOPNOTSUPP);

	assert_int_equal(fs_write(fx->fs, dir, 0, "x", 1, 0), -EISDIR);
	assert_int_equal(fs_read(fx->fs, dir, 0, &c, 1), -EISDIR);
	assert_int_equal(truncate_to(fx, dir, 0), -EISDIR);
	assert_int_equal(fs_fallocate(fx->fs, dir, 0, 0, 1), -EISDIR);
	assert_int_equal(fs_copy_range(fx->fs, id, 0, dir, 0, 1), -EISDIR);
	assert_int_equal(fs_seek(fx->fs, dir, 0, true, &at), -EISDIR);
	assert_int_equal(fs_write(fx->fs, fx->root + 100, 0, "x", 1, 0), -ENOENT);
}

static void test_file_times_move(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const struct fs_setattr past = { .mtime = { 1, 2 }, .ctime = { 3, 4 } };
	struct fs_attr attr;

	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MTIME | FS_SET_CTIME, &past, &attr),
				 0);
		assert_int_equal(attr.mtime.tv_sec, 1);
		assert_int_equal(attr.ctime.tv_nsec, 4);
		switch (i) {
		case 0:
			fsfix_write(fx, id, 0, "x", 1);
			break;
		case 1:
			assert_int_equal(truncate_to(fx, id, 1), 0);
			break;
		case 2:
			assert_int_equal(truncate_to(fx, id, 0), 0);
			break;
		default:
			assert_int_equal(fs_fallocate(fx->fs, id, 0, 0, PAGE), 0);
		}
		attr = attr_of(fx, id);
		assert_true(attr.mtime.tv_sec > 1);
		assert_true(attr.ctime.tv_sec > 3);
	}
}

/* ------------------------------------------------------------------ reading without copying */

static void test_file_read_pieces(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	uint8_t *buf = pattern(64 * PAGE, 3), *got = malloc(64 * PAGE);
	struct iovec iov[300];
	struct fs_read rd = { .iov = iov, .max = ARRAY_SIZE(iov) };
	ssize_t n;
	size_t at = 0;

	assert_non_null(got);
	/* Holes in the middle, the end in a page. */
	memset(buf + 10 * PAGE, 0, 40 * PAGE);
	fsfix_write(fx, id, 0, buf, 10 * PAGE);
	fsfix_write(fx, id, 50 * PAGE, buf + 50 * PAGE, 13 * PAGE + 17);
	n = fs_read_begin(fx->fs, id, 100, 64 * PAGE, &rd);
	assert_int_equal(n, 63 * PAGE + 17 - 100);
	for (int i = 0; i < rd.count; i++) {
		memcpy(got + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	fs_read_end(fx->fs, &rd);
	assert_int_equal(at, n);
	assert_memory_equal(got, buf + 100, at);
	/* A fresh region hands out frames in order; 40 pages of hole are 3 pieces. */
	assert_true(rd.count <= 10);

	/* Little room: fewer bytes. */
	rd.max = 1;
	n = fs_read_begin(fx->fs, id, 20 * PAGE, 40 * PAGE, &rd);
	assert_int_equal(n, 16 * PAGE);
	assert_int_equal(rd.count, 1);
	fs_read_end(fx->fs, &rd);
	n = fs_read_begin(fx->fs, id, 64 * PAGE, 1, &rd);
	assert_int_equal(n, 0);
	assert_int_equal(rd.count, 0);
	fs_read_end(fx->fs, &rd);
	/* From the inode. */
	assert_int_equal(truncate_to(fx, id, 0), 0);
	fsfix_write(fx, id, 0, "hello", 5);
	n = fs_read_begin(fx->fs, id, 1, 100, &rd);
	assert_int_equal(n, 4);
	assert_memory_equal(iov[0].iov_base, "ello", 4);
	fs_read_end(fx->fs, &rd);
	free(buf);
	free(got);
}

/* Pages that dedup has found to be zeros are as good as holes: a reader gets them in few pieces. */
static int merge_zero(void *arg, vpn_t vpn, const struct page_info *info)
{
	struct store *st = arg;
	struct txn tx;
	int rc;

	(void)info;
	rc = txn_begin(st, &tx, FRAME_FREEING, 0);
	if (rc)
		return rc;
	rc = page_merge_zero(&tx, vpn);
	txn_end(&tx);
	return rc < 0 ? rc : 0;
}

static void test_file_read_of_merged_zeros(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	struct store *st = fs_store(fx->fs);
	struct iovec iov[300];
	struct fs_read rd = { .iov = iov, .max = ARRAY_SIZE(iov) };
	struct store_stats stats;
	uint8_t *zeros = calloc(256, PAGE);
	size_t at = 0;

	assert_non_null(zeros);
	fsfix_write(fx, id, 0, zeros, 256 * PAGE);
	free(zeros);
	assert_int_equal(fs_sync(fx->fs), 0);
	assert_int_equal(store_each_page(st, 0, store_vpn_limit(st), merge_zero, st), 0);
	store_stat(st, &stats);
	assert_true(stats.zero_merged >= 256);
	assert_int_equal(fs_read_begin(fx->fs, id, 0, 256 * PAGE, &rd), 256 * PAGE);
	for (int i = 0; i < rd.count; i++) {
		assert_true(mem_is_zero(iov[i].iov_base, iov[i].iov_len));
		at += iov[i].iov_len;
	}
	fs_read_end(fx->fs, &rd);
	assert_int_equal(at, 256 * PAGE);
	assert_true(rd.count <= 20);
}

/* ------------------------------------------------------------------ fallocate */

static void test_file_reserve(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");

	fsfix_write(fx, id, 0, "keep me", 7);
	assert_int_equal(fs_fallocate(fx->fs, id, KEEP, 0, 100), 0);
	assert_int_equal(pages_of(fx, id), 0);
	assert_int_equal(fs_fallocate(fx->fs, id, 0, 0, 100), 0);
	assert_int_equal(fsfix_size(fx, id), 100);
	assert_int_equal(fs_fallocate(fx->fs, id, KEEP, PAGE, 600 * PAGE), 0);
	assert_int_equal(fsfix_size(fx, id), 100);
	assert_int_equal(pages_of(fx, id), 601);
	fsfix_expect(fx, id, 0, "keep me", 7);
	assert_int_equal(fs_fallocate(fx->fs, id, 0, 0, 300 * PAGE + 1), 0);
	assert_int_equal(fsfix_size(fx, id), 300 * PAGE + 1);
	assert_int_equal(pages_of(fx, id), 601);
	expect_zeros(fx, id, 7, 300 * PAGE - 6);
	/* From the inode into the first page, not over it. */
	assert_int_equal(truncate_to(fx, id, 0), 0);
	fsfix_write(fx, id, 0, "keep me", 7);
	assert_int_equal(fs_fallocate(fx->fs, id, KEEP, 0, 301 * PAGE), 0);
	fsfix_expect(fx, id, 0, "keep me", 7);
	assert_int_equal(pages_of(fx, id), 301);
	assert_int_equal(fs_fallocate(fx->fs, id, 0, 0, 300 * PAGE + 1), 0);
	/* Reserved space is data to SEEK_DATA, and truncation gives it back. */
	assert_int_equal(seek(fx, id, 5 * PAGE, true), 5 * PAGE);
	assert_int_equal(seek(fx, id, 5 * PAGE, false), 300 * PAGE + 1);
	assert_int_equal(truncate_to(fx, id, 10 * PAGE), 0);
	assert_int_equal(pages_of(fx, id), 10);
}

/* The times change even where nothing else has to, as on other filesystems. */
static void test_file_fallocate_stamps(void **state)
{
	static const int modes[] = {0, KEEP, KEEP | FALLOC_FL_PUNCH_HOLE};
	const struct fs_setattr old = {.mtime = {1000, 5}};
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	struct fs_attr a;

	for (unsigned size = 100; size <= 3 * PAGE; size += 3 * PAGE - 100) {
		assert_int_equal(truncate_to(fx, id, size), 0);
		assert_int_equal(fs_fallocate(fx->fs, id, 0, 0, size), 0);
		for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
			assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MTIME, &old, &a), 0);
			assert_int_equal(a.mtime.tv_sec, 1000);
			assert_int_equal(fs_fallocate(fx->fs, id, modes[i], size - 1, 1), 0);
			assert_true(attr_of(fx, id).mtime.tv_sec > 1000);
		}
	}
}

static void test_file_punch(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	uint8_t *buf = pattern(12 * PAGE, 4);

	fsfix_write(fx, id, 0, buf, 11 * PAGE + 100);
	assert_int_equal(fs_fallocate(fx->fs, id, PUNCH, PAGE + 10, 20), 0);
	memset(buf + PAGE + 10, 0, 20);
	assert_int_equal(pages_of(fx, id), 12);
	assert_int_equal(fs_fallocate(fx->fs, id, PUNCH, 2 * PAGE + 50, 3 * PAGE), 0);
	memset(buf + 2 * PAGE + 50, 0, 3 * PAGE);
	assert_int_equal(pages_of(fx, id), 10);
	fsfix_expect(fx, id, 0, buf, 11 * PAGE + 100);
	/* To the end and beyond: the last page goes as a whole, the size stays. */
	assert_int_equal(fs_fallocate(fx->fs, id, PUNCH, 11 * PAGE, 200), 0);
	assert_int_equal(pages_of(fx, id), 9);
	assert_int_equal(fsfix_size(fx, id), 11 * PAGE + 100);
	expect_zeros(fx, id, 11 * PAGE, 100);
	/* A hole stays a hole, an inline file stays inline. */
	assert_int_equal(fs_fallocate(fx->fs, id, PUNCH, 11 * PAGE + 5, 10), 0);
	assert_int_equal(pages_of(fx, id), 9);
	assert_int_equal(truncate_to(fx, id, 0), 0);
	fsfix_write(fx, id, 0, "0123456789", 10);
	assert_int_equal(fs_fallocate(fx->fs, id, PUNCH, 2, 3), 0);
	fsfix_expect(fx, id, 0, "01\0\0\00056789", 10);
	assert_int_equal(fs_fallocate(fx->fs, id, PUNCH, 8, 10 * PAGE), 0);
	fsfix_expect(fx, id, 0, "01\0\0\000567\0\0", 10);
	free(buf);
}

static void test_file_zero_range(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	uint8_t *buf = pattern(6 * PAGE, 5);

	fsfix_write(fx, id, 0, buf, 50);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_ZERO_RANGE | KEEP, 40, 20), 0);
	memset(buf + 40, 0, 10);
	fsfix_expect(fx, id, 0, buf, 50);
	assert_int_equal(fsfix_size(fx, id), 50);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_ZERO_RANGE, 40, 20), 0);
	assert_int_equal(fsfix_size(fx, id), 60);
	assert_int_equal(pages_of(fx, id), 0);

	fsfix_write(fx, id, 0, buf, 6 * PAGE);
	assert_int_equal(fs_fallocate(fx->fs, id, PUNCH, 2 * PAGE, PAGE), 0);
	memset(buf + 2 * PAGE, 0, PAGE);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_ZERO_RANGE, PAGE + 7, 3 * PAGE), 0);
	memset(buf + PAGE + 7, 0, 3 * PAGE);
	fsfix_expect(fx, id, 0, buf, 6 * PAGE);
	assert_int_equal(pages_of(fx, id), 6);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_ZERO_RANGE | KEEP, 5 * PAGE, 3 * PAGE),
			 0);
	assert_int_equal(fsfix_size(fx, id), 6 * PAGE);
	assert_int_equal(pages_of(fx, id), 8);
	assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_ZERO_RANGE, 5 * PAGE, 3 * PAGE), 0);
	assert_int_equal(fsfix_size(fx, id), 8 * PAGE);
	expect_zeros(fx, id, 5 * PAGE, 3 * PAGE);
	free(buf);
}

/* ------------------------------------------------------------------ no space */

/* 8 MiB: a write takes what fits, the next one nothing; removing makes room again. */
static void test_file_full(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const uint64_t other = fsfix_file(fx, fx->root, "g");
	uint8_t *buf = pattern(256 * PAGE, 6);
	struct fs_statfs sf;
	uint64_t size = 0;
	ssize_t n;

	assert_int_equal(fs_fallocate(fx->fs, other, 0, 0, UINT64_C(1) << 40), -ENOSPC);
	assert_int_equal(fs_fallocate(fx->fs, other, 0, 0, UINT64_C(9) << 20), -ENOSPC);
	assert_int_equal(pages_of(fx, other), 0);
	assert_int_equal(fsfix_size(fx, other), 0);
	while ((n = fs_write(fx->fs, id, size, buf, 256 * PAGE, 0)) > 0)
		size += (uint64_t)n;
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(fsfix_size(fx, id), size);
	assert_true(size > UINT64_C(4) << 20);
	for (uint64_t at = 0; at < size; at += 256 * PAGE)
		fsfix_expect(fx, id, at, buf, MIN(256 * PAGE, size - at));
	assert_int_equal(fs_statfs(fx->fs, &sf), 0);
	assert_true(sf.available < 64);
	assert_int_equal(fs_fallocate(fx->fs, other, 0, 0, 64 * PAGE), -ENOSPC);
	assert_int_equal(truncate_to(fx, id, size / 2 + 1), 0);
	fsfix_expect(fx, id, 0, buf, 256 * PAGE);
	fsfix_write(fx, other, 0, buf, 64 * PAGE);
	fsfix_expect(fx, other, 0, buf, 64 * PAGE);
	free(buf);
}

/* On a full filesystem with a snapshot, giving back needs frames first, and gets them. */
static void test_file_full_with_snapshot_can_shrink(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	uint8_t *buf = pattern(256 * PAGE, 7);
	struct fs_snapshot snap;
	uint64_t size = 0;
	ssize_t n;

	fsfix_write(fx, id, 0, buf, 200 * PAGE);
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	while ((n = fs_write(fx->fs, id, size, buf, 256 * PAGE, 0)) > 0)
		size += (uint64_t)n;
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(fs_fallocate(fx->fs, id, PUNCH, 100, 10 * PAGE), 0);
	assert_int_equal(truncate_to(fx, id, 50 * PAGE + 1), 0);
	assert_int_equal(truncate_to(fx, id, 0), 0);
	assert_int_equal(pages_of(fx, id), 0);
	fsfix_write(fx, id, 0, buf, 64 * PAGE);
	assert_int_equal(fs_snap_delete(fx->fs, "s"), 0);
	free(buf);
}

/* ------------------------------------------------------------------ truncation in steps */

static void test_file_big_truncation(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	uint8_t *buf = pattern(512 * PAGE, 8);
	struct fs_snapshot snap;
	struct fs_attr root, old;

	for (unsigned i = 0; i < 12; i++)
		fsfix_write(fx, id, i * 512 * PAGE, buf, 512 * PAGE);
	assert_int_equal(pages_of(fx, id), 12 * 512);
	/* In several transactions when nothing is shared. */
	assert_int_equal(truncate_to(fx, id, 512 * PAGE + 1), 0);
	assert_int_equal(pages_of(fx, id), 513);
	for (unsigned i = 1; i < 12; i++)
		fsfix_write(fx, id, i * 512 * PAGE, buf, 512 * PAGE);
	assert_int_equal(truncate_to(fx, id, 11 * 512 * PAGE + 1), 0);
	assert_int_equal(pages_of(fx, id), 11 * 512 + 1);
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	assert_int_equal(truncate_to(fx, id, 700 * PAGE - 1), 0);
	assert_int_equal(pages_of(fx, id), 700);
	fsfix_expect(fx, id, 512 * PAGE, buf, 188 * PAGE - 1);
	assert_int_equal(truncate_to(fx, id, 0), 0);
	assert_int_equal(pages_of(fx, id), 0);
	assert_int_equal(fs_snap_lookup(fx->fs, "s", &root), 0);
	assert_int_equal(fs_lookup(fx->fs, root.id, "f", 1, &old), 0);
	assert_int_equal(old.size, 11 * 512 * PAGE + 1);
	fsfix_expect(fx, old.id, 10 * 512 * PAGE, buf, 512 * PAGE);
	fs_forget(fx->fs, old.id, 1);
	fs_forget(fx->fs, root.id, 1);
	free(buf);
}

/* What a crash between the steps of a truncation leaves is never seen again. */
static void stale_file(struct fsfix *fx, uint64_t id, const uint8_t *buf)
{
	struct inode *in;
	struct txn tx;

	fsfix_write(fx, id, 0, buf, 20 * PAGE);
	assert_int_equal(inode_get(fx->fs, id, &in), 0);
	rw_wrlock(&in->lock);
	assert_int_equal(txn_begin(fx->fs->st, &tx, FRAME_NORMAL, ITABLE_COST), 0);
	in->size = 3 * PAGE;
	in->flags |= PMFS_INODE_STALE;
	assert_int_equal(itable_store(&tx, in), 0);
	txn_end(&tx);
	rw_unlock(&in->lock);
	inode_put(fx->fs, in);
}

static void test_file_truncation_cut_short(void **state)
{
	struct fsfix *fx = *state;
	uint8_t *buf = pattern(20 * PAGE, 9);
	static const char *const names[] = { "write", "grow", "reserve", "copy", "shrink", "zero" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		stale_file(fx, fsfix_file(fx, fx->root, names[i]), buf);
	assert_int_equal(fs_sync(fx->fs), 0);
	fsfix_crash(fx);
	fsfix_start(fx);
	fsfix_check(fx);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const uint64_t id = fsfix_find(fx, fx->root, names[i]);

		assert_int_equal(pages_of(fx, id), 20);
		switch (i) {
		case 0:
			fsfix_write(fx, id, 19 * PAGE, buf, 1);
			break;
		case 1:
			assert_int_equal(truncate_to(fx, id, 19 * PAGE + 1), 0);
			break;
		case 2:
			assert_int_equal(fs_fallocate(fx->fs, id, 0, 10 * PAGE, 9 * PAGE + 1), 0);
			break;
		case 3:
			assert_int_equal(fs_copy_range(fx->fs, id, 0, id, 19 * PAGE, 1), 1);
			break;
		case 4:
			assert_int_equal(truncate_to(fx, id, PAGE), 0);
			assert_int_equal(pages_of(fx, id), 1);
			assert_int_equal(truncate_to(fx, id, 19 * PAGE + 1), 0);
			expect_zeros(fx, id, PAGE, 2 * PAGE);
			break;
		default:
			assert_int_equal(fs_fallocate(fx->fs, id, FALLOC_FL_ZERO_RANGE, 19 * PAGE,
						      1), 0);
		}
		assert_int_equal(fsfix_size(fx, id), 19 * PAGE + 1);
		expect_zeros(fx, id, 3 * PAGE, 16 * PAGE);
		if (i != 4)
			fsfix_expect(fx, id, 0, buf, 3 * PAGE);
		fs_forget(fx->fs, id, 1);
	}
	free(buf);
}

/* ------------------------------------------------------------------ copies */

static void test_file_copy_shares_pages(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t from = fsfix_file(fx, fx->root, "from");
	const uint64_t to = fsfix_file(fx, fx->root, "to");
	const size_t len = 1500 * PAGE + 99;
	uint8_t *buf = pattern(len, 10);
	struct store_stats before, after;

	memset(buf + 600 * PAGE, 0, 100 * PAGE);
	fsfix_write(fx, from, 0, buf, len);
	assert_int_equal(fs_fallocate(fx->fs, from, PUNCH, 600 * PAGE, 100 * PAGE), 0);
	store_stat(fs_store(fx->fs), &before);
	assert_int_equal(fs_copy_range(fx->fs, from, 0, to, 0, UINT64_MAX), len);
	store_stat(fs_store(fx->fs), &after);
	/* New is the last node, and the one above: the other two are shared, with the hole. */
	assert_int_equal(after.pages - before.pages, 2);
	assert_int_equal(pages_of(fx, to), pages_of(fx, from));
	assert_int_equal(pages_of(fx, to), 1401);
	fsfix_expect(fx, to, 0, buf, len);
	/* Writing one of them leaves the other. */
	fsfix_write(fx, to, 5 * PAGE + 5, "changed", 7);
	fsfix_expect(fx, from, 0, buf, len);
	memcpy(buf + 5 * PAGE + 5, "changed", 7);
	fsfix_expect(fx, to, 0, buf, len);
	/* Over something longer, with unaligned ends. */
	assert_int_equal(fs_copy_range(fx->fs, from, 10, to, 20 * PAGE + 10, 7 * PAGE), 7 * PAGE);
	memmove(buf + 20 * PAGE + 10, buf + 10, 7 * PAGE);
	assert_int_equal(fsfix_size(fx, to), len);
	assert_int_equal(truncate_to(fx, from, 0), 0);
	assert_int_equal(pages_of(fx, from), 0);
	free(buf);
}

/* A copy costs a pointer for each 2 MiB, whatever is in them. */
static void test_file_copy_shares_nodes(void **state)
{
	enum { NODES = 6, N = PTAB_NODE_PAGES };
	struct fsfix *fx = *state;
	const uint64_t from = fsfix_file(fx, fx->root, "from");
	const uint64_t to = fsfix_file(fx, fx->root, "to");
	const size_t len = NODES * N * PAGE;
	uint8_t *buf = pattern(len, 3);
	struct fs_file_info info;
	struct store_stats before, after;
	struct inode *in;
	uint64_t refs;
	vpn_t vpn;

	fsfix_write(fx, from, 0, buf, len);
	store_stat(fs_store(fx->fs), &before);
	assert_int_equal(fs_copy_range(fx->fs, from, 0, to, 0, len), len);
	store_stat(fs_store(fx->fs), &after);
	assert_int_equal(after.pages - before.pages, 1);
	assert_int_equal(inode_get(fx->fs, to, &in), 0);
	assert_int_equal(ptab_get(fs_store(fx->fs), &in->data, 1000, &vpn), 0);
	assert_int_equal(page_refs(fs_store(fx->fs), vpn, &refs), 0);
	assert_int_equal(refs, 1);
	inode_put(fx->fs, in);
	assert_int_equal(pages_of(fx, to), NODES * N);
	fsfix_expect(fx, to, 0, buf, len);
	assert_int_equal(fs_file_info(fx->fs, to, &info), 0);
	assert_int_equal(info.pages, NODES * N);
	assert_int_equal(info.shared_pages, NODES * N);
	assert_int_equal(info.frames, NODES * N);
	assert_int_equal(info.table_pages, NODES + 1);

	/* Doubled again and again in place: more pages than the image has. */
	for (uint64_t size = len; size < 64 * len; size *= 2)
		assert_int_equal(fs_copy_range(fx->fs, to, 0, to, size, size), size);
	assert_int_equal(pages_of(fx, to), UINT64_C(64) * NODES * N);
	assert_int_equal(fs_file_info(fx->fs, to, &info), 0);
	assert_int_equal(info.pages, UINT64_C(64) * NODES * N);
	assert_int_equal(info.frames, NODES * N);
	fsfix_expect(fx, to, 33 * len, buf, len);
	fsfix_check(fx);

	/* A page written in one place is written there only. */
	fsfix_write(fx, to, 40 * len + 7 * PAGE, "changed", 7);
	fsfix_expect(fx, to, 41 * len, buf, len);
	fsfix_expect(fx, from, 0, buf, len);
	memcpy(buf + 7 * PAGE, "changed", 7);
	fsfix_expect(fx, to, 40 * len, buf, len);

	/* What is reserved in one file is so for that one. */
	assert_int_equal(truncate_to(fx, to, 0), 0);
	assert_int_equal(fs_fallocate(fx->fs, to, KEEP, 0, PAGE), 0);
	assert_int_equal(fs_copy_range(fx->fs, from, 0, to, N * PAGE, N * PAGE), N * PAGE);
	assert_int_equal(fs_copy_range(fx->fs, to, 0, from, len, N * PAGE), N * PAGE);
	assert_int_equal(pages_of(fx, from), NODES * N);
	free(buf);
}

/* Files of a few nodes, each page of which says what was written there last. */
#define NODE_FILES 3u
#define CLONE_NODES 4u
#define CLONE_PAGES (CLONE_NODES * PTAB_NODE_PAGES)

struct clones {
	struct fsfix *fx;
	struct fsfix_random rnd;
	uint64_t id[NODE_FILES], size[NODE_FILES]; /* pages */
	uint64_t tag[NODE_FILES][CLONE_PAGES];	     /* 0: zeros */
	uint64_t last;
	uint8_t *buf;
	unsigned snaps;
};

static void clones_write(struct clones *cl, unsigned f, uint64_t at, uint64_t n)
{
	n = MIN(n, CLONE_PAGES - at);
	memset(cl->buf, 0, n * PAGE);
	for (uint64_t i = 0; i < n; i++) {
		cl->tag[f][at + i] = ++cl->last;
		memcpy(cl->buf + i * PAGE, &cl->last, sizeof(cl->last));
	}
	fsfix_write(cl->fx, cl->id[f], at * PAGE, cl->buf, n * PAGE);
	cl->size[f] = MAX(cl->size[f], at + n);
}

static void clones_copy(struct clones *cl, unsigned f, unsigned t, uint64_t from, uint64_t to,
			uint64_t n)
{
	const int64_t want = (int64_t)(MIN(n, MAX(cl->size[f], from) - from) * PAGE);

	n = MIN(n, CLONE_PAGES - MAX(from, to));
	if (f == t && from < to + n && to < from + n)
		return;
	n = MIN(n, (uint64_t)want / PAGE);
	assert_int_equal(fs_copy_range(cl->fx->fs, cl->id[f], from * PAGE, cl->id[t], to * PAGE,
				       n * PAGE), n * PAGE);
	memmove(&cl->tag[t][to], &cl->tag[f][from], n * sizeof(cl->tag[0][0]));
	if (n)
		cl->size[t] = MAX(cl->size[t], to + n);
}

static void clones_shorten(struct clones *cl, unsigned f, uint64_t pages)
{
	assert_int_equal(truncate_to(cl->fx, cl->id[f], pages * PAGE), 0);
	memset(&cl->tag[f][pages], 0, (CLONE_PAGES - pages) * sizeof(cl->tag[0][0]));
	cl->size[f] = pages;
}

static void clones_step(struct clones *cl)
{
	const unsigned f = (unsigned)fsfix_below(&cl->rnd, NODE_FILES);
	const unsigned t = (unsigned)fsfix_below(&cl->rnd, NODE_FILES);
	const uint64_t at = fsfix_below(&cl->rnd, CLONE_PAGES);
	const uint64_t a = fsfix_below(&cl->rnd, CLONE_NODES) * PTAB_NODE_PAGES;
	const uint64_t b = fsfix_below(&cl->rnd, CLONE_NODES) * PTAB_NODE_PAGES;
	const uint64_t skew = fsfix_below(&cl->rnd, 2) ? at % 40 : 0;
	const uint64_t n = 1 + fsfix_below(&cl->rnd, CLONE_PAGES);
	char name[2] = {(char)('0' + f), 0};

	switch (fsfix_below(&cl->rnd, 10)) {
	case 0:
	case 1:
		clones_write(cl, f, at, 1 + n % 300);
		break;
	case 2:
		clones_shorten(cl, f, at);
		break;
	case 3:
		assert_int_equal(fs_fallocate(cl->fx->fs, cl->id[f], PUNCH, at * PAGE, n * PAGE), 0);
		memset(&cl->tag[f][at], 0, MIN(n, CLONE_PAGES - at) * sizeof(cl->tag[0][0]));
		break;
	case 4:
		name[0] = (char)('a' + cl->snaps % 2);
		if (cl->snaps++ >= 2) {
			assert_int_equal(fs_snap_delete(cl->fx->fs, name), 0);
			assert_true(reclaim_run(cl->fx->fs) >= 0);
		}
		assert_int_equal(fs_snap_create(cl->fx->fs, name, NULL, NULL), 0);
		break;
	case 5:
		assert_int_equal(fs_unlink(cl->fx->fs, cl->fx->root, name, 1), 0);
		fs_forget(cl->fx->fs, cl->id[f], 1);
		cl->id[f] = fsfix_file(cl->fx, cl->fx->root, name);
		cl->size[f] = 0;
		memset(cl->tag[f], 0, sizeof(cl->tag[f]));
		break;
	default:
		clones_copy(cl, f, t, a + skew, b + skew, n);
	}
}

static void clones_verify(struct clones *cl)
{
	uint64_t tag;

	for (unsigned f = 0; f < NODE_FILES; f++) {
		assert_int_equal(fsfix_size(cl->fx, cl->id[f]), cl->size[f] * PAGE);
		for (uint64_t i = 0; i < cl->size[f]; i++) {
			assert_int_equal(fs_read(cl->fx->fs, cl->id[f], i * PAGE, &tag, sizeof(tag)),
					 sizeof(tag));
			assert_int_equal(tag, cl->tag[f][i]);
		}
	}
	fsfix_check(cl->fx);
}

static void test_file_clones_against_a_model(void **state)
{
	const unsigned steps = (unsigned)fsfix_env("PMFS_OPS", 300);
	struct clones *cl = calloc(1, sizeof(*cl));

	assert_non_null(cl);
	cl->fx = *state;
	cl->buf = malloc(300 * PAGE);
	assert_non_null(cl->buf);
	fsfix_seed(&cl->rnd, 20);
	for (unsigned f = 0; f < NODE_FILES; f++) {
		const char name[2] = {(char)('0' + f), 0};

		cl->id[f] = fsfix_file(cl->fx, cl->fx->root, name);
		for (uint64_t at = 0; at < CLONE_PAGES; at += 300)
			clones_write(cl, f, at, 300);
	}
	for (unsigned i = 0; i < steps; i++) {
		clones_step(cl);
		if (i % 20 == 0)
			clones_verify(cl);
	}
	clones_verify(cl);
	free(cl->buf);
	free(cl);
}

static void test_file_copy_refuses_and_ends(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t a = fsfix_file(fx, fx->root, "a");
	const uint64_t b = fsfix_file(fx, fx->root, "b");
	struct fs_snapshot snap;
	struct fs_attr root, old;

	fsfix_write(fx, a, 0, "0123456789", 10);
	assert_int_equal(fs_copy_range(fx->fs, a, 10, b, 0, 5), 0);
	assert_int_equal(fs_copy_range(fx->fs, a, 8, b, 0, 5), 2);
	fsfix_expect(fx, b, 0, "89", 2);
	assert_int_equal(fs_copy_range(fx->fs, a, 0, a, 5, 6), -EINVAL);
	assert_int_equal(fs_copy_range(fx->fs, a, 0, a, 10, 10), 10);
	fsfix_expect(fx, a, 0, "01234567890123456789", 20);
	assert_int_equal(fs_copy_range(fx->fs, a, 0, b, PMFS_MAX_FILE_SIZE, 5), -EFBIG);
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	assert_int_equal(fs_snap_lookup(fx->fs, "s", &root), 0);
	assert_int_equal(fs_lookup(fx->fs, root.id, "b", 1, &old), 0);
	assert_int_equal(fs_copy_range(fx->fs, a, 0, old.id, 0, 5), -EROFS);
	assert_int_equal(fs_write(fx->fs, old.id, 0, "x", 1, 0), -EROFS);
	assert_int_equal(truncate_to(fx, old.id, 0), -EROFS);
	assert_int_equal(fs_fallocate(fx->fs, old.id, 0, 0, 1), -EROFS);
	fsfix_write(fx, b, 0, "new", 3);
	assert_int_equal(fs_copy_range(fx->fs, old.id, 0, b, 1, 5), 2);
	fsfix_expect(fx, b, 0, "n89", 3);
	fs_forget(fx->fs, old.id, 1);
	fs_forget(fx->fs, root.id, 1);
}

/* ------------------------------------------------------------------ privileges */

static void test_file_write_kills_privileges(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const struct fs_setattr set = { .mode = 06755 };

	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MODE, &set, NULL), 0);
	assert_int_equal(fs_setxattr(fx->fs, id, "security.capability", "cap", 3, 0), 0);
	assert_int_equal(fs_setxattr(fx->fs, id, "user.x", "1", 1, 0), 0);
	fsfix_write(fx, id, 0, "x", 1);
	assert_int_equal(attr_of(fx, id).mode & 07777, 06755);
	assert_int_equal(fs_getxattr(fx->fs, id, "security.capability", NULL, 0), 3);
	assert_int_equal(fs_write(fx->fs, id, 0, "x", 1, FS_WRITE_KILL_PRIV), 1);
	assert_int_equal(attr_of(fx, id).mode & 07777, 0755);
	assert_int_equal(fs_getxattr(fx->fs, id, "security.capability", NULL, 0), -ENODATA);
	assert_int_equal(fs_getxattr(fx->fs, id, "user.x", NULL, 0), 1);
}

/* ------------------------------------------------------------------ durability */

static void test_file_fsync_survives_a_crash(void **state)
{
	struct fsfix *fx = *state;
	uint64_t id = fsfix_file(fx, fx->root, "f");
	uint8_t *buf = pattern(300 * PAGE, 11);

	fsfix_write(fx, id, 0, buf, 300 * PAGE);
	assert_int_equal(fs_fsync(fx->fs, id, false), 0);
	fsfix_write(fx, id, 0, "lost", 4);
	fsfix_crash(fx);
	fsfix_start(fx);
	id = fsfix_find(fx, fx->root, "f");
	assert_true(id != 0);
	fsfix_expect(fx, id, 0, buf, 300 * PAGE);
	assert_int_equal(pages_of(fx, id), 300);
	fsfix_stop(fx);
	fx->read_only = true;
	fsfix_start(fx);
	id = fsfix_find(fx, fx->root, "f");
	assert_int_equal(fs_write(fx->fs, id, 0, "x", 1, 0), -EROFS);
	assert_int_equal(fs_fsync(fx->fs, id, false), 0);
	fsfix_expect(fx, id, 0, buf, 300 * PAGE);
	free(buf);
}

/* ------------------------------------------------------------------ a failing host */

/* What the calls below do until one of them fails. */
static int some_changes(struct fsfix *fx, uint64_t a, uint64_t b, const uint8_t *buf)
{
	struct fs_snapshot snap;
	ssize_t n;
	int rc;

	n = fs_write(fx->fs, a, 100, buf, 5 * PAGE, 0);
	if (n < 0)
		return (int)n;
	rc = fs_snap_create(fx->fs, "s", "", &snap);
	if (rc)
		return rc;
	n = fs_copy_range(fx->fs, a, 0, b, PAGE, 4 * PAGE);
	if (n < 0)
		return (int)n;
	rc = fs_fallocate(fx->fs, a, PUNCH, 50, 2 * PAGE);
	if (!rc)
		rc = truncate_to(fx, a, 3 * PAGE + 1);
	if (!rc)
		rc = fs_fallocate(fx->fs, b, KEEP, 8 * PAGE, 3 * PAGE);
	if (!rc)
		rc = fs_sync(fx->fs);
	return rc;
}

/*
 * The Nth write to the image fails, until there is no Nth any more.  What is left of it is a
 * consistent filesystem, and what was durable before.
 */
static void test_file_writes_to_the_host_fail(void **state)
{
	uint8_t *buf = pattern(6 * PAGE, 12);
	bool failed = true;

	(void)state;
	for (uint64_t nth = 1; failed; nth++) {
		struct fsfix fx;
		uint64_t a, b;

		fsfix_image(&fx, 0);
		a = fsfix_file(&fx, fx.root, "a");
		b = fsfix_file(&fx, fx.root, "b");
		fsfix_write(&fx, b, 0, buf, 6 * PAGE);
		assert_int_equal(fs_sync(fx.fs), 0);
		fault_reset();
		if (fault_arm("region.write", nth, EIO)) {
			fsfix_free(&fx);
			free(buf);
			skip();
		}
		failed = some_changes(&fx, a, b, buf) != 0;
		assert_true(failed == (fault_count("region.write") >= nth));
		fault_reset();
		/* It may be given up, or closed and then perhaps with an error. */
		if (nth % 2)
			fsfix_crash(&fx);
		else
			(void)fs_close(fx.fs);
		fsfix_start(&fx);
		fsfix_check(&fx);
		b = fsfix_find(&fx, fx.root, "b");
		fsfix_expect(&fx, b, 0, buf, PAGE);
		fsfix_free(&fx);
	}
	free(buf);
}

/* ------------------------------------------------------------------ against a model */

#define FILES 4u
#define SNAPS 3u
#define MAX_BYTES (700 * PAGE)

struct contents {
	uint64_t size;
	uint8_t *bytes; /* MAX_BYTES, zeros behind the size */
};

struct model {
	struct fsfix *fx;
	struct fsfix_random rnd;
	uint64_t id[FILES];
	struct contents live[FILES];
	bool taken[SNAPS];
	struct contents snap[SNAPS][FILES];
	uint8_t *buf, *got;
};

static const char *const file_names[FILES] = { "f0", "f1", "f2", "f3" };
static const char *const snap_names[SNAPS] = { "s0", "s1", "s2" };

static uint64_t below(struct model *m, uint64_t n)
{
	return fsfix_below(&m->rnd, n);
}

/* Small and big, aligned and not. */
static uint64_t some_offset(struct model *m)
{
	switch (below(m, 4)) {
	case 0:
		return below(m, 200);
	case 1:
		return below(m, 300) * PAGE;
	case 2:
		return below(m, 10) * PAGE + below(m, PAGE);
	default:
		return below(m, 300 * PAGE);
	}
}

static uint64_t some_length(struct model *m)
{
	switch (below(m, 4)) {
	case 0:
		return 1 + below(m, 150);
	case 1:
		return (1 + below(m, 20)) * PAGE;
	case 2:
		return 1 + below(m, 3 * PAGE);
	default:
		return 1 + below(m, 300 * PAGE);
	}
}

static void model_write(struct model *m, unsigned f)
{
	const uint64_t off = some_offset(m), len = some_length(m);

	fsfix_fill(&m->rnd, m->buf, len);
	fsfix_write(m->fx, m->id[f], off, m->buf, len);
	memcpy(m->live[f].bytes + off, m->buf, len);
	m->live[f].size = MAX(m->live[f].size, off + len);
}

static void model_truncate(struct model *m, unsigned f)
{
	const uint64_t size = below(m, 5) ? some_offset(m) : 0;

	assert_int_equal(truncate_to(m->fx, m->id[f], size), 0);
	if (size < m->live[f].size)
		memset(m->live[f].bytes + size, 0, m->live[f].size - size);
	m->live[f].size = size;
}

static void model_fallocate(struct model *m, unsigned f)
{
	static const int modes[] = { 0, KEEP, PUNCH, PUNCH, FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_ZERO_RANGE | KEEP };
	const int mode = modes[below(m, ARRAY_SIZE(modes))];
	const uint64_t off = some_offset(m), len = some_length(m);

	assert_int_equal(fs_fallocate(m->fx->fs, m->id[f], mode, off, len), 0);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(m->live[f].bytes + off, 0, len);
	if (!(mode & KEEP))
		m->live[f].size = MAX(m->live[f].size, off + len);
}

static void copy_from(struct model *m, uint64_t from_id, const struct contents *from, unsigned to,
		      bool same)
{
	uint64_t off = some_offset(m), to_off = some_offset(m);
	uint64_t len = below(m, 3) ? some_length(m) : UINT64_C(1) << 40;
	uint64_t want;

	if (below(m, 2)) {
		off = ALIGN_DOWN(off, PAGE);
		to_off = ALIGN_DOWN(to_off, PAGE);
	}
	want = off < from->size ? MIN(len, from->size - off) : 0;
	if (to_off + want > MAX_BYTES)
		return;
	if (same && want && off < to_off + want && to_off < off + want) {
		assert_int_equal(fs_copy_range(m->fx->fs, from_id, off, m->id[to], to_off, len),
				 -EINVAL);
		return;
	}
	assert_int_equal(fs_copy_range(m->fx->fs, from_id, off, m->id[to], to_off, len), want);
	memcpy(m->live[to].bytes + to_off, from->bytes + off, want);
	if (want)
		m->live[to].size = MAX(m->live[to].size, to_off + want);
}

static void model_copy(struct model *m, unsigned f)
{
	const unsigned from = (unsigned)below(m, FILES);

	copy_from(m, m->id[from], &m->live[from], f, from == f);
}

static uint64_t snap_file(struct model *m, unsigned s, unsigned f)
{
	struct fs_attr root, attr;

	assert_int_equal(fs_snap_lookup(m->fx->fs, snap_names[s], &root), 0);
	assert_int_equal(fs_lookup(m->fx->fs, root.id, file_names[f], strlen(file_names[f]), &attr),
			 0);
	fs_forget(m->fx->fs, root.id, 1);
	return attr.id;
}

static void model_copy_old(struct model *m, unsigned f)
{
	const unsigned s = (unsigned)below(m, SNAPS), from = (unsigned)below(m, FILES);
	uint64_t id;

	if (!m->taken[s])
		return;
	id = snap_file(m, s, from);
	copy_from(m, id, &m->snap[s][from], f, false);
	fs_forget(m->fx->fs, id, 1);
}

static void copy_contents(struct contents *to, const struct contents *from)
{
	to->size = from->size;
	memcpy(to->bytes, from->bytes, MAX_BYTES);
}

static void verify(struct model *m, uint64_t id, const struct contents *want)
{
	uint64_t at = 0, end;

	assert_int_equal(fsfix_size(m->fx, id), want->size);
	assert_int_equal(fs_read(m->fx->fs, id, 0, m->got, MAX_BYTES), want->size);
	assert_memory_equal(m->got, want->bytes, want->size);
	/* Holes are zeros, and the two kinds take turns up to the end. */
	while (at < want->size) {
		int rc = fs_seek(m->fx->fs, id, at, true, &end);

		if (rc == -ENXIO)
			end = want->size;
		else
			assert_int_equal(rc, 0);
		assert_true(mem_is_zero(want->bytes + at, end - at));
		if (end == want->size)
			break;
		assert_int_equal(fs_seek(m->fx->fs, id, end, false, &at), 0);
		assert_true(at > end);
	}
	assert_true(at <= want->size);
}

static void model_snapshot(struct model *m, unsigned f)
{
	const unsigned s = (unsigned)below(m, SNAPS);
	struct fs_snapshot snap;

	(void)f;
	if (below(m, 8))
		return;
	if (m->taken[s]) {
		for (unsigned i = 0; i < FILES; i++) {
			const uint64_t id = snap_file(m, s, i);

			verify(m, id, &m->snap[s][i]);
			fs_forget(m->fx->fs, id, 1);
		}
		assert_int_equal(fs_snap_delete(m->fx->fs, snap_names[s]), 0);
	} else {
		assert_int_equal(fs_snap_create(m->fx->fs, snap_names[s], "", &snap), 0);
		for (unsigned i = 0; i < FILES; i++)
			copy_contents(&m->snap[s][i], &m->live[i]);
	}
	m->taken[s] = !m->taken[s];
}

static void model_read(struct model *m, unsigned f)
{
	const uint64_t off = some_offset(m), len = some_length(m);
	const struct contents *want = &m->live[f];
	struct iovec iov[301];
	struct fs_read rd = { .iov = iov, .max = ARRAY_SIZE(iov) };
	size_t at = off;
	ssize_t n;

	n = fs_read_begin(m->fx->fs, m->id[f], off, len, &rd);
	assert_int_equal(n, off < want->size ? MIN(len, want->size - off) : 0);
	for (int i = 0; i < rd.count; i++) {
		assert_memory_equal(iov[i].iov_base, want->bytes + at, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	assert_int_equal(at - off, n);
	fs_read_end(m->fx->fs, &rd);
}

static void model_reopen(struct model *m)
{
	for (unsigned i = 0; i < FILES; i++)
		fs_forget(m->fx->fs, m->id[i], 1);
	fsfix_reopen(m->fx);
	for (unsigned i = 0; i < FILES; i++)
		m->id[i] = fsfix_find(m->fx, m->fx->root, file_names[i]);
}

static void contents_new(struct contents *c)
{
	c->size = 0;
	c->bytes = calloc(1, MAX_BYTES);
	assert_non_null(c->bytes);
}

static void run_model(struct fsfix *fx, uint64_t ops, uint64_t seed)
{
	static void (*const what[])(struct model *, unsigned) = {
		model_write, model_write, model_write, model_truncate, model_fallocate,
		model_fallocate, model_copy, model_copy_old, model_snapshot, model_read,
	};
	struct model *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	m->fx = fx;
	m->buf = malloc(MAX_BYTES);
	m->got = malloc(MAX_BYTES);
	assert_true(m->buf && m->got);
	fsfix_seed(&m->rnd, seed);
	for (unsigned f = 0; f < FILES; f++) {
		m->id[f] = fsfix_file(fx, fx->root, file_names[f]);
		contents_new(&m->live[f]);
		for (unsigned s = 0; s < SNAPS; s++)
			contents_new(&m->snap[s][f]);
	}
	for (uint64_t i = 1; i <= ops; i++) {
		const unsigned f = (unsigned)below(m, FILES);

		what[below(m, ARRAY_SIZE(what))](m, f);
		if (i % 16 == 0)
			verify(m, m->id[f], &m->live[f]);
		if (i % 256 == 0) {
			if (!fx->ram)
				model_reopen(m);
			fsfix_check(fx);
		}
	}
	for (unsigned f = 0; f < FILES; f++) {
		verify(m, m->id[f], &m->live[f]);
		free(m->live[f].bytes);
		for (unsigned s = 0; s < SNAPS; s++) {
			if (m->taken[s]) {
				const uint64_t id = snap_file(m, s, f);

				verify(m, id, &m->snap[s][f]);
				fs_forget(fx->fs, id, 1);
			}
			free(m->snap[s][f].bytes);
		}
	}
	free(m->buf);
	free(m->got);
	free(m);
}

static void test_file_model(void **state)
{
	run_model(*state, fsfix_env("PMFS_OPS", 3000), 1);
}

static void test_file_model_image(void **state)
{
	run_model(*state, fsfix_env("PMFS_OPS", 3000) / 3, 2);
}

/* ------------------------------------------------------------------ threads */

#define WORKERS 3u
#define ROUNDS 150u

struct worker {
	struct fsfix *fx;
	uint64_t own, common;
	uint8_t seed;
	bool failed;
};

/* Each page of the common file is of one writer, whole. */
static bool page_is_one(const uint8_t *page)
{
	for (size_t i = 1; i < PAGE; i++)
		if (page[i] != page[0])
			return false;
	return true;
}

static void work_once(struct worker *w, struct fsfix_random *rnd)
{
	uint8_t page[PAGE];
	struct iovec iov[64];
	struct fs_read rd = { .iov = iov, .max = ARRAY_SIZE(iov) };
	const uint64_t off = fsfix_below(rnd, 30) * PAGE;
	size_t at = 0;
	ssize_t n;

	memset(page, w->seed + (int)fsfix_below(rnd, 60), sizeof(page));
	if (fs_write(w->fx->fs, w->own, off, page, PAGE, 0) != (ssize_t)PAGE ||
	    fs_write(w->fx->fs, w->common, off, page, PAGE, 0) != (ssize_t)PAGE ||
	    fs_copy_range(w->fx->fs, w->own, off, w->common, 30 * PAGE + off, PAGE) < 0)
		w->failed = true;
	if (fsfix_below(rnd, 4) == 0 && fs_fallocate(w->fx->fs, w->common, PUNCH, off, 2 * PAGE))
		w->failed = true;
	if (fsfix_below(rnd, 8) == 0 && truncate_to(w->fx, w->own, off))
		w->failed = true;
	n = fs_read_begin(w->fx->fs, w->common, 0, 60 * PAGE, &rd);
	if (n < 0) {
		w->failed = true;
		return;
	}
	for (int i = 0; i < rd.count; i++) {
		for (size_t k = 0; k < iov[i].iov_len; k += PAGE)
			if (!page_is_one((const uint8_t *)iov[i].iov_base + k))
				w->failed = true;
		at += iov[i].iov_len;
	}
	fs_read_end(w->fx->fs, &rd);
	if (at != (size_t)n)
		w->failed = true;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct fsfix_random rnd = { w->seed };

	for (unsigned i = 0; i < ROUNDS && !w->failed; i++)
		work_once(w, &rnd);
	return NULL;
}

/* Writers, readers without copying, commits and snapshots at the same time. */
static void test_file_threads(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t common = fsfix_file(fx, fx->root, "common");
	struct worker w[WORKERS];
	pthread_t thread[WORKERS];
	struct fs_snapshot snap;

	for (unsigned i = 0; i < WORKERS; i++) {
		const char name[2] = { (char)('a' + i), 0 };

		w[i] = (struct worker){ .fx = fx, .common = common, .seed = (uint8_t)(1 + 60 * i) };
		w[i].own = fsfix_file(fx, fx->root, name);
		assert_int_equal(thread_start(&thread[i], "work", work, &w[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
		assert_int_equal(fs_sync(fx->fs), 0);
		assert_int_equal(fs_snap_delete(fx->fs, "s"), 0);
		assert_true(reclaim_run(fx->fs) >= 0);
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		thread_join(thread[i]);
		assert_false(w[i].failed);
	}
}

int main(void)
{
#define IN(where, fn) cmocka_unit_test_setup_teardown(fn, where, teardown)
	const struct CMUnitTest tests[] = {
		IN(setup, test_file_small_contents_take_no_page),
		IN(setup, test_file_write_beyond_the_end_leaves_a_hole),
		IN(setup, test_file_growing_shows_no_old_bytes),
		IN(setup, test_file_limits),
		IN(setup, test_file_times_move),
		IN(setup, test_file_read_pieces),
		IN(setup, test_file_read_of_merged_zeros),
		IN(setup, test_file_reserve),
		IN(setup, test_file_fallocate_stamps),
		IN(setup, test_file_punch),
		IN(setup, test_file_zero_range),
		IN(setup_small, test_file_full),
		IN(setup_small, test_file_full_with_snapshot_can_shrink),
		IN(setup, test_file_big_truncation),
		IN(setup_image, test_file_truncation_cut_short),
		IN(setup, test_file_copy_shares_pages),
		IN(setup, test_file_copy_shares_nodes),
		IN(setup, test_file_clones_against_a_model),
		IN(setup, test_file_copy_refuses_and_ends),
		IN(setup, test_file_write_kills_privileges),
		IN(setup_image, test_file_fsync_survives_a_crash),
		cmocka_unit_test(test_file_writes_to_the_host_fail),
		IN(setup, test_file_threads),
		IN(setup, test_file_model),
		IN(setup_image, test_file_model_image),
	};
#undef IN

	return cmocka_run_group_tests(tests, NULL, NULL);
}
