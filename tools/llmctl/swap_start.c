// SPDX-License-Identifier: MIT
/*
 * Daemons as processes (swap.h): who serves a socket, with which options, and one more like it: a
 * detached process of the same user, or an instance of llmdevd@.service where the running one is.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/size.h"
#include "ctl.h"
#include "llmdevd/options.h"
#include "swap.h"

#define STOP_MS	  20000 /* for a daemon without requests to end */
#define POLL_MS	  100
#define NEXT_UNIT "-next"

/* ---- who serves ----------------------------------------------------------------------------------- */

int daemon_at(struct daemon_process *p, const char *socket_path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = 2};
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int fd, rc = 0;

	if (strlen(socket_path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, socket_path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	/* Whose socket it is stands in the connection, before anybody accepts it. */
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		rc = -errno;
	close(fd);
	if (rc)
		return rc;
	*p = (struct daemon_process){cred.pid, cred.uid, cred.gid};
	return 0;
}

/* A file of /proc/PID, NUL-terminated and malloc'ed; NULL: not readable. */
static char *read_proc(pid_t pid, const char *name, size_t *len)
{
	char path[64], *text = NULL;
	size_t n = 0, cap = 0;
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	do {
		char *more;

		cap += 4096;
		more = realloc(text, cap + 1);
		if (!more)
			break;
		text = more;
		got = read(fd, text + n, cap - n);
		n += got > 0 ? (size_t)got : 0;
	} while (got > 0);
	close(fd);
	if (text)
		text[n] = '\0';
	if (len)
		*len = n;
	return text;
}

bool daemon_can_hand_over(pid_t pid)
{
	char *status = read_proc(pid, "status", NULL);
	const char *blocked = status ? strstr(status, "\nSigBlk:") : NULL;
	/* The daemon takes its signals from a signalfd: they are blocked. */
	bool can = blocked && strtoull(blocked + 8, NULL, 16) & 1ull << (SIGUSR1 - 1);

	free(status);
	return can;
}

/* "llmdevd@NAME.service" of its control group -> "NAME". */
static void read_unit(char unit[SWAP_UNIT_MAX], pid_t pid)
{
	char *cgroup = read_proc(pid, "cgroup", NULL), *at, *end;

	unit[0] = '\0';
	at = cgroup ? strstr(cgroup, "/llmdevd@") : NULL;
	end = at ? strstr(at, ".service") : NULL;
	if (end && end - at - 9 < SWAP_UNIT_MAX) {
		*end = '\0';
		strcpy(unit, at + 9);
	}
	free(cgroup);
}

/* ---- options -------------------------------------------------------------------------------------- */

static int add_option(struct daemon_options *o, const char *name, const char *value, struct err *e)
{
	size_t len = strlen(name);
	char *text;
	int i = 0;

	if (asprintf(&text, value ? "--%s=%s" : "--%s", name, value) < 0)
		return err_set(e, -ENOMEM, "options: no memory");
	/* The later one wins; lists are the daemon's own matter. */
	while (i < o->n &&
	       (strncmp(o->option[i] + 2, name, len) ||
		(o->option[i][2 + len] && o->option[i][2 + len] != '=') || !strcmp(name, "limits")))
		i++;
	if (i == SWAP_MAX_OPTIONS) {
		free(text);
		return err_set(e, -E2BIG, "options: more than %d", SWAP_MAX_OPTIONS);
	}
	if (i < o->n)
		free(o->option[i]);
	else
		o->n++;
	o->option[i] = text;
	return 0;
}

int daemon_options_add(struct daemon_options *o, int argc, char **argv, struct err *e)
{
	static const struct option options[] = {DAEMON_OPTIONS, ENGINE_OPTIONS, {0}};
	int opt, at = 0, rc = 0;
	long long ctx;

	opterr = 0;
	optind = 0;
	while (!rc && (opt = getopt_long(argc, argv, "", options, &at)) != -1) {
		switch (opt) {
		case '?':
		case OPT_HELP:
			return err_set(e, -EINVAL, "%s: not an option of llmdevd, or without value",
				       argv[optind - 1]);
		case OPT_SOCKET:
			continue;
		case ENGINE_OPT_KV_SIZE:
			if (!size_parse(optarg, &o->kv_size))
				return err_set(e, -EINVAL, "--kv-size: `%s`: give a size", optarg);
			break;
		case ENGINE_OPT_CTX:
			if (!ctl_int("--ctx", optarg, 1, 1 << 30, &ctx))
				return err_set(e, -EINVAL, "--ctx: give tokens");
			o->ctx = ctx;
			break;
		case ENGINE_OPT_KV_TYPE:
			o->kv_element = !strcmp(optarg, "f32") ? 4 : !strcmp(optarg, "fp8") ? 1 : 2;
			break;
		case ENGINE_OPT_EXACT:
			o->kv_element = 4;
			break;
		}
		rc = add_option(o, options[at].name, options[at].has_arg ? optarg : NULL, e);
	}
	if (!rc && optind + 1 == argc)
		snprintf(o->model, sizeof(o->model), "%s", argv[optind]);
	else if (!rc && optind < argc)
		rc = err_set(e, -EINVAL, "%s: not an option of llmdevd", argv[optind]);
	return rc;
}

static int read_link(char out[PATH_MAX], pid_t pid, const char *name)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	n = readlink(path, out, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	out[n] = '\0';
	return 0;
}

int daemon_options_read(struct daemon_options *o, pid_t pid, struct err *e)
{
	static const char deleted[] = " (deleted)";
	char *argv[2 * SWAP_MAX_OPTIONS + 4], *text;
	size_t len, n;
	int argc = 0, rc;

	memset(o, 0, sizeof(*o));
	o->kv_element = 2;
	read_unit(o->unit, pid);
	rc = read_link(o->exe, pid, "exe");
	if (!rc)
		rc = read_link(o->cwd, pid, "cwd");
	text = rc ? NULL : read_proc(pid, "cmdline", &len);
	if (!text)
		return err_set(e, rc ? rc : -EACCES,
			       "process %d: its command line cannot be read: %s: run this as root "
			       "or as the daemon's user",
			       (int)pid, strerror(rc ? -rc : EACCES));
	/* A program that was replaced by a newer one: that is the one to start. */
	n = strlen(o->exe);
	if (n > sizeof(deleted) && !strcmp(o->exe + n - (sizeof(deleted) - 1), deleted))
		o->exe[n - (sizeof(deleted) - 1)] = '\0';
	for (char *p = text; p < text + len && argc < (int)(sizeof(argv) / sizeof(argv[0])) - 1;
	     p += strlen(p) + 1)
		argv[argc++] = p;
	argv[argc] = NULL;
	rc = daemon_options_add(o, argc, argv, e);
	free(text);
	if (!rc && !o->model[0])
		rc = err_set(e, -EINVAL, "process %d: no model on its command line", (int)pid);
	if (rc)
		daemon_options_free(o);
	return rc;
}

void daemon_options_free(struct daemon_options *o)
{
	while (o->n > 0)
		free(o->option[--o->n]);
}

/* ---- a process of its own ------------------------------------------------------------------------- */

/* Where it is told how the start goes (sd_notify(3)): a datagram socket with a name that the kernel
 * chose, which `name` then holds. */
static int open_notify(char name[64])
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(sa_family_t)) ||
	    getsockname(fd, (struct sockaddr *)&addr, &len)) {
		close(fd);
		return -errno;
	}
	snprintf(name, 64, "@%.*s", (int)(len - offsetof(struct sockaddr_un, sun_path) - 1),
		 addr.sun_path + 1);
	return fd;
}

