// SPDX-License-Identifier: MIT
/*
 * llmctl logits: the logits after given positions of a list of tokens, one JSON object a line:
 * {"position":p,"logits":[...]}. Nine significant digits: every float survives the round trip.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/llmctl/ctl.h"
#include "tools/llmctl/id_list.h"

static const char usage[] =
	"logits MODEL --tokens LIST [--positions LIST] " CTL_COMMON_USAGE;

enum { OPT_TOKENS = 1, OPT_POSITIONS };

static int parse(int argc, char **argv, struct engine_opts *o, struct ids *tokens,
		 struct ids *positions)
{
	static const struct option options[] = {
		{"tokens", required_argument, NULL, OPT_TOKENS},
		{"positions", required_argument, NULL, OPT_POSITIONS},
		CTL_COMMON_OPTIONS,
		{NULL, 0, NULL, 0},
	};
	struct err e;
	int opt, rc;

	ctl_common_defaults(o);
	opterr = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == OPT_TOKENS || opt == OPT_POSITIONS) {
			if (id_list_parse(optarg, opt == OPT_TOKENS ? tokens : positions, &e))
				return ctl_usage(usage, "--%s: %s",
						 opt == OPT_TOKENS ? "tokens" : "positions", e.msg);
			continue;
		}
		rc = ctl_common_option(opt, optarg, o);
		if (rc != 1)
			return rc ? 2 : ctl_bad_option(usage, argv);
	}
	if (argc - optind != 1)
		return ctl_usage(usage, "%s",
				 optind == argc ? "no model given" : "more than one model given");
	if (!tokens->n)
		return ctl_usage(usage, "--tokens is missing");
	o->model = argv[optind];
	return 0;
}

static int print_logits(struct engine *en, const struct ids *tokens, const struct ids *positions)
{
	size_t vocab = engine_info(en)->vocab;
	float *out = calloc(positions->n, vocab * sizeof(*out));
	struct err e;

	if (!out)
		return ctl_fail("logits: out of memory: ask for fewer positions");
	if (engine_logits(en, tokens->v, tokens->n, positions->v, positions->n, out, &e)) {
		free(out);
		return ctl_fail("%s", e.msg);
	}
	for (size_t i = 0; i < positions->n; i++) {
		printf("{\"position\":%d,\"logits\":[", positions->v[i]);
		for (size_t v = 0; v < vocab; v++) {
			float x = out[i * vocab + v];

			/* JSON has no infinities; a broken checkpoint gives them */
			if (isfinite(x))
				printf("%s%.9g", v ? "," : "", x);
			else
				printf("%snull", v ? "," : "");
		}
		printf("]}\n");
	}
	free(out);
	return fflush(stdout)
		       ? ctl_fail("stdout: cannot write: where it goes was closed or is full")
		       : 0;
}

int cmd_logits(int argc, char **argv)
{
	struct ids tokens = {0}, positions = {0};
	struct engine_opts o;
	struct engine *en = NULL;
	struct err e;
	int rc = parse(argc, argv, &o, &tokens, &positions);

	if (!rc && !positions.n && ids_push(&positions, (int32_t)tokens.n - 1))
		rc = ctl_fail("positions: out of memory");
	o.max_seqs = 8;
	if (!rc && engine_open(&en, &o, &e))
		rc = ctl_fail("%s", e.msg);
	ctl_progress_end();
	if (!rc)
		rc = print_logits(en, &tokens, &positions);
	engine_close(en);
	ids_free(&tokens);
	ids_free(&positions);
	return rc;
}
