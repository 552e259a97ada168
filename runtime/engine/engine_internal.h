/* SPDX-License-Identifier: MIT */
/*
 * The engine's inside, shared by engine.c, session.c, sched.c.
 *
 * Lifetimes: a request lives in exactly one of the lists `waiting` (FIFO) or `running` until its
 * end; its session (own or borrowed) outlives it. Everything is touched by the driving thread only.
 */
#ifndef LLMDEV_ENGINE_INTERNAL_H
#define LLMDEV_ENGINE_INTERNAL_H

#include "engine/engine.h"
#include "engine/fold.h"
#include "engine/kv.h"
#include "engine/sampler.h"
#include "model/model.h"

struct session {
	struct engine *en;
	struct session *prev, *next;    /* engine's list of sessions, most recently used first */
	struct request *active;         /* running request, or NULL */
	int32_t *ids;                   /* [ctx] tokens whose K and V are in the pages, then those
					 * of the running request that are still to be computed */
	int n_cached;                   /* computed */
	int n_ids;                      /* n_cached plus pending ones */
	int32_t *pages;                 /* [ctx / KV_PAGE_TOKENS] */
	int n_pages;                    /* held */
	int n_published;                /* of them, from the first on */
	uint64_t principal;             /* whose cached prefixes it may share */
	bool own;                       /* ends with its request */
};

enum request_state { REQ_WAITING, REQ_RUNNING };

struct request {
	struct engine *en;
	struct session *session;        /* NULL until an own one is made at the start */
	struct request *next;           /* in `waiting` */
	enum request_state state;
	bool cancelled, parked;
	bool complete, stopped;         /* replayed to its end; by a stop string */
	uint64_t principal;
	struct ids prompt;              /* prompt and posted ids; freed once copied to the session */
	int n_prompt, n_posted;
	int n_cached_at_start;
	int n_generated;                /* posted ones included */
	int max_tokens;
	uint64_t posted_bytes;
	struct sampling sampling;
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
	enum chat_format chat;
	int ctx, chunk, max_seqs;
	struct kv_cache kv;
	struct sampler sampler;
	int n_eos;
	int32_t eos[MODEL_MAX_EOS + 8];

	struct session *sessions, *sessions_tail;
	struct request *waiting, *waiting_tail;
	int n_waiting;
	bool blocked;                   /* the first waiting request lacks pages until something ends */
	struct request **running;       /* [max_seqs], in order of admission */
	int n_running;
	unsigned int first_prefill;     /* rotates over running requests */

	/* one step's batch, allocated once */
	int32_t *batch_ids;             /* [max_rows] */
	struct batch_seq *batch_seq;    /* [max_seqs] */
	int32_t *batch_out;             /* [max_out] */
	struct request **batch_out_req; /* [max_seqs] */
	int max_rows, max_out;
	float *logits;                  /* [max_out][vocab] */
};

#define MAX_WAITING 1024

uint64_t engine_now_ns(void);

/* engine_open() on a backend of the caller's (tests). It is the engine's, also on failure. */
int engine_open_on(struct engine **out, const struct engine_opts *o, struct backend *backend,
		   struct err *e);

/* session.c */
/* Keep the first n computed tokens; what follows may be written again. */
void session_truncate(struct session *s, int n);
/*
 * Make ids[0..n) the session's tokens. Keeps what it has computed of them and takes the pages of
 * others (of the same principal) that hold more. At least one token is left to compute. Returns the
 * number of tokens that need no computing.
 */
int session_enter(struct session *s, const int32_t *ids, int n);
/* n more tokens are computed: pages that became full are published. */
void session_computed(struct session *s, int n);
/* Let idle sessions' pages go, least recently used first, until `pages` are to be had. */
bool session_make_room(struct engine *en, int pages);
void session_touch(struct session *s);
/* Hold pages for n tokens. False: not enough; it holds what there was. */
bool session_reserve(struct session *s, int n);

/* sched.c */
void request_end(struct request *r, const struct engine_event *ev);
void sched_cancel_session(struct session *s);

#endif
