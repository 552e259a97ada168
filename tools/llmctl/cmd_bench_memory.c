// SPDX-License-Identifier: MIT
/*
 * llmctl bench memory: read bandwidth by kind of memory, of the CPU and of the GPU if there is one. It
 * tells where weights are best kept on a machine; bench_memory.c measures, this file owns the options
 * and the table.
 */
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "bench_memory.h"
#include "ctl.h"

#define USAGE "bench memory [--size SIZE] [--threads N] [--runs N] [--control PATH] [--json]"

enum { OPT_JSON = 1, OPT_SIZE, OPT_THREADS, OPT_RUNS, OPT_CONTROL };

static bool progress(int done, int total)
{
	ctl_progress(NULL, "measuring", (uint64_t)done, (uint64_t)total);
	return !ctl_sigint();
}

static void print_rates(const double *v, int n)
{
	char range[32] = "";

	if (n > 1)
		snprintf(range, sizeof(range), "(%.1f to %.1f)", v[0] / 1e9, v[n - 1] / 1e9);
	if (n)
		printf(" %8.1f %-18s", memory_median(v, n) / 1e9, range);
	else
		printf(" %8s %-18s", "-", "");
}

static void print_table(const struct memory_bench *b)
{
	printf("%-24s %9s %8s %-18s", "MEMORY", "IN 2 MIB", "CPU GB/s", "");
	printf(b->has_gpu ? " %8s\n" : "\n", "GPU GB/s");
	for (int k = 0; k < MEMORY_KINDS; k++) {
		const struct memory_row *r = &b->row[k];

		if (!r->n_cpu && !r->n_gpu)
			continue;
		printf("%-24s ", memory_kind_names[k]);
		if (r->n_cpu)
			printf("%7.0f %%", 100.0 * (double)r->huge_bytes / (double)b->bytes);
		else
			printf("%9s", "-");
		print_rates(r->cpu, r->n_cpu);
		if (b->has_gpu)
			print_rates(r->gpu, r->n_gpu);
		putchar('\n');
	}
	printf("\n%zu MiB of each, %d rounds, medians; %d threads, %s loads", b->bytes >> 20,
	       b->rounds, b->used_threads, b->loads ? b->loads : "no");
	if (b->has_gpu)
		printf("; %s, %s", b->gpu.name,
		       b->gpu.pageable ? "which reads this process's memory by itself"
				       : "which reads registered memory only");
	putchar('\n');
	if (!b->has_gpu)
		printf("no rows of a GPU: %s\n", b->no_gpu);
	for (int k = 0; k < MEMORY_KINDS; k++) {
		const struct memory_row *r = &b->row[k];

		if (r->missing[0] && (b->has_gpu || k < MEMORY_REGISTERED))
			printf("not measured: %s: %s\n", memory_kind_names[k], r->missing);
		else if (r->gpu_missing[0])
			printf("not read by the GPU: %s: %s\n", memory_kind_names[k],
			       r->gpu_missing);
	}
}

static int parse(struct memory_bench *b, bool *json, int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, OPT_JSON},
		{"size", required_argument, NULL, OPT_SIZE},
		{"threads", required_argument, NULL, OPT_THREADS},
		{"runs", required_argument, NULL, OPT_RUNS},
		{"control", required_argument, NULL, OPT_CONTROL},
		{NULL},
	};
	uint64_t size;
	long long v;
	int opt;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (opt) {
		case OPT_JSON:
			*json = true;
			break;
		case OPT_SIZE:
			if (!size_parse(optarg, &size) || size < 2 << 20 || size > 1ull << 46) {
				ctl_fail("--size: `%s` is not a size: give one from 2M on, like "
					 "512M",
					 optarg);
				return 2;
			}
			b->bytes = (size_t)size;
			break;
		case OPT_THREADS:
			if (!ctl_int("--threads", optarg, 1, 1024, &v))
				return 2;
			b->threads = (int)v;
			break;
		case OPT_RUNS:
			if (!ctl_int("--runs", optarg, 1, MEMORY_ROUNDS_MAX, &v))
				return 2;
			b->rounds = (int)v;
			break;
		case OPT_CONTROL:
			b->control = optarg;
			break;
		default:
			return ctl_bad_option(USAGE, argv);
		}
	}
	if (argc != optind)
		return ctl_usage(USAGE, "bench memory: takes no arguments");
	return 0;
}

int cmd_bench_memory(int argc, char **argv)
{
	struct memory_bench b = {.rounds = 5, .control = "/dev/llm-control", .progress = progress};
	bool json = false;
	struct err e;
	int rc = parse(&b, &json, argc, argv);

	if (rc)
		return rc;
	ctl_catch_sigint();
	rc = memory_bench(&b, &e);
	ctl_progress_end();
	if (rc) {
		ctl_fail("%s", e.msg);
		return ctl_sigint() ? 130 : 1;
	}
	if (json) {
		json_t *j = memory_bench_json(&b);

		if (j)
			json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
		putchar('\n');
		json_decref(j);
	} else {
		print_table(&b);
	}
	return 0;
}
