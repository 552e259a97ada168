// SPDX-License-Identifier: MIT
/*
 * A session's connection to a daemon's socket: connecting, connecting again with the transcript,
 * packets out and in. Owns d->fd, the out queue and the timer; internal.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "lib/internal.h"
#include "transport/message.h"

#define BACKOFF_MIN_NS UINT64_C(20000000)
#define BACKOFF_MAX_NS UINT64_C(500000000)

static void out_clear(struct llmdev *d)
{
	while (d->out) {
		struct out_msg *m = d->out;

		d->out = m->next;
		free(m);
	}
	d->out_tail = &d->out;
}

static struct out_msg *out_add(struct llmdev *d, size_t size)
{
	struct out_msg *m = malloc(sizeof(*m) + size);

	if (!m)
		return NULL;
	*m = (struct out_msg){.size = size};
	*d->out_tail = m;
	d->out_tail = &m->next;
	return m;
}

int connection_send(struct llmdev *d, uint32_t type, uint64_t request_id, const void *body,
		    size_t len)
{
	struct llm_msg h = {
		.size = (uint32_t)(sizeof(h) + len),
		.type = type,
		.request_id = request_id,
	};
	struct out_msg *m;

	if (d->fd < 0)
		return 0;
	m = out_add(d, h.size);
	if (!m)
		return -ENOMEM;
	memcpy(m->bytes, &h, sizeof(h));
	if (len)
		memcpy(m->bytes + sizeof(h), body, len);
	return 0;
}

/* A new request, or one of the transcript as far as it got. */
static int send_turn(struct llmdev *d, const struct turn *t, uint32_t flags)
{
	struct msg_submit_parts parts = {
		.body = &t->body,
		.payload = t->payload,
		.principal = t->principal,
		.resume = t->resume,
		.ids = t->ids,
	};
	size_t size = msg_submit_size(&t->body);
	struct out_msg *m = size ? out_add(d, size) : NULL;

	if (!m)
		return -ENOMEM;
	msg_submit_write(m->bytes, flags, t->id, &parts);
	return 0;
}

int connection_submit(struct llmdev *d, struct turn *t)
{
	return d->fd < 0 ? 0 : send_turn(d, t, 0);
}

/* Tell a daemon that does not know us all that it needs to go on. */
static int send_transcript(struct llmdev *d)
{
	struct llm_msg_cancel cancel = {.reason = ECANCELED};
	struct llm_msg_session session = {0};
	struct out_msg *m;
	int rc = 0;

	if (!d->turns && !d->lost)
		return 0;
	if (d->lost) {
		struct llm_msg h = {
			.size = sizeof(h) + sizeof(session),
			.flags = LLM_MSG_F_REPLAY | LLM_MSG_F_LOST,
			.type = LLM_MSG_SESSION_OPEN,
		};

		m = out_add(d, h.size);
		if (!m)
			return -ENOMEM;
		memcpy(m->bytes, &h, sizeof(h));
		memcpy(m->bytes + sizeof(h), &session, sizeof(session));
	}
	for (struct turn *t = d->turns; t && !rc; t = t->next)
		rc = send_turn(d, t, LLM_MSG_F_REPLAY | (t->finished ? LLM_MSG_F_FINISHED : 0));
	if (!rc)
		rc = connection_send(d, LLM_MSG_REPLAY_END, 0, NULL, 0);
	for (struct turn *t = d->turns; t && !rc; t = t->next) {
		if (t->cancelled && !t->finished)
			rc = connection_send(d, LLM_MSG_CANCEL, t->id, &cancel, sizeof(cancel));
	}
	return rc;
}

static void arm_timer(struct llmdev *d, uint64_t ns)
{
	struct itimerspec its = {
		.it_value = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)}};

	timerfd_settime(d->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

static void watch(struct llmdev *d, int op)
{
	struct epoll_event ev = {.events = EPOLLIN | (d->out ? EPOLLOUT : 0)};

	d->want_out = d->out != NULL;
	epoll_ctl(d->epoll_fd, op, d->fd, &ev);
}

/* One attempt; `wait` stands in line for a moment where many others connect. 0 or -errno. */
static int try_connect(struct llmdev *d, bool wait)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = 2};
	int rc;

	memcpy(addr.sun_path, d->path, strlen(d->path) + 1);
	/* Sending and receiving say MSG_DONTWAIT themselves. */
	d->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK), 0);
	if (d->fd < 0)
		return -errno;
	if (wait)
		setsockopt(d->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(d->fd, (struct sockaddr *)&addr, sizeof(addr))) {
		rc = -errno;
		close(d->fd);
		d->fd = -1;
		return rc;
	}
	rc = send_transcript(d);
	watch(d, EPOLL_CTL_ADD);
	if (rc)
		connection_drop(d);
	return rc;
}

