// SPDX-License-Identifier: MIT
/*
 * What the swap file of the KV cache is worth: two prompts that do not fit the pool together are
 * asked in turn, with and without one.
 *
 * usage: swap MODEL DIR [PROMPT_TOKENS [ROUNDS]]
 *        swap DIR direct|buffered
 * Prints one JSON object a round and side: milliseconds to the first token of a prompt whose pages
 * had to leave, tokens found, pages written and read in this round, and milliseconds of each.
 * The first round of a side, in which everything is computed, is not printed. The second form moves
 * pages alone, of a Qwen3-0.6B's shape in bf16, and prints milliseconds a page.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/kv.h"

struct answer {
	bool done;
	int cached;
	double first_ms;
};

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct answer *a = ctx;

	if (ev->kind != ENGINE_DONE && ev->kind != ENGINE_ERROR)
		return;
	a->done = true;
	a->cached = ev->cached_tokens;
	a->first_ms = (double)(ev->ns_first - ev->ns_submit) * 1e-6;
}

/* One token after `n` ids that nobody else asks. */
static int ask(struct engine *en, int which, int32_t *ids, int n, struct answer *a, struct err *e)
{
	struct request_params p = {.prompt = ids,
				   .n_prompt = n,
				   .max_tokens = 1,
				   .n_logprobs = -1,
				   .on_event = on_event,
				   .ctx = a};
	struct request *r;
	int rc;

	for (int i = 0; i < n; i++)
		ids[i] = 100 + (i * 7 + which * 13 + i / 64) % 1000;
	*a = (struct answer){0};
	sampling_default(&p.sampling, en);
	rc = engine_submit(en, &p, &r, e);
	while (rc >= 0 && !a->done)
		rc = engine_step(en, e);
	return rc < 0 ? rc : 0;
}

static int side(struct engine *en, const char *name, int tokens, int rounds, struct err *e)
{
	int32_t *ids = malloc(tokens * sizeof(*ids));
	int rc = ids ? 0 : -1;

	for (int i = 0; !rc && i < rounds + 1; i++) {
		for (int which = 0; !rc && which < 2; which++) {
			struct engine_stats before, after;
			double out, in, ns;
			struct answer a;

			engine_stats(en, &before);
			rc = ask(en, which, ids, tokens, &a, e);
			engine_stats(en, &after);
			out = (double)(after.swapped_out - before.swapped_out);
			in = (double)(after.swapped_in - before.swapped_in);
			ns = (double)(after.ns_swap - before.ns_swap);
			if (i && !rc)
				printf("{\"side\": \"%s\", \"round\": %d, \"prompt\": %d, "
				       "\"first_token_ms\": %.1f, \"cached\": %d, \"written\": "
				       "%.0f, \"read\": %.0f, \"ms_per_transfer\": %.2f}\n",
				       name, i, tokens, a.first_ms, a.cached, out, in,
				       out + in ? ns * 1e-6 / (out + in) : 0);
			fflush(stdout);
		}
	}
	free(ids);
	return rc;
}

#define PAGES 48

/* Publishes PAGES pages and lets them go; or takes them, and lets them go. The number that was had. */
static int chain(struct kv_cache *kv, bool publish)
{
	int32_t ids[KV_PAGE_TOKENS] = {0}, page[PAGES];
	uint64_t parent = kv_root(0);
	int n;

	for (n = 0; n < PAGES; n++) {
		ids[0] = n;
		page[n] = publish ? kv_get_page(kv) : kv_take(kv, parent, ids, 0);
		if (page[n] < 0)
			break;
		if (publish) {
			memset((char *)kv->mem.base + page[n] * kv->page_bytes, n + 1,
			       kv->page_bytes);
			kv_publish(kv, page[n], parent, ids, 0);
		}
		parent = kv->page[page[n]].serial;
	}
	for (int i = n; i--;)
		kv_put_page(kv, page[i]);
	return n;
}

/* All pages to a new file, and back. */
static int transfers(const char *dir, bool direct)
{
	struct plan p = {.n_groups = 1, .group = {{.n_layers = 28, .n_heads = 8, .head_dim = 128}}};
	struct kv_opts o = {.type = KV_BF16, .n_pages = PAGES, .swap_dir = dir};
	int32_t held[PAGES];
	struct kv_cache kv;
	struct err e;
	uint64_t out;
	int n;

	if (kv_init(&kv, &p, &o, &e)) {
		fprintf(stderr, "swap: %s\n", e.msg);
		return 1;
	}
	if (!direct)
		fcntl(kv.swap.fd, F_SETFL, 0);
	chain(&kv, true);
	for (int i = 0; i < PAGES; i++)
		held[i] = kv_get_page(&kv);
	out = kv.swap.ns;
	for (int i = 0; i < PAGES; i++)
		kv_put_page(&kv, held[i]);
	n = chain(&kv, false);
	printf("{\"page_bytes\": %zu, \"%s\": true, \"write_ms\": %.2f, \"read_ms\": %.2f, "
	       "\"pages\": %d}\n",
	       kv.page_bytes, direct ? "direct" : "buffered", (double)out * 1e-6 / PAGES,
	       (double)(kv.swap.ns - out) * 1e-6 / PAGES, n);
	kv_free(&kv);
	return 0;
}

int main(int argc, char **argv)
{
	int tokens = argc > 3 ? atoi(argv[3]) : 1025, rounds = argc > 4 ? atoi(argv[4]) : 5;
	struct engine_opts o = {.kv_type = -1};
	struct engine_stats st;
	struct engine *en;
	struct err e = {""};
	int rc;

	if (argc == 3 && (!strcmp(argv[2], "direct") || !strcmp(argv[2], "buffered")))
		return transfers(argv[1], argv[2][0] == 'd');
	if (argc < 3 || tokens < 65 || rounds < 1) {
		fprintf(stderr, "usage: swap MODEL DIR [PROMPT_TOKENS [ROUNDS]]\n"
				"       swap DIR direct|buffered\n");
		return 2;
	}
	o.model = argv[1];
	o.ctx = (tokens / KV_PAGE_TOKENS + 2) * KV_PAGE_TOKENS;
	/* A page's size is only known by an engine. */
	o.kv_bytes = (size_t)1 << 30;
	rc = engine_open(&en, &o, &e);
	if (!rc) {
		engine_stats(en, &st);
		engine_close(en);
		o.kv_bytes = (size_t)o.ctx / KV_PAGE_TOKENS * st.kv_page_bytes;
	}
	for (int swap = 0; !rc && swap < 2; swap++) {
		o.swap_dir = swap ? argv[2] : NULL;
		rc = engine_open(&en, &o, &e);
		if (rc)
			break;
		rc = side(en, swap ? "swap" : "recompute", tokens, rounds, &e);
		engine_close(en);
	}
	if (rc)
		fprintf(stderr, "swap: %s\n", e.msg);
	return rc != 0;
}
