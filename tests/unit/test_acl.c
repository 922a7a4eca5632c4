/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/posix_acl.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/fsfix.h"
#include "pmfs/le.h"
#include "tree/acl.h"

/* A list as the kernel hands it over. */
struct list {
	size_t len;
	uint8_t bytes[4 + 16 * 8];
};

static void add(struct list *l, uint16_t tag, uint16_t perm, uint32_t id)
{
	const le16 t = le16_make(tag), p = le16_make(perm);
	const le32 i = le32_make(id);

	memcpy(l->bytes + l->len, &t, 2);
	memcpy(l->bytes + l->len + 2, &p, 2);
	memcpy(l->bytes + l->len + 4, &i, 4);
	l->len += 8;
}

static struct list empty(void)
{
	struct list l = {.len = 4};
	const le32 version = le32_make(2);

	memcpy(l.bytes, &version, 4);
	return l;
}

static struct list minimal(uint16_t u, uint16_t g, uint16_t o)
{
	struct list l = empty();

	add(&l, ACL_USER_OBJ, u, UINT32_MAX);
	add(&l, ACL_GROUP_OBJ, g, UINT32_MAX);
	add(&l, ACL_OTHER, o, UINT32_MAX);
	return l;
}

/* user, user 1000, group, mask, other */
static struct list extended(uint16_t u, uint16_t named, uint16_t g, uint16_t m, uint16_t o)
{
	struct list l = empty();

	add(&l, ACL_USER_OBJ, u, UINT32_MAX);
	add(&l, ACL_USER, named, 1000);
	add(&l, ACL_GROUP_OBJ, g, UINT32_MAX);
	add(&l, ACL_MASK, m, UINT32_MAX);
	add(&l, ACL_OTHER, o, UINT32_MAX);
	return l;
}

static void same_list(const struct list *a, const struct list *b)
{
	assert_int_equal(a->len, b->len);
	assert_memory_equal(a->bytes, b->bytes, a->len);
}

static void test_acl_check_refuses_what_is_no_list(void **state)
{
	struct list l = extended(7, 5, 5, 7, 0), bad;

	(void)state;
	assert_int_equal(acl_check(l.bytes, l.len), 0);
	for (size_t len = 0; len < l.len; len++)
		assert_int_equal(acl_check(l.bytes, len), -EINVAL);
	bad = l;
	bad.bytes[0] = 1;
	assert_int_equal(acl_check(bad.bytes, bad.len), -EOPNOTSUPP);
	bad = l;
	bad.bytes[4 + 2] = 8; /* a permission that there is not */
	assert_int_equal(acl_check(bad.bytes, bad.len), -EINVAL);
	bad = l;
	bad.bytes[4] = 3; /* a kind that there is not */
	assert_int_equal(acl_check(bad.bytes, bad.len), -EINVAL);
	bad = minimal(7, 5, 5);
	add(&bad, ACL_OTHER, 0, 0);
	assert_int_equal(acl_check(bad.bytes, bad.len), -EINVAL);
	bad = minimal(7, 5, 5);
	add(&bad, ACL_MASK, 0, 0); /* out of order */
	assert_int_equal(acl_check(bad.bytes, bad.len), -EINVAL);
	bad = empty();
	add(&bad, ACL_USER_OBJ, 7, 0);
	add(&bad, ACL_USER, 7, 5);
	add(&bad, ACL_GROUP_OBJ, 7, 0);
	add(&bad, ACL_OTHER, 7, 0); /* no mask */
	assert_int_equal(acl_check(bad.bytes, bad.len), -EINVAL);
}

static void test_acl_and_mode(void **state)
{
	struct list l = minimal(7, 5, 4), want;
	uint32_t mode;
	bool same;

	(void)state;
	assert_int_equal(acl_to_mode(l.bytes, l.len, S_IFREG | 06000, &same), S_IFREG | 06754);
	assert_true(same);
	acl_chmod(l.bytes, l.len, S_IFREG | 0421);
	want = minimal(4, 2, 1);
	same_list(&l, &want);

	/* With a mask that is the group's part of the mode. */
	l = extended(6, 7, 5, 3, 1);
	assert_int_equal(acl_to_mode(l.bytes, l.len, 0777, &same), 0631);
	assert_false(same);
	acl_chmod(l.bytes, l.len, 0420);
	want = extended(4, 7, 5, 2, 0);
	same_list(&l, &want);

	l = extended(7, 7, 5, 7, 5);
	mode = S_IFREG | 0640;
	acl_create(l.bytes, l.len, &mode, &same);
	assert_int_equal(mode, S_IFREG | 0640);
	assert_false(same);
	want = extended(6, 7, 5, 4, 0);
	same_list(&l, &want);

	l = minimal(5, 5, 0);
	mode = S_IFDIR | 02777;
	acl_create(l.bytes, l.len, &mode, &same);
	assert_int_equal(mode, S_IFDIR | 02550);
	assert_true(same);
}

