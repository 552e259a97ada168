// SPDX-License-Identifier: MIT
/* Conditions; see until.h. Owns nothing beyond a call; starts systemctl, docker or podman. */
#include "memory/until.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS	   1000 /* for a connection, an answer */
#define PROGRAM_MS 5000 /* for systemctl and docker */

extern char **environ;

/* ---- reading --------------------------------------------------------------------------------- */

static bool number(const char *s, long lo, long hi, int *out)
{
	char *end;
	long n;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	n = strtol(s, &end, 10);
	*out = (int)n;
	return !errno && !*end && n >= lo && n <= hi;
}

/* A name that is safe as an argument of a program. */
static bool plain(const char *s)
{
	if (!isalnum((unsigned char)*s) && *s != '_')
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("._@:-/\\", *s))
			return false;
	return true;
}

static bool address(struct until *u, const char *s)
{
	unsigned char in[sizeof(struct in6_addr)];
	const char *colon = strrchr(s, ':');

	u->name[0] = '\0';
	if (colon) {
		size_t n = (size_t)(colon - s);

		if (n > 1 && s[0] == '[' && s[n - 1] == ']') {
			s++;
			n -= 2;
		}
		if (!n || n >= sizeof(u->name))
			return false;
		memcpy(u->name, s, n);
		u->name[n] = '\0';
		s = colon + 1;
		/* No names: looking one up may take longer than anybody wants to wait here. */
		if (inet_pton(AF_INET, u->name, in) != 1 && inet_pton(AF_INET6, u->name, in) != 1)
			return false;
	}
	return number(s, 1, 65535, &u->number);
}

static bool http(struct until *u, char *s)
{
	char *slash = strchr(s, '/');

	snprintf(u->path, sizeof(u->path), "%s", slash ? slash : "/");
	if (slash)
		*slash = '\0';
	for (const char *p = u->path; *p; p++)
		if (!isgraph((unsigned char)*p))
			return false;
	return address(u, s);
}

int until_parse(struct until *u, const char *text, struct err *e)
{
	size_t len = strlen(text);
	char copy[256];
	bool ok;

	*u = (struct until){0};
	if (len >= sizeof(u->text))
		return err_set(e, -EINVAL, "%.32s...: too long a condition", text);
	memcpy(u->text, text, len + 1);
	memcpy(copy, text, len + 1);
	if (!strncmp(text, "http:", 5)) {
		u->kind = UNTIL_HTTP;
		ok = http(u, copy + 5);
	} else if (!strncmp(text, "unit:", 5) || (len > 8 && !strcmp(text + len - 8, ".service"))) {
		u->kind = UNTIL_UNIT;
		strcpy(u->name, !strncmp(text, "unit:", 5) ? text + 5 : text);
		ok = plain(u->name);
	} else if (!strncmp(text, "container:", 10)) {
		u->kind = UNTIL_CONTAINER;
		strcpy(u->name, text + 10);
		ok = plain(u->name);
	} else if (!strncmp(text, "pid:", 4)) {
		u->kind = UNTIL_PID;
		ok = number(text + 4, 1, 1 << 30, &u->number);
		if (ok && kill(u->number, 0) && errno == ESRCH)
			return err_set(e, -ESRCH, "%s: no such process", text);
	} else {
		u->kind = UNTIL_PORT;
		ok = address(u, !strncmp(text, "port:", 5) ? text + 5 : text);
	}
	if (!ok)
		return err_set(e, -EINVAL,
			       "`%s` is no condition: give PORT, port:ADDR:PORT, http:PORT/PATH, "
			       "unit:NAME, container:NAME or pid:N",
			       text);
	return 0;
}

/* ---- ports ----------------------------------------------------------------------------------- */

static bool wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, WAIT_MS) > 0;
}

/* A connected socket or -1. */
static int connect_to(const char *host, int port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST},
			*list, *a;
	int fd = -1, error = 0;
	char service[16];
	socklen_t len = sizeof(error);

	snprintf(service, sizeof(service), "%d", port);
	if (getaddrinfo(host, service, &hints, &list))
		return -1;
	for (a = list; a; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0)
			continue;
		if (!connect(fd, a->ai_addr, a->ai_addrlen) ||
		    (errno == EINPROGRESS && wait_for(fd, POLLOUT) &&
		     !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) && !error))
			break;
		close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	return fd;
}

