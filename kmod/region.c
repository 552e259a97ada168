// SPDX-License-Identifier: GPL-2.0
/*
 * Regions: named memory that belongs to the kernel and outlives processes.
 *
 * The memory is an unlinked shmem file on a tmpfs mount of our own (huge=within_size; one mount for
 * each node that was asked for, with mpol=bind:N), because only shmem's pages work with O_DIRECT,
 * io_uring's fixed buffers, long-term pins and 2 MiB mappings on every kernel. The mapping is
 * unevictable and not movable, all pages are allocated by CREATE and dirtied, so that nothing drops
 * them. That shmem file (struct llm_region, @inner) is never given to anybody: a region file is
 * another file of the same inode, with the operations below, which can map it and no more. Its inode
 * opens nothing (/proc/PID/fd, map_files), its size is sealed. Mappings hold the region file, hence
 * the region and this module.
 *
 * Locks. llm_regions_lock, a spinlock, guards the list, names and the last reference; llm_mounts_lock
 * the mounts, r->seal_lock one SEAL; both mutexes are taken killably. None is held while memory is
 * allocated for a region or user memory touched.
 *
 * Lifetimes. Each region file holds a reference (and a mapping holds its region file), so does CREATE
 * while it works, and the list from SEAL to DESTROY if the region is persistent: what is half filled
 * goes with whoever filled it. With the last reference the shmem file goes; pages that a driver still
 * has pinned stay until it lets go of them.
 */
#include "region.h"

#include <linux/compat.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/nodemask.h>
#include <linux/pagemap.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "compat/region.h"
#include "core.h"
#include "reclaim.h"

#define CREATE_TRACE_POINTS
#include "region_trace.h"

/* What counts as a huge page. */
#define HUGE_BYTES SZ_2M
/* What shmem asks for: 2 MiB, 32 MiB with base pages of 16 KiB, 512 MiB with those of 64 KiB. */
#define BLOCK_ORDER (PMD_SHIFT - PAGE_SHIFT)
#define BLOCK_PAGES (1UL << BLOCK_ORDER)
/*
 * Compaction that found nothing is put off by the kernel, the next 64 times in the end, and passes
 * over what it has looked at; after those it looks at everything anew. This is two rounds of it.
 */
#define HUGE_TRIES 130

#define MAX_BYTES (1ULL << 46)

static unsigned int max_regions = 1024;
module_param(max_regions, uint, 0644);
MODULE_PARM_DESC(max_regions, "regions that may exist (1024)");

static DEFINE_SPINLOCK(llm_regions_lock);
static LIST_HEAD(llm_regions); /* by id */
static u64 last_id;

/* By node + 1; 0 is the one for any node. */
static struct vfsmount **llm_mounts;
static DEFINE_MUTEX(llm_mounts_lock);
/* Whoever loaded the module: mounts belong to no user's namespace. */
static const struct cred *llm_loader;

static const struct file_operations region_fops;

/**
 * struct llm_region_file - an open region file
 * @r: its region, held
 * @flags: LLM_REGION_OPEN_*
 */
struct llm_region_file {
	struct llm_region *r;
	u32 flags;
};

/* ---- RLIMIT_MEMLOCK -------------------------------------------------------------------------------------- */

static int memlock_charge(struct llm_region *r, const struct file *control)
{
	unsigned long pages = r->bytes >> PAGE_SHIFT, limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	struct user_struct *user = control->f_cred->user;
	long old = atomic_long_read(&user->locked_vm);

	/* What is refused is never counted: others of the user would be refused for it. */
	do {
		if (((unsigned long)old > limit || pages > limit - old) &&
		    !file_ns_capable(control, &init_user_ns, CAP_IPC_LOCK))
			return -ENOMEM;
	} while (!atomic_long_try_cmpxchg(&user->locked_vm, &old, old + pages));
	r->user = get_uid(user);
	return 0;
}

static void memlock_uncharge(struct llm_region *r)
{
	atomic_long_sub(r->bytes >> PAGE_SHIFT, &r->user->locked_vm);
	free_uid(r->user);
}

/* ---- mounts ---------------------------------------------------------------------------------------------- */

static struct vfsmount *mount_one(int node)
{
	struct file_system_type *tmpfs = get_fs_type("tmpfs"); /* built in: no reference to drop */
	const struct cred *old;
	struct vfsmount *mnt;
	char options[64];

