/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many threads in one filesystem, with its own threads running: workers that know what their files
 * hold, one that makes, looks at and deletes snapshots, one that asks for commits, dedup now and
 * then.  What counts is that nothing is lost and that all counts are right at the end; under TSan,
 * that there is no race.  PMFS_OPS.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/thread.h"
#include "lib/fsfix.h"
#include "share/dedup.h"
#include "tree/icache.h"
#include "tree/reclaim.h"

#define MIB	  (UINT64_C(1) << 20)
#define WORKERS	  3u
#define FILES	  24u
#define PAGES_MAX 48u

struct worker {
	pthread_t thread;
	struct fs *fs;
	struct fsfix_random rnd;
	uint64_t dir, root, ops;
	uint64_t id[FILES];		/* 0: there is none */
	uint8_t page[FILES][PAGES_MAX]; /* what each page is full of; 0: a hole */
	const char *error;
	int rc;
	bool may_be_full;
	unsigned pages; /* of a file, at most */
};

static _Atomic unsigned working;

static const struct fs_cred cred = {0, 0};

/* In a small image -ENOSPC is an answer, and then nothing has happened. */
static bool bad(struct worker *w, const char *what, int64_t rc)
{
	if (rc == -ENOSPC && w->may_be_full)
		return true;
	w->error = what;
	w->rc = (int)rc;
	return false;
}

static const char *file_name(char buf[16], unsigned i)
{
	snprintf(buf, 16, "f%u", i);
	return buf;
}

static bool file_make(struct worker *w, unsigned i)
{
	struct fs_attr attr;
	char buf[16];
	int rc;

	file_name(buf, i);
	rc = fs_mknod(w->fs, w->dir, buf, strlen(buf), S_IFREG | 0644, 0, &cred, &attr);
	if (rc)
		return bad(w, "mknod", rc);
	w->id[i] = attr.id;
	memset(w->page[i], 0, PAGES_MAX);
	return true;
}

static bool file_write(struct worker *w, unsigned i)
{
	const unsigned at = (unsigned)fsfix_below(&w->rnd, w->pages);
	const uint8_t what = (uint8_t)(1 + fsfix_below(&w->rnd, 20));
	uint8_t buf[PMFS_PAGE_SIZE];
	ssize_t rc;

	memset(buf, what, sizeof(buf));
	rc = fs_write(w->fs, w->id[i], (uint64_t)at * sizeof(buf), buf, sizeof(buf), 0);
	if (rc != (ssize_t)sizeof(buf))
		return bad(w, "write", rc);
	w->page[i][at] = what;
	return true;
}

static bool file_read(struct worker *w, unsigned i)
{
	uint8_t buf[PMFS_PAGE_SIZE];

	for (unsigned at = 0; at < PAGES_MAX; at++) {
		const ssize_t rc =
			fs_read(w->fs, w->id[i], (uint64_t)at * sizeof(buf), buf, sizeof(buf));

		if (rc < 0)
			return bad(w, "read", rc);
		for (ssize_t k = 0; k < rc; k++)
			if (buf[k] != w->page[i][at])
				return bad(w, "contents", at);
		if (!rc && w->page[i][at])
			return bad(w, "size", at);
	}
	return true;
}

static bool file_remove(struct worker *w, unsigned i)
{
	char buf[16];
	int rc;

	file_name(buf, i);
	rc = fs_unlink(w->fs, w->dir, buf, strlen(buf));
	if (rc)
		return bad(w, "unlink", rc);
	fs_forget(w->fs, w->id[i], 1);
	w->id[i] = 0;
	return true;
}

/* Through a directory that all of them use, and back over another file. */
static bool file_move(struct worker *w, unsigned i, unsigned to)
{
	char name[16], new_name[16], away[32];
	int rc;

	file_name(name, i);
	file_name(new_name, to);
	snprintf(away, sizeof(away), "%" PRIx64 "-%u", w->dir, i);
	rc = fs_rename(w->fs, w->dir, name, strlen(name), w->root, away, strlen(away), 0);
	if (rc)
		return bad(w, "rename", rc);
	rc = fs_rename(w->fs, w->root, away, strlen(away), w->dir, new_name, strlen(new_name), 0);
	if (rc) {
		fs_forget(w->fs, w->id[i], 1);
		w->id[i] = 0;
		return bad(w, "rename", rc);
	}
	if (i == to)
		return true;
	if (w->id[to])
		fs_forget(w->fs, w->id[to], 1);
	w->id[to] = w->id[i];
	memcpy(w->page[to], w->page[i], PAGES_MAX);
	w->id[i] = 0;
	return true;
}

