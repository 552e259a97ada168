/* SPDX-License-Identifier: MIT */
/*
 * Sixteen lanes for AVX-512 with VNNI and BF16; the vocabulary that body.h is written in.
 * vf: 16 floats. vi: 16 int32. vb: 64 bytes (one quad: 4 bytes for each of 16 rows).
 */
#include <immintrin.h>
#include <stdint.h>

typedef __m512 vf;
typedef __m512i vi;
typedef __m512i vb;

/* dot8() takes weights as stored (unsigned, + 128): the kernel adds -128 sum(x). */
#define VB_DOT8_BIAS 1
#define VB_HAS_DOT   1
#define VF_HAS_BF16  1

static inline vf vf_load(const float *p)
{
	return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
	_mm512_storeu_ps(p, v);
}
static inline vf vf_set1(float x)
{
	return _mm512_set1_ps(x);
}
static inline vf vf_add(vf a, vf b)
{
	return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
	return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
	return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
	return _mm512_div_ps(a, b);
}
static inline vf vf_max(vf a, vf b)
{
	return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
	return _mm512_min_ps(a, b);
}
static inline vf vf_abs(vf a)
{
	return _mm512_abs_ps(a);
}
/* a * b + c */
static inline vf vf_fma(vf a, vf b, vf c)
{
	return _mm512_fmadd_ps(a, b, c);
}
static inline float sf_fma(float a, float b, float c)
{
	return __builtin_fmaf(a, b, c);
}
static inline float vf_hmax(vf a)
{
	return _mm512_reduce_max_ps(a);
}
static inline float vf_hsum(vf a)
{
	return _mm512_reduce_add_ps(a);
}
static inline vf vf_round(vf a)
{
	return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* 2^n for whole n in -126 .. 127 */
static inline vf vf_pow2(vf n)
{
	__m512i i = _mm512_cvtps_epi32(n);

	return _mm512_castsi512_ps(
		_mm512_slli_epi32(_mm512_add_epi32(i, _mm512_set1_epi32(127)), 23));
}
static inline vf vf_from_f16(const void *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
static inline vf vf_from_bf16(const void *p)
{
	return _mm512_castsi512_ps(
		_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
/*
 * Sixteen E4M3 codes as value / 256: exponent and mantissa are at the right place for a half when
 * they are moved up by 7, with a bias 8 larger. Exact, subnormals included; the NaN becomes 480.
 */
static inline vf vf_from_e4m3(const void *p)
{
	__m256i w = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), 7);

	/* the sign has been copied to bits 15 and 14 */
	return _mm512_cvtph_ps(_mm256_and_si256(w, _mm256_set1_epi16((short)0xbf80)));
}
static inline vf vf_from_u8(const void *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)));
}
static inline vf vf_from_i8(const void *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}
/* Pairs of bfloat16 of 16 rows: the even and the odd columns. */
static inline void vf_from_bf16_pairs(const void *p, vf *even, vf *odd)
{
	__m512i w = _mm512_loadu_si512(p);

	*even = _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
	*odd = _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0xffff0000)));
}
/* Lanes lo <= i < hi of a, the others from b. */
static inline vf vf_select_range(vf a, int lo, int hi, vf b)
{
	uint32_t below_hi = hi <= 0 ? 0 : hi >= 16 ? 0xffff : (1u << hi) - 1;
	uint32_t below_lo = lo <= 0 ? 0 : lo >= 16 ? 0xffff : (1u << lo) - 1;

	return _mm512_mask_blend_ps((__mmask16)(below_hi & ~below_lo), b, a);
}
/* 16 values rounded to nearest even, saturated, as bytes. */
static inline void vf_store_i8(int8_t *p, vf v)
{
	_mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
}
static inline void vf_store_bf16(uint16_t *p, vf v)
{
	_mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(v));
}

static inline vi vi_set1(int32_t x)
{
	return _mm512_set1_epi32(x);
}
static inline vi vi_shl(vi a, int n)
{
	return _mm512_slli_epi32(a, n);
}
static inline vf vi_to_f(vi a)
{
	return _mm512_cvtepi32_ps(a);
}

static inline vb vb_load(const void *p)
{
	return _mm512_loadu_si512(p);
}
static inline vb vb_lo4(vb a)
{
	return _mm512_and_si512(a, _mm512_set1_epi8(15));
}
static inline vb vb_hi4(vb a)
{
	return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15));
}
/* a | the bits 4-5 that b has at bit `at` (0, 2, 4 or 6) */
static inline vb vb_or_high2(vb a, vb b, int at)
{
	__m512i s = at < 4 ? _mm512_slli_epi16(b, 4 - at) : _mm512_srli_epi16(b, at - 4);

	return _mm512_ternarylogic_epi32(a, s, _mm512_set1_epi8(0x30), 0xf8); /* a | (s & mask) */
}
/* acc + per row: 4 unsigned weight bytes (any value) . 4 signed bytes at x, in -127 .. 127 */
static inline vi vb_dot8(vi acc, vb w, const void *x)
{
	int32_t q;

	__builtin_memcpy(&q, x, 4);
	return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(q));
}
/* The same for weights of at most 6 bits. */
static inline vi vb_dot6(vi acc, vb w, const void *x)
{
	return vb_dot8(acc, w, x);
}
/* acc + per row: 2 bfloat16 weights . 2 bfloat16 at x */
static inline vf vf_dot_bf16(vf acc, const void *w, const void *x)
{
	int32_t pair;

	__builtin_memcpy(&pair, x, 4);
	return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_loadu_si512(w),
				(__m512bh)_mm512_set1_epi32(pair));
}
/* Byte c of each lane, 0 .. 255. */
static inline vf vb_byte(vb w, int c)
{
	return _mm512_cvtepi32_ps(
		_mm512_and_si512(_mm512_srli_epi32(w, 8 * c), _mm512_set1_epi32(255)));
}
