// SPDX-License-Identifier: MIT
/* Which table of CPU kernels this machine runs. */
#include <string.h>

#ifdef __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "kernels/cpu/cpu.h"

/* Best first. */
static const struct cpu_kernels *const tables[] = {
#ifdef __x86_64__
	&cpu_kernels_avx512,
	&cpu_kernels_avx2,
#endif
#ifdef __aarch64__
	&cpu_kernels_neon,
#endif
	&cpu_kernels_generic,
};

const struct cpu_kernels *cpu_kernels_at(int i)
{
	return i >= 0 && i < (int)(sizeof(tables) / sizeof(tables[0])) ? tables[i] : NULL;
}

bool cpu_kernels_usable(const struct cpu_kernels *k)
{
#ifdef __x86_64__
	if (k == &cpu_kernels_avx512)
		return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
		       __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
	if (k == &cpu_kernels_avx2) /* every CPU with AVX2 has F16C */
		return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef __aarch64__
	if (k == &cpu_kernels_neon)
		return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) &&
		       (getauxval(AT_HWCAP2) & HWCAP2_I8MM) && (getauxval(AT_HWCAP2) & HWCAP2_BF16);
#endif
	return true;
}

const struct cpu_kernels *cpu_kernels_select(const char *name)
{
	for (int i = 0; cpu_kernels_at(i); i++)
		if ((!name || !strcmp(name, tables[i]->name)) && cpu_kernels_usable(tables[i]))
			return tables[i];
	return NULL;
}
