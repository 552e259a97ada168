// SPDX-License-Identifier: MIT
/*
 * Clients (server_internal.h): a connection becomes a session with its first message, unless that
 * asks for STATUS; then what its messages do, up to its close. Owns the places for sessions and the
 * spare ones.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fnv.h"
#include "llmdevd/server_internal.h"

/* ---- places --------------------------------------------------------------------------------------- */

static bool place_take(struct client *cl)
{
	struct server *sv = cl->sv;

	if (!cl->placed && sv->n_sessions < sv->o.max_sessions) {
		cl->placed = true;
		sv->n_sessions++;
	}
	return cl->placed;
}

static void refuse_session(struct client *cl)
{
	char sentence[160];

	snprintf(sentence, sizeof(sentence),
		 "sessions: %d are open, the limit is %d: try again later or ask the administrator "
		 "for `--limits sessions=`",
		 cl->sv->n_sessions, cl->sv->o.max_sessions);
	channel_fail(cl->ch, ENOSPC, sentence);
}

static void spare_take(struct client *cl)
{
	struct server *sv = cl->sv;
	struct client **slot = NULL;

	for (int i = 0; i < SPARE_CLIENTS && !slot; i++) {
		if (!sv->spare[i])
			slot = &sv->spare[i];
	}
	if (!slot) {
		slot = &sv->spare[sv->next_spare++ % SPARE_CLIENTS];
		refuse_session(*slot);
	}
	*slot = cl;
}

static void spare_leave(struct client *cl)
{
	for (int i = 0; i < SPARE_CLIENTS; i++) {
		if (cl->sv->spare[i] == cl)
			cl->sv->spare[i] = NULL;
	}
}

static void place_leave(struct client *cl)
{
	cl->sv->n_sessions -= cl->placed;
	cl->placed = false;
	spare_leave(cl);
}

/* Before a message is looked at: what it makes of its connection. False: there is no place. */
static bool client_admit(struct client *cl, uint32_t type)
{
	const struct channel_peer *peer = channel_peer(cl->ch);
	struct server *sv = cl->sv;

	if (type == LLM_MSG_STATUS) {
		if (cl->placed && !cl->number) {
			place_leave(cl);
			spare_take(cl);
		}
		return true;
	}
	if (!place_take(cl)) {
		refuse_session(cl);
		return false;
	}
	if (cl->number)
		return true;
	spare_leave(cl);
	cl->number = ++sv->n_opened;
	if (sv->o.verbose)
		say(sv, "session %llu: opened by uid %u pid %d", (unsigned long long)cl->number,
		    (unsigned)peer->uid, (int)peer->pid);
	return true;
}

/* ---- messages ------------------------------------------------------------------------------------- */

/* An ERROR for a request that has no turn. */
static void refuse(struct client *cl, const struct msg *m, int error, const char *sentence)
{
	struct llm_error err = {.error = error, .n_bytes = (uint32_t)strlen(sentence)};
	struct event_part parts[] = {{&err, sizeof(err)}, {sentence, err.n_bytes}};

	cl->sv->refused++;
	/* Terminal events always find room, so their number has to be bounded here. */
	if (channel_room(cl->ch) < LLM_EVENT_MAX) {
		channel_fail(cl->ch, ENOSPC, "events: nobody reads them: read, then ask");
		return;
	}
	channel_post(cl->ch, LLM_EVENT_ERROR, m->request_id, m->submit.seq, parts, 2);
	say_sparingly(cl->sv, "session %llu request %llu: %s", (unsigned long long)cl->number,
		      (unsigned long long)m->request_id, sentence);
}

/* The end user named by the label, else the uid of the peer: two different kinds of name. */
static uint64_t principal_of(const struct msg *m, uint32_t uid)
{
	if (m->submit.principal_len)
		return fnv1a(FNV_START, m->principal, m->submit.principal_len) | 1ull << 32;
	return uid;
}

