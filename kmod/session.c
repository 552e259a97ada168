// SPDX-License-Identifier: GPL-2.0
/*
 * Open files of a device: opening and closing, event mode, what both modes share. See text.c for
 * the other one.
 */
#include "core.h"
#include "trace.h"

#include <linux/mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

/* ---- lifetime ---------------------------------------------------------------------------------------- */

/* Takes a place on the device; -ENODEV, -ENOSPC. */
static int join(struct llm_session *ses, struct llm_account **spare)
{
	struct llm_device *dev = ses->dev;
	struct llm_account *acc;

	if (dev->gone)
		return -ENODEV;
	if (dev->n_sessions >= READ_ONCE(dev->limits.max_sessions))
		return -ENOSPC;
	acc = llm_account_get(dev, ses->opener.uid, spare);
	if (acc->sessions >= READ_ONCE(dev->limits.max_uid_sessions)) {
		llm_account_put(dev, acc);
		return -ENOSPC;
	}
	ses->account = acc;
	acc->sessions++;
	dev->n_sessions++;
	ses->id = ++dev->last_session;
	list_add_tail(&ses->node, &dev->sessions);
	trace_llm_session_open(ses);
	return 0;
}

static int llm_session_open(struct inode *inode, struct file *file)
{
	struct llm_device *dev = container_of(file->private_data, struct llm_device, misc);
	struct llm_session *ses = kzalloc(sizeof(*ses), GFP_KERNEL_ACCOUNT);
	struct llm_account *spare = kmalloc(sizeof(*spare), GFP_KERNEL_ACCOUNT);
	int rc = -ENOMEM;

	if (!ses || !spare)
		goto out;
	kref_init(&ses->ref);
	ses->dev = dev;
	llm_who(&ses->opener, file->f_cred);
	ses->admin = llm_is_admin(file);
	init_waitqueue_head(&ses->wait);
	INIT_LIST_HEAD(&ses->turns);
	INIT_LIST_HEAD(&ses->waiting);
	INIT_LIST_HEAD(&ses->fat);
	INIT_LIST_HEAD(&ses->terminals);
	INIT_LIST_HEAD(&ses->replay);
	INIT_LIST_HEAD(&ses->close.node);
	INIT_LIST_HEAD(&ses->resume.node);
	llm_lock(dev);
	rc = join(ses, &spare);
	if (!rc) {
		llm_device_get(dev);
		atomic_inc(&llm_live);
		file->private_data = ses;
		ses = NULL;
	}
	llm_unlock(dev);
out:
	kfree(spare);
	kfree(ses);
	return rc ?: stream_open(inode, file);
}

/* The first request that is not a finished turn, or NULL. Those are few, and behind the finished ones. */
static struct llm_request *first_live(struct llm_session *ses)
{
	unsigned int left = ses->n_live;
	struct llm_request *rq;

	list_for_each_entry_reverse(rq, &ses->turns, turn) {
		if (!left)
			break;
		if (!rq->kept && !--left)
			return rq;
	}
	return NULL;
}

/* Nobody is left to read: what no backend has is gone at once, the rest is cancelled. */
static int llm_session_release(struct inode *inode, struct file *file)
{
	struct llm_session *ses = file->private_data;
	struct llm_device *dev = ses->dev;
	struct llm_request *rq, *next;

	llm_lock(dev);
	trace_llm_session_close(ses);
	ses->closed = true;
	dev->n_sessions--;
	while (!list_empty(&ses->terminals))
		llm_request_read(list_first_entry(&ses->terminals, struct llm_request, terminal_node));
	for (rq = first_live(ses); rq; rq = next) {
		next = list_is_last(&rq->turn, &ses->turns) ? NULL : list_next_entry(rq, turn);
		if (rq->kept)
			continue;
		if (rq->state == LLM_RQ_QUEUED || rq->told) {
			llm_request_cancel(rq, ECANCELED);
			continue;
		}
		/* An earlier backend had it; this one, if there is one, never hears of it. */
		llm_request_abandon(rq, ECANCELED, "");
	}
	llm_note_drop(&ses->resume);
	list_del_init(&ses->replay);
	if (ses->known && dev->backend)
		llm_note_send(dev, &ses->close, LLM_MSG_SESSION_CLOSE);
	ses->account->sessions--;
	llm_account_put(dev, ses->account);
	/* Nothing becomes a turn of it any more, and nobody is told of those that there are. */
	while (!llm_transcript_forget(ses, LLM_FORGET_AT_ONCE)) {
		llm_unlock(dev);
		cond_resched();
		llm_lock(dev);
	}
	llm_session_put(ses);
	llm_unlock(dev);
	return 0;
}

