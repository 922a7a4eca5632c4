/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Power cuts while a filesystem is at work.  Whatever was in flight, the image opens, all its
 * counts are right, it shows the state before the commit or the one after it and nothing between,
 * and after the commit has returned it shows the one after it. PMFS_CUTS: commits for each test.
 * PMFS_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "lib/fsmodel.h"
#include "lib/powercut.h"
#include "share/dedup.h"
#include "tree/reclaim.h"

#define MIB (UINT64_C(1) << 20)

/* ------------------------------------------------------------------ random work */

struct random_work {
	struct model m;
	struct powercut pc;
	uint64_t commits;
};

static bool state_ok(void *arg, struct fs *fs, bool acknowledged, char *why, size_t size)
{
	const struct random_work *w = arg;

	if (!model_differs(fs, &w->m.now, why, size))
		return true;
	return !acknowledged && !model_differs(fs, &w->m.durable, why, size);
}

static void on_commit(void *arg)
{
	struct random_work *w = arg;

	w->commits++;
	powercut_verify(&w->pc, state_ok, w);
}

/* every: operations between two commits at most. */
static void random_work(uint64_t seed, bool dedup, unsigned before, unsigned every)
{
	static struct random_work work;
	const uint64_t commits = fsfix_env("PMFS_CUTS", 40);
	struct fsfix fx;

	work = (struct random_work){0};
	fsfix_image(&fx, 64 * MIB);
	fsfix_seed(&work.m.rnd, seed);
	model_start(&work.m, &fx, dedup);
	for (unsigned i = 0; i < before; i++)
		model_step(&work.m);
	model_sync(&work.m);
	powercut_start(&work.pc, &fx);
	work.m.committed = on_commit;
	work.m.arg = &work;
	for (unsigned i = 1; work.commits < commits; i++) {
		model_step(&work.m);
		if (i % every == 0)
			model_sync(&work.m);
	}
	powercut_stop(&work.pc);
	model_compare(&work.m);
	fsfix_check(&fx);
	model_end(&work.m);
	fsfix_free(&fx);
}

/* A few changes to a commit, which then fit into the superblock slot. */
static void test_crash_fs_small_commits(void **state)
{
	(void)state;
	random_work(1, false, 0, 5);
}

static void test_crash_fs_with_dedup(void **state)
{
	(void)state;
	random_work(2, true, 1500, 40);
}

/* ------------------------------------------------------------------ commits that write the page
 * map */

/* So many pages change that the slot can't hold them. */
#define BIG_PAGES 6000u

struct big_work {
	struct powercut pc;
	uint64_t id;
	unsigned version; /* of what the file holds now; durable is this one or the one before */
};

static uint64_t big_word(unsigned version, unsigned page)
{
	return ((uint64_t)version << 32 | page) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool big_is(struct fs *fs, uint64_t id, unsigned version)
{
	uint64_t word;

	for (unsigned i = 0; i < BIG_PAGES; i++)
		if (fs_read(fs, id, (uint64_t)i * PMFS_PAGE_SIZE, &word, sizeof(word)) !=
			    sizeof(word) ||
		    word != big_word(version, i))
			return false;
	return true;
}

static bool big_ok(void *arg, struct fs *fs, bool acknowledged, char *why, size_t size)
{
	const struct big_work *w = arg;

	if (big_is(fs, w->id, w->version) || (!acknowledged && big_is(fs, w->id, w->version - 1)))
		return true;
	snprintf(why, size, "the file is in no state that it was in");
	return false;
}

static void big_write(struct fs *fs, uint64_t id, unsigned version)
{
	uint64_t page[PMFS_PAGE_SIZE / sizeof(uint64_t)];

	for (unsigned i = 0; i < BIG_PAGES; i++) {
		for (size_t j = 0; j < PMFS_PAGE_SIZE / sizeof(uint64_t); j++)
			page[j] = big_word(version, i);
		assert_int_equal(
			fs_write(fs, id, (uint64_t)i * PMFS_PAGE_SIZE, page, sizeof(page), 0),
			sizeof(page));
	}
}

static void test_crash_fs_big_commits(void **state)
{
	struct big_work w = {0};
	struct fs_stats before, after;
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 256 * MIB);
	w.id = fsfix_file(&fx, fx.root, "big");
	big_write(fx.fs, w.id, 0);
	assert_int_equal(fs_sync(fx.fs), 0);
	fs_stat(fx.fs, &before);
	powercut_start(&w.pc, &fx);
	w.pc.one_in = 64;
	for (w.version = 1; w.version < 3; w.version++) {
		big_write(fx.fs, w.id, w.version);
		assert_int_equal(fs_sync(fx.fs), 0);
		powercut_verify(&w.pc, big_ok, &w);
	}
	fs_stat(fx.fs, &after);
	assert_true(after.store.commits - before.store.commits >
		    after.store.commits_small - before.store.commits_small);
	powercut_stop(&w.pc);
	fsfix_free(&fx);
}

