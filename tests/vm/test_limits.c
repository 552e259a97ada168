// SPDX-License-Identifier: MIT
/*
 * Every bound is reached, and says so with its errno; each can be read and written for a device while
 * it is in use. What could not be answered was not done. A hostile backend is refused each time and
 * logged once.
 */
#include <sys/mman.h>

#include "tests/vm/vm.h"

static struct batch b;
static union message m;
static union event ev;

static bool put_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	int e = errno;

	close(fd);
	errno = e;
	return ok;
}

static const char *path_of(const struct backend *be, const char *name)
{
	static char path[96];

	snprintf(path, sizeof(path), "/sys/class/misc/%s/%s", be->node + strlen("/dev/"), name);
	return path;
}

static int64_t read_number(const char *path)
{
	char text[64] = "";
	int fd = open(path, O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		strcpy(text, "-1");
	close(fd);
	return atoll(text);
}

static int64_t get(const struct backend *be, const char *name)
{
	return read_number(path_of(be, name));
}

static bool set(const struct backend *be, const char *name, uint32_t value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	return put_text(path_of(be, name), text);
}

static int64_t submit_as(int fd, const char *label)
{
	struct llm_submit s = submission("q");

	s.principal = (uintptr_t)label;
	s.principal_len = (uint32_t)strlen(label);
	return ioctl(fd, LLM_IOC_SUBMIT, &s) ? -1 : (int64_t)s.request_id;
}

/* ---- the attributes ------------------------------------------------------------------------------------ */

static const char *const limits[] = {"max_file", "max_principal", "max_uid", "max_device",
				     "max_sessions", "max_uid_sessions", "max_transcript",
				     "recovery_ms", "max_request_ms"};
#define N_LIMITS (sizeof(limits) / sizeof(limits[0]))

static void test_attributes(void)
{
	struct backend be, other;
	char path[64];
	int good = 0;

	create(&be, "attr");
	for (size_t i = 0; i < N_LIMITS; i++) {
		snprintf(path, sizeof(path), "/sys/module/llm/parameters/%s", limits[i]);
		good += read_number(path) == get(&be, limits[i]) || !strcmp(limits[i], "recovery_ms");
	}
	check(good == N_LIMITS, "a device begins with the module's limits: %d of %zu", good, N_LIMITS);
	check(get(&be, "recovery_ms") == 600000, "or with what its creator says");
	good = 0;
	for (size_t i = 0; i < N_LIMITS; i++)
		good += set(&be, limits[i], 12345) && get(&be, limits[i]) == 12345;
	check(good == N_LIMITS, "each can be written: %d of %zu", good, N_LIMITS);
	create(&other, "attr2");
	check(get(&other, "max_file") == 16, "for this device alone");
	check(!put_text(path_of(&be, "max_file"), "many") && errno == EINVAL, "a number: EINVAL");
	check(!put_text(path_of(&be, "max_file"), "-1") && errno == EINVAL, "not a negative one: EINVAL");
	check(!put_text(path_of(&be, "max_file"), "4294967296") && errno == ERANGE, "not too large: ERANGE");
	check(get(&be, "max_file") == 12345, "and then nothing is changed");
	check(!put_text("/sys/module/llm/parameters/max_events", "100000") && errno == EINVAL,
	      "the module's max_events is a power of two: EINVAL");
	check(!put_text("/sys/module/llm/parameters/max_payload", "0") && errno == EINVAL,
	      "its max_payload is not 0: EINVAL");
	put_text("/sys/module/llm/parameters/max_file", "3");
	close(other.fd);
	destroy("attr2");
	create(&other, "attr2");
	check(get(&other, "max_file") == 3 && get(&be, "max_file") == 12345,
	      "a parameter of the module is what the next device begins with");
	put_text("/sys/module/llm/parameters/max_file", "16");
	close(other.fd);
	close(be.fd);
	destroy("attr2");
	destroy("attr");
}

/* ---- requests ------------------------------------------------------------------------------------------ */

static void test_requests(void)
{
	struct backend be;
	int fd, two, status;
	pid_t pid;

	create(&be, "bounds");
	chmod(be.node, 0666);
	fd = open_events(be.node, O_NONBLOCK);
	two = open_events(be.node, O_NONBLOCK);

	set(&be, "max_file", 2);
	submit(fd, "q");
	submit(fd, "q");
	refused(submit(fd, "q"), ENOSPC, "max_file: a third request of a file");
	works(submit(two, "q"), "... not another file's");
	check(get(&be, "refused") == 1, "... and it is counted");
	set(&be, "max_file", 1000);

	set(&be, "max_principal", 4);
	works(submit(fd, "q"), "max_principal: a fourth request without a label");
	refused(submit(two, "q"), ENOSPC, "... a fifth, on whatever file");
	for (int i = 0; i < 4; i++)
		submit_as(fd, "alice");
	refused(submit_as(two, "alice"), ENOSPC, "... a fifth of a label");
	works(submit_as(two, "bob"), "... not another's");
	set(&be, "max_principal", 1000);

	set(&be, "max_uid", 10); /* there are 9 */
	works(submit_as(fd, "carol"), "max_uid: a tenth of a uid");
	refused(submit_as(two, "dave"), ENOSPC, "... an eleventh, whatever the label");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (setgid(1000) || setuid(1000))
			_exit(9);
		close(fd);
		fd = open_events(be.node, O_NONBLOCK);
		_exit(submit(fd, "q") > 0 ? 0 : errno);
	}
	waitpid(pid, &status, 0);
	check(status == 0, "... not another uid's");
	set(&be, "max_uid", 1000);

	check(get(&be, "requests") == 10, "what a client had when it went is free again");
	set(&be, "max_device", 11);
	works(submit(fd, "q"), "max_device: an eleventh");
	refused(submit(two, "q"), ENOSPC, "... a twelfth, whoever asks");
	set(&be, "max_device", 12);
	works(submit(two, "q"), "... a limit that is raised counts at once");
	set(&be, "max_device", 0);
	refused(submit(two, "q"), ENOSPC, "... and one of 0 takes nothing new");
	check(get(&be, "requests") == 12 && get(&be, "queue") == 12, "what there is stays: %d",
	      (int)get(&be, "requests"));
	close(fd);
	close(two);
	check(get(&be, "requests") == 0 && get(&be, "queue") == 0, "until its files are closed");
	close(be.fd);
	destroy("bounds");
}

