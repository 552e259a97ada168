/* SPDX-License-Identifier: MIT */
/*
 * Choosing the next token from logits.
 *
 * Order of the filters: repetition penalty, presence and frequency penalties, temperature, top-k,
 * top-p, min-p (transformers' order). Ties go to the lowest id. The random number is a pure function
 * of (seed, position): the same request gives the same tokens whatever runs beside it, and a
 * replayed request continues with the numbers it would have drawn.
 */
#ifndef LLMDEV_ENGINE_SAMPLER_H
#define LLMDEV_ENGINE_SAMPLER_H

#include "engine/engine.h"

struct candidate {
	float logit;
	int32_t id;
};

/* Scratch of an engine: `vocab` candidates and counts (zero between calls). */
struct sampler {
	int vocab;
	struct candidate *candidate;
	uint16_t *count;
};

int sampler_init(struct sampler *s, int vocab, struct err *e);
void sampler_free(struct sampler *s);

/*
 * logits[vocab] may be changed. history[0..n_history) are the sequence's ids so far, of which the
 * last n_generated were generated (presence and frequency count only those). `position` is the
 * position the new token will have.
 */
int32_t sampler_pick(struct sampler *s, const struct sampling *p, float *logits,
		     const int32_t *history, int n_history, int n_generated, int position);

/* Philox4x32-10 (Salmon et al., SC'11): 128 random bits from a counter and a key. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
