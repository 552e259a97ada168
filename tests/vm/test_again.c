// SPDX-License-Identifier: MIT
/*
 * One file asks again and again: what its requests take over from earlier ones (memory for ids, for
 * the end) changes nothing, whatever their lengths.
 */
#include "tests/vm/vm.h"

static int64_t ask(int fd, uint32_t max_tokens)
{
	struct llm_submit s = submission("a question");

	s.max_tokens = max_tokens;
	return ioctl(fd, LLM_IOC_SUBMIT, &s) ? -1 : (int64_t)s.request_id;
}

/* Posts up to `n` ids, then the end; how many were taken. */
static uint32_t answer(const struct backend *be, uint64_t id, uint32_t n, uint32_t resume_flags)
{
	static union message m;
	static struct batch b;
	uint32_t taken = 0;

	if (!message(be->fd, &m, LLM_MSG_SUBMIT) || m.head.request_id != id)
		return UINT32_MAX;
	add_started(&b, id, 0, resume_flags);
	if (post_one(be, &b))
		return UINT32_MAX;
	while (taken < n) {
		add_text(&b, id, 1 + taken, (int32_t)(id * 1000 + taken), "x");
		if (post_one(be, &b))
			break;
		taken++;
	}
	if (taken < n)
		check(errno == ECANCELED, "one id more than the request may have: ECANCELED");
	add_done(&b, id, 1 + taken, LLM_FINISH_STOP, "");
	return post_one(be, &b) ? UINT32_MAX : taken;
}

/* Reads the answer; true if it is of `n` ids, those that were posted, and ends in `type`. */
static bool whole(int fd, uint64_t id, uint32_t n, uint32_t type)
{
	static union event ev;
	uint32_t seen = 0;

	for (;;) {
		ssize_t len = read(fd, &ev, sizeof(ev));

		if (len <= 0)
			return false;
		for (ssize_t at = 0; at < len;) {
			struct llm_event h;
			int32_t token;

			memcpy(&h, ev.bytes + at, sizeof(h));
			if (h.type == LLM_EVENT_DONE || h.type == LLM_EVENT_ERROR)
				return seen == n && h.request_id == id && h.type == type;
			memcpy(&token, ev.bytes + at + sizeof(h) + sizeof(struct llm_text),
			       sizeof(token));
			if (h.type == LLM_EVENT_TEXT && token != (int32_t)(id * 1000 + seen++))
				return false;
			at += h.size;
		}
	}
}

/* What a new backend is told of the last turns: their ids. */
static void check_history(const char *name, struct backend *be, uint32_t n_last)
{
	static union message m;
	uint32_t n = 0, turns = 0;
	bool right = true;

	close(be->fd);
	works(attach(be, name, FINGERPRINT), "another backend attaches");
	while (message(be->fd, &m, 0) && m.head.type != LLM_MSG_REPLAY_END) {
		const struct llm_msg_submit *s = &m.submit.body;
		const char *ids = m.submit.parts + (s->payload_len + 7) / 8 * 8 +
				  (s->principal_len + 7) / 8 * 8 + (s->resume_len + 7) / 8 * 8;

		if (m.head.type != LLM_MSG_SUBMIT)
			continue;
		turns++;
		n = s->n_ids;
		for (uint32_t i = 0; i < n; i++) {
			int32_t token;

			memcpy(&token, ids + i * sizeof(token), sizeof(token));
			right = right && token == (int32_t)(m.head.request_id * 1000 + i);
		}
	}
	check(right && n == n_last && turns == 4,
	      "it is told the ids of the %u turns that count, each its own", turns);
}

int main(void)
{
	/* The tokens that a request may have (0: 4096, the context), those that are posted. */
	static const uint32_t cases[][2] = {{0, 5}, {3, 4}, {0, 700}, {500, 500},
					    {1, 2}, {0, 1}, {2, 1}};
	struct backend be;
	int fd;

	works(create(&be, "again"), "a device");
	fd = open_events(be.node, 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t max = cases[i][0], n = cases[i][1], most = max && max < n ? max : n;
		/* Now and then what came before is forgotten, or the turn is no part of it. */
		uint32_t flags = i == 2 ? LLM_RESUME_F_FRESH : i == 4 ? LLM_RESUME_F_ALONE : 0;
		int64_t id = works(ask(fd, max), "request %zu, of %u tokens at most", i + 1, max);
		uint32_t taken = answer(&be, (uint64_t)id, n, flags);

		check(taken == most, "%u of %u ids are taken", taken, n);
		check(whole(fd, (uint64_t)id, most, most < n ? LLM_EVENT_ERROR : LLM_EVENT_DONE),
		      "and arrive, then %s", most < n ? "an error" : "the end");
	}
	check_history("again", &be, 1);
	close(fd);
	close(be.fd);
	works(destroy("again"), "gone");
	return done();
}
