/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random work on a store, played against a model that is nothing but an array: contents and counts
 * of all pages. Every change sets a number in the tree root, so that an image that is opened says
 * which state it claims to be.
 *
 * With a tap on the region's writes the same work is cut by a power failure at every flush: the
 * image is what was durable before plus some of what was written since, in any selection, torn at
 * sectors.
 *
 * PMFS_OPS, PMFS_SEED.
 */
#include "lib/store_util.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "base/bits.h"
#include "store/store_impl.h"

#define MAX_PAGES 9000u
#define TAGS	  48u
#ifdef __has_feature
#define SANITIZED __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
/* One thread has little to tell a thread sanitizer, and is ten times slower under it. */
#define OPS (SANITIZED ? 20000u : 200000u)
#define SECTOR	  512u

/* Contents never change once they are made, so that a copy of the model is cheap. */
struct contents {
	unsigned int users;
	uint8_t byte[PMFS_PAGE_SIZE];
};

struct mpage {
	vpn_t vpn; /* VPN_NONE: not in use */
	uint64_t refs;
	struct contents *c;
};

struct state {
	uint64_t number;
	unsigned int pages;
	struct mpage page[MAX_PAGES];
};

/* A write that is not durable, or that was in flight when the power went. */
struct write {
	uint64_t byte;
	size_t len;
	uint8_t *buf; /* NULL: zeros */
};

struct cut {
	struct write *writes;
	size_t n;
	struct cut *next;
};

struct model {
	struct store *st;
	uint64_t seed;
	uint64_t durable; /* generation of `safe` */
	bool ram;
	unsigned int max_pages;
	struct state now;
	struct state safe; /* the last one that a commit has acknowledged */

	/* power cuts */
	bool tapped;
	bool big; /* commits that write the tree */
	struct region_tap tap;
	struct cut *cuts, **cuts_end;
	struct write *pending;
	size_t npending, room;
	char copy[160]; /* path of the image with what is durable */
	char torn[160]; /* path of the one that the power cut left */
	uint64_t opened_old, opened_new;
};

static struct contents *contents_new(const void *bytes)
{
	struct contents *c = malloc(sizeof(*c));

	assert_non_null(c);
	c->users = 1;
	memcpy(c->byte, bytes, PMFS_PAGE_SIZE);
	return c;
}

static void contents_put(struct contents *c)
{
	if (--c->users == 0)
		free(c);
}

static void state_clear(struct state *s)
{
	for (unsigned int i = 0; i < s->pages; i++)
		contents_put(s->page[i].c);
	s->pages = 0;
}

static void state_copy(struct state *to, const struct state *from)
{
	for (unsigned int i = 0; i < from->pages; i++)
		from->page[i].c->users++;
	state_clear(to);
	to->number = from->number;
	to->pages = from->pages;
	memcpy(to->page, from->page, from->pages * sizeof(from->page[0]));
}

static uint64_t number_of(struct store *st)
{
	struct pmfs_tree_root root;

	store_get_root(st, &root);
	return le64_get(root.next_volume);
}

static int count_page(void *arg, vpn_t vpn, const struct page_info *info)
{
	uint64_t *n = arg;

	(void)vpn;
	(void)info;
	(*n)++;
	return 0;
}

static void compare_page(struct store *st, const struct mpage *p)
{
	uint8_t buf[PMFS_PAGE_SIZE];
	uint64_t refs = 0;

	assert_int_equal(page_refs(st, p->vpn, &refs), 0);
	assert_int_equal(refs, p->refs);
	assert_int_equal(page_read(st, p->vpn, 0, buf, sizeof(buf)), 0);
	if (memcmp(buf, p->c->byte, sizeof(buf)) != 0)
		fail_msg("page %" PRIu64 " has other contents", p->vpn);
}

/* The store is exactly that state. */
static void compare(struct store *st, const struct state *s)
{
	uint64_t n = 0;

	assert_int_equal(number_of(st), s->number);
	for (unsigned int i = 0; i < s->pages; i++)
		compare_page(st, &s->page[i]);
	assert_int_equal(store_each_page(st, 0, UINT64_MAX, count_page, &n), 0);
	assert_int_equal(n, s->pages);
}

/* ------------------------------------------------------------------ the power */

