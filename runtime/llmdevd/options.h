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
	OPT_DEVICE,
	OPT_BATCH,
	OPT_PACE,
	OPT_PRESSURE,
	OPT_DRAIN,
	OPT_LIMITS,
	OPT_VERBOSE,
	OPT_CHAT_TEMPLATE,
	OPT_TOOL_PARSER,
	OPT_REASONING_PARSER,
	OPT_HELP
};

/* clang-format off */
#define DAEMON_OPTIONS                                                                             \
	{"socket", required_argument, NULL, OPT_SOCKET},                                           \
	{"name", required_argument, NULL, OPT_NAME},                                               \
	{"device", optional_argument, NULL, OPT_DEVICE},                                                 \
	{"batch", required_argument, NULL, OPT_BATCH},                                             \
	{"pace", required_argument, NULL, OPT_PACE},                                               \
	{"pressure", required_argument, NULL, OPT_PRESSURE},                                       \
	{"drain", required_argument, NULL, OPT_DRAIN},                                             \
	{"limits", required_argument, NULL, OPT_LIMITS},                                           \
	{"verbose", no_argument, NULL, OPT_VERBOSE},                                               \
	{"chat-template", required_argument, NULL, OPT_CHAT_TEMPLATE},                             \
	{"tool-parser", required_argument, NULL, OPT_TOOL_PARSER},                                 \
	{"reasoning-parser", required_argument, NULL, OPT_REASONING_PARSER},                       \
	{"help", no_argument, NULL, OPT_HELP}
/* clang-format on */

#endif
