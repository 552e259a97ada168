/* SPDX-License-Identifier: MIT */
/*
 * What the files of the template engine share: the arena, values, the tree that the parser builds,
 * and the state of a render.
 *
 *   lex.c       source to tokens, with Jinja's rules for white space
 *   parse.c     tokens to statements; parse_expr.c: to expressions
 *   render.c    tmpl_render(), statements, scopes, loops, macros
 *   eval.c      expressions; ops.c: operators, subscripts, comparison
 *   value.c     arena, strings with taint, lists, dicts, iteration
 *   text.c      str() and repr() of values, JSON
 *   format.c    % and str.format()
 *   unicode.c   case, classes of characters
 *   filters*.c  the filters; tests.c: the tests; methods*.c: methods of str, list, dict
 *
 * Values are those of Python: a value is 16 bytes and points into the arena of the render, into
 * the compiled template, or (strings) into the caller's JSON; all of those outlive it. Nothing that
 * a template can reach may be changed by it except namespaces, as in jinja2's immutable sandbox.
 *
 * Errors leave by longjmp() to where the arena is freed: nothing else is ever held.
 */
#ifndef LLMDEV_TMPL_INT_H
#define LLMDEV_TMPL_INT_H

#include <locale.h>
#include <setjmp.h>
#include <string.h>

#include "text/template/template.h"

/* ---- arena ------------------------------------------------------------------------------------- */

struct arena {
	struct arena_chunk *chunks;
	char *at, *end;
	uint64_t used, limit; /* bytes asked of malloc() */
};

/* 16-byte aligned; NULL if the limit is met or there is no memory (then *oom is set). */
void *arena_alloc(struct arena *a, size_t n, bool *oom);
void arena_free(struct arena *a);

/* ---- values ------------------------------------------------------------------------------------ */

enum vtype {
	V_ABSENT, /* no value at all: an argument that was not given */
	V_UNDEF, /* jinja2's Undefined */
	V_NONE,
	V_BOOL,
	V_INT,
	V_FLOAT,
	V_STR,
	V_LIST,
	V_TUPLE,
	V_DICT,
	V_RANGE,
	V_VIEW, /* dict.keys(), .values(), .items() */
	V_ITER, /* a generator: can be gone through once */
	V_NS, /* namespace() */
	V_FUNC, /* a global function */
	V_METHOD, /* a method bound to its object */
	V_MACRO,
	V_LOOP,
	V_CYCLER,
	V_JOINER,
};

#define VM(type) (1u << (type))

/* V_UNDEF.sub: what the message says. */
enum undef { UNDEF_NAME, UNDEF_ATTR, UNDEF_ITEM, UNDEF_UNSAFE, UNDEF_HINT, UNDEF_PARAM };
/* V_VIEW.sub */
enum view { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };

struct val {
	uint8_t type;
	uint8_t user; /* scalars, containers: came from vars (strings know it themselves) */
	uint8_t sub; /* enum undef, enum view; V_TUPLE: 1 if it has .grouper and .list */
	uint8_t of; /* V_UNDEF: enum vtype of the object that lacks it */
	union {
		bool b;
		int64_t i;
		double f;
		struct str *s; /* V_STR; V_UNDEF: the name, or the hint */
		struct list *l; /* V_LIST, V_TUPLE */
		struct dict *d; /* V_DICT, V_VIEW, V_NS */
		struct range *range;
		struct iter *iter; /* V_ITER */
		const struct func *func;
		struct bound *bound;
		struct macro *macro;
		struct loop *loop;
		struct cycler *cycler;
		struct joiner *joiner;
		void *p;
	};
};

struct sbuf;

/* Immutable, valid UTF-8. */
struct str {
	const char *p;
	size_t len;
	const uint8_t *mark; /* a byte of 0 or 1 (user) for each of p's; NULL: all are `user` */
	struct sbuf *buf; /* holds p, may have room behind it; NULL: it does not grow */
	uint32_t hash; /* 0: not known yet */
	bool user;
	int8_t ascii; /* -1: not known yet */
	bool markup; /* escaped text (markupsafe.Markup) */
};

struct list {
	struct val *v; /* NULL while `json` has not been looked into */
	size_t n, cap;
	const json_t *json;
	bool user; /* the taint of what `json` holds */
};

struct entry {
	struct val key, value;
	uint32_t hash;
};

/* In order of insertion. */
struct dict {
	struct entry *e;
	size_t n, cap;
	uint32_t *index; /* of n_index slots: entry + 1 or 0; NULL for a few entries */
	size_t n_index;
	const json_t *json; /* not looked into yet; e is then NULL */
	bool user; /* the taint of what it holds */
};

