/* SPDX-License-Identifier: MIT */
/*
 * Sixteen lanes as two AVX2 registers, with FMA and F16C. See vec_avx512.h for what the words mean.
 */
#include <immintrin.h>
#include <stdint.h>

typedef struct {
	__m256 a, b;
} vf;
typedef struct {
	__m256i a, b;
} vi;
typedef vi vb;

/* maddubs saturates with full bytes, so dot8() takes the bias off itself. */
#define VB_DOT8_BIAS 0
#define VB_HAS_DOT   1
#define VF_HAS_BF16  0

#define VF2(x, y) ((vf){(x), (y)})
#define VI2(x, y) ((vi){(x), (y)})

static inline vf vf_load(const float *p)
{
	return VF2(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}
static inline void vf_store(float *p, vf v)
{
	_mm256_storeu_ps(p, v.a);
	_mm256_storeu_ps(p + 8, v.b);
}
static inline vf vf_set1(float x)
{
	__m256 v = _mm256_set1_ps(x);

	return VF2(v, v);
}
static inline vf vf_add(vf x, vf y)
{
	return VF2(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b));
}
static inline vf vf_sub(vf x, vf y)
{
	return VF2(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b));
}
static inline vf vf_mul(vf x, vf y)
{
	return VF2(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b));
}
static inline vf vf_div(vf x, vf y)
{
	return VF2(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b));
}
static inline vf vf_max(vf x, vf y)
{
	return VF2(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b));
}
static inline vf vf_min(vf x, vf y)
{
	return VF2(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b));
}
static inline vf vf_abs(vf x)
{
	__m256 sign = _mm256_set1_ps(-0.0f);

	return VF2(_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b));
}
static inline vf vf_fma(vf x, vf y, vf z)
{
	return VF2(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
static inline float sf_fma(float a, float b, float c)
{
	return __builtin_fmaf(a, b, c);
}
static inline float vf_hmax(vf x)
{
	__m256 v = _mm256_max_ps(x.a, x.b);
	__m128 h = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

	h = _mm_max_ps(h, _mm_movehl_ps(h, h));
	return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}
static inline float vf_hsum(vf x)
{
	__m256 v = _mm256_add_ps(x.a, x.b);
	__m128 h = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

	h = _mm_add_ps(h, _mm_movehl_ps(h, h));
	return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
static inline vf vf_round(vf x)
{
	return VF2(_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
		   _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline __m256 pow2_half(__m256 n)
{
	__m256i i = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));

	return _mm256_castsi256_ps(_mm256_slli_epi32(i, 23));
}
static inline vf vf_pow2(vf n)
{
	return VF2(pow2_half(n.a), pow2_half(n.b));
}
static inline vf vf_from_f16(const void *p)
{
	const __m128i *h = p;

	return VF2(_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1)));
}
static inline __m256 bf16_half(__m128i h)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline vf vf_from_bf16(const void *p)
{
	const __m128i *h = p;

	return VF2(bf16_half(_mm_loadu_si128(h)), bf16_half(_mm_loadu_si128(h + 1)));
}
static inline vf vf_from_e4m3(const void *p)
{
	__m256i w = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), 7);

	w = _mm256_and_si256(w, _mm256_set1_epi16((short)0xbf80));
	return VF2(_mm256_cvtph_ps(_mm256_castsi256_si128(w)),
		   _mm256_cvtph_ps(_mm256_extracti128_si256(w, 1)));
}
static inline vf vf_from_u8(const void *p)
{
	__m128i v = _mm_loadu_si128(p);

	return VF2(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)),
		   _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))));
}
static inline vf vf_from_i8(const void *p)
{
	__m128i v = _mm_loadu_si128(p);

	return VF2(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
		   _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))));
}
static inline void vf_from_bf16_pairs(const void *p, vf *even, vf *odd)
{
	const __m256i *q = p;
	__m256i u = _mm256_loadu_si256(q), v = _mm256_loadu_si256(q + 1);
	__m256i high = _mm256_set1_epi32((int)0xffff0000);

	*even = VF2(_mm256_castsi256_ps(_mm256_slli_epi32(u, 16)),
		    _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)));
	*odd = VF2(_mm256_castsi256_ps(_mm256_and_si256(u, high)),
		   _mm256_castsi256_ps(_mm256_and_si256(v, high)));
}
static inline __m256 select_half(__m256 x, __m256i lane, int lo, int hi, __m256 y)
{
	__m256i in = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(lo), lane),
					 _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), lane));

	return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(in));
}
static inline vf vf_select_range(vf x, int lo, int hi, vf y)
{
	__m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

	return VF2(select_half(x.a, lane, lo, hi, y.a),
		   select_half(x.b, lane, lo - 8, hi - 8, y.b));
}
static inline void vf_store_i8(int8_t *p, vf v)
{
	__m256i w = _mm256_packs_epi32(_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b));

	w = _mm256_permute4x64_epi64(w, 0xd8);
	_mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(w),
						       _mm256_extracti128_si256(w, 1)));
}

