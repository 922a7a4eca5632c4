/* SPDX-License-Identifier: BSD-2-Clause */
/* A pass over everything: what is damaged is found, named, and an error to who reads it; nothing
 * else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "lib/surgery.h"
#include "share/scrub.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"
#include "tree/reclaim.h"

static struct fsfix fx;
static struct scrub *sc;
static uint64_t dir, file;
static char text[65536];

static void make_files(void)
{
	uint8_t page[PMFS_PAGE_SIZE];

	dir = fsfix_mkdir(&fx, fx.root, "dir");
	file = fsfix_file(&fx, dir, "file");
	for (unsigned i = 0; i < 1400; i++) {
		memset(page, (int)i, sizeof(page));
		memcpy(page, &i, sizeof(i));
		fsfix_write(&fx, file, (uint64_t)i * sizeof(page), page, sizeof(page));
	}
	assert_int_equal(fs_setxattr(fx.fs, file, "user.long", page, 3000, 0), 0);
	assert_int_equal(fs_snap_create(fx.fs, "s", NULL, NULL), 0);
}

static int setup(void **state)
{
	(void)state;
	fsfix_image(&fx, 0);
	make_files();
	fsfix_reopen(&fx);
	assert_int_equal(scrub_new(&sc, fx.fs), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	scrub_free(sc);
	fsfix_crash(&fx);
	fsfix_free(&fx);
	return 0;
}

/* Damage that wants the image closed. */
static void rot(vpn_t vpn, size_t off)
{
	scrub_free(sc);
	surgery_rot(&fx, vpn, off);
	assert_int_equal(scrub_new(&sc, fx.fs), 0);
}

static int add_text(void *arg, const char *finding)
{
	(void)arg;
	if (strlen(text) + strlen(finding) + 2 < sizeof(text))
		strcat(strcat(text, finding), "\n");
	return 0;
}

static struct scrub_stats pass(bool structure)
{
	struct scrub_stats st;

	assert_int_equal(scrub_start(sc, structure, 0), 0);
	assert_int_equal(scrub_wait(sc, -1), 0);
	scrub_stat(sc, &st);
	text[0] = 0;
	assert_int_equal(scrub_each_finding(sc, add_text, NULL), 0);
	return st;
}

static void expect_text(const char *want)
{
	if (!strstr(text, want))
		fail_msg("no \"%s\" in:\n%s", want, text);
}

static struct ptab data_of(uint64_t id, bool xattr)
{
	struct pmfs_inode rec;

	surgery_get(&fx, fx.fs->live, NODE_INO(id), &rec);
	return ptab_decode(xattr ? &rec.xattr : &rec.data);
}

static void test_scrub_clean(void **state)
{
	struct scrub_stats st;

	(void)state;
	st = pass(true);
	assert_int_equal(st.bad_pages, 0);
	assert_int_equal(st.bad_nodes, 0);
	assert_int_equal(st.structure_findings, 0);
	assert_int_equal(st.findings, 0);
	assert_int_equal(st.passes, 1);
	assert_int_equal(st.state, SCRUB_IDLE);
	assert_true(st.percent == 100);
	assert_true(st.pages_scanned > 1400);
	assert_int_equal(st.pages_scanned + st.pages_dirty, st.pages_total);
	/* Nothing is left of the volume that was held. */
	assert_true(reclaim_run(fx.fs) >= 0);
	fsfix_check(&fx);
}

static void test_scrub_ram(void **state)
{
	struct scrub_stats st;

	(void)state;
	scrub_free(sc);
	fsfix_crash(&fx);
	fsfix_free(&fx);
	fsfix_ram(&fx, 0);
	make_files();
	assert_int_equal(scrub_new(&sc, fx.fs), 0);
	st = pass(true);
	assert_int_equal(st.findings, 0);
	assert_true(st.pages_scanned > 1400);
}

static void test_scrub_names_every_owner(void **state)
{
	struct ptab pt = data_of(file, false);
	struct scrub_stats st;

	(void)state;
	rot(surgery_page(&fx, &pt, 300), 5);
	st = pass(false);
	assert_int_equal(st.bad_pages, 1);
	assert_int_equal(st.findings, 2);
	expect_text("live: inode 4 (/dir/file), contents: 4096 bytes at byte 1228800 are damaged");
	expect_text("snapshot s: inode 4 (/dir/file), contents: 4096 bytes at byte 1228800 are "
		    "damaged");
	/* A second pass says it again. */
	st = pass(false);
	assert_int_equal(st.bad_pages, 1);
	assert_int_equal(st.findings, 2);
}

