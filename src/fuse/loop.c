/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuse/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "fuse/front_impl.h"

/* The header and the arguments of a WRITE; placed so that the payload begins on a page. */
#define WRITE_HEAD 80u
#define PAGE	   4096u
#define READ_SIZE  (LOOP_MAX_WRITE + PAGE)

/* Takes a thread out of read(2).  It may come before the read begins, so it is sent until it has
 * worked. */
#define WAKE_SIGNAL   SIGUSR1
#define WAKE_AGAIN_MS 1

/*
 * The device wakes the thread that has waited longest, so with many of them each request is for
 * another one, whose caches are cold, and on a busy machine for one that has to wait for its turn.
 * So a few are all there is as long as they get on: loop_run() looks now and then while no thread
 * reads, and adds one when all are stuck, or when they have been busy for a while.  Who was not
 * needed for some requests stands aside again.
 */
#define READERS	     2
#define LOOK_MS	     1
#define STUCK_LOOKS  1u	  /* without a request begun */
#define BUSY_LOOKS   20u  /* in a row at which nobody read */
#define QUIET_LOOKS  100u /* in a row since somebody was last missing */
#define UNNEEDED_MAX 16u

struct in_header { /* struct fuse_in_header of the protocol */
	uint32_t len, opcode;
	uint64_t unique, nodeid;
	uint32_t uid, gid, pid, padding;
};

struct worker {
	struct worker *next; /* guarded by the loop's lock */
	struct loop *loop;
	pthread_t thread;
	void *block; /* what was allocated */
	char *buf;
	_Atomic uint64_t idles; /* how often it has had nothing in hand */
	_Atomic bool reading;	/* and waits for more, or is about to */
	unsigned unneeded; /* requests in a row after which there were readers enough; its own */
	bool parked;	   /* guarded by the loop's lock */
};

struct loop {
	struct fuse_session *se;
	unsigned max_threads;
	void (*before)(void *arg, void *request, size_t len);
	void *arg;

	struct mutex lock;	/* LOCK_LEAF */
	struct cond changed;	/* `ending` or `missing` was set, or `live` has become 0 */
	struct cond idled;	/* for watchers: `idles` of a worker */
	struct cond unparked;	/* `unpark` was set, or `ending` */
	struct worker *workers; /* guarded by lock; they stay until the end */
	unsigned parked, unpark; /* guarded by lock; threads aside; of these, that may go on */
	unsigned count,
		live;	     /* guarded by lock; of the threads, and of those that have not ended */
	int error;	     /* guarded by lock */
	_Atomic bool ending; /* set under lock */
	_Atomic int idle;    /* threads that read, or are about to */
	_Atomic bool missing;  /* there was none for a moment */
	_Atomic bool looking;  /* loop_run() is awake and will see that; set under lock */
	_Atomic unsigned watchers; /* loop_quiesce() waits for `idled`; set under lock */
};

static void woken(int sig)
{
	(void)sig;
}

int loop_new(struct loop **out, struct fuse_session *se, unsigned max_threads,
	     void (*before)(void *arg, void *request, size_t len), void *arg)
{
	/* Without SA_RESTART: read(2) says EINTR. */
	const struct sigaction sa = {.sa_handler = woken};
	struct loop *lp = calloc(1, sizeof(*lp));

	if (!lp)
		return -ENOMEM;
	if (sigaction(WAKE_SIGNAL, &sa, NULL)) {
		free(lp);
		return -errno;
	}
	lp->se = se;
	lp->max_threads = max_threads ? max_threads : 1;
	lp->before = before;
	lp->arg = arg;
	mutex_init(&lp->lock, LOCK_LEAF);
	cond_init(&lp->changed);
	cond_init(&lp->idled);
	cond_init(&lp->unparked);
	*out = lp;
	return 0;
}

void loop_free(struct loop *lp)
{
	if (!lp)
		return;
	cond_destroy(&lp->changed);
	cond_destroy(&lp->unparked);
	cond_destroy(&lp->idled);
	mutex_destroy(&lp->lock);
	free(lp);
}

static void loop_end(struct loop *lp, int err)
{
	mutex_lock(&lp->lock);
	if (err && !lp->error)
		lp->error = err;
	atomic_store(&lp->ending, true);
	cond_broadcast(&lp->changed);
	cond_broadcast(&lp->unparked);
	mutex_unlock(&lp->lock);
	fuse_session_exit(lp->se);
}

void loop_exit(struct loop *lp)
{
	loop_end(lp, 0);
}

unsigned loop_threads(struct loop *lp)
{
	unsigned n;

	mutex_lock(&lp->lock);
	n = lp->count;
	mutex_unlock(&lp->lock);
	return n;
}

