/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/ptab.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/lock.h"

#define FANOUT PMFS_PTAB_FANOUT
#define LEVELS PMFS_PTAB_MAX_HEIGHT

struct node {
	le64 at[FANOUT];
};
static_assert(sizeof(struct node) == PMFS_PAGE_SIZE, "a node is a page");

/* Pages below an entry of a node of this level. */
static uint64_t span(unsigned level)
{
	return UINT64_C(1) << (PMFS_PTAB_SHIFT * level);
}

static unsigned slot(pgno_t pgno, unsigned level)
{
	return (unsigned)(pgno >> (PMFS_PTAB_SHIFT * (level - 1))) & (FANOUT - 1);
}

/* ------------------------------------------------------------------ the last owner */

/*
 * "Shared, so I only drop my pointer" and "shared, so I copy it, and drop my pointer" may meet
 * from two trees that have one page in common, and then nobody would drop what the page points
 * at.  So looking at the count of a page with pointers in it and acting on it is one step.
 * A count of 1 needs no lock: nobody else can get at that page.
 */
#define SHARE_LOCKS 64u
static struct mutex share_locks[SHARE_LOCKS];
static pthread_once_t share_once = PTHREAD_ONCE_INIT;

static void share_init(void)
{
	for (unsigned i = 0; i < SHARE_LOCKS; i++)
		mutex_init(&share_locks[i], LOCK_SHARE);
}

static struct mutex *share_lock(vpn_t vpn)
{
	struct mutex *m = &share_locks[vpn % SHARE_LOCKS];

	pthread_once(&share_once, share_init);
	mutex_lock(m);
	return m;
}

static int live_refs(struct store *st, vpn_t vpn, uint64_t *refs)
{
	int rc = page_refs(st, vpn, refs);

	if (!rc && !*refs)
		return -EUCLEAN;
	return rc;
}

int ptab_unref_shared(struct txn *tx, vpn_t vpn)
{
	struct mutex *m;
	uint64_t refs;
	int rc;

	rc = live_refs(tx->st, vpn, &refs);
	if (rc || refs == 1)
		return rc;
	m = share_lock(vpn);
	rc = live_refs(tx->st, vpn, &refs);
	if (!rc && refs > 1) {
		rc = page_unref(tx, vpn, NULL);
		if (!rc)
			rc = 1;
	}
	mutex_unlock(m);
	return rc;
}

/* A page of contents has been replaced by what was written. */
static int let_go_written(struct txn *tx, vpn_t vpn)
{
	uint64_t left;
	int rc;

	rc = page_unref(tx, vpn, &left);
	return rc || !left ? rc : page_unkeep(tx, vpn);
}

static void unref_children(struct txn *tx, const struct node *nd, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (nd->at[i].raw)
			page_unref(tx, le64_get(nd->at[i]), NULL);
}

/* A node like `from`, with pointers of its own to all children. */
static int copy_node(struct txn *tx, vpn_t from, vpn_t *out)
{
	struct node nd;
	unsigned i;
	int rc;

	rc = page_read(tx->st, from, 0, &nd, sizeof(nd));
	if (rc)
		return rc;
	for (i = 0; i < FANOUT; i++) {
		if (!nd.at[i].raw)
			continue;
		rc = page_ref(tx, le64_get(nd.at[i]));
		if (rc)
			goto undo;
	}
	rc = page_new(tx, &nd, out);
	if (!rc)
		return 0;
undo:
	unref_children(tx, &nd, i);
	return rc;
}

static int copy_leaf(struct txn *tx, const struct ptab_ops *ops, vpn_t from, vpn_t *out)
{
	vpn_t vpn;
	int rc;

	rc = page_copy(tx, from, &vpn);
	if (rc)
		return rc;
	if (ops) {
		rc = ops->copied(tx, vpn, ops->arg);
		if (rc) {
			page_unref(tx, vpn, NULL);
			return rc;
		}
	}
	*out = vpn;
	return 0;
}

/*
 * T1 for one page: *vpn is the caller's own afterwards.  When it has changed, the caller writes
 * it to where it came from.
 */
