// SPDX-License-Identifier: MIT
/*
 * Attention of the CPU backend: the projections with norm, RoPE and KV write, and softmax(QK^T)V
 * over the pages. K blocks are [head_dim][64], V blocks [64][head_dim]; only this file and the
 * attention kernel know that.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/internal.h"

/* ---- projections ---------------------------------------------------------------------------- */

/* One of q, k, v, cut into units of whole heads that are also whole groups of rows. */
struct projection {
	const struct weight *w;
	const float *bias, *norm;
	float *y;
	int64_t ld;
	int n_heads;
	int which; /* 0: q; 1: k; 2: v */
	int64_t units;
};

/* Heads of a unit: the fewest whose rows are whole groups. */
static int unit_heads(int head_dim)
{
	int heads = 1;

	while (heads * head_dim % CPU_ROWS)
		heads *= 2;
	return heads;
}

static void write_kv(struct pass *p, const struct op_attn_in *o, int t, int head, int which,
		     const float *x)
{
	const struct cpu_backend *b = p->b;
	const struct kv_group *g = &p->plan->group[o->kv_group];
	const struct batch_seq *s = &p->batch->seq[b->row_seq[t]];
	int pos = b->row_pos[t], slot = pos % KV_PAGE_TOKENS, hd = o->head_dim;
	int32_t page = s->pages[o->kv_group][pos / KV_PAGE_TOKENS];
	void *block = kv_block(p->kv, g, o->kv_group, page, o->kv_layer, which, head);

	uint8_t codes[MAX_HEAD_DIM];
	uint16_t bf[MAX_HEAD_DIM];

	if (b->kv_type == KV_FP8) {
		kv_scales(block, hd)[slot] =
			b->k->to_e4m3(which ? (uint8_t *)block + (int64_t)slot * hd : codes, x, hd);
		for (int d = 0; !which && d < hd; d++)
			((uint8_t *)block)[d * KV_PAGE_TOKENS + slot] = codes[d];
		return;
	}
	if (b->kv_type == KV_F32) {
		if (which)
			memcpy((float *)block + (int64_t)slot * hd, x, hd * sizeof(float));
		else
			for (int d = 0; d < hd; d++)
				((float *)block)[d * KV_PAGE_TOKENS + slot] = x[d];
		return;
	}
	b->k->to_bf16(which ? (uint16_t *)block + (int64_t)slot * hd : bf, x, hd);
	if (!which)
		for (int d = 0; d < hd; d++)
			((uint16_t *)block)[d * KV_PAGE_TOKENS + slot] = bf[d];
}

static void finish_head(struct pass *p, const struct op_attn_in *o, const struct projection *j,
			int t, int head)
{
	float *x = j->y + t * j->ld + (int64_t)head * o->head_dim;
	const struct rope *r = o->rope;

	if (j->norm)
		p->b->k->rmsnorm(x, x, j->norm, o->head_dim, o->eps);
	if (r && j->which < 2) {
		int64_t at = (int64_t)p->b->row_pos[t] * (r->dims / 2);

		p->b->k->rope(x, r->dims, r->interleaved, r->cos + at, r->sin + at);
	}
	if (j->which > 0)
		write_kv(p, o, t, head, j->which - 1, x);
}

static void projection_unit(struct pass *p, const struct op_attn_in *o, const struct projection *j,
			    int64_t unit, const struct act *a)
{
	int per = unit_heads(o->head_dim), n = p->batch->n_tok;
	int64_t head0 = unit * per, head1 = head0 + per < j->n_heads ? head0 + per : j->n_heads;
	int64_t groups = weight_groups(j->w);

	for (int64_t g = head0 * o->head_dim / CPU_ROWS;
	     g * CPU_ROWS < head1 * o->head_dim && g < groups; g++)
		gemm_group(p->b, j->w, g, a, act_fmt_for(p->b, j->w->type), n, j->bias, GEMM_SET,
			   j->y, j->ld);
	for (int t = 0; t < n; t++)
		for (int64_t h = head0; h < head1; h++)
			finish_head(p, o, j, t, h);
}

void op_attn_in(struct pass *p, struct worker *w, const struct op_attn_in *o)
{
	struct cpu_backend *b = p->b;
	int per = unit_heads(o->head_dim);
	struct projection j[3] = {
		{o->q, o->q_bias, o->q_norm, b->q, p->plan->max_q, o->n_q, 0},
		{o->k, o->k_bias, o->k_norm, b->kv_row[0], p->plan->max_kv, o->n_kv, 1},
		{o->v, o->v_bias, NULL, b->kv_row[1], p->plan->max_kv, o->n_kv, 2},
	};
	const struct act *a =
		make_act(p, w, b->x, p->plan->hidden, p->plan->hidden, NULL, p->batch->n_tok,
			 o->norm, o->eps, fmt_bit(b, o->q) | fmt_bit(b, o->k) | fmt_bit(b, o->v));
	struct work k;

	for (int i = 0; i < 3; i++)
		j[i].units = (j[i].n_heads + per - 1) / per;
	work_begin(&k, w, j[0].units + j[1].units + j[2].units);
	while (work_next(&k)) {
		for (int64_t u = k.first; u < k.last; u++) {
			int64_t rest = u;
			int i = 0;

			while (rest >= j[i].units)
				rest -= j[i++].units;
			projection_unit(p, o, &j[i], rest, a);
		}
	}
	work_end(&k);
}

