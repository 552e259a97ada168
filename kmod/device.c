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

static unsigned long jiffies_until(u64 end)
{
	u64 now = ktime_get_ns();

	return end > now ? nsecs_to_jiffies(end - now) + 1 : 0;
}

/* ---- the wait for a backend -------------------------------------------------------------------------- */

/* How many requests are ended before others get the lock. */
#define AT_ONCE 64

void llm_device_end(struct llm_device *dev, bool begun, int error, const char *why)
{
	struct llm_request *rq;
	u64 id = 0, last;
	int n = 0;

	llm_lock(dev);
	last = dev->last_request;
	while ((rq = llm_request_find(dev, id + 1, true)) && rq->id <= last) {
		id = rq->id;
		if (begun && !rq->started)
			continue;
		llm_request_get(rq);
		llm_request_error(rq, error, why);
		if (!rq->told)
			llm_request_released(rq);
		else
			llm_note_send(dev, &rq->cancel, LLM_MSG_CANCEL);
		llm_request_put(rq);
		if (++n % AT_ONCE)
			continue;
		llm_unlock(dev);
		cond_resched();
		llm_lock(dev);
	}
	llm_unlock(dev);
}

static void recovery_over(struct work_struct *work)
{
	struct llm_device *dev = container_of(work, struct llm_device, recovery.work);
	struct llm_session *ses;
	bool over;

	llm_lock(dev);
	over = dev->state == LLM_DEV_WAITING;
	if (over)
		dev->state = LLM_DEV_DEAD;
	list_for_each_entry(ses, &dev->sessions, node) /* who polls is told EPOLLHUP */
		wake_up_interruptible(&ses->wait);
	llm_unlock(dev);
	if (over)
		llm_device_end(dev, false, EPIPE,
			       "backend: it has gone and none came back: start llmdevd, ask again");
	llm_device_put(dev);
}

void llm_device_adopted(struct llm_device *dev)
{
	disarm(dev, &dev->recovery);
}

void llm_device_orphan(struct llm_device *dev)
{
	struct rb_node *p, *next;
	struct llm_session *ses;
	struct llm_note *n, *next_note;

	lockdep_assert_held(&dev->lock);
	trace_llm_backend_detach(dev->backend);
	dev->backend = NULL;
	dev->state = dev->gone ? LLM_DEV_DEAD : LLM_DEV_WAITING;
	list_for_each_entry_safe(n, next_note, &dev->notes, node) {
		llm_note_drop(n);
		if (n->type == LLM_MSG_SESSION_CLOSE)
			llm_session_put(container_of(n, struct llm_session, close));
	}
	/* What had ended for its client is owed no answer any more. */
	for (p = rb_first(&dev->requests); p; p = next) {
		struct llm_request *rq = rb_entry(p, struct llm_request, by_id);

		next = rb_next(p);
		rq->told = false;
		if (rq->state != LLM_RQ_OVER && !rq->ses->closed)
			continue;
		llm_request_abandon(rq, ECANCELED, ""); /* nobody reads it */
	}
	list_for_each_entry(ses, &dev->sessions, node) {
		ses->known = false;
		ses->resume_owed = false;
		list_del_init(&ses->replay);
		ses->replay_at = NULL;
	}
	arm(dev, &dev->recovery, msecs_to_jiffies(READ_ONCE(dev->limits.recovery_ms)));
	wake_up_interruptible(&dev->backend_wait); /* who reads a file that was taken away */
}

/* ---- a planned change of backends ------------------------------------------------------------------------ */

int llm_device_quiesce(struct llm_device *dev, u64 deadline_ns)
{
	int rc = -EPIPE;

	llm_lock(dev);
	if (dev->backend) {
		rc = 0;
		dev->backend->quiesce = true;
		dev->backend->quiesce_ns = deadline_ns;
		wake_up_interruptible(&dev->backend_wait);
		if (deadline_ns)
			arm(dev, &dev->handover, jiffies_until(deadline_ns));
	}
	llm_unlock(dev);
	return rc;
}

/* It was told when: one that hangs, or has more to do, goes the way of one that dies. */
static void handover_due(struct work_struct *work)
{
	struct llm_device *dev = container_of(work, struct llm_device, handover.work);
	struct llm_backend *be;

	llm_lock(dev);
	be = dev->backend;
	if (be && be->quiesce_ns > ktime_get_ns()) { /* jiffies were behind when it was armed */
		arm(dev, &dev->handover, jiffies_until(be->quiesce_ns));
	} else if (be && be->quiesce_ns) {
		pr_notice("llm: llm%u: backend (pid %d): did not let go in time\n", dev->number, be->pid);
		llm_device_orphan(dev);
	}
	llm_unlock(dev);
	llm_device_put(dev);
}

/* ---- deadlines ----------------------------------------------------------------------------------------- */

void llm_device_rearm(struct llm_device *dev)
{
	struct rb_node *first = rb_first_cached(&dev->deadlines);

	if (first)
		arm(dev, &dev->timeout,
		    jiffies_until(rb_entry(first, struct llm_request, by_deadline)->sub.deadline_ns));
}

