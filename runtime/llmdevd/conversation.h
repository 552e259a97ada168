/* SPDX-License-Identifier: MIT */
/*
 * A conversation as ids: turns go in, prompts come out.
 *
 * The ids of all turns so far are kept as they were computed (prompts as rendered, answers as
 * generated), so the next prompt begins with exactly the ids whose KV pages the session holds.
 * With a chat format a turn is the user's message and the head of the answer; without one it is
 * raw text that the model continues.
 */
#ifndef LLMDEV_CONVERSATION_H
#define LLMDEV_CONVERSATION_H

#include "text/chat.h"
#include "text/tokenizer.h"

struct conversation {
	const struct tokenizer *t;
	enum chat_format format;
	struct ids ids;
	uint8_t *generated; /* [ids.n] 1: by the model */
	bool open; /* the last answer's turn is not closed yet */
	bool stopped; /* ... and its ids end in the token that closes it */
};

/* t may be NULL: then only ids and no text can be turned into prompts. */
void conversation_init(struct conversation *c, const struct tokenizer *t, enum chat_format format);
void conversation_free(struct conversation *c);

/*
 * The whole prompt of the next turn, to *prompt (empty on entry; the caller's on success and on
 * failure). The conversation is not changed: conversation_commit() does that when there is an
 * answer.
 */
int conversation_turn(const struct conversation *c, const char *text, size_t len,
		      struct ids *prompt, struct err *e);
/* The prompt of a new conversation that consists of these messages. */
int conversation_start(const struct conversation *c, const struct chat_msg *msgs, int n,
		       struct ids *prompt, struct err *e);

/*
 * The conversation is now `prompt` followed by the answer's ids. Takes the prompt's memory over
 * (and leaves it empty). -ENOMEM leaves the conversation as it was.
 */
int conversation_commit(struct conversation *c, struct ids *prompt, const int32_t *answer,
			size_t n);

#endif
