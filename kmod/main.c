// SPDX-License-Identifier: GPL-2.0
/*
 * The module: parameters, /dev/llm-control, loading and unloading.
 *
 * llm_devices_lock guards the list of devices and is held throughout every command of the control
 * file; it is taken killably, so that a command never waits where it cannot be interrupted.
 */
#include "core.h"
#include "reclaim.h"
#include "region.h"
#include "trace.h"

#include <linux/cgroup.h>
#include <linux/file.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/uaccess.h>

DEFINE_MUTEX(llm_devices_lock);
LIST_HEAD(llm_devices);
atomic_t llm_live = ATOMIC_INIT(0);

/* ---- parameters ---------------------------------------------------------------------------------------- */

/* What a new device begins with; its own are in sysfs. */
#define LIMIT(name, what)                                                                          \
	module_param_named(name, llm_limits.name, uint, 0644);                                     \
	MODULE_PARM_DESC(name, what)

struct llm_limits llm_limits = {
	.max_file = 16,
	.max_principal = 64,
	.max_uid = 256,
	.max_device = 1024,
	.max_sessions = 1024,
	.max_uid_sessions = 512,
	.max_transcript = 16777216,
	.recovery_ms = 10000,
};
LIMIT(max_file, "unfinished requests of an open file (16)");
LIMIT(max_principal, "unfinished requests of a principal (64)");
LIMIT(max_uid, "unfinished requests of a uid (256)");
LIMIT(max_device, "unfinished requests of a device (1024)");
LIMIT(max_sessions, "open files of a device (1024)");
LIMIT(max_uid_sessions, "open files of a uid (512)");
LIMIT(max_transcript, "bytes that a session remembers for another backend (16777216)");
LIMIT(recovery_ms, "how long clients wait for a backend that died (10000)");
LIMIT(max_request_ms, "the longest that a request may take; 0: for ever (0)");

static int llm_admin_gid = -1;
module_param_named(admin_gid, llm_admin_gid, int, 0644);
MODULE_PARM_DESC(admin_gid, "members may set principals and priorities below 0, as CAP_SYS_ADMIN may (-1: none)");

unsigned int llm_max_events = 262144;

static int set_max_events(const char *val, const struct kernel_param *kp)
{
	unsigned int v;
	int rc = kstrtouint(val, 0, &v);

	if (rc)
		return rc;
	if (!is_power_of_2(v) || v < 2 * LLM_EVENT_MAX || v > 1 << 24)
		return -EINVAL;
	WRITE_ONCE(llm_max_events, v);
	return 0;
}

/* kvmalloc() warns of more than 2 GiB, which a user could then ask for. */
static int set_max_payload(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 1, 1 << 30);
}

static const struct kernel_param_ops max_payload_ops = {
	.set = set_max_payload,
	.get = param_get_uint,
};
unsigned int llm_max_payload = 4194304;
module_param_cb(max_payload, &max_payload_ops, &llm_max_payload, 0644);
MODULE_PARM_DESC(max_payload, "bytes of one request's payload, at most 1 GiB (4194304)");

static const struct kernel_param_ops max_events_ops = {
	.set = set_max_events,
	.get = param_get_uint,
};
module_param_cb(max_events, &max_events_ops, &llm_max_events, 0644);
MODULE_PARM_DESC(max_events, "event bytes held for a reader, a power of two from 65536 to 16777216 (262144)");

/* Called while the file is opened: current's credentials are the file's. */
bool llm_is_admin(const struct file *file)
{
	int gid = READ_ONCE(llm_admin_gid);

	return file_ns_capable(file, &init_user_ns, CAP_SYS_ADMIN) ||
	       (gid >= 0 && in_group_p(KGIDT_INIT(gid)));
}

void llm_who(struct llm_who *who, const struct cred *cred)
{
	who->uid = from_kuid_munged(&init_user_ns, cred->euid);
	who->gid = from_kgid_munged(&init_user_ns, cred->egid);
	who->pid = task_tgid_nr(current);
#ifdef CONFIG_CGROUPS
	rcu_read_lock();
	who->cgroup = cgroup_id(task_dfl_cgroup(current));
	rcu_read_unlock();
#endif
}

/* ---- the control file ------------------------------------------------------------------------------------ */

