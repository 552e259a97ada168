// SPDX-License-Identifier: MIT
/*
 * Random schedules against lonely runs: whatever arrives beside a request, is cancelled, parked,
 * preempted, cached, swapped or closed meanwhile, its tokens and the logits they were drawn from are
 * bitwise those of the same request alone in a fresh engine.
 *
 * A seed gives everything: engine's options, who asks what when, and what happens to it. Most seeds
 * run on the witness backend (witness.h), which costs nearly nothing; the others on `ref` and `cpu`
 * with tiny models. Conversations are taken from a universe that several seeds share, so that the
 * lonely runs are made once.
 *
 *	LLM_SEEDS=N          N times as many seeds as usual (may be a fraction)
 *	LLM_SEED=KIND:NUMBER this seed only, with what it does printed; KIND alone: this kind
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/tap.h"
#include "tests/unit/requests.h"
#include "tests/unit/tiny_model.h"
#include "tests/unit/witness.h"

#define CTX	  352
#define MAX_TURNS 4
#define CONVS	  10
#define MAX_ITEMS 14
#define SESSIONS  5
#define VOCAB	  256

struct kind {
	const char *name;
	const char *backend; /* NULL: the witness */
	int kv_type;
	bool split_classes, state;
	int seeds;
	int per_universe;
};

static const struct kind kinds[] = {
	{"witness", NULL, KV_F32, false, false, 2500, 50},
	{"witness-classes", NULL, KV_BF16, true, false, 1250, 50},
	{"witness-state", NULL, KV_F32, false, true, 1250, 50},
	{"cpu-f32", "cpu", KV_F32, false, false, 350, 175},
	{"cpu-bf16", "cpu", KV_BF16, false, false, 350, 175},
	{"cpu-fp8", "cpu", KV_FP8, false, false, 150, 150},
	{"ref-f32", "ref", KV_F32, false, false, 60, 60},
	{"ref-bf16", "ref", KV_BF16, false, false, 30, 30},
	{"ref-fp8", "ref", KV_FP8, false, false, 15, 50},
};

static const char *const models[] = {"tests/fixtures/models/qwen3-tied-sharded",
				     "tests/fixtures/models/qwen3-moe-f16",
				     "tests/fixtures/models/llama-rope3"};

/* ---- conversations, and their lonely runs ---------------------------------------------------- */

struct turn {
	int32_t prompt[CTX];
	uint8_t generated[CTX]; /* which of it are answers of the turns before */
	int n, n_history, max_tokens;
	struct sampling sampling;
	bool embed, masked;
	int n_logprobs, n_bias;
	struct logit_bias bias[2];
	struct told lonely;
};

struct conv {
	int n_turns;
	struct turn turn[MAX_TURNS];
};

struct universe {
	const struct kind *kind;
	int64_t number;
	const char *model;
	size_t page_bytes;
	struct conv conv[CONVS];
};

static const struct witness_taste no_taste;
static struct tiny_model tiny; /* `ref` is slow, and the witness needs no model */
static bool verbose;

/* No family has a recurrent state yet: give it one, and the pool places for snapshots of it. */
static bool add_state(struct engine *en, const struct engine_opts *o)
{
	struct kv_opts k = {.type = o->kv_type,
			    .n_pages = en->kv.n_pages,
			    .prefix_bytes = o->prefix_bytes,
			    .swap_dir = o->swap_dir,
			    .swap_bytes = o->swap_bytes,
			    .n_snapshots = o->max_seqs * 2};

	kv_free(&en->kv);
	en->model->plan.state_bytes = WITNESS_STATE;
	return !kv_init(&en->kv, &en->model->plan, &k, NULL);
}

static struct engine *open_engine(const struct universe *u, const struct engine_opts *how)
{
	struct engine_opts o = *how;
	struct witness *w = NULL;
	struct engine *en = NULL;
	struct err e;
	int rc;

