// SPDX-License-Identifier: GPL-2.0
/*
 * Text mode: write() appends to the next prompt, the first read() after it submits the prompt, reads
 * give the answer, then 0 once, and 0 again until something new is written. The ring holds only
 * TEXT records with bytes in them (post.c leaves out the rest).
 *
 * session->draft is the prompt being written. Whoever has set `drafting` works on it without the
 * lock; others wait, or are told EAGAIN.
 */
#include "core.h"
#include "trace.h"

#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

/* The answer is over: read() gives 0. */
#define END_OF_ANSWER 1

struct taken {
	ssize_t bytes;
	int result; /* END_OF_ANSWER, -errno, or 0 */
};

/* Up to @len bytes of text at @offset of the ring's first record or of a terminal event. */
static size_t copy_text(struct llm_session *ses, struct llm_request *rq, u32 offset, u32 len,
			struct iov_iter *to)
{
	size_t n = min_t(size_t, len, iov_iter_count(to));

	n = rq ? copy_to_iter((u8 *)rq->terminal + offset, n, to) :
		 llm_ring_to_iter(&ses->ring, offset, n, to);
	ses->read_offset += n;
	return n;
}

static struct taken take_text(struct llm_session *ses, struct iov_iter *to)
{
	struct taken t = {0};

	while (iov_iter_count(to) && t.bytes < LLM_EVENT_MAX) {
		struct llm_request *rq = llm_session_terminal(ses);
		u32 at, len, n, type;
		u64 id;

		if (rq) {
			const struct llm_event *ev = rq->terminal;
			const struct llm_done *done = (const void *)(ev + 1);
			const struct llm_error *err = (const void *)(ev + 1);
			bool failed = ev->type == LLM_EVENT_ERROR;

			at = sizeof(*ev) + sizeof(*done);
			len = failed ? 0 : done->n_bytes;
			if (ses->read_offset == len) {
				if (t.bytes)
					break;
				t.result = failed ? -err->error : END_OF_ANSWER;
				trace_llm_request_read(rq, ev->type, 0);
				ses->read_offset = 0;
				llm_request_read(rq);
				break;
			}
			id = rq->id;
			type = ev->type;
		} else if (llm_ring_used(&ses->ring)) {
			struct {
				struct llm_event ev;
				struct llm_text text;
			} head;

			llm_ring_peek(&ses->ring, 0, &head, sizeof(head));
			at = sizeof(head) + head.text.n_ids * sizeof(s32);
			len = head.text.n_bytes;
			id = head.ev.request_id;
			type = head.ev.type;
		} else {
			break;
		}
		n = copy_text(ses, rq, at + ses->read_offset, len - ses->read_offset, to);
		if (n && trace_llm_request_read_enabled())
			llm_session_trace_read(ses, id, type, n);
		t.bytes += n;
		if (!rq && ses->read_offset == len) {
			struct llm_event ev;

			llm_ring_peek(&ses->ring, 0, &ev, sizeof(ev));
			ses->ring.tail += ev.size;
			ses->read_offset = 0;
		} else if (ses->read_offset < len && iov_iter_count(to)) {
			if (!t.bytes)
				t.result = -EFAULT;
			break;
		}
	}
	llm_session_drained(ses);
	return t;
}

/* Something to take, to submit, or an end to tell. */
static bool readable(struct llm_session *ses)
{
	return llm_ring_used(&ses->ring) || llm_session_terminal(ses) ||
	       (ses->draft_len && !ses->drafting && !ses->n_live);
}

static bool must_wait(struct llm_session *ses)
{
	bool wait;

	llm_lock(ses->dev);
	wait = !readable(ses) && (ses->n_live || ses->drafting);
	llm_unlock(ses->dev);
	return wait;
}

__poll_t llm_text_poll(struct llm_session *ses)
{
	__poll_t mask = readable(ses) ? EPOLLIN | EPOLLRDNORM : 0;

	if (ses->draft_len < READ_ONCE(llm_max_payload))
		mask |= EPOLLOUT | EPOLLWRNORM;
	return mask;
}

static bool draft_free(struct llm_session *ses)
{
	bool yes;

	llm_lock(ses->dev);
	yes = !ses->drafting;
	llm_unlock(ses->dev);
	return yes;
}

/* Keeps others from the draft; done_drafting() lets them in again. */
static int start_drafting(struct llm_session *ses, bool nonblock)
{
	for (;;) {
		bool mine;
		int rc;

		llm_lock(ses->dev);
		mine = !ses->drafting;
		ses->drafting = true;
		llm_unlock(ses->dev);
		if (mine)
			return 0;
		if (nonblock)
			return -EAGAIN;
		rc = wait_event_interruptible(ses->wait, draft_free(ses));
		if (rc)
			return rc;
	}
}

