/* SPDX-License-Identifier: MIT */
/*
 * The CPU kernels, written once over sixteen lanes: a kernels_ISA.c includes its vec_ISA.h, says
 * how large its tiles are, and includes this file, which ends with the table of functions.
 *
 *   CPU_TABLE, CPU_NAME, CPU_DETAIL   the table's symbol, name and description
 *   MAX_M                             tokens of a tile: what the registers hold
 *   MAX_R, ATTN_NV                    attention: rows of a tile, vectors of a row at a time
 *
 * Functions ending in _m (or _r) take the tile size as a constant and are inlined once for each.
 * Every accumulator belongs to one (row, token) and sees its columns in one fixed order.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/layout.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* ---- elementwise ---------------------------------------------------------------------------- */

/* The first n < 16 lanes; the others are 0. */
INLINE vf load_part(const float *p, int64_t n)
{
	float t[16] = {0};

	memcpy(t, p, n * sizeof(float));
	return vf_load(t);
}

INLINE void store_part(float *p, vf v, int64_t n)
{
	float t[16];

	vf_store(t, v);
	memcpy(p, t, n * sizeof(float));
}

/*
 * e^x: x = n ln 2 + r with |r| <= ln(2)/2, e^r by its Taylor series to r^7 (truncation below
 * 6e-9). Arguments are clamped to where the result is a normal number.
 */
INLINE vf exp_v(vf x)
{
	vf n, r, p;

	x = vf_min(vf_max(x, vf_set1(-87.0f)), vf_set1(88.0f));
	n = vf_round(vf_mul(x, vf_set1(1.44269504f)));
	r = vf_fma(n, vf_set1(-0.693359375f), x); /* ln 2 in two parts, the first exact times n */
	r = vf_fma(n, vf_set1(2.12194440e-4f), r);
	p = vf_set1(1.0f / 5040);
	p = vf_fma(p, r, vf_set1(1.0f / 720));
	p = vf_fma(p, r, vf_set1(1.0f / 120));
	p = vf_fma(p, r, vf_set1(1.0f / 24));
	p = vf_fma(p, r, vf_set1(1.0f / 6));
	p = vf_fma(p, r, vf_set1(0.5f));
	p = vf_fma(p, r, vf_set1(1.0f));
	p = vf_fma(p, r, vf_set1(1.0f));
	return vf_mul(p, vf_pow2(n));
}

static void silu_mul(float *y, const float *g, const float *u)
{
	vf x = vf_load(g);
	vf denom = vf_add(vf_set1(1), exp_v(vf_sub(vf_set1(0), x)));

	vf_store(y, vf_mul(vf_div(x, denom), vf_load(u)));
}

static void axpy(float *y, const float *x, float w, int64_t n)
{
	vf wv = vf_set1(w);
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		vf_store(y + i, vf_fma(wv, vf_load(x + i), vf_load(y + i)));
	if (i < n)
		store_part(y + i, vf_fma(wv, load_part(x + i, n - i), load_part(y + i, n - i)),
			   n - i);
}

static void rmsnorm(float *y, const float *x, const float *w, int64_t n, float eps)
{
	vf sum[4] = {vf_set1(0), vf_set1(0), vf_set1(0), vf_set1(0)}, scale;
	int64_t i = 0;

	for (; i + 16 <= n; i += 16) {
		vf v = vf_load(x + i);

		sum[i / 16 % 4] = vf_fma(v, v, sum[i / 16 % 4]);
	}
	if (i < n) {
		vf v = load_part(x + i, n - i);

		sum[0] = vf_fma(v, v, sum[0]);
	}
	sum[0] = vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3]));
	scale = vf_set1(1.0f / sqrtf(vf_hsum(sum[0]) / n + eps));
	for (i = 0; i + 16 <= n; i += 16)
		vf_store(y + i, vf_mul(vf_mul(vf_load(x + i), scale), vf_load(w + i)));
	if (i < n)
		store_part(y + i,
			   vf_mul(vf_mul(load_part(x + i, n - i), scale), load_part(w + i, n - i)),
			   n - i);
}

static void rope(float *x, int dims, bool interleaved, const float *cos, const float *sin)
{
	const int half = dims / 2;

	if (interleaved) {
		for (int i = 0; i < half; i++) {
			float a = x[2 * i], b = x[2 * i + 1];

			x[2 * i] = a * cos[i] - b * sin[i];
			x[2 * i + 1] = a * sin[i] + b * cos[i];
		}
		return;
	}
	for (int i = 0; i < half; i++) {
		float a = x[i], b = x[i + half];

		x[i] = a * cos[i] - b * sin[i];
		x[i + half] = a * sin[i] + b * cos[i];
	}
}

