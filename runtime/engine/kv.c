// SPDX-License-Identifier: MIT
/* The pool of KV pages and the prefix cache; see kv.h. */
#include "engine/kv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/kv_snapshot.h"

/* Slots of the swap file at most: what tables for them cost stays bounded. */
#define MAX_SLOTS (1 << 22)

size_t kv_page_bytes(struct plan *p, enum kv_type type)
{
	size_t sum = 0;

	for (int g = 0; g < p->n_groups; g++) {
		struct kv_group *k = &p->group[g];

		k->page_bytes = kv_group_page_bytes(k, type);
		sum += k->page_bytes;
	}
	return sum;
}

static int alloc_tables(struct kv_cache *kv)
{
	size_t n = (size_t)kv->n_pages + kv->swap.n_slots;

	kv->n_buckets = 1;
	while (kv->n_buckets < n)
		kv->n_buckets *= 2;
	kv->free_page = calloc(kv->n_pages, sizeof(*kv->free_page));
	kv->touched = calloc(kv->n_pages, 1);
	kv->page = calloc(n, sizeof(*kv->page));
	kv->page_ids = calloc(n, KV_PAGE_TOKENS * sizeof(*kv->page_ids));
	kv->bucket = malloc(kv->n_buckets * sizeof(*kv->bucket));
	return kv->free_page && kv->touched && kv->page && kv->page_ids && kv->bucket ? 0 : -ENOMEM;
}

static void set_tables(struct kv_cache *kv)
{
	static const struct kv_list none = {.oldest = -1, .newest = -1};
	int n = kv->n_pages;

	kv->n_free = n;
	for (int i = 0; i < n; i++) {
		/* Lowest pages first: a short conversation touches little memory. */
		kv->free_page[i] = n - 1 - i;
		kv->page[i].twin = kv->page[i].snapshot = -1;
	}
	for (uint32_t i = 0; i < kv->n_buckets; i++)
		kv->bucket[i] = -1;
	kv->cached = kv->swapped = kv->copies = none;
}

static int open_swap(struct kv_cache *kv, const struct kv_opts *o, struct err *e)
{
	bool aligned = true;

	kv->swap.fd = -1;
	if (!o->swap_dir)
		return 0;
	for (int g = 0; g < kv->plan->n_groups; g++)
		aligned &= kv->plan->group[g].page_bytes % KV_SWAP_ALIGN == 0;
	return kv_swap_open(&kv->swap, o->swap_dir, o->swap_dir_len,
			    o->swap_bytes ? o->swap_bytes : (uint64_t)-1, kv->page_bytes, aligned,
			    o->swap_bytes ? MAX_SLOTS : o->n_pages, e);
}

int kv_init(struct kv_cache *kv, struct plan *p, const struct kv_opts *o, struct err *e)
{
	char *base;
	int rc;

	*kv = (struct kv_cache){.plan = p, .pool.type = o->type, .n_pages = o->n_pages};
	kv->page_bytes = kv_page_bytes(p, o->type);
	kv->max_cached = o->n_pages;
	if (o->prefix_bytes < 0)
		kv->max_cached = 0;
	else if (o->prefix_bytes && o->prefix_bytes / kv->page_bytes < (uint64_t)o->n_pages)
		kv->max_cached = (int)(o->prefix_bytes / kv->page_bytes);
	rc = open_swap(kv, o, e);
	if (!rc) {
		rc = placement_alloc(&kv->mem, kv->page_bytes * o->n_pages, -1, e);
		if (rc)
			err_prefix(e, rc, "KV cache of %d tokens", o->n_pages * KV_PAGE_TOKENS);
	}
	if (!rc)
		rc = kv_snapshots_init(kv, o->n_snapshots, e);
	if (!rc && alloc_tables(kv))
		rc = err_set(e, -ENOMEM, "KV cache: out of memory: lower --ctx");
	if (rc) {
		kv_free(kv);
		return rc;
	}
	base = kv->mem.base;
	for (int g = 0; g < p->n_groups; g++) {
		kv->pool.base[g] = base;
		base += p->group[g].page_bytes * o->n_pages;
	}
	set_tables(kv);
	return 0;
}

