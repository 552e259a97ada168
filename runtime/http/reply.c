// SPDX-License-Identifier: MIT
/* Replies, whole and as streams (gateway.h), and OpenAI's way to say what is wrong. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/server.h"

/* ---- deciding ------------------------------------------------------------------------------- */

bool request_replied(const struct request *rq)
{
	return rq->x->replied || rq->x->gone;
}

/* The reply is decided: nothing that is still asked matters, unless a stream is to bring it. */
static void decide(struct exchange *x, unsigned status, struct MHD_Response *response)
{
	if (x->replied || x->gone || !response) {
		if (response)
			MHD_destroy_response(response);
		else
			exchange_gone(x); /* no memory: hanging up is all that is left */
		return;
	}
	x->replied = true;
	x->status = status;
	x->response = response;
	x->rq.g->metrics.replies[status / 100 % 6]++;
	if (!x->sse)
		upstreams_cancel(x);
	exchange_wake(x);
}

mhd_result reply_queue(struct exchange *x)
{
	struct MHD_Response *r = x->response;
	mhd_result rc;

	for (int i = 0; i < x->n_headers; i++)
		MHD_add_response_header(r, x->headers[i].name, x->headers[i].value);
	x->response = NULL;
	rc = MHD_queue_response(x->conn, x->status, r);
	MHD_destroy_response(r); /* the connection holds its own reference */
	return rc;
}

void reply_header(struct request *rq, const char *name, const char *value)
{
	struct exchange *x = rq->x;
	int i = x->n_headers;

	if (i == sizeof(x->headers) / sizeof(*x->headers))
		return;
	snprintf(x->headers[i].name, sizeof(x->headers[i].name), "%s", name);
	snprintf(x->headers[i].value, sizeof(x->headers[i].value), "%s", value);
	x->n_headers++;
}

/* ---- whole replies --------------------------------------------------------------------------- */

static void content(struct MHD_Response *r, const char *type)
{
	if (r && type)
		MHD_add_response_header(r, "Content-Type", type);
	if (r)
		MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
}

