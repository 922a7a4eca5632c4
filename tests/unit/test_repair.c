/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each kind of damage is found, repaired, and then no more found; and every inode that it did not
 * hit is still there, byte for byte, under its name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/hash.h"
#include "base/log.h"
#include "lib/surgery.h"
#include "tree/dir.h"
#include "tree/itable.h"
#include "tree/fs_impl.h"

#define PAGES(n)   ((size_t)(n)*PMFS_PAGE_SIZE)
#define SMALL	   60u /* files in /many */
#define THINGS_MAX 400u

/*
 * The patient:
 *   /dir/file   1300 pages, attributes, a second name /link
 *   /dir/sub/   with /dir/sub/deep
 *   /other      10 pages, the same in the snapshots and in the live volume
 *   /many/      60 small files with long names: several pages of directory
 *   /sym        a symlink
 *   an orphan
 * Snapshots s and t; what comes after them: page 5 of file written anew, and new-0 .. new-29.
 */
struct thing {
	bool snap; /* in snapshot s */
	uint64_t ino;
	char path[300];
	mode_t mode;
	uint64_t size, sum;
	bool unreadable;
};

struct patient {
	struct fsfix fx;
	uint64_t dir, file, sub, other, many, open;
	struct thing before[THINGS_MAX], after[THINGS_MAX];
	size_t n_before, n_after;
	char text[65536]; /* findings, and what the repair said */
	struct fs_repair how;
};

static struct patient pt;

static struct volume *live(void)
{
	return pt.fx.fs->live;
}

/* ------------------------------------------------------------------ what is there */

struct listing {
	struct thing *thing;
	size_t *n;
	const char *path;
	bool snap;
	int rc;
};

static void list(uint64_t dir, const char *path, bool snap, struct thing *thing, size_t *n);

static int list_entry(void *arg, const struct fs_dirent *de)
{
	struct listing *ls = arg;
	struct thing *t = &ls->thing[*ls->n];
	struct fs_attr attr;
	uint8_t *buf;
	ssize_t got;

	if (!strcmp(de->name, ".") || !strcmp(de->name, ".."))
		return 0;
	assert_true(*ls->n < THINGS_MAX);
	assert_int_equal(fs_getattr(pt.fx.fs, de->id, &attr), 0);
	*t = (struct thing){
		.snap = ls->snap, .ino = NODE_INO(de->id), .mode = attr.mode, .size = attr.size};
	snprintf(t->path, sizeof(t->path), "%s/%.200s", ls->path, de->name);
	++*ls->n;
	if (S_ISDIR(attr.mode)) {
		char below[300];

		t->size = 0;
		snprintf(below, sizeof(below), "%s", t->path);
		list(de->id, below, ls->snap, ls->thing, ls->n);
		return 0;
	}
	buf = malloc(attr.size + 1);
	assert_non_null(buf);
	got = S_ISLNK(attr.mode) ? fs_readlink(pt.fx.fs, de->id, (char *)buf, attr.size + 1)
				 : fs_read(pt.fx.fs, de->id, 0, buf, attr.size);
	t->unreadable = got < 0;
	t->sum = got > 0 ? hash64(buf, (size_t)got) : 0;
	got = fs_getxattr(pt.fx.fs, de->id, "user.colour", buf, 0);
	t->sum += got > 0 ? 1 : 0;
	free(buf);
	return 0;
}

static void list(uint64_t dir, const char *path, bool snap, struct thing *thing, size_t *n)
{
	struct listing ls = {thing, n, path, snap, 0};

	assert_int_equal(fs_readdir(pt.fx.fs, dir, 0, list_entry, &ls), 0);
}

static size_t list_all(struct thing *thing)
{
	struct fs_snapshot snap;
	size_t n = 0;

	list(pt.fx.root, "", false, thing, &n);
	if (!fs_snap_find(pt.fx.fs, "s", &snap))
		list(snap.root, "", true, thing, &n);
	return n;
}

/* ------------------------------------------------------------------ the patient */

static void write_pages(uint64_t id, pgno_t at, unsigned pages, unsigned char c)
{
	uint8_t buf[PMFS_PAGE_SIZE];

	for (unsigned i = 0; i < pages; i++) {
		memset(buf, c, sizeof(buf));
		memcpy(buf, &i, sizeof(i));
		fsfix_write(&pt.fx, id, PAGES(at + i), buf, sizeof(buf));
	}
}

static void patient_new(void)
{
	const struct fs_cred cred = {0};
	uint64_t dir, file, other, open, many;
	struct fs_attr attr;
	char name[250];

	fsfix_image(&pt.fx, 0);
	dir = fsfix_mkdir(&pt.fx, pt.fx.root, "dir");
	file = fsfix_file(&pt.fx, dir, "file");
	write_pages(file, 0, 1300, 'a');
	assert_int_equal(fs_setxattr(pt.fx.fs, file, "user.colour", "blue", 4, 0), 0);
	assert_int_equal(fs_link(pt.fx.fs, file, pt.fx.root, "link", 4, &attr), 0);
	pt.sub = NODE_INO(fsfix_mkdir(&pt.fx, dir, "sub"));
	other = fsfix_file(&pt.fx, pt.fx.root, "other");
	write_pages(other, 0, 10, 'o');
	open = fsfix_file(&pt.fx, pt.fx.root, "open");
	write_pages(open, 0, 3, 'q');
	assert_int_equal(fs_unlink(pt.fx.fs, pt.fx.root, "open", 4), 0);
	write_pages(fsfix_file(&pt.fx, NODE_ID(1, pt.sub), "deep"), 0, 2, 'd');
	assert_int_equal(fs_symlink(pt.fx.fs, pt.fx.root, "sym", 3, "dir/file", &cred, &attr), 0);
	many = fsfix_mkdir(&pt.fx, pt.fx.root, "many");
	for (unsigned i = 0; i < SMALL; i++) {
		memset(name, 'n', 200);
		snprintf(name + 200, sizeof(name) - 200, "-%u", i);
		fsfix_write(&pt.fx, fsfix_file(&pt.fx, many, name), 0, name, 200);
	}
	for (unsigned i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "gone-%u", i);
		fs_forget(pt.fx.fs, fsfix_file(&pt.fx, pt.fx.root, name), 1);
	}
	for (unsigned i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "gone-%u", i);
		assert_int_equal(fs_unlink(pt.fx.fs, pt.fx.root, name, strlen(name)), 0);
	}
	assert_int_equal(fs_snap_create(pt.fx.fs, "t", NULL, NULL), 0);
	assert_int_equal(fs_snap_create(pt.fx.fs, "s", NULL, NULL), 0);
	for (unsigned i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "new-%u", i);
		fsfix_file(&pt.fx, pt.fx.root, name);
	}
	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "new-%u", i);
		fs_forget(pt.fx.fs, fsfix_find(&pt.fx, pt.fx.root, name), 2);
		assert_int_equal(fs_unlink(pt.fx.fs, pt.fx.root, name, strlen(name)), 0);
	}
	write_pages(file, 5, 1, 'n');
	pt.dir = NODE_INO(dir);
	pt.file = NODE_INO(file);
	pt.other = NODE_INO(other);
	pt.open = NODE_INO(open);
	pt.many = NODE_INO(many);
	fsfix_reopen(&pt.fx);
	fsfix_check(&pt.fx);
	pt.n_before = list_all(pt.before);
	fsfix_reopen(&pt.fx); /* what was looked up is forgotten */
}

