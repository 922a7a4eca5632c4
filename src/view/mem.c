/* SPDX-License-Identifier: BSD-2-Clause */
#include "view/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"

#define PAGE 4096u

/* The root directory of a tmpfs that no path leads to; -1: not possible here. */
static int own_tmpfs(uint64_t limit)
{
	char size[32];
	int ctx, mnt = -1;

	ctx = fsopen("tmpfs", FSOPEN_CLOEXEC);
	if (ctx < 0)
		return -1;
	snprintf(size, sizeof(size), "%llu", (unsigned long long)limit);
	/* Huge pages where whoever maps asks for them; a kernel without them refuses the option. */
	if (fsconfig(ctx, FSCONFIG_SET_STRING, "huge", "advise", 0))
		log_debug("no huge pages for views");
	if (!fsconfig(ctx, FSCONFIG_SET_STRING, "size", size, 0) &&
	    !fsconfig(ctx, FSCONFIG_SET_STRING, "nr_inodes", "0", 0) &&
	    !fsconfig(ctx, FSCONFIG_SET_STRING, "mode", "0700", 0) &&
	    !fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		mnt = fsmount(ctx, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	close(ctx);
	return mnt;
}

void mem_open(struct mem *mm, uint64_t limit, bool own_fs)
{
	const uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (!limit)
		limit = ram / 4;
	mm->limit = ALIGN_DOWN(MAX(limit, (uint64_t)PAGE), PAGE);
	atomic_init(&mm->used, 0);
	mm->root = own_fs ? own_tmpfs(mm->limit) : -1;
}

void mem_close(struct mem *mm)
{
	if (mm->root >= 0)
		close(mm->root);
	mm->root = -1;
}

int mem_file(struct mem *mm)
{
	int fd;

	if (mm->root >= 0)
		fd = openat(mm->root, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	else
		fd = memfd_create("pmfs-view", MFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static uint64_t blocks_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

/* Bytes in [off, end) that have no memory yet. */
static uint64_t holes_in(int fd, uint64_t off, uint64_t end)
{
	uint64_t n = 0;

	while (off < end) {
		const off_t data = lseek(fd, (off_t)off, SEEK_DATA);
		off_t hole;

		if (data < 0 || (uint64_t)data >= end)
			return n + end - off;
		n += (uint64_t)data - off;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole <= data)
			return n;
		off = (uint64_t)hole;
	}
	return n;
}

int mem_charge(struct mem *mm, int fd, uint64_t off, uint64_t len, uint64_t *blocks)
{
	const uint64_t end = ALIGN_UP(off + len, (uint64_t)PAGE);
	uint64_t need, used;

	*blocks = 0;
	if (mm->root >= 0)
		return 0;
	need = holes_in(fd, ALIGN_DOWN(off, (uint64_t)PAGE), end);
	used = atomic_load(&mm->used);
	do {
		if (need > mm->limit || used > mm->limit - need)
			return -ENOSPC;
	} while (!atomic_compare_exchange_weak(&mm->used, &used, used + need));
	*blocks = need;
	return 0;
}

void mem_settle(struct mem *mm, int fd, uint64_t blocks, uint64_t *had)
{
	uint64_t has;

	if (mm->root >= 0)
		return;
	has = fd < 0 ? 0 : blocks_of(fd);
	atomic_fetch_sub(&mm->used, blocks + *had);
	atomic_fetch_add(&mm->used, has);
	*had = has;
}
