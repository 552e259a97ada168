// SPDX-License-Identifier: MIT
/*
 * One request's life in the daemon (server_internal.h): from a SUBMIT to the engine, parking for a
 * slow reader, the ends. What it says is in turn_answer.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

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
	turn_drop_held(t);
	constraint_close(&t->constraint);
	answer_close(&t->answer);
	payload_free(&t->payload);
	ids_free(&t->ids);
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
	t->ids.v = malloc((s->n_ids + 64) * sizeof(int32_t));
	if (!t->text || !t->ids.v) {
		turn_free(t);
		return NULL;
	}
	memcpy(t->text, m->payload, s->payload_len);
	t->text[s->payload_len] = '\0';
	t->text_len = s->payload_len;
	memcpy(t->ids.v, m->ids, s->n_ids * sizeof(int32_t));
	t->ids.n = t->n_posted = s->n_ids;
	t->ids.cap = s->n_ids + 64;
	t->bytes = submit_bytes(m);
	cl->sv->queue += t->bytes;
	t->id = m->request_id;
	t->seq = s->seq;
	t->deadline_ns = s->deadline_ns;
	t->principal = principal;
	t->priority = s->priority;
	t->submit_ns = now_ns();
	t->format = s->format;
	t->flags = s->flags;
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

void turn_error(struct turn *t, int error, const char *sentence)
{
	struct llm_error err = {.error = error, .n_bytes = (uint32_t)strlen(sentence)};
	struct event_part parts[] = {{&err, sizeof(err)}, {sentence, err.n_bytes}};

	if (!t->ended)
		say_sparingly(t->cl->sv, "session %llu request %llu: %s",
			      (unsigned long long)t->cl->number, (unsigned long long)t->id,
			      sentence);
	turn_drop_held(t);
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

void turn_end_early(struct turn *t)
{
	turn_ended(t);
	if (!t->rq)
		return;
	turn_park(t);
	engine_cancel(t->rq);
	t->cl->sv->step_owed = true;
}

void turn_throttle(struct turn *t)
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
	const struct payload *p = &t->payload;
	struct llm_resume *r = &t->resume;
	struct event_part part = {r, sizeof(*r)};

	if (t->started)
		return;
	t->started = true;
	*r = (struct llm_resume){
		.size = sizeof(*r),
		.fingerprint = sv->info->fingerprint,
		.chat_template = payload_is_chat(p) ? chat_hash(engine_chat(sv->en)) : 0,
		.prompt_hash = hash_ids(&p->prompt.ids),
		.seed = p->sampling.seed,
		.date = (uint64_t)t->now,
		.prompt_tokens = (uint32_t)p->prompt.ids.n,
	};
	if (p->kind == PAYLOAD_MESSAGES)
		r->flags = LLM_RESUME_F_FRESH;
	else if (p->kind != PAYLOAD_TURN)
		r->flags = LLM_RESUME_F_ALONE;
	/* Without STARTED a client could not ask for a continuation: it must not be left out. */
	if (turn_post(t, LLM_EVENT_STARTED, &part, 1)) {
		turn_error(t, ENOMEM, "events: no memory: try again later");
		turn_end_early(t);
	}
}

static int post_done(struct turn *t, const struct engine_event *ev, uint32_t finish,
		     const struct answer_text *rest)
{
	struct llm_done done = {
		.finish = finish,
		.n_bytes = (uint32_t)rest->n,
		.prompt_tokens = (uint32_t)ev->prompt_tokens,
		.cached_tokens = (uint32_t)ev->cached_tokens,
		.completion_tokens = (uint32_t)ev->completion_tokens,
		.submit_ns = ev->ns_submit,
		.start_ns = ev->ns_start,
		.first_ns = ev->ns_first,
		.end_ns = ev->ns_end,
	};
	struct event_part parts[] = {{&done, sizeof(done)}, {rest->v, rest->n}};

	int rc = turn_post(t, LLM_EVENT_DONE, parts, 2);

	if (rc)
		turn_error(t, ENOMEM, "events: no memory: try again later");
	else if (t->cl->sv->o.verbose)
		say(t->cl->sv,
		    "session %llu request %llu: done: %d prompt tokens (%d cached), %d generated",
		    (unsigned long long)t->cl->number, (unsigned long long)t->id, ev->prompt_tokens,
		    ev->cached_tokens, ev->completion_tokens);
	return rc;
}

