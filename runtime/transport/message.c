// SPDX-License-Identifier: MIT
/* Messages and event records between bytes and structures. Owns nothing; see message.h. */
#include <errno.h>
#include <string.h>

#include "transport/message.h"

static uint64_t padded(uint64_t n)
{
	return (n + 7) & ~(uint64_t)7;
}

int64_t msg_size(const void *buf, size_t len, size_t max, struct err *e)
{
	struct llm_msg h;

	if (len < sizeof(h))
		return err_set(e, -EINVAL, "message: %zu bytes: a header has %zu", len, sizeof(h));
	memcpy(&h, buf, sizeof(h));
	if (h.size < sizeof(h) || h.size % 8)
		return err_set(e, -EINVAL, "message.size: %u: at least %zu and a multiple of 8",
			       h.size, sizeof(h));
	if (h.size > max)
		return err_set(e, -E2BIG, "message.size: %u: the limit is %zu: send less at once",
			       h.size, max);
	return h.size;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i])
			return false;
	}
	return true;
}

/* Takes `want` bytes and their padding from *p; NULL if they are not there or not padded with 0. */
static const uint8_t *take(const uint8_t **p, const uint8_t *end, uint64_t want)
{
	const uint8_t *at = *p;
	uint64_t left = (uint64_t)(end - at);

	if (want > left || padded(want) > left || !all_zero(at + want, padded(want) - want))
		return NULL;
	*p = at + padded(want);
	return at;
}

static int parse_submit(struct msg *m, const uint8_t *p, const uint8_t *end, struct err *e)
{
	struct llm_msg_submit *s = &m->submit;
	const uint8_t *part;

	if ((size_t)(end - p) < sizeof(*s))
		return err_set(e, -EINVAL, "SUBMIT: body cut short");
	memcpy(s, p, sizeof(*s));
	p += sizeof(*s);
	if (!m->request_id)
		return err_set(e, -EINVAL, "SUBMIT.request_id: 0: give one");
	if (s->format != LLM_FMT_TEXT && s->format != LLM_FMT_JSON)
		return err_set(e, -EOPNOTSUPP, "SUBMIT.format: %u: unknown", s->format);
	if (s->flags & ~LLM_SUBMIT_F_ALL)
		return err_set(e, -EOPNOTSUPP, "SUBMIT.flags: 0x%x: unknown",
			       s->flags & ~LLM_SUBMIT_F_ALL);
	if (s->priority < -20 || s->priority > 19)
		return err_set(e, -EINVAL, "SUBMIT.priority: %d: -20 to 19", s->priority);
	if (s->principal_len > LLM_PRINCIPAL_MAX)
		return err_set(e, -EINVAL, "SUBMIT.principal_len: %u: at most %u", s->principal_len,
			       LLM_PRINCIPAL_MAX);
	if (s->resume_len && s->resume_len != sizeof(struct llm_resume))
		return err_set(e, -ESTALE, "SUBMIT.resume_len: %u: another version's: ask again",
			       s->resume_len);
	if (!s->payload_len)
		return err_set(e, -EINVAL, "SUBMIT: the payload is empty: nothing to answer");
	if (!(m->flags & LLM_MSG_F_REPLAY) &&
	    (s->resume_len || s->n_ids || s->finish || s->posted_bytes || s->seq))
		return err_set(e, -EINVAL, "SUBMIT: replay fields in a new request");
	if (m->flags & LLM_MSG_F_FINISHED) {
		if (s->finish < LLM_FINISH_STOP || s->finish > LLM_FINISH_CANCELLED ||
		    !s->resume_len)
			return err_set(e, -EINVAL, "SUBMIT.finish: %u: not how a request ends",
				       s->finish);
	} else if (s->finish) {
		return err_set(e, -EINVAL, "SUBMIT.finish: %u in a request that runs", s->finish);
	}
	if (!s->resume_len && (s->n_ids || s->posted_bytes || s->seq))
		return err_set(e, -EINVAL, "SUBMIT: posted ids but no resume blob");
	if (s->resume_len && !s->seq)
		return err_set(e, -EINVAL, "SUBMIT.seq: 0 after STARTED");

	part = take(&p, end, s->payload_len);
	if (!part)
		return err_set(e, -EINVAL, "SUBMIT.payload_len: %llu: beyond the message",
			       (unsigned long long)s->payload_len);
	m->payload = (const char *)part;
	part = take(&p, end, s->principal_len);
	if (!part)
		return err_set(e, -EINVAL, "SUBMIT.principal_len: %u: beyond the message",
			       s->principal_len);
	m->principal = (const char *)part;
	part = take(&p, end, s->resume_len);
	if (!part)
		return err_set(e, -EINVAL, "SUBMIT.resume_len: %u: beyond the message",
			       s->resume_len);
	if (s->resume_len) {
		memcpy(&m->resume, part, sizeof(m->resume));
		if (m->resume.size != sizeof(m->resume))
			return err_set(e, -ESTALE, "resume.size: %u: another version's: ask again",
				       m->resume.size);
	}
	part = take(&p, end, (uint64_t)s->n_ids * sizeof(int32_t));
	if (!part)
		return err_set(e, -EINVAL, "SUBMIT.n_ids: %u: beyond the message", s->n_ids);
	m->ids = (const int32_t *)(const void *)part;
	if (p != end)
		return err_set(e, -EINVAL, "SUBMIT: %zu bytes too many", (size_t)(end - p));
	return 0;
}

