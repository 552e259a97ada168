// SPDX-License-Identifier: MIT
/*
 * The reserve: taken, counted, given back on request, to whoever allocates, and before anybody is
 * killed; not to kswapd, drop_caches or an order to reclaim. Making room, and what is refused.
 *
 * ROUNDS in the environment: how often a process allocates against the reserve (default 5).
 */
#include "tests/vm/memory.h"

/* ---- taking and giving --------------------------------------------------------------------------------- */

static void test_take(void)
{
	uint64_t misc = vmstat("nr_kernel_misc_reclaimable"),
		 page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct llm_mem_status a = status(), b, c;

	check(a.total > a.available && a.available && a.free && a.free_blocks && !a.reserve_held,
	      "before: %u MB free in %u blocks", mb(a.free), (unsigned int)a.free_blocks);
	check(reserve(32 * BLOCK) == 32 * BLOCK, "32 blocks are held");
	b = status();
	check(b.reserve_held == 32 * BLOCK && b.reserve_target == 32 * BLOCK, "and said to be");
	/* Others give and take meanwhile, and processors have lists of their own. */
	check(a.free - b.free > 48 * MB && a.free - b.free < 96 * MB,
	      "MemFree is less by them: %u MB", mb(a.free - b.free));
	/* The kernel leaves out half of what is reclaimable, a low watermark at most. */
	check(a.available < b.available + 40 * MB, "MemAvailable hardly: %u -> %u MB",
	      mb(a.available), mb(b.available));
	check((vmstat("nr_kernel_misc_reclaimable") - misc) * page == 32 * BLOCK,
	      "counted as reclaimable");
	check(!told(ctl, 0), "taking is no event");
	check(reserve(32 * BLOCK) == 32 * BLOCK && status().free + 8 * MB > b.free,
	      "asked twice: the same");
	check(reserve(8 * BLOCK) == 8 * BLOCK, "less is asked for: given back");
	check(told(ctl, 0), "which is an event");
	c = status();
	check(c.released_asked - b.released_asked == 24 * BLOCK && c.events == b.events + 1 &&
		      c.pressure & LLM_PRESSURE_RELEASE,
	      "counted and told");
	check(!told(ctl, 0) && !(status().pressure & LLM_PRESSURE_RELEASE), "once");
	check(reserve(0) == 0 && !status().reserve_held, "nothing is held");
	check(vmstat("nr_kernel_misc_reclaimable") == misc, "nor counted");
}

/* ---- not to everybody ------------------------------------------------------------------------------------ */

static void test_kept(void)
{
	struct llm_mem_status a, b;

	reserve(32 * BLOCK);
	a = status();
	check(write_to("/proc/sys/vm/drop_caches", "2") &&
		      write_to("/proc/sys/vm/drop_caches", "3"),
	      "drop_caches");
	b = status();
	check(b.reserve_held == a.reserve_held, "leaves the reserve alone");
	if (write_to("/sys/fs/cgroup/memory.reclaim", "20M") || errno == EAGAIN)
		check(status().reserve_held == a.reserve_held, "so does an order to reclaim");
	check(write_to("/proc/sys/vm/compact_memory", "1") &&
		      status().reserve_held == a.reserve_held,
	      "and compaction");
	reserve(0);
}

/* ---- several at once --------------------------------------------------------------------------------------- */

static void *lower(void *barrier)
{
	pthread_barrier_wait(barrier);
	reserve(8 * BLOCK);
	return NULL;
}

/* Two ask for the same, less than is held: what is too much goes once. */
static void test_lowered_twice(void)
{
	pthread_barrier_t both;
	int good = 0;

	pthread_barrier_init(&both, NULL, 2);
	for (int i = 0; i < 100; i++) {
		pthread_t other;

		reserve(32 * BLOCK);
		pthread_create(&other, NULL, lower, &both);
		lower(&both);
		pthread_join(other, NULL);
		good += status().reserve_held == 8 * BLOCK;
	}
	check(good == 100, "two ask for less at once: that is what is held, %d times of 100", good);
	pthread_barrier_destroy(&both);
	reserve(0);
}

static _Atomic bool releasing;

