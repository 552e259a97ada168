// SPDX-License-Identifier: GPL-2.0
/*
 * A module with one bug of each kind that the debug kernel is there to find, chosen by the parameter:
 * whether it is found, and fails the run, is what tests/vm/check-planted tests.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>

static char *bug = "";
module_param(bug, charp, 0444);

static DEFINE_MUTEX(a);
static DEFINE_MUTEX(b);
static DEFINE_SPINLOCK(spin);
static volatile int bits = 40; /* the compiler must not know */
static volatile int sink;

static void in_order(struct mutex *first, struct mutex *second)
{
	mutex_lock(first);
	mutex_lock(second);
	mutex_unlock(second);
	mutex_unlock(first);
}

static void use_after_free(void)
{
	volatile char *p = kmalloc(64, GFP_KERNEL);

	kfree((void *)p);
	sink = p[3];
}

static int __init planted_init(void)
{
	if (!strcmp(bug, "leak")) {
		sink = !kmalloc(100, GFP_KERNEL);
	} else if (!strcmp(bug, "free")) {
		use_after_free();
	} else if (!strcmp(bug, "order")) {
		in_order(&a, &b);
		in_order(&b, &a);
	} else if (!strcmp(bug, "shift")) {
		sink = 1 << bits;
	} else if (!strcmp(bug, "sleep")) {
		spin_lock(&spin);
		msleep(1);
		spin_unlock(&spin);
	}
	return 0;
}

static void __exit planted_exit(void)
{
}

module_init(planted_init);
module_exit(planted_exit);
MODULE_DESCRIPTION("Bugs for a test");
MODULE_LICENSE("GPL");
