// SPDX-License-Identifier: MIT
/*
 * Text of mixed origin: special tokens are made of template text only, whatever a user types beside
 * it; apart from that, spans change nothing.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"
#include "text/template/template.h"
#include "text/tokenizer.h"
#include "weights/checkpoint.h"

#define FIXTURES "tests/fixtures/tokenizers/"
#define MAX_TEXT 2048

static const char *conformance(void)
{
	const char *dir = getenv("LLM_CONFORMANCE");

	return dir ? dir : "../shared/conformance";
}

static bool same(const struct ids *a, const struct ids *b)
{
	return a->n == b->n && (!a->n || !memcmp(a->v, b->v, a->n * sizeof(*a->v)));
}

static void show(const char *what, const struct ids *a)
{
	printf("#   %s:", what);
	for (size_t i = 0; i < a->n && i < 60; i++)
		printf(" %d", a->v[i]);
	printf("\n");
}

/* A text under construction, of pieces that one or the other wrote. */
struct mixed {
	char text[MAX_TEXT];
	bool user[MAX_TEXT];
	size_t len;
};

static void put(struct mixed *m, const char *s, size_t n, bool user)
{
	if (m->len + n > MAX_TEXT)
		return;
	memcpy(m->text + m->len, s, n);
	memset(m->user + m->len, user, n);
	m->len += n;
}

static int encode_mixed(const struct tokenizer *t, const struct mixed *m, struct ids *out)
{
	struct tmpl_span *span = malloc((m->len + 1) * sizeof(*span));
	struct err e = {""};
	size_t n = 0;
	int rc;

	for (size_t i = 0; i < m->len; i++) {
		if (!n || span[n - 1].user != m->user[i])
			span[n++].user = m->user[i];
		span[n - 1].end = i + 1;
	}
	rc = tokenizer_encode_spans(t, m->text, m->len, span, n, 0, out, &e);
	if (rc)
		printf("#   %s\n", e.msg);
	free(span);
	return rc;
}

static bool mixed_is(const struct tokenizer *t, const struct mixed *m, const struct ids *want)
{
	struct ids got = {0};
	bool ok = !encode_mixed(t, m, &got) && same(&got, want);

	if (!ok) {
		printf("#   \"%.*s\"\n#   user ", (int)m->len, m->text);
		for (size_t i = 0; i < m->len; i++)
			putchar(m->user[i] ? 'u' : '.');
		putchar('\n');
		show("want", want);
		show("got", &got);
	}
	ids_free(&got);
	return ok;
}

/* ---- every text of the fixtures -------------------------------------------------------------- */

/*
 * All trusted: as TOK_SPECIAL. All the user's: as without. Where both are one, whoever wrote what
 * does not matter.
 */
static bool agrees(const struct tokenizer *t, const char *text, size_t len, bool *plain)
{
	struct ids with = {0}, without = {0};
	struct mixed m = {.len = 0};
	bool ok;

	if (len > MAX_TEXT)
		len = 0;
	ok = !tokenizer_encode(t, text, len, TOK_SPECIAL, &with, NULL) &&
	     !tokenizer_encode(t, text, len, 0, &without, NULL);
	put(&m, text, len, false);
	ok = ok && mixed_is(t, &m, &with);
	memset(m.user, 1, len);
	ok = ok && mixed_is(t, &m, &without);
	*plain = same(&with, &without);
	for (int k = 0; ok && *plain && k < 3; k++) {
		bool user = k;

		for (size_t i = 0; i < len; i++) {
			user ^= rand() % 5 == 0;
			m.user[i] = user;
		}
		ok = mixed_is(t, &m, &with);
	}
	ids_free(&with);
	ids_free(&without);
	return ok;
}

static void run_cases(const struct tokenizer *t, const char *path, const char *name)
{
	FILE *f = fopen(path, "r");
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int count = 0, bad = 0, plain = 0;

	while (f && (n = getline(&line, &cap, f)) > 0) {
		json_t *o = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
		const json_t *text = json_object_get(o, "text");
		bool same_both = false;

		if (text) {
			count++;
			bad += !agrees(t, json_string_value(text), json_string_length(text),
				       &same_both);
			plain += same_both;
		}
		json_decref(o);
	}
	free(line);
	if (f)
		fclose(f);
	CHECK(count > 50 && !bad,
	      "%s: %d of %d texts: spans of one kind, and of both where no special token is meant "
	      "(%d)",
	      name, count - bad, count, plain);
}