	o.model = u->model;
	o.kv_type = u->kind->kv_type;
	o.ctx = CTX;
	o.step_ms = 1000000; /* no part of a schedule hangs on the time */
	o.backend = u->kind->backend;
	if (u->kind->backend) {
		rc = engine_open(&en, &o, &e);
	} else {
		w = witness_create(u->kind->split_classes);
		rc = engine_open_on(&en, &o, &w->backend, &e);
	}
	if (rc) {
		printf("# %s\n", e.msg);
		return NULL;
	}
	if (w)
		w->kv = &en->kv;
	if (u->kind->state && !add_state(en, &o)) {
		engine_close(en);
		return NULL;
	}
	/* the models say nothing of it; it is all the same to the scheduler */
	en->info.pooling = u->number % 2 ? POOLING_MEAN : POOLING_LAST;
	en->info.normalise = true;
	if (embed_alloc(en, &e)) {
		engine_close(en);
		return NULL;
	}
	return en;
}

/* What may follow these ids: hardly anything, half of all, or nearly everything. */
static const uint64_t *mask_after(const int32_t *ids, int n)
{
	static uint64_t mask[VOCAB / 64];
	struct rng r = {.x = (uint64_t)n << 40 ^ (uint64_t)ids[n - 1] << 20 ^
			     (uint64_t)ids[n > 1 ? n - 2 : 0]};
	int kind = rng_below(&r, 4);

	if (!kind)
		return NULL;
	for (int i = 0; i < VOCAB / 64; i++)
		mask[i] = kind == 1   ? (uint64_t)(i == 2) << 7
			  : kind == 2 ? rng_next(&r)
				      : rng_next(&r) | rng_next(&r) | rng_next(&r);
	mask[0] |= 1 << 5;
	return mask;
}

static const uint64_t *on_mask(void *ctx, struct request *r)
{
	return mask_after(r->session->ids, r->session->n_ids);
}

static void on_lonely(void *ctx, struct request *r, const struct engine_event *ev)
{
	told_event(ctx, VOCAB, ev);
}

static struct request_params turn_params(const struct turn *t)
{
	return (struct request_params){.prompt = t->prompt,
				       .n_prompt = t->n,
				       .n_history = t->n_history,
				       .generated = t->generated,
				       .embed = t->embed,
				       .max_tokens = t->max_tokens,
				       .n_logprobs = t->n_logprobs,
				       .bias = t->bias,
				       .n_bias = t->n_bias,
				       .mask = t->masked ? on_mask : NULL,
				       .sampling = t->sampling};
}

/* The request alone in an engine of its own. */
static bool run_lonely(struct universe *u, struct turn *t)
{
	struct engine_opts o = {.threads = 1, .chunk = 256, .prefix_bytes = -1, .max_seqs = 1};
	struct engine *en = open_engine(u, &o);
	struct request_params p = turn_params(t);

	memset(&t->lonely, 0, sizeof(t->lonely));
	if (!en)
		return false;
	p.on_event = on_lonely;
	p.ctx = &t->lonely;
	if (!engine_submit(en, &p, NULL, NULL))
		for (int i = 0; i < 1000 && engine_step(en, NULL) > 0; i++)
			;
	u->page_bytes = en->kv.page_bytes;
	engine_close(en);
	return t->lonely.ended == 1 && t->lonely.end == ENGINE_DONE &&
	       (t->embed ? t->lonely.n_vectors == 1 && !t->lonely.n : t->lonely.n > 0);
}

/* The same without any engine, of the witness. */
static bool vector_is_right(const struct universe *u, const struct turn *t)
{
	enum { HIDDEN = 32 };
	const struct kind *k = u->kind;
	bool mean = u->number % 2;
	double sum[HIDDEN] = {0}, squares = 0, scale = mean ? 1.0 / t->n : 1;
	float x[HIDDEN];

	for (int n = mean ? 1 : t->n; n <= t->n; n++) {
		witness_hidden(witness_hash(t->prompt, k->split_classes ? t->generated : NULL, n,
					    k->state),
			       n - 1, HIDDEN, x);
		for (int i = 0; i < HIDDEN; i++)
			sum[i] += x[i];
	}
	for (int i = 0; i < HIDDEN; i++)
		squares += sum[i] * sum[i] * scale * scale;
	for (int i = 0; i < HIDDEN; i++)
		x[i] = (float)(sum[i] * (scale / sqrt(squares)));
	return fnv1a(FNV_START, x, sizeof(x)) == t->lonely.vector;
}