/* A body that is one structure. */
static int parse_body(void *out, size_t size, const uint8_t *p, const uint8_t *end,
		      const char *what, struct err *e)
{
	if ((size_t)(end - p) != size)
		return err_set(e, -EINVAL, "%s: body of %zu bytes: %zu expected", what,
			       (size_t)(end - p), size);
	if (size)
		memcpy(out, p, size);
	return 0;
}

int msg_parse(struct msg *m, const void *buf, size_t len, struct err *e)
{
	const uint8_t *p = buf, *end = p + len;
	struct llm_msg h;
	int64_t size;
	uint32_t allowed = 0;

	memset(m, 0, sizeof(*m));
	size = msg_size(buf, len, UINT32_MAX, e);
	if (size < 0)
		return (int)size;
	memcpy(&h, buf, sizeof(h));
	m->type = h.type;
	m->flags = h.flags;
	m->generation = h.generation;
	m->session_id = h.session_id;
	m->request_id = h.request_id;
	if ((size_t)size != len)
		return err_set(e, -EINVAL, "message.size: %u in %zu bytes", h.size, len);
	if (h.type == LLM_MSG_SUBMIT)
		allowed = LLM_MSG_F_REPLAY | LLM_MSG_F_FINISHED;
	else if (h.type == LLM_MSG_SESSION_OPEN)
		allowed = LLM_MSG_F_REPLAY | LLM_MSG_F_LOST;
	if (h.flags & ~allowed)
		return err_set(e, -EOPNOTSUPP, "message.flags: 0x%x: unknown for type %u",
			       h.flags & ~allowed, h.type);
	if ((h.flags & (LLM_MSG_F_FINISHED | LLM_MSG_F_LOST)) && !(h.flags & LLM_MSG_F_REPLAY))
		return err_set(e, -EINVAL, "message.flags: 0x%x without REPLAY", h.flags);
	p += sizeof(h);

	switch (h.type) {
	case LLM_MSG_SUBMIT:
		return parse_submit(m, p, end, e);
	case LLM_MSG_SESSION_OPEN:
		return parse_body(&m->session, sizeof(m->session), p, end, "SESSION_OPEN", e);
	case LLM_MSG_CANCEL:
		if (!h.request_id)
			return err_set(e, -EINVAL, "CANCEL.request_id: 0: give one");
		return parse_body(&m->cancel, sizeof(m->cancel), p, end, "CANCEL", e);
	case LLM_MSG_QUIESCE:
		return parse_body(&m->quiesce, sizeof(m->quiesce), p, end, "QUIESCE", e);
	case LLM_MSG_SESSION_CLOSE:
	case LLM_MSG_RESUME:
	case LLM_MSG_REPLAY_END:
	case LLM_MSG_QUERY:
	case LLM_MSG_STATUS:
		return parse_body(NULL, 0, p, end, "message", e);
	}
	return err_set(e, -EOPNOTSUPP, "message.type: %u: unknown", h.type);
}

size_t msg_submit_size(const struct llm_msg_submit *b)
{
	uint64_t size = sizeof(struct llm_msg) + sizeof(*b) + padded(b->principal_len) +
			padded(b->resume_len) + padded((uint64_t)b->n_ids * sizeof(int32_t));

	if (b->payload_len > UINT32_MAX || size + padded(b->payload_len) > UINT32_MAX)
		return 0;
	return (size_t)(size + padded(b->payload_len));
}

