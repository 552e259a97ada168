// SPDX-License-Identifier: MIT
/*
 * Random rows in every weight type.
 *
 * The quantisers here are simple (plain min/max scales, no search for the best): their error is a
 * few per cent above ggml's, which is nothing to random weights. The block formats themselves are
 * exact.
 */
#include "synth.h"

#include <math.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* Sum of four uniforms, scaled to the wanted deviation: near enough to a normal distribution. */
static void random_row(float *x, int64_t n, uint64_t key)
{
	const float scale = SYNTH_STD * 1.7320508f / 65536.0f;

	for (int64_t i = 0; i < n; i++) {
		uint64_t r = mix(key + (uint64_t)i);
		int sum = (int)(r & 0xffff) + (int)(r >> 16 & 0xffff) + (int)(r >> 32 & 0xffff) +
			  (int)(r >> 48) - 131070;

		x[i] = (float)sum * scale;
	}
}

static uint16_t to_bf16(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* Round to nearest even; the values here are finite. */
static uint16_t to_f16(float f)
{
	uint32_t u, half = 0x3f000000u;
	uint16_t sign;
	float t;

	memcpy(&u, &f, 4);
	sign = (uint16_t)(u >> 16 & 0x8000);
	u &= 0x7fffffff;
	if (u >= 0x477ff000u) /* rounds to 65536 or more */
		return sign | 0x7c00;
	if (u >= 0x38800000u) { /* normal in f16 */
		u += 0xfff + (u >> 13 & 1);
		return sign | (uint16_t)((u - (112u << 23)) >> 13);
	}
	/* Subnormal: the ulp of 0.5f is f16's smallest step, so that the addition rounds. */
	memcpy(&t, &u, 4);
	t += 0.5f;
	memcpy(&u, &t, 4);
	return sign | (uint16_t)(u - half);
}

static float from_f16(uint16_t h)
{
	uint32_t u = ((uint32_t)(h & 0x8000) << 16);
	float f;

	if ((h & 0x7c00) == 0) {
		f = (float)(h & 0x3ff) * 0x1p-24f;
		return h & 0x8000 ? -f : f;
	}
	u |= ((uint32_t)(h & 0x7fff) << 13) + (112u << 23);
	memcpy(&f, &u, 4);
	return f;
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static int clamp_int(int v, int lo, int hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

/* Nearest integer for |x| < 2^22; lrintf() is a call at -O2. */
static int nearest(float x)
{
	float t = x + 12582912.0f;
	int32_t i;

	memcpy(&i, &t, 4);
	return i - 0x4b400000;
}

static void row_q8_0(uint8_t *dst, const float *x, int64_t n)
{
	for (; n > 0; n -= 32, x += 32, dst += 34) {
		float amax = 0, inv;

		for (int i = 0; i < 32; i++)
			amax = fmaxf(amax, fabsf(x[i]));
		put16(dst, to_f16(amax / 127));
		inv = amax > 0 ? 127 / amax : 0;
		for (int i = 0; i < 32; i++)
			dst[2 + i] = (uint8_t)(int8_t)nearest(x[i] * inv);
	}
}

static void row_q4_0(uint8_t *dst, const float *x, int64_t n)
{
	for (; n > 0; n -= 32, x += 32, dst += 18) {
		float top = 0, inv;

		for (int i = 0; i < 32; i++)
			if (fabsf(x[i]) > fabsf(top))
				top = x[i];
		put16(dst, to_f16(top / -8));
		inv = top != 0 ? -8 / top : 0;
		for (int i = 0; i < 16; i++) {
			int a = clamp_int((int)(x[i] * inv + 8.5f), 0, 15);
			int b = clamp_int((int)(x[i + 16] * inv + 8.5f), 0, 15);

			dst[2 + i] = (uint8_t)(a | b << 4);
		}
	}
}

static void block_q4_k(uint8_t *dst, const float *x)
{
	float scale[8], min[8], top_scale = 0, top_min = 0, d, dmin;
	int s6[8], m6[8];
	uint8_t *sc = dst + 4, *qs = dst + 16;

	for (int j = 0; j < 8; j++) {
		float lo = 0, hi = 0;

		for (int i = 0; i < 32; i++) {
			lo = fminf(lo, x[32 * j + i]);
			hi = fmaxf(hi, x[32 * j + i]);
		}
		scale[j] = (hi - lo) / 15;
		min[j] = -lo;
		top_scale = fmaxf(top_scale, scale[j]);
		top_min = fmaxf(top_min, min[j]);
	}
	put16(dst, to_f16(top_scale / 63));
	put16(dst + 2, to_f16(top_min / 63));
	d = from_f16(to_f16(top_scale / 63));
	dmin = from_f16(to_f16(top_min / 63));
	for (int j = 0; j < 8; j++) {
		s6[j] = d > 0 ? clamp_int(nearest(scale[j] / d), 0, 63) : 0;
		m6[j] = dmin > 0 ? clamp_int(nearest(min[j] / dmin), 0, 63) : 0;
	}
	for (int j = 0; j < 4; j++) {
		sc[j] = (uint8_t)(s6[j] | (s6[j + 4] >> 4) << 6);
		sc[j + 4] = (uint8_t)(m6[j] | (m6[j + 4] >> 4) << 6);
		sc[j + 8] = (uint8_t)((s6[j + 4] & 15) | (m6[j + 4] & 15) << 4);
	}
	memset(qs, 0, 128);
	for (int j = 0; j < 8; j++) {
		float s = d * s6[j], inv = s > 0 ? 1 / s : 0, m = dmin * m6[j];

		for (int i = 0; i < 32; i++) {
			int q = clamp_int(nearest((x[32 * j + i] + m) * inv), 0, 15);

			qs[32 * (j / 2) + i] |= (uint8_t)(j & 1 ? q << 4 : q);
		}
	}
}

static void block_q6_k(uint8_t *dst, const float *x)
{
	uint8_t *ql = dst, *qh = dst + 128;
	float scale[16], top = 0, d;

	for (int j = 0; j < 16; j++) {
		float amax = 0;

		for (int i = 0; i < 16; i++)
			amax = fmaxf(amax, fabsf(x[16 * j + i]));
		scale[j] = amax / 31;
		top = fmaxf(top, scale[j]);
	}
	put16(dst + 208, to_f16(top / 127));
	d = from_f16(to_f16(top / 127));
	memset(dst, 0, 192);
	for (int j = 0; j < 16; j++) {
		int s8 = d > 0 ? clamp_int(nearest(scale[j] / d), 0, 127) : 0;
		float s = d * s8, inv = s > 0 ? 1 / s : 0;

		dst[192 + j] = (uint8_t)s8;
		for (int i = 0; i < 16; i++) {
			int at = 16 * j + i, half = at / 128, l = at % 32, part = at % 128 / 32;
			int q = clamp_int(nearest(x[at] * inv) + 32, 0, 63);

			ql[64 * half + l + 32 * (part & 1)] |=
				(uint8_t)((q & 15) << (part & 2 ? 4 : 0));
			qh[32 * half + l] |= (uint8_t)((q >> 4) << (2 * part));
		}
	}
}

void synth_convert_row(void *dst, enum dtype type, const float *x, int64_t n)
{
	uint8_t *p = dst;

	switch (type) {
	case DTYPE_F32:
		memcpy(p, x, (size_t)n * 4);
		break;
	case DTYPE_F16:
		for (int64_t i = 0; i < n; i++)
			put16(p + 2 * i, to_f16(x[i]));
		break;
	case DTYPE_BF16:
		for (int64_t i = 0; i < n; i++)
			put16(p + 2 * i, to_bf16(x[i]));
		break;
	case DTYPE_Q8_0:
		row_q8_0(p, x, n);
		break;
	case DTYPE_Q4_0:
		row_q4_0(p, x, n);
		break;
	case DTYPE_Q4_K:
		for (; n > 0; n -= 256, x += 256, p += 144)
			block_q4_k(p, x);
		break;
	case DTYPE_Q6_K:
		for (; n > 0; n -= 256, x += 256, p += 210)
			block_q6_k(p, x);
		break;
	default:
		break;
	}
}

void synth_fill_random(void *dst, enum dtype type, int64_t cols, int64_t first, int64_t rows,
		       uint64_t seed, int64_t tensor, float *scratch)
{
	size_t bytes = dtype_row_bytes(type, cols);

	for (int64_t r = 0; r < rows; r++) {
		uint64_t key = mix(mix(seed ^ 0x6c6c6d646576u) + (uint64_t)tensor);

		random_row(scratch, cols, mix(key + (uint64_t)(first + r)));
		synth_convert_row((char *)dst + (size_t)r * bytes, type, scratch, cols);
	}
}
