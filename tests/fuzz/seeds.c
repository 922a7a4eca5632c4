/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * seeds DIRECTORY: write the images that the fuzzers of images begin with.  Every structure of the
 * format is in one of them, and all are small.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "fuzz/image.h"
#include "store/store.h"
#include "tree/fs.h"

static const struct fs_cred cred = {1000, 1000};
static const char *directory;
static char path[4096];

static void must(int rc, const char *what)
{
	if (rc)
		fuzz_fail("%s: %s", what, strerror(-rc));
}

static struct fs *start(void)
{
	const struct store_format how = {
		.limit_bytes = 8u << 20, .uuid = {1}, .label = "seed", .force = true};
	const struct fs_config cfg = {.store = {.path = path}, .root_mode = 0755};
	struct store_error err;
	struct fs *fs;

	must(store_format(path, &how, &err), "format");
	must(fs_open(&fs, &cfg, &err), "open");
	return fs;
}

static void save(const char *name)
{
	static uint8_t bytes[FUZZ_MAX];
	const size_t size = image_pack(path, bytes, sizeof(bytes));
	char to[4200];
	FILE *f;

	if (!size)
		fuzz_fail("%s: too large", name);
	snprintf(to, sizeof(to), "%s/%s", directory, name);
	f = fopen(to, "we");
	if (!f || fwrite(bytes, 1, size, f) != size || fclose(f))
		fuzz_fail("%s: can't be written", to);
	printf("%-12s %6zu bytes\n", name, size);
}

static void finish(struct fs *fs, const char *name)
{
	must(fs_close(fs), "close");
	save(name);
}

static uint64_t make(struct fs *fs, uint64_t dir, const char *name, uint32_t mode)
{
	struct fs_attr a;

	if (S_ISDIR(mode))
		must(fs_mkdir(fs, dir, name, strlen(name), mode, &cred, &a), name);
	else
		must(fs_mknod(fs, dir, name, strlen(name), mode, 0, &cred, &a), name);
	return a.id;
}

static void put(struct fs *fs, uint64_t id, uint64_t at, const char *text)
{
	if (fs_write(fs, id, at, text, strlen(text), 0) != (ssize_t)strlen(text))
		fuzz_fail("write");
}

static void set(struct fs *fs, uint64_t id, const char *name, const char *value, size_t len)
{
	must(fs_setxattr(fs, id, name, value, len, 0), name);
}

static void unlink_in(struct fs *fs, uint64_t dir, const char *name)
{
	must(fs_unlink(fs, dir, name, strlen(name)), name);
}

/* Files of each kind, sizes from inline to three levels of tables. */
static void files(void)
{
	static const uint64_t at[] = {0, 5000, 3 << 20, UINT64_C(5) << 30, UINT64_C(1) << 50};
	struct fs *fs = start();
	const uint64_t root = fs_root(fs);
	struct fs_attr a;
	char name[32];
	uint64_t id;

	put(fs, make(fs, root, "inline", S_IFREG | 0644), 0, "a few bytes");
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		snprintf(name, sizeof(name), "file%zu", i);
		id = make(fs, root, name, S_IFREG | 0644);
		put(fs, id, at[i],
		    "contents that are more than what would fit into the record of an inode, "
		    "which is as much as one hundred and twelve bytes and not more");
		put(fs, id, 8192 + 10, "more");
	}
	id = make(fs, root, "reserved", S_IFREG | 0600);
	must(fs_fallocate(fs, id, 0, 0, 40960), "fallocate");
	put(fs, id, 4096, "written");
	must(fs_link(fs, id, root, "link", 4, &a), "link");
	must(fs_symlink(fs, root, "symlink", 7, "inline", &cred, &a), "symlink");
	make(fs, root, "fifo", S_IFIFO | 0600);
	make(fs, root, "device", S_IFCHR | 0600);
	id = make(fs, root, "ringlog", S_IFREG | 0600);
	set(fs, id, FS_RINGLOG, "64K", 3);
	for (unsigned i = 0; i < 20; i++)
		put(fs, id, i * 4096, "a line of the log\n");
	finish(fs, "files");
}

/* Directories of three levels of pages, in directories; some of their pages are free again. */
static void directories(void)
{
	struct fs *fs = start();
	uint64_t dir = make(fs, fs_root(fs), "large", S_IFDIR | 0755);
	char name[300];

	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < 60; i++) {
		name[snprintf(name, sizeof(name), "%03u", i)] = '-';
		name[250] = 0;
		make(fs, dir, name, S_IFREG | 0644);
	}
	for (unsigned i = 20; i < 50; i++) {
		name[snprintf(name, sizeof(name), "%03u", i)] = '-';
		unlink_in(fs, dir, name);
	}
	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "level%u", i);
		dir = make(fs, dir, name, S_IFDIR | 0755);
	}
	must(fs_make_hidden(fs), "hidden");
	make(fs, fs_hidden(fs, fs_root(fs)), "in-hidden", S_IFREG | 0600);
	finish(fs, "directories");
}