/* The same without any engine: only for the witness, who can be asked what it must say. */
static bool lonely_is_right(const struct kind *k, const struct turn *t)
{
	int32_t ids[CTX];
	uint8_t generated[CTX];
	float logits[VOCAB];
	struct token_logprob logprobs[1 + ENGINE_MAX_LOGPROBS];
	struct sampler s = {0};
	uint64_t hash;
	int n = t->n;
	bool ok = !sampler_init(&s, VOCAB, NULL);

	memcpy(ids, t->prompt, n * sizeof(*ids));
	memcpy(generated, t->generated, n);
	for (int i = 0; ok && i < t->lonely.n; i++, n++) {
		witness_logits(&no_taste, ids, k->split_classes ? generated : NULL, n, k->state,
			       VOCAB, logits);
		if (t->n_logprobs >= 0)
			sampler_observe(&s, logits);
		ids[n] = sampler_pick(&s,
				      &(struct draw){.sampling = &t->sampling,
						     .bias = t->bias,
						     .n_bias = t->n_bias,
						     .mask = t->masked ? mask_after(ids, n) : NULL,
						     .history = ids,
						     .n_history = n,
						     .n_generated = i,
						     .position = n},
				      logits);
		generated[n] = 1;
		hash = fnv1a(FNV_START, logits, sizeof(logits));
		if (t->n_logprobs >= 0) {
			int m = sampler_logprobs(&s, ids[n], t->n_logprobs, logprobs);

			hash = fnv1a(hash, logprobs, m * sizeof(*logprobs));
		}
		ok = ids[n] == t->lonely.id[i] && hash == t->lonely.hash[i];
	}
	sampler_free(&s);
	return ok;
}

static struct sampling random_sampling(struct rng *r)
{
	struct sampling s = {.repeat_penalty = 1, .top_p = 1, .ignore_eos = true};

	s.seed = rng_next(r);
	if (rng_chance(r, 70))
		s.temperature = 0.3f + 0.1f * rng_below(r, 12);
	if (rng_chance(r, 30))
		s.top_k = rng_range(r, 1, 40);
	if (rng_chance(r, 30))
		s.top_p = 0.5f + 0.05f * rng_below(r, 10);
	if (rng_chance(r, 20))
		s.min_p = 0.05f;
	if (rng_chance(r, 20))
		s.repeat_penalty = 1.3f;
	if (rng_chance(r, 20))
		s.presence_penalty = 0.5f;
	if (rng_chance(r, 20))
		s.frequency_penalty = 0.3f;
	return s;
}

/* Lengths that matter are those around whole pages. */
static int random_length(struct rng *r, int max)
{
	int n = rng_chance(r, 30) ? KV_PAGE_TOKENS * rng_range(r, 1, 3) + rng_range(r, -2, 2)
				  : rng_range(r, 1, max);

	return n > max ? max : n;
}

