// SPDX-License-Identifier: MIT
/*
 * Tool calls: random answers that the grammar allows are read back by the parser of the same format
 * as calls of the tools, with arguments that fit; and nothing else is allowed.
 */
#include <errno.h>

#include "tests/unit/grammar_check.h"
#include "text/output/output.h"

static const char tools_text[] =
	"[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"parameters\":{\"type\":"
	"\"object\",\"properties\":{\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\","
	"\"minimum\":1,\"maximum\":7},\"unit\":{\"type\":\"string\",\"enum\":[\"C\",\"F\"]},"
	"\"place\":{\"type\":\"object\",\"properties\":{\"lat\":{\"type\":\"number\"},\"names\":{"
	"\"type\":\"array\",\"items\":{\"type\":\"string\"}}},\"required\":[\"lat\"]}},"
	"\"required\":[\"city\",\"unit\"]}}},"
	"{\"type\":\"function\",\"function\":{\"name\":\"stop\"}},"
	"{\"type\":\"function\",\"function\":{\"name\":\"free-form\",\"parameters\":{\"type\":"
	"\"object\"}}},"
	"{\"type\":\"function\",\"function\":{\"name\":\"odd\",\"parameters\":{\"type\":\"object\","
	"\"properties\":{\"x\":{\"type\":\"string\",\"not\":{}}}}}},"
	"{\"type\":\"function\",\"function\":{\"name\":\"flag\",\"parameters\":{\"type\":"
	"\"object\","
	"\"properties\":{\"on\":{\"type\":\"boolean\"},\"note\":{\"type\":[\"string\",\"null\"]}},"
	"\"required\":[\"on\"]}}}]";

static const char *const special[] = {
	"<tool_call>",	"</tool_call>", "<|tool_call>",	  "<tool_call|>", "<|\"|>",
	"[TOOL_CALLS]", "[ARGS]",	"<|channel|>",	  "<|message|>",  "<|constrain|>",
	"<|call|>",	"<|start|>",	"<|python_tag|>", NULL,
};

static uint64_t seed = 7;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((seed >> 33) % n);
}

static json_t *tools;

struct answer {
	char text[8192];
	size_t n;
};

/* The byte that brings what has been written nearer to the end of a value between tags. */
static int32_t toward_tag(const struct answer *a, const uint64_t *mask)
{
	static const char end[] = "\n</parameter>";

	for (size_t n = sizeof(end) - 2; n; n--) {
		if (a->n >= n && !memcmp(a->text + a->n - n, end, n) && has_bit(mask, end[n]))
			return end[n];
	}
	return has_bit(mask, end[0]) && !rnd(4) ? end[0] : -1;
}

/* A random answer; false: it did not come to an end. */
static bool sample(const struct voc *o, const struct grammar *g, struct answer *a)
{
	static const char closing[] = "\"\"}}]]:0,1";
	struct matcher *m;
	bool ended = false, ok = true;

	a->n = 0;
	if (matcher_open(&m, g, o->v, NULL))
		return false;
	for (int i = 0; i < 2500 && !ended && ok; i++) {
		const uint64_t *mask = matcher_mask(m);
		int32_t id = -1;
		size_t len;

		if (has_bit(mask, o->eos) && !rnd(2))
			id = o->eos;
		for (int k = 257; k < o->n && id < 0; k++)
			id = has_bit(mask, k) && rnd(4) ? k : -1;
		if (id < 0 && i > 60 && rnd(16))
			id = toward_tag(a, mask);
		for (int k = 0; k < 32 && id < 0 && i > 60; k++) {
			uint8_t c = (uint8_t)closing[rnd(sizeof(closing) - 1)];

			id = has_bit(mask, c) ? c : -1;
		}
		for (int k = 0, from = (int)rnd((uint32_t)o->n); k < o->n && id < 0; k++)
			id = has_bit(mask, (from + k) % o->n) ? (from + k) % o->n : -1;
		ok = id >= 0 && !matcher_accept(m, id);
		if (id == o->eos) {
			ended = true;
		} else if (ok && id < 256) {
			a->text[a->n++] = (char)id;
		} else if (ok) {
			const char *s = special[id - 257];

			len = strlen(s);
			memcpy(a->text + a->n, s, len);
			a->n += len;
		}
		ok = ok && a->n < sizeof(a->text) - 64;
	}
	matcher_close(m);
	return ended && ok;
}

