// SPDX-License-Identifier: GPL-2.0
/*
 * How a structure of any size becomes one of ours: unknown commands ENOTTY, shorter structures read
 * as filled with zeroes, longer ones must be so (E2BIG). What the command wrote is copied back as far
 * as the caller's structure goes.
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
	rc = c->run(file, buf, user);
	/* The size stays as the caller had it. */
	if (!rc && size > sizeof(u32) &&
	    copy_to_user(user + sizeof(u32), buf + sizeof(u32),
			 min(size, c->size) - sizeof(u32)))
		rc = -EFAULT;
	return rc;
}

void llm_query_fill(struct llm_query *q, u32 file, struct llm_device *dev)
{
	*q = (struct llm_query){
		.features = LLM_FEATURE_TEXT_MODE | LLM_FEATURE_EVENT_MODE | LLM_FEATURE_REPLAY |
			    LLM_FEATURE_TRANSCRIPT | LLM_FEATURE_PRINCIPAL | LLM_FEATURE_DEADLINE,
		.file = file,
		.max_payload = READ_ONCE(llm_max_payload),
		.max_event_bytes = READ_ONCE(llm_max_events),
		.max_transcript = READ_ONCE(llm_max_transcript),
		.max_requests = READ_ONCE(llm_max_file),
		.max_sessions = READ_ONCE(llm_max_sessions),
	};
	q->max_message = sizeof(struct llm_msg) + sizeof(struct llm_msg_submit) + q->max_payload +
			 LLM_PRINCIPAL_MAX + LLM_RESUME_MAX + 32;
	if (!dev)
		return;
	spin_lock(&dev->lock);
	q->features |= dev->features;
	q->generation = dev->backend ? dev->generation : 0;
	q->context = dev->context;
	q->max_message += (u64)dev->context * sizeof(s32);
	q->fingerprint = dev->fingerprint;
	memcpy(q->model, dev->model, LLM_NAME_MAX);
	spin_unlock(&dev->lock);
	memcpy(q->device, dev->name, LLM_NAME_MAX);
}
