/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

#include "base/bits.h"
#include "lib/fsfix.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"

static int setup(void **state)
{
	static struct fsfix fx;

	fsfix_image(&fx, 0);
	*state = &fx;
	return 0;
}

static int teardown(void **state)
{
	fsfix_free(*state);
	return 0;
}

static struct inode sample(void)
{
	struct inode in = { .ino = 5 };

	in.mode = S_IFREG | 04755;
	in.uid = 1000;
	in.gid = UINT32_MAX;
	in.nlink = 3;
	in.size = UINT64_C(1) << 40;
	in.pages = 77;
	in.generation = 9;
	in.atime = (struct timespec){ -1, 999999999 };
	in.mtime = (struct timespec){ INT64_C(1) << 40, 0 };
	in.ctime = (struct timespec){ INT64_MIN, 1 };
	in.btime = (struct timespec){ 0, 5 };
	in.data = (struct ptab){ 123, 3 };
	in.xattr = (struct ptab){ 456, 0 };
	in.xattr_size = 100;
	return in;
}

/* ------------------------------------------------------------------ records */

static void test_itable_record_keeps_everything(void **state)
{
	const struct inode in = sample();
	struct inode out = { .ino = 5 };
	struct pmfs_inode rec, again;

	(void)state;
	inode_encode(&in, &rec);
	assert_int_equal(inode_decode(&rec, &out), 0);
	assert_int_equal(out.mode, in.mode);
	assert_int_equal(out.uid, in.uid);
	assert_int_equal(out.gid, in.gid);
	assert_int_equal(out.atime.tv_sec, -1);
	assert_int_equal(out.ctime.tv_sec, INT64_MIN);
	assert_int_equal(out.mtime.tv_sec, INT64_C(1) << 40);
	inode_encode(&out, &again);
	assert_memory_equal(&rec, &again, sizeof(rec));
}

static void test_itable_device_numbers(void **state)
{
	struct inode in = { .mode = S_IFBLK | 0600 }, out = { 0 };
	struct pmfs_inode rec;

	(void)state;
	in.rdev = (uint32_t)makedev(0xabc, 0xdef12);
	inode_encode(&in, &rec);
	assert_int_equal(le32_get(rec.rdev), 0xabcdef12);
	assert_int_equal(inode_decode(&rec, &out), 0);
	assert_int_equal(out.rdev, in.rdev);
}

/* What an image can claim and no filesystem can be. */
static void test_itable_contradictions_are_refused(void **state)
{
	struct inode in, out;
	struct pmfs_inode rec;

	(void)state;
#define REFUSED(change)                                             \
	do {                                                        \
		in = sample();                                      \
		inode_encode(&in, &rec);                            \
		change;                                             \
		assert_int_equal(inode_decode(&rec, &out), -EUCLEAN); \
	} while (0)
	REFUSED(le32_put(&rec.mode, 0644));
	REFUSED(le32_put(&rec.mode, S_IFREG | 0200644));
	REFUSED(le32_put(&rec.flags, 8));
	REFUSED(le32_put(&rec.flags, PMFS_INODE_INLINE));
	REFUSED(le64_put(&rec.size, PMFS_MAX_FILE_SIZE + 1));
	REFUSED(le32_put(&rec.data.height, PMFS_PTAB_MAX_HEIGHT + 1));
	REFUSED(le64_put(&rec.data.vpn, 0));
	REFUSED(le32_put(&rec.xattr.height, 99));
	REFUSED(le32_put(&rec.xattr_size, PMFS_XATTR_TOTAL_MAX + 1));
	REFUSED(le32_put(&rec.atime_nsec, 1000000000));
	REFUSED(le32_put(&rec.mtime_nsec, 1000000000));
	REFUSED(le32_put(&rec.ctime_nsec, UINT32_MAX));
	REFUSED(le32_put(&rec.btime_nsec, 1000000000));
	REFUSED((le32_put(&rec.mode, S_IFDIR), le32_put(&rec.flags, PMFS_INODE_STALE)));
#undef REFUSED
	/* Inline contents: a directory has none, they fit, and behind them is nothing. */
	memset(&rec, 0, sizeof(rec));
	le32_put(&rec.mode, S_IFREG | 0644);
	le32_put(&rec.flags, PMFS_INODE_INLINE);
	le64_put(&rec.size, 10);
	assert_int_equal(inode_decode(&rec, &out), 0);
	rec.inl[10] = 1;
	assert_int_equal(inode_decode(&rec, &out), -EUCLEAN);
	le64_put(&rec.size, PMFS_INLINE_MAX);
	assert_int_equal(inode_decode(&rec, &out), 0);
	le64_put(&rec.size, PMFS_INLINE_MAX + 1);
	assert_int_equal(inode_decode(&rec, &out), -EUCLEAN);
	le64_put(&rec.size, 11);
	le32_put(&rec.mode, S_IFDIR | 0755);
	assert_int_equal(inode_decode(&rec, &out), -EUCLEAN);
	le32_put(&rec.mode, 0);
	assert_int_equal(inode_decode(&rec, &out), -ENOENT);
}

