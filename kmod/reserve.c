// SPDX-License-Identifier: GPL-2.0
/*
 * 2 MiB blocks that the module holds: the reserve, and what MEM_MAKE_ROOM allocates for a moment.
 *
 * Both are given back when somebody else is about to fail: by a shrinker, and last by the kernel's
 * call before it kills somebody. A shrinker is called on many occasions that are not such, so it
 * gives nothing
 *   - to kswapd, which works ahead of need;
 *   - outside of an allocation: drop_caches and its like do not run with PF_MEMALLOC, direct reclaim does;
 *   - to an allocation that does not wake kswapd: a transparent huge page, which can be done without;
 *   - while its node has more pages than the high watermark and a free block too: an allocation would
 *     find those, so this is somebody's order to reclaim (memory.reclaim of the root cgroup);
 *   - to the task that is allocating blocks for us.
 * It counts base pages and is called for one block at a time (batch).
 *
 * Blocks are unmovable, as GPU drivers' own memory is: they come from no CMA area, and given back
 * lie where such allocations look first. They count as NR_KERNEL_MISC_RECLAIMABLE, so MemAvailable
 * knows that they can be had. They are nobody's, so no cgroup is charged.
 *
 * `lock`, a spinlock taken in process context only, guards everything of `blocks`. Nothing is
 * allocated or freed under it, so that reclaim never meets it held by its own task. One task at a
 * time allocates blocks: it has `busy`, for which others wait killably.
 */
#include "core.h"
#include "reclaim.h"
#include "trace.h"
#include "compat/reclaim.h"

#include <linux/oom.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/swap.h>

/* Given back at once when the kernel is about to kill. */
#define OOM_BLOCKS 32
/*
 * An allocation of a block may fail with plenty of cache left: after compaction had no luck the kernel
 * puts it off for up to 64 attempts. Each attempt wakes those who reclaim and compact in the background;
 * they are given a moment. So many failures in a row mean that there is no block to be had.
 */
#define ATTEMPTS  66
#define MOMENT_MS 5
/* Taking stops when others had to take back so many: they need it more. */
#define LOST_BLOCKS 16

#define GFP_BLOCK (GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL | __GFP_NOMEMALLOC)

/**
 * struct llm_blocks - what is held
 * @lists: struct page by @lru, one list a node
 * @held: blocks of each node
 * @total: of all nodes
 * @room: of these, MEM_MAKE_ROOM's; they go first
 * @target: that the reserve is to hold, in blocks
 * @given: blocks that the reserve gave back, by enum llm_reclaim_action
 * @releases: how often it did
 * @taken_back: blocks, of whomever, that went to somebody else
 */
struct llm_blocks {
	struct list_head *lists;
	unsigned long *held;
	unsigned long total, room, target;
	u64 given[LLM_RECLAIM_ACTIONS];
	u64 releases, taken_back;
};

static DEFINE_SPINLOCK(lock);
static struct llm_blocks blocks;

/* Who allocates blocks; there is one such task at most. */
static unsigned long busy;
static struct task_struct *allocating;
static DECLARE_WAIT_QUEUE_HEAD(busy_wait);

/* ---- one block in, one block out ------------------------------------------------------------------------ */

static void account(const struct page *page, long pages)
{
	mod_node_page_state(NODE_DATA(page_to_nid(page)), NR_KERNEL_MISC_RECLAIMABLE, pages);
}

/* One more block; false: none could be had. */
static bool take(bool room)
{
	struct page *page = alloc_pages(GFP_BLOCK, LLM_BLOCK_ORDER);
	int nid;

	if (!page)
		return false;
	account(page, LLM_BLOCK_PAGES);
	nid = page_to_nid(page);
	spin_lock(&lock);
	list_add(&page->lru, &blocks.lists[nid]);
	blocks.held[nid]++;
	blocks.total++;
	blocks.room += room;
	spin_unlock(&lock);
	return true;
}

/* The same, several times; false: none could be had, or killed. */
static bool take_trying(bool room, u64 deadline_ns)
{
	int i;

	for (i = 0; i < ATTEMPTS && !fatal_signal_pending(current); i++) {
		if (take(room))
			return true;
		if (deadline_ns && ktime_get_ns() >= deadline_ns)
			break;
		schedule_timeout_killable(msecs_to_jiffies(MOMENT_MS));
	}
	return false;
}

