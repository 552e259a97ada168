// SPDX-License-Identifier: MIT
/* Loops over a vocabulary's logits; see scan.h. */
#include "engine/scan.h"

#include <math.h>
#include <string.h>

/* Four lanes are every machine's: SSE2, NEON. Longer ones have no ABI everywhere. */
typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

#define LANES  4
#define STRIDE (4 * LANES) /* floats a turn, in four independent chains */

static inline f4 load(const float *p)
{
	f4 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline f4 all(float x)
{
	return (f4){x, x, x, x};
}

/* a where m is set, else b. */
static inline f4 select4(i4 m, f4 a, f4 b)
{
	return (f4)((m & (i4)a) | (~m & (i4)b));
}

/* NaN in a never wins. */
static inline f4 larger(f4 a, f4 b)
{
	return select4(a > b, a, b);
}

static float largest_of(const float lane[STRIDE])
{
	float max = lane[0];

	for (int l = 1; l < STRIDE; l++)
		max = lane[l] > max ? lane[l] : max;
	return max;
}

/* Plain, since compilers make one instruction of it and three of larger(). */
static inline void take_stride(float lane[STRIDE], const float *x)
{
	for (int l = 0; l < STRIDE; l++)
		lane[l] = x[l] > lane[l] ? x[l] : lane[l];
}

float scan_max(const float *x, int n)
{
	float lane[STRIDE], max;
	int i;

	for (int l = 0; l < STRIDE; l++)
		lane[l] = -INFINITY;
	for (i = 0; i + STRIDE <= n; i += STRIDE)
		take_stride(lane, x + i);
	max = largest_of(lane);
	for (; i < n; i++)
		max = x[i] > max ? x[i] : max;
	return max;
}

/* Four bits as lanes. */
static const i4 lanes_of[16] = {
	{0, 0, 0, 0},	{-1, 0, 0, 0},	 {0, -1, 0, 0},	  {-1, -1, 0, 0},
	{0, 0, -1, 0},	{-1, 0, -1, 0},	 {0, -1, -1, 0},  {-1, -1, -1, 0},
	{0, 0, 0, -1},	{-1, 0, 0, -1},	 {0, -1, 0, -1},  {-1, -1, 0, -1},
	{0, 0, -1, -1}, {-1, 0, -1, -1}, {0, -1, -1, -1}, {-1, -1, -1, -1},
};

/* The largest of 64 in each lane, of those that w has. */
static inline f4 max_of_word(const float *x, uint64_t w)
{
	f4 lane[4] = {all(-INFINITY), all(-INFINITY), all(-INFINITY), all(-INFINITY)};

	for (int k = 0; k < 64; k += STRIDE)
		for (int j = 0; j < 4; j++) {
			int at = k + j * LANES;
			f4 v = select4(lanes_of[w >> at & 15], load(x + at), all(-INFINITY));

			lane[j] = larger(v, lane[j]);
		}
	return larger(larger(lane[0], lane[1]), larger(lane[2], lane[3]));
}

float scan_max_masked(const float *x, int n, const uint64_t *mask)
{
	f4 mixed = all(-INFINITY);
	float lane[STRIDE], max;
	int i;

	for (int l = 0; l < STRIDE; l++)
		lane[l] = -INFINITY;
	for (i = 0; i < n / 64; i++) {
		const float *p = x + 64 * i;
		uint64_t w = mask[i];

		if (w == ~(uint64_t)0)
			for (int k = 0; k < 64; k += STRIDE)
				take_stride(lane, p + k);
		else if (w)
			mixed = larger(max_of_word(p, w), mixed);
	}
	for (int l = 0; l < LANES; l++)
		lane[l] = mixed[l] > lane[l] ? mixed[l] : lane[l];
	max = largest_of(lane);
	for (i *= 64; i < n; i++)
		if (mask[i / 64] >> i % 64 & 1)
			max = x[i] > max ? x[i] : max;
	return max;
}

void scan_exclude(float *x, int n, const uint64_t *mask)
{
	int i;

	for (i = 0; i < n / 64; i++) {
		float *p = x + 64 * i;
		uint64_t w = mask[i];

		for (int k = 0; k < 64 && w != ~(uint64_t)0; k += LANES) {
			f4 v = select4(lanes_of[w >> k & 15], load(p + k), all(-INFINITY));

			memcpy(p + k, &v, sizeof(v));
		}
	}
	for (i *= 64; i < n; i++)
		if (!(mask[i / 64] >> i % 64 & 1))
			x[i] = -INFINITY;
}

void scan_clean(float *x, int n)
{
	int i;

	for (i = 0; i + LANES <= n; i += LANES) {
		f4 v = load(x + i);

		v = select4(v == v, v, all(-INFINITY));
		memcpy(x + i, &v, sizeof(v));
	}
	for (; i < n; i++)
		x[i] = isnan(x[i]) ? -INFINITY : x[i];
}

int scan_above(const float *x, int from, int n, float bound)
{
	int i = from;

	for (; i + STRIDE <= n; i += STRIDE) {
		i4 hit = (load(x + i) > all(bound)) | (load(x + i + 4) > all(bound)) |
			 (load(x + i + 8) > all(bound)) | (load(x + i + 12) > all(bound));
		uint64_t half[2];

		memcpy(half, &hit, sizeof(half));
		if (half[0] | half[1])
			break;
	}
	while (i < n && !(x[i] > bound))
		i++;
	return i;
}

/*
 * exp(x) for x <= 0, to 2 units in the last place: 2^n e^r with |r| <= ln 2 / 2 and Taylor's series.
 * What is below e^-87, and NaN, counts as e^-87.
 */
static inline f4 exp_negative(f4 x)
{
	const f4 magic = all(12582912); /* 1.5 * 2^23: adding it rounds to an integer */
	f4 n, r, y;

	x = larger(x, all(-87));
	n = (x * all(0x1.715476p+0f) + magic) - magic;
	r = x - n * all(0x1.62e4p-1f) - n * all(0x1.7f7d1cp-20f);
	y = r * all(1.f / 720) + all(1.f / 120);
	y = r * y + all(1.f / 24);
	y = r * y + all(1.f / 6);
	y = r * y + all(0.5f);
	y = r * y + all(1);
	y = r * y + all(1);
	return y * (f4)((__builtin_convertvector(n, i4) + 127) << 23);
}

double scan_sum_exp(const float *x, int n, float max)
{
	enum { BLOCK = 16 * STRIDE }; /* whose sum is short enough for f32 */
	double total = 0;
	int i = 0;

	for (; i + BLOCK <= n; i += BLOCK) {
		f4 lane[4] = {all(0), all(0), all(0), all(0)}, sum;

		for (int k = 0; k < BLOCK; k += STRIDE)
			for (int j = 0; j < 4; j++)
				lane[j] += exp_negative(load(x + i + k + j * LANES) - all(max));
		sum = (lane[0] + lane[1]) + (lane[2] + lane[3]);
		total += (sum[0] + sum[1]) + (sum[2] + sum[3]);
	}
	for (; i < n; i++)
		total += exp_negative(all(x[i] - max))[0];
	return total;
}
