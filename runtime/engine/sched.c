// SPDX-License-Identifier: MIT
/*
 * The scheduler: admits requests in order of arrival, forms one ragged batch a step - first one row
 * of every decoding request, then prompt chunks up to the token budget - and turns logits into events.
 *
 * A request is admitted when the pages for all it may ever need are free (idle conversations give
 * theirs up first), so that nothing that runs can run out of memory.
 */
#include <errno.h>
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

static void emit(struct request *r, struct engine_event *ev)
{
	r->on_event(r->ctx, r, ev);
}

/* ---- submit and end -------------------------------------------------------------------------- */

static void request_free(struct request *r)
{
	ids_free(&r->prompt);
	fold_free(&r->fold);
	free(r);
}

/* Tokens the sequence may reach; at most the context. */
static int request_limit(const struct request *r)
{
	int room = r->en->ctx - r->n_prompt;

	return r->n_prompt + (r->max_tokens > 0 && r->max_tokens < room ? r->max_tokens : room);
}

static int check_ids(const struct engine *en, const char *what, const int32_t *ids, size_t n,
		     struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= en->info.vocab)
			return err_set(e, -EINVAL, "%s: token id %d: the vocabulary has 0..%d",
				       what, ids[i], en->info.vocab - 1);
	return 0;
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
	if (p->max_tokens < 0)
		return err_set(e, -EINVAL, "max_tokens: %d: negative", p->max_tokens);
	if (p->max_tokens && p->n_posted > (size_t)p->max_tokens)
		return err_set(e, -EINVAL, "posted ids: %zu, but max_tokens is %d", p->n_posted,
			       p->max_tokens);
	rc = check_ids(en, "prompt", p->prompt, p->n_prompt, e);
	return rc ? rc : check_ids(en, "posted ids", p->posted, p->n_posted, e);
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
	return 0;
}

int engine_submit(struct engine *en, const struct request_params *p, struct request **out,
		  struct err *e)
{
	struct request *r;
	int rc = check_params(en, p, e), pages;

	if (rc)
		return rc;
	if (en->n_waiting == MAX_WAITING)
		return err_set(e, -ENOSPC, "queue: %d requests wait already: try again later",
			       MAX_WAITING);
	r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "request: out of memory: try again later");
	r->en = en;
	rc = fold_init(&r->fold, en->tokenizer, p->stop, p->n_stop, e);
	/* an answer goes on where its prompt's text ended: its first word keeps its space */
	for (size_t i = 0; en->tokenizer && i < p->n_prompt; i++)
		r->fold.detok.started |= !tokenizer_is_special(en->tokenizer, p->prompt[i]);
	if (!rc && copy_prompt(r, p))
		rc = err_set(e, -ENOMEM, "request: out of memory: try again later");
	if (rc) {
		request_free(r);
		return rc;
	}
	r->session = p->session;
	r->principal = p->principal;
	r->n_prompt = (int)p->n_prompt;
	r->n_posted = r->n_generated = (int)p->n_posted;
	r->posted_bytes = p->posted_bytes;
	r->max_tokens = p->max_tokens;
	r->sampling = p->sampling;
	r->on_event = p->on_event;
	r->ctx = p->ctx;
	r->ns_submit = engine_now_ns();
	pages = kv_pages_for(request_limit(r));
	if (pages > en->kv.n_pages) {
		rc = err_set(e, -ENOSPC,
			     "KV cache: the request may need %d tokens, the pool has %d: "
			     "lower max_tokens or give the daemon more",
			     request_limit(r), en->kv.n_pages * KV_PAGE_TOKENS);
		request_free(r);
		return rc;
	}
	if (en->waiting_tail)
		en->waiting_tail->next = r;
	else
		en->waiting = r;
	en->waiting_tail = r;
	en->n_waiting++;
	if (out)
		*out = r;
	return 0;
}

static void unlink_request(struct request *r)
{
	struct engine *en = r->en;
	struct request *prev = NULL;

	en->blocked = false;
	if (r->state == REQ_WAITING) {
		for (struct request *i = en->waiting; i != r; i = i->next)
			prev = i;
		*(prev ? &prev->next : &en->waiting) = r->next;
		if (en->waiting_tail == r)
			en->waiting_tail = prev;
		en->n_waiting--;
		return;
	}
	for (int i = 0; i < en->n_running; i++)
		if (en->running[i] == r) {
			memmove(&en->running[i], &en->running[i + 1],
				(en->n_running - i - 1) * sizeof(*en->running));
			en->n_running--;
			break;
		}
	for (int i = 0; i < en->max_seqs; i++) /* the step in hand must not touch it again */
		if (en->batch_out_req[i] == r)
			en->batch_out_req[i] = NULL;
	r->session->active = NULL;
	/* Pages reserved beyond what was computed go back. */
	session_truncate(r->session, r->session->n_cached);
}

