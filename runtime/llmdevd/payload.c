// SPDX-License-Identifier: MIT
/* A SUBMIT's payload to a prompt and settings. Owns nothing beyond the call; see payload.h. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llm.h"
#include "llmdevd/payload.h"

/* NULL for a member that is absent or null. */
static const json_t *member(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return v && !json_is_null(v) ? v : NULL;
}

static int get_number(const json_t *o, const char *key, double lo, double hi, float *out,
		      struct err *e)
{
	const json_t *v = member(o, key);
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

/* *found tells whether the member is there. */
static int get_int(const json_t *o, const char *key, json_int_t lo, json_int_t hi, json_int_t *out,
		   bool *found, struct err *e)
{
	const json_t *v = member(o, key);

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

/* Members that ask for something else than plain text; silently ignoring them would be a lie. */
static int refuse_unsupported(const json_t *o, struct err *e)
{
	static const char *const never[] = {
		"functions",
		"function_call",
		"suffix",
		"grammar",
		"guided_json",
		"guided_regex",
		"guided_choice",
		"guided_grammar",
		"structured_outputs",
		"json_schema",
		"audio",
		"chat_template",
		"chat_template_kwargs",
		"prompt_embeds",
		"min_tokens",
		"stop_token_ids",
		"bad_words",
		"continue_final_message",
		"documents",
	};
	const json_t *v;

	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
		v = member(o, never[i]);
		if (v && !(json_is_array(v) && !json_array_size(v)) && !json_is_false(v))
			return err_set(e, -EOPNOTSUPP, "%s: not supported: leave it out", never[i]);
	}
	v = member(o, "tools");
	if (v && !(json_is_array(v) && !json_array_size(v)))
		return err_set(e, -EOPNOTSUPP, "tools: not supported: leave them out");
	v = member(o, "tool_choice");
	if (v && !(json_is_string(v) && (!strcmp(json_string_value(v), "none") ||
					 !strcmp(json_string_value(v), "auto"))))
		return err_set(e, -EOPNOTSUPP, "tool_choice: not supported: leave it out");
	v = member(o, "response_format");
	if (v && !(json_is_object(v) && json_is_string(json_object_get(v, "type")) &&
		   !strcmp(json_string_value(json_object_get(v, "type")), "text")))
		return err_set(e, -EOPNOTSUPP, "response_format: only {\"type\":\"text\"}");
	v = member(o, "modalities");
	if (v &&
	    !(json_is_array(v) && json_array_size(v) == 1 && json_is_string(json_array_get(v, 0)) &&
	      !strcmp(json_string_value(json_array_get(v, 0)), "text")))
		return err_set(e, -EOPNOTSUPP, "modalities: only [\"text\"]");
	v = member(o, "logit_bias");
	if (v && !(json_is_object(v) && !json_object_size(v)))
		return err_set(e, -EOPNOTSUPP, "logit_bias: not supported: leave it out");
	v = member(o, "logprobs");
	if (v && !json_is_false(v) && !(json_is_integer(v) && !json_integer_value(v)))
		return err_set(e, -EOPNOTSUPP, "logprobs: not supported: leave them out");
	v = member(o, "top_logprobs");
	if (v && !(json_is_integer(v) && !json_integer_value(v)))
		return err_set(e, -EOPNOTSUPP, "top_logprobs: not supported: leave them out");
	v = member(o, "echo");
	if (v && !json_is_false(v))
		return err_set(e, -EOPNOTSUPP, "echo: not supported: leave it out");
	for (int i = 0; i < 2; i++) {
		const char *key = i ? "best_of" : "n";

		v = member(o, key);
		if (v && !(json_is_integer(v) && json_integer_value(v) == 1))
			return err_set(e, -EOPNOTSUPP, "%s: only 1: send several requests", key);
	}
	return 0;
}

static int add_stop(struct payload *p, const json_t *v, struct err *e)
{
	size_t len = json_string_length(v);
	char **q;

	if (!json_is_string(v))
		return err_set(e, -EINVAL, "stop: neither a string nor a list of strings");
	if (!len)
		return err_set(e, -EINVAL, "stop: an empty string would stop everything");
	if (len > PAYLOAD_STOP_BYTES_MAX || p->n_stop == PAYLOAD_STOP_MAX)
		return err_set(e, -EINVAL, "stop: at most %d strings of %d bytes", PAYLOAD_STOP_MAX,
			       PAYLOAD_STOP_BYTES_MAX);
	q = realloc(p->stop, (size_t)(p->n_stop + 1) * sizeof(*q));
	if (!q)
		return err_set(e, -ENOMEM, "stop: no memory");
	p->stop = q;
	q[p->n_stop] = strdup(json_string_value(v));
	if (!q[p->n_stop])
		return err_set(e, -ENOMEM, "stop: no memory");
	p->n_stop++;
	return 0;
}

static int read_settings(struct payload *p, const json_t *o, struct err *e)
{
	struct sampling *s = &p->sampling;
	const json_t *v;
	json_int_t n;
	bool found;
	int rc;

	if ((rc = get_number(o, "temperature", 0, 100, &s->temperature, e)) ||
	    (rc = get_number(o, "top_p", 0, 1, &s->top_p, e)) ||
	    (rc = get_number(o, "min_p", 0, 1, &s->min_p, e)) ||
	    (rc = get_number(o, "presence_penalty", -2, 2, &s->presence_penalty, e)) ||
	    (rc = get_number(o, "frequency_penalty", -2, 2, &s->frequency_penalty, e)) ||
	    (rc = get_number(o, "repetition_penalty", 0.01, 100, &s->repeat_penalty, e)))
		return rc;
	rc = get_int(o, "top_k", -1, INT32_MAX, &n, &found, e);
	if (rc)
		return rc;
	if (found)
		s->top_k = n < 0 ? 0 : (int)n; /* -1 is vLLM's way to say "off" */
	rc = get_int(o, "seed", INT64_MIN, INT64_MAX, &n, &p->seeded, e);
	if (rc)
		return rc;
	if (p->seeded)
		s->seed = (uint64_t)n;
	for (int i = 0; i < 2; i++) {
		rc = get_int(o, i ? "max_completion_tokens" : "max_tokens", 1, INT32_MAX, &n,
			     &found, e);
		if (rc)
			return rc;
		if (found)
			p->max_tokens = (int)n;
	}
	v = member(o, "ignore_eos");
	if (v && !json_is_boolean(v))
		return err_set(e, -EINVAL, "ignore_eos: neither true nor false");
	if (v)
		s->ignore_eos = json_is_true(v);
	v = member(o, "stop");
	if (json_is_array(v)) {
		const json_t *item;
		size_t i;

		json_array_foreach (v, i, item) {
			rc = add_stop(p, item, e);
			if (rc)
				return rc;
		}
	} else if (v) {
		return add_stop(p, v, e);
	}
	return 0;
}

/* A message's content: a string, or a list of {"type":"text","text":...} put together. */
static int read_content(const json_t *v, size_t index, char **text, size_t *len, struct err *e)
{
	const json_t *part;
	size_t i, n = 0;

	*text = NULL;
	*len = 0;
	if (!v)
		return 0;
	if (json_is_string(v)) {
		n = json_string_length(v);
		*text = malloc(n + 1);
		if (!*text)
			return err_set(e, -ENOMEM, "messages[%zu].content: no memory", index);
		memcpy(*text, json_string_value(v), n + 1);
		*len = n;
		return 0;
	}
	if (!json_is_array(v))
		return err_set(e, -EINVAL, "messages[%zu].content: neither text nor a list", index);
	json_array_foreach (v, i, part) {
		const json_t *type = json_object_get(part, "type");

		if (!json_is_string(type) || strcmp(json_string_value(type), "text") ||
		    !json_is_string(json_object_get(part, "text")))
			return err_set(e, -EOPNOTSUPP,
				       "messages[%zu].content[%zu]: only parts of type \"text\"",
				       index, i);
		n += json_string_length(json_object_get(part, "text"));
	}
	*text = malloc(n + 1);
	if (!*text)
		return err_set(e, -ENOMEM, "messages[%zu].content: no memory", index);
	json_array_foreach (v, i, part) {
		const json_t *t = json_object_get(part, "text");

		memcpy(*text + *len, json_string_value(t), json_string_length(t));
		*len += json_string_length(t);
	}
	(*text)[n] = '\0';
	return 0;
}

static int read_messages(struct payload *p, const json_t *list, const struct conversation *c,
			 struct err *e)
{
	size_t n = json_array_size(list), i;
	struct chat_msg *msgs;
	const json_t *item;
	int rc = 0;