static void done_drafting(struct llm_session *ses, size_t len)
{
	llm_lock(ses->dev);
	ses->draft_len = len;
	ses->drafting = false;
	wake_up_interruptible(&ses->wait);
	llm_unlock(ses->dev);
}

/* The draft becomes a request. It stays as it is if that fails. */
static int submit_draft(struct llm_session *ses)
{
	struct llm_device *dev = ses->dev;
	struct llm_submit sub = {.size = sizeof(sub), .format = LLM_FMT_TEXT};
	void *copy;
	int rc;

	rc = llm_session_prepare(ses);
	if (rc)
		return rc;
	llm_lock(dev);
	if (!ses->draft_len || ses->drafting || ses->n_live) {
		llm_unlock(dev);
		return 0;
	}
	ses->drafting = true; /* nobody else touches the draft from here on */
	sub.payload_len = ses->draft_len;
	llm_unlock(dev);

	copy = kvmalloc(sub.payload_len, GFP_KERNEL_ACCOUNT);
	rc = copy ? 0 : -ENOMEM;
	if (!rc) {
		memcpy(copy, ses->draft, sub.payload_len);
		rc = llm_request_submit(ses, &sub, copy, NULL);
	}
	done_drafting(ses, rc ? ses->draft_len : 0);
	return rc;
}

ssize_t llm_text_read(struct kiocb *iocb, struct iov_iter *to)
{
	struct llm_session *ses = iocb->ki_filp->private_data;
	struct llm_device *dev = ses->dev;
	bool nonblock = iocb->ki_filp->f_flags & O_NONBLOCK || iocb->ki_flags & IOCB_NOWAIT;
	size_t page = min_t(size_t, iov_iter_count(to), PAGE_SIZE);
	unsigned int faults = 0;

	for (;;) {
		bool submit, busy;
		struct taken t;
		int rc;

		llm_lock(dev);
		pagefault_disable();
		t = take_text(ses, to);
		pagefault_enable();
		busy = ses->n_live || ses->drafting;
		submit = !busy && ses->draft_len;
		llm_unlock(dev);
		if (t.bytes)
			return t.bytes;
		if (t.result == -EFAULT) { /* the page is not there, or went away again */
			if (++faults > LLM_FAULTS_MAX ||
			    fault_in_iov_iter_writeable(to, page) == page)
				return -EFAULT;
			if (signal_pending(current))
				return -ERESTARTSYS;
			cond_resched();
			continue;
		}
		if (t.result == END_OF_ANSWER)
			return 0;
		if (t.result)
			return t.result;
		if (submit) {
			rc = submit_draft(ses);
			if (rc)
				return rc;
			if (!nonblock)
				continue;
		} else if (!busy) {
			return 0;
		}
		if (nonblock)
			return -EAGAIN;
		rc = wait_event_interruptible(ses->wait, !must_wait(ses));
		if (rc)
			return rc;
	}
}

/* Room for @need bytes. The draft is the caller's. */
static int grow(struct llm_session *ses, size_t need, size_t max)
{
	size_t cap = clamp_t(size_t, 2 * need, PAGE_SIZE, max_t(size_t, max, PAGE_SIZE));
	char *bigger;

	if (need <= ses->draft_cap)
		return 0;
	bigger = kvmalloc(cap, GFP_KERNEL_ACCOUNT);
	if (!bigger)
		return -ENOMEM;
	if (ses->draft_len)
		memcpy(bigger, ses->draft, ses->draft_len);
	kvfree(ses->draft);
	ses->draft = bigger;
	ses->draft_cap = cap;
	return 0;
}

ssize_t llm_text_write(struct kiocb *iocb, struct iov_iter *from)
{
	struct llm_session *ses = iocb->ki_filp->private_data;
	bool nonblock = iocb->ki_filp->f_flags & O_NONBLOCK || iocb->ki_flags & IOCB_NOWAIT;
	size_t len = iov_iter_count(from), max = READ_ONCE(llm_max_payload);
	char *text;
	ssize_t rc;

	if (!len)
		return 0;
	if (len > max)
		return -E2BIG;
	/* Copied before the draft is taken: a page that is long in coming keeps nobody waiting. */
	text = kvmalloc(len, GFP_KERNEL_ACCOUNT);
	if (!text)
		return -ENOMEM;
	rc = copy_from_iter(text, len, from) == len ? start_drafting(ses, nonblock) : -EFAULT;
	if (!rc) {
		size_t have = ses->draft_len;

		rc = have + len > max ? -E2BIG : grow(ses, have + len, max);
		if (!rc) {
			memcpy(ses->draft + have, text, len);
			have += len;
		}
		done_drafting(ses, have);
	}
	kvfree(text);
	return rc ?: len;
}
