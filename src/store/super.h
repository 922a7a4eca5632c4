/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * super.h - the two superblock slots: what stands in them, read with suspicion and written with
 * care.
 *
 * A slot is a header and the deltas behind it (format.h).  Reading gives every slot that is whole
 * and consistent in itself, newest first; whether the pages it calls NEW match their hashes is for
 * the caller to find out.
 *
 *   U1  Generation g lives in slot g & 1, so writing one never touches the other.
 *   U2  A slot that was half written does not count: the header has a checksum, and holds the one
 *       of the deltas.
 *   U3  Whatever the format's version, the first 248 bytes of a slot are covered by the checksum
 *       behind them, and magic, version and feat_incompat stay where they are: a newer image is
 *       told from a damaged one.
 */
#ifndef PMFS_STORE_SUPER_H
#define PMFS_STORE_SUPER_H

#include "store/region.h"
#include "store/store.h"

/* Page numbers in an image are below this; the page map has at most SUPER_MAX_HEIGHT levels. */
#define SUPER_MAX_VPN (UINT64_C(1) << 40)
#define SUPER_MAX_HEIGHT 5u

/* struct pmfs_super in the machine's own byte order, without what only this module needs. */
struct super {
	uint32_t feat_compat;  /* unknown bits are kept */
	uint64_t generation;   /* from 1 */
	uint64_t frames;       /* PMFS_FIRST_FRAME..limit_frames */
	uint64_t limit_frames; /* PMFS_MIN_FRAMES..PMFS_MAX_FRAMES */
	uint64_t vpn_limit;    /* 1..SUPER_MAX_VPN */
	pfn_t map_root;        /* 0: no node */
	uint64_t map_checksum; /* 0 without a node */
	uint32_t map_height;   /* 0 without a node, else 1..SUPER_MAX_HEIGHT */
	uint64_t created_ns;
	uint8_t uuid[16];
	char label[65]; /* always terminated */
	struct pmfs_tree_root tree;
	uint32_t kept, kept_paths;
};

struct super_slot {
	struct super super;
	struct pmfs_delta *deltas; /* malloc'ed, sorted, every field in range; NULL: none */
	uint32_t delta_count;
};

struct super_slots {
	struct super_slot slot[2]; /* newest first */
	unsigned int count;        /* 1 or 2 */
	char damage[256];          /* what was wrong with a slot that does not count; else "" */
};

/*
 * Fill the first PMFS_PAGE_SIZE bytes of a slot: header and the deltas that fit.  *len is what is
 * used of it.
 * -EUCLEAN: the caller's own values contradict themselves (see the ranges above; deltas in order).
 */
int super_encode(const struct super *sb, const struct pmfs_delta *deltas, uint32_t n,
		 uint8_t page[PMFS_PAGE_SIZE], size_t *len);

/*
 * Decode the whole slot buf (PMFS_SLOT_FRAMES frames) that was read from slot number `slot`.
 * file_frames: how long the image is.  Errors as super_load(), with words in why (256 bytes).
 */
int super_decode(const uint8_t *buf, unsigned int slot, uint64_t file_frames,
		 struct super_slot *out, char *why);

/*
 * Read both slots.  -EMEDIUMTYPE: no magic in either; -EOPNOTSUPP: an intact slot is newer than
 * this program, whatever the other is; else, when no slot counts, what is wrong with the better
 * one: -EBADMSG (checksum), -EUCLEAN (contradiction), -EIO (the image is shorter than the slot
 * says, or can't be read); -ENOMEM.  err (not NULL) gets words for a person.
 */
int super_load(const struct region *rg, struct super_slots *out, struct store_error *err);
void super_slots_free(struct super_slots *slots);

/*
 * Write sb and n deltas (PMFS_DELTA_MAX at most) into the slot of sb->generation.  Does not flush.
 * -EUCLEAN as super_encode(): nothing was written; otherwise errors of region_write().
 */
int super_write(struct region *rg, const struct super *sb, const struct pmfs_delta *deltas,
		uint32_t n);

/* A new super for an empty image: generation 1, fresh uuid unless how has one, the time of now. */
int super_init(struct super *sb, const struct store_format *how);

#endif
