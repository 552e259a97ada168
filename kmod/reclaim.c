// SPDX-License-Identifier: GPL-2.0
/*
 * How much memory is free, who wants to know, and the commands about it.
 *
 * Owns what belongs to an open control file (struct llm_control) and the floors. `lock` guards both
 * and the counters; it is never held while something sleeps or is allocated. The reserve has a lock
 * of its own (reserve.c), which is never taken under this one, nor this one under that.
 *
 * Floors are looked at once a second by `work`, which runs only while there are any, and whenever
 * somebody asks for the status.
 */
#include "core.h"
#include "reclaim.h"
#include "trace.h"

#include <linux/jiffies.h>
#include <linux/slab.h>

#define FLOOR_JIFFIES HZ
#define ROOM_TIME_NS  (10 * NSEC_PER_SEC)

/**
 * struct llm_control - an open control file
 * @admin: its opener may do everything
 * @seen: events that it was told of
 * @releases: of the reserve that it was told of
 */
struct llm_control {
	bool admin;
	u64 seen, releases;
};

/**
 * struct llm_floors - how much there should be, of all control files
 * @owner: who set them, or NULL
 * @free: bytes of MemFree; 0: none
 * @blocks: free blocks; 0: none
 * @below: LLM_PRESSURE_FREE, LLM_PRESSURE_BLOCKS: which are missed
 */
struct llm_floors {
	struct llm_control *owner;
	u64 free, blocks;
	u32 below;
};

static DEFINE_SPINLOCK(lock);
static DECLARE_WAIT_QUEUE_HEAD(events_wait);
static struct llm_floors floors;
static u64 events;
static u64 room_calls, room_bytes, drop_calls, drop_bytes;

/* ---- what there is --------------------------------------------------------------------------------------- */

static u64 node_free_blocks(int nid)
{
	u64 blocks = 0;
	int z, o;

	for (z = 0; z < MAX_NR_ZONES; z++) {
		struct zone *zone = &NODE_DATA(nid)->node_zones[z];
		u64 n = 0, cma;

		if (!populated_zone(zone) || z == ZONE_MOVABLE)
			continue;
		for (o = LLM_BLOCK_ORDER; o < ARRAY_SIZE(zone->free_area); o++)
			n += (u64)READ_ONCE(zone->free_area[o].nr_free) << (o - LLM_BLOCK_ORDER);
		cma = zone_page_state(zone, NR_FREE_CMA_PAGES) >> LLM_BLOCK_ORDER;
		blocks += n > cma ? n - cma : 0;
	}
	return blocks;
}

u64 llm_free_blocks(int nid)
{
	u64 blocks = 0;

	if (nid != NUMA_NO_NODE)
		return node_free_blocks(nid);
	for_each_online_node(nid) blocks += node_free_blocks(nid);
	return blocks;
}

/* ---- events and floors ----------------------------------------------------------------------------------- */

void llm_pressure_event(u32 what)
{
	u64 n;

	spin_lock(&lock);
	n = ++events;
	spin_unlock(&lock);
	trace_llm_pressure(what, n, llm_mem_free());
	wake_up_interruptible_poll(&events_wait, EPOLLPRI);
}

/* Returns whether there are floors. */
static bool check_floors(void)
{
	u64 free = llm_mem_free(), blocks = llm_free_blocks(NUMA_NO_NODE);
	u32 now = 0, news = 0;
	bool any;

	spin_lock(&lock);
	any = floors.owner;
	if (any) {
		now |= free < floors.free ? LLM_PRESSURE_FREE : 0;
		now |= blocks < floors.blocks ? LLM_PRESSURE_BLOCKS : 0;
		news = now & ~floors.below;
		floors.below = now;
	}
	spin_unlock(&lock);
	if (news)
		llm_pressure_event(news);
	return any;
}

static void check_work(struct work_struct *work)
{
	if (check_floors())
		schedule_delayed_work(to_delayed_work(work), FLOOR_JIFFIES);
}

static DECLARE_DELAYED_WORK(work, check_work);

static void drop_floors(const struct llm_control *c)
{
	spin_lock(&lock);
	if (floors.owner == c)
		floors = (struct llm_floors){};
	spin_unlock(&lock);
}

/* ---- the commands ---------------------------------------------------------------------------------------- */

static u64 mem_total(void)
{
	return (u64)totalram_pages() << PAGE_SHIFT;
}

static long do_status(struct file *file, void *arg, void __user *user)
{
	struct llm_control *c = file->private_data;
	struct llm_mem_status *s = arg;
	struct llm_reserve_status r;
	u64 told;

	if (s->flags)
		return -EOPNOTSUPP;
	check_floors();
	/* Before what they are about is read: one that comes in between is told the next time. */
	spin_lock(&lock);
	told = events;
	spin_unlock(&lock);
	llm_reserve_read(&r);
	*s = (struct llm_mem_status){
		.total = mem_total(),
		.free = llm_mem_free(),
		.available = (u64)si_mem_available() << PAGE_SHIFT,
		.free_blocks = llm_free_blocks(NUMA_NO_NODE),
		.reserve_target = r.target,
		.reserve_held = r.held,
		.released_shrinker = r.shrinker,
		.released_oom = r.oom,
		.released_asked = r.asked,
	};
	spin_lock(&lock);
	s->floor_free = floors.free;
	s->floor_blocks = floors.blocks;
	s->room_calls = room_calls;
	s->room_bytes = room_bytes;
	s->drop_calls = drop_calls;
	s->drop_bytes = drop_bytes;
	s->events = told;
	s->pressure = floors.below | (r.releases != c->releases ? LLM_PRESSURE_RELEASE : 0);
	c->seen = told;
	c->releases = r.releases;
	spin_unlock(&lock);
	return 0;
}

