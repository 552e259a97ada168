/* SPDX-License-Identifier: MIT */
/*
 * libllmdev: talk to a language model that is a device, or a daemon at a Unix socket.
 *
 * A handle is a session: one conversation. Text requests continue it; answers arrive as events.
 * It works the same over both ways:
 *
 *   - /dev/llmN, where the kernel module is loaded: the kernel keeps the conversation and hands it
 *     to the next daemon when one dies.
 *   - a socket: this library keeps a transcript (what was asked, the token ids that arrived). When
 *     the connection breaks, it connects again within `recovery_ms`, presents the transcript, and
 *     the answer goes on after the last token that arrived: none is lost or repeated. A daemon
 *     that cannot continue exactly (another model or build) ends the request with ESTALE.
 *
 * Thread-compatible: a handle is used by one thread at a time; different handles are independent.
 * Functions return 0 or more on success and -errno on failure; llmdev_error() then tells why in
 * one line. No function prints, exits, installs a signal handler or touches global state.
 *
 *	struct llmdev *d;
 *	char buf[4096], why[256];
 *	ssize_t n;
 *
 *	if (llmdev_open(&d, NULL, why, sizeof(why)))
 *		errx(1, "%s", why);
 *	llmdev_submit_text(d, "Why is the sky blue?", 20, NULL, NULL);
 *	while ((n = llmdev_read(d, buf, sizeof(buf))) > 0)
 *		fwrite(buf, 1, n, stdout);
 *	llmdev_close(d);
 */
#ifndef LLMDEV_H
#define LLMDEV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct llmdev;

#define LLMDEV_PATH_MAX 108

/* All zero means the defaults. */
struct llmdev_options {
	const char *path;          /* of a device or a socket; NULL: /dev/llm0 if it can be opened,
				    * else the default socket */
	int recovery_ms;           /* how long a lost connection is sought again; 0: 10000, < 0: never */
	size_t transcript_max;     /* bytes of finished turns that are kept; 0: 16 MiB. What is over
				    * it is forgotten: then a lost connection ends the conversation. */
	int no_wait;               /* llmdev_open() does not stand in line at a daemon that is busy
				    * accepting others: it is connected to while events are waited for */
	/* Called when the connection is lost (connected = 0) and found again (1); may be NULL. */
	void (*on_connection)(void *ctx, int connected);
	void *ctx;
};

/* How one request is to be treated. All zero means the defaults. */
struct llmdev_request {
	uint32_t max_tokens;       /* 0: as many as the context holds */
	int32_t priority;          /* -20 (first) to 19 (last) */
	uint64_t deadline_ns;      /* CLOCK_MONOTONIC; 0: none */
	const char *principal;     /* the end user's label; administrators only; NULL: none */
	uint8_t trace_id[16];
	uint8_t span_id[8];
	int reasoning;             /* deliver reasoning as LLMDEV_DATA */
};

enum llmdev_event_kind {
	LLMDEV_STARTED,            /* the prompt is being read */
	LLMDEV_PROGRESS,           /* .done of .total prompt tokens */
	LLMDEV_TEXT,               /* .text and .ids */
	LLMDEV_DATA,               /* the same, with .subtype (LLM_DATA_* of llm.h): reasoning, a
				    * whole tool call, log probabilities ... */
	LLMDEV_DONE,               /* the request is over: .finish, .usage */
	LLMDEV_ERROR,              /* the request is over: .error, .text is a sentence */
};

enum llmdev_finish { LLMDEV_STOP = 1, LLMDEV_LENGTH, LLMDEV_CANCELLED };

struct llmdev_usage {
	uint32_t prompt_tokens, cached_tokens, completion_tokens;
	/* CLOCK_MONOTONIC of the daemon's machine, which is this one. After a recovery they are the
	 * last daemon's. */
	uint64_t submit_ns, start_ns, first_ns, end_ns;
};

struct llmdev_event {
	enum llmdev_event_kind kind;
	uint64_t request;
	const char *text;          /* not NUL-terminated; valid until the next call on the handle */
	size_t text_len;
	const int32_t *ids;        /* likewise */
	size_t n_ids;
	uint32_t subtype;
	uint32_t done, total;
	enum llmdev_finish finish;
	struct llmdev_usage usage;
	int error;                 /* errno */
};

/*
 * Open a session. On failure `why` (may be NULL) holds one line. Does not wait for a daemon that is
 * being started.
 * -ENOENT: no device and no socket; -EACCES: not allowed; -ECONNREFUSED: nobody serves it.
 */
int llmdev_open(struct llmdev **out, const struct llmdev_options *o, char *why, size_t why_len);
/* Ends the session: unfinished requests are cancelled, the conversation is forgotten. */
void llmdev_close(struct llmdev *d);

/*
 * Ask. *request (may be NULL) names the request in events. Requests of a session are answered one
 * after the other. `len` is at least 1; r may be NULL.
 *   text: the next turn of the conversation (UTF-8)
 *   json: one OpenAI chat-completion or completion request object
 */
int llmdev_submit_text(struct llmdev *d, const char *text, size_t len,
		       const struct llmdev_request *r, uint64_t *request);
int llmdev_submit_json(struct llmdev *d, const char *json, size_t len,
		       const struct llmdev_request *r, uint64_t *request);
/* Ask for an early end; DONE (or what was faster) still comes. -ENOENT: no such unfinished request. */
int llmdev_cancel(struct llmdev *d, uint64_t request);

/*
 * The next event. timeout_ms < 0 waits, 0 does not. 1: *ev is filled; 0: none (the time is over, or
 * no request is unfinished); -EINTR: a signal; other -errno: the session is lost for good - after
 * an ERROR event for each unfinished request.
 */
int llmdev_next(struct llmdev *d, struct llmdev_event *ev, int timeout_ms);
/*
 * The same for those who want nothing but text: up to `len` bytes of the running answer, 0 at its
 * end, -errno on failure (of the request or the session). Never splits what fits.
 */
ssize_t llmdev_read(struct llmdev *d, char *buf, size_t len);

/* Readable when llmdev_next(d, ev, 0) may have something. The same for the handle's whole life. */
int llmdev_fd(const struct llmdev *d);
/* Unfinished requests. */
int llmdev_pending(const struct llmdev *d);
/* Why the last call failed; "" if none did. Valid until the next call. */
const char *llmdev_error(const struct llmdev *d);
/* "socket /run/llmdev/llm0.sock" or "device /dev/llm0". */
const char *llmdev_where(const struct llmdev *d);
/* How often the connection was lost and found again. */
unsigned llmdev_recoveries(const struct llmdev *d);

struct llm_query;
/* What is served and its limits; struct llm_query of llm.h. Waits up to timeout_ms. */
int llmdev_query(struct llmdev *d, struct llm_query *q, int timeout_ms);

struct llm_status;
struct llm_status_session;
/*
 * What the daemon does: struct llm_status of llm.h, and up to `max` of the sessions that the caller
 * may see; returns their number. Sockets only (-EOPNOTSUPP). On a handle that has asked nothing else
 * yet it opens no conversation and takes no session's place, so it works where all are taken.
 */
int llmdev_status(struct llmdev *d, struct llm_status *s, struct llm_status_session *sessions,
		  size_t max, int timeout_ms);

/* The socket's path where none is given: $XDG_RUNTIME_DIR/llmdev/NAME.sock, or without that
 * variable /run/llmdev/NAME.sock. */
void llmdev_default_socket(char *path, size_t len, const char *name);

#ifdef __cplusplus
}
#endif

#endif
