/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fault.h"
#include "base/lock.h"
#include "store/frame.h"
#include "store/frameset.h"

#define FIRST PMFS_FIRST_FRAME

static char dir[128], image[160];

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof(dir), "%.80s/pmfs-frame-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	snprintf(image, sizeof(image), "%s/image", dir);
	fault_reset();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fault_reset();
	unlink(image);
	return rmdir(dir);
}

static uint64_t random_state;

static uint64_t rnd(uint64_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % below;
}

static void seed_random(void)
{
	const char *text = getenv("PMFS_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 1;

	print_message("PMFS_SEED=%llu\n", (unsigned long long)seed);
	random_state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

/* ------------------------------------------------------------------ sets */

#define SET_SIZE 300000u

static void test_frameset_is_what_a_plain_array_is(void **state)
{
	static uint8_t model[SET_SIZE];
	struct frameset fs;
	uint64_t count = 0;

	(void)state;
	seed_random();
	memset(model, 0, sizeof(model));
	assert_int_equal(frameset_init(&fs, UINT64_C(1) << 36), 0);
	assert_int_equal(frameset_next(&fs, 0), FRAMESET_END);
	assert_false(frameset_has(&fs, 5));
	assert_int_equal(frameset_extend(&fs, SET_SIZE), 0);
	for (int i = 0; i < 20000; i++) {
		uint64_t n = rnd(4) ? rnd(SET_SIZE) : rnd(200), len = 1 + rnd(300), next = n;

		switch (rnd(5)) {
		case 0:
			assert_int_equal(frameset_add(&fs, n), !model[n]);
			count += !model[n];
			model[n] = 1;
			break;
		case 1:
			assert_int_equal(frameset_remove(&fs, n), model[n]);
			count -= model[n];
			model[n] = 0;
			break;
		case 2: /* a run of the kind that n is, turned over */
			for (len = 0; n + len < SET_SIZE && len < 300 && model[n + len] == model[n];
			     len++)
				;
			if (model[n]) {
				assert_int_equal(frameset_run(&fs, n, 300), len);
				frameset_remove_run(&fs, n, len);
				count -= len;
			} else {
				frameset_add_run(&fs, n, len);
				count += len;
			}
			memset(model + n, !model[n], len);
			break;
		case 3:
			while (next < SET_SIZE && !model[next])
				next++;
			assert_int_equal(frameset_next(&fs, n),
					 next < SET_SIZE ? next : FRAMESET_END);
			break;
		default:
			assert_int_equal(frameset_has(&fs, n), model[n]);
			break;
		}
		assert_int_equal(fs.count, count);
	}
	frameset_clear(&fs);
	assert_int_equal(fs.count, 0);
	assert_int_equal(frameset_next(&fs, 0), FRAMESET_END);
	frameset_destroy(&fs);
}

static void test_frameset_far_apart(void **state)
{
	const uint64_t far = (UINT64_C(1) << 30) - 1;
	struct frameset fs;

	(void)state;
	assert_int_equal(frameset_init(&fs, UINT64_C(1) << 36), 0);
	assert_int_equal(frameset_extend(&fs, far + 1), 0);
	assert_true(frameset_add(&fs, 3));
	assert_true(frameset_add(&fs, far));
	assert_int_equal(frameset_next(&fs, 0), 3);
	assert_int_equal(frameset_next(&fs, 4), far);
	assert_int_equal(frameset_run(&fs, far, 10), 1);
	assert_true(frameset_remove(&fs, far));
	assert_int_equal(frameset_next(&fs, 4), FRAMESET_END);
	frameset_destroy(&fs);
}

/* ------------------------------------------------------------------ a fresh region */

static void open_ram(uint64_t limit, struct region **rg, struct frames **fr)
{
	assert_int_equal(region_open_memfd(rg, limit), 0);
	assert_int_equal(frames_new(fr, *rg, 0), 0);
}

static void open_image(uint64_t limit, uint64_t old, struct region **rg, struct frames **fr)
{
	assert_int_equal(
		region_open_image(rg, image, limit, access(image, F_OK) ? REGION_CREATE : 0, NULL),
		0);
	assert_int_equal(region_grow(*rg, MAX(old, FIRST)), 0);
	assert_int_equal(frames_new(fr, *rg, old), 0);
}

static void close_both(struct region *rg, struct frames *fr)
{
	frames_free(fr);
	region_close(rg);
	unlink(image);
}

static struct frame_stats stat_of(const struct frames *fr)
{
	struct frame_stats st;

	frames_stat(fr, &st);
	assert_int_equal(st.used + st.free + st.pending + st.punched, st.total);
	return st;
}

static void commit(struct frames *fr)
{
	frames_close_generation(fr);
	frames_release(fr);
}

static pfn_t take_one(struct frames *fr)
{
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 1), 0);
	return frames_take(fr);
}

