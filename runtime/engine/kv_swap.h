/* SPDX-License-Identifier: MIT */
/*
 * The swap file of the KV pool: a fixed number of slots, one page each, on disk.
 *
 * Owns the file and its offsets; which page lies in which slot, and which slot is reused when, is
 * kv.c's. The file has no name (O_TMPFILE, or unlinked at once), mode 0600: it is gone with the
 * process. It is opened O_DIRECT where the parts of a page are multiples of KV_SWAP_ALIGN, so that
 * the page cache does not keep a second copy; on a file system that refuses it, buffered.
 *
 * Transfers are synchronous. After the first one that fails the file is given up: close it.
 */
#ifndef LLMDEV_ENGINE_KV_SWAP_H
#define LLMDEV_ENGINE_KV_SWAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

#define KV_SWAP_ALIGN 4096      /* no disk asks for more */

struct kv_swap {
	int fd;                 /* -1: none, or given up */
	bool direct;
	int n_slots;            /* bound; 0 without a file */
	size_t stride;          /* bytes from slot to slot */
	char dir[128];          /* for messages, perhaps cut short */
	char error[256];        /* why it was given up, "" */
	uint64_t out, in;       /* pages written, read */
	uint64_t ns;            /* that took */
};

/*
 * A file in the first `dir_len` bytes of `dir` (0: all of it) of at most `bytes`, for pages of
 * `page_bytes`. Never more than max_slots. `aligned`: all parts of pages are.
 */
int kv_swap_open(struct kv_swap *s, const char *dir, size_t dir_len, uint64_t bytes,
		 size_t page_bytes, bool aligned, int max_slots, struct err *e);
/* Also gives the disk space back. Counters and `error` stay. Idempotent. */
void kv_swap_close(struct kv_swap *s);

/* A page is scattered over `n` parts in memory. False: failed, s->error says why. */
bool kv_swap_write(struct kv_swap *s, int slot, const struct iovec *part, int n);
bool kv_swap_read(struct kv_swap *s, int slot, const struct iovec *part, int n);

#endif
