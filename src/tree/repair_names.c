/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One volume: directories, names, link counts, and the volume's own numbers.  Counts of pages are
 * right by now, so all of it is done as the filesystem itself does it, and what other volumes share
 * stays theirs.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/hash.h"
#include "tree/dir.h"
#include "tree/dir_walk.h"
#include "tree/itable.h"
#include "tree/repair.h"
#include "tree/xattr.h"

#define NAME_COST  (DIR_COST + 2 * ITABLE_COST)
#define PUNCH_STEP 2048u
#define LOST_FOUND "lost+found"

/* What is known of an inode. */
struct who {
	uint64_t parent; /* a directory that names it */
	uint32_t links, subdirs;
	uint8_t type; /* DT_*, 0: free */
	bool orphan;
};

struct names {
	struct repair *rp;
	struct volume *vol;
	struct who *who;
	uint64_t inos; /* numbers below it are in who */
	uint64_t used, data_pages;
	uint64_t lost_found; /* the directory's number, 0: not made yet */
};

/* ------------------------------------------------------------------ inodes outside of the cache */

static void inode_forget_it(struct inode *in)
{
	rw_unlock(&in->lock);
	rw_destroy(&in->lock);
}

/* Loaded and locked; nobody else has it. */
static int inode_take(struct names *nm, uint64_t ino, struct inode *in)
{
	int rc;

	memset(in, 0, sizeof(*in));
	in->vol = nm->vol;
	in->ino = ino;
	rw_init(&in->lock, LOCK_INODE);
	rw_wrlock(&in->lock);
	rc = itable_load(in);
	if (rc)
		inode_forget_it(in);
	return rc;
}

static int begin(struct names *nm, struct inode *in, struct txn *tx, uint64_t cost)
{
	int rc;

	rc = txn_begin(nm->rp->st, tx, FRAME_RECLAIM, cost);
	if (rc)
		return rc;
	rc = itable_own(tx, in);
	if (rc)
		txn_end(tx);
	return rc;
}

static int store(struct txn *tx, struct inode *in, int rc)
{
	const int err = itable_store(tx, in);

	txn_end(tx);
	return rc ? rc : err;
}

/* Store a change of the record and of nothing else. */
static int store_record(struct names *nm, struct inode *in)
{
	struct txn tx;
	int rc;

	rc = begin(nm, in, &tx, ITABLE_COST);
	return rc ? rc : store(&tx, in, 0);
}

/* Let go of a table that no record names any more. */
static int table_drop(struct names *nm, struct ptab *pt)
{
	struct txn tx;
	int rc = 1;

	while (rc == 1) {
		rc = txn_begin(nm->rp->st, &tx, FRAME_RECLAIM, PTAB_PUNCH_COST);
		if (rc)
			return rc;
		rc = ptab_punch(&tx, pt, NULL, 0, PGNO_END, PUNCH_STEP, NULL);
		txn_end(&tx);
	}
	return rc;
}

/* ------------------------------------------------------------------ records */

static int each_record(struct names *nm,
		       int (*fn)(struct names *nm, uint64_t ino, const struct pmfs_inode *rec))
{
	struct pmfs_inode rec[PMFS_INODES_PER_PAGE];
	struct store *st = nm->rp->st;
	pgno_t at = 0;
	vpn_t vpn;
	int rc;

	for (;; at++) {
		mutex_lock(&nm->vol->lock);
		rc = ptab_seek(st, &nm->vol->inodes, at, true, &at);
		if (!rc && at != PGNO_END)
			rc = ptab_get(st, &nm->vol->inodes, at, &vpn);
		if (!rc && at != PGNO_END)
			rc = page_read(st, vpn, 0, rec, sizeof(rec));
		mutex_unlock(&nm->vol->lock);
		if (rc || at == PGNO_END)
			return rc;
		for (size_t i = 0; i < PMFS_INODES_PER_PAGE && !rc; i++)
			if (rec[i].mode.raw)
				rc = fn(nm, at * PMFS_INODES_PER_PAGE + i, &rec[i]);
		if (rc)
			return rc;
	}
}

