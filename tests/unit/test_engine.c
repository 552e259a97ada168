// SPDX-License-Identifier: MIT
/*
 * The engine's promises on the built-in model: row invariance, sessions, cancellation, replay,
 * parking, admission. Both backends run every case.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "engine/engine_internal.h"
#include "tests/tap.h"

#define MODEL	  "tools/demo/model"
#define MAX_TOK	  96
#define MAX_BYTES 4096

/* What one request gave. */
struct run {
	int32_t id[MAX_TOK];
	uint64_t hash[MAX_TOK]; /* of the logits each id was drawn from */
	uint64_t bytes[MAX_TOK]; /* text given out up to and including each id */
	int n;
	char text[MAX_BYTES];
	uint64_t len;
	bool ended;
	struct engine_event done;
	int cancel_after; /* > 0: cancel when n reaches it */
	int32_t only; /* what only_id() lets through */
};

static uint64_t hash_floats(const float *x, int n)
{
	return fnv1a(FNV_START, x, n * sizeof(*x));
}

static void on_event(void *ctx, struct request *req, const struct engine_event *ev)
{
	struct run *r = ctx;

	if ((ev->kind == ENGINE_TOKEN || ev->kind == ENGINE_DONE) &&
	    r->len + ev->text_len < MAX_BYTES) {
		if (ev->text_len)
			memcpy(r->text + r->len, ev->text, ev->text_len);
		r->len += ev->text_len;
	}
	if (ev->kind == ENGINE_TOKEN && r->n < MAX_TOK) {
		r->hash[r->n] = hash_floats(ev->logits, engine_info(req->en)->vocab);
		r->bytes[r->n] = r->len;
		r->id[r->n++] = ev->id;
		if (r->n == r->cancel_after)
			engine_cancel(req);
	}
	if (ev->kind == ENGINE_DONE || ev->kind == ENGINE_ERROR) {
		r->done = *ev;
		r->ended = true;
	}
}

struct prompt {
	int32_t id[160];
	int n;
};

static void random_prompt(struct prompt *p, int n, int vocab)
{
	p->n = n;
	for (int i = 0; i < n; i++)
		p->id[i] = rand() % (vocab < 1000 ? vocab : 1000);
}

static struct request_params params(const struct prompt *p, struct run *r, int max_tokens)
{
	struct request_params q = {.prompt = p->id,
				   .n_prompt = p->n,
				   .max_tokens = max_tokens,
				   .n_logprobs = -1,
				   .on_event = on_event,
				   .ctx = r};

	q.sampling = (struct sampling){.temperature = 0.9f,
				       .top_p = 0.95f,
				       .repeat_penalty = 1,
				       .seed = 11,
				       .ignore_eos = true};
	return q;
}

static void drain(struct engine *en)
{
	struct err e;

	for (int i = 0; i < 10000 && engine_step(en, &e) > 0; i++)
		;
}

static struct engine *open_engine(const char *backend, int threads, int chunk, size_t kv_bytes)
{
	struct engine_opts o = {.model = MODEL,
				.backend = backend,
				.threads = threads,
				.chunk = chunk,
				.kv_type = -1,
				.kv_bytes = kv_bytes,
				.ctx = 256,
				.max_seqs = 9};
	struct engine *en = NULL;
	struct err e;

	if (engine_open(&en, &o, &e))
		printf("# %s\n", e.msg);
	return en;
}

static void run_alone(struct engine *en, const struct prompt *p, struct run *r, int max_tokens)
{
	struct request_params q = params(p, r, max_tokens);

	memset(r, 0, sizeof(*r));
	if (!engine_submit(en, &q, NULL, NULL))
		drain(en);
}

static bool same_run(const struct run *a, const struct run *b)
{
	return a->n == b->n && !memcmp(a->id, b->id, a->n * sizeof(*a->id)) &&
	       !memcmp(a->hash, b->hash, a->n * sizeof(*a->hash)) && a->len == b->len &&
	       !memcmp(a->text, b->text, a->len);
}

