/* SPDX-License-Identifier: MIT */
/*
 * The core that gateway.h hides: the process's state, one HTTP exchange, one question to a daemon.
 * Everything belongs to the loop's thread.
 *
 * An exchange begins with libmicrohttpd's first call for a request and ends with its "completed"
 * callback, which always comes. In between its connection is suspended whenever there is nothing to
 * send; then nobody but we watches the socket for a client that leaves.
 */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <microhttpd.h>

#include "http/backend.h"
#include "http/gateway.h"
#include "http/keys.h"
#include "http/loop.h"
#include "http/metrics.h"

#if MHD_VERSION < 0x00097002
typedef int mhd_result;
#else
typedef enum MHD_Result mhd_result;
#endif

struct gateway_options {
	const char *listen;     /* ADDR:PORT */
	const char *key_file;
	bool no_auth;
	const char *cors;       /* origin, "*" or NULL */
	uint64_t max_body;
	int max_connections, max_per_ip;
	unsigned timeout_s;     /* of a client that neither sends nor takes */
	unsigned keep_alive_ms; /* between comments in a stream in which nothing comes */
	int recovery_ms;
	double drain_s;
	void (*log)(void *ctx, const char *line);
	void *log_ctx;
};

struct upstream {
	struct source source;   /* the handle's descriptor; first */
	struct upstream *next;  /* of the exchange */
	struct upstream *next_todo;
	struct exchange *x;
	struct backend *backend;
	struct llmdev *d;
	uint64_t id;
	upstream_fn fn;
	void *ctx;
	uint32_t reasoning_tokens;
	uint64_t begin_ns, last_ns; /* asked; last tokens came (0: none yet) */
	int error;              /* of a submission that failed; `sentence` says why */
	char *sentence;
	bool todo;              /* in the gateway's list */
	bool more;              /* the handle holds events that were not taken */
	bool over;              /* its DONE or ERROR came */
	bool dead;
};

struct exchange {
	struct source source;   /* the socket, watched while the request is answered; first */
	struct request rq;
	struct exchange *prev, *next; /* of the gateway */
	struct MHD_Connection *conn;
	struct strbuf body, out;
	uint64_t length;        /* of the body, as far as it came */
	bool too_long;
	bool called;            /* the handler has been */
	bool suspended;
	bool replied;           /* its status line is decided */
	bool gone;              /* nobody is left to read the reply */
	bool sse, ended;
	bool counted;           /* key_begin() was called */
	bool held;              /* its upstreams are not read: the client is slow */
	uint64_t said_ns;       /* when the stream last said something */
	struct key *key;
	char fingerprint[32];
	struct MHD_Response *response; /* to be queued as soon as MHD asks */
	unsigned status;
	struct {
		char name[48], value[208];
	} headers[12];
	int n_headers;
	struct upstream *upstreams;
};

struct gateway {
	struct gateway_options o;
	struct loop loop;
	struct MHD_Daemon *mhd;
	struct source mhd_source, signal_source;
	struct backend backends[BACKENDS_MAX];
	int n_backends;
	struct prober *prober;
	struct keys keys;
	struct metrics metrics;
	struct exchange *exchanges;
	int n_exchanges;
	struct upstream *todo;  /* to be looked at without being called */
	struct waiter *waiters; /* health.c: for answers of the prober */
	struct connection *connections; /* connection.c: who is slow in asking */
	bool closed;            /* a connection has been, since this was last looked at */
	uint64_t next_sweep_ns;
	uint64_t id_seed[2], id_count;
	int64_t start_time;     /* seconds since 1970 */
	bool stopping;
	uint64_t stop_ns;       /* streams are cut at this time */
};

/* server.c */
int server_start(struct gateway *g, struct err *e);
void server_stop(struct gateway *g);
/* Let MHD do what it can do; the milliseconds until it wants to be called again, -1: none. */
int server_work(struct gateway *g);
/* The connection has something to send, or is to be closed. */
void exchange_wake(struct exchange *x);
/* Nobody is left to read: what is asked is cancelled, the connection closed. */
void exchange_gone(struct exchange *x);
/* Comments in quiet streams; slow connections. */
void server_sweep(struct gateway *g, uint64_t now_ns);

/* connection.c: slow loris */
void connection_begin(struct gateway *g, void **slot, int fd);
void connection_end(struct gateway *g, void **slot);
/* What it is doing: reading a request's head, its body (`bytes` of it came), or being answered. */
enum connection_phase { CONNECTION_HEAD, CONNECTION_BODY, CONNECTION_ANSWER };
void connection_phase(void *slot, enum connection_phase phase);
void connection_progress(void *slot, uint64_t bytes);
void connection_sweep(struct gateway *g, uint64_t now_ns);

/* routes.c: the route, or NULL with *allow listing the methods that the path knows ("" if none). */
const struct route *route_find(const char *method, const char *path, const char **tail,
			       char *allow, size_t allow_len);

/* A stream's next bytes, for libmicrohttpd; more of them have come. */
ssize_t exchange_read(void *ctx, uint64_t pos, char *bytes, size_t max);
void exchange_flow(struct exchange *x);

/* reply.c: what was decided goes to libmicrohttpd */
mhd_result reply_queue(struct exchange *x);

/* upstream.c */
void upstreams_cancel(struct exchange *x);
/* Stop or go on reading them, as the client does. */
void upstreams_hold(struct exchange *x, bool hold);
/* Those in g->todo: submissions that failed, handles with more events. */
void upstreams_work(struct gateway *g);

/* health.c: an answer of the prober came */
void health_told(void *ctx, struct backend *b);
/* Forget who waits for one. */
void health_forget(struct request *rq);

#endif
