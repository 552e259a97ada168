// SPDX-License-Identifier: MIT
/* Any bytes as a safetensors file: a clear error, or tensors that lie in the file. */
#include <stdlib.h>
#include <string.h>

#include "weights/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A copy of its own: the reader writes into it, and ASan sees what lies behind. */
	struct header h = {.path = "fuzz",
			   .data = malloc(size ? size : 1),
			   .have = size,
			   .file_size = size,
			   .fd = -1};
	struct tensor_table tt = {0};
	struct err e = {""};
	int rc;

	memcpy(h.data, data, size);
	rc = safetensors_read(&h, 0, &tt, &e);
	if (!rc != !e.msg[0])
		abort();
	for (int64_t i = 0; i < tt.n && !rc; i++)
		if (tt.v[i].offset > size || tt.v[i].bytes > size - tt.v[i].offset ||
		    tensor_table_find(&tt, tt.v[i].name, strlen(tt.v[i].name)) != &tt.v[i])
			abort();
	tensor_table_free(&tt);
	free(h.data);
	return 0;
}