static void test_row_invariance(const char *backend)
{
	enum { NEIGHBOURS = 8 };
	static const struct {
		int threads, chunk;
	} how[] = {{1, 1}, {2, 7}, {1, 64}, {2, 256}};
	struct prompt p, other[NEIGHBOURS];
	struct run alone, crowd, neighbour[NEIGHBOURS];
	struct engine *en = open_engine(backend, 1, 256, 0);

	REQUIRE(en, "%s: opens", backend);
	srand(5);
	random_prompt(&p, 77, engine_info(en)->vocab);
	run_alone(en, &p, &alone, 24);
	CHECK(alone.ended && alone.n == 24, "%s: generates 24 tokens", backend);
	engine_close(en);

	for (size_t k = 0; k < sizeof(how) / sizeof(how[0]); k++) {
		en = open_engine(backend, how[k].threads, how[k].chunk, 0);
		REQUIRE(en, "%s: opens", backend);
		run_alone(en, &p, &crowd, 24);
		CHECK(same_run(&alone, &crowd),
		      "%s: bitwise the same logits with %d threads, chunks of %d", backend,
		      how[k].threads, how[k].chunk);
		for (int i = 0; i < NEIGHBOURS; i++) {
			struct request_params q;

			memset(&neighbour[i], 0, sizeof(neighbour[i]));
			random_prompt(&other[i], 1 + rand() % 150, engine_info(en)->vocab);
			q = params(&other[i], &neighbour[i], 1 + rand() % 40);
			q.sampling.seed = i;
			CHECK(!engine_submit(en, &q, NULL, NULL), "%s: neighbour %d", backend, i);
			if (i == NEIGHBOURS / 2) {
				memset(&crowd, 0, sizeof(crowd));
				q = params(&p, &crowd, 24);
				engine_submit(en, &q, NULL, NULL);
			}
		}
		drain(en);
		CHECK(same_run(&alone, &crowd),
		      "%s: and among %d random neighbours (%d threads, chunks of %d)", backend,
		      NEIGHBOURS, how[k].threads, how[k].chunk);
		CHECK(kv_available(&en->kv) == en->kv.n_pages, "%s: every page is back", backend);
		engine_close(en);
	}
}

static void test_sessions(struct engine *en, const char *backend)
{
	struct prompt p;
	struct run first, second, fresh;
	struct session *s = NULL;
	struct request_params q;

	random_prompt(&p, 70, engine_info(en)->vocab);
	CHECK(!engine_session_open(en, &s, NULL), "%s: session opens", backend);
	memset(&first, 0, sizeof(first));
	q = params(&p, &first, 10);
	q.session = s;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	CHECK(first.done.cached_tokens == 0 && first.done.prompt_tokens == 70,
	      "%s: first turn: nothing cached", backend);
	/* the next turn: the answer and five more */
	memcpy(p.id + p.n, first.id, first.n * sizeof(*p.id));
	p.n += first.n;
	for (int i = 0; i < 5; i++)
		p.id[p.n++] = 3 + i;
	memset(&second, 0, sizeof(second));
	q = params(&p, &second, 10);
	q.session = s;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	CHECK(second.done.cached_tokens == 79,
	      "%s: second turn reuses all that was computed: %d of 85", backend,
	      second.done.cached_tokens);
	run_alone(en, &p, &fresh, 10);
	CHECK(same_run(&second, &fresh), "%s: a reused prefix changes no bit", backend);
	p.n = 40; /* history edited: shorter and different */
	p.id[30] ^= 1;
	memset(&second, 0, sizeof(second));
	q = params(&p, &second, 10);
	q.session = s;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	run_alone(en, &p, &fresh, 10);
	CHECK(second.done.cached_tokens == 30 && same_run(&second, &fresh),
	      "%s: an edited history is computed from the edit on", backend);
	engine_session_close(s);
	CHECK(kv_available(&en->kv) == en->kv.n_pages, "%s: closing gives every page back",
	      backend);
}

