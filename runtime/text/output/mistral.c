// SPDX-License-Identifier: MIT
/*
 * Mistral, in the order of its tokenizers: [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...] and
 * [TOOL_CALLS]NAME[ARGS]{...}, the latter also with [CALL_ID]... or without [ARGS].
 */
#include <errno.h>
#include <string.h>

#include "text/output/output_int.h"

enum { HEAD, ELEMENT, OBJECT, NAME, CALL_ID, BEFORE_ARGS, ARGS };

#define MAX_CALL_ID 64

static int element(struct output *p)
{
	p->scan = skip_space(p, p->scan);
	if (p->scan == p->in.n)
		return p->ended ? bad(p, p->scan, "its list does not end") : STEP_MORE;
	if (p->in.v[p->scan] != '{')
		return bad(p, p->scan, "no JSON object follows");
	json_scan_begin(&p->json, &p->tmp);
	p->sub = OBJECT;
	return STEP_DONE;
}

static int head(struct output *p)
{
	p->scan = skip_space(p, p->scan);
	if (p->scan == p->in.n)
		return p->ended ? bad(p, p->scan, "nothing follows") : STEP_MORE;
	p->sub = NAME;
	p->mark = p->scan - p->pos;
	if (p->in.v[p->scan] == '{')
		return element(p);
	if (p->in.v[p->scan] == '[') {
		p->array = true;
		p->scan++;
		p->sub = ELEMENT;
	}
	return STEP_DONE;
}

/* The marker at p->scan, or the brace that stands for it: what is read next. */
static int next_part(struct output *p)
{
	int args = expect(p, p->scan, "[ARGS]"), id = expect(p, p->scan, "[CALL_ID]");

	if (p->in.v[p->scan] == '{') {
		p->sub = BEFORE_ARGS;
		return STEP_DONE;
	}
	if (args > 0 || (id > 0 && p->sub == NAME)) {
		p->scan += strlen(args > 0 ? "[ARGS]" : "[CALL_ID]");
		p->sub = args > 0 ? BEFORE_ARGS : CALL_ID;
		p->mark = p->scan - p->pos;
		return STEP_DONE;
	}
	if ((args < 0 || (id < 0 && p->sub == NAME)) && !p->ended)
		return STEP_MORE;
	return bad(p, p->scan, "[ARGS] does not follow its name");
}

static int name(struct output *p)
{
	size_t max = p->sub == NAME ? OUTPUT_MAX_NAME : MAX_CALL_ID, n;
	const char *s;

	for (; p->scan < p->in.n && !strchr("[{", p->in.v[p->scan]); p->scan++)
		if (p->in.v[p->scan] == '\n' || p->scan - p->pos - p->mark > max)
			return bad(p, p->scan, "its name does not end");
	if (p->scan == p->in.n)
		return p->ended ? bad(p, p->scan, "it does not end") : STEP_MORE;
	if (p->sub == CALL_ID)
		return next_part(p);
	s = p->in.v + p->pos + p->mark;
	n = p->scan - p->pos - p->mark;
	while (n && is_space(s[n - 1]))
		n--;
	if (!set_name(p, s, n))
		return bad(p, p->scan, "its name is empty, too long or no text");
	return next_part(p);
}

static int before_args(struct output *p)
{
	p->scan = skip_space(p, p->scan);
	if (p->scan == p->in.n)
		return p->ended ? bad(p, p->scan, "it does not end") : STEP_MORE;
	if (p->in.v[p->scan] != '{')
		return bad(p, p->scan, "no JSON object follows its name");
	json_scan_begin(&p->json, &p->tmp);
	p->sub = ARGS;
	return STEP_DONE;
}

static int mistral_step(struct output *p)
{
	int rc = STEP_DONE;

	while (rc == STEP_DONE) {
		switch (p->sub) {
		case HEAD:
			rc = head(p);
			break;
		case ELEMENT:
			rc = element(p);
			break;
		case NAME:
		case CALL_ID:
			rc = name(p);
			break;
		case BEFORE_ARGS:
			rc = before_args(p);
			break;
		default:
			rc = scan_json(p);
			if (rc != STEP_DONE)
				break;
			return p->sub == OBJECT
				       ? call_from_json(p)
				       : args_from_json(p, (struct span){p->tmp.v, p->tmp.n});
		}
	}
	return rc;
}

static int after(struct output *p)
{
	char c = p->in.v[p->scan];

	if (!p->array || (c != ',' && c != ']'))
		return STEP_DONE;
	p->scan++;
	if (c == ']') {
		p->pos = p->scan;
		return STEP_DONE;
	}
	p->sub = ELEMENT;
	return STEP_AGAIN;
}

const struct call_family family_mistral = {mistral_step, after};
