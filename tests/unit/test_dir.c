/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "lib/fsfix.h"
#include "tree/dir_walk.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#endif
#ifdef SLOW
#define MANY 50000u
#else
#define MANY 1000000u
#endif

/* Let names collide.  False: this build can't. */
static bool may_collide;

static bool hash_mask(uint64_t mask)
{
#ifdef PMFS_FAULTS
	dir_test_hash_mask = mask;
	may_collide = mask != UINT64_MAX;
	return true;
#else
	(void)mask;
	return false;
#endif
}

/* A directory by itself: pages, but no inode file. */
struct env {
	struct fs fs;
	struct volume vol;
	struct inode dir;
	uint64_t most_frames; /* that one change has taken */
};

static struct env *env_new(void)
{
	const struct store_config cfg = { .limit_bytes = UINT64_C(1) << 30 };
	struct env *e = calloc(1, sizeof(*e));
	struct store_error err;

	assert_non_null(e);
	assert_int_equal(store_open(&e->fs.st, &cfg, &err), 0);
	e->vol.fs = &e->fs;
	e->dir.vol = &e->vol;
	e->dir.ino = 7;
	return e;
}

static void env_free(struct env *e)
{
	hash_mask(UINT64_MAX);
	store_abandon(e->fs.st);
	free(e);
}

static int setup(void **state)
{
	*state = env_new();
	return 0;
}

static int teardown(void **state)
{
	env_free(*state);
	return 0;
}

static void begin(struct env *e, struct txn *tx)
{
	assert_int_equal(txn_begin(e->fs.st, tx, FRAME_NORMAL, DIR_COST), 0);
}

static void end(struct env *e, struct txn *tx)
{
	e->most_frames = MAX(e->most_frames, tx->taken);
	assert_true(tx->taken <= DIR_COST);
	txn_end(tx);
}

static int insert(struct env *e, const char *name, uint64_t ino)
{
	struct txn tx;
	int rc;

	begin(e, &tx);
	rc = dir_insert(&tx, &e->dir, name, strlen(name), ino, DT_REG);
	end(e, &tx);
	return rc;
}

static int remove_(struct env *e, const char *name, uint64_t *ino)
{
	struct txn tx;
	int rc;

	begin(e, &tx);
	rc = dir_remove(&tx, &e->dir, name, strlen(name), ino);
	end(e, &tx);
	return rc;
}

static int replace(struct env *e, const char *name, uint64_t ino)
{
	struct txn tx;
	int rc;

	begin(e, &tx);
	rc = dir_replace(&tx, &e->dir, name, strlen(name), ino, DT_DIR);
	end(e, &tx);
	return rc;
}

static void say(void *arg, const char *what)
{
	(void)arg;
	print_message("%s\n", what);
}

static void say_nothing(void *arg, const char *what)
{
	(void)arg;
	(void)what;
}

static void check_clean(struct env *e)
{
	assert_int_equal(dir_check(&e->dir, say, NULL), 0);
}

/* ------------------------------------------------------------------ simple things */

