// SPDX-License-Identifier: MIT
/*
 * The lifecycle: clients that die, do not read, wait; backends that die, come back, come back as
 * another model; deadlines; unloading. A check for each row.
 */
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "tests/vm/vm.h"

static struct batch b;
static union message m;
static union event ev;

/* The SUBMIT that waits for the backend; its request's id, 0 if there is none. */
static uint64_t take(const struct backend *be)
{
	return message(be->fd, &m, LLM_MSG_SUBMIT) ? m.head.request_id : 0;
}

static int post_text(const struct backend *be, uint64_t id, uint64_t seq, const char *text)
{
	b.n = b.count = 0;
	add_text(&b, id, seq, 7, text);
	return post_one(be, &b);
}

static int post_started(const struct backend *be, uint64_t id)
{
	b.n = b.count = 0;
	add_started(&b, id, 0, 0);
	return post_one(be, &b);
}

static int post_done(const struct backend *be, uint64_t id, uint64_t seq)
{
	b.n = b.count = 0;
	add_done(&b, id, seq, LLM_FINISH_STOP, "");
	return post_one(be, &b);
}

/* The next event's type; 0 if none comes. A read() may give several. */
static uint32_t next_event(int fd)
{
	static struct {
		char bytes[LLM_EVENT_MAX];
		size_t n, pos;
	} have[64];
	typeof(have[0]) *h = &have[fd];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	ev.head.type = 0;
	if (h->pos == h->n) {
		h->pos = h->n = 0;
		if (poll(&p, 1, 10000) <= 0)
			return 0;
		n = read(fd, h->bytes, sizeof(h->bytes));
		if (n <= 0)
			return 0;
		h->n = (size_t)n;
	}
	memcpy(&ev.head, h->bytes + h->pos, sizeof(ev.head));
	memcpy(ev.bytes, h->bytes + h->pos, ev.head.size);
	h->pos += ev.head.size;
	return ev.head.type;
}

static int error_of_event(void)
{
	return ev.head.type == LLM_EVENT_ERROR ? ((const struct llm_error *)payload_of(&ev))->error : 0;
}

/* ---- clients ------------------------------------------------------------------------------------------- */

static void test_client_dies(void)
{
	struct backend be;
	uint64_t mine, others;
	int other, ready[2], status;
	pid_t pid;
	char c;

	create(&be, "client");
	other = open_events(be.node, 0);
	submit(other, "mine");
	others = take(&be);
	post_started(&be, others);
	pipe(ready);
	pid = fork();
	if (!pid) {
		int fd = open_events(be.node, 0);

		submit(fd, "theirs");
		submit(fd, "queued");
		write(ready[1], "x", 1);
		pause();
	}
	read(ready[0], &c, 1);
	mine = take(&be);
	post_started(&be, mine);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	check(message(be.fd, &m, LLM_MSG_CANCEL) && m.head.request_id == mine &&
		      m.cancel.body.reason == ECANCELED,
	      "a client is killed: the backend is told to stop its request");
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_SESSION_CLOSE,
	      "... and that the session is closed; what it had not got yet it never gets");
	refused(post_text(&be, mine, 1, "x"), ECANCELED, "what it posts for it is refused");
	works(post_done(&be, mine, 1), "its end is taken");
	refused(post_done(&be, mine, 2), ENOENT, "and then it is gone");
	works(post_text(&be, others, 1, "x"), "another client's request goes on");
	works(post_done(&be, others, 2), "to its end");
	check(next_event(other) == LLM_EVENT_STARTED && next_event(other) == LLM_EVENT_TEXT &&
		      next_event(other) == LLM_EVENT_DONE,
	      "which it reads");
	close(other);
	close(be.fd);
	works(destroy("client"), "nothing is left of it");
	close(ready[0]);
	close(ready[1]);
}