static uint8_t *put(uint8_t *p, const void *data, size_t len)
{
	if (len)
		memcpy(p, data, len);
	memset(p + len, 0, padded(len) - len);
	return p + padded(len);
}

void msg_submit_write(void *buf, uint32_t flags, uint64_t request_id,
		      const struct msg_submit_parts *parts)
{
	const struct llm_msg_submit *b = parts->body;
	struct llm_msg h = {
		.size = (uint32_t)msg_submit_size(b),
		.flags = flags,
		.type = LLM_MSG_SUBMIT,
		.request_id = request_id,
	};
	uint8_t *p = buf;

	p = put(p, &h, sizeof(h));
	p = put(p, b, sizeof(*b));
	p = put(p, parts->payload, (size_t)b->payload_len);
	p = put(p, parts->principal, b->principal_len);
	p = put(p, parts->resume, b->resume_len);
	put(p, parts->ids, (size_t)b->n_ids * sizeof(int32_t));
}

size_t event_size(size_t payload)
{
	return (size_t)padded(sizeof(struct llm_event) + payload);
}

size_t event_write(void *buf, size_t cap, uint32_t type, uint64_t request_id, uint64_t seq,
		   const struct event_part *parts, int n_parts)
{
	struct llm_event h = {.type = type, .request_id = request_id, .seq = seq};
	uint8_t *p = buf;
	size_t len = 0, size;

	for (int i = 0; i < n_parts; i++) {
		if (parts[i].len > LLM_EVENT_MAX)
			return 0;
		len += parts[i].len;
	}
	size = event_size(len);
	if (size > cap || size > LLM_EVENT_MAX)
		return 0;
	h.size = (uint32_t)size;
	h.length = (uint32_t)len;
	memcpy(p, &h, sizeof(h));
	p += sizeof(h);
	for (int i = 0; i < n_parts; i++) {
		if (parts[i].len)
			memcpy(p, parts[i].data, parts[i].len);
		p += parts[i].len;
	}
	memset(p, 0, size - sizeof(h) - len);
	return size;
}

int64_t event_parse(const void *buf, size_t len, struct llm_event *h, const void **payload)
{
	const uint8_t *p = buf;
	struct llm_text text;
	struct llm_done done;
	struct llm_error error;
	struct llm_status status;
	bool ok = false;

	if (len < sizeof(*h))
		return -EINVAL;
	memcpy(h, p, sizeof(*h));
	if (h->size > len || h->size > LLM_EVENT_MAX || h->size < sizeof(*h) ||
	    h->length > h->size - sizeof(*h) || h->size != event_size(h->length))
		return -EINVAL;
	p += sizeof(*h);
	switch (h->type) {
	case LLM_EVENT_STARTED:
		ok = h->length >= 8 && h->length <= LLM_RESUME_MAX;
		break;
	case LLM_EVENT_PROGRESS:
		ok = h->length >= sizeof(struct llm_progress);
		break;
	case LLM_EVENT_TEXT:
	case LLM_EVENT_DATA:
		if (h->length < sizeof(text))
			break;
		memcpy(&text, p, sizeof(text));
		ok = sizeof(text) + (uint64_t)text.n_ids * 4 + text.n_bytes == h->length;
		break;
	case LLM_EVENT_DONE:
		if (h->length < sizeof(done))
			break;
		memcpy(&done, p, sizeof(done));
		ok = sizeof(done) + (uint64_t)done.n_bytes == h->length;
		break;
	case LLM_EVENT_ERROR:
		if (h->length < sizeof(error))
			break;
		memcpy(&error, p, sizeof(error));
		ok = sizeof(error) + (uint64_t)error.n_bytes == h->length && error.error > 0;
		break;
	case LLM_EVENT_INFO:
		ok = h->length >= sizeof(struct llm_query);
		break;
	case LLM_EVENT_STATUS:
		if (h->length < sizeof(status))
			break;
		memcpy(&status, p, sizeof(status));
		ok = status.size >= sizeof(status) && status.size % 8 == 0 &&
		     status.session_size >= sizeof(struct llm_status_session) &&
		     status.size + (uint64_t)status.n_sessions * status.session_size == h->length;
		break;
	}
	if (!ok)
		return -EINVAL;
	*payload = p;
	return h->size;
}