static void tap_write(void *arg, uint64_t byte, const void *buf, size_t len)
{
	struct model *m = arg;
	struct write *w;

	if (m->npending == m->room) {
		m->room = m->room ? 2 * m->room : 256;
		m->pending = realloc(m->pending, m->room * sizeof(*m->pending));
		if (!m->pending)
			abort();
	}
	w = &m->pending[m->npending++];
	w->byte = byte;
	w->len = len;
	w->buf = NULL;
	if (buf) {
		w->buf = malloc(len);
		if (!w->buf)
			abort();
		memcpy(w->buf, buf, len);
	}
}

static void tap_punched(void *arg, uint64_t byte, uint64_t len)
{
	tap_write(arg, byte, NULL, (size_t)len);
}

/* Under the region's lock: only take note, the images are tried when the commit is over. */
static void tap_flushed(void *arg)
{
	struct model *m = arg;
	struct cut *cut = calloc(1, sizeof(*cut));

	if (!cut)
		abort();
	cut->writes = m->pending;
	cut->n = m->npending;
	m->pending = NULL;
	m->npending = m->room = 0;
	*m->cuts_end = cut;
	m->cuts_end = &cut->next;
}

static void put(int fd, const struct write *w, size_t from, size_t len)
{
	static const uint8_t nothing[PMFS_PAGE_SIZE];

	while (len) {
		const size_t n = w->buf ? len : MIN(len, sizeof(nothing));

		assert_int_equal(
			pwrite(fd, w->buf ? w->buf + from : nothing, n, (off_t)(w->byte + from)),
			n);
		from += n;
		len -= n;
	}
}

static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	static uint8_t buf[1 << 20];
	off_t size = lseek(in, 0, SEEK_END);
	off_t at = 0;

	assert_true(in >= 0 && out >= 0 && size > 0);
	while ((at = lseek(in, at, SEEK_DATA)) >= 0 && at < size) {
		const ssize_t n = pread(in, buf, sizeof(buf), at);

		assert_true(n > 0);
		assert_int_equal(pwrite(out, buf, (size_t)n, at), n);
		at += n;
	}
	assert_int_equal(ftruncate(out, size), 0);
	close(in);
	close(out);
}

enum selection { NONE, ALL, ONLY_SLOT, ALL_BUT_SLOT, SOME, TORN, FIRST_HALF, SELECTIONS };

static bool in_slot(const struct write *w)
{
	return w->byte < PMFS_FIRST_FRAME * PMFS_PAGE_SIZE;
}

static void apply(struct model *m, int fd, const struct cut *cut, enum selection sel)
{
	for (size_t i = 0; i < cut->n; i++) {
		const struct write *w = &cut->writes[i];

		if (sel == NONE || (sel == ONLY_SLOT && !in_slot(w)) ||
		    (sel == ALL_BUT_SLOT && in_slot(w)) || (sel == SOME && rnd(&m->seed) % 2) ||
		    (sel == FIRST_HALF && i >= cut->n / 2))
			continue;
		if (sel != TORN) {
			put(fd, w, 0, w->len);
			continue;
		}
		for (size_t at = 0; at < w->len; at += SECTOR)
			if (rnd(&m->seed) % 8)
				put(fd, w, at, MIN(SECTOR, w->len - at));
	}
}

/* What the power cut left opens as one of the two states, and can be worked with. */
static void try_image(struct model *m, bool needs_new)
{
	struct store *st = store_at(m->torn, 0);
	const uint64_t number = number_of(st);
	vpn_t vpn;

	if (number != m->now.number && (needs_new || number != m->safe.number))
		fail_msg("opened state %" PRIu64 ", but %" PRIu64 " was acknowledged", number,
			 m->safe.number);
	compare(st, number == m->now.number ? &m->now : &m->safe);
	if (number == m->now.number)
		m->opened_new++;
	else
		m->opened_old++;
	check_clean(st);
	vpn = add_page(st, 7);
	assert_int_equal(commit_now(st), 0);
	assert_page(st, vpn, 7);
	store_abandon(st);
}

static void try_cut(struct model *m, const struct cut *cut)
{
	for (enum selection sel = NONE; sel < SELECTIONS; sel++) {
		int fd;

		copy_file(m->copy, m->torn);
		fd = open(m->torn, O_WRONLY);
		assert_true(fd >= 0);
		apply(m, fd, cut, sel);
		close(fd);
		try_image(m, false);
	}
}

