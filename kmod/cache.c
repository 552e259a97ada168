// SPDX-License-Identifier: GPL-2.0
/*
 * Dropping the page cache of a file or of a filesystem.
 *
 * The caller's open file keeps its filesystem mounted meanwhile. Its inodes are walked as the kernel's
 * own drop_caches does: s_inode_list_lock keeps the list together, each inode is held (igrab) before
 * the lock is let go, and let go (iput, which may sleep) only when the next one is held, so that the
 * place in the list is never lost. Pages go in pieces of a bounded size: between two of them a fatal
 * signal or the deadline ends it.
 */
#include "core.h"
#include "reclaim.h"
#include "trace.h"
#include "compat/reclaim.h"

#include <linux/backing-dev.h>
#include <linux/fadvise.h>
#include <linux/file.h>
#include <linux/log2.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/xarray.h>

/*
 * A large folio goes only as a whole, so pieces end at multiples of their size, a power of two, and none
 * is smaller than a block.
 */
#define PIECE_BYTES SZ_128M

static pgoff_t piece_pages(const struct llm_cache_drop *d)
{
	u64 n = PIECE_BYTES;

	if (d->max_bytes && d->max_bytes - d->bytes < n)
		n = max_t(u64, rounddown_pow_of_two(d->max_bytes - d->bytes), LLM_BLOCK_BYTES);
	return n >> PAGE_SHIFT;
}

/* 0: go on; 1: enough; -EINTR. */
static long enough(const struct llm_cache_drop *d)
{
	if (fatal_signal_pending(current))
		return -EINTR;
	return (d->max_bytes && d->bytes >= d->max_bytes) ||
	       (d->deadline_ns && ktime_get_ns() >= d->deadline_ns);
}

/* Of @file, where there is one: its writeback is begun, pages on their way to the LRU lists are waited for. */
static long drop_mapping(struct llm_cache_drop *d, struct address_space *mapping, struct file *file)
{
	unsigned long index = 0;
	long rc = 0;

	while (!rc && xa_find(&mapping->i_pages, &index, ULONG_MAX, XA_PRESENT)) {
		unsigned long before = READ_ONCE(mapping->nrpages), after;
		pgoff_t last = index | (piece_pages(d) - 1);

		if (file)
			vfs_fadvise(file, (loff_t)index << PAGE_SHIFT,
				    (loff_t)(last - index + 1) << PAGE_SHIFT, POSIX_FADV_DONTNEED);
		else
			invalidate_mapping_pages(mapping, index, last);
		after = READ_ONCE(mapping->nrpages);
		if (before > after)
			d->bytes += (u64)(before - after) << PAGE_SHIFT;
		cond_resched();
		rc = enough(d);
		index = last + 1;
		if (!index)
			break;
	}
	return rc;
}

static long drop_fs(struct llm_cache_drop *d, struct super_block *sb)
{
	struct inode *inode, *last = NULL;
	long rc = 0;

	spin_lock(&sb->s_inode_list_lock);
	list_for_each_entry(inode, &sb->s_inodes, i_sb_list)
	{
		bool skip;

		spin_lock(&inode->i_lock);
		/* Those without pages are only of use to rest at. */
		skip = llm_inode_is_new(inode) || (!inode->i_data.nrpages && !need_resched());
		spin_unlock(&inode->i_lock);
		if (skip || !igrab(inode)) /* NULL: it is being freed */
			continue;
		spin_unlock(&sb->s_inode_list_lock);
		iput(last);
		last = inode;
		d->inodes++;
		rc = drop_mapping(d, &inode->i_data, NULL);
		if (!rc)
			rc = enough(d);
		if (rc)
			goto out;
		cond_resched();
		spin_lock(&sb->s_inode_list_lock);
	}
	spin_unlock(&sb->s_inode_list_lock);
out:
	iput(last);
	return rc;
}

/*
 * The inode that has the cache of an open file. An overlay's own has none: the one of the layer that
 * holds the data has, and lives as long as the overlay's. A regular file only: other objects of an
 * overlay have data of their own.
 */
static struct inode *cached_inode(const struct file *file)
{
	struct inode *inode = file_inode(file);

	return S_ISREG(inode->i_mode) ? d_real_inode(file->f_path.dentry) : inode;
}

/* In memory only, or no file at all: nothing that could be read again. */
static bool has_cache(const struct inode *inode)
{
	return S_ISBLK(inode->i_mode) || inode->i_sb->s_bdi != &noop_backing_dev_info;
}

long llm_cache_drop(struct llm_cache_drop *d)
{
	bool one = d->flags & LLM_DROP_FILE;
	u64 start = ktime_get_ns();
	struct file *file = d->fd >= 0 ? fget(d->fd) : NULL;
	struct inode *inode, *cached;
	long rc;

	if (!file)
		return -EBADF;
	rc = -EBADF;
	if (!(file->f_mode & FMODE_READ))
		goto out;
	inode = file_inode(file);
	rc = -EOPNOTSUPP;
	if (one ? !S_ISREG(inode->i_mode) && !S_ISBLK(inode->i_mode) : S_ISBLK(inode->i_mode))
		goto out;
	/* All of an overlay would be all of the filesystems below it: more than was asked for. */
	cached = one ? cached_inode(file) : inode;
	if (!has_cache(cached))
		goto out;
	d->inodes = one;
	d->bytes = 0;
	d->free_before = llm_mem_free();
	rc = enough(d);
	if (!rc)
		rc = one ? drop_mapping(d, cached == inode ? file->f_mapping : cached->i_mapping,
					file)
			 : drop_fs(d, inode->i_sb);
	d->free_after = llm_mem_free();
	trace_llm_reclaim(one ? LLM_RECLAIM_FILE : LLM_RECLAIM_FS, d->max_bytes, d->bytes,
			  d->free_before, d->free_after, ktime_get_ns() - start);
	if (rc > 0)
		rc = 0;
out:
	fput(file);
	return rc;
}
