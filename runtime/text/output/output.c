// SPDX-License-Identifier: MIT
/*
 * The common part of the output parsers: text that may begin a marker is held back, white space
 * around calls is dropped, reasoning is told from content; families read what stands in a call.
 */
#include "text/output/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/output/output_int.h"
#include "text/utf8.h"

void markers_add(struct markers *m, const char *text, enum action a,
		 const struct call_family *family)
{
	m->v[m->n++] = (struct marker){text, (uint8_t)strlen(text), a, family};
	m->first[(unsigned char)text[0]] = true;
}

int find_marker(struct output *p, const struct markers *m)
{
	for (; p->scan < p->in.n; p->scan++) {
		const char *s = p->in.v + p->scan;
		size_t n = p->in.n - p->scan;
		bool begins = false;

		p->work++;
		if (!m->first[(unsigned char)*s])
			continue;
		for (int i = 0; i < m->n; i++) {
			size_t len = m->v[i].len;

			if (memcmp(s, m->v[i].text, len < n ? len : n))
				continue;
			if (len <= n)
				return i;
			begins = true;
		}
		if (begins && !p->ended)
			return -1;
	}
	return -1;
}

int expect(const struct output *p, size_t at, const char *text)
{
	size_t n = p->in.n - at, len = strlen(text);

	if (memcmp(p->in.v + at, text, len < n ? len : n))
		return 0;
	return n >= len ? 1 : p->ended && !n ? 0 : -1;
}

size_t skip_space(const struct output *p, size_t at)
{
	while (at < p->in.n && is_space(p->in.v[at]))
		at++;
	return at;
}

