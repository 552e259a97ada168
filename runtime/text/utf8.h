/* SPDX-License-Identifier: MIT */
/* UTF-8 for the text code: strict decoding, with malformed input cut into "maximal subparts" as
 * Unicode recommends (chapter 3.9) and as Python and Rust do when they replace by U+FFFD. */
#ifndef LLMDEV_UTF8_H
#define LLMDEV_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define UTF8_REPLACEMENT "\xef\xbf\xbd"

/* Bytes of the sequence that starts with b; 0 if b starts none. */
static inline int utf8_len(uint8_t b)
{
	return b < 0x80 ? 1 : b < 0xc2 ? 0 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : b < 0xf5 ? 4 : 0;
}

/* May b be the second byte of a sequence that starts with a? (no overlong forms, no surrogates) */
static inline bool utf8_second(uint8_t a, uint8_t b)
{
	uint8_t lo = a == 0xe0 ? 0xa0 : a == 0xf0 ? 0x90 : 0x80;
	uint8_t hi = a == 0xed ? 0x9f : a == 0xf4 ? 0x8f : 0xbf;

	return b >= lo && b <= hi;
}

/*
 * Decode the character at s (n >= 1 bytes there): its length, with *cp set; or, if malformed, minus
 * the length of the maximal subpart. *need is set to the bytes that the sequence would have, so
 * that a caller can tell a truncated one (-result == n < *need) from a wrong one.
 */
static inline int utf8_decode(const uint8_t *s, size_t n, uint32_t *cp, int *need)
{
	int len = utf8_len(s[0]);
	int i;

	if (need)
		*need = len ? len : 1;
	if (len == 1) {
		*cp = s[0];
		return 1;
	}
	if (!len || n < 2 || !utf8_second(s[0], s[1]))
		return -1;
	*cp = s[0] & (0x7f >> len);
	*cp = *cp << 6 | (s[1] & 0x3f);
	for (i = 2; i < len; i++) {
		if (i >= n || (s[i] & 0xc0) != 0x80)
			return -i;
		*cp = *cp << 6 | (s[i] & 0x3f);
	}
	return len;
}

/* Length of the character at s in text known to be valid. */
static inline int utf8_skip(const char *s)
{
	uint8_t b = (uint8_t)*s;

	return b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
}

static inline int utf8_encode(uint32_t cp, char *s)
{
	if (cp < 0x80) {
		s[0] = (char)cp;
		return 1;
	}
	if (cp < 0x800) {
		s[0] = (char)(0xc0 | cp >> 6);
		s[1] = (char)(0x80 | (cp & 0x3f));
		return 2;
	}
	if (cp < 0x10000) {
		s[0] = (char)(0xe0 | cp >> 12);
		s[1] = (char)(0x80 | (cp >> 6 & 0x3f));
		s[2] = (char)(0x80 | (cp & 0x3f));
		return 3;
	}
	s[0] = (char)(0xf0 | cp >> 18);
	s[1] = (char)(0x80 | (cp >> 12 & 0x3f));
	s[2] = (char)(0x80 | (cp >> 6 & 0x3f));
	s[3] = (char)(0x80 | (cp & 0x3f));
	return 4;
}

/* Length of the longest valid prefix of s[0..n). */
static inline size_t utf8_valid_prefix(const char *s, size_t n)
{
	size_t p = 0;

	while (p < n) {
		uint64_t w;
		uint32_t cp;
		int k;

		if (n - p >= 8) {
			memcpy(&w, s + p, 8);
			if (!(w & 0x8080808080808080u)) {
				p += 8;
				continue;
			}
		}
		k = utf8_decode((const uint8_t *)s + p, n - p, &cp, NULL);
		if (k < 0)
			break;
		p += k;
	}
	return p;
}

/* Unicode's White_Space property: what \s means to the tokenizers whose files we read. */
static inline bool utf8_is_space(uint32_t c)
{
	return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
	       (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
	       c == 0x205f || c == 0x3000;
}

#endif
