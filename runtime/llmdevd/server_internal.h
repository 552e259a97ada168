/* SPDX-License-Identifier: MIT */
/*
 * The inside of the daemon's core (serve.h): a server, its clients, their turns. Shared by turn.c
 * (one request's life), turn_answer.c (what it says), turn_post.c (events on their way), client.c (sessions and their messages), limits.c (who may have how much
 * unfinished), status.c and serve.c (the loop). One thread, no locks.
 *
 * A turn is one request from its SUBMIT to its terminal event. It outlives that event while the
 * engine still holds its request: `ended` then says that nothing more may be posted. It outlives the
 * engine's request while events wait for room in the channel (`closing`). A client
 * outlives its channel in the same way. Both go when the engine lets go (turn.c: ENGINE_DONE,
 * ENGINE_ERROR).
 */
#ifndef LLMDEV_SERVER_INTERNAL_H
#define LLMDEV_SERVER_INTERNAL_H

#include <stdbool.h>

#include "llmdevd/answer.h"
#include "llmdevd/constraint.h"
#include "llmdevd/conversation.h"
#include "llmdevd/limits.h"
#include "llmdevd/payload.h"
#include "llmdevd/pressure.h"
#include "llmdevd/serve.h"
#include "transport/transport.h"

/* Those that may stay; the longest-standing one makes way for the next. The other half: those that
 * were told to go, but are not gone yet. */
#define SPARE_CLIENTS (SERVER_SPARE_CHANNELS / 2)

struct turn {
	struct client *cl;
	struct turn *next;
	uint64_t id, seq, deadline_ns;
	uint64_t bytes; /* of its SUBMIT */
	struct charge charge; /* whose limits it counts against, until it is freed */
	uint64_t principal; /* whose share of the engine it uses, and who may share its prefixes */
	int priority;
	uint32_t format, flags, max_tokens; /* flags: LLM_SUBMIT_F_* */
	char *text; /* the payload; freed once it is read */
	size_t text_len;
	struct payload payload;
	struct llm_resume resume; /* as replayed, or as posted with STARTED */
	int64_t now; /* what its prompt was rendered with */
	struct ids ids; /* posted by an earlier daemon, then generated here */
	struct answer answer; /* what they say */
	struct constraint constraint;
	uint64_t posted_bytes; /* of pieces, posted by an earlier daemon */
	uint64_t folded_bytes; /* of pieces that the ids gave so far */
	size_t n_posted, n_replayed; /* ids posted by an earlier daemon; folded again so far */
	uint64_t posted_parts; /* of a result, by an earlier daemon */
	int32_t token; /* the id in hand */
	bool token_owed; /* no event has carried it yet */
	struct held_event *held, **held_tail; /* events that the channel had no room for */
	bool started; /* STARTED is out, here or by an earlier daemon */
	bool begun; /* its time has come */
	bool closing; /* its terminal event is held */
	bool ended; /* its terminal event is out, or nobody wants it */
	struct request *rq; /* NULL: the engine does not have it */
	bool park_reader, park_pace;
	uint64_t submit_ns, parked_ns, pace_ns;
};

struct client {
	struct server *sv;
	struct client *prev, *next;
	struct channel *ch; /* NULL: gone */
	uint64_t number; /* of the session, in log lines; 0: nothing was asked yet */
	bool placed; /* one of the `sessions` places is its; else it is among the spare ones */
	uint64_t opened_ns;
	char label[LLM_PRINCIPAL_MAX]; /* the last request's principal, padded with zeroes */
	struct session *session;
	struct conversation conv;
	struct turn *turns, **tail; /* in order; only the first can run */
	int n_turns; /* that still owe a terminal event */
	uint64_t last_id, transcript;
	bool replay_over;
	const char *lost; /* why the conversation cannot be continued */
};

struct server {
	struct server_opts o;
	struct engine *en;
	const struct engine_info *info;
	struct sampling sampling;
	struct transport *t; /* the socket */
	struct transport *device; /* the kernel's; NULL: it is not served, or not now */
	uint64_t device_ns; /* when to try again to take it; 0: not at all */
	struct client *clients;
	struct client *spare[SPARE_CLIENTS]; /* a ring: the next one takes spare[next_spare] */
	int next_spare;
	int n_sessions; /* clients with a place */
	uint64_t n_opened, start_ns;
	struct grammar_cache *grammars;
	uint64_t queue; /* bytes that all turns were given */
	struct limits limits;
	uint64_t refused; /* requests, by a limit of the daemon's */
	int log_room; /* lines that clients bring about and that may still be logged now */
	uint64_t log_ns; /* when that was last looked at */
	unsigned int log_left_out;
	struct pressure pressure;
	bool step_owed; /* a cancelled request ends in the next step */
	bool reap_owed; /* a client without a channel lost its last turn */
	bool swap_reported; /* that the swap file has ended; or there never was one */
	bool draining;
	bool handing_over; /* to the daemon that took the socket's place; also draining */
	uint64_t drain_ns;
	bool quiesce_asked; /* by the kernel, until quiesce_ns */
	bool leaving; /* it was: the device may be taken away any time */
	uint64_t quiesce_ns;
};

