// SPDX-License-Identifier: MIT
/*
 * The daemon's core in this process, a step at a time, with libllmdev as its clients: who may have
 * how much unfinished, cancelling and vanishing at every step, what STATUS says, who gets the engine.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "lib/llmdev.h"
#include "llm.h"
#include "llmdevd/limits.h"
#include "llmdevd/pressure.h"
#include "llmdevd/serve.h"
#include "tests/tap.h"

#define MODEL	  "tools/demo/model"
#define MAX_STEPS 20000

static char dir[] = "/tmp/test_server.XXXXXX";
static char path[64];
static struct engine *engine;
static struct server *server;
static int always = -1; /* readable for ever: server_step() never waits */
static unsigned log_lines;

/* ---- the daemon's side ---------------------------------------------------------------------------- */

static void count_line(void *ctx, const char *line)
{
	log_lines++;
}

static bool start(const struct engine_opts *eo, const struct server_opts *so)
{
	struct server_opts o = *so;
	struct err e;

	o.socket = path;
	o.log = count_line;
	log_lines = 0;
	if (engine_open(&engine, eo, &e) || server_open(&server, engine, &o, &e) ||
	    server_watch(server, always, &e)) {
		printf("# %s\n", e.msg);
		return false;
	}
	return true;
}

static void stop(void)
{
	server_close(server);
	engine_close(engine);
	server = NULL;
	engine = NULL;
}

static void step(int n)
{
	struct err e;

	while (n-- > 0) {
		if (server_step(server, &e))
			printf("# server_step: %s\n", e.msg);
	}
}

static struct engine_opts engine_opts(void)
{
	return (struct engine_opts){.model = MODEL, .threads = 1, .kv_type = -1, .ctx = 512};
}

static struct server_opts server_opts(void)
{
	struct server_opts o;

	server_opts_default(&o);
	return o;
}

/* ---- the clients' side ---------------------------------------------------------------------------- */

static struct llmdev *client(void)
{
	struct llmdev_options o = {.path = path, .recovery_ms = -1};
	struct llmdev *d = NULL;
	char why[256];

	if (llmdev_open(&d, &o, why, sizeof(why)))
		printf("# %s\n", why);
	return d;
}

/* Asks for n tokens in a conversation of its own. */
static uint64_t ask(struct llmdev *d, int n, const char *principal, int priority,
		    uint64_t deadline_ns)
{
	struct llmdev_request r = {.principal = principal,
				   .priority = priority,
				   .deadline_ns = deadline_ns};
	char json[256];
	uint64_t id = 0;

	snprintf(json, sizeof(json),
		 "{\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}],"
		 "\"max_tokens\":%d,\"temperature\":0,\"ignore_eos\":true}",
		 n);
	if (llmdev_submit_json(d, json, strlen(json), &r, &id))
		printf("# %s\n", llmdev_error(d));
	return id;
}

/* The next event that ends a request, computing as long as it takes. False: none came. */
static bool next_end(struct llmdev *d, struct llmdev_event *ev)
{
	for (int i = 0; i < MAX_STEPS; i++) {
		int rc = llmdev_next(d, ev, 0);

		if (rc < 0)
			return false;
		if (!rc)
			step(1);
		else if (ev->kind == LLMDEV_DONE || ev->kind == LLMDEV_ERROR)
			return true;
	}
	return false;
}

/* An end that is there already, without computing anything. */
static bool end_is_there(struct llmdev *d, struct llmdev_event *ev)
{
	while (llmdev_next(d, ev, 0) == 1) {
		if (ev->kind == LLMDEV_DONE || ev->kind == LLMDEV_ERROR)
			return true;
	}
	return false;
}

static bool refused(struct llmdev *d, uint64_t id, int error, const char *a, const char *b)
{
	struct llmdev_event ev;
	char text[512] = "";
	bool ok = next_end(d, &ev) && ev.kind == LLMDEV_ERROR && ev.request == id;

	if (ok)
		snprintf(text, sizeof(text), "%.*s", (int)ev.text_len, ev.text);
	ok = ok && ev.error == error && strstr(text, a) && strstr(text, b);
	if (!ok)
		printf("# not refused as expected: %s\n", text);
	return ok;
}

