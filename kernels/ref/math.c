// SPDX-License-Identifier: MIT
/* Reference kernels: products, norms, rotation, softmax, selection; see ref.h. */
#include "kernels/ref/ref.h"

#include <math.h>

void ref_matvec(float *y, const void *w, enum dtype type, int64_t rows, int64_t cols,
		const float *x, float *row)
{
	size_t stride = dtype_row_bytes(type, cols);

	for (int64_t r = 0; r < rows; r++) {
		double sum = 0;

		ref_dequant_row(row, (const char *)w + r * stride, cols, type);
		for (int64_t c = 0; c < cols; c++)
			sum += (double)row[c] * x[c];
		y[r] = (float)sum;
	}
}

void ref_rmsnorm(float *y, const float *x, const float *w, int n, float eps)
{
	double sum = 0;
	float scale;

	for (int i = 0; i < n; i++)
		sum += (double)x[i] * x[i];
	scale = (float)(1.0 / sqrt(sum / n + eps));
	for (int i = 0; i < n; i++)
		y[i] = x[i] * scale * w[i];
}

void ref_rope(float *head, int dims, bool interleaved, const float *cos, const float *sin)
{
	for (int i = 0; i < dims / 2; i++) {
		float *a = interleaved ? &head[2 * i] : &head[i];
		float *b = interleaved ? &head[2 * i + 1] : &head[i + dims / 2];
		float x = *a, y = *b;

		*a = x * cos[i] - y * sin[i];
		*b = y * cos[i] + x * sin[i];
	}
}

void ref_softmax(float *x, int n)
{
	double sum = 0;
	float max = -INFINITY;

	for (int i = 0; i < n; i++)
		max = fmaxf(max, x[i]);
	for (int i = 0; i < n; i++) {
		x[i] = expf(x[i] - max);
		sum += x[i];
	}
	for (int i = 0; i < n; i++)
		x[i] = (float)(x[i] / sum);
}

float ref_silu(float x)
{
	return x / (1.0f + expf(-x));
}

void ref_topk(const float *p, int n, int k, int *idx, float *val)
{
	for (int j = 0; j < k; j++) {
		int best = -1;

		for (int i = 0; i < n; i++) {
			bool taken = false;

			for (int t = 0; t < j; t++)
				taken |= idx[t] == i;
			if (!taken && (best < 0 || p[i] > p[best]))
				best = i;
		}
		idx[j] = best;
		val[j] = p[best];
	}
}