static int find_last(struct names *nm, uint64_t ino, const struct pmfs_inode *rec)
{
	(void)rec;
	nm->inos = MAX(nm->inos, ino + 1);
	return 0;
}

static int note_type(struct names *nm, uint64_t ino, const struct pmfs_inode *rec)
{
	nm->who[ino].type = (uint8_t)IFTODT(le32_get(rec->mode));
	return 0;
}

static void ignore(void *arg, const char *what)
{
	(void)arg;
	(void)what;
}

static int attributes_mend(struct names *nm, struct inode *in)
{
	struct ptab old = in->xattr;
	int rc;

	if (!old.root && !in->xattr_size)
		return 0;
	rc = xattr_check(in, ignore, NULL);
	if (!rc || rc == -ENOMEM)
		return rc;
	repair_say(nm->rp, false, "its attributes are damaged, and are taken away");
	in->xattr = (struct ptab){0};
	in->xattr_size = 0;
	rc = store_record(nm, in);
	return rc ? rc : table_drop(nm, &old);
}

/* file.c, F1 and F2. */
static int end_mend(struct names *nm, struct inode *in)
{
	static const uint8_t zeros[PMFS_PAGE_SIZE];
	const size_t tail = in->size % PMFS_PAGE_SIZE;
	uint8_t page[PMFS_PAGE_SIZE];
	uint64_t left = nm->rp->expected; /* a table can have one page in many places */
	struct store *st = nm->rp->st;
	pgno_t at = in->size / PMFS_PAGE_SIZE;
	struct txn tx;
	vpn_t vpn;
	int rc;

	if ((in->flags & PMFS_INODE_INLINE) || !in->data.root)
		return 0;
	rc = tail ? ptab_get(st, &in->data, at, &vpn) : 0;
	if (!rc && tail && vpn && !page_read(st, vpn, 0, page, sizeof(page)) &&
	    !mem_is_zero(page + tail, sizeof(page) - tail)) {
		repair_say(nm->rp, false, "behind its end there were bytes that are not zero");
		rc = begin(nm, in, &tx, ITABLE_COST + ptab_cost(1));
		if (!rc)
			rc = store(&tx, in,
				   ptab_write(&tx, &in->data, NULL, at, tail, zeros,
					      sizeof(page) - tail, NULL));
	}
	at += tail != 0;
	if (rc || (in->flags & PMFS_INODE_STALE))
		return rc;
	rc = ptab_seek(st, &in->data, at, true, &at);
	while (!rc && at != PGNO_END) {
		rc = ptab_get(st, &in->data, at, &vpn);
		if (rc)
			break;
		/* What can't be read may be anything: that goes, too. */
		if (!left-- || page_read(st, vpn, 0, page, sizeof(page)) ||
		    !mem_is_zero(page, sizeof(page))) {
			repair_say(nm->rp, false,
				   "behind its end there were pages that are not zero");
			in->flags |= PMFS_INODE_STALE; /* the next change of it takes them away */
			return store_record(nm, in);
		}
		rc = ptab_seek(st, &in->data, at + 1, true, &at);
	}
	return rc;
}

/* ------------------------------------------------------------------ directories */

static int entry_copy(struct names *nm, struct inode *to, const struct dir_rec *rec, uint64_t *kept)
{
	struct txn tx;
	int rc;

	if (!rec->name_len || memchr(rec->name, '/', rec->name_len) ||
	    memchr(rec->name, 0, rec->name_len) ||
	    (rec->name[0] == '.' &&
	     (rec->name_len == 1 || (rec->name_len == 2 && rec->name[1] == '.'))))
		return 0;
	rc = txn_begin(nm->rp->st, &tx, FRAME_RECLAIM, DIR_COST);
	if (rc)
		return rc;
	rc = dir_insert(&tx, to, (const char *)rec->name, rec->name_len, rec->ino, rec->type);
	txn_end(&tx);
	if (!rc)
		++*kept;
	/* A name that was there twice is there once now. */
	return rc == -EEXIST ? 0 : rc;
}

