// SPDX-License-Identifier: MIT
/*
 * What models write, taken apart: for each format a table of answers and what must come of them,
 * each pushed whole, byte by byte, cut in two at every place, and cut at random.
 */
#include <errno.h>

#include "tests/tap.h"
#include "tests/unit/output_cases.h"
#include "text/output/output_int.h"

#define OPEN	 1 /* the prompt ends inside reasoning */
#define OFF	 2 /* thinking is off */
#define NO_TOOLS 4
#define TEXT_END 8 /* ends of turns are text */

#define R(x) OUTPUT_REASONING_##x
#define T(x) OUTPUT_TOOLS_##x

struct answer {
	const char *what;
	int flags;
	const char *text, *expected;
};

static const char tools_json[] =
	"[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\","
	"\"properties\":{\"s\":{\"type\":\"string\"},\"i\":{\"type\":\"integer\"},"
	"\"n\":{\"type\":\"number\"},\"b\":{\"type\":\"boolean\"},\"o\":{\"type\":\"object\"},"
	"\"a\":{\"type\":\"array\"},\"u\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]},"
	"\"si\":{\"type\":[\"string\",\"integer\"]},\"e\":{\"enum\":[1,2]},\"x\":{}}}}},"
	"{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]";

static json_t *tools;

static void fold(struct record *r, const struct output_format *f, int flags, const char *text,
		 size_t len, const size_t *cut, size_t n_cuts)
{
	struct output_opts o = {.format = *f,
				.reasoning_open = flags & OPEN,
				.thinking = !(flags & OFF),
				.tools = flags & NO_TOOLS ? NULL : tools,
				.ends_are_text = flags & TEXT_END,
				.call_seed = 7};
	struct output *p;
	struct err e;
	size_t at = 0;
	char *copy;
	int rc = 0;

	record_begin(r);
	if (output_open(&p, &o, &e)) {
		r->bad = true;
		return;
	}
	for (size_t i = 0; i <= n_cuts && !rc; i++) {
		size_t end = i < n_cuts ? cut[i] : len;

		/* A copy of its own, so that reading beyond it is seen. */
		copy = malloc(end - at + 1);
		memcpy(copy, text + at, end - at);
		rc = output_push(p, copy, end - at, record_piece, r);
		free(copy);
		at = end;
	}
	if (!rc)
		rc = output_end(p, record_piece, r);
	r->bad |= rc != 0;
	output_close(p);
}

static uint64_t rng = 1;

static uint32_t rnd(uint32_t n)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((rng >> 33) % n);
}

/* The same for every split? Says the first that differs. */
static bool same(const struct output_format *f, int flags, const char *text, size_t len,
		 const char *expected, const size_t *cut, size_t n)
{
	struct record r;
	bool ok;

	fold(&r, f, flags, text, len, cut, n);
	ok = !r.bad && !strcmp(r.text, expected);
	if (!ok)
		printf("# %zu cuts, first at %zu: got%s\n# %s\n# expected\n# %s\n", n,
		       n ? cut[0] : 0, r.bad ? " (bad)" : "", r.text, expected);
	record_free(&r);
	return ok;
}

static bool every_split(const struct output_format *f, int flags, const char *text, size_t len,
			const char *expected)
{
	size_t *cut = malloc((len + 1) * sizeof(*cut));
	bool ok = same(f, flags, text, len, expected, NULL, 0);

	for (size_t i = 0; i < len; i++)
		cut[i] = i + 1;
	ok = ok && same(f, flags, text, len, expected, cut, len);
	for (size_t i = 1; i < len && ok; i++)
		ok = same(f, flags, text, len, expected, &i, 1);
	for (int k = 0; k < 20 && ok; k++) {
		size_t n = 0;

		for (size_t at = rnd(9); at < len; at += 1 + rnd(k + 2))
			cut[n++] = at;
		ok = same(f, flags, text, len, expected, cut, n);
	}
	free(cut);
	return ok;
}

static void answers(const char *format, enum output_reasoning r, enum output_tools t,
		    const struct answer *a, size_t n)
{
	struct output_format f = {r, t};

	for (size_t i = 0; i < n; i++)
		CHECK(every_split(&f, a[i].flags, a[i].text, strlen(a[i].text), a[i].expected),
		      "%s: %s", format, a[i].what);
}
#define ANSWERS(format, r, t, a) answers(format, r, t, a, sizeof(a) / sizeof(*a))

#define CALL(x)	 "<tool_call>\n" x "\n</tool_call>"
#define F(args)	 "{\"name\": \"f\", \"arguments\": " args "}"
#define BAD(why) "M\n"

