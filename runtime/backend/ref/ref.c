// SPDX-License-Identifier: MIT
/*
 * The reference backend: executes a plan row by row with the reference kernels, on one thread.
 *
 * Owns its workspace (one row of every intermediate, plus the residual stream of the batch).
 * Weights stay in checkpoint layout. K and V blocks are [position in page][head_dim].
 * It honours kv_type by rounding what it stores; activations are always float.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/ops.h"
#include "kernels/ref/ref.h"

struct ref_backend {
	struct backend base;
	enum kv_type kv_type;
	float *work; /* one allocation, carved below */
	float *x; /* [max_tok][hidden] residual stream */
	float *q; /* [max_tok][max_q] queries, then attention's result */
	float *h; /* [hidden] normalised row */
	float *kv; /* [max_kv] a row of keys or values */
	float *gate, *up; /* [max_width] */
	float *router; /* [max_experts] */
	float *out; /* [hidden] */
	float *row; /* [max cols] a decoded weight row */
	float *score; /* [max_pos] */
};

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Number of floats of each piece, in the order of the fields above. */
static void workspace_pieces(const struct plan *p, int max_tok, size_t piece[10])
{
	size_t cols = max_size(max_size(p->hidden, p->max_q), p->max_width);

	piece[0] = (size_t)max_tok * p->hidden;
	piece[1] = (size_t)max_tok * p->max_q;
	piece[2] = p->hidden;
	piece[3] = p->max_kv;
	piece[4] = piece[5] = p->max_width;
	piece[6] = p->max_experts;
	piece[7] = p->hidden;
	piece[8] = cols;
	piece[9] = p->max_pos;
}

static size_t ref_workspace_bytes(struct backend *b, const struct plan *p, int max_tok, int max_out)
{
	size_t piece[10], sum = 0;

	workspace_pieces(p, max_tok, piece);
	for (int i = 0; i < 10; i++)
		sum += piece[i];
	return sum * sizeof(float);
}

static int ref_prepare(struct backend *base, const struct plan *p, int max_tok, int max_out,
		       struct err *e)
{
	struct ref_backend *b = (struct ref_backend *)base;
	float **field[10] = {&b->x,  &b->q,	 &b->h,	  &b->kv,  &b->gate,
			     &b->up, &b->router, &b->out, &b->row, &b->score};
	size_t piece[10];
	float *next;

	free(b->work);
	b->work = calloc(1, ref_workspace_bytes(base, p, max_tok, max_out));
	if (!b->work)
		return err_set(e, -ENOMEM, "workspace: out of memory: lower --chunk or --ctx");
	workspace_pieces(p, max_tok, piece);
	next = b->work;
	for (int i = 0; i < 10; i++) {
		*field[i] = next;
		next += piece[i];
	}
	return 0;
}

static int ref_weight_layout(struct backend *b, enum dtype type, int64_t rows, int64_t cols,
			     struct weight_pack *out, struct err *e)
{
	const struct dtype_info *info = dtype_info(type);
	size_t bytes = dtype_row_bytes(type, cols);

	if (!info || !info->weight)
		return err_set(e, -EOPNOTSUPP, "type %s: no kernel for it: convert the checkpoint",
			       info ? info->name : "unknown");
	if (!bytes)
		return err_set(e, -EINVAL, "%lld columns are no whole number of %s blocks of %u",
			       (long long)cols, info->name, info->block);
	*out = (struct weight_pack){.group_rows = 1, .group_bytes = bytes};
	return 0;
}

static void matvec(struct ref_backend *b, float *y, const struct weight *w, int64_t which,
		   const float *x)
{
	ref_matvec(y, (const char *)w->data + which * w->stride, w->type, w->rows, w->cols, x,
		   b->row);
}

static void add(float *y, const float *x, int n)
{
	for (int i = 0; i < n; i++)
		y[i] += x[i];
}

/* Store or load one row of head_dim values at a position of a K or V block. */
static void kv_store(const struct ref_backend *b, void *block, int slot, int head_dim,
		     const float *x)
{
	if (b->kv_type == KV_FP8) {
		kv_scales(block, head_dim)[slot] =
			ref_quantise_e4m3((uint8_t *)block + slot * head_dim, x, head_dim);
		return;
	}
	for (int i = 0; i < head_dim; i++) {
		if (b->kv_type == KV_F32)
			((float *)block)[slot * head_dim + i] = x[i];
		else
			((uint16_t *)block)[slot * head_dim + i] = ref_f32_to_bf16(x[i]);
	}
}

