// SPDX-License-Identifier: MIT
/* The functions of libllmdev (llmdev.h): open, ask, events. Owns struct llmdev. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "lib/internal.h"
#include "transport/message.h"

#define DEFAULT_RECOVERY_MS 10000
#define DEFAULT_TRANSCRIPT  (16u << 20)
#define PAYLOAD_MAX	    (1u << 30)
#define PIECE_MAX	    (64u << 20) /* of DATA that comes in parts */
#define PIECE_KEPT	    4096 /* of its buffer, between two of them */

uint64_t lib_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int lib_error(struct llmdev *d, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->error, sizeof(d->error), fmt, ap);
	va_end(ap);
	return code;
}

void lib_die(struct llmdev *d, int error, const char *sentence)
{
	if (d->dead)
		return;
	d->dead = error;
	snprintf(d->death, sizeof(d->death), "%s", sentence);
	if (!d->device)
		connection_drop(d);
}

/* ---- open and close ------------------------------------------------------------------------------- */

void llmdev_default_socket(char *path, size_t len, const char *name)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");

	snprintf(path, len, "%s/llmdev/%s.sock", dir && *dir == '/' ? dir : "/run", name);
}

/* What `path` is. A socket that does not exist (yet) counts as one. */
static bool is_device(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISCHR(st.st_mode);
}

static int open_device(struct llmdev *d, const char *path)
{
	d->device = true;
	snprintf(d->path, sizeof(d->path), "%s", path);
	snprintf(d->where, sizeof(d->where), "device %s", path);
	return device_open(d);
}

static int open_socket(struct llmdev *d, const char *path, char *why, size_t why_len)
{
	d->device = false;
	snprintf(d->path, sizeof(d->path), "%s", path);
	snprintf(d->where, sizeof(d->where), "socket %s", path);
	return connection_open(d, why, why_len);
}

static int open_any(struct llmdev *d, char *why, size_t why_len)
{
	static const char device[] = "/dev/llm0", system[] = "/run/llmdev/llm0.sock";
	char path[LLMDEV_PATH_MAX];
	bool orphan = false;
	struct llm_query q;
	int rc;

	if (is_device(device) && !open_device(d, device)) {
		if (device_query(d, &q) || q.generation)
			return 0;
		/* Nobody serves it now: a daemon at a socket goes first. */
		orphan = true;
		close(d->fd);
		d->fd = -1;
	}
	llmdev_default_socket(path, sizeof(path), "llm0");
	rc = open_socket(d, path, why, why_len);
	/* A daemon of the system serves users who have a runtime directory of their own, too. */
	if ((rc == -ENOENT || (rc && orphan)) && strcmp(path, system))
		rc = open_socket(d, system, NULL, 0);
	if (rc && orphan && !open_device(d, device))
		return 0;
	if (rc == -ENOENT && why)
		snprintf(why, why_len,
			 "no model is served here: neither %s nor %s exists: start llmdevd MODEL",
			 device, path);
	else if (rc && why && !*why)
		snprintf(why, why_len, "%s: %s", d->path, strerror(-rc));
	return rc;
}

static int open_fds(struct llmdev *d)
{
	struct epoll_event ev = {.events = EPOLLIN};

	d->in = malloc(PACKET_MAX);
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	d->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (!d->in)
		return -ENOMEM;
	if (d->epoll_fd < 0 || d->timer_fd < 0 ||
	    epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, d->timer_fd, &ev))
		return -errno;
	return 0;
}

