/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

#include "lib/fsfix.h"

static int setup(void **state)
{
	static struct fsfix fx;

	fsfix_image(&fx, 0);
	*state = &fx;
	return 0;
}

static int teardown(void **state)
{
	fsfix_check(*state);
	fsfix_free(*state);
	return 0;
}

static struct fs_attr get(struct fsfix *fx, uint64_t id)
{
	struct fs_attr attr = { 0 };

	assert_int_equal(fs_getattr(fx->fs, id, &attr), 0);
	return attr;
}

static void same_time(struct timespec a, struct timespec b)
{
	assert_int_equal(a.tv_sec, b.tv_sec);
	assert_int_equal(a.tv_nsec, b.tv_nsec);
}

static void same(const struct fs_attr *a, const struct fs_attr *b)
{
	assert_int_equal(a->id, b->id);
	assert_int_equal(a->ino, b->ino);
	assert_int_equal(a->generation, b->generation);
	assert_int_equal(a->mode, b->mode);
	assert_int_equal(a->nlink, b->nlink);
	assert_int_equal(a->uid, b->uid);
	assert_int_equal(a->gid, b->gid);
	assert_int_equal(a->rdev, b->rdev);
	assert_int_equal(a->size, b->size);
	assert_int_equal(a->blocks, b->blocks);
	same_time(a->atime, b->atime);
	same_time(a->mtime, b->mtime);
	same_time(a->ctime, b->ctime);
	same_time(a->btime, b->btime);
}

static void test_attr_of_new_things(void **state)
{
	struct fsfix *fx = *state;
	const struct fs_cred cred = { 7, 8 };
	struct timespec before;
	struct fs_attr attr, again;

	clock_gettime(CLOCK_REALTIME, &before);
	assert_int_equal(fs_mknod(fx->fs, fx->root, "dev", 3, S_IFCHR | 0620,
				  (uint32_t)makedev(200, 70000), &cred, &attr), 0);
	assert_int_equal(attr.mode, S_IFCHR | 0620);
	assert_int_equal(attr.uid, 7);
	assert_int_equal(attr.gid, 8);
	assert_int_equal(attr.nlink, 1);
	assert_int_equal(major(attr.rdev), 200);
	assert_int_equal(minor(attr.rdev), 70000);
	assert_int_equal(attr.ino, attr.id & ((UINT64_C(1) << 40) - 1));
	assert_true(attr.btime.tv_sec >= before.tv_sec);
	assert_int_equal(attr.mtime.tv_nsec, attr.btime.tv_nsec);
	fsfix_reopen(fx);
	again = get(fx, fsfix_find(fx, fx->root, "dev"));
	same(&attr, &again);
}

static void test_attr_each_field_is_set_alone(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const struct fs_setattr set = { .mode = S_IFDIR | 07123, .uid = 11, .gid = 12, .size = 99,
					.atime = { -5, 1 }, .mtime = { INT64_C(1) << 35, 2 },
					.ctime = { 6, 3 } };
	static const unsigned masks[] = { FS_SET_MODE, FS_SET_UID, FS_SET_GID, FS_SET_ATIME,
					  FS_SET_MTIME };
	struct fs_attr was = get(fx, id), attr;

	for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
		assert_int_equal(fs_setattr(fx->fs, id, masks[i] | FS_SET_CTIME, &set, &attr), 0);
		was.ctime = set.ctime;
		switch (masks[i]) {
		case FS_SET_MODE: /* the type is not for change */
			was.mode = S_IFREG | 07123;
			break;
		case FS_SET_UID:
			was.uid = 11;
			break;
		case FS_SET_GID:
			was.gid = 12;
			break;
		case FS_SET_ATIME:
			was.atime = set.atime;
			break;
		default:
			was.mtime = set.mtime;
		}
		same(&attr, &was);
	}
	fsfix_reopen(fx);
	attr = get(fx, fsfix_find(fx, fx->root, "f"));
	same(&attr, &was);
}

