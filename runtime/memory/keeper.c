// SPDX-License-Identifier: MIT
/*
 * The keeper's side (keeper.h). Owns the listening socket, its lock file, one connection for each
 * client and the memfds. Single-threaded, no locks; nothing blocks on a client: what does not take its
 * answer at once is disconnected.
 */
#include "memory/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/notify.h"

#define FIRST_STORED 3 /* descriptor of what the service manager hands out */
/* After the last one is gone, and before the first one comes. */
#define IDLE_MS	 3000
#define CHECK_MS 10000 /* that the socket is still there */

/* A name: claimed by a client (fd < 0) or kept. */
struct kept {
	char name[REGION_NAME_MAX];
	int fd;
	int claimer; /* index of the client; -1: none */
	pid_t pid;
	uint64_t bytes, created_ns;
};

struct client {
	int fd; /* -1: free */
	pid_t pid;
	struct kept *uses;
};

struct keeper {
	const char *path;
	int listener, lock, signals;
	struct client client[KEEPER_MAX_CLIENTS];
	int n_clients; /* connected */
	struct kept *kept[KEEPER_MAX_REGIONS];
	int n_kept;
};

void keeper_socket_path(char *path, size_t len)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");

	snprintf(path, len, "%s/llmdev/keeper.sock", dir && *dir == '/' ? dir : "/run");
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- what is kept ---------------------------------------------------------------------------------- */

static struct kept *find(struct keeper *k, const char *name)
{
	for (int i = 0; i < k->n_kept; i++)
		if (!strcmp(k->kept[i]->name, name))
			return k->kept[i];
	return NULL;
}

static void drop(struct keeper *k, struct kept *one)
{
	for (int i = 0; i < k->n_kept; i++)
		if (k->kept[i] == one)
			k->kept[i] = k->kept[--k->n_kept];
	for (int i = 0; i < KEEPER_MAX_CLIENTS; i++)
		if (k->client[i].uses == one)
			k->client[i].uses = NULL;
	if (one->fd >= 0)
		close(one->fd);
	free(one);
}

static uint32_t users(const struct keeper *k, const struct kept *one)
{
	uint32_t n = 0;

	for (int i = 0; i < KEEPER_MAX_CLIENTS; i++)
		n += k->client[i].fd >= 0 && k->client[i].uses == one;
	return n;
}

/* `client`: who fills it; -1: nobody, it is filled. */
static int claim(struct keeper *k, int client, const char *name)
{
	struct kept *one = find(k, name);

	if (one)
		return one->fd < 0 ? EBUSY : EEXIST;
	if (k->n_kept == KEEPER_MAX_REGIONS)
		return ENOSPC;
	one = calloc(1, sizeof(*one));
	if (!one)
		return ENOMEM;
	snprintf(one->name, sizeof(one->name), "%s", name);
	one->fd = -1;
	one->claimer = client;
	one->pid = client < 0 ? 0 : k->client[client].pid;
	one->created_ns = now_ns();
	k->kept[k->n_kept++] = one;
	return 0;
}

/* Takes `fd` over if it returns 0. */
static int keep(struct keeper *k, int client, const char *name, int fd)
{
	struct kept *one = find(k, name);
	struct stat st;
	int seals;

	if (!one || one->claimer != client)
		return EPERM;
	seals = fd < 0 ? -1 : fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & KEEPER_SEALS) != KEEPER_SEALS || fstat(fd, &st))
		return EINVAL;
	one->fd = fd;
	one->claimer = -1;
	one->bytes = (uint64_t)st.st_size;
	one->created_ns = now_ns();
	if (client >= 0)
		k->client[client].uses = one;
	return 0;
}

/* ---- the service manager ------------------------------------------------------------------------------ */

/*
 * It holds the same descriptors, where it is told so (FileDescriptorStoreMax=), and hands them to the
 * next keeper: see sd_pid_notify_with_fds(3), sd_listen_fds(3). Its names have no colons, ours no slashes.
 * `fd` -1: it may let go of it.
 */
static void tell_manager(const char *name, int fd)
{
	char state[REGION_NAME_MAX + 32];

	snprintf(state, sizeof(state), "%s=1\nFDNAME=%s", fd < 0 ? "FDSTOREREMOVE" : "FDSTORE",
		 name);
	for (char *c = state; *c; c++)
		*c = *c == ':' ? '/' : *c;
	notify_manager_fd(state, fd);
}