static void *release(void *unused)
{
	reserve(0);
	releasing = false;
	return unused;
}

/* Whoever asks while something happens is told of it, then or the next time. */
static void test_told_of_all(void)
{
	int missed = 0;

	for (int i = 0; i < 300; i++) {
		bool seen = false;
		pthread_t other;

		reserve(BLOCK);
		status();
		releasing = true;
		pthread_create(&other, NULL, release, NULL);
		while (releasing)
			seen |= status().pressure & LLM_PRESSURE_RELEASE;
		pthread_join(other, NULL);
		missed += !seen && !told(ctl, 0);
		status();
	}
	check(!missed, "300 events while somebody asks all the time: %d missed", missed);
}

/* ---- who needs it gets it --------------------------------------------------------------------------------- */

/* Allocates until the reserve has given half of what it holds; false: it was killed before. */
static bool allocate_in_a_loop(uint64_t held)
{
	int state;
	pid_t pid = fork();

	if (!pid) {
		int fd = control();

		while (status_of(fd).reserve_held > held / 2) {
			char *m = mmap(NULL, MB, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			if (m == MAP_FAILED)
				_exit(1);
			memset(m, 1, MB);
		}
		_exit(0);
	}
	return waitpid(pid, &state, 0) == pid && WIFEXITED(state) && !WEXITSTATUS(state);
}

/*
 * Each round holds half of what is free. Most of memory is with somebody else meanwhile, so that a round
 * is short.
 */
static void test_given(int rounds)
{
	int good = 0, state, filler_ready = -1, filler_state;
	uint64_t kills = vmstat("oom_kill"), available = status().available;
	uint64_t rest = 64 * MB + 4 * untouchable();
	pid_t filler = hog(available > rest ? available - rest : 0, &filler_ready);
	pid_t bystander = fork();
	struct llm_mem_status a, b;
	char c;

	if (!bystander) {
		pause();
		_exit(0);
	}
	check(read(filler_ready, &c, 1) == 1, "somebody has nearly all memory");
	for (int i = 0; i < rounds; i++) {
		int64_t held = reserve(status().free / 2 / BLOCK * BLOCK);
		bool alive, event;

		a = status();
		alive = allocate_in_a_loop((uint64_t)held);
		event = told(ctl, 0);
		b = status();
		if (alive && event && held > (int64_t)(4 * BLOCK) &&
		    b.pressure & LLM_PRESSURE_RELEASE &&
		    b.released_shrinker + b.released_oom > a.released_shrinker + a.released_oom)
			good++;
		else
			printf("# round %d: alive %d, event %d, held %u -> %u MB, free %u\n", i,
			       alive, event, mb(a.reserve_held), mb(b.reserve_held), mb(a.free));
		if (i % 10 == 9) { /* a machine can look as if it hung */
			printf("# %d rounds after %u s\n", i + 1,
			       (unsigned int)(now_ns() / 1000000000));
			fflush(stdout);
		}
	}
	check(good == rounds, "a process allocates in a loop, %d times: it is given the reserve",
	      rounds);
	b = status();
	printf("# given to reclaim %u MB, before a kill %u MB\n", mb(b.released_shrinker),
	       mb(b.released_oom));
	check(vmstat("oom_kill") == kills, "nobody was killed");
	check(!waitpid(bystander, &state, WNOHANG) && !waitpid(filler, &filler_state, WNOHANG),
	      "no bystander");
	kill(bystander, SIGKILL);
	waitpid(bystander, &state, 0);
	kill(filler, SIGKILL);
	waitpid(filler, &filler_state, 0);
	close(filler_ready);
	reserve(0);
}

/* The kernel's last question before it kills; sysrq asks it, then kills all the same. */
static void test_oom(void)
{
	struct llm_mem_status a, b;
	int ready = -1, state;
	pid_t victim;
	char c;

	reserve(8 * BLOCK);
	a = status();
	victim = hog(4 * MB, &ready);
	check(read(ready, &c, 1) == 1, "somebody who may be killed");
	check(write_to("/proc/sysrq-trigger", "f"), "the OOM killer is called");
	/* Somebody is killed in any case: it had better be still there. */
	check(waitpid(victim, &state, 0) == victim && WIFSIGNALED(state), "which kills that one");
	b = status();
	check(b.released_oom - a.released_oom == 8 * BLOCK && !b.reserve_held,
	      "but the reserve was given before");
	close(ready);
}

/* ---- making room ------------------------------------------------------------------------------------------ */

static void test_room(void)
{
	struct llm_mem_make_room r = {0};
	struct llm_mem_status a, b;

	works(make_room(&r), "nothing is wanted: nothing done");
	reserve(32 * BLOCK);
	a = status();
	r = (struct llm_mem_make_room){.free = a.free + 40 * MB};
	works(make_room(&r), "room is made");
	b = status();
	check(r.free_after >= r.free_before + 36 * MB && b.reserve_held < 32 * BLOCK,
	      "out of the reserve: %u -> %u MB", mb(r.free_before), mb(r.free_after));
	check(b.room_calls == a.room_calls + 1 && b.room_bytes > a.room_bytes, "counted");
	r = (struct llm_mem_make_room){.free = b.total, .max_bytes = 8 * BLOCK};
	works(make_room(&r), "more than there can be: it ends");
	check(status().reserve_held == 0 && r.free_after + 16 * MB > r.free_before,
	      "nothing is kept");
	r = (struct llm_mem_make_room){.free = b.total, .deadline_ns = 1};
	reserve(4 * BLOCK);
	works(make_room(&r), "no time left");
	check(status().reserve_held == 4 * BLOCK, "nothing is done");
	reserve(0);
}

/* ---- what is refused --------------------------------------------------------------------------------------- */

static void test_refused(void)
{
	struct llm_mem_reserve r = {.size = sizeof(r), .bytes = BLOCK};
	struct llm_mem_make_room m = {.size = sizeof(m), .free = MB};
	struct {
		struct llm_mem_reserve r;
		uint64_t tail;
	} longer = {.r = {.size = sizeof(longer)}, .tail = 1};

	r.bytes = BLOCK + 4096;
	refused(ioctl(ctl, LLM_IOC_MEM_RESERVE, &r), EINVAL, "a part of a block");
	r.bytes = status().total / BLOCK * BLOCK + BLOCK;
	refused(ioctl(ctl, LLM_IOC_MEM_RESERVE, &r), EINVAL, "more than there is");
	r.bytes = UINT64_MAX / BLOCK * BLOCK;
	refused(ioctl(ctl, LLM_IOC_MEM_RESERVE, &r), EINVAL, "far more");
	r = (struct llm_mem_reserve){.size = sizeof(r), .flags = 1};
	refused(ioctl(ctl, LLM_IOC_MEM_RESERVE, &r), EOPNOTSUPP, "an unknown flag");
	r = (struct llm_mem_reserve){.size = 16};
	refused(ioctl(ctl, LLM_IOC_MEM_RESERVE, &r), EINVAL, "a short structure");
	refused(ioctl(ctl, LLM_IOC_MEM_RESERVE, &longer), E2BIG,
		"a long one whose tail is not zero");
	refused(ioctl(ctl, LLM_IOC_MEM_RESERVE, NULL), EFAULT, "no structure");
	m.flags = 1;
	refused(ioctl(ctl, LLM_IOC_MEM_MAKE_ROOM, &m), EOPNOTSUPP, "room: an unknown flag");
	m = (struct llm_mem_make_room){.size = sizeof(m), .free = status().total + 1};
	refused(ioctl(ctl, LLM_IOC_MEM_MAKE_ROOM, &m), EINVAL, "room: more than there is");
	m = (struct llm_mem_make_room){.size = sizeof(m), .blocks = status().total / BLOCK + 1};
	refused(ioctl(ctl, LLM_IOC_MEM_MAKE_ROOM, &m), EINVAL, "room: more blocks than there are");
}

int main(void)
{
	const char *rounds = getenv("ROUNDS");

	ctl = control();
	check(ctl >= 0, "the control file");
	test_take();
	test_kept();
	test_lowered_twice();
	test_told_of_all();
	test_room();
	test_refused();
	test_oom();
	test_given(rounds ? atoi(rounds) : 5);
	return done();
}
