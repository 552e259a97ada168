// SPDX-License-Identifier: MIT
/*
 * libmicrohttpd's side: its calls become exchanges, what exchanges want becomes its calls. It runs
 * inside the loop by its epoll descriptor, without a thread of its own (server.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "http/listen.h"
#include "http/screen.h"
#include "http/server.h"

#define CONNECTION_MEMORY 16384 /* a request's head has to fit; also the buffer of what is sent */
#define DISCARD_FACTOR	  8 /* so many times the allowed body is read before hanging up */
#define STREAM_HIGH	  (256u << 10) /* unsent bytes at which the daemon is no longer read */
#define STREAM_LOW	  (64u << 10)
#define SWEEP_NS	  UINT64_C(1000000000)

/* ---- exchanges ------------------------------------------------------------------------------- */

static void release_exchange(struct source *s)
{
	free(s);
}

static void end_exchange(struct exchange *x)
{
	struct gateway *g = x->rq.g;

	upstreams_cancel(x);
	health_forget(&x->rq);
	if (x->rq.free_state)
		x->rq.free_state(x->rq.state);
	json_decref(x->rq.body);
	if (x->counted)
		key_end(x->key);
	key_unref(x->key);
	if (x->response)
		MHD_destroy_response(x->response);
	strbuf_free(&x->body);
	strbuf_free(&x->out);
	*(x->prev ? &x->prev->next : &g->exchanges) = x->next;
	if (x->next)
		x->next->prev = x->prev;
	g->n_exchanges--;
	loop_bury(&g->loop, &x->source);
}

void exchange_wake(struct exchange *x)
{
	if (!x->suspended)
		return;
	x->suspended = false;
	MHD_resume_connection(x->conn);
}

void exchange_gone(struct exchange *x)
{
	if (x->gone)
		return;
	x->gone = true;
	loop_unwatch(&x->rq.g->loop, &x->source);
	upstreams_cancel(x);
	exchange_wake(x);
}

static void socket_says(struct source *s, uint32_t events)
{
	struct exchange *x = (struct exchange *)s;

	if (x->replied && (!x->sse || x->ended)) {
		/* All is said: whether it arrives is libmicrohttpd's business. */
		loop_unwatch(&x->rq.g->loop, s);
		return;
	}
	x->rq.g->metrics.disconnects++;
	exchange_gone(x);
}

static void suspend(struct exchange *x)
{
	x->suspended = true;
	MHD_suspend_connection(x->conn);
}

/* Two rounds of splitmix64 over a secret seed and a count: unique, and nobody's to foresee. */
static void make_id(struct gateway *g, char id[33])
{
	uint64_t v[2];

	g->id_count++;
	for (int i = 0; i < 2; i++) {
		uint64_t z = g->id_seed[i] + g->id_count * UINT64_C(0x9e3779b97f4a7c15);

		z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
		v[i] = z ^ z >> 31;
	}
	snprintf(id, 33, "%016llx%016llx", (unsigned long long)v[0], (unsigned long long)v[1]);
}

static bool parse_hex(uint8_t *out, const char *s, size_t bytes)
{
	bool some = false;

	for (size_t i = 0; i < bytes; i++) {
		char two[3] = {s[2 * i], two[0] ? s[2 * i + 1] : '\0'};

		if (strspn(two, "0123456789abcdef") != 2)
			return false;
		out[i] = (uint8_t)strtoul(two, NULL, 16);
		some |= out[i] != 0;
	}
	return some;
}

