// SPDX-License-Identifier: MIT
/*
 * The builder: nodes in arrays that refer to each other by index, children before parents (rules
 * apart). Everything is bounded here, so that the front ends need not count.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"
#include "text/utf8.h"

int gb_fail(struct gb *b, int rc, const char *fmt, ...)
{
	va_list ap;
	char msg[sizeof(((struct err *)0)->msg)];

	if (b->rc)
		return b->rc;
	b->rc = rc;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	return err_set(b->e, rc, "%s", msg);
}

static int no_memory(struct gb *b)
{
	return gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
}

/* Room for `more` elements of `size` behind *n in *v. */
static int room(struct gb *b, void *v, uint32_t n, uint32_t *cap, uint32_t more, size_t size)
{
	void **p = v, *q;
	uint32_t want = *cap ? *cap : 64;

	if (b->rc)
		return b->rc;
	while (want < n + more)
		want *= 2;
	if (want == *cap)
		return 0;
	q = realloc(*p, want * size);
	if (!q)
		return no_memory(b);
	*p = q;
	*cap = want;
	return 0;
}

void gb_init(struct gb *b, struct err *e)
{
	memset(b, 0, sizeof(*b));
	b->e = e;
	if (room(b, &b->node, 0, &b->cap_node, 1, sizeof(*b->node)))
		return;
	b->node[0] = (struct gn){.kind = GN_FAIL};
	b->n_node = 1;
}

void gb_free(struct gb *b)
{
	free(b->node);
	free(b->kid);
	free(b->text);
	free(b->set);
	free(b->rule);
	for (int i = 0; i < b->n_mark; i++)
		free(b->mark[i]);
	memset(b, 0, sizeof(*b));
}

static gnode add(struct gb *b, struct gn n)
{
	if (b->n_node >= GB_MAX_NODES) {
		gb_fail(b, -E2BIG, "grammar: larger than %u parts: make it smaller", GB_MAX_NODES);
		return 0;
	}
	if (n.depth > GB_MAX_DEPTH) {
		gb_fail(b, -E2BIG, "grammar: nested deeper than %d: make it flatter", GB_MAX_DEPTH);
		return 0;
	}
	if (room(b, &b->node, b->n_node, &b->cap_node, 1, sizeof(*b->node)))
		return 0;
	b->node[b->n_node] = n;
	return b->n_node++;
}

gnode gb_empty(struct gb *b)
{
	return add(b, (struct gn){.kind = GN_EMPTY});
}

gnode gb_bytes(struct gb *b, const char *s, size_t n)
{
	uint32_t off = b->n_text;

	if (!n)
		return gb_empty(b);
	if (n > GB_MAX_TEXT - b->n_text) {
		gb_fail(b, -E2BIG, "grammar: more than %u bytes of fixed text: make it smaller",
			GB_MAX_TEXT);
		return 0;
	}
	if (room(b, &b->text, b->n_text, &b->cap_text, (uint32_t)n, 1))
		return 0;
	memcpy(b->text + off, s, n);
	b->n_text += (uint32_t)n;
	return add(b, (struct gn){.kind = GN_BYTES, .a = off, .b = (uint32_t)n});
}

gnode gb_lit(struct gb *b, const char *s)
{
	return gb_bytes(b, s, strlen(s));
}

gnode gb_set(struct gb *b, const struct byteset *s)
{
	uint32_t i;

	if (!(s->w[0] | s->w[1] | s->w[2] | s->w[3]))
		return 0;
	for (i = 0; i < b->n_set && i < 256; i++) {
		if (!memcmp(&b->set[b->n_set - 1 - i], s, sizeof(*s)))
			return add(b, (struct gn){.kind = GN_SET, .a = b->n_set - 1 - i});
	}
	if (room(b, &b->set, b->n_set, &b->cap_set, 1, sizeof(*b->set)))
		return 0;
	b->set[b->n_set] = *s;
	return add(b, (struct gn){.kind = GN_SET, .a = b->n_set++});
}

gnode gb_range(struct gb *b, unsigned lo, unsigned hi)
{
	struct byteset s = {0};

	set_add(&s, lo, hi);
	return gb_set(b, &s);
}

