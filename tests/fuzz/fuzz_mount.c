/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An image that somebody else has made, mounted, looked at and changed.  It may be refused or be an
 * error in any place.  What a check has found to be clean has to be clean after changes, too.
 */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "fuzz/image.h"
#include "lib/fswalk.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fsfix_random rnd = {hash64(data, size)};
	struct findings before = {""}, after = {""};
	struct store_error err;
	struct fs_config cfg = {0};
	struct image im;
	struct fs *fs;
	int clean;

	fuzz_quiet();
	image_open(&im, data, size);
	cfg.store.path = im.path;
	if (!fs_open(&fs, &cfg, &err)) {
		clean = fs_check(fs, true, note, &before);
		fswalk_use(fs, &rnd);
		if (!clean && fs_check(fs, true, note, &after) > 0)
			fuzz_fail("it was clean, and now: %s", after.first);
		fs_close(fs);
	}
	image_close(&im);
	return 0;
}

size_t fuzz_change(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max)
{
	return image_change(rnd, data, size, max);
}
