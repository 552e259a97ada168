/* SPDX-License-Identifier: MIT */
/*
 * OpenAI's Responses API on top of what llmdevd takes (chat requests) and gives (events): a request
 * is translated once, the events of its answer are folded into output items. Both are pure: neither
 * knows HTTP, so both are tested without a gateway (tests/unit/test_responses.c).
 *
 * Nothing is stored: there is no previous_response_id, and a conversation's items come with each
 * request. Reasoning comes as items of type "reasoning" with the model's own text
 * (content[].reasoning_text; summary is empty), and may be sent back as such.
 */
#ifndef HTTP_RESPONSES_H
#define HTTP_RESPONSES_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/err.h"
#include "http/strbuf.h"
#include "lib/llmdev.h"

/*
 * The chat request that asks for the same. -EINVAL, -EOPNOTSUPP: e begins with the member's path
 * ("input[2].content[0].type: ..."); -ENOMEM. `body` is an object, not changed, partly shared.
 */
int responses_to_chat(const json_t *body, json_t **chat, struct err *e);
/*
 * The daemon names members of the chat request when it refuses one: writes its sentence to `out`
 * with the path that the client knows.
 */
void responses_translate_error(const char *text, size_t n, struct strbuf *out);

struct response;

/* One event of the stream: `type` ("response.created") and the whole object, valid in the call. */
typedef void (*response_emit)(void *ctx, const char *type, const struct strbuf *json);

/*
 * An answer to `body` (valid as responses_to_chat() found it; not kept, partly shared). `id`: hex
 * digits that make the ids of the response and of its items. `emit` may be NULL. NULL: no memory.
 */
struct response *response_new(const json_t *body, const char *model, const char *id,
			      int64_t created, response_emit emit, void *ctx);
void response_free(struct response *r);
/* response.created and response.in_progress; once, before all else. */
void response_begin(struct response *r);
/* TEXT and DATA; others are ignored. */
void response_event(struct response *r, const struct llmdev_event *ev);
/* DONE: closes the open item; response.completed or response.incomplete. */
void response_done(struct response *r, const struct llmdev_event *ev, uint32_t reasoning_tokens);
/* response.failed; code: "server_error", "rate_limit_exceeded" or "invalid_prompt". */
void response_fail(struct response *r, const char *code, const char *message);
/* The response object as it is now: a new reference; NULL: no memory at some point. */
json_t *response_json(const struct response *r);

#endif