static void attributes(void)
{
	/* struct acl_head and five entries */
	static const uint8_t acl[] = {2,   0,	0,   0,	  1,   0,   6,	0,   255, 255, 255,
				      255, 2,	0,   4,	  0,   1,   0,	0,   0,	  4,   0,
				      4,   0,	255, 255, 255, 255, 16, 0,   4,	  0,   255,
				      255, 255, 255, 32,  0,   0,   0,	255, 255, 255, 255};
	struct fs *fs = start();
	const uint64_t id = make(fs, fs_root(fs), "file", S_IFREG | 0644);
	const uint64_t dir = make(fs, fs_root(fs), "dir", S_IFDIR | 0755);
	char value[6000] = "a value of more than one page";

	set(fs, id, "user.small", "1", 1);
	set(fs, id, "user.empty", "", 0);
	set(fs, id, "trusted.long", value, sizeof(value));
	set(fs, id, "system.posix_acl_access", (const char *)acl, sizeof(acl));
	set(fs, dir, "system.posix_acl_default", (const char *)acl, sizeof(acl));
	must(fs_set_flags(fs, id, PMFS_INODE_USER, PMFS_INODE_APPEND | PMFS_INODE_NODUMP), "flags");
	finish(fs, "attributes");
}

static void snapshots(void)
{
	struct fs *fs = start();
	const uint64_t root = fs_root(fs), dir = make(fs, root, "dir", S_IFDIR | 0755);
	uint64_t id = make(fs, root, "file", S_IFREG | 0644);
	char name[32];

	for (unsigned i = 0; i < 4; i++) {
		put(fs, id, i * 4096, "changed in each of the snapshots");
		snprintf(name, sizeof(name), "f%u", i);
		put(fs, make(fs, dir, name, S_IFREG | 0644), 0, name);
		snprintf(name, sizeof(name), "snap%u", i);
		must(fs_snap_create(fs, name, "with a message", NULL), name);
	}
	unlink_in(fs, dir, "f0");
	must(fs_snap_rename(fs, "snap1", "renamed"), "rename");
	finish(fs, "snapshots");
}

/* A crash while a deleted snapshot is taken apart and files without a name are open. */
static void crashed(void)
{
	struct fs *fs = start();
	const uint64_t root = fs_root(fs), id = make(fs, root, "file", S_IFREG | 0644);

	for (unsigned i = 0; i < 30; i++)
		put(fs, id, i * 8192, "of the deleted snapshot");
	must(fs_snap_create(fs, "deleted", NULL, NULL), "create");
	put(fs, id, 4096, "of the live volume");
	make(fs, root, "open", S_IFREG | 0644);
	unlink_in(fs, root, "open");
	must(fs_snap_create(fs, "kept", NULL, NULL), "create");
	must(fs_snap_delete(fs, "deleted"), "delete");
	must(fs_sync(fs), "sync");
	fs_abandon(fs);
	save("crashed");
}

/* Changes in the slot that are not in the page map's tree yet, and a tree below it. */
static void deltas(void)
{
	struct fs *fs = start();
	const uint64_t root = fs_root(fs);
	uint64_t id;

	id = make(fs, root, "file", S_IFREG | 0644);
	for (unsigned i = 0; i < 300; i++)
		put(fs, id, i * 8192, "x");
	must(store_fold(fs_store(fs)), "fold");
	put(fs, id, 5 * 8192, "only in the slot");
	unlink_in(fs, root, "file");
	make(fs, root, "new", S_IFDIR | 0755);
	must(fs_sync(fs), "sync");
	fs_abandon(fs);
	save("deltas");
}

static void empty(void)
{
	const struct store_format how = {.limit_bytes = 4u << 20, .uuid = {2}, .force = true};
	struct store_error err;

	must(store_format(path, &how, &err), "format");
	save("formatted");
	finish(start(), "empty");
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: seeds DIRECTORY\n");
		return 2;
	}
	directory = argv[1];
	fuzz_quiet();
	snprintf(path, sizeof(path), "%.4000s/image.tmp", directory);
	empty();
	files();
	directories();
	attributes();
	snapshots();
	crashed();
	deltas();
	unlink(path);
	return 0;
}
