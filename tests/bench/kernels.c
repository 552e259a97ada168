// SPDX-License-Identifier: MIT
/*
 * How fast the CPU kernels are on one core: a row of products with one token over weights that no
 * cache holds (decode: GB/s of weights), and a prompt of 128 tokens, tile after tile for each group of
 * rows (prefill: multiply-adds a second). Times are the thread's own CPU time, so that neighbours on the
 * machine count less. Attention: positions of one KV head a second, for 1 to 8 query heads that share
 * it, and multiply-adds with the 48 rows of a prompt.
 *
 * usage: kernels [ISA [TYPE | attention]]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "backend/ops.h"
#include "kernels/cpu/cpu.h"

#define COLS   1024
#define PROMPT 128
#define STREAM ((size_t)192 << 20)
/* groups of rows that a prompt is multiplied with */
#define PREFILL_GROUPS 100
#define KV_HEADS       8
#define HEAD_DIM       128
#define ACT_BYTES(fmt) ((fmt) == ACT_I8 ? 1 : (fmt) == ACT_BF16 ? 2 : 4)

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fill(uint8_t *p, size_t n)
{
	/* small scales whatever the format: bytes 0x11 are neither NaN nor denormal */
	memset(p, 0x11, n);
}

static double best_of(double a, double b)
{
	return a == 0 || b < a ? b : a;
}

static void bench(const struct cpu_kernels *k, enum dtype type, enum act_fmt fmt, uint8_t *w,
		  uint8_t *x, struct act_meta *meta)
{
	size_t bytes = cpu_group_bytes(type, COLS), groups = STREAM / bytes;
	cpu_tile_fn fn = k->tile(type, fmt);
	struct act_tile one = {1, x, meta};
	float y[CPU_MAX_TILE * CPU_ROWS];
	double decode = 0, cached = 0, prefill = 0;
	int reps = 2000;

	for (int run = 0; run < 5; run++) {
		double t = cpu_seconds();

		for (size_t g = 0; g < groups; g++)
			fn(w + g * bytes, &one, COLS, y);
		decode = best_of(decode, cpu_seconds() - t);
		t = cpu_seconds();
		for (int r = 0; r < reps; r++)
			fn(w + r % 8 * bytes, &one, COLS, y);
		cached = best_of(cached, cpu_seconds() - t);
		t = cpu_seconds();
		for (int g = 0; g < PREFILL_GROUPS; g++) {
			for (int t0 = 0; t0 + k->max_m <= PROMPT; t0 += k->max_m) {
				struct act_tile tile = {k->max_m, x + t0 * COLS * ACT_BYTES(fmt),
							meta + t0 * (COLS / 32)};

				fn(w + g * bytes, &tile, COLS, y);
			}
		}
		prefill = best_of(prefill, cpu_seconds() - t);
	}
	printf("%-8s %-5s x %-5s  decode %6.1f GB/s (%.1f from L2)   prefill %6.1f GMAC/s\n",
	       k->name, dtype_info(type)->name,
	       fmt == ACT_I8	 ? "int8"
	       : fmt == ACT_BF16 ? "bf16"
				 : "float",
	       groups * bytes / decode * 1e-9, reps * bytes / cached * 1e-9,
	       (double)PREFILL_GROUPS * (PROMPT / k->max_m * k->max_m) * COLS * CPU_ROWS / prefill *
		       1e-9);
}

/*
 * Attention of one token (so many query heads share a KV head) over a cache that no cache of the core
 * holds, laid out as pages of one layer of KV_HEADS heads; and of 48 rows, as in a prompt.
 */
