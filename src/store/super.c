/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/super.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bits.h"
#include "base/hash.h"
#include "base/units.h"

#define SLOT_BYTES ((size_t)PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE)
#define CHECKED_BYTES offsetof(struct pmfs_super, checksum)
#define WHY_LEN sizeof(((struct store_error *)NULL)->text)

/* Deltas that stand in the first page of a slot, behind the header; they fill it. */
#define FIRST_DELTAS \
	((uint32_t)((PMFS_PAGE_SIZE - sizeof(struct pmfs_super)) / sizeof(struct pmfs_delta)))
static_assert((PMFS_PAGE_SIZE - sizeof(struct pmfs_super)) % sizeof(struct pmfs_delta) == 0,
	      "whole records");

__attribute__((format(printf, 3, 4))) static int refuse(char *why, int rc, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, WHY_LEN, fmt, ap);
	va_end(ap);
	return rc;
}

/* ------------------------------------------------------------------ what a slot may say */

static int check_header(const struct super *sb, char *why)
{
	if (!sb->generation)
		return refuse(why, -EUCLEAN, "generation is 0");
	if (sb->limit_frames < PMFS_MIN_FRAMES || sb->limit_frames > PMFS_MAX_FRAMES)
		return refuse(why, -EUCLEAN, "limit of %llu frames is out of range",
			      (unsigned long long)sb->limit_frames);
	if (sb->frames < PMFS_FIRST_FRAME || sb->frames > sb->limit_frames)
		return refuse(why, -EUCLEAN, "%llu frames in use, limit %llu",
			      (unsigned long long)sb->frames, (unsigned long long)sb->limit_frames);
	if (!sb->vpn_limit || sb->vpn_limit > SUPER_MAX_VPN)
		return refuse(why, -EUCLEAN, "limit of %llu pages is out of range",
			      (unsigned long long)sb->vpn_limit);
	if (!sb->map_root ? sb->map_height || sb->map_checksum
			  : sb->map_root < PMFS_FIRST_FRAME || sb->map_root >= sb->frames ||
				    !sb->map_height || sb->map_height > SUPER_MAX_HEIGHT)
		return refuse(why, -EUCLEAN, "page map at frame %llu with %u levels",
			      (unsigned long long)sb->map_root, sb->map_height);
	if (le64_get(sb->tree.table) >= sb->vpn_limit ||
	    le32_get(sb->tree.height) > PMFS_PTAB_MAX_HEIGHT)
		return refuse(why, -EUCLEAN, "volume table at page %llu with %u levels",
			      (unsigned long long)le64_get(sb->tree.table),
			      le32_get(sb->tree.height));
	return 0;
}

static bool delta_fits(const struct pmfs_delta *d, uint64_t after, const struct super *sb)
{
	uint64_t vpn = le64_get(d->vpn) & ~PMFS_DELTA_NEW;
	bool fresh = le64_get(d->vpn) & PMFS_DELTA_NEW;
	uint64_t where = le64_get(d->entry.where);
	pfn_t pfn = where & PMFS_MAP_PFN_MASK;
	uint64_t refs = where >> PMFS_MAP_PFN_BITS;

	if (vpn <= after || vpn >= sb->vpn_limit)
		return false;
	if (!pfn)
		return !fresh && (!le64_get(d->entry.hash) ||
				  (refs && le64_get(d->entry.hash) == PMFS_HASH_KEPT));
	return refs && pfn >= PMFS_FIRST_FRAME && pfn < sb->frames;
}

static int check_deltas(const struct super *sb, const struct pmfs_delta *deltas, uint32_t n,
			char *why)
{
	uint64_t last = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (!delta_fits(&deltas[i], last, sb))
			return refuse(why, -EUCLEAN, "changed page %u of %u contradicts the rest",
				      i, n);
		last = le64_get(deltas[i].vpn) & ~PMFS_DELTA_NEW;
	}
	return 0;
}

/* ------------------------------------------------------------------ writing */

