// SPDX-License-Identifier: MIT
/* The Responses API's two translations (runtime/http/responses.h), without HTTP or a daemon. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "http/responses.h"
#include "llm.h"
#include "tests/tap.h"

/* ---- requests ----------------------------------------------------------------------------------- */

/* Single quotes stand for double ones. */
static json_t *load(const char *text)
{
	char *copy = strdup(text);
	json_error_t e;
	json_t *v;

	for (char *p = copy; *p; p++)
		if (*p == '\'')
			*p = '"';
	v = json_loads(copy, JSON_DECODE_ANY, &e);
	if (!v)
		printf("# %s: %s\n", text, e.text);
	free(copy);
	return v;
}

static void becomes(const char *what, const char *body, const char *chat)
{
	json_t *b = load(body), *want = load(chat), *got = NULL, *before = json_deep_copy(b);
	struct err e = {""};
	int rc = responses_to_chat(b, &got, &e);
	char *text;

	if (!CHECK(!rc && json_equal(got, want), "request: %s", what)) {
		text = got ? json_dumps(got, JSON_COMPACT) : strdup(e.msg);
		printf("#   got %s\n", text);
		free(text);
	}
	if (!json_equal(b, before))
		CHECK(0, "request: %s: is left alone", what);
	json_decref(b);
	json_decref(before);
	json_decref(want);
	json_decref(got);
}

static void refused(const char *body, const char *begin)
{
	json_t *b = load(body), *got = NULL;
	struct err e = {""};
	int rc = responses_to_chat(b, &got, &e);

	if (!CHECK((rc == -EINVAL || rc == -EOPNOTSUPP) && !got &&
			   !strncmp(e.msg, begin, strlen(begin)),
		   "refused: %s", begin))
		printf("#   %d: %s\n", rc, e.msg);
	json_decref(b);
	json_decref(got);
}

static void test_messages(void)
{
	becomes("a string", "{'input':'Hi'}", "{'messages':[{'role':'user','content':'Hi'}]}");
	becomes("instructions", "{'input':'Hi','instructions':'Be brief.'}",
		"{'messages':[{'role':'system','content':'Be brief.'},"
		"{'role':'user','content':'Hi'}]}");
	becomes("system messages at the beginning join the instructions",
		"{'instructions':'A','input':[{'role':'developer','content':'B'},"
		"{'role':'system','content':[{'type':'input_text','text':'C'}]},"
		"{'role':'user','content':'Hi'},{'role':'developer','content':'D'}]}",
		"{'messages':[{'role':'system','content':'A\\n\\nB\\n\\nC'},"
		"{'role':'user','content':'Hi'},{'role':'developer','content':'D'}]}");
	becomes("instructions alone count",
		"{'instructions':'A','input':[{'role':'system','content':'B'}]}",
		"{'messages':[{'role':'system','content':'A\\n\\nB'}]}");
	becomes("parts are joined",
		"{'input':[{'type':'message','role':'user','content':["
		"{'type':'input_text','text':'a'},{'type':'input_text','text':'b'}]},"
		"{'type':'message','id':'msg_1','status':'completed','role':'assistant','content':["
		"{'type':'output_text','text':'c','annotations':[]},"
		"{'type':'refusal','refusal':'d'}]}]}",
		"{'messages':[{'role':'user','content':'ab'},{'role':'assistant','content':'cd'}]"
		"}");
}

