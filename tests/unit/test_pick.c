/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/bits.h"
#include "base/units.h"
#include "ctl/pick.h"

#define HOUR (3600 * NS_PER_SEC)
#define NOW  (INT64_C(1790000000) * NS_PER_SEC)

static const struct pick_entry snaps[] = {
	{"old", NOW - 100 * HOUR},
	{"middle", NOW - 2 * HOUR},
	{"clock-set-back", NOW - 50 * HOUR},
	{"new", NOW - HOUR / 2},
};

static void expect(const char *what, int rc, size_t index)
{
	size_t got = 99;

	assert_int_equal(pick_snapshot(snaps, ARRAY_SIZE(snaps), what, NOW, &got), rc);
	assert_int_equal(got, rc ? 99 : index);
}

static void test_pick_name(void **state)
{
	(void)state;
	expect("middle", 0, 1);
	expect("new", 0, 3);
	expect("ne", -ENOENT, 0);
	expect("", -ENOENT, 0);
	expect("live", -ENOENT, 0);
}

static void test_pick_counted_back(void **state)
{
	(void)state;
	expect("@-1", 0, 3);
	expect("@-4", 0, 0);
	expect("@-5", -ENOENT, 0);
	expect("@-99999999999999999999", -ENOENT, 0);
	expect("@-0", -EINVAL, 0);
	expect("@-", -EINVAL, 0);
	expect("@--1", -EINVAL, 0);
	expect("@-1x", -EINVAL, 0);
}

static void test_pick_age(void **state)
{
	(void)state;
	expect("@0s", 0, 3);
	expect("@30m", 0, 3);
	expect("@31m", 0, 1);
	expect("@2h", 0, 1);
	expect("@3h", 0, 2);
	expect("@4d", 0, 0);
	expect("@1w", -ENOENT, 0);
	expect("@2", -EINVAL, 0);
	expect("@", -EINVAL, 0);
	expect("@h", -EINVAL, 0);
	expect("@+2h", -EINVAL, 0);
	expect("@2h ", -EINVAL, 0);
}

static void test_pick_of_none(void **state)
{
	size_t got;

	(void)state;
	assert_int_equal(pick_snapshot(NULL, 0, "@-1", NOW, &got), -ENOENT);
	assert_int_equal(pick_snapshot(NULL, 0, "@1h", NOW, &got), -ENOENT);
	assert_int_equal(pick_snapshot(NULL, 0, "x", NOW, &got), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pick_name),
		cmocka_unit_test(test_pick_counted_back),
		cmocka_unit_test(test_pick_age),
		cmocka_unit_test(test_pick_of_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
