/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/surgery.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tree/fs_impl.h"
#include "tree/itable.h"

static void must(const char *what, int rc)
{
	if (rc)
		fail_msg("surgery: %s: %s", what, strerror(-rc));
}

static void begin(struct fsfix *fx, struct txn *tx)
{
	must("begin", txn_begin(fs_store(fx->fs), tx, FRAME_NORMAL, 16));
}

struct volume *surgery_volume(struct fsfix *fx, const char *name)
{
	struct volume *vol;

	if (!name)
		return fx->fs->live;
	vol = volume_get_by_name(fx->fs, name);
	assert_non_null(vol);
	volume_put(vol);
	return vol;
}

vpn_t surgery_page(struct fsfix *fx, const struct ptab *pt, pgno_t pgno)
{
	struct read_section rs;
	vpn_t vpn = VPN_NONE;
	int rc;

	read_enter(fs_store(fx->fs), &rs);
	rc = ptab_get(fs_store(fx->fs), pt, pgno, &vpn);
	read_leave(fs_store(fx->fs), &rs);
	must("page", rc);
	assert_int_not_equal(vpn, VPN_NONE);
	return vpn;
}

void surgery_read(struct fsfix *fx, vpn_t vpn, size_t off, void *buf, size_t len)
{
	must("read", page_read(fs_store(fx->fs), vpn, off, buf, len));
}

void surgery_write(struct fsfix *fx, vpn_t vpn, size_t off, const void *buf, size_t len)
{
	struct txn tx;

	begin(fx, &tx);
	must("write", page_write(&tx, vpn, off, buf, len));
	txn_end(&tx);
}

void surgery_ref(struct fsfix *fx, vpn_t vpn)
{
	struct txn tx;

	begin(fx, &tx);
	must("ref", page_ref(&tx, vpn));
	txn_end(&tx);
}

void surgery_unref(struct fsfix *fx, vpn_t vpn)
{
	struct txn tx;

	begin(fx, &tx);
	must("unref", page_unref(&tx, vpn, NULL));
	txn_end(&tx);
}

vpn_t surgery_new(struct fsfix *fx, const void *contents)
{
	struct txn tx;
	vpn_t vpn;

	begin(fx, &tx);
	must("new", page_new(&tx, contents, &vpn));
	txn_end(&tx);
	return vpn;
}

void surgery_get(struct fsfix *fx, struct volume *vol, uint64_t ino, struct pmfs_inode *rec)
{
	surgery_read(fx, surgery_page(fx, &vol->inodes, ino / PMFS_INODES_PER_PAGE),
		     ino % PMFS_INODES_PER_PAGE * sizeof(*rec), rec, sizeof(*rec));
}

void surgery_put(struct fsfix *fx, struct volume *vol, uint64_t ino, const struct pmfs_inode *rec)
{
	surgery_write(fx, surgery_page(fx, &vol->inodes, ino / PMFS_INODES_PER_PAGE),
		      ino % PMFS_INODES_PER_PAGE * sizeof(*rec), rec, sizeof(*rec));
}

void surgery_rot(struct fsfix *fx, vpn_t vpn, size_t off)
{
	struct page_info info;
	uint8_t byte;
	vpn_t other;
	off_t at;
	int fd;

	/* A page of the newest generation that does not match its hash makes that generation void.
	 * So there is another one. */
	must("commit", fs_sync(fx->fs));
	other = surgery_new(fx, NULL);
	must("commit", fs_sync(fx->fs));
	surgery_unref(fx, other);
	must("commit", fs_sync(fx->fs));
	must("info", page_info(fs_store(fx->fs), vpn, &info));
	fsfix_stop(fx);
	at = (off_t)(info.pfn * PMFS_PAGE_SIZE + off);
	fd = open(fx->image, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0xff;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
	fsfix_start(fx);
}
