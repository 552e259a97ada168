// SPDX-License-Identifier: MIT
/*
 * Llama 2 and 3 (also llama2.c's stories): no biases unless config.json says attention_bias, no q/k norm.
 * Source: transformers models/llama.
 */
#include "model/bind.h"

static void build(struct binder *b, const struct model_config *c)
{
	build_embedding(b, c);
	for (int layer = 0; layer < c->layers; layer++) {
		build_attention(b, c, layer, false);
		build_mlp(b, c, layer);
	}
	build_head(b, c);
}

const struct model_family family_llama = {"llama", build};
