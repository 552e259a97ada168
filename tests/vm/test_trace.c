// SPDX-License-Identifier: MIT
/*
 * Tracepoints: what they promise to have, whose names they carry, and the life of requests as they
 * tell it, through the deaths of backends: each id posted once, in order, under a backend that was
 * attached, and read once.
 */
#include <grp.h>

#include "tests/vm/vm.h"

#define TRACING "/sys/kernel/tracing/"

static struct batch b;
static union message m;
static union event ev;

static bool put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

/* ---- what was traced ----------------------------------------------------------------------------------- */

struct line {
	char name[32]; /* without "llm_" */
	char text[384];
};

static struct line *lines;
static int n_lines, cap_lines;

static void trace_begin(void)
{
	put_file(TRACING "trace", "");
	put_file(TRACING "events/llm/enable", "1");
	put_file(TRACING "tracing_on", "1");
}

/* All events since trace_begin(), in the order in which they happened. */
static void trace_end(void)
{
	char text[1024], *at;
	FILE *f;

	put_file(TRACING "tracing_on", "0");
	put_file(TRACING "events/llm/enable", "0");
	n_lines = 0;
	f = fopen(TRACING "trace", "r");
	while (f && fgets(text, sizeof(text), f)) {
		struct line *l;

		at = strstr(text, ": llm_");
		if (text[0] == '#' || !at)
			continue;
		if (n_lines == cap_lines) {
			cap_lines = cap_lines ? 2 * cap_lines : 1024;
			lines = realloc(lines, (size_t)cap_lines * sizeof(*lines));
		}
		l = &lines[n_lines++];
		memset(l, 0, sizeof(*l));
		sscanf(at, ": llm_%31[^:]:", l->name);
		at = strchr(at + 2, ':');
		snprintf(l->text, sizeof(l->text), "%s", at ? at + 1 : "");
	}
	if (f)
		fclose(f);
	put_file(TRACING "tracing_on", "1"); /* as others expect it */
}

static const char *text_of(const struct line *l, const char *key)
{
	static char value[64];
	char find[32];
	const char *at;

	snprintf(find, sizeof(find), " %s=", key);
	at = strstr(l->text, find);
	value[0] = '\0';
	if (at)
		sscanf(at + strlen(find), "%63s", value);
	return value;
}

static uint64_t num(const struct line *l, const char *key)
{
	const char *v = text_of(l, key);

	return *v ? strtoull(v, NULL, strcmp(key, "principal") ? 10 : 16) : UINT64_MAX;
}

static bool is(const struct line *l, const char *name)
{
	return !strcmp(l->name, name);
}

/* The n-th event of this name about this request. */
static const struct line *find(const char *name, uint64_t request, int n)
{
	for (int i = 0; i < n_lines; i++)
		if (is(&lines[i], name) && num(&lines[i], "request") == request && !n--)
			return &lines[i];
	return NULL;
}

static int count(const char *name, uint64_t request)
{
	int n = 0;

	while (find(name, request, n))
		n++;
	return n;
}

/* ---- what is promised ---------------------------------------------------------------------------------- */

#define REQUEST "dev:4 uid:4 request:8 session:8 cgroup:8 principal:8 ns:8 pid:4 trace:16 "

static const struct {
	const char *name, *fields;
} promised[] = {
	{"llm_request_queue", REQUEST "priority:4 bytes:8 format:4 max_tokens:4 deadline:8 "},
	{"llm_request_deliver", REQUEST "generation:4 ids:8 "},
	{"llm_request_first_token", REQUEST},
	{"llm_request_tokens", REQUEST "ids:4 bytes:4 total:8 seq:8 "},
	{"llm_request_end", REQUEST "error:4 finish:4 ids:8 bytes:8 submitted:8 first:8 "},
	{"llm_request_cancel", REQUEST "reason:4 "},
	{"llm_request_read", REQUEST "type:4 bytes:4 "},
	{"llm_session_open", "dev:4 uid:4 session:8 cgroup:8 ns:8 pid:4 "},
	{"llm_session_close", "dev:4 uid:4 session:8 cgroup:8 ns:8 pid:4 "},
	{"llm_backend_attach", "dev:4 generation:4 ns:8 pid:4 "},
	{"llm_backend_detach", "dev:4 generation:4 ns:8 pid:4 "},
};

