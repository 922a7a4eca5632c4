/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * format.h - every structure of an image, in the order of doc/format.md.
 *
 * All numbers are little endian.  A frame is 4 KiB of the image; frame n starts at byte n * 4096.
 * A page is 4 KiB of contents with an identity (vpn); the page map says which frame holds it.
 *
 *   frames 0 .. SLOT-1         superblock slot 0
 *   frames SLOT .. 2*SLOT-1    superblock slot 1
 *   frames 2*SLOT ..           page map nodes and pages, in any order
 */
#ifndef PMFS_FORMAT_H
#define PMFS_FORMAT_H

#include <assert.h>
#include <stdint.h>

#include "pmfs/le.h"

#define PMFS_PAGE_SHIFT 12
#define PMFS_PAGE_SIZE 4096u

typedef uint64_t pfn_t;  /* a frame; PFN_NONE is a hole: frame 0 is a superblock */
typedef uint64_t vpn_t;  /* a page; VPN_NONE is a hole: page 0 is never given out */
typedef uint64_t pgno_t; /* index of a page in a file */
typedef uint64_t ino_t64; /* inode number inside a volume */

#define PFN_NONE ((pfn_t)0)
#define VPN_NONE ((vpn_t)0)

#define PMFS_SLOT_FRAMES 32u                   /* one superblock slot */
#define PMFS_FIRST_FRAME (2 * PMFS_SLOT_FRAMES) /* the first frame that is not a slot */
#define PMFS_MIN_FRAMES 1024u                  /* the smallest image: 4 MiB */
#define PMFS_MAX_FRAMES (UINT64_C(1) << 36)    /* 256 TiB; a pfn has 36 bits */

/* ------------------------------------------------------------------ the superblock slot */

#define PMFS_MAGIC "pmfs\r\n\032\n"
#define PMFS_FORMAT_VERSION 1u
#define PMFS_FEAT_COMPAT_KNOWN 0u   /* an unknown bit here: ignore it */
#define PMFS_FEAT_KEPT 1u             /* incompat: there are pages with PMFS_HASH_KEPT */
#define PMFS_FEAT_INCOMPAT_KNOWN PMFS_FEAT_KEPT /* an unknown bit here: refuse to mount */

/* What the tree keeps in the superblock: the root of the volume table. */
struct pmfs_tree_root {
	le64 table;       /*  0  vpn of the volume table's page table root, 0: empty */
	le32 height;      /*  8  levels of page table above the table's pages */
	le32 rows;        /* 12  rows in use or free in the table */
	le64 next_volume; /* 16  the next volume id; ids are never used twice */
	le64 live;        /* 24  id of the live volume */
	uint8_t reserved[32]; /* 32 */
};
static_assert(sizeof(struct pmfs_tree_root) == 64, "on-disk size");

struct pmfs_super {
	uint8_t magic[8];      /*   0  PMFS_MAGIC */
	le32 version;          /*   8  PMFS_FORMAT_VERSION */
	le32 feat_compat;      /*  12 */
	le32 feat_incompat;    /*  16 */
	le32 slot_frames;      /*  20  PMFS_SLOT_FRAMES */
	le64 generation;       /*  24  commit counter, from 1; it lives in slot generation & 1 */
	le64 frames;           /*  32  high-water mark: no frame at or above it is in use */
	le64 limit_frames;     /*  40  how far the image may grow, in frames */
	le64 vpn_limit;        /*  48  no page at or above it is in use */
	le64 map_root;         /*  56  frame of the page map's top node, 0: empty map */
	le64 map_checksum;     /*  64  XXH3-64 of that node */
	le32 map_height;       /*  72  1: the top node is a leaf; levels in all */
	le32 delta_count;      /*  76  struct pmfs_delta records behind this header */
	le64 delta_checksum;   /*  80  XXH3-64 of these records */
	le64 created_ns;       /*  88  when the image was made, ns since 1970 */
	uint8_t uuid[16];      /*  96 */
	uint8_t label[64];     /* 112  UTF-8, zero padded */
	struct pmfs_tree_root tree; /* 176 */
	le32 kept;             /* 240  pages with PMFS_HASH_KEPT; 0 without PMFS_FEAT_KEPT */
	le32 kept_paths;       /* 244  the most pages that lead to them and could have to be copied */
	le64 checksum;         /* 248  XXH3-64 of bytes 0..247 */
};
static_assert(sizeof(struct pmfs_super) == 256, "on-disk size");

/* ------------------------------------------------------------------ the page map */

/*
 * A radix tree of nodes with 256 entries of 16 bytes.  Leaf n holds the pages n * 256 .. n * 256 + 255.
 * Nodes have a frame, not a page: they are addressed by pfn, and their checksum stands in the parent.
 */
#define PMFS_MAP_SHIFT 8
#define PMFS_MAP_FANOUT 256u

/*
 * where: bits 0..35 the frame (0: the page is a hole and reads as zeros), bits 36..63 the number of
 * pointers to the page (0: the page is free).
 */
