// SPDX-License-Identifier: MIT
/*
 * Who gets the engine when it is not enough for all. Everything is counted in steps and tokens, on
 * the witness backend (witness.h); no time is measured.
 *
 * The first id of a prompt says whose it is, so that the witness can count rows by principal.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "tests/tap.h"
#include "tests/unit/requests.h"
#include "tests/unit/tiny_model.h"
#include "tests/unit/witness.h"

/* What a test cannot do without. */
#define NEED(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			CHECK(false, "%s", #cond);                                                 \
			return;                                                                    \
		}                                                                                  \
	} while (0)

static struct tiny_model tiny;

static struct engine *open_sized(int max_seqs, int chunk, int pages)
{
	struct engine_opts o = {.model = tiny.path,
				.kv_type = KV_F32,
				.ctx = 2048,
				.kv_bytes = (size_t)pages * TINY_PAGE_BYTES,
				.chunk = chunk,
				.max_seqs = max_seqs,
				.step_ms = 1000000};
	struct witness *w = witness_create(false);
	struct engine *en = NULL;
	struct err e;

	if (engine_open_on(&en, &o, &w->backend, &e)) {
		printf("# %s\n", e.msg);
		return NULL;
	}
	w->kv = &en->kv;
	return en;
}

static struct witness *witness_of(const struct engine *en)
{
	return (struct witness *)en->backend;
}

/* One request: what was asked, and in which step what came. */
struct job {
	struct engine *en;
	struct request *req;
	int32_t prompt[2048];
	int n_prompt, max_tokens, priority;
	uint64_t principal, deadline, seed;
	struct session *session;
	int again; /* ask anew so many times when it has ended */
	int n, ended, error;
	enum engine_finish finish;
	uint64_t hash; /* of all ids and logits */
	uint64_t first_step, end_step; /* by the witness's count */
	int longest_gap; /* steps between two tokens */
	uint64_t last_step;
	int end_number; /* which one to end it was */
	int *n_ended; /* counts them */
};

static void job_submit(struct job *j);

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct job *j = ctx;
	uint64_t step = witness_of(r->en)->steps;

	if (ev->kind == ENGINE_TOKEN) {
		if (!j->n++)
			j->first_step = step;
		else if ((int)(step - j->last_step) > j->longest_gap)
			j->longest_gap = (int)(step - j->last_step);
		j->last_step = step;
		j->hash = fnv1a(j->hash, &ev->id, sizeof(ev->id));
		j->hash = fnv1a(j->hash, ev->logits, 64 * sizeof(*ev->logits));
	}
	if (ev->kind != ENGINE_DONE && ev->kind != ENGINE_ERROR)
		return;
	j->ended++;
	j->error = ev->kind == ENGINE_ERROR ? ev->error : 0;
	j->finish = ev->finish;
	j->end_step = step;
	j->req = NULL;
	if (j->n_ended)
		j->end_number = ++*j->n_ended;
	if (j->again > 0) {
		j->again--;
		job_submit(j);
	}
}

/* A prompt of its own: no two jobs share a prefix, unless they have the same seed. */
static void job_init(struct job *j, struct engine *en, uint64_t principal, uint64_t seed,
		     int n_prompt, int max_tokens)
{
	memset(j, 0, sizeof(*j));
	j->en = en;
	j->principal = principal;
	j->n_prompt = n_prompt;
	j->max_tokens = max_tokens;
	j->seed = seed;
}

static int job_try(struct job *j, struct err *e)
{
	struct rng r = {.x = ++j->seed * 12345};
	struct request_params p = {.session = j->session,
				   .prompt = j->prompt,
				   .n_prompt = j->n_prompt,
				   .max_tokens = j->max_tokens,
				   .n_logprobs = -1,
				   .principal = j->principal,
				   .priority = j->priority,
				   .deadline_ns = j->deadline,
				   .on_event = on_event,
				   .ctx = j};

	for (int i = 0; i < j->n_prompt; i++)
		j->prompt[i] = rng_below(&r, 256);
	j->prompt[0] = (int32_t)j->principal;
	p.sampling =
		(struct sampling){.repeat_penalty = 1, .top_p = 1, .temperature = 1, .seed = 5};
	p.sampling.ignore_eos = true;
	j->n = 0;
	j->hash = FNV_START;
	return engine_submit(j->en, &p, &j->req, e);
}