static void test_dir_finds_what_was_put_in(void **state)
{
	struct env *e = *state;
	struct dir_entry de;
	char name[300];
	uint64_t ino = 0;

	assert_int_equal(dir_find(&e->dir, "a", 1, &de), -ENOENT);
	assert_int_equal(remove_(e, "a", NULL), -ENOENT);
	assert_int_equal(replace(e, "a", 5), -ENOENT);
	assert_int_equal(insert(e, "a", 11), 0);
	assert_int_equal(insert(e, "a", 12), -EEXIST);
	assert_true(e->dir.size == 1);
	assert_int_equal(dir_find(&e->dir, "axyz", 1, &de), 0);
	assert_true(de.ino == 11 && de.type == DT_REG && de.name_len == 1 &&
		    de.cookie >= PMFS_DIR_KEY_MIN);
	assert_string_equal(de.name, "a");
	assert_int_equal(dir_find(&e->dir, "axyz", 2, &de), -ENOENT);
	assert_int_equal(replace(e, "a", 99), 0);
	assert_int_equal(dir_find(&e->dir, "a", 1, &de), 0);
	assert_true(de.ino == 99 && de.type == DT_DIR);
	check_clean(e);
	assert_int_equal(remove_(e, "a", &ino), 0);
	assert_true(ino == 99 && e->dir.size == 0 && e->dir.data.root == VPN_NONE);

	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	assert_int_equal(insert(e, name, 3), -ENAMETOOLONG);
	assert_int_equal(dir_find(&e->dir, name, 256, &de), -ENAMETOOLONG);
	assert_int_equal(remove_(e, name, NULL), -ENAMETOOLONG);
	name[255] = '\0';
	assert_int_equal(insert(e, name, 3), 0);
	assert_int_equal(dir_find(&e->dir, name, 255, &de), 0);
	assert_string_equal(de.name, name);
	assert_int_equal(insert(e, "", 3), -EINVAL);
	assert_int_equal(dir_find(&e->dir, "", 0, &de), -ENOENT);
	check_clean(e);
}

/* One hash has 256 keys. */
static void test_dir_names_of_one_hash(void **state)
{
	struct env *e = *state;
	struct dir_entry de;
	char name[16];

	if (!hash_mask(0))
		skip();
	for (unsigned i = 0; i < 256; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(insert(e, name, 10 + i), 0);
	}
	check_clean(e);
	assert_int_equal(insert(e, "one more", 3), -ENOSPC);
	assert_int_equal(insert(e, "n255", 3), -EEXIST);
	assert_int_equal(remove_(e, "n3", NULL), 0);
	assert_int_equal(dir_find(&e->dir, "n200", 4, &de), 0);
	assert_true(de.ino == 210);
	assert_int_equal(insert(e, "one more", 4), 0);
	assert_int_equal(insert(e, "and another", 4), -ENOSPC);
	for (unsigned i = 0; i < 256; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(remove_(e, name, NULL), i == 3 ? -ENOENT : 0);
	}
	assert_true(e->dir.size == 1);
	check_clean(e);
}

static int count_entries(void *arg, const struct dir_entry *de)
{
	(void)de;
	++*(uint64_t *)arg;
	return 0;
}

static int stop_at_once(void *arg, const struct dir_entry *de)
{
	*(uint64_t *)arg = de->cookie;
	return 77;
}

static uint64_t store_pages(struct env *e)
{
	struct store_stats st;

	store_stat(e->fs.st, &st);
	return st.pages;
}

static void test_dir_of_very_many(void **state)
{
	struct env *e = *state;
	const uint64_t pages = store_pages(e);
	struct dir_entry de;
	struct dir_path path;
	union dir_page leaf;
	uint64_t n = 0, ino, file_pages;
	char name[32];

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		assert_int_equal(insert(e, name, 3 + i), 0);
		/* A commit now and then, so that the pages are not all new ones. */
		if (i % 100000 == 99999)
			assert_int_equal(commit_now(e->fs.st), 0);
	}
	assert_true(e->dir.size == MANY);
	check_clean(e);
	assert_int_equal(dir_each(&e->dir, 0, count_entries, &n), 0);
	assert_true(n == MANY);
	assert_int_equal(dir_leaf_copy(&e->dir, 1 << 20, &path, &leaf), 0);
	assert_true(path.depth == 3);
	assert_int_equal(ptab_count(e->fs.st, &e->dir.data, &file_pages), 0);
	print_message("%u entries in %" PRIu64 " pages, depth %u, %" PRIu64 " frames at most\n",
		      MANY, file_pages, path.depth, e->most_frames);
	assert_true(file_pages < MANY / 50);
	for (unsigned i = 0; i < MANY; i += 3) {
		snprintf(name, sizeof(name), "file-%u", i);
		assert_int_equal(dir_find(&e->dir, name, strlen(name), &de), 0);
		assert_true(de.ino == 3 + i);
	}
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "file-%u", (unsigned)((uint64_t)i * 999983 % MANY));
		assert_int_equal(remove_(e, name, &ino), 0);
		if (i == MANY / 2 || i == MANY - 100)
			check_clean(e);
	}
	assert_true(e->dir.size == 0 && e->dir.data.root == VPN_NONE && e->dir.data.height == 0);
	assert_true(store_pages(e) == pages);
	print_message("%" PRIu64 " frames at most with removals\n", e->most_frames);
}

