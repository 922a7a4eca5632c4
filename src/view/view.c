/* SPDX-License-Identifier: BSD-2-Clause */
#include "view/view.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"
#include "store/store.h"
#include "view/mem.h"
#include "view/view_impl.h"

#define VIEWS_NAME "views"
#define VIEWS_MODE 01777u

/* ------------------------------------------------------------------ the list */

/* Locks: vs->lock held. */
static struct view *find_locked(struct views *vs, uint64_t id)
{
	struct view *v = vs->head;

	while (v && v->id != id)
		v = v->next;
	return v;
}

static void destroy(struct view *v)
{
	struct views *vs = v->vs;

	if (v->window)
		region_window_close(store_region(fs_store(vs->fs)), v->window);
	if (v->fd >= 0)
		close(v->fd);
	if (v->ro_fd >= 0)
		close(v->ro_fd);
	mem_settle(&vs->mm, -1, 0, &v->blocks);
	fs_forget(vs->fs, v->id, 1);
	mutex_destroy(&v->lock);
	free(v);
}

/* Adds a user.  *made: it was not there. */
static int find_or_make(struct views *vs, uint64_t id, struct view **out)
{
	struct view *v, *fresh = calloc(1, sizeof(*fresh));
	int rc;

	if (!fresh)
		return -ENOMEM;
	/* The memory holds the inode, so that its number can't become another's (W1). */
	rc = fs_remember(vs->fs, id);
	if (rc) {
		free(fresh);
		return rc;
	}
	fresh->vs = vs;
	fresh->id = id;
	fresh->fd = fresh->ro_fd = -1;
	mutex_init(&fresh->lock, LOCK_VIEW);
	mutex_lock(&vs->lock);
	v = find_locked(vs, id);
	if (!v) {
		v = fresh;
		fresh = NULL;
		v->next = vs->head;
		vs->head = v;
		vs->count++;
	}
	v->users++;
	v->gets++;
	v->forgotten = false;
	mutex_unlock(&vs->lock);
	if (fresh)
		destroy(fresh);
	*out = v;
	return 0;
}

static void unlist_locked(struct views *vs, struct view *v)
{
	struct view **at = &vs->head;

	while (*at != v)
		at = &(*at)->next;
	*at = v->next;
	vs->count--;
}

void view_put(struct view *v)
{
	struct views *vs = v->vs;
	uint64_t gets;
	bool gone = false;
	int rc = 0;

	mutex_lock(&vs->lock);
	/* The last user of one that the kernel has forgotten saves it; who comes meanwhile makes it
	 * go on. */
	while (!gone && !rc && v->users == 1 && (v->forgotten || !v->loaded)) {
		gets = v->gets;
		mutex_unlock(&vs->lock);
		rc = view_save(v);
		mutex_lock(&vs->lock);
		gone = rc >= 0 && v->users == 1 && v->gets == gets;
		rc = MIN(rc, 0);
	}
	if (gone)
		unlist_locked(vs, v);
	else
		v->users--;
	mutex_unlock(&vs->lock);
	if (rc)
		log_limited(LOG_LEVEL_ERR, "view-put",
			    "a view could not be written back and stays in memory: %s",
			    strerror(-rc));
	if (gone)
		destroy(v);
}

struct view *view_find(struct views *vs, uint64_t id)
{
	struct view *v;

	mutex_lock(&vs->lock);
	v = find_locked(vs, id);
	if (v && v->loaded)
		v->users++;
	else
		v = NULL;
	mutex_unlock(&vs->lock);
	return v;
}

void view_forgotten(struct views *vs, uint64_t id)
{
	struct view *v;

	mutex_lock(&vs->lock);
	v = find_locked(vs, id);
	if (v) {
		v->forgotten = true;
		v->users++;
	}
	mutex_unlock(&vs->lock);
	if (v)
		view_put(v);
}

/* ------------------------------------------------------------------ loading */

static int open_read_only(int fd)
{
	char path[40];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	return ro < 0 ? -errno : ro;
}

int view_get(struct views *vs, uint64_t id, bool writable, struct view **out)
{
	struct view *v;
	int rc;

	rc = find_or_make(vs, id, &v);
	if (rc)
		return rc;
	mutex_lock(&v->lock);
	if (!v->loaded) {
		rc = mem_file(&vs->mm);
		if (rc >= 0) {
			v->fd = rc;
			rc = open_read_only(v->fd);
		}
		if (rc >= 0) {
			v->ro_fd = rc;
			rc = view_load(v);
		}
		if (rc) {
			/* The next who comes tries again from the start. */
			if (v->fd >= 0)
				close(v->fd);
			if (v->ro_fd >= 0)
				close(v->ro_fd);
			v->fd = v->ro_fd = -1;
			mem_settle(&vs->mm, -1, 0, &v->blocks);
		} else {
			mutex_lock(&vs->lock);
			v->loaded = true;
			mutex_unlock(&vs->lock);
		}
	}
	if (!rc && writable)
		v->changeable = true;
	mutex_unlock(&v->lock);
	if (rc) {
		view_put(v);
		return rc;
	}
	*out = v;
	return 0;
}

