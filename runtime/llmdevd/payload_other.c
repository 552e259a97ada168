// SPDX-License-Identifier: MIT
/* Prompts of text or ids, vectors, and what needs no model: tokenize, detokenize (payload_int.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmdevd/payload_int.h"

static int read_ids(struct ids *out, const json_t *v, const char *path, int n_vocab, struct err *e)
{
	const json_t *item;
	size_t i;

	json_array_foreach ((json_t *)v, i, item) {
		json_int_t id = json_integer_value(item);

		if (!json_is_integer(item))
			return err_set(e, json_is_string(item) ? -EOPNOTSUPP : -EINVAL,
				       "%s[%zu]: not a token id: send one text a request", path, i);
		if (id < 0 || id >= n_vocab)
			return err_set(e, -EINVAL, "%s[%zu]: %lld: token ids end at %d", path, i,
				       (long long)id, n_vocab - 1);
		if (ids_push(out, (int32_t)id))
			return err_set(e, -ENOMEM, "%s: no memory", path);
	}
	return 0;
}

static int need_tokenizer(const struct payload_env *env, const char *path, struct err *e)
{
	if (env->conversation->t)
		return 0;
	return err_set(e, -EOPNOTSUPP, "%s: the model has no tokenizer: send token ids", path);
}

int payload_prompt(struct payload *p, const json_t *v, const char *path,
		   const struct payload_env *env, struct err *e)
{
	int rc;

	if (json_is_array(v) && json_array_size(v) == 1 &&
	    (json_is_string(json_array_get(v, 0)) || json_is_array(json_array_get(v, 0))))
		v = json_array_get(v, 0); /* a batch of one */
	if (json_is_string(v)) {
		rc = need_tokenizer(env, path, e);
		if (rc)
			return rc;
		return tokenizer_encode(env->conversation->t, json_string_value(v),
					json_string_length(v), TOK_BOS, &p->prompt.ids, e);
	}
	if (!json_is_array(v) || !json_array_size(v))
		return err_set(e, -EINVAL, "%s: neither text nor a list of token ids", path);
	return read_ids(&p->prompt.ids, v, path, env->info->vocab, e);
}

int payload_embed(struct payload *p, const json_t *o, const struct payload_env *env, struct err *e)
{
	json_int_t n;
	bool found;
	int rc;

	p->kind = PAYLOAD_EMBED;
	if (env->info->pooling == POOLING_NONE)
		return err_set(e, -EOPNOTSUPP,
			       "input: this model makes no embeddings: use one that does");
	rc = payload_int(o, "dimensions", 1, env->info->hidden, &n, &found, e);
	if (rc)
		return rc;
	if (found)
		p->dimensions = (int)n;
	rc = payload_prompt(p, payload_member(o, "input"), "input", env, e);
	if (!rc && !p->prompt.ids.n)
		rc = err_set(e, -EINVAL, "input: empty: nothing to look at");
	return rc;
}

/* ---- results -------------------------------------------------------------------------------------- */

static int tokens_result(struct payload *p, const struct ids *ids, int ctx, struct err *e)
{
	size_t cap = ids->n * 12 + 96, n;

	p->result = malloc(cap);
	if (!p->result)
		return err_set(e, -ENOMEM, "tokenize: no memory for %zu ids", ids->n);
	n = (size_t)snprintf(p->result, cap, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":[",
			     ids->n, ctx);
	for (size_t i = 0; i < ids->n; i++)
		n += (size_t)snprintf(p->result + n, cap - n, i ? ",%d" : "%d", ids->v[i]);
	n += (size_t)snprintf(p->result + n, cap - n, "]}");
	p->result_len = n;
	return 0;
}

int payload_tokenize(struct payload *p, const json_t *o, const struct payload_env *env,
		     struct err *e)
{
	const json_t *prompt = payload_member(o, "prompt"), *messages;
	bool ends = true;
	int rc;

	p->kind = PAYLOAD_RESULT;
	messages = payload_member(o, "messages");
	if (!json_is_object(o) || !prompt == !messages)
		return err_set(e, -EINVAL, "tokenize: an object with \"prompt\" or \"messages\"");
	if (messages) {
		rc = payload_messages(p, o, env, "tokenize.", e);
	} else if (!json_is_string(prompt)) {
		rc = err_set(e, -EINVAL, "tokenize.prompt: not a string");
	} else {
		rc = payload_bool(o, "add_special_tokens", &ends, e);
		if (!rc)
			rc = need_tokenizer(env, "tokenize.prompt", e);
		if (!rc)
			rc = tokenizer_encode(env->conversation->t, json_string_value(prompt),
					      json_string_length(prompt), ends ? TOK_BOS : 0,
					      &p->prompt.ids, e);
	}
	return rc ? rc : tokens_result(p, &p->prompt.ids, env->info->ctx, e);
}

int payload_detokenize(struct payload *p, const json_t *o, const struct payload_env *env,
		       struct err *e)
{
	const json_t *tokens = payload_member(o, "tokens");
	json_t *text = NULL, *result = NULL;
	struct ids ids = {0};
	char *decoded = NULL;
	size_t len;
	int rc;

	p->kind = PAYLOAD_RESULT;
	if (!json_is_array(tokens))
		return err_set(e, -EINVAL, "detokenize.tokens: not a list of token ids");
	rc = need_tokenizer(env, "detokenize.tokens", e);
	if (!rc)
		rc = read_ids(&ids, tokens, "detokenize.tokens", env->info->vocab, e);
	if (!rc)
		rc = tokenizer_decode(env->conversation->t, ids.v, ids.n, false, &decoded, &len, e);
	if (!rc) {
		text = json_stringn(decoded, len);
		result = text ? json_pack("{s:O}", "prompt", text) : NULL;
		p->result = result ? json_dumps(result, JSON_COMPACT) : NULL;
		if (p->result)
			p->result_len = strlen(p->result);
		else
			rc = err_set(e, text ? -ENOMEM : -EINVAL,
				     text ? "detokenize: no memory"
					  : "detokenize.tokens: they are no text");
	}
	json_decref(text);
	json_decref(result);
	free(decoded);
	ids_free(&ids);
	return rc;
}
