// SPDX-License-Identifier: MIT
/*
 * Sessions: which tokens of a conversation are computed, and the pages that hold them.
 *
 * A session without a running request keeps its pages until others need them. Full pages are
 * published as they are computed, so that another session that begins alike takes them instead of
 * computing; one that would write into a shared page copies it first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_internal.h"

static void unlink_session(struct session *s)
{
	struct engine *en = s->en;

	*(s->prev ? &s->prev->next : &en->sessions) = s->next;
	*(s->next ? &s->next->prev : &en->sessions_tail) = s->prev;
}

static void link_first(struct session *s)
{
	struct engine *en = s->en;

	s->prev = NULL;
	s->next = en->sessions;
	*(s->next ? &s->next->prev : &en->sessions_tail) = s;
	en->sessions = s;
}

int engine_session_open(struct engine *en, struct session **out, struct err *e)
{
	struct session *s = calloc(1, sizeof(*s));

	if (s) {
		s->en = en;
		s->ids = calloc(en->ctx, sizeof(*s->ids));
		s->pages = calloc(kv_pages_for(en->ctx), sizeof(*s->pages));
	}
	if (!s || !s->ids || !s->pages) {
		if (s) {
			free(s->ids);
			free(s->pages);
		}
		free(s);
		return err_set(e, -ENOMEM, "session: out of memory: close some");
	}
	link_first(s);
	*out = s;
	return 0;
}

void engine_session_close(struct session *s)
{
	sched_cancel_session(s);
	session_truncate(s, 0);
	unlink_session(s);
	free(s->ids);
	free(s->pages);
	free(s);
}

/*
 * The last page is partly kept and will be written: it must be the session's alone. Where no page
 * for a copy is to be had, its tokens are given up and computed again.
 */
static void own_last_page(struct session *s)
{
	struct kv_cache *kv = &s->en->kv;
	int last = s->n_pages - 1;
	int32_t page, copy;

	if (last >= s->n_published)
		return;
	s->n_published = last;
	page = s->pages[last];
	if (kv->page[page].refs == 1) {
		kv_unpublish(kv, page);
		return;
	}
	copy = kv_get_page(kv);
	if (copy >= 0) {
		kv_copy_page(kv, copy, page);
		s->pages[last] = copy;
	} else {
		s->n_cached = last * KV_PAGE_TOKENS;
		s->n_pages = last;
	}
	kv_put_page(kv, page);
}

void session_truncate(struct session *s, int n)
{
	if (n < s->n_cached)
		s->n_cached = n;
	/* From the end: the cache lets its oldest pages go first, and those should be the ends. */
	while (s->n_pages > kv_pages_for(s->n_cached)) {
		kv_put_page(&s->en->kv, s->pages[--s->n_pages]);
		s->en->blocked = false;
	}
	if (s->n_published > s->n_pages)
		s->n_published = s->n_pages;
	if (s->n_cached % KV_PAGE_TOKENS)
		own_last_page(s);
	s->n_ids = s->n_cached;
}

/* What a published page at index i has before it. */
static uint64_t parent_of(const struct session *s, int i)
{
	return i ? s->en->kv.page[s->pages[i - 1]].serial : kv_root(s->principal);
}

/*
 * Replace what the session has behind its first `from` pages by cached pages of ids[0..n). False:
 * there are none, nothing was changed.
 */
static bool take_cached_pages(struct session *s, const int32_t *ids, int n, int from)
{
	struct kv_cache *kv = &s->en->kv;
	int i;

	for (i = from; (i + 1) * KV_PAGE_TOKENS <= n; i++) {
		int32_t page = kv_take(kv, parent_of(s, i), ids + i * KV_PAGE_TOKENS, 0);

		if (page < 0)
			break;
		if (i == from)
			session_truncate(s, from * KV_PAGE_TOKENS);
		kv->prefix_hits += KV_PAGE_TOKENS;
		s->pages[s->n_pages++] = page;
		s->n_published++;
		s->n_cached += KV_PAGE_TOKENS;
	}
	return i > from;
}

int session_enter(struct session *s, const int32_t *ids, int n)
{
	int same = 0;

	while (same < s->n_cached && same < n - 1 && s->ids[same] == ids[same])
		same++;
	if (!take_cached_pages(s, ids, n - 1, same / KV_PAGE_TOKENS))
		session_truncate(s, same);
	memcpy(s->ids, ids, n * sizeof(*ids));
	s->n_ids = n;
	return s->n_cached;
}

void session_computed(struct session *s, int n)
{
	struct kv_cache *kv = &s->en->kv;

	s->n_cached += n;
	for (int i = s->n_published; (i + 1) * KV_PAGE_TOKENS <= s->n_cached; i++) {
		const int32_t *ids = s->ids + i * KV_PAGE_TOKENS;
		uint64_t parent = parent_of(s, i);
		int32_t twin = kv_find(kv, parent, ids, 0);

		if (twin < 0) {
			kv_publish(kv, s->pages[i], parent, ids, 0);
		} else { /* somebody computed the same meanwhile: one copy will do */
			kv_ref_page(kv, twin);
			kv_put_page(kv, s->pages[i]);
			s->pages[i] = twin;
		}
		s->n_published++;
	}
}

void session_touch(struct session *s)
{
	unlink_session(s);
	link_first(s);
}

bool session_make_room(struct engine *en, int pages)
{
	for (struct session *s = en->sessions_tail; s && kv_available(&en->kv) < pages; s = s->prev)
		if (!s->active)
			session_truncate(s, 0);
	return kv_available(&en->kv) >= pages;
}

bool session_reserve(struct session *s, int n)
{
	while (s->n_pages < kv_pages_for(n)) {
		int32_t page = kv_get_page(&s->en->kv);

		if (page < 0)
			return false;
		s->pages[s->n_pages++] = page;
	}
	return true;
}
