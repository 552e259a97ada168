// SPDX-License-Identifier: MIT
/*
 * Prometheus' text format, version 0.0.4. Names beginning with vllm: mean what they mean in vLLM;
 * llmdev_ ones are our own. The gateway's counts start with the gateway, the daemon's with the
 * daemon: a restart of either is the reset that counters may have.
 */
#include <inttypes.h>
#include <stdio.h>

#include "http/server.h"

static const double ttft_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08,
				     0.1,   0.25,  0.5,	 0.75, 1,    2.5,  5,
				     7.5,   10,	   20,	 40,   80,   160,  640};
static const double token_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
				      0.2,   0.3,    0.4,   0.5,  0.75,	 1,    2.5,   5,   10};
static const double e2e_bounds[] = {0.05, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,  10,
				    15,	  20,  30,  40,	 50,  60, 120, 240, 480, 960};

#define COUNT(a) (int)(sizeof(a) / sizeof(*(a)))

static void observe(struct histogram *h, const double *bounds, int n, double v, uint64_t times)
{
	int i = 0;

	while (i < n && v > bounds[i])
		i++;
	h->counts[i] += times;
	h->count += times;
	h->sum += v * (double)times;
}

void metrics_ttft(struct model_metrics *m, double seconds)
{
	observe(&m->ttft, ttft_bounds, COUNT(ttft_bounds), seconds, 1);
}

void metrics_tokens(struct model_metrics *m, double seconds_each, uint32_t n)
{
	observe(&m->token, token_bounds, COUNT(token_bounds), seconds_each, n);
}

void metrics_end(struct model_metrics *m, double seconds)
{
	observe(&m->e2e, e2e_bounds, COUNT(e2e_bounds), seconds, 1);
}

void metrics_label(struct strbuf *b, const char *value)
{
	for (; *value; value++) {
		if (*value == '\n')
			strbuf_str(b, "\\n");
		else if (*value == '"' || *value == '\\')
			strbuf_printf(b, "\\%c", *value);
		else
			strbuf_add(b, value, 1);
	}
}

/* ---- writing ---------------------------------------------------------------------------------- */

