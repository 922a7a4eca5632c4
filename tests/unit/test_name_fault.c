/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations on names while the host fails: an error is told, nothing crashes, and the image is
 * good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "lib/fsfix.h"

#ifdef PMFS_FAULTS

static const struct fs_cred cred = { 0, 0 };

struct script {
	struct fsfix fx;
	int err;       /* what the host says, negative */
	unsigned failed;
};

/* Every call works or says what the host said; what comes after a failure may miss what was not
 * made. */
static bool worked(struct script *s, int rc)
{
	if (rc == 0)
		return true;
	if (rc == s->err)
		s->failed++;
	else
		assert_true(s->failed && (rc == -ENOENT || rc == -EIO));
	return false;
}

static void many_names(struct script *s, uint64_t dir, unsigned n)
{
	struct fs_attr attr;
	char name[256];

	for (unsigned i = 0; i < n; i++) {
		const int len = snprintf(name, sizeof(name), "%0200u", i);

		if (worked(s, fs_mknod(s->fx.fs, dir, name, (size_t)len, S_IFREG | 0600, 0, &cred,
				       &attr)))
			fs_forget(s->fx.fs, attr.id, 1);
	}
	for (unsigned i = 0; i < n; i += 2) {
		const int len = snprintf(name, sizeof(name), "%0200u", i);

		worked(s, fs_unlink(s->fx.fs, dir, name, (size_t)len));
	}
}

static void run(struct script *s)
{
	struct fs *fs = s->fx.fs;
	const uint64_t root = s->fx.root;
	struct fs_snapshot snap;
	struct fs_attr d = { .id = root }, t, attr;
	char target[1000];

	memset(target, 't', sizeof(target) - 1);
	target[sizeof(target) - 1] = '\0';
	worked(s, fs_mkdir(fs, root, "d", 1, 0755, &cred, &d));
	worked(s, fs_mknod(fs, root, "f", 1, S_IFREG | 0644, 0, &cred, &attr));
	worked(s, fs_symlink(fs, d.id, "s", 1, target, &cred, &attr));
	many_names(s, d.id, 40);
	worked(s, fs_snap_create(fs, "snap", "", &snap));
	worked(s, fs_rename(fs, root, "f", 1, d.id, "g", 1, 0));
	worked(s, fs_rename(fs, root, "base", 4, d.id, "g", 1, RENAME_EXCHANGE));
	worked(s, fs_mkdir(fs, root, "e", 1, 0755, &cred, &attr));
	worked(s, fs_rename(fs, root, "d", 1, root, "e", 1, 0));
	if (worked(s, fs_tmpfile(fs, root, 0600, &cred, &t))) {
		worked(s, fs_link(fs, t.id, root, "t", 1, &attr));
		worked(s, fs_setxattr(fs, t.id, "user.a", target, sizeof(target), 0));
		worked(s, fs_sync(fs));
		worked(s, fs_removexattr(fs, t.id, "user.a"));
		worked(s, fs_unlink(fs, root, "t", 1));
		fs_forget(fs, t.id, 2);
	}
	worked(s, fs_mkdir(fs, root, "gone", 4, 0755, &cred, &attr));
	worked(s, fs_rmdir(fs, root, "gone", 4));
	worked(s, fs_sync(fs));
}

static void fail_each(const char *point, int err)
{
	unsigned failed = 0;

	/* Each of the first ones, then ever fewer: all are flushes of a real file. */
	for (uint64_t nth = 1;; nth += 1 + nth / 12) {
		struct script s = { .err = -err };
		bool reached;

		fsfix_image(&s.fx, 0);
		fsfix_file(&s.fx, s.fx.root, "base");
		assert_int_equal(fs_sync(s.fx.fs), 0);
		fault_reset();
		assert_int_equal(fault_arm(point, nth, err), 0);
		run(&s);
		reached = fault_count(point) >= nth;
		fault_reset();
		fsfix_crash(&s.fx);
		fsfix_start(&s.fx);
		fsfix_check(&s.fx);
		failed += s.failed != 0;
		fsfix_free(&s.fx);
		if (!reached)
			break;
	}
	print_message("%s: %u times\n", point, failed);
	assert_true(failed > 2);
}

static void test_name_failing_writes(void **state)
{
	(void)state;
	fail_each("region.write", EIO);
}

static void test_name_failing_flushes(void **state)
{
	(void)state;
	fail_each("region.flush", EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_name_failing_writes),
		cmocka_unit_test(test_name_failing_flushes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
	return 77;
}

#endif
