// SPDX-License-Identifier: MIT
/* Added tokens: texts that are cut out of the input before the model sees it, longest first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_int.h"

int added_put(struct added_set *s, const char *text, size_t len, const struct added *a)
{
	struct added *n;
	int rc;

	if (s->n == s->cap) {
		uint32_t cap = s->cap ? s->cap * 2 : 64;

		n = realloc(s->v, cap * sizeof(*n));
		if (!n)
			return -ENOMEM;
		s->v = n;
		s->cap = cap;
	}
	n = &s->v[s->n];
	*n = *a;
	n->off = (uint32_t)s->arena.n;
	n->len = (uint32_t)len;
	rc = buf_add(&s->arena, text, len);
	if (!rc)
		s->n++;
	return rc;
}

static int compare(const void *x, const void *y, void *arena)
{
	const struct added *a = x, *b = y;
	const char *base = arena;
	uint32_t n = a->len < b->len ? a->len : b->len;
	int c = memcmp(base + a->off, base + b->off, n);

	if (!c && a->len != b->len)
		c = a->len < b->len ? -1 : 1;
	/* the order of the file among equals: the first one is kept */
	return c ? c : (a->off > b->off) - (a->off < b->off);
}

int added_finish(struct added_set *s)
{
	uint32_t k = 0;

	if (s->n)
		qsort_r(s->v, s->n, sizeof(*s->v), compare, s->arena.v);
	for (uint32_t i = 0; i < s->n; i++) {
		const struct added *a = &s->v[i];

		if (k && s->v[k - 1].len == a->len &&
		    !memcmp(s->arena.v + s->v[k - 1].off, s->arena.v + a->off, a->len))
			continue;
		s->v[k++] = *a;
	}
	s->n = k;
	k = 0;
	for (int b = 0; b < 257; b++) {
		while (k < s->n && (uint8_t)s->arena.v[s->v[k].off] < b)
			k++;
		s->first[b] = k;
	}
	return 0;
}

/* First index in [lo, hi) whose byte at depth d is >= b (all of them are longer than d). */
static uint32_t lower(const struct added_set *s, uint32_t lo, uint32_t hi, uint32_t d, int b)
{
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if ((uint8_t)s->arena.v[s->v[mid].off + d] < b)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

const struct added *added_match(const struct added_set *s, const char *text, size_t n, size_t p)
{
	const struct added *best = NULL;
	uint32_t lo = s->first[(uint8_t)text[p]], hi = s->first[(uint8_t)text[p] + 1];

	/* v[lo..hi) share the first d bytes with the text; the one that ends there sorts first */
	for (uint32_t d = 1; lo < hi; d++) {
		int b;

		if (s->v[lo].len == d)
			best = &s->v[lo++];
		if (p + d >= n || lo == hi)
			break;
		b = (uint8_t)text[p + d];
		lo = lower(s, lo, hi, d, b);
		hi = lower(s, lo, hi, d, b + 1);
	}
	return best;
}

int32_t added_find(const struct added_set *s, const char *text, size_t len)
{
	const struct added *a = len && s->n ? added_match(s, text, len, 0) : NULL;

	return a && a->len == len ? a->id : -1;
}

void added_free(struct added_set *s)
{
	buf_free(&s->arena);
	free(s->v);
	memset(s, 0, sizeof(*s));
}
