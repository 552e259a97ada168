// SPDX-License-Identifier: MIT
/*
 * The CPU backend on toy plans: against the reference backend, op by op in what the plans cover, and
 * bitwise against itself, whatever the chunks, the neighbours in the batch and the threads. The KV
 * pool starts as NaNs, so a page read beyond what was written shows.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/ops.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"
#include "tests/tap.h"

#define LAYERS	 2
#define VOCAB	 61
#define MAX_POS	 192
#define MAX_TOK	 256
#define PAGES	 16
#define MAX_W	 32
#define MAX_SEQS 3

struct shape {
	const char *name;
	enum dtype type; /* of the matrices; the embedding's too */
	int hidden, n_q, n_kv, head_dim, width;
	int experts, top_k; /* 0: dense */
	int window;
	bool bias, qk_norm, interleaved;
	int rope_dims;
};

struct toy {
	const struct shape *s;
	struct plan plan;
	struct op ops[2 + LAYERS * 4];
	struct rope rope;
	float *norm, *bias; /* shared by everything that wants one */
	struct weight w[MAX_W]; /* as bound for one backend */
	void *raw[MAX_W]; /* checkpoint format */
	int n_w;
};

static uint64_t rng = 7;

static float uniform(void)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (rng >> 40) / 16777216.0f - 0.5f;
}

/* A random row whose entries have about the deviation that keeps a product's size. */
static void random_row(uint8_t *p, enum dtype type, int64_t cols)
{
	const struct dtype_info *info = dtype_info(type);
	float scale = 3.4f / sqrtf(cols);

	for (int64_t b = 0; b < cols / info->block; b++, p += info->bytes) {
		float f = uniform() * scale;
		uint16_t h = ref_f32_to_bf16(f), d;

		for (uint32_t i = 0; i < info->bytes; i++)
			p[i] = (uint8_t)((uniform() + 0.5f) * 255);
		switch (type) {
		case DTYPE_F32:
			memcpy(p, &f, 4);
			break;
		case DTYPE_BF16:
			memcpy(p, &h, 2);
			break;
		case DTYPE_F16:
			h = ref_f32_to_f16(f);
			memcpy(p, &h, 2);
			break;
		case DTYPE_Q8_0:
			d = ref_f32_to_f16(scale / 256);
			memcpy(p, &d, 2);
			break;
		case DTYPE_Q4_0:
			d = ref_f32_to_f16(scale / 16);
			memcpy(p, &d, 2);
			break;
		case DTYPE_Q4_K:
			d = ref_f32_to_f16(scale / 500);
			memcpy(p, &d, 2);
			memcpy(p + 2, &d, 2);
			break;
		default: /* Q6_K */
			d = ref_f32_to_f16(scale / 4000);
			memcpy(p + 208, &d, 2);
			break;
		}
	}
}

static const struct weight *add_weight(struct toy *t, enum dtype type, int64_t rows, int64_t cols,
				       int64_t count)
{
	size_t row = dtype_row_bytes(type, cols);
	uint8_t *raw = malloc(row * rows * count);

	for (int64_t i = 0; i < rows * count; i++)
		random_row(raw + i * row, type, cols);
	t->raw[t->n_w] = raw;
	t->w[t->n_w] = (struct weight){type, rows, cols, count};
	return &t->w[t->n_w++];
}

static void fill_rope(struct toy *t)
{
	int half = t->s->rope_dims / 2;

	t->rope = (struct rope){.dims = t->s->rope_dims, .interleaved = t->s->interleaved};
	t->rope.cos = malloc(MAX_POS * half * sizeof(float));
	t->rope.sin = malloc(MAX_POS * half * sizeof(float));
	for (int p = 0; p < MAX_POS; p++) {
		for (int i = 0; i < half; i++) {
			double a = p * pow(1e4, -2.0 * i / t->s->rope_dims);

			t->rope.cos[p * half + i] = (float)cos(a);
			t->rope.sin[p * half + i] = (float)sin(a);
		}
	}
}