/* Conversations that begin alike share pages; those of another principal do not. */
static void test_prefix_cache(const char *backend)
{
	enum { CROWD = 6 };
	struct engine *en = open_engine(backend, 2, 64, 0);
	struct run first, again, crowd[CROWD] = {0}, other;
	struct engine_stats before, after;
	struct request_params q;
	struct prompt p;
	int held;

	REQUIRE(en, "%s: opens", backend);
	random_prompt(&p, 150, engine_info(en)->vocab);
	run_alone(en, &p, &first, 30);
	CHECK(first.done.cached_tokens == 0, "%s: nothing is cached at first", backend);
	run_alone(en, &p, &again, 30);
	CHECK(again.done.cached_tokens == 128 && same_run(&first, &again),
	      "%s: two full pages are found again (%d tokens), and change no bit", backend,
	      again.done.cached_tokens);
	memset(&other, 0, sizeof(other));
	q = params(&p, &other, 30);
	q.principal = 7;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	CHECK(other.done.cached_tokens == 0 && same_run(&first, &other),
	      "%s: another principal finds nothing", backend);
	for (int i = 0; i < CROWD; i++) { /* at once: they share, and do not disturb each other */
		q = params(&p, &crowd[i], 30);
		q.sampling.seed = i < CROWD / 2 ? 11 : 100 + i;
		engine_submit(en, &q, NULL, NULL);
	}
	while (!crowd[CROWD - 1].n)
		engine_step(en, NULL);
	held = en->kv.n_pages - kv_available(&en->kv);
	CHECK(held == 2 + CROWD, "%s: %d requests hold 2 shared pages and one each: %d", backend,
	      CROWD, held);
	drain(en);
	for (int i = 0; i < CROWD / 2; i++)
		CHECK(same_run(&first, &crowd[i]), "%s: request %d of a crowd with one prefix",
		      backend, i);
	p.id[0] ^= 1; /* all new, and at once: one computes what they share */
	memset(crowd, 0, sizeof(crowd));
	engine_stats(en, &before);
	for (int i = 0; i < CROWD; i++) {
		q = params(&p, &crowd[i], 30);
		engine_submit(en, &q, NULL, NULL);
	}
	drain(en);
	engine_stats(en, &after);
	CHECK(after.computed_tokens - before.computed_tokens == 128 + CROWD * 22 &&
		      crowd[0].done.cached_tokens + crowd[1].done.cached_tokens == 128,
	      "%s: %d that arrive together compute their common beginning once: %d tokens", backend,
	      CROWD, (int)(after.computed_tokens - before.computed_tokens));
	for (int i = 1; i < CROWD; i++)
		CHECK(same_run(&crowd[0], &crowd[i]), "%s: with the same answer, request %d",
		      backend, i);
	CHECK(kv_available(&en->kv) == en->kv.n_pages, "%s: every page is back", backend);
	engine_close(en);
}

/*
 * Conversations that are edited, cut and continued at random, several from the same few beginnings,
 * in a pool too small for all: every answer equals the lonely one.
 */
