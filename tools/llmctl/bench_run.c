// SPDX-License-Identifier: MIT
/*
 * The loop of `llmctl bench serve` (bench_run.h): starts conversations when they are due, takes
 * what comes, keeps records. Owns the clients: one conversation each, closed loop or open. One
 * thread; callbacks of the target only note what happened, advance() acts on it afterwards.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench_run.h"
#include "ctl.h"

#define TICK_NS UINT64_C(200000000) /* how often time-outs and Ctrl-C are looked at */

enum client_state { CLIENT_FREE, CLIENT_LOADING, CLIENT_LOADED, CLIENT_ASKING };

struct client {
	struct runner *run;
	struct client *next_ended;
	enum client_state state;
	struct bench_stream *stream;
	struct bench_body body;
	int64_t number;
	int turn;
	uint64_t due_ns, asked_ns, last_ns;
	struct bench_rng lengths_rng, ids_rng;
	int32_t *ids; /* the conversation so far */
	size_t n_ids, cap_ids;
	size_t record; /* of the running request */
	int wanted, arrived; /* tokens of its answer */
	/* noted by the callbacks */
	bool ended, ok, no_memory;
	char kind[24], sentence[400];
};

struct runner {
	struct bench_run *r;
	struct bench_target *t;
	const struct bench_workload *w;
	uint64_t timeout_ns;
	bool show;
	struct client **clients;
	int n_clients, cap_clients;
	int n_free, running; /* running: requests that are measured */
	struct client *ended;
	int64_t begun, done; /* conversations */
	uint64_t tokens;
	bool stop; /* begin nothing more */
	struct bench_rng arrivals;
	uint64_t due_ns; /* open loop: of the next arrival */
	uint64_t full_ns; /* when the limit of requests at once was last in the way */
	uint64_t window_ns; /* since when is measured; 0: it is not */
};

/* ---- records ------------------------------------------------------------------------------------ */

double bench_ttft(const struct bench_record *r)
{
	return r->first_ns ? (double)(r->first_ns - r->start_ns) * 1e-9 : 0;
}

double bench_e2e(const struct bench_record *r)
{
	return r->end_ns ? (double)(r->end_ns - r->start_ns) * 1e-9 : 0;
}

double bench_tpot(const struct bench_record *r)
{
	return r->tokens > 1 && r->first_ns && r->end_ns
		       ? (double)(r->end_ns - r->first_ns) * 1e-9 / (r->tokens - 1)
		       : 0;
}

static bool room(void **v, size_t n, size_t *cap, size_t size)
{
	size_t want = *cap ? 2 * *cap : 64;
	void *p;

	if (n < *cap)
		return true;
	while (want <= n)
		want *= 2;
	p = realloc(*v, want * size);
	if (!p)
		return false;
	*v = p;
	*cap = want;
	return true;
}

void bench_run_free(struct bench_run *r)
{
	for (size_t i = 0; i < r->n; i++) {
		free(r->records[i].gaps);
		free(r->records[i].sentence);
	}
	free(r->records);
	*r = (struct bench_run){0};
}

static void record_end(struct bench_record *rec, enum bench_state state, uint64_t now,
		       const char *kind, const char *sentence)
{
	struct err clean;

	rec->state = state;
	rec->end_ns = now;
	if (state != BENCH_FAILED)
		return;
	snprintf(rec->kind, sizeof(rec->kind), "%s", kind);
	err_set(&clean, 0, "%s", sentence); /* what others say may be no text */
	rec->sentence = strdup(clean.msg);
}

/* ---- callbacks ---------------------------------------------------------------------------------- */

/* What later turns have to repeat. */
static void keep_answer(struct client *c, const int32_t *ids, int n)
{
	for (int i = 0; i < n; i++) {
		int32_t id;

		if (ids)
			id = ids[i];
		else
			bench_random_ids(c->run->w, &c->ids_rng, &id, 1);
		if (!room((void **)&c->ids, c->n_ids, &c->cap_ids, sizeof(*c->ids))) {
			c->no_memory = true;
			return;
		}
		c->ids[c->n_ids++] = id;
	}
	if (!ids)
		c->run->r->ids_unknown = true;
}

