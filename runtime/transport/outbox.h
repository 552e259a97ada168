/* SPDX-License-Identifier: MIT */
/*
 * Event records of a channel that wait to leave it, in order: what a socket's connection and a
 * session of the kernel's device have in common. Bounded by what the owner says at each call; the end
 * of a request always finds room. Owned by the channel, used on its thread only.
 */
#ifndef LLMDEV_TRANSPORT_OUTBOX_H
#define LLMDEV_TRANSPORT_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/message.h"

struct outbox {
	uint8_t *v; /* records [head, len) */
	size_t head, len, cap;
	bool full; /* a room() upcall is owed */
};

static inline size_t outbox_held(const struct outbox *o)
{
	return o->len - o->head;
}

/* Bytes that it takes beside those it holds, where it may hold `max`. */
static inline size_t outbox_room(const struct outbox *o, size_t max)
{
	size_t held = outbox_held(o);

	return held >= max ? 0 : max - held;
}

/* A record, as channel_post() says; `max`: what it may hold now. */
int outbox_post(struct outbox *o, size_t max, uint32_t type, uint64_t request_id, uint64_t seq,
		const struct event_part *parts, int n_parts);
/* From the head `n` bytes have left. */
void outbox_take(struct outbox *o, size_t n);
/* Forgets all of them. */
void outbox_clear(struct outbox *o);
void outbox_free(struct outbox *o);

#endif
