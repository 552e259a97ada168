// SPDX-License-Identifier: MIT
/*
 * What a synthetic checkpoint consists of: configuration -> shape -> list of tensors.
 *
 * Presets are configurations as published. Tensor names are those of Hugging Face checkpoints and
 * of GGUF files of the same families.
 */
#include "synth.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define QWEN3(layers, hidden, width, heads, tied)                                                  \
	"{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"hidden_act\":"       \
	"\"silu\",\"num_hidden_layers\":" #layers ",\"hidden_size\":" #hidden                      \
	",\"intermediate_size\":" #width ",\"num_attention_heads\":" #heads                        \
	",\"num_key_value_heads\":8,\"head_dim\":128,\"vocab_size\":151936,"                       \
	"\"max_position_embeddings\":40960,\"rms_norm_eps\":1e-6,\"rope_theta\":1000000,"          \
	"\"attention_bias\":false,\"tie_word_embeddings\":" #tied "}"
#define LLAMA3(layers, hidden, width, heads, head_dim, factor, tied)                               \
	"{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":"       \
	"\"silu\",\"num_hidden_layers\":" #layers ",\"hidden_size\":" #hidden                      \
	",\"intermediate_size\":" #width ",\"num_attention_heads\":" #heads                        \
	",\"num_key_value_heads\":8,\"head_dim\":" #head_dim ",\"vocab_size\":128256,"             \
	"\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-5,\"rope_theta\":500000,"          \
	"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":" #factor                           \
	",\"low_freq_factor\":1,\"high_freq_factor\":4,"                                           \
	"\"original_max_position_embeddings\":8192},"                                              \
	"\"attention_bias\":false,\"mlp_bias\":false,\"tie_word_embeddings\":" #tied "}"

static const struct {
	const char *name, *config;
} presets[] = {
	{"qwen3-0.6b", QWEN3(28, 1024, 3072, 16, true)},
	{"qwen3-1.7b", QWEN3(28, 2048, 6144, 16, true)},
	{"qwen3-4b", QWEN3(36, 2560, 9728, 32, true)},
	{"qwen3-8b", QWEN3(36, 4096, 12288, 32, false)},
	{"qwen3-32b", QWEN3(64, 5120, 25600, 64, false)},
	{"qwen3-30b-a3b",
	 "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen3_moe\","
	 "\"hidden_act\":\"silu\",\"num_hidden_layers\":48,\"hidden_size\":2048,"
	 "\"intermediate_size\":6144,\"moe_intermediate_size\":768,\"num_experts\":128,"
	 "\"num_experts_per_tok\":8,\"norm_topk_prob\":true,\"decoder_sparse_step\":1,"
	 "\"mlp_only_layers\":[],\"num_attention_heads\":32,\"num_key_value_heads\":4,"
	 "\"head_dim\":128,\"vocab_size\":151936,\"max_position_embeddings\":40960,"
	 "\"rms_norm_eps\":1e-6,\"rope_theta\":1000000,\"attention_bias\":false,"
	 "\"tie_word_embeddings\":false}"},
	{"llama-3.2-1b", LLAMA3(16, 2048, 8192, 32, 64, 32, true)},
	{"llama-3.2-3b", LLAMA3(28, 3072, 8192, 24, 128, 32, true)},
	{"llama-3.1-8b", LLAMA3(32, 4096, 14336, 32, 128, 8, false)},
};

#define N_PRESETS (sizeof(presets) / sizeof(presets[0]))

const char *const synth_presets[] = {
	"qwen3-0.6b",	 "qwen3-1.7b",	 "qwen3-4b",	 "qwen3-8b",	 "qwen3-32b",
	"qwen3-30b-a3b", "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", NULL,
};

/* file_type: llama.cpp's numbers for "mostly X". */
const struct synth_format synth_formats[] = {
	{"bf16", false, DTYPE_BF16, DTYPE_BF16, 0},
	{"f16", false, DTYPE_F16, DTYPE_F16, 0},
	{"f32", false, DTYPE_F32, DTYPE_F32, 0},
	{"gguf-f32", true, DTYPE_F32, DTYPE_F32, 0},
	{"gguf-f16", true, DTYPE_F16, DTYPE_F16, 1},
	{"gguf-bf16", true, DTYPE_BF16, DTYPE_BF16, 32},
	{"gguf-q8_0", true, DTYPE_Q8_0, DTYPE_Q8_0, 7},
	{"gguf-q4_0", true, DTYPE_Q4_0, DTYPE_Q6_K, 2},
	{"gguf-q4_k", true, DTYPE_Q4_K, DTYPE_Q6_K, 14},
	{"gguf-q6_k", true, DTYPE_Q6_K, DTYPE_Q6_K, 18},
	{NULL},
};

