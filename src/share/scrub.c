/* SPDX-License-Identifier: BSD-2-Clause */
#include "share/scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/units.h"

#define LOOKUP_MAX	64u		 /* damaged pages that are looked for in one walk */
#define LOOKUP_EVERY_NS (5 * NS_PER_SEC) /* during a pass */

struct scrub {
	struct fs *fs;
	struct store *st;
	sem_t wake; /* the thread has something to do */
	pthread_t thread;
	_Atomic bool quit, stop;
	_Atomic uint64_t total, pages, nodes, dirty, bad_pages, bad_nodes, structure_findings,
		passes;
	_Atomic uint64_t progress; /* millionths of the running pass */

	struct mutex lock; /* LOCK_SCRUB; guards all below */
	struct cond changed;
	enum scrub_state state;
	bool asked, structure;
	uint64_t rate;
	int error;
	uint64_t started_ns, finished_ns;
	int64_t began, ended; /* monotonic */
	char *finding[SCRUB_FINDINGS];
	size_t kept;
	uint64_t findings;
	uint64_t settled, unsettled; /* scrub_settle() asks, the thread answers */
};

static void wake(void *arg)
{
	struct scrub *sc = arg;

	sem_post(&sc->wake);
}

/* ------------------------------------------------------------------ findings */

static void note(struct scrub *sc, const char *text)
{
	char *copy = NULL;

	log_err("%s", text);
	mutex_lock(&sc->lock);
	sc->findings++;
	if (sc->kept < SCRUB_FINDINGS)
		copy = strdup(text);
	if (copy)
		sc->finding[sc->kept++] = copy;
	mutex_unlock(&sc->lock);
}

static void forget_findings_locked(struct scrub *sc)
{
	while (sc->kept)
		free(sc->finding[--sc->kept]);
	sc->findings = 0;
}

struct lookup {
	struct scrub *sc;
	const vpn_t *vpns;
	size_t n;
	uint64_t found; /* bitmap: pages of which a place is known */
};

static void place_found(void *arg, const struct fs_place *p)
{
	static const char *const kinds[] = {
		[FS_PLACE_DATA] = "contents",
		[FS_PLACE_DIR] = "directory",
		[FS_PLACE_XATTR] = "attributes",
	};
	struct lookup *lk = arg;
	char text[5120], where[300] = "live";

	for (size_t i = 0; i < lk->n; i++)
		if (lk->vpns[i] == p->vpn)
			lk->found |= UINT64_C(1) << i;
	if (p->volume[0])
		snprintf(where, sizeof(where), "snapshot %s", p->volume);
	if (p->kind == FS_PLACE_INODES)
		snprintf(text, sizeof(text),
			 "%s: inodes %" PRIu64 " to %" PRIu64 ": page %" PRIu64 " is damaged",
			 where, p->off, p->off + p->len - 1, p->vpn);
	else
		snprintf(text, sizeof(text),
			 "%s: inode %" PRIu64 "%s%s%s, %s: %" PRIu64 " bytes at byte %" PRIu64
			 " are damaged (page %" PRIu64 ")",
			 where, p->ino, p->path[0] ? " (" : "", p->path, p->path[0] ? ")" : "",
			 kinds[p->kind], p->len, p->off, p->vpn);
	note(lk->sc, text);
}

/* Say where the pages are that were found damaged since the last time. */
static void look_up(struct scrub *sc)
{
	vpn_t vpns[LOOKUP_MAX];
	struct lookup lk = {.sc = sc, .vpns = vpns};
	char text[100];

	while (!atomic_load(&sc->quit) && (lk.n = store_bad_take(sc->st, vpns, LOOKUP_MAX))) {
		lk.found = 0;
		if (fs_find_pages(sc->fs, vpns, lk.n, place_found, &lk))
			log_warn("there is no memory to find out whose the damaged pages are");
		for (size_t i = 0; i < lk.n; i++) {
			if (lk.found >> i & 1)
				continue;
			snprintf(text, sizeof(text),
				 "page %" PRIu64 " is damaged; no file was found that has it",
				 vpns[i]);
			note(sc, text);
		}
	}
}

/* ------------------------------------------------------------------ the pass */

static bool stopping(const struct scrub *sc)
{
	return atomic_load(&sc->quit) || atomic_load(&sc->stop);
}

/* Wait until `bytes` may have been read since the beginning. */
static void pace(struct scrub *sc, uint64_t bytes)
{
	mutex_lock(&sc->lock);
	while (sc->rate && !stopping(sc)) {
		const double due = (double)sc->began + (double)bytes / (double)sc->rate * 1e9;
		const double now = (double)units_monotonic_ns();

		if (now >= due)
			break;
		(void)cond_timedwait_ms(&sc->changed, &sc->lock,
					(uint64_t)MIN((due - now) / 1e6 + 1, 60000.0));
	}
	mutex_unlock(&sc->lock);
}

