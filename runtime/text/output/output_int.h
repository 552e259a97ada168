/* SPDX-License-Identifier: MIT */
/*
 * Inside of the output parsers: what the files of runtime/text/output share.
 *
 * output.c owns the text that was pushed and not yet given out (in.v[pos..]), looks for markers in
 * content and reasoning, and gives pieces to the sink. Between the opening of a call and its end
 * the family's step function has the word: it reads from `scan` on and leaves `pos` at the opening,
 * so that what turns out to be no call can still become content. No step looks twice at bytes
 * before `scan` (marker lengths aside), so that the work is linear however the text was split.
 */
#ifndef LLMDEV_TEXT_OUTPUT_INT_H
#define LLMDEV_TEXT_OUTPUT_INT_H

#include "text/output/output.h"
#include "text/text_int.h"

/* Bytes of one call, markers included: more is no call. Bounds what a push holds back. */
#define OUTPUT_MAX_CALL	 ((size_t)16 << 20)
#define OUTPUT_MAX_NAME	 256
#define OUTPUT_MAX_KEY	 1024
#define OUTPUT_MAX_DEPTH 128 /* of nested arguments */

/* ---- JSON (json.c) ------------------------------------------------------------------------- */

/*
 * One object or array, checked byte by byte (RFC 8259, strict) and copied to `out` without white
 * space, strings in their shortest spelling: \u escapes become the characters themselves.
 */
enum json_result { JSON_MORE, JSON_DONE, JSON_BAD };

struct json_scan {
	struct buf *out;
	int depth;
	uint64_t in_object[OUTPUT_MAX_DEPTH / 64]; /* bit: the level is an object */
	uint8_t state;
	bool escape;
	size_t token; /* where the current string, number or word starts in *out */
	const char *why; /* JSON_BAD: what was wrong */
};

/* `out` is emptied. */
void json_scan_begin(struct json_scan *j, struct buf *out);
/* Reads s[0..n); *used is set to what it took: with JSON_BAD the wrong byte is the next one.
 * -ENOMEM else. */
int json_scan_push(struct json_scan *j, const char *s, size_t n, size_t *used);
/* A whole text (white space around it allowed) to compact form: 1, 0 if it is none, -ENOMEM. */
int json_compact(struct buf *out, const char *s, size_t n);

struct span {
	const char *s;
	size_t n;
};
/* The member of a compact object; the last one if there are several. */
bool json_member(struct span object, const char *key, struct span *value);
/* Keys that stand twice in an object of compact text: the last value counts, as in Python. 1: done;
 * 0: cannot be had; -ENOMEM. */
int json_unique(struct buf *b);
/* The text of a compact string. 1; 0: not a string; -ENOMEM. */
int json_text(struct buf *out, struct span string);
/* s[0..n) as a JSON string. 1; 0: not UTF-8; -ENOMEM. */
int json_put_string(struct buf *out, const char *s, size_t n);
bool json_number_ok(const char *s, size_t n);

/* ---- markers ------------------------------------------------------------------------------- */

enum action {
	ACT_HIDE, /* belongs to the format: taken out */
	ACT_REASONING,
	ACT_CLOSE, /* of reasoning */
	ACT_CALL,
	ACT_START, /* harmony: <|start|> */
	ACT_CHANNEL, /* harmony: <|channel|> */
	ACT_END, /* harmony: a message has ended */
	ACT_MESSAGE, /* harmony: a header has ended */
	ACT_VALUE_END, /* a family's own */
	ACT_VALUE_NEXT,
};

struct call_family;
struct marker {
	const char *text;
	uint8_t len;
	uint8_t action;
	const struct call_family *family; /* ACT_CALL */
};

#define MAX_MARKERS 12
/* No marker is the beginning of another one of its set. */
struct markers {
	struct marker v[MAX_MARKERS];
	int n;
	bool first[256];
};
void markers_add(struct markers *m, const char *text, enum action a,
		 const struct call_family *family);

/* ---- the parser ---------------------------------------------------------------------------- */

enum step {
	STEP_MORE, /* bytes are missing (never once p->ended) */
	STEP_CALL, /* p->name and p->args hold a call that ends at p->scan */
	STEP_BAD, /* no call (p->why): the text up to p->scan is content */
	STEP_CONTENT, /* the same, but it did not pretend to be one */
	STEP_AGAIN, /* after(): another call begins at p->scan, family and sub are set */
	STEP_DONE, /* after(): no more */
};

/* A negative value instead of a step is -errno. */
struct call_family {
	int (*step)(struct output *p);
	/* What may follow a call; white space was dropped. NULL: nothing. */
	int (*after)(struct output *p);
};

