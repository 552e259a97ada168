// SPDX-License-Identifier: MIT
/*
 * llmctl models: the checkpoints in the Hugging Face cache and in Ollama's store, whether they fit
 * into this machine, and the speed that its memory bandwidth allows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bandwidth.h"
#include "ctl.h"
#include "facts.h"
#include "model/resolve.h"

#define USAGE	      "models [--json] [--no-measure]"
#define MEASURE_BYTES ((size_t)512 << 20)

enum { OPT_JSON = 1, OPT_NO_MEASURE };

/* What the last column says. */
static const char *verdict(const struct facts *f)
{
	return !f->runs ? "cannot be run" : !f->fits ? "does not fit" : "fits";
}

static void print_row(const struct model_entry *m, const struct facts *f, const char *error,
		      double bandwidth, int width)
{
	char size[FACTS_SIZE], speed[32] = "-";

	if (error) {
		printf("%-*s  %9s  %-12s  %8s  unreadable: %s\n", width, m->name, "-", "-", "-",
		       error);
		return;
	}
	if (bandwidth > 0)
		snprintf(speed, sizeof(speed), "%.1f", facts_ceiling(f, bandwidth));
	printf("%-*s  %9s  %-12s  %8s  %s", width, m->name, facts_bytes(size, f->bytes), f->family,
	       speed, verdict(f));
	if (f->runs && f->fits && f->ctx_fits < f->config.max_pos)
		printf(" with a context of %lld", (long long)f->ctx_fits);
	printf("\n");
}

static json_t *row_json(const struct model_entry *m, const struct facts *f, const char *error,
			double bandwidth)
{
	json_t *j = json_pack("{ss ss ss}", "name", m->name, "source", m->source, "path", m->path);

	if (error) {
		json_object_set_new(j, "error", json_string(error));
		return j;
	}
	json_object_set_new(j, "family", json_string(f->family));
	json_object_set_new(j, "weight_bytes", json_integer((json_int_t)f->bytes));
	json_object_set_new(j, "runs", json_boolean(f->runs));
	json_object_set_new(j, "fits", json_boolean(f->fits));
	json_object_set_new(j, "bytes_per_token", json_integer((json_int_t)f->bytes_per_token));
	if (f->config_known)
		json_object_set_new(j, "context_fits", json_integer(f->ctx_fits));
	if (bandwidth > 0)
		json_object_set_new(j, "ceiling_tokens_per_s",
				    json_real(facts_ceiling(f, bandwidth)));
	return j;
}

static void show(const struct model_entry *v, size_t n, bool json, double bandwidth)
{
	json_t *list = json ? json_array() : NULL;
	int width = 5;

	for (size_t i = 0; i < n; i++)
		if ((int)strlen(v[i].name) > width)
			width = (int)strlen(v[i].name);
	if (!json && n)
		printf("%-*s  %9s  %-12s  %8s  %s\n", width, "MODEL", "WEIGHTS", "FAMILY",
		       "TOK/S <=", "HERE");
	for (size_t i = 0; i < n; i++) {
		struct err e = {""};
		struct facts f;
		bool bad = facts_read(&f, v[i].path, &e) != 0;

		if (json)
			json_array_append_new(list,
					      row_json(&v[i], &f, bad ? e.msg : NULL, bandwidth));
		else
			print_row(&v[i], &f, bad ? e.msg : NULL, bandwidth, width);
	}
	if (json) {
		json_dumpf(list, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
		putchar('\n');
		json_decref(list);
	} else if (!n) {
		fprintf(stderr, "no models in the Hugging Face cache or in Ollama's store\n");
	} else if (bandwidth > 0) {
		fprintf(stderr,
			"TOK/S <=: the ceiling at %.1f GB/s of memory reads, just measured\n",
			bandwidth / 1e9);
	}
}

int cmd_models(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, OPT_JSON},
		{"no-measure", no_argument, NULL, OPT_NO_MEASURE},
		{NULL},
	};
	bool json = false, measure = true;
	struct model_entry *v = NULL;
	struct bandwidth b;
	struct err e;
	size_t n = 0;
	int opt;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (opt == OPT_JSON)
			json = true;
		else if (opt == OPT_NO_MEASURE)
			measure = false;
		else
			return ctl_bad_option(USAGE, argv);
	}
	if (argc != optind)
		return ctl_usage(USAGE, "models: takes no arguments");
	if (model_list(&v, &n, &e))
		return ctl_fail("%s", e.msg);
	if (!n || !measure || bandwidth_measure(&b, MEASURE_BYTES, 0, 5, &e))
		b.median = 0;
	show(v, n, json, b.median);
	free(v);
	return 0;
}