static void test_dir_each_goes_on_and_stops(void **state)
{
	struct env *e = *state;
	uint64_t cookie = 0, last = 0, n = 0;
	char name[300];
	int rc;

	assert_int_equal(dir_each(&e->dir, 0, count_entries, &n), 0);
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "%0250u", i);
		assert_int_equal(insert(e, name, 3), 0);
	}
	for (n = 0; (rc = dir_each(&e->dir, cookie, stop_at_once, &cookie)) == 77; n++) {
		assert_true(cookie > last);
		last = cookie++;
	}
	assert_int_equal(rc, 0);
	assert_true(n == 300);
	n = 0;
	assert_int_equal(dir_each(&e->dir, UINT64_MAX, count_entries, &n), 0);
	assert_int_equal(dir_each(&e->dir, DIR_KEY_END, count_entries, &n), 0);
	assert_true(n == 0);
}

/* ------------------------------------------------------------------ against a model */

#define NAMES 6000u

struct model_entry {
	char name[PMFS_NAME_MAX + 1];
	uint64_t ino; /* 0: not there */
	uint64_t cookie;
	bool seen;
};

static struct model_entry *names_make(struct fsfix_random *rnd)
{
	struct model_entry *m = calloc(NAMES, sizeof(*m));

	assert_non_null(m);
	for (unsigned i = 0; i < NAMES; i++) {
		size_t len = (size_t)snprintf(m[i].name, sizeof(m[i].name), "%u-", i);
		const size_t want = fsfix_random(rnd) % 4 ? fsfix_random(rnd) % 20
							  : fsfix_random(rnd) % PMFS_NAME_MAX;

		/* Any byte but two; the number in front keeps names apart. */
		for (; len <= want; len++) {
			const char c = (char)fsfix_random(rnd);

			m[i].name[len] = c && c != '/' ? c : 'x';
		}
	}
	return m;
}

static struct model_entry *model_find(struct model_entry *m, const struct dir_entry *de)
{
	struct model_entry *me = &m[strtoul(de->name, NULL, 10)];

	assert_true(strlen(me->name) == de->name_len);
	assert_string_equal(me->name, de->name);
	return me;
}

static int see(void *arg, const struct dir_entry *de)
{
	struct model_entry *me = model_find(arg, de);

	assert_true(me->ino == de->ino);
	assert_false(me->seen);
	me->seen = true;
	return 0;
}

static void compare_all(struct env *e, struct model_entry *m)
{
	uint64_t there = 0;

	check_clean(e);
	assert_int_equal(dir_each(&e->dir, 0, see, m), 0);
	for (unsigned i = 0; i < NAMES; i++) {
		assert_true(m[i].seen == (m[i].ino != 0));
		m[i].seen = false;
		there += m[i].ino != 0;
	}
	assert_true(there == e->dir.size);
}

