/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "base/hash.h"
#include "tree/fs_impl.h"
#include "tree/itable.h"
#include "tree/reclaim.h"

#define ROWS_PER_PAGE (PMFS_PAGE_SIZE / (uint32_t)sizeof(struct pmfs_volume))
/* The part of a row that changes as the tree does: all before its name. */
#define ROW_HEAD offsetof(struct pmfs_volume, name)

/* The root and the orphan directory of a new image, and their row. */
#define FIRST_VOLUME_COST (3 * ITABLE_COST + VOLUME_ROW_COST)

struct volume *volume_new(struct fs *fs)
{
	struct volume *vol = calloc(1, sizeof(*vol));

	if (!vol)
		return NULL;
	vol->fs = fs;
	mutex_init(&vol->lock, LOCK_ITABLE);
	return vol;
}

void volume_free(struct volume *vol)
{
	if (!vol)
		return;
	mutex_destroy(&vol->lock);
	free(vol);
}

/* ------------------------------------------------------------------ rows */

static void row_encode(const struct volume *vol, struct pmfs_volume *rec)
{
	memset(rec, 0, sizeof(*rec));
	le32_put(&rec->state, atomic_load(&vol->state));
	le64_put(&rec->id, vol->id);
	le64_put(&rec->generation, vol->generation);
	le64_put(&rec->created_ns, vol->created_ns);
	ptab_encode(&vol->inodes, &rec->inodes);
	le64_put(&rec->next_ino, vol->next_ino);
	le64_put(&rec->free_ino, vol->free_ino);
	le64_put(&rec->inodes_used, vol->inodes_used);
	le64_put(&rec->data_pages, vol->data_pages);
	le64_put(&rec->hidden, atomic_load(&vol->hidden));
}

/* zero terminated and padded? */
bool volume_text_valid(const uint8_t *text, size_t size)
{
	const uint8_t *end = memchr(text, 0, size);

	return end && mem_is_zero(end, size - (size_t)(end - text));
}

const char *volume_row_decode(const struct pmfs_volume *rec, uint64_t next_volume,
			      struct volume *vol)
{
	const uint32_t state = le32_get(rec->state);

	if (state < PMFS_VOL_LIVE || state > PMFS_VOL_DYING)
		return "a row of the volume table has an unknown state";
	if (!le64_get(rec->id) || le64_get(rec->id) >= next_volume)
		return "a row of the volume table has an impossible id";
	if (!volume_text_valid(rec->name, sizeof(rec->name)) ||
	    !volume_text_valid(rec->message, sizeof(rec->message)))
		return "a row of the volume table has a name that does not end";
	if ((state == PMFS_VOL_SNAPSHOT) != (rec->name[0] != 0))
		return "a volume has a name that should have none, or the reverse";
	atomic_init(&vol->state, state);
	vol->id = le64_get(rec->id);
	vol->generation = le64_get(rec->generation);
	vol->created_ns = le64_get(rec->created_ns);
	vol->inodes = ptab_decode(&rec->inodes);
	vol->next_ino = le64_get(rec->next_ino);
	vol->free_ino = le64_get(rec->free_ino);
	vol->inodes_used = le64_get(rec->inodes_used);
	vol->data_pages = le64_get(rec->data_pages);
	atomic_init(&vol->hidden, le64_get(rec->hidden));
	memcpy(vol->name, rec->name, sizeof(vol->name));
	memcpy(vol->message, rec->message, sizeof(vol->message));
	if (!ptab_valid(&vol->inodes) || (state != PMFS_VOL_DYING && !vol->inodes.root))
		return "a volume's inode file has an impossible root";
	if (vol->next_ino < PMFS_INO_FIRST || vol->next_ino > NODE_INO(UINT64_MAX))
		return "a volume has an impossible number of inodes";
	if (vol->free_ino >= vol->next_ino)
		return "a volume's list of free inodes starts at an impossible number";
	if (le64_get(rec->hidden) >= vol->next_ino ||
	    (le64_get(rec->hidden) && le64_get(rec->hidden) < PMFS_INO_FIRST))
		return "a volume's hidden directory has an impossible number";
	return NULL;
}

