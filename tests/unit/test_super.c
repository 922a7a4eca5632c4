/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fault.h"
#include "base/hash.h"
#include "store/super.h"

#define SLOT_BYTES ((size_t)PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE)
#define FRAMES 2000u

static char dir[128], image[160];
static struct pmfs_delta deltas[PMFS_DELTA_MAX];

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof(dir), "%.80s/pmfs-super-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	snprintf(image, sizeof(image), "%s/image", dir);
	fault_reset();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fault_reset();
	unlink(image);
	return rmdir(dir);
}

/* An image of FRAMES frames without a slot. */
static struct region *new_region(void)
{
	struct region *rg;

	assert_int_equal(region_open_image(&rg, image, FRAMES, REGION_CREATE, NULL), 0);
	assert_int_equal(region_grow(rg, FRAMES), 0);
	return rg;
}

static struct super some_super(uint64_t generation)
{
	struct super sb = {
		.feat_compat = 0x80,
		.generation = generation,
		.frames = FRAMES - 10,
		.limit_frames = 1 << 20,
		.vpn_limit = 10000,
		.map_root = 777,
		.map_checksum = 0x1234567812345678,
		.map_height = 2,
		.created_ns = 1700000000123456789,
		.label = "a label",
	};

	memset(sb.uuid, 0xab, sizeof(sb.uuid));
	le64_put(&sb.tree.table, 5);
	le32_put(&sb.tree.height, 1);
	le32_put(&sb.tree.rows, 4);
	le64_put(&sb.tree.next_volume, 3);
	le64_put(&sb.tree.live, 1);
	return sb;
}

static void make_deltas(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		bool fresh = i % 3 == 0;

		le64_put(&deltas[i].vpn, (i + 1) | (fresh ? PMFS_DELTA_NEW : 0));
		le64_put(&deltas[i].entry.where, (64 + i % 1000) | (UINT64_C(1) + i % 5)
									   << PMFS_MAP_PFN_BITS);
		le64_put(&deltas[i].entry.hash, i * 77);
	}
}

static void assert_same_super(const struct super *a, const struct super *b)
{
	assert_int_equal(a->feat_compat, b->feat_compat);
	assert_int_equal(a->generation, b->generation);
	assert_int_equal(a->frames, b->frames);
	assert_int_equal(a->limit_frames, b->limit_frames);
	assert_int_equal(a->vpn_limit, b->vpn_limit);
	assert_int_equal(a->map_root, b->map_root);
	assert_int_equal(a->map_checksum, b->map_checksum);
	assert_int_equal(a->map_height, b->map_height);
	assert_int_equal(a->created_ns, b->created_ns);
	assert_memory_equal(a->uuid, b->uuid, sizeof(a->uuid));
	assert_string_equal(a->label, b->label);
	assert_memory_equal(&a->tree, &b->tree, sizeof(a->tree));
}

/* ------------------------------------------------------------------ writing and reading */

static void test_super_is_read_as_it_was_written(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 159, 160, 161, PMFS_DELTA_MAX };
	struct region *rg = new_region();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct super sb = some_super(10 + i);
		struct super_slots got;

		make_deltas(sizes[i]);
		assert_int_equal(super_write(rg, &sb, deltas, sizes[i]), 0);
		assert_int_equal(super_load(rg, &got, NULL), 0);
		assert_int_equal(got.count, i ? 2 : 1);
		assert_same_super(&got.slot[0].super, &sb);
		assert_int_equal(got.slot[0].delta_count, sizes[i]);
		if (sizes[i])
			assert_memory_equal(got.slot[0].deltas, deltas,
					    sizes[i] * sizeof(deltas[0]));
		else
			assert_null(got.slot[0].deltas);
		if (i) {
			assert_int_equal(got.slot[1].super.generation, 10 + i - 1);
			assert_string_equal(got.damage, "");
		} else {
			assert_string_equal(got.damage, "no pmfs image");
		}
		super_slots_free(&got);
	}
	region_close(rg);
}

