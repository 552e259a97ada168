// SPDX-License-Identifier: MIT
/*
 * llmctl bench serve: many requests to a running server, and how long each of them took. The
 * options; the work is in
 *
 *   bench_workload.c  what is asked: shapes, lengths, arrivals
 *   bench_run.c       the loop: one thread drives all clients
 *   bench_socket.c    a daemon through libllmdev
 *   bench_http.c      an OpenAI-compatible server through libcurl
 *   bench_report.c    figures, table, JSON; bench_baseline.c, bench_plot.c, bench_stats.c
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "bench_report.h"
#include "ctl.h"
#include "session.h"

#define EXIT_REGRESSION 3

static const char usage[] =
	"bench serve [--device PATH | --socket PATH | --url URL [--model NAME]]\n"
	"  what    [--shape A..J] [--pp N|LO-HI] [--tg N|LO-HI] [--lengths FILE] [--prefix N]\n"
	"          [--depth N] [--turns N] [--scale F] [--vocab N] [--seed N]\n"
	"  when    [--concurrency N] | [--rate R [--burstiness B] [--max-concurrency N]]\n"
	"          [--runs N] [--duration SECONDS] [--warmup N] [--timeout SECONDS]\n"
	"  as whom [--principals N] [--priority N] [--recovery SECONDS]\n"
	"  result  [--json] [--details] [--save FILE] [--plot FILE.svg] [--baseline FILE]\n"
	"          [--fail-on-regression] [--goodput ttft:MS,tpot:MS,e2e:MS]";

enum {
	OPT_URL = 1,
	OPT_MODEL,
	OPT_SHAPE,
	OPT_PP,
	OPT_TG,
	OPT_LENGTHS,
	OPT_PREFIX,
	OPT_DEPTH,
	OPT_TURNS,
	OPT_SCALE,
	OPT_VOCAB,
	OPT_SEED,
	OPT_CONCURRENCY,
	OPT_RATE,
	OPT_BURSTINESS,
	OPT_MAX_CONCURRENCY,
	OPT_RUNS,
	OPT_DURATION,
	OPT_WARMUP,
	OPT_TIMEOUT,
	OPT_PRINCIPALS,
	OPT_PRIORITY,
	OPT_JSON,
	OPT_DETAILS,
	OPT_SAVE,
	OPT_PLOT,
	OPT_GOODPUT,
	OPT_BASELINE,
	OPT_FAIL,
};

static const struct option options[] = {
	CTL_SESSION_OPTIONS,
	{"url", required_argument, NULL, OPT_URL},
	{"model", required_argument, NULL, OPT_MODEL},
	{"shape", required_argument, NULL, OPT_SHAPE},
	{"pp", required_argument, NULL, OPT_PP},
	{"tg", required_argument, NULL, OPT_TG},
	{"lengths", required_argument, NULL, OPT_LENGTHS},
	{"prefix", required_argument, NULL, OPT_PREFIX},
	{"depth", required_argument, NULL, OPT_DEPTH},
	{"turns", required_argument, NULL, OPT_TURNS},
	{"scale", required_argument, NULL, OPT_SCALE},
	{"vocab", required_argument, NULL, OPT_VOCAB},
	{"seed", required_argument, NULL, OPT_SEED},
	{"concurrency", required_argument, NULL, OPT_CONCURRENCY},
	{"rate", required_argument, NULL, OPT_RATE},
	{"burstiness", required_argument, NULL, OPT_BURSTINESS},
	{"max-concurrency", required_argument, NULL, OPT_MAX_CONCURRENCY},
	{"runs", required_argument, NULL, OPT_RUNS},
	{"duration", required_argument, NULL, OPT_DURATION},
	{"warmup", required_argument, NULL, OPT_WARMUP},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"principals", required_argument, NULL, OPT_PRINCIPALS},
	{"priority", required_argument, NULL, OPT_PRIORITY},
	{"json", no_argument, NULL, OPT_JSON},
	{"details", no_argument, NULL, OPT_DETAILS},
	{"save", required_argument, NULL, OPT_SAVE},
	{"plot", required_argument, NULL, OPT_PLOT},
	{"goodput", required_argument, NULL, OPT_GOODPUT},
	{"baseline", required_argument, NULL, OPT_BASELINE},
	{"fail-on-regression", no_argument, NULL, OPT_FAIL},
	{0},
};

struct serve {
	struct ctl_session_opts session;
	struct bench_socket_opts socket;
	struct bench_http_opts http;
	struct bench_workload w;
	struct bench_goals goals;
	const char *lengths, *save, *plot, *baseline;
	double timeout_s;
	bool json, details, fail_on_regression;
	bool given_closed, given_rate, given_open; /* --concurrency; --rate; what goes with it */
};

