/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything that a store does at the same time: writers, readers inside read sections, commits,
 * merges, trimming, and the keeper's scan, in a store so small that frames are reused all the time.
 *
 * Each word of a page says whose it is.  A reader may see a page half old and half new, for it is
 * written in place, but never a word of another page: that would be a frame which was given out
 * again under its eyes (F2 of frame.h).
 *
 * PMFS_ROUNDS: how much each thread does; PMFS_SEED.
 */
#include "lib/store_util.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/bits.h"

#define WRITERS 3u
#define READERS 2u
#define STABLE 24u /* pages per writer that live as long as the test */
#define CHURN 32u  /* pages per writer that come and go */
#define WORDS (PMFS_PAGE_SIZE / 8)
#define TWIN_OWNER 1000u /* pages that are all equal, for merging */

struct shared {
	struct store *st;
	uint64_t rounds, seed;
	vpn_t stable[WRITERS][STABLE]; /* set before the threads start */
	_Atomic uint64_t version[WRITERS][STABLE]; /* of the last write that has returned */
	_Atomic unsigned int writers;
	_Atomic uint64_t reads, refused;
	_Atomic(const char *) bad; /* what went wrong first */
};

struct thread {
	struct shared *sh;
	unsigned int n;
	uint64_t seed;
	pthread_t id;
};

static void went_wrong(struct shared *sh, const char *what)
{
	const char *none = NULL;

	atomic_compare_exchange_strong(&sh->bad, &none, what);
}

static uint64_t word_of(unsigned int owner, unsigned int i, uint64_t version)
{
	return (uint64_t)owner << 48 | (uint64_t)i << 32 | (version & UINT32_MAX);
}

static uint64_t owner_part(uint64_t word)
{
	return word >> 32;
}

static void put_twin(struct thread *t, struct txn *tx, vpn_t vpn)
{
	if (page_write(tx, vpn, 0, page_of(word_of(TWIN_OWNER, 0, 0)), PMFS_PAGE_SIZE))
		went_wrong(t->sh, "a twin can't be written");
}

/* A page of the writer's own that always is there: the whole of it, or a part. */
static void write_stable(struct thread *t, uint64_t version)
{
	struct shared *sh = t->sh;
	unsigned int i = (unsigned int)(rnd(&t->seed) % STABLE);
	size_t from = rnd(&t->seed) % 2 ? 0 : rnd(&t->seed) % WORDS;
	struct txn tx;

	if (txn_begin(sh->st, &tx, FRAME_NORMAL, 1)) {
		atomic_fetch_add(&sh->refused, 1);
		return;
	}
	/* The last ones of each writer are twins: merged by the services, and parted here. */
	if (i >= STABLE - 4)
		put_twin(t, &tx, sh->stable[t->n][i]);
	else if (page_write(&tx, sh->stable[t->n][i], from * 8, page_of(word_of(t->n, i, version)),
			    (WORDS - from) * 8))
		went_wrong(sh, "a page can't be written");
	else if (!from)
		atomic_store(&sh->version[t->n][i], version);
	txn_end(&tx);
}

/* Pages that use up frames and give them back. */
static void churn(struct thread *t, vpn_t *have, uint64_t version)
{
	struct shared *sh = t->sh;
	unsigned int i = (unsigned int)(rnd(&t->seed) % CHURN);
	struct txn tx;
	int rc;

	if (txn_begin(sh->st, &tx, have[i] ? FRAME_FREEING : FRAME_NORMAL, 1)) {
		atomic_fetch_add(&sh->refused, 1);
		return;
	}
	if (!have[i]) {
		rc = page_new(&tx, page_of(word_of(t->n, STABLE + i, version)), &have[i]);
	} else {
		uint64_t left = 7;

		rc = page_ref(&tx, have[i]);
		if (!rc)
			rc = page_unref(&tx, have[i], &left);
		if (!rc && left != 1)
			went_wrong(sh, "a page has lost a pointer");
		if (!rc)
			rc = page_unref(&tx, have[i], &left);
		if (!rc && left != 0)
			went_wrong(sh, "a page without pointers is still there");
		have[i] = VPN_NONE;
	}
	if (rc)
		went_wrong(sh, "a page can't be made or dropped");
	txn_end(&tx);
}

static int in_commit(struct txn *tx, void *arg)
{
	return page_write(tx, *(vpn_t *)arg, 8, page_of(word_of(TWIN_OWNER, 0, 0)), 8);
}

static void commit_somehow(struct thread *t)
{
	struct shared *sh = t->sh;
	struct txn tx;
	int rc;

	switch (rnd(&t->seed) % 3) {
	case 0:
		rc = commit_now(sh->st);
		break;
	case 1:
		rc = txn_begin(sh->st, &tx, FRAME_NORMAL, 0);
		if (!rc)
			rc = commit_wait(sh->st, txn_end(&tx));
		break;
	default:
		rc = commit_with(sh->st, FRAME_FREEING, 1, in_commit,
				 &sh->stable[t->n][STABLE - 1]);
		break;
	}
	if (rc && rc != -ENOSPC)
		went_wrong(sh, "a commit failed");
}

