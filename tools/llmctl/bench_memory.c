// SPDX-License-Identifier: MIT
/* Read bandwidth by kind of memory; see bench_memory.h. One kind's memory is there at a time. */
#include "bench_memory.h"

#include <errno.h>
#include <fcntl.h>
#include "llm.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bandwidth.h"
#include "weights/placement.h"

#define HUGE	    ((size_t)2 << 20)
#define DEFAULT_MAX ((size_t)1 << 30)
#define PASSES	    3 /* of a round; its figure is their median */

const char *const memory_kind_names[MEMORY_KINDS] = {
	[MEMORY_4K] = "anonymous, small pages",
	[MEMORY_2M] = "anonymous, huge pages",
	[MEMORY_HUGETLB] = "hugetlb",
	[MEMORY_MEMFD] = "memfd",
	[MEMORY_REGION] = "region",
	[MEMORY_REGISTERED] = "registered with the GPU",
	[MEMORY_DEVICE] = "device memory",
};

/* Memory of one kind. */
struct block {
	uint8_t *map, *p; /* p: 2 MiB aligned within */
	size_t mapped, bytes;
	int fd; /* -1: none */
};

static void block_free(struct block *b)
{
	if (b->map)
		munmap(b->map, b->mapped);
	if (b->fd >= 0)
		close(b->fd);
	*b = (struct block){.fd = -1};
}

static int map_anonymous(struct block *b, int advice, struct err *e)
{
	b->mapped = b->bytes + HUGE;
	b->map = mmap(NULL, b->mapped, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b->map == MAP_FAILED) {
		b->map = NULL;
		return err_set(e, -errno, "%s", strerror(errno));
	}
	b->p = (uint8_t *)(((uintptr_t)b->map + HUGE - 1) & ~(HUGE - 1));
	madvise(b->map, b->mapped, advice);
	return 0;
}

/* Of a file, or hugetlb: at an aligned address, so that it can be mapped in huge pages. */
static int map_shared(struct block *b, int flags, struct err *e)
{
	size_t span = b->bytes + HUGE;
	uint8_t *room =
		mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *at = (uint8_t *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));
	int rc;

	if (room == MAP_FAILED)
		return err_set(e, -errno, "%s", strerror(errno));
	b->p = mmap(at, b->bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, b->fd, 0);
	rc = b->p == MAP_FAILED ? -errno : 0;
	/* What lies around it is given back; it is then a mapping of its own. */
	if (rc) {
		munmap(room, span);
		return err_set(e, rc, "%s", strerror(-rc));
	}
	munmap(room, (size_t)(at - room));
	munmap(at + b->bytes, span - b->bytes - (size_t)(at - room));
	b->map = b->p;
	b->mapped = b->bytes;
	return 0;
}

static int make_region(struct block *b, const char *control, struct err *e)
{
	struct llm_region_create c = {.size = sizeof(c), .bytes = b->bytes, .node = -1};
	int fd = open(control, O_RDWR | O_CLOEXEC), rc;

	if (fd < 0)
		return err_set(e, -errno,
			       errno == ENOENT ? "%s: not there: the module is not loaded"
			       : errno == EACCES
				       ? "%s: no right to it: be in the group llmdev-admin, or root"
				       : "%s: cannot be opened",
			       control);
	snprintf((char *)c.name, sizeof(c.name), "llmctl-bench-%d", getpid());
	rc = ioctl(fd, LLM_IOC_REGION_CREATE, &c) ? -errno : 0;
	close(fd);
	if (rc)
		return err_set(e, rc, "%s: %s", control,
			       rc == -ENOTTY   ? "this module has no regions"
			       : rc == -ENOMEM ? "no memory for it, or the limit of locked memory"
					       : strerror(-rc));
	b->fd = c.fd;
	return map_shared(b, MAP_SHARED, e);
}

static int block_make(struct block *b, enum memory_kind kind, size_t bytes, const char *control,
		      struct err *e)
{
	int rc;

	*b = (struct block){.fd = -1, .bytes = bytes};
	switch (kind) {
	case MEMORY_4K:
		rc = map_anonymous(b, MADV_NOHUGEPAGE, e);
		break;
	case MEMORY_HUGETLB:
		rc = map_shared(b,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (21 << MAP_HUGE_SHIFT),
				e);
		if (rc)
			err_set(e, rc, "not enough free pages: sysctl -w vm.nr_hugepages=%zu",
				bytes / HUGE);
		break;
	case MEMORY_MEMFD:
		b->fd = memfd_create("llmctl-bench", MFD_CLOEXEC);
		rc = b->fd < 0 || ftruncate(b->fd, (off_t)bytes)
			     ? err_set(e, -errno, "%s", strerror(errno))
			     : map_shared(b, MAP_SHARED, e);
		break;
	case MEMORY_REGION:
		rc = make_region(b, control, e);
		break;
	default:
		rc = map_anonymous(b, MADV_HUGEPAGE, e);
	}
	if (rc)
		block_free(b);
	else
		memset(b->p, 1, bytes);
	return rc;
}

/* Bytes of the mapping at p that are in huge pages, from smaps. */
static size_t huge_bytes(const struct block *b)
{
	static const char *const keys[] = {"AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:",
					   "Private_Hugetlb:", "Shared_Hugetlb:"};
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long from, to;
	bool inside = false;
	size_t sum = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = (uintptr_t)b->map < to && from < (uintptr_t)b->map + b->mapped;
		for (size_t i = 0; inside && i < sizeof(keys) / sizeof(keys[0]); i++)
			if (!strncmp(line, keys[i], strlen(keys[i])))
				sum += strtoull(line + strlen(keys[i]), NULL, 10) << 10;
	}
	if (f)
		fclose(f);
	return sum < b->bytes ? sum : b->bytes;
}

