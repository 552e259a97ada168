// SPDX-License-Identifier: MIT
/*
 * Regions: what one is, how long it lives, what may be done with it. Each property that the module
 * promises of the memory is looked at here; refusals of the commands are in test_region_refusals.c.
 */
#include "tests/vm/region.h"

#define BYTES (16 * MIB)

static void first(void)
{
	struct llm_query q = {.size = sizeof(q)};
	struct llm_region_create c = region_creation("first", BYTES, 0);
	struct llm_region_info i;
	unsigned char *p;
	int64_t unevictable = meminfo("Unevictable:"), shmem = meminfo("Shmem:");
	struct stat st;
	int fd, ctl = control(), n = region_list("", NULL);

	check(!ioctl(ctl, LLM_IOC_QUERY, &q) && q.features & LLM_FEATURE_REGION,
	      "the control file says that there are regions");
	close(ctl);
	fd = region_command(&c);
	check(fd >= 0, "a region of 16 MiB");
	check(fcntl(fd, F_GETFD) == FD_CLOEXEC, "its file is closed on exec");
	check(c.huge_bytes == BYTES, "all of it in 2 MiB pages (%llu)",
	      (unsigned long long)c.huge_bytes);
	check(meminfo("Unevictable:") - unevictable > (int64_t)(BYTES - MIB), "it is unevictable");
	check(meminfo("Shmem:") - shmem > (int64_t)(BYTES - MIB),
	      "it is there at once, and shared memory");
	q.flags = 0;
	check(!ioctl(fd, LLM_IOC_QUERY, &q) && q.file == LLM_FILE_REGION,
	      "the file says that it is a region");
	i = region_info(fd);
	check(i.bytes == BYTES && i.resident == BYTES && i.huge_bytes == BYTES && i.node == -1 &&
		      i.uid == getuid() && i.pid == getpid() && !i.mappings && i.files == 1 &&
		      !i.flags && i.created_ns && i.created_ns < now_ns() &&
		      !strcmp((char *)i.name, "first"),
	      "INFO tells all of it");
	p = region_map(fd, BYTES, PROT_READ | PROT_WRITE);
	maps(p, "it can be mapped");
	check(((uintptr_t)p & (HUGE - 1)) == 0, "at an address for 2 MiB pages");
	check(p[0] == 0 && p[BYTES - 1] == 0 && !memcmp(p, p + 1, BYTES - 1), "it is zeroed");
	region_pattern(p, BYTES, 1);
	check(number_in("/proc/self/smaps_rollup", "ShmemPmdMapped:") == (int64_t)(BYTES / 1024),
	      "mapped by 2 MiB pages (%lld KiB)",
	      (long long)number_in("/proc/self/smaps_rollup", "ShmemPmdMapped:"));
	i = region_info(fd);
	check(i.mappings == 1, "INFO counts mappings");
	check(!munmap(p, BYTES), "unmap");
	p = region_map(fd, BYTES, PROT_READ);
	check(region_has_pattern(p, BYTES, 1), "another mapping has the same bytes");
	munmap(p, BYTES);
	check(region_list("first", &i) == n + 1 && i.bytes == BYTES, "LIST has it");
	check(!fstat(fd, &st) && (uint64_t)st.st_size == BYTES, "fstat() tells its size");
	close(fd);
	check(region_list("first", &i) == n && !i.size, "closed, it is gone");
}