/* The flushes of one commit, from m->safe to m->now. */
static void try_cuts(struct model *m)
{
	while (m->cuts) {
		struct cut *cut = m->cuts;
		int fd;

		try_cut(m, cut);
		fd = open(m->copy, O_WRONLY);
		assert_true(fd >= 0);
		apply(m, fd, cut, ALL);
		close(fd);
		m->cuts = cut->next;
		if (!m->cuts) {
			m->cuts_end = &m->cuts;
			copy_file(m->copy, m->torn);
			try_image(m, true);
		}
		for (size_t i = 0; i < cut->n; i++)
			free(cut->writes[i].buf);
		free(cut->writes);
		free(cut);
	}
}

/* ------------------------------------------------------------------ the work */

/* What the model is now has been committed. */
static void committed(struct model *m)
{
	assert_true(store_durable(m->st) + 1 == store_generation(m->st));
	if (m->tapped)
		try_cuts(m);
	state_copy(&m->safe, &m->now);
	m->durable = store_durable(m->st);
}

static void begin(struct model *m, struct txn *tx, enum frame_class cls, uint64_t frames)
{
	assert_int_equal(txn_begin(m->st, tx, cls, frames), 0);
	if (store_durable(m->st) == m->durable)
		return;
	/* It has committed to get space. */
	txn_end(tx);
	committed(m);
	assert_int_equal(txn_begin(m->st, tx, cls, frames), 0);
}

/* A change is in the model: number it, in the same transaction. */
static void end(struct model *m, struct txn *tx)
{
	struct pmfs_tree_root root;

	store_get_root(m->st, &root);
	le64_put(&root.next_volume, ++m->now.number);
	store_set_root(tx, &root);
	assert_int_equal(txn_end(tx), store_generation(m->st));
}

static struct mpage *some_page(struct model *m)
{
	return &m->now.page[rnd(&m->seed) % m->now.pages];
}

static void set_contents(struct mpage *p, const void *bytes)
{
	contents_put(p->c);
	p->c = contents_new(bytes);
}

static void added(struct model *m, vpn_t vpn, const void *bytes)
{
	struct mpage *p = &m->now.page[m->now.pages++];

	for (unsigned int i = 0; i + 1 < m->now.pages && i < 64; i++)
		assert_int_not_equal(m->now.page[i].vpn, vpn);
	p->vpn = vpn;
	p->refs = 1;
	p->c = contents_new(bytes);
}

static void op_new(struct model *m, unsigned int n)
{
	struct txn tx;

	n = MIN(n, m->max_pages - m->now.pages);
	if (!n)
		return;
	begin(m, &tx, FRAME_NORMAL, n);
	for (; n; n--) {
		const uint64_t tag = rnd(&m->seed) % TAGS;
		vpn_t vpn;

		assert_int_equal(page_new(&tx, tag == 1 ? NULL : page_of(tag), &vpn), 0);
		added(m, vpn, page_of(tag == 1 ? 0 : tag));
	}
	end(m, &tx);
}

static void op_write(struct model *m, unsigned int n)
{
	struct txn tx;

	begin(m, &tx, FRAME_NORMAL, n);
	for (; n; n--) {
		struct mpage *p = some_page(m);
		size_t off = rnd(&m->seed) % PMFS_PAGE_SIZE;
		size_t len = 1 + rnd(&m->seed) % (PMFS_PAGE_SIZE - off);
		const void *data = page_of(rnd(&m->seed) % TAGS);
		uint8_t buf[PMFS_PAGE_SIZE];

		if (p->refs != 1)
			continue;
		if (rnd(&m->seed) % 3 == 0) {
			off = 0;
			len = PMFS_PAGE_SIZE;
		}
		memcpy(buf, p->c->byte, sizeof(buf));
		memcpy(buf + off, data, len);
		assert_int_equal(page_write(&tx, p->vpn, off, data, len), 0);
		set_contents(p, buf);
	}
	end(m, &tx);
}

static void op_copy(struct model *m)
{
	const struct mpage *p = some_page(m);
	struct txn tx;
	vpn_t vpn;

	if (m->now.pages == m->max_pages)
		return;
	begin(m, &tx, FRAME_NORMAL, 1);
	assert_int_equal(page_copy(&tx, p->vpn, &vpn), 0);
	added(m, vpn, p->c->byte);
	end(m, &tx);
}

static void op_ref(struct model *m)
{
	struct mpage *p = some_page(m);
	struct txn tx;

	begin(m, &tx, FRAME_NORMAL, 0);
	assert_int_equal(page_ref(&tx, p->vpn), 0);
	p->refs++;
	end(m, &tx);
}

