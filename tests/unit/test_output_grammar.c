// SPDX-License-Identifier: MIT
/*
 * What grammar_tools() allows, the parsers read: random answers, drawn byte by byte through the
 * grammar's masks, must come out as valid calls of the tools, with arguments that fit the schemas,
 * and nothing else; the same for every way of cutting them.
 */
#include <errno.h>

#include "tests/unit/grammar_check.h"
#include "tests/unit/output_cases.h"

#define ANSWERS 60
#define STEPS	4000 /* bytes of an answer; one that does not end by then is not counted */

static const char tools_json[] =
	"[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\","
	"\"properties\":{"
	"\"s\":{\"type\":\"string\"},"
	"\"i\":{\"type\":\"integer\",\"minimum\":-20,\"maximum\":300},"
	"\"n\":{\"type\":\"number\"},"
	"\"b\":{\"type\":\"boolean\"},"
	"\"e\":{\"type\":\"string\",\"enum\":[\"red\",\"dark green\",\"null\"]},"
	"\"u\":{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"null\"}]},"
	"\"a\":{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"maxItems\":3},"
	"\"o\":{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"string\"},\"l\":{\"type\":"
	"\"boolean\"}},\"required\":[\"k\"],\"additionalProperties\":false}},"
	"\"required\":[\"s\",\"i\"],\"additionalProperties\":false}}},"
	"{\"type\":\"function\",\"function\":{\"name\":\"g\"}},"
	"{\"type\":\"function\",\"function\":{\"name\":\"h_2\",\"strict\":true,\"parameters\":{"
	"\"type\":\"object\",\"properties\":{\"v\":{\"enum\":[1,2]}},\"required\":[\"v\"],"
	"\"additionalProperties\":false}}}]";

static const char *const special[] = {"<tool_call>",  "</tool_call>",
				      "<|tool_call>", "<tool_call|>",
				      "<|\"|>",	      "<|python_tag|>",
				      "[TOOL_CALLS]", "[ARGS]",
				      "<|start|>",    "<|channel|>",
				      "<|message|>",  "<|constrain|>",
				      "<|call|>",     NULL};

static json_t *tools;
static uint64_t rng = 1;

static uint32_t rnd(uint32_t n)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((rng >> 33) % n);
}

/* ---- drawing -------------------------------------------------------------------------------------- */

/* What ends strings, lists and calls comes often, so that answers end. */
static uint32_t weight(int32_t id, int n_bytes)
{
	if (id > n_bytes)
		return 60;
	if (id == '"' || id == '}' || id == ']' || id == '<' || id == '/' || id == '>')
		return 40;
	if (id == '\n')
		return 20;
	if (id == ' ' || id == '\\')
		return 3;
	return id >= 0x20 && id < 0x7f ? 4 : 1;
}

static int32_t draw(const struct voc *o, const uint64_t *mask)
{
	uint32_t sum = 0, at;

	for (int32_t id = 0; id < o->n; id++)
		sum += has_bit(mask, id) && id != o->eos ? weight(id, 256) : 0;
	if (!sum)
		return -1;
	at = rnd(sum);
	for (int32_t id = 0; id < o->n; id++) {
		uint32_t w = has_bit(mask, id) && id != o->eos ? weight(id, 256) : 0;

		if (at < w)
			return id;
		at -= w;
	}
	return -1;
}

/* The next byte of what ends a bare string, if the text ends in its beginning; -1: it does not. */
static int32_t closing(const struct record *text)
{
	static const char *const closer[] = {"\n</parameter>", "<|\"|>"};

	for (size_t k = 0; k < 2; k++)
		for (size_t n = strlen(closer[k]) - 1; n > 0; n--)
			if (text->n >= n && !memcmp(text->text + text->n - n, closer[k], n))
				return (uint8_t)closer[k][n];
	return -1;
}

/* An answer into *text; false: it did not end in time. */
static bool write_answer(const struct voc *o, const struct grammar *g, struct record *text)
{
	struct matcher *m;
	struct err e;
	bool ended = false;

	text->n = 0;
	if (matcher_open(&m, g, o->v, &e)) {
		printf("# %s\n", e.msg);
		return false;
	}
	for (int k = 0; k < STEPS && !ended; k++) {
		const uint64_t *mask = matcher_mask(m);
		bool may_end = has_bit(mask, o->eos);
		int32_t id = may_end && !rnd(3) ? -1 : draw(o, mask), close = closing(text);
		const char *s;
		size_t n = 1;
		char byte;

		if (id < 0) {
			ended = may_end;
			break;
		}
		if (close >= 0 && has_bit(mask, close) && rnd(10))
			id = close;
		byte = (char)id;
		s = &byte;
		if (id > 256)
			s = tokenizer_token(o->t, id, &n);
		if (matcher_accept(m, id))
			break;
		record_add(text, s, n);
	}
	matcher_close(m);
	return ended;
}

/* ---- reading -------------------------------------------------------------------------------------- */

struct result {
	int calls;
	const char *wrong; /* NULL: all fits */
};

