/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * scrub.h - look at everything that is in the image before somebody needs it.
 *
 * A pass compares every page with its hash and every node of the page map with its checksum, as
 * they stand in the image, whatever was verified before; at a rate, so that others get on.  Asked
 * for, it goes on to the structure: fs_check_running().  The same thread finds out to which files
 * damaged pages belong, also those that a read came across, and logs them: path, range and
 * snapshot, each once.
 *
 *   S1  A pass changes nothing but what is known of pages: one that is damaged is an error to
 * whoever reads it, from then on. S2  Nobody waits for a pass: it holds no lock between two steps,
 * and no read section for more than SCRUB_STEP pages.
 *
 * Thread safe.  Lock rank: LOCK_SCRUB.
 */
#ifndef PMFS_SHARE_SCRUB_H
#define PMFS_SHARE_SCRUB_H

#include "tree/fs.h"

struct scrub;

enum scrub_state { SCRUB_IDLE, SCRUB_RUNNING };

#define SCRUB_STEP 64u
#define SCRUB_FINDINGS                                                                          \
	100u /* kept in words, of a pass and of reads since the one before; all are counted and \
		logged */

struct scrub_stats {
	enum scrub_state state;
	bool structure; /* the running or last pass looks at that, too */
	int error;	/* of the last pass, 0: none; it ended early then */
	double percent; /* of the running pass; 100 after one */
	uint64_t pages_total, pages_scanned,
		pages_dirty; /* dirty: written since the last commit, so not in the image yet */
	uint64_t nodes_scanned;
	uint64_t bad_pages, bad_nodes, structure_findings; /* of the running or last pass */
	uint64_t bytes_per_second, eta_seconds;
	uint64_t rate;			  /* bytes per second that it may read, 0: no limit */
	uint64_t passes;		  /* completed since the mount */
	uint64_t started_ns, finished_ns; /* CLOCK_REALTIME, 0: not yet */
	uint64_t findings; /* in words; scrub_each_finding() has the first SCRUB_FINDINGS */
};

int scrub_new(struct scrub **out, struct fs *fs);
void scrub_free(struct scrub *sc); /* stops a pass */
/* Start a pass.  rate: bytes per second, 0: no limit.  -EALREADY. */
int scrub_start(struct scrub *sc, bool structure, uint64_t rate);
/* End the running pass; -ESRCH: there is none. */
int scrub_stop(struct scrub *sc);
/* Wait for the pass to end; its error.  timeout_ms < 0: for ever; -ETIMEDOUT. */
int scrub_wait(struct scrub *sc, int timeout_ms);
void scrub_stat(struct scrub *sc, struct scrub_stats *out);
/* fn: not 0 ends.  It runs with the lock held: no call of this module. */
int scrub_each_finding(struct scrub *sc, int (*fn)(void *arg, const char *text), void *arg);
/* Wait until the pages that were found damaged up to now have been looked up (tests). */
void scrub_settle(struct scrub *sc);

#endif