/* W3C trace context: VERSION-TRACE-PARENT-FLAGS. What is not like that is ignored. */
static void read_trace(struct request *rq)
{
	const char *s = request_header(rq, "traceparent");

	if (!s || strlen(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' ||
	    !strncmp(s, "ff", 2) || (s[55] && (s[55] != '-' || !strncmp(s, "00", 2))))
		return;
	if (!parse_hex(rq->trace_id, s + 3, 16) || !parse_hex(rq->span_id, s + 36, 8)) {
		memset(rq->trace_id, 0, sizeof(rq->trace_id));
		memset(rq->span_id, 0, sizeof(rq->span_id));
		return;
	}
	reply_header(rq, "traceparent", s);
}

static void read_request_id(struct request *rq)
{
	const char *s = request_header(rq, "X-Request-Id");
	char own[40];

	for (size_t i = 0; s && s[i]; i++) {
		if (s[i] < 0x21 || s[i] > 0x7e || i >= 128)
			s = NULL;
	}
	snprintf(own, sizeof(own), "req_%s", rq->id);
	reply_header(rq, "X-Request-Id", s && *s ? s : own);
}

static struct exchange *new_exchange(struct gateway *g, struct MHD_Connection *conn,
				     const char *path)
{
	struct exchange *x = calloc(1, sizeof(*x));
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);

	if (!x)
		return NULL;
	x->source = (struct source){.ready = socket_says,
				    .release = release_exchange,
				    .fd = info->connect_fd};
	x->conn = conn;
	x->rq = (struct request){.g = g, .path = path, .tail = "", .x = x};
	x->rq.created = time(NULL);
	x->rq.start_ns = loop_now_ns();
	x->said_ns = x->rq.start_ns;
	make_id(g, x->rq.id);
	x->next = g->exchanges;
	if (x->next)
		x->next->prev = x;
	g->exchanges = x;
	g->n_exchanges++;
	return x;
}

const char *request_header(const struct request *rq, const char *name)
{
	return MHD_lookup_connection_value(rq->x->conn, MHD_HEADER_KIND, name);
}

const char *request_fingerprint(const struct request *rq)
{
	struct exchange *x = rq->x;

	if (rq->backend && rq->backend->known)
		snprintf(x->fingerprint, sizeof(x->fingerprint), "llmdev_%016llx",
			 (unsigned long long)rq->backend->fingerprint);
	return x->fingerprint;
}

/* ---- what the head of a request says ------------------------------------------------------------ */

/* Is `host` (with or without a port) a name that only this machine has? */
static bool local_host(const char *host)
{
	size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	static const char name[] = "localhost";

	if (n == 5 && !strncmp(host, "[::1]", n))
		return true;
	if (!strncmp(host, "127.", 4) && strspn(host, "0123456789.") == n)
		return true;
	return n >= 9 && !strncasecmp(host + n - 9, name, 9) && (n == 9 || host[n - 10] == '.');
}

/*
 * May a page of this origin call us? One of our own may. But where no key is asked for, any name can
 * be made to point here, and its pages would look like our own: then it has to be a local one.
 */
static bool origin_allowed(const struct gateway *g, const struct request *rq, const char *origin)
{
	const char *host = request_header(rq, "Host"), *s = strstr(origin, "://");

	if (g->o.cors && (!strcmp(g->o.cors, "*") || !strcasecmp(g->o.cors, origin)))
		return true;
	return s && host && !strcasecmp(s + 3, host) &&
	       (g->o.key_file || g->o.no_auth || local_host(host));
}

