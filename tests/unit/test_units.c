/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/bits.h"
#include "base/units.h"

static void test_units_parse_size(void **state)
{
	static const struct { const char *text; uint64_t bytes; } good[] = {
		{ "0", 0 }, { "4096", 4096 }, { "64K", 65536 }, { "64k", 65536 },
		{ "64KiB", 65536 }, { "64KB", 65536 }, { "512B", 512 }, { "1.5M", 1572864 },
		{ "10G", UINT64_C(10) << 30 }, { "1T", UINT64_C(1) << 40 },
		{ "2P", UINT64_C(2) << 50 }, { "15E", UINT64_C(15) << 60 },
		{ "18446744073709551615", UINT64_MAX }, { "0.5K", 512 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		uint64_t bytes = 1;

		assert_int_equal(units_parse_size(good[i].text, &bytes), 0);
		assert_true(bytes == good[i].bytes);
	}
}

static void test_units_parse_size_refuses(void **state)
{
	static const struct { const char *text; int rc; } bad[] = {
		{ "", -EINVAL }, { "K", -EINVAL }, { "-1", -EINVAL }, { "+1", -EINVAL },
		{ " 1", -EINVAL }, { "1 ", -EINVAL }, { "1X", -EINVAL }, { "1KK", -EINVAL },
		{ "1KiBs", -EINVAL }, { "1.", -EINVAL }, { "1.K", -EINVAL }, { ".5K", -EINVAL },
		{ "1.5", -EINVAL }, { "1.5B", -EINVAL }, { "0x10", -EINVAL },
		{ "18446744073709551616", -ERANGE }, { "16E", -ERANGE },
		{ "99999999999999999999999999K", -ERANGE }, { "18014398509481984K", -ERANGE },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t bytes = 77;

		assert_int_equal(units_parse_size(bad[i].text, &bytes), bad[i].rc);
		assert_int_equal(bytes, 77);
	}
}

static void test_units_format_size(void **state)
{
	char buf[UNITS_BUF];

	(void)state;
	assert_string_equal(units_format_size(buf, sizeof(buf), 0), "0 B");
	assert_string_equal(units_format_size(buf, sizeof(buf), 1023), "1023 B");
	assert_string_equal(units_format_size(buf, sizeof(buf), 1024), "1.0 KiB");
	assert_string_equal(units_format_size(buf, sizeof(buf), 1572864), "1.5 MiB");
	assert_string_equal(units_format_size(buf, sizeof(buf), 1048575), "1.0 MiB");
	assert_string_equal(units_format_size(buf, sizeof(buf), (UINT64_C(1) << 30) - 1), "1.0 GiB");
	assert_string_equal(units_format_size(buf, sizeof(buf), UINT64_C(1023) << 40), "1023.0 TiB");
	assert_string_equal(units_format_size(buf, sizeof(buf), UINT64_MAX), "16.0 EiB");
	assert_string_equal(units_format_size(buf, 4, 1572864), "1.5");
}

static void test_units_format_size_exact_can_be_read_back(void **state)
{
	static const uint64_t sizes[] = {
		0, 1, 1023, 1024, 1025, 65536, 4097, UINT64_C(3) << 30, UINT64_C(1) << 63, UINT64_MAX,
	};
	char buf[UNITS_BUF];

	(void)state;
	assert_string_equal(units_format_size_exact(buf, sizeof(buf), 65536), "64K");
	assert_string_equal(units_format_size_exact(buf, sizeof(buf), 4097), "4097");
	assert_string_equal(units_format_size_exact(buf, sizeof(buf), UINT64_C(3) << 30), "3G");
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t back = 1;

		units_format_size_exact(buf, sizeof(buf), sizes[i]);
		assert_int_equal(units_parse_size(buf, &back), 0);
		assert_true(back == sizes[i]);
	}
}

static void test_units_parse_duration(void **state)
{
	int64_t ns = 77;

	(void)state;
	assert_int_equal(units_parse_duration("90", &ns), 0);
	assert_true(ns == 90 * NS_PER_SEC);
	assert_int_equal(units_parse_duration("250ms", &ns), 0);
	assert_true(ns == 250000000);
	assert_int_equal(units_parse_duration("1.5h", &ns), 0);
	assert_true(ns == 5400 * NS_PER_SEC);
	assert_int_equal(units_parse_duration("2d", &ns), 0);
	assert_true(ns == 172800 * NS_PER_SEC);
	assert_int_equal(units_parse_duration("1w", &ns), 0);
	assert_true(ns == 604800 * NS_PER_SEC);
	ns = 77;
	assert_int_equal(units_parse_duration("", &ns), -EINVAL);
	assert_int_equal(units_parse_duration("2y", &ns), -EINVAL);
	assert_int_equal(units_parse_duration("-2h", &ns), -EINVAL);
	assert_int_equal(units_parse_duration("9223372037", &ns), -ERANGE);
	assert_int_equal(units_parse_duration("99999999999999999999999w", &ns), -ERANGE);
	assert_int_equal(ns, 77);
}

static void test_units_format_duration(void **state)
{
	static const struct { int64_t ns; const char *text; } cases[] = {
		{ 0, "0 ns" }, { 999, "999 ns" }, { 1500, "1.5 us" }, { 400000, "0.4 ms" },
		{ 12345678, "12.3 ms" }, { 1500000000, "1.5 s" }, { 12 * NS_PER_SEC, "12 s" },
		{ 185 * NS_PER_SEC, "3 min 5 s" }, { 7800 * NS_PER_SEC, "2 h 10 min" },
		{ (3 * 86400 + 4 * 3600) * NS_PER_SEC, "3 d 4 h" }, { -12 * NS_PER_SEC, "-12 s" },
		{ INT64_MIN, "-106751 d 23 h" },
	};
	char buf[UNITS_BUF];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(units_format_duration(buf, sizeof(buf), cases[i].ns),
				    cases[i].text);
}

static void test_units_format_times(void **state)
{
	char buf[UNITS_BUF];

	(void)state;
	assert_string_equal(units_format_rfc3339(buf, sizeof(buf), 0), "1970-01-01T00:00:00Z");
	assert_string_equal(units_format_rfc3339(buf, sizeof(buf),
						 INT64_C(1740832205) * NS_PER_SEC + 250000000),
			    "2025-03-01T12:30:05.25Z");
	assert_string_equal(units_format_rfc3339(buf, sizeof(buf), -1),
			    "1969-12-31T23:59:59.999999999Z");
	assert_string_equal(units_format_rfc3339(buf, sizeof(buf), INT64_MAX),
			    "2262-04-11T23:47:16.854775807Z");
	setenv("TZ", "XYZ-1", 1);
	tzset();
	assert_string_equal(units_format_local(buf, sizeof(buf), INT64_C(1740832205) * NS_PER_SEC),
			    "2025-03-01 13:30:05");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_units_parse_size),
		cmocka_unit_test(test_units_parse_size_refuses),
		cmocka_unit_test(test_units_format_size),
		cmocka_unit_test(test_units_format_size_exact_can_be_read_back),
		cmocka_unit_test(test_units_parse_duration),
		cmocka_unit_test(test_units_format_duration),
		cmocka_unit_test(test_units_format_times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