/* It logs where the running one does; where that cannot be opened (a socket), beside its socket. */
static int open_log(pid_t like, const char *socket_path)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/fd/2", (int)like);
	fd = open(path, O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK);
	if (fd >= 0) {
		fcntl(fd, F_SETFL, O_APPEND);
		return fd;
	}
	snprintf(path, sizeof(path), "%s.log", socket_path);
	return open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0640);
}

#define OUR_STDERR 3 /* in the child, until it is a daemon */

static void exec_fail(const char *what)
{
	dprintf(OUR_STDERR, "llmctl: %s: %s\n", what, strerror(errno));
	_exit(127);
}

/* In the child: never returns. */
static void exec_daemon(const struct daemon_options *o, const struct daemon_process *like,
			const char *socket_path, const char *notify)
{
	char *argv[SWAP_MAX_OPTIONS + 6];
	int argc = 0, in, log;
	sigset_t none;

	setsid();
	dup3(2, OUR_STDERR, O_CLOEXEC);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGINT, SIG_DFL);
	close_range(OUR_STDERR + 1, ~0u, 0);
	log = open_log(like->pid, socket_path);
	in = open("/dev/null", O_RDONLY);
	if (log < 0 || in < 0)
		exec_fail("the daemon's log");
	dup2(in, 0);
	dup2(log, 1);
	dup2(log, 2);
	close_range(OUR_STDERR + 1, ~0u, 0);
	if (geteuid() != like->uid) {
		const struct passwd *pw = getpwuid(like->uid);

		if ((pw ? initgroups(pw->pw_name, like->gid) : setgroups(1, &like->gid)) ||
		    setgid(like->gid) || setuid(like->uid))
			exec_fail("the daemon's user");
	}
	if (chdir(o->cwd))
		exec_fail(o->cwd);
	setenv("NOTIFY_SOCKET", notify, 1);
	argv[argc++] = (char *)o->exe;
	for (int i = 0; i < o->n; i++)
		argv[argc++] = o->option[i];
	argv[argc++] = "--socket";
	argv[argc++] = (char *)socket_path;
	argv[argc++] = "--";
	argv[argc++] = (char *)o->model;
	argv[argc] = NULL;
	execv(o->exe, argv);
	exec_fail(o->exe);
}