gnode gb_list(struct gb *b, enum gnode_kind kind, const gnode *v, size_t n)
{
	uint32_t off = b->n_kid, depth = 0, k = 0;

	if (b->rc)
		return 0;
	if (n > GB_MAX_NODES || b->n_kid + n > 4u * GB_MAX_NODES) {
		gb_fail(b, -E2BIG, "grammar: larger than %u parts: make it smaller", GB_MAX_NODES);
		return 0;
	}
	if (room(b, &b->kid, b->n_kid, &b->cap_kid, (uint32_t)n + 1, sizeof(*b->kid)))
		return 0;
	for (size_t i = 0; i < n; i++) {
		const struct gn *c = &b->node[v[i]];

		if (c->kind == GN_FAIL && kind == GN_SEQ)
			return 0;
		if (c->kind == GN_FAIL || (c->kind == GN_EMPTY && kind == GN_SEQ))
			continue;
		depth = c->depth > depth ? c->depth : depth;
		b->kid[off + k++] = v[i];
	}
	if (!k)
		return kind == GN_SEQ ? gb_empty(b) : 0;
	if (k == 1)
		return b->kid[off];
	b->n_kid += k;
	return add(b, (struct gn){.kind = kind, .depth = depth + 1, .a = off, .b = k});
}

gnode gb_rep(struct gb *b, gnode x, uint32_t min, uint32_t max)
{
	if (b->rc || min > max)
		return 0;
	if (!max || (!x && !min))
		return gb_empty(b);
	if (!x || (min == 1 && max == 1))
		return x;
	return add(b, (struct gn){.kind = GN_REP,
				  .depth = b->node[x].depth + 1,
				  .a = x,
				  .b = min,
				  .max = max});
}

gnode gb_char(struct gb *b, gnode x)
{
	if (!x)
		return 0;
	return add(b, (struct gn){.kind = GN_CHAR, .depth = b->node[x].depth + 1, .a = x});
}

uint32_t gb_rule(struct gb *b)
{
	if (b->n_rule >= GB_MAX_RULES)
		gb_fail(b, -E2BIG, "grammar: more than %u rules: make it smaller", GB_MAX_RULES);
	if (room(b, &b->rule, b->n_rule, &b->cap_rule, 1, sizeof(*b->rule)))
		return 0;
	b->rule[b->n_rule] = (struct grule){0};
	return b->n_rule++;
}

void gb_define(struct gb *b, uint32_t rule, gnode body)
{
	if (b->rc)
		return;
	b->rule[rule].body = body;
	b->rule[rule].defined = true;
}

gnode gb_call(struct gb *b, uint32_t rule)
{
	return add(b, (struct gn){.kind = GN_RULE, .a = rule});
}

gnode gb_mark(struct gb *b, const char *text)
{
	gnode same = gb_lit(b, text);
	int i;

	if (!same)
		return 0;
	for (i = 0; i < b->n_mark && strcmp(b->mark[i], text); i++)
		;
	if (i == b->n_mark) {
		if (i == GB_MAX_MARKS) {
			gb_fail(b, -E2BIG, "grammar: more than %d named tokens: name fewer",
				GB_MAX_MARKS);
			return 0;
		}
		b->mark[i] = strdup(text);
		if (!b->mark[i]) {
			no_memory(b);
			return 0;
		}
		b->n_mark++;
	}
	return add(b, (struct gn){.kind = GN_MARK, .a = (uint32_t)i, .b = same});
}

/* ---- trees of strings ---------------------------------------------------------------------- */

static int by_bytes(const void *x, const void *y)
{
	const struct gstr *p = x, *q = y;
	int c = memcmp(p->s, q->s, p->n < q->n ? p->n : q->n);

	return c ? c : p->n < q->n ? -1 : p->n > q->n;
}

