/* SPDX-License-Identifier: BSD-2-Clause */
/* Making an empty image: store_format() of store.h. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/hash.h"
#include "store/super.h"

__attribute__((format(printf, 3, 4))) static int say(struct store_error *err, int rc,
						     const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return rc;
}

/* The name of a new file is durable when its directory is. */
static int sync_directory_of(const char *path)
{
	char *copy = strdup(path);
	int fd, rc = 0;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		rc = -errno;
	if (fd >= 0)
		close(fd);
	free(copy);
	return rc;
}

/* Is there anything that somebody could miss?  1, 0, error. */
static int has_contents(const char *path, const struct region *rg)
{
	uint8_t page[PMFS_PAGE_SIZE];
	struct stat st;

	if (stat(path, &st))
		return -errno;
	if (!S_ISBLK(st.st_mode))
		return st.st_size != 0;
	for (pfn_t pfn = 0; pfn < MIN(region_frames(rg), PMFS_FIRST_FRAME); pfn++) {
		int rc = region_copy_out(rg, pfn, 0, page, sizeof(page));

		if (rc)
			return rc;
		if (!mem_is_zero(page, sizeof(page)))
			return 1;
	}
	return 0;
}

/* Both slots, so that one that goes bad later is not the only one. */
static int write_slots(struct region *rg, struct super *sb)
{
	int rc = super_write(rg, sb, NULL, 0);

	sb->generation++;
	if (!rc)
		rc = super_write(rg, sb, NULL, 0);
	return rc ? rc : region_flush(rg);
}

/* An open region, locked, in which nothing is worth keeping. */
static int make_empty(const char *path, struct region *rg, const struct store_format *how,
		      struct store_error *err)
{
	int rc = has_contents(path, rg);

	if (rc < 0)
		return say(err, rc, "%s: can't be read: %s", path, strerror(-rc));
	if (rc && !how->force)
		return say(err, -EEXIST, "%s: is not empty; nothing was changed", path);
	rc = region_truncate(rg, 0);
	return rc == -EOPNOTSUPP ? 0 : rc;
}

int store_format(const char *path, const struct store_format *how, struct store_error *err)
{
	struct region *rg = NULL;
	struct super sb;
	bool created = false;
	int holder = 0, rc;

	if (err)
		*err = (struct store_error){ 0 };
	rc = super_init(&sb, how);
	if (rc == -EINVAL)
		return say(err, rc,
			   "%s: the size must be 4 MiB to 256 TiB, the label under 64 bytes", path);
	if (rc)
		return say(err, rc, "%s: %s", path, strerror(-rc));
	rc = region_open_image(&rg, path, PMFS_FIRST_FRAME, 0, &holder);
	if (rc == -ENOENT) {
		rc = region_open_image(&rg, path, PMFS_FIRST_FRAME, REGION_CREATE, &holder);
		created = !rc;
	}
	if (rc == -EBUSY) {
		if (err)
			err->holder = holder;
		return say(err, rc, "%s: is in use by another process", path);
	}
	if (rc)
		return say(err, rc, "%s: %s", path, strerror(-rc));

	rc = make_empty(path, rg, how, err);
	if (rc)
		goto out;
	rc = region_grow(rg, PMFS_FIRST_FRAME);
	if (!rc && region_frames(rg) > PMFS_FIRST_FRAME)
		sb.limit_frames = MIN(sb.limit_frames, region_frames(rg)); /* a device */
	if (!rc)
		rc = write_slots(rg, &sb);
	if (!rc && created)
		rc = sync_directory_of(path);
	if (rc)
		say(err, rc, "%s: %s", path,
		    rc == -EUCLEAN ? "the device is too small" : strerror(-rc));
out:
	region_close(rg);
	if (rc && created)
		unlink(path);
	return rc == -EUCLEAN ? -EINVAL : rc;
}
