// SPDX-License-Identifier: MIT
/*
 * The vocabulary: token texts in one arena, a table by id, an open-addressed hash by text and one
 * by pair of ids for the merges. Written once by an opener, then read only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_int.h"
#include "text/utf8.h"

#define NO_MERGE UINT32_MAX

int buf_reserve(struct buf *b, size_t more)
{
	size_t cap = b->cap ? b->cap : 256;
	char *v;

	if (more > SIZE_MAX / 4 - b->n)
		return -ENOMEM;
	while (cap < b->n + more)
		cap *= 2;
	if (cap == b->cap)
		return 0;
	v = realloc(b->v, cap);
	if (!v)
		return -ENOMEM;
	b->v = v;
	b->cap = cap;
	return 0;
}

int buf_add(struct buf *b, const char *s, size_t n)
{
	int rc = b->cap - b->n >= n && b->v ? 0 : buf_reserve(b, n);

	if (rc)
		return rc;
	memcpy(b->v + b->n, s, n);
	b->n += n;
	return 0;
}

void buf_free(struct buf *b)
{
	free(b->v);
	memset(b, 0, sizeof(*b));
}

int ids_push(struct ids *a, int32_t id)
{
	if (a->n == a->cap) {
		size_t cap = a->cap ? a->cap * 2 : 64;
		int32_t *v = realloc(a->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		a->v = v;
		a->cap = cap;
	}
	a->v[a->n++] = id;
	return 0;
}

void ids_free(struct ids *a)
{
	free(a->v);
	memset(a, 0, sizeof(*a));
}

static uint32_t hash_text(const char *s, size_t n)
{
	uint64_t h = 0x9e3779b97f4a7c15u ^ n;
	uint64_t w;

	for (; n >= 8; s += 8, n -= 8) {
		memcpy(&w, s, 8);
		h = (h ^ w) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	w = 0;
	memcpy(&w, s, n);
	h = (h ^ w) * 0xff51afd7ed558ccdu;
	h ^= h >> 29;
	h *= 0xc4ceb9fe1a85ec53u;
	return (uint32_t)(h >> 32);
}

static uint32_t hash_pair(uint32_t a, uint32_t b)
{
	uint64_t h = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;

	return (uint32_t)((h ^ h >> 29) * 0xbf58476d1ce4e5b9u >> 32);
}

static int grow_hash(struct vocab *v)
{
	uint32_t cap = v->hash_cap ? v->hash_cap * 2 : 1024;
	int32_t *h = malloc((size_t)cap * sizeof(*h));

	if (!h)
		return -ENOMEM;
	memset(h, 0xff, (size_t)cap * sizeof(*h));
	for (uint32_t i = 0; i < v->hash_cap; i++) {
		const struct token *t;
		uint32_t k;

		if (v->hash[i] < 0)
			continue;
		t = &v->tok[v->hash[i]];
		k = hash_text(v->arena.v + t->off, t->len) & (cap - 1);
		while (h[k] >= 0)
			k = (k + 1) & (cap - 1);
		h[k] = v->hash[i];
	}
	free(v->hash);
	v->hash = h;
	v->hash_cap = cap;
	return 0;
}

/* The slot that holds the text, or the empty one where it would go. */
static uint32_t find_slot(const struct vocab *v, const char *s, size_t len)
{
	uint32_t k = hash_text(s, len) & (v->hash_cap - 1);

	while (v->hash[k] >= 0) {
		const struct token *t = &v->tok[v->hash[k]];

		if (t->len == len && !memcmp(v->arena.v + t->off, s, len))
			break;
		k = (k + 1) & (v->hash_cap - 1);
	}
	return k;
}

static int grow_ids(struct vocab *v, int64_t id)
{
	int64_t cap = v->cap ? v->cap : 1024;
	struct token *tok;

	while (cap <= id)
		cap += cap / 2;
	tok = realloc(v->tok, (size_t)cap * sizeof(*tok));
	if (!tok)
		return -ENOMEM;
	memset(tok + v->cap, 0, (size_t)(cap - v->cap) * sizeof(*tok));
	v->tok = tok;
	v->cap = (int32_t)cap;
	return 0;
}

