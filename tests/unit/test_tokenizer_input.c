// SPDX-License-Identifier: MIT
/*
 * What tokenizers do with input that is large, odd or broken: the work stays in proportion to the
 * text, a pattern that gives up is an error, and a bad file is refused by field.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"
#include "text/text_int.h"
#include "text/utf8.h"

#define FIXTURES "tests/fixtures/tokenizers/"

/* ---- work ---- */

/* `n` bytes of one kind of text. */
static char *make_text(int kind, size_t n)
{
	static const char *const units[] = {"a",
					    "A",
					    " ",
					    "\n",
					    "7",
					    "!",
					    "\t ",
					    "\xe4\xb8\xad",
					    "e\xcc\x81",
					    "<|im_",
					    "\xcc\x81\xcc\xa3",
					    " the device, it's open 12345\n"};
	char *s = malloc(n + 32);
	size_t k = 0, len;

	if (kind == 12) { /* CJK without spaces, all characters different */
		for (uint32_t i = 0; k + 3 <= n; i = (i * 1103515245u + 12345u) & 0x7fffffff) {
			uint32_t c = 0x4e00 + (i >> 8) % 0x5000;

			s[k++] = (char)(0xe0 | c >> 12);
			s[k++] = (char)(0x80 | (c >> 6 & 0x3f));
			s[k++] = (char)(0x80 | (c & 0x3f));
		}
	} else {
		len = strlen(units[kind]);
		for (; k + len <= n; k += len)
			memcpy(s + k, units[kind], len);
	}
	if (kind == 2)
		s[k - 1] = 'x';
	s[k] = 0;
	return s;
}

static void test_work(const char *file, size_t size)
{
	struct tokenizer *t;
	struct err e = {""};
	int bad = 0, kinds = 13;

	REQUIRE(!tokenizer_open_hf(&t, file, &e), "%s opens %s", file, e.msg);
	for (int kind = 0; kind < kinds; kind++) {
		char *s = make_text(kind, size);
		struct encode_stats st = {0};
		struct ids ids = {0};
		uint64_t n = strlen(s);
		int rc = tokenizer_encode_counted(t, s, n, TOK_SPECIAL, &ids, &st, &e);
		/*
		 * A merge ends one symbol and queues two pairs at most; every queued pair is taken
		 * out once. A normalizer may add one character; dropped ones may cost nothing.
		 */
		bool ok = !rc && st.symbols <= n + 3 && st.heap_ops <= 6 * st.symbols &&
			  st.matches <= 5 * n;

		if (!ok) {
			printf("#   text %d: %llu bytes, %llu symbols, %llu heap operations, %llu "
			       "matches: %s\n",
			       kind, (unsigned long long)n, (unsigned long long)st.symbols,
			       (unsigned long long)st.heap_ops, (unsigned long long)st.matches,
			       rc ? e.msg : "");
			bad++;
		}
		ids_free(&ids);
		free(s);
	}
	CHECK(!bad, "%s: %zu KiB of each of %d kinds of text is work in proportion", file,
	      size >> 10, kinds);
	tokenizer_close(t);
}

/* ---- files ---- */

static char tmp[] = "/tmp/test_tokenizer_XXXXXX";

static bool write_file(const char *name, const char *text, size_t len)
{
	char path[256];
	FILE *f;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", tmp, name);
	f = fopen(path, "w");
	ok = f && fwrite(text, 1, len, f) == len;
	return f && !fclose(f) && ok;
}

/* A small tokenizer.json; each NULL stands for the ordinary text of its member. */
static char *file_with(const char *top, const char *model, const char *vocab, const char *merges)
{
	char *s;

	if (asprintf(&s, "{%s\"model\":{\"type\":\"BPE\",%s\"vocab\":%s,\"merges\":%s}}",
		     top ? top : "", model ? model : "",
		     vocab ? vocab : "{\"a\":0,\"b\":1,\"ab\":2}",
		     merges ? merges : "[[\"a\",\"b\"]]") < 0)
		return NULL;
	return s;
}

