// SPDX-License-Identifier: MIT
/* The CPU kernels for arm64 with dotprod, i8mm and bf16 (Armv8.6-A); see body.h. */
#include "kernels/cpu/vec_neon.h"

#define CPU_TABLE  cpu_kernels_neon
#define CPU_NAME   "neon"
#define CPU_DETAIL "NEON dotprod i8mm bf16"
#define MAX_M	   3
#define MAX_R	   2
#define ATTN_NV	   2

#include "kernels/cpu/body.h"
