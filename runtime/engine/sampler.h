/* SPDX-License-Identifier: MIT */
/*
 * Choosing the next token from logits.
 *
 * Order: bias, repetition penalty, presence and frequency penalties, mask, temperature, top-k, top-p,
 * min-p (transformers' order); log-probabilities are told of the logits before any of it. Penalties
 * and filters see what the mask allows and nothing else. Ties go to the lowest id. The random number
 * is a pure function of (seed, position): the same request gives the same tokens whatever runs beside
 * it, and a replayed request continues with the numbers it would have drawn.
 */
#ifndef LLMDEV_ENGINE_SAMPLER_H
#define LLMDEV_ENGINE_SAMPLER_H

#include "engine/engine.h"

struct candidate {
	float logit;
	int32_t id;
};

/* Scratch of an engine. */
struct sampler {
	int vocab;
	struct candidate *candidate;    /* [vocab] */
	uint16_t *count;                /* [vocab], zero between calls */
	float *raw;                     /* [vocab] what sampler_observe() saw, NaN as -infinity */
	double log_total;               /* log sum exp of it */
};

/* One draw. */
struct draw {
	const struct sampling *sampling;
	const struct logit_bias *bias;  /* [n_bias], ids within the vocabulary */
	int n_bias;
	const uint64_t *mask;           /* bit id % 64 of word id / 64: it may be drawn; NULL: any */
	/* the sequence's ids so far, of which the last n_generated were generated (presence and
	 * frequency count only those) */
	const int32_t *history;
	int n_history, n_generated;
	int position;                   /* that the new token will have */
};

int sampler_init(struct sampler *s, int vocab, struct err *e);
void sampler_free(struct sampler *s);

/*
 * logits[vocab] may be changed: bias and penalties are added, ids that the mask excludes may have
 * become -infinity. -1: the mask allows no id. An id that is allowed is returned even if all of them
 * are NaN or -infinity (the lowest then).
 */
int32_t sampler_pick(struct sampler *s, const struct draw *d, float *logits);

/* Keep what log-probabilities are told of, before sampler_pick() changes it. */
void sampler_observe(struct sampler *s, const float *logits);
/*
 * Of the logits observed last: id's own to out[0], then those of the n likeliest in order, ties to
 * the lowest id. Returns their number. -infinity where a logit is that, or is no number.
 */
int sampler_logprobs(struct sampler *s, int32_t id, int n, struct token_logprob *out);

/* Philox4x32-10 (Salmon et al., SC'11): 128 random bits from a counter and a key. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
