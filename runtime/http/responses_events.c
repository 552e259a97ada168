// SPDX-License-Identifier: MIT
/*
 * The events of an answer folded into the output items of a response, and told as the events of
 * OpenAI's stream: see responses.h. An item is open from its first byte to the first byte of another
 * kind; only the open one is kept as text, closed ones are JSON. What comes per token is written
 * without building JSON values.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/responses.h"
#include "llm.h"

enum kind { NONE, REASONING, MESSAGE };

struct response {
	json_t *base; /* all members but status, output, usage, error */
	json_t *output; /* closed items */
	json_t *usage; /* NULL until the end */
	json_t *error; /* likewise, only of a failed one */
	const char *status;
	response_emit emit;
	void *ctx;
	struct strbuf event; /* the event that is being written */
	uint64_t sequence;
	char id[40]; /* what all ids are made of */

	enum kind open;
	char item[64]; /* its id */
	struct strbuf text; /* its text so far */
	json_t *logprobs; /* of that text */
	json_t *pending; /* of tokens whose event has not come */
	char *malformed; /* why the open message is no tool call */
	char *next_malformed; /* the same of the message that comes next */
	bool failed; /* no memory somewhere */
};

/* ---- events ------------------------------------------------------------------------------------- */

static void begin(struct response *r, const char *type)
{
	r->event.n = 0;
	strbuf_printf(&r->event, "{\"type\":\"%s\",\"sequence_number\":%llu", type,
		      (unsigned long long)r->sequence++);
}

static void end(struct response *r, const char *type)
{
	strbuf_add(&r->event, "}", 1);
	r->failed |= r->event.failed;
	if (!r->event.failed && r->emit)
		r->emit(r->ctx, type, &r->event);
}

/* An event with one member besides the common ones. */
static void emit_value(struct response *r, const char *type, const char *place, const char *name,
		       const json_t *v)
{
	begin(r, type);
	strbuf_printf(&r->event, "%s,\"%s\":", place, name);
	strbuf_json(&r->event, v);
	end(r, type);
}

static void emit_text(struct response *r, const char *type, const char *place, const char *name,
		      const char *text, size_t n, const json_t *logprobs)
{
	begin(r, type);
	strbuf_printf(&r->event, "%s,\"%s\":", place, name);
	strbuf_json_text(&r->event, text, n);
	if (logprobs) {
		strbuf_str(&r->event, ",\"logprobs\":");
		strbuf_json(&r->event, logprobs);
	}
	end(r, type);
}

/* Where the next item stands, and the first part of it. */
static const char *item_place(const struct response *r, char place[static 160])
{
	snprintf(place, 160, ",\"output_index\":%zu", json_array_size(r->output));
	return place;
}

static const char *part_place(const struct response *r, const char *item, bool content,
			      char place[static 160])
{
	snprintf(place, 160, ",\"item_id\":\"%s\",\"output_index\":%zu%s", item,
		 json_array_size(r->output), content ? ",\"content_index\":0" : "");
	return place;
}

/* A new item's id: `prefix`, the response's, its index. */
static void item_id(struct response *r, const char *prefix, char *out, size_t n)
{
	snprintf(out, n, "%s_%s%02zx", prefix, r->id, json_array_size(r->output));
}

/* ---- items -------------------------------------------------------------------------------------- */

static json_t *text_value(const struct response *r)
{
	return json_stringn(r->text.n ? r->text.p : "", r->text.n);
}

/* The only part of the open item, as it is now. */
static json_t *part(const struct response *r)
{
	if (r->open == REASONING)
		return json_pack("{s:s,s:o}", "type", "reasoning_text", "text", text_value(r));
	return json_pack("{s:s,s:o,s:[],s:O}", "type", "output_text", "text", text_value(r),
			 "annotations", "logprobs", r->logprobs);
}

