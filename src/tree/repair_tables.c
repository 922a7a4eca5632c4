/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/hash.h"
#include "tree/itable.h"
#include "tree/repair.h"

#define ROLE_BAD      0x80u
#define RECOUNT_BATCH 256u

/* ------------------------------------------------------------------ pages and nodes */

static void lost(struct repair *rp, enum check_kind kind, uint32_t height, pgno_t at, vpn_t vpn,
		 const char *why)
{
	const unsigned shift = PMFS_PTAB_SHIFT * height + PMFS_PAGE_SHIFT;
	const uint64_t len = shift < 63 ? UINT64_C(1) << shift : UINT64_MAX;

	rp->cut = true;
	if (kind == CHECK_INODES)
		repair_say(rp, false,
			   "inodes %" PRIu64 " to %" PRIu64 " are lost: page %" PRIu64 " %s",
			   at * PMFS_INODES_PER_PAGE,
			   (at + (len >> PMFS_PAGE_SHIFT)) * PMFS_INODES_PER_PAGE - 1, vpn, why);
	else if (kind == CHECK_ROWS)
		repair_say(rp, false, "a part of the volume table is lost: page %" PRIu64 " %s",
			   vpn, why);
	else
		repair_say(rp, false,
			   "%s at byte %" PRIu64 ", up to %" PRIu64
			   " bytes, are lost: page %" PRIu64 " %s",
			   kind == CHECK_DIR	 ? "names"
			   : kind == CHECK_XATTR ? "attributes"
						 : "contents",
			   at << PMFS_PAGE_SHIFT, len, vpn, why);
}

static const char *reason(int rc)
{
	return rc == -EBADMSG	? "is damaged"
	       : rc == -EUCLEAN ? "does not exist"
				: "can't be read from the image";
}

/* Does a page exist, and match its hash? */
static int page_usable(struct repair *rp, vpn_t vpn)
{
	struct page_info info;
	struct read_section rs;
	const void *at;
	int rc;

	rc = page_info(rp->st, vpn, &info);
	if (rc)
		return rc;
	read_enter(rp->st, &rs);
	rc = page_get(rp->st, vpn, &at);
	read_leave(rp->st, &rs);
	return rc;
}

static int rewrite(struct repair *rp, vpn_t vpn, const void *contents)
{
	struct txn tx;
	int rc;

	rc = txn_begin(rp->st, &tx, FRAME_RECLAIM, 1);
	if (rc)
		return rc;
	rc = page_mend(&tx, vpn, contents);
	txn_end(&tx);
	return rc;
}

static int mend_records(struct repair *rp, vpn_t vpn, pgno_t at);

/* Count a pointer: 1: the page is met for the first time, 0: it was met before, -ESTALE: it can't
 * be what it is used for. */
static int meet(struct repair *rp, vpn_t vpn, enum check_kind kind, uint32_t height, pgno_t at)
{
	const uint8_t role = (uint8_t)(kind | height << 3);
	const char *why;
	uint8_t before;
	int rc;

	if (vpn >= rp->limit) {
		lost(rp, kind, height, at, vpn, "can't be: no page has such a number");
		return -ESTALE;
	}
	before = page_counts_role(&rp->seen, vpn);
	if (before == role && page_counts_get(&rp->seen, vpn) < PMFS_MAP_REFS_MAX)
		return page_counts_add(&rp->seen, vpn);
	if (before) {
		why = (before & ~ROLE_BAD) != role ? "is used for something else, too"
		      : before & ROLE_BAD	   ? "is damaged"
						   : "has as many pointers as can be";
		lost(rp, kind, height, at, vpn, why);
		return -ESTALE;
	}
	rc = page_usable(rp, vpn);
	if (rc == -ENOMEM)
		return rc;
	/* What does not exist is not remembered: an image could name such pages without end. */
	if (rc == -EUCLEAN) {
		lost(rp, kind, height, at, vpn, reason(rc));
		return -ESTALE;
	}
	if (page_counts_set_role(&rp->seen, vpn, role))
		return -ENOMEM;
	if (rc && kind == CHECK_DATA && !height && !rp->how->cut_data) {
		/* Zeros in its place would be taken for contents. */
		repair_say(rp, true,
			   "contents at byte %" PRIu64 ", %u bytes, can't be read: page %" PRIu64
			   " %s; write them anew, or let them be cut out",
			   at << PMFS_PAGE_SHIFT, PMFS_PAGE_SIZE, vpn, reason(rc));
		rp->cut = true;
		rc = 0;
	}
	if (rc) {
		lost(rp, kind, height, at, vpn, reason(rc));
		return page_counts_set_role(&rp->seen, vpn, role | ROLE_BAD) ? -ENOMEM : -ESTALE;
	}
	if (page_counts_add(&rp->seen, vpn))
		return -ENOMEM;
	if (++rp->met % 4096 == 0)
		repair_progress(rp, "tables", MIN((double)rp->met / (double)rp->expected, 1.0));
	return 1;
}

