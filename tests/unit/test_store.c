/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/store_util.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/bits.h"
#include "store/store_impl.h"

static int try_open(const struct store_config *cfg, struct store_error *err)
{
	struct store *st = NULL;
	int rc = store_open(&st, cfg, err);

	if (!rc)
		store_abandon(st);
	return rc;
}

/* Each refusal has its error and words for it. */
static void test_store_refuses(void **state)
{
	struct store_config cfg = {.path = util_image};
	struct store_error err;
	int fd;

	(void)state;
	unlink(util_image);
	assert_int_equal(try_open(&cfg, &err), -ENOENT);
	assert_non_null(strstr(err.text, util_image));
	cfg.path = util_dir;
	assert_int_equal(try_open(&cfg, &err), -EISDIR);
	cfg.path = util_image;
	fd = open(util_image, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 8 * (off_t)MIB), 0);
	assert_int_equal(try_open(&cfg, &err), -EMEDIUMTYPE);
	assert_true(err.text[0]);
	close(fd);
	image_new(8 * MIB);
	assert_int_equal(truncate(util_image, 100 * PMFS_PAGE_SIZE), 0);
	assert_int_equal(try_open(&cfg, NULL), 0);
	cfg.limit_bytes = 1 * MIB;
	assert_int_equal(try_open(&cfg, &err), -ERANGE);
	cfg.path = NULL;
	assert_int_not_equal(try_open(&cfg, &err), 0);
	assert_true(err.text[0]);
}

/* A file that is longer than its limit says is one that may be as long as it is. */
static void test_store_longer(void **state)
{
	struct store_stats stats;
	struct store *st;
	vpn_t vpn;

	(void)state;
	image_new(4 * MIB);
	assert_int_equal(truncate(util_image, 8 * (off_t)MIB), 0);
	st = image_open();
	vpn = add_page(st, 5);
	store_stat(st, &stats);
	assert_int_equal(stats.frames.limit, 8 * MIB / PMFS_PAGE_SIZE);
	assert_int_equal(store_close(st), 0);
	st = image_open();
	assert_page(st, vpn, 5);
	check_clean(st);
	assert_int_equal(store_close(st), 0);
}

/* A file that has lost its end. */
static void test_store_truncated(void **state)
{
	const struct store_config cfg = {.path = util_image};
	struct store_error err;
	struct store *st;

	(void)state;
	image_new(16 * MIB);
	st = image_open();
	for (unsigned int i = 0; i < 1000; i++)
		add_page(st, i);
	/* Both generations need them: this is no commit that a power cut has left half done. */
	assert_int_equal(commit_now(st), 0);
	add_page(st, 1);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(truncate(util_image, 500 * PMFS_PAGE_SIZE), 0);
	util_quiet();
	assert_int_equal(try_open(&cfg, &err), -EIO);
	assert_true(err.text[0]);
}

/* One writer, or readers. */
static void test_store_locks(void **state)
{
	struct store_config cfg = {.path = util_image};
	struct store_error err;
	struct store *st;
	int status;
	pid_t pid;

	(void)state;
	image_new(8 * MIB);
	st = image_open();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(try_open(&cfg, &err) == -EBUSY && err.text[0] ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(try_open(&cfg, &err), -EBUSY);
	cfg.read_only = true;
	assert_int_equal(try_open(&cfg, &err), -EBUSY);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(store_open(&st, &cfg, &err), 0);
	assert_int_equal(try_open(&cfg, &err), 0);
	cfg.read_only = false;
	assert_int_equal(try_open(&cfg, &err), -EBUSY);
	assert_int_equal(store_close(st), 0);
}

static void test_store_says_what_it_is(void **state)
{
	const struct store_format how = {
		.limit_bytes = 8 * MIB,
		.label = "a label",
		.uuid = {1, 2, 3},
		.force = true,
	};
	struct store_stats stats;
	struct store *st;

	(void)state;
	assert_int_equal(store_format(util_image, &how, NULL), 0);
	st = image_open();
	assert_string_equal(store_label(st), "a label");
	assert_memory_equal(store_uuid(st), how.uuid, sizeof(how.uuid));
	assert_true(store_created_ns(st) > UINT64_C(1000000000) * 1600000000);
	assert_false(store_is_ram(st));
	assert_false(store_read_only(st));
	assert_int_equal(store_error(st), 0);
	store_stat(st, &stats);
	assert_int_equal(stats.frames.limit, 8 * MIB / PMFS_PAGE_SIZE);
	assert_int_equal(stats.frames.used, PMFS_FIRST_FRAME);
	assert_true(store_scanned(st));
	assert_int_equal(store_close(st), 0);
	st = ram_open(4 * MIB);
	assert_true(store_is_ram(st));
	assert_int_equal(store_close(st), 0);
}

static void set_root(struct store *st, uint64_t number)
{
	struct pmfs_tree_root root;
	struct txn tx;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 0), 0);
	store_get_root(st, &root);
	le64_put(&root.live, number);
	store_set_root(&tx, &root);
	txn_end(&tx);
}

