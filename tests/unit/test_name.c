/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/bits.h"
#include "base/thread.h"
#include "lib/fsfix.h"
#include "tree/itable.h"
#include "tree/name_lock.h"
#include "tree/reclaim.h"

static const struct fs_cred cred = { 100, 200 };

static int setup(void **state)
{
	struct fsfix *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fsfix_ram(fx, 0);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fsfix *fx = *state;

	fsfix_check(fx);
	fsfix_free(fx);
	free(fx);
	return 0;
}

/* ------------------------------------------------------------------ short forms */

static int mk(struct fsfix *fx, uint64_t dir, const char *name, uint32_t mode, struct fs_attr *out)
{
	return fs_mknod(fx->fs, dir, name, strlen(name), mode, 0, &cred, out);
}

static int mkd(struct fsfix *fx, uint64_t dir, const char *name, struct fs_attr *out)
{
	return fs_mkdir(fx->fs, dir, name, strlen(name), 0755, &cred, out);
}

static int look(struct fsfix *fx, uint64_t dir, const char *name, struct fs_attr *out)
{
	return fs_lookup(fx->fs, dir, name, strlen(name), out);
}

static int ln(struct fsfix *fx, uint64_t id, uint64_t dir, const char *name, struct fs_attr *out)
{
	return fs_link(fx->fs, id, dir, name, strlen(name), out);
}

static int rm(struct fsfix *fx, uint64_t dir, const char *name)
{
	return fs_unlink(fx->fs, dir, name, strlen(name));
}

static int rmd(struct fsfix *fx, uint64_t dir, const char *name)
{
	return fs_rmdir(fx->fs, dir, name, strlen(name));
}

static int mv(struct fsfix *fx, uint64_t dir, const char *name, uint64_t to, const char *new_name,
	      unsigned flags)
{
	return fs_rename(fx->fs, dir, name, strlen(name), to, new_name, strlen(new_name), flags);
}

static struct fs_attr attr_of(struct fsfix *fx, uint64_t id)
{
	struct fs_attr attr;

	assert_int_equal(fs_getattr(fx->fs, id, &attr), 0);
	return attr;
}

static uint64_t inodes_used(struct fsfix *fx)
{
	struct fs_stats st;

	fs_stat(fx->fs, &st);
	return st.inodes_used;
}

static uint64_t orphans(struct fsfix *fx)
{
	struct inode *dir;
	uint64_t n;

	assert_int_equal(orphans_get(fx->fs, &dir), 0);
	n = dir->size;
	inode_put(fx->fs, dir);
	return n;
}

/* Times long ago, so that a change shows. */
static void age(struct fsfix *fx, uint64_t id)
{
	const struct fs_setattr past = { .mtime.tv_sec = 1, .ctime.tv_sec = 1 };
	struct fs_attr attr;

	assert_int_equal(fs_setattr(fx->fs, id, FS_SET_MTIME | FS_SET_CTIME, &past, &attr), 0);
	assert_true(attr.mtime.tv_sec == 1 && attr.ctime.tv_sec == 1);
}

static void check_times(struct fsfix *fx, uint64_t id, bool mtime, bool ctime)
{
	const struct fs_attr attr = attr_of(fx, id);

	assert_int_equal(attr.mtime.tv_sec != 1, mtime);
	assert_int_equal(attr.ctime.tv_sec != 1, ctime);
}

/* ------------------------------------------------------------------ looking up and making */

static void test_name_lookup(void **state)
{
	struct fsfix *fx = *state;
	struct fs_attr attr, d, again;
	char name[300];

	assert_int_equal(mkd(fx, fx->root, "d", &d), 0);
	assert_int_equal(mk(fx, d.id, "f", S_IFREG | 0640, &attr), 0);
	assert_true(attr.mode == (S_IFREG | 0640) && attr.nlink == 1 && attr.size == 0);
	assert_true(attr.uid == 100 && attr.gid == 200 && attr.generation != 0);
	assert_true(d.mode == (S_IFDIR | 0755) && d.nlink == 2);
	assert_int_equal(look(fx, d.id, "f", &attr), 0);
	assert_int_equal(fs_lookup(fx->fs, d.id, "fx", 1, &attr), 0);
	assert_int_equal(look(fx, d.id, "g", &d), -ENOENT);
	assert_int_equal(look(fx, attr.id, "g", &d), -ENOTDIR);
	/* By this an id is found again (handles of NFS), whatever it is of. */
	assert_int_equal(look(fx, attr.id, ".", &again), 0);
	assert_true(again.id == attr.id && again.generation == attr.generation);
	fs_forget(fx->fs, attr.id, 1);
	assert_int_equal(look(fx, UINT64_C(77) << 40 | 1, "g", &d), -ESTALE);
	assert_int_equal(look(fx, fx->root + 1000, "g", &d), -ENOENT);
	memset(name, 'x', sizeof(name));
	assert_int_equal(fs_lookup(fx->fs, d.id, name, 256, &attr), -ENAMETOOLONG);
	assert_int_equal(fs_lookup(fx->fs, d.id, name, 255, &attr), -ENOENT);
	assert_int_equal(look(fx, d.id, ".", &attr), 0);
	assert_true(attr.id == d.id);
	assert_int_equal(look(fx, d.id, "..", &attr), 0);
	assert_true(attr.id == fx->root);
	assert_int_equal(look(fx, fx->root, "..", &attr), 0);
	assert_true(attr.id == fx->root);
}

