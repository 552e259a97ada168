// SPDX-License-Identifier: MIT
/*
 * Payloads and conversations without a model: what is refused begins with the member's path; what is
 * taken; which ids of a conversation are kept when the next turn comes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llm.h"
#include "llmdevd/payload.h"
#include "tests/tap.h"

static const char template[] =
	"{% for t in tools or [] %}{{ '<tool_call>' + (t.function.name | tojson) + 'arguments' }}"
	"{% endfor %}{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
	"{{ raise_exception('System turns come first') }}{% endif %}"
	"{{ '<|im_start|>' + m.role + '\n' }}"
	"{% if m.reasoning_content and (loop.last or keep) %}"
	"{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
	"{{ (m.content or '') + '<|im_end|>\n' }}{% endfor %}"
	"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

static struct tokenizer *tok;
static struct chat *chat, *none;
static struct engine_info info = {.vocab = 2048, .ctx = 2048, .hidden = 64};
static struct sampling sampling = {.top_p = 1, .repeat_penalty = 1};

static int read_with(struct payload *p, const struct conversation *c, const struct chat *with,
		     const char *json, struct err *e)
{
	struct payload_env env = {.conversation = c,
				  .chat = with,
				  .sampling = &sampling,
				  .info = &info};

	e->msg[0] = '\0';
	return payload_read(p, LLM_FMT_JSON, json, strlen(json), &env, e);
}

static int take(struct payload *p, const char *json, struct err *e)
{
	struct conversation c;
	int rc;

	conversation_init(&c, tok, chat);
	rc = read_with(p, &c, chat, json, e);
	conversation_free(&c);
	return rc;
}

/* ---- refusals ------------------------------------------------------------------------------------- */

#define U "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
#define FN(members)                                                                                \
	"{" U ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"" members "}}]"
#define MSG(m) "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}," m "]}"

