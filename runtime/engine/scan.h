/* SPDX-License-Identifier: MIT */
/*
 * Loops over a vocabulary's logits, in portable vectors of four. Results do not depend on the
 * machine: sums go in a fixed order.
 *
 * A mask has bit id % 64 of word id / 64; bits from n on are ignored. Words of one kind, nearly all of
 * a grammar's, cost next to nothing.
 */
#ifndef LLMDEV_ENGINE_SCAN_H
#define LLMDEV_ENGINE_SCAN_H

#include <stdbool.h>
#include <stdint.h>

/* The largest, of those that the mask has; -infinity if there is none, or nothing but NaN. */
float scan_max(const float *x, int n);
float scan_max_masked(const float *x, int n, const uint64_t *mask);
/* What the mask has not becomes -infinity. */
void scan_exclude(float *x, int n, const uint64_t *mask);
/* NaN becomes -infinity. */
void scan_clean(float *x, int n);
/* The first i >= from with x[i] > bound, n if there is none. NaN is not above anything. */
int scan_above(const float *x, int from, int n, float bound);
/* sum of exp(x[i] - max), for max >= all x: to 1e-6 of it. */
double scan_sum_exp(const float *x, int n, float max);

#endif
