/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * store_util.h - what the tests of the store share: a folder of their own, images in it, random
 * numbers that PMFS_SEED decides, and checks that a failed assertion explains.
 */
#ifndef PMFS_TESTS_STORE_UTIL_H
#define PMFS_TESTS_STORE_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fault.h"
#include "base/log.h"
#include "store/store.h"

#define MIB (UINT64_C(1) << 20)

#define UTIL_UNUSED __attribute__((unused))

static char util_dir[128];
static char util_image[160];

/* Thousands of commits wait for a disk when they have one: memory will do, if there is enough of
 * it. */
static UTIL_UNUSED const char *util_tmp(void)
{
	const char *tmp = getenv("TMPDIR");
	struct statvfs fs;

	if (tmp)
		return tmp;
	if (statvfs("/dev/shm", &fs) || access("/dev/shm", W_OK) ||
	    fs.f_bavail * fs.f_frsize < 512 * MIB)
		return "/tmp";
	return "/dev/shm";
}

/* Group setup and teardown: the folder.  What a test leaves in it is removed by image_new() or at
 * the end. */
static UTIL_UNUSED int util_setup(void **state)
{
	(void)state;
	snprintf(util_dir, sizeof(util_dir), "%.80s/pmfs-store-XXXXXX", util_tmp());
	if (!mkdtemp(util_dir))
		return -1;
	snprintf(util_image, sizeof(util_image), "%s/image", util_dir);
	log_set_level(LOG_LEVEL_ERR);
	return 0;
}

static UTIL_UNUSED int util_teardown(void **state)
{
	(void)state;
	unlink(util_image);
	return rmdir(util_dir);
}

static UTIL_UNUSED void util_swallow(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

/* For the rest of the test program: what it does on purpose needs no message. */
static UTIL_UNUSED void util_quiet(void)
{
	log_to_function(util_swallow, NULL);
}

/* An empty image of that size at util_image. */
static UTIL_UNUSED void image_new(uint64_t bytes)
{
	const struct store_format how = {.limit_bytes = bytes, .force = true};
	struct store_error err;

	unlink(util_image);
	if (store_format(util_image, &how, &err))
		fail_msg("store_format: %s", err.text);
}

static UTIL_UNUSED struct store *store_at(const char *path, uint64_t bytes)
{
	const struct store_config cfg = {.path = path, .limit_bytes = bytes};
	struct store_error err;
	struct store *st = NULL;

	if (store_open(&st, &cfg, &err))
		fail_msg("store_open: %s", err.text);
	return st;
}

static UTIL_UNUSED struct store *image_open(void)
{
	return store_at(util_image, 0);
}

static UTIL_UNUSED struct store *ram_open(uint64_t bytes)
{
	return store_at(NULL, bytes);
}

static UTIL_UNUSED void scan_all(struct store *st)
{
	int rc;

	do {
		rc = store_scan(st, 3);
	} while (rc == 0);
	assert_int_equal(rc, 1);
}

static UTIL_UNUSED void util_print(void *arg, const char *what)
{
	(void)arg;
	print_error("check: %s\n", what);
}

static UTIL_UNUSED void check_clean(struct store *st)
{
	assert_int_equal(store_check(st, true, util_print, NULL), 0);
}

/* A page full of one number. */
static UTIL_UNUSED const void *page_of(uint64_t tag)
{
	static _Thread_local uint64_t page[PMFS_PAGE_SIZE / 8];

	for (size_t i = 0; i < PMFS_PAGE_SIZE / 8; i++)
		page[i] = tag;
	return page;
}

/* One transaction: a page full of tag. */
static UTIL_UNUSED vpn_t add_page(struct store *st, uint64_t tag)
{
	struct txn tx;
	vpn_t vpn;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 1), 0);
	assert_int_equal(page_new(&tx, page_of(tag), &vpn), 0);
	txn_end(&tx);
	return vpn;
}

static UTIL_UNUSED void put_page(struct store *st, vpn_t vpn, uint64_t tag)
{
	struct txn tx;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 1), 0);
	assert_int_equal(page_write(&tx, vpn, 0, page_of(tag), PMFS_PAGE_SIZE), 0);
	txn_end(&tx);
}

static UTIL_UNUSED void drop_page(struct store *st, vpn_t vpn)
{
	struct txn tx;

	assert_int_equal(txn_begin(st, &tx, FRAME_FREEING, 0), 0);
	assert_int_equal(page_unref(&tx, vpn, NULL), 0);
	txn_end(&tx);
}

static UTIL_UNUSED void assert_page(struct store *st, vpn_t vpn, uint64_t tag)
{
	uint8_t buf[PMFS_PAGE_SIZE];

	assert_int_equal(page_read(st, vpn, 0, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, page_of(tag), sizeof(buf));
}

static UTIL_UNUSED uint64_t util_env(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	const char *share = getenv("PMFS_TEST_SHARE");

	if (text && *text)
		return strtoull(text, NULL, 0);
	/* The sanitizers make everything several times as slow; a seed is no amount of work. */
	if (share && *share && strcmp(name, "PMFS_SEED"))
		return MAX(otherwise * strtoull(share, NULL, 0) / 100, 1);
	return otherwise;
}

/* splitmix64: every seed is a good one. */
static UTIL_UNUSED uint64_t rnd(uint64_t *seed)
{
	uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

#endif
