/* SPDX-License-Identifier: MIT */
/*
 * What test programs in the virtual machine share: TAP, and both sides of the module. Static, no
 * libraries. Each program runs alone, as root, with the module loaded.
 */
#ifndef LLMDEV_TESTS_VM_H
#define LLMDEV_TESTS_VM_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "llm.h"

/* ---- TAP --------------------------------------------------------------------------------------------- */

static int vm_n, vm_failed;

__attribute__((format(printf, 2, 3), unused)) static bool check(bool ok, const char *fmt, ...)
{
	char what[256];
	va_list ap;
	int e = errno;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	printf("%s %d - %s\n", ok ? "ok" : "not ok", ++vm_n, what);
	if (!ok) {
		printf("# errno %d: %s\n", e, strerror(e));
		vm_failed++;
	}
	fflush(stdout);
	errno = e;
	return ok;
}

/* CALL fails with the errno; what it is about. */
#define refused(call, error, ...)                                                                  \
	({                                                                                         \
		errno = 0;                                                                         \
		long r_ = (call);                                                                  \
		check(r_ == -1 && errno == (error), __VA_ARGS__);                                  \
	})
#define works(call, ...)                                                                           \
	({                                                                                         \
		long w_ = (call);                                                                  \
		check(w_ >= 0, __VA_ARGS__);                                                       \
		w_;                                                                                \
	})

__attribute__((unused)) static int done(void)
{
	printf("1..%d\n", vm_n);
	return vm_failed ? 1 : 0;
}

__attribute__((unused)) static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* ---- a storm of signals ------------------------------------------------------------------------------ */

/*
 * With STORM in the environment every program gets a signal each millisecond, its children every ten.
 * read(), ioctl() and open() begin again by themselves; what does not, here.
 */
static void vm_signal(int sig)
{
	(void)sig;
}

__attribute__((unused)) static void vm_signals_every(long ms)
{
	struct sigaction sa = {.sa_handler = vm_signal, .sa_flags = SA_RESTART};
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
	struct itimerspec each = {{0, ms * 1000000}, {0, ms * 1000000}};
	timer_t t;

	sigaction(SIGUSR2, &sa, NULL);
	if (timer_create(CLOCK_MONOTONIC, &ev, &t) || timer_settime(t, 0, &each, NULL))
		abort();
}

/* Timers are not inherited. Children may be many: they need time for something else as well. */
__attribute__((unused)) static void vm_storm_child(void)
{
	vm_signals_every(10);
}

__attribute__((constructor, unused)) static void vm_storm(void)
{
	if (!getenv("STORM"))
		return;
	pthread_atfork(NULL, NULL, vm_storm_child);
	vm_signals_every(1);
}

__attribute__((unused)) static int vm_poll(struct pollfd *p, nfds_t n, int ms)
{
	uint64_t end = now_ns() + (uint64_t)ms * 1000000;
	int rc;

	while ((rc = poll(p, n, ms)) < 0 && errno == EINTR && ms > 0)
		ms = now_ns() < end ? (int)((end - now_ns()) / 1000000) : 0;
	return rc < 0 && errno == EINTR ? 0 : rc;
}
#define poll vm_poll

__attribute__((unused)) static void vm_usleep(uint64_t us)
{
	struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}
#define usleep vm_usleep

/* ---- the admin's side ---------------------------------------------------------------------------------- */

#define CONTROL	    "/dev/llm-control"
#define FINGERPRINT 0x1234567890abcdefull

__attribute__((unused)) static int control(void)
{
	return open(CONTROL, O_RDWR | O_CLOEXEC);
}

struct backend {
	int fd;
	uint32_t generation, number;
	char node[32]; /* "/dev/llm0" */
};

__attribute__((unused)) static struct llm_device_create creation(const char *name)
{
	struct llm_device_create c = {
		.size = sizeof(c), .fingerprint = FINGERPRINT, .context = 4096, .recovery_ms = 600000};

	strncpy((char *)c.name, name, sizeof(c.name) - 1);
	strcpy((char *)c.model, "a model");
	return c;
}

__attribute__((unused)) static int create(struct backend *b, const char *name)
{
	struct llm_device_create c = creation(name);
	int fd = control(), rc = ioctl(fd, LLM_IOC_DEVICE_CREATE, &c);

	close(fd);
	if (!rc)
		*b = (struct backend){c.backend_fd, c.generation, c.device_id, ""};
	snprintf(b->node, sizeof(b->node), "/dev/llm%u", c.device_id);
	return rc;
}

