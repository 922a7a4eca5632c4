/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nodes that no tree has: `.snapshots`, a directory with the roots of the snapshots in it, and
 * `.pmfs`, a symlink to the control session.  Their ids are those of inodes of a volume 0, which
 * there is not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/front_impl.h"

/* A snapshot's name is looked up again after a second: one may have been deleted while a lookup of
 * it was under way. */
#define SNAPSHOT_TIMEOUT 1.0

static const struct {
	const char *name;
	fuse_ino_t ino; /* 0: kept for later versions */
} virtual_names[] = {
	{".snapshots", VIRT_SNAPSHOTS},
	{".pmfs", VIRT_PMFS},
	{".forks", 0},
};

#define NAME_COUNT (sizeof(virtual_names) / sizeof(virtual_names[0]))

static bool name_exists(const struct front *fr, size_t i)
{
	return virtual_names[i].ino && (virtual_names[i].ino != VIRT_PMFS || fr->cfg.runtime_dir);
}

fuse_ino_t virtual_name(const struct front *fr, fuse_ino_t dir, const char *name)
{
	if (dir != FUSE_ROOT_ID || name[0] != '.')
		return 0;
	for (size_t i = 0; i < NAME_COUNT; i++)
		if (!strcmp(name, virtual_names[i].name))
			return name_exists(fr, i) ? virtual_names[i].ino : 0;
	return 0;
}

int virtual_refuse(const struct front *fr, fuse_ino_t dir, const char *name, bool making)
{
	if (is_virtual(dir))
		return dir == VIRT_SNAPSHOTS ? -EROFS : -ENOTDIR;
	if (dir != FUSE_ROOT_ID || name[0] != '.')
		return 0;
	for (size_t i = 0; i < NAME_COUNT; i++) {
		if (strcmp(name, virtual_names[i].name))
			continue;
		if (name_exists(fr, i))
			return making ? -EEXIST : -EBUSY;
		return making ? -EPERM : -ENOENT;
	}
	return 0;
}

uint64_t virtual_st_ino(fuse_ino_t ino)
{
	return UINT64_C(1) << 40 | ino;
}

struct newest {
	uint64_t count, ns;
};

static int newest_add(void *arg, const struct fs_snapshot *snap)
{
	struct newest *nw = arg;

	nw->count++;
	if (snap->created_ns > nw->ns)
		nw->ns = snap->created_ns;
	return 0;
}

void virtual_stat(struct front *fr, fuse_ino_t ino, struct stat *st)
{
	struct newest nw = {0};
	struct fs_attr root = {0};

	memset(st, 0, sizeof(*st));
	st->st_ino = virtual_st_ino(ino);
	st->st_blksize = 4096;
	if (!fs_getattr(fr->fs, fr->root, &root)) {
		st->st_uid = root.uid;
		st->st_gid = root.gid;
	}
	if (ino == VIRT_PMFS) {
		char *target = virtual_link_target(fr);

		st->st_mode = S_IFLNK | 0777;
		st->st_nlink = 1;
		st->st_size = target ? (off_t)strlen(target) : 0;
		st->st_mtim = root.btime;
		st->st_atim = st->st_ctim = st->st_mtim;
		free(target);
		return;
	}
	/* What a cached listing is checked against: it moves with every snapshot that is made,
	 * renamed or deleted. */
	fs_snap_each(fr->fs, newest_add, &nw);
	if (atomic_load(&fr->snapdir_changed_ns) > nw.ns)
		nw.ns = atomic_load(&fr->snapdir_changed_ns);
	st->st_mode = S_IFDIR | 0555;
	st->st_nlink = 2 + nw.count;
	st->st_mtim.tv_sec = (time_t)(nw.ns / 1000000000u);
	st->st_mtim.tv_nsec = (long)(nw.ns % 1000000000u);
	st->st_atim = st->st_ctim = st->st_mtim;
}

uint64_t virtual_hidden(const struct front *fr, fuse_ino_t dir, const char *name)
{
	if (strcmp(name, ".pmfs") || dir == FUSE_ROOT_ID || is_virtual(dir) ||
	    !fs_is_snapshot_root(fr->fs, dir))
		return 0;
	return fs_hidden(fr->fs, dir);
}

int virtual_lookup(struct front *fr, fuse_ino_t dir, const char *name, struct fuse_entry_param *e)
{
	const bool itself = is_virtual(dir) && !strcmp(name, ".");
	struct fs_attr a;
	int rc;

	if (dir == VIRT_SNAPSHOTS && !itself) {
		rc = fs_snap_lookup(fr->fs, name, &a);
		if (rc)
			return rc;
		attr_to_entry(fr, &a, e);
		e->entry_timeout = SNAPSHOT_TIMEOUT;
		return 0;
	}
	if (is_virtual(dir) && !itself)
		return -ENOTDIR;
	memset(e, 0, sizeof(*e));
	e->ino = itself ? dir : virtual_name(fr, dir, name);
	if (!e->ino)
		return -ENOENT;
	virtual_stat(fr, e->ino, &e->attr);
	e->entry_timeout = TIMEOUT_FOREVER;
	e->attr_timeout = e->ino == VIRT_SNAPSHOTS ? 0 : TIMEOUT_FOREVER;
	return 0;
}

char *virtual_link_target(const struct front *fr)
{
	char *target;

	if (!fr->cfg.runtime_dir || asprintf(&target, "%s/files", fr->cfg.runtime_dir) < 0)
		return NULL;
	return target;
}

struct snap_walk {
	uint64_t cookie;
	int (*fn)(void *arg, const struct fs_dirent *de);
	void *arg;
};

/* Cookies: 1 and 2 are behind "." and "..", ids of snapshots + 2 behind those. */
static int snap_entry(void *arg, const struct fs_snapshot *snap)
{
	const struct snap_walk *walk = arg;
	const struct fs_dirent de = {
		.name = snap->name,
		.name_len = strlen(snap->name),
		.ino = snap->root,
		.id = snap->root,
		.type = S_IFDIR >> 12,
		.next = snap->id + 2,
	};

	if (de.next <= walk->cookie)
		return 0;
	return walk->fn(walk->arg, &de);
}

int virtual_readdir(struct front *fr, uint64_t cookie,
		    int (*fn)(void *arg, const struct fs_dirent *de), void *arg)
{
	const struct fs_dirent dots[] = {
		{.name = ".",
		 .name_len = 1,
		 .ino = virtual_st_ino(VIRT_SNAPSHOTS),
		 .type = S_IFDIR >> 12,
		 .next = 1},
		{.name = "..", .name_len = 2, .ino = 1, .type = S_IFDIR >> 12, .next = 2},
	};
	struct snap_walk walk = {.cookie = cookie, .fn = fn, .arg = arg};
	int rc;

	for (uint64_t i = cookie; i < 2; i++) {
		rc = fn(arg, &dots[i]);
		if (rc)
			return rc;
	}
	return fs_snap_each(fr->fs, snap_entry, &walk);
}
