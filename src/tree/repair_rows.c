/* SPDX-License-Identifier: BSD-2-Clause */
/* The volume table: what volumes_load() refuses is put right, or taken out. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/hash.h"
#include "tree/repair.h"

#define ROWS_PER_PAGE (PMFS_PAGE_SIZE / (uint32_t)sizeof(struct pmfs_volume))

struct table {
	struct repair *rp;
	struct pmfs_volume *row; /* one more than there are */
	bool *changed;
	uint64_t *ids;	     /* bitmap: taken by a row that was looked at */
	uint64_t *name_hash; /* of each row that was looked at, 0: none */
	uint32_t rows;
	uint64_t next, live;
};

static bool row_used(const struct pmfs_volume *rec)
{
	return !mem_is_zero(rec, sizeof(*rec));
}

static uint32_t state_of(const struct pmfs_volume *rec)
{
	return le32_get(rec->state);
}

static bool root_valid(const struct pmfs_volume *rec)
{
	const struct ptab pt = ptab_decode(&rec->inodes);

	return ptab_valid(&pt) && pt.root && pt.root < UINT64_C(1) << 40;
}

static int rows_read(struct table *t)
{
	struct fs *fs = t->rp->fs;
	vpn_t vpn;
	int rc;

	for (uint32_t row = 0; row < t->rows; row++) {
		struct pmfs_volume *rec = &t->row[row];

		rc = ptab_get(t->rp->st, &fs->table, row / ROWS_PER_PAGE, &vpn);
		if (rc)
			return rc;
		if (!vpn) {
			t->changed[row] = true;
			if (row % ROWS_PER_PAGE == 0)
				repair_say(t->rp, false,
					   "rows %u to %u of the volume table are lost", row,
					   row + ROWS_PER_PAGE - 1);
			continue;
		}
		rc = page_read(t->rp->st, vpn, row % ROWS_PER_PAGE * sizeof(*rec), rec,
			       sizeof(*rec));
		if (rc)
			return rc;
	}
	return 0;
}

static void text_mend(uint8_t *text, size_t size)
{
	const size_t len = strnlen((const char *)text, size - 1);

	memset(text + len, 0, size - len);
}

/* Names that agree in their hash are taken for equal, which costs one of them its name. */
static bool name_taken(struct table *t, uint32_t row)
{
	const uint64_t hash = hash64(t->row[row].name, sizeof(t->row[row].name)) | 1;

	t->name_hash[row] = hash;
	for (uint32_t i = 0; i < row; i++)
		if (t->name_hash[i] == hash)
			return true;
	return false;
}

static void drop_row(struct table *t, uint32_t i, const char *why)
{
	repair_say(t->rp, false, "volume %" PRIu64 " is lost: %s", le64_get(t->row[i].id), why);
	memset(&t->row[i], 0, sizeof(t->row[i]));
}

static void state_mend(struct table *t, struct pmfs_volume *rec)
{
	const bool named = rec->name[0];

	if (le64_get(rec->id) == t->live)
		le32_put(&rec->state, PMFS_VOL_LIVE);
	else if (named)
		le32_put(&rec->state, PMFS_VOL_SNAPSHOT);
	else if (state_of(rec) == PMFS_VOL_LIVE || state_of(rec) == PMFS_VOL_SNAPSHOT)
		le32_put(&rec->state, PMFS_VOL_SNAPSHOT);
	else
		le32_put(&rec->state, PMFS_VOL_DYING);
}

