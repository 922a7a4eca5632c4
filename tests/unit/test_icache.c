/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/thread.h"
#include "lib/fsfix.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"

static int setup(void **state)
{
	static struct fsfix fx;

	fsfix_ram(&fx, 0);
	*state = &fx;
	return 0;
}

static int teardown(void **state)
{
	fsfix_check(*state);
	fsfix_free(*state);
	return 0;
}

static void test_icache_one_inode_for_a_number(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const uint64_t before = icache_count(fx->fs->ic);
	struct inode *a, *b;

	assert_int_equal(inode_get(fx->fs, id, &a), 0);
	assert_int_equal(inode_get(fx->fs, id, &b), 0);
	assert_ptr_equal(a, b);
	assert_int_equal(icache_count(fx->fs->ic), before);
	inode_put(fx->fs, a);
	/* Forgotten while it is held: it stays until it is put. */
	inode_forget(fx->fs, id, 1);
	assert_int_equal(icache_count(fx->fs->ic), before);
	assert_int_equal(b->nlink, 1);
	inode_put(fx->fs, b);
	assert_int_equal(icache_count(fx->fs->ic), before - 1);
	/* Loaded anew. */
	assert_int_equal(inode_get(fx->fs, id, &a), 0);
	assert_int_equal(a->nlink, 1);
	inode_put(fx->fs, a);
}

static void test_icache_refuses_what_is_not_there(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t before = icache_count(fx->fs->ic);
	const uint64_t live = NODE_VOLUME(fx->root);
	struct inode *in;

	assert_int_equal(inode_get(fx->fs, NODE_ID(live, 999), &in), -ENOENT);
	assert_int_equal(inode_get(fx->fs, NODE_ID(live, 0), &in), -ENOENT);
	assert_int_equal(inode_get(fx->fs, NODE_ID(live + 1, 1), &in), -ESTALE);
	assert_int_equal(inode_get(fx->fs, NODE_ID(0xffff, 1), &in), -ESTALE);
	assert_int_equal(icache_count(fx->fs->ic), before);
	inode_forget(fx->fs, NODE_ID(live, 999), 1);
}

/* Each answer counts as one lookup; more forgotten than were given is no harm. */
static void test_icache_counts_lookups(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t before = icache_count(fx->fs->ic);
	const uint64_t id = fsfix_file(fx, fx->root, "f");

	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(fsfix_find(fx, fx->root, "f"), id);
	fs_forget(fx->fs, id, 3);
	fs_forget(fx->fs, id, 2);
	assert_int_equal(icache_count(fx->fs->ic), before + 1);
	fs_forget(fx->fs, id, 1);
	assert_int_equal(icache_count(fx->fs->ic), before);
	assert_int_equal(fsfix_find(fx, fx->root, "f"), id);
	fs_forget(fx->fs, id, 1000);
	assert_int_equal(icache_count(fx->fs->ic), before);
}

/* N3 */
static void test_icache_last_one_gives_back(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const uint64_t used = fx->fs->live->inodes_used;
	struct inode *in;

	fsfix_write(fx, id, 0, "still here", 10);
	assert_int_equal(fs_unlink(fx->fs, fx->root, "f", 1), 0);
	fsfix_expect(fx, id, 0, "still here", 10);
	assert_int_equal(fx->fs->live->inodes_used, used);
	assert_int_equal(inode_get(fx->fs, id, &in), 0);
	fs_forget(fx->fs, id, 1);
	assert_int_equal(fx->fs->live->inodes_used, used);
	inode_put(fx->fs, in);
	assert_int_equal(fx->fs->live->inodes_used, used - 1);
	assert_int_equal(inode_get(fx->fs, id, &in), -ENOENT);
}

/* N4: a deleted snapshot goes when the last of its inodes is forgotten. */
static void test_icache_inodes_use_their_volume(void **state)
{
	struct fsfix *fx = *state;
	struct fs_snapshot snap;
	struct fs_attr root;
	struct inode *in;
	struct volume *vol;

	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	assert_int_equal(fs_snap_lookup(fx->fs, "s", &root), 0);
	assert_int_equal(inode_get(fx->fs, root.id, &in), 0);
	vol = in->vol;
	assert_int_equal(atomic_load(&vol->users), 1);
	inode_put(fx->fs, in);
	assert_int_equal(atomic_load(&vol->users), 1);
	fs_forget(fx->fs, root.id, 1);
	assert_int_equal(atomic_load(&vol->users), 0);
}

static void test_icache_new_numbers_are_new(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const uint64_t count = icache_count(fx->fs->ic);
	const uint32_t users = atomic_load(&fx->fs->live->users);
	struct inode *in;

	/* A damaged list of free inodes could give out one that is in use. */
	assert_int_equal(inode_new(fx->fs, fx->fs->live, NODE_INO(id), &in), -EUCLEAN);
	assert_int_equal(inode_new(fx->fs, fx->fs->live, 5000, &in), 0);
	assert_int_equal(in->mode, 0);
	inode_put(fx->fs, in);
	assert_int_equal(icache_count(fx->fs->ic), count);
	assert_int_equal(atomic_load(&fx->fs->live->users), users);
}

