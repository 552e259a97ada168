// SPDX-License-Identifier: GPL-2.0
/*
 * A request's life: from its submission over the backend's hands to its end, and what the session
 * remembers of it. Everything under device->lock, except llm_request_submit().
 *
 * Charges (session, principal, uid, device) are taken at submission and given back when the backend has
 * let go of the request and its client has read its end: one that was cancelled, or whose client is
 * gone, counts until then, and a client that asks and never reads comes to its limit.
 *
 * A request ends for its client and for the backend apart. One that ended for its client goes at
 * once if the attached backend was not told of it, else when that posts its end or dies.
 */
#include "core.h"
#include "trace.h"

#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/xxhash.h>

/* ---- memory ---------------------------------------------------------------------------------------- */

static void request_free(struct llm_request *rq)
{
	kvfree(rq->payload);
	kvfree(rq->ids);
	kvfree(rq->terminal);
	kfree(rq);
	atomic_dec(&llm_live);
}

static void session_free(struct llm_session *ses)
{
	struct llm_device *dev = ses->dev;

	kvfree(ses->ring.buf);
	kvfree(ses->spare_ids);
	kvfree(ses->spare_terminal);
	kvfree(ses->draft);
	kfree(ses);
	atomic_dec(&llm_live);
	llm_device_put(dev);
}

void llm_unlock(struct llm_device *dev)
{
	struct llm_request *rq, *next_rq;
	struct llm_session *ses, *next;
	LIST_HEAD(requests);
	LIST_HEAD(sessions);

	list_splice_init(&dev->dead_requests, &requests);
	list_splice_init(&dev->dead_sessions, &sessions);
	spin_unlock(&dev->lock);
	list_for_each_entry_safe(rq, next_rq, &requests, turn)
		request_free(rq);
	list_for_each_entry_safe(ses, next, &sessions, node)
		session_free(ses);
}

/*
 * A session keeps what its last request needed for the next one: zeroing that much memory takes longer
 * than all the rest of a submission.
 */
static void spare_take(struct llm_session *ses, struct llm_request *rq)
{
	llm_lock(ses->dev);
	if (ses->spare_ids && ses->spare_cap >= rq->max_ids) {
		rq->ids = ses->spare_ids;
		rq->cap_ids = ses->spare_cap;
		rq->terminal = ses->spare_terminal;
		ses->spare_ids = ses->spare_terminal = NULL;
	}
	llm_unlock(ses->dev);
}

/* What is left in *@ids and *@terminal is to be freed. The lock is held. */
static void spare_give(struct llm_session *ses, s32 **ids, u32 cap, void **terminal)
{
	if (ses->closed || !*ids || !*terminal || (u64)cap * sizeof(s32) > ses->ring.size ||
	    (ses->spare_ids && ses->spare_cap >= cap))
		return;
	ses->spare_cap = cap;
	swap(ses->spare_ids, *ids);
	swap(ses->spare_terminal, *terminal);
}

/* Ids that the answer may have. */
static u32 most_ids(const struct llm_session *ses, const struct llm_submit *sub)
{
	u32 context = READ_ONCE(ses->dev->context);

	return sub->max_tokens && sub->max_tokens < context ? sub->max_tokens : context;
}

/* Takes the payload over; NULL: no memory. */
static struct llm_request *request_new(struct llm_session *ses, const struct llm_submit *sub,
				       void *payload, const u8 *principal)
{
	struct llm_request *rq = kzalloc(sizeof(*rq), GFP_KERNEL_ACCOUNT);

	if (!rq) {
		kvfree(payload);
		return NULL;
	}
	atomic_inc(&llm_live);
	kref_init(&rq->ref);
	rq->payload = payload;
	rq->sub = *sub;
	rq->ses = ses;
	rq->max_ids = most_ids(ses, sub);
	llm_transcript_trim(ses);
	spare_take(ses, rq);
	if (!rq->ids) {
		rq->cap_ids = rq->max_ids;
		rq->ids = kvmalloc_array(rq->cap_ids ?: 1, sizeof(s32), GFP_KERNEL_ACCOUNT);
		rq->terminal = kvmalloc(LLM_TERMINAL_MAX, GFP_KERNEL_ACCOUNT);
	}
	rq->reason = ECANCELED;
	INIT_LIST_HEAD(&rq->turn);
	INIT_LIST_HEAD(&rq->waiting);
	INIT_LIST_HEAD(&rq->fat);
	INIT_LIST_HEAD(&rq->terminal_node);
	INIT_LIST_HEAD(&rq->cancel.node);
	if (!rq->ids || !rq->terminal) {
		request_free(rq);
		return NULL;
	}
	if (sub->principal_len)
		memcpy(rq->principal, principal, sub->principal_len);
	llm_who(&rq->submitter, current_cred());
	return rq;
}