struct answer {
	struct llm_status s;
	struct llm_status_session row[300];
	int n;
};

/* The question goes out first, since the daemon only runs when we let it. */
static bool status(struct llmdev *d, struct answer *a)
{
	a->n = llmdev_status(d, &a->s, a->row, 300, 0);
	for (int i = 0; i < 100 && a->n == -ETIMEDOUT; i++) {
		step(1);
		a->n = llmdev_status(d, &a->s, a->row, 300, 0);
	}
	return a->n >= 0;
}

static struct llm_status status_of(void)
{
	struct llmdev *d = client();
	static struct answer a;

	memset(&a, 0, sizeof(a));
	a.s.unfinished = UINT32_MAX;
	if (!d || !status(d, &a))
		printf("# no status: %s\n", d ? llmdev_error(d) : "");
	llmdev_close(d);
	step(2);
	return a.s;
}

static uint32_t unfinished(void)
{
	return status_of().unfinished;
}

/* ---- limits --------------------------------------------------------------------------------------- */

static void test_tally(void)
{
	struct requester alice = {.principal = 1ull << 40, .label = "alice", .label_len = 5};
	struct requester esc = {.principal = 2ull << 40, .label = "a\033[2J", .label_len = 5};
	struct charge c[300] = {0}, extra = {0};
	struct limits l;
	struct err e;
	int n = 0;

	REQUIRE(!limits_init(&l, 300, 200, 250), "limits");
	while (n < 300 && !limits_charge(&l, &c[n], &alice, &e))
		n++;
	CHECK(n == 200 && strstr(e.msg, "200 of principal alice") && strstr(e.msg, "principal="),
	      "a principal's limit: %s", e.msg);
	while (n < 300 && !limits_charge(&l, &c[n], &esc, &e))
		n++;
	CHECK(n == 250 && strstr(e.msg, "250 of uid 0") && strstr(e.msg, "uid="),
	      "a uid's limit: %s", e.msg);
	for (uid_t uid = 1000; n < 300; uid++, n++) {
		struct requester who = {.principal = uid, .uid = uid};

		if (limits_charge(&l, &c[n], &who, &e))
			break;
	}
	CHECK(n == 300 && l.unfinished == 300 && l.principals == 52, "others are not in their way");
	CHECK(limits_charge(&l, &extra, &(struct requester){.principal = 5, .uid = 5}, &e) ==
			      -ENOSPC &&
		      strstr(e.msg, "300 of this daemon") && strstr(e.msg, "waiting="),
	      "the device's limit: %s", e.msg);
	CHECK(!extra.principal && !extra.uid, "a refusal charges nothing");
	for (int i = 0; i < 300; i++) {
		limits_release(&l, &c[i]);
		limits_release(&l, &c[i]);
	}
	CHECK(l.unfinished == 0 && l.principals == 0, "released once, whatever is called twice");
	n = limits_charge(&l, &extra, &esc, &e);
	CHECK(!n, "... and there is room again");
	limits_release(&l, &extra);
	limits_free(&l);

	REQUIRE(!limits_init(&l, 10, 1, 10), "limits");
	limits_charge(&l, &c[0], &esc, &e);
	limits_charge(&l, &c[1], &esc, &e);
	CHECK(strstr(e.msg, "a?[2J") && !strchr(e.msg, '\033'), "labels are harmless in sentences");
	limits_release(&l, &c[0]);
	limits_free(&l);
}