static void test_attr_times(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const struct fs_setattr past = { .atime = { 1, 1 }, .mtime = { 2, 2 }, .ctime = { 3, 3 } };
	const unsigned all = FS_SET_ATIME | FS_SET_MTIME | FS_SET_CTIME;
	struct fs_setattr bad = past;
	struct fs_attr attr;

	assert_int_equal(fs_setattr(fx->fs, id, all, &past, NULL), 0);
	/* ctime is stamped by whatever does not give it. */
	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_ATIME_NOW, &past, &attr), 0);
	assert_true(attr.atime.tv_sec > 3);
	assert_int_equal(attr.mtime.tv_sec, 2);
	assert_true(attr.ctime.tv_sec > 3);
	assert_int_equal(fs_setattr(fx->fs, id, all, &past, NULL), 0);
	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MTIME_NOW | FS_SET_MTIME, &past, &attr), 0);
	assert_int_equal(attr.atime.tv_sec, 1);
	assert_true(attr.mtime.tv_sec > 3);
	/* A size that is given with a time. */
	assert_int_equal(fs_setattr(fx->fs, id, all | FS_SET_SIZE, &past, &attr), 0);
	assert_int_equal(attr.mtime.tv_sec, 2);
	assert_int_equal(attr.ctime.tv_sec, 3);
	bad.mtime.tv_nsec = 1000000000;
	assert_int_equal(fs_setattr(fx->fs, id, all, &bad, NULL), -EINVAL);
	bad.mtime.tv_nsec = -1;
	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MTIME, &bad, NULL), -EINVAL);
	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_ATIME, &bad, NULL), 0);
}

static void test_attr_chown_kills_privileges_when_asked(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const uint64_t dir = fsfix_mkdir(fx, fx->root, "d");
	struct fs_setattr set = { .mode = 06755, .uid = 5, .size = 3 };
	struct fs_attr attr;

	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MODE, &set, NULL), 0);
	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_UID, &set, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 06755);
	assert_int_equal(fs_setxattr(fx->fs, id, "security.capability", "x", 1, 0), 0);
	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_UID | FS_SET_KILL_PRIV, &set, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0755);
	assert_int_equal(fs_getxattr(fx->fs, id, "security.capability", NULL, 0), -ENODATA);
	/* setgid without group execution is no privilege. */
	set.mode = 06745;
	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MODE, &set, NULL), 0);
	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_SIZE | FS_SET_KILL_PRIV, &set, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 02745);
	assert_int_equal(attr.size, 3);
	/* A directory's setgid says something else. */
	set.mode = 02755;
	assert_int_equal(fs_setattr(fx->fs, dir, FS_SET_MODE, &set, NULL), 0);
	assert_int_equal(fs_setattr(fx->fs, dir, FS_SET_UID | FS_SET_KILL_PRIV, &set, &attr), 0);
	assert_int_equal(attr.mode, S_IFDIR | 02755);
}

static void test_attr_refusals(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t id = fsfix_file(fx, fx->root, "f");
	const struct fs_setattr set = { .size = 5 };
	const struct fs_cred cred = { 0, 0 };
	struct fs_snapshot snap;
	struct fs_attr attr, root;

	assert_int_equal(fs_symlink(fx->fs, fx->root, "l", 1, "target", &cred, &attr), 0);
	assert_int_equal(fs_setattr(fx->fs, attr.id, FS_SET_SIZE, &set, NULL), -EINVAL);
	assert_int_equal(fs_setattr(fx->fs, fx->root, FS_SET_SIZE, &set, NULL), -EISDIR);
	assert_int_equal(fs_getattr(fx->fs, id + 1000, &attr), -ENOENT);
	assert_int_equal(fs_setattr(fx->fs, id + 1000, FS_SET_UID, &set, NULL), -ENOENT);
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	assert_int_equal(fs_snap_lookup(fx->fs, "s", &root), 0);
	/* In a snapshot the number is unique beside the live one, and nothing changes. */
	assert_int_equal(root.ino, root.id);
	assert_int_equal(fs_setattr(fx->fs, root.id, FS_SET_UID, &set, NULL), -EROFS);
	fs_forget(fx->fs, root.id, 1);
	fsfix_stop(fx);
	fx->read_only = true;
	fsfix_start(fx);
	assert_int_equal(fs_setattr(fx->fs, fx->root, FS_SET_UID, &set, NULL), -EROFS);
	assert_int_equal(get(fx, fx->root).mode, S_IFDIR | 0755);
}

