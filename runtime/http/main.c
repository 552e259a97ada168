// SPDX-License-Identifier: MIT
/*
 * llmdev-gateway: OpenAI's HTTP API in front of llmdevd. Owns the process: options, signals,
 * logging, readiness, start and stop. The work is in server.c.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/notify.h"
#include "base/option.h"
#include "base/size.h"
#include "http/listen.h"
#include "http/server.h"

#define LEARN_NS UINT64_C(2000000000)

static const char usage_text[] =
	"usage: llmdev-gateway [--listen ADDR:PORT] [--model NAME=PATH[,ALIAS...]]...\n"
	"                      [--api-key-file FILE | --no-auth] [--cors ORIGIN]\n"
	"                      [--max-body BYTES] [--max-connections N] [--per-address N]\n"
	"                      [--timeout SECONDS] [--keep-alive SECONDS]\n"
	"                      [--recovery SECONDS] [--drain SECONDS]\n"
	"\n"
	"  --listen ADDR:PORT     where clients connect (127.0.0.1:8000); port 0 takes a free one\n"
	"  --model NAME=PATH      a daemon's socket or device, and what clients call it; without\n"
	"                         this the default daemon, under the name that it tells\n"
	"  --api-key-file FILE    one line a key: KEY principal=NAME [share=S] [priority=N]\n"
	"                         [concurrent=N] [requests-per-minute=N] [tokens-per-minute=N];\n"
	"                         read again on SIGHUP\n"
	"  --no-auth              let anybody in also where other machines can connect\n"
	"  --cors ORIGIN          let pages of this origin call (*: of any)\n"
	"  --max-body BYTES       longest request (32M)\n"
	"  --max-connections N    at once (1024)\n"
	"  --per-address N        of them from one address (no limit of its own)\n"
	"  --timeout SECONDS      a client that sends or takes nothing for so long is left (30)\n"
	"  --keep-alive SECONDS   between comments in a stream in which nothing comes (15)\n"
	"  --recovery SECONDS     how long a lost daemon is waited for in an answer (10)\n"
	"  --drain SECONDS        how long running answers may take after SIGTERM (30)\n";

static void log_line(void *ctx, const char *line)
{
	fprintf(stderr, "llmdev-gateway: %s\n", line);
}

static int fail(const char *message)
{
	log_line(NULL, message);
	return 1;
}

/* ---- options ---------------------------------------------------------------------------------- */

enum {
	OPT_LISTEN = 1,
	OPT_MODEL,
	OPT_KEYS,
	OPT_NO_AUTH,
	OPT_CORS,
	OPT_MAX_BODY,
	OPT_MAX_CONNECTIONS,
	OPT_PER_ADDRESS,
	OPT_TIMEOUT,
	OPT_KEEP_ALIVE,
	OPT_RECOVERY,
	OPT_DRAIN,
	OPT_HELP
};

static const struct option long_options[] = {
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"model", required_argument, NULL, OPT_MODEL},
	{"api-key-file", required_argument, NULL, OPT_KEYS},
	{"no-auth", no_argument, NULL, OPT_NO_AUTH},
	{"cors", required_argument, NULL, OPT_CORS},
	{"max-body", required_argument, NULL, OPT_MAX_BODY},
	{"max-connections", required_argument, NULL, OPT_MAX_CONNECTIONS},
	{"per-address", required_argument, NULL, OPT_PER_ADDRESS},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"keep-alive", required_argument, NULL, OPT_KEEP_ALIVE},
	{"recovery", required_argument, NULL, OPT_RECOVERY},
	{"drain", required_argument, NULL, OPT_DRAIN},
	{"help", no_argument, NULL, OPT_HELP},
	{0},
};

static int take_number(const char *option, double lo, double hi, double *out, struct err *e)
{
	char *end;

	errno = 0;
	*out = strtod(optarg, &end);
	if (errno || end == optarg || *end || !(*out >= lo && *out <= hi))
		return err_set(e, -EINVAL, "--%s: `%s`: give %g to %g", option, optarg, lo, hi);
	return 0;
}

static int take_model(struct gateway *g, struct err *e)
{
	struct backend *b = &g->backends[g->n_backends];
	int rc;

	if (g->n_backends == BACKENDS_MAX)
		return err_set(e, -E2BIG, "--model: more than %d", BACKENDS_MAX);
	g->n_backends++;
	rc = backend_parse(b, optarg, e);
	for (int i = 0; !rc && i < g->n_backends - 1; i++) {
		for (int j = 0; j < b->n_names; j++) {
			if (backend_has_name(&g->backends[i], b->names[j]))
				return err_set(e, -EINVAL, "--model: `%s` names two", b->names[j]);
		}
	}
	return rc;
}

