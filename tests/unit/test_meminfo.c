// SPDX-License-Identifier: MIT
/*
 * Attribution of memory over made-up /proc trees: every byte once, whatever the counters say; pages
 * of 64 KiB; damaged files. The page cache of real files.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/cache.h"
#include "memory/meminfo.h"
#include "tests/tap.h"

#define KB 1024ull
#define MB (1024 * KB)

static char root[256];

static void put(const char *path, const char *text)
{
	char full[512], *slash;
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = '\0';
		mkdir(full, 0755);
	}
	f = fopen(full, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		abort();
}

/* A machine of 1,000 MB whose counters leave 100 MB over. */
static const char plain[] = "MemTotal:        1024000 kB\nMemFree:          204800 kB\n"
			    "MemAvailable:     400000 kB\nBuffers:           10240 kB\n"
			    "Cached:           307200 kB\nSwapCached:            0 kB\n"
			    "Active(anon):     150000 kB\nInactive(anon):   100000 kB\n"
			    "SwapTotal:             0 kB\nSwapFree:              0 kB\n"
			    "Dirty:             20480 kB\nWriteback:             0 kB\n"
			    "AnonPages:        204800 kB\nMapped:            30720 kB\n"
			    "Shmem:             51200 kB\nKReclaimable:      81920 kB\n"
			    "Slab:             102400 kB\nSReclaimable:      61440 kB\n"
			    "SUnreclaim:        40960 kB\nKernelStack:       10240 kB\n"
			    "PageTables:        10240 kB\nVmallocUsed:       20480 kB\n"
			    "Percpu:            10240 kB\nHugetlb:           20480 kB\n";

static uint64_t sum_of(const struct mem_info *m)
{
	uint64_t sum = 0;

	for (int i = 0; i < N_MEM_PARTS; i++)
		sum += m->part[i];
	return sum;
}

static void test_plain(void)
{
	struct mem_held held = {.module = true, .regions = 20 * MB, .reserve = 16 * MB};
	struct mem_info m;
	struct err e;

	put("/proc/meminfo", plain);
	put("/proc/buddyinfo", "Node 0, zone   Normal  9 9 9 9 9 9 9 9 9 3 5\nNode 1, zone      "
			       "DMA  1 0 0 0 0 0 0 0 0 1 0\n");
	put("/proc/zoneinfo",
	    "Node 0, zone   Normal\n  pages free 51200\n        count: 77\n  pagesets\n"
	    "    cpu: 0\n              count:    1024\n              high:  9\n"
	    "    cpu: 1\n              count:    1536\nNode 1, zone  DMA\n  count: 5\n");
	REQUIRE(!mem_info_read(&m, root, 4096, &held, &e), "read");
	CHECK(sum_of(&m) == m.total && m.total == 1024000 * KB, "the parts add up to MemTotal");
	CHECK(m.part[MEM_FREE] == 204800 * KB && m.part[MEM_FREE_CPU] == 2560 * 4096ull,
	      "free, and free in CPUs' lists");
	CHECK(m.blocks_known && m.free_blocks == 3 + 2 * 5 + 1, "free blocks: %llu",
	      (unsigned long long)m.free_blocks);
	CHECK(m.cached == (10240 + 307200 - 51200) * KB, "page cache without shmem");
	CHECK(m.part[MEM_CACHE_CLEAN] + m.part[MEM_CACHE_DIRTY] + m.part[MEM_CACHE_MAPPED] ==
		      m.cached,
	      "clean, dirty and mapped are all of it");
	CHECK(m.part[MEM_CACHE_DIRTY] == 20480 * KB, "dirty");
	CHECK(m.part[MEM_REGIONS] == 20 * MB && m.part[MEM_SHMEM] == 30 * MB,
	      "regions are no shmem");
	CHECK(m.part[MEM_RESERVE] == 16 * MB && m.part[MEM_DRIVER_RECLAIMABLE] == 4 * MB,
	      "the reserve is no driver's pool");
	CHECK(m.part[MEM_VMALLOC] == 10 * MB, "vmalloc without the stacks in it");
	CHECK(m.part[MEM_REMAINDER] > 80 * MB && m.overlap == 0, "what is left: %llu MB",
	      (unsigned long long)(m.part[MEM_REMAINDER] / MB));
	REQUIRE(!mem_info_read(&m, root, 65536, NULL, &e), "pages of 64 KiB");
	CHECK(m.free_blocks == 9 + 2 * 9 + 4 * 9 + 8 * 9 + 16 * 3 + 32 * 5 + 16 * 1,
	      "2 MiB are 32 of them: %llu blocks", (unsigned long long)m.free_blocks);
}

static void test_mapped(void)
{
	struct mem_info m;
	struct err e;
	char text[4096];

	/* 200 MB of shmem mapped by two processes, 10 MB of a file by one. */
	snprintf(text, sizeof(text), "%s", plain);
	memcpy(strstr(text, "Mapped:"), "Mapped:           215040 kB", 27);
	memcpy(strstr(text, "Shmem:"), "Shmem:            209715 kB", 27);
	put("/proc/meminfo", text);
	put("/proc/10/status",
	    "Name:\tengine\nRssAnon:\t5 kB\nRssFile:\t10240 kB\nRssShmem:\t204800 kB\n");
	put("/proc/11/status",
	    "Name:\tother\nRssAnon:\t5 kB\nRssFile:\t0 kB\nRssShmem:\t204800 kB\n");
	REQUIRE(!mem_info_read(&m, root, 4096, NULL, &e), "read");
	CHECK(m.part[MEM_CACHE_MAPPED] <= 10240 * KB && m.part[MEM_CACHE_MAPPED] >= 5120 * KB,
	      "mapped shmem is not taken for mapped files: %llu kB",
	      (unsigned long long)(m.part[MEM_CACHE_MAPPED] / KB));
	CHECK(sum_of(&m) == m.total, "the parts add up");
}