static uint64_t get_root(struct store *st)
{
	struct pmfs_tree_root root;

	store_get_root(st, &root);
	return le64_get(root.live);
}

/* The root goes with the generation; setting what it is already is no change. */
static void test_store_root_is_committed(void **state)
{
	struct store *st;
	uint64_t durable;

	(void)state;
	image_new(8 * MIB);
	st = image_open();
	assert_int_equal(get_root(st), 0);
	set_root(st, 5);
	assert_int_equal(commit_now(st), 0);
	durable = store_durable(st);
	set_root(st, 5);
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(store_durable(st), durable);
	set_root(st, 6);
	store_abandon(st);
	st = image_open();
	assert_int_equal(get_root(st), 5);
	set_root(st, 7);
	assert_int_equal(store_close(st), 0);
	st = image_open();
	assert_int_equal(get_root(st), 7);
	assert_int_equal(store_close(st), 0);
}

/* What was not committed is gone, and has left no trace. */
static void test_store_abandon_is_a_crash(void **state)
{
	struct store *st;
	vpn_t vpn;

	(void)state;
	image_new(8 * MIB);
	st = image_open();
	vpn = add_page(st, 1);
	assert_int_equal(commit_now(st), 0);
	put_page(st, vpn, 2);
	add_page(st, 3);
	store_abandon(st);
	st = image_open();
	assert_page(st, vpn, 1);
	check_clean(st);
	assert_int_equal(store_close(st), 0);
}

static void test_store_read_only_changes_nothing(void **state)
{
	const struct store_config cfg = {.path = util_image, .read_only = true};
	struct stat before, after;
	struct store_stats stats;
	struct store *st;
	vpn_t vpn;

	(void)state;
	image_new(8 * MIB);
	st = image_open();
	vpn = add_page(st, 1);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(chmod(util_image, 0400), 0);
	assert_int_equal(stat(util_image, &before), 0);
	assert_int_equal(store_open(&st, &cfg, NULL), 0);
	assert_true(store_read_only(st));
	assert_page(st, vpn, 1);
	scan_all(st);
	check_clean(st);
	store_stat(st, &stats);
	assert_int_equal(stats.pages, 1);
	assert_int_equal(stats.frames.used, PMFS_FIRST_FRAME + 1);
	assert_int_equal(store_trim(st, 0, 1000), 0);
	assert_int_equal(store_set_limit(st, 16 * MIB), -EROFS);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(stat(util_image, &after), 0);
	assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
	assert_int_equal(before.st_blocks, after.st_blocks);
}

static void test_store_limit(void **state)
{
	struct store_config cfg = {.path = util_image};
	struct store_stats stats;
	struct store *st;
	struct txn tx;

	(void)state;
	image_new(8 * MIB);
	st = image_open();
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 3000), -ENOSPC);
	assert_int_equal(store_set_limit(st, 16 * MIB), 0);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 3000), 0);
	txn_end(&tx);
	assert_int_equal(store_set_limit(st, 1 * MIB), -ERANGE);
	for (unsigned int i = 0; i < 2000; i++)
		add_page(st, i);
	assert_int_equal(store_set_limit(st, 4 * MIB), -ERANGE);
	assert_int_equal(store_close(st), 0);
	st = image_open();
	store_stat(st, &stats);
	assert_int_equal(stats.frames.limit, 16 * MIB / PMFS_PAGE_SIZE);
	assert_int_equal(store_close(st), 0);
	/* Or while opening. */
	cfg.limit_bytes = 4 * MIB;
	assert_int_equal(try_open(&cfg, NULL), -ERANGE);
	cfg.limit_bytes = 32 * MIB;
	assert_int_equal(store_open(&st, &cfg, NULL), 0);
	assert_int_equal(store_close(st), 0);
	st = image_open();
	store_stat(st, &stats);
	assert_int_equal(stats.frames.limit, 32 * MIB / PMFS_PAGE_SIZE);
	check_clean(st);
	assert_int_equal(store_close(st), 0);
}

struct seen {
	vpn_t last;
	unsigned int n, stop;
};

static int see(void *arg, vpn_t vpn, const struct page_info *info)
{
	struct seen *s = arg;

	assert_true(vpn > s->last);
	assert_int_equal(info->refs, 1);
	s->last = vpn;
	s->n++;
	return s->n == s->stop ? 77 : 0;
}

static void test_store_each_page(void **state)
{
	struct store *st = ram_open(16 * MIB);
	struct seen s = {0};

	(void)state;
	for (unsigned int i = 0; i < 700; i++)
		add_page(st, i);
	drop_page(st, 300);
	assert_int_equal(store_each_page(st, 0, UINT64_MAX, see, &s), 0);
	assert_int_equal(s.n, 699);
	assert_int_equal(s.last, 700);
	s = (struct seen){.last = 99};
	assert_int_equal(store_each_page(st, 100, 400, see, &s), 0);
	assert_int_equal(s.n, 299);
	assert_int_equal(s.last, 399);
	s = (struct seen){.stop = 10};
	assert_int_equal(store_each_page(st, 250, 700, see, &s), 77);
	assert_int_equal(s.n, 10);
	s = (struct seen){0};
	assert_int_equal(store_each_page(st, 5, 5, see, &s), 0);
	assert_int_equal(store_each_page(st, 100000, UINT64_MAX, see, &s), 0);
	assert_int_equal(s.n, 0);
	assert_int_equal(store_close(st), 0);
}

