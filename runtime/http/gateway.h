/* SPDX-License-Identifier: MIT */
/*
 * The inside of llmdev-gateway: OpenAI's HTTP API in front of one or several llmdevd.
 *
 * One thread (the loop, loop.c) owns everything here: libmicrohttpd's connections, requests and the
 * libllmdev handles. Nothing in it may wait. What can only be asked by waiting (QUERY, STATUS) is
 * asked by a second thread, the prober (probe.c), which hands copies over.
 *
 * An endpoint is a `struct route` in a table named in routes.c. Its handler is called in the loop's
 * thread when the request is whole: body read, key and limits checked, JSON parsed, model found. It
 * replies at once or later, exactly once:
 *
 *	reply_json() / reply_error() / reply_bytes()                  a whole reply
 *	sse_begin(), sse_data() or sse_event() ..., sse_end()        a stream
 *
 * and in between it may ask daemons with upstream_submit(), any number at a time; each answer comes
 * as events to its callback until DONE or ERROR. A request whose client goes away, or that has been
 * replied to, cancels what it still asks: no callback comes after. rq->state is released with
 * rq->free_state when the request ends, in whatever way.
 *
 * What is sent to clients is buffered without bound only by what one request may generate: while a
 * client does not read, its upstreams are not read either, and the daemon parks them.
 */
#ifndef HTTP_GATEWAY_H
#define HTTP_GATEWAY_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "http/strbuf.h"
#include "lib/llmdev.h"
#include "llm.h"

struct gateway;
struct request;
struct upstream;
struct key;     /* keys.h */
struct backend; /* backend.h */

/* ---- routes ------------------------------------------------------------------------------------ */

#define ROUTE_OPEN    (1u << 0) /* needs no key (health, the page) */
#define ROUTE_JSON    (1u << 1) /* the body is one JSON object: rq->body */
#define ROUTE_MODEL   (1u << 2) /* its "model" names a backend: rq->backend, rq->model; ROUTE_JSON too */
#define ROUTE_COUNTED (1u << 3) /* counts to the key's limits */

struct route {
	const char *method; /* "GET" (answers HEAD too), "POST" */
	const char *path;   /* "/v1/models", or a prefix that ends in '*' ("/v1/models/" "*"): rq->tail */
	unsigned flags;     /* ROUTE_* */
	void (*handle)(struct request *rq);
};

/* Each ends with an empty route; listed in routes.c. */
extern const struct route core_routes[]; /* health.c: /health, /v1/models, /metrics */
extern const struct route chat_routes[];
extern const struct route completion_routes[];
extern const struct route responses_routes[];
extern const struct route embeddings_routes[];
extern const struct route tokenize_routes[];
extern const struct route page_routes[];

/* ---- requests ---------------------------------------------------------------------------------- */

struct request {
	struct gateway *g;
	const struct route *route;
	const char *path;     /* without query string */
	const char *tail;     /* what stood for a route's '*'; else "" */
	json_t *body;         /* ROUTE_JSON: the handler may change it; released by the core */
	struct backend *backend;
	const char *model;    /* as the client named it */
	const struct key *key; /* NULL: none are asked for */
	char id[33];          /* hex digits, unique: "chatcmpl-" and the like are put before it */
	int64_t created;      /* seconds since 1970 */
	uint64_t start_ns;    /* CLOCK_MONOTONIC */
	uint8_t trace_id[16], span_id[8]; /* of traceparent; all zero: none */

	/* The handler says so: a stream is wanted, which may begin (200) before its first event. */
	bool streams;
	void *state;          /* the handler's */
	void (*free_state)(void *state);

	struct exchange *x;   /* the core's side of it (server.c) */
};

/* A request header's value, NULL if there is none; valid as long as the request. */
const char *request_header(const struct request *rq, const char *name);
/* "llmdev_" and the daemon's fingerprint in hex; "" if it is not known yet. */
const char *request_fingerprint(const struct request *rq);

/* ---- replies ----------------------------------------------------------------------------------- */

/* Takes the reference `v`; NULL (no memory) becomes a 500. */
void reply_json(struct request *rq, unsigned status, json_t *v);
/* Takes the content of `b` (a whole JSON text). */
void reply_buf(struct request *rq, unsigned status, const char *content_type, struct strbuf *b);
/* Bytes that outlive the request (static files). */
void reply_bytes(struct request *rq, unsigned status, const char *content_type, const void *bytes,
		 size_t n);
/* One more header of the reply (copied); before it. */
void reply_header(struct request *rq, const char *name, const char *value);
/*
 * OpenAI's {"error":{"message","type","param","code"}}. `code` and `param` may be NULL; the type
 * follows from the status. Where a stream has begun it is sent as its last event.
 */
void reply_error(struct request *rq, unsigned status, const char *code, const char *param,
		 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* What an LLMDEV_ERROR event means to a client: 400 with the member, 429, 503, 504, 500. */
void reply_upstream_error(struct request *rq, const struct llmdev_event *ev);
/* The object {"error":{...}} of such an event, for those who frame it themselves. */
json_t *upstream_error_json(const struct llmdev_event *ev, unsigned *status);
/* True once the reply's status line is decided, or nobody is left to read one. */
bool request_replied(const struct request *rq);

/* 200 text/event-stream; once. Headers go out with it. */
void sse_begin(struct request *rq);
bool sse_begun(const struct request *rq);
/* "data: JSON\n\n"; begins the stream if that has not been done. */
void sse_data(struct request *rq, const struct strbuf *json);
/* "event: NAME\ndata: JSON\n\n" */
void sse_event(struct request *rq, const char *name, const struct strbuf *json);
/* Bytes as they are: "data: [DONE]\n\n". */
void sse_raw(struct request *rq, const char *bytes, size_t n);
/* No more: what is buffered is sent, then the reply ends. */
void sse_end(struct request *rq);

/* ---- asking a daemon ---------------------------------------------------------------------------- */

/*
 * Events of one answer (llmdev.h), in order; `ctx` is what upstream_submit() got. After DONE and
 * ERROR nothing more comes and `u` is gone when the callback returns. Event memory is valid during
 * the callback only.
 */
typedef void (*upstream_fn)(struct request *rq, struct upstream *u, const struct llmdev_event *ev,
			    void *ctx);

/*
 * Submit one JSON request object (`body` is not changed or kept) to rq->backend with the key's
 * principal and priority. Never fails at once: what goes wrong comes as an ERROR event later.
 */
void upstream_submit(struct request *rq, const json_t *body, upstream_fn fn, void *ctx);
/* Of the answer so far: ids that came with reasoning. */
uint32_t upstream_reasoning_tokens(const struct upstream *u);
/* Nothing more comes for it; `u` is gone. */
void upstream_cancel(struct upstream *u);

/* A member that is neither missing nor null. */
static inline json_t *json_member(const json_t *o, const char *name)
{
	json_t *v = json_object_get(o, name);

	return v && !json_is_null(v) ? v : NULL;
}

/* {"prompt_tokens", "completion_tokens", "total_tokens", details}: of one answer or a sum. */
struct usage_sum {
	uint64_t prompt, cached, completion, reasoning;
};
void usage_add(struct usage_sum *s, const struct upstream *u, const struct llmdev_event *done);
void usage_write(struct strbuf *b, const struct usage_sum *s);

#endif
