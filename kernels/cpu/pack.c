// SPDX-License-Identifier: MIT
/*
 * From the checkpoint's rows to groups of 16 interleaved rows (layout.h), and single rows back.
 * Pure functions; the loader calls cpu_pack() from several threads.
 */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/layout.h"

float cpu_bf16_to_f32(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;
	float f;

	memcpy(&f, &u, 4);
	return f;
}

float cpu_e4m3_to_f32(uint8_t c)
{
	/* its bits at their place in a float, whose exponent is then 120 too small */
	uint32_t u = (uint32_t)(c & 0x80) << 24 | (uint32_t)(c & 0x7f) << 20;
	float f;

	memcpy(&f, &u, 4);
	return f * 0x1p120f;
}

uint16_t cpu_f32_to_bf16(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	if ((u & 0x7fffffff) > 0x7f800000)
		return u >> 16 | 0x40;
	return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

static float f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff, u;
	float f;

	if (rest >= 0x7c00) {
		u = sign | 0x7f800000 | (rest & 0x3ff) << 13;
	} else {
		/* Exponent and mantissa as they are, then 2^112 for the difference of the biases. */
		u = rest << 13;
		memcpy(&f, &u, 4);
		f *= 0x1p112f;
		memcpy(&u, &f, 4);
		u |= sign;
	}
	memcpy(&f, &u, 4);
	return f;
}

size_t cpu_group_bytes(enum dtype type, int64_t cols)
{
	size_t row;

	switch (type) {
	case DTYPE_F32:
	case DTYPE_F16:
	case DTYPE_BF16:
		row = dtype_row_bytes(type, even_cols(cols));
		break;
	case DTYPE_Q8_0:
	case DTYPE_Q4_0:
	case DTYPE_Q4_K:
	case DTYPE_Q6_K:
		row = dtype_row_bytes(type, cols);
		break;
	default:
		return 0;
	}
	return row > SIZE_MAX / CPU_ROWS ? 0 : row * CPU_ROWS;
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t u;

	memcpy(&u, p, 4);
	return u;
}

static void store32(uint8_t *p, uint32_t u)
{
	memcpy(p, &u, 4);
}

/* Sources are not aligned in general: the loader hands over bytes as they lie in the file. */
static void pack_f32(uint8_t *dst, const uint8_t *src, int rows, int64_t cols)
{
	for (int64_t k = 0; k < cols; k++)
		for (int r = 0; r < rows; r++)
			store32(dst + (k * CPU_ROWS + r) * 4, load32(src + (r * cols + k) * 4));
}

static void pack_f16(uint8_t *dst, const uint8_t *src, int rows, int64_t cols)
{
	for (int64_t k = 0; k < cols; k++)
		for (int r = 0; r < rows; r++)
			memcpy(dst + (k * CPU_ROWS + r) * 2, src + (r * cols + k) * 2, 2);
}

static void pack_bf16(uint8_t *dst, const uint8_t *src, int rows, int64_t cols)
{
	for (int64_t k = 0; k + 1 < cols; k += 2)
		for (int r = 0; r < rows; r++)
			store32(dst + (k / 2 * CPU_ROWS + r) * 4, load32(src + (r * cols + k) * 2));
	if (cols & 1)
		for (int r = 0; r < rows; r++)
			memcpy(dst + ((cols - 1) / 2 * CPU_ROWS + r) * 4,
			       src + ((r + 1) * cols - 1) * 2, 2);
}

static void pack_q8_0(uint8_t *dst, const uint8_t *src, int rows, int64_t cols)
{
	int64_t nb = cols / 32;

	for (int64_t b = 0; b < nb; b++, dst += Q8_0_BYTES) {
		for (int r = 0; r < rows; r++) {
			const uint8_t *block = src + (r * nb + b) * 34;

			memcpy(dst + r * 2, block, 2);
			for (int i = 0; i < 8; i++)
				store32(dst + 32 + i * QUAD + r * 4,
					load32(block + 2 + i * 4) ^ 0x80808080);
		}
	}
}