/*
 * Make an index anew from all leaves that can be read, beside the old one; then the record changes
 * from one to the other.  Keys go with names, so who reads the directory in pieces goes on where he
 * was.
 */
static int dir_rebuild(struct names *nm, struct inode *in)
{
	struct inode fresh = {.vol = in->vol, .ino = in->ino};
	struct ptab old = in->data;
	union dir_page pg;
	struct dir_rec rec;
	uint64_t kept = 0;
	pgno_t at = 0;
	int rc = 0;

	rw_init(&fresh.lock, LOCK_INODE);
	rw_wrlock(&fresh.lock);
	while (old.root && !rc) {
		rc = ptab_seek(nm->rp->st, &old, at, true, &at);
		if (rc || at == PGNO_END)
			break;
		if (!dir_page_copy(in, at++, &pg) && !dir_head_check(&pg) && !dir_level(&pg)) {
			for (unsigned i = 0; i < dir_count(&pg) && !rc; i++)
				if (!dir_leaf_get(&pg, i, &rec))
					rc = entry_copy(nm, &fresh, &rec, &kept);
		}
	}
	in->data = fresh.data;
	in->size = fresh.size;
	inode_forget_it(&fresh);
	if (rc)
		return rc;
	repair_say(nm->rp, false, "the directory was damaged; %" PRIu64 " names could be read",
		   kept);
	rc = store_record(nm, in);
	return rc ? rc : table_drop(nm, &old);
}

/* An empty directory where there has to be one. */
static int dir_fresh(struct names *nm, uint64_t ino, uint32_t mode)
{
	struct inode in = {.vol = nm->vol,
			   .ino = ino,
			   .mode = S_IFDIR | mode,
			   .nlink = 2,
			   .parent = ino,
			   .uid = nm->rp->fs->root_uid,
			   .gid = nm->rp->fs->root_gid,
			   .generation = 1};
	struct inode old;
	int rc, there;

	there = !inode_take(nm, ino, &old);
	now(&in.btime);
	in.atime = in.mtime = in.ctime = in.btime;
	rw_init(&in.lock, LOCK_INODE);
	rw_wrlock(&in.lock);
	if (there)
		in.generation = old.generation + 1;
	nm->rp->ino = ino;
	repair_say(nm->rp, false, "%s was lost, and is made anew",
		   ino == PMFS_INO_ROOT ? "the root directory" : "the directory of deleted files");
	rc = store_record(nm, &in);
	inode_forget_it(&in);
	if (there) {
		if (!rc)
			rc = table_drop(nm, &old.data);
		if (!rc)
			rc = table_drop(nm, &old.xattr);
		inode_forget_it(&old);
	}
	nm->who[ino].type = DT_DIR;
	return rc;
}

/* The directory that no name leads to (struct pmfs_volume, hidden). */
static bool is_hidden(const struct names *nm, uint64_t ino)
{
	return ino && ino == atomic_load(&nm->vol->hidden);
}

/* What is wrong with an entry: changed after the walk over its directory. */
struct fix {
	char name[PMFS_NAME_MAX + 1];
	uint8_t len, type; /* type 0: remove it */
	uint64_t ino;
	const char *why;
};

struct dir_walk {
	struct names *nm;
	uint64_t dir;
	struct fix *fix;
	size_t n, room;
};

