/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server.h - the daemon's end of the control socket (doc/protocol.md).
 *
 * One thread listens, each connection has one of its own, and one more tells the clients that wait
 * for long work that the daemon lives.
 *
 *   V1  What a client sends is untrusted: lines, nesting and the number of connections are
 *       bounded, for all and for each user.
 *   V2  A client that sends or reads nothing costs its own connection only, and that for a
 *       limited time.
 *
 * Lock rank: LOCK_CTL, under which nothing else is taken; a connection's own lock is a LOCK_LEAF.
 */
#ifndef PMFS_CTL_SERVER_H
#define PMFS_CTL_SERVER_H

#include <stdbool.h>

#include "ctl/host.h"

#define SERVER_CONNECTIONS_MAX	    64u
#define SERVER_CONNECTIONS_PER_USER 16u /* of users other than root and the daemon's own */

struct server;

/*
 * Listen on `ctl` in the directory behind dirfd.  shared: other users may connect.  *host is
 * copied; what it points to outlives the server.
 * 0, -ENOMEM, errors of socket(2), bind(2).
 */
int server_start(struct server **out, const struct ctl_host *host, int dirfd, bool shared);
/* Ends all connections, waits for what they do, and frees it.  NULL is allowed. */
void server_stop(struct server *sv);

#endif
