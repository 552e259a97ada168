// SPDX-License-Identifier: MIT
/* answer.h. */
#include <stdlib.h>
#include <string.h>

#include "http/answer.h"

static void free_answer(void *state)
{
	struct answer *a = state;

	for (int i = 0; i < a->n; i++) {
		struct choice *c = &a->choices[i];

		strbuf_free(&c->text);
		strbuf_free(&c->reasoning);
		strbuf_free(&c->calls);
		strbuf_free(&c->malformed);
		strbuf_free(&c->logprobs);
		strbuf_free(&c->ids);
		strbuf_free(&c->tokens);
		strbuf_free(&c->token_logprobs);
		strbuf_free(&c->top_logprobs);
		strbuf_free(&c->offsets);
	}
	json_decref(a->prompts);
	strbuf_free(&a->head);
	strbuf_free(&a->chunk);
	free(a);
}

/* ---- reading ---------------------------------------------------------------------------------- */

static bool get_bool(struct request *rq, const json_t *o, const char *name, const char *path,
		     bool *out)
{
	const json_t *v = json_member(o, name);

	if (v && !json_is_boolean(v)) {
		reply_error(rq, 400, "invalid_type", path, "%s: neither true nor false", path);
		return false;
	}
	*out = json_is_true(v);
	return true;
}

static bool read_stream(struct request *rq, bool *stream, bool *include_usage)
{
	const json_t *o;

	*include_usage = false;
	if (!get_bool(rq, rq->body, "stream", "stream", stream))
		return false;
	o = json_member(rq->body, "stream_options");
	if (!o)
		return true;
	if (!json_is_object(o)) {
		reply_error(rq, 400, "invalid_type", "stream_options",
			    "stream_options: not an object");
		return false;
	}
	if (!*stream) {
		reply_error(rq, 400, "invalid_value", "stream_options",
			    "stream_options: only where \"stream\" is true");
		return false;
	}
	return get_bool(rq, o, "include_usage", "stream_options.include_usage", include_usage);
}

static bool read_n(struct request *rq, size_t prompts, int *n)
{
	const json_t *v = json_member(rq->body, "n"), *best = json_member(rq->body, "best_of");
	json_int_t k = v ? json_integer_value(v) : 1;

	if ((v && !json_is_integer(v)) || k < 1 || k > CHOICES_MAX) {
		reply_error(rq, 400, "invalid_value", "n", "n: give 1 to %d", CHOICES_MAX);
		return false;
	}
	if (best && (!json_is_integer(best) || json_integer_value(best) != k)) {
		reply_error(rq, 400, "unsupported_parameter", "best_of",
			    "best_of: not supported: ask for n answers and choose");
		return false;
	}
	if (prompts > CHOICES_MAX || (size_t)k * prompts > CHOICES_MAX) {
		reply_error(rq, 400, "invalid_value", prompts > 1 ? "prompt" : "n",
			    "prompt, n: %zu answers: at most %d", (size_t)k * prompts, CHOICES_MAX);
		return false;
	}
	*n = (int)k * (int)prompts;
	return true;
}

static void write_head(struct answer *a)
{
	const struct request *rq = a->rq;
	const char *print = request_fingerprint(rq);

	strbuf_printf(&a->head, "{\"id\":\"%s%s\",\"object\":\"%s\",\"created\":%lld,\"model\":",
		      a->kind->id_prefix, rq->id,
		      a->stream ? a->kind->chunk_object : a->kind->object, (long long)rq->created);
	strbuf_json_text(&a->head, rq->model, strlen(rq->model));
	if (*print)
		strbuf_printf(&a->head, ",\"system_fingerprint\":\"%s\"", print);
	strbuf_str(&a->head, ",\"choices\":[");
}

struct answer *answer_new(struct request *rq, const struct answer_kind *kind, size_t prompts)
{
	static const char *const ours[] = {
		"stream",
		"stream_options",
		"n",
		"best_of",
		"user",
		"metadata",
		"store",
		"service_tier",
		"safety_identifier",
		"prompt_cache_key",
		"prompt_cache_retention",
		"return_token_ids",
	};
	bool stream, include_usage, want_ids;
	const json_t *seed;
	struct answer *a;
	int n;

	if (!read_stream(rq, &stream, &include_usage) || !read_n(rq, prompts, &n) ||
	    !get_bool(rq, rq->body, "return_token_ids", "return_token_ids", &want_ids))
		return NULL;
	a = calloc(1, sizeof(*a) + (size_t)n * sizeof(a->choices[0]));
	if (!a) {
		reply_error(rq, 500, "out_of_memory", NULL, "No memory for the request");
		return NULL;
	}
	a->rq = rq;
	a->kind = kind;
	a->stream = stream;
	a->include_usage = include_usage;
	a->want_ids = want_ids;
	a->n = a->left = n;
	a->per_prompt = n / (int)prompts;
	seed = json_member(rq->body, "seed");
	a->seeded = json_is_integer(seed);
	a->seed = (uint64_t)json_integer_value(seed);
	for (int i = 0; i < n; i++) {
		a->choices[i].a = a;
		a->choices[i].index = i;
	}
	rq->state = a;
	rq->free_state = free_answer;
	rq->streams = stream;
	write_head(a);
	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		json_object_del(rq->body, ours[i]);
	return a;
}

