// SPDX-License-Identifier: MIT
/* Answers on stdout (print.h). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "print.h"

static int put(struct print *p, const char *s, size_t n)
{
	if (!n)
		return 0;
	fwrite(s, 1, n, stdout);
	p->newline = s[n - 1] == '\n';
	if (fflush(stdout))
		return ctl_fail("stdout: %s", strerror(errno));
	return 0;
}

static int leave_thinking(struct print *p)
{
	if (!p->in_thinking)
		return 0;
	p->in_thinking = false;
	if (p->dim)
		fputs("\033[0m", stdout);
	return put(p, p->newline ? "\n" : "\n\n", p->newline ? 1 : 2);
}

int print_text(struct print *p, const char *s, size_t n)
{
	return !n ? 0 : leave_thinking(p) ? 1 : put(p, s, n);
}

int print_thinking(struct print *p, const char *s, size_t n)
{
	if (!p->thinking || !n)
		return 0;
	if (!p->in_thinking) {
		p->in_thinking = true;
		p->dim = isatty(STDOUT_FILENO);
		if (p->dim)
			fputs("\033[2m", stdout);
	}
	return put(p, s, n);
}

int print_call(struct print *p, const char *name, const char *arguments)
{
	if (leave_thinking(p) || (!p->newline && put(p, "\n", 1)))
		return 1;
	return put(p, "[call ", 6) || put(p, name, strlen(name)) || put(p, " ", 1) ||
	       put(p, arguments, strlen(arguments)) || put(p, "]\n", 2);
}

int print_end(struct print *p)
{
	if (p->in_thinking && p->dim)
		fputs("\033[0m", stdout);
	p->in_thinking = false;
	return p->newline ? 0 : put(p, "\n", 1);
}
