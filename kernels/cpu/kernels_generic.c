// SPDX-License-Identifier: MIT
/* The CPU kernels for any machine, in plain C; see body.h. */
#include "kernels/cpu/vec_generic.h"

#define CPU_TABLE  cpu_kernels_generic
#define CPU_NAME   "generic"
#define CPU_DETAIL "plain C"
#define MAX_M	   4
#define MAX_R	   2
#define ATTN_NV	   2

#include "kernels/cpu/body.h"
