// SPDX-License-Identifier: MIT
/*
 * Reading hyper-parameters; see config.h. Key names: the published config.json files of Qwen3,
 * Qwen3-MoE and Llama 3 (transformers 4 and 5 spellings) and llama.cpp's GGUF key names.
 */
#include "model/config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_DIM (1 << 22)

/* One JSON object and where it comes from; the first error sticks. */
struct reader {
	const json_t *obj;
	const char *file;
	const char *prefix; /* "qwen3." for GGUF keys, "" for config.json */
	struct err *e;
	int rc;
};

static const json_t *lookup(struct reader *r, const char *key)
{
	char full[128];

	if (snprintf(full, sizeof(full), "%s%s", r->prefix, key) >= (int)sizeof(full))
		return NULL;
	const json_t *v = json_object_get(r->obj, full);

	return v && !json_is_null(v) ? v : NULL;
}

static void fail(struct reader *r, const char *key, const char *why)
{
	if (!r->rc)
		r->rc = err_set(r->e, -EINVAL, "%s: %s%s: %s: is the checkpoint complete?", r->file,
				r->prefix, key, why);
}

/* An integer in [min, max]; `fallback` if absent, unless that is negative: then it is required. */
static int get_int(struct reader *r, const char *key, int min, int max, int fallback)
{
	const json_t *v = lookup(r, key);
	char why[96];

	if (!v) {
		if (fallback < 0)
			fail(r, key, "missing");
		return fallback < 0 ? min : fallback;
	}
	if (!json_is_integer(v)) {
		fail(r, key, "not an integer");
		return min;
	}
	if (json_integer_value(v) < min || json_integer_value(v) > max) {
		snprintf(why, sizeof(why), "%lld is outside %d..%d",
			 (long long)json_integer_value(v), min, max);
		fail(r, key, why);
		return min;
	}
	return (int)json_integer_value(v);
}

/* A finite number in [min, max]; NAN as fallback: required. */
static double get_number(struct reader *r, const char *key, double min, double max, double fallback)
{
	const json_t *v = lookup(r, key);
	double d;

	if (!v) {
		if (isnan(fallback))
			fail(r, key, "missing");
		return isnan(fallback) ? min : fallback;
	}
	d = json_is_number(v) ? json_number_value(v) : NAN;
	if (!isfinite(d) || d < min || d > max) {
		char why[96];

		snprintf(why, sizeof(why), "not a number in %g..%g", min, max);
		fail(r, key, why);
		return min;
	}
	return d;
}

static bool get_bool(struct reader *r, const char *key, bool fallback)
{
	const json_t *v = lookup(r, key);

	if (v && !json_is_boolean(v))
		fail(r, key, "neither true nor false");
	return v ? json_is_true(v) : fallback;
}

static const char *get_string(struct reader *r, const char *key)
{
	const json_t *v = lookup(r, key);

	if (v && !json_is_string(v))
		fail(r, key, "not a string");
	return v ? json_string_value(v) : NULL;
}

static void add_eos(struct model_config *m, json_int_t id)
{
	for (int i = 0; i < m->n_eos; i++)
		if (m->eos[i] == id)
			return;
	if (m->n_eos < MODEL_MAX_EOS && id >= 0 && id < m->vocab)
		m->eos[m->n_eos++] = (int32_t)id;
}

static void read_eos(struct model_config *m, struct reader *r, const char *key)
{
	const json_t *v = lookup(r, key), *id;
	size_t i;

	if (!v)
		return;
	if (json_is_integer(v)) {
		add_eos(m, json_integer_value(v));
		return;
	}
	if (!json_is_array(v)) {
		fail(r, key, "neither an id nor a list of ids");
		return;
	}
	json_array_foreach (v, i, id)
		if (json_is_integer(id))
			add_eos(m, json_integer_value(id));
		else
			fail(r, key, "holds something that is not an id");
}

/* ---- Hugging Face ---------------------------------------------------------------------------- */

static const struct {
	const char *name;
	enum rope_scaling scaling;
} rope_types[] = {
	{"default", ROPE_DEFAULT},
	{"linear", ROPE_LINEAR},
	{"llama3", ROPE_LLAMA3},
	{"yarn", ROPE_YARN},
};