void llm_request_put(struct llm_request *rq)
{
	struct llm_session *ses = rq->ses;

	lockdep_assert_held(&ses->dev->lock);
	if (!refcount_dec_and_test(&rq->ref.refcount))
		return;
	spare_give(ses, &rq->ids, rq->cap_ids, &rq->terminal);
	list_add(&rq->turn, &ses->dev->dead_requests);
	llm_session_put(ses);
}

/* ---- order ----------------------------------------------------------------------------------------- */

/* Priority, then the earlier deadline, then arrival. */
static bool goes_first(const struct llm_request *a, const struct llm_request *b)
{
	u64 da = a->sub.deadline_ns ?: U64_MAX, db = b->sub.deadline_ns ?: U64_MAX;

	if (a->sub.priority != b->sub.priority)
		return a->sub.priority < b->sub.priority;
	return da != db ? da < db : a->id < b->id;
}

static bool queue_less(struct rb_node *a, const struct rb_node *b)
{
	return goes_first(rb_entry(a, struct llm_request, queue),
			  rb_entry(b, struct llm_request, queue));
}

static bool deadline_less(struct rb_node *a, const struct rb_node *b)
{
	const struct llm_request *ra = rb_entry(a, struct llm_request, by_deadline);
	const struct llm_request *rb = rb_entry(b, struct llm_request, by_deadline);

	return ra->sub.deadline_ns < rb->sub.deadline_ns;
}

/* The session's first undelivered request, if it has one, is what its device may hand out. */
static void queue_next(struct llm_session *ses)
{
	struct llm_request *rq =
		list_first_entry_or_null(&ses->waiting, struct llm_request, waiting);

	if (!rq || rq->queued)
		return;
	rq->queued = true;
	rb_add_cached(&rq->queue, &ses->dev->queue, queue_less);
	wake_up_interruptible(&ses->dev->backend_wait);
}

static void unqueue(struct llm_request *rq)
{
	if (rq->queued)
		rb_erase_cached(&rq->queue, &rq->ses->dev->queue);
	rq->queued = false;
}

static void set_state(struct llm_request *rq, u8 state)
{
	struct llm_device *dev = rq->ses->dev;

	dev->n_queued -= rq->state == LLM_RQ_QUEUED;
	rq->state = state;
	dev->n_queued += state == LLM_RQ_QUEUED;
}

static void stop_waiting(struct llm_request *rq)
{
	unqueue(rq);
	list_del_init(&rq->waiting);
}

static void untime(struct llm_request *rq)
{
	if (rq->timed)
		rb_erase_cached(&rq->by_deadline, &rq->ses->dev->deadlines);
	rq->timed = false;
}

struct llm_request *llm_request_find(struct llm_device *dev, u64 id, bool or_later)
{
	struct rb_node *p = dev->requests.rb_node;
	struct llm_request *later = NULL;

	while (p) {
		struct llm_request *rq = rb_entry(p, struct llm_request, by_id);

		if (rq->id == id)
			return rq;
		if (id < rq->id)
			later = rq;
		p = id < rq->id ? p->rb_left : p->rb_right;
	}
	return or_later ? later : NULL;
}

/* Ids only grow: the new one is the rightmost. */
static bool id_less(struct rb_node *a, const struct rb_node *b)
{
	return rb_entry(a, struct llm_request, by_id)->id <
	       rb_entry(b, struct llm_request, by_id)->id;
}

/* ---- submission ------------------------------------------------------------------------------------ */

/* Keys of accounts: a uid is itself, its requests without a label and labels have marks. */
#define KEY_UNLABELLED (1ULL << 62)
#define KEY_LABEL      (1ULL << 63)

static u64 principal_key(const struct llm_request *rq)
{
	if (!rq->sub.principal_len)
		return rq->ses->opener.uid | KEY_UNLABELLED;
	return xxh64(rq->principal, rq->sub.principal_len, 1) | KEY_LABEL;
}

