// SPDX-License-Identifier: MIT
/*
 * A request's life outside its steps: submission, queueing, cancelling, parking, its end.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/engine_internal.h"

uint64_t engine_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void request_emit(struct request *r, struct engine_event *ev)
{
	r->on_event(r->ctx, r, ev);
}

bool request_before(const struct request *a, const struct request *b)
{
	return a->due != b->due ? a->due < b->due : a->number < b->number;
}

/* Tokens that a sequence can reach at all. */
static int max_tokens_of(const struct engine *en)
{
	int pool = en->kv.n_pages > INT32_MAX / KV_PAGE_TOKENS ? INT32_MAX
							       : en->kv.n_pages * KV_PAGE_TOKENS;

	return en->ctx < pool ? en->ctx : pool;
}

int request_limit(const struct request *r)
{
	int room = max_tokens_of(r->en) - r->n_prompt;

	if (r->pooled)
		return r->n_prompt;
	return r->n_prompt + (r->max_tokens > 0 && r->max_tokens < room ? r->max_tokens : room);
}

/* ---- submission ------------------------------------------------------------------------------ */

static int check_ids(const struct engine *en, const char *what, const int32_t *ids, size_t n,
		     struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= en->info.vocab)
			return err_set(e, -EINVAL, "%s: token id %d: the vocabulary has 0..%d",
				       what, ids[i], en->info.vocab - 1);
	return 0;
}

static int check_draws(const struct engine *en, const struct request_params *p, struct err *e)
{
	if (p->n_logprobs > ENGINE_MAX_LOGPROBS)
		return err_set(e, -EINVAL, "logprobs: %d a token: at most %d", p->n_logprobs,
			       ENGINE_MAX_LOGPROBS);
	if (p->n_bias < 0 || p->n_bias > en->info.vocab)
		return err_set(e, -EINVAL, "logit_bias: %d ids: the vocabulary has %d", p->n_bias,
			       en->info.vocab);
	for (int i = 0; i < p->n_bias; i++) {
		if (p->bias[i].id < 0 || p->bias[i].id >= en->info.vocab)
			return err_set(e, -EINVAL,
				       "logit_bias: token id %d: the vocabulary has 0..%d",
				       p->bias[i].id, en->info.vocab - 1);
		if (isnan(p->bias[i].bias))
			return err_set(e, -EINVAL, "logit_bias: token id %d: not a number",
				       p->bias[i].id);
	}
	return 0;
}

static int check_embed(const struct engine *en, const struct request_params *p, struct err *e)
{
	if (en->info.pooling == POOLING_NONE)
		return err_set(e, -EOPNOTSUPP,
			       "embeddings: %s makes none: use a model whose checkpoint says how "
			       "(modules.json, or pooling_type in GGUF)",
			       en->info.model);
	if (p->session || p->n_posted || p->max_tokens)
		return err_set(e, -EINVAL,
			       "embeddings: with a session or an answer: the prompt stands alone");
	return 0;
}

/* What could not fit the pool even if it were alone. */
static int check_room(const struct engine *en, const struct request_params *p, struct err *e)
{
	size_t n = p->n_prompt + p->n_posted;
	size_t most = p->max_tokens ? p->n_prompt + (size_t)p->max_tokens : n + !p->embed;

	if (most > (size_t)en->ctx)
		most = (size_t)en->ctx;
	if (most <= (size_t)max_tokens_of(en))
		return 0;
	return err_set(e, -E2BIG,
		       "KV cache: %zu tokens of prompt and %zu of answer need %d pages of %d, "
		       "the pool has %d: lower max_tokens or raise --kv-size",
		       p->n_prompt, most - p->n_prompt, kv_pages_for((int)most), KV_PAGE_TOKENS,
		       en->kv.n_pages);
}