static void table_root_store(struct txn *tx, const struct fs *fs)
{
	struct pmfs_tree_root root = {0};

	le64_put(&root.table, fs->table.root);
	le32_put(&root.height, fs->table.height);
	le32_put(&root.rows, fs->rows);
	le64_put(&root.next_volume, fs->next_volume);
	le64_put(&root.live, fs->live->id);
	store_set_root(tx, &root);
}

/* Locks: table_lock held. */
static int row_write_locked(struct txn *tx, struct fs *fs, uint32_t row, const void *rec,
			    size_t len)
{
	const struct ptab before = fs->table;
	int rc;

	mutex_assert_held(&fs->table_lock);
	rc = ptab_write(tx, &fs->table, NULL, row / ROWS_PER_PAGE,
			row % ROWS_PER_PAGE * sizeof(struct pmfs_volume), rec, len, NULL);
	if (fs->table.root != before.root || fs->table.height != before.height)
		table_root_store(tx, fs);
	return rc;
}

static int row_write(struct txn *tx, struct fs *fs, uint32_t row, const void *rec, size_t len)
{
	int rc;

	mutex_lock(&fs->table_lock);
	rc = row_write_locked(tx, fs, row, rec, len);
	mutex_unlock(&fs->table_lock);
	return rc;
}

int volume_store_row(struct txn *tx, struct volume *vol)
{
	struct pmfs_volume rec;

	mutex_assert_held(&vol->lock);
	row_encode(vol, &rec);
	return row_write(tx, vol->fs, vol->row, &rec, ROW_HEAD);
}

int volume_store_as(struct txn *tx, struct volume *vol, uint32_t state, const char *name,
		    const char *message)
{
	struct pmfs_volume rec;

	mutex_assert_held(&vol->lock);
	row_encode(vol, &rec);
	le32_put(&rec.state, state);
	memcpy(rec.name, name, strnlen(name, PMFS_VOL_NAME_MAX));
	memcpy(rec.message, message, strnlen(message, PMFS_VOL_MESSAGE_MAX));
	return row_write(tx, vol->fs, vol->row, &rec, sizeof(rec));
}

int volume_erase_row(struct txn *tx, struct volume *vol)
{
	const struct pmfs_volume rec = {0};

	return row_write(tx, vol->fs, vol->row, &rec, sizeof(rec));
}

/* The lowest row that no volume has.  Locks: snap_lock held, so rows can only become free
 * meanwhile. */
static int row_find(struct fs *fs, uint32_t *row)
{
	rw_rdlock(&fs->volumes_lock);
	*row = (uint32_t)bit_find_zero(fs->rows_used, PMFS_VOL_ROWS_MAX, 0);
	rw_unlock(&fs->volumes_lock);
	return *row < PMFS_VOL_ROWS_MAX ? 0 : -EMFILE;
}

