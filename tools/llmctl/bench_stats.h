/* SPDX-License-Identifier: MIT */
/*
 * Numbers for `llmctl bench serve`: random draws, percentiles, and whether two samples differ.
 * Pure functions over the caller's memory; the same seed gives the same result everywhere.
 */
#ifndef LLMCTL_BENCH_STATS_H
#define LLMCTL_BENCH_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- random draws ------------------------------------------------------------------------------- */

/* xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64. Not for secrets. */
struct bench_rng {
	uint64_t s[4];
};

/* Streams of one seed are independent of each other. */
void bench_rng_seed(struct bench_rng *r, uint64_t seed, uint64_t stream);
uint64_t bench_rng_next(struct bench_rng *r);
/* In the open interval (0, 1). */
double bench_rng_uniform(struct bench_rng *r);
/* Uniform in [lo, hi]; lo <= hi. */
int bench_rng_range(struct bench_rng *r, int lo, int hi);
/* Standard normal: the polar method (Marsaglia and Bray, 1964). */
double bench_rng_normal(struct bench_rng *r);
/* Gamma of this shape > 0 and scale 1: Marsaglia and Tsang, 2000. Mean and variance are `shape`. */
double bench_rng_gamma(struct bench_rng *r, double shape);
/*
 * Seconds to the next arrival at `rate` per second: gamma of shape `burstiness` and mean 1/rate.
 * 1: a Poisson process; below 1 burstier, above 1 more even. The variance is mean^2 / burstiness.
 */
double bench_rng_interarrival(struct bench_rng *r, double rate, double burstiness);

/* ---- samples ------------------------------------------------------------------------------------ */

/*
 * The quantile `q` (0 to 1) of sorted[n], n >= 1, with linear interpolation between the two
 * neighbours of rank q * (n - 1): definition 7 of Hyndman and Fan (1996), numpy's default.
 */
double bench_quantile(const double *sorted, size_t n, double q);

struct bench_summary {
	size_t n; /* 0: the rest is 0 */
	double mean, min, p50, p90, p95, p99, max;
};
/* Sorts v. */
void bench_summarise(struct bench_summary *s, double *v, size_t n);
void bench_sort(double *v, size_t n);

/* ---- comparing two samples ---------------------------------------------------------------------- */

#define BENCH_MEAN	  (-1.0) /* as `q` below: the mean instead of a quantile */
#define BENCH_MIN_SAMPLES 8 /* fewer say nothing about noise */
#define BENCH_BOOTSTRAPS  2000
#define BENCH_CONFIDENCE  0.99
#define BENCH_MIN_CHANGE  0.02 /* smaller changes are not called moves */

struct bench_change {
	double before, after; /* the statistic of both samples */
	double lo, hi; /* confidence interval of after - before */
	bool judged; /* both samples have BENCH_MIN_SAMPLES */
	bool moved; /* judged, 0 lies outside the interval, and the change is not tiny */
};

/*
 * Compares the quantile q, or the mean, of two sorted samples by the percentile bootstrap (Efron,
 * 1979): both are drawn anew, with replacement, BENCH_BOOTSTRAPS times. A drawn sample's quantile
 * is found without drawing it: the k-th smallest of n uniform ranks has a beta distribution.
 * Samples are taken as independent. Either may be empty (judged is false then).
 */
void bench_compare(struct bench_change *c, const double *before, size_t n_before,
		   const double *after, size_t n_after, double q, uint64_t seed);

#endif