static float kv_load(const struct ref_backend *b, void *block, int slot, int head_dim, int i)
{
	if (b->kv_type == KV_FP8)
		return kv_scales(block, head_dim)[slot] *
		       ref_e4m3_to_f32(((const uint8_t *)block)[slot * head_dim + i]);
	if (b->kv_type == KV_F32)
		return ((const float *)block)[slot * head_dim + i];
	return ref_bf16_to_f32(((const uint16_t *)block)[slot * head_dim + i]);
}

/* Norm and rotate the heads of a projected row. */
static void finish_heads(float *x, int n_heads, const struct op_attn_in *o, const float *norm,
			 int pos)
{
	for (int h = 0; h < n_heads; h++) {
		float *head = x + h * o->head_dim;
		const struct rope *r = o->rope;

		if (norm)
			ref_rmsnorm(head, head, norm, o->head_dim, o->eps);
		if (r)
			ref_rope(head, r->dims, r->interleaved,
				 r->cos + (size_t)pos * (r->dims / 2),
				 r->sin + (size_t)pos * (r->dims / 2));
	}
}

static void attn_in_row(struct ref_backend *b, const struct plan *p, const struct kv_pool *kv,
			const struct op_attn_in *o, const struct batch_seq *s, int i)
{
	int row = s->first + i, pos = s->pos0 + i;
	const struct kv_group *g = &p->group[o->kv_group];
	int32_t page = s->pages[o->kv_group][pos / KV_PAGE_TOKENS];
	float *q = b->q + (size_t)row * p->max_q;

	ref_rmsnorm(b->h, b->x + (size_t)row * p->hidden, o->norm, p->hidden, o->eps);
	matvec(b, q, o->q, 0, b->h);
	if (o->q_bias)
		add(q, o->q_bias, o->n_q * o->head_dim);
	finish_heads(q, o->n_q, o, o->q_norm, pos);

	for (int which = 0; which < 2; which++) {
		const float *bias = which ? o->v_bias : o->k_bias;

		matvec(b, b->kv, which ? o->v : o->k, 0, b->h);
		if (bias)
			add(b->kv, bias, o->n_kv * o->head_dim);
		if (!which)
			finish_heads(b->kv, o->n_kv, o, o->k_norm, pos);
		for (int h = 0; h < o->n_kv; h++)
			kv_store(b, kv_block(kv, g, o->kv_group, page, o->kv_layer, which, h),
				 pos % KV_PAGE_TOKENS, o->head_dim, b->kv + h * o->head_dim);
	}
}

/* One query head; the result replaces the query. */
static void attn_head(struct ref_backend *b, const struct plan *p, const struct kv_pool *kv,
		      const struct op_attn *o, const struct batch_seq *s, int pos, int head,
		      float *q)
{
	const struct kv_group *g = &p->group[o->kv_group];
	const int32_t *pages = s->pages[o->kv_group];
	int kv_head = head / (o->n_q / o->n_kv);
	int start = o->window && pos >= o->window ? pos - o->window + 1 : 0;

	for (int j = start; j <= pos; j++) {
		void *k = kv_block(kv, g, o->kv_group, pages[j / KV_PAGE_TOKENS], o->kv_layer, 0,
				   kv_head);
		double sum = 0;

		for (int i = 0; i < o->head_dim; i++)
			sum += (double)q[i] * kv_load(b, k, j % KV_PAGE_TOKENS, o->head_dim, i);
		b->score[j - start] = (float)(sum * o->scale);
	}
	ref_softmax(b->score, pos - start + 1);
	for (int i = 0; i < o->head_dim; i++) {
		double sum = 0;

		for (int j = start; j <= pos; j++) {
			void *v = kv_block(kv, g, o->kv_group, pages[j / KV_PAGE_TOKENS],
					   o->kv_layer, 1, kv_head);

			sum += (double)b->score[j - start] *
			       kv_load(b, v, j % KV_PAGE_TOKENS, o->head_dim, i);
		}
		q[i] = (float)sum;
	}
}

static void glu(struct ref_backend *b, const struct weight *gate, const struct weight *up,
		const struct weight *down, int which)
{
	matvec(b, b->gate, gate, which, b->h);
	matvec(b, b->up, up, which, b->h);
	for (int64_t i = 0; i < gate->rows; i++)
		b->gate[i] = ref_silu(b->gate[i]) * b->up[i];
	matvec(b, b->out, down, which, b->gate);
}

