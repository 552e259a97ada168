// SPDX-License-Identifier: MIT
/* Reads and attributes memory; see meminfo.h. Owns nothing. */
#include "memory/meminfo.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct mem_part_text mem_part_text[N_MEM_PARTS] = {
	[MEM_FREE] = {"free", "free", "MemFree: what GPU drivers can take at once"},
	[MEM_FREE_CPU] = {"free_cpu_lists", "free, per CPU", "in the lists of single CPUs"},
	[MEM_CACHE_CLEAN] = {"cache_clean", "page cache, clean", "given back when asked for"},
	[MEM_CACHE_MAPPED] = {"cache_mapped", "page cache, mapped", "programs, files in use"},
	[MEM_CACHE_DIRTY] = {"cache_dirty", "page cache, dirty", "has to be written first"},
	[MEM_ANON] = {"anon", "anonymous", "heaps and stacks of processes"},
	[MEM_SWAP_CACHE] = {"swap_cache", "swap cache", "on its way from or to swap"},
	[MEM_SHMEM] = {"shmem", "shared memory", "tmpfs, memfd, System V"},
	[MEM_REGIONS] = {"regions", "regions", "weights that the module llm keeps"},
	[MEM_RESERVE] = {"reserve", "reserve", "held by the module llm until needed"},
	[MEM_HUGETLB] = {"hugetlb", "hugetlb", "set aside, used or not"},
	[MEM_SLAB_RECLAIMABLE] = {"slab_reclaimable", "slab, reclaimable", "inodes, dentries"},
	[MEM_SLAB] = {"slab_unreclaimable", "slab, other", "the kernel's own objects"},
	[MEM_DRIVER_RECLAIMABLE] = {"driver_reclaimable", "driver pools", "that shrink when asked"},
	[MEM_PAGE_TABLES] = {"page_tables", "page tables", ""},
	[MEM_KERNEL_STACKS] = {"kernel_stacks", "kernel stacks", ""},
	[MEM_PERCPU] = {"percpu", "per-CPU data", ""},
	[MEM_VMALLOC] = {"vmalloc", "vmalloc", "modules and drivers, counted"},
	[MEM_COMPRESSED] = {"compressed", "zswap, zram", ""},
	[MEM_BALLOON] = {"balloon", "balloon", "taken by the hypervisor"},
	[MEM_GPU] = {"gpu_counted", "GPU, counted", "by its driver"},
	[MEM_REMAINDER] = {"remainder", "remainder", "in no counter: GPU and other drivers' pages"},
};

/* ---- small files ----------------------------------------------------------------------------- */

static FILE *open_below(const char *root, const char *path)
{
	char full[4096];

	if (snprintf(full, sizeof(full), "%s%s", root, path) >= (int)sizeof(full)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	return fopen(full, "re");
}

struct field {
	const char *name;
	uint64_t *value;
	bool needed, found;
};

/* "Name:   123 kB" lines to bytes. `unit`: of a number without "kB". */
static int read_fields(const char *root, const char *path, struct field *f, size_t n, uint64_t unit,
		       struct err *e)
{
	FILE *file = open_below(root, path);
	char line[256], name[64], suffix[8];
	unsigned long long v;
	int rc = 0;

	if (!file)
		return err_set(e, -errno, "%s%s: %s: memory cannot be accounted for", root, path,
			       strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		suffix[0] = '\0';
		if (sscanf(line, "%63[^: ]%*[: ]%llu %7s", name, &v, suffix) < 2)
			continue;
		for (size_t i = 0; i < n; i++) {
			uint64_t scale = !strcmp(suffix, "kB") ? 1024 : unit;

			if (strcmp(name, f[i].name))
				continue;
			if (v > (UINT64_MAX >> 4) / scale) {
				rc = err_set(e, -EINVAL,
					     "%s%s: %s: %llu: more than any machine has", root,
					     path, name, v);
				continue;
			}
			*f[i].value = v * scale;
			f[i].found = true;
		}
	}
	fclose(file);
	for (size_t i = 0; !rc && i < n; i++)
		if (f[i].needed && !f[i].found)
			rc = err_set(e, -EINVAL, "%s%s: no line %s: is that a Linux /proc?", root,
				     path, f[i].name);
	return rc;
}

/* Free blocks of 2 MiB: "Node 0, zone Normal n0 n1 n2 ...": n_k pieces of 2^k pages. */
static bool read_blocks(const char *root, size_t page, uint64_t *blocks)
{
	FILE *file = open_below(root, "/proc/buddyinfo");
	char line[512];
	int order = 0;

	*blocks = 0;
	if (!file)
		return false;
	while ((uint64_t)page << order < MEM_BLOCK)
		order++;
	while (fgets(line, sizeof(line), file)) {
		char *s = strstr(line, "zone"), *end;

		if (!s)
			continue;
		s += 4;
		while (isspace((unsigned char)*s))
			s++;
		while (*s && !isspace((unsigned char)*s)) /* the zone's name */
			s++;
		for (int k = 0; k < 32; k++, s = end) {
			unsigned long long n = strtoull(s, &end, 10);

			if (end == s)
				break;
			if (k >= order && n < UINT32_MAX)
				*blocks += n << (k - order);
		}
	}
	fclose(file);
	return true;
}

/* Pages in the lists of single CPUs: "count: N" below each "pagesets". */
static uint64_t read_cpu_lists(const char *root, size_t page)
{
	FILE *file = open_below(root, "/proc/zoneinfo");
	unsigned long long v, pages = 0;
	bool inside = false;
	char line[256];

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		if (strstr(line, "pagesets"))
			inside = true;
		else if (!strncmp(line, "Node", 4))
			inside = false;
		else if (inside && sscanf(line, " count: %llu", &v) == 1 && v < UINT32_MAX)
			pages += v;
	}
	fclose(file);
	return pages * page;
}