int volume_fork(struct txn *tx, struct volume *vol)
{
	struct fs *fs = vol->fs;
	struct volume *live = fs->live;
	uint32_t rows, row;
	int rc;

	mutex_assert_held(&fs->snap_lock);
	rc = row_find(fs, &row);
	if (rc)
		return rc;
	mutex_lock(&live->lock);
	mutex_lock(&fs->table_lock);
	rows = fs->rows;
	vol->id = fs->next_volume;
	if (vol->id > PMFS_VOL_ID_MAX) {
		rc = -EMFILE;
		goto out;
	}
	rc = page_ref(tx, live->inodes.root); /* V1 */
	if (rc)
		goto out;
	vol->row = row;
	vol->generation = store_generation(fs->st);
	vol->inodes = live->inodes;
	vol->next_ino = live->next_ino;
	vol->free_ino = live->free_ino;
	vol->inodes_used = live->inodes_used;
	vol->data_pages = live->data_pages;
	atomic_store(&vol->hidden, atomic_load(&live->hidden));
	fs->next_volume++;
	fs->rows = MAX(rows, row + 1);
	{
		struct pmfs_volume rec;

		row_encode(vol, &rec);
		memcpy(rec.name, vol->name, sizeof(rec.name));
		memcpy(rec.message, vol->message, sizeof(rec.message));
		rc = row_write_locked(tx, fs, row, &rec, sizeof(rec));
	}
	if (rc) {
		fs->next_volume--;
		fs->rows = rows;
		page_unref(tx, live->inodes.root, NULL);
		goto out;
	}
	table_root_store(tx, fs);
out:
	mutex_unlock(&fs->table_lock);
	mutex_unlock(&live->lock);
	return rc;
}

/* ------------------------------------------------------------------ the list */

/* Locks of these: volumes_lock, or nobody else knows the fs yet. */
static void step(struct fs *fs)
{
	atomic_fetch_add_explicit(&fs->volume_steps, 1, memory_order_relaxed);
}

static struct volume *by_id(struct fs *fs, uint64_t id)
{
	struct volume *vol = fs->by_id[id % VOLUME_BUCKETS];

	for (; vol && vol->id != id; vol = vol->hash_next)
		step(fs);
	return vol;
}

static struct volume **name_bucket(struct fs *fs, const char *name)
{
	return &fs->by_name[hash64(name, strlen(name)) % VOLUME_BUCKETS];
}

static struct volume *by_name(struct fs *fs, const char *name)
{
	struct volume *vol = *name_bucket(fs, name);

	for (; vol && strcmp(vol->name, name); vol = vol->name_next)
		step(fs);
	return vol;
}

static void id_insert(struct fs *fs, struct volume *vol)
{
	vol->hash_next = fs->by_id[vol->id % VOLUME_BUCKETS];
	fs->by_id[vol->id % VOLUME_BUCKETS] = vol;
}

/* Where it is found by its name and state. */
static void state_insert(struct fs *fs, struct volume *vol)
{
	if (atomic_load(&vol->state) == PMFS_VOL_DYING)
		atomic_fetch_add(&fs->dying, 1);
	if (!vol->name[0])
		return;
	vol->name_next = *name_bucket(fs, vol->name);
	*name_bucket(fs, vol->name) = vol;
}

static void state_remove(struct fs *fs, struct volume *vol)
{
	struct volume **at = name_bucket(fs, vol->name);

	if (atomic_load(&vol->state) == PMFS_VOL_DYING)
		atomic_fetch_sub(&fs->dying, 1);
	if (!vol->name[0])
		return;
	for (; *at != vol; at = &(*at)->name_next)
		step(fs);
	*at = vol->name_next;
}

/* Behind all with a lower id: nearly always the end. */
static void list_insert(struct fs *fs, struct volume *vol)
{
	struct volume *before = fs->last;

	for (; before && before->id > vol->id; before = before->prev)
		step(fs);
	vol->prev = before;
	vol->next = before ? before->next : fs->volumes;
	*(before ? &before->next : &fs->volumes) = vol;
	*(vol->next ? &vol->next->prev : &fs->last) = vol;
	bit_set(fs->rows_used, vol->row);
	state_insert(fs, vol);
}

void volume_add(struct volume *vol)
{
	struct fs *fs = vol->fs;

	mutex_assert_held(&fs->snap_lock);
	rw_wrlock(&fs->volumes_lock);
	id_insert(fs, vol);
	list_insert(fs, vol);
	rw_unlock(&fs->volumes_lock);
}

