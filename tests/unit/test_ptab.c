/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/thread.h"
#include "lib/fsfix.h"
#include "tree/ptab.h"

#define PAGE PMFS_PAGE_SIZE
#define LAST_PGNO ((UINT64_C(1) << (PMFS_PTAB_SHIFT * PMFS_PTAB_MAX_HEIGHT)) - 1)

static struct store *open_ram(void)
{
	struct store_config cfg = { .limit_bytes = UINT64_C(128) << 20 };
	struct store_error err;
	struct store *st;

	assert_int_equal(store_open(&st, &cfg, &err), 0);
	while (!store_scan(st, UINT64_MAX))
		;
	return st;
}

static int setup(void **state)
{
	*state = open_ram();
	return 0;
}

static int teardown(void **state)
{
	return store_close(*state);
}

static uint64_t pages_in_use(struct store *st)
{
	struct store_stats stats;

	store_stat(st, &stats);
	return stats.pages;
}

static void begin(struct store *st, struct txn *tx, uint64_t frames)
{
	assert_int_equal(txn_begin(st, tx, FRAME_NORMAL, frames), 0);
}

static void write_tag(struct store *st, struct ptab *pt, pgno_t pgno, uint64_t tag)
{
	uint64_t page[PAGE / sizeof(uint64_t)];
	struct txn tx;

	for (size_t i = 0; i < ARRAY_SIZE(page); i++)
		page[i] = tag;
	begin(st, &tx, ptab_cost(1));
	assert_int_equal(ptab_write(&tx, pt, NULL, pgno, 0, page, sizeof(page), NULL), 0);
	txn_end(&tx);
}

/* 0: a hole */
static uint64_t read_tag(struct store *st, const struct ptab *pt, pgno_t pgno)
{
	struct read_section rs;
	uint64_t ends[2] = { 0, 0 };
	vpn_t vpn;

	read_enter(st, &rs);
	assert_int_equal(ptab_get(st, pt, pgno, &vpn), 0);
	read_leave(st, &rs);
	if (!vpn)
		return 0;
	assert_int_equal(page_read(st, vpn, 0, &ends[0], 8), 0);
	assert_int_equal(page_read(st, vpn, PAGE - 8, &ends[1], 8), 0);
	assert_int_equal(ends[0], ends[1]);
	return ends[0];
}

/* A snapshot: the same root once more. */
static struct ptab share(struct store *st, const struct ptab *pt)
{
	struct txn tx;

	if (!pt->root)
		return *pt;
	begin(st, &tx, 0);
	assert_int_equal(page_ref(&tx, pt->root), 0);
	txn_end(&tx);
	return *pt;
}

/* *freed may be NULL. */
static void punch_steps(struct store *st, struct ptab *pt, pgno_t from, pgno_t to, uint64_t budget,
			uint64_t *freed)
{
	uint64_t total = 0, n = 0;
	struct txn tx;
	int rc;

	do {
		begin(st, &tx, PTAB_PUNCH_COST);
		rc = ptab_punch(&tx, pt, NULL, from, to, budget, freed ? &n : NULL);
		txn_end(&tx);
		assert_true(rc >= 0);
		total += n;
	} while (rc);
	if (freed)
		*freed = total;
}

static void drop(struct store *st, struct ptab *pt)
{
	punch_steps(st, pt, 0, PGNO_END, 100, NULL);
	assert_int_equal(pt->root, 0);
	assert_int_equal(pt->height, 0);
}

/* ------------------------------------------------------------------ simple things */

static void test_ptab_roots_are_checked(void **state)
{
	struct store *st = *state;
	struct ptab pt = { 0, 0 };
	struct pmfs_ptab_root raw;
	uint64_t n;
	pgno_t at;

	assert_true(ptab_valid(&pt));
	pt.height = 1;
	assert_false(ptab_valid(&pt));
	pt.root = 77;
	assert_true(ptab_valid(&pt));
	pt.height = PMFS_PTAB_MAX_HEIGHT + 1;
	assert_false(ptab_valid(&pt));
	ptab_encode(&pt, &raw);
	assert_int_equal(ptab_decode(&raw).root, 77);
	assert_int_equal(ptab_decode(&raw).height, PMFS_PTAB_MAX_HEIGHT + 1);
	assert_int_equal(ptab_count(st, &pt, &n), -EUCLEAN);
	assert_int_equal(ptab_seek(st, &pt, 0, true, &at), -EUCLEAN);
}

