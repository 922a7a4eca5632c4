/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on names, against a plain tree in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "lib/fsfix.h"
#include "tree/icache.h"
#include "tree/reclaim.h"

#define NODES 300u
#define ENTRIES 1000u
#define NAMES 12u
#define ROOT 0u

struct node {
	bool used;
	uint32_t mode, nlink;
	uint64_t ino;
	unsigned parent;   /* of a directory */
	uint64_t lookups;
	char target[200];  /* of a symlink */
};

struct entry {
	bool used;
	unsigned dir, name, node;
};

struct model {
	struct node node[NODES];
	struct entry entry[ENTRIES];
};

struct test {
	struct fsfix fx;
	struct fsfix_random rnd;
	struct model m;
	struct model saved; /* as of the snapshot */
	uint64_t saved_root;
};

static const struct fs_cred cred = { 0, 0 };

/* Some are long, so that directories have more than one page. */
static size_t name_text(unsigned name, char out[PMFS_NAME_MAX + 1])
{
	const int n = snprintf(out, PMFS_NAME_MAX + 1, "name-%u", name);

	if (name % 2)
		memset(out + n, 'x', 200u + name);
	out[n + (name % 2 ? 200 + (int)name : 0)] = '\0';
	return strlen(out);
}

static uint64_t id_of(const struct test *t, unsigned node)
{
	return NODE_ID(NODE_VOLUME(t->fx.root), t->m.node[node].ino);
}

static struct entry *find(struct model *m, unsigned dir, unsigned name)
{
	for (struct entry *e = m->entry; e < m->entry + ENTRIES; e++) {
		if (e->used && e->dir == dir && e->name == name)
			return e;
	}
	return NULL;
}

static unsigned entries_of(const struct model *m, unsigned dir)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ENTRIES; i++)
		n += m->entry[i].used && m->entry[i].dir == dir;
	return n;
}

/* NULL: the model is full. */
static struct entry *entry_free(struct model *m)
{
	for (struct entry *e = m->entry; e < m->entry + ENTRIES; e++) {
		if (!e->used)
			return e;
	}
	return NULL;
}

static unsigned node_free(const struct model *m)
{
	unsigned i = 0;

	while (i < NODES && m->node[i].used)
		i++;
	return i;
}

static bool is_dir(const struct model *m, unsigned node)
{
	return S_ISDIR(m->node[node].mode);
}

/* May names be made and found in it? */
static int usable(const struct model *m, unsigned dir)
{
	if (!is_dir(m, dir))
		return -ENOTDIR;
	return m->node[dir].nlink ? 0 : -ENOENT;
}

/* Nobody knows it and nothing names it: it is gone. */
static void settle(struct model *m, unsigned node)
{
	if (m->node[node].nlink == 0 && m->node[node].lookups == 0)
		m->node[node].used = false;
}

static bool below(const struct model *m, unsigned dir, unsigned top)
{
	while (dir != top && dir != ROOT)
		dir = m->node[dir].parent;
	return dir == top;
}

static void entry_put(struct model *m, unsigned dir, unsigned name, unsigned node)
{
	struct entry *e = find(m, dir, name);

	if (!e)
		e = entry_free(m);
	assert_non_null(e);
	*e = (struct entry){ .used = true, .dir = dir, .name = name, .node = node };
}

/* ------------------------------------------------------------------ operations */

static unsigned any_node(struct test *t)
{
	unsigned i;

	do
		i = (unsigned)fsfix_below(&t->rnd, NODES);
	while (!t->m.node[i].used);
	return i;
}

/* Mostly directories; sometimes what is none, or has been removed. */
static unsigned any_dir(struct test *t)
{
	unsigned i = any_node(t);

	for (unsigned tries = 0; tries < 50 && !(is_dir(&t->m, i) && t->m.node[i].nlink); tries++)
		i = any_node(t);
	return fsfix_below(&t->rnd, 20) ? i : any_node(t);
}

