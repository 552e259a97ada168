// SPDX-License-Identifier: MIT
/*
 * llmctl template: what a chat template makes of a conversation, to the byte; with --show-user also
 * which of it a user wrote, where no special token is seen. Nothing is generated.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl.h"
#include "model/resolve.h"
#include "text/template/template.h"
#include "text/tokenizer.h"
#include "weights/checkpoint.h"

static const char usage[] = "template MODEL|FILE.jinja --vars FILE.json|- [--no-generation-prompt] "
			    "[--date YYYY-MM-DD[THH:MM[:SS]]] [--json] [--show-user]";

#define MAX_TEMPLATE (1 << 20)

static int read_file(const char *path, char **text, size_t *len, struct err *e)
{
	FILE *f = fopen(path, "r");

	if (!f)
		return err_set(e, -errno, "%s: cannot be read: %s", path, strerror(errno));
	*text = malloc(MAX_TEMPLATE + 1);
	*len = *text ? fread(*text, 1, MAX_TEMPLATE + 1, f) : 0;
	fclose(f);
	if (!*text)
		return err_set(e, -ENOMEM, "%s: no memory", path);
	return *len > MAX_TEMPLATE ? err_set(e, -E2BIG, "%s: no template is that long", path) : 0;
}

/* A special token's text, as the tokenizer spells it. */
static void trust(json_t *trusted, const char *name, const struct tokenizer *t, int32_t id)
{
	size_t len = 0;
	const char *text = id >= 0 ? tokenizer_token(t, id, &len) : NULL;

	if (text)
		json_object_set_new(trusted, name, json_stringn(text, len));
}

/* The checkpoint's template, and its own tokens into `trusted`. */
static int from_model(const char *name, char **text, size_t *len, json_t *trusted, struct err *e)
{
	char path[MODEL_PATH_MAX];
	const char *source;
	struct checkpoint *c;
	struct tokenizer *t;
	int32_t eos = -1;
	int rc = model_resolve(name, path, e);

	if (rc)
		return rc;
	rc = checkpoint_open(&c, path, e);
	if (rc)
		return rc;
	source = checkpoint_chat_template(c);
	*text = source ? strdup(source) : NULL;
	*len = source ? strlen(source) : 0;
	if (!*text)
		rc = err_set(e, source ? -ENOMEM : -ENOENT, "%s: %s", name,
			     source ? "no memory" : "has no chat template");
	if (!rc)
		rc = tokenizer_open(&t, c, e);
	if (!rc) {
		trust(trusted, "bos_token", t, tokenizer_bos(t));
		if (tokenizer_eos(t, &eos, 1) > 0)
			trust(trusted, "eos_token", t, eos);
		tokenizer_close(t);
	}
	checkpoint_close(c);
	return rc;
}

static json_t *read_vars(const char *path, struct err *e)
{
	json_error_t je;
	json_t *vars = !strcmp(path, "-") ? json_loadf(stdin, JSON_ALLOW_NUL, &je)
					  : json_load_file(path, JSON_ALLOW_NUL, &je);

	if (!vars)
		err_set(e, -EINVAL, "%s: line %d: %s", path, je.line, je.text);
	else if (!json_is_object(vars))
		err_set(e, -EINVAL, "%s: not an object of variables", path);
	else
		return vars;
	json_decref(vars);
	return NULL;
}

/* A day, or a day and a time of it, in UTC. */
static bool read_date(const char *text, int64_t *now)
{
	static const char *const formats[] = {"%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"};

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		struct tm tm = {0};
		const char *end = strptime(text, formats[i], &tm);

		if (end && (!*end || !strcmp(end, "Z"))) {
			*now = timegm(&tm);
			return true;
		}
	}
	return false;
}

