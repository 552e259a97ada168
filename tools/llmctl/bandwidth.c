// SPDX-License-Identifier: MIT
/* Read bandwidth; see bandwidth.h. Threads and memory live only during the call. */
#include "bandwidth.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define MAX_PASSES 64
/* A thread walks its share as this many streams side by side: it keeps more pages' prefetchers busy. */
#define STREAMS 4

typedef uint64_t lanes __attribute__((vector_size(64)));

struct reader {
	const uint8_t *p;
	size_t bytes; /* a multiple of 64 * STREAMS */
	int cpu;
	double start, end;
	uint64_t sink; /* keeps the loads alive */
};

/* One body for all instruction sets: a vector of 64 bytes becomes what the target has. */
#define READ_BODY                                                                                  \
	const lanes *s = (const lanes *)p;                                                         \
	size_t n = bytes / sizeof(lanes) / STREAMS;                                                \
	lanes a = {0}, b = {0}, c = {0}, d = {0};                                                  \
                                                                                                   \
	for (size_t i = 0; i < n; i++) {                                                           \
		a ^= s[i];                                                                         \
		b ^= s[n + i];                                                                     \
		c ^= s[2 * n + i];                                                                 \
		d ^= s[3 * n + i];                                                                 \
	}                                                                                          \
	a ^= b ^ c ^ d;                                                                            \
	return a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];

#if defined(__x86_64__)
__attribute__((target("avx512f"), noinline)) static uint64_t read_avx512(const uint8_t *p,
									 size_t bytes)
{
	READ_BODY
}

__attribute__((target("avx2"), noinline)) static uint64_t read_avx2(const uint8_t *p, size_t bytes)
{
	READ_BODY
}
#endif

__attribute__((noinline)) static uint64_t read_plain(const uint8_t *p, size_t bytes)
{
	READ_BODY
}

static uint64_t read_all(const uint8_t *p, size_t bytes)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f"))
		return read_avx512(p, bytes);
	if (__builtin_cpu_supports("avx2"))
		return read_avx2(p, bytes);
#endif
	return read_plain(p, bytes);
}

static const char *loads_name(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f"))
		return "AVX-512";
	if (__builtin_cpu_supports("avx2"))
		return "AVX2";
#endif
	return "plain";
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(r->cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	r->start = seconds();
	r->sink ^= read_all(r->p, r->bytes);
	r->end = seconds();
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The n-th CPU of the mask, going round. */
static int nth_cpu(const cpu_set_t *set, int n)
{
	n %= CPU_COUNT(set);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, set) && n-- == 0)
			return cpu;
	return 0;
}

/* One pass: from the first reader's start to the last one's end. Returns 0 or an errno. */
static int run_pass(struct reader *r, pthread_t *id, int threads, double *time)
{
	double start, end;
	int started = 0, rc = 0;

	for (; started < threads && !rc; started += !rc)
		rc = pthread_create(&id[started], NULL, reader_main, &r[started]);
	for (int i = 0; i < started; i++)
		pthread_join(id[i], NULL);
	start = r[0].start;
	end = r[0].end;
	for (int i = 1; i < started; i++) {
		start = r[i].start < start ? r[i].start : start;
		end = r[i].end > end ? r[i].end : end;
	}
	*time = end - start;
	return rc;
}

int bandwidth_of(struct bandwidth *b, const void *p, size_t bytes, int threads, int passes,
		 struct err *e)
{
	double times[MAX_PASSES];
	struct reader *r = NULL;
	pthread_t *id = NULL;
	cpu_set_t set;
	size_t share;
	int rc;

	if (sched_getaffinity(0, sizeof(set), &set)) {
		CPU_ZERO(&set);
		CPU_SET(0, &set);
	}
	if (threads < 1)
		threads = CPU_COUNT(&set);
	passes = passes < 1 ? 1 : passes > MAX_PASSES ? MAX_PASSES : passes;
	share = bytes / (size_t)threads / (64 * STREAMS) * (64 * STREAMS);
	bytes = share * (size_t)threads;

	r = calloc((size_t)threads, sizeof(*r));
	id = calloc((size_t)threads, sizeof(*id));
	rc = r && id ? 0 : ENOMEM;
	for (int i = 0; !rc && i < threads; i++) {
		r[i].p = (const uint8_t *)p + (size_t)i * share;
		r[i].bytes = share;
		r[i].cpu = nth_cpu(&set, i);
	}
	/* The first pass warms up; its time is overwritten. */
	for (int pass = 0; !rc && pass <= passes; pass++)
		rc = run_pass(r, id, threads, &times[pass ? pass - 1 : 0]);
	if (!rc) {
		qsort(times, (size_t)passes, sizeof(times[0]), by_value);
		b->threads = threads;
		b->bytes = bytes;
		b->passes = passes;
		b->median = (double)bytes / times[passes / 2];
		b->best = (double)bytes / times[0];
		b->loads = loads_name();
	}
	free(r);
	free(id);
	return rc ? err_set(e, -rc, "bandwidth: %s: no reader threads", strerror(rc)) : 0;
}

int bandwidth_measure(struct bandwidth *b, size_t bytes, int threads, int passes, struct err *e)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int rc;

	if (p == MAP_FAILED)
		return err_set(e, -ENOMEM, "bandwidth: %zu bytes cannot be had: free memory",
			       bytes);
	madvise(p, bytes, MADV_HUGEPAGE);
	memset(p, 1, bytes);
	rc = bandwidth_of(b, p, bytes, threads, passes, e);
	munmap(p, bytes);
	return rc;
}
