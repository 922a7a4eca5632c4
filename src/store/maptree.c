/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/maptree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/hash.h"
#include "base/log.h"

/* An inner node as it is in memory.  Guarded by LOCK_MAP. */
struct map_node {
	pfn_t pfn[PMFS_MAP_FANOUT];
	uint64_t checksum[PMFS_MAP_FANOUT];
	struct map_node *child[PMFS_MAP_FANOUT]; /* NULL: a leaf, absent, or not read yet */
};

static unsigned int level_shift(uint32_t level)
{
	return PMFS_MAP_SHIFT * level;
}

/* How many nodes a level of this tree can have. */
static uint64_t level_span(const struct maptree *mt, uint32_t level)
{
	return UINT64_C(1) << level_shift(mt->height - 1 - level);
}

void maptree_init(struct maptree *mt, struct region *rg, struct mutex *lock)
{
	memset(mt, 0, sizeof(*mt));
	mt->rg = rg;
	mt->lock = lock;
}

static void node_free(struct map_node *node)
{
	if (!node)
		return;
	for (unsigned int i = 0; i < PMFS_MAP_FANOUT; i++)
		node_free(node->child[i]);
	free(node);
}

void maptree_destroy(struct maptree *mt)
{
	node_free(mt->top);
	mt->top = NULL;
}

uint64_t maptree_bound(uint64_t vpn_limit)
{
	uint64_t n = DIV_ROUND_UP(vpn_limit, PMFS_MAP_FANOUT);
	uint64_t sum = n;

	while (n > 1) {
		n = DIV_ROUND_UP(n, PMFS_MAP_FANOUT);
		sum += n;
	}
	return sum;
}

static bool pfn_in_range(const struct maptree *mt, pfn_t pfn)
{
	return pfn >= PMFS_FIRST_FRAME && pfn < region_frames(mt->rg);
}

/* M2, first half: the bytes of a node, checked. */
static int node_read(const struct maptree *mt, uint32_t level, uint64_t index, pfn_t pfn,
		     uint64_t checksum, void *out)
{
	int rc;

	if (!pfn_in_range(mt, pfn))
		return -EUCLEAN;
	rc = region_copy_out(mt->rg, pfn, 0, out, PMFS_PAGE_SIZE);
	if (rc)
		return rc;
	if (hash64(out, PMFS_PAGE_SIZE) != checksum) {
		log_limited(LOG_LEVEL_ERR, "maptree.checksum",
			    "page map: node %u/%llu in frame %llu does not match its checksum",
			    level, (unsigned long long)index, (unsigned long long)pfn);
		return -EBADMSG;
	}
	return 0;
}

static bool is_damage(int rc)
{
	return rc == -EBADMSG || rc == -EUCLEAN || rc == -EIO;
}

static const char *damage_name(int rc)
{
	return rc == -EBADMSG ? "does not match its checksum" :
	       rc == -EUCLEAN ? "names frames that can't be" :
				"can't be read from the image";
}

/* Salvage: parent (NULL: the tree itself) has no such child any more. */
static void forget_node(struct maptree *mt, struct map_node *parent, uint32_t level, uint64_t index, int rc)
{
	char why[100];

	if (parent) {
		parent->pfn[index % PMFS_MAP_FANOUT] = PFN_NONE;
		parent->checksum[index % PMFS_MAP_FANOUT] = 0;
	} else {
		mt->root = PFN_NONE;
		mt->checksum = 0;
		mt->height = 0;
	}
	snprintf(why, sizeof(why), "a node of the page map %s", damage_name(rc));
	if (mt->lost)
		mt->lost(mt->lost_arg, index << level_shift(level + 1), UINT64_C(1) << level_shift(level + 1), why);
}

