// SPDX-License-Identifier: MIT
/* llmctl ask: one question to a running daemon; its answer to stdout, figures to stderr. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "session.h"

static const char usage[] =
	"ask [--device PATH | --socket PATH] [--json] [-n N] [--priority N] [--deadline SECONDS] "
	"[--principal LABEL] " CTL_THINK_USAGE
	" [--recovery SECONDS] [--quiet] TEXT (\"-\": from stdin)";

struct ask {
	struct ctl_session_opts session;
	bool json;
	long long max_tokens, priority;
	double deadline_s; /* 0: none */
	const char *principal; /* NULL: the user's own */
};

/* -1: go on; else the exit status. */
static int parse(struct ask *a, int argc, char **argv)
{
	enum { OPT_JSON = 1, OPT_PRIORITY, OPT_DEADLINE, OPT_PRINCIPAL };
	static const struct option options[] = {
		CTL_SESSION_OPTIONS,
		{"json", no_argument, NULL, OPT_JSON},
		{"priority", required_argument, NULL, OPT_PRIORITY},
		{"deadline", required_argument, NULL, OPT_DEADLINE},
		{"principal", required_argument, NULL, OPT_PRINCIPAL},
		{0},
	};
	int opt, rc;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, "n:", options, NULL)) != -1) {
		switch (opt) {
		case 'n':
			if (!ctl_int("-n", optarg, 1, INT32_MAX, &a->max_tokens))
				return 2;
			break;
		case OPT_JSON:
			a->json = true;
			break;
		case OPT_PRIORITY:
			if (!ctl_int("--priority", optarg, -20, 19, &a->priority))
				return 2;
			break;
		case OPT_DEADLINE:
			if (!ctl_double("--deadline", optarg, 1e-3, 1e6, &a->deadline_s))
				return 2;
			break;
		case OPT_PRINCIPAL:
			a->principal = optarg;
			break;
		default:
			rc = ctl_session_option(&a->session, opt, optarg);
			if (rc < 0)
				return 2;
			if (!rc)
				return ctl_bad_option(usage, argv);
		}
	}
	if (optind + 1 != argc)
		return ctl_usage(usage, "ask: TEXT: give exactly one (quote it)");
	if (a->json && a->session.think >= 0)
		return ctl_usage(usage, "ask: --json: say in the JSON how to think");
	return -1;
}

int cmd_ask(int argc, char **argv)
{
	struct ask a = {.session.think = -1};
	struct llmdev_request r = {0};
	struct ctl_session *s;
	char *text = NULL;
	size_t len;
	int rc = parse(&a, argc, argv);

	if (rc >= 0)
		return rc;
	if (!strcmp(argv[optind], "-")) {
		text = ctl_read_stdin(&len);
		if (!text)
			return 1;
		while (!a.json && len && text[len - 1] == '\n')
			len--;
	} else {
		text = strdup(argv[optind]);
		len = text ? strlen(text) : 0;
	}
	if (!len) {
		free(text);
		return ctl_usage(usage, "ask: TEXT: empty: ask something");
	}
	ctl_catch_sigint();
	r.max_tokens = (uint32_t)a.max_tokens;
	r.priority = (int32_t)a.priority;
	r.principal = a.principal;
	if (a.deadline_s > 0)
		r.deadline_ns = ctl_now_ns() + (uint64_t)(a.deadline_s * 1e9);
	s = ctl_session_open(&a.session);
	rc = s ? ctl_session_ask(s, text, len, a.json, &r) : 1;
	ctl_session_close(s);
	free(text);
	return rc;
}
