/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between kernels in page reclaim and in walking a filesystem's inodes. LLM_HAS_*: found
 * in the kernel's headers by Kbuild.
 */
#ifndef LLM_COMPAT_RECLAIM_H
#define LLM_COMPAT_RECLAIM_H

#include <linux/fs.h>
#include <linux/sched.h>
#include <linux/shrinker.h>
#include <linux/swap.h>

/* ---- a shrinker: registered with its caller's structure, or allocated by the kernel -------------------- */

#ifdef LLM_HAS_SHRINKER_ALLOC
#define LLM_SHRINKER(name) static struct shrinker *name
#define llm_shrinker_init(s, count, scan, block, what)                                             \
	({                                                                                         \
		(s) = shrinker_alloc(SHRINKER_NUMA_AWARE, what);                                   \
		if (s) {                                                                           \
			(s)->count_objects = (count);                                              \
			(s)->scan_objects = (scan);                                                \
			(s)->batch = (block);                                                      \
			(s)->seeks = DEFAULT_SEEKS;                                                \
			shrinker_register(s);                                                      \
		}                                                                                  \
		(s) ? 0 : -ENOMEM;                                                                 \
	})
#define llm_shrinker_exit(s) shrinker_free(s)
#else
#define LLM_SHRINKER(name) static struct shrinker name
#define llm_shrinker_init(s, count, scan, block, what)                                             \
	({                                                                                         \
		(s).count_objects = (count);                                                       \
		(s).scan_objects = (scan);                                                         \
		(s).batch = (block);                                                               \
		(s).seeks = DEFAULT_SEEKS;                                                         \
		(s).flags = SHRINKER_NUMA_AWARE;                                                   \
		register_shrinker(&(s), what);                                                     \
	})
#define llm_shrinker_exit(s) unregister_shrinker(&(s))
#endif

/* The allocation that reclaims must learn that pages came from elsewhere than the LRU lists. */
static inline void llm_reclaimed_pages(unsigned long pages)
{
#ifdef LLM_HAS_ACCOUNT_RECLAIMED
	mm_account_reclaimed_pages(pages);
#else
	if (current->reclaim_state)
		current->reclaim_state->reclaimed_slab += pages;
#endif
}

/* ---- inodes -------------------------------------------------------------------------------------------- */

/* Still being read in; inode->i_lock is held. */
static inline bool llm_inode_is_new(struct inode *inode)
{
#ifdef LLM_HAS_INODE_STATE_READ
	return inode_state_read(inode) & I_NEW;
#else
	return inode->i_state & I_NEW;
#endif
}

#endif
