// SPDX-License-Identifier: MIT
/*
 * How fast weights_load() brings a checkpoint into memory.
 *
 * usage: load MODEL [--runs N] [--block BYTES] [--depth N] [--threads N] [--pack ROWS]
 *             [--buffered] [--pread] [--sum] [--cold]
 *        load --touch BYTES
 * Prints one JSON object a run: bytes_per_s (of the file's bytes read), seconds, method, peak RSS.
 * --pack ROWS copies through a pack() in groups of so many rows, as kernels with their own layout
 * do; --sum prints a checksum of what was loaded.
 *
 * The memory is touched before the clock starts, unless --cold: a virtual machine whose host takes
 * free pages back (free page reporting) gets them again at less than a disk's speed, and that would
 * be measured instead. "touch_bytes_per_s" says what this machine's memory did. --touch only does
 * that, so that what is compared with a load starts after the same pause.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "weights/load.h"
#include "weights/placement.h"

/* The cheapest repacking there is: every row on its own, so that the rate is pack()'s upper bound. */
static void pack_rows(void *dst, const void *src, int rows, int64_t cols, enum dtype type)
{
	size_t row = dtype_row_bytes(type, cols);

	for (int i = 0; i < rows; i++)
		memcpy((char *)dst + (size_t)i * row, (const char *)src + (size_t)i * row, row);
}

static size_t aligned(size_t n)
{
	return (n + 255) & ~(size_t)255;
}

/* Tensors with at least two dimensions are matrices; `rows` > 0 packs them in groups. */
static size_t plan(const struct checkpoint *c, struct load_item *items, int rows, char *base)
{
	size_t at = 0;

	for (int64_t i = 0; i < checkpoint_n_tensors(c); i++) {
		const struct tensor_info *t = checkpoint_tensor(c, i);
		struct load_item *it = &items[i];
		size_t row;

		*it = (struct load_item){
			.t = t, .dst = base + at, .count = 1, .rows = 1, .cols = 1};
		if (t->n_dims)
			it->cols = t->dims[t->n_dims - 1];
		for (int d = 0; d < t->n_dims - 1; d++)
			it->rows *= t->dims[d];
		row = dtype_row_bytes(t->type, it->cols);
		it->stride = row * (size_t)it->rows;
		if (rows && it->rows > 1) {
			size_t groups = (size_t)((it->rows + rows - 1) / rows);

			it->pack = (struct weight_pack){rows, row * (size_t)rows, pack_rows};
			it->stride = groups * row * (size_t)rows;
		}
		at += aligned(it->stride);
	}
	return at;
}

static long peak_rss_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	long kib = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmHWM: %ld kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

/* CPU time of all threads so far. */
static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double touch(const struct placement *p)
{
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (size_t i = 0; i < p->bytes; i += 4096)
		((volatile char *)p->base)[i] = 0;
	clock_gettime(CLOCK_MONOTONIC, &b);
	return (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
}

static int touch_only(size_t bytes)
{
	struct placement p;
	struct err e;

	if (placement_alloc(&p, bytes, -1, &e)) {
		fprintf(stderr, "load: %s\n", e.msg);
		return 1;
	}
	touch(&p);
	placement_free(&p);
	return 0;
}

static int run(const struct checkpoint *c, const struct load_opts *o, int rows, int sum, int cold)
{
	struct load_item *items = calloc((size_t)checkpoint_n_tensors(c) + 1, sizeof(*items));
	struct placement p;
	struct load_stats st;
	struct err e;
	size_t bytes = plan(c, items, rows, NULL);
	double touched = 0, cpu;
	uint64_t h = 0;

	if (placement_alloc(&p, bytes, -1, &e)) {
		fprintf(stderr, "load: %s\n", e.msg);
		free(items);
		return 1;
	}
	plan(c, items, rows, p.base);
	if (!cold)
		touched = touch(&p);
	cpu = cpu_seconds();
	if (weights_load(c, items, (int)checkpoint_n_tensors(c), o, &st, &e)) {
		fprintf(stderr, "load: %s\n", e.msg);
		placement_free(&p);
		free(items);
		return 1;
	}
	cpu = cpu_seconds() - cpu;
	printf("{\"bytes_per_s\":%.0f,\"seconds\":%.4f,\"bytes_read\":%" PRIu64
	       ",\"method\":\"%s\",\"weights\":%zu,\"peak_rss_kib\":%ld,\"cpu_seconds\":%.3f",
	       (double)st.bytes_read / st.seconds, st.seconds, st.bytes_read, st.method, bytes,
	       peak_rss_kib(), cpu);
	if (touched > 0)
		printf(",\"touch_bytes_per_s\":%.0f", (double)bytes / touched);
	for (size_t i = 0; sum && i < bytes / 8; i++)
		h = (h ^ ((uint64_t *)p.base)[i]) * 0x9e3779b97f4a7c15u;
	if (sum)
		printf(",\"sum\":\"%016" PRIx64 "\"", h);
	printf("}\n");
	placement_free(&p);
	free(items);
	return 0;
}

int main(int argc, char **argv)
{
	struct load_opts o = {0};
	struct checkpoint *c;
	struct err e;
	int runs = 1, rows = 0, sum = 0, cold = 0, rc = 0;
	const char *model = NULL;

	for (int i = 1; i < argc; i++) {
		const char *next = i + 1 < argc ? argv[i + 1] : "0";

		if (!strcmp(argv[i], "--buffered"))
			o.no_direct = true;
		else if (!strcmp(argv[i], "--pread"))
			o.no_uring = true;
		else if (!strcmp(argv[i], "--touch"))
			return touch_only(strtoull(next, NULL, 10));
		else if (!strcmp(argv[i], "--cold"))
			cold = 1;
		else if (!strcmp(argv[i], "--sum"))
			sum = 1;
		else if (!strcmp(argv[i], "--runs"))
			runs = atoi(next), i++;
		else if (!strcmp(argv[i], "--block"))
			o.block_bytes = atoi(next), i++;
		else if (!strcmp(argv[i], "--depth"))
			o.depth = atoi(next), i++;
		else if (!strcmp(argv[i], "--threads"))
			o.threads = atoi(next), i++;
		else if (!strcmp(argv[i], "--pack"))
			rows = atoi(next), i++;
		else
			model = argv[i];
	}
	if (!model) {
		fprintf(stderr, "usage: load MODEL [options, see the source's head]\n");
		return 2;
	}
	if (checkpoint_open(&c, model, &e)) {
		fprintf(stderr, "load: %s\n", e.msg);
		return 1;
	}
	while (runs-- > 0 && !rc)
		rc = run(c, &o, rows, sum, cold);
	checkpoint_close(c);
	return rc;
}
