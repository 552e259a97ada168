// SPDX-License-Identifier: MIT
/* Aligned mappings; see map.h. */
#include "base/map.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

size_t map_size(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), unit;

	unit = bytes < HUGE_PAGE && page < HUGE_PAGE ? page : HUGE_PAGE;
	return (bytes + unit - 1) / unit * unit;
}

void *map_aligned(size_t bytes, int prot, int flags)
{
	size_t len = bytes + HUGE_PAGE, lead;
	char *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* What is before and behind is given back. */
	lead = -(uintptr_t)p & (HUGE_PAGE - 1);
	if (lead)
		munmap(p, lead);
	munmap(p + lead + bytes, len - lead - bytes);
	return p + lead;
}
