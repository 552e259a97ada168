/* SPDX-License-Identifier: MIT */
/*
 * The thread pool: n threads (the caller is thread 0) that run one function together, meet at
 * barriers in it, and share out work by stealing.
 *
 * The function is the same on every thread and takes the same path; work_begin() and work_end()
 * come in pairs, in the same order, on all of them. Which thread does a unit never shows in its
 * result: units write disjoint memory. Waiting spins for a bounded time, then sleeps in a futex,
 * so that more threads than processors are slow but not ruinous. Nothing here allocates after
 * pool_create().
 */
#ifndef LLMDEV_CPU_POOL_H
#define LLMDEV_CPU_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct pool;

struct worker {
	int id, n;
	struct pool *pool;
	unsigned phase; /* work_begin() calls so far, modulo 2^32 */
};

typedef void (*pool_fn)(void *ctx, struct worker *w);

/* Processors that the calling thread may run on. */
int pool_online(void);
/* Workers are pinned to one processor each if there are enough of them. */
int pool_create(struct pool **out, int threads, struct err *e);
void pool_destroy(struct pool *p);
int pool_threads(const struct pool *p);
/* Run fn on every thread; returns when all are done. One caller at a time. */
void pool_run(struct pool *p, pool_fn fn, void *ctx);

void pool_barrier(struct worker *w);

/* Units 0 .. total-1: each thread begins with its own contiguous share, then takes from others'. */
struct work {
	struct worker *w;
	int64_t total;
	int victim; /* shares tried so far */
	int64_t first, last; /* the units at hand: first <= u < last */
};

void work_begin(struct work *k, struct worker *w, int64_t total);
/* False when nothing is left to take (others may still be at theirs). */
bool work_next(struct work *k);
/* A barrier: every unit is done. */
void work_end(struct work *k);

#endif