void reply_buf(struct request *rq, unsigned status, const char *content_type, struct strbuf *b)
{
	struct MHD_Response *r = NULL;

	if (b->failed) {
		strbuf_free(b);
		reply_error(rq, 500, "out_of_memory", NULL, "No memory for the reply");
		return;
	}
	r = MHD_create_response_from_buffer(b->n, b->p ? b->p : (void *)"",
					    b->p ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	if (!r)
		free(b->p);
	*b = (struct strbuf){0};
	content(r, content_type);
	decide(rq->x, status, r);
}

void reply_json(struct request *rq, unsigned status, json_t *v)
{
	struct strbuf b = {0};

	if (v)
		strbuf_json(&b, v);
	b.failed |= !v;
	json_decref(v);
	reply_buf(rq, status, "application/json", &b);
}

void reply_bytes(struct request *rq, unsigned status, const char *content_type, const void *bytes,
		 size_t n)
{
	struct MHD_Response *r =
		MHD_create_response_from_buffer(n, (void *)bytes, MHD_RESPMEM_PERSISTENT);

	content(r, content_type);
	decide(rq->x, status, r);
}

/* ---- errors ----------------------------------------------------------------------------------- */

static const char *error_type(unsigned status)
{
	switch (status) {
	case 401:
		return "authentication_error";
	case 403:
		return "permission_error";
	case 404:
		return "not_found_error";
	case 429:
		return "rate_limit_error";
	}
	return status < 500 ? "invalid_request_error" : "server_error";
}

static void write_error(struct strbuf *b, unsigned status, const char *code, const char *param,
			size_t param_len, const char *message, size_t len)
{
	strbuf_str(b, "{\"error\":{\"message\":");
	strbuf_json_text(b, message, len);
	strbuf_printf(b, ",\"type\":\"%s\",\"param\":", error_type(status));
	if (param)
		strbuf_json_text(b, param, param_len);
	else
		strbuf_str(b, "null");
	strbuf_str(b, ",\"code\":");
	if (code)
		strbuf_json_text(b, code, strlen(code));
	else
		strbuf_str(b, "null");
	strbuf_str(b, "}}");
}

static void send_error(struct request *rq, unsigned status, struct strbuf *b)
{
	if (sse_begun(rq)) {
		sse_data(rq, b);
		sse_raw(rq, "data: [DONE]\n\n", 14);
		strbuf_free(b);
		sse_end(rq);
		return;
	}
	if (b->failed) {
		strbuf_free(b);
		exchange_gone(rq->x);
		return;
	}
	reply_buf(rq, status, "application/json", b);
}

void reply_error(struct request *rq, unsigned status, const char *code, const char *param,
		 const char *fmt, ...)
{
	struct strbuf b = {0};
	char message[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	write_error(&b, status, code, param, param ? strlen(param) : 0, message, strlen(message));
	send_error(rq, status, &b);
}

static unsigned status_of(int error)
{
	switch (error) {
	case EINVAL:
	case EOPNOTSUPP:
	case E2BIG:
		return 400;
	case ENOSPC:
		return 429;
	case EPIPE:
	case ESTALE:
	case ECONNREFUSED:
	case ECONNRESET:
	case ENOENT:
	case EAGAIN:
	case EACCES:
	case EBUSY:
	case ECANCELED:
		return 503;
	case ETIMEDOUT:
		return 504;
	}
	return 500;
}

/* The path of a member that a daemon's sentence begins with: "tools[0].function.name: ...". */
static size_t member_path(const char *text, size_t n)
{
	size_t i = 0;

	if (!n || !((text[0] >= 'a' && text[0] <= 'z') || text[0] == '_'))
		return 0;
	while (i + 1 < n && !(text[i] == ':' && text[i + 1] == ' ')) {
		if ((unsigned char)text[i] <= ' ')
			return 0;
		i++;
	}
	if (i + 1 >= n || (i == 7 && !memcmp(text, "request", 7)))
		return 0;
	return i;
}

static void upstream_error(struct strbuf *b, const struct llmdev_event *ev, unsigned *status)
{
	const char *code = NULL;
	size_t param = 0;

	*status = status_of(ev->error);
	if (*status == 400) {
		param = member_path(ev->text, ev->text_len);
		code = ev->error == EOPNOTSUPP ? "unsupported_parameter"
		       : ev->error == E2BIG && (memmem(ev->text, ev->text_len, "context", 7) ||
						memmem(ev->text, ev->text_len, "KV cache", 8))
			       ? "context_length_exceeded"
			       : "invalid_value";
	} else if (*status == 429) {
		code = "queue_full";
	} else if (*status == 503) {
		code = "model_unavailable";
	} else if (*status == 504) {
		code = "deadline_exceeded";
	}
	write_error(b, *status, code, param ? ev->text : NULL, param, ev->text, ev->text_len);
}

json_t *upstream_error_json(const struct llmdev_event *ev, unsigned *status)
{
	struct strbuf b = {0};
	json_t *v;

	upstream_error(&b, ev, status);
	v = b.failed ? NULL : json_loadb(b.p, b.n, 0, NULL);
	strbuf_free(&b);
	return v;
}

void reply_upstream_error(struct request *rq, const struct llmdev_event *ev)
{
	struct strbuf b = {0};
	unsigned status;

	upstream_error(&b, ev, &status);
	if (status == 429 || status == 503)
		reply_header(rq, "Retry-After", "1");
	send_error(rq, status, &b);
}

/* ---- streams -------------------------------------------------------------------------------- */

bool sse_begun(const struct request *rq)
{
	return rq->x->sse;
}

void sse_begin(struct request *rq)
{
	struct exchange *x = rq->x;
	struct MHD_Response *r;

	if (x->sse || request_replied(rq))
		return;
	r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, exchange_read, x, NULL);
	content(r, "text/event-stream; charset=utf-8");
	if (r) {
		MHD_add_response_header(r, "Cache-Control", "no-cache");
		MHD_add_response_header(r, "X-Accel-Buffering", "no");
	}
	x->sse = true;
	decide(x, 200, r);
}

void sse_raw(struct request *rq, const char *bytes, size_t n)
{
	struct exchange *x = rq->x;

	if (x->gone || x->ended)
		return;
	strbuf_add(&x->out, bytes, n);
	exchange_flow(x);
}

void sse_event(struct request *rq, const char *name, const struct strbuf *json)
{
	struct exchange *x = rq->x;

	sse_begin(rq);
	if (x->gone || x->ended || !x->sse)
		return;
	if (name) {
		strbuf_str(&x->out, "event: ");
		strbuf_str(&x->out, name);
		strbuf_str(&x->out, "\n");
	}
	strbuf_str(&x->out, "data: ");
	strbuf_add(&x->out, json->p, json->n);
	strbuf_str(&x->out, "\n\n");
	x->out.failed |= json->failed;
	exchange_flow(x);
}

void sse_data(struct request *rq, const struct strbuf *json)
{
	sse_event(rq, NULL, json);
}

void sse_end(struct request *rq)
{
	struct exchange *x = rq->x;

	if (!x->sse || x->ended)
		return;
	x->ended = true;
	upstreams_cancel(x);
	exchange_wake(x);
}
