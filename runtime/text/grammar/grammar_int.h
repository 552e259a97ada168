/* SPDX-License-Identifier: MIT */
/*
 * Inside of constrained output. Not for other folders.
 *
 * The front ends (schema, regular expression, GBNF, tools) build a graph of nodes with a builder;
 * gb_finish() turns it into a program: instructions of a pushdown automaton over bytes and markers
 * (tokens named by a grammar). A machine runs one program over one vocabulary: its states are sets
 * of threads (instruction, stack), made when first reached and kept with their transitions and
 * masks, as a lazily built DFA.
 */
#ifndef LLMDEV_GRAMMAR_INT_H
#define LLMDEV_GRAMMAR_INT_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/grammar/grammar.h"

/* ---- bounds -------------------------------------------------------------------------------- */

#define GB_MAX_NODES	400000u
#define GB_MAX_RULES	20000u
#define GB_MAX_DEPTH	400 /* of nodes in each other within a rule: bounds recursion */
#define GB_MAX_INST	400000u
#define GB_MAX_TEXT	(4u << 20) /* bytes of literals */
#define GB_MAX_MARKS	16
#define GB_INLINE_COST	192 /* repetitions that are unrolled; larger ones count */
#define GB_INF		UINT32_MAX
#define SOURCE_MAX	(1u << 20) /* bytes of an expression or a grammar */

#define MACHINE_MAX_DEPTH   1000 /* frames of a stack; deeper nesting is not allowed */
#define MACHINE_MAX_THREADS 4096 /* of a state; more (only ambiguous grammars) are dropped */
#define MACHINE_MASK_WORK   1000000u /* threads looked at for one mask: some 20 ms */
#define MACHINE_MEMORY	    ((size_t)8 << 20) /* states kept by one machine */

/* ---- nodes --------------------------------------------------------------------------------- */

typedef uint32_t gnode; /* 0: matches nothing; also what every call returns after a failure */

enum gnode_kind {
	GN_FAIL,
	GN_EMPTY,
	GN_BYTES, /* a = offset into text, b = length */
	GN_SET, /* a = index of a set of bytes */
	GN_SEQ, /* a = offset into kids, b = number */
	GN_ALT,
	GN_REP, /* a = child, min, max */
	GN_RULE, /* a = rule */
	GN_MARK, /* a = marker, b = the same as text */
	GN_CHAR, /* a = child, which is one character of a text whose length counts */
};

struct gn {
	uint8_t kind;
	uint16_t depth;
	uint32_t a, b, max;
};

struct grule {
	gnode body;
	bool defined;
};

struct byteset {
	uint64_t w[4];
};
static inline void set_add(struct byteset *s, unsigned lo, unsigned hi)
{
	for (unsigned b = lo; b <= hi; b++)
		s->w[b >> 6] |= 1ull << (b & 63);
}
static inline bool set_has(const struct byteset *s, unsigned b)
{
	return s->w[b >> 6] >> (b & 63) & 1;
}

/* Sticky: after the first failure every call returns 0 and rc stays. */
struct gb {
	int rc;
	struct err *e;
	struct gn *node;
	uint32_t n_node, cap_node;
	uint32_t *kid;
	uint32_t n_kid, cap_kid;
	char *text;
	uint32_t n_text, cap_text;
	struct byteset *set;
	uint32_t n_set, cap_set;
	struct grule *rule;
	uint32_t n_rule, cap_rule;
	char *mark[GB_MAX_MARKS];
	int n_mark;
	uint32_t ws, string, value, integer, number; /* JSON's rules + 1, once asked for */
	struct {
		const char *const *avoid;
		uint32_t rule;
	} without[4];
};

