/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs_check(): one walk over all volumes.
 *
 * The live volume is looked at whole.  Then come the snapshots from the newest to the oldest, each
 * as a difference to the one before: only pages of inodes and directories in which the two differ
 * are read, and what is known of each inode (links, subdirectories and so on) is brought from the
 * one state to the other.  A record that did not change and that no changed directory names needs
 * no second look, so each snapshot is checked as fully as the live volume, at the price of what is
 * its own.  What is not: the order of a snapshot's list of free inodes, which nobody follows.  A
 * directory of which one page has changed is checked whole.
 * Of a dying volume only pointers are counted: the reclaimer has begun to take it apart.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/hash.h"
#include "tree/check_pages.h"
#include "tree/dir.h"
#include "tree/dir_page.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"
#include "tree/xattr.h"

#define FINDINGS_KEPT	 1000u /* of one volume; the others are counted */
#define MISMATCHES_NAMED 64u   /* pages with a wrong count whose owner is looked for */
#define PATHS_FOUND	 200u
#define PATH_DEPTH	 64u
#define SCAN_STEP	 1024u

/* What the directories of the volume say about an inode. */
struct named {
	uint32_t links;	  /* entries, but for the orphan directory's */
	uint32_t orphan;  /* entries there */
	uint32_t types;	  /* sum of the types that all of these say */
	uint32_t subdirs; /* entries in it that are directories */
	uint64_t parents; /* sum of the directories that name it */
	uint64_t mark;	  /* path_leads_up() */
};

struct finding {
	uint64_t ino; /* 0: the volume itself */
	pgno_t at;    /* page of the file, PGNO_END: none in particular */
	char *text;
};

struct mismatch {
	vpn_t vpn;
	uint64_t refs, met;
	bool said;
};

struct check {
	struct fs *fs;
	void (*bad)(void *arg, const char *what);
	void (*of_volume)(void *arg, struct volume *vol); /* NULL, or told before what is bad of a volume */
	void *arg;
	uint64_t findings;

	struct check_pages cp;
	struct volume *vol; /* the one being looked at, NULL: the volume table */
	uint64_t ino;	    /* and the inode whose tables are walked, 0: the inode file */
	bool ends;	    /* look behind the ends of files, also without data */
	bool count_only;    /* pointers and nothing else */
	void (*progress)(void *arg, double percent); /* may be NULL */
	bool (*stop)(void *arg);   /* NULL, or asked now and then */
	bool running;		   /* the fs is in use: only what can't change is looked at */
	const struct volume *live; /* the live volume, or what stands for it */
	bool quiet;	    /* the second pass, which only looks for owners */
	bool broken; /* the volume could not be read everywhere: what it says about links means
			nothing */

	struct named *named; /* per inode number */
	uint64_t inos;	     /* numbers below it are in `named` */
	uint64_t *touched;   /* bitmap: what changed from the volume before */
	uint64_t used, data_pages;
	uint64_t marks, marks_before;
	uint64_t reads_left; /* of pages in differences; an image that was made to has no end of
				them */
	unsigned paths_left; /* how many findings still get a path */

	struct finding *kept;
	size_t n_kept;
	uint64_t not_kept;

	struct mismatch *wrong; /* in the order of vpns */
	size_t n_wrong;
	uint64_t more_wrong, lost;
	vpn_t first_lost;

	/* The page of records that record_get() read last. */
	pgno_t cached;
	struct pmfs_inode cache[PMFS_INODES_PER_PAGE];
};

/* ------------------------------------------------------------------ findings */

