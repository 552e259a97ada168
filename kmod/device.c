// SPDX-License-Identifier: GPL-2.0
/*
 * Devices: their nodes, their attributes, the wait for another backend, deadlines.
 *
 * A device is in llm_devices from its creation to its destruction, and freed with its last reference
 * (list, sessions, backend, a work item that is pending or runs).
 */
#include "core.h"
#include "trace.h"

#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>

/* ---- work items ------------------------------------------------------------------------------------ */

/*
 * The lock is held: nothing can drop the last reference in between. Nothing is left pending on a
 * device that is gone: the module could go before it.
 */
static void arm(struct llm_device *dev, struct delayed_work *work, unsigned long delay)
{
	if (dev->gone)
		return;
	if (!mod_delayed_work(system_wq, work, delay))
		llm_device_get(dev);
}

static void disarm(struct llm_device *dev, struct delayed_work *work)
{
	if (cancel_delayed_work_sync(work))
		llm_device_put(dev);
}

/* ---- the wait for a backend -------------------------------------------------------------------------- */

/* Ends every request for its client. Those that no backend has are over altogether. */
static void end_all(struct llm_device *dev, int error, const char *why, struct llm_dead *dead)
{
	struct rb_node *p, *next;

	for (p = rb_first(&dev->requests); p; p = next) {
		struct llm_request *rq = rb_entry(p, struct llm_request, by_id);

		next = rb_next(p);
		llm_request_get(rq);
		llm_request_error(rq, error, why, dead);
		if (!rq->told)
			llm_request_released(rq, dead);
		else
			llm_note_send(dev, &rq->cancel, LLM_MSG_CANCEL);
		llm_request_put(rq, dead);
	}
}

void llm_device_abort(struct llm_device *dev, int error, const char *why)
{
	LLM_DEAD(dead);

	spin_lock(&dev->lock);
	end_all(dev, error, why, &dead);
	spin_unlock(&dev->lock);
	llm_bury(&dead);
}

static void recovery_over(struct work_struct *work)
{
	struct llm_device *dev = container_of(work, struct llm_device, recovery.work);
	struct llm_session *ses;
	LLM_DEAD(dead);

	spin_lock(&dev->lock);
	if (dev->state == LLM_DEV_WAITING) {
		dev->state = LLM_DEV_DEAD;
		list_for_each_entry(ses, &dev->sessions, node) /* who polls is told EPOLLHUP */
			wake_up_interruptible(&ses->wait);
		end_all(dev, EPIPE, "backend: it has gone and none came back: start llmdevd, ask again",
			&dead);
	}
	spin_unlock(&dev->lock);
	llm_bury(&dead);
	llm_device_put(dev);
}

void llm_device_adopted(struct llm_device *dev)
{
	disarm(dev, &dev->recovery);
}

void llm_device_orphan(struct llm_device *dev)
{
	struct rb_node *p, *next;
	struct llm_session *ses, *next_ses;
	struct llm_note *n, *next_note;
	LLM_DEAD(dead);

	spin_lock(&dev->lock);
	trace_llm_backend_detach(dev->number, dev->generation);
	dev->backend = NULL;
	dev->state = dev->gone ? LLM_DEV_DEAD : LLM_DEV_WAITING;
	dev->quiesce = false;
	list_for_each_entry_safe(n, next_note, &dev->notes, node) {
		llm_note_drop(n);
		if (n->type == LLM_MSG_SESSION_CLOSE)
			llm_session_put(container_of(n, struct llm_session, close), &dead);
	}
	/* What had ended for its client is owed no answer any more. */
	for (p = rb_first(&dev->requests); p; p = next) {
		struct llm_request *rq = rb_entry(p, struct llm_request, by_id);

		next = rb_next(p);
		rq->told = false;
		if (rq->state != LLM_RQ_OVER && !rq->ses->closed)
			continue;
		llm_request_abandon(rq, ECANCELED, "", &dead); /* nobody reads it */
	}
	list_for_each_entry_safe(ses, next_ses, &dev->sessions, node) {
		ses->known = false;
		ses->resume_owed = false;
		if (!list_empty(&ses->replay))
			list_del_init(&ses->replay);
		ses->replay_at = NULL;
	}
	arm(dev, &dev->recovery, msecs_to_jiffies(dev->recovery_ms));
	spin_unlock(&dev->lock);
	llm_bury(&dead);
}

/* ---- deadlines ----------------------------------------------------------------------------------------- */