__attribute__((unused)) static int attach(struct backend *b, const char *name, uint64_t fingerprint)
{
	struct llm_device_attach a = {.size = sizeof(a), .fingerprint = fingerprint, .context = 4096};
	int fd = control(), rc;

	strncpy((char *)a.name, name, sizeof(a.name) - 1);
	rc = ioctl(fd, LLM_IOC_DEVICE_ATTACH, &a);
	close(fd);
	if (!rc) {
		*b = (struct backend){a.backend_fd, a.generation, a.device_id, ""};
		snprintf(b->node, sizeof(b->node), "/dev/llm%u", a.device_id);
	}
	return rc;
}

/* A number in the device's sysfs folder; -1: it cannot be read. */
__attribute__((unused)) static int64_t attribute(const struct backend *be, const char *name)
{
	char path[64], text[64] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/class/misc/%s/%s", be->node + strlen("/dev/"), name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		strcpy(text, "-1");
	close(fd);
	return atoll(text);
}

/* Otherwise clients wait for ten minutes, so that a slow machine changes nothing. */
__attribute__((unused)) static void set_recovery(const struct backend *be, unsigned int ms)
{
	char path[64], text[16];
	int fd;

	snprintf(path, sizeof(path), "/sys/class/misc/%s/recovery_ms", be->node + strlen("/dev/"));
	snprintf(text, sizeof(text), "%u", ms);
	fd = open(path, O_WRONLY);
	if (write(fd, text, strlen(text)) < 0)
		abort();
	close(fd);
}

__attribute__((unused)) static int destroy(const char *name)
{
	struct llm_device_name n = {.size = sizeof(n)};
	int fd = control(), rc;

	strncpy((char *)n.name, name, sizeof(n.name) - 1);
	rc = ioctl(fd, LLM_IOC_DEVICE_DESTROY, &n);
	close(fd);
	return rc;
}

/* ---- the daemon's side --------------------------------------------------------------------------------- */

union message {
	struct llm_msg head;
	struct {
		struct llm_msg head;
		struct llm_msg_session body;
	} session;
	struct {
		struct llm_msg head;
		struct llm_msg_submit body;
		char parts[];
	} submit;
	struct {
		struct llm_msg head;
		struct llm_msg_cancel body;
	} cancel;
	struct {
		struct llm_msg head;
		struct llm_msg_quiesce body;
	} quiesce;
	char bytes[1 << 16];
};

/* The next message of this type within a second or so, others are skipped; false: none came. */
__attribute__((unused)) static bool message(int fd, union message *m, uint32_t type)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, 10000) <= 0)
			return false;
		n = read(fd, m, sizeof(*m));
		if (n < 0)
			return false;
		if (m->head.type == type || !type)
			return true;
	}
}

struct batch {
	char bytes[1 << 16];
	size_t n;
	uint32_t count;
	int32_t result[LLM_POST_MAX];
};

__attribute__((unused)) static void add(struct batch *b, uint32_t type, uint64_t request, uint64_t seq,
					const void *payload, size_t len)
{
	struct llm_event ev = {.type = type, .length = (uint32_t)len, .request_id = request, .seq = seq};

	ev.size = (uint32_t)(sizeof(ev) + (len + 7) / 8 * 8);
	memcpy(b->bytes + b->n, &ev, sizeof(ev));
	memset(b->bytes + b->n + sizeof(ev), 0, ev.size - sizeof(ev));
	memcpy(b->bytes + b->n + sizeof(ev), payload, len);
	b->n += ev.size;
	b->count++;
}

__attribute__((unused)) static void add_started(struct batch *b, uint64_t request, uint64_t seq,
						uint32_t flags)
{
	struct llm_resume r = {.size = sizeof(r), .flags = flags, .fingerprint = FINGERPRINT};

	add(b, LLM_EVENT_STARTED, request, seq, &r, sizeof(r));
}

__attribute__((unused)) static void add_text(struct batch *b, uint64_t request, uint64_t seq, int32_t id,
					     const char *text)
{
	char buf[4096];
	struct llm_text t = {.n_ids = 1, .n_bytes = (uint32_t)strlen(text)};

	memcpy(buf, &t, sizeof(t));
	memcpy(buf + sizeof(t), &id, sizeof(id));
	memcpy(buf + sizeof(t) + sizeof(id), text, t.n_bytes);
	add(b, LLM_EVENT_TEXT, request, seq, buf, sizeof(t) + sizeof(id) + t.n_bytes);
}

__attribute__((unused)) static void add_done(struct batch *b, uint64_t request, uint64_t seq,
					     uint32_t finish, const char *text)
{
	char buf[4096];
	struct llm_done d = {.finish = finish, .n_bytes = (uint32_t)strlen(text)};

	memcpy(buf, &d, sizeof(d));
	memcpy(buf + sizeof(d), text, d.n_bytes);
	add(b, LLM_EVENT_DONE, request, seq, buf, sizeof(d) + d.n_bytes);
}