static void test_slow_reader(void)
{
	struct backend be;
	static char big[4000];
	uint64_t slow, fast, seq = 1, read_events = 0;
	int fd, other, rc;

	memset(big, 'x', sizeof(big) - 1);
	create(&be, "slow");
	fd = open_events(be.node, O_NONBLOCK);
	other = open_events(be.node, O_NONBLOCK);
	submit(fd, "slow");
	slow = take(&be);
	submit(other, "fast");
	fast = take(&be);
	post_started(&be, slow);
	post_started(&be, fast);
	do
		rc = post_text(&be, slow, seq, big);
	while (!rc && ++seq < 1000);
	check(rc == -1 && errno == EAGAIN && seq < 100, "a reader's ring fills after %u events of 4 KB",
	      (unsigned)seq);
	refused(post_text(&be, slow, seq + 1, "x"), EAGAIN, "what comes behind has to wait as well");
	works(post_text(&be, fast, 1, "x"), "another's does not");
	fcntl(be.fd, F_SETFL, O_NONBLOCK);
	check(read(be.fd, &m, sizeof(m)) < 0 && errno == EAGAIN, "no RESUME before anything was read");
	while (next_event(fd) == LLM_EVENT_TEXT || ev.head.type == LLM_EVENT_STARTED) {
		struct pollfd p = {.fd = be.fd, .events = POLLIN};

		read_events++;
		if (poll(&p, 1, 0) > 0)
			break;
	}
	check(read(be.fd, &m, sizeof(m)) > 0 && m.head.type == LLM_MSG_RESUME && read_events > 10,
	      "RESUME when half of it was read");
	works(post_text(&be, slow, seq++, big), "then there is room");
	refused(post_text(&be, slow, seq + 1, big), EINVAL, "and a gap is a mistake again");
	while (!post_text(&be, slow, seq, big))
		seq++;
	works(post_done(&be, slow, seq), "a full ring can be ended");
	while (next_event(fd) == LLM_EVENT_TEXT)
		read_events++;
	check(ev.head.type == LLM_EVENT_DONE && read_events == seq,
	      "every event arrives, in order, then the end: %u of %u", (unsigned)read_events, (unsigned)seq);
	close(fd);
	close(other);
	close(be.fd);
	destroy("slow");
}

static void test_text_files(void)
{
	struct daemon d = {.answer = "one two three", .limit = -1};
	struct epoll_event e = {.events = EPOLLIN | EPOLLET};
	int fd, two, ep, status, n;
	char buf[64];
	pthread_t t;
	pid_t pid;

	create(&d.be, "files");
	pthread_create(&t, NULL, daemon_run, &d);
	fd = open(d.be.node, O_RDWR | O_NONBLOCK);
	check(read(fd, buf, sizeof(buf)) == 0, "nothing asked: 0, also without blocking");
	write(fd, "q", 1);
	{
		struct pollfd p = {.fd = fd, .events = POLLIN};

		check(poll(&p, 1, 0) == 1 && p.revents == POLLIN, "POLLIN while a prompt waits to be submitted");
	}
	refused(read(fd, buf, sizeof(buf)), EAGAIN, "the first read submits it");
	ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	while ((n = epoll_wait(ep, &e, 1, 10000)) < 0 && errno == EINTR)
		;
	check(n == 1, "epoll, edge-triggered, tells of the answer");
	fcntl(fd, F_SETFL, 0);
	check(read_answer(fd, buf, sizeof(buf)) == 13, "the answer: `%s`", buf);
	two = dup(fd);
	close(fd);
	write(two, "again", 5);
	pid = fork();
	if (!pid)
		_exit(read_answer(two, buf, sizeof(buf)) == 13 ? 0 : 1);
	waitpid(pid, &status, 0);
	check(status == 0, "a child reads what its parent asked; the session stays open");
	write(two, "third", 5);
	check(read_answer(two, buf, sizeof(buf)) == 13, "and the parent goes on");
	close(two);
	close(ep);
	{
		struct llm_device_name n = {.size = sizeof(n), .name = "files"};
		int c = control();

		ioctl(c, LLM_IOC_DEVICE_QUIESCE, &n);
		close(c);
	}
	pthread_join(t, NULL);
	destroy("files");
}

struct reader {
	int fd;
	size_t n;
	char last;
};

static void *read_some(void *arg)
{
	struct reader *r = arg;
	char c;

	while (read(r->fd, &c, 1) == 1)
		r->n++;
	return NULL;
}