static void op_unref(struct model *m, unsigned int n)
{
	struct txn tx;

	begin(m, &tx, FRAME_FREEING, 0);
	for (; n && m->now.pages; n--) {
		struct mpage *p = some_page(m);
		uint64_t left = 99;

		assert_int_equal(page_unref(&tx, p->vpn, &left), 0);
		assert_int_equal(left, --p->refs);
		if (left)
			continue;
		contents_put(p->c);
		*p = m->now.page[--m->now.pages];
	}
	end(m, &tx);
}

static void op_merge(struct model *m)
{
	const struct mpage *a = some_page(m);
	const struct mpage *b = some_page(m);
	struct txn tx;
	int rc;

	begin(m, &tx, FRAME_NORMAL, 0);
	rc = page_merge(&tx, a->vpn, b->vpn);
	assert_true(rc == 0 || rc == 1);
	if (rc == 1)
		assert_memory_equal(a->c->byte, b->c->byte, PMFS_PAGE_SIZE);
	rc = page_merge_zero(&tx, b->vpn);
	assert_true(rc == 0 || rc == 1);
	if (rc == 1) {
		assert_memory_equal(b->c->byte, page_of(0), PMFS_PAGE_SIZE);
		assert_int_equal(page_is_hole(m->st, b->vpn), 1);
	}
	end(m, &tx);
}

static int at_close(struct txn *tx, void *arg)
{
	struct model *m = arg;
	const void *bytes = page_of(rnd(&m->seed) % TAGS);
	struct pmfs_tree_root root;
	vpn_t vpn;

	assert_int_equal(page_new(tx, bytes, &vpn), 0);
	added(m, vpn, bytes);
	store_get_root(tx->st, &root);
	le64_put(&root.next_volume, ++m->now.number);
	store_set_root(tx, &root);
	return 0;
}

static void op_commit(struct model *m)
{
	struct txn tx;

	if (m->big && rnd(&m->seed) % 2 && m->now.pages) {
		/* More than a timer commit keeps in the slot. */
		op_new(m, m->max_pages / 2);
		op_write(m, m->max_pages / 2);
		assert_int_equal(commit_lead(m->st, COMMIT_TIMER), 0);
		committed(m);
		return;
	}
	begin(m, &tx, FRAME_NORMAL,
	      1); /* so that commit_with() needs no commit of its own to get its promise */
	txn_end(&tx);
	switch (rnd(&m->seed) % 4) {
	case 0:
		assert_int_equal(commit_lead(m->st, COMMIT_TIMER), 0);
		break;
	case 1:
		if (m->now.pages < m->max_pages) {
			assert_int_equal(commit_with(m->st, FRAME_NORMAL, 1, at_close, m), 0);
			break;
		}
		/* fall through */
	default:
		assert_int_equal(commit_now(m->st), 0);
	}
	committed(m);
}

static void op_reopen(struct model *m)
{
	if (m->ram || m->tapped)
		return;
	if (rnd(&m->seed) % 2) {
		assert_int_equal(store_close(m->st), 0);
		state_copy(&m->safe, &m->now);
	} else {
		store_abandon(m->st);
		state_copy(&m->now, &m->safe);
	}
	m->st = image_open();
	m->durable = store_durable(m->st);
	compare(m->st, &m->now);
}

static void op_look(struct model *m)
{
	const struct mpage *p = some_page(m);
	struct page_info info;

	compare_page(m->st, p);
	assert_int_equal(page_info(m->st, p->vpn, &info), 0);
	assert_int_equal(info.refs, p->refs);
	assert_int_equal(info.pfn == PFN_NONE, page_is_hole(m->st, p->vpn));
}

static void step(struct model *m)
{
	const uint64_t dice = rnd(&m->seed) % 1000;

	/* Every commit of a run with power cuts is many images; a run without has other things to
	 * try as well. */
	if (m->tapped && rnd(&m->seed) % 12 == 0)
		op_commit(m);
	else if (!m->now.pages || dice < 150)
		op_new(m, 1);
	else if (dice < 160)
		op_new(m, (unsigned int)(rnd(&m->seed) % (m->max_pages / 8)));
	else if (dice < 400)
		op_write(m, 1);
	else if (dice < 410)
		op_write(m, (unsigned int)(rnd(&m->seed) % (m->max_pages / 8)));
	else if (dice < 450)
		op_copy(m);
	else if (dice < 500)
		op_ref(m);
	else if (dice < 650)
		op_unref(m, 1);
	else if (dice < 653)
		op_unref(m, (unsigned int)(rnd(&m->seed) % (m->max_pages / 4)));
	else if (dice < 800)
		op_merge(m);
	else if (dice < 970)
		op_look(m);
	else if (dice < 980)
		(void)store_scan(m->st, 2);
	else if (dice < 982)
		(void)store_trim(m->st, 0, 1024);
	else if (dice < 997)
		op_commit(m);
	else if (dice < 998)
		op_reopen(m);
}