static int make_own(struct txn *tx, const struct ptab_ops *ops, bool is_node, vpn_t *vpn)
{
	struct mutex *m;
	uint64_t refs;
	vpn_t copy;
	int rc;

	rc = live_refs(tx->st, *vpn, &refs);
	if (rc || refs == 1)
		return rc;
	m = share_lock(*vpn);
	rc = live_refs(tx->st, *vpn, &refs);
	if (!rc && refs > 1) {
		rc = is_node ? copy_node(tx, *vpn, &copy) : copy_leaf(tx, ops, *vpn, &copy);
		if (!rc) {
			rc = is_node || ops ? page_unref(tx, *vpn, NULL) : let_go_written(tx, *vpn);
			*vpn = copy;
		}
	}
	mutex_unlock(m);
	return rc;
}

/* Let go of a page of contents. */
static int drop_leaf(struct txn *tx, const struct ptab_ops *ops, vpn_t vpn)
{
	int rc;

	if (!ops)
		return page_unref(tx, vpn, NULL);
	rc = ptab_unref_shared(tx, vpn);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = ops->dropped(tx, vpn, ops->arg);
	if (rc)
		return rc;
	return page_unref(tx, vpn, NULL);
}

/* ------------------------------------------------------------------ roots */

struct ptab ptab_decode(const struct pmfs_ptab_root *from)
{
	return (struct ptab){ le64_get(from->vpn), le32_get(from->height) };
}

void ptab_encode(const struct ptab *from, struct pmfs_ptab_root *to)
{
	le64_put(&to->vpn, from->root);
	le32_put(&to->height, from->height);
	le32_put(&to->reserved, 0);
}

bool ptab_valid(const struct ptab *pt)
{
	return pt->root ? pt->height <= LEVELS : pt->height == 0;
}

uint64_t ptab_cost(uint64_t pages)
{
	uint64_t cost = pages + LEVELS - 1; /* the old root's way up when the table grows */
	uint64_t n = pages;

	for (unsigned level = 1; level <= LEVELS; level++) {
		n = (n + FANOUT - 2) / FANOUT + 1; /* nodes that n neighbours can be in */
		cost += n;
	}
	return cost;
}

/* ------------------------------------------------------------------ finding */

int ptab_get_run(struct store *st, const struct ptab *pt, pgno_t pgno, uint64_t n, vpn_t *out)
{
	bool holes = false;

	while (n) {
		const unsigned first = (unsigned)pgno & (FANOUT - 1);
		const uint64_t step = MIN(n, FANOUT - first);
		vpn_t vpn = pt->root;
		const void *data;
		int rc;

		if (pt->height > LEVELS)
			return -EUCLEAN;
		if (pgno >= span(pt->height))
			vpn = VPN_NONE;
		for (unsigned level = pt->height; level > 1 && vpn; level--) {
			rc = page_get(st, vpn, &data);
			if (rc)
				return rc;
			vpn = le64_get(((const struct node *)data)->at[slot(pgno, level)]);
		}
		if (!vpn || !pt->height) {
			memset(out, 0, step * sizeof(*out));
			if (vpn)
				out[0] = vpn;
		} else {
			rc = page_get(st, vpn, &data);
			if (rc)
				return rc;
			for (unsigned i = 0; i < step; i++)
				out[i] = le64_get(((const struct node *)data)->at[first + i]);
		}
		for (unsigned i = 0; i < step && !holes; i++)
			holes = !out[i];
		pgno += step;
		out += step;
		n -= step;
	}
	/* A node that the host failed to give reads as zeros and poisons the store: not to be taken for holes. */
	return holes ? store_error(st) : 0;
}

int ptab_get(struct store *st, const struct ptab *pt, pgno_t pgno, vpn_t *out)
{
	return ptab_get_run(st, pt, pgno, 1, out);
}

