// SPDX-License-Identifier: MIT
/*
 * Every refusal of every command, one check each, named by its errno. What is refused changes
 * nothing: each section ends with the same call done right.
 */
#include "tests/vm/vm.h"

static struct batch b;
static union message m;

/* No address; the compiler must not know. */
static void *volatile bad_address = (void *)8;
#define BAD bad_address

/* ---- what all commands share ------------------------------------------------------------------------- */

static void test_dispatch(int fd, const char *what)
{
	struct {
		struct llm_query q;
		uint64_t tail;
	} longer = {.q.size = sizeof(longer)};
	struct llm_query q = {.size = sizeof(q)};

	refused(ioctl(fd, LLM_IOC_QUERY, BAD), EFAULT, "%s: QUERY at a bad address", what);
	refused(ioctl(fd, _IO(LLM_IOC_MAGIC, 0x7f), &q), ENOTTY, "%s: an unknown command", what);
	refused(ioctl(fd, _IO('x', 0), &q), ENOTTY, "%s: another driver's command", what);
	q.size = 4;
	refused(ioctl(fd, LLM_IOC_QUERY, &q), EINVAL, "%s: a structure that is too short", what);
	q.size = 1 << 20;
	refused(ioctl(fd, LLM_IOC_QUERY, &q), E2BIG, "%s: one of a megabyte", what);
	longer.tail = 1;
	refused(ioctl(fd, LLM_IOC_QUERY, &longer), E2BIG, "%s: a tail that is not zero", what);
	q.size = sizeof(q);
	q.flags = 1;
	refused(ioctl(fd, LLM_IOC_QUERY, &q), EOPNOTSUPP, "%s: an unknown flag", what);
	longer.tail = 0;
	works(ioctl(fd, LLM_IOC_QUERY, &longer), "%s: a longer structure whose tail is zero", what);
	check(longer.q.size == sizeof(longer) && longer.q.features & LLM_FEATURE_REPLAY,
	      "%s: QUERY tells what there is", what);
	memset(&q, 0, sizeof(q));
	q.size = 8;
	works(ioctl(fd, LLM_IOC_QUERY, &q), "%s: the shortest structure", what);
	check(!q.features, "%s: ... and nothing is written behind it", what);
}

/* ---- the control file -------------------------------------------------------------------------------- */

static void test_create(void)
{
	struct llm_device_create c;
	int fd = control();

#define CREATE(error, what, ...)                                                                   \
	do {                                                                                       \
		c = creation("refused");                                                           \
		__VA_ARGS__;                                                                       \
		refused(ioctl(fd, LLM_IOC_DEVICE_CREATE, &c), error, "CREATE: " what);             \
	} while (0)
	CREATE(EOPNOTSUPP, "an unknown flag", c.flags = 1);
	CREATE(EINVAL, "no name", c.name[0] = 0);
	CREATE(EINVAL, "a name without an end", memset(c.name, 'x', sizeof(c.name)));
	CREATE(EINVAL, "a slash in the name", c.name[1] = '/');
	CREATE(EINVAL, "a name that begins with a dot", c.name[0] = '.');
	CREATE(EINVAL, "a control character in the name", c.name[2] = '\n');
	CREATE(EINVAL, "bytes behind the name", c.name[40] = 1);
	CREATE(EINVAL, "a model's name without an end", memset(c.model, 'x', sizeof(c.model)));
	CREATE(EINVAL, "a control character in the model's name", c.model[0] = 7);
	CREATE(EINVAL, "no fingerprint", c.fingerprint = 0);
	CREATE(EINVAL, "no context", c.context = 0);
	CREATE(EINVAL, "too long a context", c.context = UINT32_MAX);
	CREATE(EOPNOTSUPP, "features that a backend does not add", c.features = LLM_FEATURE_REPLAY);
	CREATE(EOPNOTSUPP, "features that nobody knows", c.features = 1ull << 63);
	CREATE(EINVAL, "an out field that is set: device_id", c.device_id = 1);
	CREATE(EINVAL, "an out field that is set: backend_fd", c.backend_fd = 1);
	CREATE(EINVAL, "an out field that is set: generation", c.generation = 1);
	c = creation("refused");
	c.size = sizeof(c) - 8;
	refused(ioctl(fd, LLM_IOC_DEVICE_CREATE, &c), EINVAL, "CREATE: a short structure");
	c = creation("refused");
	works(ioctl(fd, LLM_IOC_DEVICE_CREATE, &c), "CREATE: done right");
	check(fcntl(c.backend_fd, F_GETFD) == FD_CLOEXEC, "the backend file is closed on exec");
	{
		struct llm_device_create again = creation("refused");

		refused(ioctl(fd, LLM_IOC_DEVICE_CREATE, &again), EEXIST, "CREATE: the name is taken");
	}
	close(c.backend_fd);
	works(destroy("refused"), "DESTROY");
	close(fd);
}

