// SPDX-License-Identifier: MIT
/*
 * Calls as the formats of model families write them; the readers are in text/output. Arguments
 * follow each tool's schema; where that cannot be done and the tool does not ask for `strict`, they
 * are any object, as without a grammar.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar/grammar_int.h"

#define CALLS_MAX 64 /* in one answer */

struct tool {
	const char *name;
	const json_t *parameters;
	bool strict;
	char where[64];
};

static gnode json_name(struct gb *b, const struct tool *t)
{
	json_t *s = json_string(t->name);
	gnode r = s ? gj_literal(b, s, 0) : 0;

	json_decref(s);
	return r;
}

/* Any arguments, in the style of the format. */
static gnode any_arguments(struct gb *b, enum output_tools format, const struct tool *t)
{
	static const char *const no_value[] = {"</parameter>", "\n<parameter=", "\n</function>",
					       NULL};
	struct byteset key = {0};
	struct schema s;
	json_t *object;
	gnode r;

	if (format == OUTPUT_TOOLS_QWEN_XML) {
		set_add(&key, 'a', 'z');
		set_add(&key, 'A', 'Z');
		set_add(&key, '0', '9');
		set_add(&key, '-', '.');
		set_add(&key, '_', '_');
		return gb_rep(b,
			      gb_seq(b, gb_lit(b, "<parameter="), gb_rep(b, gb_set(b, &key), 1, 64),
				     gb_lit(b, ">\n"), gj_text_without(b, no_value),
				     gb_lit(b, "\n</parameter>\n")),
			      0, 64);
	}
	object = json_pack("{s:s}", "type", "object");
	schema_init(&s, b, object, t->where);
	s.style = format == OUTPUT_TOOLS_GEMMA4 ? STYLE_GEMMA : STYLE_JSON;
	r = schema_node(&s, object);
	schema_fini(&s);
	json_decref(object);
	return r;
}

static gnode by_schema(struct gb *b, enum output_tools format, const struct tool *t)
{
	static const char *const before[2] = {"<parameter=", ">\n"};
	json_t *object =
		t->parameters ? json_pack("{s:s}", "type", "object")
			      : json_pack("{s:s,s:b}", "type", "object", "additionalProperties", 0);
	const json_t *x;
	struct schema s;
	gnode r = 0;

	schema_init(&s, b, t->parameters, t->where);
	s.closed = true;
	if (format == OUTPUT_TOOLS_GEMMA4)
		s.style = STYLE_GEMMA;
	x = t->parameters ? schema_merge(&s, t->parameters, object) : object;
	if (x && format == OUTPUT_TOOLS_QWEN_XML &&
	    (json_object_get(x, "properties") || !t->parameters))
		r = schema_tagged(&s, x, before, "\n</parameter>\n");
	else if (x && format == OUTPUT_TOOLS_QWEN_XML)
		r = any_arguments(b, format, t);
	else if (x)
		r = schema_node(&s, x);
	schema_fini(&s);
	json_decref(object);
	return r;
}

/* Everything built since `was` is forgotten, its failure too. */
static void take_back(struct gb *b, const struct gb *was)
{
	b->rc = 0;
	b->n_node = was->n_node;
	b->n_kid = was->n_kid;
	b->n_text = was->n_text;
	b->n_set = was->n_set;
	b->n_rule = was->n_rule;
	b->ws = was->ws;
	b->string = was->string;
	b->value = was->value;
	b->integer = was->integer;
	b->number = was->number;
	memcpy(b->without, was->without, sizeof(b->without));
}

static gnode arguments(struct gb *b, enum output_tools format, const struct tool *t)
{
	struct gb was = *b;
	gnode r = by_schema(b, format, t);

	if (b->rc == -EOPNOTSUPP && !was.rc && !t->strict) {
		take_back(b, &was);
		r = any_arguments(b, format, t);
	}
	if (!r)
		gb_fail(b, -EINVAL, "%s: nothing can match: loosen it", t->where);
	return r;
}

/* One call of the tool, without what stands before the first and between two. */
static gnode call(struct gb *b, enum output_tools format, const struct tool *t)
{
	gnode args = arguments(b, format, t), nl = gb_opt(b, gb_lit(b, "\n"));

	switch (format) {
	case OUTPUT_TOOLS_HERMES:
		return gb_seq(b, gb_mark(b, "<tool_call>"), nl, gb_lit(b, "{\"name\": "),
			      json_name(b, t), gb_lit(b, ", \"arguments\": "), args, gb_lit(b, "}"),
			      nl, gb_mark(b, "</tool_call>"));
	case OUTPUT_TOOLS_QWEN_XML:
		return gb_seq(b, gb_mark(b, "<tool_call>"), gb_lit(b, "\n<function="),
			      gb_lit(b, t->name), gb_lit(b, ">\n"), args,
			      gb_lit(b, "</function>\n"), gb_mark(b, "</tool_call>"));
	case OUTPUT_TOOLS_GEMMA4:
		return gb_seq(b, gb_mark(b, "<|tool_call>"), gb_lit(b, "call:"), gb_lit(b, t->name),
			      args, gb_mark(b, "<tool_call|>"));
	case OUTPUT_TOOLS_LLAMA3:
		return gb_seq(b, gb_lit(b, "{\"name\": "), json_name(b, t),
			      gb_lit(b, ", \"parameters\": "), args, gb_lit(b, "}"));
	case OUTPUT_TOOLS_HARMONY:
		return gb_seq(b,
			      gb_opt(b, gb_seq(b, gb_mark(b, "<|start|>"), gb_lit(b, "assistant"))),
			      gb_mark(b, "<|channel|>"), gb_lit(b, "commentary to=functions."),
			      gb_lit(b, t->name), gb_opt(b, gb_lit(b, " ")),
			      gb_opt(b, gb_seq(b, gb_mark(b, "<|constrain|>"), gb_lit(b, "json"))),
			      gb_mark(b, "<|message|>"), args, gb_opt(b, gb_mark(b, "<|call|>")));
	default:
		return 0;
	}
}

