/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every short sequence of operations, a sync of the file, of its directory, or none behind each of
 * them, and a power cut before every flush (lib/cutdisk.h).
 *
 * A model that shares nothing with the filesystem says in words what there is to see after each
 * operation: names, links, sizes, contents, attributes, snapshots.  An image after a cut must show
 * exactly what the model said at the last commit that was acknowledged, or at the one that was
 * under way.
 *
 * A sequence's last operation is where it is looked at: what comes before it is a shorter sequence.
 * And a long random one, looked at everywhere.
 *
 * PMFS_CRASH: full: all sequences of up to three; otherwise all of two (PMFS_PAIRS: about so
 * many) and some of three (PMFS_TRIPLES).  Or one sequence, in the words that a failure prints it
 * in.  PMFS_STEPS: of the long one.  PMFS_SEED.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/hash.h"
#include "base/log.h"
#include "lib/cutdisk.h"
#include "share/dedup.h"
#include "tree/reclaim.h"

#define PAGE	  ((size_t)PMFS_PAGE_SIZE)
#define MAX_NODES 12u
#define MAX_NAMES 16u
#define MAX_SNAPS 5u
#define MAX_BYTES (12 * PAGE)
#define MAX_XATTR 5000u
#define MAX_OPS	  3u
#define NONE	  UINT32_MAX

/* ------------------------------------------------------------------ the model */

struct node {
	bool used, dir;
	uint64_t id;
	uint32_t size, xattr; /* bytes */
	uint8_t data[MAX_BYTES];
	uint8_t value[MAX_XATTR];
};

struct name {
	char text[16];
	uint32_t dir, node; /* indices; 0 is the root directory */
};

struct text {
	char buf[16384];
	size_t len;
};

struct model {
	struct node node[MAX_NODES];
	struct name name[MAX_NAMES];
	unsigned names;
	uint32_t cur; /* the name that operations are about, NONE: there is no file */
	struct {
		char name[16];
		struct text tree; /* a snapshot never changes */
	} snap[MAX_SNAPS];
	unsigned snaps;
};

static void say(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, sizeof(t->buf) - t->len, fmt, ap);
	va_end(ap);
	assert_true(n >= 0 && (size_t)n < sizeof(t->buf) - t->len);
	t->len += (size_t)n;
}

/* One line for what a path leads to; twin: the first path that leads there as well. */
static void say_node(struct text *t, const char *path, const char *twin, bool dir, unsigned nlink,
		     const uint8_t *data, size_t size, const uint8_t *value, size_t len)
{
	say(t, "%s %s", path, dir ? "dir" : "file");
	if (twin)
		say(t, " is %s", twin);
	say(t, " links %u size %zu %016" PRIx64 " xattr %zu %016" PRIx64 "\n", nlink, size,
	    hash64(data, dir ? 0 : size), len, hash64(value, len));
}

static unsigned links_of(const struct model *m, uint32_t node)
{
	unsigned n = m->node[node].dir ? 2 : 0;

	for (unsigned i = 0; i < m->names; i++)
		if (m->node[node].dir)
			n += m->name[i].dir == node && m->node[m->name[i].node].dir;
		else
			n += m->name[i].node == node;
	return n;
}

static unsigned entries_of(const struct model *m, uint32_t dir)
{
	unsigned n = 0;

	for (unsigned i = 0; i < m->names; i++)
		n += m->name[i].dir == dir;
	return n;
}

static void path_of(const struct model *m, const struct name *name, char path[48])
{
	if (!name->dir) {
		snprintf(path, 48, "%s", name->text);
		return;
	}
	for (unsigned i = 0; i < m->names; i++)
		if (m->name[i].node == name->dir)
			snprintf(path, 48, "%s/%s", m->name[i].text, name->text);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(a, b);
}

struct place {
	char path[48];
	uint64_t what; /* the same for two names of one thing */
};

static const char *twin_of(const struct place *place, unsigned i)
{
	for (unsigned k = 0; k < i; k++)
		if (place[k].what == place[i].what)
			return place[k].path;
	return NULL;
}

