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

/* ---- masks ----------------------------------------------------------------------------------- */

/* Words of every kind: none, all, few, most, and bits beyond the vocabulary. */
static void random_mask(uint64_t *mask, int n, int kind)
{
	for (int i = 0; i < (n + 63) / 64; i++) {
		uint64_t a = (uint64_t)rand() << 33 ^ (uint64_t)rand() << 11 ^ (uint64_t)rand();
		uint64_t b = (uint64_t)rand() << 33 ^ (uint64_t)rand() << 11 ^ (uint64_t)rand();

		switch (kind ? kind : rand() % 6) {
		case 1:
			mask[i] = 0;
			break;
		case 2:
			mask[i] = ~(uint64_t)0;
			break;
		case 3:
			mask[i] = (uint64_t)1 << rand() % 64;
			break;
		case 4:
			mask[i] = ~((uint64_t)1 << rand() % 64);
			break;
		default:
			mask[i] = rand() % 2 ? a & b : a | b;
		}
	}
}

static bool allows(const uint64_t *mask, int id)
{
	return mask[id / 64] >> id % 64 & 1;
}

/*
 * A draw under a mask is the draw from a vocabulary of the allowed ids alone. Penalties are applied
 * to both.
 */
static void test_mask(void)
{
	enum { N = 4999, CASES = 600 };
	static float logits[N], few[N], copy[N];
	static int32_t id_of[N], history[40], few_history[40];
	static uint64_t mask[(N + 63) / 64];
	struct sampler s = {0};
	int outside = 0, different = 0;

	REQUIRE(!sampler_init(&s, N, NULL), "scratch for %d ids", N);
	srand(7);
	for (int k = 0; k < CASES; k++) {
		struct sampling p = {.temperature = k % 5 ? 0.2f * (k % 7) : 0,
				     .top_k = k % 3 ? 0 : 1 + rand() % 60,
				     .top_p = k % 4 ? 1 : 0.85f,
				     .min_p = k % 11 ? 0 : 0.03f,
				     .repeat_penalty = k % 6 ? 1 : 1.4f,
				     .presence_penalty = k % 8 ? 0 : 0.7f,
				     .seed = k};
		struct draw d = {.sampling = &p,
				 .mask = mask,
				 .history = history,
				 .n_history = 40,
				 .n_generated = 30,
				 .position = k};
		struct sampler little = s;
		int n = 0, got, want;

		random_mask(mask, N, k % 7 == 6 ? 0 : k % 7);
		for (int i = 0; i < N; i++) {
			logits[i] = copy[i] = (float)(rand() % 6100) / 400 - 3;
			if (rand() % 50 == 0)
				logits[i] = copy[i] = rand() % 2 ? -INFINITY : NAN;
			if (allows(mask, i)) {
				id_of[n] = i;
				few[n++] = logits[i];
			}
		}
		for (int i = 0; i < 40; i++) {
			few_history[i] = n ? rand() % n : 0;
			history[i] = id_of[few_history[i]];
		}
		got = sampler_pick(&s, &d, copy);
		little.vocab = n;
		d.mask = NULL;
		d.history = few_history;
		want = n ? sampler_pick(&little, &d, few) : -1;
		outside += got >= 0 && !allows(mask, got);
		different += got != (want < 0 ? -1 : id_of[want]);
	}
	CHECK(!outside, "%d draws under masks: none outside", CASES);
	CHECK(!different, "and each is that of a vocabulary without the others (%d are not)",
	      different);
	sampler_free(&s);
}

static void test_mask_edges(void)
{
	const struct sampling greedy = {.top_p = 1, .repeat_penalty = 1};
	const struct sampling hot = {.temperature = 1,
				     .top_p = 0.9f,
				     .top_k = 5,
				     .repeat_penalty = 1};
	struct sampler s = {0};
	uint64_t mask[2] = {0, 0};
	struct draw d = {.mask = mask};
	float logits[70];

	REQUIRE(!sampler_init(&s, 70, NULL), "scratch");
	for (int h = 0; h < 2; h++) {
		const char *how = h ? "sampling" : "greedy";

		d.sampling = h ? &hot : &greedy;
		for (int i = 0; i < 70; i++)
			logits[i] = i == 50 ? INFINITY : 1;
		mask[0] = 1 << 9 | 1 << 20;
		mask[1] = 0;
		logits[9] = logits[20] = -INFINITY;
		CHECK(sampler_pick(&s, &d, logits) == 9,
		      "%s: all that is allowed has -infinity: the lowest of it", how);
		logits[9] = NAN;
		logits[20] = NAN;
		CHECK(sampler_pick(&s, &d, logits) == 9, "%s: or is no number", how);
		mask[0] = 0;
		mask[1] = 1 << 5;
		logits[69] = NAN;
		CHECK(sampler_pick(&s, &d, logits) == 69, "%s: the last id alone", how);
		mask[1] = ~(uint64_t)0 << 6;
		CHECK(sampler_pick(&s, &d, logits) == -1,
		      "%s: bits beyond the vocabulary allow nothing", how);
	}
	sampler_free(&s);
}

