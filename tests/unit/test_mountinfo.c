/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/bits.h"
#include "ctl/mountinfo.h"

struct seen {
	unsigned int count;
	char dirs[8][64];
	dev_t dev[8];
	long uid[8];
	char type[8][32];
	char source[8][64];
};

static int see(void *arg, const struct mount_entry *m)
{
	struct seen *s = arg;

	assert_true(s->count < 8);
	snprintf(s->dirs[s->count], sizeof(s->dirs[0]), "%s", m->dir);
	snprintf(s->type[s->count], sizeof(s->type[0]), "%s", m->type);
	snprintf(s->source[s->count], sizeof(s->source[0]), "%s", m->source);
	s->dev[s->count] = m->dev;
	s->uid[s->count++] = m->uid;
	return !strcmp(m->dir, "/stop");
}

static int read_text(const char *text, struct seen *s)
{
	FILE *f = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	int rc;

	memset(s, 0, sizeof(*s));
	assert_non_null(f);
	rc = mountinfo_each_in(f, see, s);
	fclose(f);
	return rc;
}

static void test_mountinfo_lines(void **state)
{
	struct seen s;

	(void)state;
	assert_int_equal(read_text("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
				   "40 22 0:45 / /mnt/a\\040b\\134c rw,nosuid - fuse.pmfs "
				   "/img\\011x rw,user_id=1000,group_id=5\n"
				   "41 22 0:46 /sub /plain rw shared:2 master:1 propagate_from:3 - "
				   "tmpfs tmpfs rw\n",
				   &s),
			 0);
	assert_int_equal(s.count, 3);
	assert_string_equal(s.dirs[0], "/");
	assert_string_equal(s.type[0], "ext4");
	assert_true(s.dev[0] == makedev(8, 1));
	assert_int_equal(s.uid[0], -1);
	assert_string_equal(s.dirs[1], "/mnt/a b\\c");
	assert_string_equal(s.type[1], MOUNT_TYPE);
	assert_string_equal(s.source[1], "/img\tx");
	assert_int_equal(s.uid[1], 1000);
	assert_string_equal(s.dirs[2], "/plain");
}

static void test_mountinfo_skips_what_is_no_line(void **state)
{
	struct seen s;

	(void)state;
	assert_int_equal(read_text("\n - \nnothing\n1 2 x:y / /a rw - t s o\n1 2 8:1 / /a rw t s "
				   "o\n1 2 8:1 / - t s o\n1 2 8:1 / /a rw - t\n"
				   "1 2 8:1 / /good rw - t s o",
				   &s),
			 0);
	assert_int_equal(s.count, 1);
	assert_string_equal(s.dirs[0], "/good");
}

static void test_mountinfo_ends_when_told(void **state)
{
	struct seen s;

	(void)state;
	assert_int_equal(read_text("1 2 8:1 / /a rw - t s o\n1 2 8:1 / /stop rw - t s o\n1 2 8:1 / "
				   "/b rw - t s o\n",
				   &s),
			 1);
	assert_int_equal(s.count, 2);
}

static void test_mountinfo_of_this_machine(void **state)
{
	dev_t root = mountinfo_dev_at("/", NULL);

	(void)state;
	assert_true(root != 0);
	assert_true(mountinfo_has_dev(root));
	assert_true(mountinfo_dev_at("/", "no-such-type") == 0);
	assert_true(mountinfo_dev_at("/nowhere/at/all", NULL) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mountinfo_lines),
		cmocka_unit_test(test_mountinfo_skips_what_is_no_line),
		cmocka_unit_test(test_mountinfo_ends_when_told),
		cmocka_unit_test(test_mountinfo_of_this_machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
