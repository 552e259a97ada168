/* SPDX-License-Identifier: MIT */
/*
 * Sixteen lanes in the compiler's vector extension, without intrinsics: for machines without any of
 * the other tables, and to check body.h. See vec_avx512.h for what the words mean.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint8_t vb __attribute__((vector_size(64)));
typedef uint16_t v16h __attribute__((vector_size(32)));
typedef uint8_t v16b __attribute__((vector_size(16)));
typedef int8_t v16c __attribute__((vector_size(16)));

/* Without an instruction for it, int8 was slower than float: 2.8 against 10.6 GMAC/s (x86-64). */
#define VB_HAS_DOT  0
#define VF_HAS_BF16 0

#define VECFN static inline __attribute__((always_inline))

VECFN vf vf_load(const float *p)
{
	vf r;

	memcpy(&r, p, 64);
	return r;
}
VECFN void vf_store(float *p, vf v)
{
	memcpy(p, &v, 64);
}
VECFN vf vf_set1(float x)
{
	return (vf){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
VECFN vi vi_set1(int32_t x)
{
	return (vi){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
VECFN vf vf_add(vf a, vf b)
{
	return a + b;
}
VECFN vf vf_sub(vf a, vf b)
{
	return a - b;
}
VECFN vf vf_mul(vf a, vf b)
{
	return a * b;
}
VECFN vf vf_div(vf a, vf b)
{
	return a / b;
}
/* Lanes of a where the mask is all ones, of b where it is 0. */
VECFN vf vf_select(vi mask, vf a, vf b)
{
	return (vf)((mask & (vi)a) | (~mask & (vi)b));
}
VECFN vf vf_max(vf a, vf b)
{
	return vf_select(a > b, a, b);
}
VECFN vf vf_min(vf a, vf b)
{
	return vf_select(a < b, a, b);
}
VECFN vf vf_abs(vf a)
{
	return (vf)((vi)a & vi_set1(0x7fffffff));
}
VECFN vf vf_fma(vf a, vf b, vf c)
{
	return a * b + c;
}
VECFN float sf_fma(float a, float b, float c)
{
	return a * b + c;
}
VECFN float vf_hmax(vf a)
{
	float t[16];

	vf_store(t, a);
	for (int n = 8; n; n /= 2)
		for (int i = 0; i < n; i++)
			t[i] = t[i] > t[i + n] ? t[i] : t[i + n];
	return t[0];
}
VECFN float vf_hsum(vf a)
{
	float t[16];

	vf_store(t, a);
	for (int n = 8; n; n /= 2)
		for (int i = 0; i < n; i++)
			t[i] += t[i + n];
	return t[0];
}
/* Adding 1.5 * 2^23 rounds to nearest even; |a| is far below 2^22 wherever this is used. */
VECFN vf vf_round(vf a)
{
	vf big = vf_set1(12582912.0f);

	return (a + big) - big;
}
VECFN vf vf_pow2(vf n)
{
	return (vf)((__builtin_convertvector(n, vi) + 127) << 23);
}
/* As cpu_unpack_row() does it, without the branch on infinity. */
VECFN vf vf_from_f16(const void *p)
{
	v16h h;
	vi w, rest;
	vf f;

	memcpy(&h, p, 32);
	w = __builtin_convertvector(h, vi);
	rest = (w & 0x7fff) << 13;
	f = (vf)rest * 0x1p112f;
	return (vf)((vi)f | (w & 0x8000) << 16 | ((rest >= (0x7c00 << 13)) & 0x7f800000));
}
VECFN vf vf_from_bf16(const void *p)
{
	v16h h;

	memcpy(&h, p, 32);
	return (vf)(__builtin_convertvector(h, vu) << 16);
}
VECFN vf vf_from_e4m3(const void *p)
{
	v16b b;
	vi w;

	memcpy(&b, p, 16);
	w = __builtin_convertvector(b, vi);
	return (vf)((w & 0x7f) << 20 | (w & 0x80) << 24) * 0x1p112f;
}
VECFN vf vf_from_u8(const void *p)
{
	v16b b;

	memcpy(&b, p, 16);
	return __builtin_convertvector(__builtin_convertvector(b, vi), vf);
}
VECFN vf vf_from_i8(const void *p)
{
	v16c b;

	memcpy(&b, p, 16);
	return __builtin_convertvector(__builtin_convertvector(b, vi), vf);
}
VECFN void vf_from_bf16_pairs(const void *p, vf *even, vf *odd)
{
	vu w;

	memcpy(&w, p, 64);
	*even = (vf)(w << 16);
	*odd = (vf)(w & 0xffff0000);
}
VECFN vf vf_select_range(vf a, int lo, int hi, vf b)
{
	vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

	return vf_select((lane >= vi_set1(lo)) & (lane < vi_set1(hi)), a, b);
}
VECFN void vf_store_i8(int8_t *p, vf v)
{
	v16c b;

	v = vf_round(vf_min(vf_max(v, vf_set1(-128)), vf_set1(127)));
	b = __builtin_convertvector(__builtin_convertvector(v, vi), v16c);
	memcpy(p, &b, 16);
}
VECFN void vf_store_bf16(uint16_t *p, vf v)
{
	uint32_t u[16];

	memcpy(u, &v, 64);
	for (int i = 0; i < 16; i++)
		p[i] = (u[i] & 0x7fffffff) > 0x7f800000 ? u[i] >> 16 | 0x40
							: (u[i] + 0x7fff + (u[i] >> 16 & 1)) >> 16;
}

VECFN vb vb_load(const void *p)
{
	vb r;

	memcpy(&r, p, 64);
	return r;
}
VECFN vb vb_lo4(vb a)
{
	return a & 15;
}
VECFN vb vb_hi4(vb a)
{
	return (vb)((vu)a >> 4 & 0x0f0f0f0f);
}
VECFN vb vb_or_high2(vb a, vb b, int at)
{
	vu s = at < 4 ? (vu)b << (4 - at) : (vu)b >> (at - 4);

	return a | (vb)(s & 0x30303030);
}
VECFN vf vb_byte(vb w, int c)
{
	return __builtin_convertvector((vi)((vu)w >> (8 * c) & 255), vf);
}

#undef VECFN