static int setup(void **state)
{
	(void)state;
	memset(&pt, 0, sizeof(pt));
	patient_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (pt.fx.fs)
		fsfix_crash(&pt.fx);
	fsfix_free(&pt.fx);
	return 0;
}

/* ------------------------------------------------------------------ check, repair, compare */

static void add_text(const char *text)
{
	if (strlen(pt.text) + strlen(text) + 2 < sizeof(pt.text))
		strcat(strcat(pt.text, text), "\n");
}

static void collect(void *arg, const char *what)
{
	(void)arg;
	add_text(what);
}

static void said(void *arg, bool left, const char *what)
{
	(void)arg;
	add_text(left ? "LEFT:" : "FIXED:");
	add_text(what);
}

static int check(void)
{
	int rc;

	pt.text[0] = 0;
	rc = fs_check(pt.fx.fs, true, collect, NULL);
	if (rc < 0)
		fail_msg("fs_check: %s", strerror(-rc));
	return rc;
}

/* The image is closed; repair it. */
static int repair_closed(bool cut_data)
{
	struct fs_config cfg = {.store = {.path = pt.fx.image}, .repair = &pt.how};
	struct store_error err;
	struct fs *fs;
	int rc;

	pt.how = (struct fs_repair){.cut_data = cut_data, .said = said};
	pt.text[0] = 0;
	rc = fs_open(&fs, &cfg, &err);
	if (rc)
		add_text(err.text);
	return rc ? rc : fs_close(fs);
}

/* Words of which one line has all. */
static void expect_said(const char *a, const char *b)
{
	char *text = strdup(pt.text), *rest = text, *line;
	bool hit = false;

	while ((line = strsep(&rest, "\n")))
		hit = hit || (strstr(line, a) && strstr(line, b));
	free(text);
	if (!hit)
		fail_msg("no line with \"%s\" and \"%s\" in:\n%s", a, b, pt.text);
}

static void repair(const char *a, const char *b)
{
	fsfix_stop(&pt.fx);
	assert_int_equal(repair_closed(false), 0);
	assert_true(pt.how.fixed > 0);
	if (pt.how.left)
		fail_msg("something is left:\n%s", pt.text);
	expect_said(a, b);
	fsfix_start(&pt.fx);
	{
		char *report = strdup(pt.text);

		if (check())
			fail_msg("still wrong:\n%s\nafter:\n%s", pt.text, report);
		free(report);
	}
	/* A second repair has nothing to do. */
	fsfix_stop(&pt.fx);
	assert_int_equal(repair_closed(false), 0);
	if (pt.how.fixed || pt.how.left)
		fail_msg("repaired again:\n%s", pt.text);
	fsfix_start(&pt.fx);
}

static void find_and_repair(const char *a, const char *b)
{
	assert_true(check() > 0);
	repair(a, b);
}

/* lost: inode numbers whose contents may differ or that may be gone, moved: whose names may; both
 * end with 0. */
static bool among(const uint64_t *inos, uint64_t ino)
{
	for (; inos && *inos; inos++)
		if (*inos == ino)
			return true;
	return false;
}

static void expect_rest(const uint64_t *lost, const uint64_t *moved)
{
	pt.n_after = list_all(pt.after);
	for (size_t i = 0; i < pt.n_before; i++) {
		const struct thing *b = &pt.before[i], *a = NULL, *named = NULL;

		for (size_t k = 0; k < pt.n_after; k++) {
			if (pt.after[k].snap != b->snap || pt.after[k].ino != b->ino)
				continue;
			a = &pt.after[k];
			if (!strcmp(a->path, b->path))
				named = a;
		}
		if (among(lost, b->ino))
			continue;
		if (!a)
			fail_msg("%s%s is gone", b->snap ? "snapshot: " : "", b->path);
		if (!named && !among(moved, b->ino))
			fail_msg("%s%s has another name: %s", b->snap ? "snapshot: " : "", b->path,
				 a->path);
		if (a->size != b->size || a->sum != b->sum || a->mode != b->mode || a->unreadable)
			fail_msg("%s%s has changed", b->snap ? "snapshot: " : "", b->path);
	}
}

static const uint64_t nothing[] = {0};

/* ------------------------------------------------------------------ surgery */

static struct pmfs_inode get(struct volume *vol, uint64_t ino)
{
	struct pmfs_inode rec;

	surgery_get(&pt.fx, vol, ino, &rec);
	return rec;
}