/* ------------------------------------------------------------------ how programs save a file */

struct save_work {
	struct powercut pc;
	unsigned saved; /* what "config" holds in the running filesystem */
};

#define SAVE_BYTES 9000u

static void save_bytes(unsigned version, uint8_t buf[SAVE_BYTES])
{
	memset(buf, 'A' + (int)version % 26, SAVE_BYTES);
	buf[0] = (uint8_t)version;
}

static bool config_is(struct fs *fs, unsigned version)
{
	uint8_t want[SAVE_BYTES], got[SAVE_BYTES + 1];
	struct fs_attr attr;
	ssize_t n;

	if (fs_lookup(fs, fs_root(fs), "config", 6, &attr))
		return false;
	n = fs_read(fs, attr.id, 0, got, sizeof(got));
	fs_forget(fs, attr.id, 1);
	save_bytes(version, want);
	return n == SAVE_BYTES && !memcmp(want, got, SAVE_BYTES);
}

static bool save_ok(void *arg, struct fs *fs, bool acknowledged, char *why, size_t size)
{
	const struct save_work *w = arg;

	if (config_is(fs, w->saved) || (!acknowledged && config_is(fs, w->saved - 1)))
		return true;
	snprintf(why, size, "\"config\" is neither the old file nor the new one");
	return false;
}

static uint64_t save_new(struct fsfix *fx, unsigned version, const char *name)
{
	const uint64_t id = fsfix_file(fx, fx->root, name);
	uint8_t buf[SAVE_BYTES];

	save_bytes(version, buf);
	fsfix_write(fx, id, 0, buf, sizeof(buf));
	assert_int_equal(fs_fsync(fx->fs, id, false), 0);
	return id;
}

/* Write a new file, fsync, rename it over the old one: there is always one of them, and whole. */
static void test_crash_fs_rename_replaces_at_once(void **state)
{
	struct save_work w = {0};
	struct fsfix fx;
	uint64_t id, old;

	(void)state;
	fsfix_image(&fx, 16 * MIB);
	old = save_new(&fx, 0, "config");
	powercut_start(&w.pc, &fx);
	for (unsigned i = 1; i <= 12; i++) {
		id = save_new(&fx, i, "config.new");
		powercut_verify(&w.pc, save_ok, &w);
		assert_int_equal(
			fs_rename(fx.fs, fx.root, "config.new", 10, fx.root, "config", 6, 0), 0);
		fs_forget(fx.fs, old, 1);
		old = id;
		w.saved = i;
		assert_int_equal(fs_fsync(fx.fs, id, false), 0);
		powercut_verify(&w.pc, save_ok, &w);
	}
	powercut_stop(&w.pc);
	fsfix_free(&fx);
}

/* ------------------------------------------------------------------ giving back */

struct reclaim_work {
	struct powercut pc;
	uint64_t kept; /* a file that shares pages with what goes */
	uint8_t bytes[16 * PMFS_PAGE_SIZE];
};

static bool kept_ok(void *arg, struct fs *fs, bool acknowledged, char *why, size_t size)
{
	const struct reclaim_work *w = arg;
	static uint8_t got[sizeof(w->bytes)];

	(void)acknowledged;
	if (fs_read(fs, w->kept, 0, got, sizeof(got)) == (ssize_t)sizeof(got) &&
	    !memcmp(got, w->bytes, sizeof(got)))
		return true;
	snprintf(why, size, "a file has lost its contents with the snapshot");
	return false;
}

