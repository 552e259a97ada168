// SPDX-License-Identifier: MIT
/*
 * llmctl bench serve without a server: draws, percentiles, bootstrap, shapes, files of lengths,
 * comparing with an earlier run, and the loop against a made-up target.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../tap.h"
#include "tools/llmctl/bench_report.h"
#include "tools/llmctl/ctl.h"

#define DRAWS 200000

static bool near(double x, double want, double tolerance)
{
	return fabs(x - want) <= tolerance * fabs(want);
}

/* ---- draws --------------------------------------------------------------------------------------- */

static void moments(double rate, double burstiness, double *mean, double *variance)
{
	double sum = 0, squares = 0;
	struct bench_rng r;

	bench_rng_seed(&r, 42, 0);
	for (int i = 0; i < DRAWS; i++) {
		double x = bench_rng_interarrival(&r, rate, burstiness);

		sum += x;
		squares += x * x;
	}
	*mean = sum / DRAWS;
	*variance = squares / DRAWS - *mean * *mean;
}

static void test_draws(void)
{
	static const double burstiness[] = {0.3, 0.7, 1, 2.5, 20};
	struct bench_rng a, b;
	int low = 0, high = 0;
	double mean, variance;
	bool inside = true;

	for (int i = 0; i < 5; i++) {
		moments(4, burstiness[i], &mean, &variance);
		CHECK(near(mean, 0.25, 0.02), "burstiness %g: mean gap %g for 4 a second",
		      burstiness[i], mean);
		CHECK(near(variance, 0.0625 / burstiness[i], 0.06),
		      "burstiness %g: variance %g is mean^2 / burstiness", burstiness[i], variance);
	}
	bench_rng_seed(&a, 1, 2);
	bench_rng_seed(&b, 1, 2);
	CHECK(bench_rng_next(&a) == bench_rng_next(&b), "a seed and stream give the same draws");
	bench_rng_seed(&b, 1, 3);
	CHECK(bench_rng_next(&a) != bench_rng_next(&b), "another stream gives others");
	for (int i = 0; i < 10000; i++) {
		int v = bench_rng_range(&a, -3, 4);

		inside = inside && v >= -3 && v <= 4;
		low += v == -3;
		high += v == 4;
	}
	CHECK(inside, "a range holds its draws");
	CHECK(low > 1100 && low < 1400 && high > 1100 && high < 1400,
	      "both ends are drawn as often as the rest: %d and %d of 10000 in 8", low, high);
	CHECK(bench_rng_range(&a, 7, 7) == 7, "a range of one");
}

/* ---- samples ------------------------------------------------------------------------------------- */

static void test_quantiles(void)
{
	double v[] = {4, 1, 3, 2, 5}, one[] = {7};
	struct bench_summary s;

	bench_summarise(&s, v, 5);
	CHECK(s.n == 5 && s.mean == 3 && s.min == 1 && s.max == 5 && s.p50 == 3,
	      "mean, least, most, median of five");
	CHECK(near(s.p90, 4.6, 1e-12) && near(s.p95, 4.8, 1e-12) && near(s.p99, 4.96, 1e-12),
	      "P90, P95, P99 lie between the neighbours as in numpy: %g %g %g", s.p90, s.p95,
	      s.p99);
	bench_summarise(&s, one, 1);
	CHECK(s.p50 == 7 && s.p99 == 7 && s.max == 7, "one value is all percentiles");
	bench_summarise(&s, one, 0);
	CHECK(s.n == 0 && s.mean == 0 && s.p99 == 0, "no value: zeroes");
	CHECK(bench_quantile(v, 5, 0) == 1 && bench_quantile(v, 5, 1) == 5, "the ends");
}

static void fill_normal(double *v, size_t n, double mean, double deviation, uint64_t stream)
{
	struct bench_rng r;

	bench_rng_seed(&r, 99, stream);
	for (size_t i = 0; i < n; i++)
		v[i] = mean + deviation * bench_rng_normal(&r);
	bench_sort(v, n);
}

