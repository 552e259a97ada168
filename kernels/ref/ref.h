/* SPDX-License-Identifier: MIT */
/*
 * Reference kernels: the oracle for every optimised kernel. Plain C, one obvious loop after the
 * other, sums in double, checkpoint layouts as they lie in the file. Never optimised. What they must
 * give is decided outside: Hugging Face transformers in float32.
 *
 * All functions are pure; arrays are caller's; no alignment is assumed.
 */
#ifndef LLMDEV_KERNELS_REF_H
#define LLMDEV_KERNELS_REF_H

#include <stdbool.h>
#include <stdint.h>

#include "weights/dtype.h"

/* IEEE half and bfloat16; rounding to nearest even. */
float ref_f16_to_f32(uint16_t h);
uint16_t ref_f32_to_f16(float f);
float ref_bf16_to_f32(uint16_t h);
uint16_t ref_f32_to_bf16(float f);

/*
 * E4M3 of the OCP specification (no infinities, largest 448): to nearest even, beyond the largest to
 * the largest. NaN becomes 0x7f.
 */
float ref_e4m3_to_f32(uint8_t c);
uint8_t ref_f32_to_e4m3(float f);

/*
 * A vector as codes and one scale, x = scale * code: returns absmax / 448, 0 where that is too small
 * for a float (the codes are then zeros too), NaN if an element is not finite.
 */
float ref_quantise_e4m3(uint8_t *codes, const float *x, int n);

/* dst[n] from n elements in checkpoint format (whole blocks). False: no such kernel. */
bool ref_dequant_row(float *dst, const void *src, int64_t n, enum dtype type);

/* y[rows] = W[rows][cols] x[cols]. `row` is scratch of cols floats. */
void ref_matvec(float *y, const void *w, enum dtype type, int64_t rows, int64_t cols,
		const float *x, float *row);

/* y[n] = x * rsqrt(mean(x^2) + eps) * w; y may be x. */
void ref_rmsnorm(float *y, const float *x, const float *w, int n, float eps);

/*
 * Rotate one head in place. cos, sin: [dims/2] of this position. interleaved: pairs (2i, 2i+1),
 * else (i, i + dims/2). Dims beyond `dims` are left alone.
 */
void ref_rope(float *head, int dims, bool interleaved, const float *cos, const float *sin);

void ref_softmax(float *x, int n);
float ref_silu(float x);

/*
 * The k largest of p[n], largest first, ties to the lower index: idx[k], and val[k] = p[idx].
 */
void ref_topk(const float *p, int n, int k, int *idx, float *val);

/*
 * What the fast modes do to activations, as rounding in place, so that a kernel can be compared
 * with ref under the same rounding. q8: blocks of 32 with scale = amax/127, round to nearest even
 * (a tail block shorter than 32 is a block of its own).
 */
void ref_round_q8(float *x, int64_t n);
void ref_round_bf16(float *x, int64_t n);

#endif
