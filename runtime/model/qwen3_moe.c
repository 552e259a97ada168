// SPDX-License-Identifier: MIT
/*
 * Qwen3-MoE: Qwen3's attention; softmax router, top-k experts, no shared expert.
 * Source: transformers models/qwen3_moe.
 */
#include "model/bind.h"

static void build(struct binder *b, const struct model_config *c)
{
	build_embedding(b, c);
	for (int layer = 0; layer < c->layers; layer++) {
		build_attention(b, c, layer, true);
		build_mlp(b, c, layer);
	}
	build_head(b, c);
}

const struct model_family family_qwen3_moe = {"qwen3_moe", build};