/* A snapshot and a deleted file are given back, and the power goes at every step. */
static void test_crash_fs_reclaim(void **state)
{
	static struct reclaim_work w;
	static uint8_t buf[256 * PMFS_PAGE_SIZE];
	struct fsfix_random rnd = {3};
	struct fs_stats before, after;
	struct fsfix fx;
	char name[32];
	uint64_t id;
	int steps = 0, rc;

	(void)state;
	w = (struct reclaim_work){0};
	fsfix_image(&fx, 128 * MIB);
	w.kept = fsfix_file(&fx, fx.root, "kept");
	fsfix_fill(&rnd, w.bytes, sizeof(w.bytes));
	fsfix_write(&fx, w.kept, 0, w.bytes, sizeof(w.bytes));
	fs_stat(fx.fs, &before);
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		id = fsfix_file(&fx, fx.root, name);
		fsfix_fill(&rnd, buf, sizeof(buf));
		fsfix_write(&fx, id, 0, buf, i == 20 ? sizeof(buf) : (i + 1) * 2000);
		assert_int_equal(fs_setxattr(fx.fs, id, "user.x", buf, 1000, 0), 0);
	}
	assert_int_equal(fs_snap_create(fx.fs, "all of it", NULL, NULL), 0);
	/* Every inode page becomes the live volume's own, and some files part from the snapshot. */
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		id = fsfix_find(&fx, fx.root, name);
		fsfix_write(&fx, id, 0, "other", 5);
		assert_int_equal(fs_unlink(fx.fs, fx.root, name, strlen(name)), 0);
		if (i % 4)
			fs_forget(fx.fs, id, 2);
	}
	assert_int_equal(fs_snap_delete(fx.fs, "all of it"), 0);
	fsfix_reopen(&fx);
	powercut_start(&w.pc, &fx);
	while ((rc = reclaim_step(fx.fs)) > 0) {
		steps++;
		assert_int_equal(fs_sync(fx.fs), 0);
		powercut_verify(&w.pc, kept_ok, &w);
	}
	assert_int_equal(rc, 0);
	assert_true(steps > 10);
	powercut_stop(&w.pc);
	fs_stat(fx.fs, &after);
	assert_int_equal(after.data_pages, before.data_pages);
	assert_int_equal(after.inodes_used, before.inodes_used);
	assert_int_equal(after.dying, 0);
	assert_int_equal(after.orphans, 0);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* ------------------------------------------------------------------ others at the same time */

#define BG_FILES     4u
#define BG_STEPS     3u	   /* of the other thread to a round */
#define BG_SNAPS     4096u /* ids */
#define BG_MAX_BYTES 30000u

/* Files that are replaced as programs do, while another thread makes and deletes snapshots. */
struct bg_work {
	struct powercut pc;
	struct fsfix fx;
	struct dedup *dedup;
	unsigned low[BG_FILES], now[BG_FILES]; /* versions: what was there when the diary began */
	unsigned snaps;			       /* made; the last two are there */
	int rc;				       /* of the other thread */
	/* What the images have shown of each snapshot: its versions plus one. */
	unsigned shown[BG_SNAPS][BG_FILES];
};

static size_t bg_bytes(unsigned file, unsigned version, uint8_t buf[BG_MAX_BYTES])
{
	const size_t len = 8 + (file * 7001 + version * 1013) % (BG_MAX_BYTES - 8);

	/* Pages are equal to those of other files and versions, for dedup to find. */
	memset(buf, 'a' + (int)(version % 3), len);
	memcpy(buf, &version, sizeof(version));
	memcpy(buf + len - sizeof(version), &version, sizeof(version));
	return len;
}

/* The version that a file has; false: it is none, or not whole. */
static bool bg_version(struct fs *fs, uint64_t dir, unsigned file, unsigned *version)
{
	uint8_t want[BG_MAX_BYTES], got[BG_MAX_BYTES + 1];
	struct fs_attr attr;
	char name[16];
	ssize_t n;

	snprintf(name, sizeof(name), "file-%u", file);
	if (fs_lookup(fs, dir, name, strlen(name), &attr))
		return false;
	n = fs_read(fs, attr.id, 0, got, sizeof(got));
	fs_forget(fs, attr.id, 1);
	if (n < (ssize_t)sizeof(*version))
		return false;
	memcpy(version, got, sizeof(*version));
	return (size_t)n == bg_bytes(file, *version, want) && !memcmp(got, want, (size_t)n);
}

struct bg_look {
	struct bg_work *w;
	struct fs *fs;
};

/* A snapshot has whole files, and the same ones in every image. */
static int bg_snapshot(void *arg, const struct fs_snapshot *snap)
{
	const struct bg_look *look = arg;
	struct fs_attr attr;
	unsigned version, *shown;
	int rc = 0;

	assert_true(snap->id < BG_SNAPS);
	assert_int_equal(fs_snap_lookup(look->fs, snap->name, &attr), 0);
	for (unsigned i = 0; i < BG_FILES && !rc; i++) {
		shown = &look->w->shown[snap->id][i];
		if (!bg_version(look->fs, attr.id, i, &version) ||
		    (*shown && *shown != version + 1))
			rc = 1;
		*shown = version + 1;
	}
	fs_forget(look->fs, attr.id, 1);
	return rc;
}