void llm_session_put(struct llm_session *ses)
{
	lockdep_assert_held(&ses->dev->lock);
	if (!refcount_dec_and_test(&ses->ref.refcount))
		return;
	list_move(&ses->node, &ses->dev->dead_sessions);
}

int llm_session_prepare(struct llm_session *ses)
{
	u32 size = READ_ONCE(llm_max_events);
	u8 *buf;

	if (READ_ONCE(ses->ring.buf))
		return 0;
	buf = kvmalloc(size, GFP_KERNEL_ACCOUNT);
	if (!buf)
		return -ENOMEM;
	llm_lock(ses->dev);
	if (!ses->ring.buf) {
		ses->ring.size = size;
		WRITE_ONCE(ses->ring.buf, buf);
		buf = NULL;
	}
	llm_unlock(ses->dev);
	kvfree(buf);
	return 0;
}

/* ---- what a reader sees next ----------------------------------------------------------------------- */

struct llm_request *llm_session_terminal(struct llm_session *ses)
{
	struct llm_request *rq =
		list_first_entry_or_null(&ses->terminals, struct llm_request, terminal_node);

	return rq && rq->terminal_pos <= ses->ring.tail ? rq : NULL;
}

void llm_session_drained(struct llm_session *ses)
{
	if (!ses->resume_owed || llm_ring_used(&ses->ring) > ses->ring.size / 2)
		return;
	ses->resume_owed = false;
	llm_note_send(ses->dev, &ses->resume, LLM_MSG_RESUME);
}

/* Only called where somebody traces: what is not in the tree any more is among few. */
void llm_session_trace_read(struct llm_session *ses, u64 id, u32 type, u32 bytes)
{
	struct llm_request *rq = llm_request_find(ses->dev, id, false), *r;

	list_for_each_entry(r, &ses->terminals, terminal_node)
		if (r->id == id)
			rq = r;
	if (rq)
		trace_llm_request_read(rq, type, bytes);
}

/* ---- event mode ---------------------------------------------------------------------------------------- */

/*
 * Copies whole records while they fit, but not many at once: the lock is held. Bytes read, 0: there
 * is nothing; -EMSGSIZE: not even the first fits; -EFAULT: none could be copied.
 */
static ssize_t take_records(struct llm_session *ses, struct iov_iter *to)
{
	ssize_t done = 0, rc = 0;

	while (iov_iter_count(to) && done < LLM_EVENT_MAX) {
		struct llm_request *rq = llm_session_terminal(ses);
		struct llm_event head;
		size_t n;

		if (rq) {
			head.size = rq->terminal_len;
		} else if (llm_ring_used(&ses->ring)) {
			llm_ring_peek(&ses->ring, 0, &head, sizeof(head));
		} else {
			break;
		}
		if (head.size > iov_iter_count(to))
			rc = -EMSGSIZE;
		if (rc)
			break;
		n = rq ? copy_to_iter(rq->terminal, head.size, to) :
			 llm_ring_to_iter(&ses->ring, 0, head.size, to);
		if (n < head.size) {
			iov_iter_revert(to, n);
			rc = -EFAULT;
			break;
		}
		if (rq) {
			trace_llm_request_read(rq, ((struct llm_event *)rq->terminal)->type, head.size);
			llm_request_read(rq);
		} else {
			ses->ring.tail += head.size;
			if (trace_llm_request_read_enabled())
				llm_session_trace_read(ses, head.request_id, head.type, head.size);
		}
		done += head.size;
	}
	llm_session_drained(ses);
	return done ?: rc;
}

