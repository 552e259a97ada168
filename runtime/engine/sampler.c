// SPDX-License-Identifier: MIT
/* Choosing the next token; see sampler.h. */
#include "engine/sampler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/scan.h"

int sampler_init(struct sampler *s, int vocab, struct err *e)
{
	s->vocab = vocab;
	s->candidate = calloc(vocab, sizeof(*s->candidate));
	s->count = calloc(vocab, sizeof(*s->count));
	s->raw = calloc(vocab, sizeof(*s->raw));
	if (!s->candidate || !s->count || !s->raw)
		return err_set(e, -ENOMEM, "sampler: out of memory: free some");
	return 0;
}

void sampler_free(struct sampler *s)
{
	free(s->candidate);
	free(s->count);
	free(s->raw);
}

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
	uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
	uint32_t k0 = key[0], k1 = key[1];

	for (int round = 0; round < 10; round++) {
		uint64_t a = (uint64_t)0xd2511f53 * c0, b = (uint64_t)0xcd9e8d57 * c2;

		c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
		c1 = (uint32_t)b;
		c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
		c3 = (uint32_t)a;
		k0 += 0x9e3779b9;
		k1 += 0xbb67ae85;
	}
	out[0] = c0;
	out[1] = c1;
	out[2] = c2;
	out[3] = c3;
}

/* In [0, 1), 53 bits. */
static double uniform(uint64_t seed, int position)
{
	const uint32_t counter[4] = {(uint32_t)position, 0, 0, 0};
	const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
	uint32_t r[4];

	philox4x32(counter, key, r);
	return (double)(((uint64_t)r[0] << 32 | r[1]) >> 11) * 0x1p-53;
}

static bool worse(struct candidate a, struct candidate b)
{
	return a.logit < b.logit || (a.logit == b.logit && a.id > b.id);
}

static int by_rank(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	return worse(*a, *b) ? 1 : worse(*b, *a) ? -1 : 0;
}

static void sift_down(struct candidate *heap, int n, int i)
{
	for (;;) {
		int child = 2 * i + 1;
		struct candidate t;

		if (child >= n)
			return;
		if (child + 1 < n && worse(heap[child + 1], heap[child]))
			child++;
		if (!worse(heap[child], heap[i]))
			return;
		t = heap[i];
		heap[i] = heap[child];
		heap[child] = t;
		i = child;
	}
}

/* The k best of all ids in rank order to c[0..k): a heap whose root is the worst one kept. */
static void best_k(struct candidate *c, const float *logits, int vocab, int k)
{
	for (int i = 0; i < k; i++)
		c[i] = (struct candidate){logits[i], i};
	for (int i = k / 2 - 1; i >= 0; i--)
		sift_down(c, k, i);
	/* equal to the worst: the lower id is in already */
	for (int i = k; (i = scan_above(logits, i, vocab, c[0].logit)) < vocab; i++) {
		c[0] = (struct candidate){logits[i], i};
		sift_down(c, k, 0);
	}
	qsort(c, k, sizeof(*c), by_rank);
}

static bool allowed(const uint64_t *mask, int32_t id)
{
	return !mask || (mask[id / 64] >> id % 64 & 1);
}

/*
 * The lowest allowed id of the largest logit; NaN never wins. -1: none is allowed. Only the stretch
 * that has the largest is looked at twice.
 */
static int32_t argmax(const float *logits, int n, const uint64_t *mask)
{
	enum { STRETCH = 4096 };
	float max = -INFINITY;
	int32_t id = 0;

	for (int i = 0; i < n; i += STRETCH) {
		int len = n - i < STRETCH ? n - i : STRETCH;
		float m = mask ? scan_max_masked(logits + i, len, mask + i / 64)
			       : scan_max(logits + i, len);

		if (m > max) {
			max = m;
			id = i;
		}
	}
	while (id < n && !(allowed(mask, id) && (logits[id] == max || max == -INFINITY)))
		id++;
	return id < n ? id : -1;
}

static void penalise(struct sampler *s, const struct sampling *p, float *logits,
		     const int32_t *history, int n, int n_generated)
{
	if (p->repeat_penalty != 1 && p->repeat_penalty > 0) {
		for (int i = 0; i < n; i++) {
			int32_t id = history[i];

			if (s->count[id])
				continue;
			s->count[id] = 1;
			logits[id] = logits[id] > 0 ? logits[id] / p->repeat_penalty
						    : logits[id] * p->repeat_penalty;
		}
		for (int i = 0; i < n; i++)
			s->count[history[i]] = 0;
	}
	if (p->presence_penalty == 0 && p->frequency_penalty == 0)
		return;
	for (int i = n - n_generated; i < n; i++)
		if (s->count[history[i]] < UINT16_MAX)
			s->count[history[i]]++;
	for (int i = n - n_generated; i < n; i++) {
		int32_t id = history[i];

		if (s->count[id])
			logits[id] -= p->presence_penalty + p->frequency_penalty * s->count[id];
		s->count[id] = 0;
	}
}

