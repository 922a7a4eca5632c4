/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

int thread_start(pthread_t *thread, const char *name, void *(*fn)(void *), void *arg)
{
	static const int own_signals[] = {
		SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP,
	};
	char short_name[16];
	sigset_t block, before;
	int err;

	sigfillset(&block);
	for (size_t i = 0; i < ARRAY_SIZE(own_signals); i++)
		sigdelset(&block, own_signals[i]);
	/* Inherited by the new thread, so that there is no moment when it could get one. */
	err = pthread_sigmask(SIG_BLOCK, &block, &before);
	if (err)
		return -err;
	err = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		return -err;
	snprintf(short_name, sizeof(short_name), "%s", name);
	pthread_setname_np(*thread, short_name);
	return 0;
}

void thread_join(pthread_t thread)
{
	const int err = pthread_join(thread, NULL);

	if (err) {
		fprintf(stderr, "pmfs: joining a thread: %s\n", strerror(err));
		abort();
	}
}