static const struct answer hermes[] = {
	{"plain text", 0, "Hello there.\n", "C Hello there.\n"},
	{"nothing", 0, "", ""},
	{"white space alone", 0, " \n ", "C  \n "},
	{"one call", 0, CALL(F("{\"s\": \"x\"}")), "T f {\"s\":\"x\"}"},
	{"text before a call", 0, "Let me see.\n\n" CALL(F("{}")), "C Let me see.\nT f {}"},
	{"text after a call", 0, CALL(F("{}")) "\n\nDone.", "T f {}\nC Done."},
	{"two calls", 0, CALL(F("{\"i\":1}")) "\n" CALL("{\"arguments\":{},\"name\":\"g\"}"),
	 "T f {\"i\":1}\nT g {}"},
	{"calls without white space", 0,
	 "<tool_call>" F("{}") "</tool_call><tool_call>" F("{}") "</tool_call>", "T f {}\nT f {}"},
	{"a marker within a string", 0, CALL(F("{\"s\":\"</tool_call><tool_call>\"}")),
	 "T f {\"s\":\"</tool_call><tool_call>\"}"},
	{"a function that nobody offered", 0, CALL("{\"name\":\"rm\",\"arguments\":{\"a\":[]}}"),
	 "T rm {\"a\":[]}"},
	{"escapes and other scripts", 0,
	 CALL(F("{\"s\":\"\\u00e9\\n\\\"\\/\\ud83d\\ude80\\u0001 \xe4\xbd\xa0\"}")),
	 "T f {\"s\":\"\xc3\xa9\\n\\\"/\xf0\x9f\x9a\x80\\u0001 \xe4\xbd\xa0\"}"},
	{"numbers as written", 0,
	 CALL(F("{\"n\": [0.10, 1e5, -0, 123456789012345678901234567890]}")),
	 "T f {\"n\":[0.10,1e5,-0,123456789012345678901234567890]}"},
	{"order of members, nesting", 0,
	 CALL(F("{\"z\":{\"b\":1,\"a\":[true,false,null,{}]},\"a\":[ ]}")),
	 "T f {\"z\":{\"b\":1,\"a\":[true,false,null,{}]},\"a\":[]}"},
	{"arguments in a string", 0, CALL(F("\"{\\\"s\\\": \\\"x\\\"}\"")), "T f {\"s\":\"x\"}"},
	{"no arguments", 0, CALL("{\"name\":\"f\"}"), "T f {}"},
	{"null for arguments", 0, CALL(F("null")), "T f {}"},
	{"parameters for arguments", 0, CALL("{\"name\":\"f\",\"parameters\":{\"i\":1}}"),
	 "T f {\"i\":1}"},
	{"a key that stands twice: the last counts", 0,
	 CALL(F("{\"i\":1,\"s\":\"a\",\"\\u0069\":2}")), "T f {\"i\":2,\"s\":\"a\"}"},
	{"cut off after the object", 0, "<tool_call>\n" F("{}"), "T f {}"},
	{"cut off within the closing marker", 0, "<tool_call>\n" F("{}") "\n</tool_c", "T f {}"},
	{"a next call for the closing marker", 0, "<tool_call>" F("{}") "<tool_call>" F("{}"),
	 "T f {}\nT f {}"},
	{"cut off within the object", 0, "A <tool_call>\n{\"name\": \"f\", \"argum",
	 "C A \nM\nC <tool_call>\n{\"name\": \"f\", \"argum"},
	{"cut off in the marker", 0, "A <tool_ca", "C A <tool_ca"},
	{"nothing in the call", 0, "<tool_call></tool_call>x", "M\nC <tool_call></tool_call>x"},
	{"no JSON", 0, CALL("f(1)"), "M\nC " CALL("f(1)")},
	{"wrong JSON", 0, CALL("{\"name\": f}") " y", "M\nC " CALL("{\"name\": f}") " y"},
	{"a newline in a string", 0, CALL(F("{\"s\":\"a\nb\"}")),
	 "M\nC " CALL(F("{\"s\":\"a\nb\"}"))},
	{"half a surrogate", 0, CALL(F("{\"s\":\"\\ud800\"}")),
	 "M\nC " CALL(F("{\"s\":\"\\ud800\"}"))},
	{"bad UTF-8 in a string", 0, CALL(F("{\"s\":\"\xff\"}")),
	 "M\nC " CALL(F("{\"s\":\"\xff\"}"))},
	{"no name", 0, CALL("{\"arguments\":{}}"), "M\nC " CALL("{\"arguments\":{}}")},
	{"a name that is a number", 0, CALL("{\"name\":1,\"arguments\":{}}"),
	 "M\nC " CALL("{\"name\":1,\"arguments\":{}}")},
	{"an empty name", 0, CALL("{\"name\":\"\",\"arguments\":{}}"),
	 "M\nC " CALL("{\"name\":\"\",\"arguments\":{}}")},
	{"a list for arguments", 0, CALL(F("[]")), "M\nC " CALL(F("[]"))},
	{"a string that is no object for arguments", 0, CALL(F("\"x\"")), "M\nC " CALL(F("\"x\""))},
	{"text behind the object", 0, "<tool_call>" F("{}") "}</tool_call>",
	 "M\nC <tool_call>" F("{}") "}</tool_call>"},
	{"a good call behind a bad one", 0, CALL("{]") "\n" CALL(F("{}")),
	 "M\nC " CALL("{]") "\nT f {}"},
	{"a bad call behind a good one", 0, CALL(F("{}")) "\n" CALL("{]"),
	 "T f {}\nM\nC " CALL("{]")},
	{"the marker's name in prose", 0, "Write <tool_call> tags",
	 "C Write \nM\nC <tool_call> tags"},
	{"without tools a call is content", NO_TOOLS, "A\n" CALL(F("{}")), "C A\n" CALL(F("{}"))},
	{"the end of a turn", 0, "Hi<|im_end|>", "C Hi"},
	{"what reads like the end of a turn", TEXT_END, "Write <|im_end|> there",
	 "C Write <|im_end|> there"},
	{"the end of a turn behind a call", 0, CALL(F("{}")) "<|im_end|>\n", "T f {}"},
	{"nearly markers", 0, "a < b, <tool, <<tool_cal <|im_x",
	 "C a < b, <tool, <<tool_cal <|im_x"},
	{"XML where JSON was asked for", 0, "<tool_call>\n<function=f>\n</function>\n</tool_call>",
	 "T f {}"},
	{"white space within", 0,
	 "<tool_call> { \"name\" :\t\"f\" ,\r\n\"arguments\" : { } } </tool_call>", "T f {}"},
	{"a comma too many", 0, CALL(F("{\"i\":1,}")), "M\nC " CALL(F("{\"i\":1,}"))},
	{"a comma too few", 0, CALL(F("[1 2]")), "M\nC " CALL(F("[1 2]"))},
	{"no colon", 0, CALL("{\"name\" 1}"), "M\nC " CALL("{\"name\" 1}")},
	{"wrong escapes", 0, CALL(F("\"\\x\"")) CALL(F("\"\\u12x4\"")) CALL(F("\"\\udc00\"")),
	 "M\nC " CALL(F("\"\\x\"")) "\nM\nC " CALL(F("\"\\u12x4\"")) "\nM\nC " CALL(
		 F("\"\\udc00\""))},
	{"wrong numbers", 0, CALL(F("{\"i\":01}")) CALL(F("{\"i\":1.}")) CALL(F("{\"i\":nan}")),
	 "M\nC " CALL(F("{\"i\":01}")) "\nM\nC " CALL(F("{\"i\":1.}")) "\nM\nC " CALL(
		 F("{\"i\":nan}"))},
	{"exponents", 0, CALL(F("{\"n\":[1E+5,-1.5e-3]}")), "T f {\"n\":[1E+5,-1.5e-3]}"},
	{"a name with a control character", 0, CALL("{\"name\":\"a\\nb\"}"),
	 "M\nC " CALL("{\"name\":\"a\\nb\"}")},
	{"letters in other scripts where JSON ends", 0, "<tool_call>{\xc3\xa9}\xc3\xa9</tool_call>",
	 "M\nC <tool_call>{\xc3\xa9}\xc3\xa9</tool_call>"},
};

static const struct answer think[] = {
	{"a block and an answer", 0, "<think>\nHm.\n</think>\n\nYes.", "R Hm.\nC Yes."},
	{"no block", 0, "Yes.", "C Yes."},
	{"an empty block", 0, "<think>\n\n</think>\n\nYes.", "C Yes."},
	{"an open block", OPEN, "Hm.\n</think>\n\nYes.", "R Hm.\nC Yes."},
	{"an open block that is opened again", OPEN, "\n\nHm.</think>Yes.", "R Hm.\nC Yes."},
	{"never closed", OPEN, "Hm.\n\n", "R Hm.\n\n"},
	{"never closed, opened by itself", 0, "<think>Hm. ", "R Hm. "},
	{"never closed, thinking is off", OPEN | OFF, "Hm.\nYes.", "C Hm.\nYes."},
	{"opened by itself, thinking is off", OFF, "<think>\nHm.\n</think>\nYes.", "R Hm.\nC Yes."},
	{"opened by itself, never closed, thinking is off", OFF, "<think>\nHm", "C Hm"},
	{"thinking is off", OFF, "Yes.", "C Yes."},
	{"a closing marker to begin with", OFF, "</think>\n\nYes.", "C Yes."},
	{"white space to begin with", 0, " \n<think>a</think> b", "R a\nC  b"},
	{"white space, no block", 0, " \n<th", "C  \n<th"},
	{"a marker later on is content", 0, "Say <think>x</think>", "C Say <think>x</think>"},
	{"newlines within", OPEN, "a\n\n\nb\n</think>c", "R a\n\n\nb\nC c"},
	{"nearly closed", OPEN, "a </thin", "R a </thin"},
	{"a call closes it", OPEN, "Hm.\n" CALL(F("{}")), "R Hm.\nT f {}"},
	{"a call closes it, thinking is off", OPEN | OFF, "Hm.\n" CALL(F("{}")) "ok",
	 "R Hm.\nT f {}\nC ok"},
	{"a call that is none stays reasoning", OPEN,
	 "Use <tool_call>{\"name\": <function-name>} </think>x",
	 "R Use <tool_call>{\"name\": <function-name>} \nC x"},
	{"a call behind it", 0, "<think>\nHm.\n</think>\n\n" CALL(F("{}")), "R Hm.\nT f {}"},
	{"the end of a turn", OPEN, "Hm.<|im_end|>", "R Hm."},
};

