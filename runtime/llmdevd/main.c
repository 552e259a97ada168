// SPDX-License-Identifier: MIT
/*
 * llmdevd: one model, one device. Owns the process: options, signals, logging, readiness, and the
 * order of start and stop. The work is in serve.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/notify.h"
#include "base/option.h"
#include "base/size.h"
#include "engine/engine.h"
#include "engine/engine_options.h"
#include "lib/llmdev.h"
#include "llmdevd/options.h"
#include "llmdevd/serve.h"
#include "memory/policy.h"

#define MAX_BATCH     1024
#define DEFAULT_BATCH 32
#define NOTIFY_NS     200000000u /* between two words about loading */
#define TEMPLATE_MAX  (1 << 20)
#define OTHER_FILES   64 /* that are open beside the clients' */

struct options {
	struct engine_opts engine;
	struct server_opts server;
	char socket[LLMDEV_PATH_MAX];
	double drain_s;
	struct chat_opts chat;
	char *template;
};

static const char usage_text[] =
	"usage: llmdevd MODEL [--socket PATH] [--name NAME] [--device] [--batch N]\n"
	"               [--pace N] [--drain SECONDS] [--limits LIST] [--chat-template FILE]\n"
	"               [--pressure auto|off|FILE]\n"
	"               [--tool-parser NAME] [--reasoning-parser NAME] [--verbose]\n"
	"               " ENGINE_OPTIONS_USAGE_1 "\n"
	"               " ENGINE_OPTIONS_USAGE_2 "\n"
	"\n"
	"  MODEL            a directory (config.json and safetensors), a .gguf file, a cached "
	"name\n"
	"  --socket PATH    where clients connect\n"
	"  --name NAME      the device's name (llm0)\n"
	"  --device[=auto]  serve the kernel's device of that name, too (auto: if the module llm "
	"is\n"
	"                   loaded)\n"
	"  --batch N        requests that run at once (32); others wait\n"
	"  --pace N         at most N tokens a second for each request\n"
	"  --drain SECONDS  how long running answers may take after SIGTERM (5)\n"
	"  --limits LIST    name=value,... of: prompt (4M) bytes of one request; unfinished\n"
	"                   requests: requests (16) of a session, principal (64), uid (256) of\n"
	"                   one, waiting (1024) of all; queue (256M) bytes of those; sessions\n"
	"                   (256); events (256K) bytes held for a reader; park (60) seconds that\n"
	"                   it may leave them; transcript (16M) bytes of a conversation that a\n"
	"                   client may bring back\n"
	"  --pressure auto|off|FILE\n"
	"                   when memory is short, give up the prefix cache, idle conversations'\n"
	"                   KV, then the queue; FILE: a memory.pressure instead of the cgroup's\n"
	"                   or the machine's (auto)\n"
	"  --chat-template FILE\n"
	"                   use this template, not the checkpoint's\n"
	"  --tool-parser NAME, --reasoning-parser NAME\n"
	"                   how the model writes calls (hermes, qwen_xml, gemma4, llama3, "
	"mistral,\n"
	"                   harmony, none) and thinks (think, gemma4, harmony, mistral, none);\n"
	"                   otherwise the template tells\n"
	"  --verbose        log sessions and requests too\n";

/* ---- small helpers -------------------------------------------------------------------------------- */

static void log_line(void *ctx, const char *line)
{
	fprintf(stderr, "llmdevd: %s\n", line);
}

