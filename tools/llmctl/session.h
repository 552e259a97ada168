/* SPDX-License-Identifier: MIT */
/*
 * A session with a running daemon, for the commands that ask one: options, the answer on stdout,
 * figures and what happens to the connection on stderr, Ctrl-C cancels the answer.
 */
#ifndef LLMCTL_SESSION_H
#define LLMCTL_SESSION_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/llmdev.h"

struct ctl_session_opts {
	const char *path;               /* NULL: whatever is there */
	bool path_is_device;
	bool quiet;                     /* no figures */
	bool show_thinking;             /* print reasoning too */
	int think;                      /* 1: on, 0: off, -1: as the model does */
	double recovery_s;              /* 0: the default */
};

enum {
	CTL_OPT_DEVICE = 0x2000,
	CTL_OPT_SOCKET,
	CTL_OPT_RECOVERY,
	CTL_OPT_QUIET,
	CTL_OPT_THINK,
	CTL_OPT_NO_THINK,
	CTL_OPT_SHOW_THINKING,
};

#define CTL_THINK_USAGE "[--think | --no-think] [--show-thinking]"

/* clang-format off */
#define CTL_SESSION_OPTIONS                                                                        \
	{"device", required_argument, NULL, CTL_OPT_DEVICE},                                       \
	{"socket", required_argument, NULL, CTL_OPT_SOCKET},                                       \
	{"recovery", required_argument, NULL, CTL_OPT_RECOVERY},                                   \
	{"quiet", no_argument, NULL, CTL_OPT_QUIET},                                               \
	{"think", no_argument, NULL, CTL_OPT_THINK},                                               \
	{"no-think", no_argument, NULL, CTL_OPT_NO_THINK},                                         \
	{"show-thinking", no_argument, NULL, CTL_OPT_SHOW_THINKING}
/* clang-format on */

/* 1: taken; 0: not one of them; -1: bad value, the message is printed. */
int ctl_session_option(struct ctl_session_opts *o, int opt, const char *arg);

struct ctl_session;

/* NULL: it failed and the message is printed. */
struct ctl_session *ctl_session_open(const struct ctl_session_opts *o);
void ctl_session_close(struct ctl_session *s);
const char *ctl_session_where(const struct ctl_session *s);
/*
 * Ask and print the answer as it comes. Returns an exit status; 130 for an answer that Ctrl-C cut
 * short.
 */
int ctl_session_ask(struct ctl_session *s, const char *text, size_t len, bool json,
		    const struct llmdev_request *r);

/* All of stdin, malloc'ed; NULL: it failed and the message is printed. */
char *ctl_read_stdin(size_t *len);

#endif
