/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Huge pages for views.
 *
 * A kernel that gave out huge pages on the first store would take 2 MiB for a byte, and does so only
 * where the system's settings or the mapping program ask for it.  So memory comes page by page as
 * ever, and where 2 MiB of it are complete the kernel is asked to make them one page
 * (MADV_COLLAPSE, Linux 6.1) through our window; it maps that page into everybody who maps the
 * place.  That takes no memory, works whatever the settings say but "deny", and is undone by
 * the kernel where a part is cut off.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "view/view_impl.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_BYTES (UINT64_C(2) << 20)
/* Of one view at a time: collapsing one takes milliseconds, looking at one that is, microseconds. */
#define STEPS 64u

/* false: it is of no use to go on. */
static bool collapse_locked(struct view *v, uint64_t off)
{
	const off_t hole = lseek(v->fd, (off_t)off, SEEK_HOLE);

	if (hole < 0 || (uint64_t)hole < off + HUGE_BYTES)
		return true;
	if (!madvise((void *)(uintptr_t)(v->window->at + off), HUGE_BYTES, MADV_COLLAPSE))
		return true;
	if (errno == EINVAL) {
		log_debug("this kernel has no huge pages for views");
		atomic_store(&v->vs->no_huge, true);
		return false;
	}
	/* Somebody holds a page of it, or memory is in pieces: another time. */
	return errno != ENOMEM;
}

void view_make_huge(struct view *v)
{
	struct stat st = {0};
	bool more = true;

	for (unsigned i = 0; more && i < STEPS && !atomic_load(&v->vs->no_huge); i++) {
		/* Who changes the size waits for one of them only. */
		mutex_lock(&v->lock);
		more = v->fd >= 0 && !fstat(v->fd, &st) && (uint64_t)st.st_size >= HUGE_BYTES &&
		       !view_open_window(v, (uint64_t)st.st_size);
		if (more) {
			if (v->huge_next + HUGE_BYTES > (uint64_t)st.st_size)
				v->huge_next = 0;
			more = collapse_locked(v, v->huge_next);
			v->huge_next += HUGE_BYTES;
			more = more && v->huge_next + HUGE_BYTES <= (uint64_t)st.st_size;
		}
		mutex_unlock(&v->lock);
	}
}