/* Opens text as a tokenizer.json: the result, with the error in *e. */
static int open_text(struct tokenizer **t, const char *text, size_t len, struct err *e)
{
	char path[256];

	*t = NULL;
	*e->msg = 0;
	snprintf(path, sizeof(path), "%s/tokenizer.json", tmp);
	if (!write_file("tokenizer.json", text, len))
		return -EIO;
	return tokenizer_open_hf(t, path, e);
}

static void refused(const char *what, const char *text, const char *field)
{
	struct tokenizer *t;
	struct err e;
	int rc = open_text(&t, text, strlen(text), &e);

	CHECK(rc < 0 && !t && strstr(e.msg, field) && strstr(e.msg, "tokenizer.json"), "%s: %s",
	      what, rc ? e.msg : "was accepted");
	tokenizer_close(t);
}

static void refused_part(const char *what, const char *top, const char *model, const char *vocab,
			 const char *merges, const char *field)
{
	char *text = file_with(top, model, vocab, merges);

	refused(what, text, field);
	free(text);
}

static void test_bad_json(void)
{
	char *deep = malloc(100001);

	refused("an empty file", "", "an object");
	refused("no JSON", "hello", "an object");
	refused("an unfinished file", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0",
		"tokenizer.json");
	refused("no model", "{\"a\":1}", "model");
	refused("a model that is a list", "{\"model\":[]}", "model");
	refused("two models", "{\"model\":{},\"model\":{}}", "twice");
	refused("something behind the object", "{\"model\":{\"vocab\":{},\"merges\":[]}} x",
		"after");
	refused("Unigram", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}",
		"model.vocab");
	refused("WordPiece", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}",
		"model.merges");
	memset(deep, '[', 100000);
	deep[100000] = 0;
	refused("deep nesting", deep, "tokenizer.json");
	memcpy(deep, "{\"x\":", 5);
	refused("deep nesting in a member", deep, "deep");
	free(deep);
	refused_part("an id that is no number", NULL, NULL, "{\"a\":\"0\"}", NULL, "model.vocab");
	refused_part("a negative id", NULL, NULL, "{\"a\":-1}", NULL, "model.vocab");
	refused_part("a fractional id", NULL, NULL, "{\"a\":1.5}", "[]", "model.vocab");
	refused_part("an absurd id", NULL, NULL, "{\"a\":1000000000}", "[]", "too large");
	refused_part("an overflowing id", NULL, NULL, "{\"a\":99999999999999999999}", "[]",
		     "model.vocab");
	refused_part("one id twice", NULL, NULL, "{\"a\":0,\"b\":0}", "[]", "already");
	refused_part("one token twice", NULL, NULL, "{\"a\":0,\"a\":1}", "[]", "two ids");
	refused_part("bad UTF-8", NULL, NULL, "{\"\xff\":0}", "[]", "UTF-8");
	refused_part("a lone surrogate", NULL, NULL, "{\"\\ud800\":0}", "[]", "surrogate");
	refused_part("a bad escape", NULL, NULL, "{\"\\q\":0}", "[]", "escape");
	refused_part("a newline in a string", NULL, NULL, "{\"a\nb\":0}", "[]", "string");
	refused_part("a merge of unknown tokens", NULL, NULL, NULL, "[\"a c\"]", "merges[0]");
	refused_part("a merge of three", NULL, NULL, NULL, "[\"a b c\"]", "model.merges");
	refused_part("a merge that is a number", NULL, NULL, NULL, "[5]", "string");
	refused_part("a merge list of one", NULL, NULL, NULL, "[[\"a\"]]", "model.merges");
}

