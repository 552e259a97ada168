// SPDX-License-Identifier: MIT
/*
 * The blocks that the Llama line of decoders shares: embedding, attention, gated MLP, head.
 * Formulas: pre-norm residual blocks as in transformers' modeling_llama and modeling_qwen3.
 */
#include <math.h>

#include "model/bind.h"

static const struct tensor_name embedding_name = {"model.embed_tokens.weight", "token_embd.weight"};

static struct tensor_name attn_name(const char *which)
{
	switch (which[0]) {
	case 'q':
		return (struct tensor_name){"model.layers.%d.self_attn.q_proj.weight",
					    "blk.%d.attn_q.weight"};
	case 'k':
		return (struct tensor_name){"model.layers.%d.self_attn.k_proj.weight",
					    "blk.%d.attn_k.weight"};
	default:
		return (struct tensor_name){"model.layers.%d.self_attn.v_proj.weight",
					    "blk.%d.attn_v.weight"};
	}
}

void build_embedding(struct binder *b, const struct model_config *c)
{
	struct op *op = plan_add(b, OP_EMBED, -1);

	op->embed.w = bind_matrix(b, embedding_name, 0, c->vocab, c->hidden);
	op->embed.scale = 1;
}

void build_attention(struct binder *b, const struct model_config *c, int layer, bool qk_norm)
{
	int q = c->n_q * c->head_dim, kv = c->n_kv * c->head_dim;
	struct op_attn_in *in = &plan_add(b, OP_ATTN_IN, layer)->attn_in;
	struct op_attn *attn = &plan_add(b, OP_ATTN, layer)->attn;
	struct op_proj *proj = &plan_add(b, OP_PROJ, layer)->proj;

	in->eps = c->eps;
	in->n_q = attn->n_q = c->n_q;
	in->n_kv = attn->n_kv = c->n_kv;
	in->head_dim = attn->head_dim = c->head_dim;
	in->kv_group = attn->kv_group = 0;
	in->kv_layer = attn->kv_layer = layer;
	in->rope = bind_rope(b);
	attn->scale = (float)(1.0 / sqrt(c->head_dim));
	attn->window = c->window;

	bind_vector(b, &in->norm,
		    (struct tensor_name){"model.layers.%d.input_layernorm.weight",
					 "blk.%d.attn_norm.weight"},
		    layer, c->hidden);
	in->q = bind_matrix(b, attn_name("q"), layer, q, c->hidden);
	in->k = bind_matrix(b, attn_name("k"), layer, kv, c->hidden);
	in->v = bind_matrix(b, attn_name("v"), layer, kv, c->hidden);
	if (c->attn_bias) {
		bind_vector(b, &in->q_bias,
			    (struct tensor_name){"model.layers.%d.self_attn.q_proj.bias",
						 "blk.%d.attn_q.bias"},
			    layer, q);
		bind_vector(b, &in->k_bias,
			    (struct tensor_name){"model.layers.%d.self_attn.k_proj.bias",
						 "blk.%d.attn_k.bias"},
			    layer, kv);
		bind_vector(b, &in->v_bias,
			    (struct tensor_name){"model.layers.%d.self_attn.v_proj.bias",
						 "blk.%d.attn_v.bias"},
			    layer, kv);
	}
	if (qk_norm) {
		bind_vector(b, &in->q_norm,
			    (struct tensor_name){"model.layers.%d.self_attn.q_norm.weight",
						 "blk.%d.attn_q_norm.weight"},
			    layer, c->head_dim);
		bind_vector(b, &in->k_norm,
			    (struct tensor_name){"model.layers.%d.self_attn.k_norm.weight",
						 "blk.%d.attn_k_norm.weight"},
			    layer, c->head_dim);
	}
	proj->w = bind_matrix(b,
			      (struct tensor_name){"model.layers.%d.self_attn.o_proj.weight",
						   "blk.%d.attn_output.weight"},
			      layer, c->hidden, q);
	struct tensor_name bias = {"model.layers.%d.self_attn.o_proj.bias",
				   "blk.%d.attn_output.bias"};

	if (c->attn_bias && bind_has(b, bias, layer))
		bind_vector(b, &proj->bias, bias, layer, c->hidden);
}