/* ---- serve.c -------------------------------------------------------------------------------------- */

/* CLOCK_MONOTONIC */
uint64_t now_ns(void);
__attribute__((format(printf, 2, 3))) void say(struct server *sv, const char *fmt, ...);
/*
 * The same for what clients can bring about as often as they like: some lines at once, then a few a
 * second, and how many were left out.
 */
__attribute__((format(printf, 2, 3))) void say_sparingly(struct server *sv, const char *fmt, ...);

/* ---- client.c ------------------------------------------------------------------------------------- */

extern const struct transport_handler client_handler; /* its ctx: struct server */
/* Starts the session's first waiting turn, if none runs. */
void client_next(struct client *cl);
/* Frees those that have no channel and no turns any more. */
void clients_reap(struct server *sv);

/* ---- turn.c --------------------------------------------------------------------------------------- */

/* Bytes that a SUBMIT counts against the limit `queue`. */
uint64_t submit_bytes(const struct msg *m);
/* Takes over *charge. NULL: no memory, *charge stays the caller's. The caller links it. */
struct turn *turn_new(struct client *cl, const struct msg *m, uint64_t principal,
		      struct charge *charge);
/* Out of its client's list, and gone. The engine must not hold it. */
void turn_remove(struct turn *t);
/* A finished one, told as history: takes it into the conversation, frees it. Not in the list. */
void turn_remember(struct turn *t);
/* The turn's time has come. On failure its error is posted and -errno returned. */
int turn_start(struct turn *t);
/* Ends it as cancelled: at once if the engine does not have it (and drops it), else soon. */
void turn_cancel(struct turn *t);
/* Nobody is left to read. True: the engine still holds it; else it was dropped. */
bool turn_abandon(struct turn *t);
/* What a client is told whose request is too late. */
#define DEADLINE_PASSED "request: its deadline passed"
/* A limit of time was met. The client's list may change. */
void turn_expire(struct turn *t, int error, const char *sentence);
/* Tells the engine whether it may run. */
void turn_park(struct turn *t);
/* The channel has room again. The client's list may change. */
void turn_room(struct turn *t);
/* Ends a turn whose request the engine may hold; the engine's own end comes with its next step. */
void turn_end_early(struct turn *t);
/* Posts an ERROR, in front of what is held; not if it ended already. */
void turn_error(struct turn *t, int error, const char *sentence);
/* After an event of the answer: rests while its reader, or its pace, wants it to. */
void turn_throttle(struct turn *t);

/* ---- turn_post.c ---------------------------------------------------------------------------------- */

/* Posts an event, or holds it until there is room; PROGRESS is dropped then. 0 or -errno. */
int turn_post(struct turn *t, uint32_t type, const struct event_part *parts, int n);
/* Posts what is held, as far as there is room. */
void turn_post_held(struct turn *t);
void turn_drop_held(struct turn *t);
/* Its terminal event is out, or nobody wants it. */
void turn_ended(struct turn *t);
/* One of these pieces of the answer: `type` and subtype of its events, UTF-8. Ends the turn on failure. */
int turn_post_piece(struct turn *t, uint32_t type, uint32_t subtype, const char *s, size_t n);
/* A part of a result that is no answer. */
int turn_post_result(struct turn *t, uint32_t subtype, const void *bytes, size_t n);

/* ---- turn_answer.c -------------------------------------------------------------------------------- */

/* Once the payload is read and the seed is known. `run`: it will be generated, not remembered. */
int turn_open_answer(struct turn *t, bool run, struct err *e);
/* The model's format has to be taken apart, so special tokens are spelt. */
bool turn_is_parsed(const struct turn *t);
void turn_replayed(struct turn *t, const struct engine_event *ev);
void turn_token(struct turn *t, const struct engine_event *ev);
void turn_embedding(struct turn *t, const struct engine_event *ev);
/* What had been held back. *rest: content that goes with DONE; the caller's to free. */
int turn_answer_end(struct turn *t, const struct engine_event *ev, struct answer_text *rest);
/* The whole answer out of its ids alone. */
int turn_fold(struct turn *t, struct err *e);

/* ---- status.c ------------------------------------------------------------------------------------- */

/* Answers LLM_MSG_STATUS. */
void status_post(struct client *cl);

#endif
