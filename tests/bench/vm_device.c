// SPDX-License-Identifier: MIT
/*
 * What a way through the module costs, beside the same bytes through a Unix socket pair: runs in the
 * virtual machine (vm_device.sh). One JSON object a line.
 *
 *   vm_device latency [ROUNDS]   two processes, a client and a backend, that ask and answer over the
 *                                device and over a socket pair in turns. submit: from before SUBMIT
 *                                or send() until the backend's read() has returned; post: from before
 *                                POST or send() of one event until the client's read() has returned.
 *   vm_device cycle [ROUNDS]     one process does both sides of whole requests over the device
 *   vm_device first [ROUNDS]     likewise: from open() or connect() until the other side has read the
 *                                first request
 *
 * Before each measured call its peer sleeps in read() or poll(). Times are ticks of the counter that
 * the CPU has for it: instructions where QEMU counts them.
 */
#include "tests/vm/vm.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#define TOKENS	  8 /* events measured of each answer */
#define TURNS	  5 /* requests over one way, then over the other */
#define PAUSE_US  300 /* until the peer sleeps */
#define CONTEXT	  32768
#define MAX_BYTES 4096
#define MAX_TAKEN 40000

enum way { DEVICE, SOCKET, WAYS };
enum figure { SUBMIT, POST, FIGURES };

/* What both processes see. */
struct shared {
	volatile uint64_t t0;
	uint64_t taken[FIGURES][WAYS][MAX_TAKEN];
	unsigned int n[FIGURES][WAYS];
};

struct setup {
	struct shared *sh;
	struct backend be;
	int client[WAYS], server[WAYS]; /* descriptors of both ends */
	int ack[2]; /* a byte: the client has read an event */
	bool polled; /* non-blocking, after poll(); else blocking */
	size_t payload;
	unsigned int rounds;
};

static const char *const figure_names[] = {"submit-to-delivery", "post-to-read"};

static uint64_t tick(void)
{
#if defined(__x86_64__)
	return __rdtsc();
#elif defined(__aarch64__)
	uint64_t t;

	__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(t));
	return t;
#else
	return now_ns();
#endif
}

