// SPDX-License-Identifier: MIT
/* struct strbuf (strbuf.h). */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/strbuf.h"
#include "text/utf8.h"

void strbuf_free(struct strbuf *b)
{
	free(b->p);
	*b = (struct strbuf){0};
}

static bool reserve(struct strbuf *b, size_t n)
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

void strbuf_add(struct strbuf *b, const void *bytes, size_t n)
{
	if (!n || !reserve(b, n))
		return;
	memcpy(b->p + b->n, bytes, n);
	b->n += n;
}

void strbuf_printf(struct strbuf *b, const char *fmt, ...)
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
		strbuf_add(b, line, (size_t)n);
		return;
	}
	if (!reserve(b, (size_t)n + 1))
		return;
	va_start(ap, fmt);
	vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->n += (size_t)n;
}

static void add_escape(struct strbuf *b, unsigned char c)
{
	static const char two[] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r',
				   ['\t'] = 't', ['"'] = '"',  ['\\'] = '\\'};
	char s[8] = {'\\'};

	if (c < sizeof(two) && two[c]) {
		s[1] = two[c];
		strbuf_add(b, s, 2);
	} else {
		snprintf(s, sizeof(s), "\\u%04x", c);
		strbuf_add(b, s, 6);
	}
}

static bool plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

void strbuf_json_text(struct strbuf *b, const char *text, size_t n)
{
	size_t from = 0, at = 0;

	strbuf_add(b, "\"", 1);
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
		strbuf_add(b, text + from, at - from);
		if (len < 0)
			strbuf_str(b, UTF8_REPLACEMENT);
		else
			add_escape(b, c);
		at += len < 0 ? (size_t)-len : 1;
		from = at;
	}
	strbuf_add(b, text + from, n - from);
	strbuf_add(b, "\"", 1);
}

static int dump(const char *bytes, size_t n, void *ctx)
{
	struct strbuf *b = ctx;

	strbuf_add(b, bytes, n);
	return b->failed ? -1 : 0;
}

void strbuf_json(struct strbuf *b, const json_t *v)
{
	if (json_dump_callback(v, dump, b, JSON_COMPACT | JSON_ENCODE_ANY))
		b->failed = true;
}

void strbuf_consume(struct strbuf *b, size_t n)
{
	b->n -= n;
	memmove(b->p, b->p + n, b->n);
}