/* How many of 200 comparisons of samples from one source are called moves. */
static int false_alarms(double q, size_t n)
{
	double a[400], b[400];
	struct bench_change c;
	int alarms = 0;

	for (int i = 0; i < 200; i++) {
		fill_normal(a, n, 100, 20, 2 * (uint64_t)i + 10);
		fill_normal(b, n, 100, 20, 2 * (uint64_t)i + 11);
		bench_compare(&c, a, n, b, n, q, (uint64_t)i);
		alarms += c.moved;
	}
	return alarms;
}

static void test_bootstrap(void)
{
	static const double q[] = {BENCH_MEAN, 0.5, 0.9};
	static double a[4000], b[4000];
	struct bench_change c, again;

	fill_normal(a, 200, 100, 10, 1);
	fill_normal(b, 200, 110, 10, 2);
	for (int i = 0; i < 3; i++) {
		bench_compare(&c, a, 200, b, 200, q[i], 5);
		CHECK(c.judged && c.moved && c.lo > 0 && c.lo < 10 && c.hi > 10,
		      "q %g: +10 %% of 200 with a deviation of 10 %% moved, by %.1f to %.1f", q[i],
		      c.lo, c.hi);
		bench_compare(&c, a, 200, a, 200, q[i], 5);
		CHECK(c.judged && !c.moved && c.lo <= 0 && c.hi >= 0,
		      "q %g: a sample against itself did not move", q[i]);
		CHECK(false_alarms(q[i], 60) <= 10,
		      "q %g: at most 5 %% of 200 equal pairs are called moves", q[i]);
	}
	/* The mean's interval is that of the normal distribution: 2 * 2.576 * 10 * sqrt(2 / n). */
	for (size_t n = 400; n <= 4000; n += 3600) {
		fill_normal(a, n, 100, 10, 3);
		fill_normal(b, n, 100, 10, 4);
		bench_compare(&c, a, n, b, n, BENCH_MEAN, 1);
		CHECK(near(c.hi - c.lo, 2 * 2.576 * 10 * sqrt(2.0 / (double)n), 0.12),
		      "the interval of a difference of means of %zu is as wide as it should be: %g",
		      n, c.hi - c.lo);
	}
	/* That of a quantile: sqrt(q (1 - q) / n) over the density there, 0.02665 / 10 at P99. */
	bench_compare(&c, a, 4000, b, 4000, 0.99, 1);
	CHECK(near(c.hi - c.lo, 2 * 2.576 * sqrt(2) * sqrt(0.99 * 0.01 / 4000) / 0.002665, 0.3),
	      "so is that of P99: %g", c.hi - c.lo);
	bench_compare(&c, a, 4000, b, 4000, BENCH_MEAN, 1);
	bench_compare(&again, a, 4000, b, 4000, BENCH_MEAN, 1);
	CHECK(again.lo == c.lo && again.hi == c.hi, "the same seed gives the same interval");
	bench_compare(&c, a, 7, b, 4000, 0.5, 1);
	CHECK(!c.judged && !c.moved && c.before == a[3], "seven values are not judged");
	bench_compare(&c, a, 0, b, 4000, 0.5, 1);
	CHECK(!c.judged && !c.moved, "none neither");
	for (int i = 0; i < 50; i++) {
		a[i] = 100;
		b[i] = 101;
	}
	bench_compare(&c, a, 50, b, 50, BENCH_MEAN, 1);
	CHECK(c.judged && !c.moved, "1 %%, however certain, is not called a move");
}

/* ---- workload ------------------------------------------------------------------------------------ */