int llmdev_open(struct llmdev **out, const struct llmdev_options *o, char *why, size_t why_len)
{
	struct llmdev *d = calloc(1, sizeof(*d));
	int rc;

	if (why && why_len)
		*why = '\0';
	else
		why = NULL;
	if (!d) {
		if (why)
			snprintf(why, why_len, "session: no memory");
		return -ENOMEM;
	}
	if (o)
		d->o = *o;
	if (!d->o.recovery_ms)
		d->o.recovery_ms = DEFAULT_RECOVERY_MS;
	if (!d->o.transcript_max)
		d->o.transcript_max = DEFAULT_TRANSCRIPT;
	d->fd = d->epoll_fd = d->timer_fd = -1;
	d->turns_tail = &d->turns;
	d->out_tail = &d->out;
	d->next_id = 1;
	rc = open_fds(d);
	if (rc) {
		if (why)
			snprintf(why, why_len, "session: %s", strerror(-rc));
	} else if (!d->o.path) {
		rc = open_any(d, why, why_len);
	} else if (strlen(d->o.path) >= LLMDEV_PATH_MAX) {
		rc = -ENAMETOOLONG;
		if (why)
			snprintf(why, why_len, "%s: a path has at most %d bytes here", d->o.path,
				 LLMDEV_PATH_MAX - 1);
	} else if (is_device(d->o.path)) {
		rc = open_device(d, d->o.path);
		if (rc && why)
			snprintf(why, why_len, "%s: %s", d->o.path,
				 rc == -ENOTTY ? "is no device of llmdev" : strerror(-rc));
	} else {
		rc = open_socket(d, d->o.path, why, why_len);
	}
	if (rc) {
		llmdev_close(d);
		return rc;
	}
	*out = d;
	return 0;
}

void llmdev_close(struct llmdev *d)
{
	if (!d)
		return;
	turns_free(d);
	while (d->out) {
		struct out_msg *m = d->out;

		d->out = m->next;
		free(m);
	}
	if (d->fd >= 0)
		close(d->fd);
	if (d->epoll_fd >= 0)
		close(d->epoll_fd);
	if (d->timer_fd >= 0)
		close(d->timer_fd);
	free(d->piece);
	free(d->piece_ids);
	free(d->in);
	free(d);
}

/* ---- requests ------------------------------------------------------------------------------------- */

static int submit_device(struct llmdev *d, const struct llm_msg_submit *b, const char *payload,
			 const struct llmdev_request *r, uint64_t *id)
{
	struct llm_submit s = {
		.size = sizeof(s),
		.flags = b->flags,
		.payload = (uint64_t)(uintptr_t)payload,
		.payload_len = b->payload_len,
		.deadline_ns = b->deadline_ns,
		.format = b->format,
		.max_tokens = b->max_tokens,
		.priority = b->priority,
		.principal_len = b->principal_len,
		.principal = (uint64_t)(uintptr_t)r->principal,
	};
	int rc;

	memcpy(s.trace_id, b->trace_id, sizeof(s.trace_id));
	memcpy(s.span_id, b->span_id, sizeof(s.span_id));
	rc = device_submit(d, &s, id);
	if (rc)
		return rc;
	if (!turn_add(d, *id, b, NULL, r->principal)) {
		device_cancel(d, *id);
		return lib_error(d, -ENOMEM, "request: no memory");
	}
	return 0;
}

static int submit(struct llmdev *d, uint32_t format, const char *payload, size_t len,
		  const struct llmdev_request *r, uint64_t *request)
{
	static const struct llmdev_request plain;
	struct llm_msg_submit b = {.format = format, .payload_len = len};
	struct turn *t;
	uint64_t id;
	int rc;

	d->error[0] = '\0';
	if (!r)
		r = &plain;
	if (!len || len > PAYLOAD_MAX)
		return lib_error(d, len ? -E2BIG : -EINVAL, "request: %zu bytes: give 1 to %u", len,
				 PAYLOAD_MAX);
	if (r->principal && strlen(r->principal) > LLM_PRINCIPAL_MAX)
		return lib_error(d, -EINVAL, "principal: at most %d bytes", LLM_PRINCIPAL_MAX);
	if (d->dead)
		return lib_error(d, -d->dead, "%s", d->death);
	b.flags = r->reasoning ? LLM_SUBMIT_F_REASONING : 0;
	b.deadline_ns = r->deadline_ns;
	b.max_tokens = r->max_tokens;
	b.priority = r->priority;
	memcpy(b.trace_id, r->trace_id, sizeof(b.trace_id));
	memcpy(b.span_id, r->span_id, sizeof(b.span_id));
	b.principal_len = r->principal ? (uint32_t)strlen(r->principal) : 0;
	if (d->device) {
		rc = submit_device(d, &b, payload, r, &id);
		if (!rc && request)
			*request = id;
		return rc;
	}
	t = turn_add(d, d->next_id, &b, payload, r->principal);
	if (!t)
		return lib_error(d, -ENOMEM, "request: no memory");
	if (connection_submit(d, t)) {
		turn_drop(d, t);
		return lib_error(d, -ENOMEM, "request: no memory");
	}
	d->next_id++;
	if (request)
		*request = t->id;
	connection_wanted(d);
	connection_flush(d); /* on its way before anybody waits */
	return 0;
}