struct range {
	int64_t start, stop, step, n;
};

struct cycler {
	struct list *items;
	size_t at;
};

struct joiner {
	struct val sep;
	bool used;
};

/* Something to go through. Exactly one of the sources is in use. */
struct iter {
	struct list *l; /* lists, tuples, and what generators gave */
	struct dict *d;
	enum view view;
	struct str *s;
	struct range *range;
	struct iter *inner; /* a generator is gone through on */
	size_t at;
	/* the `if` of a for statement is asked for each item when it is needed */
	const struct node *filter, *target;
	struct scope *scope;
	const char *what; /* V_ITER: the name of its type */
};

/* Arguments of a call. */
struct args {
	struct val *pos;
	int n;
	struct str **kwname;
	struct val *kw;
	int nkw;
};

struct rt;

/* Functions, filters, tests and methods: `spec` names the parameters ("length,killwords,end"; a
 * leading '/': by position only; NULL: the function looks at the arguments itself); the first `min`
 * must be given. The callee sees pos[] filled up with V_ABSENT. */
struct func {
	const char *name;
	struct val (*fn)(struct rt *r, struct val self, struct args *a);
	uint8_t min;
	const char *spec;
	uint32_t types; /* methods: of which they are (VM) */
};

struct bound {
	struct val self;
	const struct func *method;
};

/* ---- the tree ---------------------------------------------------------------------------------- */

enum kind {
	/* expressions */
	N_CONST,
	N_NAME,
	N_TUPLE,
	N_LIST,
	N_DICT,
	N_ATTR,
	N_ITEM,
	N_SLICE,
	N_CALL,
	N_FILTER,
	N_TEST,
	N_NOT,
	N_NEG,
	N_POS,
	N_BINARY,
	N_AND,
	N_OR,
	N_COMPARE,
	N_CONCAT,
	N_COND,
	N_NSREF,
	/* statements */
	S_DATA,
	S_PRINT,
	S_IF,
	S_FOR,
	S_SET,
	S_SET_BLOCK,
	S_MACRO,
	S_CALL,
	S_FILTER,
	S_BREAK,
	S_CONTINUE,
	S_WITH,
	S_SCOPE,
};

enum op { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW };
enum cmp { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN };

struct call_args {
	struct node **pos;
	int n;
	struct str **kwname;
	struct node **kw;
	int nkw;
	struct node *star, *star2; /* *args, **kwargs */
};

struct macro_def {
	struct str *name; /* NULL: a caller */
	int *param; /* symbols */
	struct node **def; /* defaults, NULL where there is none */
	int n;
	bool varargs, kwargs, caller; /* the body uses them */
};

struct node {
	uint8_t kind, op; /* enum kind; enum op */
	bool flag; /* N_TEST: negated; S_FOR: recursive */
	uint32_t line;
	int sym; /* N_NAME, N_NSREF */
	int n; /* of list */
	struct node **list; /* elements; keys and values in turn; statements */
	struct node *a, *b, *c;
	uint8_t *cmp; /* N_COMPARE: enum cmp of list[1..n) */
	struct val k; /* N_CONST, S_DATA; N_ATTR, N_NSREF: the name */
	const struct func *fn; /* N_FILTER, N_TEST; N_ATTR: the first method of this name */
	struct call_args *args;
	struct macro_def *macro;
};

struct tmpl {
	struct arena arena;
	struct node *body; /* S_SCOPE */
	struct str **sym; /* names of variables */
	int n_sym;
	struct str **mention;
	int n_mention;
	bool date;
	locale_t locale; /* C.UTF-8: case of letters, English names of months */
	int sym_loop, sym_caller, sym_varargs, sym_kwargs;
};

/* ---- lexer and parser -------------------------------------------------------------------------- */

enum tok {
	T_EOF,
	T_DATA,
	T_VAR_BEGIN,
	T_VAR_END,
	T_BLOCK_BEGIN,
	T_BLOCK_END,
	T_NAME,
	T_STRING,
	T_INT,
	T_FLOAT,
	/* operators: the text is in token.p */
	T_OP,
};

struct token {
	enum tok type;
	uint32_t line;
	const char *p; /* T_DATA, T_NAME, T_STRING: the text (unescaped) */
	size_t len;
	int64_t i;
	double f;
	char op[3];
};

