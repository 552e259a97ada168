// SPDX-License-Identifier: MIT
/*
 * Masks against what they stand for: at states reached by random walks a token's bit is set iff a
 * matcher that got there accepts the token; every walk that is led to its end gives a text that the
 * grammar takes; memory bounds change nothing but what is kept.
 */
#include <errno.h>

#include "tests/unit/grammar_check.h"

static uint64_t seed = 1;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((seed >> 33) % n);
}

/* A random allowed token; the ends are preferred once `hurry`. -1: the mask is empty. */
static int32_t choose(const struct voc *o, const uint64_t *mask, bool hurry)
{
	static const char closing[] = "\"\"}}]]:0,1avv<x)";
	int32_t from;

	if (has_bit(mask, o->eos) && (hurry || !rnd(3)))
		return o->eos;
	for (int i = 0; hurry && i < 32; i++) {
		int32_t id = o->byte[(uint8_t)closing[rnd(sizeof(closing) - 1)]];

		if (has_bit(mask, id))
			return id;
	}
	from = (int32_t)rnd((uint32_t)o->n);
	for (int32_t i = 0; i < o->n; i++) {
		int32_t id = (from + i) % o->n;

		if (has_bit(mask, id))
			return id;
	}
	return -1;
}

static struct matcher *replay(const struct voc *o, const struct grammar *g, const struct ids *path)
{
	struct matcher *m;

	if (matcher_open(&m, g, o->v, NULL))
		return NULL;
	for (size_t i = 0; i < path->n; i++) {
		if (matcher_accept(m, path->v[i])) {
			matcher_close(m);
			return NULL;
		}
	}
	return m;
}

/* Every token of the vocabulary, tried. Returns how many bits are wrong. */
static int compare(const struct voc *o, const struct grammar *g, struct matcher *at,
		   const struct ids *path)
{
	size_t words = ((size_t)o->n + 63) / 64;
	uint64_t *mask = malloc(words * 8);
	const uint64_t *now = matcher_mask(at);
	struct matcher *m = replay(o, g, path);
	int wrong = 0;

	if (!mask || !now || !m)
		return 1;
	memcpy(mask, now, words * 8);
	for (int32_t id = 0; id < o->n && m; id++) {
		bool ok = !matcher_accept(m, id);

		if (ok != has_bit(mask, id)) {
			if (!wrong++)
				printf("# token %d: the mask says %d\n", id, has_bit(mask, id));
		}
		if (ok) {
			matcher_close(m);
			m = replay(o, g, path);
		}
	}
	wrong += !m;
	matcher_close(m);
	free(mask);
	return wrong;
}

/* One walk from the beginning to the end; compares masks at some states. -1: it did not end. */
static int walk(const struct voc *o, const struct grammar *g, int every)
{
	struct ids path = {0};
	struct matcher *m;
	int wrong = 0, end = -1;

	if (matcher_open(&m, g, o->v, NULL))
		return 1;
	for (int i = 0; i < 600 && end; i++) {
		const uint64_t *mask = matcher_mask(m);
		int32_t id = mask ? choose(o, mask, i > 25) : -1;

		if (id < 0) {
			printf("# an empty mask\n");
			wrong++;
			break;
		}
		if (i % every == 0)
			wrong += compare(o, g, m, &path);
		if (matcher_accept(m, id)) {
			printf("# token %d of the mask is not accepted\n", id);
			wrong++;
			break;
		}
		if (id == o->eos)
			end = 0;
		else
			ids_push(&path, id);
	}
	if (!end) {
		wrong += !matcher_may_end(m) || !has_bit(matcher_mask(m), o->eos);
		wrong += !matcher_accept(m, o->eos) || !matcher_accept(m, o->byte['a']);
	}
	matcher_close(m);
	ids_free(&path);
	return wrong ? wrong : end;
}

static const char *const schemas[] = {
	"{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":2,"
	"\"maxLength\":12},\"n\":{\"type\":\"integer\",\"minimum\":-5,\"maximum\":120},\"l\":{"
	"\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\",1.5,null]},\"maxItems\":3}},"
	"\"required\":[\"n\"]}",
	"{\"type\":\"string\"}",
	"{\"type\":\"string\",\"minLength\":20,\"maxLength\":2000}",
	"{\"type\":\"string\",\"maxLength\":5}",
	"{\"type\":\"string\",\"pattern\":\"<x\"}",
	"{\"type\":\"string\",\"format\":\"date-time\"}",
	"{}",
	"{\"type\":\"object\",\"properties\":{\"next\":{\"$ref\":\"#\"},\"v\":{\"type\":\"number\"}"
	"},"
	"\"required\":[\"v\"],\"additionalProperties\":false}",
};