/* pgno counts from the start of the subtree.  0: found; 1: not in it. */
static int seek(struct store *st, vpn_t vpn, unsigned level, pgno_t pgno, bool data, pgno_t *out)
{
	struct node nd;
	int rc;

	if (!vpn || !level) {
		if (!vpn == data)
			return 1;
		*out = pgno;
		return 0;
	}
	rc = page_read(st, vpn, 0, &nd, sizeof(nd));
	if (rc)
		return rc;
	for (unsigned i = slot(pgno, level); i < FANOUT; i++) {
		const pgno_t base = i * span(level - 1);

		rc = seek(st, le64_get(nd.at[i]), level - 1, MAX(pgno, base) - base, data, out);
		if (rc < 0)
			return rc;
		if (!rc) {
			*out += base;
			return 0;
		}
	}
	return 1;
}

int ptab_seek(struct store *st, const struct ptab *pt, pgno_t pgno, bool data, pgno_t *out)
{
	int rc = 1;

	if (pt->height > LEVELS)
		return -EUCLEAN;
	if (pt->root && pgno < span(pt->height))
		rc = seek(st, pt->root, pt->height, pgno, data, out);
	if (rc <= 0)
		return rc;
	if (data)
		*out = PGNO_END;
	else
		*out = pt->root ? MAX(pgno, span(pt->height)) : pgno;
	return 0;
}

static int count(struct store *st, vpn_t vpn, unsigned level, uint64_t *pages)
{
	struct node nd;
	int rc;

	if (!vpn)
		return 0;
	if (!level) {
		++*pages;
		return 0;
	}
	rc = page_read(st, vpn, 0, &nd, sizeof(nd));
	for (unsigned i = 0; !rc && i < FANOUT; i++)
		rc = count(st, le64_get(nd.at[i]), level - 1, pages);
	return rc;
}

int ptab_count(struct store *st, const struct ptab *pt, uint64_t *pages)
{
	uint64_t n = 0;
	int rc;

	if (pt->height > LEVELS)
		return -EUCLEAN;
	rc = count(st, pt->root, pt->height, &n);
	if (!rc)
		*pages = n;
	return rc;
}

/* ------------------------------------------------------------------ changing */

/* A pointer to a page: in the root (node is VPN_NONE) or in a node that is the tree's own. */
static int put(struct txn *tx, struct ptab *pt, vpn_t node, unsigned at, vpn_t vpn)
{
	const le64 v = le64_make(vpn);

	if (!node) {
		pt->root = vpn;
		return 0;
	}
	return page_write(tx, node, at * sizeof(v), &v, sizeof(v));
}

/* Make the table high enough for pgno.  An empty one only gets its height. */
static int grow(struct txn *tx, struct ptab *pt, pgno_t pgno)
{
	unsigned need = 0;

	if (pt->height > LEVELS)
		return -EUCLEAN;
	while (pgno >= span(need))
		if (++need > LEVELS)
			return -EFBIG;
	if (!pt->root && pt->height < need)
		pt->height = need;
	while (pt->height < need) {
		struct node nd = { 0 };
		vpn_t vpn;
		int rc;

		le64_put(&nd.at[0], pt->root);
		rc = page_new(tx, &nd, &vpn);
		if (rc)
			return rc;
		pt->root = vpn;
		pt->height++;
	}
	return 0;
}

/*
 * T1 down to the node that names what stands for pgno on this level (0: the page), nodes made where
 * there are none.  The table is high enough.  *node is VPN_NONE when that is the root itself.
 */
static int own_path(struct txn *tx, struct ptab *pt, pgno_t pgno, unsigned stop, vpn_t *node)
{
	vpn_t parent = VPN_NONE;
	vpn_t vpn = pt->root;
	unsigned at = 0;

	for (unsigned level = pt->height; level > stop; level--) {
		const vpn_t old = vpn;
		le64 next;
		int rc;

		rc = vpn ? make_own(tx, NULL, true, &vpn) : page_new(tx, NULL, &vpn);
		if (!rc && vpn != old)
			rc = put(tx, pt, parent, at, vpn);
		if (rc)
			return rc;
		parent = vpn;
		at = slot(pgno, level);
		if (level > stop + 1) {
			rc = page_read(tx->st, vpn, at * sizeof(next), &next, sizeof(next));
			if (rc)
				return rc;
			vpn = le64_get(next);
		}
	}
	*node = parent;
	return 0;
}

