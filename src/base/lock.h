/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lock.h - mutexes, rwlocks and condition variables that know the order they are taken in.
 * Every lock of pmfs has a rank.  LOCK_RANKS is the list of all of them, in the order in which a
 * thread may take them:
 *
 *   L1  A thread takes a lock only if its rank is greater than every rank it holds.
 *   L2  Locks of one rank marked SAME may be held several at a time; the module that owns the
 *       rank orders them among themselves (its header says how).
 *   L3  A trylock is exempt from L1, since it can't wait; what it got counts as held.
 *   L4  The thread that took a lock releases it.
 *   L5  cond_wait takes its mutex again when it wakes up, so L1 holds for it there, too.
 *
 * With PMFS_DEBUG (configure --enable-debug) a violation prints both ranks and aborts.
 * Without it a wrapper is the pthread call and nothing else.
 */
#ifndef PMFS_BASE_LOCK_H
#define PMFS_BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define LOCK_RANKS(X)								\
	X(LOCK_CTL, ONE)	/* the table of control clients */		\
	X(LOCK_MOUNT, ONE)	/* state of a mount and its sessions */		\
	X(LOCK_DEDUP, ONE)	/* state of the dedup service */		\
	X(LOCK_SCRUB, ONE)	/* state of the scrub service */		\
	X(LOCK_VIEW, ONE)	/* the memory of one view */			\
	X(LOCK_VIEWS, ONE)	/* the list of views in memory */		\
	X(LOCK_SNAP, ONE)	/* making, renaming and deleting snapshots */	\
	X(LOCK_RENAME, ONE)	/* which directory is below which */		\
	X(LOCK_INODE, SAME)	/* one inode */					\
	X(LOCK_RECLAIM, ONE)	/* giving back what was deleted */		\
	X(LOCK_TXN, ONE)	/* rwlock, shared for a whole transaction */	\
	X(LOCK_ITABLE, ONE)	/* the inode file */				\
	X(LOCK_TABLE, ONE)	/* the volume table */				\
	X(LOCK_SHARE, ONE)	/* who is the last owner of a shared page */	\
	X(LOCK_ICACHE, ONE)	/* the table of inodes in memory */		\
	X(LOCK_VOLUMES, ONE)	/* the list of volumes */			\
	X(LOCK_COMMIT, ONE)	/* closing and publishing a generation */	\
	X(LOCK_PAGE, SAME)	/* the contents of one page */			\
	X(LOCK_MAP, ONE)	/* the upper part of the page map */		\
	X(LOCK_MAPLEAF, SAME)	/* one leaf of the page map */			\
	X(LOCK_VPN, ONE)	/* free page numbers */				\
	X(LOCK_GROW, ONE)	/* growing, punching and backing frames */	\
	X(LOCK_FRAME, ONE)	/* free frames */				\
	X(LOCK_REGION, ONE)	/* size and backing of the region */		\
	X(LOCK_LEAF, ONE)	/* any lock under which no other is taken */

enum lock_rank {
#define X(name, same) name,
	LOCK_RANKS(X)
#undef X
	LOCK_RANK_COUNT
};

struct mutex {
	pthread_mutex_t m;
#ifdef PMFS_DEBUG
	enum lock_rank rank;
#endif
};

/* Waiting writers go before new readers, so a thread must not take one shared twice. */
struct rwlock {
	pthread_rwlock_t rw;
#ifdef PMFS_DEBUG
	enum lock_rank rank;
#endif
};

struct cond {
	pthread_cond_t c;
};

#ifdef PMFS_DEBUG
enum lock_how { LOCK_HOW_MUTEX, LOCK_HOW_READ, LOCK_HOW_WRITE };

/* The checker behind the wrappers; each aborts when its rule is broken. */
void lock_debug_taking(const void *lock, enum lock_rank rank);
void lock_debug_taken(const void *lock, enum lock_rank rank, enum lock_how how);
void lock_debug_releasing(const void *lock, enum lock_rank rank);
void lock_debug_waiting(const void *lock, enum lock_rank rank);
void lock_debug_held(const void *lock, enum lock_rank rank, bool exclusive);

#define LOCK_DEBUG(call) (call)
#else
#define LOCK_DEBUG(call) ((void)0)
#endif

/* The name of a rank, for messages. */
const char *lock_rank_name(enum lock_rank rank);

/* Ends the process: a pthread call on a lock failed, which only a broken lock can cause. */
_Noreturn void lock_fail(const char *what, int err);

static inline void lock_must(const char *what, int err)
{
	if (__builtin_expect(err != 0, 0))
		lock_fail(what, err);
}