/* ---- attention ------------------------------------------------------------------------------ */

/* Queries of `n` tokens of one sequence that share a KV head. */
struct attn_unit {
	const struct batch_seq *s;
	int tok0, n; /* within the sequence's rows of this batch */
	int kv_head;
};

static int unit_tokens(const struct cpu_backend *b, const struct op_attn *o)
{
	int per = b->attn_rows / (o->n_q / o->n_kv);

	return per > 0 ? per : 1;
}

/* Query rows of a unit are numbered token by token, head by head. */
static float *unit_row(struct pass *p, const struct op_attn *o, const struct attn_unit *u, int i)
{
	int group = o->n_q / o->n_kv;
	int64_t t = u->s->first + u->tok0 + i / group;

	return p->b->q + t * p->plan->max_q +
	       ((int64_t)u->kv_head * group + i % group) * o->head_dim;
}

static void gather_queries(struct pass *p, const struct op_attn *o, const struct attn_unit *u,
			   struct attn_page *a, float *q)
{
	int hd = o->head_dim;

	for (int row = 0; row < a->rows;) {
		int r = cpu_tile_size(p->b->k->max_r, a->rows - row);

		for (int i = 0; i < r; i++) {
			const float *x = unit_row(p, o, u, row + i);

			for (int d = 0; d < hd; d++)
				q[(int64_t)row * hd + d * r + i] = x[d] * o->scale;
		}
		row += r;
	}
}

static void attn_unit(struct pass *p, struct worker *w, const struct op_attn *o,
		      const struct attn_unit *u)
{
	struct cpu_backend *b = p->b;
	struct thread_ws *ws = &b->ws[w->id];
	const struct kv_group *g = &p->plan->group[o->kv_group];
	int group = o->n_q / o->n_kv, hd = o->head_dim, ld = (hd + 15) & ~15;
	int pos0 = u->s->pos0 + u->tok0, pos1 = pos0 + u->n - 1;
	int first = o->window && pos0 >= o->window ? pos0 - o->window + 1 : 0;
	struct attn_page a = {
		.rows = u->n * group,
		.head_dim = hd,
		.type = b->kv_type == KV_F32	? CPU_KV_F32
			: b->kv_type == KV_BF16 ? CPU_KV_BF16
						: CPU_KV_E4M3,
		.unpacked = ws->attn_kv,
		.q = ws->attn_q,
		.lo = ws->attn_lo,
		.hi = ws->attn_hi,
		.s = ws->attn_s,
		.m = ws->attn_m,
		.l = ws->attn_l,
		.o = ws->attn_o,
	};

	gather_queries(p, o, u, &a, ws->attn_q);
	for (int i = 0; i < a.rows; i++) {
		a.m[i] = -INFINITY;
		a.l[i] = 0;
	}
	memset(a.o, 0, (size_t)a.rows * ld * sizeof(float));
	for (int page = first / KV_PAGE_TOKENS; page <= pos1 / KV_PAGE_TOKENS; page++) {
		const int32_t *id = u->s->pages[o->kv_group] + page;
		int next = page < pos1 / KV_PAGE_TOKENS;
		void *k, *v;

		for (int i = 0; i < a.rows; i++) {
			int pos = pos0 + i / group, start = page * KV_PAGE_TOKENS;
			int lo = o->window && pos >= o->window ? pos - o->window + 1 : 0;

			lo -= start;
			ws->attn_lo[i] = lo < 0 ? 0 : lo < 64 ? lo : 64;
			ws->attn_hi[i] = pos < start ? 0 : pos - start < 64 ? pos - start + 1 : 64;
		}
		k = kv_block(p->kv, g, o->kv_group, *id, o->kv_layer, 0, u->kv_head);
		v = kv_block(p->kv, g, o->kv_group, *id, o->kv_layer, 1, u->kv_head);
		a.next_k = kv_block(p->kv, g, o->kv_group, id[next], o->kv_layer, 0, u->kv_head);
		a.k = k;
		a.v = v;
		if (b->kv_type == KV_FP8) {
			a.k_scale = kv_scales(k, hd);
			a.v_scale = kv_scales(v, hd);
		}
		b->k->attn_page(&a);
	}
	for (int i = 0; i < a.rows; i++) {
		float *y = unit_row(p, o, u, i), inv = 1.0f / a.l[i];

		for (int d = 0; d < hd; d++)
			y[d] = a.o[(int64_t)i * ld + d] * inv;
	}
}

void op_attn(struct pass *p, struct worker *w, const struct op_attn *o)
{
	const struct batch *batch = p->batch;
	int per = unit_tokens(p->b, o);
	int64_t tiles = 0;
	struct work k;

	for (int s = 0; s < batch->n_seq; s++)
		tiles += (batch->seq[s].n_tok + per - 1) / per;
	work_begin(&k, w, tiles * o->n_kv);
	while (work_next(&k)) {
		for (int64_t i = k.first; i < k.last; i++) {
			int64_t tile = i / o->n_kv;
			struct attn_unit u = {.s = batch->seq, .kv_head = i % o->n_kv};

			while (tile >= (u.s->n_tok + per - 1) / per)
				tile -= (u.s++->n_tok + per - 1) / per;
			u.tok0 = tile * per;
			u.n = u.s->n_tok - u.tok0 < per ? u.s->n_tok - u.tok0 : per;
			attn_unit(p, w, o, &u);
		}
	}
	work_end(&k);
}
