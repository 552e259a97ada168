// SPDX-License-Identifier: MIT
/*
 * A Responses API request to a chat request: see responses.h. What would change the answer and is
 * not supported is refused by name; what only concerns OpenAI's service (tiers, cache keys, users)
 * is ignored.
 *
 * Items that make up one turn of the model (reasoning, message, function calls, in that order)
 * become one assistant message, as the templates of models expect it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "http/responses.h"

static const json_t *member(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);

	return v && !json_is_null(v) ? v : NULL;
}

static json_t *share(const json_t *v)
{
	return json_incref((json_t *)v);
}

/* The string member `name`, NULL if it is not there or none. */
static const char *string_member(const json_t *o, const char *name)
{
	return json_string_value(json_object_get(o, name));
}

static bool is(const char *s, const char *what)
{
	return s && !strcmp(s, what);
}

static int no_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

/* json_object_set_new() that says why it failed. */
static int put(json_t *o, const char *name, json_t *v, struct err *e)
{
	return v && !json_object_set_new(o, name, v) ? 0 : no_memory(e);
}

/* ---- content ---------------------------------------------------------------------------------- */

/* The text of one content part. */
static int part_text(const json_t *part, const char *path, size_t i, struct strbuf *out,
		     struct err *e)
{
	const char *type = string_member(part, "type");
	const char *name = is(type, "refusal") ? "refusal" : "text";
	const json_t *text;

	if (!json_is_object(part))
		return err_set(e, -EINVAL, "%s[%zu]: not an object", path, i);
	if (!type)
		return err_set(e, -EINVAL, "%s[%zu].type: missing, or not a string", path, i);
	if (!is(type, "input_text") && !is(type, "output_text") && !is(type, "text") &&
	    !is(type, "reasoning_text") && !is(type, "summary_text") && !is(type, "refusal"))
		return err_set(e, -EOPNOTSUPP, "%s[%zu].type: %.40s: only text is understood", path,
			       i, type);
	text = json_object_get(part, name);
	if (!json_is_string(text))
		return err_set(e, -EINVAL, "%s[%zu].%s: missing, or not a string", path, i, name);
	strbuf_add(out, json_string_value(text), json_string_length(text));
	return 0;
}

/* A string, or the text of a list of parts, is appended to `out`. */
static int content_text(const json_t *content, const char *path, struct strbuf *out, struct err *e)
{
	const json_t *part;
	size_t i;
	int rc;

	if (json_is_string(content)) {
		strbuf_add(out, json_string_value(content), json_string_length(content));
		return out->failed ? no_memory(e) : 0;
	}
	if (!json_is_array(content))
		return err_set(e, -EINVAL, "%s: neither a string nor a list of parts", path);
	json_array_foreach (content, i, part) {
		rc = part_text(part, path, i, out, e);
		if (rc)
			return rc;
	}
	return out->failed ? no_memory(e) : 0;
}

/* ---- input items ------------------------------------------------------------------------------- */

struct conversion {
	json_t *messages;
	json_t *names; /* call id -> function name: results do not carry it */
	json_t *assistant; /* borrowed: the turn that function calls may join; NULL: none */
	struct strbuf system; /* instructions and the system messages at the very beginning */
	struct strbuf reasoning; /* of the turn that has not begun yet */
	bool has_system;
	struct err *e;
};

/* Append {"role": role}; *out is borrowed. */
static int add_message(struct conversion *c, const char *role, json_t **out)
{
	*out = json_object();
	if (json_array_append_new(c->messages, *out))
		return no_memory(c->e);
	return put(*out, "role", json_string(role), c->e);
}

/* Content of `m`: its parts' text. */
static int set_text(struct conversion *c, json_t *m, const char *name, const struct strbuf *text)
{
	return put(m, name, json_stringn(text->n ? text->p : "", text->n), c->e);
}

/*
 * Templates know one system message at the beginning, so instructions and the system messages that
 * come first are joined.
 */
static int flush_system(struct conversion *c)
{
	json_t *m;
	int rc;

	if (!c->has_system)
		return 0;
	c->has_system = false;
	rc = add_message(c, "system", &m);
	if (!rc)
		rc = set_text(c, m, "content", &c->system);
	strbuf_free(&c->system);
	return rc;
}