/* What the last keeper held; anything else is closed. */
static void take_stored(struct keeper *k)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	const char *names = getenv("LISTEN_FDNAMES");
	int n = pid && count && strtol(pid, NULL, 10) == getpid() ? atoi(count) : 0;

	for (int fd = FIRST_STORED;
	     names && n > 0 && n <= KEEPER_MAX_REGIONS && fd < FIRST_STORED + n; fd++) {
		size_t len = strcspn(names, ":");
		char name[REGION_NAME_MAX] = "";

		if (len < sizeof(name))
			memcpy(name, names, len);
		names += len + (names[len] == ':');
		for (char *c = name; *c; c++)
			*c = *c == '/' ? ':' : *c;
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		if (!region_name_ok(name) || claim(k, -1, name)) {
			close(fd);
		} else if (keep(k, -1, name, fd)) {
			close(fd);
			tell_manager(name, -1);
			drop(k, find(k, name));
		}
	}
}

static void describe(const struct keeper *k, const struct kept *one, struct keeper_msg *m)
{
	memcpy(m->name, one->name, sizeof(m->name));
	m->pid = one->pid;
	m->bytes = one->bytes;
	m->created_ns = one->created_ns;
	m->users = users(k, one);
	m->flags = one->fd < 0 ? KEEPER_CLAIMED : 0;
}

/* ---- clients ------------------------------------------------------------------------------------------ */

static void disconnect(struct keeper *k, int i)
{
	close(k->client[i].fd);
	k->client[i] = (struct client){.fd = -1};
	k->n_clients--;
	for (int j = k->n_kept; j-- > 0;)
		if (k->kept[j]->fd < 0 && k->kept[j]->claimer == i)
			drop(k, k->kept[j]);
}

/* False: it does not read, or is gone. */
static bool answer(int fd, const struct keeper_msg *m, int pass)
{
	return keeper_send(fd, m, pass, MSG_DONTWAIT);
}

static bool answer_list(struct keeper *k, int fd)
{
	struct keeper_msg m;

	for (int i = 0; i < k->n_kept; i++) {
		m = (struct keeper_msg){.op = KEEPER_LIST};
		describe(k, k->kept[i], &m);
		m.flags |= KEEPER_MORE;
		if (!answer(fd, &m, -1))
			return false;
	}
	m = (struct keeper_msg){.op = KEEPER_LIST};
	return answer(fd, &m, -1);
}

/* One request; `fd` came along or is -1, and is closed unless it is kept. False: disconnect. */
static bool serve_request(struct keeper *k, int i, const struct keeper_msg *q, int fd)
{
	struct keeper_msg a = {.op = q->op};
	struct kept *one = NULL;
	int pass = -1;

	if (q->op == KEEPER_LIST) {
		if (fd >= 0)
			close(fd);
		return answer_list(k, k->client[i].fd);
	}
	if (!memchr(q->name, 0, sizeof(q->name)) || !region_name_ok(q->name)) {
		a.error = EINVAL;
	} else if (q->op == KEEPER_CLAIM) {
		a.error = claim(k, i, q->name);
	} else if (q->op == KEEPER_KEEP) {
		a.error = keep(k, i, q->name, fd);
		if (!a.error) {
			tell_manager(q->name, fd);
			fd = -1;
		}
	} else if (q->op == KEEPER_OPEN || q->op == KEEPER_DROP) {
		one = find(k, q->name);
		a.error = !one ? ENOENT : one->fd < 0 ? EAGAIN : 0;
	} else {
		a.error = EOPNOTSUPP;
	}
	if (one && !a.error && q->op == KEEPER_OPEN) {
		if (q->flags & KEEPER_USE)
			k->client[i].uses = one;
		describe(k, one, &a);
		pass = one->fd;
	} else if (one && !a.error) {
		tell_manager(q->name, -1);
		drop(k, one);
	}
	if (fd >= 0)
		close(fd);
	return answer(k->client[i].fd, &a, pass);
}

/* Reads one message; false: the client is gone or talks nonsense. */
static bool take_request(struct keeper *k, int i)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct keeper_msg q = {0};
	struct iovec iov = {&q, sizeof(q)};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	ssize_t n = recvmsg(k->client[i].fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd = -1;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= c->cmsg_len; at += sizeof(int)) {
			int got;

			memcpy(&got, CMSG_DATA(c) + at, sizeof(got));
			if (fd < 0)
				fd = got;
			else
				close(got);
		}
	}
	if (n != sizeof(q) || (h.msg_flags & MSG_TRUNC)) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	return serve_request(k, i, &q, fd);
}

