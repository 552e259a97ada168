// SPDX-License-Identifier: MIT
/*
 * The CPU backend: SIMD kernels chosen at run time, a pool of threads that walk the plan together.
 *
 * Owns the pool and one workspace, allocated by prepare(). forward() allocates nothing, takes no
 * lock, and is called by one thread at a time. LLMDEV_ISA (generic, avx2, avx512, neon) forces a
 * table of kernels.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/cpu/internal.h"

/* ---- ops that are little more than a product ------------------------------------------------- */

static void op_embed(struct pass *p, struct worker *w, const struct op_embed *o)
{
	int64_t hidden = p->plan->hidden;
	struct work k;

	work_begin(&k, w, p->batch->n_tok);
	while (work_next(&k)) {
		for (int64_t t = k.first; t < k.last; t++) {
			int32_t id = p->batch->ids[t];
			float *x = p->b->x + t * hidden;

			cpu_unpack_row(x,
				       (const char *)o->w->data +
					       id / CPU_ROWS * o->w->pack.group_bytes,
				       id % CPU_ROWS, hidden, o->w->type);
			if (o->scale != 1)
				for (int64_t i = 0; i < hidden; i++)
					x[i] *= o->scale;
		}
	}
	work_end(&k);
}

/* x += W a (+ bias) for all tokens */
static void add_product(struct pass *p, struct worker *w, const struct weight *m, const float *bias,
			const struct act *a)
{
	struct work k;

	work_begin(&k, w, weight_groups(m));
	while (work_next(&k))
		for (int64_t g = k.first; g < k.last; g++)
			gemm_group(p->b, m, g, a, act_fmt_for(p->b, m->type), p->batch->n_tok, bias,
				   GEMM_ADD, p->b->x, p->plan->hidden);
	work_end(&k);
}

static void op_proj(struct pass *p, struct worker *w, const struct op_proj *o)
{
	const struct act *a = make_act(p, w, p->b->q, p->plan->max_q, o->w->cols, NULL,
				       p->batch->n_tok, NULL, 0, fmt_bit(p->b, o->w));

	add_product(p, w, o->w, o->bias, a);
}

static void op_glu(struct pass *p, struct worker *w, const struct op_glu *o)
{
	struct cpu_backend *b = p->b;
	int64_t hidden = p->plan->hidden, width = o->gate->rows;
	int n = p->batch->n_tok;
	const struct act *a = make_act(p, w, b->x, hidden, hidden, NULL, n, o->norm, o->eps,
				       fmt_bit(b, o->gate) | fmt_bit(b, o->up));
	struct work k;

	work_begin(&k, w, weight_groups(o->gate));
	while (work_next(&k)) {
		for (int64_t g = k.first; g < k.last; g++) {
			for (int t0 = 0, m; t0 < n; t0 += m) {
				m = cpu_tile_size(b->k->max_m, n - t0);
				gemm_glu_tile(b, o->gate, o->up, 0, g, a, t0, m, b->g, width);
			}
		}
	}
	work_end(&k);
	a = make_act(p, w, b->g, width, width, NULL, n, NULL, 0, fmt_bit(b, o->down));
	add_product(p, w, o->down, NULL, a);
}

/* The hidden states that the batch asks for, as they are. */
static void give_hidden(struct pass *p, struct worker *w, const struct op_head *o)
{
	const struct batch *batch = p->batch;
	int64_t hidden = p->plan->hidden;
	struct work k;

	work_begin(&k, w, batch->n_hidden);
	while (work_next(&k))
		for (int64_t i = k.first; i < k.last; i++)
			p->b->k->rmsnorm(batch->hidden + i * hidden,
					 p->b->x + batch->hidden_row[i] * hidden, o->norm, hidden,
					 o->eps);
	work_end(&k);
}

static void op_head(struct pass *p, struct worker *w, const struct op_head *o)
{
	struct cpu_backend *b = p->b;
	int64_t hidden = p->plan->hidden;
	int n = p->batch->n_out;
	const struct act *a;
	struct work k;

	if (p->batch->n_hidden)
		give_hidden(p, w, o);
	if (!n)
		return;
	a = make_act(p, w, b->x, hidden, hidden, p->batch->out_row, n, o->norm, o->eps,
		     fmt_bit(b, o->w));
	work_begin(&k, w, weight_groups(o->w));
	while (work_next(&k))
		for (int64_t g = k.first; g < k.last; g++)
			gemm_group(b, o->w, g, a, act_fmt_for(b, o->w->type), n, NULL, GEMM_SET,
				   p->logits, p->plan->vocab);
	work_end(&k);
}

