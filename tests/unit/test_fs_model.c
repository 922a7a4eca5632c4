/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The whole engine against a plain model: files, directories, names, attributes, snapshots, dedup,
 * reopening, crashes, with all counts of the image checked now and then.  PMFS_OPS, PMFS_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "lib/fsmodel.h"
#include "tree/reclaim.h"

#define MIB (UINT64_C(1) << 20)

static uint64_t ops_wanted(uint64_t part)
{
	return fsfix_env("PMFS_OPS", 300000) / part;
}

static struct model model;

static void begin(struct fsfix *fx, bool dedup)
{
	model = (struct model){0};
	fsfix_seed(&model.rnd, 1);
	model_start(&model, fx, dedup);
}

static void end(struct fsfix *fx)
{
	model_compare(&model);
	fsfix_check(fx);
	model_end(&model);
	fsfix_free(fx);
}

static void test_fs_model_image(void **state)
{
	const uint64_t ops = ops_wanted(2);
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 256 * MIB);
	begin(&fx, true);
	for (uint64_t i = 1; i <= ops; i++) {
		model_step(&model);
		if (i % 500)
			continue;
		if (i % 1000)
			model_crash(&model);
		else
			model_reopen(&model);
		if (i % 2000 == 0) {
			model_compare(&model);
			fsfix_check(&fx);
		}
	}
	end(&fx);
}

static void test_fs_model_ram(void **state)
{
	const uint64_t ops = ops_wanted(3);
	struct fsfix fx;

	(void)state;
	fsfix_ram(&fx, 256 * MIB);
	begin(&fx, true);
	for (uint64_t i = 1; i <= ops; i++) {
		model_step(&model);
		if (i % 2000 == 0) {
			model_compare(&model);
			fsfix_check(&fx);
		}
	}
	end(&fx);
}

/* There is never enough room: every operation is refused now and then, and what was refused has not
 * happened. */
static void test_fs_model_full(void **state)
{
	const uint64_t ops = ops_wanted(6);
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 6 * MIB);
	begin(&fx, false);
	model.may_be_full = true;
	for (uint64_t i = 1; i <= ops; i++) {
		model_step(&model);
		if (i % 1000)
			continue;
		if (i % 2000)
			model_reopen(&model);
		model_compare(&model);
		fsfix_check(&fx);
	}
	assert_true(model.full > 0);
	end(&fx);
}

struct names {
	char (*name)[PMFS_NAME_MAX + 1];
	uint64_t id[MODEL_ENTRIES];
	bool dir[MODEL_ENTRIES];
	unsigned n;
};

static int take_name(void *arg, const struct fs_dirent *de)
{
	struct names *ns = arg;

	if (!strcmp(de->name, ".") || !strcmp(de->name, ".."))
		return 0;
	assert_in_range(ns->n, 0, MODEL_ENTRIES - 1);
	memcpy(ns->name[ns->n], de->name, de->name_len + 1);
	ns->id[ns->n] = de->id;
	ns->dir[ns->n++] = de->type == DT_DIR;
	return 0;
}

static void remove_all(struct fs *fs, uint64_t dir)
{
	struct names ns = {0};

	ns.name = calloc(MODEL_ENTRIES, sizeof(*ns.name));
	assert_non_null(ns.name);
	assert_int_equal(fs_readdir(fs, dir, 0, take_name, &ns), 0);
	for (unsigned i = 0; i < ns.n; i++) {
		const size_t len = strlen(ns.name[i]);

		if (ns.dir[i])
			remove_all(fs, ns.id[i]);
		assert_int_equal(ns.dir[i] ? fs_rmdir(fs, dir, ns.name[i], len)
					   : fs_unlink(fs, dir, ns.name[i], len),
				 0);
	}
	free(ns.name);
}

static int delete_snapshot(void *arg, const struct fs_snapshot *snap)
{
	return fs_snap_delete(arg, snap->name);
}

/* After everything has been removed, nothing is left in the image. */
static void test_fs_model_leaves_nothing(void **state)
{
	struct fs_stats before, after;
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 256 * MIB);
	fs_stat(fx.fs, &before);
	begin(&fx, true);
	for (uint64_t i = 0; i < ops_wanted(100); i++)
		model_step(&model);
	model_reopen(&model);
	model_end(&model);
	remove_all(fx.fs, fx.root);
	assert_int_equal(fs_snap_each(fx.fs, delete_snapshot, fx.fs), 0);
	assert_true(reclaim_run(fx.fs) >= 0);
	assert_int_equal(reclaim_backlog(fx.fs), 0);
	fsfix_check(&fx);
	fs_stat(fx.fs, &after);
	assert_int_equal(after.data_pages, 0);
	assert_int_equal(after.inodes_used, before.inodes_used);
	assert_int_equal(after.orphans, 0);
	assert_int_equal(after.dying, 0);
	/* What stays are the inode file and the volume table, with free records in them. */
	assert_in_range(after.store.pages, before.store.pages, before.store.pages + 16);
	fsfix_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fs_model_image),
		cmocka_unit_test(test_fs_model_ram),
		cmocka_unit_test(test_fs_model_full),
		cmocka_unit_test(test_fs_model_leaves_nothing),
	};

	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
