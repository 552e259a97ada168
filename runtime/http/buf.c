// SPDX-License-Identifier: MIT
/* struct buf (buf.h). */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/buf.h"
#include "text/utf8.h"

void buf_free(struct buf *b)
{
	free(b->p);
	*b = (struct buf){0};
}

static bool reserve(struct buf *b, size_t n)
{
	size_t cap;
	char *p;

	if (b->failed)
		return false;
	if (n <= b->cap - b->n)
		return true;
	cap = b->n + n + (b->n + n) / 2 + 64;
	p = cap > n ? realloc(b->p, cap) : NULL;
	if (!p) {
		b->failed = true;
		return false;
	}
	b->p = p;
	b->cap = cap;
	return true;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
	if (!n || !reserve(b, n))
		return;
	memcpy(b->p + b->n, bytes, n);
	b->n += n;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n < 0) {
		b->failed = true;
		return;
	}
	if ((size_t)n < sizeof(line)) {
		buf_add(b, line, (size_t)n);
		return;
	}
	if (!reserve(b, (size_t)n + 1))
		return;
	va_start(ap, fmt);
	vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->n += (size_t)n;
}

static void add_escape(struct buf *b, unsigned char c)
{
	static const char two[] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r',
				   ['\t'] = 't', ['"'] = '"',  ['\\'] = '\\'};
	char s[8] = {'\\'};

	if (c < sizeof(two) && two[c]) {
		s[1] = two[c];
		buf_add(b, s, 2);
	} else {
		snprintf(s, sizeof(s), "\\u%04x", c);
		buf_add(b, s, 6);
	}
}

static bool plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

void buf_json_text(struct buf *b, const char *text, size_t n)
{
	size_t from = 0, at = 0;

	buf_add(b, "\"", 1);
	while (at < n) {
		unsigned char c = (unsigned char)text[at];
		uint32_t cp;
		int len;

		if (plain(c)) {
			at++;
			continue;
		}
		len = c < 0x80 ? 0 : utf8_decode((const uint8_t *)text + at, n - at, &cp, NULL);
		if (len > 0) {
			at += (size_t)len;
			continue;
		}
		buf_add(b, text + from, at - from);
		if (len < 0)
			buf_str(b, UTF8_REPLACEMENT);
		else
			add_escape(b, c);
		at += len < 0 ? (size_t)-len : 1;
		from = at;
	}
	buf_add(b, text + from, n - from);
	buf_add(b, "\"", 1);
}

static int dump(const char *bytes, size_t n, void *ctx)
{
	struct buf *b = ctx;

	buf_add(b, bytes, n);
	return b->failed ? -1 : 0;
}

void buf_json(struct buf *b, const json_t *v)
{
	if (json_dump_callback(v, dump, b, JSON_COMPACT | JSON_ENCODE_ANY))
		b->failed = true;
}

void buf_consume(struct buf *b, size_t n)
{
	b->n -= n;
	memmove(b->p, b->p + n, b->n);
}