static bool bg_ok(void *arg, struct fs *fs, bool acknowledged, char *why, size_t size)
{
	struct bg_work *w = arg;
	struct bg_look look = {w, fs};
	struct fs_snapshot snap;
	unsigned version;
	char name[16];

	for (unsigned i = 0; i < BG_FILES; i++) {
		if (bg_version(fs, fs_root(fs), i, &version) && version <= w->now[i] &&
		    version >= (acknowledged ? w->now[i] : w->low[i]))
			continue;
		snprintf(why, size, "file %u is not whole, or not what it may be", i);
		return false;
	}
	if (fs_snap_each(fs, bg_snapshot, &look)) {
		snprintf(why, size, "a snapshot is not what it was");
		return false;
	}
	snprintf(name, sizeof(name), "s%u", w->snaps);
	if (acknowledged && fs_snap_find(fs, name, &snap)) {
		snprintf(why, size, "the last snapshot is not there");
		return false;
	}
	snprintf(name, sizeof(name), "s%u", w->snaps - 2);
	if (acknowledged && fs_snap_find(fs, name, &snap) != -ENOENT) {
		snprintf(why, size, "a snapshot that was deleted is there");
		return false;
	}
	return true;
}

static int bg_snap(struct bg_work *w)
{
	char name[16];
	int rc;

	snprintf(name, sizeof(name), "s%u", ++w->snaps);
	rc = fs_snap_create(w->fx.fs, name, NULL, NULL);
	snprintf(name, sizeof(name), "s%u", w->snaps - 2);
	if (!rc && w->snaps > 2)
		rc = fs_snap_delete(w->fx.fs, name);
	return rc;
}

static void *bg_main(void *arg)
{
	struct bg_work *w = arg;

	for (unsigned i = 0; i < BG_STEPS && !w->rc; i++) {
		w->rc = bg_snap(w);
		if (!w->rc && i == 1)
			w->rc = dedup_run(w->dedup);
		if (!w->rc)
			w->rc = MIN(reclaim_run(w->fx.fs), 0);
	}
	return NULL;
}

static void bg_replace(struct bg_work *w, unsigned file)
{
	uint8_t buf[BG_MAX_BYTES];
	const size_t len = bg_bytes(file, ++w->now[file], buf);
	uint64_t id;
	char name[16];

	snprintf(name, sizeof(name), "file-%u", file);
	id = fsfix_file(&w->fx, w->fx.root, "new");
	fsfix_write(&w->fx, id, 0, buf, len);
	assert_int_equal(fs_fsync(w->fx.fs, id, false), 0);
	assert_int_equal(
		fs_rename(w->fx.fs, w->fx.root, "new", 3, w->fx.root, name, strlen(name), 0), 0);
	fs_forget(w->fx.fs, id, 1);
	assert_int_equal(fs_fsync(w->fx.fs, w->fx.root, false), 0);
}

static void test_crash_fs_others_at_work(void **state)
{
	static struct bg_work work;
	struct bg_work *w = &work;
	const uint64_t rounds = MAX(fsfix_env("PMFS_CUTS", 40) / 4, 1);
	pthread_t other;

	(void)state;
	*w = (struct bg_work){0};
	fsfix_image(&w->fx, 16 * MIB);
	assert_int_equal(dedup_new(&w->dedup, fs_store(w->fx.fs), DEDUP_MEMORY_DEFAULT), 0);
	for (unsigned i = 0; i < BG_FILES; i++)
		bg_replace(w, i);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(bg_snap(w), 0);
	powercut_start(&w->pc, &w->fx);
	for (uint64_t round = 0; round < rounds; round++) {
		memcpy(w->low, w->now, sizeof(w->low));
		assert_int_equal(pthread_create(&other, NULL, bg_main, w), 0);
		bg_replace(w, (unsigned)(round % BG_FILES));
		bg_replace(w, (unsigned)((round + 1) % BG_FILES));
		assert_int_equal(pthread_join(other, NULL), 0);
		assert_int_equal(w->rc, 0);
		powercut_verify(&w->pc, bg_ok, w);
	}
	powercut_stop(&w->pc);
	dedup_free(w->dedup);
	fsfix_check(&w->fx);
	fsfix_free(&w->fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crash_fs_small_commits),
		cmocka_unit_test(test_crash_fs_with_dedup),
		cmocka_unit_test(test_crash_fs_big_commits),
		cmocka_unit_test(test_crash_fs_rename_replaces_at_once),
		cmocka_unit_test(test_crash_fs_reclaim),
		cmocka_unit_test(test_crash_fs_others_at_work),
	};

	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
