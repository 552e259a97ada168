/* SPDX-License-Identifier: MIT */
/*
 * A model's hyper-parameters, read from Hugging Face's config.json or from GGUF metadata and
 * checked: after model_config_read() succeeds every dimension is positive, bounded, and consistent
 * with the others, so that builders need not check again.
 */
#ifndef LLMDEV_MODEL_CONFIG_H
#define LLMDEV_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/checkpoint.h"

enum rope_scaling { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct rope_config {
	double theta;
	enum rope_scaling scaling;
	double factor;
	double original_ctx;            /* llama3, yarn */
	double low_freq, high_freq;     /* llama3 */
	double beta_fast, beta_slow;    /* yarn */
	double attn_factor;             /* yarn; 0: 0.1 ln(factor) + 1 */
	bool truncate;                  /* yarn: whole correction dims */
	bool interleaved;               /* GGUF llama */
	int dims;
};

#define MODEL_MAX_EOS 16

struct model_config {
	char family[32];                /* "qwen3", "qwen3_moe", "llama" */
	bool gguf;                      /* tensor names are GGUF's */
	int hidden, layers, n_q, n_kv, head_dim, ffn, vocab, max_pos;
	float eps;
	bool tied;                      /* HF: tie_word_embeddings */
	bool attn_bias;
	int window;                     /* of every layer; 0: none */
	struct rope_config rope;
	int experts, topk, expert_ffn;  /* experts == 0: dense */
	bool norm_topk;
	int sparse_step;                /* layer i is sparse iff (i+1) % sparse_step == 0 ... */
	int n_mlp_only;                 /* ... and i is not in mlp_only[] */
	int mlp_only[256];
	/* config.json's and generation_config.json's together; the vocabulary may add more */
	int n_eos;
	int32_t eos[MODEL_MAX_EOS];
	/* sampling defaults; temperature 0 if the checkpoint asks for no sampling */
	double temperature, top_p, min_p;
	int top_k;
};

/* Errors name the file (or GGUF) and the key. -EOPNOTSUPP: a family we do not have. */
int model_config_read(struct model_config *m, const struct checkpoint *c, struct err *e);

#endif
