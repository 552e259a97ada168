// SPDX-License-Identifier: MIT
/*
 * Regions that the user's keeper holds (keeper.h): the client's side, and starting a keeper. No state.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memory/keeper.h"
#include "memory/region_int.h"

#define ANSWER_S  5 /* a keeper that takes longer is none */
#define START_MS  3000 /* until a keeper that was started listens */
#define PATH_SIZE 4096

/* ---- connecting ------------------------------------------------------------------------------------ */

/* -1: unknown. */
static uid_t owner(int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) ? (uid_t)-1 : who.uid;
}

/* What a keeper hands out is believed if it is this user's own or root's; root may look at any. */
static int try_connect(const char *path, bool to_believe)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = ANSWER_S};
	uid_t uid;
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	uid = owner(fd);
	if (uid != geteuid() && uid && (to_believe || geteuid())) {
		close(fd);
		return -EPERM;
	}
	return fd;
}

/* Its directory is there, or can be made, and may be written to. */
static bool can_listen(const char *socket)
{
	char dir[128];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", socket);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return true;
	*slash = '\0';
	mkdir(dir, 0755);
	return !access(dir, W_OK | X_OK);
}

/* The program beside this one, as built or as installed. */
static bool find_program(char *path)
{
	static const char *const places[] = {"", "../sbin/", "../"};
	char self[PATH_SIZE];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n <= 0)
		return false;
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return false;
	*slash = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		int len = snprintf(path, PATH_SIZE, "%s/%sllmdev-keeper", self, places[i]);

		if (len < PATH_SIZE && !access(path, X_OK))
			return true;
	}
	return false;
}

/* In the grandchild, between fork and exec: only what is safe after a fork with threads. */
static void become_keeper(const char *path)
{
	char *const argv[] = {(char *)path, NULL};
	sigset_t none;
	int null;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
	close_range(3, ~0u, 0);
	if (!chdir("/"))
		execv(path, argv);
	_exit(1);
}

/* A process of its own, nobody's child: it shall outlive this one, whatever ends it. */
static int start_keeper(const char *socket, struct err *e)
{
	char path[PATH_SIZE];
	pid_t pid;

	/* Under a service manager it would be killed together with the service. */
	if (getenv("NOTIFY_SOCKET"))
		return err_set(
			e, -ESRCH,
			"keeper: none runs, and one that a service starts would end with it: "
			"systemctl enable --now llmdev-keeper");
	if (!can_listen(socket))
		return err_set(e, -ESRCH,
			       "keeper: no socket can be made at %s: set XDG_RUNTIME_DIR", socket);
	if (!find_program(path))
		return err_set(e, -ESRCH,
			       "keeper: llmdev-keeper is neither beside this program nor in "
			       "../sbin: install it");
	pid = fork();
	if (!pid) {
		if (!fork())
			become_keeper(path);
		_exit(0);
	}
	if (pid < 0)
		return err_set(e, -ESRCH, "keeper: cannot be started: %s", strerror(errno));
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

int region_keeper_connect(bool start, struct err *e)
{
	char path[128];
	int fd, rc;

	keeper_socket_path(path, sizeof(path));
	fd = try_connect(path, start);
	if (fd < 0 && fd != -ENOENT && fd != -ECONNREFUSED)
		return err_set(e, fd, "%s: %s", path,
			       fd == -EPERM ? "another user's keeper is there" : strerror(-fd));
	if (fd >= 0)
		return fd;
	if (!start)
		return err_set(e, -ENOENT, "%s: no keeper runs there", path);
	rc = start_keeper(path, e);
	for (int ms = 0; !rc && ms < START_MS; ms += 10) {
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		fd = try_connect(path, start);
		if (fd >= 0)
			return fd;
	}
	return rc ? rc
		  : err_set(e, -ESRCH,
			    "%s: llmdev-keeper does not listen there: try it by hand: "
			    "llmdev-keeper",
			    path);
}

void region_keeper_reconnect(struct region_store *s)
{
	region_store_close(s);
	s->fd = region_keeper_connect(false, NULL);
	if (s->fd < 0)
		s->fd = -1;
}

/* ---- asking ----------------------------------------------------------------------------------------- */

static int lost(struct err *e, int code)
{
	return err_set(e, -EPIPE, "keeper: lost it: %s: start again",
		       code ? strerror(code) : "it ended");
}

/* *got: a descriptor that came along, else -1; NULL: none is expected. */
static int take_answer(int fd, struct keeper_msg *a, int *got, struct err *e)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {a, sizeof(*a)};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = got ? control.buf : NULL,
			   .msg_controllen = got ? sizeof(control.buf) : 0};
	struct cmsghdr *c;
	ssize_t n;

	if (got)
		*got = -1;
	do {
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	c = n > 0 && got ? CMSG_FIRSTHDR(&h) : NULL;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(got, CMSG_DATA(c), sizeof(int));
	if (n == sizeof(*a) && memchr(a->name, 0, sizeof(a->name)))
		return 0;
	if (got && *got >= 0)
		close(*got);
	return lost(e, n < 0 ? errno : 0);
}