/* Field names and sizes of an event's format, in order; false: one is of no fixed width. */
static bool fields_of(const char *event, char *out, size_t size)
{
	char path[128], line[256], name[64];
	bool fixed = true;
	unsigned int bytes;
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), TRACING "events/llm/%s/format", event);
	f = fopen(path, "r");
	out[0] = '\0';
	while (f && fgets(line, sizeof(line), f)) {
		char *semi = strchr(line, ';'), *at;

		if (!strstr(line, "field:") || strstr(line, " common_") || !semi ||
		    !strstr(semi, "size:"))
			continue;
		*semi = '\0';
		if (strchr(line, '*') || strstr(line, "__data_loc") || strstr(line, "char "))
			fixed = false;
		at = strrchr(line, ' ');
		sscanf(at + 1, "%63[a-z_]", name);
		sscanf(strstr(semi + 1, "size:"), "size:%u", &bytes);
		n += (size_t)snprintf(out + n, size - n, "%s:%u ", name, bytes);
	}
	if (f)
		fclose(f);
	return fixed;
}

static void test_format(void)
{
	char have[512];

	for (size_t i = 0; i < sizeof(promised) / sizeof(promised[0]); i++) {
		bool fixed = fields_of(promised[i].name, have, sizeof(have));

		check(fixed && !strncmp(have, promised[i].fields, strlen(promised[i].fields)),
		      "%s has its fields, in order, of fixed width", promised[i].name);
		if (strncmp(have, promised[i].fields, strlen(promised[i].fields)))
			printf("# it has %s\n", have);
	}
}

/* ---- whose request it is ------------------------------------------------------------------------------- */

static uint64_t own_cgroup(const char *name)
{
	char path[64], pid[16];
	struct stat st;

	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s", name);
	mkdir(path, 0755);
	if (stat(path, &st))
		return 0;
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/cgroup.procs", name);
	snprintf(pid, sizeof(pid), "%d", getpid());
	return put_file(path, pid) ? st.st_ino : 0;
}