static int fix_add(struct dir_walk *w, const struct dir_entry *de, uint8_t type, const char *why)
{
	struct fix *more = w->fix;

	if (w->n == w->room) {
		w->room = MAX(w->room * 2, 16);
		more = realloc(w->fix, w->room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		w->fix = more;
	}
	more[w->n] = (struct fix){.len = de->name_len, .type = type, .ino = de->ino, .why = why};
	memcpy(more[w->n++].name, de->name, sizeof(more->name));
	return 0;
}

static int entry_look(void *arg, const struct dir_entry *de)
{
	struct dir_walk *w = arg;
	struct names *nm = w->nm;
	struct who *who = de->ino < nm->inos ? &nm->who[de->ino] : NULL;

	if (!who || !who->type || de->ino < PMFS_INO_FIRST || is_hidden(nm, de->ino))
		return fix_add(w, de, 0, "leads nowhere");
	if (who->type == DT_DIR && who->links)
		return fix_add(w, de, 0, "is a second name of a directory");
	who->links++;
	who->parent = w->dir;
	if (who->type == DT_DIR)
		nm->who[w->dir].subdirs++;
	return de->type == who->type ? 0 : fix_add(w, de, who->type, "says the wrong type");
}

static int orphan_look(void *arg, const struct dir_entry *de)
{
	struct dir_walk *w = arg;
	struct names *nm = w->nm;
	struct who *who = de->ino < nm->inos ? &nm->who[de->ino] : NULL;
	char name[17];
	struct inode in;
	bool full;

	snprintf(name, sizeof(name), "%016" PRIx64, de->ino);
	if (!who || !who->type || de->ino < PMFS_INO_FIRST || is_hidden(nm, de->ino) ||
	    strcmp(name, de->name) || who->orphan)
		return fix_add(w, de, 0, "leads nowhere");
	if (who->links)
		return fix_add(w, de, 0, "is of a file that is not deleted");
	if (who->type == DT_DIR && !inode_take(nm, de->ino, &in)) {
		full = in.size;
		inode_forget_it(&in);
		if (full)
			return fix_add(w, de, 0, "is of a directory that is not empty");
	}
	who->orphan = true;
	return de->type == who->type ? 0 : fix_add(w, de, who->type, "says the wrong type");
}

static int fix_entry(struct names *nm, struct inode *dir, const struct fix *fx)
{
	struct txn tx;
	int rc;

	repair_say(nm->rp, false, "the name \"%s\" of inode %" PRIu64 " %s", fx->name, fx->ino,
		   fx->why);
	rc = begin(nm, dir, &tx, NAME_COST);
	if (rc)
		return rc;
	if (fx->type)
		rc = dir_replace(&tx, dir, fx->name, fx->len, fx->ino, fx->type);
	else
		rc = dir_remove(&tx, dir, fx->name, fx->len, NULL);
	return store(&tx, dir, rc);
}

static int directory_mend(struct names *nm, uint64_t ino)
{
	struct dir_walk w = {.nm = nm, .dir = ino};
	struct inode in;
	int rc;

	nm->rp->ino = ino;
	rc = inode_take(nm, ino, &in);
	if (rc)
		return rc;
	rc = dir_check(&in, ignore, NULL);
	if (rc && rc != -ENOMEM)
		rc = dir_rebuild(nm, &in);
	if (!rc)
		rc = dir_each(&in, 0, ino == PMFS_INO_ORPHANS ? orphan_look : entry_look, &w);
	for (size_t i = 0; i < w.n && !rc; i++)
		rc = fix_entry(nm, &in, &w.fix[i]);
	free(w.fix);
	inode_forget_it(&in);
	nm->rp->ino = 0;
	return rc;
}

/* ------------------------------------------------------------------ lost+found */

static int make_lost_found(struct names *nm)
{
	struct inode root, in = {.vol = nm->vol};
	struct dir_entry de;
	char name[32] = LOST_FOUND;
	uint64_t generation;
	struct who *more;
	struct txn tx;
	int rc;

	rc = inode_take(nm, PMFS_INO_ROOT, &root);
	if (rc)
		return rc;
	for (unsigned i = 1; !(rc = dir_find(&root, name, strlen(name), &de)) && i < 1000; i++) {
		if (de.ino < nm->inos && nm->who[de.ino].type == DT_DIR &&
		    nm->who[de.ino].parent == PMFS_INO_ROOT) {
			nm->lost_found = de.ino;
			goto out;
		}
		snprintf(name, sizeof(name), "%s-%u", LOST_FOUND, i);
	}
	if (rc != -ENOENT) {
		rc = rc ? rc : -EEXIST;
		goto out;
	}
	rc = begin(nm, &root, &tx, NAME_COST + ITABLE_COST);
	if (rc)
		goto out;
	rc = itable_alloc(&tx, nm->vol, &in.ino, &generation);
	more = rc ? NULL : reallocarray(nm->who, MAX(nm->inos, in.ino + 1), sizeof(*more));
	if (!rc && !more)
		rc = -ENOMEM;
	if (!rc) {
		nm->who = more;
		if (in.ino >= nm->inos) {
			memset(more + nm->inos, 0, (in.ino + 1 - nm->inos) * sizeof(*more));
			nm->inos = in.ino + 1;
		}
		in.mode = S_IFDIR | 0700;
		in.uid = root.uid;
		in.gid = root.gid;
		in.nlink = 2;
		in.parent = PMFS_INO_ROOT;
		in.generation = generation;
		now(&in.btime);
		in.atime = in.mtime = in.ctime = in.btime;
		rc = itable_store(&tx, &in);
	}
	if (!rc)
		rc = dir_insert(&tx, &root, name, strlen(name), in.ino, DT_DIR);
	rc = store(&tx, &root, rc);
	if (!rc) {
		nm->lost_found = in.ino;
		nm->who[in.ino] = (struct who){.type = DT_DIR, .links = 1, .parent = PMFS_INO_ROOT};
		nm->who[PMFS_INO_ROOT].subdirs++;
		nm->used++;
	}
out:
	inode_forget_it(&root);
	return rc;
}

static int give_name(struct names *nm, uint64_t ino)
{
	struct inode dir;
	char name[40];
	struct txn tx;
	int rc = 0;

	if (!nm->lost_found)
		rc = make_lost_found(nm);
	if (rc)
		return rc;
	rc = inode_take(nm, nm->lost_found, &dir);
	if (rc)
		return rc;
	nm->rp->ino = ino;
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), i ? "#%" PRIu64 "-%u" : "#%" PRIu64, ino, i);
		rc = begin(nm, &dir, &tx, NAME_COST);
		if (rc)
			break;
		rc = store(&tx, &dir,
			   dir_insert(&tx, &dir, name, strlen(name), ino, nm->who[ino].type));
		if (rc != -EEXIST)
			break;
	}
	inode_forget_it(&dir);
	if (!rc) {
		repair_say(nm->rp, false, "it had no name any more: it is /%s/%s now", LOST_FOUND,
			   name);
		nm->who[ino].links = 1;
		nm->who[ino].parent = nm->lost_found;
		if (nm->who[ino].type == DT_DIR)
			nm->who[nm->lost_found].subdirs++;
	}
	nm->rp->ino = 0;
	return rc;
}