static void test_prefix_random(const char *backend, int rounds)
{
	enum { SESSIONS = 5 };
	struct engine *lonely = open_engine(backend, 1, 256, 0), *en;
	size_t page = lonely ? lonely->kv.page_bytes : 0;
	struct session *s[SESSIONS];
	int bad = 0, cached = 0;
	struct prompt base[2];

	en = open_engine(backend, 2, 48, 9 * page);
	REQUIRE(lonely && en, "%s: opens twice", backend);
	for (int i = 0; i < 2; i++)
		random_prompt(&base[i], 160, engine_info(en)->vocab);
	for (int i = 0; i < SESSIONS; i++)
		engine_session_open(en, &s[i], NULL);
	for (int round = 0; round < rounds; round++) {
		struct run got[SESSIONS] = {0}, want;
		struct prompt p[SESSIONS];

		for (int i = 0; i < SESSIONS; i++) {
			struct request_params q;

			p[i] = base[rand() % 2];
			p[i].n = 1 + rand() % 160;
			if (rand() % 2)
				p[i].id[rand() % p[i].n] = rand() % 50;
			q = params(&p[i], &got[i], 1 + rand() % 12);
			q.session = rand() % 4 ? s[i] : NULL;
			q.principal = rand() % 2;
			engine_submit(en, &q, NULL, NULL);
		}
		drain(en);
		for (int i = 0; i < SESSIONS; i++) {
			struct request_params q = params(&p[i], &want, got[i].n);

			memset(&want, 0, sizeof(want));
			q.principal = 1000 + round * SESSIONS + i; /* finds nothing */
			engine_submit(lonely, &q, NULL, NULL);
			drain(lonely);
			bad += !got[i].n || !same_run(&got[i], &want);
			cached += got[i].done.cached_tokens;
		}
	}
	CHECK(!bad, "%s: %d random answers equal the lonely ones bit for bit (%d do not)", backend,
	      rounds * SESSIONS, bad);
	CHECK(cached > rounds * 10, "%s: and %d prompt tokens were not computed", backend, cached);
	for (int i = 0; i < SESSIONS; i++)
		engine_session_close(s[i]);
	CHECK(kv_available(&en->kv) == en->kv.n_pages, "%s: every page is back", backend);
	engine_close(en);
	engine_close(lonely);
}

static void test_replay(struct engine *en, const char *backend)
{
	struct prompt p;
	struct run whole, rest;
	int bad = 0;

	random_prompt(&p, 33, engine_info(en)->vocab);
	run_alone(en, &p, &whole, 40);
	for (int k = 0; k <= whole.n; k++) {
		struct request_params q = params(&p, &rest, 40);
		uint64_t before = k ? whole.bytes[k - 1] : 0;

		memset(&rest, 0, sizeof(rest));
		q.posted = whole.id;
		q.n_posted = k;
		q.posted_bytes = before;
		engine_submit(en, &q, NULL, NULL);
		drain(en);
		bad += rest.done.kind != ENGINE_DONE || rest.n != whole.n - k ||
		       memcmp(rest.id, whole.id + k, rest.n * sizeof(*rest.id)) ||
		       memcmp(rest.hash, whole.hash + k, rest.n * sizeof(*rest.hash)) ||
		       rest.len != whole.len - before ||
		       memcmp(rest.text, whole.text + before, rest.len) ||
		       rest.done.completion_tokens != whole.n;
	}
	CHECK(!bad, "%s: replay at each of %d points continues bit for bit (%d do not)", backend,
	      whole.n + 1, bad);
	struct request_params q = params(&p, &rest, 40);

	memset(&rest, 0, sizeof(rest));
	q.posted = whole.id;
	q.n_posted = 5;
	q.posted_bytes = whole.bytes[4] + 1;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	CHECK(rest.done.kind == ENGINE_ERROR && rest.done.error == EILSEQ && !rest.n,
	      "%s: posted bytes that do not fit end in an error, not in a continuation", backend);
}