static int inner_read(const struct maptree *mt, uint32_t level, uint64_t index, pfn_t pfn,
		      uint64_t checksum, struct map_node **out)
{
	struct pmfs_map_child raw[PMFS_MAP_FANOUT];
	struct map_node *node;
	int rc;

	rc = node_read(mt, level, index, pfn, checksum, raw);
	if (rc)
		return rc;
	node = calloc(1, sizeof(*node));
	if (!node)
		return -ENOMEM;
	for (unsigned int i = 0; i < PMFS_MAP_FANOUT; i++) {
		node->pfn[i] = le64_get(raw[i].pfn);
		node->checksum[i] = le64_get(raw[i].checksum);
		if (node->pfn[i] != PFN_NONE && !pfn_in_range(mt, node->pfn[i])) {
			free(node);
			return -EUCLEAN;
		}
	}
	*out = node;
	return 0;
}

/* The inner node at (level, index), NULL where there is none. */
static int inner_get(struct maptree *mt, uint32_t level, uint64_t index, struct map_node **out)
{
	struct map_node *node;
	int rc;

	*out = NULL;
	if (level >= mt->height || index >= level_span(mt, level))
		return 0;
	if (!mt->top) {
		rc = inner_read(mt, mt->height - 1, 0, mt->root, mt->checksum, &mt->top);
		if (mt->salvage && is_damage(rc)) {
			forget_node(mt, NULL, mt->height - 1, 0, rc);
			return 0;
		}
		if (rc)
			return rc;
	}
	node = mt->top;
	for (uint32_t l = mt->height - 1; l > level; l--) {
		const uint64_t child = index >> level_shift(l - 1 - level);
		const unsigned int i = child % PMFS_MAP_FANOUT;

		if (node->pfn[i] == PFN_NONE)
			return 0;
		if (!node->child[i]) {
			rc = inner_read(mt, l - 1, child, node->pfn[i], node->checksum[i],
					&node->child[i]);
			if (mt->salvage && is_damage(rc)) {
				forget_node(mt, node, l - 1, child, rc);
				return 0;
			}
			if (rc)
				return rc;
		}
		node = node->child[i];
	}
	*out = node;
	return 0;
}

static int locate(struct maptree *mt, uint32_t level, uint64_t index, pfn_t *pfn,
		  uint64_t *checksum)
{
	struct map_node *parent;
	int rc;

	*pfn = PFN_NONE;
	*checksum = 0;
	if (level >= mt->height || index >= level_span(mt, level))
		return 0;
	if (level == mt->height - 1) {
		*pfn = mt->root;
		*checksum = mt->checksum;
		return 0;
	}
	rc = inner_get(mt, level + 1, index >> PMFS_MAP_SHIFT, &parent);
	if (rc || !parent)
		return rc;
	*pfn = parent->pfn[index % PMFS_MAP_FANOUT];
	*checksum = parent->checksum[index % PMFS_MAP_FANOUT];
	return 0;
}

int maptree_node(struct maptree *mt, uint32_t level, uint64_t index, pfn_t *out)
{
	uint64_t checksum;

	mutex_assert_held(mt->lock);
	return locate(mt, level, index, out, &checksum);
}

/* M2 for an entry of a leaf. */
static bool entry_valid(const struct maptree *mt, vpn_t vpn, const struct pmfs_map_entry *entry)
{
	const uint64_t where = le64_get(entry->where);
	const pfn_t pfn = where & PMFS_MAP_PFN_MASK;

	if (!(where >> PMFS_MAP_PFN_BITS))
		return !where && !le64_get(entry->hash);
	if (vpn == VPN_NONE || vpn >= mt->vpn_limit)
		return false;
	if (pfn != PFN_NONE)
		return pfn_in_range(mt, pfn);
	return !le64_get(entry->hash) || le64_get(entry->hash) == PMFS_HASH_KEPT;
}

static int leaf_check(const struct maptree *mt, uint64_t index, const struct pmfs_map_entry *entry)
{
	for (unsigned int i = 0; i < PMFS_MAP_FANOUT; i++)
		if (!entry_valid(mt, (index << PMFS_MAP_SHIFT) + i, &entry[i]))
			return -EUCLEAN;
	return 0;
}

