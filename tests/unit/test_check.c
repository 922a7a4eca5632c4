/* SPDX-License-Identifier: BSD-2-Clause */
/* Each kind of damage is found, and said in words that lead to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "lib/surgery.h"
#include "tree/dir.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"
#include "tree/reclaim.h"

#define PAGES(n) ((size_t)(n)*PMFS_PAGE_SIZE)

/*
 * The patient:
 *   /dir/file   1000 pages with holes, attributes, a second name /link
 *   /dir/sub/   empty
 *   /other      10 pages, the same in the snapshot "s" and in the live volume
 *   /open       unlinked
 * and 30 files after the snapshot, so that the inode file and the root directory have parted.
 */
struct patient {
	struct fsfix fx;
	struct volume *live, *snap;
	uint64_t dir, file, sub, other, open; /* inode numbers */
	char text[16384];
	unsigned findings;
};

static struct patient pt;

static void write_pages(uint64_t id, pgno_t at, unsigned pages, unsigned char c)
{
	uint8_t buf[PMFS_PAGE_SIZE];

	for (unsigned i = 0; i < pages; i++) {
		memset(buf, c + (int)i, sizeof(buf));
		fsfix_write(&pt.fx, id, PAGES(at + i), buf, sizeof(buf));
	}
}

static void refresh(void)
{
	pt.live = pt.fx.fs->live;
	pt.snap = surgery_volume(&pt.fx, "s");
}

static int setup(void **state)
{
	uint64_t dir, file, other, open;
	struct fs_attr attr;
	char name[32];

	(void)state;
	pt = (struct patient){0};
	fsfix_image(&pt.fx, 0);
	dir = fsfix_mkdir(&pt.fx, pt.fx.root, "dir");
	file = fsfix_file(&pt.fx, dir, "file");
	write_pages(file, 0, 20, 'a');
	write_pages(file, 990, 10, 'b');
	assert_int_equal(fs_setxattr(pt.fx.fs, file, "user.colour", "blue", 4, 0), 0);
	assert_int_equal(fs_link(pt.fx.fs, file, pt.fx.root, "link", 4, &attr), 0);
	pt.sub = NODE_INO(fsfix_mkdir(&pt.fx, dir, "sub"));
	other = fsfix_file(&pt.fx, pt.fx.root, "other");
	write_pages(other, 0, 10, 'o');
	open = fsfix_file(&pt.fx, pt.fx.root, "open");
	write_pages(open, 0, 3, 'q');
	assert_int_equal(fs_unlink(pt.fx.fs, pt.fx.root, "open", 4), 0);
	/* Numbers that are free again. */
	for (unsigned i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "gone-%u", i);
		fsfix_file(&pt.fx, pt.fx.root, name);
	}
	for (unsigned i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "gone-%u", i);
		fs_forget(pt.fx.fs, fsfix_find(&pt.fx, pt.fx.root, name), 1);
		assert_int_equal(fs_unlink(pt.fx.fs, pt.fx.root, name, strlen(name)), 0);
		fs_forget(pt.fx.fs, NODE_ID(1, 8 + i), 2);
	}
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
	fsfix_reopen(&pt.fx);
	refresh();
	fsfix_check(&pt.fx);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fsfix_crash(&pt.fx);
	fsfix_free(&pt.fx);
	return 0;
}

static void collect(void *arg, const char *what)
{
	(void)arg;
	pt.findings++;
	if (strlen(pt.text) + strlen(what) + 2 < sizeof(pt.text))
		strcat(strcat(pt.text, what), "\n");
}

static void check(bool data)
{
	int rc;

	pt.text[0] = 0;
	pt.findings = 0;
	rc = fs_check(pt.fx.fs, data, collect, NULL);
	if (rc < 0)
		fail_msg("fs_check: %s", strerror(-rc));
	assert_int_equal(rc, pt.findings);
}

/* Found, with all of these words in one line, and not much besides. */
static void expect_found(unsigned most, const char *a, const char *b)
{
	const char *line;
	char *text;
	bool hit = false;

	check(true);
	text = strdup(pt.text);
	assert_non_null(text);
	for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		hit = hit || (strstr(line, a) && strstr(line, b));
	free(text);
	if (!hit || pt.findings > most)
		fail_msg("want \"%s\" and \"%s\" in %u lines at most, got %u:\n%s", a, b, most,
			 pt.findings, pt.text);
}

