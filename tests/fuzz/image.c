/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/image.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/hash.h"

#define BYTES ((size_t)IMAGE_FRAMES * PMFS_PAGE_SIZE)

/* ------------------------------------------------------------------ seals */

struct seal {
	uint8_t *at;
	uint64_t frames;
	uint64_t done[BITMAP_WORDS(IMAGE_FRAMES)]; /* nodes; a damaged tree can go in circles */
};

static bool in_range(const struct seal *s, pfn_t pfn)
{
	return pfn >= PMFS_FIRST_FRAME && pfn < s->frames;
}

static uint64_t frame_hash(const struct seal *s, pfn_t pfn)
{
	return hash64(s->at + pfn * PMFS_PAGE_SIZE, PMFS_PAGE_SIZE);
}

static void seal_entry(const struct seal *s, struct pmfs_map_entry *entry)
{
	const pfn_t pfn = le64_get(entry->where) & PMFS_MAP_PFN_MASK;

	if (in_range(s, pfn))
		le64_put(&entry->hash, frame_hash(s, pfn));
}

static uint64_t seal_node(struct seal *s, pfn_t pfn, uint32_t height)
{
	struct pmfs_map_entry *entry;
	struct pmfs_map_child *child;

	if (!in_range(s, pfn))
		return 0;
	if (!bit_test(s->done, pfn) && height) {
		bit_set(s->done, pfn);
		entry = (void *)(s->at + pfn * PMFS_PAGE_SIZE);
		child = (void *)(s->at + pfn * PMFS_PAGE_SIZE);
		for (size_t i = 0; i < PMFS_MAP_FANOUT; i++) {
			if (height == 1)
				seal_entry(s, &entry[i]);
			else if (child[i].pfn.raw)
				le64_put(&child[i].checksum,
					 seal_node(s, le64_get(child[i].pfn), height - 1));
		}
	}
	return frame_hash(s, pfn);
}

static void seal_slot(struct seal *s, unsigned int slot)
{
	struct pmfs_super *super = (void *)(s->at + slot * PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE);
	struct pmfs_delta *delta = (void *)(super + 1);
	const uint32_t n = le32_get(super->delta_count);

	if (memcmp(super->magic, PMFS_MAGIC, sizeof(super->magic)) != 0)
		return;
	for (uint32_t i = 0; i < MIN(n, PMFS_DELTA_MAX); i++)
		seal_entry(s, &delta[i].entry);
	if (n <= PMFS_DELTA_MAX)
		le64_put(&super->delta_checksum, hash64(delta, n * sizeof(*delta)));
	if (super->map_root.raw)
		le64_put(&super->map_checksum, seal_node(s, le64_get(super->map_root),
							 MIN(le32_get(super->map_height), 5u)));
	le64_put(&super->checksum, hash64(super, offsetof(struct pmfs_super, checksum)));
}

/* ------------------------------------------------------------------ an input as an image */

/* The piece at *pos, cut where the input ends; false: there is none. */
static bool next_piece(const uint8_t *data, size_t size, size_t *pos, struct image_piece *piece,
		       size_t *at)
{
	if (size - *pos < sizeof(*piece))
		return false;
	memcpy(piece, data + *pos, sizeof(*piece));
	*at = *pos + sizeof(*piece);
	le16_put(&piece->len, (uint16_t)MIN(le16_get(piece->len), size - *at));
	*pos = *at + le16_get(piece->len);
	return true;
}

static uint64_t frames_said(const uint8_t *at)
{
	uint64_t frames = PMFS_MIN_FRAMES;

	for (unsigned int slot = 0; slot < 2; slot++) {
		const struct pmfs_super *super =
			(const void *)(at + slot * PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE);

		frames = MAX(frames, le64_get(super->frames));
	}
	return MIN(frames, IMAGE_FRAMES);
}

void image_open(struct image *im, const uint8_t *data, size_t size)
{
	static struct seal s;
	struct image_piece piece;
	size_t pos = 1, at;

	im->flags = size ? data[0] : 0;
	im->fd = memfd_create("pmfs-fuzz", MFD_CLOEXEC);
	if (im->fd < 0 || ftruncate(im->fd, (off_t)BYTES))
		fuzz_fail("no memory for an image");
	memset(&s, 0, sizeof(s));
	s.at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, im->fd, 0);
	if (s.at == MAP_FAILED)
		fuzz_fail("no memory for an image");
	while (size && next_piece(data, size, &pos, &piece, &at)) {
		const uint32_t frame = le32_get(piece.frame);
		const size_t off = le16_get(piece.at) % PMFS_PAGE_SIZE;

		if (frame < IMAGE_FRAMES)
			memcpy(s.at + (size_t)frame * PMFS_PAGE_SIZE + off, data + at,
			       MIN(le16_get(piece.len), PMFS_PAGE_SIZE - off));
	}
	s.frames = frames_said(s.at);
	if (!(im->flags & IMAGE_BROKEN_SEALS))
		for (unsigned int slot = 0; slot < 2; slot++)
			seal_slot(&s, slot);
	munmap(s.at, BYTES);
	if (ftruncate(im->fd, (off_t)(s.frames * PMFS_PAGE_SIZE)))
		fuzz_fail("ftruncate");
	snprintf(im->path, sizeof(im->path), "/proc/self/fd/%d", im->fd);
}

void image_close(struct image *im)
{
	close(im->fd);
}

/* ------------------------------------------------------------------ changes */