static void model_tree(const struct model *m, struct text *t)
{
	struct place place[MAX_NAMES];

	for (unsigned i = 0; i < m->names; i++) {
		path_of(m, &m->name[i], place[i].path);
		place[i].what = m->name[i].node;
	}
	qsort(place, m->names, sizeof(place[0]), by_path);
	say(t, "/ links %u\n", links_of(m, 0));
	for (unsigned i = 0; i < m->names; i++) {
		const uint32_t node = (uint32_t)place[i].what;
		const struct node *n = &m->node[node];

		say_node(t, place[i].path, twin_of(place, i), n->dir, links_of(m, node), n->data,
			 n->dir ? entries_of(m, node) : n->size, n->value, n->xattr);
	}
}

static void model_text(const struct model *m, struct text *t)
{
	t->len = 0;
	model_tree(m, t);
	for (unsigned i = 0; i < m->snaps; i++)
		say(t, "snapshot %s\n%s", m->snap[i].name, m->snap[i].tree.buf);
}

static uint32_t node_new(struct model *m, bool dir)
{
	uint32_t i = 1;

	while (i < MAX_NODES && m->node[i].used)
		i++;
	assert_true(i < MAX_NODES);
	m->node[i].used = true;
	m->node[i].dir = dir;
	m->node[i].size = m->node[i].xattr = 0;
	return i;
}

static uint32_t name_new(struct model *m, uint32_t dir, const char *text, uint32_t node)
{
	assert_true(m->names < MAX_NAMES);
	snprintf(m->name[m->names].text, sizeof(m->name[0].text), "%s", text);
	m->name[m->names].dir = dir;
	m->name[m->names].node = node;
	return m->names++;
}

static void name_gone(struct model *m, uint32_t i)
{
	m->name[i] = m->name[--m->names];
	if (m->cur == m->names)
		m->cur = i;
}

/* A name of a file other than `but`: the first by path, so that it is the same however names were
 * made. */
static uint32_t some_file(const struct model *m, uint32_t but)
{
	uint32_t best = NONE;

	for (uint32_t i = 0; i < m->names; i++)
		if (i != but && !m->node[m->name[i].node].dir &&
		    (best == NONE || strcmp(m->name[i].text, m->name[best].text) < 0))
			best = i;
	return best;
}

static uint32_t some_dir(const struct model *m)
{
	for (uint32_t i = m->names; i-- > 0;)
		if (m->node[m->name[i].node].dir)
			return i;
	return NONE;
}

static void put_bytes(struct node *n, size_t off, const uint8_t *buf, size_t len)
{
	assert_true(off + len <= MAX_BYTES);
	if (off > n->size)
		memset(n->data + n->size, 0, off - n->size);
	memcpy(n->data + off, buf, len);
	n->size = MAX(n->size, (uint32_t)(off + len));
}

/* ------------------------------------------------------------------ what the filesystem shows */

struct walk {
	struct fs *fs;
	struct {
		char path[48];
		uint64_t ino, id;
	} at[MAX_NAMES];
	unsigned n;
	const char *under; /* path of the directory that is read */
};

static int walk_entry(void *arg, const struct fs_dirent *de)
{
	struct walk *w = arg;

	if (!strcmp(de->name, ".") || !strcmp(de->name, ".."))
		return 0;
	if (w->n == MAX_NAMES)
		return -E2BIG;
	snprintf(w->at[w->n].path, sizeof(w->at[0].path), "%s%s%.20s", w->under,
		 *w->under ? "/" : "", de->name);
	w->at[w->n].id = 0;
	w->n++;
	return 0;
}

/* Look up what was found since `from`, and read the directories among it. */
static void walk_dir(struct walk *w, uint64_t dir, const char *under)
{
	const unsigned from = w->n;
	struct fs_attr attr;
	unsigned end;
	int rc;

	w->under = under;
	rc = fs_readdir(w->fs, dir, 0, walk_entry, w);
	assert_int_equal(rc, 0);
	end = w->n;
	for (unsigned i = from; i < end; i++) {
		const char *name = w->at[i].path + strlen(under) + (*under ? 1 : 0);

		rc = fs_lookup(w->fs, dir, name, strlen(name), &attr);
		if (rc)
			fail_msg("%s is in its directory, but lookup says %s", w->at[i].path,
				 strerror(-rc));
		w->at[i].id = attr.id;
		w->at[i].ino = attr.ino;
		if (S_ISDIR(attr.mode))
			walk_dir(w, attr.id, w->at[i].path);
	}
}