/* A new or replayed request against the limits and the peer's rights. 0 or -errno. */
static int check_submit(const struct client *cl, const struct msg *m, struct err *e)
{
	const struct server *sv = cl->sv;
	const struct llm_msg_submit *s = &m->submit;
	uid_t uid = channel_peer(cl->ch)->uid;
	bool admin = !uid || uid == geteuid() || channel_peer(cl->ch)->checked;

	if (s->payload_len > sv->o.max_payload)
		return err_set(e, -E2BIG, "payload: %llu bytes: the limit is %llu: send less",
			       (unsigned long long)s->payload_len,
			       (unsigned long long)sv->o.max_payload);
	if (s->n_ids > (uint32_t)sv->info->ctx)
		return err_set(e, -EINVAL, "ids: %u: more than the context holds, %d", s->n_ids,
			       sv->info->ctx);
	if ((s->principal_len || s->priority < 0) && !admin)
		return err_set(e, -EPERM,
			       "principal, priority below 0: only root and the daemon's "
			       "user set them");
	if (m->flags & LLM_MSG_F_FINISHED)
		return 0;
	if (s->deadline_ns && s->deadline_ns <= now_ns())
		return err_set(e, -ETIMEDOUT, DEADLINE_PASSED);
	if (!(m->flags & LLM_MSG_F_REPLAY) && pressure_refuses(&sv->pressure, now_ns()))
		return err_set(
			e, -ENOSPC,
			"memory: the machine is short of it, nothing new is taken: try again "
			"later");
	if (cl->n_turns >= sv->o.max_requests)
		return err_set(e, -ENOSPC,
			       "requests: %d of this session are unfinished, the limit is %d: wait "
			       "for one or ask the administrator for `--limits requests=`",
			       cl->n_turns, sv->o.max_requests);
	if (sv->queue + submit_bytes(m) > sv->o.max_queue)
		return err_set(
			e, -ENOSPC,
			"requests: %llu bytes wait in this daemon and this one has %llu, the "
			"limit is %llu: try again later or ask the administrator for "
			"`--limits queue=`",
			(unsigned long long)sv->queue, (unsigned long long)submit_bytes(m),
			(unsigned long long)sv->o.max_queue);
	return 0;
}

/* The turn of an acceptable request, charged. NULL: refused, with *e and *rc. */
static struct turn *take_submit(struct client *cl, const struct msg *m, int *rc, struct err *e)
{
	uid_t uid = channel_peer(cl->ch)->uid;
	struct requester who = {
		.principal = principal_of(m, uid),
		.label = m->principal,
		.label_len = m->submit.principal_len,
		.uid = uid,
	};
	struct charge charge = {0};
	struct turn *t;

	*rc = check_submit(cl, m, e);
	/* What is told as history is not unfinished. */
	if (!*rc && !(m->flags & LLM_MSG_F_FINISHED))
		*rc = limits_charge(&cl->sv->limits, &charge, &who, e);
	if (*rc)
		return NULL;
	t = turn_new(cl, m, who.principal, &charge);
	if (!t) {
		limits_release(&cl->sv->limits, &charge);
		*rc = err_set(e, -ENOMEM, "request: no memory: try again later");
	}
	return t;
}

static void on_submit(struct client *cl, const struct msg *m)
{
	bool replay = m->flags & LLM_MSG_F_REPLAY, finished = m->flags & LLM_MSG_F_FINISHED;
	struct turn *t;
	struct err e;
	int rc;

	if (m->request_id <= cl->last_id) {
		channel_fail(cl->ch, EINVAL, "SUBMIT.request_id: not higher than the last one");
		return;
	}
	if (replay && cl->replay_over) {
		channel_fail(cl->ch, EINVAL, "SUBMIT: a replay comes first or not at all");
		return;
	}
	if (finished && cl->turns) {
		channel_fail(cl->ch, EINVAL, "SUBMIT: a finished request after one that runs");
		return;
	}
	cl->last_id = m->request_id;
	cl->replay_over |= !replay;
	if (replay) {
		cl->transcript += m->submit.payload_len + m->submit.n_ids * sizeof(int32_t);
		/* The kernel has a limit of its own. */
		if (cl->transcript > cl->sv->o.max_transcript && !channel_peer(cl->ch)->checked) {
			channel_fail(cl->ch, ENOSPC, "transcript: over this daemon's limit");
			return;
		}
	}
	t = take_submit(cl, m, &rc, &e);
	if (!t) {
		refuse(cl, m, -rc, e.msg);
		return;
	}
	memset(cl->label, 0, sizeof(cl->label));
	memcpy(cl->label, m->principal, m->submit.principal_len);
	if (finished) {
		turn_remember(t);
		return;
	}
	*cl->tail = t;
	cl->tail = &t->next;
	cl->n_turns++;
	if (t->started)
		say_sparingly(cl->sv, "session %llu request %llu: continues after %zu tokens",
			      (unsigned long long)cl->number, (unsigned long long)t->id, t->ids.n);
	client_next(cl);
}

