/* SPDX-License-Identifier: MIT */
/*
 * A growing run of bytes, for JSON and SSE written by hand: what is sent per token must not cost an
 * allocation. A lack of memory is remembered (`failed`) and asked for once at the end; what is added
 * after it is dropped. All zero is an empty one.
 */
#ifndef HTTP_BUF_H
#define HTTP_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <jansson.h>

struct buf {
	char *p; /* not NUL-terminated; NULL while empty */
	size_t n, cap;
	bool failed;
};

void buf_free(struct buf *b);
void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes; `n` bytes of UTF-8 (what is none becomes U+FFFD). */
void buf_json_text(struct buf *b, const char *text, size_t n);
/* Compact JSON. */
void buf_json(struct buf *b, const json_t *v);
/* Drop the first `n` bytes. */
void buf_consume(struct buf *b, size_t n);

static inline void buf_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

#endif
