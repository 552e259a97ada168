/* SPDX-License-Identifier: MIT */
/*
 * Inside of the tokenizer: the parts that runtime/text's files share. Not for other folders.
 *
 * A tokenizer is built by tokenizer_hf.c or tokenizer_gguf.c and never changes afterwards. Encoding
 * runs a text through: added tokens on the raw text -> normalizer -> added tokens on the normalised
 * text -> pre-tokenizer -> merges (bpe.c) of every piece.
 */
#ifndef LLMDEV_TEXT_INT_H
#define LLMDEV_TEXT_INT_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>

#include "text/tokenizer.h"

/* Longest token that a vocabulary may hold, in bytes: bounds detok_push()'s output. */
#define TOKEN_MAX_BYTES 1024
/* SentencePiece's sign for a space, U+2581. */
#define SPACE_MARK "\xe2\x96\x81"
/* Longest text that one call encodes: offsets are 32 bits with room for what normalising adds. */
#define ENCODE_MAX_BYTES ((size_t)256 << 20)

/* ---- growing byte buffer ------------------------------------------------------------------- */

struct buf {
	char *v;
	size_t n, cap;
};
int buf_reserve(struct buf *b, size_t more); /* 0 or -ENOMEM */
int buf_add(struct buf *b, const char *s, size_t n); /* 0 or -ENOMEM */
void buf_free(struct buf *b);

/* ---- vocabulary (vocab.c) ------------------------------------------------------------------ */

#define TOK_F_USED    1u /* the id has a token */
#define TOK_F_MODEL   2u /* in the model's vocabulary (found by vocab_lookup) */
#define TOK_F_SPECIAL 4u /* dropped by skip_special */
#define TOK_F_LITERAL 8u /* text as it stands: no byte-level mapping, no fallback byte */
#define TOK_F_NOMERGE 16u /* never the result of a merge (SPM control tokens) */

struct token {
	uint32_t off; /* into vocab.arena */
	uint16_t len;
	uint16_t flags;
};

struct merge {
	uint32_t left, right; /* left == UINT32_MAX: empty slot */
	uint32_t rank;
	uint32_t id; /* the token they become */
};

struct vocab {
	struct buf arena;
	struct token *tok; /* by id */
	int32_t n, cap; /* ids 0 .. n-1, holes have no TOK_F_USED */
	int32_t *hash; /* open addressing by text: id or -1; model tokens only */
	uint32_t hash_cap, hash_used;
	struct merge *merges; /* open addressing by (left, right) */
	uint32_t merges_cap, merges_used;
	uint32_t max_len; /* longest model token, bytes */
	float *scores; /* SPM: by id */
};

/*
 * Give id its text. With TOK_F_MODEL it can be looked up; a text met twice: the later id wins.
 * -EEXIST if the id has a different text already, -EINVAL if too long or empty, -ERANGE for an
 * absurd id (beyond `limit`), -ENOMEM.
 */
int vocab_set(struct vocab *v, int64_t id, const char *s, size_t len, unsigned flags,
	      int64_t limit);
int32_t vocab_lookup(const struct vocab *v, const char *s, size_t len); /* -1: none */
/* `keep_first`: a pair given twice keeps its first rank, else the last counts. 0 or -ENOMEM. */
int vocab_add_merge(struct vocab *v, uint32_t left, uint32_t right, uint32_t rank, uint32_t id,
		    bool keep_first);
/* An upper bound to reserve for; merges may then be added without moving. */
int vocab_reserve_merges(struct vocab *v, size_t n);
const struct merge *vocab_merge(const struct vocab *v, uint32_t left, uint32_t right);
static inline const char *vocab_text(const struct vocab *v, int32_t id, size_t *len)
{
	*len = v->tok[id].len;
	return v->arena.v + v->tok[id].off;
}
void vocab_free(struct vocab *v);

/* GPT-2's byte alphabet: the character that stands for a byte, and back (-1: none). */
uint32_t byte_to_char(uint8_t b);
int char_to_byte(uint32_t c);
/* Write byte-level text of s[0..n) to out (2 bytes at most for each); returns its length. */
size_t bytes_to_alphabet(const char *s, size_t n, char *out);

/* ---- added tokens (added.c) ---------------------------------------------------------------- */

