/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_find_pages(): from a page back to the files that have it.
 *
 * Page tables of the live volume are searched inode by inode, each with its lock held for reading.
 * Snapshots do not change, so theirs need none, and what one of them shares with another is looked
 * into once, unless it has one of the pages.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "tree/dir.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"

#define PATH_DEPTH   64u
#define PATH_VOLUMES 4u /* in how many volumes paths are looked for */

struct hit {
	vpn_t vpn;
	enum fs_place_kind kind;
	uint64_t ino, off, len;
};

struct search {
	struct fs *fs;
	struct volume *vol;
	const vpn_t *vpns;
	size_t n;
	struct hit hit[FS_PLACES_MAX];
	size_t hits;
	uint64_t *clean; /* bitmap: pages of snapshots below which there is none of them */
	vpn_t limit;
	unsigned paths_left; /* volumes */
	size_t said;
	void (*fn)(void *arg, const struct fs_place *place);
	void *arg;
};

static void found(struct search *s, vpn_t vpn, enum fs_place_kind kind, uint64_t ino, uint64_t off,
		  uint64_t len)
{
	if (s->said + s->hits < FS_PLACES_MAX)
		s->hit[s->hits++] = (struct hit){vpn, kind, ino, off, len};
}

static bool wanted(const struct search *s, vpn_t vpn)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->vpns[i] == vpn)
			return true;
	return false;
}

/* unit: what one page of the table holds, in bytes or inodes.  True: something was found. */
static bool search_table(struct search *s, const struct ptab *pt, enum fs_place_kind kind,
			 uint64_t ino, pgno_t at, uint64_t unit,
			 bool (*leaf)(struct search *s, vpn_t vpn, pgno_t at))
{
	const bool fixed = s->vol != s->fs->live;
	const unsigned shift = PMFS_PTAB_SHIFT * pt->height;
	le64 entry[PMFS_PTAB_FANOUT];
	bool hit = false;

	if (!pt->root || pt->root >= s->limit || pt->height > PMFS_PTAB_MAX_HEIGHT)
		return false;
	if (wanted(s, pt->root)) {
		found(s, pt->root, kind, ino, at * unit, shift < 48 ? unit << shift : UINT64_MAX);
		return true;
	}
	if (!pt->height)
		return leaf && leaf(s, pt->root, at);
	if (fixed && bit_test(s->clean, pt->root))
		return false;
	if (page_read(s->fs->st, pt->root, 0, entry, sizeof(entry)))
		return false;
	for (size_t i = 0; i < PMFS_PTAB_FANOUT; i++) {
		const struct ptab child = {le64_get(entry[i]), pt->height - 1};

		hit |= search_table(s, &child, kind, ino, at + (i << (shift - PMFS_PTAB_SHIFT)),
				    unit, leaf);
	}
	if (fixed && !hit)
		bit_set(s->clean, pt->root);
	return hit;
}

static bool search_inode(struct search *s, const struct ptab *data, const struct ptab *xattr,
			 uint32_t mode, uint64_t ino)
{
	bool hit = search_table(s, data, S_ISDIR(mode) ? FS_PLACE_DIR : FS_PLACE_DATA, ino, 0,
				PMFS_PAGE_SIZE, NULL);

	return search_table(s, xattr, FS_PLACE_XATTR, ino, 0, PMFS_PAGE_SIZE, NULL) || hit;
}

/* A page of inodes of a snapshot. */
static bool search_records(struct search *s, vpn_t vpn, pgno_t at)
{
	struct pmfs_inode rec[PMFS_INODES_PER_PAGE];
	bool hit = false;

	if (bit_test(s->clean, vpn) || page_read(s->fs->st, vpn, 0, rec, sizeof(rec)))
		return false;
	for (size_t i = 0; i < PMFS_INODES_PER_PAGE; i++) {
		const struct ptab data = ptab_decode(&rec[i].data),
				  xattr = ptab_decode(&rec[i].xattr);

		if (rec[i].mode.raw)
			hit |= search_inode(s, &data, &xattr, le32_get(rec[i].mode),
					    at * PMFS_INODES_PER_PAGE + i);
	}
	if (!hit)
		bit_set(s->clean, vpn);
	return hit;
}

