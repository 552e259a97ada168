/* SPDX-License-Identifier: MIT */
/*
 * Streaming tensor data from a checkpoint's files to its place in memory.
 *
 * Reads go through io_uring: O_DIRECT, registered buffers and files, file order; each tensor is put
 * in place by one relocating copy, in which it may be repacked into a kernel's layout. Falls back to
 * pread in the worker threads where io_uring or O_DIRECT is refused; in the latter case the file's
 * pages are dropped from the page cache behind it. The ring is freed before this returns.
 *
 * Memory: besides the destination, read buffers of (depth + 2 x threads) blocks, given back as
 * fewer blocks are left to be read: together never more than the tensors and a few blocks.
 */
#ifndef LLMDEV_LOAD_H
#define LLMDEV_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/checkpoint.h"

/*
 * A layout for one matrix: groups of `group_rows` consecutive rows are converted as a unit.
 * pack() gets `rows` (1 .. group_rows; fewer only in the last group of a matrix) source rows of
 * `cols` elements in checkpoint format, contiguous and aligned to 4 bytes, and writes exactly
 * `group_bytes` at dst (256-byte aligned if group_bytes is a multiple of 256, else as it falls).
 * Called from the loader's worker threads: pure function of its arguments. pack == NULL: plain copy,
 * group_bytes = the row's bytes.
 */
struct weight_pack {
	int group_rows;
	size_t group_bytes;
	void (*pack)(void *dst, const void *src, int rows, int64_t cols, enum dtype type);
};

struct load_item {
	const struct tensor_info *t;
	void *dst;              /* 64-byte aligned at least; holds every group of every matrix */
	int64_t count;          /* stacked matrices in the tensor (experts), 1 otherwise */
	int64_t rows, cols;     /* of one matrix; count * rows * cols == product of t->dims */
	struct weight_pack pack;
	size_t stride;          /* bytes from one matrix's first group to the next's at dst */
};

struct load_opts {
	int block_bytes;        /* read size, default 1 MiB */
	int depth;              /* reads in flight, default 64 */
	bool no_direct;         /* tests: buffered reads */
	bool no_uring;          /* tests: pread; buffered reads never use io_uring */
	int threads;            /* that repack; default: online CPUs, at most 4 */
	/* called now and then from the calling thread; may be NULL */
	void (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};

struct load_stats {
	uint64_t bytes_read;    /* from the files, padding of aligned reads included */
	uint64_t bytes_tensors;
	double seconds;
	const char *method;     /* "io_uring O_DIRECT", "pread O_DIRECT", "pread"; a constant */
};

/* Items may be in any order and from several files; each file range is read once. */
int weights_load(const struct checkpoint *c, const struct load_item *items, int n_items,
		 const struct load_opts *o, struct load_stats *st, struct err *e);

#endif
