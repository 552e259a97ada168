// SPDX-License-Identifier: MIT
/*
 * libllmdev against a daemon that this test plays itself, packet by packet: what the library asks,
 * what it makes of answers, and what it tells the next daemon when one is gone.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/llmdev.h"
#include "tests/tap.h"
#include "transport/message.h"

static char dir[] = "/tmp/test_libllmdev.XXXXXX";
static char path[64];
static int listener = -1;
static int lost, found;
static uint64_t message[1 << 16];

/* ---- the daemon's side ---------------------------------------------------------------------------- */

static void listen_again(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	unlink(path);
	strcpy(addr.sun_path, path);
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) || listen(listener, 8))
		exit(3);
}

static int accept_one(void)
{
	struct pollfd p = {listener, POLLIN, 0};

	return poll(&p, 1, 5000) == 1 ? accept(listener, NULL, NULL) : -1;
}

/* The next whole message, put together from its packets; false if none comes. */
static bool receive(int fd, struct msg *m)
{
	struct pollfd p = {fd, POLLIN, 0};
	size_t len = 0, size = 1;
	struct err e;

	while (len < size) {
		ssize_t n = poll(&p, 1, 2000) == 1 ? recv(fd, (char *)message + len, 65536, 0) : 0;

		if (n <= 0)
			return false;
		len += (size_t)n;
		size = ((struct llm_msg *)message)->size;
	}
	return len == size && !msg_parse(m, message, len, &e);
}

static void post(int fd, uint32_t type, uint64_t id, uint64_t seq, const struct event_part *parts,
		 int n)
{
	uint64_t buf[512];
	size_t size = event_write(buf, sizeof(buf), type, id, seq, parts, n);

	if (send(fd, buf, size, MSG_NOSIGNAL) != (ssize_t)size)
		printf("# could not post\n");
}

static void post_started(int fd, uint64_t id, uint32_t flags)
{
	struct llm_resume r = {.size = sizeof(r), .flags = flags, .seed = 1234 + id};
	struct event_part part = {&r, sizeof(r)};

	post(fd, LLM_EVENT_STARTED, id, 0, &part, 1);
}

static void post_text(int fd, uint64_t id, uint64_t seq, int32_t token, const char *s)
{
	struct llm_text text = {.n_ids = 1, .n_bytes = (uint32_t)strlen(s)};
	struct event_part parts[] = {{&text, sizeof(text)}, {&token, 4}, {s, text.n_bytes}};

	post(fd, LLM_EVENT_TEXT, id, seq, parts, 3);
}

static void post_data(int fd, uint64_t id, uint64_t seq, uint32_t subtype, uint32_t flags,
		      uint32_t n_ids, const char *s)
{
	struct llm_text text = {.n_ids = n_ids,
				.n_bytes = (uint32_t)strlen(s),
				.subtype = subtype,
				.flags = flags};
	int32_t token = (int32_t)(100 + seq);
	struct event_part parts[] = {{&text, sizeof(text)}, {&token, n_ids * 4}, {s, text.n_bytes}};

	post(fd, LLM_EVENT_DATA, id, seq, parts, 3);
}

static void post_done(int fd, uint64_t id, uint64_t seq, const char *s)
{
	struct llm_done done = {.finish = LLM_FINISH_STOP,
				.n_bytes = (uint32_t)strlen(s),
				.completion_tokens = 7};
	struct event_part parts[] = {{&done, sizeof(done)}, {s, done.n_bytes}};

	post(fd, LLM_EVENT_DONE, id, seq, parts, 2);
}

static void post_error(int fd, uint64_t id, uint64_t seq, int error, const char *s)
{
	struct llm_error err = {.error = error, .n_bytes = (uint32_t)strlen(s)};
	struct event_part parts[] = {{&err, sizeof(err)}, {s, err.n_bytes}};

	post(fd, LLM_EVENT_ERROR, id, seq, parts, 2);
}

