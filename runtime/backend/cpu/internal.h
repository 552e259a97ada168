/* SPDX-License-Identifier: MIT */
/*
 * What the files of the CPU backend share. The op functions (op_*) run on every thread of the pool
 * at once, with the same arguments but their own `struct thread_ws`; they meet at barriers.
 */
#ifndef LLMDEV_CPU_INTERNAL_H
#define LLMDEV_CPU_INTERNAL_H

#include "backend/cpu/pool.h"
#include "backend/ops.h"
#include "kernels/cpu/cpu.h"

#define MAX_HEAD_DIM 1024 /* prepare() refuses larger ones */

/* Activations of some tokens in the formats that were asked for; see kernels/cpu/cpu.h. */
struct act {
	int64_t cols;
	float *f; /* [rows][even cols] */
	uint16_t *bf; /* the same */
	int8_t *q; /* [rows][cols] */
	struct act_meta *meta; /* [rows][cols/32] */
};

/* Tokens t0 .. t0 + m - 1 of an act. */
struct tile {
	int t0, m;
	int expert; /* MoE only */
};

struct thread_ws {
	float *h; /* [max cols] a normalised row, or a decoded one */
	struct act act; /* own copies for a batch of one token */
	struct act shared; /* the same memory on every thread */
	float *attn_q, *attn_s, *attn_o, *attn_m, *attn_l;
	float *attn_kv; /* [2][KV_PAGE_TOKENS * head_dim] of KV_FP8 as floats */
	int *attn_lo, *attn_hi;
	float *weight; /* [max_topk] routing of a single token */
	int *expert; /* [max_topk] */
	float *prob; /* [max_experts] */
};

struct cpu_backend {
	struct backend base;
	const struct cpu_kernels *k;
	struct pool *pool;
	bool exact;
	enum kv_type kv_type;
	void *work; /* one allocation; what follows points into it */
	size_t work_bytes;
	int attn_rows; /* query rows that the attention scratch holds */
	float *x; /* [max_tok][hidden] residual stream */
	float *q; /* [max_tok][max_q] queries, then attention's result */
	float *kv_row[2]; /* [max_tok][max_kv] keys and values as projected */
	float *g; /* [max_tok * topk][max_width] */
	int *row_pos, *row_seq; /* [max_tok] */
	/* mixture of experts */
	float *h; /* [max_tok][hidden] */
	float *d; /* [max_tok * topk][hidden] what each expert gave */
	float *router; /* [max_tok][max_experts] */
	float *weight; /* [max_tok][topk] */
	int *expert; /* [max_tok][topk] */
	int *order; /* [max_tok * topk] (token, rank) pairs by expert */
	int *place; /* the inverse: where (token, rank) stands in `order` */
	int *active; /* experts that have tokens */
	int *start; /* [max_experts + 1] first of an expert in `order` */
	struct tile *tiles;
	int n_active, n_tiles;
	struct thread_ws *ws; /* [threads] */
};

/* One forward pass, as every thread sees it. */
struct pass {
	struct cpu_backend *b;
	const struct plan *plan;
	const struct kv_pool *kv;
	const struct batch *batch;
	float *logits;
};

/* ---- gemm.c --------------------------------------------------------------------------------- */

/* The format in which activations meet weights of this type. */
enum act_fmt act_fmt_for(const struct cpu_backend *b, enum dtype type);
static inline unsigned fmt_bit(const struct cpu_backend *b, const struct weight *w)
{
	return 1u << act_fmt_for(b, w->type);
}

/* Store h[act->cols] as row t0 + i of the tile (t0, m), in each format of the mask. */
void act_store(const struct cpu_backend *b, const struct act *a, unsigned formats, int t0, int m,
	       int i, const float *h);

/* Which tile of n tokens comes i-th, counting from 0; false past the end. */
bool tile_at(const struct cpu_backend *b, int n, int i, struct tile *t);
int tile_count(const struct cpu_backend *b, int n);

/* y[m][16] = rows 16g .. of matrix `which` of w times a tile of a, which holds the format `fmt`. */
void gemm_tile(const struct cpu_backend *b, const struct weight *w, int64_t which, int64_t group,
	       const struct act *a, enum act_fmt fmt, int t0, int m, float *y);

/*
 * The rows of one group for all n tokens: y[t][16 group ..] = or += (+ bias), y having `ld` columns.
 */
enum gemm_mode { GEMM_SET, GEMM_ADD };
void gemm_group(const struct cpu_backend *b, const struct weight *w, int64_t group,
		const struct act *a, enum act_fmt fmt, int n, const float *bias,
		enum gemm_mode mode, float *y, int64_t ld);

/* silu(gate x) * up x for one group of rows of matrix `which`, tile by tile, to y[t][ld]. */
void gemm_glu_tile(const struct cpu_backend *b, const struct weight *gate, const struct weight *up,
		   int64_t which, int64_t group, const struct act *a, int t0, int m, float *y,
		   int64_t ld);

static inline int64_t weight_groups(const struct weight *w)
{
	return (w->rows + CPU_ROWS - 1) / CPU_ROWS;
}

/*
 * Normalise rows (row[i], or i where row is NULL; i < n) of x[][cols] and store them as activations.
 * With one row every thread makes its own copy, and no barrier is needed; otherwise it is shared.
 * Returns the act to read. norm == NULL: as they are.
 */
const struct act *make_act(struct pass *p, struct worker *w, const float *x, int64_t ld,
			   int64_t cols, const int32_t *row, int n, const float *norm, float eps,
			   unsigned formats);

/* ---- ops ------------------------------------------------------------------------------------ */

void op_attn_in(struct pass *p, struct worker *w, const struct op_attn_in *o);
void op_attn(struct pass *p, struct worker *w, const struct op_attn *o);
void op_moe(struct pass *p, struct worker *w, const struct op_moe *o);

#endif