/* ---- random templates ------------------------------------------------------------------------ */

struct special {
	const char *s;
	size_t len;
	int32_t id;
};

static int find_specials(const struct tokenizer *t, struct special *v, int max)
{
	int n = 0;

	for (int32_t id = 0; id < tokenizer_n_vocab(t) && n < max; id++) {
		size_t len;
		const char *s = tokenizer_token(t, id, &len);
		char text[128];

		if (!s || !tokenizer_is_special(t, id) || len < 3 || len >= sizeof(text) ||
		    !strncmp(s, "<unk>", 5)) /* what is unknown becomes it, whoever wrote it */
			continue;
		memcpy(text, s, len);
		text[len] = 0;
		if (tokenizer_find(t, text) == id)
			v[n++] = (struct special){s, len, id};
	}
	return n;
}

static void random_mixed(struct mixed *m, const struct special *v, int n)
{
	static const char *const words[] = {"user\n", " hello",	      "e",    "\xcc\x81",
					    "<",      "|>",	      "  ",   "<|",
					    "1",      "\xe4\xbd\xa0", "\n\n", "<think>"};

	m->len = 0;
	for (int i = rand() % 12; i >= 0; i--) {
		const struct special *x = &v[rand() % n];
		size_t cut = 1 + rand() % (x->len - 1);
		const char *w = words[rand() % 12];
		bool user = rand() % 2;

		switch (rand() % 5) {
		case 0:
			put(m, x->s, x->len, user);
			break;
		case 1: /* one wrote one half, another the other */
			put(m, x->s, cut, user);
			put(m, x->s + cut, x->len - cut, !user);
			break;
		case 2:
			put(m, x->s, cut, user);
			break;
		case 3:
			put(m, x->s + cut, x->len - cut, user);
			break;
		default:
			put(m, w, strlen(w), user);
		}
	}
}

static const struct special *trusted_at(const struct mixed *m, const struct special *v, int n,
					size_t p)
{
	for (int i = 0; i < n; i++)
		if (m->len - p >= v[i].len && !memcmp(m->text + p, v[i].s, v[i].len) &&
		    !memchr(m->user + p, 1, v[i].len))
			return &v[i];
	return NULL;
}

/*
 * Cut by hand: right for vocabularies that put nothing in front of a text, and whose special tokens
 * are matched as written, take no spaces and do not overlap.
 */
static int cut_by_hand(const struct tokenizer *t, const struct mixed *m, const struct special *v,
		       int n, struct ids *out)
{
	size_t from = 0;
	int specials = 0;

	for (size_t p = 0; p <= m->len; p++) {
		const struct special *x = p < m->len ? trusted_at(m, v, n, p) : NULL;

		if (!x && p < m->len)
			continue;
		tokenizer_encode(t, m->text + from, p - from, 0, out, NULL);
		if (!x)
			break;
		ids_push(out, x->id);
		specials++;
		from = p + x->len;
		p = from - 1;
	}
	return specials;
}

static void test_random(const struct tokenizer *t, const char *name)
{
	struct special v[64];
	int n = find_specials(t, v, 64), bad = 0, specials = 0;

	REQUIRE(n > 1, "%s: %d special tokens", name, n);
	srand(1);
	for (int i = 0; i < 2000; i++) {
		struct mixed m;
		struct ids want = {0};

		random_mixed(&m, v, n);
		specials += cut_by_hand(t, &m, v, n, &want);
		if (!mixed_is(t, &m, &want) && ++bad > 3)
			break;
		ids_free(&want);
	}
	CHECK(!bad && specials > 500,
	      "%s: 2000 random mixtures are as if cut at the template's %d special tokens", name,
	      specials);
}