static bool fits_f(json_t *args)
{
	const char *key;
	json_t *v;
	bool ok = json_is_string(json_object_get(args, "s")) &&
		  json_is_integer(json_object_get(args, "i"));

	json_object_foreach (args, key, v) {
		const char *s = json_string_value(v);
		long long i = json_integer_value(v);

		switch (*key) {
		case 's':
			ok &= s != NULL;
			break;
		case 'i':
			ok &= json_is_integer(v) && i >= -20 && i <= 300;
			break;
		case 'n':
			ok &= json_is_number(v);
			break;
		case 'b':
			ok &= json_is_boolean(v);
			break;
		case 'e':
			ok &= s &&
			      (!strcmp(s, "red") || !strcmp(s, "dark green") || !strcmp(s, "null"));
			break;
		case 'u':
			ok &= json_is_integer(v) || json_is_null(v);
			break;
		case 'a':
			ok &= json_is_array(v) && json_array_size(v) <= 3;
			break;
		case 'o':
			ok &= json_is_object(v) && json_is_string(json_object_get(v, "k"));
			break;
		default:
			ok = false;
		}
		ok &= !key[1];
	}
	return ok;
}

static int check_piece(void *ctx, const struct output_piece *p)
{
	struct result *r = ctx;
	json_t *args;
	bool ok = false;

	if (p->kind != OUTPUT_CALL) {
		r->wrong = p->kind == OUTPUT_MALFORMED ? "malformed" : "content";
		return 0;
	}
	r->calls++;
	args = json_loadb(p->text, p->len, JSON_ALLOW_NUL, NULL);
	if (!strcmp(p->name, "f"))
		ok = fits_f(args);
	else if (!strcmp(p->name, "g"))
		ok = json_is_object(args);
	else if (!strcmp(p->name, "h_2"))
		ok = json_object_size(args) == 1 && json_is_integer(json_object_get(args, "v"));
	if (!ok)
		r->wrong = "arguments";
	json_decref(args);
	return 0;
}

static void read_parts(const struct output_opts *o, const struct record *text, size_t part,
		       output_sink sink, void *ctx)
{
	struct output *p;

	if (output_open(&p, o, NULL))
		abort();
	for (size_t at = 0; at < text->n; at += part)
		output_push(p, text->text + at, text->n - at < part ? text->n - at : part, sink,
			    ctx);
	output_end(p, sink, ctx);
	output_close(p);
}

static bool same_in_parts(const struct output_opts *o, const struct record *text)
{
	struct record a, b;
	bool same;

	record_begin(&a);
	record_begin(&b);
	read_parts(o, text, text->n + 1, record_piece, &a);
	read_parts(o, text, 1, record_piece, &b);
	same = !strcmp(a.text, b.text) && !a.bad && !b.bad;
	record_free(&a);
	record_free(&b);
	return same;
}

static void format(const struct voc *o, enum output_tools t, const char *only, bool parallel)
{
	struct output_opts opts = {.format = {t == OUTPUT_TOOLS_HARMONY ? OUTPUT_REASONING_HARMONY
									: OUTPUT_REASONING_NONE,
					      t},
				   .thinking = true,
				   .tools = tools};
	int written = 0, good = 0, most = 0;
	struct record text;
	struct grammar *g;
	struct err e = {""};

	record_begin(&text);
	if (!CHECK(!grammar_tools(&g, t, tools, only, parallel, &e),
		   "%s: the tools have a grammar %s", output_tools_name(t), e.msg)) {
		record_free(&text);
		return;
	}
	for (int i = 0; i < ANSWERS; i++) {
		struct result r = {0};

		if (!write_answer(o, g, &text))
			continue;
		written++;
		read_parts(&opts, &text, text.n + 1, check_piece, &r);
		most = r.calls > most ? r.calls : most;
		if (!r.wrong && r.calls && (parallel || r.calls == 1) &&
		    same_in_parts(&opts, &text))
			good++;
		else if (written - good < 4)
			printf("# %s: %.*s\n", r.wrong ? r.wrong : "number or parts", (int)text.n,
			       text.text);
	}
	CHECK(written > ANSWERS / 2 && good == written, "%s%s%s: %d of %d answers are calls",
	      output_tools_name(t), only ? " of one function" : "", parallel ? "" : ", one", good,
	      written);
	CHECK(!parallel || only || t == OUTPUT_TOOLS_HARMONY || most > 1, "%s: up to %d calls",
	      output_tools_name(t), most);
	record_free(&text);
	grammar_free(g);
}

int main(void)
{
	struct voc plain = {0}, marked = {0};

	tools = json_loads(tools_json, 0, NULL);
	if (!CHECK(tools && voc_bytes(&plain, NULL) && voc_bytes(&marked, special),
		   "tools and vocabularies are there"))
		return tap_done();
	for (int t = OUTPUT_TOOLS_HERMES; t <= OUTPUT_TOOLS_HARMONY; t++) {
		/* with markers as tokens, and as text where the vocabulary has no such token */
		format(&marked, t, NULL, true);
		format(&plain, t, NULL, true);
		format(&marked, t, "f", false);
	}
	voc_close(&plain);
	voc_close(&marked);
	json_decref(tools);
	return tap_done();
}