static void test_ptab_far_pages(void **state)
{
	static const pgno_t at[] = { 0, 511, 512, 1u << 18, (1u << 18) - 1, LAST_PGNO, 1 };
	struct store *st = *state;
	struct ptab pt = { 0, 0 };
	const uint64_t before = pages_in_use(st);
	struct txn tx;
	uint64_t n;
	bool added;
	uint8_t byte = 1;

	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		write_tag(st, &pt, at[i], i + 1);
	assert_int_equal(pt.height, PMFS_PTAB_MAX_HEIGHT);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		assert_int_equal(read_tag(st, &pt, at[i]), i + 1);
	assert_int_equal(read_tag(st, &pt, 2), 0);
	assert_int_equal(read_tag(st, &pt, LAST_PGNO + 1), 0);
	assert_int_equal(ptab_count(st, &pt, &n), 0);
	assert_int_equal(n, ARRAY_SIZE(at));

	begin(st, &tx, ptab_cost(1));
	assert_int_equal(ptab_write(&tx, &pt, NULL, LAST_PGNO + 1, 0, &byte, 1, &added), -EFBIG);
	assert_int_equal(ptab_write(&tx, &pt, NULL, 0, PAGE, &byte, 1, &added), -EINVAL);
	txn_end(&tx);
	drop(st, &pt);
	assert_int_equal(pages_in_use(st), before);
}

static void test_ptab_one_page_needs_no_node(void **state)
{
	struct store *st = *state;
	struct ptab pt = { 0, 0 };
	const uint64_t before = pages_in_use(st);

	write_tag(st, &pt, 0, 5);
	assert_int_equal(pt.height, 0);
	assert_int_equal(pages_in_use(st), before + 1);
	write_tag(st, &pt, 1, 6);
	assert_int_equal(pt.height, 1);
	assert_int_equal(pages_in_use(st), before + 3);
	assert_int_equal(read_tag(st, &pt, 0), 5);
	punch_steps(st, &pt, 0, 1, 100, NULL);
	assert_int_equal(pages_in_use(st), before + 2);
	punch_steps(st, &pt, 1, 2, 100, NULL);
	assert_int_equal(pt.root, 0);
	assert_int_equal(pt.height, 0);
	assert_int_equal(pages_in_use(st), before);
}

static void test_ptab_write_says_what_was_a_hole(void **state)
{
	struct store *st = *state;
	struct ptab pt = { 0, 0 };
	uint8_t *buf = calloc(3, PAGE);
	uint64_t written, fresh;
	bool added = false;
	struct txn tx;

	assert_non_null(buf);
	begin(st, &tx, 2 * ptab_cost(3));
	assert_int_equal(ptab_write(&tx, &pt, NULL, 511, 10, "x", 1, &added), 0);
	assert_true(added);
	assert_int_equal(ptab_write(&tx, &pt, NULL, 511, 11, "y", 1, &added), 0);
	assert_false(added);
	memset(buf, 9, 3 * PAGE);
	assert_int_equal(ptab_write_pages(&tx, &pt, 510, 3, buf, &written, &fresh), 0);
	assert_int_equal(written, 3);
	assert_int_equal(fresh, 2);
	txn_end(&tx);
	for (pgno_t i = 510; i < 513; i++)
		assert_int_equal(read_tag(st, &pt, i), UINT64_C(0x0909090909090909));
	drop(st, &pt);
	free(buf);
}

/* A write into a part of a page that a snapshot shares keeps the rest, and the snapshot. */
static void test_ptab_partial_write_of_shared_page(void **state)
{
	struct store *st = *state;
	struct ptab pt = { 0, 0 }, snap;
	uint8_t page[PAGE];
	struct read_section rs;
	struct txn tx;
	vpn_t vpn;

	write_tag(st, &pt, 3, 7);
	snap = share(st, &pt);
	begin(st, &tx, ptab_cost(1));
	assert_int_equal(ptab_write(&tx, &pt, NULL, 3, 100, "hello", 5, NULL), 0);
	txn_end(&tx);
	read_enter(st, &rs);
	assert_int_equal(ptab_get(st, &pt, 3, &vpn), 0);
	assert_int_equal(page_read(st, vpn, 0, page, PAGE), 0);
	read_leave(st, &rs);
	assert_memory_equal(page + 100, "hello", 5);
	assert_int_equal(page[96], 7);
	assert_int_equal(page[112], 7);
	assert_int_equal(read_tag(st, &snap, 3), 7);
	drop(st, &pt);
	assert_int_equal(read_tag(st, &snap, 3), 7);
	drop(st, &snap);
	assert_int_equal(pages_in_use(st), 0);
}

