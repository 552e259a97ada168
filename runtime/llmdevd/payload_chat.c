// SPDX-License-Identifier: MIT
/* Messages and template variables to a prompt (payload_int.h). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "llmdevd/payload_int.h"

static int is_role(const char *role)
{
	static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};

	for (int i = 0; i < 5; i++) {
		if (!strcmp(role, roles[i]))
			return 1;
	}
	return 0;
}

static int check_content(const json_t *v, const char *path, size_t i, struct err *e)
{
	static const char *const types[] = {"text", "input_text", "output_text"};
	const json_t *part;
	size_t k;

	if (!v || json_is_string(v))
		return 0;
	if (!json_is_array(v))
		return err_set(e, -EINVAL, "%smessages[%zu].content: neither text nor a list", path,
			       i);
	json_array_foreach ((json_t *)v, k, part) {
		const char *type = json_string_value(json_object_get(part, "type"));
		bool known = false;

		if (!type)
			return err_set(
				e, -EINVAL,
				"%smessages[%zu].content[%zu].type: missing, or not a string", path,
				i, k);
		for (int t = 0; t < 3; t++)
			known |= !strcmp(type, types[t]);
		if (!known)
			return err_set(e, -EOPNOTSUPP,
				       "%smessages[%zu].content[%zu].type: `%.40s`: only parts of "
				       "type \"text\"",
				       path, i, k, type);
		if (!json_is_string(json_object_get(part, "text")))
			return err_set(e, -EINVAL,
				       "%smessages[%zu].content[%zu].text: not a string", path, i,
				       k);
	}
	return 0;
}

static int check_calls(const json_t *v, const char *path, size_t i, struct err *e)
{
	const json_t *call;
	size_t k;

	if (!v)
		return 0;
	if (!json_is_array(v))
		return err_set(e, -EINVAL, "%smessages[%zu].tool_calls: not a list", path, i);
	json_array_foreach ((json_t *)v, k, call) {
		const json_t *type = payload_member(call, "type");
		const json_t *f = json_object_get(call, "function"), *a, *id;

		if (type && !(json_is_string(type) && !strcmp(json_string_value(type), "function")))
			return err_set(e, -EOPNOTSUPP,
				       "%smessages[%zu].tool_calls[%zu].type: only function", path,
				       i, k);
		if (!json_is_string(json_object_get(f, "name")))
			return err_set(e, -EINVAL,
				       "%smessages[%zu].tool_calls[%zu].function.name: not a "
				       "string",
				       path, i, k);
		a = payload_member(f, "arguments");
		if (a && !json_is_string(a) && !json_is_object(a))
			return err_set(e, -EINVAL,
				       "%smessages[%zu].tool_calls[%zu].function.arguments: "
				       "neither text nor an object",
				       path, i, k);
		id = payload_member(call, "id");
		if (id && !json_is_string(id))
			return err_set(e, -EINVAL,
				       "%smessages[%zu].tool_calls[%zu].id: not a string", path, i,
				       k);
	}
	return 0;
}

static int check_message(const json_t *m, const char *path, size_t i, struct err *e)
{
	static const char *const texts[] = {"name", "tool_call_id", "reasoning_content",
					    "reasoning", "refusal"};
	const char *role = json_string_value(json_object_get(m, "role"));
	const json_t *content = payload_member(m, "content");
	int rc;

	if (!json_is_object(m))
		return err_set(e, -EINVAL, "%smessages[%zu]: not an object", path, i);
	if (!role || !is_role(role))
		return err_set(e, role && !strcmp(role, "function") ? -EOPNOTSUPP : -EINVAL,
			       "%smessages[%zu].role: `%.40s`: system, developer, user, assistant "
			       "or tool",
			       path, i, role ? role : "");
	if (!content && strcmp(role, "assistant") && strcmp(role, "tool"))
		return err_set(e, -EINVAL, "%smessages[%zu].content: missing", path, i);
	rc = check_content(content, path, i, e);
	for (int k = 0; k < 5 && !rc; k++) {
		const json_t *v = payload_member(m, texts[k]);

		if (v && !json_is_string(v))
			rc = err_set(e, -EINVAL, "%smessages[%zu].%s: not a string", path, i,
				     texts[k]);
	}
	if (!rc && payload_member(m, "tool_calls") && strcmp(role, "assistant"))
		rc = err_set(e, -EINVAL, "%smessages[%zu].tool_calls: only of an assistant", path,
			     i);
	if (!rc && payload_member(m, "function_call"))
		rc = err_set(e, -EOPNOTSUPP,
			     "%smessages[%zu].function_call: not supported: use tool_calls", path,
			     i);
	return rc ? rc : check_calls(payload_member(m, "tool_calls"), path, i, e);
}

static int check_messages(const json_t *list, const char *path, struct err *e)
{
	const json_t *m;
	size_t i;
	int rc;

	if (!json_is_array(list) || !json_array_size(list))
		return err_set(e, -EINVAL, "%smessages: not a list of at least one message", path);
	json_array_foreach ((json_t *)list, i, m) {
		rc = check_message(m, path, i, e);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- template variables --------------------------------------------------------------------------- */