static void one_step(struct env *e, struct model_entry *m, struct fsfix_random *rnd, unsigned bias)
{
	struct model_entry *me = &m[fsfix_random(rnd) % NAMES];
	const size_t len = strlen(me->name);
	struct dir_entry de;
	uint64_t ino;
	int rc;

	if (fsfix_random(rnd) % 8 == 0) {
		rc = dir_find(&e->dir, me->name, len, &de);
		assert_int_equal(rc, me->ino ? 0 : -ENOENT);
		/* D2 */
		assert_true(rc || (de.ino == me->ino && de.cookie == me->cookie));
	} else if (fsfix_random(rnd) % 8 == 0) {
		ino = 3 + fsfix_random(rnd) % 1000;
		assert_int_equal(replace(e, me->name, ino), me->ino ? 0 : -ENOENT);
		if (me->ino)
			me->ino = ino;
	} else if (fsfix_random(rnd) % 100 < bias) {
		ino = 3 + fsfix_random(rnd) % 1000;
		rc = insert(e, me->name, ino);
		if (rc == -ENOSPC) {
			assert_true(may_collide && !me->ino);
			return;
		}
		assert_int_equal(rc, me->ino ? -EEXIST : 0);
		if (rc == 0) {
			me->ino = ino;
			assert_int_equal(dir_find(&e->dir, me->name, len, &de), 0);
			me->cookie = de.cookie;
		}
	} else {
		rc = remove_(e, me->name, &ino);
		assert_int_equal(rc, me->ino ? 0 : -ENOENT);
		assert_true(rc || ino == me->ino);
		me->ino = 0;
	}
}

/* Hashes as they are; few, far apart; few, side by side; one. */
static const uint64_t masks[] = { UINT64_MAX, UINT64_C(0xf8) << 40, 0x3f, 0 };

static void test_dir_model(void **state)
{
	struct fsfix_random rnd;

	(void)state;
	fsfix_seed(&rnd, 1);
	for (size_t k = 0; k < ARRAY_SIZE(masks); k++) {
		struct env *e = env_new();
		struct model_entry *m = names_make(&rnd);

		hash_mask(masks[k]);
		for (unsigned i = 0; i < 40000; i++) {
			/* It grows, shrinks and grows again. */
			one_step(e, m, &rnd, i / 8000 % 2 ? 10 : 90);
			if (i % 4000 == 3999)
				compare_all(e, m);
			if (i % 1000 == 999)
				assert_int_equal(commit_now(e->fs.st), 0);
		}
		for (unsigned i = 0; i < NAMES; i++) {
			if (m[i].ino)
				assert_int_equal(remove_(e, m[i].name, NULL), 0);
		}
		assert_true(e->dir.data.root == VPN_NONE);
		free(m);
		env_free(e);
	}
}

struct walk {
	struct model_entry *m;
	uint64_t next;
	unsigned left;
};

static int walk_some(void *arg, const struct dir_entry *de)
{
	struct walk *w = arg;
	struct model_entry *me = model_find(w->m, de);

	assert_true(de->cookie >= w->next);
	assert_false(me->seen);
	me->seen = true;
	w->next = de->cookie + 1;
	return --w->left == 0;
}

/* D2: names with an even number stay while the others come and go between the parts of a walk. */
static void test_dir_walk_sees_what_stays_once(void **state)
{
	struct fsfix_random rnd;

	(void)state;
	fsfix_seed(&rnd, 1);
	for (size_t k = 0; k < ARRAY_SIZE(masks) - 1; k++) {
		struct env *e = env_new();
		struct walk w = { .m = names_make(&rnd) };

		hash_mask(masks[k]);
		for (unsigned i = 0; i < NAMES; i += 2) {
			const int rc = insert(e, w.m[i].name, 3);

			assert_true(rc == 0 || (rc == -ENOSPC && masks[k] != UINT64_MAX));
			w.m[i].ino = rc == 0;
		}
		do {
			for (unsigned j = 0; j < 40; j++) {
				const unsigned i = (unsigned)(fsfix_random(&rnd) % NAMES) | 1;

				if (insert(e, w.m[i].name, 3) == -EEXIST)
					assert_int_equal(remove_(e, w.m[i].name, NULL), 0);
			}
			w.left = 1 + (unsigned)fsfix_random(&rnd) % 50;
		} while (dir_each(&e->dir, w.next, walk_some, &w) == 1);
		for (unsigned i = 0; i < NAMES; i += 2)
			assert_true(w.m[i].seen == (w.m[i].ino != 0));
		check_clean(e);
		free(w.m);
		env_free(e);
	}
}

