// SPDX-License-Identifier: MIT
/*
 * The transport over AF_UNIX SOCK_SEQPACKET. Owns the listening socket, its lock file, the epoll
 * set and every channel. Single-threaded, no locks.
 *
 * Client to daemon: struct llm_msg; one that is longer than a packet goes on in the next packets.
 * Daemon to client: packets of whole struct llm_event records.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "transport/outbox.h"
#include "transport/transport_int.h"

#define PACKET_MAX	65536 /* the longest packet that is received */
#define PACKETS_TURN	16 /* packets read from one channel before the others' turn */
#define EPOLL_TURN	64
#define IN_KEPT		4096 /* of the message buffer of a channel that sends nothing */
#define ACCEPTS_TURN	64 /* connections taken before those that are there have their turn */
#define ACCEPT_PAUSE_MS 100 /* where the process or the machine has no file left */

struct connection {
	struct channel base;
	struct listener *t;
	struct connection *prev, *next;
	int fd;
	bool opened; /* the handler knows it */
	bool dead; /* close() was called up; freed at the end of the poll */
	bool failing; /* closed as soon as `out` is empty */
	bool want_out; /* EPOLLOUT is asked for */
	uint8_t *in; /* the message that is arriving */
	size_t in_len, in_size, in_cap;
	struct outbox out;
};

struct listener {
	struct transport base;
	struct socket_opts o;
	struct sockaddr_un addr;
	const struct transport_handler *h;
	void *ctx;
	int listen_fd, lock_fd, epoll_fd;
	char watched; /* its address stands for the descriptors that others watch */
	struct connection *channels;
	int n_channels; /* those that are not dead */
	size_t input; /* what their `in` takes together */
	bool draining, handing_over, accept_paused;
	dev_t dev; /* of the socket's file; ino 0: there is none of ours */
	ino_t ino;
	uint8_t *packet;
};

/* ---- channels ------------------------------------------------------------------------------------- */

static size_t room_of(const struct connection *ch)
{
	return outbox_room(&ch->out, ch->t->o.max_events);
}

static size_t connection_room(const struct channel *ch)
{
	return room_of((const struct connection *)ch);
}

static int connection_post(struct channel *base, uint32_t type, uint64_t request_id, uint64_t seq,
			   const struct event_part *parts, int n_parts)
{
	struct connection *ch = (struct connection *)base;

	if (ch->dead || ch->failing)
		return -EPIPE;
	return outbox_post(&ch->out, ch->t->o.max_events, type, request_id, seq, parts, n_parts);
}

static void connection_fail(struct channel *ch, int error, const char *sentence)
{
	struct error_parts err;

	error_parts(&err, error, sentence);
	connection_post(ch, LLM_EVENT_ERROR, 0, 0, err.parts, 2);
	((struct connection *)ch)->failing = true;
}

static void connection_close(struct channel *ch)
{
	((struct connection *)ch)->failing = true;
}

static bool connection_flushed(const struct channel *base)
{
	const struct connection *ch = (const struct connection *)base;

	return !outbox_held(&ch->out);
}

/* The handler forgets it at once; the memory goes when no epoll event can name it any more. */
static void connection_end(struct connection *ch)
{
	if (ch->dead)
		return;
	ch->dead = true;
	if (ch->opened)
		ch->t->h->close(ch->t->ctx, &ch->base);
	close(ch->fd);
	ch->fd = -1;
	ch->t->n_channels--;
}

static void in_free(struct connection *ch)
{
	ch->t->input -= ch->in_cap;
	free(ch->in);
	ch->in = NULL;
	ch->in_cap = 0;
}

static void connection_free(struct connection *ch)
{
	struct listener *t = ch->t;

	if (ch->prev)
		ch->prev->next = ch->next;
	else
		t->channels = ch->next;
	if (ch->next)
		ch->next->prev = ch->prev;
	in_free(ch);
	outbox_free(&ch->out);
	free(ch);
}