static inline __m256i bf16_bits(__m256 x)
{
	__m256i u = _mm256_castps_si256(x);
	__m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
	__m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
	__m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));

	r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
	return _mm256_srli_epi32(r, 16);
}
static inline void vf_store_bf16(uint16_t *p, vf v)
{
	__m256i w = _mm256_packus_epi32(bf16_bits(v.a), bf16_bits(v.b));

	_mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(w, 0xd8));
}

static inline vi vi_set1(int32_t x)
{
	__m256i v = _mm256_set1_epi32(x);

	return VI2(v, v);
}
static inline vi vi_shl(vi x, int n)
{
	return VI2(_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n));
}
static inline vf vi_to_f(vi x)
{
	return VF2(_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b));
}

static inline vb vb_load(const void *p)
{
	const __m256i *q = p;

	return VI2(_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1));
}
static inline vb vb_lo4(vb x)
{
	__m256i mask = _mm256_set1_epi8(15);

	return VI2(_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask));
}
static inline vb vb_hi4(vb x)
{
	return vb_lo4(VI2(_mm256_srli_epi16(x.a, 4), _mm256_srli_epi16(x.b, 4)));
}
static inline vb vb_or_high2(vb x, vb y, int at)
{
	__m256i mask = _mm256_set1_epi8(0x30);
	vb s = at < 4 ? VI2(_mm256_slli_epi16(y.a, 4 - at), _mm256_slli_epi16(y.b, 4 - at))
		      : VI2(_mm256_srli_epi16(y.a, at - 4), _mm256_srli_epi16(y.b, at - 4));

	return VI2(_mm256_or_si256(x.a, _mm256_and_si256(s.a, mask)),
		   _mm256_or_si256(x.b, _mm256_and_si256(s.b, mask)));
}
/* unsigned w, signed x, products of a pair within 16 bits */
static inline __m256i dot_half(__m256i acc, __m256i w, __m256i x)
{
	return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x),
						       _mm256_set1_epi16(1)));
}
static inline vi vb_dot6(vi acc, vb w, const void *x)
{
	int32_t q;
	__m256i v;

	__builtin_memcpy(&q, x, 4);
	v = _mm256_set1_epi32(q);
	return VI2(dot_half(acc.a, w.a, v), dot_half(acc.b, w.b, v));
}
/* |w| . sign(w) x with w = stored - 128: at most 128 * 127 * 2 in 16 bits */
static inline vi vb_dot8(vi acc, vb w, const void *x)
{
	int32_t q;
	__m256i v, wa = _mm256_xor_si256(w.a, _mm256_set1_epi8(-128));
	__m256i wb = _mm256_xor_si256(w.b, _mm256_set1_epi8(-128));

	__builtin_memcpy(&q, x, 4);
	v = _mm256_set1_epi32(q);
	return VI2(dot_half(acc.a, _mm256_abs_epi8(wa), _mm256_sign_epi8(v, wa)),
		   dot_half(acc.b, _mm256_abs_epi8(wb), _mm256_sign_epi8(v, wb)));
}
static inline vf vb_byte(vb w, int c)
{
	__m256i mask = _mm256_set1_epi32(255);

	return VF2(_mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w.a, 8 * c), mask)),
		   _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w.b, 8 * c), mask)));
}