static const char gbnf[] =
	"root ::= item (\", \" item)* [.!]?\n"
	"item ::= word | \"(\" root \")\" # nested\n"
	"word ::= [a-z\xc3\xa4-\xc3\xbc]{1,9} | \"\xe4\xbd\xa0\xe5\xa5\xbd\" .\n";
static const char regex[] = "(?:[^<>\\n]{0,30}(?:<b>[^<]*</b>)?){1,4}\\d{2,}";

static struct grammar *compile(size_t i)
{
	struct grammar *g = NULL;
	struct err e;
	json_t *j;
	int rc;

	if (i < sizeof(schemas) / sizeof(*schemas)) {
		j = json_loads(schemas[i], 0, NULL);
		rc = grammar_json_schema(&g, j, &e);
		json_decref(j);
	} else if (i == sizeof(schemas) / sizeof(*schemas)) {
		rc = grammar_gbnf(&g, gbnf, sizeof(gbnf) - 1, &e);
	} else {
		rc = grammar_regex(&g, regex, sizeof(regex) - 1, &e);
	}
	if (rc)
		printf("# %s\n", e.msg);
	return g;
}

static void check_masks(const struct voc *o, const char *what, int walks, int every)
{
	for (size_t i = 0; i < sizeof(schemas) / sizeof(*schemas) + 2; i++) {
		struct grammar *g = compile(i);
		int wrong = 0, ended = 0;

		REQUIRE(g != NULL, "grammar %zu compiles", i);
		for (int k = 0; k < walks; k++) {
			int rc = walk(o, g, every);

			wrong += rc > 0;
			ended += !rc;
		}
		CHECK(!wrong, "%s: masks of grammar %zu are what is accepted", what, i);
		CHECK(ended, "%s: walks through grammar %zu come to an end", what, i);
		grammar_free(g);
	}
}

/* A few states over 150,000 tokens. */
static void check_large(void)
{
	static const struct {
		size_t grammar;
		int tokens;
	} states[] = {{0, 4}, {3, 1}, {6, 3}, {7, 2}, {9, 2}};
	const char *dir = getenv("LLM_CONFORMANCE");
	char path[512];
	struct voc big = {0};

	snprintf(path, sizeof(path), "%s/tokenizers/qwen3.tokenizer.json",
		 dir ? dir : "../shared/conformance");
	if (access(path, R_OK)) {
		tap_skip("masks over a large vocabulary: no %s", path);
		return;
	}
	REQUIRE(voc_open(&big, path, 0), "a large vocabulary");
	for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
		struct grammar *g = compile(states[i].grammar);
		struct ids at = {0};
		struct matcher *m;

		REQUIRE(g && !matcher_open(&m, g, big.v, NULL), "grammar %zu", states[i].grammar);
		for (int k = 0; k < states[i].tokens; k++) {
			int32_t id = choose(&big, matcher_mask(m), false);

			if (id < 0 || id == big.eos || matcher_accept(m, id))
				break;
			ids_push(&at, id);
		}
		CHECK(!compare(&big, g, m, &at),
		      "the mask of grammar %zu after %zu tokens is what is accepted",
		      states[i].grammar, at.n);
		matcher_close(m);
		ids_free(&at);
		grammar_free(g);
	}
	voc_close(&big);
}

/* A failed accept leaves the matcher as it was; matchers of one grammar do not disturb another. */
static void check_matchers(const struct voc *o)
{
	struct grammar *g, *same;
	struct matcher *a, *b;

	REQUIRE(!grammar_regex(&g, "ab|cd", 5, NULL) && !grammar_regex(&same, "ab|cd", 5, NULL),
		"two grammars that are the same");
	REQUIRE(!matcher_open(&a, g, o->v, NULL) && !matcher_open(&b, same, o->v, NULL),
		"a matcher of each");
	CHECK(matcher_accept(a, o->byte['x']) == -EINVAL && !matcher_accept(a, o->byte['a']),
	      "what is refused changes nothing");
	CHECK(matcher_accept(a, -1) == -EINVAL && matcher_accept(a, o->n) == -EINVAL &&
		      matcher_accept(a, o->eos) == -EINVAL,
	      "no such token, and no end here");
	CHECK(has_bit(matcher_mask(a), o->byte['b']) && !has_bit(matcher_mask(a), o->byte['a']),
	      "the one is after its first letter");
	CHECK(has_bit(matcher_mask(b), o->byte['a']) && !matcher_may_end(b),
	      "the other at its beginning");
	grammar_free(g); /* the machine lives on with its matchers */
	CHECK(!matcher_accept(a, o->byte['b']) && matcher_may_end(a) &&
		      has_bit(matcher_mask(a), o->eos) && !has_bit(matcher_mask(a), o->byte['b']),
	      "it may end, and must");
	matcher_close(a);
	matcher_close(b);
	grammar_free(same);
}