static void want_events(struct connection *ch)
{
	bool out = outbox_held(&ch->out);
	struct epoll_event ev = {.data.ptr = ch};

	ch->want_out = out;
	/* A failing channel is not read any more, a draining transport reads nobody. EPOLLHUP and
	 * EPOLLERR come unasked: a client that dies is noticed in any case. */
	ev.events = (out ? EPOLLOUT : 0) | (ch->failing || ch->t->draining ? 0 : EPOLLIN);
	epoll_ctl(ch->t->epoll_fd, EPOLL_CTL_MOD, ch->fd, &ev);
}

/* Sends as many whole records as a packet takes, until the socket is full. */
static void connection_send(struct connection *ch)
{
	while (!ch->dead && outbox_held(&ch->out)) {
		const uint8_t *from = ch->out.v + ch->out.head;
		size_t n = 0, left = outbox_held(&ch->out);
		struct llm_event h;
		ssize_t sent;

		while (n + sizeof(h) <= left) {
			memcpy(&h, from + n, sizeof(h));
			if (n && n + h.size > LLM_EVENT_MAX)
				break;
			n += h.size;
		}
		sent = send(ch->fd, from, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0) {
			if (errno == EINTR)
				continue;
			/* A client that is being turned away gets no time to read. */
			if (!ch->failing &&
			    (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS))
				break;
			connection_end(ch);
			return;
		}
		outbox_take(&ch->out, n);
	}
	if (ch->dead)
		return;
	if (ch->failing && !outbox_held(&ch->out)) {
		connection_end(ch);
		return;
	}
	if (ch->want_out != (outbox_held(&ch->out) > 0) || ch->failing)
		want_events(ch);
	if (ch->out.full && room_of(ch) >= ch->t->o.max_events / 2) {
		ch->out.full = false;
		ch->t->h->room(ch->t->ctx, &ch->base);
	}
}

/* Room for n more bytes: it grows with what has really come, not with what was announced. */
static int in_reserve(struct connection *ch, size_t n)
{
	struct listener *t = ch->t;
	size_t cap = ch->in_cap ? ch->in_cap : 1024;
	uint8_t *p;

	while (cap < ch->in_len + n)
		cap *= 2;
	if (cap == ch->in_cap)
		return 0;
	if (t->input + (cap - ch->in_cap) > t->o.max_input)
		return -ENOSPC;
	p = realloc(ch->in, cap);
	if (!p)
		return -ENOMEM;
	t->input += cap - ch->in_cap;
	ch->in = p;
	ch->in_cap = cap;
	return 0;
}

static void connection_packet(struct connection *ch, const uint8_t *p, size_t n)
{
	struct err e;
	struct msg m;
	int rc;

	if (!ch->in_len) {
		int64_t size = msg_size(p, n, ch->t->o.max_message, &e);

		if (size < 0) {
			connection_fail(&ch->base, (int)-size, e.msg);
			return;
		}
		ch->in_size = (size_t)size;
	}
	if (n > ch->in_size - ch->in_len) {
		connection_fail(&ch->base, EINVAL,
				"packet: goes beyond its message: send one at a time");
		return;
	}
	rc = in_reserve(ch, n);
	if (rc) {
		connection_fail(&ch->base, -rc, "message: no memory for it now: try again later");
		return;
	}
	memcpy(ch->in + ch->in_len, p, n);
	ch->in_len += n;
	if (ch->in_len < ch->in_size)
		return;
	rc = msg_parse(&m, ch->in, ch->in_len, &e);
	if (!rc) {
		ch->t->h->message(ch->t->ctx, &ch->base, &m);
	} else if (rc != -EINVAL && m.type == LLM_MSG_SUBMIT && m.request_id) {
		/* Well-formed, but more than this version knows: only the request fails. */
		struct error_parts err;

		error_parts(&err, -rc, e.msg);
		if (room_of(ch) < LLM_EVENT_MAX)
			connection_fail(&ch->base, ENOSPC,
					"events: nobody reads them: read, then ask");
		else
			connection_post(&ch->base, LLM_EVENT_ERROR, m.request_id, m.submit.seq,
					err.parts, 2);
	} else {
		connection_fail(&ch->base, -rc, e.msg);
	}
	ch->in_len = 0;
	if (ch->in_cap > IN_KEPT)
		in_free(ch);
}

