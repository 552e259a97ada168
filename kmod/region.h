/* SPDX-License-Identifier: GPL-2.0 */
/*
 * llm: regions, memory that the kernel keeps; see region.c. The rest of the module needs only this.
 */
#ifndef LLM_REGION_H
#define LLM_REGION_H

#include <linux/atomic.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/uidgid.h>

#include "llm.h"

/**
 * struct llm_region - named memory
 * @ref: its files; the list, while @kept; CREATE, while at work
 * @all: in the list of regions, from CREATE until its memory goes; under llm_regions_lock
 * @id: as in struct llm_region_info; immutable, as all up to @name
 * @bytes: its size
 * @flags: LLM_REGION_PERSISTENT, LLM_REGION_HUGE
 * @node: NUMA node that it is on; -1: any
 * @created_ns: CLOCK_MONOTONIC
 * @uid: of the creator
 * @pid: of the creator
 * @user: whose RLIMIT_MEMLOCK it counts against
 * @name: NUL-terminated
 * @inner: the shmem file that holds the memory; nobody outside has it. NULL until CREATE has made
 *	it.
 * @seal_lock: one SEAL at a time; killable
 * @sealed: only ever becomes true, under @seal_lock, while no writable mapping can be made
 * @allocating: CREATE is at work; under llm_regions_lock
 * @unlinked: its name is free again; under llm_regions_lock
 * @kept: persistent and sealed; DESTROY drops the list's reference. Under llm_regions_lock
 * @resident: bytes allocated so far; written by CREATE only
 * @huge_bytes: of them in 2 MiB pages
 * @files: region files that exist, those that only a mapping holds included
 */
struct llm_region {
	struct kref ref;
	struct list_head all;
	u64 id, bytes;
	u32 flags;
	int node;
	u64 created_ns;
	kuid_t uid;
	struct pid *pid;
	struct user_struct *user;
	u8 name[LLM_REGION_NAME_MAX];
	struct file *inner;
	struct mutex seal_lock;
	bool sealed, allocating, unlinked, kept;
	u64 resident, huge_bytes;
	atomic_t files;
};

/**
 * llm_region_ioctl() - the region commands of a control file; -ENOTTY: it is none of them
 * @file: the control file
 * @cmd: LLM_IOC_*
 * @arg: address of its structure
 *
 * Takes no lock that another command needs for long: CREATE may work for minutes.
 */
long llm_region_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/**
 * llm_region_init() - before the control device appears; 0 or -errno
 */
int llm_region_init(void);

/**
 * llm_region_exit() - give all memory back: no region file and no mapping is left
 */
void llm_region_exit(void);

#endif