static void test_shapes(void)
{
	struct bench_lengths lengths = {0};
	struct bench_rng r, ids;
	struct bench_workload w;
	bool inside = true;
	char line[512];
	struct err e;

	for (const char *s = "ABCEFGHIJ"; *s; s++) {
		CHECK(!bench_workload_init(&w, *s, &e) && !bench_workload_finish(&w, &e) &&
			      w.runs > 0 && (w.rate > 0) == (*s >= 'H'),
		      "shape %c: %s loop", *s, w.rate > 0 ? "open" : "closed");
	}
	CHECK(w.max_concurrency == 25 && w.rate == 1.5, "J: 1.5 a second, at most 25 at once");
	for (const char *s = "DKa?"; *s; s++)
		CHECK(bench_workload_init(&w, *s, &e) == -EINVAL, "shape %c is refused", *s);
	bench_workload_init(&w, 'A', &e);
	w.scale = 0.01;
	for (int64_t i = 0; i < 1000; i++) {
		bench_conversation_seed(&w, i, &r, &ids);
		lengths = bench_turn_lengths(&w, i, &r);
		inside = inside && lengths.prompt >= 41 && lengths.prompt <= 250 &&
			 lengths.output == 3;
	}
	CHECK(inside, "scaling divides lengths and rounds up");
	bench_workload_describe(&w, line, sizeof(line));
	CHECK(strstr(line, "shape A") && strstr(line, "41 to 250"), "described: %s", line);
	bench_workload_describe(&w, line, 8);
	CHECK(strlen(line) < 8, "a short buffer holds");
	bench_workload_init(&w, 'H', &e);
	w.depth = 10;
	CHECK(bench_workload_finish(&w, &e) == -EINVAL, "a depth in an open loop: %s", e.msg);
	bench_workload_init(&w, 0, &e);
	w.max_concurrency = 3;
	CHECK(bench_workload_finish(&w, &e) == -EINVAL, "a limit in a closed loop: %s", e.msg);
	bench_workload_init(&w, 0, &e);
	w.turns = BENCH_TURNS_MAX;
	w.pp.hi = BENCH_TOKENS_MAX;
	CHECK(bench_workload_finish(&w, &e) == -EINVAL, "an endless conversation: %s", e.msg);
	bench_workload_init(&w, 0, &e);
	w.runs = 0;
	CHECK(bench_workload_finish(&w, &e) == -EINVAL, "no end: %s", e.msg);
}

static void test_ids(void)
{
	int32_t a[500], b[500], prefix[20];
	struct bench_rng lengths, ids;
	struct bench_workload w;
	bool inside = true;
	int equal = 0;
	struct err e;

	bench_workload_init(&w, 0, &e);
	w.vocab = 50;
	bench_conversation_seed(&w, 0, &lengths, &ids);
	bench_random_ids(&w, &ids, a, 500);
	bench_conversation_seed(&w, 1, &lengths, &ids);
	bench_random_ids(&w, &ids, b, 500);
	for (int i = 0; i < 500; i++) {
		inside = inside && a[i] >= BENCH_FIRST_ID && a[i] < 50;
		equal += a[i] == b[i];
	}
	CHECK(inside, "ids stay within the vocabulary");
	CHECK(equal < 50, "two conversations share no ids but by chance: %d of 500", equal);
	w.vocab = 1000;
	bench_prefix_ids(&w, prefix, 20);
	w.id_seed = 1;
	bench_prefix_ids(&w, a, 20);
	CHECK(memcmp(a, prefix, sizeof(prefix)), "another seed of ids gives other prompts");
}

static void test_ranges(void)
{
	static const char *const bad[] = {"",
					  "x",
					  "0",
					  "-5",
					  "5-",
					  "5-4",
					  "5-x",
					  "1-2-3",
					  "1 ",
					  "4194305",
					  "99999999999999999999"};
	struct bench_range r;
	struct err e;

	CHECK(!bench_range_parse(&r, "64", &e) && r.lo == 64 && r.hi == 64, "N");
	CHECK(!bench_range_parse(&r, "4096-25000", &e) && r.lo == 4096 && r.hi == 25000, "LO-HI");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(bench_range_parse(&r, bad[i], &e) == -EINVAL, "\"%s\" is refused", bad[i]);
}

