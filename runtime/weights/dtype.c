// SPDX-License-Identifier: MIT
/*
 * The table of element types; see dtype.h. Block sizes of the ggml types are those of GGUF v3 (the
 * format's public description); only types that a file may hold are listed, not those that exist
 * for activations alone.
 */
#include "weights/dtype.h"

#include <string.h>

#define KNOWN(id, name_, block_, bytes_)                                                           \
	{                                                                                          \
		(enum dtype)(id), name_, block_, bytes_, false                                     \
	}
#define WEIGHT(id, name_, block_, bytes_)                                                          \
	{                                                                                          \
		(enum dtype)(id), name_, block_, bytes_, true                                      \
	}

static const struct dtype_info types[] = {
	WEIGHT(DTYPE_F32, "F32", 1, 4),
	WEIGHT(DTYPE_F16, "F16", 1, 2),
	WEIGHT(DTYPE_BF16, "BF16", 1, 2),
	WEIGHT(DTYPE_Q8_0, "Q8_0", 32, 34),
	WEIGHT(DTYPE_Q4_0, "Q4_0", 32, 18),
	WEIGHT(DTYPE_Q4_K, "Q4_K", 256, 144),
	WEIGHT(DTYPE_Q6_K, "Q6_K", 256, 210),

	KNOWN(3, "Q4_1", 32, 20),
	KNOWN(6, "Q5_0", 32, 22),
	KNOWN(7, "Q5_1", 32, 24),
	KNOWN(9, "Q8_1", 32, 36),
	KNOWN(10, "Q2_K", 256, 84),
	KNOWN(11, "Q3_K", 256, 110),
	KNOWN(13, "Q5_K", 256, 176),
	KNOWN(15, "Q8_K", 256, 292),
	KNOWN(16, "IQ2_XXS", 256, 66),
	KNOWN(17, "IQ2_XS", 256, 74),
	KNOWN(18, "IQ3_XXS", 256, 98),
	KNOWN(19, "IQ1_S", 256, 50),
	KNOWN(20, "IQ4_NL", 32, 18),
	KNOWN(21, "IQ3_S", 256, 110),
	KNOWN(22, "IQ2_S", 256, 82),
	KNOWN(23, "IQ4_XS", 256, 136),
	KNOWN(29, "IQ1_M", 256, 56),
	KNOWN(34, "TQ1_0", 256, 54),
	KNOWN(35, "TQ2_0", 256, 66),
	KNOWN(39, "MXFP4", 32, 17),
	KNOWN(40, "NVFP4", 64, 36),

	KNOWN(DTYPE_I8, "I8", 1, 1),
	KNOWN(DTYPE_I16, "I16", 1, 2),
	KNOWN(DTYPE_I32, "I32", 1, 4),
	KNOWN(DTYPE_I64, "I64", 1, 8),
	KNOWN(DTYPE_F64, "F64", 1, 8),
	KNOWN(DTYPE_U8, "U8", 1, 1),
	KNOWN(DTYPE_BOOL, "BOOL", 1, 1),
	KNOWN(DTYPE_F8_E4M3, "F8_E4M3", 1, 1),
	KNOWN(DTYPE_F8_E5M2, "F8_E5M2", 1, 1),
	KNOWN(DTYPE_F8_E8M0, "F8_E8M0", 1, 1),
	KNOWN(DTYPE_F4, "F4", 2, 1),
	KNOWN(DTYPE_U16, "U16", 1, 2),
	KNOWN(DTYPE_U32, "U32", 1, 4),
	KNOWN(DTYPE_U64, "U64", 1, 8),
};

#define N_TYPES (sizeof(types) / sizeof(types[0]))

const struct dtype_info *dtype_info(int type)
{
	for (size_t i = 0; i < N_TYPES; i++)
		if ((int)types[i].type == type)
			return &types[i];
	return NULL;
}

const struct dtype_info *dtype_by_name(const char *name)
{
	for (size_t i = 0; i < N_TYPES; i++) {
		/* Block types of several bytes are ggml's: no safetensors dtype. */
		if (types[i].block > 2)
			continue;
		if (!strcmp(types[i].name, name))
			return &types[i];
	}
	return NULL;
}

size_t dtype_row_bytes(enum dtype type, int64_t n)
{
	const struct dtype_info *d = dtype_info(type);
	size_t bytes;

	if (!d || n < 0 || n % d->block)
		return 0;
	if (__builtin_mul_overflow((uint64_t)n / d->block, (uint64_t)d->bytes, &bytes))
		return 0;
	return bytes;
}