void volume_become(struct volume *vol, uint32_t state, const char *name, const char *message)
{
	struct fs *fs = vol->fs;

	rw_wrlock(&fs->volumes_lock);
	state_remove(fs, vol);
	atomic_store(&vol->state, state);
	memset(vol->name, 0, sizeof(vol->name));
	memcpy(vol->name, name, strlen(name));
	if (!message[0])
		memset(vol->message, 0, sizeof(vol->message));
	state_insert(fs, vol);
	rw_unlock(&fs->volumes_lock);
}

void volume_remove(struct volume *vol)
{
	struct fs *fs = vol->fs;
	struct volume **at = &fs->by_id[vol->id % VOLUME_BUCKETS];

	rw_wrlock(&fs->volumes_lock);
	*(vol->prev ? &vol->prev->next : &fs->volumes) = vol->next;
	*(vol->next ? &vol->next->prev : &fs->last) = vol->prev;
	bit_clear(fs->rows_used, vol->row);
	state_remove(fs, vol);
	for (; *at != vol; at = &(*at)->hash_next)
		step(fs);
	*at = vol->hash_next;
	rw_unlock(&fs->volumes_lock);
	volume_free(vol);
}

struct volume *volume_get(struct fs *fs, uint64_t id)
{
	struct volume *vol;

	if (id == fs->live->id) {
		atomic_fetch_add(&fs->live->users, 1);
		return fs->live;
	}
	rw_rdlock(&fs->volumes_lock);
	vol = by_id(fs, id);
	if (vol && atomic_load(&vol->state) == PMFS_VOL_DYING)
		vol = NULL;
	if (vol)
		atomic_fetch_add(&vol->users, 1);
	rw_unlock(&fs->volumes_lock);
	return vol;
}

struct volume *volume_get_by_name(struct fs *fs, const char *name)
{
	struct volume *vol;

	rw_rdlock(&fs->volumes_lock);
	vol = name[0] ? by_name(fs, name) : NULL;
	if (vol)
		atomic_fetch_add(&vol->users, 1);
	rw_unlock(&fs->volumes_lock);
	return vol;
}

struct volume *volume_next(struct fs *fs, uint64_t after)
{
	struct volume *vol;

	rw_rdlock(&fs->volumes_lock);
	vol = after ? by_id(fs, after) : NULL;
	/* It can be gone meanwhile. */
	for (vol = vol ? vol->next : fs->volumes; vol && vol->id <= after; vol = vol->next)
		step(fs);
	if (vol)
		atomic_fetch_add(&vol->users, 1);
	rw_unlock(&fs->volumes_lock);
	return vol;
}

void volume_put(struct volume *vol)
{
	struct fs *fs = vol->fs;
	/* Once the count has gone down the reclaimer can free the volume at any time. */
	const bool can_die = vol != fs->live;

	if (atomic_fetch_sub(&vol->users, 1) == 1 && can_die)
		reclaim_kick(fs);
}

struct volume *volume_next_dying(struct fs *fs)
{
	struct volume *vol;

	if (!atomic_load(&fs->dying))
		return NULL;
	rw_rdlock(&fs->volumes_lock);
	for (vol = fs->volumes; vol; vol = vol->next) {
		if (atomic_load(&vol->state) == PMFS_VOL_DYING && !atomic_load(&vol->users) &&
		    !atomic_load(&vol->stuck))
			break;
		step(fs);
	}
	rw_unlock(&fs->volumes_lock);
	return vol;
}

/* ------------------------------------------------------------------ loading */

/* A directory that no other has in it. */
static int make_directory(struct txn *tx, struct volume *vol, uint64_t ino, uint64_t generation,
			  uint32_t mode)
{
	struct inode in = {.vol = vol, .ino = ino};
	int rc;

	in.mode = S_IFDIR | mode;
	in.uid = vol->fs->root_uid;
	in.gid = vol->fs->root_gid;
	in.nlink = 2;
	in.parent = ino;
	in.generation = generation;
	now(&in.btime);
	in.atime = in.mtime = in.ctime = in.btime;
	rw_init(&in.lock, LOCK_INODE);
	rc = itable_store(tx, &in);
	rw_destroy(&in.lock);
	return rc;
}