static int charge(struct llm_request *rq, struct llm_account **spare)
{
	struct llm_session *ses = rq->ses;
	struct llm_device *dev = ses->dev;
	struct llm_account *acc;

	if (dev->state == LLM_DEV_DEAD)
		return -EPIPE;
	if (dev->n_requests >= READ_ONCE(dev->limits.max_device) ||
	    ses->n_requests >= READ_ONCE(dev->limits.max_file) ||
	    ses->account->requests >= READ_ONCE(dev->limits.max_uid))
		return -ENOSPC;
	acc = llm_account_get(dev, principal_key(rq), spare);
	if (acc->requests >= READ_ONCE(dev->limits.max_principal)) {
		llm_account_put(dev, acc);
		return -ENOSPC;
	}
	rq->charged = acc;
	acc->requests++;
	ses->account->requests++;
	dev->n_requests++;
	ses->n_requests++;
	return 0;
}

/* Once the backend has let go of it and nobody is to read of it any more. */
static void uncharge(struct llm_request *rq)
{
	struct llm_session *ses = rq->ses;
	struct llm_device *dev = ses->dev;

	if (rq->in_tree || !list_empty(&rq->terminal_node) || !rq->charged)
		return;
	dev->n_requests--;
	ses->n_requests--;
	rq->charged->requests--;
	llm_account_put(dev, rq->charged);
	ses->account->requests--;
	llm_account_put(dev, ses->account);
	rq->charged = NULL;
}

static void enqueue(struct llm_request *rq)
{
	struct llm_session *ses = rq->ses;
	struct llm_device *dev = ses->dev;

	dev->count.submitted++;
	dev->n_queued++;
	dev->largest = max(dev->largest, llm_message_max(rq->sub.payload_len, rq->max_ids));
	rq->id = ++dev->last_request;
	kref_get(&ses->ref);
	kref_get(&rq->ref); /* one for the turn list, one for the tree */
	list_add_tail(&rq->turn, &ses->turns);
	list_add_tail(&rq->waiting, &ses->waiting);
	ses->n_live++;
	rb_add(&rq->by_id, &dev->requests, id_less);
	rq->in_tree = true;
	if (rq->sub.deadline_ns) {
		rb_add_cached(&rq->by_deadline, &dev->deadlines, deadline_less);
		rq->timed = true;
		llm_device_rearm(dev);
	}
	trace_llm_request_queue(rq);
	queue_next(ses);
}

int llm_request_submit(struct llm_session *ses, struct llm_submit *sub, void *payload,
		       const u8 *principal)
{
	struct llm_device *dev = ses->dev;
	struct llm_request *rq = request_new(ses, sub, payload, principal);
	struct llm_account *spare = kmalloc(sizeof(*spare), GFP_KERNEL_ACCOUNT);
	u32 max_ms = READ_ONCE(dev->limits.max_request_ms);
	int rc = -ENOMEM;

	if (!rq || !spare)
		goto out;
	rq->submitted_ns = ktime_get_ns();
	if (max_ms) {
		u64 end = rq->submitted_ns + (u64)max_ms * NSEC_PER_MSEC;

		if (!rq->sub.deadline_ns || rq->sub.deadline_ns > end)
			rq->sub.deadline_ns = end;
	}
	llm_lock(dev);
	rc = charge(rq, &spare);
	if (rc) {
		dev->count.refused++;
	} else {
		enqueue(rq);
		sub->request_id = rq->id;
		rq = NULL;
	}
	llm_unlock(dev);
out:
	if (rq)
		request_free(rq);
	kfree(spare);
	return rc;
}

void llm_request_delivered(struct llm_request *rq)
{
	stop_waiting(rq);
	rq->told = true;
	set_state(rq, LLM_RQ_DELIVERED);
	trace_llm_request_deliver(rq);
	queue_next(rq->ses);
}

void llm_request_undelivered(struct llm_request *rq)
{
	struct llm_session *ses = rq->ses;
	struct llm_request *second;

	rq->told = false;
	llm_note_drop(&rq->cancel);
	if (rq->state == LLM_RQ_OVER)
		llm_request_released(rq);
	if (rq->state != LLM_RQ_DELIVERED)
		return;
	set_state(rq, LLM_RQ_QUEUED);
	second = list_first_entry_or_null(&ses->waiting, struct llm_request, waiting);
	if (second)
		unqueue(second);
	list_add(&rq->waiting, &ses->waiting);
	if (rq->cancelled) {
		rq->cancelled = false;
		llm_request_cancel(rq, rq->reason);
	} else {
		queue_next(ses);
	}
}