static void look_tree(struct fs *fs, uint64_t root, struct text *t)
{
	static uint8_t data[MAX_BYTES + 1], value[MAX_XATTR];
	struct walk w = {.fs = fs};
	struct place place[MAX_NAMES];
	struct fs_attr attr;

	assert_int_equal(fs_getattr(fs, root, &attr), 0);
	say(t, "/ links %u\n", attr.nlink);
	walk_dir(&w, root, "");
	qsort(w.at, w.n, sizeof(w.at[0]), by_path);
	for (unsigned i = 0; i < w.n; i++) {
		ssize_t len, size = 0;

		snprintf(place[i].path, sizeof(place[i].path), "%s", w.at[i].path);
		place[i].what = w.at[i].ino;
		assert_int_equal(fs_getattr(fs, w.at[i].id, &attr), 0);
		if (S_ISREG(attr.mode)) {
			size = fs_read(fs, w.at[i].id, 0, data, sizeof(data));
			if (size < 0 || (uint64_t)size != attr.size)
				fail_msg("%s: read of %" PRIu64 " bytes: %zd", w.at[i].path,
					 attr.size, size);
		}
		len = fs_getxattr(fs, w.at[i].id, "user.x", value, sizeof(value));
		if (len < 0 && len != -ENODATA)
			fail_msg("%s: getxattr: %s", w.at[i].path, strerror((int)-len));
		say_node(t, w.at[i].path, twin_of(place, i), S_ISDIR(attr.mode), attr.nlink, data,
			 (size_t)(S_ISDIR(attr.mode) ? (ssize_t)attr.size : size), value,
			 (size_t)MAX(len, 0));
	}
	for (unsigned i = 0; i < w.n; i++)
		fs_forget(fs, w.at[i].id, 1);
}

struct look {
	struct fs *fs;
	struct text *t;
};

static int look_snapshot(void *arg, const struct fs_snapshot *snap)
{
	struct look *l = arg;
	struct fs_attr attr;

	assert_int_equal(fs_snap_lookup(l->fs, snap->name, &attr), 0);
	say(l->t, "snapshot %s\n", snap->name);
	look_tree(l->fs, attr.id, l->t);
	fs_forget(l->fs, attr.id, 1);
	return 0;
}

static void look_text(struct fs *fs, struct text *t)
{
	struct look l = {fs, t};

	t->len = 0;
	look_tree(fs, fs_root(fs), t);
	assert_int_equal(fs_snap_each(fs, look_snapshot, &l), 0);
}

/* ------------------------------------------------------------------ operations */

enum op {
	OP_CREATE,
	OP_WRITE,
	OP_APPEND,
	OP_OVERWRITE,
	OP_TRUNCATE,
	OP_PUNCH,
	OP_LINK,
	OP_UNLINK,
	OP_RENAME,
	OP_MKDIR,
	OP_RMDIR,
	OP_SETXATTR,
	OP_SNAPSHOT,
	OP_DELETE,
	OP_DEDUP,
	OPS
};
static const char *const op_name[OPS] = {
	"create", "write", "append", "overwrite", "truncate", "punch",	"link",	 "unlink",
	"rename", "mkdir", "rmdir",  "setxattr",  "snapshot", "delete", "dedup",
};

/* FOLD: a commit that writes the nodes of the page map, with two flushes. */
enum sync { SYNC_NONE, SYNC_FILE, SYNC_DIR, SYNC_FOLD, SYNCS };
static const char *const sync_name[SYNCS] = {"none", "file", "dir", "fold"};

struct step {
	enum op op;
	enum sync sync;
};

