// SPDX-License-Identifier: MIT
/* loop.h. */
#include <errno.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "http/loop.h"

#define ROUND 64 /* events of one round */

uint64_t loop_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int loop_open(struct loop *l)
{
	l->dead = NULL;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return l->epoll_fd < 0 ? -errno : 0;
}

static void release_dead(struct loop *l)
{
	while (l->dead) {
		struct source *s = l->dead;

		l->dead = s->next_dead;
		s->release(s);
	}
}

void loop_close(struct loop *l)
{
	release_dead(l);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	l->epoll_fd = -1;
}

int loop_watch(struct loop *l, struct source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};

	if (epoll_ctl(l->epoll_fd, s->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &ev))
		return -errno;
	s->watched = true;
	return 0;
}

void loop_unwatch(struct loop *l, struct source *s)
{
	if (s->watched)
		epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->watched = false;
}

void loop_bury(struct loop *l, struct source *s)
{
	loop_unwatch(l, s);
	s->ready = NULL;
	s->next_dead = l->dead;
	l->dead = s;
}

void loop_step(struct loop *l, int timeout_ms)
{
	struct epoll_event ev[ROUND];
	int n;

	release_dead(l);
	n = epoll_wait(l->epoll_fd, ev, ROUND, timeout_ms);

	for (int i = 0; i < n; i++) {
		struct source *s = ev[i].data.ptr;

		if (s->ready)
			s->ready(s, ev[i].events);
	}
}
