/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory that is mapped twice, or copy-on-write: pmfs_ring_map, pmfs_alias, pmfs_map_private. */
#include <errno.h>

#include "lib/ringfix.h"

static int make_file(const char *path, size_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void test_ring_map_is_one_memory_twice(void **state)
{
	struct ringfix *f = *state;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE), size = 3 * page;
	int fd = make_file(f->path, 4 * page);
	void *base;
	uint8_t *at, byte;

	assert_int_equal(pmfs_ring_map(fd, page, size, PMFS_MAP_WRITE, &base), 0);
	at = base;
	for (size_t i = 0; i < size; i++) {
		at[i] = (uint8_t)(i * 5 + 1);
		assert_int_equal(at[i + size], at[i]);
		at[i + size]++;
		assert_int_equal(at[i], (uint8_t)(i * 5 + 2));
	}
	/* And it is the file, from offset on. */
	assert_int_equal(pread(fd, &byte, 1, (off_t)page), 1);
	assert_int_equal(byte, 2);
	assert_int_equal(pread(fd, &byte, 1, 0), 1);
	assert_int_equal(byte, 0);
	/* One piece over the end. */
	memset(at + size - 4, 'x', 8);
	assert_memory_equal(at, "xxxx", 4);
	assert_int_equal(pmfs_ring_unmap(base, size), 0);
	close(fd);
}

static void test_ring_map_huge_is_no_promise(void **state)
{
	struct ringfix *f = *state;
	const size_t size = (size_t)4 << 20, offset = (size_t)sysconf(_SC_PAGESIZE);
	int fd = make_file(f->path, offset + size);
	void *base;
	uint8_t *at;

	assert_int_equal(pmfs_ring_map(fd, offset, size, PMFS_MAP_WRITE | PMFS_MAP_HUGE, &base), 0);
	/* Where it could have huge pages. */
	assert_int_equal((uintptr_t)base % ((size_t)2 << 20), offset);
	at = base;
	at[size - 1] = 7;
	at[size] = 8;
	assert_int_equal(at[2 * size - 1], 7);
	assert_int_equal(at[0], 8);
	assert_int_equal(pmfs_ring_unmap(base, size), 0);
	close(fd);
}

static void test_ring_map_refuses(void **state)
{
	struct ringfix *f = *state;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd = make_file(f->path, 2 * page), ro;
	void *base = NULL;

	assert_int_equal(pmfs_ring_map(fd, 0, 0, 0, &base), -EINVAL);
	assert_int_equal(pmfs_ring_map(fd, 0, page + 1, 0, &base), -EINVAL);
	assert_int_equal(pmfs_ring_map(fd, 1, page, 0, &base), -EINVAL);
	assert_int_equal(pmfs_ring_map(fd, 0, SIZE_MAX - page + 1, 0, &base), -EINVAL);
	assert_int_equal(pmfs_ring_map(fd, (uint64_t)0 - page, page, 0, &base), -EINVAL);
	assert_int_equal(pmfs_ring_map(fd, 0, page, 0x80000000u, &base), -EINVAL);
	assert_int_equal(pmfs_ring_map(-1, 0, page, 0, &base), -EBADF);
	ro = open(f->path, O_RDONLY);
	assert_int_equal(pmfs_ring_map(ro, 0, page, PMFS_MAP_WRITE, &base), -EACCES);
	assert_null(base);
	assert_int_equal(pmfs_ring_unmap(NULL, page), -EINVAL);
	close(ro);
	close(fd);
}

