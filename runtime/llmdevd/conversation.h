/* SPDX-License-Identifier: MIT */
/*
 * A conversation: messages, and the ids that they became. Turns go in, prompts come out.
 *
 * With a chat template a prompt is a render of all messages. If it begins with the very text whose
 * ids are held (the last prompt and the answer to it, special tokens spelt), those ids are kept and
 * only the rest is encoded, so that history stays as it was computed. Else (a template that drops
 * the thinking of earlier turns) all is encoded anew, and the engine reuses what is equal. Without a
 * template a turn is raw text that the model continues.
 *
 * Everything is a function of what was asked and which ids were answered, so a daemon that is told
 * the transcript arrives at the same prompts.
 */
#ifndef LLMDEV_CONVERSATION_H
#define LLMDEV_CONVERSATION_H

#include "text/chat.h"
#include "text/tokenizer.h"

struct conversation {
	const struct tokenizer *t;
	const struct chat *chat; /* NULL: none that can be used */
	json_t *messages; /* NULL: none yet */
	json_t *tools, *vars; /* that all of it is rendered with; NULL: none */
	struct ids ids;
	uint8_t *generated; /* [ids.n] 1: by the model */
	char *text; /* of the ids but for the answer's, as it was rendered */
	size_t text_len, n_answer;
};

/* A prompt, and what becomes of the conversation if it is answered. */
struct conversation_prompt {
	struct ids ids;
	size_t n_history; /* ids of earlier turns that it begins with */
	struct chat_prompt chat; /* .text empty without a template */
	json_t *messages, *tools, *vars;
	bool continues; /* the last message, which the answer belongs to */
};
void conversation_prompt_free(struct conversation_prompt *p);

/* t, chat may be NULL: then only ids, or no messages, can be turned into prompts. */
void conversation_init(struct conversation *c, const struct tokenizer *t, const struct chat *chat);
void conversation_free(struct conversation *c);

/*
 * The prompt of the next turn, to *p (empty on entry; the caller's on success, empty on failure).
 * The conversation is not changed: conversation_commit() does that when there is an answer.
 */
int conversation_turn(const struct conversation *c, const char *text, size_t len, int64_t now,
		      struct conversation_prompt *p, struct err *e);
/* The prompt of a new conversation. Keeps references to what *r points to. */
int conversation_start(const struct conversation *c, const struct chat_request *r,
		       struct conversation_prompt *p, struct err *e);

/*
 * The conversation is now the prompt followed by the answer, of which `message` is the reading
 * (NULL without a template). Takes the prompt over (and leaves it empty), and the reference to the
 * message. -ENOMEM leaves the conversation as it was.
 */
int conversation_commit(struct conversation *c, struct conversation_prompt *p,
			const int32_t *answer, size_t n, json_t *message);

#endif
