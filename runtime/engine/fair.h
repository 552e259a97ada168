/* SPDX-License-Identifier: MIT */
/*
 * Who goes next: fair queueing between principals, and the order of one principal's requests.
 *
 * Between principals. Each has a virtual time: the work that was done for it, divided by the weight
 * of the requests it was done for. The one with the least goes first; one that comes back from idling
 * starts where the least of the active ones stands, so that nobody saves up. Work is counted in
 * tokens: a prompt token is 1, a generated one FAIR_DECODE_WORK. (Start-time fair queueing, Goyal et
 * al., SIGCOMM '96; token counters, Sheng et al., OSDI '24.) A request's weight is 1.25^-priority,
 * nice(2)'s ladder: a flood of requests, or of priorities within what one may ask for, takes nothing
 * from anybody else.
 *
 * Within a principal. A request is due when as much work has been done as it asks for itself,
 * counted from its arrival, and FAIR_PRIORITY_WORK later for each step of priority, of which 0 is
 * the first. So equals are served in order of arrival, small ones need not wait for large ones, and
 * every request is the first one day, whatever comes after it. One with a deadline is due then, if
 * that is earlier: before those of its priority that have none, unless they have waited for long.
 *
 * `promised` is the virtual time as it will be when all admitted prompts are computed. Admission goes
 * by it, or the first to come would take all places before any work was counted.
 */
#ifndef LLMDEV_ENGINE_FAIR_H
#define LLMDEV_ENGINE_FAIR_H

#include <stdint.h>

#include "base/heap.h"

#define FAIR_DECODE_WORK   2
#define FAIR_PRIORITY_WORK 65536.0

struct request;

/* Exists while it has unfinished requests, and after that until its virtual time is nobody's past. */
struct principal {
	uint64_t id;
	struct principal *next;         /* in its bucket */
	double vtime, promised;
	int n_requests;                 /* unfinished */
	int n_running;
	struct heap waiting;            /* request.wait_node, by due */
	struct heap_node active_node;   /* in fair.active, by vtime, while n_requests */
	struct heap_node waiting_node;  /* in fair.waiting, by promised, while any waits */
};

#define FAIR_BUCKETS 256

struct fair {
	struct principal *bucket[FAIR_BUCKETS];
	int n_principals;               /* idle ones included */
	struct heap active, waiting;
	int n_waiting;                  /* requests */
	double work;                    /* done in all */
};

void fair_init(struct fair *f);
void fair_free(struct fair *f);

/* 1.25^-priority */
double fair_weight(int priority);

/*
 * A request of this principal begins to exist. NULL: no memory. Whatever happens to the request,
 * queueing it later cannot fail.
 */
struct principal *fair_enter(struct fair *f, uint64_t id);
/* It is over; it neither waits nor runs. The principal may be gone after this. */
void fair_leave(struct fair *f, struct principal *p);

void fair_wait(struct fair *f, struct request *r);
/* One that does not wait is left alone. */
void fair_unwait(struct fair *f, struct request *r);
/* The principal's first waiting request, NULL if none waits. */
struct request *fair_first(const struct principal *p);
/* The request to admit next, NULL if none waits. */
struct request *fair_next(const struct fair *f);

/* `tokens` of work will be done for it, or (negative) will not. */
void fair_promise(struct fair *f, struct principal *p, double tokens, double weight);
/* Work that was promised was done. */
void fair_charge(struct fair *f, struct principal *p, double tokens, double weight);

#endif