/* Write a record as the volume does, so that others keep theirs. */
static void put(struct volume *vol, uint64_t ino, const struct pmfs_inode *rec)
{
	struct txn tx;

	assert_int_equal(txn_begin(fs_store(pt.fx.fs), &tx, FRAME_NORMAL, ITABLE_COST), 0);
	mutex_lock(&vol->lock);
	assert_int_equal(ptab_write(&tx, &vol->inodes, &itable_ops, ino / PMFS_INODES_PER_PAGE,
				    ino % PMFS_INODES_PER_PAGE * sizeof(*rec), rec, sizeof(*rec),
				    NULL),
			 0);
	assert_int_equal(volume_store_row(&tx, vol), 0);
	mutex_unlock(&vol->lock);
	txn_end(&tx);
}

static void put_row(struct volume *vol)
{
	struct txn tx;

	assert_int_equal(txn_begin(fs_store(pt.fx.fs), &tx, FRAME_NORMAL, VOLUME_ROW_COST), 0);
	mutex_lock(&vol->lock);
	assert_int_equal(volume_store_row(&tx, vol), 0);
	mutex_unlock(&vol->lock);
	txn_end(&tx);
}

static vpn_t data_page(struct volume *vol, uint64_t ino, pgno_t pgno)
{
	const struct pmfs_inode rec = get(vol, ino);
	const struct ptab tab = ptab_decode(&rec.data);

	return surgery_page(&pt.fx, &tab, pgno);
}

struct entry {
	const char *name;
	uint64_t ino;
	uint8_t type;
};

static int add_entry(struct txn *tx, struct inode *in, const struct entry *e)
{
	return dir_insert(tx, in, e->name, strlen(e->name), e->ino, e->type);
}

static int drop_entry(struct txn *tx, struct inode *in, const struct entry *e)
{
	return dir_remove(tx, in, e->name, strlen(e->name), NULL);
}

static int turn_entry(struct txn *tx, struct inode *in, const struct entry *e)
{
	return dir_replace(tx, in, e->name, strlen(e->name), e->ino, e->type);
}

static void change_dir(struct volume *vol, uint64_t dir,
		       int (*fn)(struct txn *tx, struct inode *in, const struct entry *e),
		       const char *name, uint64_t ino, uint8_t type)
{
	const struct entry e = {name, ino, type};
	struct inode in = {.vol = vol, .ino = dir};
	struct txn tx;

	rw_init(&in.lock, LOCK_INODE);
	rw_wrlock(&in.lock);
	assert_int_equal(itable_load(&in), 0);
	assert_int_equal(
		txn_begin(fs_store(pt.fx.fs), &tx, FRAME_NORMAL, DIR_COST + 2 * ITABLE_COST), 0);
	assert_int_equal(itable_own(&tx, &in), 0);
	assert_int_equal(fn(&tx, &in, &e), 0);
	assert_int_equal(itable_store(&tx, &in), 0);
	txn_end(&tx);
	rw_unlock(&in.lock);
	rw_destroy(&in.lock);
}

static const char *orphan_name(uint64_t ino)
{
	static char name[17];

	snprintf(name, sizeof(name), "%016" PRIx64, ino);
	return name;
}

/* ------------------------------------------------------------------ nothing */

static void test_repair_of_what_is_whole(void **state)
{
	(void)state;
	fsfix_stop(&pt.fx);
	assert_int_equal(repair_closed(true), 0);
	if (pt.how.fixed || pt.how.left)
		fail_msg("%s", pt.text);
	fsfix_start(&pt.fx);
	assert_int_equal(check(), 0);
	expect_rest(nothing, nothing);
}

/* ------------------------------------------------------------------ names and links */

static void test_repair_links(void **state)
{
	struct pmfs_inode rec = get(live(), pt.other);

	(void)state;
	le32_put(&rec.nlink, 9);
	put(live(), pt.other, &rec);
	rec = get(live(), pt.dir);
	le32_put(&rec.nlink, 2);
	put(live(), pt.dir, &rec);
	find_and_repair("live: inode 6:", "it had 9 links, and has 1 now");
	expect_rest(nothing, nothing);
}

static void test_repair_links_of_the_orphan_directory(void **state)
{
	struct pmfs_inode rec = get(live(), PMFS_INO_ORPHANS);

	(void)state;
	le32_put(&rec.nlink, 0);
	put(live(), PMFS_INO_ORPHANS, &rec);
	find_and_repair("live: inode 2", "it had 0 links, and has 2 now");
	expect_rest(nothing, nothing);
}

static void test_repair_links_in_a_snapshot(void **state)
{
	struct volume *snap = surgery_volume(&pt.fx, "s");
	struct pmfs_inode rec = get(snap, pt.other);

	(void)state;
	le32_put(&rec.nlink, 9);
	put(snap, pt.other, &rec);
	find_and_repair("snapshot s: inode 6:", "it had 9 links");
	expect_rest(nothing, nothing);
}

static void test_repair_entries_to_nowhere(void **state)
{
	(void)state;
	change_dir(live(), PMFS_INO_ROOT, add_entry, "ghost", live()->free_ino, DT_REG);
	change_dir(live(), pt.dir, add_entry, "far", 100000, DT_REG);
	change_dir(live(), PMFS_INO_ROOT, turn_entry, "other", pt.other, DT_LNK);
	find_and_repair("\"ghost\"", "leads nowhere");
	expect_rest(nothing, nothing);
	assert_int_equal(fsfix_find(&pt.fx, pt.fx.root, "ghost"), 0);
}

static void test_repair_lost_names(void **state)
{
	const uint64_t moved[] = {pt.other, pt.sub, 8, 0};
	struct fs_attr attr;
	uint64_t lf, id;

	(void)state;
	change_dir(live(), PMFS_INO_ROOT, drop_entry, "other", 0, 0);
	change_dir(live(), pt.dir, drop_entry, "sub", 0, 0);
	find_and_repair("live: inode 6:", "it is /lost+found/#6 now");
	expect_rest(nothing, moved);
	lf = fsfix_find(&pt.fx, pt.fx.root, "lost+found");
	assert_int_not_equal(lf, 0);
	assert_int_not_equal(fsfix_find(&pt.fx, lf, "#6"), 0);
	id = fsfix_find(&pt.fx, lf, "#5");
	assert_int_not_equal(id, 0);
	assert_int_not_equal(fsfix_find(&pt.fx, id, "deep"), 0);
	assert_int_equal(fs_lookup(pt.fx.fs, id, "..", 2, &attr), 0);
	assert_int_equal(attr.id, lf);
	/* The directory that is there is used again. */
	change_dir(live(), PMFS_INO_ROOT, drop_entry, "sym", 0, 0);
	find_and_repair("live: inode 9:", "/lost+found/#9");
	assert_int_not_equal(fsfix_find(&pt.fx, lf, "#9"), 0);
}

