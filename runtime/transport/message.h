/* SPDX-License-Identifier: MIT */
/*
 * Messages to the backend and event records from it, between bytes and structures (uapi/llm.h).
 * Pure functions over the caller's memory: no I/O, no allocation. What comes from a client is
 * trusted in nothing.
 */
#ifndef LLMDEV_MESSAGE_H
#define LLMDEV_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "llm.h"

/* A checked message. The pointers lead into the bytes that were parsed. */
struct msg {
	uint32_t type, flags, generation;
	uint64_t session_id, request_id;
	/* SUBMIT: the body, and its parts as long as the body says */
	struct llm_msg_submit submit;
	const char *payload;
	const char *principal; /* not NUL-terminated */
	struct llm_resume resume; /* zero unless submit.resume_len */
	const int32_t *ids;
	/* others */
	struct llm_msg_session session; /* SESSION_OPEN; zero where the body is left out */
	struct llm_msg_cancel cancel;
	struct llm_msg_quiesce quiesce;
};

/*
 * The size that a message's first bytes announce: -EINVAL if `len` does not hold a header or the
 * size is impossible, -E2BIG if it is over `max`.
 */
int64_t msg_size(const void *buf, size_t len, size_t max, struct err *e);

/*
 * Parse one whole message of `len` bytes at `buf` (8-byte aligned). -EINVAL: malformed;
 * -EOPNOTSUPP: a type, flag or format that is not known. *m is filled as far as it got: type and
 * request_id are valid whenever the header was whole.
 */
int msg_parse(struct msg *m, const void *buf, size_t len, struct err *e);

/* What a SUBMIT is made of; *body says how long each part is. */
struct msg_submit_parts {
	const struct llm_msg_submit *body;
	const void *payload, *principal, *resume;
	const int32_t *ids;
};

/* Bytes of the message; 0 if that is more than a message can say. */
size_t msg_submit_size(const struct llm_msg_submit *body);
/* Writes exactly msg_submit_size() bytes, SUBMIT with LLM_MSG_F_* `flags`. */
void msg_submit_write(void *buf, uint32_t flags, uint64_t request_id,
		      const struct msg_submit_parts *parts);

/* A piece of an event's payload. */
struct event_part {
	const void *data;
	size_t len;
};

/* Bytes of the record that event_write() makes of payloads of this sum. */
size_t event_size(size_t payload);

/*
 * Write one record at `buf`; returns its size, or 0 if it is more than `cap` or LLM_EVENT_MAX.
 */
size_t event_write(void *buf, size_t cap, uint32_t type, uint64_t request_id, uint64_t seq,
		   const struct event_part *parts, int n_parts);

/*
 * The record at the start of `buf`: returns its size and points *payload into it, or -EINVAL if
 * it is malformed, its payload too short for its type, or the parts inside do not add up.
 */
int64_t event_parse(const void *buf, size_t len, struct llm_event *h, const void **payload);

#endif
