/* SPDX-License-Identifier: MIT */
/*
 * What `llmctl bench serve` measures: a daemon through libllmdev (bench_socket.c) or a server that
 * speaks OpenAI's HTTP (bench_http.c). One thread drives all streams of a target.
 *
 * A stream is one conversation with at most one unfinished request. Its callbacks come from
 * bench_target_wait() only, and must not call into the target.
 */
#ifndef LLMCTL_BENCH_TARGET_H
#define LLMCTL_BENCH_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct bench_target;
struct bench_stream;

/* How a request ended. */
struct bench_end {
	bool ok;
	char kind[24]; /* not ok: "ENOSPC", "HTTP 503"; for counting */
	const char *sentence; /* not ok: what the server said; ends with the call */
	int prompt_tokens, cached_tokens, tokens; /* as the server counts; -1: it does not say */
};

struct bench_stream_handler {
	/* n tokens at once; ids is NULL where the server does not tell them. now: CLOCK_MONOTONIC. */
	void (*tokens)(void *ctx, const int32_t *ids, int n, uint64_t now);
	void (*end)(void *ctx, const struct bench_end *end, uint64_t now);
};

/* Serialised once, before the clock starts; free() it. */
struct bench_body {
	char *bytes;
	size_t len;
};

struct bench_facts {
	char where[256]; /* "socket /run/llmdev/llm0.sock", "http://127.0.0.1:8080" */
	char model[128]; /* "" if unknown */
	uint64_t fingerprint; /* of the model and all that the answers depend on; 0: unknown */
	int context; /* 0: unknown */
};

struct bench_target_ops {
	int (*body)(struct bench_target *t, struct bench_body *b, const int32_t *ids, size_t n,
		    int max_tokens, struct err *e);
	/* -ECONNREFUSED, -ENOENT: nobody is there (any more). `number` numbers the conversations. */
	int (*open)(struct bench_target *t, struct bench_stream **out, int64_t number,
		    const struct bench_stream_handler *h, void *ctx, struct err *e);
	/* The body must live until the request's end. */
	int (*submit)(struct bench_stream *s, const struct bench_body *b, struct err *e);
	/* Cancels what runs, without a callback. */
	void (*close)(struct bench_stream *s);
	/* Calls back what has come; waits for the first of it at most timeout_ns. -EINTR: a signal. */
	int (*wait)(struct bench_target *t, int64_t timeout_ns, struct err *e);
	void (*destroy)(struct bench_target *t);
};

/* The first member of each kind of target and stream. */
struct bench_target {
	const struct bench_target_ops *ops;
	struct bench_facts facts;
};
struct bench_stream {
	struct bench_target *target;
};

struct bench_socket_opts {
	const char *path; /* of a socket or device; NULL: whatever is there */
	int recovery_ms; /* as in llmdev_options */
	int priority;
	int principals; /* labels bench-0 ... that conversations take in turn; 0: none */
};
int bench_socket_target(struct bench_target **out, const struct bench_socket_opts *o,
			struct err *e);

struct bench_http_opts {
	const char *url; /* "http://127.0.0.1:8080", also with /v1 */
	const char *model; /* NULL: the first that the server lists */
	const char *key; /* bearer token; NULL: none */
	bool want_ids; /* ask for the ids of the answers, which not every server knows how to give */
};
/* -EOPNOTSUPP: built without libcurl. */
int bench_http_target(struct bench_target **out, const struct bench_http_opts *o, struct err *e);

/* "[1,2,3]" at *p, which has room for 12 bytes an id and 2; returns the end. */
char *bench_print_ids(char *p, const int32_t *ids, size_t n);

#endif
