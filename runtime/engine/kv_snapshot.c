// SPDX-License-Identifier: MIT
/* Snapshots of recurrent state; see kv.h and kv_snapshot.h. */
#include "engine/kv_snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN ((size_t)64)

int kv_snapshots_init(struct kv_cache *kv, int n, struct err *e)
{
	struct kv_snapshots *s = &kv->snapshots;
	int rc;

	*s = (struct kv_snapshots){0};
	if (n < 1 || !kv->plan->state_bytes)
		return 0;
	s->stride = (kv->plan->state_bytes + ALIGN - 1) / ALIGN * ALIGN;
	rc = placement_alloc(&s->mem, s->stride * n, -1, e);
	if (rc)
		return err_prefix(e, rc, "%d snapshots of recurrent state", n);
	s->owner = malloc(n * sizeof(*s->owner));
	s->used = calloc(n, sizeof(*s->used));
	if (!s->owner || !s->used)
		return err_set(e, -ENOMEM, "snapshots: out of memory: free some");
	s->n = n;
	for (int i = 0; i < n; i++)
		s->owner[i] = -1;
	return 0;
}

void kv_snapshots_free(struct kv_cache *kv)
{
	struct kv_snapshots *s = &kv->snapshots;

	if (s->mem.base)
		placement_free(&s->mem);
	free(s->owner);
	free(s->used);
	*s = (struct kv_snapshots){0};
}

void kv_snapshot_touch(struct kv_cache *kv, int32_t page)
{
	int32_t i = kv->page[page].snapshot;

	if (i >= 0)
		kv->snapshots.used[i] = ++kv->snapshots.clock;
}

void kv_snapshot_drop(struct kv_cache *kv, int32_t page)
{
	int32_t i = kv->page[page].snapshot;

	if (i < 0)
		return;
	kv->snapshots.owner[i] = -1;
	kv->page[page].snapshot = -1;
}

void kv_snapshot_move(struct kv_cache *kv, int32_t to, int32_t from)
{
	int32_t i = kv->page[from].snapshot;

	kv->page[from].snapshot = -1;
	kv->page[to].snapshot = i;
	if (i >= 0)
		kv->snapshots.owner[i] = to;
}

int kv_snapshots_count(const struct kv_cache *kv)
{
	int n = 0;

	for (int i = 0; i < kv->snapshots.n; i++)
		n += kv->snapshots.owner[i] >= 0;
	return n;
}

/* A free one, else the one that was used least recently. There are few: states are large. */
static int32_t place(const struct kv_snapshots *s)
{
	int32_t best = 0;

	for (int i = 0; i < s->n; i++) {
		if (s->owner[i] < 0)
			return i;
		if (s->used[i] < s->used[best])
			best = i;
	}
	return best;
}

bool kv_snapshot_put(struct kv_cache *kv, int32_t page, const void *state)
{
	struct kv_snapshots *s = &kv->snapshots;
	struct kv_page *p = &kv->page[page];

	if (!s->n || !p->serial)
		return false;
	if (p->snapshot < 0) {
		int32_t i = place(s);

		if (s->owner[i] >= 0)
			kv->page[s->owner[i]].snapshot = -1;
		s->owner[i] = page;
		p->snapshot = i;
	}
	kv_snapshot_touch(kv, page);
	memcpy((char *)s->mem.base + p->snapshot * s->stride, state, kv->plan->state_bytes);
	return true;
}

const void *kv_snapshot(const struct kv_cache *kv, int32_t page)
{
	int32_t i = kv->page[page].snapshot;

	return i < 0 ? NULL : (const char *)kv->snapshots.mem.base + i * kv->snapshots.stride;
}
