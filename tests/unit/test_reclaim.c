/* SPDX-License-Identifier: BSD-2-Clause */
/* Orphans and deleted snapshots are given back, in steps, whatever comes between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/thread.h"
#include "lib/surgery.h"
#include "tree/fs_impl.h"
#include "tree/reclaim.h"

#define MIB	 (UINT64_C(1) << 20)
#define PAGES(n) ((size_t)(n)*PMFS_PAGE_SIZE)

static const struct fs_cred cred = {0, 0};

static void write_pages(struct fsfix *fx, uint64_t id, pgno_t at, unsigned pages, unsigned char c)
{
	static uint8_t buf[PAGES(64)];

	memset(buf, c, sizeof(buf));
	for (unsigned i = 0; i < pages; i += 64)
		fsfix_write(fx, id, (at + i) * PMFS_PAGE_SIZE, buf,
			    PAGES(pages - i < 64 ? pages - i : 64));
}

static struct fs_stats stats(struct fsfix *fx)
{
	struct fs_stats st;

	fs_stat(fx->fs, &st);
	return st;
}

/* ------------------------------------------------------------------ orphans */

static void test_reclaim_last_forget_gives_back(void **state)
{
	struct fs_stats before, after;
	struct fs_attr attr;
	struct fsfix fx;
	uint64_t id;

	(void)state;
	fsfix_image(&fx, 0);
	before = stats(&fx);
	id = fsfix_file(&fx, fx.root, "file");
	write_pages(&fx, id, 0, 100, 'x');
	assert_int_equal(fs_setxattr(fx.fs, id, "user.a", "value", 5, 0), 0);
	assert_int_equal(fs_unlink(fx.fs, fx.root, "file", 4), 0);
	/* The kernel has it open: it is as it was, but for its name. */
	assert_int_equal(stats(&fx).orphans, 1);
	assert_int_equal(fs_getattr(fx.fs, id, &attr), 0);
	assert_int_equal(attr.nlink, 0);
	fsfix_expect(&fx, id, PAGES(99), "xx", 2);
	fsfix_check(&fx);
	fs_forget(fx.fs, id, 1);
	after = stats(&fx);
	assert_int_equal(after.orphans, 0);
	assert_int_equal(after.data_pages, 0);
	assert_int_equal(after.inodes_used, before.inodes_used);
	assert_int_equal(fs_getattr(fx.fs, id, &attr), -ENOENT);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

static void test_reclaim_orphans_of_the_last_mount(void **state)
{
	struct fs_stats st;
	struct fs_attr attr;
	struct fsfix fx;
	char name[16];
	uint64_t id;

	(void)state;
	fsfix_image(&fx, 0);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		id = fsfix_file(&fx, fx.root, name);
		write_pages(&fx, id, 0, i, 'x');
		assert_int_equal(fs_unlink(fx.fs, fx.root, name, strlen(name)), 0);
	}
	assert_int_equal(fs_tmpfile(fx.fs, fx.root, 0600, &cred, &attr), 0);
	write_pages(&fx, attr.id, 1000, 3, 'y');
	id = fsfix_mkdir(&fx, fx.root, "dir");
	fsfix_mkdir(&fx, id, "sub");
	assert_int_equal(fs_rmdir(fx.fs, id, "sub", 3), 0);
	assert_int_equal(fs_rmdir(fx.fs, fx.root, "dir", 3), 0);
	assert_int_equal(stats(&fx).orphans, 23);
	assert_int_equal(fs_sync(fx.fs), 0);
	fsfix_crash(&fx);
	fsfix_start(&fx);
	fsfix_check(&fx);
	assert_int_equal(reclaim_backlog(fx.fs), 23);
	assert_true(reclaim_run(fx.fs) >= 23);
	st = stats(&fx);
	assert_int_equal(st.orphans, 0);
	assert_int_equal(st.data_pages, 0);
	assert_int_equal(st.inodes_used, 2);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* More pages than one step gives back: the thread's work, or that of reclaim_run(). */
static void test_reclaim_big_orphan_in_steps(void **state)
{
	const unsigned pages = 3 * RECLAIM_STEP;
	struct fsfix fx;
	uint64_t id, left;
	int rc, steps = 0;

	(void)state;
	fsfix_image(&fx, 256 * MIB);
	id = fsfix_file(&fx, fx.root, "big");
	write_pages(&fx, id, 0, pages, 'x');
	assert_int_equal(fs_unlink(fx.fs, fx.root, "big", 3), 0);
	fs_forget(fx.fs, id, 1);
	left = stats(&fx).data_pages;
	assert_in_range(left, pages - RECLAIM_STEP, pages - 1);
	assert_int_equal(reclaim_backlog(fx.fs), 1);
	/* kill -9 after any step */
	do {
		fsfix_check(&fx);
		rc = reclaim_step(fx.fs);
		steps++;
		assert_in_range(stats(&fx).data_pages,
				left > RECLAIM_STEP ? left - RECLAIM_STEP : 0, left);
		left = stats(&fx).data_pages;
		assert_int_equal(fs_sync(fx.fs), 0);
		fsfix_crash(&fx);
		fsfix_start(&fx);
	} while (rc > 0);
	assert_int_equal(rc, 0);
	assert_true(steps >= 3);
	assert_int_equal(stats(&fx).data_pages, 0);
	assert_int_equal(stats(&fx).inodes_used, 2);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* A file that was unlinked when a snapshot was made is in the snapshot's orphan directory, and
 * nobody minds. */
static void test_reclaim_orphan_in_a_snapshot(void **state)
{
	struct fsfix fx;
	uint64_t id;

	(void)state;
	fsfix_image(&fx, 0);
	id = fsfix_file(&fx, fx.root, "file");
	write_pages(&fx, id, 0, 50, 'x');
	assert_int_equal(fs_unlink(fx.fs, fx.root, "file", 4), 0);
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
	fs_forget(fx.fs, id, 1);
	fsfix_check(&fx);
	fsfix_reopen(&fx);
	assert_int_equal(reclaim_run(fx.fs), 0);
	assert_int_equal(stats(&fx).logical_pages, 50);
	assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
	assert_true(reclaim_run(fx.fs) > 0);
	assert_int_equal(stats(&fx).logical_pages, 0);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* What is named in the orphan directory, but has a name of its own or is not there, is not given
 * back. */
static void test_reclaim_leaves_what_is_no_orphan(void **state)
{
	struct pmfs_inode rec;
	struct fsfix fx;
	uint64_t id;

	(void)state;
	fsfix_image(&fx, 0);
	id = fsfix_file(&fx, fx.root, "file");
	write_pages(&fx, id, 0, 5, 'x');
	fsfix_reopen(&fx);
	reclaim_inode(fx.fs, fx.fs->live, NODE_INO(id));
	reclaim_inode(fx.fs, fx.fs->live, 99999);
	fsfix_expect(&fx, id, 0, "xxx", 3);
	fsfix_check(&fx);

	/* Without links, but not in the directory: damage, which stays for fsck. */
	fsfix_reopen(&fx);
	surgery_get(&fx, fx.fs->live, NODE_INO(id), &rec);
	le32_put(&rec.nlink, 0);
	surgery_put(&fx, fx.fs->live, NODE_INO(id), &rec);
	reclaim_inode(fx.fs, fx.fs->live, NODE_INO(id));
	surgery_get(&fx, fx.fs->live, NODE_INO(id), &rec);
	assert_int_not_equal(le32_get(rec.mode), 0);
	assert_int_equal(stats(&fx).inodes_used, 3);
	fsfix_free(&fx);
}

/* ------------------------------------------------------------------ deleted snapshots */

/* Files of all kinds; some change after the snapshot, some go, some stay. */
static void make_tree(struct fsfix *fx, unsigned files)
{
	char name[32];
	uint64_t id;

	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		id = fsfix_file(fx, fx->root, name);
		if (i % 3)
			write_pages(fx, id, i % 7 == 0 ? 100000 : 0, 1 + i % 50, (unsigned char)i);
		if (i % 10 == 0)
			assert_int_equal(
				fs_setxattr(fx->fs, id, "user.name", name, sizeof(name), 0), 0);
		fs_forget(fx->fs, id, 1);
	}
}

static void change_tree(struct fsfix *fx, unsigned files)
{
	char name[32];
	uint64_t id;

	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		if (i % 5 == 0) {
			assert_int_equal(fs_unlink(fx->fs, fx->root, name, strlen(name)), 0);
		} else if (i % 5 == 1) {
			id = fsfix_find(fx, fx->root, name);
			write_pages(fx, id, 0, 2, '*');
			fs_forget(fx->fs, id, 1);
		}
	}
}

static void expect_same(const struct fs_stats *a, const struct fs_stats *b)
{
	assert_int_equal(a->store.pages, b->store.pages);
	assert_int_equal(a->data_pages, b->data_pages);
	assert_int_equal(a->logical_pages, b->logical_pages);
	assert_int_equal(a->inodes_used, b->inodes_used);
	assert_int_equal(a->dying, 0);
}

/* Deleting the snapshot leaves the pages that there would be without it. */
static void ignore(void *arg, const char *what)
{
	(void)arg;
	(void)what;
}

/* An image says that the orphan directory has no links: it is no orphan for that. */
static void test_reclaim_leaves_the_orphan_directory(void **state)
{
	struct pmfs_inode rec;
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 0);
	surgery_get(&fx, fx.fs->live, PMFS_INO_ORPHANS, &rec);
	le32_put(&rec.nlink, 0);
	surgery_put(&fx, fx.fs->live, PMFS_INO_ORPHANS, &rec);
	fsfix_reopen(&fx);
	/* Looks into it and lets go of it. */
	assert_int_equal(stats(&fx).orphans, 0);
	assert_true(reclaim_run(fx.fs) >= 0);
	reclaim_inode(fx.fs, fx.fs->live, PMFS_INO_ORPHANS);
	reclaim_inode(fx.fs, fx.fs->live, PMFS_INO_ROOT);
	fsfix_file(&fx, fx.root, "file");
	surgery_get(&fx, fx.fs->live, PMFS_INO_ORPHANS, &rec);
	assert_true(S_ISDIR(le32_get(rec.mode)));
	assert_true(fs_check(fx.fs, true, ignore, NULL) > 0);
	fsfix_free(&fx);
}

