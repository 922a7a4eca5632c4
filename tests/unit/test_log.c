/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

struct seen {
	unsigned int count;
	enum log_level level;
	char text[2048];
};

static void collect(void *arg, enum log_level level, const char *text)
{
	struct seen *seen = arg;

	seen->count++;
	seen->level = level;
	snprintf(seen->text, sizeof(seen->text), "%s", text);
}

static struct seen seen;

static int setup(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	log_to_function(collect, &seen);
	log_set_level(LOG_LEVEL_INFO);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	log_to_function(NULL, NULL);
	return 0;
}

static void test_log_level_drops_what_is_above(void **state)
{
	(void)state;
	log_debug("no");
	assert_int_equal(seen.count, 0);
	log_info("yes %d", 1);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.level, LOG_LEVEL_INFO);
	assert_string_equal(seen.text, "yes 1");
	log_set_level(LOG_LEVEL_ERR);
	log_warn("no");
	assert_int_equal(seen.count, 1);
	log_err("yes");
	assert_int_equal(seen.count, 2);
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("yes");
	assert_int_equal(seen.count, 3);
	assert_int_equal(seen.level, LOG_LEVEL_DEBUG);
}

static void test_log_debug_arguments_cost_nothing_when_off(void **state)
{
	unsigned int evaluated = 0;

	(void)state;
	log_debug("%u", ++evaluated);
	assert_int_equal(evaluated, 0);
}

static void test_log_cuts_long_messages(void **state)
{
	char longer[4000];

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	log_err("%s", longer);
	assert_int_equal(strlen(seen.text), 1023);
}

static void test_log_keeps_errno(void **state)
{
	(void)state;
	errno = ENOSPC;
	log_err("%s", strerror(EIO));
	assert_int_equal(errno, ENOSPC);
	log_limited(LOG_LEVEL_ERR, "keeps-errno", "%s", strerror(EIO));
	assert_int_equal(errno, ENOSPC);
}

static void test_log_limit_window(void **state)
{
	uint64_t left_out = 99;
	uint64_t now = 1000;

	(void)state;
	for (int i = 0; i < LOG_LIMIT_BURST; i++) {
		assert_true(log_limit_pass("window", now + (uint64_t)i, &left_out));
		assert_int_equal(left_out, 0);
	}
	for (int i = 0; i < 7; i++)
		assert_false(log_limit_pass("window", now + LOG_LIMIT_NS - 1, &left_out));
	/* Another kind of message is not held up by the first. */
	assert_true(log_limit_pass("other", now, &left_out));
	assert_true(log_limit_pass("window", now + LOG_LIMIT_NS, &left_out));
	assert_int_equal(left_out, 7);
	assert_true(log_limit_pass("window", now + LOG_LIMIT_NS, &left_out));
	assert_int_equal(left_out, 0);
}

/* More kinds than there is room for: the limit gets weaker, and nothing worse. */
static void test_log_limit_many_keys(void **state)
{
	uint64_t left_out;
	char key[16];

	(void)state;
	for (unsigned int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "key%u", i);
		assert_true(log_limit_pass(key, 5000 + i, &left_out));
		assert_int_equal(left_out, 0);
	}
}

static void test_log_limited_drops_repetitions(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++)
		log_limited(LOG_LEVEL_WARN, "repeated", "message %d", i);
	assert_int_equal(seen.count, LOG_LIMIT_BURST);
	assert_string_equal(seen.text, "message 4");
}

static void test_log_stderr_has_the_name_in_front(void **state)
{
	char line[64] = "";
	int fds[2], saved;
	ssize_t n;

	(void)state;
	log_to_function(NULL, NULL);
	assert_int_equal(pipe(fds), 0);
	saved = dup(STDERR_FILENO);
	assert_true(saved >= 0);
	dup2(fds[1], STDERR_FILENO);
	log_set_name("pmfs-test");
	log_err("no such image: %s", "x.img");
	log_set_name("pmfs");
	dup2(saved, STDERR_FILENO);
	n = read(fds[0], line, sizeof(line) - 1);
	close(saved);
	close(fds[0]);
	close(fds[1]);
	assert_true(n > 0);
	assert_string_equal(line, "pmfs-test: no such image: x.img\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_log_level_drops_what_is_above, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_debug_arguments_cost_nothing_when_off,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_cuts_long_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_keeps_errno, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_limit_window, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_limit_many_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_limited_drops_repetitions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_stderr_has_the_name_in_front, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
