// SPDX-License-Identifier: MIT
/*
 * Events on their way to the client (server_internal.h): those that the channel has no room for are
 * held in their order, so that no piece of an answer is too large. Owns turn.held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llmdevd/server_internal.h"

/* Bytes of a piece in one event; the record's own structures and an id fit beside it. */
#define PART_MAX 30000

struct held_event {
	struct held_event *next;
	uint32_t type;
	size_t len;
	uint8_t bytes[];
};

static bool terminal(uint32_t type)
{
	return type == LLM_EVENT_DONE || type == LLM_EVENT_ERROR;
}

void turn_ended(struct turn *t)
{
	if (!t->ended)
		t->cl->n_turns--;
	t->ended = true;
}

static int hold(struct turn *t, uint32_t type, const struct event_part *parts, int n)
{
	struct held_event *h;
	size_t len = 0;

	for (int i = 0; i < n; i++)
		len += parts[i].len;
	h = malloc(sizeof(*h) + len);
	if (!h)
		return -ENOMEM;
	*h = (struct held_event){.type = type, .len = len};
	len = 0;
	for (int i = 0; i < n; i++) {
		if (parts[i].len)
			memcpy(h->bytes + len, parts[i].data, parts[i].len);
		len += parts[i].len;
	}
	if (!t->held)
		t->held_tail = &t->held;
	*t->held_tail = h;
	t->held_tail = &h->next;
	t->closing = terminal(type);
	if (!t->park_reader) {
		t->park_reader = true;
		t->parked_ns = now_ns();
		turn_park(t);
	}
	return 0;
}

int turn_post(struct turn *t, uint32_t type, const struct event_part *parts, int n)
{
	int rc;

	if (t->ended || t->closing || !t->cl->ch)
		return 0;
	if (t->held)
		return type == LLM_EVENT_PROGRESS ? 0 : hold(t, type, parts, n);
	rc = channel_post(t->cl->ch, type, t->id, t->seq, parts, n);
	if (rc == -EAGAIN)
		return type == LLM_EVENT_PROGRESS ? 0 : hold(t, type, parts, n);
	if (rc)
		return rc;
	t->seq++;
	if (terminal(type))
		turn_ended(t);
	return 0;
}

void turn_post_held(struct turn *t)
{
	while (t->held && t->cl->ch) {
		struct held_event *h = t->held;
		struct event_part part = {h->bytes, h->len};

		if (channel_post(t->cl->ch, h->type, t->id, t->seq, &part, 1))
			return;
		t->seq++;
		t->parked_ns = now_ns(); /* somebody reads */
		if (terminal(h->type))
			turn_ended(t);
		t->held = h->next;
		free(h);
	}
}

void turn_drop_held(struct turn *t)
{
	while (t->held) {
		struct held_event *h = t->held;

		t->held = h->next;
		free(h);
	}
	t->closing = false;
}

static int post_text(struct turn *t, uint32_t type, struct llm_text text, const void *s)
{
	struct event_part parts[] = {{&text, sizeof(text)}, {&t->token, 0}, {s, text.n_bytes}};
	int rc;

	if (t->token_owed) {
		text.n_ids = 1;
		parts[1].len = sizeof(t->token);
	}
	t->token_owed = false;
	rc = turn_post(t, type, parts, 3);
	if (rc) {
		turn_error(t, -rc,
			   rc == -ENOMEM ? "answer: no memory"
					 : "events: nobody reads them: read, then ask again");
		turn_end_early(t);
	}
	return rc;
}

/* At most PART_MAX bytes, no character in two. */
static uint32_t part_of(const char *s, size_t n)
{
	size_t cut = n < PART_MAX ? n : PART_MAX;

	while (cut < n && cut > PART_MAX - 4 && ((uint8_t)s[cut] & 0xc0) == 0x80)
		cut--;
	return (uint32_t)cut;
}

int turn_post_piece(struct turn *t, uint32_t type, uint32_t subtype, const char *s, size_t n)
{
	bool counts = type == LLM_EVENT_TEXT || subtype < LLM_DATA_ASIDE;
	bool whole = type == LLM_EVENT_DATA && subtype != LLM_DATA_REASONING;
	uint64_t had =
		counts && t->posted_bytes > t->folded_bytes ? t->posted_bytes - t->folded_bytes : 0;
	int rc = 0;

	if (counts)
		t->folded_bytes += n;
	if (n && had >= n)
		return 0;
	s += had;
	n -= had;
	do {
		struct llm_text text = {.n_bytes = part_of(s, n), .subtype = subtype};

		if (whole && text.n_bytes < n)
			text.flags = LLM_TEXT_F_MORE;
		rc = post_text(t, type, text, s);
		s += text.n_bytes;
		n -= text.n_bytes;
	} while (!rc && n && !t->ended);
	return rc;
}

int turn_post_result(struct turn *t, uint32_t subtype, const void *bytes, size_t n)
{
	const char *s = bytes;
	int rc = 0;

	while (!rc && n && !t->ended) {
		struct llm_text text = {.n_bytes = n < PART_MAX ? n : PART_MAX, .subtype = subtype};

		/* The same parts, whichever daemon makes them. */
		if (t->posted_parts)
			t->posted_parts--;
		else
			rc = post_text(t, LLM_EVENT_DATA, text, s);
		s += text.n_bytes;
		n -= text.n_bytes;
	}
	return rc;
}
