/* SPDX-License-Identifier: BSD-2-Clause */
/* The directories `views` and `alias` of the control session (control.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/units.h"
#include "fuse/control.h"

#define SWEEP_MS 1000u
/* So long a view that nobody has open stays in memory, since often it is opened again. */
#define IDLE_MS 2000u

static void reply_result(fuse_req_t req, int rc)
{
	if (rc == -EBADMSG || rc == -EUCLEAN || rc == -EIO) {
		log_limited(LOG_LEVEL_ERR, "control", "a request about a view: %s", strerror(-rc));
		rc = -EIO;
	}
	fuse_reply_err(req, -rc);
}

/* The file of the tree: views and aliases are named by its inode number. */
static uint64_t id_of(const struct control *ct, fuse_ino_t ino)
{
	return views_dir(ct->views) - FS_INO(views_dir(ct->views)) + FS_INO(ino);
}

static fuse_ino_t alias_of(fuse_ino_t ino)
{
	return FS_INO(ino) | CONTROL_ALIAS_BIT;
}

/* ------------------------------------------------------------------ what the kernel knows */

static struct side *side_of(struct node *nd, fuse_ino_t ino)
{
	return control_is_alias(ino) ? &nd->alias : &nd->view;
}

/* Locks: ct->lock held. */
static struct node *node_find_locked(struct control *ct, uint64_t id)
{
	struct node *nd = ct->nodes;

	while (nd && nd->id != id)
		nd = nd->next;
	return nd;
}

static uint64_t now_ms(void)
{
	return (uint64_t)(units_monotonic_ns() / 1000000);
}

/* The kernel is going to learn of it once more. */
static int node_learn(struct control *ct, fuse_ino_t ino, const char *name)
{
	struct node *nd, *fresh = calloc(1, sizeof(*fresh));

	if (!fresh)
		return -ENOMEM;
	mutex_lock(&ct->lock);
	nd = node_find_locked(ct, id_of(ct, ino));
	if (!nd) {
		nd = fresh;
		fresh = NULL;
		nd->id = id_of(ct, ino);
		nd->idle_ms = now_ms();
		nd->next = ct->nodes;
		ct->nodes = nd;
	}
	side_of(nd, ino)->lookups++;
	snprintf(nd->name, sizeof(nd->name), "%s", name);
	mutex_unlock(&ct->lock);
	free(fresh);
	return 0;
}

static void node_forget(struct control *ct, fuse_ino_t ino, uint64_t n)
{
	struct node **at, *gone = NULL;
	struct side *side;

	mutex_lock(&ct->lock);
	for (at = &ct->nodes; *at && (*at)->id != id_of(ct, ino); at = &(*at)->next)
		;
	if (*at) {
		side = side_of(*at, ino);
		side->lookups -= MIN(n, side->lookups);
		if (!(*at)->view.lookups && !(*at)->alias.lookups) {
			gone = *at;
			*at = gone->next;
		}
	}
	mutex_unlock(&ct->lock);
	if (gone)
		view_forgotten(ct->views, gone->id);
	free(gone);
	fs_forget(ct->fr->fs, id_of(ct, ino), n);
}

/* It has another name now. */
static void node_rename(struct control *ct, const char *name)
{
	struct fs_attr a;
	struct node *nd;

	if (fs_lookup(ct->fr->fs, views_dir(ct->views), name, strlen(name), &a))
		return;
	mutex_lock(&ct->lock);
	nd = node_find_locked(ct, a.id);
	if (nd)
		snprintf(nd->name, sizeof(nd->name), "%s", name);
	mutex_unlock(&ct->lock);
	fs_forget(ct->fr->fs, a.id, 1);
}

void views_drop(struct control *ct)
{
	struct node *nd;

	while ((nd = ct->nodes)) {
		ct->nodes = nd->next;
		view_forgotten(ct->views, nd->id);
		fs_forget(ct->fr->fs, nd->id, nd->view.lookups + nd->alias.lookups);
		free(nd);
	}
}

/*
 * The kernel keeps an inode that nobody uses for as long as it likes, and with it we its memory.
 * Taking its names away makes it forget, unless it is mapped: then it says so after the munmap.
 */
