// SPDX-License-Identifier: MIT
/*
 * CPU kernels, every table that this machine can run: each against kernels/ref by normalised error
 * (with the activations rounded the same way), and bitwise against itself in tiles of other sizes.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"
#include "tests/tap.h"

static uint64_t rng = 1;

static uint32_t random_bits(void)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return rng >> 33;
}

/* About normal: the sum of four uniforms. */
static float random_float(void)
{
	float s = 0;

	for (int i = 0; i < 4; i++)
		s += random_bits() / 2147483648.0f - 0.5f;
	return s * 1.7f;
}

static void put_f16(uint8_t *p, float f)
{
	uint16_t h = ref_f32_to_f16(f);

	memcpy(p, &h, 2);
}

/* One row of random weights in checkpoint format; every bit pattern of the quants occurs. */
static void random_row(uint8_t *p, enum dtype type, int64_t cols)
{
	const struct dtype_info *info = dtype_info(type);

	for (int64_t b = 0; b < cols / info->block; b++, p += info->bytes) {
		float f = random_float();
		uint16_t h;

		for (uint32_t i = 0; i < info->bytes; i++)
			p[i] = random_bits();
		switch (type) {
		case DTYPE_F32:
			memcpy(p, &f, 4);
			break;
		case DTYPE_F16:
			put_f16(p, f);
			break;
		case DTYPE_BF16:
			h = ref_f32_to_bf16(f);
			memcpy(p, &h, 2);
			break;
		case DTYPE_Q6_K:
			put_f16(p + 208, f / 100);
			break;
		case DTYPE_Q4_K:
			put_f16(p, f / 10);
			put_f16(p + 2, random_float() / 10);
			break;
		default:
			put_f16(p, f / 10);
			break;
		}
	}
}

static const enum dtype types[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0,
				   DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q6_K};
static const int tile_sizes[] = {1, 2, 3, 4, 6, 8, 12};
#define N_TOK 24 /* a multiple of every tile size */

/* sqrt(sum (a - b)^2 / sum b^2) */
static double normalised_error(const float *a, const float *b, int64_t n)
{
	double num = 0, den = 0;

	for (int64_t i = 0; i < n; i++) {
		num += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		den += (double)b[i] * b[i];
	}
	return den > 0 ? sqrt(num / den) : sqrt(num);
}

static void round_as(enum act_fmt fmt, float *x, int64_t n)
{
	if (fmt == ACT_I8)
		ref_round_q8(x, n);
	if (fmt == ACT_BF16)
		ref_round_bf16(x, n);
}

