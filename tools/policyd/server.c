// SPDX-License-Identifier: MIT
/*
 * The clients of llmdev-policyd: a packet of JSON in, one out (memory/policy.h). Who asks is known
 * from the socket; all but status is for root, policyd's own user and the group llmdev-admin.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "llm.h"
#include "memory/policy.h"
#include "policyd.h"

#define ADMIN_GROUP "llmdev-admin"
#define MAX_REQUEST 4096
#define MAX_SECONDS 864000.0

/* ---- the status ------------------------------------------------------------------------------ */

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)n);
}

static json_t *counters(const struct policyd *p)
{
	json_t *list = json_object();

	for (int i = 0; i < N_COUNTERS; i++) {
		const struct counter *c = &p->counter[i];

		json_object_set_new(list, counter_name(i),
				    json_pack("{sI sI sI sI sf ss}", "calls", (json_int_t)c->calls,
					      "failed", (json_int_t)c->failed, "asked",
					      (json_int_t)c->asked, "freed", (json_int_t)c->freed,
					      "seconds", (double)c->ns / 1e9, "last_error",
					      c->last_error));
	}
	return list;
}

static json_t *recent(const struct policyd *p)
{
	json_t *list = json_array();

	for (uint64_t n = 1; n <= MAX_RECENT && n <= p->n_recent; n++) {
		const struct recent *r = &p->recent[(p->n_recent - n) % MAX_RECENT];
		const struct room_done *d = &r->done;

		json_array_append_new(list,
				      json_pack("{sI ss ss sI sI sI sI sI sI sf ss sb}", "time",
						(json_int_t)r->wall_s, "why", r->why, "step",
						counter_name(r->counter), "asked",
						(json_int_t)d->asked, "freed", (json_int_t)d->freed,
						"free_before", (json_int_t)d->free_before,
						"free_after", (json_int_t)d->free_after,
						"blocks_before", (json_int_t)d->blocks_before,
						"blocks_after", (json_int_t)d->blocks_after,
						"seconds", (double)d->ns / 1e9, "note", d->note,
						"failed", d->error != 0));
	}
	return list;
}

static json_t *holds(const struct policyd *p)
{
	json_t *list = json_array();
	uint64_t now = policyd_clock();

	for (int i = 0; i < MAX_HOLDS; i++) {
		const struct holding *h = &p->hold[i];

		if (h->id)
			json_array_append_new(
				list,
				json_pack("{sI sI ss sf ss*}", "bytes", (json_int_t)h->room.bytes,
					  "left", (json_int_t)room_hold_left(&h->room, &p->now),
					  "who", h->who, "seconds", (double)(h->end_ns - now) / 1e9,
					  "until", h->has_until ? h->until.text : NULL));
	}
	return list;
}

/* What cannot be done here, in words; a machine can read the counters. */
static json_t *cannot(const struct policyd *p)
{
	json_t *list = json_array();

	if (*p->floors_note)
		json_array_append_new(list, json_string(p->floors_note));
	if (*p->watch_note)
		json_array_append_new(list, json_string(p->watch_note));
	for (int i = 0; i < N_COUNTERS; i++)
		if (*p->counter[i].last_error)
			json_array_append_new(list, json_sprintf("%s: %s", counter_name(i),
								 p->counter[i].last_error));
	return list;
}