static bool has_records(struct llm_session *ses)
{
	bool yes;

	llm_lock(ses->dev);
	yes = llm_ring_used(&ses->ring) || llm_session_terminal(ses);
	llm_unlock(ses->dev);
	return yes;
}

static ssize_t read_events(struct kiocb *iocb, struct iov_iter *to)
{
	struct llm_session *ses = iocb->ki_filp->private_data;
	bool nonblock = iocb->ki_filp->f_flags & O_NONBLOCK || iocb->ki_flags & IOCB_NOWAIT;
	size_t want = min_t(size_t, iov_iter_count(to), LLM_EVENT_MAX), bad = 0;
	unsigned int faults = 0;
	ssize_t n;

	for (;;) {
		llm_lock(ses->dev);
		pagefault_disable();
		n = take_records(ses, to);
		pagefault_enable();
		llm_unlock(ses->dev);
		/* Pages are brought in without the lock, if need be; one that vanished again is tried
		 * again, but not for ever: some faults cannot be had in advance (tags of memory).
		 * What was copied is taken away only if all of it arrived. */
		if (n == -EFAULT) {
			if (bad || ++faults > LLM_FAULTS_MAX)
				return -EFAULT;
			if (signal_pending(current))
				return -ERESTARTSYS;
			bad = fault_in_iov_iter_writeable(to, want);
			if (bad == want)
				return -EFAULT;
			cond_resched();
			continue;
		}
		if (n)
			return n;
		if (nonblock)
			return -EAGAIN;
		n = wait_event_interruptible(ses->wait, has_records(ses));
		if (n)
			return n;
	}
}

/* ---- files --------------------------------------------------------------------------------------------- */

/* The mode is settled by the first use. */
static u32 use(struct llm_session *ses)
{
	u32 mode;

	llm_lock(ses->dev);
	ses->used = true;
	mode = ses->mode;
	llm_unlock(ses->dev);
	return mode;
}

static ssize_t llm_session_read(struct kiocb *iocb, struct iov_iter *to)
{
	struct llm_session *ses = iocb->ki_filp->private_data;

	if (!iov_iter_count(to))
		return 0;
	return use(ses) == LLM_MODE_TEXT ? llm_text_read(iocb, to) : read_events(iocb, to);
}

static ssize_t llm_session_write(struct kiocb *iocb, struct iov_iter *from)
{
	struct llm_session *ses = iocb->ki_filp->private_data;

	return use(ses) == LLM_MODE_TEXT ? llm_text_write(iocb, from) : -EINVAL;
}

static __poll_t llm_session_poll(struct file *file, poll_table *pt)
{
	struct llm_session *ses = file->private_data;
	__poll_t mask = 0;

	poll_wait(file, &ses->wait, pt);
	llm_lock(ses->dev);
	if (ses->mode == LLM_MODE_TEXT)
		mask = llm_text_poll(ses);
	else if (llm_ring_used(&ses->ring) || llm_session_terminal(ses))
		mask = EPOLLIN | EPOLLRDNORM;
	if (ses->dev->state == LLM_DEV_DEAD)
		mask |= EPOLLHUP;
	llm_unlock(ses->dev);
	return mask;
}

static long do_query(struct file *file, void *arg, void __user *user)
{
	struct llm_session *ses = file->private_data;
	struct llm_query *q = arg;

	if (q->flags)
		return -EOPNOTSUPP;
	llm_query_fill(q, LLM_FILE_SESSION, ses->dev);
	return 0;
}

static long do_set_mode(struct file *file, void *arg, void __user *user)
{
	struct llm_session *ses = file->private_data;
	const struct llm_set_mode *m = arg;
	long rc = 0;

	if (m->flags || m->mode > LLM_MODE_EVENT)
		return -EOPNOTSUPP;
	if (m->__reserved)
		return -EINVAL;
	llm_lock(ses->dev);
	if (ses->used)
		rc = -EBUSY;
	else
		ses->mode = m->mode;
	llm_unlock(ses->dev);
	return rc;
}