/* Frames that an image has free are found after opening it, and used. */
static void test_store_space_comes_back(void **state)
{
	static vpn_t vpn[1200];
	struct store_stats before, after;
	struct store *st;

	(void)state;
	image_new(8 * MIB);
	st = image_open();
	for (unsigned int life = 0; life < 4; life++) {
		for (unsigned int i = 0; i < 1200; i++)
			vpn[i] = add_page(st, i);
		assert_int_equal(commit_lead(st, COMMIT_TIMER), 0);
		for (unsigned int i = 0; i < 1200; i++)
			drop_page(st, vpn[i]);
		assert_int_equal(commit_lead(st, COMMIT_TIMER), 0);
		store_stat(st, &before);
		assert_int_equal(before.pages, 0);
		assert_int_equal(store_close(st), 0);
		st = image_open();
		scan_all(st);
		store_stat(st, &after);
		assert_int_equal(after.frames.used, before.frames.used);
		assert_int_equal(after.map_nodes, before.map_nodes);
		check_clean(st);
	}
	/* The host gets back what nobody uses. */
	assert_in_range(store_trim(st, 0, 100000), 500, 2048);
	check_clean(st);
	assert_int_equal(store_close(st), 0);
}

/* The keeper commits and scans by itself. */
static void test_store_keeper(void **state)
{
	const struct store_config cfg = {.path = util_image, .commit_ms = 1, .background = true};
	struct store *st;
	uint64_t generation;
	vpn_t vpn;

	(void)state;
	image_new(8 * MIB);
	st = image_open();
	for (unsigned int i = 0; i < 600; i++)
		add_page(st, i);
	assert_int_equal(store_close(st), 0);
	assert_int_equal(store_open(&st, &cfg, NULL), 0);
	while (!store_scanned(st))
		sched_yield();
	generation = store_generation(st);
	vpn = add_page(st, 9);
	while (store_durable(st) < generation)
		sched_yield();
	store_abandon(st);
	st = image_open();
	assert_page(st, vpn, 9);
	check_clean(st);
	assert_int_equal(store_close(st), 0);
}

static void note(void *arg, const char *what)
{
	snprintf(arg, 256, "%s", what);
}

/* F1: a count that does not fit is found, whoever is to blame. */
static void test_store_check_finds_a_lost_frame(void **state)
{
	struct store *st = ram_open(8 * MIB);
	const vpn_t a = add_page(st, 1), b = add_page(st, 2);
	struct map_leaf *leaf;
	char what[256] = "";
	uint64_t where;

	(void)state;
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(pagemap_leaf(&st->pm, a, &leaf), 0);
	where = atomic_load(&leaf->where[b % 256]);
	/* Two pages name one frame, and nobody told it. */
	atomic_store(&leaf->where[b % 256], atomic_load(&leaf->where[a % 256]));
	assert_int_equal(store_check(st, false, note, what), 1);
	assert_non_null(strstr(what, "count"));
	/* With the data also the wrong contents are found. */
	assert_int_equal(store_check(st, true, note, what), 1);
	assert_non_null(strstr(what, "hash"));
	/* A frame that is not there at all. */
	atomic_store(&leaf->where[b % 256], where_make(PMFS_MAP_PFN_MASK, 1));
	assert_int_equal(store_check(st, false, note, what), 1);
	assert_non_null(strstr(what, "outside"));
	/* A free page with a frame. */
	atomic_store(&leaf->where[b % 256], where_pfn(where));
	assert_int_equal(store_check(st, false, note, what), 1);
	assert_non_null(strstr(what, "free"));
	atomic_store(&leaf->where[b % 256], where);
	check_clean(st);
	assert_int_equal(store_close(st), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_store_refuses),
		cmocka_unit_test(test_store_longer),
		cmocka_unit_test(test_store_truncated),
		cmocka_unit_test(test_store_locks),
		cmocka_unit_test(test_store_says_what_it_is),
		cmocka_unit_test(test_store_root_is_committed),
		cmocka_unit_test(test_store_abandon_is_a_crash),
		cmocka_unit_test(test_store_read_only_changes_nothing),
		cmocka_unit_test(test_store_limit),
		cmocka_unit_test(test_store_each_page),
		cmocka_unit_test(test_store_space_comes_back),
		cmocka_unit_test(test_store_keeper),
		cmocka_unit_test(test_store_check_finds_a_lost_frame),
	};

	return cmocka_run_group_tests(tests, util_setup, util_teardown);
}