static gnode strings_tree(struct gb *b, const struct gstr *v, size_t n, size_t pos, int depth)
{
	size_t common = v[0].n, i, j, k = 0;
	gnode *alt, r;

	/* sorted: what the first and the last share, all share */
	for (i = pos; i < common && i < v[n - 1].n && v[0].s[i] == v[n - 1].s[i]; i++)
		;
	common = i;
	if (n == 1)
		return gb_bytes(b, v[0].s + pos, v[0].n - pos);
	alt = calloc(n, sizeof(*alt));
	if (!alt) {
		no_memory(b);
		return 0;
	}
	for (i = 0; i < n && !b->rc; i = j) {
		if (v[i].n == common) {
			alt[k++] = gb_empty(b);
			j = i + 1;
			continue;
		}
		for (j = i + 1; j < n && v[j].n > common && v[j].s[common] == v[i].s[common]; j++)
			;
		if (depth < GB_MAX_DEPTH / 4) {
			alt[k++] = strings_tree(b, v + i, j - i, common, depth + 1);
			continue;
		}
		for (size_t q = i; q < j; q++)
			alt[k++] = gb_bytes(b, v[q].s + common, v[q].n - common);
	}
	r = gb_seq(b, gb_bytes(b, v[0].s + pos, common - pos), gb_list(b, GN_ALT, alt, k));
	free(alt);
	return r;
}

gnode gb_strings(struct gb *b, struct gstr *v, size_t n)
{
	size_t k = 0;

	if (!n || b->rc)
		return 0;
	qsort(v, n, sizeof(*v), by_bytes);
	for (size_t i = 0; i < n; i++) {
		if (!k || by_bytes(&v[k - 1], &v[i]))
			v[k++] = v[i];
	}
	return strings_tree(b, v, k, 0, 0);
}

/* ---- characters ---------------------------------------------------------------------------- */