static inline void mutex_init(struct mutex *m, enum lock_rank rank)
{
#ifdef PMFS_DEBUG
	m->rank = rank;
#else
	(void)rank;
#endif
	lock_must("mutex_init", pthread_mutex_init(&m->m, NULL));
}

static inline void mutex_destroy(struct mutex *m)
{
	lock_must("mutex_destroy", pthread_mutex_destroy(&m->m));
}

static inline void mutex_lock(struct mutex *m)
{
	LOCK_DEBUG(lock_debug_taking(m, m->rank));
	lock_must("mutex_lock", pthread_mutex_lock(&m->m));
	LOCK_DEBUG(lock_debug_taken(m, m->rank, LOCK_HOW_MUTEX));
}

/* True when the mutex was free and is now held. */
static inline bool mutex_trylock(struct mutex *m)
{
	if (pthread_mutex_trylock(&m->m))
		return false;
	LOCK_DEBUG(lock_debug_taken(m, m->rank, LOCK_HOW_MUTEX));
	return true;
}

static inline void mutex_unlock(struct mutex *m)
{
	LOCK_DEBUG(lock_debug_releasing(m, m->rank));
	lock_must("mutex_unlock", pthread_mutex_unlock(&m->m));
}

/* The calling thread holds m.  Checked in debug builds only, like the other asserts below. */
static inline void mutex_assert_held(const struct mutex *m)
{
	(void)m;
	LOCK_DEBUG(lock_debug_held(m, m->rank, true));
}

void rw_init(struct rwlock *rw, enum lock_rank rank);

static inline void rw_destroy(struct rwlock *rw)
{
	lock_must("rw_destroy", pthread_rwlock_destroy(&rw->rw));
}

static inline void rw_rdlock(struct rwlock *rw)
{
	LOCK_DEBUG(lock_debug_taking(rw, rw->rank));
	lock_must("rw_rdlock", pthread_rwlock_rdlock(&rw->rw));
	LOCK_DEBUG(lock_debug_taken(rw, rw->rank, LOCK_HOW_READ));
}

static inline void rw_wrlock(struct rwlock *rw)
{
	LOCK_DEBUG(lock_debug_taking(rw, rw->rank));
	lock_must("rw_wrlock", pthread_rwlock_wrlock(&rw->rw));
	LOCK_DEBUG(lock_debug_taken(rw, rw->rank, LOCK_HOW_WRITE));
}

/* True when the lock could be had at once and is now held. */
static inline bool rw_tryrdlock(struct rwlock *rw)
{
	if (pthread_rwlock_tryrdlock(&rw->rw))
		return false;
	LOCK_DEBUG(lock_debug_taken(rw, rw->rank, LOCK_HOW_READ));
	return true;
}

static inline bool rw_trywrlock(struct rwlock *rw)
{
	if (pthread_rwlock_trywrlock(&rw->rw))
		return false;
	LOCK_DEBUG(lock_debug_taken(rw, rw->rank, LOCK_HOW_WRITE));
	return true;
}

static inline void rw_unlock(struct rwlock *rw)
{
	LOCK_DEBUG(lock_debug_releasing(rw, rw->rank));
	lock_must("rw_unlock", pthread_rwlock_unlock(&rw->rw));
}

/* The calling thread holds rw, shared or exclusive. */
static inline void rw_assert_held(const struct rwlock *rw)
{
	(void)rw;
	LOCK_DEBUG(lock_debug_held(rw, rw->rank, false));
}

/* The calling thread holds rw exclusively. */
static inline void rw_assert_wrheld(const struct rwlock *rw)
{
	(void)rw;
	LOCK_DEBUG(lock_debug_held(rw, rw->rank, true));
}

/* Timed waits use the monotonic clock. */
void cond_init(struct cond *c);

static inline void cond_destroy(struct cond *c)
{
	lock_must("cond_destroy", pthread_cond_destroy(&c->c));
}

/* May wake up without a signal: wait in a loop over the condition.  The caller holds m. */
static inline void cond_wait(struct cond *c, struct mutex *m)
{
	LOCK_DEBUG(lock_debug_waiting(m, m->rank));
	lock_must("cond_wait", pthread_cond_wait(&c->c, &m->m));
}

/*
 * As cond_wait, for ms milliseconds at most: 0, or -ETIMEDOUT when they have passed.
 * m is held again in both cases.
 */
int cond_timedwait_ms(struct cond *c, struct mutex *m, uint64_t ms);

static inline void cond_signal(struct cond *c)
{
	lock_must("cond_signal", pthread_cond_signal(&c->c));
}

static inline void cond_broadcast(struct cond *c)
{
	lock_must("cond_broadcast", pthread_cond_broadcast(&c->c));
}

#endif