static void test_limits(void)
{
	struct engine_opts eo = engine_opts();
	struct server_opts so = server_opts();
	struct llmdev *a, *b, *c;
	struct llmdev_event ev;
	uint64_t id;

	so.max_requests = 4;
	so.max_principal = 3;
	so.max_uid = 5;
	so.max_unfinished = 100;
	REQUIRE(start(&eo, &so), "a daemon with limits on principals and uids");
	a = client();
	b = client();
	c = client();
	for (int i = 0; i < 3; i++)
		ask(a, 300, "alice", 0, 0);
	id = ask(a, 300, "alice", 0, 0);
	CHECK(refused(a, id, ENOSPC, "3 of principal alice", "--limits principal="),
	      "more of a principal than may be: refused with the sum");
	id = ask(b, 300, "alice", 0, 0);
	CHECK(refused(b, id, ENOSPC, "3 of principal alice", "the limit is 3"),
	      "... from another session too");
	ask(b, 300, "bob", 0, 0);
	ask(b, 300, "bob", 0, 0);
	id = ask(b, 300, "carol", 0, 0);
	CHECK(refused(b, id, ENOSPC, "5 of uid", "--limits uid="),
	      "more of a uid than may be, whatever the labels: refused with the sum");
	CHECK(unfinished() == 5, "five are unfinished");
	for (int i = 1; i <= 3; i++)
		llmdev_cancel(a, (uint64_t)i);
	for (int i = 0; i < 3; i++)
		CHECK(next_end(a, &ev) && ev.kind == LLMDEV_DONE && ev.finish == LLMDEV_CANCELLED,
		      "cancelled: %d", i + 1);
	CHECK(unfinished() == 2, "cancelled ones count no longer");
	id = ask(c, 4, "alice", 0, 0);
	CHECK(next_end(c, &ev) && ev.kind == LLMDEV_DONE, "... and there is room again");
	llmdev_close(b);
	step(3);
	CHECK(unfinished() == 0 && status_of().principals == 0,
	      "nor do those whose client has gone");
	for (int i = 0; i < 4; i++)
		ask(c, 300, i < 2 ? "eve" : "fay", 0, 0);
	id = ask(c, 300, "gus", 0, 0);
	CHECK(refused(c, id, ENOSPC, "4 of this session", "--limits requests="),
	      "more in a session than may be: refused with the sum");
	llmdev_close(a);
	llmdev_close(c);
	stop();

	so = server_opts();
	so.max_unfinished = 2;
	REQUIRE(start(&eo, &so), "a daemon with a limit on all");
	a = client();
	b = client();
	ask(a, 300, NULL, 0, 0);
	ask(b, 300, NULL, 0, 0);
	step(2);
	id = ask(b, 4, NULL, 0, 0);
	CHECK(refused(b, id, ENOSPC, "2 of this daemon", "--limits waiting="),
	      "more than the device may have: refused with the sum");
	CHECK(status_of().refused == 1, "... and counted");
	llmdev_close(a);
	llmdev_close(b);
	stop();
}

static void test_admission(void)
{
	struct engine_opts eo = engine_opts();
	struct server_opts so = server_opts();
	struct llmdev_event ev;
	struct llmdev *d;
	uint64_t id;

	REQUIRE(start(&eo, &so), "a daemon");
	eo.kv_bytes = engine_info(engine)->kv_bytes_per_token * 256;
	stop();
	REQUIRE(start(&eo, &so), "a daemon with a KV cache of half a context");
	d = client();
	id = ask(d, 400, NULL, 0, 0);
	CHECK(refused(d, id, E2BIG, "KV", "400"),
	      "the engine's own refusal reaches the client with its sum");
	id = ask(d, 4, NULL, 0, 0);
	CHECK(next_end(d, &ev) && ev.kind == LLMDEV_DONE && ev.request == id,
	      "... and what fits is answered");
	id = ask(d, 4, NULL, 0, 1);
	CHECK(refused(d, id, ETIMEDOUT, "deadline", "passed"), "a deadline in the past: ETIMEDOUT");
	id = ask(d, 4, NULL, -20, 0);
	CHECK(next_end(d, &ev) && ev.kind == LLMDEV_DONE, "the daemon's user may set priorities");
	CHECK(unfinished() == 0, "nothing is left");
	llmdev_close(d);
	stop();
}

/* ---- memory pressure ------------------------------------------------------------------------------ */

