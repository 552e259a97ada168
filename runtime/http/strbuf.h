/* SPDX-License-Identifier: MIT */
/*
 * A growing run of bytes, for JSON and SSE written by hand: what is sent per token must not cost an
 * allocation. A lack of memory is remembered (`failed`) and asked for once at the end; what is added
 * after it is dropped. All zero is an empty one.
 */
#ifndef HTTP_STRBUF_H
#define HTTP_STRBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <jansson.h>

struct strbuf {
	char *p; /* not NUL-terminated; NULL while empty */
	size_t n, cap;
	bool failed;
};

void strbuf_free(struct strbuf *b);
void strbuf_add(struct strbuf *b, const void *bytes, size_t n);
void strbuf_printf(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes; `n` bytes of UTF-8 (what is none becomes U+FFFD). */
void strbuf_json_text(struct strbuf *b, const char *text, size_t n);
/* Compact JSON. */
void strbuf_json(struct strbuf *b, const json_t *v);
/* Drop the first `n` bytes. */
void strbuf_consume(struct strbuf *b, size_t n);

static inline void strbuf_str(struct strbuf *b, const char *s)
{
	strbuf_add(b, s, strlen(s));
}

#endif
