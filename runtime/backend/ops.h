/* SPDX-License-Identifier: MIT */
/*
 * The contract between models and backends: bound weights, the plan of block-level ops that a
 * model records once, the ragged batch that a forward pass takes, and the backend's entry points.
 *
 * Models (runtime/model) fill struct plan; backends (runtime/backend/NAME) execute it; kernels
 * know neither. No op returns data to the host in the middle of a step: everything that varies
 * from step to step stands in struct batch.
 *
 * Row invariance: a token's logits are a bitwise function of its own sequence's tokens up to it,
 * never of its neighbours in the batch, of chunking, or of the number of threads. `ref` and `cpu`
 * promise it (backend->row_invariant).
 */
#ifndef LLMDEV_OPS_H
#define LLMDEV_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/dtype.h"
#include "weights/load.h"

/* ---- weights ---------------------------------------------------------------------------- */

/*
 * y[rows] = W[rows][cols] x[cols]; `count` such matrices stacked `stride` bytes apart (experts).
 * The bytes are in the layout that backend->weight_layout() chose when the weight was bound.
 */
struct weight {
	enum dtype type;
	int64_t rows, cols;
	int64_t count;
	size_t stride;
	struct weight_pack pack;        /* pack.pack == NULL: checkpoint layout */
	void *data;
};

/* ---- KV cache ----------------------------------------------------------------------------- */

#define KV_PAGE_TOKENS 64       /* positions of a page; absolute: page i holds 64*i .. 64*i+63 */
#define KV_MAX_GROUPS  4        /* layers that share head size and window */

/*
 * KV_FP8: E4M3 of the OCP 8-bit floating point specification (1 sign, 4 exponent and 3 mantissa bits,
 * bias 7, largest 448, no infinities), with one f32 scale for the vector that a position has in a head.
 */
enum kv_type { KV_F32, KV_BF16, KV_FP8 };

/* As --kv-type has it, and part of the fingerprint. */
static inline const char *kv_type_name(enum kv_type type)
{
	static const char *const names[] = {"f32", "bf16", "fp8"};

	return names[type];
}

/*
 * Layers with the same geometry share pages: a page of a group holds KV_PAGE_TOKENS positions of
 * K and V for each of its layers and heads:  [layer in group][K, V][kv head][block]
 * A block is KV_PAGE_TOKENS * head_dim values, in an order that is the backend's business. With
 * KV_FP8 the KV_PAGE_TOKENS scales stand behind them, at kv_scales(). The scale of a position
 * depends on that position's vector alone: absmax / 448.
 */
struct kv_group {
	int n_layers, n_heads, head_dim;
	int window;             /* 0: unbounded */
	size_t page_bytes;      /* filled by plan_finish() for the engine's kv_type */
};

struct kv_pool {
	void *base[KV_MAX_GROUPS];      /* pages of group g: base[g] + index * page_bytes */
	enum kv_type type;
};

static inline size_t kv_value_bytes(enum kv_type type, int head_dim)
{
	size_t n = (size_t)KV_PAGE_TOKENS * head_dim;

	return type == KV_F32 ? 4 * n : type == KV_BF16 ? 2 * n : (n + 255) & ~(size_t)255;
}

static inline size_t kv_block_bytes(enum kv_type type, int head_dim)
{
	return kv_value_bytes(type, head_dim) +
	       (type == KV_FP8 ? KV_PAGE_TOKENS * sizeof(float) : 0);
}

static inline size_t kv_group_page_bytes(const struct kv_group *g, enum kv_type type)
{
	return (size_t)g->n_layers * 2 * g->n_heads * kv_block_bytes(type, g->head_dim);
}

/* Start of the block of K (which = 0) or V (which = 1). */
static inline void *kv_block(const struct kv_pool *pool, const struct kv_group *g, int gi,
			     int32_t page, int layer_in_group, int which, int head)
{
	return (char *)pool->base[gi] + (size_t)page * g->page_bytes +
	       (((size_t)layer_in_group * 2 + which) * g->n_heads + head) *
		       kv_block_bytes(pool->type, g->head_dim);
}

/* KV_FP8: the scales of a block, one for each position. */
static inline float *kv_scales(void *block, int head_dim)
{
	return (float *)((char *)block + kv_value_bytes(KV_FP8, head_dim));
}

/* ---- plan ----------------------------------------------------------------------------------- */

enum op_kind {
	OP_EMBED,       /* x = embedding rows */
	OP_ATTN_IN,     /* norm, q/k/v projections (+bias), q/k norm, RoPE, KV write; q stays in q */
	OP_ATTN,        /* a = softmax(scale q K^T) V per head, over the sequence's pages */
	OP_PROJ,        /* x += W a (+bias) */
	OP_GLU,         /* x += down(act(gate h) * up h), h = norm(x) */
	OP_MOE,         /* x += sum_j w_j expert_j(h), h = norm(x) */
	OP_HEAD,        /* logits = W norm(x), hidden = norm(x): for the rows that ask for it */
};

enum act_kind { ACT_SILU };

/* Rotary embedding, tables computed once by rope_init() (model/rope.c) in double precision. */
struct rope {
	int dims;               /* rotary dims, even, <= head_dim; the rest passes through */
	bool interleaved;       /* pairs (2i, 2i+1) as GGUF llama; else (i, i + dims/2) */
	float *inv_freq;        /* [dims/2], scaling included */
	float attn_factor;      /* multiplies cos and sin (YaRN), else 1 */
	float *cos, *sin;       /* [max_pos][dims/2] each, attn_factor included */
};

struct op_embed {
	const struct weight *w;         /* [vocab][hidden] */
	float scale;
};

