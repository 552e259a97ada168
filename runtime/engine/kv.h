/* SPDX-License-Identifier: MIT */
/*
 * The pool of KV pages, and the prefix cache that lives in it.
 *
 * A page index stands for KV_PAGE_TOKENS positions in every layer group at once. A page is free, or
 * held by sessions (refs > 0), or kept only because it is cached (refs == 0). Of the last kind there
 * are no more than the byte bound allows; the oldest gives way.
 *
 * A page whose positions are all computed can be published: it is then found by what it holds - the
 * ids, and the page before it - and shared. Published pages are never written. The chain is exact:
 * a page is named by a serial number that is never used twice, a lookup compares the ids and the
 * serial of the page before; no hash is trusted. Sequences of different principals start from
 * different roots, so nobody learns from the speed of an answer what somebody else asked.
 *
 * With a swap file (kv_swap.h) a published page that must leave the pool moves to a slot of the
 * file. It is found there under the same name, so that the pages after it stay reachable. A page
 * that was read back keeps its slot, as a copy that needs no second writing, until the slot is
 * wanted for another page; copies are given up before slots that hold the only one. When the file is full
 * the page that was used least recently is lost. A failed transfer ends the file: what was in it is
 * computed again, nothing else changes, kv->swap.error says why.
 *
 * Recurrent layers cannot start in the middle from K and V alone: a published page may carry a
 * snapshot of the sequence's state after its last position. Snapshots stand in a bounded pool of
 * their own, in memory; they follow their page into the swap file and back in name only. The one
 * that was used least recently gives way.
 *
 * Driven by the engine's thread; a call does at most one transfer in each direction. Memory is
 * touched when first used.
 */
#ifndef LLMDEV_ENGINE_KV_H
#define LLMDEV_ENGINE_KV_H

#include "backend/ops.h"
#include "engine/kv_swap.h"
#include "weights/placement.h"

struct kv_opts {
	enum kv_type type;
	int n_pages;
	int64_t prefix_bytes;   /* of pages that only the cache keeps, in memory; 0: no bound but the
				 * pool, < 0: none. Less than a page is none */
	const char *swap_dir;   /* NULL: no swap file */
	size_t swap_dir_len;    /* bytes of it, 0: to its end */
	uint64_t swap_bytes;    /* 0: as much as the pool */
	int n_snapshots;        /* of plan->state_bytes each; 0: none */
};

/* A page of the pool, or, behind those, a slot of the swap file. */
struct kv_page {
	int32_t refs;                   /* sessions that hold it; slots: 0 */
	int32_t next_hash;              /* in its bucket, -1 at the end */
	int32_t lru_prev, lru_next;     /* towards older, newer; -1 at the ends */
	int32_t twin;                   /* the slot that holds the same, the page; -1: none */
	int32_t snapshot;               /* -1: none */
	uint64_t serial;                /* 0: not published; of a slot with a twin: not used */
	uint64_t parent;                /* serial of the page before, or the principal's root */
	uint64_t generated;             /* which of its positions were computed as generated tokens */
};

struct kv_list {
	int32_t oldest, newest; /* -1: empty */
	int n;
};

/* Private to kv_snapshot.c. */
struct kv_snapshots {
	struct placement mem;
	size_t stride;
	int n;                  /* places */
	int32_t *owner;         /* [n] index into kv->page, -1: free */
	uint64_t *used;         /* [n] when */
	uint64_t clock;
};

struct kv_cache {
	struct placement mem;
	struct plan *plan;              /* geometry of the pages, borrowed */
	struct kv_pool pool;
	int n_pages, n_free;
	int32_t *free_page;             /* stack of free page indices */
	uint8_t *touched;               /* [n_pages] 1: the page has memory */
	struct kv_page *page;           /* [n_pages + slots of the swap file] */
	int32_t *page_ids;              /* [as many][KV_PAGE_TOKENS] what published pages hold */
	int32_t *bucket;                /* [n_buckets], a power of two */
	uint32_t n_buckets;
	struct kv_list cached;          /* pages that nobody holds */
	int max_cached;
	uint64_t last_serial;
	size_t page_bytes;              /* of all groups together */

