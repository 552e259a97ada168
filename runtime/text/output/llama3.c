// SPDX-License-Identifier: MIT
/*
 * Llama 3.x: {"name": ..., "parameters": {...}}, after <|python_tag|> or as what the answer begins
 * with. Several stand one after the other, with or without a semicolon.
 *
 * Without the tag nothing but its shape tells a call from JSON that was asked for; what has not
 * that shape is content, and no malformed call.
 */
#include <errno.h>
#include <string.h>

#include "text/output/output_int.h"

enum { PROBE, OBJECT, BARE_OBJECT };

static int tag_step(struct output *p)
{
	int rc;

	if (p->sub == PROBE) {
		p->scan = skip_space(p, p->scan);
		if (p->scan == p->in.n)
			return p->ended ? bad(p, p->scan, "nothing follows") : STEP_MORE;
		if (p->in.v[p->scan] != '{')
			return bad(p, p->scan, "no JSON object follows");
		json_scan_begin(&p->json, &p->tmp);
		p->sub = OBJECT;
	}
	rc = scan_json(p);
	return rc == STEP_DONE ? call_from_json(p) : rc;
}

/* Does the object's first key belong to a call? STEP_DONE: yes. */
static int probe(struct output *p)
{
	static const char *const keys[] = {"\"name\"",	   "\"parameters\"", "\"arguments\"",
					   "\"function\"", "\"type\"",	     "\"id\""};
	size_t at = skip_space(p, p->pos + p->mark);
	bool begins = at == p->in.n;

	p->mark = at - p->pos;
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		int x = expect(p, at, keys[i]);

		if (x > 0)
			return STEP_DONE;
		begins |= x < 0;
	}
	if (begins && !p->ended)
		return STEP_MORE;
	p->scan = at;
	return STEP_CONTENT;
}

static bool is_call(const struct output *p)
{
	struct span o = {p->tmp.v, p->tmp.n}, v;

	if (json_member(o, "function", &v) && *v.s == '{')
		o = v;
	return (json_member(o, "name", &v) || json_member(o, "function", &v)) &&
	       (json_member(o, "parameters", &v) || json_member(o, "arguments", &v));
}

static int bare_step(struct output *p)
{
	int rc;

	if (p->sub == PROBE) {
		if (p->scan == p->pos) {
			p->scan++;
			p->mark = 1;
		}
		rc = probe(p);
		if (rc != STEP_DONE)
			return rc;
		p->scan = p->pos;
		json_scan_begin(&p->json, &p->tmp);
		p->sub = BARE_OBJECT;
	}
	rc = scan_json(p);
	if (rc == STEP_DONE)
		return is_call(p) ? call_from_json(p) : STEP_CONTENT;
	if (rc != STEP_BAD)
		return rc;
	/* Broken JSON was to be a call if it got as far as its arguments. */
	return memmem(p->tmp.v, p->tmp.n, "\"parameters\":", 13) ||
			       memmem(p->tmp.v, p->tmp.n, "\"arguments\":", 12)
		       ? STEP_BAD
		       : STEP_CONTENT;
}

static int after(struct output *p)
{
	size_t at = p->scan;

	if (p->in.v[at] == ';')
		at = skip_space(p, at + 1);
	if (at == p->in.n && !p->ended)
		return STEP_MORE;
	if (at == p->in.n || p->in.v[at] != '{')
		return STEP_DONE;
	p->pos = p->scan = at;
	begin_call(p, &family_llama3_bare, false);
	return STEP_AGAIN;
}

const struct call_family family_llama3 = {tag_step, after};
const struct call_family family_llama3_bare = {bare_step, after};
