// SPDX-License-Identifier: MIT
/*
 * From a block of a file to the places of the tensors in it; see load_internal.h.
 *
 * Blocks are cut without regard to rows. A group of rows that lies in one block is packed straight
 * from it; the pieces of one that lies in several are gathered in a carry buffer, and whoever
 * brings the last piece packs it.
 */
#include "weights/load_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The bytes [begin, end) of an item's tensor, at src. */
struct piece {
	const uint8_t *src;
	uint64_t begin, end;
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void copy_plain(const struct load_item *it, uint64_t matrix_bytes, struct piece p)
{
	while (p.begin < p.end) {
		uint64_t matrix = p.begin / matrix_bytes, at = p.begin % matrix_bytes;
		uint64_t n = min_u64(matrix_bytes - at, p.end - p.begin);

		memcpy((uint8_t *)it->dst + matrix * it->stride + at, p.src, n);
		p.src += n;
		p.begin += n;
	}
}

/* Takes the carry of this group off the list, or makes a new one; NULL: no memory. */
static struct load_carry *carry_get(struct loader *l, int item, uint64_t group, size_t size)
{
	struct load_carry **pp, *c;

	for (pp = &l->carries; *pp; pp = &(*pp)->next)
		if ((*pp)->item == item && (*pp)->group == group)
			return *pp;
	c = malloc(sizeof(*c) + size);
	if (!c)
		return NULL;
	*c = (struct load_carry){.next = l->carries, .item = item, .group = group, .size = size};
	l->carries = c;
	return c;
}

static void carry_unlink(struct loader *l, const struct load_carry *c)
{
	struct load_carry **pp = &l->carries;

	while (*pp != c)
		pp = &(*pp)->next;
	*pp = c->next;
}

/*
 * Adds n bytes at `at` of a group to its carry. *whole is the carry if these were the last missing
 * bytes: it is then the caller's, who frees it. Different pieces never touch the same bytes, so the
 * copy itself needs no lock.
 */
static int carry_add(struct loader *l, int item, uint64_t group, size_t size, const uint8_t *src,
		     size_t at, size_t n, struct load_carry **whole)
{
	struct load_carry *c;

	*whole = NULL;
	pthread_mutex_lock(&l->lock);
	c = carry_get(l, item, group, size);
	pthread_mutex_unlock(&l->lock);
	if (!c)
		return -ENOMEM;
	memcpy(c->bytes + at, src, n);
	pthread_mutex_lock(&l->lock);
	c->filled += n;
	if (c->filled == c->size) {
		carry_unlink(l, c);
		*whole = c;
	}
	pthread_mutex_unlock(&l->lock);
	return 0;
}

/* pack() may load whole elements: odd headers put them at odd addresses. */
static const uint8_t *aligned(const struct loader *l, const uint8_t *src, size_t n,
			      uint8_t **scratch)
{
	size_t cap = 0;

	if (!((uintptr_t)src & 3))
		return src;
	if (!*scratch) {
		for (int i = 0; i < l->n_items; i++) {
			const struct load_item *it = l->items[i];
			size_t group = dtype_row_bytes(it->t->type, it->cols) *
				       (size_t)(it->pack.pack ? it->pack.group_rows : 0);

			cap = group > cap ? group : cap;
		}
		*scratch = malloc(cap);
		if (!*scratch)
			return NULL;
	}
	return memcpy(*scratch, src, n);
}

static int copy_packed(struct loader *l, int item, size_t row_bytes, struct piece p,
		       uint8_t **scratch)
{
	const struct load_item *it = l->items[item];
	uint64_t group_rows = (uint64_t)it->pack.group_rows, rows = (uint64_t)it->rows;
	uint64_t matrix_bytes = row_bytes * rows, group_src = row_bytes * group_rows;
	uint64_t groups = (rows + group_rows - 1) / group_rows, at = p.begin;

	while (at < p.end) {
		uint64_t matrix = at / matrix_bytes, g = at % matrix_bytes / group_src;
		uint64_t n_rows = min_u64(group_rows, rows - g * group_rows);
		uint64_t begin = matrix * matrix_bytes + g * group_src;
		uint64_t end = begin + n_rows * row_bytes, stop = min_u64(end, p.end);
		uint8_t *dst = (uint8_t *)it->dst + matrix * it->stride + g * it->pack.group_bytes;
		const uint8_t *src = p.src + (at - p.begin);
		struct load_carry *whole = NULL;

		if (at == begin && stop == end) {
			src = aligned(l, src, end - begin, scratch);
			if (!src)
				return -ENOMEM;
		} else {
			int rc = carry_add(l, item, matrix * groups + g, end - begin, src,
					   at - begin, stop - at, &whole);

			if (rc)
				return rc;
			src = whole ? whole->bytes : NULL;
		}
		if (src)
			it->pack.pack(dst, src, (int)n_rows, it->cols, it->t->type);
		free(whole);
		at = stop;
	}
	return 0;
}

int load_copy_block(struct loader *l, int block, const uint8_t *buf, uint8_t **scratch,
		    struct err *e)
{
	const struct load_block *b = &l->blocks[block];
	uint64_t begin = b->offset, end = b->offset + b->need;

	for (int s = b->first_source; s < l->n_sources; s++) {
		const struct load_source *src = &l->sources[s];
		const struct tensor_info *t = src->t;
		uint64_t from, to;

		if (t->file != b->file || t->offset >= end)
			break;
		from = t->offset > begin ? t->offset : begin;
		to = min_u64(t->offset + t->bytes, end);
		if (from >= to)
			continue;
		for (int i = src->first_item; i < src->first_item + src->n_items; i++) {
			const struct load_item *it = l->items[i];
			size_t row_bytes = dtype_row_bytes(t->type, it->cols);
			struct piece p = {buf + (from - begin), from - t->offset, to - t->offset};
			int rc = 0;

			if (it->pack.pack)
				rc = copy_packed(l, i, row_bytes, p, scratch);
			else
				copy_plain(it, row_bytes * (uint64_t)it->rows, p);
			if (rc)
				return err_set(e, rc, "%s: tensor %s: no memory to repack it",
					       l->files[b->file].path, t->name);
		}
	}
	return 0;
}
