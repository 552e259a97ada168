/* SPDX-License-Identifier: MIT */
/* The binder's inside, shared by bind.c and model.c only. */
#ifndef LLMDEV_MODEL_BIND_INTERNAL_H
#define LLMDEV_MODEL_BIND_INTERNAL_H

#include "model/bind.h"

struct bound_vector {
	const float **dst;
	size_t offset;
};

struct binder {
	const struct checkpoint *c;
	struct backend *backend;
	struct model *model;
	struct err *e;
	int rc;                         /* first error */
	size_t bytes;                   /* of the allocation to come */
	uint64_t params;
	int n_items;
	struct load_item *item;
	size_t *item_offset;
	int n_weights;
	struct weight **weight;         /* handed to the model */
	size_t *weight_offset;
	int n_vectors;
	struct bound_vector *vector;
	struct op dummy;
};

/* The memory is there: set every pointer. */
void binder_place(struct binder *b, char *base);
/* Frees all but `weight`. */
void binder_free(struct binder *b);

#endif
