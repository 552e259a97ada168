// SPDX-License-Identifier: MIT
/*
 * What a turn's ids say (server_internal.h): engine events through the output parser to events for
 * the client, log-probabilities, vectors; and an answer that is only remembered.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "engine/fold.h"
#include "llmdevd/server_internal.h"

#define TOKEN_BYTES_MAX 256 /* of a token in LLM_DATA_LOGPROBS */
#define REST_MAX                                                                                   \
	7168 /* content that goes with DONE: the kernel takes 8192 bytes of a terminal event */

static const struct chat *chat_of(const struct turn *t)
{
	return engine_chat(t->cl->sv->en);
}

/* How the answer is to be read; none/none: all of it is content. */
static struct output_format format_of(const struct turn *t)
{
	return payload_is_chat(&t->payload) ? chat_output(chat_of(t)) : (struct output_format){0};
}

bool turn_is_parsed(const struct turn *t)
{
	struct output_format f = format_of(t);

	return t->cl->conv.t &&
	       (f.reasoning != OUTPUT_REASONING_NONE || f.tools != OUTPUT_TOOLS_NONE);
}

int turn_open_answer(struct turn *t, bool run, struct err *e)
{
	const struct payload *p = &t->payload;
	struct output_opts o = {
		.format = format_of(t),
		.reasoning_open = p->prompt.chat.reasoning_open,
		.thinking = p->prompt.chat.thinking,
		.tools = p->tools,
		.ends_are_text = true,
		.call_seed = fnv1a(p->sampling.seed ^ FNV_START, p->prompt.ids.v,
				   p->prompt.ids.n * sizeof(*p->prompt.ids.v)),
	};
	struct constraint_opts co = {
		.spec = &p->constraint,
		.format = o.format,
		.thinking = o.thinking,
		.one_call = p->one_call,
		.budget = p->thinking_budget,
	};
	int rc = answer_open(&t->answer, turn_is_parsed(t) ? &o : NULL, payload_is_chat(p), e);

	if (!rc && run)
		rc = constraint_open(&t->constraint, t->cl->sv->grammars, &co, e);
	return rc;
}

/* ---- pieces --------------------------------------------------------------------------------------- */

static int post_call(struct turn *t, const struct output_piece *p)
{
	json_t *call = answer_call(p, true);
	char *text = call ? json_dumps(call, JSON_COMPACT) : NULL;
	int rc = text ? turn_post_piece(t, LLM_EVENT_DATA, LLM_DATA_TOOL_CALL, text, strlen(text))
		      : -ENOMEM;

	free(text);
	json_decref(call);
	return rc;
}

static int on_piece(void *ctx, const struct output_piece *p)
{
	struct turn *t = ctx;

	switch (p->kind) {
	case OUTPUT_CONTENT:
		return turn_post_piece(t, LLM_EVENT_TEXT, 0, p->text, p->len);
	case OUTPUT_REASONING:
		if (!(t->flags & LLM_SUBMIT_F_REASONING))
			return 0;
		return turn_post_piece(t, LLM_EVENT_DATA, LLM_DATA_REASONING, p->text, p->len);
	case OUTPUT_CALL:
		return post_call(t, p);
	case OUTPUT_MALFORMED:
		return turn_post_piece(t, LLM_EVENT_DATA, LLM_DATA_MALFORMED, p->text, p->len);
	}
	return 0;
}

/* One that was posted before: only its length counts. */
static int count_piece(void *ctx, const struct output_piece *p)
{
	struct turn *t = ctx;
	uint64_t posted = t->posted_bytes;
	int rc;

	t->posted_bytes = UINT64_MAX;
	rc = on_piece(ctx, p);
	t->posted_bytes = posted;
	return rc;
}

static void fail(struct turn *t, int rc)
{
	turn_error(t, -rc,
		   rc == -ENOMEM ? "answer: no memory"
				 : "answer: what the model wrote cannot be read");
	turn_end_early(t);
}

static const char *const otherwise = "answer: its ids give another text here than was posted: "
				     "another build wrote them: ask again";

/* Pieces that were posted came up again. */
static bool caught_up(struct turn *t)
{
	if (t->ended || t->folded_bytes >= t->posted_bytes)
		return !t->ended;
	turn_error(t, EILSEQ, otherwise);
	turn_end_early(t);
	return false;
}

void turn_replayed(struct turn *t, const struct engine_event *ev)
{
	int rc;

	if (t->ended)
		return;
	/* Only pieces of the last one may not have been posted. */
	if (t->folded_bytes > t->posted_bytes) {
		turn_error(t, EILSEQ, otherwise);
		turn_end_early(t);
		return;
	}
	constraint_id(&t->constraint, &t->answer, ev->id);
	rc = answer_push(&t->answer, ev->text, ev->text_len,
			 ++t->n_replayed < t->n_posted ? count_piece : on_piece, t);
	if (rc && !t->ended)
		fail(t, rc);
}

/* ---- log-probabilities ---------------------------------------------------------------------------- */

static json_t *logprob_entry(const struct tokenizer *tok, const struct token_logprob *l)
{
	char bytes[TOKEN_BYTES_MAX], text[DETOK_MAX];
	json_t *o = json_object(), *list = json_array();
	int n = tok ? tokenizer_bytes(tok, l->id, bytes, sizeof(bytes)) : 0;
	size_t len = 0;
	struct detok d;

	if (tok) {
		detok_init(&d, tok, false);
		d.started = true;
		len = detok_push(&d, l->id, text, sizeof(text));
		if (!len)
			len = detok_flush(&d, text, sizeof(text));
	}
	for (int i = 0; i < n; i++)
		json_array_append_new(list, json_integer((uint8_t)bytes[i]));
	json_object_set_new(o, "token", json_stringn(text, len));
	json_object_set_new(o, "bytes", list);
	/* JSON has no infinity; this is what OpenAI says for it. */
	json_object_set_new(o, "logprob",
			    json_real(l->logprob > -9999 ? (double)l->logprob : -9999.0));
	return o;
}

