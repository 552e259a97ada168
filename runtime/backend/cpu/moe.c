// SPDX-License-Identifier: MIT
/*
 * Mixture of experts. A batch is sorted by expert, so that an expert's weights are read once for
 * all its tokens; a token adds up what its experts gave in the order of their rank, whatever else is
 * in the batch. A single token skips the sorting, and most of the barriers with it.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/internal.h"

/* Softmax over all experts, the top_k largest (ties to the lower index), largest first. */
static void route(const struct op_moe *o, const float *logits, float *prob, int *expert,
		  float *weight)
{
	float max = logits[0], sum = 0;

	for (int i = 1; i < o->n_experts; i++)
		max = logits[i] > max ? logits[i] : max;
	for (int i = 0; i < o->n_experts; i++) {
		prob[i] = expf(logits[i] - max);
		sum += prob[i];
	}
	for (int i = 0; i < o->n_experts; i++)
		prob[i] /= sum;
	sum = 0;
	for (int j = 0; j < o->top_k; j++) {
		int best = -1;

		for (int i = 0; i < o->n_experts; i++)
			if (prob[i] >= 0 && (best < 0 || prob[i] > prob[best]))
				best = i;
		if (best < 0) /* NaN: any choice is as bad, but it must be a choice */
			best = 0;
		expert[j] = best;
		weight[j] = prob[best];
		sum += prob[best];
		prob[best] = -1;
	}
	if (o->norm_topk)
		for (int j = 0; j < o->top_k; j++)
			weight[j] /= sum;
}

/* Float activations in every mode: rounding would send tokens to other experts. */
static void router_logits(struct pass *p, struct worker *w, const struct op_moe *o,
			  const struct act *a, int n)
{
	struct work k;

	work_begin(&k, w, weight_groups(o->router));
	while (work_next(&k))
		for (int64_t g = k.first; g < k.last; g++)
			gemm_group(p->b, o->router, g, a, ACT_F32, n, NULL, GEMM_SET, p->b->router,
				   p->plan->max_experts);
	work_end(&k);
}

/* ---- one token ------------------------------------------------------------------------------ */

static void moe_one(struct pass *p, struct worker *w, const struct op_moe *o)
{
	struct cpu_backend *b = p->b;
	struct thread_ws *ws = &b->ws[w->id];
	unsigned formats = 1u << ACT_F32 | fmt_bit(b, o->gate) | fmt_bit(b, o->up);
	const struct act *a = make_act(p, w, b->x, p->plan->hidden, p->plan->hidden, NULL, 1,
				       o->norm, o->eps, formats);
	int64_t groups = weight_groups(o->gate), width = o->gate->rows;
	struct work k;

	router_logits(p, w, o, a, 1);
	route(o, b->router, ws->prob, ws->expert, ws->weight);
	work_begin(&k, w, groups * o->top_k);
	while (work_next(&k))
		for (int64_t u = k.first; u < k.last; u++)
			gemm_glu_tile(b, o->gate, o->up, ws->expert[u / groups], u % groups, a, 0,
				      1, b->g + u / groups * width, width);
	work_end(&k);

	ws->act.cols = width;
	for (int j = 0; j < o->top_k; j++)
		act_store(b, &ws->act, fmt_bit(b, o->down), j, 1, 0, b->g + j * width);
	work_begin(&k, w, weight_groups(o->down));
	while (work_next(&k)) {
		for (int64_t g = k.first; g < k.last; g++) {
			int64_t row0 = g * CPU_ROWS, left = o->down->rows - row0;
			float y[CPU_ROWS];

			for (int j = 0; j < o->top_k; j++) {
				gemm_tile(b, o->down, ws->expert[j], g, &ws->act,
					  act_fmt_for(b, o->down->type), j, 1, y);
				b->k->axpy(b->x + row0, y, ws->weight[j],
					   left < CPU_ROWS ? left : CPU_ROWS);
			}
		}
	}
	work_end(&k);
}

/* ---- many tokens ---------------------------------------------------------------------------- */

/* Counting sort of the (token, rank) pairs by expert; and the tiles of each expert's tokens. */
static void sort_by_expert(struct cpu_backend *b, const struct op_moe *o, int n)
{
	int pairs = n * o->top_k, at = 0;

	memset(b->start, 0, (o->n_experts + 1) * sizeof(int));
	for (int i = 0; i < pairs; i++)
		b->start[b->expert[i] + 1]++;
	for (int x = 0; x < o->n_experts; x++)
		b->start[x + 1] += b->start[x];
	b->n_active = b->n_tiles = 0;
	for (int x = 0; x < o->n_experts; x++)
		if (b->start[x + 1] > b->start[x])
			b->active[b->n_active++] = x;
	/* start[x] walks through x's places, and is put back afterwards */
	for (int i = 0; i < pairs; i++) {
		at = b->start[b->expert[i]]++;
		b->order[at] = i;
		b->place[i] = at;
	}
	memmove(b->start + 1, b->start, o->n_experts * sizeof(int));
	b->start[0] = 0;
	for (int x = 0; x < o->n_experts; x++) {
		for (int t = b->start[x], m; t < b->start[x + 1]; t += m) {
			m = cpu_tile_size(b->k->max_m, b->start[x + 1] - t);
			b->tiles[b->n_tiles++] = (struct tile){t, m, x};
		}
	}
}

