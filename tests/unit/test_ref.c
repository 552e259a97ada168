// SPDX-License-Identifier: MIT
/* The reference kernels' own arithmetic: conversions over all bit patterns, block decoders, rope. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ref/ref.h"
#include "model/model.h"
#include "tests/tap.h"

static void test_half(void)
{
	int bad = 0;

	for (uint32_t h = 0; h < 65536; h++) {
		float f = ref_f16_to_f32((uint16_t)h);

		if (isnan(f))
			bad += !isnan(ref_f16_to_f32(ref_f32_to_f16(f)));
		else
			bad += ref_f32_to_f16(f) != h;
	}
	CHECK(!bad, "f16: all 65536 patterns survive f16 -> f32 -> f16 (%d do not)", bad);
	CHECK(ref_f32_to_f16(1.0f + 0x1p-11f) == 0x3c00, "f16: a tie rounds to even (down)");
	CHECK(ref_f32_to_f16(1.0f + 3 * 0x1p-11f) == 0x3c02, "f16: a tie rounds to even (up)");
	CHECK(ref_f32_to_f16(65519.0f) == 0x7bff && ref_f32_to_f16(65520.0f) == 0x7c00,
	      "f16: overflow begins at 65520");
	CHECK(ref_f32_to_f16(0x1p-25f) == 0 && ref_f32_to_f16(0x1.8p-25f) == 1,
	      "f16: smallest subnormal");
	bad = 0;
	for (uint32_t h = 0; h < 65536; h++) {
		float f = ref_bf16_to_f32((uint16_t)h);

		bad += isnan(f) ? !isnan(ref_bf16_to_f32(ref_f32_to_bf16(f)))
				: ref_f32_to_bf16(f) != h;
	}
	CHECK(!bad, "bf16: all patterns survive the round trip (%d do not)", bad);
	CHECK(ref_f32_to_bf16(1.0f + 0x1p-8f) == 0x3f80 &&
		      ref_f32_to_bf16(1.0f + 3 * 0x1p-8f) == 0x3f82,
	      "bf16: ties round to even");
}

static void test_blocks(void)
{
	uint8_t b[256] = {0};
	float x[256];

	b[0] = 0x00, b[1] = 0x38; /* 0.5 */
	b[2] = 3, b[33] = (uint8_t)-128;
	ref_dequant_row(x, b, 32, DTYPE_Q8_0);
	CHECK(x[0] == 1.5f && x[31] == -64.0f, "Q8_0: d * q");
	memset(b, 0, sizeof(b));
	b[1] = 0x3c; /* 1 */
	b[2] = 0xf1;
	ref_dequant_row(x, b, 32, DTYPE_Q4_0);
	CHECK(x[0] == -7 && x[16] == 7 && x[1] == -8, "Q4_0: low nibbles first half, high second");
	memset(b, 0, sizeof(b));
	b[1] = 0x3c, b[3] = 0x3c; /* d = dmin = 1 */
	b[4 + 0] = 2 | 3 << 6; /* scale 0 = 2, high bits of scale 4 */
	b[4 + 4] = 5 | 1 << 6; /* min 0 = 5, high bits of min 4 */
	b[4 + 8] = 1 | 2 << 4; /* low bits of scale 4 and min 4 */
	b[16] = 0x07; /* sub-block 0, element 0; sub-block 1 element 0 = 0 */
	b[16 + 64] = 0x03; /* sub-block 4, element 0 */
	ref_dequant_row(x, b, 256, DTYPE_Q4_K);
	CHECK(x[0] == 2 * 7 - 5, "Q4_K: first sub-block");
	CHECK(x[128] == 49 * 3 - 18, "Q4_K: sub-block with split scale: %g", x[128]);
	memset(b, 0, sizeof(b));
	b[209] = 0x3c;
	b[192] = 2, b[192 + 2] = (uint8_t)-1, b[192 + 8 + 6] = 1;
	b[0] = 0x0f;
	b[128] = 0x02; /* element 0: high bits 2; elements 32.. 0 */
	ref_dequant_row(x, b, 256, DTYPE_Q6_K);
	CHECK(x[0] == 2 * ((15 | 2 << 4) - 32), "Q6_K: low and high bits");
	CHECK(x[32] == 32 && x[224] == -32, "Q6_K: signed scales, second half");
}

static void test_topk(void)
{
	const float p[6] = {1, 3, 3, 0, 2, 3};
	int idx[4];
	float val[4];

	ref_topk(p, 6, 4, idx, val);
	CHECK(idx[0] == 1 && idx[1] == 2 && idx[2] == 5 && idx[3] == 4,
	      "top-k: ties to the lower index");
}

static void test_rope_frequencies(void)
{
	struct rope_config c = {.theta = 500000,
				.scaling = ROPE_LLAMA3,
				.factor = 8,
				.original_ctx = 8192,
				.low_freq = 1,
				.high_freq = 4,
				.dims = 128};
	float f[64], factor;

	rope_frequencies(&c, f, &factor);
	CHECK(f[0] == 1 && factor == 1, "llama3: high frequencies unchanged");
	CHECK(fabs(f[63] * 8 / pow(500000, -126.0 / 128) - 1) < 1e-6,
	      "llama3: low frequencies divided");
	c = (struct rope_config){.theta = 1e6,
				 .scaling = ROPE_YARN,
				 .factor = 4,
				 .original_ctx = 32768,
				 .beta_fast = 32,
				 .beta_slow = 1,
				 .truncate = true,
				 .dims = 128};
	rope_frequencies(&c, f, &factor);
	CHECK(fabs(factor - (0.1 * log(4) + 1)) < 1e-6, "yarn: attention factor");
	CHECK(f[0] == 1 && fabs(f[63] * 4 / pow(1e6, -126.0 / 128) - 1) < 1e-6, "yarn: both ends");
}

int main(void)
{
	test_half();
	test_blocks();
	test_topk();
	test_rope_frequencies();
	return tap_done();
}