#define X(x)	"<tool_call>\n<function=f>\n" x "</function>\n</tool_call>"
#define P(k, v) "<parameter=" k ">\n" v "\n</parameter>\n"

static const struct answer qwen_xml[] = {
	{"no parameters", 0, X(""), "T f {}"},
	{"a string", 0, X(P("s", "a b")), "T f {\"s\":\"a b\"}"},
	{"a string of lines", 0, X(P("s", "\n a\n\tb\"\\\n")),
	 "T f {\"s\":\"\\n a\\n\\tb\\\"\\\\\\n\"}"},
	{"a string that looks like a number", 0, X(P("s", "12")), "T f {\"s\":\"12\"}"},
	{"a string that says null", 0, X(P("s", "null")), "T f {\"s\":\"null\"}"},
	{"an integer", 0, X(P("i", "-007")), "T f {\"i\":-7}"},
	{"a long integer", 0, X(P("i", "123456789012345678901")),
	 "T f {\"i\":123456789012345678901}"},
	{"no integer", 0, X(P("i", "many")), "T f {\"i\":\"many\"}"},
	{"a number", 0, X(P("n", "2.50")), "T f {\"n\":2.50}"},
	{"a whole number", 0, X(P("n", "5.0")), "T f {\"n\":5}"},
	{"no number", 0, X(P("n", "nan")), "T f {\"n\":\"nan\"}"},
	{"true", 0, X(P("b", "True")), "T f {\"b\":true}"},
	{"false", 0, X(P("b", "false")), "T f {\"b\":false}"},
	{"neither", 0, X(P("b", "yes")), "T f {\"b\":\"yes\"}"},
	{"null", 0, X(P("i", "null") P("u", "null")), "T f {\"i\":null,\"u\":null}"},
	{"a string or null", 0, X(P("u", "12")), "T f {\"u\":\"12\"}"},
	{"a string or an integer", 0, X(P("si", "12")), "T f {\"si\":12}"},
	{"a type from an enum", 0, X(P("e", "2")), "T f {\"e\":2}"},
	{"an object", 0, X(P("o", "{\"k\": [1, {}]}")), "T f {\"o\":{\"k\":[1,{}]}}"},
	{"an object in Python", 0, X(P("o", "{'k': [True, None, 1.5], \"l\": ('a\\'b',)}")),
	 "T f {\"o\":{\"k\":[true,null,1.5],\"l\":[\"a'b\"]}}"},
	{"no object", 0, X(P("o", "{k}")), "T f {\"o\":\"{k}\"}"},
	{"a list", 0, X(P("a", "[1,\n 2]")), "T f {\"a\":[1,2]}"},
	{"a parameter without a type", 0, X(P("x", "1")), "T f {\"x\":\"1\"}"},
	{"a parameter that nobody declared", 0, X(P("zz", "1")), "T f {\"zz\":\"1\"}"},
	{"a function that nobody offered", 0, "<function=h>" P("i", "1") "</function>",
	 "T h {\"i\":\"1\"}"},
	{"several", 0, X(P("s", "a") P("i", "1") P("b", "true")),
	 "T f {\"s\":\"a\",\"i\":1,\"b\":true}"},
	{"twice: the last counts", 0, X(P("i", "1") P("i", "2")), "T f {\"i\":2}"},
	{"without newlines", 0,
	 "<function=f><parameter=s>a</parameter><parameter=i>1</parameter></function>",
	 "T f {\"s\":\"a\",\"i\":1}"},
	{"tags within a value", 0, X(P("s", "<b>x</b> <function=y> <parameter=z>")),
	 "T f {\"s\":\"<b>x</b> <function=y> <parameter=z>\"}"},
	{"no wrapper", 0, "Now:\n<function=f>\n" P("i", "1") "</function>\n</tool_call>",
	 "C Now:\nT f {\"i\":1}"},
	{"two calls", 0, X(P("i", "1")) "\n" X(P("i", "2")), "T f {\"i\":1}\nT f {\"i\":2}"},
	{"two functions in a wrapper", 0,
	 "<tool_call><function=f></function><function=g></function></tool_call>", "T f {}\nT g {}"},
	{"text around", 0, "A.\n\n" X("") "\n\nB.", "C A.\nT f {}\nC B."},
	{"a parameter that was not closed", 0,
	 "<function=f>\n<parameter=s>\na\n<parameter=i>\n1\n</function>",
	 "T f {\"s\":\"a\",\"i\":1}"},
	{"a function that was not closed", 0,
	 "<tool_call>\n<function=f>\n" P("i", "1") "</tool_call>", "T f {\"i\":1}"},
	{"cut off behind a value", 0, "<tool_call>\n<function=f>\n" P("i", "1"), "T f {\"i\":1}"},
	{"cut off within a value", 0, "<tool_call>\n<function=f>\n<parameter=s>\nrm -rf /tm",
	 "M\nC <tool_call>\n<function=f>\n<parameter=s>\nrm -rf /tm"},
	{"cut off before a parameter", 0, "<tool_call>\n<function=f>\n",
	 "M\nC <tool_call>\n<function=f>\n"},
	{"cut off within the name", 0, "<function=f", "M\nC <function=f"},
	{"text between parameters", 0, "<function=f>x</function>", "M\nC <function=f>x</function>"},
	{"a name with a newline", 0, "<function=f\n>", "M\nC <function=f\n>"},
	{"an empty name", 0, "<function=></function>", "M\nC <function=></function>"},
	{"bad UTF-8 in a value", 0, X(P("s", "\xff")), "M\nC " X(P("s", "\xff"))},
	{"JSON where XML was asked for", 0, CALL(F("{}")), "T f {}"},
	{"a block, then a call", OPEN, "Hm\n</think>\n\n" X(""), "R Hm\nT f {}"},
	{"a call closes the block", OPEN, "Hm\n\n" X("") "\n", "R Hm\nT f {}"},
	{"without tools", NO_TOOLS, X(""), "C " X("")},
	{"Nemotron: an empty block", 0, "<think></think>" X("") "\n<|im_end|>", "T f {}"},
	{"blanks in the tags", 0, "<function= f ><parameter= s >a</parameter></function>",
	 "T f {\"s\":\"a\"}"},
	{"cut off within the closing tag", 0, "<function=f>" P("i", "1") "</func", "T f {\"i\":1}"},
	{"cut off within a next tag", 0, "<function=f>" P("i", "1") "<para",
	 "M\nC <function=f>" P("i", "1") "<para"},
	{"an empty parameter name", 0, "<function=f><parameter=>1</parameter>",
	 "M\nC <function=f><parameter=>1</parameter>"},
	{"a parameter name with a newline", 0, "<function=f><parameter=a\n>",
	 "M\nC <function=f><parameter=a\n>"},
};