void request_end(struct request *r, const struct engine_event *ev)
{
	struct session *own = r->session && r->session->own ? r->session : NULL;
	struct engine_event copy = *ev;

	unlink_request(r);
	copy.prompt_tokens = r->n_prompt;
	copy.cached_tokens = r->n_cached_at_start;
	copy.completion_tokens = r->n_generated;
	copy.ns_submit = r->ns_submit;
	copy.ns_start = r->ns_start;
	copy.ns_first = r->ns_first;
	copy.ns_end = engine_now_ns();
	emit(r, &copy);
	if (own)
		engine_session_close(own);
	request_free(r);
}

static void finish(struct request *r, enum engine_finish why, bool flush)
{
	struct engine_event ev = {.kind = ENGINE_DONE, .finish = why};

	if (flush) {
		fold_flush(&r->fold);
		ev.text = r->fold.out;
		ev.text_len = r->fold.n_out;
	}
	request_end(r, &ev);
}

static void fail(struct request *r, int error, const char *message)
{
	struct engine_event ev = {.kind = ENGINE_ERROR, .error = error, .message = message};

	request_end(r, &ev);
}

void engine_cancel(struct request *r)
{
	r->cancelled = true;
	r->en->blocked = false; /* it may be the one that all wait for */
}

void engine_park(struct request *r, bool parked)
{
	r->parked = parked;
}

void sched_cancel_session(struct session *s)
{
	struct engine *en = s->en;

	if (s->active)
		finish(s->active, FINISH_CANCELLED, false);
	for (struct request *r = en->waiting, *next; r; r = next) {
		next = r->next;
		if (r->session == s)
			finish(r, FINISH_CANCELLED, false);
	}
}

/* ---- start --------------------------------------------------------------------------------------- */

static bool at_end(const struct request *r, int32_t id)
{
	const struct engine *en = r->en;

	for (int i = 0; i < en->n_eos && !r->sampling.ignore_eos; i++)
		if (en->eos[i] == id)
			return true;
	return false;
}

/* Fold the posted ids again. False: the fold went another way, the request has ended in an error. */
static bool replay(struct request *r)
{
	const int32_t *posted = r->prompt.v + r->n_prompt;
	char message[160];
	int i;

	for (i = 0; i < r->n_posted && !r->complete; i++)
		r->complete = at_end(r, posted[i]) || (r->stopped = fold_push(&r->fold, posted[i]));
	if (i == r->n_posted && r->fold.bytes == r->posted_bytes)
		return true;
	snprintf(message, sizeof(message),
		 "replay: the posted ids give %llu bytes of text, %llu were posted: another model "
		 "or tokenizer wrote them",
		 (unsigned long long)r->fold.bytes, (unsigned long long)r->posted_bytes);
	fail(r, EILSEQ, message);
	return false;
}

/*
 * True if r runs now or has ended; false: it must wait for pages. What its session could take from
 * the prefix cache it keeps meanwhile, unless others need the pages.
 */
static bool start(struct request *r)
{
	struct engine *en = r->en;
	struct engine_event ev = {.kind = ENGINE_STARTED};
	struct session *s = r->session;
	struct err e;
	int cached;

	if (!s && engine_session_open(en, &s, &e)) {
		fail(r, ENOMEM, e.msg);
		return true;
	}
	s->own |= !r->session;
	r->session = s;
	s->principal = r->principal;
	session_touch(s);
	s->active = r; /* its own pages must not be taken for it */
	cached = session_enter(s, r->prompt.v, (int)r->prompt.n);
	if (!session_make_room(en, kv_pages_for(request_limit(r)) - s->n_pages) ||
	    !session_reserve(s, request_limit(r))) {
		s->active = NULL;
		return false;
	}
	unlink_request(r);
	r->state = REQ_RUNNING;
	en->running[en->n_running++] = r;
	r->n_cached_at_start = cached < r->n_prompt ? cached : r->n_prompt;
	r->ns_start = engine_now_ns();
	if (!replay(r))
		return true;
	ids_free(&r->prompt);
	emit(r, &ev);
	return true;
}

static void admit(struct engine *en)
{
	struct request *r = en->waiting;

	if (en->blocked)
		return;
	while (r && en->n_running < en->max_seqs) {
		struct request *next = r->next;

		if (r->cancelled) {
			finish(r, FINISH_CANCELLED, false);
		} else if (r->session && r->session->active) {
			/* the conversation's earlier turn goes first */
		} else if (!start(r)) {
			/* first come, first served: small ones must not pass for ever */
			en->blocked = true;
			break;
		} else {
			next = en->waiting; /* events may have changed the queue */
		}
		r = next;
	}
}

/* ---- step ---------------------------------------------------------------------------------------- */

/* A posted sequence may have been complete when its daemon died. */
static void finish_if_complete(struct request *r)
{
	if (r->complete)
		finish(r, FINISH_STOP, !r->stopped);
	else if (r->session->n_ids >= request_limit(r))
		finish(r, FINISH_LENGTH, true);
}

