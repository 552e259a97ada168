// SPDX-License-Identifier: MIT
/*
 * One conversation in several hands: descriptors passed over a Unix socket, inherited, duplicated;
 * edge-triggered waiting; a reader that stands still. A session ends with the last reference, and
 * not before, whoever holds it.
 */
#include <sys/epoll.h>
#include <sys/socket.h>

#include "tests/vm/vm.h"

static struct batch b;
static union message m;
static union event ev;

static int sessions(const struct backend *be)
{
	char path[64], text[32] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/class/misc/%s/sessions", be->node + strlen("/dev/"));
	fd = open(path, O_RDONLY);
	read(fd, text, sizeof(text) - 1);
	close(fd);
	return atoi(text);
}

/* Closing is seen a moment later where the kernel puts files off. */
static bool sessions_become(const struct backend *be, int n)
{
	for (int i = 0; i < 500 && sessions(be) != n; i++)
		usleep(10000);
	return sessions(be) == n;
}

static bool send_fd(int sock, int fd)
{
	char one = 'x', space[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&one, 1};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
			   .msg_controllen = sizeof(space)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sendmsg(sock, &h, 0) == 1;
}

static int receive_fd(int sock)
{
	char one, space[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&one, 1};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
			   .msg_controllen = sizeof(space)};
	struct cmsghdr *c;
	int fd = -1;

	if (recvmsg(sock, &h, 0) != 1)
		return -1;
	c = CMSG_FIRSTHDR(&h);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static void quiesce(const char *name)
{
	struct llm_device_name n = {.size = sizeof(n)};
	int c = control();

	strcpy((char *)n.name, name);
	ioctl(c, LLM_IOC_DEVICE_QUIESCE, &n);
	close(c);
}

/* ---- SCM_RIGHTS -------------------------------------------------------------------------------------------- */

static void test_passed_on(void)
{
	struct daemon d = {.answer = "one two three", .limit = -1, .pause_us = 3000};
	int pair[2], fd, status;
	char buf[64];
	pthread_t t;
	pid_t pid;

	create(&d.be, "passed");
	pthread_create(&t, NULL, daemon_run, &d);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	fflush(stdout);
	pid = fork();
	if (!pid) { /* asks, reads the beginning, passes the file on, dies */
		fd = open(d.be.node, O_RDWR);
		if (write(fd, "q", 1) != 1 || read(fd, buf, 3) < 1)
			_exit(1);
		send_fd(pair[1], fd);
		close(fd);
		kill(getpid(), SIGKILL);
	}
	waitpid(pid, &status, 0);
	check(WIFSIGNALED(status) && sessions(&d.be) == 1,
	      "a file is on its way through a socket, its sender is dead: the session stays");
	fd = receive_fd(pair[0]);
	check(fd >= 0 && read_answer(fd, buf, sizeof(buf)) > 5 && !strcmp(buf + strlen(buf) - 5, "three"),
	      "who receives it reads on: `%s`", buf);
	write(fd, "and?", 4);
	check(read_answer(fd, buf, sizeof(buf)) == 13, "and asks on the same conversation");
	send_fd(pair[1], fd);
	close(fd);
	check(sessions(&d.be) == 1, "on its way again, and in no process");
	close(pair[0]);
	close(pair[1]);
	check(sessions_become(&d.be, 0), "the sockets are closed: it ends with them");
	quiesce("passed");
	pthread_join(t, NULL);
	works(destroy("passed"), "nothing is left");
}

/* In flight over a socket that is in flight over itself: only the kernel's collector finds it. */
static void test_cycle(void)
{
	struct backend be;
	int pair[2], fd;

	create(&be, "cycle");
	fd = open_events(be.node, 0);
	submit(fd, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	send_fd(pair[0], fd);
	send_fd(pair[0], pair[0]);
	send_fd(pair[1], pair[1]);
	close(fd);
	close(pair[0]);
	close(pair[1]);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair); /* closing one begins a collection */
	close(pair[0]);
	close(pair[1]);
	check(message(be.fd, &m, LLM_MSG_CANCEL) && message(be.fd, &m, LLM_MSG_SESSION_CLOSE),
	      "a session that is only in flight in a cycle of sockets is ended by the kernel");
	close(be.fd);
	works(destroy("cycle"), "nothing is left");
}

/* ---- dup, fork ------------------------------------------------------------------------------- */