/* ------------------------------------------------------------------ numbers */

static uint64_t make(struct fsfix *fx, uint64_t *generation)
{
	struct inode in = sample();
	struct txn tx;

	in.vol = fx->fs->live;
	in.data = in.xattr = (struct ptab){ 0, 0 };
	in.pages = in.size = in.xattr_size = 0;
	assert_int_equal(txn_begin(fx->fs->st, &tx, FRAME_NORMAL, ITABLE_COST), 0);
	assert_int_equal(itable_alloc(&tx, in.vol, &in.ino, &in.generation), 0);
	assert_int_equal(itable_store(&tx, &in), 0);
	assert_true(tx.taken <= ITABLE_COST);
	txn_end(&tx);
	*generation = in.generation;
	return in.ino;
}

static void give_back(struct fsfix *fx, uint64_t ino, int want)
{
	struct txn tx;

	assert_int_equal(txn_begin(fx->fs->st, &tx, FRAME_FREEING, ITABLE_COST), 0);
	assert_int_equal(itable_free(&tx, fx->fs->live, ino), want);
	assert_true(tx.taken <= ITABLE_COST);
	txn_end(&tx);
}

static int load(struct fsfix *fx, uint64_t ino, struct inode *in)
{
	memset(in, 0, sizeof(*in));
	in->vol = fx->fs->live;
	in->ino = ino;
	return itable_load(in);
}

/* The last number given back is given out next, with a new generation; after a crash, too. */
static void test_itable_numbers_are_used_again(void **state)
{
	struct fsfix *fx = *state;
	const uint64_t used = fx->fs->live->inodes_used;
	uint64_t ino[100], gen[100], g;
	struct inode in;

	for (unsigned i = 0; i < ARRAY_SIZE(ino); i++) {
		ino[i] = make(fx, &gen[i]);
		assert_int_equal(ino[i], PMFS_INO_FIRST + i);
	}
	assert_int_equal(fx->fs->live->inodes_used, used + ARRAY_SIZE(ino));
	assert_int_equal(load(fx, ino[50], &in), 0);
	assert_int_equal(in.generation, gen[50]);
	assert_int_equal(load(fx, ino[99] + 1, &in), -ENOENT);
	assert_int_equal(load(fx, 0, &in), -ENOENT);
	for (unsigned i = 10; i < 20; i++)
		give_back(fx, ino[i], 0);
	give_back(fx, ino[10], -EUCLEAN);
	give_back(fx, ino[99] + 1, -EUCLEAN);
	give_back(fx, 0, -EUCLEAN);
	assert_int_equal(load(fx, ino[10], &in), -ENOENT);
	assert_int_equal(fs_sync(fx->fs), 0);
	fsfix_crash(fx);
	fsfix_start(fx);
	assert_int_equal(fx->fs->live->inodes_used, used + ARRAY_SIZE(ino) - 10);
	for (unsigned i = 20; i-- > 10;) {
		assert_int_equal(make(fx, &g), ino[i]);
		assert_true(g != gen[i]);
	}
	assert_int_equal(make(fx, &g), ino[99] + 1);
}

