/* SPDX-License-Identifier: MIT */
/*
 * A model: a checkpoint bound to a backend. Owns the placed weights, the rope tables and the plan.
 *
 * A family is one file with a struct model_family: it declares the tensors it needs (bind.h) and
 * records the plan. model_load() then sizes one allocation for all weights, streams them in, and
 * computes the rope tables. Immutable afterwards, except that rope_extend() fills tables further.
 */
#ifndef LLMDEV_MODEL_H
#define LLMDEV_MODEL_H

#include "backend/ops.h"
#include "model/config.h"
#include "weights/load.h"
#include "weights/placement.h"
#include "weights/region_load.h"

struct binder;

struct model_family {
	const char *name;
	/* Bind every tensor and append every op with plan_add(). Errors stick in the binder. */
	void (*build)(struct binder *b, const struct model_config *c);
};

extern const struct model_family family_llama, family_qwen3, family_qwen3_moe;

struct model {
	struct model_config config;
	const struct model_family *family;
	struct plan plan;
	struct placement weights;
	struct rope rope;
	float *rope_freqs;              /* GGUF rope_freqs.weight [dims/2], NULL if absent */
	int rope_ready;                 /* positions whose cos and sin are filled */
	struct weight **weight;         /* all bound matrices, for accounting */
	int n_weights;
	uint64_t params;
	uint64_t bytes_per_token;       /* weight bytes that decoding one token reads */
	struct load_stats load;
	uint64_t fingerprint;           /* of configuration, shapes and sampled content */
};

struct model_load_opts {
	int ctx;                        /* positions to serve; 0: config.max_pos */
	struct weights_opts weights;    /* where they come from and go to; .admit is not looked at */
	/*
	 * Before memory is taken, with what the model will be: `bytes` of weights are to be allocated,
	 * 0 where they were found. An error ends the loading. May be NULL
	 */
	int (*admit)(void *ctx, struct plan *plan, uint64_t bytes, struct err *e);
	void *admit_ctx;
};

/* `c` must outlive the call, not the model. Errors name the tensor, its shape, and what was expected. */
int model_load(struct model **out, const struct checkpoint *c, struct backend *b,
	       const struct model_load_opts *o, struct err *e);
void model_free(struct model *m);

/* Make positions [0, n) usable; n <= plan.max_pos. Cheap when they already are. */
void model_rope_extend(struct model *m, int n);

/* The frequencies of models' RoPE variants, in float as transformers computes them. rope.c */
void rope_frequencies(const struct rope_config *c, float *inv_freq, float *attn_factor);

#endif