/* The last word of the one that starts: kept in `status`, shown on a terminal. */
static void take_words(int fd, char status[512])
{
	char text[1024];
	ssize_t n;

	while ((n = recv(fd, text, sizeof(text) - 1, 0)) > 0) {
		const char *at;

		text[n] = '\0';
		at = !strncmp(text, "STATUS=", 7) ? text : strstr(text, "\nSTATUS=");
		if (!at)
			continue;
		at = strchr(at, '=') + 1;
		snprintf(status, 512, "%.*s", (int)strcspn(at, "\n"), at);
		/* Anybody could have sent it. */
		for (char *p = status; *p; p++)
			*p = (unsigned char)*p < 32 || *p == 127 ? '?' : *p;
		if (ctl_tty())
			fprintf(stderr, "\r\033[K%s", status);
	}
}

static int wait_process(pid_t pid, int notify, const char *socket_path,
			struct daemon_process *started, struct err *e)
{
	struct pollfd p = {notify, POLLIN, 0};
	char status[512] = "";
	int state, rc = 0;

	for (;;) {
		if (poll(&p, 1, POLL_MS) < 0 && errno != EINTR)
			rc = err_set(e, -errno, "poll: %s", strerror(errno));
		take_words(notify, status);
		if (rc || ctl_sigint()) {
			kill(pid, SIGTERM);
			waitpid(pid, &state, 0);
			return rc ? rc : err_set(e, -EINTR, "stopped: nothing is staged");
		}
		if (waitpid(pid, &state, WNOHANG) == pid)
			return err_set(e, -ECHILD, "the new daemon did not start: %s",
				       status[0] ? status : "its log may say why");
		if (!daemon_at(started, socket_path) && started->pid == pid)
			return 0;
	}
}

static int start_process(const struct daemon_options *o, const struct daemon_process *like,
			 const char *socket_path, struct daemon_process *started, struct err *e)
{
	char notify[64];
	int fd, rc;
	pid_t pid;

	if (geteuid() && geteuid() != like->uid)
		return err_set(e, -EPERM,
			       "the daemon belongs to uid %u: run this as root or as that user",
			       (unsigned)like->uid);
	fd = open_notify(notify);
	if (fd < 0)
		return err_set(e, fd, "socket: %s", strerror(-fd));
	ctl_catch_sigint();
	pid = fork();
	if (!pid)
		exec_daemon(o, like, socket_path, notify);
	rc = pid < 0 ? err_set(e, -errno, "fork: %s", strerror(errno))
		     : wait_process(pid, fd, socket_path, started, e);
	if (ctl_tty())
		fputs("\r\033[K", stderr);
	close(fd);
	return rc;
}

/* ---- systemd -------------------------------------------------------------------------------------- */

