// SPDX-License-Identifier: MIT
/*
 * llmctl chat: turns from a terminal (libedit) or a pipe (a line is a turn), answered by a running
 * daemon or by a model in this process (local.c). Ctrl-C cancels the answer, Ctrl-D ends.
 */
#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "ctl.h"
#include "local.h"
#include "session.h"

static const char usage[] = "chat [MODEL | --device PATH | --socket PATH] [-n N] [--recovery "
			    "SECONDS] [--quiet] " CTL_THINK_USAGE " " CTL_COMMON_USAGE;

struct chat {
	struct ctl_session_opts session_opts;
	struct engine_opts engine;
	long long max_tokens;
	struct ctl_session *session; /* one of these two */
	struct local *local;
	/* where turns come from */
	EditLine *el; /* NULL: a pipe */
	History *history;
	char *line;
	size_t line_cap;
};

/* -1: go on; else the exit status. */
static int parse(struct chat *c, int argc, char **argv)
{
	static const struct option options[] = {
		CTL_SESSION_OPTIONS,
		CTL_COMMON_OPTIONS,
		{0},
	};
	int opt, rc;

	ctl_common_defaults(&c->engine);
	while ((opt = getopt_long(argc, argv, "n:", options, NULL)) != -1) {
		if (opt == 'n') {
			if (!ctl_int("-n", optarg, 1, INT32_MAX, &c->max_tokens))
				return 2;
			continue;
		}
		rc = ctl_session_option(&c->session_opts, opt, optarg);
		if (!rc)
			rc = ctl_common_option(opt, optarg, &c->engine);
		if (rc < 0)
			return 2;
		if (!rc)
			return ctl_bad_option(usage, argv);
	}
	if (argc - optind > 1 || (argc > optind && c->session_opts.path))
		return ctl_usage(usage, "chat: give one of MODEL, --device, --socket");
	if (argc > optind)
		c->engine.model = argv[optind];
	return -1;
}

/* ---- turns in ------------------------------------------------------------------------------------- */

static char *prompt(EditLine *el)
{
	return "> ";
}

static void block_sigint(sigset_t *before)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, before);
}

/*
 * libedit's own reader misses a Ctrl-C that comes while it is not in read(): here SIGINT is let in
 * only by the wait itself, so that it is either seen before or ends it. 1, 0 at the end of input, -1.
 */
static int read_key(EditLine *el, wchar_t *key)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	mbstate_t state = {0};
	sigset_t before;
	char byte;
	int ready;

	for (;;) {
		block_sigint(&before);
		ready = ctl_sigint() ? -1 : ppoll(&p, 1, NULL, &before);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		if (ctl_sigint()) {
			errno = EINTR;
			return -1;
		}
		if (ready < 0) { /* the window changed, or we were stopped and go on */
			el_set(el, EL_REFRESH);
			continue;
		}
		if (read(STDIN_FILENO, &byte, 1) != 1)
			return 0;
		/* A Ctrl-D typed before the terminal was in raw mode arrives like this (n_tty). */
		if (!byte)
			byte = 'D' - '@';
		switch (mbrtowc(key, &byte, 1, &state)) {
		case (size_t)-2: /* the character has more bytes */
			break;
		case (size_t)-1:
			memset(&state, 0, sizeof(state));
			break;
		default:
			return 1;
		}
	}
}

static int open_terminal(struct chat *c)
{
	HistEvent ev;

	if (!isatty(STDIN_FILENO))
		return 0;
	/* What is typed is characters, not bytes: of the user's locale, or UTF-8. */
	if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
		setlocale(LC_CTYPE, "C.UTF-8");
	c->el = el_init("llmctl", stdin, stdout, stderr);
	c->history = history_init();
	if (!c->el || !c->history)
		return ctl_fail("terminal: cannot be set up: try a pipe");
	history(c->history, &ev, H_SETSIZE, 1000);
	history(c->history, &ev, H_SETUNIQUE, 1);
	el_set(c->el, EL_PROMPT, prompt);
	el_set(c->el, EL_EDITOR, "emacs");
	el_set(c->el, EL_HIST, history, c->history);
	/* libedit restores the terminal on a signal, then passes it on to our handler. */
	el_set(c->el, EL_SIGNAL, 1);
	el_set(c->el, EL_GETCFN, read_key);
	return 0;
}

static void close_terminal(struct chat *c)
{
	if (c->history)
		history_end(c->history);
	if (c->el)
		el_end(c->el);
	free(c->line);
}

/* The next turn without its newline; NULL at the end of input. Empty lines are passed over. */
static const char *next_turn(struct chat *c, size_t *len)
{
	for (;;) {
		const char *line;
		int n = 0;

		errno = 0;
		if (c->el) {
			line = el_gets(c->el, &n);
		} else {
			n = (int)getline(&c->line, &c->line_cap, stdin);
			line = n > 0 ? c->line : NULL;
		}
		if (!line || n <= 0) {
			if (!ctl_sigint())
				return NULL;
			/* Ctrl-C while typing: a new line. On a pipe it is meant for us. */
			if (!c->el)
				return NULL;
			ctl_sigint_clear();
			putchar('\n');
			el_reset(c->el);
			continue;
		}
		*len = (size_t)n;
		while (*len && (line[*len - 1] == '\n' || line[*len - 1] == '\r'))
			(*len)--;
		if (!*len)
			continue;
		if (c->el) {
			HistEvent ev;

			history(c->history, &ev, H_ENTER, line);
		}
		return line;
	}
}

/* ---- the conversation ----------------------------------------------------------------------------- */

static int open_model(struct chat *c)
{
	if (c->engine.model) {
		sigset_t before;

		/* The engine's threads inherit it: Ctrl-C is for this thread, which waits for it. */
		block_sigint(&before);
		c->local = local_open(&c->engine, &c->session_opts);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		return c->local ? 0 : 1;
	}
	c->session = ctl_session_open(&c->session_opts);
	if (c->session && c->el && !c->session_opts.quiet)
		fprintf(stderr, "[%s; Ctrl-C cancels an answer, Ctrl-D ends]\n",
			ctl_session_where(c->session));
	return c->session ? 0 : 1;
}

static int converse(struct chat *c)
{
	struct llmdev_request r = {.max_tokens = (uint32_t)c->max_tokens};
	const char *text;
	size_t len;
	int rc = 0;

	while ((text = next_turn(c, &len))) {
		if (c->local)
			rc = local_ask(c->local, text, len, (int)c->max_tokens);
		else
			rc = ctl_session_ask(c->session, text, len, false, &r);
		/* A cancelled answer is no failure. One that failed may be asked again by a person;
		 * a script should hear of it. */
		if (rc == 130)
			rc = 0;
		ctl_sigint_clear();
		if (rc && !c->el)
			return rc;
	}
	if (c->el)
		putchar('\n');
	return c->el ? 0 : rc;
}

int cmd_chat(int argc, char **argv)
{
	struct chat c = {.session_opts.think = -1};
	int rc = parse(&c, argc, argv);

	if (rc >= 0)
		return rc;
	rc = open_terminal(&c);
	if (!rc)
		rc = open_model(&c);
	ctl_catch_sigint();
	if (!rc)
		rc = converse(&c);
	local_close(c.local);
	ctl_session_close(c.session);
	close_terminal(&c);
	return rc;
}