static void add_layer(struct toy *t, struct op *op, int layer)
{
	const struct shape *s = t->s;
	int q = s->n_q * s->head_dim, kv = s->n_kv * s->head_dim, h = s->hidden;
	enum dtype ty = s->type;
	const float *bias = s->bias ? t->bias : NULL, *qk = s->qk_norm ? t->norm : NULL;
	int count = s->experts ? s->experts : 1;

	op[0] = (struct op){.kind = OP_ATTN_IN, .layer = layer};
	op[0].attn_in = (struct op_attn_in){t->norm,
					    1e-6f,
					    add_weight(t, ty, q, h, 1),
					    add_weight(t, ty, kv, h, 1),
					    add_weight(t, ty, kv, h, 1),
					    bias,
					    bias,
					    bias,
					    qk,
					    qk,
					    s->rope_dims ? &t->rope : NULL,
					    s->n_q,
					    s->n_kv,
					    s->head_dim,
					    0,
					    layer};
	op[1] = (struct op){.kind = OP_ATTN, .layer = layer};
	op[1].attn =
		(struct op_attn){s->n_q,   s->n_kv, s->head_dim, 0, layer, 1 / sqrtf(s->head_dim),
				 s->window};
	op[2] = (struct op){.kind = OP_PROJ, .layer = layer};
	op[2].proj = (struct op_proj){add_weight(t, ty, h, q, 1), bias};
	op[3] = (struct op){.kind = s->experts ? OP_MOE : OP_GLU, .layer = layer};
	if (s->experts)
		op[3].moe = (struct op_moe){t->norm,
					    1e-6f,
					    add_weight(t, DTYPE_F32, s->experts, h, 1),
					    add_weight(t, ty, s->width, h, count),
					    add_weight(t, ty, s->width, h, count),
					    add_weight(t, ty, h, s->width, count),
					    s->experts,
					    s->top_k,
					    true,
					    ACT_SILU};
	else
		op[3].glu = (struct op_glu){t->norm,
					    1e-6f,
					    add_weight(t, ty, s->width, h, 1),
					    add_weight(t, ty, s->width, h, 1),
					    add_weight(t, ty, h, s->width, 1),
					    ACT_SILU};
}

static struct toy *toy_new(const struct shape *s)
{
	struct toy *t = calloc(1, sizeof(*t));
	const struct weight *embed;
	int n = s->hidden > s->width ? s->hidden : s->width;

	t->s = s;
	n = n > s->n_q * s->head_dim ? n : s->n_q * s->head_dim;
	t->norm = malloc(n * sizeof(float));
	t->bias = malloc(n * sizeof(float));
	for (int i = 0; i < n; i++) {
		t->norm[i] = 1 + uniform();
		t->bias[i] = uniform();
	}
	if (s->rope_dims)
		fill_rope(t);
	embed = add_weight(t, s->type, VOCAB, s->hidden, 1);
	t->ops[0] = (struct op){.kind = OP_EMBED, .layer = -1, .embed = {embed, 1.5f}};
	for (int l = 0; l < LAYERS; l++)
		add_layer(t, t->ops + 1 + 4 * l, l);
	t->ops[1 + 4 * LAYERS] =
		(struct op){.kind = OP_HEAD, .layer = -1, .head = {t->norm, 1e-6f, embed}};
	t->plan = (struct plan){.n_ops = 2 + 4 * LAYERS,
				.ops = t->ops,
				.n_groups = 1,
				.hidden = s->hidden,
				.vocab = VOCAB,
				.max_q = s->n_q * s->head_dim,
				.max_kv = s->n_kv * s->head_dim,
				.max_width = s->width,
				.max_experts = s->experts,
				.max_topk = s->top_k,
				.max_heads = s->n_q,
				.max_pos = MAX_POS};
	t->plan.group[0] = (struct kv_group){LAYERS, s->n_kv, s->head_dim, s->window};
	return t;
}

static void unbind(struct toy *t)
{
	for (int i = 0; i < t->n_w; i++) {
		free(t->w[i].data);
		t->w[i].data = NULL;
	}
}

static void toy_free(struct toy *t)
{
	unbind(t);
	for (int i = 0; i < t->n_w; i++)
		free(t->raw[i]);
	free(t->rope.cos);
	free(t->rope.sin);
	free(t->norm);
	free(t->bias);
	free(t);
}