static void test_repair_lost_name_in_a_snapshot(void **state)
{
	const uint64_t moved[] = {pt.other, 0};

	(void)state;
	change_dir(surgery_volume(&pt.fx, "s"), PMFS_INO_ROOT, drop_entry, "other", 0, 0);
	find_and_repair("snapshot s: inode 6:", "it is /lost+found/#6 now");
	expect_rest(nothing, moved);
	assert_int_equal(fsfix_find(&pt.fx, pt.fx.root, "lost+found"), 0);
}

static void test_repair_name_lost_found_is_taken(void **state)
{
	const uint64_t moved[] = {pt.other, 0};

	(void)state;
	fsfix_file(&pt.fx, pt.fx.root, "lost+found");
	fsfix_reopen(&pt.fx);
	change_dir(live(), PMFS_INO_ROOT, drop_entry, "other", 0, 0);
	find_and_repair("live: inode 6:", "it had no name any more");
	expect_rest(nothing, moved);
	assert_int_not_equal(fsfix_find(&pt.fx, pt.fx.root, "lost+found-1"), 0);
}

static void test_repair_second_name_of_a_directory(void **state)
{
	const uint64_t moved[] = {pt.sub, 8, 0};

	(void)state;
	change_dir(live(), PMFS_INO_ROOT, add_entry, "second", pt.sub, DT_DIR);
	find_and_repair("is a second name", "directory");
	expect_rest(nothing, moved);
}

static void test_repair_parent(void **state)
{
	struct pmfs_inode rec = get(live(), pt.sub);

	(void)state;
	le64_put(&rec.parent, PMFS_INO_ROOT);
	put(live(), pt.sub, &rec);
	find_and_repair("live: inode 5:", "is in 3");
	expect_rest(nothing, nothing);
}

static void test_repair_ring(void **state)
{
	const uint64_t moved[] = {pt.dir, pt.sub, pt.file, 8, 0};

	(void)state;
	change_dir(live(), PMFS_INO_ROOT, drop_entry, "dir", 0, 0);
	change_dir(live(), pt.sub, add_entry, "dir", pt.dir, DT_DIR);
	find_and_repair("is in a circle", "live");
	expect_rest(nothing, moved);
}

static void test_repair_directory_in_itself(void **state)
{
	const uint64_t moved[] = {pt.sub, 8, 0};

	(void)state;
	change_dir(live(), pt.dir, drop_entry, "sub", 0, 0);
	change_dir(live(), pt.sub, add_entry, "me", pt.sub, DT_DIR);
	find_and_repair("is in a circle", "live");
	expect_rest(nothing, moved);
}

static void test_repair_root_that_is_none(void **state)
{
	struct pmfs_inode rec = get(live(), PMFS_INO_ROOT);

	(void)state;
	le32_put(&rec.mode, S_IFREG | 0644);
	put(live(), PMFS_INO_ROOT, &rec);
	find_and_repair("the root directory was lost", "made anew");
	{
		const uint64_t lf = fsfix_find(&pt.fx, pt.fx.root, "lost+found");

		assert_int_not_equal(lf, 0);
		assert_int_not_equal(fsfix_find(&pt.fx, fsfix_find(&pt.fx, lf, "#3"), "file"), 0);
	}
}

static void test_repair_orphans(void **state)
{
	(void)state;
	/* The orphan was given back when the image was opened; make one that is lost, and one that
	 * is none. */
	{
		struct pmfs_inode rec = get(live(), pt.other);

		change_dir(live(), PMFS_INO_ORPHANS, add_entry, orphan_name(pt.other), pt.other,
			   DT_REG);
		change_dir(live(), PMFS_INO_ORPHANS, add_entry, "nonsense", pt.other, DT_REG);
		rec = get(live(), 9);
		le32_put(&rec.nlink, 0);
		put(live(), 9, &rec);
		change_dir(live(), PMFS_INO_ROOT, drop_entry, "sym", 0, 0);
	}
	find_and_repair("of a file that is not deleted", "inode 2");
	{
		const uint64_t lost[] = {9, 0};

		expect_rest(lost, nothing);
	}
}

/* ------------------------------------------------------------------ directories */

static void test_repair_size_of_a_directory(void **state)
{
	struct pmfs_inode rec = get(live(), pt.dir);

	(void)state;
	le64_put(&rec.size, 5);
	put(live(), pt.dir, &rec);
	find_and_repair("live: inode 3:", "2 names could be read");
	expect_rest(nothing, nothing);
}

/* Of a directory of several pages one leaf is gone: the others' names stay, and its inodes get new
 * ones. */
static void test_repair_rotten_leaf(void **state)
{
	const uint64_t last = pt.many + SMALL;
	uint64_t moved[SMALL + 1], kept = 0;
	size_t n = 0;

	(void)state;
	for (uint64_t ino = pt.many + 1; ino <= last; ino++)
		moved[n++] = ino;
	moved[n] = 0;
	surgery_rot(&pt.fx, data_page(live(), pt.many, 2), 3000);
	assert_true(check() > 0);
	fsfix_stop(&pt.fx);
	assert_int_equal(repair_closed(false), 0);
	assert_int_equal(pt.how.left, 0);
	expect_said("inode 10:", "names at byte 8192");
	expect_said("inode 10:", "names could be read");
	expect_said("inode 10, which has lost something, is /many", "live");
	fsfix_start(&pt.fx);
	if (check())
		fail_msg("%s", pt.text);
	expect_rest(nothing, moved);
	for (size_t i = 0; i < pt.n_after; i++)
		kept += !pt.after[i].snap && !strncmp(pt.after[i].path, "/many/", 6);
	assert_true(kept > SMALL / 4 && kept < SMALL);
}