static void set_rope_type(struct rope_config *o, struct reader *r, const char *key,
			  const char *type)
{
	for (size_t i = 0; i < sizeof(rope_types) / sizeof(rope_types[0]); i++)
		if (!strcmp(type, rope_types[i].name)) {
			o->scaling = rope_types[i].scaling;
			return;
		}
	fail(r, key, "unknown kind of rope scaling");
}

static void read_rope_scaling(struct rope_config *o, struct reader *r)
{
	const char *type = get_string(r, "rope_type");

	if (!type)
		type = get_string(r, "type");
	if (type)
		set_rope_type(o, r, "rope_type", type);
	if (o->scaling == ROPE_DEFAULT)
		return;
	o->factor = get_number(r, "factor", 1, 1e6, NAN);
	if (o->scaling == ROPE_LINEAR)
		return;
	o->original_ctx =
		get_number(r, "original_max_position_embeddings", 1, 1e9, o->original_ctx);
	o->low_freq = get_number(r, "low_freq_factor", 1e-3, 1e6, 1);
	o->high_freq = get_number(r, "high_freq_factor", 1e-3, 1e6, 4);
	o->beta_fast = get_number(r, "beta_fast", 1e-3, 1e6, 32);
	o->beta_slow = get_number(r, "beta_slow", 1e-3, 1e6, 1);
	o->attn_factor = get_number(r, "attention_factor", 0, 1e3, 0);
	o->truncate = get_bool(r, "truncate", true);
	if (o->scaling == ROPE_LLAMA3 && o->high_freq <= o->low_freq)
		fail(r, "high_freq_factor", "not above low_freq_factor");
}

/* transformers 4: rope_theta + rope_scaling {}; transformers 5: rope_parameters {}. */
static void read_rope_hf(struct model_config *m, struct reader *r)
{
	static const char *const keys[] = {"rope_parameters", "rope_scaling"};
	struct rope_config *o = &m->rope;

	o->theta = get_number(r, "rope_theta", 1, 1e12, 10000);
	o->original_ctx = m->max_pos;
	for (int i = 0; i < 2; i++) {
		const json_t *v = lookup(r, keys[i]);
		struct reader in = {v, r->file, "", r->e, 0};

		if (!v)
			continue;
		if (!json_is_object(v)) {
			fail(r, keys[i], "not an object");
			return;
		}
		o->theta = get_number(&in, "rope_theta", 1, 1e12, o->theta);
		if (get_number(&in, "partial_rotary_factor", 0, 1, 1) != 1)
			fail(&in, "partial_rotary_factor", "only 1 is supported for this family");
		read_rope_scaling(o, &in);
		if (in.rc && !r->rc)
			r->rc = in.rc;
		break;
	}
	o->dims = m->head_dim;
}

static void read_mlp_only(struct model_config *m, struct reader *r)
{
	const json_t *v = lookup(r, "mlp_only_layers"), *id;
	size_t i;

	if (!v)
		return;
	if (!json_is_array(v) || json_array_size(v) > 256) {
		fail(r, "mlp_only_layers", "not a list of at most 256 layers");
		return;
	}
	json_array_foreach (v, i, id)
		m->mlp_only[m->n_mlp_only++] = (int)json_integer_value(id);
}

static void read_moe_hf(struct model_config *m, struct reader *r)
{
	m->experts = get_int(r, "num_experts", 1, 4096, 0);
	if (!m->experts)
		m->experts = get_int(r, "num_local_experts", 1, 4096, -1);
	m->topk = get_int(r, "num_experts_per_tok", 1, 64, -1);
	m->expert_ffn = get_int(r, "moe_intermediate_size", 1, MAX_DIM, -1);
	m->norm_topk = get_bool(r, "norm_topk_prob", false);
	m->sparse_step = get_int(r, "decoder_sparse_step", 1, 1 << 16, 1);
	read_mlp_only(m, r);
}