void kv_free(struct kv_cache *kv)
{
	if (!kv->plan)
		return; /* never initialised */
	if (kv->mem.base)
		placement_free(&kv->mem);
	kv_snapshots_free(kv);
	kv_swap_close(&kv->swap);
	free(kv->free_page);
	free(kv->touched);
	free(kv->page);
	free(kv->page_ids);
	free(kv->bucket);
	*kv = (struct kv_cache){0};
}

void kv_stats(const struct kv_cache *kv, struct kv_stats *st)
{
	*st = (struct kv_stats){
		.pages = kv->n_pages,
		.held = kv->n_pages - kv->n_free - kv->cached.n,
		.cached = kv->cached.n,
		.free = kv->n_free,
		.swap_max_pages = kv->swap.n_slots,
		.swap_pages = kv->swapped.n,
		.snapshots = kv_snapshots_count(kv),
		.max_snapshots = kv->snapshots.n,
		.swapped_out = kv->swap.out,
		.swapped_in = kv->swap.in,
		.ns_swap = kv->swap.ns,
		.hit_tokens = kv->prefix_hits,
		.evicted_tokens = kv->prefix_evicted,
		.swap_error = kv->swap.error[0] ? kv->swap.error : NULL,
	};
}

/* ---- lists in order of last use --------------------------------------------------------------- */

static void add_newest(struct kv_cache *kv, struct kv_list *l, int32_t i)
{
	struct kv_page *p = &kv->page[i];

	p->lru_prev = l->newest;
	p->lru_next = -1;
	*(l->newest >= 0 ? &kv->page[l->newest].lru_next : &l->oldest) = i;
	l->newest = i;
	l->n++;
}

static void list_remove(struct kv_cache *kv, struct kv_list *l, int32_t i)
{
	struct kv_page *p = &kv->page[i];

	*(p->lru_prev >= 0 ? &kv->page[p->lru_prev].lru_next : &l->oldest) = p->lru_next;
	*(p->lru_next >= 0 ? &kv->page[p->lru_next].lru_prev : &l->newest) = p->lru_prev;
	l->n--;
}

/* ---- names: pages by what they hold ------------------------------------------------------------ */

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

int32_t kv_look(const struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated)
{
	int32_t i = kv->bucket[bucket_of(kv, parent, ids, generated)];

	while (i >= 0 && (kv->page[i].parent != parent || kv->page[i].generated != generated ||
			  memcmp(ids_of(kv, i), ids, KV_PAGE_TOKENS * sizeof(*ids))))
		i = kv->page[i].next_hash;
	return i;
}

static void name(struct kv_cache *kv, int32_t i, uint64_t serial, uint64_t parent,
		 const int32_t *ids, uint64_t generated)
{
	int32_t *head = &kv->bucket[bucket_of(kv, parent, ids, generated)];
	struct kv_page *p = &kv->page[i];

	memcpy(ids_of(kv, i), ids, KV_PAGE_TOKENS * sizeof(*ids));
	p->serial = serial;
	p->parent = parent;
	p->generated = generated;
	p->next_hash = *head;
	*head = i;
}

static void unname(struct kv_cache *kv, int32_t i)
{
	struct kv_page *p = &kv->page[i];
	int32_t *link = &kv->bucket[bucket_of(kv, p->parent, ids_of(kv, i), p->generated)];

	while (*link != i)
		link = &kv->page[*link].next_hash;
	*link = p->next_hash;
	p->serial = 0;
}

/* Name and snapshot go from a page to its slot, or from a slot to its page. */
static void pass_name(struct kv_cache *kv, int32_t to, int32_t from)
{
	struct kv_page was = kv->page[from];

	unname(kv, from);
	name(kv, to, was.serial, was.parent, ids_of(kv, from), was.generated);
	kv_snapshot_move(kv, to, from);
}

/* The last copy is gone. */
static void forget(struct kv_cache *kv, int32_t i)
{
	unname(kv, i);
	kv_snapshot_drop(kv, i);
}