/* Back among the deleted files. */
static int give_orphan(struct names *nm, uint64_t ino)
{
	struct inode dir;
	char name[17];
	struct txn tx;
	int rc;

	rc = inode_take(nm, PMFS_INO_ORPHANS, &dir);
	if (rc)
		return rc;
	snprintf(name, sizeof(name), "%016" PRIx64, ino);
	rc = begin(nm, &dir, &tx, NAME_COST);
	if (!rc)
		rc = store(&tx, &dir,
			   dir_insert(&tx, &dir, name, strlen(name), ino, nm->who[ino].type));
	inode_forget_it(&dir);
	if (!rc) {
		nm->rp->ino = ino;
		repair_say(nm->rp, false, "it was deleted and not among the deleted files");
		nm->rp->ino = 0;
		nm->who[ino].orphan = true;
	}
	return rc;
}

static int find_name(void *arg, const struct dir_entry *de)
{
	struct dir_entry *want = arg;

	if (de->ino != want->ino)
		return 0;
	*want = *de;
	return 1;
}

/* Take a directory out of the circle that it is in. */
static int detach(struct names *nm, uint64_t ino)
{
	struct dir_entry de = {.ino = ino};
	struct inode dir;
	struct fix fx;
	int rc;

	rc = inode_take(nm, nm->who[ino].parent, &dir);
	if (rc)
		return rc;
	rc = dir_each(&dir, 0, find_name, &de);
	if (rc == 1) {
		fx = (struct fix){
			.len = de.name_len, .ino = ino, .why = "is in a circle of directories"};
		memcpy(fx.name, de.name, sizeof(fx.name));
		nm->rp->ino = dir.ino;
		rc = fix_entry(nm, &dir, &fx);
		nm->rp->ino = 0;
	}
	inode_forget_it(&dir);
	nm->who[nm->who[ino].parent].subdirs--;
	nm->who[ino].links = 0;
	nm->who[ino].parent = 0;
	return rc;
}

