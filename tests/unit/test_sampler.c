// SPDX-License-Identifier: MIT
/* The sampler: generator vectors, filters against a plain full sort, determinism, penalties. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sampler.h"
#include "tests/tap.h"

/* A draw without bias and mask. */
static int32_t pick(struct sampler *s, const struct sampling *p, float *logits,
		    const int32_t *history, int n, int n_generated, int position)
{
	struct draw d = {.sampling = p,
			 .history = history,
			 .n_history = n,
			 .n_generated = n_generated,
			 .position = position};

	return sampler_pick(s, &d, logits);
}

/* Known answers: Random123's kat_vectors, philox4x32 with 10 rounds. */
static void test_philox(void)
{
	static const struct {
		uint32_t counter[4], key[2], want[4];
	} kat[] = {
		{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{{~0u, ~0u, ~0u, ~0u},
		 {~0u, ~0u},
		 {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
		 {0xa4093822, 0x299f31d0},
		 {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	};

	for (int i = 0; i < 3; i++) {
		uint32_t out[4];

		philox4x32(kat[i].counter, kat[i].key, out);
		CHECK(!memcmp(out, kat[i].want, sizeof(out)), "philox4x32-10 known answer %d", i);
	}
}

static int by_logit(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->logit != y->logit)
		return x->logit < y->logit ? 1 : -1;
	return x->id - y->id;
}

/* The set that may be drawn, by sorting everything: allowed[id]. Returns its size. */
static int plain_filter(const struct sampling *p, const float *logits, int n, bool *allowed)
{
	struct candidate *c = calloc(n, sizeof(*c));
	double total = 0, sum = 0;
	int k = p->top_k > 0 && p->top_k < n ? p->top_k : n, kept = 0;

	for (int i = 0; i < n; i++)
		c[i] = (struct candidate){logits[i], i};
	qsort(c, n, sizeof(*c), by_logit);
	memset(allowed, 0, n);
	for (int i = 0; i < k; i++)
		total += exp((c[i].logit - c[0].logit) / p->temperature);
	for (int i = 0; i < k; i++) {
		double w = exp((c[i].logit - c[0].logit) / p->temperature);

		if (i && (sum >= p->top_p * total || w < p->min_p))
			break;
		sum += w;
		allowed[c[i].id] = true;
		kept++;
	}
	free(c);
	return kept;
}

static void test_filters(void)
{
	enum { N = 5000, DRAWS = 400 };
	static const struct sampling cases[] = {
		{.temperature = 1, .top_k = 5, .top_p = 1, .repeat_penalty = 1},
		{.temperature = 0.7f, .top_k = 0, .top_p = 0.9f, .repeat_penalty = 1},
		{.temperature = 3, .top_k = 0, .top_p = 0.99f, .repeat_penalty = 1},
		{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0.05f, .repeat_penalty = 1},
		{.temperature = 1, .top_k = 40, .top_p = 0.8f, .min_p = 0.1f, .repeat_penalty = 1},
		{.temperature = 1, .top_k = 0, .top_p = 0, .repeat_penalty = 1},
	};
	struct sampler s = {0};
	float *logits = calloc(N, sizeof(*logits)), *copy = calloc(N, sizeof(*copy));
	bool *allowed = calloc(N, 1);

	REQUIRE(!sampler_init(&s, N, NULL), "scratch for %d ids", N);
	srand(1);
	for (int i = 0; i < N; i++) /* coarse: many ties */
		logits[i] = (float)(rand() % 61) / 8;
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		int size = plain_filter(&cases[k], logits, N, allowed), outside = 0, different = 0;
		int32_t first = -1;

		for (int d = 0; d < DRAWS; d++) {
			struct sampling p = cases[k];
			int32_t id;

			p.seed = 42;
			memcpy(copy, logits, N * sizeof(*copy));
			id = pick(&s, &p, copy, NULL, 0, 0, d);
			outside += !allowed[id];
			if (first < 0)
				first = id;
			different += id != first;
		}
		CHECK(!outside, "case %zu: %d draws stay in the %d ids that a full sort leaves", k,
		      DRAWS, size);
		CHECK((size == 1) == (different == 0), "case %zu: draws vary iff there is a choice",
		      k);
	}
	sampler_free(&s);
	free(logits);
	free(copy);
	free(allowed);
}

static void test_distribution(void)
{
	enum { DRAWS = 20000 };
	const float base[4] = {0, logf(2), logf(3), logf(4)}; /* 0.1 0.2 0.3 0.4 */
	struct sampling p = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7};
	struct sampler s = {0};
	int count[4] = {0};

	REQUIRE(!sampler_init(&s, 4, NULL), "scratch");
	for (int d = 0; d < DRAWS; d++) {
		float logits[4];

		memcpy(logits, base, sizeof(base));
		count[pick(&s, &p, logits, NULL, 0, 0, d)]++;
	}
	for (int i = 0; i < 4; i++)
		CHECK(fabs(count[i] / (double)DRAWS - 0.1 * (i + 1)) < 0.015,
		      "id %d drawn %d times of %d, expected %d", i, count[i], DRAWS,
		      DRAWS / 10 * (i + 1));
	sampler_free(&s);
}

static void test_greedy_and_penalties(void)
{
	struct sampling p = {.temperature = 0, .top_p = 1, .repeat_penalty = 1};
	struct sampler s = {0};
	const int32_t history[] = {2, 2, 1};
	float tie[4] = {1, 3, 3, 2};
	float with_nan[4] = {NAN, 1, 2, NAN};
	float presence[4] = {0, 1.0f, 1.9f, 0.9f};
	float repeat[4] = {0, 1.0f, 1.9f, 0.99f};

	REQUIRE(!sampler_init(&s, 4, NULL), "scratch");
	CHECK(pick(&s, &p, tie, NULL, 0, 0, 0) == 1, "greedy: a tie goes to the lowest id");
	CHECK(pick(&s, &p, with_nan, NULL, 0, 0, 0) == 2, "greedy: NaN is never chosen");
	p.frequency_penalty = 0.5f;
	pick(&s, &p, presence, history, 3, 3, 3);
	CHECK(fabsf(presence[2] - 0.9f) < 1e-6f,
	      "frequency penalty counts every generated occurrence");
	CHECK(fabsf(presence[1] - 0.5f) < 1e-6f && presence[3] == 0.9f, "and leaves others alone");
	p.frequency_penalty = 0;
	p.repeat_penalty = 2;
	CHECK(pick(&s, &p, repeat, history, 3, 0, 3) == 3,
	      "repetition penalty divides what occurred, once, prompt included");
	for (int i = 0; i < 4; i++)
		CHECK(s.count[i] == 0, "scratch is clean again for id %d", i);
	sampler_free(&s);
}

int main(void)
{
	test_philox();
	test_filters();
	test_distribution();
	test_greedy_and_penalties();
	return tap_done();
}