int vocab_set(struct vocab *v, int64_t id, const char *s, size_t len, unsigned flags, int64_t limit)
{
	struct token *t;
	int rc;

	if (id < 0 || id > limit || id > INT32_MAX / 2)
		return -ERANGE;
	if (!len || len > TOKEN_MAX_BYTES || v->arena.n > UINT32_MAX - TOKEN_MAX_BYTES)
		return -EINVAL;
	if (id >= v->cap) {
		rc = grow_ids(v, id);
		if (rc)
			return rc;
	}
	t = &v->tok[id];
	if (t->flags & TOK_F_USED) {
		if (t->len != len || memcmp(v->arena.v + t->off, s, len))
			return -EEXIST;
	} else {
		uint32_t off = (uint32_t)v->arena.n;

		rc = buf_add(&v->arena, s, len);
		if (rc)
			return rc;
		*t = (struct token){.off = off, .len = (uint16_t)len};
	}
	t->flags |= flags | TOK_F_USED;
	if (id >= v->n)
		v->n = (int32_t)id + 1;
	if (!(flags & TOK_F_MODEL))
		return 0;
	if (v->hash_used * 2 >= v->hash_cap) {
		rc = grow_hash(v);
		if (rc)
			return rc;
	}
	uint32_t k = find_slot(v, s, len);

	v->hash_used += v->hash[k] < 0;
	v->hash[k] = (int32_t)id;
	if (len > v->max_len)
		v->max_len = (uint32_t)len;
	return 0;
}

int32_t vocab_lookup(const struct vocab *v, const char *s, size_t len)
{
	if (!v->hash_cap || !len || len > v->max_len)
		return -1;
	return v->hash[find_slot(v, s, len)];
}

static struct merge *merge_slot(struct merge *m, uint32_t cap, uint32_t left, uint32_t right)
{
	uint32_t k = hash_pair(left, right) & (cap - 1);

	while (m[k].left != NO_MERGE && (m[k].left != left || m[k].right != right))
		k = (k + 1) & (cap - 1);
	return &m[k];
}

int vocab_reserve_merges(struct vocab *v, size_t n)
{
	uint32_t cap = v->merges_cap ? v->merges_cap : 1024;
	struct merge *m;

	if (n > (1u << 28))
		return -ENOMEM;
	while (cap < n * 2)
		cap *= 2;
	if (cap == v->merges_cap)
		return 0;
	m = malloc((size_t)cap * sizeof(*m));
	if (!m)
		return -ENOMEM;
	memset(m, 0xff, (size_t)cap * sizeof(*m));
	for (uint32_t i = 0; i < v->merges_cap; i++)
		if (v->merges[i].left != NO_MERGE)
			*merge_slot(m, cap, v->merges[i].left, v->merges[i].right) = v->merges[i];
	free(v->merges);
	v->merges = m;
	v->merges_cap = cap;
	return 0;
}

int vocab_add_merge(struct vocab *v, uint32_t left, uint32_t right, uint32_t rank, uint32_t id,
		    bool keep_first)
{
	struct merge *m;
	int rc = vocab_reserve_merges(v, (size_t)v->merges_used + 1);

	if (rc)
		return rc;
	m = merge_slot(v->merges, v->merges_cap, left, right);
	if (m->left == NO_MERGE)
		v->merges_used++;
	else if (keep_first)
		return 0;
	*m = (struct merge){left, right, rank, id};
	return 0;
}

const struct merge *vocab_merge(const struct vocab *v, uint32_t left, uint32_t right)
{
	const struct merge *m;

	if (!v->merges_cap)
		return NULL;
	m = merge_slot(v->merges, v->merges_cap, left, right);
	return m->left == NO_MERGE ? NULL : m;
}

void vocab_free(struct vocab *v)
{
	buf_free(&v->arena);
	free(v->tok);
	free(v->hash);
	free(v->merges);
	free(v->scores);
	memset(v, 0, sizeof(*v));
}

/*
 * GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the other 68 for U+0100, U+0101
 * ... in increasing order.
 */
static bool byte_is_plain(uint8_t b)
{
	return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

uint32_t byte_to_char(uint8_t b)
{
	if (byte_is_plain(b))
		return b;
	if (b <= 0x20)
		return 0x100u + b;
	return b == 0xad ? 0x143 : 0x121u + (b - 0x7f);
}

int char_to_byte(uint32_t c)
{
	if (c < 0x100)
		return byte_is_plain((uint8_t)c) ? (int)c : -1;
	if (c <= 0x120)
		return (int)(c - 0x100);
	if (c <= 0x142)
		return (int)(c - 0x121 + 0x7f);
	return c == 0x143 ? 0xad : -1;
}

size_t bytes_to_alphabet(const char *s, size_t n, char *out)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		k += utf8_encode(byte_to_char((uint8_t)s[i]), out + k);
	return k;
}

int fallback_byte(const char *s, size_t len)
{
	int v = 0;

	if (len != 6 || memcmp(s, "<0x", 3) || s[5] != '>')
		return -1;
	for (int i = 3; i < 5; i++) {
		int c = (unsigned char)s[i];

		if (c >= '0' && c <= '9')
			v = v * 16 + c - '0';
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			v = v * 16 + (c | 32) - 'a' + 10;
		else
			return -1;
	}
	return v;
}