static void test_reclaim_snapshot_frees_what_is_its_own(void **state)
{
	struct fs_stats without, with;
	struct fsfix fx;

	(void)state;
	for (int snapshot = 0; snapshot < 2; snapshot++) {
		fsfix_image(&fx, 0);
		make_tree(&fx, 200);
		if (snapshot)
			assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
		change_tree(&fx, 200);
		if (snapshot) {
			assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
			fsfix_check(&fx);
			assert_true(reclaim_run(fx.fs) > 0);
		}
		fsfix_check(&fx);
		if (snapshot)
			with = stats(&fx);
		else
			without = stats(&fx);
		fsfix_free(&fx);
	}
	expect_same(&with, &without);
}

static void test_reclaim_snapshot_goes_on_after_a_crash(void **state)
{
	struct fs_stats before;
	struct fsfix fx;
	int rc, steps = 0;
	uint64_t id;

	(void)state;
	fsfix_image(&fx, 512 * MIB);
	before = stats(&fx);
	make_tree(&fx, 300);
	id = fsfix_file(&fx, fx.root, "big");
	write_pages(&fx, id, 0, 2 * RECLAIM_STEP + 100, 'b');
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
	/* Nothing is shared any more: the reclaimer has to take all of it apart. */
	assert_int_equal(fs_unlink(fx.fs, fx.root, "big", 3), 0);
	fs_forget(fx.fs, id, 1);
	for (unsigned i = 0; i < 300; i++) {
		char name[32];

		snprintf(name, sizeof(name), "file-%u", i);
		assert_int_equal(fs_unlink(fx.fs, fx.root, name, strlen(name)), 0);
	}
	assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
	do {
		rc = reclaim_step(fx.fs);
		steps++;
		/* Now with what the step did, now without it. */
		if (steps % 2)
			assert_int_equal(fs_sync(fx.fs), 0);
		fsfix_check(&fx);
		if (steps % 3 != 2) {
			fsfix_crash(&fx);
			fsfix_start(&fx);
			fsfix_check(&fx);
		}
	} while (rc > 0 && steps < 1000);
	assert_int_equal(reclaim_run(fx.fs), 0);
	assert_true(steps > 5);
	assert_int_equal(stats(&fx).dying, 0);
	assert_int_equal(stats(&fx).data_pages, 0);
	assert_int_equal(stats(&fx).inodes_used, before.inodes_used);
	assert_in_range(stats(&fx).store.pages, before.store.pages,
			before.store.pages + 300 / 16 + 3);
	fsfix_free(&fx);
}