/* Make c->assistant a message that takes what the model said; it begins with its reasoning. */
static int begin_turn(struct conversion *c)
{
	int rc = 0;

	if (c->assistant)
		return 0;
	rc = flush_system(c);
	if (!rc)
		rc = add_message(c, "assistant", &c->assistant);
	if (!rc && c->reasoning.n)
		rc = set_text(c, c->assistant, "reasoning_content", &c->reasoning);
	strbuf_free(&c->reasoning);
	return rc;
}

/* What follows is not the model's. Reasoning that nothing followed is a turn of its own. */
static int end_turn(struct conversion *c)
{
	int rc = 0;

	if (c->reasoning.n) {
		rc = begin_turn(c);
		if (!rc)
			rc = put(c->assistant, "content", json_string(""), c->e);
	}
	c->assistant = NULL;
	return rc ? rc : flush_system(c);
}

static int item_message(struct conversion *c, const json_t *item, const char *path)
{
	const char *role = string_member(item, "role");
	bool system = is(role, "system") || is(role, "developer");
	struct strbuf text = {0};
	char where[80];
	json_t *m;
	int rc;

	if (!role)
		return err_set(c->e, -EINVAL, "%s.role: missing, or not a string", path);
	if (!is(role, "user") && !is(role, "assistant") && !system)
		return err_set(c->e, -EINVAL,
			       "%s.role: %.40s: one of user, assistant, system, developer", path,
			       role);
	snprintf(where, sizeof(where), "%s.content", path);
	if (system && !json_array_size(c->messages) && !c->reasoning.n) {
		if (c->has_system)
			strbuf_add(&c->system, "\n\n", 2);
		c->has_system = true;
		return content_text(json_object_get(item, "content"), where, &c->system, c->e);
	}
	rc = content_text(json_object_get(item, "content"), where, &text, c->e);
	if (!rc && is(role, "assistant")) {
		c->assistant = NULL;
		rc = begin_turn(c);
		m = c->assistant;
	} else if (!rc) {
		rc = end_turn(c);
		if (!rc)
			rc = add_message(c, role, &m);
	}
	if (!rc)
		rc = set_text(c, m, "content", &text);
	strbuf_free(&text);
	return rc;
}

static int item_reasoning(struct conversion *c, const json_t *item, const char *path)
{
	static const char *const places[] = {"content", "summary"};
	size_t before = c->reasoning.n;
	char where[80];
	int rc = 0;

	if (before)
		strbuf_add(&c->reasoning, "\n", 1);
	else
		c->assistant = NULL;
	/* The model's own text; a summary only where that is all there is. */
	for (size_t i = 0, n = c->reasoning.n; i < 2 && !rc && c->reasoning.n == n; i++) {
		const json_t *v = member(item, places[i]);

		snprintf(where, sizeof(where), "%s.%s", path, places[i]);
		if (v)
			rc = content_text(v, where, &c->reasoning, c->e);
	}
	if (before && c->reasoning.n == before + 1)
		c->reasoning.n = before;
	return rc;
}

static int item_call(struct conversion *c, const json_t *item, const char *path)
{
	static const char *const needed[] = {"call_id", "name", "arguments"};
	json_t *calls, *call;
	int rc;

	for (int i = 0; i < 3; i++)
		if (!string_member(item, needed[i]))
			return err_set(c->e, -EINVAL, "%s.%s: missing, or not a string", path,
				       needed[i]);
	if (json_object_set(c->names, string_member(item, "call_id"),
			    json_object_get(item, "name")))
		return no_memory(c->e);
	rc = begin_turn(c);
	if (rc)
		return rc;
	calls = json_object_get(c->assistant, "tool_calls");
	if (!calls) {
		calls = json_array();
		rc = put(c->assistant, "tool_calls", calls, c->e);
		/* Chat templates expect the member, null where there is no text. */
		if (!rc && !json_object_get(c->assistant, "content"))
			rc = put(c->assistant, "content", json_null(), c->e);
		if (rc)
			return rc;
	}
	call = json_pack("{s:O,s:s,s:{s:O,s:O}}", "id", json_object_get(item, "call_id"), "type",
			 "function", "function", "name", json_object_get(item, "name"), "arguments",
			 json_object_get(item, "arguments"));
	return json_array_append_new(calls, call) ? no_memory(c->e) : 0;
}