	if (!tmpfs)
		return ERR_PTR(-ENODEV);
	/* Kernel-internal mounts have no limit of their own and cannot be bind-mounted. */
	old = override_creds(llm_loader);
	snprintf(options, sizeof(options),
		 node < 0 ? "huge=within_size" : "huge=within_size,mpol=bind:%d", node);
	mnt = vfs_kern_mount(tmpfs, SB_KERNMOUNT, "llm", options);
	if (IS_ERR(mnt) && PTR_ERR(mnt) == -EINVAL) {
		/* A kernel or processor without huge pages. */
		snprintf(options, sizeof(options), node < 0 ? "" : "mpol=bind:%d", node);
		mnt = vfs_kern_mount(tmpfs, SB_KERNMOUNT, "llm", options);
	}
	revert_creds(old);
	if (!IS_ERR(mnt))
		mnt->mnt_sb->s_iflags |= SB_I_NOEXEC | SB_I_NODEV;
	return mnt;
}

static struct vfsmount *get_mount(int node)
{
	struct vfsmount **slot = &llm_mounts[IS_ENABLED(CONFIG_NUMA) ? node + 1 : 0], *mnt;

	if (mutex_lock_killable(&llm_mounts_lock))
		return ERR_PTR(-EINTR);
	mnt = *slot;
	if (!mnt) {
		mnt = mount_one(slot == llm_mounts ? -1 : node);
		if (!IS_ERR(mnt))
			*slot = mnt;
	}
	mutex_unlock(&llm_mounts_lock);
	return mnt;
}

/* ---- the list -------------------------------------------------------------------------------------------- */

/* By its name, or NULL; llm_regions_lock is held. Destroyed ones have none. */
static struct llm_region *find_name(const u8 *name)
{
	struct llm_region *r;

	list_for_each_entry(r, &llm_regions,
			    all) if (!r->unlinked && !strcmp(r->name, name)) return r;
	return NULL;
}

static int check_region_name(const u8 *name)
{
	size_t n = strnlen(name, LLM_REGION_NAME_MAX), i;

	if (!n || n == LLM_REGION_NAME_MAX || name[0] == '.')
		return -EINVAL;
	for (i = 0; i < n; i++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@+-",
			    name[i]))
			return -EINVAL;
	return memchr_inv(name + n, 0, LLM_REGION_NAME_MAX - n) ? -EINVAL : 0;
}

/* The last reference is gone and it is off the list. */
static void region_free(struct llm_region *r)
{
	if (r->inner) {
		trace_llm_region_free(r, 0);
		fput(r->inner);
	}
	if (r->user)
		memlock_uncharge(r);
	put_pid(r->pid);
	kfree(r);
	atomic_dec(&llm_live);
}

static void region_release(struct kref *ref) __releases(&llm_regions_lock)
{
	struct llm_region *r = container_of(ref, struct llm_region, ref);

	list_del(&r->all);
	spin_unlock(&llm_regions_lock);
	region_free(r);
}

static void region_put(struct llm_region *r)
{
	kref_put_lock(&r->ref, region_release, &llm_regions_lock);
}

/* A new one in the list, without memory; the caller's reference is CREATE's. */
static struct llm_region *region_new(const struct file *control, const struct llm_region_create *c)
{
	struct llm_region *r = kzalloc(sizeof(*r), GFP_KERNEL_ACCOUNT), *other;
	unsigned int n = 0;
	int rc;

	if (!r)
		return ERR_PTR(-ENOMEM);
	atomic_inc(&llm_live);
	kref_init(&r->ref);
	mutex_init(&r->seal_lock);
	r->bytes = c->bytes;
	r->flags = c->flags;
	r->node = c->node;
	r->created_ns = ktime_get_ns();
	r->uid = control->f_cred->euid;
	r->pid = get_pid(task_tgid(current));
	memcpy(r->name, c->name, LLM_REGION_NAME_MAX);
	r->allocating = true;
	rc = memlock_charge(r, control);
	if (rc)
		goto no;