bool set_name(struct output *p, const char *s, size_t n)
{
	if (!n || n > OUTPUT_MAX_NAME || utf8_valid_prefix(s, n) != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	memcpy(p->name, s, n);
	p->name[n] = 0;
	return true;
}

int scan_json(struct output *p)
{
	size_t used;
	int rc = json_scan_push(&p->json, p->in.v + p->scan, p->in.n - p->scan, &used);

	p->scan += used;
	p->work += used;
	if (rc < 0)
		return rc;
	if (rc == JSON_BAD)
		return bad(p, p->scan, p->json.why);
	if (rc == JSON_DONE)
		return STEP_DONE;
	return p->ended ? bad(p, p->scan, "its JSON does not end") : STEP_MORE;
}

int args_from_json(struct output *p, struct span v)
{
	int rc;

	p->args.n = 0;
	if (v.n == 4 && !memcmp(v.s, "null", 4))
		return buf_add(&p->args, "{}", 2) ? -ENOMEM : STEP_CALL;
	if (*v.s == '"') {
		rc = json_text(&p->tmp2, v);
		if (rc == 1)
			rc = json_compact(&p->args, p->tmp2.v, p->tmp2.n);
	} else {
		rc = buf_add(&p->args, v.s, v.n) ? -ENOMEM : 1;
	}
	if (rc < 0)
		return rc;
	if (!rc || p->args.v[0] != '{')
		return bad(p, p->scan, "its arguments are no JSON object");
	rc = json_unique(&p->args);
	if (rc < 0)
		return rc;
	return rc ? STEP_CALL : bad(p, p->scan, "a key stands twice in its arguments");
}

int call_from_json(struct output *p)
{
	struct span o = {p->tmp.v, p->tmp.n}, name, args, inner;
	int rc;

	if (json_member(o, "function", &inner) && *inner.s == '{')
		o = inner;
	if (!(json_member(o, "name", &name) && *name.s == '"') &&
	    !(json_member(o, "function", &name) && *name.s == '"'))
		return bad(p, p->scan, "it has no \"name\"");
	rc = json_text(&p->tmp2, name);
	if (rc < 0)
		return rc;
	if (!set_name(p, p->tmp2.v, p->tmp2.n))
		return bad(p, p->scan, "its name is empty, too long or no text");
	if (!json_member(o, "arguments", &args) && !json_member(o, "parameters", &args))
		args = (struct span){"{}", 2};
	return args_from_json(p, args);
}

/* ---- pieces -------------------------------------------------------------------------------- */

static int emit(struct output *p, enum output_kind kind, const char *s, size_t n)
{
	struct output_piece piece = {.kind = kind, .text = s, .len = n};

	return n ? p->sink(p->ctx, &piece) : 0;
}

static int space_out(struct output *p)
{
	int rc = emit(p, OUTPUT_CONTENT, p->space.v, p->space.n);

	p->space.n = 0;
	return rc;
}

int content_out(struct output *p, const char *s, size_t n)
{
	size_t end = n;
	int rc;

	while (n && ((p->skip_space && is_space(*s)) || (p->skip_newlines && *s == '\n'))) {
		s++;
		n--;
	}
	if (!n)
		return 0;
	p->skip_space = p->skip_newlines = false;
	if (p->hold_space)
		for (end = n; end && is_space(s[end - 1]);)
			end--;
	else
		end = n;
	if (end) {
		rc = p->separate ? emit(p, OUTPUT_CONTENT, "\n\n", 2) : 0;
		p->separate = false;
		if (!rc)
			rc = space_out(p);
		if (!rc)
			rc = emit(p, OUTPUT_CONTENT, s, end);
		if (rc)
			return rc;
		p->had_content = p->past = true;
	}
	return end < n ? buf_add(&p->space, s + end, n - end) : 0;
}

/* To the sink, or kept until the block closes. */
static int reasoning_piece(struct output *p, const char *s, size_t n)
{
	return p->hold_reasoning ? buf_add(&p->held, s, n) : emit(p, OUTPUT_REASONING, s, n);
}

static int newlines_out(struct output *p)
{
	static const char newlines[] = "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n";
	int rc = 0;

	while (p->newlines && !rc) {
		size_t n = p->newlines < sizeof(newlines) - 1 ? p->newlines : sizeof(newlines) - 1;

		rc = reasoning_piece(p, newlines, n);
		p->newlines -= n;
	}
	return rc;
}

int reasoning_out(struct output *p, const char *s, size_t n)
{
	size_t end;
	int rc;

	while (n && !p->reasoning_begun && *s == '\n') {
		s++;
		n--;
	}
	for (end = n; end && s[end - 1] == '\n';)
		end--;
	if (end) {
		p->reasoning_begun = p->had_reasoning = true;
		rc = newlines_out(p);
		if (!rc)
			rc = reasoning_piece(p, s, end);
		if (rc)
			return rc;
	}
	p->newlines += n - end;
	return 0;
}

int reasoning_begin(struct output *p)
{
	p->state = ST_REASONING;
	p->reasoning_begun = false;
	p->newlines = 0;
	p->label_at = 0;
	p->hold_reasoning = !p->thinking;
	p->held.n = 0;
	return 0;
}

int reasoning_close(struct output *p)
{
	int rc = p->hold_reasoning ? emit(p, OUTPUT_REASONING, p->held.v, p->held.n) : 0;

	p->held.n = 0;
	p->hold_reasoning = false;
	p->newlines = 0;
	p->past = true;
	p->state = ST_CONTENT;
	p->skip_newlines = true;
	return rc;
}

/* The answer is over within reasoning. */
static int reasoning_end(struct output *p)
{
	int rc;

	if (p->label && p->label_at < strlen(p->label)) {
		rc = reasoning_out(p, p->label, p->label_at);
		if (rc)
			return rc;
	}
	rc = newlines_out(p);
	if (rc || !p->hold_reasoning)
		return rc;
	rc = content_out(p, p->held.v, p->held.n);
	p->held.n = 0;
	return rc;
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

int call_out(struct output *p)
{
	static const char alphabet[] =
		"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	uint64_t h = mix(mix(p->call_seed) + (uint64_t)p->n_calls);
	char id[OUTPUT_CALL_ID + 1] = "";
	struct output_piece piece = {.kind = OUTPUT_CALL,
				     .text = p->args.v,
				     .len = p->args.n,
				     .index = p->n_calls++,
				     .id = id,
				     .name = p->name};

	for (int i = 0; i < OUTPUT_CALL_ID; i++, h /= 62)
		id[i] = alphabet[h % 62];
	p->space.n = 0;
	p->skip_space = true;
	p->past = true;
	return p->sink(p->ctx, &piece);
}

size_t char_start(const struct output *p, size_t at)
{
	size_t start = at;

	if (at == p->in.n)
		return at;
	while (at - start < 3 && start > p->pos && (p->in.v[start] & 0xc0) == 0x80)
		start--;
	return start > p->pos && (uint8_t)p->in.v[start] >= 0xc0 ? start : at;
}

int malformed_out(struct output *p, const char *why)
{
	size_t end = char_start(p, p->scan);
	const char *s = p->in.v + p->pos;
	size_t n = end - p->pos;
	char text[160];
	int rc = 0;

	p->pos = p->scan = end;
	if (p->in_reasoning)
		return reasoning_out(p, s, n);
	p->skip_space = p->skip_newlines = false;
	if (why) {
		rc = space_out(p);
		snprintf(text, sizeof(text), "no valid tool call: %s", why);
		if (!rc)
			rc = emit(p, OUTPUT_MALFORMED, text, strlen(text));
	}
	return rc ? rc : content_out(p, s, n);
}

/* ---- states -------------------------------------------------------------------------------- */

/* Each returns > 0 if there may be more to do, 0 if bytes are missing, or -errno. */

static int run_start(struct output *p)
{
	size_t i = skip_space(p, p->pos);
	int open, close;

	if (i == p->in.n && !p->ended)
		return 0;
	open = expect(p, i, "<think>");
	close = open ? 0 : expect(p, i, "</think>");
	if ((open < 0 || close < 0) && !p->ended)
		return 0;
	p->scan = p->pos;
	p->state = ST_CONTENT;
	if (open <= 0 && close <= 0)
		return 1;
	p->pos = p->scan = i + (open > 0 ? 7 : 8);
	return open > 0 ? (reasoning_begin(p), 1) : (reasoning_close(p), 1);
}

void begin_call(struct output *p, const struct call_family *f, bool in_reasoning)
{
	p->family = f;
	p->in_reasoning = in_reasoning;
	p->sub = 0;
	p->array = false;
	p->schema = NULL;
	p->state = ST_CALL;
}

/* Give out in[pos..scan), which holds no marker. */
int plain_out(struct output *p, bool reasoning)
{
	const char *s = p->in.v + p->pos;
	size_t n = p->scan - p->pos;

	p->pos = p->scan;
	return !n ? 0 : reasoning ? reasoning_out(p, s, n) : content_out(p, s, n);
}

static int run_content(struct output *p)
{
	const struct marker *m;
	int rc, i;

	/* Llama-3 writes bare JSON: only what an answer begins with can be a call. */
	if (p->tools_on && p->format.tools == OUTPUT_TOOLS_LLAMA3 && !p->had_content &&
	    !p->n_calls && p->scan == p->pos) {
		size_t at = skip_space(p, p->pos);

		if (at == p->in.n && !p->ended)
			return 0;
		if (at < p->in.n && p->in.v[at] == '{') {
			rc = content_out(p, p->in.v + p->pos, at - p->pos);
			p->pos = p->scan = at;
			begin_call(p, &family_llama3_bare, false);
			return rc ? rc : 1;
		}
	}
	i = find_marker(p, &p->content);
	rc = plain_out(p, false);
	if (rc || i < 0)
		return rc;
	m = &p->content.v[i];
	p->scan += m->len;
	if (m->action == ACT_CALL) {
		begin_call(p, m->family, false);
		return 1;
	}
	p->pos = p->scan;
	if (m->action == ACT_REASONING)
		return reasoning_begin(p), 1;
	return 1;
}

/* Drop the label that a block of reasoning begins with. 0: bytes are missing. */
static int run_label(struct output *p)
{
	size_t len = strlen(p->label);
	int rc;

	while (p->label_at < len && p->pos < p->in.n && p->in.v[p->pos] == p->label[p->label_at]) {
		p->label_at++;
		p->scan = ++p->pos;
	}
	if (p->label_at < len && p->pos == p->in.n)
		return 0;
	/* "thought" without its newline, if the block closes at once, is the label too. */
	if (p->label_at < len && !(p->label_at == len - 1 && p->in.v[p->pos] == '<')) {
		rc = reasoning_out(p, p->label, p->label_at);
		if (rc)
			return rc;
	}
	p->label_at = len + 1;
	return 1;
}

static int run_reasoning(struct output *p)
{
	const struct marker *m;
	int rc, i;

	if (p->label && p->label_at <= strlen(p->label)) {
		rc = run_label(p);
		if (rc <= 0)
			return rc;
	}
	i = find_marker(p, &p->reasoning);
	rc = plain_out(p, true);
	if (rc || i < 0)
		return rc;
	m = &p->reasoning.v[i];
	p->scan += m->len;
	if (m->action == ACT_CALL) {
		begin_call(p, m->family, true);
		return 1;
	}
	p->pos = p->scan;
	if (m->action == ACT_CLOSE)
		rc = reasoning_close(p);
	return rc ? rc : 1;
}

static int run_call(struct output *p)
{
	size_t n = p->in.n;
	bool ended = p->ended, cut = n - p->pos > OUTPUT_MAX_CALL;
	int step, rc = 0;

	/* What is too long must not depend on how much more is there already. */
	if (cut) {
		p->in.n = p->pos + OUTPUT_MAX_CALL;
		p->ended = false;
	}
	step = p->family->step(p);
	p->in.n = n;
	p->ended = ended;
	if (cut && step == STEP_MORE)
		step = bad(p, p->pos + OUTPUT_MAX_CALL, "it is longer than 16 MiB");
	if (step < 0 || step == STEP_MORE)
		return step < 0 ? step : 0;
	if (step == STEP_CALL) {
		if (p->in_reasoning)
			rc = reasoning_close(p);
		p->in_reasoning = false;
		p->pos = p->scan;
		p->state = ST_AFTER;
		if (!rc)
			rc = call_out(p);
	} else {
		p->state = p->in_reasoning ? ST_REASONING : p->harmony ? ST_BODY : ST_CONTENT;
		rc = malformed_out(p, step == STEP_BAD ? p->why : NULL);
	}
	return rc ? rc : 1;
}

static int run_after(struct output *p)
{
	int step = STEP_DONE;

	p->pos = p->scan = skip_space(p, p->pos);
	if (p->pos == p->in.n)
		return 0;
	if (p->family->after)
		step = p->family->after(p);
	if (step < 0 || step == STEP_MORE)
		return step < 0 ? step : 0;
	p->state = step == STEP_AGAIN ? ST_CALL : p->harmony ? ST_BODY : ST_CONTENT;
	p->between = p->harmony;
	return 1;
}

static int run(struct output *p)
{
	int rc;

	do {
		switch (p->state) {
		case ST_START:
			rc = run_start(p);
			break;
		case ST_CONTENT:
			rc = run_content(p);
			break;
		case ST_REASONING:
			rc = run_reasoning(p);
			break;
		case ST_CALL:
			rc = run_call(p);
			break;
		case ST_AFTER:
			rc = run_after(p);
			break;
		default:
			rc = harmony_run(p);
		}
	} while (rc > 0);
	return rc;
}

/* Forget what was given out, at a cost that is in proportion to what came in. */
static void compact(struct output *p)
{
	size_t left = p->in.n - p->pos;

	if (!p->pos || left > p->pos)
		return;
	memmove(p->in.v, p->in.v + p->pos, left);
	p->scan -= p->pos;
	p->in.n = left;
	p->pos = 0;
}

int output_push(struct output *p, const char *text, size_t len, output_sink sink, void *ctx)
{
	if (p->rc || !len)
		return p->rc;
	p->sink = sink;
	p->ctx = ctx;
	p->rc = buf_add(&p->in, text, len);
	if (!p->rc)
		p->rc = run(p);
	compact(p);
	return p->rc;
}

int output_end(struct output *p, output_sink sink, void *ctx)
{
	if (p->rc || p->ended)
		return p->rc;
	p->sink = sink;
	p->ctx = ctx;
	p->ended = true;
	p->rc = run(p);
	if (!p->rc && p->state == ST_REASONING)
		p->rc = reasoning_end(p);
	if (!p->rc && p->to_reasoning)
		p->rc = newlines_out(p);
	if (!p->rc)
		p->rc = space_out(p);
	return p->rc;
}

bool output_in_reasoning(const struct output *p)
{
	switch (p->state) {
	case ST_REASONING:
		return true;
	case ST_CALL:
		return p->in_reasoning;
	case ST_BODY:
		return p->to_reasoning;
	default:
		return false;
	}
}

bool output_past_reasoning(const struct output *p)
{
	return p->past && !output_in_reasoning(p);
}

bool output_in_content(const struct output *p)
{
	return output_past_reasoning(p) && p->state != ST_HEADER && !p->between;
}

/* ---- opening ------------------------------------------------------------------------------- */

static void add_calls(struct output *p)
{
	struct markers *sets[] = {&p->content, &p->reasoning};

	for (int i = 0; i < 2; i++) {
		switch (p->format.tools) {
		case OUTPUT_TOOLS_QWEN_XML:
			if (!i)
				markers_add(sets[i], "<function=", ACT_CALL, &family_function);
			/* fallthrough */
		case OUTPUT_TOOLS_HERMES:
			markers_add(sets[i], "<tool_call>", ACT_CALL, &family_tool_call);
			break;
		case OUTPUT_TOOLS_GEMMA4:
			markers_add(sets[i], "<|tool_call>", ACT_CALL, &family_gemma4);
			break;
		case OUTPUT_TOOLS_LLAMA3:
			markers_add(sets[i], "<|python_tag|>", ACT_CALL, &family_llama3);
			break;
		case OUTPUT_TOOLS_MISTRAL:
			markers_add(sets[i], "[TOOL_CALLS]", ACT_CALL, &family_mistral);
			break;
		default:
			break;
		}
	}
}

static void add_hidden(struct markers *m, const struct output_format *f)
{
	static const char *const chatml[] = {"<|im_end|>", "<|endoftext|>", NULL};
	static const char *const think[] = {"<\xef\xbd\x9c"
					    "end\xe2\x96\x81of\xe2\x96\x81sentence"
					    "\xef\xbd\x9c>",
					    NULL};
	static const char *const gemma[] = {"<turn|>", "<|tool_response>", NULL};
	static const char *const llama[] = {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", NULL};
	bool is_chatml = f->reasoning == OUTPUT_REASONING_THINK ||
			 f->tools == OUTPUT_TOOLS_HERMES || f->tools == OUTPUT_TOOLS_QWEN_XML;
	bool is_gemma = f->reasoning == OUTPUT_REASONING_GEMMA4 || f->tools == OUTPUT_TOOLS_GEMMA4;

	for (int i = 0; is_chatml && chatml[i]; i++)
		markers_add(m, chatml[i], ACT_HIDE, NULL);
	if (f->reasoning == OUTPUT_REASONING_THINK)
		markers_add(m, think[0], ACT_HIDE, NULL);
	for (int i = 0; is_gemma && gemma[i]; i++)
		markers_add(m, gemma[i], ACT_HIDE, NULL);
	for (int i = 0; f->tools == OUTPUT_TOOLS_LLAMA3 && llama[i]; i++)
		markers_add(m, llama[i], ACT_HIDE, NULL);
}

static void set_markers(struct output *p, bool ends_are_text)
{
	if (!ends_are_text) {
		add_hidden(&p->content, &p->format);
		add_hidden(&p->reasoning, &p->format);
	}
	switch (p->format.reasoning) {
	case OUTPUT_REASONING_THINK:
		markers_add(&p->reasoning, "</think>", ACT_CLOSE, NULL);
		break;
	case OUTPUT_REASONING_GEMMA4:
		markers_add(&p->content, "<|channel>", ACT_REASONING, NULL);
		markers_add(&p->content, "<channel|>", ACT_HIDE, NULL);
		markers_add(&p->reasoning, "<channel|>", ACT_CLOSE, NULL);
		p->label = "thought\n";
		break;
	case OUTPUT_REASONING_MISTRAL:
		markers_add(&p->content, "[THINK]", ACT_REASONING, NULL);
		markers_add(&p->content, "[/THINK]", ACT_HIDE, NULL);
		markers_add(&p->reasoning, "[/THINK]", ACT_CLOSE, NULL);
		break;
	default:
		break;
	}
	if (p->tools_on)
		add_calls(p);
	markers_add(&p->value, "</parameter>", ACT_VALUE_END, NULL);
	markers_add(&p->value, "\n<parameter=", ACT_VALUE_NEXT, NULL);
	markers_add(&p->value, "\n</function>", ACT_VALUE_NEXT, NULL);
}

int output_open(struct output **out, const struct output_opts *o, struct err *e)
{
	struct output *p = calloc(1, sizeof(*p));
	struct buf *b[] = {p ? &p->in : NULL, p ? &p->args : NULL, p ? &p->tmp : NULL,
			   p ? &p->tmp2 : NULL};
	int rc = p ? 0 : -ENOMEM;

	*out = NULL;
	for (size_t i = 0; i < sizeof(b) / sizeof(*b) && !rc; i++)
		rc = buf_reserve(b[i], 1);
	if (!rc && o->format.tools == OUTPUT_TOOLS_QWEN_XML && o->tools) {
		p->tools = json_deep_copy(o->tools);
		rc = p->tools ? 0 : -ENOMEM;
	}
	if (rc) {
		output_close(p);
		return err_set(e, rc, "output parser: out of memory");
	}
	p->format = o->format;
	p->thinking = o->thinking;
	p->call_seed = o->call_seed;
	p->harmony = o->format.reasoning == OUTPUT_REASONING_HARMONY ||
		     o->format.tools == OUTPUT_TOOLS_HARMONY;
	p->tools_on = o->format.tools && json_array_size(o->tools) > 0;
	p->hold_space = p->tools_on;
	p->past = o->format.reasoning == OUTPUT_REASONING_NONE && !p->harmony;
	p->past |= !o->thinking && !o->reasoning_open && !p->harmony;
	if (p->harmony) {
		harmony_open(p, o->reasoning_open);
	} else {
		set_markers(p, o->ends_are_text);
		p->state = ST_CONTENT;
		if (o->format.reasoning && o->reasoning_open) {
			reasoning_begin(p);
			p->label_at = p->label ? strlen(p->label) + 1 : 0;
		} else if (o->format.reasoning == OUTPUT_REASONING_THINK) {
			p->state = ST_START;
		}
	}
	*out = p;
	return 0;
}

void output_close(struct output *p)
{
	if (!p)
		return;
	buf_free(&p->in);
	buf_free(&p->space);
	buf_free(&p->held);
	buf_free(&p->args);
	buf_free(&p->tmp);
	buf_free(&p->tmp2);
	json_decref(p->tools);
	free(p);
}