static void test_unsupported(void)
{
	static const char cases[][4][160] = {
		{"dropout", "", "\"dropout\":0.1,", "dropout"},
		{"a suffix", "", "\"end_of_word_suffix\":\"</w>\",", "end_of_word_suffix"},
		{"another model", "", "\"byte_fallback\":3,", "byte_fallback"},
		{"an unknown token that is unknown", "", "\"unk_token\":\"?\",", "unk_token"},
		{"a normalizer", "\"normalizer\":{\"type\":\"NFKC\"},", "", "NFKC"},
		{"a normalizer in a sequence",
		 "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}"
		 ",",
		 "", "Lowercase"},
		{"a pre-tokenizer", "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},", "",
		 "Bert"},
		{"a step behind ByteLevel",
		 "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
		 "\"ByteLevel\"},"
		 "{\"type\":\"Digits\"}]},",
		 "", "after ByteLevel"},
		{"a behavior",
		 "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},"
		 "\"behavior\":\"Shred\"},",
		 "", "Shred"},
		{"a Split without pattern",
		 "\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\"},", "",
		 "pattern"},
		{"a post-processor", "\"post_processor\":{\"type\":\"BertProcessing\"},", "",
		 "Bert"},
		{"a decoder", "\"decoder\":{\"type\":\"WordPiece\"},", "", "WordPiece"},
		{"decoders out of order",
		 "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},"
		 "{\"type\":\"ByteLevel\"}]},",
		 "", "ByteLevel"},
		{"added tokens that are no list", "\"added_tokens\":{},", "", "added_tokens"},
		{"an added token without id", "\"added_tokens\":[{\"content\":\"x\"}],", "",
		 "added_tokens[0]"},
		{"an added token far away",
		 "\"added_tokens\":[{\"id\":900000000,\"content\":\"x\"}],", "", "out of range"},
		{"an added token on another's id",
		 "\"added_tokens\":[{\"id\":0,\"content\":\"x\"}],", "", "already"},
	};
	static const char patterns[][2][24] = {
		{"\\\\h+", "\\h"},   {"[a[b]]", "["},
		{"[a&&b]", "&&"},    {"a{,3}", "{,"},
		{"a{1,2}+", "}+"},   {"a(?i)b", "(?i)"},
		{"\\\\bx", "\\b"},   {"(?m)a", "(?m)"},
		{"(?<n>a)", "(?<n"}, {"\\\\p{Nope}", "compile"},
		{"(a", "compile"},   {"\\\\", "\\"},
		{"[a", "compile"},   {"\\\\Ga", "\\G"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refused_part(cases[i][0], cases[i][1], cases[i][2], NULL, NULL, cases[i][3]);
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		char top[1024];

		snprintf(top, sizeof(top),
			 "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
			 "\"behavior\":\"Isolated\"},",
			 patterns[i][0]);
		refused_part("a pattern that means something else elsewhere", top, NULL, NULL, NULL,
			     patterns[i][1]);
	}
}

/* Every prefix of a good file, and every file with one byte changed, opens or is refused. */
static void test_damage(void)
{
	FILE *f = fopen(FIXTURES "llama3.json", "r");
	static char good[1 << 16], bad[1 << 16];
	size_t n = f ? fread(good, 1, sizeof(good), f) : 0, opened = 0, tried = 0;
	struct tokenizer *t;
	struct err e;
	uint32_t seed = 1;

	if (f)
		fclose(f);
	REQUIRE(n > 1000 && n < sizeof(good), "the fixture is there");
	for (size_t len = 0; len < n - 2; len += 61, tried++) {
		opened += !open_text(&t, good, len, &e);
		tokenizer_close(t);
	}
	CHECK(!opened, "%zu truncations are all refused", tried);
	tried = 0;
	for (int i = 0; i < 300; i++) {
		struct ids ids = {0};
		int rc;

		memcpy(bad, good, n);
		seed = seed * 1103515245u + 12345u;
		bad[(seed >> 8) % n] = "\"{}[],:0a\\ \xff"[i % 12];
		rc = open_text(&t, bad, n, &e);
		tried += rc || !tokenizer_encode(t, "Hello <|eot_id|> 12", 19, 3, &ids, &e);
		ids_free(&ids);
		tokenizer_close(t);
	}
	CHECK(tried == 300, "300 files with a byte changed do no harm");
}

/* ---- odd texts and ids ---- */

static void test_limit(void)
{
	char *text = file_with("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":"
			       "\"(?:a+)+[bc]\"},\"behavior\":\"Isolated\"},",
			       NULL, NULL, NULL);
	struct tokenizer *t;
	struct ids ids = {0};
	struct err e;
	char s[64];

	memset(s, 'a', sizeof(s));
	REQUIRE(!open_text(&t, text, strlen(text), &e), "a catastrophic pattern opens %s", e.msg);
	ids_push(&ids, 5);
	CHECK(tokenizer_encode(t, s, sizeof(s), 0, &ids, &e) == -EOVERFLOW && ids.n == 1 &&
		      strstr(e.msg, "gave up"),
	      "a pattern that meets a limit is an error: %s", e.msg);
	ids_free(&ids);
	tokenizer_close(t);
	free(text);
}

static void test_invalid_utf8(void)
{
	static const char *const texts[] = {("a\xff"
					     "b"),
					    "\xe4\xb8",
					    "\xc0\xaf",
					    "\xed\xa0\x80 x",
					    "\xf4\x90\x80\x80",
					    "caf\xc3",
					    "\x80\x80\x80",
					    "e\xcc"};
	static const char *const files[] = {FIXTURES "qwen2.json", FIXTURES "llama2.json"};

	for (int k = 0; k < 2; k++) {
		struct tokenizer *t;
		struct err e;
		int same = 0, n = sizeof(texts) / sizeof(texts[0]);

		REQUIRE(!tokenizer_open_hf(&t, files[k], &e), "%s opens", files[k]);
		for (int i = 0; i < n; i++) {
			struct ids ids = {0};
			char *text = NULL;
			size_t len = 0;

			same += !tokenizer_encode(t, texts[i], strlen(texts[i]), 0, &ids, &e) &&
				ids.n &&
				!tokenizer_decode(t, ids.v, ids.n, false, &text, &len, &e) &&
				utf8_valid_prefix(text, len) == len;
			free(text);
			ids_free(&ids);
		}
		CHECK(same == n, "%s: malformed text encodes, and decodes to valid text", files[k]);
		tokenizer_close(t);
	}
}

static void test_odd_ids(void)
{
	static const int32_t odd[] = {-1, INT32_MIN, INT32_MAX, 1 << 20};
	struct tokenizer *t;
	struct detok d;
	struct err e;
	static char buf[DETOK_MAX];
	char *text;
	size_t len;

	REQUIRE(!tokenizer_open_hf(&t, FIXTURES "qwen2.json", &e), "qwen2 opens");
	CHECK(!tokenizer_decode(t, odd, 4, false, &text, &len, &e) && !len && !*text,
	      "ids out of range are nothing");
	free(text);
	detok_init(&d, t, true);
	CHECK(!detok_push(&d, -5, buf, sizeof(buf)) && !detok_push(&d, 1 << 30, buf, sizeof(buf)),
	      "in the stream too");
	CHECK(!tokenizer_token(t, -1, &len) && !tokenizer_token(t, tokenizer_n_vocab(t), &len) &&
		      !tokenizer_is_special(t, -1) && tokenizer_find(t, "") == -1 &&
		      tokenizer_find(t, "no such token") == -1,
	      "and in look-ups");
	tokenizer_close(t);
}

int main(void)
{
	static const char *const large[] = {FIXTURES "qwen2.json", FIXTURES "llama2.json",
					    FIXTURES "gpt2.json",  FIXTURES "tekken.json",
					    FIXTURES "gemma.json", FIXTURES "added.json"};
	char path[300];

	if (!mkdtemp(tmp))
		return 1;
	for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++)
		test_work(large[i], i < 2 ? 1 << 20 : 1 << 18);
	test_bad_json();
	test_unsupported();
	test_damage();
	test_limit();
	test_invalid_utf8();
	test_odd_ids();
	snprintf(path, sizeof(path), "%s/tokenizer.json", tmp);
	unlink(path);
	rmdir(tmp);
	return tap_done();
}
