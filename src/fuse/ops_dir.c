/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests about names: lookup, creation, removal, links, renames, listings. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/front_impl.h"

void attr_to_entry(const struct front *fr, const struct fs_attr *a, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = ino_of(fr, a->id);
	e->generation = a->generation;
	attr_to_stat(fr, a, &e->attr);
	e->attr_timeout = TIMEOUT_FOREVER;
	e->entry_timeout = TIMEOUT_FOREVER;
}

void reply_entry(fuse_req_t req, const struct fs_attr *a)
{
	struct front *fr = front_of(req);
	struct fuse_entry_param e;

	attr_to_entry(fr, a, &e);
	/* The caller was interrupted: the kernel has not got it (M3). */
	if (fuse_reply_entry(req, &e) < 0)
		fs_forget(fr->fs, a->id, 1);
}

/* May a name be made or removed in this directory at all? */
static bool refused(fuse_req_t req, enum front_op op, fuse_ino_t dir, const char *name, bool making)
{
	const int rc = virtual_refuse(front_of(req), dir, name, making);

	if (rc)
		request_fail(req, op, rc);
	return rc != 0;
}

static void cred_of(fuse_req_t req, struct fs_cred *cred)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	cred->uid = ctx->uid;
	cred->gid = ctx->gid;
}

/* A mode to create with.  The kernel has applied the umask where there are no access lists. */
static uint32_t mode_of(fuse_req_t req, mode_t mode)
{
	if (!atomic_load(&front_of(req)->posix_acl))
		return mode;
	return mode | FS_UMASK(fuse_req_ctx(req)->umask);
}

/* The end of all calls that make a name in `dir`. */
static void reply_made(fuse_req_t req, enum front_op op, int rc, fuse_ino_t dir,
		       const struct fs_attr *a)
{
	if (rc) {
		request_fail(req, op, rc);
		return;
	}
	told_changed(front_of(req), req, dir);
	reply_entry(req, a);
}

/* ... that take one away. */
static void reply_removed(fuse_req_t req, enum front_op op, int rc, fuse_ino_t dir)
{
	if (!rc)
		told_changed(front_of(req), req, dir);
	request_fail(req, op, rc);
}

