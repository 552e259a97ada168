// SPDX-License-Identifier: MIT
/* The turns of a session and what has arrived of their answers. Owns their memory; internal.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/internal.h"

struct turn *turn_add(struct llmdev *d, uint64_t id, const struct llm_msg_submit *body,
		      const char *payload, const char *principal)
{
	struct turn *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->id = id;
	t->body = *body;
	if (payload) {
		t->payload = malloc(body->payload_len);
		if (!t->payload) {
			free(t);
			return NULL;
		}
		memcpy(t->payload, payload, body->payload_len);
	}
	if (body->principal_len)
		memcpy(t->principal, principal, body->principal_len);
	*d->turns_tail = t;
	d->turns_tail = &t->next;
	d->n_pending++;
	return t;
}

struct turn *turn_find(struct llmdev *d, uint64_t id)
{
	struct turn *t = d->turns;

	while (t && (t->id != id || t->finished))
		t = t->next;
	return t;
}

static size_t turn_bytes(const struct turn *t)
{
	return sizeof(*t) + t->body.payload_len + t->body.n_ids * sizeof(int32_t);
}

static void turn_free(struct turn *t)
{
	free(t->payload);
	free(t->ids);
	free(t);
}

void turn_drop(struct llmdev *d, struct turn *t)
{
	struct turn **p = &d->turns;

	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	if (!t->next)
		d->turns_tail = p;
	if (t->finished)
		d->kept -= turn_bytes(t);
	else
		d->n_pending--;
	turn_free(t);
}

void turns_free(struct llmdev *d)
{
	while (d->turns)
		turn_drop(d, d->turns);
}

static void drop_finished(struct llmdev *d)
{
	for (struct turn *t = d->turns, *next; t; t = next) {
		next = t->next;
		if (t->finished)
			turn_drop(d, t);
	}
}

static void record_started(struct llmdev *d, struct turn *t, const struct llm_event *h,
			   const void *payload)
{
	struct llm_resume r = {0};

	memcpy(t->resume, payload, h->length);
	t->body.resume_len = h->length;
	memcpy(&r, payload, h->length < sizeof(r) ? h->length : sizeof(r));
	if (r.flags & LLM_RESUME_F_FRESH) {
		drop_finished(d);
		d->lost = false;
	}
}

static int record_text(struct turn *t, uint32_t type, const void *payload)
{
	const uint8_t *p = payload;
	struct llm_text text;

	memcpy(&text, p, sizeof(text));
	if (text.n_ids > t->ids_cap - t->body.n_ids) {
		size_t cap = (t->ids_cap + text.n_ids) * 2 + 64;
		int32_t *q = realloc(t->ids, cap * sizeof(*q));

		if (!q)
			return -ENOMEM;
		t->ids = q;
		t->ids_cap = cap;
	}
	if (text.n_ids)
		memcpy(t->ids + t->body.n_ids, p + sizeof(text), text.n_ids * sizeof(*t->ids));
	t->body.n_ids += text.n_ids;
	/* What does not follow from the ids is no part of what another daemon computes again. */
	if (type != LLM_EVENT_DATA || text.subtype < LLM_DATA_ASIDE)
		t->body.posted_bytes += text.n_bytes;
	return 0;
}

static void record_done(struct llmdev *d, struct turn *t, const void *payload)
{
	struct llm_resume r = {0};
	struct llm_done done;

	memcpy(&done, payload, sizeof(done));
	memcpy(&r, t->resume, t->body.resume_len < sizeof(r) ? t->body.resume_len : sizeof(r));
	/* What never started, or stands alone, is not needed to go on. */
	if (d->device || !t->body.resume_len || (r.flags & LLM_RESUME_F_ALONE)) {
		turn_drop(d, t);
		return;
	}
	t->finished = true;
	t->body.finish = done.finish;
	d->n_pending--;
	d->kept += turn_bytes(t);
	if (d->kept > d->o.transcript_max) {
		drop_finished(d);
		d->lost = true;
	}
}

int turn_record(struct llmdev *d, const struct llm_event *h, const void *payload)
{
	struct turn *t = turn_find(d, h->request_id);

	if (!t)
		return 0;
	if (h->seq != t->body.seq)
		return -EPROTO;
	t->body.seq++;
	switch (h->type) {
	case LLM_EVENT_STARTED:
		if (t->body.resume_len)
			return -EPROTO;
		record_started(d, t, h, payload);
		break;
	case LLM_EVENT_TEXT:
	case LLM_EVENT_DATA:
		if (record_text(t, h->type, payload))
			return -ENOMEM;
		break;
	case LLM_EVENT_DONE:
		record_done(d, t, payload);
		break;
	case LLM_EVENT_ERROR:
		/* A request that failed is no part of its conversation. */
		turn_drop(d, t);
		break;
	}
	return 1;
}