/* Pages of a snapshot are not changed: the old tree stays what it was. */
static void test_dir_shared_pages_are_copied(void **state)
{
	struct env *e = *state;
	struct inode old;
	struct txn tx;
	uint64_t n = 0;
	char name[32];

	for (unsigned i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(insert(e, name, 3 + i), 0);
	}
	begin(e, &tx);
	assert_int_equal(page_ref(&tx, e->dir.data.root), 0);
	end(e, &tx);
	old = e->dir;
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), i % 2 ? "f%u" : "g%u", i);
		assert_int_equal(i % 2 ? remove_(e, name, NULL) : insert(e, name, 9), 0);
	}
	check_clean(e);
	assert_int_equal(dir_check(&old, say, NULL), 0);
	assert_int_equal(dir_each(&old, 0, count_entries, &n), 0);
	assert_true(n == 5000);
	for (unsigned i = 0; i < 5000; i++) {
		struct dir_entry de;

		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(dir_find(&old, name, strlen(name), &de), 0);
		assert_true(de.ino == 3 + i);
	}
}

/* ------------------------------------------------------------------ damage */

static void page_damage(struct env *e, uint64_t page, size_t off, const void *buf, size_t len)
{
	struct txn tx;

	begin(e, &tx);
	assert_int_equal(ptab_write(&tx, &e->dir.data, NULL, page, off, buf, len, NULL), 0);
	end(e, &tx);
}

static int ok(void *arg, const struct dir_entry *de)
{
	(void)arg;
	assert_true(strlen(de->name) <= PMFS_NAME_MAX && de->cookie < DIR_KEY_END);
	return 0;
}

/* All that can be done to a directory; what it answers is its business, but it must come back, and
 * in bounds. */
static void use_all(struct env *e)
{
	const uint64_t entries = e->dir.size;
	struct dir_entry de;
	char name[32];

	dir_each(&e->dir, 0, ok, NULL);
	dir_check(&e->dir, say_nothing, NULL);
	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "file %u", i * 31);
		dir_find(&e->dir, name, strlen(name), &de);
		remove_(e, name, NULL);
		snprintf(name, sizeof(name), "new %u", i);
		insert(e, name, 5);
		snprintf(name, sizeof(name), "file %u", i * 57);
		replace(e, name, 5);
	}
	e->dir.size = entries;
}

/* The first child of a node, the first slot of a leaf; a number as high as can be. */
#define ENTRY sizeof(struct pmfs_dir_header)
#define ONES { 255, 255, 255, 255, 255, 255, 255, 255 }

