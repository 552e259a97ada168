// SPDX-License-Identifier: MIT
/* Regular expressions, GBNF, lists of strings; and grammars that are meant to break us. */
#include <errno.h>
#include <time.h>

#include "tests/unit/grammar_check.h"

static struct voc bytes, bpe;

struct text_case {
	const char *source;
	const char *yes[10], *no[10];
};

static const struct text_case regexes[] = {
	{"abc", {"abc"}, {"ab", "abcd", ""}},
	{"^abc$", {"abc"}, {"xabc"}},
	{"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
	{"(?:a|b)*c+", {"c", "abbacc"}, {"ab", ""}},
	{"(?P<year>\\d{4})-(?<m>\\d\\d)", {"2024-01"}, {"24-01", "2024-1"}},
	{"x{2}y{1,}z{,2}", {"xxy", "xxyyyzz"}, {"xy", "xxyzzz"}},
	{"a{b", {"a{b"}, {"a"}},
	{"[a-c-]+?", {"a-c"}, {"d"}},
	{"[^a-c\\n]", {"d", "\xc3\xa9", "\xf0\x9f\x9a\x80"}, {"a", "\n", "dd"}},
	{"[\\d\\s_]+", {"1 _\t"}, {"a"}},
	{"\\w+\\W\\S\\D", {"a_1 xy"}, {"a", "a  1"}},
	{"\xe4\xbd\xa0[\xe0\xa4\x85-\xe0\xa4\xb9]", {"\xe4\xbd\xa0\xe0\xa4\x95"}, {"\xe4\xbd\xa0"}},
	{"\\u00e9\\x41\\u{1F680}\\ud83d\\ude80",
	 {"\xc3\xa9"
	  "A\xf0\x9f\x9a\x80\xf0\x9f\x9a\x80"},
	 {"e"}},
	{"\\.\\/\\-\\t\\\\", {"./-\t\\"}, {"a"}},
	{".", {"a", "\xe2\x82\xac"}, {"\n", "", "\xff", "\xe2\x82"}},
	{"(a?){2,3}b", {"b", "ab", "aab", "aaab"}, {"aaaab"}},
	{"(a*){1000}b", {"b", "aab"}, {"a"}},
	{"(a|b?){300}c", {"c", "abc", "bbbbc"}, {"b"}},
	{"((ab?)*|x){0,500}y", {"y", "ababxay"}, {"b"}},
	{"20[0-9]{2}-(0[1-9]|1[0-2])-[0-3][0-9] ([01][0-9]|2[0-3]):[0-5][0-9]",
	 {"2026-11-21 16:15"},
	 {"2026-13-21 16:15"}},
	{"a{0}b", {"b"}, {"ab"}},
	{"(a{2,3}){200,300}", {}, {"aaa"}},
};

static const struct {
	const char *source;
	int rc;
	const char *says;
} bad_regexes[] = {
	{"a(", -EINVAL, "offset 1"},
	{"a)", -EINVAL, "offset 1"},
	{"[a", -EINVAL, "offset 0"},
	{"[]", -EINVAL, "offset 0"},
	{"[b-a]", -EINVAL, "offset 2"},
	{"*a", -EINVAL, "offset 0"},
	{"a**", -EINVAL, "offset 1"},
	{"a{3,2}", -EINVAL, "offset 1"},
	{"a{2,", -EINVAL, "offset 1"},
	{"\\", -EINVAL, "offset 0"},
	{"ab\\q", -EINVAL, "offset 2"},
	{"\\u12", -EINVAL, "offset 0"},
	{"\\ud83dx", -EINVAL, "offset 0"},
	{"\xff", -EINVAL, "offset 0"},
	{"(a)\\1", -EOPNOTSUPP, "offset 3"},
	{"(?=a)", -EOPNOTSUPP, "offset 0"},
	{"(?<!a)", -EOPNOTSUPP, "offset 0"},
	{"(?i)a", -EOPNOTSUPP, "offset 0"},
	{"a\\b", -EOPNOTSUPP, "offset 1"},
	{"\\p{L}", -EOPNOTSUPP, "offset 0"},
	{"a++", -EOPNOTSUPP, "offset 1"},
	{"a^b", -EOPNOTSUPP, "offset 1"},
	{"a$b", -EOPNOTSUPP, "offset 1"},
	{"[[:alpha:]]", -EOPNOTSUPP, "offset 1"},
	{"a{99999999999}", -E2BIG, "offset 2"},
	{"[^\\s\\S]", -EINVAL, "nothing can match"},
};

static const struct text_case gbnfs[] = {
	{"root ::= \"a\" | \"b\" root", {"a", "bba"}, {"b", ""}},
	{"# a comment\nroot ::= x+ \"!\"? # here too\nx ::= [a-c] [^a-c]\n",
	 {"ad", "adc!!"},
	 {"da", "a"}},
	{"root ::= (\n  \"a\" |\n  \"b\"\n)* \"c\"{2,3}\n", {"cc", "abccc"}, {"c", "cccc"}},
	{"root ::= \"\\x41\\u00e9\\U0001F680\\n\\\"\\\\\"",
	 {"A\xc3\xa9\xf0\x9f\x9a\x80\n\"\\"},
	 {"A"}},
	{"root ::= [\\]\\[\\-\\\\^] .{2} \"x\"{0,}",
	 {"]ab",
	  "-\n\xe2\x82\xac"
	  "xx",
	  "^aa"},
	 {"aab"}},
	{"root ::= expr\nexpr ::= term (\"+\" term)*\nterm ::= num | \"(\" expr \")\"\nnum ::= "
	 "[0-9]+",
	 {"1", "1+(2+3)+4", "((((1))))"},
	 {"1+", "(1", "1)"}},
	{"root ::= a a\na ::= | \"x\"", {"", "x", "xx"}, {"xxx"}},
	{"root ::= a\na ::= b\nb ::= a | \"x\"", {"x"}, {"", "xx"}},
	{"root ::= <|none|> \"y\"", {"<|none|>y"}, {"y"}},
	{"root ::= \"a\"\n    | \"b\"\n", {"a", "b"}, {"c"}},
	{"root  ::= item (\",\" item)*        # a comment\nitem  ::= word | \"(\" root \")\"\n"
	 "word  ::= [a-zA-Z_] [^ \\t\\n,()]{0,31}",
	 {"a", "a,(b,cd),e"},
	 {"", "a,", "(a"}},
	{"root ::= sum \" = \" num\nsum ::= num (\" + \" num)+\nnum ::= [1-9] [0-9]{0,3}",
	 {"2 + 3 = 5"},
	 {"2 = 2"}},
	{"root ::= \"(\" root \")\" | \"\"", {"", "()", "((()))"}, {"(", "())"}},
};

static const struct {
	const char *source;
	int rc;
	const char *says;
} bad_gbnfs[] = {
	{"", -EINVAL, "root"},
	{"x ::= \"a\"", -EINVAL, "root"},
	{"root ::= y", -EINVAL, "line 1, column 10: a rule that is not defined"},
	{"root ::= \"a\"\nroot ::= \"b\"", -EINVAL, "line 2, column 1"},
	{"root ::= \"a", -EINVAL, "line 1, column 10"},
	{"root ::= [a", -EINVAL, "line 1, column 10"},
	{"root ::= (\"a\"", -EINVAL, "line 1, column 10"},
	{"root ::= \"a\")", -EINVAL, "line 1, column 13"},
	{"root = \"a\"", -EINVAL, "line 1, column 1"},
	{"root ::= \"a\"{3,2}", -EINVAL, "line 1, column 13"},
	{"root ::= \"a\"{9999999}", -E2BIG, "line 1"},
	{"root ::= \"\\q\"", -EINVAL, "line 1, column 11"},
	{"root ::= *", -EINVAL, "line 1, column 10"},
	{"root ::= root \"a\" | \"b\"", -EINVAL, "left recursion"},
	{"root ::= a root \"x\" | \"b\"\na ::= \"y\"?", -EINVAL, "left recursion"},
	{"root ::= x \"a\"\nx ::= y \"b\" | \"c\"\ny ::= x", -EINVAL, "left recursion"},
	{"root ::= \"a\" root", -EINVAL, "nothing can match"},
	{"root ::= []", -EINVAL, "nothing can match"},
};

/* On one line, for a test's name. */
static const char *line(const char *s)
{
	static char text[256];
	size_t n = 0;

	for (; *s && n + 1 < sizeof(text); s++)
		text[n++] = *s == '\n' ? ' ' : *s;
	text[n] = 0;
	return text;
}

typedef int (*compiler)(struct grammar **, const char *, size_t, struct err *);

static void check_texts(const char *what, compiler compile, const struct text_case *c)
{
	struct grammar *g = NULL;
	struct err e;
	size_t at;
	bool ok = true;
	int rc = compile(&g, c->source, strlen(c->source), &e);

	REQUIRE(!rc, "%s compiles: %s%s%s", what, line(c->source), rc ? ": " : "", rc ? e.msg : "");
	for (int i = 0; c->yes[i]; i++) {
		if (!takes(&bytes, g, c->yes[i], strlen(c->yes[i]), &at) ||
		    !takes_tokens(&bpe, g, c->yes[i], strlen(c->yes[i]))) {
			printf("# must pass, refused at %zu: %s\n", at, c->yes[i]);
			ok = false;
		}
	}
	for (int i = 0; c->no[i]; i++) {
		if (takes(&bytes, g, c->no[i], strlen(c->no[i]), NULL)) {
			printf("# must not pass: %s\n", c->no[i]);
			ok = false;
		}
	}
	CHECK(ok, "%s: %s", what, line(c->source));
	grammar_free(g);
}

static void check_bad(const char *what, compiler compile, const char *source, int want,
		      const char *says)
{
	struct grammar *g = NULL;
	struct err e = {""};
	int rc = compile(&g, source, strlen(source), &e);

	CHECK(rc == want && !g && strstr(e.msg, says), "%s: %s: %d, %s", what, line(source), rc,
	      e.msg);
	grammar_free(g);
}

static void check_choice(void)
{
	json_t *l = json_loads("[\"yes\",\"no\",\"yesterday\",\"\\u00e9\",\"yes\"]", 0, NULL);
	json_t *none = json_array(), *odd = json_loads("[\"a\",1]", 0, NULL);
	struct grammar *g = NULL;
	struct err e;

	REQUIRE(!grammar_choice(&g, l, &e), "a list of strings");
	CHECK(takes(&bytes, g, "yes", 3, NULL) && takes(&bytes, g, "yesterday", 9, NULL) &&
		      takes(&bytes, g, "\xc3\xa9", 2, NULL) && takes_tokens(&bpe, g, "no", 2),
	      "each of them passes");
	CHECK(!takes(&bytes, g, "yest", 4, NULL) && !takes(&bytes, g, "", 0, NULL) &&
		      !takes(&bytes, g, "noyes", 5, NULL),
	      "nothing else");
	grammar_free(g);
	CHECK(grammar_choice(&g, none, &e) == -EINVAL && !g, "an empty list: %s", e.msg);
	CHECK(grammar_choice(&g, odd, &e) == -EINVAL && strstr(e.msg, "item 1"), "no string: %s",
	      e.msg);
	json_decref(l);
	json_decref(none);
	json_decref(odd);
}

/* ---- hostile ------------------------------------------------------------------------------------ */

static char *repeat(const char *head, const char *s, int n, const char *tail)
{
	size_t k = strlen(s), h = strlen(head);
	char *text = malloc(h + k * (size_t)n + strlen(tail) + 1), *p = text;

	memcpy(p, head, h);
	p += h;
	for (int i = 0; i < n; i++, p += k)
		memcpy(p, s, k);
	strcpy(p, tail);
	return text;
}

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Compiles or is refused; if it compiles, a few masks and tokens go through it. */
static void endure(const char *what, int rc, struct grammar *g, struct err *e)
{
	struct matcher *m;
	double t0 = cpu_seconds(), t;
	int steps = 0;

	if (rc) {
		CHECK((rc == -EINVAL || rc == -E2BIG || rc == -EOPNOTSUPP) && !g &&
			      strlen(e->msg) > 5,
		      "%s: refused: %s", what, e->msg);
		return;
	}
	rc = matcher_open(&m, g, bpe.v, e);
	for (; !rc && steps < 20; steps++) {
		const uint64_t *mask = matcher_mask(m);
		int32_t id = 0;

		while (id < bpe.n && !has_bit(mask, id))
			id++;
		if (id == bpe.n || matcher_accept(m, id))
			break;
		if (id == bpe.eos)
			break;
	}
	t = cpu_seconds() - t0;
	/* generous: sanitizers and slow machines; without bounds it would be hours */
	CHECK(!rc && t < 120, "%s: compiled, %d steps in %.2f s", what, steps, t);
	if (!rc)
		matcher_close(m);
	grammar_free(g);
}

static void endure_text(const char *what, compiler compile, char *text)
{
	struct grammar *g = NULL;
	struct err e = {""};
	int rc = compile(&g, text, strlen(text), &e);

	endure(what, rc, g, &e);
	free(text);
}

static void endure_schema(const char *what, char *text)
{
	json_t *j = json_loads(text, 0, NULL);
	struct grammar *g = NULL;
	struct err e = {""};
	int rc;

	REQUIRE(j != NULL, "%s: JSON", what);
	rc = grammar_json_schema(&g, j, &e);
	endure(what, rc, g, &e);
	json_decref(j);
	free(text);
}

static void check_hostile(void)
{
	char *doubling = malloc(100000), *p = doubling;

	endure_text("groups in groups", grammar_regex, repeat("", "(", 100000, ""));
	endure_text("counts in counts", grammar_regex,
		    strdup("((((a{1000}){1000}){1000}){1000}){1000}"));
	endure_text("optional counts", grammar_regex,
		    strdup("((((a?){9999}b?){9999}c?){9999}d?){9999}"));
	endure_text("ambiguous counts", grammar_regex, strdup("(.|a|aa|aaa){0,100000}.*a.{5000}"));
	endure_text("an exponential pattern", grammar_regex, strdup("(a*)*(a*)*(a*)*(a|a)*b"));
	endure_text("many alternatives", grammar_regex, repeat("", "[a-z]{9}|", 20000, "x"));
	endure_text("a long text", grammar_regex, repeat("", "abcdefghij", 90000, ""));
	endure_text("groups in groups, GBNF", grammar_gbnf, repeat("root ::= ", "(", 100000, ""));
	for (int i = 0; i < 60; i++)
		p += sprintf(p, "%s%d ::= r%d \"x\" | r%d \"y\"\n", i ? "r" : "root ::= r0\nr", i,
			     i + 1, i + 1);
	sprintf(p, "r60 ::= \"z\"\n");
	endure_text("rules that double", grammar_gbnf, doubling);
	endure_text("an ambiguous grammar", grammar_gbnf,
		    strdup("root ::= s\ns ::= \"a\" s s | \"a\" s \"b\" s | \"a\" | \"b\""));
	endure_text("deep recursion", grammar_gbnf, strdup("root ::= \"a\" root \"b\" | \"c\""));
	p = repeat("{}", "}", 1500, "");
	endure_schema("lists in lists", repeat("", "{\"items\":", 1500, p));
	free(p);
	endure_schema("a list of 200000 values",
		      repeat("{\"enum\":[\"a\"", ",\"value\"", 200000, "]}"));
	endure_schema("anyOf beside anyOf",
		      repeat("{\"allOf\":[{}", ",{\"anyOf\":[{\"minLength\":1},{\"minLength\":2}]}",
			     40, "]}"));
	endure_schema("merging without end",
		      strdup("{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"allOf\":[{\"$ref\":"
			     "\"#/$defs/a\"},{\"type\":\"object\"}]}}}"));
	endure_schema("merging ever deeper",
		      strdup("{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"allOf\":[{\"properties\":"
			     "{\"x\":{\"$ref\":\"#/$defs/a\"}}},{\"properties\":{\"x\":{\"type\":"
			     "\"object\"}}}]}}}"));
	endure_schema("counts without measure",
		      strdup("{\"type\":\"array\",\"minItems\":1000000000,\"items\":{\"type\":"
			     "\"string\",\"minLength\":1000000000}}"));
	endure_schema("a pattern in every item",
		      strdup("{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":"
			     "\"(a|b)*a.{3000}\"}}"));
	p = doubling = malloc(400000);
	p += sprintf(p, "{\"properties\":{");
	for (int i = 0; i < 5000; i++)
		p += sprintf(p, "%s\"property number %d\":{\"type\":\"integer\"}", i ? "," : "", i);
	sprintf(p, "}}");
	endure_schema("5000 properties", doubling);
}

int main(void)
{
	if (!voc_bytes(&bytes, NULL) || !voc_open(&bpe, "tools/demo/model/tokenizer.json", 0))
		return 1;
	for (size_t i = 0; i < sizeof(regexes) / sizeof(*regexes); i++)
		check_texts("regex", grammar_regex, &regexes[i]);
	for (size_t i = 0; i < sizeof(bad_regexes) / sizeof(*bad_regexes); i++)
		check_bad("regex", grammar_regex, bad_regexes[i].source, bad_regexes[i].rc,
			  bad_regexes[i].says);
	for (size_t i = 0; i < sizeof(gbnfs) / sizeof(*gbnfs); i++)
		check_texts("GBNF", grammar_gbnf, &gbnfs[i]);
	for (size_t i = 0; i < sizeof(bad_gbnfs) / sizeof(*bad_gbnfs); i++)
		check_bad("GBNF", grammar_gbnf, bad_gbnfs[i].source, bad_gbnfs[i].rc,
			  bad_gbnfs[i].says);
	check_choice();
	check_hostile();
	voc_close(&bytes);
	voc_close(&bpe);
	return tap_done();
}