/* A number that something in the image could be: a frame or page that there is, or nonsense. */
static uint64_t some_number(struct fuzz_random *rnd, const uint8_t *data, size_t size)
{
	le64 field;

	switch (fuzz_below(rnd, 4)) {
	case 0:
		return 1 + fuzz_below(rnd, 300);
	case 1: /* what stands elsewhere */
		if (size < 16)
			return 0;
		memcpy(&field, data + fuzz_below(rnd, size - 8), sizeof(field));
		return le64_get(field);
	default:
		return fuzz_number(rnd);
	}
}

static size_t add_piece(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max,
			uint32_t frame)
{
	const le64 field = le64_make(some_number(rnd, data, size));
	struct image_piece piece;

	if (size + sizeof(piece) + sizeof(field) > max)
		return size;
	le32_put(&piece.frame, frame);
	le16_put(&piece.at, (uint16_t)(fuzz_below(rnd, PMFS_PAGE_SIZE / 8) * 8));
	le16_put(&piece.len, sizeof(field));
	memcpy(data + size, &piece, sizeof(piece));
	memcpy(data + size + sizeof(piece), &field, sizeof(field));
	return size + sizeof(piece) + sizeof(field);
}

static void change_field(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t at, size_t len,
			 size_t off)
{
	static const size_t widths[] = {1, 2, 4, 8, 8};
	const size_t width = widths[fuzz_below(rnd, ARRAY_SIZE(widths))];
	uint64_t value = 0;
	le64 field;
	size_t where;

	if (len < width)
		return;
	/* Fields stand at multiples of their size in the frame. */
	where = fuzz_below(rnd, len - width + 1);
	if (fuzz_below(rnd, 8))
		where = where > (off + where) % width ? where - (off + where) % width : where;
	memcpy(&value, data + at + where, width);
	switch (fuzz_below(rnd, 5)) {
	case 0:
		value++;
		break;
	case 1:
		value--;
		break;
	case 2:
		value ^= UINT64_C(1) << fuzz_below(rnd, width * 8);
		break;
	default:
		value = some_number(rnd, data, size);
	}
	le64_put(&field, value);
	memcpy(data + at + where, &field, width);
}

size_t image_change(struct fuzz_random *rnd, uint8_t *data, size_t size, size_t max)
{
	size_t pos = 1, at = 0, other = 0, n = 0, pick;
	struct image_piece piece = {0}, with = {0};

	if (!size)
		return 0;
	while (next_piece(data, size, &pos, &piece, &at))
		n++;
	if (!n)
		return size;
	pick = fuzz_below(rnd, n);
	pos = 1;
	for (size_t i = 0; i <= pick; i++)
		next_piece(data, size, &pos, &piece, &at);
	switch (fuzz_below(rnd, 24)) {
	case 0:
		data[0] ^= IMAGE_BROKEN_SEALS;
		return size;
	case 1: /* without that piece */
		memmove(data + at - sizeof(piece), data + pos, size - pos);
		return size - (pos - at) - sizeof(piece);
	case 2: /* in another frame */
		le32_put(&piece.frame, (uint32_t)(PMFS_FIRST_FRAME + fuzz_below(rnd, 200)));
		memcpy(data + at - sizeof(piece), &piece, sizeof(piece.frame));
		return size;
	case 3:
	case 4:
	case 5:
		return add_piece(rnd, data, size, max, le32_get(piece.frame));
	case 6: /* what stands in another piece */
		pick = fuzz_below(rnd, n);
		for (size_t i = pos = 1; i <= pick + 1; i++)
			next_piece(data, size, &pos, &with, &other);
		memmove(data + at, data + other, MIN(le16_get(piece.len), le16_get(with.len)));
		return size;
	default:
		change_field(rnd, data, size, at, le16_get(piece.len), le16_get(piece.at));
		return size;
	}
}

/* ------------------------------------------------------------------ making them */

/* Zeros that are shorter than a piece's header and a bit are not left out. */
#define GAP 24u

static size_t piece_end(const uint8_t *page, size_t at)
{
	size_t end = at, zeros = 0;

	for (size_t i = at; i < PMFS_PAGE_SIZE && zeros < GAP; i++) {
		zeros = page[i] ? 0 : zeros + 1;
		if (page[i])
			end = i + 1;
	}
	return MIN(ALIGN_UP(end, 8u), PMFS_PAGE_SIZE);
}

size_t image_pack(const char *path, uint8_t *out, size_t max)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t page[PMFS_PAGE_SIZE];
	struct image_piece piece;
	size_t size = 0;

	out[size++] = 0;
	for (uint32_t frame = 0; fd >= 0 && frame < IMAGE_FRAMES; frame++) {
		if (pread(fd, page, sizeof(page), (off_t)frame * PMFS_PAGE_SIZE) != sizeof(page))
			break;
		for (size_t at = 0, end; at < sizeof(page); at = end) {
			end = at + 8;
			if (mem_is_zero(page + at, 8))
				continue;
			end = piece_end(page, at);
			if (size + sizeof(piece) + (end - at) > max) {
				close(fd);
				return 0;
			}
			le32_put(&piece.frame, frame);
			le16_put(&piece.at, (uint16_t)at);
			le16_put(&piece.len, (uint16_t)(end - at));
			memcpy(out + size, &piece, sizeof(piece));
			memcpy(out + size + sizeof(piece), page + at, end - at);
			size += sizeof(piece) + (end - at);
		}
	}
	if (fd >= 0)
		close(fd);
	return fd >= 0 ? size : 0;
}
