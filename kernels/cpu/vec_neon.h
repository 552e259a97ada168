/* SPDX-License-Identifier: MIT */
/*
 * Sixteen lanes as four NEON registers, with dotprod, i8mm (usdot) and bf16. See vec_avx512.h for
 * what the words mean.
 */
#include <arm_neon.h>
#include <stdint.h>

typedef struct {
	float32x4_t v[4];
} vf;
typedef struct {
	int32x4_t v[4];
} vi;
typedef struct {
	uint8x16_t v[4];
} vb;

#define VB_DOT8_BIAS 1
#define VB_HAS_DOT   1
#define VF_HAS_BF16  1

/* One result from four, lane groups i = 0 .. 3. */
#define QUARTERS(type, expr)                                                                       \
	({                                                                                         \
		type r_;                                                                           \
		_Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) r_.v[i] = (expr);              \
		r_;                                                                                \
	})

static inline vf vf_load(const float *p)
{
	return QUARTERS(vf, vld1q_f32(p + 4 * i));
}
static inline void vf_store(float *p, vf a)
{
	for (int i = 0; i < 4; i++)
		vst1q_f32(p + 4 * i, a.v[i]);
}
static inline vf vf_set1(float x)
{
	return QUARTERS(vf, vdupq_n_f32(x));
}
static inline vf vf_add(vf a, vf b)
{
	return QUARTERS(vf, vaddq_f32(a.v[i], b.v[i]));
}
static inline vf vf_sub(vf a, vf b)
{
	return QUARTERS(vf, vsubq_f32(a.v[i], b.v[i]));
}
static inline vf vf_mul(vf a, vf b)
{
	return QUARTERS(vf, vmulq_f32(a.v[i], b.v[i]));
}
static inline vf vf_div(vf a, vf b)
{
	return QUARTERS(vf, vdivq_f32(a.v[i], b.v[i]));
}
static inline vf vf_max(vf a, vf b)
{
	return QUARTERS(vf, vmaxq_f32(a.v[i], b.v[i]));
}
static inline vf vf_min(vf a, vf b)
{
	return QUARTERS(vf, vminq_f32(a.v[i], b.v[i]));
}
static inline vf vf_abs(vf a)
{
	return QUARTERS(vf, vabsq_f32(a.v[i]));
}
static inline vf vf_fma(vf a, vf b, vf c)
{
	return QUARTERS(vf, vfmaq_f32(c.v[i], a.v[i], b.v[i]));
}
static inline float sf_fma(float a, float b, float c)
{
	return __builtin_fmaf(a, b, c);
}
static inline float vf_hmax(vf a)
{
	return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}