/* What drops, moves or writes pages elsewhere leaves them alone. */
static void stays(void)
{
	int fd = region_create("stays", BYTES, 0);
	unsigned char *p = region_map(fd, BYTES, PROT_READ | PROT_WRITE), vec[16 * 256];
	bool all = true;

	region_pattern(p, BYTES, 2);
	madvise(p, BYTES, MADV_DONTNEED);
	write_file("/proc/sys/vm/drop_caches", "3");
	write_file("/proc/sys/vm/compact_memory", "1");
	write_file("/sys/fs/cgroup/memory.reclaim", "64M");
	madvise(p, BYTES, MADV_PAGEOUT);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	check(!mincore(p, BYTES, vec), "mincore");
	for (size_t i = 0; i < BYTES / 4096; i++)
		all &= vec[i] & 1;
	check(all, "drop_caches, compact_memory, memory.reclaim, MADV_PAGEOUT, "
		   "POSIX_FADV_DONTNEED: resident");
	check(region_has_pattern(p, BYTES, 2), "and the same bytes");
	munmap(p, BYTES);
	/* Pages that nobody has written to are no different. */
	close(fd);
	fd = region_create("stays", BYTES, 0);
	write_file("/proc/sys/vm/drop_caches", "3");
	p = region_map(fd, BYTES, PROT_READ);
	check(!mincore(p, BYTES, vec), "mincore");
	for (size_t i = 0; i < BYTES / 4096; i++)
		all &= vec[i] & 1;
	check(all, "drop_caches leaves untouched pages as well");
	munmap(p, BYTES);
	close(fd);
}

static void sealed(void)
{
	int fd = region_create("sealed", BYTES, 0), ro, rw;
	unsigned char *p = region_map(fd, BYTES, PROT_READ | PROT_WRITE);

	region_pattern(p, BYTES, 3);
	refused(region_seal(fd), EBUSY, "SEAL with a writable mapping: EBUSY");
	munmap(p, BYTES);
	p = region_map(fd, BYTES, PROT_READ);
	refused(region_seal(fd), EBUSY, "with one that could become writable: EBUSY");
	munmap(p, BYTES);
	ro = region_open("sealed", 0);
	check(ro >= 0, "OPEN to read");
	refused(region_seal(ro), EPERM, "SEAL of a file that is not writable: EPERM");
	map_refused(region_map(ro, BYTES, PROT_READ | PROT_WRITE), EACCES,
		    "nor is it mapped writable: EACCES");
	p = region_map(ro, BYTES, PROT_READ);
	maps(p, "mapped to read");
	refused(mprotect(p, BYTES, PROT_READ | PROT_WRITE), EACCES, "mprotect() to write: EACCES");
	works(region_seal(fd), "SEAL with mappings that only read");
	check(region_has_pattern(p, BYTES, 3), "they still have their bytes");
	refused(region_seal(fd), EALREADY, "SEAL again: EALREADY");
	check(region_info(ro).flags == LLM_REGION_SEALED, "INFO says sealed");
	map_refused(region_map(fd, BYTES, PROT_READ | PROT_WRITE), EPERM,
		    "a writable mapping of it: EPERM");
	munmap(p, BYTES);
	p = region_map(fd, BYTES, PROT_READ);
	maps(p, "its file can be mapped to read");
	refused(mprotect(p, BYTES, PROT_READ | PROT_WRITE), EACCES,
		"no way back by mprotect(): EACCES");
	check(region_has_pattern(p, BYTES, 3), "same bytes");
	refused(region_open("sealed", LLM_REGION_OPEN_WRITE), EPERM, "OPEN to write: EPERM");
	munmap(p, BYTES);
	rw = region_open("sealed", LLM_REGION_OPEN_REGISTER);
	check(rw >= 0, "OPEN to register");
	p = region_map(rw, BYTES, PROT_READ | PROT_WRITE);
	maps(p, "may be mapped writable");
	check(region_has_pattern(p, BYTES, 3), "same bytes");
	munmap(p, BYTES);
	close(rw);
	close(ro);
	close(fd);
}

