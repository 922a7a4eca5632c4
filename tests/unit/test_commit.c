/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/store_util.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include "store/store_impl.h"

#define SLOT_BYTES ((off_t)PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE)

static int setup(void **state)
{
	image_new(64 * MIB);
	*state = image_open();
	return 0;
}

static int teardown(void **state)
{
	return *state ? store_close(*state) : 0;
}

static uint64_t flushes(struct store *st)
{
	return region_flushes(store_region(st));
}

/* n pages in one transaction. */
static void add_pages(struct store *st, unsigned int n, vpn_t *vpn)
{
	struct txn tx;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, n), 0);
	for (unsigned int i = 0; i < n; i++)
		assert_int_equal(page_new(&tx, page_of(i), &vpn[i]), 0);
	txn_end(&tx);
}

static void flip(off_t at)
{
	const int fd = open(util_image, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static pfn_t pfn_of(struct store *st, vpn_t vpn)
{
	struct page_info info;

	assert_int_equal(page_info(st, vpn, &info), 0);
	return info.pfn;
}

/* Nothing was changed: no flush, no new generation. */
static void test_commit_of_nothing(void **state)
{
	struct store *st = *state;
	const uint64_t before = flushes(st), generation = store_generation(st);

	assert_int_equal(commit_now(st), 0);
	assert_int_equal(commit_wait(st, generation), 0);
	assert_int_equal(store_generation(st), generation);
	assert_int_equal(flushes(st), before);
}

static void test_commit_small_is_one_flush(void **state)
{
	struct store *st = *state;
	struct store_stats stats;
	uint64_t before, generation;
	vpn_t vpn;

	before = flushes(st);
	vpn = add_page(st, 1);
	generation = store_generation(st);
	assert_int_equal(commit_wait(st, generation), 0);
	assert_int_equal(flushes(st), before + 1);
	assert_int_equal(store_durable(st), generation);
	/* Once more for the same generation: it is durable already. */
	assert_int_equal(commit_wait(st, generation), 0);
	assert_int_equal(flushes(st), before + 1);
	/* Counts alone are a change, too; so is the end of a page. */
	drop_page(st, vpn);
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(flushes(st), before + 2);
	store_stat(st, &stats);
	assert_int_equal(stats.commits, 2);
	assert_int_equal(stats.commits_small, 2);
	assert_int_equal(stats.dirty_pages, 0);
}

static void test_commit_big_is_two(void **state)
{
	static vpn_t vpn[6000];
	struct store *st = *state;
	struct store_stats stats;
	uint64_t before;

	static_assert(6000 > PMFS_DELTA_MAX, "more than the slot has room for");
	add_pages(st, 6000, vpn);
	store_stat(st, &stats);
	assert_int_equal(stats.dirty_pages, 6000);
	before = flushes(st);
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(flushes(st), before + 2);
	store_stat(st, &stats);
	assert_int_equal(stats.commits_small, 0);
	assert_int_equal(stats.map_nodes, 1 + (6000 + 1 + 255) / 256);
	/* Everything is in the tree: the next one is small again. */
	put_page(st, vpn[17], 1);
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(flushes(st), before + 3);
	check_clean(st);
	assert_int_equal(store_close(st), 0);
	*state = st = image_open();
	assert_page(st, vpn[17], 1);
	assert_page(st, vpn[5999], 5999);
	check_clean(st);
}

/* Entries pile up in the slot until they do not fit any more, one small commit after the other. */
static void test_commit_entries_pile_up(void **state)
{
	static vpn_t vpn[400];
	struct store *st = *state;
	struct store_stats stats;

	for (unsigned int round = 0; round < 20; round++) {
		add_pages(st, 400, vpn);
		assert_int_equal(commit_now(st), 0);
	}
	store_stat(st, &stats);
	assert_int_equal(stats.commits, 20);
	assert_int_equal(stats.commits_small, 19);
	/* The timer does not wait that long. */
	add_pages(st, 400, vpn);
	assert_int_equal(commit_lead(st, COMMIT_TIMER), 0);
	store_stat(st, &stats);
	assert_int_equal(stats.commits_small, 19);
	check_clean(st);
}

/* S1 and U2: of two generations the newer one, unless its slot or one of its pages is not whole. */
static void test_commit_incomplete_falls_back(void **state)
{
	struct store *st = *state;
	const vpn_t vpn = add_page(st, 1);
	uint64_t generation;
	pfn_t pfn;

	util_quiet();
	assert_int_equal(commit_now(st), 0);
	put_page(st, vpn, 2);
	assert_int_equal(commit_now(st), 0);
	generation = store_durable(st);
	pfn = pfn_of(st, vpn);
	assert_int_equal(store_close(st), 0);

	/* A page did not arrive. */
	flip((off_t)(pfn * PMFS_PAGE_SIZE) + 100);
	st = image_open();
	assert_int_equal(store_durable(st), generation - 1);
	assert_page(st, vpn, 1);
	check_clean(st);
	store_abandon(st);
	flip((off_t)(pfn * PMFS_PAGE_SIZE) + 100);

	/* A part of the slot did not: header, entry. */
	for (int i = 0; i < 2; i++) {
		const off_t at = (off_t)(generation & 1) * SLOT_BYTES + (i ? 270 : 24);

		flip(at);
		st = image_open();
		assert_int_equal(store_durable(st), generation - 1);
		assert_page(st, vpn, 1);
		store_abandon(st);
		flip(at);
	}
	*state = st = image_open();
	assert_int_equal(store_durable(st), generation);
	assert_page(st, vpn, 2);
}

/* The generation that did not count is written anew in its own slot. */
static void test_commit_goes_on_after_a_fallback(void **state)
{
	struct store *st = *state;
	const vpn_t vpn = add_page(st, 1);
	uint64_t generation;

	assert_int_equal(commit_now(st), 0);
	put_page(st, vpn, 2);
	assert_int_equal(commit_now(st), 0);
	generation = store_durable(st);
	assert_int_equal(store_close(st), 0);
	flip((off_t)(generation & 1) * SLOT_BYTES + 30);
	st = image_open();
	put_page(st, vpn, 3);
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(store_durable(st), generation);
	assert_int_equal(store_close(st), 0);
	*state = st = image_open();
	assert_page(st, vpn, 3);
	check_clean(st);
}

static void test_commit_nothing_left(void **state)
{
	const struct store_config cfg = {.path = util_image};
	struct store *st = *state;
	struct store_error err;

	add_page(st, 1);
	assert_int_equal(store_close(st), 0);
	*state = NULL;
	flip(30);
	flip(SLOT_BYTES + 30);
	assert_int_equal(store_open(&st, &cfg, &err), -EBADMSG);
	assert_true(strlen(err.text) > 0);
}

struct hook_arg {
	struct store *st;
	vpn_t vpn;
	uint64_t generation;
	int rc;
};

static int at_close(struct txn *tx, void *arg)
{
	struct hook_arg *ha = arg;

	ha->generation = store_generation(tx->st);
	if (ha->rc)
		return ha->rc;
	return page_new(tx, page_of(5), &ha->vpn);
}

/* The change of the hook is the last one of the generation that closes. */
static void test_commit_with_a_hook(void **state)
{
	struct store *st = *state;
	struct hook_arg ha = {.st = st};
	const vpn_t vpn = add_page(st, 1);
	struct store_stats stats;

	assert_int_equal(commit_with(st, FRAME_NORMAL, 10, at_close, &ha), 0);
	assert_int_equal(ha.generation, store_durable(st));
	store_stat(st, &stats);
	assert_int_equal(stats.frames.promised, 0);
	/* Refused: the others' changes are committed all the same. */
	put_page(st, vpn, 2);
	ha.rc = -EEXIST;
	assert_int_equal(commit_with(st, FRAME_NORMAL, 10, at_close, &ha), -EEXIST);
	assert_int_equal(ha.generation, store_durable(st));
	store_stat(st, &stats);
	assert_int_equal(stats.frames.promised, 0);
	assert_int_equal(commit_with(st, FRAME_NORMAL, 1u << 20, at_close, &ha), -ENOSPC);
	store_abandon(st);
	*state = st = image_open();
	assert_page(st, vpn, 2);
	assert_page(st, ha.vpn, 5);
	check_clean(st);
}

struct syncer {
	struct store *st;
	unsigned int n;
	vpn_t vpn;
	uint64_t durable; /* the last value of its page that commit_wait() has answered for */
	pthread_t id;
};

static void *sync_thread(void *arg)
{
	struct syncer *s = arg;

	for (uint64_t i = 1; i <= 40; i++) {
		struct txn tx;

		if (txn_begin(s->st, &tx, FRAME_NORMAL, 1))
			return NULL;
		(void)page_write(&tx, s->vpn, 0, &i, sizeof(i));
		if (commit_wait(s->st, txn_end(&tx)))
			return NULL;
		s->durable = i;
	}
	return NULL;
}

/* Many who wait at once are all served, with no more commits than calls. */
static void test_commit_shared_by_waiters(void **state)
{
	struct store *st = *state;
	struct syncer s[6];
	struct store_stats stats;

	for (unsigned int i = 0; i < 6; i++)
		s[i] = (struct syncer){.st = st, .n = i, .vpn = add_page(st, 0)};
	for (unsigned int i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&s[i].id, NULL, sync_thread, &s[i]), 0);
	for (unsigned int i = 0; i < 6; i++)
		pthread_join(s[i].id, NULL);
	store_stat(st, &stats);
	assert_in_range(stats.commits, 40, 6 * 40);
	store_abandon(st);
	*state = st = image_open();
	for (unsigned int i = 0; i < 6; i++) {
		uint64_t value;

		assert_int_equal(s[i].durable, 40);
		assert_int_equal(page_read(st, s[i].vpn, 0, &value, sizeof(value)), 0);
		assert_int_equal(value, 40);
	}
	check_clean(st);
}

/* Three rounds of work, each with a small or a big commit.  The rounds that were acknowledged. */
static unsigned int rounds(struct store *st, const vpn_t *vpn, unsigned int n, enum commit_why why)
{
	for (unsigned int round = 1; round <= 3; round++) {
		for (unsigned int i = 0; i < n; i++) {
			struct txn tx;

			if (txn_begin(st, &tx, FRAME_NORMAL, 1))
				return round - 1;
			(void)page_write(&tx, vpn[i], 0, page_of(round * 10000 + i),
					 PMFS_PAGE_SIZE);
			txn_end(&tx);
		}
		if (commit_lead(st, why))
			return round - 1;
	}
	return 3;
}

static void assert_round(struct store *st, const vpn_t *vpn, unsigned int n, unsigned int round)
{
	for (unsigned int i = 0; i < n; i++)
		assert_page(st, vpn[i], round * 10000 + i);
}

/* Let the Nth call of something fail, for every N: what is left is the state before or after. */
static void fail_each(void **state, const char *what, unsigned int n, enum commit_why why,
		      unsigned int stride)
{
	static vpn_t vpn[2000];
	struct store *st = *state;
	unsigned int failures = 0;

	if (fault_arm(what, 1, EIO) == -EOPNOTSUPP)
		skip();
	fault_reset();
	util_quiet();
	add_pages(st, n, vpn);
	assert_int_equal(rounds(st, vpn, n, why), 3);
	for (unsigned int nth = 1;; nth += stride) {
		unsigned int done;
		uint64_t value;
		bool failed;

		fault_reset();
		assert_int_equal(fault_arm(what, nth, EIO), 0);
		done = rounds(st, vpn, n, why);
		failed = fault_count(what) >= nth;
		fault_reset();
		if (!failed) {
			assert_int_equal(done, 3);
			break;
		}
		failures++;
		assert_int_not_equal(done, 3);
		assert_int_equal(store_error(st), -EIO);
		assert_int_equal(commit_now(st), -EIO);
		assert_int_equal(txn_begin(st, &(struct txn){0}, FRAME_NORMAL, 1), -EIO);
		/* Reading goes on. */
		assert_int_equal(page_read(st, vpn[0], 0, &value, sizeof(value)), 0);
		assert_int_equal(store_close(st), -EIO);
		*state = st = image_open();
		check_clean(st);
		assert_int_equal(page_read(st, vpn[0], 0, &value, sizeof(value)), 0);
		/*
		 * The round that was acknowledged (before the first: the last one of the time
		 * before), or the one that failed.
		 */
		if (value / 10000 != done + 1)
			assert_int_equal(value / 10000, done ? done : 3);
		assert_round(st, vpn, n, (unsigned int)(value / 10000));
		/* The state for the next time: after round 3. */
		assert_int_equal(rounds(st, vpn, n, why), 3);
	}
	assert_in_range(failures, 3, 100000);
}

static void test_commit_each_flush_fails(void **state)
{
	fail_each(state, "region.flush", 20, COMMIT_ASKED, 1);
}

static void test_commit_each_write_fails(void **state)
{
	fail_each(state, "region.write", 8, COMMIT_ASKED, 1);
}

static void test_commit_each_flush_of_a_big_one_fails(void **state)
{
	fail_each(state, "region.flush", 1200, COMMIT_TIMER, 1);
}

static void test_commit_writes_of_a_big_one_fail(void **state)
{
	fail_each(state, "region.write", 1200, COMMIT_TIMER, 601);
}

/*
 * A host that has no more space refuses new data; nothing is poisoned, and what is there can be
 * committed.
 */
static void test_commit_when_the_host_is_full(void **state)
{
	struct store *st = *state;
	unsigned int n = 0;
	struct txn tx;
	vpn_t vpn[2];
	int rc;

	if (fault_arm_forever("region.grow", 1, ENOSPC) == -EOPNOTSUPP)
		skip();
	while ((rc = txn_begin(st, &tx, FRAME_NORMAL, 1)) == 0) {
		assert_int_equal(page_new(&tx, page_of(n), &vpn[n > 0]), 0);
		txn_end(&tx);
		n++;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_in_range(n, 2, 16384);
	assert_int_equal(commit_lead(st, COMMIT_TIMER), 0);
	assert_int_equal(store_error(st), 0);
	drop_page(st, vpn[0]);
	assert_int_equal(commit_now(st), 0);
	fault_reset();
	add_page(st, 1);
	check_clean(st);
	assert_int_equal(store_close(st), 0);
	*state = st = image_open();
	assert_page(st, vpn[1], n - 1);
	check_clean(st);
}

/*
 * F4: with every frame taken that new data may take, all of the page map can still be written anew,
 * again and again.
 */
static void test_commit_of_a_full_image(void **state)
{
	static vpn_t vpn[16384];
	struct store *st = *state;
	unsigned int n = 0;
	struct txn tx;

	while (txn_begin(st, &tx, FRAME_NORMAL, 1) == 0) {
		assert_int_equal(page_new(&tx, page_of(n), &vpn[n]), 0);
		txn_end(&tx);
		n++;
	}
	for (unsigned int round = 0; round < 4; round++) {
		assert_int_equal(txn_begin(st, &tx, FRAME_FREEING, 0), 0);
		for (unsigned int i = 0; i < n; i++)
			assert_int_equal(page_ref(&tx, vpn[i]), 0);
		txn_end(&tx);
		assert_int_equal(commit_now(st), 0);
	}
	check_clean(st);
	assert_int_equal(store_close(st), 0);
	*state = st = image_open();
	/* Before the scan, too, when nothing old can be reused. */
	for (unsigned int round = 0; round < 3; round++) {
		assert_int_equal(txn_begin(st, &tx, FRAME_RECLAIM, 0), 0);
		for (unsigned int i = 0; i < n; i++)
			assert_int_equal(page_unref(&tx, vpn[i], NULL), 0);
		txn_end(&tx);
		assert_int_equal(commit_now(st), 0);
	}
	check_clean(st);
}

/* In memory: the same rules, no writing. */
static void test_commit_in_memory(void **state)
{
	struct store *st = ram_open(16 * MIB);
	const vpn_t vpn = add_page(st, 1);
	struct page_info info;
	uint64_t hash;

	(void)state;
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(page_info(st, vpn, &info), 0);
	assert_false(info.dirty);
	assert_int_equal(region_hash(store_region(st), info.pfn, &hash), 0);
	assert_int_equal(info.hash, hash);
	put_page(st, vpn, 2);
	assert_int_equal(page_info(st, vpn, &info), 0);
	assert_true(info.dirty);
	assert_int_equal(commit_now(st), 0);
	check_clean(st);
	assert_int_equal(store_close(st), 0);
}

/* A snapshot of memory returns when its generation is closed; the keeper does the rest. */
static void test_commit_in_memory_leaves_the_rest_to_the_keeper(void **state)
{
	const struct store_config cfg = {.limit_bytes = 16 * MIB, .background = true};
	struct hook_arg ha = {0};
	struct store *st;

	(void)state;
	assert_int_equal(store_open(&st, &cfg, NULL), 0);
	for (unsigned int i = 0; i < 50; i++) {
		struct page_info info;
		vpn_t vpn = add_page(st, i);

		assert_int_equal(commit_with(st, FRAME_NORMAL, 1, at_close, &ha), 0);
		assert_int_equal(store_durable(st), ha.generation);
		if (i % 3 == 0) {
			/* Comes after the keeper's part. */
			assert_int_equal(commit_lead(st, COMMIT_ASKED), 0);
			assert_int_equal(page_info(st, vpn, &info), 0);
			assert_false(info.dirty);
		}
		put_page(st, vpn, 9);
	}
	assert_int_equal(commit_with(st, FRAME_NORMAL, 1, at_close, &ha), 0);
	assert_int_equal(store_close(st), 0);
}

/* There is nothing to make durable in memory; a commit is made when it gives back much. */
static void test_commit_in_memory_is_not_for_fsync(void **state)
{
	const struct store_config cfg = {.limit_bytes = 64 * MIB, .background = true};
	const unsigned int many = 4096;
	const struct timespec pause = {.tv_nsec = 1000 * 1000};
	vpn_t *vpn = calloc(many, sizeof(*vpn));
	uint64_t generation;
	struct store *st;

	(void)state;
	assert_non_null(vpn);
	assert_int_equal(store_open(&st, &cfg, NULL), 0);
	generation = store_generation(st);
	for (unsigned int i = 0; i < 10; i++) {
		add_page(st, i);
		assert_int_equal(commit_fsync(st), 0);
	}
	add_pages(st, many, vpn);
	assert_int_equal(store_generation(st), generation);
	assert_int_equal(commit_fsync(st), 0);
	for (unsigned int ms = 0; store_generation(st) == generation && ms < 60000; ms++)
		nanosleep(&pause, NULL);
	assert_int_not_equal(store_generation(st), generation);
	region_poison(store_region(st), -EIO);
	assert_int_equal(commit_fsync(st), -EIO);
	store_abandon(st);
	free(vpn);
}

/* The host writes a stream while it comes; nothing else is begun before its flush. */
static void test_commit_streams_are_written_early(void **state)
{
	const struct store_config cfg = {.path = util_image, .background = true};
	const struct timespec pause = {.tv_nsec = 1000 * 1000};
	const unsigned int many = 2048, part = 256;
	uint8_t *contents = malloc((size_t)part * PMFS_PAGE_SIZE);
	vpn_t *vpn = calloc(many, sizeof(*vpn));
	struct store *st = *state;
	uint64_t before, made;

	assert_non_null(contents);
	assert_non_null(vpn);
	assert_int_equal(store_close(st), 0);
	*state = NULL;
	assert_int_equal(store_open(&st, &cfg, NULL), 0);
	*state = st;
	before = flushes(st);
	add_pages(st, many, vpn);
	memset(contents, 7, (size_t)part * PMFS_PAGE_SIZE);
	for (unsigned int at = 0; at < many; at += part) {
		struct txn tx;

		assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, part), 0);
		assert_int_equal(page_new_run(&tx, contents, part, vpn + at, &made), 0);
		assert_int_equal(made, part);
		txn_end(&tx);
	}
	/* 4 MiB at a time, and some of them may wait for more to come. */
	for (unsigned int ms = 0; writeout_frames(st->wo) < many / 2 && ms < 60000; ms++)
		nanosleep(&pause, NULL);
	assert_in_range(writeout_frames(st->wo), many / 2, many);
	assert_int_equal(flushes(st), before);
	check_clean(st);
	free(vpn);
	free(contents);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_commit_of_nothing),
		TEST(test_commit_small_is_one_flush),
		TEST(test_commit_big_is_two),
		TEST(test_commit_entries_pile_up),
		TEST(test_commit_incomplete_falls_back),
		TEST(test_commit_goes_on_after_a_fallback),
		TEST(test_commit_nothing_left),
		TEST(test_commit_with_a_hook),
		TEST(test_commit_shared_by_waiters),
		TEST(test_commit_each_flush_fails),
		TEST(test_commit_each_write_fails),
		TEST(test_commit_each_flush_of_a_big_one_fails),
		TEST(test_commit_writes_of_a_big_one_fail),
		TEST(test_commit_when_the_host_is_full),
		TEST(test_commit_of_a_full_image),
		TEST(test_commit_streams_are_written_early),
		cmocka_unit_test(test_commit_in_memory),
		cmocka_unit_test(test_commit_in_memory_leaves_the_rest_to_the_keeper),
		cmocka_unit_test(test_commit_in_memory_is_not_for_fsync),
	};

	return cmocka_run_group_tests(tests, util_setup, util_teardown);
}