static void test_icache_lock_order(void **state)
{
	struct fsfix *fx = *state;
	struct inode *a, *b;

	assert_int_equal(inode_get(fx->fs, fsfix_file(fx, fx->root, "a"), &a), 0);
	assert_int_equal(inode_get(fx->fs, fsfix_file(fx, fx->root, "b"), &b), 0);
	assert_true(inode_before(a, b) != inode_before(b, a));
	assert_false(inode_before(a, a));
	inode_lock2(a, b, true);
	rw_assert_wrheld(&a->lock);
	rw_assert_wrheld(&b->lock);
	assert_false(rw_tryrdlock(&b->lock));
	inode_unlock2(a, b);
	inode_lock2(b, a, false);
	inode_unlock2(b, a);
	inode_lock2(a, a, true);
	inode_unlock2(a, a);
	inode_lock2(a, NULL, true);
	inode_unlock2(a, NULL);
	assert_true(rw_trywrlock(&a->lock));
	rw_unlock(&a->lock);
	inode_put(fx->fs, a);
	inode_put(fx->fs, b);
}

/* ------------------------------------------------------------------ many of them */

#define MANY 3000u

static void test_icache_grows(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t before = icache_count(fx->fs->ic);
	uint64_t *id = calloc(MANY, sizeof(*id));
	struct inode *in;
	char name[16];

	assert_non_null(id);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "%u", i);
		id[i] = fsfix_file(fx, fx->root, name);
	}
	assert_int_equal(icache_count(fx->fs->ic), before + MANY);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(inode_get(fx->fs, id[i], &in), 0);
		assert_int_equal(in->ino, NODE_INO(id[i]));
		inode_put(fx->fs, in);
	}
	for (unsigned i = 0; i < MANY; i++)
		fs_forget(fx->fs, id[i], 1);
	assert_int_equal(icache_count(fx->fs->ic), before);
	free(id);
}

/* ------------------------------------------------------------------ threads */

#define THREADS 4u
#define TOUCHED 8u

struct racer {
	struct fsfix *fx;
	uint64_t id[TOUCHED];
	uint64_t seed;
	bool failed;
};

static void *race(void *arg)
{
	struct racer *r = arg;
	struct fsfix_random rnd = { r->seed };

	for (unsigned i = 0; i < 4000; i++) {
		const uint64_t id = r->id[fsfix_below(&rnd, TOUCHED)];
		struct inode *in;

		if (inode_get(r->fx->fs, id, &in)) {
			r->failed = true;
			break;
		}
		rw_rdlock(&in->lock);
		if (in->ino != NODE_INO(id) || in->nlink != 1)
			r->failed = true;
		rw_unlock(&in->lock);
		if (fsfix_below(&rnd, 2))
			inode_add_lookup(r->fx->fs, in);
		inode_put(r->fx->fs, in);
		if (fsfix_below(&rnd, 2))
			inode_forget(r->fx->fs, id, 1);
		/* Nothing of the name 4711 can be loaded, and nobody waits for ever. */
		if (inode_get(r->fx->fs, NODE_ID(NODE_VOLUME(id), 4711), &in) != -ENOENT)
			r->failed = true;
	}
	return NULL;
}

static void test_icache_loading_race(void **state)
{
	struct fsfix *fx = *state;
	struct racer r[THREADS];
	pthread_t thread[THREADS];
	uint64_t id[TOUCHED];
	uint64_t before;
	char name[16];

	before = icache_count(fx->fs->ic);
	for (unsigned i = 0; i < TOUCHED; i++) {
		snprintf(name, sizeof(name), "%u", i);
		id[i] = fsfix_file(fx, fx->root, name);
		fs_forget(fx->fs, id[i], 1);
	}
	assert_int_equal(icache_count(fx->fs->ic), before);
	for (unsigned i = 0; i < THREADS; i++) {
		r[i] = (struct racer){ .fx = fx, .seed = i };
		memcpy(r[i].id, id, sizeof(id));
		assert_int_equal(thread_start(&thread[i], "race", race, &r[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		thread_join(thread[i]);
	for (unsigned i = 0; i < THREADS; i++)
		assert_false(r[i].failed);
	for (unsigned i = 0; i < TOUCHED; i++)
		inode_forget(fx->fs, id[i], UINT64_MAX);
	assert_int_equal(icache_count(fx->fs->ic), before);
}

int main(void)
{
#define IN(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		IN(test_icache_one_inode_for_a_number),
		IN(test_icache_refuses_what_is_not_there),
		IN(test_icache_counts_lookups),
		IN(test_icache_last_one_gives_back),
		IN(test_icache_inodes_use_their_volume),
		IN(test_icache_new_numbers_are_new),
		IN(test_icache_lock_order),
		IN(test_icache_grows),
		IN(test_icache_loading_race),
	};
#undef IN

	return cmocka_run_group_tests(tests, NULL, NULL);
}