static void test_frame_first_ones_stand_in_a_row(void **state)
{
	struct region *rg;
	struct frames *fr;

	(void)state;
	open_image(4096, 0, &rg, &fr);
	assert_true(frames_scanned(fr));
	assert_int_equal(frames_high_water(fr), FIRST);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 500), 0);
	for (pfn_t pfn = FIRST; pfn < FIRST + 500; pfn++) {
		assert_int_equal(frames_take(fr), pfn);
		assert_int_equal(frames_count(fr, pfn), 1);
		/* F3 */
		assert_true(pfn < region_frames(rg));
		assert_int_equal(region_zero(rg, pfn), 0);
	}
	assert_int_equal(frames_high_water(fr), FIRST + 500);
	assert_int_equal(stat_of(fr).used, FIRST + 500);
	assert_int_equal(stat_of(fr).promised, 0);
	close_both(rg, fr);
}

/*
 * The reserves are there from the beginning, each class leaves what is not its own, and the sum is
 * the limit.
 */
static void test_frame_each_class_has_its_share(void **state)
{
	const uint64_t limit = 32768;
	struct frame_stats st;
	struct region *rg;
	struct frames *fr;
	uint64_t n = 0, upkeep;

	(void)state;
	open_image(limit, 0, &rg, &fr);
	frames_set_map_nodes(fr, 100);
	st = stat_of(fr);
	assert_int_equal(st.freeing_reserve, limit / 64);
	assert_true(st.map_reserve >= 100 + 16);
	assert_true(st.free >= st.freeing_reserve + 48);
	assert_true(st.available > limit - FIRST - 700 && st.available < limit - FIRST - 400);

	/* -EAGAIN: what is promised may not be taken, and then it is there for others. */
	while (frames_reserve(fr, FRAME_NORMAL, 1) == 0)
		n++;
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 1), -EAGAIN);
	st = stat_of(fr);
	assert_int_equal(st.promised, n);
	assert_int_equal(st.total, limit);
	assert_int_equal(st.free - n, st.map_reserve + st.freeing_reserve);
	assert_int_equal(st.available, 0);

	/* Changes leave enough for a removal. */
	upkeep = st.freeing_reserve / 4 * 3 - 100 - 2;
	assert_int_equal(frames_reserve(fr, FRAME_UPKEEP, upkeep + 3), -EAGAIN);
	assert_int_equal(frames_reserve(fr, FRAME_UPKEEP, upkeep), 0);
	assert_int_equal(frames_reserve(fr, FRAME_UPKEEP, 3), -EAGAIN);
	assert_int_equal(frames_reserve(fr, FRAME_FREEING, st.freeing_reserve - upkeep), -EAGAIN);
	assert_int_equal(frames_reserve(fr, FRAME_FREEING, 96), 0);
	assert_int_equal(frames_reserve(fr, FRAME_FREEING, 3), -EAGAIN);
	assert_int_equal(frames_reserve(fr, FRAME_RECLAIM, st.freeing_reserve / 4 - 2), 0);
	assert_int_equal(frames_reserve(fr, FRAME_RECLAIM, 6), -EAGAIN);
	st = stat_of(fr);
	assert_true(st.free - st.promised >= st.map_reserve);

	/* F4: all of the map reserve can be taken. */
	for (uint64_t left = st.free - st.promised; left; left--)
		assert_int_not_equal(frames_take_commit(fr), PFN_NONE);
	assert_int_equal(frames_take_commit(fr), PFN_NONE);
	/* What was promised can, too. */
	for (n = stat_of(fr).promised; n; n--)
		assert_int_not_equal(frames_take(fr), PFN_NONE);
	assert_int_equal(stat_of(fr).free, 0);
	assert_int_equal(stat_of(fr).used, limit);
	/* Now nothing is promised that could come back. */
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 1), -ENOSPC);
	assert_int_equal(frames_reserve(fr, FRAME_RECLAIM, 1), -ENOSPC);
	close_both(rg, fr);
}

static void test_frame_smallest_image_has_room(void **state)
{
	struct region *rg;
	struct frames *fr;

	(void)state;
	open_image(PMFS_MIN_FRAMES, 0, &rg, &fr);
	/* 96 for who gives things back, 100 for who removes them, 188 for changes, nodes for the map. */
	assert_true(stat_of(fr).available > PMFS_MIN_FRAMES / 2);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, PMFS_MIN_FRAMES / 2), 0);
	close_both(rg, fr);
}