struct below {
	uint64_t pages;	 /* each pointer to one counts */
	uint64_t weight; /* pages and nodes that a walk would meet */
};

static void below_add(struct below *to, const struct below *more)
{
	to->pages += MIN(more->pages, UINT64_MAX - to->pages);
	to->weight += MIN(more->weight, UINT64_MAX - to->weight);
}

static int mend(struct repair *rp, vpn_t vpn, uint32_t height, enum check_kind kind, pgno_t at,
		struct below *sum, bool *keep)
{
	le64 entry[PMFS_PTAB_FANOUT];
	const uint64_t span = UINT64_C(1) << (PMFS_PTAB_SHIFT * (height ? height - 1 : 0));
	struct below below = {.weight = 1};
	bool changed = false;
	int rc;

	*keep = false;
	if (kind == CHECK_INODES && !height && at > rp->limit) {
		lost(rp, kind, height, at, vpn, "is for inodes that can't be");
		return 0;
	}
	rc = meet(rp, vpn, kind, height, at);
	if (rc == -ESTALE)
		return 0;
	if (rc < 0)
		return rc;
	*keep = true;
	if (!height) {
		below_add(sum, &(struct below){1, 1});
		return rc && kind == CHECK_INODES ? mend_records(rp, vpn, at) : 0;
	}
	if (!rc) {
		check_memo_get(&rp->memo, vpn, &below.pages, &below.weight);
		below_add(sum, &below);
		return 0;
	}
	rc = page_read(rp->st, vpn, 0, entry, sizeof(entry));
	for (size_t i = 0; i < PMFS_PTAB_FANOUT && !rc; i++) {
		bool keep_child;

		if (!le64_get(entry[i]))
			continue;
		rc = mend(rp, le64_get(entry[i]), height - 1, kind, at + i * span, &below,
			  &keep_child);
		if (!rc && !keep_child) {
			le64_put(&entry[i], VPN_NONE);
			changed = true;
		}
	}
	if (!rc && mem_is_zero(entry, sizeof(entry))) {
		/* No node is empty. */
		*keep = false;
		page_counts_zero(&rp->seen, vpn);
		return page_counts_set_role(
			&rp->seen, vpn, page_counts_role(&rp->seen, vpn) | ROLE_BAD);
	}
	if (!rc && changed)
		rc = rewrite(rp, vpn, entry);
	if (!rc)
		rc = check_memo_put(&rp->memo, vpn, below.pages, below.weight);
	below_add(sum, &below);
	return rc;
}

int repair_table(struct repair *rp, const struct ptab *pt, enum check_kind kind, uint64_t *pages,
		 bool *keep)
{
	struct below below = {0};
	int rc = 0;

	*keep = true;
	if (!ptab_valid(pt)) {
		rp->cut = true;
		repair_say(rp, false, "%s lost: the root of the table is impossible",
			   kind == CHECK_XATTR ? "all attributes are" : "all contents are");
		*keep = false;
	} else if (pt->root) {
		rc = mend(rp, pt->root, pt->height, kind, 0, &below, keep);
	}
	/* Only contents may be in a table twice: somebody who walks this one would not come to an
	 * end. */
	if (!rc && kind != CHECK_DATA && below.weight > rp->limit) {
		repair_say(rp, false, "its table goes in circles, and is taken away");
		rp->cut = true;
		rp->again = true; /* what was met in it is not met any more */
		*keep = false;
	}
	if (pages)
		*pages = below.pages;
	return rc;
}

/* ------------------------------------------------------------------ records */

