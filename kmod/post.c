// SPDX-License-Identifier: GPL-2.0
/*
 * What a backend posts: each record is checked, then put into its reader's ring. Nothing is allocated
 * here: ring, id log and terminal slot were, by the client.
 */
#include "core.h"
#include "trace.h"

#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

/*
 * read() of text returns it. From 512 on errno means something to the kernel itself: ERESTARTSYS,
 * EIOCBQUEUED (for which the file layer has a BUG_ON()).
 */
#define ERRNO_END 512

static int check_text(const struct llm_event *ev, const struct llm_text *t)
{
	if (ev->length < sizeof(*t))
		return -EINVAL;
	if (t->flags & ~LLM_TEXT_F_MORE)
		return -EOPNOTSUPP;
	if (t->n_ids > LLM_EVENT_MAX / sizeof(s32) ||
	    ev->length != sizeof(*t) + t->n_ids * sizeof(s32) + (u64)t->n_bytes)
		return -EINVAL;
	if ((ev->type == LLM_EVENT_TEXT) != !t->subtype)
		return -EINVAL;
	return 0;
}

/* The record's own form, whatever it is about. */
static int check_record(const struct llm_event *ev)
{
	const void *payload = ev + 1;
	const struct llm_done *done = payload;
	const struct llm_error *err = payload;
	const struct llm_resume *resume = payload;
	u32 i;

	if (ev->flags)
		return -EOPNOTSUPP;
	if (ev->size != sizeof(*ev) + ALIGN((u64)ev->length, 8))
		return -EINVAL;
	for (i = ev->length; i < ev->size - sizeof(*ev); i++)
		if (((const u8 *)payload)[i])
			return -EINVAL;
	switch (ev->type) {
	case LLM_EVENT_STARTED:
		return ev->length >= 8 && ev->length <= LLM_RESUME_MAX &&
				       resume->size == ev->length ? 0 : -EINVAL;
	case LLM_EVENT_PROGRESS:
		return ev->length == sizeof(struct llm_progress) ? 0 : -EINVAL;
	case LLM_EVENT_TEXT:
	case LLM_EVENT_DATA:
		return check_text(ev, payload);
	case LLM_EVENT_DONE:
		return ev->length >= sizeof(*done) && ev->size <= LLM_TERMINAL_MAX &&
				       ev->length == sizeof(*done) + (u64)done->n_bytes &&
				       done->finish >= LLM_FINISH_STOP &&
				       done->finish <= LLM_FINISH_CANCELLED && !done->__reserved ?
			       0 : -EINVAL;
	case LLM_EVENT_ERROR:
		return ev->length >= sizeof(*err) && ev->size <= LLM_TERMINAL_MAX &&
				       ev->length == sizeof(*err) + (u64)err->n_bytes &&
				       err->error > 0 && err->error < ERRNO_END ? 0 : -EINVAL;
	}
	return -EOPNOTSUPP;
}

/* Whether the reader's mode shows it. */
static bool shown(const struct llm_session *ses, const struct llm_event *ev)
{
	const struct llm_text *t = (const void *)(ev + 1);

	return ses->mode == LLM_MODE_EVENT || (ev->type == LLM_EVENT_TEXT && t->n_bytes);
}

/* Whether the id log has room. It was made for the context that the device had at submission. */
static int check_ids(struct llm_request *rq, u32 n)
{
	if (!rq->started)
		return -EINVAL;
	if (n <= rq->max_ids - rq->n_ids)
		return 0;
	llm_request_error(rq, ENOSPC, "answer: longer than the device could remember: ask again");
	llm_note_send(rq->ses->dev, &rq->cancel, LLM_MSG_CANCEL);
	return -ECANCELED;
}

static void log_text(struct llm_request *rq, const struct llm_event *ev)
{
	const struct llm_text *t = (const void *)(ev + 1);
	struct llm_device *dev = rq->ses->dev;

	memcpy(rq->ids + rq->n_ids, t + 1, t->n_ids * sizeof(s32));
	rq->n_ids += t->n_ids;
	if (t->subtype < LLM_DATA_ASIDE)
		rq->posted_bytes += t->n_bytes;
	dev->count.ids += t->n_ids;
	dev->count.bytes += t->n_bytes;
	if (t->n_ids && !rq->first_ns) {
		rq->first_ns = ktime_get_ns();
		trace_llm_request_first_token(rq);
	}
	if (t->n_ids)
		trace_llm_request_tokens(rq, t->n_ids, t->n_bytes);
}

