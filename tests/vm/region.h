/* SPDX-License-Identifier: MIT */
/*
 * What the tests of regions share: the commands as calls, what the kernel counts, users and children.
 */
#ifndef LLMDEV_TESTS_VM_REGION_H
#define LLMDEV_TESTS_VM_REGION_H

#include <grp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "tests/vm/vm.h"

#define MIB  ((uint64_t)1 << 20)
#define HUGE (2 * MIB)

/* ---- commands: a file descriptor, 0, or -1 and errno ----------------------------------------------------- */

__attribute__((unused)) static struct llm_region_create region_creation(const char *name,
									uint64_t bytes,
									uint32_t flags)
{
	struct llm_region_create c = {.size = sizeof(c),
				      .flags = flags,
				      .bytes = bytes,
				      .node = -1};

	strncpy((char *)c.name, name, sizeof(c.name) - 1);
	return c;
}

__attribute__((unused)) static int region_command(struct llm_region_create *c)
{
	int fd = control(), rc = ioctl(fd, LLM_IOC_REGION_CREATE, c), e = errno;

	close(fd);
	errno = e;
	return rc ? -1 : c->fd;
}

__attribute__((unused)) static int region_create(const char *name, uint64_t bytes, uint32_t flags)
{
	struct llm_region_create c = region_creation(name, bytes, flags);

	return region_command(&c);
}

__attribute__((unused)) static int region_open(const char *name, uint32_t flags)
{
	struct llm_region_open o = {.size = sizeof(o), .flags = flags};
	int fd = control(), rc, e;

	strncpy((char *)o.name, name, sizeof(o.name) - 1);
	rc = ioctl(fd, LLM_IOC_REGION_OPEN, &o);
	e = errno;
	close(fd);
	errno = e;
	return rc ? -1 : o.fd;
}

__attribute__((unused)) static int region_destroy(const char *name)
{
	struct llm_region_name n = {.size = sizeof(n)};
	int fd = control(), rc, e;

	strncpy((char *)n.name, name, sizeof(n.name) - 1);
	rc = ioctl(fd, LLM_IOC_REGION_DESTROY, &n);
	e = errno;
	close(fd);
	errno = e;
	return rc;
}

__attribute__((unused)) static int region_seal(int fd)
{
	struct llm_region_seal s = {.size = sizeof(s)};

	return ioctl(fd, LLM_IOC_REGION_SEAL, &s);
}

__attribute__((unused)) static struct llm_region_info region_info(int fd)
{
	struct llm_region_info i = {.size = sizeof(i)};

	if (ioctl(fd, LLM_IOC_REGION_INFO, &i))
		memset(&i, 0xff, sizeof(i));
	return i;
}

/* How many there are, and in *found the one of this name (size 0: none). */
__attribute__((unused)) static int region_list(const char *name, struct llm_region_info *found)
{
	static struct llm_region_info info[256];
	struct llm_region_list l = {.size = sizeof(l),
				    .regions = (uintptr_t)info,
				    .count = 256,
				    .info_size = sizeof(info[0])};
	int fd = control(), rc = ioctl(fd, LLM_IOC_REGION_LIST, &l);

	close(fd);
	if (found)
		memset(found, 0, sizeof(*found));
	for (uint32_t i = 0; !rc && found && i < l.count; i++)
		if (!strcmp((char *)info[i].name, name))
			*found = info[i];
	return rc ? -1 : (int)l.count;
}

/* ---- mappings -------------------------------------------------------------------------------------------- */

__attribute__((unused)) static unsigned char *region_map(int fd, uint64_t bytes, int prot)
{
	return mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);
}

#define maps(call, ...) check((call) != MAP_FAILED, __VA_ARGS__)
#define map_refused(call, error, ...)                                                              \
	({                                                                                         \
		errno = 0;                                                                         \
		void *m_ = (call);                                                                 \
		check(m_ == MAP_FAILED && errno == (error), __VA_ARGS__);                          \
	})

__attribute__((unused)) static void region_pattern(unsigned char *p, uint64_t bytes, uint64_t seed)
{
	for (uint64_t i = 0; i < bytes / 8; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		((uint64_t *)p)[i] = seed;
	}
}

__attribute__((unused)) static bool region_has_pattern(const unsigned char *p, uint64_t bytes,
						       uint64_t seed)
{
	for (uint64_t i = 0; i < bytes / 8; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		if (((const uint64_t *)p)[i] != seed)
			return false;
	}
	return true;
}

/* ---- what the kernel says ---------------------------------------------------------------------------------- */

/* The number behind "KEY" in a file of lines; -1: not there. */
__attribute__((unused)) static int64_t number_in(const char *path, const char *key)
{
	char line[512];
	FILE *f = fopen(path, "re");
	int64_t v = -1;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key))) {
			v = strtoll(line + strlen(key), NULL, 10);
			break;
		}
	if (f)
		fclose(f);
	return v;
}

/* Bytes. */
__attribute__((unused)) static int64_t meminfo(const char *key)
{
	return number_in("/proc/meminfo", key) * 1024;
}

__attribute__((unused)) static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* Free memory is back, but for what slabs, lists of free pages and the page cache may keep. */
__attribute__((unused)) static bool memory_is_back(int64_t before)
{
	for (int i = 0; i < 100; i++) {
		write_file("/proc/sys/vm/drop_caches", "3");
		if (meminfo("MemFree:") > before - (int64_t)(15 * MIB))
			return true;
		usleep(50000);
	}
	printf("# MemFree %lld, was %lld\n", (long long)meminfo("MemFree:"), (long long)before);
	return false;
}

__attribute__((unused)) static int64_t free_memory(void)
{
	write_file("/proc/sys/vm/drop_caches", "3");
	return meminfo("MemFree:");
}

/* ---- others ------------------------------------------------------------------------------------------------ */

/* Runs the block in a child process and says whether it returned true. */
#define in_child(...)                                                                              \
	({                                                                                         \
		fflush(stdout);                                                                    \
		pid_t c_ = fork();                                                                 \
		if (!c_)                                                                           \
			_exit((__VA_ARGS__) ? 0 : 1);                                              \
		int s_ = 0;                                                                        \
		while (waitpid(c_, &s_, 0) < 0 && errno == EINTR)                                  \
			;                                                                          \
		c_ > 0 && WIFEXITED(s_) && !WEXITSTATUS(s_);                                       \
	})

/* An ordinary user, for good, who may open the control device (see region_share()). */
__attribute__((unused)) static bool become(uid_t uid)
{
	return !setgroups(0, NULL) && !setresgid(uid, uid, uid) && !setresuid(uid, uid, uid);
}

__attribute__((unused)) static void region_share(void)
{
	chmod(CONTROL, 0666);
}

#endif
