// SPDX-License-Identifier: MIT
/*
 * KV_FP8 from the codes up: E4M3 against a table made here, each CPU table's codes and scales bitwise
 * against kernels/ref, and attention over a page of codes against sums in double. What positions
 * hold that a row must not see is NaN throughout.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/ops.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"
#include "tests/tap.h"

#define MAX_HD	 256
#define MAX_ROWS 9

static uint64_t rng = 1;

static uint32_t random_bits(void)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return rng >> 32;
}

static float from_bits(uint32_t u)
{
	float f;

	memcpy(&f, &u, 4);
	return f;
}

static float uniform(void)
{
	return random_bits() / 4294967296.0f - 0.5f;
}

/* ---- E4M3 ----------------------------------------------------------------------------------- */

/* The 127 magnitudes in ascending order, written as the specification's table has them. */
static double magnitude(int code)
{
	return code < 8 ? code / 512.0 : (1 + code % 8 / 8.0) * pow(2, code / 8 - 7);
}

/* Nearest magnitude, of two the even code, by looking at all of them. */
static int oracle_code(double a)
{
	int best = 0;

	for (int c = 1; c < 127; c++) {
		double d = fabs(magnitude(c) - a), least = fabs(magnitude(best) - a);

		if (d < least || (d == least && c % 2 == 0))
			best = c;
	}
	return best;
}

static bool encodes(float a)
{
	int want = oracle_code(a);

	return ref_f32_to_e4m3(a) == want && ref_f32_to_e4m3(-a) == (want | 0x80);
}

static void check_codec(void)
{
	int bad = 0, bad_cpu = 0;

	for (int c = 0; c < 256; c++) {
		double want = (c & 0x80 ? -1 : 1) * magnitude(c & 0x7f);

		if ((c & 0x7f) == 0x7f) {
			bad += !isnan(ref_e4m3_to_f32(c));
			continue;
		}
		bad += ref_e4m3_to_f32(c) != want || !signbit(ref_e4m3_to_f32(c)) != !(c >> 7) ||
		       ref_f32_to_e4m3(want) != c;
		bad_cpu += cpu_e4m3_to_f32(c) != want;
	}
	CHECK(!bad && !bad_cpu, "all codes decode, and encode to themselves (%d, %d do not)", bad,
	      bad_cpu);
	for (int c = 0; c < 126; c++) {
		float tie = (magnitude(c) + magnitude(c + 1)) / 2;

		bad += !encodes(tie) + !encodes(nextafterf(tie, 0)) +
		       !encodes(nextafterf(tie, 1e9));
	}
	CHECK(!bad, "to nearest, ties to even, around every tie (%d are not)", bad);
	for (int i = 0; i < 20000; i++) {
		float f = fabsf(from_bits(random_bits()));

		bad += !isnan(f) && !encodes(f);
		bad += !encodes(fabsf(uniform()) * (i % 2 ? 1000 : 0.05f));
	}
	CHECK(!bad, "random floats of every size (%d are not)", bad);
	CHECK(ref_f32_to_e4m3(464) == 0x7e && ref_f32_to_e4m3(-FLT_MAX) == 0xfe &&
		      ref_f32_to_e4m3(INFINITY) == 0x7e && ref_f32_to_e4m3(NAN) == 0x7f,
	      "the largest stays the largest, NaN is NaN");
}

/* ---- a vector with its scale ------------------------------------------------------------------ */

static void check_scale(void)
{
	uint8_t codes[4];
	float x[4] = {-896, 2, 0, 448}, zero[4] = {0, -0.0f}, tiny[4] = {1e-45f};
	float s = ref_quantise_e4m3(codes, x, 4);

	CHECK(s == 2 && codes[0] == 0xfe && ref_e4m3_to_f32(codes[1]) == 1 && !codes[2] &&
		      ref_e4m3_to_f32(codes[3]) == 224,
	      "the largest becomes 448");
	s = ref_quantise_e4m3(codes, zero, 4);
	CHECK(s == 0 && !codes[0] && !(codes[1] & 0x7f), "zeros: scale 0");
	s = ref_quantise_e4m3(codes, tiny, 4);
	CHECK(s == 0 && !codes[0], "too small for a scale: zeros");
	x[1] = INFINITY;
	CHECK(isnan(ref_quantise_e4m3(codes, x, 4)), "an infinity makes the vector NaN");
	x[1] = NAN;
	CHECK(isnan(ref_quantise_e4m3(codes, x, 4)), "a NaN as well");
}

