// SPDX-License-Identifier: MIT
/*
 * <function=NAME><parameter=KEY>VALUE</parameter>...</function>, as Qwen3-Coder, Qwen3.5 and
 * Nemotron-3 write it. Values are text: what they become is for the tool's schema to say.
 *
 * What is missing at the end of the text is forgiven, but not within a value: half a command must
 * not be run.
 */
#include <errno.h>
#include <string.h>

#include "text/output/output_int.h"

enum { NAME = 10, BETWEEN, KEY, VALUE };

int function_begin(struct output *p)
{
	p->sub = NAME;
	p->mark = p->scan - p->pos;
	p->args.n = 0;
	return buf_add(&p->args, "{", 1);
}

/* The text from the mark up to '>', trimmed. STEP_DONE with p->scan behind it. */
static int read_tag(struct output *p, size_t max, struct span *text)
{
	for (; p->scan < p->in.n; p->scan++) {
		char c = p->in.v[p->scan];

		p->work++;
		if (c == '>')
			break;
		if (c == '<' || c == '\n' || p->scan - p->pos - p->mark > max)
			return bad(p, p->scan, "a name in its tags does not end");
	}
	if (p->scan == p->in.n)
		return p->ended ? bad(p, p->scan, "it does not end") : STEP_MORE;
	text->s = p->in.v + p->pos + p->mark;
	text->n = p->scan - p->pos - p->mark;
	while (text->n && is_space(text->s[text->n - 1]))
		text->n--;
	while (text->n && is_space(*text->s)) {
		text->s++;
		text->n--;
	}
	p->scan++;
	return STEP_DONE;
}

static int finish(struct output *p)
{
	int rc = buf_add(&p->args, "}", 1);

	if (!rc)
		rc = json_unique(&p->args);
	return rc < 0 ? rc : rc ? STEP_CALL : bad(p, p->scan, "a parameter stands twice");
}

static int between(struct output *p)
{
	static const char *const next[] = {"<parameter=", "</function>", "</tool_call>"};
	bool begins = false, has_any = p->args.n > 1;

	p->scan = skip_space(p, p->scan);
	if (p->scan == p->in.n && p->ended)
		return has_any ? finish(p) : bad(p, p->scan, "it does not end");
	for (int i = 0; i < 3; i++) {
		int x = expect(p, p->scan, next[i]);

		begins |= x < 0;
		if (x <= 0)
			continue;
		if (i < 2)
			p->scan += strlen(next[i]);
		if (i)
			return finish(p);
		p->sub = KEY;
		p->mark = p->scan - p->pos;
		return STEP_DONE;
	}
	if (begins && !p->ended)
		return STEP_MORE;
	if (begins && has_any && p->in.n - p->scan > 1 && p->in.v[p->scan + 1] == '/') {
		p->scan = p->in.n;
		return finish(p);
	}
	return bad(p, p->scan, begins ? "it does not end" : "text stands between its parameters");
}

static int read_key(struct output *p)
{
	char name[OUTPUT_MAX_KEY + 1];
	struct span key;
	int rc = read_tag(p, OUTPUT_MAX_KEY, &key);

	if (rc != STEP_DONE)
		return rc;
	rc = p->args.n > 1 ? buf_add(&p->args, ",", 1) : 0;
	if (!rc)
		rc = json_put_string(&p->args, key.s, key.n);
	if (rc < 0)
		return rc;
	if (!rc || !key.n)
		return bad(p, p->scan, "a parameter's name is empty or no text");
	memcpy(name, key.s, key.n);
	name[key.n] = 0;
	p->param = json_object_get(json_object_get(p->schema, "properties"), name);
	p->sub = VALUE;
	p->mark = p->scan - p->pos;
	return buf_add(&p->args, ":", 1) ? -ENOMEM : STEP_DONE;
}

static int read_value(struct output *p)
{
	int i = find_marker(p, &p->value), rc;
	const char *s = p->in.v + p->pos + p->mark;
	size_t n = p->scan - p->pos - p->mark;

	if (i < 0)
		return p->ended ? bad(p, p->scan, "a value does not end") : STEP_MORE;
	if (n && *s == '\n') {
		s++;
		n--;
	}
	if (p->value.v[i].action == ACT_VALUE_END) {
		p->scan += p->value.v[i].len;
		if (n && s[n - 1] == '\n')
			n--;
	}
	rc = convert_value(p->schema, p->param, s, n, &p->args);
	if (rc < 0)
		return rc;
	p->sub = BETWEEN;
	return rc ? STEP_DONE : bad(p, p->scan, "a value is not UTF-8");
}

int function_step(struct output *p)
{
	struct span name;
	int rc = STEP_DONE;

	while (rc == STEP_DONE) {
		switch (p->sub) {
		case NAME:
			rc = read_tag(p, OUTPUT_MAX_NAME, &name);
			if (rc != STEP_DONE)
				break;
			if (!set_name(p, name.s, name.n))
				return bad(p, p->scan, "its name is empty, too long or no text");
			p->schema = function_schema(p->tools, p->name);
			p->sub = BETWEEN;
			break;
		case BETWEEN:
			rc = between(p);
			break;
		case KEY:
			rc = read_key(p);
			break;
		default:
			rc = read_value(p);
		}
	}
	return rc;
}