/* What the n entries from pgno on, all in this node, point at. */
static int entries(struct store *st, const struct ptab *pt, vpn_t node, pgno_t pgno, uint64_t n,
		   le64 *out)
{
	if (!node) {
		*out = le64_make(pt->root);
		return 0;
	}
	return page_read(st, node, slot(pgno, 1) * sizeof(*out), out, n * sizeof(*out));
}

static int put_entries(struct txn *tx, struct ptab *pt, vpn_t node, pgno_t pgno, uint64_t n,
		       const le64 *in)
{
	if (!node) {
		pt->root = le64_get(*in);
		return 0;
	}
	return page_write(tx, node, slot(pgno, 1) * sizeof(*in), in, n * sizeof(*in));
}

/* grow() and own_path() for the page at pgno, and what is there now. */
static int prepare(struct txn *tx, struct ptab *pt, pgno_t pgno, vpn_t *node, vpn_t *vpn)
{
	le64 e;
	int rc;

	rc = grow(tx, pt, pgno);
	if (!rc)
		rc = own_path(tx, pt, pgno, 0, node);
	if (!rc)
		rc = entries(tx->st, pt, *node, pgno, 1, &e);
	if (!rc)
		*vpn = le64_get(e);
	return rc;
}

/* A step that failed in an empty table must not leave a height without a root. */
static int done(struct ptab *pt, int rc)
{
	if (!pt->root)
		pt->height = 0;
	return rc;
}

int ptab_own(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t pgno, vpn_t *out,
	     bool *added)
{
	vpn_t node, vpn, old;
	int rc;

	rc = prepare(tx, pt, pgno, &node, &vpn);
	if (rc)
		return done(pt, rc);
	old = vpn;
	rc = vpn ? make_own(tx, ops, false, &vpn) : page_new(tx, NULL, &vpn);
	if (!rc && vpn != old)
		rc = put(tx, pt, node, slot(pgno, 1), vpn);
	if (rc)
		return done(pt, rc);
	*out = vpn;
	if (added)
		*added = !old;
	return 0;
}

int ptab_write(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t pgno, size_t off,
	       const void *buf, size_t len, bool *added)
{
	uint8_t page[PMFS_PAGE_SIZE];
	vpn_t node, old, vpn;
	uint64_t refs;
	int rc;

	if (!range_fits(off, len, PMFS_PAGE_SIZE))
		return -EINVAL;
	if (ops) {
		rc = ptab_own(tx, pt, ops, pgno, &vpn, added);
		return rc ? rc : page_write(tx, vpn, off, buf, len);
	}
	rc = prepare(tx, pt, pgno, &node, &old);
	if (rc)
		return done(pt, rc);
	if (old) {
		rc = live_refs(tx->st, old, &refs);
		if (rc)
			return rc;
		if (refs == 1) {
			rc = page_write(tx, old, off, buf, len);
			if (!rc && added)
				*added = false;
			return rc;
		}
	}
	if (len < PMFS_PAGE_SIZE) {
		if (old) {
			rc = page_read(tx->st, old, 0, page, sizeof(page));
			if (rc)
				return rc;
		} else {
			memset(page, 0, sizeof(page));
		}
		memcpy(page + off, buf, len);
		buf = page;
	}
	rc = page_new(tx, buf, &vpn);
	if (!rc)
		rc = put(tx, pt, node, slot(pgno, 1), vpn);
	if (rc)
		return done(pt, rc);
	if (added)
		*added = !old;
	return old ? let_go_written(tx, old) : 0;
}

/* Is the page of this entry the tree's own, to be written where it is?  1, 0, an error. */
static int is_own(struct txn *tx, le64 entry)
{
	uint64_t refs = 0;
	int rc;

	if (!le64_get(entry))
		return 0;
	rc = live_refs(tx->st, le64_get(entry), &refs);
	return rc ? rc : refs == 1;
}

