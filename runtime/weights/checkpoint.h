/* SPDX-License-Identifier: MIT */
/*
 * A checkpoint opened for reading: which tensors lie where, and its metadata.
 *
 * One view over a directory (config.json + model.safetensors or shards with
 * model.safetensors.index.json) and over GGUF files (one, or -00001-of-N split). Opening reads and
 * validates headers only; tensor data is never touched here (load.h reads it). Everything returned
 * is owned by the checkpoint and lives until checkpoint_close(). Read-only after opening, so it
 * may be used by several threads.
 */
#ifndef LLMDEV_CHECKPOINT_H
#define LLMDEV_CHECKPOINT_H

#include <jansson.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/dtype.h"

#define TENSOR_MAX_DIMS 8       /* GGUF: 4; safetensors of vision towers have 5 (conv3d) */

struct tensor_info {
	const char *name;
	enum dtype type;
	int n_dims;                     /* 0 (scalar) .. TENSOR_MAX_DIMS */
	int64_t dims[TENSOR_MAX_DIMS];  /* slowest first, as safetensors: Linear = [out, in] */
	int file;                       /* index into checkpoint_files() */
	uint64_t offset;                /* absolute in that file */
	uint64_t bytes;                 /* validated: inside the file, equal to type x dims */
};

enum checkpoint_kind { CHECKPOINT_SAFETENSORS, CHECKPOINT_GGUF };

struct checkpoint;

/*
 * `path`: a directory, a .safetensors file (its directory is meant), or a .gguf file (any part of
 * a split set). Errors name the file and the field.
 */
int checkpoint_open(struct checkpoint **out, const char *path, struct err *e);
void checkpoint_close(struct checkpoint *c);

enum checkpoint_kind checkpoint_kind(const struct checkpoint *c);
/* What the user gave, for messages. */
const char *checkpoint_path(const struct checkpoint *c);
/* Directory that holds config.json, tokenizer.json ...; NULL for GGUF. */
const char *checkpoint_dir(const struct checkpoint *c);

int checkpoint_n_files(const struct checkpoint *c);
const char *checkpoint_file(const struct checkpoint *c, int i);

int64_t checkpoint_n_tensors(const struct checkpoint *c);
const struct tensor_info *checkpoint_tensor(const struct checkpoint *c, int64_t i);
/* NULL if there is none of that name. O(1). */
const struct tensor_info *checkpoint_find(const struct checkpoint *c, const char *name);

/*
 * HF: the parsed config.json. GGUF: every metadata key as a member of one object
 * ("qwen3.block_count": 28), arrays as arrays, except the big tokenizer arrays
 * (tokenizer.ggml.tokens/scores/token_type/merges) and any other of more than GGUF_JSON_ARRAY_MAX
 * elements (or beyond a million of them in all), which are reached by checkpoint_gguf_array().
 * NaN and infinities become null, a u64 beyond INT64_MAX becomes a real. Borrowed reference.
 */
#define GGUF_JSON_ARRAY_MAX 65536
const json_t *checkpoint_config(const struct checkpoint *c);
/* generation_config.json if there is one (HF), else NULL. Borrowed reference. */
const json_t *checkpoint_generation_config(const struct checkpoint *c);
/* The chat template's source: chat_template.jinja, tokenizer_config.json's or GGUF's key; or NULL. */
const char *checkpoint_chat_template(const struct checkpoint *c);

/* A string or number array of GGUF metadata, without copying. */
struct gguf_array {
	uint32_t type;          /* GGUF value type of the elements (8 = string, 5 = i32, 6 = f32 ...) */
	uint64_t count;
	const uint8_t *data;    /* numbers: packed little endian, unaligned; strings: see gguf_array_str */
};
/* Any array of the metadata, small ones too. -ENOENT without such a key, -EINVAL if it is none. */
int checkpoint_gguf_array(const struct checkpoint *c, const char *key, struct gguf_array *a);
/*
 * Walk a string array: *p starts at a->data; returns the bytes and length (no NUL), advances *p.
 * At most a->count calls: the lengths were checked when the file was opened. The bytes may be
 * anything (vocabularies hold partial UTF-8).
 */
const char *gguf_array_str(const uint8_t **p, uint64_t *len);

#endif
