// SPDX-License-Identifier: MIT
/*
 * llmctl tokenize: text on stdin to token ids on stdout. The yardstick by which tokenizers are
 * compared: no BOS is added, and the text of special tokens becomes those tokens.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ctl.h"
#include "model/resolve.h"
#include "text/tokenizer.h"
#include "weights/checkpoint.h"

static const char usage[] = "tokenize FILE [--jsonl]    FILE: a model, a tokenizer.json or a "
			    ".gguf; text on stdin";

/* A file that starts like JSON is a tokenizer.json, whatever its name. */
static bool is_json(const char *path)
{
	const char *ext = strrchr(path, '.');
	FILE *f = ext && !strcmp(ext, ".safetensors") ? NULL : fopen(path, "r");
	int c = f ? getc(f) : EOF;

	while (c == ' ' || c == '\t' || c == '\r' || c == '\n')
		c = getc(f);
	if (f)
		fclose(f);
	return c == '{';
}

static int open_any(struct tokenizer **t, const char *name, struct err *e)
{
	char path[MODEL_PATH_MAX], json[MODEL_PATH_MAX + 32];
	struct checkpoint *c;
	struct stat st;
	int rc = model_resolve(name, path, e);

	if (rc)
		return rc;
	if (!stat(path, &st) && S_ISREG(st.st_mode) && is_json(path))
		return tokenizer_open_hf(t, path, e);
	if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
		/* a directory with nothing but a tokenizer will do */
		snprintf(json, sizeof(json), "%s/tokenizer.json", path);
		return tokenizer_open_hf(t, json, e);
	}
	rc = checkpoint_open(&c, path, e);
	if (rc)
		return rc;
	rc = tokenizer_open(t, c, e);
	checkpoint_close(c);
	return rc;
}

static int plain(const struct tokenizer *t, const char *text, size_t n, struct err *e)
{
	struct ids ids = {0};
	int rc = tokenizer_encode(t, text, n, TOK_SPECIAL, &ids, e);

	for (size_t i = 0; !rc && i < ids.n; i++)
		printf("%s%d", i ? "," : "", ids.v[i]);
	if (!rc)
		putchar('\n');
	ids_free(&ids);
	return rc;
}

/* {"text": ..} to {"ids": [..], "decoded": ".."}, one line. */
static int json_line(const struct tokenizer *t, const char *line, size_t n, size_t number,
		     struct err *e)
{
	json_error_t je;
	json_t *in = json_loadb(line, n, JSON_ALLOW_NUL, &je), *out;
	const json_t *text = json_object_get(in, "text");
	struct ids ids = {0};
	char *decoded = NULL;
	size_t len;
	int rc;

	if (!json_is_string(text)) {
		rc = err_set(e, -EINVAL, "stdin: line %zu: %s: give one {\"text\": \"...\"} a line",
			     number, in ? "no string \"text\"" : je.text);
		json_decref(in);
		return rc;
	}
	rc = tokenizer_encode(t, json_string_value(text), json_string_length(text), TOK_SPECIAL,
			      &ids, e);
	if (!rc)
		rc = tokenizer_decode(t, ids.v, ids.n, false, &decoded, &len, e);
	if (!rc) {
		json_t *list = json_array();

		for (size_t i = 0; i < ids.n; i++)
			json_array_append_new(list, json_integer(ids.v[i]));
		out = json_pack("{s:o, s:o}", "ids", list, "decoded", json_stringn(decoded, len));
		if (!out || json_dumpf(out, stdout, JSON_COMPACT))
			rc = err_set(e, -ENOMEM, "stdout: line %zu cannot be written", number);
		json_decref(out);
		putchar('\n');
	}
	free(decoded);
	ids_free(&ids);
	json_decref(in);
	return rc;
}

static int json_lines(const struct tokenizer *t, struct err *e)
{
	char *line = NULL;
	size_t cap = 0, number = 0;
	ssize_t n;
	int rc = 0;

	while (!rc && (n = getline(&line, &cap, stdin)) > 0) {
		number++;
		if (strspn(line, " \t\r\n") < (size_t)n)
			rc = json_line(t, line, (size_t)n, number, e);
	}
	if (!rc && ferror(stdin))
		rc = err_set(e, -EIO, "stdin: cannot be read: %s", strerror(errno));
	free(line);
	return rc;
}

static int whole_input(const struct tokenizer *t, struct err *e)
{
	size_t n = 0, cap = 1 << 16;
	char *text = malloc(cap);
	int rc = 0;

	while (text) {
		size_t k = fread(text + n, 1, cap - n, stdin);
		char *more;

		n += k;
		if (!k)
			break;
		if (n < cap)
			continue;
		more = realloc(text, cap *= 2);
		if (!more)
			free(text);
		text = more;
	}
	if (!text)
		return err_set(e, -ENOMEM, "stdin: too long for the memory there is");
	if (ferror(stdin))
		rc = err_set(e, -EIO, "stdin: cannot be read: %s", strerror(errno));
	if (!rc)
		rc = plain(t, text, n, e);
	free(text);
	return rc;
}

int cmd_tokenize(int argc, char **argv)
{
	static const struct option options[] = {
		{"jsonl", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct tokenizer *t;
	bool lines = false;
	struct err e;
	int opt, rc;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'j') {
			lines = true;
		} else if (opt == 'h') {
			printf("usage: llmctl %s\n", usage);
			return 0;
		} else {
			return ctl_bad_option(usage, argv);
		}
	}
	if (argc - optind != 1)
		return ctl_usage(usage, "one FILE is needed");
	rc = open_any(&t, argv[optind], &e);
	if (rc)
		return ctl_fail("%s", e.msg);
	rc = lines ? json_lines(t, &e) : whole_input(t, &e);
	tokenizer_close(t);
	if (!rc && (fflush(stdout) || ferror(stdout)))
		rc = err_set(&e, -EIO, "stdout: cannot be written: %s", strerror(errno));
	return rc ? ctl_fail("%s", e.msg) : 0;
}
