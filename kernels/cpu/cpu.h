/* SPDX-License-Identifier: MIT */
/*
 * SIMD kernels of the CPU backend: one table of functions per instruction set, chosen at run time.
 *
 * Weights. A matrix is stored in groups of 16 rows; within a group the 16 rows are interleaved so
 * that SIMD lanes are output rows (layout.h says how, type by type). A kernel therefore needs no
 * horizontal sum, and takes the columns of a row in the same order whatever the number of tokens:
 * an output is bitwise the same in a tile of one token and in a tile of twelve.
 *
 * Activations. Tokens are taken in tiles of m (1 .. max_m) tokens, stored so that the kernel walks
 * one stream:
 *   ACT_I8    q[cols/4][m][4] int8, and meta[cols/32][m]: blocks of 32 columns, scale = amax/127
 *   ACT_BF16  [cols/2][m][2] bfloat16
 *   ACT_F32   [cols][m] float
 * with cols rounded up to an even number, the odd one zero.
 *
 * All functions are pure: no allocation, no state. Nothing need be aligned, though it is faster.
 */
#ifndef LLMDEV_KERNELS_CPU_H
#define LLMDEV_KERNELS_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weights/dtype.h"

#define CPU_ROWS     16 /* rows of a group */
#define CPU_MAX_TILE 16 /* no table's max_m is larger */

enum act_fmt { ACT_F32, ACT_BF16, ACT_I8, ACT_FORMATS };

/* One block of 32 int8 activations of one token. */
struct act_meta {
	float d; /* scale */
	float neg_dsum; /* -d * sum of the 32 quantised values */
	int32_t neg_sum; /* - sum of the 32 */
	int32_t neg_half[2]; /* - sum of the first and of the last 16 */
};

/* A tile of m tokens in one of the formats. */
struct act_tile {
	int m;
	const void *x;
	const struct act_meta *meta; /* ACT_I8 only */
};

/* y[m][16] = the group's 16 rows times the tile. */
typedef void (*cpu_tile_fn)(const void *group, const struct act_tile *x, int64_t cols, float *y);

enum cpu_kv { CPU_KV_F32, CPU_KV_BF16, CPU_KV_E4M3 };

/*
 * Attention of `rows` query rows that share a KV head over one page of 64 positions, online: m, l
 * and o carry the running maximum, sum and unnormalised output. K block: [head_dim][64],
 * V block: [64][head_dim]. E4M3 codes have a scale for each position: K's multiplies the score, V's
 * the weight of the position, so that the inner loops do not see it.
 * Row tiles: q holds, for each tile of r rows (cpu_row_tile()), [head_dim][r] scaled queries.
 */
struct attn_page {
	int rows, head_dim;
	enum cpu_kv type;
	const void *k, *v;
	const void *next_k; /* the block that will be read next is fetched; p->k: none */
	const float *k_scale, *v_scale; /* [64] of CPU_KV_E4M3; of invisible positions anything */
	float *unpacked; /* CPU_KV_E4M3: scratch [2][64 * head_dim] */
	const float *q;
	const int *lo,
		*hi; /* [rows]: positions lo <= j < hi of this page are visible, within 0 .. 64 */
	float *s; /* scratch [rows][64] */
	float *m, *l; /* [rows]; start: -INFINITY, 0 */
	float *o; /* [rows][head_dim rounded up to 16]; start: 0 */
};

struct cpu_kernels {
	const char *name; /* "avx512": as LLMDEV_ISA has it */
	const char *detail; /* for people */
	int max_m; /* largest tile of tokens */
	int max_r; /* largest tile of query rows */
	/* The kernel for this combination, NULL where there is none: ACT_F32 takes every weight type,
	 * ACT_BF16 and ACT_I8 the types they pay for, and not in every table. */
	cpu_tile_fn (*tile)(enum dtype type, enum act_fmt fmt);
	void (*attn_page)(const struct attn_page *p);
	/* y = x * rsqrt(mean(x^2) + eps) * w; y may be x */
	void (*rmsnorm)(float *y, const float *x, const float *w, int64_t n, float eps);
	/* y[16] = silu(g[16]) * u[16] */
	void (*silu_mul)(float *y, const float *g, const float *u);
	/* one head in place; cos, sin: [dims/2]; interleaved: pairs (2i, 2i+1), else (i, i + dims/2) */
	void (*rope)(float *x, int dims, bool interleaved, const float *cos, const float *sin);
	/* y[n] += w * x[n] */
	void (*axpy)(float *y, const float *x, float w, int64_t n);
	/* Store one token's h[cols] as member i of a tile of m; q/meta/x point to the tile's start. */
	void (*store_i8)(const float *h, int64_t cols, int m, int i, int8_t *q,
			 struct act_meta *meta);
	/* (NULL where the table has no ACT_BF16 kernels) */
	void (*store_bf16)(const float *h, int64_t cols, int m, int i, uint16_t *x);
	void (*store_f32)(const float *h, int64_t cols, int m, int i, float *x);
	void (*to_bf16)(uint16_t *y, const float *x, int64_t n);
	/* Codes of x, and their scale; the same bits as ref_quantise_e4m3() gives. */
	float (*to_e4m3)(uint8_t *codes, const float *x, int64_t n);
};

extern const struct cpu_kernels cpu_kernels_generic;
#ifdef __x86_64__
extern const struct cpu_kernels cpu_kernels_avx2, cpu_kernels_avx512;
#endif
#ifdef __aarch64__
extern const struct cpu_kernels cpu_kernels_neon;
#endif

/* Can this machine run it? */
bool cpu_kernels_usable(const struct cpu_kernels *k);
/* The best for this machine, or the one named (NULL: none of that name, or not usable here). */
const struct cpu_kernels *cpu_kernels_select(const char *name);
/* i-th table compiled in, NULL past the end. For tests. */
const struct cpu_kernels *cpu_kernels_at(int i);

/*
 * Size of the next tile when `left` tokens (rows) are left and tiles may have up to `max`: the
 * sizes that kernels are compiled for are 12, 8, 6, 4, 3, 2, 1.
 */
static inline int cpu_tile_size(int max, int64_t left)
{
	static const uint8_t sizes[] = {12, 8, 6, 4, 3, 2};

	for (int i = 0; i < (int)sizeof(sizes); i++)
		if (sizes[i] <= max && sizes[i] <= left)
			return sizes[i];
	return 1;
}

/* Bytes of a group of 16 rows; 0 if there is no kernel or cols do not fit the type's block. */
size_t cpu_group_bytes(enum dtype type, int64_t cols);
/* struct weight_pack's pack(): rows beyond `rows` become zero. */
void cpu_pack(void *dst, const void *src, int rows, int64_t cols, enum dtype type);
/* Decode row `lane` (0..15) of a group to cols floats. */
void cpu_unpack_row(float *dst, const void *group, int lane, int64_t cols, enum dtype type);

float cpu_bf16_to_f32(uint16_t h);
uint16_t cpu_f32_to_bf16(float f); /* to nearest even; NaN stays NaN */
float cpu_e4m3_to_f32(uint8_t c); /* 0x7f and 0xff as 480: a NaN is in the scale */

#endif