	struct kv_swap swap;
	int n_slots_used;               /* slots that were ever written: from 0 on */
	struct kv_list swapped;         /* slots that hold the only copy */
	struct kv_list copies;          /* slots whose page is in the pool too */
	struct kv_snapshots snapshots;
	/* since the start, in tokens */
	uint64_t prefix_hits;           /* counted by the pool's user */
	uint64_t prefix_evicted;        /* published, lost from the pool and the file */
};

struct kv_stats {
	int pages, held, cached, free;          /* pages = held + cached + free */
	int swap_max_pages;                     /* 0: no swap file, or given up */
	int swap_pages;                         /* only in the file */
	int snapshots, max_snapshots;
	uint64_t swapped_out, swapped_in;       /* pages written, read since the start */
	uint64_t ns_swap;
	uint64_t hit_tokens, evicted_tokens;
	const char *swap_error;                 /* why the file was given up, NULL; the cache's */
};

/* Bytes of one page over all groups; also sets each group's page_bytes. */
size_t kv_page_bytes(struct plan *p, enum kv_type type);
/* `p` must outlive the cache. `kv` is zeroed, or was freed. */
int kv_init(struct kv_cache *kv, struct plan *p, const struct kv_opts *o, struct err *e);
void kv_free(struct kv_cache *kv);
void kv_stats(const struct kv_cache *kv, struct kv_stats *st);

/* A page with one reference, taken from the free ones or from the oldest cached one; -1: none. */
int32_t kv_get_page(struct kv_cache *kv);
void kv_ref_page(struct kv_cache *kv, int32_t page);
/* The last reference of a published page leaves it in the cache, as the newest. */
void kv_put_page(struct kv_cache *kv, int32_t page);
/* Pages that kv_get_page() could give. */
static inline int kv_available(const struct kv_cache *kv)
{
	return kv->n_free + kv->cached.n;
}

/*
 * Memory is wanted elsewhere: drops the pages that only the cache keeps, or moves them to the swap
 * file, and gives the memory of all free pages back. Returns its bytes. They are touched again when
 * they are next used.
 */
uint64_t kv_shed(struct kv_cache *kv);

/* The parent of a principal's first page. */
uint64_t kv_root(uint64_t principal);
/*
 * The published page with these ids behind `parent`, -1 if there is none in memory. Takes no
 * reference. `generated` has a bit for every position (0: the first) that was computed as a
 * generated token; 0 where the backend computes both alike (see backend->split_classes).
 */
int32_t kv_find(const struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated);
/*
 * The same, but also what is only in the swap file (an index behind the pool's pages): to ask for its
 * serial or its snapshot before it is worth reading back.
 */
int32_t kv_look(const struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated);
/* The same as kv_find() with a reference, and read back from the swap file if it is there; -1: none, or no room. */
int32_t kv_take(struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated);
/*
 * Make a full page findable. The caller has looked for an equal one in memory before; to one in the
 * swap file it becomes the twin, under the same serial.
 */
void kv_publish(struct kv_cache *kv, int32_t page, uint64_t parent,
		const int32_t ids[KV_PAGE_TOKENS], uint64_t generated);
/*
 * Forget that it is published, so that it may be written again. The caller holds the only
 * reference. A copy in the swap file stays, and stays findable.
 */
void kv_unpublish(struct kv_cache *kv, int32_t page);
/* K and V of every layer. */
void kv_copy_page(struct kv_cache *kv, int32_t to, int32_t from);

/*
 * Keep a copy of the recurrent state, plan->state_bytes, after the last position of a published
 * page; replaces an earlier one. False: there are no places. Taking the page counts as using it.
 */
bool kv_snapshot_put(struct kv_cache *kv, int32_t page, const void *state);
/* Of a page, or of what kv_look() gave. NULL: there is none. Valid until the next call that puts a snapshot, or lets the page go. */
const void *kv_snapshot(const struct kv_cache *kv, int32_t page);

static inline int kv_pages_for(int tokens)
{
	return (tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
}

#endif