static const struct {
	const char *json;
	int error;
	const char *path;
} refusals[] = {
	{"{", -EINVAL, "request: bad JSON"},
	{"[]", -EINVAL, "request: "},
	{"{}", -EINVAL, "request: "},
	{"{" U ",\"prompt\":\"x\"}", -EINVAL, "request: "},
	{"{" U ",\"input\":\"x\"}", -EINVAL, "request: "},
	{"{\"a\":1,\"a\":2," U "}", -EINVAL, "request: bad JSON"},
	/* messages */
	{"{\"messages\":[]}", -EINVAL, "messages: "},
	{"{\"messages\":{}}", -EINVAL, "messages: "},
	{"{\"messages\":[1]}", -EINVAL, "messages[0]: "},
	{MSG("{\"content\":\"x\"}"), -EINVAL, "messages[1].role: "},
	{MSG("{\"role\":\"robot\",\"content\":\"x\"}"), -EINVAL, "messages[1].role: "},
	{MSG("{\"role\":\"function\",\"content\":\"x\"}"), -EOPNOTSUPP, "messages[1].role: "},
	{MSG("{\"role\":\"user\"}"), -EINVAL, "messages[1].content: "},
	{MSG("{\"role\":\"user\",\"content\":3}"), -EINVAL, "messages[1].content: "},
	{MSG("{\"role\":\"user\",\"content\":[{}]}"), -EINVAL, "messages[1].content[0].type: "},
	{MSG("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
	     "{\"type\":\"image_url\"}]}"),
	 -EOPNOTSUPP, "messages[1].content[1].type: "},
	{MSG("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"), -EINVAL,
	 "messages[1].content[0].text: "},
	{MSG("{\"role\":\"user\",\"content\":\"x\",\"name\":3}"), -EINVAL, "messages[1].name: "},
	{MSG("{\"role\":\"assistant\",\"reasoning_content\":[]}"), -EINVAL,
	 "messages[1].reasoning_content: "},
	{MSG("{\"role\":\"assistant\",\"tool_calls\":{}}"), -EINVAL, "messages[1].tool_calls: "},
	{MSG("{\"role\":\"assistant\",\"tool_calls\":[{}]}"), -EINVAL,
	 "messages[1].tool_calls[0].function.name: "},
	{MSG("{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"custom\"}]}"), -EOPNOTSUPP,
	 "messages[1].tool_calls[0].type: "},
	{MSG("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
	     "\"arguments\":[]}}]}"),
	 -EINVAL, "messages[1].tool_calls[0].function.arguments: "},
	{MSG("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":1,\"function\":{\"name\":\"f\"}}]}"),
	 -EINVAL, "messages[1].tool_calls[0].id: "},
	{MSG("{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[{}]}"), -EINVAL,
	 "messages[1].tool_calls: "},
	{MSG("{\"role\":\"assistant\",\"function_call\":{}}"), -EOPNOTSUPP,
	 "messages[1].function_call: "},
	{MSG("{\"role\":\"tool\",\"tool_call_id\":1,\"content\":\"x\"}"), -EINVAL,
	 "messages[1].tool_call_id: "},
	{MSG("{\"role\":\"system\",\"content\":\"x\"}"), -EINVAL,
	 "messages: System turns come first"},
	{"{" U ",\"continue_final_message\":true}", -EINVAL, "continue_final_message: "},
	{"{" U ",\"continue_final_message\":true,\"add_generation_prompt\":true}", -EINVAL,
	 "continue_final_message: "},
	{"{" U ",\"add_generation_prompt\":1}", -EINVAL, "add_generation_prompt: "},
	{"{" U ",\"chat_template_kwargs\":[]}", -EINVAL, "chat_template_kwargs: "},
	{"{" U ",\"chat_template_kwargs\":{\"messages\":[]}}", -EINVAL,
	 "chat_template_kwargs.messages: "},
	{"{" U ",\"reasoning_effort\":3}", -EINVAL, "reasoning_effort: "},
	{"{" U ",\"enable_thinking\":\"no\"}", -EINVAL, "enable_thinking: "},
	{"{" U ",\"thinking_budget\":-1}", -EINVAL, "thinking_budget: "},
	{"{" U ",\"thinking_token_budget\":1.5}", -EINVAL, "thinking_token_budget: "},
	/* tools */
	{"{" U ",\"tools\":{}}", -EINVAL, "tools: "},
	{"{" U ",\"tools\":[3]}", -EINVAL, "tools[0]: "},
	{"{" U ",\"tools\":[{}]}", -EINVAL, "tools[0].type: "},
	{"{" U ",\"tools\":[{\"type\":\"web_search\"}]}", -EOPNOTSUPP, "tools[0].type: "},
	{"{" U ",\"tools\":[{\"type\":\"function\"}]}", -EINVAL, "tools[0].function: "},
	{"{" U ",\"tools\":[{\"type\":\"function\",\"function\":{}}]}", -EINVAL,
	 "tools[0].function.name: not a string"},
	{"{" U ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]}", -EINVAL,
	 "tools[0].function.name: "},
	{FN(",\"description\":3") "}", -EINVAL, "tools[0].function.description: "},
	{FN(",\"parameters\":[]") "}", -EINVAL, "tools[0].function.parameters: "},
	{FN(",\"strict\":1") "}", -EINVAL, "tools[0].function.strict: "},
	{FN("") ",\"parallel_tool_calls\":\"no\"}", -EINVAL, "parallel_tool_calls: "},
	{FN("") ",\"tool_choice\":\"any\"}", -EINVAL, "tool_choice: "},
	{FN("") ",\"tool_choice\":{\"type\":\"custom\"}}", -EOPNOTSUPP, "tool_choice.type: "},
	{FN("") ",\"tool_choice\":{\"type\":\"function\"}}", -EINVAL,
	 "tool_choice.function.name: "},
	{FN("") ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}", -EINVAL,
	 "tool_choice.function.name: "},
	{"{" U ",\"tool_choice\":\"required\"}", -EINVAL, "tool_choice: "},
	{FN("") ",\"tool_choice\":\"required\",\"response_format\":{\"type\":\"json_object\"}}",
	 -EINVAL, "tool_choice: "},
	/* structure */
	{"{" U ",\"response_format\":{}}", -EINVAL, "response_format.type: "},
	{"{" U ",\"response_format\":{\"type\":\"xml\"}}", -EOPNOTSUPP, "response_format.type: "},
	{"{" U ",\"response_format\":{\"type\":\"json_schema\"}}", -EINVAL,
	 "response_format.json_schema: "},
	{"{" U ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}}", -EINVAL,
	 "response_format.json_schema.schema: "},
	{"{" U ",\"structured_outputs\":[]}", -EINVAL, "structured_outputs: "},
	{"{" U ",\"structured_outputs\":{\"regex\":3}}", -EINVAL, "structured_outputs.regex: "},
	{"{" U ",\"structured_outputs\":{\"choice\":[]}}", -EINVAL, "structured_outputs.choice: "},
	{"{" U ",\"structured_outputs\":{\"choice\":[\"a\",1]}}", -EINVAL,
	 "structured_outputs.choice[1]: "},
	{"{" U ",\"structured_outputs\":{\"json\":\"{\"}}", -EINVAL, "structured_outputs.json: "},
	{"{" U ",\"structured_outputs\":{\"regex\":\"a\",\"grammar\":\"b\"}}", -EINVAL,
	 "structured_outputs.grammar: "},
	{"{" U ",\"guided_regex\":\"\"}", -EINVAL, "guided_regex: "},
	{"{" U ",\"structured_outputs\":{\"structural_tag\":{}}}", -EOPNOTSUPP,
	 "structured_outputs.structural_tag: "},
	/* sampling */
	{"{" U ",\"temperature\":-1}", -EINVAL, "temperature: "},
	{"{" U ",\"top_p\":\"x\"}", -EINVAL, "top_p: "},
	{"{" U ",\"max_tokens\":0}", -EINVAL, "max_tokens: "},
	{"{" U ",\"seed\":\"x\"}", -EINVAL, "seed: "},
	{"{" U ",\"stop\":[\"\"]}", -EINVAL, "stop: "},
	{"{" U ",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\",\"b\","
	 "\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"]}",
	 -EINVAL, "stop: "},
	{"{" U ",\"logit_bias\":[]}", -EINVAL, "logit_bias: "},
	{"{" U ",\"logit_bias\":{\"x\":1}}", -EINVAL, "logit_bias.x: "},
	{"{" U ",\"logit_bias\":{\"2048\":1}}", -EINVAL, "logit_bias.2048: "},
	{"{" U ",\"logit_bias\":{\"7\":101}}", -EINVAL, "logit_bias.7: "},
	{"{" U ",\"logprobs\":2}", -EINVAL, "logprobs: "},
	{"{" U ",\"top_logprobs\":2}", -EINVAL, "top_logprobs: "},
	{"{" U ",\"logprobs\":true,\"top_logprobs\":21}", -EINVAL, "top_logprobs: "},
	{"{\"prompt\":\"x\",\"logprobs\":21}", -EINVAL, "logprobs: "},
	{"{\"prompt\":\"x\",\"logprobs\":true}", -EINVAL, "logprobs: "},
	/* what is not done */
	{"{" U ",\"functions\":[{}]}", -EOPNOTSUPP, "functions: "},
	{"{" U ",\"n\":2}", -EOPNOTSUPP, "n: "},
	{"{" U ",\"modalities\":[\"audio\"]}", -EOPNOTSUPP, "modalities: "},
	{"{" U ",\"chat_template\":\"x\"}", -EOPNOTSUPP, "chat_template: "},
	{"{" U ",\"web_search_options\":{}}", -EOPNOTSUPP, "web_search_options: "},
	{"{" U ",\"min_tokens\":-5}", -EINVAL, "min_tokens: "},
	{"{" U ",\"min_tokens\":5,\"max_tokens\":4}", -EINVAL, "min_tokens: "},
	{"{\"prompt\":\"x\",\"suffix\":\"y\"}", -EOPNOTSUPP, "suffix: "},
	{"{\"prompt\":\"x\",\"echo\":true}", -EOPNOTSUPP, "echo: "},
	{"{\"prompt\":\"x\",\"tools\":[{}]}", -EOPNOTSUPP, "tools: "},
	/* the rest */
	{"{\"prompt\":[1,\"x\"]}", -EOPNOTSUPP, "prompt[1]: "},
	{"{\"prompt\":[2048]}", -EINVAL, "prompt[0]: "},
	{"{\"prompt\":[]}", -EINVAL, "prompt: "},
	{"{\"prompt\":\"\"}", -EINVAL, "prompt: "},
	{"{\"input\":\"x\"}", -EOPNOTSUPP, "input: "},
	{"{\"tokenize\":3}", -EINVAL, "tokenize: "},
	{"{\"tokenize\":{\"prompt\":3}}", -EINVAL, "tokenize.prompt: "},
	{"{\"tokenize\":{\"messages\":[{\"role\":\"x\"}]}}", -EINVAL,
	 "tokenize.messages[0].role: "},
	{"{\"detokenize\":{}}", -EINVAL, "detokenize.tokens: "},
	{"{\"detokenize\":{\"tokens\":[-1]}}", -EINVAL, "detokenize.tokens[0]: "},
};

