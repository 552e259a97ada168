// SPDX-License-Identifier: MIT
/*
 * Harmony, as gpt-oss writes it: messages of a header and a text,
 *
 *	<|channel|>analysis<|message|>...<|end|>
 *	<|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{}<|call|>
 *	<|start|>assistant<|channel|>final<|message|>...<|return|>
 *
 * the first without its <|start|>assistant, which ends the prompt. A message to somebody is a call,
 * analysis is reasoning, everything else is content: also commentary to nobody, which is what the
 * model says to the user before it calls.
 */
#include <errno.h>
#include <string.h>

#include "text/output/output_int.h"

/* Bytes of a header: more is none. */
#define MAX_HEADER     1024
#define MAX_CUT_HEADER 128

void harmony_open(struct output *p, bool reasoning_open)
{
	static const char *const end[] = {"<|end|>", "<|return|>", "<|call|>"};

	/* `content` holds what may end a header, `reasoning` what may end a text. */
	markers_add(&p->content, "<|message|>", ACT_MESSAGE, NULL);
	markers_add(&p->content, "<|start|>", ACT_START, NULL);
	markers_add(&p->reasoning, "<|start|>", ACT_START, NULL);
	markers_add(&p->reasoning, "<|channel|>", ACT_CHANNEL, NULL);
	for (int i = 0; i < 3; i++) {
		markers_add(&p->content, end[i], ACT_END, NULL);
		markers_add(&p->reasoning, end[i], ACT_END, NULL);
	}
	p->state = reasoning_open ? ST_BODY : ST_HEADER;
	p->to_reasoning = reasoning_open && p->format.reasoning;
}

/* The word behind `key` in a header. */
static struct span word_after(struct span h, const char *key)
{
	struct span w = {NULL, 0};
	const char *p = memmem(h.s, h.n, key, strlen(key));

	if (!p)
		return w;
	w.s = p + strlen(key);
	while (w.s + w.n < h.s + h.n && !is_space(w.s[w.n]) && w.s[w.n] != '<')
		w.n++;
	return w;
}

static bool is_word(struct span w, const char *text)
{
	return w.n == strlen(text) && !memcmp(w.s, text, w.n);
}

/* in[pos..scan) is a header, <|message|> included. */
static int begin_message(struct output *p)
{
	static const char functions[] = "functions.";
	struct span h = {p->in.v + p->pos, p->scan - p->pos};
	struct span channel = word_after(h, "<|channel|>"), to = word_after(h, "to=");
	bool call =
		to.n && !is_word(to, "assistant") && !is_word(to, "user") && !is_word(to, "all");

	p->state = ST_BODY;
	p->to_reasoning = p->between = false;
	if (to.n > strlen(functions) && !memcmp(to.s, functions, strlen(functions))) {
		to.s += strlen(functions);
		to.n -= strlen(functions);
	}
	if (call && p->tools_on && p->format.tools == OUTPUT_TOOLS_HARMONY &&
	    set_name(p, to.s, to.n)) {
		begin_call(p, &family_harmony, false);
		return 1;
	}
	if (!call && is_word(channel, "analysis") && p->format.reasoning) {
		p->pos = p->scan;
		p->to_reasoning = true;
		p->reasoning_begun = false;
		/* Messages are set apart; the newlines come with the first text. */
		p->newlines = p->had_reasoning ? 2 : 0;
		return 1;
	}
	p->past = true;
	if (p->had_content) {
		p->separate = true;
		p->space.n = 0;
	}
	p->skip_space = p->skip_space && p->n_calls;
	if (call) {
		int rc = plain_out(p, false);

		return rc ? rc : 1;
	}
	p->pos = p->scan;
	return 1;
}

/* Text where a header should be. */
static int no_header(struct output *p)
{
	int rc;

	p->state = ST_BODY;
	p->to_reasoning = p->between = false;
	p->past = true;
	rc = plain_out(p, false);
	return rc ? rc : 1;
}

