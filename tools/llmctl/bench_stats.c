// SPDX-License-Identifier: MIT
/* Random draws, percentiles, bootstrap (bench_stats.h). Owns nothing. */
#include <math.h>
#include <stdlib.h>

#include "bench_stats.h"

/* ---- random draws ------------------------------------------------------------------------------- */

static uint64_t splitmix64(uint64_t *x)
{
	uint64_t z = *x += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void bench_rng_seed(struct bench_rng *r, uint64_t seed, uint64_t stream)
{
	uint64_t x = seed;

	x = splitmix64(&x) ^ stream;
	for (int i = 0; i < 4; i++)
		r->s[i] = splitmix64(&x);
}

static uint64_t rotl(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

uint64_t bench_rng_next(struct bench_rng *r)
{
	uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

double bench_rng_uniform(struct bench_rng *r)
{
	return ((double)(bench_rng_next(r) >> 11) + 0.5) * 0x1p-53;
}

int bench_rng_range(struct bench_rng *r, int lo, int hi)
{
	uint64_t span = (uint64_t)((int64_t)hi - lo) + 1;

	/* A bias of span / 2^32 is far below what a benchmark sees. */
	return (int)(lo + (int64_t)((bench_rng_next(r) >> 32) * span >> 32));
}

double bench_rng_normal(struct bench_rng *r)
{
	double u, v, s;

	do {
		u = 2 * bench_rng_uniform(r) - 1;
		v = 2 * bench_rng_uniform(r) - 1;
		s = u * u + v * v;
	} while (s >= 1 || s == 0);
	return u * sqrt(-2 * log(s) / s);
}

double bench_rng_gamma(struct bench_rng *r, double shape)
{
	double boost = 1, d, c, x, v, u;

	/* Below 1: a draw of shape + 1, times U^(1/shape). */
	if (shape < 1) {
		boost = pow(bench_rng_uniform(r), 1 / shape);
		shape += 1;
	}
	d = shape - 1.0 / 3;
	c = 1 / sqrt(9 * d);
	for (;;) {
		do {
			x = bench_rng_normal(r);
			v = 1 + c * x;
		} while (v <= 0);
		v = v * v * v;
		u = bench_rng_uniform(r);
		if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
			return d * v * boost;
	}
}

double bench_rng_interarrival(struct bench_rng *r, double rate, double burstiness)
{
	if (burstiness == 1)
		return -log(bench_rng_uniform(r)) / rate;
	return bench_rng_gamma(r, burstiness) / (rate * burstiness);
}

/* ---- samples ------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void bench_sort(double *v, size_t n)
{
	if (n)
		qsort(v, n, sizeof(*v), by_value);
}

double bench_quantile(const double *sorted, size_t n, double q)
{
	double rank = q * (double)(n - 1);
	size_t i = (size_t)rank;

	if (i + 1 >= n)
		return sorted[n - 1];
	return sorted[i] + (rank - (double)i) * (sorted[i + 1] - sorted[i]);
}

static double mean(const double *v, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += v[i];
	return n ? sum / (double)n : 0;
}

void bench_summarise(struct bench_summary *s, double *v, size_t n)
{
	*s = (struct bench_summary){.n = n};
	if (!n)
		return;
	bench_sort(v, n);
	s->mean = mean(v, n);
	s->min = v[0];
	s->p50 = bench_quantile(v, n, 0.50);
	s->p90 = bench_quantile(v, n, 0.90);
	s->p95 = bench_quantile(v, n, 0.95);
	s->p99 = bench_quantile(v, n, 0.99);
	s->max = v[n - 1];
}

/* ---- comparing two samples ---------------------------------------------------------------------- */

/* From here on a sum of draws is as good as normal. */
#define MANY 1000

static double drawn_mean(const double *v, size_t n, double m, double deviation, struct bench_rng *r)
{
	double sum = 0;

	if (n >= MANY)
		return m + bench_rng_normal(r) * deviation / sqrt((double)n);
	for (size_t i = 0; i < n; i++)
		sum += v[bench_rng_range(r, 0, (int)n - 1)];
	return sum / (double)n;
}

static double drawn_quantile(const double *sorted, size_t n, double q, struct bench_rng *r)
{
	double rank = q * (double)(n - 1), k = floor(rank) + 1, x, y, u;
	size_t i;

	/* Beta(k, n + 1 - k): the k-th smallest of n draws, as a share of the ranks. */
	x = bench_rng_gamma(r, k);
	y = bench_rng_gamma(r, (double)n + 1 - k);
	u = x / (x + y) * (double)n;
	i = u < (double)n ? (size_t)u : n - 1;
	return sorted[i];
}

static double deviation_of(const double *v, size_t n, double m)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (v[i] - m) * (v[i] - m);
	return n > 1 ? sqrt(sum / (double)(n - 1)) : 0;
}

void bench_compare(struct bench_change *c, const double *before, size_t n_before,
		   const double *after, size_t n_after, double q, uint64_t seed)
{
	double differences[BENCH_BOOTSTRAPS], m[2], dev[2];
	const double *v[2] = {before, after};
	size_t n[2] = {n_before, n_after};
	struct bench_rng r;

	*c = (struct bench_change){0};
	if (!n_before || !n_after)
		return;
	for (int i = 0; i < 2; i++) {
		m[i] = mean(v[i], n[i]);
		dev[i] = deviation_of(v[i], n[i], m[i]);
	}
	c->before = q < 0 ? m[0] : bench_quantile(before, n_before, q);
	c->after = q < 0 ? m[1] : bench_quantile(after, n_after, q);
	if (n_before < BENCH_MIN_SAMPLES || n_after < BENCH_MIN_SAMPLES)
		return;
	bench_rng_seed(&r, seed, 0);
	for (int b = 0; b < BENCH_BOOTSTRAPS; b++) {
		double drawn[2];

		for (int i = 0; i < 2; i++)
			drawn[i] = q < 0 ? drawn_mean(v[i], n[i], m[i], dev[i], &r)
					 : drawn_quantile(v[i], n[i], q, &r);
		differences[b] = drawn[1] - drawn[0];
	}
	bench_sort(differences, BENCH_BOOTSTRAPS);
	c->lo = bench_quantile(differences, BENCH_BOOTSTRAPS, (1 - BENCH_CONFIDENCE) / 2);
	c->hi = bench_quantile(differences, BENCH_BOOTSTRAPS, (1 + BENCH_CONFIDENCE) / 2);
	c->judged = true;
	c->moved = (c->lo > 0 || c->hi < 0) &&
		   fabs(c->after - c->before) > BENCH_MIN_CHANGE * fabs(c->before);
}
