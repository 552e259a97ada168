/* SPDX-License-Identifier: MIT */
/*
 * Private to the loader: its state, shared by the plan and the threads (load.c), the copy into
 * place (load_copy.c) and the io_uring reader (load_ring.c).
 *
 * Life of a block: the reader takes a free slot, reads the block into it and hands the slot to the
 * workers' queue; a worker copies its bytes into place and frees the slot. Slots that are free when
 * there are no more blocks for them are retired, their memory returned to the system: bytes in
 * place, in slots and still to be read never sum up to more than the weights and a few blocks.
 *
 * Locks: loader.lock guards everything below it in the struct; blocks, sources, items and files
 * are constant while threads run. A slot belongs to whoever took it from the free list or queue.
 */
#ifndef LLMDEV_WEIGHTS_LOAD_INTERNAL_H
#define LLMDEV_WEIGHTS_LOAD_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>

#include "weights/load.h"

/* Offset, length and buffer of O_DIRECT reads; more than any block device asks for. */
#define READ_ALIGN 4096u

struct load_file {
	const char *path;
	int fd;                 /* -1: nothing of it is wanted */
	bool direct;            /* O_DIRECT; guarded by loader.lock once threads run */
	uint64_t size;
};

/* A tensor that at least one item wants. */
struct load_source {
	const struct tensor_info *t;
	int first_item, n_items;        /* in loader.items, which is sorted alike */
};

struct load_block {
	uint64_t offset;        /* in the file, a multiple of READ_ALIGN */
	uint32_t len;           /* asked for, a multiple of READ_ALIGN; may pass the file's end */
	uint32_t need;          /* bytes without which the block is short, <= len */
	int file;
	int first_source;       /* the first that has bytes in it */
};

struct load_slot {
	uint8_t *buf;
	int block;              /* being read or copied, -1: free */
	bool fixed;             /* registered with the ring; the reader's */
	bool retired;           /* its memory is given back: it must not be used again */
};

/* A group of rows whose bytes come from several blocks. */
struct load_carry {
	struct load_carry *next;
	int item;
	uint64_t group;
	size_t filled, size;
	uint8_t bytes[];
};

struct loader {
	const struct load_opts *o;
	const struct load_item **items;         /* sorted by file and offset */
	int n_items;
	struct load_source *sources;
	int n_sources;
	struct load_block *blocks;
	int n_blocks;
	struct load_file *files;
	int n_files;
	int block_bytes, depth, n_threads;
	uint64_t total;                         /* bytes of all blocks, for progress */

	uint8_t *pool;                          /* the slots' memory */
	size_t pool_bytes;
	struct load_slot *slots;
	int n_slots;

	pthread_mutex_t lock;
	pthread_cond_t filled;                  /* the queue or `finished` or `failed` changed */
	pthread_cond_t freed;                   /* a slot came back, or `failed` */
	int *queue, queue_head, queue_len;      /* slots to be copied, in order of arrival */
	int *free_slots, n_free;
	int n_retired;
	int next_block;                         /* the next one to be read */
	int n_copied;                           /* blocks in place */
	uint64_t bytes_read;
	struct load_carry *carries;
	bool finished;                          /* nothing more will be queued */
	int failed;                             /* the first error, -errno; its message in *e */
	struct err *e;
};

/* Records the first failure and wakes everybody. Not with the lock held. */
void loader_fail(struct loader *l, int code, const struct err *why);

/*
 * Gives a slot's memory back: more are free than blocks are left. Called with the lock held, which
 * it drops meanwhile. The caller has taken the slot from wherever it was.
 */
void loader_retire_slot(struct loader *l, int slot);

/*
 * Copies what blocks[block], read into buf, holds of every item to its place. *scratch is the
 * calling thread's, grown as needed and freed by it.
 */
int load_copy_block(struct loader *l, int block, const uint8_t *buf, uint8_t **scratch,
		    struct err *e);

/*
 * Reads the rest of blocks[block] into buf, of which `have` bytes are there; adds to
 * l->bytes_read. Drops O_DIRECT for the file if a read is refused with EINVAL.
 */
int load_read_block(struct loader *l, int block, uint8_t *buf, size_t have, struct err *e);

/* For buffered reads: the block's pages need not stay in the page cache. */
void load_forget_block(struct loader *l, int block);

/*
 * Reads all blocks through io_uring, in the calling thread, which must not hold the lock. Returns
 * 0 (also if a worker failed: see l->failed), a read error, or -ENOSYS before anything was read if
 * this system grants no ring.
 */
int load_ring_run(struct loader *l, struct err *e);

#endif