static void test_stop(struct engine *en, const char *backend)
{
	struct prompt p;
	struct run whole, cut, rest;
	struct request_params q;
	char stop[8] = {0};
	const char *list[1] = {stop}, *at;
	int k;

	random_prompt(&p, 20, engine_info(en)->vocab);
	run_alone(en, &p, &whole, 60);
	if (whole.len < 30) {
		CHECK(false, "%s: the model gives text to stop in", backend);
		return;
	}
	memcpy(stop, whole.text + whole.len / 2, 4);
	at = memmem(whole.text, whole.len, stop, 4);
	memset(&cut, 0, sizeof(cut));
	q = params(&p, &cut, 60);
	q.stop = list;
	q.n_stop = 1;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	CHECK(cut.done.finish == FINISH_STOP && cut.len == (uint64_t)(at - whole.text) &&
		      !memcmp(cut.text, whole.text, cut.len),
	      "%s: a stop string ends the text before it", backend);
	for (k = 0; k <= cut.n; k++) {
		uint64_t before = k ? cut.bytes[k - 1] : 0;

		memset(&rest, 0, sizeof(rest));
		q.ctx = &rest;
		q.posted = cut.id;
		q.n_posted = k;
		q.posted_bytes = before;
		engine_submit(en, &q, NULL, NULL);
		drain(en);
		if (rest.done.finish != FINISH_STOP || rest.len != cut.len - before ||
		    memcmp(rest.text, cut.text + before, rest.len))
			break;
	}
	CHECK(k == cut.n + 1,
	      "%s: replay across a stop string, at each of %d points (failed at %d)", backend,
	      cut.n + 1, k);
}

static void test_cancel(struct engine *en, const char *backend)
{
	int bad = 0;

	for (int k = 1; k <= 12; k++) {
		struct prompt p;
		struct run r = {.cancel_after = k};
		struct request_params q;

		random_prompt(&p, 10 * k, engine_info(en)->vocab);
		q = params(&p, &r, 40);
		engine_submit(en, &q, NULL, NULL);
		drain(en);
		bad += r.n != k || r.done.finish != FINISH_CANCELLED ||
		       kv_available(&en->kv) != en->kv.n_pages;
	}
	CHECK(!bad, "%s: cancelled after each of 12 tokens: ends there, pages back", backend);
	for (int steps = 0; steps < 6; steps++) {
		struct prompt p;
		struct run r = {0};
		struct request *req;
		struct request_params q;

		random_prompt(&p, 150, engine_info(en)->vocab);
		q = params(&p, &r, 40);
		engine_submit(en, &q, &req, NULL);
		for (int i = 0; i < steps; i++)
			engine_step(en, NULL);
		if (!r.ended)
			engine_cancel(req);
		drain(en);
		bad += r.done.finish != FINISH_CANCELLED || kv_available(&en->kv) != en->kv.n_pages;
	}
	CHECK(!bad, "%s: cancelled in the queue and in the middle of the prompt", backend);
}

static void test_park(struct engine *en, const char *backend)
{
	struct prompt p;
	struct run r = {0}, other, alone;
	struct request *req;
	struct request_params q;
	int n;

	random_prompt(&p, 30, engine_info(en)->vocab);
	run_alone(en, &p, &alone, 20);
	q = params(&p, &r, 20);
	engine_submit(en, &q, &req, NULL);
	while (r.n < 5)
		engine_step(en, NULL);
	engine_park(req, true);
	n = r.n;
	CHECK(engine_runnable(en) == 0, "%s: nothing to run while the only request is parked",
	      backend);
	memset(&other, 0, sizeof(other));
	q.ctx = &other;
	engine_submit(en, &q, NULL, NULL);
	while (!other.ended)
		engine_step(en, NULL);
	CHECK(r.n == n && other.n == 20, "%s: a parked request stands still, others run", backend);
	engine_park(req, false);
	drain(en);
	CHECK(same_run(&r, &alone), "%s: and goes on as if nothing had been", backend);
}

