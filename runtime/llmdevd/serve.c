// SPDX-License-Identifier: MIT
/*
 * The daemon's loop (serve.h): waits for clients, runs timers, takes engine steps; the server's open
 * and close. What a request does is in turn.c, what a client may is in client.c.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llmdevd/server_internal.h"
#include "transport/kdev.h"

#define LOG_BURST      20 /* lines at once that clients bring about */
#define LOG_PER_SECOND 5 /* ... and then */

#define DEVICE_RETRY_NS 200000000u /* while another daemon has it */

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void say_va(struct server *sv, const char *fmt, va_list ap)
{
	char line[1024];

	vsnprintf(line, sizeof(line), fmt, ap);
	sv->o.log(sv->o.log_ctx, line);
}

void say(struct server *sv, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say_va(sv, fmt, ap);
	va_end(ap);
}

void say_sparingly(struct server *sv, const char *fmt, ...)
{
	uint64_t now = now_ns(), refill = (now - sv->log_ns) / (1000000000u / LOG_PER_SECOND);
	va_list ap;

	if (refill) {
		sv->log_room =
			refill < LOG_BURST - sv->log_room ? sv->log_room + (int)refill : LOG_BURST;
		sv->log_ns = now;
	}
	if (!sv->log_room && !sv->o.verbose) {
		sv->log_left_out++;
		return;
	}
	sv->log_room -= sv->log_room > 0;
	if (sv->log_left_out) {
		say(sv, "(%u such lines left out)", sv->log_left_out);
		sv->log_left_out = 0;
	}
	va_start(ap, fmt);
	say_va(sv, fmt, ap);
	va_end(ap);
}

/* ---- the loop ------------------------------------------------------------------------------------- */