static void on_tokens(void *ctx, const int32_t *ids, int n, uint64_t now)
{
	struct client *c = ctx;
	struct bench_record *rec;

	c->arrived += n;
	if (c->run->w->turns > 1 || c->state == CLIENT_LOADING)
		keep_answer(c, ids, n);
	if (c->state != CLIENT_ASKING)
		return;
	c->run->tokens += (uint64_t)n;
	rec = &c->run->r->records[c->record];
	if (!rec->first_ns) {
		rec->first_ns = now;
	} else if (room((void **)&rec->gaps, rec->n_gaps, &rec->cap_gaps, sizeof(*rec->gaps))) {
		rec->gaps[rec->n_gaps++] = (float)((double)(now - c->last_ns) * 1e-9);
	} else {
		c->no_memory = true;
	}
	c->last_ns = now;
}

static void on_end(void *ctx, const struct bench_end *end, uint64_t now)
{
	struct client *c = ctx;
	struct bench_record *rec;

	c->ended = true;
	c->ok = end->ok;
	c->next_ended = c->run->ended;
	c->run->ended = c;
	if (!end->ok) {
		snprintf(c->kind, sizeof(c->kind), "%s", end->kind);
		snprintf(c->sentence, sizeof(c->sentence), "%s", end->sentence);
	}
	/* Text that the server held back to the end had tokens, too. */
	if (end->ok && end->tokens > c->arrived && c->run->w->turns > 1)
		keep_answer(c, NULL, end->tokens - c->arrived);
	if (c->state != CLIENT_ASKING)
		return;
	rec = &c->run->r->records[c->record];
	rec->cached = end->cached_tokens;
	rec->tokens = end->tokens >= 0 ? end->tokens : c->arrived;
	if (end->ok && !rec->first_ns && rec->tokens)
		rec->first_ns = now;
	record_end(rec, end->ok ? BENCH_OK : BENCH_FAILED, now, c->kind, c->sentence);
}

static const struct bench_stream_handler handler = {.tokens = on_tokens, .end = on_end};

/* ---- conversations ------------------------------------------------------------------------------ */

static void close_client(struct client *c)
{
	if (c->stream)
		c->run->t->ops->close(c->stream);
	c->stream = NULL;
	free(c->body.bytes);
	c->body.bytes = NULL;
	if (c->state == CLIENT_ASKING)
		c->run->running--;
	if (c->state != CLIENT_FREE) {
		c->run->n_free++;
		c->run->done++;
	}
	c->state = CLIENT_FREE;
}

static void stop(struct runner *x, const char *why)
{
	if (!x->stop)
		snprintf(x->r->ended_early, sizeof(x->r->ended_early), "%s", why);
	x->stop = true;
}

/* A new record for what the client asks now; -ENOMEM. */
static int add_record(struct client *c, int wanted, struct err *e)
{
	struct bench_run *r = c->run->r;

	if (!room((void **)&r->records, r->n, &r->cap, sizeof(*r->records)))
		return err_set(e, -ENOMEM, "bench: no memory for the records");
	c->record = r->n++;
	r->records[c->record] = (struct bench_record){
		.conversation = c->number,
		.turn = c->turn,
		.prompt = (int)c->n_ids,
		.wanted = wanted,
		.cached = -1,
		.due_ns = c->turn || !c->due_ns ? c->asked_ns : c->due_ns,
		.start_ns = c->asked_ns,
	};
	return 0;
}

/* The server did not take the request: counts as one that failed. */
static int refused(struct client *c, int code, const struct err *why, struct err *e)
{
	const char *name = strerrorname_np(-code);
	int rc = 0;

	if (c->state == CLIENT_LOADING)
		rc = add_record(c, c->wanted, e);
	if (!rc)
		record_end(&c->run->r->records[c->record], BENCH_FAILED, ctl_now_ns(),
			   name ? name : "error", why->msg);
	if (code == -ECONNREFUSED || code == -ENOENT)
		stop(c->run, why->msg);
	close_client(c);
	return rc;
}