void gb_init(struct gb *b, struct err *e);
void gb_free(struct gb *b);
int gb_fail(struct gb *b, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

gnode gb_empty(struct gb *b);
gnode gb_bytes(struct gb *b, const char *s, size_t n);
gnode gb_lit(struct gb *b, const char *s);
gnode gb_set(struct gb *b, const struct byteset *s);
gnode gb_range(struct gb *b, unsigned lo, unsigned hi);
gnode gb_list(struct gb *b, enum gnode_kind kind, const gnode *v, size_t n);
gnode gb_rep(struct gb *b, gnode x, uint32_t min, uint32_t max);
gnode gb_char(struct gb *b, gnode x);
/* A new rule, to be defined later; its node is for use in others. */
uint32_t gb_rule(struct gb *b);
void gb_define(struct gb *b, uint32_t rule, gnode body);
gnode gb_call(struct gb *b, uint32_t rule);
/* A token by its text; as plain text where the vocabulary has no such token. */
gnode gb_mark(struct gb *b, const char *text);
/* One of these strings (bytes), as a tree of their common beginnings. Sorts `v`. */
struct gstr {
	const char *s;
	size_t n;
};
gnode gb_strings(struct gb *b, struct gstr *v, size_t n);

#define gb_seq(b, ...)                                                                             \
	gb_list(b, GN_SEQ, (const gnode[]){__VA_ARGS__},                                           \
		sizeof((const gnode[]){__VA_ARGS__}) / sizeof(gnode))
#define gb_alt(b, ...)                                                                             \
	gb_list(b, GN_ALT, (const gnode[]){__VA_ARGS__},                                           \
		sizeof((const gnode[]){__VA_ARGS__}) / sizeof(gnode))
#define gb_opt(b, x) gb_rep(b, x, 0, 1)

/* Characters (code points), sorted ranges that do not touch. */
struct cprange {
	uint32_t lo, hi;
};
struct cpset {
	struct cprange *v;
	uint32_t n, cap;
};
int cpset_add(struct cpset *s, uint32_t lo, uint32_t hi); /* any order; 0 or -ENOMEM */
void cpset_tidy(struct cpset *s);
int cpset_invert(struct cpset *s); /* within U+0000 .. U+10FFFF less surrogates */
void cpset_free(struct cpset *s);
/* One of them, UTF-8. `json`: as it stands inside a JSON string, escaped where it must be. */
gnode gb_class(struct gb *b, const struct cpset *s, bool json);
gnode gb_cp(struct gb *b, uint32_t cp, bool json);

/* JSON's parts (grammar_json.c). */
gnode gj_ws(struct gb *b);
gnode gj_char(struct gb *b); /* one character inside a string, escapes included */
gnode gj_plain(struct gb *b); /* the same, no escapes */
gnode gj_string(struct gb *b);
gnode gj_number(struct gb *b);
gnode gj_integer(struct gb *b);
gnode gj_value(struct gb *b); /* any */
gnode gj_object_of(struct gb *b, gnode key, gnode value, uint32_t min, uint32_t max);
gnode gj_array_of(struct gb *b, gnode item, uint32_t min, uint32_t max);
/* Exactly this value, blanks between its tokens as elsewhere. */
gnode gj_literal(struct gb *b, const json_t *v, int depth);
/* A quoted string of none of these (written without escapes). */
gnode gj_key_except(struct gb *b, struct gstr *v, size_t n);
/* UTF-8, any character. */
gnode gj_any(struct gb *b);
/* Any text that contains none of these constants (ASCII, 63 bytes in all), NULL-terminated. */
gnode gj_text_without(struct gb *b, const char *const *texts);

/* Characters that the node can have at least and at most, by GN_CHAR; false: not known. */
bool gb_lengths(const struct gb *b, gnode x, uint64_t *min, uint64_t *max);
/* If x is a repetition of single characters: the same with bounds narrowed; else 0. */
gnode gb_narrow(struct gb *b, gnode x, uint32_t min, uint32_t max);

/* ---- regular expressions (grammar_regex.c) --------------------------------------------------- */

/*
 * `search`: it may match anywhere in the text unless anchored (JSON schema's meaning); otherwise it
 * must match the whole. `json`: the text stands inside a JSON string.
 */
gnode gb_regex(struct gb *b, const char *pattern, size_t len, bool search, bool json);

/* ---- JSON schema (grammar_schema.c, grammar_merge.c) ------------------------------------------ */

/*
 * How values are written: as JSON, as in Gemma 4's calls ({key:<|"|>text<|"|>}), or between XML-like
 * tags (strings as they are, everything else JSON).
 */
enum schema_style { STYLE_JSON, STYLE_GEMMA, STYLE_RAW };

struct schema_rule {
	const json_t *at;
	enum schema_style style;
	uint32_t rule;
	struct schema_rule *next;
};

struct schema {
	struct gb *b;
	const json_t *root;
	const char *where; /* names the schema in messages: "#", "tools[0].function.parameters#" */
	enum schema_style style;
	bool closed; /* objects with properties have no others unless additionalProperties says so */
	char path[512]; /* of the schema being read, a JSON pointer */
	int depth;
	unsigned n_merged, n_read;
	json_t *owned; /* list of schemas made here, the first is {"type": "string"} */
	struct schema_rule *rule[256]; /* of $ref's targets, by address */
	uint32_t any; /* rule + 1 of any value in STYLE_GEMMA */
};

void schema_init(struct schema *s, struct gb *b, const json_t *root, const char *where);
void schema_fini(struct schema *s);
/* What the schema allows. */
gnode schema_node(struct schema *s, const json_t *schema);
/*
 * The properties of an object schema between tags: each is before[0] name before[1] value after,
 * in the order of declaration, others are not allowed.
 */
gnode schema_tagged(struct schema *s, const json_t *schema, const char *const before[2],
		    const char *after);
/* Fails with the place: the path, then `keyword` if not NULL. Returns 0. */
gnode schema_bad(struct schema *s, const char *keyword, int rc, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
size_t schema_enter(struct schema *s, const char *a, const char *b); /* path += /a/b */
void schema_leave(struct schema *s, size_t mark);
/* $ref's target, NULL with the error set. */
const json_t *schema_target(struct schema *s, const char *ref);
/*
 * One schema that allows what both allow; kept in s->owned. NULL with the error set. References at
 * the top of either are followed, and their allOf are merged into it.
 */
const json_t *schema_merge(struct schema *s, const json_t *x, const json_t *y);
/* Members that neither restrict a value nor say where schemas are. */
bool schema_restricts(const char *keyword);
/*
 * An object schema with what it refers to merged in, for callers that write properties by
 * themselves; NULL with the error set.
 */
const json_t *schema_flat(struct schema *s, const json_t *schema);
/* Type names of `type` as bits; -1: malformed. */
enum {
	TY_NULL = 1,
	TY_BOOL = 2,
	TY_INTEGER = 4,
	TY_NUMBER = 8,
	TY_STRING = 16,
	TY_ARRAY = 32,
	TY_OBJECT = 64,
	TY_ALL = TY_NULL | TY_BOOL | TY_NUMBER | TY_STRING | TY_ARRAY | TY_OBJECT,
};
int schema_types(const json_t *type);

/* ---- numbers (grammar_number.c) -------------------------------------------------------------- */

struct bounds {
	const json_t *min, *max; /* NULL: none */
	bool min_excl, max_excl;
};
/*
 * Decimal numbers within bounds, without exponent; at most `max_frac` digits behind the point, 0:
 * integers. *why is set where bounds cannot be told in digits.
 */
gnode gb_number_range(struct gb *b, const struct bounds *r, int max_frac, const char **why);
/* Integers that are multiples of m, within bounds if there are any. */
gnode gb_multiples(struct gb *b, long long m, const struct bounds *r, const char **why);
/* multipleOf: 10^-k gives k, others -1. */
int frac_digits(double multiple);

/* ---- the program --------------------------------------------------------------------------- */

enum gop {
	OP_BYTE, /* a = byte, b = next */
	OP_SET, /* a = set, b = next */
	OP_MARK, /* a = marker, b = next, c = entry of the same as text */
	OP_SPLIT, /* a, b */
	OP_CALL, /* a = rule, b = return */
	OP_RET,
	OP_ENTER, /* begin to count: a = the LOOP */
	OP_LOOP, /* a = body, b = exit, c = counter */
	OP_INC, /* a = the LOOP */
};

struct inst {
	uint32_t op, a, b, c;
};

struct counter {
	uint32_t min, max; /* max GB_INF: counts up to min */
};

/* Immutable. Machines keep it alive. */
struct program {
	atomic_uint refs;
	uint64_t hash;
	struct inst *inst;
	uint32_t n_inst;
	struct byteset *set;
	uint32_t n_set;
	struct counter *counter;
	uint32_t n_counter;
	uint32_t *entry; /* of each rule */
	uint32_t n_rule, root;
	char *mark[GB_MAX_MARKS];
	int n_mark;
	uint8_t class_of[256]; /* bytes that no instruction tells apart */
	uint8_t rep[256]; /* a byte of each class */
	int n_class;
};

struct grammar {
	struct program *prog;
};

/* Ends the builder (always): 0 and *out, or its error. */
int gb_finish(struct gb *b, uint32_t root, struct grammar **out);
struct program *program_ref(struct program *p);
void program_unref(struct program *p);
bool program_equal(const struct program *a, const struct program *b);

/* ---- the machine (grammar_machine.c) --------------------------------------------------------- */

#define ST_UNKNOWN 0u
#define ST_DEAD	   1u

struct thread {
	uint32_t pc, frame;
};

struct frame {
	uint32_t parent, pc, count;
	uint32_t depth;
};

struct mask;

struct state {
	uint32_t thr, n_thr; /* into machine.thr */
	bool accept;
	uint32_t alike; /* machine_alike()'s answer, 0: not asked yet */
	struct mask *mask;
};

struct machine {
	struct program *prog;
	uint32_t as_text; /* markers that are no tokens of the vocabulary: bit by marker */
	int n_sym; /* classes, then markers */
	struct state *st; /* [0] and [1] unused */
	uint32_t n_st, cap_st;
	uint32_t *next; /* [state * n_sym + symbol] */
	struct thread *thr;
	uint32_t n_thr, cap_thr;
	struct frame *fr; /* [0]: the empty stack */
	uint32_t n_fr, cap_fr;
	uint32_t *alike; /* by frame, for machine_alike(); 0: not made yet */
	uint32_t cap_alike;
	uint32_t *st_hash, *fr_hash; /* open addressing; 0: empty */
	uint32_t st_hash_cap, fr_hash_cap;
	/* scratch of a step */
	struct thread *work, *found;
	uint32_t n_work, cap_work, n_found, cap_found;
	struct {
		struct thread t;
		uint32_t epoch;
	} *seen;
	uint32_t cap_seen, n_seen, epoch;
	uint32_t start;
	uint32_t budget; /* threads that may still be looked at */
	size_t limit; /* of memory; more, and states are forgotten */
	bool spent, oom;
};

/* -E2BIG: it begins in too many ways. */
int machine_init(struct machine *m, struct program *p, uint32_t as_text);
void machine_fini(struct machine *m);
uint32_t machine_step_slow(struct machine *m, uint32_t s, uint32_t sym);
/* ST_DEAD: not allowed (or oom, or budget spent). */
static inline uint32_t machine_step(struct machine *m, uint32_t s, uint32_t sym)
{
	uint32_t to = m->next[(size_t)s * m->n_sym + sym];

	return to != ST_UNKNOWN ? to : machine_step_slow(m, s, sym);
}
/*
 * A state that allows the same as s for the next `reach` bytes: counts that stay far from their
 * bounds for so long are replaced by one of them. `reach` is the same in all calls. ST_UNKNOWN: no
 * memory.
 */
uint32_t machine_alike(struct machine *m, uint32_t s, uint32_t reach);
size_t machine_memory(const struct machine *m);
/* Forget all states but keep[0..n), which are renumbered in place. Masks must be dropped first. */
int machine_shrink(struct machine *m, uint32_t **keep, size_t n);

#endif
