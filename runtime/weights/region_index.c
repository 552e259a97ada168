// SPDX-License-Identifier: MIT
/* Writing, reading and comparing the index of a region of weights; see region_index.h. No state. */
#include "weights/region_index.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fnv.h"

#define DATA_ALIGN  4096u
#define MAX_THREADS 16
#define SUM_CHUNK   ((size_t)4 << 20)

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

uint64_t region_item_bytes(const struct load_item *item)
{
	uint64_t matrix =
		item->pack.pack ? (((uint64_t)item->rows - 1) / (uint64_t)item->pack.group_rows +
				   1) * item->pack.group_bytes
				: dtype_row_bytes(item->t->type, item->cols) * (uint64_t)item->rows;

	return ((uint64_t)item->count - 1) * item->stride + matrix;
}

/* ---- sums ------------------------------------------------------------------------------------------- */

#define SUM_PRIME_1 0x9e3779b185ebca87ull
#define SUM_PRIME_2 0xc2b2ae3d27d4eb4full

static uint64_t rotate(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

/*
 * Four lanes, so that the multiplications overlap: as fast as memory. Each step is a bijection of the
 * lane, so that no single changed word goes unseen.
 */
static uint64_t sum_chunk(const uint8_t *p, size_t n, uint64_t seed)
{
	uint64_t lane[4] = {seed, seed + SUM_PRIME_1, seed ^ SUM_PRIME_2, ~seed}, h;
	size_t i = 0;

	for (; i + 32 <= n; i += 32) {
		uint64_t w[4];

		memcpy(w, p + i, 32);
		for (int j = 0; j < 4; j++)
			lane[j] = rotate((lane[j] ^ w[j]) * SUM_PRIME_1, 31);
	}
	h = n;
	for (int j = 0; j < 4; j++)
		h = rotate(h ^ lane[j], 27) * SUM_PRIME_2;
	for (; i < n; i++)
		h = (h ^ p[i]) * SUM_PRIME_1;
	h ^= h >> 29;
	return h * SUM_PRIME_2;
}

struct summing {
	const uint8_t *data;
	size_t bytes, n_chunks;
	uint64_t *sum;
	atomic_size_t next, done;
};

static void sum_some(struct summing *s, size_t most)
{
	while (most--) {
		size_t i = atomic_fetch_add(&s->next, 1), at = i * SUM_CHUNK;

		if (i >= s->n_chunks)
			return;
		s->sum[i] = sum_chunk(s->data + at,
				      s->bytes - at < SUM_CHUNK ? s->bytes - at : SUM_CHUNK, i);
		atomic_fetch_add(&s->done, 1);
	}
}

static void *sum_worker(void *arg)
{
	sum_some(arg, SIZE_MAX);
	return NULL;
}

static int cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
}