/* Whole pages in one node.  *written counts what is done also when it fails. */
static int write_node(struct txn *tx, struct ptab *pt, vpn_t node, pgno_t pgno, uint64_t n,
		      const uint8_t *buf, uint64_t *written, uint64_t *added)
{
	le64 e[FANOUT];
	vpn_t gone[FANOUT], made[FANOUT];
	uint64_t ngone = 0, changed = 0, at = 0, fresh = 0;
	int rc, own = 0, err;

	rc = entries(tx->st, pt, node, pgno, n, e);
	if (rc)
		return rc;
	while (!rc && at < n) {
		uint64_t run = 0, done_pages = 0;

		/* Pages that get a new frame go together: they are neighbours there, too. */
		while (at + run < n && (own = is_own(tx, e[at + run])) == 0)
			run++;
		if (!run) {
			rc = own < 0 ? own : page_write(tx, le64_get(e[at]), 0, buf + at * PMFS_PAGE_SIZE,
							PMFS_PAGE_SIZE);
			at += !rc;
			continue;
		}
		rc = page_new_run(tx, buf + at * PMFS_PAGE_SIZE, run, made, &done_pages);
		for (uint64_t i = 0; i < done_pages; i++, at++) {
			if (le64_get(e[at]))
				gone[ngone++] = le64_get(e[at]);
			else
				fresh++;
			le64_put(&e[at], made[i]);
			changed = at + 1;
		}
	}
	if (changed) {
		err = put_entries(tx, pt, node, pgno, changed, e);
		if (err)
			return err;
	}
	for (uint64_t i = 0; i < ngone; i++) {
		err = let_go_written(tx, gone[i]);
		if (err && !rc)
			rc = err;
	}
	*written += at;
	*added += fresh;
	return rc;
}

int ptab_write_pages(struct txn *tx, struct ptab *pt, pgno_t pgno, uint64_t n, const void *buf,
		     uint64_t *written, uint64_t *added)
{
	const uint8_t *from = buf;
	int rc = 0;

	*written = *added = 0;
	if (n)
		rc = grow(tx, pt, pgno + n - 1);
	while (!rc && *written < n) {
		const pgno_t at = pgno + *written;
		const uint64_t step = MIN(n - *written, FANOUT - ((unsigned)at & (FANOUT - 1)));
		vpn_t node;

		rc = own_path(tx, pt, at, 0, &node);
		if (!rc)
			rc = write_node(tx, pt, node, at, step, from + *written * PMFS_PAGE_SIZE,
					written, added);
	}
	return done(pt, rc);
}

int ptab_set_run(struct txn *tx, struct ptab *pt, pgno_t pgno, uint64_t n, const vpn_t *vpns,
		 uint64_t *had)
{
	const uint64_t step = MIN(n, FANOUT - ((unsigned)pgno & (FANOUT - 1)));
	le64 e[FANOUT], old[FANOUT];
	uint64_t were = 0;
	vpn_t node;
	int rc;

	rc = grow(tx, pt, pgno + step - 1);
	if (!rc)
		rc = own_path(tx, pt, pgno, 0, &node);
	if (!rc)
		rc = entries(tx->st, pt, node, pgno, step, old);
	if (rc)
		return done(pt, rc);
	for (uint64_t i = 0; i < step; i++)
		le64_put(&e[i], vpns[i]);
	rc = put_entries(tx, pt, node, pgno, step, e);
	if (rc)
		return done(pt, rc);
	/* From here on the pages are the table's, whatever becomes of the old ones. */
	for (uint64_t i = 0; i < step; i++) {
		if (old[i].raw) {
			were++;
			page_unref(tx, le64_get(old[i]), NULL);
		}
	}
	*had = were;
	return (int)step;
}

int ptab_set(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t pgno, vpn_t vpn,
	     bool *had)
{
	uint64_t freed;
	vpn_t node, old;
	int rc;

	if (!vpn) {
		rc = ptab_punch(tx, pt, ops, pgno, pgno + 1, UINT64_MAX, &freed);
		if (!rc && had)
			*had = freed != 0;
		return rc;
	}
	rc = prepare(tx, pt, pgno, &node, &old);
	if (!rc)
		rc = put(tx, pt, node, slot(pgno, 1), vpn);
	if (rc)
		return done(pt, rc);
	if (had)
		*had = old != VPN_NONE;
	return old ? drop_leaf(tx, ops, old) : 0;
}

