// SPDX-License-Identifier: GPL-2.0
/*
 * What a new backend is told before anything else: every open session with its transcript and its
 * live requests, then REPLAY_END. Under device->lock; session->replay_at walks over session->turns,
 * and whoever removes a turn moves it on (request.c).
 */
#include "core.h"
#include "trace.h"

/* A turn that the new backend must know: finished and remembered, or begun and not ended. */
static bool is_past(const struct llm_request *rq)
{
	return rq->kept || rq->state == LLM_RQ_DELIVERED;
}

static struct llm_request *next_past(struct llm_session *ses, struct llm_request *from)
{
	while (from && !is_past(from))
		from = list_is_last(&from->turn, &ses->turns) ? NULL : list_next_entry(from, turn);
	return from;
}

void llm_replay_begin(struct llm_backend *be)
{
	struct llm_session *ses;

	be->replay_end = true;
	list_for_each_entry(ses, &be->dev->sessions, node) {
		struct llm_request *first =
			list_first_entry_or_null(&ses->turns, struct llm_request, turn);

		ses->known = false;
		ses->replay_at = next_past(ses, first);
		if (!ses->closed && (ses->replay_at || ses->lost))
			list_add_tail(&ses->replay, &be->replay);
	}
}

bool llm_replay_next(struct llm_backend *be, struct llm_outgoing *m)
{
	struct llm_session *ses;

	while ((ses = list_first_entry_or_null(&be->replay, struct llm_session, replay))) {
		struct llm_request *rq = ses->replay_at = next_past(ses, ses->replay_at);

		if (!ses->known) {
			llm_outgoing_session(m, ses, LLM_MSG_SESSION_OPEN);
			m->head.flags |= LLM_MSG_F_REPLAY;
			return true;
		}
		if (rq) {
			struct llm_msg_submit *s = &m->body.submit;

			llm_outgoing_submit(m, rq);
			rq->told = rq->state == LLM_RQ_DELIVERED;
			if (rq->told)
				trace_llm_request_deliver(rq);
			m->head.flags = LLM_MSG_F_REPLAY | (rq->kept ? LLM_MSG_F_FINISHED : 0);
			s->resume_len = rq->resume_len;
			s->n_ids = rq->n_ids;
			s->posted_bytes = rq->posted_bytes;
			s->seq = rq->seq;
			s->finish = rq->kept ? rq->finish : 0;
			return true;
		}
		list_del_init(&ses->replay);
	}
	if (!be->replay_end)
		return false;
	m->head.type = LLM_MSG_REPLAY_END;
	return true;
}

void llm_replay_sent(struct llm_backend *be, const struct llm_outgoing *m)
{
	struct llm_request *rq = m->rq;

	if (m->head.type == LLM_MSG_REPLAY_END) {
		be->replay_end = false;
	} else if (m->head.type == LLM_MSG_SESSION_OPEN) {
		m->ses->known = true;
		if (m->ses->closed)
			llm_note_send(be->dev, &m->ses->close, LLM_MSG_SESSION_CLOSE);
	} else {
		struct llm_session *ses = rq->ses;

		if (ses->replay_at == rq)
			ses->replay_at = list_is_last(&rq->turn, &ses->turns) ?
						 NULL : list_next_entry(rq, turn);
		if (rq->state == LLM_RQ_DELIVERED && rq->cancelled)
			llm_note_send(be->dev, &rq->cancel, LLM_MSG_CANCEL);
	}
}
