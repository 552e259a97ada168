// SPDX-License-Identifier: MIT
/* How tokens are chosen, what ends an answer, what is told of its tokens (payload_int.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llmdevd/payload_int.h"

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

static int read_stop(struct payload *p, const json_t *v, struct err *e)
{
	const json_t *item;
	size_t i;
	int rc;

	if (!v)
		return 0;
	if (!json_is_array(v))
		return add_stop(p, v, e);
	json_array_foreach ((json_t *)v, i, item) {
		rc = add_stop(p, item, e);
		if (rc)
			return rc;
	}
	return 0;
}

static int read_bias(struct payload *p, const json_t *o, int n_vocab, struct err *e)
{
	const json_t *v = payload_member(o, "logit_bias"), *x;
	const char *key;

	if (!v)
		return 0;
	if (!json_is_object(v))
		return err_set(e, -EINVAL, "logit_bias: not an object of token ids");
	if (json_object_size(v) > PAYLOAD_BIAS_MAX)
		return err_set(e, -E2BIG, "logit_bias: %zu ids: at most %d", json_object_size(v),
			       PAYLOAD_BIAS_MAX);
	p->bias = calloc(json_object_size(v) + 1, sizeof(*p->bias));
	if (!p->bias)
		return err_set(e, -ENOMEM, "logit_bias: no memory");
	json_object_foreach ((json_t *)v, key, x) {
		char *end;
		long id = strtol(key, &end, 10);

		if (*key < '0' || *key > '9' || *end || id >= n_vocab)
			return err_set(e, -EINVAL, "logit_bias.%.40s: not a token id from 0 to %d",
				       key, n_vocab - 1);
		if (!json_is_number(x) || !(json_number_value(x) >= -100) ||
		    json_number_value(x) > 100)
			return err_set(e, -EINVAL,
				       "logit_bias.%.40s: not a number from -100 to 100", key);
		p->bias[p->n_bias++] =
			(struct logit_bias){(int32_t)id, (float)json_number_value(x)};
	}
	return 0;
}

static int read_logprobs(struct payload *p, const json_t *o, bool chat, struct err *e)
{
	const json_t *v = payload_member(o, "logprobs");
	json_int_t top = 0;
	bool found;
	int rc;

	/* A chat completion says whether, and how many with another member. */
	if (!chat) {
		if (v && json_is_false(v))
			return 0;
		rc = payload_int(o, "logprobs", 0, ENGINE_MAX_LOGPROBS, &top, &found, e);
		if (!rc && found)
			p->n_logprobs = (int)top;
		return rc;
	}
	if (v && !json_is_boolean(v))
		return err_set(e, -EINVAL, "logprobs: neither true nor false");
	rc = payload_int(o, "top_logprobs", 0, ENGINE_MAX_LOGPROBS, &top, &found, e);
	if (rc)
		return rc;
	if (found && top && !json_is_true(v))
		return err_set(e, -EINVAL, "top_logprobs: only with \"logprobs\": true");
	if (json_is_true(v))
		p->n_logprobs = (int)top;
	return 0;
}

int payload_settings(struct payload *p, const json_t *o, const struct payload_env *env, bool chat,
		     struct err *e)
{
	struct sampling *s = &p->sampling;
	json_int_t n;
	bool found;
	int rc;

	if ((rc = payload_number(o, "temperature", 0, 100, &s->temperature, e)) ||
	    (rc = payload_number(o, "top_p", 0, 1, &s->top_p, e)) ||
	    (rc = payload_number(o, "min_p", 0, 1, &s->min_p, e)) ||
	    (rc = payload_number(o, "presence_penalty", -2, 2, &s->presence_penalty, e)) ||
	    (rc = payload_number(o, "frequency_penalty", -2, 2, &s->frequency_penalty, e)) ||
	    (rc = payload_number(o, "repetition_penalty", 0.01, 100, &s->repeat_penalty, e)))
		return rc;
	rc = payload_int(o, "top_k", -1, INT32_MAX, &n, &found, e);
	if (rc)
		return rc;
	if (found)
		s->top_k = n < 0 ? 0 : (int)n; /* -1 is vLLM's way to say "off" */
	rc = payload_int(o, "seed", INT64_MIN, INT64_MAX, &n, &p->seeded, e);
	if (rc)
		return rc;
	if (p->seeded)
		s->seed = (uint64_t)n;
	for (int i = 0; i < 2; i++) {
		rc = payload_int(o, i ? "max_completion_tokens" : "max_tokens", 1, INT32_MAX, &n,
				 &found, e);
		if (rc)
			return rc;
		if (found)
			p->max_tokens = (int)n;
	}
	rc = payload_int(o, "min_tokens", 0, INT32_MAX, &n, &found, e);
	if (rc)
		return rc;
	if (found)
		s->min_tokens = (int)n;
	if (p->max_tokens && s->min_tokens > p->max_tokens)
		return err_set(e, -EINVAL, "min_tokens: %d: more than max_tokens, %d",
			       s->min_tokens, p->max_tokens);
	rc = payload_bool(o, "ignore_eos", &s->ignore_eos, e);
	if (!rc)
		rc = read_stop(p, payload_member(o, "stop"), e);
	if (!rc)
		rc = read_bias(p, o, env->info->vocab, e);
	if (!rc)
		rc = read_logprobs(p, o, chat, e);
	return rc;
}