static int connect_any(const struct until *u)
{
	int fd = connect_to(*u->name ? u->name : "127.0.0.1", u->number);

	return fd < 0 && !*u->name ? connect_to("::1", u->number) : fd;
}

static int port_holds(const struct until *u)
{
	int fd = connect_any(u);

	if (fd < 0)
		return 0;
	close(fd);
	return 1;
}

static int http_holds(const struct until *u)
{
	int fd = connect_any(u), status = 0;
	char buf[1024];
	size_t have = 0;

	if (fd < 0)
		return 0;
	snprintf(buf, sizeof(buf), "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", u->path,
		 *u->name ? u->name : "localhost");
	if (send(fd, buf, strlen(buf), MSG_NOSIGNAL) > 0) {
		while (have < 15 && wait_for(fd, POLLIN)) {
			ssize_t n = recv(fd, buf + have, sizeof(buf) - 1 - have, 0);

			if (n <= 0)
				break;
			have += (size_t)n;
		}
		buf[have] = '\0';
		sscanf(buf, "HTTP/%*d.%*d %d", &status);
	}
	close(fd);
	return status == 200;
}

/* ---- programs -------------------------------------------------------------------------------- */

/* What a program prints, at most len - 1 bytes; -ENOENT: there is none. */
static int ask_program(char *const argv[], char *out, size_t len)
{
	posix_spawn_file_actions_t actions;
	int p[2], rc, status = 0;
	size_t have = 0;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC))
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, p[1], 1);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	rc = -posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(p[1]);
	for (int waited = 0; !rc && waited < PROGRAM_MS; waited += 100) {
		struct pollfd f = {.fd = p[0], .events = POLLIN};
		ssize_t n;

		if (poll(&f, 1, 100) <= 0)
			continue;
		n = read(p[0], out + have, len - 1 - have);
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	close(p[0]);
	out[have] = '\0';
	out[strcspn(out, "\n")] = '\0';
	if (rc)
		return rc;
	for (int i = 0; waitpid(pid, &status, WNOHANG) == 0; i++) {
		if (i == 20)
			kill(pid, SIGKILL);
		usleep(10000);
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 127 ? -ENOENT : 0;
}

static int unit_holds(const struct until *u, struct err *e)
{
	char *argv[] = {"systemctl", "show",	      "-p", "ActiveState", "--value",
			"--",	     (char *)u->name, NULL};
	char out[64];
	int rc = ask_program(argv, out, sizeof(out));

	if (rc)
		return err_set(e, rc, "%s: systemctl: %s", u->text, strerror(-rc));
	return !strcmp(out, "active");
}

static int container_holds(const struct until *u, struct err *e)
{
	static const char format[] =
		"{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}";
	char *argv[] = {"docker",	"inspect", "--type",	    "container", "--format",
			(char *)format, "--",	   (char *)u->name, NULL};
	char out[128];
	int rc = ask_program(argv, out, sizeof(out));

	if (rc == -ENOENT) {
		argv[0] = "podman";
		rc = ask_program(argv, out, sizeof(out));
	}
	if (rc)
		return err_set(e, rc, "%s: neither docker nor podman can be asked: %s", u->text,
			       strerror(-rc));
	return !strcmp(out, "running ") || !strcmp(out, "running") ||
	       !strcmp(out, "running healthy");
}

int until_holds(const struct until *u, struct err *e)
{
	switch (u->kind) {
	case UNTIL_PORT:
		return port_holds(u);
	case UNTIL_HTTP:
		return http_holds(u);
	case UNTIL_UNIT:
		return unit_holds(u, e);
	case UNTIL_CONTAINER:
		return container_holds(u, e);
	case UNTIL_PID:
		return kill(u->number, 0) && errno == ESRCH;
	}
	return 0;
}
