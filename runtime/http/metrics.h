/* SPDX-License-Identifier: MIT */
/* What /metrics tells beyond the daemons' own counts, by backend: the loop's thread counts. */
#ifndef HTTP_METRICS_H
#define HTTP_METRICS_H

#include <stdint.h>

#include "http/backend.h"
#include "http/strbuf.h"

#define HISTOGRAM_MAX 24

struct histogram {
	uint64_t counts[HISTOGRAM_MAX + 1]; /* the last: above all bounds */
	uint64_t count;
	double sum;
};

enum finished { FINISHED_STOP, FINISHED_LENGTH, FINISHED_ABORT, FINISHED_ERROR, FINISHED_N };

struct model_metrics {
	struct histogram ttft, token, e2e; /* seconds */
	uint64_t finished[FINISHED_N];
	uint64_t prompt_tokens, cached_tokens, generated_tokens, reasoning_tokens;
	uint64_t recoveries;
	uint32_t running; /* asked and not answered to the end */
};

struct metrics {
	struct model_metrics models[BACKENDS_MAX];
	uint64_t replies[6];  /* by the status' first digit */
	uint64_t limited;     /* 429 of a key's limits */
	uint64_t disconnects; /* clients that left before their answer's end */
};

struct gateway;

void metrics_ttft(struct model_metrics *m, double seconds);
void metrics_tokens(struct model_metrics *m, double seconds_each, uint32_t n);
void metrics_end(struct model_metrics *m, double seconds);
/* A label's value as the text format wants it, without quotes. */
void metrics_label(struct strbuf *b, const char *value);
void metrics_write(struct strbuf *b, const struct gateway *g);

#endif
