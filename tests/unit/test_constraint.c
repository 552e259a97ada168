// SPDX-License-Identifier: MIT
/*
 * Constraints of answers: grammars that are shared and let go of, strict tools once a call begins,
 * the thinking budget, the end after one call. By ids alone, without a model.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llmdevd/constraint.h"
#include "tests/tap.h"

#define VOCAB 2048

static struct tokenizer *tok;
static struct grammar_cache *cache;
static int32_t eos;

static bool allowed(const uint64_t *m, int32_t id)
{
	return !m || (m[id / 64] >> (id % 64) & 1);
}

static int count(const uint64_t *m)
{
	int n = 0;

	for (int i = 0; m && i < VOCAB / 64; i++)
		n += __builtin_popcountll(m[i]);
	return m ? n : VOCAB;
}

/* Tells the constraint and the answer of the ids of a text, one by one. */
static bool say(struct constraint *c, struct answer *a, const char *text)
{
	struct ids ids = {0};
	bool ok = true;
	struct err e;

	if (tokenizer_encode(tok, text, strlen(text), TOK_SPECIAL, &ids, &e))
		return false;
	for (size_t i = 0; i < ids.n; i++) {
		char buf[DETOK_MAX];
		struct detok d;
		size_t n;

		ok &= allowed(constraint_mask(c, a), ids.v[i]);
		detok_init(&d, tok, false);
		d.started = true;
		n = detok_push(&d, ids.v[i], buf, sizeof(buf));
		constraint_id(c, a, ids.v[i]);
		ok &= !answer_push(a, buf, n, NULL, NULL);
	}
	ids_free(&ids);
	return ok;
}

static json_t *tools(bool strict)
{
	return json_pack("[{s:s,s:{s:s,s:b,s:{s:s,s:{s:{s:s}},s:[s],s:b}}}]", "type", "function",
			 "function", "name", "f", "strict", strict, "parameters", "type", "object",
			 "properties", "n", "type", "integer", "required", "n",
			 "additionalProperties", 0);
}

static void test_strict(void)
{
	struct output_format format = {.tools = OUTPUT_TOOLS_HERMES};
	struct constraint_spec s = {.kind = CONSTRAINT_STRICT,
				    .json = tools(true),
				    .parallel = true};
	struct constraint_opts o = {.spec = &s, .format = format, .budget = -1};
	struct output_opts oo = {.format = format, .tools = s.json};
	struct constraint c;
	struct answer a;
	struct err e = {""};
	int n;

	strcpy(s.path, "tools");
	REQUIRE(!constraint_open(&c, cache, &o, &e) && !answer_open(&a, &oo, true, &e), "opens: %s",
		e.msg);
	CHECK(!constraint_mask(&c, &a) && say(&c, &a, "Let me see.\n") && !constraint_mask(&c, &a),
	      "before a call anything may come");
	CHECK(say(&c, &a, "<tool_call>") && constraint_mask(&c, &a),
	      "a call begins: the mask is there");
	n = count(constraint_mask(&c, &a));
	CHECK(n > 0 && n < VOCAB / 2 && say(&c, &a, "{\"name\": \"f\", \"arguments\": {\"n\": 1"),
	      "... the call's own form may come, and little else (%d)", n);
	CHECK(!allowed(constraint_mask(&c, &a), tokenizer_find(tok, "x")), "... by its schema");
	CHECK(say(&c, &a, "}}</tool_call>") && a.n_calls == 1 && !constraint_mask(&c, &a),
	      "... behind it anything again");
	constraint_close(&c);
	answer_close(&a);
	constraint_spec_free(&s);
}