static void sweep(struct control *ct, uint64_t idle_ms)
{
	const uint64_t now = now_ms();
	char name[PMFS_NAME_MAX + 1];
	uint64_t after = 0;

	for (;;) {
		struct node *next = NULL;

		mutex_lock(&ct->lock);
		for (struct node *nd = ct->nodes; nd; nd = nd->next)
			if (nd->id > after && (!next || nd->id < next->id) && !nd->view.opens &&
			    !nd->alias.opens && nd->idle_ms + idle_ms <= now)
				next = nd;
		if (next) {
			after = next->id;
			memcpy(name, next->name, sizeof(name));
		}
		mutex_unlock(&ct->lock);
		if (!next)
			return;
		fuse_lowlevel_notify_inval_entry(ct->se, CONTROL_VIEWS, name, strlen(name));
		fuse_lowlevel_notify_inval_entry(ct->se, CONTROL_ALIAS, name, strlen(name));
	}
}

void *views_sweep(void *arg)
{
	struct control *ct = arg;
	bool ending = false;

	while (!ending) {
		mutex_lock(&ct->lock);
		if (!ct->ending)
			cond_timedwait_ms(&ct->wake, &ct->lock, SWEEP_MS);
		ending = ct->ending;
		mutex_unlock(&ct->lock);
		if (!ending)
			sweep(ct, IDLE_MS);
	}
	return NULL;
}

/* ------------------------------------------------------------------ attributes */

static void to_stat(const struct control *ct, const struct fs_attr *a, bool alias, struct stat *st)
{
	attr_to_stat(ct->fr, a, st);
	if (alias) {
		st->st_mode &= ~(mode_t)0222;
		/* Another file to cp(1) and find(1) than the view, not a hard link to it. */
		st->st_ino |= UINT64_C(1) << 62;
		st->st_nlink = 1;
	}
}

static int view_stat(struct control *ct, fuse_ino_t ino, struct stat *st)
{
	struct fs_attr a;
	struct view *v;
	int rc;

	rc = fs_getattr(ct->fr->fs, id_of(ct, ino), &a);
	if (rc)
		return rc;
	v = view_find(ct->views, id_of(ct, ino));
	if (v) {
		rc = view_attr(v, &a);
		view_put(v);
	}
	to_stat(ct, &a, control_is_alias(ino), st);
	return rc;
}

void views_getattr(fuse_req_t req, fuse_ino_t ino)
{
	struct stat st;
	const int rc = view_stat(fuse_req_userdata(req), ino, &st);

	if (rc)
		reply_result(req, rc);
	else
		fuse_reply_attr(req, &st, 0);
}

int views_dir_stat(struct control *ct, fuse_ino_t ino, struct stat *st)
{
	struct fs_attr a;
	const int rc = fs_getattr(ct->fr->fs, views_dir(ct->views), &a);

	if (rc)
		return rc;
	attr_to_stat(ct->fr, &a, st);
	st->st_ino = control_st_ino(ino);
	if (ino == CONTROL_ALIAS)
		st->st_mode = S_IFDIR | 0555;
	return 0;
}

static void views_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
			  struct fuse_file_info *fi)
{
	struct control *ct = fuse_req_userdata(req);
	const unsigned mask = setattr_mask(ct->fr, to_set);
	struct fs_setattr set = {
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.size = (uint64_t)st->st_size,
		.atime = st->st_atim,
		.mtime = st->st_mtim,
		.ctime = st->st_ctim,
	};
	const uint64_t id = ino == CONTROL_VIEWS ? views_dir(ct->views) : id_of(ct, ino);
	struct view *v = NULL;
	int rc = 0;

	(void)fi;
	if (ino != CONTROL_VIEWS && (!control_is_view(ino) || control_is_alias(ino))) {
		fuse_reply_err(req, EACCES);
		return;
	}
	if (mask & FS_SET_SIZE)
		rc = control_is_view(ino) ? view_get(ct->views, id, true, &v) : -EISDIR;
	else if (control_is_view(ino))
		v = view_find(ct->views, id);
	if (!rc && (mask & FS_SET_SIZE))
		rc = view_truncate(v, set.size);
	if (!rc && (mask & ~(unsigned)FS_SET_SIZE))
		rc = fs_setattr(ct->fr->fs, id, mask & ~(unsigned)FS_SET_SIZE, &set, NULL);
	if (!rc && v &&
	    (mask & (FS_SET_ATIME | FS_SET_MTIME | FS_SET_ATIME_NOW | FS_SET_MTIME_NOW)))
		rc = view_set_times(v, mask, &set);
	if (!rc && (mask & FS_SET_SIZE))
		notify_inval(ct->notify, alias_of(ino), 0, 0);
	if (v)
		view_put(v);
	if (!rc)
		rc = ino == CONTROL_VIEWS ? views_dir_stat(ct, ino, st) : view_stat(ct, ino, st);
	if (rc)
		reply_result(req, rc);
	else
		fuse_reply_attr(req, st, 0);
}

