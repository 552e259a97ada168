/* SPDX-License-Identifier: MIT */
/*
 * When the machine runs short of memory, and what the daemon gives up for it then.
 *
 * Two sources, both watched where they can be had: the kernel's pressure stall information (a PSI
 * trigger on the process's cgroup, else on the machine: Documentation/accounting/psi.rst), and the
 * floors that the module llm watches (uapi/llm.h, struct llm_mem_status). The machine's stalls may be
 * those of somebody who meets a limit of his own: they count only while less than 1/8 of the memory is
 * available.
 *
 * What is given up goes step by step, the least harmful first, one step for each time that pressure is
 * told within PRESSURE_CALM_NS of the last: what is kept only because it might be wanted again, the
 * conversations that nobody asks now (they are computed again), and at last the queue: what waits is
 * refused, and what comes, until it has been calm for so long.
 */
#ifndef LLMDEV_LLMDEVD_PRESSURE_H
#define LLMDEV_LLMDEVD_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define PRESSURE_CALM_NS UINT64_C(10000000000)

enum relief { RELIEF_NONE, RELIEF_CACHE, RELIEF_IDLE, RELIEF_QUEUE };

struct pressure {
	int poll_fd; /* epoll of the following; -1: nothing is watched */
	int psi_fd;
	int control_fd;
	bool machine; /* psi_fd tells of the whole machine */
	enum relief last;
	uint64_t told_ns; /* when pressure was last told, CLOCK_MONOTONIC; 0: never */
	char source[160]; /* what is watched, for people; empty: nothing */
};

/*
 * `where`: "auto", "off", or the path of a PSI file (a cgroup's memory.pressure). "auto" takes what
 * there is, and fails never. pressure_close() in any case.
 */
int pressure_open(struct pressure *p, const char *where, struct err *e);
void pressure_close(struct pressure *p);
/* Readable when there is something to be told; -1: never. */
static inline int pressure_fd(const struct pressure *p)
{
	return p->poll_fd;
}
/* Was pressure told since the last call? Does not wait. */
bool pressure_told(struct pressure *p);

/* Pressure was told now: what is to be given up. */
enum relief pressure_next(struct pressure *p, uint64_t now_ns);
/* The queue is still closed. */
bool pressure_refuses(const struct pressure *p, uint64_t now_ns);

#endif
