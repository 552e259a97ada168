/* SPDX-License-Identifier: MIT */
/*
 * A binary heap of nodes that are embedded in what they order. The element that comes before all
 * others is at the front; push, removal and reordering of one take O(log n).
 *
 * Room is reserved ahead, so that pushing cannot fail where failure would come at a bad time.
 */
#ifndef LLMDEV_HEAP_H
#define LLMDEV_HEAP_H

#include <stdbool.h>
#include <stddef.h>

struct heap_node {
	int index; /* in the heap; -1: in none */
};

struct heap {
	struct heap_node **node;
	int n, cap;
	/* Whether a comes before b. A strict order; it may only change around heap_update(). */
	bool (*before)(const struct heap_node *a, const struct heap_node *b);
};

#define heap_entry(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

/* Make room for n nodes in all. -ENOMEM leaves the heap as it was. */
int heap_reserve(struct heap *h, int n);
void heap_free(struct heap *h);
/* There must be room. */
void heap_push(struct heap *h, struct heap_node *node);
/* A node that is in no heap is left alone. */
void heap_remove(struct heap *h, struct heap_node *node);
/* The node's place in the order may have changed. */
void heap_update(struct heap *h, struct heap_node *node);

static inline struct heap_node *heap_first(const struct heap *h)
{
	return h->n ? h->node[0] : NULL;
}

#endif
