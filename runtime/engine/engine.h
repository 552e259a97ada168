/* SPDX-License-Identifier: MIT */
/*
 * The engine: the whole API that transports and tools see.
 *
 *   struct engine   a loaded model: weights, tokenizer, backend, KV pages, scheduler.
 *   struct request  one generation, from prompt ids to its end. Belongs to the engine from
 *                   engine_submit() until its ENGINE_DONE or ENGINE_ERROR event has been handled.
 *   struct session  a conversation's cached tokens. A request names a session or none.
 *
 * One thread drives an engine: every call is made from the thread that calls engine_step(). Nothing here blocks on a client: events are handed to the request's sink during
 * engine_step(). No globals. Fallible calls return 0 or -errno and fill struct err.
 */
#ifndef LLMDEV_ENGINE_H
#define LLMDEV_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/ops.h"
#include "base/err.h"
#include "text/chat.h"
#include "text/tokenizer.h"
#include "weights/checkpoint.h"
#include "weights/region_load.h"

struct engine;
struct session;
struct request;

struct engine_opts {
	const char *model;              /* directory, .gguf or a name that model/resolve.h knows */
	const char *backend;            /* "auto", "cpu", "ref"; NULL = "auto" */
	int threads;                    /* 0: all */
	bool exact;                     /* float activations, f32 KV: the yardstick */
	int kv_type;                    /* enum kv_type, or -1: f32 if exact or ref, else bf16 */
	int chunk;                      /* prompt tokens a step at most, 0: default (256) */
	int step_ms;                    /* while others decode, a step takes only as many prompt
					 * tokens as it computes in about this time; 0: default (100) */
	int ctx;                        /* positions a session may reach, 0: the model's own */
	size_t kv_bytes;                /* KV pool, 0: what ctx needs for one session, and more if cheap */
	int64_t prefix_bytes;           /* of the pool, what may be kept only because it might be
					 * wanted again; 0: all of it, < 0: nothing */
	const char *swap_dir;           /* KV pages that must leave the pool go to a file here; NULL:
					 * they are computed again when they are wanted */
	size_t swap_dir_len;            /* bytes of it, 0: to its NUL */
	uint64_t swap_bytes;            /* of that file, 0: as much as the pool */
	const struct chat_opts *chat;   /* instead of the checkpoint's template; NULL: nothing is */
	int max_seqs;                   /* requests running at once, 0: default (32) */
	int max_waiting;                /* requests that may wait, 0: default (1024) */
	enum weights_mode weights;      /* where the weights go */
	bool verify_weights;            /* sum up those that are found in a region */
	/* one line on where the weights are and why; may be NULL */
	void (*note)(void *ctx, const char *line);
	void *note_ctx;
	/*
	 * Before memory is taken: `weights` bytes are to be allocated (0: they were found in memory)
	 * and at least `kv` more for the KV cache. Makes room, or refuses with -ENOMEM and the sum. May
	 * be NULL
	 */
	int (*admit)(void *ctx, uint64_t weights, uint64_t kv, struct err *e);
	void *admit_ctx;
	/* loading progress, from the calling thread; may be NULL */
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
	void *progress_ctx;
};

int engine_open(struct engine **out, const struct engine_opts *o, struct err *e);
void engine_close(struct engine *en);
/* Weights in a region that nobody else uses shall go with this engine. */
void engine_forget_weights(struct engine *en);

/*
 * Only loads the weights into a region (o->weights: WEIGHTS_REGION), where the next engine_open() with
 * the same model and backend finds them. `placement` is given the region's name.
 */
int engine_keep_weights(const struct engine_opts *o, char *placement, size_t len,
			struct load_stats *load, struct err *e);

/* How an embedding is made of the hidden states after the final norm. */
enum engine_pooling { POOLING_NONE, POOLING_LAST, POOLING_MEAN };

/* Facts for people and tools; strings live as long as the engine. */
struct engine_info {
	const char *model;              /* name: last path component, or general.name */
	const char *family;             /* "qwen3_moe" */
	const char *backend;            /* "cpu" */
	const char *detail;             /* "AVX-512 VNNI BF16, 2 threads" */
	const char *placement;          /* "anonymous memory", "region NAME (kernel)" */
	int vocab, ctx, layers, hidden;
	uint64_t params, weight_bytes;  /* weight_bytes: as placed */
	uint64_t bytes_per_token;       /* weight bytes read to decode one token at empty context */
	uint64_t kv_bytes_per_token, kv_bytes;
	bool row_invariant;
	struct load_stats load;
	uint64_t fingerprint;           /* model + tokenizer + layout + backend: what replay relies on */
	enum engine_pooling pooling;    /* NONE: the model makes no embeddings */
	bool normalise;                 /* embeddings have length 1 */
	double temperature, top_p, min_p;       /* the checkpoint's sampling defaults (temp 0 if none) */
	int top_k;
};
const struct engine_info *engine_info(const struct engine *en);
const struct tokenizer *engine_tokenizer(const struct engine *en);      /* NULL: none */
/* How conversations become prompts; chat_unusable() if they cannot. NULL without a tokenizer. */
const struct chat *engine_chat(const struct engine *en);
/* Ids that end an answer; returns their number. */
int engine_eos(const struct engine *en, const int32_t **ids);
const struct checkpoint *engine_checkpoint(const struct engine *en);