static void test_turns(void)
{
	becomes("a turn of the model is one message",
		"{'input':[{'role':'user','content':'q'},"
		"{'type':'reasoning','id':'rs_1','summary':[],'content':["
		"{'type':'reasoning_text','text':'hm'}]},"
		"{'type':'message','role':'assistant','content':'look'},"
		"{'type':'function_call','call_id':'c1','name':'f','arguments':'{}'},"
		"{'type':'function_call','call_id':'c2','name':'g','arguments':'{\\'a\\':1}'},"
		"{'type':'function_call_output','call_id':'c2','output':'two'},"
		"{'type':'function_call_output','call_id':'c1','output':["
		"{'type':'input_text','text':'one'}]}]}",
		"{'messages':[{'role':'user','content':'q'},"
		"{'role':'assistant','reasoning_content':'hm','content':'look','tool_calls':["
		"{'id':'c1','type':'function','function':{'name':'f','arguments':'{}'}},"
		"{'id':'c2','type':'function','function':{'name':'g','arguments':'{\\'a\\':1}'}}]},"
		"{'role':'tool','tool_call_id':'c2','name':'g','content':'two'},"
		"{'role':'tool','tool_call_id':'c1','name':'f','content':'one'}]}");
	becomes("a call without text",
		"{'input':[{'type':'function_call','call_id':'c','name':'f','arguments':'{}'},"
		"{'type':'function_call_output','call_id':'c','output':'r'},"
		"{'type':'function_call','call_id':'d','name':'f','arguments':'{}'},"
		"{'type':'function_call_output','call_id':'d','output':'s'}]}",
		"{'messages':[{'role':'assistant','content':null,'tool_calls':[{'id':'c',"
		"'type':'function','function':{'name':'f','arguments':'{}'}}]},"
		"{'role':'tool','tool_call_id':'c','name':'f','content':'r'},"
		"{'role':'assistant','content':null,'tool_calls':[{'id':'d',"
		"'type':'function','function':{'name':'f','arguments':'{}'}}]},"
		"{'role':'tool','tool_call_id':'d','name':'f','content':'s'}]}");
	becomes("reasoning: its text before its summary; several are joined",
		"{'input':[{'type':'reasoning','summary':[{'type':'summary_text','text':'S'}],"
		"'content':[{'type':'reasoning_text','text':'T'}]},"
		"{'type':'reasoning','summary':[{'type':'summary_text','text':'U'}]},"
		"{'type':'reasoning','summary':[],'encrypted_content':'x'},"
		"{'role':'assistant','content':'a'},{'role':'assistant','content':'b'}]}",
		"{'messages':[{'role':'assistant','reasoning_content':'T\\nU','content':'a'},"
		"{'role':'assistant','content':'b'}]}");
	becomes("reasoning that nothing followed",
		"{'input':[{'role':'user','content':'q'},{'type':'reasoning','summary':["
		"{'type':'summary_text','text':'S'}]},{'role':'user','content':'r'}]}",
		"{'messages':[{'role':'user','content':'q'},"
		"{'role':'assistant','reasoning_content':'S','content':''},"
		"{'role':'user','content':'r'}]}");
	becomes("reasoning after an answer begins another turn",
		"{'input':[{'role':'assistant','content':'a'},{'type':'reasoning','content':["
		"{'type':'reasoning_text','text':'T'}],'summary':[]},"
		"{'type':'function_call','call_id':'c','name':'f','arguments':'{}'}]}",
		"{'messages':[{'role':'assistant','content':'a'},"
		"{'role':'assistant','reasoning_content':'T','content':null,'tool_calls':[{'id':'c'"
		","
		"'type':'function','function':{'name':'f','arguments':'{}'}}]}]}");
}

#define HI "'messages':[{'role':'user','content':'Hi'}]"

