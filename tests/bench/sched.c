// SPDX-License-Identifier: MIT
/*
 * What a step costs beside the model: N sessions decode together, each with a context of its own,
 * and the engine's own counters say how long steps took and how much of that was the forward pass
 * and sampling. The rest is scheduling: queues, fairness, page tables, events.
 *
 *   sched MODEL [SESSIONS [CONTEXT [TOKENS]]]     64 sessions, 128 tokens of context, 64 generated
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/engine.h"

struct count {
	int tokens, ended;
};

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct count *c = ctx;

	c->tokens += ev->kind == ENGINE_TOKEN;
	c->ended += ev->kind == ENGINE_DONE || ev->kind == ENGINE_ERROR;
}

static int submit(struct engine *en, int i, int n_prompt, int n_tokens, struct count *c,
		  struct err *e)
{
	int32_t *prompt = calloc((size_t)n_prompt, sizeof(*prompt));
	struct request_params p = {.prompt = prompt,
				   .n_prompt = (size_t)n_prompt,
				   .max_tokens = n_tokens,
				   .n_logprobs = -1,
				   .principal = (uint64_t)i % 8,
				   .on_event = on_event,
				   .ctx = c};
	int rc;

	if (!prompt)
		return err_set(e, -1, "out of memory");
	for (int k = 0; k < n_prompt; k++)
		prompt[k] = (int)((unsigned int)(i * 7919 + k * 104729) %
				  (unsigned int)engine_info(en)->vocab);
	sampling_default(&p.sampling, en);
	p.sampling.temperature = 0;
	p.sampling.ignore_eos = true;
	rc = engine_submit(en, &p, NULL, e);
	free(prompt);
	return rc;
}

int main(int argc, char **argv)
{
	int n = argc > 2 ? atoi(argv[2]) : 64, context = argc > 3 ? atoi(argv[3]) : 128;
	int tokens = argc > 4 ? atoi(argv[4]) : 64;
	struct engine_opts o = {.model = argc > 1 ? argv[1] : "tools/demo/model",
				.kv_type = -1,
				.max_seqs = n,
				.step_ms = 60000, /* prompts are not what is measured */
				.ctx = context + tokens};
	struct engine_stats a = {0}, b = {0};
	struct count c = {0};
	struct engine *en;
	struct err e;
	double step, forward, sample;

	if (n < 1 || context < 1 || tokens < 2) {
		fprintf(stderr, "sched: MODEL [SESSIONS [CONTEXT [TOKENS]]]\n");
		return 2;
	}
	if (engine_open(&en, &o, &e)) {
		fprintf(stderr, "sched: %s\n", e.msg);
		return 1;
	}
	for (int i = 0; i < n; i++)
		if (submit(en, i, context, tokens, &c, &e)) {
			fprintf(stderr, "sched: %s\n", e.msg);
			return 1;
		}
	/* All of them decode before the clock starts, and none ends before it stops. */
	do {
		engine_step(en, &e);
		engine_stats(en, &a);
	} while (!c.ended && (a.batch_decode < n || a.batch_prefill));
	do {
		engine_step(en, &e);
		if (!c.ended)
			engine_stats(en, &b);
	} while (!c.ended);
	if (b.steps <= a.steps) {
		fprintf(stderr,
			"sched: %d sessions never decoded together: the pool has %d pages\n", n,
			a.kv_pages);
		return 1;
	}
	step = (double)(b.ns_step - a.ns_step) / (double)(b.steps - a.steps);
	forward = (double)(b.ns_forward - a.ns_forward) / (double)(b.steps - a.steps);
	sample = (double)(b.ns_sample - a.ns_sample) / (double)(b.steps - a.steps);
	printf("%d sessions, %d steps: %.3f ms a step, forward %.3f ms, sampling %.3f ms, "
	       "scheduling %.1f us: %.2f %%; %.1f tokens/s\n",
	       n, (int)(b.steps - a.steps), step / 1e6, forward / 1e6, sample / 1e6,
	       (step - forward - sample) / 1e3, 100 * (step - forward - sample) / step,
	       n / step * 1e9);
	engine_close(en);
	return 0;
}