static void test_pressure_steps(void)
{
	const uint64_t t0 = 1000, calm = PRESSURE_CALM_NS;
	struct pressure p;
	struct err e;

	CHECK(!pressure_open(&p, "off", &e) && pressure_fd(&p) < 0 && !pressure_told(&p),
	      "off: nothing is watched");
	CHECK(pressure_next(&p, t0) == RELIEF_CACHE && !pressure_refuses(&p, t0 + 1),
	      "the cache goes first");
	CHECK(pressure_next(&p, t0 + calm - 1) == RELIEF_IDLE, "then idle conversations");
	CHECK(pressure_next(&p, t0 + 2 * calm) == RELIEF_CACHE,
	      "after a calm time: from the start");
	pressure_next(&p, t0 + 2 * calm + 1);
	CHECK(pressure_next(&p, t0 + 2 * calm + 2) == RELIEF_QUEUE &&
		      pressure_next(&p, t0 + 2 * calm + 3) == RELIEF_QUEUE &&
		      pressure_refuses(&p, t0 + 3 * calm),
	      "then the queue, which stays closed");
	CHECK(!pressure_refuses(&p, t0 + 3 * calm + 3), "until it has been calm");
	pressure_close(&p);
	CHECK(pressure_open(&p, "/nowhere/memory.pressure", &e) == -ENOENT &&
		      strstr(e.msg, "/nowhere/memory.pressure"),
	      "a file that is not there: %s", e.msg);
	CHECK(pressure_open(&p, "/dev/null", &e) == -EINVAL && strstr(e.msg, "/dev/null"),
	      "one that tells of no pressure: %s", e.msg);
	CHECK(!pressure_open(&p, "auto", &e) && !pressure_told(&p), "auto takes what there is: %s",
	      p.source);
	pressure_close(&p);
}

static void test_pressure(void)
{
	struct engine_opts eo = engine_opts();
	struct server_opts so = server_opts();
	struct llmdev *a, *b, *c;
	struct llmdev_event ev;
	struct engine_stats st;
	uint64_t running, waiting, second;

	eo.max_seqs = 1;
	REQUIRE(start(&eo, &so), "a daemon that runs one request at a time");
	a = client();
	b = client();
	c = client();
	second = ask(c, 200, NULL, 0, 0);
	CHECK(next_end(c, &ev) && ev.kind == LLMDEV_DONE, "an idle conversation");
	engine_stats(engine, &st);
	CHECK(st.kv_held, "holds pages");
	running = ask(a, 300, "alice", 0, 0);
	step(5);
	waiting = ask(b, 4, "bob", 0, 0);
	step(5);
	server_relieve(server);
	engine_stats(engine, &st);
	CHECK(!st.kv_cached && st.kv_held, "pressure: the cache is given up first");
	server_relieve(server);
	server_relieve(server);
	engine_stats(engine, &st);
	CHECK(!st.kv_cached, "then idle conversations");
	CHECK(refused(b, waiting, ENOSPC, "memory", "still waiting"), "then what waits is refused");
	second = ask(c, 4, NULL, 0, 0);
	CHECK(refused(c, second, ENOSPC, "memory", "nothing new is taken"), "... and what comes");
	CHECK(next_end(a, &ev) && ev.kind == LLMDEV_DONE && ev.request == running &&
		      ev.finish == LLMDEV_LENGTH,
	      "what runs goes on");
	CHECK(unfinished() == 0, "nothing is left");
	llmdev_close(a);
	llmdev_close(b);
	llmdev_close(c);
	stop();
}

/* ---- every possible step -------------------------------------------------------------------------- */

static void test_cancel_everywhere(void)
{
	struct engine_opts eo = engine_opts();
	struct server_opts so = server_opts();
	int bad = 0, cancelled = 0, done = 0, k;

	eo.chunk = 8; /* several steps of prefill */
	eo.max_seqs = 2;
	REQUIRE(start(&eo, &so), "a daemon");
	for (k = 0; k < 40; k++) {
		struct llmdev *d[3];
		struct llmdev_event ev;

		for (int i = 0; i < 3; i++) {
			d[i] = client();
			ask(d[i], 12, NULL, 0, 0);
			ask(d[i], 12, NULL, 0, 0);
		}
		step(k);
		llmdev_cancel(d[0], 1);
		llmdev_cancel(d[1], 2);
		llmdev_close(d[2]); /* vanishes */
		for (int i = 0; i < 2; i++) {
			for (int n = 0; n < 2; n++) {
				bad += !next_end(d[i], &ev) || ev.kind != LLMDEV_DONE;
				cancelled += ev.finish == LLMDEV_CANCELLED;
				done += ev.finish == LLMDEV_LENGTH;
			}
		}
		bad += unfinished() != 0;
		llmdev_close(d[0]);
		llmdev_close(d[1]);
	}
	CHECK(!bad, "cancelled and left after each of %d steps: all end, nothing stays (%d)", k,
	      bad);
	CHECK(cancelled >= 40 && done >= 80, "... %d cancelled, %d complete", cancelled, done);
	step(2);
	CHECK(status_of().sessions == 0 && status_of().kv_held == 0, "no session, no page is held");
	stop();
}

