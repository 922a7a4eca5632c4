/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/units.h"
#include "store/store_impl.h"

#define SCAN_STEP      64u
#define TRIM_IDLE_MS   5000u
#define TRIM_MAX       16384u
#define KEEPER_TICK_MS 1000u
#define RESERVE_FRAMES (UINT64_C(1) << 28) /* 1 TiB */

static int fail(struct store_error *err, int rc, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(struct store_error *err, int rc, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return rc;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return rc;
}

/* ------------------------------------------------------------------ keeper */

static bool keeper_stopping(struct store *st)
{
	bool stop;

	mutex_lock(&st->keeper_lock);
	stop = st->keeper_stop;
	mutex_unlock(&st->keeper_lock);
	return stop;
}

/* True: go on; false: the store is being closed.  asked: somebody wants a commit now. */
static bool keeper_sleep(struct store *st, uint64_t ms, bool *asked)
{
	bool stop;

	mutex_lock(&st->keeper_lock);
	if (!st->keeper_stop && !st->left && !st->keeper_asked)
		(void)cond_timedwait_ms(&st->keeper_wake, &st->keeper_lock, ms);
	stop = st->keeper_stop;
	*asked = st->keeper_asked;
	st->keeper_asked = false;
	mutex_unlock(&st->keeper_lock);
	return !stop;
}

static void keeper_scan(struct store *st)
{
	int rc = 0;

	while (!rc && !keeper_stopping(st))
		rc = store_scan(st, SCAN_STEP);
	if (rc < 0)
		log_warn("the page map can't be read as a whole (error %d): space that is free in "
			 "it stays unused",
			 -rc);
}

static void *keeper_main(void *arg)
{
	struct store *st = arg;
	uint64_t tick =
		st->commit_ms && st->commit_ms < KEEPER_TICK_MS ? st->commit_ms : KEEPER_TICK_MS;
	int64_t next_commit = units_monotonic_ns() + st->commit_ms * INT64_C(1000000);
	int64_t next_trim = units_monotonic_ns() + KEEPER_TICK_MS * INT64_C(1000000);
	bool asked;

	keeper_scan(st);
	while (keeper_sleep(st, tick, &asked)) {
		const int64_t now = units_monotonic_ns();

		commit_finish_left(st);
		if (st->read_only || region_error(st->rg))
			continue;
		if (asked || (st->commit_ms && now >= next_commit)) {
			(void)commit_try(st,
					 COMMIT_TIMER); /* has logged, and poisoned the region */
			next_commit = units_monotonic_ns() + st->commit_ms * INT64_C(1000000);
		}
		if (now >= next_trim) {
			(void)store_trim(st, TRIM_IDLE_MS, TRIM_MAX);
			next_trim = units_monotonic_ns() + KEEPER_TICK_MS * INT64_C(1000000);
		}
	}
	return NULL;
}

static void keeper_end(struct store *st)
{
	if (!st->keeper_started)
		return;
	mutex_lock(&st->keeper_lock);
	st->keeper_stop = true;
	cond_broadcast(&st->keeper_wake);
	mutex_unlock(&st->keeper_lock);
	thread_join(st->keeper);
	st->keeper_started = false;
	commit_finish_left(st);
}

/* ------------------------------------------------------------------ open and close */

/* The newest slot counts only when the pages that were written along with it have arrived, too. */
static int slot_proven(struct region *rg, const struct super_slot *slot, vpn_t *bad)
{
	for (uint32_t i = 0; i < slot->delta_count; i++) {
		const struct pmfs_delta *d = &slot->deltas[i];
		const pfn_t pfn = where_pfn(le64_get(d->entry.where));
		uint64_t hash;
		int rc;

		if (!(le64_get(d->vpn) & PMFS_DELTA_NEW) || pfn == PFN_NONE)
			continue;
		*bad = le64_get(d->vpn) & ~PMFS_DELTA_NEW;
		rc = region_hash(rg, pfn, &hash);
		if (rc)
			return rc;
		if (hash != le64_get(d->entry.hash))
			return -EBADMSG;
	}
	return 0;
}

static int pick_slot(struct region *rg, struct super_slots *slots, bool older, unsigned *pick,
		     struct store_error *err)
{
	int first = 0;

	if (slots->damage[0])
		log_warn("%s", slots->damage);
	for (unsigned i = older && slots->count > 1; i < slots->count; i++) {
		vpn_t bad = VPN_NONE;
		int rc = slot_proven(rg, &slots->slot[i], &bad);

		if (!rc) {
			*pick = i;
			return 0;
		}
		log_warn("generation %llu is not complete (page %llu)%s",
			 (unsigned long long)slots->slot[i].super.generation,
			 (unsigned long long)bad,
			 i + 1 < slots->count ? ": the one before it is used" : "");
		if (!first) {
			first = rc;
			(void)fail(err, rc,
				   "generation %llu is not complete (page %llu), and there is no "
				   "older one",
				   (unsigned long long)slots->slot[i].super.generation,
				   (unsigned long long)bad);
		}
	}
	return first;
}

/*
 * The limit that an image says it has, before the region can be mapped that large.  Only a hint:
 * super_load() decides later, on the locked file.
 */
static uint64_t peek_limit(const char *path)
{
	uint64_t limit = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return 0; /* region_open_image() says why */
	for (unsigned i = 0; i < 2; i++) {
		const off_t at = (off_t)(i * PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE);
		struct pmfs_super sb;

		if (pread(fd, &sb, sizeof(sb), at) != (ssize_t)sizeof(sb) ||
		    memcmp(sb.magic, PMFS_MAGIC, sizeof(sb.magic)) != 0 ||
		    hash64(&sb, offsetof(struct pmfs_super, checksum)) != le64_get(sb.checksum))
			continue;
		limit = MAX(limit, le64_get(sb.limit_frames));
	}
	close(fd);
	return MIN(limit, PMFS_MAX_FRAMES);
}

/* Addresses for frames: room for store_set_limit(). */
static uint64_t reserve(uint64_t limit_frames)
{
	return MAX(MIN(limit_frames * 4, RESERVE_FRAMES), limit_frames);
}

static int open_image(struct store *st, const struct store_config *cfg, struct super_slot *slot,
		      struct store_error *err)
{
	const uint64_t wanted = cfg->limit_bytes >> PMFS_PAGE_SHIFT;
	struct super_slots slots;
	unsigned pick = 0;
	int rc;

	err->holder = 0;
	rc = region_open_image(&st->rg, cfg->path, reserve(MAX(wanted, peek_limit(cfg->path))),
			       cfg->read_only ? REGION_READONLY : 0, &err->holder);
	if (rc == -EBUSY && err->holder)
		return fail(err, rc, "%s is in use by process %d", cfg->path, err->holder);
	if (rc == -EBUSY)
		return fail(err, rc, "%s is in use by another process", cfg->path);
	if (rc)
		return fail(err, rc, "can't open %s: %s", cfg->path, strerror(-rc));
	rc = super_load(st->rg, &slots, err);
	if (rc)
		return rc;
	rc = pick_slot(st->rg, &slots, cfg->older, &pick, err);
	if (!rc) {
		*slot = slots.slot[pick];
		slots.slot[pick].deltas = NULL;
		slots.slot[pick].delta_count = 0;
	}
	super_slots_free(&slots);
	if (rc)
		return rc;
	if (wanted && wanted != slot->super.limit_frames && !cfg->read_only) {
		if (wanted < slot->super.frames || wanted < PMFS_MIN_FRAMES)
			return fail(err, -ERANGE, "%s holds more than the size that was asked for",
				    cfg->path);
		slot->super.limit_frames = wanted;
		st->root_changed = true;
	}
	if (cfg->read_only)
		return 0;
	/* The newest slot has to be overwritten, or it would be the one to be found again. */
	st->root_changed = st->root_changed || cfg->older;
	/* Somebody has made the file longer, or it grew for a limit that the crash took back. */
	if (!wanted && region_frames(st->rg) > slot->super.limit_frames) {
		slot->super.limit_frames = MIN(region_frames(st->rg), PMFS_MAX_FRAMES);
		st->root_changed = true;
	}
	rc = region_set_limit(st->rg, slot->super.limit_frames);
	if (rc)
		return fail(err, rc, "can't use %s up to its size: %s", cfg->path, strerror(-rc));
	/*
	 * After a crash of the process alone, the generation that was found may be in the host's
	 * cache only.  What it gave up will be overwritten, so it has to be durable first.
	 */
	rc = region_flush(st->rg);
	return rc ? fail(err, rc, "can't write %s: %s", cfg->path, strerror(-rc)) : 0;
}

static int open_ram(struct store *st, const struct store_config *cfg, struct super_slot *slot,
		    struct store_error *err)
{
	const struct store_format how = {.limit_bytes = cfg->limit_bytes};
	int rc;

	rc = super_init(&slot->super, &how);
	if (rc)
		return fail(err, rc, "not a possible size: %llu bytes",
			    (unsigned long long)cfg->limit_bytes);
	st->ram = true;
	rc = region_open_memfd(&st->rg, reserve(slot->super.limit_frames));
	if (!rc)
		rc = region_set_limit(st->rg, slot->super.limit_frames);
	return rc ? fail(err, rc, "can't get memory: %s", strerror(-rc)) : 0;
}

static void locks_init(struct store *st)
{
	rw_init(&st->txn_lock, LOCK_TXN);
	for (unsigned i = 0; i < STORE_PAGE_LOCKS; i++)
		mutex_init(&st->page_lock[i], LOCK_PAGE);
	mutex_init(&st->root_lock, LOCK_LEAF);
	mutex_init(&st->commit_lock, LOCK_COMMIT);
	mutex_init(&st->keeper_lock, LOCK_LEAF);
	mutex_init(&st->bad_lock, LOCK_LEAF);
	cond_init(&st->commit_done);
	cond_init(&st->keeper_wake);
	readers_init(&st->readers);
}

static void store_free(struct store *st)
{
	writeout_free(st->wo);
	if (st->pm.chunk)
		pagemap_destroy(&st->pm);
	if (st->fr)
		frames_free(st->fr);
	if (st->rg)
		region_close(st->rg);
	readers_destroy(&st->readers);
	cond_destroy(&st->keeper_wake);
	cond_destroy(&st->commit_done);
	mutex_destroy(&st->bad_lock);
	mutex_destroy(&st->keeper_lock);
	mutex_destroy(&st->commit_lock);
	mutex_destroy(&st->root_lock);
	for (unsigned i = 0; i < STORE_PAGE_LOCKS; i++)
		mutex_destroy(&st->page_lock[i]);
	rw_destroy(&st->txn_lock);
	free(st);
}

static int open_maps(struct store *st, struct super_slot *slot, struct store_error *err)
{
	int rc;

	st->super = slot->super;
	st->root = slot->super.tree;
	/* A RAM region starts with a generation that was never written: nothing of it can be lost.
	 */
	atomic_store(&st->durable, slot->super.generation);
	atomic_store(&st->generation, slot->super.generation + 1);
	rc = frames_new(&st->fr, st->rg, slot->super.frames);
	if (rc)
		return fail(err, rc, "the image is shorter than it says, or memory is short: %s",
			    strerror(-rc));
	frames_keep(st->fr, slot->super.kept, slot->super.kept_paths);
	rc = pagemap_init(&st->pm, st->rg, st->fr, &slot->super, slot->deltas, slot->delta_count);
	if (rc)
		return fail(err, rc, "%s", strerror(-rc));
	slot->deltas = NULL;
	/* An empty page map needs no pass. */
	if (st->pm.old_leaves == 0)
		(void)store_scan(st, 1);
	return 0;
}

/* Read the whole page map, and have the next commit leave out what could not be. */
static int salvage(struct store *st, const struct store_config *cfg, struct store_error *err)
{
	struct txn tx;
	int rc;

	pagemap_salvage(&st->pm, cfg->lost, cfg->lost_arg);
	do {
		rc = store_scan(st, SCAN_STEP);
	} while (!rc);
	rc = rc == -ELOOP ? -EUCLEAN : MIN(rc, 0);
	if (!rc && !st->read_only) {
		rc = txn_begin(st, &tx, FRAME_RECLAIM, 0);
		if (!rc) {
			rc = pagemap_salvaged(&st->pm);
			txn_end(&tx);
		}
	}
	return rc ? fail(err, rc, "the page map can't be read: %s", strerror(-rc)) : 0;
}

int store_open(struct store **out, const struct store_config *cfg, struct store_error *err)
{
	struct super_slot slot = {0};
	struct store_error ignored;
	struct store *st;
	int rc;

	if (!err)
		err = &ignored;
	memset(err, 0, sizeof(*err));
	st = calloc(1, sizeof(*st));
	if (!st)
		return fail(err, -ENOMEM, "%s", strerror(ENOMEM));
	locks_init(st);
	st->read_only = cfg->read_only;
	st->commit_ms = cfg->commit_ms;
	st->relief = cfg->relief;
	st->relief_arg = cfg->relief_arg;
	rc = cfg->path ? open_image(st, cfg, &slot, err) : open_ram(st, cfg, &slot, err);
	if (!rc)
		rc = open_maps(st, &slot, err);
	free(slot.deltas);
	if (!rc && cfg->lost)
		rc = salvage(st, cfg, err);
	if (!rc && cfg->background && !st->ram && !st->read_only) {
		rc = writeout_new(&st->wo, st->rg);
		if (rc)
			rc = fail(err, rc, "can't start a thread: %s", strerror(-rc));
	}
	if (!rc && cfg->background) {
		rc = thread_start(&st->keeper, "pmfs-keeper", keeper_main, st);
		if (rc)
			rc = fail(err, rc, "can't start a thread: %s", strerror(-rc));
		else
			st->keeper_started = true;
	}
	if (rc) {
		store_free(st);
		return rc;
	}
	*out = st;
	return 0;
}

int store_close(struct store *st)
{
	int rc;

	keeper_end(st);
	rc = st->read_only || st->ram ? 0 : commit_lead(st, COMMIT_TIMER);
	store_free(st);
	return rc;
}

void store_abandon(struct store *st)
{
	keeper_end(st);
	store_free(st);
}

/* ------------------------------------------------------------------ what it is */

bool store_read_only(const struct store *st)
{
	return st->read_only;
}

bool store_is_ram(const struct store *st)
{
	return st->ram;
}

int store_error(const struct store *st)
{
	return region_error(st->rg);
}

const uint8_t *store_uuid(const struct store *st)
{
	return st->super.uuid;
}

const char *store_label(const struct store *st)
{
	return st->super.label;
}

uint64_t store_created_ns(const struct store *st)
{
	return st->super.created_ns;
}

struct region *store_region(struct store *st)
{
	return st->rg;
}

void store_get_root(struct store *st, struct pmfs_tree_root *out)
{
	mutex_lock(&st->root_lock);
	*out = st->root;
	mutex_unlock(&st->root_lock);
}

void store_set_root(struct txn *tx, const struct pmfs_tree_root *root)
{
	struct store *st = tx->st;

	mutex_lock(&st->root_lock);
	if (memcmp(&st->root, root, sizeof(*root)) != 0) {
		st->root = *root;
		st->root_changed = true;
	}
	mutex_unlock(&st->root_lock);
}

uint64_t store_generation(const struct store *st)
{
	return atomic_load(&st->generation);
}

uint64_t store_durable(const struct store *st)
{
	return atomic_load(&st->durable);
}

vpn_t store_vpn_limit(const struct store *st)
{
	return MAX(atomic_load(&st->pm.vpn_limit), 1);
}

/* ------------------------------------------------------------------ service */

uint64_t store_pages_bound(const struct store *st)
{
	const uint64_t limit = store_vpn_limit(st);

	if (!store_scanned(st))
		return limit;
	return MIN(limit, atomic_load(&st->pm.pages) * 4 + 65536);
}

vpn_t store_next_page(struct store *st, vpn_t vpn)
{
	const vpn_t next = pagemap_next(&st->pm, vpn >> PMFS_MAP_SHIFT) << PMFS_MAP_SHIFT;

	return MAX(vpn, next);
}

void store_forget(struct store *st)
{
	if (st->read_only)
		pagemap_forget(&st->pm, STORE_FORGET_LEAVES);
}

int store_scan(struct store *st, uint64_t max_leaves)
{
	const int rc = pagemap_scan(&st->pm, max_leaves);

	/* A part of it is in it twice: what is free can't be known, so nothing can be written. */
	if (rc == -ELOOP && !st->read_only && !store_error(st))
		store_fail(st, "reading the page map", -EUCLEAN);
	return rc;
}

bool store_scanned(const struct store *st)
{
	return atomic_load(&st->pm.scanned);
}

uint64_t store_trim(struct store *st, unsigned idle_ms, uint64_t max_frames)
{
	return st->read_only ? 0 : frames_trim(st->fr, idle_ms, max_frames);
}

int store_set_limit(struct store *st, uint64_t limit_bytes)
{
	const uint64_t frames = limit_bytes >> PMFS_PAGE_SHIFT;
	int rc;

	if (st->read_only)
		return -EROFS;
	if (frames < PMFS_MIN_FRAMES || frames < frames_high_water(st->fr))
		return -ERANGE;
	rc = region_set_limit(st->rg, frames);
	if (rc)
		return rc;
	mutex_lock(&st->root_lock);
	st->super.limit_frames = frames;
	st->root_changed = true;
	mutex_unlock(&st->root_lock);
	return 0;
}

void store_stat(struct store *st, struct store_stats *out)
{
	memset(out, 0, sizeof(*out));
	frames_stat(st->fr, &out->frames);
	out->pages = atomic_load(&st->pm.pages);
	out->holes = atomic_load(&st->pm.holes);
	out->map_nodes = atomic_load(&st->pm.nodes);
	out->dirty_pages = atomic_load(&st->pm.born);
	out->commits = atomic_load(&st->commits);
	out->commits_small = atomic_load(&st->commits_small);
	out->flushes = region_flushes(st->rg);
	out->written_bytes = region_written(st->rg);
	out->commit_ns_last = atomic_load(&st->commit_ns_last);
	out->commit_ns_max = atomic_load(&st->commit_ns_max);
	out->verified = atomic_load(&st->verified);
	out->bad_pages = atomic_load(&st->bad_pages);
	mutex_lock(&st->bad_lock);
	out->damaged_pages = st->n_bad + st->bad_more;
	mutex_unlock(&st->bad_lock);
	out->host_bytes = region_host_bytes(st->rg);
	out->zero_merged = atomic_load(&st->zero_merged);
	out->merged = atomic_load(&st->merged);
}

static void copy_info(const struct pagemap_copy *leaf, unsigned int i, struct page_info *out)
{
	out->refs = where_refs(leaf->where[i]);
	out->pfn = where_pfn(leaf->where[i]);
	out->hash = leaf->hash[i];
	out->dirty = bit_test(leaf->nohash, i);
}

int store_each_page(struct store *st, vpn_t from, vpn_t to,
		    int (*fn)(void *arg, vpn_t vpn, const struct page_info *info), void *arg)
{
	struct pagemap_copy leaf;

	for (vpn_t vpn = from; vpn < MIN(to, store_vpn_limit(st));) {
		const uint64_t index = pagemap_next(&st->pm, vpn >> PMFS_MAP_SHIFT);
		vpn_t end;
		int rc;

		vpn = MAX(vpn, index << PMFS_MAP_SHIFT);
		if (vpn >= MIN(to, store_vpn_limit(st)))
			break;
		end = MIN(to, (index + 1) << PMFS_MAP_SHIFT);
		rc = pagemap_peek(&st->pm, index, &leaf);
		if (rc < 0)
			return rc;
		for (; rc && vpn < end; vpn++) {
			struct page_info info;

			copy_info(&leaf, (unsigned int)(vpn % PMFS_MAP_FANOUT), &info);
			rc = info.refs ? fn(arg, vpn, &info) : 0;
			if (rc)
				return rc;
			rc = 1;
		}
		vpn = end;
	}
	return 0;
}

/* ------------------------------------------------------------------ check */

struct check {
	struct store *st;
	uint32_t *counts;  /* per frame: entries and nodes that name it; NULL: not counted */
	uint64_t *is_node; /* bitmap: it is a node */
	uint64_t frames;
	int found;
	bool data;
	void (*bad)(void *arg, const char *what);
	void *arg;
	uint64_t kept;	  /* pages that have a frame kept for them */
	bool looped;	  /* a part of the page map is in it twice: there may be no end of it */
};

static void report(struct check *ck, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void report(struct check *ck, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (ck->found < INT32_MAX)
		ck->found++;
	if (ck->bad)
		ck->bad(ck->arg, text);
}

/* 1: what is below it has been looked at. */
static int check_node(void *arg, uint32_t level, uint64_t index, pfn_t pfn, int error)
{
	struct check *ck = arg;

	if (error) {
		report(ck, "page map: node %u/%llu in frame %llu: %s", level,
		       (unsigned long long)index, (unsigned long long)pfn,
		       error == -EBADMSG ? "wrong checksum" : strerror(-error));
	}
	if (pfn < PMFS_FIRST_FRAME || pfn >= ck->frames)
		return 0; /* has been reported */
	if (bit_test(ck->is_node, pfn)) {
		report(ck, "page map: frame %llu holds two nodes", (unsigned long long)pfn);
		ck->looped = true;
		return 1;
	}
	if (ck->counts)
		ck->counts[pfn]++;
	bit_set(ck->is_node, pfn);
	return 0;
}

static void check_data(struct check *ck, vpn_t vpn, pfn_t pfn, uint64_t want)
{
	uint64_t hash;
	int rc = region_hash(ck->st->rg, pfn, &hash);

	if (rc)
		report(ck, "page %llu: frame %llu can't be read: %s", (unsigned long long)vpn,
		       (unsigned long long)pfn, strerror(-rc));
	else if (hash != want)
		report(ck, "page %llu: the contents of frame %llu do not match their hash",
		       (unsigned long long)vpn, (unsigned long long)pfn);
}

static void check_entry(struct check *ck, vpn_t vpn, const struct page_info *in)
{
	if (!in->refs) {
		if (in->pfn != PFN_NONE || in->hash)
			report(ck, "page %llu is free, but has frame %llu", (unsigned long long)vpn,
			       (unsigned long long)in->pfn);
		return;
	}
	if (vpn == VPN_NONE || vpn >= store_vpn_limit(ck->st))
		report(ck, "page %llu is in use, but no possible page", (unsigned long long)vpn);
	if (in->pfn == PFN_NONE) {
		if (in->hash == PMFS_HASH_KEPT)
			ck->kept++;
		else if (in->hash)
			report(ck, "page %llu is a hole with a hash", (unsigned long long)vpn);
		return;
	}
	if (in->pfn < PMFS_FIRST_FRAME || in->pfn >= ck->frames) {
		report(ck, "page %llu: frame %llu is outside of the image", (unsigned long long)vpn,
		       (unsigned long long)in->pfn);
		return;
	}
	if (ck->counts)
		ck->counts[in->pfn]++;
	if (bit_test(ck->is_node, in->pfn))
		report(ck, "page %llu: frame %llu holds a node of the page map",
		       (unsigned long long)vpn, (unsigned long long)in->pfn);
	if (ck->data && !in->dirty)
		check_data(ck, vpn, in->pfn, in->hash);
}

static void check_leaves(struct check *ck)
{
	const uint64_t leaves = store_vpn_limit(ck->st) >> PMFS_MAP_SHIFT;
	struct pagemap_copy leaf;

	for (uint64_t index = 0; (index = pagemap_next(&ck->st->pm, index)) < leaves; index++) {
		int rc = pagemap_peek(&ck->st->pm, index, &leaf);

		/* What is wrong with a leaf on disk was found by the walk over the nodes. */
		if (rc < 0 && !ck->found)
			report(ck, "page map: leaf %llu: %s", (unsigned long long)index,
			       strerror(-rc));
		for (unsigned int i = 0; rc > 0 && i < PMFS_MAP_FANOUT; i++) {
			struct page_info info;

			copy_info(&leaf, i, &info);
			check_entry(ck, (index << PMFS_MAP_SHIFT) + i, &info);
		}
	}
}

static void check_frames(struct check *ck)
{
	pfn_t bad = PFN_NONE;
	uint64_t kept, paths;

	frames_kept(ck->st->fr, &kept, &paths);
	if (!ck->found && kept != ck->kept)
		report(ck, "%llu pages are reserved, but frames are kept for %llu",
		       (unsigned long long)ck->kept, (unsigned long long)kept);
	if (ck->found || !ck->counts || !frames_scanned(ck->st->fr))
		return;
	if (frames_check(ck->st->fr, ck->counts, ck->frames, &bad))
		report(ck, "frame %llu: used by %u, but its count is %u", (unsigned long long)bad,
		       bad < ck->frames ? ck->counts[bad] : 0, frames_count(ck->st->fr, bad));
}

int store_check(struct store *st, bool data, void (*bad)(void *arg, const char *what), void *arg)
{
	struct check ck = {.st = st, .data = data, .bad = bad, .arg = arg};
	int rc = 0;

	/* F1 can be said only when the scan is over; damage that keeps it from that is found below.
	 */
	while (!rc && !store_scanned(st))
		rc = store_scan(st, SCAN_STEP);
	commit_pause(st);
	ck.frames = frames_high_water(st->fr);
	/* Counts that nobody has changed since the scan are what the scan has counted. */
	if (!st->read_only)
		ck.counts = calloc(ck.frames, sizeof(*ck.counts));
	ck.is_node = calloc(BITMAP_WORDS(ck.frames), sizeof(*ck.is_node));
	if ((!ck.counts && !st->read_only) || !ck.is_node) {
		rc = -ENOMEM;
		goto out;
	}
	mutex_lock(&st->pm.map_lock);
	rc = maptree_walk(&st->pm.tree, check_node, &ck);
	mutex_unlock(&st->pm.map_lock);
	if (rc)
		goto out;
	if (!ck.looped) {
		check_leaves(&ck);
		check_frames(&ck);
	}
	rc = ck.found;
out:
	commit_resume(st);
	free(ck.counts);
	free(ck.is_node);
	return rc;
}
