// SPDX-License-Identifier: GPL-2.0
/*
 * How a structure of any size becomes one of ours: unknown commands ENOTTY, shorter structures read
 * as filled with zeroes, longer ones must be so (E2BIG). What the command wrote is copied back as far
 * as the caller's structure goes; that this can be done is seen before the command is run.
 */
#include "core.h"

#include <linux/minmax.h>
#include <linux/string.h>
#include <linux/uaccess.h>

/* The largest argument. */
#define ARG_MAX_SIZE sizeof(struct llm_query)

long llm_ioctl(struct file *file, unsigned int cmd, unsigned long arg,
	       const struct llm_command *table, size_t n)
{
	u8 buf[ARG_MAX_SIZE] __aligned(8);
	void __user *user = (void __user *)arg;
	const struct llm_command *c;
	u32 size;
	long rc;

	BUILD_BUG_ON(sizeof(struct llm_device_create) > ARG_MAX_SIZE);
	for (c = table; c < table + n && c->cmd != cmd; c++)
		;
	if (c == table + n)
		return -ENOTTY;
	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size < c->min_size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG; /* the tail is looked at byte by byte */
	rc = copy_struct_from_user(buf, c->size, user, size);
	if (rc)
		return rc;
	if (c->in_only)
		return c->run(file, buf, user);
	/* The size stays as the caller had it. What cannot be answered is not begun. */
	size = min(size, c->size) - sizeof(u32);
	if (copy_to_user(user + sizeof(u32), buf + sizeof(u32), size))
		return -EFAULT;
	rc = c->run(file, buf, user);
	if (!rc && !c->hands_out && copy_to_user(user + sizeof(u32), buf + sizeof(u32), size))
		rc = -EFAULT;
	return rc;
}

void llm_query_fill(struct llm_query *q, u32 file, struct llm_device *dev)
{
	const struct llm_limits *l = dev ? &dev->limits : &llm_limits;

	*q = (struct llm_query){
		.features = LLM_FEATURE_TEXT_MODE | LLM_FEATURE_EVENT_MODE | LLM_FEATURE_REPLAY |
			    LLM_FEATURE_TRANSCRIPT | LLM_FEATURE_PRINCIPAL | LLM_FEATURE_DEADLINE,
		.file = file,
		.max_payload = READ_ONCE(llm_max_payload),
		.max_event_bytes = READ_ONCE(llm_max_events),
		.max_transcript = READ_ONCE(l->max_transcript),
		.max_requests = READ_ONCE(l->max_file),
		.max_sessions = READ_ONCE(l->max_sessions),
	};
	q->max_message = llm_message_max(q->max_payload, 0);
	if (!dev)
		return;
	llm_lock(dev);
	q->features |= dev->features;
	q->generation = dev->backend ? dev->generation : 0;
	q->context = dev->context;
	q->max_message = max(dev->largest, llm_message_max(q->max_payload, dev->context));
	q->fingerprint = dev->fingerprint;
	memcpy(q->model, dev->model, LLM_NAME_MAX);
	llm_unlock(dev);
	memcpy(q->device, dev->name, LLM_NAME_MAX);
}
