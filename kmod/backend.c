// SPDX-License-Identifier: GPL-2.0
/*
 * The backend file: attaching, messages to the daemon, its end. What it posts is in post.c.
 *
 * A message is chosen under device->lock and copied without it; backend->read_lock keeps readers in
 * line. What was chosen and could not be copied is put back, unless the device was taken away
 * meanwhile: llm_device_orphan() has seen to everything then.
 */
#include "core.h"
#include "trace.h"

#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

void llm_note_send(struct llm_device *dev, struct llm_note *n, u32 type)
{
	lockdep_assert_held(&dev->lock);
	if (!dev->backend || !list_empty(&n->node))
		return;
	n->type = type;
	list_add_tail(&n->node, &dev->notes);
	/* A session must not go before its end was told. */
	if (type == LLM_MSG_SESSION_CLOSE)
		kref_get(&container_of(n, struct llm_session, close)->ref);
	wake_up_interruptible(&dev->backend_wait);
}

/* ---- messages --------------------------------------------------------------------------------------- */

/**
 * struct outgoing - a message as it is copied to the backend
 * @head: header
 * @body: what follows it
 * @body_len: its bytes
 * @rq: what SUBMIT and CANCEL are about, held; a SUBMIT's parts follow the body
 * @ses: what the others are about, held; or NULL
 * @past: it is of the past
 */
struct outgoing {
	struct llm_msg head;
	union {
		struct llm_msg_session session;
		struct llm_msg_submit submit;
		struct llm_msg_cancel cancel;
		struct llm_msg_quiesce quiesce;
	} body;
	u32 body_len;
	struct llm_request *rq;
	struct llm_session *ses;
	bool past;
};

static void about_session(struct outgoing *m, struct llm_session *ses, u32 type)
{
	m->head = (struct llm_msg){.type = type, .session_id = ses->id};
	m->ses = ses;
	kref_get(&ses->ref);
	if (type != LLM_MSG_SESSION_OPEN)
		return;
	m->body.session = (struct llm_msg_session){
		.uid = ses->opener.uid,
		.gid = ses->opener.gid,
		.pid = ses->opener.pid,
		.mode = ses->mode,
		.cgroup = ses->opener.cgroup,
	};
	m->body_len = sizeof(m->body.session);
	if (ses->lost)
		m->head.flags |= LLM_MSG_F_LOST;
}

static void make_submit(struct outgoing *m, struct llm_request *rq)
{
	m->head = (struct llm_msg){
		.type = LLM_MSG_SUBMIT, .session_id = rq->ses->id, .request_id = rq->id};
	m->body.submit = (struct llm_msg_submit){
		.format = rq->sub.format,
		.flags = rq->sub.flags,
		.payload_len = rq->sub.payload_len,
		.deadline_ns = rq->sub.deadline_ns,
		.max_tokens = rq->sub.max_tokens,
		.priority = rq->sub.priority,
		.principal_len = rq->sub.principal_len,
	};
	memcpy(m->body.submit.trace_id, rq->sub.trace_id, sizeof(rq->sub.trace_id));
	memcpy(m->body.submit.span_id, rq->sub.span_id, sizeof(rq->sub.span_id));
	m->body_len = sizeof(m->body.submit);
	m->rq = rq;
	llm_request_get(rq);
}

/* ---- the past ------------------------------------------------------------------------------------------ */

/*
 * What a new backend is told before anything else: every open session with its transcript and its
 * live requests, then REPLAY_END. session->replay_at walks over session->turns, and whoever removes
 * a turn moves it on (request.c).
 */

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

static void replay_begin(struct llm_backend *be)
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