/* ---- options ------------------------------------------------------------------------------------- */

static bool get_int(const char *name, const char *arg, long long lo, long long hi, int *out)
{
	long long v;

	if (!ctl_int(name, arg, lo, hi, &v))
		return false;
	*out = (int)v;
	return true;
}

static bool get_range(const char *name, const char *arg, struct bench_range *out)
{
	struct err e;

	if (!bench_range_parse(out, arg, &e))
		return true;
	ctl_fail("%s: %s", name, e.msg);
	return false;
}

static bool get_goals(const char *arg, struct bench_goals *out)
{
	struct err e;

	if (!bench_goals_parse(out, arg, &e))
		return true;
	ctl_fail("--goodput: %s", e.msg);
	return false;
}

static bool option_what(struct serve *s, int opt, const char *arg)
{
	struct bench_workload *w = &s->w;
	long long seed;

	switch (opt) {
	case OPT_SHAPE:
		return true; /* see shape_of() */
	case OPT_PP:
		w->conversations = false;
		return get_range("--pp", arg, &w->pp);
	case OPT_TG:
		w->conversations = false;
		return get_range("--tg", arg, &w->tg);
	case OPT_LENGTHS:
		s->lengths = arg;
		return true;
	case OPT_PREFIX:
		return get_int("--prefix", arg, 0, BENCH_TOKENS_MAX, &w->prefix);
	case OPT_DEPTH:
		return get_int("--depth", arg, 0, BENCH_TOKENS_MAX, &w->depth);
	case OPT_TURNS:
		return get_int("--turns", arg, 1, BENCH_TURNS_MAX, &w->turns);
	case OPT_SCALE:
		return ctl_double("--scale", arg, 1e-6, 16, &w->scale);
	case OPT_VOCAB:
		return get_int("--vocab", arg, BENCH_FIRST_ID + 1, INT32_MAX, &w->vocab);
	case OPT_SEED:
		if (!ctl_int("--seed", arg, 0, INT64_MAX, &seed))
			return false;
		w->seed = w->id_seed = (uint64_t)seed;
		return true;
	}
	return false;
}

static bool option_when(struct serve *s, int opt, const char *arg)
{
	struct bench_workload *w = &s->w;

	switch (opt) {
	case OPT_CONCURRENCY:
		s->given_closed = true;
		return get_int("--concurrency", arg, 1, BENCH_CLIENTS_MAX, &w->concurrency);
	case OPT_RATE:
		s->given_rate = true;
		return ctl_double("--rate", arg, 1e-6, 1e6, &w->rate);
	case OPT_BURSTINESS:
		s->given_open = true;
		return ctl_double("--burstiness", arg, 0.01, 1000, &w->burstiness);
	case OPT_MAX_CONCURRENCY:
		s->given_open = true;
		return get_int("--max-concurrency", arg, 1, BENCH_CLIENTS_MAX, &w->max_concurrency);
	case OPT_RUNS:
		return get_int("--runs", arg, 0, BENCH_RUNS_MAX, &w->runs);
	case OPT_DURATION:
		return ctl_double("--duration", arg, 0.001, 1e7, &w->duration);
	case OPT_WARMUP:
		return get_int("--warmup", arg, 0, 1000, &w->warmup);
	case OPT_TIMEOUT:
		return ctl_double("--timeout", arg, 0.001, 1e7, &s->timeout_s);
	}
	return false;
}

/* 1: taken; 0: not one of these; -1: bad value, said so */
static int take_option(struct serve *s, int opt, const char *arg)
{
	switch (opt) {
	case OPT_URL:
		s->http.url = arg;
		return 1;
	case OPT_MODEL:
		s->http.model = arg;
		return 1;
	case OPT_PRINCIPALS:
		return get_int("--principals", arg, 0, 1000000, &s->socket.principals) ? 1 : -1;
	case OPT_PRIORITY:
		return get_int("--priority", arg, -20, 19, &s->socket.priority) ? 1 : -1;
	case OPT_JSON:
		s->json = true;
		return 1;
	case OPT_DETAILS:
		s->details = true;
		return 1;
	case OPT_SAVE:
		s->save = arg;
		return 1;
	case OPT_PLOT:
		s->plot = arg;
		return 1;
	case OPT_GOODPUT:
		return get_goals(arg, &s->goals) ? 1 : -1;
	case OPT_BASELINE:
		s->baseline = arg;
		return 1;
	case OPT_FAIL:
		s->fail_on_regression = true;
		return 1;
	}
	if (opt >= OPT_SHAPE && opt <= OPT_SEED)
		return option_what(s, opt, arg) ? 1 : -1;
	if (opt >= OPT_CONCURRENCY && opt <= OPT_TIMEOUT)
		return option_when(s, opt, arg) ? 1 : -1;
	return ctl_session_option(&s->session, opt, arg);
}

