// SPDX-License-Identifier: MIT
/*
 * What a hostile or unlucky client or backend must not be able to do: hold slots for ever, hold more
 * memory than it is charged for, keep a read() in the kernel, be told what is meant for the kernel,
 * leave work behind that outlives the module. Each was possible once.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "tests/vm/vm.h"

static struct batch b;
static union message m;

static void start(const struct backend *be, uint64_t id)
{
	b.n = b.count = 0;
	add_started(&b, id, 0, 0);
	post_one(be, &b);
}

/* One request in the hands of a backend that is then gone. */
static uint64_t orphan(struct backend *be, const char *name, int *fd, uint64_t deadline_ns)
{
	struct llm_submit s = submission("q");

	create(be, name);
	*fd = open_events(be->node, O_NONBLOCK);
	s.deadline_ns = deadline_ns;
	ioctl(*fd, LLM_IOC_SUBMIT, &s);
	message(be->fd, &m, LLM_MSG_SUBMIT);
	start(be, s.request_id);
	close(be->fd);
	return s.request_id;
}

/* ---- slots ------------------------------------------------------------------------------------------- */

static void test_slots(void)
{
	struct pollfd p = {.events = POLLIN};
	struct backend be;
	int fd;

	orphan(&be, "untold", &fd, 0);
	attach(&be, "untold", FINGERPRINT);
	close(fd);
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_REPLAY_END,
	      "a client goes before the new backend hears of it: it never does");
	p.fd = be.fd;
	check(poll(&p, 1, 200) == 0, "... and gets no CANCEL for what it never got");
	check(attribute(&be, "requests") == 0, "... and the slot is free");
	check(attribute(&be, "cancelled") == 1 && attribute(&be, "failed") == 0, "... and counted as cancelled");
	close(be.fd);
	destroy("untold");

	orphan(&be, "late", &fd, now_ns() + 300000000);
	p.fd = fd;
	usleep(600000);
	check(poll(&p, 1, 5000) == 1, "a deadline passes between two backends");
	attach(&be, "late", FINGERPRINT);
	check(message(be.fd, &m, LLM_MSG_REPLAY_END), "the next one comes");
	while (read(fd, &m, sizeof(m)) > 0)
		;
	check(attribute(&be, "requests") == 0, "and the slot is free");
	close(fd);
	close(be.fd);
	destroy("late");

	orphan(&be, "copied", &fd, 0);
	attach(&be, "copied", FINGERPRINT);
	message(be.fd, &m, LLM_MSG_SESSION_OPEN);
	refused(read(be.fd, &m, 8), EMSGSIZE, "a backend's buffer is too small for the past");
	close(fd);
	check(message(be.fd, &m, 0) && m.head.type != LLM_MSG_CANCEL && m.head.type != LLM_MSG_SUBMIT,
	      "its client goes: the backend is not told of the request");
	check(attribute(&be, "requests") == 0, "and the slot is free");
	close(be.fd);
	destroy("copied");
}

/* A client that asks and cancels and never reads. */
static void test_flood(void)
{
	struct backend be;
	int fd, n = 0;

	create(&be, "flood");
	fd = open_events(be.node, O_NONBLOCK);
	for (; n < 1000; n++) {
		int64_t id = submit(fd, "q");
		struct llm_cancel c = {.size = sizeof(c), .request_id = (uint64_t)id};

		if (id < 0)
			break;
		ioctl(fd, LLM_IOC_CANCEL, &c);
	}
	check(n == 16 && errno == ENOSPC, "ends that nobody reads count: %d", n);
	while (read(fd, &m, sizeof(m)) > 0)
		;
	works(submit(fd, "q"), "when they are read there is room again");
	close(fd);
	check(attribute(&be, "requests") == 0, "nothing is left");
	close(be.fd);
	destroy("flood");
}

/*
 * A client that opens, asks, closes, over and over, while the backend has what it asked: what is
 * cancelled and not acknowledged counts, whatever became of the file.
 */
static void test_open_flood(void)
{
	enum { PRINCIPAL = 64 };
	static uint64_t ids[PRINCIPAL];
	struct backend be;
	int n = 0, fd = -1, freed = 0;

	create(&be, "openflood");
	for (; n < PRINCIPAL; n++) {
		fd = open_events(be.node, O_NONBLOCK);
		if (submit(fd, "q") < 0 || !message(be.fd, &m, LLM_MSG_SUBMIT))
			break;
		ids[n] = m.head.request_id;
		close(fd);
	}
	check(n == PRINCIPAL && attribute(&be, "sessions") == 0, "opened, asked, closed %d times", n);
	fd = open_events(be.node, O_NONBLOCK);
	refused(submit(fd, "q"), ENOSPC, "the backend has not let go of them: once more is refused");
	check(attribute(&be, "requests") == PRINCIPAL, "they are %d", PRINCIPAL);
	for (int i = 0; i < n; i++) {
		b.n = b.count = 0;
		add_done(&b, ids[i], 0, LLM_FINISH_CANCELLED, "");
		freed += !post_one(&be, &b);
	}
	check(freed == n && attribute(&be, "requests") == 0, "it lets go of %d: they are free", freed);
	works(submit(fd, "q"), "and there is room again");
	close(fd);
	close(be.fd);
	works(destroy("openflood"), "nothing is left");
}