static bool make_universe(struct universe *u, const struct kind *k, int64_t number)
{
	struct rng r = {.x = (uint64_t)number * 1000 + (uint64_t)(k - kinds)};
	int32_t base[3][CTX];

	u->kind = k;
	u->number = number;
	u->model = k->backend && !strcmp(k->backend, "cpu") ? models[number % 3] : tiny.path;
	for (int b = 0; b < 3; b++)
		for (int i = 0; i < CTX; i++)
			base[b][i] = rng_below(&r, VOCAB);
	for (int c = 0; c < CONVS; c++) {
		const int32_t *from = base[rng_below(&r, 3)];
		struct conv *v = &u->conv[c];
		struct turn *t = v->turn;
		int same = random_length(&r, 150);

		v->n_turns = rng_range(&r, 1, MAX_TURNS);
		t->n_history = 0;
		memset(t->generated, 0, CTX);
		memcpy(t->prompt, from, same * sizeof(*from));
		t->n = same;
		if (rng_chance(&r, 40)) /* the pages behind it hold the same ids, and are others */
			t->prompt[rng_below(&r, same)] = rng_below(&r, VOCAB);
		for (int i = rng_chance(&r, 50) ? rng_below(&r, 12) : 0; i > 0; i--)
			t->prompt[t->n++] = rng_below(&r, VOCAB);
		for (int i = 0;; i++, t++) {
			t->max_tokens =
				rng_chance(&r, 10) ? rng_range(&r, 60, 100) : rng_range(&r, 1, 20);
			if (t->n + t->max_tokens > CTX)
				t->max_tokens = CTX - t->n;
			t->sampling = random_sampling(&r);
			t->masked = rng_chance(&r, 30);
			t->n_logprobs = rng_chance(&r, 20) ? rng_below(&r, 8) : -1;
			t->n_bias = rng_chance(&r, 15) ? 2 : 0;
			for (int b = 0; b < t->n_bias; b++)
				t->bias[b] = (struct logit_bias){rng_below(&r, VOCAB),
								 rng_range(&r, -8, 8)};
			t->embed = i + 1 == v->n_turns && rng_chance(&r, 15);
			if (t->embed)
				t->max_tokens = 0;
			if (!run_lonely(u, t) ||
			    (!k->backend &&
			     !(t->embed ? vector_is_right(u, t) : lonely_is_right(k, t))))
				return false;
			if (i + 1 == v->n_turns || t->n + t->lonely.n + 40 > CTX) {
				v->n_turns = i + 1;
				break;
			}
			/* the next turn: the answer, maybe edited, and some more */
			t[1].n = t->n + t->lonely.n;
			memcpy(t[1].prompt, t->prompt, t->n * sizeof(*t->prompt));
			memcpy(t[1].prompt + t->n, t->lonely.id, t->lonely.n * sizeof(*t->prompt));
			memset(t[1].generated, 0, CTX);
			if (rng_chance(&r, 15))
				t[1].n = rng_range(&r, 1, t[1].n);
			t[1].n_history = 0;
			if (rng_chance(&r, 80)) { /* a client may not remember which they were */
				t[1].n_history = t[1].n;
				memcpy(t[1].generated, t->generated, t->n);
				memset(t[1].generated + t->n, 1, t->lonely.n);
				memset(t[1].generated + t[1].n, 0, CTX - t[1].n);
			}
			for (int j = rng_range(&r, 1, 20); j > 0; j--)
				t[1].prompt[t[1].n++] = rng_below(&r, VOCAB);
		}
	}
	return true;
}

/* ---- a schedule ---------------------------------------------------------------------------------- */

struct item;

/* One turn of an item, and what is done to it. Steps count from the start; -1: never. */
struct ask {
	struct item *item;
	const struct turn *turn;
	int arrival; /* -1: as soon as the turn before it has ended */
	int cancel_at; /* step */
	int cancel_after; /* tokens; the cancel comes from the event */
	int park_at, park_after, park_for;
	int unpark_at;
	int n_posted;
	struct request *req;
	struct told told;
	bool submitted, may_be_cut;
};

struct item {
	struct schedule *in;
	int session; /* -1: none */
	uint64_t principal;
	int priority;
	uint64_t deadline;
	int n_asks;
	struct ask ask[MAX_TURNS];
};

struct schedule {
	const struct universe *u;
	struct engine_opts opts;
	struct engine *en;
	int step;
	struct session *session[SESSIONS]; /* NULL: closed */
	int close_at[SESSIONS];
	int shed_at, shed_again; /* steps; memory is asked back: the cache's, and idle sessions' */
	bool closing;
	int n_items, n_pages;
	struct item item[MAX_ITEMS];
	char why[sizeof(struct err) + 80]; /* what went wrong; empty: nothing */
};