static void *writer(void *arg)
{
	struct thread *t = arg;
	vpn_t have[CHURN] = { 0 };

	for (uint64_t round = 1; round <= t->sh->rounds; round++) {
		const uint64_t dice = rnd(&t->seed) % 100;

		if (dice < 50)
			write_stable(t, round);
		else if (dice < 97)
			churn(t, have, round);
		else
			commit_somehow(t);
	}
	for (unsigned int i = 0; i < CHURN; i++) {
		if (have[i])
			drop_page(t->sh->st, have[i]);
	}
	atomic_fetch_sub(&t->sh->writers, 1);
	return NULL;
}

static bool belongs(const uint64_t *word, unsigned int owner, unsigned int i)
{
	uint64_t want = i >= STABLE - 4 ? owner_part(word_of(TWIN_OWNER, 0, 0))
					: owner_part(word_of(owner, i, 0));

	for (size_t k = 0; k < WORDS; k++) {
		if (owner_part(word[k]) != want)
			return false;
	}
	return true;
}

static void *reader(void *arg)
{
	struct thread *t = arg;
	struct shared *sh = t->sh;
	uint64_t copy[WORDS];

	do {
		unsigned int owner = (unsigned int)(rnd(&t->seed) % WRITERS),
			     i = (unsigned int)(rnd(&t->seed) % STABLE);
		struct read_section rs;
		const void *at;

		read_enter(sh->st, &rs);
		if (page_get(sh->st, sh->stable[owner][i], &at)) {
			went_wrong(sh, "a page can't be found");
		} else {
			/* Stay a while: this is when its frame must not be given out. */
			for (int again = 0; again < 3; again++) {
				sched_yield();
				if (!belongs(at, owner, i))
					went_wrong(sh, "a frame was reused while it was read");
			}
		}
		read_leave(sh->st, &rs);
		if (page_read(sh->st, sh->stable[owner][i], 0, copy, sizeof(copy)))
			went_wrong(sh, "a page can't be read");
		else if (!belongs(copy, owner, i))
			went_wrong(sh, "a page has the contents of another");
		atomic_fetch_add(&sh->reads, 1);
	} while (atomic_load(&sh->writers));
	return NULL;
}

/* Merging, committing and trimming as the services do. */
static void *services(void *arg)
{
	struct thread *t = arg;
	struct shared *sh = t->sh;

	do {
		vpn_t a = sh->stable[rnd(&t->seed) % WRITERS][STABLE - 1 - rnd(&t->seed) % 4];
		vpn_t b = sh->stable[rnd(&t->seed) % WRITERS][STABLE - 1 - rnd(&t->seed) % 4];
		struct store_stats stats;
		struct txn tx;
		int rc = txn_begin(sh->st, &tx, FRAME_RECLAIM, 0);

		if (!rc) {
			rc = page_merge(&tx, a, b);
			txn_end(&tx);
		}
		if (rc < 0)
			went_wrong(sh, "a merge failed");
		if (rnd(&t->seed) % 8 == 0 && commit_now(sh->st))
			went_wrong(sh, "a commit failed");
		if (rnd(&t->seed) % 16 == 0)
			store_trim(sh->st, 0, 64);
		store_stat(sh->st, &stats);
		if (stats.frames.used + stats.frames.free + stats.frames.pending +
		    stats.frames.punched != stats.frames.total)
			went_wrong(sh, "the frames do not add up");
		sched_yield();
	} while (atomic_load(&sh->writers));
	return NULL;
}

static void make_stable(struct shared *sh)
{
	for (unsigned int n = 0; n < WRITERS; n++) {
		for (unsigned int i = 0; i < STABLE; i++)
			sh->stable[n][i] =
				add_page(sh->st, i >= STABLE - 4 ? word_of(TWIN_OWNER, 0, 0)
								 : word_of(n, i, 0));
	}
	assert_int_equal(commit_now(sh->st), 0);
}

/* What is there is at least as new as the last whole write, and all of it is the writer's. */
static void check_stable(struct shared *sh)
{
	uint64_t copy[WORDS];

	for (unsigned int n = 0; n < WRITERS; n++) {
		for (unsigned int i = 0; i < STABLE; i++) {
			assert_int_equal(page_read(sh->st, sh->stable[n][i], 0, copy, sizeof(copy)),
					 0);
			assert_true(belongs(copy, n, i));
			if (i < STABLE - 4)
				assert_in_range(copy[0] & UINT32_MAX,
						atomic_load(&sh->version[n][i]), sh->rounds);
		}
	}
	check_clean(sh->st);
}

