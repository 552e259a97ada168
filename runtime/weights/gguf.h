/* SPDX-License-Identifier: MIT */
/*
 * The header of one GGUF file: metadata and tensor list. Private to runtime/weights. The format
 * (versions 2 and 3, little endian) is described in ggml's docs/gguf.md.
 */
#ifndef LLMDEV_WEIGHTS_GGUF_H
#define LLMDEV_WEIGHTS_GGUF_H

#include "weights/header.h"

struct gguf_key_array {
	const char *key;        /* in gguf_meta.names */
	uint32_t type;
	uint64_t count;
	size_t offset;          /* of the first element in the header's bytes */
};

struct gguf_meta {
	json_t *config;         /* as checkpoint_config() promises */
	struct gguf_key_array *arrays;
	size_t n_arrays, cap_arrays;
	struct strpool names;
	uint64_t json_elements; /* of all arrays in config */
	uint64_t n_tensors;     /* in this file */
};

/*
 * Fills *m and adds the tensors to *tt. `h` must outlive the use of m->arrays' offsets. On failure
 * the caller still calls gguf_meta_free() and frees *tt. Errors name the file and the key or tensor.
 */
int gguf_read(struct header *h, int file, struct tensor_table *tt, struct gguf_meta *m,
	      struct err *e);
void gguf_meta_free(struct gguf_meta *m);

/* NULL if there is no array of that name. */
const struct gguf_key_array *gguf_meta_array(const struct gguf_meta *m, const char *key);

/* A non-negative integer of the metadata; `missing` if there is none of that name. */
int64_t gguf_meta_int(const struct gguf_meta *m, const char *key, int64_t missing);

#endif
