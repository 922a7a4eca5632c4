/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * le.h - little-endian integers as they stand in an image, a stream or a message.
 * Each is a struct with one member, so that reading or writing one without going through the
 * functions below does not compile.  They have the size and alignment of the plain integer.
 */
#ifndef PMFS_LE_H
#define PMFS_LE_H

#include <endian.h>
#include <stdint.h>

typedef struct { uint16_t raw; } le16;
typedef struct { uint32_t raw; } le32;
typedef struct { uint64_t raw; } le64;

static inline uint16_t le16_get(le16 v)
{
	return le16toh(v.raw);
}

static inline uint32_t le32_get(le32 v)
{
	return le32toh(v.raw);
}

static inline uint64_t le64_get(le64 v)
{
	return le64toh(v.raw);
}

static inline le16 le16_make(uint16_t v)
{
	return (le16){ htole16(v) };
}

static inline le32 le32_make(uint32_t v)
{
	return (le32){ htole32(v) };
}

static inline le64 le64_make(uint64_t v)
{
	return (le64){ htole64(v) };
}

static inline void le16_put(le16 *p, uint16_t v)
{
	p->raw = htole16(v);
}

static inline void le32_put(le32 *p, uint32_t v)
{
	p->raw = htole32(v);
}

static inline void le64_put(le64 *p, uint64_t v)
{
	p->raw = htole64(v);
}

#endif
