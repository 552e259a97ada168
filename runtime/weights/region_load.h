/* SPDX-License-Identifier: MIT */
/*
 * Where a model's weights come from: a region that an earlier process left, or a place to load them
 * to, which is such a region for the next one, or anonymous memory.
 *
 * A region is named weights:LABEL:IDENTITY:STAMP. Nothing of the weights is read to find it:
 *
 *   identity  sum of the checkpoint's header (every tensor's name, type, shape, file, offset), of its
 *             files' sizes, and of how the tensors lie here: place, shape, backend, instruction set,
 *             and what the backend's packing makes of a fixed pattern
 *   stamp     sum of each file's device, inode, size, mtime and ctime. A file cannot be written to
 *             without its ctime changing, and nobody can set that: as long as the stamp is the same,
 *             so are the bytes. Anything else (a copy, a touch) means that the weights are read
 *             again.
 *
 * What is found must be sealed, belong to this user or root, and have an index whose sum is right and
 * in which every tensor lies where the model expects it. Anything else is destroyed and replaced.
 */
#ifndef LLMDEV_WEIGHTS_REGION_LOAD_H
#define LLMDEV_WEIGHTS_REGION_LOAD_H

#include <stdbool.h>

#include "base/err.h"
#include "weights/checkpoint.h"
#include "weights/load.h"
#include "weights/placement.h"
#include "weights/region_index.h"

#define WEIGHTS_REGION_PREFIX "weights:"
/* WEIGHTS_AUTO: what is smaller is read again in less time than a region is worth. */
#define WEIGHTS_AUTO_MIN ((size_t)256 << 20)

enum weights_mode {
	WEIGHTS_ANON,   /* anonymous memory */
	WEIGHTS_AUTO,   /* a region where one can be had and is worth it */
	WEIGHTS_REGION, /* a region, or an error */
};

struct weights_opts {
	enum weights_mode mode;
	bool verify;            /* what is found: compare the sum of the data too */
	int node;               /* NUMA node, -1: any */
	const char *label;      /* the model's name, for people */
	/*
	 * Memory for `bytes` of weights is about to be taken: makes room, or refuses with -ENOMEM and
	 * the sum. Not called where they are found. May be NULL
	 */
	int (*admit)(void *ctx, uint64_t bytes, struct err *e);
	void *admit_ctx;
	/* one line on where the weights are and why; may be NULL */
	void (*note)(void *ctx, const char *line);
	void *note_ctx;
	/* while it sums up or waits for another process; may be NULL */
	void (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *progress_ctx;
};

/* From weights_place() to weights_free_job(). The first members are the caller's. */
struct weights_job {
	const struct checkpoint *c;
	const struct weights_opts *o;
	const char *backend, *isa;
	const struct load_item *items;  /* dst is not looked at */
	const size_t *offsets;          /* of their first bytes in the data */
	int n_items;
	size_t bytes;                   /* of the data */
	uint64_t sample;                /* out: region_data_sample(), found or computed */
	/* private */
	struct region_index_plan plan;
	char name[REGION_NAME_MAX];
	char *path;
};

/*
 * Returns 1: the weights are at p->base, to be read only; 0: they have to be loaded to p->base, then
 * weights_keep() called; or an error.
 */
int weights_place(struct placement *p, struct weights_job *j, struct err *e);
/*
 * They are loaded: keep them for those that come later, at the same address. Anonymous memory: only
 * takes the sample. -EAGAIN: the files have changed meanwhile.
 */
int weights_keep(struct placement *p, struct weights_job *j, struct err *e);
void weights_free_job(struct weights_job *j);

/*
 * For a program that ends in the middle of loading: destroys the region that this process was filling.
 * The kernel module would keep it; a keeper needs no telling. May be called from progress().
 */
void weights_abandon(void);

#endif
