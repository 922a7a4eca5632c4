/* SPDX-License-Identifier: BSD-2-Clause */
#include "tree/xattr.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/bits.h"
#include "tree/fs_impl.h"

#define HEAD sizeof(struct pmfs_xattr)
#define PAGES(bytes) DIV_ROUND_UP((bytes), PMFS_PAGE_SIZE)

/* A record inside a stream. */
struct rec {
	size_t at, bytes; /* all of it */
	const char *name;
	size_t name_len;
	const uint8_t *value;
	size_t value_len;
};

static struct store *store_of(const struct inode *in)
{
	return in->vol->fs->st;
}

/* The record at rec->at + rec->bytes: 1, 0 at the end, -EUCLEAN.  Begin with a zeroed rec. */
static int rec_next(const uint8_t *buf, size_t len, struct rec *rec)
{
	struct pmfs_xattr head;

	rec->at += rec->bytes;
	if (rec->at == len)
		return 0;
	if (len - rec->at < HEAD)
		return -EUCLEAN;
	/* Records have no alignment. */
	memcpy(&head, buf + rec->at, HEAD);
	rec->name_len = le16_get(head.name_len);
	rec->value_len = le32_get(head.value_len);
	if (rec->name_len == 0 || rec->name_len > PMFS_NAME_MAX ||
	    rec->value_len > PMFS_XATTR_VALUE_MAX)
		return -EUCLEAN;
	rec->bytes = HEAD + rec->name_len + rec->value_len;
	if (rec->bytes > len - rec->at)
		return -EUCLEAN;
	rec->name = (const char *)buf + rec->at + HEAD;
	rec->value = buf + rec->at + HEAD + rec->name_len;
	return 1;
}

static int compare(const char *name, size_t len, const struct rec *rec)
{
	const int c = memcmp(name, rec->name, MIN(len, rec->name_len));

	if (c)
		return c;
	return (len > rec->name_len) - (len < rec->name_len);
}

/* 1: rec is the one of that name; 0: none, and rec->at is its place; -EUCLEAN. */
static int rec_find(const uint8_t *buf, size_t len, const char *name, size_t name_len,
		    struct rec *rec)
{
	int rc;

	*rec = (struct rec){ 0 };
	while ((rc = rec_next(buf, len, rec)) > 0) {
		const int c = compare(name, name_len, rec);

		if (c <= 0)
			return c == 0;
	}
	return rc;
}

/* The whole stream, with room for `more` bytes; the caller frees it. */
static int stream_read(struct inode *in, size_t more, uint8_t **out)
{
	const size_t len = in->xattr_size;
	struct read_section rs;
	uint8_t *buf;
	int rc = 0;

	if (len > PMFS_XATTR_TOTAL_MAX)
		return -EUCLEAN;
	buf = malloc(len + more + 1);
	if (!buf)
		return -ENOMEM;
	read_enter(store_of(in), &rs);
	for (size_t at = 0; at < len && rc == 0; at += PMFS_PAGE_SIZE) {
		const void *page;
		vpn_t vpn;

		rc = ptab_get(store_of(in), &in->xattr, at / PMFS_PAGE_SIZE, &vpn);
		if (rc == 0 && vpn == VPN_NONE)
			rc = -EUCLEAN;
		if (rc == 0)
			rc = page_get(store_of(in), vpn, &page);
		if (rc == 0)
			memcpy(buf + at, page, MIN(len - at, PMFS_PAGE_SIZE));
	}
	read_leave(store_of(in), &rs);
	if (rc) {
		free(buf);
		return rc;
	}
	*out = buf;
	return 0;
}

/* What is before `from` has not changed. */
static int stream_write(struct txn *tx, struct inode *in, const uint8_t *buf, size_t len,
			size_t from)
{
	const uint64_t pages_before = PAGES(in->xattr_size), pages = PAGES(len);
	uint8_t page[PMFS_PAGE_SIZE];
	int rc = 0;

	for (uint64_t i = from / PMFS_PAGE_SIZE; i < pages && rc == 0; i++) {
		const size_t at = (size_t)i * PMFS_PAGE_SIZE;
		const size_t n = MIN(len - at, PMFS_PAGE_SIZE);

		memcpy(page, buf + at, n);
		memset(page + n, 0, sizeof(page) - n);
		rc = ptab_write(tx, &in->xattr, NULL, i, 0, page, sizeof(page), NULL);
	}
	if (rc == 0 && pages < pages_before) {
		uint64_t freed;

		do
			rc = ptab_punch(tx, &in->xattr, NULL, pages, PGNO_END, UINT64_MAX, &freed);
		while (rc > 0);
	}
	if (rc == 0)
		in->xattr_size = (uint32_t)len;
	return rc;
}

