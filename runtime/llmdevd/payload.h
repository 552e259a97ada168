/* SPDX-License-Identifier: MIT */
/*
 * What a client asks for, from the payload of a SUBMIT: LLM_FMT_TEXT is the next turn of the
 * conversation with the model's own sampling settings; LLM_FMT_JSON is one OpenAI
 * chat-completion ("messages") or completion ("prompt": text or token ids) request object.
 *
 * JSON members that are understood: messages, prompt, max_tokens, max_completion_tokens,
 * temperature, top_p, top_k, min_p, seed, stop, presence_penalty, frequency_penalty,
 * repetition_penalty, ignore_eos. Members that would change the answer's meaning and are not
 * supported are refused by name; the rest is ignored, so is `null`.
 */
#ifndef LLMDEV_PAYLOAD_H
#define LLMDEV_PAYLOAD_H

#include "engine/engine.h"
#include "llmdevd/conversation.h"

#define PAYLOAD_STOP_MAX       16 /* stop strings */
#define PAYLOAD_STOP_BYTES_MAX 256 /* bytes of one */

enum payload_kind {
	PAYLOAD_TURN, /* the next turn: builds on all before it */
	PAYLOAD_MESSAGES, /* a conversation of its own, which later turns continue */
	PAYLOAD_PROMPT, /* stands alone: later turns do not see it */
};

struct payload {
	enum payload_kind kind;
	struct ids prompt;
	int max_tokens; /* 0: not said */
	struct sampling sampling;
	bool seeded; /* the client gave a seed */
	char **stop;
	int n_stop;
};

/*
 * Reads `len` bytes of `format` (LLM_FMT_*). `c` is the conversation so far, `defaults` the
 * sampling where the payload says nothing, n_vocab bounds token ids. On failure *p is empty.
 * -EINVAL: malformed; -EOPNOTSUPP: something that is not supported; others from the tokenizer.
 */
int payload_read(struct payload *p, uint32_t format, const char *bytes, size_t len,
		 const struct conversation *c, const struct sampling *defaults, int n_vocab,
		 struct err *e);
void payload_free(struct payload *p);

#endif
