/* SPDX-License-Identifier: MIT */
/*
 * Chat templates: the subset of Jinja that checkpoints use, rendered as transformers renders it
 * (jinja2 with trim_blocks, lstrip_blocks and loop controls; tojson without ASCII escapes and HTML
 * quoting; raise_exception, strftime_now).
 *
 * A compiled template is immutable: several threads may render it at once. A render owns an arena
 * that is gone with it; steps, depth and bytes are bounded, so that a hostile template ends in an
 * error. Nothing is read or written but the arguments.
 *
 * Taint: every byte of the output remembers whether it came from `vars` (a user may have typed it)
 * or from the template and `trusted`. The tokenizer makes special tokens of untainted text only.
 * The value of a member "role" is untainted where it is one of the protocol's roles (system,
 * developer, user, assistant, tool): templates build special tokens of it.
 */
#ifndef LLMDEV_TEXT_TEMPLATE_H
#define LLMDEV_TEXT_TEMPLATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct tmpl;

struct tmpl_limits {
	uint64_t steps;      /* statements, expressions, items, 16 bytes of text; 0: 50 million */
	uint64_t memory;     /* bytes of the arena, in which the output grows; 0: 256 MiB */
	int depth;           /* of calls, nested expressions and statements, data; 0: 1200 */
};

/* `source` is copied; UTF-8. -EINVAL: "line N: what: ..."; -E2BIG; -ENOMEM. */
int tmpl_compile(struct tmpl **out, const char *source, size_t len, struct err *e);
void tmpl_free(struct tmpl *t);

/* Bytes [end of the one before, end) of the output are `user` text, or not. */
struct tmpl_span {
	size_t end;
	bool user;
};

struct tmpl_output {
	char *text;          /* malloc'ed, NUL-terminated */
	size_t len;
	struct tmpl_span *span; /* malloc'ed; ascending, of alternating kind, the last ends at len */
	size_t n_spans;
};
void tmpl_output_free(struct tmpl_output *o);

/*
 * vars: an object of template variables (messages, tools, add_generation_prompt, enable_thinking,
 * ...), tainted. trusted: another (bos_token, eos_token, ...), may be NULL; it wins over vars.
 * `now`: what strftime_now() tells, seconds since 1970, rendered in UTC.
 * `raised` (may be NULL): set if the template itself refused by raise_exception; e->msg is then
 * exactly its own message. -EINVAL: that, or an error of the template's ("line N: ...");
 * -E2BIG: a limit was met; -ENOMEM. On failure *out is empty.
 */
int tmpl_render(const struct tmpl *t, const json_t *vars, const json_t *trusted, int64_t now,
		const struct tmpl_limits *limits, struct tmpl_output *out, bool *raised,
		struct err *e);
/* Whether the template calls strftime_now: its output depends on the day. */
bool tmpl_uses_date(const struct tmpl *t);
/* Whether it ever looks up a variable or attribute of this name ("enable_thinking", "tools"). */
bool tmpl_mentions(const struct tmpl *t, const char *name);

#endif