/* ------------------------------------------------------------------ sharing nodes */

/* The n nodes of level 1 that begin at pgno, as far as there are any in a row: how many, an error. */
static int nodes_at(struct store *st, const struct ptab *pt, pgno_t pgno, uint64_t n, le64 *out)
{
	const unsigned first = slot(pgno, 2);
	vpn_t vpn = pt->root;
	uint64_t run = 0;
	const struct node *nd;
	const void *data;
	int rc;

	if (pt->height > LEVELS)
		return -EUCLEAN;
	if (!pt->height || pgno >= span(pt->height))
		return 0;
	for (unsigned level = pt->height; level > 2 && vpn; level--) {
		rc = page_get(st, vpn, &data);
		if (rc)
			return rc;
		nd = data;
		vpn = le64_get(nd->at[slot(pgno, level)]);
	}
	if (!vpn)
		return 0;
	if (pt->height == 1) {
		*out = le64_make(vpn);
		return 1;
	}
	rc = page_get(st, vpn, &data);
	if (rc)
		return rc;
	nd = data;
	for (n = MIN(n, FANOUT - first); run < n && nd->at[first + run].raw; run++)
		out[run] = nd->at[first + run];
	return (int)run;
}

static int count_entries(struct store *st, const le64 *node, uint64_t n, uint64_t *pages)
{
	*pages = 0;
	for (uint64_t i = 0; i < n; i++) {
		const struct node *nd;
		const void *data;
		int rc = page_get(st, le64_get(node[i]), &data);

		if (rc)
			return rc;
		nd = data;
		for (unsigned k = 0; k < FANOUT; k++)
			*pages += nd->at[k].raw != 0;
	}
	return store_error(st);
}

/* Point at these nodes, whose pointers are there for it. */
static int put_nodes(struct txn *tx, struct ptab *pt, pgno_t to, uint64_t n, const le64 *e)
{
	vpn_t node;
	int rc;

	rc = grow(tx, pt, to + n * FANOUT - 1);
	if (!rc)
		rc = own_path(tx, pt, to, 1, &node);
	if (rc)
		return rc;
	if (!node) {
		pt->root = le64_get(*e);
		return 0;
	}
	return page_write(tx, node, slot(to, 2) * sizeof(*e), e, n * sizeof(*e));
}

int ptab_has_node(struct store *st, const struct ptab *pt, pgno_t pgno)
{
	struct read_section rs;
	le64 e;
	int rc;

	read_enter(st, &rs);
	rc = nodes_at(st, pt, pgno, 1, &e);
	read_leave(st, &rs);
	return rc;
}

int ptab_share(struct txn *tx, const struct ptab *src, pgno_t from, struct ptab *dst, pgno_t to,
	       uint64_t n, uint64_t *pages)
{
	struct read_section rs;
	uint64_t reffed = 0;
	le64 e[FANOUT];
	int rc, found;

	read_enter(tx->st, &rs);
	found = nodes_at(tx->st, src, from, MIN(n, FANOUT - slot(to, 2)), e);
	rc = found < 0 ? found : count_entries(tx->st, e, (uint64_t)found, pages);
	read_leave(tx->st, &rs);
	if (rc || !found)
		return rc;
	n = (uint64_t)found;
	while (reffed < n && !rc) {
		rc = page_ref(tx, le64_get(e[reffed]));
		reffed += !rc;
	}
	if (!rc)
		rc = put_nodes(tx, dst, to, n, e);
	if (!rc)
		return found;
	for (uint64_t i = 0; i < reffed; i++)
		page_unref(tx, le64_get(e[i]), NULL);
	return done(dst, rc);
}

/* ------------------------------------------------------------------ letting go */

struct punch {
	struct txn *tx;
	const struct ptab_ops *ops;
	uint64_t budget;
	uint64_t *freed; /* NULL: nobody wants to know */
};

static void spend(struct punch *p)
{
	if (p->budget)
		p->budget--;
}

