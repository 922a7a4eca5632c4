/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/store_util.h"

#include <errno.h>
#include <fcntl.h>

#include "base/bits.h"
#include "store/store_impl.h"

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

static struct page_info info_of(struct store *st, vpn_t vpn)
{
	struct page_info info;

	assert_int_equal(page_info(st, vpn, &info), 0);
	return info;
}

static int merge(struct store *st, vpn_t a, vpn_t b)
{
	struct txn tx;
	int rc;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 0), 0);
	rc = page_merge(&tx, a, b);
	txn_end(&tx);
	return rc;
}

static int merge_zero(struct store *st, vpn_t vpn)
{
	struct txn tx;
	int rc;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 0), 0);
	rc = page_merge_zero(&tx, vpn);
	txn_end(&tx);
	return rc;
}

static void add_ref(struct store *st, vpn_t vpn)
{
	struct txn tx;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 0), 0);
	assert_int_equal(page_ref(&tx, vpn), 0);
	txn_end(&tx);
}

/* As the disk would: behind the back of the store, which is closed. */
static void damage(pfn_t pfn)
{
	const int fd = open(util_image, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)(pfn * PMFS_PAGE_SIZE + 77)), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)(pfn * PMFS_PAGE_SIZE + 77)), 1);
	close(fd);
}

/* Contents, counts and the end of a page. */
static void test_page_lives_while_it_is_pointed_at(void **state)
{
	struct store *st = *state;
	const vpn_t vpn = add_page(st, 5);
	uint64_t left = 99, refs = 99;
	const void *at;
	struct txn tx;
	uint8_t buf[16];

	assert_int_not_equal(vpn, VPN_NONE);
	assert_page(st, vpn, 5);
	assert_int_equal(page_refs(st, vpn, &refs), 0);
	assert_int_equal(refs, 1);
	add_ref(st, vpn);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 1), 0);
	/* P2 */
	assert_int_equal(page_write(&tx, vpn, 0, "x", 1), -EUCLEAN);
	assert_int_equal(page_unref(&tx, vpn, &left), 0);
	assert_int_equal(left, 1);
	assert_int_equal(page_write(&tx, vpn, 8, "x", 1), 0);
	assert_int_equal(page_read(st, vpn, 8, buf, 2), 0);
	assert_memory_equal(buf, "x\0", 2);
	assert_int_equal(page_unref(&tx, vpn, &left), 0);
	assert_int_equal(left, 0);
	assert_int_equal(page_refs(st, vpn, &refs), 0);
	assert_int_equal(refs, 0);
	assert_int_equal(page_unref(&tx, vpn, NULL), -EUCLEAN);
	assert_int_equal(page_ref(&tx, vpn), -EUCLEAN);
	assert_int_equal(page_write(&tx, vpn, 0, "x", 1), -EUCLEAN);
	assert_int_equal(page_copy(&tx, vpn, &(vpn_t){0}), -EUCLEAN);
	assert_int_equal(page_read(st, vpn, 0, buf, 1), -EUCLEAN);
	assert_int_equal(page_get(st, vpn, &at), -EUCLEAN);
	assert_int_equal(page_is_hole(st, vpn), -EUCLEAN);
	txn_end(&tx);
	assert_int_equal(page_read(st, VPN_NONE, 0, buf, 1), -EUCLEAN);
	assert_int_equal(page_read(st, store_vpn_limit(st), 0, buf, 1), -EUCLEAN);
	check_clean(st);
}

/* A page of zeros costs no frame until something is written. */
static void test_page_hole_gets_a_frame_when_written(void **state)
{
	struct store *st = *state;
	const void *at;
	struct txn tx;
	vpn_t vpn;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 1), 0);
	assert_int_equal(page_new(&tx, NULL, &vpn), 0);
	assert_int_equal(tx.taken, 0);
	assert_int_equal(page_is_hole(st, vpn), 1);
	assert_int_equal(page_get(st, vpn, &at), 0);
	assert_memory_equal(at, page_of(0), PMFS_PAGE_SIZE);
	assert_int_equal(page_write(&tx, vpn, 4090, "tail!!", 6), 0);
	assert_int_equal(tx.taken, 1);
	assert_int_equal(page_write(&tx, vpn, 0, "", 0), 0);
	txn_end(&tx);
	assert_int_equal(page_is_hole(st, vpn), 0);
	assert_int_equal(page_get(st, vpn, &at), 0);
	assert_memory_equal(at, page_of(0), 4090);
	assert_memory_equal((const uint8_t *)at + 4090, "tail!!", 6);
	check_clean(st);
}