static gnode many(struct gb *b, gnode one, gnode between, bool parallel)
{
	if (!parallel)
		return one;
	return gb_seq(b, one, gb_rep(b, gb_seq(b, between, one), 0, CALLS_MAX - 1));
}

/* Both forms of Mistral: which one a model writes is for it to choose. */
static gnode mistral(struct gb *b, const struct tool *tool, size_t n, bool parallel)
{
	gnode *json = calloc(n, sizeof(*json)), *named = calloc(n, sizeof(*named)), r = 0;

	for (size_t i = 0; i < n && json && named; i++) {
		uint32_t rule = gb_rule(b);
		gnode args = gb_call(b, rule);

		gb_define(b, rule, arguments(b, OUTPUT_TOOLS_MISTRAL, &tool[i]));
		json[i] = gb_seq(b, gb_lit(b, "{\"name\": "), json_name(b, &tool[i]),
				 gb_lit(b, ", \"arguments\": "), args, gb_lit(b, "}"));
		named[i] = gb_seq(b, gb_mark(b, "[TOOL_CALLS]"), gb_lit(b, tool[i].name),
				  gb_mark(b, "[ARGS]"), args);
	}
	if (!json || !named)
		gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
	if (!b->rc)
		r = gb_alt(b,
			   gb_seq(b, gb_mark(b, "[TOOL_CALLS]"), gb_opt(b, gb_lit(b, " ")),
				  gb_lit(b, "["),
				  many(b, gb_list(b, GN_ALT, json, n), gb_lit(b, ", "), parallel),
				  gb_lit(b, "]")),
			   many(b, gb_list(b, GN_ALT, named, n), gb_empty(b), parallel));
	free(json);
	free(named);
	return r;
}

static gnode calls(struct gb *b, enum output_tools format, const struct tool *tool, size_t n,
		   bool parallel)
{
	static const char *const between[] = {
		[OUTPUT_TOOLS_HERMES] = "\n",
		[OUTPUT_TOOLS_QWEN_XML] = "\n",
		[OUTPUT_TOOLS_GEMMA4] = "",
		[OUTPUT_TOOLS_LLAMA3] = "; ",
	};
	gnode *alt, r;

	if (format == OUTPUT_TOOLS_MISTRAL)
		return mistral(b, tool, n, parallel);
	alt = calloc(n, sizeof(*alt));
	if (!alt) {
		gb_fail(b, -ENOMEM, "grammar: out of memory: free some");
		return 0;
	}
	for (size_t i = 0; i < n && !b->rc; i++) {
		uint32_t rule = gb_rule(b);

		gb_define(b, rule, call(b, format, &tool[i]));
		alt[i] = gb_call(b, rule);
	}
	r = b->rc ? 0 : gb_list(b, GN_ALT, alt, n);
	free(alt);
	if (format == OUTPUT_TOOLS_HARMONY) /* <|call|> ends the answer */
		return r;
	r = many(b, r, gb_lit(b, between[format]), parallel);
	if (format == OUTPUT_TOOLS_LLAMA3)
		return gb_seq(b, gb_opt(b, gb_mark(b, "<|python_tag|>")), r);
	/* what stands between reasoning and the call */
	return gb_seq(b, gb_rep(b, gb_lit(b, "\n"), 0, 2), r);
}

/* The tools that may be called; their number, or -errno. */
static int find_tools(struct tool *tool, const json_t *tools, const char *only, struct err *e)
{
	json_t *v;
	size_t i;
	int n = 0;

	json_array_foreach ((json_t *)tools, i, v) {
		const json_t *f = json_object_get(v, "function"), *p;
		const char *name;

		f = f ? f : v;
		name = json_string_value(json_object_get(f, "name"));
		p = json_object_get(f, "parameters");
		if (!name || !*name)
			return err_set(e, -EINVAL, "tools[%zu].function.name: not a name", i);
		if (only && strcmp(name, only))
			continue;
		tool[n] = (struct tool){name, json_is_null(p) ? NULL : p,
					json_is_true(json_object_get(f, "strict")), ""};
		snprintf(tool[n].where, sizeof(tool[n].where), "tools[%zu].function.parameters#",
			 i);
		n++;
	}
	if (!n && only)
		return err_set(e, -ENOENT, "tool_choice: there is no tool %.80s: name one of tools",
			       only);
	return n ? n : err_set(e, -EINVAL, "tools: there are none to call: give some");
}

int grammar_tools(struct grammar **out, enum output_tools format, const json_t *tools,
		  const char *only, bool parallel, struct err *e)
{
	struct tool *tool = calloc(json_array_size(tools) + 1, sizeof(*tool));
	struct gb b;
	uint32_t root;
	int n;

	*out = NULL;
	if (!tool)
		return err_set(e, -ENOMEM, "tools: out of memory: free some");
	n = find_tools(tool, tools, only, e);
	if (n > 0 && (format <= OUTPUT_TOOLS_NONE || format > OUTPUT_TOOLS_HARMONY))
		n = err_set(e, -EOPNOTSUPP,
			    "tools: this model's chat template has no form for calls: they cannot "
			    "be forced");
	if (n < 0) {
		free(tool);
		return n;
	}
	gb_init(&b, e);
	root = gb_rule(&b);
	gb_define(&b, root, calls(&b, format, tool, (size_t)n, parallel));
	free(tool);
	return gb_finish(&b, root, out);
}