static void test_attach(void)
{
	struct llm_device_attach a;
	struct backend be, be2;
	int fd = control();

	create(&be, "attach");
#define ATTACH(error, what, ...)                                                                   \
	do {                                                                                       \
		a = (struct llm_device_attach){.size = sizeof(a), .name = "attach",                \
					       .fingerprint = 1, .context = 10};                   \
		__VA_ARGS__;                                                                       \
		refused(ioctl(fd, LLM_IOC_DEVICE_ATTACH, &a), error, "ATTACH: " what);             \
	} while (0)
	ATTACH(EBUSY, "there is a backend", (void)0);
	close(be.fd);
	ATTACH(EOPNOTSUPP, "an unknown flag", a.flags = 4);
	ATTACH(ENOENT, "no such device", a.name[0] = 'b');
	ATTACH(EINVAL, "no name", a.name[0] = 0);
	ATTACH(EINVAL, "no fingerprint", a.fingerprint = 0);
	ATTACH(EINVAL, "no context", a.context = 0);
	ATTACH(EOPNOTSUPP, "unknown features", a.features = 1ull << 40);
	ATTACH(EINVAL, "an out field that is set", a.device_id = 7);
	works(attach(&be2, "attach", FINGERPRINT), "ATTACH: done right");
	check(be2.generation == be.generation + 1, "the generation is the next one");
	close(be2.fd);
	works(destroy("attach"), "destroyed");
	close(fd);
}

static void test_names(void)
{
	static const struct {
		unsigned int cmd;
		const char *name;
	} cmd[] = {{LLM_IOC_DEVICE_DESTROY, "DESTROY"}, {LLM_IOC_DEVICE_QUIESCE, "QUIESCE"}};
	struct llm_device_name n;
	struct backend be;
	int fd = control(), ses;

	create(&be, "names");
	for (int i = 0; i < 2; i++) {
		n = (struct llm_device_name){.size = sizeof(n), .flags = 1, .name = "names"};
		refused(ioctl(fd, cmd[i].cmd, &n), EOPNOTSUPP, "%s: an unknown flag", cmd[i].name);
		n = (struct llm_device_name){.size = sizeof(n), .name = "a b"};
		refused(ioctl(fd, cmd[i].cmd, &n), EINVAL, "%s: a bad name", cmd[i].name);
		n = (struct llm_device_name){.size = sizeof(n), .name = "none"};
		refused(ioctl(fd, cmd[i].cmd, &n), ENOENT, "%s: no such device", cmd[i].name);
	}
	n = (struct llm_device_name){.size = sizeof(n), .name = "names", .deadline_ns = 1};
	refused(ioctl(fd, LLM_IOC_DEVICE_DESTROY, &n), EINVAL, "DESTROY: a deadline");
	n.deadline_ns = 0;
	refused(ioctl(fd, LLM_IOC_DEVICE_DESTROY, &n), EBUSY, "DESTROY: there is a backend");
	ses = open(be.node, O_RDWR);
	close(be.fd);
	refused(ioctl(fd, LLM_IOC_DEVICE_DESTROY, &n), EBUSY, "DESTROY: there is a session");
	refused(ioctl(fd, LLM_IOC_DEVICE_QUIESCE, &n), EPIPE, "QUIESCE: there is no backend");
	close(ses);
	works(ioctl(fd, LLM_IOC_DEVICE_DESTROY, &n), "DESTROY: done right");
	refused(open(be.node, O_RDWR), ENOENT, "the node is gone");
	close(fd);
}

/* ---- sessions ---------------------------------------------------------------------------------------- */

