// SPDX-License-Identifier: MIT
/*
 * llmctl run: one generation in this process, no daemon. Raw text, no template. The text goes to
 * stdout as it comes, everything else to stderr.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "tools/llmctl/ctl.h"
#include "tools/llmctl/id_list.h"

static const char usage[] =
	"run MODEL [-p TEXT | --tokens 1,2,3] [-n N] [--temp T] [--top-p P] [--top-k K]\n"
	"           [--min-p M] [--seed S] [--ids] [--ignore-eos] " CTL_COMMON_USAGE;

struct run_args {
	struct engine_opts engine;
	const char *text;
	struct ids tokens;
	bool has_tokens, ids_out, ignore_eos, has_seed;
	int n;
	double temp, top_p, min_p; /* < 0: the checkpoint's */
	long long top_k; /* < 0: the checkpoint's */
	uint64_t seed;
};

struct run {
	const struct run_args *args;
	struct engine_event done;
	char message[256]; /* of an error event */
	bool ended, failed, out_failed;
	int n_ids;
};

enum { OPT_TOKENS = 1, OPT_TEMP, OPT_TOP_P, OPT_TOP_K, OPT_MIN_P, OPT_SEED, OPT_IDS, OPT_EOS };

static int parse_option(struct run_args *a, int opt)
{
	long long v;
	struct err e;

	switch (opt) {
	case 'p':
		a->text = optarg;
		return 0;
	case 'n':
		if (!ctl_int("-n", optarg, 1, INT32_MAX, &v))
			return 2;
		a->n = (int)v;
		return 0;
	case OPT_TOKENS:
		if (id_list_parse(optarg, &a->tokens, &e))
			return ctl_usage(usage, "--tokens: %s", e.msg);
		a->has_tokens = true;
		return 0;
	case OPT_TEMP:
		return ctl_double("--temp", optarg, 0, 100, &a->temp) ? 0 : 2;
	case OPT_TOP_P:
		return ctl_double("--top-p", optarg, 0, 1, &a->top_p) ? 0 : 2;
	case OPT_MIN_P:
		return ctl_double("--min-p", optarg, 0, 1, &a->min_p) ? 0 : 2;
	case OPT_TOP_K:
		return ctl_int("--top-k", optarg, 0, INT32_MAX, &a->top_k) ? 0 : 2;
	case OPT_SEED:
		if (!ctl_int("--seed", optarg, 0, INT64_MAX, &v))
			return 2;
		a->seed = (uint64_t)v;
		a->has_seed = true;
		return 0;
	case OPT_IDS:
		a->ids_out = true;
		return 0;
	case OPT_EOS:
		a->ignore_eos = true;
		return 0;
	default:
		switch (ctl_common_option(opt, optarg, &a->engine)) {
		case 1:
			return 0;
		case 0:
			return -1;
		default:
			return 2;
		}
	}
}

static int parse(struct run_args *a, int argc, char **argv)
{
	static const struct option options[] = {
		{"prompt", required_argument, NULL, 'p'},
		{"tokens", required_argument, NULL, OPT_TOKENS},
		{"temp", required_argument, NULL, OPT_TEMP},
		{"top-p", required_argument, NULL, OPT_TOP_P},
		{"top-k", required_argument, NULL, OPT_TOP_K},
		{"min-p", required_argument, NULL, OPT_MIN_P},
		{"seed", required_argument, NULL, OPT_SEED},
		{"ids", no_argument, NULL, OPT_IDS},
		{"ignore-eos", no_argument, NULL, OPT_EOS},
		CTL_COMMON_OPTIONS,
		{NULL, 0, NULL, 0},
	};
	int opt, rc;

	ctl_common_defaults(&a->engine);
	a->engine.max_seqs = 1;
	a->temp = a->top_p = a->min_p = a->top_k = -1;
	opterr = 0;
	while ((opt = getopt_long(argc, argv, "p:n:", options, NULL)) != -1) {
		rc = parse_option(a, opt);
		if (rc)
			return rc < 0 ? ctl_bad_option(usage, argv) : rc;
	}
	if (argc - optind != 1)
		return ctl_usage(usage, "%s",
				 optind == argc ? "no model given" : "more than one model given");
	if (a->has_tokens == (a->text != NULL))
		return ctl_usage(usage, "give either -p TEXT or --tokens LIST");
	a->engine.model = argv[optind];
	return 0;
}

static void put(struct run *r, const char *text, size_t len)
{
	if (len && fwrite(text, 1, len, stdout) != len)
		r->out_failed = true;
	if (fflush(stdout))
		r->out_failed = true;
}

