// SPDX-License-Identifier: MIT
/*
 * llmctl bench load|decode|prefill: one figure, measured in this process.
 *
 *   decode   32 tokens from an empty context: one forward pass each, sampling included
 *   prefill  a prompt of 128 tokens, to its first generated token
 *   load     the weights from the files to their place; beside it fio on the same files
 *
 * One run warms up, then --runs are timed; the result is their median. `bench serve` and
 * `bench memory` are commands of their own (cmd_bench_serve.c, cmd_bench_memory.c).
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl.h"
#include "model/resolve.h"

#define USAGE                                                                                      \
	"bench load|decode|prefill MODEL [--json] [--runs N] [-n TOKENS] "                         \
	"[--no-fio] " CTL_COMMON_USAGE "\n"                                                        \
	"       llmctl bench memory ...: read bandwidth by kind of memory\n"                       \
	"       llmctl bench serve ...: many requests to a running server; see `llmctl bench "     \
	"serve --help`"

#define MAX_RUNS    100
#define FIO_BLOCK   "1M"
#define FIO_DEPTH   "64"
#define FIO_OUT_MAX (1 << 20)

enum { OPT_JSON = 1, OPT_RUNS, OPT_NO_FIO };

struct bench {
	enum { BENCH_LOAD, BENCH_DECODE, BENCH_PREFILL } kind;
	struct engine_opts opts;
	bool json, fio;
	int n_runs, n_tokens;
	/* results */
	double run[MAX_RUNS], fio_run[MAX_RUNS], open_s[MAX_RUNS];
	int n_fio;
	uint64_t bytes_read;
};

static const char *const kind_names[] = {"load", "decode", "prefill"};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *v, int n)
{
	double s[MAX_RUNS];

	memcpy(s, v, (size_t)n * sizeof(*s));
	qsort(s, (size_t)n, sizeof(*s), by_value);
	return n % 2 ? s[n / 2] : (s[n / 2 - 1] + s[n / 2]) / 2;
}

/* ---- decode and prefill --------------------------------------------------------------------- */

struct progress {
	int tokens, cached;
	bool failed;
	char message[256];
};

static void on_event(void *ctx, struct request *r, const struct engine_event *ev)
{
	struct progress *p = ctx;

	if (ev->kind == ENGINE_TOKEN)
		p->tokens++;
	if (ev->kind == ENGINE_DONE)
		p->cached = ev->cached_tokens;
	if (ev->kind == ENGINE_ERROR) {
		p->failed = true;
		snprintf(p->message, sizeof(p->message), "%s", ev->message);
	}
}

/*
 * One generation, timed from before its submission to its end. *steps: forward passes. `run` makes
 * the prompt another one each time: the engine would not compute one again that it has seen.
 */
static int generate(struct engine *en, int run, int n_prompt, int n_tokens, double *seconds,
		    int *steps, struct err *e)
{
	int vocab = engine_info(en)->vocab, rc;
	int32_t *prompt = calloc((size_t)n_prompt, sizeof(*prompt));
	struct progress p = {0};
	struct request_params rp = {.prompt = prompt,
				    .n_prompt = (size_t)n_prompt,
				    .max_tokens = n_tokens,
				    .n_logprobs = -1,
				    .on_event = on_event,
				    .ctx = &p};
	struct request *r;
	uint64_t start;

	if (!prompt)
		return err_set(e, -ENOMEM, "bench: out of memory for the prompt");
	for (int i = 0; i < n_prompt; i++)
		prompt[i] = (int32_t)((uint64_t)(i + 1 + run) * 7919u % (uint64_t)vocab);
	sampling_default(&rp.sampling, en);
	rp.sampling.temperature = 0;
	rp.sampling.ignore_eos = true;
	*steps = 0;
	start = ctl_now_ns();
	rc = engine_submit(en, &rp, &r, e);
	while (!rc) {
		rc = engine_step(en, e);
		if (rc <= 0)
			break;
		++*steps;
		if (ctl_sigint()) {
			engine_cancel(r);
			ctl_sigint_clear();
			p.failed = true;
			snprintf(p.message, sizeof(p.message), "interrupted");
		}
		rc = 0;
	}
	*seconds = (double)(ctl_now_ns() - start) * 1e-9;
	++*steps;
	free(prompt);
	if (rc)
		return rc;
	if (p.failed || p.tokens != n_tokens || p.cached)
		return err_set(e, -EIO, "bench: %s",
			       p.failed	  ? p.message
			       : p.cached ? "a part of the prompt came from the prefix cache"
					  : "the generation ended early");
	return 0;
}

