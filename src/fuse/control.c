/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control session: a second mount in the runtime directory, reached through the symlink
 * `.pmfs`.  It is the one that needs OPEN, which the main mount has given up: for files with texts
 * that are made when they are opened, and for views.
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
#include "fuse/control.h"

/* A few may wait for a commit, while the kernel wants to hand over the pages that it needs. */
#define CONTROL_THREADS 16

static const char *const control_files[] = {"stats", "stats.json", "metrics"};
#define FILE_INO(i)   ((fuse_ino_t)(i) + 2)
#define INO_FILE(ino) ((size_t)(ino)-2)

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
	st->st_ino = control_st_ino(ino);
	st->st_uid = geteuid();
	st->st_gid = getegid();
	st->st_nlink = ino == FUSE_ROOT_ID ? 4 : 1;
	st->st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0555 : S_IFREG | 0444;
	clock_gettime(CLOCK_REALTIME, &st->st_mtim);
	st->st_atim = st->st_ctim = st->st_mtim;
}

struct entry {
	const char *name;
	fuse_ino_t ino;
};

/* The n-th entry of the root; false: there are not so many. */
static bool root_entry(const struct control *ct, size_t n, struct entry *out)
{
	static const struct entry dirs[] = {{"views", CONTROL_VIEWS}, {"alias", CONTROL_ALIAS}};

	if (n < ARRAY_SIZE(control_files)) {
		*out = (struct entry){control_files[n], FILE_INO(n)};
		return true;
	}
	n -= ARRAY_SIZE(control_files);
	if (!ct->views || n >= ARRAY_SIZE(dirs))
		return false;
	*out = dirs[n];
	return true;
}

static int any_stat(struct control *ct, fuse_ino_t ino, struct stat *st)
{
	if (ino == CONTROL_VIEWS || ino == CONTROL_ALIAS)
		return views_dir_stat(ct, ino, st);
	if (!is_file(ino) && ino != FUSE_ROOT_ID)
		return -ENOENT;
	control_stat(ino, st);
	return 0;
}

static void control_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct control *ct = fuse_req_userdata(req);
	struct fuse_entry_param e = {.attr_timeout = 0, .entry_timeout = TIMEOUT_FOREVER};
	struct entry en;

	if (dir == CONTROL_VIEWS || dir == CONTROL_ALIAS) {
		views_lookup(req, dir, name);
		return;
	}
	if (dir != FUSE_ROOT_ID) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	for (size_t i = 0; root_entry(ct, i, &en); i++) {
		if (strcmp(name, en.name))
			continue;
		e.ino = en.ino;
		if (any_stat(ct, e.ino, &e.attr))
			fuse_reply_err(req, EIO);
		else
			fuse_reply_entry(req, &e);
		return;
	}
	fuse_reply_err(req, ENOENT);
}

static void control_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int rc;

	(void)fi;
	if (control_is_view(ino)) {
		views_getattr(req, ino);
		return;
	}
	rc = any_stat(fuse_req_userdata(req), ino, &st);
	if (rc)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_attr(req, &st, 0);
}