static void test_dir_damage_is_refused(void **state)
{
	struct env *e = *state;
	const size_t pages_at = offsetof(struct pmfs_dir_header, pages);
	const struct {
		uint64_t page;
		size_t off;
		uint8_t bytes[8];
		size_t len;
	} damage[] = {
		{ 0, 0, { 'x' }, 1 },                        /* magic of the root */
		{ 0, 4, { 0, 0 }, 2 },                       /* no children */
		{ 0, 4, { 255, 255 }, 2 },                   /* too many */
		{ 0, 6, { 0, 0 }, 2 },                       /* a node of level 0 */
		{ 0, 6, { 3, 0 }, 2 },                       /* its children have another one */
		{ 0, 6, { 255, 255 }, 2 },
		{ 0, pages_at, { 1, 0, 0, 0 }, 4 },          /* children behind the last page */
		{ 0, pages_at, { 0, 0, 0, 0 }, 4 },
		{ 0, ENTRY + 8, { 0 }, 8 }, /* the root is its own child */
		{ 0, ENTRY + 8, ONES, 8 },
		{ 1, 0, { 'x' }, 1 },
		{ 1, 4, { 0, 0 }, 2 },
		{ 1, 4, { 255, 255 }, 2 },
		{ 1, 6, { 1, 0 }, 2 },
		{ 1, 8, { 40, 0 }, 2 },                      /* the heap begins among the slots */
		{ 1, 8, { 255, 255 }, 2 },
		{ 1, 10, { 255, 255 }, 2 },                  /* waste */
		{ 1, 10, { 1, 0 }, 2 },
		{ 1, ENTRY, ONES, 8 }, /* first key */
		{ 1, ENTRY, { 0 }, 8 },
		{ 1, ENTRY + 8, { 0, 0 }, 2 },       /* place of the first record */
		{ 1, ENTRY + 8, { 255, 15 }, 2 },
		{ 1, ENTRY + 8, { 255, 255 }, 2 },
	};
	char name[32];
	uint64_t n;

	for (unsigned i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "file %u", i);
		assert_int_equal(insert(e, name, 3 + i), 0);
	}
	check_clean(e);
	for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
		union dir_page was;

		assert_int_equal(dir_page_copy(&e->dir, damage[i].page, &was), 0);
		page_damage(e, damage[i].page, damage[i].off, damage[i].bytes, damage[i].len);
		n = 0;
		assert_int_equal(dir_each(&e->dir, 0, count_entries, &n), -EUCLEAN);
		assert_true(n < 400);
		assert_true(dir_check(&e->dir, say_nothing, NULL) > 0);
		page_damage(e, damage[i].page, 0, &was, sizeof(was));
		check_clean(e);
	}
	/* A page that is missing. */
	{
		struct txn tx;

		begin(e, &tx);
		assert_int_equal(ptab_set(&tx, &e->dir.data, NULL, 1, VPN_NONE, NULL), 0);
		end(e, &tx);
		assert_int_equal(dir_each(&e->dir, 0, count_entries, &n), -EUCLEAN);
		assert_true(dir_check(&e->dir, say_nothing, NULL) > 0);
	}
}

/* Things that lookups do not see, but the check. */
static void test_dir_check_finds(void **state)
{
	struct env *e = *state;
	union dir_page pg, was;
	struct dir_rec rec;
	struct dir_path path;
	struct dir_entry de;
	uint64_t leaf_page;
	size_t at;
	char name[32];

	for (unsigned i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "file %u", i);
		assert_int_equal(insert(e, name, 3 + i), 0);
	}
	e->dir.size++;
	assert_int_equal(dir_check(&e->dir, say, NULL), 1);
	e->dir.size--;

	/* A free page that nothing leads to. */
	assert_int_equal(dir_page_copy(&e->dir, 0, &was), 0);
	pg = was;
	dir_root_put(&pg, le32_get(was.head.pages) + 1, 0);
	page_damage(e, 0, 0, &pg, sizeof(pg));
	assert_int_equal(dir_check(&e->dir, say, NULL), 1);
	memset(&pg, 0, sizeof(pg));
	page_damage(e, le32_get(was.head.pages), 0, &pg, sizeof(pg));
	assert_int_equal(dir_check(&e->dir, say, NULL), 1);
	/* It is on the list, but not free. */
	pg = was;
	dir_root_put(&pg, le32_get(was.head.pages) + 1, le32_get(was.head.pages));
	page_damage(e, 0, 0, &pg, sizeof(pg));
	assert_int_equal(dir_check(&e->dir, say, NULL), 1);
	/* Free, and its own successor. */
	memset(&pg, 0, sizeof(pg));
	le32_put(&pg.head.magic, PMFS_DIR_FREE);
	le64_put(&pg.head.free_page, le32_get(was.head.pages));
	page_damage(e, le32_get(was.head.pages), 0, &pg, sizeof(pg));
	assert_int_equal(dir_check(&e->dir, say, NULL), 1);
	memset(&pg, 0, sizeof(pg));
	le32_put(&pg.head.magic, PMFS_DIR_FREE);
	page_damage(e, le32_get(was.head.pages), 0, &pg, sizeof(pg));
	check_clean(e);

	/* Names: one that can't be, one under a wrong key, one twice, one of no inode. */
	assert_int_equal(dir_find(&e->dir, "file 7", 6, &de), 0);
	assert_int_equal(dir_leaf_copy(&e->dir, de.cookie, &path, &was), 0);
	leaf_page = path.at[path.depth - 1].page;
	assert_int_equal(dir_leaf_get(&was, dir_leaf_search(&was, de.cookie), &rec), 0);
	at = (size_t)(rec.name - was.bytes);
	page_damage(e, leaf_page, at, "fi/e 7", 6);
	assert_int_equal(dir_check(&e->dir, say, NULL), 2);
	page_damage(e, leaf_page, at, "file X", 6);
	assert_int_equal(dir_check(&e->dir, say, NULL), 1);
	pg = was;
	rec.key++;
	assert_true(dir_leaf_insert(&pg, dir_leaf_search(&pg, rec.key), &rec));
	page_damage(e, leaf_page, 0, &pg, sizeof(pg));
	e->dir.size++;
	assert_int_equal(dir_check(&e->dir, say, NULL), 1);
	e->dir.size--;
	pg = was;
	dir_leaf_replace(&pg, dir_leaf_search(&pg, de.cookie), PMFS_INO_ORPHANS, DT_REG);
	page_damage(e, leaf_page, 0, &pg, sizeof(pg));
	assert_int_equal(dir_check(&e->dir, say, NULL), 1);
	page_damage(e, leaf_page, 0, &was, sizeof(was));
	check_clean(e);
}

