/* SPDX-License-Identifier: MIT */
/* The event loop: one epoll set, sources in it, and what is to be freed once no event can name it. */
#ifndef HTTP_LOOP_H
#define HTTP_LOOP_H

#include <stdbool.h>
#include <stdint.h>

/* Embedded first in what it watches for. All zero: watches nothing. */
struct source {
	/* Called with EPOLL* bits. NULL: dead, its events of this round are dropped. */
	void (*ready)(struct source *s, uint32_t events);
	struct source *next_dead;
	void (*release)(struct source *s);
	int fd;
	bool watched;
};

struct loop {
	int epoll_fd;
	struct source *dead;
};

int loop_open(struct loop *l); /* 0 or -errno */
void loop_close(struct loop *l);
/* Watch s->fd for `events`, or change what it is watched for. 0 or -errno. */
int loop_watch(struct loop *l, struct source *s, uint32_t events);
void loop_unwatch(struct loop *l, struct source *s);
/* s->release is called before the next round: until then events may still name it. */
void loop_bury(struct loop *l, struct source *s);
/* One round: waits up to timeout_ms (< 0: as long as it takes), calls what is ready. */
void loop_step(struct loop *l, int timeout_ms);

uint64_t loop_now_ns(void); /* CLOCK_MONOTONIC */

#endif
