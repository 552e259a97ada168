/* SPDX-License-Identifier: MIT */
/*
 * The pool of KV pages, and the prefix cache that lives in it.
 *
 * A page index stands for KV_PAGE_TOKENS positions in every layer group at once. A page is free, or
 * held by sessions (refs > 0), or kept only because it is cached (refs == 0, in the LRU list).
 *
 * A page whose positions are all computed can be published: it is then found by what it holds - the
 * ids, and the page before it - and shared. Published pages are never written. The chain is exact:
 * a page is named by a serial number that is never used twice, a lookup compares the ids and the
 * serial of the page before; no hash is trusted. Sequences of different principals start from
 * different roots, so nobody learns from the speed of an answer what somebody else asked.
 *
 * Driven by the engine's thread. Memory is touched when first used.
 */
#ifndef LLMDEV_ENGINE_KV_H
#define LLMDEV_ENGINE_KV_H

#include "backend/ops.h"
#include "weights/placement.h"

struct kv_page {
	int32_t refs;                   /* sessions that hold it */
	int32_t next_hash;              /* in its bucket, -1 at the end */
	int32_t lru_prev, lru_next;     /* towards older, newer; -1 at the ends */
	uint64_t serial;                /* 0: not published */
	uint64_t parent;                /* serial of the page before, or the principal's root */
	uint64_t generated;             /* which of its positions were computed as generated tokens */
};

struct kv_cache {
	struct placement mem;
	struct plan *plan;              /* geometry of the pages, borrowed */
	struct kv_pool pool;
	int n_pages, n_free, n_lru;
	int32_t *free_page;             /* stack of free page indices */
	struct kv_page *page;
	int32_t *page_ids;              /* [n_pages][KV_PAGE_TOKENS] what published pages hold */
	int32_t *bucket;                /* [n_buckets], a power of two */
	uint32_t n_buckets;
	int32_t lru_oldest, lru_newest;
	uint64_t last_serial;
	size_t page_bytes;              /* of all groups together */
	/* since the start, in tokens */
	uint64_t prefix_hits, prefix_evicted;
};

/* Bytes of one page over all groups; also sets each group's page_bytes. */
size_t kv_page_bytes(struct plan *p, enum kv_type type);
/* `p` must outlive the cache. */
int kv_init(struct kv_cache *kv, struct plan *p, enum kv_type type, int n_pages, struct err *e);
void kv_free(struct kv_cache *kv);

/* A page with one reference, taken from the free ones or from the oldest cached one; -1: none. */
int32_t kv_get_page(struct kv_cache *kv);
void kv_ref_page(struct kv_cache *kv, int32_t page);
/* The last reference of a published page leaves it in the cache, as the newest. */
void kv_put_page(struct kv_cache *kv, int32_t page);
/* Pages that kv_get_page() could give. */
static inline int kv_available(const struct kv_cache *kv)
{
	return kv->n_free + kv->n_lru;
}

/* The parent of a principal's first page. */
uint64_t kv_root(uint64_t principal);
/*
 * The published page with these ids behind `parent`, -1 if there is none in memory. Takes no
 * reference. `generated` has a bit for every position (0: the first) that was computed as a
 * generated token; 0 where the backend computes both alike (see backend->split_classes).
 */
int32_t kv_find(const struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated);
/* The same with a reference, and read back from the swap file if it is there; -1: none, or no room. */
int32_t kv_take(struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated);
/* Make a full page findable. The caller has looked for an equal one before. */
void kv_publish(struct kv_cache *kv, int32_t page, uint64_t parent,
		const int32_t ids[KV_PAGE_TOKENS], uint64_t generated);
/* Forget that it is published, so that it may be written again. The caller holds the only reference. */
void kv_unpublish(struct kv_cache *kv, int32_t page);
/* K and V of every layer. */
void kv_copy_page(struct kv_cache *kv, int32_t to, int32_t from);

static inline int kv_pages_for(int tokens)
{
	return (tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
}

#endif
