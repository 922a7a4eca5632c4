/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads for work that may wait for a disk, so that no ring does. */
#include <errno.h>
#include <stdlib.h>

#include "base/thread.h"
#include "fuse/front_impl.h"

struct pool {
	struct mutex lock;	  /* LOCK_LEAF */
	struct cond work;	  /* a job came, or `ending` */
	struct cond quiet;	  /* running == 0 and no job */
	struct job *head, **tail; /* guarded by lock */
	unsigned running;	  /* guarded by lock */
	bool closed, ending;	  /* guarded by lock */
	unsigned count;
	pthread_t threads[];
};

static void *pool_main(void *arg)
{
	struct pool *pool = arg;

	mutex_lock(&pool->lock);
	for (;;) {
		struct job *job = pool->head;

		if (!job) {
			if (pool->ending)
				break;
			cond_wait(&pool->work, &pool->lock);
			continue;
		}
		pool->head = job->next;
		if (!pool->head)
			pool->tail = &pool->head;
		pool->running++;
		mutex_unlock(&pool->lock);
		job->run(job);
		free(job);
		mutex_lock(&pool->lock);
		if (--pool->running == 0 && !pool->head)
			cond_broadcast(&pool->quiet);
	}
	mutex_unlock(&pool->lock);
	return NULL;
}

int pool_new(struct pool **out, unsigned threads)
{
	struct pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));
	int rc;

	if (!pool)
		return -ENOMEM;
	mutex_init(&pool->lock, LOCK_LEAF);
	cond_init(&pool->work);
	cond_init(&pool->quiet);
	pool->tail = &pool->head;
	for (; pool->count < threads; pool->count++) {
		rc = thread_start(&pool->threads[pool->count], "pmfs-work", pool_main, pool);
		if (rc) {
			pool_free(pool);
			return rc;
		}
	}
	*out = pool;
	return 0;
}

bool pool_add(struct pool *pool, const struct job *job)
{
	struct job *copy;
	bool taken = false;

	if (!pool)
		return false;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return false;
	*copy = *job;
	copy->next = NULL;
	mutex_lock(&pool->lock);
	if (!pool->closed) {
		*pool->tail = copy;
		pool->tail = &copy->next;
		cond_signal(&pool->work);
		taken = true;
	}
	mutex_unlock(&pool->lock);
	if (!taken)
		free(copy);
	return taken;
}

void pool_drain(struct pool *pool)
{
	if (!pool)
		return;
	mutex_lock(&pool->lock);
	pool->closed = true;
	while (pool->head || pool->running)
		cond_wait(&pool->quiet, &pool->lock);
	mutex_unlock(&pool->lock);
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	pool_drain(pool);
	mutex_lock(&pool->lock);
	pool->ending = true;
	cond_broadcast(&pool->work);
	mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->count; i++)
		thread_join(pool->threads[i]);
	cond_destroy(&pool->quiet);
	cond_destroy(&pool->work);
	mutex_destroy(&pool->lock);
	free(pool);
}
