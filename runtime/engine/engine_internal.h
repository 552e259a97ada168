/* SPDX-License-Identifier: MIT */
/*
 * The engine's inside, shared by engine.c, session.c, request.c, sched.c, fair.c.
 *
 * Lifetimes: a request is in the engine's list from its submission to its end, and in one of the
 * states below; its session (own or borrowed) outlives it. Everything is touched by the driving
 * thread only.
 */
#ifndef LLMDEV_ENGINE_INTERNAL_H
#define LLMDEV_ENGINE_INTERNAL_H

#include "engine/engine.h"
#include "engine/fair.h"
#include "engine/fold.h"
#include "engine/kv.h"
#include "engine/sampler.h"
#include "model/model.h"

#define ENGINE_CHAT_STOPS 4             /* ids that the chat template ends turns with */

struct session {
	struct engine *en;
	struct session *prev, *next;    /* engine's list of sessions, most recently used first */
	struct request *active;         /* the turn that has begun, also while it is preempted */
	struct request *behind;         /* later turns, in order (request.next_behind) */
	int32_t *ids;                   /* [cap] tokens whose K and V are in the pages, then those
					 * of the active request that are still to be computed; of
					 * a preempted one all, though the pages may be gone */
	uint8_t *generated;             /* [cap] their classes; NULL unless backend->split_classes */
	int cap;
	int n_cached;                   /* computed */
	int n_ids;                      /* n_cached plus pending ones */
	int32_t *pages;                 /* [kv_pages_for(cap)] */
	int n_pages;                    /* held */
	int n_published;                /* of them, from the first on */
	void *state;                    /* of recurrent layers, after n_cached tokens; NULL: the
					 * model has none, or the session rests */
	int snapshot_at;                /* position at which to take one of it; 0: none */
	uint64_t principal;             /* whose cached prefixes it may share */
	bool own;                       /* ends with its request */
};

enum request_state {
	REQ_BEHIND,     /* an earlier turn of its session goes first */
	REQ_WAITING,    /* in its principal's heap */
	REQ_ASIDE,      /* parked, and out of its place */
	REQ_RUNNING,
};

struct request {
	struct engine *en;
	struct request *prev, *next;    /* engine's list of unfinished requests */
	struct request *next_behind;
	struct request *next_cancelled;
	struct session *session;        /* NULL until an own one is made at the start */
	struct principal *who;
	struct heap_node wait_node;
	enum request_state state;
	bool begun;                     /* STARTED is out */
	bool cancelled, parked, paused;
	bool complete, stopped;         /* replayed to its end; by a stop string */
	int priority;
	double weight;
	double due;                     /* in fair.work */
	uint64_t number;                /* order of arrival */
	double promised;                /* prompt tokens promised and not charged yet */
	struct ids prompt;              /* prompt and posted ids; empty once it has begun */
	uint8_t *prompt_generated;      /* their classes; NULL unless backend->split_classes */
	int n_prompt, n_posted;
	int n_ids;                      /* preempted: how many of session.ids it goes on with */
	int n_computed;                 /* positions computed at least once, and charged */
	uint64_t tried;                 /* engine.n_freed when it lacked pages */
	int rows;                       /* in the step in hand */
	int n_cached;                   /* prompt tokens that needed no computing */
	int n_generated;                /* posted ones included */
	int max_tokens;
	uint64_t posted_bytes;
	struct sampling sampling;
	struct logit_bias *bias;        /* [n_bias] */
	int n_bias;
	int n_logprobs;                 /* < 0: none */
	const uint64_t *(*mask)(void *ctx, struct request *r);
	double *pooled;                 /* [hidden] an embedding in the making; NULL: an answer */
	int n_pooled;                   /* its first positions that are in it */
	struct fold fold;
	void (*on_event)(void *ctx, struct request *r, const struct engine_event *ev);
	void *ctx;
	uint64_t ns_submit, ns_start, ns_first;
};

struct engine {
	struct checkpoint *checkpoint;
	struct tokenizer *tokenizer;
	struct backend *backend;
	struct model *model;
	struct engine_info info;
	char name[128];
	char placement[REGION_NAME_MAX + 32];
	struct chat *chat;              /* NULL without a tokenizer */
	int ctx, chunk, max_seqs, max_waiting;
	double step_ns;                 /* for prompt tokens in a step with others that decode */
	double row_ns;                  /* what a prompt token takes, smoothed; 0: unknown yet */
	double work_ns;                 /* what a unit of work takes, smoothed; 0: unknown yet */
	struct kv_cache kv;
	struct sampler sampler;
	int n_eos;
	int32_t eos[MODEL_MAX_EOS + 7 + ENGINE_CHAT_STOPS];