static int fail(const char *message)
{
	fprintf(stderr, "llmdevd: %s\n", message);
	return 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Create the directory of the default socket; one that the user named has to exist. */
static void make_parent(const char *path)
{
	char dir[LLMDEV_PATH_MAX];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return;
	*slash = '\0';
	mkdir(dir, 0755); /* what matters is whether the bind succeeds */
}

/* ---- options -------------------------------------------------------------------------------------- */

static bool parse_size(const char *s, uint64_t lo, uint64_t hi, uint64_t *out)
{
	return size_parse(s, out) && *out >= lo && *out <= hi;
}

static bool parse_seconds(const char *s, double *out)
{
	char *end;

	errno = 0;
	*out = strtod(s, &end);
	return !errno && end != s && !*end && *out >= 0 && *out <= 1e6;
}

static bool parse_count(const char *s, uint64_t max, int *out)
{
	uint64_t n;

	if (!s || !parse_size(s, 1, max, &n))
		return false;
	*out = (int)n;
	return true;
}

static int parse_limits(struct server_opts *o, char *list, struct err *e)
{
	enum {
		PROMPT,
		EVENTS,
		TRANSCRIPT,
		QUEUE,
		REQUESTS,
		PRINCIPAL,
		UID,
		WAITING,
		SESSIONS,
		PARK
	};
	char *const names[] = {
		[PROMPT] = "prompt",
		[EVENTS] = "events",
		[QUEUE] = "queue",
		[TRANSCRIPT] = "transcript",
		[REQUESTS] = "requests",
		[PRINCIPAL] = "principal",
		[UID] = "uid",
		[WAITING] = "waiting",
		[SESSIONS] = "sessions",
		[PARK] = "park",
		NULL,
	};
	double s = 0;
	char *value;
	bool ok;

	while (*list) {
		const char *at = list;

		switch (getsubopt(&list, names, &value)) {
		case PROMPT:
			ok = value && parse_size(value, 1, 1u << 30, &o->max_payload);
			break;
		case REQUESTS:
			ok = parse_count(value, 4096, &o->max_requests);
			break;
		case PRINCIPAL:
			ok = parse_count(value, 65536, &o->max_principal);
			break;
		case UID:
			ok = parse_count(value, 65536, &o->max_uid);
			break;
		case WAITING:
			ok = parse_count(value, 65536, &o->max_unfinished);
			break;
		case SESSIONS:
			ok = parse_count(value, 65536, &o->max_sessions);
			break;
		case EVENTS:
			ok = value && parse_size(value, 1 << 16, 1u << 30, &o->max_events);
			break;
		case PARK:
			ok = value && parse_seconds(value, &s);
			o->park_ns = (uint64_t)(s * 1e9);
			break;
		case TRANSCRIPT:
			ok = value && parse_size(value, 1, 1u << 30, &o->max_transcript);
			break;
		case QUEUE:
			ok = value && parse_size(value, 1, UINT64_C(1) << 40, &o->max_queue);
			break;
		default:
			return err_set(e, -EINVAL,
				       "--limits: `%s`: prompt, requests, principal, uid, waiting, "
				       "queue, sessions, events, park or transcript",
				       at);
		}
		if (!ok)
			return err_set(e, -EINVAL, "--limits: `%s`: missing or out of range", at);
	}
	if (o->max_transcript < o->max_payload)
		o->max_transcript = o->max_payload;
	return 0;
}

static const struct option long_options[] = {
	DAEMON_OPTIONS,
	ENGINE_OPTIONS,
	{0},
};

/* A file's text, malloc'ed; NULL with *e. */
static char *read_template(const char *path, struct err *e)
{
	FILE *f = fopen(path, "re");
	char *text = malloc(TEMPLATE_MAX + 1);
	size_t n = f && text ? fread(text, 1, TEMPLATE_MAX + 1, f) : 0;
	bool ok = n && n <= TEMPLATE_MAX && !ferror(f) && !memchr(text, 0, n);

	if (ok)
		text[n] = '\0';
	else if (!f || !text || ferror(f))
		err_set(e, -EINVAL, "--chat-template: %s: %s", path, strerror(errno));
	else
		err_set(e, -EINVAL, "--chat-template: %s: no template of 1 to %d bytes", path,
			TEMPLATE_MAX);
	if (f)
		fclose(f);
	if (!ok)
		free(text);
	return ok ? text : NULL;
}

/* One option. 0, or -EINVAL with *e. */
static int take_option(struct options *o, int opt, char **argv, struct err *e)
{
	int rc;

	switch (opt) {
	case OPT_SOCKET:
		if (strlen(optarg) >= sizeof(o->socket))
			return err_set(e, -EINVAL, "--socket: longer than %zu bytes",
				       sizeof(o->socket) - 1);
		strcpy(o->socket, optarg);
		return 0;
	case OPT_NAME:
		if (!*optarg || strlen(optarg) > 63 ||
		    strspn(optarg, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				   "0123456789._-") != strlen(optarg))
			return err_set(e, -EINVAL,
				       "--name: `%s`: 1 to 63 letters, digits, `.`, `_`, `-`",
				       optarg);
		o->server.device = optarg;
		return 0;
	case OPT_DEVICE:
		if (optarg && strcmp(optarg, "auto") != 0)
			return err_set(e, -EINVAL,
				       "--device=%s: auto or nothing; --name says which device",
				       optarg);
		o->server.use_device = optarg ? DEVICE_AUTO : DEVICE_SERVE;
		return 0;
	case OPT_BATCH:
		if (!parse_count(optarg, MAX_BATCH, &o->engine.max_seqs))
			return err_set(e, -EINVAL, "--batch: `%s`: give 1 to %d requests", optarg,
				       MAX_BATCH);
		return 0;
	case OPT_PRESSURE:
		o->server.pressure = optarg;
		return 0;
	case OPT_PACE:
		if (!parse_seconds(optarg, &o->server.pace) || o->server.pace < 0.001)
			return err_set(e, -EINVAL, "--pace: `%s`: give tokens per second", optarg);
		return 0;
	case OPT_DRAIN:
		if (!parse_seconds(optarg, &o->drain_s))
			return err_set(e, -EINVAL, "--drain: `%s`: give seconds", optarg);
		return 0;
	case OPT_LIMITS: {
		char *list = strdup(optarg); /* it is cut up, and ps should show what was given */

		rc = list ? parse_limits(&o->server, list, e) : err_set(e, -ENOMEM, "no memory");
		free(list);
		return rc;
	}
	case OPT_CHAT_TEMPLATE:
		free(o->template);
		o->template = read_template(optarg, e);
		o->chat.template = o->template;
		return o->template ? 0 : -EINVAL;
	case OPT_TOOL_PARSER:
		rc = output_tools_by_name(optarg);
		if (rc < 0)
			return err_set(e, -EINVAL,
				       "--tool-parser: `%s`: llmdevd --help has the names", optarg);
		o->chat.force_tools = true;
		o->chat.format.tools = (enum output_tools)rc;
		return 0;
	case OPT_REASONING_PARSER:
		rc = output_reasoning_by_name(optarg);
		if (rc < 0)
			return err_set(e, -EINVAL,
				       "--reasoning-parser: `%s`: llmdevd --help has the names",
				       optarg);
		o->chat.force_reasoning = true;
		o->chat.format.reasoning = (enum output_reasoning)rc;
		return 0;
	case OPT_VERBOSE:
		o->server.verbose = true;
		return 0;
	}
	rc = engine_option(&o->engine, opt, optarg, e);
	if (rc)
		return rc < 0 ? rc : 0;
	return err_set(e, -EINVAL, "%s: %s: llmdevd --help has them", argv[optind - 1],
		       option_fault(argv[optind - 1]));
}

/* -1: go on; else the exit status. */
static int parse_options(struct options *o, int argc, char **argv)
{
	struct err e;
	int opt;

	engine_options_default(&o->engine);
	o->engine.weights = WEIGHTS_AUTO;
	server_opts_default(&o->server);
	o->engine.max_seqs = DEFAULT_BATCH;
	o->drain_s = 5;
	opterr = 0;
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (take_option(o, opt, argv, &e)) {
			fail(e.msg);
			return 2;
		}
	}
	if (optind + 1 != argc) {
		fail(optind == argc ? "MODEL: missing: llmdevd --help prints the usage"
				    : "MODEL: give exactly one");
		return 2;
	}
	o->engine.model = argv[optind];
	if (!o->socket[0]) {
		llmdev_default_socket(o->socket, sizeof(o->socket), o->server.device);
		make_parent(o->socket);
	}
	/* The two queues are one: what the daemon takes, the engine has room for. */
	o->engine.max_waiting = o->server.max_unfinished;
	o->server.max_batch = o->engine.max_seqs;
	if (!o->server.pressure)
		o->server.pressure = "auto";
	o->server.socket = o->socket;
	o->server.log = log_line;
	o->engine.chat = &o->chat;
	return -1;
}