static void test_mode(const struct backend *be)
{
	struct llm_set_mode s = {.size = sizeof(s), .mode = 2};
	int fd = open(be->node, O_RDWR);
	char c;

	refused(ioctl(fd, LLM_IOC_SET_MODE, &s), EOPNOTSUPP, "SET_MODE: an unknown mode");
	s = (struct llm_set_mode){.size = sizeof(s), .flags = 1};
	refused(ioctl(fd, LLM_IOC_SET_MODE, &s), EOPNOTSUPP, "SET_MODE: an unknown flag");
	s = (struct llm_set_mode){.size = sizeof(s), .__reserved = 1};
	refused(ioctl(fd, LLM_IOC_SET_MODE, &s), EINVAL, "SET_MODE: padding that is not zero");
	s = (struct llm_set_mode){.size = sizeof(s), .mode = LLM_MODE_EVENT};
	works(ioctl(fd, LLM_IOC_SET_MODE, &s), "SET_MODE: done right");
	refused(write(fd, "x", 1), EINVAL, "write() in event mode");
	refused(ioctl(fd, LLM_IOC_SET_MODE, &s), EBUSY, "SET_MODE: after the first use");
	close(fd);
	fd = open(be->node, O_RDWR);
	check(read(fd, &c, 1) == 0, "text mode: nothing was asked");
	refused(submit(fd, "x"), EINVAL, "SUBMIT in text mode");
	refused(lseek(fd, 0, SEEK_SET), ESPIPE, "a session cannot be rewound");
	refused(pread(fd, &c, 1, 0), ESPIPE, "pread()");
	close(fd);
}

static void test_submit(const struct backend *be)
{
	int fd = open_events(be->node, O_NONBLOCK);
	static char big[4 << 20];
	struct llm_submit s;

#define SUBMIT(error, what, ...)                                                                   \
	do {                                                                                       \
		s = submission("question");                                                        \
		__VA_ARGS__;                                                                       \
		refused(ioctl(fd, LLM_IOC_SUBMIT, &s), error, "SUBMIT: " what);                    \
	} while (0)
	SUBMIT(EOPNOTSUPP, "an unknown flag", s.flags = 0x80000000);
	SUBMIT(EOPNOTSUPP, "no format", s.format = 0);
	SUBMIT(EOPNOTSUPP, "an unknown format", s.format = 3);
	SUBMIT(EINVAL, "an out field that is set", s.request_id = 5);
	SUBMIT(EINVAL, "an empty payload", s.payload_len = 0);
	SUBMIT(E2BIG, "a payload over the limit", s.payload_len = sizeof(big) + 1);
	SUBMIT(E2BIG, "a payload of 2^63 bytes", s.payload_len = 1ull << 63);
	SUBMIT(EFAULT, "a payload at a bad address", s.payload = 8);
	SUBMIT(EINVAL, "a priority of -21", s.priority = -21);
	SUBMIT(EINVAL, "a priority of 20", s.priority = 20);
	SUBMIT(EINVAL, "a label of 65 bytes", s.principal_len = 65; s.principal = (uintptr_t)big);
	SUBMIT(EINVAL, "a label without a length", s.principal = (uintptr_t)big);
	SUBMIT(EFAULT, "a label at a bad address", s.principal_len = 3; s.principal = 8);
	SUBMIT(ETIMEDOUT, "a deadline that has passed", s.deadline_ns = 1);
	s = submission("question");
	s.size = 80;
	refused(ioctl(fd, LLM_IOC_SUBMIT, &s), EINVAL, "SUBMIT: a short structure");
	s = submission("question");
	works(ioctl(fd, LLM_IOC_SUBMIT, &s), "SUBMIT: done right");
	{
		struct llm_cancel c = {.size = sizeof(c), .flags = 1, .request_id = s.request_id};
		int other = open_events(be->node, 0);

		refused(ioctl(fd, LLM_IOC_CANCEL, &c), EOPNOTSUPP, "CANCEL: an unknown flag");
		c = (struct llm_cancel){.size = sizeof(c), .request_id = 12345};
		refused(ioctl(fd, LLM_IOC_CANCEL, &c), ENOENT, "CANCEL: no such request");
		c.request_id = s.request_id;
		refused(ioctl(other, LLM_IOC_CANCEL, &c), ENOENT, "CANCEL: another file's request");
		works(ioctl(fd, LLM_IOC_CANCEL, &c), "CANCEL: done right");
		refused(ioctl(fd, LLM_IOC_CANCEL, &c), ENOENT, "CANCEL: a request that is over");
		close(other);
	}
	{
		union event ev;

		refused(read(fd, &ev, 16), EMSGSIZE, "read() of less than a record");
		refused(read(fd, BAD, sizeof(ev)), EFAULT, "read() to a bad address");
		check(read(fd, &ev, sizeof(ev)) > 0 && ev.head.type == LLM_EVENT_DONE,
		      "read(): nothing was lost by that");
		refused(read(fd, &ev, sizeof(ev)), EAGAIN, "read(): nothing more");
	}
	close(fd);
}

