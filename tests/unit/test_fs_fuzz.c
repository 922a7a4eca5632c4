/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Damaged images: pages with wrong numbers in them, whose hashes are right, so that nothing but the
 * code that reads a structure can notice. Opening, checking, reading and changing such an image may
 * fail in any way that is an error; it may not crash, hang or read what is not its own.  Most of
 * all a test for the sanitizers.  PMFS_OPS: images; PMFS_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "lib/fsmodel.h"
#include "tree/fs_impl.h"
#include "tree/reclaim.h"

#define MIB (UINT64_C(1) << 20)
#define VISITS \
	400u /* directories and files that a walk looks at: damage can make circles of them */

static struct fsfix_random rnd;

static uint64_t below(uint64_t n)
{
	return fsfix_below(&rnd, n);
}

/* ------------------------------------------------------------------ damage */

static uint64_t some_number(uint64_t limit)
{
	static const uint64_t special[] = {0,
					   1,
					   2,
					   3,
					   255,
					   256,
					   4096,
					   INT64_MAX,
					   UINT64_MAX,
					   UINT32_MAX,
					   UINT64_C(1) << 40,
					   UINT64_C(1) << 63,
					   0x6c644d50,
					   0x6e644d50};

	switch (below(4)) {
	case 0:
		return special[below(sizeof(special) / sizeof(special[0]))];
	case 1:
		return below(limit + 2); /* a page, most likely one that there is */
	case 2:
		return below(300);
	default:
		return fsfix_random(&rnd);
	}
}

/* A page with one pointer, which can be written; 0: found none. */
static vpn_t some_page(struct store *st)
{
	const vpn_t limit = store_vpn_limit(st);
	uint64_t refs;

	for (int tries = 0; tries < 1000; tries++) {
		const vpn_t vpn = 1 + below(limit);

		if (!page_refs(st, vpn, &refs) && refs == 1)
			return vpn;
	}
	return 0;
}

/* Pages of contents are many, and nothing in them can be wrong: take the upper part of trees
 * instead. */
static vpn_t some_structure(struct fs *fs)
{
	struct volume *vol = NULL;
	struct ptab pt;
	vpn_t vpn = 0;
	uint64_t n = 1 + below(3);

	if (below(4) == 0)
		return some_page(fs->st);
	while (n-- && (!vol || vol->next))
		vol = vol ? vol->next : fs->volumes;
	pt = below(8) ? vol->inodes : fs->table;
	if (below(3) == 0)
		return pt.root;
	if (ptab_get(fs->st, &pt, below(8), &vpn) || !vpn)
		return pt.root;
	if (below(2)) {
		struct pmfs_inode rec[PMFS_INODES_PER_PAGE];
		const size_t i = below(PMFS_INODES_PER_PAGE);

		if (!page_read(fs->st, vpn, 0, rec, sizeof(rec)) && le64_get(rec[i].data.vpn))
			vpn = le64_get(below(4) ? rec[i].data.vpn : rec[i].xattr.vpn);
	}
	return vpn;
}

static void damage_one(struct fs *fs)
{
	uint8_t page[PMFS_PAGE_SIZE];
	struct store *st = fs->st;
	const vpn_t vpn = some_structure(fs);
	uint64_t refs, number;
	struct txn tx;

	if (!vpn || page_refs(st, vpn, &refs) || !refs || txn_begin(st, &tx, FRAME_NORMAL, 4))
		return;
	number = some_number(store_vpn_limit(st));
	if (refs > 1 || below(12) == 0) {
		if (below(2))
			page_ref(&tx, vpn);
		else
			page_unref(&tx, vpn, NULL);
	} else if (below(30) == 0) {
		const vpn_t from = some_page(st);

		if (from && !page_read(st, from, 0, page, sizeof(page)))
			page_write(&tx, vpn, 0, page, sizeof(page));
	} else if (below(4) == 0) {
		const size_t at = below(sizeof(page));

		if (!page_read(st, vpn, at, page, 1)) {
			page[0] ^= (uint8_t)(1u << below(8));
			page_write(&tx, vpn, at, page, 1);
		}
	} else {
		/* Most of what matters is at the start of a page, and in records. */
		size_t at = below(2) ? below(16) * 8 : below(sizeof(page) / 8) * 8;
		const size_t len = below(3) == 0 ? 2 : below(2) ? 4 : 8;

		at += below(8 / len) * len;
		page_write(&tx, vpn, at, &number, len);
	}
	txn_end(&tx);
}

