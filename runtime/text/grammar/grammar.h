/* SPDX-License-Identifier: MIT */
/*
 * Constrained output: which tokens may come next.
 *
 *   struct grammar        what is allowed, compiled: from a JSON schema, a regular expression, a
 *                         GBNF-like grammar, or the calls that a request's tools permit. Immutable.
 *   struct grammar_vocab  a tokenizer's tokens as a trie over their bytes, and the masks that were
 *                         computed for states seen before. One per model.
 *   struct matcher        one answer's place in a grammar.
 *
 * Special (control) tokens never match text: only a grammar that names one (the markers of tool
 * calls) allows it. Compiling is bounded in time and memory, and so is every matcher: -E2BIG, with
 * what was too large. Not thread-safe except where immutable.
 */
#ifndef LLMDEV_TEXT_GRAMMAR_H
#define LLMDEV_TEXT_GRAMMAR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/output/output.h"
#include "text/tokenizer.h"

struct grammar;
struct grammar_vocab;
struct matcher;

/*
 * -EINVAL: malformed, or nothing can match; -EOPNOTSUPP: a keyword that is not supported (never
 * ignored if it would restrict the answer). The message names the place: a JSON pointer into the
 * schema ("#/properties/age/minimum: ..."), line and column of a grammar, offset in an expression.
 */
int grammar_json_schema(struct grammar **out, const json_t *schema, struct err *e);
/* Any JSON object. */
int grammar_json_object(struct grammar **out, struct err *e);
/* The whole answer matches it (anchored at both ends). */
int grammar_regex(struct grammar **out, const char *pattern, size_t len, struct err *e);
/* `root ::= ...`: literals, classes, groups, | * + ? {m,n}, comments. */
int grammar_gbnf(struct grammar **out, const char *text, size_t len, struct err *e);
/* One of these strings. */
int grammar_choice(struct grammar **out, const json_t *strings, struct err *e);
/*
 * Calls as the model's format writes them, arguments by each tool's schema: at least one, one
 * exactly unless `parallel`; of `only` if that is not NULL (-ENOENT: no such tool).
 */
int grammar_tools(struct grammar **out, enum output_tools format, const json_t *tools,
		  const char *only, bool parallel, struct err *e);
void grammar_free(struct grammar *g);

/*
 * `eos`: ids that end an answer. `t` and all grammars of its matchers must outlive it; `memory`
 * bounds the kept masks (0: default).
 */
int grammar_vocab_open(struct grammar_vocab **out, const struct tokenizer *t, int n_vocab,
		       const int32_t *eos, int n_eos, size_t memory, struct err *e);
void grammar_vocab_close(struct grammar_vocab *v);

/* At the grammar's beginning. The matcher borrows both. */
int matcher_open(struct matcher **out, const struct grammar *g, struct grammar_vocab *v,
		 struct err *e);
void matcher_close(struct matcher *m);
/*
 * Bit id % 64 of word id / 64: the token may come next; ids that end the answer have theirs iff it
 * may end here. Never empty. [(n_vocab + 63) / 64] words, valid until the next call on the matcher.
 * NULL: no memory.
 */
const uint64_t *matcher_mask(struct matcher *m);
/* -EINVAL: not allowed here, and the matcher is as it was. */
int matcher_accept(struct matcher *m, int32_t id);
/* The text so far is complete. */
bool matcher_may_end(const struct matcher *m);

#endif