static int pass_pages(struct scrub *sc)
{
	struct store_verified done = {0};
	int64_t looked = units_monotonic_ns();
	vpn_t vpn = 0;

	for (vpn_t limit = store_vpn_limit(sc->st); vpn < limit; limit = store_vpn_limit(sc->st)) {
		if (stopping(sc))
			return -ECANCELED;
		vpn = store_verify(sc->st, vpn, SCRUB_STEP, &done);
		atomic_store(&sc->pages, done.pages);
		atomic_store(&sc->nodes, done.nodes);
		atomic_store(&sc->dirty, done.dirty);
		atomic_store(&sc->bad_pages, done.bad_pages);
		atomic_store(&sc->bad_nodes, done.bad_nodes);
		atomic_store(&sc->progress,
			     (uint64_t)((double)MIN(vpn, limit) / (double)limit * 1e6));
		if (units_monotonic_ns() - looked > LOOKUP_EVERY_NS) {
			look_up(sc);
			looked = units_monotonic_ns();
		}
		pace(sc, (done.pages + done.nodes) * PMFS_PAGE_SIZE);
	}
	look_up(sc);
	return 0;
}

static void structure_found(void *arg, const char *what)
{
	struct scrub *sc = arg;

	atomic_fetch_add(&sc->structure_findings, 1);
	note(sc, what);
}

static bool structure_stop(void *arg)
{
	return stopping(arg);
}

static void pass(struct scrub *sc, bool structure)
{
	struct store_stats stats;
	int rc = 0;

	/* What is written but not committed has no hash yet. */
	if (!store_read_only(sc->st) && !store_error(sc->st))
		rc = commit_now(sc->st);
	store_stat(sc->st, &stats);
	atomic_store(&sc->total, stats.pages - stats.holes);
	if (!rc)
		rc = pass_pages(sc);
	if (!rc && structure)
		rc = fs_check_running(sc->fs, structure_stop, structure_found, sc);
	mutex_lock(&sc->lock);
	sc->state = SCRUB_IDLE;
	sc->error = rc < 0 && rc != -ECANCELED ? rc : 0;
	sc->finished_ns = (uint64_t)units_now_ns();
	sc->ended = units_monotonic_ns();
	if (rc >= 0) {
		atomic_store(&sc->progress, 1000000);
		atomic_fetch_add(&sc->passes, 1);
	}
	cond_broadcast(&sc->changed);
	mutex_unlock(&sc->lock);
}

static void *scrub_main(void *arg)
{
	struct scrub *sc = arg;
	bool asked, structure;
	uint64_t settle;

	while (!atomic_load(&sc->quit)) {
		while (sem_wait(&sc->wake) && errno == EINTR)
			;
		mutex_lock(&sc->lock);
		asked = sc->asked;
		structure = sc->structure;
		settle = sc->unsettled;
		sc->asked = false;
		mutex_unlock(&sc->lock);
		look_up(sc);
		if (asked)
			pass(sc, structure);
		mutex_lock(&sc->lock);
		sc->settled = settle;
		cond_broadcast(&sc->changed);
		mutex_unlock(&sc->lock);
	}
	return NULL;
}

int scrub_new(struct scrub **out, struct fs *fs)
{
	struct scrub *sc = calloc(1, sizeof(*sc));
	int rc;

	if (!sc)
		return -ENOMEM;
	sc->fs = fs;
	sc->st = fs_store(fs);
	sem_init(&sc->wake, 0, 0);
	mutex_init(&sc->lock, LOCK_SCRUB);
	cond_init(&sc->changed);
	rc = thread_start(&sc->thread, "pmfs-scrub", scrub_main, sc);
	if (rc) {
		cond_destroy(&sc->changed);
		mutex_destroy(&sc->lock);
		sem_destroy(&sc->wake);
		free(sc);
		return rc;
	}
	store_on_bad(sc->st, wake, sc);
	*out = sc;
	return 0;
}

void scrub_free(struct scrub *sc)
{
	if (!sc)
		return;
	store_on_bad(sc->st, NULL, NULL);
	mutex_lock(&sc->lock);
	atomic_store(&sc->quit, true);
	cond_broadcast(&sc->changed);
	mutex_unlock(&sc->lock);
	sem_post(&sc->wake);
	thread_join(sc->thread);
	forget_findings_locked(sc);
	cond_destroy(&sc->changed);
	mutex_destroy(&sc->lock);
	sem_destroy(&sc->wake);
	free(sc);
}

