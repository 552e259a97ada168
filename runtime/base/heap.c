// SPDX-License-Identifier: MIT
/* A binary heap; see heap.h. Textbook sifting (Williams, Algorithm 232). */
#include "base/heap.h"

#include <errno.h>
#include <stdlib.h>

int heap_reserve(struct heap *h, int n)
{
	int cap = h->cap ? h->cap : 8;
	struct heap_node **node;

	if (n <= h->cap)
		return 0;
	while (cap < n)
		cap *= 2;
	node = realloc(h->node, (size_t)cap * sizeof(*node));
	if (!node)
		return -ENOMEM;
	h->node = node;
	h->cap = cap;
	return 0;
}

void heap_free(struct heap *h)
{
	free(h->node);
	h->node = NULL;
	h->n = h->cap = 0;
}

static void put(struct heap *h, int i, struct heap_node *node)
{
	h->node[i] = node;
	node->index = i;
}

static void sift_up(struct heap *h, int i, struct heap_node *node)
{
	while (i && h->before(node, h->node[(i - 1) / 2])) {
		put(h, i, h->node[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	put(h, i, node);
}

static void sift_down(struct heap *h, int i, struct heap_node *node)
{
	for (int child; (child = 2 * i + 1) < h->n; i = child) {
		if (child + 1 < h->n && h->before(h->node[child + 1], h->node[child]))
			child++;
		if (!h->before(h->node[child], node))
			break;
		put(h, i, h->node[child]);
	}
	put(h, i, node);
}

void heap_push(struct heap *h, struct heap_node *node)
{
	sift_up(h, h->n++, node);
}

void heap_update(struct heap *h, struct heap_node *node)
{
	int i = node->index;

	if (i && h->before(node, h->node[(i - 1) / 2]))
		sift_up(h, i, node);
	else
		sift_down(h, i, node);
}

void heap_remove(struct heap *h, struct heap_node *node)
{
	int i = node->index;
	struct heap_node *last;

	if (i < 0)
		return;
	node->index = -1;
	last = h->node[--h->n];
	if (last == node)
		return;
	put(h, i, last);
	heap_update(h, last);
}
