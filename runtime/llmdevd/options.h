/* SPDX-License-Identifier: MIT */
/*
 * The daemon's options beside the engine's, for itself and for those that start another one like it:
 * getopt_long() table entries. What they mean is in main.c.
 */
#ifndef LLMDEVD_OPTIONS_H
#define LLMDEVD_OPTIONS_H

#include <getopt.h>

/* The value of a queued SIGUSR1 that means: hand over, and stay to be taken back (SIGUSR2). */
#define SERVER_KEEP 1

enum {
	OPT_SOCKET = 1,
	OPT_NAME,
	OPT_BATCH,
	OPT_PACE,
	OPT_DRAIN,
	OPT_LIMITS,
	OPT_VERBOSE,
	OPT_HELP
};

/* clang-format off */
#define DAEMON_OPTIONS                                                                             \
	{"socket", required_argument, NULL, OPT_SOCKET},                                           \
	{"name", required_argument, NULL, OPT_NAME},                                               \
	{"batch", required_argument, NULL, OPT_BATCH},                                             \
	{"pace", required_argument, NULL, OPT_PACE},                                               \
	{"drain", required_argument, NULL, OPT_DRAIN},                                             \
	{"limits", required_argument, NULL, OPT_LIMITS},                                           \
	{"verbose", no_argument, NULL, OPT_VERBOSE},                                               \
	{"help", no_argument, NULL, OPT_HELP}
/* clang-format on */

#endif