/* A whole shared subtree goes with one pointer, and nothing is copied for it. */
static void test_ptab_punch_of_shared_tree_is_one_step(void **state)
{
	struct store *st = *state;
	struct ptab pt = { 0, 0 }, snap;
	uint64_t before, freed;
	struct txn tx;

	for (pgno_t i = 0; i < 2000; i++)
		write_tag(st, &pt, i, i + 1);
	snap = share(st, &pt);
	before = pages_in_use(st);
	begin(st, &tx, PTAB_PUNCH_COST);
	assert_int_equal(ptab_punch(&tx, &snap, NULL, 0, PGNO_END, 1, &freed), 0);
	assert_int_equal(tx.taken, 0);
	txn_end(&tx);
	assert_int_equal(freed, 2000);
	assert_int_equal(snap.root, 0);
	assert_int_equal(pages_in_use(st), before);

	/* Nothing there: nothing is copied either. */
	snap = share(st, &pt);
	begin(st, &tx, PTAB_PUNCH_COST);
	assert_int_equal(ptab_punch(&tx, &snap, NULL, 2000, 5000, 100, &freed), 0);
	assert_int_equal(tx.taken, 0);
	txn_end(&tx);
	assert_int_equal(freed, 0);
	assert_int_equal(snap.root, pt.root);
	drop(st, &snap);
	drop(st, &pt);
	assert_int_equal(pages_in_use(st), 0);
}

static void test_ptab_punch_keeps_to_its_budget(void **state)
{
	struct store *st = *state;
	struct ptab pt = { 0, 0 };
	uint64_t freed, left, steps = 0;
	struct txn tx;
	int rc;

	for (pgno_t i = 0; i < 1500; i++)
		write_tag(st, &pt, i, i + 1);
	do {
		begin(st, &tx, PTAB_PUNCH_COST);
		rc = ptab_punch(&tx, &pt, NULL, 100, 1400, 64, &freed);
		txn_end(&tx);
		assert_true(freed <= 64);
		assert_int_equal(ptab_count(st, &pt, &left), 0);
		/* The last pages first. */
		for (pgno_t i = 0; i < 1500; i++)
			assert_int_equal(read_tag(st, &pt, i),
					 i >= left - 100 && i < 1400 ? 0 : i + 1);
		steps++;
	} while (rc);
	assert_int_equal(left, 200);
	assert_true(steps >= 1300 / 64);
	drop(st, &pt);
	assert_int_equal(pages_in_use(st), 0);
}

/* ------------------------------------------------------------------ pages with pointers */

static int record_copied(struct txn *tx, vpn_t page, void *arg)
{
	uint64_t vpn;
	int rc;

	++*(unsigned *)arg;
	rc = page_read(tx->st, page, 0, &vpn, sizeof(vpn));
	return rc ? rc : page_ref(tx, vpn);
}

static int record_dropped(struct txn *tx, vpn_t page, void *arg)
{
	uint64_t vpn;
	int rc;

	(void)arg;
	rc = page_read(tx->st, page, 0, &vpn, sizeof(vpn));
	return rc ? rc : page_unref(tx, vpn, NULL);
}

