/* SPDX-License-Identifier: MIT */
/*
 * How a group of 16 rows lies in memory, type by type. A "quad" is 64 bytes: 4 consecutive columns
 * of each of the 16 rows, row after row, so that a 32-bit lane holds one row's 4 columns.
 *
 *   F32     [cols][16] float                         (cols rounded up to even, as for all floats)
 *   F16     [cols][16] half
 *   BF16    [cols/2][16][2] bfloat16
 *   Q8_0    per 32 columns: [16] half scale, then 8 quads of bytes q + 128
 *   Q4_0    per 32 columns: [16] half scale, then [4][64]: low nibbles quad i, high nibbles i + 4
 *   Q4_K    per 256 columns: [16] half d, [16] half dmin, [12][16] packed scales and mins as in
 *           the checkpoint, then per sub-block of 32 as Q4_0
 *   Q6_K    per 256 columns: [16] half d, [16][16] int8 scales (sub-block, row), then per
 *           sub-block of 16 (quads 0..3): [64] low nibbles of quads 0 | 1 << 4, [64] of quads
 *           2 | 3 << 4, [64] the two high bits of quads 0 | 1 << 2 | 2 << 4 | 3 << 6
 *
 * Scales stand right before what they scale: a group is then one stream. Two streams, scales and
 * quants, were read from memory at little more than half the speed.
 * Same size as in the checkpoint, but for the padding to 16 rows and to an even number of columns.
 */
#ifndef LLMDEV_KERNELS_CPU_LAYOUT_H
#define LLMDEV_KERNELS_CPU_LAYOUT_H

#include <stdint.h>

#define QUAD 64

#define Q8_0_BYTES 544
#define Q4_0_BYTES 288

#define Q4K_D	   0
#define Q4K_DMIN   32
#define Q4K_SCALES 64
#define Q4K_QUANTS 256
#define Q4K_BYTES  2304

#define Q6K_D	   0
#define Q6K_SCALES 32
#define Q6K_QUANTS 288
#define Q6K_BYTES  3360

static inline int64_t even_cols(int64_t cols)
{
	return (cols + 1) & ~(int64_t)1;
}

/* Scales and mins of the eight sub-blocks of a Q4_K block, for 16 rows: [8][16] each. */
static inline void q4k_scales(const uint8_t *b, uint8_t sc[8][16], uint8_t mn[8][16])
{
	for (int j = 0; j < 4; j++) {
		for (int r = 0; r < 16; r++) {
			uint8_t s = b[16 * j + r], m = b[16 * (j + 4) + r], h = b[16 * (j + 8) + r];

			sc[j][r] = s & 63;
			mn[j][r] = m & 63;
			sc[j + 4][r] = (h & 15) | (s >> 6) << 4;
			mn[j + 4][r] = h >> 4 | (m >> 6) << 4;
		}
	}
}

#endif