/* Put the weights into the backend's layout, as the loader would. */
static void bind_weights(struct toy *t, struct backend *b)
{
	struct err e;

	unbind(t);
	for (int i = 0; i < t->n_w; i++) {
		struct weight *w = &t->w[i];
		size_t row = dtype_row_bytes(w->type, w->cols);
		int64_t groups;

		if (b->weight_layout(b, w->type, w->rows, w->cols, &w->pack, &e))
			abort();
		groups = (w->rows + w->pack.group_rows - 1) / w->pack.group_rows;
		w->stride = (groups * w->pack.group_bytes + 255) & ~(size_t)255;
		w->data = aligned_alloc(256, w->stride * w->count);
		for (int64_t g = 0; g < groups * w->count; g++) {
			int64_t first = g % groups * w->pack.group_rows, left = w->rows - first;
			int rows = left < w->pack.group_rows ? left : w->pack.group_rows;
			char *dst = (char *)w->data + g / groups * w->stride +
				    g % groups * w->pack.group_bytes;
			char *src = (char *)t->raw[i] + (g / groups * w->rows + first) * row;

			if (w->pack.pack)
				w->pack.pack(dst, src, rows, w->cols, w->type);
			else
				memcpy(dst, src, rows * row);
		}
	}
}

/* ---- running a toy ------------------------------------------------------------------------- */

struct runner {
	struct toy *t;
	struct backend *b;
	struct kv_pool kv;
	int n[MAX_SEQS]; /* tokens that each sequence has so far */
	int32_t pages[MAX_SEQS][PAGES];
};

static bool runner_open(struct runner *r, struct toy *t, struct backend *b, enum kv_type kv)
{
	struct err e;

	*r = (struct runner){.t = t, .b = b, .kv = {.type = kv}};
	t->plan.group[0].page_bytes = kv_group_page_bytes(&t->plan.group[0], kv);
	r->kv.base[0] = malloc(MAX_SEQS * PAGES * t->plan.group[0].page_bytes);
	memset(r->kv.base[0], 0xff, MAX_SEQS * PAGES * t->plan.group[0].page_bytes);
	for (int s = 0; s < MAX_SEQS; s++)
		for (int i = 0; i < PAGES; i++) /* anything but consecutive */
			r->pages[s][i] = (i * 5 + 3) % PAGES * MAX_SEQS + s;
	bind_weights(t, b);
	return !b->prepare(b, &t->plan, MAX_TOK, MAX_TOK, &e);
}

static void runner_close(struct runner *r)
{
	free(r->kv.base[0]);
	r->b->destroy(r->b);
}

/*
 * One step: count[s] more tokens of each sequence (ids [s][position]); the logits of all of
 * sequence 0's new tokens to out.
 */
static void runner_step(struct runner *r, const int count[MAX_SEQS], int32_t ids[MAX_SEQS][MAX_POS],
			float *out)
{
	/* sequence 0 goes in the middle of the batch */
	static const int order[MAX_SEQS] = {1, 0, 2};
	struct batch_seq seq[MAX_SEQS];
	int32_t row_ids[MAX_TOK], out_row[MAX_TOK];
	struct batch batch = {.ids = row_ids, .seq = seq, .out_row = out_row};

	for (int i = 0; i < MAX_SEQS; i++) {
		int s = order[i];

		if (!count[s])
			continue;
		seq[batch.n_seq++] =
			(struct batch_seq){batch.n_tok, count[s], r->n[s], {r->pages[s]}};
		for (int j = 0; j < count[s]; j++) {
			if (s == 0)
				out_row[batch.n_out++] = batch.n_tok;
			row_ids[batch.n_tok++] = ids[s][r->n[s] + j];
		}
		r->n[s] += count[s];
	}
	r->b->forward(r->b, &r->t->plan, &r->kv, &batch, out);
}

#define LENGTH 90 /* of sequence 0: two pages */