void llm_device_rearm(struct llm_device *dev)
{
	struct rb_node *first = rb_first_cached(&dev->deadlines);
	u64 now = ktime_get_ns(), end;

	if (!first)
		return;
	end = rb_entry(first, struct llm_request, by_deadline)->sub.deadline_ns;
	arm(dev, &dev->timeout, end > now ? nsecs_to_jiffies(end - now) + 1 : 0);
}

static void deadline_passed(struct work_struct *work)
{
	struct llm_device *dev = container_of(work, struct llm_device, timeout.work);
	u64 now = ktime_get_ns();
	struct rb_node *p;
	LLM_DEAD(dead);

	spin_lock(&dev->lock);
	while ((p = rb_first_cached(&dev->deadlines))) {
		struct llm_request *rq = rb_entry(p, struct llm_request, by_deadline);

		if (rq->sub.deadline_ns > now)
			break;
		llm_request_get(rq);
		rb_erase_cached(p, &dev->deadlines);
		rq->timed = false;
		llm_request_cancel(rq, ETIMEDOUT, &dead);
		llm_request_put(rq, &dead);
	}
	llm_device_rearm(dev);
	spin_unlock(&dev->lock);
	llm_bury(&dead);
	llm_device_put(dev);
}

/* ---- attributes ---------------------------------------------------------------------------------------- */

static struct llm_device *of(struct device *d)
{
	return container_of(dev_get_drvdata(d), struct llm_device, misc);
}

#define SHOW(field, format, ...)                                                                   \
	static ssize_t field##_show(struct device *d, struct device_attribute *a, char *buf)       \
	{                                                                                          \
		struct llm_device *dev = of(d);                                                    \
		ssize_t n;                                                                         \
												   \
		spin_lock(&dev->lock);                                                             \
		n = sysfs_emit(buf, format "\n", __VA_ARGS__);                                     \
		spin_unlock(&dev->lock);                                                           \
		return n;                                                                          \
	}                                                                                          \
	static DEVICE_ATTR_RO(field)

static const char *const state_name[LLM_DEV_STATES] = {
	[LLM_DEV_SERVED] = "served",
	[LLM_DEV_WAITING] = "waiting",
	[LLM_DEV_DEAD] = "dead",
};

static unsigned int queue_depth(const struct llm_device *dev)
{
	unsigned int n = 0;
	struct rb_node *p;

	for (p = rb_first(&dev->requests); p; p = rb_next(p))
		n += rb_entry(p, struct llm_request, by_id)->state == LLM_RQ_QUEUED;
	return n;
}

SHOW(name, "%s", dev->name);
SHOW(model, "%s", dev->model);
SHOW(state, "%s", state_name[dev->state]);
SHOW(backend_pid, "%d", dev->backend ? dev->backend->pid : 0);
SHOW(generation, "%u", dev->generation);
SHOW(fingerprint, "%016llx", dev->fingerprint);
SHOW(sessions, "%u", dev->n_sessions);
SHOW(requests, "%u", dev->n_requests);
SHOW(queue, "%u", queue_depth(dev));
SHOW(submitted, "%llu", dev->count.submitted);
SHOW(refused, "%llu", dev->count.refused);
SHOW(done, "%llu", dev->count.done);
SHOW(cancelled, "%llu", dev->count.cancelled);
SHOW(failed, "%llu", dev->count.failed);
SHOW(tokens, "%llu", dev->count.ids);
SHOW(bytes, "%llu", dev->count.bytes);

static ssize_t abort_store(struct device *d, struct device_attribute *a, const char *buf, size_t n)
{
	bool yes;
	int rc = kstrtobool(buf, &yes);

	if (rc)
		return rc;
	if (yes)
		llm_device_abort(of(d), ECANCELED, "request: aborted by the administrator");
	return n;
}
static DEVICE_ATTR_WO(abort);

static ssize_t recovery_ms_show(struct device *d, struct device_attribute *a, char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(of(d)->recovery_ms));
}

static ssize_t recovery_ms_store(struct device *d, struct device_attribute *a, const char *buf,
				 size_t n)
{
	unsigned int v;
	int rc = kstrtouint(buf, 0, &v);

	if (rc)
		return rc;
	WRITE_ONCE(of(d)->recovery_ms, v);
	return n;
}
static DEVICE_ATTR_RW(recovery_ms);

