/* SPDX-License-Identifier: BSD-2-Clause */
/* Views without a mount: the memory is the truth while it is there, and what is saved is what it
 * was. */
#include <errno.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "pmfs/ring.h"
#include "view/view.h"

#define MIB   (UINT64_C(1) << 20)
#define LIMIT (8 * MIB)

struct fixture {
	struct fs *fs;
	struct views *vs;
	uint64_t id; /* of a view, looked up once */
	uint64_t seed;
};

static uint64_t rnd(struct fixture *fx)
{
	fx->seed ^= fx->seed << 13;
	fx->seed ^= fx->seed >> 7;
	fx->seed ^= fx->seed << 17;
	return fx->seed;
}

static void start(struct fixture *fx, bool own_fs)
{
	const struct views_config cfg = {.fs = fx->fs, .limit_bytes = LIMIT, .own_fs = own_fs};

	assert_int_equal(views_new(&fx->vs, &cfg), 0);
	assert_int_not_equal(views_dir(fx->vs), 0);
}

static uint64_t make(struct fixture *fx, const char *name)
{
	const struct fs_cred cred = {0};
	struct fs_attr a;

	assert_int_equal(fs_mknod(fx->fs, views_dir(fx->vs), name, strlen(name), S_IFREG | 0600, 0,
				  &cred, &a),
			 0);
	return a.id;
}

static int setup(void **state)
{
	const struct fs_config cfg = {.store = {.limit_bytes = 64 * MIB}};
	struct fixture *fx = calloc(1, sizeof(*fx));
	const char *seed = getenv("PMFS_SEED");
	struct store_error err;

	assert_non_null(fx);
	fx->seed = seed ? strtoull(seed, NULL, 10) | 1 : 88172645463325252u;
	assert_int_equal(fs_open(&fx->fs, &cfg, &err), 0);
	start(fx, false);
	fx->id = make(fx, "view");
	*state = fx;
	return 0;
}

static void bad(void *arg, const char *what)
{
	(void)arg;
	print_error("%s\n", what);
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	fs_forget(fx->fs, fx->id, 1);
	views_free(fx->vs);
	assert_int_equal(fs_check(fx->fs, true, bad, NULL), 0);
	assert_int_equal(fs_close(fx->fs), 0);
	free(fx);
	return 0;
}

static void assert_file(struct fixture *fx, uint64_t id, const uint8_t *want, uint64_t size)
{
	uint8_t *got = malloc(size + 1);
	struct fs_attr a;

	assert_non_null(got);
	assert_int_equal(fs_getattr(fx->fs, id, &a), 0);
	assert_int_equal(a.size, size);
	assert_int_equal(fs_read(fx->fs, id, 0, got, size + 1), (int64_t)size);
	assert_memory_equal(got, want, size);
	free(got);
}

static void test_view_model(void **state)
{
	enum { SIZE = 600000 };
	struct fixture *fx = *state;
	uint8_t *model = calloc(1, SIZE), *buf = malloc(SIZE);
	uint64_t size = 0;
	struct view *v;

	assert_true(model && buf);
	assert_int_equal(view_get(fx->vs, fx->id, true, &v), 0);
	for (int step = 0; step < 600; step++) {
		const uint64_t off = rnd(fx) % SIZE, most = 1 + rnd(fx) % 20000;
		const uint64_t n = MIN(most, SIZE - off);
		const uint64_t end = off + n;

		switch (rnd(fx) % 6) {
		case 0:
		case 1:
			memset(buf, (int)(rnd(fx) % 3), n);
			assert_int_equal(view_write(v, off, buf, n), (int64_t)n);
			memcpy(model + off, buf, n);
			size = MAX(size, end);
			break;
		case 2:
			assert_int_equal(view_truncate(v, off), 0);
			if (off < size)
				memset(model + off, 0, size - off);
			size = off;
			break;
		case 3:
			assert_int_equal(view_fallocate(v,
							FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
							off, n),
					 0);
			if (off < size)
				memset(model + off, 0, MIN(end, size) - off);
			break;
		case 4:
			assert_int_equal(view_fallocate(v, 0, off, n), 0);
			size = MAX(size, end);
			break;
		default:
			assert_in_range(view_save(v), 0, 1);
			assert_file(fx, fx->id, model, size);
			assert_int_equal(view_save(v), 0);
			break;
		}
		assert_int_equal(view_read(v, 0, buf, SIZE), (int64_t)size);
		assert_memory_equal(buf, model, size);
		if (step % 100 == 99) {
			/* The kernel forgets it: it leaves memory saved, and comes back. */
			view_forgotten(fx->vs, fx->id);
			view_put(v);
			assert_null(view_find(fx->vs, fx->id));
			assert_file(fx, fx->id, model, size);
			assert_int_equal(view_get(fx->vs, fx->id, true, &v), 0);
		}
	}
	view_put(v);
	free(model);
	free(buf);
}