/* The depth of the queue: what no backend has. */
static void test_queue(void)
{
	struct llm_cancel c = {.size = sizeof(c)};
	struct backend be;
	int fd;

	create(&be, "queue");
	fd = open_events(be.node, O_NONBLOCK);
	for (int i = 0; i < 4; i++)
		c.request_id = (uint64_t)submit(fd, "q");
	check(get(&be, "queue") == 4, "queue: four that no backend has");
	message(be.fd, &m, LLM_MSG_SESSION_OPEN);
	refused(read(be.fd, &m, 8), EMSGSIZE, "one that could not be delivered");
	check(get(&be, "queue") == 4, "... is in it still");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	check(get(&be, "queue") == 3, "one that was is not");
	ioctl(fd, LLM_IOC_CANCEL, &c);
	check(get(&be, "queue") == 2, "nor one that was cancelled");
	close(be.fd);
	check(get(&be, "queue") == 2 && get(&be, "requests") == 4, "a backend's death changes nothing");
	put_text(path_of(&be, "abort"), "1");
	check(get(&be, "queue") == 0, "abort empties it");
	check(read(fd, &ev, sizeof(ev)) > 0 && ev.head.type == LLM_EVENT_DONE, "... its requests end");
	close(fd);
	check(get(&be, "requests") == 0, "and nothing is left");
	destroy("queue");
}

/* ---- sessions, bytes, times ------------------------------------------------------------------------------ */