/* What immutable and append-only forbid, call by call. */
static void test_attr_flags(void **state)
{
	struct fsfix *fx = *state;
	const struct fs_cred cred = {0, 0};
	const struct fs_setattr set = {.mode = 0600, .size = 1};
	const uint64_t f = fsfix_file(fx, fx->root, "f"), d = fsfix_mkdir(fx, fx->root, "d");
	const uint64_t log = fsfix_file(fx, fx->root, "log"), in_d = fsfix_file(fx, d, "f");
	const uint64_t root = fx->root;
	struct fs_attr attr;

	fsfix_write(fx, f, 0, "one", 3);
	fsfix_write(fx, log, 0, "one", 3);
	assert_int_equal(fs_set_flags(fx->fs, f, 1, 1), -EINVAL);
	assert_int_equal(fs_symlink(fx->fs, root, "l", 1, "f", &cred, &attr), 0);
	assert_int_equal(fs_set_flags(fx->fs, attr.id, PMFS_INODE_NODUMP, PMFS_INODE_NODUMP),
			 -EOPNOTSUPP);
	assert_int_equal(fs_set_flags(fx->fs, f, PMFS_INODE_USER,
				      PMFS_INODE_IMMUTABLE | PMFS_INODE_NODUMP), 0);
	assert_int_equal(fs_set_flags(fx->fs, d, PMFS_INODE_IMMUTABLE, PMFS_INODE_IMMUTABLE), 0);
	assert_int_equal(fs_set_flags(fx->fs, log, PMFS_INODE_APPEND, PMFS_INODE_APPEND), 0);
	fsfix_reopen(fx);
	assert_int_equal(fsfix_find(fx, root, "f"), f);
	assert_int_equal(fsfix_find(fx, root, "log"), log);
	assert_int_equal(fsfix_find(fx, root, "d"), d);
	assert_int_equal(fsfix_find(fx, d, "f"), in_d);
	assert_int_equal(get(fx, f).flags, PMFS_INODE_IMMUTABLE | PMFS_INODE_NODUMP);

	assert_int_equal(fs_write(fx->fs, f, 3, "x", 1, 0), -EPERM);
	assert_int_equal(fs_write(fx->fs, f, 3, "x", 1, FS_WRITE_CACHED), -EPERM);
	assert_int_equal(fs_setattr(fx->fs, f, FS_SET_MODE, &set, NULL), -EPERM);
	assert_int_equal(fs_setattr(fx->fs, f, FS_SET_SIZE, &set, NULL), -EPERM);
	assert_int_equal(fs_setattr(fx->fs, f, FS_SET_MTIME_NOW, &set, NULL), -EPERM);
	assert_int_equal(fs_fallocate(fx->fs, f, 0, 0, 4096), -EPERM);
	assert_int_equal(fs_copy_range(fx->fs, log, 0, f, 3, 3), -EPERM);
	assert_int_equal(fs_setxattr(fx->fs, f, "user.a", "b", 1, 0), -EPERM);
	assert_int_equal(fs_link(fx->fs, f, root, "g", 1, &attr), -EPERM);
	assert_int_equal(fs_unlink(fx->fs, root, "f", 1), -EPERM);
	assert_int_equal(fs_rename(fx->fs, root, "f", 1, root, "g", 1, 0), -EPERM);
	assert_int_equal(fs_rename(fx->fs, root, "log", 3, root, "f", 1, 0), -EPERM);
	fsfix_expect(fx, f, 0, "one", 3);

	assert_int_equal(fs_mknod(fx->fs, d, "g", 1, S_IFREG, 0, &cred, &attr), -EPERM);
	assert_int_equal(fs_tmpfile(fx->fs, d, 0600, &cred, &attr), -EPERM);
	assert_int_equal(fs_unlink(fx->fs, d, "f", 1), -EPERM);
	assert_int_equal(fs_rename(fx->fs, d, "f", 1, root, "g", 1, 0), -EPERM);
	assert_int_equal(fs_rename(fx->fs, root, "l", 1, d, "l", 1, 0), -EPERM);
	assert_int_equal(fs_rmdir(fx->fs, root, "d", 1), -EPERM);
	fsfix_write(fx, in_d, 0, "x", 1);

	fsfix_write(fx, log, 3, "two", 3);
	assert_int_equal(fs_write(fx->fs, log, 5, "xx", 2, 0), -EPERM);
	assert_int_equal(fs_write(fx->fs, log, 0, "onetwo!", 7, FS_WRITE_CACHED), 7);
	assert_int_equal(fs_setattr(fx->fs, log, FS_SET_SIZE, &set, NULL), -EPERM);
	assert_int_equal(fs_setattr(fx->fs, log, FS_SET_MTIME_NOW, &set, NULL), 0);
	assert_int_equal(fs_fallocate(fx->fs, log, 3, 0, 4096), -EPERM);
	assert_int_equal(fs_unlink(fx->fs, root, "log", 3), -EPERM);

	assert_int_equal(fs_set_flags(fx->fs, f, PMFS_INODE_IMMUTABLE, 0), 0);
	assert_int_equal(get(fx, f).flags, PMFS_INODE_NODUMP);
	assert_int_equal(fs_unlink(fx->fs, root, "f", 1), 0);
	assert_int_equal(fs_set_flags(fx->fs, d, PMFS_INODE_IMMUTABLE, PMFS_INODE_APPEND), 0);
	assert_int_equal(fs_unlink(fx->fs, d, "f", 1), 0);
}