/* Does the way up from each directory end, at the root or at one that has lost its name? */
static int circles_cut(struct names *nm)
{
	uint64_t *mark = calloc(nm->inos, sizeof(*mark));
	int rc = 0;

	if (!mark)
		return -ENOMEM;
	for (uint64_t ino = PMFS_INO_FIRST; ino < nm->inos && !rc; ino++) {
		uint64_t up = ino;

		if (nm->who[ino].type != DT_DIR)
			continue;
		while (up >= PMFS_INO_FIRST && !mark[up] && nm->who[up].links) {
			mark[up] = ino;
			up = nm->who[up].parent;
		}
		if (up >= PMFS_INO_FIRST && mark[up] == ino && nm->who[up].links)
			rc = detach(nm, up);
	}
	free(mark);
	return rc;
}

/* ------------------------------------------------------------------ links and numbers */

static int names_give(struct names *nm)
{
	struct inode in;
	uint32_t nlink;
	int rc = 0;

	for (uint64_t ino = PMFS_INO_FIRST; ino < nm->inos && !rc; ino++) {
		if (!nm->who[ino].type || nm->who[ino].links || nm->who[ino].orphan ||
		    is_hidden(nm, ino))
			continue;
		rc = inode_take(nm, ino, &in);
		if (rc)
			break;
		nlink = in.nlink;
		if (S_ISDIR(in.mode) && in.size)
			nlink = 1;
		inode_forget_it(&in);
		rc = nlink ? give_name(nm, ino) : give_orphan(nm, ino);
	}
	return rc;
}

static int inode_mend(struct names *nm, uint64_t ino)
{
	const struct who *who = &nm->who[ino];
	uint64_t parent;
	struct inode in;
	uint32_t nlink;
	int rc;

	rc = inode_take(nm, ino, &in);
	if (rc)
		return rc;
	nm->rp->ino = ino;
	nlink = who->orphan ? 0 : who->type == DT_DIR ? 2 + who->subdirs : who->links;
	if (ino < PMFS_INO_FIRST || is_hidden(nm, ino))
		parent = ino;
	else if (who->type != DT_DIR || who->orphan)
		parent = in.parent;
	else
		parent = who->parent;
	if (in.nlink != nlink || in.parent != parent) {
		if (in.nlink != nlink)
			repair_say(nm->rp, false, "it had %u links, and has %u now", in.nlink,
				   nlink);
		if (in.parent != parent)
			repair_say(nm->rp, false,
				   "it was said to be in directory %" PRIu64 ", and is in %" PRIu64,
				   in.parent, parent);
		in.nlink = nlink;
		in.parent = parent;
		rc = store_record(nm, &in);
	}
	if (!rc)
		rc = attributes_mend(nm, &in);
	if (!rc && S_ISREG(in.mode))
		rc = end_mend(nm, &in);
	nm->used++;
	if (S_ISREG(in.mode))
		nm->data_pages += in.pages;
	inode_forget_it(&in);
	nm->rp->ino = 0;
	return rc;
}