extern const struct call_family family_tool_call; /* <tool_call>: JSON or XML inside */
extern const struct call_family family_function; /* <function= without a wrapper */
extern const struct call_family family_gemma4;
extern const struct call_family family_llama3; /* after <|python_tag|> */
extern const struct call_family family_llama3_bare; /* an answer that begins with '{' */
extern const struct call_family family_mistral;
extern const struct call_family family_harmony; /* behind its header; p->name is set */
void begin_call(struct output *p, const struct call_family *f, bool in_reasoning);
int plain_out(struct output *p, bool reasoning); /* in[pos..scan) */

enum state {
	ST_START, /* nothing but white space yet, <think> may come */
	ST_CONTENT,
	ST_REASONING,
	ST_CALL,
	ST_AFTER, /* a call has ended */
	ST_HEADER, /* harmony: up to <|message|> */
	ST_BODY, /* harmony: its text; also what stands between messages */
};

struct output {
	struct output_format format;
	bool reasoning_open, thinking, tools_on, harmony;
	json_t *tools; /* a copy; only where schemas are needed */
	uint64_t call_seed;

	enum state state;
	struct buf in;
	size_t pos, scan;
	bool ended;
	int rc; /* what an earlier call failed with */
	uint64_t work; /* bytes looked at, for tests */
	struct markers content, reasoning;
	struct markers value; /* what ends a parameter's text (qwen_xml.c) */

	/* Content. */
	bool hold_space; /* white space waits for what follows it */
	bool skip_space, skip_newlines; /* at the beginning of what follows */
	bool had_content;
	bool past; /* reasoning is over */
	bool separate; /* another message of content follows (harmony) */
	struct buf space;

	/* Reasoning. */
	const char *label; /* "thought\n": dropped where it is what reasoning begins with */
	size_t label_at;
	bool reasoning_begun; /* a byte of this block has come out */
	bool had_reasoning;
	size_t newlines; /* held back: dropped if the block closes now */
	bool hold_reasoning; /* whether it is reasoning is known when it closes */
	struct buf held;

	/* The call at pos. */
	const struct call_family *family;
	bool in_reasoning; /* it stands in reasoning */
	int sub; /* of the family */
	size_t mark; /* of the family: an offset from pos */
	int depth; /* of brackets (gemma4.c) */
	bool quoted, array;
	const char *why;
	char name[OUTPUT_MAX_NAME + 1];
	struct buf args, tmp, tmp2;
	struct json_scan json;
	const json_t *param; /* of the parameter that is read */
	const json_t *schema; /* of the function's parameters; NULL: unknown */
	int n_calls;

	/* Harmony. */
	bool to_reasoning; /* the message's text is reasoning */
	bool between; /* messages: its text has ended */

	output_sink sink;
	void *ctx;
};

/* The first marker at or after p->scan: its number, with p->scan at it; or -1: p->scan stands at the
 * end, or where the beginning of one is held back. */
int find_marker(struct output *p, const struct markers *m);

/* in[at..] begins with `text`: 1; no: 0; the text ends before that is known: -1 (once p->ended: 0
 * if nothing is there, else -1). */
int expect(const struct output *p, size_t at, const char *text);
static inline bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}
size_t skip_space(const struct output *p, size_t at);
static inline int bad(struct output *p, size_t at, const char *why)
{
	p->scan = at;
	p->why = why;
	return STEP_BAD;
}
/* `at`, or where the character begins that it would cut in two. */
size_t char_start(const struct output *p, size_t at);
/* p->name from bytes; false: empty, too long, or with control bytes or bad UTF-8. */
bool set_name(struct output *p, const char *s, size_t n);
/*
 * A call from the compact JSON object in p->tmp: name, and arguments or parameters. STEP_CALL,
 * STEP_BAD with p->why, or -ENOMEM.
 */
int call_from_json(struct output *p);
/* Arguments from a compact value into p->args: an object, a string that holds one, or null. */
int args_from_json(struct output *p, struct span value);
/* json_scan_push() from p->scan on: STEP_MORE, STEP_DONE or STEP_BAD. */
int scan_json(struct output *p);

int content_out(struct output *p, const char *s, size_t n);
int reasoning_out(struct output *p, const char *s, size_t n);
int reasoning_begin(struct output *p);
int reasoning_close(struct output *p);
int call_out(struct output *p);
/* in[pos..scan) is no call. */
int malformed_out(struct output *p, const char *why);

/* qwen_xml.c: in[scan..] stands behind "<function=". */
int function_begin(struct output *p); /* 0 or -ENOMEM */
int function_step(struct output *p);
/*
 * convert.c: a parameter's text to JSON by its schema (NULL: unknown), whose references point into
 * `root`. Appends to *out. 1; 0: not UTF-8; -ENOMEM.
 */
int convert_value(const json_t *root, const json_t *schema, const char *s, size_t n,
		  struct buf *out);
/* The schema of a function's parameters, NULL if the function or they are unknown. */
const json_t *function_schema(const json_t *tools, const char *name);

/* harmony.c: one turn in the states of its own. */
int harmony_run(struct output *p);
void harmony_open(struct output *p, bool reasoning_open);

#endif