static struct coverage {
	int requests, cancelled, parked, posted, turns;
	uint64_t preempted, cached, recomputed, swapped_in, tokens, steps, shed;
} covered;

static void blame(struct schedule *s, const struct ask *a, const char *what, long long x)
{
	if (*s->why)
		return;
	if (a)
		snprintf(s->why, sizeof(s->why), "step %d, item %d, turn %d: %s (%lld)", s->step,
			 (int)(a->item - s->item), (int)(a - a->item->ask), what, x);
	else
		snprintf(s->why, sizeof(s->why), "step %d: %s (%lld)", s->step, what, x);
}

static void submit(struct ask *a);

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct ask *a = ctx;
	struct schedule *s = a->item->in;

	told_event(&a->told, VOCAB, ev);
	if (ev->kind == ENGINE_TOKEN) {
		if (a->told.n == a->cancel_after)
			engine_cancel(r);
		if (a->told.n == a->park_after) {
			engine_park(r, true);
			a->unpark_at = s->step + a->park_for;
			covered.parked++;
		}
	}
	if (a->told.ended) {
		struct ask *next = a + 1;

		a->req = NULL;
		if (next < a->item->ask + a->item->n_asks && next->arrival < 0 && !s->closing)
			submit(next);
	}
}

static void submit(struct ask *a)
{
	struct schedule *s = a->item->in;
	struct request_params p = turn_params(a->turn);
	struct err e;

	if (a->submitted)
		return;
	a->submitted = true;
	if (a->item->session >= 0) {
		p.session = s->session[a->item->session];
		if (!p.session) { /* closed meanwhile: nobody is there to ask */
			a->told.ended = 1;
			a->told.end = ENGINE_DONE;
			a->told.finish = FINISH_CANCELLED;
			return;
		}
	}
	if (a->turn->embed)
		p.session = NULL;
	p.principal = a->item->principal;
	p.priority = a->item->priority;
	p.deadline_ns = a->item->deadline;
	p.posted = a->turn->lonely.id;
	p.n_posted = a->n_posted;
	p.on_event = on_event;
	p.ctx = a;
	covered.requests++;
	covered.posted += a->n_posted > 0;
	covered.turns += a > a->item->ask;
	if (engine_submit(s->en, &p, &a->req, &e)) {
		a->req = NULL;
		a->told.ended = 1;
		blame(s, a, e.msg, 0);
	}
}

static void random_ask(struct rng *r, struct ask *a, const struct turn *t, int arrival)
{
	*a = (struct ask){.turn = t, .arrival = arrival, .cancel_at = -1, .park_at = -1};
	a->unpark_at = -1;
	if (rng_chance(r, 10))
		a->cancel_at = rng_below(r, 150);
	if (rng_chance(r, 10))
		a->cancel_after = rng_range(r, 1, 20);
	if (rng_chance(r, 15))
		a->park_at = rng_below(r, 100);
	if (rng_chance(r, 10))
		a->park_after = rng_range(r, 1, 10);
	a->park_for = rng_range(r, 1, 60);
	if (rng_chance(r, 20))
		a->n_posted = rng_range(r, 0, t->lonely.n);
	a->may_be_cut = a->cancel_at >= 0 || a->cancel_after;
}