static void test_one_call(void)
{
	struct output_format format = {.tools = OUTPUT_TOOLS_HERMES};
	struct constraint_spec s = {0};
	struct constraint_opts o = {.spec = &s, .format = format, .one_call = true, .budget = -1};
	json_t *list = tools(false);
	struct output_opts oo = {.format = format, .tools = list};
	struct constraint c;
	struct answer a;
	struct err e = {""};

	REQUIRE(!constraint_open(&c, cache, &o, &e) && !answer_open(&a, &oo, true, &e), "opens: %s",
		e.msg);
	CHECK(say(&c, &a, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>") &&
		      a.n_calls == 1 && count(constraint_mask(&c, &a)) == 0,
	      "after its one call the answer is over");
	constraint_close(&c);
	answer_close(&a);
	json_decref(list);
}

static void test_budget(void)
{
	struct output_format format = {.reasoning = OUTPUT_REASONING_THINK};
	struct constraint_spec s = {.kind = CONSTRAINT_CHOICE,
				    .json = json_pack("[s,s]", "yes", "no")};
	struct constraint_opts o = {.spec = &s, .format = format, .thinking = true, .budget = 3};
	struct output_opts oo = {.format = format, .thinking = true, .reasoning_open = true};
	struct constraint c;
	struct answer a;
	struct err e = {""};
	int forced = 0;

	strcpy(s.path, "guided_choice");
	REQUIRE(!constraint_open(&c, cache, &o, &e) && !answer_open(&a, &oo, true, &e), "opens: %s",
		e.msg);
	CHECK(!constraint_mask(&c, &a), "within the budget it thinks what it likes");
	for (int i = 0; i < 3; i++)
		say(&c, &a, "a");
	while (forced < 40 && count(constraint_mask(&c, &a)) == 1) {
		const uint64_t *m = constraint_mask(&c, &a);
		int32_t id = 0;
		char buf[DETOK_MAX];
		struct detok d;

		while (!allowed(m, id))
			id++;
		detok_init(&d, tok, false);
		d.started = true;
		constraint_id(&c, &a, id);
		answer_push(&a, buf, detok_push(&d, id, buf, sizeof(buf)), NULL, NULL);
		forced++;
	}
	CHECK(forced && !answer_in_reasoning(&a) && answer_past_reasoning(&a),
	      "then the block is closed, by %d ids", forced);
	CHECK(count(constraint_mask(&c, &a)) < 20 &&
		      !allowed(constraint_mask(&c, &a), tokenizer_find(tok, "z")) &&
		      say(&c, &a, "yes") && allowed(constraint_mask(&c, &a), eos),
	      "... and the content is held to the choice");
	constraint_close(&c);
	answer_close(&a);
	constraint_spec_free(&s);
}

static void test_cache(void)
{
	struct constraint held[80];
	struct constraint_spec s = {.kind = CONSTRAINT_CHOICE};
	struct constraint_opts o = {.spec = &s, .budget = -1};
	struct answer a = {0};
	struct err e = {""};
	int bad = 0;
	char word[16];

	strcpy(s.path, "guided_choice");
	/* More than the cache has places for, all in use at once, then again. */
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 80; i++) {
			snprintf(word, sizeof(word), "w%d", i);
			s.json = json_pack("[s]", word);
			bad += !!constraint_open(&held[i], cache, &o, &e);
			json_decref(s.json);
		}
		for (int i = 0; i < 80; i++)
			bad += count(constraint_mask(&held[i], &a)) < 1;
		for (int i = 0; i < 80; i++)
			constraint_close(&held[i]);
	}
	CHECK(!bad, "80 grammars at once, twice %s", e.msg);
	s.kind = CONSTRAINT_SCHEMA;
	s.json = json_pack("{s:{s:{s:{}}}}", "properties", "a", "not");
	CHECK(constraint_open(&held[0], cache, &o, &e) &&
		      !strncmp(e.msg, "guided_choice#/properties/a/not: ", 32),
	      "a schema's place is a part of the path: %s", e.msg);
	json_decref(s.json);
}

int main(void)
{
	struct err e = {""};

	if (CHECK(!tokenizer_open_hf(&tok, "tools/demo/model/tokenizer.json", &e), "tokenizer %s",
		  e.msg)) {
		eos = tokenizer_find(tok, "<|im_end|>");
		if (CHECK(!grammar_cache_open(&cache, tok, VOCAB, &eos, 1, &e), "cache %s",
			  e.msg)) {
			test_strict();
			test_one_call();
			test_budget();
			test_cache();
		}
		grammar_cache_close(cache);
	}
	tokenizer_close(tok);
	return tap_done();
}
