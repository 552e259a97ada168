// SPDX-License-Identifier: MIT
/* A conversation as ids. Owns the ids of the turns so far; see conversation.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llmdevd/conversation.h"

void conversation_init(struct conversation *c, const struct tokenizer *t, enum chat_format format)
{
	*c = (struct conversation){.t = t, .format = format};
}

void conversation_free(struct conversation *c)
{
	ids_free(&c->ids);
	free(c->generated);
	*c = (struct conversation){0};
}

static int append(struct ids *to, const int32_t *v, size_t n)
{
	if (n > to->cap - to->n) {
		size_t cap = to->n + n + 64;
		int32_t *p = realloc(to->v, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		to->v = p;
		to->cap = cap;
	}
	if (n)
		memcpy(to->v + to->n, v, n * sizeof(*v));
	to->n += n;
	return 0;
}

static int need_tokenizer(const struct conversation *c, struct err *e)
{
	if (c->t)
		return 0;
	return err_set(e, -EOPNOTSUPP,
		       "prompt: the model has no tokenizer: send token ids as a JSON \"prompt\"");
}

int conversation_turn(const struct conversation *c, const char *text, size_t len,
		      struct ids *prompt, struct err *e)
{
	struct chat_msg msg = {.role = "user", .content = text, .len = len};
	bool first = c->ids.n == 0;
	int rc = need_tokenizer(c, e);

	if (rc)
		return rc;
	if (append(prompt, c->ids.v, c->ids.n))
		return err_set(e, -ENOMEM, "prompt: no memory for %zu ids", c->ids.n);
	if (c->format == CHAT_NONE)
		return tokenizer_encode(c->t, text, len, first ? TOK_BOS : 0, prompt, e);
	if (c->open) {
		rc = chat_close_turn(c->format, c->t, c->stopped, prompt, e);
		if (rc)
			return rc;
	}
	return chat_render(c->format, c->t, &msg, 1, first, true, prompt, e);
}

int conversation_start(const struct conversation *c, const struct chat_msg *msgs, int n,
		       struct ids *prompt, struct err *e)
{
	int rc = need_tokenizer(c, e);

	if (rc)
		return rc;
	if (c->format == CHAT_NONE)
		return err_set(e, -EOPNOTSUPP,
			       "messages: the model has no chat template that is known here: use "
			       "\"prompt\"");
	return chat_render(c->format, c->t, msgs, n, true, true, prompt, e);
}

int conversation_commit(struct conversation *c, struct ids *prompt, const int32_t *answer, size_t n)
{
	size_t asked = prompt->n, kept = c->ids.n;
	uint8_t *generated;

	/* A prompt that does not continue what was said before is all new. */
	if (kept > asked || (kept && memcmp(prompt->v, c->ids.v, kept * sizeof(*prompt->v))))
		kept = 0;
	generated = calloc(asked + n + 1, 1);
	if (!generated || append(prompt, answer, n)) {
		free(generated);
		return -ENOMEM;
	}
	if (kept)
		memcpy(generated, c->generated, kept);
	memset(generated + asked, 1, n);
	free(c->generated);
	c->generated = generated;
	ids_free(&c->ids);
	c->ids = *prompt;
	*prompt = (struct ids){0};
	c->open = true;
	c->stopped = n && c->format != CHAT_NONE && answer[n - 1] == chat_stop_id(c->format, c->t);
	return 0;
}
