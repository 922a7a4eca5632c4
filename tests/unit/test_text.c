/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/bits.h"
#include "ctl/text.h"

static void test_text_that_is_utf8_has_no_twin(void **state)
{
	json_t *obj = json_object();
	char buf[32];

	(void)state;
	assert_int_equal(text_set(obj, "dir", "/mnt/\xc3\xa4 \"x\""), 0);
	assert_int_equal(json_object_size(obj), 1);
	assert_true(text_get(obj, "dir", buf, sizeof(buf)));
	assert_string_equal(buf, "/mnt/\xc3\xa4 \"x\"");
	json_decref(obj);
}

static void test_text_that_is_not_can_be_read_back(void **state)
{
	static const char *const texts[] = {
		"\xff", "a\xff", "ab\xff", "abc\xff", "/\x80\x81/\xfe\xff/x", "\xc3"};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		json_t *obj = json_object();

		assert_int_equal(text_set(obj, "dir", texts[i]), 0);
		assert_int_equal(json_object_size(obj), 2);
		assert_int_equal(strlen(json_string_value(json_object_get(obj, "dir"))),
				 strlen(texts[i]));
		assert_true(text_get(obj, "dir", buf, sizeof(buf)));
		assert_string_equal(buf, texts[i]);
		/* It has to fit, with its end. */
		assert_false(text_get(obj, "dir", buf, strlen(texts[i])));
		assert_true(text_get(obj, "dir", buf, strlen(texts[i]) + 1));
		json_decref(obj);
	}
}

static void test_text_known_base64(void **state)
{
	json_t *obj = json_object();

	(void)state;
	assert_int_equal(text_set(obj, "x", "\xff\xee"), 0);
	assert_string_equal(json_string_value(json_object_get(obj, "x_base64")), "/+4=");
	assert_string_equal(json_string_value(json_object_get(obj, "x")), "??");
	json_decref(obj);
}

static void test_text_refuses_what_is_no_base64(void **state)
{
	static const char *const bad[] = {"A",	      "AB",    "ABC",	  "ABC-",
					  "=AAA",     "A=AA",  "AA=A",	  "AAA=AAAA",
					  "AAAA====", "AA\nA", "AA==AA=="};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *obj = json_pack("{s:s}", "x_base64", bad[i]);

		assert_false(text_get(obj, "x", buf, sizeof(buf)));
		json_decref(obj);
	}
	/* A NUL in the middle would be another name. */
	json_t *nul = json_pack("{s:s}", "x_base64", "YQBi");

	assert_false(text_get(nul, "x", buf, sizeof(buf)));
	json_decref(nul);
	assert_false(text_get(NULL, "x", buf, sizeof(buf)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_that_is_utf8_has_no_twin),
		cmocka_unit_test(test_text_that_is_not_can_be_read_back),
		cmocka_unit_test(test_text_known_base64),
		cmocka_unit_test(test_text_refuses_what_is_no_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