/* ---- running -------------------------------------------------------------------------------------- */

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	/* Before the engine starts threads, so that none of them is chosen to take a signal. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static bool got_signal(int fd, struct signalfd_siginfo *si)
{
	return read(fd, si, sizeof(*si)) == sizeof(*si);
}

/* Every session is an open file: as many of them as the system allows, and no promise beyond. */
static void fit_sessions(struct server_opts *o)
{
	struct rlimit l;
	rlim_t want = (rlim_t)o->max_sessions + SERVER_SPARE_CHANNELS + OTHER_FILES;
	char line[200];
	int fit;

	if (getrlimit(RLIMIT_NOFILE, &l))
		return;
	if (l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &l))
			getrlimit(RLIMIT_NOFILE, &l);
	}
	if (l.rlim_cur >= want)
		return;
	fit = (int)l.rlim_cur - SERVER_SPARE_CHANNELS - OTHER_FILES;
	fit = fit > 1 ? fit : 1;
	snprintf(line, sizeof(line),
		 "--limits: sessions=%d: this process may open %llu files: taking %d: raise the "
		 "limit on open files (LimitNOFILE=, ulimit -n)",
		 o->max_sessions, (unsigned long long)l.rlim_cur, fit);
	log_line(NULL, line);
	o->max_sessions = fit;
}