static void connection_receive(struct connection *ch)
{
	for (int i = 0; i < PACKETS_TURN && !ch->dead && !ch->failing; i++) {
		ssize_t n = recv(ch->fd, ch->t->packet, PACKET_MAX, MSG_DONTWAIT | MSG_TRUNC);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				connection_end(ch);
			return;
		}
		if (n == 0) {
			connection_end(ch);
			return;
		}
		if (n > PACKET_MAX)
			connection_fail(&ch->base, EMSGSIZE,
					"packet: more than 65536 bytes: use several");
		else
			connection_packet(ch, ch->t->packet, (size_t)n);
	}
}

/* ---- the listening socket ------------------------------------------------------------------------- */

/*
 * Nobody can be taken until others have gone, and the socket would say all the time that somebody
 * waits: it is not asked for a while.
 */
static void pause_accepting(struct listener *t)
{
	struct epoll_event ev = {.data.ptr = &t->listen_fd};

	epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, t->listen_fd, &ev);
	t->accept_paused = true;
}

static void resume_accepting(struct listener *t)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &t->listen_fd};

	if (t->accept_paused && t->listen_fd >= 0)
		epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, t->listen_fd, &ev);
	t->accept_paused = false;
}

/* False when nobody waits to be accepted, or nobody can be. */
static bool accept_one(struct listener *t)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct ucred cred;
	socklen_t len = sizeof(cred);
	struct connection *ch;
	struct err e;
	int fd, rc;

	fd = accept4(t->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			pause_accepting(t);
		return errno == ECONNABORTED;
	}
	if (t->handing_over) {
		close(fd);
		return true;
	}
	ch = calloc(1, sizeof(*ch));
	if (!ch || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len)) {
		free(ch);
		close(fd);
		return true;
	}
	ch->base.ops = t->base.ops;
	ch->t = t;
	ch->fd = fd;
	ch->base.peer = (struct channel_peer){.uid = cred.uid, .gid = cred.gid, .pid = cred.pid};
	ev.data.ptr = ch;
	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &ev)) {
		free(ch);
		close(fd);
		return true;
	}
	ch->next = t->channels;
	if (ch->next)
		ch->next->prev = ch;
	t->channels = ch;
	t->n_channels++;
	/* One more than the limit may stand for a moment, to be told why. */
	if (t->n_channels > t->o.max_channels) {
		connection_fail(&ch->base, ENOSPC,
				"sessions: the daemon's limit is reached: try again later");
		connection_send(ch);
		connection_end(ch);
		return true;
	}
	rc = t->h->open(t->ctx, &ch->base, &e);
	if (rc) {
		connection_fail(&ch->base, -rc, e.msg);
		connection_send(ch);
		return true;
	}
	ch->opened = true;
	return true;
}

static int lock_path(struct listener *t, struct err *e)
{
	char lock[sizeof(t->addr.sun_path) + 8];
	const char *path = t->addr.sun_path;

	snprintf(lock, sizeof(lock), "%s.lock", path);
	t->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (t->lock_fd < 0)
		return err_set(e, -errno, "%s: %s: create its directory or choose another --socket",
			       lock, strerror(errno));
	if (flock(t->lock_fd, LOCK_EX | LOCK_NB))
		return err_set(e, -EBUSY,
			       "%s: another llmdevd serves it: stop that one or choose another "
			       "--socket",
			       path);
	return 0;
}

/* Whoever listens without holding the lock is not a llmdevd, but is not to be pushed aside either. */
static bool somebody_listens(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool yes;

	if (fd < 0)
		return false;
	yes = !connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) || errno == EAGAIN;
	close(fd);
	return yes;
}