static void test_sessions(void)
{
	struct backend be;
	int fd[3], status;
	pid_t pid;

	create(&be, "files");
	chmod(be.node, 0666);
	set(&be, "max_uid_sessions", 2);
	fd[0] = open(be.node, O_RDWR);
	fd[1] = (int)works(open(be.node, O_RDWR), "max_uid_sessions: a second file");
	refused(open(be.node, O_RDWR), ENOSPC, "... a third");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (setgid(1000) || setuid(1000))
			_exit(9);
		_exit(open(be.node, O_RDWR) >= 0 ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	check(status == 0, "... of another uid, which is not its business");
	close(fd[0]);
	fd[0] = (int)works(open(be.node, O_RDWR), "... and when one was closed");
	set(&be, "max_sessions", 2);
	set(&be, "max_uid_sessions", 1000);
	refused(open(be.node, O_RDWR), ENOSPC, "max_sessions: a third file of the device");
	set(&be, "max_sessions", 3);
	fd[2] = (int)works(open(be.node, O_RDWR), "... when the limit was raised");
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	check(get(&be, "sessions") == 0, "nothing is left");
	close(be.fd);
	destroy("files");
}

static void turn(const struct backend *be, int fd, int bytes)
{
	static char payload[10000];
	uint64_t id;

	memset(payload, 'p', sizeof(payload));
	payload[bytes] = '\0';
	id = (uint64_t)submit(fd, payload);
	message(be->fd, &m, LLM_MSG_SUBMIT);
	b.n = b.count = 0;
	add_started(&b, id, 0, 0);
	add_text(&b, id, 1, 7, "x");
	add_done(&b, id, 2, LLM_FINISH_STOP, "");
	post(be, &b);
	while (read(fd, &ev, sizeof(ev)) > 0)
		;
}

static void test_bytes(void)
{
	static char big[LLM_EVENT_MAX * 2];
	struct backend be;
	int fd;

	create(&be, "bytes");
	fd = open_events(be.node, O_NONBLOCK);
	set(&be, "max_transcript", 16384);
	turn(&be, fd, 9000);
	close(be.fd);
	attach(&be, "bytes", FINGERPRINT);
	check(message(be.fd, &m, 0) && m.head.flags == LLM_MSG_F_REPLAY && message(be.fd, &m, 0) &&
		      m.head.type == LLM_MSG_SUBMIT && m.submit.body.payload_len == 9000,
	      "max_transcript: below it a conversation is remembered");
	turn(&be, fd, 9000);
	close(be.fd);
	attach(&be, "bytes", FINGERPRINT);
	check(message(be.fd, &m, 0) && m.head.flags == (LLM_MSG_F_REPLAY | LLM_MSG_F_LOST) &&
		      message(be.fd, &m, 0) && m.head.type == LLM_MSG_REPLAY_END,
	      "... above it nothing of it is, and that is told");
	close(fd);

	put_text("/sys/module/llm/parameters/max_payload", "1000");
	fd = open_events(be.node, O_NONBLOCK);
	memset(big, 'p', 1001);
	refused(submit(fd, big), E2BIG, "max_payload: one byte more");
	big[1000] = '\0';
	works(submit(fd, big), "... and just that");
	close(fd);
	fd = open(be.node, O_RDWR | O_NONBLOCK);
	check(write(fd, big, 600) == 600, "in text mode it bounds the prompt");
	refused(write(fd, big, 600), E2BIG, "... however it is written");
	works(write(fd, big, 400), "... what fits is taken");
	close(fd);
	put_text("/sys/module/llm/parameters/max_payload", "4194304");

	put_text("/sys/module/llm/parameters/max_events", "65536");
	fd = open_events(be.node, O_NONBLOCK);
	{
		uint64_t id = (uint64_t)submit(fd, "q"), seq = 1;

		while (message(be.fd, &m, LLM_MSG_SUBMIT) && m.head.request_id != id)
			;
		b.n = b.count = 0;
		add_started(&b, id, 0, 0);
		post(&be, &b);
		memset(big, 't', 3000);
		big[3000] = '\0';
		do {
			b.n = b.count = 0;
			add_text(&b, id, seq, 7, big);
		} while (!post_one(&be, &b) && ++seq < 1000);
		check(errno == EAGAIN && seq > 15 && seq < 23, "max_events: EAGAIN after %d events of 3 KB",
		      (int)seq);
	}
	put_text("/sys/module/llm/parameters/max_events", "262144");
	close(fd);
	close(be.fd);
	destroy("bytes");
}

static void test_times(void)
{
	struct pollfd p = {.events = POLLIN};
	struct backend be;
	int fd;

	create(&be, "times");
	fd = open_events(be.node, 0);
	set(&be, "max_request_ms", 200);
	submit(fd, "q");
	check(read(fd, &ev, sizeof(ev)) > 0 && ev.head.type == LLM_EVENT_ERROR &&
		      ((const struct llm_error *)payload_of(&ev))->error == ETIMEDOUT,
	      "max_request_ms: ETIMEDOUT");
	set(&be, "recovery_ms", 3600000);
	close(be.fd);
	p.fd = fd;
	check(poll(&p, 1, 2500) == 0, "recovery_ms: an hour");
	attach(&be, "times", FINGERPRINT);
	set(&be, "recovery_ms", 50);
	close(be.fd);
	check(poll(&p, 1, 20000) == 1 && p.revents & POLLHUP, "... and a moment");
	refused(submit(fd, "q"), EPIPE, "... then EPIPE");
	close(fd);
	destroy("times");
}

/* ---- what could not be answered ---------------------------------------------------------------------------- */

/* A copy of this structure where it cannot be written. */
static void *read_only(const void *s, size_t n)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(p, s, n);
	mprotect(p, 4096, PROT_READ);
	return p;
}

