/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/icache.h"

#include <errno.h>
#include <stdlib.h>

#include "tree/fs_impl.h"
#include "tree/itable.h"
#include "tree/reclaim.h"

#define MIN_BUCKETS 1024u

enum {
	INODE_LOADING, /* in the table, so that there is only one; its contents are not there yet */
	INODE_READY,
	INODE_GONE,    /* not in the table any more */
};

struct icache {
	struct mutex lock; /* LOCK_ICACHE, guards all below */
	struct cond loaded; /* some inode is not INODE_LOADING any more */
	struct inode **buckets;
	uint64_t nbuckets; /* a power of two */
	uint64_t count;
};

int icache_new(struct icache **out)
{
	struct icache *ic = calloc(1, sizeof(*ic));

	if (!ic)
		return -ENOMEM;
	ic->nbuckets = MIN_BUCKETS;
	ic->buckets = calloc(ic->nbuckets, sizeof(*ic->buckets));
	if (!ic->buckets) {
		free(ic);
		return -ENOMEM;
	}
	mutex_init(&ic->lock, LOCK_ICACHE);
	cond_init(&ic->loaded);
	*out = ic;
	return 0;
}

static void destroy(struct inode *in)
{
	rw_destroy(&in->lock);
	free(in);
}

void icache_free(struct icache *ic)
{
	struct inode *next;

	if (!ic)
		return;
	for (uint64_t i = 0; i < ic->nbuckets; i++) {
		for (struct inode *in = ic->buckets[i]; in; in = next) {
			next = in->hash_next;
			volume_put(in->vol);
			destroy(in);
		}
	}
	free(ic->buckets);
	cond_destroy(&ic->loaded);
	mutex_destroy(&ic->lock);
	free(ic);
}

uint64_t icache_count(struct icache *ic)
{
	uint64_t n;

	mutex_lock(&ic->lock);
	n = ic->count;
	mutex_unlock(&ic->lock);
	return n;
}

/* ------------------------------------------------------------------ the table */

