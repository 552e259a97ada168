// SPDX-License-Identifier: MIT
/*
 * Reading the beginnings of files, and the tensor table; see header.h.
 *
 * Headers are read with O_DIRECT into a growing anonymous mapping, so that opening a checkpoint
 * leaves no trace in the page cache; file systems that refuse it get buffered reads and the pages
 * are dropped again.
 */
#include "weights/header.h"
#include "base/fnv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIRECT_ALIGN 4096u
#define FIRST_READ   ((size_t)64 << 10)

/* O_NONBLOCK: opening a FIFO must not wait for a writer; it means nothing for regular files. */
static int open_regular(const char *path, int flags, struct stat *st, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);

	if (fd < 0)
		return err_set(e, -errno, "%s: cannot be opened: %s", path, strerror(errno));
	if (fstat(fd, st)) {
		int rc = err_set(e, -errno, "%s: cannot be examined: %s", path, strerror(errno));

		close(fd);
		return rc;
	}
	if (!S_ISREG(st->st_mode)) {
		close(fd);
		return err_set(e, -EINVAL,
			       "%s: not a regular file: give a file or directory of weights", path);
	}
	return fd;
}

int header_open(struct header *h, const char *path, struct err *e)
{
	struct stat st;
	int fd = open_regular(path, O_DIRECT, &st, NULL);
	bool direct = fd >= 0;

	*h = (struct header){.fd = -1};
	if (fd < 0)
		fd = open_regular(path, 0, &st, e);
	if (fd < 0)
		return fd;
	h->path = path;
	h->fd = fd;
	h->direct = direct;
	h->file_size = (uint64_t)st.st_size;
	return 0;
}

static int grow(struct header *h, size_t bytes)
{
	void *p;

	if (bytes <= h->mapped)
		return 0;
	if (h->mapped)
		p = mremap(h->data, h->mapped, bytes, MREMAP_MAYMOVE);
	else
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	h->data = p;
	h->mapped = bytes;
	return 0;
}