static struct pmfs_inode get(struct volume *vol, uint64_t ino)
{
	struct pmfs_inode rec;

	surgery_get(&pt.fx, vol, ino, &rec);
	return rec;
}

static void put(struct volume *vol, uint64_t ino, const struct pmfs_inode *rec)
{
	surgery_put(&pt.fx, vol, ino, rec);
}

static vpn_t data_page(struct volume *vol, uint64_t ino, pgno_t pgno)
{
	const struct pmfs_inode rec = get(vol, ino);
	const struct ptab tab = ptab_decode(&rec.data);

	return surgery_page(&pt.fx, &tab, pgno);
}

/* Run a change of a directory as an ordinary one, but for what it leaves out. */
static void change_dir(uint64_t dir, int (*fn)(struct txn *tx, struct inode *in, const void *arg),
		       const void *arg)
{
	struct inode *in;
	struct txn tx;

	assert_int_equal(inode_get(pt.fx.fs, NODE_ID(pt.live->id, dir), &in), 0);
	rw_wrlock(&in->lock);
	assert_int_equal(
		txn_begin(fs_store(pt.fx.fs), &tx, FRAME_NORMAL, DIR_COST + 2 * ITABLE_COST), 0);
	assert_int_equal(itable_own(&tx, in), 0);
	assert_int_equal(fn(&tx, in, arg), 0);
	assert_int_equal(itable_store(&tx, in), 0);
	txn_end(&tx);
	rw_unlock(&in->lock);
	inode_put(pt.fx.fs, in);
}

struct entry {
	const char *name;
	uint64_t ino;
	uint8_t type;
};

static int add_entry(struct txn *tx, struct inode *in, const void *arg)
{
	const struct entry *e = arg;

	return dir_insert(tx, in, e->name, strlen(e->name), e->ino, e->type);
}

static int drop_entry(struct txn *tx, struct inode *in, const void *arg)
{
	return dir_remove(tx, in, arg, strlen(arg), NULL);
}

static int turn_entry(struct txn *tx, struct inode *in, const void *arg)
{
	const struct entry *e = arg;

	return dir_replace(tx, in, e->name, strlen(e->name), e->ino, e->type);
}

/* ------------------------------------------------------------------ names */

static void test_check_links_of_a_file(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.other);

	(void)state;
	le32_put(&rec.nlink, 2);
	put(pt.live, pt.other, &rec);
	expect_found(1, "live: inode 6 (/other)", "2 links, and 1 entries name it");
}

static void test_check_links_of_a_file_in_a_snapshot(void **state)
{
	struct pmfs_inode rec = get(pt.snap, pt.other);

	(void)state;
	le32_put(&rec.nlink, 2);
	put(pt.snap, pt.other, &rec);
	expect_found(1, "snapshot s: inode 6 (/other)", "2 links, and 1 entries name it");
}

static void test_check_links_of_a_directory(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.dir);

	(void)state;
	le32_put(&rec.nlink, 2);
	put(pt.live, pt.dir, &rec);
	expect_found(1, "inode 3 (/dir)", "should have 3: 2, and 1 subdirectories");
}

static void ignore(void *arg, const char *what)
{
	(void)arg;
	(void)what;
}

/* Of those that never go: also while they are empty. */
static void test_check_links_of_the_first_directories(void **state)
{
	struct pmfs_inode rec;
	struct fsfix fx;
	int findings;

	(void)state;
	fsfix_image(&fx, 0);
	assert_int_equal(fs_sync(fx.fs), 0);
	assert_int_equal(fs_check(fx.fs, true, ignore, NULL), 0);
	for (uint64_t ino = PMFS_INO_ROOT; ino <= PMFS_INO_ORPHANS; ino++) {
		surgery_get(&fx, surgery_volume(&fx, NULL), ino, &rec);
		le32_put(&rec.nlink, 0);
		surgery_put(&fx, surgery_volume(&fx, NULL), ino, &rec);
		findings = fs_check(fx.fs, true, ignore, NULL);
		assert_int_equal(findings, ino);
	}
	fsfix_crash(&fx);
	fsfix_start(&fx);
	fsfix_free(&fx);
}

static void test_check_entry_without_an_inode(void **state)
{
	static const struct entry far = {"far", 100000, DT_REG};

	(void)state;
	change_dir(PMFS_INO_ROOT, add_entry, &(struct entry){"ghost", pt.live->free_ino, DT_REG});
	expect_found(1, "live: inode", "it is free, and a directory names it");
	change_dir(pt.dir, add_entry, &far);
	expect_found(2, "inode 3 (/dir)", "names inode 100000, which can't be");
}

