/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/text.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

json_t *text_json(const char *text)
{
	json_t *s = json_string(text);
	char *copy;

	if (s)
		return s;
	copy = strdup(text);
	if (!copy)
		return NULL;
	/* Not a good guess where names mix encodings, but the twin is what programs read. */
	for (char *at = copy; *at; at++) {
		if (*at & 0x80)
			*at = '?';
	}
	s = json_string(copy);
	free(copy);
	return s;
}

static char *encode(const char *text)
{
	const uint8_t *in = (const uint8_t *)text;
	size_t len = strlen(text);
	char *out = malloc((len + 2) / 3 * 4 + 1), *to = out;

	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t bits = (uint32_t)in[i] << 16;

		if (n > 1)
			bits |= (uint32_t)in[i + 1] << 8;
		if (n > 2)
			bits |= in[i + 2];
		*to++ = digits[bits >> 18];
		*to++ = digits[bits >> 12 & 63];
		*to++ = n > 1 ? digits[bits >> 6 & 63] : '=';
		*to++ = n > 2 ? digits[bits & 63] : '=';
	}
	*to = 0;
	return out;
}

static bool decode(const char *in, char *out, size_t len)
{
	size_t n = strlen(in), at = 0;

	if (n % 4)
		return false;
	for (size_t i = 0; i < n; i += 4) {
		uint32_t bits = 0;
		size_t bytes = 3;

		for (size_t j = 0; j < 4; j++) {
			const char *digit = strchr(digits, in[i + j]);
			bool pad = in[i + j] == '=' && i + 4 == n &&
				   (j == 3 || (j == 2 && in[i + 3] == '='));

			if (pad)
				bytes--;
			else if (!digit)
				return false;
			bits = bits << 6 | (pad ? 0 : (uint32_t)(digit - digits));
		}
		if (at + bytes >= len)
			return false;
		for (size_t j = 0; j < bytes; j++)
			out[at++] = (char)(bits >> (16 - 8 * j));
	}
	out[at] = 0;
	return strlen(out) == at;
}

static bool twin_key(char *buf, size_t len, const char *key)
{
	int n = snprintf(buf, len, "%s_base64", key);

	return n > 0 && (size_t)n < len;
}

int text_set(json_t *obj, const char *key, const char *text)
{
	json_t *exact = json_string(text);
	char twin[64], *base64;
	int rc;

	if (exact)
		return json_object_set_new(obj, key, exact) ? -ENOMEM : 0;
	base64 = encode(text);
	rc = base64 && twin_key(twin, sizeof(twin), key) &&
			     !json_object_set_new(obj, key, text_json(text)) &&
			     !json_object_set_new(obj, twin, json_string(base64))
		     ? 0
		     : -ENOMEM;
	free(base64);
	return rc;
}

bool text_get(const json_t *obj, const char *key, char *buf, size_t len)
{
	const char *s = json_string_value(json_object_get(obj, key)), *base64;
	char twin[64];

	base64 = twin_key(twin, sizeof(twin), key) ? json_string_value(json_object_get(obj, twin))
						   : NULL;
	if (base64)
		return decode(base64, buf, len);
	if (!s || strlen(s) >= len)
		return false;
	memcpy(buf, s, strlen(s) + 1);
	return true;
}