int llmdev_submit_text(struct llmdev *d, const char *text, size_t len,
		       const struct llmdev_request *r, uint64_t *request)
{
	return submit(d, LLM_FMT_TEXT, text, len, r, request);
}

int llmdev_submit_json(struct llmdev *d, const char *json, size_t len,
		       const struct llmdev_request *r, uint64_t *request)
{
	return submit(d, LLM_FMT_JSON, json, len, r, request);
}

int llmdev_cancel(struct llmdev *d, uint64_t request)
{
	struct llm_msg_cancel body = {.reason = ECANCELED};
	struct turn *t = turn_find(d, request);

	d->error[0] = '\0';
	if (!t)
		return lib_error(d, -ENOENT, "request %llu: not an unfinished one",
				 (unsigned long long)request);
	if (d->device)
		return device_cancel(d, request);
	if (t->cancelled)
		return 0;
	if (connection_send(d, LLM_MSG_CANCEL, request, &body, sizeof(body)))
		return lib_error(d, -ENOMEM, "cancel: no memory");
	t->cancelled = true;
	connection_flush(d);
	return 0;
}

/* ---- events --------------------------------------------------------------------------------------- */

static void fill_text(struct llmdev_event *ev, const uint8_t *payload)
{
	struct llm_text text;

	memcpy(&text, payload, sizeof(text));
	ev->ids = (const int32_t *)(const void *)(payload + sizeof(text));
	ev->n_ids = text.n_ids;
	ev->text = (const char *)payload + sizeof(text) + text.n_ids * sizeof(int32_t);
	ev->text_len = text.n_bytes;
	ev->subtype = text.subtype;
}

static void piece_end(struct llmdev *d)
{
	d->piece_of = 0;
	d->piece_len = d->n_piece_ids = 0;
	if (d->piece_cap > PIECE_KEPT) {
		free(d->piece);
		d->piece = NULL;
		d->piece_cap = 0;
	}
}

static int piece_append(struct llmdev *d, const struct llm_text *text, const uint8_t *ids)
{
	size_t n = text->n_ids, want = d->piece_len + text->n_bytes;
	int32_t *v;

	if (want > PIECE_MAX)
		return -EPROTO;
	if (want > d->piece_cap) {
		size_t cap = want * 2;
		char *p = realloc(d->piece, cap);

		if (!p)
			return -ENOMEM;
		d->piece = p;
		d->piece_cap = cap;
	}
	if (n) {
		v = realloc(d->piece_ids, (d->n_piece_ids + n) * sizeof(*v));
		if (!v)
			return -ENOMEM;
		d->piece_ids = v;
		memcpy(v + d->n_piece_ids, ids, n * sizeof(*v));
		d->n_piece_ids += n;
	}
	memcpy(d->piece + d->piece_len, ids + n * sizeof(*v), text->n_bytes);
	d->piece_len = want;
	return 0;
}

/*
 * DATA that comes in parts is told when it is whole, over a change of daemons too. 1: *ev is
 * filled; 0: more is to come.
 */
static int take_piece(struct llmdev *d, struct llmdev_event *ev, const struct llm_event *h,
		      const uint8_t *payload)
{
	struct llm_text text;
	int rc;

	memcpy(&text, payload, sizeof(text));
	if (!(text.flags & LLM_TEXT_F_MORE) && d->piece_of != h->request_id)
		return 1;
	if (d->piece_of != h->request_id)
		piece_end(d);
	rc = piece_append(d, &text, payload + sizeof(text));
	if (rc)
		return rc;
	d->piece_of = text.flags & LLM_TEXT_F_MORE ? h->request_id : 0;
	if (d->piece_of)
		return 0;
	ev->text = d->piece;
	ev->text_len = d->piece_len;
	ev->ids = d->piece_ids;
	ev->n_ids = d->n_piece_ids;
	d->piece_told = true;
	return 1;
}