static int item_call_output(struct conversion *c, const json_t *item, const char *path)
{
	const char *id = string_member(item, "call_id");
	const json_t *name = id ? json_object_get(c->names, id) : NULL;
	struct strbuf text = {0};
	char where[80];
	json_t *m;
	int rc;

	if (!id)
		return err_set(c->e, -EINVAL, "%s.call_id: missing, or not a string", path);
	if (!name)
		return err_set(c->e, -EINVAL,
			       "%s.call_id: %.64s: no function_call before it has this id", path,
			       id);
	snprintf(where, sizeof(where), "%s.output", path);
	rc = content_text(json_object_get(item, "output"), where, &text, c->e);
	if (!rc)
		rc = end_turn(c);
	if (!rc)
		rc = add_message(c, "tool", &m);
	if (!rc)
		rc = put(m, "tool_call_id", share(json_object_get(item, "call_id")), c->e);
	if (!rc)
		rc = put(m, "name", share(name), c->e);
	if (!rc)
		rc = set_text(c, m, "content", &text);
	strbuf_free(&text);
	return rc;
}

static int one_item(struct conversion *c, const json_t *item, size_t i)
{
	const char *type = string_member(item, "type");
	char path[40];

	snprintf(path, sizeof(path), "input[%zu]", i);
	if (!json_is_object(item))
		return err_set(c->e, -EINVAL, "%s: not an object", path);
	if (!member(item, "type") || is(type, "message"))
		return item_message(c, item, path);
	if (is(type, "function_call"))
		return item_call(c, item, path);
	if (is(type, "function_call_output"))
		return item_call_output(c, item, path);
	if (is(type, "reasoning"))
		return item_reasoning(c, item, path);
	if (!type)
		return err_set(c->e, -EINVAL, "%s.type: not a string", path);
	if (is(type, "item_reference"))
		return err_set(c->e, -EOPNOTSUPP,
			       "%s.type: item_reference: nothing is stored here: send the item",
			       path);
	return err_set(c->e, -EOPNOTSUPP, "%s.type: %.40s: not supported", path, type);
}

static int convert_input(const json_t *body, json_t *chat, struct err *e)
{
	const json_t *input = member(body, "input"), *instructions = member(body, "instructions");
	struct conversion c = {.messages = json_array(), .names = json_object(), .e = e};
	const json_t *item;
	json_t *m;
	size_t i;
	int rc = put(chat, "messages", c.messages, e);

	if (!rc && !c.names)
		rc = no_memory(e);
	if (!rc && !input)
		rc = err_set(e, -EINVAL, "input: missing");
	if (!rc && instructions) {
		c.has_system = true;
		if (!json_is_string(instructions))
			rc = err_set(e, -EINVAL, "instructions: not a string");
		else
			rc = content_text(instructions, "instructions", &c.system, e);
	}
	if (!rc && json_is_string(input)) {
		rc = flush_system(&c);
		if (!rc)
			rc = add_message(&c, "user", &m);
		if (!rc)
			rc = put(m, "content", share(input), e);
	} else if (!rc && json_is_array(input)) {
		if (!json_array_size(input))
			rc = err_set(e, -EINVAL, "input: empty");
		json_array_foreach (input, i, item) {
			if (!rc)
				rc = one_item(&c, item, i);
		}
		if (!rc)
			rc = end_turn(&c);
	} else if (!rc) {
		rc = err_set(e, -EINVAL, "input: neither a string nor a list of items");
	}
	strbuf_free(&c.system);
	strbuf_free(&c.reasoning);
	json_decref(c.names);
	return rc;
}

/* ---- tools -------------------------------------------------------------------------------------- */

