/* SPDX-License-Identifier: MIT */
/*
 * The kernel's backend file behind transport.h: channels are the open files of /dev/llmN. A channel
 * that is failed answers its requests with that error until its file is closed.
 */
#ifndef LLMDEV_KDEV_H
#define LLMDEV_KDEV_H

#include "transport/transport.h"

struct kdev_opts {
	const char *name; /* the device's by-name label */
	const char *model; /* for people */
	uint64_t fingerprint; /* of what is served */
	uint64_t features; /* LLM_FEATURE_* that the daemon adds */
	uint32_t context; /* tokens */
};

/*
 * Become the backend of the device, which is created if there is none of that name. *q: what the
 * kernel says of it, its limits. -ENOENT: the module is not there; -EBUSY: another daemon serves the
 * device. The handler must outlive the transport.
 *
 * What becomes of the requests when it closes is the next backend's business: the kernel keeps them.
 */
int kdev_open(struct transport **out, const struct kdev_opts *o, const struct transport_handler *h,
	      void *ctx, struct llm_query *q, struct err *e);
/* Readable when transport_poll() has something to do. */
int kdev_fd(const struct transport *t);
/* N of /dev/llmN */
unsigned kdev_number(const struct transport *t);

#endif
