// SPDX-License-Identifier: MIT
/*
 * Questions to daemons: one libllmdev handle each, closed with its answer, so that a daemon holds
 * nothing for clients that left. Counting of what was used happens here, for all endpoints alike.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "http/server.h"

#define TURN_EVENTS 256 /* of one answer before others have their turn */
#define STALE_NS    UINT64_C(5000000000) /* what is known of a daemon is asked again after this */

static struct model_metrics *metrics_of(struct upstream *u)
{
	struct gateway *g = u->x->rq.g;

	return &g->metrics.models[u->backend - g->backends];
}

static void release_upstream(struct source *s)
{
	struct upstream *u = (struct upstream *)s;

	/* Not before: its last event's memory is the handle's. */
	if (u->d)
		llmdev_close(u->d);
	free(u->sentence);
	free(u);
}

/* Nothing comes for it any more. */
static void end_upstream(struct upstream *u)
{
	struct gateway *g = u->x->rq.g;
	struct upstream **p;

	if (u->dead)
		return;
	u->dead = true;
	metrics_of(u)->running--;
	for (p = &u->x->upstreams; *p != u; p = &(*p)->next)
		;
	*p = u->next;
	for (p = &g->todo; *p && *p != u; p = &(*p)->next_todo)
		;
	if (*p)
		*p = u->next_todo;
	if (u->d)
		metrics_of(u)->recoveries += llmdev_recoveries(u->d);
	loop_bury(&g->loop, &u->source);
}

void upstream_cancel(struct upstream *u)
{
	if (!u->dead && !u->over)
		metrics_of(u)->finished[FINISHED_ABORT]++;
	end_upstream(u);
}

void upstreams_cancel(struct exchange *x)
{
	while (x->upstreams)
		upstream_cancel(x->upstreams);
}

uint32_t upstream_reasoning_tokens(const struct upstream *u)
{
	return u->reasoning_tokens;
}

/* ---- events --------------------------------------------------------------------------------- */

static void count_tokens(struct upstream *u, const struct llmdev_event *ev)
{
	uint64_t now = loop_now_ns();

	if (ev->kind == LLMDEV_DATA && ev->subtype == LLM_DATA_REASONING)
		u->reasoning_tokens += (uint32_t)ev->n_ids;
	if (!u->last_ns)
		metrics_ttft(metrics_of(u), (double)(now - u->x->rq.start_ns) / 1e9);
	else
		metrics_tokens(metrics_of(u), (double)(now - u->last_ns) / 1e9 / (double)ev->n_ids,
			       (uint32_t)ev->n_ids);
	u->last_ns = now;
}

static void count_done(struct upstream *u, const struct llmdev_event *ev)
{
	struct model_metrics *m = metrics_of(u);
	uint64_t now = loop_now_ns();

	m->prompt_tokens += ev->usage.prompt_tokens;
	m->cached_tokens += ev->usage.cached_tokens;
	m->generated_tokens += ev->usage.completion_tokens;
	m->reasoning_tokens += u->reasoning_tokens;
	m->finished[ev->finish == LLMDEV_LENGTH	     ? FINISHED_LENGTH
		    : ev->finish == LLMDEV_CANCELLED ? FINISHED_ABORT
						     : FINISHED_STOP]++;
	metrics_end(m, (double)(now - u->begin_ns) / 1e9);
	if (u->x->key)
		key_spend(u->x->key,
			  (uint64_t)ev->usage.prompt_tokens + ev->usage.completion_tokens, now);
}

static void deliver(struct upstream *u, const struct llmdev_event *ev)
{
	bool over = ev->kind == LLMDEV_DONE || ev->kind == LLMDEV_ERROR;

	if ((ev->kind == LLMDEV_TEXT || ev->kind == LLMDEV_DATA) && ev->n_ids)
		count_tokens(u, ev);
	else if (ev->kind == LLMDEV_DONE)
		count_done(u, ev);
	else if (ev->kind == LLMDEV_ERROR)
		metrics_of(u)->finished[FINISHED_ERROR]++;
	u->over = over;
	u->fn(&u->x->rq, u, ev, u->ctx);
	if (over)
		end_upstream(u);
}

static void tell_error(struct upstream *u, int error, const char *sentence)
{
	struct llmdev_event ev = {
		.kind = LLMDEV_ERROR,
		.error = error,
		.text = sentence,
		.text_len = strlen(sentence),
	};

	deliver(u, &ev);
}

/* The loop will not wait before it has come back to it. */
static void come_back(struct upstream *u)
{
	struct gateway *g = u->x->rq.g;

	if (u->todo)
		return;
	u->todo = true;
	u->next_todo = g->todo;
	g->todo = u;
}

