// SPDX-License-Identifier: MIT
/* Conversations as messages and ids. Owns both; see conversation.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llmdevd/conversation.h"
#include "text/utf8.h"

void conversation_init(struct conversation *c, const struct tokenizer *t, const struct chat *chat)
{
	*c = (struct conversation){.t = t, .chat = chat_unusable(chat) ? NULL : chat};
}

void conversation_free(struct conversation *c)
{
	json_decref(c->messages);
	json_decref(c->tools);
	json_decref(c->vars);
	ids_free(&c->ids);
	free(c->generated);
	free(c->text);
	*c = (struct conversation){0};
}

void conversation_prompt_free(struct conversation_prompt *p)
{
	ids_free(&p->ids);
	chat_prompt_free(&p->chat);
	json_decref(p->messages);
	json_decref(p->tools);
	json_decref(p->vars);
	*p = (struct conversation_prompt){0};
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

/* ---- history that is kept ------------------------------------------------------------------------- */

/* Ids that both begin with. */
static size_t common(const struct ids *a, const struct ids *b)
{
	size_t n = a->n < b->n ? a->n : b->n, i = 0;

	while (i < n && a->v[i] == b->v[i])
		i++;
	return i;
}

/*
 * How many bytes of `text` the held ids stand for: what was rendered, then the answer's ids spelt
 * one by one. 0: it does not begin like that.
 */
static size_t text_of_held(const struct conversation *c, const struct tmpl_output *text)
{
	char piece[DETOK_MAX];
	size_t at = c->text_len, n;
	struct detok d;

	if (!c->ids.n || !c->text || text->len < at || memcmp(text->text, c->text, at))
		return 0;
	detok_init(&d, c->t, false);
	d.started = true;
	for (size_t i = c->ids.n - c->n_answer; i <= c->ids.n; i++) {
		n = i < c->ids.n ? detok_push(&d, c->ids.v[i], piece, sizeof(piece))
				 : detok_flush(&d, piece, sizeof(piece));
		if (text->len - at < n || memcmp(text->text + at, piece, n))
			return 0;
		at += n;
	}
	return at;
}

static int encode(const struct conversation *c, struct conversation_prompt *p, bool reuse,
		  struct err *e)
{
	size_t from = reuse ? text_of_held(c, &p->chat.text) : 0;

	if (from && append(&p->ids, c->ids.v, c->ids.n))
		return err_set(e, -ENOMEM, "prompt: no memory for %zu ids", c->ids.n);
	return chat_encode(c->chat, &p->chat.text, from, &p->ids, e);
}

/* ---- prompts -------------------------------------------------------------------------------------- */

static int need_tokenizer(const struct conversation *c, struct err *e)
{
	if (c->t)
		return 0;
	return err_set(e, -EOPNOTSUPP,
		       "prompt: the model has no tokenizer: send token ids as a JSON \"prompt\"");
}

static int raw_turn(const struct conversation *c, const char *text, size_t len,
		    struct conversation_prompt *p, struct err *e)
{
	if (append(&p->ids, c->ids.v, c->ids.n))
		return err_set(e, -ENOMEM, "prompt: no memory for %zu ids", c->ids.n);
	return tokenizer_encode(c->t, text, len, c->ids.n ? 0 : TOK_BOS, &p->ids, e);
}

/* Any bytes are a turn: what is no UTF-8 is U+FFFD, as the tokenizer takes it. */
static json_t *as_text(const char *s, size_t n)
{
	json_t *v = json_stringn(s, n);
	size_t at = 0, len = 0, ok;
	char *fixed;

	if (v || n > SIZE_MAX / 3 - 1)
		return v;
	fixed = malloc(n * 3 + 1);
	while (fixed && at < n) {
		ok = utf8_valid_prefix(s + at, n - at);
		memcpy(fixed + len, s + at, ok);
		len += ok;
		at += ok;
		if (at < n) {
			memcpy(fixed + len, "\xef\xbf\xbd", 3);
			len += 3;
			at++;
		}
	}
	v = fixed ? json_stringn(fixed, len) : NULL;
	free(fixed);
	return v;
}