/* A snapshot without anything of its own is one count, whatever is in it. */
static void test_reclaim_shared_snapshot_is_one_step(void **state)
{
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 0);
	make_tree(&fx, 500);
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
	assert_int_equal(fs_snap_create(fx.fs, "t", NULL, NULL), 0);
	assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
	assert_int_equal(reclaim_run(fx.fs), 1);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* Whoever looks at a snapshot keeps it; when he has gone, it goes. */
static void test_reclaim_waits_for_users(void **state)
{
	struct fs_attr attr;
	struct fsfix fx;

	(void)state;
	fsfix_image(&fx, 0);
	make_tree(&fx, 20);
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
	change_tree(&fx, 20);
	assert_int_equal(fs_snap_lookup(fx.fs, "s", &attr), 0);
	assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
	assert_int_equal(reclaim_run(fx.fs), 0);
	assert_int_equal(stats(&fx).dying, 1);
	assert_int_equal(fs_getattr(fx.fs, attr.id, &attr), 0);
	fs_forget(fx.fs, attr.id, 1);
	assert_true(reclaim_run(fx.fs) > 0);
	assert_int_equal(stats(&fx).dying, 0);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* A damaged page stops the one snapshot, not the others, and is said once. */
static unsigned errors;

static void count_errors(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	errors += level == LOG_LEVEL_ERR && strstr(text, "deleted snapshot");
}

static void test_reclaim_damage_stops_one_snapshot(void **state)
{
	struct fsfix fx;
	vpn_t vpn;

	(void)state;
	fsfix_image(&fx, 0);
	make_tree(&fx, 100);
	assert_int_equal(fs_snap_create(fx.fs, "bad", NULL, NULL), 0);
	change_tree(&fx, 100);
	assert_int_equal(fs_snap_create(fx.fs, "good", NULL, NULL), 0);
	fsfix_file(&fx, fx.root, "new");
	vpn = surgery_page(&fx, &surgery_volume(&fx, "bad")->inodes, 2);
	surgery_rot(&fx, vpn, 100);
	assert_int_equal(fs_snap_delete(fx.fs, "bad"), 0);
	assert_int_equal(fs_snap_delete(fx.fs, "good"), 0);
	errors = 0;
	log_to_function(count_errors, NULL);
	assert_int_equal(reclaim_run(fx.fs), -EBADMSG);
	assert_true(reclaim_run(fx.fs) > 0);
	assert_int_equal(reclaim_run(fx.fs), 0);
	log_to_function(NULL, NULL);
	assert_int_equal(errors, 1);
	assert_int_equal(stats(&fx).dying, 1);
	fsfix_free(&fx);
}

/* ------------------------------------------------------------------ no space */

static uint64_t fill(struct fsfix *fx, uint64_t id, uint64_t from)
{
	uint8_t page[PMFS_PAGE_SIZE];
	ssize_t rc;

	memset(page, 'f', sizeof(page));
	for (;; from++) {
		memcpy(page, &from, sizeof(from));
		rc = fs_write(fx->fs, id, from * sizeof(page), page, sizeof(page), 0);
		if (rc != (ssize_t)sizeof(page))
			break;
	}
	assert_int_equal(rc, -ENOSPC);
	return from;
}

/* On a full image a snapshot can be deleted, its pages come back, and the next write finds them by
 * itself. */
static void test_reclaim_makes_room_on_a_full_image(void **state)
{
	struct fs_setattr shorter = {0};
	uint64_t id, next, filled, again;
	struct fs_attr attr;
	struct fsfix fx;

	(void)state;
	for (int ram = 0; ram < 2; ram++) {
		if (ram)
			fsfix_ram(&fx, 8 * MIB);
		else
			fsfix_image(&fx, 8 * MIB);
		next = fsfix_file(&fx, fx.root, "next");
		id = fsfix_file(&fx, fx.root, "file");
		filled = fill(&fx, id, 0);
		assert_true(filled > 500);
		/* Making a snapshot takes a little space, so there must be some. */
		shorter.size = PAGES(filled - 20);
		assert_int_equal(fs_setattr(fx.fs, id, FS_SET_SIZE, &shorter, &attr), 0);
		assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
		assert_int_equal(fs_unlink(fx.fs, fx.root, "file", 4), 0);
		fs_forget(fx.fs, id, 1);
		assert_true(fill(&fx, next, 0) < filled / 4);
		assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
		/* No call of the reclaimer here: who runs out of space sees to it. */
		again = fill(&fx, next, 0);
		assert_in_range(again, filled - 50, filled + 50);
		fsfix_check(&fx);
		assert_int_equal(stats(&fx).dying, 0);
		fsfix_free(&fx);
	}
}

/* The same for the rest of a big file that was deleted. */
static void test_reclaim_makes_room_of_orphans(void **state)
{
	struct fsfix fx;
	uint64_t id, next, filled;

	(void)state;
	fsfix_image(&fx, 64 * MIB);
	next = fsfix_file(&fx, fx.root, "next");
	id = fsfix_file(&fx, fx.root, "file");
	filled = fill(&fx, id, 0);
	assert_true(filled > 2 * RECLAIM_STEP);
	assert_int_equal(fs_unlink(fx.fs, fx.root, "file", 4), 0);
	fs_forget(fx.fs, id, 1);
	assert_int_equal(reclaim_backlog(fx.fs), 1);
	assert_in_range(fill(&fx, next, 0), filled - 50, filled + 50);
	assert_int_equal(reclaim_backlog(fx.fs), 0);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* As before, with all reserves eaten by removals that copy shared pages. */
static void test_reclaim_has_a_reserve_of_its_own(void **state)
{
	const struct fs_setattr shorter = {.size = 400 * PMFS_PAGE_SIZE};
	struct fs_attr attr;
	struct fsfix fx;
	char name[32];
	unsigned files = 0, i;
	uint64_t id;
	int rc;

	(void)state;
	fsfix_image(&fx, 8 * MIB);
	for (; files < 1500; files++) {
		snprintf(name, sizeof(name), "file-%u", files);
		id = fsfix_file(&fx, fx.root, name);
		fs_forget(fx.fs, id, 1);
	}
	id = fsfix_file(&fx, fx.root, "file");
	fill(&fx, id, 0);
	assert_int_equal(fs_setattr(fx.fs, id, FS_SET_SIZE, &shorter, &attr), 0);
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
	fill(&fx, id, 400);
	/* Every removal makes more of the inode file and the directories the live volume's own. */
	for (i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "file-%u", i * 389 % files);
		rc = fs_unlink(fx.fs, fx.root, name, strlen(name));
		if (rc)
			break;
	}
	assert_true(i == files || rc == -ENOSPC);
	assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
	assert_true(reclaim_run(fx.fs) > 0);
	assert_int_equal(fs_unlink(fx.fs, fx.root, "file", 4), 0);
	fs_forget(fx.fs, id, 1);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

/* ------------------------------------------------------------------ the thread */

static void wait_for_thread(struct fs *fs)
{
	/* Not a wait for time: what is waited for happens, or the test hangs and is ended from
	 * outside. */
	while (reclaim_backlog(fs))
		sched_yield();
}

static void test_reclaim_thread(void **state)
{
	const struct fs_config cfg = {.store = {.limit_bytes = 64 * MIB}, .background = true};
	struct fsfix fx = {.ram = true};
	struct store_error err;
	uint64_t id;

	(void)state;
	assert_int_equal(fs_open(&fx.fs, &cfg, &err), 0);
	fx.root = fs_root(fx.fs);
	for (unsigned round = 0; round < 20; round++) {
		make_tree(&fx, 50);
		id = fsfix_file(&fx, fx.root, "big");
		write_pages(&fx, id, 0, 2 * RECLAIM_STEP, 'b');
		assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
		assert_int_equal(fs_unlink(fx.fs, fx.root, "big", 3), 0);
		fs_forget(fx.fs, id, 1);
		change_tree(&fx, 50);
		assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
		/* This goes on beside the reclaimer, in pages that the two share. */
		for (unsigned i = 0; i < 50; i++) {
			char name[32];

			snprintf(name, sizeof(name), "file-%u", i);
			if (i % 5)
				assert_int_equal(fs_unlink(fx.fs, fx.root, name, strlen(name)), 0);
		}
		wait_for_thread(fx.fs);
		assert_int_equal(stats(&fx).inodes_used, 2);
	}
	fsfix_check(&fx);
	assert_int_equal(stats(&fx).data_pages, 0);
	fsfix_free(&fx);
}

/* Stopping does not wait until all is done. */
static void test_reclaim_stops_in_the_middle(void **state)
{
	struct fs_config cfg = {.background = true};
	struct store_error err;
	struct fsfix fx;
	uint64_t id;

	(void)state;
	fsfix_image(&fx, 512 * MIB);
	id = fsfix_file(&fx, fx.root, "big");
	write_pages(&fx, id, 0, 10 * RECLAIM_STEP, 'b');
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
	assert_int_equal(fs_unlink(fx.fs, fx.root, "big", 3), 0);
	fs_forget(fx.fs, id, 1);
	assert_int_equal(fs_snap_delete(fx.fs, "s"), 0);
	fsfix_stop(&fx);
	cfg.store.path = fx.image;
	assert_int_equal(fs_open(&fx.fs, &cfg, &err), 0);
	assert_int_equal(fs_close(fx.fs), 0);
	fx.fs = NULL;
	fsfix_start(&fx);
	fsfix_check(&fx);
	assert_true(reclaim_run(fx.fs) >= 0);
	assert_int_equal(stats(&fx).data_pages + stats(&fx).dying + stats(&fx).orphans, 0);
	fsfix_check(&fx);
	fsfix_free(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reclaim_last_forget_gives_back),
		cmocka_unit_test(test_reclaim_orphans_of_the_last_mount),
		cmocka_unit_test(test_reclaim_big_orphan_in_steps),
		cmocka_unit_test(test_reclaim_orphan_in_a_snapshot),
		cmocka_unit_test(test_reclaim_leaves_what_is_no_orphan),
		cmocka_unit_test(test_reclaim_leaves_the_orphan_directory),
		cmocka_unit_test(test_reclaim_snapshot_frees_what_is_its_own),
		cmocka_unit_test(test_reclaim_snapshot_goes_on_after_a_crash),
		cmocka_unit_test(test_reclaim_shared_snapshot_is_one_step),
		cmocka_unit_test(test_reclaim_waits_for_users),
		cmocka_unit_test(test_reclaim_damage_stops_one_snapshot),
		cmocka_unit_test(test_reclaim_makes_room_on_a_full_image),
		cmocka_unit_test(test_reclaim_makes_room_of_orphans),
		cmocka_unit_test(test_reclaim_has_a_reserve_of_its_own),
		cmocka_unit_test(test_reclaim_thread),
		cmocka_unit_test(test_reclaim_stops_in_the_middle),
	};

	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