#define Q    "<|\"|>"
#define G(x) "<|tool_call>call:f{" x "}<tool_call|>"

static const struct answer gemma4[] = {
	{"no arguments", 0, G(""), "T f {}"},
	{"values", 0, G("s:" Q "a, {b}: \"c\"" Q ",i:-3,n:2.50,b:true,z:null"),
	 "T f {\"s\":\"a, {b}: \\\"c\\\"\",\"i\":-3,\"n\":2.50,\"b\":true,\"z\":null}"},
	{"nesting", 0, G("o:{a:[1,[],{}," Q "x" Q "],b:{c:false}}"),
	 "T f {\"o\":{\"a\":[1,[],{},\"x\"],\"b\":{\"c\":false}}}"},
	{"white space", 0, G(" s : " Q " x " Q " , i : 1 "), "T f {\"s\":\" x \",\"i\":1}"},
	{"a quoted key", 0, G(Q "a b" Q ":1"), "T f {\"a b\":1}"},
	{"a bare string", 0, G("s:New York,d:2024-01-01"),
	 "T f {\"s\":\"New York\",\"d\":\"2024-01-01\"}"},
	{"markers within a string", 0, G("s:" Q "<tool_call|>}<|\" <|tool_call>" Q),
	 "T f {\"s\":\"<tool_call|>}<|\\\" <|tool_call>\"}"},
	{"lines and other scripts", 0, G("s:" Q "a\nb \xe4\xbd\xa0" Q),
	 "T f {\"s\":\"a\\nb \xe4\xbd\xa0\"}"},
	{"a name with dots", 0, "<|tool_call>call:a.b-c_1{}<tool_call|>", "T a.b-c_1 {}"},
	{"two calls", 0, G("i:1") G("i:2"), "T f {\"i\":1}\nT f {\"i\":2}"},
	{"text around", 0, "A \n" G("") "\n B", "C A\nT f {}\nC B"},
	{"twice: the last counts", 0, G("i:1,i:2"), "T f {\"i\":2}"},
	{"the hand-over behind a call", 0, G("") "<|tool_response>", "T f {}"},
	{"cut off behind the arguments", 0, "<|tool_call>call:f{i:1}", "T f {\"i\":1}"},
	{"cut off within the closing marker", 0, "<|tool_call>call:f{i:1}<tool_", "T f {\"i\":1}"},
	{"cut off within", 0, "<|tool_call>call:f{s:" Q "rm -r",
	 "M\nC <|tool_call>call:f{s:" Q "rm -r"},
	{"brackets that do not close", 0, "<|tool_call>call:f{o:{a:1}<tool_call|>" G(""),
	 "M\nC <|tool_call>call:f{o:{a:1}<tool_call|>\nT f {}"},
	{"no value", 0, G("s:"), "M\nC " G("s:")},
	{"no key", 0, G("1"), "M\nC " G("1")},
	{"no call", 0, "<|tool_call>f{}<tool_call|>", "M\nC <|tool_call>f{}<tool_call|>"},
	{"text behind the arguments", 0, "<|tool_call>call:f{}x<tool_call|>",
	 "M\nC <|tool_call>call:f{}x<tool_call|>"},
	{"bad UTF-8", 0, G("s:" Q "\xc3" Q), "M\nC " G("s:" Q "\xc3" Q)},
	{"a channel", 0, "<|channel>thought\nHm.\n<channel|>Yes.<turn|>", "R Hm.\nC Yes."},
	{"an empty channel", 0, "<|channel>thought\n<channel|>Yes.", "C Yes."},
	{"an empty channel without a newline", 0, "<|channel>thought<channel|>Yes.", "C Yes."},
	{"an open channel", OPEN, "Hm.\n<channel|>Yes.", "R Hm.\nC Yes."},
	{"a channel without a label", 0, "<|channel>thousand<channel|>Yes.", "R thousand\nC Yes."},
	{"a channel that is cut off", 0, "<|channel>thought\nHm", "R Hm"},
	{"a channel that is cut off in its label", 0, "<|channel>thou", "R thou"},
	{"a channel that is cut off, thinking is off", OFF, "<|channel>thought\nHm", "C Hm"},
	{"a channel later on", 0, "A.<|channel>thought\nHm.\n<channel|>B.", "C A.\nR Hm.\nC B."},
	{"a channel and calls", 0, "<|channel>thought\nHm.\n<channel|>\n" G("") G("i:1"),
	 "R Hm.\nT f {}\nT f {\"i\":1}"},
	{"a call closes a channel", 0, "<|channel>thought\nHm.\n" G(""), "R Hm.\nT f {}"},
	{"without tools", NO_TOOLS, "A " G("i:1"), "C A " G("i:1")},
	{"a bare string in quotes", 0, G("s:\"New York\""), "T f {\"s\":\"New York\"}"},
	{"no comma", 0, G("a:[" Q "x" Q Q "y" Q "]"), "M\nC " G("a:[" Q "x" Q Q "y" Q "]")},
	{"an empty name", 0, "<|tool_call>call:{}<tool_call|>",
	 "M\nC <|tool_call>call:{}<tool_call|>"},
	{"a blank behind the name", 0, "<|tool_call>call:f {}<tool_call|>", "T f {}"},
};

#define L(args) "{\"name\": \"f\", \"parameters\": " args "}"

static const struct answer llama3[] = {
	{"a call", 0, L("{\"s\": \"x\"}"), "T f {\"s\":\"x\"}"},
	{"a call behind the tag", 0, "<|python_tag|>" L("{\"i\": 1}") "<|eom_id|>",
	 "T f {\"i\":1}"},
	{"text, then a call behind the tag", 0, "Sure. <|python_tag|>" L("{}"), "C Sure.\nT f {}"},
	{"white space to begin with", 0, "\n\n" L("{}"), "T f {}"},
	{"with a type", 0, "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}",
	 "T f {}"},
	{"function for name", 0, "{\"function\": \"f\", \"parameters\": {}}", "T f {}"},
	{"function with all in it", 0,
	 "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"i\":1}}}",
	 "T f {\"i\":1}"},
	{"several", 0, L("{\"i\":1}") "; " L("{\"i\":2}") "\n" L("{\"i\":3}"),
	 "T f {\"i\":1}\nT f {\"i\":2}\nT f {\"i\":3}"},
	{"several behind the tag", 0, "<|python_tag|>" L("{}") ";" L("{}") "<|python_tag|>" L("{}"),
	 "T f {}\nT f {}\nT f {}"},
	{"text behind a call", 0, L("{}") " and so on", "T f {}\nC and so on"},
	{"a semicolon behind a call", 0, L("{}") "; and", "T f {}\nC ; and"},
	{"JSON that is an answer", 0, "{\"city\": \"Paris\"}", "C {\"city\": \"Paris\"}"},
	{"JSON that is an answer and has a name", 0, "{\"name\": \"Bob\", \"age\": 3} ok",
	 "C {\"name\": \"Bob\", \"age\": 3} ok"},
	{"an empty object", 0, "{}", "C {}"},
	{"a brace", 0, "{", "C {"},
	{"braces of a program", 0, "{ return; }", "C { return; }"},
	{"JSON later on", 0, "As JSON: " L("{}"), "C As JSON: " L("{}")},
	{"broken before its arguments", 0, "{\"name\": \"Bob\", \"a", "C {\"name\": \"Bob\", \"a"},
	{"broken within its arguments", 0, "{\"name\": \"f\", \"parameters\": {\"a\": x}}",
	 "M\nC {\"name\": \"f\", \"parameters\": {\"a\": x}}"},
	{"cut off", 0, "{\"name\": \"f\", \"parameters\": {\"a\":",
	 "M\nC {\"name\": \"f\", \"parameters\": {\"a\":"},
	{"a program behind the tag", 0, "<|python_tag|>print(1)", "M\nC <|python_tag|>print(1)"},
	{"a built-in call", 0, "<|python_tag|>search.call(query=\"x\")",
	 "M\nC <|python_tag|>search.call(query=\"x\")"},
	{"arguments in a string", 0, L("\"{}\""), "T f {}"},
	{"without tools", NO_TOOLS, L("{}"), "C " L("{}")},
	{"the end of a turn", 0, "Hi<|eot_id|>", "C Hi"},
};

