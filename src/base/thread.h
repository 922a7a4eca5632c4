/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * thread.h - the threads of the daemon.
 * Signals that come from outside are for the main thread: they are blocked in all others.  The
 * ones a thread brings upon itself (SIGBUS, SIGSEGV, ...) are not.
 */
#ifndef PMFS_BASE_THREAD_H
#define PMFS_BASE_THREAD_H

#include <pthread.h>

/*
 * Run fn(arg) in a new thread called name (cut to 15 bytes).  0, or -EAGAIN and the like.
 * A thread that was started is joined exactly once.
 */
int thread_start(pthread_t *thread, const char *name, void *(*fn)(void *), void *arg);

/* Wait until the thread has ended. */
void thread_join(pthread_t thread);

#endif