static void test_ptab_ops_follow_copies_and_drops(void **state)
{
	struct store *st = *state;
	unsigned copies = 0;
	const struct ptab_ops ops = { record_copied, record_dropped, &copies };
	struct ptab pt = { 0, 0 }, snap;
	uint64_t freed, refs;
	vpn_t target, page;
	struct txn tx;
	bool added, had;

	begin(st, &tx, 100);
	assert_int_equal(page_new(&tx, NULL, &target), 0);
	assert_int_equal(ptab_own(&tx, &pt, &ops, 600, &page, &added), 0);
	assert_true(added);
	assert_int_equal(ptab_write(&tx, &pt, &ops, 600, 0, &target, sizeof(target), &added), 0);
	assert_false(added);
	txn_end(&tx);
	snap = share(st, &pt);

	begin(st, &tx, ptab_cost(1));
	assert_int_equal(ptab_write(&tx, &pt, &ops, 600, 8, "x", 1, &added), 0);
	txn_end(&tx);
	assert_int_equal(copies, 1);
	assert_int_equal(page_refs(st, target, &refs), 0);
	assert_int_equal(refs, 2);

	begin(st, &tx, PTAB_PUNCH_COST);
	assert_int_equal(ptab_punch(&tx, &snap, &ops, 0, PGNO_END, 100, &freed), 0);
	assert_int_equal(freed, 1);
	txn_end(&tx);
	assert_int_equal(page_refs(st, target, &refs), 0);
	assert_int_equal(refs, 1);

	begin(st, &tx, PTAB_PUNCH_COST);
	assert_int_equal(ptab_set(&tx, &pt, &ops, 600, VPN_NONE, &had), 0);
	assert_true(had);
	txn_end(&tx);
	assert_int_equal(pages_in_use(st), 0);
}

/* ------------------------------------------------------------------ against a model */

#define TABLES 4u
#define NEAR 1600u /* pages of the model: a few nodes at the start and as many far away */
#define FAR_BASE ((UINT64_C(1) << 27) - 800)

struct model {
	struct store *st;
	struct ptab pt[TABLES];
	uint64_t tag[TABLES][NEAR];
	uint64_t next_tag;
};

static pgno_t pgno_of(uint64_t i)
{
	return i < NEAR / 2 ? i : FAR_BASE + i - NEAR / 2;
}

static void op_write(struct model *m, struct fsfix_random *rnd, unsigned t)
{
	const uint64_t i = fsfix_below(rnd, NEAR);

	m->tag[t][i] = ++m->next_tag;
	write_tag(m->st, &m->pt[t], pgno_of(i), m->next_tag);
}

static void op_write_pages(struct model *m, struct fsfix_random *rnd, unsigned t)
{
	const uint64_t half = NEAR / 2 * fsfix_below(rnd, 2);
	const uint64_t i = half + fsfix_below(rnd, NEAR / 2);
	const uint64_t most = 1 + fsfix_below(rnd, 40);
	const uint64_t n = MIN(most, half + NEAR / 2 - i);
	uint64_t *buf = malloc(n * PAGE);
	uint64_t written, added, holes = 0;
	struct txn tx;

	assert_non_null(buf);
	for (uint64_t k = 0; k < n; k++) {
		holes += !m->tag[t][i + k];
		m->tag[t][i + k] = ++m->next_tag;
		for (size_t w = 0; w < PAGE / 8; w++)
			buf[k * PAGE / 8 + w] = m->next_tag;
	}
	begin(m->st, &tx, ptab_cost(n));
	assert_int_equal(ptab_write_pages(&tx, &m->pt[t], pgno_of(i), n, buf, &written, &added), 0);
	txn_end(&tx);
	assert_int_equal(written, n);
	assert_int_equal(added, holes);
	free(buf);
}

static void op_punch(struct model *m, struct fsfix_random *rnd, unsigned t)
{
	uint64_t a = fsfix_below(rnd, NEAR), b = fsfix_below(rnd, NEAR + 1);
	uint64_t freed, there = 0;

	if (a > b) {
		const uint64_t swap = a;

		a = b;
		b = swap;
	}
	if (fsfix_below(rnd, 4))
		b = MIN(b, a + 50);
	for (uint64_t i = a; i < b; i++) {
		there += m->tag[t][i] != 0;
		m->tag[t][i] = 0;
	}
	punch_steps(m->st, &m->pt[t], pgno_of(a), b ? pgno_of(b - 1) + 1 : 0,
		    1 + fsfix_below(rnd, 200), &freed);
	assert_int_equal(freed, there);
}