/* Opened by one process, asked by another. */
static void test_submitter(void)
{
	struct backend be;
	int fd, text, up[2], status;
	uint64_t said[2] = {0}, id;
	const struct line *l;
	pid_t pid;

	create(&be, "who");
	trace_begin();
	fd = open_events(be.node, 0);
	text = open(be.node, O_RDWR | O_NONBLOCK);
	write(text, "q", 1);
	pipe(up);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct llm_submit s = submission("question");
		char c;

		said[0] = own_cgroup("asker");
		s.principal = (uintptr_t)"alice";
		s.principal_len = 5;
		s.priority = -3;
		for (int i = 0; i < 16; i++)
			s.trace_id[i] = (uint8_t)(0xa0 + i);
		if (setgroups(0, NULL) || setgid(1001) || setuid(1000))
			_exit(9);
		read(text, &c, 1);
		ioctl(fd, LLM_IOC_SUBMIT, &s);
		said[1] = s.request_id;
		write(up[1], said, sizeof(said));
		_exit(0);
	}
	read(up[0], said, sizeof(said));
	waitpid(pid, &status, 0);
	id = said[1];
	message(be.fd, &m, LLM_MSG_SUBMIT);
	message(be.fd, &m, LLM_MSG_SUBMIT);
	for (int i = 0; i < 2; i++) {
		b.n = b.count = 0;
		add_started(&b, id - (uint64_t)i, 0, 0);
		add_text(&b, id - (uint64_t)i, 1, 7, "x");
		add_done(&b, id - (uint64_t)i, 2, LLM_FINISH_STOP, "");
		post(&be, &b);
	}
	while (read(fd, &ev, sizeof(ev)) > 0 && ev.head.type != LLM_EVENT_DONE)
		break; /* one read() has all of it */
	close(fd);
	close(text);
	trace_end();
	l = find("request_queue", id, 0);
	check(l && num(l, "pid") == (uint64_t)pid && num(l, "uid") == 1000,
	      "queue: pid and uid are those of who called SUBMIT");
	check(l && num(l, "cgroup") == said[0] && said[0] > 1, "so is the cgroup: %llu",
	      (unsigned long long)said[0]);
	check(l && !strcmp(text_of(l, "trace"), "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"), "the trace id: %s",
	      l ? text_of(l, "trace") : "");
	check(l && num(l, "principal") && num(l, "priority") == (uint64_t)-3 && num(l, "bytes") == 8,
	      "the label's hash, the priority, the payload's length");
	check(l && num(find("request_end", id, 0) ?: l, "principal") == num(l, "principal"),
	      "also in later events");
	for (int i = 0; i < n_lines; i++) {
		if (strncmp(lines[i].name, "request_", 8))
			continue;
		if (num(&lines[i], "pid") != (uint64_t)pid || num(&lines[i], "uid") != 1000 ||
		    num(&lines[i], "cgroup") != said[0]) {
			check(false, "%s:%s", lines[i].name, lines[i].text);
			break;
		}
		if (i == n_lines - 1 || !strcmp(lines[i + 1].name, "session_close")) {
			check(true, "every event of a request carries its submitter");
			break;
		}
	}
	l = find("request_queue", id - 1, 0);
	check(l && num(l, "pid") == (uint64_t)pid && num(l, "uid") == 1000 && !num(l, "principal"),
	      "in text mode it is who called the read() that submitted");
	check(n_lines > 2 && is(&lines[0], "session_open") && num(&lines[0], "pid") == (uint64_t)getpid() &&
		      num(&lines[0], "uid") == 0,
	      "a session is its opener's");
	check(count("request_read", id) == 3 && num(find("request_read", id, 2), "type") == LLM_EVENT_DONE,
	      "each record is read, the terminal one as well");
	for (int i = 0; i < n_lines; i++) {
		if (strstr(lines[i].text, "question") || strstr(lines[i].text, "alice") ||
		    strstr(lines[i].text, "0x") || strstr(lines[i].text, "ffff8")) {
			check(false, "text or a pointer: %s", lines[i].text);
			break;
		}
		if (i == n_lines - 1)
			check(true, "no text, no pointer");
	}
	close(be.fd);
	destroy("who");
	close(up[0]);
	close(up[1]);
}

/* ---- ends -------------------------------------------------------------------------------------------- */

