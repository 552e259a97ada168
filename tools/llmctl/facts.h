/* SPDX-License-Identifier: MIT */
/*
 * What can be said of a checkpoint from its headers alone: shapes, bytes, what decoding reads, what
 * fits into this machine. Nothing is loaded. Works, with fewer facts, for families that the runtime
 * cannot run.
 */
#ifndef LLMCTL_FACTS_H
#define LLMCTL_FACTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/config.h"
#include "weights/checkpoint.h"

enum facts_part {
	PART_EMBEDDING,
	PART_ATTENTION,
	PART_FFN,
	PART_EXPERTS,
	PART_ROUTER,
	PART_NORMS,
	PART_HEAD,
	PART_OTHER,
	N_PARTS,
};
extern const char *const facts_part_names[N_PARTS];

#define FACTS_MAX_TYPES 24

struct facts_type {
	const char *name; /* "Q4_K" */
	int64_t tensors;
	uint64_t bytes;
};

struct facts {
	bool runs; /* the runtime has this family and these types */
	char why[512]; /* why not */
	char family[64]; /* "qwen3_moe", or what the file calls itself */
	bool gguf;
	int n_files;
	struct model_config config; /* valid if config_known */
	bool config_known;
	uint64_t params, bytes; /* elements and bytes of all tensors */
	uint64_t part[N_PARTS]; /* bytes */
	struct facts_type type[FACTS_MAX_TYPES];
	int n_types;
	bool tied; /* the embedding is the output matrix too */
	uint64_t bytes_per_token; /* weights read to decode one token; active experts only */
	uint64_t kv_per_token; /* bf16 */
	uint64_t mem_available; /* of this machine, now */
	int64_t ctx_fits; /* positions beside the weights, at most the model's own */
	bool fits; /* the weights and one KV page */
};

/* Opens, reads and closes the checkpoint at `path` (see model/resolve.h for names). */
int facts_read(struct facts *f, const char *path, struct err *e);

/* Tokens per second that `bandwidth` bytes/s allow at an empty context; 0 if unknown. */
double facts_ceiling(const struct facts *f, double bandwidth);

/* "1.19 GB": decimal units, three digits; returns buf. */
#define FACTS_SIZE 16
const char *facts_bytes(char buf[FACTS_SIZE], uint64_t n);

#endif