int fs_make_hidden(struct fs *fs)
{
	struct volume *vol = fs->live;
	uint64_t ino, generation;
	struct txn tx;
	int rc;

	if (fs->read_only)
		return -EROFS;
	/* One at a time, and no snapshot in between. */
	mutex_lock(&fs->snap_lock);
	rc = atomic_load(&vol->hidden) ? -EEXIST : 0;
	if (!rc)
		rc = txn_begin(fs->st, &tx, FRAME_NORMAL, 2 * ITABLE_COST + VOLUME_ROW_COST);
	if (rc)
		goto out;
	rc = itable_alloc(&tx, vol, &ino, &generation);
	if (!rc)
		rc = make_directory(&tx, vol, ino, generation, 0755);
	if (!rc) {
		atomic_store(&vol->hidden, ino);
		mutex_lock(&vol->lock);
		rc = volume_store_row(&tx, vol);
		mutex_unlock(&vol->lock);
	}
	txn_end(&tx);
out:
	mutex_unlock(&fs->snap_lock);
	return rc == -EEXIST ? 0 : rc;
}

uint64_t fs_hidden(struct fs *fs, uint64_t id)
{
	struct volume *vol = volume_get(fs, NODE_VOLUME(id));
	uint64_t ino = 0;

	if (vol) {
		ino = atomic_load(&vol->hidden);
		volume_put(vol);
	}
	return ino ? NODE_ID(NODE_VOLUME(id), ino) : 0;
}

static int make_first(struct fs *fs, const char **what)
{
	struct volume *vol = volume_new(fs);
	struct pmfs_volume rec;
	struct txn tx;
	int rc;

	if (!vol)
		return -ENOMEM;
	*what = "the first volume of the new image could not be made";
	vol->id = 1;
	vol->generation = store_generation(fs->st);
	vol->created_ns = store_created_ns(fs->st);
	vol->next_ino = PMFS_INO_FIRST;
	vol->inodes_used = PMFS_INO_FIRST - 1;
	atomic_init(&vol->state, PMFS_VOL_LIVE);
	id_insert(fs, vol);
	list_insert(fs, vol);
	fs->live = vol;
	rc = txn_begin(fs->st, &tx, FRAME_NORMAL, FIRST_VOLUME_COST);
	if (rc)
		return rc;
	fs->next_volume = 2;
	fs->rows = 1;
	row_encode(vol, &rec);
	rc = row_write(&tx, fs, 0, &rec, sizeof(rec));
	if (!rc)
		rc = make_directory(&tx, vol, PMFS_INO_ROOT, 1, fs->root_mode);
	if (!rc)
		rc = make_directory(&tx, vol, PMFS_INO_ORPHANS, 1, 0700);
	txn_end(&tx);
	return rc;
}

