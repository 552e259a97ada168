// SPDX-License-Identifier: MIT
/*
 * JSON as models write it into calls: checked while it arrives, kept as compact text.
 *
 * Text, not a tree: numbers stay as written (no rounding, no limit of 64 bits), members stay in
 * order, and 10 MB of arguments cost their own size.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/output/output_int.h"
#include "text/utf8.h"

enum {
	S_VALUE,
	S_FIRST_VALUE, /* of an array: or ']' */
	S_FIRST_KEY, /* or '}' */
	S_KEY,
	S_COLON,
	S_AFTER, /* a value: ',' or a closing bracket */
	S_KEY_STRING,
	S_STRING,
	S_NUMBER,
	S_WORD,
};

void json_scan_begin(struct json_scan *j, struct buf *out)
{
	memset(j, 0, sizeof(*j));
	j->out = out;
	out->n = 0;
	j->state = S_VALUE;
}

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

bool json_number_ok(const char *s, size_t n)
{
	size_t i = 0;

#define DIGITS()                                                                                   \
	do {                                                                                       \
		if (i >= n || !digit(s[i]))                                                        \
			return false;                                                              \
		while (i < n && digit(s[i]))                                                       \
			i++;                                                                       \
	} while (0)
	if (i < n && s[i] == '-')
		i++;
	if (i < n && s[i] == '0')
		i++;
	else
		DIGITS();
	if (i < n && s[i] == '.') {
		i++;
		DIGITS();
	}
	if (i < n && (s[i] == 'e' || s[i] == 'E')) {
		i++;
		if (i < n && (s[i] == '+' || s[i] == '-'))
			i++;
		DIGITS();
	}
#undef DIGITS
	return n && i == n;
}

static bool word_ok(const char *s, size_t n)
{
	return (n == 4 && !memcmp(s, "true", 4)) || (n == 5 && !memcmp(s, "false", 5)) ||
	       (n == 4 && !memcmp(s, "null", 4));
}

/* How a character is spelt in a JSON string: into s[6], returns the length; 0: as it is. */
static int escape(unsigned char c, char *s)
{
	static const char hex[] = "0123456789abcdef", from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
	const char *p = memchr(from, c, sizeof(from) - 1);

	if (c >= 0x20 && !p)
		return 0;
	s[0] = '\\';
	if (p) {
		s[1] = to[p - from];
		return 2;
	}
	memcpy(s + 1, "u00", 3);
	s[4] = hex[c >> 4];
	s[5] = hex[c & 15];
	return 6;
}

static int hex4(const char *s)
{
	int v = 0;

	for (int i = 0; i < 4; i++) {
		char c = s[i];
		int d = digit(c)			     ? c - '0'
			: (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
							     : -1;

		if (d < 0)
			return -1;
		v = v << 4 | d;
	}
	return v;
}

/*
 * The escape at s[0..n), s[0] being the backslash: its length, *cp the character; 0: none. A pair of
 * surrogates counts as one escape, half a pair as none.
 */
static size_t unescape(const char *s, size_t n, uint32_t *cp)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *p;
	int v, w;

	if (n < 2)
		return 0;
	if (s[1] != 'u') {
		p = s[1] ? strchr(from, s[1]) : NULL;
		if (!p)
			return 0;
		*cp = (unsigned char)to[p - from];
		return 2;
	}
	v = n >= 6 ? hex4(s + 2) : -1;
	if (v < 0 || (v >= 0xdc00 && v < 0xe000))
		return 0;
	*cp = v;
	if (v < 0xd800 || v >= 0xe000)
		return 6;
	w = n >= 12 && s[6] == '\\' && s[7] == 'u' ? hex4(s + 8) : -1;
	if (w < 0xdc00 || w >= 0xe000)
		return 0;
	*cp = 0x10000 + ((v - 0xd800) << 10) + (w - 0xdc00);
	return 12;
}

/* The string that starts (with its quote) at out[token] is whole but for the closing quote: check
 * it and bring it into its shortest spelling, in place. */
static const char *finish_string(struct buf *b, size_t token)
{
	char *s = b->v + token + 1;
	size_t n = b->n - token - 1, i = 0, o = 0;

	if (utf8_valid_prefix(s, n) != n)
		return "a string is not UTF-8";
	while (i < n) {
		char *p = memchr(s + i, '\\', n - i);
		size_t k = p ? (size_t)(p - s) - i : n - i;
		uint32_t cp;

		memmove(s + o, s + i, k);
		i += k;
		o += k;
		if (!p)
			break;
		k = unescape(s + i, n - i, &cp);
		if (!k)
			return "a wrong escape in a string";
		i += k;
		k = cp < 0x80 ? escape(cp, s + o) : utf8_encode(cp, s + o);
		if (!k) {
			s[o] = (char)cp;
			k = 1;
		}
		o += k;
	}
	b->n = token + 1 + o;
	return NULL;
}

static int wrong(struct json_scan *j, const char *why)
{
	j->why = why;
	return JSON_BAD;
}

static bool level_is_object(const struct json_scan *j)
{
	int l = j->depth - 1;

	return j->in_object[l / 64] >> (l % 64) & 1;
}