/* Runs systemctl; its messages go where ours do. */
static int systemctl(const char *verb, const char *instance, struct err *e)
{
	char unit[SWAP_UNIT_MAX + 32];
	int state;
	pid_t pid;

	snprintf(unit, sizeof(unit), "llmdevd@%s.service", instance);
	pid = fork();
	if (!pid) {
		dup2(2, 1);
		execlp("systemctl", "systemctl", verb, unit, (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return err_set(e, -errno, "fork: %s", strerror(errno));
	while (waitpid(pid, &state, 0) < 0 && errno == EINTR)
		;
	if (state)
		return err_set(e, -ECHILD, "systemctl %s %s: failed: journalctl -u %s says why",
			       verb, unit, unit);
	return 0;
}

/* The two instances of a name take turns. */
static void other_instance(char out[SWAP_UNIT_MAX], const char *unit)
{
	size_t n = strlen(unit), next = sizeof(NEXT_UNIT) - 1;

	if (n > next && !strcmp(unit + n - next, NEXT_UNIT))
		snprintf(out, SWAP_UNIT_MAX, "%.*s", (int)(n - next), unit);
	else
		snprintf(out, SWAP_UNIT_MAX, "%.*s" NEXT_UNIT, (int)(SWAP_UNIT_MAX - next - 1),
			 unit);
}

/* A value in an EnvironmentFile, in double quotes; false: it cannot be written so. */
static bool write_value(FILE *f, const char *name, const char *value)
{
	if (strpbrk(value, "\n\r"))
		return false;
	fprintf(f, "%s=\"", name);
	for (; *value; value++)
		fprintf(f, strchr("\"\\`$", *value) ? "\\%c" : "%c", *value);
	fputs("\"\n", f);
	return true;
}

int daemon_unit_write(const struct daemon_options *o, const char *socket_path, struct err *e)
{
	char path[PATH_MAX], tmp[PATH_MAX + 8], options[8192] = "", name[64] = "llm0";
	const char *slash;
	size_t n = 0;
	bool ok;
	FILE *f;

	for (int i = 0; i < o->n; i++) {
		if (sscanf(o->option[i], "--name=%63s", name) == 1)
			continue;
		/* systemd splits $OPTIONS at spaces, and knows no quotes there. */
		if (strpbrk(o->option[i], " \t\n\"'\\$%"))
			return err_set(e, -EINVAL, "%s: cannot be given to a systemd unit",
				       o->option[i]);
		n += (size_t)snprintf(options + n, sizeof(options) - n, "%s ", o->option[i]);
		if (n >= sizeof(options))
			return err_set(e, -E2BIG, "options: too long for a systemd unit");
	}
	/* llmdevd@.service reads it where its sockets are. */
	slash = strrchr(socket_path, '/');
	snprintf(path, sizeof(path), "%.*s/%s.swap", slash ? (int)(slash - socket_path) : 0,
		 slash ? socket_path : "", o->unit);
	snprintf(tmp, sizeof(tmp), "%s.new", path);
	unlink(tmp);
	f = fopen(tmp, "wxe");
	if (!f)
		return err_set(e, -errno, "%s: %s: run this as root", tmp, strerror(errno));
	fputs("# Written by llmctl swap; gone with the next boot.\n", f);
	ok = write_value(f, "NAME", name) && write_value(f, "SOCKET", socket_path) &&
	     write_value(f, "MODEL", o->model) && write_value(f, "OPTIONS", options);
	fchmod(fileno(f), 0644);
	if (fclose(f) || !ok || rename(tmp, path)) {
		unlink(tmp);
		return err_set(e, -EIO, "%s: cannot be written", path);
	}
	return 0;
}

static int start_unit(const struct daemon_options *o, const char *socket_path,
		      struct daemon_process *started, struct err *e)
{
	struct daemon_options unit = *o;
	struct err stop;
	int rc;

	other_instance(unit.unit, o->unit);
	rc = daemon_unit_write(&unit, socket_path, e);
	if (rc)
		return rc;
	fprintf(stderr, "starting llmdevd@%s ...\n", unit.unit);
	/* It may have failed before, and has not been asked since. */
	systemctl("reset-failed", unit.unit, &stop);
	rc = systemctl("start", unit.unit, e);
	if (!rc && daemon_at(started, socket_path))
		rc = err_set(e, -ECHILD,
			     "llmdevd@%s does not serve %s: its unit file is not of this version",
			     unit.unit, socket_path);
	if (rc)
		systemctl("stop", unit.unit, &stop);
	return rc;
}

int daemon_start(const struct daemon_options *o, const struct daemon_process *like,
		 const char *socket_path, struct daemon_process *started, struct err *e)
{
	return o->unit[0] ? start_unit(o, socket_path, started, e)
			  : start_process(o, like, socket_path, started, e);
}

int daemon_stop(const struct daemon_process *p, const char *unit, struct err *e)
{
	const struct timespec pause = {.tv_nsec = POLL_MS * 1000000l};

	if (unit[0])
		return systemctl("stop", unit, e);
	if (kill(p->pid, SIGTERM))
		return errno == ESRCH
			       ? 0
			       : err_set(e, -errno, "process %d: %s", (int)p->pid, strerror(errno));
	for (int ms = 0; ms < STOP_MS; ms += POLL_MS) {
		char *left = read_proc(p->pid, "cmdline", NULL);
		/* That of a process that waits for its parent is empty. */
		bool gone = !left || !*left;

		free(left);
		if (gone)
			return 0;
		nanosleep(&pause, NULL);
	}
	return err_set(e, -ETIMEDOUT, "process %d: still there: kill it", (int)p->pid);
}