static void row_mend(struct table *t, uint32_t i)
{
	struct pmfs_volume *rec = &t->row[i];
	const struct ptab pt = ptab_decode(&rec->inodes);
	const struct pmfs_volume before = *rec;
	uint64_t id = le64_get(rec->id);

	if (!volume_text_valid(rec->name, sizeof(rec->name)))
		text_mend(rec->name, sizeof(rec->name));
	if (!volume_text_valid(rec->message, sizeof(rec->message)))
		text_mend(rec->message, sizeof(rec->message));
	if (state_of(rec) < PMFS_VOL_LIVE || state_of(rec) > PMFS_VOL_DYING ||
	    (state_of(rec) == PMFS_VOL_LIVE) != (id == t->live))
		state_mend(t, rec);
	if (!id || id > PMFS_VOL_ID_MAX || bit_test(t->ids, id)) {
		if (t->next > PMFS_VOL_ID_MAX) {
			drop_row(t, i, "there is no number left for it");
			goto out;
		}
		id = t->next++;
		le64_put(&rec->id, id);
	}
	bit_set(t->ids, id);
	t->next = MAX(t->next, id + 1);
	if (state_of(rec) != PMFS_VOL_SNAPSHOT)
		memset(rec->name, 0, sizeof(rec->name));
	else if (!rec->name[0] || name_taken(t, i)) {
		memset(rec->name, 0, sizeof(rec->name));
		snprintf((char *)rec->name, sizeof(rec->name), "recovered-%" PRIu64, id);
	}
	if (state_of(rec) == PMFS_VOL_DYING ? !ptab_valid(&pt) : !root_valid(rec)) {
		drop_row(t, i, "the root of its inode file is impossible");
		goto out;
	}
	if (le64_get(rec->next_ino) < PMFS_INO_FIRST)
		le64_put(&rec->next_ino, PMFS_INO_FIRST);
	if (le64_get(rec->next_ino) > NODE_INO(UINT64_MAX))
		le64_put(&rec->next_ino, NODE_INO(UINT64_MAX));
	if (le64_get(rec->free_ino) >= le64_get(rec->next_ino))
		le64_put(&rec->free_ino, 0);
	if (memcmp(rec, &before, sizeof(before)))
		repair_say(t->rp, false, "the row of volume %" PRIu64 " contradicted itself", id);
out:
	t->changed[i] = t->changed[i] || memcmp(rec, &before, sizeof(before));
}

/* So that no new id is one that a later row has. */
static void next_find(struct table *t)
{
	for (uint32_t i = 0; i < t->rows; i++)
		if (row_used(&t->row[i]) && le64_get(t->row[i].id) <= PMFS_VOL_ID_MAX)
			t->next = MAX(t->next, le64_get(t->row[i].id) + 1);
}

/* Where the superblock names none that is, the one that says so is believed. */
static void live_find(struct table *t)
{
	const struct pmfs_volume *only = NULL;
	unsigned n = 0;

	for (uint32_t i = 0; i < t->rows; i++) {
		if (row_used(&t->row[i]) && state_of(&t->row[i]) == PMFS_VOL_LIVE) {
			only = &t->row[i];
			n++;
		}
	}
	if (n == 1 && le64_get(only->id) && le64_get(only->id) <= PMFS_VOL_ID_MAX)
		t->live = le64_get(only->id);
}

/* There has to be a live volume. */
static int live_mend(struct table *t)
{
	const struct pmfs_volume *newest = NULL;
	struct ptab root;
	struct txn tx;
	uint32_t at = 0;
	int rc = 0;

	for (uint32_t i = 0; i < t->rows; i++) {
		if (!row_used(&t->row[i]))
			continue;
		if (state_of(&t->row[i]) == PMFS_VOL_LIVE)
			return 0;
		if (state_of(&t->row[i]) == PMFS_VOL_SNAPSHOT &&
		    (!newest || le64_get(t->row[i].id) > le64_get(newest->id)))
			newest = &t->row[i];
	}
	while (at < t->rows && row_used(&t->row[at]))
		at++;
	if (at == PMFS_VOL_ROWS_MAX || t->next > PMFS_VOL_ID_MAX)
		return -ENOSPC;
	t->rows = MAX(t->rows, at + 1);
	t->changed[at] = true;
	if (newest) {
		repair_say(t->rp, false, "the live volume is lost, and begins again as snapshot %s",
			   newest->name);
		t->row[at] = *newest;
	} else {
		repair_say(t->rp, false, "the live volume is lost, and begins again empty");
		rc = txn_begin(t->rp->st, &tx, FRAME_RECLAIM, 1);
		if (rc)
			return rc;
		rc = repair_fresh_root(t->rp, &tx, &root);
		txn_end(&tx);
		ptab_encode(&root, &t->row[at].inodes);
		le64_put(&t->row[at].next_ino, PMFS_INO_FIRST);
		le64_put(&t->row[at].inodes_used, PMFS_INO_FIRST - 1);
	}
	memset(t->row[at].name, 0, sizeof(t->row[at].name));
	memset(t->row[at].message, 0, sizeof(t->row[at].message));
	le32_put(&t->row[at].state, PMFS_VOL_LIVE);
	t->live = t->next++;
	le64_put(&t->row[at].id, t->live);
	return rc;
}