static void test_settings(void)
{
	becomes("tools and their choice",
		"{'input':'Hi','tools':[{'type':'function','name':'f','description':'d',"
		"'parameters':{'type':'object'},'strict':true},{'type':'function','name':'g'}],"
		"'tool_choice':{'type':'function','name':'f'},'parallel_tool_calls':false}",
		"{" HI ",'tools':[{'type':'function','function':{'name':'f','description':'d',"
		"'parameters':{'type':'object'},'strict':true}},"
		"{'type':'function','function':{'name':'g'}}],'tool_choice':{'type':'function',"
		"'function':{'name':'f'}},'parallel_tool_calls':false}");
	becomes("allowed tools",
		"{'input':'Hi','tools':[{'type':'function','name':'f'},"
		"{'type':'function','name':'g'}],'tool_choice':{'type':'allowed_tools',"
		"'mode':'required','tools':[{'type':'function','name':'g'}]}}",
		"{" HI ",'tools':[{'type':'function','function':{'name':'g'}}],"
		"'tool_choice':'required'}");
	becomes("no tools", "{'input':'Hi','tools':[],'tool_choice':'auto'}",
		"{" HI ",'tool_choice':'auto'}");
	becomes("text.format",
		"{'input':'Hi','text':{'verbosity':'medium','format':{'type':'json_schema',"
		"'name':'n','strict':true,'schema':{'type':'object'}}}}",
		"{" HI ",'response_format':{'type':'json_schema','json_schema':{'name':'n',"
		"'strict':true,'schema':{'type':'object'}}}}");
	becomes("text.format json_object",
		"{'input':'Hi','text':{'format':{'type':'json_object'}}}",
		"{" HI ",'response_format':{'type':'json_object'}}");
	becomes("text.format text", "{'input':'Hi','text':{'format':{'type':'text'}}}", "{" HI "}");
	becomes("numbers, effort, log-probabilities; what is null or only for the service",
		"{'input':'Hi','max_output_tokens':7,'temperature':0.5,'top_p':0.9,'top_k':3,"
		"'reasoning':{'effort':'low','summary':'auto'},'top_logprobs':2,"
		"'include':['message.output_text.logprobs','reasoning.encrypted_content'],"
		"'store':false,'previous_response_id':null,'metadata':{'a':'b'},'user':'u',"
		"'truncation':'disabled','service_tier':'auto','prompt_cache_key':'k',"
		"'stream':true,'stream_options':{'include_obfuscation':false}}",
		"{" HI ",'max_completion_tokens':7,'temperature':0.5,'top_p':0.9,'top_k':3,"
		"'reasoning_effort':'low','logprobs':true,'top_logprobs':2}");
}

