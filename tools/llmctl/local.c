// SPDX-License-Identifier: MIT
/* A conversation with a model in this process (local.h). Owns the engine and one session of it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "ctl.h"
#include "llmdevd/answer.h"
#include "llmdevd/conversation.h"
#include "local.h"
#include "print.h"

struct local {
	struct engine *en;
	struct session *session;
	struct conversation conv;
	bool quiet;
	json_t *vars; /* that all is rendered with; NULL: none */
	/* the running answer */
	struct ids ids;
	struct answer answer;
	struct print print;
	bool done, failed;
	enum engine_finish finish;
};

struct local *local_open(const struct engine_opts *o, const struct ctl_session_opts *so)
{
	struct local *l = calloc(1, sizeof(*l));
	struct err e;
	int rc;

	if (!l) {
		ctl_fail("chat: no memory");
		return NULL;
	}
	l->quiet = so->quiet;
	l->print.thinking = so->show_thinking;
	if (so->think >= 0)
		l->vars =
			json_pack("{s:b,s:b}", "enable_thinking", so->think, "thinking", so->think);
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
	conversation_init(&l->conv, engine_tokenizer(l->en), engine_chat(l->en));
	return l;
}

void local_close(struct local *l)
{
	if (!l)
		return;
	conversation_free(&l->conv);
	ids_free(&l->ids);
	answer_close(&l->answer);
	json_decref(l->vars);
	if (l->session)
		engine_session_close(l->session);
	engine_close(l->en);
	free(l);
}

static int on_piece(void *ctx, const struct output_piece *p)
{
	struct local *l = ctx;
	int rc = 0;
	char *text;

	switch (p->kind) {
	case OUTPUT_CONTENT:
		rc = print_text(&l->print, p->text, p->len);
		break;
	case OUTPUT_REASONING:
		rc = print_thinking(&l->print, p->text, p->len);
		break;
	case OUTPUT_CALL:
		text = strndup(p->text, p->len);
		rc = text ? print_call(&l->print, p->name, text) : 1;
		free(text);
		break;
	case OUTPUT_MALFORMED:
		if (!l->quiet)
			fprintf(stderr, "[%.*s]\n", (int)p->len, p->text);
		break;
	}
	return rc ? -EIO : 0;
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
		/* An answer that cannot be remembered or shown is cut short. */
		if (ids_push(&l->ids, ev->id) ||
		    answer_push(&l->answer, ev->text, ev->text_len, on_piece, l))
			engine_cancel(r);
		break;
	case ENGINE_DONE:
		answer_push(&l->answer, ev->text, ev->text_len, on_piece, l);
		answer_end(&l->answer, on_piece, l);
		print_end(&l->print);
		if (!l->quiet)
			print_figures(l, ev);
		l->finish = ev->finish;
		l->done = true;
		break;
	case ENGINE_ERROR:
		print_end(&l->print);
		ctl_fail("%s", ev->message);
		l->done = l->failed = true;
		break;
	default:
		break;
	}
}

static int make_prompt(struct local *l, const char *text, size_t len, struct conversation_prompt *p,
		       struct err *e)
{
	int64_t now = (int64_t)time(NULL);
	struct chat_request r = {.vars = l->vars, .now = now};
	json_t *messages;
	int rc;

	/* What the first turn says of thinking holds for all. */
	if (!l->vars || l->conv.messages)
		return conversation_turn(&l->conv, text, len, now, p, e);
	messages = json_pack("[{s:s,s:s%}]", "role", "user", "content", text, len);
	if (!messages)
		return err_set(e, -EINVAL, "turn: not UTF-8: send text");
	r.messages = messages;
	rc = conversation_start(&l->conv, &r, p, e);
	json_decref(messages);
	return rc;
}

static int open_answer(struct local *l, const struct conversation_prompt *p,
		       struct request_params *rp, struct err *e)
{
	struct output_opts o = {
		.format = chat_output(engine_chat(l->en)),
		.reasoning_open = p->chat.reasoning_open,
		.thinking = p->chat.thinking,
		.ends_are_text = true,
		.call_seed = rp->sampling.seed,
	};

	rp->special_text =
		o.format.reasoning != OUTPUT_REASONING_NONE || o.format.tools != OUTPUT_TOOLS_NONE;
	answer_close(&l->answer);
	return answer_open(&l->answer, rp->special_text ? &o : NULL, true, e);
}

static int remember(struct local *l, struct conversation_prompt *p, struct err *e)
{
	json_t *message = l->conv.chat ? answer_message(&l->answer) : NULL;

	if ((l->conv.chat && !message) ||
	    conversation_commit(&l->conv, p, l->ids.v, l->ids.n, message))
		return err_set(e, -ENOMEM, "conversation: no memory to keep it");
	return 0;
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
	struct conversation_prompt prompt = {0};
	struct request *r;
	struct err e;
	int rc;

	l->ids.n = 0;
	l->done = l->failed = false;
	l->print.newline = true;
	sampling_default(&p.sampling, l->en);
	if (getrandom(&p.sampling.seed, sizeof(p.sampling.seed), 0) < 0)
		p.sampling.seed = ctl_now_ns();
	rc = make_prompt(l, text, len, &prompt, &e);
	p.prompt = prompt.ids.v;
	p.n_prompt = prompt.ids.n;
	p.n_history = prompt.n_history;
	p.generated = l->conv.generated;
	if (!rc)
		rc = open_answer(l, &prompt, &p, &e);
	if (!rc)
		rc = engine_submit(l->en, &p, &r, &e);
	while (!rc && !l->done) {
		if (ctl_sigint())
			engine_cancel(r);
		rc = engine_step(l->en, &e);
		rc = rc > 0 ? 0 : rc;
	}
	if (!rc && !l->failed)
		rc = remember(l, &prompt, &e);
	conversation_prompt_free(&prompt);
	if (rc)
		return ctl_fail("%s", e.msg);
	return l->failed ? 1 : l->finish == FINISH_CANCELLED ? 130 : 0;
}