int view_fd(const struct view *v)
{
	return v->fd;
}

int view_fd_read_only(const struct view *v)
{
	return v->ro_fd;
}

/* ------------------------------------------------------------------ contents */

ssize_t view_read(struct view *v, uint64_t off, void *buf, size_t len)
{
	const ssize_t n = pread(v->fd, buf, len, (off_t)off);

	return n < 0 ? -errno : n;
}

ssize_t view_write(struct view *v, uint64_t off, const void *buf, size_t len)
{
	uint64_t reserved;
	ssize_t n;

	if (!range_fits(off, len, INT64_MAX))
		return -EFBIG;
	mutex_lock(&v->lock);
	n = mem_charge(&v->vs->mm, v->fd, off, len, &reserved);
	if (!n) {
		v->changeable = true;
		n = pwrite(v->fd, buf, len, (off_t)off);
		if (n < 0)
			n = -errno;
		mem_settle(&v->vs->mm, v->fd, reserved, &v->blocks);
	}
	mutex_unlock(&v->lock);
	return n;
}

int view_truncate(struct view *v, uint64_t size)
{
	int rc = 0;

	if (size > INT64_MAX)
		return -EFBIG;
	mutex_lock(&v->lock);
	v->changeable = true;
	if (ftruncate(v->fd, (off_t)size))
		rc = -errno;
	mem_settle(&v->vs->mm, v->fd, 0, &v->blocks);
	mutex_unlock(&v->lock);
	return rc;
}

/* The threads of requests get signals. */
static int allocate(int fd, int mode, uint64_t off, uint64_t len)
{
	int rc;

	do
		rc = fallocate(fd, mode, (off_t)off, (off_t)len) ? -errno : 0;
	while (rc == -EINTR);
	return rc;
}

