// SPDX-License-Identifier: MIT
/* Which kind of transport a call is for (transport_int.h). Owns nothing. */
#include <string.h>

#include "transport/transport_int.h"

void transport_close(struct transport *t)
{
	if (t)
		t->ops->close(t);
}

void transport_drain(struct transport *t)
{
	t->ops->drain(t);
}

int transport_poll(struct transport *t, int64_t timeout_ns, struct err *e)
{
	return t->ops->poll(t, timeout_ns, e);
}

void transport_flush(struct transport *t)
{
	t->ops->flush(t);
}

bool transport_flushed(const struct transport *t)
{
	return t->ops->flushed(t);
}

void channel_set_user(struct channel *ch, void *user)
{
	ch->user = user;
}

void *channel_user(const struct channel *ch)
{
	return ch->user;
}

const struct channel_peer *channel_peer(const struct channel *ch)
{
	return &ch->peer;
}

size_t channel_room(const struct channel *ch)
{
	return ch->ops->channel_room(ch);
}

int channel_post(struct channel *ch, uint32_t type, uint64_t request_id, uint64_t seq,
		 const struct event_part *parts, int n_parts)
{
	return ch->ops->channel_post(ch, type, request_id, seq, parts, n_parts);
}

bool channel_flushed(const struct channel *ch)
{
	return ch->ops->channel_flushed(ch);
}

void channel_close(struct channel *ch)
{
	ch->ops->channel_close(ch);
}

void channel_fail(struct channel *ch, int error, const char *sentence)
{
	ch->ops->channel_fail(ch, error, sentence);
}

void error_parts(struct error_parts *p, int error, const char *sentence)
{
	p->error = (struct llm_error){.error = error, .n_bytes = (uint32_t)strlen(sentence)};
	p->parts[0] = (struct event_part){&p->error, sizeof(p->error)};
	p->parts[1] = (struct event_part){sentence, p->error.n_bytes};
}
