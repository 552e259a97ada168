// SPDX-License-Identifier: MIT
/*
 * Gemma 4: <|tool_call>call:NAME{key:value,...}<tool_call|>, where strings stand between <|"|> and
 * everything else is bare. The end is found while the text arrives, the arguments are read once.
 */
#include <errno.h>
#include <string.h>

#include "text/output/output_int.h"

#define QUOTE  "<|\"|>"
#define QUOTES 5 /* bytes of it */
#define CLOSE  "<tool_call|>"

enum { HEAD, NAME, ARGS, TAIL };

struct reader {
	const char *s, *end;
	struct buf *out;
};

static bool take(struct reader *r, const char *text)
{
	size_t n = strlen(text);

	if ((size_t)(r->end - r->s) < n || memcmp(r->s, text, n))
		return false;
	r->s += n;
	return true;
}

static void space(struct reader *r)
{
	while (r->s < r->end && is_space(*r->s))
		r->s++;
}

static int put(struct reader *r, const char *s, size_t n)
{
	int rc = buf_add(r->out, s, n);

	return rc ? rc : 1;
}

/* A string behind its opening quote. */
static int read_string(struct reader *r)
{
	const char *q = memmem(r->s, (size_t)(r->end - r->s), QUOTE, QUOTES);
	int rc;

	if (!q)
		return 0;
	rc = json_put_string(r->out, r->s, (size_t)(q - r->s));
	r->s = q + QUOTES;
	return rc;
}

/* Text up to one of `stop`, trimmed. */
static struct span read_bare(struct reader *r, const char *stop)
{
	const char *s = r->s, *e;

	while (r->s < r->end && *r->s && !strchr(stop, *r->s))
		r->s++;
	for (e = r->s; e > s && is_space(e[-1]);)
		e--;
	return (struct span){s, (size_t)(e - s)};
}

static bool is_word(struct span v, const char *word)
{
	return v.n == strlen(word) && !memcmp(v.s, word, v.n);
}

static int read_value(struct reader *r, int depth);

static int read_items(struct reader *r, char close, int depth)
{
	int rc = put(r, close == '}' ? "{" : "[", 1);
	struct span key;

	space(r);
	if (r->s < r->end && *r->s == close) {
		r->s++;
		return rc == 1 ? put(r, &close, 1) : rc;
	}
	while (rc == 1) {
		space(r);
		if (close == '}') {
			if (take(r, QUOTE)) {
				rc = read_string(r);
				space(r);
			} else {
				key = read_bare(r, ":,{}[]<");
				rc = key.n ? json_put_string(r->out, key.s, key.n) : 0;
			}
			if (rc == 1)
				rc = take(r, ":") ? put(r, ":", 1) : 0;
		}
		if (rc == 1)
			rc = read_value(r, depth + 1);
		space(r);
		if (rc != 1 || r->s == r->end)
			return rc < 0 ? rc : 0;
		if (*r->s == close) {
			r->s++;
			return put(r, &close, 1);
		}
		rc = take(r, ",") ? put(r, ",", 1) : 0;
	}
	return rc;
}

static int read_value(struct reader *r, int depth)
{
	struct span v;

	space(r);
	if (r->s == r->end || depth > OUTPUT_MAX_DEPTH)
		return 0;
	if (take(r, QUOTE))
		return read_string(r);
	if (take(r, "{"))
		return read_items(r, '}', depth);
	if (take(r, "["))
		return read_items(r, ']', depth);
	v = read_bare(r, ",{}[]<");
	if (!v.n)
		return 0;
	if (is_word(v, "true") || is_word(v, "false") || is_word(v, "null") ||
	    json_number_ok(v.s, v.n))
		return put(r, v.s, v.n);
	if (v.n >= 2 && *v.s == '"' && v.s[v.n - 1] == '"' && !memchr(v.s + 1, '"', v.n - 2))
		v = (struct span){v.s + 1, v.n - 2};
	return json_put_string(r->out, v.s, v.n);
}