/* ---- the swap file ------------------------------------------------------------------------------- */

static int page_parts(const struct kv_cache *kv, int32_t page, struct iovec part[KV_MAX_GROUPS])
{
	int n = kv->plan->n_groups;

	for (int g = 0; g < n; g++) {
		size_t bytes = kv->plan->group[g].page_bytes;

		part[g].iov_base = (char *)kv->pool.base[g] + page * bytes;
		part[g].iov_len = bytes;
	}
	return n;
}

/* The file has failed: everything that was only there is lost. */
static void give_up_swap(struct kv_cache *kv)
{
	while (kv->swapped.n) {
		int32_t slot = kv->swapped.oldest;

		list_remove(kv, &kv->swapped, slot);
		forget(kv, slot);
		kv->prefix_evicted += KV_PAGE_TOKENS;
	}
	while (kv->copies.n) {
		int32_t slot = kv->copies.oldest;

		list_remove(kv, &kv->copies, slot);
		kv->page[kv->page[slot].twin].twin = -1;
	}
	kv_swap_close(&kv->swap);
}

/* A slot that may be written: a new one, else one with a copy, else the one used least recently. */
static int32_t empty_slot(struct kv_cache *kv)
{
	int32_t slot;

	if (kv->n_slots_used < kv->swap.n_slots) {
		slot = kv->n_pages + kv->n_slots_used++;
		kv->page[slot].snapshot = -1;
	} else if (kv->copies.n) {
		slot = kv->copies.oldest;
		list_remove(kv, &kv->copies, slot);
		kv->page[kv->page[slot].twin].twin = -1;
	} else if (kv->swapped.n) {
		slot = kv->swapped.oldest;
		list_remove(kv, &kv->swapped, slot);
		forget(kv, slot);
		kv->prefix_evicted += KV_PAGE_TOKENS;
	} else {
		return -1; /* no file, or its only slot is being read */
	}
	return slot;
}

static void pair(struct kv_cache *kv, int32_t page, int32_t slot)
{
	kv->page[page].twin = slot;
	kv->page[slot].twin = page;
	add_newest(kv, &kv->copies, slot);
}

/* Sees to it that the page has a slot with the same content. False: it has none. */
static bool write_back(struct kv_cache *kv, int32_t page)
{
	struct iovec part[KV_MAX_GROUPS];
	int32_t slot;

	if (kv->page[page].twin >= 0)
		return true;
	slot = empty_slot(kv);
	if (slot < 0)
		return false;
	if (!kv_swap_write(&kv->swap, slot - kv->n_pages, part, page_parts(kv, page, part))) {
		give_up_swap(kv);
		return false;
	}
	pair(kv, page, slot);
	return true;
}

/* The page is published no more; its slot, if it has one, now holds the only copy. */
static bool leave_to_slot(struct kv_cache *kv, int32_t page)
{
	int32_t slot = kv->page[page].twin;

	if (slot < 0)
		return false;
	kv->page[page].twin = -1;
	list_remove(kv, &kv->copies, slot);
	pass_name(kv, slot, page);
	add_newest(kv, &kv->swapped, slot);
	return true;
}

/* The page, unpublished, holds what the slot holds (which is in no list): it takes over the name. */
static void take_from_slot(struct kv_cache *kv, int32_t page, int32_t slot)
{
	pass_name(kv, page, slot);
	pair(kv, page, slot);
}

static int32_t read_back(struct kv_cache *kv, int32_t slot)
{
	struct iovec part[KV_MAX_GROUPS];
	int32_t page;

	/* Out of the list: making room must not write over it. */
	list_remove(kv, &kv->swapped, slot);
	page = kv_get_page(kv);
	if (page < 0) {
		add_newest(kv, &kv->swapped, slot);
		return -1;
	}
	/* Making room may have ended the file. */
	if (kv->swap.fd < 0 ||
	    !kv_swap_read(&kv->swap, slot - kv->n_pages, part, page_parts(kv, page, part))) {
		forget(kv, slot);
		kv->prefix_evicted += KV_PAGE_TOKENS;
		give_up_swap(kv);
		kv_put_page(kv, page);
		return -1;
	}
	take_from_slot(kv, page, slot);
	return page;
}