static int check_params(const struct engine *en, const struct request_params *p, struct err *e)
{
	int rc;

	if (!p->n_prompt)
		return err_set(e, -EINVAL, "prompt: empty: give at least one token");
	if (p->n_prompt > (size_t)en->ctx || p->n_posted > (size_t)en->ctx - p->n_prompt)
		return err_set(e, -E2BIG,
			       "prompt: %zu tokens: the context holds %d: shorten it or "
			       "raise --ctx",
			       p->n_prompt + p->n_posted, en->ctx);
	if (p->n_history > p->n_prompt || (p->n_history && !p->generated))
		return err_set(e, -EINVAL, "history: %zu ids, but the prompt has %zu", p->n_history,
			       p->n_prompt);
	if (p->max_tokens < 0)
		return err_set(e, -EINVAL, "max_tokens: %d: negative", p->max_tokens);
	if (p->sampling.min_tokens < 0)
		return err_set(e, -EINVAL, "min_tokens: %d: negative", p->sampling.min_tokens);
	if (p->priority < -20 || p->priority > 19)
		return err_set(e, -EINVAL, "priority: %d: -20 (first) to 19 (last)", p->priority);
	if (p->max_tokens && p->n_posted > (size_t)p->max_tokens)
		return err_set(e, -EINVAL, "posted ids: %zu, but max_tokens is %d", p->n_posted,
			       p->max_tokens);
	rc = check_ids(en, "prompt", p->prompt, p->n_prompt, e);
	if (!rc)
		rc = check_ids(en, "posted ids", p->posted, p->n_posted, e);
	if (!rc)
		rc = check_draws(en, p, e);
	if (!rc && p->embed)
		rc = check_embed(en, p, e);
	return rc ? rc : check_room(en, p, e);
}

static int copy_prompt(struct request *r, const struct request_params *p)
{
	size_t n = p->n_prompt + p->n_posted;

	r->prompt.v = malloc(n * sizeof(*r->prompt.v));
	if (!r->prompt.v)
		return -ENOMEM;
	memcpy(r->prompt.v, p->prompt, p->n_prompt * sizeof(*p->prompt));
	if (p->n_posted)
		memcpy(r->prompt.v + p->n_prompt, p->posted, p->n_posted * sizeof(*p->posted));
	r->prompt.n = r->prompt.cap = n;
	if (!r->en->backend->split_classes)
		return 0;
	r->prompt_generated = calloc(n, 1);
	if (!r->prompt_generated)
		return -ENOMEM;
	if (p->n_history)
		memcpy(r->prompt_generated, p->generated, p->n_history);
	memset(r->prompt_generated + p->n_prompt, 1, p->n_posted);
	return 0;
}

static int make_pool(struct request *r, const struct request_params *p)
{
	if (!p->embed)
		return 0;
	r->pooled = calloc(r->en->info.hidden, sizeof(*r->pooled));
	return r->pooled ? 0 : -ENOMEM;
}

static int copy_bias(struct request *r, const struct request_params *p)
{
	if (!p->n_bias)
		return 0;
	r->bias = malloc(p->n_bias * sizeof(*r->bias));
	if (!r->bias)
		return -ENOMEM;
	memcpy(r->bias, p->bias, p->n_bias * sizeof(*r->bias));
	r->n_bias = p->n_bias;
	return 0;
}

static void request_free(struct request *r)
{
	ids_free(&r->prompt);
	free(r->bias);
	free(r->pooled);
	free(r->prompt_generated);
	fold_free(&r->fold);
	free(r);
}

/* Work in tokens that the prompt asks for, as far as it is known before looking at the cache. */
static double prompt_work(const struct request *r)
{
	const struct session *s = r->session;
	int known = s && !s->active ? s->n_cached : 0;

	return known < (int)r->prompt.n ? (double)r->prompt.n - known : 1;
}

static void set_due(struct request *r, uint64_t deadline_ns)
{
	const struct engine *en = r->en;
	double left;

	r->due = en->fair.work + prompt_work(r) + (r->priority + 1) * FAIR_PRIORITY_WORK;
	if (!deadline_ns)
		return;
	left = deadline_ns > r->ns_submit ? (double)(deadline_ns - r->ns_submit) : 0;
	left = en->work_ns > 0 ? en->fair.work + left / en->work_ns : en->fair.work;
	if (left < r->due)
		r->due = left;
}