static void lives(void)
{
	struct llm_region_info i;
	int64_t before = free_memory();
	unsigned char *p;
	int fd, n = region_list("", NULL), both[2];
	char go;
	pid_t pid;

	fd = region_create("kept", BYTES, LLM_REGION_PERSISTENT);
	check(fd >= 0, "a persistent region");
	p = region_map(fd, BYTES, PROT_READ | PROT_WRITE);
	region_pattern(p, BYTES, 4);
	munmap(p, BYTES);
	works(region_seal(fd), "SEAL");
	close(fd);
	check(region_list("kept", &i) == n + 1 && !i.files &&
		      i.flags == (LLM_REGION_PERSISTENT | LLM_REGION_SEALED),
	      "closed, it is still there");
	fd = region_open("kept", 0);
	p = region_map(fd, BYTES, PROT_READ);
	check(region_has_pattern(p, BYTES, 4), "opened, it has its bytes");
	close(fd);
	works(region_destroy("kept"), "DESTROY while it is mapped");
	refused(region_open("kept", 0), ENOENT, "its name is gone");
	check(region_list("kept", &i) == n + 1 && i.flags & LLM_REGION_UNLINKED && i.mappings == 1,
	      "LIST still has it, as unlinked");
	fd = region_create("kept", BYTES, 0);
	check(fd >= 0, "and the name can be had again");
	check(region_has_pattern(p, BYTES, 4), "the mapping is as before");
	close(fd);
	munmap(p, BYTES);
	check(region_list("kept", &i) == n && !i.size, "with the mapping it goes");
	check(memory_is_back(before), "all memory is back");

	/* A child has the file and the mapping as well; both go with the last process. */
	fd = region_create("child", BYTES, 0);
	p = region_map(fd, BYTES, PROT_READ | PROT_WRITE);
	check(!pipe(both), "pipe");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(both[1]);
		close(fd);
		if (read(both[0], &go, 1) >= 0)
			for (;;)
				pause();
		_exit(0);
	}
	munmap(p, BYTES);
	close(fd);
	check(region_list("child", &i) == n + 1 && i.mappings == 1 && i.files == 1,
	      "after fork() the child's mapping holds it");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	for (int k = 0; k < 100 && region_list("child", &i) != n; k++)
		usleep(20000);
	check(region_list("child", &i) == n, "killed, the child gives it back");
	close(both[0]);
	close(both[1]);
}

/* A process that has made and filled a persistent region, and waits to be killed. */
static pid_t filler(void)
{
	int both[2];
	char go;
	pid_t pid;

	if (pipe(both))
		return -1;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		int fd = region_create("orphan", BYTES, LLM_REGION_PERSISTENT);

		region_pattern(region_map(fd, BYTES, PROT_READ | PROT_WRITE), BYTES, 5);
		if (write(both[1], "x", 1) == 1)
			for (;;)
				pause();
		_exit(0);
	}
	close(both[1]);
	check(read(both[0], &go, 1) == 1, "a child has filled a persistent region");
	close(both[0]);
	return pid;
}

