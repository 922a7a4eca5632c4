/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/repair.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

/* Putting one thing right can bring another to light. */
#define ROUNDS 4u

void repair_say(struct repair *rp, bool left, const char *fmt, ...)
{
	char text[512], line[1024], volume[300] = "";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (rp->vol)
		repair_volume_name(rp->vol, volume, sizeof(volume));
	if (rp->ino)
		snprintf(line, sizeof(line), "%s: inode %" PRIu64 ": %s", volume, rp->ino, text);
	else
		snprintf(line, sizeof(line), "%s%s%s", volume, volume[0] ? ": " : "", text);
	if (left)
		rp->how->left++;
	else
		rp->how->fixed++;
	rp->how->said(rp->how->arg, left, line);
}

void repair_progress(const struct repair *rp, const char *what, double done)
{
	if (rp->how->progress)
		rp->how->progress(rp->how->arg, what, MIN(done, 1.0) * 100);
}

const char *repair_volume_name(const struct volume *vol, char *buf, size_t size)
{
	const uint32_t state = atomic_load(&vol->state);

	if (state == PMFS_VOL_LIVE)
		snprintf(buf, size, "live");
	else if (state == PMFS_VOL_DYING)
		snprintf(buf, size, "deleted snapshot %" PRIu64, vol->id);
	else
		snprintf(buf, size, "snapshot %s", vol->name);
	return buf;
}

static int repair_init(struct repair *rp, struct fs *fs, struct fs_repair *how)
{
	*rp = (struct repair){.fs = fs, .st = fs->st, .how = how, .limit = store_vpn_limit(fs->st)};
	rp->expected = store_pages_bound(fs->st);
	return page_counts_init(&rp->seen, rp->limit);
}

static void repair_destroy(struct repair *rp)
{
	check_memo_clear(&rp->memo);
	page_counts_free(&rp->seen);
}

void repair_reset(struct repair *rp)
{
	check_memo_clear(&rp->memo);
	page_counts_clear(&rp->seen);
	rp->met = 0;
}

int repair_before_load(struct fs *fs, struct fs_repair *how)
{
	struct repair rp;
	int rc;

	rc = repair_init(&rp, fs, how);
	if (!rc)
		rc = repair_rows(&rp);
	repair_destroy(&rp);
	return rc;
}

/* ------------------------------------------------------------------ what is still wrong */

struct wrong {
	struct repair *rp;
	uint64_t *volumes; /* bitmap of the ids of volumes with findings */
	bool last;	   /* nothing more is tried */
	uint64_t found;
};

static void wrong_volume(void *arg, struct volume *vol)
{
	struct wrong *w = arg;

	bit_set(w->volumes, vol->id);
}

static void wrong_found(void *arg, const char *what)
{
	struct wrong *w = arg;

	w->found++;
	if (!w->last)
		return;
	w->rp->how->left++;
	w->rp->how->said(w->rp->how->arg, true, what);
}

static void wrong_progress(void *arg, double percent)
{
	const struct wrong *w = arg;

	repair_progress(w->rp, "check", percent / 100);
}

static int look(struct wrong *w)
{
	const struct check_how how = {.ends = true,
				      .bad = wrong_found,
				      .of_volume = wrong_volume,
				      .progress = wrong_progress};
	int rc;

	memset(w->volumes, 0, BITMAP_WORDS(PMFS_VOL_ID_MAX + 1) * sizeof(*w->volumes));
	w->found = 0;
	rc = check_by_volume(w->rp->fs, &how, w);
	return MIN(rc, 0);
}

static int mend_volumes(struct repair *rp)
{
	struct wrong w = {.rp = rp,
			  .volumes = calloc(BITMAP_WORDS(PMFS_VOL_ID_MAX + 1), sizeof(uint64_t))};
	int rc = 0;

	if (!w.volumes)
		return -ENOMEM;
	for (unsigned round = 0; !rc; round++) {
		w.last = round == ROUNDS;
		rc = look(&w);
		if (rc || !w.found || w.last)
			break;
		for (struct volume *vol = rp->fs->volumes; vol && !rc; vol = vol->next)
			if (bit_test(w.volumes, vol->id) &&
			    atomic_load(&vol->state) != PMFS_VOL_DYING)
				rc = repair_names(rp, vol);
		if (!rc)
			rc = commit_now(rp->st);
	}
	free(w.volumes);
	return rc;
}

/* ------------------------------------------------------------------ */

static void path_found(void *arg, uint64_t ino, const char *path)
{
	const struct fs_repair *how = arg;
	char text[4200];

	snprintf(text, sizeof(text), "live: inode %" PRIu64 ", which has lost something, is %s",
		 ino, path);
	how->said(how->arg, false, text);
}

int repair_after_load(struct fs *fs, struct fs_repair *how)
{
	struct repair rp;
	int rc;

	rc = repair_init(&rp, fs, how);
	if (!rc)
		rc = repair_tables(&rp);
	/* Frames of what was lost are free, and the map is written without it. */
	if (!rc)
		rc = store_fold(fs->st);
	if (!rc)
		rc = mend_volumes(&rp);
	memcpy(how->inos, rp.named, sizeof(how->inos));
	how->n_inos = rp.n_named;
	repair_destroy(&rp);
	return rc;
}

int repair_say_paths(struct fs *fs, struct fs_repair *how)
{
	return how->n_inos ? fs_find_paths(fs, how->inos, how->n_inos, path_found, how) : 0;
}