static json_t *status(struct policyd *p)
{
	struct llm_mem_status st = {.size = sizeof(st)};
	json_t *j = json_pack("{sb ss}", "ok", 1, "mode", mode_name[p->config.mode]);

	mem_now_read(&p->now, p->root, p->page, NULL);
	json_object_set_new(j, "uptime", number((policyd_clock() - p->start_ns) / 1000000000));
	json_object_set_new(j, "floor_free", number(p->config.free));
	json_object_set_new(j, "floor_blocks", number(p->config.blocks));
	json_object_set_new(j, "total", number(p->now.total));
	json_object_set_new(j, "free", number(p->now.free));
	json_object_set_new(j, "available", number(p->now.available));
	json_object_set_new(j, "free_blocks_2m", number(p->now.blocks));
	json_object_set_new(j, "below", json_boolean(p->judge.below));
	json_object_set_new(j, "times_below", number(p->judge.below_count));
	json_object_set_new(j, "actions", number(p->actions));
	json_object_set_new(j, "observed", number(p->observed));
	json_object_set_new(j, "put_off", number(p->judge.put_off));
	json_object_set_new(j, "futile", number(p->judge.futile));
	json_object_set_new(j, "triggers", number(p->triggers));
	json_object_set_new(j, "reloads", number(p->reloads));
	json_object_set_new(j, "module_events", number(p->module_events));
	json_object_set_new(j, "psi_events", number(p->psi_events));
	json_object_set_new(j, "module", json_boolean(p->control >= 0));
	json_object_set_new(j, "module_floors", json_boolean(p->floors_are_module));
	json_object_set_new(j, "reserve", number(p->config.reserve));
	if (p->control >= 0 && !ioctl(p->control, LLM_IOC_MEM_STATUS, &st)) {
		json_object_set_new(j, "reserve_held", number(st.reserve_held));
		json_object_set_new(j, "released_shrinker", number(st.released_shrinker));
		json_object_set_new(j, "released_oom", number(st.released_oom));
	}
	json_object_set_new(j, "steps", counters(p));
	json_object_set_new(j, "holds", holds(p));
	json_object_set_new(j, "recent", recent(p));
	json_object_set_new(j, "cannot", cannot(p));
	return j;
}

/* ---- requests -------------------------------------------------------------------------------- */

static json_t *refusal(bool denied, const char *why)
{
	return json_pack("{sb sb ss}", "ok", 0, "denied", denied, "error", why);
}

static json_t *room_answer(const struct policyd *p, bool reached)
{
	return json_pack("{sb sb sI sI}", "ok", 1, "reached", reached, "free",
			 (json_int_t)p->now.free, "free_blocks_2m", (json_int_t)p->now.blocks);
}

static json_t *do_hold(struct policyd *p, int i, const json_t *q, uint64_t bytes)
{
	const char *text = json_string_value(json_object_get(q, "until")),
		   *name = json_string_value(json_object_get(q, "who"));
	double seconds = json_number_value(json_object_get(q, "seconds"));
	struct until until;
	bool reached;
	struct err e;
	char who[96];

	if (text && until_parse(&until, text, &e))
		return refusal(false, e.msg);
	if (seconds <= 0 || seconds > MAX_SECONDS)
		seconds = 600;
	snprintf(who, sizeof(who), "%.48s%spid %d", name ? name : "", name ? ", " : "",
		 (int)p->client[i].pid);
	for (char *s = who; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
	if (act_hold(p, bytes, text ? &until : NULL, seconds, text ? -1 : i, who, &reached, &e))
		return refusal(false, e.msg);
	return room_answer(p, reached);
}

static json_t *answer(struct policyd *p, int i, const json_t *q)
{
	const char *op = json_string_value(json_object_get(q, "op"));
	const json_t *n = json_object_get(q, "bytes");
	uint64_t bytes = json_is_integer(n) && json_integer_value(n) > 0
				 ? (uint64_t)json_integer_value(n)
				 : 0;
	struct err e;

	if (!op)
		return refusal(false, "no \"op\": say status, room, hold or release");
	if (!strcmp(op, "status"))
		return status(p);
	if (!p->client[i].admin)
		return refusal(true,
			       "only root and the group " ADMIN_GROUP " may ask for more than the "
			       "status");
	if (!strcmp(op, "release")) {
		act_release_all(p);
		return json_pack("{sb}", "ok", 1);
	}
	if (strcmp(op, "room") && strcmp(op, "hold"))
		return refusal(false, "unknown \"op\": there are status, room, hold and release");
	if (!bytes || bytes > (uint64_t)1 << 46)
		return refusal(false, "\"bytes\" has to be a whole number from 1 to 2^46");
	if (!strcmp(op, "hold"))
		return do_hold(p, i, q, bytes);
	if (act_room(p, bytes, "asked", &e))
		return refusal(false, e.msg);
	return room_answer(p, p->now.free >= bytes);
}

static void client_close(struct policyd *p, int i)
{
	act_release(p, i);
	close(p->client[i].fd);
	p->client[i].fd = -1;
}

void server_client(struct policyd *p, int i)
{
	char buf[MAX_REQUEST + 1], *text;
	ssize_t n = recv(p->client[i].fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_TRUNC);
	json_t *q, *a;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_close(p, i);
		return;
	}
	q = n <= MAX_REQUEST ? json_loadb(buf, (size_t)n, 0, NULL) : NULL;
	a = json_is_object(q) ? answer(p, i, q)
			      : refusal(false, "not one JSON object of at most 4096 bytes");
	json_decref(q);
	text = json_dumps(a, JSON_COMPACT | JSON_PRESERVE_ORDER);
	json_decref(a);
	/* Who does not read his answers is sent away: nothing waits here. */
	if (!text || send(p->client[i].fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		client_close(p, i);
	free(text);
}

/* ---- connections ----------------------------------------------------------------------------- */

static bool is_admin(const struct policyd *p, int fd, const struct ucred *who)
{
	gid_t groups[256];
	socklen_t len = sizeof(groups);

	if (who->uid == 0 || who->uid == geteuid())
		return true;
	if (!p->has_admin_gid)
		return false;
	if (who->gid == p->admin_gid)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len))
		return false;
	for (size_t i = 0; i < len / sizeof(groups[0]); i++)
		if (groups[i] == p->admin_gid)
			return true;
	return false;
}