/* Salvage: forget the entries of a leaf that can't be. */
static void leaf_mend(struct maptree *mt, uint64_t index, struct pmfs_map_entry *entry)
{
	for (unsigned int i = 0; i < PMFS_MAP_FANOUT; i++) {
		const vpn_t vpn = (index << PMFS_MAP_SHIFT) + i;

		if (entry_valid(mt, vpn, &entry[i]))
			continue;
		memset(&entry[i], 0, sizeof(entry[i]));
		if (mt->lost)
			mt->lost(mt->lost_arg, vpn, 1, "its entry in the page map can't be");
	}
}

/* Salvage: a leaf that can't be read. */
static int leaf_forget(struct maptree *mt, uint64_t index, int error)
{
	struct map_node *parent = NULL;
	int rc = 0;

	if (mt->height > 1)
		rc = inner_get(mt, 1, index >> PMFS_MAP_SHIFT, &parent);
	if (!rc)
		forget_node(mt, parent, 0, index, error);
	return rc;
}

int maptree_read_leaf(struct maptree *mt, uint64_t index,
		      struct pmfs_map_entry out[PMFS_MAP_FANOUT])
{
	uint64_t checksum;
	pfn_t pfn;
	int rc;

	mutex_assert_held(mt->lock);
	rc = locate(mt, 0, index, &pfn, &checksum);
	if (rc)
		return rc;
	if (pfn == PFN_NONE) {
		memset(out, 0, PMFS_PAGE_SIZE);
		return 0;
	}
	rc = node_read(mt, 0, index, pfn, checksum, out);
	if (mt->salvage && is_damage(rc)) {
		memset(out, 0, PMFS_PAGE_SIZE);
		return leaf_forget(mt, index, rc);
	}
	if (rc)
		return rc;
	if (mt->salvage)
		leaf_mend(mt, index, out);
	rc = leaf_check(mt, index, out);
	return rc ? rc : 1;
}

int maptree_verify(struct maptree *mt, uint32_t level, uint64_t index)
{
	struct pmfs_map_entry node[PMFS_MAP_FANOUT];
	uint64_t checksum;
	pfn_t pfn;
	int rc;

	mutex_assert_held(mt->lock);
	rc = locate(mt, level, index, &pfn, &checksum);
	if (rc || pfn == PFN_NONE)
		return rc;
	rc = node_read(mt, level, index, pfn, checksum, node);
	if (!rc && level == 0)
		rc = leaf_check(mt, index, node);
	return rc ? rc : 1;
}

/* Write a node to a new frame; one without an entry is left out. */
static int node_write(struct maptree *mt, struct frames *fr, const void *buf,
		      struct maptree_update *up, struct maptree_change *ch)
{
	if (mem_is_zero(buf, PMFS_PAGE_SIZE)) {
		ch->pfn = PFN_NONE;
		ch->checksum = 0;
		return 0;
	}
	ch->pfn = frames_take_commit(fr);
	if (ch->pfn == PFN_NONE)
		return -ENOSPC;
	ch->checksum = hash64(buf, PMFS_PAGE_SIZE);
	up->nodes++;
	return region_write(mt->rg, ch->pfn, 0, buf, PMFS_PAGE_SIZE);
}

static int build_leaves(struct maptree *mt, struct frames *fr, const struct pmfs_delta *deltas,
			uint64_t n, struct maptree_update *up)
{
	struct pmfs_map_entry entry[PMFS_MAP_FANOUT];
	uint64_t at = 0;

	while (at < n) {
		const uint64_t index =
			(le64_get(deltas[at].vpn) & ~PMFS_DELTA_NEW) >> PMFS_MAP_SHIFT;
		struct maptree_change *ch = &up->level[0][up->count[0]];
		int rc;

		mutex_lock(mt->lock);
		rc = maptree_read_leaf(mt, index, entry);
		mutex_unlock(mt->lock);
		if (rc < 0)
			return rc;
		for (; at < n; at++) {
			const vpn_t vpn = le64_get(deltas[at].vpn) & ~PMFS_DELTA_NEW;

			if (vpn >> PMFS_MAP_SHIFT != index)
				break;
			entry[vpn % PMFS_MAP_FANOUT] = deltas[at].entry;
		}
		ch->index = index;
		rc = node_write(mt, fr, entry, up, ch);
		if (rc)
			return rc;
		up->count[0]++;
	}
	return 0;
}