/* ---- writing ---------------------------------------------------------------------------------- */

/* As vLLM has it: the ids behind a chunk's text, or a choice's; some have no text of their own. */
static void write_ids(struct choice *c, struct strbuf *b)
{
	if (!c->a->want_ids)
		return;
	strbuf_str(b, ",\"token_ids\":[");
	strbuf_add(b, c->ids.p, c->ids.n);
	strbuf_str(b, "]");
	b->failed |= c->ids.failed;
	c->ids.n = 0;
}

static void add_ids(struct choice *c, const struct llmdev_event *ev)
{
	for (size_t i = 0; i < ev->n_ids; i++)
		strbuf_printf(&c->ids, "%s%d", c->ids.n ? "," : "", ev->ids[i]);
}

struct strbuf *chunk_begin(struct choice *c)
{
	struct strbuf *b = &c->a->chunk;

	b->n = 0;
	strbuf_add(b, c->a->head.p, c->a->head.n);
	b->failed |= c->a->head.failed;
	strbuf_printf(b, "{\"index\":%d", c->index);
	return b;
}

void chunk_end(struct choice *c, const char *finish)
{
	struct strbuf *b = &c->a->chunk;

	write_ids(c, b);
	strbuf_str(b, ",\"finish_reason\":");
	strbuf_str(b, finish ? finish : "null");
	strbuf_str(b, c->a->include_usage ? "}],\"usage\":null}" : "}]}");
	sse_data(c->a->rq, b);
}

static void finish_stream(struct answer *a)
{
	struct strbuf *b = &a->chunk;

	if (a->include_usage) {
		b->n = 0;
		strbuf_add(b, a->head.p, a->head.n);
		strbuf_str(b, "],\"usage\":");
		usage_write(b, &a->usage);
		strbuf_str(b, "}");
		sse_data(a->rq, b);
	}
	sse_raw(a->rq, "data: [DONE]\n\n", 14);
	sse_end(a->rq);
}

static void finish_whole(struct answer *a)
{
	struct strbuf b = {0};

	strbuf_add(&b, a->head.p, a->head.n);
	b.failed |= a->head.failed;
	for (int i = 0; i < a->n; i++) {
		strbuf_printf(&b, "%s{\"index\":%d", i ? "," : "", i);
		a->kind->whole(&a->choices[i], &b);
		write_ids(&a->choices[i], &b);
		strbuf_printf(&b, ",\"finish_reason\":%s}", a->choices[i].finish);
	}
	strbuf_str(&b, "],\"usage\":");
	usage_write(&b, &a->usage);
	strbuf_str(&b, "}");
	reply_buf(a->rq, 200, "application/json", &b);
}

static void ask_next(struct answer *a);

static void done(struct choice *c, struct upstream *u, const struct llmdev_event *ev)
{
	struct answer *a = c->a;

	c->over = true;
	c->finish = ev->finish == LLMDEV_LENGTH ? "\"length\""
		    : c->called			? "\"tool_calls\""
						: "\"stop\"";
	usage_add(&a->usage, u, ev);
	if (a->stream)
		a->kind->last(c);
	ask_next(a);
	if (--a->left)
		return;
	if (a->stream)
		finish_stream(a);
	else
		finish_whole(a);
}

static void event(struct request *rq, struct upstream *u, const struct llmdev_event *ev, void *ctx)
{
	struct choice *c = ctx;

	switch (ev->kind) {
	case LLMDEV_STARTED:
		if (c->a->stream && c->a->kind->begin)
			c->a->kind->begin(c);
		break;
	case LLMDEV_PROGRESS:
		break;
	case LLMDEV_TEXT:
	case LLMDEV_DATA:
		if (c->a->want_ids)
			add_ids(c, ev);
		c->a->kind->event(c, ev);
		break;
	case LLMDEV_DONE:
		done(c, u, ev);
		break;
	case LLMDEV_ERROR:
		reply_upstream_error(rq, ev);
		break;
	}
}

static void ask_next(struct answer *a)
{
	json_t *body = a->rq->body;
	int i = a->asked;

	if (i == a->n)
		return;
	a->asked++;
	if (a->prompts)
		json_object_set(body, "prompt",
				json_array_get(a->prompts, (size_t)(i / a->per_prompt)));
	/* Else all choices of a prompt would be the same. */
	if (a->seeded && a->per_prompt > 1)
		json_object_set_new(body, "seed",
				    json_integer(
					    (json_int_t)(a->seed + (uint64_t)(i % a->per_prompt))));
	upstream_submit(a->rq, body, event, &a->choices[i]);
}

void answer_ask(struct answer *a, json_t *prompts)
{
	a->prompts = json_incref(prompts);
	for (int i = 0; i < CHOICES_IN_FLIGHT; i++)
		ask_next(a);
}