static void to_bf16(uint16_t *y, const float *x, int64_t n)
{
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		vf_store_bf16(y + i, vf_load(x + i));
	for (; i < n; i++)
		y[i] = cpu_f32_to_bf16(x[i]);
}

static float float_of(uint32_t u)
{
	float f;

	memcpy(&f, &u, 4);
	return f;
}

static uint32_t bits_of(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	return u;
}

/*
 * y = x / scale to nearest even, one code after the other: the compiler makes vectors of it, and
 * whole numbers and a division are the same everywhere.
 */
INLINE uint8_t e4m3_of(float x)
{
	uint32_t sign = bits_of(x) >> 24 & 0x80, u = bits_of(x) & 0x7fffffff, normal, small;
	bool nan = u > 0x7f800000;

	u = u < 0x43e00000 ? u : 0x43e00000; /* 448 */
	normal = ((u + 0x7ffff + (u >> 20 & 1)) >> 20) - ((127 - 7) << 3);
	/* below 2^-6 in steps of 2^-9, which is the last bit of numbers between 2^14 and 2^15 */
	small = bits_of(float_of(u) + 0x1p14f) - 0x46800000;
	return nan ? 0x7f : sign | (u < 0x3c800000 ? small : normal);
}

static float to_e4m3(uint8_t *codes, const float *x, int64_t n)
{
	int32_t amax = 0; /* of the bits of |x|: infinities and NaNs are the largest */
	float scale, d;

	for (int64_t i = 0; i < n; i++) {
		int32_t u = bits_of(x[i]) & 0x7fffffff;

		amax = u > amax ? u : amax;
	}
	scale = amax < 0x7f800000 ? float_of(amax) / 448 : NAN;
	d = scale == 0 ? 1 : scale;
	for (int64_t i = 0; i < n; i++)
		codes[i] = e4m3_of(x[i] / d);
	return scale;
}

/* ---- activations into tiles ----------------------------------------------------------------- */

static void store_i8(const float *h, int64_t cols, int m, int i, int8_t *q, struct act_meta *meta)
{
	for (int64_t b = 0; b < cols / 32; b++) {
		vf u = vf_load(h + b * 32), v = vf_load(h + b * 32 + 16);
		float amax = vf_hmax(vf_max(vf_abs(u), vf_abs(v)));
		/* Below 1e-30 the reciprocal could overflow, and nothing is left to represent. */
		float inv = amax > 1e-30f ? 127.0f / amax : 0;
		float d = amax > 1e-30f ? amax / 127.0f : 0;
		struct act_meta *mt = &meta[b * m + i];
		int32_t half[2] = {0, 0};
		int8_t t[32];

		vf_store_i8(t, vf_mul(u, vf_set1(inv)));
		vf_store_i8(t + 16, vf_mul(v, vf_set1(inv)));
		for (int k = 0; k < 16; k++) {
			half[0] -= t[k];
			half[1] -= t[k + 16];
		}
		for (int k = 0; k < 8; k++)
			memcpy(q + ((b * 8 + k) * m + i) * 4, t + 4 * k, 4);
		mt->d = d;
		mt->neg_half[0] = half[0];
		mt->neg_half[1] = half[1];
		mt->neg_sum = half[0] + half[1];
		mt->neg_dsum = d * (half[0] + half[1]);
	}
}

static void store_f32(const float *h, int64_t cols, int m, int i, float *x)
{
	for (int64_t k = 0; k < cols; k++)
		x[k * m + i] = h[k];
	if (cols & 1)
		x[cols * m + i] = 0;
}

#if VF_HAS_BF16
static void store_bf16(const float *h, int64_t cols, int m, int i, uint16_t *x)
{
	uint16_t t[16];

	for (int64_t k = 0; k < cols; k += 16) {
		int64_t n = cols - k < 16 ? cols - k : 16;

		vf_store_bf16(t, n == 16 ? vf_load(h + k) : load_part(h + k, n));
		for (int64_t j = 0; j < (n + 1) / 2; j++)
			memcpy(x + ((k / 2 + j) * m + i) * 2, t + 2 * j, 4);
	}
}
#endif

/* ---- tiles: int8 activations ---------------------------------------------------------------- */