/* ---- the client's side ---------------------------------------------------------------------------- */

static void on_connection(void *ctx, int connected)
{
	*(connected ? &found : &lost) += 1;
}

static struct llmdev *open_session(int recovery_ms, size_t transcript_max)
{
	struct llmdev_options o = {
		.path = path,
		.recovery_ms = recovery_ms,
		.transcript_max = transcript_max,
		.on_connection = on_connection,
	};
	struct llmdev *d = NULL;
	char why[256];

	lost = found = 0;
	if (llmdev_open(&d, &o, why, sizeof(why)))
		printf("# %s\n", why);
	return d;
}

static uint64_t ask(struct llmdev *d, const char *text)
{
	uint64_t id = 0;

	llmdev_submit_text(d, text, strlen(text), NULL, &id);
	return id;
}

/* The next event is of this kind. */
static bool next_is(struct llmdev *d, struct llmdev_event *ev, enum llmdev_event_kind kind)
{
	return llmdev_next(d, ev, 5000) == 1 && ev->kind == kind;
}

static bool text_is(const struct llmdev_event *ev, const char *s)
{
	return ev->text_len == strlen(s) && !memcmp(ev->text, s, ev->text_len);
}

/* Plays a whole turn: STARTED, one token, DONE. */
static void play_turn(struct llmdev *d, int fd, uint64_t id, uint32_t flags)
{
	struct llmdev_event ev;

	post_started(fd, id, flags);
	post_text(fd, id, 1, (int32_t)id, "word");
	post_done(fd, id, 2, "");
	while (llmdev_next(d, &ev, 5000) == 1 && ev.kind != LLMDEV_DONE)
		;
}

static void test_open(void)
{
	struct llmdev_options o = {.path = path};
	struct llmdev *d;
	char why[256], longer[200];

	CHECK(llmdev_open(&d, &o, why, sizeof(why)) == -ENOENT && strstr(why, path),
	      "no socket: ENOENT: %s", why);
	listen_again();
	close(listener);
	CHECK(llmdev_open(&d, &o, why, sizeof(why)) == -ECONNREFUSED && strstr(why, path),
	      "nobody serves it: ECONNREFUSED: %s", why);
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	o.path = longer;
	CHECK(llmdev_open(&d, &o, NULL, 0) == -ENAMETOOLONG, "a path that is too long");
	listen_again();
}