static const struct answer mistral[] = {
	{"a list", 0, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"i\": 1}}]",
	 "T f {\"i\":1}"},
	{"a list of two", 0,
	 "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}}, "
	 "{\"name\":\"g\",\"arguments\":{},\"id\":\"123456789\"}]",
	 "T f {}\nT g {}"},
	{"one without a list", 0, "[TOOL_CALLS]" F("{}"), "T f {}"},
	{"name and arguments", 0, "[TOOL_CALLS]f[ARGS]{\"s\": \"[ARGS]{\"}",
	 "T f {\"s\":\"[ARGS]{\"}"},
	{"with an id", 0, "[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{}", "T f {}"},
	{"without [ARGS]", 0, "[TOOL_CALLS]f{\"i\": 1}", "T f {\"i\":1}"},
	{"two", 0, "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{\"a\":[]}", "T f {}\nT g {\"a\":[]}"},
	{"text before", 0, "I look. [TOOL_CALLS]f[ARGS]{}", "C I look.\nT f {}"},
	{"text behind", 0, "[TOOL_CALLS]f[ARGS]{} x", "T f {}\nC x"},
	{"a list that is cut off", 0, "[TOOL_CALLS][" F("{}") ",{\"na", "T f {}\nM\nC ,{\"na"},
	{"a list that is not closed", 0, "[TOOL_CALLS][" F("{}"), "T f {}"},
	{"an empty list", 0, "[TOOL_CALLS][]", "M\nC [TOOL_CALLS][]"},
	{"a list of something else", 0, "[TOOL_CALLS][1]", "M\nC [TOOL_CALLS][1]"},
	{"cut off in the name", 0, "[TOOL_CALLS]f", "M\nC [TOOL_CALLS]f"},
	{"cut off in the marker", 0, "[TOOL_CALLS]f[AR", "M\nC [TOOL_CALLS]f[AR"},
	{"cut off in the arguments", 0,
	 "[TOOL_CALLS]f[ARGS]{\"i\":", "M\nC [TOOL_CALLS]f[ARGS]{\"i\":"},
	{"arguments that are no object", 0, "[TOOL_CALLS]f[ARGS][1]",
	 "M\nC [TOOL_CALLS]f[ARGS][1]"},
	{"another marker", 0, "[TOOL_CALLS]f[X]{}", "M\nC [TOOL_CALLS]f[X]{}"},
	{"thinking", 0, "[THINK]Hm.[/THINK]Yes.", "R Hm.\nC Yes."},
	{"thinking, then a call", 0, "[THINK]Hm.\n[/THINK]\n[TOOL_CALLS]f[ARGS]{}",
	 "R Hm.\nT f {}"},
	{"thinking that is cut off", 0, "[THINK]Hm", "R Hm"},
	{"brackets", 0, "[TOOL] [1] [/THINK", "C [TOOL] [1] [/THINK"},
	{"without tools", NO_TOOLS, "[TOOL_CALLS]f[ARGS]{}", "C [TOOL_CALLS]f[ARGS]{}"},
	{"an empty name", 0, "[TOOL_CALLS][ARGS]{}", "M\nC [TOOL_CALLS][ARGS]{}"},
	{"a name with a newline", 0, "[TOOL_CALLS]f\n[ARGS]{}", "M\nC [TOOL_CALLS]f\n[ARGS]{}"},
	{"a blank behind the name", 0, "[TOOL_CALLS]f [ARGS] {}", "T f {}"},
};

#define H(to, body)                                                                                \
	"<|start|>assistant<|channel|>commentary to=" to " <|constrain|>json<|message|>" body
#define A(x)	 "<|channel|>analysis<|message|>" x "<|end|>"
#define FINAL(x) "<|start|>assistant<|channel|>final<|message|>" x

static const struct answer harmony[] = {
	{"analysis and final", 0, A("Hm.") FINAL("Yes.<|return|>"), "R Hm.\nC Yes."},
	{"final only", 0, "<|channel|>final<|message|>Yes.", "C Yes."},
	{"a call", 0, A("Hm.") H("functions.f", "{\"i\": 1}<|call|>"), "R Hm.\nT f {\"i\":1}"},
	{"a call that ends with the text", 0, A("Hm.") H("functions.f", "{}"), "R Hm.\nT f {}"},
	{"the receiver before the channel", 0,
	 " to=functions.f<|channel|>commentary json<|message|>{\"s\":\"x\"}<|call|>",
	 "T f {\"s\":\"x\"}"},
	{"text to the user before a call", 0,
	 "<|channel|>commentary<|message|>I look.\n<|end|>" H("functions.f", "{}<|call|>"),
	 "C I look.\nT f {}"},
	{"text to the user, then the answer", 0,
	 "<|channel|>commentary<|message|>I look.\n<|end|>" FINAL("Yes."), "C I look.\n\nYes."},
	{"analysis twice", 0, A("a\n") "<|start|>assistant" A("b") FINAL("c"), "R a\n\nb\nC c"},
	{"two calls", 0, H("functions.f", "{}<|call|>") H("functions.g", "{}<|call|>"),
	 "T f {}\nT g {}"},
	{"a receiver without functions.", 0, H("f", "{}<|call|>"), "T f {}"},
	{"no arguments", 0, H("functions.f", "<|call|>"), "T f {}"},
	{"cut off in the arguments", 0, H("functions.f", "{\"a\":"),
	 "M\nC " H("functions.f", "{\"a\":")},
	{"cut off before the arguments", 0, H("functions.f", ""), "M\nC " H("functions.f", "")},
	{"wrong arguments", 0, H("functions.f", "{a}<|call|>"), "M\nC " H("functions.f", "{a}")},
	{"a program for a tool that is not there", 0,
	 "<|channel|>analysis to=python code<|message|>print(1)<|call|>",
	 "M\nC <|channel|>analysis to=python code<|message|>print(1)"},
	{"analysis that is cut off", 0, "<|channel|>analysis<|message|>Hm.\n", "R Hm.\n"},
	{"an open analysis", OPEN, "Hm.<|end|>" FINAL("Yes."), "R Hm.\nC Yes."},
	{"a header that is cut off", 0, A("Hm.") "<|start|>assistant<|chan", "R Hm."},
	{"no header", 0, "Hello <|end|>", "C Hello "},
	{"no header, nearly one", 0, "<|chan", "C <|chan"},
	{"a start at the start", 0, FINAL("Yes."), "C Yes."},
	{"a missing end", 0, "<|channel|>analysis<|message|>Hm." FINAL("Yes."), "R Hm.\nC Yes."},
	{"a missing end and start", 0,
	 "<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Yes.", "R Hm.\nC Yes."},
	{"text between messages", 0, A("Hm.") "\noops\n" FINAL("Yes."), "R Hm.\nC oops\n\nYes."},
	{"without tools", NO_TOOLS, H("functions.f", "{}<|call|>"), "C " H("functions.f", "{}")},
	{"markers within strings", 0, H("functions.f", "{\"s\":\"<|call|>\"}<|call|>"),
	 "T f {\"s\":\"<|call|>\"}"},
	{"another channel", 0, "<|channel|>other<|message|>x<|end|>", "C x"},
	{"text behind the arguments", 0, H("functions.f", "{} x<|call|>"),
	 "M\nC " H("functions.f", "{} x")},
	{"cut off within the end of a call", 0, H("functions.f", "{}<|cal"), "T f {}"},
	{"a header without a text", 0, "<|channel|>analysis<|end|>" FINAL("Yes."),
	 "C <|channel|>analysis\n\nYes."},
	{"ends without a text", 0, "<|end|><|end|>Yes.", "C Yes."},
};