struct added {
	uint32_t off, len; /* the text to match (normalised if it is to be), into arena */
	int32_t id;
	bool special, lstrip, rstrip, single_word;
};

struct added_set {
	struct buf arena;
	struct added *v; /* sorted by text after added_finish() */
	uint32_t n, cap;
	uint32_t first[257]; /* v[first[b] .. first[b+1]) start with byte b */
};
int added_put(struct added_set *s, const char *text, size_t len, const struct added *a);
int added_finish(struct added_set *s); /* sorts; drops texts met again */
/* The longest token at text[p..n); NULL if none. */
const struct added *added_match(const struct added_set *s, const char *text, size_t n, size_t p);
int32_t added_find(const struct added_set *s, const char *text, size_t len);
void added_free(struct added_set *s);

/* ---- normalizer (normalize.c) -------------------------------------------------------------- */

enum norm_kind { NORM_NFC, NORM_REPLACE, NORM_PREPEND };

struct norm_step {
	enum norm_kind kind;
	pcre2_code *re; /* REPLACE by pattern, else literal: */
	char *pattern;
	size_t pattern_len;
	char *content; /* REPLACE, PREPEND */
	size_t content_len;
};

/*
 * A text and who wrote each of its bytes: user[i] is 1 for what a user may have typed, else 0. NULL:
 * it is all one, no question is asked.
 */
struct origin_text {
	const char *s;
	size_t n;
	const uint8_t *user; /* [n] or NULL */
};

/* What normalizing needs; from zero, ends with norm_scratch_free(). */
struct norm_scratch {
	struct buf text[2], user[2];
};
void norm_scratch_free(struct norm_scratch *m);

/*
 * Runs all steps over `in` (valid UTF-8). *out points into `in` or into *m. A byte that was made of
 * several is the user's if one of them is.
 */
struct regex_run;
int normalize(const struct norm_step *steps, int n_steps, const struct origin_text *in,
	      struct norm_scratch *m, struct regex_run *rx, struct origin_text *out, struct err *e);

/* ---- pre-tokenizer (pretok.c) -------------------------------------------------------------- */

enum split_behavior {
	SPLIT_REMOVED,
	SPLIT_ISOLATED,
	SPLIT_MERGED_PREVIOUS,
	SPLIT_MERGED_NEXT,
	SPLIT_CONTIGUOUS,
};

enum pre_kind {
	PRE_SPLIT,
	PRE_PREFIX_SPACE, /* " " in front of a piece that does not start with one */
	PRE_METASPACE, /* " " -> replacement, maybe one in front, maybe split */
};