static void job_submit(struct job *j)
{
	struct err e;

	if (job_try(j, &e)) {
		printf("# %s\n", e.msg);
		j->ended++;
		j->error = EINVAL;
		j->again = 0;
	}
}

/* Until *flag, or nothing is left to do, or so many steps. */
static bool step_until(struct engine *en, const int *flag, int steps)
{
	for (int i = 0; i < steps; i++) {
		if (flag && *flag)
			return true;
		if (engine_step(en, NULL) <= 0)
			return !flag || *flag;
	}
	return flag && *flag;
}

/* ---- shares -------------------------------------------------------------------------------------- */

/* What both had in a stretch of time in which neither ever ran out of requests. */
struct shares {
	double rows[2];
};

struct load {
	int requests; /* at a time */
	int prompt, answer;
	int lowest, highest; /* priorities */
};

static bool measure(struct shares *s, const struct load load[2], int max_seqs, int chunk, int pages)
{
	enum { WARM_UP = 300, STEPS = 4000 };
	struct engine *en = open_sized(max_seqs, chunk, pages);
	int n[2] = {load[0].requests, load[1].requests};
	struct job *job = calloc(n[0] + n[1], sizeof(*job));
	struct rng r = {.x = 3};
	struct witness *w;
	bool ok = en && job;

	if (!ok)
		return false;
	w = witness_of(en);
	for (int i = 0; i < n[0] + n[1]; i++) {
		const struct load *l = &load[i >= n[0]];

		job_init(&job[i], en, i >= n[0], i * 100000, l->prompt + rng_below(&r, 9),
			 l->answer);
		job[i].priority = rng_range(&r, l->lowest, l->highest);
		job[i].again = 1 << 30;
		job_submit(&job[i]);
	}
	for (int i = 0; i < WARM_UP; i++)
		engine_step(en, NULL);
	for (int i = 0; i < 2; i++)
		s->rows[i] = -(double)w->rows_of[i];
	for (int i = 0; i < STEPS; i++)
		engine_step(en, NULL);
	for (int i = 0; i < 2; i++)
		s->rows[i] += w->rows_of[i];
	for (int i = 0; i < n[0] + n[1]; i++) {
		ok &= !job[i].error;
		job[i].again = 0;
	}
	if (w->complaint)
		printf("# %s\n", w->complaint);
	ok &= !w->complaint;
	engine_close(en);
	free(job);
	return ok;
}

static void test_equal_shares(void)
{
	static const struct {
		int max_seqs, chunk, pages;
	} engines[] = {{1, 64, 64}, {2, 7, 64}, {4, 64, 64}, {9, 256, 200}, {8, 64, 20}};
	static const struct load load[2] = {{10, 60, 20, 0, 0}, {100, 60, 20, 0, 0}};

	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
		struct shares s;

		NEED(measure(&s, load, engines[i].max_seqs, engines[i].chunk, engines[i].pages));
		CHECK(s.rows[0] > 0.9 * s.rows[1] && s.rows[0] < 1.1 * s.rows[1],
		      "%d places, chunks of %d, %d pages: one with ten times as many requests gets "
		      "no more: %.0f and %.0f tokens",
		      engines[i].max_seqs, engines[i].chunk, engines[i].pages, s.rows[1],
		      s.rows[0]);
	}
}

