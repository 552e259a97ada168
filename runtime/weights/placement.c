// SPDX-License-Identifier: MIT
/* Anonymous memory for weights, KV and workspaces; see placement.h. No state of its own. */
#include "weights/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <numa.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/map.h"

uint64_t placement_available(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	fclose(f);
	return (uint64_t)kib << 10;
}

static double gib(uint64_t bytes)
{
	return (double)bytes / (1 << 30);
}

static int bind_to_node(void *base, size_t bytes, int node, struct err *e)
{
	if (numa_available() < 0 || node > numa_max_node()) {
		/* A machine without NUMA has one node, 0. */
		if (node == 0)
			return 0;
		return err_set(e, -EINVAL, "memory: node %d: this machine has no such node", node);
	}
	/* Preferred, not strict: a full node slows a model down, it does not kill the process. */
	if (numa_max_node() > 0)
		numa_tonode_memory(base, bytes, node);
	return 0;
}

int placement_alloc(struct placement *p, size_t bytes, int node, struct err *e)
{
	size_t mapped;
	uint64_t available = placement_available();
	int rc;

	*p = (struct placement){0};
	if (!bytes || bytes > SIZE_MAX / 2)
		return err_set(e, -EINVAL, "memory: a size of %zu bytes is impossible", bytes);
	if (available && bytes > available)
		return err_set(e, -ENOMEM,
			       "memory: %.2f GiB needed, %.2f GiB available (MemAvailable), %.2f "
			       "GiB missing: "
			       "stop other programs, use a smaller context or a smaller model",
			       gib(bytes), gib(available), gib(bytes - available));
	/* Huge pages at the end too, unless the whole is smaller than one. */
	mapped = map_size(bytes);
	p->base = map_aligned(mapped, PROT_READ | PROT_WRITE, 0);
	if (!p->base)
		return err_set(e, -ENOMEM,
			       "memory: %.2f GiB cannot be mapped: %s: raise ulimit -v or "
			       "vm.overcommit limits",
			       gib(bytes), strerror(errno));
	p->bytes = bytes;
	p->mapped = mapped;
	if (node >= 0) {
		rc = bind_to_node(p->base, mapped, node, e);
		if (rc) {
			placement_free(p);
			return rc;
		}
	}
	/* Advice only: without huge pages, or in a core dump of everything, it still works. */
	if (mapped >= HUGE_PAGE)
		madvise(p->base, mapped, MADV_HUGEPAGE);
	madvise(p->base, mapped, MADV_DONTDUMP);
	return 0;
}

void placement_free(struct placement *p)
{
	if (p->in_region) {
		region_close(&p->store, &p->region);
		region_store_close(&p->store);
	} else if (p->base) {
		munmap(p->base, p->mapped);
	}
	*p = (struct placement){0};
}