#define TILE_FN(name)                                                                              \
	static void name(const void *w, const struct act_tile *x, int64_t cols, float *y)          \
	{                                                                                          \
		switch (x->m) {                                                                    \
		case 1:                                                                            \
			name##_m(w, x->x, x->meta, cols, y, 1);                                    \
			break;                                                                     \
		case 2:                                                                            \
			name##_m(w, x->x, x->meta, cols, y, 2);                                    \
			break;                                                                     \
		case 3:                                                                            \
			name##_m(w, x->x, x->meta, cols, y, 3);                                    \
			break;                                                                     \
		case 4:                                                                            \
			if (MAX_M >= 4)                                                            \
				name##_m(w, x->x, x->meta, cols, y, 4);                            \
			break;                                                                     \
		case 6:                                                                            \
			if (MAX_M >= 6)                                                            \
				name##_m(w, x->x, x->meta, cols, y, 6);                            \
			break;                                                                     \
		case 8:                                                                            \
			if (MAX_M >= 8)                                                            \
				name##_m(w, x->x, x->meta, cols, y, 8);                            \
			break;                                                                     \
		case 12:                                                                           \
			if (MAX_M >= 12)                                                           \
				name##_m(w, x->x, x->meta, cols, y, 12);                           \
			break;                                                                     \
		}                                                                                  \
	}

#define EACH_TOKEN UNROLL for (int i = 0; i < m; i++)

/*
 * Several tokens at once ask for weights too slowly for the hardware to read far enough ahead, and
 * too fast to wait for them: products and memory would take turns. One to four keep it busy alone.
 */
INLINE void fetch_ahead(const uint8_t *w, int bytes, const int m)
{
	UNROLL for (int i = 0; m >= 6 && i < bytes; i += 64) __builtin_prefetch(w + 4096 + i);
}

/* The four quads of a Q6_K sub-block. */
INLINE void q6k_quads(vb out[4], const uint8_t *q)
{
	vb a = vb_load(q), b = vb_load(q + QUAD), h = vb_load(q + 2 * QUAD);

	out[0] = vb_or_high2(vb_lo4(a), h, 0);
	out[1] = vb_or_high2(vb_hi4(a), h, 2);
	out[2] = vb_or_high2(vb_lo4(b), h, 4);
	out[3] = vb_or_high2(vb_hi4(b), h, 6);
}

#if VB_HAS_DOT

INLINE void q8_0_m(const void *w, const void *xv, const struct act_meta *meta, int64_t cols,
		   float *y, const int m)
{
	const int64_t nb = cols / 32;
	const uint8_t *q = (const uint8_t *)w + 32;
	const int8_t *x = xv;
	vf f[MAX_M];

	EACH_TOKEN f[i] = vf_set1(0);
	for (int64_t b = 0; b < nb; b++, q += Q8_0_BYTES, x += 32 * m, meta += m) {
		vi a[MAX_M];
		vf dw;

		fetch_ahead(q, 8 * QUAD, m);
		EACH_TOKEN a[i] = VB_DOT8_BIAS ? vi_shl(vi_set1(meta[i].neg_sum), 7) : vi_set1(0);
		UNROLL for (int k = 0; k < 8; k++)
		{
			vb wk = vb_load(q + k * QUAD);

			EACH_TOKEN a[i] = vb_dot8(a[i], wk, x + (k * m + i) * 4);
		}
		dw = vf_from_f16(q - 32);
		EACH_TOKEN f[i] = vf_fma(vi_to_f(a[i]), vf_mul(dw, vf_set1(meta[i].d)), f[i]);
	}
	EACH_TOKEN vf_store(y + i * 16, f[i]);
}
TILE_FN(q8_0)

/* a[] += 32 nibbles of a row (as Q4_0 and Q4_K store them) . 32 activations */
INLINE void dot_nibbles(vi *a, const uint8_t *q, const int8_t *x, const int m)
{
	fetch_ahead(q, 4 * QUAD, m);
	UNROLL for (int k = 0; k < 4; k++)
	{
		vb p = vb_load(q + k * QUAD), lo = vb_lo4(p), hi = vb_hi4(p);

		EACH_TOKEN a[i] = vb_dot6(a[i], lo, x + (k * m + i) * 4);
		EACH_TOKEN a[i] = vb_dot6(a[i], hi, x + ((k + 4) * m + i) * 4);
	}
}

INLINE void q4_0_m(const void *w, const void *xv, const struct act_meta *meta, int64_t cols,
		   float *y, const int m)
{
	const int64_t nb = cols / 32;
	const uint8_t *q = (const uint8_t *)w + 32;
	const int8_t *x = xv;
	vf f[MAX_M];

	EACH_TOKEN f[i] = vf_set1(0);
	for (int64_t b = 0; b < nb; b++, q += Q4_0_BYTES, x += 32 * m, meta += m) {
		vi a[MAX_M];
		vf dw;

		EACH_TOKEN a[i] = vi_shl(vi_set1(meta[i].neg_sum), 3);
		dot_nibbles(a, q, x, m);
		dw = vf_from_f16(q - 32);
		EACH_TOKEN f[i] = vf_fma(vi_to_f(a[i]), vf_mul(dw, vf_set1(meta[i].d)), f[i]);
	}
	EACH_TOKEN vf_store(y + i * 16, f[i]);
}
TILE_FN(q4_0)

