// SPDX-License-Identifier: MIT
/*
 * What reading a file past the page cache costs into a region, into anonymous memory in huge pages, and
 * in small ones: runs in the virtual machine (vm_device.py), which has a disk. One JSON object a line.
 *
 *   vm_region time|run [ROUNDS]
 *
 * Each round reads the file once into each of them, in turns that begin with another one every time,
 * by pread() of an O_DIRECT descriptor and by io_uring into fixed buffers. time: nanoseconds that pass;
 * run: that this process runs, instructions where QEMU counts them. "ratio" is the speed into the
 * region by that into anonymous memory.
 */
#include <sys/mount.h>

#include "tests/vm/region.h"
#include "tests/vm/ring.h"

#define BYTES	   (16 * MIB)
#define MAX_ROUNDS 1000
#define DISK	   "/tmp/disk"

enum memory { REGION, ANON, SMALL, MEMORIES };
enum style { DIRECT, FIXED, STYLES };

static const char *const memory_names[] = {"region", "anonymous", "small"};
static const char *const style_names[] = {"O_DIRECT", "READ_FIXED"};

static void fail(const char *what)
{
	printf("# vm_region: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static uint64_t ran_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned char *anonymous(int advice)
{
	unsigned char *p = mmap(NULL, BYTES + HUGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	p = (unsigned char *)(((uintptr_t)p + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
	madvise(p, BYTES, advice);
	memset(p, 1, BYTES);
	return p;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void report(const char *what, enum style s, uint64_t taken[MEMORIES][MAX_ROUNDS],
		   unsigned int n)
{
	printf("# {\"figure\":\"%s\",\"unit\":\"%s\",\"bytes\":%llu,\"rounds\":%u", style_names[s],
	       what, (unsigned long long)BYTES, n);
	for (int m = 0; m < MEMORIES; m++) {
		qsort(taken[m], n, sizeof(taken[m][0]), by_value);
		printf(",\"%s\":%llu,\"%s_p25\":%llu,\"%s_p75\":%llu", memory_names[m],
		       (unsigned long long)taken[m][n / 2], memory_names[m],
		       (unsigned long long)taken[m][n / 4], memory_names[m],
		       (unsigned long long)taken[m][n * 3 / 4]);
	}
	printf(",\"ratio\":%.4f}\n", (double)taken[ANON][n / 2] / (double)taken[REGION][n / 2]);
}

int main(int argc, char **argv)
{
	static uint64_t taken[STYLES][MEMORIES][MAX_ROUNDS];
	bool timed = argc > 1 && !strcmp(argv[1], "time");
	unsigned int rounds = argc > 2 ? (unsigned int)atoi(argv[2]) : 60;
	unsigned char *p[MEMORIES];
	struct ring ring[MEMORIES];
	int fd, region = region_create("bench", BYTES, 0);

	if (!rounds || rounds > MAX_ROUNDS || region < 0)
		fail("a region");
	mkdir(DISK, 0755);
	if (mount("/dev/vda", DISK, "ext4", 0, NULL))
		fail("mount /dev/vda");
	p[REGION] = region_map(region, BYTES, PROT_READ | PROT_WRITE);
	p[ANON] = anonymous(MADV_HUGEPAGE);
	p[SMALL] = anonymous(MADV_NOHUGEPAGE);
	fd = open(DISK "/file", O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	if (fd < 0 || pwrite(fd, p[ANON], BYTES, 0) != (ssize_t)BYTES || fsync(fd))
		fail("a file");
	for (int m = 0; m < MEMORIES; m++)
		if (ring_open(&ring[m]) || ring_register(&ring[m], p[m], BYTES))
			fail("io_uring");
	/* Two more, that are not counted: whatever comes only once. */
	for (unsigned int i = 0; i < (rounds + 2) * STYLES * MEMORIES; i++) {
		unsigned int round = i / (STYLES * MEMORIES), s = i / MEMORIES % STYLES;
		unsigned int m = (i + round) % MEMORIES;
		uint64_t start = timed ? now_ns() : ran_ns();

		if (!(s == FIXED ? ring_read(&ring[m], fd, p[m], BYTES)
				 : read_direct(fd, p[m], BYTES)))
			fail(style_names[s]);
		if (round >= 2)
			taken[s][m][round - 2] = (timed ? now_ns() : ran_ns()) - start;
	}
	printf("# {\"figure\":\"memory\",\"huge_bytes\":%llu}\n",
	       (unsigned long long)region_info(region).huge_bytes);
	for (int s = 0; s < STYLES; s++)
		report(timed ? "ns" : "instructions", s, taken[s], rounds);
	return 0;
}
