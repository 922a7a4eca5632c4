/* SPDX-License-Identifier: BSD-2-Clause */
#include "store/lazy.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/bits.h"

/* One call makes this much usable, so that it is rarely needed. */
#define LAZY_STEP ((size_t)256 << 10)

int lazy_init(struct lazy *lz, size_t bytes)
{
	size_t reserved = ALIGN_UP(MAX(bytes, 1), LAZY_STEP);
	void *at =
		mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return -ENOMEM;
	lz->at = at;
	lz->reserved = reserved;
	lz->usable = 0;
	return 0;
}

int lazy_extend(struct lazy *lz, size_t bytes)
{
	size_t usable = ALIGN_UP(bytes, LAZY_STEP);

	if (bytes <= lz->usable)
		return 0;
	if (usable > lz->reserved)
		return -ENOMEM;
	if (mprotect((char *)lz->at + lz->usable, usable - lz->usable, PROT_READ | PROT_WRITE))
		return -ENOMEM;
	lz->usable = usable;
	return 0;
}

void lazy_destroy(struct lazy *lz)
{
	if (lz->at)
		munmap(lz->at, lz->reserved);
	*lz = (struct lazy){ 0 };
}
