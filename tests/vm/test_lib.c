// SPDX-License-Identifier: MIT
// sources: runtime/lib/*.c runtime/transport/message.c runtime/base/err.c
/* libllmdev over /dev/llmN: every kind of event, pieces, cancelling, a backend's death and end. */
#include "tests/vm/vm.h"

#include "lib/llmdev.h"

static struct llmdev_event ev;

/* The next event is one of this kind, with this text. */
static bool next(struct llmdev *d, enum llmdev_event_kind kind, const char *text)
{
	int rc = llmdev_next(d, &ev, 10000);
	bool ok = rc == 1 && ev.kind == kind &&
		  (!text || (ev.text_len == strlen(text) && !memcmp(ev.text, text, ev.text_len)));

	if (!ok)
		printf("# got %d, kind %d, %.*s; %s\n", rc, ev.kind, (int)ev.text_len,
		       ev.text ? ev.text : "", llmdev_error(d));
	return ok;
}

static void add_piece(struct batch *b, uint64_t request, uint64_t seq, uint32_t subtype, bool more,
		      int32_t id, const char *text)
{
	struct llm_text t = {.n_ids = id ? 1 : 0, .n_bytes = (uint32_t)strlen(text),
			     .subtype = subtype, .flags = more ? LLM_TEXT_F_MORE : 0};
	char buf[256];
	size_t n = sizeof(t);

	memcpy(buf, &t, sizeof(t));
	if (id) {
		memcpy(buf + n, &id, sizeof(id));
		n += sizeof(id);
	}
	memcpy(buf + n, text, t.n_bytes);
	add(b, LLM_EVENT_DATA, request, seq, buf, n + t.n_bytes);
}

static void test_events(struct backend *be, struct llmdev *d)
{
	struct llm_progress p = {1, 2};
	static union message m;
	static struct batch b;
	uint64_t id;

	check(!llmdev_submit_text(d, "hello", 5, NULL, &id), "a request");
	check(message(be->fd, &m, LLM_MSG_SUBMIT) && m.head.request_id == id, "is delivered");
	add_started(&b, id, 0, 0);
	add(&b, LLM_EVENT_PROGRESS, id, 1, &p, sizeof(p));
	add_text(&b, id, 2, 7, "one ");
	add_piece(&b, id, 3, LLM_DATA_TOOL_CALL, true, 8, "{\"a\":");
	add_piece(&b, id, 4, LLM_DATA_TOOL_CALL, true, 0, "1");
	check(!post(be, &b), "its events are posted, a piece of DATA not to its end");
	check(next(d, LLMDEV_STARTED, NULL), "STARTED");
	check(next(d, LLMDEV_PROGRESS, NULL) && ev.done == 1 && ev.total == 2, "PROGRESS");
	check(next(d, LLMDEV_TEXT, "one ") && ev.n_ids == 1 && ev.ids[0] == 7, "TEXT with its id");
	check(!llmdev_next(d, &ev, 50), "of the piece nothing yet");

	close(be->fd);
	check(!llmdev_next(d, &ev, 50) && llmdev_pending(d) == 1, "the backend dies: it waits");
	check(!attach(be, "lib", FINGERPRINT), "another one attaches");
	check(message(be->fd, &m, LLM_MSG_SUBMIT) && m.head.flags == LLM_MSG_F_REPLAY &&
		      m.submit.body.n_ids == 2 && m.submit.body.seq == 5 &&
		      m.submit.body.posted_bytes == 10,
	      "and is told how far it got");
	add_piece(&b, id, 5, LLM_DATA_TOOL_CALL, false, 0, "}");
	add_done(&b, id, 6, LLM_FINISH_STOP, "two");
	check(!post(be, &b), "it goes on");
	check(next(d, LLMDEV_DATA, "{\"a\":1}") && ev.subtype == LLM_DATA_TOOL_CALL && ev.n_ids == 1,
	      "DATA comes whole");
	check(next(d, LLMDEV_TEXT, "two"), "the text of DONE as TEXT");
	check(next(d, LLMDEV_DONE, NULL) && ev.finish == LLMDEV_STOP, "DONE");
	check(!llmdev_pending(d), "nothing is left");
}

static void test_cancel(struct backend *be, struct llmdev *d)
{
	static union message m;
	static struct batch b;
	uint64_t id;

	check(!llmdev_submit_json(d, "{}", 2, NULL, &id), "a request in JSON");
	check(message(be->fd, &m, LLM_MSG_SUBMIT) && m.submit.body.format == LLM_FMT_JSON,
	      "is delivered");
	check(!llmdev_cancel(d, id), "cancelled");
	check(message(be->fd, &m, LLM_MSG_CANCEL) && m.head.request_id == id, "the backend hears it");
	add_done(&b, id, 0, LLM_FINISH_CANCELLED, "");
	post(be, &b);
	check(next(d, LLMDEV_DONE, NULL) && ev.finish == LLMDEV_CANCELLED, "DONE, cancelled");
	check(llmdev_cancel(d, id) == -ENOENT, "once is enough");
}

static void test_end(struct backend *be, struct llmdev *d)
{
	struct llmdev *other;
	uint64_t id;

	check(!llmdev_submit_text(d, "hello", 5, NULL, &id), "a last request");
	set_recovery(be, 1000);
	close(be->fd);
	check(next(d, LLMDEV_ERROR, NULL) && ev.error == EPIPE, "no backend comes back: EPIPE");
	check(llmdev_submit_text(d, "hello", 5, NULL, &id) == -EPIPE &&
		      strstr(llmdev_error(d), "start llmdevd"),
	      "asked again: `%s`", llmdev_error(d));
	check(!llmdev_open(&other, NULL, NULL, 0) && !strcmp(llmdev_where(other), "device /dev/llm0"),
	      "with no daemon at a socket, the default is the device all the same");
	llmdev_close(other);
}

int main(void)
{
	struct llmdev_options o = {0};
	struct backend be;
	struct llmdev *d;
	struct llm_query q;
	char why[256];

	check(!create(&be, "lib") && !strcmp(be.node, "/dev/llm0"), "a device");
	if (!check(!llmdev_open(&d, &o, why, sizeof(why)), "opened"))
		return done();
	check(!strcmp(llmdev_where(d), "device /dev/llm0"), "it is the default: %s", llmdev_where(d));
	check(!llmdev_query(d, &q, 1000) && q.context == 4096 && q.generation == 1 &&
		      !strcmp((char *)q.model, "a model"),
	      "llmdev_query");
	test_events(&be, d);
	test_cancel(&be, d);
	test_end(&be, d);
	llmdev_close(d);
	check(!destroy("lib"), "destroyed");
	return done();
}