static int take_option(struct gateway *g, int opt, char **argv, struct err *e)
{
	struct gateway_options *o = &g->o;
	double number = 0;
	int rc = 0;

	switch (opt) {
	case OPT_LISTEN:
		o->listen = optarg;
		return 0;
	case OPT_MODEL:
		return take_model(g, e);
	case OPT_KEYS:
		o->key_file = optarg;
		return 0;
	case OPT_NO_AUTH:
		o->no_auth = true;
		return 0;
	case OPT_CORS:
		o->cors = optarg;
		return 0;
	case OPT_MAX_BODY:
		if (!size_parse(optarg, &o->max_body) || !o->max_body || o->max_body > 1u << 30)
			return err_set(e, -EINVAL, "--max-body: `%s`: give 1 to 1G bytes", optarg);
		return 0;
	case OPT_MAX_CONNECTIONS:
		rc = take_number("max-connections", 1, 100000, &number, e);
		o->max_connections = (int)number;
		return rc;
	case OPT_PER_ADDRESS:
		rc = take_number("per-address", 1, 100000, &number, e);
		o->max_per_ip = (int)number;
		return rc;
	case OPT_TIMEOUT:
		rc = take_number("timeout", 1, 86400, &number, e);
		o->timeout_s = (unsigned)number;
		return rc;
	case OPT_KEEP_ALIVE:
		rc = take_number("keep-alive", 0.1, 86400, &number, e);
		o->keep_alive_ms = (unsigned)(number * 1000);
		return rc;
	case OPT_RECOVERY:
		rc = take_number("recovery", 0, 86400, &number, e);
		o->recovery_ms = number > 0 ? (int)(number * 1000) : -1;
		return rc;
	case OPT_DRAIN:
		return take_number("drain", 0, 86400, &o->drain_s, e);
	}
	return err_set(e, -EINVAL, "%s: %s: llmdev-gateway --help has them", argv[optind - 1],
		       option_fault(argv[optind - 1]));
}

/* -1: go on; else the exit status. */
static int parse_options(struct gateway *g, int argc, char **argv)
{
	struct err e;
	int opt;

	g->o = (struct gateway_options){
		.listen = "127.0.0.1:8000",
		.max_body = 32u << 20,
		.max_connections = 1024,
		.timeout_s = 30,
		.keep_alive_ms = 15000,
		.recovery_ms = 10000,
		.drain_s = 30,
		.log = log_line,
	};
	opterr = 0;
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			return 0;
		}
		if (take_option(g, opt, argv, &e)) {
			fail(e.msg);
			return 2;
		}
	}
	if (optind != argc) {
		fail("unexpected argument: llmdev-gateway --help prints the usage");
		return 2;
	}
	if (g->o.key_file && g->o.no_auth) {
		fail("--no-auth and --api-key-file: give one of them");
		return 2;
	}
	if (listen_check(g->o.listen, &e)) {
		fail(e.msg);
		return 2;
	}
	if (!g->o.key_file && !g->o.no_auth && !listen_is_loopback(g->o.listen)) {
		fail("--listen: other machines could connect and no key is asked for: give "
		     "--api-key-file FILE, or --no-auth if that is meant");
		return 2;
	}
	if (!g->n_backends)
		g->n_backends = 1; /* the default one */
	return -1;
}

/* ---- running ---------------------------------------------------------------------------------- */

static void reload_keys(struct gateway *g)
{
	char line[600];
	struct err e;

	if (!g->o.key_file)
		return;
	if (keys_load(&g->keys, g->o.key_file, loop_now_ns(), &e))
		snprintf(line, sizeof(line), "%s: keeping the keys of before", e.msg);
	else
		snprintf(line, sizeof(line), "%d keys read again", g->keys.n);
	log_line(NULL, line);
}

static void begin_stop(struct gateway *g)
{
	int fd;

	if (g->stopping) {
		g->stop_ns = 0; /* the second time it is meant at once */
		return;
	}
	log_line(NULL, "stopping: running answers may end");
	notify_manager("STOPPING=1");
	g->stopping = true;
	g->stop_ns = loop_now_ns() + (uint64_t)(g->o.drain_s * 1e9);
	fd = MHD_quiesce_daemon(g->mhd);
	if (fd >= 0)
		close(fd);
}