static void test_scrub_nodes_attributes_directories_inodes(void **state)
{
	struct ptab pt = data_of(file, false), xa = data_of(file, true), dp = data_of(dir, false);
	const vpn_t inodes = surgery_page(&fx, &fx.fs->live->inodes, 0);
	struct scrub_stats st;

	(void)state;
	rot(pt.root, 9);
	st = pass(false);
	assert_int_equal(st.bad_pages, 1);
	expect_text("(/dir/file), contents: 1073741824 bytes at byte 0 are damaged");
	rot(pt.root, 9);
	rot(xa.root, 100);
	st = pass(false);
	assert_int_equal(st.bad_pages, 1);
	expect_text("live: inode 4 (/dir/file), attributes: 4096 bytes at byte 0 are damaged");
	rot(xa.root, 100);
	rot(dp.root, 100);
	st = pass(false);
	assert_int_equal(st.bad_pages, 1);
	expect_text("live: inode 3 (/dir), directory: 4096 bytes at byte 0 are damaged");
	rot(dp.root, 100);
	/* The volumes do not open without their root's record in order, so this one comes to light
	 * while they are open. */
	assert_int_equal(pass(false).findings, 0);
	{
		struct page_info info;
		uint8_t byte;
		const int fd = open(fx.image, O_RDWR);
		const off_t at = 7;

		assert_true(fd >= 0);
		assert_int_equal(page_info(fs_store(fx.fs), inodes, &info), 0);
		assert_int_equal(pread(fd, &byte, 1, (off_t)(info.pfn * PMFS_PAGE_SIZE) + at), 1);
		byte ^= 1;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)(info.pfn * PMFS_PAGE_SIZE) + at), 1);
		close(fd);
	}
	st = pass(false);
	assert_int_equal(st.bad_pages, 1);
	expect_text("live: inodes 0 to 15: page ");
	expect_text("snapshot s: inodes 0 to 15: page ");
}

/* What was verified once is not believed any more once it was found damaged. */
static void test_scrub_takes_trust_back(void **state)
{
	struct ptab pt = data_of(file, false);
	const vpn_t vpn = surgery_page(&fx, &pt, 8);
	struct page_info info;
	uint8_t byte;
	int fd;

	(void)state;
	assert_int_equal(fs_read(fx.fs, file, 8 * PMFS_PAGE_SIZE, &byte, 1), 1);
	assert_int_equal(page_info(fs_store(fx.fs), vpn, &info), 0);
	fd = open(fx.image, O_RDWR);
	assert_true(fd >= 0);
	byte = 0x55;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)(info.pfn * PMFS_PAGE_SIZE + 99)), 1);
	close(fd);
	assert_int_equal(fs_read(fx.fs, file, 8 * PMFS_PAGE_SIZE, &byte, 1), 1);
	assert_int_equal(pass(false).bad_pages, 1);
	assert_int_equal(fs_read(fx.fs, file, 8 * PMFS_PAGE_SIZE, &byte, 1), -EBADMSG);
	assert_int_equal(fs_read(fx.fs, file, 9 * PMFS_PAGE_SIZE, &byte, 1), 1);
}

/* A read that comes across damage is enough for its name. */
static void test_scrub_reader_finds_it(void **state)
{
	struct ptab pt = data_of(file, false);
	struct scrub_stats st;
	uint8_t byte;

	(void)state;
	rot(surgery_page(&fx, &pt, 3), 5);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(fs_read(fx.fs, file, 3 * PMFS_PAGE_SIZE, &byte, 1), -EBADMSG);
	scrub_settle(sc);
	scrub_stat(sc, &st);
	assert_int_equal(st.findings, 2);
	text[0] = 0;
	scrub_each_finding(sc, add_text, NULL);
	expect_text("live: inode 4 (/dir/file), contents: 4096 bytes at byte 12288 are damaged");
}

static void test_scrub_structure(void **state)
{
	struct scrub_stats st;
	struct inode *in;
	struct txn tx;

	(void)state;
	assert_int_equal(inode_get(fx.fs, file, &in), 0);
	assert_int_equal(txn_begin(fs_store(fx.fs), &tx, FRAME_NORMAL, ITABLE_COST), 0);
	in->nlink = 7;
	assert_int_equal(itable_store(&tx, in), 0);
	txn_end(&tx);
	inode_put(fx.fs, in);
	st = pass(true);
	assert_int_equal(st.structure_findings, 1);
	expect_text("live: inode 4 (/dir/file): it has 7 links, and 1 entries name it");
	assert_int_equal(pass(false).structure_findings, 0);
}