static void take_client(struct keeper *k)
{
	int fd = accept4(k->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), i = 0;
	struct ucred who;
	socklen_t len = sizeof(who);

	if (fd < 0)
		return;
	while (i < KEEPER_MAX_CLIENTS && k->client[i].fd >= 0)
		i++;
	if (i == KEEPER_MAX_CLIENTS || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) ||
	    (who.uid != geteuid() && who.uid)) {
		close(fd);
		return;
	}
	k->client[i] = (struct client){.fd = fd, .pid = who.pid};
	k->n_clients++;
}

/* ---- the socket ----------------------------------------------------------------------------------------- */

static void make_parent(const char *path)
{
	char dir[108];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return;
	*slash = '\0';
	mkdir(dir, 0755); /* what matters is whether the bind succeeds */
}

/* Whoever holds the lock may replace the socket. */
static int take_lock(struct keeper *k, const char *path, struct err *e)
{
	char name[128];

	make_parent(path);
	snprintf(name, sizeof(name), "%s.lock", path);
	k->lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (k->lock < 0)
		return err_set(e, -errno, "%s: %s: is XDG_RUNTIME_DIR set?", name, strerror(errno));
	if (flock(k->lock, LOCK_EX | LOCK_NB))
		return err_set(e, -EEXIST, "%s: another keeper serves it", path);
	return 0;
}

static int listen_at(struct keeper *k, const char *path, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	mode_t mask;
	int rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(e, -ENAMETOOLONG, "%s: longer than %zu bytes", path,
			       sizeof(addr.sun_path) - 1);
	rc = take_lock(k, path, e);
	if (rc)
		return rc;
	strcpy(addr.sun_path, path);
	unlink(path);
	k->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(0177);
	rc = k->listener < 0 || bind(k->listener, (struct sockaddr *)&addr, sizeof(addr)) ||
			     listen(k->listener, 32)
		     ? -errno
		     : 0;
	umask(mask);
	return rc ? err_set(e, rc, "%s: cannot be served: %s", path, strerror(-rc)) : 0;
}

/* One turn: false when it is time to end. */
static bool turn(struct keeper *k, bool stay)
{
	struct pollfd p[KEEPER_MAX_CLIENTS + 2] = {{.fd = k->listener, .events = POLLIN},
						   {.fd = k->signals, .events = POLLIN}};
	bool idle = !stay && !k->n_clients && !k->n_kept;
	int n;

	for (int i = 0; i < KEEPER_MAX_CLIENTS; i++)
		p[i + 2] = (struct pollfd){.fd = k->client[i].fd, .events = POLLIN};
	n = poll(p, KEEPER_MAX_CLIENTS + 2, idle ? IDLE_MS : CHECK_MS);
	if (n < 0)
		return errno == EINTR;
	/* Whoever removed the socket removed the way to everything that is kept. */
	if (!n)
		return !idle && !access(k->path, F_OK);
	if (p[1].revents)
		return false;
	for (int i = 0; i < KEEPER_MAX_CLIENTS; i++)
		if (p[i + 2].revents && !take_request(k, i))
			disconnect(k, i);
	if (p[0].revents)
		take_client(k);
	return true;
}

int keeper_serve(const char *path, bool stay, struct err *e)
{
	struct keeper *k = calloc(1, sizeof(*k));
	sigset_t set;
	int rc;

	if (!k)
		return err_set(e, -ENOMEM, "keeper: no memory");
	k->path = path;
	k->listener = k->lock = -1;
	for (int i = 0; i < KEEPER_MAX_CLIENTS; i++)
		k->client[i].fd = -1;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	k->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	rc = k->signals < 0 ? err_set(e, -errno, "signalfd: %s", strerror(errno))
			    : listen_at(k, path, e);
	if (!rc) {
		take_stored(k);
		while (turn(k, stay))
			;
		unlink(path);
	}
	while (k->n_kept)
		drop(k, k->kept[0]);
	for (int i = 0; i < KEEPER_MAX_CLIENTS; i++)
		if (k->client[i].fd >= 0)
			close(k->client[i].fd);
	if (k->listener >= 0)
		close(k->listener);
	if (k->signals >= 0)
		close(k->signals);
	if (k->lock >= 0)
		close(k->lock);
	free(k);
	return rc;
}
