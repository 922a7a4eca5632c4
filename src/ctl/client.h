/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client.h - the tools' end of the control socket (doc/protocol.md).
 */
#ifndef PMFS_CTL_CLIENT_H
#define PMFS_CTL_CLIENT_H

#include <jansson.h>

#include "ctl/locate.h"
#include "ctl/wire.h"

struct client {
	int fd;
	struct wire wire;
	char dir[PATH_MAX]; /* the mount point */
	int exit;	    /* enum outcome of the last call */
	char text[2048];    /* why, when it is not 0 */
	json_t *data;	    /* of the last reply, or NULL; the client's */
	json_t *warnings;   /* likewise */
};

/* path: anything in a mount.  Returns c->exit; client_close() is due in any case. */
int client_open(struct client *c, const char *path);
/* The same for a daemon that was located. */
int client_open_at(struct client *c, const struct located *at);
void client_close(struct client *c);

/*
 * Ask, and wait for the reply.  args is stolen, NULL: none.  line (may be NULL) gets what comes
 * before the end, of type "progress" or "item"; not 0 ends the call with OUTCOME_INTERRUPTED.  So
 * does *stop (may be NULL), which a signal handler sets.  Returns c->exit.
 */
int client_call(struct client *c, const char *op, json_t *args,
		int (*line)(void *arg, const json_t *line), void *arg, const volatile int *stop);

#endif
