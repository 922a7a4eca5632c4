/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mountopt.h - what stands behind -o.
 */
#ifndef PMFS_CMD_MOUNTOPT_H
#define PMFS_CMD_MOUNTOPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOUNTOPT_COMMIT_SECONDS 5
#define MOUNTOPT_THREADS_MAX	1024

struct mountopt {
	bool read_only, allow_other, dev, suid, snapdir_visible, writeback, no_xattr;
	int io_uring;	  /* -1 auto, 0 off, as front.h has it */
	unsigned threads; /* 0: as many as it takes */
	unsigned commit_ms;
	uint64_t size;	 /* bytes, 0: not given */
	uint64_t views; /* memory of all views, 0: not given */
	bool no_passthrough;
	char flags[128]; /* the kernel's own options, comma separated */
};

void mountopt_init(struct mountopt *mo);

/*
 * Take one argument of -o: "a,b=c,..."; "\," is a comma in a value.  Later options win.  root: may
 * dev and suid be asked for? 0; -EINVAL, -EPERM or -EOPNOTSUPP (not available yet) with a sentence
 * in why.
 */
int mountopt_parse(struct mountopt *mo, const char *arg, bool root, char *why, size_t why_len);

#endif
