// SPDX-License-Identifier: MIT
/*
 * A command that runs while room is held for it, until it says or shows that it is ready; see
 * reserve.h. Owns the child, its pipes, and a signalfd.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pcre2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl.h"
#include "memory/until.h"
#include "reserve.h"

#define LINE_MAX_ 8192
#define CHECK_NS  500000000u /* between two looks whether it is ready */

enum ready_kind { READY_END, READY_UNTIL, READY_REGEX, READY_FD, READY_MAPPING };

struct ready {
	enum ready_kind kind;
	struct until until;
	pcre2_code *regex;
	pcre2_match_data *match;
	const char *text; /* mapping */
	int fd; /* the command's */
};

struct stream {
	int from, to; /* -1: none */
	char line[LINE_MAX_];
	size_t n;
};

struct command {
	pid_t pid;
	struct ready *ready;
	struct stream out, err;
	int notify; /* read end of READY_FD */
	int signals; /* signalfd */
	bool is_ready, said;
	uint64_t start_ns, checked_ns;
};

/* ---- what ready means ------------------------------------------------------------------------ */

static int parse_regex(struct ready *r, const char *text)
{
	PCRE2_SIZE at;
	int code;

	r->kind = READY_REGEX;
	r->regex = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, &code, &at, NULL);
	if (!r->regex) {
		PCRE2_UCHAR why[128] = "";

		pcre2_get_error_message(code, why, sizeof(why));
		ctl_fail("reserve: --ready: regex `%s`: %s at %zu", text, (char *)why, (size_t)at);
		return 2;
	}
	r->match = pcre2_match_data_create_from_pattern(r->regex, NULL);
	return r->match ? 0 : ctl_fail("reserve: no memory");
}