static void test_references(void)
{
	struct backend be;
	int fd, two, status, go[2];
	pid_t pid;
	char c;

	create(&be, "refs");
	fd = open_events(be.node, 0);
	submit(fd, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	two = dup(fd);
	close(fd);
	check(sessions(&be) == 1, "dup(), and the first is closed: it stays");
	pipe(go);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(go[1]);
		read(go[0], &c, 1);
		_exit(submit(two, "child's") > 0 ? 0 : 1);
	}
	close(two);
	check(sessions(&be) == 1, "a child has it: it stays");
	write(go[1], "x", 1);
	waitpid(pid, &status, 0);
	check(status == 0, "... and asks");
	check(message(be.fd, &m, LLM_MSG_CANCEL) && message(be.fd, &m, LLM_MSG_SESSION_CLOSE) &&
		      sessions_become(&be, 0),
	      "the child ends: that was the last");
	close(go[0]);
	close(go[1]);
	close(be.fd);
	works(destroy("refs"), "nothing is left");
}

/* ---- waiting -------------------------------------------------------------------------------------------------- */

static bool edge(int ep, int ms)
{
	uint64_t end = now_ns() + (uint64_t)ms * 1000000;
	struct epoll_event e;
	int n;

	/* Signals must not make the time begin anew. */
	while ((n = epoll_wait(ep, &e, 1, ms)) < 0 && errno == EINTR)
		ms = now_ns() < end ? (int)((end - now_ns()) / 1000000) : 0;
	return n == 1;
}

/* An edge for everything that arrives, none without. */
static void test_edges(void)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET};
	struct backend be;
	uint64_t id, seq = 1;
	int fd, ep = epoll_create1(0), good = 0;

	create(&be, "edges");
	fd = open_events(be.node, O_NONBLOCK);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	check(!edge(ep, 100), "event mode, edge-triggered: nothing yet");
	id = (uint64_t)submit(fd, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	b.n = b.count = 0;
	add_started(&b, id, 0, 0);
	post(&be, &b);
	check(edge(ep, 10000), "an event: an edge");
	check(!edge(ep, 100), "... one");
	for (int i = 0; i < 20; i++) { /* what came before is not read */
		b.n = b.count = 0;
		add_text(&b, id, seq++, 7, "x");
		post(&be, &b);
		good += edge(ep, 10000);
	}
	check(good == 20, "each more: another, also when nothing was read: %d of 20", good);
	while (read(fd, &ev, sizeof(ev)) > 0)
		;
	b.n = b.count = 0;
	add_done(&b, id, seq, LLM_FINISH_STOP, "");
	post(&be, &b);
	check(edge(ep, 10000) && read(fd, &ev, sizeof(ev)) > 0 && ev.head.type == LLM_EVENT_DONE,
	      "and for the end");
	close(ep);
	close(fd);
	close(be.fd);
	destroy("edges");
}

/* ---- a reader that stands still ---------------------------------------------------------------------------- */

/*
 * One reader stopped with a full ring and a request of its own in every batch: each of another
 * reader's tokens is there when the very POST that brought it returns.
 */
static void test_stalled(void)
{
	static char big[3000];
	struct backend be;
	uint64_t stalled, lively, seq = 1, full;
	int fd, other, at_once = 0;

	memset(big, 'x', sizeof(big) - 1);
	create(&be, "stalled");
	fd = open_events(be.node, O_NONBLOCK);
	other = open_events(be.node, O_NONBLOCK);
	stalled = (uint64_t)submit(fd, "q");
	lively = (uint64_t)submit(other, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	message(be.fd, &m, LLM_MSG_SUBMIT);
	b.n = b.count = 0;
	add_started(&b, stalled, 0, 0);
	add_started(&b, lively, 0, 0);
	post(&be, &b);
	read(other, &ev, sizeof(ev));
	do {
		b.n = b.count = 0;
		add_text(&b, stalled, seq, 7, big);
	} while (!post_one(&be, &b) && ++seq < 1000);
	full = seq;
	for (uint64_t i = 1; i <= 200; i++) {
		b.n = b.count = 0;
		add_text(&b, stalled, full, 7, big);
		add_text(&b, lively, i, 7, "y");
		add_text(&b, stalled, full + 1, 7, big);
		if (post(&be, &b) || b.result[0] != -EAGAIN || b.result[1] || b.result[2] != -EAGAIN)
			break;
		at_once += read(other, &ev, sizeof(ev)) > 0 && ev.head.seq == i;
	}
	check(at_once == 200, "a reader stands still: another's tokens are there as they are posted: %d of 200",
	      at_once);
	close(fd);
	close(other);
	close(be.fd);
	destroy("stalled");
}

int main(void)
{
	test_passed_on();
	test_cycle();
	test_references();
	test_edges();
	test_stalled();
	return done();
}