static void test_refusals(void)
{
	struct payload p;
	struct err e;
	int rc;

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		rc = take(&p, refusals[i].json, &e);
		CHECK(rc == refusals[i].error &&
			      !strncmp(e.msg, refusals[i].path, strlen(refusals[i].path)) &&
			      !strchr(e.msg, '\n') && !p.prompt.ids.n && !p.prompt.messages,
		      "%s -> %d %s", refusals[i].json, rc, e.msg);
		if (!rc)
			payload_free(&p);
	}
}

static void test_without(void)
{
	static const char with_tools[] = FN("") "}";
	struct conversation c;
	struct payload p;
	struct err e;

	conversation_init(&c, tok, none);
	CHECK(read_with(&p, &c, none, "{" U "}", &e) == -EOPNOTSUPP &&
		      !strncmp(e.msg, "messages: ", 10),
	      "no template: %s", e.msg);
	conversation_free(&c);
	conversation_init(&c, NULL, NULL);
	CHECK(read_with(&p, &c, NULL, "{" U "}", &e) == -EOPNOTSUPP &&
		      !strncmp(e.msg, "messages: ", 10),
	      "no tokenizer: %s", e.msg);
	CHECK(read_with(&p, &c, NULL, "{\"prompt\":\"x\"}", &e) == -EOPNOTSUPP &&
		      !strncmp(e.msg, "prompt: ", 8),
	      "... nor for text: %s", e.msg);
	CHECK(!read_with(&p, &c, NULL, "{\"prompt\":[1,2]}", &e) && p.prompt.ids.n == 2,
	      "... but for ids %s", e.msg);
	payload_free(&p);
	conversation_free(&c);
	CHECK(!take(&p, with_tools, &e) && json_array_size(p.tools) == 1 &&
		      p.constraint.kind == CONSTRAINT_NONE,
	      "tools by themselves hold nothing %s", e.msg);
	payload_free(&p);
}

