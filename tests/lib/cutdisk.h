/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cutdisk.h - a small image in memory, and every image that a power cut could leave of it.
 *
 * Work runs on one file of memory; what the disk holds for certain is a copy that follows at each
 * flush.  cutdisk_cut() goes through the flushes since the last call: before each, the power can
 * have gone with any selection of the frames that were written since the flush before, each whole,
 * as it was before it was written again, or torn at sectors of 512 bytes.  Each such image is made
 * in another file of memory, opened, checked, described and written to.
 *
 * Images with the same bytes are looked at once, however they came about: hundreds of thousands of
 * cuts are a few ten thousand images.  That takes work that leaves the same bytes when it is
 * repeated, so the clock stands still: the program is linked with --wrap=clock_gettime.
 */
#ifndef PMFS_TESTS_CUTDISK_H
#define PMFS_TESTS_CUTDISK_H

#include "lib/fsfix.h"
#include "store/region.h"

#define CUTDISK_FRAMES 1024u /* how far it may grow: the least that a filesystem takes */
#define CUTDISK_ALL    6u    /* up to so many changed frames all subsets are made */

/* All that can be seen of a filesystem, as one number. */
typedef uint64_t cutdisk_look(void *arg, struct fs *fs);

struct cut_write;
struct cut_seen;

struct cut_file {
	int fd;
	char path[32];
	uint8_t *map;
	uint64_t frames; /* length */
};

struct cutdisk {
	struct cut_file run; /* what the filesystem at work has open */
	struct cut_file cut; /* the image after a cut; the same as disk between two of them */
	uint8_t *base, *disk;
	uint64_t base_frames;
	uint64_t base_sum, disk_sum;  /* of all frames, with their places */
	bool touched[CUTDISK_FRAMES]; /* disk or run may differ from base */
	struct region_tap tap, cut_tap;
	struct fs *fs;
	struct cut_write *writes; /* since the last cutdisk_cut() */
	size_t n_writes, max_writes;
	bool rewritten[CUTDISK_FRAMES]; /* of the image after a cut, by those who tried it */
	struct cut_seen *seen;		/* hash table of images */
	size_t n_seen, max_seen;
	struct fsfix_random rnd;
	unsigned use_one_in; /* of so many images one is written to as well */
	cutdisk_look *look;
	void (*failed)(void *arg, const char *what); /* ends the test */
	void *arg;
	uint64_t cuts, images, used, boundaries; /* cuts that were looked at, different images */
};

/* An empty filesystem in memory, open in cd->fs.  look and failed get arg. */
void cutdisk_start(struct cutdisk *cd, cutdisk_look *look,
		   void (*failed)(void *arg, const char *what), void *arg);
void cutdisk_stop(struct cutdisk *cd);
/* Close, and take what there is now as the state that cutdisk_begin() goes back to. */
void cutdisk_set_base(struct cutdisk *cd);
/* Open what is in the base. */
void cutdisk_begin(struct cutdisk *cd);
/* As kill -9 would. */
void cutdisk_end(struct cutdisk *cd);

/*
 * The power goes before each of the flushes since the last call: each image must be in one of the
 * n states, of which the last is that of the latest flush.  n 0: only follow, nothing is looked at.
 */
void cutdisk_cut(struct cutdisk *cd, const uint64_t *states, unsigned n);
/* The power goes now, without another flush: what was written behind the last one makes no
 * difference. */
void cutdisk_cut_now(struct cutdisk *cd, uint64_t state);

#endif
