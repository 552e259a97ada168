// SPDX-License-Identifier: MIT
/*
 * Merging one piece: a linked list of symbols and a heap of candidate pairs (four
 * children a node: half the cache misses of two), O(n log n).
 * Byte-pair merges go by rank; SPM merges by the score of the token that the two become.
 * A heap entry is stale when its left symbol is gone or the pair no longer spans the same bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_int.h"
#include "text/utf8.h"

static int add_symbol(struct merge_scratch *m, int32_t id, uint32_t start, uint32_t len)
{
	if (m->n_sym == m->cap_sym) {
		size_t cap = m->cap_sym ? m->cap_sym * 2 : 256;
		struct symbol *v = realloc(m->sym, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		m->sym = v;
		m->cap_sym = cap;
	}
	m->sym[m->n_sym] =
		(struct symbol){id, start, len, (int32_t)m->n_sym - 1, (int32_t)m->n_sym + 1};
	m->n_sym++;
	return 0;
}

static bool before(const struct heap_item *a, const struct heap_item *b)
{
	return a->rank != b->rank ? a->rank < b->rank : a->pos < b->pos;
}

static int heap_push(struct merge_scratch *m, struct heap_item x)
{
	size_t i;

	if (m->n_heap == m->cap_heap) {
		size_t cap = m->cap_heap ? m->cap_heap * 2 : 256;
		struct heap_item *v = realloc(m->heap, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		m->heap = v;
		m->cap_heap = cap;
	}
	m->heap_ops++;
	i = m->n_heap++;
	while (i && before(&x, &m->heap[(i - 1) / 4])) {
		m->heap[i] = m->heap[(i - 1) / 4];
		i = (i - 1) / 4;
	}
	m->heap[i] = x;
	return 0;
}

static struct heap_item heap_pop(struct merge_scratch *m)
{
	struct heap_item top = m->heap[0], x = m->heap[--m->n_heap];
	size_t i = 0;

	m->heap_ops++;
	for (;;) {
		size_t c = 4 * i + 1, end = c + 4 < m->n_heap ? c + 4 : m->n_heap;

		if (c >= end)
			break;
		for (size_t k = c + 1; k < end; k++)
			if (before(&m->heap[k], &m->heap[c]))
				c = k;
		if (!before(&m->heap[c], &x))
			break;
		m->heap[i] = m->heap[c];
		i = c;
	}
	if (m->n_heap)
		m->heap[i] = x;
	return top;
}

/* Scores as integers in descending order: the highest score is the lowest rank. */
static uint32_t score_rank(float f)
{
	uint32_t u;

	f += 0.0f; /* -0 and 0 are the same score */
	memcpy(&u, &f, 4);
	return u >> 31 ? u : 0x7fffffffu - u;
}

/* Queue the pair that starts at symbol i, if it can merge. */
static int push_pair(const struct tokenizer *t, struct merge_scratch *m, const char *s, int32_t i)
{
	const struct symbol *a = &m->sym[i], *b;
	struct heap_item x;

	if (i < 0 || a->next < 0)
		return 0;
	b = &m->sym[a->next];
	x.pos = (uint32_t)i;
	x.len = a->len + b->len;
	if (t->model == MODEL_SPM) {
		int32_t id = vocab_lookup(&t->v, s + a->start, x.len);

		if (id < 0 || (t->v.tok[id].flags & TOK_F_NOMERGE))
			return 0;
		x.id = (uint32_t)id;
		x.rank = score_rank(t->v.scores[id]);
	} else {
		const struct merge *g = vocab_merge(&t->v, (uint32_t)a->id, (uint32_t)b->id);

		if (!g)
			return 0;
		x.id = g->id;
		x.rank = g->rank;
	}
	return heap_push(m, x);
}

/* The unknown token: one for each character, or one for a run of them with fuse_unk. */
struct unknown {
	uint32_t start, len;
};

static int flush_unknown(const struct tokenizer *t, struct merge_scratch *m, struct unknown *u)
{
	int rc = u->len ? add_symbol(m, t->unk, u->start, u->len) : 0;

	u->len = 0;
	return rc;
}