/* The open item; `content`: taken, may be NULL for none. */
static json_t *item(const struct response *r, const char *status, json_t *content)
{
	json_t *list = json_array(), *v;

	if (content && json_array_append_new(list, content)) {
		json_decref(list);
		return NULL;
	}
	if (r->open == REASONING)
		return json_pack("{s:s,s:s,s:s,s:[],s:o}", "id", r->item, "type", "reasoning",
				 "status", status, "summary", "content", list);
	v = json_pack("{s:s,s:s,s:s,s:s,s:o}", "id", r->item, "type", "message", "status", status,
		      "role", "assistant", "content", list);
	if (v && r->malformed)
		json_object_set_new(v, "llmdev",
				    json_pack("{s:s}", "malformed_tool_call", r->malformed));
	return v;
}

static void open_item(struct response *r, enum kind kind)
{
	char place[160];
	json_t *v;

	r->open = kind;
	if (kind == MESSAGE) {
		r->malformed = r->next_malformed;
		r->next_malformed = NULL;
	}
	item_id(r, kind == REASONING ? "rs" : "msg", r->item, sizeof(r->item));
	v = item(r, "in_progress", NULL);
	emit_value(r, "response.output_item.added", item_place(r, place), "item", v);
	json_decref(v);
	v = part(r);
	emit_value(r, "response.content_part.added", part_place(r, r->item, true, place), "part",
		   v);
	json_decref(v);
}

/* status: "completed" or "incomplete". */
static void close_item(struct response *r, const char *status)
{
	char place[160];
	bool reasoning = r->open == REASONING;
	json_t *p, *v;

	if (r->open == NONE)
		return;
	part_place(r, r->item, true, place);
	emit_text(r, reasoning ? "response.reasoning_text.done" : "response.output_text.done",
		  place, "text", r->text.p, r->text.n, reasoning ? NULL : r->logprobs);
	p = part(r);
	emit_value(r, "response.content_part.done", place, "part", p);
	v = item(r, status, p);
	emit_value(r, "response.output_item.done", item_place(r, place), "item", v);
	if (json_array_append_new(r->output, v))
		r->failed = true;
	r->open = NONE;
	r->text.n = 0;
	json_decref(r->logprobs);
	r->logprobs = json_array();
	free(r->malformed);
	r->malformed = NULL;
}

static void add_text(struct response *r, enum kind kind, const char *text, size_t n)
{
	char place[160];
	json_t *pending = r->pending;

	r->pending = json_array();
	if (n) {
		if (r->open != kind) {
			close_item(r, "completed");
			open_item(r, kind);
		}
		strbuf_add(&r->text, text, n);
		r->failed |= r->text.failed;
		emit_text(r,
			  kind == REASONING ? "response.reasoning_text.delta"
					    : "response.output_text.delta",
			  part_place(r, r->item, true, place), "delta", text, n,
			  kind == REASONING ? NULL : pending);
		if (kind == MESSAGE)
			json_array_extend(r->logprobs, pending);
		json_decref(pending);
	} else if (kind == MESSAGE) {
		/* Held back: its text comes with a later one. */
		json_decref(r->pending);
		r->pending = pending;
	} else {
		json_decref(pending);
	}
}

/* `call`: one element of OpenAI's tool_calls. */
static void add_call(struct response *r, const json_t *call)
{
	const json_t *function = json_object_get(call, "function");
	const char *id = json_string_value(json_object_get(call, "id"));
	const char *name = json_string_value(json_object_get(function, "name"));
	const json_t *arguments = json_object_get(function, "arguments");
	char place[160], item[64];
	json_t *v;

	if (!id || !name || !json_is_string(arguments)) {
		r->failed = true;
		return;
	}
	close_item(r, "completed");
	/* Those of the call's tokens. */
	json_array_clear(r->pending);
	item_id(r, "fc", item, sizeof(item));
	v = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "id", item, "type", "function_call", "status",
		      "in_progress", "call_id", id, "name", name, "arguments", "");
	emit_value(r, "response.output_item.added", item_place(r, place), "item", v);
	part_place(r, item, false, place);
	emit_value(r, "response.function_call_arguments.delta", place, "delta", arguments);
	begin(r, "response.function_call_arguments.done");
	strbuf_printf(&r->event, "%s,\"name\":", place);
	strbuf_json_text(&r->event, name, strlen(name));
	strbuf_str(&r->event, ",\"arguments\":");
	strbuf_json(&r->event, arguments);
	end(r, "response.function_call_arguments.done");
	json_object_set(v, "arguments", (json_t *)arguments);
	json_object_set_new(v, "status", json_string("completed"));
	emit_value(r, "response.output_item.done", item_place(r, place), "item", v);
	if (json_array_append_new(r->output, v))
		r->failed = true;
}