static void add_cors(struct gateway *g, struct request *rq, const char *origin)
{
	if (!g->o.cors || !origin || !origin_allowed(g, rq, origin))
		return;
	reply_header(rq, "Access-Control-Allow-Origin", strcmp(g->o.cors, "*") ? origin : "*");
	reply_header(rq, "Vary", "Origin");
	reply_header(rq, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
}

static void preflight(struct request *rq, const char *allow)
{
	const char *asked = request_header(rq, "Access-Control-Request-Headers");

	reply_header(rq, "Access-Control-Allow-Methods", allow);
	reply_header(rq, "Access-Control-Allow-Headers",
		     asked && strlen(asked) < 200 ? asked : "Authorization, Content-Type");
	reply_header(rq, "Access-Control-Max-Age", "600");
	reply_bytes(rq, 204, NULL, "", 0);
}

static bool check_key(struct exchange *x)
{
	const char *header = request_header(&x->rq, "Authorization");
	struct gateway *g = x->rq.g;

	if (!g->o.key_file || (x->rq.route->flags & ROUTE_OPEN))
		return true;
	if (header && !strncasecmp(header, "Bearer ", 7))
		x->key = keys_find(&g->keys, header + 7 + strspn(header + 7, " "));
	if (!x->key) {
		reply_header(&x->rq, "WWW-Authenticate", "Bearer");
		reply_error(
			&x->rq, 401, "invalid_api_key", NULL,
			header ? "The API key is not one that this server knows."
			       : "An API key is needed: send it as `Authorization: Bearer KEY`.");
		return false;
	}
	x->key->references++;
	x->rq.key = x->key;
	return true;
}

/* Everything that can be refused before the body is there. */
static void check_head(struct exchange *x, const char *method)
{
	const char *length = request_header(&x->rq, "Content-Length");
	const char *encoding = request_header(&x->rq, "Content-Encoding");
	const char *origin = request_header(&x->rq, "Origin");
	struct gateway *g = x->rq.g;
	struct request *rq = &x->rq;
	char allow[64];

	read_request_id(rq);
	read_trace(rq);
	add_cors(g, rq, origin);
	rq->route = route_find(method, rq->path, &rq->tail, allow, sizeof(allow));
	if (!rq->route && !allow[0]) {
		reply_error(rq, 404, "unknown_url", NULL, "Unknown request URL: %s %s", method,
			    rq->path);
	} else if (!rq->route) {
		reply_header(rq, "Allow", allow);
		if (!strcmp(method, "OPTIONS") && origin && origin_allowed(g, rq, origin))
			preflight(rq, allow);
		else
			reply_error(rq, 405, "method_not_allowed", NULL,
				    "Not allowed: %s %s: use %s", method, rq->path, allow);
	} else if (origin && !strcmp(method, "POST") && !origin_allowed(g, rq, origin)) {
		/* Else any page in a browser could make a server without keys work for it. */
		reply_error(rq, 403, "origin_not_allowed", NULL,
			    "Pages of %s may not call this server: start it with --cors %s", origin,
			    origin);
	} else if (!check_key(x)) {
		;
	} else if (encoding && strcasecmp(encoding, "identity")) {
		reply_error(rq, 415, "unsupported_encoding", NULL,
			    "Content-Encoding: %s: send the body as it is", encoding);
	} else if (length && strtoull(length, NULL, 10) > g->o.max_body) {
		x->too_long = true;
		reply_error(rq, 413, "request_too_large", NULL,
			    "The body has %s bytes: at most %llu are taken", length,
			    (unsigned long long)g->o.max_body);
	}
}

/* A client that waits to be told to send its body, or would send far too much of it. */
static bool answer_early(const struct exchange *x)
{
	const char *length = request_header(&x->rq, "Content-Length");

	return x->response &&
	       (request_header(&x->rq, "Expect") ||
		(length && strtoull(length, NULL, 10) / DISCARD_FACTOR > x->rq.g->o.max_body));
}

/* ---- the body ------------------------------------------------------------------------------- */

static mhd_result take_body(struct exchange *x, const char *bytes, size_t n)
{
	const struct gateway *g = x->rq.g;

	x->length += n;
	if (x->replied) /* it was refused: read on, for the client to see why */
		return x->length / DISCARD_FACTOR > g->o.max_body ? MHD_NO : MHD_YES;
	if (x->length > g->o.max_body) {
		strbuf_free(&x->body);
		reply_error(&x->rq, 413, "request_too_large", NULL,
			    "The body has more than the %llu bytes that are taken",
			    (unsigned long long)g->o.max_body);
		return MHD_YES;
	}
	strbuf_add(&x->body, bytes, n);
	return x->body.failed ? MHD_NO : MHD_YES;
}

static bool read_json(struct exchange *x)
{
	struct request *rq = &x->rq;
	const char *why;
	json_error_t e;
	size_t at;

	if (!x->body.n) {
		reply_error(rq, 400, "invalid_json", NULL, "The body is empty: send a JSON object");
		return false;
	}
	why = json_screen(x->body.p, x->body.n, &at);
	if (why) {
		reply_error(rq, 400, "invalid_json", NULL, "The body: %s at byte %zu", why, at);
		return false;
	}
	rq->body = json_loadb(x->body.p, x->body.n, 0, &e);
	strbuf_free(&x->body);
	if (!rq->body)
		reply_error(rq, 400, "invalid_json", NULL,
			    "The body is not valid JSON: line %d, column %d (byte %d): %s", e.line,
			    e.column, e.position, e.text);
	else if (!json_is_object(rq->body))
		reply_error(rq, 400, "invalid_json", NULL, "The body is not a JSON object");
	return !x->replied;
}

static bool find_backend(struct exchange *x)
{
	struct request *rq = &x->rq;
	struct gateway *g = rq->g;
	const json_t *v = json_member(rq->body, "model");
	const char *name = json_string_value(v);

	if (v && !name) {
		reply_error(rq, 400, "invalid_type", "model", "model: not a string");
		return false;
	}
	if (!v && g->n_backends > 1) {
		reply_error(rq, 400, "missing_required_parameter", "model",
			    "model: missing, and several are served: see /v1/models");
		return false;
	}
	for (int i = 0; i < g->n_backends && !rq->backend; i++) {
		if (!v || backend_has_name(&g->backends[i], name))
			rq->backend = &g->backends[i];
	}
	/* Before its first answer nobody knows what the only daemon serves. */
	if (!rq->backend && g->n_backends == 1 && !g->backends[0].n_names &&
	    !g->backends[0].known) {
		prober_ask(g->prober, &g->backends[0]);
		reply_header(rq, "Retry-After", "1");
		reply_error(rq, 503, "model_unavailable", NULL,
			    "No model is served at the moment: the daemon does not answer");
		return false;
	}
	if (!rq->backend) {
		reply_error(rq, 404, "model_not_found", "model",
			    "The model `%s` does not exist here: see /v1/models", name);
		return false;
	}
	rq->model = name ? name : backend_name(rq->backend);
	return true;
}

/* ---- limits of keys --------------------------------------------------------------------------- */

static void limit_headers(struct request *rq, const char *what, struct bucket *b, uint64_t now)
{
	char name[48], value[48];

	if (!(b->per_minute > 0))
		return;
	snprintf(name, sizeof(name), "x-ratelimit-limit-%s", what);
	snprintf(value, sizeof(value), "%.0f", b->per_minute);
	reply_header(rq, name, value);
	snprintf(name, sizeof(name), "x-ratelimit-remaining-%s", what);
	snprintf(value, sizeof(value), "%.0f", bucket_left(b, now));
	reply_header(rq, name, value);
	snprintf(name, sizeof(name), "x-ratelimit-reset-%s", what);
	snprintf(value, sizeof(value), "%.3fs", bucket_wait(b, b->per_minute, now));
	reply_header(rq, name, value);
}

static bool check_limits(struct exchange *x)
{
	static const char *const names[] = {
		[KEY_CONCURRENT] = "requests at a time",
		[KEY_REQUESTS] = "requests per minute",
		[KEY_TOKENS] = "tokens per minute",
	};
	uint64_t now = loop_now_ns();
	struct key *key = x->key;
	enum key_limit limit;
	double limit_of, wait;
	char text[24];

	if (!key)
		return true;
	limit = key_begin(key, now);
	limit_headers(&x->rq, "requests", &key->requests, now);
	limit_headers(&x->rq, "tokens", &key->tokens, now);
	if (limit == KEY_FREE) {
		x->counted = true;
		return true;
	}
	x->rq.g->metrics.limited++;
	wait = limit == KEY_REQUESTS ? bucket_wait(&key->requests, 1, now)
	       : limit == KEY_TOKENS ? bucket_wait(&key->tokens, 1, now)
				     : 1;
	limit_of = limit == KEY_REQUESTS ? key->requests.per_minute
		   : limit == KEY_TOKENS ? key->tokens.per_minute
					 : key->concurrent_max;
	snprintf(text, sizeof(text), "%.0f", wait < 1 ? 1 : wait + 0.5);
	reply_header(&x->rq, "Retry-After", text);
	reply_error(&x->rq, 429, "rate_limit_exceeded", NULL,
		    "Rate limit reached for this key: %.0f %s: try again in %s s", limit_of,
		    names[limit], text);
	return false;
}

/* The request is whole. */
static void dispatch(struct exchange *x)
{
	const struct route *route = x->rq.route;

	if (x->replied)
		return;
	if ((route->flags & ROUTE_JSON) && !read_json(x))
		return;
	if ((route->flags & ROUTE_MODEL) && !find_backend(x))
		return;
	if ((route->flags & ROUTE_COUNTED) && !check_limits(x))
		return;
	route->handle(&x->rq);
	if (!x->response && !x->gone && loop_watch(&x->rq.g->loop, &x->source, EPOLLRDHUP))
		exchange_gone(x);
}

/* ---- libmicrohttpd's calls -------------------------------------------------------------------- */

static void **connection_slot(struct MHD_Connection *conn)
{
	return (void **)MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
}

static mhd_result on_request(void *ctx, struct MHD_Connection *conn, const char *url,
			     const char *method, const char *version, const char *upload,
			     size_t *upload_size, void **slot)
{
	struct exchange *x = *slot;
	void **c;

	if (!x) {
		x = *slot = new_exchange(ctx, conn, url);
		if (!x)
			return MHD_NO;
		c = connection_slot(conn);
		connection_phase(*c, CONNECTION_BODY);
		check_head(x, method);
		return answer_early(x) ? reply_queue(x) : MHD_YES;
	}
	if (*upload_size) {
		size_t n = *upload_size;

		*upload_size = 0;
		c = connection_slot(conn);
		connection_progress(*c, n);
		return take_body(x, upload, n);
	}
	if (!x->called) {
		x->called = true;
		c = connection_slot(conn);
		connection_phase(*c, CONNECTION_ANSWER);
		dispatch(x);
	}
	if (x->gone)
		return MHD_NO;
	if (x->response)
		return reply_queue(x);
	suspend(x);
	return MHD_YES;
}

static void on_completed(void *ctx, struct MHD_Connection *conn, void **slot,
			 enum MHD_RequestTerminationCode code)
{
	struct exchange *x = *slot;
	void **c = connection_slot(conn);

	if (c && *c)
		connection_phase(*c, CONNECTION_HEAD);
	*slot = NULL;
	if (!x)
		return;
	if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK && x->called && !x->gone)
		x->rq.g->metrics.disconnects++;
	end_exchange(x);
}