static int convert_tools(const json_t *body, const json_t *allow, json_t *chat, struct err *e)
{
	static const char *const copied[] = {"name", "description", "parameters", "strict"};
	const json_t *tools = member(body, "tools"), *t;
	json_t *list, *function;
	size_t i;

	if (!tools)
		return 0;
	if (!json_is_array(tools))
		return err_set(e, -EINVAL, "tools: not a list");
	list = json_array();
	if (!list)
		return no_memory(e);
	json_array_foreach (tools, i, t) {
		const char *type = string_member(t, "type"), *name = string_member(t, "name");
		int rc = 0;

		if (!json_is_object(t))
			rc = err_set(e, -EINVAL, "tools[%zu]: not an object", i);
		else if (!type)
			rc = err_set(e, -EINVAL, "tools[%zu].type: missing, or not a string", i);
		else if (!is(type, "function"))
			rc = err_set(
				e, -EOPNOTSUPP,
				"tools[%zu].type: %.40s: only functions, which the client runs", i,
				type);
		else if (!name)
			rc = err_set(e, -EINVAL, "tools[%zu].name: missing, or not a string", i);
		if (!rc && allow && !json_object_get(allow, name))
			continue;
		function = json_object();
		for (size_t k = 0; !rc && k < sizeof(copied) / sizeof(copied[0]); k++)
			if (member(t, copied[k]))
				rc = put(function, copied[k], share(member(t, copied[k])), e);
		if (!rc && json_array_append_new(list, json_pack("{s:s,s:O}", "type", "function",
								 "function", function)))
			rc = no_memory(e);
		json_decref(function);
		if (rc) {
			json_decref(list);
			return rc;
		}
	}
	if (!json_array_size(list)) {
		json_decref(list);
		return 0;
	}
	return put(chat, "tools", list, e);
}

/* *allow: a new object with the functions that the model may call as keys; NULL: all of them. */
static int convert_tool_choice(const json_t *body, json_t **allow, json_t *chat, struct err *e)
{
	const json_t *choice = member(body, "tool_choice"), *tools, *t;
	const char *type, *mode, *name;
	size_t i;

	*allow = NULL;
	if (!choice)
		return 0;
	if (json_is_string(choice)) {
		mode = json_string_value(choice);
		if (!is(mode, "auto") && !is(mode, "none") && !is(mode, "required"))
			return err_set(e, -EINVAL, "tool_choice: %.40s: auto, none or required",
				       mode);
		return put(chat, "tool_choice", share(choice), e);
	}
	type = string_member(choice, "type");
	if (!json_is_object(choice))
		return err_set(e, -EINVAL, "tool_choice: neither a string nor an object");
	if (!type)
		return err_set(e, -EINVAL, "tool_choice.type: missing, or not a string");
	if (is(type, "function")) {
		if (!string_member(choice, "name"))
			return err_set(e, -EINVAL, "tool_choice.name: missing, or not a string");
		return put(chat, "tool_choice",
			   json_pack("{s:s,s:{s:O}}", "type", "function", "function", "name",
				     json_object_get(choice, "name")),
			   e);
	}
	if (!is(type, "allowed_tools"))
		return err_set(e, -EOPNOTSUPP, "tool_choice.type: %.40s: not supported", type);
	mode = string_member(choice, "mode");
	if (!is(mode, "auto") && !is(mode, "required"))
		return err_set(e, -EINVAL, "tool_choice.mode: auto or required");
	tools = member(choice, "tools");
	if (!json_is_array(tools))
		return err_set(e, -EINVAL, "tool_choice.tools: not a list");
	*allow = json_object();
	json_array_foreach (tools, i, t) {
		name = string_member(t, "name");
		if (!name)
			return err_set(e, -EINVAL,
				       "tool_choice.tools[%zu].name: missing, or not a string", i);
		if (put(*allow, name, json_true(), e))
			return -ENOMEM;
	}
	return put(chat, "tool_choice", json_string(mode), e);
}

/* ---- the rest ----------------------------------------------------------------------------------- */

