// SPDX-License-Identifier: MIT
/*
 * llmdev-policyd: keeps memory free where a GPU shares it with the CPU. Owns the process: options,
 * signals, logging, readiness, the loop. What it does is in act.c, whom it answers in server.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/notify.h"
#include "llm.h"
#include "memory/policy.h"
#include "policyd.h"

#define HELD_NS 250000000u /* between two looks while room is held */

static const char usage_text[] =
	"usage: llmdev-policyd [--config PATH] [--socket PATH] [--root DIR]\n"
	"       llmdev-policyd --check [--config PATH]\n"
	"       llmdev-policyd --status [--socket PATH]\n"
	"\n"
	"  --config PATH  a file, or a folder of *.conf (" CONFIG_DIR ")\n"
	"  --socket PATH  where it is asked (" POLICYD_SOCKET ")\n"
	"  --check        read the configuration, say what is wrong with it, and end\n"
	"  --status       what a running one does, as JSON\n"
	"  --root DIR     look for proc/ and sys/ below DIR (tests)\n"
	"\n"
	"SIGHUP reads the configuration again. man llmdev-policyd says what it may hold.\n";

uint64_t policyd_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void policyd_log(const char *fmt, ...)
{
	va_list ap;

	fputs("llmdev-policyd: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static int fail(const char *message)
{
	policyd_log("%s", message);
	return 1;
}

/* ---- configuration --------------------------------------------------------------------------- */

static int read_config(struct config *c, const char *path, const char *root, struct err *e)
{
	struct mem_now now;
	int rc = config_read(c, path, e);

	if (!rc)
		rc = mem_now_read(&now, root, (size_t)sysconf(_SC_PAGESIZE), e);
	if (!rc)
		rc = config_fits(c, now.total, e);
	if (rc)
		config_free(c);
	return rc;
}

static void say_config(const struct config *c)
{
	char a[MEM_SIZE_TEXT], b[MEM_SIZE_TEXT];

	policyd_log("mode %s, floors: %s of MemFree, %llu blocks of 2 MiB; reserve %s; %zu paths "
		    "of files, "
		    "%zu filesystems, %zu cgroups, %zu triggers",
		    mode_name[c->mode], mem_size(a, c->free), (unsigned long long)c->blocks,
		    mem_size(b, c->reserve), c->files.n, c->filesystems.n, c->cgroups.n,
		    c->n_triggers);
	if (c->mode >= MODE_FILES && !c->free && !c->blocks && !c->n_triggers)
		policyd_log("no floors and no triggers: it acts only when asked");
}

static void watch_again(struct policyd *p)
{
	struct err e = {""};

	watch_close(p->watch);
	p->watch = NULL;
	if (p->config.n_triggers && watch_open(&p->watch, p->root, &e))
		policyd_log("%s", e.msg);
	snprintf(p->watch_note, sizeof(p->watch_note), "%.159s", e.msg);
	if (p->watch && watch_is_full(p->watch))
		snprintf(p->watch_note, sizeof(p->watch_note),
			 "not all cgroups can be watched: raise fs.inotify.max_user_watches");
}

static void reload(struct policyd *p)
{
	struct config c;
	bool lower;
	struct err e;

	if (read_config(&c, p->config_path, p->root, &e)) {
		policyd_log("%s: the old configuration stays", e.msg);
		return;
	}
	lower = act_reserve_wanted(&c) < act_reserve_wanted(&p->config);
	config_free(&p->config);
	p->config = c;
	p->reloads++;
	p->judge.futile = 0;
	p->judge.next_ns = 0;
	say_config(&p->config);
	act_module(p);
	if (lower) /* else what somebody had the module keep by hand stays */
		act_reserve_lower(p);
	watch_again(p);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void open_psi(struct policyd *p)
{
	static const char trigger[] = "some 150000 2000000";
	char path[4096];

	snprintf(path, sizeof(path), "%.4000s/proc/pressure/memory", p->root);
	p->psi_fd = *p->root ? -1 : open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (p->psi_fd >= 0 && write(p->psi_fd, trigger, sizeof(trigger)) != sizeof(trigger)) {
		close(p->psi_fd);
		p->psi_fd = -1;
	}
}

static void take_signals(struct policyd *p)
{
	struct signalfd_siginfo si;

	while (read(p->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGHUP)
			reload(p);
		else
			p->stop = true;
	}
}

/* Asking is what makes poll() forget. */
static void take_module_event(struct policyd *p)
{
	struct llm_mem_status st = {.size = sizeof(st)};

	if (ioctl(p->control, LLM_IOC_MEM_STATUS, &st))
		return;
	p->module_events++;
	if (st.pressure & LLM_PRESSURE_RELEASE)
		policyd_log("the reserve gave memory to somebody in need: %llu bytes are left",
			    (unsigned long long)st.reserve_held);
}

static void loop(struct policyd *p)
{
	enum { SIGNALS, LISTEN, MODULE, PSI, CGROUPS, CLIENTS };
	uint64_t next = 0;

	while (!p->stop) {
		struct pollfd f[CLIENTS + MAX_CLIENTS] = {
			[SIGNALS] = {p->signal_fd, POLLIN, 0},
			[LISTEN] = {p->listen_fd, POLLIN, 0},
			[MODULE] = {p->control, POLLPRI, 0},
			[PSI] = {p->psi_fd, POLLPRI, 0},
			[CGROUPS] = {watch_fd(p->watch), POLLIN, 0},
		};
		uint64_t now = policyd_clock();
		bool soon = false;

		for (int i = 0; i < MAX_CLIENTS; i++)
			f[CLIENTS + i] = (struct pollfd){p->client[i].fd, POLLIN, 0};
		poll(f, CLIENTS + MAX_CLIENTS,
		     next > now ? (int)((next - now + 999999) / 1000000) : 0);
		if (f[SIGNALS].revents)
			take_signals(p);
		if (f[MODULE].revents & POLLPRI) {
			take_module_event(p);
			soon = true;
		}
		if (f[PSI].revents & POLLERR) {
			close(p->psi_fd);
			p->psi_fd = -1;
		} else if (f[PSI].revents & POLLPRI) {
			p->psi_events++;
			soon = true;
		}
		if (f[CGROUPS].revents && p->watch)
			watch_read(p->watch, act_started, p);
		for (int i = 0; i < MAX_CLIENTS && !p->stop; i++)
			if (f[CLIENTS + i].revents && p->client[i].fd == f[CLIENTS + i].fd)
				server_client(p, i);
		if (f[LISTEN].revents)
			server_accept(p);
		now = policyd_clock();
		if (!p->stop && (soon || now >= next)) {
			act_tick(p);
			next = policyd_clock() + (uint64_t)(p->config.interval * 1e9);
			/* Somebody waits for what is held: page cache must not fill it for long. */
			if (act_held(p) && next > policyd_clock() + HELD_NS)
				next = policyd_clock() + HELD_NS;
		}
	}
}

static int serve(struct policyd *p)
{
	sigset_t set;
	struct err e;

	for (int i = 0; i < MAX_CLIENTS; i++)
		p->client[i].fd = -1;
	p->control = p->psi_fd = p->listen_fd = -1;
	p->start_ns = policyd_clock();
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p->signal_fd < 0)
		return fail(strerror(errno));
	if (server_open(p, &e))
		return fail(e.msg);
	say_config(&p->config);
	act_module(p);
	watch_again(p);
	open_psi(p);
	notify_manager("READY=1");
	loop(p);
	notify_manager("STOPPING=1");
	server_close(p);
	watch_close(p->watch);
	for (int i = 0; i < 3; i++) {
		int fd = (int[]){p->control, p->psi_fd, p->signal_fd}[i];

		if (fd >= 0)
			close(fd);
	}
	policyd_log("ended");
	return 0;
}

static int print_status(const char *socket)
{
	struct err e;
	int fd = policyd_connect(socket, &e), rc;
	json_t *answer;

	if (fd < 0)
		return fail(e.msg);
	rc = policyd_ask(fd, json_pack("{ss}", "op", "status"), 60, &answer, &e);
	close(fd);
	if (rc)
		return fail(e.msg);
	json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(answer);
	return fflush(stdout) ? fail("stdout: cannot write") : 0;
}

int main(int argc, char **argv)
{
	enum { OPT_CONFIG = 1, OPT_SOCKET, OPT_CHECK, OPT_STATUS, OPT_ROOT };
	static const struct option options[] = {
		{"config", required_argument, NULL, OPT_CONFIG},
		{"socket", required_argument, NULL, OPT_SOCKET},
		{"check", no_argument, NULL, OPT_CHECK},
		{"status", no_argument, NULL, OPT_STATUS},
		{"root", required_argument, NULL, OPT_ROOT},
		{"help", no_argument, NULL, 'h'},
		{NULL},
	};
	static struct policyd p = {.config_path = CONFIG_DIR,
				   .socket_path = POLICYD_SOCKET,
				   .root = ""};
	const char *socket = NULL;
	bool check = false, status = false;
	struct err e;
	int opt, rc;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == OPT_CONFIG)
			p.config_path = optarg;
		else if (opt == OPT_SOCKET)
			p.socket_path = socket = optarg;
		else if (opt == OPT_CHECK)
			check = true;
		else if (opt == OPT_STATUS)
			status = true;
		else if (opt == OPT_ROOT)
			p.root = optarg;
		else
			return fputs(usage_text, opt == 'h' ? stdout : stderr), opt == 'h' ? 0 : 2;
	}
	if (optind != argc || (check && status))
		return fputs(usage_text, stderr), 2;
	if (status)
		return print_status(socket);
	setvbuf(stderr, NULL, _IOLBF, 0);
	p.page = (size_t)sysconf(_SC_PAGESIZE);
	if (read_config(&p.config, p.config_path, p.root, &e))
		return fail(e.msg);
	if (check)
		printf("%s: %zu file%s read, mode %s: nothing is wrong\n", p.config_path,
		       p.config.n_read, p.config.n_read == 1 ? "" : "s", mode_name[p.config.mode]);
	rc = check ? 0 : serve(&p);
	config_free(&p.config);
	return rc;
}