static void post_logprobs(struct turn *t, const struct engine_event *ev)
{
	const struct tokenizer *tok = t->cl->conv.t;
	json_t *o = logprob_entry(tok, &ev->logprobs[0]), *top = json_array();
	char *text;

	for (int i = 1; i < ev->n_logprobs; i++)
		json_array_append_new(top, logprob_entry(tok, &ev->logprobs[i]));
	json_object_set_new(o, "top_logprobs", top);
	json_object_set_new(o, "index", json_integer((json_int_t)t->ids.n - 1));
	text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9));
	json_decref(o);
	if (!text)
		fail(t, -ENOMEM);
	else
		turn_post_piece(t, LLM_EVENT_DATA, LLM_DATA_LOGPROBS, text, strlen(text));
	free(text);
}

/* ---- tokens --------------------------------------------------------------------------------------- */

void turn_token(struct turn *t, const struct engine_event *ev)
{
	int rc;

	if (t->ended || !caught_up(t))
		return;
	if (ids_push(&t->ids, ev->id)) {
		fail(t, -ENOMEM);
		return;
	}
	if (ev->n_logprobs > 0)
		post_logprobs(t, ev);
	t->token = ev->id;
	t->token_owed = true;
	constraint_id(&t->constraint, &t->answer, ev->id);
	rc = answer_push(&t->answer, ev->text, ev->text_len, on_piece, t);
	if (rc && !t->ended)
		fail(t, rc);
	/* An id whose text is held back, or hidden, is posted all the same. */
	if (t->token_owed && answer_in_reasoning(&t->answer))
		turn_post_piece(t, LLM_EVENT_DATA, LLM_DATA_REASONING, "", 0);
	else if (t->token_owed)
		turn_post_piece(t, LLM_EVENT_TEXT, 0, "", 0);
	turn_throttle(t);
}

static int keep_content(void *ctx, const struct output_piece *p)
{
	struct answer_text *rest = ctx;
	size_t n = p->kind == OUTPUT_CONTENT ? p->len : 0;

	if (rest->n + n > REST_MAX)
		return 0;
	if (!rest->v)
		rest->v = malloc(REST_MAX);
	if (!rest->v)
		return -ENOMEM;
	if (n)
		memcpy(rest->v + rest->n, p->text, n);
	rest->n += n;
	return 0;
}

int turn_answer_end(struct turn *t, const struct engine_event *ev, struct answer_text *rest)
{
	bool cut = ev->finish == FINISH_CANCELLED;
	output_sink sink = cut ? keep_content : on_piece;
	void *ctx = cut ? (void *)rest : (void *)t;
	int rc;

	/*
	 * What was cut short may go on in another daemon that has not heard of the cancelling: only
	 * DONE may tell what was held back.
	 */
	rc = answer_push(&t->answer, ev->text, ev->text_len, sink, ctx);
	if (!rc)
		rc = answer_end(&t->answer, sink, ctx);
	if (rc && !t->ended)
		fail(t, rc);
	return caught_up(t) ? 0 : -EILSEQ;
}

int turn_fold(struct turn *t, struct err *e)
{
	const struct payload *p = &t->payload;
	const int32_t *eos;
	struct fold f;
	size_t i;
	int n_eos = engine_eos(t->cl->sv->en, &eos), rc;
	bool stopped = false;

	if (!t->cl->conv.t)
		return 0;
	rc = fold_init(&f, t->cl->conv.t, turn_is_parsed(t), (const char *const *)p->stop,
		       p->n_stop, e);
	f.detok.started = true;
	f.n_free = p->sampling.min_tokens;
	for (i = 0; i < t->ids.n && !rc && !stopped; i++) {
		bool end = false;

		for (int k = 0; k < n_eos && !p->sampling.ignore_eos; k++)
			end |= t->ids.v[i] == eos[k];
		if (end)
			break;
		stopped = fold_push(&f, t->ids.v[i]);
		rc = answer_push(&t->answer, f.out, f.n_out, NULL, NULL);
	}
	if (!rc && !stopped) {
		fold_flush(&f);
		rc = answer_push(&t->answer, f.out, f.n_out, NULL, NULL);
	}
	if (!rc)
		rc = answer_end(&t->answer, NULL, NULL);
	fold_free(&f);
	return rc == -ENOMEM ? err_set(e, rc, "conversation: no memory to keep it") : rc;
}

/* ---- vectors -------------------------------------------------------------------------------------- */

void turn_embedding(struct turn *t, const struct engine_event *ev)
{
	int n = t->payload.dimensions ? t->payload.dimensions : ev->n_vector;
	double sum = 0;
	float *v;

	if (n > ev->n_vector)
		n = ev->n_vector;
	if (n == ev->n_vector) {
		turn_post_result(t, LLM_DATA_EMBEDDING, ev->vector, (size_t)n * sizeof(*v));
		return;
	}
	/* Cut, and of length 1 again. */
	v = malloc((size_t)n * sizeof(*v));
	if (!v) {
		fail(t, -ENOMEM);
		return;
	}
	for (int i = 0; i < n; i++)
		sum += (double)ev->vector[i] * ev->vector[i];
	for (int i = 0; i < n; i++)
		v[i] = sum > 0 ? (float)(ev->vector[i] / sqrt(sum)) : ev->vector[i];
	turn_post_result(t, LLM_DATA_EMBEDDING, v, (size_t)n * sizeof(*v));
	free(v);
}
