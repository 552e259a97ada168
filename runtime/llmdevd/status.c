// SPDX-License-Identifier: MIT
/* What goes on, for LLM_MSG_STATUS (server_internal.h). Reads everything, changes nothing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/ops.h"
#include "llmdevd/server_internal.h"

#define MAX_ROWS                                                                                   \
	((LLM_EVENT_MAX - sizeof(struct llm_event) - sizeof(struct llm_status)) /                  \
	 sizeof(struct llm_status_session))

static void fill_requests(struct llm_status *s, const struct server *sv,
			  const struct engine_stats *st)
{
	s->sessions = (uint32_t)sv->n_sessions;
	s->max_sessions = (uint32_t)sv->o.max_sessions;
	s->max_batch = (uint32_t)sv->o.max_batch;
	s->running = (uint32_t)st->running;
	s->parked = (uint32_t)st->parked;
	s->unfinished = (uint32_t)sv->limits.unfinished;
	s->max_unfinished = (uint32_t)sv->limits.max_unfinished;
	s->principals = (uint32_t)sv->limits.principals;
	/* The engine knows only the first one of each session. */
	s->waiting =
		s->unfinished > s->running + s->parked ? s->unfinished - s->running - s->parked : 0;
	s->batch_decode = (uint32_t)st->batch_decode;
	s->batch_prefill = (uint32_t)st->batch_prefill;
	s->submitted = st->submitted;
	s->refused = st->refused + sv->refused;
	s->done = st->done;
	s->cancelled = st->cancelled;
	s->failed = st->failed;
	s->preempted = st->preempted;
}

static void fill_memory(struct llm_status *s, const struct engine_stats *st)
{
	s->kv_page_tokens = KV_PAGE_TOKENS;
	s->kv_pages = (uint32_t)st->kv_pages;
	s->kv_held = (uint32_t)st->kv_held;
	s->kv_cached = (uint32_t)st->kv_cached;
	s->kv_free = (uint32_t)st->kv_free;
	s->kv_page_bytes = st->kv_page_bytes;
	s->swap_pages = st->swap_pages;
	s->swap_max_pages = st->swap_max_pages;
}

static void fill_work(struct llm_status *s, const struct engine_stats *st)
{
	s->prompt_tokens = st->prompt_tokens;
	s->cached_tokens = st->cached_tokens;
	s->computed_tokens = st->computed_tokens;
	s->recomputed_tokens = st->recomputed_tokens;
	s->generated_tokens = st->generated_tokens;
	s->evicted_tokens = st->evicted_tokens;
	s->swapped_out = st->swapped_out;
	s->swapped_in = st->swapped_in;
	s->steps = st->steps;
	s->step_ns = st->ns_step;
	s->forward_ns = st->ns_forward;
	s->sample_ns = st->ns_sample;
	s->swap_ns = st->ns_swap;
}

static void fill_facts(struct llm_status *s, const struct server *sv)
{
	s->context = (uint32_t)sv->info->ctx;
	s->now_ns = now_ns();
	s->start_ns = sv->start_ns;
	s->fingerprint = sv->info->fingerprint;
	s->weight_bytes = sv->info->weight_bytes;
	snprintf((char *)s->device, sizeof(s->device), "%s", sv->o.device);
	snprintf((char *)s->model, sizeof(s->model), "%s", sv->info->model);
	snprintf((char *)s->backend, sizeof(s->backend), "%s", sv->info->backend);
}

static uint32_t state_of(const struct turn *t)
{
	static const uint32_t states[] = {
		[ENGINE_WAITING] = LLM_SESSION_WAITING, [ENGINE_PREEMPTED] = LLM_SESSION_PREEMPTED,
		[ENGINE_PREFILL] = LLM_SESSION_PREFILL, [ENGINE_DECODE] = LLM_SESSION_DECODE,
		[ENGINE_PARKED] = LLM_SESSION_PARKED,
	};

	if (!t)
		return LLM_SESSION_IDLE;
	return t->rq ? states[engine_request_state(t->rq)] : LLM_SESSION_WAITING;
}

static void fill_session(struct llm_status_session *s, const struct client *cl)
{
	const struct channel_peer *peer = channel_peer(cl->ch);
	const struct turn *t = cl->turns;
	int tokens = 0, pages = 0;

	if (cl->session)
		engine_session_usage(cl->session, &tokens, &pages);
	*s = (struct llm_status_session){
		.number = cl->number,
		.opened_ns = cl->opened_ns,
		.request_ns = t ? t->submit_ns : 0,
		.uid = peer->uid,
		.pid = peer->pid,
		.state = state_of(t),
		.requests = (uint32_t)cl->n_turns,
		.tokens = (uint32_t)tokens,
		.pages = (uint32_t)pages,
		.generated = t ? (uint32_t)t->ids.n : 0,
		.priority = t ? t->priority : 0,
	};
	memcpy(s->principal, cl->label, sizeof(s->principal));
}

/* The sessions that this client may see: those with requests first, until the event is full. */
static uint32_t fill_sessions(struct llm_status_session *rows, const struct client *asker)
{
	uid_t uid = channel_peer(asker->ch)->uid;
	bool all = !uid || uid == geteuid();
	uint32_t n = 0;

	for (int idle = 0; idle < 2; idle++) {
		for (const struct client *cl = asker->sv->clients; cl && n < MAX_ROWS;
		     cl = cl->next) {
			if (cl->ch && cl->placed && (cl->turns == NULL) == (idle == 1) &&
			    (all || channel_peer(cl->ch)->uid == uid))
				fill_session(&rows[n++], cl);
		}
	}
	return n;
}

void status_post(struct client *cl)
{
	struct llm_status s = {.size = sizeof(s),
			       .session_size = sizeof(struct llm_status_session)};
	struct llm_status_session *rows = calloc(MAX_ROWS, sizeof(*rows));
	struct engine_stats st;
	struct event_part parts[] = {{&s, sizeof(s)}, {rows, 0}};

	if (!rows) {
		channel_fail(cl->ch, ENOMEM, "status: no memory: try again later");
		return;
	}
	engine_stats(cl->sv->en, &st);
	fill_requests(&s, cl->sv, &st);
	fill_memory(&s, &st);
	fill_work(&s, &st);
	fill_facts(&s, cl->sv);
	s.n_sessions = fill_sessions(rows, cl);
	parts[1].len = s.n_sessions * sizeof(*rows);
	if (channel_post(cl->ch, LLM_EVENT_STATUS, 0, 0, parts, 2))
		channel_fail(cl->ch, ENOSPC, "events: nobody reads them: read, then ask");
	free(rows);
}