struct enumeration {
	struct cutdisk cd;
	struct model base, m;
	struct step seq[MAX_OPS];
	unsigned len;		 /* of seq; 0: a long one, of which seq[0] is the step at hand */
	unsigned at;		 /* step that runs */
	uint64_t durable;	 /* state of the last commit that was acknowledged */
	struct text state, seen; /* to be shown when something is wrong */
	uint64_t sequences, runs;
};

static const struct fs_cred cred = {0, 0};

static void seq_text(const struct enumeration *e, char *buf, size_t size)
{
	size_t len = 0;

	for (unsigned i = 0; i < e->len; i++)
		len += (size_t)snprintf(buf + len, size - len, "%s%s/%s", i ? " " : "",
					op_name[e->seq[i].op], sync_name[e->seq[i].sync]);
}

static void on_failure(void *arg, const char *what)
{
	struct enumeration *e = arg;
	char seq[128];

	seq_text(e, seq, sizeof(seq));
	/* More than cmocka prints at a time. */
	fprintf(stderr, "--- the model now:\n%s--- the last image that was looked at:\n%s",
		e->state.buf, e->seen.buf);
	if (!e->len)
		fail_msg("step %u, %s/%s: %s", e->at + 1, op_name[e->seq[0].op],
			 sync_name[e->seq[0].sync], what);
	fail_msg("PMFS_CRASH='%s', step %u: %s", seq, e->at + 1, what);
}

static uint64_t on_look(void *arg, struct fs *fs)
{
	struct enumeration *e = arg;

	look_text(fs, &e->seen);
	return hash64(e->seen.buf, e->seen.len);
}

static uint64_t model_state(struct enumeration *e)
{
	model_text(&e->m, &e->state);
	return hash64(e->state.buf, e->state.len);
}

static void expect(struct enumeration *e, int64_t got, int64_t want)
{
	char what[64];

	if (got == want)
		return;
	snprintf(what, sizeof(what), "the answer is %" PRId64 " instead of %" PRId64, got, want);
	on_failure(e, what);
}

static uint64_t dir_id(const struct enumeration *e, uint32_t dir)
{
	return dir ? e->m.node[dir].id : fs_root(e->cd.fs);
}

static struct node *cur_node(struct enumeration *e)
{
	return &e->m.node[e->m.name[e->m.cur].node];
}

static void new_file(struct enumeration *e, uint32_t dir, const char *text)
{
	struct model *m = &e->m;
	const uint32_t node = node_new(m, false);
	struct fs_attr attr = {0};

	expect(e,
	       fs_mknod(e->cd.fs, dir_id(e, dir), text, strlen(text), S_IFREG | 0644, 0, &cred,
			&attr),
	       0);
	m->node[node].id = attr.id;
	m->cur = name_new(m, dir, text, node);
}

/* The last name of a file goes, or another file takes it. */
static void drop_name(struct enumeration *e, uint32_t i)
{
	struct model *m = &e->m;
	const uint32_t node = m->name[i].node;

	name_gone(m, i);
	if (links_of(m, node))
		return;
	m->node[node].used = false;
	fs_forget(e->cd.fs, m->node[node].id, 1);
}

static void do_write(struct enumeration *e, size_t off, size_t len, uint8_t byte)
{
	uint8_t buf[3 * PMFS_PAGE_SIZE];
	struct node *n = cur_node(e);

	assert_true(len <= sizeof(buf));
	memset(buf, byte, len);
	expect(e, fs_write(e->cd.fs, n->id, off, buf, len, 0), (int64_t)len);
	put_bytes(n, off, buf, len);
}

static void do_truncate(struct enumeration *e)
{
	struct node *n = cur_node(e);
	const struct fs_setattr in = {.size = n->size ? n->size / 2 : PAGE + 1000};
	struct fs_attr attr;

	expect(e, fs_setattr(e->cd.fs, n->id, FS_SET_SIZE, &in, &attr), 0);
	if (in.size > n->size)
		memset(n->data + n->size, 0, in.size - n->size);
	n->size = (uint32_t)in.size;
}

