#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Make tests/fixtures/embeddings: tiny random embedding models and transformers' vectors for prompts.

    python3 tests/oracle/make_embedding_fixtures.py OUTDIR

Needs what make_fixtures.py needs, apart from llama.cpp's tools. Laid out as sentence-transformers and
llama.cpp do:
    qwen3-last     folder, names without "model.", no head; last token, length 1
    llama-mean     folder; mean over all tokens, not normalised
    qwen3-mean     GGUF with pooling_type 1; mean, length 1 as llama.cpp's server gives it
NAME/expect.json or NAME.expect.json: prompts (ids), vectors_f32_base64 (float32[hidden] each), made in
float32 from exactly the stored weights.
"""
import base64
import os
import sys

import gguf
import torch
import transformers

import make_fixtures as base

VOCAB = 96
LENGTHS = [1, 5, 64, 65, 130]
SHAPE = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, vocab_size=VOCAB, max_position_embeddings=256)


def expect(model, seed, pooling, normalise):
    gen = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(VOCAB, (n,), generator=gen).tolist() for n in LENGTHS]
    vectors = []
    for p in prompts:
        with torch.no_grad():
            h = model.model(torch.tensor([p])).last_hidden_state[0]
        v = h[-1] if pooling == "last" else h.mean(dim=0)
        vectors.append(torch.nn.functional.normalize(v, dim=0) if normalise else v)
    return {
        "hidden": SHAPE["hidden_size"], "pooling": pooling, "normalise": normalise,
        "prompts": prompts,
        "vectors_f32_base64": [base64.b64encode(v.numpy().tobytes()).decode() for v in vectors],
        "vectors_head": [[round(float(x), 5) for x in v[:4]] for v in vectors],
        "made_with": "transformers %s, torch %s, float32, eager" % (
            transformers.__version__, torch.__version__),
    }


def save_folder(out, name, model, seed, pooling, normalise, bare):
    d = os.path.join(out, name)
    os.makedirs(os.path.join(d, "1_Pooling"), exist_ok=True)
    base.round_weights(model, torch.bfloat16)
    tensors = base.on_disk(model)
    if bare:
        tensors = [(n.removeprefix("model."), t) for n, t in tensors if n != "lm_head.weight"]
    base.write_safetensors(os.path.join(d, "model.safetensors"), tensors, torch.bfloat16)
    base.dump(os.path.join(d, "config.json"), base.config(model, torch.bfloat16, True))
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalise
    base.dump(os.path.join(d, "modules.json"), [
        {"idx": i, "name": str(i), "path": "%d_%s" % (i, k) if i else "",
         "type": "sentence_transformers.models.%s" % k} for i, k in enumerate(kinds)])
    base.dump(os.path.join(d, "1_Pooling", "config.json"), {
        "word_embedding_dimension": SHAPE["hidden_size"],
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_lasttoken": pooling == "last",
        "include_prompt": True})
    base.dump(os.path.join(d, "expect.json"), expect(model, seed, pooling, normalise))


def save_gguf(out, name, model, seed):
    cfg = model.config
    base.round_weights(model, torch.float16)
    w = gguf.GGUFWriter(os.path.join(out, name + ".gguf"), "qwen3")
    w.add_name("llmdev fixture")
    w.add_block_count(cfg.num_hidden_layers)
    w.add_context_length(cfg.max_position_embeddings)
    w.add_embedding_length(cfg.hidden_size)
    w.add_feed_forward_length(cfg.intermediate_size)
    w.add_head_count(cfg.num_attention_heads)
    w.add_head_count_kv(cfg.num_key_value_heads)
    w.add_key_length(cfg.head_dim)
    w.add_value_length(cfg.head_dim)
    w.add_layer_norm_rms_eps(cfg.rms_norm_eps)
    w.add_rope_freq_base(cfg.rope_parameters["rope_theta"])
    w.add_vocab_size(cfg.vocab_size)
    w.add_tokenizer_model("none")
    w.add_pooling_type(gguf.PoolingType.MEAN)
    for key, t in base.gguf_tensors(model, False):
        t = t.detach().float() if t.ndim == 1 else t.detach().half()
        w.add_tensor(key, t.contiguous().numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    base.dump(os.path.join(out, name + ".expect.json"), expect(model, seed, "mean", True))


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: make_embedding_fixtures.py OUTDIR")
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    save_folder(out, "qwen3-last", base.build("qwen3", 21, **SHAPE, tie_word_embeddings=False), 31,
                "last", True, True)
    save_folder(out, "llama-mean", base.build("llama", 22, **SHAPE, tie_word_embeddings=True), 32,
                "mean", False, False)
    save_gguf(out, "qwen3-mean", base.build("qwen3", 23, **SHAPE, tie_word_embeddings=True), 33)


if __name__ == "__main__":
    main()