static int post_terminal(struct llm_request *rq, const struct llm_event *ev)
{
	struct llm_counters *c = &rq->ses->dev->count;

	llm_request_get(rq);
	if (rq->state != LLM_RQ_OVER) {
		if (ev->type == LLM_EVENT_ERROR)
			c->failed++;
		else if (((const struct llm_done *)(ev + 1))->finish == LLM_FINISH_CANCELLED)
			c->cancelled++;
		else
			c->done++;
		rq->seq++;
		llm_request_terminal(rq, ev, ev->size);
	}
	llm_request_released(rq);
	llm_request_put(rq);
	return 0;
}

static int post_one(struct llm_device *dev, const struct llm_event *ev)
{
	bool terminal = ev->type == LLM_EVENT_DONE || ev->type == LLM_EVENT_ERROR;
	struct llm_request *rq = llm_request_find(dev, ev->request_id, false);
	struct llm_session *ses;
	int rc;

	if (!rq || !rq->told)
		return -ENOENT;
	ses = rq->ses;
	if (rq->state == LLM_RQ_OVER || ses->closed)
		return terminal ? post_terminal(rq, ev) : -ECANCELED;
	if (ev->seq != rq->seq)
		return rq->refused && ev->seq > rq->seq ? -EAGAIN : -EINVAL;
	rq->refused = false;
	if (terminal)
		return post_terminal(rq, ev);
	if (ev->type == LLM_EVENT_STARTED && rq->started)
		return -EINVAL;
	if (ev->type == LLM_EVENT_TEXT || ev->type == LLM_EVENT_DATA) {
		rc = check_ids(rq, ((const struct llm_text *)(ev + 1))->n_ids);
		if (rc)
			return rc;
	}
	if (shown(ses, ev)) {
		if (llm_ring_room(&ses->ring) < ev->size) {
			ses->resume_owed = true;
			rq->refused = true;
			return -EAGAIN;
		}
		llm_ring_put(&ses->ring, ev, ev->size);
		wake_up_interruptible(&ses->wait);
	}
	if (ev->type == LLM_EVENT_STARTED) {
		rq->started = true;
		rq->resume_len = ev->length;
		memcpy(rq->resume, ev + 1, ev->length);
	} else if (ev->type != LLM_EVENT_PROGRESS) {
		log_text(rq, ev);
	}
	rq->seq++;
	return 0;
}

/* A backend that posts nonsense is told so each time, the log once. */
static void complain(struct llm_backend *be, const char *what)
{
	if (!be->complained)
		pr_notice("llm: llm%u: backend (pid %d): %s\n", be->dev->number, be->pid, what);
	be->complained = true;
}

long llm_backend_post(struct llm_backend *be, const struct llm_post *p)
{
	const u8 __user *from = u64_to_user_ptr(p->events);
	s32 __user *results = u64_to_user_ptr(p->results);
	u64 left = p->events_len;
	struct llm_event *ev = (void *)be->record;
	long rc = 0;
	u32 i;

	if (p->flags)
		return -EOPNOTSUPP;
	if (p->generation != be->generation) {
		complain(be, "posts for another generation");
		return -ESTALE;
	}
	if (!p->count || p->count > LLM_POST_MAX || left > (u64)LLM_POST_MAX * LLM_EVENT_MAX)
		return -EINVAL;
	if (mutex_lock_interruptible(&be->post_lock))
		return -ERESTARTSYS;
	for (i = 0; !rc && i < p->count; i++) {
		int result;

		if (left < sizeof(*ev) || copy_from_user(ev, from, sizeof(*ev))) {
			rc = left < sizeof(*ev) ? -EINVAL : -EFAULT;
			break;
		}
		if (ev->size < sizeof(*ev) || ev->size > LLM_EVENT_MAX || ev->size % 8 || ev->size > left) {
			rc = -EINVAL; /* where the next record begins is not known */
			break;
		}
		if (copy_from_user(ev + 1, from + sizeof(*ev), ev->size - sizeof(*ev))) {
			rc = -EFAULT;
			break;
		}
		from += ev->size;
		left -= ev->size;
		result = check_record(ev);
		if (!result) {
			llm_lock(be->dev);
			if (be->dev->backend == be)
				result = post_one(be->dev, ev);
			else
				rc = result = -ESTALE; /* it was taken away */
			llm_unlock(be->dev);
		}
		if (result == -EINVAL || result == -EOPNOTSUPP)
			complain(be, "posts a malformed event");
		if (put_user(result, results + i))
			rc = -EFAULT;
	}
	if (rc == -EINVAL)
		complain(be, "posts a malformed batch");
	mutex_unlock(&be->post_lock);
	return rc;
}
