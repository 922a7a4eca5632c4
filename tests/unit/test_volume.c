/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening, the volume table, snapshots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/log.h"
#include "lib/fsfix.h"
#include "tree/fs_impl.h"
#include "tree/reclaim.h"

#define MIB (UINT64_C(1) << 20)

static uint64_t in_snapshot(const struct fs_snapshot *snap, uint64_t id)
{
	return NODE_ID(snap->id, NODE_INO(id));
}

/* ------------------------------------------------------------------ opening */

static void test_fs_fresh_image_has_a_root(void **state)
{
	struct fs_statfs sf;
	struct fs_stats st;
	struct fs_attr attr;
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 0);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(fs_getattr(fx.fs, fx.root, &attr), 0);
		assert_int_equal(attr.mode, S_IFDIR | 0755);
		assert_int_equal(attr.nlink, 2);
		assert_int_equal(attr.ino, PMFS_INO_ROOT);
		fs_stat(fx.fs, &st);
		assert_int_equal(st.inodes_used, 2);
		assert_int_equal(st.snapshots + st.dying + st.orphans, 0);
		assert_int_equal(fs_statfs(fx.fs, &sf), 0);
		assert_int_equal(sf.blocks, 64 * MIB / 4096);
		assert_in_range(sf.available, sf.blocks * 9 / 10, sf.free);
		assert_true(sf.inodes_free > 0);
		fsfix_check(&fx);
		fsfix_reopen(&fx);
	}
	fsfix_free(&fx);
}

static void test_fs_root_gets_owner_and_mode(void **state)
{
	const struct fs_config cfg = {
		.store = {.limit_bytes = 16 * MIB},
		.root_uid = 12,
		.root_gid = 34,
		.root_mode = 01777,
	};
	struct store_error err;
	struct fs_attr attr;
	struct fs *fs;

	(void)state;
	assert_int_equal(fs_open(&fs, &cfg, &err), 0);
	assert_int_equal(fs_getattr(fs, fs_root(fs), &attr), 0);
	assert_int_equal(attr.mode, S_IFDIR | 01777);
	assert_int_equal(attr.uid, 12);
	assert_int_equal(attr.gid, 34);
	assert_int_equal(fs_close(fs), 0);
}

static void test_fs_empty_image_needs_a_writer_first(void **state)
{
	const struct store_format how = {.limit_bytes = 16 * MIB, .force = true};
	struct store_error err;
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 0);
	fsfix_stop(&fx);
	assert_int_equal(store_format(fx.image, &how, &err), 0);
	fx.read_only = true;
	assert_int_equal(fsfix_try_start(&fx, &err), -EROFS);
	assert_non_null(strstr(err.text, "-o ro"));
	fx.read_only = false;
	fsfix_start(&fx);
	fsfix_stop(&fx);
	fx.read_only = true;
	fsfix_start(&fx);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

static void test_fs_crash_before_the_first_commit_starts_anew(void **state)
{
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 0);
	fsfix_file(&fx, fx.root, "gone");
	fsfix_crash(&fx);
	fsfix_start(&fx);
	assert_int_equal(fsfix_find(&fx, fx.root, "gone"), 0);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* ------------------------------------------------------------------ snapshots */

