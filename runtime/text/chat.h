/* SPDX-License-Identifier: MIT */
/*
 * From a conversation to prompt ids: the checkpoint's chat template (template/template.h), and what
 * has to be known around it.
 *
 * What a template expects of messages differs: arguments of calls as objects or as text, content as
 * text or as parts, an absent content as null or as "". It is found out when the template is opened,
 * by rendering small conversations, and messages are brought into that shape. What is left is the
 * template's: if it refuses a conversation, its own sentence is the error.
 *
 * Special tokens come from the template and from trusted variables only: a user cannot type one.
 */
#ifndef LLMDEV_CHAT_H
#define LLMDEV_CHAT_H

#include <jansson.h>

#include "text/output/output.h"
#include "text/template/template.h"
#include "text/tokenizer.h"

struct chat;

/* All zero: everything as the checkpoint says. */
struct chat_opts {
	const char *template;           /* source that replaces the checkpoint's, NUL-terminated */
	bool force_reasoning, force_tools;      /* the format's part is not detected but this: */
	struct output_format format;
};

/*
 * `o` may be NULL. A checkpoint whose template is missing or cannot be used still gives a chat, whose
 * chat_unusable() says why; o->template that cannot be used is an error. `t` must outlive it.
 */
int chat_open(struct chat **out, const struct checkpoint *c, const struct tokenizer *t,
	      const struct chat_opts *o, struct err *e);
void chat_close(struct chat *c);
/* Why no conversation can be rendered, as an error's sentence; NULL: it can. `c` may be NULL. */
const char *chat_unusable(const struct chat *c);

/* Of the template and all that its renders depend on. */
uint64_t chat_hash(const struct chat *c);
/* How answers are to be read. */
struct output_format chat_output(const struct chat *c);
/* Ids that end an assistant's turn; returns their number. */
int chat_stops(const struct chat *c, int32_t *ids, int max);
/* Renders depend on the day. */
bool chat_uses_date(const struct chat *c);
bool chat_takes_tools(const struct chat *c);
/* Whether a variable switches thinking on and off, or sets its effort. */
bool chat_takes_thinking(const struct chat *c);

struct chat_request {
	const json_t *messages;         /* as OpenAI has them, valid; content: text, parts, null */
	const json_t *tools;            /* NULL: none */
	const json_t *vars;             /* an object of more variables, NULL: none */
	bool no_generation_prompt;      /* leave the head of an answer out */
	bool continue_final;            /* the last message is to be continued: cut after its content */
	int64_t now;                    /* seconds since 1970, for templates that tell the day */
};

struct chat_prompt {
	struct tmpl_output text;
	bool reasoning_open;            /* it ends inside a reasoning block */
	bool thinking;                  /* the model may think before it answers */
};

/*
 * -EINVAL: the template refuses (its own message) or fails ("chat template: line N: ..."); -E2BIG;
 * -EOPNOTSUPP: no usable template; -ENOMEM. On failure *out is empty.
 */
int chat_render(const struct chat *c, const struct chat_request *r, struct chat_prompt *out,
		struct err *e);
void chat_prompt_free(struct chat_prompt *p);
/* Appends the ids of the text from byte `from` on. */
int chat_encode(const struct chat *c, const struct tmpl_output *text, size_t from, struct ids *out,
		struct err *e);

#endif