/* Whether an answer begins as a header does: 1, 0, or -1: not known yet. */
static int begins_header(const struct output *p)
{
	static const char *const first[] = {"<|channel|>", "<|start|>", "<|message|>",
					    "<|constrain|>", "to="};
	size_t at = skip_space(p, p->pos);
	bool begins = at == p->in.n;

	for (size_t i = 0; i < sizeof(first) / sizeof(*first); i++) {
		int x = expect(p, at, first[i]);

		if (x > 0)
			return 1;
		begins |= x < 0;
	}
	return begins ? -1 : 0;
}

static int run_header(struct output *p)
{
	int i;

	if (p->scan == p->pos) {
		i = begins_header(p);
		if (i <= 0)
			return i < 0 && !p->ended ? 0 : no_header(p);
	}
	i = find_marker(p, &p->content);
	if (p->scan - p->pos > MAX_HEADER) {
		p->scan = char_start(p, p->pos + MAX_HEADER);
		return no_header(p);
	}
	if (i < 0 && !p->ended)
		return 0;
	if (i < 0) {
		/* Cut off within a header, which nobody needs to see. */
		if (p->scan - p->pos <= MAX_CUT_HEADER)
			p->pos = p->scan;
		return p->scan == p->pos ? 0 : no_header(p);
	}
	if (p->content.v[i].action == ACT_MESSAGE) {
		p->scan += p->content.v[i].len;
		return begin_message(p);
	}
	/* A header that was left off. */
	if (p->scan > p->pos)
		return no_header(p);
	p->scan += p->content.v[i].len;
	if (p->content.v[i].action == ACT_END)
		p->pos = p->scan;
	return 1;
}

static int run_body(struct output *p)
{
	int i = find_marker(p, &p->reasoning);
	int rc = plain_out(p, p->to_reasoning);

	if (rc || i < 0)
		return rc;
	p->scan += p->reasoning.v[i].len;
	if (p->to_reasoning) {
		p->newlines = 0;
		p->past = true;
	}
	p->to_reasoning = false;
	if (p->reasoning.v[i].action != ACT_END) {
		p->state = ST_HEADER;
		return 1;
	}
	/* White space between messages belongs to none. */
	p->pos = p->scan;
	p->skip_space = p->between = true;
	return 1;
}

int harmony_run(struct output *p)
{
	return p->state == ST_HEADER ? run_header(p) : run_body(p);
}

/* ---- calls --------------------------------------------------------------------------------- */

enum { TEXT, OBJECT, TAIL };

/* Where a text ends: STEP_DONE with p->scan behind it. */
static int text_end(struct output *p)
{
	bool begins = false;

	p->scan = skip_space(p, p->scan);
	if (p->scan == p->in.n)
		return p->ended ? STEP_DONE : STEP_MORE;
	for (int i = 0; i < p->reasoning.n; i++) {
		int x = expect(p, p->scan, p->reasoning.v[i].text);

		if (x > 0) {
			if (p->reasoning.v[i].action == ACT_END)
				p->scan += p->reasoning.v[i].len;
			return STEP_DONE;
		}
		begins |= x < 0;
	}
	if (!begins)
		return STEP_BAD;
	if (!p->ended)
		return STEP_MORE;
	p->scan = p->in.n;
	return STEP_DONE;
}

static int harmony_step(struct output *p)
{
	int rc;

	if (p->sub == TEXT) {
		size_t at = skip_space(p, p->scan);

		if (at == p->in.n || p->in.v[at] != '{') {
			rc = text_end(p);
			if (rc == STEP_MORE)
				return rc;
			if (rc == STEP_BAD || p->ended)
				return bad(p, p->scan, "its arguments are no JSON object");
			return args_from_json(p, (struct span){"null", 4});
		}
		p->scan = at;
		json_scan_begin(&p->json, &p->tmp);
		p->sub = OBJECT;
	}
	if (p->sub == OBJECT) {
		rc = scan_json(p);
		if (rc != STEP_DONE)
			return rc;
		p->sub = TAIL;
	}
	rc = text_end(p);
	if (rc == STEP_BAD)
		return bad(p, p->scan, "text follows its arguments");
	return rc == STEP_DONE ? args_from_json(p, (struct span){p->tmp.v, p->tmp.n}) : rc;
}

const struct call_family family_harmony = {harmony_step, NULL};