/* What a cache had before the flag was set can still come, and only that. */
static void test_attr_flags_settle(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t f = fsfix_file(fx, fx->root, "f");
	const struct fs_setattr set = {.mode = 0600, .mtime = {1000, 5}, .ctime = {1000, 5}};
	const unsigned times = FS_SET_MTIME | FS_SET_CTIME;
	const uint32_t immutable = PMFS_INODE_IMMUTABLE;

	assert_int_equal(fs_set_flags_cached(fx->fs, f, immutable, immutable), 0);
	assert_int_equal(fs_set_flags_cached(fx->fs, f, immutable, immutable), 0);
	fs_flags_settled(fx->fs, f);
	assert_int_equal(fs_write(fx->fs, f, 0, "late", 4, FS_WRITE_CACHED), 4);
	assert_int_equal(fs_setattr(fx->fs, f, times, &set, NULL), 0);
	assert_int_equal(get(fx, f).mtime.tv_sec, 1000);
	assert_int_equal(fs_write(fx->fs, f, 0, "x", 1, 0), -EPERM);
	assert_int_equal(fs_setattr(fx->fs, f, times | FS_SET_MODE, &set, NULL), -EPERM);
	assert_int_equal(fs_unlink(fx->fs, fx->root, "f", 1), -EPERM);
	fs_flags_settled(fx->fs, f);
	assert_int_equal(fs_write(fx->fs, f, 0, "x", 1, FS_WRITE_CACHED), -EPERM);
	assert_int_equal(fs_setattr(fx->fs, f, times, &set, NULL), -EPERM);
	fsfix_expect(fx, f, 0, "late", 4);
	assert_int_equal(fs_set_flags(fx->fs, f, immutable, 0), 0);
}

/* nodump and noatime go to all that is made in a directory, and on from there; the others do not. */
static void test_attr_flags_are_inherited(void **state)
{
	struct fsfix *fx = *state;
	const uint32_t both = PMFS_INODE_NODUMP | PMFS_INODE_NOATIME;
	const struct fs_cred cred = {0, 0};
	const uint64_t d = fsfix_mkdir(fx, fx->root, "d"), old = fsfix_file(fx, d, "old");
	struct fs_attr attr;
	uint64_t sub;

	assert_int_equal(fs_set_flags(fx->fs, d, PMFS_INODE_USER, both | PMFS_INODE_APPEND), 0);
	assert_int_equal(get(fx, old).flags, 0);
	assert_int_equal(get(fx, fsfix_file(fx, d, "new")).flags, both);
	sub = fsfix_mkdir(fx, d, "sub");
	assert_int_equal(get(fx, sub).flags, both);
	assert_int_equal(fs_tmpfile(fx->fs, sub, 0600, &cred, &attr), 0);
	assert_int_equal(attr.flags, both);
	assert_int_equal(fs_symlink(fx->fs, sub, "l", 1, "f", &cred, &attr), 0);
	assert_int_equal(attr.flags, both);
	assert_int_equal(fs_readlink(fx->fs, attr.id, (char[8]){0}, 8), 1);
	assert_int_equal(fs_mknod(fx->fs, sub, "p", 1, S_IFIFO, 0, &cred, &attr), 0);
	assert_int_equal(attr.flags, both);
	fsfix_reopen(fx);
	assert_int_equal(get(fx, fsfix_find(fx, sub, "l")).flags, both);
	assert_int_equal(fs_set_flags(fx->fs, sub, both, 0), 0);
	assert_int_equal(get(fx, fsfix_file(fx, sub, "plain")).flags, 0);
	assert_int_equal(fs_set_flags(fx->fs, d, PMFS_INODE_USER, 0), 0);
}

int main(void)
{
#define IN(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		IN(test_attr_of_new_things),
		IN(test_attr_each_field_is_set_alone),
		IN(test_attr_times),
		IN(test_attr_chown_kills_privileges_when_asked),
		IN(test_attr_refusals),
		IN(test_attr_flags),
		IN(test_attr_flags_settle),
		IN(test_attr_flags_are_inherited),
	};
#undef IN

	return cmocka_run_group_tests(tests, NULL, NULL);
}
