// SPDX-License-Identifier: MIT
/*
 * The binder: collects what a family asks for, checks it against the checkpoint, and turns it into
 * one allocation and one list of load items. Lives only inside model_load().
 */
#include "model/bind_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ref/ref.h"

#define WEIGHT_ALIGN 256

/*
 * Fill in layer (and expert) and look the tensor up. `name` gets the full name. A model saved without
 * its head, as embedding models are, has no "model." in front of its names.
 */
static const struct tensor_info *find(struct binder *b, struct tensor_name n, int layer, int expert,
				      char *name, size_t cap)
{
	const char *pattern = checkpoint_kind(b->c) == CHECKPOINT_GGUF ? n.gguf : n.hf;
	int number[2] = {layer, expert}, k = 0;
	size_t len = 0;

	for (const char *p = pattern; *p && len + 16 < cap; p++) {
		if (p[0] == '%' && p[1] == 'd' && k < 2) {
			len += snprintf(name + len, cap - len, "%d", number[k++]);
			p++;
		} else {
			name[len++] = *p;
		}
	}
	name[len] = 0;
	if (checkpoint_kind(b->c) == CHECKPOINT_SAFETENSORS && !strncmp(name, "model.", 6) &&
	    !checkpoint_find(b->c, name))
		return checkpoint_find(b->c, name + 6);
	return checkpoint_find(b->c, name);
}

static void shape_text(char *s, size_t cap, const int64_t *dims, int n)
{
	size_t len = snprintf(s, cap, "[");

	for (int i = 0; i < n && len < cap; i++)
		len += snprintf(s + len, cap - len, "%s%" PRId64, i ? ", " : "", dims[i]);
	if (len < cap)
		snprintf(s + len, cap - len, "]");
}

static void fail_shape(struct binder *b, const struct tensor_info *t, const int64_t *want, int n)
{
	char has[96], needs[96];

	shape_text(has, sizeof(has), t->dims, t->n_dims);
	shape_text(needs, sizeof(needs), want, n);
	b->rc = err_set(b->e, -EINVAL,
			"%s: tensor %s: shape %s where the configuration needs %s: do config and "
			"weights belong together?",
			checkpoint_file(b->c, t->file), t->name, has, needs);
}

static void fail_missing(struct binder *b, const char *name)
{
	b->rc = err_set(b->e, -ENOENT, "%s: tensor %s: missing: is the checkpoint complete?",
			checkpoint_path(b->c), name);
}

static bool has_shape(const struct tensor_info *t, const int64_t *want, int n)
{
	return t->n_dims == n && !memcmp(t->dims, want, n * sizeof(want[0]));
}

/* The tensor of this name and shape; NULL with the error set. */
static const struct tensor_info *require(struct binder *b, struct tensor_name n, int layer,
					 int expert, const int64_t *want, int n_dims)
{
	const struct tensor_info *t;
	char name[160];

	t = find(b, n, layer, expert, name, sizeof(name));
	if (!t)
		fail_missing(b, name);
	else if (!has_shape(t, want, n_dims))
		fail_shape(b, t, want, n_dims);
	return b->rc ? NULL : t;
}

/* Make room for one more element in a doubling array. */
static bool grow(struct binder *b, void *array, int count, size_t size)
{
	void **p = array, *q;

	if (count & (count - 1))
		return true;
	q = reallocarray(*p, count ? 2 * (size_t)count : 1, size);
	if (!q) {
		b->rc = err_set(b->e, -ENOMEM, "%s: out of memory while binding tensors",
				checkpoint_path(b->c));
		return false;
	}
	*p = q;
	return true;
}

/* Reserve bytes in the one allocation to come; returns the offset. */
static size_t reserve(struct binder *b, size_t bytes)
{
	size_t at = (b->bytes + WEIGHT_ALIGN - 1) / WEIGHT_ALIGN * WEIGHT_ALIGN;

	if (bytes > SIZE_MAX / 2 - at) {
		b->rc = err_set(b->e, -EOVERFLOW, "%s: weights larger than memory can be",
				checkpoint_path(b->c));
		return 0;
	}
	b->bytes = at + bytes;
	return at;
}

static void add_item(struct binder *b, struct load_item item, size_t offset)
{
	if (!grow(b, &b->item, b->n_items, sizeof(*b->item)) ||
	    !grow(b, &b->item_offset, b->n_items, sizeof(*b->item_offset)))
		return;
	b->item[b->n_items] = item;
	b->item_offset[b->n_items++] = offset;
}

/* Layout, size and place of a weight; its tensors follow as load items. */
static struct weight *new_weight(struct binder *b, const struct tensor_info *t, int64_t count,
				 int64_t rows, int64_t cols, size_t *offset)
{
	struct weight *w;
	int64_t groups;

	if (!grow(b, &b->weight, b->n_weights, sizeof(*b->weight)) ||
	    !grow(b, &b->weight_offset, b->n_weights, sizeof(*b->weight_offset)))
		return NULL;
	w = calloc(1, sizeof(*w));
	if (!w) {
		b->rc = err_set(b->e, -ENOMEM, "%s: out of memory while binding tensors",
				checkpoint_path(b->c));
		return NULL;
	}
	b->weight[b->n_weights] = w;
	*w = (struct weight){.type = t->type, .rows = rows, .cols = cols, .count = count};
	b->rc = b->backend->weight_layout(b->backend, t->type, rows, cols, &w->pack, b->e);
	if (b->rc) {
		err_prefix(b->e, b->rc, "%s: tensor %s", checkpoint_file(b->c, t->file), t->name);
		b->n_weights++;
		return NULL;
	}
	groups = (rows + w->pack.group_rows - 1) / w->pack.group_rows;
	w->stride = groups * w->pack.group_bytes;
	*offset = reserve(b, (size_t)count * w->stride);
	b->weight_offset[b->n_weights++] = *offset;
	b->params += (uint64_t)count * rows * cols;
	return b->rc ? NULL : w;
}

