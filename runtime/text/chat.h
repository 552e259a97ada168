/* SPDX-License-Identifier: MIT */
/*
 * From a conversation to prompt ids, for the compiled-in formats: ChatML (Qwen and the demo model)
 * and Llama-3. The format is recognised from the checkpoint's chat template and vocabulary.
 * Content of messages is encoded without TOK_SPECIAL: a user cannot type a control token.
 */
#ifndef LLMDEV_CHAT_H
#define LLMDEV_CHAT_H

#include "text/tokenizer.h"

enum chat_format { CHAT_NONE, CHAT_CHATML, CHAT_LLAMA3 };

struct chat_msg {
	const char *role;       /* "system", "user", "assistant" */
	const char *content;
	size_t len;
};

/* CHAT_NONE if the checkpoint has no template that is one of ours. */
enum chat_format chat_detect(const struct checkpoint *c, const struct tokenizer *t);
const char *chat_format_name(enum chat_format f);

/*
 * Append the ids of msgs[0..n) to *out and, if `open_answer`, the head of the assistant's turn.
 * `first` says that these are the first messages of the conversation (BOS and a default system
 * turn belong there). Rendering turn by turn gives the same ids as rendering all at once; the
 * end-of-turn marker after a generated answer is the caller's: chat_close_turn().
 */
int chat_render(enum chat_format f, const struct tokenizer *t, const struct chat_msg *msgs, int n,
		bool first, bool open_answer, struct ids *out, struct err *e);
/* What follows the ids of a generated answer (which may or may not end in the stop token). */
int chat_close_turn(enum chat_format f, const struct tokenizer *t, bool ended_with_stop,
		    struct ids *out, struct err *e);
/* The id that ends an assistant's turn, -1 if none. */
int32_t chat_stop_id(enum chat_format f, const struct tokenizer *t);

#endif
