// SPDX-License-Identifier: GPL-2.0
/*
 * Event records that wait for their reader: bytes in a circle. Under device->lock; the memory is
 * the session's, allocated on its opener's account.
 */
#include "core.h"

#include <linux/minmax.h>
#include <linux/string.h>
#include <linux/uio.h>

void llm_ring_put(struct llm_ring *r, const void *data, u32 len)
{
	u32 at = r->head & (r->size - 1);
	u32 n = min(len, r->size - at);

	memcpy(r->buf + at, data, n);
	memcpy(r->buf, (const u8 *)data + n, len - n);
	r->head += len;
}

void llm_ring_peek(const struct llm_ring *r, u32 offset, void *data, u32 len)
{
	u32 at = (r->tail + offset) & (r->size - 1);
	u32 n = min(len, r->size - at);

	memcpy(data, r->buf + at, n);
	memcpy((u8 *)data + n, r->buf, len - n);
}

size_t llm_ring_to_iter(const struct llm_ring *r, u32 offset, u32 len, struct iov_iter *to)
{
	u32 at = (r->tail + offset) & (r->size - 1);
	u32 n = min(len, r->size - at);
	size_t done = copy_to_iter(r->buf + at, n, to);

	if (done == n && len > n)
		done += copy_to_iter(r->buf, len - n, to);
	return done;
}