static void views_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct control *ct = fuse_req_userdata(req);
	struct statvfs sv = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = PMFS_NAME_MAX};
	struct views_stats st;
	struct fs_statfs fs;
	int rc;

	(void)ino;
	rc = fs_statfs(ct->fr->fs, &fs);
	if (rc) {
		reply_result(req, rc);
		return;
	}
	/* What limits views first is memory. */
	views_stat(ct->views, &st);
	sv.f_blocks = st.limit_bytes / 4096;
	sv.f_bfree = sv.f_bavail = (st.limit_bytes - MIN(st.used_bytes, st.limit_bytes)) / 4096;
	sv.f_files = fs.inodes;
	sv.f_ffree = sv.f_favail = fs.inodes_free;
	fuse_reply_statfs(req, &sv);
}

static void get_xattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	const struct control *ct = fuse_req_userdata(req);
	char *buf = NULL;
	ssize_t n;

	if (!control_is_view(ino)) {
		fuse_reply_err(req, name ? ENODATA : EOPNOTSUPP);
		return;
	}
	if (size) {
		buf = malloc(size);
		if (!buf) {
			fuse_reply_err(req, ENOMEM);
			return;
		}
	}
	n = name ? fs_getxattr(ct->fr->fs, id_of(ct, ino), name, buf, size)
		 : fs_listxattr(ct->fr->fs, id_of(ct, ino), buf, size);
	if (n < 0)
		reply_result(req, (int)n);
	else if (size)
		fuse_reply_buf(req, buf, (size_t)n);
	else
		fuse_reply_xattr(req, (size_t)n);
	free(buf);
}

static void views_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	get_xattr(req, ino, name, size);
}

static void views_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	get_xattr(req, ino, NULL, size);
}

static void views_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			   size_t size, int flags)
{
	const struct control *ct = fuse_req_userdata(req);

	if (!control_is_view(ino) || control_is_alias(ino))
		fuse_reply_err(req, EACCES);
	else if (!strcmp(name, FS_RINGLOG))
		fuse_reply_err(req, EOPNOTSUPP);
	else
		reply_result(req,
			     fs_setxattr(ct->fr->fs, id_of(ct, ino), name, value, size, flags));
}

static void views_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	const struct control *ct = fuse_req_userdata(req);

	if (!control_is_view(ino) || control_is_alias(ino))
		fuse_reply_err(req, EACCES);
	else
		reply_result(req, fs_removexattr(ct->fr->fs, id_of(ct, ino), name));
}

/* ------------------------------------------------------------------ names */

/* The entry of a file that fs_lookup() or a call that makes one has just counted. */
static int make_entry(struct control *ct, fuse_ino_t dir, const char *name, struct fs_attr *a,
		      struct fuse_entry_param *e)
{
	const bool alias = dir == CONTROL_ALIAS;
	const fuse_ino_t ino = FS_INO(a->id) | (alias ? CONTROL_ALIAS_BIT : CONTROL_VIEW_BIT);
	struct view *v;
	int rc;

	memset(e, 0, sizeof(*e));
	rc = S_ISREG(a->mode) ? node_learn(ct, ino, name) : -ENOENT;
	if (rc) {
		fs_forget(ct->fr->fs, a->id, 1);
		return rc;
	}
	v = view_find(ct->views, a->id);
	if (v) {
		view_attr(v, a);
		view_put(v);
	}
	e->ino = ino;
	e->generation = a->generation;
	to_stat(ct, a, alias, &e->attr);
	/* Names in `views` change only through the kernel; those in `alias` with them. */
	e->entry_timeout = alias ? 0 : TIMEOUT_FOREVER;
	return 0;
}

