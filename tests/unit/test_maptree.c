/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tree of the page map against an array of leaves: random changes, every height, and nodes that
 * are not what their checksums say.  PMFS_SEED.
 */
#include "lib/store_util.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bits.h"
#include "base/hash.h"
#include "store/maptree.h"
#include "store/super.h"

#define LEAVES 64u /* different leaves that the model knows */

struct fix {
	struct region *rg;
	struct frames *fr;
	struct mutex lock;
	struct maptree tree;
	uint64_t seed;
	uint64_t index[LEAVES];
	struct pmfs_map_entry entry[LEAVES][PMFS_MAP_FANOUT];
	uint64_t nodes;
};

static int setup(void **state)
{
	struct fix *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(region_open_memfd(&f->rg, 4096), 0);
	assert_int_equal(frames_new(&f->fr, f->rg, PMFS_FIRST_FRAME), 0);
	mutex_init(&f->lock, LOCK_MAP);
	maptree_init(&f->tree, f->rg, &f->lock);
	f->seed = util_env("PMFS_SEED", 1);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	maptree_destroy(&f->tree);
	mutex_destroy(&f->lock);
	frames_free(f->fr);
	region_close(f->rg);
	free(f);
	return 0;
}

static void replaced(void *arg, uint32_t level, uint64_t index, pfn_t old, pfn_t now)
{
	struct fix *f = arg;

	(void)level;
	(void)index;
	f->nodes += now != PFN_NONE;
	f->nodes -= old != PFN_NONE;
	if (old != PFN_NONE)
		frames_drop_commit(f->fr, old, true);
}

static void change(struct fix *f, struct pmfs_delta *deltas, uint64_t n)
{
	struct maptree_update up;

	/* The reserve is for the tree that there will be. */
	frames_set_map_nodes(f->fr, LEAVES * 6);
	assert_int_equal(frames_reserve(f->fr, FRAME_NORMAL, 0), 0);
	frames_close_generation(f->fr);
	assert_int_equal(maptree_build(&f->tree, f->fr, deltas, n, SUPER_MAX_VPN, &up), 0);
	mutex_lock(&f->lock);
	maptree_apply(&f->tree, &up, replaced, f);
	mutex_unlock(&f->lock);
	maptree_update_free(&up);
	frames_release(f->fr);
}

/* A fresh tree from the same root: what is on disk, not what is in memory. */
static void forget(struct fix *f)
{
	struct maptree now = f->tree;

	maptree_destroy(&f->tree);
	maptree_init(&f->tree, f->rg, &f->lock);
	f->tree.root = now.root;
	f->tree.checksum = now.checksum;
	f->tree.height = now.height;
	f->tree.vpn_limit = now.vpn_limit;
}

static int count_node(void *arg, uint32_t level, uint64_t index, pfn_t pfn, int error)
{
	uint64_t *n = arg;

	(void)level;
	(void)index;
	(void)pfn;
	assert_int_equal(error, 0);
	(*n)++;
	return 0;
}

static void compare(struct fix *f)
{
	struct pmfs_map_entry got[PMFS_MAP_FANOUT];
	struct frame_stats stats;
	uint64_t n = 0;

	mutex_lock(&f->lock);
	for (unsigned int i = 0; i < LEAVES; i++) {
		const bool empty = mem_is_zero(f->entry[i], PMFS_PAGE_SIZE);

		assert_int_equal(maptree_read_leaf(&f->tree, f->index[i], got), !empty);
		assert_memory_equal(got, f->entry[i], PMFS_PAGE_SIZE);
	}
	assert_int_equal(maptree_read_leaf(&f->tree, 77777, got), 0);
	assert_int_equal(maptree_walk(&f->tree, count_node, &n), 0);
	mutex_unlock(&f->lock);
	assert_int_equal(n, f->nodes);
	frames_stat(f->fr, &stats);
	assert_int_equal(stats.used, PMFS_FIRST_FRAME + n);
	assert_int_equal(stats.pending, 0);
}

static int vpn_order(const void *a, const void *b)
{
	const uint64_t x = le64_get(((const struct pmfs_delta *)a)->vpn);
	const uint64_t y = le64_get(((const struct pmfs_delta *)b)->vpn);

	return (x > y) - (x < y);
}