/* ---- references ---------------------------------------------------------------------------------- */

/* Takes the oldest cached page out of the cache. It is nobody's then. */
static int32_t evict(struct kv_cache *kv)
{
	int32_t page = kv->cached.oldest;

	list_remove(kv, &kv->cached, page);
	write_back(kv, page);
	if (!leave_to_slot(kv, page)) {
		forget(kv, page);
		kv->prefix_evicted += KV_PAGE_TOKENS;
	}
	return page;
}

int32_t kv_get_page(struct kv_cache *kv)
{
	int32_t i;

	if (kv->n_free)
		i = kv->free_page[--kv->n_free];
	else if (kv->cached.n)
		i = evict(kv);
	else
		return -1;
	kv->page[i].refs = 1;
	kv->touched[i] = 1;
	return i;
}

void kv_ref_page(struct kv_cache *kv, int32_t page)
{
	if (!kv->page[page].refs++)
		list_remove(kv, &kv->cached, page);
}

void kv_put_page(struct kv_cache *kv, int32_t page)
{
	if (--kv->page[page].refs)
		return;
	if (kv->page[page].serial) {
		add_newest(kv, &kv->cached, page);
		if (kv->cached.n <= kv->max_cached)
			return;
		page = evict(kv);
	}
	kv->free_page[kv->n_free++] = page;
}

/* The whole pages of the system that lie in it; the ends may be a neighbour's too. */
static void give_back(const char *base, size_t bytes)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)base, to = from + bytes;

	from = (from + page - 1) / page * page;
	to = to / page * page;
	if (from < to)
		madvise((void *)from, to - from, MADV_DONTNEED);
}

uint64_t kv_shed(struct kv_cache *kv)
{
	uint64_t bytes = 0;

	while (kv->cached.n)
		kv->free_page[kv->n_free++] = evict(kv);
	for (int i = 0; i < kv->n_free; i++) {
		int32_t page = kv->free_page[i];

		if (!kv->touched[page])
			continue;
		kv->touched[page] = 0;
		bytes += kv->page_bytes;
		for (int g = 0; g < kv->plan->n_groups; g++) {
			size_t n = kv->plan->group[g].page_bytes;

			give_back((char *)kv->pool.base[g] + page * n, n);
		}
	}
	return bytes;
}

/* ---- publication --------------------------------------------------------------------------------- */

int32_t kv_find(const struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated)
{
	int32_t i = kv_look(kv, parent, ids, generated);

	return i < kv->n_pages ? i : -1;
}

int32_t kv_take(struct kv_cache *kv, uint64_t parent, const int32_t ids[KV_PAGE_TOKENS],
		uint64_t generated)
{
	int32_t i = kv_look(kv, parent, ids, generated);

	if (i >= kv->n_pages)
		i = read_back(kv, i);
	else if (i >= 0)
		kv_ref_page(kv, i);
	if (i >= 0)
		kv_snapshot_touch(kv, i);
	return i;
}

void kv_publish(struct kv_cache *kv, int32_t page, uint64_t parent,
		const int32_t ids[KV_PAGE_TOKENS], uint64_t generated)
{
	int32_t slot = kv_look(kv, parent, ids, generated);

	if (slot >= kv->n_pages) { /* it was computed again rather than read */
		list_remove(kv, &kv->swapped, slot);
		take_from_slot(kv, page, slot);
	} else {
		name(kv, page, ++kv->last_serial, parent, ids, generated);
	}
}

void kv_unpublish(struct kv_cache *kv, int32_t page)
{
	if (!leave_to_slot(kv, page))
		forget(kv, page);
}

void kv_copy_page(struct kv_cache *kv, int32_t to, int32_t from)
{
	for (int g = 0; g < kv->plan->n_groups; g++) {
		size_t bytes = kv->plan->group[g].page_bytes;
		char *base = kv->pool.base[g];

		memcpy(base + to * bytes, base + from * bytes, bytes);
	}
}