static void test_lengths(void)
{
	static const struct {
		const char *text, *what;
	} bad[] = {
		{"", "an empty file"},
		{"# nothing\n\n", "only comments"},
		{"prompt,output\n", "only a heading"},
		{"10,20\nprompt,output\n", "a heading in the middle"},
		{"10\n", "one number"},
		{"10,20,30\n", "three numbers"},
		{"10,0\n", "no output"},
		{"-1,5\n", "a negative length"},
		{"1.5,5\n", "a fraction"},
		{"nan,5\n", "not a number"},
		{"1e30,5\n", "an absurd length"},
		{"{\"prompt\":5}\n", "an object with half of it"},
		{"{\"prompt\":\"x\",\"output\":5}\n", "a string"},
		{"{\"prompt\":5,\"output\":5\n", "broken JSON"},
		{"[5,5]\n", "a list"},
	};
	struct bench_workload w;
	char text[2048];
	struct err e;
	long sum = 0;

	bench_workload_init(&w, 0, &e);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(bench_lengths_parse(&w, "f", bad[i].text, strlen(bad[i].text), &e) < 0 &&
			      !w.lengths && !w.n_lengths,
		      "%s is refused: %s", bad[i].what, e.msg);
	memset(text, '1', sizeof(text));
	CHECK(bench_lengths_parse(&w, "f", text, sizeof(text), &e) == -EINVAL, "a long line: %s",
	      e.msg);
	CHECK(bench_lengths_parse(&w, "f", "1,2\n1\0,2", 9, &e) == -EINVAL, "a NUL byte: %s",
	      e.msg);
	snprintf(text, sizeof(text),
		 "# from\n\nprompt, output\r\n10,20\r\n 30 , 40 \n"
		 "{\"prompt\": 50, \"output\": 60}\n"
		 "{\"prompt_tokens\": 70, \"output_tokens\": 80}");
	CHECK(!bench_lengths_parse(&w, "f", text, strlen(text), &e) && w.n_lengths == 4,
	      "CSV with a heading, JSON lines, no newline at the end");
	for (size_t i = 0; i < w.n_lengths; i++)
		sum += w.lengths[i].prompt + 1000 * w.lengths[i].output;
	CHECK(sum == 160 + 1000 * 200, "all rows are there, whatever their order");
	CHECK(bench_lengths_read(&w, "/nonexistent", &e) == -ENOENT, "no file: %s", e.msg);
	CHECK(!bench_lengths_read(&w, "tests/fixtures/bench/conversations.csv", &e) &&
		      w.n_lengths == 200,
	      "the example is read");
	bench_workload_free(&w);
}

/* ---- the loop, against a made-up target ---------------------------------------------------------- */

/* Gives one token per wait and stream; fails every `fail_every`-th request; dies after `lifetime`. */
struct fake {
	struct bench_target base;
	int fail_every, lifetime, submitted, open, most_open;
	int answering; /* streams with more than one token to give */
	bool mixed; /* a prompt came for one token while another stream was answering */
	struct fake_stream *streams[64];
};

struct fake_stream {
	struct bench_stream base;
	const struct bench_stream_handler *h;
	void *ctx;
	int left, total, prompt;
	bool fails;
};

static int fake_body(struct bench_target *t, struct bench_body *b, const int32_t *ids, size_t n,
		     int max_tokens, struct err *e)
{
	b->len = 2 * sizeof(int);
	b->bytes = malloc(b->len);
	if (b->bytes)
		memcpy(b->bytes, (int[]){(int)n, max_tokens}, b->len);
	return b->bytes ? 0 : -ENOMEM;
}

static int fake_open(struct bench_target *bt, struct bench_stream **out, int64_t number,
		     const struct bench_stream_handler *h, void *ctx, struct err *e)
{
	struct fake *t = (struct fake *)bt;
	struct fake_stream *s;

	if (t->lifetime && t->submitted >= t->lifetime)
		return err_set(e, -ECONNREFUSED, "nobody is there");
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct fake_stream){.base.target = bt, .h = h, .ctx = ctx};
	for (int i = 0; i < 64; i++) {
		if (t->streams[i])
			continue;
		t->streams[i] = s;
		break;
	}
	if (++t->open > t->most_open)
		t->most_open = t->open;
	*out = &s->base;
	return 0;
}

static int fake_submit(struct bench_stream *bs, const struct bench_body *b, struct err *e)
{
	struct fake_stream *s = (struct fake_stream *)bs;
	struct fake *t = (struct fake *)bs->target;
	int parts[2];

	memcpy(parts, b->bytes, sizeof(parts));
	s->prompt = parts[0];
	s->left = s->total = parts[1];
	t->submitted++;
	t->mixed = t->mixed || (s->total == 1 && t->answering);
	t->answering += s->total > 1;
	s->fails = t->fail_every && t->submitted % t->fail_every == 0;
	return 0;
}