static int load_row(struct fs *fs, uint32_t row, const struct pmfs_volume *rec, const char **what)
{
	struct volume *vol;

	if (mem_is_zero(rec, sizeof(*rec)))
		return 0;
	vol = volume_new(fs);
	if (!vol)
		return -ENOMEM;
	vol->row = row;
	*what = volume_row_decode(rec, fs->next_volume, vol);
	if (!*what && by_id(fs, vol->id))
		*what = "two volumes have the same id";
	if (*what) {
		volume_free(vol);
		return -EUCLEAN;
	}
	id_insert(fs, vol);
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	const struct volume *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

/* Two snapshots of one name would hide one of them.  1: all differ, 0, -ENOMEM. */
static int names_differ(const struct fs *fs)
{
	const struct volume **named = malloc((fs->rows + 1) * sizeof(struct volume *));
	size_t n = 0;
	int rc = 1;

	if (!named)
		return -ENOMEM;
	for (const struct volume *vol = fs->volumes; vol; vol = vol->next)
		if (vol->name[0])
			named[n++] = vol;
	qsort(named, n, sizeof(*named), compare_names);
	for (size_t i = 1; i < n && rc; i++)
		rc = strcmp(named[i - 1]->name, named[i]->name) != 0;
	free(named);
	return rc;
}

static int oldest_first(const void *a, const void *b)
{
	const struct volume *const *x = a, *const *y = b;

	return ((*x)->id > (*y)->id) - ((*x)->id < (*y)->id);
}

/* The list, in the order of the ids, of what the rows have put into the hash. */
static int list_load(struct fs *fs)
{
	struct volume **all = malloc((fs->rows + 1) * sizeof(struct volume *));
	size_t n = 0;

	if (!all)
		return -ENOMEM;
	for (size_t i = 0; i < VOLUME_BUCKETS; i++)
		for (struct volume *vol = fs->by_id[i]; vol; vol = vol->hash_next)
			all[n++] = vol;
	qsort(all, n, sizeof(*all), oldest_first);
	for (size_t i = 0; i < n; i++)
		list_insert(fs, all[i]);
	free(all);
	return 0;
}

static int load_rows(struct fs *fs, uint64_t live, const char **what)
{
	struct pmfs_volume page[ROWS_PER_PAGE];
	vpn_t vpn;
	int rc;

	for (uint32_t row = 0; row < fs->rows; row++) {
		*what = "the volume table is damaged";
		if (row % ROWS_PER_PAGE == 0) {
			rc = ptab_get(fs->st, &fs->table, row / ROWS_PER_PAGE, &vpn);
			if (!rc)
				rc = vpn ? page_read(fs->st, vpn, 0, page, sizeof(page)) : -EUCLEAN;
			if (rc)
				return rc;
		}
		rc = load_row(fs, row, &page[row % ROWS_PER_PAGE], what);
		if (rc)
			return rc;
	}
	rc = list_load(fs);
	if (rc)
		return rc;
	for (const struct volume *vol = fs->volumes; vol; vol = vol->next) {
		if ((atomic_load(&vol->state) == PMFS_VOL_LIVE) != (vol->id == live)) {
			*what = "the superblock and the volume table differ in which volume is "
				"live";
			return -EUCLEAN;
		}
	}
	*what = "there is no live volume";
	fs->live = by_id(fs, live);
	if (!fs->live)
		return -EUCLEAN;
	*what = "two snapshots have the same name";
	rc = names_differ(fs);
	return rc < 0 ? rc : rc ? 0 : -EUCLEAN;
}

int volumes_load(struct fs *fs, const char **what)
{
	struct pmfs_tree_root root;
	uint64_t live;

	*what = "";
	store_get_root(fs->st, &root);
	if (mem_is_zero(&root, sizeof(root))) {
		if (!fs->read_only)
			return make_first(fs, what);
		*what = "the image is new and has nothing in it yet; mount it once without -o ro";
		return -EROFS;
	}
	fs->table.root = le64_get(root.table);
	fs->table.height = le32_get(root.height);
	fs->rows = le32_get(root.rows);
	fs->next_volume = le64_get(root.next_volume);
	live = le64_get(root.live);
	if (!ptab_valid(&fs->table) || !fs->table.root || fs->rows > PMFS_VOL_ROWS_MAX ||
	    fs->next_volume > PMFS_VOL_ID_MAX + 1 || live >= fs->next_volume) {
		*what = "the superblock's description of the volume table is impossible";
		return -EUCLEAN;
	}
	return load_rows(fs, live, what);
}

void volumes_unload(struct fs *fs)
{
	for (size_t i = 0; i < VOLUME_BUCKETS; i++) {
		while (fs->by_id[i]) {
			struct volume *vol = fs->by_id[i];

			fs->by_id[i] = vol->hash_next;
			volume_free(vol);
		}
	}
	fs->volumes = fs->last = NULL;
	fs->live = NULL;
}
