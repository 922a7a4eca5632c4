/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * image.h - opening and making images for a command: waiting for a daemon that is about to let go
 * of one, and words for what went wrong.
 */
#ifndef PMFS_CMD_IMAGE_H
#define PMFS_CMD_IMAGE_H

#include "tree/fs.h"

/* A daemon goes on for a moment after umount(8) has returned: its last commit. */
#define IMAGE_WAIT_MS 10000

/*
 * As fs_open(), store_open() and store_format(), but -EBUSY only when the holder does not let go.
 * err->text is filled in whatever the error is, and begins with the image's path.
 */
int image_open_fs(struct fs **out, const struct fs_config *cfg, struct store_error *err);
int image_open_store(struct store **out, const struct store_config *cfg, struct store_error *err);
int image_format(const char *path, const struct store_format *how, struct store_error *err);

/* The size for a new image when none is given: that of the block device, or of the filesystem that
 * path is on, in whole GiB, at least 64 MiB. */
uint64_t image_default_size(const char *path);
/* The size of a RAM region when none is given: half of the memory. */
uint64_t image_default_ram(void);

/*
 * Make a whole filesystem in path: format, and a root directory that the caller owns.  Errors as
 * above.
 */
int image_make(const char *path, const struct store_format *how, struct store_error *err);

/* Who owns the root directory of what is made. */
void image_owner(struct fs_config *cfg);

#endif