static void fill_done(struct llmdev_event *ev, const uint8_t *payload)
{
	struct llm_done done;

	memcpy(&done, payload, sizeof(done));
	ev->finish = (enum llmdev_finish)done.finish;
	ev->usage = (struct llmdev_usage){
		.prompt_tokens = done.prompt_tokens,
		.cached_tokens = done.cached_tokens,
		.completion_tokens = done.completion_tokens,
		.submit_ns = done.submit_ns,
		.start_ns = done.start_ns,
		.first_ns = done.first_ns,
		.end_ns = done.end_ns,
	};
}

static void fill_error(struct llmdev *d, struct llmdev_event *ev, const uint8_t *payload)
{
	struct llm_error err;

	memcpy(&err, payload, sizeof(err));
	ev->error = err.error;
	ev->text = (const char *)payload + sizeof(err);
	ev->text_len = err.n_bytes;
	lib_error(d, 0, "%.*s", (int)(err.n_bytes < 500 ? err.n_bytes : 500), ev->text);
}

static void fill(struct llmdev *d, struct llmdev_event *ev, const struct llm_event *h,
		 const uint8_t *payload)
{
	static const enum llmdev_event_kind kinds[] = {
		[LLM_EVENT_STARTED] = LLMDEV_STARTED, [LLM_EVENT_PROGRESS] = LLMDEV_PROGRESS,
		[LLM_EVENT_TEXT] = LLMDEV_TEXT,	      [LLM_EVENT_DATA] = LLMDEV_DATA,
		[LLM_EVENT_DONE] = LLMDEV_DONE,	      [LLM_EVENT_ERROR] = LLMDEV_ERROR,
	};
	struct llm_progress p;

	*ev = (struct llmdev_event){.kind = kinds[h->type], .request = h->request_id};
	switch (h->type) {
	case LLM_EVENT_PROGRESS:
		memcpy(&p, payload, sizeof(p));
		ev->done = p.done;
		ev->total = p.total;
		break;
	case LLM_EVENT_TEXT:
	case LLM_EVENT_DATA:
		fill_text(ev, payload);
		break;
	case LLM_EVENT_DONE:
		fill_done(ev, payload);
		break;
	case LLM_EVENT_ERROR:
		fill_error(d, ev, payload);
		break;
	}
}

/* An ERROR for the session as a whole: the daemon does not want us. */
static void session_error(struct llmdev *d, const uint8_t *payload)
{
	struct llmdev_event ev = {0};

	fill_error(d, &ev, payload);
	lib_die(d, ev.error, d->error);
}

/*
 * One event out of what has arrived. 1: *ev is filled; 0: nothing there. A record that makes no
 * sense ends the session.
 */
static int take_event(struct llmdev *d, struct llmdev_event *ev)
{
	if (d->piece_told) {
		d->piece_told = false;
		piece_end(d);
	}
	while (d->in_pos < d->in_len) {
		const void *payload;
		struct llm_event h;
		struct llm_done done;
		int64_t size = event_parse(d->in + d->in_pos, d->in_len - d->in_pos, &h, &payload);
		int rc = size < 0 ? (int)size : 0;

		if (!rc && h.type == LLM_EVENT_DONE && !d->split && turn_find(d, h.request_id)) {
			memcpy(&done, payload, sizeof(done));
			if (done.n_bytes) {
				/* Text first, so that nobody has to look for it in DONE. */
				*ev = (struct llmdev_event){
					.kind = LLMDEV_TEXT,
					.request = h.request_id,
					.text = (const char *)payload + sizeof(done),
					.text_len = done.n_bytes,
				};
				d->split = true;
				return 1;
			}
		}
		d->split = false;
		if (!rc) {
			d->in_pos += (size_t)size;
			if (h.type == LLM_EVENT_ERROR && !h.request_id) {
				session_error(d, payload);
				continue;
			}
			rc = turn_record(d, &h, payload);
		}
		if (rc == 1) {
			fill(d, ev, &h, payload);
			if (h.type == LLM_EVENT_DATA)
				rc = take_piece(d, ev, &h, payload);
			if (rc == 1)
				return 1;
		}
		if (rc < 0) {
			d->in_pos = d->in_len;
			lib_die(d, rc == -ENOMEM ? ENOMEM : EPROTO,
				rc == -ENOMEM ? "answer: no memory"
					      : "daemon: its events make no sense: it speaks "
						"another protocol");
		}
	}
	d->in_pos = d->in_len = 0;
	return 0;
}