static const struct answer none[] = {
	{"everything is content", 0, "<think>a</think>" CALL(F("{}")) " <|im_end|>\n",
	 "C <think>a</think>" CALL(F("{}")) " <|im_end|>\n"},
};

/* ---- schemas of parameters ----------------------------------------------------------------------- */

static void conversion(const char *schema, const char *text, const char *expected)
{
	static const char tool[] = "[{\"name\":\"f\",\"parameters\":{\"properties\":{\"p\":%s},"
				   "\"$defs\":{\"I\":{\"type\":\"integer\"},\"L\":{\"$ref\":"
				   "\"#/$defs/L\"},\"a/b\":{\"enum\":[1.5,null]}}}}]";
	char source[1024], answer[1024], want[1024];
	struct output_format f = {R(NONE), T(QWEN_XML)};
	json_t *all = tools;

	snprintf(source, sizeof(source), tool, schema);
	snprintf(answer, sizeof(answer), "<function=f><parameter=p>%s</parameter></function>",
		 text);
	snprintf(want, sizeof(want), "T f {\"p\":%s}", expected);
	tools = json_loads(source, 0, NULL);
	CHECK(tools && same(&f, 0, answer, strlen(answer), want, NULL, 0), "%s: %s", schema, text);
	json_decref(tools);
	tools = all;
}

static void conversions(void)
{
	static const char *const c[][3] = {
		{"{\"enum\":[\"a\",\"1\"]}", "1", "\"1\""},
		{"{\"enum\":[true,null]}", "true", "true"},
		{"{\"enum\":[true,null]}", "None", "null"},
		{"{\"enum\":[[1]]}", "[1]", "[1]"},
		{"{\"const\":1.5}", "1.5", "1.5"},
		{"{\"const\":3}", "3", "3"},
		{"{\"type\":\"integer\",\"nullable\":true}", "None", "null"},
		{"{\"type\":\"integer\"}", " +5 ", "5"},
		{"{\"type\":\"integer\"}", "-0", "0"},
		{"{\"type\":\"integer\"}", "-", "\"-\""},
		{"{\"type\":\"integer\"}", "5.5", "\"5.5\""},
		{"{\"type\":\"number\"}", ".1", "0.1"},
		{"{\"type\":\"number\"}", "+1.25", "1.25"},
		{"{\"type\":\"number\"}", "1e3", "1000"},
		{"{\"type\":\"number\"}", "1e300", "1e300"},
		{"{\"type\":\"number\"}", "1e999", "\"1e999\""},
		{"{\"type\":\"number\"}", "0x10", "\"0x10\""},
		{"{\"properties\":{}}", "{\"a\":1}", "{\"a\":1}"},
		{"{\"$ref\":\"#/$defs/I\"}", "5", "5"},
		{"{\"$ref\":\"#/$defs/a~1b\"}", "1.5", "1.5"},
		{"{\"$ref\":\"#/$defs/a~1b\"}", "none", "null"},
		{"{\"$ref\":\"#/$defs/L\"}", "5", "\"5\""},
		{"{\"$ref\":\"#/$defs/none\"}", "5", "\"5\""},
		{"{\"$ref\":\"other\"}", "5", "\"5\""},
		{"{\"anyOf\":[{\"$ref\":\"#/$defs/I\"},{\"type\":\"null\"}]}", "7", "7"},
		{"{\"allOf\":[{\"$ref\":\"#/$defs/I\"}]}", "7", "7"},
		{"{\"type\":\"array\"}", "['a', \"b\"]", "[\"a\",\"b\"]"},
		{"{\"type\":\"array\"}", "[1, 2,]", "[1,2]"},
		{"{\"type\":\"array\"}", "[1 2]", "\"[1 2]\""},
		{"{\"type\":\"array\"}", "['a", "\"['a\""},
		{"{\"type\":\"array\"}", "[1] x", "\"[1] x\""},
		{"{\"type\":\"object\"}", "{'a' 1}", "\"{'a' 1}\""},
		{"{\"type\":\"object\"}", "{1: 2}", "\"{1: 2}\""},
		{"{\"type\":\"object\"}", "{}", "{}"},
		{"true", "5", "\"5\""},
	};

	for (size_t i = 0; i < sizeof(c) / sizeof(*c); i++)
		conversion(c[i][0], c[i][1], c[i][2]);
}

/* ---- what a table does not show --------------------------------------------------------------- */

struct seen {
	char id[2][OUTPUT_CALL_ID + 1];
	int n;
};

static int see(void *ctx, const struct output_piece *p)
{
	struct seen *s = ctx;

	if (p->kind == OUTPUT_CALL && s->n < 2)
		memcpy(s->id[s->n++], p->id, OUTPUT_CALL_ID + 1);
	return 0;
}

static void see_calls(struct seen *s, uint64_t seed)
{
	static const char text[] = CALL(F("{}")) CALL(F("{}"));
	struct output_opts o = {.format = {R(NONE), T(HERMES)}, .tools = tools, .call_seed = seed};
	struct output *p;

	memset(s, 0, sizeof(*s));
	if (output_open(&p, &o, NULL))
		return;
	output_push(p, text, strlen(text), see, s);
	output_end(p, see, s);
	output_close(p);
}

