// SPDX-License-Identifier: MIT
/*
 * The scheduler: who runs, what a step computes, and what comes of it.
 *
 * A step is one ragged batch: a row for every request that decodes, then prompt tokens up to a
 * budget. Fair queueing (fair.h) says whose request is admitted and whose prompt goes first.
 *
 * Pages are taken as they are needed. When there are none, idle conversations give theirs up, then
 * requests are preempted: they are queued again, and their pages can be taken like those of idle
 * conversations. Published pages go to the prefix cache first, and from there perhaps to the swap file;
 * what is lost is computed again. In a fight for pages the
 * request that is due first wins; that order never changes, so whoever stands first in it gets to
 * its end. For a place, and for pages to begin with, a request preempts
 *   one that is parked,
 *   a later one of lower priority of its own principal,
 *   one of a principal that is ahead by more than a quantum.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_internal.h"

/*
 * How far a principal must be ahead, in tokens; the victim's length is added, since that is what it
 * may have to compute again: at worst half of the work is repeated.
 */
#define QUANTUM 512

/* Prompt tokens of a step in which others decode: at least, and while their cost is unknown. */
#define MIN_BUDGET   16
#define FIRST_BUDGET 32

/* ---- preemption ------------------------------------------------------------------------------ */

void sched_remove(struct request *r)
{
	struct engine *en = r->en;

	for (int i = 0; i < en->n_running; i++)
		if (en->running[i] == r) {
			memmove(&en->running[i], &en->running[i + 1],
				(en->n_running - i - 1) * sizeof(*en->running));
			en->n_running--;
			break;
		}
	for (int i = 0; i < en->max_seqs; i++) /* the step in hand must not touch it again */
		if (en->batch_req[i] == r)
			en->batch_req[i] = NULL;
	r->state = REQ_ASIDE;
	r->who->n_running--;
	fair_promise(&en->fair, r->who, -r->promised, r->weight);
	r->promised = 0;
	en->n_freed++;
	session_truncate(r->session, r->session->n_cached);
}

static void preempt(struct request *r)
{
	struct session *s = r->session;

	r->n_ids = s->n_ids;
	sched_remove(r);
	r->rows = 0;
	r->en->stats.preempted++;
	request_queue(r);
}

/* Why r may preempt v: the more, the better; 0: it may not. */
static int may_preempt(const struct request *r, const struct request *v)
{
	if (v->parked)
		return 3;
	if (v->who == r->who)
		return v->priority > r->priority && request_before(r, v) ? 2 : 0;
	return v->who->vtime > r->who->promised + (QUANTUM + v->session->n_cached) / r->weight;
}

/* Whom r preempts for its place; NULL: nobody. */
static struct request *victim_for(const struct request *r)
{
	struct request *best = NULL;
	int why = 0;

	for (int i = 0; i < r->en->n_running; i++) {
		struct request *v = r->en->running[i];
		int w = may_preempt(r, v);

		if (!w || w < why)
			continue;
		if (w > why || v->who->vtime > best->who->vtime ||
		    (v->who->vtime == best->who->vtime && request_before(best, v)))
			best = v;
		why = w;
	}
	return best;
}

/* Whom r, which runs, preempts for a page. */
static struct request *weakest_after(const struct request *r)
{
	struct request *best = NULL;

	for (int i = 0; i < r->en->n_running; i++) {
		struct request *v = r->en->running[i];

		if (v == r || !v->session->n_pages || !(v->parked || request_before(r, v)))
			continue;
		if (!best || v->parked > best->parked ||
		    (v->parked == best->parked && request_before(best, v)))
			best = v;
	}
	return best;
}

/* ---- admission ------------------------------------------------------------------------------- */

/* Pages that those who run need for what they were admitted with and for a page's worth of answer. */
static int spoken_for(const struct engine *en)
{
	int sum = 0;

	for (int i = 0; i < en->n_running; i++) {
		const struct request *r = en->running[i];
		int n = r->session->n_ids + KV_PAGE_TOKENS, limit = request_limit(r);
		int more = kv_pages_for(n < limit ? n : limit) - r->session->n_pages;

		sum += more > 0 ? more : 0;
	}
	return sum;
}

/* Room for `need` pages beside those who run, for a request that is about to. */
static bool make_room(struct request *r, int need)
{
	struct engine *en = r->en;

	while (!session_make_room(en, need + spoken_for(en), r->session)) {
		struct request *v = victim_for(r);

		if (!v)
			return false;
		preempt(v);
	}
	return true;
}