static int keep(struct check *ck, uint64_t ino, pgno_t at, const char *text)
{
	struct finding *more;

	if (ck->quiet)
		return 0;
	ck->findings++;
	if (ck->n_kept == FINDINGS_KEPT) {
		ck->not_kept++;
		return 0;
	}
	more = realloc(ck->kept, (ck->n_kept + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	ck->kept = more;
	more[ck->n_kept] = (struct finding){ino, at, strdup(text)};
	if (!more[ck->n_kept].text)
		return -ENOMEM;
	ck->n_kept++;
	return 0;
}

__attribute__((format(printf, 3, 4))) static void found(struct check *ck, uint64_t ino,
							const char *fmt, ...)
{
	char text[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	keep(ck, ino, PGNO_END, text);
}

static void show_progress(void *arg, double percent)
{
	const struct check *ck = arg;

	ck->progress(ck->arg, percent);
}

static void found_in_pages(void *arg, pgno_t at, const char *what)
{
	struct check *ck = arg;

	keep(ck, ck->ino, at, what);
}

/* From dir_check() and xattr_check(). */
static void found_in_inode(void *arg, const char *what)
{
	struct check *ck = arg;

	keep(ck, ck->ino, PGNO_END, what);
}

/* ------------------------------------------------------------------ records */

/* The record of an inode of the current volume; zero where there is none or it can't be read. */
static void record_get(struct check *ck, uint64_t ino, struct pmfs_inode *rec)
{
	const pgno_t pgno = ino / PMFS_INODES_PER_PAGE;
	vpn_t vpn = VPN_NONE;

	if (ck->cached != pgno) {
		memset(ck->cache, 0, sizeof(ck->cache));
		ck->cached = pgno;
		if (ptab_get(ck->fs->st, &ck->vol->inodes, pgno, &vpn) || !vpn ||
		    page_read(ck->fs->st, vpn, 0, ck->cache, sizeof(ck->cache)))
			memset(ck->cache, 0, sizeof(ck->cache));
	}
	*rec = ck->cache[ino % PMFS_INODES_PER_PAGE];
}

/* As itable_load(), but for what is in the check's way: no lock, any volume. */
static int inode_at(struct check *ck, uint64_t ino, struct inode *in)
{
	struct pmfs_inode rec;

	record_get(ck, ino, &rec);
	memset(in, 0, sizeof(*in));
	in->vol = ck->vol;
	in->ino = ino;
	return inode_decode(&rec, in);
}

/* ------------------------------------------------------------------ paths, for people */

struct name_search {
	uint64_t ino;
	char name[PMFS_NAME_MAX + 1];
};

static int name_matches(void *arg, const struct dir_entry *de)
{
	struct name_search *ns = arg;

	if (de->ino != ns->ino)
		return 0;
	memcpy(ns->name, de->name, sizeof(ns->name));
	return 1;
}

static bool name_in(struct check *ck, uint64_t dir, uint64_t ino, char name[PMFS_NAME_MAX + 1])
{
	struct name_search ns = {.ino = ino};
	struct inode in;
	bool there;

	if (inode_at(ck, dir, &in) || !S_ISDIR(in.mode))
		return false;
	rw_init(&in.lock, LOCK_INODE);
	rw_rdlock(&in.lock);
	there = dir_each(&in, 0, name_matches, &ns) == 1;
	rw_unlock(&in.lock);
	rw_destroy(&in.lock);
	memcpy(name, ns.name, sizeof(ns.name));
	return there;
}

/* The root or the hidden directory: no name leads to it. */
static bool is_top(const struct check *ck, uint64_t ino)
{
	return ino == PMFS_INO_ROOT || (ino && ino == atomic_load(&ck->vol->hidden));
}

/* "": it has none, or more than one, or they can't be found. */
static void path_of(struct check *ck, uint64_t ino, char *path, size_t size)
{
	char name[PMFS_NAME_MAX + 1];
	size_t at = size - 1, len;

	path[0] = 0;
	if (!ck->named || !ck->vol || !ino || !ck->paths_left)
		return;
	ck->paths_left--;
	path[at] = 0;
	for (unsigned depth = 0; !is_top(ck, ino); depth++) {
		const struct named *nm = ino < ck->inos ? &ck->named[ino] : NULL;

		if (!nm || nm->links != 1 || depth == PATH_DEPTH ||
		    !name_in(ck, nm->parents, ino, name))
			return;
		len = strlen(name);
		if (len + 2 > at)
			return;
		at -= len;
		memcpy(path + at, name, len);
		path[--at] = '/';
		ino = nm->parents;
	}
	if (ino != PMFS_INO_ROOT && at > sizeof("/.pmfs")) {
		at -= sizeof("/.pmfs") - 1;
		memcpy(path + at, "/.pmfs", sizeof("/.pmfs") - 1);
	}
	memmove(path, path + at, size - at);
}

static void volume_name(const struct volume *vol, const struct volume *live, char *name, size_t size)
{
	char text[PMFS_VOL_NAME_MAX + 1] = "";

	if (vol) {
		rw_rdlock(&vol->fs->volumes_lock);
		memcpy(text, vol->name, sizeof(text));
		rw_unlock(&vol->fs->volumes_lock);
	}
	if (!vol)
		snprintf(name, size, "the volume table");
	else if (vol == live || atomic_load(&vol->state) == PMFS_VOL_LIVE)
		snprintf(name, size, "live");
	else if (atomic_load(&vol->state) == PMFS_VOL_DYING)
		snprintf(name, size, "deleted snapshot %" PRIu64, vol->id);
	else
		snprintf(name, size, "snapshot %s", text);
}

static void say(struct check *ck, uint64_t ino, pgno_t at, const char *text)
{
	char volume[300], path[1024], where[64] = "", line[2048];

	volume_name(ck->vol, ck->live, volume, sizeof(volume));
	path_of(ck, ino, path, sizeof(path));
	if (at != PGNO_END)
		snprintf(where, sizeof(where), " at byte %" PRIu64, at << PMFS_PAGE_SHIFT);
	if (!ino)
		snprintf(line, sizeof(line), "%s: %s%s", volume, text, where);
	else
		snprintf(line, sizeof(line), "%s: inode %" PRIu64 "%s%s%s: %s%s", volume, ino,
			 path[0] ? " (" : "", path, path[0] ? ")" : "", text, where);
	if (ck->of_volume && ck->vol)
		ck->of_volume(ck->arg, ck->vol);
	ck->bad(ck->arg, line);
}

/* At the end of a volume, when it is known which directory names what. */
static void say_kept(struct check *ck)
{
	char text[80];

	for (size_t i = 0; i < ck->n_kept; i++) {
		say(ck, ck->kept[i].ino, ck->kept[i].at, ck->kept[i].text);
		free(ck->kept[i].text);
	}
	if (ck->not_kept) {
		snprintf(text, sizeof(text), "%" PRIu64 " findings more", ck->not_kept);
		say(ck, 0, PGNO_END, text);
	}
	ck->n_kept = 0;
	ck->not_kept = 0;
}

/* ------------------------------------------------------------------ what directories say */

static void touch(struct check *ck, uint64_t ino)
{
	bit_set(ck->touched, ino);
}

/* Add (sign 1) or take away (-1) what a page of a directory's file says. */
static void dir_page_says(struct check *ck, uint64_t dir, const union dir_page *pg, int sign)
{
	const uint32_t one = (uint32_t)sign;
	struct dir_rec rec;
	struct named *nm;

	/* dir_check() has said what is wrong with a page that is none. */
	if (dir_head_check(pg) || dir_level(pg))
		return;
	for (unsigned i = 0; i < dir_count(pg); i++) {
		if (dir_leaf_get(pg, i, &rec))
			continue;
		if (rec.ino >= ck->inos) {
			if (sign > 0)
				found(ck, dir, "an entry names inode %" PRIu64 ", which can't be",
				      rec.ino);
			continue;
		}
		nm = &ck->named[rec.ino];
		touch(ck, rec.ino);
		nm->types += one * rec.type;
		if (dir == PMFS_INO_ORPHANS) {
			nm->orphan += one;
			continue;
		}
		nm->links += one;
		nm->parents += (uint64_t)(int64_t)sign * dir;
		if (rec.type == DT_DIR) {
			ck->named[dir].subdirs += one;
			touch(ck, dir);
		}
	}
}

/*
 * Read one side of a difference; what can't be read is taken for zeros, by this volume and then by
 * the one after.  Every page comes into a volume and goes out of one once or a few times, so there
 * is an end of reading.
 */
static int side_read(struct check *ck, vpn_t vpn, pgno_t at, void *page, bool mine)
{
	int rc;

	memset(page, 0, PMFS_PAGE_SIZE);
	if (!vpn)
		return 0;
	if (!ck->reads_left) {
		if (!ck->broken)
			found(ck, 0, "its tables go in circles");
		ck->broken = true;
		return 0;
	}
	ck->reads_left--;
	rc = check_read(&ck->cp, vpn, at, page);
	if (rc) {
		memset(page, 0, PMFS_PAGE_SIZE);
		if (mine)
			ck->broken = true;
	}
	return MIN(rc, 0);
}

/* Of two tables walked together, one may be lower: its root then stands in for the first child of a
 * node that is not there. */
static struct ptab child_of(const struct ptab *pt, uint32_t level, const le64 *entry, size_t i)
{
	if (pt->height == level)
		return (struct ptab){le64_get(entry[i]), level - 1};
	return i ? (struct ptab){VPN_NONE, 0} : *pt;
}

static bool same(const struct ptab *a, const struct ptab *b)
{
	return a->root == b->root && (!a->root || a->height == b->height);
}

static int dir_diff(struct check *ck, uint64_t dir, const struct ptab *now,
		    const struct ptab *before, uint32_t level, pgno_t at)
{
	union {
		le64 entry[PMFS_PTAB_FANOUT];
		union dir_page dir;
	} a, b;
	int rc;

	if (same(now, before))
		return 0;
	rc = side_read(ck, now->height == level ? now->root : VPN_NONE, at, &a, true);
	if (!rc)
		rc = side_read(ck, before->height == level ? before->root : VPN_NONE, at, &b,
			       false);
	if (rc)
		return rc;
	if (!level) {
		dir_page_says(ck, dir, &b.dir, -1);
		dir_page_says(ck, dir, &a.dir, 1);
		return 0;
	}
	for (size_t i = 0; i < PMFS_PTAB_FANOUT && !rc; i++) {
		const struct ptab x = child_of(now, level, a.entry, i);
		const struct ptab y = child_of(before, level, b.entry, i);

		rc = dir_diff(ck, dir, &x, &y, level - 1,
			      at + i * (UINT64_C(1) << (PMFS_PTAB_SHIFT * (level - 1))));
	}
	return rc;
}

/* ------------------------------------------------------------------ what records say */

static struct ptab dir_table(const struct pmfs_inode *rec)
{
	const struct ptab pt = ptab_decode(&rec->data);

	if (!S_ISDIR(le32_get(rec->mode)) || !ptab_valid(&pt))
		return (struct ptab){VPN_NONE, 0};
	return pt;
}

static int inode_contents(struct check *ck, struct inode *in, const struct pmfs_inode *rec,
			  const struct pmfs_inode *before)
{
	const bool known_dir = S_ISDIR(le32_get(before->mode)) &&
			       rec->size.raw == before->size.raw &&
			       !memcmp(&rec->data, &before->data, sizeof(rec->data));
	const bool known_xattr = before->mode.raw &&
				 rec->xattr_size.raw == before->xattr_size.raw &&
				 !memcmp(&rec->xattr, &before->xattr, sizeof(rec->xattr));
	int rc = 0;

	rw_init(&in->lock, LOCK_INODE);
	rw_rdlock(&in->lock);
	if (S_ISDIR(in->mode) && !known_dir)
		rc = dir_check(in, found_in_inode, ck);
	if (rc >= 0 && !known_xattr)
		rc = xattr_check(in, found_in_inode, ck);
	rw_unlock(&in->lock);
	rw_destroy(&in->lock);
	/* What could not be read has been found by the walk already. */
	return rc == -ENOMEM ? rc : 0;
}

/* file.c, F1 and F2: there are only zeros behind the size, or a truncation has to go on. */
static void behind_size(struct check *ck, const struct inode *in)
{
	const size_t tail = in->size % PMFS_PAGE_SIZE;
	uint8_t page[PMFS_PAGE_SIZE];
	pgno_t at = in->size / PMFS_PAGE_SIZE;
	vpn_t vpn;

	if (tail && !ptab_get(ck->fs->st, &in->data, at++, &vpn) && vpn &&
	    !page_read(ck->fs->st, vpn, 0, page, sizeof(page)) &&
	    !mem_is_zero(page + tail, sizeof(page) - tail))
		found(ck, in->ino, "behind its end there are bytes that are not zero");
	if (in->flags & PMFS_INODE_STALE)
		return;
	while (ck->reads_left && !ptab_seek(ck->fs->st, &in->data, at, true, &at) &&
	       at != PGNO_END) {
		ck->reads_left--;
		if (!ptab_get(ck->fs->st, &in->data, at, &vpn) && vpn &&
		    !page_read(ck->fs->st, vpn, 0, page, sizeof(page)) &&
		    !mem_is_zero(page, sizeof(page))) {
			found(ck, in->ino, "behind its end there are pages that are not zero");
			return;
		}
		at++;
	}
}

/* A record in a page that is met for the first time; `before` is what the volume before had in its
 * place. */
static int record_first(struct check *ck, uint64_t ino, const struct pmfs_inode *rec,
			const struct pmfs_inode *before)
{
	struct inode in = {.vol = ck->vol, .ino = ino};
	const struct ptab data = ptab_decode(&rec->data), xattr = ptab_decode(&rec->xattr);
	const uint32_t mode = le32_get(rec->mode);
	struct check_tally td, tx;
	int rc, valid;

	if (!mode) {
		if (data.root || xattr.root)
			found(ck, ino, "it is free and has contents");
		return 0;
	}
	valid = inode_decode(rec, &in);
	if (valid && !ck->count_only)
		found(ck, ino, "its record contradicts itself");
	ck->ino = ino;
	rc = check_table(&ck->cp, &data, S_ISDIR(mode) ? CHECK_DIR : CHECK_DATA, &td);
	if (!rc)
		rc = check_table(&ck->cp, &xattr, CHECK_XATTR, &tx);
	if (rc || ck->count_only)
		goto out;
	if (S_ISDIR(mode) && !td.whole)
		ck->broken = true;
	if (!S_ISREG(mode))
		td.pages = 0;
	if (td.whole && td.pages != le64_get(rec->pages))
		found(ck, ino, "it has %" PRIu64 " pages and says %" PRIu64, td.pages,
		      le64_get(rec->pages));
	if (!valid && td.whole && tx.whole)
		rc = inode_contents(ck, &in, rec, before);
	if (!rc && !valid && td.whole && S_ISREG(mode) && (ck->cp.data || ck->ends) && td.weight <= ck->cp.limit)
		behind_size(ck, &in);
out:
	ck->ino = 0;
	return rc;
}

/* From what the volume before said about an inode to what this one says. */
static int record_changed(struct check *ck, uint64_t ino, const struct pmfs_inode *rec,
			  const struct pmfs_inode *before)
{
	const struct ptab now = dir_table(rec), was = dir_table(before);
	int rc;

	touch(ck, ino);
	ck->used += (rec->mode.raw != 0);
	ck->used -= (before->mode.raw != 0);
	if (S_ISREG(le32_get(rec->mode)))
		ck->data_pages += le64_get(rec->pages);
	if (S_ISREG(le32_get(before->mode)))
		ck->data_pages -= le64_get(before->pages);
	ck->ino = ino;
	rc = dir_diff(ck, ino, &now, &was, MAX(now.height, was.height), 0);
	ck->ino = 0;
	return rc;
}

static int records_diff(struct check *ck, vpn_t now, vpn_t before, pgno_t pgno, bool first)
{
	struct pmfs_inode a[PMFS_INODES_PER_PAGE], b[PMFS_INODES_PER_PAGE];
	static const struct pmfs_inode none;
	int rc;

	rc = side_read(ck, now, pgno, a, true);
	if (!rc)
		rc = side_read(ck, before, pgno, b, false);
	for (size_t i = 0; i < PMFS_INODES_PER_PAGE && !rc; i++) {
		const uint64_t ino = pgno * PMFS_INODES_PER_PAGE + i;
		const bool outside = !ino || ino >= (ck->count_only ? UINT64_MAX : ck->inos);

		if (first && memcmp(&a[i], &none, sizeof(none))) {
			if (outside)
				found(ck, ino, "no inode can have this number");
			rc = record_first(ck, ino, &a[i], &b[i]);
		}
		if (!rc && !ck->count_only && !outside && memcmp(&a[i], &b[i], sizeof(a[i])))
			rc = record_changed(ck, ino, &a[i], &b[i]);
	}
	return rc;
}

/* count: the node that leads here is met for the first time, so that its pointers count. */
static int inodes_diff(struct check *ck, const struct ptab *now, const struct ptab *before,
		       uint32_t level, pgno_t at, bool count)
{
	const bool here = now->root && now->height == level;
	le64 a[PMFS_PTAB_FANOUT], b[PMFS_PTAB_FANOUT];
	enum check_seen seen;
	bool first = count && !here;
	int rc = 0;

	if (!now->root && !before->root)
		return 0;
	if (ck->stop && ck->stop(ck->arg))
		return -ECANCELED;
	if (here && count) {
		rc = check_visit(&ck->cp, now->root, CHECK_INODES, level, at, &seen);
		if (rc)
			return rc;
		if (seen == CHECK_BAD)
			ck->broken = true;
		first = seen == CHECK_FIRST;
	}
	if (same(now, before) || (ck->count_only && !first))
		return 0;
	if (!level)
		return records_diff(ck, now->root, before->root, at, first);
	rc = side_read(ck, here ? now->root : VPN_NONE, at, a, true);
	if (!rc)
		rc = side_read(ck, before->height == level ? before->root : VPN_NONE, at, b, false);
	for (size_t i = 0; i < PMFS_PTAB_FANOUT && !rc; i++) {
		const struct ptab x = child_of(now, level, a, i), y = child_of(before, level, b, i);

		rc = inodes_diff(ck, &x, &y, level - 1,
				 at + i * (UINT64_C(1) << (PMFS_PTAB_SHIFT * (level - 1))), first);
	}
	return rc;
}

/* ------------------------------------------------------------------ does it fit together? */

/*
 * Does a directory's way up end at the root?  A way that somebody has gone before in this volume
 * need not be gone again: if it was a circle, that has been said.
 */
static bool path_leads_up(struct check *ck, uint64_t ino)
{
	const uint64_t walking = ++ck->marks;
	struct pmfs_inode rec;

	while (!is_top(ck, ino)) {
		if (!ino || ino >= ck->inos || ck->named[ino].mark == walking)
			return false;
		if (ck->named[ino].mark > ck->marks_before)
			return true;
		ck->named[ino].mark = walking;
		record_get(ck, ino, &rec);
		if (!S_ISDIR(le32_get(rec.mode)))
			return false;
		ino = le64_get(rec.parent);
	}
	return true;
}

static void directory_fits(struct check *ck, uint64_t ino, const struct pmfs_inode *rec)
{
	const struct named *nm = &ck->named[ino];
	const uint64_t parent = le64_get(rec->parent);

	if (le32_get(rec->nlink) != 2 + nm->subdirs)
		found(ck, ino, "it has %u links and should have %u: 2, and %u subdirectories",
		      le32_get(rec->nlink), 2 + nm->subdirs, nm->subdirs);
	if (ino < PMFS_INO_FIRST || is_top(ck, ino)) {
		if (nm->links)
			found(ck, ino, "a directory names it, which none may");
		return;
	}
	if (nm->links != 1)
		found(ck, ino, "%u directories name it, and only one can be its parent", nm->links);
	else if (nm->parents != parent)
		found(ck, ino, "inode %" PRIu64 " names it, and it says that %" PRIu64 " does",
		      nm->parents, parent);
	else if (!path_leads_up(ck, ino))
		found(ck, ino, "its way up does not lead to the root");
}

/* Record and directories agree about an inode. */
static void inode_fits(struct check *ck, uint64_t ino)
{
	const struct named *nm = &ck->named[ino];
	struct pmfs_inode rec;
	uint32_t mode, nlink;

	record_get(ck, ino, &rec);
	mode = le32_get(rec.mode);
	nlink = le32_get(rec.nlink);
	if ((ino < PMFS_INO_FIRST || is_top(ck, ino)) && !S_ISDIR(mode)) {
		found(ck, ino, "it is no directory");
		return;
	}
	if (!mode) {
		if (nm->links || nm->orphan)
			found(ck, ino, "it is free, and a directory names it");
		return;
	}
	if (nm->types != (nm->links + nm->orphan) * IFTODT(mode))
		found(ck, ino, "a directory says that it is of another type");
	if (ino >= PMFS_INO_FIRST && nm->orphan != (nlink ? 0 : 1))
		found(ck, ino,
		      nlink ? "it has links and is among the deleted files"
			    : "it has no links and is not among the deleted files");
	if (S_ISDIR(mode) && (nlink || ino < PMFS_INO_FIRST || is_top(ck, ino))) {
		directory_fits(ck, ino, &rec);
		return;
	}
	if (nm->links != nlink)
		found(ck, ino, "it has %u links, and %u entries name it", nlink, nm->links);
	if (S_ISDIR(mode) && le64_get(rec.size))
		found(ck, ino, "it is deleted and not empty");
}

/* I1, for the live volume: nobody takes numbers out of another one's list. */
static int free_list_fits(struct check *ck)
{
	const struct volume *vol = ck->vol;
	const uint64_t want = vol->next_ino - 1 - ck->used;
	uint64_t *seen = calloc(BITMAP_WORDS(ck->inos), sizeof(*seen));
	uint64_t n = 0, ino = vol->free_ino;
	struct pmfs_inode rec;

	if (!seen)
		return -ENOMEM;
	for (; ino; ino = le64_get(rec.parent), n++) {
		if (ino >= ck->inos || ino >= vol->next_ino || bit_test(seen, ino)) {
			found(ck, 0, "the list of free inodes goes wrong at inode %" PRIu64, ino);
			goto out;
		}
		bit_set(seen, ino);
		record_get(ck, ino, &rec);
		if (rec.mode.raw) {
			found(ck, ino, "it is in use and on the list of free inodes");
			goto out;
		}
	}
	if (n != want)
		found(ck, 0,
		      "%" PRIu64 " inodes are on the list of free ones, and %" PRIu64 " are free",
		      n, want);
out:
	free(seen);
	return 0;
}

static int volume_fits(struct check *ck)
{
	const struct volume *vol = ck->vol;

	if (vol->next_ino > ck->inos)
		found(ck, 0, "it says that inode %" PRIu64 " was used, and there is none",
		      vol->next_ino - 1);
	if (ck->used != vol->inodes_used)
		found(ck, 0, "it has %" PRIu64 " inodes and says %" PRIu64, ck->used,
		      vol->inodes_used);
	if (ck->data_pages != vol->data_pages)
		found(ck, 0, "its files have %" PRIu64 " pages and it says %" PRIu64,
		      ck->data_pages, vol->data_pages);
	ck->marks_before = ck->marks;
	for (uint64_t ino = bit_find_set(ck->touched, ck->inos, 1); ino < ck->inos;
	     ino = bit_find_set(ck->touched, ck->inos, ino + 1))
		inode_fits(ck, ino);
	return vol == ck->live ? free_list_fits(ck) : 0;
}

/* ------------------------------------------------------------------ volumes */

static int volume_check(struct check *ck, struct volume *vol, const struct ptab *before)
{
	int rc;

	ck->vol = vol;
	ck->ino = 0;
	ck->cached = PGNO_END;
	ck->broken = false;
	if (!ptab_valid(&vol->inodes)) {
		found(ck, 0, "the root of its inode file is impossible");
		ck->cp.incomplete = true;
		return 0;
	}
	if (ck->touched)
		memset(ck->touched, 0, BITMAP_WORDS(ck->inos) * sizeof(*ck->touched));
	rc = inodes_diff(ck, &vol->inodes, before, MAX(vol->inodes.height, before->height), 0,
			 true);
	if (!rc && !ck->count_only && !ck->broken)
		rc = volume_fits(ck);
	if (!ck->quiet)
		say_kept(ck);
	return rc;
}

/* The live volume, snapshots from the newest on, dying ones. */
static int newest_first(const void *a, const void *b)
{
	const struct volume *const *x = a, *const *y = b;
	const uint32_t sx = atomic_load(&(*x)->state), sy = atomic_load(&(*y)->state);

	if (sx != sy)
		return sx < sy ? -1 : 1;
	return (*x)->id > (*y)->id ? -1 : 1;
}

/* For volumes whose state may change: the newest first. */
static int by_age(const void *a, const void *b)
{
	const struct volume *const *x = a, *const *y = b;

	return (*x)->id > (*y)->id ? -1 : 1;
}

static int volumes_walk(struct check *ck, struct volume **vols, size_t n)
{
	const struct ptab none = {VPN_NONE, 0};
	const struct ptab *before = &none;
	struct check_tally tally;
	int rc;

	ck->vol = NULL;
	ck->ino = 0;
	/* The volume table of a fs in use changes. */
	rc = ck->running ? 0 : check_table(&ck->cp, &ck->fs->table, CHECK_ROWS, &tally);
	if (!ck->quiet)
		say_kept(ck);
	for (size_t i = 0; i < n && !rc; i++) {
		ck->count_only = ck->quiet || (!ck->running &&
					       atomic_load(&vols[i]->state) == PMFS_VOL_DYING);
		rc = volume_check(ck, vols[i], ck->count_only ? &none : before);
		before = &vols[i]->inodes;
	}
	return rc;
}

/* Room for what is said about inodes.  A number that was used has or had its place in a page, so
 * there are not more of them. */
static int named_new(struct check *ck, struct volume **vols, size_t n)
{
	const uint64_t most = (ck->cp.expected + 1) * PMFS_INODES_PER_PAGE;
	uint64_t inos = PMFS_INO_FIRST;

	for (size_t i = 0; i < n; i++)
		if (ck->running || atomic_load(&vols[i]->state) != PMFS_VOL_DYING)
			inos = MAX(inos, vols[i]->next_ino);
	ck->inos = MIN(inos, most);
	ck->named = calloc(ck->inos, sizeof(*ck->named));
	ck->touched = calloc(BITMAP_WORDS(ck->inos), sizeof(*ck->touched));
	return ck->named && ck->touched ? 0 : -ENOMEM;
}

/* ------------------------------------------------------------------ counts */

static int count_is_wrong(void *arg, vpn_t vpn, uint64_t refs, uint64_t met)
{
	struct check *ck = arg;
	struct mismatch *more;

	/* Pointers of the live volume come on top of those of a fs in use. */
	if (ck->running && met < refs)
		return 0;
	if (!met) {
		if (!ck->lost++)
			ck->first_lost = vpn;
		return 0;
	}
	if (ck->n_wrong == MISMATCHES_NAMED) {
		ck->more_wrong++;
		return 0;
	}
	more = realloc(ck->wrong, (ck->n_wrong + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	ck->wrong = more;
	more[ck->n_wrong++] = (struct mismatch){vpn, refs, met, false};
	return 0;
}

/* In the second pass: whose page is it? */
static void owner_found(void *arg, pgno_t at, vpn_t vpn)
{
	struct check *ck = arg;
	char text[160];

	for (size_t i = 0; i < ck->n_wrong; i++) {
		struct mismatch *mm = &ck->wrong[i];

		if (mm->vpn != vpn || mm->said)
			continue;
		mm->said = true;
		snprintf(text, sizeof(text),
			 "page %" PRIu64 " has %" PRIu64
			 " pointers, and the page map says %" PRIu64,
			 vpn, mm->met, mm->refs);
		ck->findings++;
		say(ck, ck->ino, at, text);
	}
}

static int counts_fit(struct check *ck, struct volume **vols, size_t n)
{
	char text[160];
	int rc;

	rc = check_compare(&ck->cp, count_is_wrong, ck);
	if (rc)
		return rc;
	if (ck->n_wrong) {
		vpn_t watch[MISMATCHES_NAMED];

		check_pages_reset(&ck->cp);
		for (size_t i = 0; i < ck->n_wrong; i++)
			watch[i] = ck->wrong[i].vpn;
		ck->cp.watch = watch;
		ck->cp.n_watch = ck->n_wrong;
		ck->quiet = true;
		ck->cp.data = false;
		rc = volumes_walk(ck, vols, n);
		ck->cp.n_watch = 0;
	}
	if (ck->more_wrong) {
		snprintf(text, sizeof(text),
			 "%" PRIu64 " pages more have a wrong number of pointers", ck->more_wrong);
		ck->findings++;
		ck->bad(ck->arg, text);
	}
	if (ck->lost) {
		snprintf(
			text, sizeof(text),
			"%" PRIu64
			" pages are in use, and nothing points at them; the first is page %" PRIu64,
			ck->lost, ck->first_lost);
		ck->findings++;
		ck->bad(ck->arg, text);
	}
	return rc;
}

static void found_in_store(void *arg, const char *what)
{
	struct check *ck = arg;

	ck->bad(ck->arg, what);
}

static int volumes_all(struct fs *fs, struct volume ***out, size_t *n)
{
	struct volume **vols = calloc(PMFS_VOL_ROWS_MAX, sizeof(struct volume *));
	size_t count = 0;

	if (!vols)
		return -ENOMEM;
	rw_rdlock(&fs->volumes_lock);
	for (struct volume *vol = fs->volumes; vol; vol = vol->next)
		vols[count++] = vol;
	rw_unlock(&fs->volumes_lock);
	qsort(vols, count, sizeof(struct volume *), newest_first);
	*out = vols;
	*n = count;
	return 0;
}

static int scan_all(struct store *st)
{
	int rc = 0;

	while (!rc && !store_scanned(st))
		rc = store_scan(st, SCAN_STEP);
	return MIN(rc, 0);
}

static int check_all(struct check *ck, struct volume **vols, size_t n, bool data)
{
	int rc, scanned;

	ck->paths_left = PATHS_FOUND;
	ck->cp.bad = found_in_pages;
	ck->cp.owner = owner_found;
	ck->cp.progress = ck->progress ? show_progress : NULL;
	ck->cp.arg = ck;
	/* The scan says how much there is, and that the page map comes to an end.  Where it can't be read,
	 * counts mean nothing, and store_check() says why. */
	scanned = ck->running ? 0 : scan_all(ck->fs->st);
	if (scanned == -ELOOP) {
		rc = store_check(ck->fs->st, false, found_in_store, ck);
		return rc < 0 ? rc : MAX(rc, 1);
	}
	rc = check_pages_init(&ck->cp, ck->fs->st, data);
	ck->cp.forget = !ck->running;
	ck->reads_left = ck->cp.expected * 16 + 65536;
	if (!rc)
		rc = named_new(ck, vols, n);
	if (!rc)
		rc = volumes_walk(ck, vols, n);
	if (!rc && !scanned)
		rc = counts_fit(ck, vols, n);
	say_kept(ck);
	if (!rc && !ck->running) {
		rc = store_check(ck->fs->st, false, found_in_store, ck);
		if (rc > 0)
			ck->findings += (uint64_t)rc;
	}
	check_pages_free(&ck->cp);
	free(ck->kept);
	free(ck->wrong);
	free(ck->named);
	free(ck->touched);
	return rc < 0 ? rc : (int)MIN(ck->findings, (uint64_t)INT32_MAX);
}

int check_by_volume(struct fs *fs, const struct check_how *how, void *arg)
{
	struct check ck = { .fs = fs, .bad = how->bad, .of_volume = how->of_volume, .progress = how->progress, .ends = how->ends,
			    .arg = arg, .live = fs->live };
	struct volume **vols;
	size_t n;
	int rc;

	rc = volumes_all(fs, &vols, &n);
	if (rc)
		return rc;
	rc = check_all(&ck, vols, n, how->data);
	free(vols);
	return rc;
}

int fs_check(struct fs *fs, bool data, void (*bad)(void *arg, const char *what), void *arg)
{
	const struct check_how how = { .data = data, .bad = bad };

	return check_by_volume(fs, &how, arg);
}

int fs_check_shown(struct fs *fs, bool data, void (*bad)(void *arg, const char *what),
		   void (*progress)(void *arg, double percent), void *arg)
{
	const struct check_how how = { .data = data, .bad = bad, .progress = progress };

	return check_by_volume(fs, &how, arg);
}

int fs_check_running(struct fs *fs, bool (*stop)(void *arg), void (*bad)(void *arg, const char *what),
		     void *arg)
{
	struct check ck = { .fs = fs, .bad = bad, .arg = arg, .running = true, .stop = stop };
	struct volume **vols = calloc(PMFS_VOL_ID_MAX + 2, sizeof(struct volume *));
	struct volume *pin, *vol;
	uint64_t id = 0;
	size_t n = 0;
	int rc;

	if (!vols)
		return -ENOMEM;
	if (fs->read_only) {
		pin = volume_get(fs, fs->live->id);
		rc = 0;
	} else {
		rc = volume_pin(fs, &pin);
	}
	if (rc) {
		free(vols);
		return rc;
	}
	vols[n++] = pin;
	ck.live = pin;
	/* A volume that is held is not taken apart, even when it is deleted meanwhile. */
	while ((vol = volume_next(fs, id))) {
		id = vol->id;
		if (atomic_load(&vol->state) == PMFS_VOL_SNAPSHOT)
			vols[n++] = vol;
		else
			volume_put(vol);
	}
	qsort(vols + 1, n - 1, sizeof(struct volume *), by_age);
	rc = check_all(&ck, vols, n, false);
	for (size_t i = 0; i < n; i++)
		volume_put(vols[i]);
	free(vols);
	return rc;
}