static void test_unwritable(void)
{
	struct llm_submit s = submission("q");
	struct llm_set_mode mode = {.size = sizeof(mode), .mode = LLM_MODE_EVENT};
	struct llm_cancel c = {.size = sizeof(c)};
	struct llm_query q = {.size = sizeof(q)};
	struct llm_device_attach a = {.size = sizeof(a), .name = "const", .fingerprint = 99,
				      .context = 10};
	struct backend be;
	int fd, ctl = control();

	create(&be, "const");
	fd = open(be.node, O_RDWR | O_NONBLOCK);
	works(ioctl(fd, LLM_IOC_SET_MODE, read_only(&mode, sizeof(mode))),
	      "SET_MODE only reads its structure");
	refused(ioctl(fd, LLM_IOC_QUERY, read_only(&q, sizeof(q))), EFAULT, "QUERY writes to it");
	refused(ioctl(fd, LLM_IOC_SUBMIT, read_only(&s, sizeof(s))), EFAULT,
		"SUBMIT whose answer cannot be written");
	check(get(&be, "submitted") == 0 && get(&be, "requests") == 0, "was not done");
	c.request_id = (uint64_t)submit(fd, "q");
	works(ioctl(fd, LLM_IOC_CANCEL, read_only(&c, sizeof(c))), "CANCEL only reads it");
	close(be.fd);
	refused(ioctl(ctl, LLM_IOC_DEVICE_ATTACH, read_only(&a, sizeof(a))), EFAULT,
		"ATTACH whose answer cannot be written");
	check(get(&be, "generation") == 1, "was not done");
	works(attach(&be, "const", FINGERPRINT), "it can be");
	check(message(be.fd, &m, LLM_MSG_REPLAY_END), "as the second backend");
	close(fd);
	close(be.fd);
	close(ctl);
	destroy("const");
}

/* ---- backends of different contexts ------------------------------------------------------------------------- */

static int attach_context(struct backend *be, const char *name, uint32_t context)
{
	struct llm_device_attach a = {.size = sizeof(a), .fingerprint = FINGERPRINT, .context = context};
	int fd = control(), rc;

	strcpy((char *)a.name, name);
	rc = ioctl(fd, LLM_IOC_DEVICE_ATTACH, &a);
	close(fd);
	be->fd = a.backend_fd;
	be->generation = a.generation;
	return rc;
}