static void test_scrub_bad_node_of_the_map(void **state)
{
	struct pmfs_super sb[2];
	struct scrub_stats st;
	unsigned newer;
	uint64_t at;
	int fd;

	(void)state;
	/* Unmounting writes the tree of the map when much has changed; its root is in the newer
	 * slot. */
	fsfix_write(&fx, file, 0, "x", 1);
	scrub_free(sc);
	fsfix_reopen(&fx);
	assert_int_equal(scrub_new(&sc, fx.fs), 0);
	fd = open(fx.image, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &sb[0], sizeof(sb[0]), 0), sizeof(sb[0]));
	assert_int_equal(pread(fd, &sb[1], sizeof(sb[1]), PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE),
			 sizeof(sb[1]));
	newer = le64_get(sb[1].generation) > le64_get(sb[0].generation);
	at = le64_get(sb[newer].map_root);
	assert_int_not_equal(at, 0);
	assert_int_equal(pwrite(fd, "x", 1, (off_t)(at * PMFS_PAGE_SIZE + 1)), 1);
	close(fd);
	st = pass(false);
	assert_int_equal(st.bad_nodes, 1);
}

static _Atomic bool done;

static void *writer(void *arg)
{
	uint8_t page[PMFS_PAGE_SIZE];
	char name[32];

	(void)arg;
	for (unsigned i = 0; !atomic_load(&done); i++) {
		struct fs_attr attr;

		memset(page, (int)i, sizeof(page));
		fsfix_write(&fx, file, (uint64_t)(i % 600) * sizeof(page), page, sizeof(page));
		snprintf(name, sizeof(name), "n%u", i % 50);
		if (!fs_mknod(fx.fs, dir, name, strlen(name), 0100644, 0, &(struct fs_cred){0},
			      &attr))
			fs_forget(fx.fs, attr.id, 1);
		else
			assert_int_equal(fs_unlink(fx.fs, dir, name, strlen(name)), 0);
		if (i % 64 == 0)
			assert_int_equal(fs_sync(fx.fs), 0);
	}
	return NULL;
}

/* A filesystem that is in use is not found damaged. */
static void test_scrub_while_others_work(void **state)
{
	pthread_t thread;

	(void)state;
	atomic_store(&done, false);
	assert_int_equal(pthread_create(&thread, NULL, writer, NULL), 0);
	for (unsigned i = 0; i < 10; i++) {
		const struct scrub_stats st = pass(true);

		if (st.findings)
			print_message("%s", text);
		assert_int_equal(st.findings, 0);
		assert_int_equal(st.bad_pages + st.bad_nodes + st.structure_findings, 0);
		assert_true(reclaim_run(fx.fs) >= 0);
	}
	atomic_store(&done, true);
	pthread_join(thread, NULL);
	assert_true(reclaim_run(fx.fs) >= 0);
	fsfix_check(&fx);
}

static void test_scrub_stops(void **state)
{
	struct scrub_stats st;

	(void)state;
	assert_int_equal(scrub_stop(sc), -ESRCH);
	assert_int_equal(scrub_start(sc, false, 1), 0);
	assert_int_equal(scrub_start(sc, false, 1), -EALREADY);
	assert_int_equal(scrub_wait(sc, 1), -ETIMEDOUT);
	assert_int_equal(scrub_stop(sc), 0);
	scrub_stat(sc, &st);
	assert_int_equal(st.state, SCRUB_IDLE);
	assert_int_equal(st.passes, 0);
	assert_int_equal(st.error, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_scrub_clean),
		TEST(test_scrub_ram),
		TEST(test_scrub_names_every_owner),
		TEST(test_scrub_nodes_attributes_directories_inodes),
		TEST(test_scrub_takes_trust_back),
		TEST(test_scrub_reader_finds_it),
		TEST(test_scrub_structure),
		TEST(test_scrub_bad_node_of_the_map),
		TEST(test_scrub_while_others_work),
		TEST(test_scrub_stops),
	};

	log_set_level(LOG_LEVEL_ERR);
	return cmocka_run_group_tests_name("scrub", tests, NULL, NULL);
}