static int read_args(struct output *p)
{
	struct reader r = {p->in.v + p->pos + p->mark + 1, p->in.v + p->scan, &p->args};
	int rc;

	p->args.n = 0;
	p->work += (size_t)(r.end - r.s);
	rc = read_items(&r, '}', 1);
	if (rc == 1 && r.s != r.end)
		rc = 0;
	if (!rc)
		return bad(p, p->scan, "its arguments are not written as Gemma writes them");
	if (rc == 1)
		rc = json_unique(&p->args);
	return rc < 0 ? rc
	       : rc   ? STEP_DONE
		      : bad(p, p->scan, "a key stands twice in its arguments");
}

/* To the brace that closes the one at the mark. */
static int find_end(struct output *p)
{
	while (p->scan < p->in.n) {
		char c = p->in.v[p->scan];
		int q;

		p->work++;
		if (c == '<') {
			q = expect(p, p->scan, QUOTE);
			if (q < 0 && !p->ended)
				return STEP_MORE;
			if (q > 0) {
				p->quoted = !p->quoted;
				p->scan += QUOTES;
				continue;
			}
			q = p->quoted ? 0 : expect(p, p->scan, CLOSE);
			if (q < 0 && !p->ended)
				return STEP_MORE;
			if (q > 0)
				return bad(p, p->scan, "its brackets do not close");
		}
		p->scan++;
		if (p->quoted)
			continue;
		if (c == '{' || c == '[')
			p->depth++;
		else if ((c == '}' || c == ']') && !--p->depth)
			return STEP_DONE;
	}
	return p->ended ? bad(p, p->scan, "it does not end") : STEP_MORE;
}

static int tail(struct output *p)
{
	static const char *const next[] = {CLOSE, "<|tool_call>", "<|tool_response>", "<turn|>"};
	bool begins = false;

	p->scan = skip_space(p, p->scan);
	if (p->scan == p->in.n)
		return p->ended ? STEP_CALL : STEP_MORE;
	for (int i = 0; i < 4; i++) {
		int x = expect(p, p->scan, next[i]);

		if (x > 0) {
			p->scan += i ? 0 : strlen(CLOSE);
			return STEP_CALL;
		}
		begins |= x < 0;
	}
	if (!begins)
		return bad(p, p->scan, "text follows its arguments");
	if (!p->ended)
		return STEP_MORE;
	p->scan = p->in.n;
	return STEP_CALL;
}

static int gemma_step(struct output *p)
{
	struct span name;
	int rc;

	if (p->sub == HEAD) {
		p->scan = skip_space(p, p->scan);
		rc = expect(p, p->scan, "call:");
		if (rc < 0 && !p->ended)
			return STEP_MORE;
		if (rc <= 0)
			return bad(p, p->scan, "call: does not follow");
		p->scan += strlen("call:");
		p->mark = p->scan - p->pos;
		p->sub = NAME;
	}
	if (p->sub == NAME) {
		for (; p->scan < p->in.n && p->in.v[p->scan] != '{'; p->scan++)
			if (strchr("\n<>}", p->in.v[p->scan]) ||
			    p->scan - p->pos - p->mark > OUTPUT_MAX_NAME)
				return bad(p, p->scan, "its name does not end");
		if (p->scan == p->in.n)
			return p->ended ? bad(p, p->scan, "it does not end") : STEP_MORE;
		name = (struct span){p->in.v + p->pos + p->mark, p->scan - p->pos - p->mark};
		while (name.n && is_space(name.s[name.n - 1]))
			name.n--;
		if (!set_name(p, name.s, name.n))
			return bad(p, p->scan, "its name is empty, too long or no text");
		p->mark = p->scan - p->pos;
		p->depth = 0;
		p->quoted = false;
		p->sub = ARGS;
	}
	if (p->sub == ARGS) {
		rc = find_end(p);
		if (rc == STEP_DONE)
			rc = read_args(p);
		if (rc != STEP_DONE)
			return rc;
		p->sub = TAIL;
	}
	return tail(p);
}

const struct call_family family_gemma4 = {gemma_step, NULL};
