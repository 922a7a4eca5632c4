/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/store_util.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "store/store_impl.h"

static int setup(void **state)
{
	*state = ram_open(4 * MIB);
	return 0;
}

static int teardown(void **state)
{
	return *state ? store_close(*state) : 0;
}

static struct frame_stats frames_of(struct store *st)
{
	struct store_stats stats;

	store_stat(st, &stats);
	return stats.frames;
}

/* Pages until there is no room, at most max of them; how many. */
static unsigned int fill_up(struct store *st, vpn_t *vpn, unsigned int max)
{
	unsigned int n = 0;

	while (n < max) {
		struct txn tx;
		int rc = txn_begin(st, &tx, FRAME_NORMAL, 1);

		if (rc) {
			assert_int_equal(rc, -ENOSPC);
			break;
		}
		assert_int_equal(page_new(&tx, page_of(n + 1), &vpn[n]), 0);
		n++;
		txn_end(&tx);
	}
	assert_in_range(n, 1, max - 1);
	return n;
}

static void test_txn_gives_back_what_it_did_not_take(void **state)
{
	struct store *st = *state;
	struct txn tx;
	vpn_t vpn;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 100), 0);
	assert_int_equal(frames_of(st).promised, 100);
	assert_int_equal(page_new(&tx, page_of(1), &vpn), 0);
	assert_int_equal(tx.promised, 99);
	assert_int_equal(tx.taken, 1);
	assert_int_equal(frames_of(st).promised, 99);
	txn_end(&tx);
	assert_int_equal(frames_of(st).promised, 0);
}

static void test_txn_refuses_what_can_not_be(void **state)
{
	struct store *st = *state;
	struct txn tx;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 1024), -ENOSPC);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, UINT64_MAX / 2), -ENOSPC);
	assert_int_equal(frames_of(st).promised, 0);
	/* It was a refusal and nothing worse. */
	add_page(st, 1);
	region_poison(store_region(st), -EIO);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 0), -EIO);
}

/*
 * Frames that were given up in this very generation are there again when it is over: a transaction
 * sees to that.
 */
static void test_txn_commits_to_get_space(void **state)
{
	struct store *st = *state;
	vpn_t vpn[1024];
	const unsigned int n = fill_up(st, vpn, 1024);
	uint64_t durable = store_durable(st);
	struct txn tx;

	for (unsigned int i = 0; i < n / 2; i++)
		drop_page(st, vpn[i]);
	assert_int_equal(store_durable(st), durable);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, n / 2 - 16), 0);
	assert_true(store_durable(st) > durable);
	txn_end(&tx);
	for (unsigned int i = n / 2; i < n; i++)
		assert_page(st, vpn[i], i + 1);
	check_clean(st);
}

/* When nothing goes for new data, removing still does, and gives all of it back. */
static void test_txn_removes_when_full(void **state)
{
	struct store *st = *state;
	vpn_t vpn[1024];
	const unsigned int n = fill_up(st, vpn, 1024);
	struct txn tx;

	assert_int_equal(txn_begin(st, &tx, FRAME_FREEING, 4), 0);
	for (unsigned int i = 0; i < n; i++)
		assert_int_equal(page_unref(&tx, vpn[i], NULL), 0);
	txn_end(&tx);
	assert_in_range(fill_up(st, vpn, 1024), n - 2, n + 2);
	check_clean(st);
}

struct relief {
	struct store *st;
	vpn_t *vpn;
	unsigned int n, calls;
};

static void relief(void *arg)
{
	struct relief *rl = arg;
	struct txn tx;

	rl->calls++;
	assert_int_equal(txn_begin(rl->st, &tx, FRAME_RECLAIM, 1), 0);
	for (; rl->n; rl->n--)
		assert_int_equal(page_unref(&tx, rl->vpn[rl->n - 1], NULL), 0);
	txn_end(&tx);
}

/* What only waits to be given back is asked for before a transaction is refused. */
static void test_txn_asks_for_relief(void **state)
{
	struct relief rl = {0};
	const struct store_config cfg = {
		.limit_bytes = 4 * MIB,
		.relief = relief,
		.relief_arg = &rl,
	};
	vpn_t vpn[1024];
	struct txn tx;

	(void)state;
	assert_int_equal(store_open(&rl.st, &cfg, NULL), 0);
	for (unsigned int i = 0; i < 300; i++)
		vpn[i] = add_page(rl.st, 1);
	rl.vpn = vpn;
	rl.n = 300;
	/* Fits only when these pages go. */
	assert_int_equal(txn_begin(rl.st, &tx, FRAME_NORMAL, frames_of(rl.st).available + 100), 0);
	assert_in_range(rl.calls, 1, 2);
	txn_end(&tx);
	assert_int_equal(store_close(rl.st), 0);
}