static void test_admission(const char *backend)
{
	struct engine *en = open_engine(backend, 1, 64, 1);
	struct request_params q;
	struct session *s[3];
	struct prompt p;
	struct run r[6] = {0};
	size_t page;
	struct err e;

	if (en)
		engine_close(en);
	CHECK(!en, "%s: a KV pool smaller than a page is refused", backend);
	en = open_engine(backend, 1, 64, 0);
	REQUIRE(en, "%s: opens", backend);
	page = en->kv.page_bytes;
	engine_close(en);
	en = open_engine(backend, 1, 64, 3 * page); /* 192 tokens */
	REQUIRE(en, "%s: opens with three pages", backend);
	random_prompt(&p, 100, engine_info(en)->vocab);
	q = params(&p, &r[0], 100);
	CHECK(engine_submit(en, &q, NULL, &e) == -E2BIG && strstr(e.msg, "4 pages"),
	      "%s: what can never fit is refused with the sum: %s", backend, e.msg);
	for (int i = 0; i < 3; i++) { /* each takes two pages: they cannot run together */
		CHECK(!engine_session_open(en, &s[i], NULL), "%s: session %d", backend, i);
		q = params(&p, &r[i], 20);
		q.session = s[i];
		CHECK(!engine_submit(en, &q, NULL, NULL), "%s: request %d", backend, i);
	}
	drain(en);
	for (int i = 0; i < 3; i++)
		CHECK(r[i].n == 20,
		      "%s: request %d ran when pages were free (idle sessions give theirs)",
		      backend, i);
	q = params(&p, &r[3], 20);
	q.session = s[0]; /* its cache was taken: computed again */
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	CHECK(same_run(&r[3], &r[0]), "%s: a conversation whose pages were taken is computed again",
	      backend);
	q = params(&p, &r[4], 20);
	q.prompt = (const int32_t[]){5, -1};
	q.n_prompt = 2;
	CHECK(engine_submit(en, &q, NULL, &e) == -EINVAL, "%s: ids out of range: %s", backend,
	      e.msg);
	q.n_prompt = 0;
	CHECK(engine_submit(en, &q, NULL, &e) == -EINVAL, "%s: empty prompt: %s", backend, e.msg);
	q.prompt = p.id;
	q.n_prompt = 100000;
	CHECK(engine_submit(en, &q, NULL, &e) == -E2BIG, "%s: too long a prompt: %s", backend,
	      e.msg);
	for (int i = 0; i < 3; i++)
		engine_session_close(s[i]);
	engine_close(en);
}

/* ---- what a draw is bound to ----------------------------------------------------------------- */

struct bound {
	struct run run;
	int asked; /* times that the mask was asked for */
	int seen; /* ids told so far, replayed ones included */
	int misplaced; /* asked when not all ids had been told */
	int only; /* > 0: after so many ids nothing may follow */
	uint64_t mask[64]; /* of 4096 ids */
	int n_logprobs, bad_logprobs;
};

/* Every third id, beginning elsewhere each time. */
static const uint64_t *every_third(void *ctx, struct request *req)
{
	struct bound *b = ctx;

	b->misplaced += b->seen != req->n_generated;
	b->asked++;
	memset(b->mask, 0, sizeof(b->mask));
	for (int i = b->seen % 3; i < 4096 && !(b->only && b->seen >= b->only); i += 3)
		b->mask[i / 64] |= (uint64_t)1 << i % 64;
	return b->mask;
}

static void on_bound(void *ctx, struct request *req, const struct engine_event *ev)
{
	struct bound *b = ctx;

	b->seen += ev->kind == ENGINE_TOKEN || ev->kind == ENGINE_REPLAYED;
	if (ev->kind == ENGINE_TOKEN) {
		b->n_logprobs += ev->n_logprobs;
		b->bad_logprobs += ev->n_logprobs && (ev->logprobs[0].id != ev->id ||
						      !(ev->logprobs[0].logprob <= 0));
	}
	on_event(&b->run, req, ev);
}

static struct request_params bound_params(const struct prompt *p, struct bound *b, int n)
{
	struct request_params q = params(p, &b->run, n);

	memset(b, 0, sizeof(*b));
	q.ctx = b;
	q.on_event = on_bound;
	q.mask = every_third;
	return q;
}