static struct model *model_new(uint64_t bytes, unsigned int max_pages)
{
	struct model *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	m->max_pages = max_pages;
	m->seed = util_env("PMFS_SEED", 1);
	m->cuts_end = &m->cuts;
	print_message("PMFS_SEED=%" PRIu64 "\n", m->seed);
	m->ram = bytes == 0;
	if (m->ram) {
		m->st = ram_open(64 * MIB);
	} else {
		image_new(bytes);
		m->st = image_open();
	}
	m->durable = store_durable(m->st);
	return m;
}

static void model_end(struct model *m)
{
	struct store_stats stats;

	scan_all(m->st);
	check_clean(m->st);
	compare(m->st, &m->now);
	while (m->now.pages)
		op_unref(m, m->max_pages);
	assert_int_equal(commit_now(m->st), 0);
	assert_int_equal(commit_now(m->st), 0);
	check_clean(m->st);
	store_stat(m->st, &stats);
	assert_int_equal(stats.pages, 0);
	assert_int_equal(stats.holes, 0);
	assert_int_equal(stats.frames.used, PMFS_FIRST_FRAME + stats.map_nodes);
	assert_int_equal(stats.frames.pending, 0);
	state_clear(&m->now);
	state_clear(&m->safe);
	free(m);
}

static void run(struct model *m, uint64_t ops)
{
	for (uint64_t i = 0; i < ops; i++) {
		step(m);
		if (i % (ops / 16 + 1) == 0)
			check_clean(m->st);
	}
}

static void test_store_model_image(void **state)
{
	struct model *m = model_new(64 * MIB, MAX_PAGES);
	struct store *st;

	(void)state;
	run(m, util_env("PMFS_OPS", OPS));
	st = m->st;
	model_end(m);
	assert_int_equal(store_close(st), 0);
}

static void test_store_model_ram(void **state)
{
	struct model *m = model_new(0, MAX_PAGES);
	struct store *st;

	(void)state;
	run(m, util_env("PMFS_OPS", OPS) / 2);
	st = m->st;
	model_end(m);
	assert_int_equal(store_close(st), 0);
}

static void cut_run(uint64_t bytes, unsigned int max_pages, uint64_t ops, bool big)
{
	struct store_stats stats;
	struct model *m = model_new(bytes, max_pages);
	struct store *st;

	snprintf(m->copy, sizeof(m->copy), "%s/copy", util_dir);
	snprintf(m->torn, sizeof(m->torn), "%s/torn", util_dir);
	copy_file(util_image, m->copy);
	m->tapped = true;
	m->big = big;
	m->tap = (struct region_tap){
		.wrote = tap_write,
		.punched = tap_punched,
		.flushed = tap_flushed,
		.arg = m,
	};
	region_set_tap(store_region(m->st), &m->tap);
	run(m, ops);
	/* It was worth it: images with the old state, with the new one, and commits of the wanted
	 * kind. */
	assert_true(m->opened_old > 0 && m->opened_new > 0);
	store_stat(m->st, &stats);
	assert_in_range(big ? stats.commits - stats.commits_small : stats.commits_small, 3,
			UINT64_MAX);
	region_set_tap(store_region(m->st), NULL);
	for (size_t i = 0; i < m->npending; i++)
		free(m->pending[i].buf);
	free(m->pending);
	unlink(m->copy);
	unlink(m->torn);
	st = m->st;
	model_end(m);
	assert_int_equal(store_close(st), 0);
}

/* Commits with one flush. */
static void test_store_model_power_cut_small(void **state)
{
	(void)state;
	cut_run(8 * MIB, 200, MAX(util_env("PMFS_OPS", OPS) / 400, 200), false);
}

/* And with two, in between. */
static void test_store_model_power_cut_big(void **state)
{
	(void)state;
	cut_run(32 * MIB, 4000, MAX(util_env("PMFS_OPS", OPS) / 1000, 100), true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_store_model_image),
		cmocka_unit_test(test_store_model_ram),
		cmocka_unit_test(test_store_model_power_cut_small),
		cmocka_unit_test(test_store_model_power_cut_big),
	};

	return cmocka_run_group_tests(tests, util_setup, util_teardown);
}
