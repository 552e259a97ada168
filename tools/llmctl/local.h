/* SPDX-License-Identifier: MIT */
/*
 * A conversation with a model in this process: the engine driven directly, no daemon. The answer
 * goes to stdout as it comes, figures to stderr, Ctrl-C cancels the answer.
 */
#ifndef LLMCTL_LOCAL_H
#define LLMCTL_LOCAL_H

#include "engine/engine.h"
#include "session.h"

struct local;

/* NULL: it failed and the message is printed. */
struct local *local_open(const struct engine_opts *o, const struct ctl_session_opts *s);
void local_close(struct local *l);
/* One turn; max_tokens 0: as many as the context holds. Returns an exit status, 130 after Ctrl-C. */
int local_ask(struct local *l, const char *text, size_t len, int max_tokens);

#endif