/* W3: what nobody could write to is not looked at, and what did not change is not written. */
static void test_view_saves_only_what_changed(void **state)
{
	struct fixture *fx = *state;
	uint8_t *buf = malloc(MIB);
	struct views_stats before, after;
	struct view *v;

	assert_non_null(buf);
	for (uint64_t i = 0; i < MIB; i++)
		buf[i] = (uint8_t)(i / 4096 + 1);
	assert_int_equal(fs_write(fx->fs, fx->id, 0, buf, MIB, 0), (int64_t)MIB);
	assert_int_equal(view_get(fx->vs, fx->id, false, &v), 0);
	assert_int_equal(views_save(fx->vs), 0);
	views_stat(fx->vs, &before);
	assert_int_equal(before.loaded, 1);
	assert_int_equal(before.used_bytes, MIB);
	assert_int_equal(view_write(v, 5000, "x", 1), 1);
	assert_int_equal(view_write(v, 900000, "y", 1), 1);
	assert_int_equal(views_save(fx->vs), 1);
	views_stat(fx->vs, &after);
	assert_int_equal(after.saved_pages - before.saved_pages, 2);
	view_put(v);
	free(buf);
}

static void test_view_limit(void **state)
{
	struct fixture *fx = *state;
	uint8_t *buf = calloc(1, MIB);
	const uint64_t second = make(fx, "second");
	struct view *v, *w;

	assert_non_null(buf);
	memset(buf, 1, MIB);
	assert_int_equal(view_get(fx->vs, fx->id, true, &v), 0);
	assert_int_equal(view_get(fx->vs, second, true, &w), 0);
	assert_int_equal(view_truncate(v, 100 * MIB), 0);
	for (uint64_t i = 0; i < 5; i++)
		assert_int_equal(view_write(v, i * MIB, buf, MIB), (int64_t)MIB);
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(view_write(w, i * MIB, buf, MIB), (int64_t)MIB);
	assert_int_equal(view_write(w, 3 * MIB, buf, 4096), -ENOSPC);
	assert_int_equal(view_fallocate(w, 0, 0, 4 * MIB), -ENOSPC);
	/* What has its memory can be written. */
	assert_int_equal(view_write(w, 0, buf, MIB), (int64_t)MIB);
	assert_int_equal(view_fallocate(v, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MIB), 0);
	assert_int_equal(view_write(w, 3 * MIB, buf, MIB), (int64_t)MIB);
	assert_int_equal(view_write(w, 4 * MIB, buf, 1), -ENOSPC);
	assert_int_equal(view_truncate(v, 0), 0);
	assert_int_equal(view_write(w, 4 * MIB, buf, 1), 1);
	view_put(v);
	view_put(w);
	view_forgotten(fx->vs, second);
	fs_forget(fx->fs, second, 1);
	free(buf);
}

/* What is mapped into the region grows with the view; without addresses it is saved, too. */
static void test_view_windows(void **state)
{
	struct fixture *fx = *state;
	const uint64_t at[] = {0, 70 * MIB, 200 * MIB, UINT64_C(3) << 40, UINT64_C(3) << 41};
	uint8_t page[4096], got[4096];
	struct view *v;

	assert_int_equal(view_get(fx->vs, fx->id, true, &v), 0);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		memset(page, 'a' + (int)i, sizeof(page));
		assert_int_equal(view_write(v, at[i], page, sizeof(page)), sizeof(page));
		assert_int_equal(view_save(v), 1);
		for (size_t k = 0; k <= i; k++) {
			memset(page, 'a' + (int)k, sizeof(page));
			assert_int_equal(fs_read(fx->fs, fx->id, at[k], got, 4096), 4096);
			assert_memory_equal(got, page, 4096);
		}
	}
	assert_int_equal(view_save(v), 0);
	assert_int_equal(view_truncate(v, 10), 0);
	assert_int_equal(view_save(v), 1);
	view_put(v);
}