struct found {
	int calls, wrong;
	const char *only;
};

static bool fits(const char *name, const json_t *a)
{
	const json_t *v, *p;
	const char *unit;

	if (!json_is_object(a))
		return false;
	if (!strcmp(name, "stop"))
		return !json_object_size(a);
	if (!strcmp(name, "free-form") || !strcmp(name, "odd"))
		return true;
	if (!strcmp(name, "flag")) {
		v = json_object_get(a, "note");
		return json_is_boolean(json_object_get(a, "on")) &&
		       (!v || json_is_string(v) || json_is_null(v)) && json_object_size(a) <= 2;
	}
	if (strcmp(name, "weather"))
		return false;
	unit = json_string_value(json_object_get(a, "unit"));
	v = json_object_get(a, "days");
	p = json_object_get(a, "place");
	return json_is_string(json_object_get(a, "city")) && unit && strlen(unit) == 1 &&
	       strchr("CF", *unit) &&
	       (!v ||
		(json_is_integer(v) && json_integer_value(v) >= 1 && json_integer_value(v) <= 7)) &&
	       (!p || json_is_number(json_object_get(p, "lat"))) && json_object_size(a) <= 4;
}

static int on_piece(void *ctx, const struct output_piece *p)
{
	struct found *f = ctx;
	json_t *args;
	bool ok = false;

	if (p->kind == OUTPUT_CALL) {
		args = json_loadb(p->text, p->len, 0, NULL);
		ok = args && fits(p->name, args) && (!f->only || !strcmp(p->name, f->only));
		json_decref(args);
		f->calls++;
	} else if (p->kind == OUTPUT_CONTENT) {
		ok = strspn(p->text, " \n") >= p->len;
	}
	f->wrong += !ok;
	return 0;
}

/* What the answer's reader makes of it. */
static struct found read_back(enum output_tools format, const struct answer *a, const char *only)
{
	struct output_opts opts = {
		.format = {format == OUTPUT_TOOLS_HARMONY ? OUTPUT_REASONING_HARMONY
							  : OUTPUT_REASONING_NONE,
			   format},
		.tools = tools,
	};
	struct found f = {.only = only};
	struct output *o;
	struct err e;

	if (output_open(&o, &opts, &e)) {
		f.wrong = 1;
		return f;
	}
	f.wrong += output_push(o, a->text, a->n, on_piece, &f) != 0;
	f.wrong += output_end(o, on_piece, &f) != 0;
	output_close(o);
	return f;
}

static void check_format(const struct voc *o, enum output_tools format, const char *only,
			 bool parallel, const char *vocabulary)
{
	const char *name = output_tools_name(format);
	struct grammar *g;
	struct answer a;
	struct err e;
	int done = 0, bad = 0, most = 0;

	REQUIRE(!grammar_tools(&g, format, tools, only, parallel, &e), "%s: compiles", name);
	for (int i = 0; i < 60; i++) {
		struct found f;

		if (!sample(o, g, &a))
			continue;
		done++;
		f = read_back(format, &a, only);
		most = f.calls > most ? f.calls : most;
		if (f.wrong || !f.calls || (f.calls > 1 && !parallel)) {
			if (!bad++) {
				for (size_t k = 0; k < a.n; k++)
					a.text[k] = a.text[k] == '\n' ? ' ' : a.text[k];
				printf("# %d calls, %d wrong: %.*s\n", f.calls, f.wrong, (int)a.n,
				       a.text);
			}
		}
	}
	CHECK(done > 10 && !bad, "%s, %s, %s, %s: %d answers, read back as calls", name, vocabulary,
	      only ? only : "any", parallel ? "parallel" : "one", done);
	if (parallel && format != OUTPUT_TOOLS_HARMONY)
		CHECK(most > 1, "%s: several calls in an answer", name);
	grammar_free(g);
}

