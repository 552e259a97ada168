// SPDX-License-Identifier: MIT
/* Answers as messages (answer.h). Owns the parser and the texts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llmdevd/answer.h"

int answer_open(struct answer *a, const struct output_opts *o, bool keep, struct err *e)
{
	memset(a, 0, sizeof(*a));
	a->keep = keep;
	return o ? output_open(&a->parser, o, e) : 0;
}

void answer_close(struct answer *a)
{
	output_close(a->parser);
	free(a->content.v);
	free(a->reasoning.v);
	json_decref(a->calls);
	memset(a, 0, sizeof(*a));
}

static int add(struct answer_text *t, const char *s, size_t n)
{
	if (n > t->cap - t->n) {
		size_t cap = (t->n + n) * 2 + 64;
		char *p = realloc(t->v, cap);

		if (!p)
			return -ENOMEM;
		t->v = p;
		t->cap = cap;
	}
	if (n)
		memcpy(t->v + t->n, s, n);
	t->n += n;
	return 0;
}

json_t *answer_call(const struct output_piece *p, bool with_index)
{
	json_t *call = json_object(), *function = json_object();

	/* Order of members as OpenAI has it. */
	if (call && function &&
	    !(with_index && json_object_set_new(call, "index", json_integer(p->index))) &&
	    !json_object_set_new(call, "id", json_string(p->id)) &&
	    !json_object_set_new(call, "type", json_string("function")) &&
	    !json_object_set(call, "function", function) &&
	    !json_object_set_new(function, "name", json_string(p->name)) &&
	    !json_object_set_new(function, "arguments", json_stringn(p->text, p->len))) {
		json_decref(function);
		return call;
	}
	json_decref(function);
	json_decref(call);
	return NULL;
}

static int remember(struct answer *a, const struct output_piece *p)
{
	a->n_calls += p->kind == OUTPUT_CALL;
	if (!a->keep)
		return 0;
	switch (p->kind) {
	case OUTPUT_CONTENT:
		return add(&a->content, p->text, p->len);
	case OUTPUT_REASONING:
		return add(&a->reasoning, p->text, p->len);
	case OUTPUT_CALL:
		if (!a->calls)
			a->calls = json_array();
		return a->calls && !json_array_append_new(a->calls, answer_call(p, false))
			       ? 0
			       : -ENOMEM;
	case OUTPUT_MALFORMED:
		break;
	}
	return 0;
}

static int on_piece(void *ctx, const struct output_piece *p)
{
	struct answer *a = ctx;
	int rc = remember(a, p);

	return rc || !a->sink ? rc : a->sink(a->ctx, p);
}

int answer_push(struct answer *a, const char *text, size_t len, output_sink sink, void *ctx)
{
	struct output_piece all = {.kind = OUTPUT_CONTENT, .text = text, .len = len};

	a->sink = sink;
	a->ctx = ctx;
	if (!len)
		return 0;
	return a->parser ? output_push(a->parser, text, len, on_piece, a) : on_piece(a, &all);
}

int answer_end(struct answer *a, output_sink sink, void *ctx)
{
	a->sink = sink;
	a->ctx = ctx;
	return a->parser ? output_end(a->parser, on_piece, a) : 0;
}

bool answer_in_reasoning(const struct answer *a)
{
	return a->parser && output_in_reasoning(a->parser);
}

bool answer_past_reasoning(const struct answer *a)
{
	return !a->parser || output_past_reasoning(a->parser);
}

bool answer_in_content(const struct answer *a)
{
	return !a->parser || output_in_content(a->parser);
}

json_t *answer_message(const struct answer *a)
{
	json_t *m = json_object();
	int rc = !m;

	/* The engine's text is UTF-8; json_stringn() of anything else fails. */
	rc = rc || json_object_set_new(m, "role", json_string("assistant"));
	rc = rc ||
	     json_object_set_new(m, "content",
				 json_stringn(a->content.n ? a->content.v : "", a->content.n));
	if (!rc && a->reasoning.n)
		rc = json_object_set_new(m, "reasoning_content",
					 json_stringn(a->reasoning.v, a->reasoning.n));
	if (!rc && a->calls)
		rc = json_object_set(m, "tool_calls", a->calls);
	if (!rc)
		return m;
	json_decref(m);
	return NULL;
}