static void test_check_entry_of_another_type(void **state)
{
	(void)state;
	change_dir(PMFS_INO_ROOT, turn_entry, &(struct entry){"other", pt.other, DT_LNK});
	expect_found(1, "inode 6 (/other)", "another type");
}

static void test_check_inode_without_a_name(void **state)
{
	(void)state;
	change_dir(PMFS_INO_ROOT, drop_entry, "other");
	expect_found(1, "live: inode 6:", "1 links, and 0 entries name it");
}

static void test_check_directory_without_a_name(void **state)
{
	struct pmfs_inode rec;

	(void)state;
	change_dir(pt.dir, drop_entry, "sub");
	rec = get(pt.live, pt.dir);
	le32_put(&rec.nlink, 2);
	put(pt.live, pt.dir, &rec);
	expect_found(1, "inode 5:", "0 directories name it");
}

static void test_check_directory_with_two_names(void **state)
{
	(void)state;
	change_dir(PMFS_INO_ROOT, add_entry, &(struct entry){"second", pt.sub, DT_DIR});
	expect_found(2, "inode 5:", "2 directories name it");
	assert_non_null(strstr(pt.text, "inode 1:"));
}

static void test_check_parent(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.sub);

	(void)state;
	le64_put(&rec.parent, PMFS_INO_ROOT);
	put(pt.live, pt.sub, &rec);
	expect_found(1, "inode 5 (/dir/sub)", "inode 3 names it, and it says that 1 does");
}

/* /dir moves into /dir/sub: both have a parent and the right number of links, and no way leads to
 * them. */
static void test_check_directories_in_a_ring(void **state)
{
	struct pmfs_inode rec;

	(void)state;
	change_dir(PMFS_INO_ROOT, drop_entry, "dir");
	change_dir(pt.sub, add_entry, &(struct entry){"dir", pt.dir, DT_DIR});
	fsfix_reopen(&pt.fx);
	refresh();
	rec = get(pt.live, PMFS_INO_ROOT);
	le32_put(&rec.nlink, 2);
	put(pt.live, PMFS_INO_ROOT, &rec);
	rec = get(pt.live, pt.sub);
	le32_put(&rec.nlink, 3);
	put(pt.live, pt.sub, &rec);
	rec = get(pt.live, pt.dir);
	le64_put(&rec.parent, pt.sub);
	put(pt.live, pt.dir, &rec);
	expect_found(1, "inode 3", "way up does not lead to the root");
}

static void test_check_root_is_no_directory(void **state)
{
	struct pmfs_inode rec = get(pt.live, PMFS_INO_ROOT);

	(void)state;
	le32_put(&rec.mode, S_IFREG | 0644);
	put(pt.live, PMFS_INO_ROOT, &rec);
	expect_found(100, "live: inode 1", "no directory");
}

static void test_check_orphan_that_is_lost(void **state)
{
	char name[17];

	(void)state;
	snprintf(name, sizeof(name), "%016" PRIx64, pt.open);
	change_dir(PMFS_INO_ORPHANS, drop_entry, name);
	expect_found(1, "live: inode 7:", "no links and is not among the deleted files");
}

static void test_check_orphan_that_is_none(void **state)
{
	char name[17];

	(void)state;
	snprintf(name, sizeof(name), "%016" PRIx64, pt.other);
	change_dir(PMFS_INO_ORPHANS, add_entry, &(struct entry){name, pt.other, DT_REG});
	expect_found(1, "live: inode 6 (/other)", "has links and is among the deleted files");
}

static void test_check_size_of_a_directory(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.dir);

	(void)state;
	le64_put(&rec.size, 5);
	put(pt.live, pt.dir, &rec);
	expect_found(1, "live: inode 3 (/dir)", "2 entries and counts 5");
}

static void test_check_page_of_a_directory(void **state)
{
	const le16 at = le16_make(9999);
	const vpn_t vpn = data_page(pt.live, pt.dir, 0);
	const size_t off = sizeof(struct pmfs_dir_header) + offsetof(struct pmfs_dir_slot, at);

	(void)state;
	/* Make it the live volume's own. */
	change_dir(pt.dir, turn_entry, &(struct entry){"sub", pt.sub, DT_DIR});
	surgery_write(&pt.fx, data_page(pt.live, pt.dir, 0), off, &at, sizeof(at));
	assert_int_not_equal(data_page(pt.live, pt.dir, 0), vpn);
	expect_found(6, "live: inode 3", "entries that can't be");
}