/* First time that it has its place. False: it has ended. */
static bool begin(struct request *r, int cached)
{
	struct engine_event ev = {.kind = ENGINE_STARTED};
	struct engine_stats *st = &r->en->stats;

	r->begun = true;
	r->n_cached = cached < r->n_prompt ? cached : r->n_prompt;
	r->ns_start = engine_now_ns();
	st->prompt_tokens += r->n_prompt;
	st->cached_tokens += r->n_cached;
	if (!request_replay(r))
		return false;
	/* A posted answer may have been complete when its daemon died. */
	if (r->pooled || (!r->complete && r->session->n_ids < request_limit(r))) {
		request_emit(r, &ev);
		return true;
	}
	if (r->complete)
		request_finish(r, FINISH_STOP, !r->stopped);
	else
		request_finish(r, FINISH_LENGTH, true);
	return false;
}

/* Give r a place. False: it must wait for pages; what it found in the cache it keeps meanwhile. */
static bool start(struct request *r)
{
	struct engine *en = r->en;
	struct session *s = r->session;
	struct err e;
	int n = r->begun ? r->n_ids : (int)r->prompt.n, cached, most = embed_reusable(r);

	if (!s) {
		if (engine_session_open(en, &s, &e)) {
			request_fail(r, ENOMEM, e.msg);
			return true;
		}
		s->own = true;
		s->active = r;
		r->session = s;
	}
	s->principal = r->who->id;
	session_touch(s);
	cached = r->begun ? session_enter(s, s->ids, s->generated, n, most)
			  : session_enter(s, r->prompt.v, r->prompt_generated, n, most);
	if (cached < 0) {
		request_fail(r, ENOMEM, "session: out of memory: try again later");
		return true;
	}
	r->tried = en->n_freed;
	if (!make_room(r, kv_pages_for(n) - s->n_pages))
		return false;
	fair_unwait(&en->fair, r);
	r->state = REQ_RUNNING;
	en->running[en->n_running++] = r;
	r->who->n_running++;
	if (r->n_computed < cached)
		r->n_computed = cached;
	r->promised = r->n_prompt + r->n_posted - r->n_computed;
	if (r->promised < 0)
		r->promised = 0;
	fair_promise(&en->fair, r->who, r->promised, r->weight);
	if (!r->begun && !begin(r, cached))
		return true;
	ids_free(&r->prompt);
	free(r->prompt_generated);
	r->prompt_generated = NULL;
	return true;
}

static void admit(struct engine *en)
{
	struct request *r, *v;

	while ((r = fair_next(&en->fair))) {
		v = victim_for(r);
		/* It lacked pages and nothing was given up since: looking again would find the same. */
		if (r->tried == en->n_freed && !v && en->n_running)
			break;
		if (en->n_running == en->max_seqs) {
			if (!v)
				break;
			preempt(v);
		}
		if (!start(r))
			break;
	}
}

/* ---- a step's rows --------------------------------------------------------------------------- */

static int pending(const struct request *r)
{
	return r->session->n_ids - r->session->n_cached;
}

static int prompt_budget(const struct engine *en, int n_decode)
{
	double n = en->row_ns > 0 ? en->step_ns / en->row_ns : FIRST_BUDGET;

	if (!n_decode || n > en->chunk)
		return en->chunk;
	if (n < MIN_BUDGET)
		return MIN_BUDGET < en->chunk ? MIN_BUDGET : en->chunk;
	return (int)n;
}

/* The prompt to go on with: of the principal that is behind the most, what is due first. */
static struct request *next_prompt(const struct engine *en)
{
	struct request *best = NULL;

	for (int i = 0; i < en->n_running; i++) {
		struct request *r = en->running[i];

		if (r->parked || r->paused || r->rows || pending(r) <= 1)
			continue;
		if (!best || r->who->vtime < best->who->vtime ||
		    (r->who->vtime == best->who->vtime && request_before(r, best)))
			best = r;
	}
	return best;
}

/*
 * Others that began alike may have computed the next pages since r was admitted: when many arrive at
 * once with one beginning, the first computes it and the others take it.
 */
static void catch_up(struct request *r)
{
	int n = session_catch_up(r->session, embed_reusable(r)), end = r->session->n_cached, news;

	news = end - r->n_computed < n ? end - r->n_computed : n;
	if (news <= 0)
		return;
	r->n_computed = end;
	if (news > r->promised)
		news = (int)r->promised;
	fair_promise(&r->en->fair, r->who, -news, r->weight);
	r->promised -= news;
	if (end > r->n_prompt)
		news -= end - r->n_prompt;
	if (news > 0) {
		r->n_cached += news;
		r->en->stats.cached_tokens += news;
	}
}

static void plan_rows(struct engine *en)
{
	struct request *r;
	int n_decode = 0, budget;

	for (int i = 0; i < en->n_running; i++) {
		r = en->running[i];
		r->rows = !r->parked && !r->paused && pending(r) == 1;
		n_decode += r->rows;
	}
	budget = prompt_budget(en, n_decode);
	while (budget > 0 && (r = next_prompt(en))) {
		catch_up(r);
		r->rows = session_rows(r->session, pending(r) < budget ? pending(r) : budget);
		budget -= r->rows;
	}
}

