// SPDX-License-Identifier: MIT
/* Which format a model writes: by what its chat template spells, or by name. */
#include <string.h>

#include "text/output/output.h"

struct name {
	const char *name;
	int value;
};

/* The first name of a value is its own; the others are what vLLM calls its parsers. */
static const struct name reasoning_names[] = {{"none", OUTPUT_REASONING_NONE},
					      {"think", OUTPUT_REASONING_THINK},
					      {"gemma4", OUTPUT_REASONING_GEMMA4},
					      {"harmony", OUTPUT_REASONING_HARMONY},
					      {"mistral", OUTPUT_REASONING_MISTRAL},
					      {"qwen3", OUTPUT_REASONING_THINK},
					      {"deepseek_r1", OUTPUT_REASONING_THINK},
					      {"nemotron_v3", OUTPUT_REASONING_THINK},
					      {"openai_gptoss", OUTPUT_REASONING_HARMONY},
					      {NULL, -1}};

static const struct name tools_names[] = {
	{"none", OUTPUT_TOOLS_NONE},	      {"hermes", OUTPUT_TOOLS_HERMES},
	{"qwen_xml", OUTPUT_TOOLS_QWEN_XML},  {"gemma4", OUTPUT_TOOLS_GEMMA4},
	{"llama3", OUTPUT_TOOLS_LLAMA3},      {"mistral", OUTPUT_TOOLS_MISTRAL},
	{"harmony", OUTPUT_TOOLS_HARMONY},    {"qwen3_coder", OUTPUT_TOOLS_QWEN_XML},
	{"qwen3_xml", OUTPUT_TOOLS_QWEN_XML}, {"llama3_json", OUTPUT_TOOLS_LLAMA3},
	{"openai", OUTPUT_TOOLS_HARMONY},     {NULL, -1}};

static int by_name(const struct name *n, const char *name)
{
	while (n->name && strcmp(n->name, name))
		n++;
	return n->value;
}

static const char *by_value(const struct name *n, int value)
{
	while (n->name && n->value != value)
		n++;
	return n->name ? n->name : "none";
}

int output_reasoning_by_name(const char *name)
{
	return by_name(reasoning_names, name);
}

int output_tools_by_name(const char *name)
{
	return by_name(tools_names, name);
}

const char *output_reasoning_name(enum output_reasoning r)
{
	return by_value(reasoning_names, (int)r);
}

const char *output_tools_name(enum output_tools t)
{
	return by_value(tools_names, (int)t);
}

static enum output_tools detect_tools(const char *s)
{
	if (strstr(s, "<|tool_call>") && strstr(s, "<tool_call|>"))
		return OUTPUT_TOOLS_GEMMA4;
	if (strstr(s, "[TOOL_CALLS]"))
		return OUTPUT_TOOLS_MISTRAL;
	/* GLM and Laguna write keys and values between tags of their own; MiroThinker's template
	 * quotes <tool_call>, but asks for <use_mcp_tool>. */
	if (strstr(s, "<tool_call>") && !strstr(s, "<arg_key>") && !strstr(s, "<use_mcp_tool>")) {
		if (strstr(s, "<function=") && strstr(s, "<parameter="))
			return OUTPUT_TOOLS_QWEN_XML;
		if (strstr(s, "arguments"))
			return OUTPUT_TOOLS_HERMES;
	}
	if (strstr(s, "<|python_tag|>") ||
	    ((strstr(s, "<|start_header_id|>") || strstr(s, "<|header_start|>")) &&
	     strstr(s, "\"name\": ") && strstr(s, "\"parameters\": ")))
		return OUTPUT_TOOLS_LLAMA3;
	return OUTPUT_TOOLS_NONE;
}

static enum output_reasoning detect_reasoning(const char *s)
{
	if (strstr(s, "<|channel>") && strstr(s, "<channel|>"))
		return OUTPUT_REASONING_GEMMA4;
	if (strstr(s, "[THINK]"))
		return OUTPUT_REASONING_MISTRAL;
	if (strstr(s, "</think>"))
		return OUTPUT_REASONING_THINK;
	return OUTPUT_REASONING_NONE;
}

struct output_format output_detect(const char *s)
{
	struct output_format f = {OUTPUT_REASONING_NONE, OUTPUT_TOOLS_NONE};

	if (!s)
		return f;
	if (strstr(s, "<|channel|>") && strstr(s, "<|message|>"))
		return (struct output_format){OUTPUT_REASONING_HARMONY, OUTPUT_TOOLS_HARMONY};
	f.tools = detect_tools(s);
	f.reasoning = detect_reasoning(s);
	return f;
}

const char *output_reasoning_close(enum output_reasoning r)
{
	switch (r) {
	case OUTPUT_REASONING_THINK:
		return "\n</think>\n\n";
	case OUTPUT_REASONING_GEMMA4:
		return "\n<channel|>";
	case OUTPUT_REASONING_HARMONY:
		return "<|end|><|start|>assistant<|channel|>final<|message|>";
	case OUTPUT_REASONING_MISTRAL:
		return "[/THINK]";
	default:
		return NULL;
	}
}

const char *output_reasoning_open(enum output_reasoning r)
{
	switch (r) {
	case OUTPUT_REASONING_THINK:
		return "<think>\n";
	case OUTPUT_REASONING_GEMMA4:
		return "<|channel>thought\n";
	case OUTPUT_REASONING_HARMONY:
		return "<|channel|>analysis<|message|>";
	case OUTPUT_REASONING_MISTRAL:
		return "[THINK]";
	default:
		return NULL;
	}
}