static void test_answer(void)
{
	struct llmdev *d = open_session(1000, 0);
	int fd = accept_one();
	struct llmdev_request r = {.max_tokens = 9, .priority = 5, .principal = "bob"};
	struct pollfd p = {llmdev_fd(d), POLLIN, 0};
	struct llmdev_event ev;
	char buf[3];
	uint64_t id;
	struct msg m;

	CHECK(llmdev_next(d, &ev, -1) == 0, "nothing asked: next does not wait");
	CHECK(!llmdev_submit_json(d, "{}", 2, &r, &id) && id == 1, "a request is taken");
	REQUIRE(receive(fd, &m), "it arrives");
	CHECK(m.type == LLM_MSG_SUBMIT && m.flags == 0 && m.request_id == 1 &&
		      m.submit.format == LLM_FMT_JSON && m.submit.max_tokens == 9 &&
		      m.submit.priority == 5 && !memcmp(m.payload, "{}", 2) &&
		      !memcmp(m.principal, "bob", 3),
	      "with all that was said");
	CHECK(llmdev_next(d, &ev, 0) == 0 && llmdev_pending(d) == 1, "no answer yet");
	post_started(fd, id, 0);
	CHECK(poll(&p, 1, 5000) == 1, "the descriptor tells that something came");
	CHECK(next_is(d, &ev, LLMDEV_STARTED), "STARTED");
	post_text(fd, id, 1, 50, "Hel");
	post_text(fd, id, 2, 51, "");
	post_done(fd, id, 3, "lo");
	CHECK(next_is(d, &ev, LLMDEV_TEXT) && text_is(&ev, "Hel") && ev.n_ids == 1 &&
		      ev.ids[0] == 50,
	      "TEXT with its id");
	CHECK(next_is(d, &ev, LLMDEV_TEXT) && text_is(&ev, "") && ev.ids[0] == 51,
	      "an id without text");
	CHECK(next_is(d, &ev, LLMDEV_TEXT) && text_is(&ev, "lo") && ev.n_ids == 0,
	      "DONE's text comes as TEXT");
	CHECK(next_is(d, &ev, LLMDEV_DONE) && ev.finish == LLMDEV_STOP &&
		      ev.usage.completion_tokens == 7 && llmdev_pending(d) == 0,
	      "then DONE");

	id = ask(d, "again");
	REQUIRE(receive(fd, &m) && m.request_id == 2, "a second request");
	post_started(fd, id, 0);
	post_text(fd, id, 1, 1, "abcd");
	post_done(fd, id, 2, "e");
	CHECK(llmdev_read(d, buf, 3) == 3 && !memcmp(buf, "abc", 3), "read gives what fits");
	CHECK(llmdev_read(d, buf, 3) == 1 && buf[0] == 'd', "... then the rest");
	CHECK(llmdev_read(d, buf, 3) == 1 && buf[0] == 'e', "... then what was held back");
	CHECK(llmdev_read(d, buf, 3) == 0 && llmdev_read(d, buf, 3) == 0, "... then 0");

	id = ask(d, "what fails");
	REQUIRE(receive(fd, &m), "a third request");
	post_error(fd, id, 0, EINVAL, "prompt: bad");
	CHECK(llmdev_read(d, buf, 3) == -EINVAL && !strcmp(llmdev_error(d), "prompt: bad"),
	      "a refused request: its errno and its sentence");
	CHECK(llmdev_read(d, buf, 3) == 0, "... and the session goes on");
	close(fd);
	llmdev_close(d);
}

/* DATA: parts become one piece, also over a change of daemons; what is aside is not counted. */
static void test_data(void)
{
	struct llmdev *d = open_session(5000, 0);
	int fd = accept_one();
	struct llmdev_event ev;
	char buf[8];
	uint64_t id;
	struct msg m;

	id = ask(d, "x");
	REQUIRE(receive(fd, &m), "a request");
	post_started(fd, id, 0);
	post_data(fd, id, 1, LLM_DATA_REASONING, 0, 1, "hm");
	post_data(fd, id, 2, LLM_DATA_LOGPROBS, 0, 0, "{long}");
	post_data(fd, id, 3, LLM_DATA_TOOL_CALL, LLM_TEXT_F_MORE, 1, "{\"a\":");
	post_data(fd, id, 4, LLM_DATA_TOOL_CALL, LLM_TEXT_F_MORE, 0, "12");
	CHECK(next_is(d, &ev, LLMDEV_STARTED) && next_is(d, &ev, LLMDEV_DATA) &&
		      ev.subtype == LLM_DATA_REASONING && text_is(&ev, "hm") && ev.n_ids == 1,
	      "reasoning comes as DATA");
	CHECK(next_is(d, &ev, LLMDEV_DATA) && ev.subtype == LLM_DATA_LOGPROBS, "what is aside too");
	CHECK(llmdev_next(d, &ev, 50) == 0, "parts are no piece yet");
	close(fd);
	CHECK(llmdev_next(d, &ev, 50) == 0, "(the daemon is gone)");
	fd = accept_one();
	REQUIRE(receive(fd, &m), "the request comes again");
	CHECK(m.submit.posted_bytes == 2 + 5 + 2 && m.submit.n_ids == 2 && m.submit.seq == 5,
	      "... with %llu bytes that were posted", (unsigned long long)m.submit.posted_bytes);
	post_data(fd, id, 5, LLM_DATA_TOOL_CALL, 0, 0, "3}");
	post_text(fd, id, 6, 7, "hi");
	CHECK(next_is(d, &ev, LLMDEV_DATA) && ev.subtype == LLM_DATA_TOOL_CALL &&
		      text_is(&ev, "{\"a\":123}") && ev.n_ids == 1 && ev.ids[0] == 103,
	      "a piece is put together of what both daemons said");
	CHECK(llmdev_read(d, buf, sizeof(buf)) == 2, "the next is TEXT");
	post_data(fd, id, 7, LLM_DATA_TOOL_CALL, LLM_TEXT_F_MORE, 1, "x");
	post_data(fd, id, 8, LLM_DATA_MALFORMED, 0, 0, "y");
	post_done(fd, id, 9, "z");
	CHECK(llmdev_read(d, buf, sizeof(buf)) == 1 && buf[0] == 'z' &&
		      llmdev_read(d, buf, sizeof(buf)) == 0,
	      "text mode passes over DATA");
	close(fd);
	llmdev_close(d);
}