	spin_lock(&llm_regions_lock);
	list_for_each_entry(other, &llm_regions, all) n++;
	if (find_name(r->name))
		rc = -EEXIST;
	else if (n >= READ_ONCE(max_regions))
		rc = -ENOSPC;
	else {
		r->id = ++last_id;
		list_add_tail(&r->all, &llm_regions);
	}
	spin_unlock(&llm_regions_lock);
	if (!rc)
		return r;
no:
	region_free(r);
	return ERR_PTR(rc);
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

/* Pages that could be had: what is available, but for free ones that only movable memory may take. */
static long available(void)
{
	long pages = si_mem_available() - (long)global_zone_page_state(NR_FREE_CMA_PAGES);
	int nid;

	for_each_online_node(nid) pages -=
		(long)zone_page_state(&NODE_DATA(nid)->node_zones[ZONE_MOVABLE], NR_FREE_PAGES);
	return pages;
}

/*
 * What must stay: taking the last pages would have the kernel kill somebody who asks for one. Cheap
 * enough to be looked at every few MiB.
 */
static bool memory_is_short(void)
{
	return available() < (long)min(totalram_pages() / 64, (unsigned long)SZ_256M >> PAGE_SHIFT);
}

/* Said at once what can be known at once: nobody loses page cache for a region that cannot be. */
static bool never_fits(const struct llm_region *r)
{
	u64 pages = r->bytes >> PAGE_SHIFT;

	if (r->node >= 0 && pages > NODE_DATA(r->node)->node_present_pages)
		return true;
	return pages > totalram_pages() || (long)pages > available();
}

/*
 * Without a mapping shmem's huge allocations neither reclaim nor compact. This does, and gives the
 * block back for shmem to take: in halves, which go to the free lists and become one block there. As
 * a whole it would go to this processor's list of blocks, for movable pages if it held such before,
 * where shmem's allocation, which is not for movable ones, does not look.
 */
static bool make_block(const struct llm_region *r)
{
	gfp_t gfp = GFP_USER | __GFP_NOWARN | __GFP_RETRY_MAYFAIL;
	struct page *block;

	if (r->node >= 0)
		gfp |= __GFP_THISNODE;
	block = alloc_pages_node(r->node >= 0 ? r->node : numa_mem_id(), gfp, BLOCK_ORDER);
	if (!block)
		return false;
	set_page_count(block + BLOCK_PAGES / 2, 1);
	__free_pages(block, BLOCK_ORDER - 1);
	__free_pages(block + BLOCK_PAGES / 2, BLOCK_ORDER - 1);
	return true;
}

static bool is_huge(struct folio *folio)
{
	return folio_size(folio) >= HUGE_BYTES;
}

/*
 * The folio at @index, allocated; @misses counts blocks in a row that could not be huge: after a few
 * no more work is put into it.
 */
static struct folio *allocate_one(struct llm_region *r, pgoff_t index, unsigned int *misses)
{
	struct address_space *mapping = r->inner->f_mapping;
	gfp_t gfp = mapping_gfp_mask(mapping) | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
	bool required = r->flags & LLM_REGION_HUGE;
	bool block =
		IS_ALIGNED(index, BLOCK_PAGES) && index + BLOCK_PAGES <= r->bytes >> PAGE_SHIFT;
	unsigned int tries = required ? HUGE_TRIES : 1;
	loff_t at = (loff_t)index << PAGE_SHIFT;
	struct folio *folio;

	for (;;) {
		struct page *page = shmem_read_mapping_page_gfp(mapping, index, gfp);

		if (IS_ERR(page))
			return ERR_CAST(page);
		folio = page_folio(page);
		if (is_huge(folio)) {
			*misses = 0;
			return folio;
		}
		if (!block || *misses >= 8 || !tries-- || fatal_signal_pending(current))
			break;
		if (make_block(r)) {
			folio_put(folio);
			shmem_truncate_range(file_inode(r->inner), at,
					     at + ((loff_t)BLOCK_PAGES << PAGE_SHIFT) - 1);
		} else if (required) {
			folio_put(folio);
			schedule_timeout_killable(1);
		} else {
			break;
		}
	}
	if (!required) {
		*misses += block;
		return folio;
	}
	folio_put(folio);
	return ERR_PTR(-ENOMEM);
}

/* All of it, or -errno with some of it. */
static int allocate_all(struct llm_region *r)
{
	pgoff_t index = 0, end = r->bytes >> PAGE_SHIFT, looked = 0;
	unsigned int misses = 0;
	struct folio *folio;

	while (index < end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (READ_ONCE(r->unlinked))
			return -ECANCELED;
		if (index - looked >= SZ_8M >> PAGE_SHIFT) {
			looked = index;
			if (memory_is_short())
				return -ENOMEM;
		}
		folio = allocate_one(r, index, &misses);
		if (IS_ERR(folio))
			return PTR_ERR(folio) == -ENOSPC ? -ENOMEM : PTR_ERR(folio);
		if (r->node >= 0 && folio_nid(folio) != r->node) {
			folio_put(folio);
			return -ENOMEM;
		}
		/* Clean pages are dropped by drop_caches. */
		folio_mark_dirty(folio);
		folio_mark_accessed(folio);
		if (is_huge(folio))
			WRITE_ONCE(r->huge_bytes, r->huge_bytes + folio_size(folio));
		index = folio->index + folio_nr_pages(folio);
		WRITE_ONCE(r->resident, min_t(u64, (u64)index << PAGE_SHIFT, r->bytes));
		folio_put(folio);
		cond_resched();
	}
	return 0;
}

/* The shmem file: sealed in its size, invisible, unevictable, its memory where it can be pinned. */
static int make_inner(struct llm_region *r)
{
	struct vfsmount *mnt = get_mount(r->node);
	struct inode *inode;
	struct file *inner;
	char name[LLM_REGION_NAME_MAX + 16];

	if (IS_ERR(mnt))
		return PTR_ERR(mnt);
	snprintf(name, sizeof(name), "llm-region:%s", r->name);
	inner = llm_shmem_file(mnt, name, r->bytes);
	if (IS_ERR(inner)) /* ENOSPC: no memory for its inode; it has no limit of its own */
		return PTR_ERR(inner) == -ENOSPC ? -ENOMEM : PTR_ERR(inner);
	inode = file_inode(inner);
	/* Nobody else knows it yet. */
	inode->i_fop = &region_fops;
	inode->i_flags |= S_PRIVATE | S_IMMUTABLE | S_NOATIME;
	/* Where FS_IOC_SETFLAGS looks for what it may not take away. */
	SHMEM_I(inode)->fsflags = FS_IMMUTABLE_FL | FS_NOATIME_FL;
	SHMEM_I(inode)->seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;
	mapping_set_unevictable(inode->i_mapping);
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER);
	WRITE_ONCE(r->inner, inner);
	return 0;
}