struct loading {
	int sigfd;
	uint64_t told_ns;
};

/* While a model loads there is nothing to drain: a signal ends the program at once. */
static void loading(void *ctx, const char *what, uint64_t done, uint64_t total)
{
	struct loading *l = ctx;
	struct signalfd_siginfo si;
	uint64_t now = now_ns();
	char state[96];

	if (got_signal(l->sigfd, &si)) {
		log_line(NULL, "stopped while loading");
		weights_abandon();
		_exit(0);
	}
	if (now - l->told_ns < NOTIFY_NS || !total)
		return;
	l->told_ns = now;
	snprintf(state, sizeof(state), "STATUS=%s: %.0f %%", what ? what : "loading",
		 100.0 * (double)done / (double)total);
	notify_manager(state);
}

/* Memory for the model, or the sum of what is missing. */
static int admit(void *ctx, uint64_t weights, uint64_t kv, struct err *e)
{
	struct memory_room room;
	char line[400];
	int rc = memory_make_room(weights + kv, &room, e);

	if (rc == -ENOMEM)
		return err_prefix(e, rc, "weights %.2f GiB and KV cache %.2f GiB",
				  (double)weights / (1 << 30), (double)kv / (1 << 30));
	/* What cannot be read is no reason not to try. */
	if (!rc && room.before.free < room.asked && strncmp(room.who, "nobody", 6) != 0) {
		snprintf(line, sizeof(line),
			 "%.2f GiB needed, %.2f GiB free: room made by %s: %.2f GiB free now",
			 (double)room.asked / (1 << 30), (double)room.before.free / (1 << 30),
			 room.who, (double)room.after.free / (1 << 30));
		log_line(NULL, line);
	}
	return 0;
}

/* The last words of a start that failed, for who waits for it. */
static int fail_start(const char *message)
{
	char state[600];

	snprintf(state, sizeof(state), "STATUS=%s", message);
	notify_manager(state);
	return fail(message);
}

/* KEPT and LEAVING: another daemon took the place. They differ in what happens when nothing runs. */
enum life { SERVING, KEPT, LEAVING, STOPPING };