static bool same_as_ref(const struct cpu_kernels *k, const float *x, int n)
{
	uint8_t want[MAX_HD], got[MAX_HD];
	float a = ref_quantise_e4m3(want, x, n), b = k->to_e4m3(got, x, n);

	return !memcmp(want, got, n) && (isnan(a) ? isnan(b) : a == b);
}

static void check_quantise(const struct cpu_kernels *k)
{
	static const float specials[] = {0,	  -0.0f,    1e-45f,   -1e-40f,	 FLT_MIN, 1e-38f,
					 FLT_MAX, -FLT_MAX, INFINITY, -INFINITY, NAN,	  1};
	float x[MAX_HD] = {448};
	int bad = 0, n = 1;

	/* with 448 the scale is 1 */
	for (int c = 0; c < 126; c++) {
		float tie = (magnitude(c) + magnitude(c + 1)) / 2;

		for (int i = 0; i < 3; i++) {
			x[n++] = (c % 2 ? -1 : 1) * (i == 0   ? tie
						     : i == 1 ? nextafterf(tie, 0)
							      : nextafterf(tie, 1e9f));
			if (n == 255 || c == 125) {
				bad += !same_as_ref(k, x, n);
				n = 1;
			}
		}
	}
	CHECK(!bad, "%s: ties as ref has them", k->name);
	for (int run = 0; run < 3000; run++) {
		float size = ldexpf(1, (int)(random_bits() % 270) - 149);

		n = 1 + random_bits() % MAX_HD;
		for (int i = 0; i < n; i++)
			x[i] = run % 3 ? uniform() * size : from_bits(random_bits() & 0xff7fffff);
		bad += !same_as_ref(k, x, n);
	}
	CHECK(!bad, "%s: random vectors of every length and size (%d differ)", k->name, bad);
	for (int a = 0; a < 12; a++) {
		for (int b = 0; b < 12; b++) {
			for (int i = 0; i < 40; i++)
				x[i] = specials[i == 3 ? a : b];
			bad += !same_as_ref(k, x, 40);
		}
	}
	CHECK(!bad, "%s: zeros, subnormals, the largest, infinities, NaN (%d differ)", k->name,
	      bad);
}

/* ---- a page ------------------------------------------------------------------------------------- */

struct page {
	struct attn_page a;
	uint8_t k[64 * MAX_HD], v[64 * MAX_HD];
	float k_scale[64], v_scale[64];
	float q[MAX_ROWS * MAX_HD], queries[MAX_ROWS][MAX_HD];
	float s[MAX_ROWS * 64], m[MAX_ROWS], l[MAX_ROWS], o[MAX_ROWS * MAX_HD];
	float unpacked[2 * 64 * MAX_HD];
	int lo[MAX_ROWS], hi[MAX_ROWS];
};

static void page_init(struct page *p, int rows, int head_dim)
{
	memset(p, 0xff, sizeof(*p));
	p->a = (struct attn_page){.rows = rows,
				  .head_dim = head_dim,
				  .type = CPU_KV_E4M3,
				  .k = p->k,
				  .v = p->v,
				  .next_k = p->k,
				  .k_scale = p->k_scale,
				  .v_scale = p->v_scale,
				  .unpacked = p->unpacked,
				  .q = p->q,
				  .lo = p->lo,
				  .hi = p->hi,
				  .s = p->s,
				  .m = p->m,
				  .l = p->l,
				  .o = p->o};
	for (int i = 0; i < rows; i++) {
		p->m[i] = -INFINITY;
		p->l[i] = 0;
	}
	memset(p->o, 0, sizeof(p->o));
}

