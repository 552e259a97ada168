// SPDX-License-Identifier: MIT
/* Messages and events between bytes and structures: what is written is read, the rest is refused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "transport/message.h"

/* A replayed SUBMIT with all four parts, malloc'ed to its exact size so that ASan sees overruns. */
static uint8_t *replayed(size_t *size)
{
	static const int32_t ids[] = {5, 6, 7};
	static const struct llm_resume resume = {.size = sizeof(resume), .seed = 42};
	struct llm_msg_submit b = {
		.format = LLM_FMT_TEXT,
		.payload_len = 5,
		.max_tokens = 9,
		.priority = -3,
		.principal_len = 3,
		.resume_len = sizeof(resume),
		.n_ids = 3,
		.posted_bytes = 11,
		.seq = 4,
	};
	struct msg_submit_parts parts = {&b, "hello", "bob", &resume, ids};
	uint8_t *buf;

	*size = msg_submit_size(&b);
	buf = malloc(*size);
	msg_submit_write(buf, LLM_MSG_F_REPLAY, 77, &parts);
	return buf;
}

static void test_round_trip(void)
{
	struct err e;
	struct msg m;
	size_t size;
	uint8_t *buf = replayed(&size);

	CHECK(size == 32 + 88 + 8 + 8 + 56 + 16, "parts are padded to 8: %zu bytes", size);
	CHECK(msg_size(buf, size, size, &e) == (int64_t)size, "the header tells the size");
	CHECK(!msg_parse(&m, buf, size, &e), "a replayed SUBMIT is read");
	CHECK(m.type == LLM_MSG_SUBMIT && m.request_id == 77 && m.flags == LLM_MSG_F_REPLAY,
	      "... with its header");
	CHECK(m.submit.payload_len == 5 && !memcmp(m.payload, "hello", 5) &&
		      m.submit.principal_len == 3 && !memcmp(m.principal, "bob", 3) &&
		      m.resume.seed == 42 && m.submit.n_ids == 3 && m.ids[2] == 7,
	      "... and its parts");
	CHECK(m.submit.priority == -3 && m.submit.max_tokens == 9 && m.submit.seq == 4,
	      "... and its fields");
	free(buf);
}

static void test_truncated(void)
{
	size_t size, bad = 0;
	uint8_t *buf = replayed(&size);

	for (size_t n = 0; n < size; n++) {
		/* Cut, and cut with a header that agrees with it. */
		for (int agrees = 0; agrees < 2; agrees++) {
			uint8_t *cut = malloc(n ? n : 1);
			uint32_t said = (uint32_t)n;
			struct err e;
			struct msg m;

			memcpy(cut, buf, n);
			if (agrees && n >= 4)
				memcpy(cut, &said, sizeof(said));
			bad += msg_parse(&m, cut, n, &e) != -EINVAL;
			free(cut);
		}
	}
	CHECK(!bad, "cut at any byte: EINVAL");
	free(buf);
}