static bool starts(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

/* 0, or the exit status with the message printed. */
static int parse_ready(struct ready *r, const char *text)
{
	static const char *const conditions[] = {"port:", "http:", "unit:", "container:", "pid:"};
	bool condition =
		isdigit((unsigned char)*(text ? text : "")) && !text[strspn(text, "0123456789")];
	long long fd = 3;
	struct err e;

	*r = (struct ready){.kind = READY_END};
	if (!text)
		return 0;
	if (!*text || !strcmp(text, "regex:")) {
		ctl_fail("reserve: --ready: of what? an empty text is in every line");
		return 2;
	}
	for (size_t i = 0; i < sizeof(conditions) / sizeof(conditions[0]); i++)
		condition |= starts(text, conditions[i]);
	if (condition) {
		r->kind = READY_UNTIL;
		if (until_parse(&r->until, text, &e)) {
			ctl_fail("reserve: --ready: %s", e.msg);
			return 2;
		}
		return 0;
	}
	if (!strcmp(text, "fd") || starts(text, "fd:")) {
		r->kind = READY_FD;
		if (text[2] && !ctl_int("--ready fd", text + 3, 3, 1023, &fd))
			return 2;
		r->fd = (int)fd;
		return 0;
	}
	if (starts(text, "mapping:")) {
		r->kind = READY_MAPPING;
		r->text = text + 8;
		if (*r->text)
			return 0;
		ctl_fail("reserve: --ready: mapping: of what? give a part of a file's path");
		return 2;
	}
	return parse_regex(r, starts(text, "regex:") ? text + 6 : text);
}

static bool maps(pid_t pid, const char *text)
{
	char path[64], *line = NULL;
	bool found = false;
	size_t room = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	while (f && !found && getline(&line, &room, f) > 0) {
		const char *name = strchr(line, '/');

		found = name && strstr(name, text);
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

/* The process or one of its descendants. */
static bool tree_maps(pid_t pid, const char *text, int depth)
{
	char path[64];
	bool found = maps(pid, text);
	int child;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = found || depth > 8 ? NULL : fopen(path, "re");
	while (f && !found && fscanf(f, "%d", &child) == 1)
		found = tree_maps(child, text, depth + 1);
	if (f)
		fclose(f);
	return found;
}

/* Those conditions that have to be looked at. */
static void look(struct command *c)
{
	uint64_t now = ctl_now_ns();
	struct err e;

	if (c->is_ready || now - c->checked_ns < CHECK_NS)
		return;
	c->checked_ns = now;
	if (c->ready->kind == READY_UNTIL) {
		int rc = until_holds(&c->ready->until, &e);

		if (rc < 0) {
			fprintf(stderr, "[--ready: %s: waiting until it ends]\n", e.msg);
			c->ready->kind = READY_END;
		}
		c->is_ready = rc > 0;
	} else if (c->ready->kind == READY_MAPPING) {
		c->is_ready = tree_maps(c->pid, c->ready->text, 0);
	}
}

/* ---- output ---------------------------------------------------------------------------------- */

static void match_line(struct command *c, struct stream *s)
{
	if (!c->is_ready && pcre2_match(c->ready->regex, (PCRE2_SPTR)s->line, s->n, 0, 0,
					c->ready->match, NULL) >= 0)
		c->is_ready = true;
	s->n = 0;
}

/* What came is passed on at once; false: no more. */
static bool pass_on(struct command *c, struct stream *s)
{
	char buf[65536];
	ssize_t n = read(s->from, buf, sizeof(buf));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	for (ssize_t at = 0; at < n;) {
		ssize_t w = write(s->to, buf + at, (size_t)(n - at));

		if (w < 0 && errno != EINTR)
			n = 0; /* nobody reads: the command shall feel it as well */
		else if (w > 0)
			at += w;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n')
			match_line(c, s);
		else if (s->n < sizeof(s->line))
			s->line[s->n++] = buf[i];
	}
	/* A prompt or a progress bar may never end its line. */
	if (n > 0 && s->n) {
		size_t kept = s->n;

		match_line(c, s);
		s->n = kept;
	}
	if (n <= 0) {
		close(s->from);
		s->from = -1;
	}
	return n > 0;
}

/* ---- the command ----------------------------------------------------------------------------- */

static void exec_child(const struct command *c, char **argv, int out, int err, int notify,
		       const sigset_t *mask)
{
	sigprocmask(SIG_SETMASK, mask, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (out >= 0 && (dup2(out, 1) < 0 || dup2(err, 2) < 0))
		_exit(126);
	if (notify >= 0) {
		if (notify == c->ready->fd)
			fcntl(notify, F_SETFD, 0);
		else if (dup2(notify, c->ready->fd) < 0)
			_exit(126);
	}
	execvp(argv[0], argv);
	dprintf(2, "llmctl: reserve: %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static int start(struct command *c, char **argv)
{
	int out[2] = {-1, -1}, err[2] = {-1, -1}, notify[2] = {-1, -1};
	sigset_t all, old;

	sigemptyset(&all);
	for (const int *s = (const int[]){SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2,
					  SIGCHLD, SIGWINCH, 0};
	     *s; s++)
		sigaddset(&all, *s);
	sigprocmask(SIG_BLOCK, &all, &old);
	c->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->signals < 0 ||
	    (c->ready->kind == READY_REGEX && (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))) ||
	    (c->ready->kind == READY_FD && pipe2(notify, O_CLOEXEC)))
		return ctl_fail("reserve: %s", strerror(errno));
	fflush(NULL);
	c->pid = fork();
	if (c->pid < 0)
		return ctl_fail("reserve: fork: %s", strerror(errno));
	if (!c->pid)
		exec_child(c, argv, out[1], err[1], notify[1], &old);
	if (out[1] >= 0) {
		close(out[1]);
		close(err[1]);
		signal(SIGPIPE, SIG_IGN);
	}
	if (notify[1] >= 0)
		close(notify[1]);
	c->out = (struct stream){.from = out[0], .to = STDOUT_FILENO};
	c->err = (struct stream){.from = err[0], .to = STDERR_FILENO};
	c->notify = notify[0];
	for (int i = 0; i < 3; i++) {
		int fd = (int[]){out[0], err[0], notify[0]}[i];

		if (fd >= 0)
			fcntl(fd, F_SETFL, O_NONBLOCK);
	}
	return 0;
}

/* True: the command has ended, with *status. */
static bool signals(struct command *c, int *status)
{
	struct signalfd_siginfo si;

	while (read(c->signals, &si, sizeof(si)) == sizeof(si)) {
		/* What the terminal sends, the whole foreground group has got. */
		if (si.ssi_signo != SIGCHLD && si.ssi_code <= 0)
			kill(c->pid, (int)si.ssi_signo);
	}
	return waitpid(c->pid, status, WNOHANG) == c->pid;
}

static void notified(struct command *c)
{
	char byte;
	ssize_t n = read(c->notify, &byte, 1);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* Closed without a word: it will not say it any more. */
	if (n > 0)
		c->is_ready = true;
	close(c->notify);
	c->notify = -1;
}

static void ready(struct command *c, struct hold *h)
{
	if (!c->is_ready || c->said)
		return;
	c->said = true;
	if (!h->o->quiet)
		fprintf(stderr, "[ready after %.1f s]\n",
			(double)(ctl_now_ns() - c->start_ns) / 1e9);
	hold_end(h);
}

static int attend(struct command *c, struct hold *h)
{
	int status = 0;

	for (;;) {
		struct pollfd p[] = {{c->signals, POLLIN, 0},
				     {c->out.from, POLLIN, 0},
				     {c->err.from, POLLIN, 0},
				     {c->notify, POLLIN, 0}};

		poll(p, 4, h->end_ns || !c->is_ready ? RESERVE_TICK_MS : -1);
		if (p[1].revents)
			pass_on(c, &c->out);
		if (p[2].revents)
			pass_on(c, &c->err);
		if (p[3].revents)
			notified(c);
		if (signals(c, &status))
			break;
		look(c);
		ready(c, h);
		hold_tick(h);
	}
	while (c->out.from >= 0 && poll(&(struct pollfd){c->out.from, POLLIN, 0}, 1, 0) > 0)
		pass_on(c, &c->out);
	while (c->err.from >= 0 && poll(&(struct pollfd){c->err.from, POLLIN, 0}, 1, 0) > 0)
		pass_on(c, &c->err);
	ready(c, h);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int reserve_run(const struct reserve_opts *o, const char *ready, char **argv)
{
	struct command *c = calloc(1, sizeof(*c));
	struct ready r;
	struct hold h;
	int rc = c ? parse_ready(&r, ready) : ctl_fail("reserve: no memory");

	if (rc) {
		free(c);
		return rc;
	}
	c->ready = &r;
	c->notify = c->out.from = c->err.from = -1;
	rc = hold_begin(&h, o, NULL);
	if (!rc) {
		c->start_ns = ctl_now_ns();
		rc = start(c, argv);
		if (!rc)
			rc = attend(c, &h);
		hold_end(&h);
	}
	pcre2_match_data_free(r.match);
	pcre2_code_free(r.regex);
	free(c);
	return rc;
}