static void read_hf(struct model_config *m, struct reader *r)
{
	const char *type = get_string(r, "model_type");
	const char *act = get_string(r, "hidden_act");

	if (!type) {
		fail(r, "model_type", "missing");
		return;
	}
	if (strcmp(type, "qwen3") && strcmp(type, "qwen3_moe") && strcmp(type, "llama")) {
		if (!r->rc)
			r->rc = err_set(
				r->e, -EOPNOTSUPP,
				"%s: model_type: \"%s\" is not supported: this version runs "
				"llama, qwen3 and qwen3_moe",
				r->file, type);
		return;
	}
	snprintf(m->family, sizeof(m->family), "%s", type);
	if (act && strcmp(act, "silu"))
		fail(r, "hidden_act", "only \"silu\" is supported for this family");
	if (lookup(r, "quantization_config") && !r->rc)
		r->rc = err_set(r->e, -EOPNOTSUPP,
				"%s: quantization_config: quantised safetensors are not supported "
				"yet: use the BF16 checkpoint or a GGUF file",
				r->file);
	m->hidden = get_int(r, "hidden_size", 1, MAX_DIM, -1);
	m->layers = get_int(r, "num_hidden_layers", 1, 256, -1);
	m->n_q = get_int(r, "num_attention_heads", 1, 4096, -1);
	m->n_kv = get_int(r, "num_key_value_heads", 1, 4096, m->n_q);
	m->head_dim =
		get_int(r, "head_dim", 2, 4096, m->hidden / m->n_q > 1 ? m->hidden / m->n_q : 2);
	m->ffn = get_int(r, "intermediate_size", 1, MAX_DIM, -1);
	m->vocab = get_int(r, "vocab_size", 1, MAX_DIM, -1);
	m->max_pos = get_int(r, "max_position_embeddings", 1, 1 << 24, -1);
	m->eps = (float)get_number(r, "rms_norm_eps", 0, 1, 1e-6);
	m->tied = get_bool(r, "tie_word_embeddings", false);
	m->attn_bias = get_bool(r, "attention_bias", false);
	if (get_bool(r, "mlp_bias", false))
		fail(r, "mlp_bias", "not supported");
	if (get_bool(r, "use_sliding_window", false))
		fail(r, "use_sliding_window", "not supported for this family");
	read_rope_hf(m, r);
	if (!strcmp(type, "qwen3_moe"))
		read_moe_hf(m, r);
	read_eos(m, r, "eos_token_id");
}

/* ---- GGUF ---------------------------------------------------------------------------------------- */

static void read_rope_gguf(struct model_config *m, struct reader *r)
{
	struct rope_config *o = &m->rope;
	const char *type = get_string(r, "rope.scaling.type");

	o->theta = get_number(r, "rope.freq_base", 1, 1e12, 10000);
	o->dims = get_int(r, "rope.dimension_count", 2, m->head_dim, m->head_dim);
	o->interleaved = !strcmp(m->family, "llama");
	if (type && strcmp(type, "none"))
		set_rope_type(o, r, "rope.scaling.type", type);
	if (o->scaling == ROPE_DEFAULT)
		return;
	o->factor = get_number(r, "rope.scaling.factor", 1, 1e6, 1);
	o->original_ctx = get_number(r, "rope.scaling.original_context_length", 1, 1e9, m->max_pos);
	o->beta_fast = get_number(r, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32);
	o->beta_slow = get_number(r, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1);
	o->attn_factor = get_number(r, "rope.scaling.attn_factor", 0, 1e3, 0);
	o->truncate = true;
}