const struct synth_format *synth_format_find(const char *name)
{
	for (const struct synth_format *f = synth_formats; f->name; f++)
		if (!strcmp(f->name, name))
			return f;
	return NULL;
}

json_t *synth_config_load(const char *config, struct err *e)
{
	char path[4096];
	struct stat st;
	json_error_t je;
	json_t *j;

	for (size_t i = 0; i < N_PRESETS; i++)
		if (!strcmp(config, presets[i].name))
			return json_loads(presets[i].config, 0, NULL);

	snprintf(path, sizeof(path), "%s", config);
	if (stat(path, &st)) {
		err_set(e, -errno, "%s: %s: give a config.json or a preset such as %s", config,
			strerror(errno), synth_presets[0]);
		return NULL;
	}
	if (S_ISDIR(st.st_mode))
		snprintf(path, sizeof(path), "%s/config.json", config);
	j = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
	if (!j)
		err_set(e, -EINVAL, "%s: line %d: %s", path, je.line, je.text);
	else if (!json_is_object(j)) {
		err_set(e, -EINVAL, "%s: not a JSON object: give a model's config.json", path);
		json_decref(j);
		return NULL;
	}
	return j;
}

/* A positive integer of the configuration, at most `max`; `fallback` 0 means that it must be there. */
static int get_int(const json_t *c, const char *key, int64_t max, int64_t fallback, int64_t *out,
		   struct err *e)
{
	const json_t *v = json_object_get(c, key);

	if (!v || json_is_null(v)) {
		if (!fallback)
			return err_set(e, -EINVAL, "config.json: %s: missing", key);
		*out = fallback;
		return 0;
	}
	if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > max)
		return err_set(e, -EINVAL, "config.json: %s: must be an integer of 1 to %lld", key,
			       (long long)max);
	*out = json_integer_value(v);
	return 0;
}

static double get_num(const json_t *c, const char *key, double fallback)
{
	const json_t *v = json_object_get(c, key);

	return json_is_number(v) ? json_number_value(v) : fallback;
}

static int parse_rope(struct synth_shape *s, const json_t *c, struct err *e)
{
	const json_t *p = json_object_get(c, "rope_parameters");
	const json_t *sc = json_object_get(c, "rope_scaling");
	const char *type;

	if (!json_is_object(p))
		p = sc;
	s->rope_theta = get_num(p, "rope_theta", get_num(c, "rope_theta", 10000));
	type = json_string_value(json_object_get(p, "rope_type"));
	if (!type)
		type = json_string_value(json_object_get(p, "type"));
	if (!type || !strcmp(type, "default"))
		return 0;
	if (!strcmp(type, "llama3"))
		s->rope_type = "llama3";
	else if (!strcmp(type, "yarn"))
		s->rope_type = "yarn";
	else
		return err_set(e, -EOPNOTSUPP,
			       "config.json: rope_type: %s is not known: use llama3, yarn or none",
			       type);
	s->rope_factor = get_num(p, "factor", 1);
	s->rope_low = get_num(p, "low_freq_factor", 1);
	s->rope_high = get_num(p, "high_freq_factor", 4);
	s->rope_orig_ctx = (int64_t)get_num(p, "original_max_position_embeddings", 8192);
	if (s->rope_factor <= 0 || s->rope_high <= s->rope_low || s->rope_orig_ctx < 1)
		return err_set(e, -EINVAL, "config.json: rope scaling: numbers out of range");
	return 0;
}

