/* SPDX-License-Identifier: MIT */
/*
 * What chat.c and completion.c share: one request becomes one answer with several choices, each a
 * question of its own to the daemon; they are streamed as they come, or put together at the end.
 */
#ifndef HTTP_ANSWER_H
#define HTTP_ANSWER_H

#include "http/gateway.h"

#define CHOICES_MAX	  128
#define CHOICES_IN_FLIGHT 32

struct answer;

struct choice {
	struct answer *a;
	int index;
	bool over, called;   /* its DONE came; it called a tool */
	const char *finish;  /* finish_reason as JSON */
	struct strbuf text, reasoning, calls, malformed;
	struct strbuf logprobs; /* chat: elements of "content"; comma-separated, not yet sent */
	struct strbuf ids;      /* of its tokens, where they are asked for: likewise */
	struct strbuf tokens, token_logprobs, top_logprobs, offsets; /* completion: likewise */
	size_t chars;        /* of text so far, for the offsets */
	const char *echo;    /* the prompt, to be put before the text; NULL: not */
	size_t echo_len;
};

/* How an endpoint writes. */
struct answer_kind {
	const char *object, *chunk_object, *id_prefix;
	/* TEXT or DATA of a choice: collect it, and send it if a->stream. */
	void (*event)(struct choice *c, const struct llmdev_event *ev);
	/* The daemon has begun; may be NULL. */
	void (*begin)(struct choice *c);
	/* The last chunk's "delta" or "text" with its name, and what is left over. */
	void (*last)(struct choice *c);
	/* A whole choice, for the reply that is no stream. */
	void (*whole)(struct choice *c, struct strbuf *b);
};

struct answer {
	struct request *rq;
	const struct answer_kind *kind;
	bool stream, include_usage, want_logprobs, want_ids, seeded;
	int n, left, per_prompt;
	int asked;              /* choices so far */
	json_t *prompts;        /* NULL: the body's own is everybody's */
	uint64_t seed;
	struct usage_sum usage;
	struct strbuf head;     /* the constant beginning of every chunk */
	struct strbuf chunk;
	struct choice choices[];
};

/*
 * Reads stream, stream_options and n of the body and takes out what is not the daemon's business.
 * `prompts` is how many prompts there are: there will be n choices of each. NULL: it was refused.
 * The answer is the request's state from here on.
 */
struct answer *answer_new(struct request *rq, const struct answer_kind *kind, size_t prompts);
/*
 * Asks for all choices, so many at a time as do not use up what one principal may ask for at once.
 * `prompts`: a list with the "prompt" of each, or NULL: the body's own. Where there is a seed each
 * choice of a prompt gets another one.
 */
void answer_ask(struct answer *a, json_t *prompts);

/* One chunk of a choice: begin, write `,"NAME":VALUE` members, end. */
struct strbuf *chunk_begin(struct choice *c);
void chunk_end(struct choice *c, const char *finish);

#endif