/* What becomes of the daemon's life. */
static enum life take_signal(struct server *sv, const struct signalfd_siginfo *si, enum life life,
			     double drain_s)
{
	if (si->ssi_signo == SIGUSR1 && life != STOPPING) {
		bool keep = si->ssi_code == SI_QUEUE && si->ssi_int == SERVER_KEEP;

		if (server_hand_over(sv)) {
			log_line(NULL, keep ? "handed over: running answers may end, then it waits "
					      "to be taken back"
					    : "handed over: running answers may end");
			return keep ? KEPT : LEAVING;
		}
		log_line(NULL, "SIGUSR1: nobody else serves its socket: it stays");
		return life;
	}
	if (si->ssi_signo == SIGUSR2 || si->ssi_signo == SIGUSR1) {
		if (life == KEPT || life == LEAVING) {
			server_take_back(sv);
			log_line(NULL, "taken back: serving again");
			return SERVING;
		}
		return life;
	}
	log_line(NULL, "stopping: running answers may end, waiting ones stay with their clients");
	notify_manager("STOPPING=1");
	server_drain(sv, now_ns() + (uint64_t)(drain_s * 1e9));
	return STOPPING;
}

/* *replaced: another daemon has taken the place. */
static int serve(struct server *sv, int sigfd, double drain_s, bool *replaced)
{
	enum life life = SERVING;
	struct signalfd_siginfo si;
	uint64_t deadline;
	struct err e;

	while (life < LEAVING || !server_idle(sv)) {
		if (server_step(sv, &e))
			return fail(e.msg);
		if (server_quiesced(sv, &deadline) && life != STOPPING) {
			log_line(NULL, "the device is wanted: running answers may end, the others "
				       "are the next daemon's");
			notify_manager("STOPPING=1");
			server_drain(sv,
				     deadline ? deadline : now_ns() + (uint64_t)(drain_s * 1e9));
			life = STOPPING;
		}
		if (!got_signal(sigfd, &si))
			continue;
		/* The second time it is meant at once. */
		if (life == STOPPING && (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT))
			break;
		life = take_signal(sv, &si, life, drain_s);
	}
	log_line(NULL, "stopped");
	*replaced = life == LEAVING;
	return 0;
}

int main(int argc, char **argv)
{
	struct options o = {0};
	const struct engine_info *info;
	struct engine *en = NULL;
	struct server *sv = NULL;
	char line[512];
	struct err e;
	struct loading l = {0};
	bool kept = false, replaced = false;
	int rc, sigfd;

	rc = parse_options(&o, argc, argv);
	if (rc >= 0)
		return rc;
	fit_sessions(&o.server);
	sigfd = open_signals();
	if (sigfd < 0)
		return fail("signalfd: not available");
	o.engine.progress = loading;
	l.sigfd = sigfd;
	o.engine.progress_ctx = &l;
	o.engine.note = log_line;
	o.engine.admit = admit;
	if (engine_open(&en, &o.engine, &e))
		return fail_start(e.msg);
	info = engine_info(en);
	snprintf(line, sizeof(line),
		 "loaded %s: %s, %.1f MB in %.2f s, backend %s (%s), context %d", info->model,
		 info->family, (double)info->weight_bytes / 1e6, info->load.seconds, info->backend,
		 info->detail ? info->detail : "", info->ctx);
	log_line(NULL, line);
	kept = strncmp(info->placement, "region", 6) == 0;
	rc = server_open(&sv, en, &o.server, &e);
	if (!rc)
		rc = server_watch(sv, sigfd, &e);
	if (rc) {
		rc = fail_start(e.msg);
	} else {
		snprintf(line, sizeof(line), "serving %s at %s", info->model, o.server.socket);
		if (server_device(sv) >= 0)
			snprintf(line, sizeof(line), "serving %s at /dev/llm%d and %s", info->model,
				 server_device(sv), o.server.socket);
		log_line(NULL, line);
		if (o.server.verbose && server_pressure(sv)) {
			snprintf(line, sizeof(line), "memory pressure is told by %s",
				 server_pressure(sv));
			log_line(NULL, line);
		}
		snprintf(line, sizeof(line), "READY=1\nSTATUS=serving %s", info->model);
		notify_manager(line);
		rc = serve(sv, sigfd, o.drain_s, &replaced);
	}
	if (replaced)
		engine_forget_weights(en);
	else if (kept)
		log_line(NULL, "the weights stay in memory for the next start: llmctl model list, "
			       "llmctl model unload");
	server_close(sv);
	engine_close(en);
	free(o.template);
	close(sigfd);
	return rc;
}
