// SPDX-License-Identifier: MIT
/* Facts from a checkpoint's headers; see facts.h. Parts are told apart by tensor names. */
#include "facts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/ops.h"
#include "weights/placement.h"

/* Program, tokenizer and workspaces, beside weights and KV. */
#define OVERHEAD (64u << 20)

const char *const facts_part_names[N_PARTS] = {
	"embedding", "attention", "feed-forward", "experts", "router", "norms", "output", "other",
};

static enum facts_part part_of(const char *n)
{
	if (strstr(n, "norm"))
		return PART_NORMS;
	if (strstr(n, "embed_tokens") || strstr(n, "token_embd"))
		return PART_EMBEDDING;
	if (!strncmp(n, "output.", 7) || !strncmp(n, "lm_head.", 8))
		return PART_HEAD;
	if (strstr(n, "ffn_gate_inp") || strstr(n, ".mlp.gate.") || strstr(n, ".router."))
		return PART_ROUTER;
	if (strstr(n, "_exps.") || strstr(n, ".experts."))
		return PART_EXPERTS;
	if (strstr(n, "attn"))
		return PART_ATTENTION;
	if (strstr(n, "ffn") || strstr(n, ".mlp."))
		return PART_FFN;
	return PART_OTHER;
}

static void count_type(struct facts *f, enum dtype type, uint64_t bytes)
{
	const char *name = dtype_info(type)->name;
	int i = 0;

	while (i < f->n_types && strcmp(f->type[i].name, name))
		i++;
	if (i == FACTS_MAX_TYPES)
		return;
	if (i == f->n_types)
		f->type[f->n_types++].name = name;
	f->type[i].tensors++;
	f->type[i].bytes += bytes;
}

static void read_tensors(struct facts *f, const struct checkpoint *c)
{
	uint64_t embedding_rows = 0;

	for (int64_t i = 0; i < checkpoint_n_tensors(c); i++) {
		const struct tensor_info *t = checkpoint_tensor(c, i);
		enum facts_part part = part_of(t->name);
		uint64_t n = 1;

		for (int d = 0; d < t->n_dims; d++)
			n *= (uint64_t)t->dims[d];
		f->params += n;
		f->bytes += t->bytes;
		f->part[part] += t->bytes;
		count_type(f, t->type, t->bytes);
		if (part == PART_EMBEDDING && t->n_dims > 0)
			embedding_rows = (uint64_t)t->dims[0];
		if (!dtype_info(t->type)->weight && f->runs) {
			f->runs = false;
			snprintf(f->why, sizeof(f->why), "tensor %.64s: no kernels for type %s",
				 t->name, dtype_info(t->type)->name);
		}
	}
	f->tied = !f->part[PART_HEAD];
	/* Decoding reads everything once, but one row of an embedding that is no output matrix. */
	f->bytes_per_token = f->bytes;
	if (!f->tied && embedding_rows)
		f->bytes_per_token -=
			f->part[PART_EMBEDDING] / embedding_rows * (embedding_rows - 1);
	if (f->config_known && f->config.experts)
		f->bytes_per_token -= f->part[PART_EXPERTS] / (uint64_t)f->config.experts *
				      (uint64_t)(f->config.experts - f->config.topk);
}

static void read_family(struct facts *f, const struct checkpoint *c)
{
	const json_t *config = checkpoint_config(c);
	const char *name = json_string_value(
		json_object_get(config, f->gguf ? "general.architecture" : "model_type"));
	struct err e;

	f->runs = f->config_known = !model_config_read(&f->config, c, &e);
	if (!f->runs)
		snprintf(f->why, sizeof(f->why), "%s", e.msg);
	snprintf(f->family, sizeof(f->family), "%s",
		 f->runs ? f->config.family
		 : name	 ? name
			 : "unknown");
}

static void fit(struct facts *f)
{
	const struct model_config *m = &f->config;
	uint64_t left;

	f->mem_available = placement_available();
	left = f->bytes + OVERHEAD < f->mem_available ? f->mem_available - f->bytes - OVERHEAD : 0;
	if (!f->config_known) {
		f->fits = left > 0;
		return;
	}
	f->kv_per_token =
		2ull * 2 * (uint64_t)m->layers * (uint64_t)m->n_kv * (uint64_t)m->head_dim;
	f->ctx_fits = (int64_t)(left / (f->kv_per_token * KV_PAGE_TOKENS)) * KV_PAGE_TOKENS;
	if (f->ctx_fits > m->max_pos)
		f->ctx_fits = m->max_pos;
	f->fits = f->ctx_fits > 0;
}

int facts_read(struct facts *f, const char *path, struct err *e)
{
	struct checkpoint *c;
	int rc = checkpoint_open(&c, path, e);

	memset(f, 0, sizeof(*f));
	if (rc)
		return rc;
	f->gguf = checkpoint_kind(c) == CHECKPOINT_GGUF;
	f->n_files = checkpoint_n_files(c);
	read_family(f, c);
	read_tensors(f, c);
	fit(f);
	checkpoint_close(c);
	return 0;
}

double facts_ceiling(const struct facts *f, double bandwidth)
{
	return f->bytes_per_token ? bandwidth / (double)f->bytes_per_token : 0;
}

const char *facts_bytes(char buf[FACTS_SIZE], uint64_t n)
{
	static const char *const unit[] = {"B", "KB", "MB", "GB", "TB", "PB"};
	double v = (double)n;
	int u = 0;

	for (; v >= 999.5 && u < 5; u++)
		v /= 1000;
	snprintf(buf, FACTS_SIZE, "%.*f %s", u == 0 || v >= 100 ? 0 : v >= 10 ? 1 : 2, v, unit[u]);
	return buf;
}
