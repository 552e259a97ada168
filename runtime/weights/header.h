/* SPDX-License-Identifier: MIT */
/*
 * Private to runtime/weights: the beginning of a checkpoint file in memory, and the table of
 * tensors that the format readers fill from it.
 */
#ifndef LLMDEV_WEIGHTS_HEADER_H
#define LLMDEV_WEIGHTS_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/checkpoint.h"

/* No real header comes near this (vocabularies of 256 K tokens take 15 MB). */
#define HEADER_MAX ((uint64_t)256 << 20)
/* Tensors of a whole checkpoint; the largest published ones have a quarter of it. */
#define TENSORS_MAX ((int64_t)1 << 20)

/*
 * data[0 .. have) are the first bytes of the file; header_need() reads more. `data` moves when it
 * grows: keep offsets, not pointers, until the header is whole. Reads bypass the page cache where
 * the file system allows it. A header over plain memory (tests, fuzzers) has fd = -1.
 */
struct header {
	const char *path;       /* for messages; not owned */
	uint8_t *data;
	size_t have;
	size_t mapped;          /* bytes of the mapping at data; 0: not ours */
	uint64_t file_size;
	int fd;
	bool direct;
};

/* Opens a regular file for reading; refuses anything else without blocking on it. */
int header_open(struct header *h, const char *path, struct err *e);
/* Make data[0 .. upto) available. -EINVAL: the file is shorter, or upto > HEADER_MAX. */
int header_need(struct header *h, uint64_t upto, struct err *e);
/* Gives back the memory behind the first `used` bytes; data stays where it is. */
void header_trim(struct header *h, size_t used);
/* Closes the file and, unless `keep`, frees data. Kept data is freed by header_free(). */
void header_close(struct header *h, bool keep);
void header_free(struct header *h);

/*
 * A whole small text file (JSON, template), NUL-terminated, malloc'ed. -ENOENT if it is not there;
 * -EFBIG beyond `max`.
 */
int read_small_file(const char *path, size_t max, char **out, size_t *len, struct err *e);

/* Memory for names: many small strings that end together. */
struct strpool_chunk;
struct strpool {
	struct strpool_chunk *head;
};
/* NUL-terminated copy, or NULL. */
const char *strpool_add(struct strpool *p, const char *s, size_t len);
void strpool_free(struct strpool *p);

struct tensor_table {
	struct tensor_info *v;
	int64_t n, cap;
	int64_t *slot;          /* open addressing: index + 1 into v, 0 free; 2^k slots */
	uint64_t n_slots;
	uint64_t seed;          /* of the hash: a file cannot aim its names at one slot */
	struct strpool names;
};

/*
 * Adds a copy of *t (t->name of `name_len` bytes is copied too). -EEXIST if the name is there
 * already, -E2BIG beyond TENSORS_MAX, -ENOMEM; no message is set.
 */
int tensor_table_add(struct tensor_table *tt, const struct tensor_info *t, size_t name_len);
const struct tensor_info *tensor_table_find(const struct tensor_table *tt, const char *name,
					    size_t len);
void tensor_table_free(struct tensor_table *tt);

/*
 * Checks tensors v[first .. n) of one file against each other: no two may share a byte; with
 * `packed`, they must fill [begin, end) without a hole.
 */
int tensor_table_check_ranges(const struct tensor_table *tt, int64_t first, const char *path,
			      bool packed, uint64_t begin, uint64_t end, struct err *e);

/*
 * dims[] and type -> bytes, every product checked. The fastest dimension must be whole blocks.
 * 0, or -EINVAL without a message (the caller knows the tensor's name).
 */
int tensor_bytes(enum dtype type, int n_dims, const int64_t *dims, uint64_t *bytes);

/* "[2,3]" for messages; buf is returned. */
const char *format_dims(char *buf, size_t cap, int n_dims, const int64_t *dims);

/* True if s[0 .. len) is well-formed UTF-8 without NUL. */
bool utf8_clean(const char *s, size_t len);

#endif