static void killed(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Until it is sealed a persistent region goes with its last file, too. */
static void not_sealed(void)
{
	struct llm_region_info i;
	int64_t before = free_memory();
	int n = region_list("", NULL), fd;
	unsigned char *p;
	pid_t pid;

	close(works(region_create("orphan", BYTES, LLM_REGION_PERSISTENT), "a persistent region"));
	check(region_list("orphan", &i) == n && !i.size, "closed and not sealed, it is gone");
	killed(filler());
	for (int k = 0; k < 100 && region_list("orphan", &i) != n; k++)
		usleep(20000);
	check(region_list("orphan", &i) == n && !i.size, "it goes when the child is killed");
	check(memory_is_back(before), "all memory is back");
	pid = filler();
	fd = region_open("orphan", LLM_REGION_OPEN_WRITE);
	killed(pid);
	check(fd >= 0 && !region_info(fd).pid,
	      "another file of it: it outlives its creator, who is told as gone");
	p = region_map(fd, BYTES, PROT_READ);
	check(region_has_pattern(p, BYTES, 5), "with its bytes");
	munmap(p, BYTES);
	works(region_seal(fd), "it can be sealed by its owner");
	close(fd);
	check(region_list("orphan", &i) == n + 1 && i.flags & LLM_REGION_SEALED,
	      "then it needs no file");
	works(region_destroy("orphan"), "and can be destroyed");
	check(region_list("orphan", NULL) == n, "it is gone");
	fd = region_create("orphan", BYTES, LLM_REGION_PERSISTENT);
	works(region_destroy("orphan"), "destroyed before SEAL");
	works(region_seal(fd), "it can be sealed");
	close(fd);
	check(region_list("", NULL) == n, "but goes with its file");
	check(memory_is_back(before), "all memory is back");
}

/* The module stays as long as somebody has a region. */
static void unloading(void)
{
	int fd = region_create("holds", BYTES, 0), rc;
	unsigned char *p = region_map(fd, BYTES, PROT_READ);

	rc = (int)syscall(SYS_delete_module, "llm", O_NONBLOCK);
	check(rc && (errno == EBUSY || errno == EWOULDBLOCK),
	      "unloading while a region file is open: refused");
	close(fd);
	rc = (int)syscall(SYS_delete_module, "llm", O_NONBLOCK);
	check(rc && (errno == EBUSY || errno == EWOULDBLOCK),
	      "while only a mapping is left: refused");
	check(!p[12345], "it can be read");
	munmap(p, BYTES);
}

/* What the kernel tells of it where others look. */
#define TRACING "/sys/kernel/tracing/"

static bool line_in(const char *path, const char *a, const char *b)
{
	char line[1024];
	FILE *f = fopen(path, "re");
	bool found = false;

	while (f && fgets(line, sizeof(line), f))
		found |= strstr(line, a) && strstr(line, b);
	if (f)
		fclose(f);
	return found;
}

/* The flags of the mapping at `p`. */
static bool has_flags(const unsigned char *p, const char *a, const char *b)
{
	char line[1024], start[32];
	FILE *f = fopen("/proc/self/smaps", "re");
	bool here = false, found = false;

	snprintf(start, sizeof(start), "%lx-", (unsigned long)(uintptr_t)p);
	while (f && fgets(line, sizeof(line), f)) {
		if (strchr(line, '-') && line[0] != 'V')
			here = !strncmp(line, start, strlen(start)) ||
			       (here && !strchr("0123456789abcdef", line[0]));
		if (here && !strncmp(line, "VmFlags:", 8)) {
			found = strstr(line, a) && strstr(line, b);
			break;
		}
	}
	if (f)
		fclose(f);
	return found;
}

static void told(void)
{
	char path[64], id[48];
	unsigned char *p;
	int fd;

	write_file(TRACING "events/llm/enable", "1");
	fd = region_create("told", BYTES, LLM_REGION_PERSISTENT);
	p = region_map(fd, BYTES, PROT_READ | PROT_WRITE);
	check(has_flags(p, " dd", " de"), "not in core dumps, does not grow");
	check(line_in("/proc/self/maps", "llm-region:told", ""), "/proc/PID/maps has its name");
	munmap(p, BYTES);
	snprintf(id, sizeof(id), " id=%llu ", (unsigned long long)region_info(fd).id);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	check(line_in(path, "llm-region:", "told") &&
		      number_in(path, "llm-region-bytes:") == (int64_t)BYTES &&
		      number_in(path, "llm-region-huge:") == (int64_t)BYTES &&
		      number_in(path, "llm-region-node:") == -1 &&
		      number_in(path, "llm-region-owner:") == 0 &&
		      number_in(path, "llm-region-mappings:") == 0 &&
		      number_in(path, "llm-region-files:") == 1,
	      "fdinfo tells all of it");
	works(region_seal(fd), "SEAL");
	works(region_destroy("told"), "DESTROY");
	close(fd);
	refused(region_create("told", (uint64_t)1 << 46, 0), ENOMEM, "CREATE of too much");
	check(line_in(TRACING "trace", "llm_region_create:", id), "tracepoint: create");
	check(line_in(TRACING "trace", "llm_region_create:", " error=-12 "),
	      "tracepoint: create, refused");
	check(line_in(TRACING "trace", "llm_region_seal:", id), "tracepoint: seal");
	check(line_in(TRACING "trace", "llm_region_destroy:", id), "tracepoint: destroy");
	check(line_in(TRACING "trace", "llm_region_free:", id), "tracepoint: free");
	write_file(TRACING "events/llm/enable", "0");
}

int main(void)
{
	first();
	told();
	stays();
	sealed();
	lives();
	not_sealed();
	unloading();
	return done();
}
