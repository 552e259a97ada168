// SPDX-License-Identifier: MIT
/*
 * Rotary frequencies. Formulas: transformers' modeling_rope_utils (default, linear, llama3, yarn);
 * frequencies are rounded to float where transformers computes in float32.
 */
#include <math.h>

#include "model/model.h"

static double llama3_frequency(const struct rope_config *c, double freq)
{
	double wavelength = 2 * M_PI / freq, smooth;

	if (wavelength < c->original_ctx / c->high_freq)
		return freq;
	if (wavelength > c->original_ctx / c->low_freq)
		return freq / c->factor;
	smooth = (c->original_ctx / wavelength - c->low_freq) / (c->high_freq - c->low_freq);
	return (1 - smooth) * freq / c->factor + smooth * freq;
}

/* The (fractional) dimension that makes `rotations` turns over the original context. */
static double yarn_dim(const struct rope_config *c, double rotations)
{
	return c->dims * log(c->original_ctx / (rotations * 2 * M_PI)) / (2 * log(c->theta));
}

static void yarn_range(const struct rope_config *c, double *low, double *high)
{
	*low = yarn_dim(c, c->beta_fast);
	*high = yarn_dim(c, c->beta_slow);
	if (c->truncate) {
		*low = floor(*low);
		*high = ceil(*high);
	}
	*low = fmax(*low, 0);
	*high = fmin(*high, c->dims - 1);
	if (*low == *high)
		*high += 0.001;
}

void rope_frequencies(const struct rope_config *c, float *inv_freq, float *attn_factor)
{
	double low = 0, high = 1;

	*attn_factor = 1;
	if (c->scaling == ROPE_YARN) {
		yarn_range(c, &low, &high);
		*attn_factor = (float)(c->attn_factor > 0 ? c->attn_factor
				       : c->factor > 1	  ? 0.1 * log(c->factor) + 1
							  : 1);
	}
	for (int i = 0; i < c->dims / 2; i++) {
		double freq = pow(c->theta, -2.0 * i / c->dims), ramp;

		switch (c->scaling) {
		case ROPE_DEFAULT:
			break;
		case ROPE_LINEAR:
			freq /= c->factor;
			break;
		case ROPE_LLAMA3:
			freq = llama3_frequency(c, freq);
			break;
		case ROPE_YARN:
			ramp = fmin(fmax((i - low) / (high - low), 0), 1);
			freq = freq / c->factor * ramp + freq * (1 - ramp);
			break;
		}
		inv_freq[i] = (float)freq;
	}
}

void model_rope_extend(struct model *m, int n)
{
	struct rope *r = &m->rope;
	int half = r->dims / 2;

	for (; m->rope_ready < n; m->rope_ready++) {
		size_t at = (size_t)m->rope_ready * half;

		for (int i = 0; i < half; i++) {
			double angle = (double)m->rope_ready * r->inv_freq[i];

			r->cos[at + i] = (float)cos(angle) * r->attn_factor;
			r->sin[at + i] = (float)sin(angle) * r->attn_factor;
		}
	}
}