void server_accept(struct policyd *p)
{
	int fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), i = 0;
	struct ucred who = {.uid = (uid_t)-1};
	socklen_t len = sizeof(who);

	if (fd < 0)
		return;
	while (i < MAX_CLIENTS && p->client[i].fd >= 0)
		i++;
	if (i == MAX_CLIENTS || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len)) {
		close(fd);
		return;
	}
	p->client[i] = (struct client){fd, who.uid, who.pid, is_admin(p, fd, &who)};
}

int server_open(struct policyd *p, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct group *g = getgrnam(ADMIN_GROUP);
	char dir[sizeof(addr.sun_path)], *slash;
	int fd;

	p->listen_fd = -1;
	p->has_admin_gid = g != NULL;
	p->admin_gid = g ? g->gr_gid : 0;
	if (strlen(p->socket_path) >= sizeof(addr.sun_path))
		return err_set(e, -ENAMETOOLONG, "--socket: %.32s...: too long a path",
			       p->socket_path);
	strcpy(addr.sun_path, p->socket_path);
	strcpy(dir, p->socket_path);
	slash = strrchr(dir, '/');
	if (slash && slash != dir) {
		*slash = '\0';
		mkdir(dir, 0755); /* what counts is whether the bind succeeds */
	}
	fd = policyd_connect(p->socket_path, NULL);
	if (fd >= 0) {
		close(fd);
		return err_set(e, -EADDRINUSE, "%s: another llmdev-policyd serves it",
			       p->socket_path);
	}
	if (fd == -ECONNREFUSED)
		unlink(p->socket_path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Everybody may ask for the status: who may do more is decided by who asks. */
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    chmod(p->socket_path, 0666) || listen(fd, 16)) {
		int rc = -errno;

		if (fd >= 0)
			close(fd);
		return err_set(e, rc, "%s: %s", p->socket_path, strerror(-rc));
	}
	p->listen_fd = fd;
	return 0;
}

void server_close(struct policyd *p)
{
	for (int i = 0; i < MAX_CLIENTS; i++)
		if (p->client[i].fd >= 0)
			client_close(p, i);
	if (p->listen_fd >= 0) {
		close(p->listen_fd);
		unlink(p->socket_path);
	}
}
