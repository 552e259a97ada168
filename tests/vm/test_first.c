// SPDX-License-Identifier: MIT
/*
 * The way of one request through the module, both modes, and what happens when either side dies.
 */
#include "tests/vm/vm.h"

static struct batch b;
static union message m;
static union event ev;

static void test_events(void)
{
	struct backend be;
	int64_t id;
	int fd;

	works(create(&be, "first"), "a device is made");
	fd = (int)works(open_events(be.node, 0), "it can be opened for events");
	id = works(submit(fd, "question"), "a request is taken");
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_REPLAY_END,
	      "the backend is told that there is no past");
	check(message(be.fd, &m, 0) && m.head.type == LLM_MSG_SESSION_OPEN && !m.head.flags,
	      "then the session");
	check(message(be.fd, &m, LLM_MSG_SUBMIT) && m.head.request_id == (uint64_t)id &&
		      m.submit.body.payload_len == 8 && !memcmp(m.submit.parts, "question", 8),
	      "then the request, with its payload");
	add_started(&b, id, 0, 0);
	add_text(&b, id, 1, 42, "an");
	add_text(&b, id, 2, 43, "swer");
	add_done(&b, id, 3, LLM_FINISH_STOP, "!");
	works(post(&be, &b), "a batch of events is taken");
	check(!b.result[0] && !b.result[1] && !b.result[2] && !b.result[3], "each of them");
	check(read(fd, &ev, sizeof(ev)) > 0 && ev.head.type == LLM_EVENT_STARTED, "the client reads STARTED ...");
	close(fd);
	check(message(be.fd, &m, LLM_MSG_SESSION_CLOSE), "the backend hears of the close");
	close(be.fd);
	works(destroy("first"), "the device is destroyed");
}

static void test_text(void)
{
	struct daemon d = {.answer = "Because of Rayleigh.", .limit = -1};
	char buf[256];
	pthread_t t;
	int fd;

	works(create(&d.be, "text"), "a device for text");
	pthread_create(&t, NULL, daemon_run, &d);
	fd = (int)works(open(d.be.node, O_RDWR | O_CLOEXEC), "opened");
	check(read(fd, buf, sizeof(buf)) == 0, "nothing was asked: read gives 0");
	works(write(fd, "Why ", 4), "half a question");
	works(write(fd, "blue?\n", 6), "the other half");
	check(read_answer(fd, buf, sizeof(buf)) == 20 && !strcmp(buf, d.answer), "the answer: `%s`", buf);
	check(read(fd, buf, sizeof(buf)) == 0, "and 0 again");
	works(write(fd, "And red?\n", 9), "a second question on the same file");
	check(read_answer(fd, buf, sizeof(buf)) == 20, "is answered: `%s`", buf);
	close(fd);
	{
		struct llm_device_name n = {.size = sizeof(n), .name = "text"};
		int c = control();

		works(ioctl(c, LLM_IOC_DEVICE_QUIESCE, &n), "the backend is asked to let go");
		close(c);
	}
	pthread_join(t, NULL);
	works(destroy("text"), "destroyed");
}

/* The daemon dies after every event of an answer; another one goes on. */
static void test_recovery(void)
{
	static const char answer[] = "abcdefghij";
	int good = 0, n = (int)strlen(answer) + 2;

	for (int k = 0; k < n; k++) {
		struct daemon d = {.answer = answer, .limit = k}, d2 = {.answer = answer, .limit = -1};
		char buf[64];
		pthread_t t;
		int fd;

		create(&d.be, "dies");
		pthread_create(&t, NULL, daemon_run, &d);
		fd = open(d.be.node, O_RDWR | O_CLOEXEC);
		write(fd, "q", 1);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		read(fd, buf, 0);
		if (read(fd, buf, sizeof(buf)) == -1 && errno != EAGAIN)
			break;
		fcntl(fd, F_SETFL, 0);
		pthread_join(t, NULL);
		if (attach(&d2.be, "dies", FINGERPRINT))
			break;
		pthread_create(&t, NULL, daemon_run, &d2);
		if (read_answer(fd, buf, sizeof(buf)) == 10 && !strcmp(buf, answer))
			good++;
		else
			printf("# died after %d events: `%s`\n", k, buf);
		close(fd);
		{
			struct llm_device_name q = {.size = sizeof(q), .name = "dies"};
			int c = control();

			ioctl(c, LLM_IOC_DEVICE_QUIESCE, &q);
			close(c);
		}
		pthread_join(t, NULL);
		if (destroy("dies"))
			break;
	}
	check(good == n, "killed after every event, the text is the same: %d of %d", good, n);
}

int main(void)
{
	test_events();
	test_text();
	test_recovery();
	return done();
}