static void test_snapshot_keeps_what_was(void **state)
{
	uint8_t buf[40000];
	struct fs_snapshot one, two, found;
	struct fs_attr attr;
	struct fsfix fx;
	uint64_t dir, file;

	(void)state;
	fsfix_image(&fx, 0);
	fs_forget(fx.fs, fsfix_file(&fx, fx.root, "brief"), 1);
	dir = fsfix_mkdir(&fx, fx.root, "dir");
	file = fsfix_file(&fx, dir, "file");
	assert_int_equal(fs_unlink(fx.fs, fx.root, "brief", 5), 0);
	memset(buf, 'a', sizeof(buf));
	fsfix_write(&fx, file, 0, buf, sizeof(buf));
	assert_int_equal(fs_snap_create(fx.fs, "one", "first", &one), 0);
	/* A free number on the list, for what comes of the snapshot one day. */
	assert_int_equal(fx.fs->by_id[one.id]->free_ino, fx.fs->live->free_ino);
	assert_int_equal(fx.fs->by_id[one.id]->next_ino, fx.fs->live->next_ino);
	assert_int_not_equal(fx.fs->live->free_ino, 0);
	fsfix_write(&fx, file, 100, "b", 1);
	assert_int_equal(fs_snap_create(fx.fs, "two", NULL, &two), 0);
	assert_int_equal(fs_unlink(fx.fs, dir, "file", 4), 0);
	assert_int_equal(fs_rmdir(fx.fs, fx.root, "dir", 3), 0);
	fs_forget(fx.fs, file, 1);
	fs_forget(fx.fs, dir, 1);
	fsfix_check(&fx);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(fs_snap_find(fx.fs, "one", &found), 0);
		assert_memory_equal(&found, &one, sizeof(one));
		assert_string_equal(found.message, "first");
		assert_int_equal(found.inodes, 4);
		assert_int_equal(found.data_pages, 10);
		assert_true(two.id > one.id && two.created_ns >= one.created_ns);
		assert_int_equal(fs_snap_lookup(fx.fs, "one", &attr), 0);
		assert_int_equal(attr.id, one.root);
		assert_int_equal(fsfix_find(&fx, one.root, "dir"), in_snapshot(&one, dir));
		assert_int_equal(fsfix_find(&fx, in_snapshot(&one, dir), "file"),
				 in_snapshot(&one, file));
		buf[100] = 'a';
		fsfix_expect(&fx, in_snapshot(&one, file), 0, buf, sizeof(buf));
		buf[100] = 'b';
		fsfix_expect(&fx, in_snapshot(&two, file), 0, buf, sizeof(buf));
		assert_int_equal(fsfix_find(&fx, fx.root, "dir"), 0);
		/* What fs_snap_create() returned for is durable. */
		fsfix_crash(&fx);
		fsfix_start(&fx);
		if (round == 0) {
			assert_int_not_equal(fsfix_find(&fx, fx.root, "dir"), 0);
			assert_int_equal(fs_unlink(fx.fs, dir, "file", 4), 0);
			assert_int_equal(fs_rmdir(fx.fs, fx.root, "dir", 3), 0);
			fs_forget(fx.fs, file, 1);
			fs_forget(fx.fs, dir, 1);
			assert_int_equal(fs_sync(fx.fs), 0);
		}
	}
	fsfix_check(&fx);
	fsfix_free(&fx);
}

static void test_snapshot_is_read_only(void **state)
{
	static const struct fs_cred cred = {0, 0};
	const struct fs_setattr set = {.size = 0};
	struct fs_snapshot snap;
	struct fs_attr attr;
	struct fsfix fx;
	uint64_t file;

	(void)state;
	fsfix_image(&fx, 0);
	file = fsfix_file(&fx, fx.root, "file");
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, &snap), 0);
	assert_int_equal(fs_write(fx.fs, in_snapshot(&snap, file), 0, "x", 1, 0), -EROFS);
	assert_int_equal(fs_setattr(fx.fs, in_snapshot(&snap, file), FS_SET_SIZE, &set, &attr),
			 -EROFS);
	assert_int_equal(fs_unlink(fx.fs, snap.root, "file", 4), -EROFS);
	assert_int_equal(fs_mkdir(fx.fs, snap.root, "d", 1, 0755, &cred, &attr), -EROFS);
	assert_int_equal(fs_setxattr(fx.fs, in_snapshot(&snap, file), "user.a", "x", 1, 0), -EROFS);
	fsfix_free(&fx);
}