static int any_node(void)
{
	int nid;

	for (nid = 0; nid < nr_node_ids; nid++)
		if (blocks.held[nid])
			return nid;
	return NUMA_NO_NODE;
}

/* One block out of the books: of this node or, NUMA_NO_NODE, of any, or NULL; the lock is held. */
static struct page *pop(int nid, bool room)
{
	struct page *page;

	if (room ? !blocks.room : blocks.total == blocks.room)
		return NULL;
	if (nid == NUMA_NO_NODE)
		nid = any_node();
	if (nid == NUMA_NO_NODE || !blocks.held[nid])
		return NULL;
	page = list_first_entry(&blocks.lists[nid], struct page, lru);
	list_del(&page->lru);
	blocks.held[nid]--;
	blocks.total--;
	blocks.room -= room;
	return page;
}

/*
 * In halves, which go to the zone's free lists and become one block there. A whole block would go to
 * this processor's own list, where neither MemFree counts it nor another processor finds it.
 */
static void put_back(struct page *page)
{
	struct page *half = page + LLM_BLOCK_PAGES / 2;

	account(page, -(long)LLM_BLOCK_PAGES);
	set_page_count(half, 1);
	__free_pages(page, LLM_BLOCK_ORDER - 1);
	__free_pages(half, LLM_BLOCK_ORDER - 1);
}

/* The reserve has more than it is to hold; the lock is held. */
static bool is_over(void)
{
	return blocks.total - blocks.room > blocks.target;
}

/*
 * Give back up to @n blocks of node @nid; @surplus: only what the reserve has too many of, which somebody
 * else may be giving back at the same time. Returns how many went; where the reserve lost some, whoever
 * polls is told.
 */
static unsigned long give_back(unsigned long n, int nid, enum llm_reclaim_action why, bool surplus)
{
	u64 before = llm_mem_free(), start = ktime_get_ns();
	unsigned long i, of_reserve = 0;

	for (i = 0; i < n; i++) {
		struct page *page = NULL;
		bool room;

		spin_lock(&lock);
		room = why != LLM_RECLAIM_ASKED && blocks.room;
		if (!surplus || is_over())
			page = pop(nid, room);
		if (page && !room) {
			blocks.given[why]++;
			blocks.releases += !of_reserve++;
		}
		if (page && why != LLM_RECLAIM_ASKED)
			blocks.taken_back++;
		spin_unlock(&lock);
		if (!page)
			break;
		put_back(page);
		if (why == LLM_RECLAIM_ASKED)
			cond_resched();
	}
	if (i)
		trace_llm_reclaim(why, (u64)n * LLM_BLOCK_BYTES, (u64)i * LLM_BLOCK_BYTES, before,
				  llm_mem_free(), ktime_get_ns() - start);
	if (of_reserve)
		llm_pressure_event(LLM_PRESSURE_RELEASE);
	return i;
}

u64 llm_reserve_give_back(u64 bytes)
{
	u64 n = DIV_ROUND_UP_ULL(bytes, LLM_BLOCK_BYTES), free = llm_free_blocks(NUMA_NO_NODE);

	return n > free ? give_back(n - free, NUMA_NO_NODE, LLM_RECLAIM_ASKED, false) *
				  LLM_BLOCK_BYTES
			: 0;
}

/* ---- when others need it -------------------------------------------------------------------------------- */

/* Too few pages, or no block: an allocation can fail for want of what this node lacks. */
static bool is_short(int nid)
{
	int z;

	for (z = 0; z < MAX_NR_ZONES; z++) {
		struct zone *zone = &NODE_DATA(nid)->node_zones[z];

		if (managed_zone(zone) &&
		    zone_page_state(zone, NR_FREE_PAGES) < high_wmark_pages(zone) + LLM_BLOCK_PAGES)
			return true;
	}
	return !llm_free_blocks(nid);
}

static bool gives(const struct shrink_control *sc)
{
	return (current->flags & PF_MEMALLOC) && !current_is_kswapd() &&
	       READ_ONCE(allocating) != current && (sc->gfp_mask & __GFP_KSWAPD_RECLAIM) &&
	       is_short(sc->nid);
}