	if (!json_is_array(list) || !n)
		return err_set(e, -EINVAL, "messages: not a list of at least one message");
	msgs = calloc(n, sizeof(*msgs));
	if (!msgs)
		return err_set(e, -ENOMEM, "messages: no memory for %zu", n);
	json_array_foreach (list, i, item) {
		const char *role = json_string_value(json_object_get(item, "role"));
		char *text;

		if (!role || (strcmp(role, "system") && strcmp(role, "developer") &&
			      strcmp(role, "user") && strcmp(role, "assistant"))) {
			rc = err_set(e, role ? -EOPNOTSUPP : -EINVAL,
				     "messages[%zu].role: `%s`: system, user or assistant", i,
				     role ? role : "");
			break;
		}
		if (member(item, "tool_calls")) {
			rc = err_set(e, -EOPNOTSUPP, "messages[%zu].tool_calls: not supported", i);
			break;
		}
		rc = read_content(member(item, "content"), i, &text, &msgs[i].len, e);
		if (rc) {
			free(text);
			break;
		}
		msgs[i].content = text ? text : strdup("");
		msgs[i].role = strcmp(role, "developer") ? role : "system";
		if (!msgs[i].content) {
			rc = err_set(e, -ENOMEM, "messages: no memory");
			break;
		}
	}
	if (!rc)
		rc = conversation_start(c, msgs, (int)n, &p->prompt, e);
	for (i = 0; i < n; i++)
		free((char *)msgs[i].content);
	free(msgs);
	return rc;
}

static int read_prompt(struct payload *p, const json_t *v, const struct conversation *c,
		       int n_vocab, struct err *e)
{
	const json_t *item;
	size_t i;

	if (json_is_array(v) && json_array_size(v) == 1 &&
	    (json_is_string(json_array_get(v, 0)) || json_is_array(json_array_get(v, 0))))
		v = json_array_get(v, 0); /* a batch of one */
	if (json_is_string(v)) {
		if (!c->t)
			return err_set(e, -EOPNOTSUPP,
				       "prompt: the model has no tokenizer: send token ids");
		return tokenizer_encode(c->t, json_string_value(v), json_string_length(v), TOK_BOS,
					&p->prompt, e);
	}
	if (!json_is_array(v) || !json_array_size(v))
		return err_set(e, -EINVAL, "prompt: neither text nor a list of token ids");
	json_array_foreach (v, i, item) {
		json_int_t id = json_integer_value(item);

		if (!json_is_integer(item))
			return err_set(e, json_is_string(item) ? -EOPNOTSUPP : -EINVAL,
				       "prompt[%zu]: not a token id: send one prompt a request", i);
		if (id < 0 || id >= n_vocab)
			return err_set(e, -EINVAL, "prompt[%zu]: %lld: token ids end at %d", i,
				       (long long)id, n_vocab - 1);
		if (ids_push(&p->prompt, (int32_t)id))
			return err_set(e, -ENOMEM, "prompt: no memory");
	}
	return 0;
}

static int read_json(struct payload *p, const char *bytes, size_t len, const struct conversation *c,
		     int n_vocab, struct err *e)
{
	const json_t *messages, *prompt;
	json_error_t je;
	json_t *o;
	int rc;

	o = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &je);
	if (!o)
		return err_set(e, -EINVAL, "request: bad JSON at byte %d: %s", je.position,
			       je.text);
	messages = member(o, "messages");
	prompt = member(o, "prompt");
	if (!json_is_object(o) || !messages == !prompt)
		rc = err_set(e, -EINVAL,
			     "request: one JSON object with either \"messages\" or \"prompt\"");
	else if ((rc = refuse_unsupported(o, e)) || (rc = read_settings(p, o, e)))
		;
	else if (messages)
		rc = read_messages(p, messages, c, e);
	else
		rc = read_prompt(p, prompt, c, n_vocab, e);
	p->kind = messages ? PAYLOAD_MESSAGES : PAYLOAD_PROMPT;
	json_decref(o);
	return rc;
}

int payload_read(struct payload *p, uint32_t format, const char *bytes, size_t len,
		 const struct conversation *c, const struct sampling *defaults, int n_vocab,
		 struct err *e)
{
	int rc;

	memset(p, 0, sizeof(*p));
	p->sampling = *defaults;
	if (format == LLM_FMT_TEXT)
		rc = conversation_turn(c, bytes, len, &p->prompt, e);
	else if (format == LLM_FMT_JSON)
		rc = read_json(p, bytes, len, c, n_vocab, e);
	else
		rc = err_set(e, -EOPNOTSUPP, "format: %u: unknown", format);
	if (!rc && !p->prompt.n)
		rc = err_set(e, -EINVAL, "prompt: empty: nothing to answer");
	if (rc)
		payload_free(p);
	return rc;
}

void payload_free(struct payload *p)
{
	ids_free(&p->prompt);
	for (int i = 0; i < p->n_stop; i++)
		free(p->stop[i]);
	free(p->stop);
	memset(p, 0, sizeof(*p));
}