static void test_snapshot_names(void **state)
{
	static const char *const bad[] = {
		"",
		".",
		"..",
		"live",
		"a/b",
		"@x",
		"-x",
		"tab\there",
		"new\nline",
		"\x7f",
		"\xc2\x85",
		"\xff",
		"\xc0\xaf",
		"\xed\xa0\x80",
		"\xf4\x90\x80\x80",
		"cut \xe2\x82",
	};
	static const char *const good[] = {
		"a",
		"...",
		"live2",
		"Live",
		"with space",
		"caf\xc3\xa9",
		"\xe6\x97\xa5\xe6\x9c\xac",
		"\xf0\x9f\x8c\xb3",
		"x@-",
		".hidden",
	};
	char name[PMFS_VOL_NAME_MAX + 2], message[PMFS_VOL_MESSAGE_MAX + 2];
	struct fs_snapshot snap;
	struct fsfix fx;

	(void)state;
	fsfix_ram(&fx, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(fs_snap_create(fx.fs, bad[i], NULL, NULL), -EINVAL);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(fs_snap_create(fx.fs, good[i], NULL, NULL), 0);
	memset(name, 'n', sizeof(name));
	memset(message, 'm', sizeof(message));
	name[PMFS_VOL_NAME_MAX + 1] = message[PMFS_VOL_MESSAGE_MAX + 1] = 0;
	assert_int_equal(fs_snap_create(fx.fs, name, NULL, NULL), -ENAMETOOLONG);
	assert_int_equal(fs_snap_create(fx.fs, "m", message, NULL), -ENAMETOOLONG);
	assert_int_equal(fs_snap_create(fx.fs, "m", "\xff", NULL), -EINVAL);
	name[PMFS_VOL_NAME_MAX] = message[PMFS_VOL_MESSAGE_MAX] = 0;
	assert_int_equal(fs_snap_create(fx.fs, name, message, NULL), 0);
	assert_int_equal(fs_snap_find(fx.fs, name, &snap), 0);
	assert_string_equal(snap.name, name);
	assert_string_equal(snap.message, message);

	assert_int_equal(fs_snap_create(fx.fs, "a", NULL, NULL), -EEXIST);
	assert_int_equal(fs_snap_rename(fx.fs, "a", "..."), -EEXIST);
	assert_int_equal(fs_snap_rename(fx.fs, "a", "live"), -EINVAL);
	assert_int_equal(fs_snap_rename(fx.fs, "none", "b"), -ENOENT);
	assert_int_equal(fs_snap_delete(fx.fs, "none"), -ENOENT);
	assert_int_equal(fs_snap_find(fx.fs, "none", &snap), -ENOENT);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

static int collect(void *arg, const struct fs_snapshot *snap)
{
	char *all = arg;

	strcat(strcat(all, snap->name), " ");
	return !strcmp(snap->name, "stop");
}

static void test_snapshot_list_and_rename(void **state)
{
	char all[64] = "";
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 0);
	assert_int_equal(fs_snap_create(fx.fs, "z", "keep me", NULL), 0);
	assert_int_equal(fs_snap_create(fx.fs, "y", NULL, NULL), 0);
	assert_int_equal(fs_snap_create(fx.fs, "x", NULL, NULL), 0);
	assert_int_equal(fs_snap_rename(fx.fs, "y", "stop"), 0);
	assert_int_equal(fs_snap_rename(fx.fs, "z", "longer than it was"), 0);
	assert_int_equal(fs_snap_rename(fx.fs, "longer than it was", "zz"), 0);
	for (int round = 0; round < 2; round++) {
		struct fs_snapshot snap;

		all[0] = 0;
		assert_int_equal(fs_snap_each(fx.fs, collect, all), 1);
		assert_string_equal(all, "zz stop ");
		assert_int_equal(fs_snap_find(fx.fs, "z", &snap), -ENOENT);
		assert_int_equal(fs_snap_find(fx.fs, "zz", &snap), 0);
		assert_string_equal(snap.message, "keep me");
		/* A rename that has returned is durable. */
		fsfix_crash(&fx);
		fsfix_start(&fx);
	}
	fsfix_free(&fx);
}

/* One reference and one row, whatever the size of the tree: few frames, and one flush. */
static void test_snapshot_cost_does_not_depend_on_the_tree(void **state)
{
	struct fs_stats before, after;
	struct fsfix fx;
	char name[32];

	(void)state;
	fsfix_image(&fx, 256 * MIB);
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		fsfix_write(&fx, fsfix_file(&fx, fx.root, name), 0, name, sizeof(name));
	}
	assert_int_equal(fs_sync(fx.fs), 0);
	fs_stat(fx.fs, &before);
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
	fs_stat(fx.fs, &after);
	assert_int_equal(after.store.flushes - before.store.flushes, 1);
	assert_true(after.store.frames.used - before.store.frames.used <= VOLUME_ROW_COST);
	assert_int_equal(after.store.pages, before.store.pages);
	assert_int_equal(after.logical_pages, 2 * before.data_pages);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

static void test_snapshot_deleted_is_gone_at_once(void **state)
{
	struct fs_snapshot snap;
	struct fs_attr attr;
	struct fs_stats st;
	struct fsfix fx;
	uint64_t file;

	(void)state;
	fsfix_image(&fx, 0);
	file = fsfix_file(&fx, fx.root, "file");
	assert_int_equal(fs_snap_create(fx.fs, "s", "m", &snap), 0);
	assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
	assert_int_equal(fs_snap_find(fx.fs, "s", &snap), -ENOENT);
	assert_int_equal(fs_snap_lookup(fx.fs, "s", &attr), -ENOENT);
	assert_int_equal(fs_getattr(fx.fs, in_snapshot(&snap, file), &attr), -ESTALE);
	fsfix_crash(&fx);
	fsfix_start(&fx);
	assert_int_equal(fs_snap_find(fx.fs, "s", &snap), -ENOENT);
	fs_stat(fx.fs, &st);
	assert_int_equal(st.dying, 1);
	fsfix_check(&fx);
	assert_true(reclaim_run(fx.fs) > 0);
	fs_stat(fx.fs, &st);
	assert_int_equal(st.dying, 0);
	fsfix_check(&fx);
	/* The name is free, the id is not used again. */
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, &snap), 0);
	assert_int_equal(snap.id, 3);
	fsfix_free(&fx);
}