/* Huge pages are made of memory that is there, and change neither bytes nor how much there is. */
static void test_view_huge(void **state)
{
	const uint64_t size = 4 * MIB;
	struct fixture *fx = *state;
	uint8_t *buf = malloc(size), *map;
	struct fs_attr before, after;
	struct view *v;

	assert_non_null(buf);
	for (uint64_t i = 0; i < size; i++)
		buf[i] = (uint8_t)rnd(fx);
	assert_int_equal(view_get(fx->vs, fx->id, true, &v), 0);
	/* A complete 2 MiB, and one with a hole. */
	assert_int_equal(view_truncate(v, size), 0);
	assert_int_equal(view_write(v, 0, buf, size - 8192), (int64_t)size - 8192);
	assert_int_equal(view_write(v, size - 4096, buf + size - 4096, 4096), 4096);
	memset(buf + size - 8192, 0, 4096);
	assert_int_equal(view_attr(v, &before), 0);
	views_make_huge(fx->vs);
	views_make_huge(fx->vs);
	assert_int_equal(view_attr(v, &after), 0);
	assert_int_equal(after.blocks, before.blocks);
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, view_fd(v), 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_memory_equal(map, buf, size - 8192);
	assert_int_equal(view_save(v), 1);
	assert_file(fx, fx->id, buf, size);
	/* A part of one can go. */
	assert_int_equal(view_fallocate(v, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096),
			 0);
	memset(buf + 4096, 0, 4096);
	assert_int_equal(view_attr(v, &after), 0);
	assert_int_equal(after.blocks + 8, before.blocks);
	assert_int_equal(view_truncate(v, 12288), 0);
	assert_int_equal(view_attr(v, &after), 0);
	assert_int_equal(after.blocks, 16);
	assert_int_equal(view_save(v), 1);
	assert_file(fx, fx->id, buf, 12288);
	assert_int_equal(munmap(map, size), 0);
	view_put(v);
	free(buf);
}

/* W1: the number of a removed view is not another's as long as its memory is there. */
static void test_view_unlinked(void **state)
{
	struct fixture *fx = *state;
	const uint64_t gone = make(fx, "gone");
	char buf[4];
	struct view *v;

	assert_int_equal(view_get(fx->vs, gone, true, &v), 0);
	assert_int_equal(view_write(v, 0, "abc", 3), 3);
	assert_int_equal(fs_unlink(fx->fs, views_dir(fx->vs), "gone", 4), 0);
	fs_forget(fx->fs, gone, 1);
	view_forgotten(fx->vs, gone);
	for (int i = 0; i < 10; i++) {
		char name[16];
		uint64_t id;

		snprintf(name, sizeof(name), "n%d", i);
		id = make(fx, name);
		assert_int_not_equal(id, gone);
		fs_forget(fx->fs, id, 1);
	}
	assert_int_equal(view_read(v, 0, buf, 4), 3);
	assert_memory_equal(buf, "abc", 3);
	view_put(v);
	assert_null(view_find(fx->vs, gone));
}

/* A ring that moves while it is saved: the copy has the messages that were there at both ends of
 * the copying. */
