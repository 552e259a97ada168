/* SPDX-License-Identifier: MIT */
/*
 * The GPU as its driver shows it (libcuda.so.1, loaded when asked for): facts, and how fast it reads
 * memory. Without a driver everything here says so, and nothing else changes.
 */
#ifndef LLMCTL_GPU_H
#define LLMCTL_GPU_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct gpu;

struct gpu_facts {
	char name[96];
	int driver; /* CUDA version the driver supports, 13000 is 13.0 */
	int sm; /* 121: compute capability 12.1 */
	int processors;
	uint64_t total, free; /* bytes, as the driver reports them */
	int l2; /* bytes */
	bool integrated; /* its memory is the machine's */
	bool pageable; /* it reads any memory of this process */
	bool host_tables; /* ... by the CPU's own page tables (ATS) */
	bool host_register, read_only_register;
	bool rdma, dma_buf; /* of device memory */
};

/* The first GPU. -ENOENT: no driver or no GPU, and *e says which. */
int gpu_open(struct gpu **out, struct err *e);
void gpu_close(struct gpu *g);
const struct gpu_facts *gpu_facts(const struct gpu *g);
/* New reference; NULL: no memory. */
json_t *gpu_json(const struct gpu_facts *f);

/* What the driver says is free now; 0: it does not say. */
uint64_t gpu_free_bytes(const struct gpu *g);

/* Device memory: an address for gpu_read(); 0 with *e. */
uint64_t gpu_alloc(struct gpu *g, size_t bytes, struct err *e);
void gpu_free(struct gpu *g, uint64_t p);
/* Memory of this process made the GPU's, too (pinned); the address for gpu_read(), 0 with *e. */
uint64_t gpu_register(struct gpu *g, void *p, size_t bytes, struct err *e);
void gpu_unregister(struct gpu *g, void *p);
/* Reads it once, uncounted, then `passes` times (1 to 16): the median in bytes per second, 0 with *e. */
double gpu_read(struct gpu *g, uint64_t p, size_t bytes, int passes, struct err *e);

#endif
