/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control session: a second, read-only mount in the runtime directory, reached through the
 * symlink `.pmfs`.  Its files have texts that are made when they are opened, so it is the one that
 * needs OPEN, which the main mount has given up.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/thread.h"
#include "fuse/front_impl.h"

#define CONTROL_THREADS 4

static const char *const control_files[] = {"stats", "stats.json", "metrics"};
#define FILE_INO(i)   ((fuse_ino_t)(i) + 2)
#define INO_FILE(ino) ((size_t)(ino)-2)

struct control {
	struct front *fr;
	struct fuse_session *se;
	struct loop *loop;
	pthread_t thread;
	char *dir;
	bool mounted, running;
};

/* What an open file shows.  The open file holds it, and so does a READ, which may still be in
 * writev(2) when RELEASE comes. */
struct text {
	_Atomic unsigned holds;
	size_t len;
	char *bytes;
};

static bool is_file(fuse_ino_t ino)
{
	return ino >= FILE_INO(0) && ino < FILE_INO(ARRAY_SIZE(control_files));
}

static void control_stat(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_uid = geteuid();
	st->st_gid = getegid();
	st->st_nlink = ino == FUSE_ROOT_ID ? 2 : 1;
	st->st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0555 : S_IFREG | 0444;
	clock_gettime(CLOCK_REALTIME, &st->st_mtim);
	st->st_atim = st->st_ctim = st->st_mtim;
}

static void control_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct fuse_entry_param e = {.attr_timeout = 0, .entry_timeout = TIMEOUT_FOREVER};

	if (dir != FUSE_ROOT_ID) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(control_files); i++) {
		if (strcmp(name, control_files[i]))
			continue;
		e.ino = FILE_INO(i);
		control_stat(e.ino, &e.attr);
		fuse_reply_entry(req, &e);
		return;
	}
	fuse_reply_err(req, ENOENT);
}

static void control_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	control_stat(ino, &st);
	fuse_reply_attr(req, &st, 0);
}

static void control_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			    struct fuse_file_info *fi)
{
	char buf[512];
	size_t used = 0;

	(void)fi;
	if (ino != FUSE_ROOT_ID) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	for (size_t i = (size_t)off; i < ARRAY_SIZE(control_files) + 2; i++) {
		const char *name = i == 0 ? "." : i == 1 ? ".." : control_files[i - 2];
		struct stat st;
		size_t need;

		control_stat(i < 2 ? FUSE_ROOT_ID : FILE_INO(i - 2), &st);
		need = fuse_add_direntry(req, buf + used, MIN(size, sizeof(buf)) - used, name, &st,
					 (off_t)i + 1);
		if (need > MIN(size, sizeof(buf)) - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, buf, used);
}

static void text_put(struct text *t)
{
	if (!t || atomic_fetch_sub(&t->holds, 1) > 1)
		return;
	free(t->bytes);
	free(t);
}

static void control_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct control *ct = fuse_req_userdata(req);
	const struct front_config *cfg = &ct->fr->cfg;
	struct text *t;

	if (!is_file(ino)) {
		fuse_reply_err(req, ino == FUSE_ROOT_ID ? EISDIR : ENOENT);
		return;
	}
	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	t = calloc(1, sizeof(*t));
	if (t) {
		atomic_init(&t->holds, 1);
		t->bytes = cfg->file ? cfg->file(cfg->file_arg, control_files[INO_FILE(ino)])
				     : strdup("");
	}
	if (!t || !t->bytes) {
		text_put(t);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	t->len = strlen(t->bytes);
	fi->fh = (uint64_t)(uintptr_t)t;
	/* The size is not known before: reads go by what they return. */
	fi->direct_io = 1;
	if (fuse_reply_open(req, fi) < 0)
		text_put(t);
}

static void control_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			 struct fuse_file_info *fi)
{
	struct text *t = (struct text *)(uintptr_t)fi->fh;

	(void)ino;
	atomic_fetch_add(&t->holds, 1);
	if ((size_t)off >= t->len)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_buf(req, t->bytes + off, MIN(size, t->len - (size_t)off));
	text_put(t);
}

static void control_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	text_put((struct text *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops control_ops = {
	.lookup = control_lookup,
	.getattr = control_getattr,
	.readdir = control_readdir,
	.open = control_open,
	.read = control_read,
	.release = control_release,
};

static void *control_main(void *arg)
{
	struct control *ct = arg;
	const int rc = loop_run(ct->loop);

	if (rc)
		log_warn("the control session ended: %s", strerror(-rc));
	return NULL;
}

int control_new(struct control **out, struct front *fr, const char *dir, char text[256])
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct control *ct = calloc(1, sizeof(*ct));
	int rc = -ENOMEM;

	if (!ct)
		return -ENOMEM;
	snprintf(text, 256, "not enough memory");
	ct->fr = fr;
	ct->dir = strdup(dir);
	if (!ct->dir || fuse_opt_add_arg(&args, "pmfs") ||
	    fuse_opt_add_arg(&args, "-oro,default_permissions,fsname=pmfs,subtype=pmfs-control") ||
	    (fr->cfg.allow_other && fuse_opt_add_arg(&args, "-oallow_other")))
		goto out;
	if (mkdir(dir, 0755) && errno != EEXIST) {
		rc = -errno;
		snprintf(text, 256, "%s: %s", dir, strerror(errno));
		goto out;
	}
	ct->se = fuse_session_new(&args, &control_ops, sizeof(control_ops), ct);
	if (!ct->se)
		goto out;
	rc = mount_session(ct->se, dir, text);
	if (rc)
		goto out;
	ct->mounted = true;
	rc = loop_new(&ct->loop, ct->se, CONTROL_THREADS, NULL, NULL);
	if (!rc)
		rc = thread_start(&ct->thread, "pmfs-control", control_main, ct);
	if (rc) {
		snprintf(text, 256, "%s: %s", dir, strerror(-rc));
		goto out;
	}
	ct->running = true;
	*out = ct;
out:
	fuse_opt_free_args(&args);
	if (rc)
		control_free(ct);
	return rc;
}

void control_free(struct control *ct)
{
	uint64_t dev;
	char type[64];

	if (!ct)
		return;
	if (ct->mounted && !mount_find(ct->dir, &dev, type) && !strcmp(type, "fuse.pmfs-control"))
		mount_remove(ct->dir, dev, true);
	if (ct->running) {
		loop_exit(ct->loop);
		thread_join(ct->thread);
	}
	loop_free(ct->loop);
	if (ct->se) {
		if (ct->mounted)
			fuse_session_unmount(ct->se);
		fuse_session_destroy(ct->se);
	}
	free(ct->dir);
	free(ct);
}
