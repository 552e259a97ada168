/* SPDX-License-Identifier: MIT */
/*
 * The pool of KV pages. A page index stands for KV_PAGE_TOKENS positions in every layer group at
 * once. Owned by the engine; pages belong to exactly one session. Memory is touched when first used.
 */
#ifndef LLMDEV_ENGINE_KV_H
#define LLMDEV_ENGINE_KV_H

#include "backend/ops.h"
#include "weights/placement.h"

struct kv_cache {
	struct placement mem;
	struct kv_pool pool;
	int n_pages, n_free;
	int32_t *free_page;             /* stack of free page indices */
	size_t page_bytes;              /* of all groups together */
};

/* Bytes of one page over all groups; also sets each group's page_bytes. */
size_t kv_page_bytes(struct plan *p, enum kv_type type);
int kv_init(struct kv_cache *kv, struct plan *p, enum kv_type type, int n_pages, struct err *e);
void kv_free(struct kv_cache *kv);

/* -1 if none is free. */
int32_t kv_get_page(struct kv_cache *kv);
void kv_put_page(struct kv_cache *kv, int32_t page);

static inline int kv_pages_for(int tokens)
{
	return (tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
}

#endif