INLINE void q4_k_m(const void *w, const void *xv, const struct act_meta *meta, int64_t cols,
		   float *y, const int m)
{
	const uint8_t *g = w;
	const int8_t *x = xv;
	vf f[MAX_M];

	EACH_TOKEN f[i] = vf_set1(0);
	for (int64_t b = 0; b < cols / 256; b++, g += Q4K_BYTES) {
		vf d = vf_from_f16(g + Q4K_D), dmin = vf_from_f16(g + Q4K_DMIN);
		uint8_t sc[8][16], mn[8][16];

		q4k_scales(g + Q4K_SCALES, sc, mn);
		for (int j = 0; j < 8; j++, x += 32 * m, meta += m) {
			vi a[MAX_M];
			vf s, o;

			EACH_TOKEN a[i] = vi_set1(0);
			dot_nibbles(a, g + Q4K_QUANTS + j * 4 * QUAD, x, m);
			s = vf_mul(d, vf_from_u8(sc[j]));
			o = vf_mul(dmin, vf_from_u8(mn[j]));
			EACH_TOKEN
			{
				f[i] = vf_fma(vi_to_f(a[i]), vf_mul(s, vf_set1(meta[i].d)), f[i]);
				f[i] = vf_fma(o, vf_set1(meta[i].neg_dsum), f[i]);
			}
		}
	}
	EACH_TOKEN vf_store(y + i * 16, f[i]);
}
TILE_FN(q4_k)

INLINE void q6_k_m(const void *w, const void *xv, const struct act_meta *meta, int64_t cols,
		   float *y, const int m)
{
	const uint8_t *g = w;
	const int8_t *x = xv;
	vf f[MAX_M];

	EACH_TOKEN f[i] = vf_set1(0);
	for (int64_t b = 0; b < cols / 256; b++, g += Q6K_BYTES) {
		vf d = vf_from_f16(g + Q6K_D);

		for (int j = 0; j < 16; j++, x += 16 * m) {
			vi a[MAX_M];
			vb q[4];
			vf s;

			fetch_ahead(g + Q6K_QUANTS + j * 3 * QUAD, 3 * QUAD, m);
			q6k_quads(q, g + Q6K_QUANTS + j * 3 * QUAD);
			EACH_TOKEN a[i] = vi_shl(vi_set1(meta[i].neg_half[j & 1]), 5);
			UNROLL for (int k = 0; k < 4; k++) EACH_TOKEN a[i] =
				vb_dot6(a[i], q[k], x + (k * m + i) * 4);
			s = vf_mul(d, vf_from_i8(g + Q6K_SCALES + j * 16));
			EACH_TOKEN f[i] =
				vf_fma(vi_to_f(a[i]), vf_mul(s, vf_set1(meta[i].d)), f[i]);
			if (j & 1)
				meta += m;
		}
	}
	EACH_TOKEN vf_store(y + i * 16, f[i]);
}
TILE_FN(q6_k)
#endif

/* ---- tiles: bfloat16 activations ------------------------------------------------------------ */

/* Two accumulators a token, for the even and the odd pairs: one would wait for its own latency. */
#if VF_HAS_BF16
INLINE void bf16_m(const void *w, const void *xv, const struct act_meta *meta, int64_t cols,
		   float *y, const int m)
{
	const uint8_t *g = w;
	const uint16_t *x = xv;
	vf f[MAX_M], h[MAX_M];
	int64_t pairs = (cols + 1) / 2;

	EACH_TOKEN f[i] = h[i] = vf_set1(0);
	for (; pairs >= 2; pairs -= 2, g += 2 * QUAD, x += 4 * m) {
		fetch_ahead(g, 2 * QUAD, m);
		EACH_TOKEN f[i] = vf_dot_bf16(f[i], g, x + i * 2);
		EACH_TOKEN h[i] = vf_dot_bf16(h[i], g + QUAD, x + (m + i) * 2);
	}
	if (pairs)
		EACH_TOKEN f[i] = vf_dot_bf16(f[i], g, x + i * 2);
	EACH_TOKEN vf_store(y + i * 16, vf_add(f[i], h[i]));
}
TILE_FN(bf16)
#endif

/* ---- tiles: float activations --------------------------------------------------------------- */