static void random_items(struct schedule *s, struct rng *r)
{
	int spread = rng_chance(r, 30) ? 1 : rng_range(r, 2, 120), principals = rng_range(r, 1, 4);
	bool sessions = rng_chance(r, 80);
	int convs = rng_chance(r, 20) ? rng_range(r, 1, 2) : CONVS; /* few: a crowd asks the same */
	int first = rng_below(r, CONVS - convs + 1);

	s->n_items = rng_range(r, 2, MAX_ITEMS);
	for (int i = 0; i < s->n_items; i++) {
		const struct conv *c = &s->u->conv[first + rng_below(r, convs)];
		struct item *it = &s->item[i];
		int at = rng_below(r, spread);

		*it = (struct item){.in = s, .session = -1, .n_asks = rng_range(r, 1, c->n_turns)};
		it->principal = rng_below(r, principals);
		if (rng_chance(r, 50))
			it->priority = rng_range(r, -20, 19);
		if (rng_chance(r, 30))
			/* long ago, or never: no seed must hang on the time */
			it->deadline = rng_chance(r, 50) ? 1 : UINT64_MAX;
		if (sessions && rng_chance(r, 70))
			it->session = rng_below(r, SESSIONS);
		for (int k = 0; k < it->n_asks; k++) {
			random_ask(r, &it->ask[k], &c->turn[k], k ? -1 : at);
			it->ask[k].item = it;
			/* now and then it does not wait for the answer before */
			if (k && rng_chance(r, 20))
				it->ask[k].arrival = at += rng_below(r, 40);
		}
	}
	for (int i = 0; i < SESSIONS; i++)
		s->close_at[i] = rng_chance(r, 10) ? rng_below(r, 200) : -1;
	s->shed_at = rng_chance(r, 30) ? rng_below(r, 200) : -1;
	s->shed_again = rng_chance(r, 30) ? rng_below(r, 200) : -1;
}

static void random_options(struct schedule *s, struct rng *r)
{
	static const int chunks[] = {1, 7, 64, 256};
	struct engine_opts *o = &s->opts;
	size_t slot = (s->u->page_bytes + 4095) & ~(size_t)4095; /* of the swap file */
	int need = 0;

	for (int i = 0; i < s->n_items; i++)
		for (int k = 0; k < s->item[i].n_asks; k++) {
			const struct turn *t = s->item[i].ask[k].turn;
			int pages = kv_pages_for(t->n + t->max_tokens);

			need = pages > need ? pages : need;
		}
	*o = (struct engine_opts){.threads = rng_chance(r, 15) ? 2 : 1};
	o->chunk = chunks[rng_below(r, 4)];
	o->max_seqs = rng_range(r, 1, 9);
	s->n_pages = need + (rng_chance(r, 60) ? rng_below(r, 6) : rng_below(r, 60));
	o->kv_bytes = s->n_pages * s->u->page_bytes;
	if (rng_chance(r, 30))
		o->prefix_bytes =
			rng_chance(r, 50) ? -1 : (int64_t)rng_range(r, 1, 6) * s->u->page_bytes;
	if (rng_chance(r, 25)) {
		o->swap_dir = tiny.dir;
		o->swap_bytes = rng_chance(r, 50) ? 0 : rng_range(r, 1, 8) * slot;
	}
}

static void describe(const struct schedule *s)
{
	const struct engine_opts *o = &s->opts;

	printf("# chunk %d, %d places, %d pages, %d threads, prefix %lld, swap %s of %llu\n",
	       o->chunk, o->max_seqs, s->n_pages, o->threads, (long long)o->prefix_bytes,
	       o->swap_dir ? o->swap_dir : "off", (unsigned long long)o->swap_bytes);
	for (int i = 0; i < s->n_items; i++)
		for (int k = 0; k < s->item[i].n_asks; k++) {
			const struct item *it = &s->item[i];
			const struct ask *a = &it->ask[k];

			printf("# item %d turn %d: principal %d priority %d session %d arrival %d "
			       "prompt %d max %d posted %d cancel at %d after %d, park at %d after "
			       "%d for %d\n",
			       i, k, (int)it->principal, it->priority, it->session, a->arrival,
			       a->turn->n, a->turn->max_tokens, a->n_posted, a->cancel_at,
			       a->cancel_after, a->park_at, a->park_after, a->park_for);
		}
}