/* Long prompts against long answers: what counts is the work. */
static void test_unlike_loads(void)
{
	static const struct load load[2] = {{20, 250, 3, 0, 0}, {20, 6, 100, 0, 0}};
	struct shares s;
	double work[2];

	NEED(measure(&s, load, 4, 64, 100));
	work[0] = s.rows[0] * (254 + 2 * FAIR_DECODE_WORK) / (254 + 2);
	work[1] = s.rows[1] * (10 + 99 * FAIR_DECODE_WORK) / (10 + 99);
	CHECK(work[0] > 0.9 * work[1] && work[0] < 1.1 * work[1],
	      "long prompts and long answers have equal shares of the work: %.0f and %.0f", work[0],
	      work[1]);
}

static void test_weights(void)
{
	static const struct load nice[2] = {{20, 60, 20, -5, -5}, {20, 60, 20, 0, 0}};
	static const struct load mixed[2] = {{20, 60, 20, 0, 0}, {60, 60, 20, 0, 19}};
	struct shares s;

	NEED(measure(&s, nice, 4, 64, 64));
	CHECK(s.rows[0] > 2.6 * s.rows[1] && s.rows[0] < 3.5 * s.rows[1],
	      "priority -5 against 0 is worth 1.25^5 = 3.05: %.2f", s.rows[0] / s.rows[1]);
	NEED(measure(&s, mixed, 4, 64, 64));
	CHECK(s.rows[0] > 0.9 * s.rows[1],
	      "somebody's requests of many priorities take nothing from another: %.0f against %.0f",
	      s.rows[0], s.rows[1]);
}

/* One that idled for long has saved up nothing. */
static void test_idling(void)
{
	enum { N = 10 };
	struct engine *en = open_sized(4, 64, 64);
	static struct job job[2][N];
	struct witness *w;
	double rows[2];

	NEED(en);
	w = witness_of(en);
	for (int i = 0; i < N; i++)
		for (int p = 0; p < 2; p++) {
			job_init(&job[p][i], en, p, (i * 2 + p) * 100000, 60, 20);
			job[p][i].again = p ? 3 : 1 << 30;
			job_submit(&job[p][i]);
		}
	for (int i = 0; i < 5000; i++)
		engine_step(en, NULL);
	for (int i = 0; i < N; i++) {
		NEED(job[1][i].ended == 4);
		job[1][i].again = 1 << 30;
		job_submit(&job[1][i]);
	}
	for (int p = 0; p < 2; p++)
		rows[p] = -(double)w->rows_of[p];
	for (int i = 0; i < 1000; i++)
		engine_step(en, NULL);
	for (int p = 0; p < 2; p++)
		rows[p] += w->rows_of[p];
	CHECK(rows[1] < 1.2 * rows[0] && rows[1] > 0.8 * rows[0],
	      "who comes back from idling has saved up nothing: %.0f and %.0f tokens", rows[1],
	      rows[0]);
	for (int i = 0; i < N; i++)
		job[0][i].again = job[1][i].again = 0;
	engine_close(en);
}

/* ---- who comes late, who is small ------------------------------------------------------------ */

/* All places are taken by long answers; somebody else asks one short thing. */
static void test_late(int max_seqs)
{
	enum { LONG = 400 };
	struct engine *en = open_sized(max_seqs, 64, 16 * max_seqs);
	struct job *job = calloc(3 * max_seqs, sizeof(*job)), late;
	/* The others may get ahead by a quantum and by what they would have to compute again. */
	int bound = (512 + 50 + LONG) / (FAIR_DECODE_WORK * max_seqs) + 10;
	uint64_t arrival;

	NEED(en && job);
	for (int i = 0; i < 3 * max_seqs; i++) {
		job_init(&job[i], en, 0, i * 100000, 50, LONG);
		job_submit(&job[i]);
	}
	for (int i = 0; i < 50; i++)
		engine_step(en, NULL);
	arrival = witness_of(en)->steps;
	job_init(&late, en, 1, 77, 20, 5);
	job_submit(&late);
	step_until(en, &late.n, 2 * LONG);
	CHECK(late.n && (int)(late.first_step - arrival) <= bound,
	      "%d places held by long answers: another principal's first token comes after %d "
	      "steps, at most %d",
	      max_seqs, (int)(late.first_step - arrival), bound);
	step_until(en, &late.ended, 100);
	CHECK(late.ended && late.n == 5, "%d places: and its last after %d", max_seqs,
	      (int)(late.end_step - arrival));
	step_until(en, NULL, 100000);
	for (int i = 0; i < 3 * max_seqs; i++)
		if (job[i].ended != 1 || job[i].n != LONG) {
			CHECK(false, "%d places: job %d is whole", max_seqs, i);
			break;
		}
	engine_close(en);
	free(job);
}