static void ids(void)
{
	struct seen a, b, c;
	bool plain = true;

	see_calls(&a, 1);
	see_calls(&b, 1);
	see_calls(&c, 2);
	for (const char *s = a.id[0]; *s; s++)
		plain &= (*s >= '0' && *s <= '9') || ((*s | 32) >= 'a' && (*s | 32) <= 'z');
	CHECK(a.n == 2 && plain && strlen(a.id[0]) == OUTPUT_CALL_ID, "ids are letters and digits");
	CHECK(strcmp(a.id[0], a.id[1]), "each call has its own");
	CHECK(!memcmp(&a, &b, sizeof(a)), "the same seed gives the same ids");
	CHECK(strcmp(a.id[0], c.id[0]), "another seed gives others");
}

static void sink_errors(void)
{
	static const char text[] = "<think>a</think>b" CALL("{]") "c" CALL(F("{}")) "d";
	struct output_opts o = {.format = {R(THINK), T(HERMES)}, .thinking = true, .tools = tools};
	bool ok = true;

	for (int k = 1; k <= 6; k++) {
		struct record r;
		struct output *p;
		int rc;

		record_begin(&r);
		r.fail_after = k;
		if (output_open(&p, &o, NULL))
			return;
		rc = output_push(p, text, strlen(text), record_piece, &r);
		ok &= rc == -EPIPE && output_push(p, "x", 1, record_piece, &r) == -EPIPE &&
		      output_end(p, record_piece, &r) == -EPIPE;
		output_close(p);
		record_free(&r);
	}
	CHECK(ok, "what the sink returns ends the call that it came from, and all that follow");
}

/* Where it stands after each part of the text: 'r' in reasoning, 'c' in content, 'p' past reasoning only, '-' neither. */
static void places(const char *what, struct output_format f, int flags, const char *const *part,
		   const char *expected)
{
	struct output_opts o = {.format = f,
				.reasoning_open = flags & OPEN,
				.thinking = !(flags & OFF),
				.tools = tools};
	char got[16] = "";
	struct record r;
	struct output *p;

	record_begin(&r);
	if (output_open(&p, &o, NULL))
		return;
	for (int i = 0; i < 15; i++) {
		got[i] = output_in_reasoning(p)	    ? 'r'
			 : output_in_content(p)	    ? 'c'
			 : output_past_reasoning(p) ? 'p'
						    : '-';
		if (!part[i])
			break;
		output_push(p, part[i], strlen(part[i]), record_piece, &r);
	}
	output_close(p);
	record_free(&r);
	if (!CHECK(!strcmp(got, expected), "where it stands: %s", what))
		printf("# %s, not %s\n", got, expected);
}

static void all_places(void)
{
	const struct output_format qwen = {R(THINK), T(HERMES)}, plain = {R(NONE), T(HERMES)};
	const struct output_format gemma = {R(GEMMA4), T(GEMMA4)}, oss = {R(HARMONY), T(HARMONY)};
	const char *const block[] = {"<th", "ink>", "a", "</thi", "nk>", "\n\n", "b", NULL};
	const char *const answer[] = {"b", "c", NULL};
	const char *const open[] = {"a", "<tool_call>{", "]", "</think>", NULL};
	const char *const implicit[] = {"a", "<tool_call>\n", F("{}"), "</tool_call>", "x", NULL};
	const char *const channel[] = {"<|channel>", "thought\n", "a", "<channel|>", "b", NULL};
	const char *const messages[] = {"<|channel|>analysis",
					"<|message|>",
					"a",
					"<|end|>",
					"<|start|>assistant<|channel|>final",
					"<|message|>",
					"b",
					NULL};

	places("a block", qwen, 0, block, "--rrrccc");
	places("thinking is off", qwen, OFF, answer, "ccc");
	places("thinking is on, and the model does not", qwen, 0, answer, "-cc");
	places("no reasoning in the format", plain, 0, answer, "ccc");
	places("a call that is none within reasoning", qwen, OPEN, open, "rrrrc");
	places("a call that closes reasoning", qwen, OPEN, implicit, "rrrrcc");
	places("a channel", gemma, 0, channel, "-rrrcc");
	places("messages", oss, 0, messages, "--rrppcc");
}