/* Any bytes at all, in pages of all kinds. */
static void test_dir_survives_random_damage(void **state)
{
	struct fsfix_random rnd;
	struct env *e = *state;
	uint64_t pages;
	char name[32];
	union dir_page *was;

	fsfix_seed(&rnd, 1);
	for (unsigned i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "file %u", i);
		assert_int_equal(insert(e, name, 3 + i), 0);
	}
	assert_int_equal(ptab_count(e->fs.st, &e->dir.data, &pages), 0);
	was = calloc(pages, sizeof(*was));
	assert_non_null(was);
	for (uint64_t p = 0; p < pages; p++)
		assert_int_equal(dir_page_copy(&e->dir, p, &was[p]), 0);
	for (unsigned round = 0; round < 1500; round++) {
		struct txn tx;
		uint64_t now_there;

		for (unsigned k = 0; k <= fsfix_random(&rnd) % 6; k++) {
			const uint64_t page =
				fsfix_random(&rnd) % 2 ? fsfix_random(&rnd) % pages : 0;
			uint8_t bytes[8];
			size_t len = 1 + fsfix_random(&rnd) % 8;
			size_t off = fsfix_random(&rnd) % 4
					     ? fsfix_random(&rnd) % 400
					     : fsfix_random(&rnd) % (PMFS_PAGE_SIZE - 8);

			for (size_t i = 0; i < len; i++)
				bytes[i] = (uint8_t)(fsfix_random(&rnd) % 3
							     ? fsfix_random(&rnd)
							     : fsfix_random(&rnd) % 2 * 255);
			page_damage(e, page, off, bytes, len);
		}
		use_all(e);
		for (uint64_t p = 0; p < pages; p++)
			page_damage(e, p, 0, &was[p], sizeof(was[p]));
		begin(e, &tx);
		assert_int_equal(
			ptab_punch(&tx, &e->dir.data, NULL, pages, PGNO_END, UINT64_MAX, NULL), 0);
		end(e, &tx);
		assert_int_equal(ptab_count(e->fs.st, &e->dir.data, &now_there), 0);
		assert_true(now_there == pages);
	}
	check_clean(e);
	free(was);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_dir_finds_what_was_put_in, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dir_names_of_one_hash, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dir_each_goes_on_and_stops, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dir_of_very_many, setup, teardown),
		cmocka_unit_test(test_dir_model),
		cmocka_unit_test(test_dir_walk_sees_what_stays_once),
		cmocka_unit_test_setup_teardown(test_dir_shared_pages_are_copied, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dir_damage_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dir_check_finds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dir_survives_random_damage, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