/* The answer, complete or cancelled, becomes part of the conversation. */
static void turn_commit(struct turn *t)
{
	struct client *cl = t->cl;
	json_t *message = NULL;

	if (!payload_is_chat(&t->payload))
		return;
	if (t->payload.kind == PAYLOAD_MESSAGES)
		cl->lost = NULL;
	if (cl->conv.chat) {
		message = answer_message(&t->answer);
		if (!message)
			cl->lost = "conversation: no memory to keep it: start a new one";
	}
	if (conversation_commit(&cl->conv, &t->payload.prompt, t->ids.v, t->ids.n, message))
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
	bool wanted = !t->ended;
	struct answer_text rest = {0};

	t->rq = NULL;
	/* Over before its last step was. The kernel, where there is one, has told its client by then. */
	if (wanted && t->deadline_ns && t->deadline_ns <= now_ns()) {
		turn_error(t, ETIMEDOUT, DEADLINE_PASSED);
		wanted = false;
	}
	/* One that was ended with an error is no part of the conversation. */
	if (wanted && !turn_answer_end(t, ev, &rest)) {
		int rc = post_done(t, ev, finish, &rest);

		if (!rc && t->closing) {
			free(rest.v);
			return; /* turn_room() goes on */
		}
		if (!rc)
			turn_commit(t);
	}
	free(rest.v);
	turn_ended(t);
	turn_finish(t);
}