/* A whole subtree of which this is not the only owner. 1: gone; 0: it is the only owner. */
static int punch_shared(struct punch *p, vpn_t vpn, unsigned level)
{
	uint64_t refs, pages = 0;
	int rc;

	rc = live_refs(p->tx->st, vpn, &refs);
	if (rc || refs == 1)
		return rc;
	/* The pointer that is dropped below keeps the subtree as it is until then. */
	if (p->freed) {
		rc = count(p->tx->st, vpn, level, &pages);
		if (rc)
			return rc;
	}
	rc = ptab_unref_shared(p->tx, vpn);
	if (rc == 1) {
		if (p->freed)
			*p->freed += pages;
		spend(p);
	}
	return rc;
}

static bool node_empty(const struct node *nd)
{
	for (unsigned i = 0; i < FANOUT; i++)
		if (nd->at[i].raw)
			return false;
	return true;
}

/*
 * [from, to) counts from the start of the subtree at *vpn; to may be behind its end.  *vpn changes
 * when it was copied, and is VPN_NONE when nothing is left.  0, 1: out of budget, error; all of
 * them leave a tree.
 */
static int punch(struct punch *p, vpn_t *vpn, unsigned level, pgno_t from, pgno_t to)
{
	const bool whole = from == 0 && to >= span(level);
	struct node nd;
	unsigned first, last, lo = FANOUT, hi = 0;
	uint64_t sub;
	int rc, err;

	if (whole && (level || p->ops)) {
		rc = punch_shared(p, *vpn, level);
		if (rc < 0)
			return rc;
		if (rc) {
			*vpn = VPN_NONE;
			return 0;
		}
	}
	if (!level) {
		rc = drop_leaf(p->tx, p->ops, *vpn);
		if (rc)
			return rc;
		*vpn = VPN_NONE;
		if (p->freed)
			++*p->freed;
		spend(p);
		return 0;
	}
	if (!whole) {
		rc = make_own(p->tx, NULL, true, vpn);
		if (rc)
			return rc;
	}
	rc = page_read(p->tx->st, *vpn, 0, &nd, sizeof(nd));
	if (rc)
		return rc;
	sub = span(level - 1);
	first = (unsigned)(from / sub);
	last = (unsigned)((MIN(to, span(level)) - 1) / sub);
	for (unsigned i = last + 1; !rc && i-- > first;) {
		const pgno_t base = i * sub;
		vpn_t child = le64_get(nd.at[i]);

		if (!child)
			continue;
		if (!p->budget) {
			rc = 1;
			break;
		}
		rc = punch(p, &child, level - 1, MAX(from, base) - base, to - base);
		if (child != le64_get(nd.at[i])) {
			le64_put(&nd.at[i], child);
			lo = MIN(lo, i);
			hi = MAX(hi, i + 1);
		}
	}
	if (node_empty(&nd)) {
		err = page_unref(p->tx, *vpn, NULL);
		if (err)
			return err;
		*vpn = VPN_NONE;
		spend(p);
	} else if (lo < hi) {
		err = page_write(p->tx, *vpn, lo * sizeof(nd.at[0]), &nd.at[lo],
				 (hi - lo) * sizeof(nd.at[0]));
		if (err)
			return err;
	}
	return rc;
}

/* Is there anything in [from, to)?  Keeps punch() from copying shared nodes for nothing. */
static int any(struct store *st, const struct ptab *pt, pgno_t from, pgno_t to)
{
	pgno_t at;
	int rc;

	rc = ptab_seek(st, pt, from, true, &at);
	return rc ? rc : at < to;
}

int ptab_punch(struct txn *tx, struct ptab *pt, const struct ptab_ops *ops, pgno_t from, pgno_t to,
	       uint64_t budget, uint64_t *freed)
{
	struct punch p = { tx, ops, budget, freed };
	vpn_t root = pt->root;
	int rc;

	if (freed)
		*freed = 0;
	if (pt->height > LEVELS)
		return -EUCLEAN;
	if (!root || from >= to || from >= span(pt->height))
		return 0;
	if (from || to < span(pt->height)) {
		rc = any(tx->st, pt, from, to);
		if (rc <= 0)
			return rc;
	}
	if (!budget)
		return 1;
	rc = punch(&p, &root, pt->height, from, to);
	pt->root = root;
	return done(pt, rc);
}
