// SPDX-License-Identifier: MIT
/*
 * POST /v1/completions: OpenAI's text_completion (answer.h). A list of prompts becomes as many
 * choices, prompt after prompt.
 */
#include <string.h>

#include "http/answer.h"
#include "text/utf8.h"

/* Four lists in step: {"tokens","token_logprobs","top_logprobs","text_offset"}. */
static void write_logprobs(struct choice *c, struct strbuf *b)
{
	const struct {
		const char *name;
		struct strbuf *list;
	} lists[] = {{"tokens", &c->tokens},
		     {"token_logprobs", &c->token_logprobs},
		     {"top_logprobs", &c->top_logprobs},
		     {"text_offset", &c->offsets}};

	if (!c->tokens.n) {
		strbuf_str(b, ",\"logprobs\":null");
		return;
	}
	for (int i = 0; i < 4; i++) {
		strbuf_printf(b, "%s\"%s\":[", i ? "," : ",\"logprobs\":{", lists[i].name);
		strbuf_add(b, lists[i].list->p, lists[i].list->n);
		b->failed |= lists[i].list->failed;
		lists[i].list->n = 0;
		strbuf_str(b, "]");
	}
	strbuf_str(b, "}");
}

static void add_logprob(struct choice *c, const struct llmdev_event *ev)
{
	json_t *v = json_loadb(ev->text, ev->text_len, 0, NULL), *item;
	const json_t *token = json_object_get(v, "token");
	const char *text = json_string_value(token), *comma = c->tokens.n ? "," : "";
	size_t len = json_string_length(token), i;
	json_t *tops = json_object();

	if (text && tops) {
		strbuf_str(&c->tokens, comma);
		strbuf_json_text(&c->tokens, text, len);
		strbuf_str(&c->token_logprobs, comma);
		strbuf_json(&c->token_logprobs, json_object_get(v, "logprob"));
		json_array_foreach (json_object_get(v, "top_logprobs"), i, item) {
			const char *name = json_string_value(json_object_get(item, "token"));

			if (name)
				json_object_set(tops, name, json_object_get(item, "logprob"));
		}
		strbuf_str(&c->top_logprobs, comma);
		strbuf_json(&c->top_logprobs, tops);
		strbuf_printf(&c->offsets, "%s%zu", comma, c->chars);
		for (i = 0; i < len; i += (size_t)utf8_skip(text + i))
			c->chars++;
	}
	json_decref(tops);
	json_decref(v);
}

static void send_text(struct choice *c, const char *text, size_t n, const char *finish)
{
	struct strbuf *b = chunk_begin(c);

	strbuf_str(b, ",\"text\":");
	strbuf_json_text(b, text, n);
	write_logprobs(c, b);
	chunk_end(c, finish);
}

static void completion_begin(struct choice *c)
{
	if (c->echo)
		send_text(c, c->echo, c->echo_len, NULL);
	else
		sse_begin(c->a->rq);
}

static void completion_event(struct choice *c, const struct llmdev_event *ev)
{
	if (ev->kind == LLMDEV_DATA && ev->subtype == LLM_DATA_LOGPROBS) {
		add_logprob(c, ev);
		return;
	}
	/* A raw prompt's answer is raw too: what a parser might set apart is part of it. */
	if (!ev->text_len || (ev->kind == LLMDEV_DATA && ev->subtype != LLM_DATA_REASONING))
		return;
	if (c->a->stream)
		send_text(c, ev->text, ev->text_len, NULL);
	else
		strbuf_add(&c->text, ev->text, ev->text_len);
}

static void completion_last(struct choice *c)
{
	send_text(c, "", 0, c->finish);
}

static void completion_whole(struct choice *c, struct strbuf *b)
{
	struct strbuf text = {0};

	strbuf_add(&text, c->echo, c->echo_len);
	strbuf_add(&text, c->text.p, c->text.n);
	strbuf_str(b, ",\"text\":");
	strbuf_json_text(b, text.p, text.n);
	b->failed |= text.failed | c->text.failed;
	strbuf_free(&text);
	write_logprobs(c, b);
}

static const struct answer_kind kind = {
	.object = "text_completion",
	.chunk_object = "text_completion",
	.id_prefix = "cmpl-",
	.event = completion_event,
	.begin = completion_begin,
	.last = completion_last,
	.whole = completion_whole,
};

/* A list of prompts: texts, or lists of ids; else it is one prompt, whatever it is. */
static bool is_list(const json_t *prompt)
{
	const json_t *first = json_array_get(prompt, 0);

	return json_is_string(first) || json_is_array(first);
}

static bool read_echo(struct request *rq, const json_t *prompt, bool list, bool *echo)
{
	const json_t *v = json_member(rq->body, "echo"), *item;
	size_t i;

	*echo = json_is_true(v);
	if (v && !json_is_boolean(v)) {
		reply_error(rq, 400, "invalid_type", "echo", "echo: neither true nor false");
		return false;
	}
	json_object_del(rq->body, "echo");
	if (!*echo)
		return true;
	if (json_member(rq->body, "logprobs")) {
		reply_error(rq, 400, "unsupported_parameter", "echo",
			    "echo: not supported together with logprobs");
		return false;
	}
	json_array_foreach (list ? prompt : NULL, i, item) {
		if (!json_is_string(item))
			*echo = false;
	}
	if (!*echo || (!list && !json_is_string(prompt))) {
		reply_error(rq, 400, "unsupported_parameter", "echo",
			    "echo: only of prompts that are text");
		return false;
	}
	return true;
}

static void completion(struct request *rq)
{
	json_t *prompt = json_member(rq->body, "prompt");
	bool list = is_list(prompt), echo;
	struct answer *a;

	if (!prompt) {
		reply_error(rq, 400, "missing_required_parameter", "prompt",
			    "prompt: missing: text, token ids or a list of them is needed");
		return;
	}
	if (!read_echo(rq, prompt, list, &echo))
		return;
	json_object_del(rq->body, "messages");
	json_object_del(rq->body, "input");
	json_object_del(rq->body, "tokenize");
	json_object_del(rq->body, "detokenize");
	a = answer_new(rq, &kind, list ? json_array_size(prompt) : 1);
	if (!a)
		return;
	for (int i = 0; echo && i < a->n; i++) {
		const json_t *one =
			list ? json_array_get(prompt, (size_t)(i / a->per_prompt)) : prompt;

		a->choices[i].echo = json_string_value(one);
		a->choices[i].echo_len = json_string_length(one);
	}
	answer_ask(a, list ? prompt : NULL);
}

const struct route completion_routes[] = {
	{"POST", "/v1/completions", ROUTE_JSON | ROUTE_MODEL | ROUTE_COUNTED, completion},
	{0},
};