/* One field of the body or header changed to a value that must be refused. */
static void test_refusals(void)
{
	static const struct {
		const char *what;
		size_t at;
		uint32_t value;
		int code;
	} cases[] = {
		{"an unknown flag of the message", 4, 1u << 9, -EOPNOTSUPP},
		{"LOST on a SUBMIT", 4, LLM_MSG_F_REPLAY | LLM_MSG_F_LOST, -EOPNOTSUPP},
		{"not a replay, but replay fields", 4, 0, -EINVAL},
		{"FINISHED without a finish", 4, LLM_MSG_F_REPLAY | LLM_MSG_F_FINISHED, -EINVAL},
		{"an unknown type", 8, 1000, -EOPNOTSUPP},
		{"request id 0", 24, 0, -EINVAL},
		{"an unknown format", 32, 3, -EOPNOTSUPP},
		{"an unknown flag of the request", 32 + 4, 2, -EOPNOTSUPP},
		{"an empty payload", 32 + 8, 0, -EINVAL},
		{"a payload longer than the message", 32 + 8, 5000, -EINVAL},
		{"a payload of 16 EB", 32 + 12, 0xffffffff, -EINVAL},
		{"a priority of 20", 32 + 28, 20, -EINVAL},
		{"a long principal", 32 + 56, LLM_PRINCIPAL_MAX + 1, -EINVAL},
		{"another version's resume blob", 32 + 60, 64, -ESTALE},
		{"no resume blob, but ids", 32 + 60, 0, -EINVAL},
		{"more ids than the message", 32 + 64, 5, -EINVAL},
		{"fewer ids than the message", 32 + 64, 1, -EINVAL},
		{"4 G ids", 32 + 64, 0xffffffff, -EINVAL},
		{"a finish without FINISHED", 32 + 68, 1, -EINVAL},
		{"seq 0 after STARTED", 32 + 80, 0, -EINVAL},
		{"padding that is not zero", 32 + 88 + 4, 0x01000000 | 'o', -EINVAL},
		{"a resume blob that lies about its size", 32 + 88 + 16, 48, -ESTALE},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t size;
		uint8_t *buf = replayed(&size);
		struct err e = {""};
		struct msg m;
		int rc;

		memcpy(buf + cases[i].at, &cases[i].value, 4);
		rc = msg_parse(&m, buf, size, &e);
		CHECK(rc == cases[i].code && e.msg[0], "%s: %s", cases[i].what,
		      rc == cases[i].code ? e.msg : strerror(-rc));
		free(buf);
	}
}

static void test_others(void)
{
	static const struct {
		uint32_t type;
		size_t body;
	} kinds[] = {
		{LLM_MSG_SESSION_OPEN, sizeof(struct llm_msg_session)},
		{LLM_MSG_SESSION_CLOSE, 0},
		{LLM_MSG_CANCEL, sizeof(struct llm_msg_cancel)},
		{LLM_MSG_RESUME, 0},
		{LLM_MSG_QUIESCE, sizeof(struct llm_msg_quiesce)},
		{LLM_MSG_REPLAY_END, 0},
		{LLM_MSG_QUERY, 0},
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		int rc[3];

		for (int k = -1; k <= 1; k++) {
			uint64_t buf[16] = {0};
			struct llm_msg h = {.type = kinds[i].type, .request_id = 1};
			struct err e;
			struct msg m;

			h.size = (uint32_t)(sizeof(h) + kinds[i].body + 8 * k);
			memcpy(buf, &h, sizeof(h));
			rc[k + 1] = h.size < sizeof(h) ? -EINVAL : msg_parse(&m, buf, h.size, &e);
		}
		CHECK(rc[0] && !rc[1] && rc[2], "type %u: a body of %zu bytes and no other",
		      kinds[i].type, kinds[i].body);
	}
}

static void test_limits(void)
{
	struct llm_msg h = {.size = 64};
	struct llm_msg_submit b = {.payload_len = UINT64_MAX};
	struct err e;

	CHECK(msg_size(&h, sizeof(h), 64, &e) == 64, "a size at the limit");
	CHECK(msg_size(&h, sizeof(h), 63, &e) == -E2BIG, "a size over the limit: E2BIG");
	CHECK(msg_size(&h, 31, 64, &e) == -EINVAL, "less than a header: EINVAL");
	CHECK(msg_submit_size(&b) == 0, "a payload that no message can hold");
	b.payload_len = UINT32_MAX - 8;
	CHECK(msg_submit_size(&b) == 0, "... nor one that fits only without the header");
}