struct pmfs_map_entry {
	le64 where; /* 0 */
	le64 hash;  /* 8  XXH3-64 of the 4096 bytes; where the frame is 0: 0 or PMFS_HASH_KEPT */
};
static_assert(sizeof(struct pmfs_map_entry) == 16, "on-disk size");

/* Reserved with fallocate(2) and not written yet: a frame is kept for it. */
#define PMFS_HASH_KEPT 1u

#define PMFS_MAP_PFN_BITS 36
#define PMFS_MAP_PFN_MASK ((UINT64_C(1) << PMFS_MAP_PFN_BITS) - 1)
#define PMFS_MAP_REFS_MAX ((UINT64_C(1) << 28) - 1)

struct pmfs_map_child {
	le64 pfn;      /* 0  frame of the child node, 0: all its pages are free */
	le64 checksum; /* 8  XXH3-64 of its 4096 bytes */
};
static_assert(sizeof(struct pmfs_map_child) == 16, "on-disk size");

/*
 * A changed entry of the page map that is not yet in the tree.  Sorted by vpn.  NEW: the page was
 * written in this slot's generation, so that the slot counts only when its contents match the hash.
 */
#define PMFS_DELTA_NEW (UINT64_C(1) << 63)
struct pmfs_delta {
	le64 vpn; /* 0  with PMFS_DELTA_NEW */
	struct pmfs_map_entry entry; /* 8 */
};
static_assert(sizeof(struct pmfs_delta) == 24, "on-disk size");

#define PMFS_DELTA_MAX                                                                             \
	((PMFS_SLOT_FRAMES * PMFS_PAGE_SIZE - sizeof(struct pmfs_super)) / sizeof(struct pmfs_delta))

/* ------------------------------------------------------------------ file page tables */

/*
 * A radix tree of pages with 512 vpns.  height 0: the root is the file's only page; height h: it is
 * a node whose entries are trees of height h - 1.  0 is a hole.
 */
#define PMFS_PTAB_SHIFT 9
#define PMFS_PTAB_FANOUT 512u
#define PMFS_PTAB_MAX_HEIGHT 6u
#define PMFS_MAX_FILE_SIZE (UINT64_C(1) << 60)

struct pmfs_ptab_root {
	le64 vpn;    /* 0 */
	le32 height; /* 8 */
	le32 reserved; /* 12 */
};
static_assert(sizeof(struct pmfs_ptab_root) == 16, "on-disk size");

/* ------------------------------------------------------------------ volumes */

/* A row of the volume table: a file of rows, 4 to a page.  A free row is all zero. */
enum {
	PMFS_VOL_FREE = 0,
	PMFS_VOL_LIVE = 1,     /* the writable tree at the mount point */
	PMFS_VOL_SNAPSHOT = 2, /* read-only */
	PMFS_VOL_DYING = 3,    /* deleted; its pages are being given back */
};

#define PMFS_VOL_ID_MAX ((UINT64_C(1) << 24) - 1) /* ids are never used twice */
#define PMFS_VOL_ROWS_MAX 32768u                   /* volumes at a time */
#define PMFS_VOL_NAME_MAX 255u
#define PMFS_VOL_MESSAGE_MAX 479u

struct pmfs_volume {
	le32 state;             /*    0  PMFS_VOL_* */
	le32 flags;             /*    4  0 */
	le64 id;                /*    8  1..PMFS_VOL_ID_MAX */
	le64 generation;        /*   16  of the commit that made it */
	le64 created_ns;        /*   24  ns since 1970 */
	struct pmfs_ptab_root inodes; /* 32  page table of the inode file */
	le64 next_ino;          /*   48  no inode at or above it has ever been used */
	le64 free_ino;          /*   56  head of the list of free inodes, 0: none */
	le64 inodes_used;       /*   64 */
	le64 data_pages;        /*   72  pages of contents of regular files, holes not counted */
	le64 hidden;            /*   80  inode of a directory that no name leads to; 0: none */
	uint8_t reserved[200];  /*   88 */
	uint8_t name[256];      /*  288  zero terminated and padded; empty for the live volume */
	uint8_t message[480];   /*  544  zero terminated and padded */
};
static_assert(sizeof(struct pmfs_volume) == 1024, "on-disk size");

/* ------------------------------------------------------------------ inodes */

#define PMFS_INODE_SIZE 256u
#define PMFS_INODES_PER_PAGE (PMFS_PAGE_SIZE / PMFS_INODE_SIZE)
#define PMFS_INLINE_MAX 112u

#define PMFS_INO_ROOT 1u    /* the root directory */
#define PMFS_INO_ORPHANS 2u /* a directory of inodes without a name that were open; "%016x" of the number */
#define PMFS_INO_FIRST 3u