static int add_kwargs(const json_t *v, const char *path, json_t *vars, struct err *e)
{
	static const char *const ours[] = {"messages", "tools", "add_generation_prompt"};
	const json_t *x;
	const char *key;

	if (!v)
		return 0;
	if (!json_is_object(v))
		return err_set(e, -EINVAL, "%schat_template_kwargs: not an object", path);
	if (json_object_size(v) > PAYLOAD_VARS_MAX)
		return err_set(e, -E2BIG, "%schat_template_kwargs: %zu members: at most %d", path,
			       json_object_size(v), PAYLOAD_VARS_MAX);
	json_object_foreach ((json_t *)v, key, x) {
		for (int i = 0; i < 3; i++) {
			if (!strcmp(key, ours[i]))
				return err_set(e, -EINVAL,
					       "%schat_template_kwargs.%s: a member of the request "
					       "says that",
					       path, key);
		}
		if (json_object_set(vars, key, (json_t *)x))
			return err_set(e, -ENOMEM, "chat_template_kwargs: no memory");
	}
	return 0;
}

/* Two words for the same switch are in use among templates; the explicit one goes first. */
static int set_thinking(json_t *vars, bool on)
{
	static const char *const names[] = {"enable_thinking", "thinking"};

	for (int i = 0; i < 2; i++) {
		if (json_object_get(vars, names[i]))
			return 0;
	}
	return json_object_set_new(vars, names[0], json_boolean(on)) ||
	       json_object_set_new(vars, names[1], json_boolean(on));
}

static int read_variables(const json_t *o, const char *path, json_t *vars, struct err *e)
{
	const json_t *v = payload_member(o, "enable_thinking");
	const char *effort;
	int rc = add_kwargs(payload_member(o, "chat_template_kwargs"), path, vars, e);

	if (!rc && v && !json_is_boolean(v))
		rc = err_set(e, -EINVAL, "%senable_thinking: neither true nor false", path);
	if (!rc && v && set_thinking(vars, json_is_true(v)))
		rc = err_set(e, -ENOMEM, "request: no memory");
	v = payload_member(o, "reasoning_effort");
	if (rc || !v)
		return rc;
	effort = json_string_value(v);
	if (!effort || !*effort || strlen(effort) > 32)
		return err_set(e, -EINVAL, "%sreasoning_effort: not a word like low or high", path);
	if (set_thinking(vars, strcmp(effort, "none")) ||
	    (strcmp(effort, "none") && !json_object_get(vars, "reasoning_effort") &&
	     json_object_set(vars, "reasoning_effort", (json_t *)v)))
		return err_set(e, -ENOMEM, "request: no memory");
	return 0;
}

static int read_budget(struct payload *p, const json_t *o, struct err *e)
{
	json_int_t n;
	bool found;
	int rc = 0;

	for (int i = 0; i < 2 && !rc; i++) {
		rc = payload_int(o, i ? "thinking_token_budget" : "thinking_budget", 0, INT32_MAX,
				 &n, &found, e);
		if (!rc && found)
			p->thinking_budget = (int)n;
	}
	return rc;
}

static int read_end(const json_t *o, struct chat_request *r, const char *path, struct err *e)
{
	const json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);
	bool head = true;
	int rc;

	rc = payload_bool(o, "continue_final_message", &r->continue_final, e);
	head = !r->continue_final;
	if (!rc)
		rc = payload_bool(o, "add_generation_prompt", &head, e);
	if (!rc && head && r->continue_final)
		rc = err_set(e, -EINVAL,
			     "%scontinue_final_message: not together with add_generation_prompt",
			     path);
	if (!rc && r->continue_final &&
	    strcmp(json_string_value(json_object_get(last, "role")), "assistant"))
		rc = err_set(e, -EINVAL,
			     "%scontinue_final_message: the last message is not the assistant's",
			     path);
	if (!rc && r->continue_final && !json_is_string(json_object_get(last, "content")))
		rc = err_set(e, -EINVAL,
			     "%scontinue_final_message: the last message's content is no text",
			     path);
	r->no_generation_prompt = !head;
	return rc;
}

int payload_messages(struct payload *p, const json_t *o, const struct payload_env *env,
		     const char *path, struct err *e)
{
	struct chat_request r = {.messages = payload_member(o, "messages"), .now = env->now};
	json_t *vars = json_object(), *tools = NULL;
	int rc = vars ? check_messages(r.messages, path, e)
		      : err_set(e, -ENOMEM, "request: no memory");

	if (!rc && chat_unusable(env->chat))
		rc = err_set(e, -EOPNOTSUPP, "%s%s", path, chat_unusable(env->chat));
	if (!rc)
		rc = payload_tools(p, o, env, &tools, e);
	if (!rc)
		rc = read_variables(o, path, vars, e);
	if (!rc)
		rc = read_budget(p, o, e);
	if (!rc)
		rc = read_end(o, &r, path, e);
	if (!rc) {
		r.tools = tools;
		r.vars = json_object_size(vars) ? vars : NULL;
		rc = conversation_start(env->conversation, &r, &p->prompt, e);
		/* What the template says of messages is about messages. */
		if (rc == -EINVAL && strncmp(e->msg, "continue_final", 14))
			err_prefix(e, rc, "%smessages", path);
	}
	json_decref(vars);
	return rc;
}