static void test_repair_rotten_root_of_a_directory(void **state)
{
	uint64_t moved[SMALL + 1];
	size_t n = 0;

	(void)state;
	for (uint64_t ino = pt.many + 1; ino <= pt.many + SMALL; ino++)
		moved[n++] = ino;
	moved[n] = 0;
	surgery_rot(&pt.fx, data_page(live(), pt.many, 0), 40);
	find_and_repair("inode 10:", "60 names could be read");
	expect_rest(nothing, moved);
}

static void test_repair_contradictory_leaf(void **state)
{
	const le16 at = le16_make(9999);

	(void)state;
	change_dir(live(), pt.dir, turn_entry, "sub", pt.sub, DT_DIR);
	surgery_write(&pt.fx, data_page(live(), pt.dir, 0),
		      sizeof(struct pmfs_dir_header) + offsetof(struct pmfs_dir_slot, at), &at,
		      sizeof(at));
	{
		const uint64_t moved[] = {pt.file, pt.sub, 8, 0};

		find_and_repair("inode 3:", "1 names could be read");
		expect_rest(nothing, moved);
	}
}

/* ------------------------------------------------------------------ records and numbers */

static void test_repair_records(void **state)
{
	struct pmfs_inode rec = get(live(), pt.other);

	(void)state;
	le32_put(&rec.mtime_nsec, 2000000000);
	put(live(), pt.other, &rec);
	rec = get(live(), pt.file);
	le64_put(&rec.pages, 31);
	put(live(), pt.file, &rec);
	find_and_repair("live: inode 6:", "contradicts itself");
	expect_rest(nothing, nothing);
}

static void test_repair_record_of_no_kind(void **state)
{
	struct pmfs_inode rec = get(live(), pt.other);
	const uint64_t lost[] = {pt.other, 0};

	(void)state;
	le32_put(&rec.mode, 0170777);
	put(live(), pt.other, &rec);
	find_and_repair("live: inode 6:", "contradicts itself");
	expect_rest(lost, nothing);
	/* Its contents are still there. */
	assert_int_equal(fsfix_size(&pt.fx, fsfix_find(&pt.fx, pt.fx.root, "other")), PAGES(10));
}

static void test_repair_numbers_of_volumes(void **state)
{
	struct volume *snap = surgery_volume(&pt.fx, "s");

	(void)state;
	live()->inodes_used++;
	snap->data_pages--;
	live()->next_ino = UINT64_C(1) << 39;
	put_row(live());
	put_row(snap);
	find_and_repair("live: the highest inode", "was said to be");
	expect_rest(nothing, nothing);
}

static void test_repair_highest_inode_too_low(void **state)
{
	(void)state;
	live()->next_ino = pt.many;
	live()->free_ino = 0;
	put_row(live());
	find_and_repair("live: the highest inode", "was said to be");
	expect_rest(nothing, nothing);
}

static void test_repair_free_inodes(void **state)
{
	const uint64_t head = live()->free_ino;
	struct pmfs_inode rec;

	(void)state;
	assert_int_not_equal(head, 0);
	live()->free_ino = pt.other;
	put_row(live());
	find_and_repair("live: the list of free inodes", "made anew");
	rec = get(live(), live()->free_ino);
	le64_put(&rec.parent, live()->free_ino);
	put(live(), live()->free_ino, &rec);
	find_and_repair("live: the list of free inodes", "made anew");
	live()->free_ino = 0;
	put_row(live());
	find_and_repair("live: the list of free inodes", "made anew");
	expect_rest(nothing, nothing);
}

static void test_repair_inode_zero_and_free_ones(void **state)
{
	struct pmfs_inode rec = get(live(), pt.other);

	(void)state;
	memset(&rec.data, 0, sizeof(rec.data));
	rec.pages = rec.size = le64_make(0);
	put(live(), 0, &rec);
	rec = get(live(), live()->free_ino);
	le64_put(&rec.data.vpn, surgery_new(&pt.fx, NULL));
	put(live(), live()->free_ino, &rec);
	find_and_repair("live: inode", "free and had contents");
	expect_rest(nothing, nothing);
}

static void test_repair_attributes(void **state)
{
	const uint64_t lost[] = {pt.file, 0};
	const le32 len = le32_make(77777);
	struct pmfs_inode rec;
	char value[8];

	(void)state;
	assert_int_equal(
		fs_setxattr(pt.fx.fs, NODE_ID(live()->id, pt.file), "user.colour", "red", 3, 0), 0);
	rec = get(live(), pt.file);
	surgery_write(&pt.fx, le64_get(rec.xattr.vpn), offsetof(struct pmfs_xattr, value_len), &len,
		      sizeof(len));
	find_and_repair("live: inode 4:", "attributes are damaged");
	expect_rest(lost, nothing);
	assert_int_equal(
		fs_getxattr(pt.fx.fs, NODE_ID(live()->id, pt.file), "user.colour", value, 8),
		-ENODATA);
	assert_int_equal(fsfix_size(&pt.fx, NODE_ID(live()->id, pt.file)), PAGES(1300));
}

static void test_repair_rotten_attributes(void **state)
{
	const uint64_t lost[] = {pt.file, 0};
	struct pmfs_inode rec = get(live(), pt.file);

	(void)state;
	surgery_rot(&pt.fx, le64_get(rec.xattr.vpn), 3);
	find_and_repair("inode 4:", "attributes at byte 0");
	expect_rest(lost, nothing);
}

static void test_repair_behind_the_end(void **state)
{
	const uint64_t lost[] = {pt.other, 0};
	struct pmfs_inode rec = get(live(), pt.other);

	(void)state;
	le64_put(&rec.size, PAGES(7) + 100);
	put(live(), pt.other, &rec);
	find_and_repair("live: inode 6:", "behind its end there were bytes");
	expect_rest(lost, nothing);
	assert_int_equal(fsfix_size(&pt.fx, fsfix_find(&pt.fx, pt.fx.root, "other")),
			 PAGES(7) + 100);
}

/* ------------------------------------------------------------------ counts */