static void run_plan(void *ctx, struct worker *w)
{
	struct pass *p = ctx;

	for (int i = 0; i < p->plan->n_ops; i++) {
		const struct op *op = &p->plan->ops[i];

		switch (op->kind) {
		case OP_EMBED:
			op_embed(p, w, &op->embed);
			break;
		case OP_ATTN_IN:
			op_attn_in(p, w, &op->attn_in);
			break;
		case OP_ATTN:
			op_attn(p, w, &op->attn);
			break;
		case OP_PROJ:
			op_proj(p, w, &op->proj);
			break;
		case OP_GLU:
			op_glu(p, w, &op->glu);
			break;
		case OP_MOE:
			op_moe(p, w, &op->moe);
			break;
		case OP_HEAD:
			op_head(p, w, &op->head);
			break;
		}
	}
}

static void cpu_forward(struct backend *base, const struct plan *p, const struct kv_pool *kv,
			const struct batch *batch, float *logits)
{
	struct cpu_backend *b = (struct cpu_backend *)base;
	struct pass pass = {.b = b, .plan = p, .kv = kv, .batch = batch, .logits = logits};

	for (int s = 0; s < batch->n_seq; s++) {
		for (int i = 0; i < batch->seq[s].n_tok; i++) {
			b->row_pos[batch->seq[s].first + i] = batch->seq[s].pos0 + i;
			b->row_seq[batch->seq[s].first + i] = s;
		}
	}
	pool_run(b->pool, run_plan, &pass);
}

/* ---- workspace ------------------------------------------------------------------------------ */

/* Walks through an allocation; with base NULL it only counts. */
struct arena {
	char *base;
	size_t used;
};

