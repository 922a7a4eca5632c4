/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ops.h - what can be asked of a daemon: the operations behind the control socket, without the
 * socket.
 */
#ifndef PMFS_CTL_OPS_H
#define PMFS_CTL_OPS_H

#include <stdbool.h>

#include "ctl/host.h"

struct ops_call {
	const struct ctl_host *host;
	const json_t *args; /* an object */
	bool may_change;    /* this peer may ask for changes */
	/* Send a line before the end (stolen): progress, items.  Not 0: the client is gone. */
	int (*send)(void *arg, json_t *line);
	/* Is the client gone, or the daemon ending? */
	bool (*given_up)(void *arg);
	void *arg;

	/* The answer, the caller's to release. */
	json_t *data, *warnings;
	int exit;	    /* enum outcome */
	char message[1024]; /* when exit is not 0 */
};

/* Returns call->exit. */
int ops_run(struct ops_call *call, const char *op);

#endif