static void control_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			    struct fuse_file_info *fi)
{
	struct control *ct = fuse_req_userdata(req);
	char buf[512];
	size_t used = 0;

	(void)fi;
	if (ino == CONTROL_VIEWS || ino == CONTROL_ALIAS) {
		views_readdir(req, ino, size, off);
		return;
	}
	if (ino != FUSE_ROOT_ID) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	for (size_t i = (size_t)off;; i++) {
		struct entry en = {i ? ".." : ".", FUSE_ROOT_ID};
		struct stat st;
		size_t need;

		if (i >= 2 && !root_entry(ct, i - 2, &en))
			break;
		if (any_stat(ct, en.ino, &st))
			continue;
		need = fuse_add_direntry(req, buf + used, MIN(size, sizeof(buf)) - used, en.name,
					 &st, (off_t)i + 1);
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

	if (control_is_view(ino)) {
		views_open(req, ino, fi);
		return;
	}
	if (!is_file(ino)) {
		fuse_reply_err(req, control_is_dir(ino) ? EISDIR : ENOENT);
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

	if (control_is_view(ino)) {
		views_read(req, size, off, fi);
		return;
	}
	atomic_fetch_add(&t->holds, 1);
	if ((size_t)off >= t->len)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_buf(req, t->bytes + off, MIN(size, t->len - (size_t)off));
	text_put(t);
}

static void control_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (control_is_view(ino)) {
		views_release(req, ino, fi);
		return;
	}
	text_put((struct text *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static void control_init(void *userdata, struct fuse_conn_info *conn)
{
	struct control *ct = userdata;

	conn_want_common(conn);
	conn_want(conn, FUSE_CAP_POSIX_ACL, false);
	conn_want(conn, FUSE_CAP_WRITEBACK_CACHE, false);
#if defined(HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2) && HAVE_DECL_FUSE_CAP_HANDLE_KILLPRIV_V2
	conn_want(conn, FUSE_CAP_HANDLE_KILLPRIV_V2, true);
#endif
#ifdef HAVE_STRUCT_FUSE_FILE_INFO_BACKING_ID
	atomic_store(&ct->passthrough,
		     conn_want(conn, FUSE_CAP_PASSTHROUGH,
			       ct->views && ct->fr->cfg.passthrough && geteuid() == 0));
	/* One layer: ours, on a memory file. */
	if (atomic_load(&ct->passthrough))
		conn->max_backing_stack_depth = 1;
	atomic_store(&ct->fr->passthrough, atomic_load(&ct->passthrough));
#else
	(void)ct;
#endif
}

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
	struct fuse_lowlevel_ops ops = {
		.init = control_init,
		.lookup = control_lookup,
		.getattr = control_getattr,
		.readdir = control_readdir,
		.open = control_open,
		.read = control_read,
		.release = control_release,
	};
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct control *ct = calloc(1, sizeof(*ct));
	char type[64];
	int rc = -ENOMEM;

	if (!ct)
		return -ENOMEM;
	snprintf(text, 256, "not enough memory");
	ct->fr = fr;
	ct->views = fr->cfg.views && views_dir(fr->cfg.views) ? fr->cfg.views : NULL;
	mutex_init(&ct->lock, LOCK_LEAF);
	cond_init(&ct->wake);
	if (ct->views)
		views_ops(&ops);
	ct->dir = strdup(dir);
	if (!ct->dir || fuse_opt_add_arg(&args, "pmfs") ||
	    fuse_opt_add_arg(&args, "-odefault_permissions,fsname=pmfs,subtype=pmfs-control") ||
	    ((fr->cfg.read_only || !ct->views) && fuse_opt_add_arg(&args, "-oro")) ||
	    (fr->cfg.allow_other && fuse_opt_add_arg(&args, "-oallow_other")))
		goto out;
	if (mkdir(dir, 0755) && errno != EEXIST) {
		rc = -errno;
		snprintf(text, 256, "%s: %s", dir, strerror(errno));
		goto out;
	}
	ct->se = fuse_session_new(&args, &ops, sizeof(ops), ct);
	if (!ct->se)
		goto out;
	rc = mount_session(ct->se, dir, text);
	if (rc)
		goto out;
	ct->mounted = true;
	if (mount_find(dir, &ct->dev, type))
		ct->dev = 0;
	rc = notify_new(&ct->notify, fr, ct->se);
	if (!rc)
		rc = loop_new(&ct->loop, ct->se, CONTROL_THREADS, NULL, NULL);
	if (!rc)
		rc = thread_start(&ct->thread, "pmfs-control", control_main, ct);
	if (rc) {
		snprintf(text, 256, "%s: %s", dir, strerror(-rc));
		goto out;
	}
	ct->running = true;
	if (ct->views)
		rc = thread_start(&ct->sweeper, "pmfs-sweep", views_sweep, ct);
	ct->sweeping = ct->views && !rc;
	if (!rc)
		*out = ct;
out:
	fuse_opt_free_args(&args);
	if (rc)
		control_free(ct);
	return rc;
}

int control_flush(struct control *ct)
{
	struct views_stats stats;

	if (!ct->running || !ct->views || !ct->dev)
		return 0;
	/* What the kernel knows is in memory (view.h: W1), and only that can be dirty. */
	views_stat(ct->views, &stats);
	return stats.loaded ? flush_session(ct->dir, ct->dev, ct->loop, false, NULL) : 0;
}

void control_free(struct control *ct)
{
	uint64_t dev;
	char type[64];
	int rc;

	if (!ct)
		return;
	rc = control_flush(ct);
	if (rc)
		log_warn("%s: the kernel may have kept dirty pages of views: %s", ct->dir,
			 strerror(-rc));
	if (ct->sweeping) {
		mutex_lock(&ct->lock);
		ct->ending = true;
		cond_signal(&ct->wake);
		mutex_unlock(&ct->lock);
		thread_join(ct->sweeper);
	}
	notify_stop(ct->notify);
	if (ct->mounted && !mount_find(ct->dir, &dev, type) && !strcmp(type, "fuse.pmfs-control"))
		mount_remove(ct->dir, dev, true);
	if (ct->running) {
		loop_exit(ct->loop);
		thread_join(ct->thread);
	}
	loop_free(ct->loop);
	notify_free(ct->notify);
	if (ct->se) {
		if (ct->mounted)
			fuse_session_unmount(ct->se);
		fuse_session_destroy(ct->se);
	}
	views_drop(ct);
	cond_destroy(&ct->wake);
	mutex_destroy(&ct->lock);
	free(ct->dir);
	free(ct);
}
