// SPDX-License-Identifier: MIT
/*
 * Chat templates in use (chat.h): opening, rendering, encoding. What a template expects of messages
 * is in chat_shape.c. Owns the compiled template.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "text/chat.h"
#include "text/chat_int.h"

/* Bump when renders or shapes change for the same template. */
#define CHAT_VERSION "chat 2"

/* ---- how reasoning begins and ends in a prompt ---------------------------------------------------- */

struct marks {
	const char *open, *close;
};

static const struct marks marks[] = {
	[OUTPUT_REASONING_NONE] = {NULL, NULL},
	[OUTPUT_REASONING_THINK] = {"<think>", "</think>"},
	[OUTPUT_REASONING_GEMMA4] = {"<|channel>thought", "<channel|>"},
	[OUTPUT_REASONING_HARMONY] = {"<|channel|>analysis<|message|>", NULL},
	[OUTPUT_REASONING_MISTRAL] = {"[THINK]", "[/THINK]"},
};

/* The text ends in `mark`, blanks aside. */
static bool ends_in(const struct tmpl_output *o, const char *mark)
{
	size_t n = o->len, len = mark ? strlen(mark) : 0;

	while (n && strchr(" \n\r\t", o->text[n - 1]))
		n--;
	return len && n >= len && !memcmp(o->text + n - len, mark, len);
}

/* What the request's variables say: 1 on, 0 off, -1 nothing. */
static int asked_thinking(const json_t *vars)
{
	static const char *const names[] = {"enable_thinking", "thinking"};
	const json_t *v;

	for (int i = 0; i < 2; i++) {
		v = json_object_get(vars, names[i]);
		if (json_is_boolean(v))
			return json_is_true(v);
	}
	return -1;
}

static void look_at_end(const struct chat *c, const struct chat_request *r, struct chat_prompt *p)
{
	const struct marks *m = &marks[c->format.reasoning];
	int asked = asked_thinking(r->vars);

	p->reasoning_open = ends_in(&p->text, m->open);
	if (p->reasoning_open)
		p->thinking = true;
	else if (c->format.reasoning == OUTPUT_REASONING_NONE || ends_in(&p->text, m->close))
		p->thinking = false;
	else
		p->thinking = asked < 0 ? c->thinks : asked;
}

/* ---- rendering ------------------------------------------------------------------------------------ */

static json_t *variables(const struct chat_request *r, const json_t *messages)
{
	json_t *vars = json_object();
	const json_t *v;
	const char *key;
	bool head = !r->no_generation_prompt && !r->continue_final;

	if (!vars)
		return NULL;
	/* As transformers passes them: what the user adds comes last. */
	if (json_object_set(vars, "messages", (json_t *)messages) ||
	    (r->tools ? json_object_set(vars, "tools", (json_t *)r->tools)
		      : json_object_set_new(vars, "tools", json_null())) ||
	    json_object_set_new(vars, "documents", json_null()) ||
	    json_object_set_new(vars, "add_generation_prompt", json_boolean(head)))
		goto fail;
	json_object_foreach ((json_t *)r->vars, key, v) {
		if (strcmp(key, "messages") && strcmp(key, "add_generation_prompt") &&
		    json_object_set(vars, key, (json_t *)v))
			goto fail;
	}
	return vars;
fail:
	json_decref(vars);
	return NULL;
}

int chat_render_shaped(const struct chat *c, const struct chat_request *r, const json_t *messages,
		       struct chat_prompt *out, struct err *e)
{
	json_t *vars = variables(r, messages);
	bool raised = false;
	int rc;

	memset(out, 0, sizeof(*out));
	if (!vars)
		return err_set(e, -ENOMEM, "chat template: no memory");
	rc = tmpl_render(c->template, vars, c->trusted, r->now, NULL, &out->text, &raised, e);
	json_decref(vars);
	if (rc && !raised)
		return err_prefix(e, rc, "chat template");
	if (rc)
		return rc;
	look_at_end(c, r, out);
	return 0;
}

/* The last message's text in the render, whose tail goes: a turn's end, a generation prompt. */
static int cut_after_final(const struct chat_request *r, const json_t *messages,
			   struct chat_prompt *p, struct err *e)
{
	const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
	const char *content = json_string_value(json_object_get(last, "content"));
	size_t len = content ? strlen(content) : 0, end;
	struct tmpl_output *o = &p->text;
	const char *at = NULL;