static void test_arguments(void)
{
	struct llmdev *d = open_session(1000, 0);
	int fd = accept_one();
	char label[80];
	struct llmdev_request r = {.principal = label};

	memset(label, 'x', sizeof(label));
	label[79] = '\0';
	CHECK(llmdev_submit_text(d, "", 0, NULL, NULL) == -EINVAL && *llmdev_error(d),
	      "an empty payload: EINVAL");
	CHECK(llmdev_submit_text(d, "x", 1, &r, NULL) == -EINVAL, "a long principal: EINVAL");
	CHECK(llmdev_cancel(d, 1) == -ENOENT, "cancel of nothing: ENOENT");
	close(fd);
	llmdev_close(d);
}

static void test_long_payload(void)
{
	struct llmdev *d = open_session(1000, 0);
	int fd = accept_one(), ok = 1;
	size_t len = 300000;
	char *text = malloc(len);
	struct llmdev_event ev;
	struct msg m;

	for (size_t i = 0; i < len; i++)
		text[i] = (char)('a' + i % 23);
	llmdev_submit_text(d, text, len, NULL, NULL);
	/* The socket's buffer is smaller than this: the rest goes out as the daemon reads. */
	for (int i = 0; i < 50 && ok; i++) {
		struct pollfd p = {fd, POLLIN, 0};
		static size_t got;
		ssize_t n;

		llmdev_next(d, &ev, 0);
		if (poll(&p, 1, 0) != 1)
			continue;
		n = recv(fd, (char *)message + got, 65536, 0);
		ok = n > 0 && n <= 65536;
		got += ok ? (size_t)n : 0;
		if (got == ((struct llm_msg *)message)->size) {
			struct err e;

			ok = !msg_parse(&m, message, got, &e) && m.submit.payload_len == len &&
			     !memcmp(m.payload, text, len);
			CHECK(ok, "300000 bytes arrive whole, in packets");
			break;
		}
	}
	free(text);
	close(fd);
	llmdev_close(d);
}

