/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * store.h - an open image or RAM region: pages that survive a crash.  The door to this layer; the
 * tree uses this header, txn.h and page.h and nothing else of it.
 *
 * Generations: all that transactions change belongs to the open generation.  A commit closes it (an
 * instant, between transactions), writes it out while the next one is already being filled, and
 * makes it durable with one flush when its changed map entries fit into the slot, with two when the
 * page map's nodes are written.
 *
 *   S1  After any stop the image shows exactly one closed generation, and one that holds all that
 *       commit_wait() returned 0 for.
 *   S2  A frame that the last durable generation reaches is not overwritten.
 *   S3  Opening reads a slot, the new pages of its generation, and nothing else.
 */
#ifndef PMFS_STORE_STORE_H
#define PMFS_STORE_STORE_H

#include "store/page.h"

struct store;

struct store_config {
	const char *path;     /* NULL: RAM */
	uint64_t limit_bytes; /* RAM: size; image: 0 keeps what the image says */
	bool read_only;
	unsigned commit_ms; /* timer, 0: none (tests) */
	/* Run the keeper thread: timer, scan, trim.  Without it call store_scan() and store_trim().
	 */
	bool background;
	/*
	 * Called when space runs out, without locks, before a commit is tried: give back what is
	 * only waiting to be reclaimed.  May be NULL.
	 */
	void (*relief)(void *arg);
	void *relief_arg;
	/*
	 * Repair: what is damaged in the page map is forgotten and told to lost(), which may be
	 * NULL for an ordinary open: pages from `first` on, of which some were in use.  Then
	 * everything is scanned when it returns, and store_fold() makes that durable.  older: use
	 * the older slot where there are two.
	 */
	void (*lost)(void *arg, vpn_t first, uint64_t pages, const char *why);
	void *lost_arg;
	bool older;
};

/* What was wrong with an image, in words for a person. */
struct store_error {
	char text[256];
	int holder; /* -EBUSY: pid, 0 unknown */
};

struct store_format {
	uint64_t limit_bytes; /* rounded down to frames; at least 4 MiB */
	char label[64];
	uint8_t uuid[16]; /* all zero: make one */
	bool force;	  /* overwrite what is there */
};

/*
 * Make an empty image.  -EEXIST (a file that is not empty, without force), -EINVAL (size), -EBUSY,
 * errors of the host.
 */
int store_format(const char *path, const struct store_format *how, struct store_error *err);

/*
 * -ENOENT…: of open(2); -EBUSY: in use; -EMEDIUMTYPE: not a pmfs image; -EOPNOTSUPP: newer;
 * -EBADMSG/-EUCLEAN: damaged; -EIO: truncated.  err->text says what, and for whom.
 */
int store_open(struct store **out, const struct store_config *cfg, struct store_error *err);
/* Commits (unless read-only or poisoned) and closes.  The error of that commit. */
int store_close(struct store *st);
/* Closes without a commit, as kill -9 would.  Tests. */
void store_abandon(struct store *st);

bool store_read_only(const struct store *st);
bool store_is_ram(const struct store *st);
int store_error(const struct store *st); /* the poison, 0: none */
/* What failed first, in words; "" without a poison.  Returns buf. */
const char *store_why(struct store *st, char *buf, size_t len);
const uint8_t *store_uuid(const struct store *st);
const char *store_label(const struct store *st);
uint64_t store_created_ns(const struct store *st);
/* For the taps of tests, and for addresses of replies. */
struct region *store_region(struct store *st);

/*
 * What the tree keeps in the superblock.  Written inside a transaction; a commit takes it as it is
 * when the generation closes.
 */
void store_get_root(struct store *st, struct pmfs_tree_root *out);
void store_set_root(struct txn *tx, const struct pmfs_tree_root *root);

/* The open generation, and the newest durable one. */
uint64_t store_generation(const struct store *st);
uint64_t store_durable(const struct store *st);

/*
 * Make `generation` (of txn_end()) durable: 0 when it is.  Callers that come while a commit runs
 * share the next one.  Runs the commit in the calling thread when none is running.  Not inside a
 * transaction or a read section.  -EIO: poisoned.
 */
int commit_wait(struct store *st, uint64_t generation);
/* All that was done before the call. */
int commit_now(struct store *st);
/*
 * What fsync(2) promises of it.  For an image that is commit_now(); memory has nothing that could
 * become durable, so with a keeper thread (store_config.background) this only has that thread
 * commit soon, when there is much whose frames could be used again.  -EIO: poisoned.
 */
