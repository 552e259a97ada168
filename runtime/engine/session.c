// SPDX-License-Identifier: MIT
/*
 * Sessions: which tokens of a conversation are computed, and the pages that hold them.
 *
 * A session without a running request keeps its pages until others need them. Full pages are
 * published as they are computed, so that another session that begins alike takes them instead of
 * computing; one that would write into a shared page copies it first.
 *
 * Recurrent layers: session.state is what they hold after n_cached tokens, and cannot go back. So a
 * session is only ever cut, or begun from others' pages, where a page carries a snapshot of it
 * (kv.h). Snapshots are taken at the last page boundary of a prompt and every STATE_GRID tokens;
 * session_rows() makes steps end there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_internal.h"

#define STATE_GRID 1024

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

	if (!s)
		return err_set(e, -ENOMEM, "session: out of memory: close some");
	s->en = en;
	link_first(s);
	en->n_sessions++;
	*out = s;
	return 0;
}

void engine_session_close(struct session *s)
{
	request_cancel_session(s);
	session_release(s);
	unlink_session(s);
	s->en->n_freed++;
	s->en->n_sessions--;
	free(s->ids);
	free(s->generated);
	free(s->pages);
	free(s);
}

uint64_t engine_shed_cache(struct engine *en)
{
	return kv_shed(&en->kv);
}

uint64_t engine_shed_idle(struct engine *en)
{
	for (struct session *s = en->sessions; s; s = s->next)
		if (!s->active)
			session_release(s);
	en->n_freed++;
	return kv_shed(&en->kv);
}

void engine_session_usage(const struct session *s, int *tokens, int *pages)
{
	*tokens = s->n_cached;
	*pages = s->n_pages;
}

/* Room for n tokens; at least doubled, so that growing one by one costs little. */
static int grow(struct session *s, int n)
{
	int cap = s->cap ? s->cap : KV_PAGE_TOKENS;
	int32_t *ids, *pages;
	uint8_t *generated;

	if (n <= s->cap)
		return 0;
	while (cap < n)
		cap *= 2;
	ids = realloc(s->ids, cap * sizeof(*ids));
	if (!ids)
		return -ENOMEM;
	s->ids = ids;
	pages = realloc(s->pages, kv_pages_for(cap) * sizeof(*pages));
	if (!pages)
		return -ENOMEM;
	s->pages = pages;
	if (s->en->backend->split_classes) {
		generated = realloc(s->generated, cap);
		if (!generated)
			return -ENOMEM;
		s->generated = generated;
	}
	s->cap = cap;
	return 0;
}

