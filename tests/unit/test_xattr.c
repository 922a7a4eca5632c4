/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/bits.h"
#include "lib/fsfix.h"
#include "tree/fs_impl.h"
#include "tree/xattr.h"

/* An inode by itself, without an inode file. */
struct env {
	struct fs fs;
	struct volume vol;
	struct inode in;
};

static int setup(void **state)
{
	const struct store_config cfg = { .limit_bytes = UINT64_C(64) << 20 };
	struct env *e = calloc(1, sizeof(*e));
	struct store_error err;

	assert_non_null(e);
	assert_int_equal(store_open(&e->fs.st, &cfg, &err), 0);
	e->vol.fs = &e->fs;
	e->in.vol = &e->vol;
	e->in.ino = 5;
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	store_abandon(e->fs.st);
	free(e);
	return 0;
}

static int set(struct env *e, const char *name, const void *value, size_t len, int flags)
{
	struct txn tx;
	int rc;

	assert_int_equal(txn_begin(e->fs.st, &tx, FRAME_NORMAL, XATTR_COST), 0);
	rc = xattr_set(&tx, &e->in, name, value, len, flags);
	assert_true(tx.taken <= XATTR_COST);
	txn_end(&tx);
	return rc;
}

static int remove_(struct env *e, const char *name)
{
	struct txn tx;
	int rc;

	assert_int_equal(txn_begin(e->fs.st, &tx, FRAME_NORMAL, XATTR_COST), 0);
	rc = xattr_remove(&tx, &e->in, name);
	assert_true(tx.taken <= XATTR_COST);
	txn_end(&tx);
	return rc;
}

static void say(void *arg, const char *what)
{
	(void)arg;
	print_message("%s\n", what);
}