uint64_t region_data_sum(const void *data, size_t bytes, int threads,
			 void (*progress)(void *ctx, uint64_t done, uint64_t total), void *ctx)
{
	struct summing s = {.data = data,
			    .bytes = bytes,
			    .n_chunks = (bytes + SUM_CHUNK - 1) / SUM_CHUNK};
	pthread_t worker[MAX_THREADS];
	sigset_t all, old;
	uint64_t h = FNV_START;
	int n = 0;

	threads = threads > 0 ? threads : cpus();
	if (threads > MAX_THREADS)
		threads = MAX_THREADS;
	s.sum = calloc(s.n_chunks + 1, sizeof(*s.sum));
	if (!s.sum) {
		/* Without memory for the parts: one after the other. */
		for (size_t i = 0; i < s.n_chunks; i++) {
			size_t at = i * SUM_CHUNK;
			uint64_t one =
				sum_chunk(s.data + at,
					  bytes - at < SUM_CHUNK ? bytes - at : SUM_CHUNK, i);

			h = fnv1a(h, &one, sizeof(one));
		}
		return h;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (n < threads - 1 && (size_t)n + 1 < s.n_chunks &&
	       !pthread_create(&worker[n], NULL, sum_worker, &s))
		n++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	while (atomic_load(&s.next) < s.n_chunks) {
		sum_some(&s, 8);
		if (progress)
			progress(ctx, atomic_load(&s.done), s.n_chunks);
	}
	while (n)
		pthread_join(worker[--n], NULL);
	for (size_t i = 0; i < s.n_chunks; i++)
		h = fnv1a(h, &s.sum[i], sizeof(s.sum[i]));
	free(s.sum);
	return h;
}

uint64_t region_data_sample(const void *data, size_t bytes)
{
	size_t step = bytes >> 16 > 4096 ? bytes >> 16 & ~63ul : 4096;
	const uint8_t *p = data;
	uint64_t h = FNV_START;

	for (size_t at = 0; at < bytes; at += step)
		h = fnv1a(h, p + at, bytes - at < 64 ? bytes - at : 64);
	return h;
}

uint64_t region_index_sum(const void *base, uint64_t bytes)
{
	struct region_head h = *(const struct region_head *)base;

	h.head_sum = 0;
	return sum_chunk((const uint8_t *)base + sizeof(h), bytes - sizeof(h),
			 sum_chunk((const uint8_t *)&h, sizeof(h), 0));
}

/* ---- writing ------------------------------------------------------------------------------------------ */

static uint64_t strings_bytes(const struct region_index_plan *p)
{
	uint64_t n = strlen(p->label) + 1 + strlen(p->path) + 1;

	for (int i = 0; i < p->n_items; i++)
		n += strlen(p->items[i].t->name) + 1;
	return n;
}

size_t region_index_space(const struct region_index_plan *p)
{
	return round_up(sizeof(struct region_head) +
				(uint64_t)p->n_items * sizeof(struct region_tensor) +
				strings_bytes(p),
			DATA_ALIGN);
}

static uint32_t put_string(char *base, uint64_t *at, const char *s)
{
	uint32_t where = (uint32_t)*at;

	memcpy(base + *at, s, strlen(s) + 1);
	*at += strlen(s) + 1;
	return where;
}

/* As much of it as there is room for; zeroes after it. */
static void put_word(char to[16], const char *s)
{
	memset(to, 0, 16);
	memcpy(to, s, strnlen(s, 15));
}

void region_index_write(void *base, const struct region_index_plan *p, uint64_t data_sum,
			uint64_t sample)
{
	struct region_head *h = base;
	struct region_tensor *t;
	uint64_t at;

	*h = (struct region_head){
		.magic = REGION_INDEX_MAGIC,
		.version = REGION_INDEX_VERSION,
		.n_tensors = (uint32_t)p->n_items,
		.tensors_at = sizeof(*h),
		.strings_at = sizeof(*h) + (uint64_t)p->n_items * sizeof(*t),
		.data_at = region_index_space(p),
		.data_bytes = p->data_bytes,
		.identity = p->identity,
		.stamp = p->stamp,
		.data_sum = data_sum,
		.sample = sample,
		.loaded_at = time(NULL),
	};
	h->index_bytes = h->strings_at + strings_bytes(p);
	put_word(h->backend, p->backend);
	put_word(h->isa, p->isa);
	at = h->strings_at;
	h->label = put_string(base, &at, p->label);
	h->path = put_string(base, &at, p->path);
	t = (struct region_tensor *)((char *)base + h->tensors_at);
	for (int i = 0; i < p->n_items; i++) {
		const struct load_item *it = &p->items[i];

		t[i] = (struct region_tensor){
			.offset = p->offsets[i],
			.bytes = region_item_bytes(it),
			.count = it->count,
			.rows = it->rows,
			.cols = it->cols,
			.stride = it->stride,
			.group_bytes = it->pack.group_bytes,
			.layout = p->layouts[i],
			.group_rows = (uint32_t)it->pack.group_rows,
			.type = (uint32_t)it->t->type,
			.name = put_string(base, &at, it->t->name),
		};
	}
	h->head_sum = region_index_sum(base, h->index_bytes);
}

/* ---- reading -------------------------------------------------------------------------------------------- */

static int damaged(struct err *e, const char *what)
{
	return err_set(e, -EINVAL, "index: %s: this region does not hold weights, or is damaged",
		       what);
}

static bool is_string(const struct region_head *h, uint32_t at)
{
	return at >= h->strings_at && at < h->index_bytes;
}

int region_index_read(struct region_index *out, const void *base, size_t bytes, struct err *e)
{
	const struct region_head *h = base;
	const char *chars = base;

	if (bytes < sizeof(*h) || memcmp(h->magic, REGION_INDEX_MAGIC, sizeof(h->magic)))
		return damaged(e, "no magic");
	if (h->version != REGION_INDEX_VERSION)
		return err_set(e, -EINVAL, "index: version %u, this program knows %d", h->version,
			       REGION_INDEX_VERSION);
	if (h->index_bytes > bytes || h->index_bytes > REGION_INDEX_MAX ||
	    h->index_bytes < sizeof(*h) || h->tensors_at != sizeof(*h) ||
	    h->n_tensors > (h->index_bytes - sizeof(*h)) / sizeof(struct region_tensor) ||
	    h->strings_at != sizeof(*h) + h->n_tensors * sizeof(struct region_tensor) ||
	    h->strings_at >= h->index_bytes)
		return damaged(e, "its parts do not fit together");
	if (h->data_at % DATA_ALIGN || h->data_at < h->index_bytes || h->data_at > bytes ||
	    h->data_bytes > bytes - h->data_at)
		return damaged(e, "the data is not inside the region");
	if (region_index_sum(base, h->index_bytes) != h->head_sum)
		return damaged(e, "its sum is wrong");
	if (chars[h->index_bytes - 1] || !is_string(h, h->label) || !is_string(h, h->path) ||
	    h->backend[15] || h->isa[15])
		return damaged(e, "a string has no end");
	*out = (struct region_index){.head = h,
				     .tensor = (const void *)(chars + h->tensors_at),
				     .label = chars + h->label,
				     .path = chars + h->path};
	for (uint32_t i = 0; i < h->n_tensors; i++) {
		const struct region_tensor *t = &out->tensor[i];

		if (!is_string(h, t->name))
			return damaged(e, "a string has no end");
		if (t->offset > h->data_bytes || t->bytes > h->data_bytes - t->offset)
			return damaged(e, "a tensor is not inside the data");
	}
	return 0;
}

const char *region_index_name(const struct region_index *x, int tensor)
{
	return (const char *)x->head + x->tensor[tensor].name;
}

static int differs(struct err *e, const char *what)
{
	return err_set(e, -ESTALE, "%s differs", what);
}

int region_index_match(const struct region_index *x, const struct region_index_plan *p,
		       struct err *e)
{
	const struct region_head *h = x->head;
	char backend[16], isa[16];

	put_word(backend, p->backend);
	put_word(isa, p->isa);
	if (memcmp(backend, h->backend, 16) || memcmp(isa, h->isa, 16))
		return differs(e, "the backend");
	if (h->identity != p->identity)
		return differs(e, "the checkpoint's header");
	if (h->stamp != p->stamp)
		return err_set(e, -ESTALE, "the checkpoint's files have changed");
	if (h->data_bytes != p->data_bytes || h->data_at != region_index_space(p) ||
	    h->n_tensors != (uint32_t)p->n_items)
		return differs(e, "its size");
	for (int i = 0; i < p->n_items; i++) {
		const struct region_tensor *t = &x->tensor[i];
		const struct load_item *it = &p->items[i];

		if (strcmp(region_index_name(x, i), it->t->name) || t->offset != p->offsets[i] ||
		    t->bytes != region_item_bytes(it) || t->count != it->count ||
		    t->rows != it->rows || t->cols != it->cols || t->stride != it->stride ||
		    t->group_bytes != it->pack.group_bytes ||
		    t->group_rows != (uint32_t)it->pack.group_rows ||
		    t->type != (uint32_t)it->t->type || t->layout != p->layouts[i])
			return err_set(e, -ESTALE, "tensor %s lies differently", it->t->name);
	}
	return 0;
}
