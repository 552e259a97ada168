// SPDX-License-Identifier: MIT
/* Formats from chat templates: of the conformance folder by file name, where it is there, and some
 * written here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "text/output/output.h"

static const struct {
	const char *file, *reasoning, *tools;
} templates[] = {
	{"Apertus-8B-Instruct.jinja", "none", "none"},
	{"Apriel-1.6-15b-Thinker-fixed.jinja", "none", "none"},
	{"ByteDance-Seed-OSS.jinja", "none", "none"},
	{"Cohere2MoE.jinja", "none", "none"},
	{"CohereForAI-c4ai-command-r-plus-tool_use.jinja", "none", "none"},
	{"CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja", "none", "none"},
	{"GLM-4.7-Flash.jinja", "think", "none"},
	{"GLM-5.2.jinja", "think", "none"},
	{"GigaChat3.1-10B-A1.8B.jinja", "none", "none"},
	{"Kimi-K2-Thinking.jinja", "think", "none"},
	{"LFM2-8B-A1B.jinja", "none", "none"},
	{"MiMo-VL.jinja", "none", "hermes"},
	/* asks for <use_mcp_tool> */
	{"MiroThinker.jinja", "think", "none"},
	{"Mistral-Small-3.2-24B-Instruct-2506.jinja", "none", "mistral"},
	{"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja", "think", "qwen_xml"},
	{"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja", "none", "hermes"},
	{"Qwen-Qwen2.5-7B-Instruct.jinja", "none", "hermes"},
	{"Qwen-Qwen3-0.6B.jinja", "think", "hermes"},
	{"Qwen3.5-4B.jinja", "think", "qwen_xml"},
	{"Reka-Edge.jinja", "think", "hermes"},
	{"StepFun3.5-Flash.jinja", "think", "qwen_xml"},
	{"deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja", "think", "none"},
	{"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", "think", "none"},
	{"deepseek-ai-DeepSeek-V3.2.jinja", "think", "none"},
	{"deepseek-ai-DeepSeek-V4.jinja", "think", "none"},
	/* functools[...] */
	{"fireworks-ai-llama-3-firefunction-v2.jinja", "none", "none"},
	/* <|start|> and <|message|>, but no channels */
	{"glimmer_chat_template.jinja", "none", "none"},
	{"google-gemma-2-2b-it.jinja", "none", "none"},
	{"google-gemma-4-31B-it-interleaved.jinja", "gemma4", "gemma4"},
	{"google-gemma-4-31B-it.jinja", "gemma4", "gemma4"},
	{"ibm-granite-granite-3.3-2B-Instruct.jinja", "think", "none"},
	{"laguna_v2_chat_template.jinja2", "think", "none"},
	{"laguna_v8_chat_template.jinja2", "think", "none"},
	{"llama-cpp-deepseek-r1.jinja", "think", "none"},
	{"meta-llama-Llama-3.1-8B-Instruct.jinja", "none", "llama3"},
	{"microsoft-Phi-3.5-mini-instruct.jinja", "none", "none"},
	{"moonshotai-Kimi-K2.jinja", "none", "none"},
	{"nemotron3nano_chat_template.jinja2", "think", "qwen_xml"},
	{"openai-gpt-oss-120b.jinja", "harmony", "harmony"},
	{"stepfun-ai-Step-3.5-Flash.jinja", "think", "qwen_xml"},
};

static char *read_template(const char *file)
{
	const char *dir = getenv("LLM_CONFORMANCE");
	char path[4096], *text;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/templates/%s", dir ? dir : "../shared/conformance", file);
	f = fopen(path, "r");
	text = f ? calloc(1, 1 << 18) : NULL;
	if (text) {
		n = fread(text, 1, (1 << 18) - 1, f);
		text[n] = 0;
	}
	if (f)
		fclose(f);
	return text;
}

static void check(const char *what, const char *source, const char *reasoning, const char *tools)
{
	struct output_format f = output_detect(source);

	CHECK(!strcmp(output_reasoning_name(f.reasoning), reasoning) &&
		      !strcmp(output_tools_name(f.tools), tools),
	      "%s: %s, %s", what, output_reasoning_name(f.reasoning), output_tools_name(f.tools));
}

int main(void)
{
	int missing = 0;

	check("no template", NULL, "none", "none");
	check("an empty template", "", "none", "none");
	check("ChatML", "<|im_start|>{{ role }}\n<|im_end|>", "none", "none");
	check("thinking alone", "{{ m.content.split('</think>')[-1] }}", "think", "none");
	check("Hermes", "<tool_call>\n{\"name\": ..., \"arguments\": ...}\n</tool_call>", "none",
	      "hermes");
	check("XML", "<tool_call>\n<function=x>\n<parameter=y>\n", "none", "qwen_xml");
	check("Gemma 4", "<|tool_call>call:<tool_call|> <|channel>thought\n<channel|>", "gemma4",
	      "gemma4");
	check("Llama 3.2", "<|start_header_id|> {\"name\": f, \"parameters\": p}", "none",
	      "llama3");
	check("Magistral", "[THINK] [/THINK] [TOOL_CALLS] [ARGS]", "mistral", "mistral");
	check("harmony", "<|start|>assistant<|channel|>final<|message|>", "harmony", "harmony");
	for (size_t i = 0; i < sizeof(templates) / sizeof(*templates); i++) {
		char *text = read_template(templates[i].file);

		if (text)
			check(templates[i].file, text, templates[i].reasoning, templates[i].tools);
		else
			missing++;
		free(text);
	}
	if (missing)
		tap_skip("%d templates of the conformance folder are not here", missing);
	return tap_done();
}
