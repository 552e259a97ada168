// SPDX-License-Identifier: MIT
/*
 * libFuzzer target: any text through any parser of answers: whole, byte by byte and in parts that
 * the text itself decides. All must give the same, arguments must be JSON objects, and nothing may be
 * lost but markers and white space. The first three bytes choose: a digit for the reasoning, one for
 * the tools, one whose bits are: an open block, thinking off, no tools, ends of turns
 * that are text.
 */
#include <errno.h>
#include <stdint.h>

#include "tests/unit/output_cases.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const markers[] = {"<think>",
				      "</think>",
				      "<tool_call>",
				      "</tool_call>",
				      "<function=",
				      "<|im_end|>",
				      "<|endoftext|>",
				      "<\xef\xbd\x9c"
				      "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
				      "<|channel>",
				      "<channel|>",
				      "thought",
				      "<turn|>",
				      "<|tool_response>",
				      "[THINK]",
				      "[/THINK]",
				      "<|eot_id|>",
				      "<|eom_id|>",
				      "<|end_of_text|>"};

/* Texts without white space, and without what calls hold. */
struct texts {
	char *v;
	size_t n;
	int calls;
};

static bool space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static void check_call(const struct output_piece *p)
{
	json_error_t error;
	json_t *args = json_loadb(p->text, p->len,
				  JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL,
				  &error);

	/* Keys with a NUL and numbers beyond a double are JSON that this library does not hold. */
	if (!args && json_error_code(&error) != json_error_numeric_overflow &&
	    json_error_code(&error) != json_error_null_byte_in_key)
		abort();
	if (args && !json_is_object(args))
		abort();
	json_decref(args);
	if (!*p->name)
		abort();
}

static int keep(void *ctx, const struct output_piece *p)
{
	struct texts *t = ctx;

	if (p->kind == OUTPUT_CALL) {
		t->calls++;
		check_call(p);
	} else if (p->kind != OUTPUT_MALFORMED) {
		for (size_t i = 0; i < p->len; i++)
			if (!space(p->text[i]))
				t->v[t->n++] = p->text[i];
	}
	return 0;
}

static struct output *open_parser(const struct output_opts *o)
{
	struct output *p;

	if (output_open(&p, o, NULL))
		abort();
	return p;
}

static void fold(const struct output_opts *o, const char *s, size_t n, size_t part,
		 struct record *r)
{
	struct output *p = open_parser(o);
	size_t at = 0, k;

	record_begin(r);
	while (at < n) {
		/* part 0: as long as the last byte says */
		k = part ? part : 1 + (uint8_t)s[at] % 7;
		k = k < n - at ? k : n - at;
		if (output_push(p, s + at, k, record_piece, r))
			abort();
		at += k;
	}
	if (output_end(p, record_piece, r) || r->bad)
		abort();
	output_close(p);
}

static void compare(const struct output_opts *o, const char *s, size_t n)
{
	struct record whole, other;

	fold(o, s, n, n + 1, &whole);
	for (size_t part = 0; part < 2; part++) {
		fold(o, s, n, part, &other);
		if (whole.n != other.n || memcmp(whole.text, other.text, whole.n))
			abort();
		record_free(&other);
	}
	record_free(&whole);
}

/* What came out is what went in, but for whole markers. */
static void account(const struct output_opts *o, const char *s, size_t n)
{
	struct output *p = open_parser(o);
	struct texts t = {malloc(n + 1), 0, 0};
	size_t in = 0, at = 0, may_go = 0;

	if (output_push(p, s, n, keep, &t) || output_end(p, keep, &t))
		abort();
	output_close(p);
	for (size_t i = 0; i < n; i++) {
		in += !space(s[i]);
		if (at < t.n && s[i] == t.v[at])
			at++;
		for (size_t k = 0; k < sizeof(markers) / sizeof(*markers); k++) {
			size_t len = strlen(markers[k]);

			if (len <= n - i && !memcmp(s + i, markers[k], len))
				may_go += len;
		}
	}
	if (at != t.n)
		abort();
	if (!t.calls && o->format.reasoning != OUTPUT_REASONING_HARMONY &&
	    o->format.tools != OUTPUT_TOOLS_HARMONY && in - t.n > may_go)
		abort();
	free(t.v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static json_t *tools;
	struct output_opts o = {0};
	const char *text;
	size_t n;

	if (!tools)
		tools = json_loads(
			"[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{"
			"\"properties\":{\"s\":{\"type\":\"string\"},\"i\":{\"type\":\"integer\"},"
			"\"n\":{\"type\":[\"number\",\"null\"]},\"b\":{\"type\":\"boolean\"},"
			"\"o\":{\"type\":\"object\"},\"a\":{\"anyOf\":[{\"type\":\"array\"}]}}}}}]",
			0, NULL);
	if (size < 3 || size > 1 << 16 || !tools)
		return -1;
	text = (const char *)data + 3;
	n = size - 3;
	o.format.reasoning = data[0] % 5;
	o.format.tools = data[1] % 7;
	o.reasoning_open = data[2] & 1;
	o.thinking = !(data[2] & 2);
	o.tools = data[2] & 4 ? NULL : tools;
	o.ends_are_text = data[2] & 8;
	compare(&o, text, n);
	account(&o, text, n);
	return 0;
}