static void test_frame_promise_can_be_given_back(void **state)
{
	struct region *rg;
	struct frames *fr;
	uint64_t available;

	(void)state;
	open_ram(4096, &rg, &fr);
	available = stat_of(fr).available;
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 3000), 0);
	assert_true(stat_of(fr).available + 3000 <= available);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 3000), -EAGAIN);
	frames_unreserve(fr, 3000);
	assert_int_equal(stat_of(fr).available, available);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, UINT64_MAX), -ENOSPC);
	close_both(rg, fr);
}

/*
 * More pages could need more nodes: the reserve grows with what was taken and promised, and goes
 * when a commit is through.
 */
static void test_frame_map_reserve_follows_what_is_taken(void **state)
{
	struct region *rg;
	struct frames *fr;
	uint64_t before;

	(void)state;
	open_ram(1 << 16, &rg, &fr);
	before = stat_of(fr).map_reserve;
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 25500), 0);
	assert_int_equal(stat_of(fr).map_reserve, before + 200);
	for (int i = 0; i < 25500; i++)
		frames_take(fr);
	assert_int_equal(stat_of(fr).map_reserve, before + 200);
	frames_close_generation(fr);
	assert_int_equal(stat_of(fr).map_reserve, before + 200);
	frames_set_map_nodes(fr, 101);
	frames_release(fr);
	assert_int_equal(stat_of(fr).map_reserve, before + 101);
	close_both(rg, fr);
}

/* F2 */
static void test_frame_dropped_waits_for_its_generation(void **state)
{
	struct region *rg;
	struct frames *fr;
	pfn_t a, b;

	(void)state;
	open_ram(4096, &rg, &fr);
	a = take_one(fr);
	b = take_one(fr);
	frames_drop(fr, a, true);
	assert_int_equal(frames_count(fr, a), 0);
	assert_int_equal(stat_of(fr).pending, 1);
	frames_close_generation(fr);
	frames_drop(fr, b, true);
	assert_int_equal(stat_of(fr).pending, 2);
	/*
	 * Of these two only one may be taken again now: everything that is free, and neither of
	 * them.
	 */
	for (uint64_t n = stat_of(fr).free; n; n--) {
		pfn_t pfn = frames_take_commit(fr);

		assert_int_not_equal(pfn, a);
		assert_int_not_equal(pfn, b);
	}
	frames_release(fr);
	assert_int_equal(stat_of(fr).pending, 1);
	/* In memory what was free lately comes first. */
	assert_int_equal(frames_take_commit(fr), a);
	commit(fr);
	assert_int_equal(frames_take_commit(fr), b);
	close_both(rg, fr);
}

static void test_frame_node_of_the_commit_is_free_after_it(void **state)
{
	struct region *rg;
	struct frames *fr;
	pfn_t node, page;

	(void)state;
	open_ram(4096, &rg, &fr);
	node = take_one(fr);
	page = take_one(fr);
	frames_close_generation(fr);
	frames_drop_commit(fr, node, true);
	frames_drop(fr, page, true);
	frames_release(fr);
	assert_int_equal(stat_of(fr).pending, 1);
	assert_int_equal(frames_take_commit(fr), node);
	close_both(rg, fr);
}

static void test_frame_shared_is_dropped_once_for_each(void **state)
{
	struct region *rg;
	struct frames *fr;
	pfn_t pfn;

	(void)state;
	open_ram(4096, &rg, &fr);
	pfn = take_one(fr);
	assert_int_equal(stat_of(fr).shared, 0);
	frames_share(fr, pfn);
	frames_share(fr, pfn);
	assert_int_equal(frames_count(fr, pfn), 3);
	assert_int_equal(stat_of(fr).shared, 1);
	assert_int_equal(stat_of(fr).sharing, 2);
	frames_drop(fr, pfn, true);
	assert_int_equal(stat_of(fr).shared, 1);
	assert_int_equal(stat_of(fr).sharing, 1);
	frames_drop(fr, pfn, true);
	assert_int_equal(stat_of(fr).shared, 0);
	assert_int_equal(stat_of(fr).sharing, 0);
	assert_int_equal(stat_of(fr).pending, 0);
	frames_drop(fr, pfn, true);
	assert_int_equal(stat_of(fr).pending, 1);
	close_both(rg, fr);
}

