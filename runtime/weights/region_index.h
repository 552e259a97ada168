/* SPDX-License-Identifier: MIT */
/*
 * What stands in a region of weights: a head, one entry for each tensor, their names, and then the
 * tensors as the backend wants them.
 *
 *   0            struct region_head
 *   tensors_at   struct region_tensor [n_tensors]
 *   strings_at   NUL-terminated strings, to index_bytes
 *   data_at      data_bytes, a multiple of 4096 from the beginning
 *
 * In the machine's own byte order: regions never leave it. Whoever reads an index takes nothing for
 * granted: the region may have been made by anybody with the right to make one.
 */
#ifndef LLMDEV_WEIGHTS_REGION_INDEX_H
#define LLMDEV_WEIGHTS_REGION_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/load.h"

#define REGION_INDEX_MAGIC   "llmdev weights\n"
#define REGION_INDEX_VERSION 1
#define REGION_INDEX_MAX     ((uint64_t)1 << 30)

struct region_head {
	char magic[16];
	uint32_t version;
	uint32_t n_tensors;
	uint64_t tensors_at, strings_at, index_bytes;
	uint64_t data_at, data_bytes;
	uint64_t identity;      /* of what was loaded and how it lies here; see region_load.h */
	uint64_t stamp;         /* of the files that it came from */
	uint64_t data_sum;      /* region_data_sum() */
	uint64_t sample;        /* region_data_sample() */
	int64_t loaded_at;      /* seconds since 1970 */
	uint32_t label, path;   /* offsets of strings */
	char backend[16], isa[16];
	uint64_t head_sum;      /* of the whole index with this member as 0 */
};

struct region_tensor {
	uint64_t offset, bytes; /* within the data */
	int64_t count, rows, cols;
	uint64_t stride, group_bytes;
	uint64_t layout;        /* what the backend's packing makes of a pattern; see region_load.c */
	uint32_t group_rows;
	uint32_t type;          /* enum dtype */
	uint32_t name;          /* offset of a string */
	uint32_t reserved;
};

/* One that was read: points into the region. */
struct region_index {
	const struct region_head *head;
	const struct region_tensor *tensor;
	const char *label, *path;
};

/* What an index is made of. items[i] begins at offsets[i] of the data, packed as layouts[i] tells. */
struct region_index_plan {
	const char *label, *path, *backend, *isa;
	uint64_t identity, stamp;
	const struct load_item *items;
	const size_t *offsets;
	const uint64_t *layouts;
	int n_items;
	size_t data_bytes;
};

/* Bytes that its entry's matrices take at their place. */
uint64_t region_item_bytes(const struct load_item *item);

/* Where the data begins in a region for it. */
size_t region_index_space(const struct region_index_plan *p);
/* Writes it to the beginning of a region, with the sums of the data. */
void region_index_write(void *base, const struct region_index_plan *p, uint64_t data_sum,
			uint64_t sample);

/* What head_sum has to be: of the first `bytes`, as if head_sum was 0. */
uint64_t region_index_sum(const void *base, uint64_t bytes);

/* -EINVAL: this is no whole index of a region of so many bytes. */
int region_index_read(struct region_index *out, const void *base, size_t bytes, struct err *e);
const char *region_index_name(const struct region_index *x, int tensor);
/* -ESTALE names the first thing in which it differs from what is wanted. */
int region_index_match(const struct region_index *x, const struct region_index_plan *p,
		       struct err *e);

/*
 * Of `bytes` at `data`, computed by `threads` (0: every CPU, at most 16). Tells damage, resists no
 * forgery. `progress` as in struct load_opts, called from the calling thread.
 */
uint64_t region_data_sum(const void *data, size_t bytes, int threads,
			 void (*progress)(void *ctx, uint64_t done, uint64_t total), void *ctx);

/*
 * 64 bytes of every 4 KiB (sparser above 256 MiB, so that a big model costs no more): tells models
 * apart.
 */
uint64_t region_data_sample(const void *data, size_t bytes);

#endif
