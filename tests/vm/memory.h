/* SPDX-License-Identifier: MIT */
/* What tests of the memory commands share: the commands, /proc, somebody who wants memory. */
#ifndef LLMDEV_TESTS_VM_MEMORY_H
#define LLMDEV_TESTS_VM_MEMORY_H

#include "tests/vm/vm.h"

#include <inttypes.h>
#include <sys/mman.h>

#define MB    (1ull << 20)
#define BLOCK (2 * MB)

static int ctl; /* the test's control file */

/* For printing. */
static unsigned int mb(uint64_t bytes)
{
	return (unsigned int)(bytes / MB);
}

static struct llm_mem_status status_of(int fd)
{
	struct llm_mem_status s = {.size = sizeof(s)};

	if (ioctl(fd, LLM_IOC_MEM_STATUS, &s))
		check(false, "status");
	return s;
}

__attribute__((unused)) static struct llm_mem_status status(void)
{
	return status_of(ctl);
}

/* Bytes that are held afterwards, or -1. */
__attribute__((unused)) static int64_t reserve(uint64_t bytes)
{
	struct llm_mem_reserve r = {.size = sizeof(r), .bytes = bytes};

	return ioctl(ctl, LLM_IOC_MEM_RESERVE, &r) ? -1 : (int64_t)r.held;
}

__attribute__((unused)) static int set_floors(int fd, uint64_t free, uint64_t blocks)
{
	struct llm_mem_floors f = {.size = sizeof(f), .free = free, .blocks = blocks};

	return ioctl(fd, LLM_IOC_MEM_FLOORS, &f);
}

__attribute__((unused)) static int make_room(struct llm_mem_make_room *r)
{
	r->size = sizeof(*r);
	return ioctl(ctl, LLM_IOC_MEM_MAKE_ROOM, r);
}

__attribute__((unused)) static int drop(struct llm_cache_drop *d, int fd, uint32_t flags)
{
	d->size = sizeof(*d);
	d->flags = flags;
	d->fd = fd;
	return ioctl(ctl, LLM_IOC_CACHE_DROP, d);
}

/* The file says that there are events. */
__attribute__((unused)) static bool told(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLPRI};

	return poll(&p, 1, ms) == 1 && p.revents == POLLPRI;
}

__attribute__((unused)) static bool write_to(const char *path, const char *what)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, what, strlen(what)) == (ssize_t)strlen(what);
	int e = errno;

	if (fd >= 0)
		close(fd);
	errno = e;
	return ok;
}

/* A counter of /proc/vmstat; 0: none of that name. */
__attribute__((unused)) static uint64_t vmstat(const char *name)
{
	char line[256];
	uint64_t n = 0, v;
	FILE *f = fopen("/proc/vmstat", "re");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)) &&
		    sscanf(line + strlen(name), " %" SCNu64, &v) == 1)
			n = v;
	if (f)
		fclose(f);
	return n;
}

/* A watermark of all zones together, in bytes: "min", "low" or "high". */
__attribute__((unused)) static uint64_t watermark(const char *name)
{
	char line[256], key[16];
	uint64_t n = 0, v;
	FILE *f = fopen("/proc/zoneinfo", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, " %15s %" SCNu64, key, &v) == 2 && !strcmp(key, name))
			n += v;
	if (f)
		fclose(f);
	return n * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Bytes that only the kernel itself can have. */
__attribute__((unused)) static uint64_t untouchable(void)
{
	return watermark("min");
}

/* A process that touches so much memory, says so on *ready, and waits. It is the first to be killed. */
__attribute__((unused)) static pid_t hog(uint64_t bytes, int *ready)
{
	int p[2];
	pid_t pid;

	if (pipe(p))
		return -1;
	pid = fork();
	if (!pid) {
		char *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			       0);

		write_to("/proc/self/oom_score_adj", "1000");
		for (uint64_t i = 0; m != MAP_FAILED && i < bytes; i += 4096)
			m[i] = 1;
		if (m != MAP_FAILED && write(p[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	close(p[1]);
	*ready = p[0];
	return pid;
}

/* It touched all its memory. */
__attribute__((unused)) static bool hog_done(pid_t pid, int ready)
{
	int state;
	char c;
	bool ok = read(ready, &c, 1) == 1;

	close(ready);
	kill(pid, SIGKILL);
	waitpid(pid, &state, 0);
	return ok;
}

/* Into the page cache, all of it. */
__attribute__((unused)) static void read_all(int fd)
{
	static char buf[1 << 20];
	off_t at = 0;
	ssize_t n;

	while ((n = pread(fd, buf, sizeof(buf), at)) > 0)
		at += n;
}

#endif
