/* SPDX-License-Identifier: MIT */
/*
 * What a run of `llmctl bench serve` amounts to, and its forms: table, JSON, comparison with an
 * earlier JSON, plot.
 *
 *   bench_report.c    records -> figures -> table and JSON
 *   bench_baseline.c  an earlier JSON beside this run's figures
 *   bench_plot.c      figures -> SVG
 */
#ifndef LLMCTL_BENCH_REPORT_H
#define LLMCTL_BENCH_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "bench_run.h"

/* All in ms. */
enum bench_metric {
	BENCH_TTFT, /* first token since the request was sent */
	BENCH_TPOT, /* (E2E - TTFT) / (tokens - 1), of answers with at least two tokens */
	BENCH_ITL, /* every gap between two events with tokens, all requests together */
	BENCH_E2E, /* end since the request was sent */
	BENCH_ITL_P99, /* of one request: 99th percentile of its gaps; for comparing runs */
	BENCH_N_METRICS,
};
extern const char *const bench_metric_names[BENCH_N_METRICS]; /* "TTFT" */
extern const char *const bench_metric_keys[BENCH_N_METRICS]; /* "ttft_ms" */

/* What a request must keep to be a good one, in ms; 0: no bound. TTFT, TPOT and E2E have one. */
struct bench_goals {
	double ms[BENCH_N_METRICS];
};
/* "ttft:500,tpot:50": a name and a bound in ms each. */
int bench_goals_parse(struct bench_goals *g, const char *text, struct err *e);

#define BENCH_KINDS_MAX	 8
#define BENCH_SLICES_MAX 60

struct bench_failures {
	const char *kind, *sentence; /* the first one's; live as long as the run */
	size_t count;
};

struct bench_sample {
	double *v; /* sorted, malloc'ed */
	size_t n;
};

struct bench_report {
	const struct bench_run *run;
	const struct bench_workload *w;
	const struct bench_facts *facts;
	struct bench_goals goals;
	bool has_goals;
	size_t good; /* ended well and kept all goals */
	size_t ok, failed, cut;
	size_t short_answers; /* ok, with fewer tokens than asked for */
	uint64_t tokens_in, tokens_out; /* of requests that ended well */
	uint64_t cached; /* of tokens_in */
	bool cached_known;
	double request_rate, in_rate, out_rate; /* per second of run->measured_s */
	struct bench_sample sample[BENCH_N_METRICS]; /* of requests that ended well */
	struct bench_summary metric[BENCH_N_METRICS];
	struct bench_failures kind[BENCH_KINDS_MAX]; /* the last one stands for all others */
	int n_kinds;
	/* over time: equal slices from the start to the end */
	int n_slices;
	double slice_s;
	double slice_out[BENCH_SLICES_MAX]; /* tokens generated per second */
	double slice_running[BENCH_SLICES_MAX]; /* requests, mean */
};

/* Run, workload and facts must outlive it; goals may be NULL. -ENOMEM. */
int bench_report_make(struct bench_report *p, const struct bench_run *r,
		      const struct bench_workload *w, const struct bench_facts *facts,
		      const struct bench_goals *goals, struct err *e);
void bench_report_free(struct bench_report *p);

void bench_report_table(const struct bench_report *p, FILE *f);
/* New reference; NULL: no memory. details: every request with its gaps. */
json_t *bench_report_json(const struct bench_report *p, bool details);

/* ---- an earlier run ------------------------------------------------------------------------------ */

struct bench_row {
	char name[32]; /* "TTFT P99" */
	struct bench_change change; /* ms; tokens/s; share of requests */
	bool more_is_better;
};

#define BENCH_ROWS_MAX 32

struct bench_baseline {
	char workload[512], model[128], date[32]; /* of the earlier run */
	bool same_workload, same_model;
	struct bench_row row[BENCH_ROWS_MAX];
	int n_rows;
	int better, worse; /* rows that moved */
};

/* Reads what `--json` wrote and compares. */
int bench_baseline_read(struct bench_baseline *b, const char *path, const struct bench_report *p,
			struct err *e);
/* The same from the parsed JSON. `name` is for messages. */
int bench_baseline_compare(struct bench_baseline *b, const char *name, const json_t *before,
			   const struct bench_report *p, struct err *e);
void bench_baseline_table(const struct bench_baseline *b, const char *path, FILE *f);
json_t *bench_baseline_json(const struct bench_baseline *b, const char *path);

/* ---- plot ---------------------------------------------------------------------------------------- */

int bench_plot(const struct bench_report *p, const char *path, struct err *e);

#endif