/* One read at the aligned position below h->have; returns bytes gained, 0 at the end of the file. */
static ssize_t read_more(struct header *h)
{
	size_t at = h->have / DIRECT_ALIGN * DIRECT_ALIGN;
	ssize_t n;

	do {
		n = pread(h->fd, h->data + at, h->mapped - at, (off_t)at);
		if (n < 0 && errno == EINVAL && h->direct) {
			int flags = fcntl(h->fd, F_GETFL);

			h->direct = false;
			if (flags >= 0 && !fcntl(h->fd, F_SETFL, flags & ~O_DIRECT)) {
				errno = EINTR;
				continue;
			}
			errno = EINVAL;
		}
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	if (n < 0)
		return -errno;
	if (!h->direct)
		posix_fadvise(h->fd, (off_t)at, n, POSIX_FADV_DONTNEED);
	if (at + (size_t)n <= h->have)
		return 0;
	n -= (ssize_t)(h->have - at);
	h->have += (size_t)n;
	return n;
}

int header_need(struct header *h, uint64_t upto, struct err *e)
{
	if (upto <= h->have)
		return 0;
	if (upto > h->file_size)
		return err_set(e, -EINVAL,
			       "%s: truncated: the header needs %" PRIu64
			       " bytes, the file has %" PRIu64 ": fetch it again",
			       h->path, upto, h->file_size);
	if (upto > HEADER_MAX)
		return err_set(e, -EINVAL, "%s: header over %" PRIu64 " MiB: not a model file",
			       h->path, HEADER_MAX >> 20);
	if (h->fd >= 0) {
		size_t want = h->mapped ? h->mapped * 2 : FIRST_READ;

		while (want < upto)
			want *= 2;
		if (want > h->file_size)
			want = (h->file_size + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN;
		if (grow(h, want))
			return err_set(e, -ENOMEM, "%s: no memory for %zu bytes of header", h->path,
				       want);
	}
	while (h->have < upto) {
		ssize_t n = h->fd >= 0 ? read_more(h) : 0;

		if (n < 0)
			return err_set(e, (int)n, "%s: read error in the header: %s", h->path,
				       strerror((int)-n));
		if (n == 0)
			return err_set(e, -EINVAL,
				       "%s: truncated while it was read: fetch it again", h->path);
	}
	if (h->have > h->file_size)
		h->have = h->file_size;
	return 0;
}

void header_free(struct header *h)
{
	if (h->mapped)
		munmap(h->data, h->mapped);
	h->data = NULL;
	h->mapped = h->have = 0;
}

void header_trim(struct header *h, size_t used)
{
	size_t bytes = (used + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN;
	void *p;

	if (!bytes || bytes >= h->mapped)
		return;
	p = mremap(h->data, h->mapped, bytes, 0);
	if (p == MAP_FAILED)
		return;
	h->mapped = bytes;
	if (h->have > bytes)
		h->have = bytes;
}

void header_close(struct header *h, bool keep)
{
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
	if (!keep)
		header_free(h);
}

int read_small_file(const char *path, size_t max, char **out, size_t *len, struct err *e)
{
	struct stat st;
	size_t have = 0, size;
	char *buf;
	int fd = open_regular(path, 0, &st, e);

	if (fd < 0)
		return fd;
	size = (size_t)st.st_size;
	if ((uint64_t)st.st_size > max) {
		close(fd);
		return err_set(e, -EFBIG, "%s: larger than %zu MiB: not what its name says", path,
			       max >> 20);
	}
	buf = malloc(size + 1);
	if (!buf) {
		close(fd);
		return err_set(e, -ENOMEM, "%s: no memory for %zu bytes", path, size);
	}
	while (have < size) {
		ssize_t n = read(fd, buf + have, size - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int rc = err_set(e, -errno, "%s: read error: %s", path, strerror(errno));

			free(buf);
			close(fd);
			return rc;
		}
		if (n == 0)
			break;
		have += (size_t)n;
	}
	close(fd);
	buf[have] = 0;
	*out = buf;
	*len = have;
	return 0;
}

/* ---- names ---------------------------------------------------------------------------------- */

struct strpool_chunk {
	struct strpool_chunk *next;
	size_t used, cap;
	char bytes[];
};

const char *strpool_add(struct strpool *p, const char *s, size_t len)
{
	struct strpool_chunk *c = p->head;
	char *out;

	if (!c || c->cap - c->used < len + 1) {
		size_t cap = len + 1 > 16384 ? len + 1 : 16384;

		c = malloc(sizeof(*c) + cap);
		if (!c)
			return NULL;
		c->used = 0;
		c->cap = cap;
		c->next = p->head;
		p->head = c;
	}
	out = c->bytes + c->used;
	memcpy(out, s, len);
	out[len] = 0;
	c->used += len + 1;
	return out;
}

void strpool_free(struct strpool *p)
{
	while (p->head) {
		struct strpool_chunk *next = p->head->next;

		free(p->head);
		p->head = next;
	}
}

/* ---- tensor table --------------------------------------------------------------------------- */

/* FNV-1a, then mixed: names differ in few digits and the low bits index the table. */
static uint64_t hash_name(uint64_t seed, const char *s, size_t len)
{
	uint64_t h = fnv1a(FNV_START ^ seed, s, len);

	h ^= h >> 32;
	h *= 0x9e3779b97f4a7c15u;
	return h ^ h >> 29;
}

static bool name_is(const struct tensor_info *t, const char *name, size_t len)
{
	return !strncmp(t->name, name, len) && !t->name[len];
}

/* The slot that holds `name`, or the free one where it belongs. */
static uint64_t find_slot(const struct tensor_table *tt, const char *name, size_t len)
{
	uint64_t mask = tt->n_slots - 1, i = hash_name(tt->seed, name, len) & mask;

	while (tt->slot[i] && !name_is(&tt->v[tt->slot[i] - 1], name, len))
		i = (i + 1) & mask;
	return i;
}

static int grow_table(struct tensor_table *tt)
{
	int64_t cap = tt->cap ? tt->cap * 2 : 256;
	struct tensor_info *v = realloc(tt->v, (size_t)cap * sizeof(*v));
	int64_t *slot;

	if (!v)
		return -ENOMEM;
	if (!tt->cap && getrandom(&tt->seed, sizeof(tt->seed), GRND_NONBLOCK) < 0)
		tt->seed = (uintptr_t)v;
	tt->v = v;
	slot = calloc((size_t)cap * 2, sizeof(*slot));
	if (!slot)
		return -ENOMEM;
	free(tt->slot);
	tt->slot = slot;
	tt->n_slots = (uint64_t)cap * 2;
	tt->cap = cap;
	for (int64_t i = 0; i < tt->n; i++)
		slot[find_slot(tt, v[i].name, strlen(v[i].name))] = i + 1;
	return 0;
}

int tensor_table_add(struct tensor_table *tt, const struct tensor_info *t, size_t name_len)
{
	struct tensor_info *new;
	uint64_t i;

	if (tt->n >= TENSORS_MAX)
		return -E2BIG;
	if (tt->n == tt->cap && grow_table(tt))
		return -ENOMEM;
	i = find_slot(tt, t->name, name_len);
	if (tt->slot[i])
		return -EEXIST;
	new = &tt->v[tt->n];
	*new = *t;
	new->name = strpool_add(&tt->names, t->name, name_len);
	if (!new->name)
		return -ENOMEM;
	tt->slot[i] = ++tt->n;
	return 0;
}

const struct tensor_info *tensor_table_find(const struct tensor_table *tt, const char *name,
					    size_t len)
{
	uint64_t i;

	if (!tt->n_slots)
		return NULL;
	i = find_slot(tt, name, len);
	return tt->slot[i] ? &tt->v[tt->slot[i] - 1] : NULL;
}

void tensor_table_free(struct tensor_table *tt)
{
	free(tt->v);
	free(tt->slot);
	strpool_free(&tt->names);
	*tt = (struct tensor_table){0};
}

static int by_offset(const void *pa, const void *pb)
{
	const struct tensor_info *a = *(const struct tensor_info *const *)pa;
	const struct tensor_info *b = *(const struct tensor_info *const *)pb;

	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	/* Empty tensors first: they overlap nothing. */
	return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

int tensor_table_check_ranges(const struct tensor_table *tt, int64_t first, const char *path,
			      bool packed, uint64_t begin, uint64_t end, struct err *e)
{
	int64_t n = tt->n - first;
	const struct tensor_info **order = malloc((size_t)(n ? n : 1) * sizeof(*order));
	uint64_t at = begin;
	int rc = 0;

	if (!order)
		return err_set(e, -ENOMEM, "%s: no memory to sort %" PRId64 " tensors", path, n);
	for (int64_t i = 0; i < n; i++)
		order[i] = &tt->v[first + i];
	qsort(order, (size_t)n, sizeof(*order), by_offset);
	for (int64_t i = 0; i < n && !rc; i++) {
		const struct tensor_info *t = order[i];

		if (t->offset < at)
			rc = err_set(e, -EINVAL, "%s: tensor %s: overlaps %s: the file is damaged",
				     path, t->name, i ? order[i - 1]->name : "the header");
		else if (packed && t->offset != at)
			rc = err_set(e, -EINVAL,
				     "%s: tensor %s: %" PRIu64
				     " bytes before it belong to no tensor: the file is damaged",
				     path, t->name, t->offset - at);
		at = t->offset + t->bytes;
	}
	if (!rc && packed && at != end)
		rc = err_set(e, -EINVAL,
			     "%s: the last %" PRIu64
			     " bytes belong to no tensor: the file is damaged",
			     path, end - at);
	free(order);
	return rc;
}

int tensor_bytes(enum dtype type, int n_dims, const int64_t *dims, uint64_t *bytes)
{
	const struct dtype_info *d = dtype_info(type);
	uint64_t rows = 1, row;
	int64_t cols = n_dims ? dims[n_dims - 1] : 1;

	if (!d || cols < 0 || cols % d->block)
		return -EINVAL;
	for (int i = 0; i < n_dims - 1; i++)
		if (dims[i] < 0 || __builtin_mul_overflow(rows, (uint64_t)dims[i], &rows))
			return -EINVAL;
	if (__builtin_mul_overflow((uint64_t)cols / d->block, (uint64_t)d->bytes, &row))
		return -EINVAL;
	/* Elements must fit in int64_t as well: models multiply dims. */
	if (cols && rows > (uint64_t)INT64_MAX / (uint64_t)cols)
		return -EINVAL;
	return __builtin_mul_overflow(rows, row, bytes) || *bytes > INT64_MAX ? -EINVAL : 0;
}

const char *format_dims(char *buf, size_t cap, int n_dims, const int64_t *dims)
{
	size_t n = 0;

	for (int i = 0; i < n_dims && n < cap; i++)
		n += (size_t)snprintf(buf + n, cap - n, "%s%" PRId64, i ? "," : "[", dims[i]);
	if (n < cap)
		snprintf(buf + n, cap - n, "%s", n_dims ? "]" : "[]");
	return buf;
}

bool utf8_clean(const char *s, size_t len)
{
	const uint8_t *p = (const uint8_t *)s, *end = p + len;

	while (p < end) {
		uint32_t c = *p++, min;
		int n;

		if (!c)
			return false;
		if (c < 0x80)
			continue;
		if (c < 0xc2 || c > 0xf4)
			return false;
		n = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
		min = n == 1 ? 0x80 : n == 2 ? 0x800 : 0x10000;
		c &= 0x3fu >> n;
		if (end - p < n)
			return false;
		while (n--) {
			if ((*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p++ & 0x3f);
		}
		if (c < min || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
			return false;
	}
	return true;
}