static void test_bound(struct engine *en, const char *backend)
{
	static struct bound whole, rest;
	const struct logit_bias bias[] = {{9, 1000}},
				beyond[] = {{3, 1}, {engine_info(en)->vocab, 1}};
	struct request_params q;
	struct prompt p;
	struct err e;
	bool ok = true;

	random_prompt(&p, 30, engine_info(en)->vocab);
	q = bound_params(&p, &whole, 20);
	q.n_logprobs = 3;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	for (int i = 0; i < whole.run.n; i++)
		ok &= whole.run.id[i] % 3 == i % 3;
	CHECK(ok && whole.run.n == 20 && whole.asked == 20 && !whole.misplaced,
	      "%s: a mask is asked for before each draw, and kept to", backend);
	CHECK(whole.n_logprobs == 20 * 4 && !whole.bad_logprobs,
	      "%s: each id with its log-probability and three more", backend);
	for (int k = 0; k <= 20; k += 7) {
		q = bound_params(&p, &rest, 20);
		q.posted = whole.run.id;
		q.n_posted = k;
		q.posted_bytes = UINT64_MAX;
		engine_submit(en, &q, NULL, NULL);
		drain(en);
		CHECK(rest.run.n == 20 - k && rest.asked == 20 - k && !rest.misplaced &&
			      rest.seen == 20 &&
			      !memcmp(rest.run.id, whole.run.id + k, rest.run.n * sizeof(int32_t)),
		      "%s: %d replayed ids are told and not asked for", backend, k);
	}
	q = bound_params(&p, &rest, 20);
	rest.only = 6;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	CHECK(rest.run.n == 6 && rest.run.done.finish == FINISH_STOP,
	      "%s: where nothing may follow the answer ends", backend);
	q = bound_params(&p, &rest, 5);
	q.mask = NULL;
	q.bias = bias;
	q.n_bias = 1;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	ok = true;
	for (int i = 0; i < rest.run.n; i++)
		ok &= rest.run.id[i] == 9;
	CHECK(ok && rest.run.n == 5 && !rest.n_logprobs, "%s: a bias decides", backend);
	q.bias = beyond;
	q.n_bias = 2;
	CHECK(engine_submit(en, &q, NULL, &e) == -EINVAL && !strncmp(e.msg, "logit_bias: ", 12),
	      "%s: %s", backend, e.msg);
	q.n_bias = 0;
	q.n_logprobs = 21;
	CHECK(engine_submit(en, &q, NULL, &e) == -EINVAL, "%s: %s", backend, e.msg);
}

static const uint64_t *only_id(void *ctx, struct request *req)
{
	static uint64_t mask[64];
	const struct run *r = ctx;

	memset(mask, 0, sizeof(mask));
	mask[r->only / 64] = (uint64_t)1 << r->only % 64;
	return mask;
}

/* An answer that would end at once, and may not. */
static void test_min_tokens(struct engine *en, const struct prompt *p, int32_t end,
			    const char *backend)
{
	static struct run r, whole, cut;
	struct request_params q = params(p, &r, 10);
	const struct logit_bias wanted = {end, 1000}, unwanted = {end, -1000};
	char stop[3] = "";
	const char *list[1] = {stop};

	memset(&r, 0, sizeof(r));
	q.sampling.ignore_eos = false;
	q.sampling.min_tokens = 3;
	q.bias = &wanted;
	q.n_bias = 1;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	CHECK(r.n == 4 && r.id[0] != end && r.id[1] != end && r.id[2] != end && r.id[3] == end &&
		      r.done.finish == FINISH_STOP,
	      "%s: min_tokens: three ids, then the end (%d)", backend, r.n);
	memset(&r, 0, sizeof(r));
	r.only = end;
	q.mask = only_id;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	CHECK(r.n == 1 && r.id[0] == end, "%s: min_tokens: a mask knows better", backend);

	memset(&whole, 0, sizeof(whole));
	q = params(p, &whole, 30);
	q.bias = &unwanted;
	q.n_bias = 1;
	engine_submit(en, &q, NULL, NULL);
	drain(en);
	REQUIRE(whole.len > 20, "%s: the model gives text to stop in", backend);
	memcpy(stop, whole.text, 2);
	for (int min = 0; min <= 30; min += 30) {
		memset(&cut, 0, sizeof(cut));
		q.ctx = &cut;
		q.stop = list;
		q.n_stop = 1;
		q.sampling.min_tokens = min;
		engine_submit(en, &q, NULL, NULL);
		drain(en);
		CHECK(min ? cut.n == whole.n && cut.len == whole.len : !cut.len && cut.n < whole.n,
		      "%s: min_tokens %d: %d ids up to a stop string", backend, min, cut.n);
	}
}