/* ---- region files ---------------------------------------------------------------------------------------- */

/* Not installed yet. Its reference is its own. */
static struct file *region_file(struct llm_region *r, u32 flags)
{
	struct llm_region_file *rf = kmalloc(sizeof(*rf), GFP_KERNEL_ACCOUNT);
	struct inode *inode = file_inode(r->inner);
	char name[LLM_REGION_NAME_MAX + 16];
	struct file *file;

	if (!rf)
		return ERR_PTR(-ENOMEM);
	snprintf(name, sizeof(name), "llm-region:%s", r->name);
	ihold(inode);
	file = alloc_file_pseudo(inode, r->inner->f_path.mnt, name, flags ? O_RDWR : O_RDONLY,
				 &region_fops);
	if (IS_ERR(file)) {
		iput(inode);
		kfree(rf);
		return file;
	}
	__module_get(THIS_MODULE); /* the file's; given back with it */
	kref_get(&r->ref);
	atomic_inc(&r->files);
	*rf = (struct llm_region_file){r, flags};
	file->private_data = rf;
	return file;
}

/* Only for those who would open the inode by a path. */
static int region_open(struct inode *inode, struct file *file)
{
	return -ENXIO;
}

static int region_close(struct inode *inode, struct file *file)
{
	struct llm_region_file *rf = file->private_data;

	atomic_dec(&rf->r->files);
	region_put(rf->r);
	kfree(rf);
	return 0;
}

/*
 * A writable mapping that SEAL does not see cannot come about: before this is called the kernel counts
 * it, and SEAL sets @sealed while it has forbidden that.
 */
static int region_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct llm_region_file *rf = file->private_data;
	struct llm_region *r = rf->r;
	u64 pages = r->bytes >> PAGE_SHIFT;
	int rc;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_pgoff > pages || vma_pages(vma) > pages - vma->vm_pgoff)
		return -EINVAL;
	if (smp_load_acquire(&r->sealed) && !(rf->flags & LLM_REGION_OPEN_REGISTER)) {
		if (vma->vm_flags & VM_WRITE)
			return -EPERM;
		llm_vm_flags_clear(vma, VM_MAYWRITE);
	}
	rc = llm_mmap_file(r->inner, vma);
	if (!rc)
		llm_vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	return rc;
}

static unsigned long region_unmapped_area(struct file *file, unsigned long addr, unsigned long len,
					  unsigned long pgoff, unsigned long flags)
{
	struct llm_region_file *rf = file->private_data;
	struct file *inner = rf->r->inner;

	return inner->f_op->get_unmapped_area(inner, addr, len, pgoff, flags);
}

/* ---- what it is ------------------------------------------------------------------------------------------ */