/* ---- what is taken -------------------------------------------------------------------------------- */

static void test_taken(void)
{
	struct payload p;
	struct err e;

	REQUIRE(!take(&p,
		      FN(",\"strict\":true") ",\"stop\":null,\"logit_bias\":{\"7\":-100,\"9\":2},"
					     "\"logprobs\":true,\"top_logprobs\":3,"
					     "\"parallel_tool_calls\":false,\"unknown\":1,"
					     "\"thinking_token_budget\":9,\"seed\":-1,"
					     "\"min_tokens\":4,\"max_tokens\":4}",
		      &e),
		"a full request: %s", e.msg);
	CHECK(p.n_bias == 2 && p.bias[0].id == 7 && p.bias[0].bias == -100 && p.n_logprobs == 3 &&
		      p.one_call && p.thinking_budget == 9 && p.seeded &&
		      p.sampling.min_tokens == 4 && p.sampling.seed == UINT64_MAX &&
		      p.constraint.kind == CONSTRAINT_STRICT,
	      "... all of it counts");
	payload_free(&p);
	REQUIRE(!take(&p, FN("") ",\"tool_choice\":\"none\"}", &e), "tool_choice none: %s", e.msg);
	CHECK(!p.tools && !strstr(p.prompt.chat.text.text, "tool_call"),
	      "... the model does not hear of tools");
	payload_free(&p);
	REQUIRE(!take(&p, "{" U ",\"guided_choice\":[\"a\",\"b\"]}", &e), "guided_choice");
	CHECK(p.constraint.kind == CONSTRAINT_CHOICE && !strcmp(p.constraint.path, "guided_choice"),
	      "... is a choice");
	payload_free(&p);
	REQUIRE(!take(&p, "{\"tokenize\":{\"prompt\":\"Hello you\"}}", &e), "tokenize: %s", e.msg);
	CHECK(p.kind == PAYLOAD_RESULT && strstr(p.result, "\"max_model_len\":2048") &&
		      strlen(p.result) == p.result_len,
	      "... %s", p.result);
	payload_free(&p);
}

/* ---- conversations -------------------------------------------------------------------------------- */