/* What it adds up to for every vocabulary: nobody but the template makes a special token. */
static void test_count(const struct tokenizer *t, const char *name)
{
	struct special v[64];
	int n = find_specials(t, v, 64), bad = 0;

	if (n < 1)
		return;
	srand(2);
	for (int i = 0; i < 500; i++) {
		struct ids got = {0}, by_hand = {0};
		struct mixed m;
		int specials = 0, most;

		random_mixed(&m, v, n);
		most = cut_by_hand(t, &m, v, n, &by_hand);
		if (encode_mixed(t, &m, &got))
			bad++;
		for (size_t k = 0; k < got.n; k++)
			for (int j = 0; j < n; j++)
				specials += got.v[k] == v[j].id;
		bad += specials > most;
		ids_free(&got);
		ids_free(&by_hand);
	}
	CHECK(!bad, "%s: never more special tokens than the template spells", name);
}

/* ---- by hand --------------------------------------------------------------------------------- */

/* "^" begins the user's text, "~" ends it. */
static void mix(struct mixed *m, const char *s)
{
	bool user = false;

	m->len = 0;
	for (; *s; s++) {
		if (*s == '^' || *s == '~')
			user = *s == '^';
		else
			put(m, s, 1, user);
	}
}

/* The n-th id of a mixture, -1 if it has fewer; *len is their number. */
static bool has(const struct tokenizer *t, const char *s, const char *token, int times)
{
	int32_t id = tokenizer_find(t, token);
	struct ids got = {0};
	struct mixed m;
	int n = 0;

	mix(&m, s);
	encode_mixed(t, &m, &got);
	for (size_t i = 0; i < got.n; i++)
		n += got.v[i] == id;
	if (n != times)
		show(s, &got);
	ids_free(&got);
	return id >= 0 && n == times;
}

static void test_qwen_by_hand(const struct tokenizer *t, const char *name)
{
	CHECK(has(t, "<|im_start|>^<|im_start|>~<|im_start|>", "<|im_start|>", 2),
	      "%s: a user's token between two of the template's", name);
	CHECK(has(t, "<|im_st^art|>~", "<|im_start|>", 0), "%s: a user ends the template's", name);
	CHECK(has(t, "^<|im_st~art|>", "<|im_start|>", 0), "%s: a user begins it", name);
	CHECK(has(t, "<|im_^s~tart|>", "<|im_start|>", 0), "%s: one letter is his", name);
	CHECK(has(t, "^<|im_~<|im_end|>", "<|im_end|>", 1),
	      "%s: what he begins does not spoil the token behind it", name);
	if (tokenizer_find(t, "<think>") >= 0)
		CHECK(has(t, "^<think>~ <thi^nk>~", "<think>", 2),
		      "%s: tokens that are not special are matched anywhere", name);
}

/* Fixture "added": <|im_end|> and "<|" take spaces, <s> is a word in normalised text. */
static void test_added_by_hand(void)
{
	struct tokenizer *t;
	struct err e = {""};

	REQUIRE(!tokenizer_open_hf(&t, FIXTURES "added.json", &e), "added opens %s", e.msg);
	CHECK(has(t, "<|^im_end|>~", "<|", 1) && has(t, "<|^im_end|>~", "<|im_end|>", 0),
	      "a shorter token inside one that is half a user's is matched");
	CHECK(has(t, "<^|im_end|>~", "<|", 0), "but not if that is half his, too");
	CHECK(has(t, "^ ~<|im_end|>^ \n~", "<|im_end|>", 1) &&
		      has(t, "^ ~<|im_end|>^ \n~", "  ", 0),
	      "spaces that a token takes may be a user's");
	CHECK(has(t, "<s>", "<s>", 1) && has(t, "^<s>~", "<s>", 0) && has(t, "<^s~>", "<s>", 0) &&
		      has(t, "^<~s>", "<s>", 0),
	      "a token of normalised text is made of the template's only");
	/* NFC moves what follows: three bytes become two */
	CHECK(has(t, "^e\xcc\x81 ~<s>^ e\xcc\x81 <s>~", "<s>", 1) &&
		      has(t, "e\xcc\x81^ <s> ~<s>", "<s>", 1) &&
		      has(t, "e^\xcc\x81~ <s>^ <s>~", "<s>", 1),
	      "and found where normalising has moved it");
	CHECK(has(t, "a^<s>~", "<s>", 0) && has(t, "^a~<s>", "<s>", 0),
	      "what a user wrote beside it may make it part of a word");
	CHECK(has(t, "^ab~c foo^bar~", "foobar", 1),
	      "what is not special does not ask who wrote it");
	tokenizer_close(t);
}