static void test_contexts(void)
{
	struct llm_query q = {.size = sizeof(q)};
	struct backend be;
	uint64_t id, seq = 1;
	int fd;

	create(&be, "context"); /* 4096 */
	close(be.fd);
	attach_context(&be, "context", 8);
	fd = open_events(be.node, O_NONBLOCK);
	id = (uint64_t)submit(fd, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	b.n = b.count = 0;
	add_started(&b, id, 0, 0);
	post(&be, &b);
	close(be.fd);
	attach_context(&be, "context", 4096);
	check(message(be.fd, &m, LLM_MSG_SUBMIT) && m.head.request_id == id,
	      "a request asked under a context of 8, a backend with one of 4096");
	do {
		b.n = b.count = 0;
		add_text(&b, id, seq, 7, "x");
	} while (!post_one(&be, &b) && ++seq < 100);
	check(errno == ECANCELED && seq == 9, "ends where it would have: %d ids", (int)seq - 1);
	check(message(be.fd, &m, LLM_MSG_CANCEL) && m.head.request_id == id &&
		      m.cancel.body.reason == ENOSPC,
	      "the backend is told to stop, and why");
	b.n = b.count = 0;
	add_done(&b, id, seq, LLM_FINISH_LENGTH, "");
	works(post_one(&be, &b), "its end is taken");
	do
		read(fd, &ev, sizeof(ev));
	while (ev.head.type && ev.head.type != LLM_EVENT_ERROR && read(fd, &ev, sizeof(ev)) > 0);
	{
		const char *at = ev.bytes;
		const struct llm_event *e = (const void *)at;

		while (e->type != LLM_EVENT_ERROR && at < ev.bytes + sizeof(ev) - 64)
			e = (const void *)(at += e->size);
		check(e->type == LLM_EVENT_ERROR && ((const struct llm_error *)(e + 1))->error == ENOSPC,
		      "the client reads ENOSPC");
	}

	ioctl(be.fd, LLM_IOC_QUERY, &q);
	check(q.context == 4096, "a request asked under 4096");
	id = (uint64_t)submit(fd, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	b.n = b.count = 0;
	add_started(&b, id, 0, 0);
	post(&be, &b);
	for (seq = 1; seq < 2001; seq++) {
		b.n = b.count = 0;
		add_text(&b, id, seq, 7, "x");
		if (post_one(&be, &b))
			break;
		if (seq % 200 == 0)
			read(fd, &ev, sizeof(ev));
	}
	close(be.fd);
	attach_context(&be, "context", 10);
	put_text("/sys/module/llm/parameters/max_payload", "16");
	ioctl(be.fd, LLM_IOC_QUERY, &q);
	put_text("/sys/module/llm/parameters/max_payload", "4194304");
	check(q.context == 10 && q.max_payload == 16 && q.max_message >= 4096 * 4,
	      "... a backend with a context of 10: max_message covers it");
	check(message(be.fd, &m, LLM_MSG_SUBMIT) && m.submit.body.n_ids == 2000,
	      "... and it is told of all its ids");
	close(fd);
	close(be.fd);
	destroy("context");
}

/* ---- a hostile backend ---------------------------------------------------------------------------------------- */

static int lines_of_log(int kmsg, const char *what)
{
	char line[1024];
	int n = 0;
	ssize_t got;

	while ((got = read(kmsg, line, sizeof(line) - 1)) > 0 || (got < 0 && errno == EPIPE)) {
		line[got > 0 ? got : 0] = '\0';
		n += strstr(line, what) != NULL;
	}
	return n;
}

static void test_hostile(void)
{
	struct backend be, victim;
	uint64_t mine, theirs, theirs_here;
	int fd, other, neighbour, refusals = 0, kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	lseek(kmsg, 0, SEEK_END);
	create(&be, "hostile");
	create(&victim, "victim");
	fd = open_events(be.node, O_NONBLOCK);
	other = open_events(victim.node, O_NONBLOCK);
	neighbour = open_events(be.node, O_NONBLOCK);
	for (int i = 0; i < 3; i++) /* ids are each device's own: this one only exists there */
		theirs = (uint64_t)submit(other, "q");
	mine = (uint64_t)submit(fd, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	theirs_here = (uint64_t)submit(neighbour, "q"); /* not delivered */
	b.n = b.count = 0;
	add_started(&b, mine, 0, 0);
	post(&be, &b);
	for (int i = 0; i < 100; i++) {
		uint64_t ids[] = {mine, theirs, theirs_here, 0, ~0ull};
		struct llm_post p = {.size = sizeof(p), .generation = be.generation + 1, .count = 1,
				     .events = (uintptr_t)b.bytes, .events_len = 48,
				     .results = (uintptr_t)b.result};

		b.n = b.count = 0;
		add_text(&b, ids[i % 5], i % 5 ? 1 : 77, 7, "x");
		((struct llm_event *)b.bytes)->type = i % 3 ? LLM_EVENT_TEXT : 200;
		refusals += post_one(&be, &b) == -1;
		refusals += ioctl(be.fd, LLM_IOC_POST, &p) == -1 && errno == ESTALE;
	}
	check(refusals == 200, "a hostile backend is refused each time: %d", refusals);
	check(lines_of_log(kmsg, "llm: llm") == 1, "... and logged once");
	b.n = b.count = 0;
	add_text(&b, mine, 1, 7, "x");
	works(post_one(&be, &b), "its own request is as it was");
	check(read(neighbour, &ev, sizeof(ev)) == -1 && errno == EAGAIN && read(other, &ev, sizeof(ev)) == -1,
	      "nobody else read anything");
	check(message(victim.fd, &m, LLM_MSG_SUBMIT), "the other device's requests are there");
	close(fd);
	close(other);
	close(neighbour);
	close(be.fd);
	close(victim.fd);
	destroy("hostile");
	destroy("victim");
	close(kmsg);
}

int main(void)
{
	test_attributes();
	test_requests();
	test_queue();
	test_sessions();
	test_bytes();
	test_times();
	test_unwritable();
	test_contexts();
	test_hostile();
	return done();
}
