/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "pmfs/le.h"

static void test_bits_align(void **state)
{
	(void)state;
	assert_int_equal(ALIGN_UP(UINT64_C(0), 4096), 0);
	assert_int_equal(ALIGN_UP(UINT64_C(1), 4096), 4096);
	assert_int_equal(ALIGN_UP(UINT64_C(4096), 4096), 4096);
	assert_int_equal(ALIGN_DOWN(UINT64_C(4095), 4096), 0);
	assert_int_equal(ALIGN_DOWN(UINT64_C(8191), 4096), 4096);
	/* Above 32 bits, with an int as alignment. */
	assert_true(ALIGN_UP(UINT64_C(0x123456789001), 4096) == UINT64_C(0x12345678a000));
	assert_true(ALIGN_DOWN(UINT64_C(0xffffffffffffffff), 4096) == UINT64_C(0xfffffffffffff000));
	assert_true(IS_ALIGNED(UINT64_C(1) << 40, 4096));
	assert_false(IS_ALIGNED((UINT64_C(1) << 40) + 8, 4096));
}

static void test_bits_div_round_up(void **state)
{
	(void)state;
	assert_int_equal(DIV_ROUND_UP(0U, 8U), 0);
	assert_int_equal(DIV_ROUND_UP(1U, 8U), 1);
	assert_int_equal(DIV_ROUND_UP(8U, 8U), 1);
	assert_int_equal(DIV_ROUND_UP(9U, 8U), 2);
	assert_true(DIV_ROUND_UP(UINT64_MAX, UINT64_C(4096)) == UINT64_C(1) << 52);
}

static void test_bits_pow2_log2(void **state)
{
	(void)state;
	assert_false(is_pow2(0));
	assert_false(is_pow2(6));
	for (unsigned int i = 0; i < 64; i++) {
		assert_true(is_pow2(UINT64_C(1) << i));
		assert_int_equal(log2_floor(UINT64_C(1) << i), i);
		assert_int_equal(log2_floor(UINT64_MAX >> (63 - i)), i);
	}
}

static void test_bits_checked_arithmetic(void **state)
{
	uint64_t r = 7;

	(void)state;
	assert_true(checked_add(UINT64_MAX - 1, 1, &r));
	assert_true(r == UINT64_MAX);
	r = 7;
	assert_false(checked_add(UINT64_MAX, 1, &r));
	assert_int_equal(r, 7);
	assert_true(checked_mul(UINT64_C(1) << 32, UINT32_MAX, &r));
	assert_true(r == UINT64_C(0xffffffff00000000));
	r = 7;
	assert_false(checked_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &r));
	assert_int_equal(r, 7);
}

static void test_bits_range_fits(void **state)
{
	(void)state;
	assert_true(range_fits(0, 0, 0));
	assert_true(range_fits(10, 0, 10));
	assert_true(range_fits(3, 7, 10));
	assert_false(range_fits(3, 8, 10));
	assert_false(range_fits(11, 0, 10));
	assert_false(range_fits(1, UINT64_MAX, 10));
	assert_false(range_fits(UINT64_MAX, 2, UINT64_MAX));
	assert_true(range_fits(1, UINT64_MAX - 1, UINT64_MAX));
}

static void test_bits_set_and_clear_touch_one_bit(void **state)
{
	uint64_t map[3];

	(void)state;
	assert_int_equal(BITMAP_WORDS(129U), 3);
	for (uint64_t bit = 0; bit < 192; bit++) {
		memset(map, 0, sizeof(map));
		bit_set(map, bit);
		assert_int_equal(bit_count(map[0]) + bit_count(map[1]) + bit_count(map[2]), 1);
		assert_true(bit_test(map, bit));
		bit_clear(map, bit);
		assert_int_equal(map[0] | map[1] | map[2], 0);
		memset(map, 0xff, sizeof(map));
		bit_clear(map, bit);
		assert_false(bit_test(map, bit));
		assert_int_equal(bit_count(map[0]) + bit_count(map[1]) + bit_count(map[2]), 191);
	}
}

static void test_bits_find(void **state)
{
	uint64_t map[4], inverse[4];

	(void)state;
	memset(map, 0, sizeof(map));
	assert_int_equal(bit_find_set(map, 200, 0), 200);
	assert_int_equal(bit_find_zero(map, 200, 199), 199);
	assert_int_equal(bit_find_zero(map, 200, 200), 200);
	assert_int_equal(bit_find_zero(map, 200, 4000), 200);
	assert_int_equal(bit_find_set(map, 0, 0), 0);
	/* Every pair of start and bit, against the definition. */
	for (uint64_t bit = 0; bit < 200; bit++) {
		memset(map, 0, sizeof(map));
		bit_set(map, bit);
		for (size_t i = 0; i < ARRAY_SIZE(map); i++)
			inverse[i] = ~map[i];
		for (uint64_t from = 0; from < 200; from++) {
			const uint64_t want = from <= bit ? bit : 200;

			assert_int_equal(bit_find_set(map, 200, from), want);
			assert_int_equal(bit_find_zero(inverse, 200, from), want);
		}
	}
	/* A bit past the end is not found. */
	memset(map, 0, sizeof(map));
	bit_set(map, 200);
	assert_int_equal(bit_find_set(map, 200, 0), 200);
	assert_int_equal(bit_find_set(map, 201, 0), 200);
}

struct outer {
	int before;
	struct inner {
		char c;
	} inner;
};

static void test_bits_container_of(void **state)
{
	struct outer o;

	(void)state;
	assert_ptr_equal(container_of(&o.inner, struct outer, inner), &o);
}

static void test_bits_le_byte_order(void **state)
{
	static const uint8_t want[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	le16 v16 = le16_make(0x0201);
	le32 v32 = le32_make(0x04030201);
	le64 v64 = le64_make(UINT64_C(0x0807060504030201));

	(void)state;
	assert_memory_equal(&v16, want, 2);
	assert_memory_equal(&v32, want, 4);
	assert_memory_equal(&v64, want, 8);
	assert_int_equal(le16_get(v16), 0x0201);
	assert_int_equal(le32_get(v32), 0x04030201);
	assert_true(le64_get(v64) == UINT64_C(0x0807060504030201));
	le16_put(&v16, 0xfffe);
	le32_put(&v32, 0xfffffffe);
	le64_put(&v64, UINT64_MAX - 1);
	assert_int_equal(le16_get(v16), 0xfffe);
	assert_int_equal(le32_get(v32), 0xfffffffe);
	assert_true(le64_get(v64) == UINT64_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bits_align),
		cmocka_unit_test(test_bits_div_round_up),
		cmocka_unit_test(test_bits_pow2_log2),
		cmocka_unit_test(test_bits_checked_arithmetic),
		cmocka_unit_test(test_bits_range_fits),
		cmocka_unit_test(test_bits_set_and_clear_touch_one_bit),
		cmocka_unit_test(test_bits_find),
		cmocka_unit_test(test_bits_container_of),
		cmocka_unit_test(test_bits_le_byte_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