static void test_ends(void)
{
	struct llm_submit s = submission("q");
	struct llm_cancel c = {.size = sizeof(c)};
	struct backend be;
	uint64_t queued, late, dies;
	struct pollfd p = {.events = POLLIN};
	const struct line *l;
	int fd, gone;

	create(&be, "ends");
	trace_begin();
	fd = open_events(be.node, 0);
	queued = c.request_id = (uint64_t)submit(fd, "q");
	ioctl(fd, LLM_IOC_CANCEL, &c);
	read(fd, &ev, sizeof(ev));
	s.deadline_ns = now_ns() + 1000000000;
	ioctl(fd, LLM_IOC_SUBMIT, &s);
	late = s.request_id; /* not read by the backend: a slow machine might come too late for it */
	p.fd = fd;
	poll(&p, 1, 10000);
	gone = open_events(be.node, 0);
	dies = (uint64_t)submit(gone, "q");
	message(be.fd, &m, LLM_MSG_SUBMIT);
	close(gone);
	close(fd);
	close(be.fd);
	trace_end();
	l = find("request_cancel", queued, 0);
	check(l && num(l, "reason") == ECANCELED && !find("request_deliver", queued, 0),
	      "cancelled before it was delivered");
	l = find("request_end", queued, 0);
	check(l && num(l, "finish") == LLM_FINISH_CANCELLED && !num(l, "error") &&
		      find("request_read", queued, 0) > l,
	      "... its end, and that it was read");
	l = find("request_cancel", late, 0);
	check(l && num(l, "reason") == ETIMEDOUT, "a deadline that passes is a cancel with its reason");
	l = find("request_end", late, 0);
	check(l && num(l, "error") == ETIMEDOUT && num(l, "deadline") == UINT64_MAX &&
		      num(find("request_queue", late, 0), "deadline") == s.deadline_ns,
	      "... and an end with the error");
	l = find("request_cancel", dies, 0);
	check(l && num(l, "reason") == ECANCELED && count("request_end", dies) == 1 &&
		      count("request_read", dies) == 0,
	      "a client that goes: cancelled, ended once, never read");
	destroy("ends");
}

/* ---- the oracle -------------------------------------------------------------------------------------- */

#define CLIENTS 4
#define TURNS	4

static const char answer[] = "abcdefghijklmnopqrst";

static void *client(void *arg)
{
	bool *ok = arg;
	char buf[64];
	int fd = open("/dev/llm0", O_RDWR);

	*ok = fd >= 0;
	for (int i = 0; i < TURNS && *ok; i++)
		*ok = write(fd, "question", 8) == 8 && read_answer(fd, buf, sizeof(buf)) >= 0 &&
		      !strcmp(buf, answer);
	close(fd);
	return NULL;
}

struct life {
	uint64_t request, session, total, seq, bytes, read, generation;
	int queued, first, ended, read_end;
};

static struct life *life_of(struct life *all, int *n, uint64_t request)
{
	for (int i = 0; i < *n; i++)
		if (all[i].request == request)
			return &all[i];
	all[*n] = (struct life){.request = request};
	return &all[(*n)++];
}

/* NULL, or what is wrong with this event in this life. */
static const char *judge(struct life *r, const struct line *l, uint64_t attached)
{
	bool dead = r->ended && !is(l, "request_read");

	if (dead)
		return "after its end";
	if (!r->queued != is(l, "request_queue"))
		return "not submitted, or twice";
	if (is(l, "request_queue")) {
		r->queued = 1;
		r->session = num(l, "session");
	} else if (num(l, "session") != r->session) {
		return "another session's";
	} else if (is(l, "request_deliver")) {
		if (num(l, "generation") != attached || attached <= r->generation)
			return "delivered to nobody, or twice to the same";
		if (num(l, "ids") != r->total)
			return "delivered with other ids than were posted";
		r->generation = attached;
	} else if (is(l, "request_first_token")) {
		if (r->first++ || r->total)
			return "two first tokens";
	} else if (is(l, "request_tokens")) {
		if (r->generation != attached)
			return "posted by who was not given it";
		if (!r->first || num(l, "total") - num(l, "ids") != r->total)
			return "an id lost or posted twice";
		if (r->seq && num(l, "seq") <= r->seq)
			return "out of order";
		r->total = num(l, "total");
		r->seq = num(l, "seq");
		r->bytes += num(l, "bytes");
	} else if (is(l, "request_end")) {
		if (num(l, "ids") != r->total || num(l, "bytes") != r->bytes)
			return "ended with other ids or bytes than were posted";
		if (num(l, "error") || num(l, "finish") != LLM_FINISH_STOP)
			return "ended badly";
		r->ended = 1;
	} else if (is(l, "request_read")) {
		if (r->read_end)
			return "read after its end was";
		r->read += num(l, "bytes");
		if (r->read > r->bytes)
			return "more read than posted";
		if (num(l, "type") == LLM_EVENT_DONE) {
			r->read_end = 1;
			if (!r->ended || r->read != r->bytes)
				return "its end read before all of it was";
		}
	}
	return NULL;
}