enum prepend_scheme { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

struct pre_step {
	enum pre_kind kind;
	/* SPLIT */
	pcre2_code *re; /* or literal: */
	char *literal;
	size_t literal_len;
	enum split_behavior behavior;
	bool invert;
	/* METASPACE */
	char rep[8];
	int rep_len;
	enum prepend_scheme scheme;
	bool split;
};

struct piece {
	uint32_t off, len;
	bool at_start; /* begins where the whole text begins */
};

struct pieces {
	struct piece *v;
	size_t n, cap;
};

/* What running patterns needs, one per encode call. */
struct regex_run {
	pcre2_match_data *md;
	pcre2_match_context *mctx;
	pcre2_jit_stack *stack;
	uint64_t matches;
};
int regex_run_init(struct regex_run *rx, struct err *e);
void regex_run_free(struct regex_run *rx);
/* Next match at or after `from`: 1 with *s, *t; 0: none; -errno. text is valid UTF-8. */
int regex_next(struct regex_run *rx, const pcre2_code *re, const char *text, size_t n, size_t from,
	       size_t *s, size_t *t, struct err *e);

/*
 * Compile a pattern of a tokenizer.json, which is in Oniguruma's Ruby syntax, with the meaning it
 * has there; constructs whose meaning would differ are refused. `where` names the field.
 */
int regex_compile(pcre2_code **out, const char *pattern, size_t len, const char *where,
		  struct err *e);
extern const char regex_gpt2[];

/*
 * Split text[0..n) into pieces. *cur holds the text that the pieces refer to: text itself or a
 * buffer of `b`.
 */
struct pre_scratch {
	struct buf b[2];
	struct pieces p[2];
};
int pre_tokenize(const struct pre_step *steps, int n_steps, const char *text, size_t n,
		 bool at_start, struct pre_scratch *s, struct regex_run *rx, const char **cur,
		 const struct pieces **out, struct err *e);
void pre_scratch_free(struct pre_scratch *s);

/* ---- merging (bpe.c) ----------------------------------------------------------------------- */

enum model_kind { MODEL_BPE, MODEL_SPM };

struct symbol {
	int32_t id; /* -1: no token (SPM) */
	uint32_t start, len; /* bytes of the piece; len 0: merged away */
	int32_t prev, next; /* -1: none */
};

struct heap_item {
	uint32_t rank, pos, id, len;
};

struct merge_scratch {
	struct symbol *sym;
	size_t n_sym, cap_sym;
	struct heap_item *heap;
	size_t n_heap, cap_heap;
	uint64_t heap_ops; /* pushes and pops: the work done, for tests */
	uint64_t symbols;
};
int merge_piece(const struct tokenizer *t, const char *s, size_t n, struct merge_scratch *m,
		struct ids *out);
void merge_scratch_free(struct merge_scratch *m);

/* ---- the tokenizer ------------------------------------------------------------------------- */

enum decoder_kind {
	DECODE_JOIN, /* no decoder: tokens joined by spaces, as Hugging Face does */
	DECODE_BYTES, /* byte-level alphabet */
	DECODE_CHAIN, /* replacements, byte fallback, strip, in this order */
	DECODE_METASPACE,
};

struct decode_replace {
	char *from, *to;
	size_t from_len, to_len; /* to_len <= from_len */
};

#define MAX_STEPS  16
#define MAX_DECODE 4
#define MAX_EOS	   16

struct tokenizer {
	struct vocab v;
	enum model_kind model;
	/* MODEL_BPE */
	bool byte_level, byte_fallback, fuse_unk, ignore_merges;
	int32_t unk; /* -1: none */
	int32_t byte_id[256]; /* byte-level: id of each byte; else of <0xXX>; -1: none */
	/* no token has U+2581 behind another character, so no merge crosses the start of a word */
	bool words_apart;
	/* MODEL_SPM */
	bool space_prefix;

	struct added_set raw, normalized;
	struct norm_step norm[MAX_STEPS];
	int n_norm;
	struct pre_step pre[MAX_STEPS];
	int n_pre;
	pcre2_code *word_char; /* one character of \w, for single_word */

	struct ids bos_seq, eos_seq; /* what TOK_BOS puts around a text */
	int32_t bos;
	int32_t eos[MAX_EOS];
	int n_eos;

	enum decoder_kind decoder;
	struct decode_replace replace[MAX_DECODE];
	int n_replace;
	bool decode_fallback; /* <0xXX> tokens are bytes */
	char strip; /* dropped once at the start, 0: nothing */
	char meta[8]; /* DECODE_METASPACE */
	int meta_len;
	bool meta_strip;
};

struct encode_stats {
	uint64_t heap_ops, symbols, matches;
};
/* tokenizer_encode() that also tells the work it did; tests assert on it instead of on time. */
int tokenizer_encode_counted(const struct tokenizer *t, const char *text, size_t len,
			     unsigned flags, struct ids *out, struct encode_stats *st,
			     struct err *e);

void tokenizer_add_eos(struct tokenizer *t, int32_t id);
/* After vocabulary and added tokens are in: byte ids, well-known end-of-turn tokens. */
int tokenizer_finish(struct tokenizer *t, struct err *e);
struct tokenizer *tokenizer_new(void);
/* The byte that a "<0xXX>" token stands for, -1 if it is none. */
int fallback_byte(const char *s, size_t len);

/* ---- tokenizer.json's big members (json_scan.c) -------------------------------------------- */

/*
 * Fill t->v from model.vocab and model.merges of a tokenizer.json without a JSON tree for them (a
 * tree of 150,000 merges takes tens of megabytes), and return the rest as a tree in which they are
 * empty. `merges_seen` counts merges.
 */
int json_scan_tokenizer(const char *path, struct vocab *v, json_t **rest, size_t *merges_seen,
			struct err *e);

#endif