static void test_concurrent_readers(void)
{
	static char answer[1001];
	struct daemon d = {.answer = answer, .limit = -1};
	struct reader r[4] = {0};
	pthread_t t, rt[4];
	size_t sum = 0;

	memset(answer, 'a', 1000);
	create(&d.be, "readers");
	pthread_create(&t, NULL, daemon_run, &d);
	r[0].fd = open(d.be.node, O_RDWR);
	write(r[0].fd, "q", 1);
	for (int i = 0; i < 4; i++) {
		r[i].fd = r[0].fd;
		pthread_create(&rt[i], NULL, read_some, &r[i]);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(rt[i], NULL);
		sum += r[i].n;
	}
	check(sum == 1000, "four readers of one file get each byte once: %zu", sum);
	close(r[0].fd);
	{
		struct llm_device_name n = {.size = sizeof(n), .name = "readers"};
		int c = control();

		ioctl(c, LLM_IOC_DEVICE_QUIESCE, &n);
		close(c);
	}
	pthread_join(t, NULL);
	destroy("readers");
}

static void on_signal(int sig)
{
	(void)sig;
}

static void test_signal(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct backend be;
	char c;
	int fd;

	if (getenv("STORM"))
		return; /* two signals at once: the restart of one hides the other's EINTR */
	create(&be, "signal");
	fd = open(be.node, O_RDWR);
	write(fd, "q", 1);
	sigaction(SIGALRM, &sa, NULL); /* without SA_RESTART */
	alarm(1);
	refused(read(fd, &c, 1), EINTR, "a reader that waits can be interrupted");
	close(fd);
	close(be.fd);
	destroy("signal");
}

/* Waits in read() in a process of its own until that is killed; whether it could be, from sleep. */
static bool sleeps_and_dies(int fd, const char *prompt)
{
	char path[32], line[256], state = 0;
	pid_t pid;
	int i;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (prompt && write(fd, prompt, strlen(prompt)) < 0)
			_exit(1);
		for (;;)
			read(fd, &ev, sizeof(ev));
	}
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	/* Running at first, and at times when there are signals. */
	for (i = 0; i < 500 && state != 'S'; i++) {
		FILE *f = fopen(path, "r");

		usleep(20000);
		if (!f || !fgets(line, sizeof(line), f))
			break;
		state = strrchr(line, ')')[2];
		fclose(f);
	}
	kill(pid, SIGKILL);
	for (i = 0; i < 500 && !waitpid(pid, NULL, WNOHANG); i++)
		usleep(20000);
	return state == 'S' && i < 500;
}

/* Nothing sleeps where it cannot be killed, while nobody answers and nobody asks. */
static void test_sleeps(void)
{
	struct backend be;
	int fd, text;

	create(&be, "sleep");
	fd = open_events(be.node, 0);
	text = open(be.node, O_RDWR);
	while (message(be.fd, &m, 0) && m.head.type != LLM_MSG_REPLAY_END)
		;
	check(sleeps_and_dies(be.fd, NULL), "a backend that nobody asks sleeps, and can be killed");
	submit(fd, "q");
	take(&be);
	check(sleeps_and_dies(fd, NULL), "so does a client that nobody answers");
	check(sleeps_and_dies(text, "q"), "... in text mode");
	close(text);
	close(fd);
	close(be.fd);
	works(destroy("sleep"), "nothing is left");
}

/* ---- backends ------------------------------------------------------------------------------------------ */

static void test_nobody_comes(void)
{
	struct backend be;
	uint64_t id, start;
	int fd, text;
	char c;

	create(&be, "alone");
	set_recovery(&be, 2000);
	fd = open_events(be.node, 0);
	text = open(be.node, O_RDWR);
	submit(fd, "q");
	id = take(&be);
	post_started(&be, id);
	post_text(&be, id, 1, "half");
	start = now_ns();
	close(be.fd);
	check(next_event(fd) == LLM_EVENT_STARTED && next_event(fd) == LLM_EVENT_TEXT,
	      "the backend dies: what was posted stays readable");
	write(text, "q", 1);
	refused(read(text, &c, 1), EPIPE, "clients wait for another one, then get EPIPE");
	check(now_ns() - start > 1500000000ull, "... and not before");
	check(next_event(fd) == LLM_EVENT_ERROR && error_of_event() == EPIPE, "in event mode as ERROR");
	refused(submit(fd, "q"), EPIPE, "a new request is refused at once");
	works(attach(&be, "alone", FINGERPRINT), "a backend comes all the same");
	id = (uint64_t)works(submit(fd, "q2"), "and is asked again");
	check(take(&be) == id, "on the same file");
	close(be.fd);
	close(fd);
	close(text);
	destroy("alone");
}