/* ---- status --------------------------------------------------------------------------------------- */

static void test_status(void)
{
	struct engine_opts eo = engine_opts();
	struct server_opts so = server_opts();
	static struct answer a;
	struct llmdev *d[4], *watcher[20], *late;
	struct llmdev_event ev;
	int told = 0, answered = 0;

	so.max_sessions = 3;
	so.max_batch = 2;
	eo.max_seqs = 2;
	REQUIRE(start(&eo, &so), "a daemon with three places");
	for (int i = 0; i < 3; i++) {
		d[i] = client();
		ask(d[i], 200, i ? "bob" : NULL, i, 0);
	}
	step(6);
	watcher[0] = client();
	CHECK(status(watcher[0], &a), "status is answered where all places are taken");
	CHECK(a.s.sessions == 3 && a.s.max_sessions == 3 && a.n == 3, "three sessions, all told");
	CHECK(a.s.running + a.s.parked + a.s.waiting == 3 && a.s.running == 2 &&
		      a.s.max_batch == 2 && a.s.unfinished == 3 && a.s.principals == 2,
	      "two run, one waits: %u %u %u", a.s.running, a.s.parked, a.s.waiting);
	CHECK(a.s.kv_held + a.s.kv_cached + a.s.kv_free == a.s.kv_pages && a.s.kv_held > 0 &&
		      a.s.kv_page_tokens == 64 && a.s.kv_page_bytes > 0,
	      "pages add up: %u + %u + %u = %u", a.s.kv_held, a.s.kv_cached, a.s.kv_free,
	      a.s.kv_pages);
	CHECK(a.s.prompt_tokens > 0 && a.s.generated_tokens > 0 && a.s.steps > 0 &&
		      a.s.step_ns >= a.s.forward_ns && a.s.forward_ns > 0,
	      "work is counted");
	CHECK(a.s.context == 512 && a.s.fingerprint == engine_info(engine)->fingerprint &&
		      !strcmp((char *)a.s.device, "llm0") && !strcmp((char *)a.s.backend, "cpu"),
	      "facts");
	for (int i = 0; i < a.n; i++) {
		const struct llm_status_session *r = &a.row[i];
		bool first = !r->principal[0];

		CHECK(r->uid == geteuid() && r->pid == getpid() && r->requests == 1 &&
			      r->number >= 1 && r->number <= 3 && r->opened_ns <= r->request_ns &&
			      r->request_ns && r->request_ns <= a.s.now_ns &&
			      (first || !strcmp((char *)r->principal, "bob")) &&
			      r->priority == (int)r->number - 1,
		      "a row says whose it is");
		CHECK(r->state == LLM_SESSION_WAITING ||
			      (r->state == LLM_SESSION_DECODE && r->tokens > 0 && r->pages > 0),
		      "... and what it does (%u)", r->state);
	}
	late = client();
	ask(late, 4, NULL, 0, 0);
	CHECK(next_end(late, &ev) && ev.kind == LLMDEV_ERROR && ev.error == ENOSPC &&
		      strstr(llmdev_error(late), "3 are open"),
	      "a fourth session is told: %s", llmdev_error(late));
	llmdev_close(late);
	/* More watchers than fit: the last ones are answered, others make way. */
	for (int i = 1; i < 20; i++) {
		watcher[i] = client();
		step(1);
	}
	for (int i = 0; i < 20; i++) {
		struct answer *w = &a;

		if (status(watcher[i], w))
			answered++;
		else
			told += strstr(llmdev_error(watcher[i]), "sessions:") != NULL;
	}
	CHECK(answered >= 8 && answered + told == 20, "of 20 idle watchers %d fit, %d were told",
	      answered, told);
	llmdev_close(d[0]);
	step(3);
	CHECK(status(watcher[19], &a) && a.s.sessions == 2, "a session left");
	ask(watcher[19], 2, NULL, 0, 0);
	CHECK(next_end(watcher[19], &ev) && ev.kind == LLMDEV_DONE,
	      "a watcher may become a session where there is a place");
	CHECK(status(watcher[19], &a) && status_of().sessions == 3,
	      "... and counts as one then (a query may follow a request)");
	for (int i = 0; i < 20; i++)
		llmdev_close(watcher[i]);
	llmdev_close(d[1]);
	llmdev_close(d[2]);
	step(3);
	CHECK(status_of().sessions == 0, "all places are free again");
	stop();

	so.max_sessions = 400;
	REQUIRE(start(&eo, &so), "a daemon with 400 places");
	{
		struct llmdev *many[350];

		for (int i = 0; i < 350; i++) {
			many[i] = client();
			step(1);
		}
		ask(many[7], 100, NULL, 0, 0);
		step(3);
		CHECK(status(many[200], &a) && a.s.sessions == 349 && a.n > 200 && a.n < 349 &&
			      a.row[0].requests == 1,
		      "more sessions than an event holds: %d of %u, busy ones first", a.n,
		      a.s.sessions);
		for (int i = 0; i < 350; i++)
			llmdev_close(many[i]);
	}
	stop();
}

