/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fsfix.h - a filesystem for a test: in RAM, or in an image that can be reopened.
 *
 * Everything here ends the test (cmocka's fail()) when it does not work, unless it says
 * otherwise.  There is no background thread and no commit timer: what happens is what the test
 * does, always in the same order.
 */
#ifndef PMFS_TESTS_FSFIX_H
#define PMFS_TESTS_FSFIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tree/fs.h"

struct fsfix {
	struct fs *fs;    /* NULL between fsfix_stop() or fsfix_crash() and fsfix_start() */
	uint64_t root;    /* fs_root() */
	bool ram;
	bool read_only;   /* for the next fsfix_start() */
	bool unscanned;   /* the same: leave the scan for free frames to the test */
	uint64_t limit;   /* bytes */
	char dir[64];     /* a fresh directory of this fixture; "" for RAM */
	char image[96];
};

/* A new filesystem, open.  limit_bytes 0: 64 MiB. */
void fsfix_ram(struct fsfix *fx, uint64_t limit_bytes);
void fsfix_image(struct fsfix *fx, uint64_t limit_bytes);
/* Close and remove everything. */
void fsfix_free(struct fsfix *fx);

void fsfix_stop(struct fsfix *fx);  /* as an unmount does */
void fsfix_crash(struct fsfix *fx); /* as kill -9 does */
void fsfix_start(struct fsfix *fx);
/* Open; the error is the caller's to look at. */
int fsfix_try_start(struct fsfix *fx, struct store_error *err);
void fsfix_reopen(struct fsfix *fx); /* stop and start */

/*
 * fs_check() with data; findings are printed and fail the test.  A RAM fs and an image alike;
 * what only waits to be reclaimed is no finding.
 */
void fsfix_check(struct fsfix *fx);

/* New things in a directory; returns the node id, with one lookup. */
uint64_t fsfix_file(struct fsfix *fx, uint64_t dir, const char *name);
uint64_t fsfix_mkdir(struct fsfix *fx, uint64_t dir, const char *name);
/* The id of a name, one lookup more; 0: there is none. */
uint64_t fsfix_find(struct fsfix *fx, uint64_t dir, const char *name);

/* All of it must be written, or read as expected. */
void fsfix_write(struct fsfix *fx, uint64_t id, uint64_t off, const void *buf, size_t len);
void fsfix_expect(struct fsfix *fx, uint64_t id, uint64_t off, const void *buf, size_t len);
uint64_t fsfix_size(struct fsfix *fx, uint64_t id);

/*
 * Pseudo random numbers that are the same everywhere.  The seed is PMFS_SEED of the environment or
 * the default, and is printed.
 */
struct fsfix_random {
	uint64_t state;
};
void fsfix_seed(struct fsfix_random *rnd, uint64_t by_default);
uint64_t fsfix_random(struct fsfix_random *rnd);
/* 0 .. n - 1, n > 0 */
uint64_t fsfix_below(struct fsfix_random *rnd, uint64_t n);
void fsfix_fill(struct fsfix_random *rnd, void *buf, size_t len);
/*
 * A positive number of the environment, such as PMFS_OPS; otherwise by_default, of which PMFS_TEST_SHARE
 * in the environment is the share to do, in percent.
 */
uint64_t fsfix_env(const char *name, uint64_t by_default);

#endif