static void on_connection(void *ctx, struct MHD_Connection *conn, void **slot,
			  enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		connection_end(ctx, slot);
		return;
	}
	info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
	connection_begin(ctx, slot, info->connect_fd);
}

/* What a stream sends next. */
ssize_t exchange_read(void *ctx, uint64_t pos, char *bytes, size_t max)
{
	struct exchange *x = ctx;
	size_t n = x->out.n < max ? x->out.n : max;

	if (x->gone || x->out.failed)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (n) {
		memcpy(bytes, x->out.p, n);
		strbuf_consume(&x->out, n);
		x->said_ns = loop_now_ns();
		if (x->held && x->out.n < STREAM_LOW) {
			x->held = false;
			upstreams_hold(x, false);
		}
		return (ssize_t)n;
	}
	if (x->ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (x->out.cap > STREAM_LOW)
		strbuf_free(&x->out);
	suspend(x);
	return 0;
}

void exchange_flow(struct exchange *x)
{
	if (!x->held && x->out.n > STREAM_HIGH) {
		x->held = true;
		upstreams_hold(x, true);
	}
	exchange_wake(x);
}

/* ---- the server ----------------------------------------------------------------------------- */

static void mhd_ready(struct source *s, uint32_t events)
{
	/* server_work() follows every round. */
}

static void mhd_says(void *ctx, const char *fmt, va_list ap)
{
	struct gateway *g = ctx;
	char line[256];
	size_t n;

	vsnprintf(line, sizeof(line), fmt, ap);
	n = strcspn(line, "\n");
	line[n] = '\0';
	g->o.log(g->o.log_ctx, line);
}

int server_start(struct gateway *g, struct err *e)
{
	const union MHD_DaemonInfo *info;
	int fd = listen_open(g->o.listen, e);
	struct MHD_OptionItem more[] = {
		{MHD_OPTION_PER_IP_CONNECTION_LIMIT, g->o.max_per_ip, NULL},
		{MHD_OPTION_END, 0, NULL},
	};

	if (fd < 0)
		return fd;
	g->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
				  NULL, NULL, on_request, g, MHD_OPTION_EXTERNAL_LOGGER, mhd_says,
				  g, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED,
				  on_completed, g, MHD_OPTION_NOTIFY_CONNECTION, on_connection, g,
				  MHD_OPTION_CONNECTION_LIMIT, (unsigned)g->o.max_connections,
				  MHD_OPTION_CONNECTION_TIMEOUT, g->o.timeout_s,
				  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
				  MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_ARRAY,
				  g->o.max_per_ip ? more : more + 1, MHD_OPTION_END);
	if (!g->mhd) {
		close(fd);
		return err_set(e, -EIO, "%s: libmicrohttpd does not start", g->o.listen);
	}
	info = MHD_get_daemon_info(g->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	g->mhd_source = (struct source){.ready = mhd_ready, .fd = info->epoll_fd};
	if (loop_watch(&g->loop, &g->mhd_source, EPOLLIN))
		return err_set(e, -errno, "epoll: %s", strerror(errno));
	return 0;
}

int server_work(struct gateway *g)
{
	MHD_UNSIGNED_LONG_LONG wait;

	do {
		g->closed = false;
		upstreams_work(g);
		MHD_run(g->mhd);
		/* Where connections were at their limit, it listens again only in its next run. */
	} while (g->closed);
	if (g->todo)
		return 0;
	if (MHD_get_timeout(g->mhd, &wait) != MHD_YES)
		return -1;
	return wait > 3600000 ? 3600000 : (int)wait;
}

void server_sweep(struct gateway *g, uint64_t now_ns)
{
	uint64_t quiet = (uint64_t)g->o.keep_alive_ms * 1000000u;

	if (now_ns < g->next_sweep_ns)
		return;
	g->next_sweep_ns = now_ns + (quiet / 4 < SWEEP_NS ? quiet / 4 : SWEEP_NS);
	for (struct exchange *x = g->exchanges; x; x = x->next) {
		if (!x->upstreams || now_ns - x->said_ns < quiet)
			continue;
		if (x->rq.streams)
			sse_begin(&x->rq);
		if (x->sse)
			sse_raw(&x->rq, ": still there\n\n", 15);
		x->said_ns = now_ns;
	}
	connection_sweep(g, now_ns);
}

void server_stop(struct gateway *g)
{
	if (!g->mhd)
		return;
	for (struct exchange *x = g->exchanges; x; x = x->next)
		exchange_gone(x);
	MHD_run(g->mhd);
	loop_unwatch(&g->loop, &g->mhd_source);
	MHD_stop_daemon(g->mhd);
	g->mhd = NULL;
}