static void fake_close(struct bench_stream *bs)
{
	struct fake *t = (struct fake *)bs->target;

	for (int i = 0; i < 64; i++)
		if (t->streams[i] == (struct fake_stream *)bs)
			t->streams[i] = NULL;
	t->open--;
	free(bs);
}

static int fake_wait(struct bench_target *bt, int64_t timeout_ns, struct err *e)
{
	struct fake *t = (struct fake *)bt;
	uint64_t now = ctl_now_ns();
	bool idle = true;

	for (int i = 0; i < 64; i++) {
		struct fake_stream *s = t->streams[i];
		struct bench_end end = {.cached_tokens = 1, .prompt_tokens = 1, .tokens = -1};
		int32_t id = 5;

		if (!s || !s->left)
			continue;
		idle = false;
		if (s->fails) {
			s->left = 0;
			snprintf(end.kind, sizeof(end.kind), "ENOSPC");
			end.sentence = "queue: full\x01\xff: wait";
			s->h->end(s->ctx, &end, now);
			continue;
		}
		s->h->tokens(s->ctx, &id, 1, now);
		if (--s->left)
			continue;
		t->answering -= s->total > 1;
		end.ok = true;
		end.tokens = s->total;
		end.cached_tokens = s->prompt / 2;
		s->h->end(s->ctx, &end, now);
	}
	if (idle && timeout_ns > 0)
		usleep((useconds_t)(timeout_ns / 1000 < 1000 ? timeout_ns / 1000 : 1000));
	return 0;
}

static const struct bench_target_ops fake_ops = {
	.body = fake_body,
	.open = fake_open,
	.submit = fake_submit,
	.close = fake_close,
	.wait = fake_wait,
};

static void test_loop(void)
{
	struct fake t = {.base.ops = &fake_ops};
	struct bench_workload w;
	struct bench_report p;
	struct bench_run r;
	struct err e;
	json_t *j;

	bench_workload_init(&w, 0, &e);
	w.concurrency = 5;
	w.runs = 23;
	w.turns = 3;
	w.pp = (struct bench_range){10, 10};
	w.tg = (struct bench_range){4, 4};
	w.prefix = 7;
	bench_workload_finish(&w, &e);
	CHECK(!bench_run(&r, &t.base, &w, 60, false, &e), "a closed loop runs");
	CHECK(r.n == 69 && t.submitted == 69 && t.most_open == 5 && r.peak == 5 && !t.open,
	      "23 conversations of 3 turns, 5 at once, all closed: %zu requests, peak %d", r.n,
	      r.peak);
	CHECK(r.records[0].prompt == 17, "prefix and new part");
	for (size_t i = 0; i < r.n; i++)
		if (r.records[i].turn == 2 && r.records[i].conversation == 22)
			CHECK(r.records[i].prompt == 7 + 10 + 4 + 10 + 4 + 10,
			      "the third turn brings all that was said: %d", r.records[i].prompt);
	CHECK(!bench_report_make(&p, &r, &w, &t.base.facts, NULL, &e) && p.ok == 69 && !p.failed,
	      "69 ended well");
	CHECK(p.tokens_out == 276 && p.metric[BENCH_ITL].n == 207 && p.metric[BENCH_TTFT].n == 69,
	      "276 tokens, 207 gaps, 69 first tokens");
	j = bench_report_json(&p, true);
	CHECK(json_array_size(json_object_get(j, "details")) == 69, "details of each");
	json_decref(j);
	bench_report_free(&p);
	bench_run_free(&r);
}

static void test_one_token(void)
{
	struct fake t = {.base.ops = &fake_ops};
	struct bench_workload w;
	struct bench_report p;
	struct bench_run r;
	struct err e;

	bench_workload_init(&w, 0, &e);
	w.tg = (struct bench_range){1, 1};
	bench_workload_finish(&w, &e);
	bench_run(&r, &t.base, &w, 60, false, &e);
	bench_report_make(&p, &r, &w, &t.base.facts, NULL, &e);
	CHECK(p.ok == 4 && p.metric[BENCH_TTFT].n == 4 && !p.metric[BENCH_TPOT].n &&
		      !p.metric[BENCH_ITL].n,
	      "answers of one token have no time per later token");
	bench_report_free(&p);
	bench_run_free(&r);
}

