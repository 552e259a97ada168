/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory that is free: pressure events and floors (reclaim.c), the blocks that are held (reserve.c),
 * page cache (cache.c). The contract is in llm.h, "memory that is free".
 */
#ifndef LLM_RECLAIM_H
#define LLM_RECLAIM_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vmstat.h>

#include "llm.h"

/* A block is what GPU drivers want: 2 MiB, whatever the page size. */
#define LLM_BLOCK_ORDER get_order(SZ_2M)
#define LLM_BLOCK_PAGES (1UL << LLM_BLOCK_ORDER)
#define LLM_BLOCK_BYTES ((u64)LLM_BLOCK_PAGES << PAGE_SHIFT)

/* What a tracepoint says was done. */
enum llm_reclaim_action {
	LLM_RECLAIM_TAKE, /* the reserve took blocks */
	LLM_RECLAIM_SHRINKER, /* the reserve gave back: reclaim for others */
	LLM_RECLAIM_OOM, /* ... the kernel was about to kill */
	LLM_RECLAIM_ASKED, /* ... somebody asked */
	LLM_RECLAIM_ROOM, /* MEM_MAKE_ROOM */
	LLM_RECLAIM_FILE, /* CACHE_DROP of a file */
	LLM_RECLAIM_FS, /* CACHE_DROP of a filesystem */
	LLM_RECLAIM_ACTIONS
};

/* ---- reclaim.c: the control file, floors, events ------------------------------------------------------- */

/**
 * llm_control_open() - open() of the control file
 * @inode: of its node
 * @file: the new file
 */
int llm_control_open(struct inode *inode, struct file *file);

/**
 * llm_control_release() - its last close: its floors go
 * @inode: of its node
 * @file: the file
 */
int llm_control_release(struct inode *inode, struct file *file);

/**
 * llm_control_poll() - POLLPRI: events that it was not told
 * @file: the file
 * @wait: of the caller
 */
__poll_t llm_control_poll(struct file *file, struct poll_table_struct *wait);

/**
 * llm_control_admin() - may its opener do what CAP_SYS_ADMIN may
 * @file: an open control file
 */
bool llm_control_admin(const struct file *file);

/**
 * llm_reclaim_ioctl() - the commands of this part; -ENOTTY: not one of them
 * @file: the control file
 * @cmd: LLM_IOC_MEM_*, LLM_IOC_CACHE_DROP
 * @arg: address of its structure
 *
 * Takes no lock of the caller's; what it sleeps in can be killed.
 */
long llm_reclaim_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/**
 * llm_reclaim_init() - before the control file exists; 0 or -errno
 */
int llm_reclaim_init(void);

/**
 * llm_reclaim_exit() - after it is gone: all memory goes back
 */
void llm_reclaim_exit(void);

/**
 * llm_pressure_event() - raise one: who polls wakes up; does not sleep
 * @what: LLM_PRESSURE_*
 */
void llm_pressure_event(u32 what);

/* ---- what there is -------------------------------------------------------------------------------------- */

/* MemFree in bytes. */
static inline u64 llm_mem_free(void)
{
	return (u64)global_zone_page_state(NR_FREE_PAGES) << PAGE_SHIFT;
}

/**
 * llm_free_blocks() - 2 MiB blocks that could be allocated as such
 * @nid: of this node; NUMA_NO_NODE: of all
 *
 * Without those of CMA areas and movable zones, which drivers' allocations cannot have.
 */
u64 llm_free_blocks(int nid);

/* ---- reserve.c ------------------------------------------------------------------------------------------ */

/**
 * struct llm_reserve_status - what the reserve has and gave
 * @target: bytes that were last asked for
 * @held: bytes
 * @shrinker: bytes given back since loading, because reclaim asked
 * @oom: ... the kernel was about to kill
 * @asked: ... somebody asked
 * @releases: how often, in all
 */
struct llm_reserve_status {
	u64 target, held, shrinker, oom, asked, releases;
};

/**
 * llm_reserve_read() - a consistent copy
 * @s: filled
 */
void llm_reserve_read(struct llm_reserve_status *s);

/**
 * llm_reserve_set() - hold so much: LLM_IOC_MEM_RESERVE without its checks
 * @bytes: a multiple of a block
 * @held: out: what is held
 *
 * -EINTR: killed; what was taken stays.
 */
long llm_reserve_set(u64 bytes, u64 *held);

/**
 * llm_reserve_give_back() - somebody is about to allocate and comes before the reserve
 * @bytes: so much
 *
 * Gives back what free blocks are too few for that. Returns the bytes. Sleeps.
 */
u64 llm_reserve_give_back(u64 bytes);

/**
 * llm_room_make() - have the kernel reclaim and compact, by allocating blocks and freeing them
 * @r: targets and limits, checked; what was reached is filled in
 *
 * -EINTR: killed.
 */
long llm_room_make(struct llm_mem_make_room *r);

/**
 * llm_reserve_init() - the shrinker and the OOM notifier; 0 or -errno
 */
int llm_reserve_init(void);

/**
 * llm_reserve_exit() - take them away and give everything back
 */
void llm_reserve_exit(void);

/* ---- cache.c -------------------------------------------------------------------------------------------- */

/**
 * llm_cache_drop() - LLM_IOC_CACHE_DROP, the right to do so already checked
 * @d: what; what became of it is filled in
 */
long llm_cache_drop(struct llm_cache_drop *d);

#endif