static void do_punch(struct enumeration *e)
{
	struct node *n = cur_node(e);
	const size_t from = 1000, to = 2 * PAGE;

	expect(e,
	       fs_fallocate(e->cd.fs, n->id, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, from,
			    to - from),
	       0);
	if (n->size > from)
		memset(n->data + from, 0, MIN(n->size, to) - from);
}

static void do_link(struct enumeration *e, const char *text)
{
	struct fs_attr attr;
	struct node *n = cur_node(e);

	expect(e, fs_link(e->cd.fs, n->id, fs_root(e->cd.fs), text, strlen(text), &attr), 0);
	fs_forget(e->cd.fs, n->id, 1);
	name_new(&e->m, 0, text, e->m.name[e->m.cur].node);
}

static void do_unlink(struct enumeration *e)
{
	const struct name name = e->m.name[e->m.cur];

	expect(e, fs_unlink(e->cd.fs, dir_id(e, name.dir), name.text, strlen(name.text)), 0);
	drop_name(e, e->m.cur);
	e->m.cur = some_file(&e->m, NONE);
}

/* Over another file where there is one, in the directory where that is. */
static void do_rename(struct enumeration *e, const char *text)
{
	struct model *m = &e->m;
	const uint32_t other = some_file(m, m->cur);
	const struct name from = m->name[m->cur];
	const uint32_t node = from.node;
	struct name to = {.dir = 0};

	if (other != NONE)
		to = m->name[other];
	else
		snprintf(to.text, sizeof(to.text), "%s", text);
	expect(e,
	       fs_rename(e->cd.fs, dir_id(e, from.dir), from.text, strlen(from.text),
			 dir_id(e, to.dir), to.text, strlen(to.text), 0),
	       0);
	/* Two names of one file: nothing happens, as rename(2) says. */
	if (other != NONE && to.node == node)
		return;
	if (other != NONE)
		drop_name(e, other);
	snprintf(m->name[m->cur].text, sizeof(to.text), "%s", to.text);
	m->name[m->cur].dir = to.dir;
}

static void do_mkdir(struct enumeration *e, const char *text)
{
	const uint32_t node = node_new(&e->m, true);
	struct fs_attr attr = {0};

	expect(e, fs_mkdir(e->cd.fs, fs_root(e->cd.fs), text, strlen(text), 0755, &cred, &attr), 0);
	e->m.node[node].id = attr.id;
	name_new(&e->m, 0, text, node);
}

static void do_rmdir(struct enumeration *e)
{
	const uint32_t i = some_dir(&e->m);
	struct name name = {.text = "e"};
	int want = -ENOENT;
	uint32_t node;

	if (i != NONE) {
		name = e->m.name[i];
		want = entries_of(&e->m, name.node) ? -ENOTEMPTY : 0;
	}
	expect(e, fs_rmdir(e->cd.fs, fs_root(e->cd.fs), name.text, strlen(name.text)), want);
	if (want)
		return;
	node = name.node;
	name_gone(&e->m, i);
	e->m.node[node].used = false;
	fs_forget(e->cd.fs, e->m.node[node].id, 1);
}

static void do_setxattr(struct enumeration *e)
{
	struct node *n = cur_node(e);

	n->xattr = n->xattr ? MAX_XATTR : 40;
	memset(n->value, 'x' + (int)e->at, n->xattr);
	expect(e, fs_setxattr(e->cd.fs, n->id, "user.x", n->value, n->xattr, 0), 0);
}

static void do_snapshot(struct enumeration *e, const char *text)
{
	struct model *m = &e->m;

	assert_true(m->snaps < MAX_SNAPS);
	expect(e, fs_snap_create(e->cd.fs, text, NULL, NULL), 0);
	snprintf(m->snap[m->snaps].name, sizeof(m->snap[0].name), "%s", text);
	m->snap[m->snaps].tree.len = 0;
	model_tree(m, &m->snap[m->snaps].tree);
	m->snaps++;
}

static void do_delete(struct enumeration *e)
{
	struct model *m = &e->m;

	expect(e, fs_snap_delete(e->cd.fs, m->snaps ? m->snap[0].name : "none"),
	       m->snaps ? 0 : -ENOENT);
	if (!m->snaps)
		return;
	m->snaps--;
	memmove(&m->snap[0], &m->snap[1], m->snaps * sizeof(m->snap[0]));
}