/* P3: in place while the generation is open, elsewhere in the next one, under the same number. */
static void test_page_moves_once_in_a_generation(void **state)
{
	struct store *st = *state;
	const vpn_t vpn = add_page(st, 1);
	const pfn_t first = info_of(st, vpn).pfn;
	struct txn tx;

	assert_true(info_of(st, vpn).dirty);
	put_page(st, vpn, 2);
	assert_int_equal(info_of(st, vpn).pfn, first);
	assert_int_equal(commit_now(st), 0);
	assert_false(info_of(st, vpn).dirty);
	assert_int_equal(info_of(st, vpn).pfn, first);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 1), 0);
	assert_int_equal(page_write(&tx, vpn, 0, "abc", 3), 0);
	assert_int_equal(tx.taken, 1);
	assert_int_not_equal(info_of(st, vpn).pfn, first);
	assert_int_equal(page_write(&tx, vpn, 3, "def", 3), 0);
	assert_int_equal(tx.taken, 1);
	txn_end(&tx);
	/* The durable generation still has the old frame as it was. */
	assert_memory_equal(region_at(store_region(st), first), page_of(2), PMFS_PAGE_SIZE);
	check_clean(st);
}

/* What a reader has got stays as it is until its section ends, whatever is written meanwhile. */
static void test_page_got_in_a_section_stays(void **state)
{
	struct store *st = *state;
	const vpn_t vpn = add_page(st, 1);
	struct read_section rs;
	const void *at;

	assert_int_equal(commit_now(st), 0);
	read_enter(st, &rs);
	assert_int_equal(page_get(st, vpn, &at), 0);
	put_page(st, vpn, 2);
	drop_page(st, vpn);
	for (int i = 0; i < 100; i++)
		add_page(st, 3);
	assert_memory_equal(at, page_of(1), PMFS_PAGE_SIZE);
	read_leave(st, &rs);
}

static void test_page_copy_is_a_page_of_its_own(void **state)
{
	struct store *st = *state;
	const vpn_t vpn = add_page(st, 9);
	struct txn tx;
	vpn_t copy, hole, hole_copy;

	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 2), 0);
	assert_int_equal(page_copy(&tx, vpn, &copy), 0);
	assert_int_equal(page_write(&tx, copy, 0, page_of(8), PMFS_PAGE_SIZE), 0);
	assert_int_equal(page_new(&tx, NULL, &hole), 0);
	assert_int_equal(page_copy(&tx, hole, &hole_copy), 0);
	txn_end(&tx);
	assert_page(st, vpn, 9);
	assert_page(st, copy, 8);
	assert_int_equal(page_is_hole(st, hole_copy), 1);
	check_clean(st);
}

/* The count has 28 bits. */
static void test_page_count_has_an_end(void **state)
{
	struct store *st = *state;
	const vpn_t vpn = add_page(st, 1);
	struct map_leaf *leaf;
	uint64_t left;
	struct txn tx;

	assert_int_equal(pagemap_leaf(&st->pm, vpn, &leaf), 0);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 0), 0);
	mutex_lock(pagemap_leaf_lock(&st->pm, leaf));
	pagemap_set_refs(&st->pm, leaf, vpn % PMFS_MAP_FANOUT, PMFS_MAP_REFS_MAX - 1);
	mutex_unlock(pagemap_leaf_lock(&st->pm, leaf));
	assert_int_equal(page_ref(&tx, vpn), 0);
	assert_int_equal(page_ref(&tx, vpn), -EMLINK);
	assert_int_equal(page_unref(&tx, vpn, &left), 0);
	assert_int_equal(left, PMFS_MAP_REFS_MAX - 1);
	txn_end(&tx);
	assert_page(st, vpn, 1);
}

/* P4 */
static void test_page_damage_is_seen_before_use(void **state)
{
	struct store *st = *state;
	const vpn_t bad = add_page(st, 1), good = add_page(st, 2);
	struct store_stats stats;
	struct txn tx;
	vpn_t copy;
	pfn_t pfn;
	uint8_t buf[8];

	util_quiet();
	/*
	 * The page is older than the newest generation: that it is damaged is not an unfinished
	 * commit.
	 */
	assert_int_equal(commit_now(st), 0);
	add_page(st, 3);
	pfn = info_of(st, bad).pfn;
	assert_int_equal(store_close(st), 0);
	damage(pfn);
	*state = st = image_open();
	assert_page(st, good, 2);
	assert_page(st, good, 2);
	store_stat(st, &stats);
	assert_int_equal(stats.verified, 1);
	assert_int_equal(stats.bad_pages, 0);
	assert_int_equal(page_read(st, bad, 0, buf, 8), -EBADMSG);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 4), 0);
	assert_int_equal(page_write(&tx, bad, 0, "x", 1), -EBADMSG);
	assert_int_equal(page_copy(&tx, bad, &copy), -EBADMSG);
	txn_end(&tx);
	store_stat(st, &stats);
	assert_int_equal(stats.bad_pages, 3);
	assert_int_equal(store_check(st, true, NULL, NULL), 1);
	assert_int_equal(store_check(st, false, NULL, NULL), 0);
	/* New contents as a whole need nothing of the old ones. */
	put_page(st, bad, 4);
	assert_page(st, bad, 4);
	check_clean(st);
}

