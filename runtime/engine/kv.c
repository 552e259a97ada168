// SPDX-License-Identifier: MIT
/* The pool of KV pages; see kv.h. */
#include "engine/kv.h"

#include <errno.h>
#include <stdlib.h>

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

int kv_init(struct kv_cache *kv, struct plan *p, enum kv_type type, int n_pages, struct err *e)
{
	char *base;
	int rc;

	kv->page_bytes = kv_page_bytes(p, type);
	rc = placement_alloc(&kv->mem, kv->page_bytes * n_pages, -1, e);
	if (rc)
		return err_prefix(e, rc, "KV cache of %d tokens", n_pages * KV_PAGE_TOKENS);
	kv->free_page = calloc(n_pages, sizeof(*kv->free_page));
	if (!kv->free_page) {
		placement_free(&kv->mem);
		return err_set(e, -ENOMEM, "KV cache: out of memory: lower --ctx");
	}
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
	return 0;
}

void kv_free(struct kv_cache *kv)
{
	if (!kv->free_page)
		return;
	placement_free(&kv->mem);
	free(kv->free_page);
}

int32_t kv_get_page(struct kv_cache *kv)
{
	return kv->n_free ? kv->free_page[--kv->n_free] : -1;
}

void kv_put_page(struct kv_cache *kv, int32_t page)
{
	kv->free_page[kv->n_free++] = page;
}
