/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An image that somebody else has made, checked and repaired: what fsck.pmfs -n and -y do.  What a
 * check does not complain of, a repair does not touch; what a repair says it has repaired, a check
 * does not complain of.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#include "fuzz/image.h"
#include "tree/fs.h"

const char fuzz_corpus[] = "image";

struct findings {
	char first[300];
};

static void note(void *arg, const char *what)
{
	struct findings *f = arg;

	if (!f->first[0])
		snprintf(f->first, sizeof(f->first), "%s", what);
}

static void said(void *arg, bool left, const char *what)
{
	(void)left;
	note(arg, what);
}

/* Findings, or the error of opening or checking. */
static int check(const char *path, struct findings *f)
{
	const struct fs_config cfg = {.store = {.path = path, .read_only = true}};
	struct store_error err;
	struct fs *fs;
	int rc = fs_open(&fs, &cfg, &err);

	if (rc)
		return rc;
	rc = fs_check(fs, true, note, f);
	fs_close(fs);
	return rc;
}

static int repair(const char *path, bool older, struct fs_repair *how)
{
	const struct fs_config cfg = {
		.store = {.path = path, .older = older}, .repair = how, .root_mode = 0755};
	struct store_error err;
	struct fs *fs;
	int rc = fs_open(&fs, &cfg, &err);

	return rc ? rc : fs_close(fs);
}

static bool is_damage(int rc)
{
	return rc == -EBADMSG || rc == -EUCLEAN || rc == -EIO;
}

static void check_and_repair(const char *path)
{
	struct findings before = {""}, mended = {""}, after = {""};
	struct fs_repair how = {.cut_data = true, .said = said, .arg = &mended};
	int found, rc;

	found = check(path, &before);
	/* Not an image, or one of a newer version; or one without a root directory. */
	if (found < 0 && !is_damage(found))
		return;
	rc = repair(path, false, &how);
	if (is_damage(rc)) {
		how.fixed = how.left = 0;
		rc = repair(path, true, &how);
	}
	/* The image may grow to more than this process has addresses for (thread sanitizer). */
	if (rc == -ERANGE || rc == -ENOMEM)
		return;
	if (!found && (rc || how.fixed || how.left))
		fuzz_fail("it was clean, and the repair says (%d): %s", rc, mended.first);
	if (rc || how.left)
		return;
	rc = check(path, &after);
	if (rc)
		fuzz_fail("it was repaired, and the check says (%d): %s", rc, after.first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image im;

	fuzz_quiet();
	image_open(&im, data, size);
	check_and_repair(im.path);
	image_close(&im);
	return 0;
}

size_t fuzz_change(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max)
{
	return image_change(rnd, data, size, max);
}