static struct attribute *llm_attrs[] = {
	&dev_attr_name.attr,	  &dev_attr_model.attr,	      &dev_attr_state.attr,
	&dev_attr_backend_pid.attr, &dev_attr_generation.attr, &dev_attr_fingerprint.attr,
	&dev_attr_sessions.attr,  &dev_attr_requests.attr,    &dev_attr_queue.attr,
	&dev_attr_submitted.attr, &dev_attr_refused.attr,     &dev_attr_done.attr,
	&dev_attr_cancelled.attr, &dev_attr_failed.attr,      &dev_attr_tokens.attr,
	&dev_attr_bytes.attr,	  &dev_attr_abort.attr,	      &dev_attr_recovery_ms.attr,
	NULL,
};
ATTRIBUTE_GROUPS(llm);

/* ---- creation and end ---------------------------------------------------------------------------------- */

static void device_free(struct kref *ref)
{
	struct llm_device *dev = container_of(ref, struct llm_device, ref);

	kfree(dev);
	atomic_dec(&llm_live);
}

struct llm_device *llm_device_get(struct llm_device *dev)
{
	kref_get(&dev->ref);
	return dev;
}

void llm_device_put(struct llm_device *dev)
{
	kref_put(&dev->ref, device_free);
}

struct llm_device *llm_device_find(const u8 *name)
{
	struct llm_device *dev;

	lockdep_assert_held(&llm_devices_lock);
	list_for_each_entry(dev, &llm_devices, all)
		if (!strncmp(dev->name, name, LLM_NAME_MAX))
			return dev;
	return NULL;
}

static u32 free_number(void)
{
	struct llm_device *dev;
	u32 n = 0;

again:
	list_for_each_entry(dev, &llm_devices, all)
		if (dev->number == n) {
			n++;
			goto again;
		}
	return n;
}

int llm_device_create(struct llm_device **out, const struct llm_device_create *c)
{
	struct llm_device *dev = kzalloc(sizeof(*dev), GFP_KERNEL_ACCOUNT);
	int rc;

	lockdep_assert_held(&llm_devices_lock);
	if (!dev)
		return -ENOMEM;
	atomic_inc(&llm_live);
	kref_init(&dev->ref);
	spin_lock_init(&dev->lock);
	init_waitqueue_head(&dev->backend_wait);
	INIT_LIST_HEAD(&dev->sessions);
	INIT_LIST_HEAD(&dev->notes);
	dev->requests = RB_ROOT;
	dev->queue = dev->deadlines = RB_ROOT_CACHED;
	dev->principals.root = RB_ROOT;
	INIT_DELAYED_WORK(&dev->recovery, recovery_over);
	INIT_DELAYED_WORK(&dev->timeout, deadline_passed);
	memcpy(dev->name, c->name, LLM_NAME_MAX);
	memcpy(dev->model, c->model, LLM_NAME_MAX);
	dev->fingerprint = c->fingerprint;
	dev->features = c->features;
	dev->context = c->context;
	dev->recovery_ms = c->recovery_ms ?: READ_ONCE(llm_recovery_ms);
	dev->max_request_ms = c->max_request_ms;
	dev->state = LLM_DEV_DEAD;
	dev->number = free_number();
	snprintf(dev->node_name, sizeof(dev->node_name), "llm%u", dev->number);
	dev->misc = (struct miscdevice){
		.minor = MISC_DYNAMIC_MINOR,
		.name = dev->node_name,
		.fops = &llm_session_fops,
		.groups = llm_groups,
		.mode = 0660,
	};
	rc = misc_register(&dev->misc);
	if (rc) {
		llm_device_put(dev);
		return rc;
	}
	list_add_tail(&dev->all, &llm_devices);
	*out = dev;
	return 0;
}

int llm_device_destroy(struct llm_device *dev, bool force)
{
	LLM_DEAD(dead);
	bool busy;

	lockdep_assert_held(&llm_devices_lock);
	spin_lock(&dev->lock);
	busy = !force && (dev->backend || dev->n_sessions);
	if (!busy) {
		dev->gone = true;
		dev->state = LLM_DEV_DEAD;
		end_all(dev, EPIPE, "device: it was destroyed", &dead);
	}
	spin_unlock(&dev->lock);
	llm_bury(&dead);
	if (busy)
		return -EBUSY;
	list_del(&dev->all);
	misc_deregister(&dev->misc);
	disarm(dev, &dev->recovery);
	disarm(dev, &dev->timeout);
	llm_device_put(dev);
	return 0;
}