static void test_recovery(void)
{
	struct llmdev *d = open_session(5000, 0);
	int fd = accept_one();
	struct llmdev_event ev;
	uint64_t id, id2;
	struct msg m;

	id = ask(d, "first");
	REQUIRE(receive(fd, &m), "a question arrives");
	post_started(fd, id, 0);
	post_text(fd, id, 1, 50, "Hel");
	post_text(fd, id, 2, 51, "l");
	close(fd);
	CHECK(next_is(d, &ev, LLMDEV_STARTED) && next_is(d, &ev, LLMDEV_TEXT) &&
		      next_is(d, &ev, LLMDEV_TEXT) && lost == 0,
	      "what had arrived is delivered first");
	CHECK(llmdev_next(d, &ev, 100) == 0 && lost == 1 && found == 0,
	      "then the loss is noticed, and nothing is delivered");
	fd = accept_one();
	REQUIRE(receive(fd, &m), "it connects again");
	CHECK(m.flags == LLM_MSG_F_REPLAY && m.request_id == id && m.submit.seq == 3 &&
		      m.submit.n_ids == 2 && m.ids[0] == 50 && m.ids[1] == 51 &&
		      m.submit.posted_bytes == 4 && m.resume.seed == 1235 &&
		      !memcmp(m.payload, "first", 5),
	      "and tells what was asked and what had arrived");
	CHECK(receive(fd, &m) && m.type == LLM_MSG_REPLAY_END, "and that this was all");
	post_text(fd, id, 3, 52, "o");
	post_done(fd, id, 4, "!");
	CHECK(next_is(d, &ev, LLMDEV_TEXT) && text_is(&ev, "o") && found == 1 &&
		      llmdev_recoveries(d) == 1,
	      "the answer goes on");
	CHECK(next_is(d, &ev, LLMDEV_TEXT) && text_is(&ev, "!") && next_is(d, &ev, LLMDEV_DONE),
	      "... and ends");

	/* Between two turns: nothing to do until there is something to ask. */
	close(fd);
	CHECK(llmdev_next(d, &ev, 0) == 0 && lost == 1, "an idle session minds no loss");
	id = ask(d, "second");
	CHECK(llmdev_next(d, &ev, 50) == 0, "a question opens the connection again");
	fd = accept_one();
	REQUIRE(receive(fd, &m), "the history comes first");
	CHECK(m.flags == (LLM_MSG_F_REPLAY | LLM_MSG_F_FINISHED) &&
		      m.submit.finish == LLM_FINISH_STOP && m.submit.n_ids == 3 &&
		      m.submit.posted_bytes == 5,
	      "the finished turn with all its ids, and no bytes that came with DONE");
	CHECK(receive(fd, &m) && m.request_id == id && m.flags == LLM_MSG_F_REPLAY &&
		      m.submit.seq == 0 && !m.submit.resume_len,
	      "then the new one, not begun yet");
	CHECK(receive(fd, &m) && m.type == LLM_MSG_REPLAY_END, "then the end");

	/* A cancel is not forgotten over a loss, nor is a request that waits. */
	id2 = ask(d, "third");
	receive(fd, &m);
	post_started(fd, id, 0);
	CHECK(next_is(d, &ev, LLMDEV_STARTED) && !llmdev_cancel(d, id), "cancel");
	close(fd);
	CHECK(llmdev_next(d, &ev, 100) == 0, "lost again");
	fd = accept_one();
	CHECK(receive(fd, &m) && receive(fd, &m) && m.request_id == id && m.submit.seq == 1 &&
		      receive(fd, &m) && m.request_id == id2 && receive(fd, &m) &&
		      m.type == LLM_MSG_REPLAY_END && receive(fd, &m) && m.type == LLM_MSG_CANCEL &&
		      m.request_id == id,
	      "everything is said again, the cancel last");
	post_done(fd, id, 1, "");
	post_started(fd, id2, 0);
	post_done(fd, id2, 1, "");
	CHECK(next_is(d, &ev, LLMDEV_DONE) && next_is(d, &ev, LLMDEV_STARTED) &&
		      next_is(d, &ev, LLMDEV_DONE),
	      "and both end");
	close(fd);
	llmdev_close(d);
}