static int turn(struct conversation *c, const char *text, const char *answer, const char *reasoning,
		bool stop, struct conversation_prompt *p)
{
	json_t *m = json_pack("{s:s,s:s}", "role", "assistant", "content", answer);
	struct ids said = {0};
	char raw[256];
	struct err e;
	int rc;

	if (reasoning)
		json_object_set_new(m, "reasoning_content", json_string(reasoning));
	snprintf(raw, sizeof(raw), reasoning ? "<think>%s</think>%s" : "%s%s",
		 reasoning ? reasoning : "", answer);
	rc = conversation_turn(c, text, strlen(text), 0, p, &e);
	if (!rc)
		rc = tokenizer_encode(tok, raw, strlen(raw), 0, &said, &e);
	if (!rc && stop)
		rc = ids_push(&said, tokenizer_find(tok, "<|im_end|>"));
	if (!rc)
		rc = conversation_commit(c, p, said.v, said.n, m);
	ids_free(&said);
	return rc;
}

static void test_conversation(void)
{
	struct conversation c;
	struct conversation_prompt p = {0};
	struct err e;
	size_t held;

	conversation_init(&c, tok, chat);
	REQUIRE(!turn(&c, "Why is the sky blue?", "It scatters", NULL, false, &p), "a turn");
	held = c.ids.n;
	CHECK(held > 10 && c.generated[held - 1] && !c.generated[0] &&
		      json_array_size(c.messages) == 2,
	      "the conversation holds it");
	REQUIRE(!conversation_turn(&c, "And?", 4, 0, &p, &e), "the next prompt");
	CHECK(p.n_history == held && p.ids.v[held] == tokenizer_find(tok, "<|im_end|>") &&
		      !memcmp(p.ids.v, c.ids.v, held * sizeof(*p.ids.v)),
	      "an answer that was cut short is kept as it was, and closed");
	conversation_prompt_free(&p);
	REQUIRE(!turn(&c, "And?", "Light.", NULL, true, &p), "another turn");
	held = c.ids.n;
	REQUIRE(!conversation_turn(&c, "More", 4, 0, &p, &e), "the next prompt");
	CHECK(p.n_history == held, "one that ended by itself too");
	conversation_prompt_free(&p);
	REQUIRE(!turn(&c, "Hm", "Yes.", "I think", true, &p), "a turn with thinking");
	held = c.ids.n;
	REQUIRE(!conversation_turn(&c, "So", 2, 0, &p, &e), "the next prompt");
	CHECK(p.n_history < held && p.n_history > 10 && !strstr(p.chat.text.text, "think") &&
		      !memcmp(p.ids.v, c.ids.v, p.n_history * sizeof(*p.ids.v)) &&
		      p.ids.v[p.n_history] != c.ids.v[p.n_history],
	      "a template that drops thinking: all up to there is the same (%zu of %zu)",
	      p.n_history, held);
	conversation_prompt_free(&p);
	REQUIRE(!conversation_turn(&c,
				   "a\xff"
				   "b",
				   3, 0, &p, &e) &&
			strstr(p.chat.text.text, "a\xef\xbf\xbd"
						 "b"),
		"bytes that are no text");
	conversation_prompt_free(&p);
	conversation_free(&c);

	conversation_init(&c, tok, none);
	REQUIRE(!conversation_turn(&c, "The sky", 7, 0, &p, &e), "raw text");
	held = p.ids.n;
	CHECK(!conversation_commit(&c, &p, (int32_t[]){5, 6}, 2, NULL) && c.ids.n == held + 2,
	      "... goes on");
	REQUIRE(!conversation_turn(&c, " is", 3, 0, &p, &e) && p.n_history == held + 2 &&
			p.ids.n > held + 2,
		"... where it was");
	conversation_prompt_free(&p);
	conversation_free(&c);
}

int main(void)
{
	struct chat_opts o = {.template = template};
	struct err e = {""};

	if (CHECK(!tokenizer_open_hf(&tok, "tools/demo/model/tokenizer.json", &e) &&
			  !chat_open(&chat, NULL, tok, &o, &e) &&
			  !chat_open(&none, NULL, tok, NULL, &e),
		  "tokenizer and template: %s", e.msg)) {
		test_refusals();
		test_without();
		test_taken();
		test_conversation();
	}
	chat_close(chat);
	chat_close(none);
	tokenizer_close(tok);
	return tap_done();
}
