// SPDX-License-Identifier: MIT
/*
 * POST /tokenize and /detokenize, in the shape of vLLM's: text or a conversation to ids, ids to
 * text. The daemon does it and its JSON is passed on.
 */
#include <stdlib.h>
#include <string.h>

#include "http/gateway.h"

static void free_state(void *state)
{
	strbuf_free(state);
	free(state);
}

/* To the daemon all that was asked for is one member, of which the client knows nothing. */
static void refuse(struct request *rq, const struct llmdev_event *ev)
{
	static const char *const outer[] = {"tokenize.", "detokenize."};
	struct llmdev_event named = *ev;

	for (int i = 0; i < 2; i++) {
		size_t n = strlen(outer[i]);

		if (ev->text_len > n && !memcmp(ev->text, outer[i], n)) {
			named.text += n;
			named.text_len -= n;
		}
	}
	reply_upstream_error(rq, &named);
}

static void on_event(struct request *rq, struct upstream *u, const struct llmdev_event *ev,
		     void *ctx)
{
	struct strbuf *json = rq->state;

	switch (ev->kind) {
	case LLMDEV_DATA:
		if (ev->subtype == LLM_DATA_JSON)
			strbuf_add(json, ev->text, ev->text_len);
		break;
	case LLMDEV_DONE:
		if (!json->n)
			reply_error(rq, 500, NULL, NULL, "the daemon gave no result");
		else
			reply_buf(rq, 200, "application/json", json);
		break;
	case LLMDEV_ERROR:
		refuse(rq, ev);
		break;
	default:
		break;
	}
}

/* Submit {name: what}; takes the reference. */
static void ask(struct request *rq, const char *name, json_t *what)
{
	json_t *body = json_pack("{s:o}", name, what);

	rq->state = calloc(1, sizeof(struct strbuf));
	rq->free_state = free_state;
	if (!body || !rq->state)
		reply_json(rq, 500, NULL);
	else
		upstream_submit(rq, body, on_event, NULL);
	json_decref(body);
}

static void handle_tokenize(struct request *rq)
{
	static const char *const copied[] = {
		"prompt",
		"messages",
		"tools",
		"add_special_tokens",
		"add_generation_prompt",
		"continue_final_message",
		"chat_template_kwargs",
	};
	json_t *what, *v;

	if (json_is_true(json_object_get(rq->body, "return_token_strs"))) {
		reply_error(rq, 400, NULL, "return_token_strs",
			    "return_token_strs: not supported: send single ids to /detokenize");
		return;
	}
	v = json_member(rq->body, "prompt");
	if (!v == !json_member(rq->body, "messages")) {
		reply_error(rq, 400, NULL, v ? "messages" : "prompt",
			    v ? "messages: besides prompt: one of them"
			      : "prompt: missing, and there are no messages either");
		return;
	}
	if (v && !json_is_string(v)) {
		reply_error(rq, 400, NULL, "prompt", "prompt: not a string");
		return;
	}
	what = json_object();
	for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++)
		if (json_member(rq->body, copied[i]))
			json_object_set(what, copied[i], json_member(rq->body, copied[i]));
	ask(rq, "tokenize", what);
}

static void handle_detokenize(struct request *rq)
{
	json_t *tokens = json_member(rq->body, "tokens"), *v;
	size_t i;

	if (!json_is_array(tokens)) {
		reply_error(rq, 400, NULL, "tokens", "tokens: missing, or not a list of ids");
		return;
	}
	json_array_foreach (tokens, i, v) {
		if (!json_is_integer(v)) {
			reply_error(rq, 400, NULL, "tokens", "tokens[%zu]: not a whole number", i);
			return;
		}
	}
	ask(rq, "detokenize", json_pack("{s:O}", "tokens", tokens));
}

const struct route tokenize_routes[] = {
	{"POST", "/tokenize", ROUTE_MODEL | ROUTE_JSON | ROUTE_COUNTED, handle_tokenize},
	{"POST", "/detokenize", ROUTE_MODEL | ROUTE_JSON | ROUTE_COUNTED, handle_detokenize},
	{0},
};
