// SPDX-License-Identifier: MIT
/*
 * The built-in model, tools/demo/model, against what Hugging Face transformers makes of it
 * (tests/fixtures/demo/expect.json, written by tools/demo/make_expect.py): a question becomes the
 * same prompt ids, and every backend and mode gives the same whole answer, ids and text. Its
 * logits are compared by test_oracle.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "tests/tap.h"

#define MODEL  "tools/demo/model"
#define EXPECT "tests/fixtures/demo/expect.json"

struct answer {
	struct ids ids;
	char text[2048];
	size_t text_len;
	enum engine_finish finish;
	bool failed;
};

static void collect(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct answer *a = ctx;

	if (ev->kind == ENGINE_TOKEN)
		ids_push(&a->ids, ev->id);
	if (ev->kind == ENGINE_DONE)
		a->finish = ev->finish;
	if (ev->kind == ENGINE_ERROR)
		a->failed = true;
	if ((ev->kind == ENGINE_TOKEN || ev->kind == ENGINE_DONE) &&
	    ev->text_len <= sizeof(a->text) - a->text_len) {
		memcpy(a->text + a->text_len, ev->text ? ev->text : "", ev->text_len);
		a->text_len += ev->text_len;
	}
}

static bool same_ids(const struct ids *a, const json_t *list)
{
	if (a->n != json_array_size(list))
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (a->v[i] != json_integer_value(json_array_get(list, i)))
			return false;
	return true;
}

/* One question, alone, with the model's own sampling defaults. */
static void check_chat(struct engine *en, const char *mode, const json_t *chat)
{
	const char *question = json_string_value(json_object_get(chat, "question"));
	const char *text = json_string_value(json_object_get(chat, "text"));
	json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", question);
	const struct chat_request cr = {.messages = messages};
	struct chat_prompt text_of = {0};
	struct answer a = {.failed = false};
	struct ids prompt = {0};
	struct err e = {""};
	struct request *r;
	int rc;

	rc = chat_render(engine_chat(en), &cr, &text_of, &e);
	if (!rc)
		rc = chat_encode(engine_chat(en), &text_of.text, 0, &prompt, &e);
	CHECK(!rc && same_ids(&prompt, json_object_get(chat, "prompt")),
	      "%s: \"%s\" becomes transformers' prompt ids %s", mode, question, rc ? e.msg : "");
	if (!rc) {
		struct request_params p = {.prompt = prompt.v,
					   .n_prompt = prompt.n,
					   .max_tokens = 200,
					   .n_logprobs = -1,
					   .on_event = collect,
					   .ctx = &a};

		sampling_default(&p.sampling, en);
		rc = engine_submit(en, &p, &r, &e);
		while (!rc && (rc = engine_step(en, &e)) > 0)
			rc = 0;
		CHECK(!rc && !a.failed && same_ids(&a.ids, json_object_get(chat, "ids")),
		      "%s: \"%s\" gets transformers' answer, all %zu ids (margin %.2f) %s", mode,
		      question, json_array_size(json_object_get(chat, "ids")),
		      json_number_value(json_object_get(chat, "margin")), rc ? e.msg : "");
		CHECK(a.finish == FINISH_STOP && a.text_len == strlen(text) &&
			      !memcmp(a.text, text, a.text_len),
		      "%s: \"%s\" gets the text and stops: %.*s", mode, question, (int)a.text_len,
		      a.text);
	}
	chat_prompt_free(&text_of);
	json_decref(messages);
	ids_free(&prompt);
	ids_free(&a.ids);
}

int main(void)
{
	static const struct {
		const char *name, *backend;
		bool exact;
	} modes[] = {{"ref", "ref", true}, {"cpu --exact", "cpu", true}, {"cpu", "cpu", false}};
	json_t *expect = json_load_file(EXPECT, 0, NULL);
	json_t *chats = json_object_get(expect, "chats"), *chat;
	size_t i;

	CHECK(json_array_size(chats) > 0, "%s holds answers", EXPECT);
	for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
		struct engine_opts o = {.model = MODEL,
					.backend = modes[m].backend,
					.exact = modes[m].exact,
					.kv_type = -1,
					.ctx = 512,
					.max_seqs = 1};
		struct engine *en = NULL;
		struct err e = {""};

		if (!CHECK(!engine_open(&en, &o, &e), "%s: opens %s %s", modes[m].name, MODEL,
			   e.msg))
			continue;
		CHECK(!chat_unusable(engine_chat(en)) && chat_takes_tools(engine_chat(en)),
		      "%s: its template is usable", modes[m].name);
		CHECK(engine_info(en)->temperature == 0, "%s: greedy by default", modes[m].name);
		json_array_foreach (chats, i, chat)
			check_chat(en, modes[m].name, chat);
		engine_close(en);
	}
	json_decref(expect);
	return tap_done();
}