/* One matrix of `rows` <= 16 rows, all tile sizes, one activation format. */
static void check_tile(const struct cpu_kernels *k, enum dtype type, enum act_fmt fmt, int rows,
		       int64_t cols)
{
	size_t row_bytes = dtype_row_bytes(type, cols), even = (cols + 1) & ~1;
	uint8_t *w = malloc(rows * row_bytes + 1), *packed = malloc(cpu_group_bytes(type, cols));
	float *x = malloc(N_TOK * cols * sizeof(float)), *row = malloc(cols * sizeof(float));
	float *want = calloc(N_TOK * 16, sizeof(float)), *one = calloc(N_TOK * 16, sizeof(float));
	void *act = malloc(N_TOK * even * sizeof(float));
	struct act_meta *meta = malloc((N_TOK * cols / 32 + 1) * sizeof(*meta));
	cpu_tile_fn fn = k->tile(type, fmt);
	bool same = true, unpacks = true, padding = true;
	double worst = 0;

	/* one byte off: the loader's sources have no alignment */
	for (int r = 0; r < rows; r++)
		random_row(w + 1 + r * row_bytes, type, cols);
	memset(packed, 0xee, cpu_group_bytes(type, cols));
	cpu_pack(packed, w + 1, rows, cols, type);
	for (int r = 0; r < rows; r++) {
		float *decoded = malloc(cols * sizeof(float));

		ref_dequant_row(row, w + 1 + r * row_bytes, cols, type);
		cpu_unpack_row(decoded, packed, r, cols, type);
		unpacks &= normalised_error(decoded, row, cols) < 1e-6;
		free(decoded);
	}
	for (int64_t i = 0; i < N_TOK * cols; i++)
		x[i] = random_float() * (1 + i / cols);
	for (int t = 0; t < N_TOK; t++) {
		float *rounded = malloc(cols * sizeof(float));

		memcpy(rounded, x + t * cols, cols * sizeof(float));
		round_as(fmt, rounded, cols);
		ref_matvec(want + t * 16, w + 1, type, rows, cols, rounded, row);
		free(rounded);
	}
	for (int s = 0; s < (int)(sizeof(tile_sizes) / sizeof(tile_sizes[0])); s++) {
		int m = tile_sizes[s];
		float y[CPU_MAX_TILE * 16];

		if (m > k->max_m)
			break;
		for (int t0 = 0; t0 < N_TOK; t0 += m) {
			struct act_tile tile = {m, act, meta};

			for (int i = 0; i < m; i++) {
				const float *h = x + (t0 + i) * cols;

				if (fmt == ACT_I8)
					k->store_i8(h, cols, m, i, act, meta);
				else if (fmt == ACT_BF16)
					k->store_bf16(h, cols, m, i, act);
				else
					k->store_f32(h, cols, m, i, act);
			}
			fn(packed, &tile, cols, y);
			for (int i = 0; i < m; i++) {
				float *got = y + i * 16;
				double err = normalised_error(got, want + (t0 + i) * 16, rows);

				worst = err > worst ? err : worst;
				for (int r = rows; r < 16; r++)
					padding &= got[r] == 0;
				if (m == 1)
					memcpy(one + t0 * 16, got, 64);
				else
					same &= !memcmp(one + (t0 + i) * 16, got, 64);
			}
		}
	}
	CHECK(unpacks, "%s %s %dx%d: rows come back from the packed form", k->name,
	      dtype_info(type)->name, rows, (int)cols);
	/* int8: a value near a tie may round the other way */
	CHECK(worst < (fmt == ACT_I8 ? 3e-3 : 2e-5), "%s %s x %s %dx%d: error %.1e against ref",
	      k->name, dtype_info(type)->name,
	      fmt == ACT_I8	? "int8"
	      : fmt == ACT_BF16 ? "bf16"
				: "float",
	      rows, (int)cols, worst);
	CHECK(same && padding, "%s %s %dx%d: the same bits in every tile size, zeros in padding",
	      k->name, dtype_info(type)->name, rows, (int)cols);
	free(w);
	free(packed);
	free(x);
	free(row);
	free(want);
	free(one);
	free(act);
	free(meta);
}

static void check_products(const struct cpu_kernels *k)
{
	static const int shapes[][2] = {{16, 512}, {16, 256}, {5, 768}, {1, 32}, {16, 96},
					{11, 1},   {16, 7},   {3, 130}, {16, 64}};

	for (int t = 0; t < (int)(sizeof(types) / sizeof(types[0])); t++)
		for (int s = 0; s < (int)(sizeof(shapes) / sizeof(shapes[0])); s++)
			for (int fmt = 0; fmt < ACT_FORMATS; fmt++)
				if (shapes[s][1] % dtype_info(types[t])->block == 0 &&
				    k->tile(types[t], fmt))
					check_tile(k, types[t], fmt, shapes[s][0], shapes[s][1]);
}

static void check_extremes(const struct cpu_kernels *k)
{
	/* Full-scale weights and activations: nothing may saturate on the way. */
	static const int8_t q[4] = {-128, 127, -128, 127};
	uint8_t w[16 * 34], packed[16 * 34];
	float x[32], y[16], row[32], want[16];
	int8_t act[32];
	struct act_meta meta[1];
	struct act_tile tile = {1, act, meta};
	bool zero = true;

	for (int r = 0; r < 16; r++) {
		put_f16(w + r * 34, 1);
		for (int i = 0; i < 32; i++)
			w[r * 34 + 2 + i] = (uint8_t)q[r % 4];
	}
	cpu_pack(packed, w, 16, 32, DTYPE_Q8_0);
	for (int i = 0; i < 32; i++)
		x[i] = 127;
	k->store_i8(x, 32, 1, 0, act, meta);
	k->tile(DTYPE_Q8_0, ACT_I8)(packed, &tile, 32, y);
	ref_matvec(want, w, DTYPE_Q8_0, 16, 32, x, row);
	CHECK(normalised_error(y, want, 16) < 1e-6, "%s: full-scale products do not saturate",
	      k->name);
	for (int i = 0; i < 32; i++)
		x[i] = i ? 0 : 1e-40f;
	k->store_i8(x, 32, 1, 0, act, meta);
	k->tile(DTYPE_Q8_0, ACT_I8)(packed, &tile, 32, y);
	for (int r = 0; r < 16; r++)
		zero &= y[r] == 0;
	CHECK(zero, "%s: a block of zeros and denormals gives zeros", k->name);
}