int synth_shape_parse(struct synth_shape *s, const json_t *c, struct err *e)
{
	const char *type = json_string_value(json_object_get(c, "model_type"));
	int rc = 0;

	memset(s, 0, sizeof(*s));
	if (!type)
		return err_set(e, -EINVAL, "config.json: model_type: missing");
	if (!strcmp(type, "qwen3"))
		s->family = SYNTH_QWEN3;
	else if (!strcmp(type, "qwen3_moe"))
		s->family = SYNTH_QWEN3_MOE;
	else if (!strcmp(type, "llama"))
		s->family = SYNTH_LLAMA;
	else
		return err_set(
			e, -EOPNOTSUPP,
			"config.json: model_type: %s cannot be made: use qwen3, qwen3_moe or "
			"llama",
			type);

#define GET(key, max, fallback, out)                                                               \
	do {                                                                                       \
		if (!rc)                                                                           \
			rc = get_int(c, key, max, fallback, out, e);                               \
	} while (0)
	GET("hidden_size", 1 << 20, 0, &s->hidden);
	GET("num_hidden_layers", 1024, 0, &s->layers);
	GET("num_attention_heads", 4096, 0, &s->heads);
	GET("num_key_value_heads", 4096, s->heads, &s->kv_heads);
	GET("head_dim", 4096, rc ? 1 : s->hidden / s->heads, &s->head_dim);
	GET("intermediate_size", 1 << 24, s->family == SYNTH_QWEN3_MOE ? 1 : 0, &s->width);
	GET("vocab_size", 1 << 24, 0, &s->vocab);
	GET("max_position_embeddings", 1 << 24, 4096, &s->ctx);
	if (s->family == SYNTH_QWEN3_MOE) {
		const char *n =
			json_object_get(c, "num_experts") ? "num_experts" : "num_local_experts";

		GET(n, 4096, 0, &s->experts);
		GET("num_experts_per_tok", 4096, 0, &s->experts_used);
		GET("moe_intermediate_size", 1 << 24, 0, &s->expert_width);
	}
#undef GET
	if (rc)
		return rc;
	if (s->heads % s->kv_heads || s->head_dim % 2)
		return err_set(e, -EINVAL,
			       "config.json: num_attention_heads: must be a multiple of "
			       "num_key_value_heads, and head_dim even");
	if (s->experts_used > s->experts)
		return err_set(e, -EINVAL,
			       "config.json: num_experts_per_tok: more than there are experts");
	s->tied = json_is_true(json_object_get(c, "tie_word_embeddings"));
	s->eps = get_num(c, "rms_norm_eps", 1e-6);
	return parse_rope(s, c, e);
}

