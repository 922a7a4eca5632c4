/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host fails at the nth write, flush or growth, for every n until it is never reached.  What
 * was durable stays, nothing crashes, and the image is whole when it is opened again.  PMFS_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/fault.h"
#include "base/log.h"
#include "lib/fsmodel.h"
#include "tree/reclaim.h"

#define MIB (UINT64_C(1) << 20)

static struct model m;
static struct mstate before;

static int count_snap(void *arg, const struct fs_snapshot *snap)
{
	(void)snap;
	++*(unsigned *)arg;
	return 0;
}

static bool snapshots_as(struct fs *fs, const struct mstate *s)
{
	struct fs_snapshot snap;
	unsigned n = 0;

	fs_snap_each(fs, count_snap, &n);
	for (unsigned i = 0; i < s->snaps; i++)
		if (fs_snap_find(fs, s->snap[i].name, &snap))
			return false;
	return n == s->snaps;
}

/* Some operations with a fault armed.  True: it has struck. */
static bool run(struct fsfix *fx, const char *fault, uint64_t nth, int err, uint64_t ops)
{
	char why[256];
	bool struck;

	m = (struct model){.may_fail = err == EIO, .may_be_full = err == ENOSPC};
	fsfix_image(fx, 64 * MIB);
	m.rnd.state = fsfix_env("PMFS_SEED", 1);
	model_start(&m, fx, false);
	fault_reset();
	assert_int_equal(fault_arm_forever(fault, nth, err), 0);
	for (uint64_t i = 0; i < ops && !m.failed; i++) {
		mstate_clear(&before);
		mstate_copy(&before, &m.now);
		model_step(&m);
		if (i % 40 != 39 || m.failed)
			continue;
		mstate_clear(&before);
		mstate_copy(&before, &m.now);
		model_sync(&m);
	}
	struck = m.failed || m.full;
	fault_reset();
	if (!m.failed) {
		model_compare(&m);
		fsfix_check(fx);
	}
	fsfix_crash(fx);
	fsfix_start(fx);
	/* A commit that failed may be there or not; if a snapshot was its matter, its list is
	 * neither state's. */
	if (snapshots_as(fx->fs, &m.durable) &&
	    model_differs(fx->fs, &m.durable, why, sizeof(why)) &&
	    (!m.failed || model_differs(fx->fs, &before, why, sizeof(why))))
		fail_msg("%s %" PRIu64 ": %s", fault, nth, why);
	fsfix_check(fx);
	assert_true(reclaim_run(fx->fs) >= 0);
	fsfix_check(fx);
	mstate_clear(&before);
	model_end(&m);
	fsfix_free(fx);
	return struck;
}

static void loop(const char *fault, int err, uint64_t step, uint64_t ops)
{
	struct fsfix fx;
	uint64_t nth = 1;

	fault_reset();
	if (fault_arm(fault, 1, err) == -EOPNOTSUPP)
		skip();
	fault_reset();
	while (run(&fx, fault, nth, err, ops))
		nth += step;
	print_message("%s:\ntries: %" PRIu64 " faults\n", fault, (nth - 1) / step);
	assert_true(nth > 1);
}

static void test_fs_fault_flush(void **state)
{
	(void)state;
	loop("region.flush", EIO, 1, 250);
}

static void test_fs_fault_write(void **state)
{
	(void)state;
	loop("region.write", EIO, 7, 250);
}

static void test_fs_fault_growth(void **state)
{
	(void)state;
	loop("region.grow", ENOSPC, 1, 4000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fs_fault_flush),
		cmocka_unit_test(test_fs_fault_write),
		cmocka_unit_test(test_fs_fault_growth),
	};

	/* "No more writes until the image is opened again" is what is asked for here. */
	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
