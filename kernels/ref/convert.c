// SPDX-License-Identifier: MIT
/* Reference kernels: element conversions and decoding of checkpoint blocks; see ref.h. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

static uint32_t float_bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	return u;
}

static float bits_float(uint32_t u)
{
	float f;

	memcpy(&f, &u, 4);
	return f;
}

float ref_f16_to_f32(uint16_t h)
{
	int exponent = h >> 10 & 31;
	int mantissa = h & 1023;
	float sign = h & 0x8000 ? -1.0f : 1.0f;

	if (exponent == 31)
		return mantissa ? NAN : sign * INFINITY;
	if (exponent == 0)
		return sign * ldexpf((float)mantissa, -24);
	return sign * ldexpf((float)(1024 + mantissa), exponent - 25);
}

uint16_t ref_f32_to_f16(float f)
{
	uint16_t sign = float_bits(f) >> 16 & 0x8000;
	float a = fabsf(f);
	int exponent;
	float quantum, q;

	if (isnan(f))
		return sign | 0x7e00;
	if (a >= 65520.0f)
		return sign | 0x7c00;
	if (a < 0x1p-14f) /* subnormal: multiples of 2^-24; 1024 of them carry into 2^-14 */
		return sign | (uint16_t)nearbyintf(a * 0x1p24f);
	frexpf(a, &exponent); /* a = m * 2^exponent, m in [0.5, 1) */
	quantum = ldexpf(1.0f, exponent - 11);
	q = nearbyintf(a / quantum); /* 1024 .. 2048; 2048 carries into the exponent */
	return sign | (uint16_t)(((exponent + 14) << 10) + (int)q - 1024);
}

float ref_bf16_to_f32(uint16_t h)
{
	return bits_float((uint32_t)h << 16);
}