static const struct {
	enum output_tools format;
	const char *text;
} written[] = {
	{OUTPUT_TOOLS_HERMES,
	 "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Berlin\", \"unit\": "
	 "\"C\"}}\n</tool_call>"},
	{OUTPUT_TOOLS_QWEN_XML,
	 "<tool_call>\n<function=weather>\n<parameter=city>\nNew York\n</parameter>\n"
	 "<parameter=days>\n3\n</parameter>\n<parameter=unit>\nF\n</parameter>\n<parameter=place>\n"
	 "{\"lat\": 1.5}\n</parameter>\n</function>\n</tool_call>"},
	{OUTPUT_TOOLS_GEMMA4,
	 "<|tool_call>call:weather{city:<|\"|>Berlin<|\"|>,unit:<|\"|>C<|\"|>,place:{lat:1.5,"
	 "names:[<|\"|>a<|\"|>]}}<tool_call|>"},
	{OUTPUT_TOOLS_LLAMA3,
	 "{\"name\": \"weather\", \"parameters\": {\"city\": \"Berlin\", \"unit\": \"C\"}}"},
	{OUTPUT_TOOLS_MISTRAL,
	 "[TOOL_CALLS][{\"name\": \"stop\", \"arguments\": {}}, {\"name\": \"weather\", "
	 "\"arguments\": {\"city\": \"Berlin\", \"unit\": \"C\"}}]"},
	{OUTPUT_TOOLS_MISTRAL, "[TOOL_CALLS]weather[ARGS]{\"city\": \"Berlin\", \"unit\": \"C\"}"},
	{OUTPUT_TOOLS_HARMONY,
	 "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\":"
	 "\"Berlin\",\"unit\":\"C\"}<|call|>"},
};

/* What models write passes, over a vocabulary that knows the markers and over one that does not. */
static void check_written(const struct voc *with, const struct voc *without)
{
	for (size_t i = 0; i < sizeof(written) / sizeof(*written); i++) {
		struct grammar *g;
		struct err e;
		size_t n = strlen(written[i].text);

		REQUIRE(!grammar_tools(&g, written[i].format, tools, NULL, true, &e), "compiles");
		CHECK(takes_tokens(with, g, written[i].text, n), "%s: as models write it, %zu",
		      output_tools_name(written[i].format), i);
		CHECK(takes(without, g, written[i].text, n, NULL), "%s: without such tokens, %zu",
		      output_tools_name(written[i].format), i);
		grammar_free(g);
	}
}

static void check_refused(void)
{
	json_t *strict =
		json_loads("[{\"type\":\"function\",\"function\":{\"name\":\"a\",\"strict\":"
			   "true,\"parameters\":{\"properties\":{\"x\":{\"not\":{}}}}}}]",
			   0, NULL);
	json_t *none = json_array();
	struct grammar *g;
	struct err e;
	int rc;

	rc = grammar_tools(&g, OUTPUT_TOOLS_HERMES, tools, "nobody", false, &e);
	CHECK(rc == -ENOENT && !g && strstr(e.msg, "nobody"), "no such tool: %s", e.msg);
	rc = grammar_tools(&g, OUTPUT_TOOLS_HERMES, none, NULL, false, &e);
	CHECK(rc == -EINVAL && !g, "no tools: %s", e.msg);
	rc = grammar_tools(&g, OUTPUT_TOOLS_NONE, tools, NULL, false, &e);
	CHECK(rc == -EOPNOTSUPP && !g, "no form of calls: %s", e.msg);
	rc = grammar_tools(&g, OUTPUT_TOOLS_HERMES, strict, NULL, false, &e);
	CHECK(rc == -EOPNOTSUPP && !g &&
		      !strncmp(e.msg, "tools[0].function.parameters#/properties/x/not: ", 48),
	      "strict: %s", e.msg);
	json_decref(strict);
	json_decref(none);
}

int main(void)
{
	static const enum output_tools formats[] = {OUTPUT_TOOLS_HERMES,  OUTPUT_TOOLS_QWEN_XML,
						    OUTPUT_TOOLS_GEMMA4,  OUTPUT_TOOLS_LLAMA3,
						    OUTPUT_TOOLS_MISTRAL, OUTPUT_TOOLS_HARMONY};
	struct voc with = {0}, without = {0};

	tools = json_loads(tools_text, 0, NULL);
	if (!tools || !voc_bytes(&with, special) || !voc_bytes(&without, NULL))
		return 1;
	check_written(&with, &without);
	for (size_t i = 0; i < sizeof(formats) / sizeof(*formats); i++) {
		check_format(&with, formats[i], NULL, true, "markers are tokens");
		check_format(&with, formats[i], "weather", false, "markers are tokens");
		check_format(&without, formats[i], NULL, false, "markers are text");
	}
	check_refused();
	json_decref(tools);
	voc_close(&with);
	voc_close(&without);
	return tap_done();
}
