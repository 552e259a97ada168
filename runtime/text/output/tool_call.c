// SPDX-License-Identifier: MIT
/*
 * <tool_call>{"name": ..., "arguments": {...}}</tool_call>, as Hermes and Qwen3 write it, and
 * the same with <function=...> inside (qwen_xml.c): models of one kind now and then write the
 * other.
 */
#include <string.h>

#include "text/output/output_int.h"

enum { BODY, OBJECT, CLOSE };

/* What may stand behind the object. */
static int close_step(struct output *p)
{
	static const char *const end[] = {"</tool_call>", "<tool_call>", "<|im_end|>"};
	bool begins = false;

	p->scan = skip_space(p, p->scan);
	if (p->scan == p->in.n)
		return p->ended ? STEP_CALL : STEP_MORE;
	for (int i = 0; i < 3; i++) {
		int x = expect(p, p->scan, end[i]);

		if (x > 0) {
			p->scan += i ? 0 : strlen(end[0]);
			return STEP_CALL;
		}
		begins |= x < 0;
	}
	if (begins && !p->ended)
		return STEP_MORE;
	if (!begins)
		return bad(p, p->scan, "text follows its JSON object");
	p->scan = p->in.n;
	return STEP_CALL;
}

static int tool_call_step(struct output *p)
{
	int rc;

	if (p->sub == BODY) {
		p->scan = skip_space(p, p->scan);
		if (p->scan == p->in.n)
			return p->ended ? bad(p, p->scan, "nothing follows") : STEP_MORE;
		if (p->in.v[p->scan] == '{') {
			json_scan_begin(&p->json, &p->tmp);
			p->sub = OBJECT;
		} else {
			rc = expect(p, p->scan, "<function=");
			if (rc < 0 && !p->ended)
				return STEP_MORE;
			if (rc <= 0)
				return bad(p, p->scan,
					   "neither a JSON object nor <function= follows");
			p->scan += strlen("<function=");
			rc = function_begin(p);
			if (rc)
				return rc;
		}
	}
	if (p->sub == OBJECT) {
		rc = scan_json(p);
		if (rc != STEP_DONE)
			return rc;
		p->sub = CLOSE;
	}
	if (p->sub != CLOSE)
		return function_step(p);
	rc = close_step(p);
	return rc == STEP_CALL ? call_from_json(p) : rc;
}

/* <function=...> is a call as soon as it has closed: its wrapper may close later or never. */
static int tool_call_after(struct output *p)
{
	for (;;) {
		int x = expect(p, p->scan, "</tool_call>");

		if (x < 0 && !p->ended)
			return STEP_MORE;
		if (!x)
			return STEP_DONE;
		p->scan = x > 0 ? p->scan + strlen("</tool_call>") : p->in.n;
		p->pos = p->scan = skip_space(p, p->scan);
		if (p->scan == p->in.n)
			return STEP_MORE;
	}
}

static int bare_step(struct output *p)
{
	if (p->sub == BODY) {
		int rc = function_begin(p);

		if (rc)
			return rc;
	}
	return function_step(p);
}

const struct call_family family_tool_call = {tool_call_step, tool_call_after};
const struct call_family family_function = {bare_step, tool_call_after};