/* ---- ends ------------------------------------------------------------------------------------------ */

void llm_request_released(struct llm_request *rq)
{
	if (!rq->in_tree)
		return;
	rb_erase(&rq->by_id, &rq->ses->dev->requests);
	rq->in_tree = rq->told = false;
	stop_waiting(rq);
	untime(rq);
	llm_note_drop(&rq->cancel);
	uncharge(rq);
	llm_request_put(rq);
}

void llm_request_read(struct llm_request *rq)
{
	list_del_init(&rq->terminal_node);
	uncharge(rq);
	llm_request_put(rq);
}

/* What a finished turn counts in the transcript: no less than a page, so that there are few. */
static u64 turn_bytes(const struct llm_request *rq)
{
	u64 n = sizeof(*rq) + rq->sub.payload_len + (u64)rq->n_ids * sizeof(s32);

	return max_t(u64, n, 4096);
}

static void drop_turn(struct llm_request *rq)
{
	if (list_empty(&rq->turn))
		return;
	if (rq->ses->replay_at == rq)
		rq->ses->replay_at = list_is_last(&rq->turn, &rq->ses->turns) ?
					     NULL : list_next_entry(rq, turn);
	if (rq->kept)
		rq->ses->transcript -= turn_bytes(rq);
	rq->kept = false;
	list_del_init(&rq->fat);
	list_del_init(&rq->turn);
	llm_request_put(rq);
}

bool llm_transcript_forget(struct llm_session *ses, unsigned int most)
{
	struct llm_request *rq, *next;

	list_for_each_entry_safe(rq, next, &ses->turns, turn) {
		if (!rq->kept)
			continue;
		if (!most--)
			return false;
		drop_turn(rq);
	}
	return true;
}

/* A request that only its transcript holds, taken off the list of those to be trimmed; or NULL. */
static struct llm_request *take_fat(struct llm_session *ses)
{
	struct llm_request *rq;

	list_for_each_entry(rq, &ses->fat, fat) {
		if (kref_read(&rq->ref) != 1)
			continue;
		list_del_init(&rq->fat);
		llm_request_get(rq);
		return rq;
	}
	return NULL;
}

/*
 * A request is charged until its end was read: the list has at most as many as a file may have
 * unfinished, and those that ended since the last submission.
 */
void llm_transcript_trim(struct llm_session *ses)
{
	struct llm_device *dev = ses->dev;
	struct llm_request *rq;
	bool more = true;

	while (more) {
		void *terminal = NULL;
		s32 *ids;

		llm_lock(dev);
		rq = take_fat(ses);
		llm_unlock(dev);
		if (!rq)
			return;
		ids = kvmalloc_array(rq->n_ids ?: 1, sizeof(s32), GFP_KERNEL_ACCOUNT);
		if (ids) /* of a finished answer: they do not change */
			memcpy(ids, rq->ids, rq->n_ids * sizeof(s32));
		llm_lock(dev);
		if (ids && kref_read(&rq->ref) == 2) { /* nobody copies them */
			swap(ids, rq->ids);
			swap(terminal, rq->terminal);
			spare_give(ses, &ids, rq->cap_ids, &terminal);
			rq->cap_ids = rq->n_ids;
		} else {
			if (rq->kept)
				list_add_tail(&rq->fat, &ses->fat);
			more = false; /* next time */
		}
		llm_request_put(rq);
		llm_unlock(dev);
		kvfree(ids);
		kvfree(terminal);
	}
}

/* Makes the finished turn a part of the transcript, or drops it. */
static void transcript_add(struct llm_request *rq)
{
	const struct llm_resume *resume = (const void *)rq->resume;
	struct llm_session *ses = rq->ses;
	bool told = rq->resume_len >= offsetofend(struct llm_resume, flags);
	u64 bytes = turn_bytes(rq);

	if (!rq->started || ses->closed || (told && resume->flags & LLM_RESUME_F_ALONE)) {
		drop_turn(rq);
		return;
	}
	if (told && resume->flags & LLM_RESUME_F_FRESH) {
		llm_transcript_forget(ses, UINT_MAX);
		ses->lost = false;
	}
	if (ses->transcript + bytes > READ_ONCE(ses->dev->limits.max_transcript)) {
		llm_transcript_forget(ses, UINT_MAX);
		ses->lost = true;
		drop_turn(rq);
		return;
	}
	if (ses->lost) { /* what is missing makes the rest useless */
		drop_turn(rq);
		return;
	}
	rq->kept = true;
	list_add_tail(&rq->fat, &ses->fat);
	ses->transcript += bytes;
}

