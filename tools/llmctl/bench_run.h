/* SPDX-License-Identifier: MIT */
/*
 * Runs a workload against a target and keeps a record of every request. Times are the client's own,
 * CLOCK_MONOTONIC.
 */
#ifndef LLMCTL_BENCH_RUN_H
#define LLMCTL_BENCH_RUN_H

#include "bench_target.h"
#include "bench_workload.h"

enum bench_state {
	BENCH_RUNNING,
	BENCH_OK,
	BENCH_FAILED,
	BENCH_CUT, /* the benchmark itself ended it: Ctrl-C */
};

struct bench_record {
	int64_t conversation;
	int turn;
	enum bench_state state;
	int prompt, wanted; /* tokens, as sent */
	int cached; /* of the prompt, as the server says; -1: it does not */
	int tokens; /* generated */
	uint64_t due_ns; /* open loop: when it arrived; else as start_ns */
	uint64_t start_ns; /* before connecting (a first turn) or sending */
	uint64_t first_ns, end_ns; /* 0: did not come */
	float *gaps; /* seconds between events with tokens; malloc'ed */
	size_t n_gaps, cap_gaps;
	char kind[24]; /* BENCH_FAILED: what went wrong, for counting */
	char *sentence; /* and in the server's words; malloc'ed, NULL: no memory for it */
};

struct bench_run {
	struct bench_record *records;
	size_t n, cap;
	uint64_t start_ns, end_ns;
	double measured_s; /* end - start; at a depth, without the time that loading it took */
	int peak; /* most requests at once */
	double cpu_s; /* of this process, user and system */
	double late_s; /* open loop: the most that a request left after its time, unless held back */
	int64_t held; /* ... and how many were held back by the limit of requests at once */
	bool ids_unknown; /* later turns were asked with random ids in the answers' places */
	bool interrupted;
	char ended_early[512]; /* why nothing more was asked; "" if all was */
};

/*
 * timeout_s: after so long without its end a request counts as failed. `show` draws progress. A
 * negative value means that this client failed, not the server; *r is valid in any case.
 */
int bench_run(struct bench_run *r, struct bench_target *t, const struct bench_workload *w,
	      double timeout_s, bool show, struct err *e);
void bench_run_free(struct bench_run *r);

/* Seconds; 0 where there is none. */
double bench_ttft(const struct bench_record *r);
double bench_e2e(const struct bench_record *r);
/* (E2E - TTFT) / (tokens - 1); 0 for an answer of one token. */
double bench_tpot(const struct bench_record *r);

#endif