/* A prompt of many steps, and a short one behind it. */
static void test_long_prompt(uint64_t principal)
{
	struct engine *en = open_sized(8, 16, 100);
	static struct job big, small;
	uint64_t arrival;

	NEED(en);
	job_init(&big, en, 0, 1, 1900, 5);
	job_submit(&big);
	for (int i = 0; i < 5; i++)
		engine_step(en, NULL);
	arrival = witness_of(en)->steps;
	job_init(&small, en, principal, 2, 10, 30);
	job_submit(&small);
	step_until(en, &small.ended, 1000);
	CHECK(small.ended && small.first_step - arrival <= 5 && small.longest_gap == 1 && !big.n,
	      "a prompt of 1,900 tokens in chunks of 16 does not hold up a short one of %s "
	      "principal: %d steps, then a token each",
	      principal ? "another" : "the same", (int)(small.first_step - arrival));
	step_until(en, &big.ended, 1000);
	CHECK(big.ended && big.n == 5, "and comes to its end");
	engine_close(en);
}

/* Two long prompts at once. */
static void test_long_prompts(void)
{
	struct engine *en = open_sized(8, 16, 100);
	static struct job job[2];
	struct witness *w;
	double rows[2];

	NEED(en);
	w = witness_of(en);
	for (int i = 0; i < 2; i++) {
		job_init(&job[i], en, i, i, 1900, 5);
		job_submit(&job[i]);
		for (int k = 0; k < 20; k++)
			engine_step(en, NULL);
	}
	for (int i = 0; i < 2; i++)
		rows[i] = -(double)w->rows_of[i];
	for (int k = 0; k < 60; k++)
		engine_step(en, NULL);
	for (int i = 0; i < 2; i++)
		rows[i] += w->rows_of[i];
	CHECK(rows[0] > 0.9 * rows[1] && rows[0] < 1.1 * rows[1],
	      "two principals' long prompts advance together: %.0f and %.0f tokens", rows[0],
	      rows[1]);
	engine_close(en);
}

/* ---- order within a principal ---------------------------------------------------------------- */

static void test_order(void)
{
	static const int priority[] = {7, 0, -3, 19, -20, 0};
	static const int expected[] = {5, 3, 2, 6, 1, 4}; /* equals: as they came */
	enum { N = sizeof(priority) / sizeof(priority[0]) };
	struct engine *en = open_sized(1, 64, 20);
	static struct job job[N];
	int n_ended = 0;
	bool ok = true;

	NEED(en);
	for (int i = 0; i < N; i++) {
		job_init(&job[i], en, 3, i * 1000, 30, 10);
		job[i].priority = priority[i];
		job[i].n_ended = &n_ended;
		job_submit(&job[i]);
	}
	step_until(en, NULL, 1000);
	for (int i = 0; i < N; i++)
		ok &= job[i].end_number == expected[i];
	CHECK(ok, "one principal's requests go by priority, equals in order: %d %d %d %d %d %d",
	      job[0].end_number, job[1].end_number, job[2].end_number, job[3].end_number,
	      job[4].end_number, job[5].end_number);
	engine_close(en);
}

