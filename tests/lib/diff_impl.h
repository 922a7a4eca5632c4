/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * diff_impl.h - what the files of the differential tester's operations share; diffops.h is for others.
 */
#ifndef PMFS_TESTS_LIB_DIFF_IMPL_H
#define PMFS_TESTS_LIB_DIFF_IMPL_H

#include "lib/diffops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PAGE	INT64_C(4096)
#define USER_ID 1000u
#define IO_MAX	INT64_C(131072)
/* Offsets are drawn below FILE_SPAN, and now and then from FAR on, past 4 GiB. */
#define FILE_SPAN INT64_C(400000)
#define FAR	  (INT64_C(5) << 30)
/* Of a file that is longer, two pieces of this length are compared: its begin and what is at FAR. */
#define LOOK_BYTES   (INT64_C(2) << 20)
#define LOOSE_MAX    1024u
#define PATH_NAMES   3u
#define HANDLE_BYTES 128u

struct mapping {
	uint8_t *at; /* NULL: not in use */
	size_t len;
	int64_t off;
	bool shared;
	bool writable;
	int fd;
};

struct loose {
	unsigned count;
	ino_t ino[LOOSE_MAX];
};

/* What name_to_handle_at(2) gave. */
struct saved_handle {
	bool set;
	struct {
		unsigned bytes;
		int type;
		uint8_t id[HANDLE_BYTES];
	} h;
};

struct world {
	int top;
	unsigned features;
	int fd[DIFF_HANDLES];
	struct mapping map[DIFF_MAPS];
	struct saved_handle saved[DIFF_HANDLES];
	struct timespec begin;
	struct loose times, holes;
	uint8_t *buf;  /* DIFF_DATA_BYTES, on a page boundary */
	uint8_t *text; /* the same, for what is put together out of `buf` */
};

/* One operation as it runs. */
struct run {
	struct world *w;
	struct diff_outcome *o;
	const int64_t *f;
	int fd, fd2; /* of the handles; -1 when not open */
	int at;
	char path[PATH_MAX];
	char path2[PATH_MAX];
};

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

/* The result of the system call, with errno when it is negative. */
typedef long diff_do(struct run *r);

/* diffio.c */
diff_do do_open, do_close, do_dup, do_setfl, do_read, do_pread, do_preadv, do_write, do_pwrite, do_pwritev2,
	do_lseek, do_ftruncate, do_truncate, do_fallocate, do_extents, do_copy, do_sendfile, do_sync, do_mmap,
	do_munmap, do_load, do_store, do_peek, do_msync, do_flock, do_lock_range, do_lease;
/* diffmeta.c */
diff_do do_mkdir, do_rmdir, do_unlink, do_link, do_link_handle, do_symlink, do_readlink, do_rename, do_mknod, do_stat,
	do_access, do_chmod, do_fchmod, do_chown, do_fchown, do_utimens, do_futimens, do_setxattr, do_fsetxattr,
	do_getxattr, do_removexattr, do_listxattr, do_setacl, do_getacl, do_list, do_list_handle, do_statfs, do_setflags,
	do_guarded, do_remember, do_recall;

/* diffops.c */
uint64_t hash_bytes(uint64_t h, const void *data, size_t len);
/* `value` 0: zeros; else bytes that are none and depend on it. */
void fill(uint8_t *to, size_t len, int64_t value);

/* diffio.c: what an operation says that can't or need not be done. */
long skipped(struct run *r);
size_t length(const struct run *r);
/* The first n bytes of the world's buffer are the outcome's data, if n > 0. */
void set_data(struct run *r, long n);
/* The name of a path for calls that know no "at"; PATH_MAX bytes. */
void through_proc(const struct run *r, char *name);
void extents(struct world *w, struct diff_outcome *o, int fd, bool loose);
void on_bus(int sig);
void map_drop(struct mapping *m);

/* diffsurvey.c */
void fact(struct diff_outcome *o, const char *what, int64_t value);
void text_add(struct diff_outcome *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What names look like in a line: one word, printable, the long ones cut. */
void text_name(struct diff_outcome *o, const char *name);
int compare_strings(const void *a, const void *b);
bool is_loose(const struct loose *l, ino_t ino);
/* Need not have holes where the reference has them. */
bool holes_are_loose(const struct world *w, ino_t ino);
void loosen(struct loose *l, int fd);
void attributes(struct world *w, struct diff_outcome *o, const struct stat *st);
void path_facts(struct world *w, struct diff_outcome *o, int at, const char *path);
void handle_facts(struct world *w, struct diff_outcome *o, int fd);
/* The flags of chattr(1) that are compared, of an open file; 0 where there are none. */
unsigned shown_flags(int fd);

#endif