static void judge_all(int generations)
{
	static struct life life[CLIENTS * TURNS + 16];
	uint64_t attached = 0, last_generation = 0, last_ns = 0, delivered = 0;
	int n = 0, bad = 0, whole = 0, open = 0, replayed = 0;

	for (int i = 0; i < n_lines && !bad; i++) {
		const struct line *l = &lines[i];
		const char *why = NULL;

		if (is(l, "session_open")) {
			open++;
		} else if (is(l, "session_close")) {
			open--;
		} else if (is(l, "backend_attach")) {
			if (attached || num(l, "generation") != last_generation + 1)
				why = "attached over another";
			attached = last_generation = num(l, "generation");
		} else if (is(l, "backend_detach")) {
			if (num(l, "generation") != attached)
				why = "detached twice";
			attached = 0;
		} else if (n < CLIENTS * TURNS + 16) {
			delivered += is(l, "request_deliver");
			why = judge(life_of(life, &n, num(l, "request")), l, attached);
		}
		if (num(l, "ns") < last_ns)
			why = "time goes back";
		last_ns = num(l, "ns");
		if (why) {
			bad++;
			printf("# %s: %s:%s\n", why, l->name, l->text);
		}
	}
	for (int i = 0; i < n; i++)
		whole += life[i].ended && life[i].read_end && life[i].total == strlen(answer);
	replayed = (int)delivered - n;
	check(!bad, "each of %d events is where it must be", n_lines);
	check(n == CLIENTS * TURNS && whole == n,
	      "%d requests: each id posted once and in order, read once, ended once: %d", n, whole);
	check(last_generation == (uint64_t)generations && generations > 5 && replayed > 0,
	      "through %d backends, %d requests given to another one", generations, replayed);
	check(!open, "every session that was opened was closed");
}

static volatile bool enough;

/* Daemons one after the other: each dies after some events, the last one is asked to go. */
static void *daemons(void *arg)
{
	struct daemon *d = arg;
	intptr_t generations = 1;

	for (;;) {
		daemon_run(d);
		if (enough)
			return (void *)generations;
		*d = (struct daemon){.answer = answer, .limit = d->limit};
		if (attach(&d->be, "oracle", FINGERPRINT))
			return NULL;
		generations++;
	}
}

static void test_oracle(void)
{
	struct llm_device_name q = {.size = sizeof(q), .name = "oracle"};
	struct daemon d = {.answer = answer, .limit = 37};
	pthread_t t, ct[CLIENTS];
	bool ok[CLIENTS];
	void *generations;
	int good = 0, c = control();

	trace_begin();
	create(&d.be, "oracle");
	pthread_create(&t, NULL, daemons, &d);
	for (int i = 0; i < CLIENTS; i++)
		pthread_create(&ct[i], NULL, client, &ok[i]);
	for (int i = 0; i < CLIENTS; i++) {
		pthread_join(ct[i], NULL);
		good += ok[i];
	}
	enough = true;
	while (pthread_tryjoin_np(t, &generations)) { /* one may be dying just now */
		ioctl(c, LLM_IOC_DEVICE_QUIESCE, &q);
		usleep(10000);
	}
	close(c);
	trace_end();
	check(good == CLIENTS, "%d clients read every answer whole", good);
	judge_all((int)(intptr_t)generations);
	destroy("oracle");
}

int main(void)
{
	put_file(TRACING "trace_clock", "counter");
	put_file(TRACING "buffer_size_kb", "4096");
	if (access(TRACING "events/llm", F_OK)) {
		check(false, "there are tracepoints");
		return done();
	}
	test_format();
	test_submitter();
	test_ends();
	test_oracle();
	return done();
}
