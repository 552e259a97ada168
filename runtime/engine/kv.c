// SPDX-License-Identifier: MIT
/* The pool of KV pages and the prefix cache; see kv.h. */
#include "engine/kv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

size_t kv_page_bytes(struct plan *p, enum kv_type type)
{
	size_t sum = 0;

	for (int g = 0; g < p->n_groups; g++) {
		struct kv_group *k = &p->group[g];

		k->page_bytes = (size_t)k->n_layers * 2 * k->n_heads * KV_PAGE_TOKENS *
				k->head_dim * (type == KV_F32 ? 4 : 2);
		sum += k->page_bytes;
	}
	return sum;
}

static int alloc_tables(struct kv_cache *kv, int n_pages)
{
	kv->n_buckets = 1;
	while (kv->n_buckets < (uint32_t)n_pages)
		kv->n_buckets *= 2;
	kv->free_page = calloc(n_pages, sizeof(*kv->free_page));
	kv->page = calloc(n_pages, sizeof(*kv->page));
	kv->page_ids = calloc(n_pages, KV_PAGE_TOKENS * sizeof(*kv->page_ids));
	kv->bucket = malloc(kv->n_buckets * sizeof(*kv->bucket));
	return kv->free_page && kv->page && kv->page_ids && kv->bucket ? 0 : -ENOMEM;
}

int kv_init(struct kv_cache *kv, struct plan *p, enum kv_type type, int n_pages, struct err *e)
{
	char *base;
	int rc;

	kv->page_bytes = kv_page_bytes(p, type);
	rc = placement_alloc(&kv->mem, kv->page_bytes * n_pages, -1, e);
	if (rc)
		return err_prefix(e, rc, "KV cache of %d tokens", n_pages * KV_PAGE_TOKENS);
	if (alloc_tables(kv, n_pages)) {
		kv_free(kv);
		return err_set(e, -ENOMEM, "KV cache: out of memory: lower --ctx");
	}
	kv->plan = p;
	kv->pool.type = type;
	base = kv->mem.base;
	for (int g = 0; g < p->n_groups; g++) {
		kv->pool.base[g] = base;
		base += p->group[g].page_bytes * n_pages;
	}
	kv->n_pages = kv->n_free = n_pages;
	/* Lowest pages first: a short conversation touches little memory. */
	for (int i = 0; i < n_pages; i++)
		kv->free_page[i] = n_pages - 1 - i;
	for (uint32_t i = 0; i < kv->n_buckets; i++)
		kv->bucket[i] = -1;
	kv->lru_oldest = kv->lru_newest = -1;
	return 0;
}

void kv_free(struct kv_cache *kv)
{
	if (kv->mem.base)
		placement_free(&kv->mem);
	free(kv->free_page);
	free(kv->page);
	free(kv->page_ids);
	free(kv->bucket);
}

/* ---- LRU of pages that only the cache holds -------------------------------------------------- */

static void lru_add_newest(struct kv_cache *kv, int32_t i)
{
	struct kv_page *p = &kv->page[i];

	p->lru_prev = kv->lru_newest;
	p->lru_next = -1;
	*(kv->lru_newest >= 0 ? &kv->page[kv->lru_newest].lru_next : &kv->lru_oldest) = i;
	kv->lru_newest = i;
	kv->n_lru++;
}

static void lru_remove(struct kv_cache *kv, int32_t i)
{
	struct kv_page *p = &kv->page[i];

	*(p->lru_prev >= 0 ? &kv->page[p->lru_prev].lru_next : &kv->lru_oldest) = p->lru_next;
	*(p->lru_next >= 0 ? &kv->page[p->lru_next].lru_prev : &kv->lru_newest) = p->lru_prev;
	kv->n_lru--;
}

/* ---- references ------------------------------------------------------------------------------ */

int32_t kv_get_page(struct kv_cache *kv)
{
	int32_t i;

	if (kv->n_free) {
		i = kv->free_page[--kv->n_free];
	} else if (kv->n_lru) {
		i = kv->lru_oldest;
		lru_remove(kv, i);
		kv_unpublish(kv, i);
		kv->prefix_evicted += KV_PAGE_TOKENS;
	} else {
		return -1;
	}
	kv->page[i].refs = 1;
	return i;
}

void kv_ref_page(struct kv_cache *kv, int32_t page)
{
	if (!kv->page[page].refs++)
		lru_remove(kv, page);
}

void kv_put_page(struct kv_cache *kv, int32_t page)
{
	if (--kv->page[page].refs)
		return;
	if (kv->page[page].serial)
		lru_add_newest(kv, page);
	else
		kv->free_page[kv->n_free++] = page;
}

/* ---- publication ------------------------------------------------------------------------------- */

/* splitmix64's finaliser (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators). */
static uint64_t scramble(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint64_t kv_root(uint64_t principal)
{
	return principal | 1ull << 63; /* serials never get there */
}

static uint32_t bucket_of(const struct kv_cache *kv, uint64_t parent, const int32_t *ids,
			  uint64_t generated)
{
	uint64_t h = scramble(scramble(parent) ^ generated);

	for (int i = 0; i < KV_PAGE_TOKENS; i += 2)
		h = scramble(h ^ ((uint64_t)(uint32_t)ids[i] << 32 | (uint32_t)ids[i + 1]));
	return (uint32_t)h & (kv->n_buckets - 1);
}

static int32_t *ids_of(const struct kv_cache *kv, int32_t page)
{
	return kv->page_ids + (size_t)page * KV_PAGE_TOKENS;
}

int32_t kv_find(const struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated)
{
	int32_t i = kv->bucket[bucket_of(kv, parent, ids, generated)];

	while (i >= 0 && (kv->page[i].parent != parent || kv->page[i].generated != generated ||
			  memcmp(ids_of(kv, i), ids, KV_PAGE_TOKENS * sizeof(*ids))))
		i = kv->page[i].next_hash;
	return i;
}

int32_t kv_take(struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated)
{
	int32_t page = kv_find(kv, parent, ids, generated);

	if (page >= 0)
		kv_ref_page(kv, page);
	return page;
}

void kv_publish(struct kv_cache *kv, int32_t page, uint64_t parent,
		const int32_t ids[KV_PAGE_TOKENS], uint64_t generated)
{
	int32_t *head = &kv->bucket[bucket_of(kv, parent, ids, generated)];
	struct kv_page *p = &kv->page[page];

	memcpy(ids_of(kv, page), ids, KV_PAGE_TOKENS * sizeof(*ids));
	p->parent = parent;
	p->generated = generated;
	p->serial = ++kv->last_serial;
	p->next_hash = *head;
	*head = page;
}

void kv_unpublish(struct kv_cache *kv, int32_t page)
{
	struct kv_page *p = &kv->page[page];
	int32_t *link = &kv->bucket[bucket_of(kv, p->parent, ids_of(kv, page), p->generated)];

	while (*link != page)
		link = &kv->page[*link].next_hash;
	*link = p->next_hash;
	p->serial = 0;
}

void kv_copy_page(struct kv_cache *kv, int32_t to, int32_t from)
{
	for (int g = 0; g < kv->plan->n_groups; g++) {
		size_t bytes = kv->plan->group[g].page_bytes;
		char *base = kv->pool.base[g];

		memcpy(base + to * bytes, base + from * bytes, bytes);
	}
}