static int check_name(const u8 *name)
{
	size_t n = strnlen(name, LLM_NAME_MAX), i;

	if (!n || n == LLM_NAME_MAX || name[0] == '.')
		return -EINVAL;
	for (i = 0; i < n; i++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", name[i]))
			return -EINVAL;
	return memchr_inv(name + n, 0, LLM_NAME_MAX - n) ? -EINVAL : 0;
}

/* What people are shown: ends in NUL, has no control characters. */
static int check_text(const u8 *text)
{
	size_t n = strnlen(text, LLM_NAME_MAX), i;

	for (i = 0; i < n; i++)
		if (text[i] < ' ' || text[i] == 0x7f)
			return -EINVAL;
	return n == LLM_NAME_MAX ? -EINVAL : 0;
}

#define BACKEND_FEATURES (LLM_FEATURE_JSON | LLM_FEATURE_CHAT | LLM_FEATURE_EXACT)
#define MAX_CONTEXT	 (1 << 24)

static int check_backend(u64 fingerprint, u64 features, u32 context)
{
	if (features & ~BACKEND_FEATURES)
		return -EOPNOTSUPP;
	return fingerprint && context && context <= MAX_CONTEXT ? 0 : -EINVAL;
}

/* The caller learns the numbers before it gets the file. */
static long hand_out(void __user *user, const void *arg, size_t size, int fd, struct file *file)
{
	if (copy_to_user(user, arg, size)) {
		put_unused_fd(fd);
		fput(file);
		return -EFAULT;
	}
	fd_install(fd, file);
	return 0;
}

static long do_create(struct file *control, void *arg, void __user *user)
{
	struct llm_device_create *c = arg;
	struct llm_device_attach a = {.fingerprint = c->fingerprint, .features = c->features,
				      .context = c->context};
	struct llm_device *dev;
	struct file *file;
	int fd, rc;

	if (c->flags)
		return -EOPNOTSUPP;
	if (check_name(c->name) || check_text(c->model) || c->device_id || c->backend_fd ||
	    c->generation)
		return -EINVAL;
	rc = check_backend(c->fingerprint, c->features, c->context);
	if (rc)
		return rc;
	if (llm_device_find(c->name))
		return -EEXIST;
	rc = llm_device_create(&dev, c);
	if (rc)
		return rc;
	rc = llm_backend_attach(dev, &a, &fd, &file);
	if (rc) {
		llm_device_destroy(dev, true);
		return rc;
	}
	c->device_id = dev->number;
	c->backend_fd = fd;
	c->generation = dev->generation;
	rc = hand_out(user, c, sizeof(*c), fd, file);
	if (rc)
		llm_device_destroy(dev, true);
	return rc;
}

static long do_attach(struct file *control, void *arg, void __user *user)
{
	struct llm_device_attach *a = arg;
	struct llm_device *dev;
	struct file *file;
	int fd, rc;

	if (a->flags)
		return -EOPNOTSUPP;
	if (check_name(a->name) || a->device_id || a->backend_fd || a->generation)
		return -EINVAL;
	rc = check_backend(a->fingerprint, a->features, a->context);
	if (rc)
		return rc;
	dev = llm_device_find(a->name);
	if (!dev)
		return -ENOENT;
	if (READ_ONCE(dev->backend))
		return -EBUSY;
	rc = llm_backend_attach(dev, a, &fd, &file);
	if (rc)
		return rc;
	a->device_id = dev->number;
	a->backend_fd = fd;
	a->generation = dev->generation;
	return hand_out(user, a, sizeof(*a), fd, file);
}

static long do_destroy(struct file *control, void *arg, void __user *user)
{
	const struct llm_device_name *n = arg;
	struct llm_device *dev;

	if (n->flags)
		return -EOPNOTSUPP;
	if (check_name(n->name) || n->deadline_ns)
		return -EINVAL;
	dev = llm_device_find(n->name);
	if (!dev)
		return -ENOENT;
	return llm_device_destroy(dev, false);
}

static long do_quiesce(struct file *control, void *arg, void __user *user)
{
	const struct llm_device_name *n = arg;
	struct llm_device *dev;

	if (n->flags)
		return -EOPNOTSUPP;
	if (check_name(n->name))
		return -EINVAL;
	dev = llm_device_find(n->name);
	if (!dev)
		return -ENOENT;
	return llm_device_quiesce(dev, n->deadline_ns);
}

static long do_query(struct file *control, void *arg, void __user *user)
{
	struct llm_query *q = arg;

	if (q->flags)
		return -EOPNOTSUPP;
	llm_query_fill(q, LLM_FILE_CONTROL, NULL);
	q->features |= LLM_FEATURE_REGION;
	q->features |= LLM_FEATURE_RECLAIM;
	return 0;
}

static const struct llm_command commands[] = {
	{LLM_IOC_QUERY, sizeof(struct llm_query), 8, do_query},
	{LLM_IOC_DEVICE_CREATE, sizeof(struct llm_device_create), sizeof(struct llm_device_create),
	 do_create, .hands_out = true},
	{LLM_IOC_DEVICE_ATTACH, sizeof(struct llm_device_attach), sizeof(struct llm_device_attach),
	 do_attach, .hands_out = true},
	{LLM_IOC_DEVICE_DESTROY, sizeof(struct llm_device_name), sizeof(struct llm_device_name),
	 do_destroy, true},
	{LLM_IOC_DEVICE_QUIESCE, sizeof(struct llm_device_name), sizeof(struct llm_device_name),
	 do_quiesce, true},
};

static long control_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	long rc = llm_reclaim_ioctl(file, cmd, arg);

	if (rc == -ENOTTY)
		rc = llm_region_ioctl(file, cmd, arg);
	if (rc != -ENOTTY)
		return rc;
	if (mutex_lock_killable(&llm_devices_lock))
		return -EINTR;
	rc = llm_ioctl(file, cmd, arg, commands, ARRAY_SIZE(commands));
	mutex_unlock(&llm_devices_lock);
	return rc;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.open = llm_control_open,
	.release = llm_control_release,
	.poll = llm_control_poll,
	.unlocked_ioctl = control_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice control = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "llm-control",
	.fops = &control_fops,
	.mode = 0660,
};

/* ---- loading and unloading ----------------------------------------------------------------------------- */

static int __init llm_init(void)
{
	int rc = llm_reclaim_init();

	if (rc)
		return rc;
	rc = llm_region_init();
	if (rc)
		goto no_region;
	rc = misc_register(&control);
	if (!rc)
		return 0;
	llm_region_exit();
no_region:
	llm_reclaim_exit();
	return rc;
}

/* Nothing is open any more: open files hold the module. */
static void __exit llm_exit(void)
{
	struct llm_device *dev, *next;

	misc_deregister(&control);
	mutex_lock(&llm_devices_lock);
	list_for_each_entry_safe(dev, next, &llm_devices, all)
		llm_device_destroy(dev, true);
	mutex_unlock(&llm_devices_lock);
	llm_region_exit();
	llm_reclaim_exit();
	WARN_ON(atomic_read(&llm_live));
}

module_init(llm_init);
module_exit(llm_exit);
MODULE_DESCRIPTION("Language models as devices");
MODULE_LICENSE("GPL");