/* ---- one row ---------------------------------------------------------------------------------- */

static void read_device(struct memory_bench *b, struct gpu *g, struct memory_row *r)
{
	struct err e;
	uint64_t p = gpu_alloc(g, b->bytes, &e);
	double rate = p ? gpu_read(g, p, b->bytes, PASSES, &e) : 0;

	gpu_free(g, p);
	if (rate > 0)
		r->gpu[r->n_gpu++] = rate;
	else
		snprintf(r->missing, sizeof(r->missing), "%s", e.msg);
}

static void read_by_gpu(struct memory_bench *b, struct gpu *g, struct memory_row *r,
			enum memory_kind kind, const struct block *m)
{
	bool direct = gpu_facts(g)->pageable && kind != MEMORY_REGISTERED;
	struct err e = {""};
	uint64_t at = direct ? (uintptr_t)m->p : gpu_register(g, m->p, m->bytes, &e);
	double rate = at ? gpu_read(g, at, m->bytes, PASSES, &e) : 0;

	if (at && !direct)
		gpu_unregister(g, m->p);
	if (rate > 0)
		r->gpu[r->n_gpu++] = rate;
	else
		snprintf(r->gpu_missing, sizeof(r->gpu_missing), "%s", e.msg);
}

static void measure(struct memory_bench *b, struct gpu *g, enum memory_kind kind)
{
	struct memory_row *r = &b->row[kind];
	struct bandwidth w;
	struct block m;
	struct err e;

	if (r->missing[0])
		return;
	if (!g && (kind == MEMORY_REGISTERED || kind == MEMORY_DEVICE)) {
		snprintf(r->missing, sizeof(r->missing), "%s", b->no_gpu);
		return;
	}
	if (kind == MEMORY_DEVICE) {
		read_device(b, g, r);
		return;
	}
	if (block_make(&m, kind, b->bytes, b->control, &e)) {
		snprintf(r->missing, sizeof(r->missing), "%s", e.msg);
		return;
	}
	r->huge_bytes = huge_bytes(&m);
	if (bandwidth_of(&w, m.p, m.bytes, b->threads, PASSES, &e)) {
		snprintf(r->missing, sizeof(r->missing), "%s", e.msg);
	} else {
		r->cpu[r->n_cpu++] = w.median;
		b->used_threads = w.threads;
		b->loads = w.loads;
	}
	if (g)
		read_by_gpu(b, g, r, kind, &m);
	block_free(&m);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double memory_median(const double *v, int n)
{
	return !n ? 0 : n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

int memory_bench(struct memory_bench *b, struct err *e)
{
	uint64_t available = placement_available();
	struct gpu *g = NULL;
	struct err why;
	int rc = 0;

	if (!b->bytes)
		b->bytes = available / 8 < DEFAULT_MAX ? available / 8 : DEFAULT_MAX;
	b->bytes &= ~(HUGE - 1);
	if (!b->bytes || b->bytes > available / 10 * 9)
		return err_set(
			e, -ENOMEM,
			"bench memory: %zu MiB of each kind, and %llu MiB are available: give a "
			"smaller --size",
			b->bytes >> 20, (unsigned long long)(available >> 20));
	b->has_gpu = !gpu_open(&g, &why);
	if (b->has_gpu)
		b->gpu = *gpu_facts(g);
	else
		snprintf(b->no_gpu, sizeof(b->no_gpu), "%s", why.msg);
	for (int i = 0; !rc && i < b->rounds * MEMORY_KINDS; i++) {
		if (b->progress && !b->progress(i, b->rounds * MEMORY_KINDS))
			rc = err_set(e, -EINTR, "bench memory: interrupted");
		else
			measure(b, g, (enum memory_kind)(i % MEMORY_KINDS));
	}
	gpu_close(g);
	for (int k = 0; k < MEMORY_KINDS; k++) {
		struct memory_row *r = &b->row[k];

		qsort(r->cpu, (size_t)r->n_cpu, sizeof(r->cpu[0]), by_value);
		qsort(r->gpu, (size_t)r->n_gpu, sizeof(r->gpu[0]), by_value);
	}
	return rc;
}

/* ---- JSON ------------------------------------------------------------------------------------- */

static void put_rates(json_t *j, const char *key, const double *v, int n)
{
	if (n)
		json_object_set_new(j, key,
				    json_pack("{sf sf sf}", "median", memory_median(v, n), "low",
					      v[0], "high", v[n - 1]));
}

json_t *memory_bench_json(const struct memory_bench *b)
{
	json_t *rows = json_array(), *j;

	for (int k = 0; k < MEMORY_KINDS; k++) {
		const struct memory_row *r = &b->row[k];

		j = json_pack("{ss}", "memory", memory_kind_names[k]);
		if (r->missing[0])
			json_object_set_new(j, "missing", json_string(r->missing));
		if (r->n_cpu)
			json_object_set_new(j, "huge_bytes",
					    json_integer((json_int_t)r->huge_bytes));
		put_rates(j, "cpu_bytes_per_s", r->cpu, r->n_cpu);
		put_rates(j, "gpu_bytes_per_s", r->gpu, r->n_gpu);
		if (r->gpu_missing[0])
			json_object_set_new(j, "gpu_missing", json_string(r->gpu_missing));
		json_array_append_new(rows, j);
	}
	j = json_pack("{ss sI si si ss? so}", "bench", "memory", "bytes", (json_int_t)b->bytes,
		      "threads", b->used_threads, "rounds", b->rounds, "loads", b->loads, "rows",
		      rows);
	json_object_set_new(j, "gpu", b->has_gpu ? gpu_json(&b->gpu) : json_null());
	if (!b->has_gpu)
		json_object_set_new(j, "no_gpu", json_string(b->no_gpu));
	return j;
}