int commit_fsync(struct store *st);
/*
 * Like commit_now() with a hook: at_close runs when the generation is closed and no transaction is
 * open, with LOCK_TXN held exclusively; it may run one transaction-like change that belongs to the
 * closing generation, through the txn it is given (a snapshot).  Not 0: nothing of it happened, the
 * commit goes on, and that error is returned.  frames: the promise for that change, which may be of
 * twice as many pages.  -ENOMEM: at_close was not called, or that is what it has said.
 */
int commit_with(struct store *st, enum frame_class cls, uint64_t frames,
		int (*at_close)(struct txn *tx, void *arg), void *arg);

/* A commit that writes the page map's tree, however little has changed. */
int store_fold(struct store *st);

/*
 * The pass that derives what is free after opening; max_leaves at a time; 1: done, 0: more, error.
 * The keeper thread does it.
 */
int store_scan(struct store *st, uint64_t max_leaves);
bool store_scanned(const struct store *st);
uint64_t store_trim(struct store *st, unsigned idle_ms, uint64_t max_frames);
/* The limit that df shows and growth respects.  -ERANGE: below what is in use. */
int store_set_limit(struct store *st, uint64_t limit_bytes);

struct store_stats {
	struct frame_stats frames;
	uint64_t pages;	      /* with a count above 0 */
	uint64_t holes;	      /* of these without a frame */
	uint64_t map_nodes;   /* frames of the page map */
	uint64_t dirty_pages; /* written in the open generation */
	uint64_t commits, commits_small, flushes, written_bytes;
	uint64_t commit_ns_last, commit_ns_max;
	uint64_t verified, bad_pages; /* hashes checked, and how often one did not match */
	uint64_t damaged_pages;	      /* found damaged since store_bad_forget(), each once */
	uint64_t host_bytes;
	uint64_t zero_merged, merged; /* by page_merge(), since the mount */
};
void store_stat(struct store *st, struct store_stats *out);

/*
 * For dedup and checks: call fn for each page with a count in [from, to), in order, leaf by leaf,
 * each leaf as it is at one moment; no lock is held in fn.  fn: 0 goes on, else the walk ends and
 * returns that.  Leaves that were never used are skipped.
 */
int store_each_page(struct store *st, vpn_t from, vpn_t to,
		    int (*fn)(void *arg, vpn_t vpn, const struct page_info *info), void *arg);
vpn_t store_vpn_limit(const struct store *st);
/*
 * How many pages there can be: a bound for the work and memory that a walk takes, whatever an image
 * says.  When the scan is over: those in use, and room for what damage has hidden; before,
 * store_vpn_limit().
 */
uint64_t store_pages_bound(const struct store *st);
/* The first page from vpn on that could be in use: for walks over all, in an image that may have
 * any number of leaves that it does not use.  store_vpn_limit() or more: there is none. */
vpn_t store_next_page(struct store *st, vpn_t vpn);
/*
 * A store that is open for reading only forgets what it has read of the page map when that has become
 * much (STORE_FORGET_LEAVES of 4 KiB); of another one nothing.  No other thread may be using it.
 */
#define STORE_FORGET_LEAVES 4096u
void store_forget(struct store *st);

/*
 * Compare what stands in the image with the page map, whatever was verified before: the nodes of
 * the map that begin at the leaf of `vpn`, and its pages from `vpn` on, up to `most` of them that
 * have a hash.  A page that does not match is found damaged (store_bad_take) and is an error to
 * whoever reads it.  Returns the first page that was not looked at; store_vpn_limit() or more: all
 * were. The page map's own damage is in *out, and no error.
 */
struct store_verified {
	uint64_t pages, nodes;	       /* compared */
	uint64_t bad_pages, bad_nodes; /* of these, or unreadable */
	uint64_t dirty;		       /* not compared: written since the last commit */
};
vpn_t store_verify(struct store *st, vpn_t vpn, unsigned most, struct store_verified *out);

/*
 * Pages that were found damaged when they were read or verified, each once; found() is called when
 * there is a new one, with locks held: it may do no more than wake somebody up.
 */
void store_on_bad(struct store *st, void (*found)(void *arg), void *arg);
/* Begin anew: what is still damaged will be found again. */
void store_bad_forget(struct store *st);
/* Up to n of those that have not been taken yet. */
unsigned store_bad_take(struct store *st, vpn_t *out, unsigned n);

/*
 * Check F1 and the page map: every node's checksum, every entry's range, every frame's count; with
 * data, every page's hash.  No transaction may run.  bad() is called for each finding with words
 * for a person; returns the number of findings, or an error that stopped it.
 */
int store_check(struct store *st, bool data, void (*bad)(void *arg, const char *what), void *arg);

#endif