static void take_events(struct upstream *u)
{
	struct exchange *x = u->x;
	struct llmdev_event ev;
	int rc = 1;

	for (int i = 0; i < TURN_EVENTS && rc == 1 && !u->dead && !x->held; i++) {
		rc = llmdev_next(u->d, &ev, 0);
		if (rc == 1)
			deliver(u, &ev);
	}
	if (u->dead)
		return;
	/* What the handle has taken out of its socket makes the socket readable no more. */
	u->more = rc == 1;
	if (u->more && !x->held)
		come_back(u);
	if (rc < 0 && rc != -EINTR)
		tell_error(u, -rc, llmdev_error(u->d));
}

static void handle_ready(struct source *s, uint32_t events)
{
	take_events((struct upstream *)s);
}

void upstreams_hold(struct exchange *x, bool hold)
{
	for (struct upstream *u = x->upstreams; u; u = u->next) {
		if (!u->d)
			continue;
		loop_watch(&x->rq.g->loop, &u->source, hold ? 0 : EPOLLIN);
		if (!hold && u->more)
			come_back(u);
	}
}

void upstreams_work(struct gateway *g)
{
	struct upstream *list = g->todo;

	/* Only those of now: what a callback adds has its turn in the next round. */
	g->todo = NULL;
	for (struct upstream *u = list, *next; u; u = next) {
		next = u->next_todo;
		u->todo = false;
		if (u->dead)
			continue;
		if (u->error)
			tell_error(u, u->error, u->sentence ? u->sentence : "no memory");
		else
			take_events(u);
	}
}

/* ---- asking --------------------------------------------------------------------------------- */

static int submit(struct upstream *u, const json_t *body, char *why, size_t why_len)
{
	struct gateway *g = u->x->rq.g;
	const struct key *key = u->x->key;
	struct llmdev_options o = {.path = u->backend->path,
				   .recovery_ms = g->o.recovery_ms,
				   .no_wait = 1};
	struct llmdev_request r = {.reasoning = 1};
	struct strbuf b = {0};
	int rc;

	rc = llmdev_open(&u->d, &o, why, why_len);
	if (rc)
		return rc;
	if (key) {
		r.principal = key->principal;
		r.priority = key->priority;
	}
	memcpy(r.trace_id, u->x->rq.trace_id, sizeof(r.trace_id));
	memcpy(r.span_id, u->x->rq.span_id, sizeof(r.span_id));
	strbuf_json(&b, body);
	rc = b.failed ? -ENOMEM : llmdev_submit_json(u->d, b.p, b.n, &r, &u->id);
	strbuf_free(&b);
	if (rc) {
		snprintf(why, why_len, "%s", llmdev_error(u->d));
		return rc;
	}
	u->source.fd = llmdev_fd(u->d);
	rc = loop_watch(&g->loop, &u->source, u->x->held ? 0 : EPOLLIN);
	if (rc)
		snprintf(why, why_len, "epoll: %s", strerror(-rc));
	return rc;
}

void upstream_submit(struct request *rq, const json_t *body, upstream_fn fn, void *ctx)
{
	struct exchange *x = rq->x;
	struct gateway *g = rq->g;
	struct upstream *u;
	char why[512] = "";
	int rc;

	if (x->gone)
		return;
	u = calloc(1, sizeof(*u));
	if (!u) {
		exchange_gone(x);
		return;
	}
	*u = (struct upstream){
		.source = {.ready = handle_ready, .release = release_upstream, .fd = -1},
		.next = x->upstreams,
		.x = x,
		.backend = rq->backend,
		.fn = fn,
		.ctx = ctx,
		.begin_ns = loop_now_ns(),
	};
	x->upstreams = u;
	metrics_of(u)->running++;
	rc = submit(u, body, why, sizeof(why));
	if (rc) {
		u->error = -rc;
		u->sentence = strdup(why);
		come_back(u);
	}
	if (rc || u->begin_ns - rq->backend->asked_ns > STALE_NS)
		prober_ask(g->prober, rq->backend);
}

/* ---- usage ---------------------------------------------------------------------------------- */

void usage_add(struct usage_sum *s, const struct upstream *u, const struct llmdev_event *done)
{
	s->prompt += done->usage.prompt_tokens;
	s->cached += done->usage.cached_tokens;
	s->completion += done->usage.completion_tokens;
	s->reasoning += u->reasoning_tokens;
}

void usage_write(struct strbuf *b, const struct usage_sum *s)
{
	strbuf_printf(b,
		      "{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
		      "\"prompt_tokens_details\":{\"cached_tokens\":%llu},"
		      "\"completion_tokens_details\":{\"reasoning_tokens\":%llu}}",
		      (unsigned long long)s->prompt, (unsigned long long)s->completion,
		      (unsigned long long)(s->prompt + s->completion),
		      (unsigned long long)s->cached, (unsigned long long)s->reasoning);
}