static void signal_ready(struct source *s, uint32_t events)
{
	struct gateway *g = (struct gateway *)((char *)s - offsetof(struct gateway, signal_source));
	struct signalfd_siginfo si;

	while (read(s->fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGHUP)
			reload_keys(g);
		else
			begin_stop(g);
	}
}

static int open_signals(struct gateway *g)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	/* Before the prober's thread starts, so that it is not chosen to take one. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	g->signal_source = (struct source){.ready = signal_ready,
					   .fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)};
	if (g->signal_source.fd < 0)
		return -errno;
	return loop_watch(&g->loop, &g->signal_source, EPOLLIN);
}

/* A stream needs its socket and what libllmdev opens. */
static void raise_files(struct gateway *g)
{
	rlim_t want = (rlim_t)g->o.max_connections * 4 + 64;
	struct rlimit l;
	char line[160];

	if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur >= want)
		return;
	l.rlim_cur = l.rlim_max > want ? want : l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_cur >= want)
		return;
	g->o.max_connections = (int)(l.rlim_cur / 4) > 16 ? (int)(l.rlim_cur / 4) - 8 : 8;
	snprintf(line, sizeof(line), "this process may open %llu files: taking %d connections",
		 (unsigned long long)l.rlim_cur, g->o.max_connections);
	log_line(NULL, line);
}

static void run(struct gateway *g)
{
	int wait = 0;

	for (;;) {
		uint64_t now = loop_now_ns();

		if (g->stopping && (!g->n_exchanges || now >= g->stop_ns))
			break;
		server_sweep(g, now);
		if (wait < 0 || wait > 250)
			wait = g->n_exchanges || g->connections ? 250 : wait;
		loop_step(&g->loop, wait);
		wait = server_work(g);
	}
}

/* What is served, before the first client asks for it by name; a daemon may also come later. */
static void learn(struct gateway *g)
{
	uint64_t end = loop_now_ns() + LEARN_NS;
	bool asking = true;

	for (int i = 0; i < g->n_backends; i++)
		prober_ask(g->prober, &g->backends[i]);
	while (asking && loop_now_ns() < end) {
		loop_step(&g->loop, 100);
		asking = false;
		for (int i = 0; i < g->n_backends; i++)
			asking = asking || g->backends[i].asking;
	}
}

static int start(struct gateway *g, char *line, size_t len, struct err *e)
{
	const union MHD_DaemonInfo *info;
	char url[128];
	int rc;

	raise_files(g);
	if (getrandom(g->id_seed, sizeof(g->id_seed), 0) != sizeof(g->id_seed))
		return err_set(e, -EIO, "getrandom: %s", strerror(errno));
	g->start_time = time(NULL);
	rc = loop_open(&g->loop);
	if (!rc)
		rc = open_signals(g);
	if (rc)
		return err_set(e, rc, "event loop: %s", strerror(-rc));
	if (g->o.key_file && keys_load(&g->keys, g->o.key_file, loop_now_ns(), e))
		return -EINVAL;
	g->prober = prober_start(&g->loop, g->backends, g->n_backends, health_told, g, e);
	if (!g->prober)
		return -EIO;
	learn(g);
	rc = server_start(g, e);
	if (rc)
		return rc;
	info = MHD_get_daemon_info(g->mhd, MHD_DAEMON_INFO_LISTEN_FD);
	listen_url(info->listen_fd, url, sizeof(url));
	snprintf(line, len, "serving at %s, %s", url, g->o.key_file ? "with keys" : "without keys");
	return 0;
}

static void stop(struct gateway *g)
{
	server_stop(g);
	prober_stop(g->prober);
	if (g->signal_source.fd > 0)
		close(g->signal_source.fd);
	loop_close(&g->loop);
	keys_free(&g->keys);
	for (int i = 0; i < g->n_backends; i++)
		backend_clear(&g->backends[i]);
}

int main(int argc, char **argv)
{
	struct gateway *g = calloc(1, sizeof(*g));
	char line[256];
	struct err e;
	int rc;

	if (!g)
		return fail("no memory");
	g->loop.epoll_fd = -1;
	rc = parse_options(g, argc, argv);
	if (rc >= 0) {
		for (int i = 0; i < g->n_backends; i++)
			backend_clear(&g->backends[i]);
		free(g);
		return rc;
	}
	if (start(g, line, sizeof(line), &e)) {
		rc = fail(e.msg);
	} else {
		log_line(NULL, line);
		notify_manager("READY=1");
		run(g);
		log_line(NULL, "stopped");
		rc = 0;
	}
	stop(g);
	free(g);
	return rc;
}
