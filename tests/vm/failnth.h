/* SPDX-License-Identifier: MIT */
/*
 * Makes the n-th allocation (or copy from or to user memory) of one system call fail, on kernels
 * with fault injection.
 *
 *	if (!faults_on()) ... skip
 *	faults_arm(n); rc = ioctl(...); hit = faults_disarm();
 *
 * For a sweep over a chain of calls see SWEEP below and its use in test_failnth.c.
 */
#ifndef LLMDEV_TESTS_VM_FAILNTH_H
#define LLMDEV_TESTS_VM_FAILNTH_H

#include "tests/vm/vm.h"

static int fault_file = -1;

__attribute__((unused)) static bool fault_set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) > 0;

	close(fd);
	return ok;
}

/* False: this kernel has no fault injection. Otherwise every kind of allocation may fail from now on. */
__attribute__((unused)) static bool faults_on(void)
{
	static const char *const knob[][2] = {
		{"failslab/ignore-gfp-wait", "N"},
		{"failslab/verbose", "0"},
		{"fail_page_alloc/ignore-gfp-wait", "N"},
		{"fail_page_alloc/ignore-gfp-highmem", "N"},
		{"fail_page_alloc/min-order", "0"},
		{"fail_page_alloc/verbose", "0"},
		{"fail_usercopy/verbose", "0"},
	};
	char path[128];

	fault_file = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (fault_file < 0)
		return false;
	for (size_t i = 0; i < sizeof(knob) / sizeof(knob[0]); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s", knob[i][0]);
		if (!fault_set(path, knob[i][1]))
			check(false, "%s: set", path);
	}
	return true;
}

/* Of this thread only; n = 1: the first one. */
__attribute__((unused)) static void faults_arm(unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	/* This copies from user memory as well: it may be what fails. */
	for (int i = 0; pwrite(fault_file, text, (size_t)len, 0) != len; i++)
		if (i || errno != EFAULT)
			abort();
}

/* Whether something failed since. errno stays. */
__attribute__((unused)) static bool faults_disarm(void)
{
	char text[16] = "1"; /* what fails in here was not in the call */
	int e = errno;

	if (pread(fault_file, text, sizeof(text) - 1, 0) <= 0 && errno != EFAULT)
		abort();
	faults_arm(0);
	errno = e;
	return text[0] == '0';
}

/* ---- sweeps -------------------------------------------------------------------------------------------- */

/*
 * A chain is a function that makes calls one after the other, each in STEP. Run once for each call
 * and each n: the n-th allocation within that call fails. A call that was refused for it has to have
 * changed nothing: it is made again and has to work, and the chain has to come to its end as ever.
 */
struct sweep {
	unsigned int target, nth; /* step whose nth allocation fails */
	unsigned int step; /* of this run */
	bool hit; /* it failed */
	unsigned int hits, refusals, wrong; /* of all runs */
	const char *what; /* the step */
	char last[128]; /* what went wrong last */
};

#define WRONG(s, ...)                                                                              \
	do {                                                                                       \
		(s)->wrong++;                                                                      \
		snprintf((s)->last, sizeof((s)->last), __VA_ARGS__);                               \
	} while (0)

/*
 * The result of `call`, -1 and errno. What a copy to or from user memory refuses (EFAULT) may have
 * happened: `again` says what is made to find out, usually the call itself.
 */
#define STEP_OR(s, name, call, again)                                                              \
	({                                                                                         \
		long r_;                                                                           \
		bool mine_ = (s)->step++ == (s)->target;                                           \
		if (mine_) {                                                                       \
			(s)->what = name;                                                          \
			faults_arm((s)->nth);                                                      \
		}                                                                                  \
		r_ = (call);                                                                       \
		if (mine_) {                                                                       \
			(s)->hit = faults_disarm();                                                \
			(s)->hits += (s)->hit;                                                     \
			if ((s)->hit && r_ < 0) {                                                  \
				(s)->refusals++;                                                   \
				if (errno != ENOMEM && errno != EFAULT && errno != EAGAIN)         \
					WRONG(s, "%s: fault %u: errno %d", name, (s)->nth, errno); \
				r_ = (again);                                                      \
			}                                                                          \
		}                                                                                  \
		r_;                                                                                \
	})
#define STEP(s, name, call) STEP_OR(s, name, call, call)

__attribute__((unused)) static int open_files(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/*
 * Sweeps over `chain`, which returns whether all went as ever; one check for each of its calls but the
 * first `without`.
 */
__attribute__((unused)) static void sweep_after(unsigned int without, const char *name,
						bool (*chain)(struct sweep *))
{
	struct sweep s = {.target = ~0u};
	unsigned int steps, files = (unsigned int)open_files();

	if (!check(chain(&s), "%s: without a fault", name)) {
		printf("# after %u calls\n", s.step);
		return;
	}
	steps = s.step;
	for (unsigned int target = without; target < steps; target++) {
		s = (struct sweep){.target = target};
		do {
			s.nth++;
			s.step = 0;
			s.hit = false;
			if (!chain(&s))
				WRONG(&s,
				      "%s: fault %u: the chain did not come to its end, errno %d",
				      s.what, s.nth, errno);
			if ((unsigned int)open_files() != files) {
				WRONG(&s, "%s: fault %u: %d open files instead of %u", s.what,
				      s.nth, open_files(), files);
				files = (unsigned int)open_files();
			}
		} while (s.hit && s.nth < 1000);
		if (!check(!s.wrong && s.nth < 1000, "%s: %s: %u faults, %u refusals%s%s", name,
			   s.what, s.hits, s.refusals, s.wrong ? ": " : "", s.last))
			return; /* what follows would only say so again */
	}
}

__attribute__((unused)) static void sweep(const char *name, bool (*chain)(struct sweep *))
{
	sweep_after(0, name, chain);
}

#endif