static void test_snapshot_exclusive(void **state)
{
	static uint8_t buf[100 * PMFS_PAGE_SIZE];
	struct fs_stats before, after;
	uint64_t pages, file, other;
	struct fsfix fx;

	(void)state;
	memset(buf, 'x', sizeof(buf));
	fsfix_image(&fx, 0);
	file = fsfix_file(&fx, fx.root, "file");
	other = fsfix_file(&fx, fx.root, "other");
	fsfix_write(&fx, file, 0, buf, sizeof(buf));
	fsfix_write(&fx, other, 0, buf, sizeof(buf));
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
	assert_int_equal(fs_snap_exclusive(fx.fs, "s", &pages), 0);
	assert_int_equal(pages, 0);
	assert_int_equal(fs_unlink(fx.fs, fx.root, "other", 5), 0);
	fs_forget(fx.fs, other, 1);
	fsfix_write(&fx, file, 10 * PMFS_PAGE_SIZE, "new", 3);
	assert_int_equal(fs_snap_exclusive(fx.fs, "s", &pages), 0);
	assert_in_range(pages, 101, 110);
	assert_int_equal(fs_snap_exclusive(fx.fs, "t", &pages), -ENOENT);

	/* It is what deleting frees. */
	assert_int_equal(fs_snap_exclusive(fx.fs, "s", &pages), 0);
	fs_stat(fx.fs, &before);
	assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
	assert_true(reclaim_run(fx.fs) > 0);
	fs_stat(fx.fs, &after);
	assert_int_equal(before.store.pages - after.store.pages, pages);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* Rows are used again, ids are not, and the last id is the last. */
static void test_snapshot_ids_end(void **state)
{
	struct fs_snapshot snap;
	struct fsfix fx;
	uint32_t rows;
	int rc;

	(void)state;
	fsfix_ram(&fx, 0);
	fx.fs->next_volume = PMFS_VOL_ID_MAX - 99; /* as if so many had been */
	for (uint64_t id = fx.fs->next_volume; id <= PMFS_VOL_ID_MAX; id++) {
		rc = fs_snap_create(fx.fs, "s", NULL, &snap);
		if (rc || snap.id != id)
			fail_msg("id %" PRIu64 ": %d", id, rc);
		assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
		assert_true(reclaim_run(fx.fs) > 0);
	}
	rows = fx.fs->rows;
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), -EMFILE);
	assert_int_equal(rows, 2);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* So many that the table has pages and a node. */