/* Rights: as somebody who is neither root nor of the admins' group. */
static void test_rights(const struct backend *be)
{
	pid_t pid;
	int status;

	chmod(be->node, 0666);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct llm_submit s = submission("question");
		int fd, rc = 0;

		if (setgid(1000) || setuid(1000))
			_exit(9);
		fd = open_events(be->node, 0);
		rc |= open(CONTROL, O_RDWR) >= 0 || errno != EACCES;
		s.priority = -1;
		rc |= (!ioctl(fd, LLM_IOC_SUBMIT, &s) || errno != EPERM) << 1;
		s = submission("question");
		s.principal = (uintptr_t)"alice";
		s.principal_len = 5;
		rc |= (!ioctl(fd, LLM_IOC_SUBMIT, &s) || errno != EPERM) << 2;
		/* Credentials are those of the open(), not of the call. */
		_exit(rc);
	}
	waitpid(pid, &status, 0);
	status = WEXITSTATUS(status);
	check(!(status & 1), "the control file is not for everybody: EACCES");
	check(!(status & 2), "a priority below 0 needs a right: EPERM");
	check(!(status & 4), "so does a principal: EPERM");
}

static void test_limits(const struct backend *be)
{
	int fd = open_events(be->node, O_NONBLOCK), taken = 0, files[64], n = 0;

	while (taken < 1000 && submit(fd, "q") > 0)
		taken++;
	check(taken == 16 && errno == ENOSPC, "a file's requests are bounded: %d", taken);
	close(fd);
	for (taken = 0; n < 64; n++) {
		files[n] = open_events(be->node, O_NONBLOCK);
		while (submit(files[n], "q") > 0)
			taken++;
		if (errno != ENOSPC || taken >= 64)
			break;
	}
	check(taken == 64 && errno == ENOSPC, "a principal's are: %d", taken);
	for (; n >= 0; n--)
		close(files[n]);
	fd = open_events(be->node, O_NONBLOCK);
	works(submit(fd, "q"), "what was never delivered is free again at once");
	close(fd);
}

/* ---- the backend file -------------------------------------------------------------------------------- */

