// SPDX-License-Identifier: MIT
/* tools, tool_choice, parallel_tool_calls (payload_int.h). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "llmdevd/payload_int.h"

static bool name_ok(const json_t *v)
{
	const char *s = json_string_value(v);
	size_t n = json_string_length(v);

	if (!n || n > PAYLOAD_NAME_MAX)
		return false;
	for (; *s; s++) {
		if ((unsigned char)*s <= ' ' || *s == 0x7f)
			return false;
	}
	return true;
}

static int check_tool(const json_t *tool, size_t i, struct err *e)
{
	const char *type = json_string_value(json_object_get(tool, "type"));
	const json_t *f = payload_member(tool, "function"), *v;

	if (!json_is_object(tool))
		return err_set(e, -EINVAL, "tools[%zu]: not an object", i);
	if (!type)
		return err_set(e, -EINVAL, "tools[%zu].type: missing, or not a string", i);
	if (strcmp(type, "function"))
		return err_set(e, -EOPNOTSUPP, "tools[%zu].type: `%.40s`: only function", i, type);
	if (!json_is_object(f))
		return err_set(e, -EINVAL, "tools[%zu].function: missing, or no object", i);
	v = payload_member(f, "name");
	if (!json_is_string(v))
		return err_set(e, -EINVAL, "tools[%zu].function.name: not a string", i);
	if (!name_ok(v))
		return err_set(e, -EINVAL,
			       "tools[%zu].function.name: 1 to %d bytes, without blanks", i,
			       PAYLOAD_NAME_MAX);
	v = payload_member(f, "description");
	if (v && !json_is_string(v))
		return err_set(e, -EINVAL, "tools[%zu].function.description: not a string", i);
	v = payload_member(f, "parameters");
	if (v && !json_is_object(v))
		return err_set(e, -EINVAL, "tools[%zu].function.parameters: not a JSON schema", i);
	v = payload_member(f, "strict");
	if (v && !json_is_boolean(v))
		return err_set(e, -EINVAL, "tools[%zu].function.strict: neither true nor false", i);
	return 0;
}

static const json_t *find_tool(const json_t *tools, const char *name)
{
	const json_t *tool;
	size_t i;

	json_array_foreach ((json_t *)tools, i, tool) {
		const json_t *f = json_object_get(tool, "function");

		if (!strcmp(json_string_value(json_object_get(f, "name")), name))
			return tool;
	}
	return NULL;
}

enum choice { CHOICE_AUTO, CHOICE_NONE, CHOICE_REQUIRED, CHOICE_NAMED };

static int read_choice(const json_t *v, const json_t *tools, enum choice *choice, const char **name,
		       struct err *e)
{
	const char *s = json_string_value(v);

	*choice = json_array_size(tools) ? CHOICE_AUTO : CHOICE_NONE;
	if (!v)
		return 0;
	if (s && !strcmp(s, "auto"))
		return 0;
	*choice = CHOICE_NONE;
	if (s && !strcmp(s, "none"))
		return 0;
	if (s && !strcmp(s, "required")) {
		*choice = CHOICE_REQUIRED;
	} else if (s) {
		return err_set(e, -EINVAL,
			       "tool_choice: `%.40s`: auto, none, required or a function", s);
	} else {
		const char *type = json_string_value(json_object_get(v, "type"));

		if (!type || strcmp(type, "function"))
			return err_set(e, type ? -EOPNOTSUPP : -EINVAL,
				       "tool_choice.type: only function");
		*name = json_string_value(json_object_get(json_object_get(v, "function"), "name"));
		if (!*name)
			return err_set(e, -EINVAL, "tool_choice.function.name: not a string");
		if (!find_tool(tools, *name))
			return err_set(e, -EINVAL,
				       "tool_choice.function.name: `%.80s`: none of the tools",
				       *name);
		*choice = CHOICE_NAMED;
	}
	if (!json_array_size(tools))
		return err_set(e, -EINVAL, "tool_choice: only with \"tools\"");
	return 0;
}

/* The tools with the schemas of those only that are strict; *strict: there are any. */
static json_t *strict_tools(const json_t *tools, bool *strict)
{
	json_t *out = json_array();
	const json_t *tool;
	size_t i;

	*strict = false;
	json_array_foreach ((json_t *)tools, i, tool) {
		const json_t *f = json_object_get(tool, "function");
		bool is = json_is_true(json_object_get(f, "strict"));
		json_t *any = json_pack("{s:s,s:{s:O}}", "type", "function", "function", "name",
					json_object_get(f, "name"));

		*strict |= is;
		if (!any || json_array_append(out, is ? (json_t *)tool : any)) {
			json_decref(any);
			json_decref(out);
			return NULL;
		}
		json_decref(any);
	}
	return out;
}

