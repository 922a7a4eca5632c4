/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host.h - what the control server needs of the daemon it runs in.  The server does not know libfuse; who starts it fills this in.
 */
#ifndef PMFS_CTL_HOST_H
#define PMFS_CTL_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

struct fs;
struct dedup;
struct views;
struct scrub;

struct ctl_host {
	struct fs *fs;
	struct dedup *dedup;
	struct views *views;
	struct scrub *scrub;
	const char *mountpoint; /* absolute */
	const char *source;     /* image path or "ram" */
	void *arg;              /* of the calls below */
	/* Let the kernel hand over all dirty data of the mount (files, shared mappings), as a snapshot needs it.  Waits. */
	int (*flush)(void *arg);
	/* Names below `.snapshots` changed: a snapshot was deleted or renamed; the kernel must forget what it cached of it.  May be NULL. */
	void (*snapshot_gone)(void *arg, const char *name, uint64_t root_id);
	/* Adds to a status report: "features" {passthrough, io_uring, libfuse, kernel, …}, "requests" {by operation}, "errors". */
	int (*report)(void *arg, json_t *into);
	/* Are views served from their memory by the kernel?  May be NULL. */
	bool (*passthrough)(void *arg);
	/* May this peer ask for changes?  0 or -EPERM. */
	int (*allowed)(void *arg, uint32_t uid);
};

#endif