/* ------------------------------------------------------------------ use */

struct walk {
	struct fs *fs;
	unsigned left; /* visits */
	uint64_t id[VISITS];
	uint32_t mode[VISITS];
	unsigned n;
	uint64_t dir;
};

static int visit(void *arg, const struct fs_dirent *de)
{
	struct walk *w = arg;
	struct fs_attr attr;

	if (!w->left)
		return 1;
	w->left--;
	if (!strcmp(de->name, ".") || !strcmp(de->name, ".."))
		return 0;
	if (!fs_lookup(w->fs, w->dir, de->name, de->name_len, &attr) && w->n < VISITS) {
		w->id[w->n] = attr.id;
		w->mode[w->n++] = attr.mode;
	}
	return 0;
}

static void read_all(struct fs *fs, uint64_t id)
{
	static char buf[16 * PMFS_PAGE_SIZE];
	struct fs_attr attr;
	uint64_t at = 0;

	fs_getattr(fs, id, &attr);
	for (unsigned i = 0; i < 12 && !fs_seek(fs, id, at, true, &at); i++) {
		struct iovec iov[8];
		struct fs_read rd = {.iov = iov, .max = 8};
		uint64_t sum = 0;
		ssize_t n;

		fs_read(fs, id, at, buf, sizeof(buf));
		n = fs_read_begin(fs, id, at, sizeof(buf), &rd);
		if (n >= 0) {
			for (int k = 0; k < rd.count; k++)
				for (size_t j = 0; j < rd.iov[k].iov_len; j += 64)
					sum += ((const uint8_t *)rd.iov[k].iov_base)[j];
			fs_read_end(fs, &rd);
		}
		at += sizeof(buf) + sum % 2;
	}
	fs_readlink(fs, id, buf, sizeof(buf));
	if (fs_listxattr(fs, id, buf, sizeof(buf)) > 0)
		fs_getxattr(fs, id, buf, buf + 8192, 8192);
}

static void look_at_all(struct fs *fs, uint64_t root, struct walk *w)
{
	*w = (struct walk){.fs = fs, .left = VISITS, .dir = root};
	fs_readdir(fs, root, 0, visit, w);
	for (unsigned i = 0; i < w->n; i++) {
		read_all(fs, w->id[i]);
		w->dir = w->id[i];
		if (S_ISDIR(w->mode[i]))
			fs_readdir(fs, w->dir, 0, visit, w);
	}
}

static void forget_all(struct walk *w)
{
	for (unsigned i = 0; i < w->n; i++)
		fs_forget(w->fs, w->id[i], 1);
	w->n = 0;
}

struct victims {
	char name[32][PMFS_NAME_MAX + 1];
	unsigned n;
};

static int take_name(void *arg, const struct fs_dirent *de)
{
	struct victims *v = arg;

	if (v->n == 32)
		return 1;
	snprintf(v->name[v->n++], sizeof(v->name[0]), "%s", de->name);
	return 0;
}

static void change_one(struct fs *fs, uint64_t root, uint64_t id, uint32_t mode)
{
	static const int falloc[] = {0, FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE};
	static const struct fs_cred cred = {0, 0};
	static char buf[3 * PMFS_PAGE_SIZE];
	struct fs_setattr set = {.size = below(40000), .mode = 0600};
	const uint64_t at = below(4) ? below(50000) : fsfix_random(&rnd) >> 4;
	struct fs_attr attr;
	char name[32];

	snprintf(name, sizeof(name), "n%" PRIu64, below(50));
	if (S_ISDIR(mode)) {
		if (!fs_mknod(fs, id, name, strlen(name), S_IFREG | 0644, 0, &cred, &attr))
			fs_forget(fs, attr.id, 1);
		fs_rename(fs, id, name, strlen(name), root, name, strlen(name), 0);
		return;
	}
	switch (below(7)) {
	case 0:
	case 1:
		fs_write(fs, id, at, buf, below(sizeof(buf)), 0);
		break;
	case 2:
		fs_setattr(fs, id, FS_SET_SIZE | FS_SET_MODE, &set, &attr);
		break;
	case 3:
		fs_fallocate(fs, id, falloc[below(3)], at, 1 + below(50000));
		break;
	case 4:
		fs_setxattr(fs, id, "user.a", buf, below(6000), 0);
		break;
	case 5:
		if (!fs_link(fs, id, root, name, strlen(name), &attr))
			fs_forget(fs, attr.id, 1);
		break;
	default:
		fs_copy_range(fs, id, 0, id, UINT64_C(1) << 20, 100000);
	}
}

