/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "cmd/mountopt.h"

static char why[160];

static int parse(struct mountopt *mo, const char *arg, bool root)
{
	why[0] = 0;
	return mountopt_parse(mo, arg, root, why, sizeof(why));
}

static void test_mountopt_defaults(void **state)
{
	struct mountopt mo;

	(void)state;
	mountopt_init(&mo);
	assert_false(mo.read_only || mo.allow_other || mo.dev || mo.suid || mo.snapdir_visible ||
		     mo.writeback || mo.no_xattr);
	assert_int_equal(mo.io_uring, -1);
	assert_int_equal(mo.threads, 0);
	assert_int_equal(mo.commit_ms, 5000);
	assert_int_equal(mo.size, 0);
	assert_string_equal(mo.flags, "");
}

static void test_mountopt_all(void **state)
{
	struct mountopt mo;

	(void)state;
	mountopt_init(&mo);
	assert_int_equal(
		parse(&mo, "ro,allow_other,dev,suid,snapdir=visible,writeback,noxattr", true), 0);
	assert_true(mo.read_only && mo.allow_other && mo.dev && mo.suid && mo.snapdir_visible &&
		    mo.writeback && mo.no_xattr);
	assert_int_equal(parse(&mo, "io_uring=off,threads=7,commit=30,size=1.5G", true), 0);
	assert_int_equal(mo.io_uring, 0);
	assert_int_equal(mo.threads, 7);
	assert_int_equal(mo.commit_ms, 30000);
	assert_true(mo.size == UINT64_C(3) << 29);
	/* The later one wins. */
	assert_int_equal(parse(&mo, "rw,nodev,nosuid,snapdir=hidden,io_uring=auto,commit=1", true),
			 0);
	assert_false(mo.read_only || mo.dev || mo.suid || mo.snapdir_visible);
	assert_int_equal(mo.io_uring, -1);
	assert_int_equal(mo.commit_ms, 1000);
}

static void test_mountopt_kernel_flags(void **state)
{
	struct mountopt mo;

	(void)state;
	mountopt_init(&mo);
	assert_int_equal(parse(&mo, "noexec,noatime", false), 0);
	assert_string_equal(mo.flags, "noexec,noatime");
	assert_int_equal(parse(&mo, "exec,sync,noatime", false), 0);
	assert_string_equal(mo.flags, "sync,noatime");
	assert_int_equal(parse(&mo, "atime,dirsync,async", false), 0);
	assert_string_equal(mo.flags, "");
	assert_int_equal(parse(&mo,
			       "noexec,noatime,nodiratime,sync,dirsync,noexec,noatime,nodiratime,"
			       "sync,dirsync",
			       false),
			 0);
	assert_string_equal(mo.flags, "noexec,noatime,nodiratime,sync,dirsync");
}

static void test_mountopt_ignores_what_mount_uses(void **state)
{
	struct mountopt mo, fresh;

	(void)state;
	mountopt_init(&mo);
	mountopt_init(&fresh);
	assert_int_equal(parse(&mo,
			       "rw,,defaults,auto,noauto,user,user=me,nouser,nofail,_netdev,x-"
			       "systemd.automount,x-a=b\\,c,X-mount.mkdir,"
			       "default_permissions,fsname=a\\\\b,subtype=pmfs,comment=it",
			       false),
			 0);
	assert_memory_equal(&mo, &fresh, sizeof(mo));
}

static void test_mountopt_refuses(void **state)
{
	static const char *const bad[] = {
		"nonsense", "nonsense=1",   "size",	    "size=",	    "size=0",	 "size=x",
		"size=-1",  "commit=0",	    "commit=-1",    "commit=86401", "commit=1s", "commit=",
		"commit",   "threads=0",    "threads=1025", "threads=+1",   "threads",	 "snapdir",
		"snapdir=", "snapdir=both", "io_uring=on",  "io_uring",	    "RO",	 " ro",
		"ro ",	    "ro=1",
	};
	struct mountopt mo;

	(void)state;
	mountopt_init(&mo);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char name[32];

		assert_int_equal(parse(&mo, bad[i], true), -EINVAL);
		/* By name. */
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(bad[i], "="), bad[i]);
		assert_non_null(strstr(why, name));
	}
	assert_int_equal(parse(&mo, "dev", false), -EPERM);
	assert_int_equal(parse(&mo, "suid", false), -EPERM);
	assert_int_equal(parse(&mo, "nodev,nosuid", false), 0);
}

static void test_mountopt_of_later_versions(void **state)
{
	static const char *const later[] = {"private", "snapshot=x", "dedup=background",
					    "dedup_mem=1G"};
	struct mountopt mo;

	(void)state;
	mountopt_init(&mo);
	for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
		assert_int_equal(parse(&mo, later[i], true), -EOPNOTSUPP);
		assert_non_null(strstr(why, "not available yet"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mountopt_defaults),
		cmocka_unit_test(test_mountopt_all),
		cmocka_unit_test(test_mountopt_kernel_flags),
		cmocka_unit_test(test_mountopt_ignores_what_mount_uses),
		cmocka_unit_test(test_mountopt_refuses),
		cmocka_unit_test(test_mountopt_of_later_versions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
