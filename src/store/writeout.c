/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/writeout.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/lock.h"
#include "base/thread.h"

/* The host is asked when so many frames have come together: requests of a good size for any disk. */
#define STEP ((UINT64_C(4) << 20) / PMFS_PAGE_SIZE)
#define RUNS 64u
/* A single node or inode between two runs belongs to the same stream. */
#define GAP 4u

struct run {
	pfn_t pfn;
	uint64_t n;
};

struct writeout {
	struct region *rg;
	pthread_t thread;
	struct mutex lock; /* LOCK_LEAF; guards the rest */
	struct cond wake;
	struct run run[RUNS];
	unsigned count;
	uint64_t waiting; /* frames in these */
	bool stop;
	_Atomic uint64_t asked; /* read without the lock */
};

static void *writeout_main(void *arg)
{
	struct writeout *wo = arg;
	struct run run[RUNS];
	unsigned n;

	mutex_lock(&wo->lock);
	for (;;) {
		while (!wo->stop && wo->waiting < STEP)
			cond_wait(&wo->wake, &wo->lock);
		if (wo->stop)
			break;
		n = wo->count;
		for (unsigned i = 0; i < n; i++)
			run[i] = wo->run[i];
		wo->count = 0;
		wo->waiting = 0;
		mutex_unlock(&wo->lock);
		for (unsigned i = 0; i < n; i++) {
			region_start_flush(wo->rg, run[i].pfn, run[i].n);
			atomic_fetch_add(&wo->asked, run[i].n);
		}
		mutex_lock(&wo->lock);
	}
	mutex_unlock(&wo->lock);
	return NULL;
}

int writeout_new(struct writeout **out, struct region *rg)
{
	struct writeout *wo = calloc(1, sizeof(*wo));
	int rc;

	if (!wo)
		return -ENOMEM;
	wo->rg = rg;
	mutex_init(&wo->lock, LOCK_LEAF);
	cond_init(&wo->wake);
	rc = thread_start(&wo->thread, "pmfs-writeout", writeout_main, wo);
	if (rc) {
		cond_destroy(&wo->wake);
		mutex_destroy(&wo->lock);
		free(wo);
		return rc;
	}
	*out = wo;
	return 0;
}

void writeout_free(struct writeout *wo)
{
	if (!wo)
		return;
	mutex_lock(&wo->lock);
	wo->stop = true;
	cond_signal(&wo->wake);
	mutex_unlock(&wo->lock);
	thread_join(wo->thread);
	cond_destroy(&wo->wake);
	mutex_destroy(&wo->lock);
	free(wo);
}

void writeout_add(struct writeout *wo, pfn_t pfn, uint64_t n)
{
	struct run *last;

	if (!wo || n < WRITEOUT_RUN)
		return;
	mutex_lock(&wo->lock);
	last = wo->count ? &wo->run[wo->count - 1] : NULL;
	if (last && pfn >= last->pfn + last->n && pfn - (last->pfn + last->n) <= GAP) {
		wo->waiting += pfn + n - (last->pfn + last->n);
		last->n = pfn + n - last->pfn;
	} else if (wo->count < RUNS) {
		wo->run[wo->count++] = (struct run){pfn, n};
		wo->waiting += n;
	}
	if (wo->waiting >= STEP)
		cond_signal(&wo->wake);
	mutex_unlock(&wo->lock);
}

uint64_t writeout_frames(const struct writeout *wo)
{
	return wo ? atomic_load(&wo->asked) : 0;
}