/* Two columns at a time, one accumulator for each: w[c] is column c of the 16 rows. */
INLINE void fma_columns(vf *f, vf *h, vf w0, vf w1, const float *x, const int m)
{
	EACH_TOKEN f[i] = vf_fma(w0, vf_set1(x[i]), f[i]);
	EACH_TOKEN h[i] = vf_fma(w1, vf_set1(x[m + i]), h[i]);
}

#define FLOAT_TILE(name, bytes, load)                                                              \
	INLINE void name##_m(const void *w, const void *xv, const struct act_meta *meta,           \
			     int64_t cols, float *y, const int m)                                  \
	{                                                                                          \
		const uint8_t *g = w;                                                              \
		const float *x = xv;                                                               \
		vf f[MAX_M], h[MAX_M], w0, w1;                                                     \
                                                                                                   \
		EACH_TOKEN f[i] = h[i] = vf_set1(0);                                               \
		for (int64_t k = 0; k < cols; k += 2, g += (bytes), x += 2 * m) {                  \
			load;                                                                      \
			fma_columns(f, h, w0, w1, x, m);                                           \
		}                                                                                  \
		EACH_TOKEN vf_store(y + i * 16, vf_add(f[i], h[i]));                               \
	}                                                                                          \
	TILE_FN(name)

FLOAT_TILE(f32_f32, 128, (w0 = vf_load((const float *)g), w1 = vf_load((const float *)g + 16)))
FLOAT_TILE(f16_f32, 64, (w0 = vf_from_f16(g), w1 = vf_from_f16(g + 32)))
FLOAT_TILE(bf16_f32, 64, vf_from_bf16_pairs(g, &w0, &w1))

/* Four columns of small integers: weight = scale * q + offset. */
INLINE void fma_quad(vf *f, vf *h, vb q, vf scale, vf offset, const float *x, const int m)
{
	fma_columns(f, h, vf_fma(vb_byte(q, 0), scale, offset),
		    vf_fma(vb_byte(q, 1), scale, offset), x, m);
	fma_columns(f, h, vf_fma(vb_byte(q, 2), scale, offset),
		    vf_fma(vb_byte(q, 3), scale, offset), x + 2 * m, m);
}

INLINE void fma_nibbles(vf *f, vf *h, const uint8_t *q, vf scale, vf offset, const float *x,
			const int m)
{
	for (int k = 0; k < 4; k++) {
		vb p = vb_load(q + k * QUAD);

		fma_quad(f, h, vb_lo4(p), scale, offset, x + 4 * k * m, m);
		fma_quad(f, h, vb_hi4(p), scale, offset, x + (4 * k + 16) * m, m);
	}
}

/* One block of 32 columns. */
#define BLOCK_TILE(name, bytes, step)                                                              \
	INLINE void name##_m(const void *w, const void *xv, const struct act_meta *meta,           \
			     int64_t cols, float *y, const int m)                                  \
	{                                                                                          \
		const int64_t nb = cols / 32;                                                      \
		const uint8_t *q = (const uint8_t *)w + 32;                                        \
		const float *x = xv;                                                               \
		vf f[MAX_M], h[MAX_M];                                                             \
                                                                                                   \
		EACH_TOKEN f[i] = h[i] = vf_set1(0);                                               \
		for (int64_t b = 0; b < nb; b++, q += (bytes), x += 32 * m) {                      \
			vf s = vf_from_f16(q - 32);                                                \
                                                                                                   \
			step;                                                                      \
		}                                                                                  \
		EACH_TOKEN vf_store(y + i * 16, vf_add(f[i], h[i]));                               \
	}                                                                                          \
	TILE_FN(name)

BLOCK_TILE(q8_0_f32, Q8_0_BYTES,
	   for (int k = 0; k < 8; k++) fma_quad(f, h, vb_load(q + k * QUAD), s,
						vf_mul(s, vf_set1(-128)), x + 4 * k * m, m))
BLOCK_TILE(q4_0_f32, Q4_0_BYTES, fma_nibbles(f, h, q, s, vf_mul(s, vf_set1(-8)), x, m))

INLINE void q4_k_f32_m(const void *w, const void *xv, const struct act_meta *meta, int64_t cols,
		       float *y, const int m)
{
	const uint8_t *g = w;
	const float *x = xv;
	vf f[MAX_M], h[MAX_M];

	EACH_TOKEN f[i] = h[i] = vf_set1(0);
	for (int64_t b = 0; b < cols / 256; b++, g += Q4K_BYTES) {
		vf d = vf_from_f16(g + Q4K_D);
		vf dmin = vf_sub(vf_set1(0), vf_from_f16(g + Q4K_DMIN));
		uint8_t sc[8][16], mn[8][16];

		q4k_scales(g + Q4K_SCALES, sc, mn);
		for (int j = 0; j < 8; j++, x += 32 * m)
			fma_nibbles(f, h, g + Q4K_QUANTS + j * 4 * QUAD,
				    vf_mul(d, vf_from_u8(sc[j])), vf_mul(dmin, vf_from_u8(mn[j])),
				    x, m);
	}
	EACH_TOKEN vf_store(y + i * 16, vf_add(f[i], h[i]));
}
TILE_FN(q4_k_f32)