static int chat_turn(const struct conversation *c, const char *text, size_t len, int64_t now,
		     struct conversation_prompt *p, struct err *e)
{
	struct chat_request r = {.tools = c->tools, .vars = c->vars, .now = now};
	json_t *content = as_text(text, len), *user;
	int rc;

	if (!content)
		return err_set(e, -ENOMEM, "prompt: no memory");
	user = json_pack("{s:s,s:o}", "role", "user", "content", content);
	p->messages = c->messages ? json_copy(c->messages) : json_array();
	p->tools = json_incref(c->tools);
	p->vars = json_incref(c->vars);
	if (!p->messages || json_array_append_new(p->messages, user))
		return err_set(e, -ENOMEM, "prompt: no memory");
	r.messages = p->messages;
	rc = chat_render(c->chat, &r, &p->chat, e);
	return rc ? rc : encode(c, p, true, e);
}

int conversation_turn(const struct conversation *c, const char *text, size_t len, int64_t now,
		      struct conversation_prompt *p, struct err *e)
{
	int rc = need_tokenizer(c, e);

	if (!rc)
		rc = c->chat ? chat_turn(c, text, len, now, p, e) : raw_turn(c, text, len, p, e);
	if (rc)
		conversation_prompt_free(p);
	else
		p->n_history = common(&c->ids, &p->ids);
	return rc;
}

int conversation_start(const struct conversation *c, const struct chat_request *r,
		       struct conversation_prompt *p, struct err *e)
{
	int rc = need_tokenizer(c, e);

	if (!rc && !c->chat)
		rc = err_set(e, -EOPNOTSUPP,
			     "messages: the model has no chat template that can be used: use "
			     "\"prompt\"");
	if (!rc)
		rc = chat_render(c->chat, r, &p->chat, e);
	if (!rc)
		rc = encode(c, p, false, e);
	if (rc) {
		conversation_prompt_free(p);
		return rc;
	}
	p->messages = json_incref((json_t *)r->messages);
	p->tools = json_incref((json_t *)r->tools);
	p->vars = json_incref((json_t *)r->vars);
	p->continues = r->continue_final;
	return 0;
}

/* ---- answers -------------------------------------------------------------------------------------- */

/* The prompt's messages and the answer's; a message that was to be continued grows. */
static json_t *with_answer(const struct conversation_prompt *p, json_t *message)
{
	json_t *list = json_copy(p->messages);
	size_t last = json_array_size(list) - 1;
	json_t *said = json_object_get(json_array_get(list, last), "content");
	json_t *more = json_object_get(message, "content");
	int rc = !list;

	if (!rc && p->continues && json_is_string(said)) {
		json_t *both =
			json_sprintf("%s%s", json_string_value(said), json_string_value(more));

		rc = !both || json_object_set_new(message, "content", both) ||
		     json_array_set(list, last, message);
	} else if (!rc) {
		rc = json_array_append(list, message);
	}
	if (!rc)
		return list;
	json_decref(list);
	return NULL;
}

int conversation_commit(struct conversation *c, struct conversation_prompt *p,
			const int32_t *answer, size_t n, json_t *message)
{
	size_t asked = p->ids.n, kept = p->n_history;
	uint8_t *generated = calloc(asked + n + 1, 1);
	json_t *messages = NULL;

	if (message)
		messages = with_answer(p, message);
	json_decref(message);
	if (!generated || (message && !messages) || append(&p->ids, answer, n)) {
		free(generated);
		json_decref(messages);
		return -ENOMEM;
	}
	if (kept)
		memcpy(generated, c->generated, kept);
	memset(generated + asked, 1, n);
	free(c->generated);
	c->generated = generated;
	ids_free(&c->ids);
	c->ids = p->ids;
	p->ids = (struct ids){0};
	c->n_answer = n;
	free(c->text);
	c->text = p->chat.text.text;
	c->text_len = p->chat.text.len;
	p->chat.text.text = NULL;
	json_decref(c->messages);
	json_decref(c->tools);
	json_decref(c->vars);
	c->messages = messages;
	c->tools = json_incref(p->tools);
	c->vars = json_incref(p->vars);
	conversation_prompt_free(p);
	return 0;
}