static void do_dedup(struct enumeration *e)
{
	struct dedup *dd;

	assert_int_equal(dedup_new(&dd, fs_store(e->cd.fs), DEDUP_MEMORY_DEFAULT), 0);
	expect(e, dedup_run(dd), 0);
	dedup_free(dd);
}

/* False: it is about a file, and there is none. */
static bool do_op(struct enumeration *e, enum op op)
{
	const uint32_t dir = some_dir(&e->m);
	const uint8_t byte = (uint8_t)('A' + e->at);
	char text[16];

	if (e->m.cur == NONE && op != OP_CREATE && op != OP_MKDIR && op != OP_RMDIR &&
	    op != OP_SNAPSHOT && op != OP_DELETE && op != OP_DEDUP)
		return false;
	snprintf(text, sizeof(text), "%s%u", op_name[op], e->at);
	switch (op) {
	case OP_CREATE:
		new_file(e, dir == NONE ? 0 : e->m.name[dir].node, text);
		break;
	case OP_WRITE:
		do_write(e, 0, 2 * PAGE + 100, byte);
		break;
	case OP_APPEND:
		do_write(e, cur_node(e)->size, 5000, byte);
		break;
	case OP_OVERWRITE:
		do_write(e, cur_node(e)->size / 3, 50, byte);
		break;
	case OP_TRUNCATE:
		do_truncate(e);
		break;
	case OP_PUNCH:
		do_punch(e);
		break;
	case OP_LINK:
		do_link(e, text);
		break;
	case OP_UNLINK:
		do_unlink(e);
		break;
	case OP_RENAME:
		do_rename(e, text);
		break;
	case OP_MKDIR:
		do_mkdir(e, text);
		break;
	case OP_RMDIR:
		do_rmdir(e);
		break;
	case OP_SETXATTR:
		do_setxattr(e);
		break;
	case OP_SNAPSHOT:
		do_snapshot(e, text);
		break;
	case OP_DELETE:
		do_delete(e);
		break;
	case OP_DEDUP:
		do_dedup(e);
		break;
	case OPS:
		break;
	}
	return true;
}

static void do_sync(struct enumeration *e, enum sync sync)
{
	const struct model *m = &e->m;
	struct fs *fs = e->cd.fs;

	if (sync == SYNC_FOLD)
		expect(e, store_fold(fs_store(fs)), 0);
	else if (sync == SYNC_FILE && m->cur != NONE)
		expect(e, fs_fsync(fs, m->node[m->name[m->cur].node].id, false), 0);
	else if (sync != SYNC_NONE)
		expect(e, fs_fsync(fs, dir_id(e, m->cur == NONE ? 0 : m->name[m->cur].dir), false),
		       0);
}

/* ------------------------------------------------------------------ one sequence */

/*
 * Look at the cuts of what has just run, if it is the end, and see what is durable now: the state
 * `last` if there was a commit since that generation.
 */
static void cuts(struct enumeration *e, uint64_t before, uint64_t after, uint64_t last,
		 uint64_t generation)
{
	const uint64_t states[] = {e->durable, before, after, last};

	cutdisk_cut(&e->cd, states, e->at + 1 == e->len || !e->len ? ARRAY_SIZE(states) : 0);
	if (store_durable(fs_store(e->cd.fs)) != generation)
		e->durable = last;
}

/* It commits what it does, or begins with a commit and does nothing that can be seen. */
static bool op_commits(enum op op)
{
	return op == OP_SNAPSHOT || op == OP_DELETE || op == OP_DEDUP;
}

