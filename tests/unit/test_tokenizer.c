// SPDX-License-Identifier: MIT
/*
 * Tokenizers against what Hugging Face's library and llama.cpp make of the same texts: small files
 * of every family (tests/fixtures/tokenizers, made by tests/oracle/make_tokenizer_cases.py), and
 * real vocabularies where LLM_CONFORMANCE has them.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"
#include "text/tokenizer.h"
#include "weights/checkpoint.h"

#define FIXTURES "tests/fixtures/tokenizers"

static const char *conformance(void)
{
	const char *dir = getenv("LLM_CONFORMANCE");

	return dir ? dir : "../shared/conformance";
}

static bool same_ids(const json_t *want, const struct ids *got)
{
	if (json_array_size(want) != got->n)
		return false;
	for (size_t i = 0; i < got->n; i++)
		if (json_integer_value(json_array_get(want, i)) != got->v[i])
			return false;
	return true;
}

static void show(const char *what, const json_t *line, const struct ids *got)
{
	char *s = json_dumps(line, JSON_ENSURE_ASCII);

	printf("#   %s: want %s\n#   got", what, s ? s : "?");
	for (size_t i = 0; i < got->n && i < 200; i++)
		printf(" %d", got->v[i]);
	printf("\n");
	free(s);
}

/* Encoding with `flags` gives the ids of member `key`, if the line has it. */
static bool encodes(const struct tokenizer *t, const json_t *line, const char *key, unsigned flags)
{
	const json_t *text = json_object_get(line, "text"), *want = json_object_get(line, key);
	struct ids got = {0};
	struct err e = {""};
	bool ok;

	if (!want || !text)
		return true;
	ok = !tokenizer_encode(t, json_string_value(text), json_string_length(text), flags, &got,
			       &e) &&
	     same_ids(want, &got);
	if (!ok) {
		show(key, line, &got);
		printf("#   %s\n", e.msg);
	}
	ids_free(&got);
	return ok;
}

static void read_ids(const json_t *list, struct ids *ids)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		ids_push(ids, (int32_t)json_integer_value(json_array_get(list, i)));
}

/* The streaming fold gives the same bytes. */
static bool streams(const struct tokenizer *t, const struct ids *ids, bool skip, const char *text,
		    size_t len)
{
	char *got = malloc(ids->n * DETOK_MAX + DETOK_MAX);
	struct detok d;
	size_t n = 0;
	bool ok;

	detok_init(&d, t, skip);
	for (size_t i = 0; i < ids->n; i++)
		n += detok_push(&d, ids->v[i], got + n, DETOK_MAX);
	n += detok_flush(&d, got + n, DETOK_MAX);
	ok = n == len && !memcmp(got, text, len);
	if (!ok) {
		printf("#   streamed:");
		for (size_t i = 0; i < n; i++)
			printf(" %02x", (uint8_t)got[i]);
		printf(" of ids");
		for (size_t i = 0; i < ids->n; i++)
			printf(" %d", ids->v[i]);
		printf("\n");
	}
	free(got);
	return ok;
}

static bool decodes(const struct tokenizer *t, const json_t *line, const char *from,
		    const char *key, bool skip)
{
	const json_t *want = json_object_get(line, key), *list = json_object_get(line, from);
	struct ids ids = {0};
	struct err e = {""};
	char *text = NULL;
	size_t len = 0;
	bool ok;

	if (!want || !list)
		return true;
	read_ids(list, &ids);
	ok = !tokenizer_decode(t, ids.v, ids.n, skip, &text, &len, &e) &&
	     len == json_string_length(want) && !memcmp(text, json_string_value(want), len);
	if (!ok) {
		show(key, line, &ids);
		printf("#   \"%s\" %s\n", text ? text : "", e.msg);
	}
	/* Ids at random may end a character early; only there may the fold differ (tokenizer.h). */
	if (ok && (json_object_get(line, "text") || !memmem(text, len, "\xef\xbf\xbd", 3)))
		ok = streams(t, &ids, skip, text, len);
	free(text);
	ids_free(&ids);
	return ok;
}

/* Every line of a cases file; returns their number, failures in *bad. */
static int run_cases(const struct tokenizer *t, const char *path, int *bad)
{
	FILE *f = fopen(path, "r");
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int count = 0;

	*bad = 0;
	while (f && (n = getline(&line, &cap, f)) > 0) {
		json_t *o = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
		const char *full = json_object_get(o, "full") ? "full" : "ids";
		bool ok = o && encodes(t, o, "ids", TOK_SPECIAL) && encodes(t, o, "plain", 0) &&
			  encodes(t, o, "full", TOK_SPECIAL | TOK_BOS) &&
			  decodes(t, o, "ids", "decoded", false) &&
			  decodes(t, o, full, "skipped", true);

		count++;
		*bad += !ok;
		json_decref(o);
	}
	free(line);
	if (f)
		fclose(f);
	return count;
}