static void test_failures(void)
{
	struct fake t = {.base.ops = &fake_ops, .fail_every = 3};
	struct bench_workload w;
	struct bench_report p;
	struct bench_run r;
	struct err e;
	json_t *j;

	bench_workload_init(&w, 0, &e);
	w.concurrency = 2;
	w.runs = 9;
	w.tg = (struct bench_range){2, 2};
	bench_workload_finish(&w, &e);
	CHECK(!bench_run(&r, &t.base, &w, 60, false, &e) && r.n == 9,
	      "a third fails, all are asked");
	bench_report_make(&p, &r, &w, &t.base.facts, NULL, &e);
	CHECK(p.failed == 3 && p.ok == 6 && p.n_kinds == 1 && p.kind[0].count == 3 &&
		      !strcmp(p.kind[0].kind, "ENOSPC") &&
		      !strcmp(p.kind[0].sentence, "queue: full??: wait"),
	      "three of a kind, with the server's sentence made printable");
	j = bench_report_json(&p, false);
	CHECK(json_array_size(json_object_get(j, "failures")) == 1, "they are in the JSON");
	json_decref(j);
	bench_report_free(&p);
	bench_run_free(&r);

	t = (struct fake){.base.ops = &fake_ops, .lifetime = 4};
	w.runs = 1000;
	CHECK(!bench_run(&r, &t.base, &w, 60, false, &e) && r.n <= 6 && *r.ended_early,
	      "a server that is gone ends the run after %zu requests: %s", r.n, r.ended_early);
	bench_run_free(&r);
}

static void test_depth_and_rate(void)
{
	struct fake t = {.base.ops = &fake_ops};
	struct bench_workload w;
	struct bench_run r;
	bool right = true;
	struct err e;

	bench_workload_init(&w, 0, &e);
	w.concurrency = 4;
	w.runs = 10;
	w.depth = 50;
	w.pp = (struct bench_range){5, 5};
	w.tg = (struct bench_range){2, 9};
	bench_workload_finish(&w, &e);
	CHECK(!bench_run(&r, &t.base, &w, 60, false, &e) && r.n == 10 && t.submitted == 20,
	      "at a depth, one request each loads and is not counted");
	for (size_t i = 0; i < r.n; i++)
		right = right && r.records[i].prompt == 50 + 1 + 5;
	CHECK(!t.mixed, "none loads while another one answers");
	CHECK(right && r.measured_s < (double)(r.end_ns - r.start_ns) * 1e-9,
	      "they ask at that depth; loading is not in the measured time");
	bench_run_free(&r);

	t = (struct fake){.base.ops = &fake_ops};
	bench_workload_init(&w, 0, &e);
	w.rate = 2000;
	w.burstiness = 0.5;
	w.max_concurrency = 3;
	w.runs = 200;
	w.tg = (struct bench_range){3, 3};
	bench_workload_finish(&w, &e);
	CHECK(!bench_run(&r, &t.base, &w, 60, false, &e) && r.n == 200 && t.most_open <= 3,
	      "an open loop asks 200 times, at most 3 at once: %d", t.most_open);
	right = true;
	for (size_t i = 0; i < r.n; i++)
		right = right && r.records[i].start_ns >= r.records[i].due_ns &&
			(!i || r.records[i].due_ns >= r.records[i - 1].due_ns);
	CHECK(right, "none is sent before its time");
	bench_run_free(&r);

	w.rate = 0.001;
	w.duration = 0.2;
	w.max_concurrency = 0;
	CHECK(!bench_run(&r, &t.base, &w, 60, false, &e) && r.n == 0,
	      "the duration ends an open loop that waits");
	bench_run_free(&r);
}

/* ---- comparing runs ------------------------------------------------------------------------------ */