static bool file_clone(struct worker *w, unsigned i, unsigned to)
{
	struct fs_setattr empty = {0};
	struct fs_attr attr;
	ssize_t rc;

	if (i == to)
		return true;
	rc = fs_setattr(w->fs, w->id[to], FS_SET_SIZE, &empty, &attr);
	if (rc)
		return bad(w, "truncate", rc);
	memset(w->page[to], 0, PAGES_MAX);
	rc = fs_copy_range(w->fs, w->id[i], 0, w->id[to], 0, (uint64_t)PAGES_MAX * PMFS_PAGE_SIZE);
	if (rc < 0)
		return bad(w, "copy", rc);
	if (rc % PMFS_PAGE_SIZE)
		return bad(w, "copy of a part of a page", rc);
	memcpy(w->page[to], w->page[i], (size_t)rc / PMFS_PAGE_SIZE);
	return true;
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	bool good = true;

	for (uint64_t op = 0; op < w->ops && good; op++) {
		const unsigned i = (unsigned)fsfix_below(&w->rnd, FILES),
			       to = (unsigned)fsfix_below(&w->rnd, FILES);

		if (!w->id[i]) {
			good = file_make(w, i);
			continue;
		}
		switch (fsfix_below(&w->rnd, 10)) {
		case 0:
			good = file_remove(w, i);
			break;
		case 1:
			good = file_move(w, i, to);
			break;
		case 2:
			good = !w->id[to] || file_clone(w, i, to);
			break;
		case 3:
		case 4:
			good = file_read(w, i);
			break;
		default:
			good = file_write(w, i);
		}
	}
	for (unsigned i = 0; i < FILES && good; i++)
		good = !w->id[i] || file_read(w, i);
	atomic_fetch_sub(&working, 1);
	return NULL;
}

/* Two looks at a snapshot see the same. */
static uint64_t sum_file(struct fs *fs, uint64_t id)
{
	uint64_t sum = 0, buf[PMFS_PAGE_SIZE / 8];
	ssize_t rc;

	for (unsigned at = 0; at < PAGES_MAX; at++) {
		memset(buf, 0, sizeof(buf));
		rc = fs_read(fs, id, (uint64_t)at * sizeof(buf), buf, sizeof(buf));
		if (rc < 0)
			return UINT64_MAX;
		for (size_t i = 0; i < sizeof(buf) / 8; i++)
			sum = sum * 31 + buf[i];
	}
	return sum;
}

struct look {
	struct fs *fs;
	uint64_t sum;
	unsigned depth;
};

static int look_at(void *arg, const struct fs_dirent *de)
{
	struct look *lk = arg;
	struct look sub = {.fs = lk->fs, .depth = lk->depth + 1};

	if (de->name[0] == '.')
		return 0;
	if (de->type == DT_DIR && !lk->depth)
		fs_readdir(lk->fs, de->id, 0, look_at, &sub);
	lk->sum += (de->type == DT_DIR ? sub.sum : sum_file(lk->fs, de->id)) ^ de->ino;
	return 0;
}

static uint64_t look(struct fs *fs, uint64_t root)
{
	struct look lk = {.fs = fs};

	return fs_readdir(fs, root, 0, look_at, &lk) ? UINT64_MAX : lk.sum;
}