static void test_name_create_errors(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t used = inodes_used(fx);
	struct fs_attr attr;
	char name[300];

	memset(name, 'x', sizeof(name));
	assert_int_equal(mk(fx, fx->root, "", S_IFREG, &attr), -ENOENT);
	assert_int_equal(mk(fx, fx->root, ".", S_IFREG, &attr), -EEXIST);
	assert_int_equal(mk(fx, fx->root, "..", S_IFREG, &attr), -EEXIST);
	assert_int_equal(mk(fx, fx->root, "a/b", S_IFREG, &attr), -EINVAL);
	assert_int_equal(fs_mknod(fx->fs, fx->root, "a\0b", 3, S_IFREG, 0, &cred, &attr), -EINVAL);
	assert_int_equal(fs_mknod(fx->fs, fx->root, name, 256, S_IFREG, 0, &cred, &attr),
			 -ENAMETOOLONG);
	assert_int_equal(mk(fx, fx->root, "a", S_IFDIR, &attr), -EINVAL);
	assert_int_equal(mk(fx, fx->root, "a", S_IFLNK, &attr), -EINVAL);
	assert_int_equal(mk(fx, fx->root, "a", S_IFMT, &attr), -EINVAL);
	assert_int_equal(fs_symlink(fx->fs, fx->root, "a", 1, "", &cred, &attr), -ENOENT);
	assert_true(inodes_used(fx) == used);
	assert_int_equal(fs_mknod(fx->fs, fx->root, name, 255, 0600, 0, &cred, &attr), 0);
	assert_true(attr.mode == (S_IFREG | 0600));
	assert_int_equal(fs_mknod(fx->fs, fx->root, name, 255, 0600, 0, &cred, &attr), -EEXIST);
	assert_int_equal(fs_mkdir(fx->fs, fx->root, name, 255, 0600, &cred, &attr), -EEXIST);
	assert_int_equal(fs_symlink(fx->fs, fx->root, name, 255, "x", &cred, &attr), -EEXIST);
	assert_int_equal(mk(fx, attr.id, "a", S_IFREG, &attr), -ENOTDIR);
	assert_int_equal(mkd(fx, attr.id, "a", &attr), -ENOTDIR);
	assert_int_equal(fs_tmpfile(fx->fs, attr.id, 0600, &cred, &attr), -ENOTDIR);
	assert_true(inodes_used(fx) == used + 1);
}

static void test_name_kinds_of_nodes(void **state)
{
	static const uint32_t kinds[] = { S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK };
	struct fsfix *fx = *state;
	struct fs_attr attr;
	char name[8];

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const bool dev = kinds[i] == S_IFCHR || kinds[i] == S_IFBLK;

		snprintf(name, sizeof(name), "n%zu", i);
		assert_int_equal(fs_mknod(fx->fs, fx->root, name, 2, kinds[i] | 04751,
					  (uint32_t)makedev(4000, 1000000), &cred, &attr),
				 0);
		assert_true(attr.mode == (kinds[i] | 04751));
		assert_true(attr.rdev == (dev ? makedev(4000, 1000000) : 0));
		fs_forget(fx->fs, attr.id, 1);
		attr = attr_of(fx, attr.id);
		assert_true(attr.rdev == (dev ? makedev(4000, 1000000) : 0));
	}
	age(fx, fx->root);
	assert_int_equal(mkd(fx, fx->root, "d", &attr), 0);
	check_times(fx, fx->root, true, true);
	assert_true(attr_of(fx, fx->root).nlink == 3);
	assert_true(attr_of(fx, fx->root).size == ARRAY_SIZE(kinds) + 1);
}

static void test_name_setgid_directory(void **state)
{
	struct fsfix *fx = *state;
	const struct fs_setattr set = { .mode = 02755, .gid = 4711 };
	struct fs_attr d, attr;

	assert_int_equal(mkd(fx, fx->root, "d", &d), 0);
	assert_int_equal(mk(fx, d.id, "before", S_IFREG | 0644, &attr), 0);
	assert_true(attr.gid == 200);
	assert_int_equal(fs_setattr(fx->fs, d.id, FS_SET_MODE | FS_SET_GID, &set, &d), 0);
	assert_int_equal(mk(fx, d.id, "f", S_IFREG | 0644, &attr), 0);
	assert_true(attr.gid == 4711 && attr.mode == (S_IFREG | 0644));
	assert_int_equal(fs_symlink(fx->fs, d.id, "l", 1, "x", &cred, &attr), 0);
	assert_true(attr.gid == 4711 && attr.mode == (S_IFLNK | 0777));
	assert_int_equal(fs_tmpfile(fx->fs, d.id, 0644, &cred, &attr), 0);
	assert_true(attr.gid == 4711);
	assert_int_equal(mkd(fx, d.id, "sub", &attr), 0);
	assert_true(attr.gid == 4711 && attr.mode == (S_IFDIR | 02755));
}

static void test_name_symlinks(void **state)
{
	static const size_t lens[] = { 1, PMFS_INLINE_MAX, PMFS_INLINE_MAX + 1, 1000,
				      PATH_MAX - 1 };
	struct fsfix *fx = *state;
	struct fs_attr attr;
	char target[PATH_MAX + 1], got[PATH_MAX + 1], name[8];
	const uint64_t used = inodes_used(fx);

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		memset(target, 't', lens[i]);
		target[lens[i]] = '\0';
		snprintf(name, sizeof(name), "l%zu", i);
		assert_int_equal(fs_symlink(fx->fs, fx->root, name, 2, target, &cred, &attr), 0);
		assert_true(attr.mode == (S_IFLNK | 0777) && attr.size == lens[i]);
		fs_forget(fx->fs, attr.id, 1);
		memset(got, 0, sizeof(got));
		assert_int_equal(fs_readlink(fx->fs, attr.id, got, sizeof(got)), lens[i]);
		assert_memory_equal(got, target, lens[i] + 1);
	}
	memset(target, 't', PATH_MAX);
	target[PATH_MAX] = '\0';
	assert_int_equal(fs_symlink(fx->fs, fx->root, "long", 4, target, &cred, &attr),
			 -ENAMETOOLONG);
	assert_int_equal(fs_readlink(fx->fs, fx->root, got, sizeof(got)), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		snprintf(name, sizeof(name), "l%zu", i);
		assert_int_equal(rm(fx, fx->root, name), 0);
	}
	assert_true(inodes_used(fx) == used);
}

/* ------------------------------------------------------------------ links and removal */