ssize_t xattr_get(struct inode *in, const char *name, void *buf, size_t size)
{
	uint8_t *stream;
	struct rec rec;
	ssize_t rc;

	if (in->xattr_size == 0)
		return -ENODATA;
	rc = stream_read(in, 0, &stream);
	if (rc)
		return rc;
	rc = rec_find(stream, in->xattr_size, name, strlen(name), &rec);
	if (rc == 0) {
		rc = -ENODATA;
	} else if (rc > 0) {
		rc = (ssize_t)rec.value_len;
		if (size && size < rec.value_len)
			rc = -ERANGE;
		else if (size)
			memcpy(buf, rec.value, rec.value_len);
	}
	free(stream);
	return rc;
}

int xattr_set(struct txn *tx, struct inode *in, const char *name, const void *value, size_t len,
	      int flags)
{
	const size_t name_len = strlen(name), before = in->xattr_size;
	const size_t bytes = HEAD + name_len + len;
	struct pmfs_xattr head = { 0 };
	uint8_t *stream, *p;
	struct rec rec;
	int rc;

	if (name_len == 0 || name_len > PMFS_NAME_MAX)
		return -ERANGE;
	if (len > PMFS_XATTR_VALUE_MAX)
		return -E2BIG;
	rc = stream_read(in, bytes, &stream);
	if (rc)
		return rc;
	rc = rec_find(stream, before, name, name_len, &rec);
	if (rc < 0)
		goto out;
	if (rc && (flags & XATTR_CREATE)) {
		rc = -EEXIST;
		goto out;
	}
	if (!rc && (flags & XATTR_REPLACE)) {
		rc = -ENODATA;
		goto out;
	}
	if (!rc)
		rec.bytes = 0;
	if (before - rec.bytes + bytes > PMFS_XATTR_TOTAL_MAX) {
		rc = -ENOSPC;
		goto out;
	}
	p = stream + rec.at;
	memmove(p + bytes, p + rec.bytes, before - rec.at - rec.bytes);
	le16_put(&head.name_len, (uint16_t)name_len);
	le32_put(&head.value_len, (uint32_t)len);
	memcpy(p, &head, HEAD);
	memcpy(p + HEAD, name, name_len);
	if (len)
		memcpy(p + HEAD + name_len, value, len);
	rc = stream_write(tx, in, stream, before - rec.bytes + bytes, rec.at);
out:
	free(stream);
	return rc;
}

int xattr_remove(struct txn *tx, struct inode *in, const char *name)
{
	const size_t before = in->xattr_size;
	uint8_t *stream;
	struct rec rec;
	int rc;

	if (before == 0)
		return -ENODATA;
	rc = stream_read(in, 0, &stream);
	if (rc)
		return rc;
	rc = rec_find(stream, before, name, strlen(name), &rec);
	if (rc == 0)
		rc = -ENODATA;
	if (rc > 0) {
		memmove(stream + rec.at, stream + rec.at + rec.bytes, before - rec.at - rec.bytes);
		rc = stream_write(tx, in, stream, before - rec.bytes, rec.at);
	}
	free(stream);
	return rc;
}

ssize_t xattr_list(struct inode *in, char *buf, size_t size)
{
	struct rec rec = { 0 };
	uint8_t *stream;
	size_t sum = 0;
	ssize_t rc;

	if (in->xattr_size == 0)
		return 0;
	rc = stream_read(in, 0, &stream);
	if (rc)
		return rc;
	while ((rc = rec_next(stream, in->xattr_size, &rec)) > 0) {
		if (size) {
			if (size - sum < rec.name_len + 1) {
				rc = -ERANGE;
				break;
			}
			memcpy(buf + sum, rec.name, rec.name_len);
			buf[sum + rec.name_len] = '\0';
		}
		sum += rec.name_len + 1;
	}
	free(stream);
	return rc ? rc : (ssize_t)sum;
}

int xattr_check(struct inode *in, void (*bad)(void *arg, const char *what), void *arg)
{
	const uint64_t pages = PAGES(in->xattr_size);
	struct rec rec = { 0 }, last;
	uint64_t there;
	uint8_t *stream;
	char what[128];
	int rc, findings = 0;

	rc = ptab_count(store_of(in), &in->xattr, &there);
	if (rc == 0 && there == pages)
		rc = stream_read(in, 0, &stream);
	else if (rc == 0)
		rc = -EUCLEAN;
	if (rc == -EUCLEAN || rc == -EBADMSG) {
		snprintf(what, sizeof(what),
			 "inode %llu: the pages of its extended attributes are damaged",
			 (unsigned long long)in->ino);
		bad(arg, what);
		return 1;
	}
	if (rc)
		return rc;
	for (last = rec; (rc = rec_next(stream, in->xattr_size, &rec)) > 0; last = rec) {
		if (memchr(rec.name, '\0', rec.name_len) ||
		    (last.bytes && compare(rec.name, rec.name_len, &last) <= 0)) {
			rc = -EUCLEAN;
			break;
		}
	}
	if (rc) {
		snprintf(what, sizeof(what),
			 "inode %llu: its extended attributes are no list of names and values",
			 (unsigned long long)in->ino);
		bad(arg, what);
		findings = 1;
	}
	free(stream);
	return findings;
}