static long slab_kb(void)
{
	char line[128];
	long kb, sum = 0;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "SUnreclaim: %ld", &kb) == 1 || sscanf(line, "VmallocUsed: %ld", &kb) == 1)
			sum += kb;
	if (f)
		fclose(f);
	return sum;
}

/* So many short turns, each answered with its number as its id. */
static void turns(const struct backend *be, int fd, int n)
{
	for (int i = 0; i < n; i++) {
		int64_t id = submit(fd, "q");

		if (id < 0 || !message(be->fd, &m, LLM_MSG_SUBMIT))
			break;
		b.n = b.count = 0;
		add_started(&b, (uint64_t)id, 0, 0);
		add_text(&b, (uint64_t)id, 1, i, "x");
		add_done(&b, (uint64_t)id, 2, LLM_FINISH_STOP, "");
		post(be, &b);
		while (read(fd, &m, sizeof(m)) > 0)
			;
	}
}

/*
 * Short answers of a model with a long context: the transcript is as long as they are. More of them
 * than are forgotten at once.
 */
static void test_transcript_memory(void)
{
	struct llm_device_create c = creation("thin");
	struct backend be;
	long before, used;
	int fd, two, ctl = control();
	enum { TURNS = 600 };

	c.context = 1 << 18; /* a megabyte of ids */
	ioctl(ctl, LLM_IOC_DEVICE_CREATE, &c);
	close(ctl);
	be = (struct backend){c.backend_fd, c.generation, c.device_id, ""};
	snprintf(be.node, sizeof(be.node), "/dev/llm%u", c.device_id);
	fd = open_events(be.node, O_NONBLOCK);
	before = slab_kb();
	turns(&be, fd, TURNS);
	used = slab_kb() - before;
	check(used < 20 * 1024, "%d short turns hold %ld KB", TURNS, used);
	close(be.fd);
	attach(&be, "thin", FINGERPRINT);
	for (int i = 0; i < TURNS; i++) {
		int32_t id;

		if (!message(be.fd, &m, LLM_MSG_SUBMIT))
			break;
		memcpy(&id, m.submit.parts + 8 + (m.submit.body.resume_len + 7) / 8 * 8, 4);
		if (m.submit.body.n_ids != 1 || id != i || m.submit.parts[0] != 'q')
			break;
		if (i == TURNS - 1)
			check(true, "all of them are told to the next backend");
	}
	message(be.fd, &m, LLM_MSG_REPLAY_END);
	submit(fd, "one more");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	two = open_events(be.node, O_NONBLOCK);
	turns(&be, two, TURNS);
	close(fd);
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_CANCEL && message(be.fd, &m, 0) &&
		      m.head.type == LLM_MSG_SESSION_CLOSE,
	      "a long conversation is closed in the middle of an answer");
	close(be.fd);
	attach(&be, "thin", FINGERPRINT + 1);
	check(message(be.fd, &m, 0) && m.head.flags == (LLM_MSG_F_REPLAY | LLM_MSG_F_LOST) &&
		      message(be.fd, &m, 0) && m.head.type == LLM_MSG_REPLAY_END,
	      "another model is told nothing of a long one");
	close(two);
	close(be.fd);
	works(destroy("thin"), "nothing of them is left");
}

/* ---- reads ------------------------------------------------------------------------------------------- */

