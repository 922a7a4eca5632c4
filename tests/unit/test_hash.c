/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"

/* Values of the XXH3 reference implementation: they are on disk and can never change. */
static void test_hash_known_values(void **state)
{
	static const unsigned char zeros[4096];

	(void)state;
	assert_true(hash64(NULL, 0) == UINT64_C(0x2d06800538d394c2));
	assert_true(hash64("a", 1) == UINT64_C(0xe6c632b61e964e1f));
	assert_true(hash64("abc", 3) == UINT64_C(0x78af5f94892f3950));
	assert_true(hash64(zeros, sizeof(zeros)) == hash64_seed(zeros, sizeof(zeros), 0));
}

static void test_hash_seed_and_length_matter(void **state)
{
	static const unsigned char zeros[4096];

	(void)state;
	assert_true(hash64_seed("abc", 3, 1) != hash64("abc", 3));
	assert_true(hash64(zeros, 4096) != hash64(zeros, 4095));
	assert_true(hash64_seed(zeros, 4096, 1) != hash64_seed(zeros, 4096, 2));
}

/* A checksum that missed one flipped bit would be of no use. */
static void test_hash_sees_every_flipped_bit(void **state)
{
	unsigned char page[512];
	uint64_t good;

	(void)state;
	for (size_t i = 0; i < sizeof(page); i++)
		page[i] = (unsigned char)(i * 7);
	good = hash64(page, sizeof(page));
	for (size_t bit = 0; bit < sizeof(page) * 8; bit++) {
		page[bit / 8] ^= (unsigned char)(1U << (bit % 8));
		assert_true(hash64(page, sizeof(page)) != good);
		page[bit / 8] ^= (unsigned char)(1U << (bit % 8));
	}
	assert_true(hash64(page, sizeof(page)) == good);
}

static void test_hash_mem_is_zero(void **state)
{
	unsigned char buf[100];

	(void)state;
	memset(buf, 0, sizeof(buf));
	assert_true(mem_is_zero(NULL, 0));
	/* Every start, length and place of the one byte that is not zero. */
	for (size_t start = 0; start < 9; start++) {
		for (size_t len = 0; start + len <= 80; len++) {
			buf[start + len] = 1;
			if (start)
				buf[start - 1] = 1;
			assert_true(mem_is_zero(buf + start, len));
			buf[start + len] = 0;
			if (start)
				buf[start - 1] = 0;
			for (size_t at = 0; at < len; at++) {
				buf[start + at] = 0x80;
				assert_false(mem_is_zero(buf + start, len));
				buf[start + at] = 0;
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash_known_values),
		cmocka_unit_test(test_hash_seed_and_length_matter),
		cmocka_unit_test(test_hash_sees_every_flipped_bit),
		cmocka_unit_test(test_hash_mem_is_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
