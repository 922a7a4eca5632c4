/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * diffops.h - operations on files for the differential tester, each done in one directory.
 * An operation is a kind and a few numbers, nothing else: it can be drawn at random, written down
 * as a line of text, read back, and left out of a sequence without changing what another one means.
 * What an operation shows in a directory is an outcome; two directories whose outcomes are equal
 * behave alike.
 *
 *   D1  An operation never reaches a name outside of its directory: no target of a symbolic link
 *       is absolute or has a ".." in it.
 *   D2  An outcome holds nothing that may differ between two right filesystems (addresses, inode
 *       numbers, sizes of directories, blocks, times of now).
 * A world belongs to one thread.  A thread that runs operations has unshared CLONE_FS (umask).
 */
#ifndef PMFS_TESTS_LIB_DIFFOPS_H
#define PMFS_TESTS_LIB_DIFFOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum diff_field {
	F_H,	  /* handle, 0 to DIFF_HANDLES - 1 */
	F_H2,	  /* another handle, or a mapping below DIFF_MAPS */
	F_AT,	  /* 0: paths begin at the top; n: at handle n - 1 */
	F_PATH,	  /* up to three names: 8 bits each, the first one lowest; 0 is none */
	F_PATH2,  /* as F_PATH */
	F_OFF,	  /* bytes */
	F_OFF2,	  /* bytes */
	F_LEN,	  /* bytes */
	F_FLAGS,  /* of the system call */
	F_MODE,	  /* permissions, and the type for mknod */
	F_VALUE,  /* chooses contents, names of attributes, owners, times */
	F_UMASK,
	F_USER,	  /* 1: not as root */
	DIFF_FIELDS,
};

enum {
	DIFF_HANDLES = 8,
	DIFF_MAPS = 4,
	DIFF_FACTS = 64,
	DIFF_DATA_BYTES = 1 << 20,
};

/* What a directory's filesystem can do; only what both can is asked of them. */
enum diff_feature {
	CAN_ZERO_RANGE = 1 << 0,
	CAN_COLLAPSE = 1 << 1,
	CAN_INSERT = 1 << 2,
	CAN_TMPFILE = 1 << 3,
	CAN_WHITEOUT = 1 << 4,
	CAN_ACL = 1 << 5,
	CAN_FLAGS = 1 << 6,
	CAN_HANDLE = 1 << 7,
	CAN_LEASE = 1 << 8,
	CAN_HOLES = 1 << 9,
};

struct diff_op {
	unsigned kind;
	int64_t f[DIFF_FIELDS];
};

/* Numbers with names, and bytes.  `loose_time` and `loose_holes` say that the time of the last
 * change, or where the holes are, is one of the differences that have a reason. */
struct diff_outcome {
	unsigned count;
	struct diff_fact {
		const char *what;
		int64_t value;
	} fact[DIFF_FACTS];
	bool loose_time;
	bool loose_holes;
	size_t len;
	uint8_t *data; /* owned by the world, valid until its next operation */
};

struct world;

/* A world in the existing directory `dir`.  What both worlds' filesystems can do is `features`.
 * NULL with errno set on failure. */
struct world *world_new(const char *dir, unsigned features);
/* Closes handles and mappings; the files stay. */
void world_free(struct world *w);

/* Which features the filesystem of `dir` has.  Makes and removes files in it. */
unsigned diff_probe(const char *dir);
/* Writes the names of `features` to `f`, with the reason why a filesystem may lack them. */
void diff_explain(FILE *f, unsigned features, const char *indent);

/* xorshift64*; the state is never 0. */
uint64_t diff_random(uint64_t *state);
struct diff_op diff_draw(uint64_t *state, unsigned features);

void diff_run(struct world *w, const struct diff_op *op, struct diff_outcome *out);

/* All of the world: every name, its attributes, contents and holes, and all open handles, as the
 * outcome of one operation.  Returns the number of names. */
size_t diff_survey(struct world *w, struct diff_outcome *out);
/* The same for a directory without a world; times are left out.  `data` has DIFF_DATA_BYTES. */
size_t diff_survey_dir(const char *dir, struct diff_outcome *out, uint8_t *data);

/* True when they are equal; else `why` (`size` bytes) says what differs. */
bool diff_equal(const struct diff_outcome *a, const struct diff_outcome *b, char *why, size_t size);

void diff_print(FILE *f, const struct diff_op *op);
/* False when the line is no operation. */
bool diff_parse(const char *line, struct diff_op *op);

/* Removes all that is in `dir`, and `dir`.  0 or negative errno. */
int diff_remove(const char *dir);

#endif