static void test_repair_counts(void **state)
{
	(void)state;
	surgery_ref(&pt.fx, data_page(live(), pt.file, 5));
	surgery_unref(&pt.fx, le64_get(get(live(), pt.other).data.vpn));
	surgery_new(&pt.fx, NULL);
	surgery_new(&pt.fx, pt.text);
	find_and_repair("pages had a wrong number of pointers", "");
	expect_rest(nothing, nothing);
}

static void test_repair_of_leaks_frees_space(void **state)
{
	uint8_t page[PMFS_PAGE_SIZE] = {1};
	struct fs_stats a, b, c;

	(void)state;
	fs_stat(pt.fx.fs, &a);
	for (unsigned i = 0; i < 500; i++)
		surgery_new(&pt.fx, page);
	assert_int_equal(fs_sync(pt.fx.fs), 0);
	fs_stat(pt.fx.fs, &b);
	assert_true(b.store.pages >= a.store.pages + 500);
	find_and_repair("500 pages were in use", "free");
	fs_stat(pt.fx.fs, &c);
	assert_true(c.store.pages <= a.store.pages);
	expect_rest(nothing, nothing);
}

/* ------------------------------------------------------------------ pages and tables */

static void test_repair_rotten_contents(void **state)
{
	const uint64_t lost[] = {pt.other, 0};
	uint8_t byte;
	uint64_t id;

	(void)state;
	surgery_rot(&pt.fx, data_page(live(), pt.other, 3), 1000);
	assert_true(check() > 0);
	/* They stay an error, and the repair says so. */
	fsfix_stop(&pt.fx);
	assert_int_equal(repair_closed(false), 0);
	assert_int_equal(pt.how.left, 1);
	expect_said("live: inode 6:", "contents at byte 12288, 4096 bytes, can't be read");
	expect_said("live: inode 6, which has lost something, is /other", "");
	fsfix_start(&pt.fx);
	id = fsfix_find(&pt.fx, pt.fx.root, "other");
	assert_int_equal(fs_read(pt.fx.fs, id, PAGES(3), &byte, 1), -EBADMSG);
	/* Unless one wants it otherwise. */
	fsfix_stop(&pt.fx);
	assert_int_equal(repair_closed(true), 0);
	assert_int_equal(pt.how.left, 0);
	fsfix_start(&pt.fx);
	if (check())
		fail_msg("%s", pt.text);
	id = fsfix_find(&pt.fx, pt.fx.root, "other");
	assert_int_equal(fs_read(pt.fx.fs, id, PAGES(3), &byte, 1), 1);
	assert_int_equal(byte, 0);
	expect_rest(lost, nothing);
}