static void op_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct front *fr = request_begin(req, OP_LOOKUP);
	const bool virt = is_virtual(dir) || virtual_name(fr, dir, name);
	struct fuse_entry_param e;
	struct fs_attr a;
	int rc;

	if (virt) {
		rc = virtual_lookup(fr, dir, name, &e);
		if (!rc) {
			if (fuse_reply_entry(req, &e) < 0 && !is_virtual(e.ino))
				fs_forget(fr->fs, e.ino, 1);
			return;
		}
	} else {
		const uint64_t hidden = virtual_hidden(fr, dir, name);

		told_begin(fr);
		if (hidden)
			rc = fs_lookup(fr->fs, hidden, ".", 1, &a);
		else
			rc = fs_lookup(fr->fs, node_of(fr, dir), name, strlen(name), &a);
		if (!rc)
			told_about(fr, req, &a);
		told_end(fr);
		if (!rc) {
			reply_entry(req, &a);
			return;
		}
	}
	if (rc != -ENOENT) {
		request_fail(req, OP_LOOKUP, rc);
	} else if (virt) {
		/* A snapshot of that name may be made at any time, and nobody would tell the
		 * kernel. */
		request_refuse(req, -ENOENT);
	} else {
		memset(&e, 0, sizeof(e));
		e.entry_timeout = TIMEOUT_FOREVER;
		fuse_reply_entry(req, &e);
	}
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	struct front *fr = request_begin(req, OP_FORGET);

	if (!is_virtual(ino) && ino != FUSE_ROOT_ID)
		fs_forget(fr->fs, ino, n);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct front *fr = request_begin(req, OP_FORGET);

	for (size_t i = 0; i < count; i++)
		if (!is_virtual(forgets[i].ino) && forgets[i].ino != FUSE_ROOT_ID)
			fs_forget(fr->fs, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void op_mknod(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t rdev)
{
	struct front *fr = request_begin(req, OP_MKNOD);
	struct fs_cred cred;
	struct fs_attr a;
	int rc;

	if (refused(req, OP_MKNOD, dir, name, true))
		return;
	cred_of(req, &cred);
	rc = fs_mknod(fr->fs, node_of(fr, dir), name, strlen(name), mode_of(req, mode),
		      (uint32_t)rdev, &cred, &a);
	reply_made(req, OP_MKNOD, rc, dir, &a);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode)
{
	struct front *fr = request_begin(req, OP_MKDIR);
	struct fs_cred cred;
	struct fs_attr a;
	int rc;

	if (refused(req, OP_MKDIR, dir, name, true))
		return;
	cred_of(req, &cred);
	rc = fs_mkdir(fr->fs, node_of(fr, dir), name, strlen(name), mode_of(req, mode), &cred, &a);
	reply_made(req, OP_MKDIR, rc, dir, &a);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t dir, const char *name)
{
	struct front *fr = request_begin(req, OP_SYMLINK);
	struct fs_cred cred;
	struct fs_attr a;
	int rc;

	if (refused(req, OP_SYMLINK, dir, name, true))
		return;
	cred_of(req, &cred);
	rc = fs_symlink(fr->fs, node_of(fr, dir), name, strlen(name), target, &cred, &a);
	reply_made(req, OP_SYMLINK, rc, dir, &a);
}

static void reply_created(fuse_req_t req, const struct fs_attr *a, struct fuse_file_info *fi)
{
	struct front *fr = front_of(req);
	struct fuse_entry_param e;

	attr_to_entry(fr, a, &e);
	fi->fh = 0;
	fi->keep_cache = 1;
	if (fuse_reply_create(req, &e, fi) < 0)
		fs_forget(fr->fs, a->id, 1);
}

/* CREATE of a name that exists, which the kernel did not know: an open. */
static int open_existing(struct front *fr, uint64_t dir, const char *name, int flags,
			 struct fs_attr *a)
{
	const struct fs_setattr zero = {0};
	int rc;

	if (flags & O_EXCL)
		return -EEXIST;
	rc = fs_lookup(fr->fs, dir, name, strlen(name), a);
	if (rc)
		return rc;
	if (!S_ISREG(a->mode))
		rc = -EEXIST;
	else if (flags & O_TRUNC)
		rc = fs_setattr(fr->fs, a->id, FS_SET_SIZE | FS_SET_KILL_PRIV, &zero, a);
	if (rc)
		fs_forget(fr->fs, a->id, 1);
	return rc;
}

static void op_tmpfile(fuse_req_t req, fuse_ino_t dir, mode_t mode, struct fuse_file_info *fi)
{
	struct front *fr = request_begin(req, OP_TMPFILE);
	struct fs_cred cred;
	struct fs_attr a;
	int rc;

	if (refused(req, OP_TMPFILE, dir, "", true))
		return;
	cred_of(req, &cred);
	rc = fs_tmpfile(fr->fs, node_of(fr, dir), mode_of(req, (mode & 07777) | S_IFREG), &cred,
			&a);
	if (rc)
		request_fail(req, OP_TMPFILE, rc);
	else
		reply_created(req, &a, fi);
}

static void op_create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct front *fr;
	struct fs_cred cred;
	struct fs_attr a;
	int rc;

	if (this_request.tmpfile) {
		op_tmpfile(req, dir, mode, fi);
		return;
	}
	fr = request_begin(req, OP_CREATE);
	/* From now on the kernel makes files by MKNOD and opens them itself: an open file that we
	 * have answered would bring a RELEASE.  It holds the directory from the LOOKUP to the end,
	 * so nobody is between the two. */
	if (atomic_load(&fr->no_open)) {
		request_refuse(req, -ENOSYS);
		return;
	}
	if (refused(req, OP_CREATE, dir, name, true))
		return;
	cred_of(req, &cred);
	mode = (mode & 07777) | S_IFREG;
	rc = fs_mknod(fr->fs, node_of(fr, dir), name, strlen(name), mode_of(req, mode), 0, &cred,
		      &a);
	if (!rc)
		told_changed(fr, req, dir);
	if (rc == -EEXIST)
		rc = open_existing(fr, node_of(fr, dir), name, fi->flags, &a);
	if (rc)
		request_fail(req, OP_CREATE, rc);
	else
		reply_created(req, &a, fi);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name)
{
	struct front *fr = request_begin(req, OP_LINK);
	struct fs_attr a;
	int rc;

	if (refused(req, OP_LINK, dir, name, true))
		return;
	if (is_virtual(ino)) {
		request_fail(req, OP_LINK, -EPERM);
		return;
	}
	rc = fs_link(fr->fs, node_of(fr, ino), node_of(fr, dir), name, strlen(name), &a);
	reply_made(req, OP_LINK, rc, dir, &a);
}