static void head(struct strbuf *b, const char *name, const char *type, const char *help)
{
	strbuf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* name{model_name="...",EXTRA} */
static void series(struct strbuf *b, const char *name, const struct backend *k, const char *extra)
{
	const char *model = backend_name(k);

	strbuf_printf(b, "%s{model_name=\"", name);
	metrics_label(b, *model ? model : "default");
	strbuf_printf(b, "\"%s} ", extra);
}

static void write_histogram(struct strbuf *b, const struct gateway *g, const char *name,
			    const char *help, size_t offset, const double *bounds, int n)
{
	char part[96], le[48];

	head(b, name, "histogram", help);
	for (int i = 0; i < g->n_backends; i++) {
		const char *m = (const char *)&g->metrics.models[i];
		const struct histogram *h = (const void *)(m + offset);
		uint64_t sum = 0;

		snprintf(part, sizeof(part), "%s_bucket", name);
		for (int j = 0; j <= n; j++) {
			sum += h->counts[j];
			if (j < n)
				snprintf(le, sizeof(le), ",le=\"%g\"", bounds[j]);
			else
				snprintf(le, sizeof(le), ",le=\"+Inf\"");
			series(b, part, &g->backends[i], le);
			strbuf_printf(b, "%" PRIu64 "\n", sum);
		}
		snprintf(part, sizeof(part), "%s_sum", name);
		series(b, part, &g->backends[i], "");
		strbuf_printf(b, "%.9g\n", h->sum);
		snprintf(part, sizeof(part), "%s_count", name);
		series(b, part, &g->backends[i], "");
		strbuf_printf(b, "%" PRIu64 "\n", h->count);
	}
}

static void write_own(struct strbuf *b, const struct gateway *g)
{
	static const char *const reasons[] = {"stop", "length", "abort", "error"};
	static const struct {
		const char *name, *type, *help;
		size_t offset;
	} counts[] = {
#define OWN(name, type, member, help) {name, type, help, offsetof(struct model_metrics, member)}
		OWN("vllm:prompt_tokens_total", "counter", prompt_tokens,
		    "Tokens of prompts of answers that ended."),
		OWN("vllm:generation_tokens_total", "counter", generated_tokens,
		    "Tokens of answers that ended."),
		OWN("vllm:prefix_cache_queries_total", "counter", prompt_tokens,
		    "Tokens of prompts that were looked for in the prefix cache."),
		OWN("vllm:prefix_cache_hits_total", "counter", cached_tokens,
		    "Tokens of prompts that the prefix cache had."),
		OWN("llmdev_reasoning_tokens_total", "counter", reasoning_tokens,
		    "Tokens of answers that were reasoning."),
		OWN("llmdev_recoveries_total", "counter", recoveries,
		    "How often an answer went on after its daemon was lost."),
#undef OWN
	};

	for (int i = 0; i < COUNT(counts); i++) {
		head(b, counts[i].name, counts[i].type, counts[i].help);
		for (int j = 0; j < g->n_backends; j++) {
			const char *m = (const char *)&g->metrics.models[j];

			series(b, counts[i].name, &g->backends[j], "");
			strbuf_printf(b, "%" PRIu64 "\n",
				      *(const uint64_t *)(const void *)(m + counts[i].offset));
		}
	}
	head(b, "vllm:request_success_total", "counter", "Answers that ended, by how.");
	for (int j = 0; j < g->n_backends; j++) {
		for (int i = 0; i < FINISHED_N; i++) {
			char extra[40];

			snprintf(extra, sizeof(extra), ",finished_reason=\"%s\"", reasons[i]);
			series(b, "vllm:request_success_total", &g->backends[j], extra);
			strbuf_printf(b, "%" PRIu64 "\n", g->metrics.models[j].finished[i]);
		}
	}
	write_histogram(b, g, "vllm:time_to_first_token_seconds",
			"From the whole request to its first token.",
			offsetof(struct model_metrics, ttft), ttft_bounds, COUNT(ttft_bounds));
	write_histogram(b, g, "vllm:inter_token_latency_seconds", "From one token to the next.",
			offsetof(struct model_metrics, token), token_bounds, COUNT(token_bounds));
	write_histogram(b, g, "vllm:time_per_output_token_seconds", "From one token to the next.",
			offsetof(struct model_metrics, token), token_bounds, COUNT(token_bounds));
	write_histogram(b, g, "vllm:e2e_request_latency_seconds",
			"From the whole request to its end.", offsetof(struct model_metrics, e2e),
			e2e_bounds, COUNT(e2e_bounds));
}

/* What the daemon itself tells. */
static const struct {
	const char *name, *type, *help;
	size_t offset;
	int size;
} told[] = {
#define TOLD(name, type, member, help)                                                             \
	{                                                                                          \
		name, type, help, offsetof(struct llm_status, member),                             \
			(int)sizeof(((struct llm_status *)0)->member)                              \
	}
	TOLD("vllm:num_requests_running", "gauge", running, "Requests that run."),
	TOLD("vllm:num_requests_waiting", "gauge", waiting, "Requests that wait."),
	TOLD("vllm:num_preemptions_total", "counter", preempted,
	     "How often a request had to give up its place."),
	TOLD("llmdev_requests_parked", "gauge", parked, "Requests whose answers nobody reads."),
	TOLD("llmdev_sessions", "gauge", sessions, "Open sessions."),
	TOLD("llmdev_principals", "gauge", principals, "Principals with unfinished requests."),
	TOLD("llmdev_kv_pages", "gauge", kv_pages, "Pages of the KV cache."),
	TOLD("llmdev_kv_pages_held", "gauge", kv_held, "Those that belong to sessions."),
	TOLD("llmdev_kv_pages_cached", "gauge", kv_cached, "Those kept for their prefix alone."),
	TOLD("llmdev_swap_pages", "gauge", swap_pages, "Pages in the swap file."),
	TOLD("llmdev_swapped_out_pages_total", "counter", swapped_out,
	     "Pages written to the swap file."),
	TOLD("llmdev_swapped_in_pages_total", "counter", swapped_in,
	     "Pages read back from the swap file."),
	TOLD("llmdev_requests_submitted_total", "counter", submitted, "Requests begun."),
	TOLD("llmdev_requests_refused_total", "counter", refused, "Requests not taken."),
	TOLD("llmdev_requests_failed_total", "counter", failed, "Requests that failed."),
	TOLD("llmdev_daemon_prompt_tokens_total", "counter", prompt_tokens,
	     "Tokens of prompts, anybody's."),
	TOLD("llmdev_daemon_cached_tokens_total", "counter", cached_tokens,
	     "Those that needed no computing."),
	TOLD("llmdev_daemon_computed_tokens_total", "counter", computed_tokens,
	     "Tokens of prompts that were computed."),
	TOLD("llmdev_daemon_generated_tokens_total", "counter", generated_tokens,
	     "Tokens of answers, anybody's."),
	TOLD("llmdev_steps_total", "counter", steps, "Batches computed."),
	TOLD("llmdev_weight_bytes", "gauge", weight_bytes, "Bytes of the model in memory."),
#undef TOLD
};

static void write_told(struct strbuf *b, const struct gateway *g)
{
	for (int i = 0; i < COUNT(told); i++) {
		head(b, told[i].name, told[i].type, told[i].help);
		for (int j = 0; j < g->n_backends; j++) {
			const struct backend *k = &g->backends[j];
			const char *at = (const char *)&k->status + told[i].offset;

			if (!k->up || !k->has_status)
				continue;
			series(b, told[i].name, k, "");
			strbuf_printf(b, "%" PRIu64 "\n",
				      told[i].size == 4 ? *(const uint32_t *)(const void *)at
							: *(const uint64_t *)(const void *)at);
		}
	}
	head(b, "vllm:kv_cache_usage_perc", "gauge", "Share of the KV cache in use, 0 to 1.");
	for (int j = 0; j < g->n_backends; j++) {
		const struct backend *k = &g->backends[j];

		if (!k->up || !k->has_status || !k->status.kv_pages)
			continue;
		series(b, "vllm:kv_cache_usage_perc", k, "");
		strbuf_printf(b, "%.6g\n", (double)k->status.kv_held / (double)k->status.kv_pages);
	}
	head(b, "llmdev_up", "gauge", "1 if the daemon answers.");
	for (int j = 0; j < g->n_backends; j++) {
		series(b, "llmdev_up", &g->backends[j], "");
		strbuf_printf(b, "%d\n", g->backends[j].up);
	}
}

void metrics_write(struct strbuf *b, const struct gateway *g)
{
	write_told(b, g);
	write_own(b, g);
	head(b, "llmdev_gateway_answers_running", "gauge", "Answers that this gateway waits for.");
	for (int j = 0; j < g->n_backends; j++) {
		series(b, "llmdev_gateway_answers_running", &g->backends[j], "");
		strbuf_printf(b, "%u\n", g->metrics.models[j].running);
	}
	head(b, "llmdev_gateway_replies_total", "counter", "Replies, by class of status.");
	for (int i = 1; i < 6; i++)
		strbuf_printf(b, "llmdev_gateway_replies_total{status=\"%dxx\"} %" PRIu64 "\n", i,
			      g->metrics.replies[i]);
	head(b, "llmdev_gateway_limited_total", "counter", "Requests over their key's limits.");
	strbuf_printf(b, "llmdev_gateway_limited_total %" PRIu64 "\n", g->metrics.limited);
	head(b, "llmdev_gateway_disconnects_total", "counter",
	     "Clients that left before their answer's end.");
	strbuf_printf(b, "llmdev_gateway_disconnects_total %" PRIu64 "\n", g->metrics.disconnects);
	head(b, "llmdev_gateway_exchanges", "gauge", "Requests in hand.");
	strbuf_printf(b, "llmdev_gateway_exchanges %d\n", g->n_exchanges);
}