static void pack_q4_0(uint8_t *dst, const uint8_t *src, int rows, int64_t cols)
{
	int64_t nb = cols / 32;

	for (int64_t b = 0; b < nb; b++, dst += Q4_0_BYTES) {
		for (int r = 0; r < rows; r++) {
			const uint8_t *block = src + (r * nb + b) * 18;

			memcpy(dst + r * 2, block, 2);
			for (int i = 0; i < 4; i++)
				store32(dst + 32 + i * QUAD + r * 4, load32(block + 2 + i * 4));
		}
	}
}

static void pack_q4_k(uint8_t *dst, const uint8_t *src, int rows, int64_t cols)
{
	int64_t nb = cols / 256;

	for (int64_t b = 0; b < nb; b++, dst += Q4K_BYTES) {
		for (int r = 0; r < rows; r++) {
			const uint8_t *block = src + (r * nb + b) * 144, *qs = block + 16;
			uint8_t *q = dst + Q4K_QUANTS + r * 4;

			memcpy(dst + Q4K_D + r * 2, block, 2);
			memcpy(dst + Q4K_DMIN + r * 2, block + 2, 2);
			for (int i = 0; i < 12; i++)
				dst[Q4K_SCALES + i * 16 + r] = block[4 + i];
			for (int c = 0; c < 4; c++) {
				for (int i = 0; i < 4; i++) {
					uint32_t a = load32(qs + 32 * c + 4 * i);
					uint32_t h = load32(qs + 32 * c + 4 * i + 16);

					store32(q + (8 * c + i) * QUAD,
						(a & 0x0f0f0f0f) | (h & 0x0f0f0f0f) << 4);
					store32(q + (8 * c + 4 + i) * QUAD,
						(a >> 4 & 0x0f0f0f0f) | (h & 0xf0f0f0f0));
				}
			}
		}
	}
}

/* The 256 six-bit values of a Q6_K block, in order. */
static void q6k_values(uint8_t v[256], const uint8_t *block)
{
	for (int n = 0; n < 2; n++) {
		const uint8_t *ql = block + 64 * n, *qh = block + 128 + 32 * n;
		uint8_t *o = v + 128 * n;

		for (int i = 0; i < 32; i++) {
			o[i] = (ql[i] & 15) | (qh[i] & 3) << 4;
			o[i + 32] = (ql[i + 32] & 15) | (qh[i] >> 2 & 3) << 4;
			o[i + 64] = ql[i] >> 4 | (qh[i] >> 4 & 3) << 4;
			o[i + 96] = ql[i + 32] >> 4 | qh[i] >> 6 << 4;
		}
	}
}

static void pack_q6_k(uint8_t *dst, const uint8_t *src, int rows, int64_t cols)
{
	int64_t nb = cols / 256;
	uint8_t v[256];

	for (int64_t b = 0; b < nb; b++, dst += Q6K_BYTES) {
		for (int r = 0; r < rows; r++) {
			const uint8_t *block = src + (r * nb + b) * 210;

			memcpy(dst + Q6K_D + r * 2, block + 208, 2);
			for (int j = 0; j < 16; j++)
				dst[Q6K_SCALES + j * 16 + r] = block[192 + j];
			q6k_values(v, block);
			for (int j = 0; j < 16; j++) {
				uint8_t *q = dst + Q6K_QUANTS + j * 3 * QUAD + r * 4;
				uint32_t q0 = load32(v + 16 * j), q1 = load32(v + 16 * j + 4);
				uint32_t q2 = load32(v + 16 * j + 8), q3 = load32(v + 16 * j + 12);

				store32(q, (q0 & 0x0f0f0f0f) | (q1 & 0x0f0f0f0f) << 4);
				store32(q + QUAD, (q2 & 0x0f0f0f0f) | (q3 & 0x0f0f0f0f) << 4);
				store32(q + 2 * QUAD,
					(q0 >> 4 & 0x03030303) | (q1 >> 2 & 0x0c0c0c0c) |
						(q2 & 0x30303030) | (q3 << 2 & 0xc0c0c0c0));
			}
		}
	}
}

