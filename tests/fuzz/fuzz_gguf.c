// SPDX-License-Identifier: MIT
/* Any bytes as a GGUF file: a clear error, or tensors and arrays that lie in the file. */
#include <stdlib.h>
#include <string.h>

#include "weights/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every string of every array must lie in the header. */
static void walk(const struct header *h, const struct gguf_key_array *a)
{
	const uint8_t *p = h->data + a->offset, *end = h->data + h->have;
	uint64_t len;

	if (a->type != 8) {
		if (a->count > (uint64_t)(end - p))
			abort();
		return;
	}
	for (uint64_t i = 0; i < a->count; i++) {
		const char *s = gguf_array_str(&p, &len);

		if ((const uint8_t *)s + len > end)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct header h = {.path = "fuzz",
			   .data = malloc(size ? size : 1),
			   .have = size,
			   .file_size = size,
			   .fd = -1};
	struct tensor_table tt = {0};
	struct gguf_meta m;
	struct err e = {""};
	int rc;

	memcpy(h.data, data, size);
	rc = gguf_read(&h, 0, &tt, &m, &e);
	if (!rc != !e.msg[0])
		abort();
	for (int64_t i = 0; i < tt.n && !rc; i++)
		if (tt.v[i].offset > size || tt.v[i].bytes > size - tt.v[i].offset)
			abort();
	for (size_t i = 0; i < m.n_arrays && !rc; i++)
		walk(&h, &m.arrays[i]);
	gguf_meta_free(&m);
	tensor_table_free(&tt);
	free(h.data);
	return 0;
}