static int convert_text(const json_t *body, json_t *chat, struct err *e)
{
	static const char *const copied[] = {"name", "description", "schema", "strict"};
	const json_t *text = member(body, "text"), *format, *v;
	const char *type;
	json_t *schema;
	int rc = 0;

	if (!text)
		return 0;
	if (!json_is_object(text))
		return err_set(e, -EINVAL, "text: not an object");
	v = member(text, "verbosity");
	if (v && !is(json_string_value(v), "medium"))
		return err_set(e, -EOPNOTSUPP, "text.verbosity: not supported: leave it out");
	format = member(text, "format");
	if (!format)
		return 0;
	type = string_member(format, "type");
	if (!json_is_object(format) || !type)
		return err_set(e, -EINVAL, "text.format.type: missing, or not a string");
	if (is(type, "text"))
		return 0;
	if (is(type, "json_object"))
		return put(chat, "response_format", json_pack("{s:s}", "type", type), e);
	if (!is(type, "json_schema"))
		return err_set(e, -EOPNOTSUPP,
			       "text.format.type: %.40s: text, json_object or json_schema", type);
	if (!string_member(format, "name"))
		return err_set(e, -EINVAL, "text.format.name: missing, or not a string");
	if (!member(format, "schema"))
		return err_set(e, -EINVAL, "text.format.schema: missing");
	schema = json_object();
	for (size_t i = 0; !rc && i < sizeof(copied) / sizeof(copied[0]); i++)
		if (member(format, copied[i]))
			rc = put(schema, copied[i], share(member(format, copied[i])), e);
	if (!rc)
		rc = put(chat, "response_format",
			 json_pack("{s:s,s:O}", "type", type, "json_schema", schema), e);
	json_decref(schema);
	return rc;
}

static int convert_reasoning(const json_t *body, json_t *chat, struct err *e)
{
	const json_t *reasoning = member(body, "reasoning"), *effort;

	if (!reasoning)
		return 0;
	if (!json_is_object(reasoning))
		return err_set(e, -EINVAL, "reasoning: not an object");
	effort = member(reasoning, "effort");
	if (!effort)
		return 0;
	if (!json_is_string(effort))
		return err_set(e, -EINVAL, "reasoning.effort: not a string");
	return put(chat, "reasoning_effort", share(effort), e);
}

static int convert_logprobs(const json_t *body, json_t *chat, struct err *e)
{
	const json_t *include = member(body, "include"), *top = member(body, "top_logprobs"), *v;
	bool wanted = false;
	size_t i;
	int rc;

	if (include && !json_is_array(include))
		return err_set(e, -EINVAL, "include: not a list");
	json_array_foreach (include, i, v) {
		if (!json_is_string(v))
			return err_set(e, -EINVAL, "include[%zu]: not a string", i);
		/* What the others name never occurs here. */
		wanted |= is(json_string_value(v), "message.output_text.logprobs");
	}
	if (top && !(json_is_integer(top) && json_integer_value(top) >= 0 &&
		     json_integer_value(top) <= 20))
		return err_set(e, -EINVAL, "top_logprobs: a whole number from 0 to 20");
	if (!wanted)
		return 0;
	rc = put(chat, "logprobs", json_true(), e);
	return rc || !top ? rc : put(chat, "top_logprobs", share(top), e);
}

static int check_metadata(const json_t *body, struct err *e)
{
	const json_t *metadata = member(body, "metadata"), *v;
	const char *key;

	if (!metadata)
		return 0;
	if (!json_is_object(metadata))
		return err_set(e, -EINVAL, "metadata: not an object");
	if (json_object_size(metadata) > 16)
		return err_set(e, -EINVAL, "metadata: at most 16 pairs");
	json_object_foreach ((json_t *)metadata, key, v) {
		if (strlen(key) > 64)
			return err_set(e, -EINVAL, "metadata: a key of more than 64 bytes");
		if (!json_is_string(v) || json_string_length(v) > 4 * 512)
			return err_set(e, -EINVAL,
				       "metadata.%.64s: not a string of at most 512 characters",
				       key);
	}
	return 0;
}