static void page_set(struct page *p, int j, const float *k, const float *v)
{
	int hd = p->a.head_dim;
	uint8_t codes[MAX_HD];

	p->k_scale[j] = ref_quantise_e4m3(codes, k, hd);
	for (int d = 0; d < hd; d++)
		p->k[d * 64 + j] = codes[d];
	p->v_scale[j] = ref_quantise_e4m3(p->v + j * hd, v, hd);
}

static void page_queries(struct page *p, const struct cpu_kernels *k)
{
	int hd = p->a.head_dim;

	for (int row = 0, r; row < p->a.rows; row += r) {
		r = cpu_tile_size(k->max_r, p->a.rows - row);
		for (int i = 0; i < r; i++)
			for (int d = 0; d < hd; d++)
				p->q[row * hd + d * r + i] = p->queries[row + i][d];
	}
}

/* Of one visible position the output is the value itself, whatever the score. */
static void check_decode(const struct cpu_kernels *k, int rows)
{
	static struct page p;
	int bad = 0;

	page_init(&p, rows, 256);
	for (int i = 0; i < rows; i++) {
		p.lo[i] = 5;
		p.hi[i] = 6;
	}
	for (int c = 0; c < 256; c++) {
		p.v[5 * 256 + c] = (c & 0x7f) == 0x7f ? 0 : c;
		p.k[c * 64 + 5] = 0;
	}
	p.k_scale[5] = 1;
	p.v_scale[5] = 0.75f;
	memset(p.queries, 0, sizeof(p.queries));
	page_queries(&p, k);
	k->attn_page(&p.a);
	for (int i = 0; i < rows; i++)
		for (int c = 0; c < 256; c++)
			bad += (c & 0x7f) != 0x7f && p.o[i * 256 + c] != 0.75f * ref_e4m3_to_f32(c);
	CHECK(!bad, "%s: all codes decode, %d rows (%d do not)", k->name, rows, bad);
}

/* Attention of one row in double, over what the codes say. */
static void oracle_row(const struct page *p, int row, double *o)
{
	int hd = p->a.head_dim;
	double score[64], sum = 0, max = -INFINITY;

	memset(o, 0, hd * sizeof(*o));
	for (int j = p->lo[row]; j < p->hi[row]; j++) {
		score[j] = 0;
		for (int d = 0; d < hd; d++)
			score[j] += (double)p->queries[row][d] * p->k_scale[j] *
				    ref_e4m3_to_f32(p->k[d * 64 + j]);
		max = fmax(max, score[j]);
	}
	for (int j = p->lo[row]; j < p->hi[row]; j++)
		sum += exp(score[j] - max);
	for (int j = p->lo[row]; j < p->hi[row]; j++)
		for (int d = 0; d < hd; d++)
			o[d] += exp(score[j] - max) / sum * p->v_scale[j] *
				ref_e4m3_to_f32(p->v[j * hd + d]);
}

static void fill(struct page *p, const struct cpu_kernels *k, int end)
{
	float x[2][MAX_HD];

	for (int j = 0; j < end; j++) {
		float size = ldexpf(1, j % 7 - 3);

		for (int d = 0; d < p->a.head_dim; d++) {
			x[0][d] = uniform() * 4;
			x[1][d] = uniform() * size;
		}
		page_set(p, j, x[0], x[1]);
	}
	for (int i = 0; i < p->a.rows; i++)
		for (int d = 0; d < p->a.head_dim; d++)
			p->queries[i][d] = uniform();
	page_queries(p, k);
}