/* Some entries of some leaves; with clear, all of them go. */
static void random_change(struct fix *f, unsigned int leaves, bool clear)
{
	struct pmfs_delta deltas[LEAVES * 4];
	uint64_t n = 0;

	for (unsigned int k = 0; k < leaves; k++) {
		const unsigned int i = (unsigned int)(rnd(&f->seed) % LEAVES);
		const unsigned int first = 1 + (unsigned int)(rnd(&f->seed) % 4) * 60;
		bool seen = false;

		for (uint64_t d = 0; d < n; d++)
			seen = seen || le64_get(deltas[d].vpn) >> PMFS_MAP_SHIFT == f->index[i];
		for (unsigned int e = first; !seen && e < first + 3; e++) {
			struct pmfs_map_entry *entry = &f->entry[i][e];

			memset(entry, 0, sizeof(*entry));
			if (!clear && rnd(&f->seed) % 4) {
				/*
				 * A hole with a count: no frames are needed for the pages
				 * themselves.
				 */
				le64_put(&entry->where, (1 + rnd(&f->seed) % 1000)
								<< PMFS_MAP_PFN_BITS);
			}
			le64_put(&deltas[n].vpn, (f->index[i] << PMFS_MAP_SHIFT) + e);
			deltas[n++].entry = *entry;
		}
	}
	qsort(deltas, n, sizeof(deltas[0]), vpn_order);
	change(f, deltas, n);
}

static void run(struct fix *f, const uint64_t *index, unsigned int rounds)
{
	print_message("PMFS_SEED=%" PRIu64 "\n", f->seed);
	memcpy(f->index, index, sizeof(f->index));
	for (unsigned int round = 0; round < rounds; round++) {
		random_change(f, 1 + (unsigned int)(rnd(&f->seed) % 8), false);
		if (round % 3 == 0)
			forget(f);
		if (round % 5 == 0)
			compare(f);
		/* Nearly nothing left, now and then. */
		for (unsigned int k = 0; round % 50 == 49 && k < 40; k++)
			random_change(f, LEAVES / 2, true);
	}
	compare(f);
	/* And nothing at all. */
	while (f->tree.root != PFN_NONE)
		random_change(f, LEAVES, true);
	compare(f);
	assert_int_equal(f->tree.height, 0);
	assert_int_equal(f->nodes, 0);
}

static void test_maptree_dense(void **state)
{
	uint64_t index[LEAVES];

	for (unsigned int i = 0; i < LEAVES; i++)
		index[i] = i;
	run(*state, index, 300);
}

/* Leaves at the edges of nodes of every level. */
static void test_maptree_sparse(void **state)
{
	uint64_t index[LEAVES];

	for (unsigned int i = 0; i < LEAVES; i++)
		index[i] = (UINT64_C(1) << (8 * (i / 16 + 1))) - (i < 48 ? 8 : 16) + i % 16;
	run(*state, index, 300);
}

/* The old tree is below the new top, unchanged, whatever part of it the change touches. */
static void test_maptree_grows_by_levels(void **state)
{
	struct fix *f = *state;
	struct pmfs_delta delta;

	for (unsigned int i = 0; i < LEAVES; i++)
		f->index[i] = i < 5 ? (UINT64_C(1) << (8 * i)) >> (i == 4) : 1000 + i;
	for (unsigned int i = 0; i < 5; i++) {
		le64_put(&f->entry[i][9].where, UINT64_C(1) << PMFS_MAP_PFN_BITS);
		le64_put(&delta.vpn, (f->index[i] << PMFS_MAP_SHIFT) + 9);
		delta.entry = f->entry[i][9];
		change(f, &delta, 1);
		compare(f);
		forget(f);
		compare(f);
	}
	assert_int_equal(f->tree.height, 5);
}

/* Several at once: the new nodes on the way to the old tree are nobody's change. */
static void test_maptree_grows_by_several_levels(void **state)
{
	static const uint64_t grown[] = { 1, 3 << 16, UINT32_MAX };
	struct fix *f = *state;
	struct pmfs_delta delta;

	for (unsigned int i = 0; i < LEAVES; i++)
		f->index[i] = i < ARRAY_SIZE(grown) ? grown[i] : 1000 + i;
	for (unsigned int i = 0; i < ARRAY_SIZE(grown); i++) {
		le64_put(&f->entry[i][9].where, UINT64_C(1) << PMFS_MAP_PFN_BITS);
		le64_put(&delta.vpn, (f->index[i] << PMFS_MAP_SHIFT) + 9);
		delta.entry = f->entry[i][9];
		change(f, &delta, 1);
		compare(f);
		forget(f);
		compare(f);
	}
	assert_int_equal(f->tree.height, 5);
}

static void one_leaf(struct fix *f, uint64_t where, uint64_t hash)
{
	struct pmfs_delta delta;

	le64_put(&delta.vpn, 300);
	le64_put(&delta.entry.where, where);
	le64_put(&delta.entry.hash, hash);
	change(f, &delta, 1);
	forget(f);
}