	while (len && strchr(" \n\r\t", content[len - 1]))
		len--;
	while (len && strchr(" \n\r\t", *content))
		content++, len--;
	for (size_t i = len && o->len >= len ? o->len - len + 1 : 0; i-- > 0 && !at;) {
		if (!memcmp(o->text + i, content, len))
			at = o->text + i;
	}
	if (!at)
		return err_set(e, -EINVAL,
			       "continue_final_message: the template does not show the last "
			       "message's content: nothing to continue");
	end = (size_t)(at - o->text) + len;
	o->text[end] = '\0';
	o->len = end;
	while (o->n_spans > 1 && o->span[o->n_spans - 2].end >= end)
		o->n_spans--;
	if (o->n_spans)
		o->span[o->n_spans - 1].end = end;
	p->reasoning_open = false;
	return 0;
}

int chat_render(const struct chat *c, const struct chat_request *r, struct chat_prompt *out,
		struct err *e)
{
	json_t *messages;
	int rc;

	memset(out, 0, sizeof(*out));
	if (chat_unusable(c))
		return err_set(e, -EOPNOTSUPP, "%s", chat_unusable(c));
	messages = chat_shape(&c->shape, r->messages);
	if (!messages)
		return err_set(e, -ENOMEM, "chat template: no memory");
	rc = chat_render_shaped(c, r, messages, out, e);
	if (!rc && r->continue_final)
		rc = cut_after_final(r, messages, out, e);
	json_decref(messages);
	if (rc)
		chat_prompt_free(out);
	return rc;
}

void chat_prompt_free(struct chat_prompt *p)
{
	tmpl_output_free(&p->text);
	memset(p, 0, sizeof(*p));
}

int chat_encode(const struct chat *c, const struct tmpl_output *text, size_t from, struct ids *out,
		struct err *e)
{
	struct tmpl_span *span = NULL;
	size_t n = 0;
	int rc;

	if (from && text->n_spans) {
		span = malloc(text->n_spans * sizeof(*span));
		if (!span)
			return err_set(e, -ENOMEM, "prompt: no memory");
		for (size_t i = 0; i < text->n_spans; i++) {
			if (text->span[i].end > from)
				span[n++] = (struct tmpl_span){text->span[i].end - from,
							       text->span[i].user};
		}
	}
	rc = tokenizer_encode_spans(c->t, text->text + from, text->len - from,
				    span ? span : text->span, span ? n : text->n_spans, TOK_SPECIAL,
				    out, e);
	free(span);
	return rc;
}

/* ---- opening -------------------------------------------------------------------------------------- */

static int trust_token(struct chat *c, const char *name, int32_t id)
{
	size_t len;
	const char *text = id < 0 ? NULL : tokenizer_token(c->t, id, &len);
	json_t *v;

	if (!text)
		return 0;
	v = json_stringn(text, len);
	/* Bytes that are no UTF-8 are no token that a template could write. */
	return v ? json_object_set_new(c->trusted, name, v) : 0;
}

/* What follows an answer in a render, if it is one special token. */
static int32_t turn_end(const struct chat *c, struct err *e)
{
	const struct chat_request r = {.no_generation_prompt = true};
	json_t *messages = json_pack("[{s:s,s:s},{s:s,s:s}]", "role", "user", "content", "Hello",
				     "role", "assistant", "content", "Zq answer qZ");
	struct chat_prompt p = {0};
	struct ids ids = {0};
	int32_t id = -1;
	const char *at;

	if (messages && !chat_render_shaped(c, &r, messages, &p, e)) {
		at = strstr(p.text.text, "Zq answer qZ");
		at = at ? at + strlen("Zq answer qZ") : "";
		at += strspn(at, " \n\r\t");
		if (*at && !tokenizer_encode(c->t, at, strlen(at), TOK_SPECIAL, &ids, e) && ids.n &&
		    tokenizer_is_special(c->t, ids.v[0]))
			id = ids.v[0];
	}
	json_decref(messages);
	chat_prompt_free(&p);
	ids_free(&ids);
	return id;
}

/* Whether it thinks where the request does not say: it renders then as it does with thinking on. */
static bool thinks_unasked(const struct chat *c, struct err *e)
{
	json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", "Hello");
	json_t *on = json_pack("{s:b,s:b}", "enable_thinking", 1, "thinking", 1);
	struct chat_request plain = {0}, asked = {.vars = on};
	struct chat_prompt a = {0}, b = {0};
	bool same = true;

	if (messages && on && !chat_render_shaped(c, &plain, messages, &a, e) &&
	    !chat_render_shaped(c, &asked, messages, &b, e))
		same = a.text.len == b.text.len && !memcmp(a.text.text, b.text.text, a.text.len);
	json_decref(messages);
	json_decref(on);
	chat_prompt_free(&a);
	chat_prompt_free(&b);
	return same;
}