static void test_transcript(void)
{
	struct backend be;
	int64_t id;
	int fd;

	create(&be, "memory");
	fd = open_events(be.node, 0);
	id = submit(fd, "first");
	take(&be);
	post_started(&be, (uint64_t)id);
	post_text(&be, (uint64_t)id, 1, "answer");
	post_done(&be, (uint64_t)id, 2);
	close(be.fd);
	works(attach(&be, "memory", FINGERPRINT), "a backend dies between two turns, another comes");
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_SESSION_OPEN &&
		      m.head.flags == LLM_MSG_F_REPLAY,
	      "it is told of the session");
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_SUBMIT &&
		      m.head.flags == (LLM_MSG_F_REPLAY | LLM_MSG_F_FINISHED) &&
		      m.submit.body.n_ids == 1 && m.submit.body.posted_bytes == 6 &&
		      m.submit.body.finish == LLM_FINISH_STOP && m.submit.body.payload_len == 5,
	      "of its turn, with what was posted");
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_REPLAY_END, "and that this was all");
	submit(fd, "second");
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_SUBMIT && !m.head.flags, "then the next turn comes");
	close(be.fd);
	works(attach(&be, "memory", FINGERPRINT + 1), "another model attaches");
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_SESSION_OPEN &&
		      m.head.flags == (LLM_MSG_F_REPLAY | LLM_MSG_F_LOST),
	      "it hears that there was a conversation, and nothing of it");
	close(fd);
	close(be.fd);
	destroy("memory");
}

static void test_other_model(void)
{
	struct backend be;
	uint64_t id;
	int fd;

	create(&be, "other");
	fd = open_events(be.node, 0);
	submit(fd, "q");
	id = take(&be);
	post_started(&be, id);
	close(be.fd);
	works(attach(&be, "other", FINGERPRINT + 1), "a backend with another model, in the middle of an answer");
	next_event(fd);
	check(next_event(fd) == LLM_EVENT_ERROR && error_of_event() == ESTALE, "ends it with ESTALE");
	close(fd);
	close(be.fd);
	destroy("other");
}

static void test_deadlines(void)
{
	struct backend be;
	struct llm_submit s = submission("q");
	int fd;

	create(&be, "time");
	fd = open_events(be.node, 0);
	s.deadline_ns = now_ns() + 200000000;
	ioctl(fd, LLM_IOC_SUBMIT, &s);
	check(next_event(fd) == LLM_EVENT_ERROR && error_of_event() == ETIMEDOUT,
	      "a deadline passes before the backend has it: ETIMEDOUT");
	s = submission("q");
	s.deadline_ns = now_ns() + 5000000000ull;
	ioctl(fd, LLM_IOC_SUBMIT, &s);
	take(&be);
	post_started(&be, s.request_id);
	next_event(fd);
	check(next_event(fd) == LLM_EVENT_ERROR && error_of_event() == ETIMEDOUT,
	      "... or while it hangs: the client does not wait for it");
	check(message(be.fd, &m, LLM_MSG_CANCEL) && m.cancel.body.reason == ETIMEDOUT,
	      "the backend is told why");
	refused(post_text(&be, s.request_id, 1, "late"), ECANCELED, "what comes late is refused");
	works(post_done(&be, s.request_id, 1), "and its end taken");
	close(fd);
	close(be.fd);
	destroy("time");
}

/* What is written to the device's attribute `abort`. */
static void abort_all(const struct backend *be)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/class/misc/%s/abort", be->node + strlen("/dev/"));
	fd = open(path, O_WRONLY);
	works(write(fd, "1", 1), "the administrator ends everything");
	close(fd);
}

static bool says(const char *text)
{
	const struct llm_error *e = payload_of(&ev);

	return e->n_bytes == strlen(text) && !memcmp(e + 1, text, e->n_bytes);
}

