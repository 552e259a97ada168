// SPDX-License-Identifier: MIT
/*
 * One request's life in the daemon (server_internal.h): from a SUBMIT to the engine, the engine's
 * events to the client, parking for a slow reader, the ends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fnv.h"
#include "llmdevd/server_internal.h"

static uint64_t hash_ids(const struct ids *a)
{
	uint64_t h = FNV_START;

	for (size_t i = 0; i < a->n; i++) {
		uint32_t v = (uint32_t)a->v[i];
		uint8_t le[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
				 (uint8_t)(v >> 24)};

		h = fnv1a(h, le, sizeof(le));
	}
	return h;
}

uint64_t submit_bytes(const struct msg *m)
{
	return sizeof(struct turn) + m->submit.payload_len + m->submit.n_ids * sizeof(int32_t);
}

static void turn_free(struct turn *t)
{
	limits_release(&t->cl->sv->limits, &t->charge);
	t->cl->sv->queue -= t->bytes;
	free(t->text);
	payload_free(&t->payload);
	ids_free(&t->answer);
	free(t);
}

struct turn *turn_new(struct client *cl, const struct msg *m, uint64_t principal,
		      struct charge *charge)
{
	const struct llm_msg_submit *s = &m->submit;
	struct turn *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->cl = cl;
	t->text = malloc(s->payload_len + 1);
	t->answer.v = malloc((s->n_ids + 64) * sizeof(int32_t));
	if (!t->text || !t->answer.v) {
		turn_free(t);
		return NULL;
	}
	memcpy(t->text, m->payload, s->payload_len);
	t->text[s->payload_len] = '\0';
	t->text_len = s->payload_len;
	memcpy(t->answer.v, m->ids, s->n_ids * sizeof(int32_t));
	t->answer.n = s->n_ids;
	t->answer.cap = s->n_ids + 64;
	t->bytes = submit_bytes(m);
	cl->sv->queue += t->bytes;
	t->id = m->request_id;
	t->seq = s->seq;
	t->deadline_ns = s->deadline_ns;
	t->principal = principal;
	t->priority = s->priority;
	t->submit_ns = now_ns();
	t->format = s->format;
	t->max_tokens = s->max_tokens;
	t->resume = m->resume;
	t->posted_bytes = s->posted_bytes;
	t->started = s->resume_len != 0;
	t->charge = *charge;
	*charge = (struct charge){0};
	return t;
}

void turn_remove(struct turn *t)
{
	struct client *cl = t->cl;
	struct turn **p = &cl->turns;

	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	if (!t->next)
		cl->tail = p;
	turn_free(t);
}

static int turn_post(struct turn *t, uint32_t type, const struct event_part *parts, int n)
{
	int rc;

	if (t->ended || !t->cl->ch)
		return 0;
	rc = channel_post(t->cl->ch, type, t->id, t->seq, parts, n);
	if (!rc)
		t->seq++;
	return rc;
}

static void turn_ended(struct turn *t)
{
	if (!t->ended)
		t->cl->n_turns--;
	t->ended = true;
}

static void turn_error(struct turn *t, int error, const char *sentence)
{
	struct llm_error err = {.error = error, .n_bytes = (uint32_t)strlen(sentence)};
	struct event_part parts[] = {{&err, sizeof(err)}, {sentence, err.n_bytes}};

	if (!t->ended)
		say_sparingly(t->cl->sv, "session %llu request %llu: %s",
			      (unsigned long long)t->cl->number, (unsigned long long)t->id,
			      sentence);
	turn_post(t, LLM_EVENT_ERROR, parts, 2);
	turn_ended(t);
}

void turn_park(struct turn *t)
{
	if (!t->rq)
		return;
	engine_park(t->rq, !t->ended && t->park_reader);
	engine_pause(t->rq, !t->ended && t->park_pace);
}

/* Ends a turn whose request the engine may hold; the engine's own end comes with its next step. */
static void turn_end_early(struct turn *t)
{
	turn_ended(t);
	if (!t->rq)
		return;
	turn_park(t);
	engine_cancel(t->rq);
	t->cl->sv->step_owed = true;
}

static void turn_throttle(struct turn *t)
{
	const struct server *sv = t->cl->sv;

	if (t->ended || !t->cl->ch)
		return;
	if (channel_room(t->cl->ch) < LLM_EVENT_MAX && !t->park_reader) {
		t->park_reader = true;
		t->parked_ns = now_ns();
	}
	if (sv->o.pace > 0) {
		uint64_t now = now_ns(), gap = (uint64_t)(1e9 / sv->o.pace);

		/* Due times follow each other, so that late wake-ups do not add up. */
		if (!t->pace_ns || t->pace_ns + 4 * gap < now)
			t->pace_ns = now;
		t->pace_ns += gap;
		t->park_pace = t->pace_ns > now;
	}
	turn_park(t);
}

