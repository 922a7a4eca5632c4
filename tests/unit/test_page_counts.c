/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tree/page_counts.h"

#define LIMIT (UINT64_C(1) << 30)

/* Counts on either side of what a byte holds, and pages far from each other. */
static void test_page_counts_exact(void **state)
{
	static const uint64_t want[] = {0, 1, 2, 253, 254, 255, 256, 257, 1000, 70000};
	struct page_counts pc;
	const size_t n = sizeof(want) / sizeof(want[0]);

	(void)state;
	assert_int_equal(page_counts_init(&pc, LIMIT), 0);
	for (size_t i = 0; i < n; i++)
		for (uint64_t k = 0; k < want[i]; k++)
			assert_int_equal(page_counts_add(&pc, 1 + i * 9999991), 0);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(page_counts_get(&pc, 1 + i * 9999991), want[i]);
		assert_int_equal(page_counts_get(&pc, 2 + i * 9999991), 0);
	}
	page_counts_zero(&pc, 1 + 9 * 9999991);
	assert_int_equal(page_counts_get(&pc, 1 + 9 * 9999991), 0);
	for (unsigned k = 0; k < 300; k++)
		assert_int_equal(page_counts_add(&pc, 1 + 9 * 9999991), 0);
	assert_int_equal(page_counts_get(&pc, 1 + 9 * 9999991), 300);
	page_counts_clear(&pc);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(page_counts_get(&pc, 1 + i * 9999991), 0);
	page_counts_free(&pc);
}

/* Many pages with many pointers each: the table grows. */
static void test_page_counts_many(void **state)
{
	struct page_counts pc;

	(void)state;
	assert_int_equal(page_counts_init(&pc, LIMIT), 0);
	for (vpn_t vpn = 1; vpn < 500; vpn++)
		for (uint64_t k = 0; k < 250 + vpn; k++)
			assert_int_equal(page_counts_add(&pc, vpn), 0);
	for (vpn_t vpn = 1; vpn < 500; vpn++)
		assert_int_equal(page_counts_get(&pc, vpn), 250 + vpn);
	page_counts_free(&pc);
}

static void test_page_counts_role(void **state)
{
	struct page_counts pc;

	(void)state;
	assert_int_equal(page_counts_init(&pc, LIMIT), 0);
	assert_int_equal(page_counts_role(&pc, LIMIT - 1), 0);
	assert_int_equal(page_counts_set_role(&pc, LIMIT - 1, 0x8a), 0);
	assert_int_equal(page_counts_role(&pc, LIMIT - 1), 0x8a);
	assert_int_equal(page_counts_get(&pc, LIMIT - 1), 0);
	assert_int_equal(page_counts_role(&pc, LIMIT + 5), 0);
	assert_int_equal(page_counts_get(&pc, LIMIT + 5), 0);
	page_counts_free(&pc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_page_counts_exact),
		cmocka_unit_test(test_page_counts_many),
		cmocka_unit_test(test_page_counts_role),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
