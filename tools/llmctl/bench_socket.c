// SPDX-License-Identifier: MIT
/*
 * A daemon as the target of `llmctl bench serve`, through libllmdev: a conversation is a session of
 * its own. Owns the sessions and the epoll that watches them all.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "bench_target.h"
#include "ctl.h"
#include "lib/llmdev.h"
#include "llm.h"

#define QUERY_MS   10000
#define BATCH	   64 /* sessions looked at in one wait */
#define BODY_EXTRA 128 /* bytes of a request beside its ids */

struct socket_stream {
	struct bench_stream base;
	struct socket_stream *next, **link; /* of those with something left to look at */
	struct llmdev *d;
	const struct bench_stream_handler *h;
	void *ctx;
	int64_t number;
	bool busy;
};

struct socket_target {
	struct bench_target base;
	struct bench_socket_opts o;
	int epoll_fd;
	struct socket_stream *fresh; /* just submitted: their events may have been read already */
};

char *bench_print_ids(char *p, const int32_t *ids, size_t n)
{
	*p++ = '[';
	for (size_t i = 0; i < n; i++) {
		char digits[12];
		uint32_t v = (uint32_t)ids[i];
		int k = 0;

		if (i)
			*p++ = ',';
		do {
			digits[k++] = (char)('0' + v % 10);
		} while (v /= 10);
		while (k)
			*p++ = digits[--k];
	}
	*p++ = ']';
	return p;
}

static int body(struct bench_target *t, struct bench_body *b, const int32_t *ids, size_t n,
		int max_tokens, struct err *e)
{
	size_t cap = 12 * n + BODY_EXTRA;
	char *p = b->bytes = malloc(cap);

	if (!p)
		return err_set(e, -ENOMEM, "request: no memory for %zu tokens", n);
	p = stpcpy(p, "{\"prompt\":");
	p = bench_print_ids(p, ids, n);
	p += sprintf(p, ",\"max_tokens\":%d,\"ignore_eos\":true,\"temperature\":0}", max_tokens);
	b->len = (size_t)(p - b->bytes);
	return 0;
}

static void unlink_fresh(struct socket_stream *s)
{
	if (!s->link)
		return;
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	s->link = NULL;
}

static int open_stream(struct bench_target *bt, struct bench_stream **out, int64_t number,
		       const struct bench_stream_handler *h, void *ctx, struct err *e)
{
	struct socket_target *t = (struct socket_target *)bt;
	struct llmdev_options lo = {.path = t->o.path, .recovery_ms = t->o.recovery_ms};
	struct socket_stream *s = calloc(1, sizeof(*s));
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = s};
	char why[400];
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "session: no memory");
	*s = (struct socket_stream){.base.target = bt, .h = h, .ctx = ctx, .number = number};
	rc = llmdev_open(&s->d, &lo, why, sizeof(why));
	if (rc) {
		free(s);
		return err_set(e, rc, "%s", why);
	}
	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, llmdev_fd(s->d), &ev)) {
		rc = err_set(e, -errno, "session: epoll: %s", strerror(errno));
		llmdev_close(s->d);
		free(s);
		return rc;
	}
	*out = &s->base;
	return 0;
}

static int submit(struct bench_stream *bs, const struct bench_body *b, struct err *e)
{
	struct socket_stream *s = (struct socket_stream *)bs;
	struct socket_target *t = (struct socket_target *)bs->target;
	struct llmdev_request r = {.priority = t->o.priority};
	char label[32];
	int rc;

	if (t->o.principals) {
		snprintf(label, sizeof(label), "bench-%d",
			 (int)((uint64_t)s->number % (unsigned)t->o.principals));
		r.principal = label;
	}
	rc = llmdev_submit_json(s->d, b->bytes, b->len, &r, NULL);
	if (rc)
		return err_set(e, rc, "%s", llmdev_error(s->d));
	s->busy = true;
	if (!s->link) {
		s->next = t->fresh;
		s->link = &t->fresh;
		if (s->next)
			s->next->link = &s->next;
		t->fresh = s;
	}
	return 0;
}

static void close_stream(struct bench_stream *bs)
{
	struct socket_stream *s = (struct socket_stream *)bs;

	if (!s)
		return;
	unlink_fresh(s);
	epoll_ctl(((struct socket_target *)bs->target)->epoll_fd, EPOLL_CTL_DEL, llmdev_fd(s->d),
		  NULL);
	llmdev_close(s->d);
	free(s);
}