static void turn_started(struct turn *t)
{
	struct server *sv = t->cl->sv;
	struct llm_resume *r = &t->resume;
	struct event_part part = {r, sizeof(*r)};

	if (t->started)
		return;
	t->started = true;
	*r = (struct llm_resume){
		.size = sizeof(*r),
		.fingerprint = sv->info->fingerprint,
		.chat_template = t->payload.kind == PAYLOAD_PROMPT ? 0 : sv->template_hash,
		.prompt_hash = hash_ids(&t->payload.prompt),
		.seed = t->payload.sampling.seed,
		.prompt_tokens = (uint32_t)t->payload.prompt.n,
	};
	if (t->payload.kind == PAYLOAD_MESSAGES)
		r->flags = LLM_RESUME_F_FRESH;
	else if (t->payload.kind == PAYLOAD_PROMPT)
		r->flags = LLM_RESUME_F_ALONE;
	/* Without STARTED a client could not ask for a continuation: it must not be left out. */
	if (turn_post(t, LLM_EVENT_STARTED, &part, 1)) {
		turn_error(t, ENOSPC, "events: nobody reads them: read, then ask again");
		turn_end_early(t);
	}
}

static void turn_token(struct turn *t, const struct engine_event *ev)
{
	struct llm_text text = {.n_ids = 1, .n_bytes = (uint32_t)ev->text_len};
	struct event_part parts[] = {{&text, sizeof(text)},
				     {&ev->id, sizeof(ev->id)},
				     {ev->text, ev->text_len}};

	if (ids_push(&t->answer, ev->id)) {
		turn_error(t, ENOMEM, "answer: no memory");
		turn_end_early(t);
		return;
	}
	if (turn_post(t, LLM_EVENT_TEXT, parts, 3)) {
		turn_error(t, ENOSPC, "events: nobody reads them: read, then ask again");
		turn_end_early(t);
		return;
	}
	t->posted_bytes += ev->text_len;
	turn_throttle(t);
}

static void post_done(struct turn *t, const struct engine_event *ev, uint32_t finish)
{
	struct llm_done done = {
		.finish = finish,
		.n_bytes = (uint32_t)ev->text_len,
		.prompt_tokens = (uint32_t)ev->prompt_tokens,
		.cached_tokens = (uint32_t)ev->cached_tokens,
		.completion_tokens = (uint32_t)ev->completion_tokens,
		.submit_ns = ev->ns_submit,
		.start_ns = ev->ns_start,
		.first_ns = ev->ns_first,
		.end_ns = ev->ns_end,
	};
	struct event_part parts[] = {{&done, sizeof(done)}, {ev->text, ev->text_len}};

	if (turn_post(t, LLM_EVENT_DONE, parts, 2))
		turn_error(t, EOVERFLOW, "answer: its last piece is larger than an event");
	if (t->cl->sv->o.verbose && !t->ended)
		say(t->cl->sv,
		    "session %llu request %llu: done: %d prompt tokens (%d cached), %d generated",
		    (unsigned long long)t->cl->number, (unsigned long long)t->id, ev->prompt_tokens,
		    ev->cached_tokens, ev->completion_tokens);
}

/* The answer, complete or cancelled, becomes part of the conversation. */
static void turn_commit(struct turn *t)
{
	struct client *cl = t->cl;

	if (t->payload.kind == PAYLOAD_PROMPT)
		return;
	if (t->payload.kind == PAYLOAD_MESSAGES)
		cl->lost = NULL;
	if (conversation_commit(&cl->conv, &t->payload.prompt, t->answer.v, t->answer.n))
		cl->lost = "conversation: no memory to keep it: start a new one";
}

/* The engine let go of the request: the turn is over, the next one may begin. */
static void turn_finish(struct turn *t)
{
	struct client *cl = t->cl;

	turn_remove(t);
	if (cl->ch)
		client_next(cl);
	else
		cl->sv->reap_owed = true; /* not from an event of the engine's */
}

static void turn_done(struct turn *t, const struct engine_event *ev)
{
	uint32_t finish = ev->finish == FINISH_STOP	? LLM_FINISH_STOP
			  : ev->finish == FINISH_LENGTH ? LLM_FINISH_LENGTH
							: LLM_FINISH_CANCELLED;

	/* One that was ended with an error is no part of the conversation. */
	if (!t->ended) {
		post_done(t, ev, finish);
		if (!t->ended)
			turn_commit(t);
		turn_ended(t);
	}
	turn_finish(t);
}

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct turn *t = ctx;

	switch (ev->kind) {
	case ENGINE_REPLAYED:
	case ENGINE_EMBEDDING:
		break;
	case ENGINE_STARTED:
		turn_started(t);
		break;
	case ENGINE_PROGRESS: {
		struct llm_progress p = {(uint32_t)ev->done, (uint32_t)ev->total};
		struct event_part part = {&p, sizeof(p)};

		/* News for people: dropped where there is no room for it. */
		turn_post(t, LLM_EVENT_PROGRESS, &part, 1);
		break;
	}
	case ENGINE_TOKEN:
		turn_token(t, ev);
		break;
	case ENGINE_DONE:
		turn_done(t, ev);
		break;
	case ENGINE_ERROR:
		turn_error(t, ev->error > 0 ? ev->error : EIO,
			   ev->message ? ev->message : "engine: failed");
		turn_finish(t);
		break;
	}
}