/* Answers with an entry for the view that was found or made; rc: how that went. */
static void reply_view(fuse_req_t req, fuse_ino_t dir, const char *name, int rc,
		       struct fs_attr *a)
{
	struct control *ct = fuse_req_userdata(req);
	struct fuse_entry_param e;

	if (!rc)
		rc = make_entry(ct, dir, name, a, &e);
	if (rc)
		reply_result(req, rc);
	else if (fuse_reply_entry(req, &e) < 0)
		node_forget(ct, e.ino, 1);
}

void views_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct control *ct = fuse_req_userdata(req);
	struct fs_attr a;
	int rc;

	rc = fs_lookup(ct->fr->fs, views_dir(ct->views), name, strlen(name), &a);
	reply_view(req, dir, name, rc, &a);
}

static void views_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	if (control_is_view(ino))
		node_forget(fuse_req_userdata(req), ino, n);
	fuse_reply_none(req);
}

static void views_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		if (control_is_view(forgets[i].ino))
			node_forget(fuse_req_userdata(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

struct listing {
	fuse_req_t req;
	bool alias;
	char *buf;
	size_t size, used;
};

static int list_entry(void *arg, const struct fs_dirent *de)
{
	struct listing *ls = arg;
	const size_t room = ls->size - ls->used;
	struct stat st = {.st_ino = de->ino, .st_mode = (mode_t)de->type << 12};
	size_t need;

	if (S_ISDIR(st.st_mode))
		st.st_ino = control_st_ino(ls->alias ? CONTROL_ALIAS : CONTROL_VIEWS);
	else if (ls->alias)
		st.st_ino |= UINT64_C(1) << 62;
	need = fuse_add_direntry(ls->req, ls->buf + ls->used, room, de->name, &st, (off_t)de->next);
	if (need > room)
		return 1;
	ls->used += need;
	return 0;
}

void views_readdir(fuse_req_t req, fuse_ino_t dir, size_t size, off_t off)
{
	const struct control *ct = fuse_req_userdata(req);
	struct listing ls = {.req = req,
			     .alias = dir == CONTROL_ALIAS,
			     .buf = malloc(size ? size : 1),
			     .size = size};
	int rc;

	if (!ls.buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	rc = fs_readdir(ct->fr->fs, views_dir(ct->views), (uint64_t)off, list_entry, &ls);
	if (rc < 0 && !ls.used)
		reply_result(req, rc);
	else
		fuse_reply_buf(req, ls.buf, ls.used);
	free(ls.buf);
}

/* May names be made and removed there? */
static bool refused(fuse_req_t req, fuse_ino_t dir)
{
	if (dir == CONTROL_VIEWS)
		return false;
	fuse_reply_err(req, dir == CONTROL_ALIAS ? EACCES : EPERM);
	return true;
}

static void cred_of(fuse_req_t req, struct fs_cred *cred)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	cred->uid = ctx->uid;
	cred->gid = ctx->gid;
}

static void views_mknod(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t rdev)
{
	struct control *ct = fuse_req_userdata(req);
	struct fs_cred cred;
	struct fs_attr a;
	int rc;

	(void)rdev;
	if (refused(req, dir))
		return;
	if (!S_ISREG(mode)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	cred_of(req, &cred);
	rc = fs_mknod(ct->fr->fs, views_dir(ct->views), name, strlen(name), mode, 0, &cred, &a);
	reply_view(req, dir, name, rc, &a);
}

static void views_unlink(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	const struct control *ct = fuse_req_userdata(req);

	if (!refused(req, dir))
		reply_result(req, fs_unlink(ct->fr->fs, views_dir(ct->views), name, strlen(name)));
}

static void views_rename(fuse_req_t req, fuse_ino_t dir, const char *name, fuse_ino_t new_dir,
			 const char *new_name, unsigned int flags)
{
	struct control *ct = fuse_req_userdata(req);
	int rc;

	if (refused(req, dir))
		return;
	if (new_dir != CONTROL_VIEWS) {
		fuse_reply_err(req, new_dir == CONTROL_ALIAS ? EACCES : EPERM);
		return;
	}
	rc = fs_rename(ct->fr->fs, views_dir(ct->views), name, strlen(name), views_dir(ct->views),
		       new_name, strlen(new_name), flags);
	if (!rc) {
		node_rename(ct, name);
		node_rename(ct, new_name);
	}
	reply_result(req, rc);
}

/* Views lie in one directory and have one name each. */
static void views_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode)
{
	(void)name;
	(void)mode;
	if (!refused(req, dir))
		fuse_reply_err(req, EPERM);
}

static void views_symlink(fuse_req_t req, const char *target, fuse_ino_t dir, const char *name)
{
	(void)target;
	(void)name;
	if (!refused(req, dir))
		fuse_reply_err(req, EPERM);
}

static void views_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name)
{
	(void)ino;
	(void)name;
	if (!refused(req, dir))
		fuse_reply_err(req, EPERM);
}

static void views_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	(void)dir;
	(void)name;
	fuse_reply_err(req, EPERM);
}