/* What a decode of n tokens reads: the weights every time, and the KV written so far. */
static uint64_t decode_bytes(const struct engine_info *info, int n)
{
	return info->bytes_per_token * (uint64_t)n +
	       info->kv_bytes_per_token * ((uint64_t)n * (uint64_t)(n - 1) / 2);
}

static int bench_generate(struct bench *b, struct engine *en, struct err *e)
{
	bool decode = b->kind == BENCH_DECODE;
	const struct engine_info *info = engine_info(en);
	int rc = 0, steps = 0;

	for (int i = -1; !rc && i < b->n_runs; i++) {
		double seconds = 0;

		rc = generate(en, i + 1, decode ? 1 : b->n_tokens, decode ? b->n_tokens : 1,
			      &seconds, &steps, e);
		if (!rc && i >= 0)
			b->run[i] = b->n_tokens / seconds;
	}
	b->bytes_read =
		decode ? decode_bytes(info, b->n_tokens) : info->bytes_per_token * (uint64_t)steps;
	return rc;
}

/* ---- load ----------------------------------------------------------------------------------- */

/* "a:b", as fio wants several files; colons of the names are escaped. */
static char *fio_files(const struct checkpoint *c)
{
	size_t cap = 1, n = 0;
	char *s;

	for (int i = 0; i < checkpoint_n_files(c); i++)
		cap += 2 * strlen(checkpoint_file(c, i)) + 1;
	s = calloc(cap, 1);
	for (int i = 0; s && i < checkpoint_n_files(c); i++) {
		if (i)
			s[n++] = ':';
		for (const char *p = checkpoint_file(c, i); *p; p++) {
			if (*p == ':' || *p == '\\')
				s[n++] = '\\';
			s[n++] = *p;
		}
	}
	return s;
}

/* Runs fio and returns its stdout (malloc'ed), NULL if it is not installed or fails. */
static char *fio_output(const char *files)
{
	char *name, *out = calloc(1, FIO_OUT_MAX);
	char *argv[] = {"fio",
			"--name=llmdev",
			"--rw=read",
			"--direct=1",
			"--ioengine=io_uring",
			"--bs=" FIO_BLOCK,
			"--iodepth=" FIO_DEPTH,
			"--readonly",
			"--file_service_type=sequential",
			"--output-format=json",
			NULL,
			NULL};
	posix_spawn_file_actions_t fa;
	int fd[2], status = 1;
	size_t n = 0;
	ssize_t got;
	pid_t pid;

	if (!out || asprintf(&name, "--filename=%s", files) < 0) {
		free(out);
		return NULL;
	}
	argv[sizeof(argv) / sizeof(argv[0]) - 2] = name;
	if (pipe(fd)) {
		free(name);
		free(out);
		return NULL;
	}
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, fd[1], 1);
	posix_spawn_file_actions_addclose(&fa, fd[0]);
	posix_spawn_file_actions_addclose(&fa, fd[1]);
	posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", 1, 0);
	if (posix_spawnp(&pid, "fio", &fa, NULL, argv, environ))
		pid = -1;
	close(fd[1]);
	while (pid > 0 && n + 1 < FIO_OUT_MAX &&
	       ((got = read(fd[0], out + n, FIO_OUT_MAX - 1 - n)) > 0 ||
		(got < 0 && errno == EINTR)))
		n += got > 0 ? (size_t)got : 0;
	close(fd[0]);
	posix_spawn_file_actions_destroy(&fa);
	if (pid > 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	free(name);
	if (status) {
		free(out);
		return NULL;
	}
	return out;
}

