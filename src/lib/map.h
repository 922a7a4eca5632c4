/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map.h - what the calls that map files share.
 */
#ifndef PMFS_LIB_MAP_H
#define PMFS_LIB_MAP_H

#include <stddef.h>
#include <stdint.h>

#define MAP_HUGE_BYTES ((size_t)2 << 20)

size_t map_page_bytes(void);

/*
 * Reserve length bytes of addresses that nothing may touch.  With align, a power of two, the
 * address is `phase` more than a multiple of it.  Undone by munmap(2).
 */
int map_reserve(size_t length, size_t align, size_t phase, void **address);

/* Ask for huge pages, should there be any; nobody is told when there are none. */
void map_want_huge(void *address, size_t length);

#endif
