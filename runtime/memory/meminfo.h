/* SPDX-License-Identifier: MIT */
/*
 * Where every byte of MemTotal is, as far as the kernel counts it. What no counter holds is the
 * remainder: memory that drivers allocate by pages, above all GPU drivers on machines whose GPU
 * uses the CPU's memory.
 *
 * The parts are disjoint and add up to MemTotal exactly. The kernel's counters overlap and are not
 * read at one instant; what is done about it stands at each part. Sources: /proc/meminfo,
 * /proc/vmstat, /proc/zoneinfo, /proc/buddyinfo (proc(5), Documentation/filesystems/proc.rst) and,
 * where the module llm is loaded, its regions and its reserve.
 */
#ifndef LLMDEV_MEMORY_MEMINFO_H
#define LLMDEV_MEMORY_MEMINFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define MEM_BLOCK ((uint64_t)2 << 20) /* what GPU drivers want in one piece */

enum mem_part {
	MEM_FREE,		/* MemFree */
	MEM_FREE_CPU,		/* free, in the lists of single CPUs: not in MemFree */
	MEM_CACHE_CLEAN,	/* page cache, files and devices, neither dirty nor mapped */
	MEM_CACHE_MAPPED,	/* ... mapped; an estimate where shmem is mapped, too */
	MEM_CACHE_DIRTY,	/* ... to be written or being written, not mapped */
	MEM_ANON,		/* mapped memory of processes that is no file's */
	MEM_SWAP_CACHE,		/* anonymous memory on its way from or to swap; an estimate */
	MEM_SHMEM,		/* tmpfs, memfd, System V: without the regions */
	MEM_REGIONS,		/* regions of the module llm */
	MEM_RESERVE,		/* its elastic reserve */
	MEM_HUGETLB,		/* pages set aside for hugetlbfs, used or not */
	MEM_SLAB_RECLAIMABLE,
	MEM_SLAB,		/* unreclaimable */
	MEM_DRIVER_RECLAIMABLE, /* KReclaimable beyond slab and reserve: pools of drivers */
	MEM_PAGE_TABLES,
	MEM_KERNEL_STACKS,
	MEM_PERCPU,
	MEM_VMALLOC, /* without kernel stacks, which are in it, too */
	MEM_COMPRESSED, /* zswap and zram */
	MEM_BALLOON,
	MEM_GPU, /* what GPU drivers count: GPUActive, GPUReclaim (kernels that have these) */
	MEM_REMAINDER,
	N_MEM_PARTS,
};

struct mem_part_text {
	const char *key;  /* in JSON: "cache_clean" */
	const char *name; /* for people: "clean page cache" */
	const char *what; /* half a sentence more */
};
extern const struct mem_part_text mem_part_text[N_MEM_PARTS];

/* Bytes, all of them. */
struct mem_info {
	uint64_t total, available;
	uint64_t part[N_MEM_PARTS];
	uint64_t overlap;     /* by how much the counters went over MemTotal: taken off again */
	uint64_t free_blocks; /* whole aligned pieces of 2 MiB in the buddy lists; a count */
	bool blocks_known;
	uint64_t cached;	  /* page cache of files and block devices, without shmem */
	uint64_t dirty;		  /* of it, mapped or not */
	uint64_t swap_total, swap_free;
};

/* What the module holds; all 0 without it. */
struct mem_held {
	bool module;	      /* it could be asked */
	uint64_t regions;     /* resident bytes */
	uint64_t reserve;     /* bytes */
	uint64_t free_blocks; /* its own count */
};

/*
 * `root`: "" or a folder below which proc/ is looked for (tests); `page`: bytes of a page. -ENOENT,
 * or -EINVAL where /proc/meminfo lacks what every Linux has, or says nonsense.
 */
int mem_info_read(struct mem_info *m, const char *root, size_t page, const struct mem_held *held,
		  struct err *e);

/* The numbers that decisions are made by, cheaply: MemTotal, MemFree, MemAvailable, free blocks. */
struct mem_now {
	uint64_t total, free, available;
	uint64_t blocks; /* free pieces of 2 MiB; 0 where /proc/buddyinfo is not readable */
	uint64_t cached, dirty, shmem, mapped, swap_total, swap_free;
};
int mem_now_read(struct mem_now *n, const char *root, size_t page, struct err *e);

/* "9.02 GiB"; returns buf. */
#define MEM_SIZE_TEXT 16
const char *mem_size(char buf[MEM_SIZE_TEXT], uint64_t bytes);

#endif