static void test_view_ring_is_copied_by_its_protocol(void **state)
{
	const uint64_t data = 64 * 1024, total = data + PMFS_RING_HEADER_BYTES;
	struct pmfs_ring_header h = {.magic = PMFS_RING_MAGIC,
				     .version = PMFS_RING_VERSION,
				     .size = data,
				     .data_offset = PMFS_RING_HEADER_BYTES,
				     .head = 24,
				     .tail = 0};
	const uint64_t record = PMFS_RING_RECORD(9, PMFS_RING_DONE, 1, 1);
	struct fixture *fx = *state;
	struct pmfs_ring_header got;
	struct view *v;

	h.slots[0].state = PMFS_RING_LIVE | UINT64_C(7) << 32;
	h.data_wait = 1;
	h.claim_lock = 99;
	assert_int_equal(view_get(fx->vs, fx->id, true, &v), 0);
	assert_int_equal(view_fallocate(v, 0, 0, total), 0);
	assert_int_equal(view_write(v, 0, &h, sizeof(h)), (int64_t)sizeof(h));
	assert_int_equal(view_write(v, PMFS_RING_HEADER_BYTES, &record, sizeof(record)), 8);
	assert_int_equal(view_save(v), 1);
	assert_int_equal(fs_read(fx->fs, fx->id, 0, &got, sizeof(got)), (int64_t)sizeof(got));
	assert_int_equal(got.head, 24);
	assert_int_equal(got.tail, 0);
	assert_int_equal(got.claim_lock, 0);
	assert_int_equal(got.data_wait, 0);
	assert_int_equal(got.slots[0].state, UINT64_C(7) << 32);
	/* A record that is not there yet is not in the copy; positions that are nonsense do no
	 * harm. */
	h.head = 48;
	assert_int_equal(view_write(v, 0, &h, sizeof(h)), (int64_t)sizeof(h));
	assert_int_equal(view_save(v), 1);
	assert_int_equal(fs_read(fx->fs, fx->id, 0, &got, sizeof(got)), (int64_t)sizeof(got));
	assert_int_equal(got.head, 24);
	h.size = UINT64_MAX - 4095;
	assert_int_equal(view_write(v, 0, &h, sizeof(h)), (int64_t)sizeof(h));
	assert_in_range(view_save(v), 0, 1);
	view_put(v);
}

/* The image is full: what can't be saved stays in memory, and is saved when there is room. */
static void test_view_full_image(void **state)
{
	struct fixture *fx = *state;
	const struct fs_cred cred = {0};
	uint8_t *buf = malloc(MIB);
	struct fs_attr a;
	struct view *v;
	ssize_t n;

	assert_non_null(buf);
	for (uint64_t i = 0; i < MIB; i++)
		buf[i] = (uint8_t)rnd(fx);
	assert_int_equal(fs_mknod(fx->fs, fs_root(fx->fs), "fill", 4, S_IFREG | 0600, 0, &cred, &a),
			 0);
	for (uint64_t off = 0; (n = fs_write(fx->fs, a.id, off, buf, MIB, 0)) > 0;
	     off += (uint64_t)n)
		;
	assert_int_equal(n, -ENOSPC);
	assert_int_equal(view_get(fx->vs, fx->id, true, &v), 0);
	assert_int_equal(view_write(v, 0, buf, MIB), (int64_t)MIB);
	assert_int_equal(view_save(v), -ENOSPC);
	view_forgotten(fx->vs, fx->id);
	view_put(v);
	v = view_find(fx->vs, fx->id);
	assert_non_null(v);
	assert_int_equal(fs_unlink(fx->fs, fs_root(fx->fs), "fill", 4), 0);
	fs_forget(fx->fs, a.id, 1);
	assert_int_equal(fs_sync(fx->fs), 0);
	view_put(v);
	assert_null(view_find(fx->vs, fx->id));
	assert_file(fx, fx->id, buf, MIB);
	free(buf);
}

static void test_view_in_a_snapshot(void **state)
{
	struct fixture *fx = *state;
	struct fs_snapshot snap;
	struct fs_attr a, b;
	struct view *v;
	char buf[8];

	assert_int_equal(view_get(fx->vs, fx->id, true, &v), 0);
	assert_int_equal(view_write(v, 0, "before", 6), 6);
	assert_int_equal(views_save(fx->vs), 1);
	assert_int_equal(fs_snap_create(fx->fs, "s", NULL, &snap), 0);
	assert_int_equal(view_write(v, 0, "after!", 6), 6);
	assert_int_equal(views_save(fx->vs), 1);
	assert_true(fs_is_snapshot_root(fx->fs, snap.root));
	assert_int_equal(fs_lookup(fx->fs, fs_hidden(fx->fs, snap.root), "views", 5, &a), 0);
	assert_int_equal(fs_lookup(fx->fs, a.id, "view", 4, &b), 0);
	assert_int_equal(fs_read(fx->fs, b.id, 0, buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "before", 6);
	fs_forget(fx->fs, b.id, 1);
	fs_forget(fx->fs, a.id, 1);
	view_put(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_view_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_view_saves_only_what_changed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_view_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_view_windows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_view_huge, setup, teardown),
		cmocka_unit_test_setup_teardown(test_view_unlinked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_view_ring_is_copied_by_its_protocol, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_view_full_image, setup, teardown),
		cmocka_unit_test_setup_teardown(test_view_in_a_snapshot, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