static void fail(const char *what)
{
	printf("# vm_device: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static void take(struct setup *s, enum figure f, enum way w)
{
	uint64_t ticks = tick() - s->sh->t0;
	unsigned int *n = &s->sh->n[f][w];

	if (*n < MAX_TAKEN)
		s->sh->taken[f][w][(*n)++] = ticks;
}

static size_t receive(const struct setup *s, int fd, void *buf, size_t size)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	if (s->polled && poll(&p, 1, -1) < 0)
		fail("poll");
	n = read(fd, buf, size);
	if (n <= 0)
		fail("read");
	return (size_t)n;
}

/* ---- the backend ----------------------------------------------------------------------------------- */

static void post_event(struct setup *s, enum way w, struct batch *b, enum figure measured)
{
	char byte;

	if (read(s->ack[0], &byte, 1) != 1)
		fail("ack");
	usleep(PAUSE_US);
	s->sh->t0 = measured == POST ? tick() : 0;
	if (w == DEVICE) {
		if (post_one(&s->be, b))
			fail("POST");
	} else {
		if (send(s->server[w], b->bytes, b->n, 0) != (ssize_t)b->n)
			fail("send");
		b->n = b->count = 0;
	}
}

static void answer(struct setup *s, enum way w, uint64_t id)
{
	static struct batch b;
	uint64_t seq = 0;

	add_started(&b, id, seq++, LLM_RESUME_F_FRESH);
	post_event(s, w, &b, FIGURES);
	for (int i = 0; i < TOKENS; i++) {
		add_text(&b, id, seq++, 1000 + i, " word");
		post_event(s, w, &b, POST);
	}
	add_done(&b, id, seq, LLM_FINISH_STOP, "");
	post_event(s, w, &b, FIGURES);
}

static void serve(struct setup *s)
{
	static union message m;

	for (unsigned int r = 0; r < s->rounds * WAYS * TURNS; r++) {
		enum way w = r / TURNS % WAYS;

		receive(s, s->server[w], &m, sizeof(m));
		if (m.head.type == LLM_MSG_SUBMIT)
			take(s, SUBMIT, w);
		while (m.head.type != LLM_MSG_SUBMIT)
			receive(s, s->server[w], &m, sizeof(m));
		answer(s, w, m.head.request_id);
	}
}

/* ---- the client ------------------------------------------------------------------------------------ */

/* The bytes that a backend reads of a request. */
static void ask_socket(struct setup *s, const char *text)
{
	static struct {
		struct llm_msg head;
		struct llm_msg_submit body;
		char payload[MAX_BYTES];
	} m;
	static uint64_t id;

	m.head = (struct llm_msg){.type = LLM_MSG_SUBMIT, .request_id = ++id};
	m.head.size = (uint32_t)(sizeof(m.head) + sizeof(m.body) + s->payload);
	m.body = (struct llm_msg_submit){.format = LLM_FMT_TEXT, .payload_len = s->payload};
	memcpy(m.payload, text, s->payload);
	s->sh->t0 = tick();
	if (send(s->client[SOCKET], &m, m.head.size, 0) < 0)
		fail("send");
}

static void ask_device(struct setup *s, const char *text)
{
	struct llm_submit sub = submission(text);

	sub.payload_len = s->payload;
	s->sh->t0 = tick();
	if (ioctl(s->client[DEVICE], LLM_IOC_SUBMIT, &sub))
		fail("SUBMIT");
}

static void ask(struct setup *s, enum way w, const char *text)
{
	static union event ev;
	bool over = false;

	usleep(PAUSE_US);
	if (w == DEVICE)
		ask_device(s, text);
	else
		ask_socket(s, text);
	while (!over) {
		if (write(s->ack[1], "", 1) != 1)
			fail("ack");
		receive(s, s->client[w], &ev, sizeof(ev));
		if (ev.head.type == LLM_EVENT_TEXT)
			take(s, POST, w);
		over = ev.head.type == LLM_EVENT_DONE;
	}
}

static void be_client(struct setup *s)
{
	static char text[MAX_BYTES];

	memset(text, 'a', sizeof(text));
	for (unsigned int r = 0; r < s->rounds * WAYS * TURNS; r++)
		ask(s, r / TURNS % WAYS, text);
}

/* ---- figures --------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t quantile(uint64_t *v, unsigned int n, double q)
{
	qsort(v, n, sizeof(*v), by_value);
	return n ? v[(unsigned int)(q * (n - 1))] : 0;
}

static void print_latency(struct setup *s, int cpus)
{
	for (int f = 0; f < FIGURES; f++) {
		double median[WAYS];

		printf("{\"figure\":\"%s\",\"payload\":%zu,\"style\":\"%s\",\"cpus\":%d",
		       figure_names[f], s->payload, s->polled ? "poll" : "blocking", cpus);
		for (int w = 0; w < WAYS; w++) {
			uint64_t *v = s->sh->taken[f][w];
			unsigned int n = s->sh->n[f][w];
			const char *name = w == DEVICE ? "device" : "socket";

			median[w] = (double)quantile(v, n, .5);
			printf(",\"%s\":%.0f,\"%s_p25\":%llu,\"%s_p75\":%llu,\"%s_n\":%u", name,
			       median[w], name, (unsigned long long)quantile(v, n, .25), name,
			       (unsigned long long)quantile(v, n, .75), name, n);
		}
		printf(",\"ratio\":%.3f}\n", median[SOCKET] ? median[DEVICE] / median[SOCKET] : 0);
	}
	fflush(stdout);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("affinity");
}

static void device(struct backend *be, const char *name)
{
	struct llm_device_create c = creation(name);
	int fd = control();

	c.context = CONTEXT;
	if (fd < 0 || ioctl(fd, LLM_IOC_DEVICE_CREATE, &c))
		fail("create");
	close(fd);
	*be = (struct backend){c.backend_fd, c.generation, c.device_id, ""};
	snprintf(be->node, sizeof(be->node), "/dev/llm%u", c.device_id);
}

static void latency(unsigned int rounds, size_t payload, bool polled, int cpus)
{
	struct setup s = {.rounds = rounds, .payload = payload, .polled = polled};
	int pair[2], flags = polled ? O_NONBLOCK : 0, status;
	pid_t pid;

	s.sh = mmap(NULL, sizeof(*s.sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s.sh == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) || pipe(s.ack))
		fail("setup");
	memset(s.sh, 0, sizeof(*s.sh)); /* no page faults while measuring */
	device(&s.be, "bench");
	s.client[SOCKET] = pair[0];
	s.server[SOCKET] = pair[1];
	s.server[DEVICE] = s.be.fd;
	for (int w = 0; w < WAYS; w++)
		fcntl(s.server[w], F_SETFL, O_RDWR | flags);
	fcntl(s.client[SOCKET], F_SETFL, O_RDWR | flags);
	pid = fork();
	if (!pid) {
		pin(cpus - 1);
		serve(&s);
		_exit(0);
	}
	pin(0);
	s.client[DEVICE] = open_events(s.be.node, flags);
	if (s.client[DEVICE] < 0)
		fail(s.be.node);
	be_client(&s);
	if (waitpid(pid, &status, 0) != pid || status)
		fail("the backend");
	close(s.client[DEVICE]);
	close(s.be.fd);
	close(pair[0]);
	close(pair[1]);
	close(s.ack[0]);
	close(s.ack[1]);
	print_latency(&s, cpus);
	munmap(s.sh, sizeof(*s.sh));
	if (destroy("bench"))
		fail("destroy");
}