/* More masks and states than are kept. */
static void check_bounds(void)
{
	static const char doc[] = "{\"name\":\"abc\",\"n\":12,\"l\":[\"red\",null]}";
	struct voc small = {0};
	struct grammar *g = compile(0);
	struct matcher *m[3];
	bool ok = true;

	REQUIRE(g && voc_open(&small, "tools/demo/model/tokenizer.json", 1),
		"a vocabulary that keeps hardly a mask");
	for (int i = 0; i < 3; i++)
		ok &= !matcher_open(&m[i], g, small.v, NULL);
	for (size_t i = 0; i < sizeof(doc) - 1 && ok; i++) {
		for (int k = 0; k < 3 && ok; k++) {
			ok = has_bit(matcher_mask(m[k]), small.byte[(uint8_t)doc[i]]) &&
			     !matcher_accept(m[k], small.byte[(uint8_t)doc[i]]);
		}
	}
	CHECK(ok, "three matchers in turn");
	for (int i = 0; i < 3; i++)
		matcher_close(m[i]);
	grammar_free(g);
	voc_close(&small);
}

/* States are forgotten while a matcher goes on: a long text whose every position is a new state. */
static void check_forgetting(const struct voc *o)
{
	struct grammar *g;
	struct matcher *m, *still;
	bool ok = true;

	REQUIRE(!grammar_regex(&g, "[a-z]{1,700000}!", 16, NULL), "a long count");
	REQUIRE(!matcher_open(&m, g, o->v, NULL) && !matcher_open(&still, g, o->v, NULL),
		"two matchers of it");
	ok = !matcher_accept(still, o->byte['q']);
	for (int i = 0; i < 700000 && ok; i++)
		ok = !matcher_accept(m, o->byte['a' + i % 26]);
	CHECK(ok, "700000 states");
	CHECK(matcher_accept(m, o->byte['a']) == -EINVAL && !matcher_accept(m, o->byte['!']) &&
		      matcher_may_end(m),
	      "the count is kept");
	CHECK(!matcher_may_end(still) && has_bit(matcher_mask(still), o->byte['!']) &&
		      !matcher_accept(still, o->byte['!']) && matcher_may_end(still),
	      "the other matcher stands where it stood");
	matcher_close(m);
	matcher_close(still);
	grammar_free(g);
}

/* The bytes of tokens, one after the other, are what the detokenizer makes of them. */
static void check_bytes(const char *name)
{
	static const char text[] =
		" Some text, \xc3\xa9t\xc3\xa9 \xf0\x9f\x9a\x80 x\t\"12\" \xe4\xbd\xa0";
	char path[256], bytes[1024], piece[DETOK_MAX], again[DETOK_MAX * 2];
	struct tokenizer *t;
	struct ids ids = {0};
	struct detok d;
	struct err e;
	size_t n = 0, m = 0;

	snprintf(path, sizeof(path), "tests/fixtures/tokenizers/%s", name);
	REQUIRE(!tokenizer_open_hf(&t, path, &e), "%s opens", name);
	REQUIRE(!tokenizer_encode(t, text, sizeof(text) - 1, 0, &ids, &e), "%s encodes", name);
	detok_init(&d, t, false);
	d.started = true;
	for (size_t i = 0; i < ids.n; i++) {
		size_t k = detok_push(&d, ids.v[i], piece, sizeof(piece));

		if (m + k <= sizeof(again))
			memcpy(again + m, piece, k);
		m += k;
		n += (size_t)tokenizer_bytes(t, ids.v[i], bytes + n, sizeof(bytes) - n);
	}
	m += detok_flush(&d, again + m, sizeof(again) - m);
	CHECK(ids.n && n == m && !memcmp(bytes, again, n), "%s: %zu bytes of %zu tokens", name, n,
	      ids.n);
	CHECK(!tokenizer_bytes(t, -1, bytes, sizeof(bytes)) &&
		      !tokenizer_bytes(t, tokenizer_n_vocab(t), bytes, sizeof(bytes)) &&
		      !tokenizer_bytes(t, ids.v[0], bytes, 0),
	      "%s: none where there is none, or no room", name);
	ids_free(&ids);
	tokenizer_close(t);
}

int main(void)
{
	static const char *const kinds[] = {
		"gpt2.json",	  "llama2.json", "llama2_metaspace.json",
		"metaspace.json", "gemma.json",	 "qwen2.json"};
	struct voc bytes = {0}, bpe = {0};

	if (!voc_bytes(&bytes, NULL) || !voc_open(&bpe, "tools/demo/model/tokenizer.json", 0))
		return 1;
	check_masks(&bytes, "bytes", 12, 3);
	check_masks(&bpe, "BPE", 6, 7);
	check_matchers(&bpe);
	check_bounds();
	check_forgetting(&bytes);
	check_large();
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		check_bytes(kinds[i]);
	voc_close(&bytes);
	voc_close(&bpe);
	return tap_done();
}
