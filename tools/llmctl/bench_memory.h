/* SPDX-License-Identifier: MIT */
/*
 * How fast CPU and GPU read memory of each kind that weights could lie in. One kind after the other,
 * several rounds, each time allocated anew: what a machine does meanwhile hits all of them.
 */
#ifndef LLMCTL_BENCH_MEMORY_H
#define LLMCTL_BENCH_MEMORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gpu.h"

enum memory_kind {
	MEMORY_4K, /* anonymous, small pages */
	MEMORY_2M, /* anonymous, transparent huge pages */
	MEMORY_HUGETLB,
	MEMORY_MEMFD,
	MEMORY_REGION, /* of the kernel module */
	MEMORY_REGISTERED, /* anonymous and registered with the GPU's driver */
	MEMORY_DEVICE, /* the GPU's own allocation */
	MEMORY_KINDS,
};
extern const char *const memory_kind_names[MEMORY_KINDS];

#define MEMORY_ROUNDS_MAX 32

struct memory_row {
	char missing[512]; /* why it was not measured, nor anything of it; "" */
	char gpu_missing[512]; /* why the GPU did not read it; "" */
	size_t huge_bytes; /* how much was in pages of 2 MiB and more, in the last round */
	double cpu[MEMORY_ROUNDS_MAX],
		gpu[MEMORY_ROUNDS_MAX]; /* bytes per second, sorted at the end */
	int n_cpu, n_gpu;
};

struct memory_bench {
	/* set by the caller */
	size_t bytes; /* of each kind; a multiple of 2 MiB; 0: fitting for this machine */
	int threads; /* 0: one per CPU */
	int rounds;
	const char *control; /* the module's control file */
	/* Returns false to stop; done of total rows. May be NULL. */
	bool (*progress)(int done, int total);
	/* results */
	int used_threads;
	const char *loads; /* how the CPU read */
	bool has_gpu;
	struct gpu_facts gpu;
	char no_gpu[512]; /* why there is none */
	struct memory_row row[MEMORY_KINDS];
};

/* -ENOMEM: not enough available memory for `bytes`; -EINTR: stopped. */
int memory_bench(struct memory_bench *b, struct err *e);
double memory_median(const double *sorted, int n); /* 0 if n is 0 */
/* New reference; NULL: no memory. */
json_t *memory_bench_json(const struct memory_bench *b);

#endif