static void deadline_passed(struct work_struct *work)
{
	struct llm_device *dev = container_of(work, struct llm_device, timeout.work);
	u64 now = ktime_get_ns();
	struct rb_node *p;

	llm_lock(dev);
	while ((p = rb_first_cached(&dev->deadlines))) {
		struct llm_request *rq = rb_entry(p, struct llm_request, by_deadline);

		if (rq->sub.deadline_ns > now)
			break;
		llm_request_get(rq);
		rb_erase_cached(p, &dev->deadlines);
		rq->timed = false;
		llm_request_cancel(rq, ETIMEDOUT);
		llm_request_put(rq);
	}
	llm_device_rearm(dev);
	llm_unlock(dev);
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
		llm_lock(dev);                                                                     \
		n = sysfs_emit(buf, format "\n", __VA_ARGS__);                                     \
		llm_unlock(dev);                                                                   \
		return n;                                                                          \
	}                                                                                          \
	static DEVICE_ATTR_RO(field)

static const char *const state_name[LLM_DEV_STATES] = {
	[LLM_DEV_SERVED] = "served",
	[LLM_DEV_WAITING] = "waiting",
	[LLM_DEV_DEAD] = "dead",
};

SHOW(name, "%s", dev->name);
SHOW(model, "%s", dev->model);
SHOW(state, "%s", state_name[dev->state]);
SHOW(backend_pid, "%d", dev->backend ? dev->backend->pid : 0);
SHOW(generation, "%u", dev->generation);
SHOW(fingerprint, "%016llx", dev->fingerprint);
SHOW(sessions, "%u", dev->n_sessions);
SHOW(requests, "%u", dev->n_requests);
SHOW(queue, "%u", dev->n_queued);
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
		llm_device_end(of(d), false, ECANCELED, "request: aborted by the administrator");
	return n;
}
static DEVICE_ATTR_WO(abort);

/* A u32 of struct llm_limits. */
struct limit_attribute {
	struct device_attribute attr;
	size_t offset;
};

static u32 *limit_of(struct device *d, struct device_attribute *a)
{
	return (void *)&of(d)->limits + container_of(a, struct limit_attribute, attr)->offset;
}

static ssize_t limit_show(struct device *d, struct device_attribute *a, char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(*limit_of(d, a)));
}

static ssize_t limit_store(struct device *d, struct device_attribute *a, const char *buf, size_t n)
{
	u32 v;
	int rc = kstrtou32(buf, 0, &v);

	if (!rc)
		WRITE_ONCE(*limit_of(d, a), v);
	return rc ?: n;
}

#define LIMIT(field)                                                                               \
	static struct limit_attribute limit_##field = {                                            \
		__ATTR(field, 0644, limit_show, limit_store), offsetof(struct llm_limits, field)}
LIMIT(max_file);
LIMIT(max_principal);
LIMIT(max_uid);
LIMIT(max_device);
LIMIT(max_sessions);
LIMIT(max_uid_sessions);
LIMIT(max_transcript);
LIMIT(recovery_ms);
LIMIT(max_request_ms);

static struct attribute *llm_attrs[] = {
	&dev_attr_name.attr, &dev_attr_model.attr, &dev_attr_state.attr,
	&dev_attr_backend_pid.attr, &dev_attr_generation.attr, &dev_attr_fingerprint.attr,
	&dev_attr_sessions.attr, &dev_attr_requests.attr, &dev_attr_queue.attr,
	&dev_attr_submitted.attr, &dev_attr_refused.attr, &dev_attr_done.attr,
	&dev_attr_cancelled.attr, &dev_attr_failed.attr, &dev_attr_tokens.attr,
	&dev_attr_bytes.attr, &dev_attr_abort.attr,
	&limit_max_file.attr.attr, &limit_max_principal.attr.attr, &limit_max_uid.attr.attr,
	&limit_max_device.attr.attr, &limit_max_sessions.attr.attr,
	&limit_max_uid_sessions.attr.attr, &limit_max_transcript.attr.attr,
	&limit_recovery_ms.attr.attr, &limit_max_request_ms.attr.attr,
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
	INIT_LIST_HEAD(&dev->dead_requests);
	INIT_LIST_HEAD(&dev->dead_sessions);
	INIT_LIST_HEAD(&dev->sessions);
	INIT_LIST_HEAD(&dev->notes);
	dev->requests = RB_ROOT;
	dev->queue = dev->deadlines = RB_ROOT_CACHED;
	dev->accounts = RB_ROOT;
	INIT_DELAYED_WORK(&dev->recovery, recovery_over);
	INIT_DELAYED_WORK(&dev->timeout, deadline_passed);
	INIT_DELAYED_WORK(&dev->handover, handover_due);
	memcpy(dev->name, c->name, LLM_NAME_MAX);
	memcpy(dev->model, c->model, LLM_NAME_MAX);
	dev->fingerprint = c->fingerprint;
	dev->features = c->features;
	dev->context = c->context;
	dev->limits = llm_limits;
	if (c->recovery_ms)
		dev->limits.recovery_ms = c->recovery_ms;
	if (c->max_request_ms)
		dev->limits.max_request_ms = c->max_request_ms;
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
	bool busy;

	lockdep_assert_held(&llm_devices_lock);
	llm_lock(dev);
	busy = !force && (dev->backend || dev->n_sessions);
	if (!busy) {
		dev->gone = true;
		dev->state = LLM_DEV_DEAD;
	}
	llm_unlock(dev);
	if (busy)
		return -EBUSY;
	llm_device_end(dev, false, EPIPE, "device: it was destroyed");
	list_del(&dev->all);
	misc_deregister(&dev->misc);
	disarm(dev, &dev->recovery);
	disarm(dev, &dev->timeout);
	disarm(dev, &dev->handover);
	llm_device_put(dev);
	return 0;
}