/* exp((logit - best) / temperature) of candidate i. */
static double weight(const struct candidate *c, int i, float temperature)
{
	return exp((double)(c[i].logit - c[0].logit) / temperature);
}

/*
 * How many of the ranked candidates stay. `total` is the weight of everything that top-k left;
 * returns -1 if the k candidates at hand do not reach top_p.
 */
static int keep(const struct sampling *p, const struct candidate *c, int k, int all, double total)
{
	int n = k;

	if (p->top_p < 1) {
		double sum = 0;

		for (n = 0; n < k && sum < p->top_p * total;)
			sum += weight(c, n++, p->temperature);
		if (n == k && k < all && sum < p->top_p * total)
			return -1;
		if (!n)
			n = 1;
	}
	if (p->min_p > 0) /* relative to the best, whose weight is 1 */
		while (n > 1 && weight(c, n - 1, p->temperature) < p->min_p)
			n--;
	return n;
}

/* Rank just as many candidates as the filters need, growing eightfold. */
static int rank(struct sampler *s, const struct sampling *p, const float *logits, double total)
{
	int all = p->top_k > 0 && p->top_k < s->vocab ? p->top_k : s->vocab;

	for (int k = p->top_k > 0 || all < 256 ? all : 256;; k = k * 8 < all ? k * 8 : all) {
		int n;

		best_k(s->candidate, logits, s->vocab, k);
		if (all < s->vocab) { /* top-k redefines the total */
			total = 0;
			for (int i = 0; i < k; i++)
				total += weight(s->candidate, i, p->temperature);
		}
		n = keep(p, s->candidate, k, all, total);
		/* min-p alone: done once something fell below it */
		if (n >= 0 && (k == all || n < k || p->top_p < 1))
			return n;
	}
}

static int32_t draw(const struct candidate *c, int n, float temperature, double u)
{
	double total = 0, sum = 0;

	for (int i = 0; i < n; i++)
		total += weight(c, i, temperature);
	for (int i = 0; i < n; i++) {
		sum += weight(c, i, temperature);
		if (sum > u * total)
			return c[i].id;
	}
	return c[n - 1].id;
}

int32_t sampler_pick(struct sampler *s, const struct draw *d, float *logits)
{
	const struct sampling *p = d->sampling;
	double u, total = 0, sum = 0;
	int32_t best;

	for (int i = 0; i < d->n_bias; i++)
		logits[d->bias[i].id] += d->bias[i].bias;
	penalise(s, p, logits, d->history, d->n_history, d->n_generated);
	best = argmax(logits, s->vocab, d->mask);
	if (best < 0 || p->temperature <= 0 || p->top_k == 1 || !isfinite(logits[best]))
		return best;
	if (d->mask)
		scan_exclude(logits, s->vocab, d->mask);
	scan_clean(logits, s->vocab); /* a NaN must not hide the others */
	u = uniform(p->seed, d->position);
	/* Top-k makes a total of its own: 150,000 exponentials less. */
	for (int i = 0; i < s->vocab && !(p->top_k > 0 && p->top_k < s->vocab); i++)
		if (logits[i] > -INFINITY)
			total += exp((double)(logits[i] - logits[best]) / p->temperature);
	/* What has weight 0, as all that a mask excludes, is never drawn: u < 1. */
	if (p->top_k > 0 || p->top_p < 1 || p->min_p > 0) {
		int n = rank(s, p, logits, total);

		return draw(s->candidate, n, p->temperature, u);
	}
	for (int i = 0; i < s->vocab; i++) {
		if (logits[i] == -INFINITY)
			continue;
		sum += exp((double)(logits[i] - logits[best]) / p->temperature);
		if (sum > u * total)
			return i;
	}
	return best;
}

/* ---- log-probabilities ----------------------------------------------------------------------- */

void sampler_observe(struct sampler *s, const float *logits)
{
	float max;

	memcpy(s->raw, logits, s->vocab * sizeof(*logits));
	scan_clean(s->raw, s->vocab);
	max = scan_max(s->raw, s->vocab);
	s->log_total = max + log(scan_sum_exp(s->raw, s->vocab, max));
}

static struct token_logprob logprob_of(const struct sampler *s, int32_t id)
{
	float x = (float)(s->raw[id] - s->log_total);

	return (struct token_logprob){id, isnan(x) ? -INFINITY : x};
}

int sampler_logprobs(struct sampler *s, int32_t id, int n, struct token_logprob *out)
{
	if (n > s->vocab)
		n = s->vocab;
	out[0] = logprob_of(s, id);
	if (n > 0)
		best_k(s->candidate, s->raw, s->vocab, n);
	for (int i = 0; i < n; i++)
		out[i + 1] = logprob_of(s, s->candidate[i].id);
	return n + 1;
}