/* ---- floods --------------------------------------------------------------------------------------- */

static void test_flood(void)
{
	struct engine_opts eo = engine_opts();
	struct server_opts so = server_opts();
	struct llmdev *flood[6], *calm, *rude;
	struct llmdev_event ev;
	int flood_done = 0, bad = 0, n;

	eo.max_seqs = 4;
	so.max_principal = 48;
	REQUIRE(start(&eo, &so), "a daemon that runs four at once");
	for (int i = 0; i < 6; i++) {
		flood[i] = client();
		for (int k = 0; k < 8; k++)
			ask(flood[i], 40, "mallory", 0, 0);
	}
	step(10);
	calm = client();
	for (int i = 0; i < 6; i++) {
		ask(calm, 10, "alice", 0, 0);
		bad += !next_end(calm, &ev) || ev.kind != LLMDEV_DONE;
	}
	for (int i = 0; i < 6; i++) {
		while (end_is_there(flood[i], &ev))
			flood_done++;
	}
	/* In order of arrival she would have waited for 44 of them, six times for what was there. */
	CHECK(!bad && flood_done <= 24,
	      "six answers for one principal while another's 48 wait: %d of those are done",
	      flood_done);
	rude = client();
	n = 0;
	for (int i = 0; i < 3000; i++) {
		ask(rude, 40, "mallory", 0, 0);
		step(i % 10 == 0);
		while (end_is_there(rude, &ev))
			n += ev.kind == LLMDEV_ERROR && ev.error == ENOSPC;
	}
	CHECK(n > 2000, "a flood of requests is refused: %d", n);
	CHECK(log_lines < 1000, "... and does not fill the log: %u lines", log_lines);
	CHECK(status_of().unfinished <= 48, "... nor the daemon");
	ask(calm, 10, "alice", 0, 0);
	CHECK(next_end(calm, &ev) && ev.kind == LLMDEV_DONE, "others are answered still");
	for (int i = 0; i < 6; i++)
		llmdev_close(flood[i]);
	llmdev_close(calm);
	llmdev_close(rude);
	step(3);
	CHECK(unfinished() == 0, "when all have gone nothing is left");
	stop();
}

int main(void)
{
	if (access(MODEL "/config.json", F_OK)) {
		tap_skip("no model at " MODEL);
		return tap_done();
	}
	always = eventfd(1, EFD_CLOEXEC);
	if (!mkdtemp(dir) || always < 0)
		return 3;
	snprintf(path, sizeof(path), "%s/sock", dir);
	test_tally();
	test_limits();
	test_admission();
	test_pressure_steps();
	test_pressure();
	test_cancel_everywhere();
	test_status();
	test_flood();
	snprintf(path, sizeof(path), "%s/sock.lock", dir);
	unlink(path);
	rmdir(dir);
	return tap_done();
}