/* All logits of sequence 0, fed in chunks of `chunk`, with or without company. */
static void run_all(struct toy *t, struct backend *b, enum kv_type kv, int chunk, bool company,
		    float *out)
{
	int32_t ids[MAX_SEQS][MAX_POS];
	struct runner r;

	for (int s = 0; s < MAX_SEQS; s++)
		for (int i = 0; i < MAX_POS; i++)
			ids[s][i] = (i * (7 + 6 * s) + s + i * i / 9) % VOCAB;
	if (!b || !runner_open(&r, t, b, kv)) {
		memset(out, 0xff, LENGTH * VOCAB * sizeof(float));
		return;
	}
	while (r.n[0] < LENGTH) {
		int left = LENGTH - r.n[0], at = r.n[0];
		int count[MAX_SEQS] = {left < chunk ? left : chunk};

		if (company) {
			count[1] = r.n[1] + 5 <= MAX_POS ? 5 : 0;
			count[2] = r.n[2] < 1;
		}
		runner_step(&r, count, ids, out + at * VOCAB);
	}
	runner_close(&r);
}

static struct backend *cpu(int threads, bool exact, enum kv_type kv)
{
	struct backend_opts o = {.threads = threads, .exact = exact, .kv_type = kv};
	struct err e;

	return backend_cpu_create(&o, &e);
}

