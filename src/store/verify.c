/* SPDX-License-Identifier: BSD-2-Clause */
/* What stands in the image against what the page map says, and the list of pages that do not fit.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "store/store_impl.h"

void store_note_bad(struct store *st, vpn_t vpn)
{
	bool known = false;

	mutex_lock(&st->bad_lock);
	for (unsigned i = 0; i < st->n_bad && !known; i++)
		known = st->bad[i] == vpn;
	if (!known && st->n_bad == STORE_BAD_KEPT)
		st->bad_more++;
	else if (!known)
		st->bad[st->n_bad++] = vpn;
	if (!known && st->bad_found)
		st->bad_found(st->bad_arg);
	mutex_unlock(&st->bad_lock);
}

void store_on_bad(struct store *st, void (*found)(void *arg), void *arg)
{
	mutex_lock(&st->bad_lock);
	st->bad_found = found;
	st->bad_arg = arg;
	if (found && st->bad_told < st->n_bad)
		found(arg);
	mutex_unlock(&st->bad_lock);
}

void store_bad_forget(struct store *st)
{
	mutex_lock(&st->bad_lock);
	st->n_bad = 0;
	st->bad_told = 0;
	st->bad_more = 0;
	mutex_unlock(&st->bad_lock);
}

unsigned store_bad_take(struct store *st, vpn_t *out, unsigned n)
{
	mutex_lock(&st->bad_lock);
	n = MIN(n, st->n_bad - st->bad_told);
	memcpy(out, st->bad + st->bad_told, n * sizeof(*out));
	st->bad_told += n;
	mutex_unlock(&st->bad_lock);
	return n;
}

const char *store_why(struct store *st, char *buf, size_t len)
{
	const int error = store_error(st);

	mutex_lock(&st->bad_lock);
	if (!error)
		snprintf(buf, len, "%s", "");
	else if (st->why[0])
		snprintf(buf, len, "%s", st->why);
	else
		snprintf(buf, len, "the image can't be read or written any more: %s",
			 strerror(-error));
	mutex_unlock(&st->bad_lock);
	return buf;
}

/* A page whose hash is known, and whose frame the caller's read section keeps as it is. */
static void verify_page(struct store *st, vpn_t vpn, pfn_t pfn, uint64_t want,
			struct store_verified *out)
{
	uint64_t hash = 0;
	const int rc = region_hash(st->rg, pfn, &hash);

	out->pages++;
	if (!rc && hash == want)
		return;
	out->bad_pages++;
	if (rc)
		log_limited(LOG_LEVEL_ERR, "verify.read", "page %llu: frame %llu can't be read",
			    (unsigned long long)vpn, (unsigned long long)pfn);
	else
		log_limited(LOG_LEVEL_ERR, "verify.hash",
			    "page %llu: the contents of frame %llu do not match their hash",
			    (unsigned long long)vpn, (unsigned long long)pfn);
	pagemap_distrust(&st->pm, vpn, pfn);
	store_note_bad(st, vpn);
}

static void verify_nodes(struct store *st, uint64_t index, struct store_verified *out)
{
	uint32_t level;
	const int rc = pagemap_verify(&st->pm, index, &level);

	if (rc >= 0) {
		out->nodes += (unsigned)rc;
		return;
	}
	out->nodes++;
	out->bad_nodes++;
	log_limited(LOG_LEVEL_ERR, "verify.node",
		    "page map: the node of level %u over the pages from %llu on is damaged: %s",
		    level, (unsigned long long)(index << PMFS_MAP_SHIFT), strerror(-rc));
}

vpn_t store_verify(struct store *st, vpn_t vpn, unsigned most, struct store_verified *out)
{
	const uint64_t index = vpn >> PMFS_MAP_SHIFT;
	const vpn_t end = (index + 1) << PMFS_MAP_SHIFT;
	struct pagemap_copy leaf;
	struct read_section rs;
	int rc;

	if (!(vpn % PMFS_MAP_FANOUT))
		verify_nodes(st, index, out);
	read_enter(st, &rs);
	rc = pagemap_peek(&st->pm, index, &leaf);
	for (; rc > 0 && vpn < end && most; vpn++) {
		const unsigned i = (unsigned)(vpn % PMFS_MAP_FANOUT);
		const pfn_t pfn = where_pfn(leaf.where[i]);

		if (!where_refs(leaf.where[i]) || pfn == PFN_NONE)
			continue;
		if (bit_test(leaf.nohash, i)) {
			out->dirty++;
			continue;
		}
		verify_page(st, vpn, pfn, leaf.hash[i], out);
		most--;
	}
	read_leave(st, &rs);
	if (rc > 0 && vpn < end)
		return vpn;
	return MAX(end, pagemap_next(&st->pm, index + 1) << PMFS_MAP_SHIFT);
}