/* Write one number of the list; the rest of its record stays. */
static int free_link(struct names *nm, uint64_t ino, uint64_t next)
{
	const pgno_t at = ino / PMFS_INODES_PER_PAGE;
	const size_t off = ino % PMFS_INODES_PER_PAGE * sizeof(struct pmfs_inode);
	struct volume *vol = nm->vol;
	struct pmfs_inode rec = {0}, want = {0};
	struct txn tx;
	vpn_t vpn;
	int rc;

	mutex_lock(&vol->lock);
	rc = ptab_get(nm->rp->st, &vol->inodes, at, &vpn);
	if (!rc && vpn)
		rc = page_read(nm->rp->st, vpn, off, &rec, sizeof(rec));
	mutex_unlock(&vol->lock);
	want.generation = rec.generation;
	le64_put(&want.parent, next);
	if (rc || (vpn && !memcmp(&rec, &want, sizeof(rec))))
		return rc;
	rc = txn_begin(nm->rp->st, &tx, FRAME_RECLAIM, ITABLE_COST);
	if (rc)
		return rc;
	mutex_lock(&vol->lock);
	rc = ptab_write(&tx, &vol->inodes, &itable_ops, at, off, &want, sizeof(want), NULL);
	if (!rc)
		rc = volume_store_row(&tx, vol);
	mutex_unlock(&vol->lock);
	txn_end(&tx);
	return rc;
}

static int row_store(struct names *nm)
{
	struct txn tx;
	int rc;

	rc = txn_begin(nm->rp->st, &tx, FRAME_RECLAIM, VOLUME_ROW_COST);
	if (rc)
		return rc;
	mutex_lock(&nm->vol->lock);
	rc = volume_store_row(&tx, nm->vol);
	mutex_unlock(&nm->vol->lock);
	txn_end(&tx);
	return rc;
}

/* Is the list of free inodes all of them, each once? */
static bool free_list_whole(struct names *nm)
{
	const struct volume *vol = nm->vol;
	uint64_t *seen = calloc(BITMAP_WORDS(nm->inos), sizeof(*seen));
	uint64_t want = 0, n = 0, ino = vol->free_ino;
	struct pmfs_inode rec;
	bool good = seen;
	vpn_t vpn;

	for (uint64_t i = PMFS_INO_FIRST; i < nm->inos; i++)
		want += !nm->who[i].type;
	while (good && ino) {
		good = ino >= PMFS_INO_FIRST && ino < nm->inos && !nm->who[ino].type &&
		       !bit_test(seen, ino) &&
		       !ptab_get(nm->rp->st, &vol->inodes, ino / PMFS_INODES_PER_PAGE, &vpn) &&
		       vpn &&
		       !page_read(nm->rp->st, vpn, ino % PMFS_INODES_PER_PAGE * sizeof(rec), &rec,
				  sizeof(rec));
		if (!good)
			break;
		bit_set(seen, ino);
		n++;
		ino = le64_get(rec.parent);
	}
	free(seen);
	return good && n == want;
}

static int free_list_mend(struct names *nm)
{
	uint64_t next = 0;
	int rc = 0;

	if (free_list_whole(nm))
		return 0;
	repair_say(nm->rp, false, "the list of free inodes was wrong, and is made anew");
	for (uint64_t ino = nm->inos - 1; ino >= PMFS_INO_FIRST && !rc; ino--) {
		if (nm->who[ino].type)
			continue;
		rc = free_link(nm, ino, next);
		next = ino;
	}
	if (rc)
		return rc;
	nm->vol->free_ino = next;
	return row_store(nm);
}