/* What OpenAI's service does besides answering, and this one does not. */
static int refuse_services(const json_t *body, struct err *e)
{
	static const char *const never[] = {"previous_response_id", "conversation"};
	static const char *const flags[] = {"store", "background", "stream"};
	const json_t *v;

	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (member(body, never[i]))
			return err_set(
				e, -EOPNOTSUPP,
				"%s: nothing is stored here: send the earlier items as input",
				never[i]);
	if (member(body, "prompt"))
		return err_set(e, -EOPNOTSUPP,
			       "prompt: no prompts are stored here: use input and instructions");
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		v = member(body, flags[i]);
		if (v && !json_is_boolean(v))
			return err_set(e, -EINVAL, "%s: neither true nor false", flags[i]);
	}
	if (json_is_true(json_object_get(body, "store")))
		return err_set(e, -EOPNOTSUPP,
			       "store: nothing is stored here: leave it out, or send false");
	if (json_is_true(json_object_get(body, "background")))
		return err_set(e, -EOPNOTSUPP, "background: not supported: leave it out");
	v = member(body, "truncation");
	if (v && !is(json_string_value(v), "disabled"))
		return err_set(e, -EOPNOTSUPP, "truncation: only \"disabled\"");
	return 0;
}

int responses_to_chat(const json_t *body, json_t **out, struct err *e)
{
	/* Shared with chat requests, or beyond OpenAI's API as there. */
	static const char *const copied[] = {
		"temperature",
		"top_p",
		"top_k",
		"min_p",
		"seed",
		"stop",
		"presence_penalty",
		"frequency_penalty",
		"repetition_penalty",
		"logit_bias",
		"ignore_eos",
		"min_tokens",
		"parallel_tool_calls",
		"chat_template_kwargs",
		"thinking_budget",
		"thinking_token_budget",
		"structured_outputs",
	};
	json_t *chat = json_object();
	json_t *allow = NULL;
	const json_t *v;
	int rc = chat ? 0 : no_memory(e);

	if (!rc)
		rc = refuse_services(body, e);
	if (!rc)
		rc = check_metadata(body, e);
	if (!rc)
		rc = convert_input(body, chat, e);
	if (!rc)
		rc = convert_tool_choice(body, &allow, chat, e);
	if (!rc)
		rc = convert_tools(body, allow, chat, e);
	if (!rc)
		rc = convert_text(body, chat, e);
	if (!rc)
		rc = convert_reasoning(body, chat, e);
	if (!rc)
		rc = convert_logprobs(body, chat, e);
	json_decref(allow);
	for (size_t i = 0; !rc && i < sizeof(copied) / sizeof(copied[0]); i++)
		if (member(body, copied[i]))
			rc = put(chat, copied[i], share(member(body, copied[i])), e);
	v = member(body, "max_output_tokens");
	if (!rc && v) {
		if (!json_is_integer(v) || json_integer_value(v) < 1)
			rc = err_set(e, -EINVAL, "max_output_tokens: a whole number, at least 1");
		else
			rc = put(chat, "max_completion_tokens", share(v), e);
	}
	if (rc) {
		json_decref(chat);
		chat = NULL;
	}
	*out = chat;
	return rc;
}

void responses_translate_error(const char *text, size_t n, struct strbuf *out)
{
	/* Longest first where one begins like another. */
	static const struct {
		const char *chat, *here;
	} paths[] = {
		{"response_format.json_schema", "text.format"},
		{"response_format", "text.format"},
		{"max_completion_tokens", "max_output_tokens"},
		{"max_tokens", "max_output_tokens"},
		{"reasoning_effort", "reasoning.effort"},
		{"tool_choice.function", "tool_choice"},
	};
	const char *colon = memchr(text, ':', n), *end = text + n, *from;
	size_t path = colon ? colon - text : 0, len;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		len = strlen(paths[i].chat);
		if (path >= len && !memcmp(text, paths[i].chat, len)) {
			strbuf_str(out, paths[i].here);
			strbuf_add(out, text + len, n - len);
			return;
		}
	}
	if (path >= 8 && !memcmp(text, "messages", 8)) {
		/* Items and messages are not counted alike. */
		strbuf_str(out, "input");
		strbuf_add(out, colon, end - colon);
		return;
	}
	from = path > 6 && !memcmp(text, "tools[", 6) ? memmem(text, path, ".function", 9) : NULL;
	if (from) {
		strbuf_add(out, text, from - text);
		text = from + 9;
	}
	strbuf_add(out, text, end - text);
}