/* ---- mapped files and mapped shmem ----------------------------------------------------------- */

struct rss {
	uint64_t file_max, shmem_sum;
};

/*
 * "Mapped" counts both. What processes have of either (RssFile, RssShmem) counts shared pages once
 * each, and lags behind by some pages: bounds, not values.
 */
static void read_rss(const char *root, struct rss *r)
{
	char path[512];
	struct dirent *d;
	DIR *dir;

	*r = (struct rss){0};
	snprintf(path, sizeof(path), "%.400s/proc", root);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		uint64_t file = 0, shmem = 0;
		struct field f[] = {{"RssFile", &file}, {"RssShmem", &shmem}};

		if (!isdigit((unsigned char)d->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%.32s/status", d->d_name);
		if (read_fields(root, path, f, 2, 1024, NULL))
			continue;
		r->shmem_sum += shmem;
		if (file > r->file_max)
			r->file_max = file;
	}
	if (dir)
		closedir(dir);
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t mapped_files(const char *root, uint64_t mapped, uint64_t shmem, uint64_t files)
{
	struct rss r;
	uint64_t m;

	if (!shmem || !mapped)
		return less(mapped, files);
	read_rss(root, &r);
	m = minus(mapped, less(shmem, r.shmem_sum));
	if (m < r.file_max)
		m = r.file_max;
	return less(less(m, mapped), files);
}

/* ---- the sum --------------------------------------------------------------------------------- */

/* Taken off in this order where the counters go over MemTotal: these vary fastest. */
static const enum mem_part give[] = {MEM_CACHE_CLEAN,  MEM_FREE_CPU, MEM_ANON,
				     MEM_CACHE_MAPPED, MEM_SHMEM,    MEM_FREE};

static void close_sum(struct mem_info *m)
{
	uint64_t sum = 0, over;

	for (int i = 0; i < MEM_REMAINDER; i++)
		sum += m->part[i];
	m->part[MEM_REMAINDER] = minus(m->total, sum);
	m->overlap = over = minus(sum, m->total);
	for (size_t i = 0; over && i < sizeof(give) / sizeof(give[0]); i++) {
		uint64_t take = less(over, m->part[give[i]]);

		m->part[give[i]] -= take;
		over -= take;
	}
	for (int i = 0; over && i < MEM_REMAINDER; i++) {
		uint64_t take = less(over, m->part[i]);

		m->part[i] -= take;
		over -= take;
	}
}

int mem_info_read(struct mem_info *m, const char *root, size_t page, const struct mem_held *held,
		  struct err *e)
{
	static const struct mem_held none;
	uint64_t free = 0, buffers = 0, cached = 0, swap_cached = 0, dirty = 0, writeback = 0,
		 anon = 0, mapped = 0, shmem = 0, reclaimable = 0, slab_r = 0, slab_u = 0,
		 stacks = 0, shadow = 0, tables = 0, tables2 = 0, vmalloc = 0, percpu = 0,
		 hugetlb = 0, balloon = 0, gpu = 0, gpu_pool = 0, active = 0, inactive = 0,
		 zspages = 0, files, rest;
	struct field f[] = {
		{"MemTotal", &m->total, true},
		{"MemFree", &free, true},
		{"MemAvailable", &m->available},
		{"Buffers", &buffers, true},
		{"Cached", &cached, true},
		{"SwapCached", &swap_cached},
		{"Active(anon)", &active},
		{"Inactive(anon)", &inactive},
		{"SwapTotal", &m->swap_total},
		{"SwapFree", &m->swap_free},
		{"Dirty", &dirty},
		{"Writeback", &writeback},
		{"AnonPages", &anon, true},
		{"Mapped", &mapped, true},
		{"Shmem", &shmem, true},
		{"KReclaimable", &reclaimable},
		{"SReclaimable", &slab_r, true},
		{"SUnreclaim", &slab_u, true},
		{"KernelStack", &stacks},
		{"ShadowCallStack", &shadow},
		{"PageTables", &tables},
		{"SecPageTables", &tables2},
		{"VmallocUsed", &vmalloc},
		{"Percpu", &percpu},
		{"Hugetlb", &hugetlb},
		{"Balloon", &balloon},
		{"GPUActive", &gpu},
		{"GPUReclaim", &gpu_pool},
	};
	struct field v[] = {{"nr_zspages", &zspages}};
	int rc;

	*m = (struct mem_info){0};
	if (!held)
		held = &none;
	rc = read_fields(root, "/proc/meminfo", f, sizeof(f) / sizeof(f[0]), 1, e);
	if (rc)
		return rc;
	if (!m->total || free > m->total)
		return err_set(e, -EINVAL,
			       "%s/proc/meminfo: MemTotal and MemFree contradict each other", root);
	read_fields(root, "/proc/vmstat", v, 1, page, NULL);
	m->blocks_known = read_blocks(root, page, &m->free_blocks);

	files = m->cached = minus(buffers + cached, shmem);
	m->dirty = less(dirty + writeback, files);
	rest = shmem;
	m->part[MEM_FREE] = free;
	m->part[MEM_FREE_CPU] = read_cpu_lists(root, page);
	m->part[MEM_CACHE_MAPPED] = mapped_files(root, mapped, shmem, files);
	m->part[MEM_CACHE_DIRTY] = less(m->dirty, files - m->part[MEM_CACHE_MAPPED]);
	m->part[MEM_CACHE_CLEAN] = files - m->part[MEM_CACHE_MAPPED] - m->part[MEM_CACHE_DIRTY];
	m->part[MEM_ANON] = anon;
	/* Mapped pages of the swap cache are in AnonPages, too; the LRU lists count once. */
	m->part[MEM_SWAP_CACHE] = less(minus(active + inactive, anon + shmem), swap_cached);
	m->part[MEM_REGIONS] = less(held->regions, rest);
	m->part[MEM_SHMEM] = rest - m->part[MEM_REGIONS];
	m->part[MEM_RESERVE] = held->reserve;
	m->part[MEM_HUGETLB] = hugetlb;
	m->part[MEM_SLAB_RECLAIMABLE] = slab_r;
	m->part[MEM_SLAB] = slab_u;
	m->part[MEM_DRIVER_RECLAIMABLE] =
		minus(minus(minus(reclaimable, slab_r), held->reserve), gpu_pool);
	m->part[MEM_PAGE_TABLES] = tables + tables2;
	m->part[MEM_KERNEL_STACKS] = stacks + shadow;
	m->part[MEM_PERCPU] = percpu;
	m->part[MEM_VMALLOC] = minus(vmalloc, stacks + shadow);
	m->part[MEM_COMPRESSED] = zspages;
	m->part[MEM_BALLOON] = balloon;
	m->part[MEM_GPU] = gpu + gpu_pool;
	close_sum(m);
	return 0;
}

int mem_now_read(struct mem_now *n, const char *root, size_t page, struct err *e)
{
	uint64_t buffers = 0, cached = 0, writeback = 0;
	struct field f[] = {
		{"MemTotal", &n->total, true},
		{"MemFree", &n->free, true},
		{"MemAvailable", &n->available},
		{"Buffers", &buffers},
		{"Cached", &cached},
		{"Shmem", &n->shmem},
		{"Mapped", &n->mapped},
		{"Dirty", &n->dirty},
		{"Writeback", &writeback},
		{"SwapTotal", &n->swap_total},
		{"SwapFree", &n->swap_free},
	};
	int rc;

	*n = (struct mem_now){0};
	rc = read_fields(root, "/proc/meminfo", f, sizeof(f) / sizeof(f[0]), 1, e);
	if (rc)
		return rc;
	n->cached = minus(buffers + cached, n->shmem);
	n->dirty += writeback;
	read_blocks(root, page, &n->blocks);
	return 0;
}

const char *mem_size(char buf[MEM_SIZE_TEXT], uint64_t bytes)
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)bytes;
	int u = 0;

	for (; v >= 999.5 && u < 5; u++)
		v /= 1024;
	snprintf(buf, MEM_SIZE_TEXT, "%.*f %s",
		 u == 0 || v >= 100 ? 0
		 : v >= 10	    ? 1
				    : 2,
		 v, unit[u]);
	return buf;
}
