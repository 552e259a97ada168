// SPDX-License-Identifier: MIT
/* The CPU kernels for x86-64 with AVX2, FMA and F16C; see body.h. */
#include "kernels/cpu/vec_avx2.h"

#define CPU_TABLE  cpu_kernels_avx2
#define CPU_NAME   "avx2"
#define CPU_DETAIL "AVX2"
#define MAX_M	   3
#define MAX_R	   2
#define ATTN_NV	   2

#include "kernels/cpu/body.h"