static void test_deadlines(void)
{
	enum { N = 4 };
	struct engine *en = open_sized(1, 64, 20);
	static struct job job[N], warm_up;
	int n_ended = 0;
	uint64_t now;

	NEED(en);
	job_init(&warm_up, en, 3, 99, 30, 50); /* so that it knows what work takes */
	job_submit(&warm_up);
	step_until(en, NULL, 1000);
	en->work_ns = 10000; /* all of them within the window of a priority */
	now = engine_now_ns();
	for (int i = 0; i < N; i++) {
		job_init(&job[i], en, 3, i * 1000, 30, 10);
		job[i].deadline = i ? now + (N - i) * 200000000ull : 0;
		job[i].n_ended = &n_ended;
		job_submit(&job[i]);
	}
	step_until(en, NULL, 1000);
	CHECK(job[3].end_number == 1 && job[2].end_number == 2 && job[1].end_number == 3 &&
		      job[0].end_number == 4,
	      "of equal priority the earliest deadline goes first, none at all last: %d %d %d %d",
	      job[3].end_number, job[2].end_number, job[1].end_number, job[0].end_number);
	engine_close(en);
}

/* ---- nobody starves ---------------------------------------------------------------------------- */

/* One poor request against a stream that never ends; `bound` in rows of all. */
static void test_starving(const char *what, uint64_t principal, int poor, int rich, double bound,
			  int max_seqs, int pages)
{
	enum { STREAM = 12 };
	struct engine *en = open_sized(max_seqs, 64, pages);
	static struct job job[STREAM], victim;
	uint64_t before;

	NEED(en);
	for (int i = 0; i < STREAM; i++) {
		job_init(&job[i], en, 0, i * 1000000, 40, 20);
		job[i].priority = rich;
		job[i].again = 1 << 30;
		job_submit(&job[i]);
	}
	for (int i = 0; i < 100; i++)
		engine_step(en, NULL);
	before = witness_of(en)->rows;
	job_init(&victim, en, principal, 7, 40, 20);
	victim.priority = poor;
	job_submit(&victim);
	while (!victim.ended && witness_of(en)->rows - before < bound)
		if (engine_step(en, NULL) < 0)
			break;
	CHECK(victim.ended == 1 && victim.n == 20,
	      "%s: a request of priority %d ends under a stream of priority %d: after %llu rows, "
	      "at "
	      "most %.0f",
	      what, poor, rich, (unsigned long long)(witness_of(en)->rows - before), bound);
	for (int i = 0; i < STREAM; i++)
		job[i].again = 0;
	engine_close(en);
}

/* ---- too little room ----------------------------------------------------------------------------- */

/* Each alone fits the pool exactly. */
static void test_growing(void)
{
	enum { N = 4, PROMPT = 10, ANSWER = 182 };
	static struct job alone[N], job[N];
	struct engine_stats st;
	struct engine *en;
	struct err e = {""};
	int bad = 0;

	for (int i = 0; i < N; i++) {
		en = open_sized(1, 64, 3);
		NEED(en);
		job_init(&alone[i], en, i, i * 1000, PROMPT, ANSWER);
		job_submit(&alone[i]);
		step_until(en, NULL, 1000);
		engine_close(en);
	}
	en = open_sized(N, 64, 3);
	NEED(en);
	for (int i = 0; i < N; i++) {
		job_init(&job[i], en, i, i * 1000, PROMPT, ANSWER);
		job_submit(&job[i]);
	}
	step_until(en, NULL, 20000);
	for (int i = 0; i < N; i++)
		bad += job[i].ended != 1 || job[i].n != ANSWER || job[i].hash != alone[i].hash;
	engine_stats(en, &st);
	CHECK(!bad && st.preempted > 0,
	      "%d requests that each grow to the whole pool all end, each as if alone (%d do not), "
	      "%d preemptions",
	      N, bad, (int)st.preempted);
	job_init(&job[0], en, 0, 5, 10, 183);
	CHECK(job_try(&job[0], &e) == -E2BIG && strstr(e.msg, "10") && strstr(e.msg, "183"),
	      "one that could never fit is refused with the sum: %s", e.msg);
	job_init(&job[0], en, 0, 5, 100, 0); /* to the end of what there is */
	job_submit(&job[0]);
	step_until(en, NULL, 1000);
	CHECK(job[0].ended == 1 && !job[0].error && job[0].finish == FINISH_LENGTH &&
		      job[0].n == 3 * KV_PAGE_TOKENS - 100,
	      "one without a limit ends with the pool: %d tokens", job[0].n);
	engine_close(en);
}