/* Mappings; counting stops somewhere. */
static u32 count_mappings(const struct llm_region *r)
{
	struct address_space *mapping = r->inner->f_mapping;
	struct rb_node *n;
	u32 count = 0;

	i_mmap_lock_read(mapping);
	for (n = rb_first_cached(&mapping->i_mmap); n && count < 65536; n = rb_next(n))
		count++;
	i_mmap_unlock_read(mapping);
	return count;
}

/* Bytes of pinned pages: exact up to some thousand folios, beyond that every n-th is looked at. */
static u64 count_pinned(const struct llm_region *r)
{
	struct address_space *mapping = r->inner->f_mapping;
	pgoff_t end = READ_ONCE(r->resident) >> PAGE_SHIFT, index = 0, step = end / 4096;
	u64 seen = 0, pinned = 0;

	while (index < end) {
		pgoff_t next = index + 1;
		struct folio *folio;

		/* What is in there is not migrated, hence not freed, meanwhile. */
		xa_lock_irq(&mapping->i_pages);
		folio = xa_load(&mapping->i_pages, index);
		if (folio && !xa_is_value(folio)) {
			u64 n = folio_nr_pages(folio);

			next = round_down(index, n) + n;
			seen += n;
			if (folio_maybe_dma_pinned(folio))
				pinned += n;
		}
		xa_unlock_irq(&mapping->i_pages);
		index = max(next, index + step);
		cond_resched();
	}
	if (!seen)
		return 0;
	return min_t(u64, r->bytes, div64_u64(pinned * end, seen) << PAGE_SHIFT);
}

static void region_fill(struct llm_region_info *info, struct llm_region *r)
{
	bool allocating, there;

	*info = (struct llm_region_info){
		.size = sizeof(*info),
		.flags = r->flags,
		.id = r->id,
		.bytes = r->bytes,
		.resident = READ_ONCE(r->resident),
		.huge_bytes = READ_ONCE(r->huge_bytes),
		.created_ns = r->created_ns,
		.node = r->node,
		.uid = from_kuid_munged(current_user_ns(), r->uid),
		.files = atomic_read(&r->files),
	};
	memcpy(info->name, r->name, LLM_REGION_NAME_MAX);
	rcu_read_lock();
	if (pid_task(r->pid, PIDTYPE_TGID))
		info->pid = pid_vnr(r->pid);
	rcu_read_unlock();
	spin_lock(&llm_regions_lock);
	allocating = r->allocating;
	there = !r->unlinked;
	spin_unlock(&llm_regions_lock);
	if (READ_ONCE(r->sealed))
		info->flags |= LLM_REGION_SEALED;
	if (!there)
		info->flags |= LLM_REGION_UNLINKED;
	if (allocating) {
		info->flags |= LLM_REGION_ALLOCATING;
		return;
	}
	info->mappings = count_mappings(r);
	info->pinned_bytes = count_pinned(r);
}

static void region_fdinfo(struct seq_file *m, struct file *file)
{
	struct llm_region_file *rf = file->private_data;
	struct llm_region_info i;

	region_fill(&i, rf->r);
	seq_printf(m, "llm-region:\t%s\n", i.name);
	seq_printf(m, "llm-region-id:\t%llu\n", i.id);
	seq_printf(m, "llm-region-flags:\t%#x\n", i.flags);
	seq_printf(m, "llm-region-open:\t%#x\n", rf->flags);
	seq_printf(m, "llm-region-bytes:\t%llu\n", i.bytes);
	seq_printf(m, "llm-region-huge:\t%llu\n", i.huge_bytes);
	seq_printf(m, "llm-region-pinned:\t%llu\n", i.pinned_bytes);
	seq_printf(m, "llm-region-node:\t%d\n", i.node);
	seq_printf(m, "llm-region-owner:\t%u\n", i.uid);
	seq_printf(m, "llm-region-mappings:\t%u\n", i.mappings);
	seq_printf(m, "llm-region-files:\t%u\n", i.files);
}

/* ---- SEAL ------------------------------------------------------------------------------------------------ */

/* New pages wait in each processor's list for their turn, referenced; giving one back empties it. */
static void empty_list(struct work_struct *work)
{
	struct folio_batch batch;
	struct page *page = alloc_page(GFP_KERNEL);

	if (!page)
		return;
	folio_batch_init(&batch);
	folio_batch_add(&batch, page_folio(page));
	folio_batch_release(&batch);
}

static void empty_lists(void)
{
	struct work_struct work;
	int cpu;

	for_each_online_cpu(cpu)
	{
		INIT_WORK_ONSTACK(&work, empty_list);
		schedule_work_on(cpu, &work);
		flush_work(&work);
		destroy_work_on_stack(&work);
	}
}

