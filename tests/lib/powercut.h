/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * powercut.h - what an image could look like after a power cut.
 *
 * A tap on the region's writes keeps a diary.  powercut_verify() goes through it: before each flush
 * the power can have gone with any selection of what was written since the flush before, torn at
 * sectors of 512 bytes; and behind the last flush with nothing more than what was flushed.  Each
 * such image is made, opened and given to the caller.
 */
#ifndef PMFS_TESTS_POWERCUT_H
#define PMFS_TESTS_POWERCUT_H

#include "lib/fsfix.h"
#include "store/region.h"

struct powercut_event;

struct powercut {
	struct fsfix *fx;
	struct fsfix_random rnd;
	struct region_tap tap;
	struct powercut_event *events;
	size_t n_events, max_events;
	uint8_t *disk;	/* what is durable for certain */
	size_t size;	/* bytes of it; the file is as long */
	char path[128]; /* the image after a cut */
	int fd;
	uint64_t images; /* how many were made */
	uint64_t boundaries; /* flushes that the power went before */
	uint64_t one_in; /* of so many, one image is also mounted for writing */
};

/*
 * Is the filesystem of an image in a state that it may be in?  acknowledged: all that returned
 * success before the cut must be there. false: no, and why says what is wrong.
 */
typedef bool powercut_ok(void *arg, struct fs *fs, bool acknowledged, char *why, size_t size);

/* From here on.  The fixture has an image, and everything in it is durable. */
void powercut_start(struct powercut *pc, struct fsfix *fx);
/* Go through what was written since the start or the last call, which must have ended with a
 * commit.  Fails the test. */
void powercut_verify(struct powercut *pc, powercut_ok *ok, void *arg);
void powercut_stop(struct powercut *pc);

#endif