/* What the script has for this step. */
static void act(struct schedule *s)
{
	for (int i = 0; i < SESSIONS; i++)
		if (s->close_at[i] == s->step && s->session[i]) {
			for (int k = 0; k < s->n_items; k++)
				for (int t = 0; t < MAX_TURNS; t++)
					if (s->item[k].session == i)
						s->item[k].ask[t].may_be_cut = true;
			s->closing = true;
			engine_session_close(s->session[i]);
			s->closing = false;
			s->session[i] = NULL;
		}
	if (s->shed_at == s->step)
		covered.shed += engine_shed_cache(s->en);
	if (s->shed_again == s->step)
		covered.shed += engine_shed_idle(s->en);
	for (int i = 0; i < s->n_items; i++)
		for (int k = 0; k < s->item[i].n_asks; k++) {
			struct ask *a = &s->item[i].ask[k], *before = a - 1;

			if (a->arrival == s->step ||
			    (k && a->arrival < 0 && before->submitted && before->told.ended))
				submit(a);
			if (!a->req)
				continue;
			if (a->cancel_at == s->step)
				engine_cancel(a->req);
			if (a->park_at == s->step) {
				engine_park(a->req, true);
				a->unpark_at = s->step + a->park_for;
				covered.parked++;
			}
			if (a->unpark_at == s->step)
				engine_park(a->req, false);
		}
}

/* Requests that have not ended; -1: some have not even arrived. */
static int unfinished(const struct schedule *s)
{
	int n = 0;

	for (int i = 0; i < s->n_items; i++)
		for (int k = 0; k < s->item[i].n_asks; k++) {
			const struct ask *a = &s->item[i].ask[k];

			if (!a->submitted)
				return -1;
			n += !a->told.ended;
		}
	return n;
}

static void check_ask(struct schedule *s, const struct ask *a)
{
	const struct told *t = &a->told, *l = &a->turn->lonely;
	int from = a->n_posted, n = t->n;

	if (t->disorder)
		blame(s, a, t->disorder, 0);
	if (t->ended != 1)
		blame(s, a, "ends that it had", t->ended);
	if (t->end != ENGINE_DONE)
		blame(s, a, "ended in an error", t->error);
	for (int i = 0; i < n && from + i < l->n; i++) {
		if (t->id[i] != l->id[from + i])
			blame(s, a, "another id than alone, token", i);
		if (t->hash[i] != l->hash[from + i])
			blame(s, a, "other logits than alone, token", i);
	}
	if (from + n > l->n)
		blame(s, a, "more tokens than alone", from + n);
	if (t->finish == FINISH_CANCELLED && a->may_be_cut) {
		covered.cancelled++;
		return;
	}
	if (t->n_vectors != l->n_vectors || (l->n_vectors && t->vector != l->vector))
		blame(s, a, "another vector than alone, vectors", t->n_vectors);
	if (t->finish != l->finish || from + n != l->n)
		blame(s, a, "not finished as alone, tokens", from + n);
	if (t->prompt_tokens != a->turn->n || t->completion_tokens != l->n ||
	    t->cached_tokens < 0 || t->cached_tokens > t->prompt_tokens)
		blame(s, a, "wrong usage, cached", t->cached_tokens);
}

static void check_end(struct schedule *s)
{
	struct engine *en = s->en;
	struct engine_stats st;

	for (int i = 0; i < s->n_items; i++)
		for (int k = 0; k < s->item[i].n_asks; k++)
			check_ask(s, &s->item[i].ask[k]);
	for (int i = 0; i < SESSIONS; i++)
		if (s->session[i])
			engine_session_close(s->session[i]);
	engine_stats(en, &st);
	if (kv_available(&en->kv) != en->kv.n_pages || st.kv_held)
		blame(s, NULL, "pages that did not come back",
		      en->kv.n_pages - kv_available(&en->kv));
	if (st.running || st.waiting || st.parked || st.sessions)
		blame(s, NULL, "something is left in the engine", st.sessions);
	if (st.submitted != st.done + st.cancelled + st.failed)
		blame(s, NULL, "requests submitted, but not counted out", st.submitted);
	if (!s->u->kind->backend && ((struct witness *)en->backend)->complaint)
		blame(s, NULL, ((struct witness *)en->backend)->complaint, 0);
	covered.preempted += st.preempted;
	covered.cached += st.cached_tokens;
	covered.recomputed += st.recomputed_tokens;
	covered.swapped_in += st.swapped_in;
	covered.tokens += st.generated_tokens;
	covered.steps += s->step;
}