/* U1 */
static void test_super_writes_its_own_slot_only(void **state)
{
	struct region *rg = new_region();
	struct super sb = some_super(6);
	uint64_t before, after;

	(void)state;
	make_deltas(PMFS_DELTA_MAX);
	assert_int_equal(super_write(rg, &sb, deltas, PMFS_DELTA_MAX), 0);
	before = hash64(region_at(rg, 0), SLOT_BYTES);
	sb.generation = 7;
	assert_int_equal(super_write(rg, &sb, deltas, PMFS_DELTA_MAX), 0);
	after = hash64(region_at(rg, 0), SLOT_BYTES);
	assert_int_equal(before, after);
	assert_true(mem_is_zero(region_at(rg, PMFS_FIRST_FRAME),
				(FRAMES - PMFS_FIRST_FRAME) * PMFS_PAGE_SIZE));
	region_close(rg);
}

static void flip(struct region *rg, pfn_t pfn, size_t off)
{
	uint8_t byte = ((const uint8_t *)region_at(rg, pfn))[off] ^ 0x41;

	assert_int_equal(region_write(rg, pfn, off, &byte, 1), 0);
}

/* U2: a byte of a slot that is not what was written costs this slot and not the other. */
static void test_super_damaged_slot_falls_back(void **state)
{
	struct region *rg = new_region();
	const uint32_t n = 200;
	struct super sb = some_super(20);
	struct super_slots got;
	struct store_error err;

	(void)state;
	make_deltas(n);
	assert_int_equal(super_write(rg, &sb, deltas, n), 0);
	sb.generation = 21;
	assert_int_equal(super_write(rg, &sb, deltas, n), 0);
	for (size_t at = 0; at < sizeof(struct pmfs_super) + n * sizeof(struct pmfs_delta); at++) {
		flip(rg, PMFS_SLOT_FRAMES, at);
		assert_int_equal(super_load(rg, &got, NULL), 0);
		assert_int_equal(got.count, 1);
		assert_int_equal(got.slot[0].super.generation, 20);
		assert_string_not_equal(got.damage, "");
		super_slots_free(&got);
		flip(rg, PMFS_SLOT_FRAMES, at);
	}
	/* Behind the last delta nothing is looked at. */
	flip(rg, PMFS_SLOT_FRAMES, sizeof(struct pmfs_super) + n * sizeof(struct pmfs_delta));
	assert_int_equal(super_load(rg, &got, NULL), 0);
	assert_int_equal(got.slot[0].super.generation, 21);
	super_slots_free(&got);

	flip(rg, PMFS_SLOT_FRAMES, 100);
	flip(rg, 0, sizeof(struct pmfs_super) + 30);
	assert_int_equal(super_load(rg, &got, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "checksum"));
	region_close(rg);
}

/* A write that was cut off after any sector. */
static void test_super_torn_slot_falls_back(void **state)
{
	struct region *rg = new_region();
	static uint8_t old[SLOT_BYTES], now[SLOT_BYTES], torn[SLOT_BYTES];
	struct super sb = some_super(31);
	struct super_slots got;
	const uint32_t n = 400;
	size_t len = sizeof(struct pmfs_super) + n * sizeof(struct pmfs_delta);

	(void)state;
	make_deltas(n);
	sb.generation = 29;
	assert_int_equal(super_write(rg, &sb, deltas, n), 0);
	assert_int_equal(region_copy_out(rg, PMFS_SLOT_FRAMES, 0, old, sizeof(old)), 0);
	sb.generation = 30;
	assert_int_equal(super_write(rg, &sb, deltas, n), 0);
	for (uint32_t i = 0; i < n; i++)
		le64_put(&deltas[i].entry.hash, i);
	sb.generation = 31;
	assert_int_equal(super_write(rg, &sb, deltas, n), 0);
	assert_int_equal(region_copy_out(rg, PMFS_SLOT_FRAMES, 0, now, sizeof(now)), 0);
	for (size_t cut = 512; cut < len; cut += 512) {
		memcpy(torn, now, sizeof(torn));
		memcpy(torn + cut, old + cut, sizeof(torn) - cut);
		assert_int_equal(region_write(rg, PMFS_SLOT_FRAMES, 0, torn, sizeof(torn)), 0);
		assert_int_equal(super_load(rg, &got, NULL), 0);
		assert_int_equal(got.count, 1);
		assert_int_equal(got.slot[0].super.generation, 30);
		super_slots_free(&got);
		/* The other end first. */
		memcpy(torn, old, sizeof(torn));
		memcpy(torn + cut, now + cut, sizeof(torn) - cut);
		assert_int_equal(region_write(rg, PMFS_SLOT_FRAMES, 0, torn, sizeof(torn)), 0);
		assert_int_equal(super_load(rg, &got, NULL), 0);
		assert_int_equal(got.count, 1);
		super_slots_free(&got);
	}
	region_close(rg);
}

