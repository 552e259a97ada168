/* SPDX-License-Identifier: MIT */
/*
 * What a model wrote, taken apart while it is written: content, reasoning, tool calls.
 *
 * A pure fold over the bytes: any split of them gives the same sequence of pieces (adjacent CONTENT
 * pieces and adjacent REASONING pieces count as one), equal to that of the whole at once. Text that
 * may be the beginning of a marker is held back; a tool call comes out whole, when it has closed
 * and was found valid. What looked like a call and is none comes out as CONTENT, after a MALFORMED
 * piece that says why: nothing is ever lost.
 *
 * The bytes are the decoded ids with the spelling of special tokens in them (markers are special
 * tokens in some vocabularies). Spelling that belongs to the format itself (turn ends, harmony's
 * headers) is taken out, so are newlines around reasoning and white space around calls.
 *
 * Calls to functions that nobody offered are calls like others: whoever runs them tells the model.
 * A call is at most 16 MiB long and 128 levels deep, its name at most 256 bytes. Details for each
 * format: docs/tool-calls.md.
 */
#ifndef LLMDEV_TEXT_OUTPUT_H
#define LLMDEV_TEXT_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum output_reasoning {
	OUTPUT_REASONING_NONE,
	OUTPUT_REASONING_THINK,    /* <think>...</think>; also Nemotron-3, DeepSeek-R1 */
	OUTPUT_REASONING_GEMMA4,   /* <|channel>thought\n...<channel|> */
	OUTPUT_REASONING_HARMONY,  /* <|channel|>analysis<|message|>...<|end|> */
	OUTPUT_REASONING_MISTRAL,  /* [THINK]...[/THINK] */
};

enum output_tools {
	OUTPUT_TOOLS_NONE,
	OUTPUT_TOOLS_HERMES,       /* <tool_call>{"name":..., "arguments":...}</tool_call>: Qwen3 */
	OUTPUT_TOOLS_QWEN_XML,     /* <function=NAME><parameter=KEY>: Qwen3-Coder, Nemotron-3 */
	OUTPUT_TOOLS_GEMMA4,       /* <|tool_call>call:NAME{key:value}<tool_call|> */
	OUTPUT_TOOLS_LLAMA3,       /* {"name":..., "parameters":...}, with or without <|python_tag|> */
	OUTPUT_TOOLS_MISTRAL,      /* [TOOL_CALLS][{...}] and [TOOL_CALLS]NAME[ARGS]{...} */
	OUTPUT_TOOLS_HARMONY,      /* <|channel|>commentary to=functions.NAME ... <|call|> */
};

struct output_format {
	enum output_reasoning reasoning;
	enum output_tools tools;
};

/* What the checkpoint's chat template (its source; NULL: none) asks the model to write. */
struct output_format output_detect(const char *template_source);
/* Names as on the command line: "none", "think", "hermes", ... -1: unknown. */
int output_reasoning_by_name(const char *name);
int output_tools_by_name(const char *name);
const char *output_reasoning_name(enum output_reasoning r);
const char *output_tools_name(enum output_tools t);

struct output_opts {
	struct output_format format;
	bool reasoning_open;       /* the prompt ends inside a reasoning block ("<think>\n") */
	bool thinking;             /* the request has thinking on; off: what is never closed is content,
				    * so that a block is held back until it closes */
	const json_t *tools;       /* the request's `tools`, borrowed; NULL or empty: none, and what
				    * looks like a call is content */
	bool ends_are_text;        /* ends of turns are never spelt in the text, as the engine does it:
				    * what reads like one was written by ordinary tokens, and stays */
	uint64_t call_seed;        /* ids of calls are made of this and the call's number */
};

enum output_kind {
	OUTPUT_CONTENT,            /* .text */
	OUTPUT_REASONING,          /* .text */
	OUTPUT_CALL,               /* .index, .id, .name, .text: the arguments, one JSON object */
	OUTPUT_MALFORMED,          /* .text: why the content that follows is no call */
};

#define OUTPUT_CALL_ID 9           /* letters and digits: what the strictest template accepts */

struct output_piece {
	enum output_kind kind;
	const char *text;          /* valid during the call; not NUL-terminated */
	size_t len;
	int index;                 /* 0, 1, 2 ... of the call in its answer */
	const char *id;            /* OUTPUT_CALL_ID characters, NUL-terminated */
	const char *name;          /* NUL-terminated */
};

/* Returns 0 or -errno, which ends the call that it came from with that value. */
typedef int (*output_sink)(void *ctx, const struct output_piece *piece);

struct output;
/* Copies what it needs of *o, `tools` included. -ENOMEM. */
int output_open(struct output **out, const struct output_opts *o, struct err *e);
void output_close(struct output *p);
int output_push(struct output *p, const char *text, size_t len, output_sink sink, void *ctx);
/* The answer is over; what was held back comes out. */
int output_end(struct output *p, output_sink sink, void *ctx);
/* Between push calls: the text so far ends in reasoning. */
bool output_in_reasoning(const struct output *p);
/*
 * What comes next is content or a call: reasoning has closed, or thinking is off, or the format has
 * none. For constraints that begin with the content. With thinking on and no open block it is false
 * until the model has decided: its first byte is either the beginning of a block or the content
 * itself, so a caller with a constraint lets the model write output_reasoning_open() first. Harmony:
 * true from the end of the first message of analysis, or of a header of content, on; a caller that
 * constrains the text of the answer asks output_in_content().
 */
bool output_past_reasoning(const struct output *p);
/* The same, and the next byte is one of the content itself: not of a harmony header. */
bool output_in_content(const struct output *p);
/*
 * What closes a reasoning block, as the model would write it; NULL: the format has none. For a
 * thinking budget: once these ids have come, output_past_reasoning() holds. Harmony's goes on to the
 * header of the final message, since the model would write more analysis otherwise.
 */
const char *output_reasoning_close(enum output_reasoning r);
/* What opens one; NULL: the format has none. */
const char *output_reasoning_open(enum output_reasoning r);

#endif
