// SPDX-License-Identifier: MIT
/* A session with a running daemon (session.h). Owns the libllmdev handle. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl.h"
#include "llm.h"
#include "print.h"
#include "session.h"

#define STDIN_MAX (64u << 20)

struct ctl_session {
	struct llmdev *d;
	bool quiet;
	int think; /* as in the options; what the first turn says holds for all */
	bool asked;
	struct print print;
};

int ctl_session_option(struct ctl_session_opts *o, int opt, const char *arg)
{
	switch (opt) {
	case CTL_OPT_DEVICE:
	case CTL_OPT_SOCKET:
		o->path = arg;
		o->path_is_device = opt == CTL_OPT_DEVICE;
		return 1;
	case CTL_OPT_RECOVERY:
		return ctl_double("--recovery", arg, 0.001, 86400, &o->recovery_s) ? 1 : -1;
	case CTL_OPT_QUIET:
		o->quiet = true;
		return 1;
	case CTL_OPT_THINK:
	case CTL_OPT_NO_THINK:
		o->think = opt == CTL_OPT_THINK;
		return 1;
	case CTL_OPT_SHOW_THINKING:
		o->show_thinking = true;
		return 1;
	}
	return 0;
}

static void on_connection(void *ctx, int connected)
{
	const struct ctl_session *s = ctx;

	if (s->quiet)
		return;
	if (!s->print.newline && isatty(STDOUT_FILENO))
		fputc('\n', stderr);
	fprintf(stderr, connected ? "[connected again: the answer goes on]\n"
				  : "[the daemon is gone: waiting for another]\n");
}

struct ctl_session *ctl_session_open(const struct ctl_session_opts *o)
{
	struct ctl_session *s = calloc(1, sizeof(*s));
	struct llmdev_options lo = {
		.path = o->path,
		.recovery_ms = (int)(o->recovery_s * 1000),
		.on_connection = on_connection,
		.ctx = s,
	};
	struct stat st;
	char why[512];

	if (!s) {
		ctl_fail("session: no memory");
		return NULL;
	}
	if (o->path && !stat(o->path, &st) && S_ISCHR(st.st_mode) != o->path_is_device) {
		ctl_fail("%s: is %s: use %s", o->path, o->path_is_device ? "no device" : "a device",
			 o->path_is_device ? "--socket" : "--device");
		free(s);
		return NULL;
	}
	s->quiet = o->quiet;
	s->think = o->think;
	s->print.thinking = o->show_thinking;
	if (llmdev_open(&s->d, &lo, why, sizeof(why))) {
		ctl_fail("%s", why);
		free(s);
		return NULL;
	}
	return s;
}

void ctl_session_close(struct ctl_session *s)
{
	if (!s)
		return;
	llmdev_close(s->d);
	free(s);
}

const char *ctl_session_where(const struct ctl_session *s)
{
	return llmdev_where(s->d);
}

static void print_figures(const struct ctl_session *s, const struct llmdev_event *ev,
			  uint64_t asked_ns, uint64_t first_ns, unsigned recoveries)
{
	const struct llmdev_usage *u = &ev->usage;
	double decode = (double)(u->end_ns - u->first_ns) / 1e9;

	fprintf(stderr, "[%u prompt tokens", u->prompt_tokens);
	if (u->cached_tokens)
		fprintf(stderr, " (%u cached)", u->cached_tokens);
	fprintf(stderr, ", %u generated", u->completion_tokens);
	/* After a recovery the daemon's clock knows only the last part of the answer. */
	if (!recoveries && u->completion_tokens > 1 && decode > 0)
		fprintf(stderr, ", %.1f tokens/s", (u->completion_tokens - 1) / decode);
	if (first_ns)
		fprintf(stderr, ", first after %.0f ms", (double)(first_ns - asked_ns) / 1e6);
	if (recoveries)
		fprintf(stderr, ", continued %u time%s", recoveries, recoveries > 1 ? "s" : "");
	if (ev->finish == LLMDEV_LENGTH)
		fputs(", ended by length", stderr);
	else if (ev->finish == LLMDEV_CANCELLED)
		fputs(", cancelled", stderr);
	fprintf(stderr, ", %s]\n", llmdev_where(s->d));
}

/* A turn that says how to think is a conversation of one message; later turns continue it. */
static char *with_thinking(const char *text, size_t len, bool think)
{
	json_t *content = json_stringn(text, len), *o;
	char *out;

	if (!content) {
		ctl_fail("TEXT: not UTF-8");
		return NULL;
	}
	o = json_pack("{s:[{s:s,s:o}],s:{s:b,s:b}}", "messages", "role", "user", "content", content,
		      "chat_template_kwargs", "enable_thinking", think, "thinking", think);
	out = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (!out)
		ctl_fail("TEXT: no memory");
	return out;
}