static double normalised_error(const float *a, const float *b, int64_t n)
{
	double num = 0, den = 0;

	for (int64_t i = 0; i < n; i++) {
		num += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		den += (double)b[i] * b[i];
	}
	return sqrt(num / den);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/*
 * The median of the rows' errors: rounding may send a token whose router is near a tie to another
 * expert, which changes that row for good reason, but must not change most.
 */
static double median_error(const float *a, const float *b)
{
	double err[LENGTH];

	for (int i = 0; i < LENGTH; i++)
		err[i] = normalised_error(a + i * VOCAB, b + i * VOCAB, VOCAB);
	qsort(err, LENGTH, sizeof(err[0]), compare_doubles);
	return err[LENGTH / 2];
}

/*
 * want: ref with a float cache. A value that falls to the other side of a rounding boundary, because
 * sums are taken in another order, moves by a sixteenth: cpu need not agree with ref to the last
 * digits, but far better than the rounding of the cache itself makes either of them.
 */
static void check_fp8(const char *isa, const struct shape *s, struct toy *t, const float *want)
{
	static float ref[LENGTH * VOCAB], got[LENGTH * VOCAB], other[LENGTH * VOCAB];
	static const int chunks[] = {1, 7, 64};
	struct err e;
	double err, rounding;
	bool same = true;

	run_all(t, backend_ref_create(&(struct backend_opts){.kv_type = KV_FP8}, &e), KV_FP8,
		LENGTH, false, ref);
	rounding = median_error(ref, want);
	run_all(t, cpu(2, true, KV_FP8), KV_FP8, LENGTH, false, got);
	err = median_error(got, ref);
	CHECK(err < rounding / 4 && rounding < 0.1,
	      "%s %s: fp8 cache against ref, error %.1e, of the rounding %.1e", isa, s->name, err,
	      rounding);
	run_all(t, cpu(2, false, KV_FP8), KV_FP8, LENGTH, false, got);
	for (int i = 0; i < (int)(sizeof(chunks) / sizeof(chunks[0])); i++) {
		run_all(t, cpu(1 + i % 3, false, KV_FP8), KV_FP8, chunks[i], i == 1, other);
		same &= !memcmp(got, other, sizeof(got));
	}
	CHECK(same, "%s %s: fp8 cache, the same bits in chunks, among neighbours, with threads",
	      isa, s->name);
}

static void check_shape(const char *isa, const struct shape *s)
{
	static float want[LENGTH * VOCAB], got[LENGTH * VOCAB], other[LENGTH * VOCAB];
	static const int chunks[] = {1, 7, 64};
	struct toy *t = toy_new(s);
	struct err e;
	double err;
	bool same;

	run_all(t, backend_ref_create(&(struct backend_opts){.kv_type = KV_F32}, &e), KV_F32,
		LENGTH, false, want);
	run_all(t, cpu(2, true, KV_F32), KV_F32, LENGTH, false, got);
	err = normalised_error(got, want, LENGTH * VOCAB);
	CHECK(err < 1e-5, "%s %s: exact against ref, error %.1e", isa, s->name, err);
	run_all(t, cpu(1, true, KV_F32), KV_F32, 9, true, other);
	CHECK(!memcmp(got, other, sizeof(got)), "%s %s: exact, the same bits in chunks and company",
	      isa, s->name);

	run_all(t, cpu(2, false, KV_BF16), KV_BF16, LENGTH, false, got);
	err = median_error(got, want);
	CHECK(err < 0.05, "%s %s: default mode against ref, error %.1e", isa, s->name, err);
	same = true;
	for (int i = 0; i < (int)(sizeof(chunks) / sizeof(chunks[0])); i++) {
		run_all(t, cpu(1 + i % 3, false, KV_BF16), KV_BF16, chunks[i], false, other);
		same &= !memcmp(got, other, sizeof(got));
	}
	CHECK(same, "%s %s: the same bits in chunks of 1, 7, 64 and with 1, 2, 3 threads", isa,
	      s->name);
	run_all(t, cpu(2, false, KV_BF16), KV_BF16, 3, true, other);
	CHECK(!memcmp(got, other, sizeof(got)), "%s %s: the same bits among neighbours", isa,
	      s->name);
	check_fp8(isa, s, t, want);
	toy_free(t);
}

static const struct shape shapes[] = {
	/*                                 h  nq nkv hd width  E  k  win  bias  qkn  inter rope */
	{"F32, odd sizes", DTYPE_F32, 37, 3, 1, 10, 21, 0, 0, 0, true, true, true, 10},
	{"F16, head size 8", DTYPE_F16, 40, 4, 2, 8, 50, 0, 0, 0, false, false, true, 8},
	{"BF16, window", DTYPE_BF16, 48, 8, 2, 24, 66, 0, 0, 33, false, true, false, 24},
	{"BF16, head size 128", DTYPE_BF16, 64, 2, 1, 128, 96, 0, 0, 0, false, true, false, 64},
	{"BF16 experts", DTYPE_BF16, 64, 4, 4, 16, 24, 9, 3, 0, false, true, false, 16},
	{"Q8_0", DTYPE_Q8_0, 96, 6, 2, 32, 160, 0, 0, 70, false, true, false, 32},
	{"Q8_0 experts", DTYPE_Q8_0, 64, 4, 2, 16, 32, 8, 2, 0, false, true, false, 16},
	{"Q4_0", DTYPE_Q4_0, 128, 14, 2, 64, 96, 0, 0, 0, true, false, false, 64},
	{"Q4_K", DTYPE_Q4_K, 256, 4, 2, 64, 256, 0, 0, 0, false, true, false, 64},
	{"Q6_K", DTYPE_Q6_K, 256, 4, 1, 64, 512, 0, 0, 0, false, true, false, 0},
};

static void check_refusals(void)
{
	struct backend_opts o = {.threads = 1};
	struct err e;
	struct backend *b;
	struct weight_pack pack;

	setenv("LLMDEV_ISA", "vax", 1);
	CHECK(!backend_cpu_create(&o, &e) && strstr(e.msg, "LLMDEV_ISA"), "unknown ISA: %s", e.msg);
	unsetenv("LLMDEV_ISA");
	o.threads = -1;
	CHECK(!backend_cpu_create(&o, &e), "threads -1: %s", e.msg);
	o.threads = 0;
	b = backend_cpu_create(&o, &e);
	REQUIRE(b, "threads 0: all that there are");
	CHECK(b->weight_layout(b, DTYPE_I32, 16, 32, &pack, &e) < 0, "I32 weights: %s", e.msg);
	CHECK(b->weight_layout(b, DTYPE_Q8_0, 16, 33, &pack, &e) < 0, "half a block: %s", e.msg);
	CHECK(b->weight_layout(b, DTYPE_F32, 16, INT64_MAX / 2, &pack, &e) < 0,
	      "a row beyond all memory: %s", e.msg);
	b->destroy(b);
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : NULL;

	check_refusals();
	for (int i = 0; cpu_kernels_at(i); i++) {
		const struct cpu_kernels *k = cpu_kernels_at(i);

		if (only && strcmp(only, k->name))
			continue;
		if (!cpu_kernels_usable(k)) {
			tap_skip("%s: this processor has no such instructions", k->name);
			continue;
		}
		setenv("LLMDEV_ISA", k->name, 1);
		for (int s = 0; s < (int)(sizeof(shapes) / sizeof(shapes[0])); s++)
			check_shape(k->name, &shapes[s]);
	}
	return tap_done();
}