/* Before the first number is given out: which have been, and which are free. */
static int numbers_mend(struct names *nm)
{
	struct volume *vol = nm->vol;
	uint64_t most;
	int rc;

	nm->inos = PMFS_INO_FIRST;
	rc = each_record(nm, find_last);
	if (rc)
		return rc;
	/* A number that was used has or had its place in a page. */
	most = (nm->rp->expected + 1) * PMFS_INODES_PER_PAGE;
	if (vol->next_ino < nm->inos || vol->next_ino > most) {
		repair_say(nm->rp, false,
			   "the highest inode was said to be %" PRIu64 ", and is %" PRIu64,
			   vol->next_ino - 1, nm->inos - 1);
		vol->next_ino = nm->inos;
		rc = row_store(nm);
	}
	nm->inos = vol->next_ino;
	nm->who = calloc(nm->inos, sizeof(*nm->who));
	if (!nm->who)
		return -ENOMEM;
	if (!rc)
		rc = each_record(nm, note_type);
	if (!rc && nm->who[PMFS_INO_ROOT].type != DT_DIR)
		rc = dir_fresh(nm, PMFS_INO_ROOT, nm->rp->fs->root_mode);
	if (!rc && nm->who[PMFS_INO_ORPHANS].type != DT_DIR)
		rc = dir_fresh(nm, PMFS_INO_ORPHANS, 0700);
	nm->rp->ino = 0;
	/* What was in it goes to lost+found; the next view makes a new one. */
	if (!rc && atomic_load(&vol->hidden) &&
	    (atomic_load(&vol->hidden) >= nm->inos ||
	     nm->who[atomic_load(&vol->hidden)].type != DT_DIR)) {
		repair_say(nm->rp, false, "the directory of views was lost");
		atomic_store(&vol->hidden, 0);
		rc = row_store(nm);
	}
	/* Nobody takes numbers out of a snapshot's list; what is made in it now comes behind the
	 * last. */
	if (!rc && vol == nm->rp->fs->live)
		rc = free_list_mend(nm);
	else if (!rc)
		vol->free_ino = 0;
	return rc;
}

static int volume_numbers_mend(struct names *nm)
{
	struct volume *vol = nm->vol;

	if (vol->inodes_used == nm->used && vol->data_pages == nm->data_pages)
		return 0;
	if (vol->inodes_used != nm->used)
		repair_say(nm->rp, false, "it has %" PRIu64 " inodes and said %" PRIu64, nm->used,
			   vol->inodes_used);
	if (vol->data_pages != nm->data_pages)
		repair_say(nm->rp, false, "its files have %" PRIu64 " pages and it said %" PRIu64,
			   nm->data_pages, vol->data_pages);
	vol->inodes_used = nm->used;
	vol->data_pages = nm->data_pages;
	return row_store(nm);
}

int repair_names(struct repair *rp, struct volume *vol)
{
	struct names nm = {.rp = rp, .vol = vol};
	int rc;

	rp->vol = vol;
	rp->ino = 0;
	rc = numbers_mend(&nm);
	for (uint64_t ino = PMFS_INO_ROOT; ino < nm.inos && !rc; ino++)
		if (ino != PMFS_INO_ORPHANS && nm.who[ino].type == DT_DIR)
			rc = directory_mend(&nm, ino);
	if (!rc)
		rc = circles_cut(&nm);
	if (!rc)
		rc = directory_mend(&nm, PMFS_INO_ORPHANS);
	if (!rc)
		rc = names_give(&nm);
	nm.used = 0;
	for (uint64_t ino = PMFS_INO_ROOT; ino < nm.inos && !rc; ino++) {
		if (nm.who[ino].type)
			rc = inode_mend(&nm, ino);
		if (ino % 4096 == 0)
			repair_progress(rp, "names", (double)ino / (double)nm.inos);
	}
	if (!rc)
		rc = volume_numbers_mend(&nm);
	free(nm.who);
	return rc;
}