/* ------------------------------------------------------------------ records and counters */

static void test_check_record_contradicts_itself(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.other);

	(void)state;
	le32_put(&rec.mtime_nsec, 2000000000);
	put(pt.live, pt.other, &rec);
	expect_found(1, "live: inode 6 (/other)", "contradicts itself");
}

static void test_check_pages_of_a_file(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.file);

	(void)state;
	le64_put(&rec.pages, 31);
	put(pt.live, pt.file, &rec);
	expect_found(2, "live: inode 4", "30 pages and says 31");
	assert_non_null(strstr(pt.text, "live: its files have 44 pages and it says 43"));
}

static void test_check_counters_of_a_volume(void **state)
{
	(void)state;
	pt.live->inodes_used++;
	pt.snap->data_pages--;
	check(false);
	assert_non_null(strstr(pt.text, "live: it has 34 inodes and says 35"));
	assert_non_null(strstr(pt.text, "snapshot s: its files have 43 pages and it says 42"));
	pt.live->inodes_used--;
	pt.snap->data_pages++;
	pt.live->next_ino = UINT64_C(1) << 39;
	expect_found(2, "live: it says that inode", "was used");
}

static void test_check_list_of_free_inodes(void **state)
{
	const uint64_t head = pt.live->free_ino;
	struct pmfs_inode rec;

	(void)state;
	assert_int_not_equal(head, 0);
	pt.live->free_ino = 0;
	expect_found(1, "live: 0 inodes are on the list", "3 are free");
	pt.live->free_ino = pt.other;
	expect_found(1, "inode 6 (/other)", "in use and on the list");
	pt.live->free_ino = head;
	rec = get(pt.live, head);
	le64_put(&rec.parent, head);
	put(pt.live, head, &rec);
	expect_found(1, "live: the list of free inodes", "goes wrong");
	le64_put(&rec.parent, 1u << 20);
	put(pt.live, head, &rec);
	expect_found(1, "live: the list of free inodes", "goes wrong at inode 1048576");
}

static void test_check_free_inode_with_contents(void **state)
{
	const uint64_t head = pt.live->free_ino;
	struct pmfs_inode rec = get(pt.live, head);

	(void)state;
	le64_put(&rec.data.vpn, surgery_new(&pt.fx, NULL));
	put(pt.live, head, &rec);
	expect_found(2, "it is free and has contents", "live");
}

static void test_check_inode_zero(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.other);

	(void)state;
	memset(&rec.data, 0, sizeof(rec.data));
	rec.pages = rec.size = le64_make(0);
	put(pt.live, 0, &rec);
	expect_found(1, "live", "no inode can have this number");
}

static void test_check_attributes(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.file);
	const struct ptab tab = ptab_decode(&rec.xattr);
	const le32 len = le32_make(77777);

	(void)state;
	assert_int_equal(
		fs_setxattr(pt.fx.fs, NODE_ID(pt.live->id, pt.file), "user.colour", "red", 3, 0),
		0);
	rec = get(pt.live, pt.file);
	assert_int_not_equal(le64_get(rec.xattr.vpn), tab.root);
	surgery_write(&pt.fx, le64_get(rec.xattr.vpn), offsetof(struct pmfs_xattr, value_len), &len,
		      sizeof(len));
	check(false);
	assert_true(pt.findings >= 1);
	assert_non_null(strstr(pt.text, "live: inode 4: "));
}

static void test_check_bytes_behind_the_end(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.other);

	(void)state;
	le64_put(&rec.size, PAGES(9) + 100);
	put(pt.live, pt.other, &rec);
	expect_found(1, "inode 6 (/other)", "behind its end there are bytes");
	le64_put(&rec.size, PAGES(7));
	put(pt.live, pt.other, &rec);
	expect_found(1, "inode 6 (/other)", "behind its end there are pages");
	/* A truncation that a crash has stopped says so. */
	le32_put(&rec.flags, PMFS_INODE_STALE);
	put(pt.live, pt.other, &rec);
	check(true);
	assert_int_equal(pt.findings, 0);
}

/* ------------------------------------------------------------------ counts */