static bool worth_waiting(int rc)
{
	/* EAGAIN: the daemon's queue of connections is full. */
	return rc == -ECONNREFUSED || rc == -EAGAIN || rc == -ENOENT || rc == -ECONNRESET;
}

static void schedule(struct llmdev *d)
{
	d->retry_ns = lib_now_ns() + d->backoff_ns;
	d->backoff_ns = d->backoff_ns * 2 > BACKOFF_MAX_NS ? BACKOFF_MAX_NS : d->backoff_ns * 2;
	arm_timer(d, d->retry_ns);
}

void connection_wanted(struct llmdev *d)
{
	if (d->fd >= 0 || d->dead || d->give_up_ns)
		return;
	if (d->o.recovery_ms < 0) {
		lib_die(d, EPIPE, "daemon: the connection is lost: open a new session");
		return;
	}
	d->give_up_ns = lib_now_ns() + (uint64_t)d->o.recovery_ms * 1000000u;
	d->backoff_ns = BACKOFF_MIN_NS;
	d->retry_ns = lib_now_ns();
	arm_timer(d, d->retry_ns);
}

static void forget_connection(struct llmdev *d)
{
	if (d->fd >= 0)
		close(d->fd); /* epoll forgets it with its last descriptor */
	d->fd = -1;
	out_clear(d);
	/* A packet that has arrived is still good: events come out of it until it is used up. */
}

void connection_drop(struct llmdev *d)
{
	forget_connection(d);
	if (d->dead || !d->n_pending)
		return;
	if (!d->told_lost) {
		d->told_lost = true;
		if (d->o.on_connection)
			d->o.on_connection(d->o.ctx, 0);
	}
	if (d->give_up_ns)
		schedule(d);
	else
		connection_wanted(d);
}

static void reconnect(struct llmdev *d)
{
	uint64_t now = lib_now_ns();
	int rc;

	if (!d->give_up_ns || now < d->retry_ns)
		return;
	rc = try_connect(d, false);
	if (!rc)
		return;
	if (!worth_waiting(rc) || now >= d->give_up_ns) {
		char why[256];

		snprintf(why, sizeof(why),
			 "%s: the daemon is gone and no other took its place: %s: start llmdevd",
			 d->path, strerror(-rc));
		lib_die(d, EPIPE, why);
		return;
	}
	schedule(d);
}

/* Sends what fits; false if the connection broke. */
static bool send_out(struct llmdev *d)
{
	while (d->out) {
		struct out_msg *m = d->out;
		size_t n = m->size - m->sent < PACKET_SEND ? m->size - m->sent : PACKET_SEND;

		if (send(d->fd, m->bytes + m->sent, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
				break;
			return false;
		}
		m->sent += n;
		if (m->sent == m->size) {
			d->out = m->next;
			if (!d->out)
				d->out_tail = &d->out;
			free(m);
		}
	}
	if (d->want_out != (d->out != NULL))
		watch(d, EPOLL_CTL_MOD);
	return true;
}

void connection_flush(struct llmdev *d)
{
	/* A broken connection is noticed when something is to be received. */
	if (d->fd >= 0 && !send_out(d))
		out_clear(d);
}

static void receive(struct llmdev *d)
{
	ssize_t n;

	do {
		/* ECONNRESET comes before data that has arrived: the second call gets those. */
		n = recv(d->fd, d->in, PACKET_MAX, MSG_DONTWAIT | MSG_TRUNC);
	} while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n <= 0) {
		connection_drop(d);
		return;
	}
	if (n > PACKET_MAX) {
		lib_die(d, EPROTO, "daemon: a packet is too long: it speaks another protocol");
		return;
	}
	d->in_pos = 0;
	d->in_len = (size_t)n;
	if (d->give_up_ns) {
		d->give_up_ns = 0;
		if (d->told_lost) {
			d->told_lost = false;
			d->recoveries++;
			if (d->o.on_connection)
				d->o.on_connection(d->o.ctx, 1);
		}
	}
}

void connection_work(struct llmdev *d)
{
	uint64_t expired;

	/* What is due is decided by the clock; the timer only wakes. */
	if (d->retry_ns && read(d->timer_fd, &expired, sizeof(expired)) > 0)
		d->retry_ns = 0;
	if (d->dead)
		return;
	if (d->fd < 0)
		reconnect(d);
	if (d->fd < 0)
		return;
	/* Also after a failure: what the daemon said last may explain it. */
	connection_flush(d);
	receive(d);
}

int connection_open(struct llmdev *d, char *why, size_t why_len)
{
	int rc = try_connect(d, !d->o.no_wait);

	if (rc == -EAGAIN && d->o.no_wait)
		return 0; /* the first request looks for the connection again */
	if (rc && why)
		snprintf(why, why_len, "%s: %s: %s", d->path, strerror(-rc),
			 rc == -EACCES ? "join the group that may use it"
				       : "start llmdevd, or name another socket");
	return rc;
}