/* Sends the conversation so far and asks for `wanted` tokens. */
static int ask(struct client *c, enum client_state state, int wanted, struct err *e)
{
	const struct bench_target_ops *ops = c->run->t->ops;
	struct err why;
	int rc;

	free(c->body.bytes);
	c->body.bytes = NULL;
	rc = ops->body(c->run->t, &c->body, c->ids, c->n_ids, wanted, e);
	if (rc)
		return rc;
	c->state = state;
	c->wanted = wanted;
	c->arrived = 0;
	c->ended = false;
	c->asked_ns = ctl_now_ns();
	if (state == CLIENT_ASKING) {
		c->run->running++;
		if (c->run->running > c->run->r->peak)
			c->run->r->peak = c->run->running;
		rc = add_record(c, wanted, e);
		if (rc)
			return rc;
	}
	rc = c->stream ? 0 : ops->open(c->run->t, &c->stream, c->number, &handler, c, &why);
	if (!rc)
		rc = ops->submit(c->stream, &c->body, &why);
	return rc ? refused(c, rc, &why, e) : 0;
}

static int add_random(struct client *c, int n, struct err *e)
{
	if ((int64_t)c->n_ids + n > BENCH_CONVERSATION_MAX)
		return err_set(e, -E2BIG,
			       "bench: a conversation of over %d tokens: use fewer --turns",
			       BENCH_CONVERSATION_MAX);
	if (!room((void **)&c->ids, c->n_ids + (size_t)n, &c->cap_ids, sizeof(*c->ids)))
		return err_set(e, -ENOMEM, "bench: no memory for a prompt");
	bench_random_ids(c->run->w, &c->ids_rng, c->ids + c->n_ids, n);
	c->n_ids += (size_t)n;
	return 0;
}

static int next_turn(struct client *c, struct err *e)
{
	struct bench_lengths l = bench_turn_lengths(c->run->w, c->number, &c->lengths_rng);
	int rc = add_random(c, l.prompt, e);

	return rc ? rc : ask(c, CLIENT_ASKING, l.output, e);
}

static int begin(struct client *c, uint64_t due_ns, struct err *e)
{
	const struct bench_workload *w = c->run->w;
	int prefix = bench_scaled(w, w->prefix), rc;

	c->number = c->run->begun++;
	c->turn = 0;
	c->due_ns = due_ns;
	c->n_ids = 0;
	c->run->n_free--;
	bench_conversation_seed(w, c->number, &c->lengths_rng, &c->ids_rng);
	rc = add_random(c, prefix, e);
	if (rc)
		return rc;
	bench_prefix_ids(w, c->ids, prefix);
	if (!w->depth)
		return next_turn(c, e);
	rc = add_random(c, bench_scaled(w, w->depth), e);
	return rc ? rc : ask(c, CLIENT_LOADING, 1, e);
}

/* The client's request is over. */
static int advance(struct client *c, struct err *e)
{
	struct runner *x = c->run;

	if (c->no_memory)
		return err_set(e, -ENOMEM, "bench: no memory for what arrived");
	if (c->state == CLIENT_FREE)
		return 0;
	if (!c->ok) {
		if (!strcmp(c->kind, "ECONNREFUSED"))
			stop(x, c->sentence);
		if (c->state == CLIENT_LOADING) {
			int rc = add_record(c, c->wanted, e);

			if (rc)
				return rc;
			record_end(&x->r->records[c->record], BENCH_FAILED, ctl_now_ns(), c->kind,
				   c->sentence);
		}
		close_client(c);
		return 0;
	}
	if (c->state == CLIENT_LOADING) {
		c->state = CLIENT_LOADED;
		return 0;
	}
	c->turn++;
	if (c->turn < x->w->turns && !x->r->interrupted) {
		x->running--;
		return next_turn(c, e);
	}
	close_client(c);
	return 0;
}

/* ---- when what begins --------------------------------------------------------------------------- */