/* Readers that have stopped reading. */
static void test_parked(void)
{
	enum { N = 3, OTHERS = 6 };
	struct engine *en = open_sized(N, 64, 12);
	static struct job alone[N], job[N], other[OTHERS];
	int bad = 0, waiting = 0;
	struct engine_stats st;

	NEED(en);
	for (int i = 0; i < N; i++) {
		job_init(&alone[i], en, 0, i * 1000, 70, 60);
		job_submit(&alone[i]);
		step_until(en, NULL, 1000);
	}
	engine_close(en);
	en = open_sized(N, 64, 12);
	NEED(en);
	for (int i = 0; i < N; i++) {
		job_init(&job[i], en, 0, i * 1000, 70, 60);
		job_submit(&job[i]);
	}
	for (int i = 0; i < 10; i++)
		engine_step(en, NULL);
	for (int i = 0; i < N; i++)
		engine_park(job[i].req, true);
	CHECK(engine_runnable(en) == 0, "all are parked: nothing to do");
	for (int i = 0; i < OTHERS; i++) {
		job_init(&other[i], en, 0, i * 5000, 70, 30);
		job_submit(&other[i]);
	}
	CHECK(engine_runnable(en) > 0, "others come: something to do");
	for (int i = 0; i < 1000 && engine_runnable(en); i++)
		engine_step(en, NULL);
	for (int i = 0; i < OTHERS; i++)
		bad += other[i].ended != 1 || other[i].n != 30;
	for (int i = 0; i < N; i++)
		waiting += engine_request_state(job[i].req) == ENGINE_PARKED && !job[i].ended;
	CHECK(!bad && waiting == N, "parked requests have no place that others want (%d)", bad);
	for (int i = 0; i < N; i++)
		engine_park(job[i].req, false);
	step_until(en, NULL, 1000);
	for (int i = 0; i < N; i++)
		bad += job[i].ended != 1 || job[i].hash != alone[i].hash;
	engine_stats(en, &st);
	CHECK(!bad && st.preempted > 0, "and lose no bit of their answers (%d do)", bad);
	engine_close(en);
}

/* Readers that stop for a moment after every token, as one does whose daemon has --pace. */
static void test_short_parks(void)
{
	enum { N = 6, ANSWER = 40 };
	struct engine *en = open_sized(2, 64, 64);
	static struct job job[N];
	struct engine_stats st;
	int bad = 0, seen[N] = {0};

	NEED(en);
	for (int i = 0; i < N; i++) {
		job_init(&job[i], en, 0, i * 1000, 100, ANSWER);
		job_submit(&job[i]);
	}
	for (int step = 0; step < 5000 && engine_step(en, NULL) > 0; step++)
		for (int i = 0; i < N; i++)
			if (job[i].req) {
				engine_park(job[i].req, job[i].n != seen[i]);
				seen[i] = job[i].n;
			}
	for (int i = 0; i < N; i++)
		bad += job[i].ended != 1 || job[i].n != ANSWER;
	engine_stats(en, &st);
	CHECK(!bad && st.recomputed_tokens == 0,
	      "parking costs a place, but while there are pages no token is computed again: %d, "
	      "with "
	      "%d preemptions",
	      (int)st.recomputed_tokens, (int)st.preempted);
	engine_close(en);
}

