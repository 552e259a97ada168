/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What regions need of shmem and of mappings, under one name on every kernel. Kbuild looks
 * for what there is.
 */
#ifndef LLM_COMPAT_REGION_H
#define LLM_COMPAT_REGION_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/shmem_fs.h>
#if __has_include(<linux/folio_batch.h>)
#include <linux/folio_batch.h>
#else
#include <linux/pagevec.h>
#endif

/* Before a mapping is in its tree: nobody else sees the flags. */
#ifdef LLM_HAS_VM_FLAGS_CLEAR
#define llm_vm_flags_set   vm_flags_set
#define llm_vm_flags_clear vm_flags_clear
#else
static inline void llm_vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void llm_vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* What the file's own mmap would do. */
#ifdef LLM_HAS_VFS_MMAP
#define llm_mmap_file vfs_mmap
#else
#define llm_mmap_file call_mmap
#endif

/* An unlinked file of this tmpfs mount; all its bytes count as committed memory from now on. */
static inline struct file *llm_shmem_file(struct vfsmount *mnt, const char *name, loff_t bytes)
{
#ifdef LLM_HAS_VMA_FLAGS_T
	return shmem_file_setup_with_mnt(mnt, name, bytes, EMPTY_VMA_FLAGS);
#else
	return shmem_file_setup_with_mnt(mnt, name, bytes, 0);
#endif
}

#endif
