/* SPDX-License-Identifier: MIT */
/*
 * The smallest model there can be, made at test time, in memory where there is a file system for
 * that: tests of scheduling open an engine thousands of times. Its context is 2,048, its pages of
 * f32 take 16 KiB.
 */
#ifndef LLMDEV_TEST_TINY_MODEL_H
#define LLMDEV_TEST_TINY_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/llmctl/synth.h"

#define TINY_PAGE_BYTES 16384 /* KV_F32 */

struct tiny_model {
	char dir[64]; /* to be used as scratch, too */
	char path[96]; /* what an engine opens */
};

static const char *const tiny_files[] = {"config.json", "model.safetensors", "tokenizer.json",
					 "tokenizer_config.json", "generation_config.json"};

__attribute__((unused)) static void tiny_model_remove(const struct tiny_model *t)
{
	char name[192];

	for (size_t i = 0; i < sizeof(tiny_files) / sizeof(tiny_files[0]); i++) {
		snprintf(name, sizeof(name), "%s/%s", t->path, tiny_files[i]);
		unlink(name);
	}
	rmdir(t->path);
	rmdir(t->dir);
}

static bool tiny_model_copy(const char *from_dir, const char *to_dir, const char *name)
{
	char path[192], buf[65536];
	FILE *from, *to;
	bool ok;
	size_t n;

	if (!from_dir)
		return true;
	snprintf(path, sizeof(path), "%s/%s", from_dir, name);
	from = fopen(path, "r");
	snprintf(path, sizeof(path), "%s/%s", to_dir, name);
	to = from ? fopen(path, "w") : NULL;
	while (to && (n = fread(buf, 1, sizeof(buf), from)) > 0)
		fwrite(buf, 1, n, to);
	ok = from && to && !ferror(from) && !ferror(to);
	if (from)
		fclose(from);
	if (to)
		ok &= !fclose(to);
	return ok;
}

/* The tokenizer and its special ids are those of the model in the directory; NULL: none. */
static bool tiny_model_make(struct tiny_model *t, int vocab, const char *tokenizer_of)
{
	static const char config[] =
		"{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\","
		"\"hidden_act\":\"silu\",\"num_hidden_layers\":2,\"hidden_size\":32,"
		"\"intermediate_size\":32,\"num_attention_heads\":2,\"num_key_value_heads\":1,"
		"\"head_dim\":16,\"max_position_embeddings\":2048,\"rms_norm_eps\":1e-6,"
		"\"rope_theta\":10000,\"attention_bias\":false,\"tie_word_embeddings\":true}";
	json_t *json = json_loads(config, 0, NULL);
	struct synth_shape shape;
	struct synth_job job = {.shape = &shape,
				.format = synth_format_find("f32"),
				.config = json,
				.out = t->path,
				.name = "tiny",
				.seed = 1,
				.threads = 1};
	struct err e = {"no memory, or nowhere to write"};
	uint64_t bytes;
	bool ok;

	strcpy(t->dir, access("/dev/shm", W_OK) ? "/tmp/tiny.XXXXXX" : "/dev/shm/tiny.XXXXXX");
	ok = json && !json_object_set_new(json, "vocab_size", json_integer(vocab)) &&
	     mkdtemp(t->dir);
	snprintf(t->path, sizeof(t->path), "%s/model", t->dir);
	ok = ok && !synth_shape_parse(&shape, json, &e) && !synth_write(&job, &bytes, &e);
	for (size_t i = 2; ok && i < sizeof(tiny_files) / sizeof(tiny_files[0]); i++)
		ok = tiny_model_copy(tokenizer_of, t->path, tiny_files[i]);
	if (!ok)
		printf("# a model to test with: %s\n", e.msg);
	json_decref(json);
	return ok;
}

#endif