static int rows_write(struct table *t)
{
	struct pmfs_tree_root root = {0}, before;
	struct fs *fs = t->rp->fs;
	struct txn tx;
	int rc = 0;

	for (uint32_t i = 0; i < t->rows && !rc; i++) {
		if (!t->changed[i])
			continue;
		rc = txn_begin(t->rp->st, &tx, FRAME_RECLAIM, VOLUME_ROW_COST);
		if (rc)
			break;
		rc = ptab_write(&tx, &fs->table, NULL, i / ROWS_PER_PAGE,
				i % ROWS_PER_PAGE * sizeof(t->row[i]), &t->row[i],
				sizeof(t->row[i]), NULL);
		txn_end(&tx);
	}
	if (rc)
		return rc;
	le64_put(&root.table, fs->table.root);
	le32_put(&root.height, fs->table.height);
	le32_put(&root.rows, t->rows);
	le64_put(&root.next_volume, t->next);
	le64_put(&root.live, t->live);
	store_get_root(t->rp->st, &before);
	if (!memcmp(&root, &before, sizeof(root)))
		return 0;
	rc = txn_begin(t->rp->st, &tx, FRAME_RECLAIM, 0);
	if (rc)
		return rc;
	store_set_root(&tx, &root);
	txn_end(&tx);
	return 0;
}

int repair_rows(struct repair *rp)
{
	struct fs *fs = rp->fs;
	struct pmfs_tree_root root;
	struct table t = {.rp = rp};
	bool keep;
	int rc;

	store_get_root(rp->st, &root);
	if (mem_is_zero(&root, sizeof(root)))
		return 0; /* nothing was ever in it */
	fs->table.root = le64_get(root.table);
	fs->table.height = le32_get(root.height);
	t.rows = MIN(le32_get(root.rows), PMFS_VOL_ROWS_MAX);
	t.next = MIN(MAX(le64_get(root.next_volume), 1), PMFS_VOL_ID_MAX + 1);
	t.live = le64_get(root.live);
	if (!ptab_valid(&fs->table) || !fs->table.root)
		return -EUCLEAN;
	rc = repair_table(rp, &fs->table, CHECK_ROWS, NULL, &keep);
	if (rc || !keep)
		return rc ? rc : -EUCLEAN;
	t.row = calloc(t.rows + 1, sizeof(*t.row));
	t.changed = calloc(t.rows + 1, sizeof(*t.changed));
	t.name_hash = calloc(t.rows + 1, sizeof(*t.name_hash));
	t.ids = calloc(BITMAP_WORDS(PMFS_VOL_ID_MAX + 1), sizeof(*t.ids));
	rc = t.row && t.changed && t.name_hash && t.ids ? rows_read(&t) : -ENOMEM;
	if (!rc) {
		live_find(&t);
		next_find(&t);
		for (uint32_t i = 0; i < t.rows; i++)
			if (row_used(&t.row[i]))
				row_mend(&t, i);
		rc = live_mend(&t);
	}
	if (!rc)
		rc = rows_write(&t);
	free(t.row);
	free(t.changed);
	free(t.name_hash);
	free(t.ids);
	return rc;
}
