// SPDX-License-Identifier: MIT
/*
 * Sessions: which tokens of a conversation are computed, and the pages that hold them.
 * A session without a running request keeps its pages until others need them.
 */
#include <errno.h>
#include <stdlib.h>

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

void session_truncate(struct session *s, int n)
{
	if (n < s->n_cached)
		s->n_cached = n;
	s->n_ids = s->n_cached;
	while (s->n_pages > kv_pages_for(s->n_cached))
		kv_put_page(&s->en->kv, s->pages[--s->n_pages]);
}

void session_touch(struct session *s)
{
	unlink_session(s);
	link_first(s);
}

bool session_make_room(struct engine *en, int pages)
{
	for (struct session *s = en->sessions_tail; s && en->kv.n_free < pages; s = s->prev)
		if (!s->active)
			session_truncate(s, 0);
	return en->kv.n_free >= pages;
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
