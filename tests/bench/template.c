// SPDX-License-Identifier: MIT
/*
 * How long rendering a long conversation takes: 200 messages of about 650 bytes (130 KB, some 32 K
 * tokens), user and assistant in turn, with two tools.
 *
 *	build/bench/template FILE.jinja...
 *
 * One line a template: milliseconds to compile, median and best of 101 renders, bytes of output.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/template/template.h"

#define MESSAGES 200
#define RUNS	 101

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static json_t *conversation(void)
{
	static const char *const words[] = {"the ",	"server ",  "reads ", "\"pages\" ",
					    "of ",	"memory\n", "where ", "na\xc3\xafve ",
					    "clients ", "wait, "};
	json_t *messages = json_array(), *tools = json_array();
	unsigned seed = 1;

	for (int i = 0; i < MESSAGES; i++) {
		char text[1024];
		size_t n = 0;

		while (n < 650) {
			const char *w = words[(seed = seed * 1664525 + 1013904223) >> 16 & 7];

			n += (size_t)sprintf(text + n, "%s", w);
		}
		json_array_append_new(messages,
				      json_pack("{s:s, s:s%}", "role", i % 2 ? "assistant" : "user",
						"content", text, n));
	}
	for (int i = 0; i < 2; i++)
		json_array_append_new(tools,
				      json_pack("{s:s, s:{s:s, s:s, s:{s:s, s:{s:{s:s}}}}}", "type",
						"function", "function", "name", "look_up",
						"description", "Look something up", "parameters",
						"type", "object", "properties", "what", "type",
						"string"));
	return json_pack("{s:o, s:o, s:b}", "messages", messages, "tools", tools,
			 "add_generation_prompt", 1);
}

static int measure(const char *path, const json_t *vars, const json_t *trusted)
{
	static char source[1 << 20];
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(source, 1, sizeof(source), f) : 0;
	double start, compiled, took[RUNS];
	struct tmpl_output out;
	struct tmpl *t;
	struct err e;

	if (!f)
		return perror(path), 1;
	fclose(f);
	start = now_ms();
	if (tmpl_compile(&t, source, n, &e))
		return fprintf(stderr, "%s: %s\n", path, e.msg), 1;
	compiled = now_ms() - start;
	for (int i = 0; i < RUNS; i++) {
		start = now_ms();
		if (tmpl_render(t, vars, trusted, 1721997296, NULL, &out, NULL, &e))
			return fprintf(stderr, "%s: %s\n", path, e.msg), 1;
		took[i] = now_ms() - start;
		n = out.len;
		tmpl_output_free(&out);
	}
	qsort(took, RUNS, sizeof(took[0]), by_value);
	printf("%s: compile %.3f ms, render %.3f ms (best %.3f ms), %zu bytes\n", path, compiled,
	       took[RUNS / 2], took[0], n);
	tmpl_free(t);
	return 0;
}

int main(int argc, char **argv)
{
	json_t *vars = conversation();
	json_t *trusted = json_pack("{s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>");
	int rc = 0;

	for (int i = 1; i < argc; i++)
		rc |= measure(argv[i], vars, trusted);
	json_decref(vars);
	json_decref(trusted);
	return rc;
}