int session_push(struct session *s, int32_t id)
{
	if (grow(s, s->n_ids + 1))
		return -ENOMEM;
	if (s->generated)
		s->generated[s->n_ids] = 1;
	s->ids[s->n_ids++] = id;
	return 0;
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

static size_t state_bytes(const struct session *s)
{
	return s->en->model->plan.state_bytes;
}

/* Make the state that of the most tokens, up to n, after which it is known; returns how many. */
static int restore_state(struct session *s, int n)
{
	const void *snapshot = NULL;
	int i = n / KV_PAGE_TOKENS;

	if (i > s->n_published)
		i = s->n_published;
	while (i && !(snapshot = kv_snapshot(&s->en->kv, s->pages[i - 1])))
		i--;
	if (s->state && snapshot)
		memcpy(s->state, snapshot, state_bytes(s));
	else if (s->state)
		memset(s->state, 0, state_bytes(s));
	return i * KV_PAGE_TOKENS;
}

/* Keep n tokens, at most what is computed, and their pages. */
static void cut(struct session *s, int n)
{
	s->n_cached = n;
	/* From the end: the cache lets its oldest pages go first, and those should be the ends. */
	while (s->n_pages > kv_pages_for(n))
		kv_put_page(&s->en->kv, s->pages[--s->n_pages]);
	if (s->n_published > s->n_pages)
		s->n_published = s->n_pages;
	if (n % KV_PAGE_TOKENS)
		own_last_page(s);
	s->n_ids = s->n_cached;
}

void session_truncate(struct session *s, int n)
{
	if (n >= s->n_cached)
		cut(s, s->n_cached);
	else
		cut(s, state_bytes(s) ? restore_state(s, n) : n);
}

void session_release(struct session *s)
{
	session_truncate(s, 0);
	free(s->state);
	s->state = NULL;
}

/* What a published page at index i has before it. */
static uint64_t parent_of(const struct session *s, int i)
{
	return i ? s->en->kv.page[s->pages[i - 1]].serial : kv_root(s->principal);
}

/* The classes of a page's tokens; see kv_find(). */
static uint64_t class_bits(const uint8_t *generated, int page)
{
	uint64_t bits = 0;

	for (int i = 0; generated && i < KV_PAGE_TOKENS; i++)
		bits |= (uint64_t)generated[page * KV_PAGE_TOKENS + i] << i;
	return bits;
}

/*
 * Replace what the session has behind its first `from` pages by cached pages of ids[0..n). False:
 * there are none, nothing was changed.
 */
static bool take_cached_pages(struct session *s, const int32_t *ids, const uint8_t *generated,
			      int n, int from)
{
	struct kv_cache *kv = &s->en->kv;
	int i;

	for (i = from; (i + 1) * KV_PAGE_TOKENS <= n; i++) {
		int32_t page = kv_take(kv, parent_of(s, i), ids + i * KV_PAGE_TOKENS,
				       class_bits(generated, i));

		if (page < 0)
			break;
		if (i == from)
			cut(s, from * KV_PAGE_TOKENS);
		kv->prefix_hits += KV_PAGE_TOKENS;
		s->pages[s->n_pages++] = page;
		s->n_published++;
		s->n_cached += KV_PAGE_TOKENS;
	}
	return i > from;
}

/* How many of ids[0..n) the cached pages behind the first `from` reach to with a snapshot. */
static int snapshot_within(const struct session *s, const int32_t *ids, const uint8_t *generated,
			   int n, int from)
{
	const struct kv_cache *kv = &s->en->kv;
	uint64_t parent = parent_of(s, from);
	int best = 0;

	for (int i = from; (i + 1) * KV_PAGE_TOKENS <= n; i++) {
		int32_t page =
			kv_look(kv, parent, ids + i * KV_PAGE_TOKENS, class_bits(generated, i));

		if (page < 0)
			break;
		if (kv_snapshot(kv, page))
			best = (i + 1) * KV_PAGE_TOKENS;
		parent = kv->page[page].serial;
	}
	return best;
}

/* Keep the `same` tokens that it has, or take pages of others, n tokens at most, where they hold more. */
static void reuse(struct session *s, const int32_t *ids, const uint8_t *generated, int same, int n)
{
	int from = same / KV_PAGE_TOKENS;
	bool taken;

	if (!state_bytes(s)) {
		taken = take_cached_pages(s, ids, generated, n, from);
	} else {
		int reach = snapshot_within(s, ids, generated, n, from);

		taken = reach > same && take_cached_pages(s, ids, generated, reach, from);
		if (taken)
			cut(s, restore_state(s, s->n_cached));
	}
	if (!taken)
		session_truncate(s, same);
}

int session_enter(struct session *s, const int32_t *ids, const uint8_t *generated, int n, int most)
{
	int same = 0;

	if (most > n - 1)
		most = n - 1;
	if (grow(s, n))
		return -ENOMEM;
	if (state_bytes(s) && !s->state) {
		s->state = calloc(1, state_bytes(s));
		if (!s->state)
			return -ENOMEM;
	}
	while (same < s->n_cached && same < most && s->ids[same] == ids[same] &&
	       (!s->generated || s->generated[same] == (generated ? generated[same] : 0)))
		same++;
	reuse(s, ids, generated, same, most);
	if (ids != s->ids) {
		memcpy(s->ids, ids, n * sizeof(*ids));
		if (s->generated && generated)
			memcpy(s->generated, generated, n);
		else if (s->generated)
			memset(s->generated, 0, n);
	}
	s->n_ids = n;
	s->snapshot_at = (n - 1) / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
	return s->n_cached;
}

int session_catch_up(struct session *s, int most)
{
	struct kv_cache *kv = &s->en->kv;
	int before = s->n_cached;

	if (state_bytes(s) || s->n_cached % KV_PAGE_TOKENS)
		return 0;
	if (most > s->n_ids - 1)
		most = s->n_ids - 1;
	for (int i = s->n_published; (i + 1) * KV_PAGE_TOKENS <= most; i++) {
		int32_t page = kv_take(kv, parent_of(s, i), s->ids + i * KV_PAGE_TOKENS,
				       class_bits(s->generated, i));

		if (page < 0)
			break;
		kv->prefix_hits += KV_PAGE_TOKENS;
		if (i < s->n_pages)
			kv_put_page(kv, s->pages[i]);
		else
			s->n_pages++;
		s->pages[i] = page;
		s->n_published++;
		s->n_cached += KV_PAGE_TOKENS;
	}
	return s->n_cached - before;
}

void session_computed(struct session *s, int n)
{
	struct kv_cache *kv = &s->en->kv;

	s->n_cached += n;
	for (int i = s->n_published; (i + 1) * KV_PAGE_TOKENS <= s->n_cached; i++) {
		const int32_t *ids = s->ids + i * KV_PAGE_TOKENS;
		uint64_t parent = parent_of(s, i), classes = class_bits(s->generated, i);
		int32_t twin = kv_find(kv, parent, ids, classes);

		if (twin < 0) {
			kv_publish(kv, s->pages[i], parent, ids, classes);
		} else { /* somebody computed the same meanwhile: one copy will do */
			kv_ref_page(kv, twin);
			kv_put_page(kv, s->pages[i]);
			s->pages[i] = twin;
		}
		s->n_published++;
	}
	if (s->state && s->n_cached && s->n_cached % KV_PAGE_TOKENS == 0 &&
	    (s->n_cached == s->snapshot_at || s->n_cached % STATE_GRID == 0))
		kv_snapshot_put(kv, s->pages[s->n_published - 1], s->state);
}

int session_rows(const struct session *s, int rows)
{
	int end = s->n_cached + rows, grid = (s->n_cached / STATE_GRID + 1) * STATE_GRID;

	if (!state_bytes(s))
		return rows;
	if (end > s->snapshot_at && s->n_cached < s->snapshot_at)
		end = s->snapshot_at;
	return (end > grid ? grid : end) - s->n_cached;
}

void *session_state(struct session *s)
{
	return s->state;
}

void session_touch(struct session *s)
{
	unlink_session(s);
	link_first(s);
}

bool session_make_room(struct engine *en, int pages, const struct session *keep)
{
	for (struct session *s = en->sessions_tail; s && kv_available(&en->kv) < pages; s = s->prev)
		if (s != keep && (!s->active || s->active->state != REQ_RUNNING))
			session_release(s);
	return kv_available(&en->kv) >= pages;
}

bool session_reserve(struct session *s, int n)
{
	if (grow(s, n))
		return false;
	while (s->n_pages < kv_pages_for(n)) {
		int32_t page = kv_get_page(&s->en->kv);

		if (page < 0)
			return false;
		s->pages[s->n_pages++] = page;
	}
	return true;
}