static void test_bias(void)
{
	const struct sampling greedy = {.top_p = 1, .repeat_penalty = 2};
	const struct logit_bias bias[] = {{2, 5}, {1, -100}, {2, 1}};
	const int32_t history[] = {2};
	struct sampler s = {0};
	struct draw d = {.sampling = &greedy,
			 .bias = bias,
			 .n_bias = 3,
			 .history = history,
			 .n_history = 1,
			 .position = 1};
	float logits[4] = {3, 9, 2, 3.5f};

	REQUIRE(!sampler_init(&s, 4, NULL), "scratch");
	CHECK(sampler_pick(&s, &d, logits) == 2 && logits[2] == 4 && logits[1] == -91,
	      "bias is added up, before penalties");
	sampler_free(&s);
}

/* ---- log-probabilities ----------------------------------------------------------------------- */

static void test_logprobs(void)
{
	enum { N = 5003 };
	const struct sampling greedy = {.top_p = 1, .repeat_penalty = 1};
	static float logits[N];
	struct sampler s = {0};
	struct token_logprob got[1 + ENGINE_MAX_LOGPROBS];
	double worst = 0;

	REQUIRE(!sampler_init(&s, N, NULL), "scratch");
	srand(3);
	for (int k = 0; k < 20; k++) {
		double total = 0, max = -INFINITY;
		bool order = true;
		int n;

		for (int i = 0; i < N; i++) {
			logits[i] = (float)(rand() % 4000) / 100 * (k < 10 ? 1 : 0.02f) + 100 * k;
			max = logits[i] > max ? logits[i] : max;
		}
		for (int i = 0; i < N; i++)
			total += exp(logits[i] - max);
		sampler_observe(&s, logits);
		n = sampler_logprobs(&s, k * 100, ENGINE_MAX_LOGPROBS, got);
		order = n == 1 + ENGINE_MAX_LOGPROBS && got[0].id == k * 100;
		for (int i = 0; i < n; i++) {
			double want = logits[got[i].id] - max - log(total);
			double off = fabs(got[i].logprob - want);

			worst = off > worst ? off : worst;
			order &=
				i < 2 || got[i - 1].logprob > got[i].logprob ||
				(got[i - 1].logprob == got[i].logprob && got[i - 1].id < got[i].id);
		}
		CHECK(order && got[1].id == sampler_pick(&s, &(struct draw){.sampling = &greedy},
							 logits),
		      "its own, then the likeliest in order, ties to the lowest id (%d)", k);
	}
	CHECK(worst < 1e-5, "log-softmax in double precision differs by %.2g at most", worst);
	for (int i = 0; i < N; i++)
		logits[i] = i == 17 ? 2 : i % 2 ? NAN : -INFINITY;
	sampler_observe(&s, logits);
	sampler_logprobs(&s, 3, 2, got);
	CHECK(got[0].logprob == -INFINITY && got[1].id == 17 && fabsf(got[1].logprob) < 1e-6f &&
		      got[2].id == 0 && got[2].logprob == -INFINITY,
	      "what is no number has -infinity");
	for (int i = 0; i < N; i++)
		logits[i] = i % 2 ? NAN : -INFINITY;
	sampler_observe(&s, logits);
	CHECK(sampler_logprobs(&s, 3, 2, got) == 3 && got[1].logprob == -INFINITY,
	      "all of them, too");
	sampler_free(&s);
	REQUIRE(!sampler_init(&s, 3, NULL), "scratch");
	sampler_observe(&s, (float[]){0, 0, 0});
	CHECK(sampler_logprobs(&s, 1, 20, got) == 4 && fabsf(got[3].logprob + logf(3)) < 1e-6f,
	      "no more than the vocabulary has");
	sampler_free(&s);
}

int main(void)
{
	test_mask();
	test_mask_edges();
	test_bias();
	test_logprobs();
	test_philox();
	test_filters();
	test_distribution();
	test_greedy_and_penalties();
	return tap_done();
}