/* Cancelled ones end, ended ones leave. */
static void sweep(struct engine *en)
{
	for (int i = en->n_running - 1; i >= 0; i--) {
		struct request *r = en->running[i];

		if (r->cancelled)
			finish(r, FINISH_CANCELLED, true);
		else
			finish_if_complete(r);
		if (i > en->n_running) /* an event closed sessions */
			i = en->n_running;
	}
}

static void add_rows(struct engine *en, struct batch *b, struct request *r, int n)
{
	struct session *s = r->session;
	struct batch_seq *q = &en->batch_seq[b->n_seq++];

	*q = (struct batch_seq){.first = b->n_tok, .n_tok = n, .pos0 = s->n_cached};
	for (int g = 0; g < en->model->plan.n_groups; g++)
		q->pages[g] = s->pages;
	memcpy(en->batch_ids + b->n_tok, s->ids + s->n_cached, n * sizeof(*s->ids));
	b->n_tok += n;
	model_rope_extend(en->model, s->n_cached + n);
	if (s->n_cached + n == s->n_ids) {
		en->batch_out[b->n_out] = b->n_tok - 1;
		en->batch_out_req[b->n_out++] = r;
	}
}

static void form_batch(struct engine *en, struct batch *b)
{
	int budget = en->chunk;

	*b = (struct batch){.ids = en->batch_ids, .seq = en->batch_seq, .out_row = en->batch_out};
	for (int i = 0; i < en->n_running; i++) {
		struct request *r = en->running[i];

		if (!r->parked && r->session->n_ids - r->session->n_cached == 1)
			add_rows(en, b, r, 1);
	}
	en->first_prefill++;
	for (int k = 0; k < en->n_running && budget > 0; k++) {
		struct request *r = en->running[(en->first_prefill + k) % en->n_running];
		int left = r->session->n_ids - r->session->n_cached;

		if (r->parked || left <= 1)
			continue;
		left = left < budget ? left : budget;
		budget -= left;
		add_rows(en, b, r, left);
	}
}

/* A new id: post it, and end the request where it ends. */
static void take_token(struct request *r, int32_t id, const float *logits)
{
	struct engine_event ev = {.kind = ENGINE_TOKEN, .id = id, .logits = logits};
	struct session *s = r->session;
	bool eos = at_end(r, id);
	bool stop = false;

	if (!r->ns_first)
		r->ns_first = engine_now_ns();
	s->ids[s->n_ids++] = id;
	r->n_generated++;
	if (!eos) {
		stop = fold_push(&r->fold, id);
		ev.text = r->fold.out;
		ev.text_len = r->fold.n_out;
	}
	emit(r, &ev);
	if (r->cancelled)
		finish(r, FINISH_CANCELLED, true);
	else if (eos || stop)
		finish(r, FINISH_STOP, !stop);
	else if (s->n_ids >= request_limit(r))
		finish(r, FINISH_LENGTH, true);
}

static void report_progress(struct engine *en)
{
	for (int i = 0; i < en->n_running; i++) {
		struct request *r = en->running[i];
		struct session *s = r->session;
		struct engine_event ev = {.kind = ENGINE_PROGRESS};

		if (s->n_cached >= s->n_ids || r->parked)
			continue;
		if (s->n_ids - s->n_cached == 1 && r->ns_first)
			continue;
		ev.done = s->n_cached < r->n_prompt ? s->n_cached : r->n_prompt;
		ev.total = r->n_prompt;
		emit(r, &ev);
	}
}

static void take_logits(struct engine *en, const struct batch *b)
{
	int n_out = b->n_out; /* events may end requests: batch_out_req[] is then NULLed */

	for (int i = 0; i < n_out; i++) {
		struct request *r = en->batch_out_req[i];
		struct session *s;
		float *logits;
		int32_t id;

		if (!r)
			continue;
		s = r->session;
		logits = en->logits + (size_t)i * en->info.vocab;
		id = sampler_pick(&en->sampler, &r->sampling, logits, s->ids, s->n_ids,
				  r->n_generated, s->n_ids);
		en->batch_out_req[i] = NULL;
		take_token(r, id, logits);
	}
}

int engine_step(struct engine *en, struct err *e)
{
	struct batch b;

	sweep(en);
	admit(en);
	sweep(en);
	form_batch(en, &b);
	if (!b.n_tok)
		return en->n_running + en->n_waiting;
	en->backend->forward(en->backend, &en->model->plan, &en->kv.pool, &b, en->logits);
	for (int i = 0; i < en->n_running; i++) {
		struct session *s = en->running[i]->session;

		for (int j = 0; j < b.n_seq; j++)
			if (b.seq[j].pages[0] == s->pages)
				session_computed(s, b.seq[j].n_tok);
	}
	report_progress(en);
	take_logits(en, &b);
	return en->n_running + en->n_waiting;
}

int engine_runnable(const struct engine *en)
{
	int n = en->n_waiting && en->n_running < en->max_seqs && !en->blocked;

	for (int i = 0; i < en->n_running; i++)
		n += !en->running[i]->parked || en->running[i]->cancelled;
	return n;
}