static int read_leaf(struct fix *f)
{
	struct pmfs_map_entry got[PMFS_MAP_FANOUT];
	int rc;

	mutex_lock(&f->lock);
	rc = maptree_read_leaf(&f->tree, 1, got);
	mutex_unlock(&f->lock);
	return rc;
}

/* M2: a node with the right checksum can still be wrong. */
static void test_maptree_checks_entries(void **state)
{
	const uint64_t one = UINT64_C(1) << PMFS_MAP_PFN_BITS;
	struct fix *f = *state;

	one_leaf(f, one, 0);
	assert_int_equal(read_leaf(f), 1);
	f->tree.vpn_limit = 300;
	assert_int_equal(read_leaf(f), -EUCLEAN);
	f->tree.vpn_limit = 301;
	assert_int_equal(read_leaf(f), 1);
}

static void test_maptree_checks_frames(void **state)
{
	const uint64_t one = UINT64_C(1) << PMFS_MAP_PFN_BITS;
	struct fix *f = *state;

	one_leaf(f, one | (PMFS_FIRST_FRAME - 1), 5);
	assert_int_equal(read_leaf(f), -EUCLEAN);
}

static void test_maptree_checks_frames_above(void **state)
{
	const uint64_t one = UINT64_C(1) << PMFS_MAP_PFN_BITS;
	struct fix *f = *state;

	one_leaf(f, one | PMFS_MAP_PFN_MASK, 5);
	assert_int_equal(read_leaf(f), -EUCLEAN);
}

static void test_maptree_checks_holes(void **state)
{
	struct fix *f = *state;

	one_leaf(f, UINT64_C(1) << PMFS_MAP_PFN_BITS, 5);
	assert_int_equal(read_leaf(f), -EUCLEAN);
}

static void test_maptree_checks_free_pages(void **state)
{
	struct fix *f = *state;

	one_leaf(f, PMFS_FIRST_FRAME, 0);
	assert_int_equal(read_leaf(f), -EUCLEAN);
}

static int note_error(void *arg, uint32_t level, uint64_t index, pfn_t pfn, int error)
{
	(void)index;
	(void)pfn;
	if (error)
		((int *)arg)[level] = error;
	return 0;
}

/* Every level is checked against the one above it. */
static void test_maptree_damage_is_seen(void **state)
{
	struct fix *f = *state;

	util_quiet();
	one_leaf(f, UINT64_C(1) << PMFS_MAP_PFN_BITS, 0);
	assert_int_equal(f->tree.height, 2);
	for (uint32_t level = 0; level < 2; level++) {
		int errors[2] = {0, 0};
		uint8_t was, other;
		pfn_t pfn;

		mutex_lock(&f->lock);
		assert_int_equal(maptree_node(&f->tree, level, level ? 0 : 1, &pfn), 0);
		mutex_unlock(&f->lock);
		assert_int_equal(region_copy_out(f->rg, pfn, 4000, &was, 1), 0);
		other = was ^ 4;
		assert_int_equal(region_write(f->rg, pfn, 4000, &other, 1), 0);
		forget(f);
		assert_int_equal(read_leaf(f), -EBADMSG);
		mutex_lock(&f->lock);
		assert_int_equal(maptree_walk(&f->tree, note_error, errors), 0);
		mutex_unlock(&f->lock);
		assert_int_equal(errors[level], -EBADMSG);
		assert_int_equal(errors[!level], 0);
		assert_int_equal(region_write(f->rg, pfn, 4000, &was, 1), 0);
		assert_int_equal(read_leaf(f), 1);
	}
}

static void test_maptree_bound(void **state)
{
	(void)state;
	assert_int_equal(maptree_bound(0), 0);
	assert_int_equal(maptree_bound(1), 1);
	assert_int_equal(maptree_bound(256), 1);
	assert_int_equal(maptree_bound(257), 2 + 1);
	assert_int_equal(maptree_bound(65536), 256 + 1);
	assert_int_equal(maptree_bound(65537), 257 + 2 + 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_maptree_dense),
		TEST(test_maptree_sparse),
		TEST(test_maptree_grows_by_levels),
		TEST(test_maptree_grows_by_several_levels),
		TEST(test_maptree_checks_entries),
		TEST(test_maptree_checks_frames),
		TEST(test_maptree_checks_frames_above),
		TEST(test_maptree_checks_holes),
		TEST(test_maptree_checks_free_pages),
		TEST(test_maptree_damage_is_seen),
		cmocka_unit_test(test_maptree_bound),
	};

	return cmocka_run_group_tests(tests, util_setup, util_teardown);
}