static uint32_t mode_of(struct fsfix *fx, uint64_t id)
{
	struct fs_attr attr = {0};

	assert_int_equal(fs_getattr(fx->fs, id, &attr), 0);
	return attr.mode & 07777;
}

static void expect_list(struct fsfix *fx, uint64_t id, const char *name, const struct list *want)
{
	struct list got;
	const ssize_t n = fs_getxattr(fx->fs, id, name, got.bytes, sizeof(got.bytes));

	if (!want) {
		assert_int_equal(n, -ENODATA);
		return;
	}
	assert_true(n > 0);
	got.len = (size_t)n;
	same_list(&got, want);
}

static void test_acl_kept_in_step_and_inherited(void **state)
{
	struct fsfix *fx = *state;
	const struct fs_cred cred = {0};
	const struct fs_setattr set = {.mode = 0640};
	const struct list l = extended(7, 5, 4, 6, 0), trivial = minimal(7, 0, 0);
	struct list want;
	uint64_t dir = fsfix_mkdir(fx, fx->root, "d"), f = fsfix_file(fx, fx->root, "f");
	struct fs_attr attr;

	assert_int_equal(fs_setxattr(fx->fs, f, ACL_DEFAULT, l.bytes, l.len, 0), -EACCES);
	assert_int_equal(fs_setxattr(fx->fs, f, ACL_ACCESS, l.bytes, l.len - 1, 0), -EINVAL);
	assert_int_equal(fs_setxattr(fx->fs, f, ACL_ACCESS, l.bytes, l.len, 0), 0);
	assert_int_equal(mode_of(fx, f), 0760);
	assert_int_equal(fs_setattr(fx->fs, f, FS_SET_MODE, &set, NULL), 0);
	want = extended(6, 5, 4, 4, 0);
	expect_list(fx, f, ACL_ACCESS, &want);
	assert_int_equal(fs_setxattr(fx->fs, f, ACL_ACCESS, trivial.bytes, trivial.len, 0), 0);
	expect_list(fx, f, ACL_ACCESS, NULL);
	assert_int_equal(mode_of(fx, f), 0700);
	assert_int_equal(fs_removexattr(fx->fs, f, ACL_ACCESS), 0);
	assert_int_equal(fs_symlink(fx->fs, fx->root, "l", 1, "f", &cred, &attr), 0);
	assert_int_equal(fs_setxattr(fx->fs, attr.id, ACL_ACCESS, l.bytes, l.len, 0), -EOPNOTSUPP);

	assert_int_equal(fs_setxattr(fx->fs, dir, ACL_DEFAULT, l.bytes, l.len, 0), 0);
	assert_int_equal(fs_mknod(fx->fs, dir, "f", 1, S_IFREG | 0666 | FS_UMASK(077), 0, &cred,
				  &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0660);
	want = extended(6, 5, 4, 6, 0);
	expect_list(fx, attr.id, ACL_ACCESS, &want);
	expect_list(fx, attr.id, ACL_DEFAULT, NULL);
	assert_int_equal(fs_mkdir(fx->fs, dir, "d", 1, 0755 | FS_UMASK(077), &cred, &attr), 0);
	assert_int_equal(attr.mode, S_IFDIR | 0740);
	want = extended(7, 5, 4, 4, 0);
	expect_list(fx, attr.id, ACL_ACCESS, &want);
	expect_list(fx, attr.id, ACL_DEFAULT, &l);
	assert_int_equal(fs_tmpfile(fx->fs, dir, 0600 | FS_UMASK(077), &cred, &attr), 0);
	want = extended(6, 5, 4, 0, 0);
	expect_list(fx, attr.id, ACL_ACCESS, &want);
	assert_int_equal(fs_mkdir(fx->fs, fx->root, "e", 1, 0777 | FS_UMASK(027), &cred, &attr), 0);
	assert_int_equal(attr.mode, S_IFDIR | 0750);
}

static int setup(void **state)
{
	static struct fsfix fx;

	fsfix_ram(&fx, 0);
	*state = &fx;
	return 0;
}

static int teardown(void **state)
{
	fsfix_check(*state);
	fsfix_free(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_acl_check_refuses_what_is_no_list),
		cmocka_unit_test(test_acl_and_mode),
		cmocka_unit_test_setup_teardown(test_acl_kept_in_step_and_inherited, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
