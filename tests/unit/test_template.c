// SPDX-License-Identifier: MIT
/*
 * The template engine against Python's jinja2: our own templates with what jinja2 makes of them
 * (tests/fixtures/template/cases.jsonl, by tests/oracle/make_template_cases.py), and checkpoints'
 * templates from the conformance folder (LLM_CONFORMANCE, default ../shared/conformance).
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "text/template/template.h"

#define NOW 1721997296 /* 2024-07-26 12:34:56 UTC */

static int render(const char *source, size_t len, const json_t *vars, const json_t *trusted,
		  struct tmpl_output *out, bool *raised, struct err *e)
{
	struct tmpl *t;
	int rc = tmpl_compile(&t, source, len, e);

	*out = (struct tmpl_output){0};
	*raised = false;
	if (rc)
		return rc;
	rc = tmpl_render(t, vars, trusted, NOW, NULL, out, raised, e);
	tmpl_free(t);
	return rc;
}

/* Spans ascend, alternate and end with the text. */
static bool spans_fit(const struct tmpl_output *o)
{
	for (size_t i = 0; i < o->n_spans; i++)
		if (o->span[i].end <= (i ? o->span[i - 1].end : 0) ||
		    (i && o->span[i].user == o->span[i - 1].user))
			return false;
	return o->n_spans ? o->span[o->n_spans - 1].end == o->len : !o->len;
}

static bool one_case(const json_t *c, const json_t *vars)
{
	const json_t *t = json_object_get(c, "t"), *want = json_object_get(c, "o");
	struct tmpl_output out;
	struct err e = {{0}};
	bool raised, ok;
	int rc = render(json_string_value(t), json_string_length(t), vars, NULL, &out, &raised, &e);

	if (want)
		ok = !rc && out.len == json_string_length(want) &&
		     !memcmp(out.text, json_string_value(want), out.len) && spans_fit(&out);
	else
		ok = rc && !out.text && *e.msg && !strchr(e.msg, '\n');
	if (!ok)
		printf("# %s\n#   gives %s\n#   wants %s\n", json_string_value(t),
		       rc ? e.msg : out.text,
		       want ? json_string_value(want) : json_string_value(json_object_get(c, "e")));
	tmpl_output_free(&out);
	return ok;
}

static void test_cases(void)
{
	FILE *f = fopen("tests/fixtures/template/cases.jsonl", "r");
	json_t *vars = NULL;
	int n = 0, failed = 0;
	char *line = NULL;
	size_t cap = 0;
	ssize_t len;

	REQUIRE(f, "the cases are there");
	while ((len = getline(&line, &cap, f)) > 0) {
		json_t *c = json_loadb(line, (size_t)len, JSON_ALLOW_NUL, NULL);

		if (!vars) {
			vars = json_incref(json_object_get(c, "vars"));
		} else {
			n++;
			failed += !one_case(c, vars);
		}
		json_decref(c);
	}
	free(line);
	fclose(f);
	json_decref(vars);
	CHECK(n > 5000 && !failed, "%d templates of our own: as jinja2 renders them (%d differ)", n,
	      failed);
}

/* ---- checkpoints' templates -------------------------------------------------------------------- */

static char *read_all(const char *dir, const char *name, size_t *len)
{
	char path[600];
	FILE *f;
	char *s;

	snprintf(path, sizeof(path), "%s/templates/%s", dir, name);
	f = fopen(path, "r");
	if (!f)
		return NULL;
	s = malloc(1 << 20);
	*len = s ? fread(s, 1, 1 << 20, f) : 0;
	fclose(f);
	return s;
}

/* Where the goldens were made, the clock knew "%Y-%m-%d", and "26 Jul 2024" for all other formats.
 */
static void golden_clock(char *text)
{
	static const char day[] = "July 26, 2024", golden[] = "26 Jul 2024";
	char *at = strstr(text, day);

	if (!at)
		return;
	memcpy(at, golden, sizeof(golden) - 1);
	memmove(at + sizeof(golden) - 1, at + sizeof(day) - 1, strlen(at + sizeof(day) - 1) + 1);
}

static bool golden(const char *dir, const json_t *g, const json_t *inputs)
{
	const char *name = json_string_value(json_object_get(g, "template"));
	const char *which = json_string_value(json_object_get(g, "case"));
	const char *want = json_string_value(json_object_get(g, "expected"));
	const char *why = json_string_value(json_object_get(g, "template_error"));
	json_t *vars = json_copy(json_object_get(inputs, which));
	json_t *trusted = json_pack("{s:s, s:s}", "bos_token", "<BOS>", "eos_token", "<EOS>");
	struct tmpl_output out = {0};
	struct err e = {{0}};
	bool raised = false, ok;
	size_t len = 0;
	char *source = read_all(dir, name, &len);
	int rc;

	if (!json_object_get(vars, "add_generation_prompt"))
		json_object_set_new(vars, "add_generation_prompt", json_true());
	rc = source ? render(source, len, vars, trusted, &out, &raised, &e) : -1;
	if (out.text && want && strcmp(out.text, want))
		golden_clock(out.text);
	ok = want ? !rc && !strcmp(out.text, want) && spans_fit(&out)
		  : rc && raised && why && !strcmp(e.msg, why);
	if (!ok)
		printf("# %s, %s: %s\n", name, which, rc ? e.msg : "another text");
	free(source);
	tmpl_output_free(&out);
	json_decref(vars);
	json_decref(trusted);
	return ok;
}

static void test_goldens(void)
{
	const char *dir =
		getenv("LLM_CONFORMANCE") ? getenv("LLM_CONFORMANCE") : "../shared/conformance";
	int n = 0, failed = 0;
	char path[600], *line = NULL;
	json_t *inputs;
	size_t cap = 0;
	ssize_t len;
	FILE *f;

	snprintf(path, sizeof(path), "%s/templates/goldens.jsonl", dir);
	f = fopen(path, "r");
	if (!f) {
		tap_skip("checkpoints' templates: %s is not there (LLM_CONFORMANCE)", path);
		return;
	}
	snprintf(path, sizeof(path), "%s/templates/inputs.json", dir);
	inputs = json_load_file(path, 0, NULL);
	while ((len = getline(&line, &cap, f)) > 0) {
		json_t *g = json_loadb(line, (size_t)len, 0, NULL);

		n++;
		failed += !golden(dir, g, inputs);
		json_decref(g);
	}
	free(line);
	fclose(f);
	json_decref(inputs);
	CHECK(n > 300 && !failed, "%d goldens of checkpoints' templates (%d differ)", n, failed);
}

int main(void)
{
	test_cases();
	test_goldens();
	return tap_done();
}