int super_encode(const struct super *sb, const struct pmfs_delta *deltas, uint32_t n,
		 uint8_t page[PMFS_PAGE_SIZE], size_t *len)
{
	struct pmfs_super out = { 0 };
	uint32_t here = MIN(n, FIRST_DELTAS);
	char why[WHY_LEN];

	if (n > PMFS_DELTA_MAX || check_header(sb, why) || check_deltas(sb, deltas, n, why))
		return -EUCLEAN;
	memcpy(out.magic, PMFS_MAGIC, sizeof(out.magic));
	le32_put(&out.version, PMFS_FORMAT_VERSION);
	le32_put(&out.feat_compat, sb->feat_compat);
	le32_put(&out.feat_incompat, sb->kept ? PMFS_FEAT_KEPT : 0);
	le32_put(&out.kept, sb->kept);
	le32_put(&out.kept_paths, sb->kept_paths);
	le32_put(&out.slot_frames, PMFS_SLOT_FRAMES);
	le64_put(&out.generation, sb->generation);
	le64_put(&out.frames, sb->frames);
	le64_put(&out.limit_frames, sb->limit_frames);
	le64_put(&out.vpn_limit, sb->vpn_limit);
	le64_put(&out.map_root, sb->map_root);
	le64_put(&out.map_checksum, sb->map_checksum);
	le32_put(&out.map_height, sb->map_height);
	le32_put(&out.delta_count, n);
	le64_put(&out.delta_checksum, hash64(deltas, n * sizeof(*deltas)));
	le64_put(&out.created_ns, sb->created_ns);
	memcpy(out.uuid, sb->uuid, sizeof(out.uuid));
	memcpy(out.label, sb->label, strnlen(sb->label, sizeof(out.label)));
	out.tree = sb->tree;
	le64_put(&out.checksum, hash64(&out, CHECKED_BYTES));
	memcpy(page, &out, sizeof(out));
	if (here)
		memcpy(page + sizeof(out), deltas, here * sizeof(*deltas));
	*len = sizeof(out) + here * sizeof(*deltas);
	return 0;
}

int super_write(struct region *rg, const struct super *sb, const struct pmfs_delta *deltas,
		uint32_t n)
{
	pfn_t at = (sb->generation & 1) * PMFS_SLOT_FRAMES; /* U1 */
	uint8_t page[PMFS_PAGE_SIZE];
	size_t len;
	int rc = super_encode(sb, deltas, n, page, &len);

	if (!rc && n > FIRST_DELTAS)
		rc = region_write(rg, at + 1, 0, deltas + FIRST_DELTAS,
				  (n - FIRST_DELTAS) * sizeof(*deltas));
	return rc ? rc : region_write(rg, at, 0, page, len);
}

int super_init(struct super *sb, const struct store_format *how)
{
	static const uint8_t none[16];
	uint64_t limit = how->limit_bytes / PMFS_PAGE_SIZE;
	size_t label = strnlen(how->label, sizeof(how->label));

	if (limit < PMFS_MIN_FRAMES || limit > PMFS_MAX_FRAMES || label == sizeof(how->label))
		return -EINVAL;
	*sb = (struct super){
		.generation = 1,
		.frames = PMFS_FIRST_FRAME,
		.limit_frames = limit,
		.vpn_limit = 1,
		.created_ns = (uint64_t)units_now_ns(),
	};
	memcpy(sb->label, how->label, label);
	memcpy(sb->uuid, how->uuid, sizeof(sb->uuid));
	if (memcmp(how->uuid, none, sizeof(none)) == 0) {
		if (getrandom(sb->uuid, sizeof(sb->uuid), 0) != sizeof(sb->uuid))
			return -EIO;
		/* RFC 9562: version 4, variant 10. */
		sb->uuid[6] = (uint8_t)((sb->uuid[6] & 0x0f) | 0x40);
		sb->uuid[8] = (uint8_t)((sb->uuid[8] & 0x3f) | 0x80);
	}
	return 0;
}

/* ------------------------------------------------------------------ reading */

static int decode_header(const struct pmfs_super *in, struct super *sb, char *why)
{
	if (memcmp(in->magic, PMFS_MAGIC, sizeof(in->magic)) != 0)
		return refuse(why, -EMEDIUMTYPE, "no pmfs image");
	if (le64_get(in->checksum) != hash64(in, CHECKED_BYTES))
		return refuse(why, -EBADMSG, "the header does not match its checksum");
	if (le32_get(in->version) > PMFS_FORMAT_VERSION)
		return refuse(why, -EOPNOTSUPP, "format version %u, this program knows %u",
			      le32_get(in->version), PMFS_FORMAT_VERSION);
	if (le32_get(in->feat_incompat) & ~PMFS_FEAT_INCOMPAT_KNOWN)
		return refuse(why, -EOPNOTSUPP,
			      "needs features 0x%x that this program does not know",
			      le32_get(in->feat_incompat) & ~PMFS_FEAT_INCOMPAT_KNOWN);
	if (!le32_get(in->version) || le32_get(in->slot_frames) != PMFS_SLOT_FRAMES)
		return refuse(why, -EUCLEAN, "format version %u with slots of %u frames",
			      le32_get(in->version), le32_get(in->slot_frames));
	*sb = (struct super){
		.feat_compat = le32_get(in->feat_compat),
		.generation = le64_get(in->generation),
		.frames = le64_get(in->frames),
		.limit_frames = le64_get(in->limit_frames),
		.vpn_limit = le64_get(in->vpn_limit),
		.map_root = le64_get(in->map_root),
		.map_checksum = le64_get(in->map_checksum),
		.map_height = le32_get(in->map_height),
		.created_ns = le64_get(in->created_ns),
		.tree = in->tree,
	};
	if (le32_get(in->feat_incompat) & PMFS_FEAT_KEPT) {
		sb->kept = le32_get(in->kept);
		sb->kept_paths = le32_get(in->kept_paths);
	}
	memcpy(sb->uuid, in->uuid, sizeof(sb->uuid));
	memcpy(sb->label, in->label, sizeof(in->label));
	return check_header(sb, why);
}