static void test_fixtures(void)
{
	static const char *const names[] = {
		"qwen2",	"qwen35",	 "llama3",	     "gpt2",   "gpt2_prefix",
		"tekken",	"o200k",	 "starcoder",	     "cl100k", "deepseek3",
		"matches_only", "digits",	 "llama2",	     "gemma",  "metaspace",
		"fuse_unk",	"no_unk",	 "llama2_metaspace", "added",  "split_merged",
		"split_invert", "split_removed",
	};
	const char *dir = getenv("TOKENIZER_CASES"); /* a larger set, made with the script */

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct tokenizer *t = NULL;
		struct err e = {""};
		char path[4096];
		int n, bad = 0;

		snprintf(path, sizeof(path), "%s/%s.json", dir ? dir : FIXTURES, names[i]);
		if (!CHECK(!tokenizer_open_hf(&t, path, &e), "%s opens%s%s", names[i],
			   *e.msg ? ": " : "", e.msg))
			continue;
		snprintf(path, sizeof(path), "%s/%s.cases.jsonl", dir ? dir : FIXTURES, names[i]);
		n = run_cases(t, path, &bad);
		CHECK(n > 100 && !bad, "%s: %d of %d cases as Hugging Face", names[i], n - bad, n);
		tokenizer_close(t);
	}
}

static char *read_all(const char *path, size_t *len)
{
	FILE *f = fopen(path, "r");
	char *s = f ? malloc(1 << 20) : NULL;

	*len = s ? fread(s, 1, (1 << 20) - 1, f) : 0;
	if (s)
		s[*len] = 0;
	if (f)
		fclose(f);
	return s;
}

/* texts separated by marker lines; ids a line each */
static void check_lists(const struct tokenizer *t, const char *name)
{
	static const char mark[] = "\n__ggml_vocab_test__\n";
	char path[4096];
	size_t n_in, n_out;
	char *in, *out, *p, *q;
	int count = 0, bad = 0;

	snprintf(path, sizeof(path), "%s/tokenizers/%s.inp", conformance(), name);
	in = read_all(path, &n_in);
	snprintf(path, sizeof(path), "%s/tokenizers/%s.out", conformance(), name);
	out = read_all(path, &n_out);
	for (p = in, q = out; p && q; count++) {
		char *end = strstr(p, mark), *line = strchr(q, '\n'), *s = q;
		size_t len = end ? (size_t)(end - p) : strlen(p);
		struct ids got = {0};
		bool ok;

		if (!end && !*p)
			break;
		if (line)
			*line = 0;
		ok = !tokenizer_encode(t, p, len, 0, &got, NULL);
		for (size_t i = 0; i < got.n; i++)
			ok &= strtol(s, &s, 10) == got.v[i];
		ok &= !s[strspn(s, " ")];
		if (!ok)
			printf("#   text %d: want %s\n", count, q);
		bad += !ok;
		ids_free(&got);
		p = end ? end + strlen(mark) : NULL;
		q = line ? line + 1 : NULL;
	}
	CHECK(count >= 46 && !bad, "%s: %d of %d lists agree", name, count - bad, count);
	free(in);
	free(out);
}

static void test_gguf(const char *name)
{
	struct checkpoint *c;
	struct tokenizer *t;
	struct err e = {""};
	char path[4096];

	snprintf(path, sizeof(path), "%s/tokenizers/%s", conformance(), name);
	if (access(path, R_OK)) {
		tap_skip("no %s (LLM_CONFORMANCE)", path);
		return;
	}
	REQUIRE(!checkpoint_open(&c, path, &e), "%s opens %s", name, e.msg);
	if (CHECK(!tokenizer_open(&t, c, &e), "%s has a tokenizer %s", name, e.msg)) {
		check_lists(t, name);
		tokenizer_close(t);
	}
	checkpoint_close(c);
}

static void test_qwen(void)
{
	struct tokenizer *t;
	struct err e = {""};
	char path[4096];
	int n, bad;

	snprintf(path, sizeof(path), "%s/tokenizers/qwen3.tokenizer.json", conformance());
	if (access(path, R_OK)) {
		tap_skip("no %s (LLM_CONFORMANCE)", path);
		return;
	}
	REQUIRE(!tokenizer_open_hf(&t, path, &e), "qwen3 opens %s", e.msg);
	snprintf(path, sizeof(path), "%s/tokenizers/qwen3.cases.jsonl", conformance());
	n = run_cases(t, path, &bad);
	CHECK(n == 300 && !bad, "qwen3: %d of %d cases agree", n - bad, n);
	check_lists(t, "qwen2.gguf");
	tokenizer_close(t);
}

static void test_stories(void)
{
	static const int32_t want[] = {403, 407, 261, 378};
	struct checkpoint *c;
	struct tokenizer *t;
	struct ids ids = {0};
	struct err e = {""};
	char path[4096], *text;
	size_t len;

	snprintf(path, sizeof(path), "%s/stories260K/stories260K.gguf", conformance());
	if (access(path, R_OK)) {
		tap_skip("no %s (LLM_CONFORMANCE)", path);
		return;
	}
	REQUIRE(!checkpoint_open(&c, path, &e), "stories260K opens %s", e.msg);
	if (CHECK(!tokenizer_open(&t, c, &e), "stories260K has a tokenizer %s", e.msg)) {
		CHECK(!tokenizer_encode(t, "Once upon a time", 16, TOK_BOS, &ids, &e) &&
			      ids.n == 5 && ids.v[0] == 1 && !memcmp(ids.v + 1, want, sizeof(want)),
		      "stories260K: \"Once upon a time\" is BOS and four tokens");
		CHECK(!tokenizer_decode(t, ids.v, ids.n, true, &text, &len, &e) && len == 16 &&
			      !strcmp(text, "Once upon a time"),
		      "stories260K: and back");
		free(text);
		tokenizer_close(t);
	}
	ids_free(&ids);
	checkpoint_close(c);
}

int main(void)
{
	test_fixtures();
	test_qwen();
	test_gguf("gpt-2.gguf");
	test_gguf("llama-spm.gguf");
	test_stories();
	return tap_done();
}