/* A full region: a commit helps as long as something is pending, and only then is it worth one. */
static void test_frame_full_says_whether_a_commit_would_do(void **state)
{
	struct region *rg;
	struct frames *fr;
	pfn_t first;
	uint64_t n;

	(void)state;
	open_ram(2048, &rg, &fr);
	first = take_one(fr);
	for (n = 1; frames_reserve(fr, FRAME_NORMAL, 1) == 0; n++)
		frames_take(fr);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 1), -ENOSPC);
	for (pfn_t pfn = first; pfn < first + 100; pfn++)
		frames_drop(fr, pfn, true);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 50), -EAGAIN);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 150), -ENOSPC);
	frames_close_generation(fr);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 50), -EAGAIN);
	frames_release(fr);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 50), 0);
	close_both(rg, fr);
}

/* ------------------------------------------------------------------ growth */

static void test_frame_limit_can_be_raised(void **state)
{
	struct region *rg;
	struct frames *fr;

	(void)state;
	open_image(8192, 0, &rg, &fr);
	assert_int_equal(region_set_limit(rg, 1024), 0);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 2000), -ENOSPC);
	assert_int_equal(region_frames(rg), 1024);
	assert_int_equal(region_set_limit(rg, 8192), 0);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 2000), 0);
	close_both(rg, fr);
}

/*
 * Whatever step the host refuses, what is needed is asked for; and a refusal leaves all as it was.
 */
static void test_frame_growth_is_refused(void **state)
{
	struct frame_stats before;
	struct region *rg;
	struct frames *fr;

	(void)state;
#ifndef PMFS_FAULTS
	skip();
#endif
	open_image(1 << 16, 0, &rg, &fr);
	/* A whole step is refused, and so is the half of it. */
	before = stat_of(fr);
	assert_int_equal(fault_arm("region.grow", 1, ENOSPC), 0);
	assert_int_equal(
		frames_reserve(fr, FRAME_NORMAL,
			       before.free - before.map_reserve - before.freeing_reserve + 10),
		0);
	assert_true(stat_of(fr).total > before.total && stat_of(fr).total < before.total + 256);
	before = stat_of(fr);
	assert_int_equal(fault_arm_forever("region.grow", 1, ENOSPC), 0);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 4000), -ENOSPC);
	assert_int_equal(stat_of(fr).total, before.total);
	assert_int_equal(stat_of(fr).promised, before.promised);
	assert_int_equal(fault_arm_forever("region.grow", 1, EFBIG), 0);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 4000), -ENOSPC);
	fault_reset();
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 4000), 0);
	region_poison(rg, -EIO);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 1), -EIO);
	assert_int_equal(frames_take_commit(fr), PFN_NONE);
	close_both(rg, fr);
}

/* What an earlier life has grown to behind the mark is used, whether it was punched or not. */
static void test_frame_behind_the_mark_is_backed_again(void **state)
{
	struct region *rg;
	struct frames *fr;

	(void)state;
	open_image(8192, 0, &rg, &fr);
	frames_free(fr);
	assert_int_equal(region_grow(rg, 4096), 0);
	assert_int_equal(region_punch(rg, 100, 3000), 0);
	region_close(rg);
	open_image(8192, 0, &rg, &fr);
	assert_true(stat_of(fr).total < 4096);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 3500), 0);
	assert_int_equal(region_frames(rg), 4096);
	assert_true(region_host_bytes(rg) >= 3500 * PMFS_PAGE_SIZE);
	close_both(rg, fr);
}

static void test_frame_trim_gives_back_and_takes_again(void **state)
{
	struct frame_stats st;
	struct region *rg;
	struct frames *fr;
	uint64_t host;
	pfn_t first;

	(void)state;
	open_image(1 << 16, 0, &rg, &fr);
	first = take_one(fr);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 8000), 0);
	for (int i = 0; i < 8000; i++)
		frames_take(fr);
	for (pfn_t pfn = first; pfn < first + 7000; pfn++)
		frames_drop(fr, pfn, true);
	commit(fr);
	host = region_host_bytes(rg);
	/* They were in use until now. */
	assert_int_equal(frames_trim(fr, 3600 * 1000, UINT64_MAX), 0);
	assert_int_equal(frames_trim(fr, 0, 1000), 1000);
	assert_int_equal(stat_of(fr).punched, 1000);
	assert_true(frames_trim(fr, 0, UINT64_MAX) > 4000);
	assert_int_equal(frames_trim(fr, 0, UINT64_MAX), 0);
	st = stat_of(fr);
	assert_true(st.free >= st.map_reserve + st.freeing_reserve);
	assert_true(host - region_host_bytes(rg) >= 5000 * PMFS_PAGE_SIZE);
	/* F3: what was punched comes back before the region grows. */
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 6000), 0);
	assert_int_equal(stat_of(fr).total, st.total);
	assert_true(stat_of(fr).punched + 4000 < st.punched);
	for (int i = 0; i < 6000; i++)
		assert_int_equal(region_zero(rg, frames_take(fr)), 0);
	assert_true(region_host_bytes(rg) >= 7000 * PMFS_PAGE_SIZE);
	close_both(rg, fr);
}