static void test_snapshot_many(void **state)
{
	struct fs_snapshot snap;
	struct fsfix fx;
	char name[32];

	(void)state;
	fsfix_image(&fx, 0);
	for (unsigned i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "snap-%u", i);
		fsfix_file(&fx, fx.root, name);
		assert_int_equal(fs_snap_create(fx.fs, name, name, NULL), 0);
	}
	fsfix_check(&fx);
	for (unsigned i = 0; i < 60; i += 2) {
		snprintf(name, sizeof(name), "snap-%u", i);
		assert_int_equal(fs_snap_delete(fx.fs, name), 0);
	}
	fsfix_check(&fx);
	fsfix_reopen(&fx);
	assert_true(reclaim_run(fx.fs) > 0);
	fsfix_check(&fx);
	for (unsigned i = 60; i < 100; i++) {
		snprintf(name, sizeof(name), "snap-%u", i);
		assert_int_equal(fs_snap_create(fx.fs, name, NULL, NULL), 0);
	}
	assert_in_range(fx.fs->rows, 62, 72);
	fsfix_reopen(&fx);
	for (unsigned i = 1; i < 100; i += i < 60 ? 2 : 1) {
		snprintf(name, sizeof(name), "snap-%u", i);
		assert_int_equal(fs_snap_find(fx.fs, name, &snap), 0);
		assert_string_equal(snap.message, i < 60 ? name : "");
		assert_int_equal(snap.inodes, 2 + (i < 60 ? i + 1 : 60));
	}
	fsfix_check(&fx);
	fsfix_free(&fx);
}

static void test_snapshot_refused_on_a_read_only_mount(void **state)
{
	struct fs_snapshot snap;
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 0);
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
	fsfix_stop(&fx);
	fx.read_only = true;
	fsfix_start(&fx);
	assert_int_equal(fs_snap_create(fx.fs, "t", NULL, NULL), -EROFS);
	assert_int_equal(fs_snap_delete(fx.fs, "s"), -EROFS);
	assert_int_equal(fs_snap_rename(fx.fs, "s", "t"), -EROFS);
	assert_int_equal(fs_snap_find(fx.fs, "s", &snap), 0);
	assert_int_equal(reclaim_run(fx.fs), 0);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* The commit fails: the snapshot was not made, and the image shows what it showed. */
static void test_snapshot_of_a_failing_image(void **state)
{
	struct fs_snapshot snap;
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 0);
	assert_int_equal(fs_snap_create(fx.fs, "before", NULL, NULL), 0);
	fault_reset();
	if (fault_arm("region.flush", 1, EIO) == -EOPNOTSUPP) {
		fsfix_free(&fx);
		skip();
	}
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), -EIO);
	fault_reset();
	assert_int_equal(fs_snap_find(fx.fs, "s", &snap), -ENOENT);
	assert_int_equal(fs_snap_create(fx.fs, "t", NULL, NULL), -EIO);
	assert_int_equal(fs_snap_delete(fx.fs, "before"), -EIO);
	fsfix_crash(&fx);
	fsfix_start(&fx);
	assert_int_equal(fs_snap_find(fx.fs, "before", &snap), 0);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* ------------------------------------------------------------------ damaged tables */