static int submit(struct ctl_session *s, const char *text, size_t len, bool json,
		  const struct llmdev_request *r, uint64_t *id)
{
	struct llmdev_request with = *r;
	char *wrapped = NULL;
	int rc;

	with.reasoning = s->print.thinking;
	if (!json && s->think >= 0 && !s->asked) {
		wrapped = with_thinking(text, len, s->think);
		if (!wrapped)
			return 1;
		text = wrapped;
		len = strlen(wrapped);
		json = true;
	}
	rc = json ? llmdev_submit_json(s->d, text, len, &with, id)
		  : llmdev_submit_text(s->d, text, len, &with, id);
	free(wrapped);
	return rc ? ctl_fail("%s", llmdev_error(s->d)) : 0;
}

static int show_call(struct ctl_session *s, const struct llmdev_event *ev)
{
	json_t *call = json_loadb(ev->text, ev->text_len, 0, NULL);
	const json_t *f = json_object_get(call, "function");
	const char *name = json_string_value(json_object_get(f, "name"));
	const char *arguments = json_string_value(json_object_get(f, "arguments"));
	int rc = name && arguments ? print_call(&s->print, name, arguments) : 0;

	json_decref(call);
	return rc;
}

static int show_data(struct ctl_session *s, const struct llmdev_event *ev)
{
	switch (ev->subtype) {
	case LLM_DATA_REASONING:
		return print_thinking(&s->print, ev->text, ev->text_len);
	case LLM_DATA_TOOL_CALL:
		return show_call(s, ev);
	case LLM_DATA_MALFORMED:
		if (!s->quiet)
			fprintf(stderr, "[%.*s]\n", (int)ev->text_len, ev->text);
		return 0;
	case LLM_DATA_JSON:
		return print_text(&s->print, ev->text, ev->text_len);
	}
	return 0;
}

int ctl_session_ask(struct ctl_session *s, const char *text, size_t len, bool json,
		    const struct llmdev_request *r)
{
	uint64_t id, asked_ns = ctl_now_ns(), first_ns = 0;
	unsigned before = llmdev_recoveries(s->d);
	bool cancelled = false;
	struct llmdev_event ev;
	int rc;

	s->print.newline = true;
	if (submit(s, text, len, json, r, &id))
		return 1;
	s->asked = true;
	for (;;) {
		if (ctl_sigint() && !cancelled) {
			llmdev_cancel(s->d, id);
			cancelled = true;
		}
		rc = llmdev_next(s->d, &ev, -1);
		if (rc == -EINTR)
			continue;
		if (rc <= 0)
			return ctl_fail("%s", llmdev_error(s->d));
		if (!first_ns && ev.n_ids)
			first_ns = ctl_now_ns();
		switch (ev.kind) {
		case LLMDEV_TEXT:
			if (print_text(&s->print, ev.text, ev.text_len))
				return 1;
			break;
		case LLMDEV_DATA:
			if (show_data(s, &ev))
				return 1;
			break;
		case LLMDEV_DONE:
			if (print_end(&s->print))
				return 1;
			if (!s->quiet)
				print_figures(s, &ev, asked_ns, first_ns,
					      llmdev_recoveries(s->d) - before);
			return ev.finish == LLMDEV_CANCELLED ? 130 : 0;
		case LLMDEV_ERROR:
			print_end(&s->print);
			return ctl_fail("%.*s", (int)ev.text_len, ev.text);
		default:
			break;
		}
	}
}

char *ctl_read_stdin(size_t *len)
{
	size_t cap = 4096, n;
	char *buf = malloc(cap);

	*len = 0;
	while (buf && (n = fread(buf + *len, 1, cap - *len, stdin)) > 0) {
		char *p;

		*len += n;
		if (*len < cap)
			continue;
		if (cap >= STDIN_MAX) {
			free(buf);
			ctl_fail("stdin: more than %u bytes: ask less", STDIN_MAX);
			return NULL;
		}
		p = realloc(buf, cap *= 2);
		if (!p)
			free(buf);
		buf = p;
	}
	if (!buf || ferror(stdin)) {
		ctl_fail("stdin: %s", buf ? strerror(errno) : "no memory");
		free(buf);
		return NULL;
	}
	return buf;
}