/* The shape comes first, wherever it stands: other options change it. */
static char shape_of(int argc, char **argv)
{
	char shape = 0;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (opt == OPT_SHAPE)
			shape = strlen(optarg) == 1 ? *optarg : '?';
	return shape >= 'a' && shape <= 'z' ? (char)(shape - 'a' + 'A') : shape;
}

static int check(struct serve *s)
{
	struct stat st;
	struct err e;

	if (s->http.url && (s->session.path || s->socket.principals || s->socket.priority ||
			    s->session.recovery_s))
		return ctl_usage(usage, "bench serve: --url: does not go with --socket, --device, "
					"--principals, --priority, --recovery");
	if (s->given_closed && (s->given_rate || s->given_open))
		return ctl_usage(usage,
				 "bench serve: --concurrency: a fixed number of clients does not "
				 "go with --rate, --burstiness, --max-concurrency");
	if (s->given_closed) { /* also where the shape is an open loop */
		s->w.rate = 0;
		s->w.burstiness = 1;
		s->w.max_concurrency = 0;
	}
	if (s->given_open && s->w.rate <= 0)
		return ctl_usage(usage,
				 "bench serve: --burstiness, --max-concurrency: belong to --rate");
	if (s->http.model && !s->http.url)
		return ctl_usage(usage, "bench serve: --model: belongs to --url");
	if (s->fail_on_regression && !s->baseline)
		return ctl_usage(usage, "bench serve: --fail-on-regression: needs a --baseline");
	if (s->session.path && !stat(s->session.path, &st) &&
	    S_ISCHR(st.st_mode) != s->session.path_is_device) {
		ctl_fail("%s: is %s: use %s", s->session.path,
			 s->session.path_is_device ? "no device" : "a device",
			 s->session.path_is_device ? "--socket" : "--device");
		return 2;
	}
	if (s->lengths && bench_lengths_read(&s->w, s->lengths, &e)) {
		ctl_fail("--lengths: %s", e.msg);
		return 2;
	}
	if (bench_workload_finish(&s->w, &e))
		return ctl_usage(usage, "bench serve: %s", e.msg);
	return -1;
}

static void print_help(void)
{
	printf("usage: llmctl %s\n\nshapes (prompt and generated tokens):\n", usage);
	for (int i = 0; bench_shape_lines[i]; i++)
		printf("  %s\n", bench_shape_lines[i]);
}

/* -1: go on; else the exit status. */
static int parse(struct serve *s, int argc, char **argv)
{
	struct err e;
	char shape;
	int opt, rc;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_help();
			return 0;
		}
	}
	opterr = 0;
	shape = shape_of(argc, argv);
	if (bench_workload_init(&s->w, shape, &e))
		return ctl_usage(usage, "bench serve: %s", e.msg);
	s->timeout_s = 3600;
	/* Ids of an earlier run would be found in the server's prefix cache. */
	if (getrandom(&s->w.id_seed, sizeof(s->w.id_seed), GRND_NONBLOCK) < 0)
		s->w.id_seed = ctl_now_ns();
	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		rc = take_option(s, opt, optarg);
		if (rc < 0)
			return 2;
		if (!rc)
			return ctl_bad_option(usage, argv);
	}
	if (optind != argc)
		return ctl_usage(usage, "bench serve: %s: takes options only", argv[optind]);
	return check(s);
}

/* ---- running ------------------------------------------------------------------------------------- */

static int open_target(struct serve *s, struct bench_target **t, struct err *e)
{
	const char *key = getenv("OPENAI_API_KEY");

	if (s->http.url) {
		s->http.key = key && *key ? key : NULL;
		s->http.want_ids = s->w.turns > 1 || s->w.depth;
		return bench_http_target(t, &s->http, e);
	}
	s->socket.path = s->session.path;
	s->socket.recovery_ms =
		s->session.recovery_s > 0 ? (int)(s->session.recovery_s * 1000) : -1;
	return bench_socket_target(t, &s->socket, e);
}

