/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/lock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const rank_names[] = {
#define X(name, same) #name,
	LOCK_RANKS(X)
#undef X
};

const char *lock_rank_name(enum lock_rank rank)
{
	return (unsigned int)rank < LOCK_RANK_COUNT ? rank_names[rank] : "LOCK_?";
}

_Noreturn void lock_fail(const char *what, int err)
{
	fprintf(stderr, "pmfs: %s: %s\n", what, strerror(err));
	abort();
}

void rw_init(struct rwlock *rw, enum lock_rank rank)
{
	pthread_rwlockattr_t attr;

#ifdef PMFS_DEBUG
	rw->rank = rank;
#else
	(void)rank;
#endif
	lock_must("rw_init", pthread_rwlockattr_init(&attr));
	lock_must("rw_init", pthread_rwlockattr_setkind_np(&attr,
			PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
	lock_must("rw_init", pthread_rwlock_init(&rw->rw, &attr));
	pthread_rwlockattr_destroy(&attr);
}

void cond_init(struct cond *c)
{
	pthread_condattr_t attr;

	lock_must("cond_init", pthread_condattr_init(&attr));
	lock_must("cond_init", pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
	lock_must("cond_init", pthread_cond_init(&c->c, &attr));
	pthread_condattr_destroy(&attr);
}

int cond_timedwait_ms(struct cond *c, struct mutex *m, uint64_t ms)
{
	/* Far enough to be for ever, near enough that time_t can't overflow. */
	const uint64_t longest = UINT64_C(1000) * 3600 * 24 * 365 * 100;
	struct timespec until;
	int err;

	if (ms > longest)
		ms = longest;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(ms / 1000);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	LOCK_DEBUG(lock_debug_waiting(m, m->rank));
	err = pthread_cond_timedwait(&c->c, &m->m, &until);
	if (err == ETIMEDOUT)
		return -ETIMEDOUT;
	lock_must("cond_timedwait", err);
	return 0;
}

#ifdef PMFS_DEBUG

static const bool rank_same[] = {
#define ONE false
#define SAME true
#define X(name, same) same,
	LOCK_RANKS(X)
#undef X
#undef SAME
#undef ONE
};

struct held {
	const void *lock;
	enum lock_rank rank;
	enum lock_how how;
};

/* More than any code path needs; many locks of one SAME rank at a time are a mistake, too. */
#define HELD_MAX 256

static _Thread_local struct held held[HELD_MAX];
static _Thread_local unsigned int nheld;

static struct held *find(const void *lock)
{
	for (unsigned int i = nheld; i-- > 0;)
		if (held[i].lock == lock)
			return &held[i];
	return NULL;
}

void lock_debug_taking(const void *lock, enum lock_rank rank)
{
	for (unsigned int i = 0; i < nheld; i++) {
		if (held[i].lock == lock) {
			fprintf(stderr, "pmfs: lock order: taking %s, which this thread holds\n",
				lock_rank_name(rank));
			abort();
		}
		if (held[i].rank > rank || (held[i].rank == rank && !rank_same[rank])) {
			fprintf(stderr, "pmfs: lock order: taking %s while holding %s\n",
				lock_rank_name(rank), lock_rank_name(held[i].rank));
			abort();
		}
	}
}

void lock_debug_taken(const void *lock, enum lock_rank rank, enum lock_how how)
{
	if (nheld == HELD_MAX) {
		fprintf(stderr, "pmfs: lock order: taking %s with %u locks held\n",
			lock_rank_name(rank), nheld);
		abort();
	}
	held[nheld++] = (struct held){ lock, rank, how };
}

void lock_debug_releasing(const void *lock, enum lock_rank rank)
{
	struct held *h = find(lock);

	if (!h) {
		fprintf(stderr, "pmfs: lock order: releasing %s, which this thread does not hold"
			" (it holds %s)\n", lock_rank_name(rank),
			nheld ? lock_rank_name(held[nheld - 1].rank) : "nothing");
		abort();
	}
	*h = held[--nheld];
}

void lock_debug_waiting(const void *lock, enum lock_rank rank)
{
	lock_debug_held(lock, rank, true);
	for (unsigned int i = 0; i < nheld; i++) {
		if (held[i].lock != lock && held[i].rank >= rank) {
			fprintf(stderr, "pmfs: lock order: waiting with %s while holding %s\n",
				lock_rank_name(rank), lock_rank_name(held[i].rank));
			abort();
		}
	}
}

void lock_debug_held(const void *lock, enum lock_rank rank, bool exclusive)
{
	const struct held *h = find(lock);

	if (!h) {
		fprintf(stderr, "pmfs: lock order: %s is needed here and not held\n",
			lock_rank_name(rank));
		abort();
	}
	if (exclusive && h->how == LOCK_HOW_READ) {
		fprintf(stderr, "pmfs: lock order: %s is needed exclusively and held shared\n",
			lock_rank_name(rank));
		abort();
	}
}

#endif
