/* SPDX-License-Identifier: MIT */
/*
 * A backend that computes no model but bears witness: what it answers depends on every byte of
 * scheduling and page-table work that went before, and on nothing else.
 *
 * Each row leaves a record in its slot of the sequence's page: its id, its position, its class, and
 * a chain over all of that from the sequence's first token (a model's deeper layers depend on the
 * past in the same way). For a row whose logits are wanted it reads the records of *all* positions
 * back through the page table and makes the logits of their hash. So a wrong table, a page given
 * away too early or not copied before it was written, a page of the wrong history, a wrong position
 * or class, a stale recurrent state: each changes all logits from there on. A forward pass costs
 * microseconds.
 *
 * It also checks the batch against the rules of ops.h, and says which was broken first.
 *
 * witness_logits() says what the answer must be, from ids and classes alone, without any engine.
 */
#ifndef LLMDEV_TEST_WITNESS_H
#define LLMDEV_TEST_WITNESS_H

#include <stdlib.h>
#include <string.h>

#include "engine/kv.h"

#define WITNESS_MAX_VOCAB  4096
#define WITNESS_MAX_FAVOUR 512
#define WITNESS_STATE	   48 /* bytes of recurrent state, where there is one */

/* What the logits lean to, so that tests can have text of some kind and ends of sequence. */
struct witness_taste {
	int32_t text
		[WITNESS_MAX_FAVOUR]; /* these ids, repeated: position p likes text[p % n_text] */
	int n_text;
	int text_of_8; /* in so many of 8 positions */
	int32_t eos;
	int eos_in; /* one position in so many likes eos; 0: none */
};

struct witness {
	struct backend backend;
	struct witness_taste taste;
	const struct kv_cache *kv; /* if set: written pages are looked up in it */
	const char *complaint; /* the rule of ops.h that was broken first, NULL */
	const struct plan *plan;
	int max_tok, max_out;
	/* what it was asked to do */
	uint64_t steps, rows;
	uint64_t rows_of[WITNESS_MAX_VOCAB]; /* rows of sequences whose first id is this */
	int32_t *marked; /* [kv->n_pages]: 1 + the sequence of this batch that has it */
};

struct witness_record {
	uint64_t chain;
	int32_t id;
	uint32_t place; /* position * 2 + class */
};

/* The recurrent state: as long as a real one is not, but more than a word. */
struct witness_state {
	uint64_t chain;
	uint64_t rows;
	uint64_t ring[(WITNESS_STATE - 16) / 8];
};

/* splitmix64's finaliser (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators). */
static inline uint64_t witness_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static inline void witness_next_record(struct witness_record *r, int32_t id, int pos,
				       bool generated)
{
	r->id = id;
	r->place = (uint32_t)pos * 2 + generated;
	r->chain = witness_mix(r->chain ^ witness_mix((uint64_t)r->place << 32 | (uint32_t)id));
}

static inline uint64_t witness_look(uint64_t hash, const struct witness_record *r)
{
	return witness_mix(witness_mix(hash ^ r->chain) ^ (uint64_t)r->place << 32 ^
			   (uint32_t)r->id);
}

static inline void witness_next_state(struct witness_state *s, int32_t id)
{
	s->chain = witness_mix(s->chain ^ (uint32_t)id);
	s->ring[s->rows++ % (sizeof(s->ring) / sizeof(s->ring[0]))] ^= s->chain;
}

static inline uint64_t witness_look_at_state(uint64_t hash, const struct witness_state *s)
{
	uint64_t word[sizeof(*s) / 8];

	memcpy(word, s, sizeof(word));
	for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++)
		hash = witness_mix(hash ^ word[i]);
	return hash;
}

/* Logits in (-4, 4), exactly representable, all different in all likelihood. */
static inline void witness_speak(const struct witness_taste *t, uint64_t hash, int pos, int vocab,
				 float *logits)
{
	uint64_t mood = witness_mix(hash ^ 0x6d6f6f64);

	for (int i = 0; i < vocab; i++) {
		uint64_t x = (hash + i) * 0x9e3779b97f4a7c15ull;

		x = (x ^ x >> 32) * 0xd6e8feb86659fd93ull;
		logits[i] = (float)((int64_t)(x >> 40) - (1 << 23)) * 0x1p-21f;
	}
	if (t->n_text && (int)(mood & 7) < t->text_of_8)
		logits[t->text[pos % t->n_text]] += 16;
	if (t->eos_in && (mood >> 8) % t->eos_in == 0)
		logits[t->eos] += 32;
}