static void test_page_merge_makes_one_frame(void **state)
{
	struct store *st = *state;
	const vpn_t a = add_page(st, 7), b = add_page(st, 7), c = add_page(st, 7),
		    d = add_page(st, 6);
	struct store_stats stats;

	/* Not before there are hashes. */
	assert_int_equal(merge(st, a, b), 0);
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(merge(st, a, a), 0);
	assert_int_equal(merge(st, a, d), 0);
	assert_int_equal(merge(st, a, b), 1);
	assert_int_equal(merge(st, b, a), 0);
	assert_int_equal(merge(st, b, c), 1);
	assert_int_equal(info_of(st, a).pfn, info_of(st, b).pfn);
	assert_int_equal(info_of(st, a).pfn, info_of(st, c).pfn);
	store_stat(st, &stats);
	assert_int_equal(stats.merged, 2);
	assert_int_equal(stats.frames.shared, 1);
	assert_int_equal(stats.frames.sharing, 2);
	check_clean(st);
	/* Whoever writes parts from the others. */
	put_page(st, b, 8);
	assert_page(st, a, 7);
	assert_page(st, b, 8);
	assert_page(st, c, 7);
	drop_page(st, a);
	assert_page(st, c, 7);
	assert_int_equal(store_close(st), 0);
	*state = st = image_open();
	assert_page(st, b, 8);
	assert_page(st, c, 7);
	check_clean(st);
}

/* Equal hashes are a reason to compare, not a proof. */
static void test_page_merge_compares_bytes(void **state)
{
	struct store *st = *state;
	const vpn_t a = add_page(st, 1), b = add_page(st, 2), z = add_page(st, 3);
	struct map_leaf *leaf;

	assert_int_equal(commit_now(st), 0);
	assert_int_equal(pagemap_leaf(&st->pm, a, &leaf), 0);
	leaf->hash[b % PMFS_MAP_FANOUT] = leaf->hash[a % PMFS_MAP_FANOUT];
	leaf->hash[z % PMFS_MAP_FANOUT] = UINT64_C(0x0123456789abcdef);
	assert_int_equal(merge(st, a, b), 0);
	assert_int_equal(merge_zero(st, z), 0);
	assert_page(st, a, 1);
	assert_page(st, b, 2);
}

static void test_page_merge_zero_makes_a_hole(void **state)
{
	struct store *st = *state;
	const vpn_t zero = add_page(st, 0), other = add_page(st, 1);
	struct store_stats stats;

	assert_int_equal(merge_zero(st, zero), 0);
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(merge_zero(st, other), 0);
	assert_int_equal(merge_zero(st, zero), 1);
	assert_int_equal(merge_zero(st, zero), 0);
	assert_int_equal(page_is_hole(st, zero), 1);
	assert_page(st, zero, 0);
	store_stat(st, &stats);
	assert_int_equal(stats.zero_merged, 1);
	assert_int_equal(stats.pages, 2);
	assert_int_equal(stats.holes, 1);
	put_page(st, zero, 4);
	assert_page(st, zero, 4);
	store_stat(st, &stats);
	assert_int_equal(stats.holes, 0);
	check_clean(st);
}

/* How often a frame is named is known only after the scan. */
static void test_page_merge_waits_for_the_scan(void **state)
{
	struct store *st = *state;
	const vpn_t a = add_page(st, 7), b = add_page(st, 7), zero = add_page(st, 0);

	assert_int_equal(store_close(st), 0);
	*state = st = image_open();
	assert_int_equal(merge(st, a, b), 0);
	assert_int_equal(merge_zero(st, zero), 0);
	scan_all(st);
	assert_int_equal(merge(st, a, b), 1);
	assert_int_equal(merge_zero(st, zero), 1);
	check_clean(st);
}