uint16_t ref_f32_to_bf16(float f)
{
	uint32_t u = float_bits(f);

	if (isnan(f))
		return u >> 16 | 0x40;
	return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

/* OCP 8-bit Floating Point Specification, revision 1.0, section 5: 1-4-3, bias 7. */
float ref_e4m3_to_f32(uint8_t c)
{
	int exponent = c >> 3 & 15;
	int mantissa = c & 7;
	float sign = c & 0x80 ? -1.0f : 1.0f;

	if (exponent == 15 && mantissa == 7)
		return NAN;
	if (exponent == 0)
		return sign * ldexpf((float)mantissa, -9);
	return sign * ldexpf((float)(8 + mantissa), exponent - 10);
}

uint8_t ref_f32_to_e4m3(float f)
{
	uint8_t sign = float_bits(f) >> 24 & 0x80;
	float a = fabsf(f);
	int exponent;

	if (isnan(f))
		return 0x7f;
	if (a >= 448.0f)
		return sign | 0x7e;
	if (a < 0x1p-6f) /* subnormal: multiples of 2^-9; 8 of them carry into 2^-6 */
		return sign | (uint8_t)nearbyintf(a * 0x1p9f);
	frexpf(a, &exponent); /* a = m * 2^exponent, m in [0.5, 1) */
	/* 8 .. 16 quanta; 16 carries into the exponent */
	return sign | (uint8_t)(((exponent + 6) << 3) +
				(int)nearbyintf(a / ldexpf(1.0f, exponent - 4)) - 8);
}

float ref_quantise_e4m3(uint8_t *codes, const float *x, int n)
{
	float amax = 0, scale;
	bool finite = true;

	for (int i = 0; i < n; i++) {
		finite &= isfinite(x[i]) != 0;
		amax = fmaxf(amax, fabsf(x[i]));
	}
	scale = finite ? amax / 448 : NAN;
	for (int i = 0; i < n; i++)
		codes[i] = ref_f32_to_e4m3(scale == 0 ? x[i] : x[i] / scale);
	return scale;
}

static uint16_t load_u16(const uint8_t *p)
{
	return p[0] | p[1] << 8;
}

static float load_half(const uint8_t *p)
{
	return ref_f16_to_f32(load_u16(p));
}

/* Block layouts: ggml-quants of ggml @d99724f2, as described in the GGUF documentation. */

static void q8_0_block(float *x, const uint8_t *b)
{
	float d = load_half(b);

	for (int j = 0; j < 32; j++)
		x[j] = d * (int8_t)b[2 + j];
}

static void q4_0_block(float *x, const uint8_t *b)
{
	float d = load_half(b);

	for (int j = 0; j < 16; j++) {
		x[j] = d * ((b[2 + j] & 15) - 8);
		x[j + 16] = d * ((b[2 + j] >> 4) - 8);
	}
}

/* The 6-bit scale and minimum of sub-block j of a Q4_K block. */
static void q4_k_scale(const uint8_t *s, int j, int *scale, int *min)
{
	if (j < 4) {
		*scale = s[j] & 63;
		*min = s[j + 4] & 63;
	} else {
		*scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
		*min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
	}
}

static void q4_k_block(float *x, const uint8_t *b)
{
	float d = load_half(b), dmin = load_half(b + 2);

	for (int j = 0; j < 8; j++) {
		const uint8_t *q = b + 16 + 32 * (j / 2);
		int scale, min;

		q4_k_scale(b + 4, j, &scale, &min);
		for (int l = 0; l < 32; l++)
			x[32 * j + l] = d * scale * (j & 1 ? q[l] >> 4 : q[l] & 15) - dmin * min;
	}
}

static void q6_k_block(float *x, const uint8_t *b)
{
	float d = load_half(b + 208);

	for (int n = 0; n < 2; n++) {
		const uint8_t *ql = b + 64 * n, *qh = b + 128 + 32 * n;
		const int8_t *sc = (const int8_t *)b + 192 + 8 * n;

		for (int l = 0; l < 32; l++)
			for (int part = 0; part < 4; part++) {
				uint8_t low = ql[l + 32 * (part & 1)];
				int q = (part < 2 ? low & 15 : low >> 4) | (qh[l] >> 2 * part & 3)
										   << 4;

				x[128 * n + 32 * part + l] = d * sc[l / 16 + 2 * part] * (q - 32);
			}
	}
}

bool ref_dequant_row(float *dst, const void *src, int64_t n, enum dtype type)
{
	const uint8_t *p = src;

	switch (type) {
	case DTYPE_F32:
		memcpy(dst, src, n * 4);
		return true;
	case DTYPE_F16:
		for (int64_t i = 0; i < n; i++)
			dst[i] = load_half(p + 2 * i);
		return true;
	case DTYPE_BF16:
		for (int64_t i = 0; i < n; i++)
			dst[i] = ref_bf16_to_f32(load_u16(p + 2 * i));
		return true;
	case DTYPE_Q8_0:
		for (int64_t i = 0; i < n / 32; i++)
			q8_0_block(dst + 32 * i, p + 34 * i);
		return true;
	case DTYPE_Q4_0:
		for (int64_t i = 0; i < n / 32; i++)
			q4_0_block(dst + 32 * i, p + 18 * i);
		return true;
	case DTYPE_Q4_K:
		for (int64_t i = 0; i < n / 256; i++)
			q4_k_block(dst + 256 * i, p + 144 * i);
		return true;
	case DTYPE_Q6_K:
		for (int64_t i = 0; i < n / 256; i++)
			q6_k_block(dst + 256 * i, p + 210 * i);
		return true;
	default:
		return false;
	}
}

void ref_round_q8(float *x, int64_t n)
{
	for (int64_t b = 0; b < n; b += 32) {
		int64_t len = n - b < 32 ? n - b : 32;
		float amax = 0, d;

		for (int64_t i = 0; i < len; i++)
			amax = fmaxf(amax, fabsf(x[b + i]));
		d = amax / 127;
		for (int64_t i = 0; i < len; i++)
			x[b + i] = d > 0 ? d * nearbyintf(x[b + i] / d) : 0;
	}
}

void ref_round_bf16(float *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		x[i] = ref_bf16_to_f32(ref_f32_to_bf16(x[i]));
}
