// SPDX-License-Identifier: MIT
/* Memory pressure, told by the kernel; see pressure.h. Owns the three descriptors. */
#include "llmdevd/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "llm.h"
#include "weights/placement.h"

/*
 * Tasks stood still for memory during 200 ms of 2 s. Windows that are multiples of 2 s need no
 * privilege.
 */
static const char trigger[] = "some 200000 2000000";

#define MACHINE_PSI "/proc/pressure/memory"

static int open_psi(const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC), error;

	if (fd < 0)
		return -errno;
	if (write(fd, trigger, sizeof(trigger)) == sizeof(trigger))
		return fd;
	error = errno;
	close(fd);
	return -error;
}

/* The pressure file of the process's own cgroup (version 2), which is what limits it. */
static int open_own_psi(char *path, size_t n)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[512];
	int fd = -ENOENT;

	while (f && fd < 0 && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "0::/", 4) || !line[4])
			continue;
		snprintf(path, n, "/sys/fs/cgroup%s/memory.pressure", line + 3);
		fd = open_psi(path);
	}
	if (f)
		fclose(f);
	if (fd >= 0)
		return fd;
	snprintf(path, n, MACHINE_PSI);
	return open_psi(path);
}

/* -1: no module, or one without floors, or not for this user. */
static int open_control(void)
{
	struct llm_query q = {.size = sizeof(q)};
	int fd = open("/dev/llm-control", O_RDWR | O_CLOEXEC);

	if (fd >= 0 && !ioctl(fd, LLM_IOC_QUERY, &q) && q.features & LLM_FEATURE_RECLAIM)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static bool watch(struct pressure *p, int fd)
{
	struct epoll_event ev = {.events = EPOLLPRI, .data.fd = fd};

	return fd >= 0 && !epoll_ctl(p->poll_fd, EPOLL_CTL_ADD, fd, &ev);
}

int pressure_open(struct pressure *p, const char *where, struct err *e)
{
	bool choose = !strcmp(where, "auto"), psi, floors;
	char path[600];

	*p = (struct pressure){.poll_fd = -1, .psi_fd = -1, .control_fd = -1};
	if (!strcmp(where, "off"))
		return 0;
	snprintf(path, sizeof(path), "%s", where);
	p->psi_fd = choose ? open_own_psi(path, sizeof(path)) : open_psi(where);
	if (p->psi_fd < 0 && !choose)
		return err_set(e, p->psi_fd,
			       "--pressure: %s: %s: give a cgroup's memory.pressure, auto or off",
			       where, strerror(-p->psi_fd));
	if (choose)
		p->control_fd = open_control();
	p->machine = choose && !strcmp(path, MACHINE_PSI);
	p->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	psi = p->poll_fd >= 0 && watch(p, p->psi_fd);
	floors = p->poll_fd >= 0 && watch(p, p->control_fd);
	if (!psi && !floors) {
		pressure_close(p);
		return choose ? 0 : err_set(e, -EINVAL, "--pressure: %s: cannot be watched", where);
	}
	snprintf(p->source, sizeof(p->source), "%s%s%.120s", floors ? "the module's floors" : "",
		 floors && psi ? ", " : "", psi ? path : "");
	return 0;
}

void pressure_close(struct pressure *p)
{
	if (p->poll_fd >= 0)
		close(p->poll_fd);
	if (p->psi_fd >= 0)
		close(p->psi_fd);
	if (p->control_fd >= 0)
		close(p->control_fd);
	p->poll_fd = p->psi_fd = p->control_fd = -1;
}

/* Asking is what makes the module's file quiet again. */
static bool floors_told(struct pressure *p)
{
	struct llm_mem_status st = {.size = sizeof(st)};

	return !ioctl(p->control_fd, LLM_IOC_MEM_STATUS, &st) && st.pressure;
}

static bool machine_is_short(void)
{
	struct sysinfo si;

	return !sysinfo(&si) && placement_available() < (uint64_t)si.totalram * si.mem_unit / 8;
}

bool pressure_told(struct pressure *p)
{
	struct epoll_event ev[2];
	bool told = false;
	int n;

	if (p->poll_fd < 0)
		return false;
	n = epoll_wait(p->poll_fd, ev, 2, 0);
	for (int i = 0; i < n; i++) {
		if (ev[i].events & EPOLLERR) /* its cgroup is gone: it would be told for ever */
			epoll_ctl(p->poll_fd, EPOLL_CTL_DEL, ev[i].data.fd, NULL);
		else if (ev[i].data.fd == p->control_fd)
			told |= floors_told(p);
		else
			told |= !p->machine || machine_is_short();
	}
	return told;
}

enum relief pressure_next(struct pressure *p, uint64_t now_ns)
{
	bool goes_on = p->told_ns && now_ns - p->told_ns < PRESSURE_CALM_NS;

	p->told_ns = now_ns;
	if (!goes_on)
		p->last = RELIEF_CACHE;
	else if (p->last < RELIEF_QUEUE)
		p->last++;
	return p->last;
}

bool pressure_refuses(const struct pressure *p, uint64_t now_ns)
{
	return p->last == RELIEF_QUEUE && now_ns - p->told_ns < PRESSURE_CALM_NS;
}