static void test_check_count_too_high(void **state)
{
	const vpn_t vpn = data_page(pt.live, pt.file, 5);

	(void)state;
	surgery_ref(&pt.fx, vpn);
	expect_found(1, "live: inode 4: page",
		     "has 1 pointers, and the page map says 2 at byte 20480");
}

static void test_check_count_too_low(void **state)
{
	const struct pmfs_inode rec = get(pt.live, pt.other);

	(void)state;
	surgery_ref(&pt.fx, le64_get(rec.data.vpn));
	surgery_unref(&pt.fx, le64_get(rec.data.vpn));
	surgery_unref(&pt.fx, le64_get(rec.data.vpn));
	expect_found(1, "inode 6 (/other): page", "has 2 pointers, and the page map says 1");
}

static void test_check_page_that_nobody_has(void **state)
{
	(void)state;
	surgery_new(&pt.fx, NULL);
	surgery_new(&pt.fx, NULL);
	expect_found(1, "2 pages are in use", "nothing points at them");
}

static void test_check_page_of_a_deleted_snapshot(void **state)
{
	const vpn_t vpn = data_page(pt.snap, pt.file, 5);

	(void)state;
	assert_int_equal(fs_snap_delete(pt.fx.fs, "s"), 0);
	check(true);
	assert_int_equal(pt.findings, 0);
	surgery_ref(&pt.fx, vpn);
	expect_found(1, "deleted snapshot 2: inode 4", "has 1 pointers, and the page map says 2");
}

/* ------------------------------------------------------------------ pages and tables */

static void test_check_rotten_contents(void **state)
{
	(void)state;
	surgery_rot(&pt.fx, data_page(pt.live, pt.other, 3), 1000);
	refresh();
	check(false);
	assert_int_equal(pt.findings, 0);
	expect_found(1, "live: inode 6 (/other): page",
		     "damaged: its contents do not match their hash at byte 12288");
}

static void test_check_rotten_directory(void **state)
{
	(void)state;
	surgery_rot(&pt.fx, data_page(pt.live, pt.dir, 0), 200);
	refresh();
	/* Who is named by it can't be known, and nothing is said about that. */
	expect_found(3, "live: inode 3", "do not match their hash");
}

static void test_check_rotten_inodes(void **state)
{
	(void)state;
	surgery_rot(&pt.fx, surgery_page(&pt.fx, &pt.live->inodes, 1), 200);
	refresh();
	expect_found(1, "live: page", "do not match their hash at byte 4096");
}

static void test_check_rotten_node(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.file);

	(void)state;
	assert_true(le32_get(rec.data.height) > 0);
	surgery_rot(&pt.fx, le64_get(rec.data.vpn), 8);
	refresh();
	expect_found(1, "live: inode 4", "do not match their hash");
}

static void test_check_pointer_to_nothing(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.file);
	const le64 far = le64_make(UINT64_C(1) << 50), gone = le64_make(surgery_new(&pt.fx, NULL));

	(void)state;
	surgery_unref(&pt.fx, le64_get(gone));
	surgery_write(&pt.fx, le64_get(rec.data.vpn), 8, &far, sizeof(far));
	expect_found(3, "live: inode 4", "can't be: no page has such a number");
	surgery_write(&pt.fx, le64_get(rec.data.vpn), 8, &gone, sizeof(gone));
	expect_found(3, "live: inode 4", "does not exist");
}

static void test_check_root_of_a_table(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.file);

	(void)state;
	le32_put(&rec.data.height, 9);
	put(pt.live, pt.file, &rec);
	expect_found(3, "live: inode 4", "root of its table is impossible");
}

static void test_check_page_in_two_roles(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.other), dir = get(pt.live, pt.dir);

	(void)state;
	surgery_ref(&pt.fx, le64_get(dir.data.vpn));
	rec.data = dir.data;
	put(pt.live, pt.other, &rec);
	check(true);
	assert_non_null(strstr(pt.text, "live: inode 6 (/other): page"));
	assert_non_null(strstr(pt.text, "used as a page of a directory and as a page of contents"));
}

/* Every entry of a node of level n is one node of level n - 1: somebody who walks that does not
 * come to an end. */
