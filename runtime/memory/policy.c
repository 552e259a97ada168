// SPDX-License-Identifier: MIT
/* Asking llmdev-policyd, and room for a daemon; see policy.h. Owns nothing beyond a call. */
#include "memory/policy.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "memory/reclaim.h"

#define ROOM_SECONDS 60

int policyd_connect(const char *path, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, rc;

	if (!path)
		path = getenv(POLICYD_ENV);
	if (!path || !*path)
		path = POLICYD_SOCKET;
	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(e, -ENAMETOOLONG, "%.64s...: too long for a socket", path);
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, -errno, "socket: %s", strerror(errno));
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fd;
	rc = -errno;
	close(fd);
	return err_set(e, rc, "%s: %s: %s", path, strerror(-rc),
		       rc == -EACCES
			       ? "its folder is closed to this user"
			       : "llmdev-policyd does not run: systemctl start llmdev-policyd");
}

/* One packet within the time; its length or -errno. */
static ssize_t receive(int fd, char *buf, double seconds)
{
	struct timespec ts;
	double end;
	ssize_t n;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	end = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9 + seconds;
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		double left;

		clock_gettime(CLOCK_MONOTONIC, &ts);
		left = end - ((double)ts.tv_sec + (double)ts.tv_nsec / 1e9);
		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)(left * 1000) + 1) <= 0)
			continue;
		n = recv(fd, buf, POLICYD_PACKET_MAX, MSG_DONTWAIT);
		if (n >= 0)
			return n;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
	}
}

int policyd_ask(int fd, json_t *request, double seconds, json_t **answer, struct err *e)
{
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL, *buf;
	ssize_t n;
	int rc = 0;

	*answer = NULL;
	json_decref(request);
	buf = text ? malloc(POLICYD_PACKET_MAX) : NULL;
	if (!buf)
		rc = err_set(e, -ENOMEM, "no memory");
	else if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		rc = err_set(e, -errno, "llmdev-policyd: %s", strerror(errno));
	free(text);
	if (!rc) {
		n = receive(fd, buf, seconds);
		if (n <= 0)
			rc = err_set(e, n ? (int)n : -ECONNRESET, "llmdev-policyd: %s",
				     n ? strerror((int)-n) : "it ended the connection");
		else
			*answer = json_loadb(buf, (size_t)n, 0, NULL);
	}
	free(buf);
	if (rc)
		return rc;
	if (!json_is_object(*answer)) {
		json_decref(*answer);
		*answer = NULL;
		return err_set(e, -EPROTO, "llmdev-policyd: its answer is no JSON object");
	}
	if (!json_is_true(json_object_get(*answer, "ok"))) {
		const char *why = json_string_value(json_object_get(*answer, "error"));

		rc = json_is_true(json_object_get(*answer, "denied")) ? -EPERM : -EINVAL;
		err_set(e, rc, "llmdev-policyd: %s", why ? why : "refused");
		json_decref(*answer);
		*answer = NULL;
	}
	return rc;
}

/* ---- room for a daemon ----------------------------------------------------------------------- */

static bool ask_policyd(uint64_t bytes, struct memory_room *out)
{
	struct err e;
	int fd = policyd_connect(NULL, &e), rc;
	json_t *answer;

	if (fd < 0)
		return false;
	out->policyd = true;
	rc = policyd_ask(fd, json_pack("{ss sI}", "op", "room", "bytes", (json_int_t)bytes),
			 ROOM_SECONDS, &answer, &e);
	close(fd);
	if (rc) {
		snprintf(out->who, sizeof(out->who), "%.150s", e.msg);
		return false;
	}
	json_decref(answer);
	snprintf(out->who, sizeof(out->who), "llmdev-policyd");
	return true;
}

static void ask_module(uint64_t bytes, struct memory_room *out, int control)
{
	struct room_means m = {.root = "",
			       .page = (size_t)sysconf(_SC_PAGESIZE),
			       .allowed = ROOM_BIT(ROOM_MODULE),
			       .control = control};
	struct room_goal goal = {.free = bytes};
	struct err e;

	if (control < 0) {
		if (!*out->who)
			snprintf(out->who, sizeof(out->who),
				 "nobody: llmdev-policyd does not run, and the module llm is not "
				 "there for this user");
		return;
	}
	if (!room_make(&m, &goal, NULL, NULL, &out->after, &e))
		snprintf(out->who, sizeof(out->who), "the module llm");
}

int memory_make_room(uint64_t bytes, struct memory_room *out, struct err *e)
{
	char need[MEM_SIZE_TEXT], have[MEM_SIZE_TEXT], free[MEM_SIZE_TEXT], reserve[MEM_SIZE_TEXT],
		short_of[MEM_SIZE_TEXT];
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct mem_held held;
	uint64_t there;
	int rc, control;

	*out = (struct memory_room){.asked = bytes};
	rc = mem_now_read(&out->before, "", page, e);
	if (rc)
		return rc;
	out->after = out->before;
	control = room_control(NULL);
	room_held(control, &held);
	out->reserve = held.reserve;
	/* MemAvailable has the reserve in it. What could never fit is not worth anybody's cache. */
	if (bytes <= out->before.available && out->before.free < bytes && !ask_policyd(bytes, out))
		ask_module(bytes, out, control);
	if (control >= 0)
		close(control);
	mem_now_read(&out->after, "", page, NULL);
	out->reached = out->after.free >= bytes;
	there = out->after.available > out->before.available ? out->after.available
							     : out->before.available;
	if (bytes <= there)
		return 0;
	return err_set(
		e, -ENOMEM,
		"memory: %s needed, %s available (%s of it free, %s in the reserve), %s missing: "
		"stop other programs, or use a smaller context or model: llmctl mem shows who has "
		"it",
		mem_size(need, bytes), mem_size(have, there), mem_size(free, out->after.free),
		mem_size(reserve, held.reserve), mem_size(short_of, bytes - there));
}
