/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fault.h"
#include "base/hash.h"
#include "store/region.h"

#define LIMIT 4096u

static char dir[128], image[160], other[160];
static uint8_t buf[3 * PMFS_PAGE_SIZE];

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof(dir), "%.80s/pmfs-region-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	snprintf(image, sizeof(image), "%s/image", dir);
	snprintf(other, sizeof(other), "%s/other", dir);
	fault_reset();
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 7 + i / 251);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fault_reset();
	unlink(image);
	unlink(other);
	return rmdir(dir);
}

static struct region *open_kind(enum region_kind kind)
{
	struct region *rg;

	if (kind == REGION_MEMFD)
		assert_int_equal(region_open_memfd(&rg, LIMIT), 0);
	else
		assert_int_equal(region_open_image(&rg, image, LIMIT, REGION_CREATE, NULL), 0);
	assert_int_equal(region_kind(rg), kind);
	assert_int_equal(region_frames(rg), 0);
	return rg;
}

static void close_kind(struct region *rg)
{
	region_close(rg);
	unlink(image);
}

static off_t file_size(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* R1, R2: what is written is read back by every way there is, and growing moves nothing. */
static void test_region_write_then_read(void **state)
{
	(void)state;
	for (int kind = REGION_MEMFD; kind <= REGION_IMAGE; kind++) {
		struct region *rg = open_kind((enum region_kind)kind);
		uint8_t got[sizeof(buf)];
		const void *at;
		uint64_t hash;

		assert_int_equal(region_grow(rg, 10), 0);
		assert_int_equal(region_frames(rg), 10);
		at = region_at(rg, 3);
		assert_true(mem_is_zero(at, PMFS_PAGE_SIZE));
		/* Over the end of a frame into the next two. */
		assert_int_equal(region_write(rg, 3, 100, buf, 2 * PMFS_PAGE_SIZE), 0);
		assert_int_equal(region_grow(rg, 1000), 0);
		assert_ptr_equal(region_at(rg, 3), at);
		assert_memory_equal((const uint8_t *)at + 100, buf, 2 * PMFS_PAGE_SIZE);
		assert_int_equal(region_copy_out(rg, 3, 100, got, 2 * PMFS_PAGE_SIZE), 0);
		assert_memory_equal(got, buf, 2 * PMFS_PAGE_SIZE);
		assert_int_equal(region_hash(rg, 4, &hash), 0);
		assert_int_equal(hash, hash64(region_at(rg, 4), PMFS_PAGE_SIZE));
		assert_int_equal(region_copy_frame(rg, 4, 999), 0);
		assert_int_equal(region_equal(rg, 4, 999), 1);
		assert_int_equal(region_equal(rg, 3, 999), 0);
		assert_int_equal(region_zero(rg, 4), 0);
		assert_true(mem_is_zero(region_at(rg, 4), PMFS_PAGE_SIZE));
		assert_int_equal(region_probe(rg, 0, 1000), 0);
		assert_int_equal(region_written(rg), 4 * PMFS_PAGE_SIZE);
		assert_int_equal(region_flush(rg), 0);
		assert_int_equal(region_flushes(rg), 1);
		assert_int_equal(region_check(rg), 0);
		close_kind(rg);
	}
}

static void test_region_refuses_frames_it_has_not(void **state)
{
	struct region *rg = open_kind(REGION_IMAGE);
	uint64_t hash;

	(void)state;
	assert_int_equal(region_grow(rg, 10), 0);
	assert_int_equal(region_write(rg, 9, 1, buf, PMFS_PAGE_SIZE), -EIO);
	assert_int_equal(region_write(rg, 10, 0, buf, 1), -EIO);
	assert_int_equal(region_copy_out(rg, 9, 1, buf, PMFS_PAGE_SIZE), -EIO);
	assert_int_equal(region_hash(rg, 10, &hash), -EIO);
	assert_int_equal(region_equal(rg, 0, 10), -EIO);
	assert_int_equal(region_probe(rg, 5, 6), -EIO);
	assert_int_equal(region_probe(rg, UINT64_MAX, 2), -EIO);
	assert_int_equal(region_error(rg), 0);
	close_kind(rg);
}

static void test_region_image_keeps_its_bytes(void **state)
{
	struct region *rg = open_kind(REGION_IMAGE);

	(void)state;
	assert_int_equal(region_grow(rg, 10), 0);
	assert_int_equal(region_write(rg, 7, 0, buf, PMFS_PAGE_SIZE), 0);
	region_close(rg);
	/* A part of a frame at the end does not count. */
	assert_int_equal(truncate(image, 10 * PMFS_PAGE_SIZE + 5), 0);
	assert_int_equal(region_open_image(&rg, image, 1, 0, NULL), 0);
	assert_int_equal(region_frames(rg), 10);
	assert_int_equal(region_limit(rg), 10);
	assert_memory_equal(region_at(rg, 7), buf, PMFS_PAGE_SIZE);
	close_kind(rg);
}

static void test_region_grows_no_further_than_limit(void **state)
{
	(void)state;
	for (int kind = REGION_MEMFD; kind <= REGION_IMAGE; kind++) {
		struct region *rg = open_kind((enum region_kind)kind);

		assert_int_equal(region_limit(rg), LIMIT);
		assert_int_equal(region_reserved(rg), LIMIT);
		assert_int_equal(region_grow(rg, LIMIT + 1), -ENOSPC);
		assert_int_equal(region_frames(rg), 0);
		assert_int_equal(region_grow(rg, 100), 0);
		assert_int_equal(region_set_limit(rg, 99), -ERANGE);
		assert_int_equal(region_set_limit(rg, LIMIT + 1), -ERANGE);
		assert_int_equal(region_set_limit(rg, 100), 0);
		assert_int_equal(region_grow(rg, 101), -ENOSPC);
		assert_int_equal(region_set_limit(rg, LIMIT), 0);
		assert_int_equal(region_grow(rg, LIMIT), 0);
		/* Smaller than it is: nothing to do. */
		assert_int_equal(region_grow(rg, 1), 0);
		assert_int_equal(region_frames(rg), LIMIT);
		close_kind(rg);
	}
}

static void test_region_truncate_cuts_and_grows_again(void **state)
{
	(void)state;
	for (int kind = REGION_MEMFD; kind <= REGION_IMAGE; kind++) {
		struct region *rg = open_kind((enum region_kind)kind);

		assert_int_equal(region_grow(rg, 100), 0);
		assert_int_equal(region_write(rg, 50, 0, buf, PMFS_PAGE_SIZE), 0);
		assert_int_equal(region_truncate(rg, 200), 0);
		assert_int_equal(region_frames(rg), 100);
		assert_int_equal(region_truncate(rg, 50), 0);
		assert_int_equal(region_frames(rg), 50);
		assert_int_equal(region_probe(rg, 50, 1), -EIO);
		assert_int_equal(region_grow(rg, 60), 0);
		assert_true(mem_is_zero(region_at(rg, 50), PMFS_PAGE_SIZE));
		assert_int_equal(region_write(rg, 59, 0, buf, PMFS_PAGE_SIZE), 0);
		close_kind(rg);
	}
}

/* ------------------------------------------------------------------ opening */

static void test_region_open_refusals(void **state)
{
	struct region *rg;

	(void)state;
	assert_int_equal(region_open_image(&rg, image, LIMIT, 0, NULL), -ENOENT);
	assert_int_equal(region_open_image(&rg, dir, LIMIT, 0, NULL), -EISDIR);
	assert_int_equal(region_open_image(&rg, dir, LIMIT, REGION_READONLY, NULL), -EISDIR);
	assert_int_equal(mkfifo(other, 0600), 0);
	assert_int_equal(region_open_image(&rg, other, LIMIT, 0, NULL), -ENOTBLK);
	rg = open_kind(REGION_IMAGE);
	region_close(rg);
	assert_int_equal(region_open_image(&rg, image, LIMIT, REGION_CREATE, NULL), -EEXIST);
	assert_int_equal(file_size(image), 0);
}

static void test_region_one_writer_or_many_readers(void **state)
{
	struct region *writer = open_kind(REGION_IMAGE);
	struct region *a, *b;
	int holder = -1;

	(void)state;
	assert_int_equal(region_open_image(&a, image, LIMIT, 0, &holder), -EBUSY);
	assert_int_equal(holder, getpid());
	assert_int_equal(region_open_image(&a, image, LIMIT, REGION_READONLY, &holder), -EBUSY);
	assert_int_equal(region_open_image(&a, image, LIMIT, 0, NULL), -EBUSY);
	assert_int_equal(region_open_image(&a, image, LIMIT, REGION_NOLOCK, NULL), 0);
	region_close(a);
	region_close(writer);

	assert_int_equal(region_open_image(&a, image, LIMIT, REGION_READONLY, NULL), 0);
	assert_int_equal(region_open_image(&b, image, LIMIT, REGION_READONLY, &holder), 0);
	assert_int_equal(holder, 0);
	assert_int_equal(region_open_image(&writer, image, LIMIT, 0, &holder), -EBUSY);
	assert_int_equal(holder, getpid());
	region_close(a);
	region_close(b);
	assert_int_equal(region_open_image(&writer, image, LIMIT, 0, NULL), 0);
	region_close(writer);
}

static void test_region_names_the_process_that_holds_it(void **state)
{
	struct region *rg;
	int ready[2], done[2], holder = 0, status;
	char byte = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(done), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		close(done[1]);
		int rc = region_open_image(&rg, image, LIMIT, REGION_CREATE, NULL);

		if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 0)
			_exit(2);
		_exit(rc ? 1 : 0);
	}
	close(done[0]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(region_open_image(&rg, image, LIMIT, 0, &holder), -EBUSY);
	assert_int_equal(holder, pid);
	close(done[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(ready[0]);
	close(ready[1]);
	assert_int_equal(region_open_image(&rg, image, LIMIT, 0, &holder), 0);
	region_close(rg);
}

static void test_region_readonly_changes_nothing(void **state)
{
	struct region *rg = open_kind(REGION_IMAGE);

	(void)state;
	assert_int_equal(region_grow(rg, 10), 0);
	assert_int_equal(region_write(rg, 2, 0, buf, PMFS_PAGE_SIZE), 0);
	region_close(rg);
	assert_int_equal(region_open_image(&rg, image, LIMIT, REGION_READONLY, NULL), 0);
	assert_true(region_readonly(rg));
	assert_memory_equal(region_at(rg, 2), buf, PMFS_PAGE_SIZE);
	assert_int_equal(region_write(rg, 2, 0, buf + 1, 1), -EROFS);
	assert_int_equal(region_zero(rg, 2), -EROFS);
	assert_int_equal(region_grow(rg, 11), -EROFS);
	assert_int_equal(region_truncate(rg, 1), -EROFS);
	assert_int_equal(region_punch(rg, 2, 1), -EROFS);
	assert_int_equal(region_back(rg, 2, 1), -EROFS);
	assert_int_equal(region_flush(rg), -EROFS);
	assert_int_equal(region_error(rg), 0);
	assert_memory_equal(region_at(rg, 2), buf, PMFS_PAGE_SIZE);
	close_kind(rg);
}

static void test_region_table_has_an_end(void **state)
{
	struct region *rg[REGION_MAX_OPEN], *more;

	(void)state;
	for (size_t i = 0; i < REGION_MAX_OPEN; i++)
		assert_int_equal(region_open_memfd(&rg[i], 16), 0);
	assert_int_equal(region_open_memfd(&more, 16), -EMFILE);
	region_close(rg[5]);
	assert_int_equal(region_open_memfd(&rg[5], 16), 0);
	for (size_t i = 0; i < REGION_MAX_OPEN; i++)
		region_close(rg[i]);
}

/* ------------------------------------------------------------------ a host that fails */

static sigjmp_buf before_fault;

static void on_foreign_sigbus(int sig)
{
	(void)sig;
	siglongjmp(before_fault, 1);
}

/* R4: loads from a file that was cut off. */
static void test_region_truncated_image_is_an_error(void **state)
{
	struct region *rg = open_kind(REGION_IMAGE);
	const volatile uint8_t *at;
	uint64_t hash;

	(void)state;
	assert_int_equal(region_grow(rg, 20), 0);
	assert_int_equal(region_write(rg, 15, 0, buf, PMFS_PAGE_SIZE), 0);
	assert_int_equal(truncate(image, 10 * PMFS_PAGE_SIZE), 0);
	assert_int_equal(region_check(rg), -EIO);
	for (int again = 0; again < 2; again++) {
		assert_int_equal(region_copy_out(rg, 15, 0, buf, PMFS_PAGE_SIZE), -EIO);
		assert_int_equal(region_hash(rg, 15, &hash), -EIO);
		assert_int_equal(region_equal(rg, 5, 15), -EIO);
		assert_int_equal(region_equal(rg, 15, 5), -EIO);
		assert_int_equal(region_probe(rg, 5, 10), -EIO);
		assert_int_equal(region_copy_frame(rg, 15, 5), -EIO);
	}
	assert_int_equal(region_probe(rg, 0, 10), 0);
	/* Whoever looked has been told; nothing is broken yet. */
	assert_int_equal(region_error(rg), 0);

	at = region_at(rg, 15);
	assert_int_equal(at[0], 0);
	assert_int_equal(at[PMFS_PAGE_SIZE - 1], 0);
	assert_int_equal(region_error(rg), -EIO);
	assert_int_equal(region_write(rg, 5, 0, buf, 1), -EIO);
	assert_int_equal(region_grow(rg, 30), -EIO);
	assert_int_equal(region_flush(rg), -EIO);
	close_kind(rg);
}

/* The kernel, too, finds out before the user does. */
static void test_region_truncated_frame_can_not_be_sent(void **state)
{
	struct region *rg = open_kind(REGION_IMAGE);
	int fd = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(region_grow(rg, 20), 0);
	assert_int_equal(truncate(image, 10 * PMFS_PAGE_SIZE), 0);
	assert_int_equal(pwrite(fd, region_at(rg, 15), PMFS_PAGE_SIZE, 0), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(region_error(rg), 0);
	close(fd);
	close_kind(rg);
}

static void test_region_passes_foreign_sigbus_on(void **state)
{
	struct sigaction sa = { .sa_handler = on_foreign_sigbus, .sa_flags = SA_NODEFER }, before;
	int fd = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	volatile int caught = 0;
	struct region *rg;
	uint8_t *map;

	(void)state;
	/* The region that is opened last is the one that finds the handler. */
	assert_int_equal(sigaction(SIGBUS, &sa, &before), 0);
	rg = open_kind(REGION_IMAGE);
	assert_int_equal(region_grow(rg, 4), 0);
	assert_int_equal(ftruncate(fd, PMFS_PAGE_SIZE), 0);
	map = mmap(NULL, PMFS_PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(ftruncate(fd, 0), 0);
	if (sigsetjmp(before_fault, 1) == 0)
		(void)*(volatile uint8_t *)map;
	else
		caught = 1;
	assert_int_equal(caught, 1);
	/* Nor is one that was sent. */
	caught = 0;
	if (sigsetjmp(before_fault, 1) == 0)
		raise(SIGBUS);
	else
		caught = 1;
	assert_int_equal(caught, 1);
	assert_int_equal(region_error(rg), 0);
	assert_int_equal(region_probe(rg, 0, 4), 0);
	munmap(map, PMFS_PAGE_SIZE);
	close(fd);
	close_kind(rg);
	sigaction(SIGBUS, &before, NULL);
}

/* R3 */
static void test_region_failed_flush_poisons(void **state)
{
	(void)state;
#ifndef PMFS_FAULTS
	skip();
#endif
	for (int kind = REGION_MEMFD; kind <= REGION_IMAGE; kind++) {
		struct region *rg = open_kind((enum region_kind)kind);

		assert_int_equal(region_grow(rg, 10), 0);
		assert_int_equal(region_write(rg, 1, 0, buf, 10), 0);
		assert_int_equal(fault_arm("region.flush", 1, EIO), 0);
		assert_int_equal(region_flush(rg), -EIO);
		assert_int_equal(region_error(rg), -EIO);
		assert_int_equal(region_flush(rg), -EIO);
		assert_int_equal(region_write(rg, 1, 0, buf, 10), -EIO);
		assert_int_equal(region_grow(rg, 11), -EIO);
		assert_int_equal(region_punch(rg, 1, 1), -EIO);
		assert_int_equal(region_back(rg, 1, 1), -EIO);
		assert_int_equal(region_flushes(rg), 0);
		/* Reading goes on. */
		assert_memory_equal(region_at(rg, 1), buf, 10);
		assert_int_equal(region_probe(rg, 0, 10), 0);
		close_kind(rg);
	}
}

static void test_region_failed_write_poisons(void **state)
{
	struct region *rg;

	(void)state;
#ifndef PMFS_FAULTS
	skip();
#endif
	rg = open_kind(REGION_MEMFD);
	assert_int_equal(region_grow(rg, 10), 0);
	assert_int_equal(fault_arm("region.write", 2, ENOSPC), 0);
	assert_int_equal(region_write(rg, 1, 0, buf, 10), 0);
	assert_int_equal(region_write(rg, 1, 0, buf, 10), -EIO);
	assert_int_equal(region_write(rg, 1, 0, buf, 10), -EIO);
	assert_int_equal(region_error(rg), -EIO);
	region_poison(rg, -ENOMEM);
	assert_int_equal(region_error(rg), -EIO);
	region_close(rg);
}

static void test_region_failed_growth_changes_nothing(void **state)
{
	struct region *rg;

	(void)state;
#ifndef PMFS_FAULTS
	skip();
#endif
	rg = open_kind(REGION_IMAGE);
	assert_int_equal(region_grow(rg, 10), 0);
	assert_int_equal(fault_arm("region.grow", 1, ENOSPC), 0);
	assert_int_equal(region_grow(rg, 20), -ENOSPC);
	assert_int_equal(region_frames(rg), 10);
	assert_int_equal(file_size(image), 10 * PMFS_PAGE_SIZE);
	assert_int_equal(region_error(rg), 0);
	assert_int_equal(region_grow(rg, 20), 0);
	assert_int_equal(fault_arm("region.back", 1, ENOSPC), 0);
	assert_int_equal(region_punch(rg, 3, 2), 0);
	assert_int_equal(region_back(rg, 3, 2), -ENOSPC);
	assert_int_equal(region_back(rg, 3, 2), 0);
	close_kind(rg);
}

static void test_region_file_too_big_for_the_host(void **state)
{
	struct region *rg = open_kind(REGION_IMAGE);
	struct rlimit old, small;
	int rc;

	(void)state;
	assert_int_equal(region_grow(rg, 10), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 100 * PMFS_PAGE_SIZE;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	rc = region_grow(rg, 200);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(rc, -EFBIG);
	assert_int_equal(region_frames(rg), 10);
	assert_int_equal(file_size(image), 10 * PMFS_PAGE_SIZE);
	assert_int_equal(region_grow(rg, 200), 0);
	close_kind(rg);
}

/*
 * A host that is really full.  The mount is in a namespace of its own and goes with this process.
 */
static void test_region_full_host(void **state)
{
	struct region *rg;
	uint64_t bytes;

	(void)state;
	if (geteuid() != 0 || unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
		skip();
	rg = open_kind(REGION_IMAGE);
	assert_int_equal(region_grow(rg, 100), 0);
	assert_int_equal(region_grow(rg, 300), -ENOSPC);
	assert_int_equal(region_frames(rg), 100);
	assert_int_equal(file_size(image), 100 * PMFS_PAGE_SIZE);
	bytes = region_host_free(rg);
	assert_true(bytes <= 156 * PMFS_PAGE_SIZE);
	assert_int_equal(region_grow(rg, 100 + bytes / PMFS_PAGE_SIZE), 0);
	assert_int_equal(region_host_free(rg), 0);
	/* R1: what is backed can be written. */
	for (pfn_t pfn = 0; pfn < region_frames(rg); pfn++)
		assert_int_equal(region_write(rg, pfn, 0, buf, PMFS_PAGE_SIZE), 0);
	assert_int_equal(region_punch(rg, 50, 20), 0);
	assert_int_equal(region_grow(rg, region_frames(rg) + 20), 0);
	assert_int_equal(region_back(rg, 50, 20), -ENOSPC);
	assert_int_equal(region_error(rg), 0);
	region_close(rg);
	assert_int_equal(unlink(image), 0);
	assert_int_equal(umount(dir), 0);
}

/* ------------------------------------------------------------------ giving back */

static void test_region_punched_frames_are_zeros(void **state)
{
	(void)state;
	for (int kind = REGION_MEMFD; kind <= REGION_IMAGE; kind++) {
		struct region *rg = open_kind((enum region_kind)kind);
		uint64_t before, after;
		pfn_t start, stop;

		assert_int_equal(region_grow(rg, 512), 0);
		for (pfn_t pfn = 0; pfn < 512; pfn++)
			assert_int_equal(region_write(rg, pfn, 0, buf, PMFS_PAGE_SIZE), 0);
		assert_int_equal(region_flush(rg), 0);
		before = region_host_bytes(rg);
		assert_true(before >= 512 * PMFS_PAGE_SIZE);
		assert_int_equal(region_punch(rg, 100, 300), 0);
		after = region_host_bytes(rg);
		assert_true(before - after >= 300 * PMFS_PAGE_SIZE);
		assert_int_equal(region_next_backed(rg, 10, 512, &start, &stop), 0);
		assert_int_equal(start, 10);
		assert_int_equal(stop, 100);
		assert_int_equal(region_next_backed(rg, 100, 512, &start, &stop), 0);
		assert_int_equal(start, 400);
		assert_int_equal(stop, 512);
		assert_int_equal(region_next_backed(rg, 150, 300, &start, &stop), 0);
		assert_int_equal(start, 300);
		assert_int_equal(stop, 300);
		/* Now, not before: looking at a hole in memory fills it. */
		assert_true(mem_is_zero(region_at(rg, 100), 300 * PMFS_PAGE_SIZE));
		assert_memory_equal(region_at(rg, 99), buf, PMFS_PAGE_SIZE);
		assert_memory_equal(region_at(rg, 400), buf, PMFS_PAGE_SIZE);
		/* Backing what is backed already changes nothing. */
		assert_int_equal(region_back(rg, 90, 20), 0);
		assert_memory_equal(region_at(rg, 99), buf, PMFS_PAGE_SIZE);
		assert_int_equal(region_write(rg, 105, 0, buf, PMFS_PAGE_SIZE), 0);
		assert_memory_equal(region_at(rg, 105), buf, PMFS_PAGE_SIZE);
		close_kind(rg);
	}
}

/*
 * A loop device over `other`, which goes when the last one closes it.  -1: there is none to be had.
 */
static int loop_device(char *path, size_t len)
{
	struct loop_config how = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int file = open(other, O_RDWR | O_CLOEXEC), loop = -1;

	/* Another process can be quicker than we are. */
	for (int tries = 0; control >= 0 && file >= 0 && loop < 0 && tries < 16; tries++) {
		int n = ioctl(control, LOOP_CTL_GET_FREE);

		snprintf(path, len, "/dev/loop%d", n);
		how.fd = (uint32_t)file;
		loop = n < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
		if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &how)) {
			close(loop);
			loop = -1;
		}
	}
	if (control >= 0)
		close(control);
	if (file >= 0)
		close(file);
	return loop;
}

static void test_region_block_device(void **state)
{
	struct region *rg, *again;
	char path[64];
	int loop, fd;
	pfn_t start, stop;

	(void)state;
	fd = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 300 * PMFS_PAGE_SIZE), 0);
	close(fd);
	loop = loop_device(path, sizeof(path));
	if (loop < 0)
		skip();
	assert_int_equal(region_open_image(&rg, path, LIMIT, 0, NULL), 0);
	assert_int_equal(region_open_image(&again, path, LIMIT, 0, NULL), -EBUSY);
	/* All of it from the beginning, and never more. */
	assert_int_equal(region_frames(rg), 300);
	assert_int_equal(region_grow(rg, 301), -ENOSPC);
	assert_int_equal(region_write(rg, 299, 0, buf, PMFS_PAGE_SIZE), 0);
	assert_memory_equal(region_at(rg, 299), buf, PMFS_PAGE_SIZE);
	assert_int_equal(region_punch(rg, 299, 1), -EOPNOTSUPP);
	assert_int_equal(region_truncate(rg, 10), -EOPNOTSUPP);
	assert_int_equal(region_back(rg, 10, 10), 0);
	assert_int_equal(region_next_backed(rg, 10, 20, &start, &stop), 0);
	assert_int_equal(start, 10);
	assert_int_equal(stop, 20);
	assert_int_equal(region_check(rg), 0);
	assert_int_equal(region_flush(rg), 0);
	region_close(rg);
	close(loop);
}

/* ------------------------------------------------------------------ taps */

static char seen[256];

static void see(const char *what, uint64_t byte, uint64_t len)
{
	size_t at = strlen(seen);

	snprintf(seen + at, sizeof(seen) - at, "%s%llu+%llu ", what, (unsigned long long)byte,
		 (unsigned long long)len);
}

static void saw_write(void *arg, uint64_t byte, const void *from, size_t len)
{
	assert_ptr_equal(arg, seen);
	assert_memory_equal(from, buf, len);
	see("w", byte, len);
}

static void saw_punch(void *arg, uint64_t byte, uint64_t len)
{
	(void)arg;
	see("p", byte, len);
}

static void saw_flush(void *arg)
{
	(void)arg;
	see("f", 0, 0);
}

static void test_region_tap_sees_all_that_succeeds(void **state)
{
	static const struct region_tap tap = { saw_write, saw_punch, saw_flush, seen };
	static const struct region_tap silent;
	struct region *rg = open_kind(REGION_IMAGE);

	(void)state;
	seen[0] = '\0';
	assert_int_equal(region_grow(rg, 10), 0);
	assert_int_equal(region_write(rg, 1, 0, buf, 8), 0);
	region_set_tap(rg, &tap);
	assert_int_equal(region_write(rg, 2, 16, buf, 100), 0);
	assert_int_equal(region_flush(rg), 0);
	assert_int_equal(region_punch(rg, 3, 2), 0);
	region_set_tap(rg, &silent);
	assert_int_equal(region_write(rg, 1, 0, buf, 8), 0);
	assert_int_equal(region_punch(rg, 3, 2), 0);
	assert_int_equal(region_flush(rg), 0);
	region_set_tap(rg, &tap);
#ifdef PMFS_FAULTS
	assert_int_equal(fault_arm("region.flush", 1, EIO), 0);
	assert_int_equal(region_flush(rg), -EIO);
#endif
	region_set_tap(rg, NULL);
	assert_string_equal(seen, "w8208+100 f0+0 p12288+8192 ");
	close_kind(rg);
}

/* ------------------------------------------------------------------ threads */

struct worker {
	struct region *rg;
	unsigned int n;
	pthread_t thread;
	bool ok;
};

#define WORKERS 4u
#define ROUNDS 64u
static _Atomic unsigned int grown;

/* Grows the region to its own frames, writes them and reads everybody's. */
static void *work(void *arg)
{
	struct worker *w = arg;
	uint8_t page[PMFS_PAGE_SIZE], got[PMFS_PAGE_SIZE];

	w->ok = true;
	for (unsigned int i = 0; i < ROUNDS; i++) {
		pfn_t mine = i * WORKERS + w->n;
		uint64_t hash;

		memset(page, (int)(mine % 251), sizeof(page));
		w->ok &= region_grow(w->rg, mine + 1) == 0;
		w->ok &= region_write(w->rg, mine, 0, page, sizeof(page)) == 0;
		w->ok &= region_copy_out(w->rg, mine, 0, got, sizeof(got)) == 0 &&
			 !memcmp(page, got, sizeof(got));
		w->ok &= region_hash(w->rg, mine, &hash) == 0 && hash == hash64(page, sizeof(page));
		w->ok &= region_probe(w->rg, 0, region_frames(w->rg)) == 0;
		w->ok &= region_flush(w->rg) == 0;
		atomic_fetch_add(&grown, 1);
	}
	return NULL;
}

static void test_region_threads(void **state)
{
	(void)state;
	for (int kind = REGION_MEMFD; kind <= REGION_IMAGE; kind++) {
		struct region *rg = open_kind((enum region_kind)kind);
		struct worker w[WORKERS];

		for (unsigned int i = 0; i < WORKERS; i++) {
			w[i] = (struct worker){ .rg = rg, .n = i };
			assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
		}
		for (unsigned int i = 0; i < WORKERS; i++) {
			pthread_join(w[i].thread, NULL);
			assert_true(w[i].ok);
		}
		assert_int_equal(region_frames(rg), WORKERS * ROUNDS);
		assert_int_equal(region_flushes(rg), WORKERS * ROUNDS);
		close_kind(rg);
	}
}

/* Each thread has a jump target of its own. */
static void *fault_often(void *arg)
{
	struct worker *w = arg;
	uint64_t hash;

	w->ok = true;
	for (unsigned int i = 0; i < ROUNDS; i++) {
		w->ok &= region_hash(w->rg, 10 + w->n, &hash) == -EIO;
		w->ok &= region_hash(w->rg, w->n, &hash) == 0;
	}
	return NULL;
}

static void test_region_threads_fault(void **state)
{
	struct region *rg = open_kind(REGION_IMAGE);
	struct worker w[WORKERS];

	(void)state;
	assert_int_equal(region_grow(rg, 20), 0);
	assert_int_equal(truncate(image, 10 * PMFS_PAGE_SIZE), 0);
	for (unsigned int i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){ .rg = rg, .n = i };
		assert_int_equal(pthread_create(&w[i].thread, NULL, fault_often, &w[i]), 0);
	}
	for (unsigned int i = 0; i < WORKERS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_true(w[i].ok);
	}
	assert_int_equal(region_error(rg), 0);
	close_kind(rg);
}

/* ------------------------------------------------------------------ windows */

static int memory_of(uint64_t pages, uint8_t first)
{
	const int fd = memfd_create("test", MFD_CLOEXEC);
	uint8_t page[PMFS_PAGE_SIZE];

	assert_true(fd >= 0);
	for (uint64_t i = 0; i < pages; i++) {
		memset(page, first + (int)i, sizeof(page));
		assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	}
	return fd;
}

struct sum {
	const uint8_t *from;
	uint64_t pages, sum;
};

static void add_up(void *arg)
{
	struct sum *s = arg;

	for (uint64_t i = 0; i < s->pages; i++)
		s->sum += s->from[i * PMFS_PAGE_SIZE];
}

static void test_region_windows(void **state)
{
	const uint64_t huge = UINT64_C(2) << 20;
	struct region_window *a, *b, *c;
	struct region *rg;
	struct sum s;
	int fd, fd2;

	(void)state;
	assert_int_equal(region_open_memfd(&rg, 100), 0);
	assert_int_equal(region_grow(rg, 10), 0);
	fd = memory_of(4, 1);
	fd2 = memory_of(1, 9);
	assert_int_equal(region_window_open(rg, fd, 2 * PMFS_PAGE_SIZE, 3 * huge, &a), 0);
	assert_int_equal(region_window_open(rg, fd2, PMFS_PAGE_SIZE, 0, &b), 0);
	assert_ptr_equal(b->at, a->at + 3 * huge);
	assert_int_equal(a->at[0] + a->at[PMFS_PAGE_SIZE] + b->at[0], 1 + 2 + 9);
	assert_int_equal(region_window_extend(a, fd, 4 * PMFS_PAGE_SIZE), 0);
	s = (struct sum){.from = a->at, .pages = 4};
	assert_int_equal(region_look(add_up, &s), 0);
	assert_int_equal(s.sum, 1 + 2 + 3 + 4);
	assert_int_equal(region_window_extend(b, fd2, huge + 1), -ENOSPC);
	assert_int_equal(region_window_open(rg, fd2, UINT64_C(1) << 50, 0, &c), -ENOSPC);

	/* A file that has become shorter is an error of who looks, and of nobody else. */
	assert_int_equal(ftruncate(fd, PMFS_PAGE_SIZE), 0);
	assert_int_equal(region_look(add_up, &s), -EIO);
	s = (struct sum){.from = b->at, .pages = 1};
	assert_int_equal(region_look(add_up, &s), 0);
	assert_int_equal(region_error(rg), 0);

	/* Addresses are used again when they have been given back, not before. */
	assert_int_equal(region_window_open(rg, fd2, PMFS_PAGE_SIZE, 0, &c), 0);
	assert_ptr_equal(c->at, b->at + b->span);
	region_window_close(rg, c);
	region_window_close(rg, a);
	assert_int_equal(region_window_open(rg, fd2, PMFS_PAGE_SIZE, 2 * huge, &c), 0);
	assert_ptr_equal(c->at + 3 * huge, b->at);
	assert_int_equal(c->at[0], 9);
	region_window_close(rg, b);
	close(fd);
	close(fd2);
	region_close(rg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_region_windows),
		cmocka_unit_test_setup_teardown(test_region_write_then_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_region_refuses_frames_it_has_not, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_image_keeps_its_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_region_grows_no_further_than_limit, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_truncate_cuts_and_grows_again, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_open_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_region_one_writer_or_many_readers, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_names_the_process_that_holds_it, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_readonly_changes_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_table_has_an_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_region_truncated_image_is_an_error, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_truncated_frame_can_not_be_sent, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_passes_foreign_sigbus_on, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_failed_flush_poisons, setup, teardown),
		cmocka_unit_test_setup_teardown(test_region_failed_write_poisons, setup, teardown),
		cmocka_unit_test_setup_teardown(test_region_failed_growth_changes_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_file_too_big_for_the_host, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_punched_frames_are_zeros, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_block_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_region_tap_sees_all_that_succeeds, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_region_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_region_threads_fault, setup, teardown),
		cmocka_unit_test_setup_teardown(test_region_full_host, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
