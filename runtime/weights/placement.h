/* SPDX-License-Identifier: MIT */
/*
 * Where big memory comes from: weights, KV cache, workspaces.
 *
 * Anonymous mappings, 2 MiB aligned, MADV_HUGEPAGE, bound to a NUMA node by libnuma where there are
 * several; weights also in regions that outlive the process (region_load.h). GPU memory joins behind
 * this interface.
 */
#ifndef LLMDEV_PLACEMENT_H
#define LLMDEV_PLACEMENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/region.h"

struct placement {
	void *base;             /* zeroed; 2 MiB aligned, in a region 4 KiB */
	size_t bytes;           /* usable, as asked */
	size_t mapped;          /* private to placement.c */
	bool in_region;         /* base lies in `region`, which `store` keeps */
	struct region region;
	struct region_store store;
};

/* node < 0: local allocation. Refuses (-ENOMEM, with the sum) what cannot fit in MemAvailable. */
int placement_alloc(struct placement *p, size_t bytes, int node, struct err *e);
void placement_free(struct placement *p);

/* MemAvailable in bytes, 0 if the kernel does not say. */
uint64_t placement_available(void);

#endif