static void test_check_tables_without_end(void **state)
{
	struct pmfs_inode rec = get(pt.live, pt.dir);
	le64 node[PMFS_PTAB_FANOUT];
	vpn_t vpn = surgery_new(&pt.fx, NULL);

	(void)state;
	for (unsigned level = 1; level <= PMFS_PTAB_MAX_HEIGHT; level++) {
		for (size_t i = 0; i < PMFS_PTAB_FANOUT; i++)
			node[i] = le64_make(vpn);
		for (size_t i = 1; i < PMFS_PTAB_FANOUT; i++)
			surgery_ref(&pt.fx, vpn);
		vpn = surgery_new(&pt.fx, node);
	}
	le64_put(&rec.data.vpn, vpn);
	le32_put(&rec.data.height, PMFS_PTAB_MAX_HEIGHT);
	put(pt.live, pt.dir, &rec);
	expect_found(20, "live: inode 3", "goes in circles");

	/* The inode file itself. */
	surgery_put(&pt.fx, pt.live, pt.dir, &rec);
	pt.live->inodes = (struct ptab){vpn, PMFS_PTAB_MAX_HEIGHT};
	check(false);
	assert_true(pt.findings > 0);
}

static void test_check_root_of_an_inode_file(void **state)
{
	const struct ptab was = pt.snap->inodes;

	(void)state;
	pt.snap->inodes.height = 7;
	check(false);
	assert_non_null(strstr(pt.text, "snapshot s: the root of its inode file is impossible"));
	pt.snap->inodes = was;
}

/* ------------------------------------------------------------------ what is right */

static void no_finding(void *arg, const char *what)
{
	(void)arg;
	fail_msg("%s", what);
}

/* A thousand snapshots of a tree cost little more than one. */
static void test_check_reads_shared_pages_once(void **state)
{
	struct fs_stats a, b, c;
	struct fsfix *fx = &pt.fx;
	char name[32];

	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "many-%u", i);
		fs_forget(fx->fs, fsfix_file(fx, fx->root, name), 1);
	}
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "snap-%u", i);
		assert_int_equal(fs_snap_create(fx->fs, name, NULL, NULL), 0);
		snprintf(name, sizeof(name), "many-%u", i * 6);
		assert_int_equal(fs_unlink(fx->fs, fx->root, name, strlen(name)), 0);
	}
	fsfix_reopen(fx);
	fs_stat(fx->fs, &a);
	assert_int_equal(fs_check(fx->fs, false, no_finding, NULL), 0);
	fs_stat(fx->fs, &b);
	/* Each page is verified when it is read first, and not before. */
	assert_true(b.store.verified - a.store.verified <= a.store.pages);
	assert_int_equal(fs_check(fx->fs, true, no_finding, NULL), 0);
	fs_stat(fx->fs, &c);
	assert_true(c.store.verified >= b.store.verified);
}

static void test_check_read_only(void **state)
{
	(void)state;
	fsfix_stop(&pt.fx);
	pt.fx.read_only = true;
	fsfix_start(&pt.fx);
	check(true);
	assert_int_equal(pt.findings, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_check_links_of_a_file),
		T(test_check_links_of_a_file_in_a_snapshot),
		T(test_check_links_of_a_directory),
		T(test_check_links_of_the_first_directories),
		T(test_check_entry_without_an_inode),
		T(test_check_entry_of_another_type),
		T(test_check_inode_without_a_name),
		T(test_check_directory_without_a_name),
		T(test_check_directory_with_two_names),
		T(test_check_parent),
		T(test_check_directories_in_a_ring),
		T(test_check_root_is_no_directory),
		T(test_check_orphan_that_is_lost),
		T(test_check_orphan_that_is_none),
		T(test_check_size_of_a_directory),
		T(test_check_page_of_a_directory),
		T(test_check_record_contradicts_itself),
		T(test_check_pages_of_a_file),
		T(test_check_counters_of_a_volume),
		T(test_check_list_of_free_inodes),
		T(test_check_free_inode_with_contents),
		T(test_check_inode_zero),
		T(test_check_attributes),
		T(test_check_bytes_behind_the_end),
		T(test_check_count_too_high),
		T(test_check_count_too_low),
		T(test_check_page_that_nobody_has),
		T(test_check_page_of_a_deleted_snapshot),
		T(test_check_rotten_contents),
		T(test_check_rotten_directory),
		T(test_check_rotten_inodes),
		T(test_check_rotten_node),
		T(test_check_pointer_to_nothing),
		T(test_check_root_of_a_table),
		T(test_check_page_in_two_roles),
		T(test_check_tables_without_end),
		T(test_check_root_of_an_inode_file),
		T(test_check_reads_shared_pages_once),
		T(test_check_read_only),
	};

	/* The store says what it finds, too. */
	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