static void test_queue_bound(void)
{
	enum { MAX = 5 };
	struct engine_opts o = {.model = tiny.path, .kv_type = KV_F32, .max_seqs = 2};
	struct witness *w = witness_create(false);
	static struct job job[20];
	struct engine *en = NULL;
	struct err e = {""};
	int n = 0, rc = 0, ended = 0;

	o.max_waiting = MAX;
	NEED(!engine_open_on(&en, &o, &w->backend, &e));
	for (; n < 20 && !rc; n++) {
		job_init(&job[n], en, n, n * 100, 10, 20);
		rc = job_try(&job[n], &e);
	}
	CHECK(rc == -ENOSPC && n - 1 == MAX && *e.msg, "the queue holds %d: %s", n - 1, e.msg);
	engine_step(en, NULL);
	rc = 0;
	for (n--; n < 20 && !rc; n++) {
		job_init(&job[n], en, n, n * 100, 10, 20);
		rc = job_try(&job[n], &e);
	}
	CHECK(rc == -ENOSPC && n - 1 == MAX + 2, "and those that run besides: %d", n - 1);
	step_until(en, NULL, 1000);
	for (int i = 0; i < n - 1; i++)
		ended += job[i].ended == 1 && job[i].n == 20;
	CHECK(ended == n - 1, "all that were taken come to their end: %d", ended);
	engine_close(en);
}

/* ---- many ------------------------------------------------------------------------------------------ */

static size_t heap_in_use(void)
{
	return mallinfo2().uordblks;
}

static void test_many_sessions(void)
{
	enum { N = 10000, AT_ONCE = 500 };
	struct engine *en = open_sized(32, 256, 200);
	struct session **s = calloc(N, sizeof(*s));
	struct job *job = calloc(AT_ONCE, sizeof(*job));
	size_t start, idle, asked;
	int bad = 0;

	NEED(en && s && job);
	start = heap_in_use();
	for (int i = 0; i < N; i++)
		bad += engine_session_open(en, &s[i], NULL) != 0;
	idle = heap_in_use() - start;
	for (int from = 0; from < N; from += AT_ONCE) {
		for (int i = 0; i < AT_ONCE; i++) {
			job_init(&job[i], en, i % 7, from + i, 5, 3);
			job[i].session = s[from + i];
			job_submit(&job[i]);
		}
		step_until(en, NULL, 10000);
		for (int i = 0; i < AT_ONCE; i++)
			bad += job[i].ended != 1 || job[i].n != 3;
	}
	asked = heap_in_use() - start;
	CHECK(!bad, "%d sessions each ask something tiny (%d fail)", N, bad);
	if (SANITIZED)
		tap_skip("what a session costs: the sanitizer's allocator does not say");
	else
		CHECK(idle / N <= 512 && asked / N <= 2048,
		      "a session takes %zu bytes, and %zu after something tiny", idle / N,
		      asked / N);
	for (int i = 0; i < N; i++)
		engine_session_close(s[i]);
	CHECK(heap_in_use() <= start + 65536, "and nothing when it is closed: %zd bytes are left",
	      (ssize_t)(heap_in_use() - start));
	CHECK(kv_available(&en->kv) == en->kv.n_pages, "every page is back");
	engine_close(en);
	free(job);
	free(s);
}

/* ---- cancelled, parked, closed at every step ------------------------------------------------- */

enum { SWEPT = 5 };
enum disturbance { CANCEL, CLOSE, PARK, N_DISTURBANCES };

struct scene {
	struct engine *en;
	struct job job[SWEPT];
	struct session *session[SWEPT];
	int steps;
};