static void *worker_main(void *arg);

static int worker_start_locked(struct loop *lp)
{
	struct worker *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return -ENOMEM;
	w->loop = lp;
	rc = -posix_memalign(&w->block, PAGE, READ_SIZE + PAGE);
	if (rc)
		goto fail;
	w->buf = (char *)w->block + PAGE - WRITE_HEAD;
	atomic_fetch_add(&lp->idle, 1);
	rc = thread_start(&w->thread, "pmfs-request", worker_main, w);
	if (rc) {
		atomic_fetch_sub(&lp->idle, 1);
		goto fail;
	}
	w->next = lp->workers;
	lp->workers = w;
	lp->count++;
	lp->live++;
	return 0;
fail:
	free(w->block);
	free(w);
	return rc;
}

/* The last thread that was reading has got a request. */
static void loop_miss(struct loop *lp)
{
	/* In this order; loop_look_locked() has it the other way round. */
	atomic_store(&lp->missing, true);
	if (atomic_load(&lp->looking))
		return;
	mutex_lock(&lp->lock);
	cond_signal(&lp->changed);
	mutex_unlock(&lp->lock);
}

static void loop_grow_locked(struct loop *lp)
{
	int rc = 0;

	if (lp->unpark < lp->parked) {
		atomic_fetch_add(&lp->idle, 1); /* for the one that goes on */
		lp->unpark++;
		cond_signal(&lp->unparked);
	} else if (lp->count < lp->max_threads) {
		rc = worker_start_locked(lp);
	}
	if (rc)
		log_limited(LOG_LEVEL_WARN, "loop-grow", "no thread for more requests: %s",
			    strerror(-rc));
}

/* Look after readers until the end.  Locks: held, but while it waits. */
static void loop_look_locked(struct loop *lp)
{
	uint64_t begun = 0, before;
	unsigned stuck = 0, busy = 0, quiet = 0;

	atomic_store(&lp->looking, true);
	while (!atomic_load(&lp->ending)) {
		if (quiet >= QUIET_LOOKS) {
			atomic_store(&lp->looking, false);
			while (!atomic_load(&lp->missing) && !atomic_load(&lp->ending))
				cond_wait(&lp->changed, &lp->lock);
			atomic_store(&lp->looking, true);
		}
		cond_timedwait_ms(&lp->changed, &lp->lock, LOOK_MS);
		quiet = atomic_exchange(&lp->missing, false) ? 0 : quiet + 1;
		before = begun;
		begun = 0;
		for (const struct worker *w = lp->workers; w; w = w->next)
			begun += atomic_load(&w->idles);
		if (atomic_load(&lp->idle) > 0) {
			stuck = busy = 0;
			continue;
		}
		quiet = 0;
		stuck = begun == before ? stuck + 1 : 0;
		if (stuck < STUCK_LOOKS && ++busy < BUSY_LOOKS)
			continue;
		loop_grow_locked(lp);
		stuck = busy = 0;
	}
}

/* Stand aside until there are too few readers again. */
static void worker_park(struct worker *w)
{
	struct loop *lp = w->loop;
	int idle = atomic_load(&lp->idle);

	w->unneeded = 0;
	mutex_lock(&lp->lock);
	/* In one step: who takes `idle` to 0 looks after a reader, and that must not be us. */
	do {
		if (atomic_load(&lp->ending) || idle <= READERS) {
			mutex_unlock(&lp->lock);
			return;
		}
	} while (!atomic_compare_exchange_weak(&lp->idle, &idle, idle - 1));
	w->parked = true;
	lp->parked++;
	cond_broadcast(&lp->idled);
	while (!lp->unpark && !atomic_load(&lp->ending))
		cond_wait(&lp->unparked, &lp->lock);
	if (lp->unpark)
		lp->unpark--;
	lp->parked--;
	w->parked = false;
	mutex_unlock(&lp->lock);
}

/* One request into the buffer: its length; 0: the end; negative errno. */
static ssize_t worker_read(struct worker *w)
{
	const int fd = fuse_session_fd(w->loop->se);
	ssize_t n;
	int err;

	/* In this order: who ends the loop sets `ending` first and wakes up whoever reads then. */
	atomic_store(&w->reading, true);
	if (atomic_load(&w->loop->ending)) {
		n = -1;
		err = EINTR;
	} else {
		n = read(fd, w->buf, READ_SIZE);
		err = errno;
	}
	atomic_store(&w->reading, false);
	if (n >= 0)
		return n;
	return err == ENODEV ? 0 : -err;
}