/* Special tokens in the text, but never the one that ends the answer. */
static void test_special_text(const char *backend)
{
	struct engine_opts o = {.model = "tools/demo/model",
				.backend = backend,
				.kv_type = -1,
				.ctx = 128};
	static struct run with, without;
	struct engine *en;
	struct ids prompt = {0};
	struct prompt p;
	struct request_params q;
	int32_t start, end;
	struct err e = {""};

	REQUIRE(!engine_open(&en, &o, &e), "opens %s", e.msg);
	start = tokenizer_find(engine_tokenizer(en), "<|im_start|>");
	end = tokenizer_find(engine_tokenizer(en), "<|im_end|>");
	tokenizer_encode(engine_tokenizer(en), "hello", 5, 0, &prompt, &e);
	p.n = (int)prompt.n;
	memcpy(p.id, prompt.v, prompt.n * sizeof(*prompt.v));
	for (int special = 0; special < 2; special++) {
		struct run *r = special ? &with : &without;
		int32_t posted[] = {start, p.id[0], end};

		memset(r, 0, sizeof(*r));
		q = params(&p, r, 10);
		q.sampling.ignore_eos = false;
		q.special_text = special;
		q.posted = posted;
		q.n_posted = 2;
		q.posted_bytes = UINT64_MAX;
		q.max_tokens = 3;
		q.bias = &(struct logit_bias){end, 1000};
		q.n_bias = 1;
		engine_submit(en, &q, NULL, NULL);
		drain(en);
		CHECK(r->ended && r->n == 1 && r->id[0] == end && !r->len &&
			      r->done.finish == FINISH_STOP,
		      "%s: the end of the answer is not spelt%s", backend,
		      special ? ", where special tokens are" : "");
	}
	for (int special = 0; special < 2; special++) {
		struct run *r = special ? &with : &without;

		memset(r, 0, sizeof(*r));
		q = params(&p, r, 2);
		q.special_text = special;
		q.bias = &(struct logit_bias){start, 1000};
		q.n_bias = 1;
		engine_submit(en, &q, NULL, NULL);
		drain(en);
	}
	CHECK(without.n == 2 && !without.len && with.len == 24 &&
		      !memcmp(with.text, "<|im_start|><|im_start|>", 24),
	      "%s: special tokens are spelt where that is asked for", backend);
	test_min_tokens(en, &p, end, backend);
	ids_free(&prompt);
	engine_close(en);
}

int main(void)
{
	static const char *const backends[] = {"ref", "cpu"};

	for (int i = 0; i < 2; i++) {
		struct engine *en;

		test_row_invariance(backends[i]);
		test_admission(backends[i]);
		test_prefix_cache(backends[i]);
		test_prefix_random(backends[i], i ? 60 : 6);
		en = open_engine(backends[i], 1, 64, 0);
		if (!CHECK(en, "%s: opens", backends[i]))
			continue;
		test_sessions(en, backends[i]);
		test_replay(en, backends[i]);
		test_stop(en, backends[i]);
		test_cancel(en, backends[i]);
		test_bound(en, backends[i]);
		test_special_text(backends[i]);
		test_park(en, backends[i]);
		engine_close(en);
	}
	return tap_done();
}
