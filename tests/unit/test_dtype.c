// SPDX-License-Identifier: MIT
/* Element types: sizes, names, and refusal of what is no whole block. */
#include <string.h>

#include "tests/tap.h"
#include "weights/dtype.h"

static void sizes(void)
{
	static const struct {
		int type;
		const char *name;
		unsigned block, bytes;
		bool weight;
	} want[] = {
		{DTYPE_F32, "F32", 1, 4, true},	      {DTYPE_F16, "F16", 1, 2, true},
		{DTYPE_BF16, "BF16", 1, 2, true},     {DTYPE_Q4_0, "Q4_0", 32, 18, true},
		{DTYPE_Q8_0, "Q8_0", 32, 34, true},   {DTYPE_Q4_K, "Q4_K", 256, 144, true},
		{DTYPE_Q6_K, "Q6_K", 256, 210, true}, {3, "Q4_1", 32, 20, false},
		{13, "Q5_K", 256, 176, false},	      {39, "MXFP4", 32, 17, false},
		{40, "NVFP4", 64, 36, false},	      {DTYPE_F8_E4M3, "F8_E4M3", 1, 1, false},
	};

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		const struct dtype_info *d = dtype_info(want[i].type);

		CHECK(d && !strcmp(d->name, want[i].name) && d->block == want[i].block &&
			      d->bytes == want[i].bytes && d->weight == want[i].weight,
		      "%s has its block and bytes", want[i].name);
	}
	CHECK(!dtype_info(5) && !dtype_info(-1) && !dtype_info(99) && !dtype_info(1 << 30),
	      "unknown numbers are no types");
}

static void names(void)
{
	CHECK(dtype_by_name("BF16") == dtype_info(DTYPE_BF16), "BF16 by name");
	CHECK(dtype_by_name("F8_E4M3") == dtype_info(DTYPE_F8_E4M3), "F8_E4M3 by name");
	CHECK(!dtype_by_name("Q8_0"), "Q8_0 is no safetensors dtype");
	CHECK(!dtype_by_name("bf16") && !dtype_by_name(""), "names are exact");
}

static void rows(void)
{
	CHECK(dtype_row_bytes(DTYPE_BF16, 3) == 6, "three BF16");
	CHECK(dtype_row_bytes(DTYPE_Q8_0, 64) == 68, "two blocks of Q8_0");
	CHECK(dtype_row_bytes(DTYPE_Q8_0, 33) == 0, "33 elements are no blocks of Q8_0");
	CHECK(dtype_row_bytes(DTYPE_Q6_K, 255) == 0, "255 elements are no block of Q6_K");
	CHECK(dtype_row_bytes(DTYPE_F32, -4) == 0, "negative count");
	CHECK(dtype_row_bytes(DTYPE_F64, INT64_MAX) == 0, "overflow");
	CHECK(dtype_row_bytes((enum dtype)77, 4) == 0, "unknown type");
}

int main(void)
{
	sizes();
	names();
	rows();
	return tap_done();
}
