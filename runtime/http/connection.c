// SPDX-License-Identifier: MIT
/*
 * Clients that are slow in asking. libmicrohttpd hangs up on who is silent for a while; who sends a
 * byte now and then would hold a connection for ever, so a head has to be whole within a time, and
 * a body has to come at a rate.
 */
#include <stdlib.h>
#include <sys/socket.h>

#include "http/server.h"

#define BODY_RATE 1024 /* bytes a second, at least, beyond the first seconds */

struct connection {
	struct connection *prev, *next;
	int fd;
	enum connection_phase phase;
	uint64_t since_ns, bytes;
};

void connection_begin(struct gateway *g, void **slot, int fd)
{
	struct connection *c = calloc(1, sizeof(*c));

	*slot = c;
	if (!c)
		return; /* it is one that is not swept */
	*c = (struct connection){.next = g->connections, .fd = fd, .since_ns = loop_now_ns()};
	if (c->next)
		c->next->prev = c;
	g->connections = c;
}

void connection_end(struct gateway *g, void **slot)
{
	struct connection *c = *slot;

	*slot = NULL;
	g->closed = true;
	if (!c)
		return;
	*(c->prev ? &c->prev->next : &g->connections) = c->next;
	if (c->next)
		c->next->prev = c->prev;
	free(c);
}

void connection_phase(void *slot, enum connection_phase phase)
{
	struct connection *c = slot;

	if (!c)
		return;
	c->phase = phase;
	c->since_ns = loop_now_ns();
	c->bytes = 0;
}

void connection_progress(void *slot, uint64_t bytes)
{
	struct connection *c = slot;

	if (c)
		c->bytes += bytes;
}

void connection_sweep(struct gateway *g, uint64_t now_ns)
{
	/* An idle connection waits for its next request as long as libmicrohttpd lets it. */
	uint64_t allowed = 2 * (uint64_t)g->o.timeout_s * 1000000000u;

	for (struct connection *c = g->connections; c; c = c->next) {
		uint64_t over = now_ns - c->since_ns;

		if (c->phase == CONNECTION_ANSWER || over < allowed)
			continue;
		if (c->phase == CONNECTION_BODY &&
		    c->bytes / BODY_RATE >= (over - allowed) / 1000000000u)
			continue;
		/* libmicrohttpd notices, and closes it. */
		shutdown(c->fd, SHUT_RDWR);
	}
}
