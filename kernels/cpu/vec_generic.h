/* SPDX-License-Identifier: MIT */
/*
 * Sixteen lanes in plain C, for machines without any of the other tables, and to check body.h
 * without intrinsics. The compiler vectorises what it can. See vec_avx512.h for what the words mean.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
	float v[16];
} vf;
typedef struct {
	int32_t v[16];
} vi;
typedef struct {
	uint8_t v[64];
} vb;

#define VB_DOT8_BIAS 1
#define VF_HAS_BF16  0

#define LANES16 for (int i_ = 0; i_ < 16; i_++)

static inline vf vf_load(const float *p)
{
	vf r;

	memcpy(r.v, p, 64);
	return r;
}
static inline void vf_store(float *p, vf v)
{
	memcpy(p, v.v, 64);
}
static inline vf vf_set1(float x)
{
	vf r;

	LANES16 r.v[i_] = x;
	return r;
}
static inline vf vf_add(vf a, vf b)
{
	LANES16 a.v[i_] += b.v[i_];
	return a;
}
static inline vf vf_sub(vf a, vf b)
{
	LANES16 a.v[i_] -= b.v[i_];
	return a;
}
static inline vf vf_mul(vf a, vf b)
{
	LANES16 a.v[i_] *= b.v[i_];
	return a;
}
static inline vf vf_div(vf a, vf b)
{
	LANES16 a.v[i_] /= b.v[i_];
	return a;
}
static inline vf vf_max(vf a, vf b)
{
	LANES16 a.v[i_] = a.v[i_] > b.v[i_] ? a.v[i_] : b.v[i_];
	return a;
}
static inline vf vf_min(vf a, vf b)
{
	LANES16 a.v[i_] = a.v[i_] < b.v[i_] ? a.v[i_] : b.v[i_];
	return a;
}
static inline vf vf_abs(vf a)
{
	LANES16 a.v[i_] = fabsf(a.v[i_]);
	return a;
}
static inline vf vf_fma(vf a, vf b, vf c)
{
	LANES16 c.v[i_] += a.v[i_] * b.v[i_];
	return c;
}
static inline float sf_fma(float a, float b, float c)
{
	return a * b + c;
}
static inline float vf_hmax(vf a)
{
	for (int n = 8; n; n /= 2)
		for (int i = 0; i < n; i++)
			a.v[i] = a.v[i] > a.v[i + n] ? a.v[i] : a.v[i + n];
	return a.v[0];
}
static inline float vf_hsum(vf a)
{
	for (int n = 8; n; n /= 2)
		for (int i = 0; i < n; i++)
			a.v[i] += a.v[i + n];
	return a.v[0];
}
static inline vf vf_round(vf a)
{
	/* Adding 1.5 * 2^23 rounds to nearest even; |a| is far below 2^22 wherever this is used. */
	LANES16 a.v[i_] = (a.v[i_] + 12582912.0f) - 12582912.0f;
	return a;
}
static inline vf vf_pow2(vf n)
{
	vf r;

	LANES16
	{
		uint32_t u = (uint32_t)((int32_t)n.v[i_] + 127) << 23;

		memcpy(&r.v[i_], &u, 4);
	}
	return r;
}
static inline vf vf_from_f16(const void *p)
{
	uint16_t h[16];
	vf r;

	memcpy(h, p, 32);
	LANES16
	{
		/* As cpu_unpack_row() does it, without the branch on infinity. */
		uint32_t rest = (uint32_t)(h[i_] & 0x7fff) << 13, sign, u;
		float f;

		sign = (uint32_t)(h[i_] & 0x8000) << 16;
		memcpy(&f, &rest, 4);
		f *= 0x1p112f;
		memcpy(&u, &f, 4);
		u |= sign | (rest >= 0x7c00u << 13 ? 0x7f800000 : 0);
		memcpy(&r.v[i_], &u, 4);
	}
	return r;
}
static inline vf vf_from_bf16(const void *p)
{
	uint16_t h[16];
	uint32_t u[16];
	vf r;

	memcpy(h, p, 32);
	LANES16 u[i_] = (uint32_t)h[i_] << 16;
	memcpy(r.v, u, 64);
	return r;
}
static inline vf vf_from_u8(const void *p)
{
	vf r;

	LANES16 r.v[i_] = ((const uint8_t *)p)[i_];
	return r;
}
static inline vf vf_from_i8(const void *p)
{
	vf r;

	LANES16 r.v[i_] = ((const int8_t *)p)[i_];
	return r;
}
static inline void vf_from_bf16_pairs(const void *p, vf *even, vf *odd)
{
	uint32_t w[16], u[16];

	memcpy(w, p, 64);
	LANES16 u[i_] = w[i_] << 16;
	memcpy(even->v, u, 64);
	LANES16 u[i_] = w[i_] & 0xffff0000;
	memcpy(odd->v, u, 64);
}
static inline vf vf_select_range(vf a, int lo, int hi, vf b)
{
	LANES16 a.v[i_] = i_ >= lo && i_ < hi ? a.v[i_] : b.v[i_];
	return a;
}
static inline void vf_store_i8(int8_t *p, vf v)
{
	v = vf_round(vf_min(vf_max(v, vf_set1(-128)), vf_set1(127)));
	LANES16 p[i_] = (int8_t)v.v[i_];
}
static inline void vf_store_bf16(uint16_t *p, vf v)
{
	LANES16
	{
		uint32_t u;

		memcpy(&u, &v.v[i_], 4);
		p[i_] = (u & 0x7fffffff) > 0x7f800000 ? u >> 16 | 0x40
						      : (u + 0x7fff + (u >> 16 & 1)) >> 16;
	}
}

static inline vi vi_set1(int32_t x)
{
	vi r;

	LANES16 r.v[i_] = x;
	return r;
}
static inline vi vi_shl(vi a, int n)
{
	LANES16 a.v[i_] = (int32_t)((uint32_t)a.v[i_] << n);
	return a;
}
static inline vf vi_to_f(vi a)
{
	vf r;

	LANES16 r.v[i_] = (float)a.v[i_];
	return r;
}

static inline vb vb_load(const void *p)
{
	vb r;

	memcpy(r.v, p, 64);
	return r;
}
static inline vb vb_lo4(vb a)
{
	for (int i = 0; i < 64; i++)
		a.v[i] &= 15;
	return a;
}
static inline vb vb_hi4(vb a)
{
	for (int i = 0; i < 64; i++)
		a.v[i] >>= 4;
	return a;
}
static inline vb vb_or_high2(vb a, vb b, int at)
{
	for (int i = 0; i < 64; i++)
		a.v[i] |= (b.v[i] >> at & 3) << 4;
	return a;
}
static inline vi vb_dot8(vi acc, vb w, const void *x)
{
	const int8_t *q = x;

	LANES16
	{
		const uint8_t *p = w.v + 4 * i_;

		acc.v[i_] += p[0] * q[0] + p[1] * q[1] + p[2] * q[2] + p[3] * q[3];
	}
	return acc;
}
static inline vi vb_dot6(vi acc, vb w, const void *x)
{
	return vb_dot8(acc, w, x);
}
static inline vf vb_byte(vb w, int c)
{
	vf r;

	LANES16 r.v[i_] = w.v[4 * i_ + c];
	return r;
}

#undef LANES16