static void test_name_link(void **state)
{
	struct fsfix *fx = *state;
	const struct fs_setattr mode = { .mode = 0600 };
	struct fs_snapshot snap;
	struct fs_attr d, f, attr, old;
	struct inode *in;

	assert_int_equal(mkd(fx, fx->root, "d", &d), 0);
	assert_int_equal(mk(fx, fx->root, "f", S_IFREG | 0644, &f), 0);
	assert_int_equal(ln(fx, d.id, fx->root, "x", &attr), -EPERM);
	assert_int_equal(ln(fx, f.id, fx->root, "f", &attr), -EEXIST);
	assert_int_equal(ln(fx, f.id, fx->root, ".", &attr), -EEXIST);
	assert_int_equal(ln(fx, f.id, fx->root, "", &attr), -ENOENT);
	assert_int_equal(ln(fx, f.id, fx->root, "a/b", &attr), -EINVAL);
	assert_int_equal(ln(fx, f.id, f.id, "x", &attr), -ENOTDIR);
	age(fx, f.id);
	age(fx, d.id);
	assert_int_equal(ln(fx, f.id, d.id, "g", &attr), 0);
	assert_true(attr.id == f.id && attr.nlink == 2);
	check_times(fx, f.id, false, true);
	check_times(fx, d.id, true, true);
	assert_int_equal(fs_setattr(fx->fs, f.id, FS_SET_MODE, &mode, &attr), 0);
	assert_int_equal(look(fx, d.id, "g", &attr), 0);
	assert_true(attr.id == f.id && attr.mode == (S_IFREG | 0600));

	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	assert_int_equal(look(fx, snap.root, "f", &old), 0);
	assert_true(old.nlink == 2 && old.ino == old.id && old.id != f.id);
	assert_int_equal(ln(fx, old.id, fx->root, "x", &attr), -EXDEV);
	assert_int_equal(ln(fx, old.id, snap.root, "x", &attr), -EROFS);

	/* The last link of all. */
	assert_int_equal(inode_get(fx->fs, f.id, &in), 0);
	in->nlink = UINT32_MAX - 2;
	assert_int_equal(ln(fx, f.id, fx->root, "last", &attr), 0);
	assert_true(attr.nlink == UINT32_MAX - 1);
	assert_int_equal(ln(fx, f.id, fx->root, "one more", &attr), -EMLINK);
	in->nlink = 3;
	inode_put(fx->fs, in);
	assert_int_equal(rm(fx, fx->root, "last"), 0);
	assert_true(attr_of(fx, f.id).nlink == 2);
}

/* A directory can be full as well. */
static void test_name_directory_link_limit(void **state)
{
	struct fsfix *fx = *state;
	struct fs_attr a, b, attr;
	struct inode *in;

	assert_int_equal(mkd(fx, fx->root, "a", &a), 0);
	assert_int_equal(mkd(fx, fx->root, "b", &b), 0);
	assert_int_equal(mkd(fx, b.id, "sub", &attr), 0);
	assert_int_equal(mk(fx, a.id, "f", S_IFREG, &attr), 0);
	assert_int_equal(inode_get(fx->fs, a.id, &in), 0);
	in->nlink = UINT32_MAX - 1;
	assert_int_equal(mkd(fx, a.id, "c", &attr), -EMLINK);
	assert_int_equal(mv(fx, b.id, "sub", a.id, "c", 0), -EMLINK);
	assert_int_equal(mv(fx, b.id, "sub", a.id, "f", RENAME_EXCHANGE), -EMLINK);
	assert_int_equal(mv(fx, a.id, "f", b.id, "sub", RENAME_EXCHANGE), -EMLINK);
	in->nlink = 2;
	inode_put(fx->fs, in);
	assert_int_equal(mv(fx, a.id, "f", b.id, "sub", RENAME_EXCHANGE), 0);
	assert_true(attr_of(fx, a.id).nlink == 3 && attr_of(fx, b.id).nlink == 2);
}

static void test_name_unlink(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t used = inodes_used(fx);
	struct fs_attr d, f, attr;

	assert_int_equal(mkd(fx, fx->root, "d", &d), 0);
	assert_int_equal(mk(fx, d.id, "f", S_IFREG | 0644, &f), 0);
	assert_int_equal(ln(fx, f.id, d.id, "g", &attr), 0);
	fsfix_write(fx, f.id, 5000, "contents", 8);
	assert_int_equal(rm(fx, fx->root, "d"), -EISDIR);
	assert_int_equal(rm(fx, fx->root, "."), -EISDIR);
	assert_int_equal(rm(fx, fx->root, ".."), -EISDIR);
	assert_int_equal(rm(fx, fx->root, "nothing"), -ENOENT);
	assert_int_equal(rm(fx, fx->root, ""), -ENOENT);
	assert_int_equal(rm(fx, f.id, "x"), -ENOTDIR);
	age(fx, f.id);
	age(fx, d.id);
	assert_int_equal(rm(fx, d.id, "g"), 0);
	assert_int_equal(rm(fx, d.id, "g"), -ENOENT);
	check_times(fx, f.id, false, true);
	check_times(fx, d.id, true, true);
	assert_true(attr_of(fx, f.id).nlink == 1 && orphans(fx) == 0);

	/* Without a name it lives on while somebody knows it. */
	assert_int_equal(rm(fx, d.id, "f"), 0);
	assert_int_equal(look(fx, d.id, "f", &attr), -ENOENT);
	assert_true(attr_of(fx, f.id).nlink == 0 && orphans(fx) == 1);
	fsfix_expect(fx, f.id, 5000, "contents", 8);
	fsfix_write(fx, f.id, 0, "more", 4);
	fsfix_check(fx);
	fs_forget(fx->fs, f.id, 1);
	assert_true(orphans(fx) == 1);
	fs_forget(fx->fs, f.id, 1);
	assert_true(orphans(fx) == 0 && inodes_used(fx) == used + 1);
	assert_int_equal(fs_getattr(fx->fs, f.id, &attr), -ENOENT);

	/* One that nobody knows goes at once. */
	assert_int_equal(mk(fx, d.id, "f", S_IFREG | 0644, &f), 0);
	fs_forget(fx->fs, f.id, 1);
	assert_int_equal(rm(fx, d.id, "f"), 0);
	assert_true(orphans(fx) == 0 && inodes_used(fx) == used + 1);
}

