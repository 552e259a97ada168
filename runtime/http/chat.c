// SPDX-License-Identifier: MIT
/* POST /v1/chat/completions: OpenAI's chat.completion and chat.completion.chunk (answer.h). */
#include <string.h>

#include "http/answer.h"

/* Log-probabilities that wait go with the chunk that is written. */
static void write_logprobs(struct choice *c, struct strbuf *b)
{
	if (!c->logprobs.n) {
		strbuf_str(b, ",\"logprobs\":null");
		return;
	}
	strbuf_str(b, ",\"logprobs\":{\"content\":[");
	strbuf_add(b, c->logprobs.p, c->logprobs.n);
	b->failed |= c->logprobs.failed;
	strbuf_str(b, "],\"refusal\":null}");
	c->logprobs.n = 0;
}

/* A chunk whose delta is {"NAME": TEXT}, or with `json` {"NAME": JSON}. */
static void send_delta(struct choice *c, const char *name, const char *bytes, size_t n, bool json)
{
	struct strbuf *b = chunk_begin(c);

	strbuf_str(b, ",\"delta\":{\"");
	strbuf_str(b, name);
	strbuf_str(b, "\":");
	if (json)
		strbuf_add(b, bytes, n);
	else
		strbuf_json_text(b, bytes, n);
	strbuf_str(b, "}");
	write_logprobs(c, b);
	chunk_end(c, NULL);
}

static void chat_begin(struct choice *c)
{
	struct strbuf *b = chunk_begin(c);

	strbuf_str(b, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null");
	chunk_end(c, NULL);
}

/* The daemon's object without what is for us alone. */
static void add_logprob(struct choice *c, const struct llmdev_event *ev)
{
	json_t *v = json_loadb(ev->text, ev->text_len, 0, NULL);

	if (!json_is_object(v)) {
		json_decref(v);
		return;
	}
	json_object_del(v, "index");
	if (!json_object_get(v, "top_logprobs"))
		json_object_set_new(v, "top_logprobs", json_array());
	if (c->logprobs.n)
		strbuf_str(&c->logprobs, ",");
	strbuf_json(&c->logprobs, v);
	json_decref(v);
}

static void add_call(struct choice *c, const struct llmdev_event *ev)
{
	json_t *v;

	c->called = true;
	if (c->a->stream) {
		struct strbuf list = {0};

		strbuf_str(&list, "[");
		strbuf_add(&list, ev->text, ev->text_len);
		strbuf_str(&list, "]");
		send_delta(c, "tool_calls", list.p, list.n, true);
		strbuf_free(&list);
		return;
	}
	v = json_loadb(ev->text, ev->text_len, 0, NULL);
	json_object_del(v, "index");
	if (c->calls.n)
		strbuf_str(&c->calls, ",");
	if (v)
		strbuf_json(&c->calls, v);
	else
		c->calls.failed = true;
	json_decref(v);
}

static void add_malformed(struct choice *c, const struct llmdev_event *ev)
{
	struct strbuf v = {0};

	strbuf_str(&v, "{\"malformed_tool_call\":");
	strbuf_json_text(&v, ev->text, ev->text_len);
	strbuf_str(&v, "}");
	if (c->a->stream) {
		send_delta(c, "llmdev", v.p, v.n, true);
		strbuf_free(&v);
	} else {
		strbuf_free(&c->malformed); /* the last one's is told */
		c->malformed = v;
	}
}

static void chat_event(struct choice *c, const struct llmdev_event *ev)
{
	bool text = ev->kind == LLMDEV_TEXT;

	if (!text && ev->subtype == LLM_DATA_LOGPROBS) {
		add_logprob(c, ev);
	} else if (!text && ev->subtype == LLM_DATA_TOOL_CALL) {
		if (ev->text_len)
			add_call(c, ev);
	} else if (!text && ev->subtype == LLM_DATA_MALFORMED) {
		add_malformed(c, ev);
	} else if (text || ev->subtype == LLM_DATA_REASONING) {
		if (!ev->text_len)
			return;
		if (c->a->stream)
			send_delta(c, text ? "content" : "reasoning_content", ev->text,
				   ev->text_len, false);
		else
			strbuf_add(text ? &c->text : &c->reasoning, ev->text, ev->text_len);
	}
}

static void chat_last(struct choice *c)
{
	struct strbuf *b = chunk_begin(c);

	strbuf_str(b, ",\"delta\":{}");
	write_logprobs(c, b);
	chunk_end(c, c->finish);
}

static void chat_whole(struct choice *c, struct strbuf *b)
{
	strbuf_str(b, ",\"message\":{\"role\":\"assistant\",\"content\":");
	if (c->text.n || !c->called)
		strbuf_json_text(b, c->text.p, c->text.n);
	else
		strbuf_str(b, "null");
	strbuf_str(b, ",\"refusal\":null");
	if (c->reasoning.n) {
		strbuf_str(b, ",\"reasoning_content\":");
		strbuf_json_text(b, c->reasoning.p, c->reasoning.n);
	}
	if (c->called) {
		strbuf_str(b, ",\"tool_calls\":[");
		strbuf_add(b, c->calls.p, c->calls.n);
		strbuf_str(b, "]");
	}
	if (c->malformed.n) {
		strbuf_str(b, ",\"llmdev\":");
		strbuf_add(b, c->malformed.p, c->malformed.n);
	}
	strbuf_str(b, "}");
	b->failed |= c->text.failed | c->reasoning.failed | c->calls.failed | c->malformed.failed;
	write_logprobs(c, b);
}

static const struct answer_kind kind = {
	.object = "chat.completion",
	.chunk_object = "chat.completion.chunk",
	.id_prefix = "chatcmpl-",
	.event = chat_event,
	.begin = chat_begin,
	.last = chat_last,
	.whole = chat_whole,
};

static void chat(struct request *rq)
{
	const json_t *messages = json_member(rq->body, "messages");
	struct answer *a;

	if (!json_is_array(messages)) {
		reply_error(rq, 400, messages ? "invalid_type" : "missing_required_parameter",
			    "messages", "messages: %s",
			    messages ? "not a list" : "missing: a list of messages is needed");
		return;
	}
	/* The daemon goes by them: here they can only be a mistake. */
	json_object_del(rq->body, "prompt");
	json_object_del(rq->body, "input");
	json_object_del(rq->body, "tokenize");
	json_object_del(rq->body, "detokenize");
	a = answer_new(rq, &kind, 1);
	if (a)
		answer_ask(a, NULL);
}

const struct route chat_routes[] = {
	{"POST", "/v1/chat/completions", ROUTE_JSON | ROUTE_MODEL | ROUTE_COUNTED, chat},
	{0},
};