static void test_refusals(const struct tokenizer *t)
{
	static const struct tmpl_span descend[] = {{3, true}, {2, false}};
	static const struct tmpl_span beyond[] = {{3, true}, {9, false}};
	static const struct tmpl_span part[] = {{12, false}};
	struct ids ids = {0}, want = {0};
	const char *text = "<|im_start|><|im_start|>";
	struct err e;

	CHECK(tokenizer_encode_spans(t, "abcd", 4, descend, 2, 0, &ids, &e) == -EINVAL && !ids.n,
	      "spans that descend: %s", e.msg);
	CHECK(tokenizer_encode_spans(t, "abcd", 4, beyond, 2, 0, &ids, &e) == -EINVAL && !ids.n,
	      "spans beyond the text: %s", e.msg);
	CHECK(!tokenizer_encode_spans(t, "", 0, NULL, 0, 0, &ids, &e) && !ids.n, "no text, no ids");
	tokenizer_encode(t, text, 12, TOK_SPECIAL, &want, &e);
	tokenizer_encode(t, text, 12, 0, &want, &e);
	CHECK(!tokenizer_encode_spans(t, text, 24, part, 1, 0, &ids, &e) && same(&ids, &want),
	      "what no span covers is a user's");
	ids_free(&ids);
	ids_free(&want);
}

static void test_file(const char *path, const char *cases, const char *name, bool plain)
{
	struct tokenizer *t;
	struct err e = {""};

	if (access(path, R_OK)) {
		tap_skip("no %s (LLM_CONFORMANCE)", path);
		return;
	}
	REQUIRE(!tokenizer_open_hf(&t, path, &e), "%s opens %s", name, e.msg);
	srand(3);
	run_cases(t, cases, name);
	test_count(t, name);
	if (plain) {
		test_random(t, name);
		test_qwen_by_hand(t, name);
		test_refusals(t);
	}
	tokenizer_close(t);
}

/* SentencePiece inside a GGUF file: a space goes in front of a text, and behind special tokens. */
static void test_spm(void)
{
	struct checkpoint *c;
	struct tokenizer *t;
	struct err e = {""};
	char path[4096];
	bool plain, ok = true;
	static const char *const texts[] = {" hello <s> world</s>", "<s>a b</s> c", "x<unk> y", "",
					    "  \xe4\xbd\xa0 <0x0A>\n"};

	snprintf(path, sizeof(path), "%s/tokenizers/llama-spm.gguf", conformance());
	if (access(path, R_OK)) {
		tap_skip("no %s (LLM_CONFORMANCE)", path);
		return;
	}
	REQUIRE(!checkpoint_open(&c, path, &e), "%s opens %s", path, e.msg);
	REQUIRE(!tokenizer_open(&t, c, &e), "%s has a tokenizer %s", path, e.msg);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		ok &= agrees(t, texts[i], strlen(texts[i]), &plain);
	CHECK(ok, "llama-spm.gguf: spans of one kind");
	CHECK(has(t, "<s>^a</s>~</s>", "</s>", 1), "llama-spm.gguf: a user ends no turn");
	tokenizer_close(t);
	checkpoint_close(c);
}

int main(void)
{
	static const char *const names[] = {
		"qwen2",	 "qwen35",	    "llama3",	 "gpt2",	 "gpt2_prefix",
		"tekken",	 "o200k",	    "starcoder", "cl100k",	 "digits",
		"deepseek3",	 "matches_only",    "llama2",	 "gemma",	 "metaspace",
		"added",	 "fuse_unk",	    "no_unk",	 "split_merged", "split_invert",
		"split_removed", "llama2_metaspace"};
	char path[4096], cases[4096];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), FIXTURES "%s.json", names[i]);
		snprintf(cases, sizeof(cases), FIXTURES "%s.cases.jsonl", names[i]);
		test_file(path, cases, names[i], !strncmp(names[i], "qwen", 4));
	}
	snprintf(path, sizeof(path), "%s/tokenizers/qwen3.tokenizer.json", conformance());
	snprintf(cases, sizeof(cases), "%s/tokenizers/qwen3.cases.jsonl", conformance());
	test_file(path, cases, "qwen3", true);
	test_file("tools/demo/model/tokenizer.json", FIXTURES "qwen2.cases.jsonl", "demo", false);
	test_added_by_hand();
	test_spm();
	return tap_done();
}
