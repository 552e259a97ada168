/* SPDX-License-Identifier: MIT */
/*
 * How requests arrive and events leave: the daemon's side of the channel to its clients.
 *
 * A channel is one client's open file: a connection of an AF_UNIX SOCK_SEQPACKET socket (socket.c)
 * or an open file of /dev/llmN (kdev.h). Upcalls come only
 * from transport_poll() and transport_flush(), on the caller's thread; nothing here blocks on a
 * client. Each channel holds a bounded number of event bytes for its reader.
 */
#ifndef LLMDEV_TRANSPORT_H
#define LLMDEV_TRANSPORT_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "transport/message.h"

struct transport;
struct channel;

struct transport_handler {
	/* A client came. Its state is kept with channel_set_user(). -errno refuses it. */
	int (*open)(void *ctx, struct channel *ch, struct err *e);
	/* A well-formed message; the pointers in *m end with the call. */
	void (*message)(void *ctx, struct channel *ch, const struct msg *m);
	/* Events that a full channel refused may be posted again. */
	void (*room)(void *ctx, struct channel *ch);
	/* The client is gone, or the channel was failed. No call with ch is allowed after this. */
	void (*close)(void *ctx, struct channel *ch);
	/* The daemon is asked to let go by then (CLOCK_MONOTONIC; 0: at its leisure). NULL: ignored. */
	void (*quiesce)(void *ctx, uint64_t deadline_ns);
};

struct socket_opts {
	const char *path;
	size_t max_message; /* bytes of one message */
	size_t max_events; /* event bytes held for a reader; at least 2 * LLM_EVENT_MAX */
	int max_channels; /* connections; more are told ENOSPC and closed */
	size_t max_input; /* bytes of messages that are arriving, all channels together */
};

/*
 * Listen at o->path (mode 0660). A stale socket is replaced, a served one refused with -EBUSY; the
 * lock file "PATH.lock" tells them apart and is held as long as the transport is open. The handler
 * must outlive the transport.
 */
int socket_transport_open(struct transport **out, const struct socket_opts *o,
			  const struct transport_handler *h, void *ctx, struct err *e);
/* Closes every channel (with upcalls), removes the socket. */
void transport_close(struct transport *t);

/* Take no more clients and read no more messages; what is posted still goes out. */
void transport_drain(struct transport *t);

/*
 * While a daemon is replaced by another one, up to three sockets stand beside each other: for
 * NAME.sock also NAME.next.sock (loaded, not used yet) and NAME.prev.sock (was used until now).
 * They change places by rename(2), their lock files with them; a transport that closes removes its
 * own one, wherever it stands, and no other.
 */
enum socket_place { SOCKET_CURRENT, SOCKET_NEXT, SOCKET_PREV, N_SOCKET_PLACES };
/* The path of `place` beside `path`, which is any of them. -ENAMETOOLONG. */
int socket_place(char *out, size_t len, const char *path, enum socket_place place);

/* These four are for a socket only. SOCKET_CURRENT is another daemon's. */
bool transport_replaced(const struct transport *t);
/* Turn clients away without a word, so that they look for the daemon that took the place ... */
void transport_hand_over(struct transport *t);
/* ... and take them again. */
void transport_take_back(struct transport *t);

/* Watch `fd` as well: transport_poll() returns when it is readable. */
int transport_watch(struct transport *t, int fd, struct err *e);
/* Wait at most timeout_ns (< 0: for ever) for something to do, and do it. 0 or -errno. */
int transport_poll(struct transport *t, int64_t timeout_ns, struct err *e);
/* Send what was posted, as far as the readers take it. */
void transport_flush(struct transport *t);
/* Every posted event has been taken over by the kernel. */
bool transport_flushed(const struct transport *t);

void channel_set_user(struct channel *ch, void *user);
void *channel_user(const struct channel *ch);
struct channel_peer {
	uid_t uid;
	gid_t gid;
	pid_t pid;
	bool checked; /* the kernel allows only what it may */
};
const struct channel_peer *channel_peer(const struct channel *ch);

/* Event bytes that may still be posted before EAGAIN. */
size_t channel_room(const struct channel *ch);
/*
 * Post one event, made of parts as in event_write(). -EAGAIN: the channel is full (never for DONE
 * and ERROR, whose number the caller bounds); -EMSGSIZE: larger than an event may be; -EPIPE: the
 * channel is failing; -ENOMEM.
 */
int channel_post(struct channel *ch, uint32_t type, uint64_t request_id, uint64_t seq,
		 const struct event_part *parts, int n_parts);
/* Every posted event of this channel has been taken over by the kernel. */
bool channel_flushed(const struct channel *ch);
/* Closed by the next transport_flush() or transport_poll(), without a word. */
void channel_close(struct channel *ch);
/* An ERROR for the session as a whole, and the end: closed once it is sent or cannot be. */
void channel_fail(struct channel *ch, int error, const char *sentence);

#endif