static uint64_t bucket_of(uint64_t nbuckets, uint64_t id)
{
	/* The upper half: a multiplication moves what distinguishes ids upwards. */
	return (id * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (nbuckets - 1);
}

static uint64_t id_of(const struct inode *in)
{
	return NODE_ID(in->vol->id, in->ino);
}

static struct inode *find_locked(struct icache *ic, uint64_t id)
{
	struct inode *in = ic->buckets[bucket_of(ic->nbuckets, id)];

	while (in && id_of(in) != id)
		in = in->hash_next;
	return in;
}

/* Without memory for a bigger table the chains get longer, that is all. */
static void grow_locked(struct icache *ic)
{
	const uint64_t n = ic->nbuckets * 2;
	struct inode **buckets = calloc(n, sizeof(*buckets));
	struct inode *next;

	if (!buckets)
		return;
	for (uint64_t i = 0; i < ic->nbuckets; i++) {
		for (struct inode *in = ic->buckets[i]; in; in = next) {
			struct inode **at = &buckets[bucket_of(n, id_of(in))];

			next = in->hash_next;
			in->hash_next = *at;
			*at = in;
		}
	}
	free(ic->buckets);
	ic->buckets = buckets;
	ic->nbuckets = n;
}

static void insert_locked(struct icache *ic, struct inode *in)
{
	struct inode **at;

	if (ic->count >= ic->nbuckets)
		grow_locked(ic);
	at = &ic->buckets[bucket_of(ic->nbuckets, id_of(in))];
	in->hash_next = *at;
	*at = in;
	ic->count++;
}

static void remove_locked(struct icache *ic, struct inode *in)
{
	struct inode **at = &ic->buckets[bucket_of(ic->nbuckets, id_of(in))];

	while (*at != in)
		at = &(*at)->hash_next;
	*at = in->hash_next;
	in->state = INODE_GONE;
	ic->count--;
}

/* Takes over one use of the volume. */
static struct inode *create(struct volume *vol, uint64_t ino)
{
	struct inode *in = calloc(1, sizeof(*in));

	if (!in)
		return NULL;
	in->vol = vol;
	in->ino = ino;
	in->holds = 1;
	rw_init(&in->lock, LOCK_INODE);
	return in;
}

/* ------------------------------------------------------------------ getting */

/*
 * Find it, and wait until it is loaded.  NULL: it is not in memory.  Who waited for one that could
 * not be loaded looks again; the last to leave that frees it.
 */
static struct inode *get_cached_locked(struct icache *ic, uint64_t id)
{
	struct inode *in;

	while ((in = find_locked(ic, id))) {
		in->holds++;
		while (in->state == INODE_LOADING)
			cond_wait(&ic->loaded, &ic->lock);
		if (in->state == INODE_READY)
			break;
		if (!--in->holds)
			destroy(in);
	}
	return in;
}

static int load(struct icache *ic, struct inode *in)
{
	struct volume *vol = in->vol;
	const int rc = itable_load(in);

	mutex_lock(&ic->lock);
	if (rc)
		remove_locked(ic, in);
	else
		in->state = INODE_READY;
	cond_broadcast(&ic->loaded);
	if (rc && !--in->holds)
		destroy(in);
	mutex_unlock(&ic->lock);
	if (rc)
		volume_put(vol);
	return rc;
}

int inode_get(struct fs *fs, uint64_t id, struct inode **out)
{
	struct icache *ic = fs->ic;
	struct volume *vol;
	struct inode *in, *fresh;
	int rc;

	mutex_lock(&ic->lock);
	in = get_cached_locked(ic, id);
	mutex_unlock(&ic->lock);
	if (in) {
		*out = in;
		return 0;
	}
	vol = volume_get(fs, NODE_VOLUME(id));
	if (!vol)
		return -ESTALE;
	fresh = create(vol, NODE_INO(id));
	if (!fresh) {
		volume_put(vol);
		return -ENOMEM;
	}
	mutex_lock(&ic->lock);
	in = get_cached_locked(ic, id);
	if (!in)
		insert_locked(ic, fresh);
	mutex_unlock(&ic->lock);
	if (in) {
		volume_put(vol);
		destroy(fresh);
		*out = in;
		return 0;
	}
	rc = load(ic, fresh);
	if (!rc)
		*out = fresh;
	return rc;
}

int inode_new(struct fs *fs, struct volume *vol, uint64_t ino, struct inode **out)
{
	struct icache *ic = fs->ic;
	struct inode *in, *there;

	if (!volume_get(fs, vol->id))
		return -ESTALE;
	in = create(vol, ino);
	if (!in) {
		volume_put(vol);
		return -ENOMEM;
	}
	in->state = INODE_READY;
	mutex_lock(&ic->lock);
	there = get_cached_locked(ic, NODE_ID(vol->id, ino));
	if (there)
		there->holds--;
	else
		insert_locked(ic, in);
	mutex_unlock(&ic->lock);
	if (there) {
		/* The list of free inodes named one that is in use. */
		volume_put(vol);
		destroy(in);
		return -EUCLEAN;
	}
	*out = in;
	return 0;
}

/* ------------------------------------------------------------------ giving back */

/* Nobody has it any more. */
static void evict(struct fs *fs, struct inode *in)
{
	struct volume *vol = in->vol;
	const uint64_t ino = in->ino;
	const bool orphan = in->mode && !in->nlink;

	destroy(in);
	if (orphan && !fs->read_only && volume_writable(vol))
		reclaim_inode(fs, vol, ino);
	volume_put(vol);
}

/* Besides one hold. */
static void put(struct fs *fs, struct inode *in, uint64_t lookups)
{
	struct icache *ic = fs->ic;
	bool last;

	mutex_lock(&ic->lock);
	in->holds--;
	in->lookups -= lookups < in->lookups ? lookups : in->lookups;
	last = !in->holds && !in->lookups;
	if (last)
		remove_locked(ic, in);
	mutex_unlock(&ic->lock);
	if (last)
		evict(fs, in);
}

void inode_put(struct fs *fs, struct inode *in)
{
	put(fs, in, 0);
}

void inode_add_lookup(struct fs *fs, struct inode *in)
{
	mutex_lock(&fs->ic->lock);
	in->lookups++;
	mutex_unlock(&fs->ic->lock);
}

void inode_forget(struct fs *fs, uint64_t id, uint64_t n)
{
	struct icache *ic = fs->ic;
	struct inode *in;

	mutex_lock(&ic->lock);
	in = find_locked(ic, id);
	if (in)
		in->holds++;
	mutex_unlock(&ic->lock);
	if (in)
		put(fs, in, n);
}

/* ------------------------------------------------------------------ two at a time */

bool inode_before(const struct inode *a, const struct inode *b)
{
	if (a->vol->id != b->vol->id)
		return a->vol->id < b->vol->id;
	return a->ino < b->ino;
}

static void lock_one(struct inode *in, bool write)
{
	if (write)
		rw_wrlock(&in->lock);
	else
		rw_rdlock(&in->lock);
}

void inode_lock2(struct inode *a, struct inode *b, bool write)
{
	if (!b || a == b) {
		lock_one(a, write);
		return;
	}
	lock_one(inode_before(a, b) ? a : b, write);
	lock_one(inode_before(a, b) ? b : a, write);
}

void inode_unlock2(struct inode *a, struct inode *b)
{
	rw_unlock(&a->lock);
	if (b && a != b)
		rw_unlock(&b->lock);
}