static void test_refusals(void)
{
	static const char *const cases[][2] = {
		{"{}", "input: missing"},
		{"{'input':1}", "input: neither"},
		{"{'input':[]}", "input: empty"},
		{"{'input':[1]}", "input[0]: not an object"},
		{"{'input':[{'content':'x'}]}", "input[0].role: missing"},
		{"{'input':[{'role':'tool','content':'x'}]}", "input[0].role: tool: "},
		{"{'input':[{'role':'user'}]}", "input[0].content: neither"},
		{"{'input':[{'role':'user','content':[{'text':'x'}]}]}",
		 "input[0].content[0].type: missing"},
		{"{'input':[{'role':'user','content':[1]}]}", "input[0].content[0]: not an object"},
		{"{'input':[{'role':'user','content':[{'type':'input_image'}]}]}",
		 "input[0].content[0].type: input_image: "},
		{"{'input':[{'role':'user','content':[{'type':'input_text'}]}]}",
		 "input[0].content[0].text: missing"},
		{"{'input':[{'type':1,'role':'user'}]}", "input[0].type: not a string"},
		{"{'input':[{'type':'item_reference','id':'x'}]}",
		 "input[0].type: item_reference: "},
		{"{'input':[{'type':'computer_call'}]}", "input[0].type: computer_call: "},
		{"{'input':[{'type':'function_call','call_id':'c','name':'f'}]}",
		 "input[0].arguments: missing"},
		{"{'input':[{'type':'function_call_output','call_id':'c','output':''}]}",
		 "input[0].call_id: c: no function_call"},
		{"{'input':[{'type':'function_call_output','output':''}]}",
		 "input[0].call_id: missing"},
		{"{'input':[{'type':'function_call','call_id':'c','name':'f','arguments':''},"
		 "{'type':'function_call_output','call_id':'c'}]}",
		 "input[1].output: neither"},
		{"{'input':[{'type':'reasoning','summary':[1]}]}",
		 "input[0].summary[0]: not an object"},
		{"{'input':'x','instructions':[]}", "instructions: not a string"},
		{"{'input':'x','tools':{}}", "tools: not a list"},
		{"{'input':'x','tools':[1]}", "tools[0]: not an object"},
		{"{'input':'x','tools':[{'name':'f'}]}", "tools[0].type: missing"},
		{"{'input':'x','tools':[{'type':'function','name':'f'},{'type':'web_search'}]}",
		 "tools[1].type: web_search: "},
		{"{'input':'x','tools':[{'type':'function','function':{'name':'f'}}]}",
		 "tools[0].name: missing"},
		{"{'input':'x','tool_choice':'any'}", "tool_choice: any: "},
		{"{'input':'x','tool_choice':1}", "tool_choice: neither"},
		{"{'input':'x','tool_choice':{}}", "tool_choice.type: missing"},
		{"{'input':'x','tool_choice':{'type':'function'}}", "tool_choice.name: missing"},
		{"{'input':'x','tool_choice':{'type':'mcp'}}", "tool_choice.type: mcp: "},
		{"{'input':'x','tool_choice':{'type':'allowed_tools','mode':'all'}}",
		 "tool_choice.mode: "},
		{"{'input':'x','tool_choice':{'type':'allowed_tools','mode':'auto'}}",
		 "tool_choice.tools: not a list"},
		{"{'input':'x','tool_choice':{'type':'allowed_tools','mode':'auto','tools':[{}]}}",
		 "tool_choice.tools[0].name: "},
		{"{'input':'x','text':1}", "text: not an object"},
		{"{'input':'x','text':{'verbosity':'low'}}", "text.verbosity: "},
		{"{'input':'x','store':'no'}", "store: "},
		{"{'input':'x','background':1}", "background: "},
		{"{'input':'x','text':{'format':{}}}", "text.format.type: missing"},
		{"{'input':'x','text':{'format':{'type':'grammar'}}}",
		 "text.format.type: grammar: "},
		{"{'input':'x','text':{'format':{'type':'json_schema'}}}",
		 "text.format.name: missing"},
		{"{'input':'x','text':{'format':{'type':'json_schema','name':'n'}}}",
		 "text.format.schema: missing"},
		{"{'input':'x','reasoning':'low'}", "reasoning: not an object"},
		{"{'input':'x','reasoning':{'effort':3}}", "reasoning.effort: not a string"},
		{"{'input':'x','include':'a'}", "include: not a list"},
		{"{'input':'x','include':[1]}", "include[0]: not a string"},
		{"{'input':'x','top_logprobs':21}", "top_logprobs: "},
		{"{'input':'x','metadata':[]}", "metadata: not an object"},
		{"{'input':'x','metadata':{'a':1}}", "metadata.a: "},
		{"{'input':'x','previous_response_id':'resp_1'}", "previous_response_id: "},
		{"{'input':'x','conversation':'c'}", "conversation: "},
		{"{'input':'x','prompt':{'id':'p'}}", "prompt: "},
		{"{'input':'x','store':true}", "store: "},
		{"{'input':'x','background':true}", "background: "},
		{"{'input':'x','truncation':'auto'}", "truncation: "},
		{"{'input':'x','stream':1}", "stream: "},
		{"{'input':'x','max_output_tokens':0}", "max_output_tokens: "},
		{"{'input':'x','max_output_tokens':'7'}", "max_output_tokens: "},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refused(cases[i][0], cases[i][1]);
}

static void test_error_paths(void)
{
	static const char *const cases[][2] = {
		{"response_format.json_schema.schema#/properties/a: why",
		 "text.format.schema#/properties/a: why"},
		{"max_completion_tokens: 9: too many", "max_output_tokens: 9: too many"},
		{"messages[3].content: why", "input: why"},
		{"messages: response_format: why", "input: response_format: why"},
		{"max_tokens: 9: too many", "max_output_tokens: 9: too many"},
		{"tools[12].function.name: why", "tools[12].name: why"},
		{"tools[0].function: why", "tools[0]: why"},
		{"reasoning_effort: high: why", "reasoning.effort: high: why"},
		{"temperature: response_format", "temperature: response_format"},
		{"no path", "no path"},
		{"", ""},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct strbuf out = {0};

		responses_translate_error(cases[i][0], strlen(cases[i][0]), &out);
		CHECK(out.n == strlen(cases[i][1]) && !memcmp(out.p ?: "", cases[i][1], out.n),
		      "error: %s", cases[i][1]);
		strbuf_free(&out);
	}
}

/* ---- answers ------------------------------------------------------------------------------------ */

/* What was emitted: "type" lines, and the objects. */
struct log {
	char types[4096];
	json_t *events;
};

static void take(void *ctx, const char *type, const struct strbuf *json)
{
	struct log *log = ctx;
	json_t *v = json_loadb(json->p, json->n, 0, NULL);
	size_t n = strlen(log->types);

	snprintf(log->types + n, sizeof(log->types) - n, "%s%s", n ? " " : "",
		 strncmp(type, "response.", 9) ? type : type + 9);
	if (!v || strcmp(json_string_value(json_object_get(v, "type")), type) ||
	    json_integer_value(json_object_get(v, "sequence_number")) !=
		    (json_int_t)json_array_size(log->events))
		CHECK(0, "event %s is whole and numbered: %.*s", type, (int)json->n, json->p);
	json_array_append_new(log->events, v);
}

static struct response *answer(struct log *log, const char *body)
{
	json_t *b = load(body);
	struct response *r = response_new(b, "m", "00ff", 17, take, log);

	*log = (struct log){.events = json_array()};
	json_decref(b);
	response_begin(r);
	return r;
}

static void feed(struct response *r, enum llmdev_event_kind kind, uint32_t subtype,
		 const char *text)
{
	response_event(r, &(struct llmdev_event){.kind = kind,
						 .subtype = subtype,
						 .text = text,
						 .text_len = strlen(text)});
}

static void finish(struct response *r, enum llmdev_finish finish)
{
	response_done(r,
		      &(struct llmdev_event){.kind = LLMDEV_DONE,
					     .finish = finish,
					     .usage = {.prompt_tokens = 9,
						       .cached_tokens = 4,
						       .completion_tokens = 5}},
		      2);
}

/* The final object of the stream and of the reply without a stream are one. */
static json_t *closed(struct response *r, struct log *log)
{
	json_t *v = response_json(r);
	size_t n = json_array_size(log->events);

	CHECK(v && json_equal(v, json_object_get(json_array_get(log->events, n - 1), "response")),
	      "the last event holds the response");
	response_free(r);
	return v;
}

static void same(const json_t *got, const char *want, const char *what)
{
	json_t *w = load(want);

	if (!CHECK(json_equal(got, w), "%s", what)) {
		char *text = json_dumps(got, JSON_COMPACT | JSON_ENCODE_ANY);

		printf("#   got %s\n", text);
		free(text);
	}
	json_decref(w);
}

static void test_text(void)
{
	struct log log;
	struct response *r = answer(
		&log,
		"{'input':'x','metadata':{'a':'b'},'tools':[{'type':'function','name':'f'}]}");
	json_t *v;

	feed(r, LLMDEV_TEXT, 0, "");
	feed(r, LLMDEV_TEXT, 0, "Hel");
	feed(r, LLMDEV_TEXT, 0, "lo");
	finish(r, LLMDEV_STOP);
	v = closed(r, &log);
	CHECK(!strcmp(log.types, "created in_progress output_item.added content_part.added "
				 "output_text.delta output_text.delta output_text.done "
				 "content_part.done output_item.done completed"),
	      "text: events in their order");
	same(json_object_get(v, "output"),
	     "[{'id':'msg_00ff00','type':'message','status':'completed','role':'assistant',"
	     "'content':[{'type':'output_text','text':'Hello','annotations':[],'logprobs':[]}]}]",
	     "text: the item");
	same(json_object_get(v, "usage"),
	     "{'input_tokens':9,'input_tokens_details':{'cached_tokens':4},'output_tokens':5,"
	     "'output_tokens_details':{'reasoning_tokens':2},'total_tokens':14}",
	     "text: usage");
	same(json_object_get(v, "tools"),
	     "[{'type':'function','name':'f','parameters':null,'strict':false}]",
	     "text: tools are repeated");
	same(json_object_get(v, "metadata"), "{'a':'b'}", "text: metadata is repeated");
	same(json_object_get(v, "status"), "'completed'", "text: status");
	same(json_object_get(json_array_get(log.events, 0), "type"), "'response.created'",
	     "text: first event");
	CHECK(!json_object_get(json_object_get(json_array_get(log.events, 0), "response"), "usage"),
	      "text: no usage at the beginning");
	json_decref(v);
	json_decref(log.events);
}

static void test_all_items(void)
{
	struct log log;
	struct response *r = answer(&log, "{'input':'x'}");
	json_t *v;

	feed(r, LLMDEV_DATA, LLM_DATA_REASONING, "hm");
	feed(r, LLMDEV_DATA, LLM_DATA_REASONING, "m");
	feed(r, LLMDEV_TEXT, 0, "I look.");
	feed(r, LLMDEV_DATA, LLM_DATA_TOOL_CALL,
	     "{\"index\":0,\"id\":\"abc\",\"type\":\"function\",\"function\":{\"name\":\"f\","
	     "\"arguments\":\"{\\\"a\\\":1}\"}}");
	feed(r, LLMDEV_DATA, LLM_DATA_TOOL_CALL,
	     "{\"index\":1,\"id\":\"abd\",\"type\":\"function\",\"function\":{\"name\":\"g\","
	     "\"arguments\":\"{}\"}}");
	finish(r, LLMDEV_STOP);
	v = closed(r, &log);
	CHECK(!strcmp(log.types,
		      "created in_progress output_item.added content_part.added "
		      "reasoning_text.delta reasoning_text.delta reasoning_text.done "
		      "content_part.done output_item.done output_item.added content_part.added "
		      "output_text.delta output_text.done content_part.done output_item.done "
		      "output_item.added function_call_arguments.delta "
		      "function_call_arguments.done output_item.done output_item.added "
		      "function_call_arguments.delta function_call_arguments.done "
		      "output_item.done completed"),
	      "items: events in their order");
	same(json_object_get(v, "output"),
	     "[{'id':'rs_00ff00','type':'reasoning','status':'completed','summary':[],'content':["
	     "{'type':'reasoning_text','text':'hmm'}]},"
	     "{'id':'msg_00ff01','type':'message','status':'completed','role':'assistant',"
	     "'content':[{'type':'output_text','text':'I look.','annotations':[],'logprobs':[]}]},"
	     "{'id':'fc_00ff02','type':'function_call','status':'completed','call_id':'abc',"
	     "'name':'f','arguments':'{\\'a\\':1}'},"
	     "{'id':'fc_00ff03','type':'function_call','status':'completed','call_id':'abd',"
	     "'name':'g','arguments':'{}'}]",
	     "items: all kinds");
	same(json_object_get(json_array_get(log.events, 16), "output_index"), "2",
	     "items: events name the item's place");
	json_decref(v);
	json_decref(log.events);
}

static void test_ends(void)
{
	struct log log;
	struct response *r = answer(&log, "{'input':'x','text':{'verbosity':'medium'}}");
	json_t *v;

	feed(r, LLMDEV_TEXT, 0, "cut");
	finish(r, LLMDEV_LENGTH);
	v = closed(r, &log);
	CHECK(strstr(log.types, "output_item.done incomplete"), "cut: its last event");
	same(json_object_get(v, "incomplete_details"), "{'reason':'max_output_tokens'}",
	     "cut: why");
	same(json_object_get(json_array_get(json_object_get(v, "output"), 0), "status"),
	     "'incomplete'", "cut: the item's status");
	same(json_object_get(v, "text"), "{'verbosity':'medium','format':{'type':'text'}}",
	     "cut: text.format as it holds");
	json_decref(v);
	json_decref(log.events);

	r = answer(&log, "{'input':'x'}");
	finish(r, LLMDEV_STOP);
	v = closed(r, &log);
	CHECK(json_array_size(json_object_get(v, "output")) == 1, "nothing said: an empty message");
	json_decref(v);
	json_decref(log.events);

	r = answer(&log, "{'input':'x'}");
	feed(r, LLMDEV_TEXT, 0, "half");
	response_fail(r, "server_error", "gone");
	v = closed(r, &log);
	CHECK(strstr(log.types, "output_item.done failed"), "failed: its last event");
	same(json_object_get(v, "error"), "{'code':'server_error','message':'gone'}",
	     "failed: why");
	json_decref(v);
	json_decref(log.events);
}

static void test_malformed(void)
{
	struct log log;
	struct response *r = answer(&log, "{'input':'x'}");
	json_t *v, *out;

	feed(r, LLMDEV_TEXT, 0, "before");
	feed(r, LLMDEV_DATA, LLM_DATA_MALFORMED, "no JSON");
	feed(r, LLMDEV_TEXT, 0, "<tool_call>{</tool_call>");
	feed(r, LLMDEV_DATA, LLM_DATA_REASONING, "oh");
	feed(r, LLMDEV_TEXT, 0, "after");
	finish(r, LLMDEV_STOP);
	v = closed(r, &log);
	out = json_object_get(v, "output");
	CHECK(json_array_size(out) == 4, "malformed: an item of its own");
	same(json_object_get(json_array_get(out, 1), "llmdev"), "{'malformed_tool_call':'no JSON'}",
	     "malformed: it is flagged");
	CHECK(!json_object_get(json_array_get(out, 0), "llmdev") &&
		      !json_object_get(json_array_get(out, 3), "llmdev"),
	      "malformed: others are not");
	json_decref(v);
	json_decref(log.events);
}

#define P(token, x)                                                                                \
	"{\"index\":0,\"token\":\"" token "\",\"bytes\":[65],\"logprob\":" x                       \
	",\"top_logprobs\":[{\"token\":\"" token "\",\"bytes\":[65],\"logprob\":" x "}]}"
#define Q(token, x)                                                                                \
	"{'token':'" token "','bytes':[65],'logprob':" x ",'top_logprobs':[{'token':'" token       \
	"','bytes':[65],'logprob':" x "}]}"

static void test_logprobs(void)
{
	struct log log;
	struct response *r = answer(&log, "{'input':'x'}");
	json_t *v, *out;

	feed(r, LLMDEV_DATA, LLM_DATA_LOGPROBS, P("r", "-0.5"));
	feed(r, LLMDEV_DATA, LLM_DATA_REASONING, "r");
	feed(r, LLMDEV_DATA, LLM_DATA_LOGPROBS, P("a", "-0.5"));
	feed(r, LLMDEV_TEXT, 0, "");
	feed(r, LLMDEV_DATA, LLM_DATA_LOGPROBS, P("b", "-1.5"));
	feed(r, LLMDEV_TEXT, 0, "ab");
	feed(r, LLMDEV_DATA, LLM_DATA_LOGPROBS, P("c", "-2.5"));
	feed(r, LLMDEV_TEXT, 0, "c");
	finish(r, LLMDEV_STOP);
	v = closed(r, &log);
	out = json_array_get(json_object_get(json_array_get(json_object_get(v, "output"), 1),
					     "content"),
			     0);
	same(json_object_get(out, "logprobs"),
	     "[" Q("a", "-0.5") "," Q("b", "-1.5") "," Q("c", "-2.5") "]",
	     "logprobs: those of the text, in order");
	json_decref(v);
	json_decref(log.events);
}

int main(void)
{
	test_messages();
	test_turns();
	test_settings();
	test_refusals();
	test_error_paths();
	test_text();
	test_all_items();
	test_ends();
	test_malformed();
	test_logprobs();
	return tap_done();
}