/* U1: a slot that was copied over the other. */
static void test_super_in_the_wrong_slot(void **state)
{
	struct region *rg = new_region();
	struct super sb = some_super(36);
	struct super_slots got;
	struct store_error err;

	(void)state;
	assert_int_equal(super_write(rg, &sb, NULL, 0), 0);
	for (pfn_t pfn = 0; pfn < PMFS_SLOT_FRAMES; pfn++)
		assert_int_equal(region_copy_frame(rg, pfn, PMFS_SLOT_FRAMES + pfn), 0);
	assert_int_equal(super_load(rg, &got, &err), 0);
	assert_int_equal(got.count, 1);
	super_slots_free(&got);
	assert_int_equal(region_zero(rg, 0), 0);
	assert_int_equal(super_load(rg, &got, &err), -EUCLEAN);
	assert_non_null(strstr(err.text, "wrong slot"));
	region_close(rg);
}

static void test_super_slots_of_two_images(void **state)
{
	struct region *rg = new_region();
	struct super sb = some_super(40);
	struct super_slots got;

	(void)state;
	assert_int_equal(super_write(rg, &sb, NULL, 0), 0);
	sb.generation = 41;
	sb.uuid[3] ^= 1;
	assert_int_equal(super_write(rg, &sb, NULL, 0), 0);
	assert_int_equal(super_load(rg, &got, NULL), 0);
	assert_int_equal(got.count, 1);
	assert_int_equal(got.slot[0].super.generation, 41);
	super_slots_free(&got);
	region_close(rg);
}

/* ------------------------------------------------------------------ what is refused */

static void test_super_no_image(void **state)
{
	struct region *rg = new_region();
	struct super_slots got;
	struct store_error err = { 0 };

	(void)state;
	assert_int_equal(super_load(rg, &got, &err), -EMEDIUMTYPE);
	assert_string_equal(err.text, "no pmfs image");
	region_close(rg);
	assert_int_equal(truncate(image, 0), 0);
	assert_int_equal(region_open_image(&rg, image, FRAMES, 0, NULL), 0);
	assert_int_equal(super_load(rg, &got, &err), -EMEDIUMTYPE);
	region_close(rg);
}

static void test_super_image_cut_off(void **state)
{
	struct region *rg = new_region();
	struct super sb = some_super(50);
	struct super_slots got;
	struct store_error err = { 0 };
	static const uint32_t frames[] = { FRAMES - 11, 100, 33, 1 };

	(void)state;
	assert_int_equal(super_write(rg, &sb, NULL, 0), 0);
	sb.generation = 51;
	assert_int_equal(super_write(rg, &sb, NULL, 0), 0);
	region_close(rg);
	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		assert_int_equal(truncate(image, frames[i] * PMFS_PAGE_SIZE), 0);
		assert_int_equal(region_open_image(&rg, image, FRAMES, REGION_READONLY, NULL), 0);
		assert_int_equal(super_load(rg, &got, &err), -EIO);
		assert_non_null(strstr(err.text, "cut off"));
		region_close(rg);
	}
}

/* Put an encoded header with one thing changed into both slots, with a checksum that fits. */
static int load_changed(struct region *rg, size_t off, uint64_t value, size_t len,
			struct store_error *err)
{
	struct super_slots got;
	int rc;

