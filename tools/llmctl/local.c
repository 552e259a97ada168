// SPDX-License-Identifier: MIT
/* A conversation with a model in this process (local.h). Owns the engine and one session of it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "ctl.h"
#include "llmdevd/conversation.h"
#include "local.h"

struct local {
	struct engine *en;
	struct session *session;
	struct conversation conv;
	bool quiet;
	/* the running answer */
	struct ids answer;
	bool done, failed, newline;
	enum engine_finish finish;
};

struct local *local_open(const struct engine_opts *o, bool quiet)
{
	struct local *l = calloc(1, sizeof(*l));
	struct err e;
	int rc;

	if (!l) {
		ctl_fail("chat: no memory");
		return NULL;
	}
	l->quiet = quiet;
	rc = engine_open(&l->en, o, &e);
	ctl_progress_end();
	if (!rc)
		rc = engine_session_open(l->en, &l->session, &e);
	if (!rc && !engine_tokenizer(l->en))
		rc = err_set(&e, -EOPNOTSUPP, "%s: it has no tokenizer: use llmctl run --tokens",
			     o->model);
	if (rc) {
		ctl_fail("%s", e.msg);
		local_close(l);
		return NULL;
	}
	conversation_init(&l->conv, engine_tokenizer(l->en), engine_chat_format(l->en));
	return l;
}

void local_close(struct local *l)
{
	if (!l)
		return;
	conversation_free(&l->conv);
	ids_free(&l->answer);
	if (l->session)
		engine_session_close(l->session);
	engine_close(l->en);
	free(l);
}

static void print_text(struct local *l, const struct engine_event *ev)
{
	if (!ev->text_len)
		return;
	fwrite(ev->text, 1, ev->text_len, stdout);
	fflush(stdout);
	l->newline = ev->text[ev->text_len - 1] == '\n';
}

static void print_figures(const struct local *l, const struct engine_event *ev)
{
	double decode = (double)(ev->ns_end - ev->ns_first) / 1e9;

	fprintf(stderr, "[%d prompt tokens", ev->prompt_tokens);
	if (ev->cached_tokens)
		fprintf(stderr, " (%d cached)", ev->cached_tokens);
	fprintf(stderr, ", %d generated", ev->completion_tokens);
	if (ev->completion_tokens > 1 && decode > 0)
		fprintf(stderr, ", %.1f tokens/s", (ev->completion_tokens - 1) / decode);
	if (ev->ns_first)
		fprintf(stderr, ", first after %.0f ms",
			(double)(ev->ns_first - ev->ns_submit) / 1e6);
	fputs(ev->finish == FINISH_LENGTH      ? ", ended by length]\n"
	      : ev->finish == FINISH_CANCELLED ? ", cancelled]\n"
					       : "]\n",
	      stderr);
}

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct local *l = ctx;

	switch (ev->kind) {
	case ENGINE_TOKEN:
		if (ids_push(&l->answer, ev->id))
			engine_cancel(r); /* an answer that cannot be remembered is cut short */
		print_text(l, ev);
		break;
	case ENGINE_DONE:
		print_text(l, ev);
		if (!l->newline)
			putchar('\n');
		fflush(stdout);
		if (!l->quiet)
			print_figures(l, ev);
		l->finish = ev->finish;
		l->done = true;
		break;
	case ENGINE_ERROR:
		if (!l->newline)
			putchar('\n');
		ctl_fail("%s", ev->message);
		l->done = l->failed = true;
		break;
	default:
		break;
	}
}

int local_ask(struct local *l, const char *text, size_t len, int max_tokens)
{
	struct request_params p = {
		.session = l->session,
		.max_tokens = max_tokens,
		.n_logprobs = -1,
		.on_event = on_event,
		.ctx = l,
	};
	struct ids prompt = {0};
	struct request *r;
	struct err e;
	int rc;

	l->answer.n = 0;
	l->done = l->failed = false;
	l->newline = true;
	sampling_default(&p.sampling, l->en);
	if (getrandom(&p.sampling.seed, sizeof(p.sampling.seed), 0) < 0)
		p.sampling.seed = ctl_now_ns();
	rc = conversation_turn(&l->conv, text, len, &prompt, &e);
	p.prompt = prompt.v;
	p.n_prompt = prompt.n;
	p.n_history = l->conv.ids.n;
	p.generated = l->conv.generated;
	if (!rc)
		rc = engine_submit(l->en, &p, &r, &e);
	while (!rc && !l->done) {
		if (ctl_sigint())
			engine_cancel(r);
		rc = engine_step(l->en, &e);
		rc = rc > 0 ? 0 : rc;
	}
	if (!rc && !l->failed && conversation_commit(&l->conv, &prompt, l->answer.v, l->answer.n))
		rc = err_set(&e, -ENOMEM, "conversation: no memory to keep it");
	ids_free(&prompt);
	if (rc)
		return ctl_fail("%s", e.msg);
	return l->failed ? 1 : l->finish == FINISH_CANCELLED ? 130 : 0;
}