static void test_post(struct backend *be)
{
	int fd = open_events(be->node, O_NONBLOCK);
	int64_t id = submit(fd, "question");
	struct llm_post p;

	while (message(be->fd, &m, 0) && m.head.type != LLM_MSG_SUBMIT)
		;
	id = (int64_t)m.head.request_id;
	refused(read(be->fd, &m, sizeof(m)), EAGAIN, "backend read(): nothing more");
#define POST(error, what, ...)                                                                     \
	do {                                                                                       \
		b.n = b.count = 0; /* of nobody: a whole record before a broken one counts */       \
		add_started(&b, 99999, 0, 0);                                                      \
		p = (struct llm_post){.size = sizeof(p), .generation = be->generation,             \
				      .count = b.count, .events = (uintptr_t)b.bytes,              \
				      .events_len = b.n, .results = (uintptr_t)b.result};          \
		__VA_ARGS__;                                                                       \
		refused(ioctl(be->fd, LLM_IOC_POST, &p), error, "POST: " what);                    \
	} while (0)
	POST(EOPNOTSUPP, "an unknown flag", p.flags = 1);
	POST(ESTALE, "another generation", p.generation++);
	POST(EINVAL, "no records", p.count = 0);
	POST(EINVAL, "too many records", p.count = LLM_POST_MAX + 1);
	POST(EINVAL, "more records than bytes", p.count = 2);
	POST(EINVAL, "half a record", p.events_len -= 8);
	POST(EFAULT, "records at a bad address", p.events = 8);
	POST(EINVAL, "a record of no bytes", ((struct llm_event *)b.bytes)->size = 0);
	POST(EINVAL, "a record that is too long", ((struct llm_event *)b.bytes)->size = LLM_EVENT_MAX + 8);
	POST(EINVAL, "a record of an odd size", ((struct llm_event *)b.bytes)->size -= 4);
#define RECORD(error, what, make, ...)                                                             \
	do {                                                                                       \
		struct llm_event *ev = (void *)b.bytes;                                            \
		b.n = b.count = 0;                                                                 \
		make;                                                                              \
		(void)ev;                                                                          \
		__VA_ARGS__;                                                                       \
		refused(post_one(be, &b), error, "record: " what);                                 \
	} while (0)
	RECORD(EOPNOTSUPP, "an unknown flag", add_started(&b, id, 0, 0), ev->flags = 1);
	RECORD(EOPNOTSUPP, "an unknown type", add_started(&b, id, 0, 0), ev->type = 77);
	RECORD(EOPNOTSUPP, "INFO is the socket's", add_started(&b, id, 0, 0), ev->type = LLM_EVENT_INFO);
	RECORD(EINVAL, "a length that does not fit", add_started(&b, id, 0, 0), ev->length -= 8);
	RECORD(EINVAL, "padding that is not zero", add_text(&b, id, 0, 1, "abc"),
	       b.bytes[b.n - 1] = 1);
	RECORD(EINVAL, "a seq ahead", add_started(&b, id, 1, 0), (void)0);
	RECORD(ENOENT, "no such request", add_started(&b, 99999, 0, 0), (void)0);
	RECORD(EINVAL, "text before STARTED", add_text(&b, id, 0, 1, "a"), (void)0);
	RECORD(EINVAL, "a blob whose size is wrong", add_started(&b, id, 0, 0),
	       ((struct llm_resume *)(ev + 1))->size++);
	b.n = b.count = 0;
	add_started(&b, (uint64_t)id, 0, 0);
	works(post_one(be, &b), "record: STARTED, done right");
	RECORD(EINVAL, "the same seq again", add_text(&b, id, 0, 1, "a"), (void)0);
	RECORD(EINVAL, "STARTED again", add_started(&b, id, 1, 0), (void)0);
	RECORD(EINVAL, "more ids than the record has", add_text(&b, id, 1, 1, "a"),
	       ((struct llm_text *)(ev + 1))->n_ids = 1000);
	RECORD(EINVAL, "ids that overflow", add_text(&b, id, 1, 1, "a"),
	       ((struct llm_text *)(ev + 1))->n_ids = 0x40000001);
	RECORD(EINVAL, "TEXT with a subtype", add_text(&b, id, 1, 1, "a"),
	       ((struct llm_text *)(ev + 1))->subtype = 1);
	RECORD(EINVAL, "DATA without one", add_text(&b, id, 1, 1, "a"), ev->type = LLM_EVENT_DATA);
	RECORD(EINVAL, "an unknown finish", add_done(&b, id, 1, 9, ""), (void)0);
	RECORD(EINVAL, "a terminal text that is not there", add_done(&b, id, 1, 1, ""),
	       ((struct llm_done *)(ev + 1))->n_bytes = 5);
	RECORD(EINVAL, "an ERROR without errno", add_done(&b, id, 1, 1, ""),
	       ev->type = LLM_EVENT_ERROR; ((struct llm_error *)(ev + 1))->error = 0);
	b.n = b.count = 0;
	add_text(&b, (uint64_t)id, 1, 1, "a");
	add_done(&b, (uint64_t)id, 2, LLM_FINISH_STOP, "");
	works(post_one(be, &b), "records: TEXT and DONE, done right");
	RECORD(ENOENT, "after the end", add_text(&b, id, 3, 1, "a"), (void)0);
	close(fd);
	refused(write(be->fd, "x", 1), EINVAL, "the backend file cannot be written");
	{
		struct llm_submit s = submission("x");

		refused(ioctl(be->fd, LLM_IOC_SUBMIT, &s), ENOTTY, "nor asked");
	}
}

int main(void)
{
	struct backend be;
	int fd = control();

	test_dispatch(fd, "control");
	refused(read(fd, &m, sizeof(m)), EINVAL, "the control file cannot be read");
	close(fd);
	test_create();
	test_attach();
	test_names();
	create(&be, "refusals");
	fcntl(be.fd, F_SETFL, O_NONBLOCK);
	test_dispatch(be.fd, "backend");
	fd = open(be.node, O_RDWR);
	test_dispatch(fd, "session");
	close(fd);
	test_mode(&be);
	test_submit(&be);
	test_rights(&be);
	test_limits(&be);
	test_post(&be);
	close(be.fd);
	destroy("refusals");
	return done();
}