static void test_overlap(void)
{
	struct mem_info m;
	struct err e;

	put("/proc/meminfo",
	    "MemTotal: 1000 kB\nMemFree: 900 kB\nBuffers: 0 kB\nCached: 50 kB\n"
	    "AnonPages: 200 kB\nMapped: 999 kB\nShmem: 60 kB\nSReclaimable: 10 kB\n"
	    "SUnreclaim: 10 kB\nDirty: 4000 kB\nKernelStack: 999999 kB\n");
	REQUIRE(!mem_info_read(&m, root, 4096, NULL, &e), "counters that contradict each other");
	CHECK(sum_of(&m) == m.total && m.overlap > 0 && !m.part[MEM_REMAINDER],
	      "the parts add up all the same; %llu too much", (unsigned long long)m.overlap);
}

static void test_damaged(void)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"", "MemTotal"},
		{"MemTotal: 5 kB\n", "MemFree"},
		{"rubbish\n\xff\xfe: : :\nMemTotal 7\n", "no line"},
		{"MemTotal: 10 kB\nMemFree: 99 kB\nBuffers: 0 kB\nCached: 0 kB\nAnonPages: 0 kB\n"
		 "Mapped: 0 kB\nShmem: 0 kB\nSReclaimable: 0 kB\nSUnreclaim: 0 kB\n",
		 "contradict"},
		{"MemTotal: 99999999999999999999999 kB\nMemFree: 1 kB\n", "more than any machine"},
	};
	struct mem_info m;
	struct mem_now n;
	struct err e;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put("/proc/meminfo", bad[i].text);
		CHECK(mem_info_read(&m, root, 4096, NULL, &e) == -EINVAL &&
			      strstr(e.msg, bad[i].says),
		      "damaged: %s", e.msg);
	}
	CHECK(mem_now_read(&n, "/nowhere", 4096, &e) == -ENOENT, "no /proc: %s", e.msg);
}

static void test_here(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct mem_info m;
	struct mem_now n;
	struct err e;

	REQUIRE(!mem_info_read(&m, "", page, NULL, &e) && !mem_now_read(&n, "", page, &e),
		"this machine");
	CHECK(sum_of(&m) == m.total && n.total == m.total, "its parts add up");
}

/* ---- page cache ------------------------------------------------------------------------------ */

static int count(void *ctx, int fd, const char *path, const struct stat *st)
{
	char *seen = ctx;

	strcat(seen, strrchr(path, '/'));
	return fd < 0;
}

static void test_cache(void)
{
	char path[300], link[300], seen[512] = "";
	struct cache_status before, after;
	struct cache_walk w;
	char *buf = calloc(1, MB);
	struct err e;
	int fd;

	put("/models/sub/a", "x");
	put("/models/empty", "");
	snprintf(path, sizeof(path), "%s/models/sub/a", root);
	snprintf(link, sizeof(link), "%s/models/link", root);
	fd = open(path, O_RDWR);
	for (int i = 0; i < 4; i++)
		if (write(fd, buf, MB) != (ssize_t)MB)
			abort();
	CHECK(!cache_status(fd, path, &before, &e) && before.size == 4 * MB &&
		      before.cached == 4 * MB,
	      "what was just written is cached");
	CHECK(!before.dirty_known || before.dirty <= before.cached, "dirty, where it is known");
	CHECK(!cache_drop(fd, path, true, &before, &after, &e), "dropped");
	/* On a tmpfs there is nothing to be dropped. */
	CHECK(after.cached <= before.cached && (!after.cached || after.cached == 4 * MB),
	      "%llu -> %llu", (unsigned long long)before.cached, (unsigned long long)after.cached);
	close(fd);
	CHECK(!symlink("sub/a", link), "a link");
	snprintf(path, sizeof(path), "%s/models/loop", root);
	CHECK(!symlink(".", path), "a loop");
	snprintf(path, sizeof(path), "%s/models//", root);
	CHECK(!cache_walk(path, 0, count, seen, &w, &e) && w.files == 2 && strstr(seen, "/a") &&
		      strstr(seen, "/link"),
	      "a walk follows links to files, not to folders: %s", seen);
	seen[0] = '\0';
	CHECK(!cache_walk(path, 1, count, seen, &w, &e) && w.stopped && w.files == 1, "a bound");
	CHECK(cache_walk("/dev/null", 0, count, seen, &w, &e) == -EINVAL, "a device: %s", e.msg);
	CHECK(cache_walk("/nowhere", 0, count, seen, &w, &e) == -ENOENT, "nothing: %s", e.msg);
	fd = open("/dev/null", O_RDONLY);
	CHECK(cache_status(fd, "/dev/null", &before, &e) == -EINVAL, "of a device: %s", e.msg);
	close(fd);
	put("/proc/sys/vm/drop_caches", "0");
	CHECK(!cache_drop_everything(root, &e), "everything");
	CHECK(cache_drop_everything("/nowhere", &e) == -ENOENT, "without /proc: %s", e.msg);
	free(buf);
}

int main(void)
{
	char command[300];
	int rc;

	snprintf(root, sizeof(root), "%s/meminfo.XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	if (!mkdtemp(root))
		return 1;
	test_plain();
	test_mapped();
	test_overlap();
	test_damaged();
	test_here();
	test_cache();
	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	rc = system(command);
	return rc ? 1 : tap_done();
}