static void remove_names(struct fs *fs, uint64_t dir)
{
	static struct victims v;

	v.n = 0;
	fs_readdir(fs, dir, 0, take_name, &v);
	for (unsigned i = 0; i < v.n; i++)
		if (fs_unlink(fs, dir, v.name[i], strlen(v.name[i])))
			fs_rmdir(fs, dir, v.name[i], strlen(v.name[i]));
}

static int look_at_snapshot(void *arg, const struct fs_snapshot *snap)
{
	static struct walk w;
	struct fs *fs = arg;
	uint64_t pages;

	look_at_all(fs, snap->root, &w);
	forget_all(&w);
	fs_snap_exclusive(fs, snap->name, &pages);
	if (below(2))
		fs_snap_delete(fs, snap->name);
	return 0;
}

static void ignore(void *arg, const char *what)
{
	++*(uint64_t *)arg;
	assert_int_not_equal(what[0], 0);
}

static void use(struct fs *fs)
{
	static struct walk w;
	const uint64_t root = fs_root(fs);

	look_at_all(fs, root, &w);
	fs_snap_each(fs, look_at_snapshot, fs);
	for (unsigned i = 0; i < w.n; i++)
		change_one(fs, root, w.id[i], w.mode[i]);
	fs_snap_create(fs, "another", NULL, NULL);
	for (unsigned i = 0; i < w.n; i++)
		if (S_ISDIR(w.mode[i]))
			remove_names(fs, w.id[i]);
	forget_all(&w);
	remove_names(fs, root);
	while (reclaim_run(fs) > 0)
		;
	fs_sync(fs);
}

/* ------------------------------------------------------------------ */

static void test_fs_fuzz(void **state)
{
	static struct model m;
	const uint64_t rounds = fsfix_env("PMFS_OPS", 400);
	uint64_t found = 0, opened = 0, noticed = 0;

	(void)state;
	fsfix_seed(&rnd, 1);
	for (uint64_t round = 0; round < rounds; round++) {
		struct store_error err;
		struct fsfix fx;
		uint64_t before = found;
		bool good;

		m = (struct model){0};
		fsfix_image(&fx, 64 * MIB);
		m.rnd.state = fsfix_random(&rnd);
		model_start(&m, &fx, false);
		for (uint64_t i = 0, n = 100 + below(300); i < n; i++)
			model_step(&m);
		model_end(&m);
		for (uint64_t i = 0, n = 1 + below(4); i < n; i++)
			damage_one(fx.fs);
		fs_close(fx.fs);
		fx.fs = NULL;
		good = !fsfix_try_start(&fx, &err);
		noticed += !good;
		if (good) {
			opened++;
			fs_check(fx.fs, below(2), ignore, &found);
			noticed += found != before;
			use(fx.fs);
			fs_check(fx.fs, true, ignore, &found);
			fs_close(fx.fs);
			fx.fs = NULL;
		}
		fsfix_free(&fx);
	}
	print_message("%" PRIu64 " images opened, %" PRIu64 " found to be damaged, %" PRIu64
		      " findings\n",
		      opened, noticed, found);
	/* Some damage is none: bytes of contents, numbers that are as good as the ones before. */
	assert_true(noticed > rounds / 3);
}

static void say_nothing(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fs_fuzz),
	};

	log_to_function(say_nothing, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
