/* SPDX-License-Identifier: MIT */
/*
 * From a conversation to prompt ids, for the compiled-in formats: ChatML (Qwen and the demo model)
 * and Llama-3. The format is recognised from the checkpoint's chat template and vocabulary.
 * Content of messages is encoded without TOK_SPECIAL: a user cannot type a control token.
 *
 * A template is recognised only if what it does with plain messages (system, user, assistant) is
 * known to the byte; a template that is nearly one of ours gives CHAT_NONE. Llama-3.2's, which
 * writes today's date, is one of those.
 *
 * Difference to the templates: they render a conversation anew for every answer and may then drop
 * something from earlier turns (Qwen3: the <think> block). Here a conversation only grows: the ids
 * that were generated stay as they are, and an assistant's message given as text is always rendered
 * as an earlier turn (Qwen3: without its <think> block, even if it is the last message).
 */
#ifndef LLMDEV_CHAT_H
#define LLMDEV_CHAT_H

#include "text/tokenizer.h"

enum chat_format {
	CHAT_NONE,
	CHAT_CHATML, /* no system turn unless given */
	CHAT_LLAMA3,
	CHAT_CHATML_ASSISTANT, /* default system turn of Qwen1.5 and Qwen2 */
	CHAT_QWEN25, /* default system turn of Qwen2.5 */
	CHAT_QWEN3, /* <think> blocks of earlier answers are dropped */
	CHAT_QWEN3_THINK, /* the same, and an answer starts with <think> (2507-Thinking) */
	CHAT_LLAMA31, /* a system turn with fixed dates, always (3.1 and 3.3) */
};

struct chat_msg {
	const char *role; /* "system", "user", "assistant" */
	const char *content;
	size_t len;
};

/* CHAT_NONE if the checkpoint has no template that is one of ours. */
enum chat_format chat_detect(const struct checkpoint *c, const struct tokenizer *t);
/* The same from the template's source alone (NULL: none); chat_usable() looks at the vocabulary. */
enum chat_format chat_detect_template(const char *source);
bool chat_usable(enum chat_format f, const struct tokenizer *t);
/* "chatml", "llama3", ...; "none". */
const char *chat_format_name(enum chat_format f);

/*
 * Append the ids of msgs[0..n) to *out and, if `open_answer`, the head of the assistant's turn.
 * `first` says that these are the first messages of the conversation (BOS and a default system
 * turn belong there). Rendering turn by turn gives the same ids as rendering all at once; the
 * end-of-turn marker after a generated answer is the caller's: chat_close_turn().
 * -EINVAL: a role that is none of the three, or CHAT_NONE. On failure *out is as it was.
 */
int chat_render(enum chat_format f, const struct tokenizer *t, const struct chat_msg *msgs, int n,
		bool first, bool open_answer, struct ids *out, struct err *e);
/* What follows the ids of a generated answer (which may or may not end in the stop token). */
int chat_close_turn(enum chat_format f, const struct tokenizer *t, bool ended_with_stop,
		    struct ids *out, struct err *e);
/* The id that ends an assistant's turn, -1 if none. */
int32_t chat_stop_id(enum chat_format f, const struct tokenizer *t);

#endif