static void print_json(const struct tmpl_output *o)
{
	json_t *spans = json_array(), *all;

	for (size_t i = 0; i < o->n_spans; i++)
		json_array_append_new(spans,
				      json_pack("{s:I, s:b}", "end", (json_int_t)o->span[i].end,
						"user", (int)o->span[i].user));
	all = json_pack("{s:o, s:o}", "text", json_stringn(o->text, o->len), "spans", spans);
	json_dumpf(all, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(all);
}

/* What a user wrote stands in brackets that hardly a text has. */
static void print_text(const struct tmpl_output *o, bool show_user)
{
	size_t at = 0;

	for (size_t i = 0; i < o->n_spans; at = o->span[i++].end) {
		bool mark = show_user && o->span[i].user;

		fputs(mark ? "\xe2\x9f\xa6" : "", stdout);
		fwrite(o->text + at, 1, o->span[i].end - at, stdout);
		fputs(mark ? "\xe2\x9f\xa7" : "", stdout);
	}
}

struct request {
	const char *template, *vars;
	int64_t now;
	bool generation_prompt, json, show_user;
};

static int render(const struct request *q, json_t *vars, struct err *e)
{
	const char *ext = strrchr(q->template, '.');
	bool bare =
		ext && (!strcmp(ext, ".jinja") || !strcmp(ext, ".jinja2") || !strcmp(ext, ".j2"));
	static const char *const tokens[] = {"bos_token", "eos_token"};
	json_t *trusted = json_object();
	struct tmpl_output out;
	struct tmpl *t = NULL;
	char *source = NULL;
	size_t len = 0;
	int rc;

	rc = bare ? read_file(q->template, &source, &len, e)
		  : from_model(q->template, &source, &len, trusted, e);
	for (size_t i = 0; !rc && bare && i < 2; i++)
		if (json_object_get(vars, tokens[i]))
			json_object_set(trusted, tokens[i], json_object_get(vars, tokens[i]));
	if (!rc) {
		rc = tmpl_compile(&t, source, len, e);
		if (rc)
			err_prefix(e, rc, "%s", q->template);
	}
	if (!q->generation_prompt)
		json_object_set_new(vars, "add_generation_prompt", json_false());
	else if (!json_object_get(vars, "add_generation_prompt"))
		json_object_set_new(vars, "add_generation_prompt", json_true());
	if (!rc)
		rc = tmpl_render(t, vars, trusted, q->now, NULL, &out, NULL, e);
	if (!rc) {
		if (q->json)
			print_json(&out);
		else
			print_text(&out, q->show_user);
		tmpl_output_free(&out);
	}
	tmpl_free(t);
	free(source);
	json_decref(trusted);
	return rc;
}

int cmd_template(int argc, char **argv)
{
	static const struct option options[] = {
		{"vars", required_argument, NULL, 'v'},
		{"no-generation-prompt", no_argument, NULL, 'g'},
		{"date", required_argument, NULL, 'd'},
		{"json", no_argument, NULL, 'j'},
		{"show-user", no_argument, NULL, 'u'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct request q = {.generation_prompt = true, .now = time(NULL)};
	struct err e = {{0}};
	json_t *vars;
	int opt, rc;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'v')
			q.vars = optarg;
		else if (opt == 'g')
			q.generation_prompt = false;
		else if (opt == 'j')
			q.json = true;
		else if (opt == 'u')
			q.show_user = true;
		else if (opt == 'd' && !read_date(optarg, &q.now))
			return ctl_usage(usage, "--date %s: not a date such as 2024-07-26", optarg);
		else if (opt != 'd')
			return ctl_bad_option(usage, argv);
	}
	if (argc - optind != 1)
		return ctl_usage(usage, "one MODEL or FILE.jinja is needed");
	if (!q.vars)
		return ctl_usage(usage, "--vars is needed: {\"messages\": [...]}");
	q.template = argv[optind];
	vars = read_vars(q.vars, &e);
	if (!vars)
		return ctl_fail("%s", e.msg);
	rc = render(&q, vars, &e);
	json_decref(vars);
	return rc ? ctl_fail("%s", e.msg) : 0;
}