static void search_live(struct search *s)
{
	struct inode *in;
	uint64_t next;

	mutex_lock(&s->vol->lock);
	next = s->vol->next_ino;
	search_table(s, &s->vol->inodes, FS_PLACE_INODES, 0, 0, PMFS_INODES_PER_PAGE, NULL);
	mutex_unlock(&s->vol->lock);
	for (uint64_t ino = PMFS_INO_ROOT; ino < next; ino++) {
		if (inode_get(s->fs, NODE_ID(s->vol->id, ino), &in))
			continue;
		rw_rdlock(&in->lock);
		if (in->mode)
			search_inode(s, &in->data, &in->xattr, in->mode, ino);
		rw_unlock(&in->lock);
		inode_put(s->fs, in);
	}
}

/* ------------------------------------------------------------------ paths */

struct name {
	uint64_t ino, parent;
	char *name;
};

struct names {
	struct name of[FS_PLACES_MAX];
	size_t n;
	uint64_t dir; /* the one that is being read */
};

static int entry_names(void *arg, const struct dir_entry *de)
{
	struct names *ns = arg;

	for (size_t i = 0; i < ns->n; i++) {
		if (ns->of[i].ino == de->ino && !ns->of[i].name) {
			ns->of[i].parent = ns->dir;
			ns->of[i].name = strdup(de->name);
		}
	}
	return 0;
}

/* Read one directory for the names that are looked for; its parent. */
static uint64_t names_in(struct search *s, struct names *ns, uint64_t dir)
{
	uint64_t parent = 0;
	struct inode *in;

	if (inode_get(s->fs, NODE_ID(s->vol->id, dir), &in))
		return 0;
	rw_rdlock(&in->lock);
	if (S_ISDIR(in->mode)) {
		parent = in->parent;
		ns->dir = dir;
		dir_each(in, 0, entry_names, ns);
	}
	rw_unlock(&in->lock);
	inode_put(s->fs, in);
	return parent;
}

/* dir's path in front of what stands in path from *at on. */
static bool path_up(struct search *s, uint64_t dir, char *path, size_t *at)
{
	for (unsigned depth = 0; dir != PMFS_INO_ROOT; depth++) {
		struct names up = {.of = {{.ino = dir}}, .n = 1};
		struct inode *in;
		uint64_t parent = 0;
		size_t len;

		if (depth == PATH_DEPTH || inode_get(s->fs, NODE_ID(s->vol->id, dir), &in))
			return false;
		rw_rdlock(&in->lock);
		parent = in->parent;
		rw_unlock(&in->lock);
		inode_put(s->fs, in);
		names_in(s, &up, parent);
		len = up.of[0].name ? strlen(up.of[0].name) : 0;
		if (!len || len + 1 > *at) {
			free(up.of[0].name);
			return false;
		}
		*at -= len + 1;
		path[*at] = '/';
		memcpy(path + *at + 1, up.of[0].name, len);
		free(up.of[0].name);
		dir = parent;
	}
	return true;
}

static void names_find(struct search *s, struct names *ns)
{
	uint64_t next;
	size_t left;

	for (size_t i = 0; i < s->hits; i++) {
		size_t k = 0;

		if (s->hit[i].kind == FS_PLACE_INODES)
			continue;
		while (k < ns->n && ns->of[k].ino != s->hit[i].ino)
			k++;
		if (k == ns->n)
			ns->of[ns->n++] = (struct name){.ino = s->hit[i].ino};
	}
	mutex_lock(&s->vol->lock);
	next = s->vol->next_ino;
	mutex_unlock(&s->vol->lock);
	for (uint64_t ino = PMFS_INO_ROOT; ns->n && ino < next; ino++) {
		names_in(s, ns, ino);
		left = 0;
		for (size_t k = 0; k < ns->n; k++)
			left += !ns->of[k].name;
		if (!left)
			break;
	}
}