/* -EBUSY: a page is pinned, or held by somebody who may write to it: for a moment or for longer. */
static int check_pins(const struct llm_region *r)
{
	struct address_space *mapping = r->inner->f_mapping;
	XA_STATE(xas, &mapping->i_pages, 0);
	unsigned int n = 0;
	struct folio *folio;
	int rc = 0;

	xas_lock_irq(&xas); /* none is migrated meanwhile */
	xas_for_each(&xas, folio, ULONG_MAX)
	{
		if (xas_retry(&xas, folio) || xa_is_value(folio))
			continue;
		/* Reads by O_DIRECT are references, not pins, before Linux 6.3. */
		if (folio_maybe_dma_pinned(folio) ||
		    (!folio_mapped(folio) && folio_ref_count(folio) != folio_nr_pages(folio))) {
			rc = -EBUSY;
			break;
		}
		if (++n % 512)
			continue;
		xas_pause(&xas);
		xas_unlock_irq(&xas);
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		xas_lock_irq(&xas);
	}
	xas_unlock_irq(&xas);
	return rc;
}

/* Nobody can make a writable mapping meanwhile. */
static int wait_for_pins(const struct llm_region *r)
{
	int rc, i;

	for (i = 0;; i++) {
		/* Mappings that only read: they fault their pages in again. */
		unmap_mapping_range(r->inner->f_mapping, 0, 0, 1);
		rc = check_pins(r);
		if (rc != -EBUSY || i == 50)
			return rc;
		if (!i)
			empty_lists();
		else if (schedule_timeout_killable(msecs_to_jiffies(10)))
			return -EINTR;
	}
}

/* Sealed, it is the list's as well. */
static void region_keep(struct llm_region *r)
{
	spin_lock(&llm_regions_lock);
	if (r->flags & LLM_REGION_PERSISTENT && !r->unlinked) {
		r->kept = true;
		kref_get(&r->ref);
	}
	spin_unlock(&llm_regions_lock);
}

static int region_seal(struct llm_region *r)
{
	struct address_space *mapping = r->inner->f_mapping;
	int rc;

	if (mutex_lock_killable(&r->seal_lock))
		return -EINTR;
	rc = -EALREADY;
	if (r->sealed)
		goto out;
	rc = mapping_deny_writable(mapping);
	if (rc)
		goto out;
	rc = wait_for_pins(r);
	if (!rc) {
		smp_store_release(&r->sealed, true);
		region_keep(r);
	}
	smp_mb__before_atomic();
	mapping_allow_writable(mapping);
out:
	mutex_unlock(&r->seal_lock);
	return rc;
}

/* ---- commands of a region file --------------------------------------------------------------------------- */

static long do_seal(struct file *file, void *arg, void __user *user)
{
	const struct llm_region_seal *s = arg;
	struct llm_region_file *rf = file->private_data;
	int rc;

	if (s->flags)
		return -EOPNOTSUPP;
	if (!(rf->flags & LLM_REGION_OPEN_WRITE))
		return -EPERM;
	rc = region_seal(rf->r);
	trace_llm_region_seal(rf->r, rc);
	return rc;
}

static long do_info(struct file *file, void *arg, void __user *user)
{
	struct llm_region_info *info = arg;
	struct llm_region_file *rf = file->private_data;

	if (info->flags)
		return -EOPNOTSUPP;
	region_fill(info, rf->r);
	return 0;
}

static long do_query(struct file *file, void *arg, void __user *user)
{
	struct llm_query *q = arg;

	if (q->flags)
		return -EOPNOTSUPP;
	llm_query_fill(q, LLM_FILE_REGION, NULL);
	q->features |= LLM_FEATURE_REGION;
	return 0;
}

static const struct llm_command region_commands[] = {
	{LLM_IOC_QUERY, sizeof(struct llm_query), 8, do_query},
	{LLM_IOC_REGION_SEAL, sizeof(struct llm_region_seal), sizeof(struct llm_region_seal),
	 do_seal},
	{LLM_IOC_REGION_INFO, sizeof(struct llm_region_info), 8, do_info},
};

static long region_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return llm_ioctl(file, cmd, arg, region_commands, ARRAY_SIZE(region_commands));
}

static const struct file_operations region_fops = {
	.owner = THIS_MODULE,
	.open = region_open,
	.release = region_close,
	.mmap = region_mmap,
	.get_unmapped_area = region_unmapped_area,
	.unlocked_ioctl = region_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.fsync = noop_fsync,
	.llseek = noop_llseek,
	.show_fdinfo = region_fdinfo,
};