/* ------------------------------------------------------------------ open files */

/* D1: the way that others have it open, else passthrough where that works. */
static void side_open(fuse_req_t req, fuse_ino_t ino, const struct view *v,
		      struct fuse_file_info *fi)
{
	struct control *ct = fuse_req_userdata(req);
	struct side *side;

	mutex_lock(&ct->lock);
	side = side_of(node_find_locked(ct, id_of(ct, ino)), ino);
#ifdef HAVE_STRUCT_FUSE_FILE_INFO_BACKING_ID
	if (!side->opens && atomic_load(&ct->passthrough)) {
		const int id = fuse_passthrough_open(
			req, control_is_alias(ino) ? view_fd_read_only(v) : view_fd(v));

		if (id > 0) {
			side->backing = id;
		} else {
			log_warn("no passthrough for views: the kernel refuses the backing file");
			atomic_store(&ct->passthrough, false);
			atomic_store(&ct->fr->passthrough, false);
		}
	}
	fi->backing_id = side->backing;
	/* D3: these writes come to us; mappings do not. */
	fi->direct_io = side->backing && (fi->flags & O_DSYNC);
#else
	(void)v;
#endif
	side->opens++;
	/* Only the kernel changes a view that it caches; an alias changes with the view. */
	fi->keep_cache = !side->backing && !control_is_alias(ino);
	mutex_unlock(&ct->lock);
}

static void side_close(fuse_req_t req, fuse_ino_t ino)
{
	struct control *ct = fuse_req_userdata(req);
	struct node *nd;
	struct side *side;

	mutex_lock(&ct->lock);
	nd = node_find_locked(ct, id_of(ct, ino));
	side = side_of(nd, ino);
	nd->idle_ms = now_ms();
	if (!--side->opens && side->backing) {
#ifdef HAVE_STRUCT_FUSE_FILE_INFO_BACKING_ID
		fuse_passthrough_close(req, side->backing);
#endif
		side->backing = 0;
	}
	mutex_unlock(&ct->lock);
}

/* Find the memory and open it.  When memory is short, views that nobody uses give theirs first. */
static int open_view(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct control *ct = fuse_req_userdata(req);
	const bool writable = (fi->flags & O_ACCMODE) != O_RDONLY;
	struct view *v;
	int rc;

	if (control_is_alias(ino) && (writable || (fi->flags & O_TRUNC)))
		return -EACCES;
	rc = view_get(ct->views, id_of(ct, ino), writable, &v);
	if (rc)
		return rc;
	side_open(req, ino, v, fi);
	fi->fh = (uint64_t)(uintptr_t)v;
	return 0;
}

static void undo_open(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
	side_close(req, ino);
	view_put((struct view *)(uintptr_t)fi->fh);
}

void views_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const int rc = open_view(req, ino, fi);

	if (rc)
		reply_result(req, rc);
	else if (fuse_reply_open(req, fi) < 0)
		undo_open(req, ino, fi);
}

static void views_create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode,
			 struct fuse_file_info *fi)
{
	struct control *ct = fuse_req_userdata(req);
	const uint64_t at = views_dir(ct->views);
	struct fuse_entry_param e;
	struct fs_cred cred;
	struct fs_attr a;
	int rc;