static int check_resume(const struct turn *t, struct err *e)
{
	const struct server *sv = t->cl->sv;
	const struct llm_resume *r = &t->resume;

	if (!t->started)
		return 0;
	if (r->fingerprint != sv->info->fingerprint)
		return err_set(e, -ESTALE,
			       "answer: it began with another model or another build: ask again");
	if (r->prompt_tokens != t->payload.prompt.n ||
	    r->prompt_hash != hash_ids(&t->payload.prompt) ||
	    r->chat_template != (t->payload.kind == PAYLOAD_PROMPT ? 0 : sv->template_hash))
		return err_set(
			e, -ESTALE,
			"answer: the conversation reads differently to this daemon: ask again");
	return 0;
}

/* Reads the payload as the conversation stands now and checks it against what was posted. */
static int turn_read(struct turn *t, struct err *e)
{
	struct client *cl = t->cl;
	struct server *sv = cl->sv;
	int rc;

	rc = payload_read(&t->payload, t->format, t->text, t->text_len, &cl->conv, &sv->sampling,
			  sv->info->vocab, e);
	free(t->text);
	t->text = NULL;
	if (rc)
		return rc;
	if (t->payload.kind == PAYLOAD_TURN && cl->lost)
		return err_set(e, -ESTALE, "%s", cl->lost);
	return check_resume(t, e);
}

/* Nothing is computed: a token's result does not depend on when that was, so the next turn's prompt
 * does it. */
void turn_remember(struct turn *t)
{
	struct err e;

	if (turn_read(t, &e)) {
		t->cl->lost =
			"conversation: it was held with another model or build: start a new one";
		say_sparingly(t->cl->sv, "session %llu: cannot be continued: %s",
			      (unsigned long long)t->cl->number, e.msg);
	} else {
		turn_commit(t);
	}
	turn_free(t);
}

static int turn_submit(struct turn *t, struct err *e)
{
	struct request_params p = {
		.session = t->payload.kind == PAYLOAD_PROMPT ? NULL : t->cl->session,
		.prompt = t->payload.prompt.v,
		.n_prompt = t->payload.prompt.n,
		.n_history = t->payload.kind == PAYLOAD_TURN ? t->cl->conv.ids.n : 0,
		.generated = t->cl->conv.generated,
		.max_tokens = t->payload.max_tokens,
		.principal = t->principal,
		.priority = t->priority,
		.deadline_ns = t->deadline_ns,
		.sampling = t->payload.sampling,
		.n_logprobs = -1,
		.stop = (const char *const *)t->payload.stop,
		.n_stop = t->payload.n_stop,
		.posted = t->answer.v,
		.n_posted = t->answer.n,
		.posted_bytes = t->posted_bytes,
		.on_event = on_event,
		.ctx = t,
	};
	int rc;

	if (t->max_tokens && (!p.max_tokens || t->max_tokens < (uint32_t)p.max_tokens))
		p.max_tokens = t->max_tokens > INT32_MAX ? INT32_MAX : (int)t->max_tokens;
	rc = engine_submit(t->cl->sv->en, &p, &t->rq, e);
	if (rc)
		t->rq = NULL;
	return rc;
}

int turn_start(struct turn *t)
{
	struct client *cl = t->cl;
	struct sampling *sampling = &t->payload.sampling;
	struct err e;
	int rc;

	rc = turn_read(t, &e);
	if (!rc && !cl->session)
		rc = engine_session_open(cl->sv->en, &cl->session, &e);
	if (!rc) {
		if (t->started)
			sampling->seed = t->resume.seed;
		else if (!t->payload.seeded &&
			 getrandom(&sampling->seed, sizeof(sampling->seed), 0) < 0)
			sampling->seed = now_ns();
		rc = turn_submit(t, &e);
	}
	if (rc)
		turn_error(t, -rc, e.msg);
	return rc;
}

/* ---- ends from outside ---------------------------------------------------------------------------- */

void turn_cancel(struct turn *t)
{
	struct engine_event none = {0};

	if (t->ended)
		return;
	if (t->rq) {
		t->park_reader = t->park_pace = false;
		turn_park(t);
		engine_cancel(t->rq);
		t->cl->sv->step_owed = true;
		return;
	}
	none.ns_submit = none.ns_start = none.ns_first = none.ns_end = now_ns();
	none.completion_tokens = (int)t->answer.n;
	post_done(t, &none, LLM_FINISH_CANCELLED);
	turn_ended(t);
	turn_remove(t);
}

bool turn_abandon(struct turn *t)
{
	bool held = t->rq;

	turn_end_early(t);
	if (!held)
		turn_remove(t);
	return held;
}

void turn_expire(struct turn *t, int error, const char *sentence)
{
	struct client *cl = t->cl;

	turn_error(t, error, sentence);
	if (!turn_abandon(t))
		client_next(cl);
}