static int hold(struct payload *p, enum choice choice, const char *name, bool parallel,
		struct err *e)
{
	struct constraint_spec *s = &p->constraint;
	json_t *tools;
	bool strict;

	if (choice == CHOICE_REQUIRED || choice == CHOICE_NAMED) {
		if (s->kind != CONSTRAINT_NONE)
			return err_set(e, -EINVAL,
				       "tool_choice: the content is held to %s: use \"auto\"",
				       s->path);
		*s = (struct constraint_spec){.kind = CONSTRAINT_TOOLS,
					      .json = json_incref(p->tools),
					      .only = name ? strdup(name) : NULL,
					      .parallel = parallel && !name};
		strcpy(s->path, "tools");
		return name && !s->only ? err_set(e, -ENOMEM, "tools: no memory") : 0;
	}
	/* The content's own constraint goes first. */
	if (s->kind != CONSTRAINT_NONE)
		return 0;
	tools = strict_tools(p->tools, &strict);
	if (!tools)
		return err_set(e, -ENOMEM, "tools: no memory");
	if (!strict) {
		json_decref(tools);
		return 0;
	}
	*s = (struct constraint_spec){.kind = CONSTRAINT_STRICT,
				      .json = tools,
				      .parallel = parallel};
	strcpy(s->path, "tools");
	return 0;
}

int payload_tools(struct payload *p, const json_t *o, const struct payload_env *env, json_t **shown,
		  struct err *e)
{
	const json_t *tools = payload_member(o, "tools"), *tool;
	enum output_tools format = chat_output(env->chat).tools;
	bool parallel = true;
	const char *name = NULL;
	enum choice choice;
	size_t i;
	int rc;

	*shown = NULL;
	if (tools && !json_is_array(tools))
		return err_set(e, -EINVAL, "tools: not a list");
	if (json_array_size(tools) > PAYLOAD_TOOLS_MAX)
		return err_set(e, -E2BIG, "tools: %zu: at most %d", json_array_size(tools),
			       PAYLOAD_TOOLS_MAX);
	json_array_foreach ((json_t *)tools, i, tool) {
		rc = check_tool(tool, i, e);
		if (rc)
			return rc;
	}
	rc = payload_bool(o, "parallel_tool_calls", &parallel, e);
	if (!rc)
		rc = read_choice(payload_member(o, "tool_choice"), tools, &choice, &name, e);
	if (rc || choice == CHOICE_NONE)
		return rc;
	if (!chat_takes_tools(env->chat))
		return err_set(e, -EOPNOTSUPP,
			       "tools: this model's chat template has no place for them: leave "
			       "them out, or give the daemon another with --chat-template");
	if (format == OUTPUT_TOOLS_NONE && choice != CHOICE_AUTO)
		return err_set(e, -EOPNOTSUPP,
			       "tool_choice: how this model writes calls is not known: use "
			       "\"auto\", or give the daemon --tool-parser");
	*shown = (json_t *)tools;
	if (format == OUTPUT_TOOLS_NONE)
		return 0;
	p->tools = json_incref((json_t *)tools);
	p->one_call = !parallel || name;
	return hold(p, choice, name, parallel, e);
}