/* What the host does not give back when it is asked for is not lost, and not handed out. */
static void test_frame_back_is_refused(void **state)
{
	struct frame_stats st;
	struct region *rg;
	struct frames *fr;
	pfn_t first;

	(void)state;
#ifndef PMFS_FAULTS
	skip();
#endif
	open_ram(4096, &rg, &fr);
	first = take_one(fr);
	while (frames_reserve(fr, FRAME_NORMAL, 1) == 0)
		frames_take(fr);
	for (pfn_t pfn = first; pfn < first + 3000; pfn++)
		frames_drop(fr, pfn, true);
	commit(fr);
	assert_true(frames_trim(fr, 0, UINT64_MAX) > 2000);
	st = stat_of(fr);
	assert_int_equal(fault_arm_forever("region.back", 1, ENOSPC), 0);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 2000), -ENOSPC);
	assert_int_equal(stat_of(fr).punched, st.punched);
	assert_int_equal(stat_of(fr).free, st.free);
	fault_reset();
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 2000), 0);
	close_both(rg, fr);
}

/* A host that is really full can't break a commit. */
static void test_frame_full_host(void **state)
{
	struct frame_stats st;
	struct region *rg;
	struct frames *fr;
	uint64_t n = 0;

	(void)state;
	if (geteuid() != 0 || unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", dir, "tmpfs", 0, "size=8m"))
		skip();
	open_image(1 << 14, 0, &rg, &fr);
	st = stat_of(fr);
	assert_true(st.available < 2048);
	while (frames_reserve(fr, FRAME_NORMAL, 1) == 0) {
		assert_int_equal(region_zero(rg, frames_take(fr)), 0);
		n++;
	}
	assert_true(n < 2048);
	st = stat_of(fr);
	assert_int_equal(region_host_free(rg), 0);
	assert_true(st.free >= st.map_reserve + st.freeing_reserve);
	while ((n = frames_take_commit(fr)) != PFN_NONE)
		assert_int_equal(region_zero(rg, n), 0);
	assert_int_equal(region_error(rg), 0);
	close_both(rg, fr);
	assert_int_equal(umount(dir), 0);
}

/* ------------------------------------------------------------------ old images */

static void test_frame_old_is_not_given_out_before_the_scan(void **state)
{
	const uint64_t old = 1000;
	struct region *rg;
	struct frames *fr;
	pfn_t pfn;

	(void)state;
	open_image(8192, old, &rg, &fr);
	assert_false(frames_scanned(fr));
	assert_int_equal(frames_high_water(fr), old);
	assert_true(stat_of(fr).used >= old);
	assert_true(take_one(fr) >= old);
	/*
	 * In use: 100 once, 101 twice; 102 was, and was given up before the scan came by, 103 after
	 * it.
	 */
	frames_scan_count(fr, 100);
	frames_scan_count(fr, 101);
	frames_drop(fr, 102, false);
	frames_scan_count(fr, 103);
	frames_drop(fr, 103, true);
	frames_scan_count(fr, 101);
	/* Not old: not the scan's to count. */
	pfn = take_one(fr);
	frames_scan_count(fr, pfn);
	assert_int_equal(frames_count(fr, pfn), 1);
	commit(fr);
	assert_int_equal(stat_of(fr).pending, 0);
	frames_scan_done(fr);
	assert_true(frames_scanned(fr));
	assert_int_equal(frames_count(fr, 100), 1);
	assert_int_equal(frames_count(fr, 101), 2);
	assert_int_equal(stat_of(fr).shared, 1);
	/* 102 and 103, which the durable state may name until the next commit. */
	assert_int_equal(stat_of(fr).pending, 2);
	assert_int_equal(stat_of(fr).used, FIRST + 2 + 2);
	for (uint64_t n = stat_of(fr).free; n; n--) {
		pfn = frames_take_commit(fr);
		assert_true(pfn < 100 || pfn > 103);
	}
	commit(fr);
	assert_int_equal(stat_of(fr).pending, 0);
	close_both(rg, fr);
}

static void test_frame_full_old_image_waits_for_the_scan(void **state)
{
	struct region *rg;
	struct frames *fr;

	(void)state;
	open_image(1024, 1024, &rg, &fr);
	assert_int_equal(frames_reserve(fr, FRAME_FREEING, 10), -EAGAIN);
	assert_int_equal(frames_take_commit(fr), PFN_NONE);
	for (pfn_t pfn = FIRST; pfn < 512; pfn++)
		frames_scan_count(fr, pfn);
	frames_scan_done(fr);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 70), 0);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 400), -ENOSPC);
	close_both(rg, fr);
}