static unsigned long count_pages(struct shrinker *s, struct shrink_control *sc)
{
	unsigned long n = READ_ONCE(blocks.held[sc->nid]);

	return n && gives(sc) ? n * LLM_BLOCK_PAGES : 0;
}

static unsigned long scan_pages(struct shrinker *s, struct shrink_control *sc)
{
	unsigned long pages;

	if (!gives(sc))
		return SHRINK_STOP;
	pages = give_back(1, sc->nid, LLM_RECLAIM_SHRINKER, false) * LLM_BLOCK_PAGES;
	if (!pages)
		return SHRINK_STOP;
	sc->nr_scanned = pages;
	llm_reclaimed_pages(pages);
	return pages;
}

static int about_to_kill(struct notifier_block *nb, unsigned long unused, void *freed)
{
	*(unsigned long *)freed +=
		give_back(OOM_BLOCKS, NUMA_NO_NODE, LLM_RECLAIM_OOM, false) * LLM_BLOCK_PAGES;
	return NOTIFY_OK;
}

LLM_SHRINKER(shrinker);
static struct notifier_block oom_notifier = {.notifier_call = about_to_kill};

/* ---- taking --------------------------------------------------------------------------------------------- */

/* Be the one who allocates; @deadline_ns 0: none. 1; 0: the time is over; -EINTR: killed. */
static long begin(u64 deadline_ns)
{
	long left = MAX_SCHEDULE_TIMEOUT;

	if (deadline_ns) {
		u64 now = ktime_get_ns();

		left = deadline_ns > now ? nsecs_to_jiffies(deadline_ns - now) + 1 : 0;
	}
	left = wait_event_killable_timeout(busy_wait, !test_and_set_bit(0, &busy), left);
	if (left < 0)
		return -EINTR;
	if (left)
		WRITE_ONCE(allocating, current);
	return !!left;
}

static void end(void)
{
	WRITE_ONCE(allocating, NULL);
	clear_bit_unlock(0, &busy);
	wake_up(&busy_wait);
}

static u64 taken_back(void)
{
	u64 n;

	spin_lock(&lock);
	n = blocks.taken_back;
	spin_unlock(&lock);
	return n;
}

/* Blocks that the reserve lacks (> 0) or has too many of. */
static long missing(void)
{
	long n;

	spin_lock(&lock);
	n = blocks.target - (blocks.total - blocks.room);
	spin_unlock(&lock);
	return n;
}

static long fill(void)
{
	u64 start = ktime_get_ns(), free = llm_mem_free(), before = taken_back();
	long want = missing(), n = 0, rc;

	rc = begin(0);
	if (rc < 0)
		return rc;
	while (missing() > 0 && taken_back() - before < LOST_BLOCKS && take_trying(false, 0)) {
		n++;
		cond_resched();
	}
	rc = fatal_signal_pending(current) ? -EINTR : 0;
	end();
	trace_llm_reclaim(LLM_RECLAIM_TAKE, (u64)want * LLM_BLOCK_BYTES, (u64)n * LLM_BLOCK_BYTES,
			  free, llm_mem_free(), ktime_get_ns() - start);
	return rc;
}

long llm_reserve_set(u64 bytes, u64 *held)
{
	struct llm_reserve_status s;
	long rc = 0, n;

	spin_lock(&lock);
	blocks.target = div64_u64(bytes, LLM_BLOCK_BYTES);
	spin_unlock(&lock);
	if (missing() > 0)
		rc = fill();
	/* Less than before; or somebody else asked for less while the last block was on its way. */
	n = missing();
	if (n < 0)
		give_back(-n, NUMA_NO_NODE, LLM_RECLAIM_ASKED, true);
	llm_reserve_read(&s);
	*held = s.held;
	return rc;
}

