// SPDX-License-Identifier: MIT
/*
 * Owns the worker threads, their barrier and the counters that work is claimed from; see pool.h.
 *
 * Sleeping and waking: a waiter announces itself in `sleepers` before it sleeps on the word that
 * it watches; a waker changes the word, then looks at `sleepers`. Both are sequentially consistent,
 * so one of the two sees the other.
 */
#include "backend/cpu/pool.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINE 128 /* two cache lines: adjacent ones are fetched together */

/* Pauses before a waiter sleeps: some 50 us at a barrier, some 200 us for the next call. */
#define SPIN_BARRIER 2000
#define SPIN_IDLE    8000

/* A word that many wait on. */
struct gate {
	_Alignas(LINE) atomic_uint word;
	atomic_uint sleepers;
};

/* Claims from one thread's share; two, used in turn (see work_begin()). */
struct claims {
	_Alignas(LINE) _Atomic int64_t next[2];
};

struct thread {
	struct worker w;
	pthread_t tid;
};

struct pool {
	struct gate start; /* word: number of calls; changes when there is something to do */
	struct gate barrier; /* word: number of barriers passed */
	_Alignas(LINE) atomic_int arrived;
	_Alignas(LINE) pool_fn fn;
	void *ctx;
	bool stop;
	int n, started;
	int spin_barrier, spin_idle;
	struct thread *thread;
	struct claims *claims; /* [n] */
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#endif
}

