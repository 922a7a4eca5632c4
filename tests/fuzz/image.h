/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * image.h - images as inputs of fuzzers.
 *
 * An input is a byte of flags and then pieces of the image, each a struct image_piece and its
 * bytes; later ones win, what no piece has is zero.  Pieces beyond IMAGE_FRAMES are left out.
 * Unless IMAGE_BROKEN_SEALS is set, all checksums and hashes that can be reached from a slot are
 * made right, from the bottom up, so that what is wrong in the image is met by the code behind the
 * checksums.
 */
#ifndef PMFS_TESTS_FUZZ_IMAGE_H
#define PMFS_TESTS_FUZZ_IMAGE_H

#include "fuzz/fuzz.h"
#include "pmfs/format.h"

#define IMAGE_FRAMES	   4096u /* 16 MiB */
#define IMAGE_BROKEN_SEALS 1u

struct image_piece {
	le32 frame;
	le16 at, len;
};

/* A file in memory that is the image, and a path to it. */
struct image {
	int fd;
	uint8_t flags;
	char path[64];
};
void image_open(struct image *im, const uint8_t *data, size_t size);
void image_close(struct image *im);

/* Change fields of structures. */
size_t image_change(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max);

/* Make an input of the image in a file; returns its size, 0: it does not fit. */
size_t image_pack(const char *path, uint8_t *out, size_t max);

#endif