/* The children of an inner node of the new tree as the old one has them. */
static int inner_base(struct maptree *mt, uint32_t level, uint64_t index,
		      struct pmfs_map_child *out)
{
	struct map_node *node;
	int rc;

	memset(out, 0, PMFS_PAGE_SIZE);
	mutex_lock(mt->lock);
	if (level == mt->height && index == 0 && mt->height > 0) {
		/* The tree grows: its old top is the first child of what comes on top of it. */
		le64_put(&out[0].pfn, mt->root);
		le64_put(&out[0].checksum, mt->checksum);
		mutex_unlock(mt->lock);
		return 0;
	}
	rc = inner_get(mt, level, index, &node);
	if (!rc && node) {
		for (unsigned int i = 0; i < PMFS_MAP_FANOUT; i++) {
			le64_put(&out[i].pfn, node->pfn[i]);
			le64_put(&out[i].checksum, node->checksum[i]);
		}
	}
	mutex_unlock(mt->lock);
	return rc;
}

static int build_level(struct maptree *mt, struct frames *fr, uint32_t level,
		       struct maptree_update *up)
{
	const struct maptree_change *below = up->level[level - 1];
	const uint64_t nbelow = up->count[level - 1];
	struct pmfs_map_child child[PMFS_MAP_FANOUT];
	uint64_t at = 0;

	/* A tree that grows needs the first node of the new level even when nothing below it has
	 * changed. */
	const bool want_first = level == mt->height && mt->height > 0;

	up->level[level] = calloc(nbelow + 1, sizeof(*up->level[level]));
	if (!up->level[level])
		return -ENOMEM;
	while (at < nbelow || (want_first && up->count[level] == 0)) {
		struct maptree_change *ch = &up->level[level][up->count[level]];
		int rc;

		ch->index = at < nbelow ? below[at].index >> PMFS_MAP_SHIFT : 0;
		if (want_first && up->count[level] == 0)
			ch->index = 0;
		rc = inner_base(mt, level, ch->index, child);
		if (rc)
			return rc;
		for (; at < nbelow && below[at].index >> PMFS_MAP_SHIFT == ch->index; at++) {
			le64_put(&child[below[at].index % PMFS_MAP_FANOUT].pfn, below[at].pfn);
			le64_put(&child[below[at].index % PMFS_MAP_FANOUT].checksum,
				 below[at].checksum);
		}
		rc = node_write(mt, fr, child, up, ch);
		if (rc)
			return rc;
		up->count[level]++;
	}
	return 0;
}

static uint32_t height_for(uint64_t leaf_index)
{
	uint32_t h = 1;

	while (leaf_index >> level_shift(h - 1))
		h++;
	return h;
}

int maptree_build(struct maptree *mt, struct frames *fr, const struct pmfs_delta *deltas,
		  uint64_t n, uint64_t vpn_limit, struct maptree_update *up)
{
	const vpn_t last = le64_get(deltas[n - 1].vpn) & ~PMFS_DELTA_NEW;
	const struct maptree_change *root;
	int rc;

	memset(up, 0, sizeof(*up));
	up->vpn_limit = vpn_limit;
	up->height = MAX(mt->height, height_for(last >> PMFS_MAP_SHIFT));
	if (up->height > MAPTREE_MAX_HEIGHT)
		return -EUCLEAN;
	up->level[0] = calloc(n, sizeof(*up->level[0]));
	if (!up->level[0])
		return -ENOMEM;
	rc = build_leaves(mt, fr, deltas, n, up);
	for (uint32_t level = 1; !rc && level < up->height; level++)
		rc = build_level(mt, fr, level, up);
	if (rc) {
		maptree_update_free(up);
		return rc;
	}
	root = &up->level[up->height - 1][0];
	up->root = root->pfn;
	up->checksum = root->checksum;
	if (up->root == PFN_NONE)
		up->height = 0;
	return 0;
}