/* Five requests of two principals, two of them turns of one conversation, in a pool of 5 pages. */
static bool play(struct scene *s, enum disturbance what, int who, int when)
{
	static const int prompt[SWEPT] = {70, 100, 20, 130, 64},
			 answer[SWEPT] = {30, 25, 60, 10, 5};
	int unpark = -1;

	memset(s, 0, sizeof(*s));
	s->en = open_sized(3, 32, 5);
	if (!s->en)
		return false;
	for (int i = 0; i < SWEPT; i++) {
		job_init(&s->job[i], s->en, i % 2, i * 1000, prompt[i], answer[i]);
		engine_session_open(s->en, &s->session[i], NULL);
		s->job[i].session = s->session[i == 2 ? 0 : i];
		s->job[i].priority = i == 4 ? -10 : 0;
	}
	for (s->steps = 0; s->steps < 2000; s->steps++) {
		if (s->steps % 4 == 0 && s->steps / 4 < SWEPT && s->session[s->steps / 4])
			job_submit(&s->job[s->steps / 4]);
		if (s->steps == when && what == CANCEL && s->job[who].req)
			engine_cancel(s->job[who].req);
		if (s->steps == when && what == PARK && s->job[who].req) {
			engine_park(s->job[who].req, true);
			unpark = when + 40;
		}
		if (s->steps == unpark && s->job[who].req)
			engine_park(s->job[who].req, false);
		if (s->steps == when && what == CLOSE && who != 2) {
			engine_session_close(s->session[who]);
			s->session[who] = NULL;
			if (!who) /* its second turn will not be asked */
				s->job[2].session = s->session[2];
		}
		if (engine_step(s->en, NULL) == 0 && s->steps > 4 * SWEPT && s->steps > unpark)
			return true;
	}
	return false;
}

static void test_sweep(void)
{
	static const char *const names[] = {"cancelled", "closed", "parked"};
	static struct scene quiet, s;
	struct engine_stats st;

	NEED(play(&quiet, PARK, 0, -2));
	engine_stats(quiet.en, &st);
	CHECK(st.preempted > 0, "the scene is crowded: %d preemptions in %d steps",
	      (int)st.preempted, quiet.steps);
	engine_close(quiet.en);
	for (int what = 0; what < N_DISTURBANCES; what++) {
		int bad = 0, runs = 0;

		for (int who = 0; who < SWEPT; who++)
			for (int when = 0; when <= quiet.steps; when += SANITIZED ? 5 : 1) {
				bool ok = play(&s, what, who, when);

				runs++;
				for (int i = 0; i < SWEPT; i++) {
					const struct job *j = &s.job[i];
					bool may_be_cut =
						what != PARK &&
						(i == who || (what == CLOSE && i == 2 && who == 0));

					if (!j->n && !j->ended && may_be_cut)
						continue; /* never asked */
					ok &= j->ended == 1 && !j->error;
					ok &= j->hash == quiet.job[i].hash ||
					      (may_be_cut && j->finish == FINISH_CANCELLED);
				}
				ok &= !witness_of(s.en)->complaint;
				for (int i = 0; i < SWEPT; i++)
					if (s.session[i])
						engine_session_close(s.session[i]);
				ok &= kv_available(&s.en->kv) == s.en->kv.n_pages;
				engine_close(s.en);
				if (!ok && !bad++)
					printf("# the first: request %d at step %d\n", who, when);
			}
		CHECK(!bad,
		      "%s at each of %d points: ends once, leaves no page, changes no other answer "
		      "(%d do)",
		      names[what], runs, bad);
	}
}

int main(void)
{
	if (!tiny_model_make(&tiny, 256, NULL))
		return 1;
	test_equal_shares();
	test_unlike_loads();
	test_weights();
	test_idling();
	test_late(1);
	test_late(4);
	test_late(16);
	test_long_prompt(1);
	test_long_prompt(0);
	test_long_prompts();
	test_order();
	test_deadlines();
	/* Its own 78 units of work, at the ratio of the weights, and half as much again. */
	test_starving("another principal's", 1, 0, -20, 1.5 * 86.7 * 78 + 4000, 1, 20);
	test_starving("another principal's", 1, 19, -5, 1.5 * 212 * 78 + 4000, 4, 20);
	test_starving("another principal's, few pages", 1, 5, -5, 1.5 * 9.3 * 78 + 4000, 4, 5);
	test_starving("the same principal's", 0, 1, 0, 1.5 * FAIR_PRIORITY_WORK + 4000, 2, 20);
	test_growing();
	test_parked();
	test_short_parks();
	test_queue_bound();
	test_many_sessions();
	test_sweep();
	tiny_model_remove(&tiny);
	return tap_done();
}
