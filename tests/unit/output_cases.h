/* SPDX-License-Identifier: MIT */
/*
 * Running an output parser over a text cut into pieces, with what comes out written down as one
 * line a piece ("C content", "R reasoning", "T name arguments", "M"), adjacent texts joined.
 */
#ifndef LLMDEV_OUTPUT_CASES_H
#define LLMDEV_OUTPUT_CASES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/output/output.h"

struct record {
	char *text; /* NUL-terminated after record_end() */
	size_t n, cap;
	int last; /* kind of the last piece, -1: none */
	char why[200]; /* of the last MALFORMED */
	int calls, malformed;
	int fail_after; /* > 0: the sink fails at that piece */
	bool bad; /* a rule of output.h was broken */
	bool cut; /* a piece begins within a character */
};

static void record_add(struct record *r, const char *s, size_t n)
{
	if (r->n + n + 1 > r->cap) {
		r->cap = (r->n + n + 1) * 2;
		r->text = realloc(r->text, r->cap);
		if (!r->text)
			abort();
	}
	if (n)
		memcpy(r->text + r->n, s, n);
	r->n += n;
	r->text[r->n] = 0;
}

static int record_piece(void *ctx, const struct output_piece *p)
{
	static const char kinds[] = "CRTM";
	struct record *r = ctx;

	if (r->fail_after && !--r->fail_after)
		return -EPIPE;
	r->cut |= p->len && (p->text[0] & 0xc0) == 0x80;
	if (!p->len || (p->kind == OUTPUT_CALL && p->index != r->calls))
		r->bad = true;
	if (r->last != (int)p->kind || p->kind > OUTPUT_REASONING) {
		record_add(r, "\n", r->last >= 0);
		record_add(r, &kinds[p->kind], 1);
	}
	if (p->kind == OUTPUT_CALL) {
		r->bad |= strlen(p->id) != OUTPUT_CALL_ID;
		record_add(r, " ", 1);
		record_add(r, p->name, strlen(p->name));
		record_add(r, " ", 1);
		r->calls++;
	} else if (r->last != (int)p->kind && p->kind <= OUTPUT_REASONING) {
		record_add(r, " ", 1);
	}
	if (p->kind == OUTPUT_MALFORMED) {
		snprintf(r->why, sizeof(r->why), "%.*s", (int)p->len, p->text);
		r->malformed++;
	} else {
		record_add(r, p->text, p->len);
	}
	r->last = (int)p->kind;
	return 0;
}

static inline void record_begin(struct record *r)
{
	memset(r, 0, sizeof(*r));
	r->last = -1;
	record_add(r, "", 0);
}

static inline void record_free(struct record *r)
{
	free(r->text);
}

#endif