/* ---- commands of the control file ------------------------------------------------------------------------ */

/* The owner's and the administrator's. */
static bool may_change(const struct file *control, const struct llm_region *r)
{
	return uid_eq(control->f_cred->euid, r->uid) ||
	       file_ns_capable(control, &init_user_ns, CAP_SYS_ADMIN);
}

/* The caller learns the number before it gets the file. */
static int hand_out(void __user *user, const void *arg, size_t size, int fd, struct file *file)
{
	if (copy_to_user(user, arg, size)) {
		fput(file);
		return -EFAULT;
	}
	fd_install(fd, file);
	return 0;
}

static int check_create(const struct llm_region_create *c)
{
	if (c->flags & ~(LLM_REGION_PERSISTENT | LLM_REGION_HUGE))
		return -EOPNOTSUPP;
	if (check_region_name(c->name) || c->huge_bytes || c->fd)
		return -EINVAL;
	if (!c->bytes || c->bytes > MAX_BYTES ||
	    c->bytes % (c->flags & LLM_REGION_HUGE ? HUGE_BYTES : PAGE_SIZE))
		return -EINVAL;
	if (c->node < -1 || c->node >= (int)nr_node_ids ||
	    (c->node >= 0 && !node_state(c->node, N_MEMORY)))
		return -EINVAL;
	return 0;
}

/* CREATE has come to its end: for others the region is there, or its name is free. */
static int region_ready(struct llm_region *r)
{
	int rc;

	spin_lock(&llm_regions_lock);
	rc = r->unlinked ? -ECANCELED : 0;
	if (!rc)
		r->allocating = false;
	spin_unlock(&llm_regions_lock);
	return rc;
}

static int region_unlink(struct llm_region *r)
{
	bool put;

	spin_lock(&llm_regions_lock);
	if (r->unlinked) {
		spin_unlock(&llm_regions_lock);
		return -ENOENT;
	}
	WRITE_ONCE(r->unlinked, true);
	put = r->kept;
	spin_unlock(&llm_regions_lock);
	if (put)
		region_put(r);
	return 0;
}

static long do_create(struct file *control, void *arg, void __user *user)
{
	struct llm_region_create *c = arg;
	struct llm_region *r;
	struct file *file;
	int fd = -1, rc;

	rc = check_create(c);
	if (rc)
		return rc;
	r = region_new(control, c);
	if (IS_ERR(r))
		return PTR_ERR(r);
	rc = never_fits(r) ? -ENOMEM : make_inner(r);
	if (rc)
		goto out;
	llm_reserve_give_back(r->bytes); /* what is missing of it */
	rc = allocate_all(r);
	if (rc)
		goto out;
	rc = fd = get_unused_fd_flags(O_CLOEXEC);
	if (rc < 0)
		goto out;
	file = region_file(r, LLM_REGION_OPEN_WRITE);
	rc = PTR_ERR_OR_ZERO(file);
	if (rc)
		goto out;
	rc = region_ready(r);
	if (rc) {
		fput(file);
		goto out;
	}
	c->fd = fd;
	c->huge_bytes = r->huge_bytes;
	rc = hand_out(user, c, sizeof(*c), fd, file);
	if (!rc)
		fd = -1;
out:
	if (rc)
		region_unlink(r);
	trace_llm_region_create(r, rc);
	if (fd >= 0)
		put_unused_fd(fd);
	region_put(r);
	return rc;
}

static long do_open(struct file *control, void *arg, void __user *user)
{
	struct llm_region_open *o = arg;
	struct llm_region *r;
	struct file *file;
	int rc = 0, fd;

	if (o->flags & ~(LLM_REGION_OPEN_WRITE | LLM_REGION_OPEN_REGISTER))
		return -EOPNOTSUPP;
	if (check_region_name(o->name) || o->fd || o->__reserved)
		return -EINVAL;
	spin_lock(&llm_regions_lock);
	r = find_name(o->name);
	if (!r)
		rc = -ENOENT;
	else if (r->allocating)
		rc = -EAGAIN;
	else if (o->flags && !may_change(control, r))
		rc = -EPERM;
	else if (o->flags & LLM_REGION_OPEN_WRITE && READ_ONCE(r->sealed))
		rc = -EPERM;
	else
		kref_get(&r->ref);
	spin_unlock(&llm_regions_lock);
	if (rc)
		return rc;
	rc = fd = get_unused_fd_flags(O_CLOEXEC);
	if (rc >= 0) {
		file = region_file(r, o->flags);
		rc = PTR_ERR_OR_ZERO(file);
		o->fd = fd;
		if (!rc)
			rc = hand_out(user, o, sizeof(*o), fd, file);
		if (rc)
			put_unused_fd(fd);
	}
	region_put(r);
	return rc;
}