static int listen_at(struct listener *t, struct err *e)
{
	const char *path = t->addr.sun_path;
	struct stat st;
	mode_t mask;
	int rc;

	if (!lstat(path, &st)) {
		if (!S_ISSOCK(st.st_mode))
			return err_set(e, -EEXIST, "%s: is no socket: choose another --socket",
				       path);
		if (somebody_listens(&t->addr))
			return err_set(e, -EBUSY,
				       "%s: another program serves it: stop it or choose another "
				       "--socket",
				       path);
		if (unlink(path))
			return err_set(e, -errno, "%s: cannot remove the stale socket: %s", path,
				       strerror(errno));
	}
	t->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (t->listen_fd < 0)
		return err_set(e, -errno, "socket: %s", strerror(errno));
	mask = umask(0117);
	rc = bind(t->listen_fd, (struct sockaddr *)&t->addr, sizeof(t->addr));
	umask(mask);
	if (rc || listen(t->listen_fd, 128) || lstat(path, &st))
		return err_set(e, -errno, "%s: %s: choose another --socket", path, strerror(errno));
	t->dev = st.st_dev;
	t->ino = st.st_ino;
	return 0;
}

int socket_place(char *out, size_t len, const char *path, enum socket_place place)
{
	static const char *const infix[] = {"", ".next", ".prev"};
	size_t n = strlen(path), sock = n > 5 && !strcmp(path + n - 5, ".sock") ? 5 : 0;
	const char *suffix = path + n - sock;
	int rc;

	n -= sock;
	for (int i = SOCKET_NEXT; i < N_SOCKET_PLACES; i++) {
		if (n > 5 && !strncmp(path + n - 5, infix[i], 5)) {
			n -= 5;
			break;
		}
	}
	rc = snprintf(out, len, "%.*s%s%s", (int)n, path, infix[place], suffix);
	return rc < 0 || (size_t)rc >= len ? -ENAMETOOLONG : 0;
}

static bool is_ours(const struct listener *t, const char *path)
{
	struct stat st;

	return t->ino && !lstat(path, &st) && st.st_dev == t->dev && st.st_ino == t->ino;
}

bool transport_replaced(const struct transport *base)
{
	const struct listener *t = (const struct listener *)base;
	char path[sizeof(t->addr.sun_path)];
	struct stat st;

	return !socket_place(path, sizeof(path), t->addr.sun_path, SOCKET_CURRENT) &&
	       !is_ours(t, path) && !lstat(path, &st);
}

static void stop_listening(struct listener *t)
{
	if (t->listen_fd < 0)
		return;
	for (int i = 0; i < N_SOCKET_PLACES; i++) {
		char path[sizeof(t->addr.sun_path)];

		if (!socket_place(path, sizeof(path), t->addr.sun_path, (enum socket_place)i) &&
		    is_ours(t, path))
			unlink(path);
	}
	close(t->listen_fd);
	t->listen_fd = -1;
}

static void listener_close(struct transport *base)
{
	struct listener *t = (struct listener *)base;

	while (t->channels) {
		connection_end(t->channels);
		connection_free(t->channels);
	}
	stop_listening(t);
	if (t->epoll_fd >= 0)
		close(t->epoll_fd);
	if (t->lock_fd >= 0)
		close(t->lock_fd);
	free(t->packet);
	free(t);
}

static void listener_drain(struct transport *base)
{
	struct listener *t = (struct listener *)base;

	t->draining = true;
	stop_listening(t);
	for (struct connection *ch = t->channels; ch; ch = ch->next) {
		if (!ch->dead)
			want_events(ch);
	}
}

void transport_hand_over(struct transport *t)
{
	((struct listener *)t)->handing_over = true;
}

void transport_take_back(struct transport *t)
{
	((struct listener *)t)->handing_over = false;
}

int transport_watch(struct transport *base, int fd, struct err *e)
{
	struct listener *t = (struct listener *)base;
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &t->watched};

	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &ev))
		return err_set(e, -errno, "epoll: %s", strerror(errno));
	return 0;
}

static void reap(struct listener *t)
{
	for (struct connection *ch = t->channels, *next; ch; ch = next) {
		next = ch->next;
		if (ch->dead)
			connection_free(ch);
	}
}

