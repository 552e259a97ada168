// SPDX-License-Identifier: MIT
/*
 * The daemon's core (serve.h). Owns the transport, every client's session and its turns.
 *
 * A turn is one request from its SUBMIT to its terminal event. It outlives that event while the
 * engine still holds its request: `ended` then says that nothing more may be posted. A client
 * outlives its channel in the same way. Both go when the engine lets go (on_event: DONE, ERROR).
 *
 * A turn whose reader is slow is parked in the engine, and after a moment suspended: the engine's
 * request is cancelled to free its slot, and made again as a replay when there is room.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/fnv.h"
#include "llmdevd/conversation.h"
#include "llmdevd/payload.h"
#include "llmdevd/serve.h"
#include "transport/transport.h"

struct turn {
	struct client *cl;
	struct turn *next;
	uint64_t id, seq, deadline_ns;
	uint64_t bytes; /* of its SUBMIT */
	uint64_t principal; /* who may share its cached prefixes */
	uint32_t format, max_tokens;
	char *text; /* the payload; freed once it is read */
	size_t text_len;
	struct payload payload;
	struct llm_resume resume; /* as replayed, or as posted with STARTED */
	struct ids answer; /* posted by an earlier daemon, then generated here */
	uint64_t posted_bytes; /* text posted with those */
	bool started; /* STARTED is out, here or by an earlier daemon */
	bool ended; /* its terminal event is out, or nobody wants it */
	struct request *rq; /* NULL: waits for its turn */
	bool park_reader, park_pace;
	bool suspending, suspended;
	uint64_t parked_ns, pace_ns;
};

struct client {
	struct server *sv;
	struct client *prev, *next;
	struct channel *ch; /* NULL: gone */
	uint64_t number; /* in log lines */
	struct session *session;
	struct conversation conv;
	struct turn *turns, **tail; /* in order; only the first can run */
	int n_turns; /* that still owe a terminal event */
	uint64_t last_id, transcript;
	bool replay_over;
	const char *lost; /* why the conversation cannot be continued */
};

struct server {
	struct server_opts o;
	struct engine *en;
	const struct engine_info *info;
	struct sampling sampling;
	struct transport *t;
	struct client *clients;
	uint64_t n_opened, template_hash;
	uint64_t queue; /* bytes that all turns were given */
	bool step_owed; /* a cancelled request ends in the next step */
	bool draining;
	uint64_t drain_ns;
};

static void client_next(struct client *cl);

/* ---- small helpers -------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A reader that is slower than this must not hold one of the engine's places. */
#define SUSPEND_NS UINT64_C(1000000000)

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

__attribute__((format(printf, 2, 3))) static void say(struct server *sv, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	sv->o.log(sv->o.log_ctx, line);
}

/* ---- turns ---------------------------------------------------------------------------------------- */

static void turn_free(struct turn *t)
{
	t->cl->sv->queue -= t->bytes;
	free(t->text);
	payload_free(&t->payload);
	ids_free(&t->answer);
	free(t);
}

static void turn_unlink(struct turn *t)
{
	struct client *cl = t->cl;
	struct turn **p = &cl->turns;

	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	if (!t->next)
		cl->tail = p;
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
		say(t->cl->sv, "session %llu request %llu: %s", (unsigned long long)t->cl->number,
		    (unsigned long long)t->id, sentence);
	turn_post(t, LLM_EVENT_ERROR, parts, 2);
	turn_ended(t);
}

static void turn_park(struct turn *t)
{
	if (t->rq)
		engine_park(t->rq, !t->ended && (t->park_reader || t->park_pace));
}