/* The session is lost: each unfinished request is told. */
static int take_death(struct llmdev *d, struct llmdev_event *ev)
{
	struct turn *t = d->turns;

	while (t && t->finished)
		t = t->next;
	lib_error(d, 0, "%s", d->death);
	if (!t)
		return -d->dead;
	*ev = (struct llmdev_event){
		.kind = LLMDEV_ERROR,
		.request = t->id,
		.error = d->dead,
		.text = d->death,
		.text_len = strlen(d->death),
	};
	turn_drop(d, t);
	return 1;
}

int llmdev_next(struct llmdev *d, struct llmdev_event *ev, int timeout_ms)
{
	uint64_t end = timeout_ms > 0 ? lib_now_ns() + (uint64_t)timeout_ms * 1000000u : 0;
	struct epoll_event ready;
	uint64_t now;
	int wait, n;

	d->error[0] = '\0';
	d->rest_len = 0;
	for (;;) {
		if (take_event(d, ev))
			return 1;
		if (d->dead)
			return take_death(d, ev);
		if (d->device)
			device_work(d);
		else
			connection_work(d);
		if (d->in_len || d->dead)
			continue;
		if (!d->n_pending)
			return 0;
		wait = -1;
		if (timeout_ms >= 0) {
			now = lib_now_ns();
			if (!end || now >= end)
				return 0;
			wait = (int)((end - now + 999999) / 1000000);
		}
		n = epoll_wait(d->epoll_fd, &ready, 1, wait);
		if (n < 0)
			return lib_error(d, -errno, "wait: %s", strerror(errno));
	}
}

ssize_t llmdev_read(struct llmdev *d, char *buf, size_t len)
{
	struct llmdev_event ev;
	size_t n;
	int rc;

	while (!d->rest_len) {
		rc = llmdev_next(d, &ev, -1);
		if (rc <= 0)
			return rc;
		if (ev.kind == LLMDEV_DONE)
			return 0;
		if (ev.kind == LLMDEV_ERROR)
			return -ev.error;
		if (ev.kind == LLMDEV_TEXT && ev.text_len) {
			d->rest = ev.text;
			d->rest_len = ev.text_len;
		}
	}
	n = len < d->rest_len ? len : d->rest_len;
	memcpy(buf, d->rest, n);
	d->rest += n;
	d->rest_len -= n;
	return (ssize_t)n;
}

/* The payload of the event of type `answer` among those that have arrived; NULL: not there. */
static const void *find_answer(struct llmdev *d, uint32_t answer)
{
	while (d->in_pos < d->in_len) {
		const void *payload;
		struct llm_event h;
		int64_t size = event_parse(d->in + d->in_pos, d->in_len - d->in_pos, &h, &payload);

		if (size < 0) {
			lib_die(d, EPROTO,
				"daemon: its events make no sense: it speaks another protocol");
			break;
		}
		d->in_pos += (size_t)size;
		if (h.type == LLM_EVENT_ERROR && !h.request_id)
			session_error(d, payload);
		if (h.type == answer) {
			d->in_pos = d->in_len; /* nothing of interest can follow */
			return payload;
		}
		/* Others are answers that came too late for their question. */
	}
	d->in_pos = d->in_len = 0;
	return NULL;
}