static void check_elementwise(const struct cpu_kernels *k)
{
	float x[133], w[133], y[133], want[133], g[16], u[16];
	double worst = 0;
	bool same = true;

	for (int n = 1; n <= 133; n += 11) {
		for (int i = 0; i < n; i++) {
			x[i] = random_float();
			w[i] = random_float();
		}
		k->rmsnorm(y, x, w, n, 1e-6f);
		ref_rmsnorm(want, x, w, n, 1e-6f);
		worst = fmax(worst, normalised_error(y, want, n));
	}
	CHECK(worst < 1e-6, "%s: rmsnorm, error %.1e", k->name, worst);

	worst = 0;
	for (float v = -100; v < 100; v += 1.6f) {
		for (int i = 0; i < 16; i++) {
			g[i] = v + i * 0.1f;
			u[i] = 3;
		}
		k->silu_mul(y, g, u);
		for (int i = 0; i < 16; i++) {
			double ref = (double)g[i] / (1 + exp(-(double)g[i])) * 3;

			/* where exp(-g) is clamped the result is nothing against the others */
			worst = fmax(worst, fabs(y[i] - ref) / fmax(fabs(ref), 1e-29));
		}
	}
	CHECK(worst < 1e-6, "%s: silu, relative error %.1e", k->name, worst);

	for (int inter = 0; inter < 2; inter++) {
		float c[16], s[16];

		for (int i = 0; i < 16; i++) {
			c[i] = cosf(i * 0.7f);
			s[i] = sinf(i * 0.7f);
		}
		for (int i = 0; i < 40; i++)
			want[i] = x[i] = random_float();
		k->rope(x, 32, inter, c, s);
		ref_rope(want, 32, inter, c, s);
		CHECK(normalised_error(x, want, 40) < 1e-6, "%s: rope, %s", k->name,
		      inter ? "interleaved" : "halves");
	}
	for (int n = 1; n < 40; n += 6) {
		for (int i = 0; i < n; i++) {
			y[i] = want[i] = random_float();
			x[i] = random_float();
		}
		k->axpy(y, x, 0.3f, n);
		for (int i = 0; i < n; i++)
			want[i] += 0.3f * x[i];
		same &= normalised_error(y, want, n) < 1e-6;
	}
	CHECK(same, "%s: axpy", k->name);
	same = true;
	for (int n = 1; n < 40; n += 6) {
		uint16_t h[40];

		for (int i = 0; i < n; i++)
			x[i] = i == 1 ? NAN : i == 2 ? -INFINITY : random_float();
		k->to_bf16(h, x, n);
		for (int i = 0; i < n; i++)
			same &= isnan(x[i]) ? isnan(ref_bf16_to_f32(h[i]))
					    : h[i] == ref_f32_to_bf16(x[i]);
	}
	CHECK(same, "%s: bfloat16 rounds to nearest even", k->name);
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : NULL;

	for (int i = 0; cpu_kernels_at(i); i++) {
		const struct cpu_kernels *k = cpu_kernels_at(i);

		if (only && strcmp(only, k->name))
			continue;
		if (!cpu_kernels_usable(k)) {
			tap_skip("%s: this processor has no such instructions", k->name);
			continue;
		}
		check_products(k);
		if (k->tile(DTYPE_Q8_0, ACT_I8))
			check_extremes(k);
		check_elementwise(k);
	}
	CHECK(cpu_kernels_select("no-such") == NULL, "an unknown instruction set is refused");
	return tap_done();
}
