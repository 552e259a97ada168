// SPDX-License-Identifier: MIT
/*
 * llmctl inspect: what a checkpoint is, what decoding it reads, whether it fits here, and how fast
 * it could be at the memory bandwidth that is measured now.
 */
#include <inttypes.h>
#include <stdio.h>

#include "bandwidth.h"
#include "ctl.h"
#include "facts.h"
#include "model/resolve.h"

#define USAGE "inspect MODEL [--json] [--threads N] [--no-measure]"

/* Streamed to measure the bandwidth: large against any cache, short against patience. */
#define MEASURE_BYTES ((size_t)512 << 20)

enum { OPT_JSON = 1, OPT_THREADS, OPT_NO_MEASURE };

static void print_text(const char *path, const struct facts *f, const struct bandwidth *b)
{
	const struct model_config *m = &f->config;
	char s[FACTS_SIZE], t[FACTS_SIZE];

	printf("model      %s\n", path);
	printf("family     %s%s, %s in %d file%s\n", f->family,
	       f->runs ? "" : " (cannot be run here)", f->gguf ? "GGUF" : "safetensors", f->n_files,
	       f->n_files == 1 ? "" : "s");
	if (!f->runs)
		printf("           %s\n", f->why);
	if (f->config_known) {
		printf("shape      %d layers, hidden %d, %d heads, %d KV heads of %d", m->layers,
		       m->hidden, m->n_q, m->n_kv, m->head_dim);
		if (m->experts)
			printf(", %d experts of %d, %d active", m->experts, m->expert_ffn, m->topk);
		else
			printf(", feed-forward %d", m->ffn);
		printf("\n           vocabulary %d, context %d\n", m->vocab, m->max_pos);
	}
	printf("weights    %.4g M parameters, %s\n", (double)f->params / 1e6,
	       facts_bytes(s, f->bytes));
	for (int i = 0; i < f->n_types; i++)
		printf("             %-12s %10s  %" PRId64 " tensor%s\n", f->type[i].name,
		       facts_bytes(s, f->type[i].bytes), f->type[i].tensors,
		       f->type[i].tensors == 1 ? "" : "s");
	printf("parts\n");
	for (int i = 0; i < N_PARTS; i++)
		if (f->part[i])
			printf("             %-12s %10s%s\n", facts_part_names[i],
			       facts_bytes(s, f->part[i]),
			       i == PART_EMBEDDING && f->tied ? "  also the output matrix" : "");
	printf("decode     %s read per token", facts_bytes(s, f->bytes_per_token));
	if (f->config_known)
		printf(", and %s for each token of context (bf16 KV)",
		       facts_bytes(t, f->kv_per_token));
	printf("\nmemory     %s available: ", facts_bytes(s, f->mem_available));
	if (!f->fits)
		printf("does not fit\n");
	else if (!f->config_known)
		printf("the weights fit\n");
	else
		printf("a context of %" PRId64 " fits%s\n", f->ctx_fits,
		       f->ctx_fits == m->max_pos ? " (the model's own)" : "");
	if (b)
		printf("ceiling    %.1f tokens/s at %.1f GB/s (%d threads reading, just "
		       "measured)\n",
		       facts_ceiling(f, b->median), b->median / 1e9, b->threads);
}

static json_t *to_json(const char *path, const struct facts *f, const struct bandwidth *b)
{
	const struct model_config *m = &f->config;
	json_t *types = json_object(), *parts = json_object(), *j;

	for (int i = 0; i < f->n_types; i++)
		json_object_set_new(types, f->type[i].name,
				    json_pack("{sI sI}", "tensors", (json_int_t)f->type[i].tensors,
					      "bytes", (json_int_t)f->type[i].bytes));
	for (int i = 0; i < N_PARTS; i++)
		if (f->part[i])
			json_object_set_new(parts, facts_part_names[i],
					    json_integer((json_int_t)f->part[i]));
	j = json_pack("{ss ss sb ss si sI sI so so sb sI sI sI sb}", "path", path, "family",
		      f->family, "runs", (int)f->runs, "format", f->gguf ? "gguf" : "safetensors",
		      "files", f->n_files, "parameters", (json_int_t)f->params, "weight_bytes",
		      (json_int_t)f->bytes, "types", types, "parts", parts, "tied", (int)f->tied,
		      "bytes_per_token", (json_int_t)f->bytes_per_token, "kv_bytes_per_token",
		      (json_int_t)f->kv_per_token, "mem_available", (json_int_t)f->mem_available,
		      "fits", (int)f->fits);
	if (!f->runs)
		json_object_set_new(j, "why", json_string(f->why));
	if (f->config_known) {
		json_object_set_new(j, "shape",
				    json_pack("{si si si si si si si si si si}", "layers",
					      m->layers, "hidden", m->hidden, "heads", m->n_q,
					      "kv_heads", m->n_kv, "head_dim", m->head_dim, "ffn",
					      m->ffn, "experts", m->experts, "experts_active",
					      m->topk, "vocab", m->vocab, "context", m->max_pos));
		json_object_set_new(j, "context_fits", json_integer(f->ctx_fits));
	}
	if (b) {
		json_object_set_new(j, "bandwidth",
				    json_pack("{sf si}", "bytes_per_s", b->median, "threads",
					      b->threads));
		json_object_set_new(j, "ceiling_tokens_per_s",
				    json_real(facts_ceiling(f, b->median)));
	}
	return j;
}

int cmd_inspect(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, OPT_JSON},
		{"threads", required_argument, NULL, OPT_THREADS},
		{"no-measure", no_argument, NULL, OPT_NO_MEASURE},
		{NULL},
	};
	bool json = false, measure = true, measured;
	char path[MODEL_PATH_MAX];
	long long threads = 0;
	struct bandwidth b;
	struct facts f;
	struct err e;
	int opt;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (opt) {
		case OPT_JSON:
			json = true;
			break;
		case OPT_NO_MEASURE:
			measure = false;
			break;
		case OPT_THREADS:
			if (!ctl_int("--threads", optarg, 1, 4096, &threads))
				return 2;
			break;
		default:
			return ctl_bad_option(USAGE, argv);
		}
	}
	if (argc - optind != 1)
		return ctl_usage(USAGE, "inspect: needs one MODEL");
	if (model_resolve(argv[optind], path, &e) || facts_read(&f, path, &e))
		return ctl_fail("%s", e.msg);
	/* On a machine that is short of memory the facts are worth more than the ceiling. */
	measured = measure && f.mem_available > 2 * MEASURE_BYTES &&
		   !bandwidth_measure(&b, MEASURE_BYTES, (int)threads, 5, &e);
	if (!json) {
		print_text(path, &f, measured ? &b : NULL);
	} else {
		json_t *j = to_json(path, &f, measured ? &b : NULL);

		json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
		putchar('\n');
		json_decref(j);
	}
	return 0;
}