static void test_alias_sees_each_store_and_takes_none(void **state)
{
	struct ringfix *f = *state;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	volatile const uint32_t *see;
	volatile uint32_t *put;
	struct pmfs_alias *a;
	struct stat st;

	assert_int_equal(pmfs_alias_open(f->path, 2 * page, 0, &a), -ENOENT);
	assert_int_equal(pmfs_alias_open(f->path, 0, PMFS_MAP_CREATE, &a), -ENODATA);
	assert_int_equal(pmfs_alias_open(f->path, 2 * page, PMFS_MAP_CREATE, &a), 0);
	assert_int_equal(pmfs_alias_size(a), 2 * page);
	put = pmfs_alias_writable(a);
	see = pmfs_alias_readable(a);
	assert_true((uintptr_t)see != (uintptr_t)put);
	for (uint32_t i = 0; i < 10000000; i++) {
		put[i % 1024] = i;
		if (see[i % 1024] != i)
			fail_msg("store %u is not there", i);
	}
	assert_int_equal(mprotect((void *)(uintptr_t)see, page, PROT_READ | PROT_WRITE), -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(pmfs_alias_sync(a), 0);
	pmfs_alias_close(a);
	assert_int_equal(pmfs_alias_open(f->path, 0, 0, &a), 0);
	assert_int_equal(pmfs_alias_size(a), 2 * page);
	pmfs_alias_close(a);
	/* Smaller than the file: it stays as long. */
	assert_int_equal(pmfs_alias_open(f->path, page, 0, &a), 0);
	assert_int_equal(pmfs_alias_size(a), page);
	pmfs_alias_close(a);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_size, 2 * page);
}

static void test_private_keeps_stores_to_itself(void **state)
{
	struct ringfix *f = *state;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd = make_file(f->path, 3 * page);
	void *at = NULL;
	size_t mapped;
	char byte;

	assert_int_equal(pwrite(fd, "a", 1, (off_t)page), 1);
	/* It is no snapshot's, and pages that we leave alone show that. */
	assert_int_equal(pmfs_map_private(f->path, 0, 0, 0, &at, &mapped), -ESTALE);
	assert_null(at);
	assert_int_equal(pmfs_map_private(f->path, page, 0, PMFS_MAP_LIVE, &at, &mapped), 0);
	assert_int_equal(mapped, 2 * page);
	assert_int_equal(*(char *)at, 'a');
	*(char *)at = 'b';
	assert_int_equal(pread(fd, &byte, 1, (off_t)page), 1);
	assert_int_equal(byte, 'a');
	assert_int_equal(pwrite(fd, "c", 1, (off_t)page), 1);
	assert_int_equal(*(volatile char *)at, 'b');
	assert_int_equal(pmfs_unmap_private(at, mapped), 0);

	assert_int_equal(pmfs_map_private(f->path, 1, 0, PMFS_MAP_LIVE, &at, &mapped), -EINVAL);
	assert_int_equal(pmfs_map_private(f->path, 3 * page, 0, PMFS_MAP_LIVE, &at, &mapped),
			 -EINVAL);
	assert_int_equal(pmfs_map_private(f->path, 0, 3 * page + 1, PMFS_MAP_LIVE, &at, &mapped),
			 -EINVAL);
	assert_int_equal(pmfs_map_private(f->dir, 0, 0, PMFS_MAP_LIVE, &at, &mapped), -EINVAL);
	close(fd);
}

static void test_control_outside_a_mount(void **state)
{
	struct ringfix *f = *state;
	struct pmfs_snapshot_list *list = NULL;
	char *reply;

	assert_int_equal(pmfs_snapshot_create(f->dir, "x", NULL), -ENODEV);
	assert_int_equal(pmfs_snapshot_create(f->dir, NULL, NULL), -EINVAL);
	assert_int_equal(pmfs_snapshot_create(NULL, "x", NULL), -EINVAL);
	assert_int_equal(pmfs_snapshot_delete(f->dir, "x"), -ENODEV);
	assert_int_equal(pmfs_snapshot_delete(f->dir, "@-1"), -EINVAL);
	assert_int_equal(pmfs_snapshot_list(f->dir, &list), -ENODEV);
	assert_null(list);
	assert_int_equal(pmfs_control(f->dir, "ping", "[1]", &reply), -EINVAL);
	assert_int_equal(pmfs_control(f->dir, "ping", "{", &reply), -EINVAL);
	assert_int_equal(pmfs_control(f->dir, "ping", NULL, &reply), -ENODEV);
	assert_non_null(strstr(reply, "not inside a pmfs mount"));
	free(reply);
	assert_string_not_equal(pmfs_version(), "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ringfix_setup, ringfix_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ring_map_is_one_memory_twice),
		TEST(test_ring_map_huge_is_no_promise),
		TEST(test_ring_map_refuses),
		TEST(test_alias_sees_each_store_and_takes_none),
		TEST(test_private_keeps_stores_to_itself),
		TEST(test_control_outside_a_mount),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