static void op_unlink(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct front *fr = request_begin(req, OP_UNLINK);

	if (refused(req, OP_UNLINK, dir, name, false))
		return;
	reply_removed(req, OP_UNLINK, fs_unlink(fr->fs, node_of(fr, dir), name, strlen(name)), dir);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	struct front *fr = request_begin(req, OP_RMDIR);

	if (refused(req, OP_RMDIR, dir, name, false))
		return;
	reply_removed(req, OP_RMDIR, fs_rmdir(fr->fs, node_of(fr, dir), name, strlen(name)), dir);
}

static void op_rename(fuse_req_t req, fuse_ino_t dir, const char *name, fuse_ino_t new_dir,
		      const char *new_name, unsigned int flags)
{
	struct front *fr = request_begin(req, OP_RENAME);
	struct fs_cred cred;
	int rc;

	if (refused(req, OP_RENAME, dir, name, false))
		return;
	rc = virtual_refuse(fr, new_dir, new_name, true);
	if (rc) {
		/* What would be replaced can't be. */
		if (rc == -EEXIST && !(flags & RENAME_NOREPLACE))
			rc = -EBUSY;
		request_fail(req, OP_RENAME, rc);
		return;
	}
	if (flags & RENAME_WHITEOUT) {
		cred_of(req, &cred);
		rc = fs_rename_whiteout(fr->fs, node_of(fr, dir), name, strlen(name),
					node_of(fr, new_dir), new_name, strlen(new_name),
					flags & ~(unsigned)RENAME_WHITEOUT, &cred);
	} else {
		rc = fs_rename(fr->fs, node_of(fr, dir), name, strlen(name), node_of(fr, new_dir),
			       new_name, strlen(new_name), flags);
	}
	if (!rc && new_dir != dir)
		told_changed(fr, req, new_dir);
	reply_removed(req, OP_RENAME, rc, dir);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	request_begin(req, OP_OPENDIR);
	/* From now on the kernel opens directories itself, and keeps their listings. */
	request_refuse(req, -ENOSYS);
}

/* ------------------------------------------------------------------ listings */

struct listing {
	fuse_req_t req;
	struct front *fr;
	fuse_ino_t dir;
	bool plus;
	unsigned extras; /* of the root: how many of its extra entries have been put */
	char *buf;
	size_t size, used;
};

#define FULL 1
/* The cookies of ".." and of the root's extra entries come before those of all real entries. */
#define COOKIE_DOTS 2u
#define EXTRAS	    2u

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* What READDIRPLUS says about an entry; counts as a lookup unless node id 0 says that it is only
 * the name. */
static void list_look_up(struct listing *ls, const char *name, struct fuse_entry_param *e)
{
	struct front *fr = ls->fr;
	struct fs_attr a;
	int rc;

	/* Dots never count; the others are looked up on their own. */
	if (is_dots(name) || virtual_name(fr, ls->dir, name))
		return;
	if (ls->dir == VIRT_SNAPSHOTS) {
		virtual_lookup(fr, ls->dir, name, e);
		return;
	}
	rc = fs_lookup(fr->fs, node_of(fr, ls->dir), name, strlen(name), &a);
	if (rc)
		return;
	told_about(fr, ls->req, &a);
	attr_to_entry(fr, &a, e);
}

static int list_put(struct listing *ls, const char *name, uint64_t ino, uint8_t type,
		    uint64_t cookie)
{
	struct fuse_entry_param e = {.attr = {.st_ino = ino, .st_mode = (mode_t)type << 12}};
	const size_t room = ls->size - ls->used;

	if (!ls->plus) {
		const size_t need = fuse_add_direntry(ls->req, ls->buf + ls->used, room, name,
						      &e.attr, (off_t)cookie);

		if (need > room)
			return FULL;
		ls->used += need;
		return 0;
	}
	if (fuse_add_direntry_plus(ls->req, NULL, 0, name, NULL, 0) > room)
		return FULL;
	list_look_up(ls, name, &e);
	ls->used +=
		fuse_add_direntry_plus(ls->req, ls->buf + ls->used, room, name, &e, (off_t)cookie);
	return 0;
}