/* A hidden state: as the logits, without taste. */
static inline void witness_hidden(uint64_t hash, int pos, int n, float *hidden)
{
	static const struct witness_taste none;

	witness_speak(&none, witness_mix(hash ^ 0x68696464), pos, n, hidden);
}

/* Of all that a sequence's last position has seen. `generated` may be NULL, as in struct batch. */
static inline uint64_t witness_hash(const int32_t *ids, const uint8_t *generated, int n, bool state)
{
	struct witness_record r = {0};
	struct witness_state s = {0};
	uint64_t hash = 0;

	for (int i = 0; i < n; i++) {
		witness_next_record(&r, ids[i], i, generated && generated[i]);
		witness_next_state(&s, ids[i]);
		hash = witness_look(hash, &r);
		hash = witness_look(hash, &r); /* a record stands in two places */
	}
	return state ? witness_look_at_state(hash, &s) : hash;
}

/* What a sequence's last position must give. */
static inline void witness_logits(const struct witness_taste *t, const int32_t *ids,
				  const uint8_t *generated, int n, bool state, int vocab,
				  float *logits)
{
	witness_speak(t, witness_hash(ids, generated, n, state), n - 1, vocab, logits);
}

static inline void witness_complain(struct witness *w, const char *what)
{
	if (!w->complaint)
		w->complaint = what;
}

/*
 * A record stands in the first block of the first group and in the last block of the last one, so
 * that a copy of half a page is noticed.
 */
static inline struct witness_record *witness_slot(const struct witness *w,
						  const struct kv_pool *pool,
						  const struct batch_seq *q, int pos, int copy)
{
	int g = copy ? w->plan->n_groups - 1 : 0;
	const struct kv_group *k = &w->plan->group[g];
	int32_t page = q->pages[g][pos / KV_PAGE_TOKENS];
	char *block = (char *)kv_block(pool, k, g, page, copy ? k->n_layers - 1 : 0, copy,
				       copy ? k->n_heads - 1 : 0);

	return (struct witness_record *)block + pos % KV_PAGE_TOKENS;
}

static inline uint64_t witness_walk(const struct witness *w, const struct kv_pool *pool,
				    const struct batch_seq *q, int n)
{
	uint64_t hash = 0;

	for (int i = 0; i < n; i++) {
		hash = witness_look(hash, witness_slot(w, pool, q, i, 0));
		hash = witness_look(hash, witness_slot(w, pool, q, i, 1));
	}
	return hash;
}

static inline void witness_check_batch(struct witness *w, const struct batch *b)
{
	int rows = 0;

	if (b->n_tok < 1 || b->n_tok > w->max_tok)
		witness_complain(w, "more rows than prepare() was told of, or none");
	if (b->n_out > w->max_out)
		witness_complain(w, "more outputs than prepare() was told of");
	for (int i = 0; i < b->n_tok; i++)
		if (b->ids[i] < 0 || b->ids[i] >= w->plan->vocab)
			witness_complain(w, "an id outside the vocabulary");
	for (int i = 0; i < b->n_out; i++)
		if (b->out_row[i] < 0 || b->out_row[i] >= b->n_tok ||
		    (i && b->out_row[i] <= b->out_row[i - 1]))
			witness_complain(w, "out_row[] is not ascending, or out of range");
	for (int i = 0; i < b->n_hidden; i++)
		if (b->hidden_row[i] < 0 || b->hidden_row[i] >= b->n_tok ||
		    (i && b->hidden_row[i] <= b->hidden_row[i - 1]))
			witness_complain(w, "hidden_row[] is not ascending, or out of range");
	for (int i = 0; i < b->n_seq; i++) {
		const struct batch_seq *q = &b->seq[i];

		if (q->first != rows || q->n_tok < 1)
			witness_complain(w, "the sequences do not lie one behind the other");
		if (q->pos0 < 0 || q->pos0 + q->n_tok > w->plan->max_pos)
			witness_complain(w, "a position outside the context");
		if (!q->state != !w->plan->state_bytes)
			witness_complain(w, "a sequence without its state, or with one too many");
		rows += q->n_tok;
	}
	if (rows != b->n_tok)
		witness_complain(w, "rows that belong to no sequence");
}