/* A hole among the old frames that are free has to be backed first. */
static void test_frame_old_holes_are_punched(void **state)
{
	struct region *rg;
	struct frames *fr;

	(void)state;
	open_image(8192, 0, &rg, &fr);
	assert_int_equal(region_grow(rg, 4096), 0);
	for (pfn_t pfn = FIRST; pfn < 4096; pfn++)
		assert_int_equal(region_zero(rg, pfn), 0);
	assert_int_equal(region_punch(rg, 1000, 2000), 0);
	assert_int_equal(region_flush(rg), 0);
	frames_free(fr);
	region_close(rg);
	open_image(8192, 4096, &rg, &fr);
	frames_scan_done(fr);
	assert_int_equal(stat_of(fr).punched, 2000);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 3500), 0);
	assert_true(region_host_bytes(rg) >= 3500 * PMFS_PAGE_SIZE);
	close_both(rg, fr);
}

static void test_frame_image_shorter_than_its_mark(void **state)
{
	struct region *rg;
	struct frames *fr;

	(void)state;
	open_image(8192, 100, &rg, &fr);
	frames_free(fr);
	assert_int_equal(frames_new(&fr, rg, region_frames(rg) + 1), -EIO);
	region_close(rg);
	assert_int_equal(region_open_image(&rg, image, 8192, REGION_READONLY, NULL), 0);
	assert_int_equal(frames_new(&fr, rg, 100), 0);
	assert_int_equal(frames_reserve(fr, FRAME_NORMAL, 1), -EROFS);
	assert_int_equal(frames_trim(fr, 0, 100), 0);
	close_both(rg, fr);
}

static void test_frame_check_finds_what_is_wrong(void **state)
{
	uint32_t counts[200] = { 0 };
	struct region *rg;
	struct frames *fr;
	pfn_t a, b, bad;

	(void)state;
	open_ram(4096, &rg, &fr);
	a = take_one(fr);
	b = take_one(fr);
	frames_share(fr, b);
	assert_true(a < 200 && b < 200);
	counts[a] = 1;
	counts[b] = 2;
	assert_int_equal(frames_check(fr, counts, 200, &bad), 0);
	counts[b] = 1;
	assert_int_equal(frames_check(fr, counts, 200, &bad), -EUCLEAN);
	assert_int_equal(bad, b);
	counts[b] = 2;
	counts[150] = 1;
	assert_int_equal(frames_check(fr, counts, 200, &bad), -EUCLEAN);
	assert_int_equal(bad, 150);
	/* A count for a frame that is not there. */
	assert_int_equal(frames_check(fr, counts, a, &bad), -EUCLEAN);
	assert_int_equal(bad, a);
	close_both(rg, fr);
	open_image(4096, 100, &rg, &fr);
	assert_int_equal(frames_check(fr, counts, 200, &bad), -EAGAIN);
	close_both(rg, fr);
}

/* ------------------------------------------------------------------ the model */

/*
 * Pages with a frame each, as the page map has them, over an image that was in use before.  The
 * model knows which frames the durable state and the one that is being made durable name: none of
 * these may ever be handed out (F2).
 */
#define MODEL_LIMIT 4096u
#define MODEL_OLD 1500u
#define MODEL_PAGES 6000u

struct model {
	struct region *rg;
	struct frames *fr;
	pfn_t page[MODEL_PAGES]; /* PFN_NONE: a hole */
	bool counted[MODEL_PAGES];
	uint32_t now[MODEL_LIMIT], closed[MODEL_LIMIT], durable[MODEL_LIMIT];
	bool committing;
	uint64_t scan_at, promised, took, refused;
};

static void model_init(struct model *m)
{
	memset(m, 0, sizeof(*m));
	open_image(MODEL_LIMIT, MODEL_OLD, &m->rg, &m->fr);
	for (uint64_t i = 0; i < 1000; i++) {
		m->page[i] = FIRST + rnd(MODEL_OLD - FIRST);
		m->now[m->page[i]]++;
	}
	memcpy(m->durable, m->now, sizeof(m->now));
}