static void add_logprobs(struct response *r, json_t *v)
{
	json_object_del(v, "index");
	if (!json_object_get(v, "top_logprobs"))
		json_object_set_new(v, "top_logprobs", json_array());
	if (json_array_append(r->pending, v))
		r->failed = true;
}

void response_event(struct response *r, const struct llmdev_event *ev)
{
	json_t *v;

	if (ev->kind == LLMDEV_TEXT) {
		add_text(r, MESSAGE, ev->text, ev->text_len);
		return;
	}
	if (ev->kind != LLMDEV_DATA)
		return;
	switch (ev->subtype) {
	case LLM_DATA_REASONING:
		add_text(r, REASONING, ev->text, ev->text_len);
		break;
	case LLM_DATA_MALFORMED:
		/* The text that follows is an item of its own, which bears the flag. */
		close_item(r, "completed");
		free(r->next_malformed);
		r->next_malformed = strndup(ev->text, ev->text_len);
		break;
	case LLM_DATA_TOOL_CALL:
	case LLM_DATA_LOGPROBS:
		v = json_loadb(ev->text, ev->text_len, 0, NULL);
		if (!v)
			r->failed = true;
		else if (ev->subtype == LLM_DATA_TOOL_CALL)
			add_call(r, v);
		else
			add_logprobs(r, v);
		json_decref(v);
		break;
	}
}

/* ---- the response ------------------------------------------------------------------------------- */

json_t *response_json(const struct response *r)
{
	json_t *v = json_copy(r->base);
	int rc = !v;

	rc |= json_object_set_new(v, "status", json_string(r->status));
	rc |= json_object_set(v, "output", r->output);
	rc |= json_object_set_new(v, "error", r->error ? json_incref(r->error) : json_null());
	if (r->usage)
		rc |= json_object_set(v, "usage", r->usage);
	if (rc || r->failed) {
		json_decref(v);
		return NULL;
	}
	return v;
}

static void emit_response(struct response *r, const char *type)
{
	json_t *v = response_json(r);

	if (!v) {
		r->failed = true;
		return;
	}
	emit_value(r, type, "", "response", v);
	json_decref(v);
}

void response_begin(struct response *r)
{
	emit_response(r, "response.created");
	emit_response(r, "response.in_progress");
}

void response_done(struct response *r, const struct llmdev_event *ev, uint32_t reasoning_tokens)
{
	const struct llmdev_usage *u = &ev->usage;
	bool cut = ev->finish == LLMDEV_LENGTH;
	bool whole = ev->finish == LLMDEV_STOP;

	/* Nobody should have to ask whether there is a message at all. */
	if (r->open == NONE && !json_array_size(r->output))
		open_item(r, MESSAGE);
	close_item(r, whole ? "completed" : "incomplete");
	r->usage = json_pack("{s:I,s:{s:I},s:I,s:{s:I},s:I}", "input_tokens",
			     (json_int_t)u->prompt_tokens, "input_tokens_details", "cached_tokens",
			     (json_int_t)u->cached_tokens, "output_tokens",
			     (json_int_t)u->completion_tokens, "output_tokens_details",
			     "reasoning_tokens", (json_int_t)reasoning_tokens, "total_tokens",
			     (json_int_t)u->prompt_tokens + u->completion_tokens);
	r->status = whole ? "completed" : cut ? "incomplete" : "cancelled";
	if (cut)
		json_object_set_new(r->base, "incomplete_details",
				    json_pack("{s:s}", "reason", "max_output_tokens"));
	emit_response(r, whole ? "response.completed" : "response.incomplete");
}