static int request_new(struct engine *en, const struct request_params *p, struct request **out,
		       struct err *e)
{
	struct request *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return err_set(e, -ENOMEM, "request: out of memory: try again later");
	r->en = en;
	r->wait_node.index = -1;
	rc = fold_init(&r->fold, en->tokenizer, p->special_text, p->stop, p->n_stop, e);
	r->fold.n_free = p->sampling.min_tokens;
	/* an answer goes on where its prompt's text ended: its first word keeps its space */
	for (size_t i = 0; en->tokenizer && i < p->n_prompt; i++)
		r->fold.detok.started |= !tokenizer_is_special(en->tokenizer, p->prompt[i]);
	if (!rc && (copy_prompt(r, p) || copy_bias(r, p) || make_pool(r, p)))
		rc = err_set(e, -ENOMEM, "request: out of memory: try again later");
	if (!rc) {
		r->who = fair_enter(&en->fair, p->principal);
		if (!r->who)
			rc = err_set(e, -ENOMEM, "request: out of memory: try again later");
	}
	if (rc) {
		request_free(r);
		return rc;
	}
	*out = r;
	return 0;
}

int engine_submit(struct engine *en, const struct request_params *p, struct request **out,
		  struct err *e)
{
	struct request *r = NULL;
	int rc = check_params(en, p, e);

	if (!rc && en->fair.n_waiting >= en->max_waiting)
		rc = err_set(e, -ENOSPC,
			     "queue: %d requests run and %d wait, more may not: try again later",
			     en->n_running, en->fair.n_waiting);
	if (!rc)
		rc = request_new(en, p, &r, e);
	if (rc) {
		en->stats.refused++;
		return rc;
	}
	r->session = p->session;
	r->priority = p->priority;
	r->weight = fair_weight(p->priority);
	r->n_prompt = (int)p->n_prompt;
	r->n_posted = r->n_generated = (int)p->n_posted;
	r->posted_bytes = p->posted_bytes;
	r->max_tokens = p->max_tokens;
	r->sampling = p->sampling;
	r->n_logprobs = p->n_logprobs;
	r->mask = p->mask;
	r->on_event = p->on_event;
	r->ctx = p->ctx;
	r->ns_submit = engine_now_ns();
	r->number = ++en->n_submitted;
	set_due(r, p->deadline_ns);
	r->next = en->requests;
	if (r->next)
		r->next->prev = r;
	en->requests = r;
	en->n_requests++;
	en->stats.submitted++;
	request_queue(r);
	if (out)
		*out = r;
	return 0;
}

/* ---- queueing -------------------------------------------------------------------------------- */

static void queue_behind(struct request *r)
{
	struct request **at = &r->session->behind;

	while (*at)
		at = &(*at)->next_behind;
	*at = r;
	r->state = REQ_BEHIND;
}

void request_queue(struct request *r)
{
	struct session *s = r->session;

	if (s && s->active && s->active != r) {
		queue_behind(r);
		return;
	}
	if (s)
		s->active = r;
	if (r->parked) {
		r->state = REQ_ASIDE;
		return;
	}
	r->state = REQ_WAITING;
	fair_wait(&r->en->fair, r);
}

void engine_park(struct request *r, bool parked)
{
	r->parked = parked;
	if (parked && r->state == REQ_WAITING) {
		fair_unwait(&r->en->fair, r);
		r->state = REQ_ASIDE;
	} else if (!parked && r->state == REQ_ASIDE) {
		request_queue(r);
	}
}

void engine_pause(struct request *r, bool paused)
{
	r->paused = paused;
}

enum engine_request_state engine_request_state(const struct request *r)
{
	if (r->parked)
		return ENGINE_PARKED;
	if (r->state != REQ_RUNNING)
		return r->begun ? ENGINE_PREEMPTED : ENGINE_WAITING;
	return r->session->n_ids - r->session->n_cached > 1 || !r->ns_first ? ENGINE_PREFILL
									    : ENGINE_DECODE;
}

