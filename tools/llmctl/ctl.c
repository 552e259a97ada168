// SPDX-License-Identifier: MIT
/*
 * What the commands of llmctl share (ctl.h). The only state is the progress display's and the
 * Ctrl-C flag, both of this process.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/option.h"
#include "ctl.h"
#include "lib/llmdev.h"

#define MESSAGE_MAX 2048

static volatile sig_atomic_t sigint_seen;

static struct {
	uint64_t start_ns, drawn_ns;
	bool visible;
} progress;

/* One line, whatever the arguments hold: names are quoted in it as the user gave them. */
__attribute__((format(printf, 1, 0))) static void complain(const char *fmt, va_list ap)
{
	char line[MESSAGE_MAX];

	ctl_progress_end();
	vsnprintf(line, sizeof(line), fmt, ap);
	fprintf(stderr, "llmctl: %s\n", err_printable(line));
}

int ctl_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain(fmt, ap);
	va_end(ap);
	return 1;
}

int ctl_usage(const char *usage, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain(fmt, ap);
	va_end(ap);
	fprintf(stderr, "usage: llmctl %s\n", usage);
	return 2;
}

int ctl_bad_option(const char *usage, char **argv)
{
	const char *what = optind > 0 ? argv[optind - 1] : "?";

	if (!strcmp(what, "--help") || !strcmp(what, "-h")) {
		printf("usage: llmctl %s\n", usage);
		exit(0);
	}
	/* getopt sets optopt to the value of a known option that misses its argument. */
	if (optopt && optopt < 256 && !(what[0] == '-' && what[1] == '-'))
		return ctl_usage(usage, "%s: -%c: %s", argv[0], optopt, option_fault(what));
	return ctl_usage(usage, "%s: %s: %s", argv[0], what, option_fault(what));
}

bool ctl_int(const char *option, const char *text, long long lo, long long hi, long long *out)
{
	char *end;

	errno = 0;
	*out = strtoll(text, &end, 10);
	if (errno || end == text || *end || *out < lo || *out > hi) {
		ctl_fail("%s: `%s` is %s: give one from %lld to %lld", option, text,
			 end == text || *end ? "not a whole number" : "out of range", lo, hi);
		return false;
	}
	return true;
}

bool ctl_double(const char *option, const char *text, double lo, double hi, double *out)
{
	char *end;

	errno = 0;
	*out = strtod(text, &end);
	if (errno || end == text || *end || isnan(*out) || *out < lo || *out > hi) {
		ctl_fail("%s: `%s` is %s: give one from %g to %g", option, text,
			 end == text || *end || isnan(*out) ? "not a number" : "out of range", lo,
			 hi);
		return false;
	}
	return true;
}

bool ctl_watch(int argc, char **argv, double *seconds)
{
	*seconds = 1;
	if (!optarg && optind < argc && isdigit((unsigned char)*argv[optind]))
		optarg = argv[optind++];
	return !optarg || ctl_double("--watch", optarg, 0.05, 86400, seconds);
}

void ctl_common_defaults(struct engine_opts *o)
{
	engine_options_default(o);
	o->progress = ctl_progress;
	opterr = 0;
	optind = 0; /* glibc: start afresh, argv[0] is the command's name */
}

int ctl_common_option(int opt, const char *arg, struct engine_opts *o)
{
	struct err e;
	int rc = engine_option(o, opt, arg, &e);

	if (rc >= 0)
		return rc;
	ctl_fail("%s", e.msg);
	return -1;
}

void ctl_find_socket(char *path, size_t len, const char *name)
{
	llmdev_default_socket(path, len, name);
	if (access(path, F_OK))
		snprintf(path, len, "/run/llmdev/%s.sock", name);
	if (access(path, F_OK))
		llmdev_default_socket(path, len, name);
}

uint64_t ctl_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool ctl_tty(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb");
}

bool ctl_colour(void)
{
	const char *no = getenv("NO_COLOR");

	return ctl_tty() && !(no && *no);
}

void ctl_progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	uint64_t now = ctl_now_ns();
	struct winsize ws;
	int width = 30;

	if (!progress.start_ns)
		progress.start_ns = now;
	if (total && done >= total) {
		ctl_progress_end();
		return;
	}
	if (now - progress.start_ns < 2000000000u || now - progress.drawn_ns < 100000000u ||
	    !ctl_tty() || !total)
		return;
	if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) && ws.ws_col && ws.ws_col < 70)
		width = 10;
	int full = (int)((double)done / (double)total * width);

	fprintf(stderr, "\r\033[K%s [%.*s%.*s] %3.0f %%", what ? what : "loading", full,
		"##############################", width - full, "..............................",
		100.0 * (double)done / (double)total);
	fflush(stderr);
	progress.visible = true;
	progress.drawn_ns = now;
}

void ctl_progress_end(void)
{
	if (progress.visible) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
	memset(&progress, 0, sizeof(progress));
}

static void on_sigint(int sig)
{
	if (sigint_seen)
		_exit(128 + sig);
	sigint_seen = 1;
}

void ctl_catch_sigint(void)
{
	/* No SA_RESTART: a blocking read has to come back and look at the flag. */
	struct sigaction sa = {.sa_handler = on_sigint};

	sigemptyset(&sa.sa_mask);
	sigaction(SIGINT, &sa, NULL);
}

bool ctl_sigint(void)
{
	return sigint_seen;
}

void ctl_sigint_clear(void)
{
	sigint_seen = 0;
}
