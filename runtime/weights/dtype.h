/* SPDX-License-Identifier: MIT */
/*
 * Element types of checkpoints, float and block-quantised.
 *
 * Numeric values of the block types are ggml's type ids where ggml has one (GGUF v3, ggml.h), so
 * that a GGUF type maps by value; others start at 100. A "block" is the smallest unit that can be
 * stored: `block` elements in `bytes` bytes. Rows are whole blocks.
 */
#ifndef LLMDEV_DTYPE_H
#define LLMDEV_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
	DTYPE_F32 = 0,
	DTYPE_F16 = 1,
	DTYPE_Q4_0 = 2,
	DTYPE_Q8_0 = 8,
	DTYPE_Q4_K = 12,
	DTYPE_Q6_K = 14,
	DTYPE_BF16 = 30,
	/*
	 * No kernel yet, but legal in a file: its header is read, and binding such a tensor as a
	 * weight fails with the type's name. ggml types without a name here (Q5_K ...) are known to
	 * dtype_info() by their number.
	 */
	DTYPE_I8 = 24,
	DTYPE_I16 = 25,
	DTYPE_I32 = 26,
	DTYPE_I64 = 27,
	DTYPE_F64 = 28,
	DTYPE_U8 = 100,
	DTYPE_BOOL = 101,
	DTYPE_F8_E4M3 = 102,
	DTYPE_F8_E5M2 = 103,
	DTYPE_F8_E8M0 = 104,
	DTYPE_F4 = 105,         /* E2M1, two to a byte */
	DTYPE_U16 = 106,
	DTYPE_U32 = 107,
	DTYPE_U64 = 108,
};

struct dtype_info {
	enum dtype type;
	const char *name;   /* as printed: "BF16", "Q4_K" */
	uint32_t block;     /* elements of a block */
	uint32_t bytes;     /* bytes of a block */
	bool weight;        /* kernels exist: may be used as a weight */
};

/* NULL if the value is not a known type; else a constant. */
const struct dtype_info *dtype_info(int type);

/* Look up by safetensors dtype string ("BF16", "F8_E4M3", ...); NULL if unknown. */
const struct dtype_info *dtype_by_name(const char *name);

/* Bytes of a row of n elements; 0 if n is no whole number of blocks (or on overflow). */
size_t dtype_row_bytes(enum dtype type, int64_t n);

#endif
