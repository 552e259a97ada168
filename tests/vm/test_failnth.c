// SPDX-License-Identifier: MIT
/*
 * Every allocation and every copy to or from user memory that the module's good calls make fails
 * once. Each call is then refused with ENOMEM or EFAULT (or does without), has changed nothing, and
 * works when it is made again; the conversation that it belongs to comes to its end, with the right
 * bytes. Nothing is left over: no file, no request; memory is kmemleak's and the unloading's to see.
 */
#include "tests/vm/failnth.h"

static struct batch b;
static union message m;
static union event ev;

/* ---- calls ------------------------------------------------------------------------------------------- */

static int make(int ctl, struct backend *be, const char *name)
{
	struct llm_device_create c = creation(name);
	int rc = ioctl(ctl, LLM_IOC_DEVICE_CREATE, &c);

	if (!rc)
		*be = (struct backend){c.backend_fd, c.generation, c.device_id, ""};
	snprintf(be->node, sizeof(be->node), "/dev/llm%u", c.device_id);
	return rc;
}

static int take_over(int ctl, struct backend *be, const char *name)
{
	struct llm_device_attach a = {.size = sizeof(a),
				      .fingerprint = FINGERPRINT,
				      .context = 4096};
	int rc;

	strncpy((char *)a.name, name, sizeof(a.name) - 1);
	rc = ioctl(ctl, LLM_IOC_DEVICE_ATTACH, &a);
	if (!rc) {
		be->fd = a.backend_fd;
		be->generation = a.generation;
	}
	return rc;
}

static int unmake(int ctl, const char *name)
{
	struct llm_device_name n = {.size = sizeof(n)};

	strncpy((char *)n.name, name, sizeof(n.name) - 1);
	return ioctl(ctl, LLM_IOC_DEVICE_DESTROY, &n);
}

static int set_mode(int fd)
{
	struct llm_set_mode mode = {.size = sizeof(mode), .mode = LLM_MODE_EVENT};

	return ioctl(fd, LLM_IOC_SET_MODE, &mode);
}

static int query(int fd)
{
	struct llm_query q = {.size = sizeof(q)};

	return ioctl(fd, LLM_IOC_QUERY, &q);
}

static int cancel(int fd, int64_t id)
{
	struct llm_cancel c = {.size = sizeof(c), .request_id = (uint64_t)id};

	return ioctl(fd, LLM_IOC_CANCEL, &c);
}

static int post_bytes(const struct backend *be, const struct batch *what)
{
	static struct batch copy;

	copy = *what;
	return post_one(be, &copy);
}

/* Reads messages until one of this type comes; the last call is the one with the fault. */
static bool reads(struct sweep *s, const struct backend *be, uint32_t type, const char *name)
{
	for (int i = 0; i < 8; i++) {
		if (STEP(s, name, read(be->fd, &m, sizeof(m))) <= 0)
			return false;
		if (m.head.type == type)
			return true;
	}
	return false;
}

static bool posts(struct sweep *s, const struct backend *be, const char *name)
{
	bool ok = !STEP(s, name, post_bytes(be, &b));

	b.n = b.count = 0;
	return ok;
}

/* The text of STARTED to DONE for the message in `m`. */
static bool answers(struct sweep *s, const struct backend *be)
{
	uint64_t id = m.head.request_id;
	bool ok;

	b.n = b.count = 0;
	add_started(&b, id, 0, 0);
	ok = posts(s, be, "POST of STARTED");
	add_text(&b, id, 1, 'a', "answ");
	ok = ok && posts(s, be, "POST of TEXT");
	add_done(&b, id, 2, LLM_FINISH_STOP, "er");
	return ok && posts(s, be, "POST of DONE");
}

/* Reads one answer as text, the chain's way. */
static bool reads_text(struct sweep *s, int fd)
{
	char buf[64] = "";
	size_t n = 0;
	long r;

	do {
		r = STEP(s, "read of text", read(fd, buf + n, sizeof(buf) - 1 - n));
		n += r > 0 ? (size_t)r : 0;
	} while (r > 0 && n < sizeof(buf) - 1);
	return !r && !strcmp(buf, "answer");
}

static ssize_t read_path(const char *path)
{
	char buf[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));
	int e = errno;

	close(fd);
	errno = e;
	return n;
}

/* ---- chains ------------------------------------------------------------------------------------------ */

struct ends {
	int ctl, fd;
	struct backend be;
};

static bool begin(struct sweep *s, struct ends *e, const char *name)
{
	*e = (struct ends){.fd = -1, .be.fd = -1};
	e->ctl = (int)STEP(s, "open of the control file", open(CONTROL, O_RDWR | O_CLOEXEC));
	return e->ctl >= 0 && !STEP(s, "DEVICE_CREATE", make(e->ctl, &e->be, name)) &&
	       (e->fd = (int)STEP(s, "open", open(e->be.node, O_RDWR | O_CLOEXEC | O_NONBLOCK))) >=
		       0;
}