int scrub_start(struct scrub *sc, bool structure, uint64_t rate)
{
	mutex_lock(&sc->lock);
	if (sc->state != SCRUB_IDLE) {
		mutex_unlock(&sc->lock);
		return -EALREADY;
	}
	sc->state = SCRUB_RUNNING;
	sc->asked = true;
	sc->structure = structure;
	sc->rate = rate;
	sc->error = 0;
	sc->started_ns = (uint64_t)units_now_ns();
	sc->finished_ns = 0;
	sc->began = units_monotonic_ns();
	forget_findings_locked(sc);
	store_bad_forget(sc->st);
	atomic_store(&sc->stop, false);
	atomic_store(&sc->progress, 0);
	atomic_store(&sc->pages, 0);
	atomic_store(&sc->nodes, 0);
	atomic_store(&sc->dirty, 0);
	atomic_store(&sc->bad_pages, 0);
	atomic_store(&sc->bad_nodes, 0);
	atomic_store(&sc->structure_findings, 0);
	mutex_unlock(&sc->lock);
	sem_post(&sc->wake);
	return 0;
}

int scrub_stop(struct scrub *sc)
{
	int rc = 0;

	mutex_lock(&sc->lock);
	if (sc->state == SCRUB_IDLE)
		rc = -ESRCH;
	atomic_store(&sc->stop, true);
	cond_broadcast(&sc->changed);
	while (sc->state != SCRUB_IDLE)
		cond_wait(&sc->changed, &sc->lock);
	mutex_unlock(&sc->lock);
	return rc;
}

int scrub_wait(struct scrub *sc, int timeout_ms)
{
	const int64_t end = units_monotonic_ns() + MAX(timeout_ms, 0) * INT64_C(1000000);
	int rc = 0;

	mutex_lock(&sc->lock);
	while (sc->state != SCRUB_IDLE && !rc) {
		const int64_t at = units_monotonic_ns();

		if (timeout_ms < 0)
			cond_wait(&sc->changed, &sc->lock);
		else if (at >= end)
			rc = -ETIMEDOUT;
		else
			cond_timedwait_ms(&sc->changed, &sc->lock,
					  (uint64_t)(end - at) / 1000000u + 1);
	}
	if (!rc)
		rc = sc->error;
	mutex_unlock(&sc->lock);
	return rc;
}

void scrub_settle(struct scrub *sc)
{
	uint64_t want;

	mutex_lock(&sc->lock);
	want = ++sc->unsettled;
	mutex_unlock(&sc->lock);
	sem_post(&sc->wake);
	mutex_lock(&sc->lock);
	while (sc->settled < want)
		cond_wait(&sc->changed, &sc->lock);
	mutex_unlock(&sc->lock);
}

int scrub_each_finding(struct scrub *sc, int (*fn)(void *arg, const char *text), void *arg)
{
	int rc = 0;

	mutex_lock(&sc->lock);
	for (size_t i = 0; i < sc->kept && !rc; i++)
		rc = fn(arg, sc->finding[i]);
	mutex_unlock(&sc->lock);
	return rc;
}

void scrub_stat(struct scrub *sc, struct scrub_stats *out)
{
	double seconds;

	memset(out, 0, sizeof(*out));
	mutex_lock(&sc->lock);
	out->state = sc->state;
	out->structure = sc->structure;
	out->error = sc->error;
	out->rate = sc->rate;
	out->started_ns = sc->started_ns;
	out->finished_ns = sc->finished_ns;
	out->findings = sc->findings;
	seconds = (double)((sc->state == SCRUB_RUNNING ? units_monotonic_ns() : sc->ended) -
			   sc->began) /
		  1e9;
	mutex_unlock(&sc->lock);
	out->percent = (double)atomic_load(&sc->progress) / 1e4;
	out->pages_total = atomic_load(&sc->total);
	out->pages_scanned = atomic_load(&sc->pages);
	out->pages_dirty = atomic_load(&sc->dirty);
	out->nodes_scanned = atomic_load(&sc->nodes);
	out->bad_pages = atomic_load(&sc->bad_pages);
	out->bad_nodes = atomic_load(&sc->bad_nodes);
	out->structure_findings = atomic_load(&sc->structure_findings);
	out->passes = atomic_load(&sc->passes);
	if (seconds > 0)
		out->bytes_per_second =
			(uint64_t)((double)(out->pages_scanned + out->nodes_scanned) *
				   PMFS_PAGE_SIZE / seconds);
	if (out->state != SCRUB_IDLE && out->percent > 0)
		out->eta_seconds = (uint64_t)(seconds * (100 - out->percent) / out->percent + 0.5);
}
