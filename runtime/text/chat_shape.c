// SPDX-License-Identifier: MIT
/*
 * The shape of messages that a template expects (chat_int.h): finding it out by rendering, and
 * bringing messages into it. Messages that need no change are shared, not copied.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "text/chat_int.h"

#define ID_LEN 9 /* of a call's id, for templates that insist */

/* ---- into the shape ------------------------------------------------------------------------------- */

static const json_t *present(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return v && !json_is_null(v) ? v : NULL;
}

/* The texts of parts, a newline between them, as vLLM joins them. */
static json_t *join_parts(const json_t *parts)
{
	const json_t *part;
	size_t i, n = 0, total = json_array_size(parts);
	json_t *out;
	char *text;

	json_array_foreach ((json_t *)parts, i, part)
		total += json_string_length(json_object_get(part, "text"));
	text = malloc(total + 1);
	if (!text)
		return NULL;
	json_array_foreach ((json_t *)parts, i, part) {
		const json_t *v = json_object_get(part, "text");

		if (i)
			text[n++] = '\n';
		memcpy(text + n, json_is_string(v) ? json_string_value(v) : "",
		       json_string_length(v));
		n += json_string_length(v);
	}
	out = json_stringn(text, n);
	free(text);
	return out;
}

/* A new reference; NULL: no memory. */
static json_t *shape_content(const struct chat_shape *s, const json_t *content, bool calls)
{
	json_t *text;

	if (!content)
		return s->empty_content || !calls ? json_string("") : json_null();
	if (json_is_array(content)) {
		if (s->parts)
			return json_incref((json_t *)content);
		return join_parts(content);
	}
	if (!s->parts)
		return json_incref((json_t *)content);
	text = json_incref((json_t *)content);
	return json_pack("[{s:s,s:o}]", "type", "text", "text", text);
}