static void gate_wait(struct gate *g, unsigned old, int spins)
{
	for (int i = 0; i < spins; i++) {
		if (atomic_load_explicit(&g->word, memory_order_acquire) != old)
			return;
		cpu_pause();
	}
	atomic_fetch_add(&g->sleepers, 1);
	while (atomic_load(&g->word) == old)
		syscall(SYS_futex, &g->word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
	atomic_fetch_sub(&g->sleepers, 1);
}

static void gate_open(struct gate *g)
{
	atomic_fetch_add(&g->word, 1);
	if (atomic_load(&g->sleepers))
		syscall(SYS_futex, &g->word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void pool_barrier(struct worker *w)
{
	struct pool *p = w->pool;
	unsigned old;

	if (p->n == 1)
		return;
	old = atomic_load_explicit(&p->barrier.word, memory_order_relaxed);
	if (atomic_fetch_add(&p->arrived, 1) == p->n - 1) {
		atomic_store(&p->arrived, 0);
		gate_open(&p->barrier);
	} else {
		gate_wait(&p->barrier, old, p->spin_barrier);
	}
}

/*
 * Counters are used in turn: this section's were zeroed by their owners during the section before,
 * and those of the section before are free, since all threads have passed its barrier.
 */
void work_begin(struct work *k, struct worker *w, int64_t total)
{
	w->phase++;
	atomic_store_explicit(&w->pool->claims[w->id].next[(w->phase + 1) & 1], 0,
			      memory_order_relaxed);
	*k = (struct work){.w = w, .total = total};
}

/*
 * A quarter of what is left of a share at a time: long runs of memory first, single units at the
 * end, so that nobody waits long for the last one.
 */
static bool claim(_Atomic int64_t *next, int64_t size, int64_t *first, int64_t *last)
{
	int64_t at = atomic_load_explicit(next, memory_order_relaxed);

	while (at < size) {
		int64_t chunk = (size - at + 3) / 4;

		if (atomic_compare_exchange_weak_explicit(next, &at, at + chunk,
							  memory_order_relaxed,
							  memory_order_relaxed)) {
			*first = at;
			*last = at + chunk;
			return true;
		}
	}
	return false;
}

bool work_next(struct work *k)
{
	const struct worker *w = k->w;

	for (; k->victim < w->n; k->victim++) {
		int v = (w->id + k->victim) % w->n;
		int64_t begin = k->total * v / w->n, end = k->total * (v + 1) / w->n;

		if (claim(&w->pool->claims[v].next[w->phase & 1], end - begin, &k->first,
			  &k->last)) {
			k->first += begin;
			k->last += begin;
			return true;
		}
	}
	return false;
}

void work_end(struct work *k)
{
	pool_barrier(k->w);
}

static void *worker_main(void *arg)
{
	struct thread *t = arg;
	struct pool *p = t->w.pool;
	unsigned seen = 0;

	for (;;) {
		gate_wait(&p->start, seen, p->spin_idle);
		seen++;
		if (p->stop)
			return NULL;
		p->fn(p->ctx, &t->w);
		pool_barrier(&t->w);
	}
}

void pool_run(struct pool *p, pool_fn fn, void *ctx)
{
	p->fn = fn;
	p->ctx = ctx;
	if (p->n > 1)
		gate_open(&p->start);
	fn(ctx, &p->thread[0].w);
	pool_barrier(&p->thread[0].w);
}

int pool_online(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
		return CPU_COUNT(&set);
	return 1;
}

int pool_threads(const struct pool *p)
{
	return p->n;
}

/* The i-th processor that we may use, or -1. */
static int processor_at(int i)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return -1;
	for (int c = 0; c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, &set) && i-- == 0)
			return c;
	return -1;
}

/* Pinning is a matter of speed only: a refusal is not an error. The caller's thread is left alone. */
static void start_pinned(pthread_attr_t *attr, int i)
{
	int c = processor_at(i);
	cpu_set_t set;

	if (c < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(c, &set);
	pthread_attr_setaffinity_np(attr, sizeof(set), &set);
}

static int start_thread(struct pool *p, int i, bool pin)
{
	pthread_attr_t attr;
	int rc;

	if (pthread_attr_init(&attr))
		return ENOMEM;
	if (pin)
		start_pinned(&attr, i);
	rc = pthread_create(&p->thread[i].tid, &attr, worker_main, &p->thread[i]);
	pthread_attr_destroy(&attr);
	return rc;
}

int pool_create(struct pool **out, int threads, struct err *e)
{
	int online = pool_online();
	struct pool *p;
	int rc;

	*out = NULL;
	if (threads < 1 || threads > 4096)
		return err_set(e, -EINVAL, "threads: %d: give 1 to 4096", threads);
	p = aligned_alloc(LINE, (sizeof(*p) + LINE - 1) / LINE * LINE);
	if (!p)
		goto no_memory;
	memset(p, 0, sizeof(*p));
	p->n = threads;
	p->started = 1;
	p->thread = calloc(threads, sizeof(*p->thread));
	p->claims = aligned_alloc(LINE, sizeof(*p->claims) * threads);
	if (!p->thread || !p->claims)
		goto no_memory;
	memset(p->claims, 0, sizeof(*p->claims) * threads);
	/* With fewer processors than threads, whoever spins keeps another one from working. */
	p->spin_barrier = threads <= online ? SPIN_BARRIER : 0;
	p->spin_idle = threads <= online ? SPIN_IDLE : 0;
	for (int i = 0; i < threads; i++)
		p->thread[i].w = (struct worker){.id = i, .n = threads, .pool = p};
	for (int i = 1; i < threads; i++) {
		rc = start_thread(p, i, threads <= online);
		if (rc) {
			pool_destroy(p);
			return err_set(e, -rc, "thread %d of %d: %s: use fewer threads", i + 1,
				       threads, strerror(rc));
		}
		p->started++;
	}
	*out = p;
	return 0;
no_memory:
	pool_destroy(p);
	return err_set(e, -ENOMEM, "threads: out of memory: use fewer threads");
}

void pool_destroy(struct pool *p)
{
	if (!p)
		return;
	p->stop = true;
	gate_open(&p->start);
	for (int i = 1; i < p->started; i++)
		pthread_join(p->thread[i].tid, NULL);
	free(p->thread);
	free(p->claims);
	free(p);
}