void llm_reserve_read(struct llm_reserve_status *s)
{
	spin_lock(&lock);
	*s = (struct llm_reserve_status){
		.target = blocks.target * LLM_BLOCK_BYTES,
		.held = (blocks.total - blocks.room) * LLM_BLOCK_BYTES,
		.shrinker = blocks.given[LLM_RECLAIM_SHRINKER] * LLM_BLOCK_BYTES,
		.oom = blocks.given[LLM_RECLAIM_OOM] * LLM_BLOCK_BYTES,
		.asked = blocks.given[LLM_RECLAIM_ASKED] * LLM_BLOCK_BYTES,
		.releases = blocks.releases,
	};
	spin_unlock(&lock);
}

/* ---- making room ---------------------------------------------------------------------------------------- */

static unsigned long room_held(void)
{
	return READ_ONCE(blocks.room);
}

/* Bytes that would still be missing if everything that is held for this were free. */
static u64 room_missing(const struct llm_mem_make_room *r)
{
	u64 n = room_held();
	u64 free = llm_mem_free() + n * LLM_BLOCK_BYTES;
	u64 free_blocks = llm_free_blocks(NUMA_NO_NODE) + n;
	u64 bytes = r->free > free ? r->free - free : 0;

	if (r->blocks > free_blocks)
		bytes = max(bytes, (r->blocks - free_blocks) * LLM_BLOCK_BYTES);
	return bytes;
}

static long inflate(const struct llm_mem_make_room *r)
{
	u64 before = taken_back();

	while (room_missing(r) && taken_back() - before < LOST_BLOCKS &&
	       (room_held() + 1) * LLM_BLOCK_BYTES <= r->max_bytes &&
	       ktime_get_ns() < r->deadline_ns && take_trying(true, r->deadline_ns))
		cond_resched();
	return fatal_signal_pending(current) ? -EINTR : 0;
}

static void deflate(void)
{
	struct page *page;

	do {
		spin_lock(&lock);
		page = pop(NUMA_NO_NODE, true);
		spin_unlock(&lock);
		if (page)
			put_back(page);
		cond_resched();
	} while (page);
}

long llm_room_make(struct llm_mem_make_room *r)
{
	u64 start = ktime_get_ns();
	long rc;

	r->free_before = llm_mem_free();
	r->blocks_before = llm_free_blocks(NUMA_NO_NODE);
	rc = begin(r->deadline_ns);
	if (rc > 0) {
		u64 missing = room_missing(r);

		if (missing && ktime_get_ns() < r->deadline_ns)
			give_back(DIV_ROUND_UP_ULL(missing, LLM_BLOCK_BYTES), NUMA_NO_NODE,
				  LLM_RECLAIM_ASKED, false);
		rc = inflate(r);
		deflate();
		end();
	}
	r->free_after = llm_mem_free();
	r->blocks_after = llm_free_blocks(NUMA_NO_NODE);
	trace_llm_reclaim(LLM_RECLAIM_ROOM, max(r->free, r->blocks * LLM_BLOCK_BYTES),
			  r->free_after > r->free_before ? r->free_after - r->free_before : 0,
			  r->free_before, r->free_after, ktime_get_ns() - start);
	return rc;
}

/* ---- loading and unloading ------------------------------------------------------------------------------ */

int llm_reserve_init(void)
{
	int nid, rc = -ENOMEM;

	blocks.lists = kcalloc(nr_node_ids, sizeof(*blocks.lists), GFP_KERNEL);
	blocks.held = kcalloc(nr_node_ids, sizeof(*blocks.held), GFP_KERNEL);
	if (!blocks.lists || !blocks.held)
		goto free;
	for (nid = 0; nid < nr_node_ids; nid++)
		INIT_LIST_HEAD(&blocks.lists[nid]);
	rc = llm_shrinker_init(shrinker, count_pages, scan_pages, LLM_BLOCK_PAGES, "llm-reserve");
	if (rc)
		goto free;
	rc = register_oom_notifier(&oom_notifier);
	if (!rc)
		return 0;
	llm_shrinker_exit(shrinker);
free:
	kfree(blocks.lists);
	kfree(blocks.held);
	return rc;
}

void llm_reserve_exit(void)
{
	unregister_oom_notifier(&oom_notifier);
	llm_shrinker_exit(shrinker);
	give_back(blocks.total, NUMA_NO_NODE, LLM_RECLAIM_ASKED, false);
	kfree(blocks.lists);
	kfree(blocks.held);
}