/* A list of free inodes that leads to one in use is damage, and changes nothing. */
static void test_itable_damaged_free_list(void **state)
{
	struct fsfix *fx = *state;
	struct volume *vol = fx->fs->live;
	uint64_t ino, g, next, used;
	struct txn tx;

	ino = make(fx, &g);
	next = vol->next_ino;
	used = vol->inodes_used;
	vol->free_ino = ino;
	assert_int_equal(txn_begin(fx->fs->st, &tx, FRAME_NORMAL, ITABLE_COST), 0);
	assert_int_equal(itable_alloc(&tx, vol, &ino, &g), -EUCLEAN);
	assert_int_equal(vol->next_ino, next);
	assert_int_equal(vol->inodes_used, used);
	vol->free_ino = 0;
	vol->next_ino = ITABLE_INO_MAX;
	assert_int_equal(itable_alloc(&tx, vol, &ino, &g), -ENOSPC);
	vol->next_ino = next;
	txn_end(&tx);
}

/* I2: after a snapshot, changing one inode gives all roots of its page a second pointer, once. */
static void test_itable_copy_refs_all_roots(void **state)
{
	struct fsfix *fx = *state;
	uint8_t buf[2 * PMFS_PAGE_SIZE] = { 1 };
	uint64_t id[8], refs;
	struct fs_snapshot snap;
	vpn_t root[8];

	for (unsigned i = 0; i < ARRAY_SIZE(id); i++) {
		const char name[2] = { (char)('a' + i), 0 };
		struct inode *in;

		id[i] = fsfix_file(fx, fx->root, name);
		fsfix_write(fx, id[i], 0, buf, sizeof(buf));
		assert_int_equal(fs_setxattr(fx->fs, id[i], "user.x", "y", 1, 0), 0);
		assert_int_equal(inode_get(fx->fs, id[i], &in), 0);
		root[i] = i % 2 ? in->data.root : in->xattr.root;
		inode_put(fx->fs, in);
	}
	assert_int_equal(fs_snap_create(fx->fs, "s", "", &snap), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(id); i++) {
		assert_int_equal(page_refs(fx->fs->st, root[i], &refs), 0);
		assert_int_equal(refs, 1);
	}
	for (unsigned n = 0; n < 3; n++) {
		const struct fs_setattr set = { .uid = n };

		assert_int_equal(fs_setattr(fx->fs, id[0], FS_SET_UID, &set, NULL), 0);
		for (unsigned i = 0; i < ARRAY_SIZE(id); i++) {
			assert_int_equal(page_refs(fx->fs->st, root[i], &refs), 0);
			assert_int_equal(refs, 2);
		}
	}
	fsfix_check(fx);
	assert_int_equal(fs_snap_delete(fx->fs, "s"), 0);
	fsfix_reopen(fx);
	fsfix_check(fx);
}

/* ------------------------------------------------------------------ cost */

/* Many inodes, and snapshots at several sizes: no change takes more than was promised for it. */
static void test_itable_cost_holds(void **state)
{
	struct fsfix *fx = *state;
	struct fs_snapshot snap;
	uint64_t g, ino = 0;

	for (unsigned n = 0; n < 20000; n++) {
		ino = make(fx, &g);
		if (n % 5000 == 17) {
			const char name[2] = { (char)('a' + n / 5000), 0 };

			assert_int_equal(fs_snap_create(fx->fs, name, "", &snap), 0);
		}
	}
	assert_int_equal(fx->fs->live->inodes.height, 2);
	give_back(fx, PMFS_INO_FIRST, 0);
	give_back(fx, ino, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_itable_record_keeps_everything),
		cmocka_unit_test(test_itable_device_numbers),
		cmocka_unit_test(test_itable_contradictions_are_refused),
		cmocka_unit_test_setup_teardown(test_itable_numbers_are_used_again, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_itable_damaged_free_list, setup, teardown),
		cmocka_unit_test_setup_teardown(test_itable_copy_refs_all_roots, setup, teardown),
		cmocka_unit_test_setup_teardown(test_itable_cost_holds, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
