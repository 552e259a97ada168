/* SPDX-License-Identifier: MIT */
/*
 * Random checkpoints of any shape: for benchmarks and tests without a download.
 *
 *   synth_shape.c   config.json or a preset -> shape -> the list of tensors
 *   synth_fill.c    rows of random weights in any weight type
 *   synth_write.c   safetensors and GGUF files around them
 *
 * The content is a pure function of (configuration, format, seed): not of the number of threads.
 */
#ifndef LLMCTL_SYNTH_H
#define LLMCTL_SYNTH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/dtype.h"

/* Names as users type them; NULL-terminated, for the help text. */
extern const char *const synth_presets[];

struct synth_format {
	const char *name; /* "gguf-q4_k" */
	bool gguf;
	enum dtype matrix; /* type of the matrices */
	enum dtype head; /* type of the output matrix, as llama.cpp's quantiser mixes them */
	int file_type; /* general.file_type */
};
/* NULL if unknown; synth_formats is terminated by a NULL name. */
const struct synth_format *synth_format_find(const char *name);
extern const struct synth_format synth_formats[];

enum synth_family { SYNTH_QWEN3, SYNTH_QWEN3_MOE, SYNTH_LLAMA };

struct synth_shape {
	enum synth_family family;
	int64_t hidden, layers, heads, kv_heads, head_dim, width, vocab, ctx;
	int64_t experts, experts_used, expert_width;
	bool tied;
	double eps, rope_theta;
	/* rope scaling: NULL, "llama3" or "yarn" */
	const char *rope_type;
	double rope_factor, rope_low, rope_high;
	int64_t rope_orig_ctx;
};

enum synth_content { SYNTH_RANDOM, SYNTH_ONES, SYNTH_ROPE_FREQS };

struct synth_tensor {
	char name[80];
	enum dtype type;
	int n_dims;
	int64_t dims[3]; /* slowest first */
	enum synth_content content;
	uint64_t bytes, offset; /* offset: in the data section, filled by the writer */
};

struct synth_tensors {
	struct synth_tensor *v;
	int64_t n, cap;
};

/*
 * CONFIG is a preset's name, a config.json or a directory that holds one. Returns the parsed
 * configuration (caller decrefs), NULL with a message in *e otherwise.
 */
json_t *synth_config_load(const char *config, struct err *e);
int synth_shape_parse(struct synth_shape *s, const json_t *config, struct err *e);
/* Fills *t (free t->v). `pure`: no second type for the output matrix. */
int synth_list(struct synth_tensors *t, const struct synth_shape *s, const struct synth_format *f,
	       bool pure, struct err *e);

/* Standard deviation of the random weights, as models are initialised. */
#define SYNTH_STD 0.02f
/*
 * Writes `rows` rows of `cols` elements from row `first` of tensor number `tensor`.
 * scratch: cols floats. The type must be a weight type and cols a multiple of its block.
 */
void synth_fill_random(void *dst, enum dtype type, int64_t cols, int64_t first, int64_t rows,
		       uint64_t seed, int64_t tensor, float *scratch);
/* Rows of given values (norms, rope factors). */
void synth_convert_row(void *dst, enum dtype type, const float *x, int64_t cols);

struct synth_job {
	const struct synth_shape *shape;
	const struct synth_format *format;
	const json_t *config;
	const char *out; /* directory (safetensors, made if missing) or .gguf file */
	const char *name; /* general.name */
	uint64_t seed;
	bool pure;
	int threads; /* 0: online CPUs, at most 8 */
	void (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
	/* Gives row `row` of tensor t (stacked matrices one after the other) instead of random
	 * numbers, called from several threads; may be NULL. For tests that quantise a real model. */
	void (*row)(void *ctx, const struct synth_tensor *t, int64_t row, float *x);
	void *row_ctx;
	/* asked between chunks; true ends with -EINTR and leaves no file behind; may be NULL */
	bool (*stop)(void);
};
/* Streams the file; memory stays at tens of MB whatever its size. *bytes: what was written. */
int synth_write(const struct synth_job *job, uint64_t *bytes, struct err *e);

#endif