static void run_step(struct enumeration *e, const struct step *step)
{
	struct store *st = fs_store(e->cd.fs);
	const uint64_t before = model_state(e);
	uint64_t generation = store_durable(st), after;

	if (!do_op(e, step->op))
		return;
	after = model_state(e);
	/* Others do so to get frames, before they begin. */
	cuts(e, before, after, op_commits(step->op) ? after : before, generation);
	if (step->op == OP_DELETE) {
		generation = store_durable(st);
		expect(e, MIN(reclaim_run(e->cd.fs), 0), 0);
		cuts(e, after, after, after, generation);
	}
	generation = store_durable(st);
	do_sync(e, step->sync);
	cuts(e, after, after, after, generation);
	if (e->at + 1 == e->len && step->sync == SYNC_NONE)
		cutdisk_cut_now(&e->cd, e->durable);
	else if (step->sync != SYNC_NONE)
		expect(e, e->durable == after, true);
}

static void model_ids(struct enumeration *e)
{
	struct model *m = &e->m;
	struct fs_attr attr;

	/* The base has nothing but the root directory's names, each of its own node. */
	for (unsigned i = 0; i < m->names; i++) {
		const struct name *name = &m->name[i];

		expect(e,
		       fs_lookup(e->cd.fs, fs_root(e->cd.fs), name->text, strlen(name->text),
				 &attr),
		       0);
		m->node[name->node].id = attr.id;
	}
}

static void run_sequence(struct enumeration *e)
{
	e->m = e->base;
	cutdisk_begin(&e->cd);
	model_ids(e);
	e->at = 0;
	e->durable = model_state(e);
	for (; e->at < e->len; e->at++)
		run_step(e, &e->seq[e->at]);
	cutdisk_end(&e->cd);
	e->runs++;
}

/* ------------------------------------------------------------------ a long one */

/* Would the model, or a small image, have room for it? */
static bool has_room(const struct model *m, enum op op)
{
	unsigned nodes = 0;

	for (unsigned i = 0; i < MAX_NODES; i++)
		nodes += m->node[i].used;
	switch (op) {
	case OP_CREATE:
	case OP_MKDIR:
		return nodes < MAX_NODES && m->names < MAX_NAMES;
	case OP_LINK:
		return m->names < MAX_NAMES;
	case OP_APPEND:
		return m->cur == NONE || m->node[m->name[m->cur].node].size < 4 * PAGE;
	case OP_SNAPSHOT:
		return m->snaps < MAX_SNAPS;
	default:
		return true;
	}
}

/* Any file, of those that there are. */
static void pick_file(struct enumeration *e)
{
	struct model *m = &e->m;
	const uint32_t n = m->names, first = n ? (uint32_t)fsfix_below(&e->cd.rnd, n) : 0;

	m->cur = NONE;
	for (uint32_t i = 0; i < n && m->cur == NONE; i++)
		if (!m->node[m->name[(first + i) % n].node].dir)
			m->cur = (first + i) % n;
}

static void run_random(struct enumeration *e, uint64_t steps)
{
	e->m = e->base;
	e->len = 0;
	cutdisk_begin(&e->cd);
	model_ids(e);
	e->durable = model_state(e);
	for (e->at = 0; e->at < steps; e->at++) {
		struct step *step = &e->seq[0];

		pick_file(e);
		do
			step->op = (enum op)fsfix_below(&e->cd.rnd, OPS);
		while (!has_room(&e->m, step->op));
		step->sync = (enum sync)fsfix_below(&e->cd.rnd, SYNCS);
		run_step(e, step);
	}
	cutdisk_end(&e->cd);
}

/* ------------------------------------------------------------------ all of them */

/* Files of which two are equal, all of them in a snapshot too, and an empty directory. */
static void make_base(struct enumeration *e)
{
	struct model *m = &e->m;
	uint8_t buf[2 * PMFS_PAGE_SIZE + 500];
	struct fsfix_random rnd = {42};

	cutdisk_start(&e->cd, on_look, on_failure, e);
	m->node[0].used = m->node[0].dir = true;
	fsfix_fill(&rnd, buf, sizeof(buf));
	for (unsigned i = 0; i < 2; i++) {
		new_file(e, 0, i ? "b" : "a");
		expect(e, fs_write(e->cd.fs, cur_node(e)->id, 0, buf, sizeof(buf), 0), sizeof(buf));
		put_bytes(cur_node(e), 0, buf, sizeof(buf));
	}
	new_file(e, 0, "c");
	do_write(e, 0, 30, 'c');
	do_mkdir(e, "e");
	do_snapshot(e, "s");
	m->cur = some_file(m, NONE);
	do_write(e, 0, 100, 'a');
	e->base = *m;
	cutdisk_set_base(&e->cd);
}

