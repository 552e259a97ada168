// SPDX-License-Identifier: MIT
/* The CPU kernels for x86-64 with AVX-512 (F, BW, VL, DQ), VNNI and BF16; see body.h. */
#include "kernels/cpu/vec_avx512.h"

#define CPU_TABLE  cpu_kernels_avx512
#define CPU_NAME   "avx512"
#define CPU_DETAIL "AVX-512 VNNI BF16"
#define MAX_M	   12
#define MAX_R	   6
#define ATTN_NV	   4

#include "kernels/cpu/body.h"