/* Reading a long call costs the same for each byte, however it comes. */
static void long_calls(void)
{
	static const struct {
		const char *what;
		struct output_format f;
		const char *head, *unit, *tail;
	} c[] = {
		{"hermes",
		 {R(NONE), T(HERMES)},
		 "<tool_call>{\"name\":\"f\",\"arguments\":{\"s\":\"",
		 "a\\n<",
		 "\"}}</tool_call>"},
		{"hermes, many members",
		 {R(NONE), T(HERMES)},
		 "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":[0",
		 ",{\"k\":1}",
		 "]}}</tool_call>"},
		{"qwen_xml",
		 {R(NONE), T(QWEN_XML)},
		 "<function=f><parameter=s>",
		 "a\n</",
		 "</parameter></function>"},
		{"gemma4",
		 {R(NONE), T(GEMMA4)},
		 "<|tool_call>call:f{s:<|\"|>",
		 "a<|\"",
		 "<|\"|>}<tool_call|>"},
		{"llama3",
		 {R(NONE), T(LLAMA3)},
		 "{\"name\":\"f\",\"parameters\":{\"s\":\"",
		 "ab",
		 "\"}}"},
		{"mistral", {R(NONE), T(MISTRAL)}, "[TOOL_CALLS]f[ARGS]{\"s\":\"", "[", "\"}"},
		{"harmony",
		 {R(HARMONY), T(HARMONY)},
		 "<|channel|>commentary to=f<|message|>{\"s\":\"",
		 "a<|",
		 "\"}<|call|>"},
		{"white space",
		 {R(NONE), T(HERMES)},
		 "<tool_call>",
		 "\n",
		 "{\"name\":\"f\"}</tool_call>"},
		{"white space behind",
		 {R(NONE), T(HERMES)},
		 "<tool_call>{\"name\":\"f\"}",
		 " ",
		 "</tool_call>"},
		{"reasoning",
		 {R(THINK), T(HERMES)},
		 "<think>",
		 "a\n</th",
		 "</think>" CALL(F("{}"))},
	};

	for (size_t i = 0; i < sizeof(c) / sizeof(*c); i++) {
		struct output_opts o = {.format = c[i].f, .thinking = true, .tools = tools};
		size_t unit = strlen(c[i].unit), bytes = strlen(c[i].head) + strlen(c[i].tail);
		struct record r;
		struct output *p;
		int rc;

		record_begin(&r);
		if (output_open(&p, &o, NULL))
			return;
		rc = output_push(p, c[i].head, strlen(c[i].head), record_piece, &r);
		for (int k = 0; k < 100000 && !rc; k++, bytes += unit)
			for (size_t b = 0; b < unit && !rc; b++)
				rc = output_push(p, c[i].unit + b, 1, record_piece, &r);
		if (!rc)
			rc = output_push(p, c[i].tail, strlen(c[i].tail), record_piece, &r);
		if (!rc)
			rc = output_end(p, record_piece, &r);
		CHECK(!rc && r.calls == 1 && !r.malformed, "a long call: %s", c[i].what);
		CHECK(p->work < 8 * bytes, "it is read once: %s: %.1f steps a byte", c[i].what,
		      (double)p->work / (double)bytes);
		output_close(p);
		record_free(&r);
	}
}

/* A call of `n` bytes of arguments, whole or in parts of 4096 bytes. */
static void huge_call(size_t n, size_t part, struct record *r)
{
	static const char head[] = "<tool_call>{\"name\":\"f\",\"arguments\":{\"s\":\"";
	static const char tail[] = "\"}}</tool_call>" CALL(F("{}"));
	size_t len = strlen(head) + n + strlen(tail);
	struct output_opts o = {.format = {R(NONE), T(HERMES)}, .tools = tools};
	char *text = malloc(len);
	struct output *p;

	memcpy(text, head, strlen(head));
	memset(text + strlen(head), 'a', n);
	memcpy(text + strlen(head) + n, tail, strlen(tail));
	record_begin(r);
	if (!output_open(&p, &o, NULL)) {
		for (size_t at = 0; at < len; at += part)
			output_push(p, text + at, len - at < part ? len - at : part, record_piece,
				    r);
		output_end(p, record_piece, r);
		output_close(p);
	}
	free(text);
}

static void limits(void)
{
	static char deep[3 * OUTPUT_MAX_DEPTH + 200], name[1600];
	struct output_format f = {R(NONE), T(HERMES)}, g = {R(NONE), T(GEMMA4)};
	struct output_format h = {R(HARMONY), T(HARMONY)};
	struct record a, b;
	int n;

	huge_call(10 << 20, SIZE_MAX, &a);
	huge_call(10 << 20, 4096, &b);
	CHECK(a.calls == 2 && !a.malformed, "10 MiB of arguments are a call");
	CHECK(a.n == b.n && !memcmp(a.text, b.text, a.n), "so they are in parts");
	record_free(&a);
	record_free(&b);
	huge_call(20 << 20, SIZE_MAX, &a);
	huge_call(20 << 20, 4096, &b);
	CHECK(a.calls == 1 && a.malformed == 1, "20 MiB are none: %s", a.why);
	CHECK(a.n == b.n && !memcmp(a.text, b.text, a.n), "neither are they in parts");
	record_free(&a);
	record_free(&b);

	for (int over = 0; over < 2; over++) {
		/* the call's own braces are a level too */
		int d = OUTPUT_MAX_DEPTH - 2 + over;

		n = sprintf(deep, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":");
		memset(deep + n, '[', d);
		memset(deep + n + d, ']', d);
		strcpy(deep + n + 2 * d, "}}</tool_call>");
		fold(&a, &f, 0, deep, strlen(deep), NULL, 0);
		CHECK(a.calls == !over && a.malformed == over, "hermes: %d levels: %s", d, a.why);
		record_free(&a);
		n = sprintf(deep, "<|tool_call>call:f{a:");
		d++;
		memset(deep + n, '[', d);
		memset(deep + n + d, ']', d);
		strcpy(deep + n + 2 * d, "}<tool_call|>");
		fold(&a, &g, 0, deep, strlen(deep), NULL, 0);
		CHECK(a.calls == !over && a.malformed == over, "gemma4: %d levels: %s", d, a.why);
		record_free(&a);
	}
	/* A header that goes on for too long is text, and no character of it is cut in two. */
	n = sprintf(name, "<|channel|>");
	while (n < (int)sizeof(name) - 8)
		n += sprintf(name + n, "\xe4\xbd\xa0");
	fold(&a, &h, 0, name, (size_t)n, NULL, 0);
	fold(&b, &h, 0, name, (size_t)n, (size_t[]){700, 1025}, 2);
	CHECK(a.n == (size_t)n + 2 && !strcmp(a.text, b.text) && !a.cut && !b.cut,
	      "a header of %d bytes is content", n);
	record_free(&a);
	record_free(&b);
	for (int over = 0; over < 2; over++) {
		n = sprintf(name, "<tool_call>{\"name\":\"");
		memset(name + n, 'n', OUTPUT_MAX_NAME + over);
		strcpy(name + n + OUTPUT_MAX_NAME + over, "\"}</tool_call>");
		fold(&a, &f, 0, name, strlen(name), NULL, 0);
		CHECK(a.calls == !over && a.malformed == over, "a name of %d bytes",
		      OUTPUT_MAX_NAME + over);
		record_free(&a);
	}
}

static void reasons(void)
{
	struct output_format f = {R(NONE), T(HERMES)};
	struct record r;

	fold(&r, &f, 0, CALL("{\"name\": x"), strlen(CALL("{\"name\": x")), NULL, 0);
	CHECK(!strncmp(r.why, "no valid tool call: ", 20), "why it is no call: %s", r.why);
	record_free(&r);
	for (int i = 0; i <= OUTPUT_REASONING_MISTRAL; i++)
		CHECK(output_reasoning_by_name(output_reasoning_name(i)) == i,
		      "a parser of reasoning has a name: %s", output_reasoning_name(i));
	for (int i = 0; i <= OUTPUT_TOOLS_HARMONY; i++)
		CHECK(output_tools_by_name(output_tools_name(i)) == i,
		      "a parser of calls has a name: %s", output_tools_name(i));
	CHECK(output_tools_by_name("x") == -1 && output_reasoning_by_name("") == -1,
	      "other names are unknown");
}

/* What closes reasoning does close it, and what opens it opens it. */
static void close_and_open(void)
{
	for (int i = OUTPUT_REASONING_THINK; i <= OUTPUT_REASONING_MISTRAL; i++) {
		struct output_opts o = {.format = {i, T(NONE)}, .thinking = true};
		const char *open = output_reasoning_open(i), *close = output_reasoning_close(i);
		struct record r;
		struct output *p;
		bool in, past;

		record_begin(&r);
		if (output_open(&p, &o, NULL))
			return;
		output_push(p, open, strlen(open), record_piece, &r);
		in = output_in_reasoning(p);
		output_push(p, "a", 1, record_piece, &r);
		output_push(p, close, strlen(close), record_piece, &r);
		past = output_past_reasoning(p);
		output_push(p, "b", 1, record_piece, &r);
		output_end(p, record_piece, &r);
		CHECK(in && past && !strcmp(r.text, "R a\nC b"), "%s opens and closes",
		      output_reasoning_name(i));
		output_close(p);
		record_free(&r);
	}
}

int main(void)
{
	tools = json_loads(tools_json, 0, NULL);
	CHECK(tools, "the tools are JSON");
	ANSWERS("none", R(NONE), T(NONE), none);
	ANSWERS("hermes", R(NONE), T(HERMES), hermes);
	ANSWERS("think", R(THINK), T(HERMES), think);
	ANSWERS("qwen_xml", R(THINK), T(QWEN_XML), qwen_xml);
	ANSWERS("gemma4", R(GEMMA4), T(GEMMA4), gemma4);
	ANSWERS("llama3", R(NONE), T(LLAMA3), llama3);
	ANSWERS("mistral", R(MISTRAL), T(MISTRAL), mistral);
	ANSWERS("harmony", R(HARMONY), T(HARMONY), harmony);
	conversions();
	ids();
	sink_errors();
	all_places();
	close_and_open();
	reasons();
	limits();
	long_calls();
	json_decref(tools);
	return tap_done();
}