INLINE void q6_k_f32_m(const void *w, const void *xv, const struct act_meta *meta, int64_t cols,
		       float *y, const int m)
{
	const uint8_t *g = w;
	const float *x = xv;
	vf f[MAX_M], h[MAX_M];

	EACH_TOKEN f[i] = h[i] = vf_set1(0);
	for (int64_t b = 0; b < cols / 256; b++, g += Q6K_BYTES) {
		vf d = vf_from_f16(g + Q6K_D);

		for (int j = 0; j < 16; j++, x += 16 * m) {
			vf s = vf_mul(d, vf_from_i8(g + Q6K_SCALES + j * 16));
			vb q[4];

			q6k_quads(q, g + Q6K_QUANTS + j * 3 * QUAD);
			for (int k = 0; k < 4; k++)
				fma_quad(f, h, q[k], s, vf_mul(s, vf_set1(-32)), x + 4 * k * m, m);
		}
	}
	EACH_TOKEN vf_store(y + i * 16, vf_add(f[i], h[i]));
}
TILE_FN(q6_k_f32)

static cpu_tile_fn tile_f32(enum dtype type)
{
	switch (type) {
	case DTYPE_F32:
		return f32_f32;
	case DTYPE_F16:
		return f16_f32;
	case DTYPE_BF16:
		return bf16_f32;
	case DTYPE_Q8_0:
		return q8_0_f32;
	case DTYPE_Q4_0:
		return q4_0_f32;
	case DTYPE_Q4_K:
		return q4_k_f32;
	case DTYPE_Q6_K:
		return q6_k_f32;
	default:
		return NULL;
	}
}

static cpu_tile_fn tile(enum dtype type, enum act_fmt fmt)
{
	if (fmt == ACT_F32)
		return tile_f32(type);
#if VF_HAS_BF16
	if (fmt == ACT_BF16 && type == DTYPE_BF16)
		return bf16;
#endif
#if VB_HAS_DOT
	if (fmt == ACT_I8 && type == DTYPE_Q8_0)
		return q8_0;
	if (fmt == ACT_I8 && type == DTYPE_Q4_0)
		return q4_0;
	if (fmt == ACT_I8 && type == DTYPE_Q4_K)
		return q4_k;
	if (fmt == ACT_I8 && type == DTYPE_Q6_K)
		return q6_k;
#endif
	return NULL;
}

/* ---- attention ------------------------------------------------------------------------------ */

#define EACH_ROW  UNROLL for (int i = 0; i < r; i++)
#define EACH_VEC  UNROLL for (int c = 0; c < ATTN_NV; c++)
#define ATTN_SPAN (ATTN_NV * 16)

/* What vf_from_e4m3() gives must be multiplied by this; it goes with the scale. */
#define E4M3_UNIT 256.0f

INLINE vf kv_load(const void *base, int64_t at, const enum cpu_kv type)
{
	if (type == CPU_KV_E4M3)
		return vf_from_e4m3((const uint8_t *)base + at);
	return type == CPU_KV_BF16 ? vf_from_bf16((const uint16_t *)base + at)
				   : vf_load((const float *)base + at);
}

INLINE float kv_at(const void *base, int64_t at, const enum cpu_kv type)
{
	if (type == CPU_KV_E4M3)
		return cpu_e4m3_to_f32(((const uint8_t *)base)[at]) / E4M3_UNIT;
	return type == CPU_KV_BF16 ? cpu_bf16_to_f32(((const uint16_t *)base)[at])
				   : ((const float *)base)[at];
}

/*
 * A page's blocks are too short for the hardware to fetch ahead: V is fetched (to L2) while the scores
 * are computed, the next page's K while the values are. They are equally large, so that it goes line
 * by line: `at` is what is being read of this block, and is fetched of the block `ahead`.
 */
INLINE void attn_fetch(const void *ahead, int64_t at, const enum cpu_kv type)
{
	const int size = type == CPU_KV_F32 ? 4 : type == CPU_KV_BF16 ? 2 : 1;

	UNROLL for (int i = 0; i < ATTN_SPAN * size; i += 64)
		__builtin_prefetch((const char *)ahead + at * size + i, 0, 2);
}

