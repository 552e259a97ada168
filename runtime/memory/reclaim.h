/* SPDX-License-Identifier: MIT */
/*
 * Making room: from the least harmful step up until MemFree and the free blocks of 2 MiB are what
 * was asked for. Mechanism only: which steps are allowed, and when, the caller decides
 * (llmdev-policyd by its configuration, llmctl by its options).
 *
 * Nothing here drops pages that a process maps, except that the kernel, when it reclaims by itself
 * (ROOM_RECLAIM, ROOM_MODULE), chooses by its own lists, and may choose mapped pages that nobody
 * has touched for long. Both are therefore asked for no more than there is clean, unmapped page
 * cache.
 */
#ifndef LLMDEV_MEMORY_RECLAIM_H
#define LLMDEV_MEMORY_RECLAIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "memory/meminfo.h"

struct llm_region_info;

enum room_step {
	ROOM_FILES,	  /* registered files: oldest access first, from their ends */
	ROOM_FILESYSTEMS, /* clean cache of named filesystems: the module, or each file */
	ROOM_RECLAIM,	  /* cgroups, then the nodes or the root cgroup: memory.reclaim */
	ROOM_MODULE,	  /* LLM_IOC_MEM_MAKE_ROOM: the reserve, then blocks taken and given back */
	ROOM_COMPACT,	  /* /proc/sys/vm/compact_memory, where blocks are missing */
	ROOM_DROP_CACHES, /* /proc/sys/vm/drop_caches */
	N_ROOM_STEPS,
};
extern const char *const room_step_name[N_ROOM_STEPS];
#define ROOM_BIT(step) (1u << (step))
#define ROOM_ALL       (ROOM_BIT(N_ROOM_STEPS) - 1)

/* Borrowed by the calls below. */
struct room_means {
	const char *root; /* "": this machine; a folder with proc/ and sys/ (tests) */
	size_t page;
	unsigned int allowed; /* ROOM_BIT()s */
	char **files; /* files, folders, patterns of glob(7) */
	size_t n_files;
	char **filesystems; /* any path on each */
	size_t n_filesystems;
	char **cgroups; /* below /sys/fs/cgroup: their own cache goes first */
	size_t n_cgroups;
	int control;	     /* control file of the module; -1: none */
	uint64_t deadline_ns; /* CLOCK_MONOTONIC: no step begins after it; 0: none */
};

struct room_goal {
	uint64_t free;	 /* bytes of MemFree */
	uint64_t blocks; /* free blocks of 2 MiB */
};

/* What one step did. */
struct room_done {
	enum room_step step;
	uint64_t asked, freed; /* bytes of MemFree; freed may be less than 0 was: then 0 */
	uint64_t free_before, free_after, blocks_before, blocks_after;
	uint64_t ns;
	int error;	/* 0, or -errno of the first thing that failed */
	char note[256]; /* what was done, or why not; for people */
};
typedef void (*room_told)(void *ctx, const struct room_done *done);

bool room_reached(const struct room_goal *goal, const struct mem_now *now);
/* By how many bytes of free memory the goal is missed. */
uint64_t room_missing(const struct room_goal *goal, const struct mem_now *now);

/*
 * Steps in order until the goal is reached; `told` (may be NULL) after each. *now is what there is
 * afterwards. Not reaching the goal is no error; an error means that memory cannot be read.
 */
int room_make(const struct room_means *means, const struct room_goal *goal, room_told told,
	      void *ctx, struct mem_now *now, struct err *e);

/*
 * Room that was made for somebody who has not taken all of it yet. What the machine holds beyond
 * free memory and page cache (anonymous, shared, drivers' pages) grows as he takes it.
 */
struct room_hold {
	uint64_t bytes;
	uint64_t used; /* room_used() when the room was made */
};
uint64_t room_used(const struct mem_now *now);
/*
 * What of it still has to be free. The kernel's own growth (slab, page tables) is not taken for
 * his: the first eighth that is taken, 256 MiB at most, does not count.
 */
uint64_t room_hold_left(const struct room_hold *h, const struct mem_now *now);
/* How much more than `bytes` is made free, so that it is still there a moment later. */
uint64_t room_margin(uint64_t bytes);

/*
 * The module's control file. -ENOENT: not loaded; -EACCES: the message names the group; -ENOTTY: a
 * module without reclaim.
 */
int room_control(struct err *e);
/* Why there is no such node, and what to do: no module, or one whose node udev or a container lacks. */
const char *room_no_node(void);
/* What the module holds; `control` < 0: nothing. */
void room_held(int control, struct mem_held *held);
/* Its regions (llm.h), malloc'ed; none where they cannot be listed. */
size_t room_regions(int control, struct llm_region_info **out);
/* LLM_IOC_MEM_RESERVE: hold `bytes` (rounded up to blocks); *held: what is held now. */
int room_reserve(int control, uint64_t bytes, uint64_t *held, struct err *e);

#endif