static void check_attention(const struct cpu_kernels *k)
{
	static const int dims[] = {4, 10, 16, 24, 64, 96, 128, 256};
	static struct page p;
	double worst = 0, want[MAX_HD];

	for (int rows = 1; rows <= MAX_ROWS; rows++) {
		for (int i = 0; i < (int)(sizeof(dims) / sizeof(dims[0])); i++) {
			int hd = dims[i], ld = (hd + 15) & ~15, first = 1 + random_bits() % 55;

			page_init(&p, rows, hd);
			fill(&p, k, first + rows - 1);
			for (int r = 0; r < rows; r++) {
				p.hi[r] = first + r;
				p.lo[r] = random_bits() % p.hi[r];
			}
			k->attn_page(&p.a);
			for (int r = 0; r < rows; r++) {
				double num = 0, den = 0;

				oracle_row(&p, r, want);
				for (int d = 0; d < hd; d++) {
					double e = p.o[r * ld + d] / (double)p.l[r] - want[d];

					num += e * e;
					den += want[d] * want[d];
				}
				/* a NaN must not pass */
				worst = sqrt(num / den) <= worst ? worst : sqrt(num / den);
			}
		}
	}
	CHECK(worst < 2e-5, "%s: attention over codes, error %.1e", k->name, worst);
}

/* A row gives the same bits alone and in a tile, also beside a position that is NaN. */
static void check_rows(const struct cpu_kernels *k)
{
	static struct page p, one;
	float x[2][128];
	bool same = true;

	page_init(&p, MAX_ROWS, 128);
	fill(&p, k, 40);
	for (int d = 0; d < 128; d++)
		x[0][d] = x[1][d] = d == 7 ? NAN : 1;
	page_set(&p, 40, x[0], x[1]);
	for (int r = 0; r < MAX_ROWS; r++) {
		p.lo[r] = r;
		p.hi[r] = 33 + r;
	}
	k->attn_page(&p.a);
	for (int r = 0; r < MAX_ROWS; r++) {
		page_init(&one, 1, 128);
		memcpy(one.k, p.k, sizeof(p.k));
		memcpy(one.v, p.v, sizeof(p.v));
		memcpy(one.k_scale, p.k_scale, sizeof(p.k_scale));
		memcpy(one.v_scale, p.v_scale, sizeof(p.v_scale));
		memcpy(one.queries[0], p.queries[r], sizeof(p.queries[r]));
		page_queries(&one, k);
		one.lo[0] = p.lo[r];
		one.hi[0] = p.hi[r];
		k->attn_page(&one.a);
		if (one.hi[0] > 40)
			same &= isnan(one.o[3]) && isnan(p.o[r * 128 + 3]);
		else
			same &= !memcmp(one.o, p.o + r * 128, 128 * sizeof(float)) &&
				!isnan(one.o[3]) && one.l[0] == p.l[r] && one.m[0] == p.m[r];
	}
	CHECK(same, "%s: a row alone and among others, one of which meets NaN", k->name);
}

static void check_layout(void)
{
	bool aligned = true;

	for (int hd = 1; hd <= 512; hd++) {
		struct kv_group g = {2, 3, hd};
		struct kv_pool pool = {.type = KV_FP8};
		char *base = aligned_alloc(256, 256);

		g.page_bytes = kv_group_page_bytes(&g, KV_FP8);
		pool.base[0] = base;
		aligned &= kv_block_bytes(KV_FP8, hd) % 256 == 0;
		/* the last scale of the last block ends with the page */
		aligned &= (char *)(kv_scales(kv_block(&pool, &g, 0, 0, 1, 1, 2), hd) +
				    KV_PAGE_TOKENS) == base + g.page_bytes;
		aligned &= (char *)kv_scales(base, hd) - base >= KV_PAGE_TOKENS * hd;
		free(base);
	}
	CHECK(aligned, "blocks are whole 256 bytes and fill the page");
	CHECK(kv_block_bytes(KV_FP8, 128) == 64 * 132 && kv_block_bytes(KV_BF16, 128) == 64 * 256,
	      "132 bytes a position at head size 128");
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : NULL;

	check_codec();
	check_scale();
	check_layout();
	for (int i = 0; cpu_kernels_at(i); i++) {
		const struct cpu_kernels *k = cpu_kernels_at(i);

		if (only && strcmp(only, k->name))
			continue;
		if (!cpu_kernels_usable(k)) {
			tap_skip("%s: this processor has no such instructions", k->name);
			continue;
		}
		check_quantise(k);
		check_decode(k, 1);
		check_decode(k, MAX_ROWS);
		check_attention(k);
		check_rows(k);
	}
	return tap_done();
}