/* s[r][64] = q K^T for the positions below `end`; lanes are positions. */
INLINE void attn_scores_r(const struct attn_page *p, const float *q, float *s, const void *ahead,
			  int end, const enum cpu_kv type, const int r)
{
	for (int at = 0; at < end; at += ATTN_SPAN) {
		vf acc[MAX_R][ATTN_NV];

		EACH_ROW EACH_VEC acc[i][c] = vf_set1(0);
		for (int d = 0; d < p->head_dim; d++) {
			vf k[ATTN_NV];

			attn_fetch(ahead, d * 64 + at, type);
			EACH_VEC k[c] = kv_load(p->k, d * 64 + at + c * 16, type);
			EACH_ROW
			{
				vf x = vf_set1(q[d * r + i]);

				EACH_VEC acc[i][c] = vf_fma(k[c], x, acc[i][c]);
			}
		}
		if (p->k_scale) {
			vf f[ATTN_NV];

			EACH_VEC f[c] =
				vf_mul(vf_load(p->k_scale + at + c * 16), vf_set1(E4M3_UNIT));
			EACH_ROW EACH_VEC acc[i][c] = vf_mul(acc[i][c], f[c]);
		}
		EACH_ROW EACH_VEC vf_store(s + i * 64 + at + c * 16, acc[i][c]);
	}
}

/*
 * Scores to weights of one row; updates m and l, returns the factor for what o holds. A page of
 * which the row sees nothing leaves everything as it was.
 */
INLINE float attn_softmax(float *s, int lo, int hi, float *m, float *l)
{
	vf v[4], max, sum = vf_set1(0);
	float m_new, factor;

	if (lo >= hi) {
		for (int c = 0; c < 4; c++)
			vf_store(s + c * 16, vf_set1(0));
		return 1;
	}
	for (int c = 0; c < 4; c++)
		v[c] = vf_select_range(vf_load(s + c * 16), lo - c * 16, hi - c * 16,
				       vf_set1(-INFINITY));
	max = vf_max(vf_max(v[0], v[1]), vf_max(v[2], v[3]));
	m_new = vf_hmax(max);
	m_new = m_new > *m ? m_new : *m;
	for (int c = 0; c < 4; c++) {
		v[c] = vf_select_range(exp_v(vf_sub(v[c], vf_set1(m_new))), lo - c * 16,
				       hi - c * 16, vf_set1(0));
		vf_store(s + c * 16, v[c]);
	}
	sum = vf_add(vf_add(v[0], v[1]), vf_add(v[2], v[3]));
	if (*m == -INFINITY) {
		factor = 0;
	} else {
		float t[16];

		vf_store(t, exp_v(vf_set1(*m - m_new)));
		factor = t[0];
	}
	*l = *l * factor + vf_hsum(sum);
	*m = m_new;
	return factor;
}

/* V's scales into the weights of one row; invisible positions stay 0 whatever their scale. */
INLINE void attn_scale_weights(float *s, const float *scale, int lo, int hi)
{
	for (int c = 0; c < 4; c++) {
		vf w = vf_mul(vf_load(s + c * 16),
			      vf_mul(vf_load(scale + c * 16), vf_set1(E4M3_UNIT)));

		vf_store(s + c * 16, vf_select_range(w, lo - c * 16, hi - c * 16, vf_set1(0)));
	}
}

/* o[r][hd] = o * factor + weights V for positions begin <= j < end; lanes are dimensions. */
INLINE void attn_values_r(const struct attn_page *p, float *o, const float *s, const float *factor,
			  const void *ahead, int begin, int end, const enum cpu_kv type,
			  const int r)
{
	const int hd = p->head_dim, ld = (hd + 15) & ~15;
	int at = 0;

	for (; at + ATTN_SPAN <= hd; at += ATTN_SPAN) {
		vf acc[MAX_R][ATTN_NV];

		EACH_ROW EACH_VEC acc[i][c] =
			vf_mul(vf_load(o + i * ld + at + c * 16), vf_set1(factor[i]));
		for (int j = begin; j < end; j++) {
			vf v[ATTN_NV];

			attn_fetch(ahead, (int64_t)j * hd + at, type);
			EACH_VEC v[c] = kv_load(p->v, (int64_t)j * hd + at + c * 16, type);
			EACH_ROW
			{
				vf w = vf_set1(s[i * 64 + j]);

				EACH_VEC acc[i][c] = vf_fma(v[c], w, acc[i][c]);
			}
		}
		EACH_ROW EACH_VEC vf_store(o + i * ld + at + c * 16, acc[i][c]);
	}
	for (; at + 16 <= hd; at += 16) {
		vf acc[MAX_R];

		EACH_ROW acc[i] = vf_mul(vf_load(o + i * ld + at), vf_set1(factor[i]));
		for (int j = begin; j < end; j++) {
			vf v = kv_load(p->v, (int64_t)j * hd + at, type);

			EACH_ROW acc[i] = vf_fma(v, vf_set1(s[i * 64 + j]), acc[i]);
		}
		EACH_ROW vf_store(o + i * ld + at, acc[i]);
	}
	for (; at < hd; at++) {
		for (int i = 0; i < r; i++) {
			float acc = o[i * ld + at] * factor[i];

			for (int j = begin; j < end; j++)
				acc = sf_fma(kv_at(p->v, (int64_t)j * hd + at, type), s[i * 64 + j],
					     acc);
			o[i * ld + at] = acc;
		}
	}
}

