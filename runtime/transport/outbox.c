// SPDX-License-Identifier: MIT
/* Records that wait to leave a channel; see outbox.h. */
#include "transport/outbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Room behind `len` for n bytes. */
static int reserve(struct outbox *o, size_t n)
{
	size_t held = outbox_held(o), cap = o->cap ? o->cap : 1024;
	uint8_t *p;

	if (o->head) {
		memmove(o->v, o->v + o->head, held);
		o->head = 0;
		o->len = held;
	}
	while (cap < held + n)
		cap *= 2;
	if (cap == o->cap)
		return 0;
	p = realloc(o->v, cap);
	if (!p)
		return -ENOMEM;
	o->v = p;
	o->cap = cap;
	return 0;
}

int outbox_post(struct outbox *o, size_t max, uint32_t type, uint64_t request_id, uint64_t seq,
		const struct event_part *parts, int n_parts)
{
	bool terminal = type == LLM_EVENT_DONE || type == LLM_EVENT_ERROR;
	size_t len = 0, size;

	for (int i = 0; i < n_parts; i++)
		len += parts[i].len;
	size = event_size(len);
	if (size > LLM_EVENT_MAX)
		return -EMSGSIZE;
	if (!terminal && size > outbox_room(o, max)) {
		o->full = true;
		return -EAGAIN;
	}
	if (o->len + size > o->cap && reserve(o, size))
		return -ENOMEM;
	o->len +=
		event_write(o->v + o->len, o->cap - o->len, type, request_id, seq, parts, n_parts);
	/* Said before it is refused, so that the caller can stop in time. */
	if (outbox_room(o, max) < LLM_EVENT_MAX)
		o->full = true;
	return 0;
}

void outbox_take(struct outbox *o, size_t n)
{
	o->head += n;
	if (o->head == o->len)
		o->head = o->len = 0;
}

void outbox_clear(struct outbox *o)
{
	o->head = o->len = 0;
}

void outbox_free(struct outbox *o)
{
	free(o->v);
	*o = (struct outbox){0};
}