/* -errno, of the connection or of the keeper's answer. */
static int ask(int fd, uint32_t op, uint32_t flags, const char *name, int pass,
	       struct keeper_msg *a, int *got, struct err *e)
{
	struct keeper_msg q = {.op = op, .flags = flags};
	int rc;

	memcpy(q.name, name, strnlen(name, sizeof(q.name) - 1));
	rc = keeper_send(fd, &q, pass, 0) ? 0 : lost(e, errno);
	if (!rc)
		rc = take_answer(fd, a, got, e);
	if (rc || !a->error)
		return rc;
	switch (a->error) {
	case ENOENT:
		return err_set(e, -ENOENT, "region %s: the keeper has none of that name", name);
	case EAGAIN:
	case EBUSY:
		return err_set(e, -a->error, "region %s: another process is filling it", name);
	case EEXIST:
		return err_set(e, -EEXIST, "region %s: the name is taken", name);
	case ENOSPC:
		return err_set(e, -ENOSPC, "region %s: the keeper holds %d: destroy some", name,
			       KEEPER_MAX_REGIONS);
	}
	return err_set(e, -a->error, "region %s: the keeper refuses: %s", name, strerror(a->error));
}

/* ---- regions ------------------------------------------------------------------------------------------- */

int region_keeper_create(int fd, struct region *r, struct err *e)
{
	struct keeper_msg a;
	int memfd, rc = ask(fd, KEEPER_CLAIM, 0, r->name, -1, &a, NULL, e);

	if (rc)
		return rc == -EBUSY ? -EEXIST : rc;
	memfd = memfd_create(r->name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (memfd < 0 || ftruncate(memfd, (off_t)r->mapped)) {
		rc = err_set(e, -errno, "region %s: memfd of %zu bytes: %s", r->name, r->mapped,
			     strerror(errno));
		if (memfd >= 0)
			close(memfd);
		return rc;
	}
	return memfd;
}

int region_keeper_seal(int fd, struct region *r, struct err *e)
{
	struct keeper_msg a;

	if (fcntl(r->fd, F_ADD_SEALS, KEEPER_SEALS))
		return err_set(e, -errno, "region %s: memfd cannot be sealed: %s", r->name,
			       strerror(errno));
	return ask(fd, KEEPER_KEEP, 0, r->name, r->fd, &a, NULL, e);
}

int region_keeper_open(int fd, bool use, struct region *r, struct err *e)
{
	struct keeper_msg a;
	struct stat st;
	int memfd, seals, rc;

	rc = ask(fd, KEEPER_OPEN, use ? KEEPER_USE : 0, r->name, -1, &a, &memfd, e);
	if (rc)
		return rc;
	seals = memfd < 0 ? -1 : fcntl(memfd, F_GET_SEALS);
	if (seals < 0 || (seals & KEEPER_SEALS) != KEEPER_SEALS || fstat(memfd, &st)) {
		if (memfd >= 0)
			close(memfd);
		return err_set(e, -EINVAL, "region %s: what the keeper gave is no sealed memfd",
			       r->name);
	}
	r->bytes = (size_t)st.st_size;
	return memfd;
}

int region_keeper_list(int fd, struct region_fact **out, size_t *n, struct err *e)
{
	struct keeper_msg q = {.op = KEEPER_LIST}, a;
	int rc = keeper_send(fd, &q, -1, 0) ? 0 : lost(e, errno);

	while (!rc) {
		void *v;

		rc = take_answer(fd, &a, NULL, e);
		if (rc || !(a.flags & KEEPER_MORE))
			break;
		v = *n < KEEPER_MAX_REGIONS ? realloc(*out, (*n + 1) * sizeof(**out)) : NULL;
		if (!v) {
			rc = err_set(e, -ENOMEM, "regions: no memory to list them");
			break;
		}
		*out = v;
		(*out)[*n] = (struct region_fact){
			.place = REGION_KEEPER,
			.bytes = a.bytes,
			.resident = a.bytes,
			.created_ns = a.created_ns,
			.uid = owner(fd),
			.pid = a.pid,
			.users = a.users,
			.node = -1,
			.sealed = !(a.flags & KEEPER_CLAIMED),
			.persistent = true,
			.busy = a.flags & KEEPER_CLAIMED,
		};
		memcpy((*out)[*n].name, a.name, sizeof(a.name));
		++*n;
	}
	if (rc) {
		free(*out);
		*out = NULL;
		*n = 0;
	}
	return rc;
}

int region_keeper_destroy(int fd, const char *name, struct err *e)
{
	struct keeper_msg a;

	return ask(fd, KEEPER_DROP, 0, name, -1, &a, NULL, e);
}
