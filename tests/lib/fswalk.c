/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/fswalk.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tree/reclaim.h"

/* Directories and files that a walk looks at: damage can make circles of them. */
#define VISITS 400u

static struct fsfix_random *rnd;

static uint64_t below(uint64_t n)
{
	return fsfix_below(rnd, n);
}

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
	const uint64_t at = below(4) ? below(50000) : fsfix_random(rnd) >> 4;
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

void fswalk_use(struct fs *fs, struct fsfix_random *random)
{
	static struct walk w;
	const uint64_t root = fs_root(fs);

	rnd = random;
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