void maptree_update_free(struct maptree_update *up)
{
	for (uint32_t level = 0; level < MAPTREE_MAX_HEIGHT; level++)
		free(up->level[level]);
	memset(up->level, 0, sizeof(up->level));
}

void maptree_apply(struct maptree *mt, const struct maptree_update *up,
		   void (*replaced)(void *arg, uint32_t level, uint64_t index, pfn_t old,
				    pfn_t now),
		   void *arg)
{
	mutex_assert_held(mt->lock);
	/* Leaves first: the frames that are replaced are looked up in parents that still are the
	 * old ones. */
	for (uint32_t level = 0; level < MAPTREE_MAX_HEIGHT; level++) {
		for (uint64_t i = 0; i < up->count[level]; i++) {
			const struct maptree_change *ch = &up->level[level][i];
			const unsigned int at = ch->index % PMFS_MAP_FANOUT;
			struct map_node *parent = NULL;
			uint64_t checksum;
			pfn_t old;

			/* The build has read every node on the way, so neither can fail here. */
			if (locate(mt, level, ch->index, &old, &checksum))
				old = PFN_NONE;
			replaced(arg, level, ch->index, old, ch->pfn);
			if (level + 1 >= mt->height ||
			    inner_get(mt, level + 1, ch->index >> PMFS_MAP_SHIFT, &parent) ||
			    !parent)
				continue;
			parent->pfn[at] = ch->pfn;
			parent->checksum[at] = ch->checksum;
			if (ch->pfn == PFN_NONE) {
				node_free(parent->child[at]);
				parent->child[at] = NULL;
			}
		}
	}
	if (up->height != mt->height) {
		node_free(mt->top);
		mt->top = NULL;
	}
	mt->root = up->root;
	mt->checksum = up->checksum;
	mt->height = up->height;
	mt->vpn_limit = up->vpn_limit;
}

struct walk {
	struct maptree *mt;
	int (*fn)(void *arg, uint32_t level, uint64_t index, pfn_t pfn, int error);
	void *arg;
};

static int walk_node(struct walk *w, uint32_t level, uint64_t index, pfn_t pfn, uint64_t checksum)
{
	union {
		struct pmfs_map_entry entry[PMFS_MAP_FANOUT];
		struct pmfs_map_child child[PMFS_MAP_FANOUT];
	} node;
	int error, rc;

	error = node_read(w->mt, level, index, pfn, checksum, &node);
	if (!error && level == 0)
		error = leaf_check(w->mt, index, node.entry);
	rc = w->fn(w->arg, level, index, pfn, error);
	if (rc || error || level == 0)
		return MIN(rc, 0);
	for (unsigned int i = 0; i < PMFS_MAP_FANOUT && !rc; i++) {
		const pfn_t child = le64_get(node.child[i].pfn);

		if (child != PFN_NONE)
			rc = walk_node(w, level - 1, (index << PMFS_MAP_SHIFT) + i, child,
				       le64_get(node.child[i].checksum));
	}
	return rc;
}

int maptree_walk(struct maptree *mt,
		 int (*fn)(void *arg, uint32_t level, uint64_t index, pfn_t pfn, int error),
		 void *arg)
{
	struct walk w = {.mt = mt, .fn = fn, .arg = arg};

	mutex_assert_held(mt->lock);
	if (mt->height == 0)
		return 0;
	return walk_node(&w, mt->height - 1, 0, mt->root, mt->checksum);
}