/* What CANCEL says where the client has been told of an error already; NULL: it has not. */
static const char *ended_by(int reason)
{
	switch (reason) {
	case ETIMEDOUT:
		return DEADLINE_PASSED;
	case ECONNABORTED:
		return "request: aborted by the administrator";
	case ENOSPC:
		return "answer: longer than the device could remember";
	}
	return NULL;
}

/* A turn that waits is taken out, one that runs is stopped; an id that is over is no error. */
static void on_cancel(struct client *cl, uint64_t id, int reason)
{
	const char *why = ended_by(reason);
	struct turn *t = cl->turns;

	while (t && t->id != id)
		t = t->next;
	if (!t)
		return;
	/* It is no part of the conversation. */
	if (why && !t->ended) {
		turn_expire(t, reason, why);
		return;
	}
	turn_cancel(t);
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

	if (!chat_unusable(engine_chat(sv->en)))
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

	if (!client_admit(cl, m->type))
		return;
	switch (m->type) {
	case LLM_MSG_SUBMIT:
		on_submit(cl, m);
		return;
	case LLM_MSG_CANCEL:
		on_cancel(cl, m->request_id, m->cancel.reason);
		return;
	case LLM_MSG_QUERY:
		on_query(cl);
		return;
	case LLM_MSG_STATUS:
		status_post(cl);
		return;
	case LLM_MSG_SESSION_OPEN:
		/* The connection opened the session; this only tells what became of the last one. */
		if (cl->last_id || cl->replay_over)
			break;
		if (m->flags & LLM_MSG_F_LOST)
			cl->lost = "conversation: it was too long to be kept over a restart, or "
				   "held with "
				   "another model: start a new one";
		return;
	case LLM_MSG_REPLAY_END:
		cl->replay_over = true;
		return;
	}
	channel_fail(ch, EINVAL, "message.type: not for a client to send, or not now");
}

/* ---- open, close ---------------------------------------------------------------------------------- */

static int on_open(void *ctx, struct channel *ch, struct err *e)
{
	struct server *sv = ctx;
	struct client *cl = calloc(1, sizeof(*cl));

	if (!cl)
		return err_set(e, -ENOMEM, "session: no memory: try again later");
	cl->sv = sv;
	cl->ch = ch;
	cl->tail = &cl->turns;
	cl->opened_ns = now_ns();
	conversation_init(&cl->conv, engine_tokenizer(sv->en), engine_chat(sv->en));
	cl->next = sv->clients;
	if (cl->next)
		cl->next->prev = cl;
	sv->clients = cl;
	channel_set_user(ch, cl);
	if (!place_take(cl))
		spare_take(cl);
	return 0;
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

void clients_reap(struct server *sv)
{
	for (struct client *cl = sv->clients, *next; cl && sv->reap_owed; cl = next) {
		next = cl->next;
		if (!cl->ch && !cl->turns)
			client_free(cl);
	}
	sv->reap_owed = false;
}

static void on_close(void *ctx, struct channel *ch)
{
	struct client *cl = channel_user(ch);

	if (cl->number && cl->sv->o.verbose)
		say(cl->sv, "session %llu: closed", (unsigned long long)cl->number);
	place_leave(cl);
	cl->ch = NULL;
	for (struct turn *t = cl->turns, *next; t; t = next) {
		next = t->next;
		turn_abandon(t);
	}
	if (!cl->turns)
		client_free(cl);
}

/* How long before the kernel takes the device away running answers are given up. */
#define HANDOVER_NS 250000000ull

static void on_quiesce(void *ctx, uint64_t deadline_ns)
{
	struct server *sv = ctx;

	sv->quiesce_asked = true;
	sv->leaving = true;
	sv->quiesce_ns = deadline_ns > HANDOVER_NS ? deadline_ns - HANDOVER_NS : deadline_ns;
}

static void on_room(void *ctx, struct channel *ch)
{
	struct client *cl = channel_user(ch);
	struct turn *t = cl->turns;

	if (t && t->park_reader)
		turn_room(t);
}

const struct transport_handler client_handler = {
	.open = on_open,
	.message = on_message,
	.room = on_room,
	.close = on_close,
	.quiesce = on_quiesce,
};

void client_next(struct client *cl)
{
	while (cl->ch && !cl->sv->draining && cl->turns && !cl->turns->begun) {
		if (!turn_start(cl->turns) && !cl->turns->ended)
			return;
		turn_remove(cl->turns);
	}
}