static unsigned any_name(struct test *t)
{
	return (unsigned)fsfix_below(&t->rnd, NAMES);
}

/* Half the time a name that is there, else any. */
static void any_entry(struct test *t, unsigned *dir, unsigned *name)
{
	const struct entry *e = &t->m.entry[fsfix_below(&t->rnd, ENTRIES)];

	*dir = any_dir(t);
	*name = any_name(t);
	for (unsigned i = 0; i < 20 && !e->used; i++)
		e = &t->m.entry[fsfix_below(&t->rnd, ENTRIES)];
	if (!e->used || fsfix_below(&t->rnd, 2))
		return;
	*dir = e->dir;
	*name = e->name;
}

static void node_made(struct test *t, unsigned dir, const struct fs_attr *attr, uint32_t mode,
		      uint32_t nlink, const char *target)
{
	const unsigned i = node_free(&t->m);
	struct node *n = &t->m.node[i];

	assert_true(i < NODES);
	assert_true(attr->mode == mode && attr->nlink == nlink);
	*n = (struct node){ .used = true,
			    .mode = mode,
			    .nlink = nlink,
			    .ino = attr->ino,
			    .parent = dir,
			    .lookups = 1 };
	snprintf(n->target, sizeof(n->target), "%s", target);
	for (unsigned k = 0; k < NODES; k++)
		assert_true(k == i || !t->m.node[k].used || t->m.node[k].ino != n->ino);
}

static void do_create(struct test *t)
{
	static const uint32_t modes[] = { S_IFREG | 0644, S_IFDIR | 0755, S_IFDIR | 0755,
					  S_IFIFO | 0600, S_IFLNK | 0777 };
	const uint32_t mode = modes[fsfix_below(&t->rnd, ARRAY_SIZE(modes))];
	const unsigned dir = any_dir(t), name = any_name(t), i = node_free(&t->m);
	char text[PMFS_NAME_MAX + 1], target[200] = "";
	const size_t len = name_text(name, text);
	int rc, want = usable(&t->m, dir);
	struct fs_attr attr;

	if (i == NODES || !entry_free(&t->m))
		return;
	if (!want && find(&t->m, dir, name))
		want = -EEXIST;
	if (S_ISLNK(mode)) {
		memset(target, 't', 1 + fsfix_below(&t->rnd, sizeof(target) - 1));
		rc = fs_symlink(t->fx.fs, id_of(t, dir), text, len, target, &cred, &attr);
	} else if (S_ISDIR(mode)) {
		rc = fs_mkdir(t->fx.fs, id_of(t, dir), text, len, mode & 07777, &cred, &attr);
	} else {
		rc = fs_mknod(t->fx.fs, id_of(t, dir), text, len, mode, 0, &cred, &attr);
	}
	assert_int_equal(rc, want);
	if (rc)
		return;
	node_made(t, dir, &attr, mode, S_ISDIR(mode) ? 2 : 1, target);
	entry_put(&t->m, dir, name, i);
	t->m.node[dir].nlink += S_ISDIR(mode);
}

static void do_tmpfile(struct test *t)
{
	const unsigned dir = any_dir(t);
	const int want = usable(&t->m, dir);
	struct fs_attr attr;

	if (node_free(&t->m) == NODES)
		return;
	assert_int_equal(fs_tmpfile(t->fx.fs, id_of(t, dir), 0600, &cred, &attr), want);
	if (want == 0)
		node_made(t, ROOT, &attr, S_IFREG | 0600, 0, "");
}

static void do_link(struct test *t)
{
	const unsigned node = any_node(t), dir = any_dir(t), name = any_name(t);
	char text[PMFS_NAME_MAX + 1];
	const size_t len = name_text(name, text);
	struct fs_attr attr;
	int want;

	if (!entry_free(&t->m))
		return;
	want = is_dir(&t->m, node) ? -EPERM : usable(&t->m, dir);
	if (!want && find(&t->m, dir, name))
		want = -EEXIST;
	assert_int_equal(fs_link(t->fx.fs, id_of(t, node), id_of(t, dir), text, len, &attr), want);
	if (want)
		return;
	entry_put(&t->m, dir, name, node);
	t->m.node[node].nlink++;
	t->m.node[node].lookups++;
	assert_true(attr.ino == t->m.node[node].ino && attr.nlink == t->m.node[node].nlink);
}

