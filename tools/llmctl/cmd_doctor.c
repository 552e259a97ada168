// SPDX-License-Identifier: MIT
/*
 * llmctl doctor: what on this machine stands in llmdev's way, and what mends it. The checks are in
 * doctor_*.c; this file owns the options and what is printed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ctl.h"
#include "doctor.h"

#define USAGE "doctor [--json] [--all] [--fix [--yes] | --undo] [--root DIR]"

enum { OPT_JSON = 1, OPT_ALL, OPT_FIX, OPT_YES, OPT_UNDO, OPT_ROOT };

struct options {
	bool json, all, fix, yes, undo;
	const char *root;
};

static bool colour(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no && *no) && term && *term && strcmp(term, "dumb");
}

/* Words, broken to the terminal's width below `indent`; in a pipe one line. */
static void print_wrapped(const char *text, int indent)
{
	struct winsize ws;
	int width = 1 << 20, col = indent;

	if (isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) && ws.ws_col > 60)
		width = ws.ws_col < 110 ? ws.ws_col : 110;
	while (*text) {
		int n = (int)strcspn(text, " ");

		if (col > indent && col + 1 + n >= width) {
			printf("\n%*s", indent, "");
			col = indent;
		} else if (col > indent) {
			putchar(' ');
			col++;
		}
		printf("%.*s", n, text);
		col += n;
		text += n;
		text += strspn(text, " ");
	}
	putchar('\n');
}

static void print_finding(const struct finding *f, bool in_colour)
{
	static const char *const paint[DOCTOR_STATES] = {[DOCTOR_OK] = "\033[32m",
							 [DOCTOR_NA] = "\033[2m",
							 [DOCTOR_UNKNOWN] = "\033[36m",
							 [DOCTOR_WARN] = "\033[33m",
							 [DOCTOR_BAD] = "\033[1;31m"};

	printf("%s%-8s%s %-14s ", in_colour ? paint[f->state] : "", doctor_state_names[f->state],
	       in_colour ? "\033[0m" : "", f->id);
	print_wrapped(f->reason, 24);
	for (const char *p = f->command; *p;) {
		size_t n = strcspn(p, "\n");

		printf("%24s%.*s\n", "-> ", (int)n, p);
		p += n + (p[n] == '\n');
	}
}

static void print_all(const struct doctor *d, bool all)
{
	const struct doctor_facts *f = &d->facts;
	int count[DOCTOR_STATES] = {0}, fixable = 0;
	bool c = colour();

	if (f->machine[0] || f->gb10)
		printf("%s%s, ", f->machine[0] ? f->machine : "unknown machine",
		       f->gb10 ? " (GB10, unified memory)" : "");
	printf("%.1f GiB of memory, %.1f GiB free, %.1f GiB available\n\n", GIB(f->mem_total),
	       GIB(f->mem_free), GIB(f->mem_available));
	for (int i = 0; i < d->n; i++) {
		const struct finding *x = &d->finding[i];

		count[x->state]++;
		fixable += x->state >= DOCTOR_UNKNOWN && x->change[0].kind;
		if (all || x->state != DOCTOR_NA)
			print_finding(x, c);
	}
	printf("\n%d ok, %d warn, %d bad, %d unknown", count[DOCTOR_OK], count[DOCTOR_WARN],
	       count[DOCTOR_BAD], count[DOCTOR_UNKNOWN]);
	if (count[DOCTOR_NA])
		printf(", %d not for this machine%s", count[DOCTOR_NA], all ? "" : " (--all)");
	if (fixable)
		printf("; `llmctl doctor --fix` can mend %d", fixable);
	putchar('\n');
}

/* ---- fixing ----------------------------------------------------------------------------------- */

static bool ask(void *ctx, const char *what)
{
	char line[16];

	fprintf(stderr, "%s [y/N]? ", what);
	fflush(stderr);
	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

static void tell(void *ctx, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

static int change(const struct options *o)
{
	struct doctor d;
	struct err e;
	struct fixer x = {.view = &d.view, .yes = o->yes, .ask = ask, .tell = tell};
	int rc;

	if (!o->root && geteuid())
		return ctl_fail("doctor: --%s: changes the system: run it as root (sudo)",
				o->fix ? "fix" : "undo");
	if (o->fix && !o->yes && !isatty(STDIN_FILENO))
		return ctl_fail("doctor: --fix: nobody is there to ask: give --yes");
	if (doctor_look(&d, o->root, &e))
		return ctl_fail("%s", e.msg);
	rc = o->fix ? doctor_fix(&x, &d, &e) : doctor_undo(&x, &e);
	doctor_free(&d);
	if (rc)
		return ctl_fail("%s", e.msg);
	if (!x.done && !x.failed)
		fprintf(stderr, "%s\n",
			o->fix ? "nothing that --fix could mend was changed"
			       : "there is nothing to undo");
	return x.failed ? 1 : 0;
}

static int parse(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, OPT_JSON},
		{"all", no_argument, NULL, OPT_ALL},
		{"fix", no_argument, NULL, OPT_FIX},
		{"yes", no_argument, NULL, OPT_YES},
		{"undo", no_argument, NULL, OPT_UNDO},
		{"root", required_argument, NULL, OPT_ROOT},
		{NULL},
	};
	int opt;

	opterr = 0;
	optind = 0;
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (opt) {
		case OPT_JSON:
			o->json = true;
			break;
		case OPT_ALL:
			o->all = true;
			break;
		case OPT_FIX:
			o->fix = true;
			break;
		case OPT_YES:
			o->yes = true;
			break;
		case OPT_UNDO:
			o->undo = true;
			break;
		case OPT_ROOT:
			o->root = optarg;
			break;
		default:
			return ctl_bad_option(USAGE, argv);
		}
	}
	if (argc != optind)
		return ctl_usage(USAGE, "doctor: takes no arguments");
	if (o->fix && o->undo)
		return ctl_usage(USAGE, "doctor: --fix and --undo: one of them");
	if (o->yes && !o->fix)
		return ctl_usage(USAGE, "doctor: --yes goes with --fix");
	return 0;
}

int cmd_doctor(int argc, char **argv)
{
	struct options o = {0};
	struct doctor d;
	struct err e;
	int rc = parse(&o, argc, argv);
	json_t *j;

	if (!rc && (o.fix || o.undo))
		rc = change(&o);
	if (rc)
		return rc;
	/* What it looks like now, also after a change. */
	if (doctor_look(&d, o.root, &e))
		return ctl_fail("%s", e.msg);
	if (o.json) {
		j = doctor_json(&d);
		if (j)
			json_dumpf(j, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(j);
	} else {
		print_all(&d, o.all);
	}
	rc = doctor_worst(&d) == DOCTOR_BAD;
	doctor_free(&d);
	return rc;
}