static bool more(const struct runner *x)
{
	return !x->stop && (!x->w->runs || x->begun < x->w->runs) && x->r->n < BENCH_RUNS_MAX &&
	       x->begun < BENCH_RUNS_MAX;
}

static struct client *free_client(struct runner *x)
{
	struct client *c;

	for (int i = 0; x->n_free && i < x->n_clients; i++)
		if (x->clients[i]->state == CLIENT_FREE)
			return x->clients[i];
	if (x->n_clients == x->cap_clients)
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->run = x;
	x->clients[x->n_clients++] = c;
	x->n_free++;
	return c;
}

static int begin_closed(struct runner *x, struct err *e)
{
	int busy = x->n_clients - x->n_free, rc = 0;

	/* At a depth all load, then all ask: one's loading must not slow down another's answer. */
	if (x->w->depth && busy)
		return 0;
	for (; !rc && busy < x->w->concurrency && more(x); busy++) {
		struct client *c = free_client(x);

		rc = c ? begin(c, 0, e) : err_set(e, -ENOMEM, "bench: no memory for a client");
	}
	return rc;
}

/* All that could be loaded is: ask at once. */
static int release_loaded(struct runner *x, struct err *e)
{
	int rc = 0;

	for (int i = 0; i < x->n_clients; i++)
		if (x->clients[i]->state == CLIENT_LOADING || x->clients[i]->state == CLIENT_ASKING)
			return 0;
	for (int i = 0; !rc && i < x->n_clients; i++) {
		if (x->clients[i]->state != CLIENT_LOADED)
			continue;
		if (!x->window_ns)
			x->window_ns = ctl_now_ns();
		rc = next_turn(x->clients[i], e);
	}
	return rc;
}

static bool is_full(const struct runner *x)
{
	int limit = x->w->max_concurrency ? x->w->max_concurrency : BENCH_CLIENTS_MAX;

	return x->n_clients - x->n_free >= limit;
}

static int begin_open(struct runner *x, struct err *e)
{
	int rc = 0;

	while (!rc && more(x)) {
		uint64_t now = ctl_now_ns();
		struct client *c;
		double late;

		if (now < x->due_ns)
			break;
		if (x->w->duration > 0 &&
		    (double)(x->due_ns - x->r->start_ns) > x->w->duration * 1e9) {
			stop(x, "");
			break;
		}
		if (is_full(x)) {
			x->full_ns = now;
			break;
		}
		c = free_client(x);
		if (!c)
			return err_set(e, -ENOMEM, "bench: no memory for a client");
		late = (double)(now - x->due_ns) * 1e-9;
		if (x->due_ns <= x->full_ns)
			x->r->held++;
		else if (late > x->r->late_s)
			x->r->late_s = late;
		rc = begin(c, x->due_ns, e);
		x->due_ns += (uint64_t)(1e9 * bench_rng_interarrival(&x->arrivals, x->w->rate,
								     x->w->burstiness));
	}
	return rc;
}

static int64_t wait_ns(const struct runner *x)
{
	uint64_t now = ctl_now_ns();

	if (x->w->rate <= 0 || is_full(x) || !more(x) || x->due_ns > now + TICK_NS)
		return (int64_t)TICK_NS;
	return x->due_ns > now ? (int64_t)(x->due_ns - now) : 0;
}

/* ---- the loop ----------------------------------------------------------------------------------- */

static void check_timeouts(struct runner *x, uint64_t now)
{
	for (int i = 0; i < x->n_clients; i++) {
		struct client *c = x->clients[i];

		if ((c->state != CLIENT_ASKING && c->state != CLIENT_LOADING) || c->ended ||
		    now - c->asked_ns < x->timeout_ns)
			continue;
		c->ended = true;
		c->ok = false;
		c->next_ended = x->ended;
		x->ended = c;
		snprintf(c->kind, sizeof(c->kind), "timeout");
		snprintf(c->sentence, sizeof(c->sentence), "no end within %.0f s (--timeout)",
			 (double)x->timeout_ns * 1e-9);
		if (c->state == CLIENT_ASKING)
			record_end(&x->r->records[c->record], BENCH_FAILED, now, c->kind,
				   c->sentence);
	}
}

