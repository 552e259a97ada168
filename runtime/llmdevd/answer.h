/* SPDX-License-Identifier: MIT */
/*
 * An answer while it is written: the engine's text goes in, pieces (text/output) come out, and what
 * has come together is the assistant's message. A pure function of the texts.
 */
#ifndef LLMDEV_ANSWER_H
#define LLMDEV_ANSWER_H

#include <jansson.h>

#include "text/output/output.h"

struct answer_text {
	char *v;
	size_t n, cap;
};

struct answer {
	struct output *parser; /* NULL: all is content */
	output_sink sink;
	void *ctx;
	bool keep; /* the message is wanted */
	struct answer_text content, reasoning;
	json_t *calls; /* OpenAI's tool_calls; NULL: none */
	int n_calls;
};

/* `o` NULL: all is content. -ENOMEM. */
int answer_open(struct answer *a, const struct output_opts *o, bool keep, struct err *e);
void answer_close(struct answer *a);
/* Pieces go to the sink as they come; what it returns ends the call. */
int answer_push(struct answer *a, const char *text, size_t len, output_sink sink, void *ctx);
int answer_end(struct answer *a, output_sink sink, void *ctx);

bool answer_in_reasoning(const struct answer *a);
bool answer_past_reasoning(const struct answer *a);
/* The next byte is one of the content (output_in_content()). */
bool answer_in_content(const struct answer *a);

/* One element of OpenAI's tool_calls for a piece of kind OUTPUT_CALL; NULL: no memory. */
json_t *answer_call(const struct output_piece *p, bool with_index);
/* What was said so far, as a message of role assistant; NULL: no memory. */
json_t *answer_message(const struct answer *a);

#endif
