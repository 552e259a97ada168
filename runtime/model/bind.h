/* SPDX-License-Identifier: MIT */
/*
 * How a family's file asks for tensors and records its plan. Used during model_load() only.
 *
 * Names are given twice, as published in safetensors and in GGUF; "%d" stands for the layer, a
 * second "%d" for the expert. Errors stick: after the first one every call returns quietly, and
 * model_load() reports it.
 */
#ifndef LLMDEV_MODEL_BIND_H
#define LLMDEV_MODEL_BIND_H

#include "backend/ops.h"
#include "model/model.h"

struct tensor_name {
	const char *hf, *gguf;
};

/* W [rows][cols], in the backend's layout. */
const struct weight *bind_matrix(struct binder *b, struct tensor_name name, int layer, int64_t rows,
				 int64_t cols);
/* `count` matrices stacked: one tensor per expert, or one three-dimensional tensor. */
const struct weight *bind_experts(struct binder *b, struct tensor_name name, int layer, int64_t count,
				  int64_t rows, int64_t cols);
/* A vector [n], converted to float; *dst is set when the weights are placed. */
void bind_vector(struct binder *b, const float **dst, struct tensor_name name, int layer, int n);
/* True if the checkpoint has it. */
bool bind_has(struct binder *b, struct tensor_name name, int layer);

/* A zeroed op at the end of the plan; never moves. A dummy when the plan is full (error sticks). */
struct op *plan_add(struct binder *b, enum op_kind kind, int layer);
/* The rope tables of the model being built. */
const struct rope *bind_rope(struct binder *b);

/* What the Llama line of decoders has in common. decoder.c */
void build_embedding(struct binder *b, const struct model_config *c);
void build_attention(struct binder *b, const struct model_config *c, int layer, bool qk_norm);
void build_mlp(struct binder *b, const struct model_config *c, int layer);
void build_head(struct binder *b, const struct model_config *c);

#endif