static void test_baseline(void)
{
	static const char *const bad[] = {
		"{}",
		"[]",
		"{\"bench\":\"decode\",\"samples\":{}}",
		"{\"bench\":\"serve\"}",
		"{\"bench\":\"serve\",\"samples\":{\"ttft_ms\":5}}",
		"{\"bench\":\"serve\",\"samples\":{\"ttft_ms\":[1,\"x\"]}}",
		"{\"bench\":\"serve\",\"samples\":{},\"requests\":{\"ok\":-1}}",
		"{\"bench\":\"serve\",\"samples\":{},\"requests\":{\"ok\":1e300}}",
	};
	struct fake t = {.base.ops = &fake_ops};
	static struct bench_baseline b;
	struct bench_workload w;
	struct bench_report p;
	struct bench_run r;
	json_t *j, *ttft;
	struct err e;

	bench_workload_init(&w, 0, &e);
	w.runs = 40;
	bench_workload_finish(&w, &e);
	bench_run(&r, &t.base, &w, 60, false, &e);
	bench_report_make(&p, &r, &w, &t.base.facts, NULL, &e);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		j = json_loads(bad[i], 0, NULL);
		CHECK(bench_baseline_compare(&b, "f", j, &p, &e) == -EINVAL, "refused: %s", e.msg);
		json_decref(j);
	}
	j = bench_report_json(&p, false);
	CHECK(!bench_baseline_compare(&b, "f", j, &p, &e) && b.same_workload && b.same_model &&
		      b.n_rows > 10 && !b.better && !b.worse,
	      "a run against itself: %d rows, %d better, %d worse", b.n_rows, b.better, b.worse);
	ttft = json_object_get(json_object_get(j, "samples"), "ttft_ms");
	for (size_t i = 0; i < json_array_size(ttft); i++)
		json_array_set_new(ttft, i, json_real(1000 + (double)i));
	CHECK(!bench_baseline_compare(&b, "f", j, &p, &e) && b.better == 4 && !b.worse,
	      "TTFT that was a second is better now in all four statistics: %d", b.better);
	json_decref(j);
	bench_report_free(&p);
	bench_run_free(&r);
}

static void test_goals(void)
{
	static const char *const bad[] = {"",	    "ttft",	"ttft:",   "ttft:0",	  "ttft:-1",
					  "itl:5",  "ttft:5 ",	"ttft:5,", "ttft:nan",	  "ttft5",
					  "tpot:x", "ttft:inf", ",ttft:5", "ttft:5tpot:6"};
	struct fake t = {.base.ops = &fake_ops, .fail_every = 2};
	struct bench_goals g;
	struct bench_workload w;
	struct bench_report p;
	struct bench_run r;
	struct err e;

	CHECK(!bench_goals_parse(&g, "TTFT:500,tpot:50.5,e2e:9e3", &e) && g.ms[BENCH_TTFT] == 500 &&
		      g.ms[BENCH_TPOT] == 50.5 && g.ms[BENCH_E2E] == 9000,
	      "goals of all three");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(bench_goals_parse(&g, bad[i], &e) == -EINVAL, "\"%s\" is refused", bad[i]);
	bench_workload_init(&w, 0, &e);
	w.runs = 10;
	bench_workload_finish(&w, &e);
	bench_run(&r, &t.base, &w, 60, false, &e);
	for (size_t i = 0, ok = 0; i < r.n; i++)
		if (r.records[i].state == BENCH_OK) /* 1, 2, 3 ... ms */
			r.records[i].first_ns = r.records[i].start_ns + ++ok * 1000000;
	bench_goals_parse(&g, "ttft:3", &e);
	bench_report_make(&p, &r, &w, &t.base.facts, &g, &e);
	CHECK(p.ok == 5 && p.failed == 5 && p.good == 3,
	      "three of five kept it, failed ones did not");
	bench_report_free(&p);
	bench_run_free(&r);
}

int main(void)
{
	test_draws();
	test_quantiles();
	test_bootstrap();
	test_shapes();
	test_ids();
	test_ranges();
	test_lengths();
	test_loop();
	test_one_token();
	test_failures();
	test_depth_and_rate();
	test_baseline();
	test_goals();
	return tap_done();
}