static void add_stop(struct chat *c, int32_t id)
{
	if (id >= 0 && c->n_stops < CHAT_STOPS)
		c->stops[c->n_stops++] = id;
}

static int open_template(struct chat *c, const char *source, const struct chat_opts *o,
			 struct err *e)
{
	int32_t eos = -1;
	int rc;

	c->trusted = json_object();
	if (!c->trusted)
		return err_set(e, -ENOMEM, "chat template: no memory");
	if (tokenizer_eos(c->t, &eos, 1) < 1)
		eos = -1;
	if (trust_token(c, "bos_token", tokenizer_bos(c->t)) || trust_token(c, "eos_token", eos))
		return err_set(e, -ENOMEM, "chat template: no memory");
	rc = tmpl_compile(&c->template, source, strlen(source), e);
	if (rc)
		return err_prefix(e, rc, "chat template");
	c->format = output_detect(source);
	if (o && o->force_reasoning)
		c->format.reasoning = o->format.reasoning;
	if (o && o->force_tools)
		c->format.tools = o->format.tools;
	chat_probe(c, source);
	c->thinks = c->format.reasoning != OUTPUT_REASONING_NONE && thinks_unasked(c, e);
	/* Harmony closes every channel like a turn; what ends its answers is in the vocabulary. */
	if (c->format.tools != OUTPUT_TOOLS_HARMONY &&
	    c->format.reasoning != OUTPUT_REASONING_HARMONY)
		add_stop(c, turn_end(c, e));
	if (c->format.tools == OUTPUT_TOOLS_GEMMA4)
		add_stop(c, tokenizer_find(c->t, "<|tool_response>"));
	return 0;
}

static uint64_t hash_of(const struct chat *c, const char *source)
{
	char *trusted = json_dumps(c->trusted, JSON_SORT_KEYS);
	uint64_t h = fnv1a(FNV_START, CHAT_VERSION, strlen(CHAT_VERSION));

	h = fnv1a(h, source, strlen(source));
	if (trusted)
		h = fnv1a(h, trusted, strlen(trusted));
	free(trusted);
	h = fnv1a(h, &c->format, sizeof(c->format));
	return h ? h : 1;
}

int chat_open(struct chat **out, const struct checkpoint *cp, const struct tokenizer *t,
	      const struct chat_opts *o, struct err *e)
{
	const char *own = cp ? checkpoint_chat_template(cp) : NULL;
	const char *source = o && o->template ? o->template : own;
	struct chat *c = calloc(1, sizeof(*c));
	struct err why;
	int rc;

	if (!c)
		return err_set(e, -ENOMEM, "chat template: no memory");
	c->t = t;
	if (!source) {
		snprintf(c->unusable, sizeof(c->unusable),
			 "messages: the model has no chat template: use \"prompt\"");
		*out = c;
		return 0;
	}
	rc = open_template(c, source, o, &why);
	if (rc && (rc == -ENOMEM || (o && o->template))) {
		chat_close(c);
		return err_set(e, rc, "%s", why.msg);
	}
	if (rc)
		snprintf(c->unusable, sizeof(c->unusable),
			 "messages: the model's %s: use \"prompt\"", why.msg);
	else
		c->hash = hash_of(c, source);
	*out = c;
	return 0;
}

void chat_close(struct chat *c)
{
	if (!c)
		return;
	tmpl_free(c->template);
	json_decref(c->trusted);
	free(c);
}

const char *chat_unusable(const struct chat *c)
{
	if (!c)
		return "messages: the model has no tokenizer: send token ids as \"prompt\"";
	return c->unusable[0] ? c->unusable : NULL;
}

uint64_t chat_hash(const struct chat *c)
{
	return chat_unusable(c) ? 0 : c->hash;
}

struct output_format chat_output(const struct chat *c)
{
	return chat_unusable(c) ? (struct output_format){0} : c->format;
}

int chat_stops(const struct chat *c, int32_t *ids, int max)
{
	int n = chat_unusable(c) ? 0 : c->n_stops < max ? c->n_stops : max;

	for (int i = 0; i < n; i++)
		ids[i] = c->stops[i];
	return n;
}

bool chat_uses_date(const struct chat *c)
{
	return !chat_unusable(c) && tmpl_uses_date(c->template);
}

bool chat_takes_tools(const struct chat *c)
{
	return !chat_unusable(c) && tmpl_mentions(c->template, "tools");
}

bool chat_takes_thinking(const struct chat *c)
{
	return !chat_unusable(c) && (tmpl_mentions(c->template, "enable_thinking") ||
				     tmpl_mentions(c->template, "thinking") ||
				     tmpl_mentions(c->template, "reasoning_effort"));
}