/* A daemon that hangs: the client is told, and the daemon that its client was. */
static void test_abort(void)
{
	struct backend be;
	uint64_t id, text_id;
	int fd, text;
	char c;

	create(&be, "abort");
	fd = open_events(be.node, 0);
	text = open(be.node, O_RDWR | O_NONBLOCK);
	submit(fd, "q");
	id = take(&be);
	post_started(&be, id);
	post_text(&be, id, 1, "half");
	write(text, "q", 1);
	read(text, &c, 1);
	text_id = take(&be);
	post_started(&be, text_id);
	abort_all(&be);
	check(next_event(fd) == LLM_EVENT_STARTED && next_event(fd) == LLM_EVENT_TEXT,
	      "... what was posted stays readable");
	check(next_event(fd) == LLM_EVENT_ERROR && error_of_event() == ECANCELED &&
		      says("request: aborted by the administrator"),
	      "... then the client is told who did it");
	refused(read(text, &c, 1), ECANCELED, "... and in text mode that it was cancelled");
	check(message(be.fd, &m, LLM_MSG_CANCEL) && m.head.request_id == id &&
		      m.cancel.body.reason == ECONNABORTED,
	      "the backend is told that this answer is no part of the conversation");
	refused(post_text(&be, id, 2, "late"), ECANCELED, "what it posts is refused");
	works(post_done(&be, id, 2), "its end is taken");
	check(attribute(&be, "requests") == 1, "... and the slot is free");
	close(be.fd);
	check(attribute(&be, "requests") == 0, "of a backend that dies nothing more is expected");
	attach(&be, "abort", FINGERPRINT);
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_REPLAY_END, "the next one hears of neither");
	close(text);
	close(fd);
	close(be.fd);
	destroy("abort");
}

/* The end of an answer comes too late: after its deadline, after the device was taken away. */
static void test_late_end(void)
{
	struct llm_device_name n = {.size = sizeof(n), .name = "late", .deadline_ns = 1};
	struct backend be, next;
	struct llm_submit s = submission("q");
	uint64_t id;
	int fd, c = control();

	create(&be, "late");
	fd = open_events(be.node, 0);
	s.deadline_ns = now_ns() + 5000000000ull; /* a slow machine takes it in time as well */
	ioctl(fd, LLM_IOC_SUBMIT, &s);
	id = take(&be);
	post_started(&be, id);
	post_text(&be, id, 1, "all");
	while (next_event(fd) && ev.head.type != LLM_EVENT_ERROR)
		;
	check(error_of_event() == ETIMEDOUT, "a deadline passes while the backend has DONE in its hands");
	works(post_done(&be, id, 2), "its DONE is taken");
	submit(fd, "second");
	id = take(&be);
	post_started(&be, id);
	post_text(&be, id, 1, "a");
	ioctl(c, LLM_IOC_DEVICE_QUIESCE, &n);
	for (int i = 0; i < 500 && attribute(&be, "backend_pid"); i++)
		usleep(10000);
	b.n = b.count = 0;
	add_text(&b, id, 2, 7, "b");
	add_done(&b, id, 3, LLM_FINISH_STOP, "");
	refused(post(&be, &b), ESTALE, "the device is taken away in the step of the next DONE");
	works(attach(&next, "late", FINGERPRINT), "another backend");
	check(message(next.fd, &m, LLM_MSG_SUBMIT) && m.head.request_id == id &&
		      m.head.flags == LLM_MSG_F_REPLAY && m.submit.body.n_ids == 1 &&
		      m.submit.body.seq == 2 && !m.submit.body.finish,
	      "is told of the second answer as it stands, and of the first nothing");
	refused(post_done(&be, id, 2), ESTALE, "the old one cannot end it");
	works(post_text(&next, id, 2, "b"), "the new one goes on");
	works(post_done(&next, id, 3), "to the end");
	close(be.fd);
	close(next.fd);
	attach(&next, "late", FINGERPRINT);
	check(message(next.fd, &m, LLM_MSG_SUBMIT) && m.head.request_id == id &&
		      m.head.flags == (LLM_MSG_F_REPLAY | LLM_MSG_F_FINISHED) &&
		      m.submit.body.n_ids == 2 && message(next.fd, &m, 0) &&
		      m.head.type == LLM_MSG_REPLAY_END,
	      "the conversation is what its client has read");
	close(fd);
	close(next.fd);
	close(c);
	destroy("late");
}

