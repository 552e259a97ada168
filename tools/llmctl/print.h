/* SPDX-License-Identifier: MIT */
/*
 * An answer on the terminal as it comes: content as it is, reasoning dim and set apart, calls of
 * tools as one line each.
 */
#ifndef LLMCTL_PRINT_H
#define LLMCTL_PRINT_H

#include <stdbool.h>
#include <stddef.h>

struct print {
	bool thinking;                  /* show it */
	bool newline;                   /* stdout is at the beginning of a line */
	bool in_thinking, dim;
};

/* Each returns 0, or 1 with the message printed: stdout failed. */
int print_text(struct print *p, const char *s, size_t n);
int print_thinking(struct print *p, const char *s, size_t n);
int print_call(struct print *p, const char *name, const char *arguments);
/* The answer is over: to the beginning of a line. */
int print_end(struct print *p);

#endif
