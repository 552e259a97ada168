/* SPDX-License-Identifier: MIT */
/*
 * What is wrong with an option that getopt_long() refused.
 *
 * glibc tells by `optopt`: 0 for a long option that is unknown or ambiguous, otherwise the option's
 * value: it lacks its argument, or was given one it does not take. For a short one it is the letter in
 * either case. No entry of the table may have the value 0.
 */
#ifndef LLMDEV_OPTION_H
#define LLMDEV_OPTION_H

#include <getopt.h>
#include <string.h>

/* For "NAME: %s"; `arg` is the argument that was refused, argv[optind - 1]. */
static inline const char *option_fault(const char *arg)
{
	if (strncmp(arg, "--", 2))
		return "unknown option or missing value";
	if (!optopt)
		return "unknown or ambiguous option";
	return strchr(arg, '=') ? "takes no value" : "needs a value";
}

#endif