__attribute__((unused)) static int post(const struct backend *be, struct batch *b)
{
	struct llm_post p = {.size = sizeof(p), .generation = be->generation, .count = b->count,
			     .events = (uintptr_t)b->bytes, .events_len = b->n,
			     .results = (uintptr_t)b->result};
	int rc;

	memset(b->result, 0x7f, sizeof(b->result));
	rc = ioctl(be->fd, LLM_IOC_POST, &p);
	b->n = b->count = 0;
	return rc;
}

/* One event, its result as -1 and errno. */
__attribute__((unused)) static int post_one(const struct backend *be, struct batch *b)
{
	int rc = post(be, b);

	if (rc || !b->result[0])
		return rc;
	errno = -b->result[0];
	return -1;
}

/*
 * Answers everything with text of single letters, until the file is taken away: a daemon in small.
 * `limit`: die (return) after so many events were posted; < 0: never.
 */
struct daemon {
	struct backend be;
	const char *answer; /* one token a letter */
	int limit;
	unsigned int pause_us; /* between tokens */
	int posted;
};

__attribute__((unused)) static bool daemon_post(struct daemon *d, struct batch *b)
{
	for (;;) {
		struct batch copy = *b;
		union message m;

		if (d->limit >= 0 && d->posted >= d->limit)
			return false;
		if (post(&d->be, &copy))
			return false;
		d->posted++;
		if (copy.result[0] != -EAGAIN) {
			b->n = b->count = 0;
			return !copy.result[0] || copy.result[0] == -ECANCELED || copy.result[0] == -ENOENT;
		}
		if (!message(d->be.fd, &m, LLM_MSG_RESUME))
			return false;
	}
}

__attribute__((unused)) static bool daemon_answer(struct daemon *d, const union message *m)
{
	static __thread struct batch b;
	const struct llm_msg_submit *s = &m->submit.body;
	uint64_t id = m->head.request_id, seq = s->seq;
	size_t n = strlen(d->answer);

	if (m->head.flags & LLM_MSG_F_FINISHED)
		return true;
	b.n = b.count = 0;
	if (!s->resume_len) {
		add_started(&b, id, seq++, 0);
		if (!daemon_post(d, &b))
			return false;
	}
	for (size_t i = s->n_ids; i < n; i++) {
		char letter[2] = {d->answer[i], '\0'};

		add_text(&b, id, seq++, d->answer[i], letter);
		if (!daemon_post(d, &b))
			return false;
		if (d->pause_us)
			usleep(d->pause_us);
	}
	add_done(&b, id, seq, LLM_FINISH_STOP, "");
	return daemon_post(d, &b);
}

__attribute__((unused)) static void *daemon_run(void *arg)
{
	struct daemon *d = arg;
	union message *m = malloc(sizeof(*m));

	for (;;) {
		ssize_t n = read(d->be.fd, m, sizeof(*m));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || m->head.type == LLM_MSG_QUIESCE)
			break;
		if (m->head.type == LLM_MSG_SUBMIT && !daemon_answer(d, m))
			break;
	}
	free(m);
	close(d->be.fd);
	return NULL;
}

/* ---- the client's side --------------------------------------------------------------------------------- */

__attribute__((unused)) static int open_events(const char *node, int flags)
{
	struct llm_set_mode m = {.size = sizeof(m), .mode = LLM_MODE_EVENT};
	int fd = open(node, O_RDWR | O_CLOEXEC | flags);

	if (fd >= 0 && ioctl(fd, LLM_IOC_SET_MODE, &m)) {
		close(fd);
		return -1;
	}
	return fd;
}

__attribute__((unused)) static struct llm_submit submission(const char *text)
{
	struct llm_submit s = {.size = sizeof(s), .payload = (uintptr_t)text,
			       .payload_len = strlen(text), .format = LLM_FMT_TEXT};

	return s;
}

__attribute__((unused)) static int64_t submit(int fd, const char *text)
{
	struct llm_submit s = submission(text);

	return ioctl(fd, LLM_IOC_SUBMIT, &s) ? -1 : (int64_t)s.request_id;
}

union event {
	struct llm_event head;
	char bytes[LLM_EVENT_MAX];
};

__attribute__((unused)) static const void *payload_of(const union event *e)
{
	return e->bytes + sizeof(e->head);
}

/* Reads one answer of text mode to its end; its length or -1. */
__attribute__((unused)) static ssize_t read_answer(int fd, char *buf, size_t size)
{
	size_t n = 0;

	for (;;) {
		ssize_t r = read(fd, buf + n, size - 1 - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		if (!r)
			break;
		n += (size_t)r;
	}
	buf[n] = '\0';
	return (ssize_t)n;
}

#endif