static void moe_row(struct ref_backend *b, const struct plan *p, const struct op_moe *o, float *x)
{
	int idx[64];
	float val[64], sum = 0;

	ref_rmsnorm(b->h, x, o->norm, p->hidden, o->eps);
	matvec(b, b->router, o->router, 0, b->h);
	ref_softmax(b->router, o->n_experts);
	ref_topk(b->router, o->n_experts, o->top_k, idx, val);
	for (int j = 0; j < o->top_k; j++)
		sum += val[j];
	for (int j = 0; j < o->top_k; j++) {
		float weight = o->norm_topk ? val[j] / sum : val[j];

		glu(b, o->gate, o->up, o->down, idx[j]);
		for (int i = 0; i < p->hidden; i++)
			x[i] += weight * b->out[i];
	}
}

static void run_op(struct ref_backend *b, const struct plan *p, const struct op *op,
		   const struct kv_pool *kv, const struct batch *batch, float *logits)
{
	size_t row_bytes;

	switch (op->kind) {
	case OP_EMBED:
		row_bytes = dtype_row_bytes(op->embed.w->type, p->hidden);
		for (int t = 0; t < batch->n_tok; t++) {
			float *x = b->x + (size_t)t * p->hidden;

			ref_dequant_row(x, (char *)op->embed.w->data + batch->ids[t] * row_bytes,
					p->hidden, op->embed.w->type);
			for (int i = 0; i < p->hidden; i++)
				x[i] *= op->embed.scale;
		}
		break;
	case OP_ATTN_IN:
		for (int s = 0; s < batch->n_seq; s++)
			for (int i = 0; i < batch->seq[s].n_tok; i++)
				attn_in_row(b, p, kv, &op->attn_in, &batch->seq[s], i);
		break;
	case OP_ATTN:
		for (int s = 0; s < batch->n_seq; s++)
			for (int i = 0; i < batch->seq[s].n_tok; i++)
				for (int h = 0; h < op->attn.n_q; h++)
					attn_head(b, p, kv, &op->attn, &batch->seq[s],
						  batch->seq[s].pos0 + i, h,
						  b->q +
							  (size_t)(batch->seq[s].first + i) *
								  p->max_q +
							  h * op->attn.head_dim);
		break;
	case OP_PROJ:
		for (int t = 0; t < batch->n_tok; t++) {
			matvec(b, b->out, op->proj.w, 0, b->q + (size_t)t * p->max_q);
			if (op->proj.bias)
				add(b->out, op->proj.bias, p->hidden);
			add(b->x + (size_t)t * p->hidden, b->out, p->hidden);
		}
		break;
	case OP_GLU:
		for (int t = 0; t < batch->n_tok; t++) {
			float *x = b->x + (size_t)t * p->hidden;

			ref_rmsnorm(b->h, x, op->glu.norm, p->hidden, op->glu.eps);
			glu(b, op->glu.gate, op->glu.up, op->glu.down, 0);
			add(x, b->out, p->hidden);
		}
		break;
	case OP_MOE:
		for (int t = 0; t < batch->n_tok; t++)
			moe_row(b, p, &op->moe, b->x + (size_t)t * p->hidden);
		break;
	case OP_HEAD:
		for (int i = 0; i < batch->n_out; i++) {
			ref_rmsnorm(b->h, b->x + (size_t)batch->out_row[i] * p->hidden,
				    op->head.norm, p->hidden, op->head.eps);
			matvec(b, logits + (size_t)i * p->vocab, op->head.w, 0, b->h);
		}
		for (int i = 0; i < batch->n_hidden; i++)
			ref_rmsnorm(batch->hidden + (size_t)i * p->hidden,
				    b->x + (size_t)batch->hidden_row[i] * p->hidden, op->head.norm,
				    p->hidden, op->head.eps);
		break;
	}
}

static void ref_forward(struct backend *base, const struct plan *p, const struct kv_pool *kv,
			const struct batch *batch, float *logits)
{
	for (int i = 0; i < p->n_ops; i++)
		run_op((struct ref_backend *)base, p, &p->ops[i], kv, batch, logits);
}

static void ref_destroy(struct backend *base)
{
	free(((struct ref_backend *)base)->work);
	free(base);
}

struct backend *backend_ref_create(const struct backend_opts *o, struct err *e)
{
	struct ref_backend *b = calloc(1, sizeof(*b));

	if (!b) {
		err_set(e, -ENOMEM, "backend ref: out of memory: free some");
		return NULL;
	}
	b->kv_type = o->kv_type;
	b->base = (struct backend){
		.name = "ref",
		.detail = "plain C, 1 thread",
		.isa = "generic",
		.row_invariant = true,
		.weight_layout = ref_weight_layout,
		.workspace_bytes = ref_workspace_bytes,
		.prepare = ref_prepare,
		.forward = ref_forward,
		.destroy = ref_destroy,
	};
	return &b->base;
}