static void test_repair_rotten_node(void **state)
{
	const uint64_t lost[] = {pt.file, 0};
	const struct pmfs_inode rec = get(live(), pt.file);
	le64 child[PMFS_PTAB_FANOUT];
	uint8_t byte;
	uint64_t id;

	(void)state;
	surgery_read(&pt.fx, le64_get(rec.data.vpn), 0, child, sizeof(child));
	surgery_rot(&pt.fx, le64_get(child[1]), 8);
	find_and_repair("inode 4: contents at byte 2097152, up to 2097152 bytes, are lost", "");
	expect_rest(lost, nothing);
	id = fsfix_find(&pt.fx, pt.fx.root, "link");
	assert_int_equal(fs_read(pt.fx.fs, id, PAGES(511), &byte, 1), 1);
	assert_int_equal(byte, 511 % 256);
	assert_int_equal(fs_read(pt.fx.fs, id, PAGES(513) + 9, &byte, 1), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(fs_read(pt.fx.fs, id, PAGES(1025), &byte, 1), 1);
	assert_int_equal(byte, 1025 % 256);
}

static void test_repair_rotten_inodes(void **state)
{
	uint64_t lost[17];
	size_t n = 0;

	(void)state;
	for (uint64_t ino = 16; ino < 32; ino++)
		lost[n++] = ino;
	lost[n] = 0;
	surgery_rot(&pt.fx, surgery_page(&pt.fx, &live()->inodes, 1), 200);
	find_and_repair("inodes 16 to 31 are lost", "is damaged");
	expect_rest(lost, nothing);
}

/* The page of the root directory: all else gets new names. */
static void test_repair_rotten_first_inodes(void **state)
{
	(void)state;
	surgery_rot(&pt.fx, surgery_page(&pt.fx, &live()->inodes, 0), 200);
	assert_true(check() > 0);
	repair("live: inodes 0 to 15 are lost", "is damaged");
	assert_int_not_equal(fsfix_find(&pt.fx, pt.fx.root, "lost+found"), 0);
}

static void test_repair_pointers_to_nothing(void **state)
{
	const uint64_t lost[] = {pt.file, pt.other, 0};
	struct pmfs_inode rec = get(live(), pt.file);
	const le64 far = le64_make(UINT64_C(1) << 50), gone = le64_make(surgery_new(&pt.fx, NULL));
	le64 child[PMFS_PTAB_FANOUT];

	(void)state;
	surgery_unref(&pt.fx, le64_get(gone));
	surgery_read(&pt.fx, le64_get(rec.data.vpn), 0, child, sizeof(child));
	surgery_write(&pt.fx, le64_get(child[0]), 8, &far, sizeof(far));
	surgery_write(&pt.fx, le64_get(child[0]), 16, &gone, sizeof(gone));
	rec = get(live(), pt.other);
	le32_put(&rec.data.height, 9);
	put(live(), pt.other, &rec);
	find_and_repair("live: inode 4:", "no page has such a number");
	expect_rest(lost, nothing);
}

static void test_repair_page_in_two_roles(void **state)
{
	const uint64_t lost[] = {pt.other, 0};
	struct pmfs_inode rec = get(live(), pt.other), dir = get(live(), pt.dir);

	(void)state;
	surgery_ref(&pt.fx, le64_get(dir.data.vpn));
	rec.data = dir.data;
	put(live(), pt.other, &rec);
	find_and_repair("live: inode 6:", "is used for something else, too");
	expect_rest(lost, nothing);
}

static void test_repair_tables_without_end(void **state)
{
	const uint64_t moved[] = {pt.dir, pt.sub, pt.file, 8, 0};
	struct pmfs_inode rec = get(live(), pt.dir);
	le64 node[PMFS_PTAB_FANOUT];
	vpn_t vpn = surgery_new(&pt.fx, pt.text);

	(void)state;
	for (unsigned level = 1; level <= PMFS_PTAB_MAX_HEIGHT; level++) {
		for (size_t i = 0; i < PMFS_PTAB_FANOUT; i++)
			node[i] = le64_make(vpn);
		vpn = surgery_new(&pt.fx, node);
	}
	le64_put(&rec.data.vpn, vpn);
	le32_put(&rec.data.height, PMFS_PTAB_MAX_HEIGHT);
	put(live(), pt.dir, &rec);
	find_and_repair("live: inode 3:", "circles");
	expect_rest(nothing, moved);
}

/* ------------------------------------------------------------------ volumes */

static void table_row(const char *name, struct pmfs_volume *row, bool write)
{
	struct volume *vol = name ? surgery_volume(&pt.fx, name) : live();
	const vpn_t vpn = surgery_page(&pt.fx, &pt.fx.fs->table, vol->row / 4);

	if (write)
		surgery_write(&pt.fx, vpn, vol->row % 4 * sizeof(*row), row, sizeof(*row));
	else
		surgery_read(&pt.fx, vpn, vol->row % 4 * sizeof(*row), row, sizeof(*row));
}

static void refuse_and_repair(const char *a, const char *b)
{
	struct store_error err;

	fsfix_stop(&pt.fx);
	assert_true(fsfix_try_start(&pt.fx, &err) < 0);
	assert_int_equal(repair_closed(false), 0);
	if (pt.how.left)
		fail_msg("%s", pt.text);
	expect_said(a, b);
	fsfix_start(&pt.fx);
	if (check())
		fail_msg("%s", pt.text);
}

static void test_repair_rows(void **state)
{
	struct pmfs_volume row;
	struct fs_snapshot snap;

	(void)state;
	table_row("t", &row, false);
	le32_put(&row.state, 77);
	memset(row.message, 'm', sizeof(row.message));
	table_row("t", &row, true);
	refuse_and_repair("the row of volume 2", "contradicted itself");
	assert_int_equal(fs_snap_find(pt.fx.fs, "t", &snap), 0);
	expect_rest(nothing, nothing);

	table_row("t", &row, false);
	memcpy(row.name, "s", 2);
	le64_put(&row.id, 3);
	table_row("t", &row, true);
	refuse_and_repair("the row of volume", "contradicted itself");
	assert_int_equal(fs_snap_find(pt.fx.fs, "s", &snap), 0);
	expect_rest(nothing, nothing);
}

static void test_repair_live_row_is_lost(void **state)
{
	static const struct pmfs_volume none;

	(void)state;
	table_row(NULL, (struct pmfs_volume *)(uintptr_t)&none, true);
	refuse_and_repair("the live volume is lost, and begins again as snapshot s", "");
	/* What came after the snapshot is gone. */
	pt.n_after = list_all(pt.after);
	assert_true(pt.n_after > SMALL * 2);
	fsfix_write(&pt.fx, fsfix_file(&pt.fx, pt.fx.root, "works"), 0, "x", 1);
}

static void test_repair_rotten_inode_file(void **state)
{
	struct fs_snapshot snap;

	(void)state;
	/* The top of the live volume's inode file. */
	assert_true(live()->inodes.height > 0);
	surgery_rot(&pt.fx, live()->inodes.root, 5);
	assert_true(check() > 0);
	fsfix_stop(&pt.fx);
	assert_int_equal(repair_closed(false), 0);
	expect_said("live: the whole tree is lost, and begins again as snapshot s", "");
	fsfix_start(&pt.fx);
	if (check())
		fail_msg("%s", pt.text);
	assert_int_equal(fs_snap_find(pt.fx.fs, "t", &snap), 0);
	assert_int_not_equal(fsfix_find(&pt.fx, pt.fx.root, "other"), 0);
}

/* ------------------------------------------------------------------ the page map */

static uint64_t newest_slot(struct pmfs_super *out)
{
	struct pmfs_super sb[2];
	const int fd = open(pt.fx.image, O_RDONLY);
	unsigned newer;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &sb[0], sizeof(sb[0]), 0), sizeof(sb[0]));
	assert_int_equal(pread(fd, &sb[1], sizeof(sb[1]), PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE),
			 sizeof(sb[1]));
	close(fd);
	newer = le64_get(sb[1].generation) > le64_get(sb[0].generation);
	*out = sb[newer];
	return newer;
}

static void flip(uint64_t byte)
{
	const int fd = open(pt.fx.image, O_RDWR);
	uint8_t b;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, (off_t)byte), 1);
	b ^= 0x10;
	assert_int_equal(pwrite(fd, &b, 1, (off_t)byte), 1);
	close(fd);
}

static uint64_t map_child(pfn_t pfn, unsigned i)
{
	const int fd = open(pt.fx.image, O_RDONLY);
	struct pmfs_map_child child;

	assert_true(fd >= 0);
	assert_int_equal(
		pread(fd, &child, sizeof(child), (off_t)(pfn * PMFS_PAGE_SIZE + i * sizeof(child))),
		sizeof(child));
	close(fd);
	return le64_get(child.pfn);
}

/* So many pages that the map has a tree, and all of it is in that. */
static void fold(void)
{
	assert_int_equal(store_fold(fs_store(pt.fx.fs)), 0);
	fsfix_write(&pt.fx, fsfix_find(&pt.fx, pt.fx.root, "new-9"), 0, "x", 1);
	assert_int_equal(store_fold(fs_store(pt.fx.fs)), 0);
	fsfix_stop(&pt.fx);
}