void engine_cancel(struct request *r)
{
	if (r->cancelled)
		return;
	r->cancelled = true;
	r->next_cancelled = r->en->cancelled;
	r->en->cancelled = r;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void unlink_behind(struct request *r)
{
	struct request **at = &r->session->behind;

	while (*at != r)
		at = &(*at)->next_behind;
	*at = r->next_behind;
}

/* The session's next turn may begin. */
static void release_session(struct request *r)
{
	struct session *s = r->session;
	struct request *next;

	if (!s || s->active != r)
		return;
	s->active = NULL;
	next = s->behind;
	if (next) {
		s->behind = next->next_behind;
		request_queue(next);
	}
}

static void unlink_request(struct request *r)
{
	struct engine *en = r->en;

	*(r->prev ? &r->prev->next : &en->requests) = r->next;
	if (r->next)
		r->next->prev = r->prev;
	en->n_requests--;
	if (r->cancelled) {
		struct request **at = &en->cancelled;

		while (*at && *at != r)
			at = &(*at)->next_cancelled;
		if (*at)
			*at = r->next_cancelled;
	}
	if (r->state == REQ_RUNNING)
		sched_remove(r);
	else if (r->state == REQ_WAITING)
		fair_unwait(&en->fair, r);
	else if (r->state == REQ_BEHIND)
		unlink_behind(r);
	release_session(r);
	fair_leave(&en->fair, r->who);
}

static void request_end(struct request *r, const struct engine_event *ev)
{
	struct session *own = r->session && r->session->own ? r->session : NULL;
	struct engine_event copy = *ev;

	unlink_request(r);
	copy.prompt_tokens = r->n_prompt;
	copy.cached_tokens = r->n_cached;
	copy.completion_tokens = r->n_generated;
	copy.ns_submit = r->ns_submit;
	copy.ns_start = r->ns_start;
	copy.ns_first = r->ns_first;
	copy.ns_end = engine_now_ns();
	request_emit(r, &copy);
	if (own)
		engine_session_close(own);
	request_free(r);
}

void request_finish(struct request *r, enum engine_finish why, bool flush)
{
	struct engine_event ev = {.kind = ENGINE_DONE, .finish = why};
	struct engine_stats *st = &r->en->stats;

	if (flush) {
		fold_flush(&r->fold);
		ev.text = r->fold.out;
		ev.text_len = r->fold.n_out;
	}
	*(why == FINISH_CANCELLED ? &st->cancelled : &st->done) += 1;
	request_end(r, &ev);
}

void request_fail(struct request *r, int error, const char *message)
{
	struct engine_event ev = {.kind = ENGINE_ERROR, .error = error, .message = message};

	r->en->stats.failed++;
	request_end(r, &ev);
}

void request_cancel_session(struct session *s)
{
	/* Later turns first: none of them must begin when the one before it ends. */
	while (s->behind)
		request_finish(s->behind, FINISH_CANCELLED, false);
	if (s->active)
		request_finish(s->active, FINISH_CANCELLED, false);
}

void request_end_cancelled(struct engine *en)
{
	while (en->cancelled)
		request_finish(en->cancelled, FINISH_CANCELLED, en->cancelled->begun);
}

/* ---- replay ---------------------------------------------------------------------------------- */

bool request_at_end(const struct request *r, int32_t id)
{
	const struct engine *en = r->en;

	for (int i = 0; i < en->n_eos && !r->sampling.ignore_eos; i++)
		if (en->eos[i] == id)
			return true;
	return false;
}

/* One of the posted ids; the answer may end with it. */
static void replay_id(struct request *r, int32_t id)
{
	struct engine_event ev = {.kind = ENGINE_REPLAYED, .id = id};

	r->complete = request_at_end(r, id);
	if (!r->complete) {
		r->complete = r->stopped = fold_push(&r->fold, id);
		ev.text = r->fold.out;
		ev.text_len = r->fold.n_out;
	}
	request_emit(r, &ev);
}

bool request_replay(struct request *r)
{
	const int32_t *posted = r->prompt.v + r->n_prompt;
	char message[160];
	int i;

	for (i = 0; i < r->n_posted && !r->complete; i++)
		replay_id(r, posted[i]);
	if (i == r->n_posted && (r->fold.bytes == r->posted_bytes || r->posted_bytes == UINT64_MAX))
		return true;
	snprintf(message, sizeof(message),
		 "replay: the posted ids give %llu bytes of text, %llu were posted: another model "
		 "or tokenizer wrote them",
		 (unsigned long long)r->fold.bytes, (unsigned long long)r->posted_bytes);
	request_fail(r, EILSEQ, message);
	return false;
}
