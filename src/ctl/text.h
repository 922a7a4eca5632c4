/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * text.h - names in JSON.  A path is bytes and JSON is UTF-8: a name that is not gets "?" for each
 * byte that does not fit, and a twin, KEY_base64, that has them all.
 */
#ifndef PMFS_CTL_TEXT_H
#define PMFS_CTL_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

/* A string of what of text is UTF-8; NULL: no memory. */
json_t *text_json(const char *text);

/* Set obj's key, and its twin if there has to be one.  -ENOMEM. */
int text_set(json_t *obj, const char *key, const char *text);

/* What text_set() has set, into buf.  false: it is not there, too long, or not base64. */
bool text_get(const json_t *obj, const char *key, char *buf, size_t len);

#endif
