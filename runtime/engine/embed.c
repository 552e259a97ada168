// SPDX-License-Identifier: MIT
/*
 * Embeddings: which pooling a checkpoint asks for, and vectors made of hidden states.
 *
 * The scheduler computes such a prompt like any other; the batch asks for the hidden states of the
 * rows that count. They are added up in the order of their positions, each once, whatever was
 * computed again after a preemption: the vector is the same bit for bit whatever runs beside it.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_internal.h"
#include "weights/header.h"

#define MODULES_MAX ((size_t)1 << 20)

/* ---- what the checkpoint says ---------------------------------------------------------------- */

/* A JSON file of the checkpoint's folder; NULL: there is none that can be read. */
static json_t *read_file(const struct checkpoint *c, const char *folder, const char *name)
{
	char *path, *text;
	struct err e;
	size_t len;
	json_t *out;
	int rc;

	if (asprintf(&path, "%s/%s%s%s", checkpoint_dir(c), folder, *folder ? "/" : "", name) < 0)
		return NULL;
	rc = read_small_file(path, MODULES_MAX, &text, &len, &e);
	free(path);
	if (rc)
		return NULL;
	out = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	free(text);
	return out;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

/*
 * sentence-transformers' description of a pooling layer: flags, or since its version 5 also a name.
 * Several at once are concatenated there, and not supported here.
 */
static enum engine_pooling read_pooling(const json_t *config)
{
	const char *name = json_string_value(json_object_get(config, "pooling_mode"));
	enum engine_pooling p = POOLING_NONE;
	const char *key;
	json_t *value;
	int n = 0;

	json_object_foreach ((json_t *)config, key, value) {
		if (strncmp(key, "pooling_mode_", 13) || !json_is_true(value))
			continue;
		n++;
		name = key + 13;
	}
	if (n > 1 || !name)
		return POOLING_NONE;
	if (!strcmp(name, "lasttoken"))
		p = POOLING_LAST;
	else if (!strcmp(name, "mean_tokens") || !strcmp(name, "mean"))
		p = POOLING_MEAN;
	return p;
}

/* A folder beside modules.json, and no other. */
static bool folder_ok(const char *s)
{
	return s && *s && s[0] != '.' && !strchr(s, '/') && strlen(s) < 256;
}

/* modules.json: a transformer, a pooling layer, perhaps a normalising one, and nothing else. */
static void detect_modules(const struct checkpoint *c, struct engine_info *info)
{
	json_t *list = read_file(c, "", "modules.json"), *module;
	enum engine_pooling pooling = POOLING_NONE;
	bool normalise = false, known = true;
	size_t i;

	json_array_foreach (list, i, module) {
		const char *type = json_string_value(json_object_get(module, "type"));
		const char *path = json_string_value(json_object_get(module, "path"));

		if (type && ends_with(type, ".Transformer")) {
			known &= i == 0 && (!path || !*path);
		} else if (type && ends_with(type, ".Pooling") && folder_ok(path)) {
			json_t *config = read_file(c, path, "config.json");

			known &= pooling == POOLING_NONE;
			pooling = read_pooling(config);
			json_decref(config);
		} else if (type && ends_with(type, ".Normalize")) {
			normalise = true;
		} else {
			known = false;
		}
	}
	json_decref(list);
	if (!known)
		return;
	info->pooling = pooling;
	info->normalise = normalise && pooling != POOLING_NONE;
}

/* llama.cpp's keys; its server gives vectors of length 1. */
static void detect_gguf(const struct checkpoint *c, struct engine_info *info)
{
	const json_t *config = checkpoint_config(c);
	const char *arch = json_string_value(json_object_get(config, "general.architecture"));
	char key[160];

	if (!arch)
		return;
	snprintf(key, sizeof(key), "%s.attention.causal", arch);
	if (json_is_false(json_object_get(config, key)))
		return;
	snprintf(key, sizeof(key), "%s.pooling_type", arch);
	switch (json_integer_value(json_object_get(config, key))) {
	case 1:
		info->pooling = POOLING_MEAN;
		break;
	case 3:
		info->pooling = POOLING_LAST;
		break;
	}
	info->normalise = info->pooling != POOLING_NONE;
}

void embed_detect(const struct checkpoint *c, struct engine_info *info)
{
	info->pooling = POOLING_NONE;
	info->normalise = false;
	if (checkpoint_kind(c) == CHECKPOINT_GGUF)
		detect_gguf(c, info);
	else if (checkpoint_dir(c) &&
		 !json_is_false(json_object_get(checkpoint_config(c), "is_causal")))
		detect_modules(c, info);
}

/* ---- memory ---------------------------------------------------------------------------------- */

int embed_alloc(struct engine *en, struct err *e)
{
	if (en->info.pooling == POOLING_NONE)
		return 0;
	en->max_hidden = en->info.pooling == POOLING_MEAN ? en->max_rows : en->max_seqs;
	en->batch_hidden = calloc(en->max_hidden, sizeof(*en->batch_hidden));
	en->hidden = calloc((size_t)en->max_hidden * en->info.hidden, sizeof(*en->hidden));
	if (!en->batch_hidden || !en->hidden)
		return err_set(e, -ENOMEM, "batch: out of memory: lower --chunk");
	return 0;
}

void embed_free(struct engine *en)
{
	free(en->batch_hidden);
	free(en->hidden);
}

/* ---- a step ---------------------------------------------------------------------------------- */

int embed_reusable(const struct request *r)
{
	return r->pooled && r->en->info.pooling == POOLING_MEAN ? r->n_pooled : INT_MAX;
}

void embed_add_rows(struct engine *en, struct batch *b, const struct request *r)
{
	int pos0 = r->session->n_cached, row0 = b->n_tok - r->rows;
	int from = en->info.pooling == POOLING_MEAN ? r->n_pooled : r->n_prompt - 1;

	for (int i = from > pos0 ? from - pos0 : 0; i < r->rows; i++)
		en->batch_hidden[b->n_hidden++] = row0 + i;
}

static void give_vector(struct request *r)
{
	struct engine_event ev = {.kind = ENGINE_EMBEDDING, .n_vector = r->en->info.hidden};
	int n = r->en->info.hidden;
	float *vector = r->en->hidden; /* read already, and long enough */
	double squares = 0, scale = 1;

	if (r->en->info.pooling == POOLING_MEAN)
		scale = 1.0 / r->n_prompt;
	for (int i = 0; i < n; i++)
		squares += r->pooled[i] * r->pooled[i] * scale * scale;
	if (r->en->info.normalise) /* torch's normalize() has the same floor */
		scale /= squares > 1e-24 ? sqrt(squares) : 1e-12;
	for (int i = 0; i < n; i++)
		vector[i] = (float)(r->pooled[i] * scale);
	ev.vector = vector;
	r->ns_first = engine_now_ns();
	request_emit(r, &ev);
}

void embed_take(struct engine *en, const struct batch *b)
{
	int n = en->info.hidden, k = 0;

	for (int s = 0; s < b->n_seq && k < b->n_hidden; s++) {
		struct request *r = en->batch_req[s];
		int end = b->seq[s].first + b->seq[s].n_tok;

		for (; k < b->n_hidden && b->hidden_row[k] < end; k++) {
			const float *x = b->hidden + (size_t)k * n;

			if (!r)
				continue;
			for (int i = 0; i < n; i++)
				r->pooled[i] += x[i];
			r->n_pooled = b->seq[s].pos0 + b->hidden_row[k] - b->seq[s].first + 1;
		}
	}
	for (int s = 0; s < b->n_seq; s++) {
		struct request *r = en->batch_req[s];

		if (!r || r->n_pooled < r->n_prompt || !r->pooled)
			continue;
		give_vector(r);
		request_finish(r, r->cancelled ? FINISH_CANCELLED : FINISH_STOP, false);
	}
}
