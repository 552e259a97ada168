/* SPDX-License-Identifier: MIT */
/*
 * Text to token ids and back.
 *
 * Sources: a Hugging Face tokenizer.json, or the vocabulary inside a GGUF file. A tokenizer is
 * immutable after opening and may be used by several threads at once (encoders keep their scratch
 * memory per call). Encoding is close to linear in the length of any text.
 */
#ifndef LLMDEV_TOKENIZER_H
#define LLMDEV_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/checkpoint.h"

struct tokenizer;

/* Growing array of ids; start from zero, end with ids_free(). */
struct ids {
	int32_t *v;
	size_t n, cap;
};
int ids_push(struct ids *a, int32_t id);        /* 0 or -ENOMEM */
void ids_free(struct ids *a);

int tokenizer_open_hf(struct tokenizer **out, const char *tokenizer_json, struct err *e);
int tokenizer_open_gguf(struct tokenizer **out, const struct checkpoint *c, struct err *e);
/* Whichever the checkpoint has. -ENOENT if it has none (models without one still run on ids). */
int tokenizer_open(struct tokenizer **out, const struct checkpoint *c, struct err *e);
void tokenizer_close(struct tokenizer *t);

int32_t tokenizer_n_vocab(const struct tokenizer *t);

/* TOK_SPECIAL: the text of special tokens becomes those tokens; without it user text can never
 * become one (added tokens that are not special are always matched).
 * TOK_BOS: put BOS/EOS where the tokenizer's post-processor or GGUF's add_bos/add_eos says so. */
#define TOK_SPECIAL 1u
#define TOK_BOS     2u

/* Appends to *out; on failure *out is as it was. Text is UTF-8; invalid bytes are taken as U+FFFD,
 * as Hugging Face would get them, except by byte-level models, which keep them. -E2BIG: more than
 * 256 MiB; -EOVERFLOW: a pattern of the pre-tokenizer met one of PCRE2's limits. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
		     struct ids *out, struct err *e);

/*
 * The same for text of mixed origin, as a rendered template is: special tokens are matched
 * (TOK_SPECIAL is implied) only where none of their bytes is `user` text. Otherwise the spans change
 * nothing: ids are those of tokenizer_encode(TOK_SPECIAL) wherever no user text spells a special
 * token, and where all is user text they are those without it. What no span covers is user text.
 * -EINVAL: spans descend, or reach beyond the text.
 */
struct tmpl_span;
int tokenizer_encode_spans(const struct tokenizer *t, const char *text, size_t len,
			   const struct tmpl_span *span, size_t n_spans, unsigned flags,
			   struct ids *out, struct err *e);

/* The id of exactly this token's text ("<|im_end|>"), -1 if there is none. */
int32_t tokenizer_find(const struct tokenizer *t, const char *token);
int32_t tokenizer_bos(const struct tokenizer *t);       /* -1: none */
/* BOS is added by TOK_BOS. */
bool tokenizer_adds_bos(const struct tokenizer *t);
/* End-of-generation ids that the vocabulary itself names (eos, eot); returns their number. */
int tokenizer_eos(const struct tokenizer *t, int32_t *ids, int max);
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
/* The token as stored, for people ("Ġthe"); NULL if out of range. */
const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *len);

/*
 * The bytes that the token adds to a text that has begun, which may be part of a character only.
 * Returns their number; 0: there is no such token, or it has more than `cap`.
 */
int tokenizer_bytes(const struct tokenizer *t, int32_t id, char *buf, size_t cap);

/* Whole-sequence decoding as Hugging Face does it. *out is malloc'ed and NUL-terminated. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
		     char **out, size_t *out_len, struct err *e);

/*
 * Streaming decoding: a fold over ids, small enough to copy. Bytes come out as soon as they are
 * whole UTF-8 characters; the concatenation over a sequence plus detok_flush() equals
 * tokenizer_decode() of it (skip_special as given), with one exception: in a run of byte tokens
 * (<0xXX>) that is not valid UTF-8 as a whole, Hugging Face replaces every byte; the fold has put
 * out the whole characters before the bad byte by then, and replaces the bad bytes only.
 *
 * A text that goes on where another ended (an answer after its prompt) is the tail of one sequence:
 * set `started` after detok_init(), or the first word's space is lost with SentencePiece
 * vocabularies.
 */
struct detok {
	const struct tokenizer *t;
	bool skip_special;
	bool started;           /* if not, a leading space is dropped (SentencePiece) */
	uint8_t held[16];       /* incomplete UTF-8 tail */
	int n_held;
};
void detok_init(struct detok *d, const struct tokenizer *t, bool skip_special);
/* Writes at most `cap` bytes (>= DETOK_MAX) to buf, returns their number. */
#define DETOK_MAX 4096
size_t detok_push(struct detok *d, int32_t id, char *buf, size_t cap);
/* What is held back at the end, as U+FFFD. */
size_t detok_flush(struct detok *d, char *buf, size_t cap);

#endif