/* `.snapshots` and `.pmfs` in the root, when they are to be seen. */
static int list_extras(struct listing *ls)
{
	static const struct {
		const char *name;
		fuse_ino_t ino;
		uint8_t type;
	} extras[EXTRAS] = {
		{".snapshots", VIRT_SNAPSHOTS, S_IFDIR >> 12},
		{".pmfs", VIRT_PMFS, S_IFLNK >> 12},
	};

	for (; ls->extras < EXTRAS; ls->extras++) {
		const unsigned i = ls->extras;
		int rc = 0;

		if (virtual_name(ls->fr, ls->dir, extras[i].name))
			rc = list_put(ls, extras[i].name, virtual_st_ino(extras[i].ino),
				      extras[i].type, COOKIE_DOTS + i + 1);
		if (rc)
			return rc;
	}
	return 0;
}

static int list_entry(void *arg, const struct fs_dirent *de)
{
	struct listing *ls = arg;
	uint64_t ino = de->ino;
	int rc;

	/* Above a snapshot's root is `.snapshots`. */
	if (!de->id && !is_virtual(ls->dir))
		ino = virtual_st_ino(VIRT_SNAPSHOTS);
	if (de->next > COOKIE_DOTS) {
		rc = list_extras(ls);
		if (rc)
			return rc;
	}
	return list_put(ls, de->name, ino, de->type, de->next);
}

/* None of the entries has arrived, so none counts (M3). */
static void list_take_back(struct listing *ls)
{
	for (size_t at = 0; at < ls->used;) {
		struct direntplus { /* struct fuse_direntplus of the protocol */
			uint64_t nodeid, more[15];
			uint64_t ino, off;
			uint32_t namelen, type;
		} head;

		memcpy(&head, ls->buf + at, sizeof(head));
		if (head.nodeid && !is_virtual(head.nodeid))
			fs_forget(ls->fr->fs, node_of(ls->fr, head.nodeid), 1);
		at += (sizeof(head) + head.namelen + 7) & ~(size_t)7;
	}
}

static void list_dir(fuse_req_t req, enum front_op op, fuse_ino_t dir, size_t size, off_t off)
{
	struct front *fr = request_begin(req, op);
	struct listing ls = {
		.req = req, .fr = fr, .dir = dir, .plus = op == OP_READDIRPLUS, .size = size};
	uint64_t cookie = (uint64_t)off;
	int rc;

	ls.buf = malloc(size ? size : 1);
	if (!ls.buf) {
		request_fail(req, op, -ENOMEM);
		return;
	}
	ls.extras = EXTRAS;
	if (dir == FUSE_ROOT_ID && fr->cfg.snapdir_visible && cookie < COOKIE_DOTS + EXTRAS) {
		ls.extras = cookie > COOKIE_DOTS ? (unsigned)(cookie - COOKIE_DOTS) : 0;
		if (cookie > COOKIE_DOTS)
			cookie = COOKIE_DOTS;
	} else if (dir == FUSE_ROOT_ID && cookie <= COOKIE_DOTS + EXTRAS && cookie > COOKIE_DOTS) {
		cookie = COOKIE_DOTS;
	}
	told_begin(fr);
	if (dir == VIRT_SNAPSHOTS)
		rc = virtual_readdir(fr, cookie, list_entry, &ls);
	else if (is_virtual(dir))
		rc = -ENOTDIR;
	else
		rc = fs_readdir(fr->fs, node_of(fr, dir), cookie, list_entry, &ls);
	if (!rc)
		rc = list_extras(&ls);
	told_end(fr);
	/* What could be read is shown; the error comes when the listing gets there again. */
	if (rc < 0 && !ls.used)
		request_fail(req, op, rc);
	else if (fuse_reply_buf(req, ls.buf, ls.used) < 0 && ls.plus)
		list_take_back(&ls);
	free(ls.buf);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	(void)fi;
	list_dir(req, OP_READDIR, ino, size, off);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			   struct fuse_file_info *fi)
{
	(void)fi;
	list_dir(req, OP_READDIRPLUS, ino, size, off);
}

void ops_dir(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = op_lookup;
	ops->forget = op_forget;
	ops->forget_multi = op_forget_multi;
	ops->mknod = op_mknod;
	ops->mkdir = op_mkdir;
	ops->symlink = op_symlink;
	ops->create = op_create;
#ifdef HAVE_STRUCT_FUSE_LOWLEVEL_OPS_TMPFILE
	ops->tmpfile = op_tmpfile;
#endif
	ops->link = op_link;
	ops->unlink = op_unlink;
	ops->rmdir = op_rmdir;
	ops->rename = op_rename;
	ops->opendir = op_opendir;
	ops->readdir = op_readdir;
	ops->readdirplus = op_readdirplus;
}