/* Whole requests, both sides in one process: nobody waits, nothing else runs. */
static void cycle(unsigned int rounds)
{
	static uint64_t taken[MAX_TAKEN];
	static union message m;
	static union event ev;
	static struct batch b;
	struct backend be;
	unsigned int n = 0;
	int fd;

	device(&be, "bench");
	fd = open_events(be.node, 0);
	if (rounds > MAX_TAKEN)
		rounds = MAX_TAKEN;
	for (unsigned int r = 0; r < rounds; r++) {
		uint64_t t = tick();
		int64_t id = submit(fd, "a question of some length, as they are");

		do {
			if (read(be.fd, &m, sizeof(m)) <= 0)
				fail("read");
		} while (m.head.type != LLM_MSG_SUBMIT);
		add_started(&b, (uint64_t)id, 0, LLM_RESUME_F_FRESH);
		if (post_one(&be, &b) || read(fd, &ev, sizeof(ev)) <= 0)
			fail("started");
		for (unsigned int i = 1; i <= TOKENS; i++) {
			add_text(&b, (uint64_t)id, i, 1000, " word");
			if (post_one(&be, &b) || read(fd, &ev, sizeof(ev)) <= 0)
				fail("text");
		}
		add_done(&b, (uint64_t)id, TOKENS + 1, LLM_FINISH_STOP, "");
		if (post_one(&be, &b) || read(fd, &ev, sizeof(ev)) <= 0)
			fail("done");
		taken[n++] = tick() - t;
	}
	printf("{\"figure\":\"cycle\",\"tokens\":%d,\"n\":%u,\"least\":%llu,\"median\":%llu,"
	       "\"p75\":%llu}\n",
	       TOKENS, n, (unsigned long long)quantile(taken, n, 0),
	       (unsigned long long)quantile(taken, n, .5),
	       (unsigned long long)quantile(taken, n, .75));
	fflush(stdout);
	close(fd);
	close(be.fd);
	if (destroy("bench"))
		fail("destroy");
}

static uint64_t first_over_device(const struct backend *be)
{
	static union message m;
	uint64_t t = tick();
	int fd = open_events(be->node, 0);

	if (fd < 0 || submit(fd, "a question of some length, as they are") < 0)
		fail("SUBMIT");
	do {
		if (read(be->fd, &m, sizeof(m)) <= 0)
			fail("read");
	} while (m.head.type != LLM_MSG_SUBMIT);
	t = tick() - t;
	close(fd);
	return t;
}

static uint64_t first_over_socket(int listener, const struct sockaddr_un *addr)
{
	static char buf[1 << 16];
	struct llm_msg m[4] = {{.size = sizeof(m), .type = LLM_MSG_SUBMIT}};
	uint64_t t = tick();
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0), peer;

	if (fd < 0 || connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) ||
	    send(fd, m, sizeof(m), 0) < 0)
		fail("connect");
	peer = accept(listener, NULL, NULL);
	if (peer < 0 || read(peer, buf, sizeof(buf)) <= 0)
		fail("accept");
	t = tick() - t;
	close(fd);
	close(peer);
	return t;
}

static void first(unsigned int rounds)
{
	static uint64_t taken[WAYS][MAX_TAKEN];
	struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "/tmp/bench.sock"};
	int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	double d, s;
	struct backend be;

	unlink(addr.sun_path);
	if (listener < 0 || bind(listener, (struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(listener, 5))
		fail("listen");
	device(&be, "bench");
	if (rounds > MAX_TAKEN)
		rounds = MAX_TAKEN;
	for (unsigned int r = 0; r < rounds; r++) {
		static struct batch b;
		static union message m;

		taken[DEVICE][r] = first_over_device(&be);
		while (m.head.type != LLM_MSG_CANCEL && read(be.fd, &m, sizeof(m)) > 0)
			;
		add_done(&b, m.head.request_id, 0, LLM_FINISH_CANCELLED, "");
		post_one(&be, &b);
		m.head.type = 0;
		taken[SOCKET][r] = first_over_socket(listener, &addr);
	}
	d = (double)quantile(taken[DEVICE], rounds, .5);
	s = (double)quantile(taken[SOCKET], rounds, .5);
	printf("{\"figure\":\"first\",\"n\":%u,\"device\":%.0f,\"socket\":%.0f,\"ratio\":%.3f}\n",
	       rounds, d, s, d / s);
	fflush(stdout);
	close(be.fd);
	close(listener);
	if (destroy("bench"))
		fail("destroy");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	unsigned int rounds = argc > 2 ? (unsigned int)atoi(argv[2]) : 20;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (!strcmp(what, "cycle")) {
		cycle(rounds);
		return 0;
	}
	if (!strcmp(what, "first")) {
		first(rounds);
		return 0;
	}
	if (strcmp(what, "latency")) {
		printf("# usage: vm_device latency|cycle|first [ROUNDS]\n");
		return 2;
	}
	for (int c = 1; c <= cpus && c <= 2; c++) {
		latency(rounds, 64, false, c);
		latency(rounds, 4096, false, c);
		latency(rounds, 64, true, c);
	}
	return 0;
}