/* Ends a turn whose request the engine may hold; the engine's own end comes with its next step. */
static void turn_abandon(struct turn *t)
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
		turn_abandon(t);
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
		turn_abandon(t);
		return;
	}
	if (turn_post(t, LLM_EVENT_TEXT, parts, 3)) {
		turn_error(t, ENOSPC, "events: nobody reads them: read, then ask again");
		turn_abandon(t);
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

static void client_free(struct client *cl)
{
	if (cl->prev)
		cl->prev->next = cl->next;
	else
		cl->sv->clients = cl->next;
	if (cl->next)
		cl->next->prev = cl->prev;
	if (cl->session)
		engine_session_close(cl->session);
	conversation_free(&cl->conv);
	free(cl);
}

/* The engine let go of the request: the turn is over, the next one may begin. */
static void turn_finish(struct turn *t)
{
	struct client *cl = t->cl;

	turn_unlink(t);
	turn_free(t);
	if (cl->ch)
		client_next(cl);
	else
		client_free(cl);
}

static int turn_submit(struct turn *t, struct err *e);

/* The reader caught up: the engine gets the turn again, with what was posted so far. */
static void turn_resume(struct turn *t)
{
	struct client *cl = t->cl;
	struct err e;
	int rc;

	t->suspended = false;
	rc = turn_submit(t, &e);
	if (!rc)
		return;
	turn_error(t, -rc, e.msg);
	turn_unlink(t);
	turn_free(t);
	client_next(cl);
}

static void turn_done(struct turn *t, const struct engine_event *ev)
{
	uint32_t finish = ev->finish == FINISH_STOP	? LLM_FINISH_STOP
			  : ev->finish == FINISH_LENGTH ? LLM_FINISH_LENGTH
							: LLM_FINISH_CANCELLED;

	if (t->suspending && !t->ended && finish == LLM_FINISH_CANCELLED) {
		t->rq = NULL;
		t->suspending = false;
		t->suspended = true;
		if (!t->park_reader)
			turn_resume(t);
		return;
	}
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

/*
 * An answer that is complete becomes part of the conversation again. Nothing is computed: a
 * token's result does not depend on when it was computed, so the next turn's prompt does it.
 */
static void turn_remember(struct turn *t)
{
	struct err e;

	if (turn_read(t, &e)) {
		t->cl->lost =
			"conversation: it was held with another model or build: start a new one";
		say(t->cl->sv, "session %llu: cannot be continued: %s",
		    (unsigned long long)t->cl->number, e.msg);
	} else {
		turn_commit(t);
	}
	turn_free(t);
}

/* Gives the turn to the engine, to begin or to go on after what was posted. */
static int turn_submit(struct turn *t, struct err *e)
{
	struct request_params p = {
		.session = t->payload.kind == PAYLOAD_PROMPT ? NULL : t->cl->session,
		.prompt = t->payload.prompt.v,
		.n_prompt = t->payload.prompt.n,
		.max_tokens = t->payload.max_tokens,
		.principal = t->principal,
		.sampling = t->payload.sampling,
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

/* The turn's time has come. On failure its error is posted and -errno returned. */
static int turn_start(struct turn *t)
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

/* Starts the session's first waiting turn, if none runs. */
static void client_next(struct client *cl)
{
	while (cl->ch && !cl->sv->draining && cl->turns && !cl->turns->rq &&
	       !cl->turns->suspended) {
		struct turn *t = cl->turns;

		if (!turn_start(t))
			return;
		turn_unlink(t);
		turn_free(t);
	}
}

/* ---- messages ------------------------------------------------------------------------------------- */

/* An ERROR for a request that has no turn. */
static void refuse(struct client *cl, const struct msg *m, int error, const char *sentence)
{
	struct llm_error err = {.error = error, .n_bytes = (uint32_t)strlen(sentence)};
	struct event_part parts[] = {{&err, sizeof(err)}, {sentence, err.n_bytes}};

	/* Terminal events always find room, so their number has to be bounded here. */
	if (channel_room(cl->ch) < LLM_EVENT_MAX) {
		channel_fail(cl->ch, ENOSPC, "events: nobody reads them: read, then ask");
		return;
	}
	channel_post(cl->ch, LLM_EVENT_ERROR, m->request_id, m->submit.seq, parts, 2);
	say(cl->sv, "session %llu request %llu: %s", (unsigned long long)cl->number,
	    (unsigned long long)m->request_id, sentence);
}

/* The end user named by the label, else the uid of the peer: two different kinds of name. */
static uint64_t principal_of(const struct msg *m, uint32_t uid)
{
	if (m->submit.principal_len)
		return fnv1a(FNV_START, m->principal, m->submit.principal_len) | 1ull << 32;
	return uid;
}

static uint64_t submit_bytes(const struct msg *m)
{
	return sizeof(struct turn) + m->submit.payload_len + m->submit.n_ids * sizeof(int32_t);
}

static struct turn *turn_new(struct client *cl, const struct msg *m)
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
	t->principal = principal_of(m, channel_peer(cl->ch)->uid);
	t->format = s->format;
	t->max_tokens = s->max_tokens;
	t->resume = m->resume;
	t->posted_bytes = s->posted_bytes;
	t->started = s->resume_len != 0;
	return t;
}

static void on_submit(struct client *cl, const struct msg *m)
{
	const struct server *sv = cl->sv;
	const struct channel_peer *peer = channel_peer(cl->ch);
	bool replay = m->flags & LLM_MSG_F_REPLAY, finished = m->flags & LLM_MSG_F_FINISHED;
	bool admin = !peer->uid || peer->uid == geteuid();
	struct turn *t;

	if (m->request_id <= cl->last_id) {
		channel_fail(cl->ch, EINVAL, "SUBMIT.request_id: not higher than the last one");
		return;
	}
	if (replay && cl->replay_over) {
		channel_fail(cl->ch, EINVAL, "SUBMIT: a replay comes first or not at all");
		return;
	}
	cl->last_id = m->request_id;
	cl->replay_over |= !replay;
	if (m->submit.payload_len > sv->o.max_payload) {
		refuse(cl, m, E2BIG, "payload: longer than this daemon takes: send less");
		return;
	}
	if (m->submit.n_ids > (uint32_t)sv->info->ctx) {
		refuse(cl, m, EINVAL, "ids: more than the context holds");
		return;
	}
	if ((m->submit.principal_len || m->submit.priority < 0) && !admin) {
		refuse(cl, m, EPERM,
		       "principal, priority: only root and the daemon's user set them");
		return;
	}
	if (finished && cl->turns) {
		channel_fail(cl->ch, EINVAL, "SUBMIT: a finished request after one that runs");
		return;
	}
	if (!finished && cl->n_turns >= sv->o.max_requests) {
		refuse(cl, m, ENOSPC, "requests: too many wait in this session: wait for one");
		return;
	}
	if (sv->queue + submit_bytes(m) > sv->o.max_queue) {
		refuse(cl, m, ENOSPC, "requests: too many wait in this daemon: try again later");
		return;
	}
	if (replay) {
		cl->transcript += m->submit.payload_len + m->submit.n_ids * sizeof(int32_t);
		if (cl->transcript > sv->o.max_transcript) {
			channel_fail(cl->ch, ENOSPC, "transcript: over this daemon's limit");
			return;
		}
	}
	t = turn_new(cl, m);
	if (!t) {
		refuse(cl, m, ENOMEM, "request: no memory: try again later");
		return;
	}
	if (finished) {
		turn_remember(t);
		return;
	}
	*cl->tail = t;
	cl->tail = &t->next;
	cl->n_turns++;
	if (t->started)
		say(cl->sv, "session %llu request %llu: continues after %zu tokens",
		    (unsigned long long)cl->number, (unsigned long long)t->id, t->answer.n);
	client_next(cl);
}

/* A turn that waits is taken out, one that runs is stopped; an id that is over is no error. */
static void on_cancel(struct client *cl, uint64_t id)
{
	struct engine_event none = {0};
	struct turn *t = cl->turns;

	while (t && t->id != id)
		t = t->next;
	if (!t || t->ended)
		return;
	if (t->rq) {
		t->park_reader = t->park_pace = t->suspending = false;
		turn_park(t);
		engine_cancel(t->rq);
		cl->sv->step_owed = true;
		return;
	}
	none.ns_submit = none.ns_start = none.ns_first = none.ns_end = now_ns();
	none.completion_tokens = (int)t->answer.n;
	none.prompt_tokens = (int)t->payload.prompt.n;
	post_done(t, &none, LLM_FINISH_CANCELLED);
	if (t->suspended)
		turn_commit(t);
	turn_ended(t);
	turn_unlink(t);
	turn_free(t);
	client_next(cl);
}

static void on_query(struct client *cl)
{
	const struct server *sv = cl->sv;
	struct llm_query q = {
		.size = sizeof(q),
		.features = LLM_FEATURE_EVENT_MODE | LLM_FEATURE_JSON | LLM_FEATURE_REPLAY |
			    LLM_FEATURE_TRANSCRIPT | LLM_FEATURE_PRINCIPAL | LLM_FEATURE_DEADLINE,
		.file = LLM_FILE_SESSION,
		.generation = 1,
		.max_payload = sv->o.max_payload,
		.max_event_bytes = sv->o.max_events,
		.max_transcript = sv->o.max_transcript,
		.max_message = sv->o.max_transcript,
		.max_requests = (uint32_t)sv->o.max_requests,
		.max_sessions = (uint32_t)sv->o.max_sessions,
		.context = (uint32_t)sv->info->ctx,
		.fingerprint = sv->info->fingerprint,
	};
	struct event_part part = {&q, sizeof(q)};

	if (engine_chat_format(sv->en) != CHAT_NONE)
		q.features |= LLM_FEATURE_CHAT;
	if (sv->info->row_invariant)
		q.features |= LLM_FEATURE_EXACT;
	snprintf((char *)q.device, sizeof(q.device), "%s", sv->o.device);
	snprintf((char *)q.model, sizeof(q.model), "%s", sv->info->model);
	if (channel_post(cl->ch, LLM_EVENT_INFO, 0, 0, &part, 1))
		channel_fail(cl->ch, ENOSPC, "events: nobody reads them: read, then ask");
}

static void on_message(void *ctx, struct channel *ch, const struct msg *m)
{
	struct client *cl = channel_user(ch);

	switch (m->type) {
	case LLM_MSG_SUBMIT:
		on_submit(cl, m);
		return;
	case LLM_MSG_CANCEL:
		on_cancel(cl, m->request_id);
		return;
	case LLM_MSG_QUERY:
		on_query(cl);
		return;
	case LLM_MSG_SESSION_OPEN:
		/* The connection opened the session; this only tells what became of the last one. */
		if (cl->last_id || cl->replay_over)
			break;
		if (m->flags & LLM_MSG_F_LOST)
			cl->lost =
				"conversation: too long to be kept over a restart: start a new one";
		return;
	case LLM_MSG_REPLAY_END:
		cl->replay_over = true;
		return;
	}
	channel_fail(ch, EINVAL, "message.type: not for a client to send, or not now");
}

/* ---- clients -------------------------------------------------------------------------------------- */

static int on_open(void *ctx, struct channel *ch, struct err *e)
{
	struct server *sv = ctx;
	struct client *cl = calloc(1, sizeof(*cl));

	if (!cl)
		return err_set(e, -ENOMEM, "session: no memory: try again later");
	cl->sv = sv;
	cl->ch = ch;
	cl->number = ++sv->n_opened;
	cl->tail = &cl->turns;
	conversation_init(&cl->conv, engine_tokenizer(sv->en), engine_chat_format(sv->en));
	cl->next = sv->clients;
	if (cl->next)
		cl->next->prev = cl;
	sv->clients = cl;
	channel_set_user(ch, cl);
	if (sv->o.verbose)
		say(sv, "session %llu: opened by uid %u pid %d", (unsigned long long)cl->number,
		    (unsigned)channel_peer(ch)->uid, (int)channel_peer(ch)->pid);
	return 0;
}

static void on_close(void *ctx, struct channel *ch)
{
	struct client *cl = channel_user(ch);
	struct turn *t = cl->turns;

	if (cl->sv->o.verbose)
		say(cl->sv, "session %llu: closed", (unsigned long long)cl->number);
	cl->ch = NULL;
	while (t) {
		struct turn *next = t->next;

		if (t->rq) {
			turn_abandon(t);
		} else {
			turn_unlink(t);
			turn_free(t);
		}
		t = next;
	}
	if (!cl->turns)
		client_free(cl);
}

static void on_room(void *ctx, struct channel *ch)
{
	struct client *cl = channel_user(ch);
	struct turn *t = cl->turns;

	if (!t || !t->park_reader)
		return;
	t->park_reader = false;
	if (t->suspended)
		turn_resume(t);
	else
		turn_park(t);
}

static const struct transport_handler handler = {
	.open = on_open,
	.message = on_message,
	.room = on_room,
	.close = on_close,
};

/* ---- the loop ------------------------------------------------------------------------------------- */

static void earlier(uint64_t *due, uint64_t ns)
{
	if (ns < *due)
		*due = ns;
}

/* Ends a turn that a limit of time met; others of its client may have ended with it. */
static void turn_expire(struct turn *t, int error, const char *sentence)
{
	struct client *cl = t->cl;

	turn_error(t, error, sentence);
	turn_abandon(t);
	if (t->rq)
		return;
	turn_unlink(t);
	turn_free(t);
	client_next(cl);
}

static void turn_suspend(struct turn *t)
{
	t->suspending = true;
	engine_cancel(t->rq);
	t->cl->sv->step_owed = true;
}

/* What is due for one turn. False: it was ended, the client's list has changed. */
static bool turn_timers(struct turn *t, uint64_t now, uint64_t *due)
{
	uint64_t limit = t->cl->sv->o.park_ns;

	if (t->park_pace && t->pace_ns <= now) {
		t->park_pace = false;
		turn_park(t);
	}
	if (t->park_pace)
		earlier(due, t->pace_ns);
	if (t->park_reader) {
		if (now - t->parked_ns >= limit) {
			turn_expire(t, ENOSPC,
				    "events: nobody read them for too long: read faster or raise "
				    "the limit `park`");
			return false;
		}
		earlier(due, t->parked_ns + limit);
		if (t->rq && !t->suspending) {
			if (now - t->parked_ns >= SUSPEND_NS)
				turn_suspend(t);
			else
				earlier(due, t->parked_ns + SUSPEND_NS);
		}
	}
	if (t->deadline_ns) {
		if (t->deadline_ns <= now) {
			turn_expire(t, ETIMEDOUT, "request: its deadline passed");
			return false;
		}
		earlier(due, t->deadline_ns);
	}
	return true;
}

/* Runs what is due; returns when the next thing is (UINT64_MAX: nothing). */
static uint64_t run_timers(struct server *sv)
{
	uint64_t now = now_ns(), due = UINT64_MAX;

	for (struct client *cl = sv->clients; cl; cl = cl->next) {
		for (struct turn *t = cl->turns; t; t = t->next) {
			if (t->ended || turn_timers(t, now, &due))
				continue;
			due = now; /* look again */
			break;
		}
	}
	if (sv->draining)
		earlier(&due, sv->drain_ns);
	return due;
}

int server_step(struct server *sv, struct err *e)
{
	uint64_t due = run_timers(sv), now = now_ns();
	int64_t wait = -1;
	int rc;

	if (sv->step_owed || engine_runnable(sv->en) > 0)
		wait = 0;
	else if (due != UINT64_MAX)
		wait = due > now ? (int64_t)(due - now) : 0;
	/* Errors that timers posted must not wait for the next client to move. */
	transport_flush(sv->t);
	rc = transport_poll(sv->t, wait, e);
	if (rc)
		return rc;
	if (sv->step_owed || engine_runnable(sv->en) > 0) {
		sv->step_owed = false;
		rc = engine_step(sv->en, e);
		if (rc < 0)
			return rc;
	}
	transport_flush(sv->t);
	return 0;
}

void server_opts_default(struct server_opts *o)
{
	*o = (struct server_opts){
		.device = "llm0",
		.max_payload = 4u << 20,
		.max_events = 256u << 10,
		.max_transcript = 16u << 20,
		.max_queue = 256u << 20,
		.max_requests = 16,
		.max_sessions = 256,
		.park_ns = UINT64_C(60) * 1000000000u,
	};
}

int server_open(struct server **out, struct engine *en, const struct server_opts *o, struct err *e)
{
	struct socket_opts so = {
		.path = o->socket,
		/* A message holds a payload and the ids of one answer, both bounded by it. */
		.max_message = o->max_transcript + 4096,
		.max_events = o->max_events,
		.max_channels = o->max_sessions,
		.max_input = o->max_queue,
	};
	const char *template;
	struct server *sv = calloc(1, sizeof(*sv));
	int rc;

	if (!sv)
		return err_set(e, -ENOMEM, "server: no memory");
	sv->o = *o;
	sv->en = en;
	sv->info = engine_info(en);
	sampling_default(&sv->sampling, en);
	template = checkpoint_chat_template(engine_checkpoint(en));
	if (engine_chat_format(en) != CHAT_NONE) {
		const char *name = chat_format_name(engine_chat_format(en));

		sv->template_hash = fnv1a(FNV_START, name, strlen(name));
		if (template)
			sv->template_hash = fnv1a(sv->template_hash, template, strlen(template));
	}
	rc = socket_transport_open(&sv->t, &so, &handler, sv, e);
	if (rc) {
		free(sv);
		return rc;
	}
	*out = sv;
	return 0;
}

int server_watch(struct server *sv, int fd, struct err *e)
{
	return transport_watch(sv->t, fd, e);
}

void server_drain(struct server *sv, uint64_t deadline_ns)
{
	sv->draining = true;
	sv->drain_ns = deadline_ns;
	transport_drain(sv->t);
}

bool server_idle(const struct server *sv)
{
	if (sv->draining && now_ns() >= sv->drain_ns)
		return true;
	for (const struct client *cl = sv->clients; cl; cl = cl->next) {
		if (cl->turns && cl->turns->rq)
			return false;
	}
	return transport_flushed(sv->t);
}

void server_close(struct server *sv)
{
	struct err e;

	if (!sv)
		return;
	transport_close(sv->t);
	/* Clients whose requests the engine still holds go with the last of those. */
	while (sv->clients && engine_step(sv->en, &e) > 0)
		;
	while (sv->clients) {
		struct client *cl = sv->clients;

		while (cl->turns) {
			struct turn *t = cl->turns;

			turn_unlink(t);
			turn_free(t);
		}
		client_free(cl);
	}
	free(sv);
}