static void route_batch(struct pass *p, struct worker *w, const struct op_moe *o, int n)
{
	struct cpu_backend *b = p->b;
	struct work k;

	work_begin(&k, w, n);
	while (work_next(&k))
		for (int64_t t = k.first; t < k.last; t++)
			route(o, b->router + t * p->plan->max_experts, b->ws[w->id].prob,
			      b->expert + t * o->top_k, b->weight + t * o->top_k);
	work_end(&k);
	if (w->id == 0)
		sort_by_expert(b, o, n);
	pool_barrier(w);
}

/* Activations of the sorted pairs: row i of the act is pair order[i]; x[pair / div][cols]. */
static const struct act *pair_act(struct pass *p, struct worker *w, const float *x, bool by_token,
				  int64_t cols, int top_k, unsigned formats)
{
	struct cpu_backend *b = p->b;
	struct act *a = &b->ws[w->id].shared;
	struct work k;

	a->cols = cols;
	work_begin(&k, w, b->n_tiles);
	while (work_next(&k)) {
		for (int64_t u = k.first; u < k.last; u++) {
			const struct tile *t = &b->tiles[u];

			for (int i = 0; i < t->m; i++) {
				int64_t row = by_token ? b->order[t->t0 + i] / top_k : t->t0 + i;

				act_store(b, a, formats, t->t0, t->m, i, x + row * cols);
			}
		}
	}
	work_end(&k);
	return a;
}

/* The normalised rows, for the router now and for the experts later. */
static const struct act *norm_rows(struct pass *p, struct worker *w, const struct op_moe *o, int n)
{
	struct cpu_backend *b = p->b;
	int64_t hidden = p->plan->hidden;
	struct work k;

	work_begin(&k, w, n);
	while (work_next(&k))
		for (int64_t t = k.first; t < k.last; t++)
			b->k->rmsnorm(b->h + t * hidden, b->x + t * hidden, o->norm, hidden,
				      o->eps);
	work_end(&k);
	return make_act(p, w, b->h, hidden, hidden, NULL, n, NULL, 0, 1u << ACT_F32);
}

static void expert_rows(struct pass *p, struct worker *w, const struct op_moe *o,
			const struct act *a, bool down)
{
	struct cpu_backend *b = p->b;
	const struct weight *m = down ? o->down : o->gate;
	int64_t groups = weight_groups(m);
	struct work k;

	work_begin(&k, w, groups * b->n_active);
	while (work_next(&k)) {
		for (int64_t u = k.first; u < k.last; u++) {
			int x = b->active[u / groups], from = b->start[x], n = b->start[x + 1];
			int64_t g = u % groups, left = m->rows - g * CPU_ROWS;
			int rows = left < CPU_ROWS ? (int)left : CPU_ROWS;

			for (int t = from, size; t < n; t += size) {
				float y[CPU_MAX_TILE * CPU_ROWS];

				size = cpu_tile_size(b->k->max_m, n - t);
				if (!down) {
					gemm_glu_tile(b, o->gate, o->up, x, g, a, t, size, b->g,
						      m->rows);
					continue;
				}
				gemm_tile(b, o->down, x, g, a, act_fmt_for(b, o->down->type), t,
					  size, y);
				for (int i = 0; i < size; i++)
					memcpy(b->d + (t + i) * m->rows + g * CPU_ROWS,
					       y + i * CPU_ROWS, rows * sizeof(float));
			}
		}
	}
	work_end(&k);
}

void op_moe(struct pass *p, struct worker *w, const struct op_moe *o)
{
	struct cpu_backend *b = p->b;
	int64_t hidden = p->plan->hidden;
	int n = p->batch->n_tok;
	const struct act *a;
	struct work k;

	if (n == 1) {
		moe_one(p, w, o);
		return;
	}
	a = norm_rows(p, w, o, n);
	router_logits(p, w, o, a, n);
	route_batch(p, w, o, n);
	a = pair_act(p, w, b->h, true, hidden, o->top_k, fmt_bit(b, o->gate) | fmt_bit(b, o->up));
	expert_rows(p, w, o, a, false);
	a = pair_act(p, w, b->g, false, o->gate->rows, o->top_k, fmt_bit(b, o->down));
	expert_rows(p, w, o, a, true);

	work_begin(&k, w, n);
	while (work_next(&k))
		for (int64_t t = k.first; t < k.last; t++)
			for (int j = 0; j < o->top_k; j++)
				b->k->axpy(b->x + t * hidden,
					   b->d + b->place[t * o->top_k + j] * hidden,
					   b->weight[t * o->top_k + j], hidden);
	work_end(&k);
}
