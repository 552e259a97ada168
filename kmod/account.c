// SPDX-License-Identifier: GPL-2.0
/*
 * Who has how many unfinished requests. Owns nothing: accounts stand in trees of their users, under
 * their users' locks, and are allocated and freed by them.
 */
#include "core.h"

#include <linux/slab.h>

struct llm_account *llm_account_charge(struct llm_accounts *a, u64 key, unsigned int max,
				       struct llm_account **spare)
{
	struct rb_node **p = &a->root.rb_node, *parent = NULL;
	struct llm_account *acc;

	while (*p) {
		parent = *p;
		acc = rb_entry(parent, struct llm_account, node);
		if (acc->key == key) {
			if (acc->count >= max)
				return NULL;
			acc->count++;
			return acc;
		}
		p = key < acc->key ? &parent->rb_left : &parent->rb_right;
	}
	if (!max)
		return NULL;
	acc = *spare;
	*spare = NULL;
	acc->key = key;
	acc->count = 1;
	rb_link_node(&acc->node, parent, p);
	rb_insert_color(&acc->node, &a->root);
	return acc;
}

struct llm_account *llm_account_release(struct llm_accounts *a, struct llm_account *acc)
{
	if (!acc || --acc->count)
		return NULL;
	rb_erase(&acc->node, &a->root);
	return acc;
}
