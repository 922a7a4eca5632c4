/* SPDX-License-Identifier: BSD-2-Clause */
#include "cmd/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/units.h"
#include "ctl/rundir.h"

#define STEP_MS 50
/*
 * A daemon that has let go since we asked has no runtime directory any more, and a process that
 * ends has no open files while its locks last: for a moment a stranger or nobody seems to hold the
 * image.
 */
#define WAIT_STRANGER_MS 500
#define WAIT_NOBODY_MS	 2000
#define GIB		 (UINT64_C(1) << 30)

/* After -EBUSY: wait a little and return true when trying again makes sense; else the words are in
 * err. */
static bool may_retry(const char *path, struct store_error *err,
		      unsigned int waited_ms[HOLDER_KINDS])
{
	const struct timespec step = {.tv_nsec = STEP_MS * 1000 * 1000};
	enum rundir_holder kind;
	unsigned int limit;
	struct rundir_info holder;
	char whole[PATH_MAX], comm[20] = "", name[32]; /* the kernel keeps 15 bytes of a name */
	FILE *f;

	/* What a daemon has open is hidden from others (privileges.h). */
	if (err->holder <= 0 && realpath(path, whole))
		err->holder = rundir_by_source(whole);
	kind = rundir_holder(err->holder, &holder);
	limit = kind == HOLDER_LEAVING ? IMAGE_WAIT_MS
		: err->holder <= 0     ? WAIT_NOBODY_MS
				       : WAIT_STRANGER_MS;
	if (kind != HOLDER_MOUNTED && waited_ms[kind] < limit) {
		nanosleep(&step, NULL);
		waited_ms[kind] += STEP_MS;
		return true;
	}
	switch (kind) {
	case HOLDER_MOUNTED:
		snprintf(err->text, sizeof(err->text),
			 "%.100s is in use: process %d has it mounted on %.60s; unmount that first",
			 path, err->holder, holder.dir);
		return false;
	case HOLDER_LEAVING:
		snprintf(err->text, sizeof(err->text),
			 "%.100s is in use: process %d, which serves no mount any more or not yet, "
			 "does not let go of it",
			 path, err->holder);
		return false;
	default:
		break;
	}
	snprintf(name, sizeof(name), "/proc/%d/comm", err->holder);
	f = err->holder > 0 ? fopen(name, "re") : NULL;
	if (f) {
		if (fgets(comm, sizeof(comm), f))
			comm[strcspn(comm, "\n")] = 0;
		fclose(f);
	}
	if (err->holder > 0)
		snprintf(err->text, sizeof(err->text),
			 "%.150s is in use by process %d%s%s; wait for it to end", path,
			 err->holder, *comm ? ", " : "", comm);
	else
		snprintf(err->text, sizeof(err->text),
			 "%.150s is in use by another process; unmount it first", path);
	return false;
}

/* The words, with the image in front of them. */
static void say(const char *path, int rc, struct store_error *err)
{
	char text[sizeof(err->text)];

	if (!strncmp(err->text, path, strlen(path)))
		return;
	memcpy(text, err->text, sizeof(text));
	snprintf(err->text, sizeof(err->text), "%.120s: %.130s", path,
		 *text ? text : strerror(-rc));
}

int image_open_fs(struct fs **out, const struct fs_config *cfg, struct store_error *err)
{
	unsigned int waited[HOLDER_KINDS] = {0};
	int rc;

	do {
		memset(err, 0, sizeof(*err));
		rc = fs_open(out, cfg, err);
	} while (rc == -EBUSY && may_retry(cfg->store.path, err, waited));
	if (rc)
		say(cfg->store.path ? cfg->store.path : "ram", rc, err);
	return rc;
}

int image_open_store(struct store **out, const struct store_config *cfg, struct store_error *err)
{
	unsigned int waited[HOLDER_KINDS] = {0};
	int rc;

	do {
		memset(err, 0, sizeof(*err));
		rc = store_open(out, cfg, err);
	} while (rc == -EBUSY && may_retry(cfg->path, err, waited));
	if (rc)
		say(cfg->path, rc, err);
	return rc;
}

int image_format(const char *path, const struct store_format *how, struct store_error *err)
{
	unsigned int waited[HOLDER_KINDS] = {0};
	int rc;

	do {
		memset(err, 0, sizeof(*err));
		rc = store_format(path, how, err);
	} while (rc == -EBUSY && may_retry(path, err, waited));
	if (rc)
		say(path, rc, err);
	return rc;
}

uint64_t image_default_size(const char *path)
{
	char dir[4096];
	struct statvfs sv;
	struct stat st;
	uint64_t size = 0;
	char *slash;
	int fd;

	if (!stat(path, &st) && S_ISBLK(st.st_mode)) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && ioctl(fd, BLKGETSIZE64, &size))
			size = 0;
		if (fd >= 0)
			close(fd);
		if (size)
			return size;
	}

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	if (statvfs(slash ? dir : ".", &sv))
		return GIB;
	size = (uint64_t)sv.f_blocks * sv.f_frsize;
	return size >= GIB ? ALIGN_DOWN(size, GIB)
			   : MAX(ALIGN_DOWN(size, PMFS_PAGE_SIZE), UINT64_C(64) << 20);
}

uint64_t image_default_ram(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	return pages > 0 && size > 0
		       ? ALIGN_DOWN((uint64_t)pages * (uint64_t)size / 2, PMFS_PAGE_SIZE)
		       : GIB;
}

void image_owner(struct fs_config *cfg)
{
	cfg->root_uid = geteuid();
	cfg->root_gid = getegid();
	cfg->root_mode = 0755;
}

int image_make(const char *path, const struct store_format *how, struct store_error *err)
{
	struct fs_config cfg = {.store = {.path = path}};
	struct stat st;
	bool was_there = !stat(path, &st);
	struct fs *fs;
	int rc;

	rc = image_format(path, how, err);
	if (rc)
		return rc;
	image_owner(&cfg);
	rc = image_open_fs(&fs, &cfg, err);
	if (!rc) {
		rc = fs_close(fs);
		if (rc)
			say(path, rc, err);
	}
	if (rc && !was_there)
		unlink(path);
	return rc;
}
