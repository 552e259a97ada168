// SPDX-License-Identifier: MIT
/*
 * POST /v1/responses: OpenAI's Responses API, with and without a stream. The work is done in
 * responses_request.c and responses_events.c; this file puts them between a client and a daemon.
 */
#include <errno.h>
#include <string.h>

#include "http/gateway.h"
#include "http/responses.h"

static void send_event(void *ctx, const char *type, const struct strbuf *json)
{
	sse_event(ctx, type, json);
}

static void free_state(void *state)
{
	response_free(state);
}

/* A copy of the event whose sentence names the member as the client wrote it. */
static struct llmdev_event translated(const struct llmdev_event *ev, struct strbuf *text)
{
	struct llmdev_event out = *ev;

	responses_translate_error(ev->text, ev->text_len, text);
	if (!text->failed) {
		out.text = text->n ? text->p : "";
		out.text_len = text->n;
	}
	return out;
}

static void failed(struct request *rq, const struct llmdev_event *ev)
{
	struct strbuf text = {0};
	struct llmdev_event named = translated(ev, &text);
	json_t *error;
	const char *message;
	unsigned status;

	if (!sse_begun(rq)) {
		reply_upstream_error(rq, &named);
		strbuf_free(&text);
		return;
	}
	error = upstream_error_json(&named, &status);
	message = json_string_value(json_object_get(json_object_get(error, "error"), "message"));
	response_fail(rq->state,
		      status == 429  ? "rate_limit_exceeded"
		      : status < 500 ? "invalid_prompt"
				     : "server_error",
		      message ? message : "the answer failed");
	sse_end(rq);
	json_decref(error);
	strbuf_free(&text);
}

static void on_event(struct request *rq, struct upstream *u, const struct llmdev_event *ev,
		     void *ctx)
{
	struct response *r = rq->state;
	bool stream = ctx != NULL;

	switch (ev->kind) {
	case LLMDEV_STARTED:
		/* Not earlier: what the daemon refuses gets a status of its own. */
		if (stream && !sse_begun(rq)) {
			sse_begin(rq);
			response_begin(r);
		}
		break;
	case LLMDEV_TEXT:
	case LLMDEV_DATA:
		response_event(r, ev);
		break;
	case LLMDEV_DONE:
		response_done(r, ev, upstream_reasoning_tokens(u));
		if (stream)
			sse_end(rq);
		else
			reply_json(rq, 200, response_json(r));
		break;
	case LLMDEV_ERROR:
		failed(rq, ev);
		break;
	default:
		break;
	}
}

/* "what: why: what to do" as an error that names the member. */
static void refuse(struct request *rq, const struct err *e)
{
	size_t n = strcspn(e->msg, ":");
	char param[sizeof(e->msg)];

	memcpy(param, e->msg, n);
	param[n] = 0;
	reply_error(rq, 400, NULL, param, "%s", e->msg);
}

static void handle_responses(struct request *rq)
{
	bool stream = json_is_true(json_object_get(rq->body, "stream"));
	struct err e;
	json_t *chat;
	int rc;

	rc = responses_to_chat(rq->body, &chat, &e);
	if (rc == -ENOMEM) {
		reply_json(rq, 500, NULL);
		return;
	}
	if (rc) {
		refuse(rq, &e);
		return;
	}
	rq->state = response_new(rq->body, rq->model, rq->id, rq->created,
				 stream ? send_event : NULL, rq);
	rq->free_state = free_state;
	if (!rq->state)
		reply_json(rq, 500, NULL);
	else
		upstream_submit(rq, chat, on_event, stream ? rq : NULL);
	json_decref(chat);
}

const struct route responses_routes[] = {
	{"POST", "/v1/responses", ROUTE_MODEL | ROUTE_JSON | ROUTE_COUNTED, handle_responses},
	{0},
};