void llm_request_terminal(struct llm_request *rq, const void *record, u32 len)
{
	struct llm_session *ses = rq->ses;
	const struct llm_event *ev = record;

	if (rq->state == LLM_RQ_OVER)
		return;
	stop_waiting(rq);
	untime(rq);
	set_state(rq, LLM_RQ_OVER);
	ses->n_live--;
	if (ev->type == LLM_EVENT_DONE)
		rq->finish = ((const struct llm_done *)(ev + 1))->finish;
	trace_llm_request_end(rq, ev->type == LLM_EVENT_ERROR ?
				  ((const struct llm_error *)(ev + 1))->error : 0);
	if (!ses->closed) {
		memcpy(rq->terminal, record, len);
		rq->terminal_len = len;
		rq->terminal_pos = ses->ring.head;
		llm_request_get(rq);
		list_add_tail(&rq->terminal_node, &ses->terminals);
		wake_up_interruptible(&ses->wait);
	}
	if (ev->type == LLM_EVENT_DONE)
		transcript_add(rq);
	else
		drop_turn(rq);
	queue_next(ses);
}

void llm_request_error(struct llm_request *rq, int error, const char *sentence)
{
	struct {
		struct llm_event ev;
		struct llm_error err;
		char text[128];
	} r = {.err = {.error = error}};

	if (rq->state == LLM_RQ_OVER)
		return;
	strscpy(r.text, sentence, sizeof(r.text));
	r.err.n_bytes = strlen(r.text);
	r.ev.type = LLM_EVENT_ERROR;
	r.ev.length = sizeof(r.err) + r.err.n_bytes;
	r.ev.size = sizeof(r.ev) + ALIGN(r.ev.length, 8);
	r.ev.request_id = rq->id;
	r.ev.seq = rq->seq;
	/* For the backend it is not as if its client had had enough, whose answer so far would stay. */
	rq->reason = error == ECANCELED ? ECONNABORTED : error;
	if (error == ECANCELED)
		rq->ses->dev->count.cancelled++;
	else
		rq->ses->dev->count.failed++;
	llm_request_terminal(rq, &r, r.ev.size);
}

void llm_request_abandon(struct llm_request *rq, int error, const char *sentence)
{
	llm_request_get(rq);
	llm_request_error(rq, error, sentence);
	llm_request_released(rq);
	llm_request_put(rq);
}

/* No backend has it: nobody else ends it. */
static void end_cancelled(struct llm_request *rq)
{
	u64 now = ktime_get_ns();
	struct {
		struct llm_event ev;
		struct llm_done done;
	} r = {
		.ev = {.size = sizeof(r), .type = LLM_EVENT_DONE, .length = sizeof(r.done),
		       .request_id = rq->id, .seq = rq->seq},
		.done = {.finish = LLM_FINISH_CANCELLED, .submit_ns = rq->submitted_ns,
			 .start_ns = now, .first_ns = now, .end_ns = now},
	};

	rq->ses->dev->count.cancelled++;
	llm_request_terminal(rq, &r, sizeof(r));
}

void llm_request_cancel(struct llm_request *rq, int reason)
{
	if (rq->cancelled && (rq->reason != ECANCELED || reason == ECANCELED))
		return;
	rq->cancelled = true;
	rq->reason = reason;
	trace_llm_request_cancel(rq, reason);
	llm_request_get(rq);
	if (reason != ECANCELED) /* a daemon that hangs must not keep a client past its deadline */
		llm_request_error(rq, reason, "request: its deadline passed: ask again");
	else if (rq->state == LLM_RQ_QUEUED)
		end_cancelled(rq);
	if (rq->state == LLM_RQ_OVER && !rq->told)
		llm_request_released(rq);
	else
		llm_note_send(rq->ses->dev, &rq->cancel, LLM_MSG_CANCEL);
	llm_request_put(rq);
}