int view_fallocate(struct view *v, int mode, uint64_t off, uint64_t len)
{
	uint64_t reserved = 0;
	int rc = 0, how = mode;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	if (!len || !range_fits(off, len, INT64_MAX))
		return len ? -EFBIG : -EINVAL;
	mutex_lock(&v->lock);
	if (!(mode & FALLOC_FL_PUNCH_HOLE))
		rc = mem_charge(&v->vs->mm, v->fd, off, len, &reserved);
	if (rc)
		goto out;
	v->changeable = true;
	if (mode & FALLOC_FL_ZERO_RANGE) {
		/* Memory files do not know it: a hole, and then room again. */
		rc = allocate(v->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
		how = mode & FALLOC_FL_KEEP_SIZE;
	}
	if (!rc)
		rc = allocate(v->fd, how, off, len);
	mem_settle(&v->vs->mm, v->fd, reserved, &v->blocks);
out:
	mutex_unlock(&v->lock);
	return rc;
}

int view_seek(struct view *v, uint64_t off, bool data, uint64_t *out)
{
	const off_t at = lseek(v->fd, (off_t)off, data ? SEEK_DATA : SEEK_HOLE);

	if (at < 0)
		return -errno;
	*out = (uint64_t)at;
	return 0;
}

static bool later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

int view_attr(struct view *v, struct fs_attr *a)
{
	struct stat st;

	if (fstat(v->fd, &st))
		return -errno;
	a->size = (uint64_t)st.st_size;
	a->blocks = (uint64_t)st.st_blocks;
	a->mtime = st.st_mtim;
	if (later(&st.st_mtim, &a->ctime))
		a->ctime = st.st_mtim;
	return 0;
}

int view_set_times(struct view *v, unsigned mask, const struct fs_setattr *set)
{
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

	if (mask & FS_SET_ATIME)
		ts[0] = set->atime;
	if (mask & FS_SET_MTIME)
		ts[1] = set->mtime;
	if (mask & FS_SET_ATIME_NOW)
		ts[0].tv_nsec = UTIME_NOW;
	if (mask & FS_SET_MTIME_NOW)
		ts[1].tv_nsec = UTIME_NOW;
	mutex_lock(&v->lock);
	v->changeable = true;
	mutex_unlock(&v->lock);
	return futimens(v->fd, ts) ? -errno : 0;
}

/* ------------------------------------------------------------------ all of them */

/* All that are in memory, each with one more user; *out is the caller's to free. */
static ssize_t list_loaded(struct views *vs, struct view ***out)
{
	struct view **all, *v;
	ssize_t n = 0;

	mutex_lock(&vs->lock);
	all = calloc(vs->count + 1, sizeof(struct view *));
	for (v = vs->head; all && v; v = v->next) {
		if (!v->loaded)
			continue;
		v->users++;
		all[n++] = v;
	}
	mutex_unlock(&vs->lock);
	*out = all;
	return all ? n : -ENOMEM;
}

void views_make_huge(struct views *vs)
{
	struct view **all = NULL;
	const ssize_t n = atomic_load(&vs->no_huge) ? 0 : list_loaded(vs, &all);

	for (ssize_t i = 0; i < n; i++) {
		view_make_huge(all[i]);
		view_put(all[i]);
	}
	free(all);
}

int views_save(struct views *vs)
{
	struct view **all;
	const ssize_t n = list_loaded(vs, &all);
	int rc = 0, changed = 0;

	if (n < 0)
		return (int)n;
	for (ssize_t i = 0; i < n; i++) {
		const int one = view_save(all[i]);

		if (one < 0 && !rc)
			rc = one;
		changed += one > 0;
		view_put(all[i]);
	}
	free(all);
	return rc ? rc : changed;
}

void views_stat(struct views *vs, struct views_stats *out)
{
	struct stat st;

	*out = (struct views_stats){.limit_bytes = vs->mm.limit,
				    .own_fs = vs->mm.root >= 0,
				    .saved_pages = atomic_load(&vs->saved_pages)};
	mutex_lock(&vs->lock);
	for (const struct view *v = vs->head; v; v = v->next) {
		if (!v->loaded)
			continue;
		out->loaded++;
		if (!fstat(v->fd, &st))
			out->used_bytes += (uint64_t)st.st_blocks * 512;
	}
	mutex_unlock(&vs->lock);
}

uint64_t views_dir(const struct views *vs)
{
	return vs->dir;
}

static void *saver_main(void *arg)
{
	struct views *vs = arg;
	int rc;

	mutex_lock(&vs->saver_lock);
	while (!vs->ending) {
		if (cond_timedwait_ms(&vs->wake, &vs->saver_lock, vs->save_ms) != -ETIMEDOUT)
			continue;
		mutex_unlock(&vs->saver_lock);
		views_make_huge(vs);
		rc = views_save(vs);
		/* Now rather than with the store's next timer, which could be as far away again. */
		if (rc > 0)
			rc = fs_sync(vs->fs);
		if (rc < 0)
			log_limited(LOG_LEVEL_ERR, "views-save",
				    "views could not be written back: %s", strerror(-rc));
		mutex_lock(&vs->saver_lock);
	}
	mutex_unlock(&vs->saver_lock);
	return NULL;
}

static int find_dir(struct views *vs, uint64_t *id)
{
	const struct fs_cred cred = {0};
	struct fs_attr root, a;
	uint64_t hidden;
	int rc;

	*id = 0;
	if (!fs_read_only(vs->fs)) {
		rc = fs_make_hidden(vs->fs);
		/* A full image is mounted all the same, or nobody could make room in it. */
		if (rc)
			return rc == -ENOSPC ? 0 : rc;
	}
	hidden = fs_hidden(vs->fs, fs_root(vs->fs));
	if (!hidden)
		return 0;
	rc = fs_lookup(vs->fs, hidden, VIEWS_NAME, strlen(VIEWS_NAME), &a);
	if (rc == -ENOENT && !fs_read_only(vs->fs)) {
		rc = fs_mkdir(vs->fs, hidden, VIEWS_NAME, strlen(VIEWS_NAME), VIEWS_MODE, &cred,
			      &a);
		/* It belongs to whom the tree belongs. */
		if (!rc && !fs_getattr(vs->fs, fs_root(vs->fs), &root)) {
			const struct fs_setattr own = {
				.mode = VIEWS_MODE, .uid = root.uid, .gid = root.gid};

			rc = fs_setattr(vs->fs, a.id, FS_SET_MODE | FS_SET_UID | FS_SET_GID, &own,
					NULL);
		}
	}
	if (rc == -ENOENT || rc == -ENOSPC)
		return 0;
	if (!rc)
		*id = a.id;
	return rc;
}

int views_new(struct views **out, const struct views_config *cfg)
{
	struct views *vs = calloc(1, sizeof(*vs));
	int rc;

	if (!vs)
		return -ENOMEM;
	vs->fs = cfg->fs;
	vs->save_ms = cfg->save_ms;
	mutex_init(&vs->lock, LOCK_VIEWS);
	mutex_init(&vs->saver_lock, LOCK_LEAF);
	cond_init(&vs->wake);
	mem_open(&vs->mm, cfg->limit_bytes, cfg->own_fs);
	rc = find_dir(vs, &vs->dir);
	if (!rc && vs->save_ms && !fs_read_only(vs->fs)) {
		rc = thread_start(&vs->saver, "pmfs-views", saver_main, vs);
		vs->saving = !rc;
	}
	if (rc) {
		views_free(vs);
		return rc;
	}
	*out = vs;
	return 0;
}

void views_free(struct views *vs)
{
	struct view *v;
	int rc;

	if (!vs)
		return;
	if (vs->saving) {
		mutex_lock(&vs->saver_lock);
		vs->ending = true;
		cond_signal(&vs->wake);
		mutex_unlock(&vs->saver_lock);
		thread_join(vs->saver);
	}
	while ((v = vs->head)) {
		rc = view_save(v);
		if (rc < 0)
			log_err("the last contents of a view are lost: %s", strerror(-rc));
		vs->head = v->next;
		destroy(v);
	}
	if (vs->dir)
		fs_forget(vs->fs, vs->dir, 1);
	mem_close(&vs->mm);
	cond_destroy(&vs->wake);
	mutex_destroy(&vs->saver_lock);
	mutex_destroy(&vs->lock);
	free(vs);
}
