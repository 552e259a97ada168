// SPDX-License-Identifier: MIT
/*
 * The parsers when memory runs out: each allocation of a run fails in turn. A call then returns
 * -ENOMEM, as do those that follow, and nothing is lost when the parser closes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "text/output/output.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__
#endif
#endif

#if defined(__SANITIZE_ADDRESS__)
int main(void)
{
	tap_skip("the sanitizer has the allocator");
	return tap_done();
}
#else

/* glibc's own, under the names that it keeps for this. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void __libc_free(void *p);

static bool counting;
static int countdown; /* the allocation that fails; 0: none */
static long live; /* allocations that were not freed */

static void *count(void *p)
{
	live += counting && p;
	return p;
}

static bool fails(void)
{
	return counting && countdown && !--countdown;
}

void *malloc(size_t n)
{
	return fails() ? NULL : count(__libc_malloc(n));
}

void *calloc(size_t n, size_t size)
{
	return fails() ? NULL : count(__libc_calloc(n, size));
}

void *realloc(void *p, size_t n)
{
	void *q = fails() ? NULL : __libc_realloc(p, n);

	return p ? q : count(q);
}

void free(void *p)
{
	live -= counting && p;
	__libc_free(p);
}

static int drop(void *ctx, const struct output_piece *p)
{
	return p->len ? 0 : -EINVAL;
}

static int fold(const struct output_opts *o, const char *text, size_t part)
{
	size_t n = strlen(text);
	struct output *p;
	struct err e;
	int rc;

	rc = output_open(&p, o, &e);
	if (rc)
		return p ? -EINVAL : rc;
	for (size_t at = 0; at < n && !rc; at += part)
		rc = output_push(p, text + at, n - at < part ? n - at : part, drop, NULL);
	if (!rc)
		rc = output_end(p, drop, NULL);
	else if (output_push(p, "x", 1, drop, NULL) != rc || output_end(p, drop, NULL) != rc)
		rc = -EINVAL;
	output_close(p);
	return rc;
}

static void format(const json_t *tools, struct output_format f, bool thinking, const char *text)
{
	struct output_opts o = {.format = f, .thinking = thinking, .tools = tools};
	int k, rc = -ENOMEM, others = 0;

	for (k = 1; k < 10000 && rc; k++) {
		counting = true;
		countdown = k;
		rc = fold(&o, text, k % 3 ? 5 : 1000);
		counting = false;
		others += rc && rc != -ENOMEM;
	}
	CHECK(!rc && !others, "%s: each of %d allocations failed once", output_tools_name(f.tools),
	      k - 2);
	CHECK(!live, "and nothing was lost: %ld", live);
}

int main(void)
{
	json_t *tools = json_loads("[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
				   "\"o\":{\"type\":\"object\"}}}}}]",
				   0, NULL);
	static char long_text[3000];

	memset(long_text, ' ', sizeof(long_text) - 1);
	memcpy(long_text, "<think>a\n", 9);
	memcpy(long_text + sizeof(long_text) - 2, "b", 1);
	format(tools, (struct output_format){OUTPUT_REASONING_THINK, OUTPUT_TOOLS_HERMES}, false,
	       long_text);
	format(tools, (struct output_format){OUTPUT_REASONING_THINK, OUTPUT_TOOLS_HERMES}, true,
	       "<think>a</think>b \n "
	       "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1,\\\"a\\\":2}\"}"
	       "</tool_call> c <tool_call>{]");
	format(tools, (struct output_format){OUTPUT_REASONING_THINK, OUTPUT_TOOLS_QWEN_XML}, true,
	       "<function=f><parameter=o>{'a': [1, 'x', "
	       "None]}</parameter><parameter=o>{}</parameter>"
	       "</function>");
	format(tools, (struct output_format){OUTPUT_REASONING_GEMMA4, OUTPUT_TOOLS_GEMMA4}, true,
	       "<|channel>thought\na<channel|>b <|tool_call>call:f{a:<|\"|>x<|\"|>,b:[1,{c:null}]}"
	       "<tool_call|>");
	format(tools, (struct output_format){OUTPUT_REASONING_NONE, OUTPUT_TOOLS_LLAMA3}, true,
	       "{\"name\":\"f\",\"parameters\":{\"a\":[1]}}; {\"name\":\"f\",\"parameters\":{}}");
	format(tools, (struct output_format){OUTPUT_REASONING_MISTRAL, OUTPUT_TOOLS_MISTRAL}, true,
	       "[THINK]a[/"
	       "THINK][TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}}][TOOL_CALLS]f[ARGS]{}");
	format(tools, (struct output_format){OUTPUT_REASONING_HARMONY, OUTPUT_TOOLS_HARMONY}, true,
	       "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary "
	       "to=functions.f<|message|>{\"a\":1}<|call|><|start|>assistant<|channel|>final"
	       "<|message|>b");
	json_decref(tools);
	return tap_done();
}
#endif
