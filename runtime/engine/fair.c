// SPDX-License-Identifier: MIT
/* Fair queueing; see fair.h. */
#include "engine/fair.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_internal.h"

static bool less_served(const struct heap_node *a, const struct heap_node *b)
{
	return heap_entry(a, struct principal, active_node)->vtime <
	       heap_entry(b, struct principal, active_node)->vtime;
}

static bool less_promised(const struct heap_node *a, const struct heap_node *b)
{
	const struct principal *p = heap_entry(a, struct principal, waiting_node);
	const struct principal *q = heap_entry(b, struct principal, waiting_node);

	return p->promised != q->promised ? p->promised < q->promised
					  : request_before(fair_first(p), fair_first(q));
}

static bool due_before(const struct heap_node *a, const struct heap_node *b)
{
	return request_before(heap_entry(a, struct request, wait_node),
			      heap_entry(b, struct request, wait_node));
}

void fair_init(struct fair *f)
{
	memset(f, 0, sizeof(*f));
	f->active.before = less_served;
	f->waiting.before = less_promised;
}

static void principal_free(struct principal *p)
{
	heap_free(&p->waiting);
	free(p);
}

void fair_free(struct fair *f)
{
	for (int i = 0; i < FAIR_BUCKETS; i++)
		for (struct principal *p = f->bucket[i], *next; p; p = next) {
			next = p->next;
			principal_free(p);
		}
	heap_free(&f->active);
	heap_free(&f->waiting);
}

double fair_weight(int priority)
{
	return pow(1.25, -priority);
}

static struct principal **slot_of(struct fair *f, uint64_t id)
{
	struct principal **p = &f->bucket[(id ^ id >> 8 ^ id >> 32) % FAIR_BUCKETS];

	while (*p && (*p)->id != id)
		p = &(*p)->next;
	return p;
}

static struct principal *principal_new(struct fair *f, uint64_t id)
{
	struct principal *p = calloc(1, sizeof(*p));

	if (!p || heap_reserve(&f->active, f->n_principals + 1) ||
	    heap_reserve(&f->waiting, f->n_principals + 1)) {
		free(p);
		return NULL;
	}
	p->id = id;
	p->waiting.before = due_before;
	p->active_node.index = p->waiting_node.index = -1;
	f->n_principals++;
	return p;
}

/* Idle ones are remembered only where they have had more than the least served active one. */
static void forget_idle(struct fair *f)
{
	struct heap_node *least = heap_first(&f->active);
	double now = least ? heap_entry(least, struct principal, active_node)->vtime : INFINITY;

	for (int i = 0; i < FAIR_BUCKETS; i++)
		for (struct principal **at = &f->bucket[i]; *at;) {
			struct principal *p = *at;

			if (p->n_requests || p->vtime > now) {
				at = &p->next;
				continue;
			}
			*at = p->next;
			principal_free(p);
			f->n_principals--;
		}
}

struct principal *fair_enter(struct fair *f, uint64_t id)
{
	struct principal **at = slot_of(f, id), *p = *at;
	struct heap_node *least = heap_first(&f->active);

	if (!p) {
		p = principal_new(f, id);
		if (!p)
			return NULL;
		*at = p;
	}
	if (heap_reserve(&p->waiting, p->n_requests + 1)) {
		if (!p->n_requests)
			forget_idle(f);
		return NULL;
	}
	if (!p->n_requests++) {
		double now = least ? heap_entry(least, struct principal, active_node)->vtime : 0;

		if (p->vtime < now)
			p->vtime = now;
		p->promised = p->vtime;
		heap_push(&f->active, &p->active_node);
	}
	return p;
}

void fair_leave(struct fair *f, struct principal *p)
{
	if (--p->n_requests)
		return;
	heap_remove(&f->active, &p->active_node);
	/* Nobody is active: all begin anew together. Else now and then, so that few are looked at. */
	if (!f->active.n || f->n_principals > 2 * f->active.n + 64)
		forget_idle(f);
}

struct request *fair_first(const struct principal *p)
{
	struct heap_node *n = heap_first(&p->waiting);

	return n ? heap_entry(n, struct request, wait_node) : NULL;
}

void fair_wait(struct fair *f, struct request *r)
{
	struct principal *p = r->who;

	heap_push(&p->waiting, &r->wait_node);
	if (p->waiting_node.index < 0)
		heap_push(&f->waiting, &p->waiting_node);
	else
		heap_update(&f->waiting, &p->waiting_node);
	f->n_waiting++;
}

void fair_unwait(struct fair *f, struct request *r)
{
	struct principal *p = r->who;

	if (r->wait_node.index < 0)
		return;
	heap_remove(&p->waiting, &r->wait_node);
	if (p->waiting.n)
		heap_update(&f->waiting, &p->waiting_node);
	else
		heap_remove(&f->waiting, &p->waiting_node);
	f->n_waiting--;
}

struct request *fair_next(const struct fair *f)
{
	struct heap_node *n = heap_first(&f->waiting);

	return n ? fair_first(heap_entry(n, struct principal, waiting_node)) : NULL;
}

void fair_promise(struct fair *f, struct principal *p, double tokens, double weight)
{
	p->promised += tokens / weight;
	if (p->waiting_node.index >= 0)
		heap_update(&f->waiting, &p->waiting_node);
}

void fair_charge(struct fair *f, struct principal *p, double tokens, double weight)
{
	p->vtime += tokens / weight;
	f->work += tokens;
	heap_update(&f->active, &p->active_node);
}