static bool kind_known(uint32_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) ||
	       S_ISSOCK(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

static void time_mend(le32 *nsec)
{
	if (le32_get(*nsec) >= 1000000000u)
		le32_put(nsec, 0);
}

/* Make a record that contradicts itself into one that does not, keeping what it points at where
 * that can be. */
static void record_mend(struct repair *rp, struct pmfs_inode *rec)
{
	uint32_t mode = le32_get(rec->mode), flags = le32_get(rec->flags);
	uint64_t size = le64_get(rec->size);
	struct inode in;

	repair_say(rp, false,
		   "its record contradicts itself, and is put right as far as that can be");
	if (!kind_known(mode))
		mode = S_IFREG | 0600;
	mode &= S_IFMT | 07777u;
	flags &= PMFS_INODE_INLINE | PMFS_INODE_STALE;
	if ((flags & PMFS_INODE_INLINE) &&
	    (rec->data.vpn.raw || (!S_ISREG(mode) && !S_ISLNK(mode))))
		flags &= ~PMFS_INODE_INLINE;
	if (!S_ISREG(mode) || (flags & PMFS_INODE_INLINE))
		flags &= ~PMFS_INODE_STALE;
	if (flags & PMFS_INODE_INLINE) {
		size = MIN(size, PMFS_INLINE_MAX);
		memset(rec->inl + size, 0, PMFS_INLINE_MAX - size);
	} else {
		memset(rec->inl, 0, sizeof(rec->inl));
		if (S_ISREG(mode))
			size = MIN(size, PMFS_MAX_FILE_SIZE);
	}
	if (le32_get(rec->xattr_size) > PMFS_XATTR_TOTAL_MAX) {
		memset(&rec->xattr, 0, sizeof(rec->xattr));
		le32_put(&rec->xattr_size, 0);
	}
	time_mend(&rec->atime_nsec);
	time_mend(&rec->mtime_nsec);
	time_mend(&rec->ctime_nsec);
	time_mend(&rec->btime_nsec);
	le32_put(&rec->mode, mode);
	le32_put(&rec->flags, flags);
	le64_put(&rec->size, size);
	if (inode_decode(rec, &in)) {
		repair_say(rp, false, "its record can't be saved: the inode is gone");
		memset(rec, 0, sizeof(*rec));
	}
}

/* Of a volume that is being deleted only what its inodes point at is still asked for. */
static bool is_dying(const struct repair *rp)
{
	return atomic_load(&rp->vol->state) == PMFS_VOL_DYING;
}

static int record_tables(struct repair *rp, struct pmfs_inode *rec)
{
	const struct ptab data = ptab_decode(&rec->data), xattr = ptab_decode(&rec->xattr);
	const bool dir = S_ISDIR(le32_get(rec->mode)), regular = S_ISREG(le32_get(rec->mode));
	uint64_t pages = 0;
	bool keep;
	int rc;

	rc = repair_table(rp, &xattr, CHECK_XATTR, NULL, &keep);
	if (rc)
		return rc;
	/* What is left of a stream with a gap in it is none; names_repair() takes it away when it
	 * is no good. */
	if (!keep) {
		memset(&rec->xattr, 0, sizeof(rec->xattr));
		le32_put(&rec->xattr_size, 0);
	}
	rc = repair_table(rp, &data, dir ? CHECK_DIR : CHECK_DATA, &pages, &keep);
	if (rc)
		return rc;
	if (!keep) {
		memset(&rec->data, 0, sizeof(rec->data));
		/* A symlink of which nothing is left would be one to nowhere. */
		if (S_ISLNK(le32_get(rec->mode)))
			le64_put(&rec->size, 0);
	}
	if (!regular)
		pages = 0;
	if (le64_get(rec->pages) != pages && !is_dying(rp)) {
		if (!rp->cut)
			repair_say(rp, false, "it has %" PRIu64 " pages and said %" PRIu64, pages,
				   le64_get(rec->pages));
		le64_put(&rec->pages, pages);
	}
	return 0;
}

static int record_walk(struct repair *rp, uint64_t ino, struct pmfs_inode *rec)
{
	static const struct pmfs_inode none;
	struct inode in;
	le64 generation, next;
	int rc = 0;

	rp->ino = ino;
	rp->cut = false;
	if (!memcmp(rec, &none, sizeof(none)))
		goto out;
	if (!ino) {
		repair_say(rp, false, "no inode can have this number: it is gone");
		memset(rec, 0, sizeof(*rec));
		goto out;
	}
	if (!rec->mode.raw) {
		if (rec->data.vpn.raw || rec->xattr.vpn.raw) {
			repair_say(rp, false, "it is free and had contents");
			generation = rec->generation;
			next = rec->parent;
			memset(rec, 0, sizeof(*rec));
			rec->generation = generation;
			rec->parent = next;
		}
		goto out;
	}
	/* Impossible roots are dealt with as what they are. */
	{
		const struct ptab data = ptab_decode(&rec->data), xattr = ptab_decode(&rec->xattr);
		bool keep;

		if (!ptab_valid(&data)) {
			rc = repair_table(rp, &data, CHECK_DATA, NULL, &keep);
			memset(&rec->data, 0, sizeof(rec->data));
		}
		if (!rc && !ptab_valid(&xattr)) {
			rc = repair_table(rp, &xattr, CHECK_XATTR, NULL, &keep);
			memset(&rec->xattr, 0, sizeof(rec->xattr));
			le32_put(&rec->xattr_size, 0);
		}
	}
	if (!rc && !is_dying(rp) && inode_decode(rec, &in))
		record_mend(rp, rec);
	if (!rc && rec->mode.raw)
		rc = record_tables(rp, rec);
	if (rp->cut && rp->n_named < FS_REPAIR_INOS)
		rp->named[rp->n_named++] = ino;
out:
	rp->ino = 0;
	return rc;
}

static int mend_records(struct repair *rp, vpn_t vpn, pgno_t at)
{
	struct pmfs_inode rec[PMFS_INODES_PER_PAGE], before[PMFS_INODES_PER_PAGE];
	int rc;

	rc = page_read(rp->st, vpn, 0, rec, sizeof(rec));
	memcpy(before, rec, sizeof(before));
	for (size_t i = 0; i < PMFS_INODES_PER_PAGE && !rc; i++)
		rc = record_walk(rp, at * PMFS_INODES_PER_PAGE + i, &rec[i]);
	rp->cut = false;
	if (!rc && memcmp(rec, before, sizeof(rec)))
		rc = rewrite(rp, vpn, rec);
	return rc;
}

/* ------------------------------------------------------------------ volumes */

int repair_fresh_root(struct repair *rp, struct txn *tx, struct ptab *out)
{
	struct pmfs_inode rec[PMFS_INODES_PER_PAGE] = {0};
	struct inode in = {.mode = S_IFDIR | rp->fs->root_mode,
			   .uid = rp->fs->root_uid,
			   .gid = rp->fs->root_gid,
			   .nlink = 2,
			   .generation = 1};

	now(&in.btime);
	in.atime = in.mtime = in.ctime = in.btime;
	in.parent = PMFS_INO_ROOT;
	inode_encode(&in, &rec[PMFS_INO_ROOT]);
	in.parent = PMFS_INO_ORPHANS;
	in.mode = S_IFDIR | 0700;
	inode_encode(&in, &rec[PMFS_INO_ORPHANS]);
	out->height = 0;
	return page_new(tx, rec, &out->root);
}

/* The newest snapshot of which there is something. */
static struct volume *newest_whole(struct fs *fs)
{
	struct volume *best = NULL;

	for (struct volume *vol = fs->volumes; vol; vol = vol->next)
		if (atomic_load(&vol->state) == PMFS_VOL_SNAPSHOT && vol->inodes.root)
			best = vol;
	return best;
}

/* The inode file of a volume is gone. */
static int volume_lost(struct repair *rp, struct volume *vol)
{
	struct volume *from = vol == rp->fs->live ? newest_whole(rp->fs) : NULL;
	char name[300];
	struct txn tx;
	int rc;

	rc = txn_begin(rp->st, &tx, FRAME_RECLAIM, VOLUME_ROW_COST + 1);
	if (rc)
		return rc;
	mutex_lock(&vol->lock);
	if (vol != rp->fs->live) {
		repair_say(rp, false, "the whole volume is lost");
		vol->inodes = (struct ptab){0};
		rc = volume_store_as(&tx, vol, PMFS_VOL_DYING, "", "");
		volume_become(vol, PMFS_VOL_DYING, "", "");
		goto out;
	}
	if (from) {
		repair_say(rp, false, "the whole tree is lost, and begins again as %s",
			   repair_volume_name(from, name, sizeof(name)));
		vol->inodes = from->inodes;
		vol->next_ino = from->next_ino;
		vol->free_ino = from->free_ino;
		vol->inodes_used = from->inodes_used;
		vol->data_pages = from->data_pages;
		atomic_store(&vol->hidden, atomic_load(&from->hidden));
		rc = page_counts_add(&rp->seen, vol->inodes.root);
	} else {
		repair_say(rp, false, "the whole tree is lost, and begins again empty");
		rc = repair_fresh_root(rp, &tx, &vol->inodes);
		vol->next_ino = PMFS_INO_FIRST;
		vol->free_ino = 0;
		vol->inodes_used = PMFS_INO_FIRST - 1;
		vol->data_pages = 0;
		atomic_store(&vol->hidden, 0);
	}
	if (!rc)
		rc = volume_store_row(&tx, vol);
out:
	mutex_unlock(&vol->lock);
	txn_end(&tx);
	return rc;
}

static int volume_tables(struct repair *rp, struct volume *vol, bool *keep)
{
	rp->vol = vol;
	rp->ino = 0;
	return repair_table(rp, &vol->inodes, CHECK_INODES, NULL, keep);
}

/* ------------------------------------------------------------------ counts */

struct recount {
	struct repair *rp;
	struct {
		vpn_t vpn;
		uint64_t refs;
	} wrong[RECOUNT_BATCH];
	size_t n;
	uint64_t set, freed;
};

static int recount_flush(struct recount *rc)
{
	struct txn tx;
	int err;

	err = txn_begin(rc->rp->st, &tx, FRAME_RECLAIM, 0);
	for (size_t i = 0; i < rc->n && !err; i++)
		err = page_recount(&tx, rc->wrong[i].vpn, rc->wrong[i].refs);
	if (tx.st)
		txn_end(&tx);
	rc->n = 0;
	return err;
}

static int recount_page(void *arg, vpn_t vpn, const struct page_info *info)
{
	struct recount *rc = arg;
	const uint64_t met = page_counts_get(&rc->rp->seen, vpn);

	if (info->refs == met)
		return 0;
	if (met)
		rc->set++;
	else
		rc->freed++;
	rc->wrong[rc->n].vpn = vpn;
	rc->wrong[rc->n++].refs = met;
	return rc->n == RECOUNT_BATCH ? recount_flush(rc) : 0;
}

static int recount(struct repair *rp)
{
	struct recount rc = {.rp = rp};
	int err;

	err = store_each_page(rp->st, 0, rp->limit, recount_page, &rc);
	if (!err && rc.n)
		err = recount_flush(&rc);
	rp->vol = NULL;
	rp->ino = 0;
	if (rc.set)
		repair_say(rp, false, "%" PRIu64 " pages had a wrong number of pointers", rc.set);
	if (rc.freed)
		repair_say(rp, false,
			   "%" PRIu64
			   " pages were in use and nothing pointed at them: they are free",
			   rc.freed);
	return err;
}

static int tables_once(struct repair *rp)
{
	struct fs *fs = rp->fs;
	bool keep, live = true;
	int rc;

	repair_reset(rp);
	rp->vol = NULL;
	rc = repair_table(rp, &fs->table, CHECK_ROWS, NULL, &keep);
	if (!rc && !keep)
		rc = -EUCLEAN;
	if (!rc)
		rc = volume_tables(rp, fs->live, &live);
	for (struct volume *vol = fs->volumes; vol && !rc; vol = vol->next) {
		if (vol == fs->live)
			continue;
		rc = volume_tables(rp, vol, &keep);
		if (!rc && !keep)
			rc = volume_lost(rp, vol);
	}
	/* If the live volume is lost, a snapshot that is not takes its place. */
	rp->vol = fs->live;
	rp->ino = 0;
	if (!rc && !live)
		rc = volume_lost(rp, fs->live);
	return rc;
}

int repair_tables(struct repair *rp)
{
	int rc;

	/* There is an end to this: each time a table fewer goes in circles. */
	do {
		rp->again = false;
		rc = tables_once(rp);
	} while (!rc && rp->again);
	return rc ? rc : recount(rp);
}