#define PMFS_INODE_INLINE 1u /* the contents are in the inode; data.vpn is 0 */
#define PMFS_INODE_STALE 2u  /* a truncation is not done: pages behind the size are old contents */
#define PMFS_INODE_RINGLOG 4u /* a regular file that keeps its end; its limit is in user.pmfs.ringlog */
/* What chattr(1) calls i, a, d and A. */
#define PMFS_INODE_IMMUTABLE 16u /* nothing about it changes */
#define PMFS_INODE_APPEND 32u    /* contents are only added to; a directory: names are only added */
#define PMFS_INODE_NODUMP 64u    /* kept for others: no backup */
#define PMFS_INODE_NOATIME 128u  /* kept for others: reading leaves no mark */
#define PMFS_INODE_USER                                                                            \
	(PMFS_INODE_IMMUTABLE | PMFS_INODE_APPEND | PMFS_INODE_NODUMP | PMFS_INODE_NOATIME)
/* What is made in a directory has those of the directory, as on ext4. */
#define PMFS_INODE_INHERITED (PMFS_INODE_NODUMP | PMFS_INODE_NOATIME)

/* A free inode is zero but for generation and `parent`, which is then the next free inode. */
struct pmfs_inode {
	le32 mode;        /*   0  type and permissions as in stat(2), 0: free */
	le32 flags;       /*   4  PMFS_INODE_* */
	le32 uid;         /*   8 */
	le32 gid;         /*  12 */
	le32 nlink;       /*  16 */
	le32 rdev;        /*  20  major << 20 | minor */
	le64 size;        /*  24  bytes; a directory: the number of its entries */
	le64 pages;       /*  32  a regular file: pages of contents that are not holes */
	le64 generation;  /*  40  differs each time the number is used */
	le64 atime_sec;   /*  48  signed seconds since 1970 */
	le64 mtime_sec;   /*  56 */
	le64 ctime_sec;   /*  64 */
	le64 btime_sec;   /*  72 */
	le32 atime_nsec;  /*  80 */
	le32 mtime_nsec;  /*  84 */
	le32 ctime_nsec;  /*  88 */
	le32 btime_nsec;  /*  92 */
	le64 parent;      /*  96  a directory's parent; a free inode's successor; 0 otherwise */
	struct pmfs_ptab_root data;  /* 104  contents */
	struct pmfs_ptab_root xattr; /* 120  extended attributes */
	le32 xattr_size;  /* 136  bytes in that stream */
	le32 reserved;    /* 140 */
	uint8_t inl[PMFS_INLINE_MAX]; /* 144  inline contents */
};
static_assert(sizeof(struct pmfs_inode) == PMFS_INODE_SIZE, "on-disk size");

/* The stream of extended attributes: records one behind the other, sorted by name. */
struct pmfs_xattr {
	le16 name_len;  /* 0  1..255 */
	le16 reserved;  /* 2 */
	le32 value_len; /* 4  name and value follow without padding */
};
static_assert(sizeof(struct pmfs_xattr) == 8, "on-disk size");
#define PMFS_XATTR_VALUE_MAX 65536u
#define PMFS_XATTR_TOTAL_MAX 131072u

/* ------------------------------------------------------------------ directories */

/*
 * A directory is a file that holds a B+ tree of pages; page 0 of the file is the root.  Keys are unique
 * 63-bit numbers: a 55-bit hash of the name, shifted left by 8, plus the first of 0..255 that is free.
 * A key is the cookie of readdir(3), so an entry keeps its place whatever happens around it.  Keys start at
 * PMFS_DIR_KEY_MIN; 1 and 2 are "." and "..".
 */
#define PMFS_DIR_KEY_MIN 256u
#define PMFS_DIR_LEAF 0x6c644d50u
#define PMFS_DIR_NODE 0x6e644d50u
#define PMFS_DIR_FREE 0x66644d50u
#define PMFS_NAME_MAX 255u

struct pmfs_dir_header {
	le32 magic;     /*  0  PMFS_DIR_LEAF, _NODE, or _FREE: a page of the file that is not in the tree */
	le16 count;     /*  4  entries */
	le16 level;     /*  6  0: leaf */
	le16 heap;      /*  8  leaf: where the records start; they grow down from the end of the page */
	le16 waste;     /* 10  leaf: bytes between heap and the end that no entry uses */
	le32 pages;     /* 12  root: pages of the file; free page: unused */
	le64 free_page; /* 16  root and free page: next page of the free list, 0: none */
	uint8_t reserved[8]; /* 24 */
};
static_assert(sizeof(struct pmfs_dir_header) == 32, "on-disk size");

/* node: behind the header, sorted: keys in child i are >= entry[i].key; entry 0 has key 0 */
struct pmfs_dir_child {
	le64 key;  /* 0 */
	le64 page; /* 8  page of the directory file */
};
static_assert(sizeof(struct pmfs_dir_child) == 16, "on-disk size");

/* leaf: behind the header, sorted by key */
struct pmfs_dir_slot {
	le64 key;  /*  0 */
	le16 at;   /*  8  offset of the record in the page */
	uint8_t type; /* 10  DT_* as in readdir(3) */
	uint8_t reserved[5]; /* 11 */
};
static_assert(sizeof(struct pmfs_dir_slot) == 16, "on-disk size");

struct pmfs_dir_record {
	le64 ino;         /* 0 */
	uint8_t name_len; /* 8  1..255; the name follows */
	uint8_t name[];   /* 9 */
};

#endif