/*
 * Asks the daemon something that is about no request: `question` (LLM_MSG_*), answered by one event
 * of type `answer`, whose payload it returns; it is valid until the next call. NULL: *rc says why.
 */
static const void *ask_daemon(struct llmdev *d, uint32_t question, uint32_t answer, int timeout_ms,
			      int *rc)
{
	uint64_t end = lib_now_ns() + (timeout_ms > 0 ? (uint64_t)timeout_ms : 0) * 1000000u;
	struct epoll_event ready;
	const void *payload;
	bool asked = false;
	uint64_t now;

	*rc = 0;
	if (d->n_pending || d->in_pos < d->in_len)
		*rc = lib_error(d, -EBUSY, "query: requests are running: ask before or after");
	if (*rc)
		return NULL;
	d->in_pos = d->in_len = 0;
	connection_wanted(d);
	connection_work(d);
	while (!*rc) {
		if (!asked && d->fd >= 0) {
			asked = true;
			if (connection_send(d, question, 0, NULL, 0)) {
				*rc = lib_error(d, -ENOMEM, "query: no memory");
				break;
			}
		}
		payload = find_answer(d, answer);
		if (payload)
			return payload;
		if (d->dead) {
			*rc = lib_error(d, -d->dead, "%s", d->death);
			break;
		}
		connection_work(d);
		now = lib_now_ns();
		if (d->in_len || d->dead)
			continue;
		if (d->fd < 0 && !d->give_up_ns)
			*rc = lib_error(d, -EPIPE, "query: %s: the daemon is gone", d->where);
		else if (now >= end)
			*rc = lib_error(d, -ETIMEDOUT, "query: no answer from %s", d->where);
		else if (epoll_wait(d->epoll_fd, &ready, 1, (int)((end - now + 999999) / 1000000)) <
			 0)
			*rc = lib_error(d, -errno, "wait: %s", strerror(errno));
	}
	return NULL;
}

int llmdev_query(struct llmdev *d, struct llm_query *q, int timeout_ms)
{
	const void *answer;
	int rc;

	d->error[0] = '\0';
	if (d->dead)
		return lib_error(d, -d->dead, "%s", d->death);
	if (d->device)
		return device_query(d, q);
	answer = ask_daemon(d, LLM_MSG_QUERY, LLM_EVENT_INFO, timeout_ms, &rc);
	if (!answer)
		return rc;
	memcpy(q, answer, sizeof(*q));
	q->device[LLM_NAME_MAX - 1] = q->model[LLM_NAME_MAX - 1] = '\0';
	return 0;
}

int llmdev_status(struct llmdev *d, struct llm_status *s, struct llm_status_session *sessions,
		  size_t max, int timeout_ms)
{
	const uint8_t *answer;
	size_t n;
	int rc;

	d->error[0] = '\0';
	if (d->dead)
		return lib_error(d, -d->dead, "%s", d->death);
	if (d->device)
		return lib_error(d, -EOPNOTSUPP,
				 "status: %s cannot tell: ask at the daemon's socket", d->path);
	answer = ask_daemon(d, LLM_MSG_STATUS, LLM_EVENT_STATUS, timeout_ms, &rc);
	if (!answer)
		return rc;
	/* Both may be longer than what this version knows (event_parse() checked that they fit). */
	memcpy(s, answer, sizeof(*s));
	s->device[LLM_NAME_MAX - 1] = s->model[LLM_NAME_MAX - 1] = '\0';
	s->backend[LLM_NAME_MAX - 1] = '\0';
	n = s->n_sessions < max ? s->n_sessions : max;
	for (size_t i = 0; i < n; i++)
		memcpy(&sessions[i], answer + s->size + i * s->session_size, sizeof(*sessions));
	return (int)n;
}

int llmdev_fd(const struct llmdev *d)
{
	return d->epoll_fd;
}

int llmdev_pending(const struct llmdev *d)
{
	return d->n_pending;
}

const char *llmdev_error(const struct llmdev *d)
{
	return d->error;
}

const char *llmdev_where(const struct llmdev *d)
{
	return d->where;
}

unsigned llmdev_recoveries(const struct llmdev *d)
{
	return d->recoveries;
}