static void earlier(uint64_t *due, uint64_t ns)
{
	if (ns < *due)
		*due = ns;
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
	}
	if (t->deadline_ns) {
		if (t->deadline_ns <= now) {
			turn_expire(t, ETIMEDOUT, DEADLINE_PASSED);
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

/* A disk that fills up costs speed, not answers: somebody should know. */
static void report_swap(struct server *sv)
{
	struct engine_stats st;

	if (sv->swap_reported)
		return;
	engine_stats(sv->en, &st);
	if (st.swap_error)
		say(sv, "%s", st.swap_error);
	/* Nothing to watch: it has ended, or there was none. */
	sv->swap_reported = !st.swap_max_pages;
}

/* A stream that has begun is not given up, not even one that an earlier daemon began. */
static bool waits(const struct turn *t)
{
	return !t->ended && !t->started &&
	       (!t->begun || (t->rq && engine_request_state(t->rq) == ENGINE_WAITING));
}

static int refuse_waiting(struct server *sv)
{
	struct client *cl = sv->clients;
	int n = 0;

	while (cl) {
		struct turn *t = cl->turns;

		while (t && !waits(t))
			t = t->next;
		if (!t) {
			cl = cl->next;
			continue;
		}
		n++;
		/* The client's list may have changed: look again. */
		turn_expire(t, ENOSPC,
			    "memory: the machine is short of it, this request was still waiting: "
			    "try again later");
	}
	return n;
}

void server_relieve(struct server *sv)
{
	uint64_t bytes;

	switch (pressure_next(&sv->pressure, now_ns())) {
	case RELIEF_CACHE:
		bytes = engine_shed_cache(sv->en);
		say(sv, "memory pressure: gave up the prefix cache, %.1f MB", (double)bytes / 1e6);
		/* Where that was nothing the next step cannot wait. */
		if (bytes)
			break;
		pressure_next(&sv->pressure, now_ns());
		/* fall through */
	case RELIEF_IDLE:
		bytes = engine_shed_idle(sv->en);
		say(sv, "memory pressure: gave up idle conversations' KV, %.1f MB",
		    (double)bytes / 1e6);
		break;
	case RELIEF_QUEUE:
		say_sparingly(sv,
			      "memory pressure: refused %d waiting requests, nothing new is taken "
			      "until it has been calm for %u s",
			      refuse_waiting(sv), (unsigned int)(PRESSURE_CALM_NS / 1000000000));
		sv->step_owed = true;
		break;
	case RELIEF_NONE:
		break;
	}
}

const char *server_pressure(const struct server *sv)
{
	return sv->pressure.source[0] ? sv->pressure.source : NULL;
}

/* The kernel has admitted what comes: this daemon's own limits are not to be lower. */
static int attach_device(struct server *sv, struct err *e)
{
	struct kdev_opts o = {
		.name = sv->o.device,
		.model = sv->info->model,
		.fingerprint = sv->info->fingerprint,
		.features = LLM_FEATURE_JSON,
		.context = (uint32_t)sv->info->ctx,
	};
	struct llm_query q;
	int rc;

	if (!chat_unusable(engine_chat(sv->en)))
		o.features |= LLM_FEATURE_CHAT;
	if (sv->info->row_invariant)
		o.features |= LLM_FEATURE_EXACT;
	rc = kdev_open(&sv->device, &o, &client_handler, sv, &q, e);
	if (rc)
		return rc;
	if (sv->o.max_payload < q.max_payload)
		sv->o.max_payload = q.max_payload;
	if (sv->o.max_requests < (int)q.max_requests)
		sv->o.max_requests = (int)q.max_requests;
	if (sv->o.max_sessions < (int)q.max_sessions)
		sv->o.max_sessions = (int)q.max_sessions;
	return transport_watch(sv->t, kdev_fd(sv->device), e);
}

/*
 * Takes the device. While another daemon has it, this one waits: it takes over when that one lets go
 * or dies.
 */
static int open_device(struct server *sv, struct err *e)
{
	bool first = !sv->device_ns;
	int rc = attach_device(sv, e);

	sv->device_ns = rc == -EBUSY ? now_ns() + DEVICE_RETRY_NS : 0;
	if (rc == -EBUSY && first)
		say(sv, "device %s: another llmdevd serves it: waiting until that lets go",
		    sv->o.device);
	if (!rc && !first)
		say(sv, "device %s: taken over, it is /dev/llm%u", sv->o.device,
		    kdev_number(sv->device));
	if (rc == -EBUSY)
		return 0;
	if (rc && sv->o.use_device == DEVICE_AUTO) {
		say(sv, "serving the socket alone: %s", e->msg);
		return 0;
	}
	return rc;
}

/*
 * While the socket's clients are handed over, the device is let go of once nothing runs for it. A
 * turn that waits for its reader does not hold it up: the next daemon goes on with it.
 */
static void leave_device(struct server *sv)
{
	for (struct client *cl = sv->clients; sv->device && cl; cl = cl->next) {
		if (cl->ch && channel_peer(cl->ch)->checked && cl->turns && cl->turns->begun &&
		    !cl->turns->park_reader)
			return;
	}
	if (!sv->device || !transport_flushed(sv->device))
		return;
	transport_close(sv->device);
	sv->device = NULL;
}

/* Who has nothing running goes to the daemon that took the place, with what waits. */
static void send_away(struct server *sv)
{
	for (struct client *cl = sv->clients; cl; cl = cl->next) {
		if (cl->ch && !(cl->turns && cl->turns->begun) && channel_flushed(cl->ch))
			channel_close(cl->ch);
	}
	transport_flush(sv->t);
	leave_device(sv);
}

static void flush(struct server *sv)
{
	transport_flush(sv->t);
	if (sv->device)
		transport_flush(sv->device);
}

int server_step(struct server *sv, struct err *e)
{
	uint64_t due = run_timers(sv), now = now_ns();
	int64_t wait = -1;
	int rc;

	if (sv->device_ns && sv->device_ns <= now) {
		rc = open_device(sv, e);
		if (rc)
			return rc;
	}
	if (sv->device_ns)
		earlier(&due, sv->device_ns);
	/* Errors that timers posted must not wait for the next client to move. */
	flush(sv);
	if (sv->step_owed || engine_runnable(sv->en) > 0)
		wait = 0;
	else if (due != UINT64_MAX)
		wait = due > now ? (int64_t)(due - now) : 0;
	rc = transport_poll(sv->t, wait, e);
	if (!rc && sv->device) {
		rc = transport_poll(sv->device, 0, e);
		/* Its time was up in the middle of a step. The next daemon goes on with what ran. */
		if (rc && sv->leaving) {
			say(sv, "%s: it was to be let go of", e->msg);
			transport_close(sv->device);
			sv->device = NULL;
			rc = 0;
		}
	}
	if (rc)
		return rc;
	if (pressure_told(&sv->pressure))
		server_relieve(sv);
	if (sv->step_owed || engine_runnable(sv->en) > 0) {
		sv->step_owed = false;
		rc = engine_step(sv->en, e);
		clients_reap(sv);
		if (rc < 0)
			return rc;
		report_swap(sv);
	}
	flush(sv);
	if (sv->handing_over)
		send_away(sv);
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
		.max_unfinished = 1024,
		.max_principal = 64,
		.max_uid = 256,
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
		.max_channels = o->max_sessions + SERVER_SPARE_CHANNELS,
		.max_input = o->max_queue,
	};
	const int32_t *eos;
	int n_eos = engine_eos(en, &eos);
	struct server *sv = calloc(1, sizeof(*sv));
	int rc;

	if (!sv)
		return err_set(e, -ENOMEM, "server: no memory");
	sv->o = *o;
	sv->en = en;
	sv->info = engine_info(en);
	sv->start_ns = now_ns();
	rc = pressure_open(&sv->pressure, o->pressure ? o->pressure : "off", e);
	if (rc) {
		free(sv);
		return rc;
	}
	sampling_default(&sv->sampling, en);
	rc = grammar_cache_open(&sv->grammars, engine_tokenizer(en), sv->info->vocab, eos, n_eos,
				e);
	if (rc) {
		pressure_close(&sv->pressure);
		free(sv);
		return rc;
	}
	if (limits_init(&sv->limits, o->max_unfinished, o->max_principal, o->max_uid))
		rc = err_set(e, -ENOMEM, "server: no memory");
	else
		rc = socket_transport_open(&sv->t, &so, &client_handler, sv, e);
	if (!rc && pressure_fd(&sv->pressure) >= 0)
		rc = transport_watch(sv->t, pressure_fd(&sv->pressure), e);
	if (!rc && o->use_device)
		rc = open_device(sv, e);
	if (rc) {
		pressure_close(&sv->pressure);
		transport_close(sv->device);
		transport_close(sv->t);
		grammar_cache_close(sv->grammars);
		limits_free(&sv->limits);
		free(sv);
		return rc;
	}
	*out = sv;
	return 0;
}

int server_device(const struct server *sv)
{
	return sv->device ? (int)kdev_number(sv->device) : -1;
}

bool server_quiesced(struct server *sv, uint64_t *deadline_ns)
{
	bool asked = sv->quiesce_asked;

	*deadline_ns = sv->quiesce_ns;
	sv->quiesce_asked = false;
	return asked;
}

int server_watch(struct server *sv, int fd, struct err *e)
{
	return transport_watch(sv->t, fd, e);
}

void server_drain(struct server *sv, uint64_t deadline_ns)
{
	sv->draining = true;
	sv->drain_ns = deadline_ns;
	sv->device_ns = 0;
	transport_drain(sv->t);
	if (sv->device)
		transport_drain(sv->device);
}

bool server_hand_over(struct server *sv)
{
	if (!transport_replaced(sv->t))
		return false;
	sv->draining = sv->handing_over = true;
	sv->drain_ns = UINT64_MAX;
	sv->device_ns = 0;
	transport_hand_over(sv->t);
	send_away(sv);
	return true;
}

void server_take_back(struct server *sv)
{
	sv->draining = sv->handing_over = false;
	transport_take_back(sv->t);
	if (!sv->device && sv->o.use_device)
		sv->device_ns = now_ns();
	for (struct client *cl = sv->clients, *next; cl; cl = next) {
		next = cl->next;
		client_next(cl);
	}
}

bool server_idle(const struct server *sv)
{
	if (sv->draining && now_ns() >= sv->drain_ns)
		return true;
	for (const struct client *cl = sv->clients; cl; cl = cl->next) {
		if (cl->turns && cl->turns->begun)
			return false;
	}
	return transport_flushed(sv->t) && (!sv->device || transport_flushed(sv->device));
}

void server_close(struct server *sv)
{
	struct err e;

	if (!sv)
		return;
	transport_close(sv->device);
	transport_close(sv->t);
	/* Clients whose requests the engine still holds go with the last of those. */
	while (sv->clients && engine_step(sv->en, &e) > 0)
		clients_reap(sv);
	/* ... and with its sessions, where it failed. */
	for (struct client *cl = sv->clients; cl; cl = cl->next) {
		if (cl->session)
			engine_session_close(cl->session);
		cl->session = NULL;
		while (cl->turns)
			turn_remove(cl->turns);
	}
	sv->reap_owed = true;
	clients_reap(sv);
	limits_free(&sv->limits);
	grammar_cache_close(sv->grammars);
	pressure_close(&sv->pressure);
	free(sv);
}