/* A page that is written belongs to one sequence, is not published, and is nobody else's. */
static inline void witness_check_pages(struct witness *w, const struct batch *b)
{
	int n_pages = w->kv->n_pages;

	if (!w->marked)
		w->marked = (int32_t *)calloc(n_pages, sizeof(*w->marked));
	memset(w->marked, 0, n_pages * sizeof(*w->marked));
	for (int i = 0; i < b->n_seq; i++) { /* mark what is read */
		const struct batch_seq *q = &b->seq[i];
		int n = kv_pages_for(q->pos0 + q->n_tok);

		for (int p = 0; p < n; p++) {
			int32_t page = q->pages[0][p];

			if (page < 0 || page >= n_pages) {
				witness_complain(w, "a page outside the pool");
				return;
			}
			if (w->kv->page[page].refs < 1)
				witness_complain(w, "a page that nobody holds");
			w->marked[page] = w->marked[page] ? -1 : i + 1;
		}
	}
	for (int i = 0; i < b->n_seq; i++) {
		const struct batch_seq *q = &b->seq[i];
		int n = kv_pages_for(q->pos0 + q->n_tok);

		for (int p = q->pos0 / KV_PAGE_TOKENS; p < n; p++) {
			int32_t page = q->pages[0][p];

			if (w->marked[page] != i + 1)
				witness_complain(w, "a page is written that two sequences have");
			if (w->kv->page[page].serial)
				witness_complain(w, "a published page is written");
			if (w->kv->page[page].refs > 1)
				witness_complain(w, "a page is written that others hold");
		}
	}
}

static inline void witness_forward(struct backend *b, const struct plan *p,
				   const struct kv_pool *pool, const struct batch *batch,
				   float *logits)
{
	struct witness *w = (struct witness *)b;
	int out = 0, hidden = 0;

	witness_check_batch(w, batch);
	if (w->kv)
		witness_check_pages(w, batch);
	w->steps++;
	for (int i = 0; i < batch->n_seq; i++) {
		const struct batch_seq *q = &batch->seq[i];
		struct witness_record r = {0};

		if (q->pos0)
			r = *witness_slot(w, pool, q, q->pos0 - 1, 0);
		for (int t = 0; t < q->n_tok; t++) {
			int row = q->first + t, pos = q->pos0 + t;

			witness_next_record(&r, batch->ids[row], pos,
					    w->backend.split_classes && batch->generated &&
						    batch->generated[row]);
			*witness_slot(w, pool, q, pos, 0) = r;
			*witness_slot(w, pool, q, pos, 1) = r;
			if (q->state)
				witness_next_state((struct witness_state *)q->state,
						   batch->ids[row]);
			bool logit = out < batch->n_out && batch->out_row[out] == row;
			bool hide = hidden < batch->n_hidden && batch->hidden_row[hidden] == row;

			if (logit || hide) {
				uint64_t hash = witness_walk(w, pool, q, pos + 1);

				if (q->state)
					hash = witness_look_at_state(hash, (struct witness_state *)
										   q->state);
				if (logit)
					witness_speak(&w->taste, hash, pos, p->vocab,
						      logits + (size_t)out++ * p->vocab);
				if (hide)
					witness_hidden(hash, pos, p->hidden,
						       batch->hidden +
							       (size_t)hidden++ * p->hidden);
			}
		}
		w->rows += q->n_tok;
		w->rows_of[witness_slot(w, pool, q, 0, 0)->id % WITNESS_MAX_VOCAB] += q->n_tok;
	}
}

static inline int witness_layout(struct backend *b, enum dtype type, int64_t rows, int64_t cols,
				 struct weight_pack *out, struct err *e)
{
	*out = (struct weight_pack){.group_rows = 1, .group_bytes = dtype_row_bytes(type, cols)};
	return 0;
}

static inline size_t witness_workspace(struct backend *b, const struct plan *p, int max_tok,
				       int max_out)
{
	return 0;
}

static inline int witness_prepare(struct backend *b, const struct plan *p, int max_tok, int max_out,
				  struct err *e)
{
	struct witness *w = (struct witness *)b;

	w->plan = p;
	w->max_tok = max_tok;
	w->max_out = max_out;
	return 0;
}

static inline void witness_destroy(struct backend *b)
{
	struct witness *w = (struct witness *)b;

	free(w->marked);
	free(w);
}

/* For engine_open_on(), which takes it over. */
static inline struct witness *witness_create(bool split_classes)
{
	struct witness *w = (struct witness *)calloc(1, sizeof(*w));

	if (!w)
		abort();
	w->backend = (struct backend){
		.name = "witness",
		.detail = "bears witness",
		.isa = "none",
		.row_invariant = true,
		.split_classes = split_classes,
		.weight_layout = witness_layout,
		.workspace_bytes = witness_workspace,
		.prepare = witness_prepare,
		.forward = witness_forward,
		.destroy = witness_destroy,
	};
	return w;
}

#endif
