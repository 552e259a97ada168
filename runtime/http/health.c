// SPDX-License-Identifier: MIT
/* /health, /v1/models, /metrics: what is served, and how it goes. */
#include <stdlib.h>
#include <string.h>

#include "http/server.h"

#define FRESH_NS UINT64_C(1000000000) /* an answer of this age needs no new one */

/* A request that waits until every daemon has answered or did not. */
struct waiter {
	struct waiter *next;
	struct request *rq;
	void (*go_on)(struct request *rq);
};

static bool all_answered(const struct gateway *g)
{
	for (int i = 0; i < g->n_backends; i++) {
		if (g->backends[i].asking)
			return false;
	}
	return true;
}

/* Calls go_on(rq) once what is known of the daemons is fresh; maybe at once. */
static void with_fresh_state(struct request *rq, void (*go_on)(struct request *rq))
{
	struct gateway *g = rq->g;
	uint64_t now = loop_now_ns();
	struct waiter *w;

	for (int i = 0; i < g->n_backends; i++) {
		if (!g->backends[i].asked_ns || now - g->backends[i].asked_ns > FRESH_NS)
			prober_ask(g->prober, &g->backends[i]);
	}
	if (all_answered(g)) {
		go_on(rq);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (!w) {
		exchange_gone(rq->x);
		return;
	}
	*w = (struct waiter){.next = g->waiters, .rq = rq, .go_on = go_on};
	g->waiters = w;
}

void health_told(void *ctx, struct backend *b)
{
	struct gateway *g = ctx;

	while (all_answered(g) && g->waiters) {
		struct waiter *w = g->waiters;

		g->waiters = w->next;
		w->go_on(w->rq);
		free(w);
	}
}

void health_forget(struct request *rq)
{
	struct waiter **p = &rq->g->waiters;

	while (*p) {
		struct waiter *w = *p;

		if (w->rq == rq) {
			*p = w->next;
			free(w);
		} else {
			p = &w->next;
		}
	}
}

/* ---- /health ---------------------------------------------------------------------------------- */

static void send_health(struct request *rq)
{
	const struct gateway *g = rq->g;
	json_t *models = json_object(), *reply;
	bool all = true;

	for (int i = 0; i < g->n_backends; i++) {
		const struct backend *b = &g->backends[i];
		const char *name = backend_name(b);

		all = all && b->up;
		json_object_set_new(models, *name ? name : "default",
				    json_string(b->up ? "ok" : "unavailable"));
	}
	reply = json_pack("{s:s, s:o}", "status", all ? "ok" : "unavailable", "models", models);
	reply_json(rq, all ? 200 : 503, reply);
}

static void health(struct request *rq)
{
	with_fresh_state(rq, send_health);
}

/* ---- /v1/models ------------------------------------------------------------------------------- */

static json_t *model_json(const struct request *rq, const struct backend *b, const char *name)
{
	json_t *v = json_pack("{s:s, s:s, s:I, s:s, s:s}", "id", name, "object", "model", "created",
			      (json_int_t)rq->g->start_time, "owned_by", "llmdev", "root",
			      *b->model ? b->model : name);

	if (v && b->known)
		json_object_set_new(v, "max_model_len", json_integer(b->context));
	return v;
}

static void add_model(json_t *list, const struct request *rq, const struct backend *b,
		      const char *name)
{
	if (*name && (!*rq->tail || !strcmp(rq->tail, name)))
		json_array_append_new(list, model_json(rq, b, name));
}

/* Those named rq->tail; all if that is "". */
static json_t *model_list(const struct request *rq)
{
	const struct gateway *g = rq->g;
	json_t *list = json_array();

	for (int i = 0; i < g->n_backends; i++) {
		const struct backend *b = &g->backends[i];

		if (!b->n_names)
			add_model(list, rq, b, b->model);
		for (int j = 0; j < b->n_names; j++)
			add_model(list, rq, b, b->names[j]);
	}
	return list;
}

static void send_models(struct request *rq)
{
	reply_json(rq, 200, json_pack("{s:s, s:o}", "object", "list", "data", model_list(rq)));
}

static void models(struct request *rq)
{
	/* Names and context lengths seldom change: only what was never known is waited for. */
	for (int i = 0; i < rq->g->n_backends; i++) {
		if (!rq->g->backends[i].known) {
			with_fresh_state(rq, send_models);
			return;
		}
	}
	send_models(rq);
}

static void one_model(struct request *rq)
{
	json_t *list = model_list(rq);

	if (json_array_size(list))
		reply_json(rq, 200, json_incref(json_array_get(list, 0)));
	else
		reply_error(rq, 404, "model_not_found", "model",
			    "The model `%s` does not exist here: see /v1/models", rq->tail);
	json_decref(list);
}

/* ---- /metrics --------------------------------------------------------------------------------- */

static void send_metrics(struct request *rq)
{
	struct strbuf b = {0};

	metrics_write(&b, rq->g);
	reply_buf(rq, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

static void metrics(struct request *rq)
{
	with_fresh_state(rq, send_metrics);
}

const struct route core_routes[] = {
	{"GET", "/health", ROUTE_OPEN, health},
	{"GET", "/v1/models", 0, models},
	{"GET", "/v1/models/*", 0, one_model},
	{"GET", "/metrics", 0, metrics},
	{0},
};