static pfn_t model_got(struct model *m, pfn_t pfn)
{
	assert_true(pfn >= FIRST && pfn < region_frames(m->rg));
	if (m->now[pfn] || m->durable[pfn] || (m->committing && m->closed[pfn]))
		fail_msg("frame %llu is still needed", (unsigned long long)pfn);
	assert_int_equal(frames_count(m->fr, pfn), 1);
	m->took++;
	return pfn;
}

static void model_drop(struct model *m, uint64_t i)
{
	if (m->page[i] == PFN_NONE)
		return;
	m->now[m->page[i]]--;
	frames_drop(m->fr, m->page[i], m->counted[i] || m->page[i] >= MODEL_OLD);
	m->page[i] = PFN_NONE;
}

static void model_set(struct model *m, uint64_t i, pfn_t pfn)
{
	model_drop(m, i);
	m->page[i] = pfn;
	m->now[pfn]++;
}

static void model_write(struct model *m)
{
	uint64_t n = 1 + rnd(20), i = rnd(MODEL_PAGES);
	int rc = frames_reserve(m->fr, rnd(4) ? FRAME_NORMAL : FRAME_FREEING, n);

	if (rc) {
		m->refused++;
		assert_true(rc == -ENOSPC || rc == -EAGAIN);
		for (uint64_t k = 0; k < 100; k++)
			model_drop(m, (i + k) % MODEL_PAGES);
		return;
	}
	for (; n > rnd(3); n--, i++)
		model_set(m, i % MODEL_PAGES, model_got(m, frames_take(m->fr)));
	frames_unreserve(m->fr, n);
}

/* Some nodes of the map are written anew. */
static void model_close(struct model *m)
{
	uint64_t n = rnd(8), i = rnd(MODEL_PAGES);

	if (m->committing)
		return;
	frames_close_generation(m->fr);
	memcpy(m->closed, m->now, sizeof(m->now));
	m->committing = true;
	while (n--) {
		pfn_t pfn = frames_take_commit(m->fr), old = m->page[++i % MODEL_PAGES];

		assert_int_not_equal(pfn, PFN_NONE);
		model_got(m, pfn);
		m->closed[pfn]++;
		if (old != PFN_NONE) {
			m->now[old]--;
			m->closed[old]--;
			frames_drop_commit(m->fr, old,
					   m->counted[i % MODEL_PAGES] || old >= MODEL_OLD);
		}
		m->page[i % MODEL_PAGES] = pfn;
		m->now[pfn]++;
	}
}

static void model_release(struct model *m)
{
	if (!m->committing)
		return;
	memcpy(m->durable, m->closed, sizeof(m->closed));
	m->committing = false;
	frames_release(m->fr);
}

static void model_scan(struct model *m)
{
	for (int n = 0; n < 20 && m->scan_at < MODEL_PAGES; n++, m->scan_at++) {
		m->counted[m->scan_at] = true;
		if (m->page[m->scan_at] != PFN_NONE)
			frames_scan_count(m->fr, m->page[m->scan_at]);
	}
	if (m->scan_at == MODEL_PAGES) {
		frames_scan_done(m->fr);
		m->scan_at++;
	}
}

static void model_share(struct model *m)
{
	uint64_t from = rnd(MODEL_PAGES), to = rnd(MODEL_PAGES);

	if (!frames_scanned(m->fr) || from == to || m->page[from] == PFN_NONE)
		return;
	frames_share(m->fr, m->page[from]);
	model_set(m, to, m->page[from]);
}

static void model_check(struct model *m)
{
	struct frame_stats st = stat_of(m->fr);
	pfn_t bad = 0;
	int rc = frames_check(m->fr, m->now, MODEL_LIMIT, &bad);

	if (rc != (m->scan_at > MODEL_PAGES ? 0 : -EAGAIN))
		fail_msg("check says %d at frame %llu", rc, (unsigned long long)bad);
	/* F4, but for what the commit that runs has taken of it. */
	if (!m->committing && st.scanned)
		assert_true(st.free - st.promised >= st.map_reserve);
}

static void test_frame_model(void **state)
{
	struct model *m = malloc(sizeof(*m));

	(void)state;
	assert_non_null(m);
	seed_random();
	for (int round = 0; round < 4; round++) {
		model_init(m);
		for (int i = 0; i < 20000; i++) {
			switch (rnd(16)) {
			case 0:
				model_close(m);
				break;
			case 1:
			case 2:
				model_release(m);
				break;
			case 3:
				if (rnd(4) == 0)
					model_scan(m);
				break;
			case 4:
			case 5:
				model_share(m);
				break;
			case 6:
				model_drop(m, rnd(MODEL_PAGES));
				break;
			case 7:
				if (rnd(20) == 0)
					frames_trim(m->fr, 0, rnd(500));
				break;
			case 8:
				if (rnd(50) == 0)
					model_check(m);
				break;
			default:
				model_write(m);
				break;
			}
		}
		while (m->scan_at <= MODEL_PAGES)
			model_scan(m);
		model_check(m);
		model_release(m);
		model_check(m);
		/* It has been full, and it has given out far more than there are. */
		assert_true(m->refused > 0);
		assert_true(m->took > 4 * MODEL_LIMIT);
		for (uint64_t i = 0; i < MODEL_PAGES; i++)
			model_drop(m, i);
		commit(m->fr);
		model_check(m);
		assert_int_equal(stat_of(m->fr).used, FIRST);
		close_both(m->rg, m->fr);
	}
	free(m);
}

