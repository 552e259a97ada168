// SPDX-License-Identifier: MIT
/*
 * The transport over the kernel's backend file (kdev.h). Owns that file and every channel.
 * Single-threaded, no locks.
 *
 * What is posted waits in its channel for transport_flush(), which hands the kernel the records of
 * all channels in as few LLM_IOC_POST as they fit. The kernel answers for each one: where a reader's
 * ring is full the channel keeps its records, in order, until RESUME.
 *
 * The kernel charges a request to its opener until the backend ends it, also where nobody is left to
 * read: `pending` knows those that are owed a terminal event, with the seq that it has to carry.
 * When a file is closed, or its channel is failed, they are ended from here.
 */
#include "transport/kdev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "transport/outbox.h"
#include "transport/transport_int.h"

#define CONTROL	      "/dev/llm-control"
#define BUCKETS	      1024 /* of sessions by id, a power of two */
#define MESSAGES_TURN 64 /* read before the engine has its turn */
#define EVENTS_MAX    (4 * LLM_EVENT_MAX) /* held for a reader, beside the kernel's ring */
#define BATCH_MAX     (8 * LLM_EVENT_MAX) /* bytes of one LLM_IOC_POST */
/* What the kernel does to a backend that is asked to let go, and late. */
#define TAKEN_AWAY   "the device was taken away: this daemon had not let go of it in time"
#define SENTENCE_MAX sizeof(((struct err *)0)->msg)

/* A request that the kernel waits for. */
struct pending {
	uint64_t id, seq; /* seq: of the next event, as the kernel counts */
};

struct session {
	struct channel base;
	struct kdev *d;
	struct session *prev, *next; /* of all */
	struct session *same; /* of the bucket */
	uint64_t id;
	bool text; /* LLM_MODE_TEXT */
	bool opened; /* the handler knows it */
	bool replayed; /* it is owed a REPLAY_END */
	bool failing; /* its pending requests are ended with `error` ... */
	bool closed; /* ... and nobody reads that; freed when it is done */
	bool blocked; /* until RESUME */
	int error;
	char sentence[SENTENCE_MAX];
	struct outbox out;
	struct pending *pending;
	size_t n_pending, cap_pending;
};

/* A record of the batch. */
struct sent {
	struct session *s;
	uint64_t id;
	uint32_t size;
	bool terminal;
	bool queued; /* it is in s->out, too; else it was made for the batch */
};

struct kdev {
	struct transport base;
	const struct transport_handler *h;
	void *ctx;
	int fd;
	unsigned number;
	uint32_t generation;
	uint8_t *message;
	size_t message_max;
	struct session *sessions, *buckets[BUCKETS];
	int broken; /* -errno: the file is of no use any more */
	const char *why;
	uint8_t *batch;
	size_t batch_len;
	struct sent sent[LLM_POST_MAX];
	int32_t results[LLM_POST_MAX];
	unsigned n_sent;
};

static void broken(struct kdev *d, int rc, const char *why)
{
	if (d->broken)
		return;
	d->broken = rc;
	d->why = why;
}

/* ---- sessions and what they are owed --------------------------------------------------------------- */

static struct session **bucket(struct kdev *d, uint64_t id)
{
	return &d->buckets[id % BUCKETS];
}

static struct session *session_find(struct kdev *d, uint64_t id)
{
	struct session *s = *bucket(d, id);

	while (s && s->id != id)
		s = s->same;
	return s;
}

static struct session *session_add(struct kdev *d, const struct msg *m)
{
	struct session *s = calloc(1, sizeof(*s)), **b = bucket(d, m->session_id);

	if (!s)
		return NULL;
	s->base.ops = d->base.ops;
	s->base.peer = (struct channel_peer){
		.uid = m->session.uid,
		.gid = m->session.gid,
		.pid = m->session.pid,
		.checked = true,
	};
	s->d = d;
	s->id = m->session_id;
	s->text = m->session.mode == LLM_MODE_TEXT;
	s->same = *b;
	*b = s;
	s->next = d->sessions;
	if (s->next)
		s->next->prev = s;
	d->sessions = s;
	return s;
}

static void session_free(struct session *s)
{
	struct session **b = bucket(s->d, s->id);

	while (*b != s)
		b = &(*b)->same;
	*b = s->same;
	if (s->prev)
		s->prev->next = s->next;
	else
		s->d->sessions = s->next;
	if (s->next)
		s->next->prev = s->prev;
	outbox_free(&s->out);
	free(s->pending);
	free(s);
}