	for (unsigned int slot = 0; slot < 2; slot++) {
		struct super sb = some_super(60 + slot);
		uint8_t page[PMFS_PAGE_SIZE];
		struct pmfs_super *raw = (struct pmfs_super *)(void *)page;
		le64 raw_value = le64_make(value);
		size_t used;

		make_deltas(3);
		assert_int_equal(super_encode(&sb, deltas, 3, page, &used), 0);
		assert_int_equal(used, sizeof(struct pmfs_super) + 3 * sizeof(struct pmfs_delta));
		memcpy(page + off, &raw_value, len);
		if (off >= sizeof(struct pmfs_super))
			le64_put(&raw->delta_checksum,
				 hash64(page + sizeof(*raw), 3 * sizeof(struct pmfs_delta)));
		le64_put(&raw->checksum, hash64(raw, offsetof(struct pmfs_super, checksum)));
		assert_int_equal(region_write(rg, slot * PMFS_SLOT_FRAMES, 0, page, used), 0);
	}
	memset(err, 0, sizeof(*err));
	rc = super_load(rg, &got, err);
	if (!rc)
		super_slots_free(&got);
	else
		assert_true(strlen(err->text) > 10);
	return rc;
}

#define CHANGED(field, value)                                         \
	load_changed(rg, offsetof(struct pmfs_super, field), (value), \
		     sizeof(((struct pmfs_super *)NULL)->field), &err)
#define DELTA(n, field, value)                                                     \
	load_changed(rg,                                                           \
		     sizeof(struct pmfs_super) + (n) * sizeof(struct pmfs_delta) + \
			     offsetof(struct pmfs_delta, field),                   \
		     (value), 8, &err)

static void test_super_newer_format(void **state)
{
	struct region *rg = new_region();
	struct super sb = some_super(70);
	struct super_slots got;
	struct store_error err;

	(void)state;
	assert_int_equal(CHANGED(version, 2), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "version 2"));
	/* One slot is enough: whoever wrote it knows something that we do not. */
	assert_int_equal(super_write(rg, &sb, NULL, 0), 0);
	assert_int_equal(super_load(rg, &got, &err), -EOPNOTSUPP);
	assert_int_equal(CHANGED(feat_incompat, 8), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "0x8"));
	assert_int_equal(CHANGED(feat_compat, 0xffff), 0);
	region_close(rg);
}

static void test_super_contradictions(void **state)
{
	const uint64_t one = UINT64_C(1) << PMFS_MAP_PFN_BITS;
	struct region *rg = new_region();
	struct store_error err;

	(void)state;
	assert_int_equal(CHANGED(created_ns, 7), 0);
	assert_int_equal(CHANGED(version, 0), -EUCLEAN);
	assert_int_equal(CHANGED(slot_frames, 16), -EUCLEAN);
	assert_int_equal(CHANGED(generation, 0), -EUCLEAN);
	assert_int_equal(CHANGED(frames, 63), -EUCLEAN);
	assert_int_equal(CHANGED(frames, (1 << 20) + 1), -EUCLEAN);
	assert_int_equal(CHANGED(frames, FRAMES + 1), -EIO);
	assert_int_equal(CHANGED(limit_frames, 1023), -EUCLEAN);
	assert_int_equal(CHANGED(limit_frames, PMFS_MAX_FRAMES + 1), -EUCLEAN);
	assert_int_equal(CHANGED(limit_frames, PMFS_MAX_FRAMES), 0);
	assert_int_equal(CHANGED(vpn_limit, 0), -EUCLEAN);
	assert_int_equal(CHANGED(vpn_limit, SUPER_MAX_VPN + 1), -EUCLEAN);
	assert_int_equal(CHANGED(vpn_limit, 3), -EUCLEAN);
	assert_int_equal(CHANGED(map_root, 63), -EUCLEAN);
	assert_int_equal(CHANGED(map_root, FRAMES - 10), -EUCLEAN);
	assert_int_equal(CHANGED(map_root, 0), -EUCLEAN);
	assert_int_equal(CHANGED(map_height, 0), -EUCLEAN);
	assert_int_equal(CHANGED(map_height, SUPER_MAX_HEIGHT + 1), -EUCLEAN);
	assert_int_equal(CHANGED(delta_count, PMFS_DELTA_MAX + 1), -EUCLEAN);
	assert_int_equal(CHANGED(delta_count, 2), -EBADMSG);
	assert_int_equal(CHANGED(tree.table, 10000), -EUCLEAN);
	assert_int_equal(CHANGED(tree.height, PMFS_PTAB_MAX_HEIGHT + 1), -EUCLEAN);

	assert_int_equal(DELTA(1, vpn, 2), 0);
	assert_int_equal(DELTA(1, vpn, 1), -EUCLEAN);
	assert_int_equal(DELTA(0, vpn, 0), -EUCLEAN);
	assert_int_equal(DELTA(2, vpn, 10000), -EUCLEAN);
	assert_int_equal(DELTA(2, vpn, 9999 | PMFS_DELTA_NEW), 0);
	assert_int_equal(DELTA(2, entry.where, 64 | one), 0);
	assert_int_equal(DELTA(2, entry.where, 63 | one), -EUCLEAN);
	assert_int_equal(DELTA(2, entry.where, (FRAMES - 10) | one), -EUCLEAN);
	/* A frame without a page, a hash without a frame. */
	assert_int_equal(DELTA(2, entry.where, 64), -EUCLEAN);
	assert_int_equal(DELTA(2, entry.where, one), -EUCLEAN);
	region_close(rg);
}