/* ------------------------------------------------------------------ threads */

#define WORKERS 4u
#define ROUNDS 300u

struct shared_state {
	struct frames *fr;
	struct region *rg;
	struct rwlock txn;
	bool bad;
};

/* Each frame that it has holds its own mark until it gives it up. */
static void *work(void *arg)
{
	struct shared_state *sh = arg;
	pfn_t have[32] = { 0 };
	bool bad = false;

	for (uint64_t round = 0; round < ROUNDS; round++) {
		uint64_t mark = (uint64_t)(uintptr_t)have + round;
		int rc = frames_reserve(sh->fr, FRAME_NORMAL, ARRAY_SIZE(have));

		if (rc == -EAGAIN || rc == -ENOSPC) {
			sched_yield();
			continue;
		}
		rw_rdlock(&sh->txn);
		for (size_t i = 0; i < ARRAY_SIZE(have); i++) {
			have[i] = frames_take(sh->fr);
			bad |= region_write(sh->rg, have[i], 0, &mark, sizeof(mark)) != 0;
		}
		for (size_t i = 0; i < ARRAY_SIZE(have); i++) {
			uint64_t got = 0;

			bad |= region_copy_out(sh->rg, have[i], 0, &got, sizeof(got)) != 0 ||
			       got != mark;
			bad |= frames_count(sh->fr, have[i]) != 1;
			frames_drop(sh->fr, have[i], true);
		}
		rw_unlock(&sh->txn);
	}
	return bad ? arg : NULL;
}

static void test_frame_threads(void **state)
{
	struct shared_state sh = { 0 };
	pthread_t thread[WORKERS];
	uint32_t none = 0;
	pfn_t bad;

	(void)state;
	open_ram(8192, &sh.rg, &sh.fr);
	rw_init(&sh.txn, LOCK_TXN);
	for (size_t i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, work, &sh), 0);
	for (size_t i = 0; i < 200; i++) {
		struct frame_stats st;
		pfn_t node;

		rw_wrlock(&sh.txn);
		frames_close_generation(sh.fr);
		rw_unlock(&sh.txn);
		node = frames_take_commit(sh.fr);
		assert_int_not_equal(node, PFN_NONE);
		frames_drop_commit(sh.fr, node, true);
		frames_release(sh.fr);
		frames_trim(sh.fr, 0, 100);
		frames_stat(sh.fr, &st);
		assert_int_equal(st.used + st.free + st.pending + st.punched, st.total);
	}
	for (size_t i = 0; i < WORKERS; i++) {
		void *failed;

		pthread_join(thread[i], &failed);
		assert_null(failed);
	}
	commit(sh.fr);
	assert_int_equal(stat_of(sh.fr).used, FIRST);
	assert_int_equal(stat_of(sh.fr).promised, 0);
	assert_int_equal(frames_check(sh.fr, &none, 1, &bad), 0);
	rw_destroy(&sh.txn);
	close_both(sh.rg, sh.fr);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frameset_is_what_a_plain_array_is),
		cmocka_unit_test(test_frameset_far_apart),
		cmocka_unit_test_setup_teardown(test_frame_first_ones_stand_in_a_row, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_each_class_has_its_share, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_smallest_image_has_room, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_promise_can_be_given_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_map_reserve_follows_what_is_taken, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_dropped_waits_for_its_generation, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_node_of_the_commit_is_free_after_it,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_frame_shared_is_dropped_once_for_each, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_full_says_whether_a_commit_would_do,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_frame_limit_can_be_raised, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frame_growth_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frame_behind_the_mark_is_backed_again, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_trim_gives_back_and_takes_again, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_back_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frame_old_is_not_given_out_before_the_scan,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_frame_full_old_image_waits_for_the_scan, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_old_holes_are_punched, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frame_image_shorter_than_its_mark, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_check_finds_what_is_wrong, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_frame_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frame_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_frame_full_host, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