static int listener_poll(struct transport *base, int64_t timeout_ns, struct err *e)
{
	struct listener *t = (struct listener *)base;
	struct epoll_event ev[EPOLL_TURN];
	/* Rounded up: a timer that is due in half a millisecond must not make the caller spin. */
	int ms = timeout_ns < 0 ? -1
		 : timeout_ns > INT64_C(1000000) * 86400000
			 ? 86400000
			 : (int)((timeout_ns + 999999) / 1000000);
	int n;

	if (t->accept_paused && (ms < 0 || ms > ACCEPT_PAUSE_MS))
		ms = ACCEPT_PAUSE_MS;
	n = epoll_wait(t->epoll_fd, ev, EPOLL_TURN, ms);
	resume_accepting(t);

	if (n < 0)
		return errno == EINTR ? 0 : err_set(e, -errno, "epoll: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		struct connection *ch = ev[i].data.ptr;

		if (ev[i].data.ptr == &t->watched)
			continue;
		if (ev[i].data.ptr == &t->listen_fd) {
			for (int k = 0; k < ACCEPTS_TURN && accept_one(t); k++)
				;
			continue;
		}
		if (ch->dead)
			continue;
		if (ev[i].events & EPOLLOUT)
			connection_send(ch);
		if (!ch->dead && (ev[i].events & EPOLLIN) && !t->draining)
			connection_receive(ch);
		if (!ch->dead && (ev[i].events & (EPOLLHUP | EPOLLERR)))
			connection_end(ch);
	}
	reap(t);
	return 0;
}

static void listener_flush(struct transport *base)
{
	struct listener *t = (struct listener *)base;

	for (struct connection *ch = t->channels; ch; ch = ch->next) {
		/* A socket that was full says itself when it is not. */
		if (!ch->dead && (!ch->want_out || ch->failing))
			connection_send(ch);
	}
	reap(t);
}

static bool listener_flushed(const struct transport *base)
{
	const struct listener *t = (const struct listener *)base;

	for (const struct connection *ch = t->channels; ch; ch = ch->next) {
		if (!ch->dead && outbox_held(&ch->out))
			return false;
	}
	return true;
}

static const struct transport_ops listener_ops = {
	.close = listener_close,
	.drain = listener_drain,
	.poll = listener_poll,
	.flush = listener_flush,
	.flushed = listener_flushed,
	.channel_room = connection_room,
	.channel_post = connection_post,
	.channel_flushed = connection_flushed,
	.channel_close = connection_close,
	.channel_fail = connection_fail,
};

int socket_transport_open(struct transport **out, const struct socket_opts *o,
			  const struct transport_handler *h, void *ctx, struct err *e)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct listener *t;
	int rc;

	if (strlen(o->path) >= sizeof(t->addr.sun_path))
		return err_set(e, -ENAMETOOLONG, "%s: a socket's path has at most %zu bytes",
			       o->path, sizeof(t->addr.sun_path) - 1);
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(e, -ENOMEM, "transport: no memory");
	t->base.ops = &listener_ops;
	t->o = *o;
	if (t->o.max_events < 2 * LLM_EVENT_MAX)
		t->o.max_events = 2 * LLM_EVENT_MAX;
	t->h = h;
	t->ctx = ctx;
	t->listen_fd = t->lock_fd = t->epoll_fd = -1;
	t->addr.sun_family = AF_UNIX;
	strcpy(t->addr.sun_path, o->path);
	t->o.path = t->addr.sun_path;
	rc = lock_path(t, e);
	if (!rc)
		rc = listen_at(t, e);
	if (rc)
		goto fail;
	t->packet = malloc(PACKET_MAX);
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ev.data.ptr = &t->listen_fd;
	if (!t->packet || t->epoll_fd < 0 ||
	    epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->listen_fd, &ev)) {
		rc = err_set(e, t->packet ? -errno : -ENOMEM, "transport: %s",
			     t->packet ? strerror(errno) : "no memory");
		goto fail;
	}
	*out = &t->base;
	return 0;
fail:
	listener_close(&t->base);
	return rc;
}