static void test_repair_lost_leaf_of_the_map(void **state)
{
	struct pmfs_super sb;
	uint8_t byte;
	uint64_t id;

	(void)state;
	fold();
	newest_slot(&sb);
	assert_int_equal(le32_get(sb.map_height), 2);
	/* Pages 768 to 1023: in the middle of /dir/file. */
	flip(map_child(le64_get(sb.map_root), 3) * PMFS_PAGE_SIZE + 77);
	pt.fx.read_only = pt.fx.unscanned = true;
	fsfix_start(&pt.fx);
	assert_true(check() > 0);
	fsfix_stop(&pt.fx);
	pt.fx.read_only = pt.fx.unscanned = false;
	assert_int_equal(repair_closed(false), 0);
	if (pt.how.left)
		fail_msg("%s", pt.text);
	expect_said("256 pages from page 768 on are lost", "does not match its checksum");
	expect_said("live: inode 4:", "are lost: page");
	expect_said("live: inode 4, which has lost something, is /", "");
	fsfix_start(&pt.fx);
	if (check())
		fail_msg("%s", pt.text);
	id = fsfix_find(&pt.fx, pt.fx.root, "link");
	assert_int_equal(fs_read(pt.fx.fs, id, PAGES(100), &byte, 1), 1);
	assert_int_equal(byte, 100);
	assert_int_equal(fs_read(pt.fx.fs, id, PAGES(1290), &byte, 1), 1);
	assert_int_equal(byte, 1290 % 256);
	{
		const uint64_t lost[] = {pt.file, NODE_INO(fsfix_find(&pt.fx, pt.fx.root, "new-9")),
					 0};

		expect_rest(lost, nothing);
	}
	/* The page numbers are given out again, and nothing meets what was there. */
	write_pages(fsfix_file(&pt.fx, pt.fx.root, "after"), 0, 1500, 'z');
	fsfix_reopen(&pt.fx);
	fsfix_check(&pt.fx);
}

static void test_repair_lost_top_of_the_map_takes_the_older_slot(void **state)
{
	struct fs_config cfg = {.store = {.path = pt.fx.image, .older = true}, .repair = &pt.how};
	struct pmfs_super sb;
	struct store_error err;
	struct fs *fs;

	(void)state;
	fold();
	newest_slot(&sb);
	flip(le64_get(sb.map_root) * PMFS_PAGE_SIZE + 8);
	assert_true(fsfix_try_start(&pt.fx, &err) < 0);
	/* Of the newest state nothing is left to repair. */
	assert_true(repair_closed(false) < 0);
	pt.how = (struct fs_repair){.said = said};
	pt.text[0] = 0;
	assert_int_equal(fs_open(&fs, &cfg, &err), 0);
	assert_int_equal(fs_close(fs), 0);
	fsfix_start(&pt.fx);
	if (check())
		fail_msg("%s", pt.text);
	expect_rest(nothing, nothing);
}

#ifdef PMFS_FAULTS

/* A kill in the middle of a repair leaves what another one can finish. */
static void test_repair_that_is_cut_short(void **state)
{
	const uint64_t lost[] = {pt.file, 0}, moved[] = {pt.other, pt.sub, 8, 0};
	const struct pmfs_inode rec = get(live(), pt.file);
	le64 child[PMFS_PTAB_FANOUT];
	int rc = -1;

	(void)state;
	change_dir(live(), PMFS_INO_ROOT, drop_entry, "other", 0, 0);
	change_dir(live(), pt.dir, drop_entry, "sub", 0, 0);
	surgery_ref(&pt.fx, data_page(live(), pt.file, 5));
	surgery_new(&pt.fx, NULL);
	surgery_read(&pt.fx, le64_get(rec.data.vpn), 0, child, sizeof(child));
	surgery_rot(&pt.fx, le64_get(child[1]), 8);
	fsfix_stop(&pt.fx);
	/* Each flush and each of the first writes fails once. */
	for (unsigned n = 1; rc && n < 400; n++) {
		fault_reset();
		assert_int_equal(
			fault_arm_forever(n % 2 ? "region.flush" : "region.write", n / 2 + 1, EIO),
			0);
		rc = repair_closed(false);
	}
	fault_reset();
	assert_int_equal(rc, 0);
	assert_int_equal(repair_closed(false), 0);
	fsfix_start(&pt.fx);
	if (check())
		fail_msg("%s", pt.text);
	expect_rest(lost, moved);
}

#endif

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_repair_of_what_is_whole),
		T(test_repair_links),
		T(test_repair_links_of_the_orphan_directory),
		T(test_repair_links_in_a_snapshot),
		T(test_repair_entries_to_nowhere),
		T(test_repair_lost_names),
		T(test_repair_lost_name_in_a_snapshot),
		T(test_repair_name_lost_found_is_taken),
		T(test_repair_second_name_of_a_directory),
		T(test_repair_parent),
		T(test_repair_ring),
		T(test_repair_directory_in_itself),
		T(test_repair_root_that_is_none),
		T(test_repair_orphans),
		T(test_repair_size_of_a_directory),
		T(test_repair_rotten_leaf),
		T(test_repair_rotten_root_of_a_directory),
		T(test_repair_contradictory_leaf),
		T(test_repair_records),
		T(test_repair_record_of_no_kind),
		T(test_repair_numbers_of_volumes),
		T(test_repair_highest_inode_too_low),
		T(test_repair_free_inodes),
		T(test_repair_inode_zero_and_free_ones),
		T(test_repair_attributes),
		T(test_repair_rotten_attributes),
		T(test_repair_behind_the_end),
		T(test_repair_counts),
		T(test_repair_of_leaks_frees_space),
		T(test_repair_rotten_contents),
		T(test_repair_rotten_node),
		T(test_repair_rotten_inodes),
		T(test_repair_rotten_first_inodes),
		T(test_repair_pointers_to_nothing),
		T(test_repair_page_in_two_roles),
		T(test_repair_tables_without_end),
		T(test_repair_rows),
		T(test_repair_live_row_is_lost),
		T(test_repair_rotten_inode_file),
		T(test_repair_lost_leaf_of_the_map),
		T(test_repair_lost_top_of_the_map_takes_the_older_slot),
#ifdef PMFS_FAULTS
		T(test_repair_that_is_cut_short),
#endif
	};

	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests_name("repair", tests, NULL, NULL);
}