static long do_floors(struct file *file, void *arg, void __user *user)
{
	struct llm_control *c = file->private_data;
	const struct llm_mem_floors *f = arg;
	long rc = 0;

	if (f->flags)
		return -EOPNOTSUPP;
	if (!c->admin)
		return -EPERM;
	if (f->free > mem_total() || f->blocks > mem_total() / LLM_BLOCK_BYTES)
		return -EINVAL;
	spin_lock(&lock);
	if (floors.owner && floors.owner != c)
		rc = -EBUSY;
	else if (f->free || f->blocks)
		floors = (struct llm_floors){c, f->free, f->blocks, 0};
	else
		floors = (struct llm_floors){};
	spin_unlock(&lock);
	if (!rc && check_floors())
		schedule_delayed_work(&work, FLOOR_JIFFIES);
	return rc;
}

static long do_reserve(struct file *file, void *arg, void __user *user)
{
	struct llm_control *c = file->private_data;
	struct llm_mem_reserve *r = arg;

	if (r->flags)
		return -EOPNOTSUPP;
	if (!c->admin)
		return -EPERM;
	if (r->bytes % LLM_BLOCK_BYTES || r->bytes > mem_total())
		return -EINVAL;
	return llm_reserve_set(r->bytes, &r->held);
}

static long do_make_room(struct file *file, void *arg, void __user *user)
{
	struct llm_control *c = file->private_data;
	struct llm_mem_make_room *r = arg;
	long rc;

	if (r->flags)
		return -EOPNOTSUPP;
	if (!c->admin)
		return -EPERM;
	if (r->free > mem_total() || r->blocks > mem_total() / LLM_BLOCK_BYTES)
		return -EINVAL;
	if (!r->max_bytes)
		r->max_bytes = mem_total();
	if (!r->deadline_ns)
		r->deadline_ns = ktime_get_ns() + ROOM_TIME_NS;
	rc = llm_room_make(r);
	spin_lock(&lock);
	room_calls++;
	if (r->free_after > r->free_before)
		room_bytes += r->free_after - r->free_before;
	spin_unlock(&lock);
	return rc;
}

static long do_drop(struct file *file, void *arg, void __user *user)
{
	struct llm_control *c = file->private_data;
	struct llm_cache_drop *d = arg;
	long rc;

	if (d->flags & ~LLM_DROP_FILE)
		return -EOPNOTSUPP;
	if (!c->admin)
		return -EPERM;
	if (d->__reserved)
		return -EINVAL;
	rc = llm_cache_drop(d);
	if (rc && rc != -EINTR)
		return rc;
	spin_lock(&lock);
	drop_calls++;
	drop_bytes += d->bytes;
	spin_unlock(&lock);
	return rc;
}

static const struct llm_command commands[] = {
	{LLM_IOC_MEM_STATUS, sizeof(struct llm_mem_status), 8, do_status},
	{LLM_IOC_MEM_FLOORS, sizeof(struct llm_mem_floors), sizeof(struct llm_mem_floors),
	 do_floors},
	{LLM_IOC_MEM_RESERVE, sizeof(struct llm_mem_reserve), sizeof(struct llm_mem_reserve),
	 do_reserve},
	{LLM_IOC_MEM_MAKE_ROOM, sizeof(struct llm_mem_make_room), sizeof(struct llm_mem_make_room),
	 do_make_room},
	{LLM_IOC_CACHE_DROP, sizeof(struct llm_cache_drop), sizeof(struct llm_cache_drop), do_drop},
};

long llm_reclaim_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return llm_ioctl(file, cmd, arg, commands, ARRAY_SIZE(commands));
}

/* ---- the control file ------------------------------------------------------------------------------------ */

int llm_control_open(struct inode *inode, struct file *file)
{
	struct llm_control *c = kzalloc(sizeof(*c), GFP_KERNEL_ACCOUNT);
	struct llm_reserve_status r;

	if (!c)
		return -ENOMEM;
	llm_reserve_read(&r);
	c->admin = llm_is_admin(file);
	c->releases = r.releases;
	spin_lock(&lock);
	c->seen = events;
	spin_unlock(&lock);
	file->private_data = c;
	return 0;
}

int llm_control_release(struct inode *inode, struct file *file)
{
	drop_floors(file->private_data);
	kfree(file->private_data);
	return 0;
}

bool llm_control_admin(const struct file *file)
{
	return ((const struct llm_control *)file->private_data)->admin;
}

__poll_t llm_control_poll(struct file *file, struct poll_table_struct *wait)
{
	const struct llm_control *c = file->private_data;
	__poll_t mask;

	poll_wait(file, &events_wait, wait);
	spin_lock(&lock);
	mask = c->seen != events ? EPOLLPRI : 0;
	spin_unlock(&lock);
	return mask;
}

int llm_reclaim_init(void)
{
	return llm_reserve_init();
}

void llm_reclaim_exit(void)
{
	cancel_delayed_work_sync(&work);
	llm_reserve_exit();
}