/* Short requests that nobody counts: memory is touched, connections and caches are warm. */
static int warm_up(const struct serve *s, struct bench_target *t, struct err *e)
{
	struct bench_workload w = s->w;
	struct bench_run r;
	int rc;

	if (!w.warmup || ctl_sigint())
		return 0;
	w.conversations = false;
	w.lengths = NULL;
	w.n_lengths = 0;
	w.pp = (struct bench_range){16, 16};
	w.tg = (struct bench_range){2, 2};
	w.prefix = w.depth = w.max_concurrency = 0;
	w.scale = w.turns = w.concurrency = 1;
	w.rate = w.duration = 0;
	w.runs = w.warmup;
	w.id_seed = ~w.id_seed;
	rc = bench_run(&r, t, &w, s->timeout_s, false, e);
	bench_run_free(&r);
	return rc;
}

static int write_json(json_t *j, FILE *f)
{
	return json_dumpf(j, f, JSON_COMPACT | JSON_REAL_PRECISION(6)) || fputc('\n', f) == EOF;
}

static int save(const struct serve *s, json_t *j)
{
	FILE *f = fopen(s->save, "we");
	int bad = !f || write_json(j, f), error = errno;

	if (f && fclose(f)) {
		bad = 1;
		error = errno;
	}
	return bad ? ctl_fail("--save: %s: %s", s->save, strerror(error)) : 0;
}

/* Returns an exit status. */
static int report(const struct serve *s, const struct bench_report *p)
{
	struct bench_baseline *b = NULL;
	json_t *j = NULL;
	struct err e;
	int rc = 0;

	if (s->baseline) {
		b = calloc(1, sizeof(*b));
		if (!b)
			return ctl_fail("--baseline: no memory");
		if (bench_baseline_read(b, s->baseline, p, &e)) {
			rc = ctl_fail("%s", e.msg);
			free(b);
			b = NULL;
		}
	}
	if (s->json || s->save) {
		j = bench_report_json(p, s->details);
		if (j && b)
			json_object_set_new(j, "baseline", bench_baseline_json(b, s->baseline));
		if (!j)
			rc = ctl_fail("bench: no memory for the JSON");
	}
	if (j && s->json && write_json(j, stdout))
		rc = ctl_fail("stdout: cannot write");
	if (!s->json) {
		bench_report_table(p, stdout);
		if (b)
			bench_baseline_table(b, s->baseline, stdout);
	}
	if (j && s->save && save(s, j))
		rc = 1;
	if (s->plot && bench_plot(p, s->plot, &e))
		rc = ctl_fail("%s", e.msg);
	if (!rc && b && b->worse && s->fail_on_regression)
		rc = EXIT_REGRESSION;
	json_decref(j);
	free(b);
	return rc;
}

static int measure(const struct serve *s, struct bench_target *t)
{
	struct bench_report p;
	struct bench_run r;
	struct err e;
	int rc, status;

	rc = bench_run(&r, t, &s->w, s->timeout_s, true, &e);
	/* What was measured before it went wrong is still worth showing. */
	status = rc ? ctl_fail("%s", e.msg) : 0;
	if (!r.n) {
		if (!status && !r.interrupted)
			status =
				ctl_fail("bench serve: nothing was asked: the time was over before "
					 "the first request was due");
	} else if (bench_report_make(&p, &r, &s->w, &t->facts, &s->goals, &e)) {
		status = ctl_fail("%s", e.msg);
	} else {
		rc = report(s, &p);
		status = status ? status : rc;
		if (!status && !p.ok && p.failed)
			status = ctl_fail("bench serve: every request failed: %s",
					  p.kind[0].sentence);
		else if (!status && *r.ended_early && !r.interrupted)
			status = ctl_fail("bench serve: ended early: %s", r.ended_early);
		bench_report_free(&p);
	}
	if (r.interrupted)
		status = 130;
	bench_run_free(&r);
	return status;
}

int cmd_bench_serve(int argc, char **argv)
{
	struct serve s = {0};
	struct bench_target *t = NULL;
	struct err e;
	int rc = parse(&s, argc, argv);

	if (rc < 0) {
		ctl_catch_sigint();
		rc = open_target(&s, &t, &e);
		if (!rc)
			rc = warm_up(&s, t, &e);
		rc = rc ? ctl_fail("%s", e.msg) : measure(&s, t);
	}
	if (t)
		t->ops->destroy(t);
	bench_workload_free(&s.w);
	return rc;
}