static void *take(struct arena *a, size_t count, size_t size)
{
	void *p = a->base ? a->base + a->used : NULL;

	/* 128: threads' neighbouring pieces never share a pair of cache lines */
	a->used += (count * size + 127) & ~(size_t)127;
	return p;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static void take_act(struct cpu_backend *b, struct arena *m, struct act *a, size_t rows,
		     size_t cols)
{
	cols += 1; /* even */
	a->f = take(m, rows * cols, sizeof(float));
	if (b->exact)
		return;
	a->bf = take(m, rows * cols, sizeof(uint16_t));
	a->q = take(m, rows * cols, 1);
	a->meta = take(m, rows * (cols / 32), sizeof(struct act_meta));
}

/* Query rows of an attention unit: enough for the kernel's tiles, one token's at least. */
static int attn_rows(const struct plan *p)
{
	int rows = 48;

	for (int i = 0; i < p->n_ops; i++)
		if (p->ops[i].kind == OP_ATTN)
			rows = (int)larger(rows, p->ops[i].attn.n_q / p->ops[i].attn.n_kv);
	return rows;
}

static int max_head_dim(const struct plan *p)
{
	int hd = 16;

	for (int i = 0; i < p->n_ops; i++)
		if (p->ops[i].kind == OP_ATTN)
			hd = (int)larger(hd, p->ops[i].attn.head_dim);
	return hd;
}

static size_t carve(struct cpu_backend *b, const struct plan *p, size_t max_tok, size_t max_out,
		    void *base)
{
	struct arena m = {.base = base};
	size_t topk = larger(p->max_topk, 1), pairs = max_tok * topk;
	size_t cols = larger(larger(p->hidden, p->max_q), p->max_width);
	size_t hd = max_head_dim(p) + 15, rows = attn_rows(p);
	struct act shared = {0};

	b->attn_rows = (int)rows;
	b->x = take(&m, max_tok * p->hidden, sizeof(float));
	b->q = take(&m, max_tok * p->max_q, sizeof(float));
	b->kv_row[0] = take(&m, max_tok * p->max_kv, sizeof(float));
	b->kv_row[1] = take(&m, max_tok * p->max_kv, sizeof(float));
	b->g = take(&m, pairs * p->max_width, sizeof(float));
	take_act(b, &m, &shared, larger(pairs, max_out), cols);
	b->row_pos = take(&m, max_tok, sizeof(int));
	b->row_seq = take(&m, max_tok, sizeof(int));
	if (p->max_experts) {
		b->h = take(&m, max_tok * p->hidden, sizeof(float));
		b->d = take(&m, pairs * p->hidden, sizeof(float));
		b->router = take(&m, max_tok * p->max_experts, sizeof(float));
		b->weight = take(&m, pairs, sizeof(float));
		b->expert = take(&m, pairs, sizeof(int));
		b->order = take(&m, pairs, sizeof(int));
		b->place = take(&m, pairs, sizeof(int));
		b->active = take(&m, p->max_experts, sizeof(int));
		b->start = take(&m, p->max_experts + 1, sizeof(int));
		b->tiles = take(&m, pairs, sizeof(struct tile));
	}
	b->ws = take(&m, pool_threads(b->pool), sizeof(struct thread_ws));
	for (int i = 0; i < pool_threads(b->pool); i++) {
		struct thread_ws none, *ws = base ? &b->ws[i] : &none;

		ws->shared = shared;
		ws->h = take(&m, cols, sizeof(float));
		take_act(b, &m, &ws->act, topk, cols);
		ws->attn_q = take(&m, rows * hd, sizeof(float));
		ws->attn_s = take(&m, rows * KV_PAGE_TOKENS, sizeof(float));
		ws->attn_o = take(&m, rows * hd, sizeof(float));
		if (b->kv_type == KV_FP8)
			ws->attn_kv = take(&m, 2 * KV_PAGE_TOKENS * hd, sizeof(float));
		ws->attn_m = take(&m, rows, sizeof(float));
		ws->attn_l = take(&m, rows, sizeof(float));
		ws->attn_lo = take(&m, rows, sizeof(int));
		ws->attn_hi = take(&m, rows, sizeof(int));
		ws->weight = take(&m, topk, sizeof(float));
		ws->expert = take(&m, topk, sizeof(int));
		ws->prob = take(&m, larger(p->max_experts, 1), sizeof(float));
	}
	return m.used;
}

static size_t cpu_workspace_bytes(struct backend *base, const struct plan *p, int max_tok,
				  int max_out)
{
	struct cpu_backend probe = *(struct cpu_backend *)base;

	return carve(&probe, p, max_tok, max_out, NULL);
}

static void free_workspace(struct cpu_backend *b)
{
	if (b->work)
		munmap(b->work, b->work_bytes);
	b->work = NULL;
}

static int cpu_prepare(struct backend *base, const struct plan *p, int max_tok, int max_out,
		       struct err *e)
{
	struct cpu_backend *b = (struct cpu_backend *)base;

	if (max_head_dim(p) > MAX_HEAD_DIM)
		return err_set(e, -EOPNOTSUPP, "head size %d: at most %d: use --backend ref",
			       max_head_dim(p), MAX_HEAD_DIM);
	free_workspace(b);
	b->work_bytes = cpu_workspace_bytes(base, p, max_tok, max_out);
	b->work = mmap(NULL, b->work_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	if (b->work == MAP_FAILED) {
		b->work = NULL;
		return err_set(e, -ENOMEM, "workspace: %zu bytes: out of memory: lower --chunk",
			       b->work_bytes);
	}
	madvise(b->work, b->work_bytes, MADV_HUGEPAGE);
	carve(b, p, max_tok, max_out, b->work);
	return 0;
}

/* ---- entry points --------------------------------------------------------------------------- */

static int cpu_weight_layout(struct backend *base, enum dtype type, int64_t rows, int64_t cols,
			     struct weight_pack *out, struct err *e)
{
	const struct dtype_info *info = dtype_info(type);
	size_t bytes;

	if (!info || !((struct cpu_backend *)base)->k->tile(type, ACT_F32))
		return err_set(e, -EOPNOTSUPP, "type %s: no kernel for it: convert the checkpoint",
			       info ? info->name : "unknown");
	bytes = rows > 0 && cols > 0 ? cpu_group_bytes(type, cols) : 0;
	if (!bytes)
		return err_set(e, -EINVAL,
			       "%lld x %lld: columns are no whole number of %s blocks of %u",
			       (long long)rows, (long long)cols, info->name, info->block);
	*out = (struct weight_pack){.group_rows = CPU_ROWS, .group_bytes = bytes, .pack = cpu_pack};
	return 0;
}

static void cpu_destroy(struct backend *base)
{
	struct cpu_backend *b = (struct cpu_backend *)base;

	pool_destroy(b->pool);
	free_workspace(b);
	free(b);
}

struct backend *backend_cpu_create(const struct backend_opts *o, struct err *e)
{
	const char *isa = getenv("LLMDEV_ISA");
	struct cpu_backend *b = calloc(1, sizeof(*b));

	if (!b) {
		err_set(e, -ENOMEM, "backend cpu: out of memory: free some");
		return NULL;
	}
	b->exact = o->exact;
	b->kv_type = o->kv_type;
	b->k = cpu_kernels_select(isa && *isa ? isa : NULL);
	if (!b->k) {
		err_set(e, -EINVAL, "LLMDEV_ISA: %s: this machine has no such kernels: unset it",
			isa);
		free(b);
		return NULL;
	}
	if (pool_create(&b->pool, o->threads ? o->threads : pool_online(), e)) {
		free(b);
		return NULL;
	}
	b->base = (struct backend){
		.name = "cpu",
		.isa = b->k->name,
		.row_invariant = true,
		.weight_layout = cpu_weight_layout,
		.workspace_bytes = cpu_workspace_bytes,
		.prepare = cpu_prepare,
		.forward = cpu_forward,
		.destroy = cpu_destroy,
	};
	snprintf(b->base.detail, sizeof(b->base.detail), "%s%s, %d thread%s", b->k->detail,
		 b->exact ? ", exact" : "", pool_threads(b->pool),
		 pool_threads(b->pool) == 1 ? "" : "s");
	return &b->base;
}