void response_fail(struct response *r, const char *code, const char *message)
{
	close_item(r, "incomplete");
	r->status = "failed";
	r->error = json_pack("{s:s,s:s}", "code", code, "message", message);
	emit_response(r, "response.failed");
}

/* Members of the request that the response repeats, with what holds where they are not given. */
static json_t *echo(const json_t *body)
{
	static const struct {
		const char *name, *otherwise; /* JSON; NULL: only repeated if given */
	} members[] = {
		{"instructions", "null"},
		{"max_output_tokens", "null"},
		{"max_tool_calls", "null"},
		{"metadata", "{}"},
		{"parallel_tool_calls", "true"},
		{"prompt_cache_key", NULL},
		{"reasoning", "{\"effort\":null,\"summary\":null}"},
		{"safety_identifier", NULL},
		{"temperature", "null"},
		{"text", "{\"format\":{\"type\":\"text\"}}"},
		{"tool_choice", "\"auto\""},
		{"top_logprobs", "0"},
		{"top_p", "null"},
		{"user", NULL},
	};
	json_t *out = json_object(), *v;

	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		v = json_object_get(body, members[i].name);
		if (v && !json_is_null(v))
			json_object_set(out, members[i].name, v);
		else if (members[i].otherwise)
			json_object_set_new(out, members[i].name,
					    json_loads(members[i].otherwise, JSON_DECODE_ANY,
						       NULL));
	}
	return out;
}

/* The tools of the request with the members that OpenAI's description of a response demands. */
static json_t *echo_tools(const json_t *body)
{
	json_t *tools = json_array(), *t;
	size_t i;

	json_array_foreach (json_object_get(body, "tools"), i, t) {
		t = json_copy(t);
		if (!json_object_get(t, "parameters"))
			json_object_set_new(t, "parameters", json_null());
		if (!json_is_boolean(json_object_get(t, "strict")))
			json_object_set_new(t, "strict", json_false());
		json_array_append_new(tools, t);
	}
	return tools;
}

struct response *response_new(const json_t *body, const char *model, const char *id,
			      int64_t created, response_emit emit, void *ctx)
{
	struct response *r = calloc(1, sizeof(*r));
	json_t *text;
	char name[64];

	if (!r)
		return NULL;
	snprintf(r->id, sizeof(r->id), "%s", id);
	snprintf(name, sizeof(name), "resp_%s", r->id);
	r->emit = emit;
	r->ctx = ctx;
	r->status = "in_progress";
	r->output = json_array();
	r->logprobs = json_array();
	r->pending = json_array();
	r->base =
		json_pack("{s:s,s:s,s:I,s:s,s:n,s:b,s:b,s:n,s:s,s:s}", "id", name, "object",
			  "response", "created_at", (json_int_t)created, "model", model,
			  "incomplete_details", "background", 0, "store", 0, "previous_response_id",
			  "service_tier", "default", "truncation", "disabled");
	if (!r->output || !r->logprobs || !r->pending || !r->base ||
	    json_object_update_new(r->base, echo(body)) ||
	    json_object_set_new(r->base, "tools", echo_tools(body))) {
		response_free(r);
		return NULL;
	}
	text = json_object_get(r->base, "text");
	if (!json_is_object(json_object_get(text, "format"))) {
		text = json_copy(text);
		json_object_set_new(text, "format", json_pack("{s:s}", "type", "text"));
		json_object_set_new(r->base, "text", text);
	}
	return r;
}

void response_free(struct response *r)
{
	if (!r)
		return;
	json_decref(r->base);
	json_decref(r->output);
	json_decref(r->usage);
	json_decref(r->error);
	json_decref(r->logprobs);
	json_decref(r->pending);
	strbuf_free(&r->event);
	strbuf_free(&r->text);
	free(r->malformed);
	free(r->next_malformed);
	free(r);
}