static int add_unknown(const struct tokenizer *t, struct merge_scratch *m, struct unknown *u,
		       uint32_t start, uint32_t len)
{
	if (t->unk < 0) /* Hugging Face drops what it cannot express */
		return 0;
	if (!t->fuse_unk || !u->len) {
		int rc = flush_unknown(t, m, u);

		if (rc)
			return rc;
		u->start = start;
	}
	u->len += len;
	return 0;
}

static bool has_fallback(const struct tokenizer *t, const char *s, int len)
{
	for (int i = 0; i < len; i++)
		if (t->byte_id[(uint8_t)s[i]] < 0)
			return false;
	return true;
}

static int start_symbols(const struct tokenizer *t, const char *s, size_t n,
			 struct merge_scratch *m)
{
	struct unknown u = {0, 0};
	int rc = 0;

	for (size_t i = 0; i < n && !rc;) {
		int len = t->byte_level ? 1 : utf8_skip(s + i);
		int32_t id = t->byte_level ? t->byte_id[(uint8_t)s[i]]
					   : vocab_lookup(&t->v, s + i, (size_t)len);

		if (t->model == MODEL_SPM) {
			if (id >= 0 && (t->v.tok[id].flags & TOK_F_NOMERGE))
				id = -1;
			rc = add_symbol(m, id, (uint32_t)i, (uint32_t)len);
		} else if (id >= 0) {
			rc = flush_unknown(t, m, &u);
			if (!rc)
				rc = add_symbol(m, id, (uint32_t)i, (uint32_t)len);
		} else if (t->byte_fallback && has_fallback(t, s + i, len)) {
			for (int k = 0; k < len && !rc; k++)
				rc = add_symbol(m, t->byte_id[(uint8_t)s[i + k]], (uint32_t)(i + k),
						1);
		} else {
			rc = add_unknown(t, m, &u, (uint32_t)i, (uint32_t)len);
		}
		i += len;
	}
	return rc ? rc : flush_unknown(t, m, &u);
}

static int emit(const struct tokenizer *t, const char *s, const struct symbol *a, struct ids *out)
{
	int rc = 0;

	if (a->id >= 0)
		return ids_push(out, a->id);
	/* SPM: a character without a token becomes its bytes */
	if (!has_fallback(t, s + a->start, (int)a->len))
		return t->unk >= 0 ? ids_push(out, t->unk) : 0;
	for (uint32_t k = 0; k < a->len && !rc; k++)
		rc = ids_push(out, t->byte_id[(uint8_t)s[a->start + k]]);
	return rc;
}

int merge_piece(const struct tokenizer *t, const char *s, size_t n, struct merge_scratch *m,
		struct ids *out)
{
	int rc;

	m->n_sym = 0;
	m->n_heap = 0;
	rc = start_symbols(t, s, n, m);
	if (rc || !m->n_sym)
		return rc;
	m->symbols += m->n_sym;
	m->sym[m->n_sym - 1].next = -1;
	for (size_t i = 0; i + 1 < m->n_sym; i++) {
		rc = push_pair(t, m, s, (int32_t)i);
		if (rc)
			return rc;
	}
	while (m->n_heap) {
		struct heap_item x = heap_pop(m);
		struct symbol *a = &m->sym[x.pos], *b;

		if (!a->len || a->next < 0 || a->len + m->sym[a->next].len != x.len)
			continue;
		b = &m->sym[a->next];
		a->id = (int32_t)x.id;
		a->len = x.len;
		a->next = b->next;
		b->len = 0;
		if (a->next >= 0)
			m->sym[a->next].prev = (int32_t)x.pos;
		rc = push_pair(t, m, s, a->prev);
		if (!rc)
			rc = push_pair(t, m, s, (int32_t)x.pos);
		if (rc)
			return rc;
	}
	for (int32_t i = 0; i >= 0 && !rc; i = m->sym[i].next)
		rc = emit(t, s, &m->sym[i], out);
	return rc;
}

void merge_scratch_free(struct merge_scratch *m)
{
	free(m->sym);
	free(m->heap);
	memset(m, 0, sizeof(*m));
}
