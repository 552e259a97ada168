/* SPDX-License-Identifier: MIT */
/*
 * The error buffer that every fallible call of the runtime fills.
 *
 * Convention: a fallible function returns 0 (or a non-negative value) on success and -errno on
 * failure; on failure, and only then, *e holds one line "what: why: what to do", without newline
 * and without a program name. The caller owns the buffer; functions never keep a pointer to it.
 * Passing NULL is allowed where the caller does not care.
 */
#ifndef LLMDEV_ERR_H
#define LLMDEV_ERR_H

#include <stddef.h>

struct err {
	char msg[512];
};

/* Format the message and return `code` (a negative errno), so that callers can
 * `return err_set(e, -EINVAL, ...)`. Control bytes and bad UTF-8 in the result are replaced by '?'.
 */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Replaces them in any text, in place: for what is shown on a terminal and was named by others. */
char *err_printable(char *text);

/* Put "prefix: " in front of the message already there; returns `code`. */
int err_prefix(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