	if (refused(req, dir))
		return;
	cred_of(req, &cred);
	rc = fs_mknod(ct->fr->fs, at, name, strlen(name), (mode & 07777) | S_IFREG, 0, &cred, &a);
	if (rc == -EEXIST && !(fi->flags & O_EXCL))
		rc = fs_lookup(ct->fr->fs, at, name, strlen(name), &a);
	if (!rc)
		rc = make_entry(ct, dir, name, &a, &e);
	if (rc) {
		reply_result(req, rc);
		return;
	}
	rc = open_view(req, e.ino, fi);
	if (rc) {
		node_forget(ct, e.ino, 1);
		reply_result(req, rc);
	} else if (fuse_reply_create(req, &e, fi) < 0) {
		undo_open(req, e.ino, fi);
		node_forget(ct, e.ino, 1);
	}
}

void views_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	undo_open(req, ino, fi);
	fuse_reply_err(req, 0);
}

void views_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi)
{
	char *buf = malloc(size ? size : 1);
	ssize_t n;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	n = view_read((struct view *)(uintptr_t)fi->fh, (uint64_t)off, buf, size);
	if (n < 0)
		reply_result(req, (int)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
	free(buf);
}

static int save_and_sync(const struct control *ct, struct view *v)
{
	const int rc = view_save(v);

	return rc < 0 ? rc : fs_sync(ct->fr->fs);
}

static void views_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
			struct fuse_file_info *fi)
{
	const struct control *ct = fuse_req_userdata(req);
	struct view *v = (struct view *)(uintptr_t)fi->fh;
	ssize_t n = -EACCES;
	int rc = 0;

	if (control_is_view(ino) && !control_is_alias(ino))
		n = view_write(v, (uint64_t)off, buf, size);
	/* D3: O_SYNC has this bit, too.  Behind its page cache the kernel sends FSYNC itself. */
	if (n > 0 && (fi->flags & O_DSYNC) && atomic_load(&ct->passthrough))
		rc = save_and_sync(ct, v);
	if (n < 0 || rc) {
		reply_result(req, n < 0 ? (int)n : rc);
		return;
	}
	if ((size_t)n < size)
		notify_inval(ct->notify, ino, off, (off_t)size);
	notify_inval(ct->notify, alias_of(ino), off, (off_t)size); /* D2 */
	fuse_reply_write(req, (size_t)n);
}

static void views_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
			    struct fuse_file_info *fi)
{
	const struct control *ct = fuse_req_userdata(req);
	int rc = -EACCES;

	if (control_is_view(ino) && !control_is_alias(ino))
		rc = view_fallocate((struct view *)(uintptr_t)fi->fh, mode, (uint64_t)off,
				    (uint64_t)len);
	if (!rc)
		notify_inval(ct->notify, alias_of(ino), off, len);
	reply_result(req, rc);
}

static void views_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
			struct fuse_file_info *fi)
{
	uint64_t found;
	int rc = -EINVAL;

	if (control_is_view(ino) && off >= 0 && (whence == SEEK_DATA || whence == SEEK_HOLE))
		rc = view_seek((struct view *)(uintptr_t)fi->fh, (uint64_t)off, whence == SEEK_DATA,
			       &found);
	if (rc)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_lseek(req, (off_t)found);
}

static void views_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	const struct control *ct = fuse_req_userdata(req);
	struct view *v;
	int rc;

	(void)fi;
	(void)datasync;
	v = control_is_view(ino) ? view_find(ct->views, id_of(ct, ino)) : NULL;
	if (v) {
		rc = save_and_sync(ct, v);
		view_put(v);
	} else {
		rc = fs_sync(ct->fr->fs);
	}
	reply_result(req, rc);
}

void views_ops(struct fuse_lowlevel_ops *ops)
{
	ops->forget = views_forget;
	ops->forget_multi = views_forget_multi;
	ops->setattr = views_setattr;
	ops->statfs = views_statfs;
	ops->getxattr = views_getxattr;
	ops->listxattr = views_listxattr;
	ops->setxattr = views_setxattr;
	ops->removexattr = views_removexattr;
	ops->mknod = views_mknod;
	ops->mkdir = views_mkdir;
	ops->symlink = views_symlink;
	ops->link = views_link;
	ops->unlink = views_unlink;
	ops->rmdir = views_rmdir;
	ops->rename = views_rename;
	ops->create = views_create;
	ops->write = views_write;
	ops->fallocate = views_fallocate;
	ops->lseek = views_lseek;
	ops->fsync = views_fsync;
	ops->fsyncdir = views_fsync;
}
