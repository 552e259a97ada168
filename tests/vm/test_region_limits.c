// SPDX-License-Identifier: MIT
/*
 * Regions that do not fit, or not at once: the machine, RLIMIT_MEMLOCK, a memory cgroup, too little
 * that is in one piece, a creator who is killed. All memory is back each time, nobody else is killed.
 */
#include "tests/vm/region.h"

#define PAGE 4096u

static int64_t kills(void)
{
	return number_in("/proc/vmstat", "oom_kill ");
}

static uint64_t round_to_huge(int64_t bytes)
{
	return (uint64_t)bytes / HUGE * HUGE;
}

/* ---- the machine ------------------------------------------------------------------------------------------- */

static void machine(void)
{
	int64_t before = free_memory(), killed = kills(), shmem = meminfo("Shmem:");
	uint64_t much = round_to_huge(meminfo("MemAvailable:") * 7 / 10);
	pid_t child[3];
	int works = 0, status;

	refused(region_create("r", round_to_huge(meminfo("MemTotal:")) + HUGE, 0), ENOMEM,
		"more than the machine has: ENOMEM");
	refused(region_create("r", round_to_huge(meminfo("MemAvailable:")) + 16 * HUGE, 0), ENOMEM,
		"more than it has left: ENOMEM");
	check(meminfo("Shmem:") < shmem + (int64_t)(8 * MIB), "nothing of it stays");
	/* Each would fit alone. */
	for (int i = 0; i < 3; i++) {
		child[i] = fork();
		if (!child[i]) {
			char name[8];
			int fd;

			snprintf(name, sizeof(name), "r%d", i);
			fd = region_create(name, much, 0);
			_exit(fd >= 0 ? 0 : errno == ENOMEM ? 1 : 2);
		}
	}
	for (int i = 0; i < 3; i++) {
		waitpid(child[i], &status, 0);
		check(WIFEXITED(status) && WEXITSTATUS(status) < 2,
		      "one of three that do not fit together: made, or ENOMEM");
		works += WIFEXITED(status) && !WEXITSTATUS(status);
	}
	printf("# %d of them were made\n", works);
	check(kills() == killed, "nobody was killed");
	check(memory_is_back(before), "all memory is back");
}

/* ---- a creator at work ------------------------------------------------------------------------------------- */

static pid_t create_slowly(uint64_t bytes, int *result)
{
	int both[2];
	pid_t pid;

	if (pipe(both))
		return -1;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		int fd = region_create("slow", bytes, LLM_REGION_PERSISTENT),
		    e = fd >= 0 ? 0 : errno;

		_exit(write(both[1], &e, sizeof(e)) != sizeof(e));
	}
	close(both[1]);
	*result = both[0];
	return pid;
}

/* Whether CREATE was seen at work. */
static bool seen(struct llm_region_info *i)
{
	for (int n = 0; n < 100000; n++) {
		region_list("slow", i);
		if (i->flags & LLM_REGION_ALLOCATING && i->resident)
			return true;
		if (i->size && !(i->flags & LLM_REGION_ALLOCATING))
			return false;
	}
	return false;
}

static void at_work(void)
{
	int64_t before = free_memory();
	uint64_t much = round_to_huge(meminfo("MemAvailable:") * 7 / 10);
	struct llm_region_info i;
	int result, e = -1, status, tries;
	bool killed = false, cancelled = false;
	pid_t pid;

	for (tries = 0; tries < 20 && !killed; tries++) {
		pid = create_slowly(much, &result);
		if (seen(&i)) {
			check(i.resident < i.bytes && i.bytes == much && i.pid == pid && !i.files,
			      "others see a CREATE at work (%llu of %llu MiB)",
			      (unsigned long long)(i.resident / MIB),
			      (unsigned long long)(much / MIB));
			refused(region_open("slow", 0), EAGAIN, "OPEN: EAGAIN");
			refused(region_create("slow", HUGE, 0), EEXIST,
				"CREATE of that name: EEXIST");
			kill(pid, SIGKILL);
			killed = read(result, &e, sizeof(e)) != sizeof(e);
		}
		waitpid(pid, &status, 0);
		close(result);
		region_destroy("slow");
	}
	check(killed, "its process can be killed");
	check(!region_list("", NULL), "there is no such region then");
	check(memory_is_back(before), "all memory is back");
	for (tries = 0; tries < 20 && !cancelled; tries++) {
		pid = create_slowly(much, &result);
		if (seen(&i)) {
			works(region_destroy("slow"), "DESTROY of it");
			cancelled = read(result, &e, sizeof(e)) == sizeof(e) && e == ECANCELED;
		}
		waitpid(pid, &status, 0);
		close(result);
		region_destroy("slow");
	}
	check(cancelled, "ends it with ECANCELED");
	check(memory_is_back(before), "all memory is back");
}