static void all_syncs(struct enumeration *e, unsigned step, bool fold)
{
	if (step == e->len) {
		run_sequence(e);
		return;
	}
	for (unsigned s = 0; s < SYNCS; s++) {
		/* Once is enough for what only says how a commit is written. */
		if (s == SYNC_FOLD && (!fold || step + 1 < e->len))
			continue;
		e->seq[step].sync = s;
		all_syncs(e, step + 1, fold);
	}
}

/* All sequences of this length; sample: one in so many. */
static void all_ops(struct enumeration *e, unsigned step, unsigned len, uint64_t sample)
{
	e->len = len;
	if (step == len) {
		if (sample > 1 && fsfix_below(&e->cd.rnd, sample))
			return;
		e->sequences++;
		all_syncs(e, 0, len < MAX_OPS);
		return;
	}
	for (unsigned op = 0; op < OPS; op++) {
		e->seq[step].op = op;
		all_ops(e, step + 1, len, sample);
	}
}

static unsigned find(const char *const *names, unsigned n, const char *word, size_t len)
{
	for (unsigned i = 0; i < n; i++)
		if (strlen(names[i]) == len && !strncmp(names[i], word, len))
			return i;
	fail_msg("PMFS_CRASH: no such word: %.*s", (int)len, word);
	return 0;
}

static void one_sequence(struct enumeration *e, const char *text)
{
	while (*text && e->len < MAX_OPS) {
		const size_t op = strcspn(text, "/"), all = strcspn(text, " ");

		if (op >= all)
			fail_msg("PMFS_CRASH: OPERATION/SYNC, up to three times");
		e->seq[e->len].op = find(op_name, OPS, text, op);
		e->seq[e->len++].sync = find(sync_name, SYNCS, text + op + 1, all - op - 1);
		text += all + strspn(text + all, " ");
	}
	run_sequence(e);
}

/* To have about so many out of all. */
static uint64_t one_in(uint64_t all, const char *name, uint64_t wanted)
{
	return MAX(all / fsfix_env(name, wanted), 1);
}

static struct enumeration *start(uint64_t seed)
{
	struct enumeration *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	make_base(e);
	fsfix_seed(&e->cd.rnd, seed);
	return e;
}

static void finish(struct enumeration *e)
{
	print_message("tries: %" PRIu64 " boundaries, %" PRIu64 " images\n", e->cd.boundaries,
		      e->cd.images);
	assert_true(e->cd.images > 0);
	cutdisk_stop(&e->cd);
	free(e);
}

static void test_crash_enum_sequences(void **state)
{
	const char *what = getenv("PMFS_CRASH");
	const bool full = what && !strcmp(what, "full");
	struct enumeration *e = start(11);

	(void)state;
	e->cd.use_one_in = full ? 1 : 8;
	if (what && strchr(what, '/')) {
		one_sequence(e, what);
	} else {
		all_ops(e, 0, 1, 1);
		all_ops(e, 0, 2, full ? 1 : one_in(OPS * OPS, "PMFS_PAIRS", OPS * OPS));
		all_ops(e, 0, 3, full ? 1 : one_in(OPS * OPS * OPS, "PMFS_TRIPLES", 25));
	}
	print_message("%" PRIu64 " sequences, %" PRIu64 " with the places of syncs, %" PRIu64
		      " cuts; %" PRIu64 " images were written to\n",
		      e->sequences, e->runs, e->cd.cuts, e->cd.used);
	finish(e);
}

static void test_crash_enum_random(void **state)
{
	struct enumeration *e = start(12);

	(void)state;
	e->cd.use_one_in = 8;
	run_random(e, fsfix_env("PMFS_STEPS", 200));
	finish(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crash_enum_sequences),
		cmocka_unit_test(test_crash_enum_random),
	};

#ifdef __SANITIZE_THREAD__
	return 77; /* one thread, and a lot of work */
#endif
	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