/* Closes everything, whatever happened before: there must be nothing left. */
static bool end(struct sweep *s, struct ends *e, const char *name, bool ok)
{
	int error = errno;

	if (e->fd >= 0)
		STEP(s, "close of a session", close(e->fd));
	ok = ok && attribute(&e->be, "sessions") == 0;
	if (e->be.fd >= 0)
		STEP(s, "close of the backend", close(e->be.fd));
	ok = ok && attribute(&e->be, "requests") == 0;
	if (STEP(s, "DEVICE_DESTROY", unmake(e->ctl, name)))
		ok = false;
	close(e->ctl);
	errno = error;
	return ok;
}

static bool chain_text(struct sweep *s)
{
	struct ends e;
	char c;
	bool ok = begin(s, &e, "text") &&
		  STEP(s, "write of text", write(e.fd, "question", 8)) == 8 &&
		  STEP(s, "read that submits", read(e.fd, &c, 1)) == -1 && errno == EAGAIN &&
		  reads(s, &e.be, LLM_MSG_SUBMIT, "read of the backend") &&
		  m.submit.body.payload_len == 8 && !memcmp(m.submit.parts, "question", 8) &&
		  answers(s, &e.be) && reads_text(s, e.fd);

	/* A second turn, from a backend that hears of the first one. */
	ok = ok && STEP(s, "write of text", write(e.fd, "and", 3)) == 3 &&
	     STEP(s, "read that submits", read(e.fd, &c, 1)) == -1 && errno == EAGAIN;
	if (ok) {
		STEP(s, "close of the backend", close(e.be.fd));
		e.be.fd = -1;
	}
	ok = ok && !STEP(s, "DEVICE_ATTACH", take_over(e.ctl, &e.be, "text")) &&
	     reads(s, &e.be, LLM_MSG_SUBMIT, "read of the past") &&
	     m.head.flags == (LLM_MSG_F_REPLAY | LLM_MSG_F_FINISHED) && m.submit.body.n_ids == 1 &&
	     reads(s, &e.be, LLM_MSG_REPLAY_END, "read of the past") &&
	     reads(s, &e.be, LLM_MSG_SUBMIT, "read of the backend") && answers(s, &e.be) &&
	     reads_text(s, e.fd);
	return end(s, &e, "text", ok);
}

/* What is refused with EFAULT may have been taken: the answer about it could not be written. */
static int64_t submit_again(int fd)
{
	return errno == EFAULT ? 0 : submit(fd, "question");
}

static bool chain_events(struct sweep *s)
{
	struct ends e;
	int64_t id;
	bool ok = begin(s, &e, "events") && !STEP(s, "SET_MODE", set_mode(e.fd)) &&
		  !STEP(s, "QUERY", query(e.fd));

	id = ok ? STEP_OR(s, "SUBMIT", submit(e.fd, "question"), submit_again(e.fd)) : -1;
	if (id == 0) /* its name is not known: nothing more can be done with it */
		return end(s, &e, "events", ok);
	ok = ok && id > 0 && reads(s, &e.be, LLM_MSG_SUBMIT, "read of the backend") &&
	     answers(s, &e.be);
	for (int i = 0; i < 3; i++) /* one record at a time */
		ok = ok && STEP(s, "read of an event", read(e.fd, &ev, 100)) > 0;
	ok = ok && ev.head.type == LLM_EVENT_DONE;
	id = ok ? STEP_OR(s, "a second SUBMIT", submit(e.fd, "question"), submit_again(e.fd)) : -1;
	if (id == 0)
		return end(s, &e, "events", ok);
	ok = ok && id > 0 && reads(s, &e.be, LLM_MSG_SUBMIT, "read of the backend") &&
	     !STEP(s, "CANCEL", cancel(e.fd, id)) &&
	     reads(s, &e.be, LLM_MSG_CANCEL, "read of CANCEL");
	return end(s, &e, "events", ok);
}

static bool chain_looks(struct sweep *s)
{
	struct ends e;
	char path[64];
	bool ok = begin(s, &e, "looks") && !STEP(s, "QUERY of the control file", query(e.ctl)) &&
		  !STEP(s, "QUERY of the backend", query(e.be.fd));
	struct pollfd p[2] = {{.fd = e.fd, .events = POLLOUT}, {.fd = e.be.fd, .events = POLLIN}};

	ok = ok && STEP(s, "poll", poll(p, 2, 0)) == 2;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", e.fd);
	ok = ok && STEP(s, "fdinfo", read_path(path)) > 0;
	snprintf(path, sizeof(path), "/sys/class/misc/%s/state", e.be.node + strlen("/dev/"));
	ok = ok && STEP(s, "an attribute", read_path(path)) > 0;
	return end(s, &e, "looks", ok);
}

int main(void)
{
	if (!faults_on()) {
		printf("ok 1 # SKIP this kernel has no fault injection\n1..1\n");
		return 0;
	}
	sweep("text", chain_text);
	sweep_after(3, "events", chain_events); /* they begin alike */
	sweep_after(3, "looks", chain_looks);
	return done();
}