static void test_forgetting(void)
{
	struct llmdev *d = open_session(5000, 2000);
	int fd = accept_one();
	struct llmdev_event ev;
	struct msg m;

	ask(d, "one");
	receive(fd, &m);
	play_turn(d, fd, 1, 0);
	ask(d, "alone");
	receive(fd, &m);
	play_turn(d, fd, 2, LLM_RESUME_F_ALONE);
	ask(d, "fresh");
	receive(fd, &m);
	play_turn(d, fd, 3, LLM_RESUME_F_FRESH);
	close(fd);
	ask(d, "next");
	llmdev_next(d, &ev, 50);
	fd = accept_one();
	CHECK(receive(fd, &m) && m.request_id == 3 && receive(fd, &m) && m.request_id == 4 &&
		      m.type == LLM_MSG_SUBMIT,
	      "what a fresh conversation replaced, and what stands alone, is forgotten");
	receive(fd, &m);
	play_turn(d, fd, 4, 0);
	for (uint64_t id = 5; id < 20; id++) {
		ask(d, "more and more");
		receive(fd, &m);
		play_turn(d, fd, id, 0);
	}
	close(fd);
	ask(d, "last");
	llmdev_next(d, &ev, 50);
	fd = accept_one();
	CHECK(receive(fd, &m) && m.type == LLM_MSG_SESSION_OPEN &&
		      m.flags == (LLM_MSG_F_REPLAY | LLM_MSG_F_LOST),
	      "a transcript over its bound: the next daemon is told that some is lost");
	close(fd);
	llmdev_close(d);
}

static void test_the_end(void)
{
	struct llmdev *d = open_session(100, 0);
	int fd = accept_one();
	struct llmdev_event ev;
	struct msg m;

	ask(d, "one");
	ask(d, "two");
	receive(fd, &m);
	close(fd);
	close(listener);
	CHECK(next_is(d, &ev, LLMDEV_ERROR) && ev.request == 1 && ev.error == EPIPE &&
		      next_is(d, &ev, LLMDEV_ERROR) && ev.request == 2,
	      "nobody comes: an error for each request");
	printf("# %.*s\n", (int)ev.text_len, ev.text);
	CHECK(llmdev_next(d, &ev, 0) == -EPIPE && *llmdev_error(d), "then the session is over");
	CHECK(llmdev_submit_text(d, "x", 1, NULL, NULL) == -EPIPE, "... for new ones, too");
	llmdev_close(d);
	listen_again();

	d = open_session(-1, 0);
	fd = accept_one();
	ask(d, "one");
	close(fd);
	CHECK(next_is(d, &ev, LLMDEV_ERROR) && ev.error == EPIPE, "no recovery wanted: at once");
	llmdev_close(d);

	d = open_session(1000, 0);
	fd = accept_one();
	ask(d, "one");
	post_error(fd, 0, 0, ENOSPC, "sessions: full");
	close(fd);
	CHECK(next_is(d, &ev, LLMDEV_ERROR) && ev.error == ENOSPC && text_is(&ev, "sessions: full"),
	      "a daemon that wants no session says why");
	llmdev_close(d);
}

static void test_nonsense(void)
{
	static const char *const what[] = {"a gap in seq", "a repeated seq", "STARTED twice",
					   "an unknown event", "half a record"};

	for (int i = 0; i < 5; i++) {
		struct llmdev *d = open_session(1000, 0);
		int fd = accept_one(), rc;
		struct llmdev_event ev;
		struct event_part none = {"12345678", 8};

		ask(d, "x");
		post_started(fd, 1, 0);
		if (i == 0)
			post_text(fd, 1, 2, 5, "x");
		if (i == 1)
			post_text(fd, 1, 0, 5, "x");
		if (i == 2)
			post_started(fd, 1, 0);
		if (i == 3)
			post(fd, 77, 1, 1, &none, 1);
		if (i == 4)
			send(fd, "12345678901234567890", 20, MSG_NOSIGNAL);
		rc = next_is(d, &ev, LLMDEV_STARTED) && next_is(d, &ev, LLMDEV_ERROR) &&
		     ev.error == EPROTO && llmdev_next(d, &ev, 0) == -EPROTO;
		CHECK(rc, "%s: EPROTO, never a wrong text", what[i]);
		close(fd);
		llmdev_close(d);
	}
}

int main(void)
{
	if (!mkdtemp(dir))
		return 3;
	snprintf(path, sizeof(path), "%s/s", dir);
	test_open();
	test_answer();
	test_data();
	test_arguments();
	test_long_payload();
	test_recovery();
	test_forgetting();
	test_the_end();
	test_nonsense();
	unlink(path);
	rmdir(dir);
	return tap_done();
}