/* However often they were merged and parted: now they can all have one frame. */
static void merge_twins(struct shared *sh)
{
	struct page_info first, info;
	struct txn tx;

	assert_int_equal(commit_now(sh->st), 0);
	assert_int_equal(txn_begin(sh->st, &tx, FRAME_RECLAIM, 0), 0);
	for (unsigned int k = 0; k < WRITERS * 4; k++)
		assert_true(page_merge(&tx, sh->stable[0][STABLE - 1],
				       sh->stable[k / 4][STABLE - 1 - k % 4]) >= 0);
	txn_end(&tx);
	assert_int_equal(page_info(sh->st, sh->stable[0][STABLE - 1], &first), 0);
	for (unsigned int k = 0; k < WRITERS * 4; k++) {
		assert_int_equal(page_info(sh->st, sh->stable[k / 4][STABLE - 1 - k % 4], &info),
				 0);
		assert_int_equal(info.pfn, first.pfn);
	}
}

static void run_threads(struct shared *sh)
{
	struct thread thread[WRITERS + READERS + 1];
	void *(*const what[])(void *) = { writer, reader, services };

	atomic_store(&sh->writers, WRITERS);
	for (unsigned int i = 0; i < ARRAY_SIZE(thread); i++) {
		thread[i] = (struct thread){ .sh = sh, .n = i, .seed = sh->seed + i };
		assert_int_equal(pthread_create(&thread[i].id, NULL,
						what[(i >= WRITERS) + (i >= WRITERS + READERS)],
						&thread[i]),
				 0);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(thread); i++)
		pthread_join(thread[i].id, NULL);
	if (atomic_load(&sh->bad))
		fail_msg("%s", atomic_load(&sh->bad));
	assert_true(atomic_load(&sh->reads) >= READERS);
}

static struct shared *shared_new(struct store *st)
{
	struct shared *sh = calloc(1, sizeof(*sh));

	assert_non_null(sh);
	sh->st = st;
	sh->rounds = util_env("PMFS_ROUNDS", 4000);
	sh->seed = util_env("PMFS_SEED", 1);
	print_message("PMFS_SEED=%llu\n", (unsigned long long)sh->seed);
	return sh;
}

static struct store *open_with_keeper(const char *path, uint64_t bytes)
{
	const struct store_config cfg = {
		.path = path, .limit_bytes = bytes, .commit_ms = 2, .background = true
	};
	struct store_error err;
	struct store *st;

	if (store_open(&st, &cfg, &err))
		fail_msg("%s", err.text);
	return st;
}

static void test_store_threads_ram(void **state)
{
	struct shared *sh = shared_new(open_with_keeper(NULL, 4 * MIB));

	(void)state;
	make_stable(sh);
	run_threads(sh);
	check_stable(sh);
	merge_twins(sh);
	check_stable(sh);
	assert_int_equal(store_close(sh->st), 0);
	free(sh);
}

/* The same over an image, twice: the second time with old frames and a scan that runs meanwhile. */
static void test_store_threads_image(void **state)
{
	struct shared *sh;

	(void)state;
	image_new(4 * MIB);
	sh = shared_new(open_with_keeper(util_image, 0));
	sh->rounds /= 4;
	make_stable(sh);
	for (int life = 0; life < 2; life++) {
		run_threads(sh);
		check_stable(sh);
		assert_int_equal(store_close(sh->st), 0);
		sh->st = image_open();
		check_stable(sh);
		store_abandon(sh->st);
		memset(sh->version, 0, sizeof(sh->version));
		sh->st = open_with_keeper(util_image, 0);
	}
	assert_int_equal(store_close(sh->st), 0);
	free(sh);
}

/* Full: half of the threads are refused all the time, and nothing is lost or left over. */
static void test_store_threads_full(void **state)
{
	struct store *st = open_with_keeper(NULL, 4 * MIB);
	struct shared *sh = shared_new(st);
	struct txn tx;
	uint64_t n = 0;
	int rc;

	(void)state;
	make_stable(sh);
	while ((rc = txn_begin(st, &tx, FRAME_NORMAL, 1)) == 0) {
		vpn_t vpn;

		assert_int_equal(page_new(&tx, page_of(word_of(500, 1, n)), &vpn), 0);
		txn_end(&tx);
		n++;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_true(n > 300);
	run_threads(sh);
	assert_true(atomic_load(&sh->refused) > 0);
	check_stable(sh);
	assert_int_equal(store_close(st), 0);
	free(sh);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_store_threads_ram),
		cmocka_unit_test(test_store_threads_image),
		cmocka_unit_test(test_store_threads_full),
	};

	return cmocka_run_group_tests(tests, util_setup, util_teardown);
}