static void test_name_rmdir(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t used = inodes_used(fx);
	struct fs_attr d, e, f, attr;

	assert_int_equal(mkd(fx, fx->root, "d", &d), 0);
	assert_int_equal(mkd(fx, d.id, "e", &e), 0);
	assert_int_equal(mk(fx, fx->root, "f", S_IFREG | 0644, &f), 0);
	assert_int_equal(rmd(fx, fx->root, "d"), -ENOTEMPTY);
	assert_int_equal(rmd(fx, fx->root, "f"), -ENOTDIR);
	assert_int_equal(rmd(fx, fx->root, "x"), -ENOENT);
	assert_int_equal(rmd(fx, fx->root, "."), -EINVAL);
	assert_int_equal(rmd(fx, fx->root, ".."), -ENOTEMPTY);
	assert_int_equal(rmd(fx, f.id, "x"), -ENOTDIR);
	assert_true(attr_of(fx, d.id).nlink == 3);
	age(fx, d.id);
	age(fx, e.id);
	assert_int_equal(rmd(fx, d.id, "e"), 0);
	check_times(fx, d.id, true, true);
	check_times(fx, e.id, false, true);
	assert_true(attr_of(fx, d.id).nlink == 2 && attr_of(fx, e.id).nlink == 0);
	assert_int_equal(rmd(fx, fx->root, "d"), 0);

	/* Removed directories take nothing any more. */
	assert_int_equal(mk(fx, e.id, "x", S_IFREG, &attr), -ENOENT);
	assert_int_equal(mkd(fx, e.id, "x", &attr), -ENOENT);
	assert_int_equal(fs_symlink(fx->fs, e.id, "x", 1, "t", &cred, &attr), -ENOENT);
	assert_int_equal(fs_tmpfile(fx->fs, e.id, 0600, &cred, &attr), -ENOENT);
	assert_int_equal(ln(fx, f.id, e.id, "x", &attr), -ENOENT);
	assert_int_equal(mv(fx, fx->root, "f", e.id, "x", 0), -ENOENT);
	assert_int_equal(mv(fx, e.id, "x", fx->root, "y", 0), -ENOENT);
	assert_int_equal(rm(fx, e.id, "x"), -ENOENT);
	assert_int_equal(look(fx, e.id, "x", &attr), -ENOENT);
	assert_int_equal(look(fx, e.id, ".", &attr), -ENOENT);
	assert_true(orphans(fx) == 2);
	fs_forget(fx->fs, e.id, 1);
	fs_forget(fx->fs, d.id, 1);
	assert_true(orphans(fx) == 0 && inodes_used(fx) == used + 1);
}

static void test_name_tmpfile(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t used = inodes_used(fx);
	struct fs_attr t, attr;

	assert_int_equal(fs_tmpfile(fx->fs, fx->root, 0640, &cred, &t), 0);
	assert_true(t.nlink == 0 && t.mode == (S_IFREG | 0640) && t.uid == 100 && orphans(fx) == 1);
	fsfix_write(fx, t.id, 0, "contents", 8);
	assert_int_equal(ln(fx, t.id, fx->root, "t", &attr), 0);
	assert_true(attr.id == t.id && attr.nlink == 1 && orphans(fx) == 0);
	fs_forget(fx->fs, t.id, 2);
	assert_int_equal(look(fx, fx->root, "t", &attr), 0);
	assert_true(attr.id == t.id);
	fsfix_expect(fx, t.id, 0, "contents", 8);
	assert_int_equal(fs_tmpfile(fx->fs, fx->root, 0640, &cred, &t), 0);
	assert_true(inodes_used(fx) == used + 2);
	fs_forget(fx->fs, t.id, 1);
	assert_true(orphans(fx) == 0 && inodes_used(fx) == used + 1);
}

static void test_name_snapshots_refuse(void **state)
{
	struct fsfix *fx = *state;
	struct fs_snapshot snap;
	struct fs_attr d, f, attr;

	assert_int_equal(mkd(fx, fx->root, "d", &d), 0);
	assert_int_equal(mk(fx, fx->root, "f", S_IFREG | 0644, &f), 0);
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	assert_int_equal(mk(fx, snap.root, "x", S_IFREG, &attr), -EROFS);
	assert_int_equal(mkd(fx, snap.root, "x", &attr), -EROFS);
	assert_int_equal(fs_symlink(fx->fs, snap.root, "x", 1, "t", &cred, &attr), -EROFS);
	assert_int_equal(fs_tmpfile(fx->fs, snap.root, 0600, &cred, &attr), -EROFS);
	assert_int_equal(rm(fx, snap.root, "f"), -EROFS);
	assert_int_equal(rmd(fx, snap.root, "d"), -EROFS);
	assert_int_equal(mv(fx, snap.root, "f", snap.root, "g", 0), -EROFS);
	assert_int_equal(mv(fx, fx->root, "f", snap.root, "g", 0), -EXDEV);
	assert_int_equal(look(fx, snap.root, "..", &attr), 0);
	assert_true(attr.id == snap.root);
	assert_int_equal(rm(fx, fx->root, "f"), 0);
	assert_int_equal(rmd(fx, fx->root, "d"), 0);
	assert_int_equal(look(fx, snap.root, "f", &attr), 0);
	assert_true(attr.nlink == 1);
	assert_int_equal(look(fx, snap.root, "d", &attr), 0);
	assert_true(attr.nlink == 2);
}

/* ------------------------------------------------------------------ moving */

