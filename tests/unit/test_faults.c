/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * "Fail the Nth" for everything that the host can refuse, and for every allocation, until N is
 * never reached: errors are the right ones, nothing that was acknowledged is lost, after a failed
 * flush nothing is promised any more, and the image is good.  Allocations are caught by the
 * linker's --wrap.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/log.h"
#include "lib/fsfix.h"
#include "share/dedup.h"

#define FILES 12u
#define LIMIT (UINT64_C(40) << 20)

static const struct fs_cred cred = {0, 0};

/* ------------------------------------------------------------------ allocations */

static uint64_t allocations, fail_at; /* 0: none fails */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool fails(void)
{
	return ++allocations == fail_at;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

/* ------------------------------------------------------------------ work */

/* What the last acknowledgement promised; a file that is being written may have either contents. */
struct work {
	struct fsfix fx;
	struct {
		unsigned char durable, next; /* 0: no such file */
		bool doubt;		     /* what came after `durable` was not acknowledged */
		bool mixed; /* a write ended short: the new contents in front of the old */
	} file[FILES];
	bool snap, snap_doubt;
	bool big; /* so much that the image grows */
	int err;  /* what is made to happen */
	unsigned failed, failed_syncs;
};

static bool worked(struct work *w, int rc)
{
	if (!rc)
		return true;
	w->failed++;
	/* After the first one the store may have stopped. */
	if (rc != w->err && rc != -EIO && rc != -ENOENT && rc != -ENOSPC)
		fail_msg("%s instead of %s", strerror(-rc), strerror(-w->err));
	return false;
}

static void sync_all(struct work *w, uint64_t id)
{
	const bool stopped = store_error(fs_store(w->fx.fs)) != 0;
	const int rc = fs_fsync(w->fx.fs, id, false);

	if (stopped && !rc)
		fail_msg("an fsync succeeded after the store had stopped");
	if (worked(w, rc)) {
		/* It is a commit: all that was done until now. */
		for (unsigned k = 0; k < FILES; k++) {
			w->file[k].durable = w->file[k].next;
			w->file[k].doubt = false;
		}
		w->snap_doubt = false;
	} else {
		w->failed_syncs++;
	}
}

static void write_file(struct work *w, unsigned i, unsigned char c, unsigned pages)
{
	static uint8_t buf[16 * PMFS_PAGE_SIZE];
	struct fs_attr attr;
	char name[16];
	ssize_t n;
	int rc;

	snprintf(name, sizeof(name), "f%u", i);
	rc = fs_lookup(w->fx.fs, w->fx.root, name, strlen(name), &attr);
	if (rc) {
		w->file[i].doubt = true;
		if (rc != -ENOENT && !worked(w, rc))
			return;
		if (!worked(w, fs_mknod(w->fx.fs, w->fx.root, name, strlen(name), S_IFREG | 0644, 0,
					&cred, &attr)))
			return;
	}
	memset(buf, c, pages * PMFS_PAGE_SIZE);
	w->file[i].doubt = true;
	n = fs_write(w->fx.fs, attr.id, 0, buf, pages * PMFS_PAGE_SIZE, 0);
	w->file[i].mixed = n > 0 && n < (ssize_t)(pages * PMFS_PAGE_SIZE);
	if (n == (ssize_t)(pages * PMFS_PAGE_SIZE))
		w->file[i].next = c;
	else if (n < 0)
		worked(w, (int)n);
	if (n == (ssize_t)(pages * PMFS_PAGE_SIZE))
		sync_all(w, attr.id);
	fs_forget(w->fx.fs, attr.id, 1);
}

static void remove_file(struct work *w, unsigned i)
{
	char name[16];

	snprintf(name, sizeof(name), "f%u", i);
	w->file[i].doubt = true;
	if (worked(w, fs_unlink(w->fx.fs, w->fx.root, name, strlen(name)))) {
		w->file[i].next = 0;
		sync_all(w, w->fx.root);
	}
}

static void write_big(struct work *w)
{
	static uint8_t buf[256 * PMFS_PAGE_SIZE];
	struct fs_attr attr;
	ssize_t n;

	memset(buf, 'B', sizeof(buf));
	if (!worked(w, fs_mknod(w->fx.fs, w->fx.root, "big", 3, S_IFREG | 0644, 0, &cred, &attr)))
		return;
	for (uint64_t at = 0; at < UINT64_C(24) << 20; at += sizeof(buf)) {
		n = fs_write(w->fx.fs, attr.id, at, buf, sizeof(buf), 0);
		if (n < 0)
			worked(w, (int)n);
		if (n != (ssize_t)sizeof(buf))
			break;
	}
	fs_forget(w->fx.fs, attr.id, 1);
}

static void run(struct work *w)
{
	struct dedup *dd;
	int rc;

	for (unsigned i = 0; i < FILES; i++)
		write_file(w, i, (unsigned char)('a' + i % 3), 1 + i);
	if (w->big)
		write_big(w);
	w->snap_doubt = true;
	rc = fs_snap_create(w->fx.fs, "s", NULL, NULL);
	/* Nothing of it has happened: it works now, and there is one of that name. */
	if (rc == -ENOMEM && !store_error(fs_store(w->fx.fs)))
		rc = fs_snap_create(w->fx.fs, "s", NULL, NULL);
	if (worked(w, rc)) {
		w->snap = true;
		w->snap_doubt = false;
	}
	for (unsigned i = 0; i < FILES; i += 2)
		write_file(w, i, (unsigned char)('A' + i), 1 + i);
	for (unsigned i = 1; i < FILES; i += 4)
		remove_file(w, i);
	if (!dedup_new(&dd, fs_store(w->fx.fs), DEDUP_MEMORY_DEFAULT)) {
		worked(w, dedup_run(dd));
		dedup_free(dd);
	}
	write_file(w, 1, 'z', 3);
	worked(w, fs_sync(w->fx.fs));
}

static void expect_file(struct work *w, unsigned i)
{
	struct fs_attr attr;
	uint8_t first = 0, last = 0;
	char name[16];

	snprintf(name, sizeof(name), "f%u", i);
	if (fs_lookup(w->fx.fs, w->fx.root, name, strlen(name), &attr)) {
		if (w->file[i].durable && !w->file[i].doubt)
			fail_msg("%s is gone, and was synced", name);
		return;
	}
	if (w->file[i].doubt || w->file[i].mixed)
		goto out;
	assert_int_not_equal(w->file[i].durable, 0);
	assert_true(attr.size > 0);
	assert_int_equal(fs_read(w->fx.fs, attr.id, 0, &first, 1), 1);
	assert_int_equal(fs_read(w->fx.fs, attr.id, attr.size - 1, &last, 1), 1);
	if (first != w->file[i].durable || last != first)
		fail_msg("%s has '%c' and '%c', and '%c' was synced", name, first, last,
			 w->file[i].durable);
out:
	fs_forget(w->fx.fs, attr.id, 1);
}

/* As a kill would leave it: all that was acknowledged is there, and the image is good. */
static void expect_kept(struct work *w)
{
	struct fs_snapshot snap;

	fsfix_crash(&w->fx);
	fsfix_start(&w->fx);
	for (unsigned i = 0; i < FILES; i++)
		expect_file(w, i);
	if (w->snap && !w->snap_doubt)
		assert_int_equal(fs_snap_find(w->fx.fs, "s", &snap), 0);
	fsfix_check(&w->fx);
	/* And it takes writes again. */
	fsfix_write(&w->fx, fsfix_file(&w->fx, w->fx.root, "again"), 0, "x", 1);
	assert_int_equal(fs_sync(w->fx.fs), 0);
}

static uint64_t one_fault(const char *name, uint64_t n, int err, bool forever)
{
	struct work w = {.err = -err};
	struct store_error what;
	char why[200];
	uint64_t hits;
	int rc;

	w.big = !strcmp(name, "region.grow") || !strcmp(name, "region.back");
	fsfix_image(&w.fx, LIMIT);
	fsfix_stop(&w.fx);
	fault_reset();
	if (n)
		assert_int_equal(
			forever ? fault_arm_forever(name, n, err) : fault_arm(name, n, err), 0);
	rc = fsfix_try_start(&w.fx, &what);
	if (rc) {
		/* What a flush at opening says is told, and nothing has happened. */
		assert_int_equal(rc, -err);
		hits = fault_count(name);
		fault_reset();
		fsfix_start(&w.fx);
		expect_kept(&w);
		fsfix_free(&w.fx);
		return hits;
	}
	run(&w);
	hits = fault_count(name);
	/* A failed flush or write stops the store for good, and it says why. */
	store_why(fs_store(w.fx.fs), why, sizeof(why));
	if (n && n <= hits && (!strcmp(name, "region.flush") || !strcmp(name, "region.write"))) {
		assert_int_equal(store_error(fs_store(w.fx.fs)), -EIO);
		assert_true(why[0]);
		assert_int_equal(fs_sync(w.fx.fs), -EIO);
		assert_true(w.failed > 0);
	} else {
		assert_int_equal(store_error(fs_store(w.fx.fs)), 0);
		assert_string_equal(why, "");
		assert_int_equal(w.failed_syncs, 0);
	}
	fault_reset();
	expect_kept(&w);
	fsfix_free(&w.fx);
	return hits;
}

static void every_fault(const char *name, int err)
{
	const uint64_t hits = one_fault(name, 0, err, false);
	uint64_t n = 1, faults = hits;

	for (; n <= hits; n++)
		one_fault(name, n, err, false);
	/* From one on all fail: fewer of these, they are much the same. */
	for (n = 1; n <= hits; n += 1 + hits / 8, faults++)
		one_fault(name, n, err, true);
	print_message("%s: %llu places\n", name, (unsigned long long)hits);
	print_message("tries: %llu faults\n", (unsigned long long)faults);
}

static void test_faults_flush(void **state)
{
	(void)state;
	every_fault("region.flush", EIO);
}

static void test_faults_write(void **state)
{
	(void)state;
	every_fault("region.write", EIO);
}

static void test_faults_grow(void **state)
{
	(void)state;
	every_fault("region.grow", ENOSPC);
	every_fault("region.grow", EFBIG);
}

static void test_faults_back(void **state)
{
	(void)state;
	every_fault("region.back", ENOSPC);
}

/* Opening, working and closing with every allocation failing once. */
static void test_faults_memory(void **state)
{
	uint64_t n = 1, last;

	(void)state;
	for (;; n++) {
		struct work w = {.err = -ENOMEM};
		struct store_error err;
		int rc;

		fsfix_image(&w.fx, LIMIT);
		fsfix_stop(&w.fx);
		allocations = 0;
		fail_at = n;
		rc = fsfix_try_start(&w.fx, &err);
		if (!rc)
			run(&w);
		last = allocations;
		fail_at = 0;
		if (rc) {
			assert_int_equal(rc, -ENOMEM);
			fsfix_start(&w.fx);
		}
		expect_kept(&w);
		fsfix_free(&w.fx);
		if (n > last)
			break;
	}
	print_message("memory: %llu places\n", (unsigned long long)last);
	print_message("tries: %llu faults\n", (unsigned long long)n - 1);
}

static void drop(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults_flush),  cmocka_unit_test(test_faults_write),
		cmocka_unit_test(test_faults_grow),   cmocka_unit_test(test_faults_back),
		cmocka_unit_test(test_faults_memory),
	};

	if (fault_arm("test", 1, EIO) == -EOPNOTSUPP)
		return 77;
	/* Hundreds of them are made to happen. */
	log_to_function(drop, NULL);
	return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