	struct session *sessions, *sessions_tail;
	int n_sessions;
	struct request *requests;       /* unfinished */
	int n_requests;
	struct request *cancelled;      /* to be ended by the next step */
	uint64_t n_submitted;
	struct fair fair;
	struct request **running;       /* [max_seqs], in order of admission */
	int n_running;
	uint64_t n_freed;               /* times that pages may have become free; from 1 */

	/* one step's batch, allocated once */
	int32_t *batch_ids;             /* [max_rows] */
	uint8_t *batch_generated;       /* [max_rows]; NULL unless backend->split_classes */
	struct batch_seq *batch_seq;    /* [max_seqs] */
	struct request **batch_req;     /* [max_seqs] whose rows they are; NULL: it ended meanwhile */
	struct request **by_due;        /* [max_seqs] */
	int32_t *batch_out;             /* [max_out] */
	int32_t *batch_out_seq;         /* [max_out] which sequence an output belongs to */
	int max_rows, max_out;
	float *logits;                  /* [max_out][vocab] */
	/* where the model makes embeddings */
	int32_t *batch_hidden;          /* [max_hidden] rows whose hidden states are wanted */
	float *hidden;                  /* [max_hidden][hidden] */
	int max_hidden;
	struct engine_stats stats;      /* counters; the rest is filled in by engine_stats() */
};

uint64_t engine_now_ns(void);

/* engine_open() on a backend of the caller's (tests). It is the engine's, also on failure. */
int engine_open_on(struct engine **out, const struct engine_opts *o, struct backend *backend,
		   struct err *e);

/* session.c */
/* Keep the first n computed tokens (fewer where a recurrent state is not to be had for so many);
 * what follows may be written again. */
void session_truncate(struct session *s, int n);
/* Keep nothing. */
void session_release(struct session *s);
/*
 * Make ids[0..n), which may be its own, the session's tokens. Keeps what it has computed of them and takes the pages of
 * others (of the same principal) that hold more, in all at most `most` tokens; at least one is left
 * to compute. `generated` may be NULL: none of them. Returns the number of tokens that need no
 * computing, or -ENOMEM.
 */
int session_enter(struct session *s, const int32_t *ids, const uint8_t *generated, int n, int most);
/* One more token that is still to be computed. -ENOMEM. */
int session_push(struct session *s, int32_t id);
/* Take the pages that others have computed since it was entered, so that it has at most `most`
 * tokens. Returns the tokens in them. */
int session_catch_up(struct session *s, int most);
/* n more tokens are computed: pages that became full are published. */
void session_computed(struct session *s, int n);
/* Of `rows` more tokens, how many one step may compute: a state is kept at certain positions. */
int session_rows(const struct session *s, int rows);
/* Let the pages of sessions go that do not run, least recently used first but not those of `keep`,
 * until `pages` are to be had. */
bool session_make_room(struct engine *en, int pages, const struct session *keep);
void session_touch(struct session *s);
/* Hold pages for n tokens. False: not enough; it holds what there was. */
bool session_reserve(struct session *s, int n);
/* Where the recurrent state is, for batch_seq; NULL if the model has none. */
void *session_state(struct session *s);

/* request.c */
/* Whether a is due before b. */
bool request_before(const struct request *a, const struct request *b);
/* Tokens the sequence may reach. */
int request_limit(const struct request *r);
void request_emit(struct request *r, struct engine_event *ev);
/* Out of every list; its place, pages beyond what is computed, and its session's turn are free. */
void request_finish(struct request *r, enum engine_finish why, bool flush);
void request_fail(struct request *r, int error, const char *message);
/* Fold the posted ids again, REPLAYED. False: the fold went another way, the request has ended in an
 * error. */
bool request_replay(struct request *r);
/* Ids that end an answer. */
bool request_at_end(const struct request *r, int32_t id);
/* It may run again: queue it, or set it aside if it is parked. */
void request_queue(struct request *r);
/* End all of a session's. */
void request_cancel_session(struct session *s);
/* End those that were cancelled since the last step. */
void request_end_cancelled(struct engine *en);

/* embed.c */
/* What the checkpoint says of embeddings, to pooling and normalise of *info. */
void embed_detect(const struct checkpoint *c, struct engine_info *info);
int embed_alloc(struct engine *en, struct err *e);
void embed_free(struct engine *en);
/* Of its first tokens, how many may come from the prefix cache: pages hold no hidden states. */
int embed_reusable(const struct request *r);
/* Ask for the hidden states that the request needs of its rows, the last sequence of the batch. */
void embed_add_rows(struct engine *en, struct batch *b, const struct request *r);
/* Take what came of the batch; ends the requests that are complete. */
void embed_take(struct engine *en, const struct batch *b);

/* sched.c */
/* Take its place and its pages away; it is not queued. */
void sched_remove(struct request *r);

#endif