void cpu_pack(void *dst, const void *src, int rows, int64_t cols, enum dtype type)
{
	if (rows < CPU_ROWS || (cols & 1))
		memset(dst, 0, cpu_group_bytes(type, cols));
	switch (type) {
	case DTYPE_F32:
		pack_f32(dst, src, rows, cols);
		break;
	case DTYPE_F16:
		pack_f16(dst, src, rows, cols);
		break;
	case DTYPE_BF16:
		pack_bf16(dst, src, rows, cols);
		break;
	case DTYPE_Q8_0:
		pack_q8_0(dst, src, rows, cols);
		break;
	case DTYPE_Q4_0:
		pack_q4_0(dst, src, rows, cols);
		break;
	case DTYPE_Q4_K:
		pack_q4_k(dst, src, rows, cols);
		break;
	case DTYPE_Q6_K:
		pack_q6_k(dst, src, rows, cols);
		break;
	default:
		break;
	}
}

/* ---- single rows, for embeddings ------------------------------------------------------------ */

static float half_at(const uint8_t *p, int64_t i)
{
	uint16_t h;

	memcpy(&h, p + i * 2, 2);
	return f16_to_f32(h);
}

/* 32 nibbles of one row in the order of Q4_0's groups. */
static int nibble(const uint8_t *quants, int lane, int i)
{
	uint8_t byte = quants[i / 4 % 4 * QUAD + lane * 4 + i % 4];

	return i < 16 ? byte & 15 : byte >> 4;
}

static void row_q4_k(float *dst, const uint8_t *g, int lane, int64_t cols)
{
	uint8_t sc[8][16], mn[8][16];

	for (int64_t b = 0; b < cols / 256; b++, g += Q4K_BYTES) {
		float d = half_at(g + Q4K_D, lane), dmin = half_at(g + Q4K_DMIN, lane);

		q4k_scales(g + Q4K_SCALES, sc, mn);
		for (int i = 0; i < 256; i++)
			*dst++ = d * sc[i / 32][lane] *
					 nibble(g + Q4K_QUANTS + i / 32 * 256, lane, i % 32) -
				 dmin * mn[i / 32][lane];
	}
}

static void row_q6_k(float *dst, const uint8_t *g, int lane, int64_t cols)
{
	for (int64_t b = 0; b < cols / 256; b++, g += Q6K_BYTES) {
		float d = half_at(g + Q6K_D, lane);

		for (int i = 0; i < 256; i++) {
			const uint8_t *q = g + Q6K_QUANTS + i / 16 * 3 * QUAD + lane * 4 + i % 4;
			int quad = i / 4 % 4;
			int lo = q[quad / 2 * QUAD] >> (quad & 1) * 4 & 15;
			int hi = q[2 * QUAD] >> quad * 2 & 3;
			int sc = (int8_t)g[Q6K_SCALES + i / 16 * 16 + lane];

			*dst++ = d * sc * ((lo | hi << 4) - 32);
		}
	}
}

void cpu_unpack_row(float *dst, const void *group, int lane, int64_t cols, enum dtype type)
{
	const uint8_t *g = group;

	switch (type) {
	case DTYPE_F32:
		for (int64_t k = 0; k < cols; k++)
			memcpy(dst + k, g + (k * CPU_ROWS + lane) * 4, 4);
		break;
	case DTYPE_F16:
		for (int64_t k = 0; k < cols; k++)
			dst[k] = half_at(g, k * CPU_ROWS + lane);
		break;
	case DTYPE_BF16:
		for (int64_t k = 0; k < cols; k++) {
			uint16_t h;

			memcpy(&h, g + ((k / 2 * CPU_ROWS + lane) * 2 + k % 2) * 2, 2);
			dst[k] = cpu_bf16_to_f32(h);
		}
		break;
	case DTYPE_Q8_0:
		for (int64_t k = 0; k < cols; k++) {
			const uint8_t *block = g + k / 32 * Q8_0_BYTES;

			dst[k] = half_at(block, lane) *
				 (block[32 + k % 32 / 4 * QUAD + lane * 4 + k % 4] - 128);
		}
		break;
	case DTYPE_Q4_0:
		for (int64_t k = 0; k < cols; k++) {
			const uint8_t *block = g + k / 32 * Q4_0_BYTES;

			dst[k] = half_at(block, lane) * (nibble(block + 32, lane, k % 32) - 8);
		}
		break;
	case DTYPE_Q4_K:
		row_q4_k(dst, g, lane, cols);
		break;
	case DTYPE_Q6_K:
		row_q6_k(dst, g, lane, cols);
		break;
	default:
		break;
	}
}