static long do_destroy(struct file *control, void *arg, void __user *user)
{
	const struct llm_region_name *n = arg;
	struct llm_region *r;
	int rc = 0;

	if (n->flags)
		return -EOPNOTSUPP;
	if (check_region_name(n->name))
		return -EINVAL;
	spin_lock(&llm_regions_lock);
	r = find_name(n->name);
	if (!r)
		rc = -ENOENT;
	else if (!may_change(control, r))
		rc = -EPERM;
	else
		kref_get(&r->ref);
	spin_unlock(&llm_regions_lock);
	if (rc)
		return rc;
	rc = region_unlink(r);
	if (!rc)
		trace_llm_region_destroy(r, 0);
	region_put(r);
	return rc;
}

#define LIST_MAX	256
#define INFO_SIZE_FIRST 208 /* of the first struct llm_region_info */

/* As much of it as the caller knows, zeroes for what only the caller knows. */
static int info_to_user(u8 __user *to, const struct llm_region_info *info, size_t size)
{
	size_t n = min(size, sizeof(*info));

	return copy_to_user(to, info, n) || clear_user(to + n, size - n) ? -EFAULT : 0;
}

static long do_list(struct file *control, void *arg, void __user *user)
{
	struct llm_region_list *l = arg;
	u8 __user *to = u64_to_user_ptr(l->regions);
	struct llm_region **held, *r;
	struct llm_region_info info;
	u32 n = 0, i, size;
	long rc = 0;

	if (l->flags)
		return -EOPNOTSUPP;
	size = l->info_size ?: INFO_SIZE_FIRST;
	if (l->count > LIST_MAX || size < INFO_SIZE_FIRST || size > PAGE_SIZE || size % 8)
		return -EINVAL;
	held = kmalloc_array(LIST_MAX, sizeof(*held), GFP_KERNEL_ACCOUNT);
	if (!held)
		return -ENOMEM;
	spin_lock(&llm_regions_lock);
	list_for_each_entry(r, &llm_regions, all)
	{
		if (n == l->count)
			break;
		if (r->id <= l->after)
			continue;
		kref_get(&r->ref);
		held[n++] = r;
	}
	spin_unlock(&llm_regions_lock);
	for (i = 0; i < n; i++) {
		if (!rc && fatal_signal_pending(current))
			rc = -EINTR;
		if (!rc) {
			region_fill(&info, held[i]);
			info.size = min_t(u32, size, sizeof(info));
			rc = info_to_user(to + (size_t)i * size, &info, size);
		}
		region_put(held[i]);
	}
	kfree(held);
	l->count = n;
	return rc;
}

static const struct llm_command control_commands[] = {
	{LLM_IOC_REGION_CREATE, sizeof(struct llm_region_create), sizeof(struct llm_region_create),
	 do_create, .hands_out = true},
	{LLM_IOC_REGION_OPEN, sizeof(struct llm_region_open), sizeof(struct llm_region_open),
	 do_open, .hands_out = true},
	{LLM_IOC_REGION_LIST, sizeof(struct llm_region_list), sizeof(struct llm_region_list),
	 do_list},
	{LLM_IOC_REGION_DESTROY, sizeof(struct llm_region_name), sizeof(struct llm_region_name),
	 do_destroy, true},
};

long llm_region_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return llm_ioctl(file, cmd, arg, control_commands, ARRAY_SIZE(control_commands));
}

/* ---- loading and unloading ------------------------------------------------------------------------------- */

int llm_region_init(void)
{
	llm_mounts = kcalloc(nr_node_ids + 1, sizeof(*llm_mounts), GFP_KERNEL);
	if (!llm_mounts)
		return -ENOMEM;
	llm_loader = get_current_cred();
	return 0;
}

void llm_region_exit(void)
{
	struct llm_region *r, *next;
	unsigned int i;

	/* Only persistent ones, with nothing but the list's reference. */
	list_for_each_entry_safe(r, next, &llm_regions, all) region_unlink(r);
	WARN_ON(!list_empty(&llm_regions));
	for (i = 0; i <= nr_node_ids; i++)
		if (llm_mounts[i])
			kern_unmount(llm_mounts[i]);
	put_cred(llm_loader);
	kfree(llm_mounts);
}