struct parser {
	struct tmpl *t;
	struct err *e;
	int rc;
	jmp_buf jmp;
	/* lexer */
	const char *src;
	size_t n;
	struct token *tok;
	size_t n_tok, cap_tok;
	/* parser */
	size_t at;
	int depth, loops;
	bool soft; /* in a branch that may not be taken: unknown filters fail when they are used */
	const struct node *unknown; /* the first unknown filter or test that is not in such a branch */
	int cap_sym, cap_mention;
	struct macro_def *macro; /* the innermost */
};

void *parse_alloc(struct parser *p, size_t n);
_Noreturn void parse_fail(struct parser *p, uint32_t line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void lex(struct parser *p);

/* parse_expr.c; parse.c uses these. */
struct node *parse_node(struct parser *p, enum kind kind);
struct node *parse_expression(struct parser *p, bool with_cond);
/* end: a name that ends the tuple too ("in", "recursive"), or NULL. */
struct node *parse_tuple(struct parser *p, bool with_cond, const char *end);
struct node *parse_target(struct parser *p, const char *end, bool with_namespace);
struct node *parse_filters(struct parser *p, struct node *of);
struct node *parse_call(struct parser *p, struct node *of);
int parse_symbol(struct parser *p, const char *name, size_t len);
struct str *parse_str(struct parser *p, const char *s, size_t len);
bool tok_is_op(const struct parser *p, const char *op);
bool tok_is_name(const struct parser *p, const char *name);
bool tok_skip_op(struct parser *p, const char *op);
bool tok_skip_name(struct parser *p, const char *name);
void tok_expect_op(struct parser *p, const char *op);
const struct token *tok_expect(struct parser *p, enum tok type, const char *what);
const char *tok_describe(const struct token *t, char *buf, size_t size);
/* Fail if a filter or test is unknown. */
void parse_check_names(struct parser *p);
/* Append to an array of pointers in the arena; grows it. */
void parse_push(struct parser *p, struct node ***list, int *n, struct node *x);

/* ---- render ------------------------------------------------------------------------------------ */

/* Text being written; in the arena. */
struct sbuf {
	char *p;
	uint8_t *mark;
	size_t len, cap;
	bool some_user, some_trusted;
};

struct var {
	int sym;
	struct val v;
};

struct scope {
	struct scope *parent; /* NULL: the template's own, whose variables are rt.root */
	struct var *var;
	int n, cap;
};

struct loop {
	struct iter it;
	struct list ahead; /* items taken from it before their turn */
	size_t ahead_at;
	int64_t index0, length; /* length -1: not known */
	struct val prev, item, changed;
	const struct node *node; /* S_FOR, for recursion */
	struct scope *scope;
	int depth0;
};

struct macro {
	const struct macro_def *def;
	const struct node *node; /* its list is the body */
	struct scope *scope; /* where it was defined */
};

enum { ROOT_UNKNOWN, ROOT_ABSENT, ROOT_SET };

struct rt {
	struct arena arena;
	jmp_buf jmp;
	struct err *e;
	int rc;
	bool raised;
	const struct tmpl *t;
	uint64_t steps, max_steps;
	int depth, max_depth;
	uint32_t line;
	struct sbuf *out;
	struct val *root; /* by symbol */
	uint8_t *root_state;
	struct scope root_scope;
	const json_t *vars, *trusted;
	int64_t now;
	struct str *empty;
	struct str *byte_str[128]; /* one-character strings, made when needed */
};

_Noreturn void fail(struct rt *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void fail_limit(struct rt *r, const char *what);
void *ralloc(struct rt *r, size_t n);
/* n elements of `size`; checked for overflow */
void *ralloc_array(struct rt *r, size_t n, size_t size);

static inline void charge(struct rt *r, uint64_t n)
{
	r->steps += n;
	if (r->steps > r->max_steps)
		fail_limit(r, "steps");
}

/* Work that copies or looks at n bytes. */
static inline void charge_bytes(struct rt *r, size_t n)
{
	charge(r, 1 + n / 16);
}

/* In pairs around whatever may recurse. */
static inline void enter(struct rt *r)
{
	if (++r->depth > r->max_depth)
		fail_limit(r, "depth");
}
static inline void leave(struct rt *r)
{
	r->depth--;
}

/* value.c */
static inline struct val v_make(enum vtype type)
{
	return (struct val){.type = (uint8_t)type};
}
static inline struct val v_none(void)
{
	return v_make(V_NONE);
}
static inline struct val v_bool(bool b)
{
	return (struct val){.type = V_BOOL, .b = b};
}
static inline struct val v_int(int64_t i)
{
	return (struct val){.type = V_INT, .i = i};
}
static inline struct val v_float(double f)
{
	return (struct val){.type = V_FLOAT, .f = f};
}
static inline struct val v_str(struct str *s)
{
	return (struct val){.type = V_STR, .s = s};
}
static inline struct val v_list(struct list *l)
{
	return (struct val){.type = V_LIST, .l = l};
}
static inline struct val v_tuple(struct list *l)
{
	return (struct val){.type = V_TUPLE, .l = l};
}
static inline struct val v_dict(struct dict *d)
{
	return (struct val){.type = V_DICT, .d = d};
}
struct val v_undef(enum undef kind, enum vtype of, struct str *name);
struct val v_hint(struct rt *r, const char *hint);
struct val v_json(struct rt *r, const json_t *j, bool user);
/* A generator over what has been computed already. */
struct val v_iter(struct rt *r, struct list *l, const char *what);
const char *type_name(struct val v); /* Python's */

bool truth(struct val v);
static inline bool is_int(struct val v)
{
	return v.type == V_INT || v.type == V_BOOL;
}
static inline bool is_number(struct val v)
{
	return v.type == V_INT || v.type == V_BOOL || v.type == V_FLOAT;
}
static inline int64_t int_of(struct val v)
{
	return v.type == V_BOOL ? v.b : v.i;
}
static inline double float_of(struct val v)
{
	return v.type == V_FLOAT ? v.f : (double)int_of(v);
}

/* strings */
uint32_t str_hash(struct str *s);
bool str_is_ascii(struct str *s);
bool str_equal(const struct str *a, const struct str *b);
int str_compare(const struct str *a, const struct str *b);
/* Where `what` begins in n bytes at p, or NULL; in time that grows with n only. */
const char *bytes_find(const char *p, size_t n, const struct str *what);
size_t str_chars(struct rt *r, struct str *s); /* code points */
struct str *str_copy(struct rt *r, const char *p, size_t n, bool user);
struct str *str_static(struct rt *r, const char *s); /* text that lives as long as the program */
struct str *str_sub(struct rt *r, struct str *s, size_t from, size_t to); /* bytes */
struct str *str_char(struct rt *r, struct str *s, size_t at, int len);
size_t str_offset(struct str *s, size_t chars); /* of the character of that index, in bytes */
struct str *str_concat(struct rt *r, struct str *a, struct str *b);
/* The same text with `markup` set or not. */
struct str *str_markup(struct rt *r, struct str *s, bool markup);

void sb_init(struct rt *r, struct sbuf *b, size_t cap);
void sb_put(struct rt *r, struct sbuf *b, const char *p, size_t n, bool user);
static inline void sb_puts(struct rt *r, struct sbuf *b, const char *s, bool user)
{
	sb_put(r, b, s, strlen(s), user);
}
void sb_fill(struct rt *r, struct sbuf *b, char c, size_t n, bool user);
void sb_str(struct rt *r, struct sbuf *b, const struct str *s);
void sb_range(struct rt *r, struct sbuf *b, const struct str *s, size_t from, size_t to);
/* The character cp with the taint of s[at]. */
void sb_char(struct rt *r, struct sbuf *b, uint32_t cp, const struct str *s, size_t at);
struct str *sb_take(struct rt *r, struct sbuf *b);
static inline bool str_user_at(const struct str *s, size_t at)
{
	return s->mark ? s->mark[at] : s->user;
}
/* Is any byte of it the user's? */
bool str_tainted(const struct str *s);

/* lists, dicts */
struct list *list_new(struct rt *r, size_t cap);
void list_push(struct rt *r, struct list *l, struct val v);
void list_load(struct rt *r, struct list *l); /* look into the JSON */
struct dict *dict_new(struct rt *r, size_t cap);
void dict_load(struct rt *r, struct dict *d);
void dict_set(struct rt *r, struct dict *d, struct val key, struct val value);
/* V_ABSENT if there is none. */
struct val dict_get(struct rt *r, struct dict *d, struct val key);
struct val dict_get_str(struct rt *r, struct dict *d, struct str *key);
uint32_t hash_of(struct rt *r, struct val v);

/* iteration */
bool iter_init(struct rt *r, struct iter *it, struct val v); /* false: not iterable */
void iter_open(struct rt *r, struct iter *it, struct val v); /* fails instead */
bool iter_next(struct rt *r, struct iter *it, struct val *out);
struct list *list_of(struct rt *r, struct val v); /* list(v) */
int64_t length_of(struct rt *r, struct val v); /* -1: it has none */
struct val range_at(const struct range *g, int64_t i);

/* ops.c */
bool equal(struct rt *r, struct val a, struct val b);
bool same(struct val a, struct val b); /* Python's `is` */
bool less(struct rt *r, struct val a, struct val b, const char *op);
bool contains(struct rt *r, struct val a, struct val in);
bool compare(struct rt *r, enum cmp op, struct val a, struct val b);
struct val binary(struct rt *r, enum op op, struct val a, struct val b);
struct val negate(struct rt *r, struct val v);
struct val get_item(struct rt *r, struct val of, struct val key);
struct val get_attr(struct rt *r, struct val of, struct str *name, const struct func *method);
struct val get_slice(struct rt *r, struct val of, struct val from, struct val to, struct val step);
/* "a.b.0" or an integer, as filters take it: looked up part by part */
struct val get_path(struct rt *r, struct val of, struct val path, struct val def);
_Noreturn void fail_undefined(struct rt *r, struct val v);
/* Stable; keys[i] belongs to items->v[i]. */
void sort_by(struct rt *r, struct list *items, struct val *keys, bool reverse);

/* eval.c */
struct val eval(struct rt *r, const struct node *n, struct scope *s);
struct val call(struct rt *r, struct val f, struct args *a);
struct val call_func(struct rt *r, const struct func *f, const char *what, struct val self,
		     struct args *a);
/* `caller` (or NULL): given to the callee as a keyword argument of that name. */
struct val eval_call(struct rt *r, const struct node *n, struct scope *s, const struct val *caller);
/* A chain of filters; `base` (or NULL): in place of what stands before the first. */
struct val eval_filter(struct rt *r, const struct node *n, struct scope *s, const struct val *base);
void eval_args(struct rt *r, const struct call_args *c, struct scope *s, struct args *a);
struct val lookup(struct rt *r, struct scope *s, int sym);

/* render.c */
enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };
enum flow run_list(struct rt *r, struct node **list, int n, struct scope *s);
void assign(struct rt *r, struct scope *s, const struct node *target, struct val v);
struct val call_macro(struct rt *r, struct macro *m, struct args *a);
struct val call_loop(struct rt *r, struct loop *l, struct args *a);
struct val loop_attr(struct rt *r, struct loop *l, const char *name);
struct scope *scope_new(struct rt *r, struct scope *parent);
void scope_set(struct rt *r, struct scope *s, int sym, struct val v);

/* text.c: what Python prints */
struct str *to_str(struct rt *r, struct val v);
void put_str(struct rt *r, struct sbuf *b, struct val v);
void put_repr(struct rt *r, struct sbuf *b, struct val v);
int float_repr(double f, char *buf); /* [32] */
struct val to_json(struct rt *r, struct val v, struct val ensure_ascii, struct val indent,
		   struct val separators, struct val sort_keys);

/* format.c */
struct val format_percent(struct rt *r, struct str *f, struct val args);
struct val format_braces(struct rt *r, struct str *f, struct args *a);

/* tables */
const struct func *find_filter(const char *name, size_t len);
const struct func *find_test(const char *name, size_t len);
const struct func *find_global(const char *name, size_t len);
/* Methods of one name stand together: the first of them, for any type; NULL. */
const struct func *find_method(const char *name, size_t len);
const struct func *method_of(const struct func *first, enum vtype type); /* or NULL */
bool method_mutates(const struct func *m);
struct val escape_html(struct rt *r, struct val v);
struct val int_filter(struct rt *r, struct val self, struct args *a);

/* Arguments with their type checked; `what` names the callee in messages. */
int64_t arg_int(struct rt *r, struct val v, int64_t def, const char *what);
bool arg_bool(struct val v, bool def);
struct str *arg_str(struct rt *r, struct val v, const char *what);

/* unicode.c */
bool u_space(uint32_t c); /* str.isspace() */
bool u_line_break(uint32_t c); /* of str.splitlines() */
bool u_printable(const struct rt *r, uint32_t c);
struct str *u_lower(struct rt *r, struct str *s);
struct str *u_upper(struct rt *r, struct str *s);
struct str *u_capitalize(struct rt *r, struct str *s);
struct str *u_title(struct rt *r, struct str *s);
struct str *u_swapcase(struct rt *r, struct str *s);
uint32_t u_get(const struct str *s, size_t at, int *len);
size_t u_strip_left(const struct str *s, size_t from, size_t to);
size_t u_strip_right(const struct str *s, size_t from, size_t to);
bool u_is_alpha(const struct rt *r, uint32_t c);
bool u_is_digit(const struct rt *r, uint32_t c);
bool u_is_upper(const struct rt *r, uint32_t c);
bool u_is_lower(const struct rt *r, uint32_t c);
bool u_is_word(const struct rt *r, uint32_t c); /* \w */

#endif