int cpset_add(struct cpset *s, uint32_t lo, uint32_t hi)
{
	if (s->n == s->cap) {
		uint32_t cap = s->cap ? s->cap * 2 : 8;
		struct cprange *v = realloc(s->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		s->v = v;
		s->cap = cap;
	}
	s->v[s->n++] = (struct cprange){lo, hi};
	return 0;
}

static int by_lo(const void *x, const void *y)
{
	const struct cprange *p = x, *q = y;

	return p->lo < q->lo ? -1 : p->lo > q->lo;
}

void cpset_tidy(struct cpset *s)
{
	uint32_t k = 0;

	if (!s->n)
		return;
	qsort(s->v, s->n, sizeof(*s->v), by_lo);
	for (uint32_t i = 1; i < s->n; i++) {
		if (s->v[i].lo <= s->v[k].hi + 1)
			s->v[k].hi = s->v[i].hi > s->v[k].hi ? s->v[i].hi : s->v[k].hi;
		else
			s->v[++k] = s->v[i];
	}
	s->n = k + 1;
}

int cpset_invert(struct cpset *s)
{
	struct cpset r = {0};
	uint32_t at = 0;
	int rc = 0;

	cpset_tidy(s);
	for (uint32_t i = 0; i < s->n && !rc; i++) {
		if (s->v[i].lo > at)
			rc = cpset_add(&r, at, s->v[i].lo - 1);
		at = s->v[i].hi + 1;
	}
	if (!rc && at <= 0x10ffff)
		rc = cpset_add(&r, at, 0x10ffff);
	free(s->v);
	*s = r;
	return rc;
}

void cpset_free(struct cpset *s)
{
	free(s->v);
	memset(s, 0, sizeof(*s));
}

/* UTF-8 of lo .. hi, which have the same length: ranges of bytes, split where they must be. */
static gnode utf8_range(struct gb *b, const uint8_t *lo, const uint8_t *hi, int n)
{
	static const uint8_t least[4] = {0x80, 0x80, 0x80, 0x80};
	static const uint8_t most[4] = {0xbf, 0xbf, 0xbf, 0xbf};
	gnode part[3];
	int k = 0, first, last;

	if (n == 1)
		return gb_range(b, lo[0], hi[0]);
	if (lo[0] == hi[0])
		return gb_seq(b, gb_range(b, lo[0], lo[0]), utf8_range(b, lo + 1, hi + 1, n - 1));
	first = lo[0] + (memcmp(lo + 1, least, (size_t)n - 1) != 0);
	last = hi[0] - (memcmp(hi + 1, most, (size_t)n - 1) != 0);
	if (first != lo[0])
		part[k++] =
			gb_seq(b, gb_range(b, lo[0], lo[0]), utf8_range(b, lo + 1, most, n - 1));
	if (first <= last)
		part[k++] = gb_seq(b, gb_range(b, (unsigned)first, (unsigned)last),
				   utf8_range(b, least, most, n - 1));
	if (last != hi[0])
		part[k++] =
			gb_seq(b, gb_range(b, hi[0], hi[0]), utf8_range(b, least, hi + 1, n - 1));
	return gb_list(b, GN_ALT, part, (size_t)k);
}

static gnode json_escaped(struct gb *b, uint32_t cp)
{
	static const char with[] = "b\bf\fn\nr\rt\t\"\"\\\\";
	char s[8];

	if (!cp)
		return 0; /* readers refuse \u0000 */
	for (const char *p = with; *p; p += 2) {
		if ((uint32_t)(unsigned char)p[1] == cp) {
			snprintf(s, sizeof(s), "\\%c", p[0]);
			return gb_lit(b, s);
		}
	}
	snprintf(s, sizeof(s), "\\u%04x", cp);
	return gb_lit(b, s);
}

gnode gb_class(struct gb *b, const struct cpset *s, bool json)
{
	static const uint32_t ends[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff, 0x10ffff};
	struct byteset ascii = {0};
	gnode *part = NULL, r = 0;
	size_t n = 0, cap = s->n * 7 + 64;

	part = calloc(cap, sizeof(*part));
	if (!part) {
		no_memory(b);
		return 0;
	}
	for (uint32_t i = 0; i < s->n && !b->rc; i++) {
		uint32_t lo = s->v[i].lo, hi = s->v[i].hi;

		for (int k = 0; k < 6 && lo <= hi; k++) {
			uint32_t end = hi < ends[k] ? hi : ends[k];
			char x[4], y[4];
			int len;

			if (lo > ends[k])
				continue;
			if (k == 0) {
				for (uint32_t c = lo; c <= end; c++) {
					if (json && (c < 0x20 || c == '"' || c == '\\'))
						part[n++] = json_escaped(b, c);
					else
						set_add(&ascii, c, c);
				}
			} else if (k != 3) {
				len = utf8_encode(lo, x);
				utf8_encode(end, y);
				part[n++] = utf8_range(b, (uint8_t *)x, (uint8_t *)y, len);
			}
			lo = end + 1;
		}
	}
	part[n++] = gb_set(b, &ascii);
	r = gb_list(b, GN_ALT, part, n);
	free(part);
	return gb_char(b, r);
}

gnode gb_cp(struct gb *b, uint32_t cp, bool json)
{
	struct cprange r = {cp, cp};
	struct cpset s = {.v = &r, .n = 1};

	return gb_class(b, &s, json);
}

/* ---- lengths ------------------------------------------------------------------------------- */

bool gb_lengths(const struct gb *b, gnode x, uint64_t *min, uint64_t *max)
{
	const struct gn *n = &b->node[x];
	uint64_t lo, hi;

	*min = *max = 0;
	switch (n->kind) {
	case GN_EMPTY:
		return true;
	case GN_CHAR:
		*min = *max = 1;
		return true;
	case GN_REP:
		if (!gb_lengths(b, n->a, &lo, &hi))
			return false;
		*min = lo * n->b;
		*max = (n->max == GB_INF && hi) || hi == UINT64_MAX ? UINT64_MAX : hi * n->max;
		/* lengths stay far below 2^64 only while the parts do */
		if (*min > UINT32_MAX || (*max != UINT64_MAX && *max > UINT32_MAX))
			return false;
		return true;
	case GN_SEQ:
	case GN_ALT:
		for (uint32_t i = 0; i < n->b; i++) {
			if (!gb_lengths(b, b->kid[n->a + i], &lo, &hi))
				return false;
			if (n->kind == GN_SEQ) {
				*min += lo;
				*max = *max == UINT64_MAX || hi == UINT64_MAX ? UINT64_MAX
									      : *max + hi;
			} else {
				*min = i && *min < lo ? *min : lo;
				*max = *max > hi ? *max : hi;
			}
		}
		return true;
	default:
		return false;
	}
}

gnode gb_narrow(struct gb *b, gnode x, uint32_t min, uint32_t max)
{
	const struct gn *n = &b->node[x];
	uint32_t lo, hi;
	gnode one;

	if (n->kind == GN_CHAR) {
		one = x;
		lo = hi = 1;
	} else if (n->kind == GN_REP && b->node[n->a].kind == GN_CHAR) {
		one = n->a;
		lo = n->b;
		hi = n->max;
	} else {
		return 0;
	}
	lo = lo > min ? lo : min;
	hi = hi < max ? hi : max;
	return gb_rep(b, one, lo, hi);
}