static const struct tensor_name ffn_norm_name = {"model.layers.%d.post_attention_layernorm.weight",
						 "blk.%d.ffn_norm.weight"};

static void build_moe(struct binder *b, const struct model_config *c, int layer)
{
	struct op_moe *o = &plan_add(b, OP_MOE, layer)->moe;

	o->eps = c->eps;
	o->n_experts = c->experts;
	o->top_k = c->topk;
	o->norm_topk = c->norm_topk;
	o->act = ACT_SILU;
	bind_vector(b, &o->norm, ffn_norm_name, layer, c->hidden);
	o->router = bind_matrix(b,
				(struct tensor_name){"model.layers.%d.mlp.gate.weight",
						     "blk.%d.ffn_gate_inp.weight"},
				layer, c->experts, c->hidden);
	o->gate =
		bind_experts(b,
			     (struct tensor_name){"model.layers.%d.mlp.experts.%d.gate_proj.weight",
						  "blk.%d.ffn_gate_exps.weight"},
			     layer, c->experts, c->expert_ffn, c->hidden);
	o->up = bind_experts(b,
			     (struct tensor_name){"model.layers.%d.mlp.experts.%d.up_proj.weight",
						  "blk.%d.ffn_up_exps.weight"},
			     layer, c->experts, c->expert_ffn, c->hidden);
	o->down =
		bind_experts(b,
			     (struct tensor_name){"model.layers.%d.mlp.experts.%d.down_proj.weight",
						  "blk.%d.ffn_down_exps.weight"},
			     layer, c->experts, c->hidden, c->expert_ffn);
}

static bool is_sparse(const struct model_config *c, int layer)
{
	if (!c->experts || (layer + 1) % c->sparse_step)
		return false;
	for (int i = 0; i < c->n_mlp_only; i++)
		if (c->mlp_only[i] == layer)
			return false;
	return true;
}

void build_mlp(struct binder *b, const struct model_config *c, int layer)
{
	struct op_glu *o;

	if (is_sparse(c, layer)) {
		build_moe(b, c, layer);
		return;
	}
	o = &plan_add(b, OP_GLU, layer)->glu;
	o->eps = c->eps;
	o->act = ACT_SILU;
	bind_vector(b, &o->norm, ffn_norm_name, layer, c->hidden);
	o->gate = bind_matrix(b,
			      (struct tensor_name){"model.layers.%d.mlp.gate_proj.weight",
						   "blk.%d.ffn_gate.weight"},
			      layer, c->ffn, c->hidden);
	o->up = bind_matrix(b,
			    (struct tensor_name){"model.layers.%d.mlp.up_proj.weight",
						 "blk.%d.ffn_up.weight"},
			    layer, c->ffn, c->hidden);
	o->down = bind_matrix(b,
			      (struct tensor_name){"model.layers.%d.mlp.down_proj.weight",
						   "blk.%d.ffn_down.weight"},
			      layer, c->hidden, c->ffn);
}

void build_head(struct binder *b, const struct model_config *c)
{
	static const struct tensor_name head_name = {"lm_head.weight", "output.weight"};
	struct op_head *o = &plan_add(b, OP_HEAD, -1)->head;
	/* saved without it, for embeddings */
	bool headless = bind_has(b, (struct tensor_name){"embed_tokens.weight", ""}, 0) &&
			!bind_has(b, head_name, 0);

	o->eps = c->eps;
	bind_vector(b, &o->norm, (struct tensor_name){"model.norm.weight", "output_norm.weight"}, 0,
		    c->hidden);
	o->w = bind_matrix(b, c->tied || headless ? embedding_name : head_name, 0, c->vocab,
			   c->hidden);
}
