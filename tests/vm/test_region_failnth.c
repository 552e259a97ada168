// SPDX-License-Identifier: MIT
/*
 * Every allocation and every copy that the region commands make fails once: the command is refused
 * with ENOMEM or EFAULT or does without, works when it is made again, and no memory is lost.
 */
#include "tests/vm/failnth.h"
#include "tests/vm/region.h"

static int ctl;

static int create_with(const char *name, uint64_t bytes, uint32_t flags, int *fd)
{
	struct llm_region_create c = region_creation(name, bytes, flags);
	int rc = ioctl(ctl, LLM_IOC_REGION_CREATE, &c);

	*fd = rc ? -1 : c.fd;
	return rc;
}

static int open_with(const char *name, uint32_t flags, int *fd)
{
	struct llm_region_open o = {.size = sizeof(o), .flags = flags};
	int rc;

	strncpy((char *)o.name, name, sizeof(o.name) - 1);
	rc = ioctl(ctl, LLM_IOC_REGION_OPEN, &o);
	*fd = rc ? -1 : o.fd;
	return rc;
}

static int destroy_it(const char *name)
{
	struct llm_region_name n = {.size = sizeof(n)};

	strncpy((char *)n.name, name, sizeof(n.name) - 1);
	return ioctl(ctl, LLM_IOC_REGION_DESTROY, &n);
}

static int list_them(void)
{
	static struct llm_region_info info[4];
	struct llm_region_list l = {.size = sizeof(l), .regions = (uintptr_t)info, .count = 4};

	return ioctl(ctl, LLM_IOC_REGION_LIST, &l) ? -1 : (int)l.count;
}

static int info_of(int fd)
{
	struct llm_region_info i = {.size = sizeof(i)};

	return ioctl(fd, LLM_IOC_REGION_INFO, &i);
}

static int seal_again(int fd)
{
	int rc = region_seal(fd);

	return rc && errno == EALREADY ? 0 : rc;
}

static long map(int fd, uint64_t bytes, int prot, unsigned char **p)
{
	*p = mmap(NULL, bytes, prot, MAP_SHARED | MAP_POPULATE, fd, 0);
	return *p == MAP_FAILED ? -1 : 0;
}

static bool life(struct sweep *s, uint64_t bytes, uint32_t flags)
{
	unsigned char *p;
	int fd, ro = -1;

	if (STEP(s, "CREATE", create_with("faulty", bytes, flags | LLM_REGION_PERSISTENT, &fd)) ||
	    STEP(s, "mmap", map(fd, bytes, PROT_READ | PROT_WRITE, &p)))
		return false;
	region_pattern(p, bytes, 5);
	munmap(p, bytes);
	if (STEP_OR(s, "SEAL", region_seal(fd), seal_again(fd)) || close(fd) ||
	    STEP(s, "OPEN", open_with("faulty", 0, &ro)) ||
	    STEP(s, "mmap to read", map(ro, bytes, PROT_READ, &p)) ||
	    STEP(s, "INFO", info_of(ro)) || STEP(s, "LIST", list_them()) != 1 ||
	    !region_has_pattern(p, bytes, 5) ||
	    STEP_OR(s, "DESTROY", destroy_it("faulty"), destroy_it("faulty")))
		return false;
	munmap(p, bytes);
	return !close(ro) && !list_them();
}

static bool small(struct sweep *s)
{
	return life(s, 16 * 4096, 0);
}

static bool huge(struct sweep *s)
{
	return life(s, HUGE, LLM_REGION_HUGE);
}

static bool mixed(struct sweep *s)
{
	return life(s, HUGE + 4 * 4096, 0);
}

int main(void)
{
	int64_t shmem, before;

	if (!faults_on()) {
		printf("ok 1 - # SKIP this kernel has no fault injection\n1..1\n");
		return 0;
	}
	ctl = control();
	before = free_memory();
	shmem = meminfo("Shmem:");
	sweep("small pages", small);
	sweep("HUGE", huge);
	sweep("both", mixed);
	/* Processors count for themselves first. */
	write_file("/proc/sys/vm/stat_refresh", "1");
	check(meminfo("Shmem:") < shmem + (int64_t)MIB, "no shared memory is left (%lld bytes)",
	      (long long)(meminfo("Shmem:") - shmem));
	/* KASAN keeps what was freed last: a 32nd of the memory. */
	check(memory_is_back(before - (int64_t)(32 * MIB)), "all memory is back");
	close(ctl);
	return done();
}
