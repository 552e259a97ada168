/* SPDX-License-Identifier: MIT */
/* How fast this machine's memory can be read by its CPU: the ceiling of decoding. */
#ifndef LLMCTL_BANDWIDTH_H
#define LLMCTL_BANDWIDTH_H

#include <stddef.h>

#include "base/err.h"

struct bandwidth {
	int threads;
	size_t bytes; /* read in one pass, all threads together */
	int passes;
	double median, best; /* bytes per second of a pass */
	const char *loads; /* "AVX-512", "plain": how it was read */
};

/*
 * Each of `threads` threads (0: one per CPU of the affinity mask; pinned, one CPU each) streams its
 * share of `bytes` of anonymous memory (huge pages where they can be had), `passes` times (at most
 * 64); the first, uncounted pass warms up. -ENOMEM if the memory cannot be had.
 */
int bandwidth_measure(struct bandwidth *b, size_t bytes, int threads, int passes, struct err *e);
/* The same over memory of the caller's, 64-byte aligned and filled; a tail under 256 bytes a thread is
 * left out. */
int bandwidth_of(struct bandwidth *b, const void *p, size_t bytes, int threads, int passes,
		 struct err *e);

#endif