static void test_xattr_set_get_remove(void **state)
{
	struct env *e = *state;
	char buf[64];

	assert_int_equal(xattr_get(&e->in, "user.a", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(xattr_list(&e->in, buf, sizeof(buf)), 0);
	assert_int_equal(remove_(e, "user.a"), -ENODATA);
	assert_int_equal(set(e, "user.a", "x", 1, XATTR_REPLACE), -ENODATA);
	assert_int_equal(set(e, "user.a", "hello", 5, XATTR_CREATE), 0);
	assert_int_equal(set(e, "user.a", "hello", 5, XATTR_CREATE), -EEXIST);
	assert_int_equal(xattr_get(&e->in, "user.a", NULL, 0), 5);
	assert_int_equal(xattr_get(&e->in, "user.a", buf, 4), -ERANGE);
	assert_int_equal(xattr_get(&e->in, "user.a", buf, 5), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(set(e, "user.a", "hi", 2, XATTR_REPLACE), 0);
	assert_int_equal(xattr_get(&e->in, "user.a", buf, sizeof(buf)), 2);
	assert_int_equal(set(e, "user.aa", NULL, 0, 0), 0);
	assert_int_equal(xattr_get(&e->in, "user.aa", buf, sizeof(buf)), 0);
	assert_int_equal(xattr_get(&e->in, "user.", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(xattr_list(&e->in, NULL, 0), 15);
	assert_int_equal(xattr_list(&e->in, buf, 14), -ERANGE);
	assert_int_equal(xattr_list(&e->in, buf, 15), 15);
	assert_memory_equal(buf, "user.a\0user.aa", 15);
	assert_int_equal(xattr_check(&e->in, say, NULL), 0);
	assert_int_equal(remove_(e, "user.a"), 0);
	assert_int_equal(xattr_get(&e->in, "user.a", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(xattr_get(&e->in, "user.aa", buf, sizeof(buf)), 0);
	assert_int_equal(remove_(e, "user.aa"), 0);
	assert_true(e->in.xattr_size == 0 && e->in.xattr.root == VPN_NONE);
	assert_int_equal(xattr_check(&e->in, say, NULL), 0);
}

static void test_xattr_limits(void **state)
{
	struct env *e = *state;
	char name[300], *value = calloc(1, PMFS_XATTR_VALUE_MAX + 1);

	assert_non_null(value);
	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	assert_int_equal(set(e, name, "", 0, 0), -ERANGE);
	name[255] = '\0';
	assert_int_equal(set(e, name, "v", 1, 0), 0);
	assert_int_equal(set(e, "", "v", 1, 0), -ERANGE);
	assert_int_equal(set(e, "user.big", value, PMFS_XATTR_VALUE_MAX + 1, 0), -E2BIG);
	assert_int_equal(set(e, "user.big", value, PMFS_XATTR_VALUE_MAX, 0), 0);
	assert_int_equal(set(e, "user.big2", value, PMFS_XATTR_VALUE_MAX, 0), -ENOSPC);
	/* What is replaced makes room. */
	assert_int_equal(set(e, "user.big2", value, 60000, 0), 0);
	assert_int_equal(set(e, "user.big2", value, 50000, 0), 0);
	assert_int_equal(set(e, "user.big2", value, PMFS_XATTR_VALUE_MAX, 0), -ENOSPC);
	assert_int_equal(xattr_get(&e->in, "user.big", value, PMFS_XATTR_VALUE_MAX),
			 PMFS_XATTR_VALUE_MAX);
	assert_int_equal(xattr_check(&e->in, say, NULL), 0);
	free(value);
}

/* ------------------------------------------------------------------ against a model */

#define NAMES 21u

static void name_of(unsigned i, char name[32])
{
	/* Some are beginnings of others. */
	snprintf(name, 32, "user.%.*s%u", (int)(i % 7), "aaaaaaa", i / 7 % 3);
}

static void model_compare(struct env *e, uint8_t *values[NAMES], const size_t lens[NAMES],
			  uint8_t *buf)
{
	char names[NAMES * 32], *p = names;
	ssize_t left = xattr_list(&e->in, names, sizeof(names));
	unsigned listed = 0, there = 0;
	char name[32];

	assert_int_equal(xattr_check(&e->in, say, NULL), 0);
	for (unsigned i = 0; i < NAMES; i++) {
		name_of(i, name);
		if (!values[i]) {
			assert_int_equal(xattr_get(&e->in, name, buf, PMFS_XATTR_VALUE_MAX),
					 -ENODATA);
			continue;
		}
		there++;
		assert_int_equal(xattr_get(&e->in, name, buf, PMFS_XATTR_VALUE_MAX), lens[i]);
		assert_memory_equal(buf, values[i], lens[i]);
	}
	for (char *last = NULL; left > 0; listed++) {
		const size_t n = strlen(p) + 1;

		assert_true(!last || strcmp(last, p) < 0);
		last = p;
		p += n;
		left -= (ssize_t)n;
	}
	assert_int_equal(left, 0);
	assert_int_equal(listed, there);
}

static void test_xattr_model(void **state)
{
	uint8_t *values[NAMES] = { NULL }, *buf = malloc(PMFS_XATTR_VALUE_MAX);
	size_t lens[NAMES] = { 0 };
	struct fsfix_random rnd;
	struct env *e = *state;

	assert_non_null(buf);
	fsfix_seed(&rnd, 1);
	for (unsigned step = 0; step < 3000; step++) {
		const unsigned i = (unsigned)(fsfix_random(&rnd) % NAMES);
		char name[32];

		name_of(i, name);
		if (fsfix_random(&rnd) % 3 == 0) {
			assert_int_equal(remove_(e, name), values[i] ? 0 : -ENODATA);
			free(values[i]);
			values[i] = NULL;
		} else {
			const size_t len = fsfix_random(&rnd) % 4 ? fsfix_random(&rnd) % 100
								  : fsfix_random(&rnd) % 30000;
			uint8_t *v = malloc(len + 1);
			int rc;

			assert_non_null(v);
			for (size_t k = 0; k < len; k++)
				v[k] = (uint8_t)fsfix_random(&rnd);
			rc = set(e, name, v, len, 0);
			if (rc == -ENOSPC) {
				free(v);
				continue;
			}
			assert_int_equal(rc, 0);
			free(values[i]);
			values[i] = v;
			lens[i] = len;
		}
		if (step % 50 == 0) {
			model_compare(e, values, lens, buf);
			assert_int_equal(commit_now(e->fs.st), 0);
		}
	}
	model_compare(e, values, lens, buf);
	for (unsigned i = 0; i < NAMES; i++) {
		char name[32];

		name_of(i, name);
		if (values[i])
			assert_int_equal(remove_(e, name), 0);
		free(values[i]);
	}
	assert_true(e->in.xattr.root == VPN_NONE);
	free(buf);
}

/* ------------------------------------------------------------------ damage */

static void damage(struct env *e, size_t off, const void *bytes, size_t len)
{
	struct txn tx;

	assert_int_equal(txn_begin(e->fs.st, &tx, FRAME_NORMAL, XATTR_COST), 0);
	assert_int_equal(ptab_write(&tx, &e->in.xattr, NULL, off / PMFS_PAGE_SIZE,
				    off % PMFS_PAGE_SIZE, bytes, len, NULL),
			 0);
	txn_end(&tx);
}

static void refused(struct env *e, bool all)
{
	char buf[64];

	if (all) {
		assert_int_equal(xattr_get(&e->in, "user.zz", buf, sizeof(buf)), -EUCLEAN);
		assert_int_equal(xattr_list(&e->in, buf, sizeof(buf)), -EUCLEAN);
		assert_int_equal(set(e, "user.zz", "v", 1, 0), -EUCLEAN);
		assert_int_equal(remove_(e, "user.zz"), -EUCLEAN);
	}
	assert_int_equal(xattr_check(&e->in, say, NULL), 1);
}

static void test_xattr_damage_is_refused(void **state)
{
	struct env *e = *state;
	const uint32_t size = 6 + 1 + 8 + 6 + 1 + 8;
	const uint8_t none[2] = { 0 }, much[4] = { 255, 255, 255, 255 }, some[4] = { 100, 0, 0, 0 };

	assert_int_equal(set(e, "user.a", "1", 1, 0), 0);
	assert_int_equal(set(e, "user.b", "2", 1, 0), 0);
	assert_int_equal(e->in.xattr_size, size);
	assert_int_equal(xattr_check(&e->in, say, NULL), 0);
	damage(e, 0, none, 2);
	refused(e, true);
	damage(e, 0, much, 2);
	refused(e, true);
	damage(e, 0, "\6", 2);
	damage(e, 4, much, 4);
	refused(e, true);
	damage(e, 4, some, 4);
	refused(e, true);
	damage(e, 4, "\1\0\0", 4);
	assert_int_equal(xattr_check(&e->in, say, NULL), 0);
	/* Out of order, and twice. */
	damage(e, 8, "user.c", 6);
	refused(e, false);
	damage(e, 8, "user.b", 6);
	refused(e, false);
	damage(e, 8, "us\0r.a", 6);
	refused(e, false);
	damage(e, 8, "user.a", 6);
	e->in.xattr_size = size - 1;
	refused(e, true);
	e->in.xattr_size = size + 4;
	refused(e, true);
	e->in.xattr_size = 5000;
	refused(e, true);
	e->in.xattr_size = PMFS_XATTR_TOTAL_MAX + 1;
	refused(e, true);
	e->in.xattr_size = size;
	assert_int_equal(xattr_check(&e->in, say, NULL), 0);
}

/* ------------------------------------------------------------------ the calls of fs.h */

static void test_xattr_of_a_filesystem(void **state)
{
	const struct fs_config cfg = { .store = { .limit_bytes = UINT64_C(64) << 20 } };
	const struct fs_cred cred = { 0, 0 };
	struct store_error err;
	const struct fs_setattr past = { .ctime.tv_sec = 1, .mtime.tv_sec = 2 };
	struct fs_snapshot snap;
	struct fs_attr attr, was, old;
	struct fs *fs;
	char name[300], buf[64];

	(void)state;
	assert_int_equal(fs_open(&fs, &cfg, &err), 0);
	assert_int_equal(fs_mknod(fs, fs_root(fs), "f", 1, S_IFREG | 0644, 0, &cred, &was), 0);
	assert_int_equal(fs_setattr(fs, was.id, FS_SET_CTIME | FS_SET_MTIME, &past, &was), 0);
	assert_true(was.ctime.tv_sec == 1 && was.mtime.tv_sec == 2);
	assert_int_equal(fs_setxattr(fs, was.id, "user.a", "1", 1, XATTR_CREATE), 0);
	assert_int_equal(fs_setxattr(fs, was.id, "trusted.a", "22", 2, 0), 0);
	assert_int_equal(fs_setxattr(fs, was.id, "security.a", "333", 3, 0), 0);
	assert_int_equal(fs_getattr(fs, was.id, &attr), 0);
	assert_true(attr.ctime.tv_sec != 1 && attr.mtime.tv_sec == 2);
	assert_int_equal(fs_setxattr(fs, was.id, "system.other", "1", 1, 0), -EOPNOTSUPP);
	assert_int_equal(fs_getxattr(fs, was.id, "system.other", buf, 9), -EOPNOTSUPP);
	assert_int_equal(fs_setxattr(fs, was.id, "system.posix_acl_access", "1", 1, 0), -EINVAL);
	assert_int_equal(fs_getxattr(fs, was.id, "system.posix_acl_access", buf, 9), -ENODATA);
	assert_int_equal(fs_removexattr(fs, was.id, "other"), -EOPNOTSUPP);
	assert_int_equal(fs_setxattr(fs, was.id, "user.", "1", 1, 0), -EINVAL);
	assert_int_equal(fs_setxattr(fs, was.id, "user.b", "1", 1, 4), -EINVAL);
	snprintf(name, sizeof(name), "user.%0251d", 1);
	assert_int_equal(fs_setxattr(fs, was.id, name, "1", 1, 0), -ERANGE);
	assert_int_equal(fs_getxattr(fs, was.id, "user.a", buf, sizeof(buf)), 1);
	assert_int_equal(fs_listxattr(fs, was.id, buf, sizeof(buf)), 28);
	assert_memory_equal(buf, "security.a\0trusted.a\0user.a", 28);

	/* A snapshot keeps them, and can't be changed. */
	assert_int_equal(fs_snap_create(fs, "s", "", &snap), 0);
	assert_int_equal(fs_setxattr(fs, was.id, "user.a", "new", 3, XATTR_REPLACE), 0);
	assert_int_equal(fs_removexattr(fs, was.id, "trusted.a"), 0);
	assert_int_equal(fs_removexattr(fs, was.id, "trusted.a"), -ENODATA);
	assert_int_equal(fs_lookup(fs, snap.root, "f", 1, &old), 0);
	assert_int_equal(fs_getxattr(fs, old.id, "user.a", buf, sizeof(buf)), 1);
	assert_int_equal(buf[0], '1');
	assert_int_equal(fs_getxattr(fs, old.id, "trusted.a", buf, sizeof(buf)), 2);
	assert_int_equal(fs_setxattr(fs, old.id, "user.a", "2", 1, 0), -EROFS);
	assert_int_equal(fs_removexattr(fs, old.id, "user.a"), -EROFS);
	assert_int_equal(fs_getxattr(fs, was.id, "user.a", buf, sizeof(buf)), 3);
	fs_forget(fs, old.id, 1);
	fs_forget(fs, was.id, 1);
	assert_int_equal(fs_close(fs), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_xattr_set_get_remove, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xattr_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xattr_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xattr_damage_is_refused, setup, teardown),
		cmocka_unit_test(test_xattr_of_a_filesystem),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