/* Conversation: keeps its KV pages between requests; the longest common prefix is reused. */
int engine_session_open(struct engine *en, struct session **out, struct err *e);
void engine_session_close(struct session *s);   /* cancels its requests, frees its pages */

struct sampling {
	float temperature;              /* 0: greedy */
	int top_k;                      /* 0: off */
	float top_p, min_p;             /* 1 and 0: off */
	float repeat_penalty;           /* 1: off */
	float presence_penalty, frequency_penalty;
	uint64_t seed;
	bool ignore_eos;
	int min_tokens;                 /* generated before the answer may end: ids that end it are not
					 * drawn (unless the mask allows nothing else), and stop
					 * strings begin later; 0: off */
};
void sampling_default(struct sampling *s, const struct engine *en);

enum engine_finish { FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED };

enum engine_event_kind {
	ENGINE_STARTED,         /* first prefill step is about to run */
	ENGINE_PROGRESS,        /* prompt tokens done / total */
	ENGINE_REPLAYED,        /* one of the posted ids, folded again: as TOKEN, without logits;
				 * these come before STARTED */
	ENGINE_TOKEN,           /* an id, and the text that became whole with it (maybe none) */
	ENGINE_EMBEDDING,       /* the prompt's vector */
	ENGINE_DONE,
	ENGINE_ERROR,
};

struct token_logprob {
	int32_t id;
	float logprob;                  /* natural, of the model's own distribution: without penalties,
					 * bias, mask and temperature */
};

struct engine_event {
	enum engine_event_kind kind;
	int32_t id;                     /* TOKEN, REPLAYED */
	const char *text;               /* these (and DONE: text held back until the end); not
					 * NUL-terminated */
	size_t text_len;
	const float *logits;            /* TOKEN: [vocab] it was drawn from, bias and penalties
					 * included; what the mask excludes may be -infinity;
					 * valid during the call */
	const struct token_logprob *logprobs;   /* TOKEN, if asked for: the token's own, then those of
					 * the likeliest ids in order; valid during the call */
	int n_logprobs;
	const float *vector;            /* EMBEDDING: [n_vector]; valid during the call */
	int n_vector;
	int done, total;                /* PROGRESS */
	enum engine_finish finish;      /* DONE */
	int error;                      /* ERROR: errno */
	const char *message;            /* ERROR */
	int prompt_tokens, cached_tokens, completion_tokens;    /* DONE */
	uint64_t ns_submit, ns_start, ns_first, ns_end;         /* DONE: CLOCK_MONOTONIC */
};

struct logit_bias {
	int32_t id;
	float bias;                     /* added to the logit */
};

#define ENGINE_MAX_LOGPROBS 20

struct request_params {
	struct session *session;        /* NULL: a fresh context that ends with the request */
	const int32_t *prompt;          /* copied */
	size_t n_prompt;                /* >= 1 */
	size_t n_history;               /* at most n_prompt: ids of earlier turns */
	const uint8_t *generated;       /* [n_history] 1: the model generated it then; counts only
					 * where backend->split_classes */
	bool embed;                     /* no answer: EMBEDDING, then DONE; -EOPNOTSUPP without pooling */
	int max_tokens;                 /* 0: to the end of the context */
	uint64_t principal;             /* on whose behalf: the engine's time is shared between
					 * principals, cached prefixes within one only (the lower
					 * 63 bits count) */
	int priority;                   /* -20 (first) to 19 (last): orders the requests of one
					 * principal; between principals each step is worth a
					 * quarter more of the engine's time, as nice(2) */
	uint64_t deadline_ns;           /* CLOCK_MONOTONIC, 0: none. Brings it forward among the
					 * principal's own; ending it when it passes is the caller's */
	struct sampling sampling;
	const char *const *stop;        /* strings; copied */
	int n_stop;
	bool special_text;              /* texts of events spell special tokens out (never the one
					 * that ends the answer) */
	int n_logprobs;                 /* < 0: none; else so many likeliest ids beside the token's own,
					 * at most ENGINE_MAX_LOGPROBS */
	const struct logit_bias *bias;  /* copied */
	int n_bias;
	/*
	 * Called before each token is drawn, never during replay (ENGINE_REPLAYED and ENGINE_TOKEN
	 * tell how far the answer is): bit id % 64 of word id / 64 says that the token may come;
	 * NULL: any may. Valid until the call returns to the engine's caller. NULL: no constraint.
	 * No bit at all: the answer ends here (FINISH_STOP), without an id.
	 */
	const uint64_t *(*mask)(void *ctx, struct request *r);
	/*
	 * Replay: ids that an earlier engine generated and posted for this very request. They are
	 * decoded again, not sampled; their events are not repeated. `posted_bytes` is the text
	 * length that was posted with them: if the fold arrives elsewhere the request ends in error
	 * (UINT64_MAX: not checked here).
	 */
	const int32_t *posted;
	size_t n_posted;
	uint64_t posted_bytes;
	/* Called during engine_step() (DONE also from engine_session_close()). May call
	 * engine_submit(), engine_cancel(), engine_park() and engine_pause(), nothing else. */
	void (*on_event)(void *ctx, struct request *r, const struct engine_event *ev);
	void *ctx;
};