/* A number or word has ended. */
static bool token_ok(struct json_scan *j)
{
	const char *s = j->out->v + j->token;
	size_t n = j->out->n - j->token;

	return j->state == S_NUMBER ? json_number_ok(s, n) : word_ok(s, n);
}

static int open_level(struct json_scan *j, char c)
{
	int l = j->depth++;

	if (c == '{')
		j->in_object[l / 64] |= (uint64_t)1 << (l % 64);
	else
		j->in_object[l / 64] &= ~((uint64_t)1 << (l % 64));
	j->state = c == '{' ? S_FIRST_KEY : S_FIRST_VALUE;
	return JSON_MORE;
}

/* One byte outside strings, numbers and words. JSON_MORE: it may be copied. */
static int structure(struct json_scan *j, char c)
{
	j->token = j->out->n;
	if (c == '}' || c == ']') {
		bool empty = j->state == (c == '}' ? S_FIRST_KEY : S_FIRST_VALUE);

		if (!j->depth || !(j->state == S_AFTER || empty) ||
		    level_is_object(j) != (c == '}'))
			return wrong(j, "a bracket that closes nothing");
		j->state = S_AFTER;
		return --j->depth ? JSON_MORE : JSON_DONE;
	}
	switch (j->state) {
	case S_AFTER:
		if (c != ',')
			return wrong(j, "a comma or bracket is missing");
		j->state = level_is_object(j) ? S_KEY : S_VALUE;
		return JSON_MORE;
	case S_FIRST_KEY:
	case S_KEY:
		if (c != '"')
			return wrong(j, "a key is missing");
		j->state = S_KEY_STRING;
		return JSON_MORE;
	case S_COLON:
		if (c != ':')
			return wrong(j, "a colon is missing");
		j->state = S_VALUE;
		return JSON_MORE;
	}
	if (c == '{' || c == '[') {
		if (j->depth == OUTPUT_MAX_DEPTH)
			return wrong(j, "nested too deeply");
		return open_level(j, c);
	}
	if (!j->depth)
		return wrong(j, "an object is missing");
	if (c == '"')
		j->state = S_STRING;
	else if (c == '-' || digit(c))
		j->state = S_NUMBER;
	else if (c >= 'a' && c <= 'z')
		j->state = S_WORD;
	else
		return wrong(j, "a value is missing");
	return JSON_MORE;
}

/* Bytes of a string at s[0..n) up to its end, or all. */
static int string_run(struct json_scan *j, const char *s, size_t n, size_t *used)
{
	size_t i = 0;
	int rc;

	for (; i < n; i++) {
		if ((unsigned char)s[i] < 0x20)
			break;
		if (j->escape)
			j->escape = false;
		else if (s[i] == '\\')
			j->escape = true;
		else if (s[i] == '"')
			break;
	}
	*used = i;
	rc = buf_add(j->out, s, i);
	if (rc || i == n)
		return rc ? rc : JSON_MORE;
	if (s[i] != '"')
		return wrong(j, "a control character in a string");
	j->why = finish_string(j->out, j->token);
	if (j->why)
		return JSON_BAD;
	*used = i + 1;
	j->state = j->state == S_KEY_STRING ? S_COLON : S_AFTER;
	rc = buf_add(j->out, "\"", 1);
	return rc ? rc : JSON_MORE;
}

int json_scan_push(struct json_scan *j, const char *s, size_t n, size_t *used)
{
	size_t i = 0, k;
	int rc = JSON_MORE;

	while (i < n && rc == JSON_MORE) {
		char c = s[i];

		if (j->state == S_STRING || j->state == S_KEY_STRING) {
			rc = string_run(j, s + i, n - i, &k);
			i += k;
			continue;
		}
		if (j->state == S_NUMBER || j->state == S_WORD) {
			bool in = j->state == S_WORD ? c >= 'a' && c <= 'z'
						     : digit(c) || (c && strchr("+-.eE", c));

			if (!in) {
				if (!token_ok(j)) {
					rc = wrong(j, "neither a number nor true, false or null");
					break;
				}
				j->state = S_AFTER;
				continue;
			}
		} else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
			i++;
			continue;
		} else {
			rc = structure(j, c);
			if (rc == JSON_BAD)
				break;
		}
		k = buf_add(j->out, &c, 1);
		if (k)
			return -ENOMEM;
		i++;
	}
	*used = i;
	return rc;
}

int json_compact(struct buf *out, const char *s, size_t n)
{
	struct json_scan j;
	size_t used;
	int rc;

	json_scan_begin(&j, out);
	rc = json_scan_push(&j, s, n, &used);
	if (rc < 0)
		return rc;
	while (used < n && is_space(s[used]))
		used++;
	return rc == JSON_DONE && used == n;
}

/* ---- compact text -------------------------------------------------------------------------- */

/* Behind the string whose opening quote is at p. */
static const char *skip_string(const char *p)
{
	for (p++; *p != '"'; p++)
		if (*p == '\\')
			p++;
	return p + 1;
}