static int pending_add(struct session *s, uint64_t id, uint64_t seq)
{
	if (s->n_pending == s->cap_pending) {
		size_t cap = s->cap_pending ? 2 * s->cap_pending : 4;
		struct pending *p = realloc(s->pending, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		s->pending = p;
		s->cap_pending = cap;
	}
	s->pending[s->n_pending++] = (struct pending){id, seq};
	return 0;
}

static struct pending *pending_find(struct session *s, uint64_t id)
{
	for (size_t i = 0; i < s->n_pending; i++) {
		if (s->pending[i].id == id)
			return &s->pending[i];
	}
	return NULL;
}

static void pending_drop(struct session *s, struct pending *p)
{
	*p = s->pending[--s->n_pending];
}

/* The handler forgets it. */
static void session_end(struct session *s)
{
	struct kdev *d = s->d;

	if (s->opened)
		d->h->close(d->ctx, &s->base);
	s->opened = false;
	outbox_clear(&s->out);
	s->blocked = s->out.full = false;
}

/* ---- the handler's calls ----------------------------------------------------------------------------- */

/* Nothing more for a reader that has no room in the kernel. */
static size_t held_max(const struct session *s)
{
	return s->blocked ? 0 : EVENTS_MAX;
}

static size_t session_room(const struct channel *ch)
{
	const struct session *s = (const struct session *)ch;

	return outbox_room(&s->out, held_max(s));
}

static int session_post(struct channel *ch, uint32_t type, uint64_t request_id, uint64_t seq,
			const struct event_part *parts, int n_parts)
{
	struct session *s = (struct session *)ch;

	if (s->failing)
		return -EPIPE;
	return outbox_post(&s->out, held_max(s), type, request_id, seq, parts, n_parts);
}

static bool session_flushed(const struct channel *ch)
{
	const struct session *s = (const struct session *)ch;

	return !outbox_held(&s->out);
}

/* There is nowhere else to send a client: its file is the next daemon's when this one ends. */
static void session_close(struct channel *ch)
{
}

static void session_fail(struct channel *ch, int error, const char *sentence)
{
	struct session *s = (struct session *)ch;

	if (s->failing)
		return;
	s->failing = true;
	s->error = error;
	snprintf(s->sentence, sizeof(s->sentence), "%s", sentence);
}

/* ---- posting ----------------------------------------------------------------------------------------- */

static bool batch_room(const struct kdev *d)
{
	return d->n_sent < LLM_POST_MAX && d->batch_len + LLM_EVENT_MAX <= BATCH_MAX;
}

static void batch_add(struct kdev *d, struct session *s, uint64_t id, size_t size, bool terminal,
		      bool queued)
{
	d->sent[d->n_sent++] = (struct sent){s, id, (uint32_t)size, terminal, queued};
	d->batch_len += size;
}

/* The session's records, as many as fit. */
static void batch_queue(struct kdev *d, struct session *s)
{
	size_t at = s->out.head;

	while (at < s->out.len && batch_room(d)) {
		struct llm_event ev;

		memcpy(&ev, s->out.v + at, sizeof(ev));
		memcpy(d->batch + d->batch_len, s->out.v + at, ev.size);
		batch_add(d, s, ev.request_id, ev.size,
			  ev.type == LLM_EVENT_DONE || ev.type == LLM_EVENT_ERROR, true);
		at += ev.size;
	}
}

/* The ends of its pending requests. */
static void batch_ends(struct kdev *d, struct session *s)
{
	struct error_parts err;

	error_parts(&err, s->error, s->sentence);
	for (size_t i = 0; i < s->n_pending && batch_room(d); i++) {
		const struct pending *p = &s->pending[i];
		size_t size = event_write(d->batch + d->batch_len, BATCH_MAX - d->batch_len,
					  LLM_EVENT_ERROR, p->id, p->seq, err.parts, 2);

		batch_add(d, s, p->id, size, true, false);
	}
}

static void batch_fill(struct kdev *d)
{
	d->n_sent = 0;
	d->batch_len = 0;
	for (struct session *s = d->sessions; s && batch_room(d); s = s->next) {
		if (s->failing)
			batch_ends(d, s);
		else if (!s->blocked)
			batch_queue(d, s);
	}
}

/* What the kernel said of one record. True: it stays in the queue. */
static bool take_result(const struct sent *r, int32_t result)
{
	struct pending *p = pending_find(r->s, r->id);

	/* A terminal event has to wait, too, where it comes after one that must. */
	if (result == -EAGAIN && r->queued) {
		r->s->blocked = true;
		return true;
	}
	if (!p)
		return false;
	/* Ours is the mistake. Without an end the client would wait for ever. */
	if ((result == -EINVAL || result == -EOPNOTSUPP) && !r->s->failing)
		session_fail(&r->s->base, EPROTO,
			     "daemon: the kernel refused one of its events: report this");
	else if (r->terminal || result == -ENOENT)
		pending_drop(r->s, p);
	else if (!result)
		p->seq++;
	return false;
}

/* The first `n` results are of records that stand at the head of the session's queue. */
static void take_queued(struct session *s, const struct sent *sent, const int32_t *results,
			unsigned n)
{
	struct outbox *o = &s->out;
	size_t from = o->head, to = o->head;

	for (unsigned i = 0; i < n; i++) {
		if (take_result(&sent[i], results[i])) {
			if (to != from)
				memmove(o->v + to, o->v + from, sent[i].size);
			to += sent[i].size;
		}
		from += sent[i].size;
	}
	/* What stays moves down to what has not been looked at, or that down to it. */
	if (to == o->head) {
		outbox_take(o, from - to);
	} else if (to != from) {
		memmove(o->v + to, o->v + from, o->len - from);
		o->len -= from - to;
	}
}

static void batch_results(struct kdev *d)
{
	for (unsigned i = 0, n; i < d->n_sent; i += n) {
		struct session *s = d->sent[i].s;

		n = 1;
		while (i + n < d->n_sent && d->sent[i + n].s == s)
			n++;
		if (d->sent[i].queued) {
			take_queued(s, d->sent + i, d->results + i, n);
			continue;
		}
		for (unsigned k = i; k < i + n; k++)
			take_result(&d->sent[k], d->results[k]);
	}
}

/* False: nothing was left, or it cannot be posted. */
static bool post_batch(struct kdev *d)
{
	struct llm_post p = {.size = sizeof(p), .generation = d->generation};
	int rc;

	batch_fill(d);
	if (!d->n_sent || d->broken)
		return false;
	p.count = d->n_sent;
	p.events = (uint64_t)(uintptr_t)d->batch;
	p.events_len = d->batch_len;
	p.results = (uint64_t)(uintptr_t)d->results;
	do
		rc = ioctl(d->fd, LLM_IOC_POST, &p);
	while (rc && errno == EINTR);
	if (rc) {
		broken(d, -errno, errno == ESTALE ? TAKEN_AWAY : strerror(errno));
		return false;
	}
	batch_results(d);
	return true;
}

/* True: somebody was told, and may have posted. */
static bool tell_room(struct kdev *d)
{
	bool told = false;

	for (struct session *s = d->sessions; s; s = s->next) {
		if (!s->out.full || s->failing || session_room(&s->base) < EVENTS_MAX / 2)
			continue;
		s->out.full = false;
		told = true;
		d->h->room(d->ctx, &s->base);
	}
	return told;
}

static void kdev_flush(struct transport *t)
{
	struct kdev *d = (struct kdev *)t;

	do {
		for (struct session *s = d->sessions; s; s = s->next) {
			if (s->failing)
				session_end(s);
		}
		while (post_batch(d))
			;
	} while (tell_room(d));
	for (struct session *s = d->sessions, *next; s; s = next) {
		next = s->next;
		if (s->closed && !s->n_pending)
			session_free(s);
	}
}

/* What a reader has no room for is no loss: the next backend computes it again. */
static bool kdev_flushed(const struct transport *t)
{
	const struct kdev *d = (const struct kdev *)t;

	for (const struct session *s = d->sessions; s; s = s->next) {
		if ((outbox_held(&s->out) && !s->blocked) || (s->failing && s->n_pending))
			return false;
	}
	return true;
}

/* ---- messages ---------------------------------------------------------------------------------------- */

static void on_open(struct kdev *d, const struct msg *m)
{
	struct session *s = session_find(d, m->session_id);
	struct err e;
	int rc;

	if (s) /* known: nothing to do */
		return;
	s = session_add(d, m);
	if (!s) {
		broken(d, -ENOMEM, "no memory for a session");
		return;
	}
	s->replayed = m->flags & LLM_MSG_F_REPLAY;
	rc = d->h->open(d->ctx, &s->base, &e);
	if (rc) {
		session_fail(&s->base, -rc, e.msg);
		return;
	}
	s->opened = true;
	d->h->message(d->ctx, &s->base, m);
}

static void on_close(struct session *s)
{
	session_end(s);
	session_fail(&s->base, ECANCELED, "");
	s->closed = true;
}

/* What `echo` puts behind a question is not part of it. */
static void strip_newline(struct msg *m)
{
	uint64_t n = m->submit.payload_len;

	if (n > 1 && m->payload[n - 1] == '\n')
		n--;
	if (n > 1 && m->payload[n - 1] == '\r')
		n--;
	m->submit.payload_len = n;
}

/* `rc`: what the parser thought of it. */
static void on_submit(struct session *s, struct msg *m, int rc, const struct err *e)
{
	struct kdev *d = s->d;
	struct error_parts err;

	if (!(m->flags & LLM_MSG_F_FINISHED) && pending_add(s, m->request_id, m->submit.seq)) {
		broken(d, -ENOMEM, "no memory for a request");
		return;
	}
	if (s->failing)
		return;
	if (!rc) {
		if (s->text)
			strip_newline(m);
		d->h->message(d->ctx, &s->base, m);
	} else if (m->flags & LLM_MSG_F_FINISHED) {
		session_fail(&s->base, ESTALE,
			     "conversation: it was held with another version: start a new one");
	} else {
		error_parts(&err, -rc, e->msg);
		session_post(&s->base, LLM_EVENT_ERROR, m->request_id, m->submit.seq, err.parts, 2);
	}
}

static void on_replay_end(struct kdev *d, const struct msg *m)
{
	for (struct session *s = d->sessions; s; s = s->next) {
		if (s->replayed && s->opened)
			d->h->message(d->ctx, &s->base, m);
		s->replayed = false;
	}
}

static void on_message(struct kdev *d, size_t len)
{
	struct session *s;
	struct err e;
	struct msg m;
	int rc = msg_parse(&m, d->message, len, &e);

	if (rc && m.type != LLM_MSG_SUBMIT)
		return; /* a newer kernel's: what matters is told in known ones */
	s = session_find(d, m.session_id);
	switch (m.type) {
	case LLM_MSG_SESSION_OPEN:
		on_open(d, &m);
		return;
	case LLM_MSG_QUIESCE:
		if (d->h->quiesce)
			d->h->quiesce(d->ctx, m.quiesce.deadline_ns);
		return;
	case LLM_MSG_REPLAY_END:
		on_replay_end(d, &m);
		return;
	}
	if (!s || s->closed)
		return;
	switch (m.type) {
	case LLM_MSG_SESSION_CLOSE:
		on_close(s);
		return;
	case LLM_MSG_SUBMIT:
		on_submit(s, &m, rc, &e);
		return;
	case LLM_MSG_CANCEL:
		if (s->opened)
			d->h->message(d->ctx, &s->base, &m);
		return;
	case LLM_MSG_RESUME:
		s->blocked = false;
		return;
	}
}

/* A buffer as long as the kernel says that messages may be. */
static int grow_message(struct kdev *d, struct llm_query *q)
{
	uint8_t *p;

	*q = (struct llm_query){.size = sizeof(*q)};
	if (ioctl(d->fd, LLM_IOC_QUERY, q))
		return -errno;
	if (q->max_message <= d->message_max)
		return d->message ? -EMSGSIZE : -EINVAL;
	p = realloc(d->message, q->max_message);
	if (!p)
		return -ENOMEM;
	d->message = p;
	d->message_max = q->max_message;
	return 0;
}

/* False: there is nothing to read now. */
static bool read_message(struct kdev *d)
{
	ssize_t n = read(d->fd, d->message, d->message_max);
	struct llm_query q;
	int rc;

	if (n > 0) {
		on_message(d, (size_t)n);
		return true;
	}
	if (!n)
		broken(d, -EPIPE, TAKEN_AWAY);
	else if (errno == EMSGSIZE) {
		rc = grow_message(d, &q);
		if (rc)
			broken(d, rc, strerror(-rc));
	} else if (errno != EAGAIN && errno != EINTR) {
		broken(d, -errno, strerror(errno));
	}
	return false;
}

static int kdev_poll(struct transport *t, int64_t timeout_ns, struct err *e)
{
	struct kdev *d = (struct kdev *)t;
	struct pollfd p = {.fd = d->fd, .events = POLLIN};

	if (timeout_ns && !d->broken) {
		int ms = timeout_ns < 0 ? -1 : (int)((timeout_ns + 999999) / 1000000);

		if (poll(&p, 1, ms) < 0 && errno != EINTR)
			return err_set(e, -errno, "poll: %s", strerror(errno));
	}
	for (int i = 0; i < MESSAGES_TURN && !d->broken && read_message(d); i++)
		;
	if (d->broken)
		return err_set(e, d->broken, "/dev/llm%u: %s", d->number, d->why);
	return 0;
}

/* ---- the file ------------------------------------------------------------------------------------------ */

/*
 * The kernel keeps what is not read, and what was read and not begun goes to the next daemon: reading
 * on does no harm, and tells who is gone and whose reader is back.
 */
static void kdev_drain(struct transport *t)
{
}

static void kdev_close(struct transport *t)
{
	struct kdev *d = (struct kdev *)t;

	while (d->sessions) {
		session_end(d->sessions);
		session_free(d->sessions);
	}
	if (d->fd >= 0)
		close(d->fd);
	free(d->message);
	free(d->batch);
	free(d);
}

static const struct transport_ops kdev_ops = {
	.close = kdev_close,
	.drain = kdev_drain,
	.poll = kdev_poll,
	.flush = kdev_flush,
	.flushed = kdev_flushed,
	.channel_room = session_room,
	.channel_post = session_post,
	.channel_flushed = session_flushed,
	.channel_close = session_close,
	.channel_fail = session_fail,
};

static int attach(struct kdev *d, int control, const struct kdev_opts *o)
{
	struct llm_device_attach a = {
		.size = sizeof(a),
		.fingerprint = o->fingerprint,
		.features = o->features,
		.context = o->context,
	};

	snprintf((char *)a.name, sizeof(a.name), "%s", o->name);
	if (ioctl(control, LLM_IOC_DEVICE_ATTACH, &a))
		return -errno;
	d->fd = a.backend_fd;
	d->number = a.device_id;
	d->generation = a.generation;
	return 0;
}

static int create(struct kdev *d, int control, const struct kdev_opts *o)
{
	struct llm_device_create c = {
		.size = sizeof(c),
		.fingerprint = o->fingerprint,
		.features = o->features,
		.context = o->context,
	};

	snprintf((char *)c.name, sizeof(c.name), "%s", o->name);
	snprintf((char *)c.model, sizeof(c.model), "%s", o->model);
	if (ioctl(control, LLM_IOC_DEVICE_CREATE, &c))
		return -errno;
	d->fd = c.backend_fd;
	d->number = c.device_id;
	d->generation = c.generation;
	return 0;
}

static int connect_device(struct kdev *d, const struct kdev_opts *o, struct err *e)
{
	int control = open(CONTROL, O_RDWR | O_CLOEXEC), rc;

	if (control < 0)
		return err_set(e, -errno, "%s: %s: %s", CONTROL, strerror(errno),
			       errno == ENOENT || errno == ENXIO
				       ? "load the module (modprobe llm) or leave out --device"
				       : "join its group or run as root");
	rc = attach(d, control, o);
	if (rc == -ENOENT)
		rc = create(d, control, o);
	if (rc == -EEXIST) /* meanwhile */
		rc = attach(d, control, o);
	close(control);
	if (rc == -EBUSY)
		return err_set(e, rc,
			       "device %s: another llmdevd serves it: stop that one or choose "
			       "another --name",
			       o->name);
	if (rc)
		return err_set(e, rc, "device %s: cannot be served: %s", o->name, strerror(-rc));
	if (fcntl(d->fd, F_SETFL, O_RDWR | O_NONBLOCK))
		return err_set(e, -errno, "device %s: %s", o->name, strerror(errno));
	return 0;
}

int kdev_open(struct transport **out, const struct kdev_opts *o, const struct transport_handler *h,
	      void *ctx, struct llm_query *q, struct err *e)
{
	struct kdev *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return err_set(e, -ENOMEM, "transport: no memory");
	d->base.ops = &kdev_ops;
	d->h = h;
	d->ctx = ctx;
	d->fd = -1;
	d->batch = malloc(BATCH_MAX);
	rc = d->batch ? connect_device(d, o, e) : err_set(e, -ENOMEM, "transport: no memory");
	if (!rc) {
		rc = grow_message(d, q);
		if (rc)
			err_set(e, rc, "device %s: %s", o->name, strerror(-rc));
	}
	if (rc) {
		kdev_close(&d->base);
		return rc;
	}
	*out = &d->base;
	return 0;
}

int kdev_fd(const struct transport *t)
{
	return ((const struct kdev *)t)->fd;
}

unsigned kdev_number(const struct transport *t)
{
	return ((const struct kdev *)t)->number;
}
