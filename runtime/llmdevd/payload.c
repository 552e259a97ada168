// SPDX-License-Identifier: MIT
/* A SUBMIT's payload: which kind of request it is. Owns nothing beyond the call; see payload.h. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "llm.h"
#include "llmdevd/payload_int.h"

const json_t *payload_member(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return v && !json_is_null(v) ? v : NULL;
}

int payload_number(const json_t *o, const char *key, double lo, double hi, float *out,
		   struct err *e)
{
	const json_t *v = payload_member(o, key);
	double x;

	if (!v)
		return 0;
	if (!json_is_number(v))
		return err_set(e, -EINVAL, "%s: not a number", key);
	x = json_number_value(v);
	if (!(x >= lo && x <= hi))
		return err_set(e, -EINVAL, "%s: %g: from %g to %g", key, x, lo, hi);
	*out = (float)x;
	return 0;
}

int payload_int(const json_t *o, const char *key, json_int_t lo, json_int_t hi, json_int_t *out,
		bool *found, struct err *e)
{
	const json_t *v = payload_member(o, key);

	*found = v != NULL;
	if (!v)
		return 0;
	if (!json_is_integer(v))
		return err_set(e, -EINVAL, "%s: not a whole number", key);
	*out = json_integer_value(v);
	if (*out < lo || *out > hi)
		return err_set(e, -EINVAL, "%s: %lld: from %lld to %lld", key, (long long)*out,
			       (long long)lo, (long long)hi);
	return 0;
}

int payload_bool(const json_t *o, const char *key, bool *out, struct err *e)
{
	const json_t *v = payload_member(o, key);

	if (!v)
		return 0;
	if (!json_is_boolean(v))
		return err_set(e, -EINVAL, "%s: neither true nor false", key);
	*out = json_is_true(v);
	return 0;
}

/* An absence in other words. */
static bool says_nothing(const json_t *v)
{
	return json_is_false(v) || (json_is_array(v) && !json_array_size(v)) ||
	       (json_is_object(v) && !json_object_size(v)) ||
	       (json_is_integer(v) && !json_integer_value(v)) ||
	       (json_is_string(v) && !json_string_length(v));
}

/* Members that ask for something else than is done; silently ignoring them would be a lie. */
static int refuse_unsupported(const json_t *o, bool chat, struct err *e)
{
	static const char *const never[] = {
		"functions", "function_call",	  "suffix",	   "grammar",	"json_schema",
		"audio",     "chat_template",	  "prompt_embeds", "documents", "stop_token_ids",
		"bad_words", "allowed_token_ids", "echo",
	};
	static const char *const chat_only[] = {
		"tools",
		"tool_choice",
		"reasoning_effort",
		"chat_template_kwargs",
		"continue_final_message",
		"thinking_budget",
	};
	const json_t *v;

	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
		v = payload_member(o, never[i]);
		if (v && !says_nothing(v))
			return err_set(e, -EOPNOTSUPP, "%s: not supported: leave it out", never[i]);
	}
	for (size_t i = 0; !chat && i < sizeof(chat_only) / sizeof(chat_only[0]); i++) {
		v = payload_member(o, chat_only[i]);
		if (v && !says_nothing(v))
			return err_set(e, -EOPNOTSUPP, "%s: only with \"messages\"", chat_only[i]);
	}
	/* Asked for with all of it left to the service. */
	if (payload_member(o, "web_search_options"))
		return err_set(e, -EOPNOTSUPP, "web_search_options: not supported: leave it out");
	v = payload_member(o, "modalities");
	if (v &&
	    !(json_is_array(v) && json_array_size(v) == 1 && json_is_string(json_array_get(v, 0)) &&
	      !strcmp(json_string_value(json_array_get(v, 0)), "text")))
		return err_set(e, -EOPNOTSUPP, "modalities: only [\"text\"]");
	for (int i = 0; i < 2; i++) {
		const char *key = i ? "best_of" : "n";

		v = payload_member(o, key);
		if (v && !(json_is_integer(v) && json_integer_value(v) == 1))
			return err_set(e, -EOPNOTSUPP, "%s: only 1: send several requests", key);
	}
	return 0;
}

static int read_generation(struct payload *p, const json_t *o, const struct payload_env *env,
			   struct err *e)
{
	const json_t *prompt = payload_member(o, "prompt");
	bool chat = !prompt;
	int rc = refuse_unsupported(o, chat, e);

	p->kind = chat ? PAYLOAD_MESSAGES : PAYLOAD_PROMPT;
	if (!rc)
		rc = payload_settings(p, o, env, chat, e);
	if (!rc)
		rc = payload_structured(p, o, e);
	if (rc)
		return rc;
	return chat ? payload_messages(p, o, env, "", e)
		    : payload_prompt(p, prompt, "prompt", env, e);
}

static int read_json(struct payload *p, const char *bytes, size_t len,
		     const struct payload_env *env, struct err *e)
{
	static const char *const kinds[] = {"messages", "prompt", "input", "tokenize",
					    "detokenize"};
	int n = 0, kind = 0, rc;
	json_error_t je;
	json_t *o;

	o = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &je);
	if (!o)
		return err_set(e, -EINVAL, "request: bad JSON at byte %d: %s", je.position,
			       je.text);
	for (int i = 0; i < 5; i++) {
		if (payload_member(o, kinds[i])) {
			kind = i;
			n++;
		}
	}
	if (!json_is_object(o) || n != 1)
		rc = err_set(e, -EINVAL,
			     "request: one JSON object with either \"messages\" or \"prompt\", "
			     "\"input\", \"tokenize\" or \"detokenize\"");
	else if (kind < 2)
		rc = read_generation(p, o, env, e);
	else if (kind == 2)
		rc = payload_embed(p, o, env, e);
	else if (kind == 3)
		rc = payload_tokenize(p, payload_member(o, kinds[kind]), env, e);
	else
		rc = payload_detokenize(p, payload_member(o, kinds[kind]), env, e);
	json_decref(o);
	return rc;
}

int payload_read(struct payload *p, uint32_t format, const char *bytes, size_t len,
		 const struct payload_env *env, struct err *e)
{
	int rc;

	memset(p, 0, sizeof(*p));
	p->sampling = *env->sampling;
	p->n_logprobs = p->thinking_budget = -1;
	if (format == LLM_FMT_TEXT)
		rc = conversation_turn(env->conversation, bytes, len, env->now, &p->prompt, e);
	else if (format == LLM_FMT_JSON)
		rc = read_json(p, bytes, len, env, e);
	else
		rc = err_set(e, -EOPNOTSUPP, "format: %u: unknown", format);
	/* Tools of the conversation may be called in its later turns too. */
	if (!rc && p->kind == PAYLOAD_TURN)
		p->tools = json_incref(p->prompt.tools);
	if (!rc && p->kind != PAYLOAD_RESULT && !p->prompt.ids.n)
		rc = err_set(e, -EINVAL, "prompt: empty: nothing to answer");
	if (rc)
		payload_free(p);
	return rc;
}

void payload_free(struct payload *p)
{
	conversation_prompt_free(&p->prompt);
	for (int i = 0; i < p->n_stop; i++)
		free(p->stop[i]);
	free(p->stop);
	free(p->bias);
	constraint_spec_free(&p->constraint);
	json_decref(p->tools);
	free(p->result);
	memset(p, 0, sizeof(*p));
}