/* ---- RLIMIT_MEMLOCK ---------------------------------------------------------------------------------------- */

static bool as_user(uid_t uid, uint64_t limit)
{
	struct rlimit rl = {limit, limit};

	return !setrlimit(RLIMIT_MEMLOCK, &rl) && become(uid);
}

static bool second_process(void)
{
	int fd;

	if (!as_user(1001, 8 * MIB))
		return false;
	refused(region_create("b", 4 * MIB, 0), ENOMEM,
		"another process of the user: 4 MiB more: ENOMEM");
	fd = works(region_create("b", 2 * MIB, 0), "2 MiB more");
	close(fd);
	return fd >= 0;
}

static bool other_user(void)
{
	return as_user(1002, 8 * MIB) && region_create("c", 8 * MIB, 0) >= 0;
}

static bool first_process(void)
{
	int fd;

	if (!as_user(1001, 8 * MIB))
		return false;
	refused(region_create("a", 10 * MIB, 0), ENOMEM,
		"10 MiB, where RLIMIT_MEMLOCK is 8: ENOMEM");
	fd = works(region_create("a", 6 * MIB, 0), "6 MiB");
	check(write_file("/tmp/go", "x") && fd >= 0, "the others may begin");
	while (access("/tmp/end", F_OK))
		usleep(10000);
	close(fd);
	fd = works(region_create("a", 8 * MIB, 0), "it is given back: 8 MiB");
	close(fd);
	refused(region_create("a", 8 * MIB + PAGE, 0), ENOMEM, "a page more: ENOMEM");
	return fd >= 0;
}

/* Somebody who asks for too much, again and again, takes nothing from the user's other processes. */
static bool too_much_beside(void)
{
	int made = 0;
	pid_t pid;

	if (!as_user(1003, 8 * MIB))
		return false;
	fflush(stdout);
	pid = fork();
	if (!pid)
		for (;;)
			region_create("much", (uint64_t)1 << 45, 0);
	for (int i = 0; i < 200; i++) {
		int fd = region_create("d", 16 * PAGE, 0);

		made += fd >= 0;
		close(fd);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (made < 200)
		printf("# %d of 200 were made\n", made);
	return made == 200;
}

static bool with_right(void)
{
	struct rlimit rl = {0, 0};

	return !setrlimit(RLIMIT_MEMLOCK, &rl) && region_create("d", 8 * MIB, 0) >= 0;
}

static void memlock(void)
{
	int fd = open("/tmp/go", O_CREAT | O_WRONLY | O_CLOEXEC, 0666), status;
	pid_t pid;

	close(fd);
	chmod("/tmp/go", 0666);
	region_share();
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(first_process() ? 0 : 1);
	for (struct stat st;
	     !stat("/tmp/go", &st) && !st.st_size && !waitpid(pid, &status, WNOHANG);)
		usleep(10000);
	check(in_child(second_process()), "RLIMIT_MEMLOCK counts all processes of a user");
	check(in_child(other_user()), "not another user's");
	close(open("/tmp/end", O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
	check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status),
	      "the first process");
	check(in_child(too_much_beside()), "what is refused is never counted");
	check(in_child(with_right()), "CAP_IPC_LOCK: no limit");
}

/* ---- a memory cgroup --------------------------------------------------------------------------------------- */

#define CGROUP "/sys/fs/cgroup/small"

static bool in_cgroup(void)
{
	int fd;

	if (!write_file(CGROUP "/cgroup.procs", "0"))
		return false;
	refused(region_create("r", 64 * MIB, 0), ENOMEM, "64 MiB in a memory cgroup of 24: ENOMEM");
	check(number_in(CGROUP "/memory.events", "max ") > 0, "the limit was met");
	check(number_in(CGROUP "/memory.current", "") < (int64_t)(4 * MIB),
	      "nothing stays charged");
	fd = works(region_create("r", 8 * MIB, LLM_REGION_PERSISTENT), "8 MiB");
	check(number_in(CGROUP "/memory.stat", "unevictable ") == (int64_t)(8 * MIB),
	      "they are charged, as unevictable");
	works(region_seal(fd), "SEAL, so that it stays");
	close(fd);
	return fd >= 0;
}

static void cgroup(void)
{
	int64_t before = free_memory();

	if (!write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory") ||
	    mkdir(CGROUP, 0755) || !write_file(CGROUP "/memory.max", "24M")) {
		printf("ok - # SKIP no memory cgroups\n");
		return;
	}
	check(in_child(in_cgroup()), "its process lives");
	check(!number_in(CGROUP "/memory.events", "oom_kill "), "nobody was killed");
	check(number_in(CGROUP "/memory.current", "") >= (int64_t)(8 * MIB),
	      "the region is charged when its creator is gone");
	works(region_destroy("r"), "DESTROY");
	check(number_in(CGROUP "/memory.current", "") < (int64_t)(4 * MIB), "then it is not");
	check(!rmdir(CGROUP), "the cgroup can go");
	check(memory_is_back(before), "all memory is back");
}

/* ---- huge pages -------------------------------------------------------------------------------------------- */

/* Takes nearly all memory page by page, and gives back every other page. */
static unsigned char *fragment(uint64_t *size)
{
	uint64_t bytes = (uint64_t)meminfo("MemTotal:"), used = 0;
	unsigned char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, bytes, MADV_NOHUGEPAGE);
	while (meminfo("MemFree:") > (int64_t)(40 * MIB) && used < bytes) {
		memset(p + used, 1, 4 * MIB);
		used += 4 * MIB;
	}
	for (uint64_t i = 0; i < used; i += 2 * PAGE)
		madvise(p + i, PAGE, MADV_DONTNEED);
	*size = bytes;
	return p;
}