static void read_gguf(struct model_config *m, struct reader *r, const struct checkpoint *c)
{
	const char *arch = get_string(r, "general.architecture");
	const struct tensor_info *embd = checkpoint_find(c, "token_embd.weight");
	struct reader top = *r;
	char prefix[64];

	if (!arch || strlen(arch) > 31) {
		fail(r, "general.architecture", "missing or no name");
		return;
	}
	if (strcmp(arch, "qwen3") && strcmp(arch, "qwen3moe") && strcmp(arch, "llama")) {
		if (!r->rc)
			r->rc = err_set(r->e, -EOPNOTSUPP,
					"%s: general.architecture: \"%s\" is not supported: this "
					"version runs llama, qwen3 and qwen3moe",
					r->file, arch);
		return;
	}
	snprintf(m->family, sizeof(m->family), "%s", strcmp(arch, "qwen3moe") ? arch : "qwen3_moe");
	snprintf(prefix, sizeof(prefix), "%s.", arch);
	r->prefix = prefix;
	m->gguf = true;
	m->hidden = get_int(r, "embedding_length", 1, MAX_DIM, -1);
	m->layers = get_int(r, "block_count", 1, 256, -1);
	m->n_q = get_int(r, "attention.head_count", 1, 4096, -1);
	m->n_kv = get_int(r, "attention.head_count_kv", 1, 4096, m->n_q);
	m->head_dim = get_int(r, "attention.key_length", 2, 4096,
			      m->hidden / m->n_q > 1 ? m->hidden / m->n_q : 2);
	if (get_int(r, "attention.value_length", 2, 4096, m->head_dim) != m->head_dim)
		fail(r, "attention.value_length", "differs from attention.key_length");
	m->max_pos = get_int(r, "context_length", 1, 1 << 24, -1);
	m->eps = (float)get_number(r, "attention.layer_norm_rms_epsilon", 0, 1, NAN);
	m->ffn = get_int(r, "feed_forward_length", 1, MAX_DIM, -1);
	m->tied = !checkpoint_find(c, "output.weight");
	m->attn_bias = checkpoint_find(c, "blk.0.attn_q.bias") != NULL;
	read_rope_gguf(m, r);
	if (!strcmp(arch, "qwen3moe")) {
		m->experts = get_int(r, "expert_count", 1, 4096, -1);
		m->topk = get_int(r, "expert_used_count", 1, 64, -1);
		m->expert_ffn = get_int(r, "expert_feed_forward_length", 1, MAX_DIM, -1);
		m->norm_topk = true; /* llama.cpp: every qwen3moe file */
		m->sparse_step = 1;
	} else if (get_int(r, "expert_count", 0, 4096, 0) > 0) {
		fail(r, "expert_count", "experts are not supported in this family");
	}
	if (!r->rc && (!embd || embd->n_dims != 2 || embd->dims[0] < 1 || embd->dims[0] > MAX_DIM))
		r->rc = err_set(r->e, -EINVAL,
				"%s: token_embd.weight: missing or no matrix: is the "
				"file complete?",
				r->file);
	else if (embd)
		m->vocab = (int)embd->dims[0];
	if (!r->rc)
		r->rc = top.rc;
	top.rc = 0;
	read_eos(m, &top, "tokenizer.ggml.eos_token_id");
	read_eos(m, &top, "tokenizer.ggml.eot_token_id");
	if (!r->rc)
		r->rc = top.rc;
	r->prefix = "";
}

/* ---- both ------------------------------------------------------------------------------------------ */

static void check(struct model_config *m, struct reader *r)
{
	if (r->rc)
		return;
	if (m->n_q % m->n_kv)
		fail(r, "num_key_value_heads", "does not divide the number of heads");
	if (m->rope.dims % 2 || m->head_dim % 2)
		fail(r, "head_dim", "odd");
	if ((int64_t)m->n_q * m->head_dim > MAX_DIM)
		fail(r, "head_dim", "heads x head_dim is too large");
	if (m->experts && m->topk > m->experts)
		fail(r, "num_experts_per_tok", "more than there are experts");
}

static void read_generation(struct model_config *m, const struct checkpoint *c, struct reader *r)
{
	struct reader g = {checkpoint_generation_config(c), "generation_config.json", "", r->e, 0};
	bool sample;

	m->temperature = 0;
	m->top_p = 1;
	if (!g.obj || r->rc)
		return;
	read_eos(m, &g, "eos_token_id");
	/* transformers samples only where do_sample says so. */
	sample = get_bool(&g, "do_sample", false);
	if (sample) {
		m->temperature = get_number(&g, "temperature", 0, 100, 1);
		m->top_p = get_number(&g, "top_p", 0, 1, 1);
		m->min_p = get_number(&g, "min_p", 0, 1, 0);
		m->top_k = get_int(&g, "top_k", 0, MAX_DIM, 50);
	}
	r->rc = g.rc;
}

int model_config_read(struct model_config *m, const struct checkpoint *c, struct err *e)
{
	struct reader r = {.obj = checkpoint_config(c), .prefix = "", .e = e};

	memset(m, 0, sizeof(*m));
	if (checkpoint_kind(c) == CHECKPOINT_GGUF) {
		r.file = checkpoint_path(c);
		read_gguf(m, &r, c);
	} else {
		r.file = "config.json";
		read_hf(m, &r);
	}
	check(m, &r);
	read_generation(m, c, &r);
	if (r.rc && checkpoint_kind(c) != CHECKPOINT_GGUF)
		err_prefix(e, r.rc, "%s", checkpoint_path(c));
	return r.rc;
}
