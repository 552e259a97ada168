// SPDX-License-Identifier: GPL-2.0
/* Who has how much of a device: its uids and principals, in a tree. Under device->lock. */
#include "core.h"

#include <linux/slab.h>

struct llm_account *llm_account_get(struct llm_device *dev, u64 key, struct llm_account **spare)
{
	struct rb_node **p = &dev->accounts.rb_node, *parent = NULL;
	struct llm_account *acc;

	while (*p) {
		parent = *p;
		acc = rb_entry(parent, struct llm_account, node);
		if (acc->key == key)
			return acc;
		p = key < acc->key ? &parent->rb_left : &parent->rb_right;
	}
	acc = *spare;
	*spare = NULL;
	*acc = (struct llm_account){.key = key};
	rb_link_node(&acc->node, parent, p);
	rb_insert_color(&acc->node, &dev->accounts);
	return acc;
}

void llm_account_put(struct llm_device *dev, struct llm_account *acc)
{
	if (acc->requests || acc->sessions)
		return;
	rb_erase(&acc->node, &dev->accounts);
	kfree(acc); /* small, never from vmalloc: does not sleep */
}