int super_decode(const uint8_t *buf, unsigned int slot, uint64_t file_frames,
		 struct super_slot *out, char *why)
{
	struct super_slot got = { 0 };
	struct pmfs_super in;
	uint32_t n;
	int rc;

	memcpy(&in, buf, sizeof(in));
	rc = decode_header(&in, &got.super, why);
	if (rc)
		return rc;
	if ((got.super.generation & 1) != slot)
		return refuse(why, -EUCLEAN, "generation %llu is in the wrong slot",
			      (unsigned long long)got.super.generation);
	if (got.super.frames > file_frames)
		return refuse(why, -EIO,
			      "the image was cut off: it has %llu of at least %llu bytes",
			      (unsigned long long)(file_frames * PMFS_PAGE_SIZE),
			      (unsigned long long)(got.super.frames * PMFS_PAGE_SIZE));
	n = le32_get(in.delta_count);
	if (n > PMFS_DELTA_MAX)
		return refuse(why, -EUCLEAN, "%u changed pages, more than a slot has room for", n);
	if (le64_get(in.delta_checksum) != hash64(buf + sizeof(in), n * sizeof(struct pmfs_delta)))
		return refuse(why, -EBADMSG,
			      "the list of changed pages does not match its checksum");
	if (n) {
		got.deltas = malloc(n * sizeof(struct pmfs_delta));
		if (!got.deltas)
			return refuse(why, -ENOMEM, "no memory for %u changed pages", n);
		memcpy(got.deltas, buf + sizeof(in), n * sizeof(struct pmfs_delta));
		got.delta_count = n;
		rc = check_deltas(&got.super, got.deltas, n, why);
		if (rc) {
			free(got.deltas);
			return rc;
		}
	}
	*out = got;
	return 0;
}

/* A slot that lies behind the end of the file is read as zeros. */
static int read_slot(const struct region *rg, unsigned int slot, uint8_t *buf, char *why)
{
	pfn_t at = slot * PMFS_SLOT_FRAMES;
	uint64_t frames = region_frames(rg);
	size_t len =
		frames > at ? (size_t)(MIN(frames - at, PMFS_SLOT_FRAMES) * PMFS_PAGE_SIZE) : 0;

	memset(buf, 0, SLOT_BYTES);
	if (len && region_copy_out(rg, at, 0, buf, len))
		return refuse(why, -EIO, "can't be read from the image");
	return 0;
}

/* How much an error says about the image; the higher one is reported. */
static int weight(int rc)
{
	static const int order[] = { -EMEDIUMTYPE, -EBADMSG, -EUCLEAN, -EIO, -ENOMEM, -EOPNOTSUPP };

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		if (rc == order[i])
			return (int)i;
	}
	return 0;
}

static void sort_slots(struct super_slots *slots)
{
	struct super_slot swap = slots->slot[0];

	if (slots->count < 2)
		return;
	if (slots->slot[0].super.generation < slots->slot[1].super.generation) {
		slots->slot[0] = slots->slot[1];
		slots->slot[1] = swap;
	}
	/* Another image was here before: no state of this one. */
	if (memcmp(slots->slot[0].super.uuid, slots->slot[1].super.uuid, 16) != 0) {
		free(slots->slot[1].deltas);
		slots->slot[1] = (struct super_slot){ 0 };
		slots->count = 1;
	}
}

int super_load(const struct region *rg, struct super_slots *out, struct store_error *err)
{
	struct super_slots got = { 0 };
	uint8_t *buf = malloc(SLOT_BYTES);
	int worst = 0;

	if (!buf)
		return -ENOMEM;
	for (unsigned int slot = 0; slot < 2; slot++) {
		char why[WHY_LEN];
		int rc = read_slot(rg, slot, buf, why);

		if (!rc)
			rc = super_decode(buf, slot, region_frames(rg), &got.slot[got.count], why);
		if (!rc) {
			got.count++;
		} else if (!worst || weight(rc) > weight(worst)) {
			worst = rc;
			if (rc == -EMEDIUMTYPE || rc == -EOPNOTSUPP)
				snprintf(got.damage, sizeof(got.damage), "%.200s", why);
			else
				snprintf(got.damage, sizeof(got.damage),
					 "superblock slot %u: %.200s", slot, why);
		}
	}
	free(buf);
	if (worst == -EOPNOTSUPP || worst == -ENOMEM || !got.count) {
		if (err)
			snprintf(err->text, sizeof(err->text), "%s", got.damage);
		super_slots_free(&got);
		return worst;
	}
	sort_slots(&got);
	*out = got;
	return 0;
}

void super_slots_free(struct super_slots *slots)
{
	for (size_t i = 0; i < ARRAY_SIZE(slots->slot); i++)
		free(slots->slot[i].deltas);
	*slots = (struct super_slots){ 0 };
}