/* X1, and a generation is where a change really went. */
static void test_txn_belongs_to_one_generation(void **state)
{
	struct store *st = *state;
	struct txn tx;
	vpn_t vpn;
	uint64_t open;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 1), 0);
	open = store_generation(st);
	assert_int_equal(page_new(&tx, page_of(1), &vpn), 0);
	assert_int_equal(txn_end(&tx), open);
	assert_int_equal(commit_wait(st, open), 0);
	assert_int_equal(store_durable(st), open);
	assert_int_equal(store_generation(st), open + 1);
	/* A change of nothing needs no commit. */
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 1), 0);
	assert_int_equal(commit_wait(st, txn_end(&tx)), 0);
	assert_int_equal(store_generation(st), open + 1);
}

static void test_txn_read_only(void **state)
{
	const struct store_config cfg = {.path = util_image, .read_only = true};
	struct store *st;
	struct txn tx;

	(void)state;
	image_new(4 * MIB);
	assert_int_equal(store_open(&st, &cfg, NULL), 0);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 0), -EROFS);
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(commit_with(st, FRAME_NORMAL, 0, NULL, NULL), -EROFS);
	assert_int_equal(store_close(st), 0);
}

struct committer {
	struct store *st;
	_Atomic bool done;
	pthread_t id;
};

static void *commit_thread(void *arg)
{
	struct committer *c = arg;

	(void)commit_now(c->st);
	atomic_store(&c->done, true);
	return NULL;
}

/* F2: what a section may be looking at is not free, whether the generation is durable or not. */
static void test_txn_section_keeps_frames(void **state)
{
	struct store *st = *state;
	const vpn_t vpn = add_page(st, 1);
	struct committer c = {.st = st};
	struct read_section outer, inner;
	const void *at;
	uint64_t open;

	assert_int_equal(commit_now(st), 0);
	read_enter(st, &outer);
	assert_int_equal(page_get(st, vpn, &at), 0);
	put_page(st, vpn, 2);
	open = store_generation(st);
	assert_int_equal(pthread_create(&c.id, NULL, commit_thread, &c), 0);
	while (store_durable(st) < open)
		sched_yield();
	/* Sections that begin now hold nobody up and are held up by nobody. */
	for (int i = 0; i < 1000; i++) {
		read_enter(st, &inner);
		assert_int_equal(frames_of(st).pending, 1);
		read_leave(st, &inner);
	}
	assert_false(atomic_load(&c.done));
	assert_memory_equal(at, page_of(1), PMFS_PAGE_SIZE);
	read_leave(st, &outer);
	pthread_join(c.id, NULL);
	assert_int_equal(frames_of(st).pending, 0);
}

/* Only the whole of a transaction is in a commit: two pages that always change together. */
struct pair {
	struct store *st;
	vpn_t a, b;
	_Atomic bool stop;
	_Atomic uint64_t written;
	pthread_t id;
};

static void *pair_thread(void *arg)
{
	struct pair *p = arg;

	for (uint64_t i = 1; !atomic_load(&p->stop); i++) {
		struct txn tx;

		if (txn_begin(p->st, &tx, FRAME_NORMAL, 2))
			break;
		(void)page_write(&tx, p->a, 0, &i, sizeof(i));
		(void)page_write(&tx, p->b, 0, &i, sizeof(i));
		txn_end(&tx);
		atomic_fetch_add(&p->written, 1);
	}
	return NULL;
}

static void test_txn_is_in_a_commit_as_a_whole(void **state)
{
	struct pair p = {0};
	uint64_t last = 0;

	(void)state;
	image_new(8 * MIB);
	p.st = image_open();
	p.a = add_page(p.st, 0);
	p.b = add_page(p.st, 0);
	for (int round = 0; round < 10; round++) {
		uint64_t a, b;

		atomic_store(&p.stop, false);
		assert_int_equal(pthread_create(&p.id, NULL, pair_thread, &p), 0);
		for (int i = 0; i < 5; i++) {
			const uint64_t n = atomic_load(&p.written);

			while (atomic_load(&p.written) == n)
				sched_yield();
			assert_int_equal(commit_now(p.st), 0);
		}
		atomic_store(&p.stop, true);
		pthread_join(p.id, NULL);
		store_abandon(p.st);
		p.st = image_open();
		assert_int_equal(page_read(p.st, p.a, 0, &a, sizeof(a)), 0);
		assert_int_equal(page_read(p.st, p.b, 0, &b, sizeof(b)), 0);
		assert_int_equal(a, b);
		last += a;
	}
	assert_true(last > 0);
	check_clean(p.st);
	assert_int_equal(store_close(p.st), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_txn_gives_back_what_it_did_not_take),
		TEST(test_txn_refuses_what_can_not_be),
		TEST(test_txn_commits_to_get_space),
		TEST(test_txn_removes_when_full),
		TEST(test_txn_belongs_to_one_generation),
		TEST(test_txn_section_keeps_frames),
		cmocka_unit_test(test_txn_asks_for_relief),
		cmocka_unit_test(test_txn_read_only),
		cmocka_unit_test(test_txn_is_in_a_commit_as_a_whole),
	};

	return cmocka_run_group_tests(tests, util_setup, util_teardown);
}
