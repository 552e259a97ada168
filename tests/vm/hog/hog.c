// SPDX-License-Identifier: GPL-2.0-only
/*
 * Takes pages as a GPU driver does: straight from the page allocator, in no counter of /proc/meminfo.
 * insmod hog.ko mb=N holds N MiB until rmmod. Only for tests/vm/policy.sh.
 */
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>

static unsigned int mb;
module_param(mb, uint, 0444);

static LIST_HEAD(pages);

static void hog_exit(void)
{
	struct page *p, *next;

	list_for_each_entry_safe(p, next, &pages, lru) {
		list_del(&p->lru);
		__free_pages(p, 0);
	}
}

static int __init hog_init(void)
{
	unsigned long n = (unsigned long)mb << (20 - PAGE_SHIFT);

	while (n--) {
		struct page *p = alloc_page(GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);

		if (!p) {
			hog_exit();
			return -ENOMEM;
		}
		list_add(&p->lru, &pages);
		if (n % 4096 == 0)
			cond_resched();
	}
	return 0;
}

module_init(hog_init);
module_exit(hog_exit);
MODULE_DESCRIPTION("memory outside every counter, for tests");
MODULE_LICENSE("GPL");