/* The errno of a read of up to `len` bytes in a process of its own; -1: it did not come back. */
static int read_apart(int fd, void *to, size_t len)
{
	int status, i;
	pid_t pid = fork();

	if (!pid)
		_exit(read(fd, to, len) < 0 ? errno : 0);
	for (i = 0; i < 100 && !waitpid(pid, &status, WNOHANG); i++)
		usleep(50000);
	if (i < 100)
		return WEXITSTATUS(status);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

static void test_half_a_buffer(void)
{
	static char big[4000];
	struct backend be;
	char *two = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t id;
	int fd;

	munmap(two + 4096, 4096);
	memset(big, 'x', sizeof(big) - 1);
	create(&be, "half");
	fd = open_events(be.node, O_NONBLOCK);
	id = (uint64_t)submit(fd, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	start(&be, id);
	b.n = b.count = 0;
	add_text(&b, id, 1, 1, big);
	add_text(&b, id, 2, 1, big);
	post(&be, &b);
	check(read_apart(fd, two, 8192) == 0, "a buffer whose second page is missing: what fits");
	check(read_apart(fd, two + 96, 8000) == EFAULT, "then EFAULT");
	check(read(fd, &m, sizeof(m)) > 4000, "and nothing is lost");
	close(fd);
	close(be.fd);
	destroy("half");
}

static void test_resume(void)
{
	static char big[4000], buf[LLM_EVENT_MAX];
	struct backend be;
	uint64_t id, seq = 1, got = 0, total;
	struct pollfd p = {.events = POLLIN};
	int fd;

	memset(big, 'x', sizeof(big) - 1);
	create(&be, "resume");
	p.fd = be.fd;
	fd = open_events(be.node, O_NONBLOCK);
	id = (uint64_t)submit(fd, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	start(&be, id);
	do {
		b.n = b.count = 0;
		add_text(&b, id, seq, 7, big);
	} while (!post_one(&be, &b) && ++seq < 1000);
	total = seq * (sizeof(struct llm_event) + sizeof(struct llm_text) + 4 + sizeof(big));
	while (poll(&p, 1, 0) == 0) {
		/* Room for one record and a half: the next never fits. */
		ssize_t n = read(fd, buf, 6000);

		if (n <= 0)
			break;
		got += (uint64_t)n;
	}
	check(got < total * 3 / 4, "RESUME comes when half was read, whatever the reader's buffer: %llu of %llu",
	      (unsigned long long)got, (unsigned long long)total);
	close(fd);
	close(be.fd);
	destroy("resume");
}

/* ---- order and news ---------------------------------------------------------------------------------- */

static void test_order(void)
{
	struct llm_submit s = submission("second");
	struct backend be;
	uint64_t first;
	int fd;

	create(&be, "order");
	fd = open_events(be.node, O_NONBLOCK);
	first = (uint64_t)submit(fd, "first");
	s.priority = -5;
	ioctl(fd, LLM_IOC_SUBMIT, &s);
	message(be.fd, &m, LLM_MSG_SESSION_OPEN);
	refused(read(be.fd, &m, 8), EMSGSIZE, "a backend's buffer is too small for the first request");
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_SUBMIT && m.head.request_id == first,
	      "it is still the first, also where the second is more urgent");
	close(fd);
	close(be.fd);
	destroy("order");
}

static void test_hangup(void)
{
	struct backend be;
	struct pollfd p = {.events = POLLIN};

	create(&be, "hangup");
	set_recovery(&be, 1000);
	p.fd = open_events(be.node, O_NONBLOCK);
	close(be.fd);
	check(poll(&p, 1, 60000) == 1 && p.revents == POLLHUP, "who polls hears that no backend comes back");
	close(p.fd);
	destroy("hangup");
}

static void test_long_structure(void)
{
	struct llm_query *q = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = control();

	q->size = 1 << 20;
	refused(ioctl(fd, LLM_IOC_QUERY, q), E2BIG, "a structure is at most a page, also if its tail is zero");
	close(fd);
	munmap(q, 1 << 20);
}

/* ---- what used to take the machine with it ----------------------------------------------------------- */

static void test_kernels_errno(void)
{
	struct llm_error e = {.error = 529}; /* EIOCBQUEUED */
	struct backend be;
	uint64_t id;
	char c;
	int fd;

	create(&be, "errno");
	fd = open(be.node, O_RDWR | O_NONBLOCK);
	write(fd, "q", 1);
	read(fd, &c, 1);
	message(be.fd, &m, LLM_MSG_SUBMIT);
	id = m.head.request_id;
	start(&be, id);
	b.n = b.count = 0;
	add(&b, LLM_EVENT_ERROR, id, 1, &e, sizeof(e));
	refused(post_one(&be, &b), EINVAL, "an errno that is the kernel's own");
	refused(read(fd, &c, 1), EAGAIN, "does not get to a reader");
	e.error = ESTALE;
	b.n = b.count = 0;
	add(&b, LLM_EVENT_ERROR, id, 1, &e, sizeof(e));
	works(post_one(&be, &b), "another does");
	refused(read(fd, &c, 1), ESTALE, "so");
	close(fd);
	close(be.fd);
	destroy("errno");
}

/* CREATE that fails at the very end leaves nothing that could run when the module has gone. */
static void test_unload(void)
{
	struct llm_device_create *c = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = control();

	*c = creation("unload");
	c->recovery_ms = 1500;
	mprotect(c, 4096, PROT_READ);
	refused(ioctl(fd, LLM_IOC_DEVICE_CREATE, c), EFAULT, "CREATE: the answer cannot be written");
	refused(access("/dev/llm0", F_OK), ENOENT, "there is no device");
	close(fd);
	works(syscall(SYS_delete_module, "llm", O_NONBLOCK), "the module goes");
	usleep(3000000);
	fd = open("/llm.ko", O_RDONLY);
	works(syscall(SYS_finit_module, fd, "", 0), "and comes back");
	close(fd);
}

int main(void)
{
	test_slots();
	test_flood();
	test_open_flood();
	test_transcript_memory();
	test_half_a_buffer();
	test_resume();
	test_order();
	test_hangup();
	test_long_structure();
	test_unload();
	test_kernels_errno();
	return done();
}