static bool replay_next(struct llm_backend *be, struct outgoing *m)
{
	struct llm_session *ses;

	while ((ses = list_first_entry_or_null(&be->replay, struct llm_session, replay))) {
		struct llm_request *rq = ses->replay_at = next_past(ses, ses->replay_at);

		if (!ses->known) {
			about_session(m, ses, LLM_MSG_SESSION_OPEN);
			m->head.flags |= LLM_MSG_F_REPLAY;
			return true;
		}
		if (rq) {
			struct llm_msg_submit *s = &m->body.submit;

			make_submit(m, rq);
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

/* A request of the past was told. */
static void replay_sent(struct llm_backend *be, struct llm_request *rq)
{
	struct llm_session *ses = rq->ses;

	if (ses->replay_at == rq)
		ses->replay_at = list_is_last(&rq->turn, &ses->turns) ? NULL : list_next_entry(rq, turn);
	if (rq->state == LLM_RQ_DELIVERED && rq->cancelled)
		llm_note_send(be->dev, &rq->cancel, LLM_MSG_CANCEL);
}

/* ---- choosing a message -------------------------------------------------------------------------------- */

/* Takes the note off the list; what it is about is held by the message. */
static void take_note(struct outgoing *m, struct llm_note *n)
{
	struct llm_session *ses;
	struct llm_request *rq;

	llm_note_drop(n);
	if (n->type == LLM_MSG_CANCEL) {
		rq = container_of(n, struct llm_request, cancel);
		m->head = (struct llm_msg){.type = LLM_MSG_CANCEL, .session_id = rq->ses->id,
					   .request_id = rq->id};
		m->body.cancel.reason = rq->reason;
		m->body_len = sizeof(m->body.cancel);
		m->rq = rq;
		llm_request_get(rq);
	} else if (n->type == LLM_MSG_SESSION_CLOSE) {
		ses = container_of(n, struct llm_session, close);
		about_session(m, ses, n->type);
		llm_session_put(ses);
	} else {
		about_session(m, container_of(n, struct llm_session, resume), n->type);
	}
}

/*
 * The next message to *m. The past goes first, then notes; a session is opened before its first
 * SUBMIT. A request in a message counts as delivered from here on: it is cancelled by message.
 */
static bool choose(struct llm_backend *be, struct outgoing *m)
{
	struct llm_device *dev = be->dev;
	struct llm_request *rq;
	struct rb_node *p;

	memset(m, 0, sizeof(*m));
	if (replay_next(be, m)) {
		m->past = true;
		return true;
	}
	if (be->quiesce) {
		be->quiesce = false;
		m->head.type = LLM_MSG_QUIESCE;
		m->body.quiesce.deadline_ns = be->quiesce_ns;
		m->body_len = sizeof(m->body.quiesce);
		return true;
	}
	if (!list_empty(&dev->notes)) {
		take_note(m, list_first_entry(&dev->notes, struct llm_note, node));
		return true;
	}
	p = rb_first_cached(&dev->queue);
	if (!p)
		return false;
	rq = rb_entry(p, struct llm_request, queue);
	if (!rq->ses->known) {
		about_session(m, rq->ses, LLM_MSG_SESSION_OPEN);
	} else {
		make_submit(m, rq);
		llm_request_delivered(rq);
	}
	return true;
}

/* A message, or the end. */
static __poll_t readable(struct llm_backend *be)
{
	struct llm_device *dev = be->dev;
	__poll_t mask = 0;

	llm_lock(dev);
	if (dev->backend != be)
		mask = EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	else if (be->replay_end || !list_empty(&be->replay) || be->quiesce ||
		 !list_empty(&dev->notes) || rb_first_cached(&dev->queue))
		mask = EPOLLIN | EPOLLRDNORM;
	llm_unlock(dev);
	return mask;
}

/* ---- copying it ---------------------------------------------------------------------------------------- */

static u64 padded(u64 n)
{
	return ALIGN(n, 8);
}

static bool is_submit(const struct outgoing *m)
{
	return m->head.type == LLM_MSG_SUBMIT;
}

static u64 size_of(const struct outgoing *m)
{
	const struct llm_msg_submit *s = &m->body.submit;
	u64 n = sizeof(m->head) + m->body_len;

	if (is_submit(m))
		n += padded(s->payload_len) + padded(s->principal_len) + padded(s->resume_len) +
		     padded((u64)s->n_ids * sizeof(s32));
	return n;
}

static bool put(struct iov_iter *to, const void *data, u64 len)
{
	static const u8 zero[8];
	u64 pad = padded(len) - len;

	return copy_to_iter(data, len, to) == len && copy_to_iter(zero, pad, to) == pad;
}

/* Parts of the request that are read here do not change: ids only grow, and n_ids says how many. */
static int copy_message(const struct outgoing *m, struct iov_iter *to)
{
	const struct llm_msg_submit *s = &m->body.submit;
	bool ok = put(to, &m->head, sizeof(m->head)) && put(to, &m->body, m->body_len);

	if (ok && is_submit(m))
		ok = put(to, m->rq->payload, s->payload_len) &&
		     put(to, m->rq->principal, s->principal_len) &&
		     put(to, m->rq->resume, s->resume_len) &&
		     put(to, m->rq->ids, (u64)s->n_ids * sizeof(s32));
	return ok ? 0 : -EFAULT;
}

/* It was copied: it will not be sent again. */
static void sent(struct llm_backend *be, struct outgoing *m)
{
	if (m->head.type == LLM_MSG_SESSION_OPEN) {
		m->ses->known = true;
		if (m->ses->closed) /* meanwhile */
			llm_note_send(be->dev, &m->ses->close, LLM_MSG_SESSION_CLOSE);
	} else if (m->head.type == LLM_MSG_REPLAY_END) {
		be->replay_end = false;
	} else if (m->past) {
		replay_sent(be, m->rq);
	}
}

/* It was not: it is put back. */
static void unsent(struct llm_backend *be, struct outgoing *m)
{
	struct llm_device *dev = be->dev;

	if (m->past) { /* chosen again as long as it is of the past */
		if (m->rq && m->rq->told) {
			m->rq->told = false;
			if (m->rq->state == LLM_RQ_OVER || m->rq->ses->closed)
				llm_request_abandon(m->rq, ECANCELED, "");
		}
		return;
	}
	switch (m->head.type) {
	case LLM_MSG_QUIESCE:
		be->quiesce = true;
		break;
	case LLM_MSG_SUBMIT:
		llm_request_undelivered(m->rq);
		break;
	case LLM_MSG_CANCEL:
		if (m->rq->in_tree)
			llm_note_send(dev, &m->rq->cancel, LLM_MSG_CANCEL);
		break;
	case LLM_MSG_SESSION_CLOSE:
		llm_note_send(dev, &m->ses->close, LLM_MSG_SESSION_CLOSE);
		break;
	case LLM_MSG_RESUME:
		if (!m->ses->closed)
			llm_note_send(dev, &m->ses->resume, LLM_MSG_RESUME);
		break;
	}
}

/* One message. Its bytes; 0: the device was taken away; -EAGAIN: there is none. */
static ssize_t read_one(struct llm_backend *be, struct iov_iter *to)
{
	struct llm_device *dev = be->dev;
	struct outgoing m;
	bool any, mine;
	ssize_t rc;

	llm_lock(dev);
	mine = dev->backend == be;
	any = mine && choose(be, &m);
	llm_unlock(dev);
	if (!any)
		return mine ? -EAGAIN : 0;
	m.head.size = size_of(&m);
	m.head.generation = be->generation;
	rc = iov_iter_count(to) < m.head.size ? -EMSGSIZE : copy_message(&m, to);
	llm_lock(dev);
	if (dev->backend != be)
		;
	else if (rc)
		unsent(be, &m);
	else
		sent(be, &m);
	if (m.rq)
		llm_request_put(m.rq);
	if (m.ses)
		llm_session_put(m.ses);
	llm_unlock(dev);
	return rc ?: m.head.size;
}

static ssize_t llm_backend_read(struct kiocb *iocb, struct iov_iter *to)
{
	struct llm_backend *be = iocb->ki_filp->private_data;
	bool nonblock = iocb->ki_filp->f_flags & O_NONBLOCK || iocb->ki_flags & IOCB_NOWAIT;
	ssize_t n;

	for (;;) {
		if (nonblock) {
			if (!mutex_trylock(&be->read_lock))
				return -EAGAIN; /* another thread is just being given what there is */
		} else if (mutex_lock_interruptible(&be->read_lock)) {
			return -ERESTARTSYS;
		}
		n = read_one(be, to);
		mutex_unlock(&be->read_lock);
		if (n != -EAGAIN || nonblock)
			return n;
		n = wait_event_interruptible(be->dev->backend_wait, readable(be));
		if (n)
			return n;
	}
}

static __poll_t llm_backend_poll(struct file *file, poll_table *pt)
{
	struct llm_backend *be = file->private_data;

	poll_wait(file, &be->dev->backend_wait, pt);
	return readable(be);
}

/* ---- the file -------------------------------------------------------------------------------------------- */

static long do_query(struct file *file, void *arg, void __user *user)
{
	struct llm_backend *be = file->private_data;
	struct llm_query *q = arg;

	if (q->flags)
		return -EOPNOTSUPP;
	llm_query_fill(q, LLM_FILE_BACKEND, be->dev);
	return 0;
}

static long do_post(struct file *file, void *arg, void __user *user)
{
	return llm_backend_post(file->private_data, arg);
}

static const struct llm_command commands[] = {
	{LLM_IOC_QUERY, sizeof(struct llm_query), 8, do_query},
	{LLM_IOC_POST, sizeof(struct llm_post), sizeof(struct llm_post), do_post, true},
};

static long llm_backend_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return llm_ioctl(file, cmd, arg, commands, ARRAY_SIZE(commands));
}

static int llm_backend_release(struct inode *inode, struct file *file)
{
	struct llm_backend *be = file->private_data;
	struct llm_device *dev = be->dev;

	llm_lock(dev);
	if (dev->backend == be)
		llm_device_orphan(dev);
	llm_unlock(dev);
	llm_device_put(dev);
	kvfree(be->record);
	kfree(be);
	return 0;
}

static const struct file_operations llm_backend_fops = {
	.owner = THIS_MODULE,
	.release = llm_backend_release,
	.read_iter = llm_backend_read,
	.poll = llm_backend_poll,
	.unlocked_ioctl = llm_backend_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

/*
 * What another model began and said cannot be continued. One session at a time; nothing is added, for
 * there is no backend.
 */
static void forget_foreign(struct llm_device *dev)
{
	struct llm_session *ses, *next;
	bool forgotten;

	llm_device_end(dev, true, ESTALE,
		       "answer: it began with another model or another build: ask again");
	llm_lock(dev);
	ses = list_first_entry_or_null(&dev->sessions, struct llm_session, node);
	for (; ses; ses = next) {
		kref_get(&ses->ref); /* it stays in the list */
		if (ses->transcript)
			ses->lost = true;
		do { /* at least once: others want the lock, too */
			forgotten = llm_transcript_forget(ses, LLM_FORGET_AT_ONCE);
			llm_unlock(dev);
			cond_resched();
			llm_lock(dev);
		} while (!forgotten);
		next = list_is_last(&ses->node, &dev->sessions) ? NULL : list_next_entry(ses, node);
		llm_session_put(ses);
	}
	llm_unlock(dev);
}

int llm_backend_attach(struct llm_device *dev, const struct llm_device_attach *a, int *fd,
		       struct file **file)
{
	struct llm_backend *be = kzalloc(sizeof(*be), GFP_KERNEL_ACCOUNT);
	int rc = -ENOMEM;

	if (!be)
		return -ENOMEM;
	be->record = kvmalloc(LLM_EVENT_MAX, GFP_KERNEL_ACCOUNT);
	if (!be->record)
		goto out;
	be->pid = task_tgid_nr(current);
	be->dev = dev;
	mutex_init(&be->read_lock);
	mutex_init(&be->post_lock);
	INIT_LIST_HEAD(&be->replay);
	rc = *fd = get_unused_fd_flags(O_CLOEXEC);
	if (rc < 0)
		goto out;
	*file = anon_inode_getfile("[llm-backend]", &llm_backend_fops, be, O_RDWR);
	if (IS_ERR(*file)) {
		rc = PTR_ERR(*file);
		put_unused_fd(*fd);
		goto out;
	}
	stream_open(NULL, *file);
	llm_device_get(dev);
	llm_device_adopted(dev);
	if (dev->fingerprint != a->fingerprint) /* changes only here; llm_devices_lock is held */
		forget_foreign(dev);
	llm_lock(dev);
	be->generation = ++dev->generation;
	dev->fingerprint = a->fingerprint;
	dev->features = a->features;
	dev->context = a->context;
	dev->backend = be;
	dev->state = LLM_DEV_SERVED;
	replay_begin(be);
	trace_llm_backend_attach(be);
	llm_unlock(dev);
	return 0;
out:
	kvfree(be->record);
	kfree(be);
	return rc;
}