static void *snapshots_run(void *arg)
{
	struct worker *w = arg;
	bool good = true;

	for (unsigned n = 0; atomic_load(&working) && good; n++) {
		struct fs_snapshot snap;
		uint64_t first;
		char name[32];
		int rc;

		snprintf(name, sizeof(name), "snap %u", n);
		rc = fs_snap_create(w->fs, name, NULL, &snap);
		if (rc)
			good = bad(w, "snapshot", rc);
		first = rc ? 0 : look(w->fs, snap.root);
		if (n >= 2) {
			snprintf(name, sizeof(name), "snap %u", n - 2);
			/* It can be one that there was no room for; otherwise this works without
			 * room. */
			rc = fs_snap_delete(w->fs, name);
			if (rc && !(rc == -ENOENT && w->may_be_full)) {
				w->may_be_full = false;
				good = bad(w, "delete", rc);
			}
		}
		if (first && (look(w->fs, snap.root) != first || first == UINT64_MAX))
			good = bad(w, "a snapshot has changed", 0);
		w->ops++;
	}
	return NULL;
}

static void *commits_run(void *arg)
{
	struct worker *w = arg;
	struct dedup *dd;
	bool good = true;

	if (dedup_new(&dd, fs_store(w->fs), MIB)) {
		bad(w, "dedup", 0);
		return NULL;
	}
	while (atomic_load(&working) && good) {
		int rc = fs_sync(w->fs);

		if (!rc && w->ops % 8 == 0 && !w->may_be_full)
			rc = dedup_run(dd);
		if (rc)
			good = bad(w, "sync", rc);
		w->ops++;
	}
	dedup_free(dd);
	return NULL;
}

static void run_all(const char *path, uint64_t limit, bool may_be_full)
{
	const struct fs_config cfg = {
		.store = {.path = path,
			  .limit_bytes = path ? 0 : limit,
			  .commit_ms = 3,
			  .background = true},
		.background = true,
	};
	static struct worker w[WORKERS + 2];
	struct fsfix fx = {.ram = !path};
	struct store_error err;
	char name[16];

	memset(w, 0, sizeof(w));
	assert_int_equal(fs_open(&fx.fs, &cfg, &err), 0);
	fx.root = fs_root(fx.fs);
	atomic_store(&working, WORKERS);
	for (unsigned i = 0; i < WORKERS + 2; i++) {
		w[i].fs = fx.fs;
		w[i].rnd.state = fsfix_env("PMFS_SEED", 1) * 100 + i;
		w[i].root = fx.root;
		w[i].may_be_full = may_be_full;
		w[i].pages = may_be_full ? PAGES_MAX : PAGES_MAX / 4;
		if (i < WORKERS) {
			snprintf(name, sizeof(name), "dir%u", i);
			w[i].dir = fsfix_mkdir(&fx, fx.root, name);
			w[i].ops = fsfix_env("PMFS_OPS", 30000) / WORKERS / 2;
		}
	}
	for (unsigned i = 0; i < WORKERS + 2; i++)
		assert_int_equal(thread_start(&w[i].thread, "test",
					      i < WORKERS    ? worker_run
					      : i == WORKERS ? snapshots_run
							     : commits_run,
					      &w[i]),
				 0);
	for (unsigned i = 0; i < WORKERS + 2; i++)
		thread_join(w[i].thread);
	for (unsigned i = 0; i < WORKERS + 2; i++)
		if (w[i].error)
			fail_msg("thread %u: %s: %d", i, w[i].error, w[i].rc);
	assert_true(w[WORKERS].ops > 0 && w[WORKERS + 1].ops > 0);
	assert_int_equal(fs_close(fx.fs), 0);
}

static void test_fs_threads_ram(void **state)
{
	(void)state;
	run_all(NULL, 64 * MIB, false);
}

static void test_fs_threads_image(void **state)
{
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 64 * MIB);
	fsfix_stop(&fx);
	run_all(fx.image, 0, false);
	fsfix_start(&fx);
	fsfix_check(&fx);
	assert_true(reclaim_run(fx.fs) >= 0);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* There is not room for all: the reclaimer, the relief and the commits have to get out of each
 * other's way. */
static void test_fs_threads_small_image(void **state)
{
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 4 * MIB);
	fsfix_stop(&fx);
	run_all(fx.image, 0, true);
	fsfix_start(&fx);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fs_threads_ram),
		cmocka_unit_test(test_fs_threads_image),
		cmocka_unit_test(test_fs_threads_small_image),
	};

	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
