/* SPDX-License-Identifier: MIT */
/*
 * What an answer is held to: a grammar for its content or its calls, a budget for its thinking, an
 * end after its first call. Told of every id in order, it says which may come next: a function of
 * the ids, so that a daemon that takes over says the same.
 *
 *   constraint_spec    what a request asks for
 *   grammar_cache      compiled grammars, the last ones used, and the model's vocabulary for them
 *   constraint         one answer's
 */
#ifndef LLMDEV_CONSTRAINT_H
#define LLMDEV_CONSTRAINT_H

#include <jansson.h>

#include "llmdevd/answer.h"
#include "text/grammar/grammar.h"

#define CONSTRAINT_PATH_MAX 64

enum constraint_kind {
	CONSTRAINT_NONE,
	CONSTRAINT_OBJECT, /* any JSON object */
	CONSTRAINT_SCHEMA, /* json: the schema */
	CONSTRAINT_REGEX, /* json: a string */
	CONSTRAINT_GBNF, /* json: a string */
	CONSTRAINT_CHOICE, /* json: strings */
	CONSTRAINT_TOOLS, /* json: tools; the answer is calls of them */
	CONSTRAINT_STRICT, /* json: tools; calls of them, if there are any, fit their schemas */
};

struct constraint_spec {
	enum constraint_kind kind;
	json_t *json;
	char *only; /* TOOLS: the one function that may be called; NULL: any */
	bool parallel; /* TOOLS, STRICT: several calls */
	char path[CONSTRAINT_PATH_MAX]; /* of the member that asked for it */
};
void constraint_spec_free(struct constraint_spec *s);

struct grammar_cache;
/* The vocabulary's tables are made when they are first wanted. eos: ids that end an answer. */
int grammar_cache_open(struct grammar_cache **out, const struct tokenizer *t, int n_vocab,
		       const int32_t *eos, int n_eos, struct err *e);
void grammar_cache_close(struct grammar_cache *c);

#define CONSTRAINT_MARKER_MAX 16 /* ids */
#define CONSTRAINT_CLOSE_MAX  32

struct constraint {
	bool active; /* there is anything to ask */
	struct grammar_cache *cache;
	struct output_format format;
	/* the grammar of content or calls */
	struct grammar_entry *entry; /* held */
	struct matcher *matcher;
	bool calls; /* of calls, not of content */
	size_t fed; /* ids that it was told of */
	int32_t opener; /* begins reasoning where that may still come; -1: none */
	/* calls by themselves (STRICT): the matcher is there while one is written */
	int32_t marker[CONSTRAINT_MARKER_MAX]; /* what begins one */
	int n_marker, at_marker;
	bool one_call;
	/* thinking */
	int budget; /* ids; -1: none */
	int thought; /* ids so far */
	int32_t close[CONSTRAINT_CLOSE_MAX]; /* what ends it */
	int n_close, n_closed;
	bool closing;
	uint64_t *words; /* for masks that are no matcher's; [n_words] */
	int n_words;
};

struct constraint_opts {
	const struct constraint_spec *spec;
	struct output_format format;
	bool thinking; /* the answer may begin with reasoning */
	bool one_call;
	int budget; /* -1: none */
};

/* Errors begin with spec->path. -EINVAL, -EOPNOTSUPP, -E2BIG: the grammar's; -ENOMEM. */
int constraint_open(struct constraint *c, struct grammar_cache *cache,
		    const struct constraint_opts *o, struct err *e);
void constraint_close(struct constraint *c);

/* Which ids may come next, as request_params.mask; `a` is the answer so far. */
const uint64_t *constraint_mask(struct constraint *c, const struct answer *a);
/* An id came; call before its text goes to the answer. */
void constraint_id(struct constraint *c, const struct answer *a, int32_t id);

#endif