static void do_remove(struct test *t)
{
	const bool want_dir = fsfix_below(&t->rnd, 2);
	unsigned dir, name;
	char text[PMFS_NAME_MAX + 1];
	struct entry *e = NULL;
	size_t len;
	int want;

	any_entry(t, &dir, &name);
	len = name_text(name, text);
	want = usable(&t->m, dir);
	if (!want) {
		e = find(&t->m, dir, name);
		if (!e)
			want = -ENOENT;
		else if (want_dir != is_dir(&t->m, e->node))
			want = want_dir ? -ENOTDIR : -EISDIR;
		else if (want_dir && entries_of(&t->m, e->node))
			want = -ENOTEMPTY;
	}
	assert_int_equal(want_dir ? fs_rmdir(t->fx.fs, id_of(t, dir), text, len)
				  : fs_unlink(t->fx.fs, id_of(t, dir), text, len), want);
	if (want)
		return;
	e->used = false;
	t->m.node[e->node].nlink -= want_dir ? 2 : 1;
	t->m.node[dir].nlink -= want_dir;
	settle(&t->m, e->node);
}

static int rename_want(struct model *m, unsigned from, const struct entry *src, unsigned to,
		       const struct entry *dst, unsigned flags)
{
	const bool exchange = flags & RENAME_EXCHANGE;

	if (!src || (exchange && !dst))
		return -ENOENT;
	if (dst && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (dst && src->node == dst->node)
		return 0;
	if (from != to && is_dir(m, src->node) && below(m, to, src->node))
		return -EINVAL;
	if (from != to && exchange && is_dir(m, dst->node) && below(m, from, dst->node))
		return -EINVAL;
	if (exchange || !dst)
		return 0;
	if (is_dir(m, src->node) != is_dir(m, dst->node))
		return is_dir(m, dst->node) ? -EISDIR : -ENOTDIR;
	return is_dir(m, dst->node) && entries_of(m, dst->node) ? -ENOTEMPTY : 0;
}

static void dir_moved(struct model *m, unsigned node, unsigned from, unsigned to)
{
	if (!is_dir(m, node))
		return;
	m->node[from].nlink--;
	m->node[to].nlink++;
	m->node[node].parent = to;
}

static void do_rename(struct test *t)
{
	static const unsigned kinds[] = { 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };
	const unsigned flags = kinds[fsfix_below(&t->rnd, ARRAY_SIZE(kinds))];
	unsigned from, name, to, new_name;
	char text[PMFS_NAME_MAX + 1], new_text[PMFS_NAME_MAX + 1];
	struct entry *src = NULL, *dst = NULL;
	size_t len, new_len;
	int want;

	any_entry(t, &from, &name);
	any_entry(t, &to, &new_name);
	if (fsfix_below(&t->rnd, 3) == 0)
		to = from;
	len = name_text(name, text);
	new_len = name_text(new_name, new_text);
	want = usable(&t->m, from);
	if (!want)
		want = usable(&t->m, to);
	if (!want) {
		src = find(&t->m, from, name);
		dst = find(&t->m, to, new_name);
		want = rename_want(&t->m, from, src, to, dst, flags);
	}
	assert_int_equal(fs_rename(t->fx.fs, id_of(t, from), text, len, id_of(t, to), new_text,
				   new_len, flags),
			 want);
	if (want || (dst && src->node == dst->node))
		return;
	dir_moved(&t->m, src->node, from, to);
	if (!dst) {
		src->dir = to;
		src->name = new_name;
	} else if (flags & RENAME_EXCHANGE) {
		const unsigned moved = src->node;

		dir_moved(&t->m, dst->node, to, from);
		src->node = dst->node;
		dst->node = moved;
	} else {
		const unsigned gone = dst->node;

		dst->node = src->node;
		src->used = false;
		t->m.node[gone].nlink -= is_dir(&t->m, gone) ? 2 : 1;
		t->m.node[to].nlink -= is_dir(&t->m, gone);
		settle(&t->m, gone);
	}
}

static void do_lookup(struct test *t)
{
	const unsigned dir = any_dir(t), name = any_name(t);
	char text[PMFS_NAME_MAX + 1];
	const size_t len = name_text(name, text);
	struct entry *e = is_dir(&t->m, dir) ? find(&t->m, dir, name) : NULL;
	const int want = !is_dir(&t->m, dir) ? -ENOTDIR : e ? 0 : -ENOENT;
	struct fs_attr attr;

	assert_int_equal(fs_lookup(t->fx.fs, id_of(t, dir), text, len, &attr), want);
	if (want)
		return;
	t->m.node[e->node].lookups++;
	assert_true(attr.ino == t->m.node[e->node].ino);
}

static void do_forget(struct test *t)
{
	const unsigned i = any_node(t);
	struct node *n = &t->m.node[i];
	const uint64_t some = n->lookups ? 1 + fsfix_below(&t->rnd, n->lookups) : 0;

	if (i == ROOT || !some)
		return;
	fs_forget(t->fx.fs, id_of(t, i), some);
	n->lookups -= some;
	settle(&t->m, i);
}

/* ------------------------------------------------------------------ comparing */

struct seen {
	struct test *t;
	struct model *m;
	uint64_t root;
	unsigned dir, n;
};

static int see(void *arg, const struct fs_dirent *de)
{
	struct seen *s = arg;
	struct fs_attr attr;
	struct entry *e;
	struct node *n;
	char text[PMFS_NAME_MAX + 1];

	if (de->name[0] == '.')
		return 0;
	e = find(s->m, s->dir, (unsigned)strtoul(de->name + 5, NULL, 10));
	assert_non_null(e);
	name_text(e->name, text);
	assert_string_equal(text, de->name);
	n = &s->m->node[e->node];
	assert_true(NODE_INO(de->id) == n->ino && NODE_VOLUME(de->id) == NODE_VOLUME(s->root));
	assert_true(de->type == IFTODT(n->mode));
	assert_int_equal(fs_lookup(s->t->fx.fs,
				   NODE_ID(NODE_VOLUME(s->root), s->m->node[s->dir].ino), text,
				   strlen(text), &attr),
			 0);
	assert_true(attr.id == de->id && attr.mode == n->mode && attr.nlink == n->nlink);
	if (S_ISLNK(n->mode)) {
		char got[256] = "";

		assert_int_equal(fs_readlink(s->t->fx.fs, attr.id, got, sizeof(got)),
				 strlen(n->target));
		assert_string_equal(got, n->target);
	}
	fs_forget(s->t->fx.fs, attr.id, 1);
	s->n++;
	return 0;
}

static void compare(struct test *t, struct model *m, uint64_t root)
{
	for (unsigned i = 0; i < NODES; i++) {
		struct seen s = { .t = t, .m = m, .root = root, .dir = i };
		const uint64_t id = NODE_ID(NODE_VOLUME(root), m->node[i].ino);
		struct fs_attr attr;

		if (!m->node[i].used || (m == &t->saved && !m->node[i].nlink))
			continue;
		assert_int_equal(fs_getattr(t->fx.fs, id, &attr), 0);
		assert_true(attr.mode == m->node[i].mode && attr.nlink == m->node[i].nlink);
		if (!is_dir(m, i))
			continue;
		assert_int_equal(fs_readdir(t->fx.fs, id, 0, see, &s), 0);
		assert_true(s.n == entries_of(m, i) && attr.size == s.n);
		assert_int_equal(fs_lookup(t->fx.fs, id, "..", 2, &attr),
				 m->node[i].nlink ? 0 : -ENOENT);
		if (!m->node[i].nlink)
			continue;
		assert_true(NODE_INO(attr.id) == m->node[m->node[i].parent].ino);
		fs_forget(t->fx.fs, attr.id, 1);
	}
}

static void compare_all(struct test *t)
{
	struct fs_stats st;
	uint64_t used = 0;

	compare(t, &t->m, t->fx.root);
	if (t->saved_root)
		compare(t, &t->saved, t->saved_root);
	for (unsigned i = 0; i < NODES; i++)
		used += t->m.node[i].used;
	fs_stat(t->fx.fs, &st);
	/* The orphan directory is one more. */
	assert_true(st.inodes_used == used + 1);
	fsfix_check(&t->fx);
}

static void forgotten(struct model *m)
{
	for (unsigned i = 0; i < NODES; i++) {
		m->node[i].lookups = 0;
		if (m->node[i].used && i != ROOT)
			settle(m, i);
	}
}

/* The next mount: nobody knows anything, and what has no name is given back. */
static void do_reopen(struct test *t)
{
	if (fsfix_below(&t->rnd, 2)) {
		fsfix_stop(&t->fx);
	} else {
		assert_int_equal(fs_sync(t->fx.fs), 0);
		fsfix_crash(&t->fx);
	}
	fsfix_start(&t->fx);
	forgotten(&t->m);
	assert_true(reclaim_run(t->fx.fs) >= 0);
}

static void do_snapshot(struct test *t)
{
	struct fs_snapshot snap;

	if (t->saved_root)
		assert_int_equal(fs_snap_delete(t->fx.fs, "snap"), 0);
	assert_int_equal(fs_snap_create(t->fx.fs, "snap", "", &snap), 0);
	t->saved = t->m;
	t->saved_root = snap.root;
}

static void step(struct test *t, bool grow)
{
	switch (fsfix_below(&t->rnd, 12)) {
	case 0:
	case 1:
	case 2:
		if (grow)
			do_create(t);
		else
			do_remove(t);
		break;
	case 3:
		do_tmpfile(t);
		break;
	case 4:
		do_link(t);
		break;
	case 5:
	case 6:
		do_remove(t);
		break;
	case 7:
	case 8:
		do_rename(t);
		break;
	case 9:
		do_lookup(t);
		break;
	default:
		do_forget(t);
	}
}

static void run(struct test *t, unsigned ops)
{
	fsfix_seed(&t->rnd, 1);
	t->m.node[ROOT] = (struct node){ .used = true, .mode = S_IFDIR | 0755, .nlink = 2,
					   .ino = PMFS_INO_ROOT };
	for (unsigned i = 1; i <= ops; i++) {
		/* Trees come and go. */
		step(t, i / 2500 % 3 != 2);
		if (i % 500 == 0)
			assert_int_equal(fs_sync(t->fx.fs), 0);
		if (i % 3000 == 0)
			compare_all(t);
		if (i % 6000 == 0 && !t->fx.ram)
			do_reopen(t);
		if (i % 4000 == 0)
			do_snapshot(t);
	}
	compare_all(t);
}

static void run_in(bool ram, unsigned ops)
{
	struct test *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	if (ram)
		fsfix_ram(&t->fx, 0);
	else
		fsfix_image(&t->fx, 0);
	run(t, ops);
	fsfix_free(&t->fx);
	free(t);
}

static void test_name_model_in_ram(void **state)
{
	(void)state;
	run_in(true, (unsigned)fsfix_env("PMFS_OPS", 60000));
}

static void test_name_model_in_an_image(void **state)
{
	(void)state;
	run_in(false, (unsigned)fsfix_env("PMFS_OPS", 60000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_name_model_in_ram),
		cmocka_unit_test(test_name_model_in_an_image),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