/* Change a row behind the filesystem's back. */
static void row_put(struct fsfix *fx, uint32_t row, size_t off, const void *buf, size_t len)
{
	struct txn tx;

	assert_int_equal(txn_begin(fs_store(fx->fs), &tx, FRAME_NORMAL, 8), 0);
	assert_int_equal(ptab_write(&tx, &fx->fs->table, NULL, row / 4,
				    row % 4 * sizeof(struct pmfs_volume) + off, buf, len, NULL),
			 0);
	txn_end(&tx);
}

static void root_put(struct fsfix *fx, size_t off, const void *buf, size_t len)
{
	struct pmfs_tree_root root;
	struct txn tx;

	store_get_root(fs_store(fx->fs), &root);
	memcpy((uint8_t *)&root + off, buf, len);
	assert_int_equal(txn_begin(fs_store(fx->fs), &tx, FRAME_NORMAL, 0), 0);
	store_set_root(&tx, &root);
	txn_end(&tx);
}

#define ROW(member) offsetof(struct pmfs_volume, member), sizeof(((struct pmfs_volume *)0)->member)
#define ROOT(member) \
	offsetof(struct pmfs_tree_root, member), sizeof(((struct pmfs_tree_root *)0)->member)

static void test_volume_table_damage_is_refused(void **state)
{
	/* Rows 0, 1, 2 are the live volume and two snapshots. */
	static const struct {
		int row; /* -1: the root in the superblock */
		size_t off, len;
		uint64_t value;
		const char *word;
	} damage[] = {
		{0, ROW(state), 9, "state"},
		{0, ROW(state), PMFS_VOL_SNAPSHOT, "name"},
		{1, ROW(state), PMFS_VOL_LIVE, "name"},
		{2, ROW(state), PMFS_VOL_DYING, "name"},
		{1, ROW(id), 0, "id"},
		{1, ROW(id), 77, "id"},
		{1, ROW(id), 3, "same id"},
		{1, ROW(name), 'b', "same name"},
		{0, ROW(inodes.vpn), 0, "root"},
		{1, ROW(inodes.height), 7, "root"},
		{0, ROW(next_ino), 0, "inodes"},
		{0, ROW(next_ino), UINT64_MAX, "inodes"},
		{0, ROW(free_ino), 1000, "free"},
		{-1, ROOT(table), 0, "superblock"},
		{-1, ROOT(rows), 1u << 20, "superblock"},
		{-1, ROOT(rows), 400, "damaged"},
		{-1, ROOT(next_volume), UINT32_MAX, "superblock"},
		{-1, ROOT(next_volume), 3, "id"},
		{-1, ROOT(live), 2, "live"},
		{-1, ROOT(live), 50, "superblock"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
		le64 value = le64_make(damage[i].value);
		uint8_t bytes[256] = {0};
		struct store_error err;
		struct fsfix fx;
		int rc;

		fsfix_image(&fx, 0);
		assert_int_equal(fs_snap_create(fx.fs, "a", NULL, NULL), 0);
		assert_int_equal(fs_snap_create(fx.fs, "b", NULL, NULL), 0);
		memcpy(bytes, &value, sizeof(value));
		if (damage[i].row < 0)
			root_put(&fx, damage[i].off, bytes, damage[i].len);
		else
			row_put(&fx, (uint32_t)damage[i].row, damage[i].off, bytes, damage[i].len);
		fsfix_stop(&fx);
		rc = fsfix_try_start(&fx, &err);
		if (rc != -EUCLEAN || !strstr(err.text, damage[i].word))
			fail_msg("damage %zu: %d, %s", i, rc, err.text);
		fsfix_free(&fx);
	}
}

/* The steps it takes to make, find, rename and delete one more, and to list them all. */
static uint64_t snapshot_steps(struct fsfix *fx, unsigned i)
{
	const uint64_t before = atomic_load(&fx->fs->volume_steps);
	struct fs_snapshot snap;
	char name[32], other[32];

	snprintf(name, sizeof(name), "one-%u", i);
	snprintf(other, sizeof(other), "other-%u", i);
	assert_int_equal(fs_snap_create(fx->fs, name, NULL, NULL), 0);
	assert_int_equal(fs_snap_find(fx->fs, name, &snap), 0);
	assert_int_equal(fs_snap_create(fx->fs, name, NULL, NULL), -EEXIST);
	assert_int_equal(fs_snap_rename(fx->fs, name, other), 0);
	assert_int_equal(fs_snap_find(fx->fs, name, &snap), -ENOENT);
	assert_int_equal(fs_snap_find(fx->fs, other, &snap), 0);
	return atomic_load(&fx->fs->volume_steps) - before;
}

static int count_snapshot(void *arg, const struct fs_snapshot *snap)
{
	uint64_t *ids = arg;

	assert_true(snap->id > ids[1]); /* in the order they were made */
	ids[0]++;
	ids[1] = snap->id;
	return 0;
}

static void test_snapshot_number_n_costs_what_the_first_did(void **state)
{
	enum { N = 3000 };
	uint64_t ids[2] = {0, 0}, before;
	struct fs_snapshot snap;
	struct fsfix fx;
	char name[32];

	(void)state;
	fsfix_image(&fx, 0);
	for (unsigned i = 0; i < N; i++)
		/* Who stands before it in its bucket of 4096, looked up half a dozen times. */
		assert_in_range(snapshot_steps(&fx, i), 0, 60);
	for (int round = 0; round < 2; round++) {
		ids[0] = ids[1] = 0;
		before = atomic_load(&fx.fs->volume_steps);
		assert_int_equal(fs_snap_each(fx.fs, count_snapshot, ids), 0);
		assert_int_equal(ids[0], N);
		assert_in_range(atomic_load(&fx.fs->volume_steps) - before, 0, N);
		fsfix_reopen(&fx);
	}
	for (unsigned i = 0; i < N; i += 97) {
		snprintf(name, sizeof(name), "other-%u", i);
		assert_int_equal(fs_snap_delete(fx.fs, name), 0);
		assert_int_equal(fs_snap_find(fx.fs, name, &snap), -ENOENT);
	}
	assert_int_equal(reclaim_backlog(fx.fs), (N + 96) / 97);
	assert_true(reclaim_run(fx.fs) > 0);
	assert_int_equal(reclaim_backlog(fx.fs), 0);
	/* Rows that have become free are used again. */
	before = fx.fs->rows;
	assert_in_range(snapshot_steps(&fx, N), 0, 60);
	assert_int_equal(fx.fs->rows, before);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_snapshot_number_n_costs_what_the_first_did),
		cmocka_unit_test(test_fs_fresh_image_has_a_root),
		cmocka_unit_test(test_fs_root_gets_owner_and_mode),
		cmocka_unit_test(test_fs_empty_image_needs_a_writer_first),
		cmocka_unit_test(test_fs_crash_before_the_first_commit_starts_anew),
		cmocka_unit_test(test_snapshot_keeps_what_was),
		cmocka_unit_test(test_snapshot_is_read_only),
		cmocka_unit_test(test_snapshot_names),
		cmocka_unit_test(test_snapshot_list_and_rename),
		cmocka_unit_test(test_snapshot_cost_does_not_depend_on_the_tree),
		cmocka_unit_test(test_snapshot_deleted_is_gone_at_once),
		cmocka_unit_test(test_snapshot_exclusive),
		cmocka_unit_test(test_snapshot_ids_end),
		cmocka_unit_test(test_snapshot_many),
		cmocka_unit_test(test_snapshot_refused_on_a_read_only_mount),
		cmocka_unit_test(test_snapshot_of_a_failing_image),
		cmocka_unit_test(test_volume_table_damage_is_refused),
	};

	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