static void failed(struct socket_stream *s, int error, const char *sentence)
{
	struct bench_end end = {.prompt_tokens = -1,
				.cached_tokens = -1,
				.tokens = -1,
				.sentence = sentence};
	const char *name = strerrorname_np(error);

	snprintf(end.kind, sizeof(end.kind), "%s", name ? name : "error");
	s->busy = false;
	s->h->end(s->ctx, &end, ctl_now_ns());
}

static void ended(struct socket_stream *s, const struct llmdev_event *ev)
{
	struct bench_end end = {.ok = true,
				.prompt_tokens = (int)ev->usage.prompt_tokens,
				.cached_tokens = (int)ev->usage.cached_tokens,
				.tokens = (int)ev->usage.completion_tokens};

	if (ev->finish == LLMDEV_CANCELLED) {
		failed(s, ECANCELED, "request: the daemon ended it early");
		return;
	}
	s->busy = false;
	s->h->end(s->ctx, &end, ctl_now_ns());
}

/* All that is there for this session. */
static void drain(struct socket_stream *s)
{
	struct llmdev_event ev;
	char sentence[400];
	int rc;

	while ((rc = llmdev_next(s->d, &ev, 0)) == 1) {
		switch (ev.kind) {
		case LLMDEV_TEXT:
		case LLMDEV_DATA:
			if (ev.n_ids && s->busy)
				s->h->tokens(s->ctx, ev.ids, (int)ev.n_ids, ctl_now_ns());
			break;
		case LLMDEV_DONE:
			if (s->busy)
				ended(s, &ev);
			break;
		case LLMDEV_ERROR:
			snprintf(sentence, sizeof(sentence), "%.*s",
				 ev.text_len < 399 ? (int)ev.text_len : 399, ev.text);
			if (s->busy)
				failed(s, ev.error, sentence);
			break;
		default:
			break;
		}
	}
	if (rc < 0 && rc != -EINTR && s->busy) {
		snprintf(sentence, sizeof(sentence), "%s", llmdev_error(s->d));
		failed(s, -rc, sentence);
	}
}

static int wait_target(struct bench_target *bt, int64_t timeout_ns, struct err *e)
{
	struct socket_target *t = (struct socket_target *)bt;
	struct timespec ts = {timeout_ns / 1000000000, timeout_ns % 1000000000};
	struct pollfd p = {.fd = t->epoll_fd, .events = POLLIN};
	struct epoll_event ev[BATCH];
	int n;

	while (t->fresh) {
		struct socket_stream *s = t->fresh;

		unlink_fresh(s);
		drain(s);
		ts = (struct timespec){0};
	}
	n = ppoll(&p, 1, &ts, NULL);
	if (n > 0)
		n = epoll_wait(t->epoll_fd, ev, BATCH, 0);
	if (n < 0)
		return errno == EINTR ? -EINTR : err_set(e, -errno, "wait: %s", strerror(errno));
	for (int i = 0; i < n; i++)
		drain(ev[i].data.ptr);
	return 0;
}

static void destroy(struct bench_target *bt)
{
	close(((struct socket_target *)bt)->epoll_fd);
	free(bt);
}

static const struct bench_target_ops ops = {
	.body = body,
	.open = open_stream,
	.submit = submit,
	.close = close_stream,
	.wait = wait_target,
	.destroy = destroy,
};

int bench_socket_target(struct bench_target **out, const struct bench_socket_opts *o, struct err *e)
{
	struct llmdev_options lo = {.path = o->path, .recovery_ms = -1};
	struct socket_target *t;
	struct llm_query q = {0};
	struct llmdev *d;
	char why[400];
	int rc;

	rc = llmdev_open(&d, &lo, why, sizeof(why));
	if (rc)
		return err_set(e, rc, "%s", why);
	rc = llmdev_query(d, &q, QUERY_MS);
	t = calloc(1, sizeof(*t));
	if (rc)
		rc = err_set(e, rc, "%s", llmdev_error(d));
	else if (!t)
		rc = err_set(e, -ENOMEM, "target: no memory");
	if (!rc) {
		t->base.ops = &ops;
		t->o = *o;
		t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
		snprintf(t->base.facts.where, sizeof(t->base.facts.where), "%s", llmdev_where(d));
		snprintf(t->base.facts.model, sizeof(t->base.facts.model), "%s", q.model);
		t->base.facts.fingerprint = q.fingerprint;
		t->base.facts.context = (int)q.context;
		if (t->epoll_fd < 0)
			rc = err_set(e, -errno, "epoll: %s", strerror(errno));
	}
	llmdev_close(d);
	if (rc) {
		free(t);
		return rc;
	}
	*out = &t->base;
	return 0;
}