/* Pages of one table into another, as a copied range shares them. */
static void op_copy(struct model *m, struct fsfix_random *rnd, unsigned t)
{
	const unsigned from = (unsigned)fsfix_below(rnd, TABLES);
	const uint64_t i = fsfix_below(rnd, NEAR), to = fsfix_below(rnd, NEAR);
	uint64_t n = 0, had = 0, there = 0;
	vpn_t vpns[8];
	struct read_section rs;
	struct txn tx;
	int set;

	while (n < ARRAY_SIZE(vpns) && i % (NEAR / 2) + n < NEAR / 2 &&
	       to % (NEAR / 2) + n < NEAR / 2 && m->tag[from][i + n])
		n++;
	if (!n || (from == t && i < to + n && to < i + n))
		return;
	read_enter(m->st, &rs);
	assert_int_equal(ptab_get_run(m->st, &m->pt[from], pgno_of(i), n, vpns), 0);
	read_leave(m->st, &rs);
	begin(m->st, &tx, ptab_cost(n) - n);
	for (uint64_t k = 0; k < n; k++)
		assert_int_equal(page_ref(&tx, vpns[k]), 0);
	set = ptab_set_run(&tx, &m->pt[t], pgno_of(to), n, vpns, &had);
	assert_true(set > 0);
	for (uint64_t k = (uint64_t)set; k < n; k++)
		assert_int_equal(page_unref(&tx, vpns[k], NULL), 0);
	txn_end(&tx);
	for (uint64_t k = 0; k < (uint64_t)set; k++) {
		there += m->tag[t][to + k] != 0;
		m->tag[t][to + k] = m->tag[from][i + k];
	}
	assert_int_equal(had, there);
}

static void op_clone(struct model *m, struct fsfix_random *rnd, unsigned t)
{
	const unsigned from = (unsigned)fsfix_below(rnd, TABLES);

	if (from == t)
		return;
	drop(m->st, &m->pt[t]);
	m->pt[t] = share(m->st, &m->pt[from]);
	memcpy(m->tag[t], m->tag[from], sizeof(m->tag[t]));
}

/* Every pointer in all tables, each node once. */
struct walk {
	struct store *st;
	uint32_t *seen;
	vpn_t limit;
	uint64_t pages;
};

static void walk(struct walk *w, vpn_t vpn, unsigned level)
{
	le64 nd[PMFS_PTAB_FANOUT];
	unsigned used = 0;

	if (!vpn)
		return;
	assert_true(vpn < w->limit);
	if (w->seen[vpn]++)
		return;
	w->pages++;
	if (!level)
		return;
	assert_int_equal(page_read(w->st, vpn, 0, nd, sizeof(nd)), 0);
	for (unsigned i = 0; i < PMFS_PTAB_FANOUT; i++) {
		used += nd[i].raw != 0;
		walk(w, le64_get(nd[i]), level - 1);
	}
	assert_true(used > 0);
}

static void check_counts(struct store *st, const struct ptab *pt, unsigned n)
{
	struct walk w = { .st = st, .limit = store_vpn_limit(st) };
	uint64_t refs;

	w.seen = calloc(w.limit + 1, sizeof(*w.seen));
	assert_non_null(w.seen);
	for (unsigned t = 0; t < n; t++)
		walk(&w, pt[t].root, pt[t].height);
	for (vpn_t vpn = 1; vpn < w.limit; vpn++) {
		if (!w.seen[vpn])
			continue;
		assert_int_equal(page_refs(st, vpn, &refs), 0);
		assert_int_equal(refs, w.seen[vpn]);
	}
	/* And nothing else is left over. */
	assert_int_equal(pages_in_use(st), w.pages);
	free(w.seen);
}

static void check_model(struct model *m)
{
	for (unsigned t = 0; t < TABLES; t++) {
		uint64_t n = 0, count;
		pgno_t at;

		for (uint64_t i = 0; i < NEAR; i++) {
			n += m->tag[t][i] != 0;
			assert_int_equal(read_tag(m->st, &m->pt[t], pgno_of(i)), m->tag[t][i]);
		}
		assert_int_equal(ptab_count(m->st, &m->pt[t], &count), 0);
		assert_int_equal(count, n);
		/* From each page of the first half on: the next page, and the next hole. */
		for (uint64_t i = 0; i < NEAR / 2; i += 7) {
			uint64_t data = i, hole = i;

			while (data < NEAR && !m->tag[t][data])
				data++;
			while (hole < NEAR / 2 && m->tag[t][hole])
				hole++;
			assert_int_equal(ptab_seek(m->st, &m->pt[t], i, true, &at), 0);
			assert_int_equal(at, data < NEAR ? pgno_of(data) : PGNO_END);
			assert_int_equal(ptab_seek(m->st, &m->pt[t], i, false, &at), 0);
			assert_int_equal(at, hole);
		}
	}
	check_counts(m->st, m->pt, TABLES);
}

