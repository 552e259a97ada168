// SPDX-License-Identifier: MIT
/* Matrix products of the CPU backend: activations into tiles, groups of rows times tiles. */
#include <string.h>

#include "backend/cpu/internal.h"

enum act_fmt act_fmt_for(const struct cpu_backend *b, enum dtype type)
{
	/* F16 weights: bfloat16 would lose their mantissa, and float reads the same weights. */
	if (!b->exact && b->k->tile(type, ACT_I8))
		return ACT_I8;
	if (!b->exact && b->k->tile(type, ACT_BF16))
		return ACT_BF16;
	return ACT_F32;
}

static int64_t even(int64_t n)
{
	return (n + 1) & ~(int64_t)1;
}

void act_store(const struct cpu_backend *b, const struct act *a, unsigned formats, int t0, int m,
	       int i, const float *h)
{
	if (formats & 1u << ACT_I8)
		b->k->store_i8(h, a->cols, m, i, a->q + t0 * a->cols,
			       a->meta + t0 * (a->cols / 32));
	if (formats & 1u << ACT_BF16)
		b->k->store_bf16(h, a->cols, m, i, a->bf + t0 * even(a->cols));
	if (formats & 1u << ACT_F32)
		b->k->store_f32(h, a->cols, m, i, a->f + t0 * even(a->cols));
}

int tile_count(const struct cpu_backend *b, int n)
{
	int count = n / b->k->max_m;

	for (int t = count * b->k->max_m; t < n; count++)
		t += cpu_tile_size(b->k->max_m, n - t);
	return count;
}

bool tile_at(const struct cpu_backend *b, int n, int i, struct tile *t)
{
	int max = b->k->max_m, full = n / max;

	t->t0 = (i < full ? i : full) * max;
	t->m = cpu_tile_size(max, n - t->t0);
	for (i -= full; i > 0; i--) {
		t->t0 += t->m;
		t->m = cpu_tile_size(max, n - t->t0);
	}
	return t->t0 < n;
}

void gemm_tile(const struct cpu_backend *b, const struct weight *w, int64_t which, int64_t group,
	       const struct act *a, enum act_fmt fmt, int t0, int m, float *y)
{
	struct act_tile x = {.m = m};

	switch (fmt) {
	case ACT_I8:
		x.x = a->q + t0 * a->cols;
		x.meta = a->meta + t0 * (a->cols / 32);
		break;
	case ACT_BF16:
		x.x = a->bf + t0 * even(a->cols);
		break;
	default:
		x.x = a->f + t0 * even(a->cols);
		break;
	}
	b->k->tile(w->type,
		   fmt)((const char *)w->data + which * w->stride + group * w->pack.group_bytes, &x,
			w->cols, y);
}

/* Called with a constant n where it can be, to be unrolled. */
static inline void put_rows(float *dst, const float *src, const float *bias, enum gemm_mode mode,
			    int n)
{
	if (bias && mode == GEMM_ADD)
		for (int r = 0; r < n; r++)
			dst[r] += src[r] + bias[r];
	else if (bias)
		for (int r = 0; r < n; r++)
			dst[r] = src[r] + bias[r];
	else if (mode == GEMM_ADD)
		for (int r = 0; r < n; r++)
			dst[r] += src[r];
	else
		memcpy(dst, src, n * sizeof(float));
}

void gemm_group(const struct cpu_backend *b, const struct weight *w, int64_t group,
		const struct act *a, enum act_fmt fmt, int n, const float *bias,
		enum gemm_mode mode, float *y, int64_t ld)
{
	float t[CPU_MAX_TILE * CPU_ROWS];
	int64_t row0 = group * CPU_ROWS, left = w->rows - row0;

	for (int t0 = 0, m; t0 < n; t0 += m) {
		m = cpu_tile_size(b->k->max_m, n - t0);
		gemm_tile(b, w, 0, group, a, fmt, t0, m, t);
		for (int i = 0; i < m; i++) {
			float *dst = y + (t0 + i) * ld + row0;
			const float *src = t + i * CPU_ROWS, *add = bias ? bias + row0 : NULL;

			if (left >= CPU_ROWS)
				put_rows(dst, src, add, mode, CPU_ROWS);
			else
				put_rows(dst, src, add, mode, left);
		}
	}
}

void gemm_glu_tile(const struct cpu_backend *b, const struct weight *gate, const struct weight *up,
		   int64_t which, int64_t group, const struct act *a, int t0, int m, float *y,
		   int64_t ld)
{
	float tg[CPU_MAX_TILE * CPU_ROWS], tu[CPU_MAX_TILE * CPU_ROWS];
	int64_t row0 = group * CPU_ROWS;
	int rows = gate->rows - row0 < CPU_ROWS ? (int)(gate->rows - row0) : CPU_ROWS;

	gemm_tile(b, gate, which, group, a, act_fmt_for(b, gate->type), t0, m, tg);
	gemm_tile(b, up, which, group, a, act_fmt_for(b, up->type), t0, m, tu);
	for (int i = 0; i < m; i++) {
		float *t = tg + i * CPU_ROWS;

		b->k->silu_mul(t, t, tu + i * CPU_ROWS);
		memcpy(y + (t0 + i) * ld + row0, t, rows * sizeof(float));
	}
}

static void store_row(struct pass *p, struct worker *w, const struct act *a, const float *x,
		      const float *norm, float eps, unsigned formats, const struct tile *t, int i)
{
	const struct cpu_backend *b = p->b;

	if (norm) {
		b->k->rmsnorm(b->ws[w->id].h, x, norm, a->cols, eps);
		x = b->ws[w->id].h;
	}
	act_store(b, a, formats, t->t0, t->m, i, x);
}

const struct act *make_act(struct pass *p, struct worker *w, const float *x, int64_t ld,
			   int64_t cols, const int32_t *row, int n, const float *norm, float eps,
			   unsigned formats)
{
	struct cpu_backend *b = p->b;
	struct act *a = &b->ws[w->id].act;
	struct work k;

	if (n == 1) {
		a->cols = cols;
		store_row(p, w, a, x + (row ? row[0] : 0) * ld, norm, eps, formats,
			  &(struct tile){0, 1}, 0);
		return a;
	}
	a = &b->ws[w->id].shared;
	a->cols = cols;
	work_begin(&k, w, tile_count(b, n));
	while (work_next(&k)) {
		for (int64_t u = k.first; u < k.last; u++) {
			struct tile t;

			tile_at(b, n, u, &t);
			for (int i = 0; i < t.m; i++) {
				int at = row ? row[t.t0 + i] : t.t0 + i;

				store_row(p, w, a, x + at * ld, norm, eps, formats, &t, i);
			}
		}
	}
	work_end(&k);
	return a;
}