static json_t *shape_id(const struct chat_shape *s, const json_t *id)
{
	static const char digits[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	const char *text = json_string_value(id);
	char out[ID_LEN + 1] = "";
	size_t n = 0;
	uint64_t h;

	if (!s->short_ids || !text)
		return json_incref((json_t *)id);
	while (isalnum((unsigned char)text[n]))
		n++;
	if (n == ID_LEN && !text[n])
		return json_incref((json_t *)id);
	h = fnv1a(FNV_START, text, strlen(text));
	for (int i = 0; i < ID_LEN; i++, h /= sizeof(digits) - 1)
		out[i] = digits[h % (sizeof(digits) - 1)];
	return json_string(out);
}

static json_t *shape_arguments(const struct chat_shape *s, const json_t *arguments)
{
	json_t *parsed;
	char *text;

	if (!arguments)
		return s->text_arguments ? json_string("{}") : json_object();
	if (s->text_arguments) {
		if (json_is_string(arguments))
			return json_incref((json_t *)arguments);
		text = json_dumps(arguments, JSON_ENCODE_ANY);
		parsed = text ? json_string(text) : NULL;
		free(text);
		return parsed;
	}
	if (!json_is_string(arguments))
		return json_incref((json_t *)arguments);
	parsed = json_loads(json_string_value(arguments), 0, NULL);
	if (json_is_object(parsed))
		return parsed;
	json_decref(parsed);
	if (!json_string_length(arguments))
		return json_object();
	/* No object: as it was sent. The template decides what it makes of it. */
	return json_incref((json_t *)arguments);
}

static json_t *shape_call(const struct chat_shape *s, const json_t *call)
{
	const json_t *f = json_object_get(call, "function");
	json_t *copy = json_copy((json_t *)call), *fn = json_copy((json_t *)f);
	int rc = !copy || !fn;

	rc = rc || json_object_set_new(fn, "arguments",
				       shape_arguments(s, json_object_get(f, "arguments")));
	if (!rc && json_object_get(call, "id"))
		rc = json_object_set_new(copy, "id", shape_id(s, json_object_get(call, "id")));
	if (!rc && !json_object_get(call, "type"))
		rc = json_object_set_new(copy, "type", json_string("function"));
	if (!rc)
		rc = json_object_set(copy, "function", fn);
	json_decref(fn);
	if (!rc)
		return copy;
	json_decref(copy);
	return NULL;
}

static json_t *shape_calls(const struct chat_shape *s, const json_t *calls)
{
	json_t *out = json_array();
	const json_t *call;
	size_t i;

	json_array_foreach ((json_t *)calls, i, call) {
		if (out && json_array_append_new(out, shape_call(s, call))) {
			json_decref(out);
			out = NULL;
		}
	}
	return out;
}

/* The function that a tool's message answers, looked up in the calls before it. */
static const json_t *name_of(const json_t *messages, size_t before, const char *id)
{
	const json_t *call;
	size_t k;

	for (size_t i = before; id && i-- > 0;) {
		const json_t *calls = json_object_get(json_array_get(messages, i), "tool_calls");

		json_array_foreach ((json_t *)calls, k, call) {
			const char *other = json_string_value(json_object_get(call, "id"));

			if (other && !strcmp(other, id))
				return json_object_get(json_object_get(call, "function"), "name");
		}
		/* Only the turn that is being answered. */
		if (json_array_size(calls))
			break;
	}
	return NULL;
}

static int set_reasoning(const struct chat_shape *s, json_t *copy)
{
	static const char *const names[] = {"reasoning_content", "reasoning", "thinking"};
	const json_t *v = NULL;
	int rc = 0;

	for (int i = 0; i < 3 && !v; i++)
		v = present(copy, names[i]);
	for (int i = 0; i < 3 && v && !rc; i++) {
		if (i < 2 || s->thinking_key)
			rc = json_object_set(copy, names[i], (json_t *)v);
	}
	return rc;
}

static json_t *shape_message(const struct chat_shape *s, const json_t *messages, size_t i)
{
	const json_t *m = json_array_get(messages, i), *v;
	const char *role = json_string_value(json_object_get(m, "role"));
	json_t *copy = json_copy((json_t *)m);
	int rc = !copy;

	if (!rc && !s->developer && role && !strcmp(role, "developer"))
		rc = json_object_set_new(copy, "role", json_string("system"));
	if (!rc)
		rc = json_object_set_new(copy, "content",
					 shape_content(s, present(m, "content"),
						       json_array_size(present(m, "tool_calls"))));
	if (!rc)
		rc = set_reasoning(s, copy);
	v = present(m, "tool_calls");
	if (!rc && json_array_size(v))
		rc = json_object_set_new(copy, "tool_calls", shape_calls(s, v));
	else if (!rc)
		json_object_del(copy, "tool_calls"); /* templates ask whether it is there */
	v = present(m, "tool_call_id");
	if (!rc && v) {
		const json_t *name = name_of(messages, i, json_string_value(v));

		if (!present(m, "name") && name)
			rc = json_object_set(copy, "name", (json_t *)name);
		if (!rc)
			rc = json_object_set_new(copy, "tool_call_id", shape_id(s, v));
	}
	if (!rc)
		return copy;
	json_decref(copy);
	return NULL;
}

json_t *chat_shape(const struct chat_shape *s, const json_t *messages)
{
	json_t *out = json_array();
	size_t n = json_array_size(messages);

	for (size_t i = 0; out && i < n; i++) {
		if (json_array_append_new(out, shape_message(s, messages, i))) {
			json_decref(out);
			out = NULL;
		}
	}
	return out;
}

/* ---- finding it out ------------------------------------------------------------------------------- */

#define NEEDLE "Zq7needle7qZ"

/* Whether these messages render with the needle in them, and without `without` (NULL: no matter). */
static bool shows(const struct chat *c, json_t *messages, const json_t *tools, const char *without)
{
	struct chat_request r = {.tools = tools};
	struct chat_prompt p;
	struct err e;
	bool ok = false;

	if (messages && !chat_render_shaped(c, &r, messages, &p, &e)) {
		ok = strstr(p.text.text, NEEDLE) && !(without && strstr(p.text.text, without));
		chat_prompt_free(&p);
	}
	json_decref(messages);
	return ok;
}

/* A user's question, a call with these arguments and content (both stolen), its answer. */
static json_t *with_call(json_t *content, json_t *arguments, const char *id, const char *result)
{
	return json_pack("[{s:s,s:s},{s:s,s:o,s:[{s:s,s:s,s:{s:s,s:o}}]},{s:s,s:s,s:s,s:s},"
			 "{s:s,s:s}]",
			 "role", "user", "content", "Hello", "role", "assistant", "content",
			 content, "tool_calls", "id", id, "type", "function", "function", "name",
			 "look", "arguments", arguments, "role", "tool", "tool_call_id", id, "name",
			 "look", "content", result, "role", "user", "content", "And?");
}

static void probe_calls(struct chat *c)
{
	static const char id[] = "abcdEF789", text[] = "{\"key\": \"" NEEDLE "\"}";
	struct chat_shape *s = &c->shape;
	json_t *tools = json_pack("[{s:s,s:{s:s,s:s,s:{s:s,s:{s:{s:s}}}}}]", "type", "function",
				  "function", "name", "look", "description", "Looks.", "parameters",
				  "type", "object", "properties", "key", "type", "string");
	bool object = false, string = false;

	/* Both absences of content count: which of them it takes is asked next. */
	for (int empty = 0; empty < 2; empty++) {
		json_t *a = empty ? json_string("") : json_null();
		json_t *b = empty ? json_string("") : json_null();

		object |= shows(c, with_call(a, json_pack("{s:s}", "key", NEEDLE), id, "x"), tools,
				NULL);
		string |= shows(c, with_call(b, json_string(text), id, "x"), tools, NULL);
	}
	s->text_arguments = !object && string;
#define ARGUMENTS (s->text_arguments ? json_string(text) : json_pack("{s:s}", "key", NEEDLE))
	s->empty_content = !shows(c, with_call(json_null(), ARGUMENTS, id, "x"), tools, "None") &&
			   shows(c, with_call(json_string(""), ARGUMENTS, id, "x"), tools, NULL);
	s->short_ids = !shows(c,
			      with_call(s->empty_content ? json_string("") : json_null(), ARGUMENTS,
					"call_0123456789abcdef", "x"),
			      tools, NULL) &&
		       shows(c,
			     with_call(s->empty_content ? json_string("") : json_null(), ARGUMENTS,
				       id, "x"),
			     tools, NULL);
	json_decref(tools);
}

void chat_probe(struct chat *c, const char *source)
{
	struct chat_shape *s = &c->shape;

	memset(s, 0, sizeof(*s));
	s->parts = !shows(c, json_pack("[{s:s,s:s}]", "role", "user", "content", NEEDLE), NULL,
			  NULL) &&
		   shows(c,
			 json_pack("[{s:s,s:[{s:s,s:s}]}]", "role", "user", "content", "type",
				   "text", "text", NEEDLE),
			 NULL, NULL);
	s->developer = strstr(source, "developer");
	s->thinking_key = tmpl_mentions(c->template, "thinking");
	probe_calls(c);
}