static void test_quiesce(void)
{
	struct backend be, next;
	struct llm_device_name n = {.size = sizeof(n), .name = "planned"};
	uint64_t id, deadline = now_ns() + 3600000000000ull;
	int fd, c = control();

	create(&be, "planned");
	fd = open_events(be.node, 0);
	submit(fd, "q");
	id = take(&be);
	post_started(&be, id);
	post_text(&be, id, 1, "a");
	n.deadline_ns = deadline;
	ioctl(c, LLM_IOC_DEVICE_QUIESCE, &n);
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_QUIESCE && m.quiesce.body.deadline_ns == deadline,
	      "a planned upgrade: QUIESCE");
	close(be.fd);
	attach(&next, "planned", FINGERPRINT);
	check(message(next.fd, &m, LLM_MSG_SUBMIT) && m.head.request_id == id &&
		      m.submit.body.n_ids == 1 && m.submit.body.posted_bytes == 1 &&
		      m.submit.body.seq == 2 && m.submit.body.resume_len == sizeof(struct llm_resume),
	      "the next backend gets the running answer as it stands");
	works(post_text(&next, id, 2, "b"), "and goes on");
	close(fd);
	close(next.fd);
	close(c);
	destroy("planned");
}

/* One that does not let go in time. */
static void test_overdue(void)
{
	struct llm_device_name n = {.size = sizeof(n), .name = "overdue"};
	struct pollfd p = {.events = POLLIN};
	struct backend be, next;
	int fd, c = control();
	uint64_t id;

	create(&be, "overdue");
	fd = open_events(be.node, 0);
	submit(fd, "q");
	id = take(&be);
	post_started(&be, id);
	post_text(&be, id, 1, "a");
	n.deadline_ns = now_ns() + 3600000000000ull;
	ioctl(c, LLM_IOC_DEVICE_QUIESCE, &n);
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_QUIESCE, "a backend is asked to let go");
	refused(attach(&next, "overdue", FINGERPRINT), EBUSY, "until then it has the device");
	n.deadline_ns = now_ns() + 300000000;
	works(ioctl(c, LLM_IOC_DEVICE_QUIESCE, &n), "and again, by another time");
	while (read(be.fd, &m, sizeof(m)) > 0)
		;
	check(read(be.fd, &m, sizeof(m)) == 0, "it waits for more; then its file is at its end");
	check(now_ns() >= n.deadline_ns, "... not before the time");
	p.fd = be.fd;
	check(poll(&p, 1, 0) == 1 && p.revents == (POLLIN | POLLHUP), "... which poll() tells");
	refused(post_text(&be, id, 2, "late"), ESTALE, "what it posts is refused");
	works(attach(&next, "overdue", FINGERPRINT), "another one gets the device");
	check(take(&next) == id && m.submit.body.n_ids == 1, "and the answer as it stands");
	refused(post_text(&be, id, 2, "late"), ESTALE, "the old one has no say in it");
	check(read(be.fd, &m, sizeof(m)) == 0, "... and hears nothing");
	close(be.fd);
	works(post_text(&next, id, 2, "b"), "it goes, and nothing changes");
	n.deadline_ns = 1;
	works(ioctl(c, LLM_IOC_DEVICE_QUIESCE, &n), "with a time that has passed");
	p.fd = next.fd;
	while (poll(&p, 1, 10000) == 1 && !(p.revents & POLLHUP))
		;
	check(p.revents & POLLHUP, "it is taken away at once");
	close(next.fd);
	close(fd);
	close(c);
	destroy("overdue");
}

static bool stays(void)
{
	return syscall(SYS_delete_module, "llm", O_NONBLOCK) == -1 &&
	       (errno == EBUSY || errno == EWOULDBLOCK);
}

static void test_unload(void)
{
	struct backend be;
	int fd;

	create(&be, "busy");
	check(stays(), "the module cannot go while a backend is open");
	fd = open(be.node, O_RDWR);
	close(be.fd);
	check(stays(), "... while a session is");
	close(fd);
	fd = control();
	check(stays(), "... while the control file is");
	close(fd);
	destroy("busy");
}

int main(void)
{
	test_client_dies();
	test_slow_reader();
	test_text_files();
	test_concurrent_readers();
	test_signal();
	test_sleeps();
	test_nobody_comes();
	test_transcript();
	test_other_model();
	test_deadlines();
	test_abort();
	test_late_end();
	test_quiesce();
	test_overdue();
	test_unload();
	return done();
}
