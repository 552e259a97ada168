// SPDX-License-Identifier: MIT
/*
 * What choosing a token costs over a vocabulary: plain, under masks, with log-probabilities. The
 * fastest of several rounds counts.
 *
 *   sampler [VOCAB [ROUNDS]]      151936 ids, 300 rounds
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_internal.h"

enum { GREEDY, WARM, KINDS };

static const struct sampling samplings[KINDS] = {
	[GREEDY] = {.top_p = 1, .repeat_penalty = 1},
	[WARM] = {.temperature = 0.7f, .top_k = 20, .top_p = 0.8f, .repeat_penalty = 1},
};

/* Percent of the words that are all ones, and of those that are mixed; the rest are zero. */
static void make_mask(uint64_t *mask, int n, int full, int mixed)
{
	for (int i = 0; i < (n + 63) / 64; i++) {
		int x = rand() % 100;

		mask[i] = x < full	     ? ~(uint64_t)0
			  : x < full + mixed ? (uint64_t)rand() << 33 ^ (uint64_t)rand() << 8
					     : 0;
	}
}

static double fastest(struct sampler *s, const float *from, float *logits, int kind,
		      const uint64_t *mask, int logprobs, int rounds)
{
	struct token_logprob out[1 + ENGINE_MAX_LOGPROBS];
	double best = 1e9;
	int32_t id;

	for (int i = 0; i < rounds; i++) {
		struct draw d = {.sampling = &samplings[kind], .mask = mask, .position = i};
		uint64_t start;
		double us;

		memcpy(logits, from, s->vocab * sizeof(*logits));
		start = engine_now_ns();
		if (logprobs >= 0)
			sampler_observe(s, logits);
		id = sampler_pick(s, &d, logits);
		if (logprobs >= 0)
			sampler_logprobs(s, id, logprobs, out);
		us = (double)(engine_now_ns() - start) / 1e3;
		best = us < best ? us : best;
	}
	return best;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int full, mixed;
	} masks[] = {{"every id", 100, 0},
		     {"99 % of the words, the rest mixed", 99, 1},
		     {"all words mixed", 0, 100},
		     {"1 % of the words mixed, the rest empty", 0, 1}};
	int vocab = argc > 1 ? atoi(argv[1]) : 151936, rounds = argc > 2 ? atoi(argv[2]) : 300;
	float *from = calloc(vocab, sizeof(*from)), *logits = calloc(vocab, sizeof(*logits));
	uint64_t *mask = calloc((vocab + 63) / 64, sizeof(*mask));
	struct sampler s = {0};

	if (!from || !logits || !mask || sampler_init(&s, vocab, NULL))
		return 1;
	for (int i = 0; i < vocab; i++) /* about normal, as a model's */
		for (int k = 0; k < 8; k++)
			from[i] += (float)(rand() % 1000) / 500 - 1;
	printf("%d ids, us a token            greedy   top-k 20, top-p 0.8\n", vocab);
	printf("%-40s %8.1f %8.1f\n", "no mask",
	       fastest(&s, from, logits, GREEDY, NULL, -1, rounds),
	       fastest(&s, from, logits, WARM, NULL, -1, rounds));
	for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
		make_mask(mask, vocab, masks[i].full, masks[i].mixed);
		printf("mask: %-34s %8.1f %8.1f\n", masks[i].name,
		       fastest(&s, from, logits, GREEDY, mask, -1, rounds),
		       fastest(&s, from, logits, WARM, mask, -1, rounds));
	}
	for (int n = 0; n <= 20; n += 20)
		printf("log-probabilities, %2d likeliest           %8.1f %8.1f\n", n,
		       fastest(&s, from, logits, GREEDY, NULL, n, rounds),
		       fastest(&s, from, logits, WARM, NULL, n, rounds));
	return 0;
}