static void test_events(void)
{
	int32_t ids[] = {1, 2};
	struct llm_text text = {.n_ids = 2, .n_bytes = 3};
	struct event_part parts[] = {{&text, sizeof(text)}, {ids, sizeof(ids)}, {"abc", 3}};
	static uint64_t big[LLM_EVENT_MAX / 8 + 8], source[LLM_EVENT_MAX / 8];
	struct event_part over[] = {{source, LLM_EVENT_MAX - 31}};
	struct event_part full[] = {{source, LLM_EVENT_MAX - 32}};
	uint64_t buf[16];
	const void *payload;
	struct llm_event h;
	size_t n = event_write(buf, sizeof(buf), LLM_EVENT_TEXT, 9, 3, parts, 3), bad = 0;

	CHECK(n == 64 && n == event_size(27), "an event is padded to 8");
	CHECK(event_parse(buf, n, &h, &payload) == 64 && h.request_id == 9 && h.seq == 3 &&
		      h.length == 27 && !memcmp((const char *)payload + 24, "abc", 3),
	      "an event is read as it was written");
	for (size_t i = 0; i < n; i++)
		bad += event_parse(buf, i, &h, &payload) != -EINVAL;
	CHECK(!bad, "cut at any byte: EINVAL");
	CHECK(!event_write(buf, 63, LLM_EVENT_TEXT, 9, 3, parts, 3), "no room: nothing is written");
	CHECK(event_write(big, sizeof(big), LLM_EVENT_TEXT, 9, 3, full, 1) == LLM_EVENT_MAX &&
		      !event_write(big, sizeof(big), LLM_EVENT_TEXT, 9, 3, over, 1),
	      "an event has at most LLM_EVENT_MAX bytes");
	text.n_ids = 0x40000000;
	n = event_write(buf, sizeof(buf), LLM_EVENT_TEXT, 9, 3, parts, 3);
	CHECK(event_parse(buf, n, &h, &payload) == -EINVAL, "an id count that overflows: EINVAL");
	n = event_write(buf, sizeof(buf), 99, 9, 3, parts, 3);
	CHECK(event_parse(buf, n, &h, &payload) == -EINVAL, "an unknown type: EINVAL");
}

static void test_status(void)
{
	static uint64_t buf[LLM_EVENT_MAX / 8];
	struct llm_status_session rows[3] = {{.number = 7}, {.number = 8}, {.number = 9}};
	struct llm_status s = {.size = sizeof(s), .session_size = sizeof(rows[0]), .n_sessions = 3};
	struct event_part parts[] = {{&s, sizeof(s)}, {rows, sizeof(rows)}};
	struct llm_msg ask = {.size = sizeof(ask), .type = LLM_MSG_STATUS};
	const void *payload;
	struct llm_event h;
	struct err e;
	struct msg m;
	size_t n = event_write(buf, sizeof(buf), LLM_EVENT_STATUS, 0, 0, parts, 2), bad = 0;

	CHECK(!msg_parse(&m, &ask, sizeof(ask), &e) && m.type == LLM_MSG_STATUS,
	      "STATUS is a message without a body");
	CHECK(event_parse(buf, n, &h, &payload) == (int64_t)n, "a status is read");
	for (size_t i = 0; i < n; i++)
		bad += event_parse(buf, i, &h, &payload) != -EINVAL;
	CHECK(!bad, "... cut at any byte: EINVAL");
	for (int field = 0; field < 3; field++) {
		static const uint32_t values[] = {0, 1, 2, 4, 0x7fffffff, 0xffffffff};

		for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
			event_write(buf, sizeof(buf), LLM_EVENT_STATUS, 0, 0, parts, 2);
			((uint32_t *)buf)[sizeof(h) / 4 + field] = values[i];
			bad += event_parse(buf, n, &h, &payload) != -EINVAL;
		}
	}
	CHECK(!bad, "... with sizes and counts that do not add up: EINVAL");
	/* A later version's: both structures longer. */
	s.size += 16;
	s.session_size += 8;
	s.n_sessions = 1;
	parts[0] = (struct event_part){buf + 1000, s.size};
	parts[1] = (struct event_part){buf + 2000, s.session_size};
	memcpy(buf + 1000, &s, sizeof(s));
	n = event_write(buf, 4000, LLM_EVENT_STATUS, 0, 0, parts, 2);
	CHECK(event_parse(buf, n, &h, &payload) == (int64_t)n, "one that has grown is read");
}

int main(void)
{
	test_round_trip();
	test_truncated();
	test_refusals();
	test_others();
	test_limits();
	test_events();
	test_status();
	return tap_done();
}