struct op_attn_in {
	const float *norm;              /* [hidden] */
	float eps;
	const struct weight *q, *k, *v; /* [n_q*hd][hidden], [n_kv*hd][hidden] x2 */
	const float *q_bias, *k_bias, *v_bias;          /* or NULL */
	const float *q_norm, *k_norm;   /* [head_dim] each, per head, before RoPE; or NULL */
	const struct rope *rope;        /* or NULL */
	int n_q, n_kv, head_dim;
	int kv_group, kv_layer;         /* where K and V are written */
};

struct op_attn {
	int n_q, n_kv, head_dim;
	int kv_group, kv_layer;
	float scale;
	int window;                     /* 0, or: key j visible to query i iff i - j < window */
};

struct op_proj {
	const struct weight *w;         /* [hidden][n_q*hd] */
	const float *bias;
};

struct op_glu {
	const float *norm;
	float eps;
	const struct weight *gate, *up; /* [width][hidden] */
	const struct weight *down;      /* [hidden][width] */
	enum act_kind act;
};

struct op_moe {
	const float *norm;
	float eps;
	const struct weight *router;    /* [experts][hidden] */
	const struct weight *gate, *up, *down; /* count = experts */
	int n_experts, top_k;
	bool norm_topk;                 /* softmax over all, top-k, then renormalise */
	enum act_kind act;
	/* Ties in the router go to the lower expert; experts combine in the order of their rank. */
};

struct op_head {
	const float *norm;
	float eps;
	const struct weight *w;         /* [vocab][hidden] */
};

struct op {
	enum op_kind kind;
	int layer;                      /* for messages and traces; -1 outside layers */
	union {
		struct op_embed embed;
		struct op_attn_in attn_in;
		struct op_attn attn;
		struct op_proj proj;
		struct op_glu glu;
		struct op_moe moe;
		struct op_head head;
	};
};

#define PLAN_MAX_OPS 1024

struct plan {
	int n_ops;
	struct op *ops;                 /* owned by the model */
	int n_groups;
	struct kv_group group[KV_MAX_GROUPS];
	/* maxima over the ops: what a backend sizes its workspace by */
	int hidden, vocab;
	int max_q, max_kv;              /* n_q*hd, n_kv*hd */
	int max_width;                  /* of a GLU or an expert */
	int max_experts, max_topk, max_heads;
	int max_pos;                    /* context the rope tables cover */
	size_t state_bytes;             /* of one sequence's recurrent state, all layers; 0: none */
};

/* ---- batch ------------------------------------------------------------------------------------ */

/*
 * A ragged batch: tokens of several sequences, those of one sequence adjacent and in order.
 * pages[g][i] is the page of group g that holds positions 64*i ..; all pages up to the sequence's
 * last token of this batch are present. Pointers are valid for the duration of forward().
 */
struct batch_seq {
	int first, n_tok;               /* rows of the batch */
	int pos0;                       /* position of its first row */
	const int32_t *pages[KV_MAX_GROUPS];
	void *state;            /* [plan.state_bytes] of the recurrent layers after position pos0 - 1
				 * (zero at 0); forward() leaves it as after the last row. NULL if
				 * the plan has none */
};

struct batch {
	int n_tok;
	const int32_t *ids;             /* [n_tok], each < vocab (the engine checks) */
	const uint8_t *generated;       /* [n_tok] 1: a generated token, also when it is computed
					 * again; NULL unless backend->split_classes */
	int n_seq;
	const struct batch_seq *seq;
	int n_out;
	const int32_t *out_row;         /* [n_out] rows whose logits are wanted, ascending */
	int n_hidden;
	const int32_t *hidden_row;      /* [n_hidden] rows whose hidden state after the final norm is
					 * wanted, ascending */
	float *hidden;                  /* [n_hidden][plan.hidden], caller's: they come here */
};

/* ---- backend ---------------------------------------------------------------------------------- */

struct backend_opts {
	int threads;                    /* 0: one per online CPU of the affinity mask */
	bool exact;                     /* float activations */
	enum kv_type kv_type;
};

struct backend {
	const char *name;               /* "ref", "cpu" */
	char detail[64];                /* for people: "AVX-512 VNNI BF16, 2 threads" */
	const char *isa;                /* what decides the arithmetic: "avx512"; part of the fingerprint */
	bool row_invariant;
	/*
	 * Prompt tokens and generated tokens are computed by different kernels, with different
	 * rounding: batch.generated says which is which, and the prefix cache keeps them apart. `ref`
	 * and `cpu` compute both alike.
	 */
	bool split_classes;
	/*
	 * How a matrix [rows][cols] of this type is to be stored. -EOPNOTSUPP with a message if
	 * the backend has no kernel for it. Every matrix is stored in ceil(rows/group_rows) groups.
	 */
	int (*weight_layout)(struct backend *b, enum dtype type, int64_t rows, int64_t cols,
			     struct weight_pack *out, struct err *e);
	/* Allocate everything a forward pass of up to max_tok rows and max_out outputs needs;
	 * forward() allocates nothing. workspace_bytes() says how much that is, before it is done. */
	size_t (*workspace_bytes)(struct backend *b, const struct plan *p, int max_tok, int max_out);
	int (*prepare)(struct backend *b, const struct plan *p, int max_tok, int max_out,
		       struct err *e);
	/* logits: [n_out][vocab] f32, caller's. Returns when they are there. */
	void (*forward)(struct backend *b, const struct plan *p, const struct kv_pool *kv,
			const struct batch *batch, float *logits);
	void (*destroy)(struct backend *b);
};

struct backend *backend_ref_create(const struct backend_opts *o, struct err *e);
struct backend *backend_cpu_create(const struct backend_opts *o, struct err *e);

#endif
