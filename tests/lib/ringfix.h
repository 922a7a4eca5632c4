/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ringfix.h - what the tests of rings share: files, and messages that know what they are.
 */
#ifndef PMFS_TESTS_RINGFIX_H
#define PMFS_TESTS_RINGFIX_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "pmfs.h"
#include "pmfs/ring.h"

#define RINGFIX_SEED 20240711u

struct ringfix {
	char dir[256];
	char path[300];
};

static inline int ringfix_setup(void **state)
{
	struct ringfix *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "%s/pmfs-ring-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/ring", f->dir);
	*state = f;
	return 0;
}

static inline int ringfix_teardown(void **state)
{
	struct ringfix *f = *state;

	unlink(f->path);
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static inline uint64_t ringfix_seed(void)
{
	const char *text = getenv("PMFS_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : RINGFIX_SEED;

	print_message("PMFS_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

/* How many processes of a kind a test shall kill. */
static inline unsigned int ringfix_kills(unsigned int by_default)
{
	const char *text = getenv("PMFS_RING_KILLS");
	unsigned long n = text ? strtoul(text, NULL, 10) : 0;

	n = n && n <= 1000000 ? n : by_default;
	print_message("PMFS_RING_KILLS=%lu\n", n);
	return (unsigned int)n;
}

static inline uint64_t ringfix_random(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* The bytes of message number n of a writer; each differs from its neighbours and from those of n
 * + 1. */
static inline void ringfix_fill(void *message, size_t length, uint64_t writer, uint64_t n)
{
	uint8_t *at = message;

	for (size_t i = 0; i < length; i++)
		at[i] = (uint8_t)((n + i * 7 + writer * 31) ^ (n >> 8) ^ i >> 8);
}

static inline bool ringfix_holds(const void *message, size_t length, uint64_t writer, uint64_t n)
{
	const uint8_t *at = message;

	for (size_t i = 0; i < length; i++) {
		if (at[i] != (uint8_t)((n + i * 7 + writer * 31) ^ (n >> 8) ^ i >> 8))
			return false;
	}
	return true;
}

/* All of the file, mapped so that a test can do to it what any program may. */
static inline struct pmfs_ring_header *ringfix_raw(const char *path, size_t *length)
{
	int fd = open(path, O_RDWR);
	struct stat st;
	void *at;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*length = (size_t)st.st_size;
	at = mmap(NULL, *length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(at != MAP_FAILED);
	close(fd);
	return at;
}

static inline struct pmfs_ring *ringfix_open(const char *path, unsigned int flags)
{
	struct pmfs_ring *r;

	assert_int_equal(pmfs_ring_open(path, flags, &r), 0);
	return r;
}

#endif