static void huge(void)
{
	static const char deny[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
	struct llm_region_create c = region_creation("huge", 64 * MIB, LLM_REGION_HUGE);
	int64_t before = free_memory();
	uint64_t bytes = 0;
	unsigned char *p;
	int fd;

	p = fragment(&bytes);
	check(p && meminfo("MemFree:") > (int64_t)(100 * MIB), "memory in small pieces");
	/* Pages are moved together for it, which compaction does not always bring about. */
	fd = region_command(&c);
	check(fd >= 0 ? c.huge_bytes == 64 * MIB : errno == ENOMEM,
	      "HUGE: all of it, or ENOMEM (here: %s)", fd >= 0 ? "all" : "ENOMEM");
	close(fd);
	munmap(p, bytes);
	p = fragment(&bytes);
	c = region_creation("huge", 64 * MIB, 0);
	fd = works(region_command(&c), "not required: pages are moved together as well");
	check(c.huge_bytes >= 2 * MIB && region_info(fd).resident == 64 * MIB,
	      "for a part of it (%llu MiB)", (unsigned long long)(c.huge_bytes / MIB));
	close(fd);
	munmap(p, bytes);
	check(memory_is_back(before), "all memory is back");

	check(write_file(deny, "deny"), "no huge pages");
	c = region_creation("huge", 8 * MIB, LLM_REGION_HUGE);
	refused(region_command(&c), ENOMEM, "HUGE: ENOMEM");
	c = region_creation("huge", 8 * MIB, 0);
	fd = works(region_command(&c), "not required: it is made");
	check(!c.huge_bytes && region_info(fd).resident == 8 * MIB, "of small pages");
	works(region_seal(fd), "and can be sealed");
	close(fd);
	write_file(deny, "never");
	/* What is no multiple of 2 MiB ends in small pages. */
	c = region_creation("huge", 5 * MIB, 0);
	fd = works(region_command(&c), "5 MiB");
	check(c.huge_bytes == 4 * MIB && region_info(fd).resident == 5 * MIB,
	      "4 of them in huge pages");
	close(fd);
	check(memory_is_back(before), "all memory is back");
}

/* ---- the reserve ------------------------------------------------------------------------------------------- */

static void reserve(void)
{
	struct llm_mem_reserve m = {.size = sizeof(m)};
	struct llm_mem_status before = {.size = sizeof(before)}, after = before;
	uint64_t bytes = round_to_huge(free_memory() * 6 / 10);
	int fd = control(), region;

	m.bytes = bytes;
	check(!ioctl(fd, LLM_IOC_MEM_RESERVE, &m) && m.held > bytes / 2,
	      "most of the free memory is held");
	ioctl(fd, LLM_IOC_MEM_STATUS, &before);
	refused(region_create("r", round_to_huge(meminfo("MemTotal:")), 0), ENOMEM,
		"a region that cannot be");
	ioctl(fd, LLM_IOC_MEM_STATUS, &after);
	check(after.reserve_held == before.reserve_held, "does not cost the reserve");
	region = works(region_create("r", bytes, 0), "a region that needs it");
	ioctl(fd, LLM_IOC_MEM_STATUS, &after);
	check(after.reserve_held < before.reserve_held &&
		      after.released_asked > before.released_asked,
	      "gets what the reserve held");
	close(region);
	m.bytes = 0;
	ioctl(fd, LLM_IOC_MEM_RESERVE, &m);
	close(fd);
}

int main(void)
{
	machine();
	reserve();
	at_work();
	memlock();
	cgroup();
	huge();
	check(region_list("", NULL) == 0, "no region is left");
	return done();
}