/* `count` of w's matrices come from t; the first goes to `offset`. */
static void add_weight_item(struct binder *b, const struct tensor_info *t, const struct weight *w,
			    int64_t count, size_t offset)
{
	struct load_item item = {
		.t = t,
		.count = count,
		.rows = w->rows,
		.cols = w->cols,
		.pack = w->pack,
		.stride = w->stride,
	};

	add_item(b, item, offset);
}

const struct weight *bind_matrix(struct binder *b, struct tensor_name n, int layer, int64_t rows,
				 int64_t cols)
{
	const int64_t want[2] = {rows, cols};
	const struct tensor_info *t;
	struct weight *w;
	size_t offset;

	t = b->rc ? NULL : require(b, n, layer, 0, want, 2);
	if (!t)
		return NULL;
	for (int i = 0; i < b->n_items; i++) /* tied embedding */
		if (b->item[i].t == t)
			for (int j = 0; j < b->n_weights; j++)
				if (b->weight_offset[j] == b->item_offset[i])
					return b->weight[j];
	w = new_weight(b, t, 1, rows, cols, &offset);
	if (w)
		add_weight_item(b, t, w, 1, offset);
	return w;
}

const struct weight *bind_experts(struct binder *b, struct tensor_name n, int layer, int64_t count,
				  int64_t rows, int64_t cols)
{
	bool stacked = checkpoint_kind(b->c) == CHECKPOINT_GGUF;
	const int64_t want[3] = {count, rows, cols};
	struct weight *w = NULL;
	size_t offset = 0;

	for (int j = 0; j < (stacked ? 1 : count) && !b->rc; j++) {
		const struct tensor_info *t;

		t = require(b, n, layer, j, stacked ? want : want + 1, stacked ? 3 : 2);
		if (t && !w)
			w = new_weight(b, t, count, rows, cols, &offset);
		if (!t || !w)
			break;
		if (t->type != w->type)
			b->rc = err_set(
				b->e, -EINVAL,
				"%s: tensor %s: type differs from expert 0's: mixed experts "
				"are not supported",
				checkpoint_file(b->c, t->file), t->name);
		else
			add_weight_item(b, t, w, stacked ? count : 1, offset + j * w->stride);
	}
	return b->rc ? NULL : w;
}

static void pack_to_float(void *dst, const void *src, int rows, int64_t cols, enum dtype type)
{
	ref_dequant_row(dst, src, rows * cols, type);
}

void bind_vector(struct binder *b, const float **dst, struct tensor_name n, int layer, int len)
{
	const int64_t want[1] = {len};
	const struct tensor_info *t;
	size_t offset;

	t = b->rc ? NULL : require(b, n, layer, 0, want, 1);
	if (!t)
		return;
	if (t->type != DTYPE_F32 && t->type != DTYPE_F16 && t->type != DTYPE_BF16) {
		b->rc = err_set(b->e, -EOPNOTSUPP,
				"%s: tensor %s: type %s: a vector must be F32, F16 or BF16",
				checkpoint_file(b->c, t->file), t->name,
				dtype_info(t->type) ? dtype_info(t->type)->name : "unknown");
		return;
	}
	if (!grow(b, &b->vector, b->n_vectors, sizeof(*b->vector)))
		return;
	offset = reserve(b, (size_t)len * sizeof(float));
	b->vector[b->n_vectors++] = (struct bound_vector){dst, offset};
	b->params += len;
	add_item(b,
		 (struct load_item){.t = t,
				    .count = 1,
				    .rows = 1,
				    .cols = len,
				    .pack = {1, (size_t)len * sizeof(float), pack_to_float},
				    .stride = (size_t)len * sizeof(float)},
		 offset);
}

bool bind_has(struct binder *b, struct tensor_name n, int layer)
{
	char name[160];

	return find(b, n, layer, 0, name, sizeof(name)) != NULL;
}

struct op *plan_add(struct binder *b, enum op_kind kind, int layer)
{
	struct plan *p = &b->model->plan;
	struct op *op;

	if (p->n_ops == PLAN_MAX_OPS) {
		if (!b->rc)
			b->rc = err_set(b->e, -E2BIG, "%s: more layers than a plan holds (%d ops)",
					checkpoint_path(b->c), PLAN_MAX_OPS);
		op = &b->dummy;
	} else {
		op = &p->ops[p->n_ops++];
	}
	memset(op, 0, sizeof(*op));
	op->kind = kind;
	op->layer = layer;
	return op;
}

const struct rope *bind_rope(struct binder *b)
{
	return &b->model->rope;
}

void binder_place(struct binder *b, char *base)
{
	for (int i = 0; i < b->n_items; i++)
		b->item[i].dst = base + b->item_offset[i];
	for (int i = 0; i < b->n_weights; i++)
		b->weight[i]->data = base + b->weight_offset[i];
	for (int i = 0; i < b->n_vectors; i++)
		*b->vector[i].dst = (const float *)(base + b->vector[i].offset);
}

void binder_free(struct binder *b)
{
	free(b->item);
	free(b->item_offset);
	free(b->weight_offset);
	free(b->vector);
}
