// SPDX-License-Identifier: MIT
/*
 * Regions on a machine with two nodes and a zone of movable memory (tests/vm/check-numa): on the node
 * that was asked for, on no other, and not where memory has to be movable.
 */
#include "tests/vm/region.h"

#define BYTES (32 * MIB)
#define PAGE  4096u

/* Those of <numaif.h>. */
#define MPOL_DEFAULT	 0
#define MPOL_BIND	 2
#define MPOL_F_NODE_ADDR 3
#define MPOL_MF_MOVE	 2

static int create_on(int node, uint64_t bytes, uint32_t flags)
{
	struct llm_region_create c = region_creation("numa", bytes, flags);

	c.node = node;
	return region_command(&c);
}

static void prefer(int node)
{
	unsigned long mask = 1ul << node;

	syscall(SYS_set_mempolicy, node < 0 ? MPOL_DEFAULT : MPOL_BIND, node < 0 ? NULL : &mask,
		sizeof(mask) * 8);
}

/* Pages that are not on the node. */
static unsigned int elsewhere(unsigned char *p, uint64_t bytes, int node)
{
	unsigned int n = 0;
	int at;

	for (uint64_t i = 0; i < bytes; i += PAGE) {
		(void)*(volatile unsigned char *)(p + i);
		n += syscall(SYS_get_mempolicy, &at, NULL, 0, p + i, MPOL_F_NODE_ADDR) ||
		     at != node;
	}
	return n;
}

/* Page frames of the movable zones: [first, end) of each node; false: there are none. */
static bool movable_zones(uint64_t zone[2][2])
{
	char line[256];
	FILE *f = fopen("/proc/zoneinfo", "re");
	int node = -1, found = 0;
	uint64_t spanned = 0;

	memset(zone, 0, sizeof(uint64_t[2][2]));
	while (f && fgets(line, sizeof(line), f)) {
		char name[16];
		int n;
		uint64_t v;

		if (sscanf(line, "Node %d, zone %15s", &n, name) == 2)
			node = strcmp(name, "Movable") || n > 1 ? -1 : n;
		else if (node >= 0 && sscanf(line, " spanned %llu", (unsigned long long *)&v) == 1)
			spanned = v;
		else if (node >= 0 &&
			 sscanf(line, " start_pfn: %llu", (unsigned long long *)&v) == 1 &&
			 spanned) {
			zone[node][0] = v;
			zone[node][1] = v + spanned;
			found++;
		}
	}
	if (f)
		fclose(f);
	return found > 0;
}

static unsigned int movable(unsigned char *p, uint64_t bytes, uint64_t zone[2][2])
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	unsigned int n = 0;

	for (uint64_t i = 0; i < bytes; i += PAGE) {
		uint64_t entry = 0, frame;

		(void)*(volatile unsigned char *)(p + i);
		if (pread(fd, &entry, 8, (off_t)(((uintptr_t)p + i) / PAGE * 8)) != 8)
			n++;
		frame = entry & (((uint64_t)1 << 55) - 1);
		n += !frame;
		for (int k = 0; k < 2; k++)
			n += frame >= zone[k][0] && frame < zone[k][1];
	}
	close(fd);
	return n;
}

int main(void)
{
	int64_t before = free_memory();
	uint64_t zone[2][2];
	unsigned char *p;
	int fd;

	check(!access("/sys/devices/system/node/node1", F_OK), "a machine with two nodes");
	for (int node = 0; node < 2; node++)
		for (int own = -1; own < 2; own++) {
			prefer(own);
			fd = works(create_on(node, BYTES, LLM_REGION_HUGE),
				   "node %d, the caller's policy is %d", node, own);
			p = region_map(fd, BYTES, PROT_READ | PROT_WRITE);
			check(!elsewhere(p, BYTES, node), "all of it is there");
			check(region_info(fd).node == node && region_info(fd).huge_bytes == BYTES,
			      "in huge pages; INFO tells the node");
			munmap(p, BYTES);
			close(fd);
		}
	for (int own = 0; own < 2; own++) {
		prefer(own);
		fd = works(create_on(-1, BYTES, 0), "any node, the caller's policy is %d", own);
		p = region_map(fd, BYTES, PROT_READ);
		check(!elsewhere(p, BYTES, own), "all of it is where that says");
		munmap(p, BYTES);
		close(fd);
	}
	prefer(-1);
	refused(create_on(2, BYTES, 0), EINVAL, "a node that is not there: EINVAL");
	refused(create_on(1, (uint64_t)meminfo("MemTotal:") * 7 / 10 / HUGE * HUGE, 0), ENOMEM,
		"more than the node has: ENOMEM");
	check(memory_is_back(before), "all memory is back");

	check(movable_zones(zone), "zones of movable memory");
	fd = works(create_on(-1, BYTES, 0), "a region");
	p = region_map(fd, BYTES, PROT_READ | PROT_WRITE);
	memset(p, 1, BYTES);
	check(!movable(p, BYTES, zone), "is in none of them");
	munmap(p, BYTES);
	close(fd);
	p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(p, 1, BYTES);
	check(movable(p, BYTES, zone), "anonymous memory is");
	munmap(p, BYTES);
	check(memory_is_back(before), "all memory is back");
	return done();
}