static bool run_schedule(struct schedule *s, const struct universe *u, int64_t seed)
{
	struct rng r = {.x = (uint64_t)seed * 7919};
	int rows = 0, last = 400, rc = 1;
	struct engine_stats st;
	struct err e;

	memset(s, 0, sizeof(*s));
	s->u = u;
	random_items(s, &r);
	random_options(s, &r);
	if (verbose)
		describe(s);
	s->en = open_engine(u, &s->opts);
	if (!s->en) {
		blame(s, NULL, "the engine does not open", 0);
		return false;
	}
	for (int i = 0; i < SESSIONS; i++)
		engine_session_open(s->en, &s->session[i], NULL);
	for (int i = 0; i < s->n_items; i++)
		for (int k = 0; k < s->item[i].n_asks; k++)
			rows += s->item[i].ask[k].turn->n + s->item[i].ask[k].turn->max_tokens;
	/* Whatever it does, it must come to an end; parked ones are let go by the script. */
	while (rc >= 0 && !*s->why && unfinished(s)) {
		act(s);
		rc = engine_step(s->en, &e);
		engine_stats(s->en, &st);
		if (rc < 0)
			blame(s, NULL, e.msg, rc);
		else if (st.kv_held + st.kv_cached + st.kv_free != st.kv_pages)
			blame(s, NULL, "pages held, cached and free are not all", st.kv_held);
		else if (++s->step > last + 60 * MAX_TURNS + 20 * rows)
			blame(s, NULL, "no end of it; unfinished", unfinished(s));
	}
	if (!*s->why)
		check_end(s);
	s->closing = true;
	engine_close(s->en);
	return !*s->why;
}

static void run_seeds(const struct kind *k, int from, int n)
{
	static struct schedule s;
	struct universe *u = calloc(1, sizeof(*u));
	int bad = 0, done = 0;

	if (!u)
		return;
	u->number = -1;
	memset(&covered, 0, sizeof(covered));
	for (int seed = from; seed < from + n && bad < 5; seed++) {
		int64_t number = seed / k->per_universe;

		if (u->number != number && !make_universe(u, k, number)) {
			CHECK(false, "%s: universe %d: the lonely runs", k->name, (int)number);
			free(u);
			return;
		}
		done++;
		if (run_schedule(&s, u, seed))
			continue;
		bad++;
		printf("# %s\n# again: LLM_SEED=%s:%d $LLMDEV_BUILD/tests/test_schedule\n", s.why,
		       k->name, seed);
	}
	CHECK(!bad,
	      "%s: %d random schedules, %d requests: every answer is bitwise the lonely one (%d "
	      "are "
	      "not)",
	      k->name, done, covered.requests, bad);
	printf("# %s: %llu tokens in %llu steps; %d cancelled, %d parked, %d replayed, %d later "
	       "turns; %llu preempted, %llu tokens cached, %llu computed again, %llu pages swapped "
	       "in, %llu bytes shed\n",
	       k->name, (unsigned long long)covered.tokens, (unsigned long long)covered.steps,
	       covered.cancelled, covered.parked, covered.posted, covered.turns,
	       (unsigned long long)covered.preempted, (unsigned long long)covered.cached,
	       (unsigned long long)covered.recomputed, (unsigned long long)covered.swapped_in,
	       (unsigned long long)covered.shed);
	free(u);
}

int main(void)
{
	const char *one = getenv("LLM_SEED"), *times = getenv("LLM_SEEDS");
	double factor = times ? atof(times) : SANITIZED ? 0.1 : 1;

	if (!tiny_model_make(&tiny, VOCAB, NULL))
		return 1;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const struct kind *k = &kinds[i];
		size_t len = strlen(k->name);

		verbose = one && strchr(one, ':');
		if (!one || !strcmp(one, k->name))
			run_seeds(k, 0, (int)(k->seeds * factor));
		else if (!strncmp(one, k->name, len) && one[len] == ':')
			run_seeds(k, atoi(one + len + 1), 1);
	}
	tiny_model_remove(&tiny);
	return tap_done();
}