static void on_event(void *ctx, struct request *req, const struct engine_event *ev)
{
	struct run *r = ctx;
	char id[16];

	switch (ev->kind) {
	case ENGINE_TOKEN:
		if (r->args->ids_out)
			put(r, id, snprintf(id, sizeof(id), "%s%d", r->n_ids++ ? "," : "", ev->id));
		else
			put(r, ev->text, ev->text_len);
		break;
	case ENGINE_ERROR:
		snprintf(r->message, sizeof(r->message), "%s", ev->message);
		r->failed = r->ended = true;
		break;
	case ENGINE_DONE:
		if (!r->args->ids_out)
			put(r, ev->text, ev->text_len);
		r->done = *ev;
		r->ended = true;
		break;
	default:
		break;
	}
	if (r->out_failed || ctl_sigint())
		engine_cancel(req);
}

/* The prompt's ids: given, or the text's with BOS where the tokenizer adds it. */
static int make_prompt(const struct engine *en, struct run_args *a)
{
	const struct tokenizer *t = engine_tokenizer(en);
	struct err e;

	if (a->has_tokens)
		return 0;
	if (!t)
		return ctl_fail("%s: has no tokenizer: use --tokens", a->engine.model);
	if (tokenizer_encode(t, a->text, strlen(a->text), TOK_SPECIAL | TOK_BOS, &a->tokens, &e))
		return ctl_fail("%s", e.msg);
	if (!a->tokens.n && tokenizer_bos(t) >= 0 && ids_push(&a->tokens, tokenizer_bos(t)))
		return ctl_fail("prompt: out of memory: shorten it");
	if (!a->tokens.n)
		return ctl_fail("prompt: empty, and the model has no BOS token: give some text");
	return 0;
}

static void set_sampling(const struct engine *en, const struct run_args *a, struct sampling *s)
{
	sampling_default(s, en);
	if (a->temp >= 0)
		s->temperature = (float)a->temp;
	if (a->top_p >= 0)
		s->top_p = (float)a->top_p;
	if (a->min_p >= 0)
		s->min_p = (float)a->min_p;
	if (a->top_k >= 0)
		s->top_k = (int)a->top_k;
	s->ignore_eos = a->ignore_eos;
	s->seed = a->seed;
	if (!a->has_seed && s->temperature > 0) {
		uint32_t seed;

		if (getrandom(&seed, sizeof(seed), 0) == sizeof(seed))
			s->seed = seed;
		fprintf(stderr, "seed %llu\n", (unsigned long long)s->seed);
	}
}

static double rate(int n, uint64_t from, uint64_t to)
{
	return to > from ? n * 1e9 / (double)(to - from) : 0;
}

static void print_summary(const struct engine *en, const struct run *r)
{
	static const char *const why[] = {"stop", "length", "cancelled"};
	const struct engine_event *d = &r->done;
	const struct engine_info *i = engine_info(en);
	uint64_t first = d->ns_first ? d->ns_first : d->ns_end;

	fprintf(stderr,
		"%s, %s (%s): prompt %d tokens in %.2f s (%.1f/s), generated %d (%.1f/s), %s\n",
		i->model, i->backend, i->detail, d->prompt_tokens, (first - d->ns_start) / 1e9,
		rate(d->prompt_tokens, d->ns_start, first), d->completion_tokens,
		rate(d->completion_tokens - 1, first, d->ns_end), why[d->finish]);
}

static int generate(struct engine *en, struct run_args *a)
{
	struct run r = {.args = a};
	struct request_params p = {
		.on_event = on_event, .ctx = &r, .max_tokens = a->n, .n_logprobs = -1};
	struct err e;
	int rc = make_prompt(en, a);

	if (rc)
		return rc;
	p.prompt = a->tokens.v;
	p.n_prompt = a->tokens.n;
	set_sampling(en, a, &p.sampling);
	if (engine_submit(en, &p, NULL, &e))
		return ctl_fail("%s", e.msg);
	while (!r.ended)
		if (engine_step(en, &e) < 0)
			return ctl_fail("%s", e.msg);
	if (!r.failed && !r.out_failed && (a->ids_out || isatty(STDOUT_FILENO)))
		put(&r, "\n", 1);
	if (r.failed)
		return ctl_fail("%s", r.message);
	if (r.out_failed)
		return ctl_fail("stdout: %s: where it goes was closed or is full", strerror(errno));
	print_summary(en, &r);
	return r.done.finish == FINISH_CANCELLED ? 130 : 0;
}

int cmd_run(int argc, char **argv)
{
	struct run_args a = {0};
	struct engine *en = NULL;
	struct err e;
	int rc = parse(&a, argc, argv);

	if (!rc) {
		ctl_catch_sigint();
		rc = engine_open(&en, &a.engine, &e) ? 1 : 0;
		ctl_progress_end();
		if (rc)
			rc = ctl_fail("%s", e.msg);
	}
	if (!rc)
		rc = generate(en, &a);
	engine_close(en);
	ids_free(&a.tokens);
	return rc;
}