static void test_ptab_model(void **state)
{
	static void (*const ops[])(struct model *, struct fsfix_random *, unsigned) = {
		op_write, op_write, op_write, op_write_pages, op_punch, op_copy, op_copy, op_clone,
	};
	const uint64_t n = fsfix_env("PMFS_OPS", 6000);
	struct model *m = calloc(1, sizeof(*m));
	struct fsfix_random rnd;

	assert_non_null(m);
	m->st = *state;
	fsfix_seed(&rnd, 1);
	for (uint64_t i = 0; i < n; i++) {
		ops[fsfix_below(&rnd, ARRAY_SIZE(ops))](m, &rnd,
							(unsigned)fsfix_below(&rnd, TABLES));
		if (i % 200 == 0)
			check_model(m);
		if (i % 500 == 0)
			assert_int_equal(commit_now(m->st), 0);
	}
	check_model(m);
	for (unsigned t = 0; t < TABLES; t++)
		drop(m->st, &m->pt[t]);
	assert_int_equal(pages_in_use(m->st), 0);
	free(m);
}

/* ------------------------------------------------------------------ two owners at a time */

#define ROUNDS 1500u

struct racer {
	struct store *st;
	pthread_barrier_t *start, *end;
	struct ptab pt; /* the main thread's between end and start */
	bool drops;     /* the same */
	bool failed;
};

static void race_write(struct racer *r)
{
	const uint64_t word = 1;

	for (pgno_t i = 0; i < 1024; i += 512) {
		struct txn tx;

		if (txn_begin(r->st, &tx, FRAME_NORMAL, ptab_cost(1))) {
			r->failed = true;
			break;
		}
		if (ptab_write(&tx, &r->pt, NULL, i, 0, &word, sizeof(word), NULL))
			r->failed = true;
		txn_end(&tx);
	}
}

static void race_drop(struct racer *r)
{
	struct txn tx;
	int rc;

	do {
		rc = txn_begin(r->st, &tx, FRAME_NORMAL, PTAB_PUNCH_COST);
		if (!rc) {
			rc = ptab_punch(&tx, &r->pt, NULL, 0, PGNO_END, 10, NULL);
			txn_end(&tx);
		}
	} while (rc > 0);
	if (rc)
		r->failed = true;
}

static void *race(void *arg)
{
	struct racer *r = arg;

	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(r->start);
		if (r->drops)
			race_drop(r);
		else
			race_write(r);
		pthread_barrier_wait(r->end);
	}
	return NULL;
}

/* Whoever of two owners comes last drops what a shared node points at, and nobody twice. */
static void test_ptab_owners_race(void **state)
{
	struct store *st = *state;
	struct ptab pt = { 0, 0 };
	pthread_barrier_t start, end;
	struct racer r[2];
	pthread_t thread[2];

	assert_int_equal(pthread_barrier_init(&start, NULL, 3), 0);
	assert_int_equal(pthread_barrier_init(&end, NULL, 3), 0);
	for (pgno_t i = 0; i < 1024; i += 256)
		write_tag(st, &pt, i, i + 1);
	for (unsigned i = 0; i < 2; i++) {
		r[i] = (struct racer){ .st = st, .start = &start, .end = &end };
		assert_int_equal(thread_start(&thread[i], "race", race, &r[i]), 0);
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct ptab both[2];

		/* Only the two of them have it. */
		r[0].pt = share(st, &pt);
		r[1].pt = pt;
		r[1].drops = round % 2;
		pthread_barrier_wait(&start);
		pthread_barrier_wait(&end);
		assert_false(r[0].failed || r[1].failed);
		both[0] = r[0].pt;
		both[1] = r[1].pt;
		check_counts(st, both, 2);
		drop(st, &r[1].pt);
		pt = r[0].pt;
	}
	for (unsigned i = 0; i < 2; i++)
		thread_join(thread[i]);
	pthread_barrier_destroy(&start);
	pthread_barrier_destroy(&end);
	drop(st, &pt);
	assert_int_equal(pages_in_use(st), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ptab_roots_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ptab_far_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ptab_one_page_needs_no_node, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ptab_write_says_what_was_a_hole, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_ptab_partial_write_of_shared_page, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_ptab_punch_of_shared_tree_is_one_step, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_ptab_punch_keeps_to_its_budget, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_ptab_ops_follow_copies_and_drops, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_ptab_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ptab_owners_race, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