/* What would not be read again is not written. */
static void test_super_writes_no_nonsense(void **state)
{
	struct region *rg = new_region();
	struct super sb = some_super(1);

	(void)state;
	make_deltas(2);
	deltas[1].vpn = deltas[0].vpn;
	assert_int_equal(super_write(rg, &sb, deltas, 2), -EUCLEAN);
	assert_int_equal(super_write(rg, &sb, deltas, PMFS_DELTA_MAX + 1), -EUCLEAN);
	sb.map_root = sb.frames;
	assert_int_equal(super_write(rg, &sb, NULL, 0), -EUCLEAN);
	assert_true(mem_is_zero(region_at(rg, 0), 2 * SLOT_BYTES));
	assert_int_equal(region_error(rg), 0);
	region_close(rg);
}

/* ------------------------------------------------------------------ making an image */

static const struct store_format small = { .limit_bytes = 64 << 20, .label = "test" };

static void write_file(const char *text)
{
	int fd = open(image, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static off_t file_size(void)
{
	struct stat st;

	assert_int_equal(stat(image, &st), 0);
	return st.st_size;
}

static void test_format_makes_an_empty_image(void **state)
{
	struct store_error err;
	struct super_slots got;
	struct region *rg;

	(void)state;
	assert_int_equal(store_format(image, &small, &err), 0);
	assert_int_equal(file_size(), 2 * SLOT_BYTES);
	assert_int_equal(region_open_image(&rg, image, FRAMES, REGION_READONLY, NULL), 0);
	assert_int_equal(super_load(rg, &got, &err), 0);
	assert_int_equal(got.count, 2);
	assert_int_equal(got.slot[0].super.generation, 2);
	assert_int_equal(got.slot[1].super.generation, 1);
	for (int i = 0; i < 2; i++) {
		const struct super *sb = &got.slot[i].super;

		assert_string_equal(sb->label, "test");
		assert_int_equal(sb->limit_frames, (64 << 20) / PMFS_PAGE_SIZE);
		assert_int_equal(sb->frames, PMFS_FIRST_FRAME);
		assert_int_equal(sb->map_root, PFN_NONE);
		assert_true(mem_is_zero(&sb->tree, sizeof(sb->tree)));
		assert_int_equal(sb->uuid[6] >> 4, 4);
		assert_memory_equal(sb->uuid, got.slot[0].super.uuid, 16);
		assert_int_equal(got.slot[i].delta_count, 0);
	}
	super_slots_free(&got);
	region_close(rg);
}

static void test_format_takes_uuid_and_longest_label(void **state)
{
	struct store_format how = small;
	struct super_slots got;
	struct region *rg;

	(void)state;
	memset(how.label, 'x', sizeof(how.label) - 1);
	memset(how.uuid, 7, sizeof(how.uuid));
	assert_int_equal(store_format(image, &how, NULL), 0);
	assert_int_equal(region_open_image(&rg, image, FRAMES, REGION_READONLY, NULL), 0);
	assert_int_equal(super_load(rg, &got, NULL), 0);
	assert_int_equal(strlen(got.slot[0].super.label), 63);
	assert_memory_equal(got.slot[0].super.uuid, how.uuid, 16);
	super_slots_free(&got);
	region_close(rg);
}

static void test_format_refusals(void **state)
{
	struct store_format how = small;
	struct store_error err;
	struct region *rg;

	(void)state;
	how.limit_bytes = (4 << 20) - 1;
	assert_int_equal(store_format(image, &how, &err), -EINVAL);
	assert_int_equal(access(image, F_OK), -1);
	how.limit_bytes = 4 << 20;
	memset(how.label, 'x', sizeof(how.label));
	assert_int_equal(store_format(image, &how, &err), -EINVAL);
	assert_int_equal(store_format(dir, &small, &err), -EISDIR);
	assert_non_null(strstr(err.text, dir));
	assert_int_equal(store_format("/nonexistent/image", &small, &err), -ENOENT);

	/* What is there stays there, unless it is forced out. */
	write_file("somebody's letters");
	assert_int_equal(store_format(image, &small, &err), -EEXIST);
	assert_int_equal(file_size(), 18);
	assert_int_equal(
		store_format(image, &(struct store_format){ .limit_bytes = 4 << 20, .force = true },
			     &err),
		0);
	assert_int_equal(store_format(image, &small, &err), -EEXIST);
	assert_int_equal(region_open_image(&rg, image, FRAMES, 0, NULL), 0);
	how = small;
	how.force = true;
	assert_int_equal(store_format(image, &how, &err), -EBUSY);
	assert_int_equal(err.holder, getpid());
	region_close(rg);
	write_file("");
	assert_int_equal(store_format(image, &small, &err), 0);
}

/* Nothing of what was there before is left, and no space is taken by it. */
static void test_format_forced_starts_anew(void **state)
{
	struct store_format how = { .limit_bytes = 4 << 20, .force = true };
	struct region *rg = new_region();

	(void)state;
	for (pfn_t pfn = 0; pfn < FRAMES; pfn++)
		assert_int_equal(region_write(rg, pfn, 0, "old", 3), 0);
	region_close(rg);
	assert_int_equal(store_format(image, &how, NULL), 0);
	assert_int_equal(file_size(), 2 * SLOT_BYTES);
	assert_int_equal(region_open_image(&rg, image, FRAMES, 0, NULL), 0);
	assert_int_equal(region_grow(rg, FRAMES), 0);
	assert_true(
		mem_is_zero((const uint8_t *)region_at(rg, 0) + sizeof(struct pmfs_super), 100));
	assert_true(mem_is_zero(region_at(rg, PMFS_FIRST_FRAME), PMFS_PAGE_SIZE));
	region_close(rg);
}

/* A host that fails half way leaves no file that was not there. */
static void test_format_failing_host(void **state)
{
	static const char *const points[] = { "region.grow", "region.write", "region.flush" };
	struct store_error err;

	(void)state;
#ifndef PMFS_FAULTS
	skip();
#endif
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		uint64_t nth;

		for (nth = 1;; nth++) {
			fault_reset();
			assert_int_equal(fault_arm(points[i], nth, ENOSPC), 0);
			if (store_format(image, &small, &err) == 0)
				break;
			assert_non_null(strstr(err.text, image));
			assert_int_equal(access(image, F_OK), -1);
		}
		assert_int_equal(nth, fault_count(points[i]) + 1);
		assert_true(nth > 1);
		unlink(image);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_super_is_read_as_it_was_written, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_super_writes_its_own_slot_only, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_super_damaged_slot_falls_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_super_torn_slot_falls_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_super_in_the_wrong_slot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_super_slots_of_two_images, setup, teardown),
		cmocka_unit_test_setup_teardown(test_super_no_image, setup, teardown),
		cmocka_unit_test_setup_teardown(test_super_image_cut_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_super_newer_format, setup, teardown),
		cmocka_unit_test_setup_teardown(test_super_contradictions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_super_writes_no_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(test_format_makes_an_empty_image, setup, teardown),
		cmocka_unit_test_setup_teardown(test_format_takes_uuid_and_longest_label, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_format_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_format_forced_starts_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(test_format_failing_host, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