void turn_room(struct turn *t)
{
	bool closing = t->closing;

	turn_post_held(t);
	if (t->held)
		return;
	t->park_reader = false;
	turn_park(t);
	if (!closing)
		return;
	turn_commit(t);
	turn_finish(t);
}

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct turn *t = ctx;

	switch (ev->kind) {
	case ENGINE_REPLAYED:
		turn_replayed(t, ev);
		break;
	case ENGINE_EMBEDDING:
		turn_embedding(t, ev);
		break;
	case ENGINE_STARTED:
		turn_started(t);
		break;
	case ENGINE_PROGRESS: {
		struct llm_progress p = {(uint32_t)ev->done, (uint32_t)ev->total};
		struct event_part part = {&p, sizeof(p)};

		/* News for people; of vectors only parts are told, so that they can be counted. */
		if (t->payload.kind != PAYLOAD_EMBED)
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
		t->rq = NULL;
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
	if (r->prompt_tokens != t->payload.prompt.ids.n ||
	    r->prompt_hash != hash_ids(&t->payload.prompt.ids) ||
	    r->chat_template != (payload_is_chat(&t->payload) ? chat_hash(engine_chat(sv->en)) : 0))
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
	struct payload_env env = {
		.conversation = &cl->conv,
		.chat = engine_chat(sv->en),
		.sampling = &sv->sampling,
		.info = sv->info,
	};
	int rc;

	if (t->started)
		t->now = (int64_t)t->resume.date;
	else if (chat_uses_date(env.chat))
		t->now = (int64_t)time(NULL);
	env.now = t->now;
	rc = payload_read(&t->payload, t->format, t->text, t->text_len, &env, e);
	free(t->text);
	t->text = NULL;
	if (rc)
		return rc;
	if (t->payload.kind == PAYLOAD_TURN && cl->lost)
		return err_set(e, -ESTALE, "%s", cl->lost);
	rc = check_resume(t, e);
	if (rc)
		return rc;
	if (t->started)
		t->payload.sampling.seed = t->resume.seed;
	else if (!t->payload.seeded &&
		 getrandom(&t->payload.sampling.seed, sizeof(t->payload.sampling.seed), 0) < 0)
		t->payload.sampling.seed = now_ns();
	return 0;
}

/* Nothing is computed: a token's result does not depend on when that was, so the next turn's prompt
 * does it. */
void turn_remember(struct turn *t)
{
	struct err e;
	int rc = turn_read(t, &e);

	if (!rc)
		rc = turn_open_answer(t, false, &e);
	if (!rc && payload_is_chat(&t->payload))
		rc = turn_fold(t, &e);
	if (rc) {
		t->cl->lost =
			"conversation: it was held with another model or build: start a new one";
		say_sparingly(t->cl->sv, "session %llu: cannot be continued: %s",
			      (unsigned long long)t->cl->number, e.msg);
	} else {
		turn_commit(t);
	}
	turn_free(t);
}

static const uint64_t *on_mask(void *ctx, struct request *r)
{
	struct turn *t = ctx;

	return constraint_mask(&t->constraint, &t->answer);
}

/* The engine knows prompts; who asked wrote messages. */
static int name_member(const struct payload *y, int rc, struct err *e)
{
	const char *member = y->kind == PAYLOAD_MESSAGES ? "messages"
			     : y->kind == PAYLOAD_EMBED	 ? "input"
							 : "prompt";
	char inner[sizeof(e->msg)];

	if (rc != -E2BIG)
		return rc;
	memcpy(inner, e->msg, sizeof(inner));
	if (!strncmp(inner, "prompt: ", 8))
		return err_set(e, rc, "%s: %s", member, inner + 8);
	return err_set(e, rc, "%s: %s", y->max_tokens ? "max_tokens" : member, inner);
}

static int turn_submit(struct turn *t, struct err *e)
{
	const struct payload *y = &t->payload;
	struct request_params p = {
		.session = payload_is_chat(y) ? t->cl->session : NULL,
		.prompt = y->prompt.ids.v,
		.n_prompt = y->prompt.ids.n,
		.n_history = y->prompt.n_history,
		.generated = t->cl->conv.generated,
		.embed = y->kind == PAYLOAD_EMBED,
		.max_tokens = y->max_tokens,
		.principal = t->principal,
		.priority = t->priority,
		.deadline_ns = t->deadline_ns,
		.sampling = y->sampling,
		.n_logprobs = y->n_logprobs,
		.bias = y->bias,
		.n_bias = y->n_bias,
		.special_text = turn_is_parsed(t),
		.mask = t->constraint.active ? on_mask : NULL,
		.stop = (const char *const *)y->stop,
		.n_stop = y->n_stop,
		.posted = t->ids.v,
		.n_posted = t->ids.n,
		.posted_bytes = UINT64_MAX, /* of pieces: turn_answer.c checks it */
		.on_event = on_event,
		.ctx = t,
	};
	int rc;

	if (t->max_tokens && (!p.max_tokens || t->max_tokens < (uint32_t)p.max_tokens))
		p.max_tokens = t->max_tokens > INT32_MAX ? INT32_MAX : (int)t->max_tokens;
	rc = engine_submit(t->cl->sv->en, &p, &t->rq, e);
	if (rc)
		t->rq = NULL;
	return name_member(y, rc, e);
}

/* What the engine is not needed for. */
static void turn_result(struct turn *t)
{
	struct engine_event none = {0};
	struct answer_text rest = {0};

	turn_started(t);
	turn_post_result(t, LLM_DATA_JSON, t->payload.result, t->payload.result_len);
	none.ns_submit = none.ns_start = none.ns_first = none.ns_end = now_ns();
	none.prompt_tokens = (int)t->payload.prompt.ids.n;
	post_done(t, &none, LLM_FINISH_STOP, &rest);
}

int turn_start(struct turn *t)
{
	struct client *cl = t->cl;
	struct err e;
	int rc;

	t->begun = true;
	/* STARTED was the first event, parts of the result all others. */
	t->posted_parts = t->started ? t->seq - 1 : 0;
	rc = turn_read(t, &e);
	if (!rc && t->payload.kind == PAYLOAD_RESULT) {
		turn_result(t);
		return 0;
	}
	if (!rc && !cl->session && payload_is_chat(&t->payload))
		rc = engine_session_open(cl->sv->en, &cl->session, &e);
	if (!rc)
		rc = turn_open_answer(t, true, &e);
	if (!rc)
		rc = turn_submit(t, &e);
	if (rc)
		turn_error(t, -rc, e.msg);
	return rc;
}

/* ---- ends from outside ---------------------------------------------------------------------------- */

void turn_cancel(struct turn *t)
{
	struct engine_event none = {0};
	struct answer_text rest = {0};

	if (t->ended || t->closing)
		return;
	if (t->rq) {
		t->park_reader = t->park_pace = false;
		turn_park(t);
		engine_cancel(t->rq);
		t->cl->sv->step_owed = true;
		return;
	}
	none.ns_submit = none.ns_start = none.ns_first = none.ns_end = now_ns();
	none.completion_tokens = (int)t->ids.n;
	post_done(t, &none, LLM_FINISH_CANCELLED, &rest);
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