static void say_hits(struct search *s)
{
	char path[4096], volume[PMFS_VOL_NAME_MAX + 1] = "";
	struct names ns = {.n = 0};

	if (s->vol != s->fs->live) {
		rw_rdlock(&s->fs->volumes_lock);
		memcpy(volume, s->vol->name, sizeof(volume));
		rw_unlock(&s->fs->volumes_lock);
	}

	if (s->hits && s->paths_left) {
		s->paths_left--;
		names_find(s, &ns);
	}
	for (size_t i = 0; i < s->hits; i++) {
		const struct hit *h = &s->hit[i];
		struct fs_place place = {
			.vpn = h->vpn,
			.kind = h->kind,
			.ino = h->ino,
			.off = h->off,
			.len = h->len,
			.path = "",
			.volume = volume,
		};
		size_t at = sizeof(path) - 1;

		path[at] = 0;
		if (h->kind == FS_PLACE_INODES)
			place.ino = h->off;
		else if (h->ino == PMFS_INO_ROOT)
			place.path = "/";
		for (size_t k = 0; k < ns.n && h->kind != FS_PLACE_INODES; k++) {
			const size_t len = ns.of[k].name ? strlen(ns.of[k].name) : 0;

			if (ns.of[k].ino != h->ino || !len)
				continue;
			at -= len + 1;
			path[at] = '/';
			memcpy(path + at + 1, ns.of[k].name, len);
			if (path_up(s, ns.of[k].parent, path, &at))
				place.path = path + at;
		}
		s->fn(s->arg, &place);
	}
	for (size_t k = 0; k < ns.n; k++)
		free(ns.of[k].name);
	s->said += s->hits;
	s->hits = 0;
}

int fs_find_pages(struct fs *fs, const vpn_t *vpns, size_t n,
		  void (*fn)(void *arg, const struct fs_place *place), void *arg)
{
	struct search *s = calloc(1, sizeof(*s));
	struct volume *vol;
	uint64_t id = 0;

	if (!s)
		return -ENOMEM;
	*s = (struct search){.fs = fs, .vol = fs->live, .vpns = vpns, .n = n, .fn = fn, .arg = arg};
	s->limit = store_vpn_limit(fs->st);
	s->paths_left = PATH_VOLUMES;
	s->clean = calloc(BITMAP_WORDS(s->limit), sizeof(*s->clean));
	if (!s->clean) {
		free(s);
		return -ENOMEM;
	}
	search_live(s);
	say_hits(s);
	while (s->said < FS_PLACES_MAX && (vol = volume_next(fs, id))) {
		id = vol->id;
		if (vol != fs->live && atomic_load(&vol->state) == PMFS_VOL_SNAPSHOT) {
			s->vol = vol;
			search_table(s, &vol->inodes, FS_PLACE_INODES, 0, 0, PMFS_INODES_PER_PAGE,
				     search_records);
			say_hits(s);
		}
		volume_put(vol);
	}
	free(s->clean);
	free(s);
	return 0;
}

struct paths {
	void (*fn)(void *arg, uint64_t ino, const char *path);
	void *arg;
};

static void path_place(void *arg, const struct fs_place *place)
{
	const struct paths *ps = arg;

	if (place->path[0])
		ps->fn(ps->arg, place->ino, place->path);
}

int fs_find_paths(struct fs *fs, const uint64_t *inos, size_t n,
		  void (*fn)(void *arg, uint64_t ino, const char *path), void *arg)
{
	struct paths ps = {fn, arg};
	struct search *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	*s = (struct search){
		.fs = fs, .vol = fs->live, .fn = path_place, .arg = &ps, .paths_left = 1};
	for (size_t i = 0; i < n; i++)
		found(s, VPN_NONE, FS_PLACE_DATA, inos[i], 0, 0);
	say_hits(s);
	free(s);
	return 0;
}
