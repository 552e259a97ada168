/* SPDX-License-Identifier: MIT */
/*
 * What a client asks for, from the payload of a SUBMIT: LLM_FMT_TEXT is the next turn of the
 * conversation with the model's own sampling settings; LLM_FMT_JSON is one object, told apart by
 * what it holds:
 *
 *   messages     a chat completion: tools, tool_choice, parallel_tool_calls, response_format,
 *                chat_template_kwargs, reasoning_effort, thinking_budget, add_generation_prompt,
 *                continue_final_message
 *   prompt       a completion: text or token ids
 *   input        the vector of a text or of ids; dimensions
 *   tokenize     {prompt, add_special_tokens} or {messages, ...}: the ids
 *   detokenize   {tokens}: their text
 *
 * Both completions: max_tokens, max_completion_tokens, temperature, top_p, top_k, min_p, seed, stop,
 * presence_penalty, frequency_penalty, repetition_penalty, ignore_eos, min_tokens, logit_bias,
 * logprobs, top_logprobs, response_format, structured_outputs (or guided_json, guided_regex,
 * guided_choice, guided_grammar).
 *
 * Members that would change the answer's meaning and are not supported are refused by name; the rest
 * is ignored, so is `null`. The sentence of a refusal begins with the member's path.
 */
#ifndef LLMDEV_PAYLOAD_H
#define LLMDEV_PAYLOAD_H

#include "engine/engine.h"
#include "llmdevd/constraint.h"
#include "llmdevd/conversation.h"

#define PAYLOAD_STOP_MAX       16 /* stop strings */
#define PAYLOAD_STOP_BYTES_MAX 256 /* bytes of one */
#define PAYLOAD_TOOLS_MAX      512
#define PAYLOAD_NAME_MAX       256 /* bytes of a function's name */
#define PAYLOAD_BIAS_MAX       4096 /* ids of logit_bias */
#define PAYLOAD_VARS_MAX       64 /* members of chat_template_kwargs */

enum payload_kind {
	PAYLOAD_TURN, /* the next turn: builds on all before it */
	PAYLOAD_MESSAGES, /* a conversation of its own, which later turns continue */
	/* These stand alone: later turns do not see them. */
	PAYLOAD_PROMPT,
	PAYLOAD_EMBED,
	PAYLOAD_RESULT, /* no work for the engine: `result` is the answer */
};

struct payload {
	enum payload_kind kind;
	struct conversation_prompt prompt;
	int max_tokens; /* 0: not said */
	struct sampling sampling;
	bool seeded; /* the client gave a seed */
	char **stop;
	int n_stop;
	struct logit_bias *bias;
	int n_bias;
	int n_logprobs; /* -1: none */
	struct constraint_spec constraint;
	json_t *tools; /* whose calls are taken out of the answer; NULL: none */
	bool one_call; /* the answer ends with its first call */
	int thinking_budget; /* ids; -1: none */
	int dimensions; /* of the vector; 0: all */
	char *result; /* JSON */
	size_t result_len;
};

/* What payloads are read against. */
struct payload_env {
	const struct conversation *conversation; /* so far */
	const struct chat *chat; /* may be NULL */
	const struct sampling *sampling; /* where the payload says nothing */
	const struct engine_info *info;
	int64_t now; /* seconds since 1970, for templates */
};

/*
 * Reads `len` bytes of `format` (LLM_FMT_*). On failure *p is empty. -EINVAL: malformed;
 * -EOPNOTSUPP: something that is not supported; -E2BIG; others from tokenizer and template.
 */
int payload_read(struct payload *p, uint32_t format, const char *bytes, size_t len,
		 const struct payload_env *env, struct err *e);
void payload_free(struct payload *p);

/* Part of the conversation, not alone. */
static inline bool payload_is_chat(const struct payload *p)
{
	return p->kind == PAYLOAD_TURN || p->kind == PAYLOAD_MESSAGES;
}

#endif