/* Behind the value at p; the text is known to be valid and to go on after it. */
static const char *skip_value(const char *p)
{
	int depth = 0;

	do {
		if (*p == '"') {
			p = skip_string(p);
			continue;
		}
		if (*p == '{' || *p == '[')
			depth++;
		else if (*p == '}' || *p == ']')
			depth--;
		p++;
	} while (depth || (*p != ',' && *p != '}' && *p != ']'));
	return p;
}

bool json_member(struct span o, const char *key, struct span *value)
{
	size_t len = strlen(key);
	const char *p = o.s + 1, *end = o.s + o.n - 1;
	bool found = false;

	while (p < end) {
		const char *k = p, *v;

		p = skip_string(p);
		v = p + 1;
		/* The last value ends at the object's bracket, so there is a byte behind it. */
		if ((size_t)(p - k) == len + 2 && !memcmp(k + 1, key, len))
			found = true;
		else
			v = NULL;
		p = skip_value(p + 1);
		if (v)
			*value = (struct span){v, (size_t)(p - v)};
		p++;
	}
	return found;
}

struct keys {
	struct span *v;
	size_t n, cap;
	bool twice;
	int rc;
};

static int by_text(const void *x, const void *y)
{
	const struct span *a = x, *b = y;

	if (a->n != b->n)
		return a->n < b->n ? -1 : 1;
	return memcmp(a->s, b->s, a->n);
}

static void push_key(struct keys *k, const char *s, size_t n)
{
	if (k->n == k->cap) {
		size_t cap = k->cap ? k->cap * 2 : 64;
		struct span *v = realloc(k->v, cap * sizeof(*v));

		if (!v) {
			k->rc = -ENOMEM;
			return;
		}
		k->v = v;
		k->cap = cap;
	}
	k->v[k->n++] = (struct span){s, n};
}

/* Behind the value at p, whose objects were searched for keys that stand twice. */
static const char *search(struct keys *k, const char *p)
{
	size_t base = k->n;
	char close = *p == '{' ? '}' : ']';

	if (*p == '"')
		return skip_string(p);
	if (*p != '{' && *p != '[') {
		while (*p != ',' && *p != '}' && *p != ']')
			p++;
		return p;
	}
	for (p++; *p != close && !k->rc;) {
		if (close == '}') {
			const char *s = p;

			p = skip_string(p);
			push_key(k, s, (size_t)(p - s));
			p++;
		}
		p = search(k, p);
		if (*p == ',')
			p++;
	}
	if (k->n - base > 1)
		qsort(k->v + base, k->n - base, sizeof(*k->v), by_text);
	for (size_t i = base + 1; i < k->n; i++)
		k->twice |= !by_text(&k->v[i - 1], &k->v[i]);
	k->n = base;
	return p + 1;
}

int json_unique(struct buf *b)
{
	struct keys k = {0};
	json_error_t error;
	json_t *tree;
	char *text;
	int rc;

	search(&k, b->v);
	free(k.v);
	if (k.rc || !k.twice)
		return k.rc ? k.rc : 1;
	/* Rare, so it may cost a tree and the spelling of its numbers. */
	tree = json_loadb(b->v, b->n, JSON_ALLOW_NUL, &error);
	if (!tree)
		return json_error_code(&error) == json_error_numeric_overflow ||
				       json_error_code(&error) == json_error_null_byte_in_key
			       ? 0
			       : -ENOMEM;
	text = json_dumps(tree, JSON_COMPACT | JSON_REAL_PRECISION(17));
	json_decref(tree);
	if (!text)
		return -ENOMEM;
	b->n = 0;
	rc = buf_add(b, text, strlen(text));
	free(text);
	return rc ? rc : 1;
}

int json_text(struct buf *out, struct span v)
{
	const char *s = v.s + 1;
	size_t n = v.n - 2, i = 0;
	int rc = 0;

	out->n = 0;
	if (v.n < 2 || *v.s != '"')
		return 0;
	while (i < n && !rc) {
		const char *p = memchr(s + i, '\\', n - i);
		size_t k = p ? (size_t)(p - s) - i : n - i;
		uint32_t cp;
		char c[4];

		rc = buf_add(out, s + i, k);
		i += k;
		if (!p || rc)
			break;
		i += unescape(s + i, n - i, &cp);
		rc = buf_add(out, c, utf8_encode(cp, c));
	}
	return rc ? rc : 1;
}

int json_put_string(struct buf *out, const char *s, size_t n)
{
	size_t from = 0;
	char e[6];
	int rc;

	if (utf8_valid_prefix(s, n) != n)
		return 0;
	rc = buf_add(out, "\"", 1);
	for (size_t i = 0; i < n && !rc; i++) {
		int k = escape((unsigned char)s[i], e);

		if (!k)
			continue;
		rc = buf_add(out, s + from, i - from);
		if (!rc)
			rc = buf_add(out, e, k);
		from = i + 1;
	}
	if (!rc)
		rc = buf_add(out, s + from, n - from);
	if (!rc)
		rc = buf_add(out, "\"", 1);
	return rc ? rc : 1;
}
