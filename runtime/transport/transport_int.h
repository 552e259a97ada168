/* SPDX-License-Identifier: MIT */
/*
 * What a kind of transport provides to transport.c: the operations of transport.h, on structures
 * that begin with these two.
 */
#ifndef LLMDEV_TRANSPORT_INT_H
#define LLMDEV_TRANSPORT_INT_H

#include "transport/transport.h"

struct transport_ops {
	void (*close)(struct transport *t);
	void (*drain)(struct transport *t);
	int (*poll)(struct transport *t, int64_t timeout_ns, struct err *e);
	void (*flush)(struct transport *t);
	bool (*flushed)(const struct transport *t);
	size_t (*channel_room)(const struct channel *ch);
	int (*channel_post)(struct channel *ch, uint32_t type, uint64_t request_id, uint64_t seq,
			    const struct event_part *parts, int n_parts);
	bool (*channel_flushed)(const struct channel *ch);
	void (*channel_close)(struct channel *ch);
	void (*channel_fail)(struct channel *ch, int error, const char *sentence);
};

struct transport {
	const struct transport_ops *ops;
};

struct channel {
	const struct transport_ops *ops;
	void *user;
	struct channel_peer peer;
};

/* An ERROR for one request, put into what channel_post() and event_write() take. */
struct error_parts {
	struct llm_error error;
	struct event_part parts[2];
};
void error_parts(struct error_parts *p, int error, const char *sentence);

#endif