/*
 * -EINVAL: empty prompt, id, bias or priority out of range; -E2BIG: longer than
 * the context, or it could never fit the KV pool (the message has the sum); -ENOSPC: the queue is full.
 */
int engine_submit(struct engine *en, const struct request_params *p, struct request **out,
		  struct err *e);
/* Ends with ENGINE_DONE/FINISH_CANCELLED at the next step. Idempotent. */
void engine_cancel(struct request *r);
/*
 * A client that does not read: a parked request takes no steps. It keeps its place and its pages
 * only as long as nobody else wants them; the answer is the same either way.
 */
void engine_park(struct request *r, bool parked);
/* A short rest, of the caller's choosing: it takes no steps, and keeps its place. */
void engine_pause(struct request *r, bool paused);

enum engine_request_state {
	ENGINE_WAITING,         /* not started */
	ENGINE_PREEMPTED,       /* started, waits for its place or its pages */
	ENGINE_PREFILL,
	ENGINE_DECODE,
	ENGINE_PARKED,
};
enum engine_request_state engine_request_state(const struct request *r);

/* Runs one step (a ragged batch). Returns the number of requests still unfinished, or -errno. */
int engine_step(struct engine *en, struct err *e);
/* Requests that a step would advance (0: nothing to do but wait). */
int engine_runnable(const struct engine *en);

/* What goes on. Counters are since the start. */
struct engine_stats {
	/* now */
	int sessions, running, parked, waiting, principals;     /* parked ones are not in `running` */
	int batch_decode, batch_prefill;        /* rows of the last step */
	int kv_pages;                           /* of KV_PAGE_TOKENS positions each: held + cached + free */
	int kv_held, kv_cached, kv_free;        /* by sessions; by the prefix cache alone */
	uint64_t kv_page_bytes;
	uint64_t swap_pages, swap_max_pages;    /* in the swap file */
	const char *swap_error;                 /* why the swap file was given up; NULL: it was not */
	/* requests */
	uint64_t submitted, refused, done, cancelled, failed;
	uint64_t preempted;                     /* times that a request had to let go of its place */
	/* tokens */
	uint64_t prompt_tokens;                 /* of started requests */
	uint64_t cached_tokens;                 /* of those, not computed */
	uint64_t computed_tokens;               /* prompt rows computed, repeated ones included */
	uint64_t recomputed_tokens;             /* of those, lost through preemption */
	uint64_t generated_tokens;
	uint64_t evicted_tokens;                /* the prefix cache let go of */
	uint64_t swapped_out, swapped_in;       /* pages */
	/* time, ns */
	uint64_t steps, ns_step;                /* in engine_step() when it computed something */
	uint64_t ns_forward, ns_sample, ns_swap;        /* parts of it; the rest is scheduling */
};
void engine_stats(const struct engine *en, struct engine_stats *st);

/*
 * Memory is wanted elsewhere: give some back, now; nothing that a request is using. What was dropped
 * is computed again when it is wanted; answers are the same. Both return bytes.
 */
uint64_t engine_shed_cache(struct engine *en);  /* what is kept only because it might be wanted */
uint64_t engine_shed_idle(struct engine *en);   /* and the pages of sessions that nobody asks now */

/* Tokens that the session has computed, and pages that it holds for them. */
void engine_session_usage(const struct session *s, int *tokens, int *pages);

/*
 * One forward pass over `ids` from an empty context, for `llmctl logits` and tests: the logits
 * after each position in positions[] (ascending) to out[n][vocab].
 */
int engine_logits(struct engine *en, const int32_t *ids, size_t n_ids, const int32_t *positions,
		  size_t n, float *out, struct err *e);

#endif
