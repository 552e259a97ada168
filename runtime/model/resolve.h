/* SPDX-License-Identifier: MIT */
/*
 * From what a user types to a checkpoint's path: a path is taken as it is; a name is looked up in
 * the Hugging Face cache and in Ollama's store. Nothing is ever downloaded, and neither store is
 * written to.
 *
 *   Hugging Face   ORG/NAME, ORG/NAME@REVISION, ORG/NAME:FILTER (which of several GGUF files: a part
 *                  of its name, such as Q4_K_M). Cache: $HF_HUB_CACHE, $HF_HOME/hub,
 *                  $XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub: the first that is set.
 *   Ollama         NAME, NAME:TAG, NAMESPACE/NAME:TAG (tag: latest). Store: $OLLAMA_MODELS, else
 *                  ~/.ollama/models, /usr/share/ollama/.ollama/models, /var/lib/ollama/models.
 *
 * Ollama's files have no .gguf at the end of their names; the magic number tells what they are.
 */
#ifndef LLMDEV_MODEL_RESOLVE_H
#define LLMDEV_MODEL_RESOLVE_H

#include <stddef.h>

#include "base/err.h"

#define MODEL_PATH_MAX 4096

/* Writes the path to `path` [MODEL_PATH_MAX]. -ENOENT names the places that were searched. */
int model_resolve(const char *model, char *path, struct err *e);

struct model_entry {
	const char *source; /* "huggingface", "ollama" */
	char name[256]; /* what model_resolve() takes */
	char path[MODEL_PATH_MAX];
};

/*
 * Everything that lies in the stores, sorted by name within each store; *out is malloc'ed.
 * Broken entries (a snapshot without weights, a manifest without its blob) are left out.
 * Returns 0 or -ENOMEM.
 */
int model_list(struct model_entry **out, size_t *n, struct err *e);

#endif