static int check_submit(const struct llm_session *ses, const struct llm_submit *s)
{
	if (s->flags & ~LLM_SUBMIT_F_ALL)
		return -EOPNOTSUPP;
	if (s->format != LLM_FMT_TEXT && s->format != LLM_FMT_JSON)
		return -EOPNOTSUPP;
	if (s->request_id || !s->payload_len || s->priority < -20 || s->priority > 19 ||
	    s->principal_len > LLM_PRINCIPAL_MAX || (!s->principal_len && s->principal))
		return -EINVAL;
	if (s->payload_len > READ_ONCE(llm_max_payload))
		return -E2BIG;
	if ((s->principal_len || s->priority < 0) && !ses->admin)
		return -EPERM;
	if (s->deadline_ns && s->deadline_ns <= ktime_get_ns())
		return -ETIMEDOUT;
	return 0;
}

static long do_submit(struct file *file, void *arg, void __user *user)
{
	struct llm_session *ses = file->private_data;
	struct llm_submit *s = arg;
	u8 principal[LLM_PRINCIPAL_MAX];
	void *payload;
	int rc;

	if (use(ses) != LLM_MODE_EVENT)
		return -EINVAL;
	rc = check_submit(ses, s);
	if (rc)
		return rc;
	if (copy_from_user(principal, u64_to_user_ptr(s->principal), s->principal_len))
		return -EFAULT;
	rc = llm_session_prepare(ses);
	if (rc)
		return rc;
	payload = kvmalloc(s->payload_len, GFP_KERNEL_ACCOUNT);
	if (!payload)
		return -ENOMEM;
	if (copy_from_user(payload, u64_to_user_ptr(s->payload), s->payload_len)) {
		kvfree(payload);
		return -EFAULT;
	}
	return llm_request_submit(ses, s, payload, principal);
}

static long do_cancel(struct file *file, void *arg, void __user *user)
{
	struct llm_session *ses = file->private_data;
	const struct llm_cancel *c = arg;
	struct llm_request *rq;
	long rc = -ENOENT;

	if (c->flags)
		return -EOPNOTSUPP;
	llm_lock(ses->dev);
	rq = llm_request_find(ses->dev, c->request_id, false);
	if (rq && rq->ses == ses && rq->state != LLM_RQ_OVER) {
		llm_request_cancel(rq, ECANCELED);
		rc = 0;
	}
	llm_unlock(ses->dev);
	return rc;
}

static const struct llm_command commands[] = {
	{LLM_IOC_QUERY, sizeof(struct llm_query), 8, do_query},
	{LLM_IOC_SET_MODE, sizeof(struct llm_set_mode), 16, do_set_mode, true},
	{LLM_IOC_SUBMIT, sizeof(struct llm_submit), 88, do_submit},
	{LLM_IOC_CANCEL, sizeof(struct llm_cancel), 16, do_cancel, true},
};

static long llm_session_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return llm_ioctl(file, cmd, arg, commands, ARRAY_SIZE(commands));
}

static void llm_session_fdinfo(struct seq_file *m, struct file *file)
{
	struct llm_session *ses = file->private_data;
	struct llm_device *dev = ses->dev;

	llm_lock(dev);
	seq_printf(m, "llm-device:\t%s\n", dev->node_name);
	seq_printf(m, "llm-session:\t%llu\n", ses->id);
	seq_printf(m, "llm-mode:\t%s\n", ses->mode == LLM_MODE_TEXT ? "text" : "event");
	seq_printf(m, "llm-requests:\t%u\n", ses->n_requests);
	seq_printf(m, "llm-unread:\t%u\n", llm_ring_used(&ses->ring));
	seq_printf(m, "llm-transcript:\t%llu\n", ses->transcript);
	seq_printf(m, "llm-lost:\t%u\n", ses->lost);
	llm_unlock(dev);
}

const struct file_operations llm_session_fops = {
	.owner = THIS_MODULE,
	.open = llm_session_open,
	.release = llm_session_release,
	.read_iter = llm_session_read,
	.write_iter = llm_session_write,
	.poll = llm_session_poll,
	.unlocked_ioctl = llm_session_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
	.show_fdinfo = llm_session_fdinfo,
};