static int add(struct synth_tensors *t, enum dtype type, enum synth_content content, int64_t d0,
	       int64_t d1, int64_t d2, const char *name)
{
	struct synth_tensor *v;

	if (t->n == t->cap) {
		int64_t cap = t->cap ? 2 * t->cap : 256;

		v = realloc(t->v, (size_t)cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		t->v = v;
		t->cap = cap;
	}
	v = &t->v[t->n++];
	memset(v, 0, sizeof(*v));
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->content = content;
	v->n_dims = d2 ? 3 : d1 ? 2 : 1;
	v->dims[0] = d0;
	v->dims[1] = d1;
	v->dims[2] = d2;
	/* Rows that are no whole number of blocks take the next wider type, as llama.cpp does. */
	if (!dtype_row_bytes(type, v->dims[v->n_dims - 1]))
		type = dtype_row_bytes(DTYPE_Q8_0, v->dims[v->n_dims - 1]) ? DTYPE_Q8_0 : DTYPE_F16;
	v->type = type;
	v->bytes = dtype_row_bytes(type, v->dims[v->n_dims - 1]);
	for (int i = 0; i + 1 < v->n_dims; i++)
		v->bytes *= (uint64_t)v->dims[i];
	return 0;
}

/* Tensor names of one layer, in the order of enum below; %d is the layer. */
enum { IN_NORM, Q, K, V, O, Q_NORM, K_NORM, POST_NORM, ROUTER, GATE, UP, DOWN, N_LAYER_NAMES };

static const char *const names_hf[N_LAYER_NAMES] = {
	"input_layernorm",  "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
	"self_attn.o_proj", "self_attn.q_norm", "self_attn.k_norm", "post_attention_layernorm",
	"mlp.gate",	    "gate_proj",	"up_proj",	    "down_proj",
};
static const char *const names_gguf[N_LAYER_NAMES] = {
	"attn_norm",   "attn_q",   "attn_k",	   "attn_v",   "attn_output", "attn_q_norm",
	"attn_k_norm", "ffn_norm", "ffn_gate_inp", "ffn_gate", "ffn_up",      "ffn_down",
};

static int list_layer(struct synth_tensors *t, const struct synth_shape *s,
		      const struct synth_format *f, int layer)
{
	enum dtype norm = f->gguf ? DTYPE_F32 : f->matrix;
	int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim, h = s->hidden;
	int64_t w = s->experts ? s->expert_width : s->width;
	char name[80];
	int rc = 0;

#define ADD(type, content, d0, d1, d2, ...)                                                        \
	do {                                                                                       \
		snprintf(name, sizeof(name), __VA_ARGS__);                                         \
		rc = rc ? rc : add(t, type, content, d0, d1, d2, name);                            \
	} while (0)
#define LAYER(which, type, content, d0, d1)                                                        \
	ADD(type, content, d0, d1, 0, f->gguf ? "blk.%d.%s.weight" : "model.layers.%d.%s.weight",  \
	    layer, f->gguf ? names_gguf[which] : names_hf[which])

	LAYER(IN_NORM, norm, SYNTH_ONES, h, 0);
	LAYER(Q, f->matrix, SYNTH_RANDOM, q, h);
	LAYER(K, f->matrix, SYNTH_RANDOM, kv, h);
	LAYER(V, f->matrix, SYNTH_RANDOM, kv, h);
	LAYER(O, f->matrix, SYNTH_RANDOM, h, q);
	if (s->family != SYNTH_LLAMA) {
		LAYER(Q_NORM, norm, SYNTH_ONES, s->head_dim, 0);
		LAYER(K_NORM, norm, SYNTH_ONES, s->head_dim, 0);
	}
	LAYER(POST_NORM, norm, SYNTH_ONES, h, 0);
	if (s->experts)
		LAYER(ROUTER, norm, SYNTH_RANDOM, s->experts, h);
	for (int i = GATE; i <= DOWN; i++) {
		int64_t rows = i == DOWN ? h : w, cols = i == DOWN ? w : h;

		if (f->gguf && s->experts)
			ADD(f->matrix, SYNTH_RANDOM, s->experts, rows, cols,
			    "blk.%d.%s_exps.weight", layer, names_gguf[i]);
		else if (f->gguf)
			ADD(f->matrix, SYNTH_RANDOM, rows, cols, 0, "blk.%d.%s.weight", layer,
			    names_gguf[i]);
		else if (!s->experts)
			ADD(f->matrix, SYNTH_RANDOM, rows, cols, 0, "model.layers.%d.mlp.%s.weight",
			    layer, names_hf[i]);
	}
	for (int x = 0; !f->gguf && x < s->experts; x++)
		for (int i = GATE; i <= DOWN; i++)
			ADD(f->matrix, SYNTH_RANDOM, i == DOWN ? h : w, i == DOWN ? w : h, 0,
			    "model.layers.%d.mlp.experts.%d.%s.weight", layer, x, names_hf[i]);
#undef LAYER
#undef ADD
	return rc;
}

int synth_list(struct synth_tensors *t, const struct synth_shape *s, const struct synth_format *f,
	       bool pure, struct err *e)
{
	enum dtype norm = f->gguf ? DTYPE_F32 : f->matrix;
	enum dtype head = pure ? f->matrix : f->head;
	int rc;

	memset(t, 0, sizeof(*t));
	/* A tied embedding is the output matrix too. */
	rc = add(t, s->tied ? head : f->matrix, SYNTH_RANDOM, s->vocab, s->hidden, 0,
		 f->gguf ? "token_embd.weight" : "model.embed_tokens.weight");
	for (int i = 0; !rc && i < s->layers; i++)
		rc = list_layer(t, s, f, i);
	if (!rc)
		rc = add(t, norm, SYNTH_ONES, s->hidden, 0, 0,
			 f->gguf ? "output_norm.weight" : "model.norm.weight");
	if (!rc && !s->tied)
		rc = add(t, head, SYNTH_RANDOM, s->vocab, s->hidden, 0,
			 f->gguf ? "output.weight" : "lm_head.weight");
	if (!rc && f->gguf && s->rope_type && !strcmp(s->rope_type, "llama3"))
		rc = add(t, DTYPE_F32, SYNTH_ROPE_FREQS, s->head_dim / 2, 0, 0,
			 "rope_freqs.weight");
	if (rc) {
		free(t->v);
		memset(t, 0, sizeof(*t));
		return err_set(e, rc, "synth: out of memory: the list of tensors does not fit");
	}
	return 0;
}