/* Pages for the rows of one request; where there are none, it computes less or nothing. */
static void take_pages(struct request *r)
{
	struct session *s = r->session;

	while (!session_reserve(s, s->n_cached + r->rows)) {
		struct request *v;
		int lacks = kv_pages_for(s->n_cached + r->rows) - s->n_pages;

		if (session_make_room(r->en, lacks, s))
			continue;
		v = weakest_after(r);
		if (!v) {
			r->rows = s->n_pages * KV_PAGE_TOKENS - s->n_cached;
			return;
		}
		preempt(v);
	}
}

/* In the order in which they are due, so that those that come first find the most. */
static void take_all_pages(struct engine *en)
{
	struct request **order = en->by_due;
	int n = 0;

	for (int i = 0; i < en->n_running; i++) {
		struct request *r = en->running[i];
		int at = n;

		if (!r->rows)
			continue;
		for (; at && request_before(r, order[at - 1]); at--)
			order[at] = order[at - 1];
		order[at] = r;
		n++;
	}
	for (int i = 0; i < n; i++)
		if (order[i]->state == REQ_RUNNING && order[i]->rows)
			take_pages(order[i]);
}

static void add_rows(struct engine *en, struct batch *b, struct request *r)
{
	struct session *s = r->session;
	struct batch_seq *q = &en->batch_seq[b->n_seq];

	*q = (struct batch_seq){.first = b->n_tok,
				.n_tok = r->rows,
				.pos0 = s->n_cached,
				.state = session_state(s)};
	for (int g = 0; g < en->model->plan.n_groups; g++)
		q->pages[g] = s->pages;
	memcpy(en->batch_ids + b->n_tok, s->ids + s->n_cached, r->rows * sizeof(*s->ids));
	if (s->generated)
		memcpy(en->batch_generated + b->n_tok, s->generated + s->n_cached, r->rows);
	b->n_tok += r->rows;
	model_rope_extend(en->model, s->n_cached + r->rows);
	if (r->pooled) {
		embed_add_rows(en, b, r);
	} else if (r->rows == pending(r)) {
		en->batch_out[b->n_out] = b->n_tok - 1;
		en->batch_out_seq[b->n_out++] = b->n_seq;
	}
	en->batch_req[b->n_seq++] = r;
}

static void form_batch(struct engine *en, struct batch *b)
{
	plan_rows(en);
	take_all_pages(en);
	*b = (struct batch){.ids = en->batch_ids,
			    .generated = en->batch_generated,
			    .seq = en->batch_seq,
			    .out_row = en->batch_out,
			    .hidden_row = en->batch_hidden,
			    .hidden = en->hidden};
	for (int i = 0; i < en->n_running; i++)
		if (en->running[i]->rows)
			add_rows(en, b, en->running[i]);
}

/* ---- what comes of it ------------------------------------------------------------------------ */

static void smooth(double *mean, double x)
{
	*mean = *mean > 0 ? 0.8 * *mean + 0.2 * x : x;
}

/* The rows of one request are computed. Only what was computed for the first time is charged. */
static void account(struct request *r, int pos0, int n)
{
	struct engine *en = r->en;
	int target = r->n_prompt + r->n_posted, end = pos0 + n;
	int from = pos0 > r->n_computed ? pos0 : r->n_computed;
	int fresh = end > from ? end - from : 0;
	int prompt = target > from ? target - from : 0;

	if (prompt > fresh)
		prompt = fresh;
	if (end > r->n_computed)
		r->n_computed = end;
	if (fresh > prompt)
		fair_promise(&en->fair, r->who, FAIR_DECODE_WORK * (fresh - prompt), r->weight);
	fair_charge(&en->fair, r->who, prompt + FAIR_DECODE_WORK * (fresh - prompt), r->weight);
	r->promised -= prompt;
	en->stats.computed_tokens += n - (fresh - prompt);
	en->stats.recomputed_tokens += n - fresh;
	session_computed(r->session, n);
}

static void account_all(struct engine *en, const struct batch *b, uint64_t ns)
{
	double before = en->fair.work, work;
	int n_decode = 0;

	for (int i = 0; i < b->n_seq; i++) {
		n_decode += b->seq[i].n_tok == 1;
		account(en->batch_req[i], b->seq[i].pos0, b->seq[i].n_tok);
	}
	work = en->fair.work - before;
	if (b->n_tok - n_decode >= MIN_BUDGET)
		smooth(&en->row_ns, (double)ns / b->n_tok);
	if (work > 0)
		smooth(&en->work_ns, (double)ns / work);
	en->stats.steps++;
	en->stats.batch_decode = n_decode;
	en->stats.batch_prefill = b->n_tok - n_decode;
}

