/* SPDX-License-Identifier: MIT */
/*
 * What a request told, for tests of the engine: ids, hashes of the logits they were drawn from, text,
 * and whether its events came in an order that a client can live with.
 */
#ifndef LLMDEV_TEST_REQUESTS_H
#define LLMDEV_TEST_REQUESTS_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/fnv.h"
#include "engine/engine_internal.h"

/* Under a sanitizer everything takes ten times as long: tests that repeat themselves do it less. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define TOLD_TOKENS 320
#define TOLD_BYTES  8192

/* A stream of random numbers of its own: rand() is shared and differs between C libraries. */
struct rng {
	uint64_t x;
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t x = r->x += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* 0 .. n-1 */
static inline int rng_below(struct rng *r, int n)
{
	return (int)(rng_next(r) % (uint64_t)n);
}

/* from .. to */
static inline int rng_range(struct rng *r, int from, int to)
{
	return from + rng_below(r, to - from + 1);
}

static inline bool rng_chance(struct rng *r, int percent)
{
	return rng_below(r, 100) < percent;
}

struct told {
	int32_t id[TOLD_TOKENS];
	uint64_t hash[TOLD_TOKENS]; /* of the logits that id was drawn from, and of logprobs */
	int bytes[TOLD_TOKENS]; /* text given out up to and including that id */
	int n, len;
	char text[TOLD_BYTES];
	int n_vectors;
	uint64_t vector; /* hash of the last */
	int n_replayed, replayed_len;
	int32_t replayed_id[TOLD_TOKENS];
	char replayed_text[TOLD_BYTES];
	int started, ended;
	enum engine_event_kind end; /* DONE or ERROR */
	enum engine_finish finish;
	int error;
	int prompt_tokens, cached_tokens, completion_tokens;
	const char *disorder; /* what came out of order, NULL */
};

static inline void told_event(struct told *t, int vocab, const struct engine_event *ev)
{
	if (t->ended)
		t->disorder = "an event after the last";
	if (ev->kind == ENGINE_TOKEN && !t->started)
		t->disorder = "a token before the start";
	if ((ev->kind == ENGINE_TOKEN || ev->kind == ENGINE_DONE) && ev->text_len) {
		if (t->len + ev->text_len > sizeof(t->text)) {
			t->disorder = "more text than the test can hold";
			return;
		}
		memcpy(t->text + t->len, ev->text, ev->text_len);
		t->len += (int)ev->text_len;
	}
	switch (ev->kind) {
	case ENGINE_STARTED:
		if (t->started++)
			t->disorder = "it started twice";
		break;
	case ENGINE_PROGRESS:
		if (ev->done < 0 || ev->done > ev->total)
			t->disorder = "progress beyond the prompt";
		break;
	case ENGINE_REPLAYED:
		if (t->started || t->n)
			t->disorder = "an id replayed behind the start";
		if (t->n_replayed == TOLD_TOKENS ||
		    t->replayed_len + ev->text_len > sizeof(t->replayed_text)) {
			t->disorder = "more replayed than the test can hold";
			return;
		}
		t->replayed_id[t->n_replayed++] = ev->id;
		if (ev->text_len)
			memcpy(t->replayed_text + t->replayed_len, ev->text, ev->text_len);
		t->replayed_len += (int)ev->text_len;
		break;
	case ENGINE_EMBEDDING:
		if (!t->started)
			t->disorder = "a vector before the start";
		t->vector = fnv1a(FNV_START, ev->vector, ev->n_vector * sizeof(*ev->vector));
		t->n_vectors++;
		break;
	case ENGINE_TOKEN:
		if (t->n == TOLD_TOKENS) {
			t->disorder = "more tokens than the test can hold";
			return;
		}
		t->hash[t->n] = fnv1a(FNV_START, ev->logits, vocab * sizeof(*ev->logits));
		if (ev->n_logprobs)
			t->hash[t->n] = fnv1a(t->hash[t->n], ev->logprobs,
					      ev->n_logprobs * sizeof(*ev->logprobs));
		t->bytes[t->n] = t->len;
		t->id[t->n++] = ev->id;
		break;
	case ENGINE_DONE:
	case ENGINE_ERROR:
		t->ended++;
		t->end = ev->kind;
		t->finish = ev->finish;
		t->error = ev->error;
		t->prompt_tokens = ev->prompt_tokens;
		t->cached_tokens = ev->cached_tokens;
		t->completion_tokens = ev->completion_tokens;
		break;
	}
}

#endif