static void test_name_rename_errors(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t root = fx->root;
	struct fs_attr a, b, f, attr;

	assert_int_equal(mkd(fx, root, "a", &a), 0);
	assert_int_equal(mkd(fx, a.id, "b", &b), 0);
	assert_int_equal(mk(fx, root, "f", S_IFREG, &f), 0);
	assert_int_equal(mk(fx, root, "g", S_IFREG, &attr), 0);
	assert_int_equal(mkd(fx, root, "empty", &attr), 0);
	assert_int_equal(mv(fx, root, "x", root, "y", 0), -ENOENT);
	assert_int_equal(mv(fx, root, "", root, "y", 0), -ENOENT);
	assert_int_equal(mv(fx, root, "f", root, "", 0), -ENOENT);
	assert_int_equal(mv(fx, root, "f", root, "a/b", 0), -EINVAL);
	assert_int_equal(mv(fx, root, ".", root, "y", 0), -EBUSY);
	assert_int_equal(mv(fx, a.id, "..", root, "y", 0), -EBUSY);
	assert_int_equal(mv(fx, root, "f", root, ".", 0), -EBUSY);
	assert_int_equal(mv(fx, root, "f", a.id, "..", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(mv(fx, f.id, "x", root, "y", 0), -ENOTDIR);
	assert_int_equal(mv(fx, root, "f", f.id, "y", 0), -ENOTDIR);
	assert_int_equal(mv(fx, root, "f", root, "y", RENAME_WHITEOUT), -EINVAL);
	assert_int_equal(mv(fx, root, "f", root, "g", RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(mv(fx, root, "f", root, "g", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(mv(fx, root, "f", root, "f", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(mv(fx, root, "f", root, "y", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(mv(fx, root, "y", root, "f", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(mv(fx, root, "a", root, "f", 0), -ENOTDIR);
	assert_int_equal(mv(fx, root, "f", root, "a", 0), -EISDIR);
	assert_int_equal(mv(fx, root, "f", root, "empty", 0), -EISDIR);
	assert_int_equal(mv(fx, root, "empty", root, "a", 0), -ENOTEMPTY);
	assert_int_equal(mv(fx, a.id, "b", root, "a", 0), -ENOTEMPTY);
	/* Into itself or below. */
	assert_int_equal(mv(fx, root, "a", a.id, "x", 0), -EINVAL);
	assert_int_equal(mv(fx, root, "a", b.id, "x", 0), -EINVAL);
	assert_int_equal(mv(fx, root, "a", a.id, "b", 0), -EINVAL);
	assert_int_equal(mv(fx, root, "a", a.id, "b", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(mv(fx, a.id, "b", root, "a", RENAME_EXCHANGE), -EINVAL);
	/* Nothing has happened. */
	assert_true(attr_of(fx, root).nlink == 4 && attr_of(fx, root).size == 4 &&
		    orphans(fx) == 0);
}

static void test_name_rename_files(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t root = fx->root, used = inodes_used(fx);
	struct fs_attr d, f, g, attr;

	assert_int_equal(mkd(fx, root, "d", &d), 0);
	assert_int_equal(mk(fx, root, "f", S_IFREG, &f), 0);
	assert_int_equal(mk(fx, root, "g", S_IFREG, &g), 0);
	age(fx, root);
	age(fx, d.id);
	age(fx, f.id);
	assert_int_equal(mv(fx, root, "f", d.id, "h", 0), 0);
	check_times(fx, root, true, true);
	check_times(fx, d.id, true, true);
	check_times(fx, f.id, false, true);
	assert_int_equal(look(fx, root, "f", &attr), -ENOENT);
	assert_int_equal(look(fx, d.id, "h", &attr), 0);
	assert_true(attr.id == f.id && attr.nlink == 1);
	/* Over another. */
	age(fx, g.id);
	assert_int_equal(mv(fx, d.id, "h", root, "g", 0), 0);
	check_times(fx, g.id, false, true);
	assert_true(attr_of(fx, g.id).nlink == 0 && orphans(fx) == 1);
	assert_int_equal(look(fx, root, "g", &attr), 0);
	assert_true(attr.id == f.id);
	fs_forget(fx->fs, g.id, 1);
	assert_true(orphans(fx) == 0 && inodes_used(fx) == used + 2);
	/* Two names of one file: both stay. */
	assert_int_equal(ln(fx, f.id, root, "h", &attr), 0);
	assert_int_equal(mv(fx, root, "g", root, "h", 0), 0);
	assert_int_equal(mv(fx, root, "g", root, "g", 0), 0);
	assert_int_equal(mv(fx, root, "g", root, "h", RENAME_EXCHANGE), 0);
	assert_true(attr_of(fx, f.id).nlink == 2);
	/* Over one that has another name yet. */
	assert_int_equal(mk(fx, root, "g2", S_IFREG, &g), 0);
	assert_int_equal(mv(fx, root, "g2", root, "h", 0), 0);
	assert_true(attr_of(fx, f.id).nlink == 1 && orphans(fx) == 0);
	assert_int_equal(mv(fx, root, "g", root, "h", RENAME_EXCHANGE), 0);
	assert_int_equal(look(fx, root, "h", &attr), 0);
	assert_true(attr.id == f.id);
	assert_int_equal(look(fx, root, "g", &attr), 0);
	assert_true(attr.id == g.id);
	assert_true(attr_of(fx, root).size == 3);
}

static void test_name_rename_directories(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t root = fx->root;
	struct fs_attr a, b, c, f, attr;

	assert_int_equal(mkd(fx, root, "a", &a), 0);
	assert_int_equal(mkd(fx, root, "b", &b), 0);
	assert_int_equal(mkd(fx, a.id, "c", &c), 0);
	assert_int_equal(mk(fx, c.id, "f", S_IFREG, &f), 0);
	/* To another parent. */
	assert_int_equal(mv(fx, a.id, "c", b.id, "c2", 0), 0);
	assert_true(attr_of(fx, a.id).nlink == 2 && attr_of(fx, b.id).nlink == 3);
	assert_int_equal(look(fx, c.id, "..", &attr), 0);
	assert_true(attr.id == b.id);
	/* In one parent, and onto itself. */
	assert_int_equal(mv(fx, b.id, "c2", b.id, "c", 0), 0);
	assert_int_equal(mv(fx, b.id, "c", b.id, "c", 0), 0);
	assert_true(attr_of(fx, b.id).nlink == 3);
	/* Over an empty one. */
	assert_int_equal(mv(fx, b.id, "c", root, "a", 0), 0);
	assert_true(attr_of(fx, a.id).nlink == 0 && attr_of(fx, root).nlink == 4 &&
		    attr_of(fx, b.id).nlink == 2);
	assert_int_equal(look(fx, c.id, "..", &attr), 0);
	assert_true(attr.id == root && orphans(fx) == 1);
	assert_int_equal(mv(fx, root, "b", root, "a", 0), -ENOTEMPTY);
	assert_int_equal(rm(fx, c.id, "f"), 0);
	assert_int_equal(mv(fx, root, "b", root, "a", 0), 0);
	assert_true(attr_of(fx, root).nlink == 3);
	/* An exchange of two kinds moves a subdirectory from one parent to the other. */
	assert_int_equal(mkd(fx, b.id, "sub", &attr), 0);
	assert_int_equal(mk(fx, root, "f", S_IFREG, &f), 0);
	assert_int_equal(mv(fx, root, "f", b.id, "sub", RENAME_EXCHANGE), 0);
	assert_true(attr_of(fx, root).nlink == 4 && attr_of(fx, b.id).nlink == 2);
	assert_int_equal(look(fx, root, "f", &c), 0);
	assert_true(c.id == attr.id && S_ISDIR(c.mode));
	assert_int_equal(look(fx, c.id, "..", &attr), 0);
	assert_true(attr.id == root);
	/* And of two directories. */
	assert_int_equal(mkd(fx, b.id, "x", &attr), 0);
	assert_int_equal(mv(fx, b.id, "x", root, "f", RENAME_EXCHANGE), 0);
	assert_true(attr_of(fx, root).nlink == 4 && attr_of(fx, b.id).nlink == 3);
	assert_int_equal(look(fx, c.id, "..", &a), 0);
	assert_true(a.id == b.id);
	assert_int_equal(look(fx, attr.id, "..", &a), 0);
	assert_true(a.id == root);
}

/* ------------------------------------------------------------------ reading directories */

struct listing {
	struct fsfix *fx;
	uint64_t dir, next;
	unsigned n, stop_at;
	char names[64][16];
};

static int list_one(void *arg, const struct fs_dirent *de)
{
	struct listing *l = arg;
	struct fs_attr attr;

	if (l->n == l->stop_at)
		return 55;
	/* No lock is held here. */
	assert_int_equal(fs_lookup(l->fx->fs, l->dir, de->name, de->name_len, &attr), 0);
	fs_forget(l->fx->fs, attr.id, 1);
	assert_true(attr.id == de->id && attr.ino == de->ino && IFTODT(attr.mode) == de->type);
	assert_true(strlen(de->name) == de->name_len && de->next > l->next);
	l->next = de->next;
	snprintf(l->names[l->n++], sizeof(l->names[0]), "%s", de->name);
	return 0;
}

static void test_name_readdir(void **state)
{
	struct fsfix *fx = *state;
	struct listing all = { .fx = fx, .stop_at = 64 }, parts = { .fx = fx };
	struct fs_attr d, attr;
	char name[16];
	int rc;

	assert_int_equal(mkd(fx, fx->root, "d", &d), 0);
	all.dir = parts.dir = d.id;
	for (unsigned i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(mk(fx, d.id, name, i % 2 ? S_IFREG : S_IFIFO, &attr), 0);
	}
	assert_int_equal(fs_readdir(fx->fs, attr.id, 0, list_one, &all), -ENOTDIR);
	assert_int_equal(fs_readdir(fx->fs, d.id, 0, list_one, &all), 0);
	assert_int_equal(all.n, 52);
	assert_string_equal(all.names[0], ".");
	assert_string_equal(all.names[1], "..");
	do {
		parts.stop_at = parts.n + 3;
		rc = fs_readdir(fx->fs, d.id, parts.next, list_one, &parts);
	} while (rc == 55);
	assert_int_equal(rc, 0);
	assert_int_equal(parts.n, 52);
	assert_memory_equal(parts.names, all.names, sizeof(all.names));
	assert_int_equal(fs_readdir(fx->fs, d.id, INT64_MAX, list_one, &parts), 0);
	assert_int_equal(parts.n, 52);
}

static int count_one(void *arg, const struct fs_dirent *de)
{
	struct listing *l = arg;

	l->n++;
	if (!strcmp(de->name, "..")) {
		assert_true(de->id == 0);
	} else {
		assert_true(de->ino == de->id && NODE_VOLUME(de->id) == NODE_VOLUME(l->dir));
	}
	return 0;
}

/* More than what is gathered at a time, and in a snapshot. */
static void test_name_readdir_of_a_snapshot(void **state)
{
	struct fsfix *fx = *state;
	struct fs_snapshot snap;
	struct listing l = { .fx = fx };
	struct fs_attr attr;
	char name[251];

	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "%0250u", i);
		assert_int_equal(mk(fx, fx->root, name, S_IFREG, &attr), 0);
	}
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	for (unsigned i = 0; i < 300; i += 2) {
		snprintf(name, sizeof(name), "%0250u", i);
		assert_int_equal(rm(fx, fx->root, name), 0);
	}
	l.dir = snap.root;
	assert_int_equal(fs_readdir(fx->fs, snap.root, 0, count_one, &l), 0);
	assert_int_equal(l.n, 302);
}

/* ------------------------------------------------------------------ bad images */

/* Let a name lead to whatever. */
static void entry_forge(struct fsfix *fx, uint64_t dir_id, const char *name, uint64_t ino,
			uint8_t type)
{
	struct inode *dir;
	struct txn tx;

	assert_int_equal(inode_get(fx->fs, dir_id, &dir), 0);
	assert_int_equal(txn_begin(fs_store(fx->fs), &tx, FRAME_NORMAL, DIR_COST + ITABLE_COST), 0);
	assert_int_equal(itable_own(&tx, dir), 0);
	assert_int_equal(dir_replace(&tx, dir, name, strlen(name), ino, type), 0);
	assert_int_equal(itable_store(&tx, dir), 0);
	txn_end(&tx);
	inode_put(fx->fs, dir);
}

static void test_name_bad_entries_are_refused(void **state)
{
	struct fsfix *fx = *state;
	static const struct { uint64_t ino; uint8_t type;
	} bad[] = {
		{0, DT_REG},	 {PMFS_INO_ROOT, DT_DIR},     {PMFS_INO_ORPHANS, DT_DIR},
		{12345, DT_REG}, {UINT64_C(1) << 40, DT_REG}, {UINT64_MAX, DT_REG},
	};
	struct fs_attr f, g, d, attr;

	assert_int_equal(mk(fx, fx->root, "f", S_IFREG, &f), 0);
	assert_int_equal(mk(fx, fx->root, "g", S_IFREG, &g), 0);
	assert_int_equal(mkd(fx, fx->root, "d", &d), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		entry_forge(fx, fx->root, "f", bad[i].ino, bad[i].type);
		assert_int_equal(look(fx, fx->root, "f", &attr), -EUCLEAN);
		assert_int_equal(rm(fx, fx->root, "f"), -EUCLEAN);
		assert_int_equal(rmd(fx, fx->root, "f"), -EUCLEAN);
		assert_int_equal(mv(fx, fx->root, "f", d.id, "h", 0), -EUCLEAN);
		assert_int_equal(mv(fx, fx->root, "g", fx->root, "f", 0), -EUCLEAN);
	}
	/* A directory that is said to be a file: nothing may take it away. */
	entry_forge(fx, fx->root, "f", NODE_INO(d.id), DT_REG);
	assert_int_equal(rm(fx, fx->root, "f"), -EUCLEAN);
	assert_int_equal(mv(fx, fx->root, "g", fx->root, "f", 0), -EUCLEAN);
	/* A name that is its own directory's. */
	entry_forge(fx, fx->root, "f", NODE_INO(f.id), DT_REG);
	assert_int_equal(mk(fx, d.id, "h", S_IFREG, &attr), 0);
	entry_forge(fx, d.id, "h", NODE_INO(d.id), DT_DIR);
	assert_int_equal(look(fx, d.id, "h", &f), -EUCLEAN);
	assert_int_equal(rmd(fx, d.id, "h"), -EUCLEAN);
	entry_forge(fx, d.id, "h", NODE_INO(attr.id), DT_REG);
}

/* Parents that lead around in a ring, and not to the root. */
static void test_name_ring_of_parents_is_refused(void **state)
{
	struct fsfix *fx = *state;
	struct fs_attr d[6], x;
	struct inode *in[6];

	assert_int_equal(mkd(fx, fx->root, "x", &x), 0);
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(mkd(fx, i ? d[i - 1].id : fx->root, "d", &d[i]), 0);
		assert_int_equal(inode_get(fx->fs, d[i].id, &in[i]), 0);
	}
	in[1]->parent = NODE_INO(d[4].id);
	assert_int_equal(mv(fx, fx->root, "x", d[5].id, "y", 0), -EUCLEAN);
	in[1]->parent = NODE_INO(d[1].id);
	assert_int_equal(mv(fx, fx->root, "x", d[5].id, "y", 0), -EUCLEAN);
	in[1]->parent = 4711;
	assert_int_equal(mv(fx, fx->root, "x", d[5].id, "y", 0), -EUCLEAN);
	in[1]->parent = NODE_INO(d[0].id);
	assert_int_equal(mv(fx, fx->root, "x", d[5].id, "y", 0), 0);
	for (unsigned i = 0; i < 6; i++)
		inode_put(fx->fs, in[i]);
}

/* ------------------------------------------------------------------ no space */

static void test_name_full(void **state)
{
	struct fsfix *fx = *state;
	uint8_t page[PMFS_PAGE_SIZE] = { 1 };
	uint64_t off = 0, used;
	struct fs_attr f, attr;
	char name[16];
	unsigned n = 0;
	int rc;

	assert_int_equal(mk(fx, fx->root, "big", S_IFREG, &f), 0);
	while (fs_write(fx->fs, f.id, off, page, sizeof(page), 0) == (ssize_t)sizeof(page))
		off += sizeof(page);
	do {
		snprintf(name, sizeof(name), "n%u", n++);
		used = inodes_used(fx);
		rc = mk(fx, fx->root, name, S_IFREG, &attr);
	} while (rc == 0);
	assert_int_equal(rc, -ENOSPC);
	assert_true(inodes_used(fx) == used);
	assert_int_equal(mkd(fx, fx->root, "d", &attr), -ENOSPC);
	assert_int_equal(fs_symlink(fx->fs, fx->root, "l", 1, "t", &cred, &attr), -ENOSPC);
	assert_int_equal(fs_tmpfile(fx->fs, fx->root, 0600, &cred, &attr), -ENOSPC);
	fsfix_check(fx);
	/* Removing works, and makes room. */
	assert_int_equal(rm(fx, fx->root, "big"), 0);
	fs_forget(fx->fs, f.id, 1);
	assert_true(reclaim_run(fx->fs) >= 0);
	assert_int_equal(mkd(fx, fx->root, "d", &attr), 0);
}

/* ------------------------------------------------------------------ many threads */

#define THREADS 4u
#define THREAD_DIRS 3u

struct worker {
	struct fsfix *fx;
	const uint64_t *dirs;
	unsigned ops;
	struct fsfix_random rnd;
	pthread_t thread;
};

static void *work(void *arg)
{
	static const unsigned flags[] = { 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	struct worker *w = arg;
	struct fsfix *fx = w->fx;
	struct fs_attr attr;

	for (unsigned i = 0; i < w->ops; i++) {
		const uint64_t dir = w->dirs[fsfix_below(&w->rnd, THREAD_DIRS)];
		const uint64_t to = w->dirs[fsfix_below(&w->rnd, THREAD_DIRS)];
		struct listing none = { .fx = fx, .dir = dir, .stop_at = 0 };
		char name[8], other[8];
		int rc = -1;

		snprintf(name, sizeof(name), "n%u", (unsigned)fsfix_below(&w->rnd, 6));
		snprintf(other, sizeof(other), "n%u", (unsigned)fsfix_below(&w->rnd, 6));
		switch (fsfix_below(&w->rnd, 10)) {
		case 0:
		case 1:
			rc = mk(fx, dir, name, S_IFREG | 0644, &attr);
			break;
		case 2:
			rc = mkd(fx, dir, name, &attr);
			break;
		case 3:
			rm(fx, dir, name);
			break;
		case 4:
			rmd(fx, dir, name);
			break;
		case 5:
			rc = look(fx, dir, name, &attr);
			if (rc == 0) {
				struct fs_attr again;

				if (ln(fx, attr.id, to, other, &again) == 0)
					fs_forget(fx->fs, again.id, 1);
			}
			break;
		case 6:
			rc = fs_tmpfile(fx->fs, dir, 0600, &cred, &attr);
			break;
		case 7:
			fs_readdir(fx->fs, dir, 0, list_one, &none);
			break;
		default:
			mv(fx, dir, name, to, other,
			   flags[fsfix_below(&w->rnd, ARRAY_SIZE(flags))]);
		}
		if (rc == 0)
			fs_forget(fx->fs, attr.id, 1);
	}
	return NULL;
}

/* Beside them: snapshots, which turn all that the others change into copies. */
static void *take_snapshots(void *arg)
{
	struct worker *w = arg;
	struct fs_snapshot snap;
	int bad = 0;

	for (unsigned i = 0; i < w->ops && !bad; i++) {
		bad |= fs_snap_create(w->fx->fs, "s", "", &snap);
		bad |= fs_sync(w->fx->fs);
		bad |= fs_snap_delete(w->fx->fs, "s");
		bad |= reclaim_run(w->fx->fs) < 0;
	}
	return bad ? arg : NULL;
}

static void test_name_many_threads(void **state)
{
	struct fsfix *fx = *state;
	struct worker w[THREADS], snaps = { .fx = fx, .ops = 50 };
	void *failed;
	uint64_t dirs[THREAD_DIRS];
	struct fsfix_random rnd;
	struct fs_attr attr;

	fsfix_seed(&rnd, 1);
	/* One below the other, so that directories move up and down. */
	for (unsigned i = 0; i < THREAD_DIRS; i++) {
		assert_int_equal(mkd(fx, i ? dirs[i - 1] : fx->root, "sub", &attr), 0);
		dirs[i] = attr.id;
	}
	for (unsigned i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .fx = fx, .dirs = dirs, .ops = 4000 };
		w[i].rnd.state = fsfix_random(&rnd);
		assert_int_equal(thread_start(&w[i].thread, "test-name", work, &w[i]), 0);
	}
	assert_int_equal(thread_start(&snaps.thread, "test-snap", take_snapshots, &snaps), 0);
	for (unsigned i = 0; i < THREADS; i++)
		thread_join(w[i].thread);
	assert_int_equal(pthread_join(snaps.thread, &failed), 0);
	assert_null(failed);
	assert_true(orphans(fx) == 0);
	fsfix_check(fx);
}

/* More than the 65,000 of ext4, or 16 bits. */
static void test_name_many_links(void **state)
{
	struct fsfix *fx = *state;
	const unsigned count = 66000;
	const uint64_t f = fsfix_file(fx, fx->root, "f"), d = fsfix_mkdir(fx, fx->root, "d");
	struct fs_attr attr;
	char name[16];

	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(ln(fx, f, d, name, &attr), 0);
		fs_forget(fx->fs, f, 1);
	}
	assert_int_equal(attr_of(fx, f).nlink, count + 1);
	for (unsigned i = 0; i < count; i += 2) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(rm(fx, d, name), 0);
	}
	assert_int_equal(attr_of(fx, f).nlink, count / 2 + 1);
}

static void test_name_whiteout(void **state)
{
	struct fsfix *fx = *state;
	const struct fs_cred owner = {5, 6};
	const uint64_t root = fx->root, used = inodes_used(fx);
	struct fs_attr attr;

	fsfix_file(fx, root, "a");
	fsfix_mkdir(fx, root, "d");
	assert_int_equal(fs_rename_whiteout(fx->fs, root, "a", 1, root, "b", 1, RENAME_EXCHANGE,
					    &owner), -EINVAL);
	assert_int_equal(fs_rename_whiteout(fx->fs, root, "x", 1, root, "b", 1, 0, &owner),
			 -ENOENT);
	assert_int_equal(inodes_used(fx), used + 2);
	assert_int_equal(fs_rename_whiteout(fx->fs, root, "a", 1, root, "b", 1, 0, &owner), 0);
	assert_int_equal(look(fx, root, "a", &attr), 0);
	assert_true(attr.mode == S_IFCHR && attr.rdev == 0 && attr.nlink == 1);
	assert_true(attr.uid == 5 && attr.gid == 6);
	assert_int_equal(look(fx, root, "b", &attr), 0);
	assert_true(S_ISREG(attr.mode));
	/* Into another directory, and over something. */
	assert_int_equal(fs_rename_whiteout(fx->fs, root, "b", 1, root, "a", 1, RENAME_NOREPLACE,
					    &owner), -EEXIST);
	assert_int_equal(fs_rename_whiteout(fx->fs, root, "d", 1, root, "e", 1, 0, &owner), 0);
	assert_int_equal(look(fx, root, "d", &attr), 0);
	assert_true(S_ISCHR(attr.mode));
	assert_int_equal(inodes_used(fx), used + 4);
	assert_int_equal(rm(fx, root, "a"), 0);
	assert_int_equal(rm(fx, root, "d"), 0);
	assert_int_equal(rm(fx, root, "b"), 0);
	assert_int_equal(rmd(fx, root, "e"), 0);
	assert_int_equal(look(fx, root, "a", &attr), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_name_lookup, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_create_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_kinds_of_nodes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_setgid_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_symlinks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_link, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_directory_link_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_unlink, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_rmdir, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_tmpfile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_whiteout, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_many_links, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_snapshots_refuse, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_rename_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_rename_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_rename_directories, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_readdir, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_readdir_of_a_snapshot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_bad_entries_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_ring_of_parents_is_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_name_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_many_threads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