/* fio's bytes per second over the checkpoint's files, 0 if it cannot be had. */
static double fio_measure(const struct checkpoint *c)
{
	char *files = fio_files(c), *out = files ? fio_output(files) : NULL, *start;
	double bw = 0;
	json_t *j;

	/* Warnings may stand before the object. */
	start = out ? strchr(out, '{') : NULL;
	j = start ? json_loads(start, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
	if (j)
		bw = json_number_value(json_object_get(
			json_object_get(json_array_get(json_object_get(j, "jobs"), 0), "read"),
			"bw_bytes"));
	json_decref(j);
	free(out);
	free(files);
	return bw;
}

static void measure_fio(struct bench *b, const struct engine *en)
{
	double rate = b->fio ? fio_measure(engine_checkpoint(en)) : 0;

	if (rate > 0)
		b->fio_run[b->n_fio++] = rate;
	else
		b->fio = false; /* not again */
}

/*
 * Opens the engine anew for each run; the last one stays open for the report. Load and fio in turn
 * go first, since disks save up bursts that only the first of them gets.
 */
static int bench_load(struct bench *b, struct engine **en, struct err *e)
{
	int rc = 0;

	for (int i = -1; !rc && i < b->n_runs; i++) {
		uint64_t start;

		if (i >= 0 && i % 2)
			measure_fio(b, *en);
		engine_close(*en);
		*en = NULL;
		if (ctl_sigint())
			return err_set(e, -EINTR, "bench: interrupted");
		start = ctl_now_ns();
		rc = engine_open(en, &b->opts, e);
		if (rc || i < 0)
			continue;
		b->open_s[i] = (double)(ctl_now_ns() - start) * 1e-9;
		b->bytes_read = engine_info(*en)->load.bytes_read;
		b->run[i] = (double)b->bytes_read / engine_info(*en)->load.seconds;
		if (i % 2 == 0)
			measure_fio(b, *en);
	}
	return rc;
}

/* ---- report --------------------------------------------------------------------------------- */

static json_t *numbers(const double *v, int n)
{
	json_t *a = json_array();

	for (int i = 0; i < n; i++)
		json_array_append_new(a, json_real(v[i]));
	return a;
}

static void report_json(const struct bench *b, const struct engine *en)
{
	const struct engine_info *info = engine_info(en);
	bool load = b->kind == BENCH_LOAD;
	double value = median(b->run, b->n_runs);
	json_t *j = json_pack("{ss ss ss ss sf sI so}", "bench", kind_names[b->kind], "model",
			      info->model, "backend", info->backend, "detail", info->detail,
			      load ? "bytes_per_s" : "tokens_per_s", value, "bytes_read",
			      (json_int_t)b->bytes_read, "runs", numbers(b->run, b->n_runs));

	json_object_set_new(j, "weight_bytes", json_integer((json_int_t)info->weight_bytes));
	if (!load) {
		json_object_set_new(j, "tokens", json_integer(b->n_tokens));
		json_object_set_new(j, "exact", json_boolean(b->opts.exact));
		json_object_set_new(j, "bytes_per_token",
				    json_integer((json_int_t)info->bytes_per_token));
		json_object_set_new(j, "kv_bytes_per_token",
				    json_integer((json_int_t)info->kv_bytes_per_token));
		json_object_set_new(j, "read_bytes_per_s",
				    json_real(value / b->n_tokens * (double)b->bytes_read));
	} else {
		json_object_set_new(j, "method", json_string(info->load.method));
		json_object_set_new(j, "open_s", json_real(median(b->open_s, b->n_runs)));
		if (b->n_fio) {
			double fio = median(b->fio_run, b->n_fio);

			json_object_set_new(j, "fio_bytes_per_s", json_real(fio));
			json_object_set_new(j, "fio_runs", numbers(b->fio_run, b->n_fio));
			json_object_set_new(j, "of_fio", json_real(value / fio));
		}
	}
	json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(j);
}

static void report_text(const struct bench *b, const struct engine *en)
{
	const struct engine_info *info = engine_info(en);
	double value = median(b->run, b->n_runs), low = b->run[0], high = b->run[0];
	double unit = b->kind == BENCH_LOAD ? 1e9 : 1;

	for (int i = 1; i < b->n_runs; i++) {
		low = b->run[i] < low ? b->run[i] : low;
		high = b->run[i] > high ? b->run[i] : high;
	}
	printf("%s: %.*f %s (median of %d, %.*f to %.*f)", kind_names[b->kind],
	       b->kind == BENCH_LOAD ? 2 : 1, value / unit,
	       b->kind == BENCH_LOAD ? "GB/s" : "tokens/s", b->n_runs,
	       b->kind == BENCH_LOAD ? 2 : 1, low / unit, b->kind == BENCH_LOAD ? 2 : 1,
	       high / unit);
	if (b->kind == BENCH_DECODE)
		printf(", %.1f GB/s read", value / b->n_tokens * (double)b->bytes_read / 1e9);
	if (b->kind == BENCH_LOAD)
		printf(", %.1f MB by %s, ready after %.2f s", (double)b->bytes_read / 1e6,
		       info->load.method, median(b->open_s, b->n_runs));
	printf("\n%s: %s\n", info->backend, info->detail);
	if (b->n_fio) {
		double fio = median(b->fio_run, b->n_fio);

		printf("fio: %.2f GB/s (io_uring, O_DIRECT, " FIO_BLOCK " x " FIO_DEPTH
		       "): load reaches %.0f %%\n",
		       fio / 1e9, 100 * value / fio);
	} else if (b->kind == BENCH_LOAD) {
		printf("fio: not measured (not installed, refused, or --no-fio)\n");
	}
}

static int parse(struct bench *b, int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, OPT_JSON},
		{"runs", required_argument, NULL, OPT_RUNS},
		{"no-fio", no_argument, NULL, OPT_NO_FIO},
		CTL_COMMON_OPTIONS,
		{NULL},
	};
	long long v;
	int opt;

	*b = (struct bench){.n_runs = 5, .fio = true};
	ctl_common_defaults(&b->opts);
	while ((opt = getopt_long(argc, argv, ":n:", options, NULL)) != -1) {
		switch (opt) {
		case OPT_JSON:
			b->json = true;
			break;
		case OPT_NO_FIO:
			b->fio = false;
			break;
		case OPT_RUNS:
			if (!ctl_int("--runs", optarg, 1, MAX_RUNS, &v))
				return 2;
			b->n_runs = (int)v;
			break;
		case 'n':
			if (!ctl_int("-n", optarg, 1, 1 << 20, &v))
				return 2;
			b->n_tokens = (int)v;
			break;
		default:
			switch (ctl_common_option(opt, optarg, &b->opts)) {
			case 0:
				return ctl_bad_option(USAGE, argv);
			case -1:
				return 2;
			}
		}
	}
	if (argc - optind != 2)
		return ctl_usage(USAGE, "bench: needs what to measure and a MODEL");
	for (b->kind = BENCH_LOAD; strcmp(argv[optind], kind_names[b->kind]); b->kind++)
		if (b->kind == BENCH_PREFILL)
			return ctl_usage(USAGE, "bench: \"%s\" is unknown", argv[optind]);
	b->opts.model = argv[optind + 1];
	if (!b->n_tokens)
		b->n_tokens = b->kind == BENCH_DECODE ? 32 : 128;
	/* Room for what is measured; a longer context would only cost memory. */
	if (!b->opts.ctx)
		b->opts.ctx = b->n_tokens + 1;
	b->opts.max_seqs = 1;
	return 0;
}

int cmd_bench(int argc, char **argv)
{
	char path[MODEL_PATH_MAX];
	struct engine *en = NULL;
	struct bench b;
	struct err e;
	int rc;

	if (argc > 1 && !strcmp(argv[1], "serve"))
		return cmd_bench_serve(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "memory"))
		return cmd_bench_memory(argc - 1, argv + 1);
	rc = parse(&b, argc, argv);
	if (rc)
		return rc;
	if (model_resolve(b.opts.model, path, &e))
		return ctl_fail("%s", e.msg);
	b.opts.model = path;
	ctl_catch_sigint();
	if (b.kind == BENCH_LOAD)
		rc = bench_load(&b, &en, &e);
	else if (!(rc = engine_open(&en, &b.opts, &e)))
		rc = bench_generate(&b, en, &e);
	ctl_progress_end();
	if (rc) {
		engine_close(en);
		return ctl_fail("%s", e.msg);
	}
	if (b.json)
		report_json(&b, en);
	else
		report_text(&b, en);
	engine_close(en);
	return 0;
}