static void bench_attention(const struct cpu_kernels *k, enum kv_type type, uint8_t *w)
{
	static const int row_counts[] = {1, 2, 4, 8, 48};
	static float q[48 * HEAD_DIM], s[48 * 64], m[48], l[48], o[48 * HEAD_DIM];
	static float unpacked[2 * 64 * HEAD_DIM];
	static int lo[48], hi[48];
	struct kv_group g = {.n_layers = 1, .n_heads = KV_HEADS, .head_dim = HEAD_DIM};
	struct kv_pool pool = {.base = {w}, .type = type};
	int pages;

	g.page_bytes = kv_group_page_bytes(&g, type);
	pages = (int)(STREAM / g.page_bytes);
	printf("%-8s attention, KV %-4s", k->name, kv_type_name(type));
	for (int c = 0; c < (int)(sizeof(row_counts) / sizeof(row_counts[0])); c++) {
		int rows = row_counts[c], n_pages = rows > 8 ? 8 : pages;
		double best = 0;

		for (int run = 0; run < 5; run++) {
			double t = cpu_seconds();

			for (int i = 0; i < n_pages * KV_HEADS; i++) {
				int page = i % n_pages, head = i / n_pages;
				void *kb = kv_block(&pool, &g, 0, page, 0, 0, head);
				void *vb = kv_block(&pool, &g, 0, page, 0, 1, head);
				struct attn_page a = {.rows = rows,
						      .head_dim = HEAD_DIM,
						      .type = (enum cpu_kv)type,
						      .k = kb,
						      .v = vb};

				if (type == KV_FP8) {
					a.k_scale = kv_scales(kb, HEAD_DIM);
					a.v_scale = kv_scales(vb, HEAD_DIM);
				}
				a.next_k = kv_block(&pool, &g, 0, (page + 1) % n_pages, 0, 0, head);
				a.unpacked = unpacked;
				a.q = q;
				a.lo = lo;
				a.hi = hi;
				a.s = s;
				a.m = m;
				a.l = l;
				a.o = o;
				for (int r = 0; page == 0 && r < rows; r++) {
					m[r] = -INFINITY;
					l[r] = 0;
					hi[r] = 64;
				}
				k->attn_page(&a);
			}
			best = best_of(best, cpu_seconds() - t);
		}
		if (rows == 48)
			printf("  prefill %5.1f GMAC/s\n",
			       2.0 * rows * HEAD_DIM * 64 * n_pages * KV_HEADS / best * 1e-9);
		else
			printf("  x%d %5.1f M/s %4.1f GB/s", rows,
			       64.0 * n_pages * KV_HEADS / best * 1e-6,
			       n_pages * g.page_bytes / best * 1e-9);
	}
}

/* What the core can read at all. */
static void bench_read(const uint8_t *w)
{
	double best = 0;
	uint64_t sum = 0;

	for (int run = 0; run < 5; run++) {
		double t = cpu_seconds();

		for (size_t i = 0; i < STREAM; i += 64)
			sum += *(const uint64_t *)(w + i);
		best = best_of(best, cpu_seconds() - t);
	}
	printf("reading one word a line: %.1f GB/s%s\n", STREAM / best * 1e-9, sum ? "" : " ");
}

int main(int argc, char **argv)
{
	static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q6_K,
					   DTYPE_BF16, DTYPE_F16,  DTYPE_F32};
	uint8_t *w = mmap(NULL, STREAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *x = calloc(PROMPT, COLS * sizeof(float));
	struct act_meta *meta = calloc(PROMPT, COLS / 32 * sizeof(*meta));

	if (w == MAP_FAILED || !x || !meta)
		return 1;
	madvise(w, STREAM, MADV_HUGEPAGE);
	fill(w, STREAM);
	bench_read(w);
	for (int i = 0; cpu_kernels_at(i); i++) {
		const struct cpu_kernels *k = cpu_kernels_at(i);

		if (!cpu_kernels_usable(k) || (argc > 1 && strcmp(argv[1], k->name)))
			continue;
		for (int t = 0; t < (int)(sizeof(types) / sizeof(types[0])); t++)
			for (int fmt = ACT_FORMATS - 1; fmt >= 0; fmt--)
				if (k->tile(types[t], fmt) &&
				    (argc < 3 || !strcmp(argv[2], dtype_info(types[t])->name)))
					bench(k, types[t], fmt, w, x, meta);
		if (argc < 3 || !strcmp(argv[2], "attention"))
			for (int type = KV_F32; type <= KV_FP8; type++)
				bench_attention(k, type, w);
	}
	return 0;
}