static inline float vf_hsum(vf a)
{
	return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[1]), vaddq_f32(a.v[2], a.v[3])));
}
static inline vf vf_round(vf a)
{
	return QUARTERS(vf, vrndnq_f32(a.v[i]));
}
static inline vf vf_pow2(vf n)
{
	return QUARTERS(vf, vreinterpretq_f32_s32(
				    vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)),
						23)));
}
static inline vf vf_from_f16(const void *p)
{
	uint16x8_t a = vld1q_u16(p), b = vld1q_u16((const uint16_t *)p + 8);
	vf r;

	r.v[0] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(a)));
	r.v[1] = vcvt_high_f32_f16(vreinterpretq_f16_u16(a));
	r.v[2] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(b)));
	r.v[3] = vcvt_high_f32_f16(vreinterpretq_f16_u16(b));
	return r;
}
static inline vf vf_from_bf16(const void *p)
{
	const uint16_t *h = p;

	return QUARTERS(vf, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(h + 4 * i), 16)));
}
static inline vf vf_from_e4m3(const void *p)
{
	int8x16_t b = vld1q_s8(p);
	int16x8_t mask = vdupq_n_s16((int16_t)0xbf80);
	int16x8_t lo = vandq_s16(vshll_n_s8(vget_low_s8(b), 7), mask);
	int16x8_t hi = vandq_s16(vshll_high_n_s8(b, 7), mask);
	vf r;

	r.v[0] = vcvt_f32_f16(vreinterpret_f16_s16(vget_low_s16(lo)));
	r.v[1] = vcvt_high_f32_f16(vreinterpretq_f16_s16(lo));
	r.v[2] = vcvt_f32_f16(vreinterpret_f16_s16(vget_low_s16(hi)));
	r.v[3] = vcvt_high_f32_f16(vreinterpretq_f16_s16(hi));
	return r;
}
static inline vf vf_from_u8(const void *p)
{
	uint8x16_t b = vld1q_u8(p);
	uint16x8_t lo = vmovl_u8(vget_low_u8(b)), hi = vmovl_high_u8(b);
	vf r;

	r.v[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo)));
	r.v[1] = vcvtq_f32_u32(vmovl_high_u16(lo));
	r.v[2] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi)));
	r.v[3] = vcvtq_f32_u32(vmovl_high_u16(hi));
	return r;
}
static inline vf vf_from_i8(const void *p)
{
	int8x16_t b = vld1q_s8(p);
	int16x8_t lo = vmovl_s8(vget_low_s8(b)), hi = vmovl_high_s8(b);
	vf r;

	r.v[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo)));
	r.v[1] = vcvtq_f32_s32(vmovl_high_s16(lo));
	r.v[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi)));
	r.v[3] = vcvtq_f32_s32(vmovl_high_s16(hi));
	return r;
}
static inline void vf_from_bf16_pairs(const void *p, vf *even, vf *odd)
{
	const uint8_t *q = p;

	for (int i = 0; i < 4; i++) {
		uint32x4_t w = vreinterpretq_u32_u8(vld1q_u8(q + 16 * i));

		even->v[i] = vreinterpretq_f32_u32(vshlq_n_u32(w, 16));
		odd->v[i] = vreinterpretq_f32_u32(vandq_u32(w, vdupq_n_u32(0xffff0000)));
	}
}
static inline vf vf_select_range(vf a, int lo, int hi, vf b)
{
	static const int32_t first[4] = {0, 1, 2, 3};
	int32x4_t lane = vld1q_s32(first);
	vf r;

	for (int i = 0; i < 4; i++) {
		uint32x4_t in = vandq_u32(vcgeq_s32(lane, vdupq_n_s32(lo - 4 * i)),
					  vcltq_s32(lane, vdupq_n_s32(hi - 4 * i)));

		r.v[i] = vbslq_f32(in, a.v[i], b.v[i]);
	}
	return r;
}
static inline void vf_store_i8(int8_t *p, vf a)
{
	int16x8_t lo = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a.v[0])),
				    vqmovn_s32(vcvtnq_s32_f32(a.v[1])));
	int16x8_t hi = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a.v[2])),
				    vqmovn_s32(vcvtnq_s32_f32(a.v[3])));

	vst1q_s8(p, vcombine_s8(vqmovn_s16(lo), vqmovn_s16(hi)));
}
static inline void vf_store_bf16(uint16_t *p, vf a)
{
	for (int i = 0; i < 4; i++)
		vst1_u16(p + 4 * i, vreinterpret_u16_bf16(vcvt_bf16_f32(a.v[i])));
}

static inline vi vi_set1(int32_t x)
{
	return QUARTERS(vi, vdupq_n_s32(x));
}
static inline vi vi_shl(vi a, int n)
{
	return QUARTERS(vi, vshlq_s32(a.v[i], vdupq_n_s32(n)));
}
static inline vf vi_to_f(vi a)
{
	return QUARTERS(vf, vcvtq_f32_s32(a.v[i]));
}

static inline vb vb_load(const void *p)
{
	return QUARTERS(vb, vld1q_u8((const uint8_t *)p + 16 * i));
}
static inline vb vb_lo4(vb a)
{
	return QUARTERS(vb, vandq_u8(a.v[i], vdupq_n_u8(15)));
}
static inline vb vb_hi4(vb a)
{
	return QUARTERS(vb, vshrq_n_u8(a.v[i], 4));
}
static inline vb vb_or_high2(vb a, vb b, int at)
{
	return QUARTERS(vb, vorrq_u8(a.v[i], vandq_u8(vshlq_u8(b.v[i], vdupq_n_s8(4 - at)),
						      vdupq_n_u8(0x30))));
}
static inline vf vb_byte(vb w, int c)
{
	return QUARTERS(vf, vcvtq_f32_u32(vandq_u32(vshlq_u32(vreinterpretq_u32_u8(w.v[i]),
							      vdupq_n_s32(-8 * c)),
						    vdupq_n_u32(255))));
}
static inline vi vb_dot8(vi acc, vb w, const void *x)
{
	int8x16_t q = vreinterpretq_s8_s32(vld1q_dup_s32(x));

	return QUARTERS(vi, vusdotq_s32(acc.v[i], w.v[i], q));
}
static inline vi vb_dot6(vi acc, vb w, const void *x)
{
	return vb_dot8(acc, w, x);
}
static inline vf vf_dot_bf16(vf acc, const void *w, const void *x)
{
	bfloat16x8_t q = vreinterpretq_bf16_u32(vld1q_dup_u32(x));
	const uint8_t *g = w;

	return QUARTERS(vf, vbfdotq_f32(acc.v[i], vreinterpretq_bf16_u8(vld1q_u8(g + 16 * i)), q));
}
