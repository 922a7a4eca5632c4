/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

#ifdef PMFS_FAULTS

#include "base/log.h"

static int setup(void **state)
{
	(void)state;
	fault_reset();
	unsetenv("PMFS_FAULTS");
	return 0;
}

static void test_fault_nth_hit_fails_once(void **state)
{
	(void)state;
	assert_int_equal(fault_hit("a"), 0);
	assert_int_equal(fault_arm("a", 3, EIO), 0);
	assert_int_equal(fault_hit("a"), 0);
	assert_int_equal(fault_hit("b"), 0);
	assert_int_equal(fault_hit("a"), 0);
	assert_int_equal(fault_hit("a"), -EIO);
	assert_int_equal(fault_hit("a"), 0);
	assert_int_equal(fault_count("a"), 5);
	assert_int_equal(fault_count("b"), 1);
	assert_int_equal(fault_count("c"), 0);
}

static void test_fault_forever(void **state)
{
	(void)state;
	assert_int_equal(fault_arm_forever("a", 2, ENOSPC), 0);
	assert_int_equal(fault_hit("a"), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(fault_hit("a"), -ENOSPC);
	/* What is armed anew replaces what was. */
	assert_int_equal(fault_arm("a", 1, EIO), 0);
	assert_int_equal(fault_hit("a"), -EIO);
	assert_int_equal(fault_hit("a"), 0);
}

static void test_fault_reset_disarms_and_forgets(void **state)
{
	(void)state;
	assert_int_equal(fault_arm_forever("a", 1, EIO), 0);
	assert_int_equal(fault_hit("a"), -EIO);
	fault_reset();
	assert_int_equal(fault_count("a"), 0);
	assert_int_equal(fault_hit("a"), 0);
	assert_int_equal(fault_count("a"), 1);
}

static void test_fault_arm_refuses_nonsense(void **state)
{
	char longer[64];

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(fault_arm("a", 0, EIO), -EINVAL);
	assert_int_equal(fault_arm("a", 1, 0), -EINVAL);
	assert_int_equal(fault_arm("a", 1, -EIO), -EINVAL);
	assert_int_equal(fault_arm("", 1, EIO), -EINVAL);
	assert_int_equal(fault_arm(longer, 1, EIO), -EINVAL);
	assert_int_equal(fault_hit(longer), 0);
	assert_int_equal(fault_hit("a"), 0);
}

static void test_fault_too_many_names(void **state)
{
	char name[8];
	int rc = 0;

	(void)state;
	for (int i = 0; i < 1000 && !rc; i++) {
		name[0] = (char)('a' + i / 100);
		name[1] = (char)('0' + i / 10 % 10);
		name[2] = (char)('0' + i % 10);
		name[3] = '\0';
		rc = fault_arm(name, 1, EIO);
	}
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(fault_hit("a00"), -EIO);
	assert_int_equal(fault_hit("one more"), 0);
}

static void test_fault_environment(void **state)
{
	(void)state;
	assert_int_equal(fault_init_env(), 0);
	setenv("PMFS_FAULTS", "region.sync:2:EIO,frame.alloc:1+:28", 1);
	assert_int_equal(fault_init_env(), 0);
	assert_int_equal(fault_hit("region.sync"), 0);
	assert_int_equal(fault_hit("region.sync"), -EIO);
	assert_int_equal(fault_hit("region.sync"), 0);
	assert_int_equal(fault_hit("frame.alloc"), -28);
	assert_int_equal(fault_hit("frame.alloc"), -28);
}

static void ignore(void *arg, enum log_level level, const char *text)
{
	unsigned int *count = arg;

	(void)level;
	(void)text;
	++*count;
}

static void test_fault_environment_refuses_nonsense(void **state)
{
	static const char *const bad[] = {
		"a", "a:1", "a:1:", "a:x:EIO", "a:0:EIO", "a:-1:EIO", "a:1:ENOSUCH", "a:1:-5",
		":1:EIO", "a::EIO", "a:1+x:EIO", "a:99999999999999999999999:EIO",
	};
	unsigned int messages = 0;

	(void)state;
	log_to_function(ignore, &messages);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		setenv("PMFS_FAULTS", bad[i], 1);
		assert_int_equal(fault_init_env(), -EINVAL);
		assert_int_equal(messages, i + 1);
		assert_int_equal(fault_hit("a"), 0);
	}
	log_to_function(NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_fault_nth_hit_fails_once, setup),
		cmocka_unit_test_setup(test_fault_forever, setup),
		cmocka_unit_test_setup(test_fault_reset_disarms_and_forgets, setup),
		cmocka_unit_test_setup(test_fault_arm_refuses_nonsense, setup),
		cmocka_unit_test_setup(test_fault_too_many_names, setup),
		cmocka_unit_test_setup(test_fault_environment, setup),
		cmocka_unit_test_setup(test_fault_environment_refuses_nonsense, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void test_fault_is_compiled_away(void **state)
{
	(void)state;
	assert_int_equal(fault_arm("a", 1, EIO), -EOPNOTSUPP);
	assert_int_equal(fault_arm_forever("a", 1, EIO), -EOPNOTSUPP);
	fault_reset();
	assert_int_equal(fault_hit("a"), 0);
	assert_int_equal(fault_count("a"), 0);
	setenv("PMFS_FAULTS", "a:1:EIO", 1);
	assert_int_equal(fault_init_env(), 0);
	assert_int_equal(fault_hit("a"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fault_is_compiled_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
