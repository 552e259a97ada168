// SPDX-License-Identifier: MIT
/*
 * Fuzz target: any bytes as a region of weights. The magic, the version and the sum are made right, so
 * that the rest is looked at. Every byte that an index that is accepted points to is read.
 */
#include <stdlib.h>
#include <string.h>

#include "weights/region_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch(const struct region_index *x, const uint8_t *region)
{
	volatile size_t sum = strlen(x->label) + strlen(x->path) + strlen(x->head->backend) +
			      strlen(x->head->isa);

	for (uint32_t i = 0; i < x->head->n_tensors; i++) {
		const struct region_tensor *t = &x->tensor[i];
		const uint8_t *at = region + x->head->data_at + t->offset;

		sum += strlen(region_index_name(x, (int)i));
		if (t->bytes)
			sum += (size_t)(at[0] + at[t->bytes - 1]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *region = malloc(size ? size : 1);
	struct region_head *h = (struct region_head *)region;
	struct region_index x;
	struct err e = {""};

	memcpy(region, data, size);
	if (size >= sizeof(*h)) {
		memcpy(h->magic, REGION_INDEX_MAGIC, sizeof(h->magic));
		h->version = REGION_INDEX_VERSION;
		if (h->index_bytes >= sizeof(*h) && h->index_bytes <= size)
			h->head_sum = region_index_sum(region, h->index_bytes);
	}
	if (!region_index_read(&x, region, size, &e))
		touch(&x, region);
	else if (!e.msg[0])
		abort();
	free(region);
	return 0;
}