static void worker_handle(struct worker *w, size_t len)
{
	struct loop *lp = w->loop;
	struct fuse_buf buf = {.size = len, .mem = w->buf};

	if (atomic_fetch_sub(&lp->idle, 1) == 1)
		loop_miss(lp);
	if (lp->before)
		lp->before(lp->arg, w->buf, len);
	fuse_session_process_buf(lp->se, &buf);
	w->unneeded = atomic_fetch_add(&lp->idle, 1) >= READERS ? w->unneeded + 1 : 0;
	if (w->unneeded >= UNNEEDED_MAX)
		worker_park(w);
}

static void tell_watchers(struct loop *lp)
{
	mutex_lock(&lp->lock);
	cond_broadcast(&lp->idled);
	mutex_unlock(&lp->lock);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct loop *lp = w->loop;
	sigset_t wake;

	sigemptyset(&wake);
	sigaddset(&wake, WAKE_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
	while (!atomic_load(&lp->ending)) {
		ssize_t n;

		atomic_fetch_add(&w->idles, 1);
		if (atomic_load(&lp->watchers))
			tell_watchers(lp);
		n = worker_read(w);
		/* ENOENT: the caller was interrupted before we got its request. */
		if (n == -EINTR || n == -ENOENT || n == -EAGAIN)
			continue;
		if (n <= 0) {
			loop_end(lp, (int)n);
			break;
		}
		if ((size_t)n < sizeof(struct in_header)) {
			loop_end(lp, -EPROTO);
			break;
		}
		worker_handle(w, (size_t)n);
		if (fuse_session_exited(lp->se)) {
			loop_end(lp, 0);
			break;
		}
	}
	/* Nothing in hand for ever after. */
	atomic_store(&w->idles, UINT64_MAX);
	mutex_lock(&lp->lock);
	cond_broadcast(&lp->idled);
	if (--lp->live == 0)
		cond_broadcast(&lp->changed);
	mutex_unlock(&lp->lock);
	return NULL;
}

int loop_run(struct loop *lp)
{
	struct worker *w;
	int rc = 0;

	mutex_lock(&lp->lock);
	while (!rc && lp->count < READERS && lp->count < lp->max_threads)
		rc = worker_start_locked(lp);
	/* One is enough to begin with. */
	if (rc && !lp->count) {
		mutex_unlock(&lp->lock);
		return rc;
	}
	loop_look_locked(lp);
	while (lp->live) {
		for (w = lp->workers; w; w = w->next)
			if (atomic_load(&w->reading))
				pthread_kill(w->thread, WAKE_SIGNAL);
		cond_timedwait_ms(&lp->changed, &lp->lock, WAKE_AGAIN_MS);
	}
	mutex_unlock(&lp->lock);
	for (w = lp->workers; w; w = w->next)
		thread_join(w->thread);
	mutex_lock(&lp->lock);
	rc = lp->error;
	while ((w = lp->workers)) {
		lp->workers = w->next;
		free(w->block);
		free(w);
	}
	lp->count = 0;
	mutex_unlock(&lp->lock);
	return rc;
}

/*
 * A thread that has had nothing in hand since then has finished what it had.  One that sleeps in
 * read() or has just come out of it with a request can't be told apart, so all who may be there get
 * a signal: it takes the one out of read(), and does nothing to the other.  It may come before the
 * read begins, so it is sent until it has worked.
 */
int loop_quiesce(struct loop *lp)
{
	struct {
		struct worker *w;
		uint64_t idles;
	} * seen;
	unsigned n = 0, left;

	mutex_lock(&lp->lock);
	seen = calloc(lp->count + 1, sizeof(*seen));
	if (!seen) {
		mutex_unlock(&lp->lock);
		return -ENOMEM;
	}
	for (struct worker *w = lp->workers; w; w = w->next) {
		seen[n].w = w;
		seen[n++].idles = atomic_load(&w->idles);
	}
	atomic_fetch_add(&lp->watchers, 1);
	/* Where loop_run() has ended, the threads are gone, and what they had has been answered. */
	while (lp->count) {
		left = 0;
		for (unsigned i = 0; i < n; i++) {
			if (seen[i].w->parked || atomic_load(&seen[i].w->idles) > seen[i].idles)
				continue;
			left++;
			if (atomic_load(&seen[i].w->reading))
				pthread_kill(seen[i].w->thread, WAKE_SIGNAL);
		}
		if (!left)
			break;
		cond_timedwait_ms(&lp->idled, &lp->lock, WAKE_AGAIN_MS);
	}
	atomic_fetch_sub(&lp->watchers, 1);
	mutex_unlock(&lp->lock);
	free(seen);
	return 0;
}