/* Damage is not spread: the page that stays is verified first. */
static void test_page_merge_verifies(void **state)
{
	struct store *st = *state;
	const vpn_t a = add_page(st, 7), b = add_page(st, 7);
	pfn_t pfn;

	assert_int_equal(commit_now(st), 0);
	add_page(st, 1);
	pfn = info_of(st, a).pfn;
	assert_int_equal(store_close(st), 0);
	damage(pfn);
	*state = st = image_open();
	scan_all(st);
	assert_int_equal(merge(st, a, b), -EBADMSG);
	assert_int_equal(merge(st, b, a), 0);
	assert_page(st, b, 7);
}

/* A write that the host refuses ends in a store that does not commit the half of it. */
static void test_page_failed_write_poisons(void **state)
{
	struct store *st = *state;
	const vpn_t vpn = add_page(st, 1);
	struct txn tx;

	if (fault_arm("region.write", UINT64_MAX, EIO) == -EOPNOTSUPP)
		skip();
	assert_int_equal(commit_now(st), 0);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 2), 0);
	assert_int_equal(page_write(&tx, vpn, 0, page_of(2), PMFS_PAGE_SIZE), 0);
	fault_reset();
	util_quiet();
	assert_int_equal(fault_arm("region.write", 1, EIO), 0);
	assert_int_equal(page_write(&tx, vpn, 0, "abc", 3), -EIO);
	fault_reset();
	txn_end(&tx);
	assert_int_equal(store_error(st), -EIO);
	assert_int_equal(commit_now(st), -EIO);
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, 1), -EIO);
	store_abandon(st);
	*state = st = image_open();
	assert_page(st, vpn, 1);
	check_clean(st);
}

/* Many at once are as good as one after the other; a host that fails leaves none of the failing step. */
static void test_page_run_is_many_pages(void **state)
{
	enum { N = 600 }; /* more than go out in one write */
	struct store *st = *state;
	static uint8_t contents[N * PMFS_PAGE_SIZE];
	vpn_t vpn[N];
	uint64_t made = 99, written;
	struct store_stats before, after;
	struct txn tx;

	for (size_t i = 0; i < N; i++)
		memset(contents + i * PMFS_PAGE_SIZE, (int)i + 1, PMFS_PAGE_SIZE);
	store_stat(st, &before);
	written = region_written(store_region(st));
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, N), 0);
	assert_int_equal(page_new_run(&tx, contents, N, vpn, &made), 0);
	assert_int_equal(made, N);
	assert_int_equal(tx.promised, 0);
	txn_end(&tx);
	assert_int_equal(region_written(store_region(st)) - written, sizeof(contents));
	for (size_t i = 0; i < N; i++) {
		uint8_t buf[PMFS_PAGE_SIZE];
		struct page_info info = info_of(st, vpn[i]);

		assert_int_equal(info.refs, 1);
		assert_true(info.dirty);
		assert_int_equal(page_read(st, vpn[i], 0, buf, sizeof(buf)), 0);
		assert_memory_equal(buf, contents + i * PMFS_PAGE_SIZE, sizeof(buf));
	}
	store_stat(st, &after);
	assert_int_equal(after.pages, before.pages + N);
	assert_int_equal(after.frames.used, before.frames.used + N);

	if (fault_arm("region.write", 2, EIO) == -EOPNOTSUPP)
		return; /* a build without failure points */
	assert_int_equal(txn_begin(st, &tx, FRAME_NORMAL, N), 0);
	assert_int_equal(page_new_run(&tx, contents, N, vpn, &made), -EIO);
	txn_end(&tx);
	fault_reset();
	assert_true(made < N);
	store_stat(st, &after);
	assert_int_equal(after.pages, before.pages + N + made);
	assert_int_equal(after.frames.used, before.frames.used + N + made);
	store_abandon(st);
	*state = NULL;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_page_lives_while_it_is_pointed_at),
		TEST(test_page_run_is_many_pages),
		TEST(test_page_hole_gets_a_frame_when_written),
		TEST(test_page_moves_once_in_a_generation),
		TEST(test_page_got_in_a_section_stays),
		TEST(test_page_copy_is_a_page_of_its_own),
		TEST(test_page_count_has_an_end),
		TEST(test_page_damage_is_seen_before_use),
		TEST(test_page_merge_makes_one_frame),
		TEST(test_page_merge_compares_bytes),
		TEST(test_page_merge_zero_makes_a_hole),
		TEST(test_page_merge_waits_for_the_scan),
		TEST(test_page_merge_verifies),
		TEST(test_page_failed_write_poisons),
	};

	return cmocka_run_group_tests(tests, util_setup, util_teardown);
}