static void show(const struct runner *x, uint64_t now)
{
	double seconds = (double)(now - x->r->start_ns) * 1e-9;
	uint64_t total = x->w->runs ? (uint64_t)x->w->runs : (uint64_t)(x->w->duration * 10);
	uint64_t done = x->w->runs ? (uint64_t)x->done : (uint64_t)(seconds * 10);
	char what[100];

	snprintf(what, sizeof(what), "%lld done, %d running, %.0f tokens/s", (long long)x->done,
		 x->running, seconds > 0 ? (double)x->tokens / seconds : 0);
	/* At its end the bar would wipe itself: what is late still runs. */
	ctl_progress(NULL, what, done < total ? done : total - 1, total);
}

static void end_window(struct runner *x)
{
	if (x->window_ns)
		x->r->measured_s += (double)(ctl_now_ns() - x->window_ns) * 1e-9;
	x->window_ns = 0;
}

static int step(struct runner *x, struct err *e)
{
	uint64_t now;
	int rc;

	rc = x->t->ops->wait(x->t, wait_ns(x), e);
	if (rc && rc != -EINTR)
		return rc;
	now = ctl_now_ns();
	check_timeouts(x, now);
	rc = 0;
	while (!rc && x->ended) {
		struct client *c = x->ended;

		x->ended = c->next_ended;
		rc = advance(c, e);
	}
	if (!rc && x->w->depth)
		rc = release_loaded(x, e);
	if (x->w->depth && x->n_free == x->n_clients)
		end_window(x);
	if (x->w->duration > 0 && (double)(now - x->r->start_ns) > x->w->duration * 1e9)
		stop(x, "");
	if (x->show)
		show(x, now);
	return rc;
}

static int loop(struct runner *x, struct err *e)
{
	int rc = 0;

	while (!rc) {
		if (ctl_sigint()) {
			x->r->interrupted = true;
			stop(x, "interrupted");
			break;
		}
		rc = x->w->rate > 0 ? begin_open(x, e) : begin_closed(x, e);
		if (rc || (x->n_free == x->n_clients && !more(x)))
			break;
		rc = step(x, e);
	}
	return rc;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* A session over a socket takes three descriptors. */
static void raise_file_limit(void)
{
	struct rlimit l;

	if (!getrlimit(RLIMIT_NOFILE, &l) && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

int bench_run(struct bench_run *r, struct bench_target *t, const struct bench_workload *w,
	      double timeout_s, bool show_progress, struct err *e)
{
	struct runner x = {.r = r,
			   .t = t,
			   .w = w,
			   .timeout_ns = (uint64_t)(timeout_s * 1e9),
			   .show = show_progress,
			   .cap_clients = w->rate > 0 ? BENCH_CLIENTS_MAX : w->concurrency};
	double cpu = cpu_seconds();
	int rc;

	*r = (struct bench_run){0};
	raise_file_limit();
	x.clients = calloc((size_t)x.cap_clients, sizeof(struct client *));
	if (!x.clients)
		return err_set(e, -ENOMEM, "bench: no memory for the clients");
	bench_rng_seed(&x.arrivals, w->seed, UINT64_C(5) << 60);
	r->start_ns = ctl_now_ns();
	if (w->rate > 0)
		x.due_ns =
			r->start_ns + (uint64_t)(1e9 * bench_rng_interarrival(&x.arrivals, w->rate,
									      w->burstiness));
	if (!w->depth)
		x.window_ns = r->start_ns;
	rc = loop(&x, e);
	end_window(&x);
	r->end_ns = ctl_now_ns();
	r->cpu_s = cpu_seconds() - cpu;
	ctl_progress_end();
	for (size_t i = 0; i < r->n; i++)
		if (r->records[i].state == BENCH_RUNNING)
			record_end(&r->records[i], BENCH_CUT, r->end_ns, "", "");
	for (int i = 0; i < x.n_clients; i++) {
		close_client(x.clients[i]);
		free(x.clients[i]->ids);
		free(x.clients[i]);
	}
	free(x.clients);
	return rc;
}