/* A new id: post it, and end the request where it ends. */
static void take_token(struct request *r, int32_t id, const float *logits)
{
	struct engine_event ev = {.kind = ENGINE_TOKEN, .id = id, .logits = logits};
	struct token_logprob logprobs[1 + ENGINE_MAX_LOGPROBS];
	bool eos = request_at_end(r, id);
	bool stop = false;

	if (session_push(r->session, id)) {
		request_fail(r, ENOMEM, "session: out of memory: try again later");
		return;
	}
	if (!r->ns_first)
		r->ns_first = engine_now_ns();
	r->n_generated++;
	r->en->stats.generated_tokens++;
	if (!eos) {
		stop = fold_push(&r->fold, id);
		ev.text = r->fold.out;
		ev.text_len = r->fold.n_out;
	}
	if (r->n_logprobs >= 0) {
		ev.logprobs = logprobs;
		ev.n_logprobs = sampler_logprobs(&r->en->sampler, id, r->n_logprobs, logprobs);
	}
	request_emit(r, &ev);
	if (r->cancelled)
		request_finish(r, FINISH_CANCELLED, true);
	else if (eos || stop)
		request_finish(r, FINISH_STOP, !stop);
	else if (r->session->n_ids >= request_limit(r))
		request_finish(r, FINISH_LENGTH, true);
}

/* Prompts that are not at their end yet. Events may end requests: batch_req[] is then NULLed. */
static void report_progress(struct engine *en, const struct batch *b)
{
	for (int i = 0; i < b->n_seq; i++) {
		struct request *r = en->batch_req[i];
		struct engine_event ev = {.kind = ENGINE_PROGRESS};

		if (!r || r->ns_first || !pending(r))
			continue;
		ev.done = r->n_computed < r->n_prompt ? r->n_computed : r->n_prompt;
		ev.total = r->n_prompt;
		request_emit(r, &ev);
	}
}

/* -1: the request's mask allows nothing. */
static int32_t draw_token(struct request *r, float *logits)
{
	const struct session *q = r->session;
	struct draw d = {.sampling = &r->sampling,
			 .bias = r->bias,
			 .n_bias = r->n_bias,
			 .history = q->ids,
			 .n_history = q->n_ids,
			 .n_generated = r->n_generated,
			 .position = q->n_ids};
	struct engine *en = r->en;
	uint64_t start;
	int32_t id;

	if (r->mask)
		d.mask = r->mask(r->ctx, r);
	start = engine_now_ns();
	if (r->n_logprobs >= 0)
		sampler_observe(&en->sampler, logits);
	if (r->n_generated < r->sampling.min_tokens && !r->sampling.ignore_eos) {
		for (int i = 0; i < en->n_eos; i++)
			logits[en->eos[i]] = -INFINITY;
	}
	id = sampler_pick(&en->sampler, &d, logits);
	en->stats.ns_sample += engine_now_ns() - start;
	return id;
}

static void take_logits(struct engine *en, const struct batch *b)
{
	for (int i = 0; i < b->n_out; i++) {
		struct request *r = en->batch_req[en->batch_out_seq[i]];
		float *logits = en->logits + (size_t)i * en->info.vocab;
		int32_t id;

		if (!r)
			continue;
		id = draw_token(r, logits);
		if (id >= 0)
			take_token(r, id, logits);
		else /* nothing may follow: the answer is whole */
			request_finish(r, FINISH_STOP, true);
	}
}

int engine_step(struct engine *en, struct err *e)
{
	uint64_t start = engine_now_ns(), forward, computed;
	struct batch b;

	request_end_cancelled(en);
	admit(en);
	/* STARTED may have made somebody cancel. */
	request_end_cancelled(en);
	form_batch(en, &b);
	if (!b.n_tok)
		return en->n_requests;
	forward = engine_now_ns();
	en->backend->forward(en->backend, &en->model->plan, &en->kv.pool, &b, en->logits);
	computed = engine_now_ns();
	account_all(en, &b, computed - forward);
	report_progress(en, &b);
	embed_take(en, &b);
	take_logits(en, &b);
	en->stats.ns_forward += computed - forward;
	en->stats.ns_step += engine_now_ns() - start;
	return en->n_requests;
}

int engine_runnable(const struct engine *en)
{
	int n = en->fair.n_waiting;

	for (const struct request *r = en->cancelled; r; r = r->next_cancelled)
		n++;
	for (int i = 0; i < en->n_running; i++)
		n += !en->running[i]->parked && !en->running[i]->paused;
	return n;
}