INLINE void attn_rows_r(const struct attn_page *p, int row, const enum cpu_kv type, const int r)
{
	const int ld = (p->head_dim + 15) & ~15;
	float *s = p->s + row * 64, *o = p->o + (int64_t)row * ld;
	float factor[MAX_R];
	int begin = 64, end = 0;

	for (int i = 0; i < r; i++) {
		if (p->lo[row + i] >= p->hi[row + i])
			continue;
		begin = p->lo[row + i] < begin ? p->lo[row + i] : begin;
		end = p->hi[row + i] > end ? p->hi[row + i] : end;
	}
	if (begin >= end)
		return;
	attn_scores_r(p, p->q + (int64_t)row * p->head_dim, s, row ? p->k : p->v, end, type, r);
	for (int i = 0; i < r; i++)
		factor[i] = attn_softmax(s + i * 64, p->lo[row + i], p->hi[row + i], &p->m[row + i],
					 &p->l[row + i]);
	for (int i = 0; p->v_scale && i < r; i++)
		attn_scale_weights(s + i * 64, p->v_scale, p->lo[row + i], p->hi[row + i]);
	attn_values_r(p, o, s, factor, row ? p->v : p->next_k, begin, end, type, r);
}

INLINE void attn_page_t(const struct attn_page *p, const enum cpu_kv type)
{
	for (int row = 0; row < p->rows;) {
		int r = cpu_tile_size(MAX_R, p->rows - row);

		if (MAX_R >= 6 && r == 6)
			attn_rows_r(p, row, type, 6);
		else if (MAX_R >= 4 && r == 4)
			attn_rows_r(p, row, type, 4);
		else if (MAX_R >= 3 && r == 3)
			attn_rows_r(p, row, type, 3);
		else if (r == 2)
			attn_rows_r(p, row, type, 2);
		else
			attn_rows_r(p, row, type, 1);
		row += r;
	}
}

static void e4m3_unpack(float *y, const uint8_t *codes, const void *ahead, int64_t n)
{
	for (int64_t i = 0; i < n; i += 64) {
		__builtin_prefetch((const char *)ahead + i, 0, 2);
		UNROLL for (int c = 0; c < 64; c += 16)
			vf_store(y + i + c, vf_from_e4m3(codes + i + c));
	}
}

/*
 * More than two tiles of rows: converting the codes once for all of them pays. The tiles get the same
 * numbers either way.
 */
static void attn_page_unpacked(const struct attn_page *p)
{
	int64_t n = (int64_t)64 * p->head_dim;
	struct attn_page f = *p;

	e4m3_unpack(p->unpacked, p->k, p->v, n);
	e4m3_unpack(p->unpacked + n, p->v, p->next_k, n);
	f.k = p->unpacked;
	f.v = p->unpacked + n;
	f.next_k = f.k;
	attn_page_t(&f, CPU_KV_F32);
}

static void attn_page(const struct attn_page *p)
{
	switch (p->type) {
	case CPU_KV_F32:
		attn_page_t(p, CPU_KV_F32);
		break;
	case CPU_KV_BF16:
		attn_page_t(p, CPU_KV_BF16);
		break;
	case CPU_KV_E4M3:
		if (p->rows > 2 * MAX_R)
			attn_page_unpacked(p);
		else
			attn_page_t(p, CPU_KV_E4M3);
		break;
	}
}

const struct cpu_kernels CPU_TABLE = {
	.name = CPU_NAME,
	.detail = CPU_DETAIL,
	.max_m = MAX_M,
	.max_r = MAX_R,
	.tile = tile,
	.attn_page = attn_page,
	.rmsnorm = rmsnorm,
	.silu_mul = silu_mul,
	.axpy = axpy,
	.store_i8 = store_i8,
	.store_f32 = store_f32,
	.rope = rope,
	.to_bf16 = to_bf16,
	.to_e4m3 = to_e4m3,
#if VF_HAS_BF16
	.store_bf16 = store_bf16,
#endif
};
